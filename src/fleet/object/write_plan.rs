//! Where an object being written goes: geometry by what is at hand, places, reservations.

use std::collections::BTreeSet;

use super::store::ObjectStore;
use super::{WriteObject, encode};
use crate::base::limits::OBJECT_BYTES_MAX;
use crate::base::{DiskIndex, ShardIndex, UNIT_BYTES, Units};
use crate::fleet::error::FleetError;
use crate::fleet::geometry::{AtHand, geometry_at_hand, shard_bytes};
use crate::fleet::placement::{Candidate, place};
use crate::fleet::space::{Reservation, Stream};
use crate::format::{CODEC_VANDERMONDE, ObjectKind, ObjectRecord, PIECE_BYTES, Place, Redundancy};

/// An object with its places held.
pub(super) struct Planned {
    /// The record, places filled in.
    pub(super) record: ObjectRecord,
    /// One per shard, in order.
    pub(super) reservations: Vec<Reservation>,
}

impl Planned {
    /// Bytes of the I/O buffers it takes, one a shard.
    pub(super) fn buffers(&self) -> impl Iterator<Item = usize> {
        std::iter::repeat_n(encode::stride(&self.record), self.record.redundancy.shards())
    }
}

/// Bytes of an object with its owners' list.
pub(super) fn object_bytes(object: &WriteObject<'_>) -> u64 {
    let data: usize = object.data.iter().map(|part| part.len()).sum();
    (data + object.pieces.len() * PIECE_BYTES) as u64
}

/// Decides geometry and places of one object and holds them [R12]. `avoid` are disks that were late
/// or full in this attempt: not at hand, though not gone either [R11].
pub(super) fn plan_write(
    store: &ObjectStore,
    object: &WriteObject<'_>,
    avoid: &BTreeSet<DiskIndex>,
) -> Result<Planned, FleetError> {
    let bytes = object_bytes(object);
    assert!(bytes > 0 && bytes <= OBJECT_BYTES_MAX, "an object has 1 to OBJECT_BYTES_MAX bytes");
    // [R1] With more than m members out nothing is acknowledged before some are back: what is written then is to
    // have its full margin, and not what the few that are left can give.
    store.context.members.enough()?;
    let mut full: BTreeSet<DiskIndex> = BTreeSet::new();
    // Each round that fails finds one more disk without a long enough run.
    loop {
        let (redundancy, shard_units, candidates) =
            geometry_now(store, object, bytes, avoid, &full)?;
        // [R24] Tables have more copies than m + 1, and are capped like the rest.
        let parity = redundancy.tolerates().min(store.context.members.parity());
        let disks = {
            let mut random = store.random.lock();
            place(&candidates, redundancy.shards(), parity, &mut random)
                .expect("the geometry is no wider than the candidates")
        };
        let mut reservations = Vec::with_capacity(disks.len());
        for disk in disks {
            let stream = Stream::of(object.kind);
            match store.context.space.reserve(disk, shard_units, stream, object.level) {
                Some(reservation) => reservations.push(reservation),
                None => {
                    full.insert(disk);
                }
            }
        }
        if reservations.len() == redundancy.shards() {
            let record = record_of(store, object, bytes, redundancy, &reservations);
            return Ok(Planned { record, reservations });
        }
    }
}

/// The widest geometry at full margin on the disks at hand, and those disks. Narrower means longer
/// shards, which fewer disks may have room for; so until it holds.
fn geometry_now(
    store: &ObjectStore,
    object: &WriteObject<'_>,
    bytes: u64,
    avoid: &BTreeSet<DiskIndex>,
    full: &BTreeSet<DiskIndex>,
) -> Result<(Redundancy, Units, Vec<Candidate>), FleetError> {
    let parity = store.context.members.parity();
    let mut wish = object.redundancy;
    loop {
        let units = Units(1) + Units::covering(shard_bytes(wish, bytes));
        let (all, at_hand) = candidates(store, units, object, avoid);
        let present = at_hand.len();
        let with_room: Vec<Candidate> = at_hand
            .into_iter()
            .filter(|one| one.free_units >= units.0 && !full.contains(&one.disk))
            .collect();
        let no_room = FleetError::NoRoom { shards: wish.shards(), bytes: units.bytes() };
        let out = store.context.members.len() - present;
        if present <= parity && all > present && out > parity {
            // [R11] Late is not dead: beyond m disks out, writing waits for the late ones.
            return Err(FleetError::TooFewDisks { have: present, need: parity + 1 });
        }
        let at_hand = AtHand { present, with_room: with_room.len() };
        let Some(redundancy) = geometry_at_hand(wish, parity, at_hand) else {
            let none = FleetError::TooFewDisks { have: present, need: parity + 1 };
            return Err(if present == 0 { none } else { no_room });
        };
        if redundancy == wish {
            return Ok((redundancy, units, with_room));
        }
        wish = redundancy;
    }
}

