//! Free space against a plain map of units, and the rules one by one.

use super::*;
use crate::base::{Lsn, Random};
use crate::format::space_snapshot::Run;
use crate::format::{Place, Redundancy};

const DISK: DiskIndex = DiskIndex(0);

fn record(id: u64, places: &[(u16, u64)], shard_bytes: u32) -> ObjectRecord {
    ObjectRecord {
        id: ObjectId(id),
        kind: ObjectKind::Data,
        redundancy: Redundancy::Replica { copies: places.len() as u8 },
        codec: 1,
        cell_bytes: 32768,
        length: shard_bytes,
        shard_bytes,
        pieces_offset: shard_bytes,
        version: 1,
        provisional: false,
        lsn: Lsn(1),
        places: places
            .iter()
            .map(|&(disk, offset)| Some(Place { disk: DiskIndex(disk), offset: Units(offset) }))
            .collect(),
    }
}

fn space(units: u64, group: u64) -> Space {
    let space = Space::new();
    space.add_disk(DISK, Units(units), Units(group));
    space
}

/// What the space should be, unit by unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unit {
    Free,
    /// Held by a reservation, nothing committed.
    Reserved,
    Used(u64),
    /// Deleted, but pinned, frozen or still being written.
    Pending,
}

struct Model {
    units: [Vec<Unit>; 2],
}

impl Model {
    fn set(&mut self, record: &ObjectRecord, to: Unit) {
        for place in record.places.iter().flatten() {
            let start = place.offset.0 as usize;
            let end = start + record.shard_units().0 as usize;
            self.units[place.disk.as_usize()][start..end].fill(to);
        }
    }

    /// Nothing pinned, frozen or in flight holds pending units any more.
    fn settle(&mut self, record: &ObjectRecord) {
        self.set(record, Unit::Free);
    }

    fn used_runs(&self, disk: usize) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (at, unit) in self.units[disk].iter().enumerate() {
            if matches!(unit, Unit::Used(_)) {
                match runs.last_mut() {
                    Some((start, length)) if *start + *length == at as u64 => *length += 1,
                    _ => runs.push((at as u64, 1)),
                }
            }
        }
        runs
    }

    fn count(&self, disk: usize, free: bool) -> u64 {
        let wanted = |unit: &&Unit| match unit {
            Unit::Free => free,
            Unit::Used(_) => !free,
            Unit::Reserved | Unit::Pending => false,
        };
        self.units[disk].iter().filter(wanted).count() as u64
    }
}

fn runs_of(groups: &[GroupState], disk: u16, group_units: u64) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for group in groups.iter().filter(|group| group.disk == DiskIndex(disk)) {
        for run in &group.runs {
            let start = u64::from(group.group) * group_units + u64::from(run.start);
            match runs.last_mut() {
                Some((at, long)) if *at + *long == start => *long += u64::from(run.units),
                _ => runs.push((start, u64::from(run.units))),
            }
        }
    }
    runs
}

/// Applies an increment to a list of groups, as a mount that loads base and increments.
fn load_all(loads: &[Vec<GroupState>], sizes: [(u64, u64); 2]) -> Space {
    let space = Space::new();
    for (index, (units, group)) in sizes.iter().enumerate() {
        space.add_disk(DiskIndex(index as u16), Units(*units), Units(*group));
    }
    for groups in loads {
        space.load(groups).expect("what was snapshotted loads");
    }
    space.check_invariants();
    space
}

struct InFlight {
    record: ObjectRecord,
    reservations: Vec<Reservation>,
}

#[test]
fn r18_r22_space_is_a_map_of_units() {
    for seed in 0..12 {
        println!("seed {seed}");
        run_against_the_model(seed);
    }
}

