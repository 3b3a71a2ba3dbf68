//! Power that fails while a pool is created or closed, and roots that rot: between two writes of labels or
//! roots, and within one [R6, R9, I8]. (Mounts that are cut short: `interrupted.rs`.)

use super::*;
use crate::base::Ino;
use crate::base::sync::Mutex;
use crate::fleet::disk::sim::Snapshot;
use crate::format::SLOTS;
use crate::namespace::{Caller, FileKind, Namespace, NewInode};
use crate::pool::open::{OpenError, OpenOptions, OpenPool, ReadOnly};
use crate::pool::simulated::SimMachine;

const FILE: NewInode = NewInode { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };
const SEEDS: std::ops::RangeInclusive<u64> = 1..=60;

/// What is on the disks at a random moment from now on, mostly soon; None: that moment has not come.
fn power_fails(machine: &SimMachine, random: &mut Random) -> Arc<Mutex<Option<Vec<Snapshot>>>> {
    let shared = Arc::new(Mutex::new(None));
    let (disks, crash) = (machine.disks.clone(), shared.clone());
    let bits = 7 + random.below(12);
    let at = machine.world.now() + Duration::from_micros(random.below(1 << bits));
    let snapshot = move || *crash.lock() = Some(disks.iter().map(|disk| disk.snapshot()).collect());
    machine.world.schedule(at, Box::new(snapshot));
    shared
}

/// The disks after that: a part of what was on its way, whole or torn; without `away`.
fn after(
    machine: &SimMachine,
    crash: &Mutex<Option<Vec<Snapshot>>>,
    away: &[usize],
    random: &mut Random,
) -> SimMachine {
    let now = || machine.disks.iter().map(|disk| disk.snapshot()).collect();
    let snapshots = crash.lock().take().unwrap_or_else(now);
    let images = snapshots.iter().map(|snapshot| snapshot.crash_image(random));
    let images: Vec<Image> = images.collect();
    let here = images.into_iter().enumerate().filter(|(disk, _)| !away.contains(disk));
    SimMachine::with_images(random.next_u64(), here.collect())
}

fn write(namespace: &Namespace, name: &[u8], byte: u8) {
    let ino = namespace.mknod(Ino::ROOT, name, &FILE, Caller::default());
    let ino = ino.expect("the name is free").ino;
    namespace.write(ino, 0, &[byte; 30_000], false, false).expect("there is room");
    namespace.fsync(ino).expect("it syncs");
}

fn check(namespace: &Namespace, name: &[u8], byte: u8, seed: u64) {
    let ino = namespace.lookup(Ino::ROOT, name);
    let ino = ino.unwrap_or_else(|error| panic!("seed {seed}: {error}")).ino;
    let mut bytes = Vec::new();
    namespace.read(ino, 0, u32::MAX, &mut bytes).expect("it reads");
    assert!(bytes == [byte; 30_000], "seed {seed}: other bytes");
}

fn opened(pool: Result<OpenPool, OpenError>, seed: u64) -> OpenPool {
    let pool = pool.unwrap_or_else(|error| panic!("seed {seed}: it does not open: {error}"));
    assert_eq!(pool.read_only, ReadOnly::No, "seed {seed}");
    pool
}

#[test]
fn r6_a_create_that_is_cut_short_leaves_a_pool_or_none_and_can_be_done_again() {
    let (mut pools, mut none) = (0, 0);
    for seed in SEEDS {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let machine = SimMachine::new(seed, &[DISK_BYTES; 4]);
        let crash = power_fails(&machine, &mut random);
        machine.create(parity(1));
        let cut_short = crash.lock().is_some();
        let crashed = after(&machine, &crash, &[], &mut random);
        machine.world.clear();
        match crashed.open(OpenOptions::default()) {
            Ok(pool) => {
                pools += 1;
                if pool.read_only == ReadOnly::No {
                    write(&pool.namespace, b"new", 7);
                }
                pool.close().expect("it closes");
            }
            Err(error) => {
                assert!(cut_short, "seed {seed}: it was created: {error}");
                none += 1;
            }
        }
        crashed.world.clear();
        let again = after(&crashed, &Mutex::new(None), &[], &mut random);
        again.create(parity(1));
        let pool = opened(again.open(OpenOptions::default()), seed);
        assert!(
            pool.namespace.lookup(Ino::ROOT, b"new").is_err(),
            "seed {seed}: of the first pool"
        );
        write(&pool.namespace, b"new", 8);
        pool.close().expect("it closes");
        again.world.clear();
    }
    assert!(pools > 5 && none > 1, "{pools} pools, {none} times none: both are to be seen");
}

