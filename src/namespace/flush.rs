//! The flusher: dirty data becomes objects.
//!
//! 1. Under the lock: choose files, oldest first, and for each a point of its history. Mark them.
//! 2. Without the lock: pack their bytes, sorted by (directory, file, offset), into objects; write them,
//!    flush the disks they touched [I3]. After each object its ranges change from memory to object, and
//!    memory is given back.
//! 3. Under the lock: the cut (`cut`). Only now the index and the open batch know of it.
//!
//! A crash after 2 leaves objects that nothing names: their space is free, the data was not durable
//! before and is not now. A crash after 3 and before the batch is durable: the same.
//! Only full objects are written, into free space: no read-modify-write, no write hole.

use super::core::{Core, State};
use super::cut::{FlushInode, Placed};
use super::error::NamespaceError;
use super::overlay::{After, Content};
use super::pack::{Packed, Part};
use super::written::Written;
use crate::base::sync::Arc;
use crate::base::{Event, Ino, Lsn, MIB, Pace, Task, Ticks};
use crate::fleet::FleetError;
use crate::fleet::disk::Class;

/// Bytes of one flush: some objects, so that a stream keeps all disks busy and memory is given back
/// in time.
const FLUSH_BYTES: u64 = 64 * MIB;
/// Files and pieces of one flush; bounds its cut [R19].
const FLUSH_INODES_MAX: usize = 512;
const FLUSH_PIECES_MAX: usize = 4096;
/// Bytes of a cut per piece, roughly: an old extent's two halves, the new one, counters.
const CUT_BYTES_PER_PIECE: u64 = 256;
/// Dirty bytes at which flushing starts without waiting for age: a stream is being written.
pub(super) const FLUSH_EARLY_BYTES: u64 = 48 * MIB;
/// Pause after a flush that found no room or too few disks.
const RETRY: std::time::Duration = std::time::Duration::from_millis(500);

/// Pause while the open batch is full: the committer is at it.
const BATCH_FULL: std::time::Duration = std::time::Duration::from_millis(2);

/// Why a flush is made; decides its urgency.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Urgency {
    Caller,
    Background,
}

/// A flush in the making.
struct Flush {
    inodes: Vec<FlushInode>,
    urgency: Urgency,
}

impl Core {
    /// Writes all data that the file has now into objects, and cuts. For callers that wait.
    pub(super) fn flush_inode(&self, ino: Ino) -> Result<(), NamespaceError> {
        let goal = {
            let state = self.state.lock();
            match state.inodes.get(&ino) {
                Some(inode) => inode.overlay.seq(),
                None => return Ok(()),
            }
        };
        loop {
            self.wait_for_background_room();
            self.wait.until(&self.flushed, None, &mut || {
                let state = self.state.lock();
                state.inodes.get(&ino).is_none_or(|inode| !inode.flushing)
            });
            let flush = {
                let mut state = self.state.lock();
                let Some(inode) = state.inodes.get_mut(&ino) else { return Ok(()) };
                if inode.flushing {
                    continue;
                }
                // Without pieces there may still be a record to be cut: the file became longer, say.
                if inode.settled >= goal && inode.overlay.snapshot(goal).is_empty() {
                    return Ok(());
                }
                let point = inode.overlay.seq();
                Flush { inodes: vec![start(inode, ino, point)], urgency: Urgency::Caller }
            };
            match self.run_flush(flush) {
                Err(error) if self.is_suspended(&error) => self.wait_suspended(),
                result => result?,
            }
        }
    }

    /// Too few disks take writes because the others are late, or gone: that is not an error but a pause. The
    /// data are kept, and written when the disks answer again [R11], or are back; the committer decides how long
    /// those that are gone are waited for.
    fn is_suspended(&self, error: &NamespaceError) -> bool {
        matches!(error, NamespaceError::Io(FleetError::TooFewDisks { .. }))
            && self.state.lock().failed.is_none()
    }

    fn wait_suspended(&self) {
        self.commit_event.notify();
        let look = self.now() + RETRY;
        self.wait.until(&self.flushed, Some(look), &mut || self.state.lock().failed.is_some());
    }

