//! Repair on simulated pools: what was on lost disks is made anew elsewhere, whatever happens meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use super::checks::checked;
use super::files::{content, make, read, write};
use super::reclaim::crashed;
use crate::base::{DiskIndex, Ino, MIB, ObjectId, Random, ShardIndex};
use crate::fleet::MemberState;
use crate::fleet::disk::sim::Image;
use crate::format::{KeyView, ObjectRecord, Redundancy};
use crate::namespace::Namespace;
use crate::pool::open::{OpenOptions, OpenPool, ReadOnly};
use crate::pool::simulated::SimMachine;

/// Bytes of every file, by name.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::default();
    options.repair.delay = Some(Duration::from_secs(10));
    options.repair.look = Duration::from_secs(1);
    // Some objects are moved by others than repair.
    options.reclaim.look = Duration::from_secs(1 << 30);
    options
}

pub(super) fn machine(seed: u64, disks: usize) -> SimMachine {
    let machine = SimMachine::new(seed, &vec![256 * MIB; disks]);
    machine.create(Redundancy::Erasure { data: 3, parity: 2 });
    machine
}

/// Objects of one shard, of all data shards, and of some; flushed together and apart.
pub(super) fn fill(namespace: &Namespace, seed: u64) -> Files {
    let sizes = [3 << 20, 100, 70_000, 6 << 20, 200_000, 9 << 20, 40_000, 1 << 20];
    let mut files = Files::new();
    for (number, &size) in sizes.iter().enumerate() {
        let name = format!("f{number}");
        let bytes = content(seed * 100 + number as u64, size);
        let ino = make(namespace, &name);
        write(namespace, ino, 0, &bytes);
        if number % 2 == 0 {
            namespace.sync().expect("it syncs");
        }
        namespace.forget(ino, 1);
        files.insert(name, bytes);
    }
    namespace.sync().expect("it syncs");
    files
}

/// Writes the beginning of a file, old or new.
pub(super) fn overwrite(namespace: &Namespace, files: &mut Files, name: String, bytes: &[u8]) {
    let ino = match files.contains_key(&name) {
        true => namespace.lookup(Ino::ROOT, name.as_bytes()).expect("it is there").ino,
        false => make(namespace, &name),
    };
    write(namespace, ino, 0, bytes);
    namespace.forget(ino, 1);
    let old = files.entry(name).or_default();
    old.resize(old.len().max(bytes.len()), 0);
    old[..bytes.len()].copy_from_slice(bytes);
}

pub(super) fn compare(namespace: &Namespace, files: &Files) {
    for (name, bytes) in files {
        let ino = namespace.lookup(Ino::ROOT, name.as_bytes()).expect("it is there").ino;
        assert!(read(namespace, ino, 0, u32::MAX) == *bytes, "{name}");
        namespace.forget(ino, 1);
    }
}

/// Runs until repair has nothing to do any more; panics if it does not end.
pub(super) fn repaired(machine: &SimMachine, pool: &OpenPool) {
    for _ in 0..2000 {
        machine.world.run_for(Duration::from_millis(500));
        let progress = *pool.repair.lock();
        let page = pool.namespace.lacking(ObjectId(0)).expect("it reads");
        let mut away =
            pool.members.all().into_iter().filter(|member| member.state != MemberState::Active);
        let begun = away.all(|member| pool.members.is_given_up(member.index));
        let done = page.found.is_empty() && pool.namespace.lacking_unkeyed() == 0;
        if begun && done && !progress.running {
            return;
        }
    }
    let records = records(&pool.namespace).into_iter();
    let lacking = records.filter(|record| pool.members.lacks(record)).map(|one| one.to_string());
    let lacking: Vec<String> = lacking.collect();
    panic!("repair does not end: {:?}, {lacking:?}", *pool.repair.lock());
}

pub(super) fn records(namespace: &Namespace) -> Vec<ObjectRecord> {
    let records = namespace.entries(crate::format::Key::object(ObjectId(0)).as_bytes()[0]);
    let records =
        records.into_iter().filter(|(key, _)| matches!(key.view(), Ok(KeyView::Object(_))));
    records.map(|(_, value)| ObjectRecord::decode(&value).expect("it was encoded")).collect()
}

/// Every shard of every object is on a disk that takes part, where the record says, and good.
fn is_whole(pool: &OpenPool) {
    let report = checked(pool, true);
    assert!(report.is_clean(), "{report:?}");
    assert!(report.compared_space, "the space map agrees");
}

/// The images of the disks but these.
pub(super) fn without(machine: &SimMachine, gone: &[usize]) -> SimMachine {
    let disks = machine.disks.iter().enumerate().filter(|(at, _)| !gone.contains(at));
    let images: Vec<(usize, Image)> =
        disks.map(|(at, disk)| (at, disk.snapshot().live().clone())).collect();
    SimMachine::with_images(1, images)
}

