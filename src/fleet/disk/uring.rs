#![allow(unsafe_code)]
//! A real disk: one thread and one io_uring per disk, block device or regular file.
//!
//! The thread takes requests from the [`Host`], carries up to 33 of them out at once, and reports
//! their ends. Others reach it only through the host's lock and an eventfd that the ring reads.
//!
//! * **The descriptor lives in this thread alone.** The thread leaves the process's file table
//!   (`unshare(CLONE_FILES)`), closes what it inherited, and only then opens the disk. So when the
//!   process is killed while another disk hangs in the kernel, this one is released all the same. (It
//!   must not be a registered file: a ring is mapped into the address space, which a thread that
//!   hangs keeps alive, and with it the ring and every file registered there.)
//! * **Numbers are the same in every table.** The eventfds are made once, before the first such
//!   thread, and kept for ever: any thread may wake any disk. One more number is made and set aside;
//!   in its own thread each disk takes that one. So nothing that writes to a descriptor of another
//!   table by number (a logger, a completion) can ever hit a disk.
//! * **Exclusive.** Block devices are opened with O_EXCL, files are locked with flock; both end when
//!   the last request has been reaped and the thread ends [R7].
//! * **Buffers.** The slab owns them from submit to completion; it is never freed while anything is
//!   in flight.
//! * **What an answer means** is decided in [`judge`]: a short or 0-byte transfer or ENOSPC of a block
//!   device is a disk that is gone, never data; EIO is a medium error; ENOSPC of a file is the host's.
//! * FLUSH is fdatasync, in a kernel thread of the ring. Durable writes use RWF_DSYNC where the device
//!   has FUA or no volatile cache; else the host sends a flush behind them, which others can join.
//!
//! Dropping the disk does not wait. The thread ends once everything accepted is answered; if the
//! device hangs, the thread stays behind with it, and holds nothing of the other disks.

use std::fs::{File, OpenOptions};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use crate::base::limits::DISKS_MAX;
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::base::sync::{Arc, Mutex, OnceLock};
use crate::base::{Clock, Event, RequestId, Wait};

use super::error::{Errno, ProbeError};
use super::host::{DeviceRequest, Host};
use super::meter::Calibration;
use super::queue::Rules;
use super::{
    Buffer, Completion, Counters, Disk, DiskError, DiskHandle, Failure, Identity, Load, Request,
    sysfs,
};

/// Entries of a ring: the host queue never has more than 33 in flight, plus the wake-up read.
const RING_ENTRIES: u32 = 64;
/// Disks open at once in one process: a full pool, and some being probed.
const WAKES: usize = DISKS_MAX + 16;
/// A request that the kernel asks to be repeated is repeated this often.
const TRIES_MAX: u32 = 1000;
/// How long `open` waits for the disk's thread: a disk that spins up needs 10 s.
const OPEN_SECONDS: u64 = 30;
/// Marks the wake-up read among the completions.
const WAKE: u64 = u64::MAX;

/// What a disk takes from `pool`.
pub struct UringOptions<'a> {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How `open` waits for the disk's thread.
    pub wait: &'a dyn Wait,
    /// Starts the disk's thread: a name, and what it runs. The thread ends when the disk was dropped
    /// and everything on the device has been answered [R7]: only then is the device released, so
    /// whoever wants to open it again joins the thread first.
    pub spawn: &'a dyn Fn(String, Box<dyn FnOnce() + Send>),
    /// Opens it for reading only, and not exclusively: for looking. Writes and flushes then fail.
    pub read_only: bool,
}

/// A disk served by io_uring.
pub struct UringDisk {
    shared: Arc<Shared>,
}

struct Shared {
    host: Host,
    wake: Wake,
    /// The handle is gone: end when nothing is left to do.
    closing: AtomicBool,
    opened: Mutex<Option<Result<(), ProbeError>>>,
    opened_event: Event,
}

