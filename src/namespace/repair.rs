//! Repair: objects with shards on disks that were given up get these shards anew, on other disks.
//!
//! 1. A page of records is looked through; those that lack a shard are the work. Whoever repairs them
//!    waits until everything named so far is durable: the space map knows their places from then on.
//! 2. Each is pinned, and its record taken, unless somebody in memory still counts on it (it is met again
//!    in a later pass). The lost shards are made anew elsewhere (`ObjectStore::rebuild`), and flushed [I3].
//! 3. In a transaction: the record is replaced if it still is the one that was read [R20]; an object that
//!    was deleted meanwhile stays deleted, and the new places are free again.
//! 4. With that batch durable, the new places are used and the old ones free [R18].
//!
//! A crash before 3 is durable leaves nothing; after it, the repaired object. There is nothing to
//! resume: the next pass finds what is left.
//!
//! An object is *short* if it can lose fewer shards than the pool's objects should, because too few disks were
//! at hand when it was written, and there are enough now. No shard can be added to it: it is written again
//! (`compact`).
//!
//! Tables of the index and what the root names have no record there: the index writes such tables again
//! (`index::compaction`), and the next checkpoint begins its chains anew (`checkpointer`).
//!
//! When, and in what order: `services::repair`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::core::Core;
use super::error::NamespaceError;
use super::read::{IndexLists, Located};
use super::tx::{Attempt, Effect, Tx, decode};
use crate::base::canary::{self, Bug};
use crate::base::sync::Arc;
use crate::base::{Event, Lsn, ObjectId, ShardIndex};
use crate::fleet::space::ReserveLevel;
use crate::fleet::{FleetError, Rebuild, Rebuilt};
use crate::format::{Key, ObjectRecord, Place};

/// How far tables and chains that were found bad are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Renewal {
    /// There are none.
    #[default]
    None,
    /// They are being written anew.
    Noted,
    /// A root is to name the new ones: the checkpoint with this number.
    Asked(u64),
}

/// What was found bad.
#[derive(Default)]
pub(super) struct BadShards {
    shards: BTreeMap<ObjectId, Vec<ShardIndex>>,
    renewal: Renewal,
    /// Objects of the root's chains that are to be written anew.
    pub(super) chains: BTreeSet<ObjectId>,
}

/// An object, pinned, and which of its shards are to be made anew.
type Wanted = (Arc<Located>, Vec<ShardIndex>);

/// Objects of which bad shards are noted, at most: more are found by reading again.
const BAD_OBJECTS_MAX: usize = 1024;
/// Records of one page.
const PAGE_OBJECTS: usize = 1024;

/// An object that lacks shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lacking {
    /// Which object.
    pub object: ObjectId,
    /// Bytes that are to be written for it.
    pub bytes: u64,
    /// Bytes that it holds.
    pub length: u64,
    /// Shards that it could still lose; negative if it cannot be read.
    pub margin: i32,
    /// It was given too few, and there are disks for more.
    pub short: bool,
}

/// A page of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LackingPage {
    /// Those of this page.
    pub found: Vec<Lacking>,
    /// Where to go on.
    pub next: Option<ObjectId>,
    /// The last object that was looked at, lacking or not.
    pub last: Option<ObjectId>,
}

/// What a repair came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repaired {
    /// It has all its shards once this batch is durable.
    Whole(Lsn),
    /// Nothing was to be done: it is gone, or whole.
    Nothing,
    /// Somebody is using it in a way that does not allow it now, or changed it meanwhile.
    Busy,
    /// No disk at hand has room for a shard, or they all have one.
    NoPlace,
}

impl super::Namespace {
    /// Objects from `from` on with a shard on a disk that was given up, and short ones.
    pub fn lacking(&self, from: ObjectId) -> Result<LackingPage, NamespaceError> {
        self.core.look(|tx| tx.lacking(from))
    }

    /// Whether there is room in the log for what repair does; if not, it is being made.
    pub fn repair_has_room(&self) -> bool {
        let has_room = self.core.has_room();
        if !has_room {
            self.core.checkpoint_event.notify();
        }
        has_room
    }

    /// Makes objects whole: the shards on disks that were given up, and those that are named here; one
    /// answer each. The batches that named them, and those of earlier repairs of them, are durable.
    /// Together they take no more than `REBUILD_BYTES`, or are one.
    pub fn repair(
        &self,
        objects: &[(ObjectId, Vec<ShardIndex>)],
    ) -> Vec<Result<Repaired, NamespaceError>> {
        self.core.repair(objects)
    }

    /// Waits for what is settled are over with this batch: everything named so far is durable then.
    pub fn settled(&self) -> Lsn {
        self.core.want_commit(&mut self.core.state.lock())
    }

