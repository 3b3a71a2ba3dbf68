//! Reclaim on simulated pools: what is still alive of sparse objects moves, and nothing else changes.

use std::time::Duration;

use crate::base::{Ino, MIB, ObjectId, Random};
use crate::fleet::disk::Disk;
use crate::fleet::disk::sim::Image;
use crate::format::Redundancy;
use crate::namespace::{
    Caller, Compaction, FileKind, Namespace, NamespaceError, NewInode, SetAttr,
};
use crate::pool::open::{OpenOptions, OpenPool};
use crate::pool::simulated::SimMachine;

const FILE: NewInode = NewInode { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };
pub(super) const USER: Caller = Caller { uid: 0, gid: 0 };
const SMALL: usize = 48 << 10;

fn machine(seed: u64, disk_bytes: u64) -> SimMachine {
    let machine = SimMachine::new(seed, &[disk_bytes; 6]);
    machine.create(Redundancy::Erasure { data: 3, parity: 2 });
    machine
}

/// Passes never begin by themselves.
pub(super) fn by_hand() -> OpenOptions {
    let mut options = OpenOptions::default();
    options.reclaim.look = Duration::from_secs(1 << 30);
    options
}

fn content(file: u64, version: u64) -> Vec<u8> {
    let mut bytes = vec![0; SMALL];
    Random::new(file << 8 | version).fill(&mut bytes);
    bytes
}

fn name(file: u64) -> Vec<u8> {
    format!("f{file}").into_bytes()
}

fn make(namespace: &Namespace, file: u64) -> Ino {
    let made = namespace.mknod(Ino::ROOT, &name(file), &FILE, USER).expect("the name is new");
    namespace.write(made.ino, 0, &content(file, 0), false, false).expect("there is room");
    made.ino
}

fn ino_of(namespace: &Namespace, file: u64) -> Ino {
    let ino = namespace.lookup(Ino::ROOT, &name(file)).expect("it is there").ino;
    namespace.forget(ino, 1);
    ino
}

fn remove(namespace: &Namespace, file: u64, ino: Ino) {
    namespace.unlink(Ino::ROOT, &name(file)).expect("it is there");
    namespace.forget(ino, 1);
}

pub(super) fn read(namespace: &Namespace, ino: Ino) -> Vec<u8> {
    let mut bytes = Vec::new();
    namespace.read(ino, 0, u32::MAX, &mut bytes).expect("it reads");
    bytes
}

/// All objects of files and their live bytes.
pub(super) fn survey(namespace: &Namespace) -> Vec<(ObjectId, u64)> {
    let mut found = Vec::new();
    let mut from = Some(ObjectId(0));
    while let Some(at) = from {
        let (page, next) = namespace.survey(at).expect("the index reads");
        found.extend(page.iter().map(|entry| (entry.object, entry.live_bytes)));
        from = next;
    }
    found
}

pub(super) fn finish(namespace: &Namespace, mut compaction: Compaction) {
    while !namespace.go_on(&mut compaction).expect("it moves") {
        namespace.sync().expect("the batch commits");
    }
    namespace.end_compaction(compaction).expect("it ends");
    namespace.sync().expect("the batch commits");
}

/// Files 0..240 in objects of their own, two in three deleted; with the survivors' inodes.
fn sparse(machine: &SimMachine, options: OpenOptions) -> (OpenPool, Vec<(u64, Ino)>) {
    let pool = machine.open(options).expect("the pool opens");
    let namespace = &pool.namespace;
    let made: Vec<(u64, Ino)> = (0..240).map(|file| (file, make(namespace, file))).collect();
    namespace.sync().expect("it syncs");
    let kept = made.iter().filter(|(file, _)| file % 3 == 0).copied().collect();
    for (file, ino) in made.into_iter().filter(|(file, _)| file % 3 != 0) {
        remove(namespace, file, ino);
    }
    machine.world.run_for(Duration::from_secs(12));
    namespace.sync().expect("it syncs");
    (pool, kept)
}

pub(super) fn crashed(machine: &SimMachine, seed: u64) -> SimMachine {
    let mut random = Random::new(seed);
    let disks = machine.disks.iter().enumerate();
    let images: Vec<(usize, Image)> =
        disks.map(|(at, disk)| (at, disk.snapshot().crash_image(&mut random))).collect();
    SimMachine::with_images(seed, images)
}

fn check(namespace: &Namespace, kept: &[(u64, Ino)]) {
    for &(file, ino) in kept {
        assert_eq!(ino_of(namespace, file), ino);
        assert!(read(namespace, ino) == content(file, 0), "file {file}");
    }
}

