//! Files on simulated pools: races and failures between overlay, cut, index and objects, each as the few
//! operations that once broke a promise.

use std::time::Duration;

use crate::base::sync::{Arc, Mutex};
use crate::base::{Clock, DiskIndex, GIB, Ino, MIB, Random, Units, WallTime};
use crate::fleet::disk::Disk;
use crate::fleet::disk::sim::Image;
use crate::fleet::{Members, Report, Reservation, ReserveLevel, Space, Stream};
use crate::format::Redundancy;
use crate::frontend::{CopyEnd, FileSystem, Handle};
use crate::namespace::{
    Allocate, Caller, DirEntry, FileKind, Namespace, NamespaceError, NewInode, Seek, SetAttr,
    SetTime, XattrMode,
};
use crate::pool::open::{OpenOptions, OpenPool};
use crate::pool::simulated::SimMachine;

use super::reclaim::survey;

const FILE: NewInode = NewInode { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };
pub(super) const ROOT_USER: Caller = Caller { uid: 0, gid: 0 };

/// Six disks with 3+2 on them.
pub(super) fn machine(seed: u64) -> SimMachine {
    let sizes: Vec<u64> = (0..6).map(|disk| (1 + disk % 3) * GIB).collect();
    let machine = SimMachine::new(seed, &sizes);
    machine.create(Redundancy::Erasure { data: 3, parity: 2 });
    machine
}

/// Small blocks, so that a file of some thousand extents lies in many of them.
pub(super) fn small_blocks() -> OpenOptions {
    let mut options = OpenOptions::default();
    options.index.block_bytes = 4096;
    options.index.cache_bytes = MIB;
    options
}

pub(super) fn open(machine: &SimMachine, options: OpenOptions) -> OpenPool {
    machine.open(options).expect("the pool opens")
}

pub(super) fn make(namespace: &Namespace, name: &str) -> Ino {
    let made = namespace.mknod(Ino::ROOT, name.as_bytes(), &FILE, ROOT_USER);
    made.expect("the name is new").ino
}

pub(super) fn write(namespace: &Namespace, ino: Ino, at: u64, bytes: &[u8]) {
    for (index, part) in bytes.chunks(MIB as usize).enumerate() {
        let offset = at + index as u64 * MIB;
        namespace.write(ino, offset, part, false, false).expect("there is room");
    }
}

pub(super) fn read(namespace: &Namespace, ino: Ino, at: u64, length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    namespace.read(ino, at, length, &mut bytes).expect("it reads");
    bytes
}

pub(super) fn resize(namespace: &Namespace, ino: Ino, size: u64) {
    let change = SetAttr { size: Some(size), ..SetAttr::default() };
    namespace.setattr(ino, &change, ROOT_USER).expect("it takes any size");
}

pub(super) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Random::new(seed).fill(&mut bytes);
    bytes
}

/// One byte in every two: as many extents as bytes.
pub(super) fn riddle(namespace: &Namespace, ino: Ino, extents: u64) {
    for number in 0..extents {
        write(namespace, ino, 2 * number, &[1 + (number % 250) as u8]);
    }
}

/// All room of all disks is taken, but for what is given back by dropping.
fn take_all_room(pool: &OpenPool) -> Vec<Reservation> {
    take_room(&pool.members, &pool.space, ReserveLevel::Repair)
}

/// All room that this level may take.
pub(super) fn take_room(members: &Members, space: &Space, level: ReserveLevel) -> Vec<Reservation> {
    let mut held = Vec::new();
    for disk in members.active() {
        let mut units = 1 << 20;
        while units > 0 {
            match space.reserve(disk, Units(units), Stream::Data, level) {
                Some(reservation) => held.push(reservation),
                None => units /= 2,
            }
        }
    }
    held
}

