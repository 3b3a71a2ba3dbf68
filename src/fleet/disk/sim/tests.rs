//! The simulated disk keeps its own promises: what is durable, what a crash may take, each fault.

use std::time::Duration;

use super::*;
use crate::base::{MIB, UNIT_BYTES};
use crate::fleet::disk::DiskState;
use crate::fleet::disk::{Class, DiskHandle, Fan, Operation, Outcome};

const BYTES: u64 = 64 * MIB;

fn quick(seed: u64) -> (Arc<World>, Arc<SimDisk>) {
    let world = World::new(seed);
    let disk = SimDisk::new(&world, SimParameters::quick("d0", BYTES));
    (world, disk)
}

fn read(offset: u64, units: usize) -> Operation {
    Operation::Read { offset, buffer: Buffer::zeroed(units * UNIT_BYTES as usize) }
}

fn write(offset: u64, units: usize, fill: u8, durable: bool) -> Operation {
    let mut buffer = Buffer::zeroed(units * UNIT_BYTES as usize);
    buffer.fill(fill);
    Operation::Write { offset, data: Slice::from(buffer), durable }
}

fn request(operation: Operation) -> Request {
    Request { operation, class: Class::Foreground, deadline: None }
}

fn run(world: &Arc<World>, disk: &Arc<SimDisk>, operation: Operation) -> Outcome {
    let handle: DiskHandle = disk.clone();
    let fan = Fan::new(1);
    fan.submit(0, &handle, request(operation));
    fan.wait(&**world, None, |view| view.pending() == 0);
    fan.take(0).expect("it was answered")
}

fn byte_at(world: &Arc<World>, disk: &Arc<SimDisk>, offset: u64) -> u8 {
    let outcome = run(world, disk, read(offset, 1));
    assert_eq!(outcome.result, Ok(()));
    outcome.buffer.expect("reads return their buffer")[0]
}

fn byte_of(image: &Image, offset: u64) -> u8 {
    let mut byte = [0];
    image.read(offset, &mut byte);
    byte[0]
}

#[test]
fn what_is_written_is_read_back() {
    let (world, disk) = quick(1);
    assert_eq!(byte_at(&world, &disk, 8192), 0);
    assert_eq!(run(&world, &disk, write(8192, 2, 7, false)).result, Ok(()));
    assert_eq!(byte_at(&world, &disk, 8192), 7);
    assert_eq!(byte_at(&world, &disk, 12288), 7);
    assert_eq!(byte_at(&world, &disk, 16384), 0);
    assert_eq!(disk.counters().reads, 4);
    assert_eq!((disk.in_flight(), disk.load().requests), (0, 0));
    assert_eq!(disk.load().outstanding, Duration::ZERO);
}

#[test]
fn what_lies_beyond_the_end_is_an_error_and_no_panic() {
    let (world, disk) = quick(1);
    for offset in [BYTES, BYTES - 4096, u64::MAX / 4096 * 4096] {
        let outcome = run(&world, &disk, read(offset, 2));
        assert_eq!(outcome.result, Err(DiskError::Medium { offset }));
    }
    assert_eq!(disk.state(), DiskState::Working);
}

#[test]
fn i1_only_a_flush_makes_writes_certain() {
    let (world, disk) = quick(2);
    run(&world, &disk, write(0, 4, 1, false));
    let before = disk.snapshot();
    assert_eq!(before.pending_writes(), 1);
    run(&world, &disk, Operation::Flush);
    let after = disk.snapshot();
    assert_eq!(after.pending_writes(), 0);
    let mut lost = 0;
    let mut torn = 0;
    for seed in 0..64 {
        let mut random = Random::new(seed);
        let mut page = [0; 4 * 4096];
        before.crash_image(&mut random).read(0, &mut page);
        let kept = page.chunks(512).filter(|sector| sector[0] == 1).count();
        assert!(page.chunks(512).all(|sector| sector.iter().all(|&byte| byte == sector[0])));
        lost += usize::from(kept == 0);
        torn += usize::from(kept > 0 && kept < 32);
        after.crash_image(&mut random).read(0, &mut page);
        assert!(page.iter().all(|&byte| byte == 1), "flushed bytes survive every crash");
    }
    assert!(lost > 4 && torn > 4, "lost {lost}, torn {torn} of 64");
}