impl UringDisk {
    /// Opens the block device or regular file at `path`, exclusively unless read only. `identity` is
    /// what probing found; a device that has become smaller since is refused. Waits for the disk's
    /// thread, but not longer than 30 s: a disk may hang in open.
    pub fn open(
        path: &Path,
        identity: Identity,
        options: UringOptions,
    ) -> Result<DiskHandle, ProbeError> {
        let name = path.display().to_string();
        let calibration =
            if identity.rotational { Calibration::ROTATING } else { Calibration::SOLID };
        let fua = !identity.is_file
            && std::fs::metadata(path).is_ok_and(|found| sysfs::has_durable_writes(found.rdev()));
        let no_wake = |errno| ProbeError::Io {
            path: name.clone(),
            action: "make an eventfd for it",
            offset: 0,
            errno,
        };
        let shared = Arc::new(Shared {
            host: Host::new(identity, options.clock.clone(), calibration, fua, Rules::default()),
            wake: Wake::take().map_err(no_wake)?,
            closing: AtomicBool::new(false),
            opened: Mutex::new(None),
            opened_event: Event::new(),
        });
        let disk = UringDisk { shared: shared.clone() };
        let opening = Opening { path: path.to_path_buf(), read_only: options.read_only };
        let in_thread = shared.clone();
        let thread = format!("disk-{}", path.file_name().unwrap_or_default().display());
        (options.spawn)(thread, Box::new(move || run(&in_thread, &opening)));
        let deadline = options.clock.now() + Duration::from_secs(OPEN_SECONDS);
        let mut result = None;
        options.wait.until(&shared.opened_event, Some(deadline), &mut || {
            result = shared.opened.lock().take();
            result.is_some()
        });
        // On any failure dropping `disk` tells the thread to end.
        result.unwrap_or(Err(ProbeError::Late { path: name, seconds: OPEN_SECONDS }))?;
        Ok(Arc::new(disk))
    }
}

impl Drop for UringDisk {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.wake.ring();
    }
}

impl Disk for UringDisk {
    fn identity(&self) -> &Identity {
        self.shared.host.identity()
    }

    fn submit(&self, request: Request, done: Completion) -> RequestId {
        let id = self.shared.host.submit(request, done);
        self.shared.wake.ring_once();
        id
    }

    fn cancel(&self, id: RequestId) -> bool {
        self.shared.host.cancel(id)
    }

    fn load(&self) -> Load {
        self.shared.host.load()
    }

    fn predict(&self, bytes: u64) -> Duration {
        self.shared.host.predict(bytes)
    }

    fn counters(&self) -> Counters {
        self.shared.host.counters()
    }

    fn failure(&self) -> Option<Failure> {
        self.shared.host.failure()
    }

    fn fail(&self) {
        self.shared.host.fail();
    }

    fn in_flight(&self) -> u32 {
        self.shared.host.in_flight()
    }
}

/// An eventfd whose number is the same in every file table of the process; see the head.
struct Wake {
    descriptor: RawFd,
    /// It was written to and not read since.
    rung: AtomicBool,
}

struct WakeNumbers {
    /// All that wake, ascending.
    all: Vec<RawFd>,
    unused: Mutex<Vec<RawFd>>,
    /// The number of the disk in each disk's table; taken, and used for nothing, in all others.
    disk: RawFd,
}

static WAKE_NUMBERS: OnceLock<Result<WakeNumbers, Errno>> = OnceLock::new();

impl Wake {
    fn numbers() -> Result<&'static WakeNumbers, Errno> {
        let made = WAKE_NUMBERS.get_or_init(|| {
            let mut all = Vec::with_capacity(WAKES);
            for _ in 0..=WAKES {
                // SAFETY: eventfd takes no pointers; the result is checked.
                let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
                if descriptor < 0 {
                    return Err(Errno(last_errno()));
                }
                all.push(descriptor);
            }
            all.sort_unstable();
            let disk = all.pop().expect("it was just made");
            Ok(WakeNumbers { unused: Mutex::new(all.clone()), all, disk })
        });
        made.as_ref().map_err(|&errno| errno)
    }

    fn take() -> Result<Wake, Errno> {
        let unused = Wake::numbers()?.unused.lock().pop();
        let descriptor = unused.ok_or(Errno(libc::EMFILE))?;
        Ok(Wake { descriptor, rung: AtomicBool::new(false) })
    }

    /// Wakes the disk's thread, unless it is about to look anyway.
    fn ring_once(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            self.ring();
        }
    }

    fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: write requires a readable buffer of the given length: `one` is 8 bytes. The number
        // names this eventfd in every table of the process, since none of them ever closes it.
        let written = unsafe { libc::write(self.descriptor, one.as_ptr().cast(), one.len()) };
        assert!(written == 8, "an eventfd takes a number: {}", Errno(last_errno()));
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        if let Ok(numbers) = Wake::numbers() {
            numbers.unused.lock().push(self.descriptor);
        }
    }
}

/// What the thread needs to open the disk.
struct Opening {
    path: PathBuf,
    read_only: bool,
}

