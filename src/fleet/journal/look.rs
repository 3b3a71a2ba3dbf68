//! Whether the log is still what was written: every copy of every batch that a mount after a crash would need.
//!
//! Nothing is rewritten here. A checkpoint covers what the log holds, and then no copy of it is needed any
//! more: that is the same few writes whether one entry is bad or all, and the rules for them stand already.
//! An entry written once more, at its old place, would have to go before entries that were written since,
//! into a ring that a trim may be giving away.

use super::scan::{Origin, read_entry};
use super::{Journal, Logged};
use crate::base::{DiskIndex, DiskUuid, Lsn};
use crate::fleet::access::{Miss, ReadAt};
use crate::fleet::disk::{Class, DiskError, DiskHandle};
use crate::fleet::journal::ring::RingPlace;

/// One copy of a batch.
struct Copy {
    disk: DiskIndex,
    uuid: DiskUuid,
    place: RingPlace,
    position: u64,
    lsn: Lsn,
    batch_crc: u64,
    bytes: u64,
}

impl Journal {
    /// Copies of batches in use, on disks that take part, that are not what was written; and how many were
    /// looked at. One is read at a time. `tell` hears the bytes of each; if it says false, nothing more is
    /// read.
    pub fn look(&self, tell: &mut dyn FnMut(u64) -> bool) -> (usize, Vec<(DiskIndex, Lsn)>) {
        let copies = self.copies();
        let (mut looked, mut bad) = (0, Vec::new());
        for copy in &copies {
            looked += 1;
            // One that is not there any more was trimmed, and perhaps written over.
            let handle = self.members().handle(copy.disk);
            let good = handle.and_then(|handle| self.is_good(copy, &handle));
            if good == Some(false) && self.is_in_use(copy) {
                bad.push((copy.disk, copy.lsn));
            }
            if !tell(copy.bytes) {
                break;
            }
        }
        (looked, bad)
    }

    /// Whether the newest batch that was durable on `disk`, and that may still be needed, can be read there
    /// through `handle`. True if there is none.
    pub fn is_still_on(&self, disk: DiskIndex, handle: &DiskHandle) -> bool {
        let copies = self.copies().into_iter().filter(|copy| copy.disk == disk);
        let newest = copies.max_by_key(|copy| copy.lsn);
        newest
            .is_none_or(|copy| self.is_good(&copy, handle) != Some(false) || !self.is_in_use(&copy))
    }

    /// In the order of their places.
    fn copies(&self) -> Vec<Copy> {
        let state = self.state.lock();
        let mut copies = Vec::new();
        for &Logged { lsn, batch_crc, bytes, ref written, .. } in &state.log {
            for &(disk, position) in written {
                let Some(ring) = state.rings.iter().find(|ring| ring.disk == disk) else {
                    continue;
                };
                let (uuid, place) = (ring.uuid, ring.place);
                copies.push(Copy { disk, uuid, place, position, lsn, batch_crc, bytes });
            }
        }
        copies.sort_by_key(|copy| (copy.disk, copy.position));
        copies
    }

    fn is_in_use(&self, copy: &Copy) -> bool {
        let state = self.state.lock();
        let logged = state.log.iter().find(|logged| logged.lsn == copy.lsn);
        logged.is_some_and(|logged| logged.written.contains(&(copy.disk, copy.position)))
    }

    /// None if the disk does not answer.
    fn is_good(&self, copy: &Copy, disk: &DiskHandle) -> Option<bool> {
        let context = &self.context;
        let mut entry = Vec::with_capacity(copy.bytes as usize);
        for piece in copy.place.pieces(copy.position, copy.bytes as usize) {
            let bytes = piece.range.len();
            let read = ReadAt { disk: disk.clone(), offset: piece.offset, bytes };
            match context.access.read(Class::Background, &[read], 1).pop()? {
                Ok(buffer) => entry.extend_from_slice(&buffer),
                Err(Miss::Failed(DiskError::Medium { .. })) => return Some(false),
                Err(_) => return None,
            }
        }
        let (pool, epoch, epoch_id) = (context.pool, context.epoch, context.epoch_id);
        let origin = Origin { pool, epoch, epoch_id };
        let found = read_entry(&origin, copy.uuid, copy.position, &entry);
        Some(found.is_some_and(|(header, _)| {
            (header.lsn, header.batch_crc) == (copy.lsn, copy.batch_crc)
        }))
    }
}
