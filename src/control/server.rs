//! The admin socket of a mounted pool: one line in, one line out, or some.
//!
//! | request | answer |
//! |---|---|
//! | `status` | the status as JSON on one line |
//! | `sync` | `ok`, once everything written before is durable [I1]; or `error: ...` |
//! | `check`, `check deep` | lines of JSON: how far it is, some a second, and at last the report or an error; it ends when the client goes away |
//! | `disk ` and a request as JSON | `ok: ...` or `error: ...`; what takes long goes on behind it |
//! | `wait` | `waiting`; when the pool is closed a second line, `clean` or `error: ...` |
//!
//! Only the user who mounted (and root) may connect: the directory is theirs.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::status::{DiskRequest, PoolStatus};
use super::{CheckError, CheckProgress, CheckReport, Tell};
use crate::base::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::base::sync::{Arc, Mutex};
use crate::base::{Clock, Event, Wait};

/// What the server asks of the pool it speaks for.
pub trait Controlled: Send + Sync {
    /// How it is now.
    fn status(&self) -> PoolStatus;
    /// Makes everything durable.
    fn sync(&self) -> Result<(), String>;
    /// Checks it; `deep` reads every shard.
    fn check(&self, deep: bool, tell: &mut Tell<'_>) -> Result<CheckReport, CheckError>;
    /// Changes its members, or begins to; what it came to, in words.
    fn disk(&self, request: &DiskRequest) -> Result<String, String>;
}

/// Ending of the file beside the socket that says whose it is.
pub(super) const ABOUT: &str = "about";
/// What a request that changes members begins with.
pub(super) const DISK: &str = "disk ";
/// The first line to a client that waits.
pub(super) const WAITING: &str = "waiting";
/// How often a client is told how far a check is.
const TELL_AGAIN: Duration = Duration::from_millis(200);
/// The longest request line.
const LINE_BYTES_MAX: u64 = 8192;
/// A client that does not take its answer is dropped after this.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A line of the answer to `check`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CheckLine {
    Progress(CheckProgress),
    Report(Box<CheckReport>),
    Error(String),
}

struct Shared {
    pool: Arc<dyn Controlled>,
    wait: Arc<dyn Wait>,
    clock: Arc<dyn Clock>,
    /// The pool is about to be closed: checks end.
    ending: AtomicBool,
    /// Checks under way.
    checks: AtomicUsize,
    checked: Event,
    /// How the pool was closed, once it is.
    closed: Mutex<Option<String>>,
    closing: Event,
    /// Clients that wait for the end and have not been told yet.
    waiting: AtomicUsize,
    told: Event,
}

/// A listening admin socket.
pub struct Server {
    shared: Arc<Shared>,
    path: PathBuf,
}

/// Starts a thread: a name, and what it runs.
pub type Spawn = Arc<dyn Fn(&str, Box<dyn FnOnce() + Send>) + Send + Sync>;

impl Server {
    /// Listens at `path`, replacing a socket that a dead daemon left there. `about` is what others can
    /// say when it does not answer.
    pub fn start(
        path: &Path,
        pool: Arc<dyn Controlled>,
        about: &PoolStatus,
        wait: Arc<dyn Wait>,
        clock: Arc<dyn Clock>,
        spawn: Spawn,
    ) -> io::Result<Server> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::write(path.with_extension(ABOUT), serde_json::to_vec(about)?)?;
        let listener = UnixListener::bind(path)?;
        let closed = Mutex::new(None);
        let shared = Arc::new(Shared {
            pool,
            wait,
            clock,
            ending: AtomicBool::new(false),
            checks: AtomicUsize::new(0),
            checked: Event::new(),
            closed,
            closing: Event::new(),
            waiting: AtomicUsize::new(0),
            told: Event::new(),
        });
        let (for_clients, spawn_client) = (shared.clone(), spawn.clone());
        spawn(
            "control",
            Box::new(move || {
                for stream in listener.incoming() {
                    let Ok(stream) = stream else { continue };
                    let shared = for_clients.clone();
                    spawn_client("control client", Box::new(move || serve(&shared, stream)));
                }
            }),
        );
        Ok(Server { shared, path: path.to_path_buf() })
    }

    /// The pool is about to be closed: checks end; waits for them, though not for ever.
    pub fn end_checks(&self) {
        let shared = &self.shared;
        shared.ending.store(true, Ordering::SeqCst);
        let until = shared.clock.now() + CLIENT_TIMEOUT;
        shared
            .wait
            .until(&shared.checked, Some(until), &mut || shared.checks.load(Ordering::SeqCst) == 0);
    }

    /// The pool is closed: everybody who waited is told how, and the socket goes.
    pub fn close(&self, how: &str) {
        *self.shared.closed.lock() = Some(how.to_string());
        self.shared.closing.notify();
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.path.with_extension(ABOUT));
        // The process ends after this: whoever waited is told first.
        let until = self.shared.clock.now() + CLIENT_TIMEOUT;
        self.shared.wait.until(&self.shared.told, Some(until), &mut || {
            self.shared.waiting.load(Ordering::SeqCst) == 0
        });
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn serve(shared: &Shared, stream: UnixStream) {
    let mut waits = false;
    let answer = (|| -> io::Result<()> {
        stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
        stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
        let mut line = String::new();
        BufReader::new(io::Read::take(&stream, LINE_BYTES_MAX)).read_line(&mut line)?;
        let answer = match line.trim() {
            "status" => serde_json::to_string(&shared.pool.status())
                .unwrap_or_else(|error| format!("error: {error}")),
            "sync" => match shared.pool.sync() {
                Ok(()) => "ok".to_string(),
                Err(error) => format!("error: {error}"),
            },
            "wait" => {
                waits = true;
                shared.waiting.fetch_add(1, Ordering::SeqCst);
                // From here on it will be told: before, the daemon could end without knowing of it.
                (&stream).write_all(WAITING.as_bytes())?;
                (&stream).write_all(b"\n")?;
                let is_closed = || shared.closed.lock().is_some();
                shared.wait.until(&shared.closing, None, &mut || is_closed());
                shared.closed.lock().clone().unwrap_or_default()
            }
            "check" => return check(shared, &stream, false),
            "check deep" => return check(shared, &stream, true),
            other if other.starts_with(DISK) => {
                let request = serde_json::from_str(&other[DISK.len()..]);
                let request = request.map_err(|error| error.to_string());
                match request.and_then(|request| shared.pool.disk(&request)) {
                    Ok(done) => format!("ok: {}", one_line(&done)),
                    Err(error) => format!("error: {}", one_line(&error)),
                }
            }
            other => format!("error: unknown request \"{}\"", other.escape_default()),
        };
        (&stream).write_all(answer.as_bytes())?;
        (&stream).write_all(b"\n")
    })();
    if waits {
        shared.waiting.fetch_sub(1, Ordering::SeqCst);
        shared.told.notify();
    }
    if let Err(error) = answer {
        log::debug!("an admin client went away: {error}");
    }
}