#[allow(clippy::too_many_lines, reason = "one loop over all operations, model beside engine")]
fn run_against_the_model(seed: u64) {
    let mut random = Random::new(seed);
    let sizes = [(1000, 64), (777, 50)];
    let space = load_all(&[], sizes);
    let mut model = Model { units: [vec![Unit::Free; 1000], vec![Unit::Free; 777]] };
    let mut flying: Vec<InFlight> = Vec::new();
    let mut alive: Vec<ObjectRecord> = Vec::new();
    let mut pins: Vec<(ObjectRecord, bool, Pin)> = Vec::new();
    let mut late: Vec<(ObjectRecord, bool, Vec<Reservation>)> = Vec::new();
    let mut frozen: Option<Vec<ObjectRecord>> = None;
    let first = space.snapshot(true);
    space.snapshot_kept(first.number);
    let mut loads = vec![first.groups];
    // Snapshots on their way, with what they should say.
    let mut taken: Vec<(Snapshot, bool, Vec<_>)> = Vec::new();
    for id in 1..3000u64 {
        match random.below(12) {
            0..=3 => {
                let units = match random.below(3) {
                    0 => 2,
                    1 => 2 + random.below(30),
                    _ => 18 + random.below(90),
                };
                let shard_bytes = (units - 1) as u32 * 4096;
                let mut reservations = Vec::new();
                for disk in 0..2u16 {
                    let level = ReserveLevel::Repair;
                    let one = space.reserve(DiskIndex(disk), Units(units), Stream::Data, level);
                    let fits = model.units[usize::from(disk)]
                        .chunk_by(|a, b| (*a == Unit::Free) == (*b == Unit::Free))
                        .any(|run| run[0] == Unit::Free && run.len() as u64 >= units);
                    assert_eq!(one.is_some(), fits, "found exactly when a run is there");
                    reservations.extend(one);
                }
                if reservations.is_empty() {
                    continue;
                }
                let places: Vec<(u16, u64)> =
                    reservations.iter().map(|one| (one.disk().0, one.offset().0)).collect();
                let record = record(id, &places, shard_bytes);
                for place in record.places.iter().flatten() {
                    let start = place.offset.0 as usize;
                    let range = start..start + units as usize;
                    assert!(
                        model.units[place.disk.as_usize()][range].iter().all(|u| *u == Unit::Free),
                        "[R7] only free units are handed out"
                    );
                }
                model.set(&record, Unit::Reserved);
                flying.push(InFlight { record, reservations });
            }
            4 | 5 if !flying.is_empty() => {
                let one = flying.swap_remove(random.below(flying.len() as u64) as usize);
                match random.below(4) {
                    0 => {
                        drop(one.reservations);
                        model.settle(&one.record);
                    }
                    1 => {
                        // Put while a write is still unreaped: the hold outlives put and delete.
                        space.put(&one.record).expect("a reserved place can be put");
                        model.set(&one.record, Unit::Used(one.record.id.0));
                        alive.push(one.record.clone());
                        late.push((one.record, false, one.reservations));
                    }
                    _ => {
                        space.adopt(one.record.id, one.reservations);
                        if random.one_in(5) {
                            space.abandon(one.record.id);
                            model.settle(&one.record);
                        } else {
                            space.put(&one.record).expect("a reserved place can be put");
                            space.put(&one.record).expect("putting twice changes nothing");
                            model.set(&one.record, Unit::Used(one.record.id.0));
                            alive.push(one.record);
                        }
                    }
                }
            }
            6 | 7 if !alive.is_empty() => {
                let record = alive.swap_remove(random.below(alive.len() as u64) as usize);
                space.delete(&record).expect("what was put can be deleted");
                model.set(&record, Unit::Pending);
                let pinned = pins.iter_mut().filter(|pin| pin.0.id == record.id);
                let mut held = pinned.map(|pin| pin.1 = true).count() > 0;
                for one in late.iter_mut().filter(|one| one.0.id == record.id) {
                    one.1 = true;
                    held = true;
                }
                if let (false, Some(frozen)) = (held, &mut frozen) {
                    frozen.push(record);
                } else if !held {
                    model.settle(&record);
                }
            }
            8 if !alive.is_empty() => {
                let record = alive[random.below(alive.len() as u64) as usize].clone();
                // Late writes and pins of one object at once are left to the test below.
                if late.iter().all(|one| one.0.id != record.id) {
                    let pin = space.pin(record.id);
                    pins.push((record, false, pin));
                }
            }
            9 if !pins.is_empty() => {
                let (record, deleted, pin) =
                    pins.swap_remove(random.below(pins.len() as u64) as usize);
                drop(pin);
                if deleted && pins.iter().all(|pin| pin.0.id != record.id) {
                    match &mut frozen {
                        Some(frozen) => frozen.push(record),
                        None => model.settle(&record),
                    }
                }
            }
            10 if !late.is_empty() && frozen.is_none() => {
                let (record, deleted, reservations) = late.swap_remove(0);
                drop(reservations);
                if deleted {
                    model.settle(&record);
                }
            }
            11 => match random.below(4) {
                0 if frozen.is_none() && late.is_empty() => {
                    space.freeze_frees(true);
                    frozen = Some(Vec::new());
                }
                1 => {
                    space.freeze_frees(false);
                    for record in frozen.take().unwrap_or_default() {
                        model.settle(&record);
                    }
                }
                _ => {
                    let all = random.one_in(3);
                    let want = (0..sizes.len()).map(|disk| model.used_runs(disk)).collect();
                    taken.push((space.snapshot(all), all, want));
                    if random.one_in(2) {
                        // Any of them takes effect, and what was taken before it never will.
                        let at = random.below(taken.len() as u64) as usize;
                        let (snapshot, all, want) = taken.drain(..=at).next_back().expect("one");
                        space.snapshot_kept(snapshot.number);
                        if all {
                            loads.clear();
                        }
                        loads.push(snapshot.groups);
                        let loaded = load_all(&loads, sizes).snapshot(true);
                        for (disk, (_, group)) in sizes.iter().enumerate() {
                            let got = runs_of(&loaded.groups, disk as u16, *group);
                            assert_eq!(
                                got, want[disk],
                                "[R18] exactly what puts and deletes imply"
                            );
                        }
                    }
                }
            },
            _ => {}
        }
        space.check_invariants();
        for disk in 0..2 {
            let room = space.room(DiskIndex(disk as u16)).expect("the disk was added");
            assert_eq!(room.free.0, model.count(disk, true), "free at step {id}");
            assert_eq!(room.used.0, model.count(disk, false), "used at step {id}");
        }
    }
}

