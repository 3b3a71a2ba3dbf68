//! The daemon: from disks to a served mount, and back to a clean pool.
//!
//! 1. Members are found by their labels; missing ones are awaited for a while.
//! 2. The pool is opened: disks first, so that their threads have left the common descriptor table
//!    before anything else is opened.
//! 3. The file system is mounted, and the admin socket opened.
//! 4. Whoever started us is told, and requests are served until the file system is unmounted.
//! 5. The pool is closed; only then those who wait at the admin socket are told [R27].

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::assemble::AssembleError;
use super::events::{Reporter, Teller};
use super::face::{Face, check_open};
use super::host::{Found, FoundDisk, Host};
use super::memory::Trimmer;
use super::mounting::{run_directory, running_pools};
use super::open::{OpenError, OpenOptions, OpenPool, ReadOnly};
use super::plan::use_in_words;
use super::returned::{Lookout, Returns, Sightings};
use crate::base::limits::MEMBERS_WAIT_SECONDS;
use crate::base::sync::Arc;
use crate::base::{DiskIndex, Event, PoolUuid};
use crate::control::{CheckError, CheckReport, PoolStatus, Server, Tell};
use crate::fleet::disk::error::ProbeError;
use crate::fleet::disk::probe::uses;
use crate::format::Label;
use crate::frontend::mounts::find_mount;
use crate::frontend::session::{Mount, MountError, MountOptions, abandon, unmount};
use crate::namespace::{Caller, NamespaceError};

/// What to mount, where, and how.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// A pool's name or UUID; None: the pool that `devices` belong to.
    pub pool: Option<String>,
    /// Where to look for members; empty: every block device.
    pub devices: Vec<PathBuf>,
    /// Where to mount.
    pub mountpoint: PathBuf,
    /// How to open the pool.
    pub open: OpenOptions,
    /// How to mount; the source is filled in.
    pub mount: MountOptions,
    /// How long to wait for members that are not there.
    pub members_wait: Duration,
    /// Run with a description of each event as its argument.
    pub on_event: Option<String>,
}

/// How long members are awaited by default.
pub const MEMBERS_WAIT: Duration = Duration::from_secs(MEMBERS_WAIT_SECONDS);
/// How often it is looked for missing members.
const LOOK: Duration = Duration::from_millis(500);
/// How long a disk may still be held by a daemon that has just ended: the kernel lets go of an
/// io_uring's files a moment after its process.
const RELEASE_WAIT: Duration = Duration::from_secs(3);

/// Why a pool is not mounted.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// No disk of such a pool.
    #[error("no disk of a pool \"{pool}\" was found; `isotherm list` shows what there is")]
    NotFound {
        /// As asked for.
        pool: String,
    },
    /// The devices belong to several pools, or the name is not unique.
    #[error("these are disks of several pools: {pools}; name one by its UUID")]
    Ambiguous {
        /// Their names and UUIDs.
        pools: String,
    },
    /// Another daemon has it.
    #[error("pool {name} is mounted on {mountpoint} already, by process {pid}")]
    Mounted {
        /// Its name.
        name: String,
        /// Where.
        mountpoint: String,
        /// By whom.
        pid: u32,
    },
    /// Somebody has a disk of it [R7, R24].
    #[error("{path} is in use: {by}; end that first")]
    InUse {
        /// Which disk.
        path: String,
        /// By whom, in words.
        by: String,
    },
    /// A disk cannot be used.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The pool cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The admin socket, or serving.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A check has no result.
    #[error("the check: {0}")]
    Check(#[from] CheckError),
    /// Closing failed: the pool is not clean, what was synced is safe.
    #[error("the pool could not be closed cleanly: {0}")]
    Close(NamespaceError),
}

