//! Free space of all disks, derived: it is told of puts and deletes, and asks nobody.
//!
//! * [`Space::reserve`] finds room and holds it in RAM only. Whoever commits or replays a batch tells
//!   [`Space::put`] and [`Space::delete`], in the order of the batches, after the batch is durable
//!   [I3, R3]. A [`Reservation`] dropped without a put makes its place free again.
//! * [R7] A writer keeps the reservation with its I/O until the completion was reaped, however late:
//!   a place with an unreaped write is not allocated.
//! * [I3] A deleted object that is pinned keeps its places until the last [`Pin`] goes.
//! * [R4] During recovery frees are frozen: nothing freed by replay is allocated before the release.
//! * [R22] Reserves hold on every disk: users leave 10 % free, reclaim 2 %, repair may take all. Data
//!   leave the last long runs to tables, for without those nothing can be committed any more.
//! * [R18] [`Space::snapshot`] is exactly what puts and deletes imply; in flight is not in it.
//!
//! One lock, never held across anything but this module's own memory work [R23].

use std::collections::HashMap;

use self::disk::DiskSpace;
use super::error::FleetError;
use crate::base::sync::{Arc, Mutex};
use crate::base::{DiskIndex, Event, Lsn, ObjectId, Units};
use crate::format::{GroupState, ObjectKind, ObjectRecord};

pub use inventory::{Held, Inventory};

mod disk;
mod inventory;
mod runs;
#[cfg(test)]
mod tests;

/// Share of a disk that users may not take but reclaim may, in percent [R22].
pub const RECLAIM_RESERVE_PERCENT: u64 = 8;
/// Share of a disk that only repair may take, in percent [R22].
pub const REPAIR_RESERVE_PERCENT: u64 = 2;

/// The shortest run that a shard of a large file fits, header included. What is free in shorter ones
/// serves small objects, and is promised to nobody.
pub const RUN_UNITS_LEAST: Units = Units(5);

/// What dies together is kept together: a group serves one class.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum SizeClass {
    /// Shards of at most 64 KiB.
    Small = 1,
    /// Shards of at most 512 KiB.
    Medium = 2,
    /// Larger shards.
    Large = 3,
    /// Tables, manifest and space snapshots, whatever their size.
    Table = 4,
}

impl SizeClass {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// The class for a place of `units` (header unit included).
    pub fn of(units: Units, stream: Stream) -> SizeClass {
        match (stream, units.0.saturating_sub(1)) {
            (Stream::Table, _) => SizeClass::Table,
            (Stream::Data, 0..=16) => SizeClass::Small,
            (Stream::Data, 17..=128) => SizeClass::Medium,
            (Stream::Data, _) => SizeClass::Large,
        }
    }

    /// From its number on disk.
    pub fn from_u8(number: u8) -> Option<SizeClass> {
        [SizeClass::Small, SizeClass::Medium, SizeClass::Large, SizeClass::Table]
            .into_iter()
            .find(|&class| class as u8 == number)
    }

    fn index(self) -> usize {
        self as usize - 1
    }
}

/// What a place is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stream {
    /// Bytes of files.
    Data,
    /// Tables, manifest, space snapshots.
    Table,
}

impl Stream {
    /// The stream of objects of this kind.
    pub fn of(kind: ObjectKind) -> Stream {
        match kind {
            ObjectKind::Data => Stream::Data,
            ObjectKind::Table | ObjectKind::Manifest | ObjectKind::SpaceSnapshot => Stream::Table,
        }
    }
}

/// How deep into the reserves a request may go [R22].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ReserveLevel {
    /// Leaves reclaim's and repair's reserves alone.
    User,
    /// Flusher of accepted data, reclaim, checkpoint, compaction: leaves repair's reserve alone.
    Reclaim,
    /// May take the last unit.
    Repair,
}