#[test]
fn a_newer_write_may_survive_where_an_older_does_not_but_never_under_a_durable_one() {
    let (world, disk) = quick(3);
    run(&world, &disk, write(0, 1, 1, false));
    run(&world, &disk, write(4096, 1, 2, false));
    let snapshot = disk.snapshot();
    let reordered = (0..64).any(|seed| {
        let image = snapshot.crash_image(&mut Random::new(seed));
        byte_of(&image, 0) == 0 && byte_of(&image, 4096) == 2
    });
    assert!(reordered);
    // A durable write makes the older version of its place void, and leaves the neighbour pending.
    run(&world, &disk, write(0, 1, 3, true));
    let snapshot = disk.snapshot();
    assert_eq!(snapshot.pending_writes(), 1);
    for seed in 0..64 {
        let image = snapshot.crash_image(&mut Random::new(seed));
        assert_eq!(byte_of(&image, 0), 3, "seed {seed}");
    }
}

#[test]
fn r8_a_flush_does_not_cover_a_write_that_completes_after_it_was_submitted() {
    let world = World::new(4);
    let disk = SimDisk::new(&world, SimParameters::quick("d0", BYTES));
    let handle: DiskHandle = disk.clone();
    let fan = Fan::new(3);
    run(&world, &disk, write(0, 1, 1, false));
    fan.submit(0, &handle, request(Operation::Flush));
    fan.submit(1, &handle, request(write(4096, 1, 2, false)));
    fan.wait(&*world, None, |view| view.pending() == 0);
    let durable = disk.snapshot().durable().clone();
    assert_eq!((byte_of(&durable, 0), byte_of(&durable, 4096)), (1, 0));
    assert_eq!(disk.counters().flushes, 1);
}

#[test]
fn a_disk_without_fua_flushes_behind_durable_writes_together() {
    let world = World::new(5);
    let parameters = SimParameters { fua: false, ..SimParameters::quick("d0", BYTES) };
    let disk = SimDisk::new(&world, parameters);
    let handle: DiskHandle = disk.clone();
    let fan = Fan::new(4);
    for slot in 0..4 {
        fan.submit(slot, &handle, request(write(slot as u64 * 4096, 1, 9, true)));
    }
    fan.wait(&*world, None, |view| view.pending() == 0);
    assert_eq!(fan.look(|view| view.succeeded()), 4);
    assert_eq!(disk.snapshot().pending_writes(), 0);
    assert_eq!(disk.counters().writes, 4);
    assert!(disk.counters().flushes < 4, "{} flushes", disk.counters().flushes);
    let cacheless = SimParameters { cache: false, ..SimParameters::quick("d1", BYTES) };
    let disk = SimDisk::new(&world, cacheless);
    run(&world, &disk, write(0, 1, 9, false));
    assert_eq!(disk.snapshot().pending_writes(), 0);
}

#[test]
fn i10_a_failed_flush_fails_the_disk_for_good() {
    let (world, disk) = quick(6);
    run(&world, &disk, write(0, 1, 1, false));
    disk.fail_nth(Access::Flush, 0, DiskError::Medium { offset: 0 });
    let handle: DiskHandle = disk.clone();
    let fan = Fan::new(40);
    fan.submit(0, &handle, request(Operation::Flush));
    for slot in 1..40 {
        fan.submit(slot, &handle, request(read(slot as u64 * 4096, 1)));
    }
    fan.wait(&*world, None, |view| view.pending() == 0);
    assert_eq!(fan.take(0).map(|outcome| outcome.result), Some(Err(DiskError::Failed)));
    assert_eq!(fan.take(39).map(|outcome| outcome.result), Some(Err(DiskError::Failed)));
    assert_eq!(disk.state(), DiskState::Failed);
    let later = run(&world, &disk, read(0, 1));
    assert!(later.result == Err(DiskError::Failed) && later.buffer.is_some());
    assert_eq!(run(&world, &disk, Operation::Flush).result, Err(DiskError::Failed));
    assert_eq!(disk.snapshot().pending_writes(), 1, "nothing became durable");
    assert_eq!(disk.load().requests, 0);
}

