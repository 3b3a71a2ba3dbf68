//! Reading the journal back: all rings at once, in pieces, then batch by batch.
//!
//! Steps: 1. every ring is read from the head its root states (`scan.rs`); 2. what was found is put in
//! order (`chain.rs`); 3. the caller applies batch after batch. Nothing is written here, so a crash
//! leaves what was there, and doing it again gives the same result [I8]. The rings stay as they are
//! until the recovery's own root is effective [R4].
//!
//! Memory: payloads are kept as they are read, up to `KEPT_BYTES_MAX`; the rest is read again when its
//! turn comes, from any copy. Each is given up when it was applied, so that no batch is held twice, here
//! and as what it was replayed into. Besides these, 64 bytes for each copy of an entry.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::base::canary::{self, Bug};
use crate::base::units::round_down;
use crate::base::{DiskIndex, Epoch, KIB, Lsn, MIB, PoolUuid, UNIT_BYTES};
use crate::fleet::access::{Access, Miss, ReadAt};
use crate::fleet::disk::{Buffer, Class, DiskError, DiskHandle};
use crate::fleet::error::FleetError;
use crate::fleet::members::{Member, MemberState, Members};
use crate::format::journal_entry::{ENTRY_HEADER_BYTES, entry_bytes};
use crate::format::root::Root;

use super::Mark;
use super::chain::{Chain, order};
use super::ring::RingPlace;
use super::scan::{Entry, Origin, Scan, read_entry};

/// One read of the scan, per disk.
const READ_BYTES: u64 = MIB;
/// Payloads kept in memory. Log is at most 512 MiB and some, nothing else is in memory while mounting
/// but the memtables it is replayed into.
const KEPT_BYTES_MAX: usize = 256 << 20;
/// Unreadable places of one ring that are worked around; a disk with more is given up for the scan.
const BAD_PLACES_MAX: usize = 256;

/// Where replay begins: what the chosen root says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayFrom {
    /// The pool.
    pub pool: PoolUuid,
    /// The epoch of the root: entries of any other are dead [R5].
    pub epoch: Epoch,
    /// Its random id.
    pub epoch_id: u64,
    /// The last batch that the root covers, and where the ones after it lie.
    pub mark: Mark,
}

impl ReplayFrom {
    /// What this root says.
    pub fn root(root: &Root) -> ReplayFrom {
        ReplayFrom {
            pool: root.pool,
            epoch: root.epoch,
            epoch_id: root.epoch_id,
            mark: Mark {
                lsn: root.replay_lsn,
                batch_crc: root.replay_crc,
                heads: root.heads.iter().map(|head| (head.disk, head.position)).collect(),
            },
        }
    }
}

/// What the rings hold: batches in order, and what is missing.
pub struct Replay {
    origin: Origin,
    access: Access,
    places: BTreeMap<DiskIndex, Source>,
    chain: Chain,
    kept: BTreeMap<(Lsn, u64), Vec<u8>>,
    /// Acknowledged batches of which no copy was found [I6]: not empty means loss; the pool is
    /// read-only, and everything found is applied all the same.
    pub gaps: Vec<RangeInclusive<u64>>,
    /// The highest batch known to have been acknowledged.
    pub acked: Lsn,
    /// Entries found after the end, never acknowledged, not applied.
    pub dropped: usize,
    /// Members whose rings could not be read to the end: missing, late or failing.
    pub unread: Vec<DiskIndex>,
    /// Where the next journal begins: after the last batch, and after all that is in the rings.
    pub end: Mark,
}

/// A ring that was read.
struct Source {
    disk: DiskHandle,
    member: Member,
    place: RingPlace,
}

impl Replay {
    /// Batches to apply.
    pub fn len(&self) -> usize {
        let lost = usize::from(canary::planted(Bug::LastBatchLost));
        self.chain.links.len().saturating_sub(lost)
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.chain.links.is_empty()
    }

    /// LSN of the batch at `index`; ascending.
    pub fn lsn(&self, index: usize) -> Lsn {
        self.chain.links[index].lsn
    }

    /// Acknowledged batches with fewer than `need` copies left, and how many they have.
    pub fn thin(&self, need: usize) -> Vec<(Lsn, usize)> {
        let acked = self.chain.links.iter().filter(|link| link.lsn <= self.acked);
        let copies = acked.map(|link| (link.lsn, link.places.len()));
        copies.filter(|&(_, copies)| copies < need).collect()
    }

