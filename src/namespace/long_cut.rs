//! Long cuts: those that take several transactions, so that power may be lost between them [R19, I1].
//!
//! 1. *Noted*: the steps of the cut (ranges that become holes, or ranges of objects) are put into the
//!    index, in as many parts as it takes. They mean nothing yet.
//! 2. *Decided*, in one transaction: the inode's orphan entry names the cut, its record is as of the cut's
//!    point, the objects are named, and what the log said of these ranges is void.
//! 3. *Carried out*: old extents leave and new ones come, some at a time. In memory the overlay still
//!    covers all of it.
//! 4. With the last of them, the entry and the parts leave.
//!
//! A crash before 2: the file is as before, and the parts are dropped. After it: recovery carries out all
//! steps, those done already once more; they are what they were. So the file is as of the cut's point, or
//! as before it.
//!
//! No inline cut comes between: from 1 to 4 whoever wants one waits for the flush. If an error ends the
//! flush, the next one of the file goes on where it was.

use std::ops::Range;

use super::cut::{EXTENTS_PER_TRANSACTION, FlushInode, Step, steps_of};
use super::overlay::{After, Content};
use super::recover::Recovery;
use super::tx::{Attempt, Effect, Tx, decode};
use super::written::Written;
use super::{core::Core, error::NamespaceError};
use crate::base::sync::Arc;
use crate::base::{Ino, ObjectId};
use crate::format::{
    CUT_STEPS_MAX, CutStep, InodeRecord, Key, KeyView, Orphan, decode_cut_steps, encode_cut_steps,
};

/// Parts noted in one transaction.
const PARTS_PER_TRANSACTION: usize = 2;
/// How the names of the parts begin, and of the objects that are named and have no live byte yet.
const PART: &[u8] = b"cut";
const SPENT: &[u8] = b"spent";

/// A long cut, as it was when it began.
pub(super) struct LongCut {
    point: u64,
    after: Option<After>,
    /// Tells this cut from others of the file.
    number: u64,
    steps: Vec<CutStep>,
    /// Kept alive until all steps are done.
    objects: Vec<Arc<Written>>,
    /// What the log may have said, and whether it has.
    ranges: Vec<(Range<u64>, bool)>,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// So many parts are noted.
    Noting(usize),
    CarryingOut(StepCursor),
}

/// The step to do next, and where the removal of old extents below it goes on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct StepCursor {
    step: usize,
    rest: Option<u64>,
}

/// A long cut under way.
#[derive(Clone)]
pub(super) struct LongWork {
    cut: Arc<LongCut>,
    phase: Phase,
}

impl LongCut {
    fn new(inode: &FlushInode, number: u64) -> LongCut {
        let steps = steps_of(inode);
        let step = |step: &Step<'_>| match step {
            Step::Hole(range) => {
                CutStep { offset: range.start, length: range.end - range.start, place: None }
            }
            Step::Place(placed) => CutStep {
                offset: placed.offset,
                length: placed.length,
                place: Some((placed.object.record().id, placed.object_offset)),
            },
        };
        let mut objects: Vec<Arc<Written>> = Vec::new();
        for placed in &inode.placed {
            if objects.last().is_none_or(|last| !Arc::ptr_eq(last, &placed.object)) {
                objects.push(placed.object.clone());
            }
        }
        let in_log = |content: &Content| match content {
            Content::Data { logged, .. } | Content::Stored { logged, .. } => logged.is_some(),
            Content::Hole => true,
        };
        let ranges = inode.pieces.iter();
        let ranges = ranges.map(|(at, piece)| (*at..*at + piece.length, in_log(&piece.content)));
        LongCut {
            point: inode.point,
            after: inode.after,
            number,
            steps: steps.iter().map(step).collect(),
            objects,
            ranges: ranges.collect(),
        }
    }

    fn parts(&self) -> usize {
        self.steps.len().div_ceil(CUT_STEPS_MAX)
    }
}

fn part_key(ino: Ino, number: u64, part: usize) -> Key {
    let part = (part as u32).to_be_bytes();
    Key::meta(&[PART, &ino.0.to_be_bytes(), &number.to_be_bytes(), &part].concat())
}

/// The file and the number of the cut that a key is a part of.
pub(super) fn part_of(key: &[u8]) -> Option<(Ino, u64)> {
    let Ok(KeyView::Meta(name)) = KeyView::decode(key) else { return None };
    let numbers = name.strip_prefix(PART).filter(|numbers| numbers.len() == 20)?;
    let number = |at: usize| numbers[at..at + 8].try_into().map(u64::from_be_bytes).ok();
    Some((Ino(number(0)?), number(8)?))
}

fn spent_key(object: ObjectId) -> Key {
    Key::meta(&[SPENT, &object.0.to_be_bytes()].concat())
}

/// The object that a key says may be without a live byte.
pub(super) fn spent_of(key: &[u8]) -> Option<ObjectId> {
    let Ok(KeyView::Meta(name)) = KeyView::decode(key) else { return None };
    let number = name.strip_prefix(SPENT)?.try_into().ok()?;
    Some(ObjectId(u64::from_be_bytes(number)))
}

