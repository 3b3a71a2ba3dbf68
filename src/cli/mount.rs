//! `isotherm mount`: starts a daemon and returns when the mount works; or, with `--foreground`, is the
//! daemon.
//!
//! 1. The command line is checked here, so that mistakes are told at once.
//! 2. The command runs itself again with `--daemon`: a session of its own, its output a pipe to us.
//!    Nothing of ours is inherited: the threads of its disks keep copies of all descriptors that were
//!    open when they started, and whoever reads our output would wait for them.
//! 3. The daemon finds the disks, opens the pool, mounts. What it says meanwhile we pass on. Then it
//!    says "ready" (or "failed"), and logs elsewhere from there on.
//! 4. We return.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use super::args::Mount;
use super::logging::Logging;
use super::mount_options::MountFlags;
use super::{Outcome, explain, umount_helper};
use crate::pool::daemon::{self, DaemonOptions};
use crate::pool::host::Host;
use crate::pool::mounting::{find_mount, mountpoint_of};

/// What the daemon says when the mount works. No message begins with that byte.
const READY: &str = "\u{1}ready";
/// What it says last when it does not. The end of the pipe could be kept away by a disk that hangs.
const FAILED: &str = "\u{1}failed";

pub(super) fn run(arguments: &Mount) -> Outcome {
    let flags = MountFlags::parse(&arguments.options)?;
    let options = daemon_options(arguments, &flags)?;
    if !arguments.daemon {
        check_mountpoint(&options.mountpoint)?;
    }
    if !arguments.foreground && !arguments.daemon {
        return start_daemon();
    }
    let host = Host::start();
    let logging = Logging::start(host.clock(), "info");
    if arguments.daemon {
        // The terminal's end is not ours. Fails only for the leader of a group, who has one.
        let _ = nix::unistd::setsid();
    }
    // The last one to be killed for its memory: everybody who uses the mount would hang first.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
    let place = arguments.log.as_deref().or(flags.log.as_deref());
    let name = options.mountpoint.display().to_string();
    let ready = || {
        umount_helper::install();
        if let Some(mount) = find_mount(&options.mountpoint) {
            umount_helper::register(&mount.source, &mount.mountpoint);
        }
        tell_systemd();
        if arguments.daemon {
            if let Err(error) = logging.redirect(place, name.trim_matches('/')) {
                log::warn!("the log stays on standard error: {error}");
            }
            say(READY);
            leave_terminal();
        }
    };
    if !arguments.daemon && place.is_some() {
        logging
            .redirect(place, name.trim_matches('/'))
            .map_err(|error| format!("cannot log to {}: {error}", place.unwrap_or_default()))?;
    }
    let served = daemon::run(&host, options.clone(), ready);
    umount_helper::unregister(&mountpoint_of(&options.mountpoint));
    match served {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if arguments.daemon => {
            log::error!("{}", hint(&error));
            say(FAILED);
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(hint(&error)),
    }
}

/// Before disks are waited for. A dead mount of ours answers with an error, and is cleared later.
fn check_mountpoint(path: &Path) -> Result<(), String> {
    let name = path.display();
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => {
            Err(format!("{name} is no directory: nothing can be mounted there"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("{name} does not exist: make the directory first (mkdir -p {name})"))
        }
        _ => Ok(()),
    }
}

fn say(word: &str) {
    // Nobody listens any more if the command was killed: the mount goes on without it.
    let _ = std::io::stdout().write_all(format!("{word}\n").as_bytes());
}

fn hint(error: &daemon::DaemonError) -> String {
    let text = explain(error);
    if daemon::is_refusal(error) && !text.contains("--force") {
        return format!("{text}; --force overrides it");
    }
    text
}

/// Steps 2 to 4, on the command's side.
fn start_daemon() -> Outcome {
    let program = std::env::current_exe().map_err(|error| format!("who am I? {error}"))?;
    let pipe =
        std::io::pipe().and_then(|(reader, writer)| Ok((reader, writer.try_clone()?, writer)));
    let (reader, output, errors) = pipe.map_err(|error| format!("no pipe: {error}"))?;
    let mut child = std::process::Command::new(&program)
        .args(as_daemon(std::env::args_os().skip(1)))
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
    for line in BufReader::new(reader).lines() {
        match line.map_err(|error| format!("the daemon cannot be heard: {error}"))?.as_str() {
            READY => return Ok(ExitCode::SUCCESS),
            FAILED => return Ok(ExitCode::FAILURE),
            line => eprintln!("{line}"),
        }
    }
    let ended = child.wait().map_err(|error| format!("the daemon is lost: {error}"))?;
    Err(format!("the daemon ended before it had mounted ({ended})"))
}

/// The same command for the daemon: what comes after `--` are names, whatever they look like.
fn as_daemon(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let end = arguments.iter().position(|argument| argument == "--");
    arguments.insert(end.unwrap_or(arguments.len()), "--daemon".into());
    arguments
}

/// From here on nobody reads what we print, and no terminal waits for us.
fn leave_terminal() {
    let _ = std::env::set_current_dir("/");
    let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") else {
        return;
    };
    let _ = nix::unistd::dup2_stdout(&null);
    let _ = nix::unistd::dup2_stderr(&null);
}