#[test]
fn i3_a_pin_outlives_the_delete_and_a_late_write_outlives_the_pin() {
    let space = space(1000, 100);
    let write = space
        .reserve(DISK, Units(10), Stream::Data, ReserveLevel::User)
        .expect("an empty disk has room");
    let in_flight = write.again();
    let record = record(1, &[(0, write.offset().0)], 9 * 4096);
    space.adopt(record.id, vec![write]);
    space.put(&record).expect("it was reserved");
    let pin = space.pin(record.id);
    space.delete(&record).expect("it was put");
    assert_eq!(space.free_units(DISK), Units(990));
    assert_eq!(space.pending_units(), Units(10));
    drop(pin);
    assert_eq!(space.free_units(DISK), Units(990), "[R7] the write is not reaped yet");
    drop(in_flight);
    assert_eq!(space.free_units(DISK), Units(1000));
    assert_eq!(space.pending_units(), Units(0));
}

#[test]
fn r4_frozen_frees_come_back_at_the_release() {
    let space = space(1000, 100);
    let old = record(1, &[(0, 0)], 4096 * 500);
    space.put(&old).expect("the place is free");
    space.freeze_frees(true);
    space.delete(&old).expect("it was put");
    assert!(space.reserve(DISK, Units(600), Stream::Data, ReserveLevel::Repair).is_none());
    space.freeze_frees(false);
    assert!(space.reserve(DISK, Units(600), Stream::Data, ReserveLevel::Repair).is_some());
}

#[test]
fn r22_reserves_hold_on_each_disk() {
    let space = space(1000, 10);
    let all = |level| {
        let mut held = Vec::new();
        while let Some(one) = space.reserve(DISK, Units(10), Stream::Data, level) {
            held.push(one);
        }
        held
    };
    let user = all(ReserveLevel::User);
    assert_eq!(space.free_units(DISK), Units(100));
    let reclaim = all(ReserveLevel::Reclaim);
    assert_eq!(space.free_units(DISK), Units(20));
    assert!(!space.placeable(&[DISK], 1, Units(1), ReserveLevel::Reclaim));
    assert!(space.placeable(&[DISK], 1, Units(20), ReserveLevel::Repair));
    let repair = all(ReserveLevel::Repair);
    assert_eq!((user.len(), reclaim.len(), repair.len()), (90, 8, 2));
}

#[test]
fn r22_data_in_splinters_leaves_the_last_long_run_to_tables() {
    let space = space(6400, 100);
    let all = |units| {
        let mut held = Vec::new();
        while let Some(one) = space.reserve(DISK, units, Stream::Data, ReserveLevel::Reclaim) {
            held.push(one);
        }
        held
    };
    let (mut held, mut number) = (all(Units(17)), 0);
    held.retain(|_| {
        number += 1;
        number % 2 == 0
    });
    held.extend(all(Units(9)));
    assert!(space.free_units(DISK).0 > 1000, "there is room in splinters");
    let table = |units| space.reserve(DISK, Units(units), Stream::Table, ReserveLevel::Reclaim);
    assert!(table(200).is_none(), "one group is kept, not two");
    assert!(table(100).is_some());
    let data = space.reserve(DISK, Units(17), Stream::Data, ReserveLevel::Repair);
    assert!(data.is_some(), "repair may take all");
}

