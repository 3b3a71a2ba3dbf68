use super::*;
use crate::base::{MIB, UNIT_BYTES};
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

fn run(world: &Arc<World>, disk: &Arc<SimDisk>, operation: Operation) -> Outcome {
    let handle: DiskHandle = disk.clone();
    let fan = Fan::new(1);
    fan.submit(0, &handle, Request { operation, class: Class::Foreground, deadline: None });
    fan.wait(&**world, None, |view| view.pending() == 0);
    fan.take(0).expect("it was answered")
}

fn byte_at(world: &Arc<World>, disk: &Arc<SimDisk>, offset: u64) -> u8 {
    let outcome = run(world, disk, read(offset, 1));
    assert_eq!(outcome.result, Ok(()));
    outcome.buffer.expect("reads return their buffer")[0]
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
