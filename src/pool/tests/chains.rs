//! [R9, R18] Checkpoints written as increments: what a mount makes of whole and increments is what the
//! batches imply. A unit that was wrongly taken for free shows when the pool is filled up after a crash.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::units::{KIB, MIB};
use crate::base::{Ino, Random};
use crate::format::Redundancy;
use crate::namespace::{Caller, ChainLimits, FileKind, Namespace, NamespaceError, NewInode};
use crate::pool::open::OpenOptions;
use crate::pool::simulated::SimMachine;

const FILE: NewInode = NewInode { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };

fn options() -> OpenOptions {
    let mut options = OpenOptions::default();
    options.namespace.chains = ChainLimits { whole_bytes: 0, links: 5, growth: 1000 };
    options.index.memtable_bytes = 64 * KIB;
    options.index.table_bytes = 64 * KIB as u32;
    options.index.block_bytes = 4 * KIB as u32;
    options
}

fn content(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = vec![0; random.below(2 * MIB) as usize + 1];
    random.fill(&mut bytes);
    bytes
}

/// Files by name, each with the seed of its content.
type Files = BTreeMap<Vec<u8>, u64>;

fn change(namespace: &Namespace, random: &mut Random, files: &mut Files) {
    for _ in 0..12 {
        let name = format!("file{}", random.below(40)).into_bytes();
        if files.remove(&name).is_some() {
            namespace.unlink(Ino::ROOT, &name).expect("it is there");
        }
        if random.one_in(3) {
            continue;
        }
        let seed = random.next_u64();
        let made = namespace.mknod(Ino::ROOT, &name, &FILE, Caller::default());
        let ino = made.expect("the name is free").ino;
        namespace.write(ino, 0, &content(seed), false, false).expect("there is room");
        namespace.forget(ino, 1);
        files.insert(name, seed);
    }
}

fn check(namespace: &Namespace, files: &Files, told: &str) {
    for (name, &seed) in files {
        let attr = namespace.lookup(Ino::ROOT, name).expect("it was synced");
        let (want, mut bytes) = (content(seed), Vec::new());
        namespace.read(attr.ino, 0, u32::MAX, &mut bytes).expect("it reads");
        namespace.forget(attr.ino, 1);
        assert!(bytes == want, "[I3] {told}: {} holds other bytes", name.escape_ascii());
    }
}

fn fill(namespace: &Namespace) {
    let made = namespace.mknod(Ino::ROOT, b"filler", &FILE, Caller::default());
    let ino = made.expect("the name is free").ino;
    let part = vec![0xab; MIB as usize];
    let full = (0..4096).find_map(|index| {
        let written = namespace.write(ino, index * MIB, &part, false, false);
        written.and_then(|_| if index % 16 == 0 { namespace.fsync(ino) } else { Ok(()) }).err()
    });
    assert!(matches!(full, Some(NamespaceError::NoSpace)), "it is full: {full:?}");
}

#[test]
fn r9_r18_increments_say_what_a_whole_would() {
    let mut lengths = Vec::new();
    for seed in 0..3 {
        println!("seed {seed}");
        let machine = SimMachine::new(seed, &[256 * MIB; 6]);
        machine.create(Redundancy::Erasure { data: 3, parity: 2 });
        let pool = machine.open(options()).expect("the pool opens");
        let mut random = Random::new(seed);
        let mut files = Files::new();
        for round in 0..8 {
            change(&pool.namespace, &mut random, &mut files);
            machine.world.run_for(Duration::from_secs(61 + random.below(20)));
            pool.namespace.sync().expect("it syncs");
            let root = machine.root();
            lengths.push((root.manifest.len(), root.space.len()));
            let images: Vec<_> = machine
                .disks
                .iter()
                .enumerate()
                .map(|(index, disk)| (index, disk.snapshot().crash_image(&mut random)))
                .collect();
            let told = format!("seed {seed}, round {round}, chains {:?}", lengths.last());
            let after = SimMachine::with_images(seed, images);
            let recovered = after.open(options()).expect("it recovers");
            check(&recovered.namespace, &files, &told);
            if round % 3 == 2 {
                fill(&recovered.namespace);
                check(&recovered.namespace, &files, &told);
            }
            recovered.close().expect("it closes");
        }
        pool.close().expect("it closes");
    }
    assert!(
        lengths.iter().any(|chains| chains.0 == 5) && lengths.iter().any(|chains| chains.1 == 5)
    );
    assert!(lengths.iter().all(|chains| chains.0 <= 6 && chains.1 <= 6), "{lengths:?}");
}