/// The disk's thread.
fn run(shared: &Arc<Shared>, opening: &Opening) {
    let engine = isolate()
        .map_err(|errno| opening.error("leave the file table for", errno))
        .and_then(|()| opening.open(shared.host.identity()))
        .and_then(|file| Engine::new(shared.clone(), file, opening));
    let (engine, result) = match engine {
        Ok(engine) => (Some(engine), Ok(())),
        Err(error) => (None, Err(error)),
    };
    *shared.opened.lock() = Some(result);
    shared.opened_event.notify();
    if let Some(mut engine) = engine {
        engine.serve();
    }
}

/// Gives the calling thread a file table of its own that holds nothing but the wake-up descriptors
/// and standard error.
fn isolate() -> Result<(), Errno> {
    // Made in the common table, if nobody has yet: made after, they would be in this one alone.
    let numbers = Wake::numbers()?;
    // SAFETY: unshare takes no pointers; the result is checked.
    if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
        return Err(Errno(last_errno()));
    }
    let mut next: u32 = 0;
    let kept = numbers.all.iter().copied().chain([libc::STDERR_FILENO]);
    let mut kept: Vec<u32> = kept.map(|number| number.cast_unsigned()).collect();
    kept.sort_unstable();
    for keep in kept.into_iter().chain([u32::MAX]) {
        if next < keep {
            close_range(next, keep - 1)?;
        }
        next = keep.saturating_add(1);
    }
    // Numbers 0 and 1 must never come to mean a disk.
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = ManuallyDrop::new(null.map_err(|error| Errno(error.raw_os_error().unwrap_or(0)))?);
    for number in [libc::STDIN_FILENO, libc::STDOUT_FILENO] {
        // SAFETY: dup2 takes no pointers; both numbers belong to this thread's own table.
        if null.as_raw_fd() != number && unsafe { libc::dup2(null.as_raw_fd(), number) } < 0 {
            return Err(Errno(last_errno()));
        }
    }
    Ok(())
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: close_range takes no pointers. The table is this thread's own since `unshare`, so no
    // other thread's descriptors are touched; in this thread nothing owns any of them.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 { Ok(()) } else { Err(Errno(last_errno())) }
}

impl Opening {
    fn error(&self, action: &'static str, errno: Errno) -> ProbeError {
        let path = self.path.display().to_string();
        match errno.0 {
            libc::ENOENT | libc::ENXIO | libc::ENODEV => ProbeError::NotFound { path },
            libc::EACCES | libc::EPERM => ProbeError::Denied { path },
            libc::EBUSY | libc::EWOULDBLOCK => ProbeError::InUse { path },
            _ => ProbeError::Io { path, action, offset: 0, errno },
        }
    }

    fn open(&self, identity: &Identity) -> Result<File, ProbeError> {
        let errno = |error: std::io::Error| Errno(error.raw_os_error().unwrap_or(0));
        let exclusive = if identity.is_file || self.read_only { 0 } else { libc::O_EXCL };
        let open = |direct: i32| {
            OpenOptions::new()
                .read(true)
                .write(!self.read_only)
                .custom_flags(direct | exclusive | libc::O_NOCTTY)
                .open(&self.path)
        };
        let file = match open(libc::O_DIRECT) {
            // Some file systems cannot; their page cache then stands between, but flushes hold.
            Err(error) if identity.is_file && error.raw_os_error() == Some(libc::EINVAL) => open(0),
            other => other,
        };
        let mut file = file.map_err(|error| self.error("open", errno(error)))?;
        let found = file.metadata().map_err(|error| self.error("look at", errno(error)))?;
        let path = || self.path.display().to_string();
        let expected = if identity.is_file {
            found.file_type().is_file()
        } else {
            found.file_type().is_block_device()
        };
        if !expected {
            return Err(ProbeError::NotADisk { path: path() });
        }
        if identity.is_file && !self.read_only {
            // [I9] Whoever uses the loop device over it does not see the lock.
            let canonical = std::fs::canonicalize(&self.path).unwrap_or(self.path.clone());
            if sysfs::has_loop_device(&canonical) {
                return Err(ProbeError::InUse { path: path() });
            }
            // SAFETY: flock takes no pointers; the descriptor is open.
            if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
                return Err(self.error("lock", Errno(last_errno())));
            }
        }
        let end = std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))
            .map_err(|error| self.error("find the end of", errno(error)))?;
        if end < identity.bytes {
            let (action, errno) = ("reach the end of the disk", Errno(0));
            return Err(ProbeError::Io { path: path(), action, offset: end, errno });
        }
        self.settle(file)
    }

    /// The same open disk under the number that is set aside for it. In a process that inherited no
    /// more than the standard three it is the lowest one free, so `open` may have found it already.
    fn settle(&self, file: File) -> Result<File, ProbeError> {
        let error = |errno| self.error("number the descriptor of", errno);
        let number = Wake::numbers().map_err(error)?.disk;
        if file.as_raw_fd() == number {
            return Ok(file);
        }
        // SAFETY: dup3 takes no pointers. In this thread's own table `isolate` closed the number, and
        // only a disk is ever put there, once per thread.
        if unsafe { libc::dup3(file.as_raw_fd(), number, libc::O_CLOEXEC) } < 0 {
            return Err(error(Errno(last_errno())));
        }
        // SAFETY: the number was just made ours, and nobody else owns it in this table.
        Ok(unsafe { File::from_raw_fd(number) })
    }
}