    /// For callers: a flush that has no room for its cut would only begin again and again.
    fn wait_for_background_room(&self) {
        let failed = || self.state.lock().failed.is_some();
        while !self.has_background_room() && !failed() {
            let look = self.now() + BATCH_FULL;
            self.wait.until(&self.committed, Some(look), &mut || self.has_background_room());
        }
    }

    /// Dirty bytes at which flushing starts without waiting for age: well before writers wait.
    pub(super) fn flush_early_bytes(&self) -> u64 {
        FLUSH_EARLY_BYTES.min(self.dirty_bytes_max() / 2)
    }

    /// Carries out one flush, whatever comes of it, and unmarks its files. Ends early when the open batch
    /// is full: what was written is cut by the next flush, when the committer has taken the batch. Nobody
    /// waits here for that, the committer may need a checkpoint, and that waits for flushes.
    fn run_flush(&self, mut flush: Flush) -> Result<(), NamespaceError> {
        let mut written: Vec<Arc<Written>> = Vec::new();
        let mut at = 0;
        let result = self.write_out(&mut flush, &mut written).and_then(|()| {
            while at < flush.inodes.len() {
                at = self.change_inside(|tx| tx.flush_cut(&flush.inodes, at))?;
                if !self.has_background_room() {
                    break;
                }
            }
            Ok(())
        });
        let now = self.now();
        {
            let mut state = self.state.lock();
            for (index, inode) in flush.inodes.iter().enumerate() {
                state.end_flush(inode.ino, now, result.is_ok() && index >= at);
            }
            // The reaper passed over deleted inodes that were being flushed.
            if flush.inodes.iter().any(|inode| state.reap.contains(&inode.ino)) {
                self.reap_event.notify();
            }
        }
        self.flushed.notify();
        drop(flush);
        drop(written);
        // What was overwritten while the flush ran may have left an object without a live byte. After
        // an error the overlays still hold what was written: it stays until they let go of it.
        self.free_spent().and(result)
    }

    fn write_out(
        &self,
        flush: &mut Flush,
        written: &mut Vec<Arc<Written>>,
    ) -> Result<(), NamespaceError> {
        let mut parts: Vec<Part> = Vec::new();
        for (index, inode) in flush.inodes.iter_mut().enumerate() {
            for (offset, piece) in &inode.pieces {
                match &piece.content {
                    Content::Data { bytes, .. } => parts.push(Part {
                        owner: index,
                        ino: inode.ino,
                        offset: *offset,
                        bytes: bytes.clone(),
                        length: piece.length,
                    }),
                    Content::Stored { object, object_offset, .. } => inode.placed.push(Placed {
                        offset: *offset,
                        length: piece.length,
                        object: object.clone(),
                        object_offset: *object_offset,
                    }),
                    Content::Hole => {}
                }
            }
        }
        let class = match flush.urgency {
            Urgency::Caller => Class::Journal,
            Urgency::Background => Class::Flush,
        };
        self.write_parts(parts, class, &mut |packed, object| {
            written.push(object.clone());
            self.stored(flush, packed, &object);
        })
    }

    /// The object is durable: memory that it holds is given back.
    fn stored(&self, flush: &mut Flush, packed: &Packed, object: &Arc<Written>) {
        let mut state = self.state.lock();
        state.loose_bytes += self.loose_bytes(packed.bytes(), object.record());
        for (start, part) in &packed.parts {
            let inode = &mut flush.inodes[part.owner];
            let placed = Placed {
                offset: part.offset,
                length: part.length,
                object: object.clone(),
                object_offset: *start as u32,
            };
            if let Some(kept) = state.inodes.get_mut(&inode.ino) {
                let range = part.offset..part.offset + part.length;
                let freed = kept.overlay.store(range, inode.point, object, placed.object_offset);
                state.dirty_bytes -= freed;
            }
            inode.place(placed);
        }
        drop(state);
        self.flushed.notify();
    }

