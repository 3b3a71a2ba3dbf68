//! `isotherm inspect`: what is on one disk.

use std::path::Path;
use std::process::ExitCode;

use super::args::{Inspect, Structure};
use super::printing::{parse_size, print};
use super::{Outcome, explain};
use crate::pool::inspect;

pub(super) fn run(arguments: &Inspect) -> Outcome {
    let done = match &arguments.what {
        Structure::Label { device } => inspect::label(device, &mut print),
        Structure::Root { device } => inspect::root(device, &mut print),
        Structure::Journal { device } => inspect::journal(device, &mut print),
        Structure::Object { device, id } => inspect::object(device, id.as_deref(), &mut print),
        Structure::Layout { device } if Path::new(device).exists() => {
            inspect::layout(Path::new(device), &mut print)
        }
        Structure::Layout { device } => {
            let bytes = parse_size(device)
                .map_err(|error| format!("{device} is no disk that is here; {error}"))?;
            inspect::layout_of_size(bytes).map(|text: String| {
                print(&text);
            })
        }
    };
    done.map_err(|error| explain(&error))?;
    Ok(ExitCode::SUCCESS)
}