/// Free, used and total units of one disk.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DiskRoom {
    /// Allocatable units, reserves included.
    pub free: Units,
    /// Those of them in runs shorter than [`RUN_UNITS_LEAST`].
    pub short: Units,
    /// Units of committed objects.
    pub used: Units,
    /// Units of the data area.
    pub total: Units,
}

impl DiskRoom {
    /// Allocatable units for requests of this level.
    pub fn free_for(&self, level: ReserveLevel) -> Units {
        let percent = match level {
            ReserveLevel::User => RECLAIM_RESERVE_PERCENT + REPAIR_RESERVE_PERCENT,
            ReserveLevel::Reclaim => REPAIR_RESERVE_PERCENT,
            ReserveLevel::Repair => 0,
        };
        Units(self.free.0.saturating_sub((self.total.0 * percent).div_ceil(100)))
    }

    /// Those of them that data can be promised, whatever its size.
    pub fn placeable_for(&self, level: ReserveLevel) -> Units {
        Units(self.free_for(level).0.saturating_sub(self.short.0))
    }
}

struct PinState {
    count: u32,
    /// Places whose object was deleted while pinned.
    deferred: Vec<(DiskIndex, u64)>,
}

#[derive(Default)]
struct State {
    disks: Vec<Option<DiskSpace>>,
    pins: HashMap<ObjectId, PinState>,
    /// Some while frees are frozen: the places that wait.
    frozen: Option<Vec<(DiskIndex, u64)>>,
    /// Deleted, not free yet.
    pending_units: u64,
    /// Written objects that no batch has named yet: their places stay held until put or abandoned.
    uncommitted: HashMap<ObjectId, Vec<(DiskIndex, u64)>>,
    /// Runs in use in the snapshot that was loaded, and claimed by others: they died since.
    overtaken: Vec<(DiskIndex, u64, u64)>,
    /// Snapshots taken so far.
    snapshots: u64,
    /// Requests for room so far, and the one that is refused.
    #[cfg(test)]
    requests: (u64, Option<u64>),
}

/// What is in use, as of one moment [R18].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Which snapshot.
    pub number: u64,
    /// Groups, in the order of disks and numbers.
    pub groups: Vec<GroupState>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    freed: Event,
}

/// Free space of all disks.
#[derive(Clone, Default)]
pub struct Space {
    shared: Arc<Shared>,
}

/// A place held for a write in flight. Dropping it releases the place, unless a put made it used.
pub struct Reservation {
    shared: Arc<Shared>,
    disk: DiskIndex,
    start: u64,
    units: u64,
    /// False once the space holds the place under its object's id instead.
    held: bool,
}

/// Keeps an object's places from being reused, though it may be deleted meanwhile [I3].
pub struct Pin {
    shared: Arc<Shared>,
    object: ObjectId,
}

impl Space {
    /// A space without disks.
    pub fn new() -> Space {
        Space::default()
    }

    /// Adds a member's data area, all free, with allocation groups of `group` units. Missing members
    /// are added too, so that what they hold is right when they return. Panics if it is known already.
    pub fn add_disk(&self, disk: DiskIndex, area: Units, group: Units) {
        let mut state = self.shared.state.lock();
        let index = disk.as_usize();
        if state.disks.len() <= index {
            state.disks.resize_with(index + 1, || None);
        }
        assert!(state.disks[index].is_none(), "a disk is added once");
        state.disks[index] = Some(DiskSpace::new(area, group));
    }

    /// The disk is to be no member any more: it is taken out if nothing is used, held, or waits to be free
    /// there. False if something is, and nothing happened; true too if it was not added.
    pub fn take_if_unused(&self, disk: DiskIndex) -> bool {
        let mut state = self.shared.state.lock();
        let Some(place) = state.disks.get_mut(disk.as_usize()) else { return true };
        let unused = place.as_ref().is_none_or(|space| {
            let room = room_of(space);
            room.free == room.total
        });
        if unused {
            *place = None;
        }
        unused
    }