    /// A shard was found bad, and could not be mended in place.
    pub fn note_bad(&self, object: ObjectId, shard: ShardIndex) {
        let core = &self.core;
        let is_chain = core.state.lock().chains.iter().any(|record| record.id == object);
        if is_chain {
            core.state.lock().space_whole = true;
            let mut bad = core.bad.lock();
            bad.chains.insert(object);
            bad.renewal = Renewal::Noted;
        } else if core.index.refresh(object) {
            core.bad.lock().renewal = Renewal::Noted;
        } else {
            let mut bad = core.bad.lock();
            if bad.shards.len() < BAD_OBJECTS_MAX || bad.shards.contains_key(&object) {
                let shards = bad.shards.entry(object).or_default();
                if !shards.contains(&shard) {
                    shards.push(shard);
                }
            }
        }
        core.repair_event.notify();
    }

    /// The next checkpoints write the manifest and the space snapshot whole.
    pub fn renew_chains(&self) {
        let mut state = self.core.state.lock();
        state.space_whole = true;
        let chains: Vec<ObjectId> = state.chains.iter().map(|record| record.id).collect();
        drop(state);
        self.core.bad.lock().chains.extend(chains);
    }

    /// The shards that were found bad since this was last asked.
    pub fn take_bad(&self) -> BTreeMap<ObjectId, Vec<ShardIndex>> {
        std::mem::take(&mut self.core.bad.lock().shards)
    }

    /// Notified when something is to be repaired.
    pub fn repair_event(&self) -> Arc<Event> {
        self.core.repair_event.clone()
    }

    /// Tables of the index with a copy on a disk that was given up, and objects of the root's chains
    /// that have one: the index and the next checkpoint write them anew. Short ones too.
    pub fn lacking_unkeyed(&self) -> usize {
        let core = &self.core;
        let tables = core.index.snapshot().tables();
        let chains = core.state.lock().chains.clone();
        let records = tables.iter().map(|(record, _)| record).chain(&chains);
        records.filter(|record| core.members.lacks(record) || core.is_short(record)).count()
    }

    /// Short tables and chains are written anew, once: if that does not help, it is not tried again and again.
    pub fn renew_short(&self) {
        let core = &self.core;
        let tables = core.index.snapshot().tables();
        let chains = core.state.lock().chains.clone();
        let short = tables.iter().map(|(record, _)| record).chain(&chains);
        for record in short.filter(|record| core.is_short(record)) {
            self.note_bad(record.id, ShardIndex(0));
        }
    }

    /// Asks for a checkpoint, without waiting for it; its number.
    pub fn want_checkpoint(&self) -> u64 {
        self.core.want_checkpoint()
    }

    /// As `want_checkpoint`, and waits for it, no longer than that. False if it did not take effect.
    pub fn checkpoint_within(&self, patience: Duration) -> bool {
        self.core.checkpoint_within(patience)
    }

    /// Whether every table and chain that was noted bad is written anew, and a root names the new ones. If
    /// not, what it takes is asked for: in a pool where nothing changes nobody else would.
    pub fn has_renewed(&self) -> bool {
        let core = &self.core;
        let step = core.bad.lock().renewal;
        let next = match step {
            Renewal::None => return true,
            // The compactor is at it.
            Renewal::Noted if core.index.has_stale() => return false,
            Renewal::Noted => Renewal::Asked(core.want_checkpoint()),
            Renewal::Asked(wanted) if !self.checkpoint_is_done(wanted) => return false,
            Renewal::Asked(_) if core.bad.lock().chains.is_empty() => Renewal::None,
            Renewal::Asked(_) => Renewal::Noted,
        };
        let mut bad = core.bad.lock();
        // Something may have been noted since.
        if bad.renewal == step {
            bad.renewal = next;
        }
        bad.renewal == Renewal::None
    }

    /// Whether the checkpoint with this number, or a later one, took effect.
    pub fn checkpoint_is_done(&self, wanted: u64) -> bool {
        self.core.state.lock().checkpoint_done >= wanted
    }

    /// Members came or went: there is another amount of room.
    pub fn note_members(&self) {
        self.core.note_capacity();
        self.core.committed.notify();
    }
}

impl Core {
    /// See the head.
    fn is_short(&self, record: &ObjectRecord) -> bool {
        let tolerates = record.redundancy.tolerates();
        let (disks, units) = (self.members.placeable(), record.shard_units());
        tolerates < self.members.parity()
            && self.space.placeable(&disks, tolerates + 2, units, ReserveLevel::Reclaim)
    }

