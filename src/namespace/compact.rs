//! Compaction: what is still alive of sparse objects moves into full ones, and the sparse ones are free.
//!
//! 1. Each victim is pinned, its owners' list read [R17], and the index asked which of its pieces are
//!    still alive.
//! 2. These are read, verified, sorted by (file, offset), packed into objects, written, and flushed [I3].
//! 3. In transactions: an extent that still points at the very bytes that were read points at their
//!    copy from now on [R20]; whatever a user did meanwhile stands. With its last live byte a victim
//!    leaves the index, and its space is free once that batch is durable.
//!
//! A crash after 2 leaves objects that nothing names: free space. A crash in 3, between two transactions:
//! each byte has exactly one owner, the victim or the copy; what the copy has beyond is dead, and the
//! next survey finds it.
//!
//! Which objects, and when: `services::reclaim`.

use std::ops::Range;

use super::chunk::Chunk;
use super::core::Core;
use super::cut::EXTENTS_PER_TRANSACTION;
use super::error::NamespaceError;
use super::overlay::Bytes;
use super::pack::{Packed, Packer, Part};
use super::read::{IndexLists, Located};
use super::tx::{Attempt, Effect, Tx, damaged, decode};
use super::written::Written;
use crate::base::canary::{self, Bug};
use crate::base::limits::{RECLAIM_BYTES, SHARD_BYTES};
use crate::base::sync::Arc;
use crate::base::{Event, Ino, Lsn, MIB, ObjectId, UNIT_BYTES};
use crate::fleet::FleetError;
use crate::fleet::disk::Class;
use crate::format::{Key, KeyView, ObjectRecord, Piece, decode_pieces};

/// Objects of one page of the survey.
const SURVEY_OBJECTS: usize = 1024;
/// Pieces of a victim that lie closer together than this are read together: less than a seek.
const GAP_BYTES: u32 = 256 << 10;
/// Bytes that are read together at most.
const SPAN_BYTES: u32 = 4 << 20;
/// Objects that are needed to more than this are dense, in percent of what they take: never worth it.
pub const DENSE_PERCENT: u64 = 90;
/// Bytes of one extent's move in a batch, roughly: a delete, two halves, the new one, two counters.
const BYTES_PER_EXTENT: u64 = 512;

/// How much of an object is alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectUse {
    /// Which object.
    pub object: ObjectId,
    /// Bytes of files that lie in it.
    pub live_bytes: u64,
    /// Bytes that it takes on all disks together.
    pub disk_bytes: u64,
}

/// How much reclaiming is called for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Room {
    /// Bytes that users can still write.
    pub available_bytes: u64,
    /// Bytes that users could write to an empty pool.
    pub total_bytes: u64,
    /// Bytes of files that were overwritten or deleted since the pool was opened, and what small objects
    /// written since then take beyond the same bytes in full ones; grows only.
    pub loose_bytes: u64,
    /// Callers that would be refused for want of room: the last one's number. Answered by `answer`.
    pub wanted: u64,
    /// The pool takes no changes any more, or is being closed.
    pub ended: bool,
}

/// Some objects being compacted.
pub struct Compaction {
    moves: Vec<Move>,
    written: Vec<Arc<Written>>,
    at: MoveCursor,
    /// The victims stay as they are until the copy is named.
    pinned: Vec<Arc<Located>>,
    moved_bytes: u64,
}

/// What one compaction came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compacted {
    /// Bytes of files that were moved.
    pub moved_bytes: u64,
    /// Victims that are gone.
    pub objects: usize,
    /// The batch with which their space is free.
    pub lsn: Lsn,
}

/// Bytes of a file that are alive in a victim.
pub(super) struct Source {
    pub(super) ino: Ino,
    pub(super) offset: u64,
    pub(super) length: u64,
    /// Its number among the pinned.
    pub(super) victim: usize,
    pub(super) victim_offset: u32,
}

/// Bytes of a file, where they were and where they are now.
struct Move {
    ino: Ino,
    range: Range<u64>,
    from: ObjectId,
    from_offset: u32,
    to: Arc<Written>,
    to_offset: u32,
}

#[derive(Clone, Copy, Default)]
struct MoveCursor {
    index: usize,
    /// Where in the file the current move goes on.
    offset: u64,
}

/// A stretch of extents that goes to one place.
struct Run<'a> {
    ino: Ino,
    range: Range<u64>,
    to: &'a Arc<Written>,
    to_offset: u32,
}

