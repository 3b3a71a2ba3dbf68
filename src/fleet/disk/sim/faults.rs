//! What can go wrong with a simulated disk, settable while it runs.

use std::ops::Range;
use std::time::Duration;

use super::DiskError;
use super::media::Media;
use super::{SimDisk, image::PAGE};

/// Kinds of access that a fault can aim at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reads.
    Read,
    /// Writes, durable or not.
    Write,
    /// Flushes.
    Flush,
}

/// Faults in force.
pub(super) struct Faults {
    /// Service times are multiplied by this.
    slow: f64,
    /// Nothing is answered, or no flush.
    hung: bool,
    hung_flush: bool,
    pub flush_lies: bool,
    detached: bool,
    bad: Vec<Range<u64>>,
    /// One-shot failures: after so many more accesses of the kind.
    strikes: Vec<(Access, u64, DiskError)>,
    lost_writes: u64,
    misdirected: Option<i64>,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            slow: 1.0,
            hung: false,
            hung_flush: false,
            flush_lies: false,
            detached: false,
            bad: Vec::new(),
            strikes: Vec::new(),
            lost_writes: 0,
            misdirected: None,
        }
    }
}

impl Faults {
    /// How long something takes that should take `service`.
    pub fn stretch(&self, service: Duration) -> Duration {
        if self.detached { Duration::ZERO } else { service.mul_f64(self.slow) }
    }

    pub fn is_hung(&self, access: Access) -> bool {
        !self.detached && (self.hung || self.hung_flush && access == Access::Flush)
    }

    /// The error that this access must end with, if any.
    pub fn strike(&mut self, access: Access) -> Option<DiskError> {
        if self.detached {
            return Some(DiskError::Gone);
        }
        let mut error = None;
        self.strikes.retain_mut(|(kind, left, with)| {
            if *kind != access {
                return true;
            }
            if *left == 0 {
                error = Some(*with);
                return false;
            }
            *left -= 1;
            true
        });
        error
    }

    pub fn bad_sector(&self, range: &Range<u64>) -> Option<DiskError> {
        let hit = self.bad.iter().find(|bad| bad.start < range.end && range.start < bad.end)?;
        Some(DiskError::Medium { offset: hit.start })
    }

    /// A drive replaces bad sectors when they are written.
    pub fn heal(&mut self, range: &Range<u64>) {
        let mut left = Vec::new();
        for bad in self.bad.drain(..) {
            for part in [bad.start..bad.end.min(range.start), bad.start.max(range.end)..bad.end] {
                if part.start < part.end {
                    left.push(part);
                }
            }
        }
        self.bad = left;
    }

    pub fn take_lost_write(&mut self) -> bool {
        let lost = self.lost_writes > 0;
        self.lost_writes -= u64::from(lost);
        lost
    }

    /// Where the write goes instead, if it is to be misdirected and there is such a place.
    pub fn take_misdirection(&mut self, offset: u64, bytes: usize, media: &Media) -> Option<u64> {
        let by = self.misdirected?;
        let elsewhere = offset.checked_add_signed(by)?;
        if elsewhere + bytes as u64 > media.live().bytes() {
            return None;
        }
        self.misdirected = None;
        Some(elsewhere)
    }
}

impl SimDisk {
    /// Every access takes `factor` times as long (from the next one on); 1.0 heals.
    pub fn set_slow(&self, factor: f64) {
        assert!(factor > 0.0, "time goes forward");
        self.device.lock().faults.slow = factor;
    }

    /// The drive answers nothing any more until it is set back; what came meanwhile is then answered.
    pub fn set_hang(&self, hang: bool) {
        self.device.lock().faults.hung = hang;
        self.resume();
    }

    /// The drive hangs in the next flush, and with it everything behind that.
    pub fn set_hang_flush(&self, hang: bool) {
        self.device.lock().faults.hung_flush = hang;
        self.resume();
    }

    /// The cable is pulled: everything on the device, and all later accesses, end with `Gone`.
    pub fn detach(&self) {
        self.device.lock().faults.detached = true;
        self.resume();
    }

    /// The cable is back. The engine that saw it gone has failed this disk for good; open a new one
    /// from [`SimDisk::snapshot`].
    pub fn attach(&self) {
        self.device.lock().faults.detached = false;
    }

    /// Reads that touch `range` (bytes) fail with `Medium` until it is written over.
    pub fn add_bad_range(&self, range: Range<u64>) {
        self.device.lock().faults.bad.push(range);
    }

    /// All sectors are good again.
    pub fn clear_bad_ranges(&self) {
        self.device.lock().faults.bad.clear();
    }

    /// The `nth` access of this kind from now (0: the next) fails once, with `error`.
    pub fn fail_nth(&self, access: Access, nth: u64, error: DiskError) {
        self.device.lock().faults.strikes.push((access, nth, error));
    }

    /// None of those that [`SimDisk::fail_nth`] has announced.
    pub fn fail_none(&self) {
        self.device.lock().faults.strikes.clear();
    }

    /// The next `count` writes are answered with success and never happen: the disk keeps what was
    /// there before.
    pub fn lose_writes(&self, count: u64) {
        self.device.lock().faults.lost_writes = count;
    }

    /// The next write lands `by` bytes (a multiple of 4096) beside its place, if that is on the disk.
    pub fn misdirect_next_write(&self, by: i64) {
        assert!(by % PAGE as i64 == 0, "misdirected by whole pages");
        self.device.lock().faults.misdirected = Some(by);
    }

    /// Flushes and durable writes are answered with success and make nothing durable.
    pub fn set_flush_lies(&self, lies: bool) {
        self.device.lock().faults.flush_lies = lies;
    }

    /// Turns one bit of the stored bytes over.
    pub fn flip_bit(&self, offset: u64, bit: u8) {
        self.device.lock().media.flip_bit(offset, bit);
    }

    /// Goes on with a request that was stuck, or ends everything after a detach.
    fn resume(&self) {
        let (stuck, detached, generation) = {
            let mut device = self.device.lock();
            let stuck = std::mem::take(&mut device.stuck);
            let detached = device.faults.detached;
            if detached && !stuck && device.serving.is_some() {
                // What is being served ends now and not when its event comes.
                device.generation += 1;
            }
            (stuck, detached && device.serving.is_some(), device.generation)
        };
        if stuck || detached {
            self.schedule(Duration::ZERO, generation);
        }
    }
}
