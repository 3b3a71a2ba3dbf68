//! How wide an object is, and how long its shards. Pure.
//!
//! * [R12] Full margin first: with n' < k+m disks at hand an object is (n'-m)+m, and never has fewer
//!   than m spare shards while n' > m.
//! * [R13] A small object has min(k, ceil(bytes / 2 MiB)) data shards and m parity; one data shard:
//!   m+1 replicas, whose repair is a copy.

use crate::base::UNIT_BYTES;
use crate::base::limits::{PARITY_MAX, SHARDS_MAX};
use crate::base::units::round_up;
use crate::format::Redundancy;

/// Disks an object could go to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AtHand {
    /// That take writes.
    pub present: usize,
    /// Of those, with room for one shard.
    pub with_room: usize,
}

/// The redundancy for `bytes` of data under the pool's default [R13], all disks being there. Shards of
/// `shard_bytes_max`: `SHARD_BYTES`, or less where free space is in splinters [R22].
pub fn geometry_wish(default: Redundancy, bytes: u64, shard_bytes_max: u64) -> Redundancy {
    let Redundancy::Erasure { data, parity } = default else { return default };
    let wanted = bytes.div_ceil(shard_bytes_max).clamp(1, u64::from(data)) as u8;
    erasure_or_replicas(usize::from(wanted), usize::from(parity))
}

/// Makes the wish narrower where fewer disks are at hand [R12]. `parity` is the pool's m. None if
/// nothing durable can be written: no disk, or, where the disks are there but full, too few with
/// room to keep the margin.
pub fn geometry_at_hand(wish: Redundancy, parity: usize, at_hand: AtHand) -> Option<Redundancy> {
    assert!(at_hand.with_room <= at_hand.present, "disks with room are present");
    let shards = wish.shards();
    if at_hand.with_room >= shards {
        return Some(wish);
    }
    let margin = parity.min(wish.tolerates());
    let width = at_hand.with_room;
    if width <= margin {
        // Short, but only because the others are gone: a full disk is no reason to lose margin.
        let gone = at_hand.present == width && width > 0;
        return gone.then_some(Redundancy::Replica { copies: width as u8 });
    }
    match wish {
        Redundancy::Erasure { parity, .. } => {
            Some(erasure_or_replicas(width - usize::from(parity), usize::from(parity)))
        }
        Redundancy::Replica { .. } => Some(Redundancy::Replica { copies: width as u8 }),
    }
}

/// Bytes of each shard of an object of `bytes`: a multiple of 4 KiB, at least one unit.
pub fn shard_bytes(redundancy: Redundancy, bytes: u64) -> u64 {
    round_up(bytes.max(1).div_ceil(redundancy.data_shards() as u64), UNIT_BYTES)
}

fn erasure_or_replicas(data: usize, parity: usize) -> Redundancy {
    assert!(data >= 1 && data + parity <= SHARDS_MAX && parity <= PARITY_MAX, "within the limits");
    if data == 1 {
        Redundancy::Replica { copies: parity as u8 + 1 }
    } else {
        Redundancy::Erasure { data: data as u8, parity: parity as u8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::MIB;
    use crate::base::limits::SHARD_BYTES;

    fn ec(data: u8, parity: u8) -> Redundancy {
        Redundancy::Erasure { data, parity }
    }

    fn replica(copies: u8) -> Redundancy {
        Redundancy::Replica { copies }
    }

    #[test]
    fn r13_small_objects_have_fewer_data_shards() {
        let table = [
            (ec(6, 2), 1, replica(3)),
            (ec(6, 2), 2 * MIB, replica(3)),
            (ec(6, 2), 2 * MIB + 1, ec(2, 2)),
            (ec(6, 2), 7 * MIB, ec(4, 2)),
            (ec(6, 2), 12 * MIB, ec(6, 2)),
            (ec(6, 2), 60 * MIB, ec(6, 2)),
            (ec(6, 3), 4096, replica(4)),
            (replica(2), 60 * MIB, replica(2)),
        ];
        for (default, bytes, want) in table {
            assert_eq!(geometry_wish(default, bytes, SHARD_BYTES), want, "{default:?} for {bytes}");
        }
    }

    #[test]
    fn r12_full_margin_first() {
        let at = |present, with_room| AtHand { present, with_room };
        let table = [
            (ec(6, 2), 2, at(8, 8), Some(ec(6, 2))),
            (ec(6, 2), 2, at(7, 7), Some(ec(5, 2))),
            (ec(6, 2), 2, at(8, 7), Some(ec(5, 2))),
            (ec(6, 2), 2, at(4, 4), Some(ec(2, 2))),
            (ec(6, 2), 2, at(3, 3), Some(replica(3))),
            (ec(6, 2), 2, at(2, 2), Some(replica(2))),
            (ec(6, 2), 2, at(1, 1), Some(replica(1))),
            (ec(6, 2), 2, at(0, 0), None),
            (ec(6, 2), 2, at(8, 2), None),
            (replica(3), 2, at(3, 3), Some(replica(3))),
            (replica(3), 2, at(2, 2), Some(replica(2))),
            (replica(2), 1, at(2, 1), None),
            (replica(2), 1, at(1, 1), Some(replica(1))),
            // Tables have one copy more than they need.
            (replica(4), 2, at(3, 3), Some(replica(3))),
            (replica(4), 2, at(8, 3), Some(replica(3))),
            (replica(4), 2, at(8, 2), None),
        ];
        for (wish, parity, at_hand, want) in table {
            assert_eq!(geometry_at_hand(wish, parity, at_hand), want, "{wish:?} {at_hand:?}");
        }
    }

    #[test]
    fn shards_are_whole_units() {
        assert_eq!(shard_bytes(ec(6, 2), 12 * MIB), 2 * MIB);
        assert_eq!(shard_bytes(ec(5, 2), 12 * MIB), 2_519_040);
        assert_eq!(shard_bytes(replica(3), 1), 4096);
        assert_eq!(shard_bytes(replica(3), 4097), 8192);
    }
}