/// Waits for a flush that writes at least three groups of objects, and takes all room while it is at the
/// second: the third finds none.
pub(super) fn fail_the_next_flush(machine: &SimMachine, pool: &OpenPool) -> Vec<Reservation> {
    let held: Arc<Mutex<Vec<Reservation>>> = Arc::default();
    let dirty = pool.namespace.progress().dirty_bytes;
    for ms in 0..10_000 {
        let (held, namespace) = (held.clone(), pool.namespace.clone());
        let (members, space) = (pool.members.clone(), pool.space.clone());
        let look = move || {
            if namespace.progress().dirty_bytes < dirty && held.lock().is_empty() {
                *held.lock() = take_room(&members, &space, ReserveLevel::Repair);
            }
        };
        machine.world.schedule(machine.world.now() + Duration::from_millis(ms), Box::new(look));
    }
    machine.world.run_for(Duration::from_secs(10));
    let held = std::mem::take(&mut *held.lock());
    assert!(!held.is_empty(), "a flush was seen");
    held
}

/// 47 MiB of which no two lie side by side: that makes more objects than are written at once.
pub(super) fn write_in_strides(namespace: &Namespace, ino: Ino) {
    for piece in 0..47 {
        write(namespace, ino, piece * (2 << 20), &content(3, 1 << 20));
    }
}

pub(super) fn free_units(pool: &OpenPool) -> u64 {
    (0..6).map(|disk| pool.space.free_units(DiskIndex(disk)).0).sum()
}

fn images(machine: &SimMachine) -> Vec<(usize, Image)> {
    let disks = machine.disks.iter().enumerate();
    disks.map(|(index, disk)| (index, disk.snapshot().live().clone())).collect()
}

fn writes(machine: &SimMachine) -> u64 {
    machine.disks.iter().map(|disk| disk.counters().writes).sum()
}

fn reports(pool: &OpenPool) -> Vec<Report> {
    std::iter::from_fn(|| pool.reports.pop()).collect()
}

/// A scan that ends at a block which is not in memory was begun again from its start for ever.
#[test]
fn r19_a_file_of_many_extents_is_deleted_by_a_cold_pool() {
    let machine = machine(1);
    let pool = open(&machine, small_blocks());
    let ino = make(&pool.namespace, "riddled");
    riddle(&pool.namespace, ino, 5000);
    pool.close().expect("it closes");
    let pool = open(&machine, small_blocks());
    let free = free_units(&pool);
    pool.namespace.unlink(Ino::ROOT, b"riddled").expect("it is there");
    machine.world.run_for(Duration::from_secs(20));
    assert_eq!(pool.namespace.progress().inodes, 1, "the root is left");
    assert!(free_units(&pool) > free, "its space came back");
    pool.close().expect("it closes");
}

/// Where a scan goes on after the longest of all keys was taken for too long a key; the daemon died of it.
/// Found by ISOTHERM_SEED=117689524814124 of the engine's conformance.
#[test]
fn names_of_255_bytes_are_listed_and_looked_over_by_a_cold_pool() {
    let machine = machine(18);
    let pool = open(&machine, small_blocks());
    let name = |number: u32| format!("{number:0255}").into_bytes();
    let directory = NewInode { kind: FileKind::Directory, mode: 0o755, umask: 0, rdev: 0 };
    let made = pool.namespace.mknod(Ino::ROOT, b"directory", &directory, ROOT_USER);
    let directory = made.expect("the name is new").ino;
    for number in 0..200 {
        let made = pool.namespace.mknod(directory, &name(number), &FILE, ROOT_USER);
        pool.namespace.forget(made.expect("the name is new").ino, 1);
    }
    pool.close().expect("it closes");
    let pool = open(&machine, small_blocks());
    let namespace = &pool.namespace;
    let handle = namespace.open(directory, false, ROOT_USER).expect("it is there");
    let mut names = Vec::new();
    let mut add = |entry: &DirEntry| {
        names.push(entry.name.clone());
        true
    };
    namespace.readdir(directory, handle, 0, &mut add).expect("it is listed");
    names.sort();
    assert_eq!(names[2..], (0..200).map(name).collect::<Vec<_>>(), "and . and ..");
    namespace.release(handle).expect("it is open");
    for number in 0..200 {
        namespace.unlink(directory, &name(number)).expect("it is there");
    }
    pool.close().expect("it closes");
    let pool = open(&machine, small_blocks());
    pool.namespace.rmdir(Ino::ROOT, b"directory").expect("it is empty");
    pool.close().expect("it closes");
}

