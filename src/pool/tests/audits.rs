//! [R17, R18] The audit: each contradiction is planted once and found, and a pool that has lived has none.

use std::time::Duration;

use crate::base::{DiskIndex, Ino, MIB, ObjectId, Random, ShardIndex, UNIT_BYTES, Units};
use crate::fleet::disk::sim::Image;
use crate::format::{
    Checksums, DirentValue, ExtentValue, FileKind, InodeRecord, Key, ObjectRecord, Orphan, Place,
    Redundancy, name_hash,
};
use crate::namespace::{
    Allocate, Audit, Caller, Finding, Namespace, NewInode, RenameMode, SetAttr, XattrMode,
};
use crate::pool::open::{OpenOptions, OpenPool};
use crate::pool::simulated::SimMachine;

const ROOT_USER: Caller = Caller { uid: 0, gid: 0 };
/// No inode and no object of a test has this number.
const NOBODY: u64 = 5000;
/// Bytes of /d/f: one object with a data shard on each of three disks.
const F_BYTES: u64 = 5 * MIB;
/// An offset beyond its end.
const BEYOND: u64 = 8 * MIB;

fn machine(seed: u64) -> SimMachine {
    let machine = SimMachine::new(seed, &[256 * MIB; 6]);
    machine.create(Redundancy::Erasure { data: 3, parity: 2 });
    machine
}

fn make(namespace: &Namespace, parent: Ino, name: &str, kind: FileKind) -> Ino {
    let new = NewInode { kind, mode: 0o755, umask: 0, rdev: 0 };
    let made = namespace.mknod(parent, name.as_bytes(), &new, ROOT_USER);
    made.expect("the name is new").ino
}

fn audit(namespace: &Namespace) -> Audit {
    namespace.audit().expect("it reads")
}

fn assert_clean(namespace: &Namespace, told: &str) -> Audit {
    let audit = audit(namespace);
    let words: Vec<String> = audit.findings.iter().map(|found| found.to_string()).collect();
    assert!(audit.is_clean(), "{told}: {} findings: {words:#?}", audit.found);
    assert!(audit.compared_space, "{told}: it is at rest");
    assert_eq!(audit.intents, 0, "{told}: nothing is left to be done");
    audit
}

/// A pool with /d/f, /e and /g, at rest, and what it takes to spoil it.
struct Bench {
    machine: SimMachine,
    pool: OpenPool,
    d: Ino,
    e: Ino,
    f: Ino,
    g: Ino,
}

/// Entries of the index to put; None: to delete.
type Entries = Vec<(Key, Option<Vec<u8>>)>;

impl Bench {
    fn new() -> Bench {
        let machine = machine(1);
        let pool = machine.open(OpenOptions::default()).expect("it opens");
        let namespace = &pool.namespace;
        let [d, e] = ["d", "e"].map(|name| make(namespace, Ino::ROOT, name, FileKind::Directory));
        let f = make(namespace, d, "f", FileKind::File);
        let g = make(namespace, Ino::ROOT, "g", FileKind::File);
        namespace.write(g, 0, &[7; 70_000], false, false).expect("there is room");
        namespace.sync().expect("it syncs");
        for at in (0..F_BYTES).step_by(MIB as usize) {
            let bytes = vec![8; MIB as usize];
            namespace.write(f, at, &bytes, false, false).expect("there is room");
        }
        namespace.sync().expect("it syncs");
        machine.world.run_for(Duration::from_secs(1));
        assert_clean(namespace, "before anything is planted");
        Bench { machine, pool, d, e, f, g }
    }

    fn value(&self, key: &Key) -> Vec<u8> {
        let entries = self.pool.namespace.entries(key.as_bytes()[0]);
        let found = entries.into_iter().find(|(other, _)| other == key);
        found.expect("the key is there").1
    }

    fn record(&self, ino: Ino) -> InodeRecord {
        InodeRecord::decode(&self.value(&Key::inode(ino))).expect("it was encoded")
    }

    fn changed(&self, ino: Ino, change: impl FnOnce(&mut InodeRecord)) -> (Key, Option<Vec<u8>>) {
        let mut record = self.record(ino);
        change(&mut record);
        (Key::inode(ino), Some(record.encode()))
    }

    fn name_key(&self, directory: Ino, name: &[u8]) -> Key {
        let hash = name_hash(self.machine.root().name_hash_key, name);
        Key::dirent(directory, hash, name)
    }

