//! The audit of places: where all objects are, beside each other and beside the space map [R18].
//!
//! What batches have named is used, and nothing else is. Tables and the chains of the root are named by
//! no batch: their places are held under their ids. Whatever else is held is so for a moment.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Finding, OBJECTS, Walk};
use crate::base::{DiskIndex, ObjectId};
use crate::fleet::space::Inventory;
use crate::format::{Key, ObjectRecord};
use crate::namespace::error::NamespaceError;

/// A shard of an object on the disk that is being looked at.
struct Shard {
    range: Range<u64>,
    object: ObjectId,
    /// A key of the index names its object.
    keyed: bool,
}

impl Walk<'_> {
    /// All places, disk by disk: so memory has the shards of one disk.
    pub(super) fn places(&mut self) -> Result<(), NamespaceError> {
        for disk in self.moment.space.iter().flatten() {
            let mut shards = Vec::new();
            for record in &self.moment.unkeyed {
                add_shards(&mut shards, record, disk, false);
            }
            let (start, end) = (Key::kind_from(OBJECTS), Key::kind_from(OBJECTS + 1));
            self.reader.each(&start, &end, &mut |_, value| {
                if let Ok(record) = ObjectRecord::decode(value) {
                    add_shards(&mut shards, &record, disk, true);
                }
                true
            })?;
            shards.sort_by_key(|shard| (shard.range.start, shard.object));
            self.find_overlaps(disk.disk, &shards);
            self.compare(disk, &shards);
        }
        Ok(())
    }

    fn find_overlaps(&mut self, disk: DiskIndex, shards: &[Shard]) {
        // The one that reaches furthest of those before.
        let mut before: Option<&Shard> = None;
        for shard in shards {
            match before {
                Some(before) if shard.range.start < before.range.end => {
                    let (object, other, unit) = (before.object, shard.object, shard.range.start);
                    self.audit.note(Finding::ShardsOverlap { object, other, disk, unit });
                }
                _ => {}
            }
            if before.is_none_or(|before| shard.range.end > before.range.end) {
                before = Some(shard);
            }
        }
    }

    fn compare(&mut self, inventory: &Inventory, shards: &[Shard]) {
        let disk = inventory.disk;
        let held: BTreeSet<(ObjectId, u64)> = inventory
            .held
            .iter()
            .filter_map(|held| Some((held.object?, held.range.start)))
            .collect();
        let unkeyed: BTreeSet<(ObjectId, u64)> = shards
            .iter()
            .filter(|shard| !shard.keyed)
            .map(|shard| (shard.object, shard.range.start))
            .collect();
        for shard in shards {
            let known = match shard.keyed {
                true => is_within(&shard.range, &inventory.used),
                false => held.contains(&(shard.object, shard.range.start)),
            };
            if !known {
                let (object, unit) = (shard.object, shard.range.start);
                self.audit.note(Finding::ShardNotInSpaceMap { object, disk, unit });
            }
        }
        for range in without(&inventory.used, shards) {
            let (unit, units) = (range.start, range.end - range.start);
            self.audit.note(Finding::SpaceOfNobody { disk, unit, units });
        }
        for held in &inventory.held {
            let named = held.object.is_some_and(|id| unkeyed.contains(&(id, held.range.start)));
            self.audit.pending_units += if named { 0 } else { held.range.end - held.range.start };
        }
    }
}

/// Shards of the object on this disk; those outside its area are told with the object.
fn add_shards(shards: &mut Vec<Shard>, record: &ObjectRecord, disk: &Inventory, keyed: bool) {
    let units = record.shard_units().0;
    for place in record.places.iter().flatten().filter(|place| place.disk == disk.disk) {
        let start = place.offset.0;
        if let Some(end) = start.checked_add(units).filter(|&end| end <= disk.area.0) {
            shards.push(Shard { range: start..end, object: record.id, keyed });
        }
    }
}

/// Whether one of these ranges, which are sorted and do not touch, has all of `range`.
fn is_within(range: &Range<u64>, ranges: &[Range<u64>]) -> bool {
    let at = ranges.partition_point(|other| other.end <= range.start);
    ranges.get(at).is_some_and(|other| other.start <= range.start && range.end <= other.end)
}

/// What of `ranges` no object has that a key names. Both are sorted.
fn without(ranges: &[Range<u64>], shards: &[Shard]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut shards = shards.iter().filter(|shard| shard.keyed).peekable();
    for range in ranges {
        let mut at = range.start;
        while let Some(shard) = shards.next_if(|shard| shard.range.start < range.end) {
            if shard.range.start > at {
                left.push(at..shard.range.start);
            }
            at = at.max(shard.range.end);
        }
        if at < range.end {
            left.push(at..range.end);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_is_what_is_left_of_used() {
        let shard = |start, end, keyed| Shard { range: start..end, object: ObjectId(1), keyed };
        let used = [10..20, 30..40, 50..60];
        let shards = [
            shard(5, 12, true),
            shard(12, 14, true),
            shard(16, 20, true),
            shard(30, 35, false),
            shard(50, 70, true),
        ];
        assert_eq!(without(&used, &shards), [14..16, 30..40]);
        assert_eq!(without(&used, &[]), used);
        // One inside another one.
        let shards = [shard(10, 20, true), shard(12, 14, true), shard(30, 40, true)];
        assert_eq!(without(&used, &shards), used[2..]);
        assert!(is_within(&(32..40), &used) && is_within(&(10..20), &used));
        assert!(!is_within(&(9..12), &used) && !is_within(&(19..21), &used));
        assert!(!is_within(&(20..30), &used) && !is_within(&(65..66), &used));
    }
}
