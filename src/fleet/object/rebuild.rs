//! Making shards of objects anew, each at another place: what is on lost disks, and what was found bad.
//!
//! Order, and what a crash after each step leaves:
//!
//! 1. Each object is read, every byte verified [I4]; the wanted shards are made from it, and must have the
//!    checksums that the index has for them. Nothing is on disk.
//! 2. They get places on disks that have no other shard of their object, and are written there with their
//!    headers; when those of all objects are written, the disks are flushed, once for all of them. No
//!    record names these places: after a crash they are free.
//! 3. The records with the new places go to the caller, who commits each if the one that was read is
//!    still current [R20]. The shards that stay are not touched.

use super::store::ObjectStore;
use super::write_plan::{place_of, plan_elsewhere};
use super::writer::{Remade, hung_disks, run_remade};
use super::{ChecksumSource, WriteObject};
use crate::base::limits::{OBJECT_BYTES_MAX, PARITY_MAX, REPAIR_BYTES, SHARD_BYTES};
use crate::base::{Lsn, ShardIndex};
use crate::fleet::codec::Codec;
use crate::fleet::disk::{Buffer, Class};
use crate::fleet::error::FleetError;
use crate::fleet::space::{Reservation, ReserveLevel};
use crate::format::{Checksums, ObjectRecord, Redundancy, SHARD_HEADER_BYTES, cell_crc};

/// Bytes of shards that are written together, at most (one object's may be more).
pub const REBUILD_BYTES: u64 = PARITY_MAX as u64 * SHARD_BYTES;

const _: () = assert!(OBJECT_BYTES_MAX + REBUILD_BYTES <= REPAIR_BYTES, "R27");

/// An object, and which shards of it are to be made anew. The caller holds a pin, and the batch that
/// named the object, or changed its record last, is durable.
#[derive(Clone, Debug)]
pub struct Rebuild<'a> {
    /// Its current record.
    pub record: &'a ObjectRecord,
    /// Which shards.
    pub wanted: Vec<ShardIndex>,
}

/// What rebuilding one object came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rebuilt {
    /// Its record with the new places, and its version raised. The places stay held until
    /// `Space::replace` is told of the batch that names them, or `ObjectStore::release` gives them up.
    Done(ObjectRecord),
    /// Some shard fits nowhere: disks are missing or full.
    NoPlace,
    /// Disks were late or failed meanwhile: try again.
    Late,
}

/// An object on its way.
struct Making<'a> {
    record: &'a ObjectRecord,
    new: ObjectRecord,
    lists: Vec<Checksums>,
    shards: Vec<(ShardIndex, Reservation, Buffer)>,
}

/// See `ObjectStore::rebuild`.
pub(super) fn run_rebuild<C: ChecksumSource + ?Sized>(
    store: &ObjectStore,
    todo: &[Rebuild<'_>],
    checksums: &C,
) -> Vec<Result<Rebuilt, FleetError>> {
    let mut results: Vec<Result<Rebuilt, FleetError>> = Vec::with_capacity(todo.len());
    let mut made = Vec::new();
    for one in todo {
        let making = make(store, one, checksums);
        results.push(making.map(|making| match making {
            None => Rebuilt::NoPlace,
            Some(making) => {
                made.push((results.len(), making));
                Rebuilt::Late
            }
        }));
    }
    if made.is_empty() {
        return results;
    }
    let (numbers, making): (Vec<usize>, Vec<Making<'_>>) = made.into_iter().unzip();
    let objects: Vec<WriteObject<'_>> = making.iter().map(|one| object_of(one.record)).collect();
    let remade = making.into_iter().map(|one| {
        let Making { new, lists, shards, .. } = one;
        Remade { record: new, lists, shards }
    });
    let mut avoid = hung_disks(store);
    if let Some(stored) = run_remade(store, &objects, remade.collect(), &mut avoid) {
        for (number, one) in numbers.into_iter().zip(stored) {
            results[number] = Ok(Rebuilt::Done(one.record));
        }
    }
    results
}

fn object_of(record: &ObjectRecord) -> WriteObject<'static> {
    WriteObject {
        id: Some(record.id),
        kind: record.kind,
        redundancy: record.redundancy,
        data: &[],
        pieces: &[],
        cell_bytes: record.cell_bytes,
        class: Class::Background,
        level: ReserveLevel::Repair,
        lsn: Lsn(0),
    }
}

fn damaged(record: &ObjectRecord) -> FleetError {
    FleetError::Damaged { what: "object record", lsn: record.lsn }
}

/// Step 1, and places. None if some shard fits nowhere.
fn make<'a, C: ChecksumSource + ?Sized>(
    store: &ObjectStore,
    one: &Rebuild<'a>,
    checksums: &C,
) -> Result<Option<Making<'a>>, FleetError> {
    let Rebuild { record, wanted } = one;
    // Records come from disks.
    if !record.is_sound() || wanted.iter().any(|shard| shard.as_usize() >= record.places.len()) {
        return Err(damaged(record));
    }
    let Some((new, reservations)) = find_places(store, record, wanted) else { return Ok(None) };
    let lists = lists_of(record, checksums, wanted)?;
    let units = make_units(store, record, checksums, wanted)?;
    check(record, wanted, &units, &lists)?;
    let shards = wanted.iter().copied().zip(reservations).zip(units);
    let shards = shards.map(|((shard, reservation), unit)| (shard, reservation, unit)).collect();
    Ok(Some(Making { record, new, lists, shards }))
}

