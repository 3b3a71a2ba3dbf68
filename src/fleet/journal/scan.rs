//! What one disk's ring holds, as its bytes come in. Pure: fed with bytes, it yields entries.
//!
//! [R5] An entry is believed only in place: its checksum is good, and pool, disk, position and epoch
//! are the ones of this place. Whatever else is there (older epochs, the lap before, a stored image of
//! some disk, a torn write) is dead.
//!
//! The scan never stops at the first bad entry: a late disk has holes before good ones. It ends when
//! nothing valid came within two largest entries after the last valid one, or after one lap. (No
//! entry is written where so much before it could be a hole: `Ring::is_in_sight`.)

use crate::base::limits::ENTRY_BYTES_MAX;
use crate::base::units::round_up;
use crate::base::{DiskUuid, Epoch, Lsn, PoolUuid, UNIT_BYTES};
use crate::format::journal_entry::{ENTRY_HEADER_BYTES, EntryHeader, RawEntryHeader};

/// A scan goes on this far after the last valid entry.
pub(super) const SILENCE_BYTES: u64 = 2 * ENTRY_BYTES_MAX;

/// Whose entries count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub pool: PoolUuid,
    pub epoch: Epoch,
    pub epoch_id: u64,
}

/// A valid entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub lsn: Lsn,
    pub acked: Lsn,
    pub prev_batch_crc: u64,
    pub batch_crc: u64,
    pub position: u64,
    pub payload_bytes: usize,
}

/// Reads one entry that is known to begin at `bytes[0]`: its header must fit `position`, its payload
/// its checksum.
pub(super) fn read_entry(
    origin: &Origin,
    disk: DiskUuid,
    position: u64,
    bytes: &[u8],
) -> Option<(EntryHeader, usize)> {
    let header = read_header(origin, disk, position, bytes)?;
    let end = ENTRY_HEADER_BYTES + header.payload_len as usize;
    header.verify_payload(bytes.get(ENTRY_HEADER_BYTES..end)?).ok()?;
    Some((header, end))
}

fn read_header(
    origin: &Origin,
    disk: DiskUuid,
    position: u64,
    bytes: &[u8],
) -> Option<EntryHeader> {
    let raw = RawEntryHeader::decode(bytes, position).ok()?;
    let header = raw.verify(origin.pool, disk, position).ok()?;
    // A batch is written when all before it are acknowledged.
    let possible = header.acked_lsn < header.lsn && header.lsn.0 < u64::MAX;
    let ours = header.epoch == origin.epoch && header.epoch_id == origin.epoch_id;
    (ours && possible).then_some(header)
}

/// The scan of one ring.
pub(super) struct Scan {
    origin: Origin,
    disk: DiskUuid,
    /// One lap after the head: nothing beyond can be in place.
    limit: u64,
    /// Where the next entry may begin.
    position: u64,
    /// Where the last valid entry ended.
    end: u64,
    /// Bytes from `position` on.
    bytes: Vec<u8>,
}

impl Scan {
    /// A scan of a ring of `ring_bytes`, from position `head` on.
    pub fn new(origin: Origin, disk: DiskUuid, head: u64, ring_bytes: u64) -> Scan {
        let limit = head.saturating_add(ring_bytes);
        Scan { origin, disk, limit, position: head, end: head, bytes: Vec::new() }
    }

    /// The position whose bytes are wanted next, and how many at most; None when the scan is over.
    pub fn wants(&self) -> Option<(u64, u64)> {
        let fed = self.position + self.bytes.len() as u64;
        let limit = self.limit.min(self.end.saturating_add(SILENCE_BYTES));
        // Inside an entry that began before the silence was over, its rest is wanted too.
        let limit = limit.max(self.position + self.announced()).min(self.limit);
        (fed < limit).then(|| (fed, limit - fed))
    }

    /// Where the last valid entry ended.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes that the entry at `position` says it has; 0 if none begins there.
    fn announced(&self) -> u64 {
        match read_header(&self.origin, self.disk, self.position, &self.bytes) {
            Some(header) if self.position + header.entry_bytes() <= self.limit => {
                header.entry_bytes()
            }
            _ => 0,
        }
    }

    /// Takes the bytes that were wanted, or a first part of them in whole units (zeros where they
    /// could not be read). Calls `found` with each valid entry and its payload.
    pub fn feed(&mut self, bytes: &[u8], found: &mut dyn FnMut(Entry, &[u8])) {
        assert!((bytes.len() as u64).is_multiple_of(UNIT_BYTES));
        self.bytes.extend_from_slice(bytes);
        let mut at = 0usize;
        while self.bytes.len() - at >= UNIT_BYTES as usize {
            let rest = &self.bytes[at..];
            let header = read_header(&self.origin, self.disk, self.position, rest)
                .filter(|header| self.position + header.entry_bytes() <= self.limit);
            let mut step = UNIT_BYTES;
            if let Some(header) = header {
                let whole = header.entry_bytes();
                if (rest.len() as u64) < whole {
                    break;
                }
                let payload = &rest[ENTRY_HEADER_BYTES..][..header.payload_len as usize];
                // A torn entry is stepped through unit by unit: its length may be another entry's.
                if header.verify_payload(payload).is_ok() {
                    step = round_up(whole, UNIT_BYTES);
                    self.end = self.position + step;
                    found(entry(&header), payload);
                }
            }
            self.position += step;
            at += step as usize;
        }
        self.bytes.drain(..at);
    }
}

fn entry(header: &EntryHeader) -> Entry {
    Entry {
        lsn: header.lsn,
        acked: header.acked_lsn,
        prev_batch_crc: header.prev_batch_crc,
        batch_crc: header.batch_crc,
        position: header.ring_position,
        payload_bytes: header.payload_len as usize,
    }
}
