//! Cuts: how a file's content in memory becomes part of the history [R15].
//!
//! A cut commits one point of the file's own history: size, times and ranges as of one sequence number
//! of its overlay. There are two kinds.
//!
//! * An *inline cut* takes everything there is now. Bytes in memory go into the journal with the batch
//!   (they stay in memory, marked as logged, until a flush puts them into objects); bytes in objects and
//!   holes go into the index. It costs no I/O of its own, so it is what a small fsync does, and what
//!   a rename or link does to the data written before it [I2].
//! * A *flush cut* takes a point for which all bytes have been written into objects and flushed there
//!   [I3]. What came later stays in the overlay, above.
//!
//! A flush cut that is too much for one transaction is a *long cut* (`long_cut`).
//!
//! If an inline cut overtakes a running flush, the flush only hands over the ranges that still say what
//! it wrote: the newer record stands.
//!
//! After a crash between the objects' flush and the batch: the objects are named by nobody, their space
//! is free. After the batch is durable: the file is as of the cut, all of it.

use std::ops::Range;

use super::core::State;
use super::error::NamespaceError;
use super::overlay::{After, Content, OverlayPiece};
use super::tx::{Attempt, Effect, Stop, Tx};
use super::written::Written;
use crate::base::Ino;
use crate::base::canary::{self, Bug};
use crate::base::sync::Arc;
use crate::format::{Change, InodeRecord};

/// Extents of the index that one transaction touches at most: some 100 KiB of changes [R19].
pub(super) const EXTENTS_PER_TRANSACTION: usize = 1024;
/// Pieces that an inline cut takes at most, and extents of the index below all of them together [R19]; a
/// file with more is flushed instead.
const PIECES_INLINE_MAX: usize = 512;
const EXTENTS_INLINE_MAX: usize = 512;

/// A range of a file that a flush has written into an object.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) object: Arc<Written>,
    pub(super) object_offset: u32,
}

/// One file of a flush: a point of its history, and where its bytes went.
pub(super) struct FlushInode {
    pub(super) ino: Ino,
    pub(super) point: u64,
    pub(super) pieces: Vec<(u64, OverlayPiece)>,
    pub(super) after: Option<After>,
    pub(super) placed: Vec<Placed>,
}

/// One step of a flush cut.
pub(super) enum Step<'a> {
    Hole(Range<u64>),
    Place(&'a Placed),
}

