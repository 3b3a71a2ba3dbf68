//! Which of the entries found count, in which order, and what is missing. Pure.
//!
//! * Batches are taken in LSN order, each naming the checksum of the one before it [R5].
//! * A hole above the highest acknowledged LSN is the end: what was being written when the pool
//!   stopped. Nothing after it was acknowledged; it is dropped.
//! * A hole at or below it is loss [I6]: reported as a gap, and every batch found after it is applied.
//! * Same entries, same result, in whatever order they were found [I8].

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::base::{DiskIndex, Lsn};

use super::scan::Entry;

/// A batch that counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub lsn: Lsn,
    pub batch_crc: u64,
    pub payload_bytes: usize,
    /// Where copies of it are, by disk.
    pub places: Vec<(DiskIndex, u64)>,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Chain {
    /// In LSN order.
    pub links: Vec<Link>,
    /// LSNs that were acknowledged, and of which no copy is left.
    pub gaps: Vec<RangeInclusive<u64>>,
    /// The highest LSN known to have been acknowledged.
    pub acked: Lsn,
    /// Entries after the end: never acknowledged, dropped.
    pub dropped: usize,
}

struct Batch {
    prev: u64,
    payload_bytes: usize,
    places: Vec<(DiskIndex, u64)>,
}

/// Orders what was found after batch `from`, whose checksum is `from_crc`.
pub(super) fn order(from: Lsn, from_crc: u64, found: &[(DiskIndex, Entry)]) -> Chain {
    // By LSN and checksum: copies of one batch meet under one key.
    let mut batches: BTreeMap<(Lsn, u64), Batch> = BTreeMap::new();
    let mut acked = from;
    for &(disk, entry) in found {
        acked = acked.max(entry.acked);
        if entry.lsn <= from {
            continue;
        }
        let batch = batches.entry((entry.lsn, entry.batch_crc)).or_insert_with(|| Batch {
            prev: entry.prev_batch_crc,
            payload_bytes: entry.payload_bytes,
            places: Vec::new(),
        });
        batch.places.push((disk, entry.position));
    }
    let mut chain = Chain { links: Vec::new(), gaps: Vec::new(), acked, dropped: 0 };
    let (mut last, mut last_crc) = (from, from_crc);
    while let Some((&(lsn, _), _)) = batches.range((last.next(), 0)..).next() {
        let hole = lsn > last.next();
        if hole && last.next() > acked {
            break;
        }
        // After a hole the predecessor is unknown: any copy will do, and there is one kind only,
        // because an LSN never changes its bytes within an epoch [R5].
        let fits = |batch: &Batch| hole || batch.prev == last_crc;
        let same_lsn = batches.range((lsn, 0)..=(lsn, u64::MAX));
        let next = same_lsn.into_iter().find(|(_, batch)| fits(batch)).map(|(key, _)| *key);
        let Some(key) = next else {
            if lsn > acked {
                break;
            }
            // There, but continuing something else: as good as missing.
            batches.retain(|&(other, _), _| other != lsn);
            continue;
        };
        if hole {
            chain.gaps.push(last.0 + 1..=lsn.0 - 1);
        }
        let mut batch = batches.remove(&key).expect("it was just found");
        batch.places.sort_unstable();
        let Batch { payload_bytes, places, .. } = batch;
        chain.links.push(Link { lsn, batch_crc: key.1, payload_bytes, places });
        (last, last_crc) = (lsn, key.1);
    }
    if last < acked {
        chain.gaps.push(last.0 + 1..=acked.0);
    }
    chain.dropped = batches.range((last.next(), 0)..).count();
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(lsn: u64, acked: u64, prev: u64, crc: u64) -> Entry {
        Entry {
            lsn: Lsn(lsn),
            acked: Lsn(acked),
            prev_batch_crc: prev,
            batch_crc: crc,
            position: lsn * 4096,
            payload_bytes: 1,
        }
    }

    fn lsns(chain: &Chain) -> Vec<u64> {
        chain.links.iter().map(|link| link.lsn.0).collect()
    }

    #[test]
    fn copies_of_one_batch_are_one_batch() {
        let found = vec![
            (DiskIndex(1), entry(12, 11, 511, 512)),
            (DiskIndex(0), entry(11, 10, 510, 511)),
            (DiskIndex(0), entry(12, 11, 511, 512)),
            (DiskIndex(0), entry(10, 9, 509, 510)),
        ];
        let chain = order(Lsn(10), 510, &found);
        assert_eq!(lsns(&chain), [11, 12]);
        assert_eq!(chain.links[1].places, [(DiskIndex(0), 12 * 4096), (DiskIndex(1), 12 * 4096)]);
        assert_eq!((chain.gaps.len(), chain.acked, chain.dropped), (0, Lsn(11), 0));
    }

    #[test]
    fn scenario_7_a_hole_above_the_acknowledged_is_a_tail() {
        let found =
            vec![(DiskIndex(0), entry(11, 10, 510, 511)), (DiskIndex(1), entry(13, 11, 512, 513))];
        let chain = order(Lsn(10), 510, &found);
        assert_eq!((lsns(&chain), chain.dropped), (vec![11], 1));
        assert!(chain.gaps.is_empty());
    }

    #[test]
    fn scenario_7_a_hole_at_or_below_the_acknowledged_is_loss_and_the_rest_is_applied() {
        let found = vec![
            (DiskIndex(0), entry(11, 10, 510, 511)),
            (DiskIndex(1), entry(14, 13, 513, 514)),
            (DiskIndex(1), entry(15, 14, 514, 515)),
        ];
        let chain = order(Lsn(10), 510, &found);
        assert_eq!(lsns(&chain), [11, 14, 15]);
        assert_eq!(chain.gaps, [12..=13]);
        assert_eq!(chain.acked, Lsn(14));
        // The acknowledged end itself is missing.
        let found = vec![(DiskIndex(0), entry(11, 10, 510, 511)), {
            let mut old = entry(9, 8, 508, 509);
            old.acked = Lsn(13);
            (DiskIndex(1), old)
        }];
        assert_eq!(order(Lsn(10), 510, &found).gaps, [12..=13]);
    }

    #[test]
    fn scenario_4_a_batch_that_continues_another_history_is_not_taken() {
        let found = vec![(DiskIndex(0), entry(11, 10, 999, 511))];
        let chain = order(Lsn(10), 510, &found);
        assert!(chain.links.is_empty() && chain.gaps.is_empty());
        // Of two kinds of 11 the one that continues 10 counts.
        let found =
            vec![(DiskIndex(0), entry(11, 10, 999, 300)), (DiskIndex(1), entry(11, 10, 510, 511))];
        let chain = order(Lsn(10), 510, &found);
        assert_eq!(chain.links[0].batch_crc, 511);
    }

    #[test]
    fn i8_the_order_of_finding_does_not_matter() {
        let mut found = vec![
            (DiskIndex(0), entry(11, 10, 510, 511)),
            (DiskIndex(1), entry(12, 11, 511, 512)),
            (DiskIndex(2), entry(12, 11, 511, 512)),
            (DiskIndex(2), entry(15, 13, 514, 515)),
        ];
        let first = order(Lsn(10), 510, &found);
        found.reverse();
        assert_eq!(order(Lsn(10), 510, &found), first);
    }
}