    /// Holds `units` in one run on `disk`; None if there is no room for this level.
    pub fn reserve(
        &self,
        disk: DiskIndex,
        units: Units,
        stream: Stream,
        level: ReserveLevel,
    ) -> Option<Reservation> {
        let mut state = self.shared.state.lock();
        #[cfg(test)]
        {
            state.requests.0 += 1;
            if state.requests.1 == Some(state.requests.0) {
                return None;
            }
        }
        let space = state.disks.get_mut(disk.as_usize())?.as_mut()?;
        if room_of(space).free_for(level) < units {
            return None;
        }
        let leave_tables_room = level != ReserveLevel::Repair;
        let start = space.reserve(units.0, SizeClass::of(units, stream), leave_tables_room)?;
        Some(Reservation { shared: self.shared.clone(), disk, start, units: units.0, held: true })
    }

    /// The object's places are used from now on: a batch that names it is durable, or replayed. For
    /// a place told before nothing changes. Error `Damaged` if another object has part of a place;
    /// the other places are taken all the same. Disks not added are passed over.
    pub fn put(&self, record: &ObjectRecord) -> Result<(), FleetError> {
        let mut state = self.shared.state.lock();
        let units = record.shard_units();
        let class = SizeClass::of(units, Stream::of(record.kind));
        let mut good = true;
        for place in record.places.iter().flatten() {
            if let Some(space) = state.disk(place.disk) {
                good &= space.commit(place.offset.0, units.0, class);
            }
        }
        state.end_uncommitted(record.id);
        drop(state);
        damaged_unless(good, record)
    }

    /// For replay: true if a place of this object is held, wholly or in part, by an object that no batch
    /// names: one that was written after this one's end was durable. Nothing is changed.
    pub fn is_written_over(&self, record: &ObjectRecord) -> bool {
        let mut state = self.shared.state.lock();
        let units = record.shard_units();
        record.places.iter().flatten().any(|place| {
            let space = state.disk(place.disk);
            space.is_some_and(|space| space.is_held_in(place.offset.0, units.0))
        })
    }

    /// The places of a written object stay held, under its id, until [`Space::put`] makes them used
    /// or [`Space::abandon`] gives them up.
    pub fn adopt(&self, object: ObjectId, reservations: Vec<Reservation>) {
        let mut state = self.shared.state.lock();
        let list = state.uncommitted.entry(object).or_default();
        for mut reservation in reservations {
            list.push((reservation.disk, reservation.start));
            reservation.held = false;
        }
    }

    /// The object will never be named by a batch: its places become free, where no write is still
    /// in flight and no pin holds them (a repair's write may be) [R7]. Nothing happens if it was put,
    /// or never adopted.
    pub fn abandon(&self, object: ObjectId) {
        self.shared.state.lock().abandon(object);
        self.shared.freed.notify();
    }

    /// Whether places are held under this object's id: it was written, or rebuilt, and the batch that says
    /// so is not durable yet.
    pub fn is_uncommitted(&self, object: ObjectId) -> bool {
        self.shared.state.lock().uncommitted.contains_key(&object)
    }

    /// The places of an object that no batch names (tables, manifest, snapshots), found at mount:
    /// held under its id from now on, as if it had just been written. What the snapshot has in use there died
    /// after it was taken, and the log says so: it is overtaken ([`Space::overtaken`]). Error `Damaged`
    /// if somebody holds part of a place. Disks not added are passed over.
    pub fn claim(&self, record: &ObjectRecord) -> Result<(), FleetError> {
        let mut state = self.shared.state.lock();
        let units = record.shard_units();
        let class = SizeClass::of(units, Stream::of(record.kind));
        let mut good = true;
        let mut held = Vec::new();
        for place in record.places.iter().flatten() {
            let Some(space) = state.disk(place.disk) else { continue };
            if let Some(used) = space.claim_over(place.offset.0, units.0, class) {
                held.push((place.disk, place.offset.0));
                let used = used.into_iter().map(|(start, units)| (place.disk, start, units));
                state.overtaken.extend(used);
            } else {
                good = false;
            }
        }
        state.uncommitted.entry(record.id).or_default().extend(held);
        drop(state);
        damaged_unless(good, record)
    }