/// The same in the flusher, which then held the file for ever.
#[test]
fn r19_a_file_of_many_extents_is_truncated_by_a_cold_pool() {
    let machine = machine(2);
    let pool = open(&machine, small_blocks());
    let ino = make(&pool.namespace, "riddled");
    riddle(&pool.namespace, ino, 5000);
    pool.close().expect("it closes");
    let pool = open(&machine, small_blocks());
    resize(&pool.namespace, ino, 100);
    pool.namespace.fsync(ino).expect("it syncs");
    resize(&pool.namespace, ino, 10_000);
    pool.namespace.sync().expect("it syncs");
    let want: Vec<u8> = (0..100).map(|at| if at % 2 == 0 { 1 + at / 2 } else { 0 }).collect();
    assert_eq!(read(&pool.namespace, ino, 0, 100), want);
    assert_eq!(read(&pool.namespace, ino, 100, 20_000), vec![0; 9900]);
    pool.close().expect("it closes");
}

/// The same in readers, which held the namespace's lock meanwhile.
#[test]
fn a_hole_over_many_deleted_extents_is_read_by_a_cold_pool() {
    let machine = machine(3);
    let pool = open(&machine, small_blocks());
    let ino = make(&pool.namespace, "riddled");
    riddle(&pool.namespace, ino, 5000);
    pool.close().expect("it closes");
    let pool = open(&machine, small_blocks());
    let punched = pool.namespace.allocate(ino, Allocate::PunchHole, 0, 9000, ROOT_USER);
    punched.expect("it is punched");
    pool.close().expect("it closes");
    let pool = open(&machine, small_blocks());
    assert_eq!(pool.namespace.seek(ino, 0, Seek::Data).expect("there is some"), 9000);
    assert_eq!(read(&pool.namespace, ino, 0, 9000), vec![0; 9000]);
    assert_eq!(pool.namespace.seek(ino, 0, Seek::Hole).expect("there is one"), 0);
    pool.close().expect("it closes");
}

/// The changes of one fsync were bounded piece by piece and not together; the daemon died of it.
#[test]
fn r19_an_fsync_after_many_holes_is_bounded() {
    let machine = machine(4);
    let pool = open(&machine, OpenOptions::default());
    let ino = make(&pool.namespace, "image");
    riddle(&pool.namespace, ino, 60_000);
    pool.namespace.sync().expect("it syncs");
    for hole in 0..60 {
        let punched =
            pool.namespace.allocate(ino, Allocate::PunchHole, hole * 2000, 1998, ROOT_USER);
        punched.expect("it is punched");
    }
    pool.namespace.fsync(ino).expect("it syncs");
    assert_eq!(pool.namespace.seek(ino, 0, Seek::Data).expect("there is some"), 1998);
    pool.close().expect("it closes");
}

/// There was nothing to flush, so the operation waited for its flush again and again, and the daemon died.
#[test]
fn a_file_with_an_acl_that_grew_without_data_takes_a_mode() {
    let machine = machine(5);
    let pool = open(&machine, OpenOptions::default());
    let ino = make(&pool.namespace, "file");
    let entries: [(u16, u16, u32); 5] = [
        (0x01, 6, u32::MAX),
        (0x02, 4, 1000),
        (0x04, 4, u32::MAX),
        (0x10, 4, u32::MAX),
        (0x20, 0, u32::MAX),
    ];
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend_from_slice(&tag.to_le_bytes());
        list.extend_from_slice(&permissions.to_le_bytes());
        list.extend_from_slice(&id.to_le_bytes());
    }
    let name = b"system.posix_acl_access";
    pool.namespace.setxattr(ino, name, &list, XattrMode::Any, ROOT_USER).expect("it is valid");
    resize(&pool.namespace, ino, 100);
    let change = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let attr = pool.namespace.setattr(ino, &change, ROOT_USER).expect("it takes a mode");
    assert_eq!((attr.mode, attr.size), (0o600, 100));
    pool.close().expect("it closes");
}