    /// Chooses what to flush now; None if nothing is due.
    fn plan_flush(&self) -> Option<Flush> {
        let now = self.now();
        let capacity = self.object_capacity();
        let mut state = self.state.lock();
        let pressure =
            state.dirty_bytes >= self.flush_early_bytes() || state.stopping || state.flush_all > 0;
        let logged = state.flush_logged;
        let mut chosen: Vec<Ino> = Vec::new();
        let (mut bytes, mut pieces) = (0, 0);
        let pieces_max =
            FLUSH_PIECES_MAX.min((self.share_bytes() / CUT_BYTES_PER_PIECE) as usize).max(1);
        // The oldest decides when, and takes younger ones along: files that come one after the other
        // would each get an object of their own.
        let mut ripe = self.options.commit_interval / 2;
        for &(since, ino) in &state.dirty {
            let inode = &state.inodes[&ino];
            if inode.flushing {
                continue;
            }
            let aged = since + ripe <= now && inode.unlogged;
            if aged {
                ripe = self.options.commit_interval / 8;
            }
            let due = aged
                || pressure
                || inode.cut_waits
                || (logged > Lsn(0) && inode.overlay.has_logged(logged));
            if !due {
                continue;
            }
            bytes += inode.overlay.data_bytes();
            pieces += inode.overlay.len();
            chosen.push(ino);
            if bytes >= FLUSH_BYTES || pieces >= pieces_max || chosen.len() >= FLUSH_INODES_MAX {
                break;
            }
        }
        if chosen.is_empty() {
            return None;
        }
        chosen.sort_by_key(|ino| (state.inodes[ino].known.parent_hint, *ino));
        let inodes = chosen
            .into_iter()
            .map(|ino| {
                let aged = state.stopping || state.flush_all > 0 || logged > Lsn(0);
                let inode = state.inodes.get_mut(&ino).expect("it was just seen");
                let whole = aged || inode.overlay.data_bytes() < 2 * capacity;
                let point =
                    if whole { inode.overlay.seq() } else { inode.overlay.flush_point(capacity) };
                start(inode, ino, point)
            })
            .collect();
        Some(Flush { inodes, urgency: Urgency::Background })
    }

    /// Flushes something that is due, if anything is: recovery's own flusher.
    pub(super) fn flush_some(&self) -> Result<bool, NamespaceError> {
        match self.plan_flush() {
            Some(flush) => self.run_flush(flush).map(|()| true),
            None => Ok(false),
        }
    }

    /// When the oldest dirty file is due; None: whoever makes one dirty says so.
    fn next_flush(&self) -> Option<Ticks> {
        let mut state = self.state.lock();
        let oldest = state.dirty.iter().find(|(_, ino)| {
            state.inodes.get(ino).is_some_and(|inode| inode.unlogged && !inode.flushing)
        });
        let due = oldest.map(|&(since, _)| since + self.options.commit_interval / 2);
        state.flusher_sleeps |= due.is_none();
        due
    }
}

fn start(inode: &mut super::inode_state::InodeState, ino: Ino, point: u64) -> FlushInode {
    inode.flushing = true;
    // Now, the file is what its record says; pieces do not know of what changed no bytes.
    let now = inode.record.as_ref().filter(|_| point == inode.overlay.seq());
    let now = now.map(|record| After::of(record));
    FlushInode {
        ino,
        point,
        pieces: inode.overlay.snapshot(point),
        after: now.or_else(|| inode.overlay.after(point)),
        placed: Vec::new(),
    }
}

/// ENOSPC comes at write or fsync time, as what it is [I7].
pub(super) fn no_space(error: FleetError) -> NamespaceError {
    match error {
        FleetError::NoRoom { .. } => NamespaceError::NoSpace,
        FleetError::Unreadable { .. }
        | FleetError::Deleted { .. }
        | FleetError::JournalFull
        | FleetError::TooFewDisks { .. }
        | FleetError::Damaged { .. }
        | FleetError::Disk { .. }
        | FleetError::Stopped => NamespaceError::Io(error),
    }
}

