//! How long callers wait on simulated pools with healthy disks: for disks, never for a timer.

use std::time::Duration;

use crate::base::{Clock, GIB, Ino, MIB, Random};
use crate::fleet::disk::sim::Image;
use crate::format::Redundancy;
use crate::namespace::{Caller, FileKind, NewInode};
use crate::pool::open::{OpenOptions, ReadOnly};
use crate::pool::simulated::SimMachine;

const FILE: NewInode = NewInode { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };

#[test]
fn an_fsync_waits_for_disks_and_not_for_the_next_checkpoint() {
    for seed in 0..4 {
        let sizes: Vec<u64> = (0..6).map(|disk| (1 + disk % 3) * GIB).collect();
        let machine = SimMachine::new(seed, &sizes);
        machine.create(Redundancy::Erasure { data: 3, parity: 2 });
        let mut options = OpenOptions::default();
        options.namespace.dirty_bytes_max = 16 * MIB;
        let pool = machine.open(options).expect("the pool opens");
        let made = pool.namespace.mknod(Ino::ROOT, b"file", &FILE, Caller::default());
        let ino = made.expect("it is new").ino;
        let mut bytes = vec![0; MIB as usize];
        Random::new(seed).fill(&mut bytes);
        for index in 0..40 {
            let before = machine.world.now();
            pool.namespace.write(ino, index * MIB, &bytes, false, false).expect("there is room");
            pool.namespace.fsync(ino).expect("it syncs");
            let waited = machine.world.now().since(before);
            assert!(waited < Duration::from_secs(1), "seed {seed}, write {index}: {waited:?}");
        }
        pool.close().expect("it closes");
    }
}

/// Drives in standby need some ten seconds before they answer, and not all the same; a starved machine
/// looks alike. The log of such a pool is read when it answers: nothing is lost, no disk is left out.
#[test]
fn r11_a_pool_whose_disks_answer_late_mounts_whole() {
    let machine = SimMachine::new(7, &[GIB; 6]);
    machine.create(Redundancy::Erasure { data: 3, parity: 2 });
    let pool = machine.open(OpenOptions::default()).expect("the pool opens");
    let made = pool.namespace.mknod(Ino::ROOT, b"file", &FILE, Caller::default());
    let ino = made.expect("it is new").ino;
    pool.namespace.write(ino, 0, &[7; 100_000], false, false).expect("there is room");
    pool.namespace.fsync(ino).expect("it syncs");
    let images: Vec<Image> =
        machine.disks.iter().map(|disk| disk.snapshot().live().clone()).collect();
    machine.world.clear();
    drop(pool);
    let mut hit = 0;
    // They fall asleep again after so many milliseconds of mounting.
    for asleep in [0, 1, 2, 5, 10, 15, 20, 30, 40, 50, 60, 80, 100, 150, 200] {
        let machine = SimMachine::with_images(asleep, images.iter().cloned().enumerate().collect());
        let start = machine.world.now();
        let at = start + Duration::from_millis(asleep);
        for (index, disk) in machine.disks.iter().enumerate() {
            let wakes = at + Duration::from_secs(6 + 2 * index as u64);
            let (falls, disk) = (disk.clone(), disk.clone());
            if asleep == 0 {
                falls.set_hang(true);
            } else {
                machine.world.schedule(at, Box::new(move || falls.set_hang(true)));
            }
            machine.world.schedule(wakes, Box::new(move || disk.set_hang(false)));
        }
        let pool = machine.open(OpenOptions::default()).expect("the pool opens");
        hit += usize::from(machine.world.now().since(start) > Duration::from_secs(6));
        assert_eq!(pool.read_only, ReadOnly::No, "asleep after {asleep} ms");
        assert_eq!(pool.missing, [], "asleep after {asleep} ms");
        let mut bytes = Vec::new();
        let file = pool.namespace.lookup(Ino::ROOT, b"file").expect("it was synced");
        pool.namespace.read(file.ino, 0, u32::MAX, &mut bytes).expect("it reads");
        assert!(bytes == [7; 100_000], "asleep after {asleep} ms");
        machine.world.run_for(Duration::from_secs(30));
        pool.close().expect("it closes");
    }
    assert!(hit >= 5, "{hit} mounts met sleeping disks");
}