/// Two files share an object that a failed flush wrote. The first is cut and then truncated: the object had
/// no live byte left, and was freed under the second.
#[test]
fn i3_an_object_of_a_failed_flush_stays_while_a_file_counts_on_it() {
    let machine = machine(6);
    let pool = open(&machine, OpenOptions::default());
    let namespace = &pool.namespace;
    let inos = ["first", "second", "large"].map(|name| make(namespace, name));
    let [first, second, large] = inos;
    write(namespace, first, 0, &content(1, 5000));
    write(namespace, second, 0, &content(2, 5000));
    write_in_strides(namespace, large);
    // The first objects are written; for the others there is no room.
    let held = fail_the_next_flush(&machine, &pool);
    assert_eq!(namespace.audit().expect("it reads").objects, 0, "the flush has failed");
    namespace.fsync(first).expect("it was written");
    resize(namespace, first, 0);
    namespace.fsync(first).expect("it needs no room");
    machine.world.run_for(Duration::from_secs(2));
    drop(held);
    namespace.fsync(second).expect("it was written");
    namespace.sync().expect("there is room");
    // Whoever comes next gets what is free.
    let other = make(namespace, "other");
    write(namespace, other, 0, &content(4, 30 << 20));
    namespace.sync().expect("there is room");
    assert_eq!(read(namespace, second, 0, 5000), content(2, 5000));
    pool.close().expect("it closes");
    let pool = open(&machine, OpenOptions::default());
    assert_eq!(read(&pool.namespace, second, 0, 5000), content(2, 5000));
    assert_eq!(read(&pool.namespace, large, 0, 5000), content(3, 1 << 20)[..5000]);
    pool.close().expect("it closes");
}

/// A reader that met a bad cell wrote to the disks of a pool that may be in use elsewhere; and a disk
/// that was opened for reading was failed by that.
#[test]
fn i5_a_pool_that_is_only_read_is_not_repaired() {
    let machine = machine(7);
    let pool = open(&machine, OpenOptions::default());
    let ino = make(&pool.namespace, "file");
    write(&pool.namespace, ino, 0, &content(1, 3 << 20));
    pool.close().expect("it closes");
    let mut options = OpenOptions::default();
    options.assemble.read_only = true;
    let (whole, mut met) = (images(&machine), false);
    for pair in [[0, 1], [2, 3], [4, 5]] {
        let machine = SimMachine::with_images(7, whole.clone());
        let pool = open(&machine, options.clone());
        // A bit in every 4 KiB: of one of the pairs a data shard is hit.
        for disk in pair {
            let layout = pool.members.layout(DiskIndex(disk)).expect("it is a member");
            for at in (layout.data_offset..layout.data_offset + 128 * MIB).step_by(4096) {
                machine.disks[usize::from(disk)].flip_bit(at, 1);
            }
        }
        let before = writes(&machine);
        assert_eq!(read(&pool.namespace, ino, 0, 3 << 20), content(1, 3 << 20));
        machine.world.run_for(Duration::from_secs(10));
        met |= reports(&pool).iter().any(|report| matches!(report, Report::BadShard { .. }));
        assert_eq!(writes(&machine), before, "[I5] nothing is written");
        pool.close().expect("it closes");
    }
    assert!(met, "a bad cell was met");
}