    /// The batch at `index` was applied: its payload need not stay in memory.
    pub fn give_up(&mut self, index: usize) {
        let link = &self.chain.links[index];
        self.kept.remove(&(link.lsn, link.batch_crc));
    }

    /// Bytes of payloads in memory: `KEPT_BYTES_MAX` at most.
    pub fn kept_bytes(&self) -> usize {
        self.kept.values().map(Vec::len).sum()
    }

    /// Payload of the batch at `index`: from memory, or read again. `Damaged` if every copy has
    /// become unreadable since the scan.
    pub fn payload(&self, index: usize) -> Result<Cow<'_, [u8]>, FleetError> {
        let link = &self.chain.links[index];
        if let Some(payload) = self.kept.get(&(link.lsn, link.batch_crc)) {
            return Ok(Cow::Borrowed(payload));
        }
        for &(disk, position) in &link.places {
            let Some(source) = self.places.get(&disk) else { continue };
            let bytes = entry_bytes(link.payload_bytes) as usize;
            let pieces = source.place.pieces(position, bytes);
            let reads: Vec<ReadAt> = (pieces.iter())
                .map(|piece| ReadAt {
                    disk: source.disk.clone(),
                    offset: piece.offset,
                    bytes: piece.range.len(),
                })
                .collect();
            let buffers: Result<Vec<Buffer>, Miss> =
                self.access.read(Class::Foreground, &reads, 1).into_iter().collect();
            let Ok(buffers) = buffers else { continue };
            let mut entry = Vec::with_capacity(bytes);
            buffers.iter().for_each(|buffer| entry.extend_from_slice(buffer));
            match read_entry(&self.origin, source.member.uuid, position, &entry) {
                Some((header, end)) if header.batch_crc == link.batch_crc => {
                    return Ok(Cow::Owned(entry[ENTRY_HEADER_BYTES..end].to_vec()));
                }
                _ => {}
            }
        }
        Err(FleetError::Damaged { what: "journal entry", lsn: link.lsn })
    }

    /// Whether a read-write mount may build on it: nothing acknowledged is missing; at most `parity`
    /// rings were not read, so that no acknowledged tail can hide in those; and one that was read is
    /// of `participants`, the members that nobody went on without: where those are m or fewer, each of
    /// them has every batch, and nobody else need have it [R1].
    pub fn is_sound(&self, parity: usize, participants: &[DiskIndex]) -> bool {
        self.gaps.is_empty()
            && self.unread.len() <= parity
            && participants.iter().any(|disk| !self.unread.contains(disk))
    }
}

/// Reads what the rings of `members` hold after `from`. Never fails: what cannot be read is named in
/// the result.
pub fn replay(access: &Access, members: &Members, from: &ReplayFrom) -> Replay {
    let origin = Origin { pool: from.pool, epoch: from.epoch, epoch_id: from.epoch_id };
    let mut unread = Vec::new();
    let mut places = BTreeMap::new();
    let mut scans = Vec::new();
    let mut heads = BTreeMap::new();
    for member in members.all() {
        let head = from.mark.heads.iter().find(|(disk, _)| *disk == member.index);
        let head = head.map_or(0, |&(_, position)| round_down(position, UNIT_BYTES));
        heads.insert(member.index, head);
        let disk = member.handle.clone().filter(|_| member.state == MemberState::Active);
        let Some(disk) = disk else {
            unread.push(member.index);
            continue;
        };
        let place =
            RingPlace { start: member.layout.journal_offset, bytes: member.layout.journal_bytes };
        let scan = Scan::new(origin, member.uuid, head, place.bytes);
        scans.push((member.index, scan, 0));
        places.insert(member.index, Source { disk, member, place });
    }
    let mut found: Vec<(DiskIndex, Entry)> = Vec::new();
    let mut kept: BTreeMap<(Lsn, u64), Vec<u8>> = BTreeMap::new();
    let mut kept_bytes = 0;
    loop {
        let round = next_reads(&mut scans, &places);
        if round.is_empty() {
            break;
        }
        let reads: Vec<ReadAt> = round.iter().map(|(_, read)| read.clone()).collect();
        let spare = members.parity().saturating_sub(unread.len());
        let results = access.read(Class::Foreground, &reads, spare);
        for ((index, read), result) in round.iter().zip(results) {
            let (disk, scan, bad) = &mut scans[*index];
            let bytes = match result {
                Ok(buffer) => Some(buffer.to_vec()),
                Err(Miss::Failed(DiskError::Medium { .. })) => salvage(access, read, bad),
                Err(_) => None,
            };
            let Some(bytes) = bytes else {
                log::error!("the journal of disk {disk} cannot be read to its end");
                unread.push(*disk);
                continue;
            };
            scan.feed(&bytes, &mut |entry, payload| {
                found.push((*disk, entry));
                let key = (entry.lsn, entry.batch_crc);
                let wanted = entry.lsn > from.mark.lsn && !kept.contains_key(&key);
                if wanted && kept_bytes + payload.len() <= KEPT_BYTES_MAX {
                    kept_bytes += payload.len();
                    kept.insert(key, payload.to_vec());
                }
            });
        }
        scans.retain(|(disk, _, _)| !unread.contains(disk));
    }
    for (disk, scan, _) in &scans {
        heads.insert(*disk, scan.end());
    }
    finish(origin, access, from, places, found, kept, unread, heads)
}

