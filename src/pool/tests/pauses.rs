//! How long callers wait on simulated pools with healthy disks: for disks, never for a timer.

use std::time::Duration;

use crate::base::{Clock, GIB, Ino, MIB, Random};
use crate::format::Redundancy;
use crate::namespace::{Caller, FileKind, NewInode};
use crate::pool::open::OpenOptions;
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
