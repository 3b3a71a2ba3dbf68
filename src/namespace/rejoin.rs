//! Joining: a file that was overwritten here and there lies in many small pieces, and reading it in order
//! costs a seek each. Whoever reads such a stretch as a stream notes it; it is written anew, in order.
//!
//! The same steps as a compaction's (`compact`), and the same crashes: what is copied are not the live bytes
//! of some objects, but those of a *window* of one file. What a user writes meanwhile stands [R20]. The
//! objects that the pieces were in lose these bytes; reclaim sees to what is left of them.

use std::collections::HashMap;

use super::compact::{Compaction, Source};
use super::core::Core;
use super::cut::EXTENTS_PER_TRANSACTION;
use super::error::NamespaceError;
use super::read::{Located, Part};
use super::tx::{Attempt, Tx};
use crate::base::sync::Arc;
use crate::base::{Event, Ino, KIB, MIB, ObjectId};

/// A file is joined in windows of so many bytes (design review 35): in memory at once, and one seek a
/// disk when it is read.
const WINDOW_BYTES: u64 = 12 * MIB;
/// A window with more seeks than this is worth being written anew.
const SEEKS_MAX: u64 = 64;
/// Parts of one read below which it says nothing about its window.
const PARTS_LEAST: usize = 4;
/// What lies this near is read without a seek.
const NEAR_BYTES: u64 = 64 * KIB;
/// Windows that wait; more are noted when they are read again.
const RAGGED_MAX: usize = 4096;

/// Counts where reading in order has to go elsewhere.
#[derive(Default)]
struct Seeks {
    at: Option<(ObjectId, u64)>,
    count: u64,
}

impl Seeks {
    fn read(&mut self, object: ObjectId, offset: u64, length: u64) {
        let near = self.at.is_some_and(|(last, end)| {
            last == object && (end..=end + NEAR_BYTES).contains(&offset)
        });
        self.count += u64::from(!near);
        self.at = Some((object, offset + length));
    }
}

impl super::Namespace {
    /// Notified when there is something to be joined.
    pub fn rejoin_event(&self) -> Arc<Event> {
        self.core.rejoin_event.clone()
    }

    /// The next window to be joined: a file, and where in it. Not asked for again until it is read again.
    pub fn next_ragged(&self) -> Option<(Ino, u64)> {
        self.core.state.lock().ragged.pop_first()
    }

    /// Copies the window, if that is worth it: it lies in many pieces, and not as good a copy was made
    /// meanwhile. To be gone on with like any compaction.
    pub fn begin_rejoin(&self, ino: Ino, from: u64) -> Result<Option<Compaction>, NamespaceError> {
        let begun = self.core.copy_window(ino, from);
        if !matches!(begun, Ok(Some(_))) {
            self.core.free_spent()?;
        }
        begun
    }

    /// The pieces have lost so many bytes: reclaim may look for what is left of them.
    pub fn has_loosened(&self, bytes: u64) {
        self.core.state.lock().loose_bytes += bytes;
    }
}

impl Core {
    fn copy_window(&self, ino: Ino, from: u64) -> Result<Option<Compaction>, NamespaceError> {
        let end = from.saturating_add(WINDOW_BYTES);
        let (mut pinned, mut numbers) = (Vec::new(), HashMap::new());
        let mut sources: Vec<Source> = Vec::new();
        let mut seeks = Seeks::default();
        let mut next = Some(from);
        while let Some(at) = next.filter(|&at| at < end) {
            let found = self.look(|tx| tx.window(ino, at, end));
            let (pieces, rest) = match found {
                Err(NamespaceError::NotFound) => return Ok(None),
                found => found?,
            };
            for (source, located) in pieces {
                // Where the last step stopped, an extent may be seen twice.
                if sources.last().is_some_and(|last| last.offset + last.length > source.offset) {
                    continue;
                }
                seeks.read(located.record.id, u64::from(source.victim_offset), source.length);
                let number = *numbers.entry(located.record.id).or_insert_with(|| {
                    pinned.push(located);
                    pinned.len() - 1
                });
                sources.push(Source { victim: number, ..source });
            }
            next = rest;
        }
        if seeks.count <= SEEKS_MAX {
            return Ok(None);
        }
        self.copy(pinned, sources, None)
    }
}

/// A piece of a file and the object it is in.
type PieceOf = (Source, Arc<Located>);

impl Tx<'_> {
    /// A stream was read from these parts: what is noted of its window.
    pub(super) fn note_ragged(&mut self, ino: Ino, parts: &[(std::ops::Range<u64>, Part)]) {
        let mut seeks = Seeks::default();
        for (range, part) in parts {
            if let Part::Object { object, object_offset, .. } = part {
                seeks.read(object.record.id, u64::from(*object_offset), range.end - range.start);
            }
        }
        let (Some((first, _)), Some((last, _))) = (parts.first(), parts.last()) else { return };
        let bytes = last.end - first.start;
        let ragged = parts.len() >= PARTS_LEAST && seeks.count * WINDOW_BYTES > SEEKS_MAX * bytes;
        let state = &mut *self.state;
        if !ragged || state.ragged.len() >= RAGGED_MAX || state.check_writable().is_err() {
            return;
        }
        if state.ragged.insert((ino, first.start / WINDOW_BYTES * WINDOW_BYTES)) {
            self.core.rejoin_event.notify();
        }
    }

    /// The pieces of a file in `at..end`, some of them, pinned, and where to go on. Those that somebody in
    /// memory counts on are left out, as are holes.
    fn window(&mut self, ino: Ino, at: u64, end: u64) -> Attempt<(Vec<PieceOf>, Option<u64>)> {
        self.inode(ino)?;
        let (extents, rest) = self.extents(ino, at..end, EXTENTS_PER_TRANSACTION)?;
        let mut found: Vec<PieceOf> = Vec::with_capacity(extents.len());
        for (offset, extent) in extents.into_iter().filter(|(_, extent)| !extent.unwritten) {
            let (begin, stop) = (offset.max(at), offset.saturating_add(extent.length).min(end));
            let before = found.iter().rev().find(|(_, located)| located.record.id == extent.object);
            let located = match before {
                Some((_, located)) => Some(located.clone()),
                None => self.victim(extent.object)?,
            };
            let Some(located) = located else { continue };
            let victim_offset = extent.object_offset + (begin - offset) as u32;
            let length = stop.saturating_sub(begin);
            if length > 0 {
                found.push((
                    Source { ino, offset: begin, length, victim: 0, victim_offset },
                    located,
                ));
            }
        }
        Ok((found, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_near_needs_no_seek() {
        let mut seeks = Seeks::default();
        seeks.read(ObjectId(1), 0, 4096);
        seeks.read(ObjectId(1), 4096, 4096);
        seeks.read(ObjectId(1), 8192 + NEAR_BYTES, 4096);
        assert_eq!(seeks.count, 1);
        seeks.read(ObjectId(1), 4 * NEAR_BYTES, 4096);
        seeks.read(ObjectId(1), 0, 4096);
        seeks.read(ObjectId(2), 4096, 4096);
        assert_eq!(seeks.count, 4);
    }
}