#[test]
fn i10_a_failed_durable_write_fails_the_disk_and_a_failed_plain_one_does_not() {
    for fua in [true, false] {
        let world = World::new(7);
        let parameters = SimParameters { fua, ..SimParameters::quick("d0", BYTES) };
        let disk = SimDisk::new(&world, parameters);
        disk.fail_nth(Access::Write, 1, DiskError::Medium { offset: 0 });
        assert_eq!(run(&world, &disk, write(0, 1, 1, false)).result, Ok(()));
        let failed = run(&world, &disk, write(4096, 1, 1, false));
        assert_eq!(failed.result, Err(DiskError::Medium { offset: 4096 }));
        assert_eq!(disk.state(), DiskState::Working);
        let kind = if fua { Access::Write } else { Access::Flush };
        disk.fail_nth(kind, 0, DiskError::Medium { offset: 0 });
        assert!(run(&world, &disk, write(8192, 1, 1, true)).result.is_err());
        assert_eq!(disk.state(), DiskState::Failed, "fua {fua}");
    }
}

#[test]
fn a_failed_write_stays_undecided_until_it_is_overwritten() {
    let (world, disk) = quick(8);
    disk.fail_nth(Access::Write, 0, DiskError::Medium { offset: 0 });
    run(&world, &disk, write(0, 1, 5, false));
    run(&world, &disk, Operation::Flush);
    let snapshot = disk.snapshot();
    let seen: Vec<u8> =
        (0..32).map(|seed| byte_of(&snapshot.crash_image(&mut Random::new(seed)), 0)).collect();
    assert!(seen.contains(&0) && seen.contains(&5), "{seen:?}");
    assert_eq!(byte_at(&world, &disk, 0), 0);
    run(&world, &disk, write(0, 1, 6, false));
    run(&world, &disk, Operation::Flush);
    assert_eq!(disk.snapshot().pending_writes(), 0);
}

#[test]
fn bad_sectors_heal_when_they_are_written() {
    let (world, disk) = quick(9);
    disk.add_bad_range(8192..16384);
    assert_eq!(
        run(&world, &disk, read(0, 4)).result,
        Err(DiskError::Medium { offset: 0 }),
        "a read that touches a bad sector fails"
    );
    assert_eq!(run(&world, &disk, read(0, 2)).result, Ok(()));
    run(&world, &disk, write(8192, 1, 1, false));
    assert_eq!(run(&world, &disk, read(0, 3)).result, Ok(()));
    assert!(run(&world, &disk, read(12288, 1)).result.is_err());
    disk.clear_bad_ranges();
    assert_eq!(byte_at(&world, &disk, 12288), 0);
}

#[test]
fn a_hung_disk_answers_when_it_comes_back_and_a_detached_one_at_once() {
    let (world, disk) = quick(10);
    let handle: DiskHandle = disk.clone();
    let fan = Fan::new(2);
    disk.set_hang(true);
    fan.submit(0, &handle, request(read(0, 1)));
    fan.submit(1, &handle, request(Operation::Flush));
    world.run_for(Duration::from_secs(100));
    assert_eq!(fan.look(|view| view.pending()), 2);
    assert!(disk.in_flight() > 0 && disk.load().oldest_since.is_some());
    assert!(disk.load().slowdown > 1000.0, "{:?}", disk.load());
    disk.set_hang(false);
    fan.wait(&*world, None, |view| view.succeeded() == 2);
    disk.set_hang_flush(true);
    assert_eq!(byte_at(&world, &disk, 0), 0);
    let fan = Fan::new(2);
    fan.submit(0, &handle, request(Operation::Flush));
    world.run_for(Duration::from_secs(1));
    fan.submit(1, &handle, request(read(0, 1)));
    world.run_for(Duration::from_secs(1));
    assert_eq!(fan.look(|view| view.pending()), 2, "the drive hangs with the flush");
    assert!(disk.load().flushing);
    disk.detach();
    fan.wait(&*world, None, |view| view.failed() == 2);
    assert_eq!(disk.state(), DiskState::Failed);
}

#[test]
fn detaching_ends_what_is_in_service_exactly_once() {
    for delay in [0, 100, 151, 1000] {
        let (world, disk) = quick(11);
        let handle: DiskHandle = disk.clone();
        let fan = Fan::new(3);
        for slot in 0..3 {
            fan.submit(slot, &handle, request(read(slot as u64 * 4096, 1)));
        }
        world.run_for(Duration::from_micros(delay));
        disk.detach();
        fan.wait(&*world, None, |view| view.pending() == 0);
        world.run_for(Duration::from_secs(1));
        assert_eq!(disk.load().requests, 0);
        let again =
            SimDisk::open(&world, disk.parameters().clone(), disk.snapshot().live().clone());
        assert_eq!(byte_at(&world, &again, 0), 0);
    }
}