/// What is on the device; the kernel may write to a read's buffer until it is answered.
struct InFlight {
    request: DeviceRequest,
    tries: u32,
}

/// The ring and what is in flight on it. Used in one thread only.
struct Engine {
    shared: Arc<Shared>,
    /// In this thread's table only.
    file: File,
    /// Dropped by hand: only when nothing is in flight, else leaked.
    ring: ManuallyDrop<IoUring>,
    slab: ManuallyDrop<Vec<Option<InFlight>>>,
    in_flight: usize,
    /// Where the ring reads the eventfd to.
    rung: ManuallyDrop<Box<u64>>,
    /// The wake-up read is on the ring.
    armed: bool,
}

impl Engine {
    fn new(shared: Arc<Shared>, file: File, opening: &Opening) -> Result<Engine, ProbeError> {
        let errno = |error: std::io::Error| Errno(error.raw_os_error().unwrap_or(0));
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(RING_ENTRIES)
            // Kernels before 6.1 know neither.
            .or_else(|_| IoUring::new(RING_ENTRIES))
            .map_err(|error| ProbeError::Io {
                path: opening.path.display().to_string(),
                action: "set up an io_uring (see sysctl kernel.io_uring_disabled)",
                offset: 0,
                errno: errno(error),
            })?;
        Ok(Engine {
            shared,
            file,
            ring: ManuallyDrop::new(ring),
            slab: ManuallyDrop::new(Vec::new()),
            in_flight: 0,
            rung: ManuallyDrop::new(Box::new(0)),
            armed: false,
        })
    }

    fn serve(&mut self) {
        loop {
            // Read before the queue: what was submitted before the handle was dropped is seen.
            let closing = self.shared.closing.load(Ordering::SeqCst);
            if !closing && !self.armed {
                self.arm();
            }
            while let Some(request) = self.shared.host.next() {
                self.start(request);
            }
            if closing && self.in_flight == 0 && !self.armed {
                return;
            }
            self.submit_and_wait();
            self.reap();
        }
    }

    fn arm(&mut self) {
        let target = (&raw mut **self.rung).cast::<u8>();
        let wake = types::Fd(self.shared.wake.descriptor);
        let entry = opcode::Read::new(wake, target, 8).build().user_data(WAKE);
        // SAFETY: the target is 8 bytes that live as long as the engine, or for ever if the engine
        // is dropped while the read is on the ring; nothing else touches them meanwhile.
        unsafe { self.push(&entry) };
        self.armed = true;
    }

    fn start(&mut self, request: DeviceRequest) {
        let slot = match self.slab.iter().position(Option::is_none) {
            Some(slot) => slot,
            None => {
                self.slab.push(None);
                self.slab.len() - 1
            }
        };
        self.slab[slot] = Some(InFlight { request, tries: 0 });
        self.in_flight += 1;
        self.send(slot);
    }

    /// Puts the request of `slot` on the ring.
    fn send(&mut self, slot: usize) {
        let disk = types::Fd(self.file.as_raw_fd());
        let in_flight = self.slab[slot].as_mut().expect("the slot was just filled or kept");
        let length = |bytes: usize| u32::try_from(bytes).expect("requests are a few MiB at most");
        let entry = match &mut in_flight.request {
            DeviceRequest::Read { offset, buffer, .. } => {
                let bytes = length(buffer.len());
                opcode::Read::new(disk, buffer.as_mut_ptr(), bytes).offset(*offset).build()
            }
            DeviceRequest::Write { offset, data, durable, .. } => {
                let flags = if *durable { libc::RWF_DSYNC } else { 0 };
                opcode::Write::new(disk, data.as_ptr(), length(data.len()))
                    .offset(*offset)
                    .rw_flags(flags)
                    .build()
            }
            DeviceRequest::Flush { .. } => {
                opcode::Fsync::new(disk).flags(types::FsyncFlags::DATASYNC).build()
            }
        };
        // SAFETY: the memory of a read or write belongs to the buffer in the slab, which stays there
        // until the completion of this entry was reaped; the slab is leaked, not freed, if the engine
        // is dropped before. A `Slice` is never written to, a read's `Buffer` has no other owner.
        unsafe { self.push(&entry.user_data(slot as u64)) };
    }

