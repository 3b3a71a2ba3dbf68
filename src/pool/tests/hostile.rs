//! Disks whose structures are whole and say anything at all: a program that went wrong, or somebody who
//! means harm, computes good checksums. Mounting such a pool ends with a pool or an error, never with a
//! panic.

use super::*;
use crate::base::{Ino, ObjectId, UNIT_BYTES};
use crate::format::{
    ENTRY_HEADER_BYTES, ExtentValue, Key, KeyView, ObjectKind, ObjectRecord, RawEntryHeader, SLOTS,
    batch_crc, crc64,
};
use crate::namespace::{Caller, FileKind, NewInode, Seek, SetAttr};
use crate::pool::open::{OpenOptions, ReadOnly};
use crate::pool::simulated::SimMachine;

const FILE: NewInode = NewInode { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };

/// A pool that was in use: labels, roots, tables and a log.
fn victim(seed: u64) -> Vec<Image> {
    let machine = SimMachine::new(seed, &[DISK_BYTES; 3]);
    machine.create(parity(1));
    let pool = machine.open(OpenOptions::default()).expect("the pool opens");
    let namespace = &pool.namespace;
    for index in 0..12u8 {
        let name = format!("f{index}").into_bytes();
        let ino = namespace.mknod(Ino::ROOT, &name, &FILE, Caller::default());
        let ino = ino.expect("the name is free").ino;
        let bytes = vec![index; usize::from(index) * 9000 + 1];
        namespace.write(ino, 0, &bytes, false, false).expect("there is room");
        namespace.fsync(ino).expect("it syncs");
        if index == 5 {
            namespace.checkpoint().expect("it is written");
        }
    }
    let images = machine.disks.iter().map(|disk| disk.snapshot().live().clone()).collect();
    machine.world.clear();
    drop(pool);
    images
}

/// Changes some bytes from `from` on of the framed structure at `at`, and makes its checksum good.
fn twist(image: &mut Image, at: u64, from: usize, random: &mut Random) {
    let mut bytes = vec![0; 64 << 10];
    image.read(at, &mut bytes);
    let length = u32::from_le_bytes(bytes[20..24].try_into().expect("four bytes")) as usize;
    if length <= from || length > bytes.len() {
        return;
    }
    // Numbers are what hurts: huge ones, tiny ones, and those next to what was there.
    let width = [1, 2, 4, 8][random.below(4) as usize];
    let place = from + random.below((length - from) as u64) as usize / width * width;
    let end = (place + width).min(length);
    match random.below(4) {
        0 => bytes[place..end].fill(0xff),
        1 => bytes[place..end].fill(0),
        2 => bytes[place] ^= 1 << random.below(8),
        _ => random.fill(&mut bytes[place..end]),
    }
    let crc = crc64(&bytes[16..length]);
    bytes[8..16].copy_from_slice(&crc.to_le_bytes());
    image.write(at, &bytes[..length.next_multiple_of(512)]);
}

/// Changes an entry of the ring, its payload or its header, and makes both checksums good.
fn twist_entry(image: &mut Image, at: u64, random: &mut Random) {
    let mut head = vec![0; ENTRY_HEADER_BYTES];
    image.read(at, &mut head);
    let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let epoch = u32::from_le_bytes(head[64..68].try_into().expect("four bytes"));
    let payload = u32::from_le_bytes(head[68..72].try_into().expect("four bytes")) as usize;
    let (lsn, before) = (word(80), word(96));
    if random.one_in(3) {
        twist(image, at, 64, random);
        return;
    }
    let mut bytes = vec![0; (ENTRY_HEADER_BYTES + payload).next_multiple_of(512)];
    image.read(at, &mut bytes);
    for _ in 0..1 + random.below(3) {
        let place = ENTRY_HEADER_BYTES + random.below(payload.min(600) as u64) as usize;
        bytes[place] = if random.one_in(2) { random.next_u64() as u8 } else { 0xff };
    }
    let crc = batch_crc(
        Epoch(epoch),
        crate::base::Lsn(lsn),
        before,
        &bytes[ENTRY_HEADER_BYTES..][..payload],
    );
    bytes[104..112].copy_from_slice(&crc.to_le_bytes());
    let crc = crc64(&bytes[16..ENTRY_HEADER_BYTES]);
    bytes[8..16].copy_from_slice(&crc.to_le_bytes());
    image.write(at, &bytes);
}

#[test]
fn disks_that_say_anything_never_make_a_mount_panic() {
    let seeds: Vec<u64> = match std::env::var("ISOTHERM_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => vec![seed],
        None => {
            let minutes = std::env::var("ISOTHERM_MINUTES").ok().and_then(|m| m.parse().ok());
            (1..=minutes.map_or(400, |minutes: u64| minutes * 1000)).collect()
        }
    };
    let good = victim(1);
    let layout = DiskLayout::for_disk(DISK_BYTES).expect("it is large enough");
    let mut opened = 0;
    for seed in seeds {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let (what, which) = (random.below(3), random.next_u64());
        let mut images = good.clone();
        // The same on all disks, or on one.
        let all = random.one_in(2);
        for (disk, image) in images.iter_mut().enumerate() {
            let mut random = Random::new(if all { seed } else { seed + disk as u64 });
            match what {
                0 => layout.label_offsets.iter().for_each(|&at| {
                    let mut same = random.clone();
                    twist(image, at, 56, &mut same);
                }),
                1 => (0..SLOTS).for_each(|slot| {
                    let mut same = random.clone();
                    twist(image, layout.slot_offset(slot), 64, &mut same);
                }),
                _ => {
                    let mut unit = vec![0; UNIT_BYTES as usize];
                    let mut found = Vec::new();
                    for position in (0..MIB).step_by(UNIT_BYTES as usize) {
                        image.read(layout.journal_offset + position, &mut unit);
                        if RawEntryHeader::decode(&unit, position).is_ok() {
                            found.push(layout.journal_offset + position);
                        }
                    }
                    if !found.is_empty() {
                        let at = found[(which % found.len() as u64) as usize];
                        twist_entry(image, at, &mut random);
                    }
                }
            }
        }
        let machine = SimMachine::with_images(seed, images.into_iter().enumerate().collect());
        if let Ok(pool) = machine.open(OpenOptions::default()) {
            opened += 1;
            if let Ok(handle) = pool.namespace.open(Ino::ROOT, false, Caller::default()) {
                let _ = pool.namespace.readdir(Ino::ROOT, handle, 0, &mut |_| true);
            }
            let _ = pool.namespace.mknod(Ino::ROOT, b"new", &FILE, Caller::default());
            let _ = pool.close();
        }
        machine.world.clear();
    }
    println!("{opened} of them opened all the same");
}