/// `Type=notify` units wait for this word.
fn tell_systemd() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else { return };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(drop));
    if let Err(error) = sent {
        log::warn!("systemd cannot be told that the mount is ready: {error}");
    }
}

fn daemon_options(arguments: &Mount, flags: &MountFlags) -> Result<DaemonOptions, String> {
    let (mountpoint, sources) =
        arguments.what.split_last().expect("clap wants at least two words here");
    let (pool, devices) = pool_or_devices(sources)?;
    let mut options = daemon::defaults(pool, devices, absolute(mountpoint)?);
    let wait = arguments.wait.or(flags.wait_seconds);
    options.members_wait = wait.map_or(options.members_wait, Duration::from_secs);
    options.on_event = arguments.on_event.clone().or_else(|| flags.on_event.clone());
    let read_only = arguments.read_only || flags.read_only;
    let open = &mut options.open;
    open.assemble.read_only = read_only;
    open.assemble.degraded = flags.degraded;
    open.assemble.force = arguments.force || flags.force;
    open.namespace.read_only = read_only;
    open.namespace.atime = !flags.no_atime;
    open.namespace.cache_bytes = flags.cache_bytes.unwrap_or(open.namespace.cache_bytes);
    open.namespace.dirty_bytes_max = flags.dirty_bytes.unwrap_or(open.namespace.dirty_bytes_max);
    if let Some(bytes) = flags.index_cache_bytes {
        open.set_index_cache(bytes);
    }
    if let Some(seconds) = flags.repair_seconds {
        open.repair.delay = seconds.map(Duration::from_secs);
    }
    if let Some(seconds) = flags.commit_seconds {
        open.namespace.commit_interval = Duration::from_secs(seconds);
    }
    let mount = &mut options.mount;
    mount.read_only = read_only;
    mount.no_atime = flags.no_atime;
    mount.no_exec = flags.no_exec;
    mount.no_suid = flags.no_suid.unwrap_or(mount.no_suid);
    mount.no_dev = flags.no_dev.unwrap_or(mount.no_dev);
    mount.allow_other = flags.allow_other.unwrap_or(mount.allow_other);
    mount.synchronous = flags.synchronous;
    mount.writeback = flags.writeback;
    mount.threads = flags.threads.unwrap_or(mount.threads);
    mount.read_ahead_kib = flags.read_ahead_kib.unwrap_or(mount.read_ahead_kib);
    Ok(options)
}

/// What names a pool: its name, its UUID, or its disks.
pub(super) fn pool_or_devices(
    sources: &[String],
) -> Result<(Option<String>, Vec<PathBuf>), String> {
    match sources {
        [only] if !is_path(only) => {
            let name = ["UUID=", "LABEL="].iter().find_map(|prefix| only.strip_prefix(prefix));
            Ok((Some(name.unwrap_or(only).to_string()), Vec::new()))
        }
        several => {
            let paths: Result<Vec<PathBuf>, String> =
                several.iter().map(|path| absolute(path)).collect();
            Ok((None, paths?))
        }
    }
}

/// The daemon changes its directory.
fn absolute(path: &str) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{path}: {error}"))
}

/// A single word without a slash is a pool's name, unless a file is called so.
fn is_path(word: &str) -> bool {
    word.contains('/') || Path::new(word).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(what: &[&str], list: &str) -> DaemonOptions {
        let arguments = Mount {
            what: what.iter().map(|word| word.to_string()).collect(),
            options: vec![list.to_string()],
            foreground: false,
            read_only: false,
            on_event: None,
            log: None,
            wait: None,
            force: false,
            daemon: false,
        };
        let flags = MountFlags::parse(&arguments.options).expect("known options");
        daemon_options(&arguments, &flags).expect("a sound command line")
    }

    #[test]
    fn names_and_devices_are_told_apart() {
        let by_name = options(&["tank", "mnt"], "");
        assert_eq!(by_name.pool.as_deref(), Some("tank"));
        assert!(by_name.devices.is_empty() && by_name.mountpoint.is_absolute());
        let by_uuid = options(&["UUID=abc", "/mnt"], "");
        assert_eq!(by_uuid.pool.as_deref(), Some("abc"));
        let by_device = options(&["/dev/sdb", "/dev/sdc", "/mnt"], "");
        assert_eq!((by_device.pool, by_device.devices.len()), (None, 2));
    }

    #[test]
    fn options_reach_the_daemon() {
        let found = options(&["tank", "/mnt"], "ro,noatime,nosuid,wait=5,cache=64M,degraded");
        assert!(found.open.assemble.read_only && found.mount.read_only);
        assert!(found.open.assemble.degraded && found.mount.no_suid && !found.open.namespace.atime);
        assert_eq!(found.open.namespace.cache_bytes, 64 << 20);
        assert_eq!(found.members_wait, Duration::from_secs(5));
    }
}