#[test]
fn sparse_objects_are_compacted_and_their_space_is_free() {
    let machine = machine(1, 256 * MIB);
    let (pool, kept) = sparse(&machine, by_hand());
    let namespace = &pool.namespace;
    let live = (kept.len() * SMALL) as u64;
    let before = survey(namespace);
    assert_eq!(before.iter().map(|(_, bytes)| bytes).sum::<u64>(), live);
    assert!(before.len() >= 2, "there is something to compact");
    let free_before = namespace.statfs().free_bytes;
    let victims: Vec<ObjectId> = before.iter().map(|(object, _)| *object).collect();
    let compaction = namespace.begin_compaction(&victims, 10).expect("it begins");
    finish(namespace, compaction.expect("two in three are dead"));
    let after = survey(namespace);
    assert_eq!(after.iter().map(|(_, bytes)| bytes).sum::<u64>(), live);
    assert!(after.iter().all(|(object, _)| !victims.contains(object)), "all victims are gone");
    let gained = namespace.statfs().free_bytes - free_before;
    assert!(gained > live, "{gained} bytes gained, {live} alive");
    check(namespace, &kept);
    let again: Vec<ObjectId> = after.iter().map(|(object, _)| *object).collect();
    let again = namespace.begin_compaction(&again, 10).expect("it looks");
    assert!(again.is_none(), "what is dense gains nothing");
    pool.close().expect("it closes");
    let pool = machine.open(by_hand()).expect("it opens again");
    check(&pool.namespace, &kept);
    pool.close().expect("it closes");
}

/// Scenario 30: what was read to be moved is overwritten, cut off, deleted before it is moved.
#[test]
fn r20_what_users_did_meanwhile_stands() {
    for flushed in [false, true] {
        let machine = machine(2, 256 * MIB);
        let (pool, kept) = sparse(&machine, by_hand());
        let namespace = &pool.namespace;
        let victims: Vec<ObjectId> = survey(namespace).iter().map(|(object, _)| *object).collect();
        let begun = namespace.begin_compaction(&victims, 10).expect("it begins");
        let mut expected = Vec::new();
        for (at, &(file, ino)) in kept.iter().enumerate() {
            let mut bytes = content(file, 0);
            match at % 5 {
                0 => {
                    bytes = content(file, 1);
                    namespace.write(ino, 0, &bytes, false, false).expect("there is room");
                }
                1 => {
                    let part = content(file, 2)[..5000].to_vec();
                    namespace.write(ino, 10_000, &part, false, false).expect("there is room");
                    bytes[10_000..15_000].copy_from_slice(&part);
                }
                2 => {
                    let size = SetAttr { size: Some(7000), ..SetAttr::default() };
                    namespace.setattr(ino, &size, USER).expect("it is cut");
                    bytes.truncate(7000);
                }
                3 => {
                    remove(namespace, file, ino);
                    continue;
                }
                _ => {}
            }
            expected.push((ino, bytes));
        }
        if flushed {
            namespace.sync().expect("it syncs");
        }
        finish(namespace, begun.expect("two in three are dead"));
        for moment in ["at once", "after a remount"] {
            for (ino, bytes) in &expected {
                assert!(read(&pool.namespace, *ino) == *bytes, "inode {ino}, {moment}, {flushed}");
            }
        }
        let live: u64 = expected.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let counted: u64 = survey(namespace).iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(counted, live, "every byte has one owner");
        pool.close().expect("it closes");
        let pool = machine.open(by_hand()).expect("it opens again");
        for (ino, bytes) in &expected {
            assert!(read(&pool.namespace, *ino) == *bytes, "inode {ino} after a remount");
        }
        pool.close().expect("it closes");
    }
}

/// A copy of which nothing was needed any more leaves nothing behind.
#[test]
fn what_was_copied_in_vain_is_free_again() {
    let machine = machine(3, 256 * MIB);
    let (pool, kept) = sparse(&machine, by_hand());
    let namespace = &pool.namespace;
    let victims: Vec<ObjectId> = survey(namespace).iter().map(|(object, _)| *object).collect();
    let begun = namespace.begin_compaction(&victims, 10).expect("it begins");
    for &(file, ino) in &kept {
        remove(namespace, file, ino);
    }
    machine.world.run_for(Duration::from_secs(12));
    finish(namespace, begun.expect("two in three are dead"));
    assert_eq!(survey(namespace), []);
    let used: u64 = (0..6)
        .map(|at| pool.space.room(crate::base::DiskIndex(at)).expect("known"))
        .map(|room| room.total.0 - room.free.0)
        .sum();
    pool.close().expect("it closes");
    let pool = machine.open(by_hand()).expect("it opens again");
    let again: u64 = (0..6)
        .map(|at| pool.space.room(crate::base::DiskIndex(at)).expect("known"))
        .map(|room| room.total.0 - room.free.0)
        .sum();
    // Tables and snapshots of the index come and go.
    assert!(used.abs_diff(again) < 600, "{used} units in use, {again} after a remount");
    pool.close().expect("it closes");
}

