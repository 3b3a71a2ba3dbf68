//! [R17, R18] The check: what is spoilt on a disk is found, said in terms of files, and left as it was; and
//! what others do meanwhile is no finding.

use std::time::Duration;

use super::files::{ROOT_USER, content, make, read, write};
use super::reclaim::crashed;
use crate::base::{Clock, DiskIndex, Ino, MIB, Random, UNIT_BYTES};
use crate::fleet::FleetError;
use crate::fleet::disk::Disk;
use crate::format::{ExtentValue, Key, ObjectRecord, Redundancy};
use crate::namespace::NamespaceError;
use crate::namespace::{FileKind, Namespace, NewInode};
use crate::pool::open::{OpenOptions, OpenPool};
use crate::pool::simulated::SimMachine;
use crate::services::check::{
    CheckAway, CheckError, CheckFinding, CheckReport, FixedPlaces, check,
};

const DIRECTORY: NewInode = NewInode { kind: FileKind::Directory, mode: 0o755, umask: 0, rdev: 0 };

fn machine(seed: u64) -> SimMachine {
    let machine = SimMachine::new(seed, &[256 * MIB; 6]);
    machine.create(Redundancy::Erasure { data: 3, parity: 2 });
    machine
}

/// A check that looks at no fixed places, and may mend nothing.
struct LooksOnly;

impl FixedPlaces for LooksOnly {
    fn look(
        &self,
        _: &dyn Fn(DiskIndex) -> String,
        _: &mut dyn FnMut(u64) -> bool,
    ) -> Vec<CheckFinding> {
        Vec::new()
    }

    fn may_mend(&self) -> bool {
        false
    }
}

/// What a check says that changes nothing.
pub(super) fn checked(pool: &OpenPool, deep: bool) -> CheckReport {
    checked_by(pool, &LooksOnly, deep)
}

/// What a check says, as of a mounted pool: fixed places too, and what it may mend it mends.
pub(super) fn mended(pool: &OpenPool) -> CheckReport {
    checked_by(pool, &pool.platter, true)
}

fn checked_by(pool: &OpenPool, places: &dyn FixedPlaces, deep: bool) -> CheckReport {
    let name = |disk: DiskIndex| format!("disk {}", disk.0);
    let mut last = 0.0;
    let mut told = 0;
    let mut step = String::new();
    let report = check(&pool.namespace, places, deep, &name, &mut |progress| {
        told += 1;
        if step != progress.step {
            (step, last) = (progress.step.clone(), 0.0);
        }
        let part = progress.done as f64 / progress.total.max(1) as f64;
        assert!(part <= 1.0 && part >= last * 0.9, "it goes on: {progress:?}");
        last = part;
        true
    });
    assert!(told > 0, "it says how far it is");
    report.expect("it reads")
}

/// /d/f of five MiB, in one object with a data shard on each of three disks; and /g, small.
struct Bench {
    machine: SimMachine,
    pool: OpenPool,
    f: Ino,
    g: Ino,
}

impl Bench {
    fn new(seed: u64) -> Bench {
        let machine = machine(seed);
        let pool = machine.open(OpenOptions::default()).expect("it opens");
        let namespace = &pool.namespace;
        let d = namespace.mknod(Ino::ROOT, b"d", &DIRECTORY, ROOT_USER).expect("it is new").ino;
        let new = NewInode { kind: FileKind::File, ..DIRECTORY };
        let f = namespace.mknod(d, b"f", &new, ROOT_USER).expect("it is new").ino;
        write(namespace, f, 0, &content(1, 5 << 20));
        let g = make(namespace, "g");
        namespace.sync().expect("it syncs");
        write(namespace, g, 0, &content(2, 70_000));
        namespace.sync().expect("it syncs");
        // What a root names is there to be checked too.
        namespace.checkpoint().expect("it has room");
        machine.world.run_for(Duration::from_secs(1));
        Bench { machine, pool, f, g }
    }