    /// A name in a directory, whose record is changed as the name demands.
    fn named(&self, directory: Ino, name: &str, ino: Ino, kind: FileKind) -> Entries {
        let key = self.name_key(directory, name.as_bytes());
        let record = self.changed(directory, |record| {
            record.size += name.len() as u64;
            record.links += u32::from(kind == FileKind::Directory);
        });
        vec![(key, Some(DirentValue { ino, kind }.encode())), record]
    }

    /// The object that /d/f is in.
    fn object(&self) -> ObjectRecord {
        let extent = ExtentValue::decode(&self.value(&Key::extent(self.f, 0))).expect("valid");
        ObjectRecord::decode(&self.value(&Key::object(extent.object))).expect("valid")
    }

    /// The same as another one, elsewhere, with all its keys but those of live bytes.
    fn other_object(&self, place: impl Fn(usize, Place) -> Place) -> (ObjectRecord, Entries) {
        let mut record = self.object();
        let lists: Vec<Vec<u8>> = (0..record.places.len())
            .map(|list| self.value(&Key::checksums(record.id, ShardIndex(list as u8))))
            .collect();
        record.id = ObjectId(NOBODY);
        for (index, at) in record.places.iter_mut().enumerate() {
            *at = at.map(|at| place(index, at));
        }
        let mut entries = vec![(Key::object(record.id), Some(record.encode()))];
        for (list, value) in lists.into_iter().enumerate() {
            entries.push((Key::checksums(record.id, ShardIndex(list as u8)), Some(value)));
        }
        (record, entries)
    }

    /// Ten bytes of /d/f, behind all others, in this object, and its record as that demands.
    fn ten_bytes_in(&self, object: ObjectId, object_offset: u32) -> Entries {
        let extent = ExtentValue { length: 10, object, object_offset, unwritten: false };
        let longer = self.changed(self.f, |record| {
            record.size = 2 * BEYOND;
            record.allocated += 10;
        });
        vec![(Key::extent(self.f, BEYOND), Some(extent.encode())), longer]
    }

    /// What is found once this is planted.
    fn finds(self, entries: Entries) -> Vec<Finding> {
        self.finds_with(entries, 0)
    }

    fn finds_with(self, entries: Entries, inodes: i64) -> Vec<Finding> {
        self.pool.namespace.plant(&entries, inodes);
        let audit = audit(&self.pool.namespace);
        let sorted = |mut audit: Audit| {
            audit.findings.sort_by_key(|found| format!("{found:?}"));
            audit
        };
        let windows = self.pool.namespace.audit_in_windows(2);
        assert_eq!(sorted(windows), sorted(audit.clone()), "in windows it finds the same");
        for found in &audit.findings {
            println!("{found}");
        }
        audit.findings.into_iter().map(|found| found.finding).collect()
    }
}

fn free_place(index: usize, place: Place) -> Place {
    Place { offset: Units(40_000 + 100 * index as u64), ..place }
}

fn unwritten(length: u64) -> Option<Vec<u8>> {
    let extent = ExtentValue { length, object: ObjectId(0), object_offset: 0, unwritten: true };
    Some(extent.encode())
}

#[test]
fn entries_that_make_no_sense() {
    let bench = Bench::new();
    let keys: Vec<Key> = (0..=10).map(|kind| Key::from_bytes(&[kind, 1, 2])).collect();
    // A name of two bytes is good for the last of them, but its value is not.
    let entries = keys.iter().map(|key| (key.clone(), Some(vec![1]))).collect();
    let mut found = bench.finds(entries);
    let mut want: Vec<Finding> =
        keys.iter().map(|key| Finding::Unreadable { key: key.as_bytes().to_vec() }).collect();
    found.sort_by_key(|finding| format!("{finding:?}"));
    want.sort_by_key(|finding| format!("{finding:?}"));
    assert_eq!(found, want);
    let bench = Bench::new();
    let keys = [
        Key::dirent(bench.e, 99, b"x"),
        Key::extent(bench.f, BEYOND),
        Key::object(ObjectId(NOBODY)),
        Key::checksums(bench.object().id, ShardIndex(9)),
        Key::live(ObjectId(NOBODY)),
        Key::orphan(bench.f),
        Key::meta(b"unheard of"),
    ];
    let entries = keys.iter().map(|key| (key.clone(), Some(vec![1]))).collect();
    let want: Vec<Finding> =
        keys.iter().map(|key| Finding::Unreadable { key: key.as_bytes().to_vec() }).collect();
    let found = bench.finds(entries);
    assert_eq!(found.len(), want.len());
    assert!(want.iter().all(|finding| found.contains(finding)), "{found:?}");
}