/// Groups that tables have filled are no room for more of them.
#[test]
fn r22_room_is_kept_for_tables_beside_those_there_are() {
    let space = space(6400, 100);
    let table = |units| space.reserve(DISK, Units(units), Stream::Table, ReserveLevel::Reclaim);
    let _tables = [table(100), table(100), table(100)];
    let all = |units| {
        let data = || space.reserve(DISK, units, Stream::Data, ReserveLevel::Reclaim);
        std::iter::from_fn(data).collect::<Vec<_>>()
    };
    let large = all(Units(17)).into_iter();
    let mut held: Vec<Reservation> = large.step_by(2).collect();
    held.extend(all(Units(9)));
    space.check_invariants();
    assert!(space.free_units(DISK).0 > 1000, "there is room in splinters");
    assert!(table(100).is_some());
}

#[test]
fn r22_a_group_serves_one_size_class() {
    let space = space(65536 * 4, 65536);
    let mut groups = Vec::new();
    let mut held = Vec::new();
    for units in [2, 17, 18, 129, 130, 513] {
        let one = space
            .reserve(DISK, Units(units), Stream::Data, ReserveLevel::User)
            .expect("an empty disk has room");
        groups.push(one.offset().0 / 65536);
        held.push(one);
    }
    assert_eq!(groups, [0, 0, 1, 1, 2, 2]);
    let table = space
        .reserve(DISK, Units(2049), Stream::Table, ReserveLevel::User)
        .expect("a group is left");
    assert_eq!(table.offset().0 / 65536, 3);
}

#[test]
fn r22_shards_run_over_the_ends_of_small_groups() {
    // 64 groups of 600 units: one full shard of 513 each, if they could not cross.
    let space = space(64 * 600, 600);
    let mut held = Vec::new();
    while let Some(one) = space.reserve(DISK, Units(513), Stream::Data, ReserveLevel::Repair) {
        held.push(one);
    }
    assert_eq!(held.len(), 64 * 600 / 513);
    space.check_invariants();
    let table = |units| space.reserve(DISK, Units(units), Stream::Table, ReserveLevel::Repair);
    held.drain(10..15);
    assert!(table(5 * 513).is_some(), "larger than a group, in the hole of five shards");
    held.clear();
    assert_eq!(space.free_units(DISK), Units(64 * 600));
}

#[test]
fn nonsense_is_an_error_not_a_panic() {
    let space = space(1000, 100);
    space.put(&record(1, &[(0, 10)], 4096 * 9)).expect("the place is free");
    assert!(space.put(&record(2, &[(0, 15)], 4096 * 9)).is_err(), "overlaps");
    assert!(space.put(&record(3, &[(0, 995)], 4096 * 9)).is_err(), "beyond the end");
    assert!(space.put(&record(3, &[(0, u64::MAX)], 4096 * 9)).is_err());
    assert!(space.put(&record(4, &[(9, 0)], 4096 * 9)).is_ok(), "a disk that is not ours");
    assert!(space.delete(&record(5, &[(0, 500)], 4096 * 9)).is_err(), "never put");
    let loads = |disk, group, used: &[(u32, u32)]| {
        let runs = used.iter().map(|&(start, units)| Run { start, units }).collect();
        space.load(&[GroupState { disk: DiskIndex(disk), group, class: 0, runs }])
    };
    assert!(loads(0, 10, &[(0, 1)]).is_err(), "no such group");
    assert!(loads(1, 1, &[(0, 1)]).is_err(), "no such disk");
    assert!(loads(0, 1, &[(90, 20)]).is_err(), "beyond the group");
    assert!(loads(0, 1, &[(u32::MAX, 20)]).is_err());
    assert!(loads(0, 1, &[(0, 20), (10, 20)]).is_err(), "overlapping runs");
    space.check_invariants();
}

#[test]
fn r20_a_replaced_record_moves_one_place() {
    let space = space(1000, 100);
    let old = record(1, &[(0, 0), (0, 100)], 4096 * 9);
    let mut new = record(1, &[(0, 0), (0, 300)], 4096 * 9);
    new.version = 2;
    space.put(&old).expect("free");
    space.replace(&old, &new).expect("moves one place");
    assert_eq!(space.room(DISK).expect("added").used, Units(20));
    space.delete(&new).expect("it was put");
    assert_eq!(space.free_units(DISK), Units(1000));
    space.check_invariants();
}

