//! Reading objects: carries out what `read_plan` decides, verifies every cell [I4], decides again.
//!
//! A [`Reading`] never waits by itself: [`Reading::advance`] takes what has arrived, marks what is
//! late, plans, sends what is missing, and says until when nothing else is to be done. All accesses of
//! a plan are in flight together. [`run_read`] waits in between; tests drive many at once.
//!
//! * A cell that does not match its checksum, or cannot be read, is replaced from other shards.
//! * An access that misses its deadline is taken back where it still waits, and other shards are asked;
//!   a late answer is still welcome. A shard whose disk hangs is asked last.
//! * Cells are verified before anything is made of them; what is rebuilt from k verified cells is right.
//! * Afterwards bad cells are reported, and rewritten in place if that is safe [R21]: `in_place.rs`.

use std::ops::Range;
use std::time::Duration;

use super::ChecksumSource;
use super::read_plan::{Access, ShardState, Wanted, plan_read};
use super::store::ObjectStore;
use super::write_plan::payload_offset;
use crate::base::canary::{self, Bug};
use crate::base::limits::READ_DEADLINE_MS;
use crate::base::{DiskIndex, ShardIndex, Ticks};
use crate::fleet::codec::Codec;
use crate::fleet::disk::{Buffer, Class, DiskError, Fan, Operation, Request};
use crate::fleet::error::FleetError;
use crate::fleet::reports::{FailReason, Report};
use crate::format::{Checksums, ObjectRecord, Redundancy, cell_crc};

/// A busy disk may take this much longer than the deadline, if its queue says so.
const BUSY_MAX: Duration = Duration::from_secs(20);
/// Reads that nobody waits for are cut into pieces of this size.
const PIECE_BYTES_MAX: u32 = 512 * 1024;
/// How long late shards are waited for when the object cannot be read without them: longer than a
/// bus reset or a spin-up takes [R11].
const GIVE_UP: Duration = Duration::from_secs(60);

/// An access in flight.
struct Pending {
    slot: usize,
    columns: Range<u32>,
    deadline: Ticks,
    late: bool,
}

/// Cells read from one shard; those in its `bad` list are not to be used.
struct Piece {
    columns: Range<u32>,
    buffer: Buffer,
}

struct ShardRead {
    /// None if it cannot be read at all: missing, failed, or nonsense in the record.
    place: Option<(DiskIndex, u64)>,
    late: bool,
    pending: Vec<Pending>,
    pieces: Vec<Piece>,
    bad: Vec<u32>,
    /// Its list of checksums, once it was asked for.
    checksums: Option<Option<Checksums>>,
}

/// What is to be done next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// Everything is there: call `finish`.
    Done,
    /// Nothing until an answer arrives, or this moment comes.
    Wait(Ticks),
}

/// One read on its way.
pub(super) struct Reading<'a, C: ?Sized> {
    store: &'a ObjectStore,
    record: &'a ObjectRecord,
    checksums: &'a C,
    range: Range<u32>,
    class: Class,
    /// Where whole shards are to be read to.
    memory: Option<&'a ShardMemory<'a>>,
    /// Bad cells are left as they are, and nobody is told: for checks.
    peeks: bool,
    wanted: Wanted,
    shards: Vec<ShardRead>,
    fan: Fan,
    slots: usize,
    started: Ticks,
    /// Something was learned that the last plan did not know.
    replan: bool,
}

/// Gives memory of so many bytes for a data shard, or for whatever else (None); None if there is none now.
pub type ShardMemory<'a> = dyn Fn(Option<usize>, usize) -> Option<Buffer> + 'a;

/// Reads `range` of the object into `into`. See `ObjectStore::read_into`.
pub(super) fn run_read<C: ChecksumSource + ?Sized>(
    store: &ObjectStore,
    record: &ObjectRecord,
    checksums: &C,
    range: Range<u32>,
    class: Class,
    into: &mut [u8],
) -> Result<(), FleetError> {
    assert_eq!(into.len(), range.len(), "the bytes wanted fit where they go");
    if range.is_empty() {
        return Ok(());
    }
    let mut reading = Reading::new(store, record, checksums, range, class)?;
    reading.carry_out()?;
    reading.finish(into);
    Ok(())
}

