//! `isotherm bench-null`: the baseline of the benchmarks, in the foreground until it is unmounted.

use std::process::ExitCode;

use super::args::BenchNull;
use super::mount_options::MountFlags;
use super::{Outcome, explain};
use crate::pool::host::Host;
use crate::pool::mounting::serve_null;

pub(super) fn run(arguments: &BenchNull) -> Outcome {
    let flags = MountFlags::parse(&arguments.options)?;
    let host = Host::start();
    serve_null(&host, &arguments.mountpoint, |options| {
        options.allow_other = flags.allow_other.unwrap_or(options.allow_other);
        options.writeback = flags.writeback;
        options.threads = flags.threads.unwrap_or(options.threads);
        options.read_ahead_kib = flags.read_ahead_kib.unwrap_or(options.read_ahead_kib);
    })
    .map_err(|error| explain(&error))?;
    Ok(ExitCode::SUCCESS)
}