impl Compaction {
    /// How many objects are moved.
    pub fn objects(&self) -> usize {
        self.pinned.len()
    }
}

impl super::Namespace {
    /// Notified when room is wanted, or something is to be looked at again.
    pub fn reclaim_event(&self) -> Arc<Event> {
        self.core.reclaim_event.clone()
    }

    /// From now on somebody answers those who want room.
    pub fn will_reclaim(&self) {
        self.core.state.lock().reclaims = true;
    }

    /// How much reclaiming is called for.
    pub fn room(&self) -> Room {
        let statfs = self.core.statfs();
        let state = self.core.state.lock();
        Room {
            available_bytes: statfs.available_bytes,
            total_bytes: statfs.total_bytes,
            loose_bytes: state.loose_bytes,
            wanted: state.room_wanted,
            ended: state.check_writable().is_err() || state.stopping,
        }
    }

    /// Whoever wanted room up to this number has what there is.
    pub fn answer(&self, wanted: u64) {
        let mut state = self.core.state.lock();
        state.room_answered = state.room_answered.max(wanted);
        drop(state);
        self.core.committed.notify();
    }

    /// Bytes on all disks together that so many bytes of files take in full objects.
    pub fn disk_bytes(&self, bytes: u64) -> u64 {
        self.core.full_bytes(bytes)
    }

    /// Bytes on all disks together that are not free.
    pub fn taken_bytes(&self) -> u64 {
        let rooms = self.core.members.all().into_iter();
        let rooms = rooms.filter_map(|member| self.core.space.room(member.index));
        rooms.map(|room| room.total.bytes() - room.free.bytes()).sum()
    }

    /// Bytes of files that one compaction should move.
    pub fn compaction_bytes(&self) -> u64 {
        RECLAIM_BYTES.min(super::pack::OBJECTS_AT_ONCE as u64 * self.core.object_capacity())
    }

    /// The next objects from `from` on, in the order of their numbers; and where to go on.
    pub fn survey(
        &self,
        from: ObjectId,
    ) -> Result<(Vec<ObjectUse>, Option<ObjectId>), NamespaceError> {
        self.core.look(|tx| tx.survey(from))
    }

    /// Steps 1 and 2. None if that would not free at least `gain_percent` of what the victims take.
    pub fn begin_compaction(
        &self,
        victims: &[ObjectId],
        gain_percent: u64,
    ) -> Result<Option<Compaction>, NamespaceError> {
        self.core.begin_compaction(victims, Some(gain_percent))
    }

    /// Steps 1 and 2, for what is to be written again though it frees nothing: with the geometry that fits
    /// the disks at hand now [R12]. None if nothing of it is alive, or can be moved.
    pub fn begin_rewrite(
        &self,
        victims: &[ObjectId],
    ) -> Result<Option<Compaction>, NamespaceError> {
        let begun = self.core.begin_compaction(victims, None)?;
        Ok(begun.filter(|compaction| !compaction.pinned.is_empty()))
    }

    /// One transaction of step 3. False if there is more to do; it looks for room in the open batch, in
    /// the index, and in users' part of the log [R10], and does nothing while there is none: nobody waits
    /// for it but users, and what it logs has no bound.
    pub fn go_on(&self, compaction: &mut Compaction) -> Result<bool, NamespaceError> {
        if !self.core.has_room() {
            self.core.checkpoint_event.notify();
            return Ok(false);
        }
        let share = (self.core.share_bytes() / BYTES_PER_EXTENT) as usize;
        let budget = EXTENTS_PER_TRANSACTION.min(share).max(1);
        let (moves, at) = (&compaction.moves, compaction.at);
        let (at, bytes) = self.core.change_inside(|tx| tx.move_extents(moves, at, budget))?;
        compaction.at = at;
        compaction.moved_bytes += bytes;
        Ok(at.index == moves.len())
    }

    /// Lets go of the victims; says when what was freed is free.
    pub fn end_compaction(&self, compaction: Compaction) -> Result<Compacted, NamespaceError> {
        let Compaction { moves, written, pinned, moved_bytes, .. } = compaction;
        drop((moves, written));
        self.core.free_spent()?;
        let gone = |object| self.core.look(|tx| Ok(tx.get(&Key::object(object))?.is_none()));
        let mut objects = 0;
        for victim in &pinned {
            objects += usize::from(gone(victim.record.id)?);
        }
        drop(pinned);
        let lsn = self.core.want_commit(&mut self.core.state.lock());
        Ok(Compacted { moved_bytes, objects, lsn })
    }
}