#[test]
fn inodes_counted_wrongly() {
    let found = Bench::new().finds_with(Vec::new(), 1);
    assert_eq!(found, [Finding::InodeCount { there: 5, index: 6, memory: 6 }]);
}

#[test]
fn r5_a_number_not_handed_out_yet() {
    let bench = Bench::new();
    let ino = Ino(1 << 40);
    let record = InodeRecord { size: 0, allocated: 0, ..bench.record(bench.f) };
    let mut entries = bench.named(bench.e, "early", ino, FileKind::File);
    entries.push((Key::inode(ino), Some(record.encode())));
    assert_eq!(bench.finds_with(entries, 1), [Finding::BeyondLease { ino }]);
}

#[test]
fn links_without_names() {
    let bench = Bench::new();
    let (f, d) = (bench.f, bench.d);
    let entries = vec![
        bench.changed(f, |record| record.links = 2),
        bench.changed(d, |record| record.links = 3),
    ];
    let links = |ino, recorded, names| Finding::Links { ino, recorded, names };
    assert_eq!(bench.finds(entries), [links(d, 3, 2), links(f, 2, 1)]);
}

#[test]
fn a_directory_of_another_size() {
    let bench = Bench::new();
    let ino = bench.d;
    let entries = vec![bench.changed(ino, |record| record.size += 1)];
    let want = Finding::DirectorySize { ino, recorded: 2, names_bytes: 1 };
    assert_eq!(bench.finds(entries), [want]);
}

#[test]
fn a_directory_with_two_names() {
    let bench = Bench::new();
    let ino = bench.d;
    let entries = bench.named(bench.e, "again", ino, FileKind::Directory);
    assert_eq!(bench.finds(entries), [Finding::DirectoryNames { ino, names: 2 }]);
}

#[test]
fn a_directory_that_thinks_it_is_elsewhere() {
    let bench = Bench::new();
    let (ino, e) = (bench.d, bench.e);
    let entries = vec![bench.changed(ino, |record| record.parent = e)];
    assert_eq!(bench.finds(entries), [Finding::Parent { ino, recorded: e, found: Ino::ROOT }]);
}

#[test]
fn a_circle_of_directories() {
    let bench = Bench::new();
    let (d, e) = (bench.d, bench.e);
    let kind = FileKind::Directory;
    let mut entries = vec![
        (bench.name_key(Ino::ROOT, b"d"), None),
        (bench.name_key(Ino::ROOT, b"e"), None),
        bench.changed(Ino::ROOT, |record| {
            record.links -= 2;
            record.size -= 2;
        }),
    ];
    entries.extend(bench.named(d, "e", e, kind));
    entries.extend(bench.named(e, "d", d, kind));
    for (key, value) in &mut entries {
        for (ino, parent) in [(d, e), (e, d)] {
            if *key == Key::inode(ino) {
                let record = InodeRecord::decode(value.as_ref().expect("it is put"));
                *value = Some(InodeRecord { parent, ..record.expect("valid") }.encode());
            }
        }
    }
    let want = [Finding::Unreachable { ino: d }, Finding::Unreachable { ino: e }];
    assert_eq!(bench.finds(entries), want);
}

#[test]
fn an_inode_that_nobody_deletes() {
    let bench = Bench::new();
    let ino = bench.f;
    bench.pool.namespace.open(ino, false, ROOT_USER).expect("it is there");
    bench.pool.namespace.unlink(bench.d, b"f").expect("it is there");
    assert_clean(&bench.pool.namespace, "unlinked while open");
    let entries = vec![(Key::orphan(ino), None)];
    assert_eq!(bench.finds(entries), [Finding::Nameless { ino }]);
}

#[test]
fn an_inode_with_a_name_that_is_to_be_deleted() {
    let bench = Bench::new();
    let ino = bench.f;
    let entries = vec![(Key::orphan(ino), Some(Orphan::Unlinked.encode()))];
    assert_eq!(bench.finds(entries), [Finding::DoomedWithLinks { ino }]);
}

