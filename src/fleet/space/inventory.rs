//! What the space map says is where, for whoever has another opinion to compare it with [R18].

use std::collections::BTreeMap;
use std::ops::Range;

use super::Space;
use crate::base::{DiskIndex, ObjectId, Units};

/// One disk, as of one moment. Units are counted from the start of its data area.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inventory {
    /// Which disk.
    pub disk: DiskIndex,
    /// Units of its data area.
    pub area: Units,
    /// Where objects live that batches have named: ranges that do not touch, ascending.
    pub used: Vec<Range<u64>>,
    /// Places that are held and not used, ascending.
    pub held: Vec<Held>,
}

/// A place that nothing named by a batch lives in, and that is not free either.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Where.
    pub range: Range<u64>,
    /// The object it is held for: a table, a part of a root's chains, or one that no batch names yet.
    /// None for writes in flight, and for what was deleted and is not free yet.
    pub object: Option<ObjectId>,
}

impl Space {
    /// What is used and held on all disks that were added, all at one moment.
    pub fn inventory(&self) -> Vec<Inventory> {
        let state = self.shared.state.lock();
        let mut owners: BTreeMap<(DiskIndex, u64), ObjectId> = BTreeMap::new();
        for (&object, places) in &state.uncommitted {
            owners.extend(places.iter().map(|&place| (place, object)));
        }
        let disks = state.disks.iter().enumerate();
        let disks = disks.filter_map(|(index, space)| {
            let (disk, space) = (DiskIndex(index as u16), space.as_ref()?);
            let mut held: Vec<Held> = space
                .held()
                .filter(|&(_, _, used)| !used)
                .map(|(start, units, _)| {
                    let object = owners.get(&(disk, start)).copied();
                    Held { range: start..start + units, object }
                })
                .collect();
            held.sort_by_key(|held| held.range.start);
            Some(Inventory { disk, area: Units(space.units()), used: space.used(), held })
        });
        disks.collect()
    }
}