impl Core {
    /// Whoever is about to be refused asks for more room first [I7]: waits until `enough`, or until
    /// everything that is to be had was freed.
    pub(super) fn want_room(&self, enough: &dyn Fn() -> bool) {
        let wanted = {
            let mut state = self.state.lock();
            if !state.reclaims || state.stopping {
                return;
            }
            state.room_wanted += 1;
            state.room_wanted
        };
        self.reclaim_event.notify();
        self.wait.until(&self.committed, None, &mut || {
            {
                let state = self.state.lock();
                let answered = state.room_answered >= wanted;
                if answered || state.stopping || state.check_writable().is_err() {
                    return true;
                }
            }
            enough()
        });
    }

    /// Bytes on all disks together that so many bytes of files take in full objects.
    fn full_bytes(&self, bytes: u64) -> u64 {
        bytes * self.redundancy.shards() as u64 / self.redundancy.data_shards() as u64
    }

    /// Bytes of files that reclaim could make room for where so many were written into this object: none,
    /// if it is about as dense as a full one.
    pub(super) fn loose_bytes(&self, bytes: u64, record: &ObjectRecord) -> u64 {
        let (taken, full) = (disk_bytes(record), self.full_bytes(bytes));
        if full * 100 > taken * DENSE_PERCENT {
            return 0;
        }
        (taken - full) * self.redundancy.data_shards() as u64 / self.redundancy.shards() as u64
    }

    fn begin_compaction(
        &self,
        victims: &[ObjectId],
        gain_percent: Option<u64>,
    ) -> Result<Option<Compaction>, NamespaceError> {
        let begun = self.copy_live(victims, gain_percent);
        if !matches!(begun, Ok(Some(_))) {
            // What was written is not named, and never will be.
            self.free_spent()?;
        }
        begun
    }

    /// Steps 1 and 2.
    fn copy_live(
        &self,
        victims: &[ObjectId],
        gain_percent: Option<u64>,
    ) -> Result<Option<Compaction>, NamespaceError> {
        let mut pinned: Vec<Arc<Located>> = Vec::new();
        let mut sources: Vec<Source> = Vec::new();
        for &victim in victims {
            let Some(located) = self.look(|tx| tx.victim(victim))? else { continue };
            let found = sources.len();
            match self.find_live(&located, pinned.len(), &mut sources) {
                Ok(()) if sources.len() == found => {
                    self.change_inside(|tx| tx.free_if_dead(victim))?;
                    pinned.push(located);
                }
                Ok(()) => pinned.push(located),
                Err(error) if is_of_the_object(&error) => {
                    log::debug!("object {victim} is not compacted: {error}");
                    sources.truncate(found);
                }
                Err(error) => return Err(error),
            }
        }
        self.copy(pinned, sources, gain_percent)
    }

    /// Step 2.
    pub(super) fn copy(
        &self,
        pinned: Vec<Arc<Located>>,
        mut sources: Vec<Source>,
        gain_percent: Option<u64>,
    ) -> Result<Option<Compaction>, NamespaceError> {
        let before: u64 = pinned.iter().map(|victim| disk_bytes(&victim.record)).sum();
        let gains = |after| {
            let enough = |percent| after == 0 || after + before * percent / 100 <= before;
            gain_percent.is_none_or(enough)
        };
        if !gains(self.disk_bytes_of(&sources)) {
            return Ok(None);
        }
        let parts = in_order(self.read_sources(&pinned, &mut sources)?);
        let mut compaction = Compaction {
            moves: Vec::new(),
            written: Vec::new(),
            at: MoveCursor::default(),
            pinned,
            moved_bytes: 0,
        };
        self.write_parts(parts, Class::Background, &mut |packed, object| {
            compaction.note(packed, &object, &sources);
            compaction.written.push(object);
        })?;
        // Where free space is in splinters, headers take what was to be gained: no pass would ever end.
        let copies = compaction.written.iter();
        let after = copies.map(|copy| disk_bytes(copy.record())).sum();
        Ok(gains(after).then_some(compaction))
    }