/// Power is lost after each step, caches torn: every file is whole, every byte has one owner.
#[test]
fn a_crash_between_any_two_steps_loses_nothing() {
    for seed in 0..4 {
        let machine = machine(10 + seed, 256 * MIB);
        let (pool, kept) = sparse(&machine, by_hand());
        let namespace = &pool.namespace;
        let victims: Vec<ObjectId> = survey(namespace).iter().map(|(object, _)| *object).collect();
        let mut crashes = vec![crashed(&machine, seed)];
        let begun = namespace.begin_compaction(&victims, 10).expect("it begins");
        let mut compaction = begun.expect("two in three are dead");
        crashes.push(crashed(&machine, seed));
        while !namespace.go_on(&mut compaction).expect("it moves") {
            crashes.push(crashed(&machine, seed));
        }
        crashes.push(crashed(&machine, seed));
        namespace.end_compaction(compaction).expect("it ends");
        for _ in 0..40 {
            machine.world.run_for(Duration::from_millis(1));
            crashes.push(crashed(&machine, seed));
        }
        namespace.sync().expect("the batch commits");
        crashes.push(crashed(&machine, seed));
        for machine in crashes {
            let pool = machine.open(by_hand()).expect("it opens after a crash");
            check(&pool.namespace, &kept);
            let live: u64 = survey(&pool.namespace).iter().map(|(_, bytes)| bytes).sum();
            assert_eq!(live, (kept.len() * SMALL) as u64, "seed {seed}");
            pool.close().expect("it closes");
        }
        machine.world.clear();
        drop(pool);
    }
}

/// [I7] The pool is full, and what is dead lies in objects that are not: nobody is refused for that.
/// docs/semantics.md: "**ENOSPC** comes at write, fallocate or fsync."
#[test]
fn i7_whoever_would_be_refused_gets_what_can_be_reclaimed() {
    let machine = machine(4, 256 * MIB);
    let mut options = OpenOptions::default();
    options.reclaim.look = Duration::from_secs(1 << 30);
    options.namespace.dirty_bytes_max = 16 * MIB;
    let pool = machine.open(options).expect("the pool opens");
    let namespace = &pool.namespace;
    let mut files = Vec::new();
    let full = loop {
        let file = files.len() as u64;
        let made = namespace.mknod(Ino::ROOT, &name(file), &FILE, USER).expect("names have room");
        match namespace.write(made.ino, 0, &content(file, 0), false, false) {
            Ok(_) => files.push((file, made.ino)),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, NamespaceError::NoSpace), "{full}");
    namespace.sync().expect("what was accepted is written");
    let (gone, kept): (Vec<_>, Vec<_>) = files.into_iter().partition(|(file, _)| file % 2 == 0);
    let freed = (gone.len() * SMALL) as u64;
    for (file, ino) in gone {
        remove(namespace, file, ino);
    }
    let large = namespace.mknod(Ino::ROOT, b"large", &FILE, USER).expect("names have room").ino;
    let mut written = 0;
    let block = vec![7; MIB as usize];
    while namespace.write(large, written, &block, false, false).is_ok() {
        written += MIB;
    }
    namespace.sync().expect("what was accepted is written");
    let percent = written * 100 / freed;
    assert!(percent >= 90, "{percent} % of what was deleted could be written again");
    check(namespace, &kept);
    pool.close().expect("it closes");
}

