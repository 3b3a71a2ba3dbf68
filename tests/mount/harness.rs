//! A mount for one test: made on a directory of its own, taken away by its exact path at the end,
//! also when the test fails.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use isotherm::base::sync::Arc;
use isotherm::base::{Clock, Ticks, WallTime};
use isotherm::frontend::memory::{Contents, MemoryFileSystem};
use isotherm::frontend::{FileSystem, Mount, MountOptions, abandon, unmount};
use isotherm::namespace::Caller;

/// A clock on the machine's time.
pub struct TestClock;

impl Clock for TestClock {
    fn now(&self) -> Ticks {
        Ticks(0)
    }

    #[allow(clippy::disallowed_methods, reason = "tests compare with the machine's time")]
    fn wall(&self) -> WallTime {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("the machine's clock is past 1970");
        WallTime { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() }
    }
}

/// True as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// An in-memory file system of the current user.
pub fn memory(contents: Contents) -> Arc<MemoryFileSystem> {
    let owner =
        Caller { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() };
    Arc::new(MemoryFileSystem::new(contents, Arc::new(TestClock), owner))
}

/// Something mounted for a test.
pub struct Mounted {
    directory: Option<tempfile::TempDir>,
    path: PathBuf,
    server: Option<JoinHandle<std::io::Result<()>>>,
}

impl Mounted {
    /// Mounts `fs`; None, loudly, where FUSE cannot be used.
    pub fn new(fs: Arc<dyn FileSystem>) -> Option<Mounted> {
        Mounted::with(fs, |_| {})
    }

    /// As `new`, with options changed.
    pub fn with(
        fs: Arc<dyn FileSystem>,
        change: impl FnOnce(&mut MountOptions),
    ) -> Option<Mounted> {
        let device = std::fs::File::options().read(true).write(true).open("/dev/fuse");
        if let Err(error) = device {
            eprintln!("skipped: /dev/fuse cannot be opened: {error}");
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut options = MountOptions::for_current_user("testpool");
        change(&mut options);
        let mount = match Mount::new(fs, directory.path(), &options) {
            Ok(mount) => mount,
            Err(error) if !is_root() => {
                eprintln!("skipped: {error}");
                return None;
            }
            Err(error) => panic!("root can mount: {error}"),
        };
        let path = mount.mountpoint().to_path_buf();
        Some(Mounted { directory: Some(directory), path, server: Some(serve(mount)) })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name below the mount point.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Takes it away and returns how serving ended.
    pub fn finish(mut self) -> std::io::Result<()> {
        while_in_use(|| unmount(&self.path, false))?;
        let server = self.server.take().expect("it is served until here");
        server.join().expect("the server does not panic")
    }
}

/// Does it, and again while something is in use, for 10 s: when another test's thread starts a process,
/// that holds what this process has open until it runs.
#[allow(clippy::disallowed_methods, reason = "a test waits for a process")]
pub fn while_in_use<T>(mut action: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let result = action();
        let in_use = |error: &std::io::Error| {
            matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::ExecutableFileBusy)
        };
        if !result.as_ref().is_err_and(in_use) || Instant::now() >= until {
            return result;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[allow(clippy::disallowed_methods, reason = "a test serves its mount from a thread")]
fn serve(mount: Mount) -> JoinHandle<std::io::Result<()>> {
    std::thread::spawn(move || mount.serve())
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.server.is_some() {
            let _ = abandon(&self.path);
        }
        if let (Some(directory), true) = (self.directory.take(), std::thread::panicking()) {
            // Never delete into something that may still be mounted.
            let _ = directory.keep();
        }
    }
}

/// `return`s from a test that cannot be run here.
#[macro_export]
macro_rules! mounted {
    ($fs:expr) => {
        match $crate::harness::Mounted::new($fs) {
            Some(mounted) => mounted,
            None => return,
        }
    };
}
