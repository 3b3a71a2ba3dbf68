//! Talking to the daemon of a mounted pool.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::server::{ABOUT, CheckLine, DISK, WAITING};
use super::status::{DiskRequest, PoolStatus};
use super::{CheckReport, Tell};

/// A pool whose daemon answers.
#[derive(Clone, Debug)]
pub struct RunningPool {
    /// Its socket.
    pub client: Client,
    /// How it is.
    pub status: PoolStatus,
}

/// Who listens on the sockets of a directory.
#[derive(Clone, Debug, Default)]
pub struct Daemons {
    /// Those that answer, by their pools' names.
    pub running: Vec<RunningPool>,
    /// What is known of those that listen but give no answer in time: stopped, or hung.
    pub silent: Vec<PoolStatus>,
}

/// Asks all daemons with a socket in `directory`. A socket that nobody listens on is left over.
pub fn daemons(directory: &Path) -> Daemons {
    let mut found = Daemons::default();
    let Ok(entries) = std::fs::read_dir(directory) else { return found };
    let paths = entries.flatten().map(|entry| entry.path());
    for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "sock")) {
        let client = Client { path };
        match client.status() {
            Ok(status) => found.running.push(RunningPool { client, status }),
            // It ended meanwhile, or long ago; or it does not answer.
            Err(_) => found.silent.extend(client.about()),
        }
    }
    found.running.sort_by(|a, b| a.status.name.cmp(&b.status.name));
    found
}

/// All pools whose daemons answer on a socket in `directory`.
pub fn running_pools(directory: &Path) -> Vec<RunningPool> {
    daemons(directory).running
}

/// One daemon's socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// The socket at `path`.
    pub fn at(path: &Path) -> Client {
        Client { path: path.to_path_buf() }
    }

    /// How the pool is.
    pub fn status(&self) -> io::Result<PoolStatus> {
        let line = self.begin("status", Some(Duration::from_secs(10)))?.finish()?;
        serde_json::from_str(&line).map_err(io::Error::other)
    }

    /// What a daemon that listens left beside its socket, for when it does not answer.
    fn about(&self) -> Option<PoolStatus> {
        UnixStream::connect(&self.path).ok()?;
        let about = std::fs::read(self.path.with_extension(ABOUT)).ok()?;
        serde_json::from_slice(&about).ok()
    }

    /// Makes everything written so far durable.
    pub fn sync(&self) -> io::Result<()> {
        match self.begin("sync", None)?.finish()?.as_str() {
            "ok" => Ok(()),
            other => Err(io::Error::other(other.to_string())),
        }
    }

    /// Changes the pool's members, or begins to; what it came to, in words.
    pub fn disk(&self, request: &DiskRequest) -> io::Result<String> {
        let line = format!("{DISK}{}", serde_json::to_string(request)?);
        let answer = self.begin(&line, None)?.finish()?;
        match answer.split_once(": ") {
            Some(("ok", done)) => Ok(done.to_string()),
            Some(("error", error)) => Err(io::Error::other(error.to_string())),
            _ => Err(io::Error::other(answer)),
        }
    }

    /// Checks the pool; `tell` is told how far it is, and ends it with false.
    pub fn check(&self, deep: bool, tell: &mut Tell<'_>) -> io::Result<CheckReport> {
        let request = if deep { "check deep" } else { "check" };
        let mut answer = self.begin(request, None)?;
        loop {
            match serde_json::from_str(&answer.line()?).map_err(io::Error::other)? {
                CheckLine::Progress(progress) if tell(&progress) => {}
                CheckLine::Progress(_) => return Err(io::ErrorKind::Interrupted.into()),
                CheckLine::Report(report) => return Ok(*report),
                CheckLine::Error(error) => return Err(io::Error::other(error)),
            }
        }
    }

    /// Begins to wait for the pool to be closed: before it is unmounted. Returns when the daemon knows
    /// that it is waited for.
    pub fn wait(&self) -> io::Result<Pending> {
        let mut pending = self.begin("wait", Some(Duration::from_secs(10)))?;
        let line = pending.line()?;
        if line != WAITING {
            return Err(io::Error::other(line));
        }
        pending.stream.get_ref().set_read_timeout(None)?;
        Ok(pending)
    }

    fn begin(&self, request: &str, timeout: Option<Duration>) -> io::Result<Pending> {
        let mut stream = UnixStream::connect(&self.path)?;
        stream.set_read_timeout(timeout)?;
        stream.write_all(request.as_bytes())?;
        stream.write_all(b"\n")?;
        Ok(Pending { stream: BufReader::new(stream) })
    }
}

/// A request whose answer is awaited.
pub struct Pending {
    stream: BufReader<UnixStream>,
}

impl Pending {
    /// The answer; an error if the daemon ended without one.
    pub fn finish(mut self) -> io::Result<String> {
        self.line()
    }

    /// The answer, if it is here already.
    #[cfg(test)]
    pub(super) fn told(mut self) -> io::Result<String> {
        self.stream.get_ref().set_nonblocking(true)?;
        self.line()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the daemon ended without an answer",
            ));
        }
        Ok(line.trim_end().to_string())
    }
}