#[test]
fn writes_are_lost_misdirected_and_lied_about_on_request() {
    let (world, disk) = quick(12);
    disk.lose_writes(1);
    assert_eq!(run(&world, &disk, write(0, 1, 1, true)).result, Ok(()));
    assert_eq!(byte_at(&world, &disk, 0), 0);
    disk.misdirect_next_write(8192);
    assert_eq!(run(&world, &disk, write(0, 1, 2, true)).result, Ok(()));
    assert_eq!((byte_at(&world, &disk, 0), byte_at(&world, &disk, 8192)), (0, 2));
    disk.set_flush_lies(true);
    run(&world, &disk, write(0, 1, 3, true));
    run(&world, &disk, Operation::Flush);
    assert_eq!(disk.state(), DiskState::Working);
    assert_eq!(byte_of(disk.snapshot().durable(), 0), 0);
    disk.set_flush_lies(false);
    run(&world, &disk, Operation::Flush);
    assert_eq!(byte_of(disk.snapshot().durable(), 0), 3);
    disk.flip_bit(0, 2);
    assert_eq!(byte_at(&world, &disk, 0), 7);
}

#[test]
fn snapshots_do_not_change_and_cost_little() {
    let (world, disk) = quick(13);
    run(&world, &disk, write(0, 256, 1, true));
    let before = disk.snapshot();
    run(&world, &disk, write(0, 1, 2, true));
    assert_eq!(byte_of(before.live(), 0), 1);
    assert_eq!(byte_of(disk.snapshot().live(), 0), 2);
    assert_eq!(before.live().resident_bytes(), 256 * 4096);
    // A stale disk is one opened from an old snapshot.
    let stale = SimDisk::open(&world, disk.parameters().clone(), before.live().clone());
    assert_eq!(byte_at(&world, &stale, 0), 1);
}

#[test]
fn one_seed_gives_one_history() {
    let history = |seed: u64| {
        let world = World::new(seed);
        let disk = SimDisk::new(&world, SimParameters::hdd("d0", BYTES));
        let handle: DiskHandle = disk.clone();
        let mut random = Random::new(seed);
        let mut ends = Vec::new();
        for _ in 0..20 {
            let fan = Fan::new(8);
            for slot in 0..8 {
                let offset = random.below(BYTES / UNIT_BYTES - 1) * UNIT_BYTES;
                let operation =
                    if random.one_in(2) { read(offset, 1) } else { write(offset, 1, 1, false) };
                fan.submit(slot, &handle, request(operation));
            }
            fan.wait(&*world, None, |view| view.pending() == 0);
            ends.push(world.now());
        }
        ends
    };
    assert_eq!(history(1), history(1));
    assert_ne!(history(1), history(2));
}

#[test]
fn an_hdd_takes_what_an_hdd_takes() {
    let world = World::new(14);
    let disk = SimDisk::new(&world, SimParameters::hdd("d0", 1024 * MIB));
    let mut random = Random::new(14);
    let start = world.now();
    for _ in 0..200 {
        let offset = random.below(1024 * MIB / UNIT_BYTES) * UNIT_BYTES;
        assert_eq!(run(&world, &disk, read(offset, 1)).result, Ok(()));
    }
    let each = world.now().since(start).as_secs_f64() / 200.0 * 1e3;
    assert!((10.0..14.0).contains(&each), "{each} ms a random read");
    let slowdown = disk.load().slowdown;
    assert!((0.7..1.3).contains(&slowdown), "calibrated: {slowdown}");
    let start = world.now();
    for index in 0..64 {
        run(&world, &disk, read(index * MIB, 256));
    }
    let rate = 64.0 * MIB as f64 / world.now().since(start).as_secs_f64() / 1e6;
    assert!(rate > 180.0, "{rate} MB/s in sequence");
    // At depth the drive serves the nearest first.
    let handle: DiskHandle = disk.clone();
    let fan = Fan::new(200);
    let start = world.now();
    for slot in 0..200 {
        let offset = random.below(1024 * MIB / UNIT_BYTES) * UNIT_BYTES;
        fan.submit(slot, &handle, request(read(offset, 1)));
    }
    fan.wait(&*world, None, |view| view.pending() == 0);
    let deep = world.now().since(start).as_secs_f64() / 200.0 * 1e3;
    assert!(deep < 0.8 * each, "{deep} ms at depth, {each} ms alone");
}
