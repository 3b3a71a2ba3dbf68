//! How one batch becomes durable.
//!
//! Steps, and what a crash (or loss of power) after each leaves:
//!
//! 1. *Bind*: the LSN gets its bytes: payload, epoch, predecessor. Nothing on disk. From here on
//!    every copy and every retry has these bytes [R5].
//! 2. *Write*: one durable write of the whole entry on each of m+2 disks, least expected wait first,
//!    all at once. A crash leaves the batch on any subset of them, each copy whole or torn; whole
//!    copies are replayed if all batches before are there, torn ones are dead. Nobody was told.
//! 3. *Replace*: a copy that failed or is late goes to another disk. As after 2.
//! 4. *Count*: min(active, m+1) copies on active disks are durable. A crash leaves a batch that every
//!    mount finds, but nobody was told yet.
//! 5. *Record*: members that were failed are recorded as dropped on the survivors' labels [R2]. As 4.
//! 6. *Acknowledge*: only in memory. The next entry states it on disk.

use std::time::Duration;

use crate::base::canary::{self, Bug};
use crate::base::limits::{JOURNAL_LATE_MS, WRITE_DEADLINE_MS};
use crate::base::sync::atomic::Ordering;
use crate::base::{DiskIndex, DiskUuid, Lsn, Ticks};
use crate::fleet::disk::{Class, DiskError, Fan, Operation, Request, Slice};
use crate::fleet::error::FleetError;
use crate::fleet::reports::{FailReason, Report};
use crate::format::journal_entry::{ENTRY_HEADER_BYTES, EntryHeader, batch_crc};

use super::ring::RingPlace;
use super::{Journal, Level, Logged};

/// Bytes of an entry before its payload.
pub(super) const HEADER_BYTES: usize = ENTRY_HEADER_BYTES;

/// How often a suspended batch looks whether a disk answers again.
const SUSPENDED_POLL_MS: u64 = 100;

/// The labels may refuse to say who is out for so long, before whoever appends decides what to wait for.
const RECORD_PATIENCE_MS: u64 = 5_000;

/// Bytes an entry with such a payload takes in a ring.
pub(super) fn entry_bytes(payload_bytes: usize) -> u64 {
    crate::format::journal_entry::entry_bytes(payload_bytes)
}

/// One copy of a batch.
struct Leg {
    disk: DiskIndex,
    position: u64,
    /// Slots of the fan: one write, or two around the ring's end; those not answered yet.
    open: Vec<usize>,
    late_at: Ticks,
    failed: bool,
}

impl Leg {
    fn is_durable(&self) -> bool {
        self.open.is_empty() && !self.failed
    }
}

/// The copies of one batch.
pub(super) struct Flight {
    fan: Fan,
    slots: usize,
    legs: Vec<Leg>,
}

/// A batch whose LSN is bound to its bytes.
pub(super) struct Pending {
    lsn: Lsn,
    acked: Lsn,
    prev_batch_crc: u64,
    batch_crc: u64,
    flight: Flight,
}

/// What happened to copies since the last look.
#[derive(Default)]
struct Reaped {
    /// Where, and whether it was written.
    positions: Vec<(DiskIndex, u64, bool)>,
    errors: Vec<(DiskIndex, DiskError)>,
}

impl Flight {
    fn new() -> Flight {
        Flight { fan: Fan::new(0), slots: 0, legs: Vec::new() }
    }

    fn open(&self) -> usize {
        self.legs.iter().map(|leg| leg.open.len()).sum()
    }

    /// Takes the answers that came.
    fn reap(&mut self, reaped: &mut Reaped) {
        for leg in self.legs.iter_mut().filter(|leg| !leg.open.is_empty()) {
            let fan = &self.fan;
            leg.open.retain(|&slot| match fan.take(slot) {
                None => true,
                Some(outcome) => {
                    if let Err(error) = outcome.result {
                        leg.failed = true;
                        reaped.errors.push((leg.disk, error));
                    }
                    false
                }
            });
            if leg.open.is_empty() {
                reaped.positions.push((leg.disk, leg.position, !leg.failed));
            }
        }
    }
}