    /// Bytes on all disks together that these will take: packed as they will be, since what small files
    /// lose to alignment is not room that could be had.
    fn disk_bytes_of(&self, sources: &[Source]) -> u64 {
        let nothing = Arc::new(Chunk::from(Vec::new()));
        let parts = sources.iter().map(|source| {
            let Source { ino, offset, length, .. } = *source;
            let bytes = Bytes { chunk: nothing.clone(), start: 0 };
            Part { owner: 0, ino, offset, bytes, length }
        });
        let parts = in_order(parts.collect());
        let mut packer = Packer::new(parts.into_iter(), self.object_capacity());
        let mut bytes = 0;
        loop {
            let group = packer.next_group();
            if group.is_empty() {
                return bytes;
            }
            for packed in &group {
                let (redundancy, shard_bytes) =
                    self.objects.geometry_for(packed.object_bytes(), SHARD_BYTES);
                bytes += redundancy.shards() as u64 * (u64::from(shard_bytes) + UNIT_BYTES);
            }
        }
    }

    /// Step 1 for one victim.
    fn find_live(
        &self,
        victim: &Located,
        number: usize,
        sources: &mut Vec<Source>,
    ) -> Result<(), NamespaceError> {
        let record = &victim.record;
        let lists = IndexLists { core: self };
        let range = record.pieces_offset..record.length;
        let bytes = self.objects.read(record, &lists, range, Class::Background)?;
        let pieces = decode(decode_pieces(record, &bytes))?;
        let before = sources.len();
        for piece in pieces {
            self.each_live(record.id, &piece, &mut |source| {
                sources.push(Source { victim: number, ..source });
            })?;
        }
        // Else it would stay, and be read again and again: `check` says what is wrong with it, if it
        // is not just that somebody was faster.
        let alive: u64 = sources[before..].iter().map(|source| source.length).sum();
        let counted = self.look(|tx| tx.counter(&Key::live(record.id)))?;
        if i64::try_from(alive) != Ok(counted) {
            log::debug!("object {}: {alive} bytes found alive, {counted} counted", record.id);
            return Err(damaged());
        }
        Ok(())
    }

    /// All that is alive of a piece.
    fn each_live(
        &self,
        object: ObjectId,
        piece: &Piece,
        take: &mut dyn FnMut(Source),
    ) -> Result<(), NamespaceError> {
        let mut from = Some(piece.file_offset);
        while let Some(at) = from {
            let (found, rest) = self.look(|tx| tx.live_of(object, piece, at))?;
            found.into_iter().for_each(&mut *take);
            from = rest;
        }
        Ok(())
    }

    /// How many bytes of a piece are alive.
    pub(super) fn alive_of(&self, object: ObjectId, piece: &Piece) -> Result<u64, NamespaceError> {
        let mut alive = 0;
        self.each_live(object, piece, &mut |source| alive += source.length)?;
        Ok(alive)
    }

    /// Reads what is alive; memory for exactly that is kept. Victims that cannot be read stay.
    fn read_sources(
        &self,
        victims: &[Arc<Located>],
        sources: &mut [Source],
    ) -> Result<Vec<Part>, NamespaceError> {
        sources.sort_by_key(|source| (source.victim, source.victim_offset));
        let mut parts = Vec::with_capacity(sources.len());
        let mut number = 0;
        while number < sources.len() {
            let victim = sources[number].victim;
            let of_one = sources[number..].iter().take_while(|source| source.victim == victim);
            let end = number + of_one.count();
            match self.read_victim(&victims[victim].record, &sources[number..end]) {
                Ok(vector) => {
                    let (chunk, mut start) = (Arc::new(Chunk::from(vector)), 0);
                    for (at, source) in sources[number..end].iter().enumerate() {
                        let bytes = Bytes { chunk: chunk.clone(), start };
                        let (ino, offset, length) = (source.ino, source.offset, source.length);
                        parts.push(Part { owner: number + at, ino, offset, bytes, length });
                        start += length as usize;
                    }
                }
                Err(error) if is_of_the_object(&error) => {
                    log::debug!("an object is not compacted: {error}");
                }
                Err(error) => return Err(error),
            }
            number = end;
        }
        Ok(parts)
    }