/// What had been copied before the pool was full was not told: the kernel then went on with old pages.
#[test]
fn a_copy_that_meets_a_full_pool_says_how_far_it_came() {
    let machine = machine(8);
    let pool = open(&machine, OpenOptions::default());
    let namespace = &pool.namespace;
    let (from, to) = (make(namespace, "from"), make(namespace, "to"));
    write(namespace, from, 0, &content(1, 12 << 20));
    namespace.sync().expect("there is room");
    let mut held = Vec::new();
    'full: loop {
        for disk in pool.members.active() {
            if namespace.statfs().available_bytes < 5 * MIB {
                break 'full;
            }
            let part = Units(64);
            held.extend(pool.space.reserve(disk, part, Stream::Data, ReserveLevel::User));
        }
    }
    let end = |ino| CopyEnd { ino, handle: Handle(0), offset: 0 };
    let copied = FileSystem::copy_file_range(namespace, end(from), end(to), 12 << 20, ROOT_USER);
    let copied = copied.expect("some of it fits");
    assert!(copied > 0 && copied < 12 << 20, "{copied}");
    assert_eq!(namespace.getattr(to).expect("it is there").size, copied);
    let copied = FileSystem::copy_file_range(
        namespace,
        CopyEnd { offset: copied, ..end(from) },
        CopyEnd { offset: copied, ..end(to) },
        12 << 20,
        ROOT_USER,
    );
    assert!(matches!(copied, Err(NamespaceError::NoSpace)), "{copied:?}");
    drop(held);
    pool.close().expect("it closes");
}

/// The access time that went with a read could not be set, and the read failed.
/// docs/semantics.md: "**EIO** from fsync: the log cannot be written."
#[test]
fn i6_reading_goes_on_when_the_log_has_failed() {
    let machine = machine(9);
    let pool = open(&machine, OpenOptions::default());
    let namespace = &pool.namespace;
    let ino = make(namespace, "file");
    write(namespace, ino, 0, b"content");
    for disk in &machine.disks[..3] {
        disk.detach();
    }
    let synced = namespace.fsync(ino);
    assert!(synced.is_err(), "three of six are gone");
    assert!(namespace.progress().failed);
    assert!(namespace.fsync(ino).is_err(), "whoever asks again is told again");
    assert!(namespace.write(ino, 0, b"more", false, false).is_err());
    assert_eq!(read(namespace, ino, 0, 100), b"content");
}

/// An old failure of the flusher was taken for one of the close; what could be written was dropped.
#[test]
fn i1_a_close_is_not_refused_for_what_was_wrong_before() {
    let machine = machine(10);
    let pool = open(&machine, OpenOptions::default());
    let ino = make(&pool.namespace, "file");
    write(&pool.namespace, ino, 0, &content(1, 9 << 20));
    let held = take_all_room(&pool);
    machine.world.run_for(Duration::from_secs(8));
    drop(held);
    pool.close().expect("there is room again");
    let pool = open(&machine, OpenOptions::default());
    assert_eq!(read(&pool.namespace, ino, 0, 9 << 20), content(1, 9 << 20));
    pool.close().expect("it closes");
}

/// Disks that are late together made fsync answer EIO, and a close drop what was dirty.
/// docs/semantics.md: "A pool whose disks are late but not dead suspends writing"
#[test]
fn r11_data_waits_for_disks_that_are_late_together() {
    for close in [false, true] {
        let machine = machine(11);
        let pool = open(&machine, OpenOptions::default());
        let ino = make(&pool.namespace, "file");
        write(&pool.namespace, ino, 0, &content(1, 9 << 20));
        let disks = machine.disks.clone();
        disks.iter().for_each(|disk| disk.set_hang(true));
        let at = machine.world.now() + Duration::from_secs(400);
        machine
            .world
            .schedule(at, Box::new(move || disks.iter().for_each(|disk| disk.set_hang(false))));
        if !close {
            pool.namespace.fsync(ino).expect("late is not dead");
        }
        pool.close().expect("late is not dead");
        assert!(machine.world.now() >= at);
        let pool = open(&machine, OpenOptions::default());
        assert_eq!(read(&pool.namespace, ino, 0, 9 << 20), content(1, 9 << 20));
        pool.close().expect("it closes");
    }
}

/// A file that had grown without data was cut with the size of a later append, whose bytes were not in
/// the cut.
#[test]
fn r15_the_cut_of_a_grown_file_has_its_size_as_of_then() {
    let machine = machine(12);
    let pool = open(&machine, OpenOptions::default());
    let namespace = &pool.namespace;
    let (ino, other) = (make(namespace, "file"), make(namespace, "other"));
    namespace.sync().expect("it syncs");
    resize(namespace, ino, 4096);
    namespace.with_flush_before_its_cut(|| write(namespace, ino, 4096, &content(1, 5000)));
    namespace.fsync(other).expect("it syncs, and the cut with it");
    let images = images(&machine);
    machine.world.clear();
    drop(pool);
    let machine = SimMachine::with_images(13, images);
    let pool = open(&machine, OpenOptions::default());
    let size = pool.namespace.getattr(ino).expect("it is there").size;
    assert_eq!(size, 4096, "an append leaves no tail of zeros");
    pool.close().expect("it closes");
}