impl Journal {
    /// Step 1. Refuses with `JournalFull` before anything is bound.
    pub(super) fn bind(&self, lsn: Lsn, payload: &[u8]) -> Result<Pending, FleetError> {
        assert!(!payload.is_empty(), "a batch says something");
        if self.stopped.load(Ordering::SeqCst) {
            return Err(FleetError::Stopped);
        }
        let has_room = loop {
            let members = self.members().sequence();
            self.context.quorum.need()?;
            let has_room = self.room(Level::Internal, payload.len());
            // Both of the same moment: a disk that comes in between is no reason to call the log full.
            if self.members().sequence() == members {
                break has_room;
            }
        };
        let mut state = self.state.lock();
        assert!(!state.busy, "one batch is in flight at a time [R3]");
        assert_eq!(lsn, state.acked.next(), "batches are appended in order [R3]");
        let (epoch, prev) = (self.context.epoch, state.acked_crc);
        let crc = batch_crc(epoch, lsn, prev, payload);
        if let Some(pending) = state.pending.take() {
            assert_eq!(pending.batch_crc, crc, "an LSN never changes its bytes [R5]");
            state.busy = true;
            return Ok(pending);
        }
        if !has_room {
            return Err(FleetError::JournalFull);
        }
        state.busy = true;
        let bytes = entry_bytes(payload.len());
        let (places, written) = (Vec::new(), Vec::new());
        state.log.push_back(Logged { lsn, batch_crc: crc, bytes, places, written });
        state.log_bytes += bytes;
        let acked = state.acked;
        let flight = Flight::new();
        Ok(Pending { lsn, acked, prev_batch_crc: prev, batch_crc: crc, flight })
    }

    /// Step 6, or keeping the batch bound for a retry.
    pub(super) fn unbind(&self, pending: Pending, result: &Result<(), FleetError>) {
        let need = self.context.quorum.need().unwrap_or(0);
        let lost = matches!(result, Err(FleetError::TooFewDisks { .. }));
        self.set_suspended(lost || result.is_err() && self.suspended(), need);
        {
            let mut state = self.state.lock();
            state.busy = false;
            if result.is_ok() {
                state.acked = pending.lsn;
                state.acked_crc = pending.batch_crc;
                if pending.flight.open() > 0 {
                    state.stragglers.push(pending.flight);
                }
            } else {
                state.pending = Some(pending);
            }
        }
        self.event.notify();
    }

    /// Steps 2 to 5.
    pub(super) fn carry_out(
        &self,
        mut pending: Pending,
        payload: &[u8],
    ) -> (Pending, Result<(), FleetError>) {
        let mut refused_since: Option<Ticks> = None;
        loop {
            self.reap_stragglers();
            self.reap(&mut pending);
            self.retire_late();
            let need = match self.context.quorum.need() {
                Ok(_) if canary::planted(Bug::LogOnOneDisk) => 1,
                Ok(need) => need,
                Err(error) => return (pending, Err(error)),
            };
            if self.durable(&pending) >= need {
                if self.context.quorum.is_recorded() {
                    return (pending, Ok(()));
                }
                // Another disk may have failed meanwhile: count again.
                let Err(error) = self.context.quorum.record() else {
                    refused_since = None;
                    continue;
                };
                let now = self.context.access.clock.now();
                let since = *refused_since.get_or_insert(now);
                let lost = matches!(error, FleetError::TooFewDisks { .. });
                if lost && now >= since + Duration::from_millis(RECORD_PATIENCE_MS) {
                    return (pending, Err(error));
                }
                log::debug!("the labels do not take who is out: {error}");
            }
            let hopeful = self.write_copies(&mut pending, payload);
            let durable = self.durable(&pending);
            // Durable, but not recorded: suspended as well.
            let suspended = durable + hopeful < need || durable >= need;
            self.set_suspended(suspended, need);
            if suspended && self.stopped.load(Ordering::SeqCst) {
                return (pending, Err(FleetError::Stopped));
            }
            if suspended {
                self.give_up_late(&pending);
                self.bring_back();
            }
            self.wait_for_copies(&pending, suspended);
        }
    }

    /// Waits until a copy is answered or becomes late.
    fn wait_for_copies(&self, pending: &Pending, suspended: bool) {
        let access = &self.context.access;
        let now = access.clock.now();
        let open = pending.flight.open();
        let lates = pending.flight.legs.iter().filter(|leg| !leg.open.is_empty());
        let next_late = lates.map(|leg| leg.late_at).filter(|&at| at > now).min();
        let poll = access.after_ms(SUSPENDED_POLL_MS);
        let deadline = match next_late {
            Some(at) if !suspended => at,
            Some(at) => at.min(poll),
            None => poll,
        };
        pending.flight.fan.wait(&*access.wait, Some(deadline), |view| view.pending() < open);
    }

    /// Takes answers of the batch in flight; fails disks that failed it.
    fn reap(&self, pending: &mut Pending) {
        let mut reaped = Reaped::default();
        pending.flight.reap(&mut reaped);
        self.note(reaped);
    }