    fn record(&self, ino: Ino) -> ObjectRecord {
        let namespace = &self.pool.namespace;
        let value = |kind: &Key| {
            let entries = namespace.entries(kind.as_bytes()[0]);
            entries.into_iter().find(|(key, _)| key == kind).expect("it is there").1
        };
        let extent = ExtentValue::decode(&value(&Key::extent(ino, 0))).expect("it was encoded");
        ObjectRecord::decode(&value(&Key::object(extent.object))).expect("it was encoded")
    }

    /// One bit of a shard, this far behind its header's first byte.
    fn spoil(&self, record: &ObjectRecord, shard: usize, at: u64) -> DiskIndex {
        let place = record.places[shard].expect("it has a place");
        let layout = self.pool.members.layout(place.disk).expect("it is a member");
        let disk = &self.machine.disks[place.disk.0 as usize];
        disk.flip_bit(layout.data_offset(place.offset) + at, 3);
        place.disk
    }

    fn found(&self) -> Vec<CheckFinding> {
        let before = self.written();
        let report = checked(&self.pool, true);
        assert_eq!(self.written(), before, "a check changes nothing");
        assert_eq!(report.found, report.findings.len() as u64);
        report.findings
    }

    fn written(&self) -> u64 {
        self.machine.disks.iter().map(|disk| disk.counters().written_bytes).sum()
    }
}

#[test]
fn a_pool_without_fault_is_clean_mounted_or_not() {
    let bench = Bench::new(1);
    let report = checked(&bench.pool, true);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.inodes, report.names, report.objects), (4, 3, 2), "{report:?}");
    assert_eq!(report.bytes, (5 << 20) + 70_000);
    // Five of /d/f, three of /g, and what has four copies each: tables, manifest, space snapshot.
    assert!(report.shards >= 5 + 3 + 3 * 4 && report.shards.is_multiple_of(4), "{report:?}");
    assert!(report.compared_space && report.shard_bytes > 5 * MIB * 5 / 3);
    let shallow = checked(&bench.pool, false);
    assert_eq!(shallow, CheckReport { shards: 0, shard_bytes: 0, ..report.clone() });
    // Looked at by another, after a crash, writing nothing.
    let machine = crashed(&bench.machine, 1);
    let mut options = OpenOptions::default();
    options.assemble.read_only = true;
    options.namespace.read_only = true;
    let pool = machine.open(options).expect("it opens");
    assert_eq!(checked(&pool, true), report);
    let written: u64 = machine.disks.iter().map(|disk| disk.counters().written_bytes).sum();
    assert_eq!(written, 0, "it was only read");
}

/// Every kind of structure, at its beginning, middle and last byte, in every copy.
#[test]
fn r17_one_bit_anywhere_is_found_and_said_in_terms_of_files() {
    let bench = Bench::new(2);
    let pool = &bench.pool;
    for (ino, path) in [(bench.f, "/d/f"), (bench.g, "/g")] {
        let record = bench.record(ino);
        let bytes = u64::from(record.shard_bytes);
        for shard in 0..record.places.len() {
            for at in [0, bytes / 2, bytes - 1] {
                let disk = bench.spoil(&record, shard, UNIT_BYTES + at);
                let found = bench.found();
                assert_eq!(found.len(), 1, "{path}, shard {shard}, byte {at}: {found:?}");
                assert_eq!((&found[0].paths[..], found[0].lost), (&[path.to_string()][..], false));
                let what = format!("shard {shard} on disk {} does not match", disk.0);
                assert!(found[0].what.contains(&what), "{what}: {found:?}");
                assert!(found[0].what.contains("readable, and 1 more may be lost"), "{found:?}");
                bench.spoil(&record, shard, UNIT_BYTES + at);
            }
            let disk = bench.spoil(&record, shard, 40);
            let found = bench.found();
            let what = format!("shard {shard} on disk {} has another's header", disk.0);
            assert!(found.len() == 1 && found[0].what.contains(&what), "{what}: {found:?}");
            bench.spoil(&record, shard, 40);
        }
    }
    let unkeyed = pool.namespace.unkeyed();
    let mut kinds = std::collections::BTreeSet::new();
    for record in unkeyed.records() {
        kinds.insert(format!("{:?}", record.kind));
        for copy in 0..record.places.len() {
            for at in [0, u64::from(record.length) / 2, u64::from(record.length) - 1] {
                let disk = bench.spoil(&record, copy, UNIT_BYTES + at);
                let found = bench.found();
                let what = format!("{}: shard {copy} on disk {}", record.id, disk.0);
                assert!(found.len() == 1 && found[0].what.contains(&what), "{what}: {found:?}");
                bench.spoil(&record, copy, UNIT_BYTES + at);
            }
        }
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["Manifest", "SpaceSnapshot", "Table"]);
    assert_eq!(bench.found(), []);
}

