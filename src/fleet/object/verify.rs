//! Looking at every shard of an object, for checks: the header and all cells, of parity too. Nothing is
//! put together and nothing is repaired. Users' reads go first.

use std::time::Duration;

use super::in_place::names_shard;
use super::store::ObjectStore;
use super::write_plan::header_offset;
use crate::base::{DiskIndex, ShardIndex, UNIT_BYTES};
use crate::fleet::disk::{Class, DiskError, DiskHandle, Fan, Operation, Outcome, Request};
use crate::fleet::reports::FailReason;
use crate::format::{Checksums, ObjectRecord, Place, cell_crc};

/// Pieces that a shard is read in, so that others can overtake.
const PIECE_BYTES: u64 = 512 * 1024;
/// How long the shards of an object are waited for: longer than a bus reset or a spin-up takes [R11].
const GIVE_UP: Duration = Duration::from_secs(60);

/// What one shard is like on its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShardHealth {
    /// Header and bytes are what they should be.
    Good,
    /// The record knows no place for it.
    Nowhere,
    /// Its disk does not take part.
    Away(DiskIndex),
    /// Its disk does not answer in time.
    Silent(DiskIndex),
    /// It cannot be read.
    Unread(DiskIndex),
    /// Its bytes are right, and the header before them is not: nobody could tell whose they are.
    Nameless(DiskIndex),
    /// So many of its parts do not match their checksums.
    Bad(DiskIndex, u32),
    /// There is nothing to judge it by.
    Unjudged(DiskIndex),
}

impl ShardHealth {
    /// Its disk answers, and it is not what was written there.
    pub fn is_bad(self) -> bool {
        matches!(self, ShardHealth::Unread(_) | ShardHealth::Nameless(_) | ShardHealth::Bad(..))
    }

    /// Its bytes can be used.
    pub fn is_readable(self) -> bool {
        matches!(self, ShardHealth::Good | ShardHealth::Nameless(_))
    }
}

/// Says how many parts of a shard's payload are bad; None if it cannot tell. May wait.
pub type Judge<'a> = dyn FnMut(ShardIndex, &[u8]) -> Option<u32> + 'a;

/// A shard being read: its place, where its header is, and the slots of header and pieces.
struct Asked {
    place: Place,
    offset: u64,
    slots: std::ops::Range<usize>,
}

/// See `ObjectStore::verify`.
pub(super) fn run_verify(
    store: &ObjectStore,
    record: &ObjectRecord,
    judge: &mut Judge<'_>,
) -> Vec<ShardHealth> {
    // Records come from disks.
    if !record.is_sound() {
        return vec![ShardHealth::Nowhere; record.places.len()];
    }
    let found: Vec<_> = record.places.iter().map(|&place| locate(store, record, place)).collect();
    // Memory for all of it at once: who holds some must not wait for more.
    let there = found.iter().filter(|found| found.is_ok());
    let bytes: Vec<usize> =
        there.flat_map(|_| pieces(record)).map(|(_, piece_bytes)| piece_bytes).collect();
    let mut buffers = store.context.buffers.take_all(&bytes).into_iter();
    let fan = Fan::new(0);
    let mut slots = 0;
    let mut ask = |(place, offset, handle): (Place, u64, DiskHandle)| {
        let first = slots;
        for ((at, _), buffer) in pieces(record).zip(&mut buffers) {
            let operation = Operation::Read { offset: offset + at, buffer };
            let request = Request { operation, class: Class::Background, deadline: None };
            let pin = store.context.space.pin(record.id);
            fan.submit_guarded(slots, &handle, request, Box::new(pin));
            slots += 1;
        }
        Asked { place, offset, slots: first..slots }
    };
    let asked: Vec<_> = found.into_iter().map(|found| found.map(&mut ask)).collect();
    let deadline = store.context.clock.now() + GIVE_UP;
    fan.wait(&*store.context.wait, Some(deadline), |view| view.pending() == 0);
    let shards = asked.into_iter().enumerate();
    shards
        .map(|(shard, asked)| match asked {
            Ok(asked) => answer(store, record, ShardIndex(shard as u8), &asked, &fan, judge),
            Err(health) => health,
        })
        .collect()
}

/// Where a shard's header is, and the disk that has it.
fn locate(
    store: &ObjectStore,
    record: &ObjectRecord,
    place: Option<Place>,
) -> Result<(Place, u64, DiskHandle), ShardHealth> {
    let place = place.ok_or(ShardHealth::Nowhere)?;
    let context = &store.context;
    let handle = context.members.handle(place.disk).ok_or(ShardHealth::Away(place.disk))?;
    let offset = header_offset(store, record, place).ok_or(ShardHealth::Nowhere)?;
    if context.heat.is_hung(place.disk) {
        return Err(ShardHealth::Silent(place.disk));
    }
    Ok((place, offset, handle))
}

/// The header, then the payload in pieces: where each begins behind the header's first byte, and its bytes.
fn pieces(record: &ObjectRecord) -> impl Iterator<Item = (u64, usize)> + use<> {
    let end = record.shard_units().bytes();
    let payload = (UNIT_BYTES..end).step_by(PIECE_BYTES as usize);
    let payload = payload.map(move |at| (at, (end - at).min(PIECE_BYTES) as usize));
    std::iter::once((0, UNIT_BYTES as usize)).chain(payload)
}

fn answer(
    store: &ObjectStore,
    record: &ObjectRecord,
    shard: ShardIndex,
    asked: &Asked,
    fan: &Fan,
    judge: &mut Judge<'_>,
) -> ShardHealth {
    let disk = asked.place.disk;
    let members = &store.context.members;
    let mut bytes: Vec<u8> = Vec::with_capacity(record.shard_units().bytes() as usize);
    for slot in asked.slots.clone() {
        let Some(Outcome { result, buffer, .. }) = fan.take(slot) else {
            members.late(disk);
            return ShardHealth::Silent(disk);
        };
        match (result, buffer) {
            (Ok(()), Some(buffer)) => bytes.extend_from_slice(&buffer),
            (Err(DiskError::Gone | DiskError::Failed), _) | (Ok(()), None) => {
                members.fail(disk, FailReason::Gone);
                return ShardHealth::Away(disk);
            }
            (Err(DiskError::Medium { .. } | DiskError::HostFull | DiskError::Cancelled), _) => {
                return ShardHealth::Unread(disk);
            }
        }
    }
    let (header, payload) = bytes.split_at(UNIT_BYTES as usize);
    match judge(shard, &payload[..record.shard_bytes as usize]) {
        None => ShardHealth::Unjudged(disk),
        Some(0) if !names_shard(store, record, shard, asked.place, asked.offset, header) => {
            ShardHealth::Nameless(disk)
        }
        Some(0) => ShardHealth::Good,
        Some(bad) => ShardHealth::Bad(disk, bad),
    }
}

/// How many cells of a shard's payload do not match this list.
pub(super) fn bad_cells(
    record: &ObjectRecord,
    list: ShardIndex,
    expected: &Checksums,
    payload: &[u8],
) -> u32 {
    let cells = payload.chunks(record.cell_bytes as usize).zip(0..);
    let bad = cells.filter(|&(cell, column)| {
        expected.0.get(column as usize) != Some(&cell_crc(record.id, list, column, cell))
    });
    bad.count() as u32
}
