//! How busy and how slow a disk is, readable at any time without a lock (design 5).
//!
//! Two figures are kept apart: *busy* is `Q`, the predicted service time of everything queued and in
//! flight; *slow* is `s`, how much longer the device takes than predicted.
//!
//! * The device counts as one server: the service time of a request is the time from the completion
//!   before it (or its own issue, if later) to its completion. At depth that is the true rate.
//! * `s` moves by a tenth towards each sample, and by more the older the last sample is: an estimate
//!   that nothing has confirmed for `MEMORY` yields to the first new measurement.
//! * A disk that looks slow is avoided, so nothing would ever tell that it has healed. Therefore what
//!   `load` shows decays from `s` towards 1 while no sample comes: after a while the disk is asked
//!   again, one request tells the truth, and counts nearly fully. A 10 times slower disk is tried
//!   about every two `MEMORY`.
//! * A request that takes longer than anything predicted is itself a measurement: `load` shows at
//!   least the time the device has been silent over what the oldest request should have taken.
//!
//! A drive's cache makes writes look fast, so a write counts as at least 1; flushes are not samples
//! at all. A read or write that begins where the one before ended is predicted without a seek.

use std::time::Duration;

use crate::base::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::base::{Clock, Ticks};

use super::Load;

/// Weight of one sample among frequent ones.
const GAIN: f64 = 0.1;
/// How long an unconfirmed estimate is trusted.
const MEMORY: Duration = Duration::from_secs(1);
/// Bounds of `s`: a disk a hundred times faster than predicted, or ten thousand times slower.
const SLOWDOWN_MIN: f64 = 0.01;
const SLOWDOWN_MAX: f64 = 10_000.0;
/// A request that continues the one before costs the transfer and this.
const CONTINUE: Duration = Duration::from_micros(100);
/// Longest prediction for a flush.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// What a healthy disk of this kind takes: `S(x) = position + x / rate`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Calibration {
    /// Getting there: command, seek and half a rotation.
    pub position: Duration,
    /// Sustained transfer.
    pub bytes_per_second: u64,
}

impl Calibration {
    /// A 7200 rpm disk: 12 ms, 200 MB/s (design review, arithmetic).
    pub const ROTATING: Calibration =
        Calibration { position: Duration::from_millis(12), bytes_per_second: 200_000_000 };
    /// A SATA SSD, or a file on one.
    pub const SOLID: Calibration =
        Calibration { position: Duration::from_micros(150), bytes_per_second: 500_000_000 };

    /// Predicted service of a request of `bytes` that needs positioning.
    pub fn service(&self, bytes: u64) -> Duration {
        self.position + self.transfer(bytes)
    }

    fn transfer(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64)
    }

    /// Predicted service of a request that begins where the one before ended.
    pub fn continued(&self, bytes: u64) -> Duration {
        CONTINUE.min(self.position) + self.transfer(bytes)
    }

    /// Predicted service of a flush after `writes` writes of `bytes` in all.
    pub fn flush(&self, writes: u64, bytes: u64) -> Duration {
        let seeks = self.position / 4 * u32::try_from(writes).unwrap_or(u32::MAX).min(1000);
        (self.position + seeks + self.transfer(bytes)).min(FLUSH_MAX)
    }
}

/// The figures of one disk. Updated by its host under the host's lock, read by anybody.
pub(super) struct Meter {
    requests: AtomicU32,
    outstanding_ns: AtomicU64,
    /// `s`, as the bits of an f64.
    slowdown: AtomicU64,
    /// When `s` was last confirmed.
    sampled_at: AtomicU64,
    /// Issue of the oldest request in flight; 0 for none.
    oldest_since: AtomicU64,
    /// What the oldest request in flight was predicted to take.
    oldest_cost_ns: AtomicU64,
    /// The last completion.
    finished_at: AtomicU64,
    flushing: AtomicBool,
}

impl Meter {
    pub fn new(now: Ticks) -> Meter {
        Meter {
            requests: AtomicU32::new(0),
            outstanding_ns: AtomicU64::new(0),
            slowdown: AtomicU64::new(1f64.to_bits()),
            sampled_at: AtomicU64::new(now.0),
            oldest_since: AtomicU64::new(0),
            oldest_cost_ns: AtomicU64::new(0),
            finished_at: AtomicU64::new(now.0),
            flushing: AtomicBool::new(false),
        }
    }

    /// A request of predicted `cost` was accepted.
    pub fn accepted(&self, cost: Duration) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.outstanding_ns.fetch_add(nanos(cost), Ordering::Relaxed);
    }

    /// A request of predicted `cost` was answered.
    pub fn answered(&self, cost: Duration) {
        let before = self.requests.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a request is answered once, after it was accepted");
        self.outstanding_ns.fetch_sub(nanos(cost), Ordering::Relaxed);
    }

    /// Which request in flight is the oldest now, and what it should take.
    pub fn set_oldest(&self, oldest: Option<(Ticks, Duration)>) {
        let (since, cost) = oldest.unwrap_or((Ticks(0), Duration::ZERO));
        self.oldest_cost_ns.store(nanos(cost), Ordering::Relaxed);
        self.oldest_since.store(since.0, Ordering::Relaxed);
    }

    /// Whether a device flush runs now.
    pub fn set_flushing(&self, flushing: bool) {
        self.flushing.store(flushing, Ordering::Relaxed);
    }

    /// The device completed something at `now` that was issued at `issued`: returns how long it had
    /// the device for itself.
    pub fn completed(&self, issued: Ticks, now: Ticks) -> Duration {
        let before = Ticks(self.finished_at.swap(now.0, Ordering::Relaxed));
        now.since(before.max(issued))
    }

    /// A sample of actual over predicted service.
    pub fn sample(&self, now: Ticks, ratio: f64) {
        let old = f64::from_bits(self.slowdown.load(Ordering::Relaxed));
        let age = now.since(Ticks(self.sampled_at.swap(now.0, Ordering::Relaxed)));
        let gain = 1.0 - (1.0 - GAIN) * fading(age);
        let new = old + gain * (ratio.clamp(SLOWDOWN_MIN, SLOWDOWN_MAX) - old);
        self.slowdown.store(new.to_bits(), Ordering::Relaxed);
    }

    pub fn load(&self, clock: &dyn Clock) -> Load {
        let now = clock.now();
        let oldest = Ticks(self.oldest_since.load(Ordering::Relaxed));
        let slowdown = f64::from_bits(self.slowdown.load(Ordering::Relaxed));
        let age = now.since(Ticks(self.sampled_at.load(Ordering::Relaxed)));
        let mut shown =
            if slowdown > 1.0 { 1.0 + (slowdown - 1.0) * fading(age) } else { slowdown };
        if oldest.0 > 0 {
            let silent = now.since(oldest.max(Ticks(self.finished_at.load(Ordering::Relaxed))));
            let cost = self.oldest_cost_ns.load(Ordering::Relaxed).max(1);
            shown = shown.max((nanos(silent) as f64 / cost as f64).min(SLOWDOWN_MAX));
        }
        Load {
            requests: self.requests.load(Ordering::Relaxed),
            outstanding: Duration::from_nanos(self.outstanding_ns.load(Ordering::Relaxed)),
            oldest_since: (oldest.0 > 0).then_some(oldest),
            slowdown: shown,
            flushing: self.flushing.load(Ordering::Relaxed),
        }
    }
}

/// How much of an estimate of this age is left: 1 for a fresh one, 0 in the end.
fn fading(age: Duration) -> f64 {
    (-age.as_secs_f64() / MEMORY.as_secs_f64()).exp()
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