    /// # Safety
    /// The memory that `entry` names must stay valid, and a read's untouched, until its completion.
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the caller's promise is exactly what `push` asks for.
        let pushed = unsafe { self.ring.submission().push(entry) };
        if pushed.is_err() {
            self.ring.submit().expect("a ring that was set up takes entries");
            // SAFETY: as above.
            unsafe { self.ring.submission().push(entry) }.expect("submitting made room");
        }
    }

    fn submit_and_wait(&mut self) {
        match self.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                // Interrupted, or short of memory for a moment: reap what there is, come again.
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => {}
                _ => panic!("io_uring_enter: {error}"),
            },
        }
    }

    fn reap(&mut self) {
        let ended: Vec<cqueue::Entry> = self.ring.completion().collect();
        for entry in ended {
            if entry.user_data() == WAKE {
                self.armed = false;
                // Before the queue is looked at: a submit from now on rings again.
                self.shared.wake.rung.store(false, Ordering::SeqCst);
            } else {
                let slot = usize::try_from(entry.user_data()).expect("it was a slot number");
                self.end(slot, entry.result());
            }
        }
    }

    fn end(&mut self, slot: usize, answer: i32) {
        let in_flight = self.slab[slot].as_mut().expect("a request is answered once");
        in_flight.tries += 1;
        let again = matches!(-answer, libc::EAGAIN | libc::EINTR | libc::ECANCELED);
        if again && in_flight.tries < TRIES_MAX {
            self.send(slot);
            return;
        }
        let InFlight { request, .. } = self.slab[slot].take().expect("seen above");
        self.in_flight -= 1;
        let is_file = self.shared.host.identity().is_file;
        let (token, result, buffer) = conclude(request, answer, is_file);
        let result = if is_file { result.and_then(|()| self.is_whole()) } else { result };
        self.shared.host.finished(token, result, buffer);
    }

    /// A file that was cut off becomes longer again with the next write behind its new end, and what was
    /// there before reads as zeros: it is not the disk that it was.
    fn is_whole(&self) -> Result<(), DiskError> {
        let whole = self.shared.host.identity().bytes;
        match self.file.metadata() {
            Ok(found) if found.len() >= whole => Ok(()),
            Ok(_) | Err(_) => Err(DiskError::Gone),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.in_flight > 0 || self.armed {
            // Only a panic leads here: the kernel may still write to what we own, so it stays.
            return;
        }
        // SAFETY: each is dropped once, here, and not used after.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            ManuallyDrop::drop(&mut self.slab);
            ManuallyDrop::drop(&mut self.rung);
        }
    }
}

fn conclude(
    request: DeviceRequest,
    answer: i32,
    is_file: bool,
) -> (usize, Result<(), DiskError>, Option<Buffer>) {
    match request {
        DeviceRequest::Read { token, offset, buffer } => {
            (token, judge(answer, buffer.len(), offset, is_file), Some(buffer))
        }
        DeviceRequest::Write { token, offset, data, .. } => {
            (token, judge(answer, data.len(), offset, is_file), None)
        }
        DeviceRequest::Flush { token } => (token, judge(answer, 0, 0, is_file), None),
    }
}

/// What the kernel's answer to a transfer of `bytes` at `offset` says about the disk.
fn judge(answer: i32, bytes: usize, offset: u64, is_file: bool) -> Result<(), DiskError> {
    match -answer {
        // The kernel repeats short transfers by itself: what is still short has met the end of the
        // device, and a device has no end inside the range we use.
        short if short <= 0 => {
            let moved = usize::try_from(answer).unwrap_or(0);
            if moved == bytes { Ok(()) } else { Err(DiskError::Gone) }
        }
        libc::ENOSPC | libc::EDQUOT | libc::EFBIG if is_file => Err(DiskError::HostFull),
        // EIO, and what the block layer says instead for a bad sector, a failed protection check, a
        // command that was aborted or timed out.
        libc::EIO | libc::ENODATA | libc::EILSEQ | libc::ETIMEDOUT | libc::EREMOTEIO => {
            Err(DiskError::Medium { offset })
        }
        _ => Err(DiskError::Gone),
    }
}

fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[cfg(test)]
mod tests;