    fn repair(
        &self,
        objects: &[(ObjectId, Vec<ShardIndex>)],
    ) -> Vec<Result<Repaired, NamespaceError>> {
        let found = objects.iter().map(|(object, bad)| self.wanted_of(*object, bad));
        let mut results: Vec<_> = Vec::with_capacity(objects.len());
        let mut work: Vec<(usize, Arc<Located>, Vec<ShardIndex>)> = Vec::new();
        for found in found {
            match found {
                Ok(Ok((located, wanted))) => {
                    work.push((results.len(), located, wanted));
                    results.push(Ok(Repaired::Busy));
                }
                Ok(Err(repaired)) => results.push(Ok(repaired)),
                Err(error) => results.push(Err(error)),
            }
        }
        let todo: Vec<Rebuild<'_>> = work
            .iter()
            .map(|(_, located, wanted)| Rebuild { record: &located.record, wanted: wanted.clone() })
            .collect();
        let rebuilt = self.objects.rebuild(&todo, &IndexLists { core: self });
        for ((number, located, _), rebuilt) in work.iter().zip(rebuilt) {
            results[*number] = match rebuilt {
                Ok(Rebuilt::Done(new)) => self.take_over(&located.record, &new),
                Ok(Rebuilt::NoPlace) => Ok(Repaired::NoPlace),
                Ok(Rebuilt::Late) => Ok(Repaired::Busy),
                Err(FleetError::Deleted { .. }) => Ok(Repaired::Nothing),
                Err(error) => Err(error.into()),
            };
        }
        results
    }

    /// Step 2: what is to be made anew of an object, pinned; or why nothing is.
    fn wanted_of(
        &self,
        object: ObjectId,
        bad: &[ShardIndex],
    ) -> Result<Result<Wanted, Repaired>, NamespaceError> {
        let Some(located) = self.look(|tx| tx.victim(object))? else {
            let held = self.state.lock().in_flush.contains(&object);
            return Ok(Err(if held { Repaired::Busy } else { Repaired::Nothing }));
        };
        // Named a moment ago, or repaired: the space map does not know its places yet.
        if self.space.is_uncommitted(object) {
            return Ok(Err(Repaired::Busy));
        }
        let places =
            located.record.places.iter().zip(0..).map(|(place, at)| (*place, ShardIndex(at)));
        let lost =
            |place: Option<Place>| place.is_none_or(|place| self.members.is_given_up(place.disk));
        let wanted = places.filter(|(place, shard)| lost(*place) || bad.contains(shard));
        let mut wanted: Vec<ShardIndex> = wanted.map(|(_, shard)| shard).collect();
        if canary::planted(Bug::RepairForgetsShard) {
            wanted.pop();
        }
        Ok(if wanted.is_empty() { Err(Repaired::Nothing) } else { Ok((located, wanted)) })
    }

    /// Step 3.
    fn take_over(
        &self,
        old: &ObjectRecord,
        new: &ObjectRecord,
    ) -> Result<Repaired, NamespaceError> {
        let moved = self.change_inside(|tx| tx.rehome(old, new));
        if !matches!(moved, Ok(true)) {
            self.objects.release(new);
        }
        Ok(match moved? {
            true => Repaired::Whole(self.want_commit(&mut self.state.lock())),
            false => Repaired::Busy,
        })
    }
}

impl Tx<'_> {
    fn lacking(&mut self, from: ObjectId) -> Attempt<LackingPage> {
        let end = Key::object(ObjectId(u64::MAX));
        let (entries, more) = self.scan_on(&Key::object(from), &end, PAGE_OBJECTS)?;
        let mut page = LackingPage { found: Vec::new(), next: None, last: None };
        let mut last = None;
        for (_, value) in &entries {
            let record = decode(ObjectRecord::decode(value))?;
            last = Some(record.id);
            let lost = self.core.members.lost_shards(&record);
            let short = self.core.is_short(&record);
            if lost > 0 || short {
                let shards = if lost > 0 { lost } else { record.places.len() };
                page.found.push(Lacking {
                    object: record.id,
                    bytes: shards as u64 * record.shard_units().bytes(),
                    length: record.length.into(),
                    margin: record.redundancy.tolerates() as i32 - lost as i32,
                    short,
                });
            }
        }
        page.last = last;
        page.next = last.filter(|_| more).map(|last| ObjectId(last.0.saturating_add(1)));
        Ok(page)
    }

    /// The new record in place of the old one, if that is current. False if it is not.
    fn rehome(&mut self, old: &ObjectRecord, new: &ObjectRecord) -> Attempt<bool> {
        let key = Key::object(old.id);
        let current = self.get(&key)?;
        let unseen = canary::planted(Bug::RepairUnseen);
        if current.as_deref() != Some(&old.encode()[..]) && !unseen {
            return Ok(false);
        }
        self.put(key, new.encode());
        self.effect(Effect::Rehome(Box::new((old.clone(), new.clone()))));
        Ok(true)
    }
}