/// Checks, and says how far it is, until it is done or nobody listens any more.
fn check(shared: &Shared, mut stream: &UnixStream, deep: bool) -> io::Result<()> {
    let mut say = |line: &CheckLine| -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        stream.write_all(&text)
    };
    shared.checks.fetch_add(1, Ordering::SeqCst);
    let mut next = shared.clock.now();
    let report = shared.pool.check(deep, &mut |progress| {
        if shared.ending.load(Ordering::SeqCst) {
            return false;
        }
        let now = shared.clock.now();
        if now < next {
            return true;
        }
        next = now + TELL_AGAIN;
        say(&CheckLine::Progress(progress.clone())).is_ok()
    });
    shared.checks.fetch_sub(1, Ordering::SeqCst);
    shared.checked.notify();
    say(&match report {
        Ok(report) => CheckLine::Report(Box::new(report)),
        Err(CheckError::Stopped) => CheckLine::Error("the pool is being unmounted".into()),
        Err(error) => CheckLine::Error(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::client::Client;
    use super::*;
    use crate::base::clock::TestClock;
    use crate::base::wait::ParkingWait;

    struct Pool;
    impl Controlled for Pool {
        fn status(&self) -> PoolStatus {
            PoolStatus::default()
        }
        fn sync(&self) -> Result<(), String> {
            Ok(())
        }
        fn disk(&self, _: &DiskRequest) -> Result<String, String> {
            Err("there are none".to_string())
        }
        /// Goes on until it is told not to.
        fn check(&self, deep: bool, tell: &mut Tell<'_>) -> Result<CheckReport, CheckError> {
            let mut progress = CheckProgress { step: "index".into(), done: 0, total: 1000 };
            while tell(&progress) {
                progress.done += 1;
                if !deep && progress.done == 1000 {
                    return Ok(CheckReport { inodes: 7, ..CheckReport::default() });
                }
            }
            Err(CheckError::Stopped)
        }
    }

    /// On a busy machine the daemon had unmounted, closed and ended before it had read that somebody waits:
    /// `isotherm umount` said that the pool was not clean.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "a socket needs real threads and a real clock")]
    fn r27_who_waits_is_told_however_slow_the_daemon_was_to_hear_of_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("pool.sock");
        let clock = TestClock::start();
        let spawn: Spawn = Arc::new(|name, main| {
            let slow = name == "control client";
            std::thread::spawn(move || {
                if slow {
                    std::thread::sleep(Duration::from_millis(100));
                }
                main();
            });
        });
        let wait: Arc<dyn Wait> = Arc::new(ParkingWait::new(clock.clone()));
        let about = PoolStatus::default();
        let server = Server::start(&path, Arc::new(Pool), &about, wait, clock, spawn);
        let server = server.expect("it listens");
        let pending = Client::at(&path).wait().expect("it is heard");
        server.close("clean");
        // The daemon ends here: what was not told by now never is.
        assert_eq!(pending.told().expect("it was told"), "clean");
    }
}
