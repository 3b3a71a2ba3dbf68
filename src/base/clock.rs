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

impl std::fmt::Display for WallTime {
    /// Whole seconds in UTC: `2026-11-20T21:05:09Z` (days to dates as Hinnant does).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (days, second) = (self.seconds.div_euclid(86_400), self.seconds.rem_euclid(86_400));
        let shifted = i128::from(days) + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year_of_era + era * 400 + i128::from(month <= 2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// Now, monotonic.
    fn now(&self) -> Ticks;
    /// Now, time of day.
    fn wall(&self) -> WallTime;
}

/// The machine's clock, for tests that need real threads.
#[cfg(test)]
pub(crate) struct TestClock(std::time::Instant);

#[cfg(test)]
impl TestClock {
    /// One that begins now.
    #[allow(
        clippy::disallowed_methods,
        reason = "only `pool` has a clock, and tests of what parks"
    )]
    pub(crate) fn start() -> crate::base::sync::Arc<dyn Clock> {
        crate::base::sync::Arc::new(TestClock(std::time::Instant::now()))
    }
}

#[cfg(test)]
impl Clock for TestClock {
    fn now(&self) -> Ticks {
        Ticks(self.0.elapsed().as_nanos() as u64 + 1)
    }
    fn wall(&self) -> WallTime {
        WallTime::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_208_709, "2026-11-20T21:05:09Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ];
        for (seconds, want) in table {
            assert_eq!(WallTime { seconds, nanos: 1 }.to_string(), want);
        }
        for seconds in [i64::MIN, i64::MAX] {
            assert!(WallTime { seconds, nanos: 0 }.to_string().ends_with('Z'));
        }
    }
}
