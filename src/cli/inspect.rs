//! `isotherm inspect`: what is on a disk, as text. It reads only, and needs no pool.

use std::process::ExitCode;

use super::args::InspectWhat;
use super::{Outcome, args};
use crate::pool::host::Host;

/// Prints it.
pub fn run(args: args::Inspect) -> Outcome {
    let host = Host::start();
    let text = match &args.what {
        InspectWhat::Label { device } => host.inspect_label(device)?,
        InspectWhat::Root { device } => host.inspect_root(device)?,
        InspectWhat::Journal { device } => host.inspect_journal(device)?,
        InspectWhat::Object { device, unit } => host.inspect_object(device, *unit)?,
        InspectWhat::Layout { device } => host.inspect_layout(device)?,
    };
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}
