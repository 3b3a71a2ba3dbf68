//! `isotherm umount`: returns when the pool is clean [I1, R27].

use std::path::Path;
use std::process::ExitCode;

use super::{Outcome, args};
use crate::control::running_pools;
use crate::pool::daemon;

/// Unmounts, and waits.
pub fn run(args: args::Umount) -> Outcome {
    let Some(pool) = find(&args.target) else {
        let mountpoint = args.target.as_path();
        if daemon::clear_dead_mount(mountpoint) {
            println!("{}: the daemon had died; the next mount recovers", mountpoint.display());
            return Ok(ExitCode::SUCCESS);
        }
        return Err(format!(
            "{} is neither a mounted pool nor its mount point; `isotherm status` shows them",
            args.target.display()
        )
        .into());
    };
    let pending = pool.client.wait()?;
    let mountpoint = Path::new(&pool.status.mountpoint);
    daemon::unmount_at(mountpoint, args.lazy).map_err(|error| {
        format!(
            "{} cannot be unmounted: {error}; `fuser -vm {0}` shows who uses it",
            mountpoint.display()
        )
    })?;
    match pending.finish()?.as_str() {
        "clean" => Ok(ExitCode::SUCCESS),
        other => Err(format!("pool {} is not clean: {other}", pool.status.name).into()),
    }
}

/// The running pool with this name, UUID or mount point.
pub(super) fn find(target: &Path) -> Option<crate::control::RunningPool> {
    let text = target.display().to_string();
    let resolved = daemon::mountpoint_of(target).display().to_string();
    running_pools().into_iter().find(|pool| {
        let status = &pool.status;
        status.name == text || status.uuid == text || status.mountpoint == resolved
    })
}