#[test]
fn work_on_nobody() {
    let ino = Ino(NOBODY);
    let entries = vec![(Key::orphan(ino), Some(Orphan::Unlinked.encode()))];
    assert_eq!(Bench::new().finds(entries), [Finding::WorkOnNobody { ino }]);
}

#[test]
fn a_name_of_nobody() {
    let bench = Bench::new();
    let (directory, ino) = (bench.d, Ino(NOBODY));
    let entries = bench.named(directory, "ghost", ino, FileKind::File);
    let name = b"ghost".to_vec();
    assert_eq!(bench.finds(entries), [Finding::NameOfNobody { directory, name, ino }]);
}

#[test]
fn a_name_of_another_kind() {
    let bench = Bench::new();
    let (directory, ino, name) = (bench.d, bench.f, b"f".to_vec());
    let value = DirentValue { ino, kind: FileKind::Symlink }.encode();
    let entries = vec![(bench.name_key(directory, b"f"), Some(value))];
    assert_eq!(bench.finds(entries), [Finding::NameOfOtherKind { directory, name, ino }]);
}

#[test]
fn a_name_in_a_file() {
    let bench = Bench::new();
    let (directory, ino, name) = (bench.f, bench.g, b"g".to_vec());
    let value = DirentValue { ino, kind: FileKind::File }.encode();
    let entries = vec![
        (bench.name_key(directory, b"g"), Some(value)),
        bench.changed(ino, |record| record.links = 2),
    ];
    assert_eq!(bench.finds(entries), [Finding::NameInNoDirectory { directory, name }]);
}

#[test]
fn a_name_that_is_not_where_its_hash_says() {
    let bench = Bench::new();
    let (directory, name) = (bench.d, b"f".to_vec());
    let key = bench.name_key(directory, b"f");
    let value = bench.value(&key);
    let entries = vec![(key, None), (Key::dirent(directory, 17, b"f"), Some(value))];
    assert_eq!(bench.finds(entries), [Finding::NameMisplaced { directory, name }]);
}

#[test]
fn an_attribute_of_nobody() {
    let (ino, name) = (Ino(NOBODY), b"user.a".to_vec());
    let entries = vec![(Key::xattr(ino, &name), Some(Vec::new()))];
    assert_eq!(Bench::new().finds(entries), [Finding::AttributeOfNobody { ino, name }]);
}

#[test]
fn content_of_nobody() {
    let bench = Bench::new();
    let nobody = [Ino(NOBODY), bench.e];
    // Two of each: it is told once.
    let entries = nobody
        .iter()
        .flat_map(|&ino| [5, 9].map(|offset| (Key::extent(ino, offset), unwritten(1))));
    let mut want = nobody.map(|ino| Finding::ExtentOfNobody { ino, offset: 5 });
    want.sort_by_key(|finding| finding.ino());
    let entries = entries.collect();
    assert_eq!(bench.finds(entries), want);
}

#[test]
fn a_part_of_a_file_twice() {
    let bench = Bench::new();
    let (ino, offset) = (bench.f, 1);
    let entries = vec![
        (Key::extent(ino, offset), unwritten(1)),
        bench.changed(ino, |record| record.allocated += 1),
    ];
    assert_eq!(bench.finds(entries), [Finding::ExtentsOverlap { ino, offset }]);
}

#[test]
fn content_beyond_the_end() {
    let bench = Bench::new();
    let ino = bench.f;
    let entries = vec![
        (Key::extent(ino, BEYOND), unwritten(10)),
        bench.changed(ino, |record| record.allocated += 10),
    ];
    let want = Finding::ExtentBeyondEnd { ino, size: F_BYTES, end: BEYOND + 10 };
    assert_eq!(bench.finds(entries), [want]);
}

#[test]
fn content_in_an_object_of_which_nothing_is_known() {
    let bench = Bench::new();
    let (ino, object) = (bench.f, ObjectId(NOBODY));
    let entries = bench.ten_bytes_in(object, 0);
    let want = Finding::ExtentWithoutObject { ino, offset: BEYOND, object };
    assert_eq!(bench.finds(entries), [want]);
}

