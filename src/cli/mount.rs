//! `isotherm mount`: the command starts itself again as a daemon, and returns when the mount works.

use std::fs::{File, OpenOptions as FileOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use super::{Outcome, args};
use crate::base::{GIB, KIB, MIB};
use crate::pool::daemon::{self, DaemonOptions, MEMBERS_WAIT};
use crate::pool::host::Host;

/// What the daemon says when the mount works.
const READY: &str = "ready";

/// Mounts.
pub fn run(args: args::Mount) -> Outcome {
    let options = daemon_options(&args)?;
    if args.daemon_child || args.foreground {
        if args.daemon_child {
            // A session of our own: the terminal's end is not ours.
            let _ = nix::unistd::setsid();
        }
        let host = Host::start();
        daemon::run(&host, options, || {
            println!("{READY}");
            let _ = std::io::stdout().flush();
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    start_daemon(&args)
}

fn start_daemon(args: &args::Mount) -> Outcome {
    let log_path = match &args.log_file {
        Some(path) => path.clone(),
        None => daemon::log_path(&args.words[args.words.len() - 1])?,
    };
    let log = FileOptions::new().create(true).append(true).open(&log_path)?;
    let begin = log.metadata()?.len();
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("--daemon-child")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let stdout = child.stdout.take().ok_or("the daemon's output is not there")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.trim() == READY {
        return Ok(ExitCode::SUCCESS);
    }
    child.wait()?;
    let said = said_since(&log_path, begin).unwrap_or_default();
    let last = said.lines().rev().find_map(|line| line.strip_prefix("isotherm: "));
    Err(last.unwrap_or("the daemon ended without a word").to_string().into())
}

fn said_since(path: &std::path::Path, begin: u64) -> std::io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.take(64 * KIB).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn daemon_options(args: &args::Mount) -> Result<DaemonOptions, String> {
    let (mountpoint, sources) = args.words.split_last().expect("clap wants two words at least");
    let is_path = |word: &PathBuf| word.components().count() > 1 || word.exists();
    let (pool, devices) = match sources {
        [only] if !is_path(only) => (Some(only.display().to_string()), Vec::new()),
        several => (None, several.to_vec()),
    };
    let mut options = daemon::defaults(pool, devices, mountpoint.clone());
    options.members_wait = MEMBERS_WAIT;
    options.on_event = args.on_event.clone();
    if args.read_only {
        set_read_only(&mut options);
    }
    for word in args.options.iter().flat_map(|list| list.split(',')) {
        apply(&mut options, word.trim())?;
    }
    Ok(options)
}

fn set_read_only(options: &mut DaemonOptions) {
    options.mount.read_only = true;
    options.open.assemble.read_only = true;
    options.open.namespace.read_only = true;
}

/// One of `-o`'s words; those that mount(8) passes along without meaning for us are accepted.
fn apply(options: &mut DaemonOptions, word: &str) -> Result<(), String> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let number = |value: Option<&str>| -> Result<u64, String> {
        value.and_then(bytes).ok_or(format!("-o {name}= wants a number, such as 512M"))
    };
    let mount = &mut options.mount;
    match name {
        ""
        | "defaults"
        | "rw"
        | "auto"
        | "noauto"
        | "user"
        | "nofail"
        | "_netdev"
        | "relatime"
        | "default_permissions" => {}
        _ if name.starts_with("x-") || name.starts_with("comment") => {}
        "ro" => set_read_only(options),
        "degraded" => options.open.assemble.degraded = true,
        "force" => options.open.assemble.force = true,
        "cache" => options.open.namespace.cache_bytes = number(value)?,
        "dirty" => options.open.namespace.dirty_bytes_max = number(value)?.max(16 * MIB),
        "index_cache" => options.open.index.cache_bytes = number(value)?.max(MIB),
        "commit" => {
            options.open.namespace.commit_interval = Duration::from_secs(number(value)?.max(1));
        }
        "wait" => options.members_wait = Duration::from_secs(number(value)?),
        "noatime" => {
            mount.no_atime = true;
            options.open.namespace.atime = false;
        }
        "allow_other" => mount.allow_other = true,
        "noexec" => mount.no_exec = true,
        "exec" => mount.no_exec = false,
        "nosuid" => mount.no_suid = true,
        "suid" => mount.no_suid = false,
        "nodev" => mount.no_dev = true,
        "dev" => mount.no_dev = false,
        "sync" => mount.synchronous = true,
        "async" => mount.synchronous = false,
        "writeback" => mount.writeback = true,
        "threads" => mount.threads = (number(value)? as usize).clamp(3, 256),
        _ => return Err(format!("-o {word}: no such option; docs/options.md lists them")),
    }
    Ok(())
}

/// `4096`, `64K`, `512M`, `2G`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 1,
        "K" | "KIB" => KIB,
        "M" | "MIB" => MIB,
        "G" | "GIB" => GIB,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_units() {
        assert_eq!(bytes("4096"), Some(4096));
        assert_eq!(bytes("64K"), Some(65536));
        assert_eq!(bytes("2GiB"), Some(2 * GIB));
        assert_eq!(bytes("x"), None);
        assert_eq!(bytes("99999999999999999999"), None);
    }

    #[test]
    fn unknown_options_are_refused_by_name() {
        let mut options = daemon::defaults(None, Vec::new(), PathBuf::from("/mnt"));
        assert!(apply(&mut options, "cache=64M").is_ok());
        assert_eq!(options.open.namespace.cache_bytes, 64 * MIB);
        assert!(apply(&mut options, "degraded").is_ok());
        assert!(options.open.assemble.degraded);
        let error = apply(&mut options, "frobnicate").expect_err("there is no such option");
        assert!(error.contains("frobnicate"));
        assert!(apply(&mut options, "cache=lots").is_err());
    }
}