    /// Units that were claimed though the snapshot has them in use, and whose end was not replayed yet: when
    /// all is replayed, none are left, or two have one place.
    pub fn overtaken(&self) -> Units {
        Units(self.shared.state.lock().overtaken.iter().map(|(_, _, units)| units).sum())
    }

    /// [R4] Whatever is free now where this object was: not allocated until the reservations are
    /// dropped. For places that replay freed, until recovery's checkpoint is effective.
    pub fn quarantine(&self, record: &ObjectRecord) -> Vec<Reservation> {
        let mut state = self.shared.state.lock();
        let units = record.shard_units();
        let mut held = Vec::new();
        for place in record.places.iter().flatten() {
            let Some(space) = state.disk(place.disk) else { continue };
            for (start, units) in space.hold_free(place.offset.0, units.0) {
                let (shared, disk) = (self.shared.clone(), place.disk);
                held.push(Reservation { shared, disk, start, units, held: true });
            }
        }
        held
    }

    /// The object was deleted by a durable batch: its places become free, once no pin [I3],
    /// reservation [R7] or freeze [R4] holds them. Error `Damaged` if it was not there; the other
    /// places are freed all the same.
    pub fn delete(&self, record: &ObjectRecord) -> Result<(), FleetError> {
        let mut state = self.shared.state.lock();
        let units = record.shard_units();
        let mut good = true;
        for place in record.places.iter().flatten() {
            good &= state.free_place(record.id, place.disk, place.offset.0, units.0);
        }
        drop(state);
        self.shared.freed.notify();
        damaged_unless(good, record)
    }

    /// A record of the same object replaces the old one [R20]: places only the new one has become
    /// used, places only the old one has become free. Errors as for `put` and `delete`.
    pub fn replace(&self, old: &ObjectRecord, new: &ObjectRecord) -> Result<(), FleetError> {
        assert_eq!(old.id, new.id, "a record replaces one of the same object");
        let same = old.shard_units() == new.shard_units();
        let (mut gone, mut came) = (old.clone(), new.clone());
        gone.places.retain(|place| !(same && new.places.contains(place)));
        came.places.retain(|place| !(same && old.places.contains(place)));
        self.put(&came).and(self.delete(&gone))
    }

    /// Keeps the object's places from being reused until the guard is dropped. Taken by readers
    /// while the record they hold is still current (under the lock that guards the index).
    pub fn pin(&self, object: ObjectId) -> Pin {
        let mut state = self.shared.state.lock();
        state
            .pins
            .entry(object)
            .or_insert_with(|| PinState { count: 0, deferred: Vec::new() })
            .count += 1;
        Pin { shared: self.shared.clone(), object }
    }

    /// [R4] From now on (true) freed places wait; false lets those that waited become free.
    pub fn freeze_frees(&self, freeze: bool) {
        let mut state = self.shared.state.lock();
        if freeze {
            state.frozen.get_or_insert_default();
            return;
        }
        for (disk, start) in state.frozen.take().unwrap_or_default() {
            state.unhold_pending(disk, start);
        }
        drop(state);
        self.shared.freed.notify();
    }

    /// Room of one disk; None if it was not added.
    pub fn room(&self, disk: DiskIndex) -> Option<DiskRoom> {
        self.shared.state.lock().disk(disk).map(|space| room_of(space))
    }

    /// Allocatable units of one disk, reserves included; 0 if it was not added.
    pub fn free_units(&self, disk: DiskIndex) -> Units {
        self.room(disk).map_or(Units(0), |room| room.free)
    }

