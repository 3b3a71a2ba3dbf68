//! How much fits on disks of unequal size, and which redundancy to choose for them. Pure.
//!
//! An object of n shards needs n distinct disks, so a disk larger than the others cannot be filled:
//! the pool holds `S` shards' worth of bytes per shard number, where `sum(min(c_i, S)) = n * S`, and
//! so `k * S` bytes of data (design 8).

use crate::base::limits::SHARDS_MAX;
use crate::format::Redundancy;

/// Disks above this size take long enough to rebuild that a pool of nine or more wants m = 3.
const LARGE_DISK_BYTES: u64 = 16_000_000_000_000;
/// Choices within this share of the best, in percent, count as equal; the narrower one, whose
/// rebuild reads less, is taken.
const NEAR_TIE_PERCENT: u64 = 2;

/// Bytes of data that disks with these capacities hold when every object has `shards` shards, of
/// which `data` hold data. 0 if there are fewer disks than shards.
pub fn usable_bytes(capacities: &[u64], redundancy: Redundancy) -> u64 {
    let shards = redundancy.shards();
    if capacities.len() < shards || shards == 0 {
        return 0;
    }
    let mut sorted = capacities.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let mut rest: u128 = sorted.iter().map(|&bytes| u128::from(bytes)).sum();
    let mut per_shard = u128::MAX;
    // With the j largest disks full of one shard number each, the others share the rest.
    for (largest, &bytes) in sorted.iter().enumerate().take(shards) {
        per_shard = per_shard.min(rest / (shards - largest) as u128);
        rest -= u128::from(bytes);
    }
    u64::try_from(per_shard * redundancy.data_shards() as u128).unwrap_or(u64::MAX)
}

/// One line of the table that `create` prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The redundancy.
    pub redundancy: Redundancy,
    /// Bytes of data that fit.
    pub usable_bytes: u64,
    /// Disks that may fail at once.
    pub survives: usize,
    /// Disks beyond the shards of an object: with at least one, a failed disk is rebuilt onto the
    /// others without a new one.
    pub spare_disks: usize,
    /// What `create` takes if nothing is asked for.
    pub recommended: bool,
}

/// All redundancies that these disks allow, least safe first, then narrowest; one is recommended
/// (none for a single disk, which has no redundancy at all).
pub fn choose_redundancy(disk_bytes: &[u64]) -> Vec<Choice> {
    let disks = disk_bytes.len();
    let mut choices = Vec::new();
    for parity in 0..=3u8.min(disks.saturating_sub(1) as u8) {
        let data_max = (disks - usize::from(parity)).min(SHARDS_MAX - usize::from(parity));
        for data in 1..=data_max as u8 {
            if parity == 0 && data > 1 {
                break;
            }
            let redundancy = if data == 1 {
                Redundancy::Replica { copies: parity + 1 }
            } else {
                Redundancy::Erasure { data, parity }
            };
            choices.push(Choice {
                redundancy,
                usable_bytes: usable_bytes(disk_bytes, redundancy),
                survives: usize::from(parity),
                spare_disks: disks - redundancy.shards(),
                recommended: false,
            });
        }
    }
    if let Some(index) = recommend(&choices, disk_bytes) {
        choices[index].recommended = true;
    }
    choices
}

