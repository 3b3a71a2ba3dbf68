//! [R21] Rewriting bad cells where they are.
//!
//! Only under a pin, so that the place cannot have become another object's; and only if the shard
//! header there, read again now, names this shard of this object on this disk at this place: else the
//! disk may answer for the wrong place, and writing would destroy somebody else's bytes. What is
//! written was rebuilt from verified cells and matches the checksum. Never in a pool that is only read.
//!
//! The write holds a pin of its own until it is reaped [R7]. It is not flushed: until it is durable the
//! cell is as bad as it was.

use std::time::Duration;

use super::ChecksumSource;
use super::reader::{Reading, column_bytes};
use super::store::ObjectStore;
use super::write_plan::header_offset;
use crate::base::limits::READ_DEADLINE_MS;
use crate::base::{ShardIndex, UNIT_BYTES};
use crate::fleet::disk::{Buffer, Class, DiskHandle, Fan, Operation, Request, Slice};
use crate::format::{ObjectRecord, Place, RawShardHeader, SHARD_HEADER_BYTES, cell_crc};

/// More bad cells of one shard are not a spot on a disk: left to the repair service.
const CELLS_MAX: usize = 64;

/// Rewrites what a finished read found bad, where that is safe; returns the shards made whole.
pub(super) fn repair_cells<C: ChecksumSource + ?Sized>(reading: &Reading<'_, C>) -> Vec<usize> {
    let (store, record) = (reading.store(), reading.record());
    let mut repaired = Vec::new();
    if store.context.read_only {
        return repaired;
    }
    for (shard, mut cells, checksums) in reading.bad_cells() {
        cells.sort_unstable();
        cells.dedup();
        let Some(checksums) = checksums else { continue };
        let index = ShardIndex(shard as u8);
        let list = record.checksum_list(index);
        let mut good: Vec<(u32, Vec<u8>)> = Vec::new();
        for &column in cells.iter().take(CELLS_MAX) {
            if reading.good_in(column) < record.redundancy.data_shards() {
                continue;
            }
            let mut cell = vec![0; column_bytes(record, &(column..column + 1)).len()];
            reading.rebuild(shard, column, &mut cell);
            let crc = cell_crc(record.id, list, column, &cell);
            if checksums.0.get(column as usize) == Some(&crc) {
                good.push((column, cell));
            }
        }
        let all = good.len() == cells.len();
        if rewrite(store, record, index, &good) && all {
            repaired.push(shard);
        }
    }
    repaired
}

/// Writes the cells if the header there is the shard's. True if all writes succeeded.
fn rewrite(
    store: &ObjectStore,
    record: &ObjectRecord,
    shard: ShardIndex,
    cells: &[(u32, Vec<u8>)],
) -> bool {
    let Some(place) = record.places[shard.as_usize()] else { return false };
    let Some(offset) = header_offset(store, record, place) else { return false };
    let Some(handle) = store.context.members.handle(place.disk) else { return false };
    if cells.is_empty() || !header_names(store, record, shard, place, offset, &handle) {
        return false;
    }
    let fan = Fan::new(cells.len());
    for (slot, (column, cell)) in cells.iter().enumerate() {
        let at = column_bytes(record, &(*column..*column + 1)).start as u64;
        let operation = Operation::Write {
            offset: offset + UNIT_BYTES + at,
            data: Slice::copy_of(cell),
            durable: false,
        };
        let request = Request { operation, class: Class::Background, deadline: None };
        let pin = store.context.space.pin(record.id);
        fan.submit_guarded(slot, &handle, request, Box::new(pin));
    }
    let deadline = store.context.clock.now() + Duration::from_millis(READ_DEADLINE_MS);
    fan.wait(&*store.context.wait, Some(deadline), |view| view.pending() == 0);
    fan.look(|view| view.succeeded() == cells.len())
}

fn header_names(
    store: &ObjectStore,
    record: &ObjectRecord,
    shard: ShardIndex,
    place: Place,
    offset: u64,
    handle: &DiskHandle,
) -> bool {
    let fan = Fan::new(1);
    let operation = Operation::Read { offset, buffer: Buffer::zeroed(SHARD_HEADER_BYTES) };
    let request = Request { operation, class: Class::Background, deadline: None };
    fan.submit(0, handle, request);
    let deadline = store.context.clock.now() + Duration::from_millis(READ_DEADLINE_MS);
    fan.wait(&*store.context.wait, Some(deadline), |view| view.pending() == 0);
    let Some(outcome) = fan.take(0) else { return false };
    let (Ok(()), Some(bytes)) = (outcome.result, outcome.buffer) else { return false };
    names_shard(store, record, shard, place, offset, &bytes)
}

/// Whether these bytes, read at `offset`, are the header of this shard at this place.
pub(super) fn names_shard(
    store: &ObjectStore,
    record: &ObjectRecord,
    shard: ShardIndex,
    place: Place,
    offset: u64,
    bytes: &[u8],
) -> bool {
    let members = &store.context.members;
    let Some(disk) = members.uuid(place.disk) else { return false };
    RawShardHeader::decode(bytes, offset)
        .and_then(|raw| raw.verify(members.pool(), disk, place.offset))
        .is_ok_and(|header| header.is_shard_of(record, shard))
}