    /// Deleted units that pins, freezes or writes in flight still hold: ENOSPC comes only after
    /// waiting for these [R22].
    pub fn pending_units(&self) -> Units {
        Units(self.shared.state.lock().pending_units)
    }

    /// Notified when places may have become free.
    pub fn freed(&self) -> &Event {
        &self.shared.freed
    }

    /// True if each of `shards` distinct disks among `disks` has `units` left for this level. Counts
    /// units, not runs: a disk whose free space is in splinters may refuse all the same.
    pub fn placeable(
        &self,
        disks: &[DiskIndex],
        shards: usize,
        units: Units,
        level: ReserveLevel,
    ) -> bool {
        let mut state = self.shared.state.lock();
        let with_room = disks.iter().filter(|&&disk| {
            state.disk(disk).is_some_and(|space| room_of(space).free_for(level) >= units)
        });
        with_room.count() >= shards
    }

    /// What puts and deletes told so far imply [R18]: of all groups (those not named are empty), or
    /// of those that changed since the last snapshot that took effect ([`Space::snapshot_kept`]).
    pub fn snapshot(&self, all: bool) -> Snapshot {
        let mut state = self.shared.state.lock();
        state.snapshots += 1;
        let number = state.snapshots;
        let mut groups = Vec::new();
        for (index, space) in state.disks.iter_mut().enumerate() {
            if let Some(space) = space {
                space.snapshot(DiskIndex(index as u16), all, number, &mut groups);
            }
        }
        Snapshot { number, groups }
    }

    /// The snapshot with this number took effect with its checkpoint: the next increment names what
    /// changed since it was taken. One that never will needs no call.
    pub fn snapshot_kept(&self, number: u64) {
        let mut state = self.shared.state.lock();
        state.disks.iter_mut().flatten().for_each(|space| space.snapshot_kept(number));
    }

    /// Takes over a snapshot's groups, or an increment's over what was loaded before; before
    /// anything else is told. Error `Damaged` if a disk or group is unknown, or runs make no sense.
    pub fn load(&self, groups: &[GroupState]) -> Result<(), FleetError> {
        let mut state = self.shared.state.lock();
        for group in groups {
            if !state.disk(group.disk).is_some_and(|space| space.load(group)) {
                return Err(FleetError::Damaged { what: "space snapshot", lsn: Lsn(0) });
            }
        }
        Ok(())
    }

    /// Requests for room so far.
    #[cfg(test)]
    pub(crate) fn requests(&self) -> u64 {
        self.shared.state.lock().requests.0
    }

    /// The `nth` request from now on (0: the next) is refused.
    #[cfg(test)]
    pub(crate) fn refuse(&self, nth: u64) {
        let mut state = self.shared.state.lock();
        state.requests.1 = Some(state.requests.0 + nth + 1);
    }

    /// Asserts what must hold between the fields.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        let state = self.shared.state.lock();
        state.disks.iter().flatten().for_each(DiskSpace::check_invariants);
    }
}

impl State {
    fn disk(&mut self, disk: DiskIndex) -> Option<&mut DiskSpace> {
        self.disks.get_mut(disk.as_usize())?.as_mut()
    }

    fn end_uncommitted(&mut self, object: ObjectId) {
        for (disk, start) in self.uncommitted.remove(&object).unwrap_or_default() {
            self.disk(disk).expect("disks are never taken away from the space").unhold(start);
        }
    }

    fn abandon(&mut self, object: ObjectId) {
        if !self.pins.contains_key(&object) {
            return self.end_uncommitted(object);
        }
        let places = self.uncommitted.remove(&object).unwrap_or_default();
        for &(disk, start) in &places {
            let space = self.disk(disk).expect("disks are never taken away from the space");
            let units = space.held_units(start);
            self.pending_units += units;
        }
        let pin = self.pins.get_mut(&object).expect("it was just seen");
        pin.deferred.extend(places);
    }