#[test]
fn i1_a_close_that_is_cut_short_loses_nothing() {
    let (mut during, mut later) = (0, 0);
    for seed in SEEDS {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let machine = SimMachine::new(seed, &[DISK_BYTES; 4]);
        machine.create(parity(1));
        let pool = opened(machine.open(OpenOptions::default()), seed);
        write(&pool.namespace, b"a", 1);
        pool.namespace.checkpoint().expect("it is written");
        write(&pool.namespace, b"b", 2);
        let crash = power_fails(&machine, &mut random);
        pool.close().expect("it closes");
        let cut_short = crash.lock().is_some();
        let away = random.below(4) as usize;
        let crashed = after(&machine, &crash, &[away], &mut random);
        machine.world.clear();
        let pool = opened(crashed.open(OpenOptions::default()), seed);
        check(&pool.namespace, b"a", 1, seed);
        check(&pool.namespace, b"b", 2, seed);
        if cut_short {
            during += 1;
        } else {
            later += 1;
            assert!(!pool.was_unclean, "seed {seed}: close had returned");
        }
        pool.close().expect("it closes");
        crashed.world.clear();
    }
    assert!(during > 5 && later > 5, "{during} during a close, {later} after it");
}

#[test]
fn r9_roots_that_rot_on_m_disks_cost_nothing_and_on_all_never_give_wrong_data() {
    let layout = DiskLayout::for_disk(DISK_BYTES).expect("it is large enough");
    let (mut opened_all, mut read_all) = (0, 0);
    for seed in 1..=20 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let machine = SimMachine::new(seed, &[DISK_BYTES; 4]);
        machine.create(parity(1));
        let pool = opened(machine.open(OpenOptions::default()), seed);
        for file in 0..6u8 {
            write(&pool.namespace, &[b'a' + file], file);
            if random.one_in(2) {
                pool.namespace.checkpoint().expect("it is written");
            }
        }
        let images = || machine.disks.iter().map(|disk| disk.snapshot().live().clone());
        let rot = |image: &mut Image, slot: usize, random: &mut Random| {
            image.flip_bit(layout.slot_offset(slot) + random.below(300), 1);
        };
        // Both slots of one disk.
        let mut few: Vec<Image> = images().collect();
        let which = random.below(4) as usize;
        (0..SLOTS).for_each(|slot| rot(&mut few[which], slot, &mut random));
        let rotten = SimMachine::with_images(seed, few.into_iter().enumerate().collect());
        let again = opened(rotten.open(OpenOptions::default()), seed);
        (0..6u8).for_each(|file| check(&again.namespace, &[b'a' + file], file, seed));
        again.close().expect("it closes");
        rotten.world.clear();
        // One slot of all: the newest root perhaps, or the one before. What reads, reads right.
        let slot = random.below(SLOTS as u64) as usize;
        let mut all: Vec<Image> = images().collect();
        all.iter_mut().for_each(|image| rot(image, slot, &mut random));
        let rotten = SimMachine::with_images(seed, all.into_iter().enumerate().collect());
        if let Ok(pool) = rotten.open(OpenOptions::default()) {
            opened_all += 1;
            for file in 0..6u8 {
                let Ok(attr) = pool.namespace.lookup(Ino::ROOT, &[b'a' + file]) else { continue };
                let mut bytes = Vec::new();
                let read = pool.namespace.read(attr.ino, 0, u32::MAX, &mut bytes);
                let right = bytes.iter().all(|&byte| byte == file || byte == 0);
                assert!(read.is_err() || right, "seed {seed}: bytes of another file [I4]");
                read_all += usize::from(read.is_ok());
            }
        }
        rotten.world.clear();
        machine.world.clear();
    }
    println!("{opened_all} opened, {read_all} files read");
    assert!(opened_all > 10 && read_all > 50, "{opened_all} opened, {read_all} files read");
}
