//! A mount, from `mount(2)` to the last request.
//!
//! Root mounts by itself, with the type `fuse.isotherm` and the pool's name as source: fuser drops the
//! subtype when it mounts as root, and the type is what makes umount(8) call `umount.fuse.isotherm`,
//! which waits for a clean pool [R27]. Anybody else mounts through fusermount3.
//!
//! Order, and what a failure after each step leaves:
//!
//! 1. `/dev/fuse` is opened: nothing.
//! 2. `mount(2)`: a mount that answers "transport endpoint is not connected" once the descriptor is
//!    closed; it is taken away again on every failure from here on.
//! 3. INIT is answered: the mount works as soon as workers run.
//! 4. `read_ahead_kb` is raised: 128 KiB starve streams from hard disks. Failing that is no error.
//! 5. The workers run, until the last user has gone and the mount with it.
//!
//! The descriptor must be opened *after* the disks' threads have left the common descriptor table: one
//! that hangs in the kernel would otherwise keep a dead mount alive.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};

use super::file_system::FileSystem;
use super::fuse::Transport;
use super::mounts::{find_mount, mountpoint_of};
use crate::base::sync::Arc;
use crate::base::units::MIB;

/// The file system's type is `fuse.` and this.
pub const SUBTYPE: &str = "isotherm";
/// The file system's type as `/proc/self/mountinfo` shows it.
pub const MOUNT_TYPE: &str = "fuse.isotherm";
/// Workers by default. Each may block; reading goes on while writers wait.
pub const THREADS_DEFAULT: usize = 16;
/// Requests that the kernel may have under way for read-ahead and asynchronous I/O.
pub const MAX_BACKGROUND_DEFAULT: u16 = 128;
/// Read-ahead of the mount in KiB: four shards, so that a stream keeps several disks busy.
pub const READ_AHEAD_KIB_DEFAULT: u32 = 8192;

/// How to mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountOptions {
    /// What `mount` and `df` show as the source: the pool's name.
    pub source: String,
    /// Users other than the one who mounts may look in. On for root.
    pub allow_other: bool,
    /// No changes.
    pub read_only: bool,
    /// Programs may not be run from it.
    pub no_exec: bool,
    /// suid and sgid bits mean nothing. Off for root, as on any local file system.
    pub no_suid: bool,
    /// Device nodes mean nothing. Off for root, as on any local file system.
    pub no_dev: bool,
    /// Passed to the kernel for `mount`'s output; access times are the daemon's.
    pub no_atime: bool,
    /// Every write waits until it is durable.
    pub synchronous: bool,
    /// The kernel's write-back cache. Off: it costs sequential writes 40 % (reference: crates 1b), and
    /// the daemon would not see writes in order [I2].
    pub writeback: bool,
    /// Workers, at least 3 to keep two for reading [R27].
    pub threads: usize,
    /// Requests under way for read-ahead and asynchronous I/O; at least 64.
    pub max_background: u16,
    /// Read-ahead in KiB; 0 leaves the kernel's.
    pub read_ahead_kib: u32,
}

impl MountOptions {
    /// The defaults for the user who asks: root's mounts are as those of any local file system.
    pub fn for_current_user(source: &str) -> MountOptions {
        let root = nix::unistd::geteuid().is_root();
        MountOptions {
            source: source.to_string(),
            allow_other: root,
            read_only: false,
            no_exec: false,
            no_suid: !root,
            no_dev: !root,
            no_atime: false,
            synchronous: false,
            writeback: false,
            threads: THREADS_DEFAULT,
            max_background: MAX_BACKGROUND_DEFAULT,
            read_ahead_kib: READ_AHEAD_KIB_DEFAULT,
        }
    }
}

