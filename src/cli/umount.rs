//! `isotherm umount`: takes the mount away and waits until the pool is clean [R27] and its daemon gone.
//!
//! 1. The daemon is asked to tell when it has closed the pool: before, so that nothing is missed.
//! 2. The kernel unmounts; a mount in use is refused here, and nothing has changed.
//! 3. The daemon flushes, writes its last checkpoint, and marks the labels closed. A crash in between
//!    loses nothing that was synced; the next mount replays.
//! 4. It says "clean" and ends.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::args::Umount;
use super::running::{find_if_any, find_mount, is_alive};
use super::{Outcome, explain};
use crate::base::Event;
use crate::control::RunningPool;
use crate::pool::daemon::is_dead_mount;
use crate::pool::host::Host;
use crate::pool::mounting::{MountEntry, abandon, unmount};

/// How long the daemon may take to end after it has closed the pool.
const END_WAIT: Duration = Duration::from_secs(30);
/// How long a mount may be busy without anybody to be named.
const BUSY_WAIT: Duration = Duration::from_secs(1);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// Processes named that keep a mount busy.
const USERS_MAX: usize = 5;

pub(super) fn run(arguments: &Umount) -> Outcome {
    let mount = find_mount(&arguments.target);
    let running = find_if_any(&arguments.target)?.filter(|pool| {
        // A path inside a mount is not a request to unmount it.
        let by_name = pool.status.name == arguments.target || pool.status.uuid == arguments.target;
        by_name
            || mount.as_ref().is_some_and(|m| m.mountpoint == Path::new(&pool.status.mountpoint))
    });
    match (running, mount) {
        (Some(pool), _) if arguments.lazy => {
            let mountpoint = Path::new(&pool.status.mountpoint);
            unmount(mountpoint, true).map_err(|error| refused(mountpoint, &error))?;
            Ok(ExitCode::SUCCESS)
        }
        (Some(pool), _) => close(&pool),
        (None, Some(mount)) => without_daemon(&mount, arguments.lazy),
        (None, None) => Err(format!("{}: no pool is mounted there", arguments.target)),
    }
}

fn close(pool: &RunningPool) -> Outcome {
    let mountpoint = Path::new(&pool.status.mountpoint);
    let waiting = pool.client.wait().map_err(|error| {
        format!(
            "the daemon of {} (process {}) does not listen: {error}",
            pool.status.name, pool.status.pid
        )
    })?;
    unmount_unused(mountpoint).map_err(|error| refused(mountpoint, &error))?;
    let how = waiting.finish().map_err(|error| {
        format!(
            "{} was unmounted, but its daemon (process {}) ended before the pool was clean: {error}; \
             what was synced is safe, the next mount replays the log",
            pool.status.name, pool.status.pid
        )
    })?;
    wait_for_end(pool.status.pid)?;
    match how.as_str() {
        "clean" => Ok(ExitCode::SUCCESS),
        other => Err(format!(
            "{} was unmounted, but could not be closed cleanly: {}; what was synced is safe, the next \
             mount replays the log",
            pool.status.name,
            other.trim_start_matches("error: ")
        )),
    }
}

/// A process that is just being started holds what its parent had open until it runs: who is busy and
/// named by nobody is asked again, for a second.
fn unmount_unused(mountpoint: &Path) -> std::io::Result<()> {
    let host = Host::start();
    let until = host.clock().now() + BUSY_WAIT;
    loop {
        let result = unmount(mountpoint, false);
        let is_busy = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ResourceBusy;
        let now = host.clock().now();
        if !result.as_ref().is_err_and(is_busy) || now >= until || !users_of(mountpoint).is_empty()
        {
            return result;
        }
        host.wait().until(&Event::new(), Some(now + LOOK), &mut || false);
    }
}

fn wait_for_end(pid: u32) -> Result<(), String> {
    let host = Host::start();
    let until = host.clock().now() + END_WAIT;
    while is_alive(pid) {
        let now = host.clock().now();
        if now >= until {
            return Err(format!(
                "the pool is clean, but process {pid} does not end: a disk may be hung in the kernel"
            ));
        }
        host.wait().until(&Event::new(), Some(now + LOOK), &mut || false);
    }
    Ok(())
}

/// A mount whose daemon does not answer here: dead, or another user's.
fn without_daemon(mount: &MountEntry, lazy: bool) -> Outcome {
    let dead = is_dead_mount(&mount.mountpoint);
    let done = if dead { abandon(&mount.mountpoint) } else { unmount(&mount.mountpoint, lazy) };
    done.map_err(|error| refused(&mount.mountpoint, &error))?;
    let name = mount.mountpoint.display();
    if dead {
        eprintln!("isotherm: {name}: its daemon had died; the next mount replays the log");
    } else {
        eprintln!(
            "isotherm: {name}: unmounted, but its daemon belongs to somebody else: cannot tell \
                   when the pool is clean"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn refused(mountpoint: &Path, error: &std::io::Error) -> String {
    let text = format!("{} cannot be unmounted: {}", mountpoint.display(), explain(error));
    if error.kind() != std::io::ErrorKind::ResourceBusy {
        return text;
    }
    let users = users_of(mountpoint);
    if users.is_empty() {
        return format!("{text}; end what uses it (lsof {})", mountpoint.display());
    }
    format!("{text}; used by {}", users.join(", "))
}

/// Processes with a file, directory or root below `mountpoint`, as far as we may see them.
fn users_of(mountpoint: &Path) -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.parse::<u32>().ok()
    });
    let uses = |pid: &u32| {
        let directory = Path::new("/proc").join(pid.to_string());
        let links = ["cwd", "root"].map(|name| directory.join(name));
        let open = fs::read_dir(directory.join("fd")).into_iter().flatten().flatten();
        let open = open.map(|entry| entry.path());
        links
            .into_iter()
            .chain(open)
            .any(|link| fs::read_link(link).is_ok_and(|target| target.starts_with(mountpoint)))
    };
    let name = |pid: u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{} (process {pid})", name.trim())
    };
    numbers.filter(uses).take(USERS_MAX).map(name).collect()
}