    /// Takes answers of the batch that waits for a retry.
    pub(super) fn reap_pending(&self) {
        let mut reaped = Reaped::default();
        if let Some(pending) = &mut self.state.lock().pending {
            pending.flight.reap(&mut reaped);
        }
        self.note(reaped);
    }

    /// Takes answers of copies that were still being written when their batch was acknowledged.
    pub(super) fn reap_stragglers(&self) {
        let mut reaped = Reaped::default();
        {
            let mut state = self.state.lock();
            for flight in &mut state.stragglers {
                flight.reap(&mut reaped);
            }
            state.stragglers.retain(|flight| flight.open() > 0);
        }
        self.note(reaped);
    }

    fn note(&self, reaped: Reaped) {
        if !reaped.positions.is_empty() {
            let mut state = self.state.lock();
            for &(disk, position, written) in &reaped.positions {
                let ring = state.rings.iter_mut().find(|ring| ring.disk == disk);
                ring.expect("copies go to rings we know").reaped(position, written);
                let of_it = |logged: &&mut Logged| logged.places.contains(&(disk, position));
                // Trimmed meanwhile: then it does not matter.
                if written && let Some(logged) = state.log.iter_mut().rev().find(of_it) {
                    logged.written.push((disk, position));
                }
            }
            for (disk, _) in reaped.errors.iter().filter(|(_, e)| *e == DiskError::HostFull) {
                // A full host file system is not the disk's failure [R24]: like a late one.
                let ring = state.rings.iter_mut().find(|ring| ring.disk == *disk);
                ring.expect("copies go to rings we know").in_rotation = false;
            }
        }
        for (disk, error) in reaped.errors {
            if error != DiskError::HostFull {
                self.members().fail(disk, FailReason::of_write(error));
            }
        }
    }

    /// Late disks leave the rotation until the next checkpoint [R5, R11].
    fn retire_late(&self) {
        let now = self.context.access.clock.now();
        let mut late = Vec::new();
        {
            let mut state = self.state.lock();
            for ring in &mut state.rings {
                if ring.in_rotation && ring.is_late(now) {
                    ring.in_rotation = false;
                    late.push(ring.disk);
                }
            }
        }
        for disk in late {
            if self.members().handle(disk).is_some() {
                log::debug!("disk {disk} is late for the journal; others take its copies for now");
                self.members().late(disk);
            }
        }
    }

    /// [R11] Too few disks: those that have answered everything come back before a checkpoint.
    fn bring_back(&self) {
        let mut state = self.state.lock();
        for ring in &mut state.rings {
            ring.in_rotation |= ring.is_quiet();
        }
    }

    pub(super) fn set_suspended(&self, suspended: bool, need: usize) {
        {
            let mut state = self.state.lock();
            if state.suspended == suspended {
                return;
            }
            state.suspended = suspended;
        }
        if suspended {
            log::debug!("writing is suspended: fewer than {need} disks take the journal");
            self.members().reports().push(Report::Suspended);
        } else {
            log::debug!("writing goes on: {need} disks take the journal again");
            self.members().reports().push(Report::Resumed);
        }
        self.event.notify();
    }

    /// [R11] Nobody left to take the copies of those who are late: goes on without them if the rest
    /// is enough.
    fn give_up_late(&self, pending: &Pending) {
        let now = self.context.access.clock.now();
        let patience = Duration::from_millis(WRITE_DEADLINE_MS - JOURNAL_LATE_MS);
        let late: Vec<DiskIndex> = (pending.flight.legs.iter())
            .filter(|leg| !leg.open.is_empty() && leg.late_at + patience <= now)
            .map(|leg| leg.disk)
            .collect();
        self.context.quorum.give_up(&self.durable_on(pending), &late);
    }

    /// Durable copies: one per active disk counts.
    fn durable(&self, pending: &Pending) -> usize {
        self.durable_on(pending).len()
    }

    fn durable_on(&self, pending: &Pending) -> Vec<DiskIndex> {
        let durable = |disk: &DiskIndex| {
            pending.flight.legs.iter().any(|leg| leg.disk == *disk && leg.is_durable())
        };
        self.members().active().into_iter().filter(durable).collect()
    }

