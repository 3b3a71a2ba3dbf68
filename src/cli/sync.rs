//! `isotherm sync`: what syncfs(2) cannot do, because it never reaches a FUSE daemon.

use std::process::ExitCode;

use super::{Outcome, args};

/// Makes everything written so far durable.
pub fn run(args: args::Sync) -> Outcome {
    let pool = super::umount::find(&args.target)
        .ok_or_else(|| format!("{} is not a mounted pool", args.target.display()))?;
    // What programs have mapped or the kernel holds back reaches the daemon first.
    nix::unistd::sync();
    pool.client.sync()?;
    Ok(ExitCode::SUCCESS)
}
