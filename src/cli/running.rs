//! Finding the daemon that is meant by a mount point or a pool's name.

use std::path::Path;

use crate::control::RunningPool;
use crate::pool::mounting::{MountEntry, mountpoint_of, our_mounts, running_pools};

/// The mounted pool that `target` means: its name, its UUID, its mount point, or a path inside it.
pub(super) fn find(target: &str) -> Result<RunningPool, String> {
    let mut pools = running_pools();
    let exact = pools
        .iter()
        .position(|pool| pool.status.name == target || pool.status.uuid == target)
        .or_else(|| {
            let path = mountpoint_of(Path::new(target));
            let inside = |pool: &&RunningPool| path.starts_with(&pool.status.mountpoint);
            // The deepest of nested mounts.
            let best = pools.iter().filter(inside).max_by_key(|pool| pool.status.mountpoint.len());
            let uuid = best?.status.uuid.clone();
            pools.iter().position(|pool| pool.status.uuid == uuid)
        });
    match exact {
        Some(index) => Ok(pools.swap_remove(index)),
        None if pools.is_empty() => {
            Err(format!("\"{target}\": no pool is mounted; `isotherm list` shows what there is"))
        }
        None => {
            let names: Vec<String> = pools
                .iter()
                .map(|pool| format!("{} on {}", pool.status.name, pool.status.mountpoint))
                .collect();
            Err(format!("\"{target}\" is not mounted; mounted are: {}", names.join(", ")))
        }
    }
}

/// The mount of ours that `target` means by its path or source, whether its daemon lives or not.
pub(super) fn find_mount(target: &str) -> Option<MountEntry> {
    let path = mountpoint_of(Path::new(target));
    let is_meant = |mount: &MountEntry| mount.mountpoint == path || mount.source == target;
    our_mounts().into_iter().rev().find(is_meant)
}

/// Whether a process with this number is still there, not counting one that is dead but not reaped.
pub(super) fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name in parentheses may contain anything; the state follows the last one.
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}