/// [I7] The last twelfth of what was written is half dead: too young to be worth a pass of its own accord,
/// but nobody is refused for that.
#[test]
fn i7_what_was_spared_for_its_youth_is_there_for_whoever_would_be_refused() {
    let machine = machine(7, 256 * MIB);
    let mut options = OpenOptions::default();
    options.reclaim.look = Duration::from_millis(10);
    options.reclaim.loose_bytes_min = MIB;
    options.namespace.dirty_bytes_max = 16 * MIB;
    let pool = machine.open(options).expect("the pool opens");
    let namespace = &pool.namespace;
    let mut files = Vec::new();
    for file in 0.. {
        let made = namespace.mknod(Ino::ROOT, &name(file), &FILE, USER).expect("names have room");
        if namespace.write(made.ino, 0, &content(file, 0), false, false).is_err() {
            break;
        }
        files.push((file, made.ino));
    }
    namespace.sync().expect("what was accepted is written");
    let mut freed = 0;
    for &(file, ino) in files[files.len() * 11 / 12..].iter().filter(|(file, _)| file % 2 == 0) {
        remove(namespace, file, ino);
        freed += SMALL as u64;
    }
    machine.world.run_for(Duration::from_secs(12));
    namespace.sync().expect("it syncs");
    let before = namespace.room();
    assert!(before.available_bytes < freed / 4, "they were spared: {before:?}, {freed} died");
    let large = namespace.mknod(Ino::ROOT, b"large", &FILE, USER).expect("names have room").ino;
    let block = vec![7; MIB as usize];
    let mut written = 0;
    while namespace.write(large, written, &block, false, false).is_ok() {
        written += MIB;
    }
    namespace.sync().expect("what was accepted is written");
    let percent = written * 100 / freed;
    assert!(percent >= 90, "{percent} % of what was deleted could be written again");
    pool.close().expect("it closes");
}

/// [R13] Files of 1 MiB that are flushed one by one are replicas, three times what they need: when the pool
/// is full of them they are repacked, whoever writes waits for that, and gets what was promised at first.
#[test]
fn i7_small_objects_are_repacked_before_anybody_is_refused() {
    let machine = machine(6, 256 * MIB);
    let mut options = OpenOptions::default();
    options.reclaim.look = Duration::from_secs(1 << 30);
    let pool = machine.open(options).expect("the pool opens");
    let namespace = &pool.namespace;
    let promised = namespace.room().available_bytes;
    let block = vec![7; MIB as usize];
    let mut files = 0;
    loop {
        let made = namespace.mknod(Ino::ROOT, &name(files), &FILE, USER).expect("names have room");
        if let Err(error) = namespace.write(made.ino, 0, &block, false, false) {
            assert!(matches!(error, NamespaceError::NoSpace), "{error}");
            break;
        }
        machine.world.run_for(Duration::from_secs(6));
        files += 1;
    }
    let percent = files * MIB * 100 / promised;
    println!("{percent} % of {} MiB", promised / MIB);
    assert!(percent >= 90, "{percent} % of what was promised at first");
    for file in 0..files {
        assert!(read(namespace, ino_of(namespace, file)) == block, "file {file}");
    }
    pool.close().expect("it closes");
}

/// One file, overwritten at random again and again, in a pool of four times its size: it never fills.
#[test]
fn a_file_overwritten_at_random_never_fills_the_pool() {
    let machine = machine(5, 256 * MIB);
    let mut options = OpenOptions::default();
    options.namespace.dirty_bytes_max = 16 * MIB;
    let pool = machine.open(options).expect("the pool opens");
    let namespace = &pool.namespace;
    const BYTES: u64 = 192 * MIB;
    const BLOCK: u64 = 64 << 10;
    let ino = namespace.mknod(Ino::ROOT, b"file", &FILE, USER).expect("it is new").ino;
    let mut blocks = vec![0u64; (BYTES / BLOCK) as usize];
    let mut random = Random::new(5);
    let mut written = 0;
    for round in 0..8 * blocks.len() {
        let at =
            if round < blocks.len() { round } else { random.below(blocks.len() as u64) as usize };
        blocks[at] = round as u64 + 1;
        let bytes = vec![blocks[at] as u8; BLOCK as usize];
        namespace.write(ino, at as u64 * BLOCK, &bytes, false, false).expect("it never fills");
        written += BLOCK;
    }
    namespace.sync().expect("it syncs");
    let mut bytes = Vec::new();
    for (at, &round) in blocks.iter().enumerate() {
        bytes.clear();
        namespace.read(ino, at as u64 * BLOCK, BLOCK as u32, &mut bytes).expect("it reads");
        assert!(bytes.iter().all(|&byte| byte == round as u8), "block {at}");
    }
    let to_disks: u64 = machine.disks.iter().map(|disk| disk.counters().written_bytes).sum();
    println!("{:.2} bytes to the disks for each one written", to_disks as f64 / written as f64);
    assert!(to_disks < 3 * written, "{to_disks} bytes for {written}");
    pool.close().expect("it closes");
}