impl State {
    fn end_flush(&mut self, ino: Ino, now: Ticks, cut_waits: bool) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        inode.flushing = false;
        inode.cut_waits = cut_waits;
        // What is still dirty came in while the flush ran: its age begins now.
        if let Some(since) = inode.dirty_since {
            self.dirty.remove(&(since, ino));
            inode.dirty_since = None;
            if !inode.is_clean() {
                self.mark_dirty(ino, now);
            }
        }
        self.drop_if_idle(ino);
    }
}

impl FlushInode {
    /// Notes where a range went; joins it to the range before, if they continue each other.
    fn place(&mut self, placed: Placed) {
        if let Some(last) = self.placed.last_mut()
            && Arc::ptr_eq(&last.object, &placed.object)
            && last.offset + last.length == placed.offset
            && u64::from(last.object_offset) + last.length == u64::from(placed.object_offset)
        {
            last.length += placed.length;
            return;
        }
        self.placed.push(placed);
    }
}

#[cfg(test)]
impl super::Namespace {
    /// As a flusher that has written its objects and has not come to its cut: the moment in which
    /// callers run on other threads, and which one thread alone never sees.
    pub(crate) fn with_flush_before_its_cut(&self, meanwhile: impl FnOnce()) {
        self.with_steps_of_a_flush(|| {}, meanwhile, || true);
    }

    /// As a flusher that others overtake: `planned` runs before it writes, `written` before it cuts,
    /// and `between` after each transaction of its cut, which ends early if it says false, as after an
    /// error. Returns how many transactions there were.
    pub(crate) fn with_steps_of_a_flush(
        &self,
        planned: impl FnOnce(),
        written: impl FnOnce(),
        mut between: impl FnMut() -> bool,
    ) -> u32 {
        let core = &self.core;
        core.state.lock().flush_all += 1;
        let mut flush = core.plan_flush().expect("something is dirty");
        core.state.lock().flush_all -= 1;
        planned();
        let mut objects = Vec::new();
        core.write_out(&mut flush, &mut objects).expect("there is room");
        written();
        let (mut at, mut transactions) = (0, 0);
        while at < flush.inodes.len() {
            let cut = core.change_inside(|tx| tx.flush_cut(&flush.inodes, at));
            at = cut.expect("it is cut");
            transactions += 1;
            assert!(transactions < 10_000, "R19: it ends");
            if !between() {
                break;
            }
        }
        {
            let mut state = core.state.lock();
            flush.inodes.iter().for_each(|inode| state.end_flush(inode.ino, core.now(), false));
        }
        drop((flush, objects));
        core.free_spent().expect("it is freed");
        transactions
    }
}

/// The background task; there may be several.
pub(super) struct Flusher {
    core: Arc<Core>,
}

impl Flusher {
    pub(super) fn new(core: Arc<Core>) -> Flusher {
        Flusher { core }
    }
}

impl Task for Flusher {
    fn name(&self) -> &'static str {
        "flusher"
    }

    fn event(&self) -> Arc<Event> {
        self.core.flush_event.clone()
    }

    fn step(&mut self) -> Pace {
        if !self.core.has_background_room() {
            return Pace::Idle(Some(self.core.now() + BATCH_FULL));
        }
        let Some(flush) = self.core.plan_flush() else {
            return Pace::Idle(self.core.next_flush());
        };
        match self.core.run_flush(flush) {
            Ok(()) => {
                self.core.state.lock().flush_error = None;
                Pace::Again
            }
            Err(error) if self.core.is_suspended(&error) => {
                log::warn!(
                    "too few disks take writes, dirty data is kept and tried again: {error}"
                );
                Pace::Idle(Some(self.core.now() + RETRY))
            }
            Err(error) => {
                let cause = match &error {
                    NamespaceError::Io(cause) => cause.clone(),
                    _ => FleetError::NoRoom { shards: 0, bytes: 0 },
                };
                self.core.state.lock().flush_error = Some(cause);
                self.core.flushed.notify();
                log::warn!(
                    "dirty data could not be written yet, it is kept and tried again: {error}"
                );
                Pace::Idle(Some(self.core.now() + RETRY))
            }
        }
    }
}