/// A record with new places for these shards, held.
fn find_places(
    store: &ObjectStore,
    record: &ObjectRecord,
    wanted: &[ShardIndex],
) -> Option<(ObjectRecord, Vec<Reservation>)> {
    let mut new = record.clone();
    new.version = record.version.saturating_add(1);
    for shard in wanted {
        // Its own disk may take it again, at another place, if it still takes part.
        new.places[shard.as_usize()] = None;
    }
    let (object, avoid) = (object_of(record), hung_disks(store));
    let mut reservations = Vec::new();
    for &shard in wanted {
        let reservation = plan_elsewhere(store, &object, &new, shard, &avoid)?;
        new.places[shard.as_usize()] = Some(place_of(&reservation));
        reservations.push(reservation);
    }
    Some((new, reservations))
}

/// The lists of checksums that the wanted shards need, under their numbers.
fn lists_of<C: ChecksumSource + ?Sized>(
    record: &ObjectRecord,
    checksums: &C,
    wanted: &[ShardIndex],
) -> Result<Vec<Checksums>, FleetError> {
    let mut lists = vec![Checksums::default(); record.places.len()];
    for &shard in wanted {
        let list = record.checksum_list(shard);
        let found = checksums.list(record.id, list)?;
        lists[list.as_usize()] = found.ok_or_else(|| damaged(record))?;
    }
    Ok(lists)
}

/// Room for the header and then the payload of each wanted shard. Memory of its own: the read takes some
/// from the pool, and who holds some must not wait for more.
fn make_units<C: ChecksumSource + ?Sized>(
    store: &ObjectStore,
    record: &ObjectRecord,
    checksums: &C,
    wanted: &[ShardIndex],
) -> Result<Vec<Buffer>, FleetError> {
    let shard_bytes = record.shard_bytes as usize;
    let data_shards = record.redundancy.data_shards();
    // Nothing is reported: this may be the consequence of a report, which would have no end.
    let mut data = store.peek(record, checksums, 0..record.length)?;
    data.resize(shard_bytes * data_shards, 0);
    let of_data = |shard: usize| &data[shard * shard_bytes..][..shard_bytes];
    let mut units: Vec<Buffer> =
        wanted.iter().map(|_| Buffer::zeroed(SHARD_HEADER_BYTES + shard_bytes)).collect();
    let mut parity: Vec<(ShardIndex, &mut [u8])> = Vec::new();
    for (&shard, unit) in wanted.iter().zip(&mut units) {
        let payload = &mut unit[SHARD_HEADER_BYTES..];
        match record.redundancy {
            Redundancy::Replica { .. } => payload.copy_from_slice(of_data(0)),
            Redundancy::Erasure { .. } if shard.as_usize() < data_shards => {
                payload.copy_from_slice(of_data(shard.as_usize()));
            }
            Redundancy::Erasure { .. } => parity.push((shard, payload)),
        }
    }
    if let Redundancy::Erasure { data: k, parity: m } = record.redundancy
        && !parity.is_empty()
    {
        let present: Vec<(ShardIndex, &[u8])> =
            (0..k).map(|shard| (ShardIndex(shard), of_data(shard.into()))).collect();
        Codec::new(k.into(), m.into()).reconstruct(&present, &mut parity);
    }
    Ok(units)
}

/// What was made is what had been there.
fn check(
    record: &ObjectRecord,
    wanted: &[ShardIndex],
    units: &[Buffer],
    lists: &[Checksums],
) -> Result<(), FleetError> {
    for (&shard, unit) in wanted.iter().zip(units) {
        let list = record.checksum_list(shard);
        let cells = unit[SHARD_HEADER_BYTES..].chunks(record.cell_bytes as usize).zip(0..);
        let made = cells.map(|(cell, column)| cell_crc(record.id, list, column, cell));
        if !made.eq(lists[list.as_usize()].0.iter().copied()) {
            log::error!("object {}: shard {shard} cannot be made anew as it was", record.id);
            return Err(damaged(record));
        }
    }
    Ok(())
}
