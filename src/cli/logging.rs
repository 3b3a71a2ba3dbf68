//! Where messages go: standard error for tools and in the foreground, syslog or a file for a daemon.
//!
//! What repeats is rate-limited: of messages that differ only in their numbers five pass in a minute;
//! the next one that passes says how many were left out. `ISOTHERM_LOG` sets levels, as env_logger
//! reads them (`debug`, `isotherm::fleet=trace`).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{Level, Log, Metadata, Record};

use crate::base::sync::{Arc, Mutex};
use crate::base::{Clock, Ticks};

/// Like messages that pass in one window.
const REPEATS_MAX: u32 = 5;
/// How long a window is.
const WINDOW: Duration = Duration::from_secs(60);
/// Kinds of messages remembered.
const KINDS_MAX: usize = 256;
/// A log file that has grown beyond this is set aside as `FILE.1` at the next start.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Where messages go.
enum Sink {
    /// Standard error; with `<3>` levels if it goes to the journal.
    StandardError { journal: bool },
    /// The machine's log.
    Syslog(UnixDatagram),
    /// A file.
    File(File),
}

/// The process's log; kept to redirect it.
pub(super) struct Logging {
    sink: Arc<Mutex<Sink>>,
}

impl Logging {
    /// Starts logging to standard error, with `level` unless the environment says otherwise.
    pub(super) fn start(clock: Arc<dyn Clock>, level: &str) -> Logging {
        let journal = std::env::var_os("JOURNAL_STREAM").is_some();
        let sink = Arc::new(Mutex::new(Sink::StandardError { journal }));
        let filter = env_logger::Env::default().filter_or("ISOTHERM_LOG", level);
        let filter = env_logger::Builder::from_env(filter).build();
        let log =
            Limited { filter, clock, sink: sink.clone(), repeats: Mutex::new(Repeats::default()) };
        log::set_max_level(log.filter.filter());
        // A second logger in one process is a test's.
        let _ = log::set_boxed_logger(Box::new(log));
        Logging { sink }
    }

    /// From now on to `place`: `syslog`, `stderr` or a file's path. Without one: to syslog if there is
    /// one, else to a file named after `name` where logs belong.
    pub(super) fn redirect(&self, place: Option<&str>, name: &str) -> io::Result<()> {
        let sink = match place {
            Some("stderr") => return Ok(()),
            Some("syslog") => Sink::Syslog(syslog()?),
            Some(path) => Sink::File(open(Path::new(path))?),
            None => match syslog() {
                Ok(socket) => Sink::Syslog(socket),
                Err(_) => Sink::File(open(&default_file(name))?),
            },
        };
        *self.sink.lock() = sink;
        Ok(())
    }
}

fn syslog() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect("/dev/log")?;
    // A log that hangs must not stop the daemon.
    socket.set_write_timeout(Some(Duration::from_millis(100)))?;
    Ok(socket)
}

fn default_file(name: &str) -> PathBuf {
    let directory = if nix::unistd::geteuid().is_root() {
        PathBuf::from("/var/log/isotherm")
    } else {
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
        state.or(home).unwrap_or_else(std::env::temp_dir).join("isotherm")
    };
    directory.join(format!("{}.log", name.replace('/', "_")))
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    if std::fs::metadata(path).is_ok_and(|found| found.len() > FILE_BYTES_MAX) {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".1");
        std::fs::rename(path, aside)?;
    }
    File::options().append(true).create(true).open(path)
}

struct Limited {
    filter: env_logger::Logger,
    clock: Arc<dyn Clock>,
    sink: Arc<Mutex<Sink>>,
    repeats: Mutex<Repeats>,
}

impl Log for Limited {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.filter.matches(record) {
            return;
        }
        let text = record.args().to_string();
        if is_noise(record.target(), record.level(), &text) {
            return;
        }
        let Some(left_out) = self.repeats.lock().admit(&text, self.clock.now()) else { return };
        let text = match left_out {
            0 => text,
            1 => format!("{text} (one like it was left out)"),
            more => format!("{text} ({more} like it were left out)"),
        };
        write(&mut self.sink.lock(), record.level(), &text, &*self.clock);
    }

    fn flush(&self) {}
}

