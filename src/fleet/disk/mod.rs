//! One disk: what the fleet may ask of it, whatever it is made of.
//!
//! A [`Disk`] takes requests at any time and answers each exactly once through its completion, from
//! a thread of its own (or from a simulated event). It never blocks the caller. Nothing above this
//! directory knows io_uring, file descriptors or paths.
//!
//! * Requests wait in a host queue with classes and priorities (design 5.5) and can be cancelled
//!   there; a few are in flight on the device.
//! * The disk owns every buffer from submit to completion, so that dropping a request can never free
//!   memory the kernel still writes to. A waiter that gives up does not end the request: its place on
//!   disk stays taken until the completion arrives [R7].
//! * A short or 0-byte transfer, or ENOSPC from a block device, is a failure of the disk.
//! * [I10] After a failed flush, or a failed durable write, the disk is failed for good: every later
//!   request completes with `DiskError::Failed` at once. The flush itself says no more than `Failed`.
//! * A request that goes beyond the end of the disk is answered with `Medium` and changes nothing: its
//!   offset may come from bytes that a disk gave us. An unaligned one is a bug and panics.
//! * [R8] A flush covers the writes that completed before it was submitted. Flushes that wait in the
//!   queue together may be carried out as one.

use std::time::Duration;

use crate::base::sync::Arc;
use crate::base::{RequestId, Ticks};

pub mod buffer;
pub mod error;
pub mod fan;
mod host;
pub mod meter;
pub mod probe;
mod queue;
mod signature;
pub mod sim;
mod sysfs;
pub mod uring;

pub use buffer::{Buffer, BufferPool, Slice};
pub use error::{DiskError, ProbeError};
pub use fan::{Fan, FanView};
pub use meter::Calibration;
pub use probe::{DriveKey, Identified, Probe, Signature, Use, identify, probe};
pub use sim::SimDisk;
pub use uring::{UringDisk, UringOptions};

/// Why a request is made; decides its place in the host queue. Most urgent first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Somebody waits for these bytes.
    Foreground,
    /// A batch that somebody's fsync waits for.
    Journal,
    /// Objects of the flusher, checkpoints.
    Flush,
    /// Scrub, repair, reclaim, compaction. Pieces of at most 512 KiB.
    Background,
}

/// What to do. Offsets and lengths are multiples of 4096.
#[derive(Debug)]
pub enum Operation {
    /// Fills the whole buffer from `offset`.
    Read {
        /// Byte offset on the disk.
        offset: u64,
        /// Comes back in the outcome, filled.
        buffer: Buffer,
    },
    /// Writes `data` at `offset`.
    Write {
        /// Byte offset on the disk.
        offset: u64,
        /// Shared, so that one buffer can go to several disks at once.
        data: Slice,
        /// Complete only when the bytes are on stable storage (FUA where the device has it, else a
        /// flush after the write).
        durable: bool,
    },
    /// Makes every write that completed before this submit durable.
    Flush,
}

/// A request to one disk.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub operation: Operation,
    /// Its place in the queue.
    pub class: Class,
    /// When its sender stops waiting; nearer deadlines go first within a class. The request is
    /// carried out all the same.
    pub deadline: Option<Ticks>,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Outcome {
    /// Whether all of it was done.
    pub result: Result<(), DiskError>,
    /// A read's buffer; None if the disk failed in a way that loses it (never for `Ok`).
    pub buffer: Option<Buffer>,
}

/// Called exactly once, from the disk's own thread: must be short, must not wait.
pub type Completion = Box<dyn FnOnce(Outcome) + Send>;

/// What a disk is, as found by probing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// Where it was found: `/dev/sdc`, `/images/disk1`.
    pub path: String,
    /// Model name, empty if unknown.
    pub model: String,
    /// Serial number, empty if unknown.
    pub serial: String,
    /// Name under /dev/disk/by-id without the directory, empty if none.
    pub by_id: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Logical sector size in bytes: 512 or 4096.
    pub logical_sector_bytes: u32,
    /// Physical sector size in bytes.
    pub physical_sector_bytes: u32,
    /// False for SSDs and for files.
    pub rotational: bool,
    /// A regular file rather than a block device.
    pub is_file: bool,
}

/// Load of a disk now, for the expected wait (design 5). All costs are predicted service times on a
/// healthy disk; atomics, readable at any time.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Load {
    /// Requests queued and in flight.
    pub requests: u32,
    /// Predicted service time of all of them together: `Q_d`.
    pub outstanding: Duration,
    /// Since when the oldest request in flight has been on the device.
    pub oldest_since: Option<Ticks>,
    /// EWMA of actual ÷ predicted service: `s_d`, 1.0 for a disk as fast as calibrated.
    pub slowdown: f64,
    /// A flush is running: it drains the drive's cache, and everything behind it waits [R8].
    pub flushing: bool,
}

/// Counters since the disk was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Reads completed.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Flushes completed (device flushes, after joining).
    pub flushes: u64,
    /// Requests that failed.
    pub errors: u64,
}

/// Whether a disk still takes requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskState {
    /// Takes and answers requests.
    Working,
    /// Failed for good until reopened: requests are answered with `Failed` at once.
    Failed,
}

/// What made a disk fail first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The device is gone.
    Gone,
    /// A flush failed [I10].
    Flush,
    /// A durable write failed.
    Write,
    /// Its owner said so.
    Told,
}

/// One disk. Implemented by the io_uring engine and by the simulator.
pub trait Disk: Send + Sync {
    /// What it is.
    fn identity(&self) -> &Identity;
    /// Hands a request over. `done` is called exactly once, possibly before this returns.
    fn submit(&self, request: Request, done: Completion) -> RequestId;
    /// True if the request was still in the host queue: it then completes with `Cancelled`.
    fn cancel(&self, id: RequestId) -> bool;
    /// Load now.
    fn load(&self) -> Load;
    /// Predicted service time of one more request of `bytes`: `S(x) = a + x/B`.
    fn predict(&self, bytes: u64) -> Duration;
    /// Counters since opening.
    fn counters(&self) -> Counters;
    /// Whether it still works.
    fn state(&self) -> DiskState {
        self.failure().map_or(DiskState::Working, |_| DiskState::Failed)
    }
    /// What made it fail; None while it works.
    fn failure(&self) -> Option<Failure>;
    /// Stops using it: everything queued completes with `Failed`; in flight requests complete when
    /// the device answers.
    fn fail(&self);
    /// Requests handed to the device and not answered yet. The disk may be closed at 0 [R7].
    fn in_flight(&self) -> u32;
}

/// Shared handle.
pub type DiskHandle = Arc<dyn Disk>;