/// [I1] A mode that had been synced was put back by the cut of what had been written before it.
#[test]
fn i1_a_mode_that_was_synced_outlives_the_cut_of_what_was_written_before() {
    for logged in [false, true] {
        let machine = machine(19);
        let pool = open(&machine, OpenOptions::default());
        let namespace = &pool.namespace;
        let (ino, other) = (make(namespace, "file"), make(namespace, "other"));
        namespace.sync().expect("it syncs");
        write(namespace, ino, 0, &content(1, 5000));
        if logged {
            namespace.fsync(ino).expect("it syncs");
        }
        namespace.with_flush_before_its_cut(|| {
            let change = SetAttr { mode: Some(0o600), uid: Some(7), ..SetAttr::default() };
            namespace.setattr(ino, &change, ROOT_USER).expect("root may");
            namespace.fsync(ino).expect("it syncs");
            write(namespace, ino, 5000, &content(2, 100));
        });
        namespace.fsync(other).expect("it syncs, and the cut with it");
        let machine = super::reclaim::crashed(&machine, 20);
        let pool = open(&machine, OpenOptions::default());
        let found = pool.namespace.getattr(ino).expect("it is there");
        assert_eq!((found.mode & 0o7777, found.uid), (0o600, 7), "logged before: {logged}");
        assert!(read(&pool.namespace, ino, 0, 5000) == content(1, 5000));
        pool.close().expect("it closes");
    }
}

/// The cut of a stream's beginning had the mode, the owner and the ctime of what came later.
#[test]
fn r15_the_cut_of_a_streams_beginning_has_its_attributes_as_of_then() {
    let machine = machine(17);
    let pool = open(&machine, OpenOptions::default());
    let namespace = &pool.namespace;
    let (ino, other) = (make(namespace, "file"), make(namespace, "other"));
    namespace.sync().expect("it syncs");
    for part in 0..14 {
        write(namespace, ino, part * MIB, &content(part, MIB as usize));
        machine.world.run_for(Duration::from_millis(10));
    }
    let change = SetAttr { mode: Some(0o600), uid: Some(7), ..SetAttr::default() };
    let now = namespace.setattr(ino, &change, ROOT_USER).expect("root may");
    machine.world.run_for(Duration::from_millis(2600));
    namespace.fsync(other).expect("it syncs, and the cut with it");
    assert_eq!(namespace.getattr(ino).expect("it is there"), now, "nobody here sees less");
    let machine = super::reclaim::crashed(&machine, 18);
    let pool = open(&machine, OpenOptions::default());
    let found = pool.namespace.getattr(ino).expect("it is there");
    assert!(found.size > 0 && found.size < now.size, "a beginning was cut: {} bytes", found.size);
    assert_eq!((found.mode & 0o7777, found.uid), (0o644, 0), "what came later did not survive");
    assert_eq!(found.ctime, found.mtime, "the last thing that was done to it was a write");
    pool.close().expect("it closes");
}