/// How many disks take writes, and those of them that are not to be avoided.
fn candidates(
    store: &ObjectStore,
    units: Units,
    object: &WriteObject<'_>,
    avoid: &BTreeSet<DiskIndex>,
) -> (usize, Vec<Candidate>) {
    let active = store.context.members.placeable();
    let candidates = active
        .iter()
        .filter(|disk| !avoid.contains(disk))
        .filter_map(|&disk| candidate(store, disk, units, object))
        .collect();
    (active.len(), candidates)
}

fn candidate(
    store: &ObjectStore,
    disk: DiskIndex,
    units: Units,
    object: &WriteObject<'_>,
) -> Option<Candidate> {
    let member = store.context.members.get(disk)?;
    let room = store.context.space.room(disk).unwrap_or_default();
    Some(Candidate {
        disk,
        free_units: room.free_for(object.level).0,
        wait: store.context.heat.wait(disk, units.bytes()),
        enclosure: member.enclosure,
        failing: member.failing,
    })
}

/// Another place for this shard of `record`, on a disk that has none of its shards, and in an enclosure
/// with fewer than m of the others if there is one [R24].
pub(super) fn plan_elsewhere(
    store: &ObjectStore,
    object: &WriteObject<'_>,
    record: &ObjectRecord,
    shard: ShardIndex,
    avoid: &BTreeSet<DiskIndex>,
) -> Option<Reservation> {
    let units = record.shard_units();
    let taken: BTreeSet<DiskIndex> =
        record.places.iter().flatten().map(|place| place.disk).collect();
    let (_, mut candidates) = candidates(store, units, object, avoid);
    candidates.retain(|one| one.free_units >= units.0 && !taken.contains(&one.disk));
    let cap = store.context.members.parity().max(1);
    let enclosure = |disk| store.context.members.get(disk).and_then(|member| member.enclosure);
    let others = record.places.iter().enumerate().filter(|(at, _)| *at != shard.as_usize());
    let others: Vec<Option<u16>> =
        others.filter_map(|(_, place)| *place).map(|place| enclosure(place.disk)).collect();
    let is_crowded = |one: &Candidate| {
        one.enclosure.is_some() && others.iter().filter(|&&of| of == one.enclosure).count() >= cap
    };
    while !candidates.is_empty() {
        let (crowded, fit): (Vec<Candidate>, Vec<Candidate>) =
            candidates.iter().copied().partition(is_crowded);
        let from = if fit.is_empty() { crowded } else { fit };
        let disk = place(&from, 1, 1, &mut store.random.lock())?[0];
        let stream = Stream::of(record.kind);
        let reservation = store.context.space.reserve(disk, units, stream, object.level);
        if reservation.is_some() {
            return reservation;
        }
        candidates.retain(|one| one.disk != disk);
    }
    None
}

fn record_of(
    store: &ObjectStore,
    object: &WriteObject<'_>,
    bytes: u64,
    redundancy: Redundancy,
    reservations: &[Reservation],
) -> ObjectRecord {
    let pieces = (object.pieces.len() * PIECE_BYTES) as u64;
    let full_width = store.context.members.redundancy().data_shards();
    let id = object.id.unwrap_or_else(|| store.next_id());
    let record = ObjectRecord {
        id,
        kind: object.kind,
        redundancy,
        codec: CODEC_VANDERMONDE,
        cell_bytes: object.cell_bytes,
        length: bytes as u32,
        shard_bytes: shard_bytes(redundancy, bytes) as u32,
        pieces_offset: (bytes - pieces) as u32,
        version: 0,
        provisional: object.kind == ObjectKind::Data && redundancy.data_shards() < full_width,
        lsn: object.lsn,
        places: reservations.iter().map(|one| Some(place_of(one))).collect(),
    };
    assert!(record.is_sound(), "a record we made makes sense: {record:?}");
    assert!(reservations.iter().all(|one| one.units() == record.shard_units()));
    record
}

/// The place that a reservation holds.
pub(super) fn place_of(reservation: &Reservation) -> Place {
    Place { disk: reservation.disk(), offset: reservation.offset() }
}

/// Byte offset on its disk of a shard's header. None if the member is unknown or the place lies
/// outside its data area: a record from a disk is not believed.
pub(super) fn header_offset(
    store: &ObjectStore,
    record: &ObjectRecord,
    place: Place,
) -> Option<u64> {
    let layout = store.context.members.layout(place.disk)?;
    let end = place.offset.0.checked_add(record.shard_units().0)?;
    (end <= layout.data_units.0).then(|| layout.data_offset(place.offset))
}

/// Byte offset on its disk of a shard's payload, as `header_offset`.
pub(super) fn payload_offset(
    store: &ObjectStore,
    record: &ObjectRecord,
    shard: ShardIndex,
) -> Option<(DiskIndex, u64)> {
    let place = (*record.places.get(shard.as_usize())?)?;
    Some((place.disk, header_offset(store, record, place)? + UNIT_BYTES))
}