    /// The bytes of all sources, one after the other.
    fn read_victim(
        &self,
        record: &ObjectRecord,
        sources: &[Source],
    ) -> Result<Vec<u8>, NamespaceError> {
        let lists = IndexLists { core: self };
        let total: u64 = sources.iter().map(|source| source.length).sum();
        let mut vector = Vec::with_capacity(total as usize);
        let mut next = 0;
        while next < sources.len() {
            let span = span_of(&sources[next..]);
            let bytes = self.objects.read(record, &lists, span.clone(), Class::Background)?;
            while next < sources.len() && sources[next].end() <= span.end {
                let source = &sources[next];
                let start = (source.victim_offset - span.start) as usize;
                vector.extend_from_slice(&bytes[start..start + source.length as usize]);
                next += 1;
            }
        }
        Ok(vector)
    }
}

/// Sorted by file and offset. A list of owners is an input like any other: no byte is moved twice.
fn in_order(mut parts: Vec<Part>) -> Vec<Part> {
    parts.sort_by_key(|part| (part.ino, part.offset));
    let mut last = (Ino(0), 0);
    parts.retain(|part| {
        let fresh = last.0 != part.ino || part.offset >= last.1;
        last = if fresh { (part.ino, part.offset + part.length) } else { last };
        fresh
    });
    parts
}

impl Source {
    /// Its end in the victim.
    fn end(&self) -> u32 {
        self.victim_offset + self.length as u32
    }
}

/// What is read at once, beginning with the first source.
fn span_of(sources: &[Source]) -> Range<u32> {
    let (start, mut end) = (sources[0].victim_offset, sources[0].end());
    for source in &sources[1..] {
        let near = source.victim_offset <= end.saturating_add(GAP_BYTES);
        if !near || source.end().max(end) - start > SPAN_BYTES {
            break;
        }
        end = source.end().max(end);
    }
    start..end
}

/// Bytes of an object on all disks together.
pub(super) fn disk_bytes(record: &ObjectRecord) -> u64 {
    record.places.iter().flatten().count() as u64 * record.shard_units().bytes()
}

/// This object cannot be compacted; others can.
fn is_of_the_object(error: &NamespaceError) -> bool {
    matches!(
        error,
        NamespaceError::Io(
            FleetError::Unreadable { .. } | FleetError::Deleted { .. } | FleetError::Damaged { .. }
        )
    )
}

impl Compaction {
    /// Notes where the parts of a packed object went.
    fn note(&mut self, packed: &Packed, object: &Arc<Written>, sources: &[Source]) {
        for (start, part) in &packed.parts {
            let source = &sources[part.owner];
            self.moves.push(Move {
                ino: part.ino,
                range: part.offset..part.offset + part.length,
                from: self.pinned[source.victim].record.id,
                from_offset: source.victim_offset + (part.offset - source.offset) as u32,
                to: object.clone(),
                to_offset: *start as u32,
            });
        }
    }
}

impl<'a> Run<'a> {
    /// The part `range` of a move.
    fn of(step: &'a Move, range: Range<u64>) -> Run<'a> {
        let to_offset = step.to_offset + (range.start - step.range.start) as u32;
        Run { ino: step.ino, range, to: &step.to, to_offset }
    }

    /// Makes this run longer, if the other one continues it.
    fn join(&mut self, other: &Run<'_>) -> bool {
        let length = self.range.end - self.range.start;
        let joins = self.ino == other.ino
            && self.range.end == other.range.start
            && Arc::ptr_eq(self.to, other.to)
            && u64::from(self.to_offset) + length == u64::from(other.to_offset);
        if joins {
            self.range.end = other.range.end;
        }
        joins
    }
}

impl Tx<'_> {
    /// The next objects, and where to go on.
    fn survey(&mut self, from: ObjectId) -> Attempt<(Vec<ObjectUse>, Option<ObjectId>)> {
        let end = Key::object(ObjectId(u64::MAX));
        let (entries, more) = self.scan_on(&Key::object(from), &end, SURVEY_OBJECTS)?;
        let mut found = Vec::with_capacity(entries.len());
        for (_, value) in &entries {
            let record = decode(ObjectRecord::decode(value))?;
            found.push(ObjectUse {
                object: record.id,
                live_bytes: 0,
                disk_bytes: disk_bytes(&record),
            });
        }
        let Some(last) = found.last().map(|found| found.object) else { return Ok((found, None)) };
        let next = ObjectId(last.0.saturating_add(1));
        let (live, _) = self.scan_on(&Key::live(from), &Key::live(next), 4 * SURVEY_OBJECTS)?;
        let mut live = live.iter().peekable();
        for entry in &mut found {
            while let Some((key, value)) = live.peek() {
                let KeyView::Live(object) = decode(KeyView::decode(key))? else { break };
                if object > entry.object {
                    break;
                }
                if object == entry.object {
                    let bytes = value.as_slice().try_into().map_or(0, i64::from_le_bytes);
                    entry.live_bytes = bytes.max(0) as u64;
                }
                live.next();
            }
        }
        found.retain(|entry| !self.state.in_flush.contains(&entry.object));
        Ok((found, more.then_some(next)))
    }