/// Mounts, serves, and closes. `ready` is called once the mount works.
pub fn run(host: &Host, options: DaemonOptions, ready: impl FnOnce()) -> Result<(), DaemonError> {
    clear_dead_mount(&options.mountpoint);
    let Found { disks, refused } = find_members(host, &options)?;
    let candidates = open_candidates(host, &disks, options.open.assemble.read_only)?;
    let pool = host.open_pool(candidates, options.open.clone())?;
    let teller = Teller::new(host.clock(), &pool.label.pool_name, options.on_event.clone());
    teller.tell_opening(&pool, &refused);
    let mut mount_options = options.mount.clone();
    mount_options.source = pool.label.pool_name.clone();
    mount_options.read_only |= pool.read_only != ReadOnly::No;
    let mount = Mount::new(Arc::new(pool.namespace.clone()), &options.mountpoint, &mount_options);
    let mount = match mount {
        Ok(mount) => mount,
        Err(error) => {
            pool.close().map_err(DaemonError::Close)?;
            return Err(error.into());
        }
    };
    let server = start_control(host, &pool, mount.mountpoint(), teller, options.devices.clone())?;
    stop_on_signals(host, mount.mountpoint());
    ready();
    let served = mount.serve();
    server.end_checks();
    let closed = pool.close();
    server.close(&match &closed {
        Ok(()) => "clean".to_string(),
        Err(error) => format!("error: {error}"),
    });
    served.map_err(|source| DaemonError::Io { what: "serving the mount", source })?;
    closed.map_err(DaemonError::Close)
}

/// The directory of sockets; nobody else's, and nobody else may look in.
fn make_run_directory() -> Result<PathBuf, DaemonError> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let directory = run_directory();
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    let checked = made.and_then(|()| {
        let owner = std::fs::symlink_metadata(&directory)?.uid();
        let ours = owner == nix::unistd::geteuid().as_raw();
        let refused =
            || io::Error::other(format!("{} belongs to user {owner}", directory.display()));
        ours.then_some(()).ok_or_else(refused)
    });
    checked.map_err(|source| DaemonError::Io { what: "opening the admin socket", source })?;
    Ok(directory)
}

fn start_control(
    host: &Host,
    pool: &OpenPool,
    mountpoint: &Path,
    teller: Teller,
    devices: Vec<PathBuf>,
) -> Result<Server, DaemonError> {
    let events = teller.events();
    let (reports, members) = (pool.reports.clone(), pool.members.clone());
    let namespace = pool.namespace.clone();
    let sightings = Arc::new(Sightings::default());
    let returns = Returns {
        host: host.clone(),
        members: members.clone(),
        membership: pool.membership.clone(),
        devices,
    };
    Lookout {
        returns: returns.clone(),
        pool: pool.label.pool_name.clone(),
        sightings: sightings.clone(),
        teller: teller.clone(),
    }
    .start();
    host.threads().run(Box::new(Trimmer::new(namespace.clone(), host.clock())));
    host.threads().run(Box::new(Reporter { reports, members, namespace, teller }));
    let face = Face {
        namespace: pool.namespace.clone(),
        members: pool.members.clone(),
        entries: pool.entries.clone(),
        membership: pool.membership.clone(),
        host: host.clone(),
        returns,
        space: pool.space.clone(),
        heat: pool.heat.clone(),
        name: pool.label.pool_name.clone(),
        uuid: pool.uuid(),
        mountpoint: mountpoint.to_path_buf(),
        read_only: pool.read_only,
        log: pool.log_state(),
        repair: pool.repair.clone(),
        clock: host.clock(),
        events,
        sightings,
        platter: pool.platter.clone(),
    };
    let pid = std::process::id();
    let about = PoolStatus::no_daemon(
        &pool.label.pool_name,
        &mountpoint.display().to_string(),
        pid,
        format!("process {pid} does not answer: look at it, and at the disks it waits for"),
    );
    let threads = host.threads();
    Server::start(
        &make_run_directory()?.join(format!("{}.sock", pool.uuid())),
        Arc::new(face),
        &about,
        host.wait(),
        host.clock(),
        Arc::new(move |name, body| threads.spawn(name, body)),
    )
    .map_err(|source| DaemonError::Io { what: "opening the admin socket", source })
}

/// SIGTERM and SIGINT unmount, and with that close the pool.
fn stop_on_signals(host: &Host, mountpoint: &Path) {
    let signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
    ]);
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(error) => {
            log::warn!("signals cannot be handled ({error}): end the daemon by unmounting");
            return;
        }
    };
    let mountpoint = mountpoint.to_path_buf();
    host.threads().spawn(
        "signals",
        Box::new(move || {
            for _ in signals.forever() {
                // In use: taken from sight, and closed when the last user has gone, which a machine
                // that shuts down sees to.
                let done = unmount(&mountpoint, false).or_else(|_| unmount(&mountpoint, true));
                if let Err(error) = done {
                    log::warn!("{} cannot be unmounted: {error}", mountpoint.display());
                }
            }
        }),
    );
}