#[test]
fn what_was_on_a_lost_disk_is_made_anew_and_two_others_may_go() {
    for seed in 0..3 {
        let machine = machine(seed, 7);
        let pool = machine.open(options()).expect("it opens");
        let files = fill(&pool.namespace, seed);
        let lost = seed as usize;
        let had = |pool: &OpenPool| {
            let on = |record: &&ObjectRecord| {
                record.places.iter().flatten().any(|place| place.disk.0 as usize == lost)
            };
            records(&pool.namespace).iter().filter(on).count()
        };
        assert!(had(&pool) > 0, "seed {seed}: it has something to lose");
        machine.disks[lost].detach();
        for name in ["is", "noticed", "soon"] {
            write(&pool.namespace, make(&pool.namespace, name), 0, &content(9, 1 << 20));
            pool.namespace.sync().expect("the others take it");
        }
        repaired(&machine, &pool);
        assert_eq!(had(&pool), 0, "seed {seed}");
        is_whole(&pool);
        compare(&pool.namespace, &files);
        let progress = *pool.repair.lock();
        assert_eq!(progress.objects_done, progress.objects_total, "{progress:?}");
        assert_eq!(progress.bytes_done, progress.bytes_total, "{progress:?}");
        pool.close().expect("it closes");
        // More than m members are missing now, but nothing that was on them.
        let poorer = without(&machine, &[lost, (lost + 1) % 7, (lost + 3) % 7]);
        let pool = poorer.open(options()).expect("it opens");
        assert_ne!(pool.read_only, ReadOnly::No, "it may not be written to");
        compare(&pool.namespace, &files);
        pool.close().expect("nothing is to be done");
    }
}

#[test]
fn i8_a_repair_that_is_cut_short_goes_on_after_the_next_mount() {
    let mut cut = 0;
    for seed in 0..12 {
        let machine = machine(seed, 7);
        let pool = machine.open(options()).expect("it opens");
        let files = fill(&pool.namespace, seed);
        machine.disks[3].detach();
        let ino = make(&pool.namespace, "wakes it");
        write(&pool.namespace, ino, 0, &content(9, 1 << 20));
        pool.namespace.sync().expect("the others take it");
        machine.world.run_for(Duration::from_secs(10));
        // Somewhere in the middle of it.
        for _ in 0..10_000 {
            if pool.repair.lock().objects_done > seed % 6 {
                break;
            }
            machine.world.run_for(Duration::from_millis(1 + seed));
        }
        cut += usize::from(pool.repair.lock().running);
        let crashed = crashed(&machine, seed);
        machine.world.clear();
        drop(pool);
        let again = without(&crashed, &[3]);
        let pool = again.open(options()).expect("it opens after a crash");
        compare(&pool.namespace, &files);
        repaired(&again, &pool);
        is_whole(&pool);
        compare(&pool.namespace, &files);
        pool.close().expect("it closes");
    }
    assert!(cut >= 6, "{cut} repairs were cut short");
}

#[test]
fn r20_what_users_do_meanwhile_stands() {
    for seed in 0..4 {
        let machine = machine(seed, 7);
        let pool = machine.open(options()).expect("it opens");
        let namespace = &pool.namespace;
        let mut files = fill(namespace, seed);
        machine.disks[5].detach();
        let mut random = Random::new(seed);
        let mut during = 0;
        for round in 0..400u64 {
            let number = random.below(8);
            let name = format!("f{number}");
            match random.below(3) {
                0 if files.contains_key(&name) => {
                    namespace.unlink(Ino::ROOT, name.as_bytes()).expect("it is there");
                    files.remove(&name);
                }
                _ => {
                    let bytes = content(round, random.below(3 << 20) as usize + 1);
                    overwrite(namespace, &mut files, name, &bytes);
                }
            }
            if random.below(4) == 0 {
                namespace.sync().expect("it syncs");
            }
            machine.world.run_for(Duration::from_millis(random.below(100)));
            during += u64::from(pool.repair.lock().running);
        }
        assert!(during > 0, "seed {seed}: it was repaired meanwhile");
        namespace.sync().expect("it syncs");
        repaired(&machine, &pool);
        is_whole(&pool);
        compare(namespace, &files);
        let crashed = crashed(&machine, seed);
        machine.world.clear();
        drop(pool);
        let again = without(&crashed, &[5]);
        let pool = again.open(options()).expect("it opens after a crash");
        compare(&pool.namespace, &files);
        repaired(&again, &pool);
        is_whole(&pool);
        pool.close().expect("it closes");
    }
}