/// docs/semantics.md: "**EIO** from a read: more shards of that object are bad or missing"
#[test]
fn i6_what_is_lost_is_named() {
    let bench = Bench::new(3);
    let record = bench.record(bench.f);
    for shard in [0, 2, 4] {
        // The same column: one good cell less than needed.
        bench.spoil(&record, shard, UNIT_BYTES);
    }
    let found = bench.found();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].lost && found[0].paths == ["/d/f"], "{found:?}");
    assert!(found[0].what.contains("LOST: 2 good shards of 3 needed"), "{found:?}");
    let namespace = &bench.pool.namespace;
    let mut bytes = Vec::new();
    let whole = namespace.read(bench.f, 0, 5 << 20, &mut bytes);
    assert!(matches!(whole, Err(NamespaceError::Io(FleetError::Unreadable { .. }))), "{whole:?}");
    assert_eq!(read(namespace, bench.g, 0, 70_000), content(2, 70_000), "others are unaffected");
}

#[test]
fn disks_that_are_away_or_silent_are_counted_once() {
    let bench = Bench::new(4);
    let on: Vec<DiskIndex> =
        bench.record(bench.f).places.iter().flatten().map(|p| p.disk).collect();
    bench.machine.disks[on[0].0 as usize].detach();
    bench.machine.disks[on[1].0 as usize].set_hang(true);
    let before = bench.machine.world.now();
    let report = checked(&bench.pool, true);
    let took = Duration::from_nanos(bench.machine.world.now().0 - before.0);
    assert!(took < Duration::from_secs(200), "a silent disk is not waited for each time: {took:?}");
    assert_eq!((report.found, report.is_clean()), (0, false), "{report:?}");
    let mut disks: Vec<String> = report.away.iter().map(|away| away.disk.clone()).collect();
    let mut want = vec![format!("disk {}", on[0].0), format!("disk {}", on[1].0)];
    disks.sort();
    want.sort();
    assert_eq!(disks, want, "{report:?}");
    assert!(report.away.iter().all(|CheckAway { objects, .. }| *objects > 0));
}

/// [R17] An extent that points at bytes which, so the object itself, are another file's.
#[test]
fn r17_owners_that_say_something_else_are_found() {
    let bench = Bench::new(5);
    let namespace = &bench.pool.namespace;
    let record = bench.record(bench.f);
    let (key, next) = (Key::extent(bench.f, 0), Key::extent(bench.f, 4096));
    let entries = namespace.entries(key.as_bytes()[0]);
    let value = &entries.iter().find(|(other, _)| *other == key).expect("it is there").1;
    let extent = ExtentValue::decode(value).expect("it was encoded");
    // All counts are as they were; the first two blocks have changed places.
    let first = ExtentValue { length: 4096, object_offset: extent.object_offset + 4096, ..extent };
    let second = ExtentValue { length: 4096, ..extent };
    let third = ExtentValue {
        length: extent.length - 8192,
        object_offset: extent.object_offset + 8192,
        ..extent
    };
    let planted = [
        (key, Some(first.encode())),
        (next, Some(second.encode())),
        (Key::extent(bench.f, 8192), Some(third.encode())),
    ];
    namespace.plant(&planted, 0);
    namespace.sync().expect("it syncs");
    bench.machine.world.run_for(Duration::from_secs(6));
    assert!(checked(&bench.pool, false).is_clean(), "the index alone cannot know");
    let found = bench.found();
    assert_eq!(found.len(), 1, "{found:?}");
    let what = format!("object {}: its list of owners says something else", record.id);
    assert!(found[0].what.contains(&what) && found[0].paths == ["/d/f"], "{found:?}");
}