    /// Starts copies until min(active, m+2) are durable or hoped for. Returns how many are hoped for:
    /// being written, and not late.
    fn write_copies(&self, pending: &mut Pending, payload: &[u8]) -> usize {
        loop {
            let now = self.context.access.clock.now();
            let active = self.members().active();
            let legs = &pending.flight.legs;
            let hoped = |leg: &&Leg| {
                !leg.open.is_empty() && leg.late_at > now && active.contains(&leg.disk)
            };
            let hopeful = legs.iter().filter(hoped).count();
            if self.durable(pending) + hopeful >= self.context.quorum.wish() {
                return hopeful;
            }
            let Some(disk) = self.choose(pending, &active, entry_bytes(payload.len())) else {
                return hopeful;
            };
            self.write_copy(pending, payload, disk);
        }
    }

    /// The disk for the next copy: in rotation, with room, least expected wait; where enclosures are
    /// labelled, one that has fewer than m copies yet, if there is one [R24].
    fn choose(&self, pending: &Pending, active: &[DiskIndex], bytes: u64) -> Option<DiskIndex> {
        let taken: Vec<DiskIndex> = (pending.flight.legs.iter())
            .filter(|leg| !leg.open.is_empty() || leg.is_durable())
            .map(|leg| leg.disk)
            .collect();
        let candidates: Vec<(DiskIndex, bool)> = {
            let state = self.state.lock();
            let usable = state.rings.iter().filter(|ring| {
                ring.in_rotation
                    && active.contains(&ring.disk)
                    && !taken.contains(&ring.disk)
                    && ring.is_in_sight()
                    && ring.has_room(Level::Internal, bytes)
            });
            // What is kept for making room is taken last: rings that the others were spared for would be full
            // when those are lost.
            usable.map(|ring| (ring.disk, !ring.has_room(Level::User, bytes))).collect()
        };
        let cap = self.members().parity().max(1);
        let crowded = |disk: DiskIndex| {
            let enclosure = |disk| self.members().get(disk).and_then(|member| member.enclosure);
            let of = enclosure(disk);
            of.is_some() && taken.iter().filter(|&&other| enclosure(other) == of).count() >= cap
        };
        candidates
            .into_iter()
            .min_by_key(|&(disk, full)| {
                (crowded(disk), full, self.context.heat.wait(disk, bytes), disk)
            })
            .map(|(disk, _)| disk)
    }

    fn write_copy(&self, pending: &mut Pending, payload: &[u8], disk: DiskIndex) {
        let Some(handle) = self.members().handle(disk) else { return };
        let bytes = entry_bytes(payload.len());
        // Memory first: taking it may wait, and nothing is reserved yet [R23].
        let mut buffer = self.context.access.buffers.take(bytes as usize);
        let late_at = self.context.access.after_ms(JOURNAL_LATE_MS);
        let Some((position, uuid, place)) = self.reserve(pending.lsn, disk, bytes, late_at) else {
            return;
        };
        let header = EntryHeader {
            pool: self.context.pool,
            disk: uuid,
            ring_position: position,
            epoch: self.context.epoch,
            epoch_id: self.context.epoch_id,
            lsn: pending.lsn,
            acked_lsn: pending.acked,
            prev_batch_crc: pending.prev_batch_crc,
            batch_crc: pending.batch_crc,
            payload_len: u32::try_from(payload.len()).expect("an entry is at most 8 MiB"),
        };
        header.encode_entry(payload, &mut buffer);
        let data = Slice::from(buffer);
        let flight = &mut pending.flight;
        let mut open = Vec::new();
        for piece in place.pieces(position, bytes as usize) {
            let (slot, offset) = (flight.slots, piece.offset);
            let data = data.slice(piece.range);
            let operation = Operation::Write { offset, data, durable: true };
            let request = Request { operation, class: Class::Journal, deadline: Some(late_at) };
            flight.fan.submit(slot, &handle, request);
            flight.slots += 1;
            open.push(slot);
        }
        flight.legs.push(Leg { disk, position, open, late_at, failed: false });
    }

    fn reserve(
        &self,
        lsn: Lsn,
        disk: DiskIndex,
        bytes: u64,
        late_at: Ticks,
    ) -> Option<(u64, DiskUuid, RingPlace)> {
        let mut state = self.state.lock();
        let ring = state.rings.iter_mut().find(|ring| ring.disk == disk)?;
        if !ring.is_in_sight() || !ring.has_room(Level::Internal, bytes) {
            return None;
        }
        let position = ring.reserve(bytes, late_at);
        let (uuid, place) = (ring.uuid, ring.place);
        let logged = state.log.back_mut().expect("the batch in flight is the log's last");
        assert_eq!(logged.lsn, lsn, "one batch is in flight at a time [R3]");
        logged.places.push((disk, position));
        Some((position, uuid, place))
    }
}