#[test]
fn content_beyond_the_end_of_its_object() {
    let bench = Bench::new();
    let (ino, record) = (bench.f, bench.object());
    let mut entries = bench.ten_bytes_in(record.id, record.pieces_offset - 9);
    entries.push((Key::live(record.id), Some((F_BYTES as i64 + 10).to_le_bytes().to_vec())));
    let want = Finding::ExtentBeyondObject { ino, offset: BEYOND, object: record.id };
    assert_eq!(bench.finds(entries), [want]);
}

#[test]
fn bytes_of_a_file_counted_wrongly() {
    let bench = Bench::new();
    let ino = bench.f;
    let entries = vec![bench.changed(ino, |record| record.allocated += 1)];
    let want = Finding::Allocated { ino, recorded: F_BYTES + 1, extents: F_BYTES };
    assert_eq!(bench.finds(entries), [want]);
}

#[test]
fn r17_live_bytes_counted_wrongly() {
    let bench = Bench::new();
    let (ino, object) = (Some(bench.f), bench.object().id);
    let entries = vec![(Key::live(object), Some((F_BYTES as i64 - 1).to_le_bytes().to_vec()))];
    let want = Finding::LiveBytes { object, ino, counter: F_BYTES as i64 - 1, extents: F_BYTES };
    assert_eq!(bench.finds(entries), [want]);
}

#[test]
fn live_bytes_of_nobody() {
    let object = ObjectId(NOBODY);
    let entries = vec![(Key::live(object), Some(vec![0; 8]))];
    assert_eq!(Bench::new().finds(entries), [Finding::LiveBytesOfNobody { object }]);
}

#[test]
fn an_object_that_no_file_is_in() {
    let bench = Bench::new();
    let (record, entries) = bench.other_object(free_place);
    bench.pool.space.put(&record).expect("the places are free");
    assert_eq!(bench.finds(entries), [Finding::ObjectUnused { object: record.id }]);
}

#[test]
fn r16_checksum_lists_that_are_missing_too_short_and_too_many() {
    let bench = Bench::new();
    let (ino, object) = (Some(bench.f), bench.object().id);
    let key = |list| Key::checksums(object, ShardIndex(list));
    let short = Some(Checksums(Vec::new()).encode());
    let entries = vec![(key(0), None), (key(1), short.clone()), (key(200), short)];
    let want = [200, 0, 1];
    let want = want.map(|list| Finding::ChecksumList { object, ino, list: ShardIndex(list) });
    assert_eq!(bench.finds(entries), want);
}

#[test]
fn checksums_of_nobody() {
    let object = ObjectId(NOBODY);
    let key = |list| Key::checksums(object, ShardIndex(list));
    let value = Some(Checksums(vec![1]).encode());
    let entries = vec![(key(0), value.clone()), (key(1), value)];
    assert_eq!(Bench::new().finds(entries), [Finding::ChecksumsOfNobody { object }]);
}

#[test]
fn shards_on_disks_that_have_no_such_place() {
    let bench = Bench::new();
    let ino = Some(bench.f);
    let area = bench.pool.space.room(DiskIndex(0)).expect("it is a member").total.0;
    let (record, mut entries) = bench.other_object(|index, place| match index {
        0 => Place { disk: DiskIndex(6), offset: Units(7) },
        1 => Place { offset: Units(area - 1), ..place },
        _ => free_place(index, place),
    });
    let second = record.places[1].expect("it is there").disk;
    entries.extend(bench.ten_bytes_in(record.id, 0));
    entries.push((Key::live(record.id), Some(10i64.to_le_bytes().to_vec())));
    let put = bench.pool.space.put(&record);
    assert!(put.is_err(), "there is no such place");
    let object = record.id;
    let outside = |disk, unit| Finding::ShardOutside { object, ino, disk, unit };
    assert_eq!(bench.finds(entries), [outside(DiskIndex(6), 7), outside(second, area - 1)]);
}