/// Files are written, overwritten, deleted, moved by reclaim while it goes on.
#[test]
fn r20_what_others_do_meanwhile_is_no_finding() {
    for seed in 0..8 {
        let machine = machine(60 + seed);
        let mut options = OpenOptions::default();
        options.reclaim.loose_bytes_min = 1;
        options.reclaim.loose_share = u64::MAX;
        options.reclaim.worth_percent_min = 90;
        options.reclaim.look = Duration::from_millis(300);
        let pool = machine.open(options).expect("it opens");
        let namespace = &pool.namespace;
        let mut random = Random::new(seed);
        let mut files: Vec<Ino> = Vec::new();
        let mut number = 0;
        let mut change = |namespace: &Namespace, random: &mut Random| {
            number += 1;
            match random.below(4) {
                0 | 1 if files.len() < 40 => {
                    let ino = make(namespace, &format!("{number}"));
                    write(namespace, ino, 0, &content(number, 1 + random.below(300_000) as usize));
                    files.push(ino);
                }
                2 if files.len() > 10 => {
                    let ino = files.swap_remove(random.below(files.len() as u64) as usize);
                    let names = namespace.entries(0x02);
                    let name = names.iter().find_map(|(key, value)| {
                        let crate::format::KeyView::Dirent { name, .. } =
                            crate::format::KeyView::decode(key.as_bytes()).ok()?
                        else {
                            return None;
                        };
                        let found = crate::format::DirentValue::decode(value).ok()?.ino == ino;
                        found.then(|| name.to_vec())
                    });
                    namespace.unlink(Ino::ROOT, &name.expect("it has a name")).expect("there");
                    namespace.forget(ino, 1);
                }
                _ if !files.is_empty() => {
                    let ino = files[random.below(files.len() as u64) as usize];
                    write(namespace, ino, random.below(200_000), &content(number, 30_000));
                }
                _ => {}
            }
            if random.one_in(4) {
                namespace.sync().expect("it syncs");
            }
        };
        for _ in 0..60 {
            change(namespace, &mut random);
        }
        namespace.sync().expect("it syncs");
        let name = |disk: DiskIndex| format!("disk {}", disk.0);
        let mut steps = 0;
        let report = check(namespace, &LooksOnly, true, &name, &mut |_| {
            steps += 1;
            change(namespace, &mut random);
            machine.world.run_for(Duration::from_millis(random.below(400)));
            true
        });
        let report = report.expect("it reads");
        assert!(steps > 20, "{steps} steps: much was changed meanwhile");
        assert!(report.is_clean(), "seed {seed}: {report:#?}");
        for &ino in &files {
            read(namespace, ino, 0, 1 << 20);
        }
        pool.close().expect("it closes");
    }
}

#[test]
fn a_check_ends_when_nobody_listens() {
    let bench = Bench::new(7);
    let name = |disk: DiskIndex| format!("disk {}", disk.0);
    for step in ["disks", "index", "shards"] {
        let (namespace, places) = (&bench.pool.namespace, &bench.pool.platter);
        let ended = check(namespace, places, true, &name, &mut |progress| progress.step != step);
        assert!(matches!(ended, Err(CheckError::Stopped)), "{step}: {ended:?}");
    }
}
