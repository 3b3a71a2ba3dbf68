//! Writing objects, so that when it returns every shard is durable.
//!
//! Order, and what a crash after each step leaves:
//!
//! 1. Places are held in RAM, the object is encoded. Nothing is on disk.
//! 2. All shards of all objects of the group go to their disks, in flight together. Nothing names them:
//!    after a crash their units are free.
//! 3. As soon as a disk has all its shards, it is flushed; the flushes of all disks overlap [R8].
//! 4. When every shard is flushed the records go to the caller, who commits them in a batch [I3].
//!
//! What can go wrong, and what is done about it:
//!
//! * A write or flush is late: the shard goes to another disk [R12]. The old place stays held until
//!   the late answer is there [R7]; the disk is reported, not failed [R11].
//! * A write fails: the disk is failed, and everything this call has on it goes elsewhere. If the host
//!   file system of a file-backed disk is full, the disk is only passed over.
//! * A flush fails: the disk is failed, nothing written to it is believed [I10], as above.
//! * No other disk is left for a shard: the attempt is given up and begun again with the disks there
//!   are, narrower, at full margin [R12].

use std::collections::BTreeSet;
use std::time::Duration;

use super::encode::{self, Identity};
use super::store::ObjectStore;
use super::write_plan::{
    Planned, header_offset, object_bytes, place_of, plan_elsewhere, plan_write,
};
use super::{StoredObject, WriteObject};
use crate::base::canary::{self, Bug};
use crate::base::limits::{BACKGROUND_UNFLUSHED_BYTES, FLUSH_DEADLINE_MS, WRITE_DEADLINE_MS};
use crate::base::sync::Arc;
use crate::base::{DiskIndex, MIB, ShardIndex, Ticks};
use crate::fleet::disk::{Buffer, Class, DiskError, DiskHandle, Fan, Operation, Request, Slice};
use crate::fleet::error::FleetError;
use crate::fleet::geometry::shard_bytes;
use crate::fleet::reports::{FailReason, Report};
use crate::fleet::space::Reservation;
use crate::format::{Checksums, ObjectRecord, SHARD_HEADER_BYTES, encode_pieces};

/// Bytes of the objects that are written and flushed together, at most (one object may be larger).
const GROUP_BYTES_MAX: u64 = 48 * MIB;
/// Bytes that one disk gets between two flushes, at most (one shard may be larger) [R8].
const UNFLUSHED_BYTES_MAX: u64 = BACKGROUND_UNFLUSHED_BYTES;
/// Writes that nobody waits for are cut into pieces of this size (design 5.5).
const PIECE_BYTES_MAX: usize = 512 * 1024;
/// A busy disk may take this much longer than the deadline, if its queue says so.
const BUSY_MAX: Duration = Duration::from_secs(20);

/// How far a shard is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Its write is in flight, under these slots; so many are not answered yet.
    Writing { first: usize, end: usize, left: usize, deadline: Ticks },
    /// Written; its disk is to be flushed.
    Written,
    /// Covered by a flush in flight [R8].
    Flushing,
    /// Flushed.
    Durable,
}

struct ShardWrite {
    object: usize,
    shard: ShardIndex,
    reservation: Reservation,
    data: Slice,
    phase: Phase,
    /// What it was sent to. One that was failed and taken back meanwhile is another one: no flush of that
    /// covers what this was told [R8, I10].
    sent_to: Option<DiskHandle>,
}

/// A flush in flight.
struct FlushWrite {
    disk: DiskIndex,
    slot: usize,
    deadline: Ticks,
}

/// Why an attempt ended without success: begin again, if that can help.
struct GivenUp;

/// One attempt at writing a group of objects.
struct Attempt<'a> {
    store: &'a ObjectStore,
    objects: &'a [WriteObject<'a>],
    records: Vec<ObjectRecord>,
    checksums: Vec<Vec<Checksums>>,
    shards: Vec<ShardWrite>,
    flushes: Vec<FlushWrite>,
    fan: Fan,
    slots: usize,
    /// Late or full during this call.
    avoid: &'a mut BTreeSet<DiskIndex>,
}

