//! `isotherm sync`: returns when everything written before it is durable [I1].

use std::process::ExitCode;

use super::Outcome;
use super::args::Sync;
use super::running::find;

pub(super) fn run(arguments: &Sync) -> Outcome {
    let pool = find(&arguments.target)?;
    // What the kernel still holds (memory mappings, -o writeback) goes to the daemon first.
    std::fs::File::open(&pool.status.mountpoint)
        .and_then(|directory| nix::unistd::syncfs(&directory).map_err(Into::into))
        .map_err(|error| format!("{}: {error}", pool.status.mountpoint))?;
    pool.client.sync().map_err(|error| {
        let why = error.to_string();
        format!("{} is not durable: {}", pool.status.name, why.trim_start_matches("error: "))
    })?;
    Ok(ExitCode::SUCCESS)
}