impl Tx<'_> {
    /// Stages an inline cut of the file, if it has changes that are not in the log. If that would be
    /// more than `bytes_max`, it must be flushed first.
    pub(super) fn inline_cut(&mut self, ino: Ino, bytes_max: u64) -> Attempt<()> {
        let Some(inode) = self.state.inodes.get(&ino) else { return Ok(()) };
        if !inode.unlogged {
            return Ok(());
        }
        if inode.long_work.is_some() {
            return Err(Stop::Flush(ino));
        }
        let overlay = &inode.overlay;
        if overlay.unlogged_bytes() > bytes_max || overlay.len() > PIECES_INLINE_MAX {
            return Err(Stop::Flush(ino));
        }
        let pieces = overlay.snapshot(overlay.seq());
        let mut record = self.inode(ino)?;
        let mut budget = EXTENTS_INLINE_MAX;
        for (offset, piece) in pieces {
            let range = offset..offset + piece.length;
            match piece.content {
                Content::Data { logged: Some(_), .. } => {}
                Content::Data { bytes, logged: None } => {
                    let data = bytes.slice(piece.length).to_vec();
                    self.log(Change::Inline { ino, offset, data });
                }
                Content::Hole => {
                    self.take_out(ino, range.clone(), &mut record, &mut budget)?;
                    self.settled(ino, range);
                }
                Content::Stored { object, object_offset, .. } => {
                    self.take_out(ino, range.clone(), &mut record, &mut budget)?;
                    self.place_extent(ino, offset, piece.length, &object, object_offset);
                    record.allocated += piece.length;
                    // Even if this piece was never logged: what it overwrote may have been, and
                    // replay would put those older bytes above it.
                    self.settled(ino, range);
                }
            }
        }
        self.put_inode(ino, &record);
        self.effect(Effect::InlineCut(ino));
        Ok(())
    }

    fn take_out(
        &mut self,
        ino: Ino,
        range: Range<u64>,
        record: &mut InodeRecord,
        budget: &mut usize,
    ) -> Attempt<()> {
        let replaced = self.remove_extents(ino, range, None, (*budget).max(1))?;
        if replaced.rest.is_some() || replaced.extents > *budget {
            return Err(Stop::Flush(ino));
        }
        *budget -= replaced.extents;
        record.allocated = record.allocated.saturating_sub(replaced.removed_bytes);
        Ok(())
    }

    /// What the log said about this range of the file is void: the index knows.
    pub(super) fn settled(&mut self, ino: Ino, range: Range<u64>) {
        let length = range.end - range.start;
        if canary::planted(Bug::SettledForgotten) {
            return;
        }
        self.log(Change::Settled { ino, offset: range.start, length });
    }

    /// Stages as much of a flush's cut as one transaction may hold, from the inode `at` on; returns where
    /// to go on. An inode is cut in one transaction, or else as a long cut (`long_cut`): what a crash
    /// leaves is the file before or after.
    pub(super) fn flush_cut(&mut self, inodes: &[FlushInode], mut at: usize) -> Attempt<usize> {
        let mut budget = EXTENTS_PER_TRANSACTION;
        while at < inodes.len() && budget > 0 {
            let inode = &inodes[at];
            let is_fresh = budget == EXTENTS_PER_TRANSACTION;
            let record = match self.inode(inode.ino) {
                Ok(record) => record,
                // Deleted meanwhile: nothing to cut.
                Err(Stop::Error(NamespaceError::NotFound)) => {
                    at += 1;
                    continue;
                }
                Err(stop) => return Err(stop),
            };
            let state = self.state.inodes.get(&inode.ino);
            if self.has_long_cut(inode.ino) {
                if !is_fresh {
                    break;
                }
                // Of this flush, or of one before that an error ended.
                let done = self.go_on_with_long_cut(inode.ino)?;
                return Ok(if done.is_some_and(|done| done >= inode.point) { at + 1 } else { at });
            } else if state.is_some_and(|state| state.cut_seq > inode.point) {
                if !self.hand_over(inode, record, &mut budget)? {
                    break;
                }
            } else if self.fits(inode, budget)? {
                self.cut(inode, record, &mut budget)?;
            } else if is_fresh {
                self.begin_long_cut(inode)?;
                return Ok(at);
            } else {
                break;
            }
            at += 1;
        }
        Ok(at)
    }

    /// The cut of one inode, which fits the budget.
    fn cut(
        &mut self,
        inode: &FlushInode,
        mut record: InodeRecord,
        budget: &mut usize,
    ) -> Attempt<()> {
        for step in steps_of(inode) {
            let (range, placed) = match step {
                Step::Hole(range) => (range, None),
                Step::Place(placed) => (placed.offset..placed.offset + placed.length, Some(placed)),
            };
            // One more than it can be: so it is not asked to stop.
            let replaced = self.remove_extents(inode.ino, range, None, *budget + 1)?;
            assert!(replaced.rest.is_none(), "R19: a cut that fits is done in one transaction");
            record.allocated = record.allocated.saturating_sub(replaced.removed_bytes);
            *budget = budget.saturating_sub(replaced.extents + 1);
            if let Some(placed) = placed {
                let Placed { offset, length, object, object_offset } = placed;
                self.place_extent(inode.ino, *offset, *length, object, *object_offset);
                record.allocated += length;
            }
        }
        for (offset, piece) in &inode.pieces {
            let in_log = match &piece.content {
                Content::Data { logged, .. } | Content::Stored { logged, .. } => logged.is_some(),
                Content::Hole => true,
            };
            if in_log || self.was_logged(inode.ino) {
                self.settled(inode.ino, *offset..offset + piece.length);
            }
        }
        let as_of_point = self.as_of(inode.ino, inode.point, inode.after, &record)?;
        self.put_inode(inode.ino, &as_of_point);
        let (ino, point) = (inode.ino, inode.point);
        self.effect(Effect::FlushCut { ino, point, record: Box::new(record) });
        Ok(())
    }

    /// The record as of a point of the file's history; `seen` is the newest. Attributes that changed when
    /// everything up to the point was in the log went to the index at once: they stay as they are there.
    pub(super) fn as_of(
        &self,
        ino: Ino,
        point: u64,
        after: Option<After>,
        seen: &InodeRecord,
    ) -> Attempt<InodeRecord> {
        let mut record = seen.clone();
        match self.state.inodes.get(&ino).filter(|inode| inode.overlay.seq() > point) {
            None => {}
            Some(inode) if inode.cut_seq >= point => {
                record = InodeRecord { allocated: seen.allocated, ..self.indexed_inode(ino)? };
            }
            Some(_) => {
                if let Some(after) = after.filter(|_| !canary::planted(Bug::SizeBeforeData)) {
                    after.put_back(&mut record);
                }
            }
        }
        Ok(record)
    }

    /// Some bytes of this file are, or were since the last checkpoint, in the log.
    pub(super) fn was_logged(&self, ino: Ino) -> bool {
        self.state.inodes.get(&ino).is_some_and(|state| state.cut_seq > 0)
    }

    /// An inline cut was faster: only ranges that still say what this flush wrote are handed over. False
    /// if the budget did not suffice: the rest in a transaction of its own.
    fn hand_over(
        &mut self,
        inode: &FlushInode,
        mut record: InodeRecord,
        budget: &mut usize,
    ) -> Attempt<bool> {
        let current: Vec<(u64, OverlayPiece)> = match self.state.inodes.get(&inode.ino) {
            Some(state) => state.overlay.snapshot(inode.point),
            None => return Ok(true),
        };
        let (mut ranges, mut done) = (Vec::new(), true);
        for (offset, piece) in current {
            let Content::Stored { object, object_offset, .. } = &piece.content else { continue };
            let range = offset..offset + piece.length;
            if *budget == 0 {
                done = false;
                break;
            }
            // Readers do not see the gap, nor does a replay: what is below is logged or in the overlay.
            let replaced = self.remove_extents(inode.ino, range.clone(), None, *budget)?;
            *budget = budget.saturating_sub(replaced.extents + 1);
            record.allocated = record.allocated.saturating_sub(replaced.removed_bytes);
            if replaced.rest.is_some() {
                (done, *budget) = (false, 0);
                break;
            }
            self.place_extent(inode.ino, offset, piece.length, object, *object_offset);
            record.allocated += piece.length;
            self.settled(inode.ino, range.clone());
            ranges.push(range);
        }
        let unlogged = self.state.inodes.get(&inode.ino).is_some_and(|state| state.unlogged);
        let (ino, point, allocated) = (inode.ino, inode.point, record.allocated);
        if unlogged {
            // The record in memory is newer than the index: only the allocation goes along.
            let older = InodeRecord { allocated, ..self.indexed_inode(ino)? };
            self.put_older_inode(ino, &older, record);
        } else {
            self.put_inode(ino, &record);
        }
        self.effect(Effect::Handover { ino, point, ranges, allocated });
        Ok(done)
    }
}