/// Writes `objects`, in groups that share their flushes. See `ObjectStore::write_all`.
pub(super) fn run_writes(
    store: &ObjectStore,
    objects: &[WriteObject<'_>],
) -> Result<Vec<StoredObject>, FleetError> {
    let mut stored = Vec::with_capacity(objects.len());
    let mut rest = objects;
    while !rest.is_empty() {
        let (mut bytes, mut on_one_disk) = (0, 0);
        let fits = rest.iter().take_while(|object| {
            bytes += object_bytes(object);
            on_one_disk += shard_bytes(object.redundancy, object_bytes(object));
            bytes <= GROUP_BYTES_MAX && on_one_disk <= UNFLUSHED_BYTES_MAX
        });
        let (group, after) = rest.split_at(fits.count().max(1));
        match run_group(store, group) {
            Ok(done) => stored.extend(done),
            Err(error) => {
                stored.iter().for_each(|one: &StoredObject| store.release(&one.record));
                return Err(error);
            }
        }
        rest = after;
    }
    Ok(stored)
}

fn run_group(
    store: &ObjectStore,
    objects: &[WriteObject<'_>],
) -> Result<Vec<StoredObject>, FleetError> {
    let mut avoid = hung_disks(store);
    // Every attempt that is given up has found one more disk late, full or failed.
    for _ in 0..=store.context.members.len() {
        let mut planned = Vec::with_capacity(objects.len());
        for object in objects {
            planned.push(plan_write(store, object, &avoid)?);
        }
        let attempt = Attempt::start(store, objects, planned, &mut avoid);
        if let Ok(stored) = attempt.and_then(Attempt::run) {
            return Ok(stored);
        }
    }
    let have = store.context.members.active().len();
    Err(FleetError::TooFewDisks { have, need: store.context.members.parity() + 1 })
}

/// Shards of an object that was written before, to be written to new places.
pub(super) struct Remade {
    /// Its record, with the new places.
    pub(super) record: ObjectRecord,
    /// Its lists of checksums, by their numbers: those that these shards need.
    pub(super) lists: Vec<Checksums>,
    /// Room for the header, then the payload.
    pub(super) shards: Vec<(ShardIndex, Reservation, Buffer)>,
}

/// Writes these, as objects are written; None if it was given up.
pub(super) fn run_remade(
    store: &ObjectStore,
    objects: &[WriteObject<'_>],
    remade: Vec<Remade>,
    avoid: &mut BTreeSet<DiskIndex>,
) -> Option<Vec<StoredObject>> {
    let mut attempt = Attempt::new(store, objects, avoid);
    for (object, one) in remade.into_iter().enumerate() {
        for (shard, reservation, mut unit) in one.shards {
            let header = attempt.header(&one.record, shard, &one.lists)?;
            unit[..SHARD_HEADER_BYTES].copy_from_slice(&header);
            let (data, phase, sent_to) = (Slice::from(unit), Phase::Written, None);
            attempt.shards.push(ShardWrite { object, shard, reservation, data, phase, sent_to });
        }
        attempt.records.push(one.record);
        attempt.checksums.push(one.lists);
    }
    for index in 0..attempt.shards.len() {
        attempt.send(index);
    }
    attempt.run().ok()
}

/// Disks that have not answered for long are not asked again, unless too few would be left.
pub(super) fn hung_disks(store: &ObjectStore) -> BTreeSet<DiskIndex> {
    let active = store.context.members.active();
    let hung: BTreeSet<DiskIndex> =
        active.iter().copied().filter(|&disk| store.context.heat.is_hung(disk)).collect();
    if active.len() - hung.len() > store.context.members.parity() { hung } else { BTreeSet::new() }
}

impl<'a> Attempt<'a> {
    fn new(
        store: &'a ObjectStore,
        objects: &'a [WriteObject<'a>],
        avoid: &'a mut BTreeSet<DiskIndex>,
    ) -> Attempt<'a> {
        Attempt {
            store,
            objects,
            records: Vec::with_capacity(objects.len()),
            checksums: Vec::with_capacity(objects.len()),
            shards: Vec::new(),
            flushes: Vec::new(),
            fan: Fan::new(0),
            slots: 0,
            avoid,
        }
    }

    /// Steps 1 and 2: encodes and sends everything.
    fn start(
        store: &'a ObjectStore,
        objects: &'a [WriteObject<'a>],
        planned: Vec<Planned>,
        avoid: &'a mut BTreeSet<DiskIndex>,
    ) -> Result<Attempt<'a>, GivenUp> {
        // All at once: who takes some while holding others can deadlock with another. One a shard, so
        // that a write that hangs keeps no other's memory.
        let sizes: Vec<usize> = planned.iter().flat_map(Planned::buffers).collect();
        let mut buffers = store.context.buffers.take_all(&sizes).into_iter();
        let mut attempt = Attempt::new(store, objects, avoid);
        for (object, one) in planned.into_iter().enumerate() {
            let mut units: Vec<Buffer> = buffers.by_ref().take(one.reservations.len()).collect();
            attempt.encode(object, &one.record, &mut units)?;
            for (shard, (reservation, unit)) in one.reservations.into_iter().zip(units).enumerate()
            {
                attempt.shards.push(ShardWrite {
                    object,
                    shard: ShardIndex(shard as u8),
                    reservation,
                    data: Slice::from(unit),
                    phase: Phase::Written,
                    sent_to: None,
                });
            }
            attempt.records.push(one.record);
        }
        for index in 0..attempt.shards.len() {
            attempt.send(index);
        }
        Ok(attempt)
    }

    fn encode(
        &mut self,
        object: usize,
        record: &ObjectRecord,
        units: &mut [Buffer],
    ) -> Result<(), GivenUp> {
        let wanted = &self.objects[object];
        let pieces = encode_pieces(wanted.pieces);
        let mut parts: Vec<&[u8]> = wanted.data.to_vec();
        parts.push(&pieces);
        let mut views: Vec<&mut [u8]> = units.iter_mut().map(|unit| &mut unit[..]).collect();
        let checksums = encode::encode(record, &parts, &mut views);
        for (shard, unit) in views.iter_mut().enumerate() {
            let shard = ShardIndex(shard as u8);
            let header = self.header(record, shard, &checksums).ok_or(GivenUp)?;
            unit[..SHARD_HEADER_BYTES].copy_from_slice(&header);
        }
        self.checksums.push(checksums);
        Ok(())
    }

    fn header(
        &self,
        record: &ObjectRecord,
        shard: ShardIndex,
        checksums: &[Checksums],
    ) -> Option<Vec<u8>> {
        let context = &self.store.context;
        let place = record.places[shard.as_usize()].expect("every shard was given a place");
        let identity = Identity { pool: context.members.pool(), epoch: context.epoch };
        let disk = context.members.uuid(place.disk)?;
        Some(encode::shard_header(identity, record, shard, disk, place, checksums))
    }

    /// Step 3 and 4: until everything is durable.
    fn run(mut self) -> Result<Vec<StoredObject>, GivenUp> {
        loop {
            self.reap()?;
            self.start_flushes();
            if self.shards.iter().all(|one| one.phase == Phase::Durable) {
                return Ok(self.finish());
            }
            let deadline = self.next_deadline();
            let slots = self.slots_in_flight();
            let answered = self.fan.wait(&*self.store.context.wait, deadline, |view| {
                slots.iter().any(|&slot| view.result(slot).is_some())
            });
            if !answered {
                self.route_around_the_late()?;
            }
        }
    }

    fn finish(self) -> Vec<StoredObject> {
        let mut held: Vec<Vec<Reservation>> = self.records.iter().map(|_| Vec::new()).collect();
        for one in self.shards {
            held[one.object].push(one.reservation);
        }
        let parts = self.records.into_iter().zip(self.checksums).zip(held);
        parts
            .map(|((record, checksums), reservations)| {
                if record.redundancy.tolerates() < self.store.context.members.parity() {
                    let report = Report::ShortObject { object: record.id };
                    self.store.context.members.reports().push(report);
                }
                self.store.context.space.adopt(record.id, reservations);
                StoredObject { record, checksums }
            })
            .collect()
    }

    fn class(&self) -> Class {
        self.objects.iter().map(|object| object.class).min().unwrap_or(Class::Flush)
    }

    /// Sends one shard to the disk of its reservation: in one request, or in pieces that others can
    /// overtake if nobody waits for it (design 5.5).
    fn send(&mut self, index: usize) {
        let one = &self.shards[index];
        let context = &self.store.context;
        let (disk, data) = (one.reservation.disk(), one.data.clone());
        let offset =
            header_offset(self.store, &self.records[one.object], place_of(&one.reservation))
                .expect("a reservation lies inside its disk's data area");
        let class = self.class();
        let piece = if class == Class::Background { PIECE_BYTES_MAX } else { data.len() };
        let first = self.slots;
        self.slots += data.len().div_ceil(piece);
        let (end, left) = (self.slots, self.slots - first);
        let deadline = self.deadline(disk, data.len() as u64, WRITE_DEADLINE_MS);
        if canary::planted(Bug::ShardLeftOut) && one.shard == ShardIndex(0) {
            self.shards[index].phase = Phase::Durable;
            return;
        }
        // A disk that was failed since is answered for by the deadline, which is then now.
        let handle = context.members.handle(disk);
        self.shards[index].sent_to.clone_from(&handle);
        let Some(handle) = handle else {
            let deadline = context.clock.now();
            self.shards[index].phase = Phase::Writing { first, end, left, deadline };
            return;
        };
        for (slot, start) in (first..end).zip((0..data.len()).step_by(piece)) {
            let guard = self.shards[index].reservation.again();
            let data = data.slice(start..data.len().min(start + piece));
            let offset = offset + start as u64;
            let operation = Operation::Write { offset, data, durable: false };
            let request = Request { operation, class, deadline: Some(deadline) };
            self.fan.submit_guarded(slot, &handle, request, Box::new(guard));
        }
        self.shards[index].phase = Phase::Writing { first, end, left, deadline };
    }

    fn next_slot(&mut self) -> usize {
        self.slots += 1;
        self.slots - 1
    }

    fn deadline(&self, disk: DiskIndex, bytes: u64, deadline_ms: u64) -> Ticks {
        let busy = self.store.context.heat.wait(disk, bytes).saturating_mul(2).min(BUSY_MAX);
        self.store.context.clock.now() + Duration::from_millis(deadline_ms) + busy
    }

    fn slots_in_flight(&self) -> Vec<usize> {
        let mut slots: Vec<usize> = self.flushes.iter().map(|flush| flush.slot).collect();
        for one in &self.shards {
            if let Phase::Writing { first, end, .. } = one.phase {
                slots.extend(first..end);
            }
        }
        slots
    }

    fn next_deadline(&self) -> Option<Ticks> {
        let writes = self.shards.iter().filter_map(|one| match one.phase {
            Phase::Writing { deadline, .. } => Some(deadline),
            Phase::Written | Phase::Flushing | Phase::Durable => None,
        });
        writes.chain(self.flushes.iter().map(|flush| flush.deadline)).min()
    }

    /// Takes all answers that are there.
    fn reap(&mut self) -> Result<(), GivenUp> {
        for index in 0..self.shards.len() {
            self.reap_write(index)?;
        }
        self.reap_flushes()
    }

    fn reap_write(&mut self, index: usize) -> Result<(), GivenUp> {
        let Phase::Writing { first, end, .. } = self.shards[index].phase else {
            return Ok(());
        };
        let disk = self.shards[index].reservation.disk();
        for slot in first..end {
            let Some(outcome) = self.fan.take(slot) else { continue };
            match outcome.result {
                Ok(()) => {
                    let Phase::Writing { left, .. } = &mut self.shards[index].phase else {
                        unreachable!("only the last answer ends the phase")
                    };
                    *left -= 1;
                    if *left == 0 {
                        self.shards[index].phase = Phase::Written;
                    }
                }
                Err(DiskError::HostFull | DiskError::Cancelled) => {
                    self.avoid.insert(disk);
                    return self.elsewhere(index);
                }
                Err(error) => return self.fail_disk(disk, FailReason::of_write(error)),
            }
        }
        Ok(())
    }

    fn reap_flushes(&mut self) -> Result<(), GivenUp> {
        let mut at = 0;
        while at < self.flushes.len() {
            let Some(outcome) = self.fan.take(self.flushes[at].slot) else {
                at += 1;
                continue;
            };
            let disk = self.flushes.swap_remove(at).disk;
            match outcome.result {
                Ok(()) => self.set_phase(disk, Phase::Flushing, Phase::Durable),
                // [I10] Nothing that this flush should have covered is believed.
                Err(DiskError::Gone | DiskError::Failed) => {
                    self.fail_disk(disk, FailReason::Gone)?;
                }
                Err(_) => self.fail_disk(disk, FailReason::Flush)?,
            }
        }
        Ok(())
    }

    fn set_phase(&mut self, disk: DiskIndex, from: Phase, to: Phase) {
        for one in &mut self.shards {
            if one.reservation.disk() == disk && one.phase == from {
                one.phase = to;
            }
        }
    }

    /// Flushes every disk whose writes are all done and that has something to flush.
    fn start_flushes(&mut self) {
        // Objects that are written again have their records already.
        let places = self.records.iter().map(|one| one.places.len());
        let remade = self.shards.len() < places.sum::<usize>();
        let skipped = canary::planted(Bug::RepairNotFlushed) && remade;
        if canary::planted(Bug::IndexBeforeShards) || skipped {
            self.shards.iter_mut().filter(|one| one.phase == Phase::Written).for_each(|one| {
                one.phase = Phase::Durable;
            });
            return;
        }
        let on = |phase: fn(&Phase) -> bool| -> BTreeSet<DiskIndex> {
            let hits = self.shards.iter().filter(|one| phase(&one.phase));
            hits.map(|one| one.reservation.disk()).collect()
        };
        let written = on(|phase| matches!(phase, Phase::Written));
        let busy = on(|phase| matches!(phase, Phase::Writing { .. } | Phase::Flushing));
        for &disk in written.difference(&busy) {
            let deadline = self.deadline(disk, 0, FLUSH_DEADLINE_MS);
            let slot = self.next_slot();
            self.set_phase(disk, Phase::Written, Phase::Flushing);
            let flush = FlushWrite { disk, slot, deadline };
            let handle = self.store.context.members.handle(disk);
            let Some(handle) = handle.filter(|handle| self.was_sent_to(disk, handle)) else {
                let now = self.store.context.clock.now();
                self.flushes.push(FlushWrite { deadline: now, ..flush });
                continue;
            };
            self.flushes.push(flush);
            let class = self.class();
            let request = Request { operation: Operation::Flush, class, deadline: Some(deadline) };
            self.fan.submit(slot, &handle, request);
        }
    }

    /// Whether what this disk is to be flushed for was sent to it since it takes part.
    fn was_sent_to(&self, disk: DiskIndex, handle: &DiskHandle) -> bool {
        let of_disk = self.shards.iter().filter(|one| one.reservation.disk() == disk);
        let mut flushed = of_disk.filter(|one| one.phase == Phase::Flushing);
        flushed.all(|one| one.sent_to.as_ref().is_some_and(|sent_to| Arc::ptr_eq(sent_to, handle)))
    }

    /// Everything this call has on a failed disk goes elsewhere, flushed or not: nothing names it yet.
    fn fail_disk(&mut self, disk: DiskIndex, why: FailReason) -> Result<(), GivenUp> {
        self.store.context.members.fail(disk, why);
        self.leave_disk(disk)
    }

    fn leave_disk(&mut self, disk: DiskIndex) -> Result<(), GivenUp> {
        self.flushes.retain(|flush| flush.disk != disk);
        for index in 0..self.shards.len() {
            if self.shards[index].reservation.disk() == disk {
                self.elsewhere(index)?;
            }
        }
        Ok(())
    }

    /// [R12] Disks whose write or flush missed its deadline are left, what they have goes elsewhere.
    fn route_around_the_late(&mut self) -> Result<(), GivenUp> {
        let now = self.store.context.clock.now();
        let writes = self
            .shards
            .iter()
            .filter(|one| matches!(one.phase, Phase::Writing { deadline, .. } if deadline <= now));
        let mut late: BTreeSet<DiskIndex> = writes.map(|one| one.reservation.disk()).collect();
        let flushes = self.flushes.iter().filter(|flush| flush.deadline <= now);
        late.extend(flushes.map(|flush| flush.disk));
        for disk in late {
            self.store.context.members.late(disk);
            self.avoid.insert(disk);
            self.leave_disk(disk)?;
        }
        Ok(())
    }

    /// Sends a shard to another disk.
    fn elsewhere(&mut self, index: usize) -> Result<(), GivenUp> {
        let (object, shard) = (self.shards[index].object, self.shards[index].shard);
        let (wanted, record) = (&self.objects[object], &self.records[object]);
        let reservation =
            plan_elsewhere(self.store, wanted, record, shard, self.avoid).ok_or(GivenUp)?;
        self.records[object].places[shard.as_usize()] = Some(place_of(&reservation));
        let header =
            self.header(&self.records[object], shard, &self.checksums[object]).ok_or(GivenUp)?;
        // Memory outside the pool: waiting for the pool while holding some of it could deadlock.
        let mut copy = Buffer::zeroed(self.shards[index].data.len());
        copy.copy_from_slice(&self.shards[index].data);
        copy[..SHARD_HEADER_BYTES].copy_from_slice(&header);
        // The old reservation goes, but a write in flight holds the place by a guard of its own [R7].
        self.shards[index].reservation = reservation;
        self.shards[index].data = Slice::from(copy);
        self.send(index);
        Ok(())
    }
}
