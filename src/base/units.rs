//! Sizes. The data area of a disk is counted in units of 4 KiB; everything else in bytes.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

/// 1024 bytes.
pub const KIB: u64 = 1 << 10;
/// 1024 KiB.
pub const MIB: u64 = 1 << 20;
/// 1024 MiB.
pub const GIB: u64 = 1 << 30;
/// Bytes of one allocation unit; also the alignment of every disk access [R6].
pub const UNIT_BYTES: u64 = 4096;

/// A number of 4 KiB units, or a position in units from the start of a disk's data area.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Units(pub u64);

impl Units {
    /// The units that `bytes` occupy, rounded up.
    pub const fn covering(bytes: u64) -> Units {
        Units(bytes.div_ceil(UNIT_BYTES))
    }

    /// This many units in bytes.
    pub const fn bytes(self) -> u64 {
        self.0 * UNIT_BYTES
    }
}

impl Add for Units {
    type Output = Units;
    fn add(self, other: Units) -> Units {
        Units(self.0 + other.0)
    }
}

impl Sub for Units {
    type Output = Units;
    fn sub(self, other: Units) -> Units {
        Units(self.0 - other.0)
    }
}

impl AddAssign for Units {
    fn add_assign(&mut self, other: Units) {
        self.0 += other.0;
    }
}

impl SubAssign for Units {
    fn sub_assign(&mut self, other: Units) {
        self.0 -= other.0;
    }
}

impl fmt::Debug for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}u", self.0)
    }
}

/// `value` rounded up to the next multiple of `step`.
pub const fn round_up(value: u64, step: u64) -> u64 {
    value.div_ceil(step) * step
}

/// `value` rounded down to a multiple of `step`.
pub const fn round_down(value: u64, step: u64) -> u64 {
    value / step * step
}

/// A size for people: `1.5 TiB`, `64 KiB`, `17 B`.
pub fn human_bytes(bytes: u64) -> String {
    const NAMES: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut index = 0;
    while value >= 1024.0 && index + 1 < NAMES.len() {
        value /= 1024.0;
        index += 1;
    }
    if index == 0 {
        format!("{bytes} B")
    } else if value < 10.0 {
        format!("{value:.2} {}", NAMES[index])
    } else if value < 100.0 {
        format!("{value:.1} {}", NAMES[index])
    } else {
        format!("{value:.0} {}", NAMES[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_round_up() {
        assert_eq!(Units::covering(0), Units(0));
        assert_eq!(Units::covering(1), Units(1));
        assert_eq!(Units::covering(4096), Units(1));
        assert_eq!(Units::covering(4097), Units(2));
        assert_eq!(Units(3).bytes(), 12288);
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(human_bytes(17), "17 B");
        assert_eq!(human_bytes(64 * KIB), "64.0 KiB");
        assert_eq!(human_bytes(3 * GIB / 2), "1.50 GiB");
    }
}
