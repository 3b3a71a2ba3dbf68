//! What the command line may know of mounts: it names no room above but this one.

use std::path::{Path, PathBuf};

use super::daemon::{clear_dead_mount, is_dead_mount};
use super::host::Host;
use crate::base::sync::Arc;
use crate::control::{Daemons, PoolStatus, RunningPool};
use crate::frontend::memory::{Contents, MemoryFileSystem};
use crate::frontend::session::{MOUNT_TYPE, Mount, MountError, MountOptions};
use crate::namespace::Caller;

pub use crate::frontend::mounts::{MountEntry, find_mount, mountpoint_of, mounts};
pub use crate::frontend::session::{abandon, unmount};

/// Where daemons keep their sockets: root's below /run, a user's below XDG_RUNTIME_DIR.
pub fn run_directory() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/run/isotherm");
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) => PathBuf::from(directory).join("isotherm"),
        None => std::env::temp_dir().join(format!("isotherm-{}", nix::unistd::geteuid())),
    }
}

/// All pools of this user whose daemons answer.
pub fn running_pools() -> Vec<RunningPool> {
    crate::control::running_pools(&run_directory())
}

/// Mounts of this user that nobody answers for, each with what is known and what to do.
pub fn unanswered() -> Vec<PoolStatus> {
    let Daemons { running, silent } = crate::control::daemons(&run_directory());
    if !silent.is_empty() {
        // Asking a mount whose daemon hangs would hang too.
        return silent;
    }
    let user = nix::unistd::geteuid().as_raw();
    let answers = |mount: &MountEntry| {
        running.iter().any(|pool| Path::new(&pool.status.mountpoint) == mount.mountpoint)
    };
    let mounts = our_mounts().into_iter().filter(|mount| mount.user == Some(user));
    let dead = mounts.filter(|mount| !answers(mount) && is_dead_mount(&mount.mountpoint));
    let status = |mount: MountEntry| {
        let at = mount.mountpoint.display().to_string();
        let advice = format!(
            "its daemon has died; what was synced is safe: isotherm mount {} {at} mounts it again, and \
             the log of the daemon may tell why",
            mount.source
        );
        PoolStatus::no_daemon(&mount.source, &at, 0, advice)
    };
    dead.map(status).collect()
}

/// Mounts of ours, in the order in which they were made.
pub fn our_mounts() -> Vec<MountEntry> {
    mounts().into_iter().filter(|mount| mount.kind == MOUNT_TYPE).collect()
}

/// Mounts a file system that does nothing and serves it until it is unmounted: what FUSE itself
/// costs. Mount options and workers are those of a pool.
pub fn serve_null(
    host: &Host,
    mountpoint: &Path,
    change: impl FnOnce(&mut MountOptions),
) -> Result<(), MountError> {
    clear_dead_mount(mountpoint);
    let owner =
        Caller { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() };
    let fs = MemoryFileSystem::new(Contents::Discarded, host.clock(), owner);
    let mut options = MountOptions::for_current_user("bench-null");
    change(&mut options);
    let mount = Mount::new(Arc::new(fs), mountpoint, &options)?;
    mount.serve().map_err(MountError::Handshake)
}