impl Tx<'_> {
    /// Whether the whole cut fits what is left of the budget.
    pub(super) fn fits(&self, inode: &FlushInode, budget: usize) -> Attempt<bool> {
        let steps = steps_of(inode);
        let Some(mut left) = budget.checked_sub(steps.len()) else { return Ok(false) };
        for step in &steps {
            let range = match step {
                Step::Hole(range) => range.clone(),
                Step::Place(placed) => placed.offset..placed.offset + placed.length,
            };
            let (extents, rest) = self.extents(inode.ino, range, left + 1)?;
            match left.checked_sub(extents.len()) {
                Some(less) if rest.is_none() => left = less,
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// A cut that takes several transactions begins: nobody overtakes it from now on.
    pub(super) fn begin_long_cut(&mut self, inode: &FlushInode) -> Attempt<()> {
        let cut = Arc::new(LongCut::new(inode, self.lsn().0));
        self.note_parts(inode.ino, cut, 0);
        Ok(())
    }

    pub(super) fn has_long_cut(&self, ino: Ino) -> bool {
        self.state.inodes.get(&ino).is_some_and(|inode| inode.long_work.is_some())
    }

    /// Step 1.
    fn note_parts(&mut self, ino: Ino, cut: Arc<LongCut>, noted: usize) {
        let parts = cut.steps.chunks(CUT_STEPS_MAX).enumerate().skip(noted);
        for (part, steps) in parts.take(PARTS_PER_TRANSACTION) {
            self.put(part_key(ino, cut.number, part), encode_cut_steps(steps));
        }
        let noted = (noted + PARTS_PER_TRANSACTION).min(cut.parts());
        let work = LongWork { cut, phase: Phase::Noting(noted) };
        self.effect(Effect::LongWork { ino, work });
    }

    /// One transaction's worth of a long cut. The point of the file's history that is in the index now,
    /// if that was the last of it.
    pub(super) fn go_on_with_long_cut(&mut self, ino: Ino) -> Attempt<Option<u64>> {
        let work = self.state.inodes.get(&ino).and_then(|inode| inode.long_work.clone());
        let LongWork { cut, phase } = work.expect("the caller has seen it");
        match phase {
            Phase::Noting(noted) if noted < cut.parts() => self.note_parts(ino, cut, noted),
            Phase::Noting(_) => self.decide(ino, cut)?,
            Phase::CarryingOut(cursor) => return self.carry_out(ino, cut, cursor),
        }
        Ok(None)
    }

    /// Step 2.
    fn decide(&mut self, ino: Ino, cut: Arc<LongCut>) -> Attempt<()> {
        let seen = self.inode(ino)?;
        if seen.links > 0 {
            // Without a name it is deleted after a crash, whatever it holds.
            self.put(Key::orphan(ino), Orphan::Cut { number: cut.number }.encode());
        }
        for object in &cut.objects {
            if !object.is_named() {
                self.name_object(object);
                self.put(spent_key(object.record().id), Vec::new());
            }
        }
        for (range, in_log) in &cut.ranges {
            if *in_log || self.was_logged(ino) {
                self.settled(ino, range.clone());
            }
        }
        let record = self.as_of(ino, cut.point, cut.after, &seen)?;
        self.put_older_inode(ino, &record, seen);
        let work = LongWork { cut, phase: Phase::CarryingOut(StepCursor::default()) };
        self.effect(Effect::LongWork { ino, work });
        Ok(())
    }

    /// Steps 3 and 4.
    fn carry_out(
        &mut self,
        ino: Ino,
        cut: Arc<LongCut>,
        mut cursor: StepCursor,
    ) -> Attempt<Option<u64>> {
        let mut record = self.indexed_inode(ino)?;
        self.do_steps(ino, &cut.steps, &mut cursor, &mut record)?;
        let mut seen = self.inode(ino)?;
        seen.allocated = record.allocated;
        if cursor.step < cut.steps.len() {
            self.put_older_inode(ino, &record, seen);
            let work = LongWork { cut, phase: Phase::CarryingOut(cursor) };
            self.effect(Effect::LongWork { ino, work });
            return Ok(None);
        }
        // Attributes that changed meanwhile, and nothing else did: they are of this cut.
        let point = cut.point;
        let newer = self.state.inodes.get(&ino).is_some_and(|inode| inode.overlay.seq() > point);
        self.put_inode(ino, if newer { &record } else { &seen });
        self.drop_long_cut(ino)?;
        self.effect(Effect::FlushCut { ino, point, record: Box::new(seen) });
        Ok(Some(point))
    }

    /// As many steps as one transaction may hold.
    fn do_steps(
        &mut self,
        ino: Ino,
        steps: &[CutStep],
        cursor: &mut StepCursor,
        record: &mut InodeRecord,
    ) -> Attempt<()> {
        let mut budget = EXTENTS_PER_TRANSACTION;
        while let Some(step) = steps.get(cursor.step)
            && budget > 0
        {
            let range = step.offset..step.offset + step.length;
            let replaced = self.remove_extents(ino, range, cursor.rest, budget)?;
            record.allocated = record.allocated.saturating_sub(replaced.removed_bytes);
            cursor.rest = replaced.rest;
            if cursor.rest.is_some() {
                return Ok(());
            }
            budget = budget.saturating_sub(replaced.extents + 1);
            if let Some((object, object_offset)) = step.place {
                self.place_in(ino, step.offset, step.length, object, object_offset);
                record.allocated += step.length;
            }
            cursor.step += 1;
        }
        Ok(())
    }

    /// What was noted of a long cut of this file leaves, if there is one.
    pub(super) fn drop_long_cut(&mut self, ino: Ino) -> Attempt<()> {
        let work = self.state.inodes.get(&ino).and_then(|inode| inode.long_work.clone());
        let Some(LongWork { cut, .. }) = work else { return Ok(()) };
        for part in 0..cut.parts() {
            self.delete(part_key(ino, cut.number, part));
        }
        if self.decided_cut(ino)? == Some(cut.number) {
            self.delete(Key::orphan(ino));
        }
        Ok(())
    }

    /// The cut of this file that is to be carried out, whatever happens.
    fn decided_cut(&self, ino: Ino) -> Attempt<Option<u64>> {
        let Some(value) = self.get(&Key::orphan(ino))? else { return Ok(None) };
        Ok(match decode(Orphan::decode(&value))? {
            Orphan::Cut { number } => Some(number),
            Orphan::Unlinked | Orphan::Truncated { .. } => None,
        })
    }

    /// The object has no live byte, and somebody still counts on it: if power is lost before he lets go of
    /// it, recovery looks after it.
    pub(super) fn note_spent(&mut self, object: ObjectId) {
        self.put(spent_key(object), Vec::new());
    }

    /// Nobody counts on the object any more but the index.
    pub(super) fn settle_spent(&mut self, object: ObjectId) -> Attempt<()> {
        if self.get(&spent_key(object))?.is_some() {
            self.delete(spent_key(object));
        }
        self.free_if_dead(object)
    }
}

impl Core {
    /// The entries of the index under names that begin like this.
    fn entries_like(&self, prefix: &[u8]) -> Result<Vec<(Key, Vec<u8>)>, NamespaceError> {
        let (start, end) = (Key::meta(prefix), Key::meta(&[prefix, &[u8::MAX; 24]].concat()));
        let (entries, _) = self.look(|tx| tx.scan_on(&start, &end, usize::MAX))?;
        Ok(entries.into_iter().map(|(key, value)| (Key::from_bytes(&key), value)).collect())
    }
}

impl Recovery {
    /// Long cuts that were decided are carried out, others forgotten; then objects that nobody will ever
    /// count on are freed.
    pub(super) fn finish_long_cuts(&self) -> Result<(), NamespaceError> {
        let core = &self.core;
        let parts = core.entries_like(PART)?;
        let mut objects: Vec<ObjectId> = Vec::new();
        for (key, value) in &parts {
            let Some((ino, number)) = part_of(key.as_bytes()) else { continue };
            let steps = decode(decode_cut_steps(value))?;
            let ids = steps.iter().filter_map(|step| Some(step.place?.0));
            core.state.lock().in_flush.extend(ids.clone());
            objects.extend(ids);
            let mut cursor = StepCursor::default();
            while cursor.step < steps.len() {
                cursor = core.change_inside(|tx| tx.redo(ino, number, &steps, cursor))?;
            }
            core.change_inside(|tx| {
                tx.delete(key.clone());
                Ok(())
            })?;
            core.commit_without_journal()?;
        }
        for (key, _) in &parts {
            let Some((ino, number)) = part_of(key.as_bytes()) else { continue };
            core.change_inside(|tx| {
                if tx.decided_cut(ino)? == Some(number) {
                    tx.delete(Key::orphan(ino));
                }
                Ok(())
            })?;
        }
        let mut state = core.state.lock();
        objects.iter().for_each(|object| {
            state.in_flush.remove(object);
        });
        drop(state);
        for (key, _) in core.entries_like(SPENT)? {
            if let Some(object) = spent_of(key.as_bytes()) {
                core.change_inside(|tx| tx.settle_spent(object))?;
            }
        }
        Ok(core.commit_without_journal()?)
    }
}

impl Tx<'_> {
    /// Steps of a cut that a crash came between. None of them if that was never decided, or the file is
    /// gone.
    fn redo(
        &mut self,
        ino: Ino,
        number: u64,
        steps: &[CutStep],
        mut cursor: StepCursor,
    ) -> Attempt<StepCursor> {
        if self.decided_cut(ino)? != Some(number) {
            return Ok(StepCursor { step: steps.len(), rest: None });
        }
        let mut record = self.indexed_inode(ino)?;
        self.do_steps(ino, steps, &mut cursor, &mut record)?;
        self.put_inode(ino, &record);
        Ok(cursor)
    }
}