/// Whether this is a mount of ours whose daemon is gone.
pub fn is_dead_mount(mountpoint: &Path) -> bool {
    let is_ours = find_mount(mountpoint)
        .is_some_and(|mount| mount.kind == crate::frontend::session::MOUNT_TYPE);
    // Attributes are cached for an hour, even those of the dead: only statfs is always passed on.
    let kind = |errno: nix::errno::Errno| io::Error::from(errno).kind();
    is_ours
        && nix::sys::statfs::statfs(mountpoint)
            .is_err_and(|errno| kind(errno) == io::ErrorKind::NotConnected)
}

/// A mount point whose daemon has died answers nothing but errors: it is taken away.
/// True if there was one, and it is gone.
pub fn clear_dead_mount(mountpoint: &Path) -> bool {
    if !is_dead_mount(mountpoint) {
        return false;
    }
    match abandon(mountpoint) {
        Ok(()) => log::info!("{}: a dead mount was taken away", mountpoint.display()),
        Err(error) => log::warn!("{}: a dead mount stays: {error}", mountpoint.display()),
    }
    find_mount(mountpoint).is_none()
}

/// Checks a pool that is not mounted, changing nothing on its disks.
pub fn check(
    host: &Host,
    pool: Option<String>,
    devices: Vec<PathBuf>,
    deep: bool,
    tell: &mut Tell<'_>,
) -> Result<CheckReport, DaemonError> {
    let mut options = defaults(pool, devices, PathBuf::new());
    options.open.assemble.read_only = true;
    options.open.namespace.read_only = true;
    options.members_wait = Duration::ZERO;
    let Found { disks, refused } = find_members(host, &options)?;
    refused.iter().for_each(|disk| log::warn!("{disk}"));
    let candidates = open_candidates(host, &disks, true)?;
    let pool = host.open_pool(candidates, options.open)?;
    let uuid = pool.uuid();
    let (namespace, members) = (&pool.namespace, &pool.members);
    let report = check_open(namespace, &pool.platter, members, &pool.entries, deep, tell);
    pool.close().map_err(DaemonError::Close)?;
    // Nothing kept others from mounting it meanwhile: then what was read is no picture of anything.
    refuse_running(uuid)?;
    Ok(report?)
}

/// Step 1.
fn find_members(host: &Host, options: &DaemonOptions) -> Result<Found, DaemonError> {
    let until = host.clock().now() + options.members_wait;
    let mut told = false;
    loop {
        let paths = match options.devices.is_empty() {
            true => host.block_devices(),
            false => options.devices.clone(),
        };
        let Found { disks, refused } = host.look(&paths);
        let found = select(disks, options)?;
        let complete = newest(&found).is_some_and(|label| {
            let (here, expected) = here_of_expected(&found, label);
            here == expected
        });
        let given = !options.devices.is_empty() && !found.is_empty();
        if complete || given || host.clock().now() >= until {
            if found.is_empty() {
                refused.iter().for_each(|disk| log::warn!("{disk}"));
                let pool = options.pool.clone().unwrap_or_else(|| "of these devices".to_string());
                return Err(DaemonError::NotFound { pool });
            }
            return Ok(Found { disks: found, refused });
        }
        if !told {
            told = true;
            tell_waiting(&found, options);
        }
        let look = host.clock().now() + LOOK;
        host.wait().until(&Event::new(), Some(look), &mut || false);
    }
}

/// The label that says who is in.
fn newest(found: &[FoundDisk]) -> Option<&Label> {
    let labels = found.iter().map(|disk| &disk.label);
    labels.max_by_key(|label| (label.claim.epoch, label.member_states.sequence))
}

/// How many of the members that the pool counts on are here, and how many these are: not those that it went on
/// without, or that were removed.
fn here_of_expected(found: &[FoundDisk], label: &Label) -> (usize, usize) {
    let states = &label.member_states;
    let expected: Vec<DiskIndex> =
        (0..label.member_count).map(DiskIndex).filter(|&disk| !states.is_out(disk)).collect();
    let is_here = |disk: &&DiskIndex| found.iter().any(|found| found.label.index == **disk);
    (expected.iter().filter(is_here).count(), expected.len())
}

