//! Finding the daemon that is meant by a mount point or a pool's name.

use std::path::Path;

use crate::control::RunningPool;
use crate::pool::mounting::{MountEntry, mountpoint_of, our_mounts, running_pools};

/// The mounted pool that `target` means: its name, its UUID, its mount point, or a path inside it.
pub(super) fn find(target: &str) -> Result<RunningPool, String> {
    let mut pools = running_pools();
    if let Some(index) = meant(&pools, target)? {
        return Ok(pools.swap_remove(index));
    }
    if pools.is_empty() {
        return Err(format!(
            "\"{target}\": no pool is mounted; `isotherm list` shows what there is"
        ));
    }
    Err(format!("\"{target}\" is not mounted; mounted are: {}", named(&pools)))
}

/// As [`find`], but none is no error.
pub(super) fn find_if_any(target: &str) -> Result<Option<RunningPool>, String> {
    let mut pools = running_pools();
    Ok(meant(&pools, target)?.map(|index| pools.swap_remove(index)))
}

/// Which of `pools` is meant. A name that several of them have means none of them.
fn meant(pools: &[RunningPool], target: &str) -> Result<Option<usize>, String> {
    if let Some(index) = pools.iter().position(|pool| pool.status.uuid == target) {
        return Ok(Some(index));
    }
    let mut so_named = (0..pools.len()).filter(|&index| pools[index].status.name == target);
    if let Some(first) = so_named.next() {
        return match so_named.next() {
            None => Ok(Some(first)),
            Some(_) => Err(format!(
                "several mounted pools are named \"{target}\": {}; name its mount point",
                named(pools.iter().filter(|pool| pool.status.name == target))
            )),
        };
    }
    let path = mountpoint_of(Path::new(target));
    let inside = |&index: &usize| path.starts_with(&pools[index].status.mountpoint);
    // The deepest of nested mounts.
    let length = |&index: &usize| pools[index].status.mountpoint.len();
    Ok((0..pools.len()).filter(inside).max_by_key(length))
}

fn named<'a>(pools: impl IntoIterator<Item = &'a RunningPool>) -> String {
    let name = |pool: &RunningPool| format!("{} on {}", pool.status.name, pool.status.mountpoint);
    pools.into_iter().map(name).collect::<Vec<_>>().join(", ")
}

/// The mount of ours that `target` means by its path or source, whether its daemon lives or not.
pub(super) fn find_mount(target: &str) -> Option<MountEntry> {
    let path = mountpoint_of(Path::new(target));
    let mounts = our_mounts();
    let by_path = mounts.iter().rposition(|mount| mount.mountpoint == path);
    let by_source = || {
        let mut all = (0..mounts.len()).rev().filter(|&index| mounts[index].source == target);
        // One that several have means none.
        all.next().filter(|_| all.next().is_none())
    };
    let index = by_path.or_else(by_source)?;
    mounts.into_iter().nth(index)
}

/// Whether a process with this number is still there, not counting one that is dead but not reaped.
pub(super) fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name in parentheses may contain anything; the state follows the last one.
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}
