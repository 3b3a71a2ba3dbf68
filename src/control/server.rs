//! The admin socket of a mounted pool: one line in, one line out.
//!
//! | request | answer |
//! |---|---|
//! | `status` | the status as JSON on one line |
//! | `sync` | `ok`, once everything written before is durable [I1]; or `error: ...` |
//! | `wait` | `waiting`; when the pool is closed a second line, `clean` or `error: ...` |
//!
//! Only the user who mounted (and root) may connect: the directory is theirs.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::status::PoolStatus;
use crate::base::sync::atomic::{AtomicUsize, Ordering};
use crate::base::sync::{Arc, Mutex};
use crate::base::{Clock, Event, Wait};

/// What the server asks of the pool it speaks for.
pub trait Controlled: Send + Sync {
    /// How it is now.
    fn status(&self) -> PoolStatus;
    /// Makes everything durable.
    fn sync(&self) -> Result<(), String>;
}

/// Ending of the file beside the socket that says whose it is.
pub(super) const ABOUT: &str = "about";
/// The first line to a client that waits.
pub(super) const WAITING: &str = "waiting";
/// The longest request line.
const LINE_BYTES_MAX: u64 = 1024;
/// A client that does not take its answer is dropped after this.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

struct Shared {
    pool: Arc<dyn Controlled>,
    wait: Arc<dyn Wait>,
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
    clock: Arc<dyn Clock>,
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
        Ok(Server { shared, clock, path: path.to_path_buf() })
    }

    /// The pool is closed: everybody who waited is told how, and the socket goes.
    pub fn close(&self, how: &str) {
        *self.shared.closed.lock() = Some(how.to_string());
        self.shared.closing.notify();
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.path.with_extension(ABOUT));
        // The process ends after this: whoever waited is told first.
        let until = self.clock.now() + CLIENT_TIMEOUT;
        self.shared.wait.until(&self.shared.told, Some(until), &mut || {
            self.shared.waiting.load(Ordering::SeqCst) == 0
        });
    }
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