#[test]
fn a_15_tb_disk_costs_little_until_it_is_touched() {
    let space = Space::new();
    for disk in 0..8 {
        space.add_disk(DiskIndex(disk), Units(15_000_000_000_000 / 4096), Units(65536));
    }
    let mut held = Vec::new();
    for step in 0..2000u64 {
        let disk = DiskIndex((step % 8) as u16);
        held.push(space.reserve(disk, Units(513), Stream::Data, ReserveLevel::User));
    }
    assert!(held.iter().all(Option::is_some));
    assert!(space.snapshot(true).groups.is_empty());
}

#[test]
fn claimed_places_are_held_and_in_no_snapshot() {
    let space = space(64, 16);
    let table = record(1, &[(0, 4)], 7 * 4096);
    assert_eq!(space.claim(&table), Ok(()));
    assert_eq!(space.free_units(DISK), Units(56));
    assert!(space.snapshot(true).groups.is_empty(), "R18: no batch names it");
    assert!(space.claim(&record(2, &[(0, 11)], 4096)).is_err(), "part of it is taken");
    space.abandon(ObjectId(1));
    space.abandon(ObjectId(2));
    assert_eq!(space.free_units(DISK), Units(64));
    space.check_invariants();
}

#[test]
fn r4_quarantine_holds_what_replay_freed_and_nobody_took_again() {
    let space = space(64, 16);
    let old = record(1, &[(0, 8)], 15 * 4096);
    assert_eq!(space.put(&old), Ok(()));
    assert_eq!(space.delete(&old), Ok(()));
    let new = record(2, &[(0, 12)], 3 * 4096);
    assert_eq!(space.put(&new), Ok(()));
    let held = space.quarantine(&old);
    assert_eq!(space.free_units(DISK), Units(64 - 16));
    for _ in 0..48 {
        let place = space.reserve(DISK, Units(1), Stream::Data, ReserveLevel::Repair);
        let place = place.expect("there is room");
        assert!(!(8..24).contains(&place.offset().0), "quarantined");
        std::mem::forget(place);
    }
    assert!(space.reserve(DISK, Units(1), Stream::Data, ReserveLevel::Repair).is_none());
    drop(held);
    assert_eq!(space.free_units(DISK), Units(12));
    space.check_invariants();
}

/// The write of an in-place repair may be in flight when its object is given up.
#[test]
fn r7_a_pin_holds_an_object_that_is_given_up() {
    let space = space(100, 100);
    let reserve = || space.reserve(DISK, Units(60), Stream::Data, ReserveLevel::Repair);
    let reservation = reserve().expect("it is all free");
    let object = ObjectId(7);
    space.adopt(object, vec![reservation]);
    let pin = space.pin(object);
    space.abandon(object);
    assert!(reserve().is_none(), "the write may still land");
    assert_eq!(space.pending_units(), Units(60));
    drop(pin);
    assert!(reserve().is_some());
    assert_eq!(space.pending_units(), Units(0));
    space.check_invariants();
}

#[test]
fn r18_an_inventory_says_what_is_used_and_what_is_held_and_for_whom() {
    let space = space(64, 16);
    let object = record(1, &[(0, 10)], 11 * 4096);
    space.put(&object).expect("the place is free");
    space.put(&record(2, &[(0, 22)], 4096)).expect("it touches the first");
    let table = record(3, &[(0, 40)], 7 * 4096);
    space.claim(&table).expect("the place is free");
    let gone = record(4, &[(0, 30)], 4096);
    space.put(&gone).expect("the place is free");
    let pin = space.pin(gone.id);
    space.delete(&gone).expect("it was put");
    // Named while one of its writes is not answered yet: held, but used.
    let write = space.reserve(DISK, Units(2), Stream::Data, ReserveLevel::User).expect("room");
    let late = record(5, &[(0, write.offset().0)], 4096);
    space.put(&late).expect("it was reserved");
    let held = |range, object| Held { range, object };
    let want = Inventory {
        disk: DISK,
        area: Units(64),
        used: vec![0..2, 10..24],
        held: vec![held(30..32, None), held(40..48, Some(ObjectId(3)))],
    };
    assert_eq!(space.inventory(), [want]);
    drop(pin);
    space.abandon(table.id);
    assert!(space.inventory()[0].held.is_empty());
}