pub(super) fn steps_of(inode: &FlushInode) -> Vec<Step<'_>> {
    let forgotten = canary::planted(Bug::HolesForgotten);
    let holes = inode.pieces.iter().filter(|(_, piece)| matches!(piece.content, Content::Hole));
    let holes = holes.filter(|_| !forgotten);
    let holes = holes.map(|(offset, piece)| Step::Hole(*offset..offset + piece.length));
    holes.chain(inode.placed.iter().map(Step::Place)).collect()
}

impl State {
    /// A flush's cut is in the open batch.
    pub(super) fn flush_cut_applied(&mut self, ino: Ino, point: u64, record: Box<InodeRecord>) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let dropped = canary::planted(Bug::NewerBytesDropped);
        let through = if dropped { inode.overlay.seq() } else { point };
        self.dirty_bytes -= inode.overlay.remove_through(through);
        inode.long_work = None;
        inode.settled = inode.settled.max(point);
        if inode.overlay.is_empty() && inode.overlay.seq() == point {
            inode.record = None;
            inode.unlogged = false;
            inode.cut_seq = 0;
        } else {
            inode.record = Some(record);
            inode.unlogged = inode.overlay.seq() > point.max(inode.cut_seq);
        }
        self.settle_dirty(ino);
    }

    /// Ranges that a flush wrote are in the index, and what an inline cut said stands otherwise.
    pub(super) fn handover_applied(
        &mut self,
        ino: Ino,
        point: u64,
        ranges: Vec<Range<u64>>,
        allocated: u64,
    ) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        if let Some(record) = &mut inode.record {
            record.allocated = allocated;
        }
        for range in ranges {
            self.dirty_bytes -= inode.overlay.remove_range(range, point);
        }
        if inode.overlay.is_empty() && !inode.unlogged {
            inode.record = None;
        }
        self.settle_dirty(ino);
    }
}