#[test]
fn r12_without_a_spare_disk_objects_become_narrower_before_the_next_loss_is_one_of_data() {
    for seed in 0..3 {
        let machine = machine(seed, 5);
        let pool = machine.open(options()).expect("it opens");
        let files = fill(&pool.namespace, seed);
        for disk in [1, 4] {
            machine.disks[disk].detach();
        }
        let ino = make(&pool.namespace, "wakes them");
        write(&pool.namespace, ino, 0, &content(9, 1 << 20));
        pool.namespace.sync().expect("the others take it");
        machine.world.run_for(Duration::from_secs(60));
        let progress = *pool.repair.lock();
        assert!(progress.objects_done > 0 && !progress.running, "{progress:?}");
        let report = checked(&pool, false);
        assert!(report.is_clean(), "{report:?}");
        for record in records(&pool.namespace) {
            let margin = record.redundancy.tolerates() - pool.members.lost_shards(&record);
            assert!(margin > 0, "{record}");
        }
        compare(&pool.namespace, &files);
        pool.close().expect("it closes");
        for third in [0, 2, 3] {
            let poorer = without(&machine, &[1, 4, third]);
            let pool = poorer.open(options()).expect("it opens");
            compare(&pool.namespace, &files);
            pool.close().expect("nothing is to be done");
        }
    }
}

#[test]
fn with_some_margin_left_and_no_disk_to_spare_objects_wait() {
    let machine = machine(1, 5);
    let pool = machine.open(options()).expect("it opens");
    let files = fill(&pool.namespace, 1);
    machine.disks[2].detach();
    let ino = make(&pool.namespace, "wakes it");
    write(&pool.namespace, ino, 0, &content(9, 1 << 20));
    pool.namespace.sync().expect("the others take it");
    machine.world.run_for(Duration::from_secs(40));
    let progress = *pool.repair.lock();
    assert!(progress.waiting > 0 && !progress.running, "{progress:?}");
    compare(&pool.namespace, &files);
    pool.close().expect("it closes");
}

#[test]
fn a_disk_that_is_away_for_a_moment_is_not_given_up() {
    let machine = machine(1, 7);
    let mut options = options();
    options.repair.delay = Some(Duration::from_secs(600));
    let pool = machine.open(options).expect("it opens");
    fill(&pool.namespace, 1);
    machine.disks[2].detach();
    let ino = make(&pool.namespace, "wakes it");
    write(&pool.namespace, ino, 0, &content(9, 1 << 20));
    pool.namespace.sync().expect("the others take it");
    // Nobody asks it for anything before the next checkpoint.
    pool.namespace.checkpoint().expect("there is room");
    machine.world.run_for(Duration::from_secs(500));
    assert_eq!(pool.members.state(DiskIndex(2)), Some(MemberState::Failed));
    assert!(!pool.members.is_given_up(DiskIndex(2)));
    assert_eq!(pool.repair.lock().objects_total, 0);
    machine.world.run_for(Duration::from_secs(110));
    assert!(pool.members.is_given_up(DiskIndex(2)), "{:?}", pool.members.state(DiskIndex(2)));
    repaired(&machine, &pool);
    pool.close().expect("it closes");
}

#[test]
fn r21_bad_shards_that_are_noted_move_and_bad_copies_of_tables_are_written_again() {
    for seed in 0..3 {
        // No disk to spare: a shard finds another place on its own disk.
        let machine = machine(seed, 5);
        let pool = machine.open(options()).expect("it opens");
        let files = fill(&pool.namespace, seed);
        pool.namespace.checkpoint().expect("it has room");
        let mut all = records(&pool.namespace);
        all.extend(pool.namespace.unkeyed().records());
        let mut random = Random::new(seed);
        let mut spoilt = Vec::new();
        for record in &all {
            let shard = random.below(record.places.len() as u64) as usize;
            let place = record.places[shard].expect("it has a place");
            let layout = pool.members.layout(place.disk).expect("it is a member");
            // The header: nobody who reads would see it.
            let at = layout.data_offset(place.offset) + random.below(200);
            machine.disks[place.disk.0 as usize].flip_bit(at, 3);
            spoilt.push((record.id, ShardIndex(shard as u8)));
        }
        let before = checked(&pool, true);
        assert_eq!(before.found, all.len() as u64, "{before:?}");
        spoilt.into_iter().for_each(|(object, shard)| pool.namespace.note_bad(object, shard));
        machine.world.run_for(Duration::from_secs(20));
        pool.namespace.checkpoint().expect("it has room");
        machine.world.run_for(Duration::from_secs(5));
        is_whole(&pool);
        compare(&pool.namespace, &files);
        pool.close().expect("it closes");
    }
}
