//! Time, as something that is handed in. Only `pool` owns a clock that looks at the machine's.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment on a monotonic clock, in nanoseconds since some start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Ticks(pub u64);

impl Ticks {
    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Ticks) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Ticks {
    type Output = Ticks;
    fn add(self, after: Duration) -> Ticks {
        Ticks(self.0.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Ticks {
    type Output = Ticks;
    fn sub(self, before: Duration) -> Ticks {
        Ticks(self.0.saturating_sub(u64::try_from(before.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A time of day: seconds since 1970 (may be negative) and nanoseconds `0..1_000_000_000`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct WallTime {
    /// Whole seconds.
    pub seconds: i64,
    /// The rest, always below 10^9.
    pub nanos: u32,
}

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// Now, monotonic.
    fn now(&self) -> Ticks;
    /// Now, time of day.
    fn wall(&self) -> WallTime;
}