    /// The record of an object that may be compacted, pinned: nobody in memory counts on it.
    pub(super) fn victim(&mut self, object: ObjectId) -> Attempt<Option<Arc<Located>>> {
        if self.state.in_flush.contains(&object) || self.get(&Key::object(object))?.is_none() {
            return Ok(None);
        }
        Ok(Some(self.locate(object, &[])?))
    }

    /// What is alive of a piece from `at` on, and where to go on. The victim's number is left open.
    fn live_of(
        &mut self,
        object: ObjectId,
        piece: &Piece,
        at: u64,
    ) -> Attempt<(Vec<Source>, Option<u64>)> {
        let end = piece.file_offset.saturating_add(u64::from(piece.length));
        let (extents, rest) = self.extents(piece.ino, at..end, EXTENTS_PER_TRANSACTION)?;
        let mut found = Vec::new();
        for (offset, extent) in extents {
            if extent.object != object || extent.unwritten {
                continue;
            }
            let begin = offset.max(at);
            let stop = offset.saturating_add(extent.length).min(end);
            let victim_offset = extent.object_offset + (begin - offset) as u32;
            // The piece says so too: else these are other bytes of the same object.
            let told = u64::from(piece.object_offset) + (begin - piece.file_offset);
            if told == u64::from(victim_offset) {
                let (ino, length) = (piece.ino, stop - begin);
                found.push(Source { ino, offset: begin, length, victim: 0, victim_offset });
            }
        }
        // Where the last one found goes on, it was looked at already.
        let seen = found.last().map(|source| source.offset + source.length);
        let rest = rest.map(|rest| seen.map_or(rest, |seen| rest.max(seen)));
        Ok((found, rest.filter(|&rest| rest < end)))
    }

    /// Points extents at the copies of their bytes, some of them; returns where to go on, and the bytes.
    fn move_extents(
        &mut self,
        moves: &[Move],
        mut at: MoveCursor,
        mut budget: usize,
    ) -> Attempt<(MoveCursor, u64)> {
        let mut runs: Vec<Run<'_>> = Vec::new();
        while at.index < moves.len() && budget > 0 {
            let step = &moves[at.index];
            let begin = step.range.start.max(at.offset);
            let (extents, rest) = self.extents(step.ino, begin..step.range.end, budget)?;
            budget = budget.saturating_sub(extents.len() + 1);
            for (offset, extent) in extents {
                let start = offset.max(begin);
                let end = offset.saturating_add(extent.length).min(step.range.end);
                let found = u64::from(extent.object_offset) + (start - offset);
                let expected = u64::from(step.from_offset) + (start - step.range.start);
                // [R20] Whatever was written or deleted meanwhile stands.
                let same = extent.object == step.from && found == expected;
                let moves = same || canary::planted(Bug::MovedUnseen);
                if extent.unwritten || !moves {
                    continue;
                }
                let run = Run::of(step, start..end);
                if !runs.last_mut().is_some_and(|last| last.join(&run)) {
                    runs.push(run);
                }
            }
            match rest {
                // What begins before `rest` is being moved: it is seen moved by the next transaction.
                Some(rest) => (at.offset, budget) = (rest, 0),
                None => at = MoveCursor { index: at.index + 1, offset: 0 },
            }
        }
        let mut bytes = 0;
        for Run { ino, range, to, to_offset } in runs {
            let length = range.end - range.start;
            let limit = 2 * EXTENTS_PER_TRANSACTION;
            let replaced = self.remove_extents(ino, range.clone(), None, limit)?;
            if replaced.rest.is_some() || replaced.removed_bytes != length {
                log::error!("extents of inode {ino} at {} overlap each other", range.start);
                return Err(damaged().into());
            }
            self.place_extent(ino, range.start, length, to, to_offset);
            bytes += length;
        }
        self.effect(Effect::Moved(bytes));
        Ok((at, bytes))
    }
}

const _: () = assert!(RECLAIM_BYTES >= 62 * MIB, "an object of any geometry can be compacted");
