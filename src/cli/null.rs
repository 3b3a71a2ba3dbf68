//! `isotherm bench-null`: the same transport and mount options as a pool, over nothing.

use std::io::Write;
use std::process::ExitCode;

use super::{Outcome, args};
use crate::pool::daemon;
use crate::pool::host::Host;

/// Mounts it, and serves until it is unmounted.
pub fn run(args: args::BenchNull) -> Outcome {
    let host = Host::start();
    daemon::run_null(&host, &args.mountpoint, || {
        println!("ready");
        let _ = std::io::stdout().flush();
    })?;
    Ok(ExitCode::SUCCESS)
}