/// Reads `range` of the object. See `ObjectStore::peek`.
pub(super) fn run_peek<C: ChecksumSource + ?Sized>(
    store: &ObjectStore,
    record: &ObjectRecord,
    checksums: &C,
    range: Range<u32>,
) -> Result<Vec<u8>, FleetError> {
    let mut bytes = vec![0; range.len()];
    let mut reading = Reading::new(store, record, checksums, range, Class::Background)?;
    reading.peeks = true;
    reading.carry_out()?;
    reading.finish(&mut bytes);
    Ok(bytes)
}

/// Reads all data shards of the object. See `ObjectStore::read_shards`.
pub(super) fn run_read_shards<C: ChecksumSource + ?Sized>(
    store: &ObjectStore,
    record: &ObjectRecord,
    checksums: &C,
    class: Class,
    memory: &ShardMemory<'_>,
) -> Result<Vec<Buffer>, FleetError> {
    let mut reading = Reading::new(store, record, checksums, 0..record.length, class)?;
    reading.memory = Some(memory);
    reading.carry_out()?;
    Ok(reading.finish_shards())
}

impl<'a, C: ChecksumSource + ?Sized> Reading<'a, C> {
    /// Plans nothing and sends nothing yet. Error `Unreadable` if the range is not in the object.
    pub(super) fn new(
        store: &'a ObjectStore,
        record: &'a ObjectRecord,
        checksums: &'a C,
        range: Range<u32>,
        class: Class,
    ) -> Result<Reading<'a, C>, FleetError> {
        // Extents come from disks: one that points beyond its object is damage, not our bug.
        if range.start > range.end || range.end > record.length || !record.is_sound() {
            return Err(unreadable(record, 0));
        }
        let shards = (0..record.places.len()).map(|shard| ShardRead {
            place: payload_offset(store, record, ShardIndex(shard as u8)),
            late: false,
            pending: Vec::new(),
            pieces: Vec::new(),
            bad: Vec::new(),
            checksums: None,
        });
        Ok(Reading {
            store,
            record,
            checksums,
            wanted: wanted(store, record, &range),
            range,
            class,
            memory: None,
            peeks: false,
            shards: shards.collect(),
            fan: Fan::new(0),
            slots: 0,
            started: store.context.clock.now(),
            replan: true,
        })
    }

    /// Until everything is there.
    fn carry_out(&mut self) -> Result<(), FleetError> {
        while let Progress::Wait(deadline) = self.advance()? {
            self.fan.wait(&*self.store.context.wait, Some(deadline), |view| {
                let mut pending = self.shards.iter().flat_map(|shard| &shard.pending);
                pending.any(|one| view.result(one.slot).is_some())
            });
        }
        Ok(())
    }

    /// Does all that can be done without waiting. Errors: `Unreadable`; what the source of checksums
    /// answers.
    pub(super) fn advance(&mut self) -> Result<Progress, FleetError> {
        self.reap()?;
        if self.is_complete() {
            return Ok(Progress::Done);
        }
        self.mark_late();
        while self.replan {
            self.replan = false;
            self.plan_and_send()?;
        }
        let pending = self.shards.iter().flat_map(|shard| &shard.pending);
        let deadlines = pending.filter(|one| !one.late).map(|one| one.deadline);
        Ok(Progress::Wait(deadlines.min().unwrap_or(self.started + GIVE_UP)))
    }

    fn plan_and_send(&mut self) -> Result<(), FleetError> {
        let accesses = match plan_read(&self.wanted, &self.states(false), false) {
            Ok(accesses) => accesses,
            // Not without the late ones.
            Err(_) => plan_read(&self.wanted, &self.states(true), true)
                .map_err(|few| self.give_up(few.have))?,
        };
        self.send(&accesses);
        Ok(())
    }

    /// True if every wanted cell is there, or can be made.
    fn is_complete(&self) -> bool {
        let need = self.wanted.data_shards;
        let mut wanted = self.wanted.columns.iter().enumerate();
        wanted.all(|(shard, columns)| {
            columns
                .clone()
                .all(|column| self.cell(shard, column).is_some() || self.good_in(column) >= need)
        })
    }

    fn give_up(&self, have: usize) -> FleetError {
        if !self.peeks {
            let report = Report::Unreadable { object: self.record.id };
            self.store.context.members.reports().push(report);
            self.report_bad(|_| false);
        }
        unreadable(self.record, have)
    }

    /// What is known of the shards; with late answers counted as coming if they are waited for.
    fn states(&self, late_too: bool) -> Vec<ShardState> {
        let heat = &self.store.context.heat;
        let bytes = u64::from(self.record.shard_bytes);
        let state = |shard: &ShardRead| {
            let disk = shard.place.map(|(disk, _)| disk);
            let pending = shard.pending.iter().filter(|one| late_too || !one.late);
            let pieces = shard.pieces.iter().map(|piece| piece.columns.clone());
            let wait = disk.map(|disk| heat.wait(disk, bytes));
            ShardState {
                wait: wait.filter(|&wait| wait != Duration::MAX),
                late: shard.late || disk.is_some_and(|disk| heat.is_hung(disk)),
                coming: pieces.chain(pending.map(|one| one.columns.clone())).collect(),
                bad: shard.bad.clone(),
            }
        };
        self.shards.iter().map(state).collect()
    }

    fn send(&mut self, accesses: &[Access]) {
        for access in accesses {
            let Some((disk, payload)) = self.shards[access.shard].place else { continue };
            let Some(handle) = self.store.context.members.handle(disk) else {
                self.shards[access.shard].place = None;
                self.replan = true;
                continue;
            };
            let bytes = column_bytes(self.record, &access.columns).len() as u64;
            let context = &self.store.context;
            let busy = context.heat.wait(disk, bytes).saturating_mul(2).min(BUSY_MAX);
            let deadline = context.clock.now() + Duration::from_millis(READ_DEADLINE_MS) + busy;
            for columns in self.pieces(&access.columns) {
                let bytes = column_bytes(self.record, &columns);
                let buffer = self.buffer(access.shard, bytes.len());
                let slot = self.slots;
                self.slots += 1;
                let pending = Pending { slot, columns, deadline, late: false };
                self.shards[access.shard].pending.push(pending);
                let operation = Operation::Read { offset: payload + bytes.start as u64, buffer };
                let request = Request { operation, class: self.class, deadline: Some(deadline) };
                self.fan.submit(slot, &handle, request);
            }
        }
    }

    /// One access; cut into pieces that others can overtake if nobody waits for it (design 5.5).
    fn pieces(&self, columns: &Range<u32>) -> Vec<Range<u32>> {
        let step = match self.class {
            Class::Foreground | Class::Journal | Class::Flush => columns.len() as u32,
            Class::Background => (PIECE_BYTES_MAX / self.record.cell_bytes).max(1),
        };
        let starts = columns.clone().step_by(step.max(1) as usize);
        starts.map(|start| start..columns.end.min(start + step)).collect()
    }

    /// Memory for one access. Who holds some already must not wait for more: then it comes from
    /// outside the pool, which stays within one object's bytes per reader.
    fn buffer(&self, shard: usize, bytes: usize) -> Buffer {
        let data = match self.wanted.replica {
            true => Some(0),
            false => Some(shard).filter(|&shard| shard < self.wanted.data_shards),
        };
        if let Some(buffer) = self.memory.and_then(|memory| memory(data, bytes)) {
            return buffer;
        }
        let pool = &self.store.context.buffers;
        if self.slots == 0 {
            return pool.take(bytes);
        }
        pool.try_take(bytes).unwrap_or_else(|| Buffer::zeroed(bytes))
    }

    /// Takes the answers that are there, and verifies them.
    fn reap(&mut self) -> Result<(), FleetError> {
        for shard in 0..self.shards.len() {
            let mut at = 0;
            while at < self.shards[shard].pending.len() {
                let Some(outcome) = self.fan.take(self.shards[shard].pending[at].slot) else {
                    at += 1;
                    continue;
                };
                let pending = self.shards[shard].pending.swap_remove(at);
                match (outcome.result, outcome.buffer) {
                    (Ok(()), Some(buffer)) => self.verify(shard, pending.columns, buffer)?,
                    // Taken back because it was late; it may be asked again.
                    (Err(DiskError::Cancelled), _) => self.replan = true,
                    (Err(DiskError::Medium { .. } | DiskError::HostFull), _) => {
                        self.shards[shard].bad.extend(pending.columns);
                        self.replan = true;
                    }
                    (Err(DiskError::Gone | DiskError::Failed), _) | (Ok(()), None) => {
                        self.replan = true;
                        if let Some((disk, _)) = self.shards[shard].place.take() {
                            self.store.context.members.fail(disk, FailReason::Gone);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// [I4] Keeps what was read, and notes which cells do not match.
    fn verify(
        &mut self,
        shard: usize,
        columns: Range<u32>,
        buffer: Buffer,
    ) -> Result<(), FleetError> {
        let record = self.record;
        let list = record.checksum_list(ShardIndex(shard as u8));
        if self.shards[shard].checksums.is_none() {
            let fetched = self.checksums.list(record.id, list)?;
            self.shards[shard].checksums = Some(fetched);
        }
        let one = &mut self.shards[shard];
        let expected = one.checksums.as_ref().expect("it was just fetched");
        let cells = buffer.chunks(record.cell_bytes as usize);
        for (column, cell) in columns.clone().zip(cells) {
            let crc = expected.as_ref().and_then(|list| list.0.get(column as usize));
            let believed = canary::planted(Bug::CellsUnchecked);
            if crc != Some(&cell_crc(record.id, list, column, cell)) && !believed {
                one.bad.push(column);
                self.replan = true;
            }
        }
        one.pieces.push(Piece { columns, buffer });
        Ok(())
    }

    fn mark_late(&mut self) {
        let now = self.store.context.clock.now();
        if now >= self.started + GIVE_UP {
            // Whatever is still late is given up.
            for shard in self.shards.iter_mut().filter(|shard| shard.late) {
                shard.place = None;
                shard.pending.clear();
            }
            self.replan = true;
        }
        for shard in &mut self.shards {
            for one in shard.pending.iter_mut().filter(|one| !one.late && one.deadline <= now) {
                one.late = true;
                shard.late = true;
                self.replan = true;
                self.fan.cancel(one.slot);
                if let Some((disk, _)) = shard.place {
                    self.store.context.members.late(disk);
                }
            }
        }
    }

    /// The verified bytes of one cell.
    fn cell(&self, shard: usize, column: u32) -> Option<&[u8]> {
        self.run(shard, column..column + 1).map(|(_, bytes)| bytes)
    }

    /// Puts the bytes together, then sees to the bad cells. Only after `Done`.
    pub(super) fn finish(mut self, into: &mut [u8]) {
        let range = self.range.start as usize..self.range.end as usize;
        for shard in 0..self.wanted.data_shards {
            self.copy_shard(shard, &range, into);
        }
        self.see_to_bad_cells();
    }

    /// The data shards, from their first byte to the last one wanted or a little further, in the
    /// memory they were read to. A shard that is not there as one good piece is put together in
    /// memory of its own. Then sees to the bad cells. Only after `Done`, of a whole object.
    fn finish_shards(mut self) -> Vec<Buffer> {
        let shards = 0..self.wanted.data_shards;
        let made: Vec<Option<Buffer>> = shards.map(|shard| self.put_together(shard)).collect();
        self.see_to_bad_cells();
        let taken = made.into_iter().enumerate().map(|(shard, made)| {
            made.unwrap_or_else(|| {
                let (source, piece) = self.whole_piece(shard).expect("else it was put together");
                self.shards[source].pieces.swap_remove(piece).buffer
            })
        });
        taken.collect()
    }

    /// A shard and a piece of it that hold all wanted cells of a data shard, all good.
    fn whole_piece(&self, shard: usize) -> Option<(usize, usize)> {
        let columns = &self.wanted.columns[shard];
        let sources = if self.wanted.replica { 0..self.shards.len() } else { shard..shard + 1 };
        sources.into_iter().find_map(|source| {
            let one = &self.shards[source];
            let piece = one.pieces.iter().position(|piece| {
                piece.columns.start == 0
                    && piece.columns.end >= columns.end
                    && !one.bad.iter().any(|bad| piece.columns.contains(bad))
            })?;
            Some((source, piece))
        })
    }

    fn put_together(&self, shard: usize) -> Option<Buffer> {
        if self.whole_piece(shard).is_some() {
            return None;
        }
        let start = shard * self.record.shard_bytes as usize;
        let bytes = column_bytes(self.record, &(0..self.wanted.columns[shard].end)).len().max(1);
        let memory = self.memory.and_then(|memory| memory(Some(shard), bytes));
        let mut buffer = memory.unwrap_or_else(|| Buffer::zeroed(bytes));
        self.copy_shard(shard, &(start..start + bytes), &mut buffer);
        Some(buffer)
    }

    fn see_to_bad_cells(&mut self) {
        if !self.peeks && self.shards.iter().any(|shard| !shard.bad.is_empty()) {
            self.fan = Fan::new(0);
            let repaired = super::in_place::repair_cells(self);
            self.report_bad(|shard| repaired.contains(&shard));
        }
    }

    /// Copies the wanted cells of one data shard to where they belong in `into`, the bytes `range`
    /// of the object.
    fn copy_shard(&self, shard: usize, range: &Range<usize>, into: &mut [u8]) {
        let mut next = self.wanted.columns[shard].start;
        while next < self.wanted.columns[shard].end {
            next = self.copy_run(shard, next, range, into);
        }
    }

    /// Copies or rebuilds a run of cells of one data shard from `first` on, as far as one source
    /// reaches; returns the column after it.
    fn copy_run(&self, shard: usize, first: u32, range: &Range<usize>, into: &mut [u8]) -> u32 {
        let last = self.wanted.columns[shard].end;
        let direct = if self.wanted.replica {
            (0..self.shards.len()).find_map(|replica| self.run(replica, first..last))
        } else {
            self.run(shard, first..last)
        };
        if let Some((end, bytes)) = direct {
            self.deliver(shard, first, bytes, range, into);
            return end;
        }
        let Redundancy::Erasure { data, parity } = self.record.redundancy else {
            unreachable!("one replica was good: the read is complete");
        };
        let runs = (0..self.shards.len())
            .filter_map(|one| Some((ShardIndex(one as u8), self.run(one, first..last)?)))
            .take(data.into());
        let runs: Vec<(ShardIndex, (u32, &[u8]))> = runs.collect();
        // As far as all sources reach, but not over cells of the shard itself that are good.
        let reach = runs.iter().map(|(_, (end, _))| *end).min().expect("k shards are good");
        let own = (first + 1..reach).find(|&column| self.cell(shard, column).is_some());
        let end = own.unwrap_or(reach);
        let length = column_bytes(self.record, &(first..end)).len();
        let present: Vec<(ShardIndex, &[u8])> =
            runs.iter().map(|(one, (_, bytes))| (*one, &bytes[..length])).collect();
        let codec = Codec::new(data.into(), parity.into());
        let start = self.start_of(shard, first);
        if start >= range.start && start + length <= range.end {
            // All of it is wanted: it is made where it belongs.
            let target = &mut into[start - range.start..start + length - range.start];
            codec.reconstruct(&present, &mut [(ShardIndex(shard as u8), target)]);
        } else {
            let mut rebuilt = vec![0; length];
            codec.reconstruct(&present, &mut [(ShardIndex(shard as u8), &mut rebuilt)]);
            self.deliver(shard, first, &rebuilt, range, into);
        }
        end
    }

    /// Where a cell of a data shard begins in the object.
    fn start_of(&self, shard: usize, column: u32) -> usize {
        shard * self.record.shard_bytes as usize
            + column_bytes(self.record, &(column..column + 1)).start
    }

    /// Verified bytes of one shard from the first of `columns` on, as far as one piece is good.
    fn run(&self, shard: usize, columns: Range<u32>) -> Option<(u32, &[u8])> {
        let one = &self.shards[shard];
        let first = columns.start;
        let piece = one.pieces.iter().find(|piece| piece.columns.contains(&first))?;
        let end = columns.end.min(piece.columns.end);
        let end =
            one.bad.iter().copied().filter(|bad| (first..end).contains(bad)).min().unwrap_or(end);
        let bytes = column_bytes(self.record, &(first..end));
        let at = bytes.start - column_bytes(self.record, &piece.columns).start;
        (end > first).then(|| (end, &piece.buffer[at..at + bytes.len()]))
    }

    /// Copies the part of `bytes` (cells of a data shard from `first` on) that was asked for.
    fn deliver(
        &self,
        shard: usize,
        first: u32,
        bytes: &[u8],
        range: &Range<usize>,
        into: &mut [u8],
    ) {
        let start = self.start_of(shard, first);
        let (from, to) = (start.max(range.start), (start + bytes.len()).min(range.end));
        into[from - range.start..to - range.start]
            .copy_from_slice(&bytes[from - start..to - start]);
    }

    /// A good cell of this column of data; from any replica.
    fn cell_for(&self, shard: usize, column: u32) -> Option<&[u8]> {
        if self.wanted.replica {
            return (0..self.shards.len()).find_map(|replica| self.cell(replica, column));
        }
        self.cell(shard, column)
    }

    /// Makes one cell, of data or parity, from k others. Panics if there are not k: the plan said so.
    pub(super) fn rebuild(&self, shard: usize, column: u32, into: &mut [u8]) {
        let Redundancy::Erasure { data, parity } = self.record.redundancy else {
            let cell = self.cell_for(shard, column).expect("one replica was good");
            into.copy_from_slice(cell);
            return;
        };
        let good = (0..self.shards.len())
            .filter_map(|one| Some((ShardIndex(one as u8), self.cell(one, column)?)));
        let present: Vec<(ShardIndex, &[u8])> = good.take(data.into()).collect();
        let codec = Codec::new(data.into(), parity.into());
        codec.reconstruct(&present, &mut [(ShardIndex(shard as u8), into)]);
    }

    /// How many shards are good in this column.
    pub(super) fn good_in(&self, column: u32) -> usize {
        (0..self.shards.len()).filter(|&shard| self.cell(shard, column).is_some()).count()
    }

    pub(super) fn store(&self) -> &'a ObjectStore {
        self.store
    }

    pub(super) fn record(&self) -> &'a ObjectRecord {
        self.record
    }

    /// Shards with bad cells whose disk still works: shard, the cells, what they should match.
    pub(super) fn bad_cells(&self) -> Vec<(usize, Vec<u32>, Option<Checksums>)> {
        let shards = self.shards.iter().enumerate();
        shards
            .filter(|(_, shard)| !shard.bad.is_empty() && shard.place.is_some())
            .map(|(index, shard)| {
                let list = self.record.checksum_list(ShardIndex(index as u8));
                // Of a shard that could not be read at all nobody has asked for the list yet.
                let fetch = || self.checksums.list(self.record.id, list).ok();
                let checksums = shard.checksums.clone().or_else(fetch).flatten();
                (index, shard.bad.clone(), checksums)
            })
            .collect()
    }

    fn report_bad(&self, repaired: impl Fn(usize) -> bool) {
        for (shard, one) in self.shards.iter().enumerate() {
            let Some(place) = self.record.places.get(shard).copied().flatten() else { continue };
            if !one.bad.is_empty() {
                self.store.context.members.reports().push(Report::BadShard {
                    object: self.record.id,
                    shard: ShardIndex(shard as u8),
                    disk: place.disk,
                    repaired: repaired(shard),
                });
            }
        }
    }
}

fn unreadable(record: &ObjectRecord, have: usize) -> FleetError {
    let need = record.redundancy.data_shards();
    FleetError::Unreadable { object: record.id, have, need }
}

/// Bytes inside a shard's payload that these columns occupy.
pub(super) fn column_bytes(record: &ObjectRecord, columns: &Range<u32>) -> Range<usize> {
    let cell = record.cell_bytes as usize;
    let end = record.shard_bytes as usize;
    (columns.start as usize * cell).min(end)..(columns.end as usize * cell).min(end)
}

/// Which columns of which data shards hold the range.
fn wanted(store: &ObjectStore, record: &ObjectRecord, range: &Range<u32>) -> Wanted {
    let data_shards = record.redundancy.data_shards();
    let columns = (0..data_shards as u32).map(|shard| {
        let start = shard * record.shard_bytes;
        let from = range.start.max(start) - start;
        let to = range.end.clamp(start, start + record.shard_bytes) - start;
        if from >= to {
            return 0..0;
        }
        let edge = u32::from(canary::planted(Bug::CellEdge) && to > record.cell_bytes);
        from / record.cell_bytes..(to - edge).div_ceil(record.cell_bytes)
    });
    let disks = record.places.iter().flatten();
    let services =
        disks.map(|place| store.context.heat.service(place.disk, record.shard_bytes.into()));
    let count = record.places.len().max(1) as u32;
    Wanted {
        data_shards,
        replica: matches!(record.redundancy, Redundancy::Replica { .. }),
        columns: columns.collect(),
        parity_cost: services.sum::<Duration>() / count,
    }
}