#[test]
fn two_objects_in_one_place() {
    let bench = Bench::new();
    let first = bench.object();
    // Its second unit is the other one's first.
    let (record, mut entries) = bench.other_object(|index, place| match index {
        0 => Place { offset: place.offset + Units(1), ..place },
        _ => free_place(index, place),
    });
    let place = record.places[0].expect("it is there");
    let mut elsewhere = record.clone();
    elsewhere.places.remove(0);
    let last = Place { disk: place.disk, offset: first.shard_units() + place.offset - Units(1) };
    entries.extend(bench.ten_bytes_in(record.id, 0));
    entries.push((Key::live(record.id), Some(10i64.to_le_bytes().to_vec())));
    bench.pool.space.put(&elsewhere).expect("the places are free");
    // The unit that it has alone.
    let tail = ObjectRecord {
        id: ObjectId(1),
        shard_bytes: UNIT_BYTES as u32,
        places: vec![Some(last)],
        ..record.clone()
    };
    let _ = bench.pool.space.put(&tail);
    let found = bench.finds(entries);
    let (object, other, disk, unit) = (first.id, record.id, place.disk, place.offset.0);
    let want = Finding::ShardsOverlap { object, other, disk, unit };
    assert!(found.contains(&want), "{found:?}");
}

#[test]
fn r18_objects_that_the_space_map_does_not_know() {
    let bench = Bench::new();
    let record = bench.object();
    let table = bench.machine.root().manifest.pop().expect("it has tables").record;
    bench.pool.space.delete(&record).expect("it is there");
    bench.pool.space.abandon(table.id);
    let mut found = bench.finds(Vec::new());
    let shards = |record: &ObjectRecord| {
        let object = record.id;
        let places = record.places.clone().into_iter().flatten();
        let finding = move |place: Place| {
            let (disk, unit) = (place.disk, place.offset.0);
            Finding::ShardNotInSpaceMap { object, disk, unit }
        };
        places.map(finding).collect::<Vec<_>>()
    };
    for want in [shards(&record), shards(&table)].concat() {
        let at = found.iter().position(|finding| *finding == want);
        found.remove(at.unwrap_or_else(|| panic!("{want} is not in {found:?}")));
    }
    assert_eq!(found, []);
}

#[test]
fn r18_space_that_no_object_has() {
    let bench = Bench::new();
    let (record, _) = bench.other_object(free_place);
    bench.pool.space.put(&record).expect("the places are free");
    let units = record.shard_units().0;
    let mut want: Vec<Finding> = record
        .places
        .iter()
        .flatten()
        .map(|place| Finding::SpaceOfNobody { disk: place.disk, unit: place.offset.0, units })
        .collect();
    want.sort_by_key(|finding| match finding {
        Finding::SpaceOfNobody { disk, .. } => disk.0,
        _ => 0,
    });
    assert_eq!(bench.finds(Vec::new()), want);
}

#[test]
fn a_report_is_bounded_and_says_where() {
    let bench = Bench::new();
    let namespace = &bench.pool.namespace;
    let names = (0..1500).map(|number| format!("user.{number:04}"));
    let attributes = names.map(|name| (Key::xattr(Ino(NOBODY), name.as_bytes()), Some(Vec::new())));
    let mut attributes: Entries = attributes.collect();
    let links = [bench.d, bench.f, Ino::ROOT];
    let entries = links.map(|ino| bench.changed(ino, |record| record.links = 9));
    namespace.plant(&entries, 0);
    namespace.plant(&attributes.split_off(1499), 0);
    let report = audit(namespace);
    let told: Vec<String> = report.findings.iter().map(|found| found.to_string()).collect();
    let (d, f) = (bench.d, bench.f);
    let want = [
        "attribute user.1499 of inode 5000, which is not there".to_string(),
        "/: inode 1 counts 9 links, its names make 4".to_string(),
        format!("/d: inode {d} counts 9 links, its names make 2"),
        format!("/d/f: inode {f} counts 9 links, its names make 1"),
    ];
    assert_eq!(told, want);
    namespace.plant(&attributes, 0);
    let report = audit(namespace);
    assert_eq!((report.found, report.findings.len()), (1503, 1000));
}