/// A file was cut off while it was being read: its object was said to be lost, and its disks to be bad.
#[test]
fn a_read_of_what_is_deleted_meanwhile_raises_no_alarm() {
    let machine = machine(14);
    let pool = open(&machine, OpenOptions::default());
    let ino = make(&pool.namespace, "file");
    write(&pool.namespace, ino, 0, &content(1, 3 << 20));
    pool.close().expect("it closes");
    let pool = open(&machine, OpenOptions::default());
    // Warm up the index, but not the data.
    assert_eq!(pool.namespace.seek(ino, 0, Seek::Data).expect("there is some"), 0);
    let namespace = pool.namespace.clone();
    let times = SetAttr { atime: Some(SetTime::At(WallTime::default())), ..SetAttr::default() };
    namespace.setattr(ino, &times, ROOT_USER).expect("it takes any time");
    // Nothing is on its way any more: what happens meanwhile waits for tasks, and must not be inside one.
    namespace.sync().expect("it syncs");
    machine.world.run_for(Duration::from_millis(500));
    machine.world.schedule(
        machine.world.now() + Duration::from_micros(50),
        Box::new(move || {
            resize(&namespace, ino, 0);
            write(&namespace, ino, 0, &content(2, 1 << 20));
            namespace.fsync(ino).expect("it syncs");
            namespace.sync().expect("it syncs");
        }),
    );
    let bytes = read(&pool.namespace, ino, 0, 1 << 20);
    let old = content(1, 3 << 20);
    assert!(bytes == old[..1 << 20] || bytes == content(2, 1 << 20) || bytes.is_empty());
    assert_eq!(reports(&pool), []);
    pool.close().expect("it closes");
}

/// A full object's list of owners made it longer than an object may be; the daemon died of it.
#[test]
fn objects_of_many_pieces_stay_within_the_largest() {
    let machine = SimMachine::new(15, &[256 * MIB; 32]);
    machine.create(Redundancy::Erasure { data: 31, parity: 1 });
    let pool = open(&machine, OpenOptions::default());
    let namespace = &pool.namespace;
    let ino = make(namespace, "file");
    let bytes = content(1, MIB as usize);
    let (mut at, mut left) = (0, 31 * 2 * MIB - 4096);
    while left > 0 {
        let length = left.min(83 * 4096);
        write(namespace, ino, at, &bytes[..length as usize]);
        // Not next to each other.
        at += 84 * 4096;
        left -= length;
    }
    namespace.sync().expect("there is room");
    assert_eq!(read(namespace, ino, 84 * 4096, 83 * 4096), bytes[..83 * 4096]);
    pool.close().expect("it closes");
}

/// All of `DiskIndex` are told apart by this module's helpers.
#[test]
fn the_helpers_take_all_room() {
    let machine = machine(17);
    let pool = open(&machine, OpenOptions::default());
    let held = take_all_room(&pool);
    assert!((0..6).all(|disk| pool.space.free_units(DiskIndex(disk)) == Units(0)));
    drop(held);
    pool.close().expect("it closes");
}

/// What nobody has synced waited for its flush, and what the flush wrote for the next batch: ten seconds.
/// docs/semantics.md: "Without any of these, what is written becomes durable within five seconds"
#[test]
fn i2_what_nobody_syncs_is_durable_within_five_seconds() {
    for (seed, pause) in (0..12).map(|seed| (seed, Duration::from_millis(470 * seed))) {
        let machine = machine(500 + seed);
        let pool = open(&machine, OpenOptions::default());
        let namespace = &pool.namespace;
        let old = make(namespace, "old");
        write(namespace, old, 0, &content(1, 100_000));
        namespace.sync().expect("it syncs");
        // Others write all the time, and nobody syncs.
        let others = make(namespace, "others");
        let work = |span: Duration| {
            let end = machine.world.now() + span;
            let mut number = 0;
            while machine.world.now() < end {
                write(namespace, others, number * 8192, &[1; 8192]);
                number += 1;
                machine.world.run_for(Duration::from_millis(100));
            }
        };
        work(pause);
        write(namespace, old, 4096, &content(2, 50_000));
        let new = make(namespace, "new");
        write(namespace, new, 0, &content(3, 2_000_000));
        work(Duration::from_millis(5_300));
        let machine = super::reclaim::crashed(&machine, seed);
        let pool = open(&machine, OpenOptions::default());
        let namespace = &pool.namespace;
        assert!(read(namespace, old, 4096, 50_000) == content(2, 50_000), "old, {pause:?}");
        assert!(read(namespace, new, 0, 2_000_000) == content(3, 2_000_000), "new, {pause:?}");
        pool.close().expect("it closes");
    }
}