fn tell_waiting(found: &[FoundDisk], options: &DaemonOptions) {
    let seconds = options.members_wait.as_secs();
    let what = match (newest(found), &options.pool) {
        (Some(label), _) => {
            let (here, expected) = here_of_expected(found, label);
            format!("{here} of {expected} disks of pool {} are here", label.pool_name)
        }
        (None, Some(pool)) => format!("no disk of a pool \"{pool}\" is here"),
        (None, None) => "none of these is a disk of a pool".to_string(),
    };
    log::info!("{what}: waiting up to {seconds} s for members (-o wait=SECONDS)");
}

/// The disks of the pool that is asked for.
fn select(found: Vec<FoundDisk>, options: &DaemonOptions) -> Result<Vec<FoundDisk>, DaemonError> {
    let wanted = |disk: &FoundDisk| match &options.pool {
        Some(pool) => disk.label.pool_name == *pool || disk.label.pool.to_string() == *pool,
        None => true,
    };
    let found: Vec<FoundDisk> = found.into_iter().filter(wanted).collect();
    let mut pools: Vec<(PoolUuid, String)> =
        found.iter().map(|disk| (disk.label.pool, disk.label.pool_name.clone())).collect();
    pools.sort();
    pools.dedup();
    if pools.len() > 1 {
        let names: Vec<String> =
            pools.iter().map(|(uuid, name)| format!("{name} ({uuid})")).collect();
        return Err(DaemonError::Ambiguous { pools: names.join(", ") });
    }
    match pools.first() {
        Some((uuid, _)) => refuse_running(*uuid).map(|()| found),
        None => Ok(found),
    }
}

fn refuse_running(pool: PoolUuid) -> Result<(), DaemonError> {
    let mut running = running_pools().into_iter();
    match running.find(|running| running.status.uuid == pool.to_string()) {
        None => Ok(()),
        Some(running) => {
            let PoolStatus { name, mountpoint, pid, .. } = running.status;
            Err(DaemonError::Mounted { name, mountpoint, pid })
        }
    }
}

pub(super) fn open_candidates(
    host: &Host,
    found: &[FoundDisk],
    read_only: bool,
) -> Result<Vec<super::assemble::Candidate>, DaemonError> {
    let until = host.clock().now() + RELEASE_WAIT;
    loop {
        match host.candidates(found, read_only) {
            Err(ProbeError::InUse { .. }) if host.clock().now() < until => {
                let look = host.clock().now() + LOOK / 5;
                host.wait().until(&Event::new(), Some(look), &mut || false);
            }
            Err(ProbeError::InUse { path }) => return Err(who_has(found, path)),
            other => return Ok(other?),
        }
    }
}

/// Another daemon that has begun since we looked, or whoever else has the disk at `path`.
fn who_has(found: &[FoundDisk], path: String) -> DaemonError {
    let mounted = found.first().map(|disk| refuse_running(disk.label.pool));
    if let Some(Err(mounted)) = mounted {
        return mounted;
    }
    let uses = uses(Path::new(&path)).unwrap_or_default();
    let by = uses.first().map(|used| use_in_words(used, Path::new(&path)));
    DaemonError::InUse { path, by: by.unwrap_or_else(|| "another mount or program".to_string()) }
}

/// Whether the error means that `--force` or another option could help: for the command line's hint.
pub fn is_refusal(error: &DaemonError) -> bool {
    matches!(
        error,
        DaemonError::Open(OpenError::Assemble(
            AssembleError::OpenElsewhere { .. } | AssembleError::SplitBrain { .. }
        ))
    )
}

/// What a mount does if nothing else is said.
pub fn defaults(pool: Option<String>, devices: Vec<PathBuf>, mountpoint: PathBuf) -> DaemonOptions {
    let mut open = OpenOptions::default();
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    open.namespace.owner = Caller { uid, gid };
    DaemonOptions {
        pool,
        devices,
        mountpoint,
        open,
        mount: MountOptions::for_current_user("isotherm"),
        members_wait: MEMBERS_WAIT,
        on_event: None,
    }
}