    /// Ends the use of one place, but for what was overtaken. False if it was not used.
    fn free_place(&mut self, object: ObjectId, disk: DiskIndex, start: u64, units: u64) -> bool {
        if self.overtaken.is_empty() {
            return self.free_run(object, disk, start, units);
        }
        let end = start.saturating_add(units);
        let (mut at, mut good, mut left) = (start, true, Vec::new());
        self.overtaken.sort_unstable();
        for (of, from, length) in std::mem::take(&mut self.overtaken) {
            let (first, last) = (from.max(start), (from + length).min(end));
            if of != disk || first >= last {
                left.push((of, from, length));
                continue;
            }
            if at < first {
                good &= self.free_run(object, disk, at, first - at);
            }
            at = last;
            left.extend((from < first).then(|| (of, from, first - from)));
            left.extend((last < from + length).then(|| (of, last, from + length - last)));
        }
        self.overtaken = left;
        if at < end {
            good &= self.free_run(object, disk, at, end - at);
        }
        good
    }

    fn free_run(&mut self, object: ObjectId, disk: DiskIndex, start: u64, units: u64) -> bool {
        let Some(space) = self.disk(disk) else { return true };
        if !space.uncommit(start, units) {
            return false;
        }
        self.pending_units += units;
        if let Some(pin) = self.pins.get_mut(&object) {
            pin.deferred.push((disk, start));
        } else {
            self.free_or_freeze(disk, start);
        }
        true
    }

    fn free_or_freeze(&mut self, disk: DiskIndex, start: u64) {
        match &mut self.frozen {
            Some(frozen) => frozen.push((disk, start)),
            None => self.unhold_pending(disk, start),
        }
    }

    fn unhold_pending(&mut self, disk: DiskIndex, start: u64) {
        let space = self.disk(disk).expect("disks are never taken away from the space");
        let units = space.held_units(start);
        space.unhold(start);
        self.pending_units -= units;
    }
}

impl Reservation {
    /// On which disk.
    pub fn disk(&self) -> DiskIndex {
        self.disk
    }

    /// First unit: the shard header's.
    pub fn offset(&self) -> Units {
        Units(self.start)
    }

    /// How many units.
    pub fn units(&self) -> Units {
        Units(self.units)
    }

    /// A second hold on the same place, for a write in flight there [R7]: the place is free again
    /// only after both were dropped.
    pub fn again(&self) -> Reservation {
        let mut state = self.shared.state.lock();
        state.disk(self.disk).expect("disks are never taken away").hold_again(self.start);
        Reservation {
            shared: self.shared.clone(),
            disk: self.disk,
            start: self.start,
            units: self.units,
            held: true,
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.held {
            return;
        }
        let mut state = self.shared.state.lock();
        let space = state.disk(self.disk).expect("disks are never taken away from the space");
        let freed = space.unhold(self.start);
        drop(state);
        if freed {
            self.shared.freed.notify();
        }
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reservation(disk {}, {}+{}u)", self.disk, self.start, self.units)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let pin = state.pins.get_mut(&self.object).expect("a pin is dropped once");
        pin.count -= 1;
        if pin.count > 0 {
            return;
        }
        let deferred = state.pins.remove(&self.object).map_or(Vec::new(), |pin| pin.deferred);
        let any = !deferred.is_empty();
        for (disk, start) in deferred {
            state.free_or_freeze(disk, start);
        }
        drop(state);
        if any {
            self.shared.freed.notify();
        }
    }
}

fn room_of(space: &DiskSpace) -> DiskRoom {
    DiskRoom {
        free: Units(space.free_units()),
        short: Units(space.short_units()),
        used: Units(space.used_units()),
        total: Units(space.units()),
    }
}

fn damaged_unless(good: bool, record: &ObjectRecord) -> Result<(), FleetError> {
    if good { Ok(()) } else { Err(FleetError::Damaged { what: "space", lsn: record.lsn }) }
}