/// [R27] The kernel keeps millions of inodes that nobody uses; each is a counter to us.
#[test]
fn r27_an_inode_that_is_only_known_to_the_kernel_is_a_counter() {
    let machine = machine(31);
    let pool = open(&machine, OpenOptions::default());
    let namespace = &pool.namespace;
    let files: Vec<Ino> = (0..200).map(|file| make(namespace, &format!("f{file}"))).collect();
    assert_eq!(namespace.inodes_in_memory(), (0, 200));
    let file = files[7];
    namespace.lookup(Ino::ROOT, b"f7").expect("it is there");
    let handle = namespace.open(file, false, ROOT_USER).expect("it opens");
    write(namespace, file, 0, b"two references and a handle");
    assert_eq!(namespace.inodes_in_memory(), (1, 199));
    namespace.unlink(Ino::ROOT, b"f7").expect("it is there");
    namespace.release(handle).expect("it closes");
    namespace.sync().expect("it syncs");
    assert_eq!(namespace.inodes_in_memory(), (0, 200), "what was written is in an object");
    namespace.forget(file, 1);
    assert_eq!(read(namespace, file, 4, 10), b"references", "one reference is left");
    namespace.forget(file, 1);
    machine.world.run_for(Duration::from_secs(10));
    namespace.getattr(file).expect_err("it had no name, and nobody knows it any more");
    for &file in files.iter().filter(|&&ino| ino != file) {
        namespace.forget(file, 1);
    }
    assert_eq!(namespace.inodes_in_memory(), (0, 0));
    namespace.forget(Ino(999_999), 1);
    assert_eq!(namespace.inodes_in_memory(), (0, 0), "nothing is known of what never was");
    pool.close().expect("it closes");
}

/// Files that come one after the other all become old one after the other.
#[test]
fn small_files_that_come_in_a_steady_stream_share_objects() {
    let machine = machine(33);
    let pool = open(&machine, OpenOptions::default());
    let namespace = &pool.namespace;
    let before = survey(namespace).len();
    for file in 0..600 {
        let ino = make(namespace, &format!("f{file}"));
        write(namespace, ino, 0, &content(file, 100));
        machine.world.run_for(Duration::from_millis(10));
    }
    namespace.sync().expect("it syncs");
    let objects = survey(namespace).len() - before;
    assert!((1..=8).contains(&objects), "600 files in {objects} objects");
    pool.close().expect("it closes");
}

/// [R19, R27] Many attributes, each with a block of its own: they are listed some at a time, and a list is no
/// longer than the kernel takes. One that was made in one go pinned all of them, and began anew at each.
#[test]
fn r19_a_list_of_many_large_attributes_is_made_in_steps() {
    let machine = machine(8);
    let pool = open(&machine, small_blocks());
    let ino = make(&pool.namespace, "file");
    let name = |number: usize| format!("user.{number:0200}").into_bytes();
    let set = |namespace: &Namespace, numbers: std::ops::Range<usize>, bytes: usize| {
        for number in numbers {
            let value = vec![number as u8; bytes];
            let set = namespace.setxattr(ino, &name(number), &value, XattrMode::Any, ROOT_USER);
            set.expect("there is room");
        }
    };
    set(&pool.namespace, 0..300, 64 << 10);
    pool.close().expect("it closes");
    let pool = open(&machine, small_blocks());
    let listed = pool.namespace.listxattr(ino, ROOT_USER).expect("it reads");
    assert_eq!(listed, (0..300).map(name).collect::<Vec<_>>());
    assert!(pool.namespace.rounds_max() < 60, "{} rounds", pool.namespace.rounds_max());
    // Beyond what the kernel takes: it is told that there is more, and nothing is made in vain.
    set(&pool.namespace, 300..900, 1);
    let listed = pool.namespace.listxattr(ino, ROOT_USER).expect("it reads");
    let bytes: usize = listed.iter().map(|name| name.len() + 1).sum();
    assert!((65_537..140_000).contains(&bytes), "{bytes} bytes of names");
    let value = pool.namespace.getxattr(ino, &name(899)).expect("it is there all the same");
    assert_eq!(value, [899_usize as u8]);
    pool.close().expect("it closes");
}
