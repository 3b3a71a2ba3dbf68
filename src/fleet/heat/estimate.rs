//! The expected wait of one more request on a disk: `W_d(x) = r_d + s_d * (Q_d + S(x))` (design 5).
//!
//! The disks' own meters give `Q_d` (with what is in flight), `S(x)` and `s_d`; a device that is
//! silent for longer than its oldest request should take shows that in `s_d` at once, so `r_d` is
//! what the in-flight part of `s_d * Q_d` says, and not added again.

use std::time::Duration;

use crate::base::limits::READ_DEADLINE_MS;
use crate::base::sync::Arc;
use crate::base::{Clock, DiskIndex};
use crate::fleet::members::Members;

/// Longest wait that is told: also keeps the arithmetic far from overflow.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Expected waits of all members.
pub struct Heat {
    clock: Arc<dyn Clock>,
    members: Arc<Members>,
}

impl Heat {
    /// Reads the meters of `members` on `clock`.
    pub fn new(clock: Arc<dyn Clock>, members: Arc<Members>) -> Heat {
        Heat { clock, members }
    }

    /// Expected time until one more request of `bytes` would be answered by `disk`; `Duration::MAX`
    /// if it takes none, else at most an hour.
    pub fn wait(&self, disk: DiskIndex, bytes: u64) -> Duration {
        let Some(handle) = self.members.handle(disk) else { return Duration::MAX };
        let load = handle.load();
        expected_wait(load.slowdown, load.outstanding, handle.predict(bytes))
    }

    /// The service time of one request of `bytes` on an idle, healthy disk; zero if it takes none.
    pub fn service(&self, disk: DiskIndex, bytes: u64) -> Duration {
        self.members.handle(disk).map_or(Duration::ZERO, |handle| handle.predict(bytes))
    }

    /// True if its oldest request in flight is older than any read should wait: nothing is asked of
    /// it while others can stand in. Ends by itself when the device answers.
    pub fn is_hung(&self, disk: DiskIndex) -> bool {
        let Some(handle) = self.members.handle(disk) else { return false };
        let now = self.clock.now();
        let oldest = handle.load().oldest_since;
        oldest.is_some_and(|since| now.since(since) >= Duration::from_millis(READ_DEADLINE_MS))
    }
}

/// The formula.
fn expected_wait(slowdown: f64, outstanding: Duration, service: Duration) -> Duration {
    let seconds = slowdown.max(0.0) * (outstanding + service).as_secs_f64();
    Duration::from_secs_f64(seconds.min(WAIT_MAX.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_and_slow_both_count() {
        let ms = Duration::from_millis;
        assert_eq!(expected_wait(1.0, ms(0), ms(12)), ms(12));
        assert_eq!(expected_wait(1.0, ms(100), ms(20)), ms(120));
        assert_eq!(expected_wait(2.5, ms(100), ms(20)), ms(300));
        assert_eq!(expected_wait(1e9, ms(100), ms(20)), WAIT_MAX);
        assert_eq!(expected_wait(f64::NAN, ms(100), ms(20)), ms(0));
    }
}
