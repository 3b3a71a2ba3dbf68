//! More than m copies of what was acknowledged are gone: the pool mounts read-only, whatever follows
//! from the missing batches, and what is not touched by it reads [I6].

use super::*;
use crate::base::{Ino, Lsn, UNIT_BYTES};
use crate::format::RawEntryHeader;
use crate::namespace::{Caller, FileKind, NewInode};
use crate::pool::open::{OpenOptions, ReadOnly};
use crate::pool::simulated::SimMachine;

const FILE: NewInode = NewInode { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };

/// Where entries lie on a disk: byte offset and batch.
fn entries(image: &Image) -> Vec<(u64, Lsn)> {
    let layout = DiskLayout::for_disk(image.bytes()).expect("it is large enough");
    let mut unit = vec![0; UNIT_BYTES as usize];
    let mut found = Vec::new();
    for position in (0..layout.journal_bytes).step_by(UNIT_BYTES as usize) {
        let at = layout.journal_offset + position;
        image.read(at, &mut unit);
        if let Ok(raw) = RawEntryHeader::decode(&unit, position) {
            let number = |text: &str| text.split_whitespace().nth(1).and_then(|n| n.parse().ok());
            let text = raw.describe();
            let lsn = text.lines().find(|line| line.starts_with("batch")).and_then(number);
            found.push((at, Lsn(lsn.expect("an entry has a number"))));
        }
    }
    found
}

#[test]
fn i6_a_log_with_holes_is_read_as_far_as_it_goes() {
    let mut lost = 0;
    for seed in 1..=12u64 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let machine = SimMachine::new(seed, &[DISK_BYTES; 3]);
        machine.create(parity(1));
        let pool = machine.open(OpenOptions::default()).expect("the pool opens");
        let namespace = &pool.namespace;
        let old = namespace.mknod(Ino::ROOT, b"old", &FILE, Caller::default());
        let old = old.expect("the name is free").ino;
        namespace.write(old, 0, &[7; 100_000], false, false).expect("there is room");
        namespace.sync().expect("it syncs");
        namespace.checkpoint().expect("it is written");
        let live = |machine: &SimMachine| -> Vec<Image> {
            machine.disks.iter().map(|disk| disk.snapshot().live().clone()).collect()
        };
        let newest = |images: &[Image]| images.iter().flat_map(entries).map(|(_, lsn)| lsn.0).max();
        // Objects of all sizes come and go, so that places are used again in the log.
        for round in 0..60u64 {
            let name = format!("f{}", random.below(6)).into_bytes();
            if let Ok(attr) = namespace.lookup(Ino::ROOT, &name) {
                namespace.unlink(Ino::ROOT, &name).expect("it is there");
                namespace.forget(attr.ino, 2);
            }
            let ino = namespace.mknod(Ino::ROOT, &name, &FILE, Caller::default());
            let ino = ino.expect("the name is free").ino;
            let bytes = vec![round as u8; 1 + random.below(400_000) as usize];
            namespace.write(ino, 0, &bytes, false, false).expect("there is room");
            namespace.sync().expect("it syncs");
        }
        let mut images = live(&machine);
        machine.world.clear();
        drop(pool);
        let last = newest(&images).expect("a log");
        let copy = SimMachine::with_images(seed, images.iter().cloned().enumerate().collect());
        let first = copy.root().replay_lsn.0;
        // A checkpoint came last: there is no log to speak of.
        if last < first + 10 {
            continue;
        }
        let gone: Vec<u64> = (0..8).map(|_| last - 2 - random.below(last - 2 - first)).collect();
        for image in &mut images {
            for (at, _) in entries(image).into_iter().filter(|(_, lsn)| gone.contains(&lsn.0)) {
                image.flip_bit(at + 200, 1);
            }
        }
        let machine = SimMachine::with_images(seed, images.into_iter().enumerate().collect());
        let pool = machine.open(OpenOptions::default());
        let pool = pool.unwrap_or_else(|error| panic!("seed {seed}: it does not open: {error}"));
        assert_eq!(pool.read_only, ReadOnly::LogLost, "seed {seed}");
        let mut bytes = Vec::new();
        let old = pool.namespace.lookup(Ino::ROOT, b"old").expect("it was there long before");
        pool.namespace.read(old.ino, 0, u32::MAX, &mut bytes).expect("nothing of it is lost");
        assert_eq!(bytes, [7; 100_000]);
        pool.close().expect("nothing is to be done");
        lost += 1;
    }
    assert!(lost >= 6, "only {lost} pools had holes in their log");
}