/// One operation drawn at random on a few files in a few directories.
fn disturb(namespace: &Namespace, random: &mut Random, handles: &mut Vec<u64>) {
    let root = Ino::ROOT;
    let directory = format!("d{}", random.below(3)).into_bytes();
    let found = namespace.lookup(root, &directory).map(|attr| attr.ino);
    let directory = found.unwrap_or_else(|_| {
        make(namespace, root, &directory.escape_ascii().to_string(), FileKind::Directory)
    });
    let [name, other] = [(); 2].map(|()| format!("f{}", random.below(8)).into_bytes());
    let Ok(attr) = namespace.lookup(directory, &name) else {
        let ino = make(namespace, directory, &name.escape_ascii().to_string(), FileKind::File);
        let length = [0, 100, 5000, 300_000, 4 << 20][random.below(5) as usize];
        let bytes = vec![random.next_u64() as u8; length.min(1 << 20)];
        for at in (0..length).step_by(1 << 20) {
            namespace.write(ino, at as u64, &bytes, false, false).expect("there is room");
        }
        return namespace.forget(ino, 1);
    };
    let (ino, size) = (attr.ino, attr.size);
    match random.below(12) {
        0 | 1 => {
            let at = random.below(size + 5000);
            let bytes = vec![random.next_u64() as u8; 1 + random.below(100_000) as usize];
            namespace.write(ino, at, &bytes, false, false).expect("there is room");
        }
        2 => {
            let size = Some(random.below(2 * size + 1));
            let change = SetAttr { size, ..SetAttr::default() };
            namespace.setattr(ino, &change, ROOT_USER).expect("it takes any size");
        }
        3 => {
            let at = random.below(size + 1);
            let length = 1 + random.below(100_000);
            let punched = namespace.allocate(ino, Allocate::PunchHole, at, length, ROOT_USER);
            punched.expect("it is punched");
        }
        4 => {
            let target = make(namespace, root, "new", FileKind::File);
            namespace.write(target, 0, &[1; 70_000], false, false).expect("there is room");
            let renamed = namespace.rename(root, b"new", directory, &name, RenameMode::Replace);
            renamed.expect("it replaces the old one");
            namespace.forget(target, 1);
        }
        5 => {
            // Refused if the name is taken.
            let _ = namespace.link(ino, directory, &other).map(|_| namespace.forget(ino, 1));
        }
        6 => {
            let _ = namespace.rename(directory, &name, directory, &other, RenameMode::Exchange);
        }
        7 => {
            let value = vec![1; random.below(2000) as usize];
            let set = namespace.setxattr(ino, b"user.a", &value, XattrMode::Any, ROOT_USER);
            set.expect("there is room");
        }
        8 => handles.push(namespace.open(ino, false, ROOT_USER).expect("it is there")),
        9 => namespace.fsync(ino).expect("it syncs"),
        _ => namespace.unlink(directory, &name).expect("it is there"),
    }
    namespace.forget(ino, 1);
    if handles.len() > 4 {
        let handle = handles.swap_remove(random.below(5) as usize);
        namespace.release(handle).expect("it is open");
    }
}

#[test]
fn r18_a_pool_that_has_lived_has_no_contradiction() {
    let mut seen = Vec::new();
    for seed in 0..3 {
        let mut random = Random::new(seed);
        let mut machine = machine(seed);
        let mut options = OpenOptions::default();
        options.index.memtable_bytes = 64 << 10;
        for life in 1..4 {
            let told = format!("seed {seed}, life {life}");
            let pool = machine.open(options.clone()).expect("it opens");
            assert_clean(&pool.namespace, &format!("{told}, just opened"));
            let mut handles = Vec::new();
            for _ in 0..100 {
                disturb(&pool.namespace, &mut random, &mut handles);
                if random.one_in(10) {
                    machine.world.run_for(Duration::from_millis(random.below(4000)));
                }
            }
            if random.one_in(2) {
                pool.namespace.sync().expect("it syncs");
                machine.world.run_for(Duration::from_secs(20));
                let audit = assert_clean(&pool.namespace, &format!("{told}, at rest"));
                let windows = pool.namespace.audit_in_windows(3);
                assert_eq!(windows, audit, "in windows it counts the same");
                seen.push(audit);
            }
            let images: Vec<(usize, Image)> = machine
                .disks
                .iter()
                .enumerate()
                .map(|(index, disk)| (index, disk.snapshot().crash_image(&mut random)))
                .collect();
            machine.world.clear();
            drop(pool);
            // Another seed in every life: no tag of a table may come again.
            machine = SimMachine::with_images(100 * seed + life, images);
        }
    }
    // Not of nothing: with files of several extents, and files without a name that are open.
    let any = |what: fn(&Audit) -> bool| seen.iter().any(what);
    assert!(any(|audit| audit.extents > audit.names && audit.objects > 0), "{seen:?}");
    assert!(any(|audit| audit.inodes > audit.names + 1), "{seen:?}");
}