#[allow(clippy::too_many_arguments, reason = "the second half of `replay`")]
fn finish(
    origin: Origin,
    access: &Access,
    from: &ReplayFrom,
    places: BTreeMap<DiskIndex, Source>,
    found: Vec<(DiskIndex, Entry)>,
    mut kept: BTreeMap<(Lsn, u64), Vec<u8>>,
    unread: Vec<DiskIndex>,
    heads: BTreeMap<DiskIndex, u64>,
) -> Replay {
    let chain = order(from.mark.lsn, from.mark.batch_crc, &found);
    kept.retain(|&(lsn, crc), _| {
        let index = chain.links.binary_search_by_key(&lsn, |link| link.lsn);
        index.is_ok_and(|index| chain.links[index].batch_crc == crc)
    });
    let end = Mark {
        lsn: chain.links.last().map_or(from.mark.lsn, |link| link.lsn),
        batch_crc: chain.links.last().map_or(from.mark.batch_crc, |link| link.batch_crc),
        heads: heads.into_iter().collect(),
    };
    Replay {
        origin,
        access: access.clone(),
        places,
        kept,
        gaps: chain.gaps.clone(),
        acked: chain.acked,
        dropped: chain.dropped,
        chain,
        unread,
        end,
    }
}

/// The next read of every scan that goes on.
fn next_reads(
    scans: &mut [(DiskIndex, Scan, usize)],
    places: &BTreeMap<DiskIndex, Source>,
) -> Vec<(usize, ReadAt)> {
    let mut reads = Vec::new();
    for (index, (disk, scan, _)) in scans.iter().enumerate() {
        let (Some((position, wanted)), Some(source)) = (scan.wants(), places.get(disk)) else {
            continue;
        };
        let pieces = source.place.pieces(position, wanted.min(READ_BYTES) as usize);
        let first = &pieces[0];
        let (offset, bytes) = (first.offset, first.range.len());
        reads.push((index, ReadAt { disk: source.disk.clone(), offset, bytes }));
    }
    reads
}

/// Reads around medium errors, in smaller and smaller pieces; zeros where nothing could be read.
/// None if the disk is late or gone, or there are too many such places.
fn salvage(access: &Access, read: &ReadAt, bad: &mut usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0u8; read.bytes];
    let mut open = vec![(0usize, read.bytes)];
    while let Some((start, length)) = open.pop() {
        let step = if length as u64 > 64 * KIB { 64 * KIB } else { UNIT_BYTES } as usize;
        for at in (start..start + length).step_by(step) {
            let part = step.min(start + length - at);
            let place =
                ReadAt { disk: read.disk.clone(), offset: read.offset + at as u64, bytes: part };
            let result = access.read(Class::Foreground, &[place], 1).remove(0);
            match result {
                Ok(buffer) => bytes[at..at + part].copy_from_slice(&buffer),
                Err(Miss::Failed(DiskError::Medium { .. })) => {
                    *bad += 1;
                    if *bad > BAD_PLACES_MAX {
                        return None;
                    }
                    if part as u64 > UNIT_BYTES {
                        open.push((at, part));
                    }
                }
                Err(_) => return None,
            }
        }
    }
    Some(bytes)
}