/// [R4] The log names an object where the root has its manifest. That is right only if the object's end is in
/// the log too; here it is not, so one of the two is wrong, and nothing may be written over either.
#[test]
fn r4_an_object_in_use_where_the_root_has_its_own_is_damage() {
    let machine = SimMachine::new(9, &[DISK_BYTES; 3]);
    machine.create(parity(1));
    let pool = machine.open(OpenOptions::default()).expect("the pool opens");
    let manifest = machine.root().manifest[0].record.clone();
    let id = crate::base::ObjectId(77);
    let record = ObjectRecord { id, kind: ObjectKind::Data, ..manifest };
    pool.namespace.plant(&[(Key::object(id), Some(record.encode()))], 0);
    pool.namespace.sync().expect("it is logged");
    let disks = machine.disks.iter().enumerate();
    let images = disks.map(|(at, disk)| (at, disk.snapshot().live().clone())).collect();
    machine.world.clear();
    drop(pool);
    let machine = SimMachine::with_images(10, images);
    let pool = machine.open(OpenOptions::default()).expect("it opens to be read");
    assert_eq!(pool.read_only, ReadOnly::Damaged);
    pool.close().expect("it closes");
}

/// [I6] Extents that overlap or end beyond any file, as older and newer parts of a lost index may say
/// together: every operation on that file is done or refused, and other files are as they were.
#[test]
fn i6_extents_that_cannot_be_harm_nobody() {
    let extent = |length, object_offset| {
        let object = ObjectId(0);
        ExtentValue { length, object, object_offset, unwritten: object_offset == 0 }
    };
    let endless = ExtentValue {
        length: 1 << 40,
        object: ObjectId(0),
        object_offset: u32::MAX,
        unwritten: true,
    };
    let table: [&[(u64, ExtentValue)]; 6] = [
        &[(0, extent(9000, 0)), (100, extent(50, 0))],
        &[(0, extent(9000, 0)), (100, extent(50, 0)), (120, extent(9000, 0))],
        &[(u64::MAX - 5, extent(9000, 0))],
        &[(0, extent(1 << 40, 4096))],
        &[(5, extent(4096, u32::MAX)), (5000, extent(4096, 4096))],
        &[(0, endless)],
    ];
    for (number, extents) in table.into_iter().enumerate() {
        let machine = SimMachine::new(11, &[DISK_BYTES; 3]);
        machine.create(parity(1));
        let pool = machine.open(OpenOptions::default()).expect("the pool opens");
        let namespace = &pool.namespace;
        let make = |name: &[u8]| {
            let made = namespace.mknod(Ino::ROOT, name, &FILE, Caller::default());
            let ino = made.expect("the name is free").ino;
            namespace.write(ino, 0, &[7; 10_000], false, false).expect("there is room");
            ino
        };
        let (file, other) = (make(b"file"), make(b"other"));
        namespace.sync().expect("it syncs");
        machine.world.run_for(Duration::from_secs(6));
        let there: Vec<Key> = (namespace.entries(0x03).into_iter().map(|(key, _)| key))
            .filter(|key| matches!(KeyView::decode(key.as_bytes()), Ok(KeyView::Extent { ino, .. }) if ino == file))
            .collect();
        let gone = there.into_iter().map(|key| (key, None));
        let planted =
            extents.iter().map(|(at, value)| (Key::extent(file, *at), Some(value.encode())));
        namespace.plant(&gone.chain(planted).collect::<Vec<_>>(), 0);
        let mut bytes = Vec::new();
        let read = namespace.read(file, 0, 20_000, &mut bytes);
        assert!(matches!(number, 2 | 5) || read.is_err(), "row {number}: {read:?}");
        let _ = namespace.seek(file, 0, Seek::Data);
        let _ = namespace.seek(file, 0, Seek::Hole);
        let _ = namespace.write(file, 50, &[1; 5000], false, false);
        let _ = namespace.fsync(file);
        let resized = SetAttr { size: Some(60), ..SetAttr::default() };
        let _ = namespace.setattr(file, &resized, Caller::default());
        let _ = namespace.sync();
        let audit = namespace.audit().expect("it reads");
        assert!(!audit.is_clean(), "row {number} is found");
        let _ = namespace.unlink(Ino::ROOT, b"file");
        namespace.forget(file, 1);
        machine.world.run_for(Duration::from_secs(20));
        bytes.clear();
        namespace.read(other, 0, 20_000, &mut bytes).expect("it reads");
        assert!(bytes == [7; 10_000], "row {number}");
        namespace.write(other, 0, &[8; 10_000], false, false).expect("there is room");
        namespace.fsync(other).expect("it syncs");
        machine.world.clear();
    }
}