/// Whether the FUSE library tells of what is no fault: every reply to a caller that was killed, and,
/// as an error, that its answer to an interrupt came after the end of the call to interrupt.
fn is_noise(target: &str, level: Level, text: &str) -> bool {
    let late = text.starts_with("Failed to send FUSE reply") && text.ends_with("(os error 2)");
    target.starts_with("fuser") && (level >= Level::Warn || late)
}

/// Whatever goes wrong here cannot be told to anybody.
fn write(sink: &mut Sink, level: Level, text: &str, clock: &dyn Clock) {
    let priority = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let _ = match sink {
        Sink::StandardError { journal: true } => writeln!(io::stderr(), "<{priority}>{text}"),
        Sink::StandardError { journal: false } => match level {
            // As every program says why it fails.
            Level::Error => writeln!(io::stderr(), "isotherm: {text}"),
            _ => writeln!(io::stderr(), "isotherm: {}: {text}", level.as_str().to_lowercase()),
        },
        // Facility 3: system daemons.
        Sink::Syslog(socket) => {
            let tag = std::process::id();
            socket.send(format!("<{}>isotherm[{tag}]: {text}", 24 + priority).as_bytes()).map(drop)
        }
        Sink::File(file) => {
            let line = format!("{} {level:5} {text}\n", clock.wall());
            file.write_all(line.as_bytes())
        }
    };
}

/// Counts like messages.
#[derive(Default)]
struct Repeats {
    seen: HashMap<String, Seen>,
}

struct Seen {
    since: Ticks,
    count: u32,
}

impl Repeats {
    /// Some(how many like it were left out before) if this message passes.
    fn admit(&mut self, text: &str, now: Ticks) -> Option<u32> {
        if self.seen.len() >= KINDS_MAX {
            self.seen.retain(|_, seen| now.since(seen.since) < WINDOW);
        }
        if self.seen.len() >= KINDS_MAX {
            self.seen.clear();
        }
        let seen = self.seen.entry(kind(text)).or_insert(Seen { since: now, count: 0 });
        let left_out = if now.since(seen.since) >= WINDOW {
            let left_out = seen.count.saturating_sub(REPEATS_MAX);
            *seen = Seen { since: now, count: 0 };
            left_out
        } else {
            0
        };
        seen.count = seen.count.saturating_add(1);
        (seen.count <= REPEATS_MAX).then_some(left_out)
    }
}

/// The message with its numbers taken out.
fn kind(text: &str) -> String {
    let mut kind = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii_digit() {
            kind.push(c);
        } else if !kind.ends_with('#') {
            kind.push('#');
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_left_out_and_counted() {
        let mut repeats = Repeats::default();
        let at = |seconds: u64| Ticks(seconds * 1_000_000_000);
        let passed =
            (0..100).filter(|n| repeats.admit(&format!("disk {n} is late"), at(1)).is_some());
        assert_eq!(passed.count(), 5);
        assert_eq!(repeats.admit("something else", at(1)), Some(0));
        assert_eq!(repeats.admit("disk 7 is late", at(62)), Some(95));
        assert_eq!(repeats.admit("disk 7 is late", at(63)), Some(0));
    }

    #[test]
    fn a_late_answer_to_an_interrupt_is_no_error() {
        // An interrupt is answered after the call it was to end: the kernel knows that call no more.
        let late = "Failed to send FUSE reply: No such file or directory (os error 2)";
        assert!(is_noise("fuser::reply", Level::Error, late));
        let refused = "Failed to send FUSE reply: Invalid argument (os error 22)";
        assert!(!is_noise("fuser::reply", Level::Error, refused));
        assert!(is_noise("fuser::reply", Level::Warn, "anything else"));
        assert!(!is_noise("isotherm::pool", Level::Error, late));
    }

    #[test]
    fn memory_for_kinds_is_bounded() {
        let mut repeats = Repeats::default();
        for number in 0..10_000u32 {
            let name: String = number.to_string().chars().map(|c| (c as u8 + 49) as char).collect();
            repeats.admit(&name, Ticks(0));
        }
        assert!(repeats.seen.len() <= KINDS_MAX);
    }
}