/// Why a mount did not come about.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel has no FUSE, or this user may not use it.
    #[error("cannot open /dev/fuse: {0}; is the fuse module loaded, and may this user use it?")]
    Device(#[source] io::Error),
    /// Not a directory, or not reachable.
    #[error("cannot mount on {}: {source}", path.display())]
    Mountpoint {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("mounting on {} failed: {source}", path.display())]
    Mount {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Mounted, but the kernel and we did not agree on INIT.
    #[error("the kernel's FUSE handshake failed: {0}")]
    Handshake(#[source] io::Error),
}

/// A mount that is ready to be served.
pub struct Mount {
    transport: Transport,
    mountpoint: PathBuf,
}

impl Mount {
    /// Mounts `fs` on the directory `mountpoint`. Requests wait until [`Mount::serve`] runs.
    pub fn new(
        fs: Arc<dyn FileSystem>,
        mountpoint: &Path,
        options: &MountOptions,
    ) -> Result<Mount, MountError> {
        let refuse = |source| MountError::Mountpoint { path: mountpoint.to_path_buf(), source };
        let path = fs::canonicalize(mountpoint).map_err(refuse)?;
        let kind = fs::metadata(&path).map_err(refuse)?;
        if !kind.is_dir() {
            return Err(refuse(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        let transport = if nix::unistd::geteuid().is_root() {
            mount_as_root(fs, &path, kind.mode(), options)?
        } else {
            // fusermount3 opens it as this user, and says no more than that it was refused.
            open_device()?;
            Transport::by_fusermount(fs, &path, options)
                .map_err(|source| MountError::Mount { path: path.clone(), source })?
        };
        raise_read_ahead(&path, options.read_ahead_kib);
        Ok(Mount { transport, mountpoint: path })
    }

    /// Where it is mounted, as an absolute path without symbolic links.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Answers requests with the configured number of workers until the file system is unmounted.
    pub fn serve(self) -> io::Result<()> {
        self.transport.run()
    }
}

/// Steps 1 to 3 of the module's list.
fn mount_as_root(
    fs: Arc<dyn FileSystem>,
    path: &Path,
    root_mode: u32,
    options: &MountOptions,
) -> Result<Transport, MountError> {
    let device: OwnedFd = open_device()?.into();
    let data = mount_data(device.as_raw_fd(), root_mode, options);
    nix::mount::mount(
        Some(options.source.as_str()),
        path,
        Some(MOUNT_TYPE),
        mount_flags(options),
        Some(data.as_str()),
    )
    .map_err(|source| MountError::Mount { path: path.to_path_buf(), source: source.into() })?;
    Transport::from_device(fs, device, options).map_err(|error| {
        let _ = nix::mount::umount2(path, MntFlags::MNT_DETACH);
        MountError::Handshake(error)
    })
}

fn open_device() -> Result<fs::File, MountError> {
    fs::File::options().read(true).write(true).open("/dev/fuse").map_err(MountError::Device)
}

fn mount_flags(options: &MountOptions) -> MsFlags {
    let mut flags = MsFlags::empty();
    flags.set(MsFlags::MS_RDONLY, options.read_only);
    flags.set(MsFlags::MS_NOEXEC, options.no_exec);
    flags.set(MsFlags::MS_NOSUID, options.no_suid);
    flags.set(MsFlags::MS_NODEV, options.no_dev);
    flags.set(MsFlags::MS_NOATIME, options.no_atime);
    flags.set(MsFlags::MS_SYNCHRONOUS, options.synchronous);
    flags
}

fn mount_data(device: i32, root_mode: u32, options: &MountOptions) -> String {
    format!(
        "fd={device},rootmode={root_mode:o},user_id={},group_id={},default_permissions{},max_read={}",
        nix::unistd::getuid(),
        nix::unistd::getgid(),
        if options.allow_other { ",allow_other" } else { "" },
        max_write_bytes(),
    )
}

/// Largest request: 1 MiB, or what the administrator raised `fs.fuse.max_pages_limit` to.
pub(super) fn max_write_bytes() -> u32 {
    const FUSER_MAX: u64 = 16 * MIB;
    let pages = fs::read_to_string("/proc/sys/fs/fuse/max_pages_limit")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or(256);
    pages.saturating_mul(4096).clamp(MIB, FUSER_MAX) as u32
}

/// [R27] Only root may; others keep the kernel's 128 KiB.
fn raise_read_ahead(path: &Path, kib: u32) {
    if kib == 0 || !nix::unistd::geteuid().is_root() {
        return;
    }
    let Some(mount) = find_mount(path) else { return };
    let file = format!("/sys/class/bdi/{}/read_ahead_kb", mount.device);
    if let Err(error) = fs::write(&file, kib.to_string()) {
        log::warn!("read-ahead stays at 128 KiB: cannot write {file}: {error}");
    }
}

/// Takes the mount on `mountpoint` away, as the user that we are. With `lazy` at once from sight, and
/// in truth when its last user has gone; without, a mount in use is refused.
pub fn unmount(mountpoint: &Path, lazy: bool) -> io::Result<()> {
    let flags = if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    unmount_with(mountpoint, flags)
}

/// Takes a mount away whose daemon is dead or hangs: whoever still waits for an answer of it gets an
/// error (as root; for others they wait on), which also lets a killed daemon's last threads end.
pub fn abandon(mountpoint: &Path) -> io::Result<()> {
    unmount_with(mountpoint, MntFlags::MNT_DETACH | MntFlags::MNT_FORCE)
}

fn unmount_with(mountpoint: &Path, flags: MntFlags) -> io::Result<()> {
    let path = mountpoint_of(mountpoint);
    if nix::unistd::geteuid().is_root() {
        return nix::mount::umount2(&path, flags | MntFlags::UMOUNT_NOFOLLOW).map_err(Into::into);
    }
    let mut command = std::process::Command::new("fusermount3");
    command.arg("-u");
    if flags.contains(MntFlags::MNT_DETACH) {
        command.arg("-z");
    }
    let output = command.arg("--").arg(&path).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    let kind = if said.contains("busy") {
        io::ErrorKind::ResourceBusy
    } else {
        io::ErrorKind::PermissionDenied
    };
    Err(io::Error::new(kind, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_data_names_what_the_kernel_needs() {
        let mut options = MountOptions::for_current_user("tank");
        options.allow_other = true;
        let data = mount_data(7, 0o40755, &options);
        assert!(data.starts_with("fd=7,rootmode=40755,user_id="), "{data}");
        assert!(data.contains(",default_permissions,allow_other,max_read="), "{data}");
        options.allow_other = false;
        assert!(!mount_data(7, 0o40755, &options).contains("allow_other"));
    }

    #[test]
    fn flags_follow_the_options() {
        let mut options = MountOptions::for_current_user("tank");
        options.no_suid = false;
        options.no_dev = false;
        assert_eq!(mount_flags(&options), MsFlags::empty());
        options.read_only = true;
        options.no_suid = true;
        assert_eq!(mount_flags(&options), MsFlags::MS_RDONLY | MsFlags::MS_NOSUID);
    }

    #[test]
    fn requests_are_at_least_a_mebibyte() {
        assert!(u64::from(max_write_bytes()) >= MIB);
    }
}