/// m by the number and size of the disks, then the most usable bytes, then the smaller k.
fn recommend(choices: &[Choice], disk_bytes: &[u64]) -> Option<usize> {
    let disks = disk_bytes.len();
    let largest = disk_bytes.iter().copied().max()?;
    let (parity, data_max) = match disks {
        0 | 1 => return None,
        2 | 3 => (1, 1),
        4 | 5 => (2, SHARDS_MAX),
        9.. if largest > LARGE_DISK_BYTES => (3, SHARDS_MAX),
        _ => (2, SHARDS_MAX),
    };
    // Self-healing needs a spare place; five disks or fewer cannot afford one.
    let shards_max = if disks <= 5 { disks } else { disks - 1 };
    let fits = |choice: &Choice| {
        choice.survives == parity
            && choice.redundancy.shards() <= shards_max
            && choice.redundancy.data_shards() <= data_max
    };
    let best = choices.iter().filter(|choice| fits(choice)).map(|one| one.usable_bytes).max()?;
    let enough = best - best / 100 * NEAR_TIE_PERCENT;
    choices.iter().position(|choice| fits(choice) && choice.usable_bytes >= enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TB: u64 = 1_000_000_000_000;

    fn recommended(disks: &[u64]) -> Option<Redundancy> {
        let choices = choose_redundancy(disks);
        assert!(choices.iter().filter(|choice| choice.recommended).count() <= 1);
        choices.iter().find(|choice| choice.recommended).map(|choice| choice.redundancy)
    }

    #[test]
    fn usable_bytes_on_unequal_disks() {
        let ec = |data, parity| Redundancy::Erasure { data, parity };
        let replica = |copies| Redundancy::Replica { copies };
        let table: [(&[u64], Redundancy, u64); 9] = [
            (&[100; 8], ec(6, 2), 600),
            (&[100; 8], replica(2), 400),
            (&[100; 7], ec(6, 2), 0),
            // The large disk holds one shard number at most.
            (&[1000, 100, 100], replica(2), 200),
            (&[1000, 100, 100], replica(3), 100),
            (&[8, 1, 1, 1], ec(2, 2), 2),
            (&[400, 400, 200, 200, 100], ec(2, 1), 2 * 433),
            (&[400, 400, 200, 200, 100], ec(3, 2), 300),
            (&[], replica(1), 0),
        ];
        for (disks, redundancy, want) in table {
            assert_eq!(usable_bytes(disks, redundancy), want, "{disks:?} {redundancy:?}");
        }
    }

    #[test]
    fn usable_bytes_solve_the_equation() {
        let mut random = crate::base::Random::new(5);
        for _ in 0..500 {
            let disks: Vec<u64> =
                (0..2 + random.below(12)).map(|_| 1 + random.below(100_000)).collect();
            let shards = 1 + random.below(disks.len() as u64);
            let redundancy = Redundancy::Replica { copies: shards as u8 };
            let each = usable_bytes(&disks, redundancy);
            let holds =
                |each: u64| disks.iter().map(|&c| c.min(each)).sum::<u64>() >= shards * each;
            assert!(holds(each) && !holds(each + 1), "{disks:?} {shards}: {each}");
        }
    }

    #[test]
    fn the_default_redundancy() {
        let ec = |data, parity| Some(Redundancy::Erasure { data, parity });
        let table: [(&[u64], Option<Redundancy>); 11] = [
            (&[TB], None),
            (&[TB; 2], Some(Redundancy::Replica { copies: 2 })),
            (&[TB; 3], Some(Redundancy::Replica { copies: 2 })),
            (&[TB; 4], ec(2, 2)),
            (&[TB; 5], ec(3, 2)),
            (&[TB; 6], ec(3, 2)),
            (&[TB; 7], ec(4, 2)),
            (&[TB; 8], ec(5, 2)),
            (&[16 * TB; 9], ec(6, 2)),
            (&[20 * TB; 9], ec(5, 3)),
            // Two large disks: wider objects gain nothing.
            (&[8 * TB, 8 * TB, TB, TB, TB, TB, TB], Some(Redundancy::Replica { copies: 3 })),
        ];
        for (disks, want) in table {
            assert_eq!(recommended(disks), want, "{disks:?}");
        }
    }

    #[test]
    fn near_ties_go_to_the_narrower() {
        let Some(Redundancy::Erasure { data, parity: 2 }) = recommended(&[TB; 24]) else {
            panic!("24 disks have an erasure code");
        };
        assert_eq!(data, 18, "21+2 holds 2 % more than 18+2 and reads a sixth more to rebuild");
    }
}
