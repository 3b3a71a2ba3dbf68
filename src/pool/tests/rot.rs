//! [I4, I5, R6, R9, R21] One bit turns over, anywhere: in every structure that is on a disk, at its first byte,
//! in its frame, in its middle and at its last byte, in each copy, and in m copies at once. While the pool is
//! not mounted, so that the mount meets it; and while it is, behind its back.
//!
//! What is read is always what was written. Afterwards a check that may mend finds what was not mended yet,
//! and when repair has ended the platter is right again: every place that was spoilt holds what it should, or
//! nothing needs it any more.
//!
//! A round turns bits over in all structures of a kind at the same time, each in the same copies.

use std::collections::BTreeMap;
use std::time::Duration;

use super::checks::mended;
use super::files::{content, make, write};
use super::repairs::{Files, compare, options, records};
use crate::base::sync::OnceLock;
use crate::base::{DiskIndex, MIB, UNIT_BYTES};
use crate::fleet::disk::Disk;
use crate::fleet::disk::sim::Image;
use crate::format::{
    DiskLayout, ENTRY_HEADER_BYTES, ObjectKind, ObjectRecord, RawEntryHeader, RawLabel, RawRoot,
    Redundancy, Root, SHARD_HEADER_BYTES, SLOTS,
};
use crate::pool::open::{OpenPool, ReadOnly};
use crate::pool::simulated::SimMachine;

const DISKS: usize = 6;
const DISK_BYTES: u64 = 256 * MIB;
/// m.
const PARITY: usize = 2;

/// What may rot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Label,
    /// The root that counts.
    Root,
    /// The one before.
    OldRoot,
    Entry,
    Header(Holds),
    Payload(Holds),
}

/// What an object is for, in an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Holds {
    Data,
    Replicas,
    Table,
    Manifest,
    Space,
}

/// Where one copy of a structure lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Copy {
    disk: usize,
    offset: u64,
    bytes: u64,
    /// The object or batch; another one may have the place later.
    of: u64,
}

/// One structure.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Structure {
    kind: Kind,
    copies: Vec<Copy>,
}

/// Where in a structure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum At {
    First,
    /// In the length of its frame, or what is there if it has none.
    Frame,
    Middle,
    Last,
}

const ATS: [At; 4] = [At::First, At::Frame, At::Middle, At::Last];

impl Copy {
    fn byte(&self, at: At) -> u64 {
        self.offset
            + match at {
                At::First => 0,
                At::Frame => 20.min(self.bytes - 1),
                At::Middle => self.bytes / 2,
                At::Last => self.bytes - 1,
            }
    }

    fn spot(&self, at: At) -> Spot {
        Spot { disk: self.disk, offset: self.byte(at), of: self.of }
    }
}

/// A byte on a disk, and what it is a part of.
#[derive(Clone, Copy, Debug)]
struct Spot {
    disk: usize,
    offset: u64,
    of: u64,
}

/// Each copy alone, and all pairs of them: m at once.
fn copy_sets(copies: usize) -> Vec<Vec<usize>> {
    let single = (0..copies).map(|copy| vec![copy]);
    let pairs = (0..copies).flat_map(|a| (a + 1..copies).map(move |b| vec![a, b]));
    assert_eq!(PARITY, 2, "pairs are m copies");
    single.chain(pairs).collect()
}

fn layout() -> DiskLayout {
    DiskLayout::for_disk(DISK_BYTES).expect("it is large enough")
}

fn images_of(machine: &SimMachine) -> Vec<Image> {
    machine.disks.iter().map(|disk| disk.snapshot().live().clone()).collect()
}

fn bytes_at(image: &Image, offset: u64, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    image.read(offset, &mut read);
    read
}

/// The roots in the slots of a disk that make sense there, with the bytes of each.
fn roots_on(image: &Image, pool: &OpenPool, disk: usize) -> Vec<Option<(Root, u64)>> {
    let uuid = pool.members.uuid(DiskIndex(disk as u16)).expect("it is a member");
    let root = |slot| {
        let at = layout().slot_offset(slot);
        let bytes = bytes_at(image, at, 64 << 10);
        let root = RawRoot::decode(&bytes, at).and_then(|raw| raw.verify(pool.uuid(), uuid, slot));
        let length = u32::from_le_bytes(bytes[20..24].try_into().expect("four bytes"));
        Some((root.ok()?, u64::from(length)))
    };
    (0..SLOTS).map(root).collect()
}

/// The newest root.
fn newest_root(images: &[Image], pool: &OpenPool) -> Root {
    let roots = images.iter().enumerate().flat_map(|(disk, image)| roots_on(image, pool, disk));
    let newest = roots.flatten().max_by_key(|(root, _)| (root.epoch, root.sequence));
    newest.expect("there is one").0
}

fn labels() -> Vec<Structure> {
    let copies = |disk| {
        let offsets = layout().label_offsets;
        offsets
            .into_iter()
            .map(move |offset| Copy { disk, offset, bytes: UNIT_BYTES, of: 0 })
            .collect()
    };
    (0..DISKS).map(|disk| Structure { kind: Kind::Label, copies: copies(disk) }).collect()
}

fn roots(images: &[Image], pool: &OpenPool) -> Vec<Structure> {
    let newest = newest_root(images, pool);
    let mut of: BTreeMap<Kind, Vec<Copy>> = BTreeMap::new();
    for (disk, image) in images.iter().enumerate() {
        for (slot, root) in roots_on(image, pool, disk).into_iter().enumerate() {
            let Some((root, bytes)) = root else { continue };
            let kind = if root == newest { Kind::Root } else { Kind::OldRoot };
            let offset = layout().slot_offset(slot);
            of.entry(kind).or_default().push(Copy { disk, offset, bytes, of: 0 });
        }
    }
    of.into_iter().map(|(kind, copies)| Structure { kind, copies }).collect()
}

/// Batches that a mount would replay.
fn entries(images: &[Image], pool: &OpenPool) -> Vec<Structure> {
    let (root, layout) = (newest_root(images, pool), layout());
    let mut batches: BTreeMap<u64, Vec<Copy>> = BTreeMap::new();
    for (disk, image) in images.iter().enumerate() {
        let uuid = pool.members.uuid(DiskIndex(disk as u16)).expect("it is a member");
        for position in (0..4 * MIB).step_by(UNIT_BYTES as usize) {
            let offset = layout.journal_offset + position;
            let unit = bytes_at(image, offset, UNIT_BYTES as usize);
            let entry = RawEntryHeader::decode(&unit, position);
            let Ok(entry) = entry.and_then(|raw| raw.verify(pool.uuid(), uuid, position)) else {
                continue;
            };
            if entry.epoch == root.epoch && entry.lsn > root.replay_lsn {
                let bytes = ENTRY_HEADER_BYTES as u64 + u64::from(entry.payload_len);
                let of = entry.lsn.0;
                batches.entry(of).or_default().push(Copy { disk, offset, bytes, of });
            }
        }
    }
    batches.into_values().map(|copies| Structure { kind: Kind::Entry, copies }).collect()
}

fn of_object(record: &ObjectRecord) -> Holds {
    match (record.kind, record.redundancy) {
        (ObjectKind::Data, Redundancy::Erasure { .. }) => Holds::Data,
        (ObjectKind::Data, Redundancy::Replica { .. }) => Holds::Replicas,
        (ObjectKind::Table, _) => Holds::Table,
        (ObjectKind::Manifest, _) => Holds::Manifest,
        (ObjectKind::SpaceSnapshot, _) => Holds::Space,
    }
}

fn live_records(pool: &OpenPool) -> Vec<ObjectRecord> {
    let mut all = records(&pool.namespace);
    all.extend(pool.namespace.unkeyed().records());
    all
}

fn objects(pool: &OpenPool) -> Vec<Structure> {
    let mut found = Vec::new();
    for record in live_records(pool) {
        let what = of_object(&record);
        let headers: Vec<Copy> = (record.places.iter().flatten())
            .map(|at| Copy {
                disk: at.disk.as_usize(),
                offset: layout().data_offset(at.offset),
                bytes: SHARD_HEADER_BYTES as u64,
                of: record.id.0,
            })
            .collect();
        let bytes =
            if record.kind == ObjectKind::Data { record.shard_bytes } else { record.length };
        let payloads = headers.iter().map(|&header| Copy {
            offset: header.offset + UNIT_BYTES,
            bytes: bytes.into(),
            ..header
        });
        found.push(Structure { kind: Kind::Payload(what), copies: payloads.collect() });
        found.push(Structure { kind: Kind::Header(what), copies: headers });
    }
    found
}

/// A pool that was in use, as a power cut left it: files, tables, two roots, a log.
struct Base {
    images: Vec<Image>,
    files: Files,
    structures: Vec<Structure>,
}

/// Objects of three data shards, of two, and replicas; and small changes, for the log.
fn use_it(pool: &OpenPool) -> Files {
    let mut files = Files::new();
    for (number, size) in [100, 5_300_000, 2_500_000, 70_000].into_iter().enumerate() {
        let bytes = content(number as u64, size);
        let ino = make(&pool.namespace, &format!("f{number}"));
        write(&pool.namespace, ino, 0, &bytes);
        pool.namespace.forget(ino, 1);
        files.insert(format!("f{number}"), bytes);
        // Each in an object of its own.
        pool.namespace.sync().expect("it syncs");
        pool.namespace.checkpoint().expect("there is room");
    }
    files
}

/// Some batches for the log.
fn log_it(pool: &OpenPool, files: &mut Files) {
    for (number, size) in [30, 9_000, 20_000].into_iter().enumerate() {
        let bytes = content(70 + number as u64, size);
        let name = format!("l{number}-{}", files.len());
        let ino = make(&pool.namespace, &name);
        write(&pool.namespace, ino, 0, &bytes);
        pool.namespace.fsync(ino).expect("it syncs");
        pool.namespace.forget(ino, 1);
        files.insert(name, bytes);
    }
}

fn structures(machine: &SimMachine, pool: &OpenPool) -> Vec<Structure> {
    let images = images_of(machine);
    let mut all = labels();
    all.extend(roots(&images, pool));
    all.extend(entries(&images, pool));
    all.extend(objects(pool));
    all
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let machine = SimMachine::new(1, &[DISK_BYTES; DISKS]);
        machine.create(Redundancy::Erasure { data: 3, parity: PARITY as u8 });
        let pool = machine.open(options()).expect("it opens");
        let mut files = use_it(&pool);
        log_it(&pool, &mut files);
        let images = images_of(&machine);
        let structures = structures(&machine, &pool);
        machine.world.clear();
        Base { images, files, structures }
    })
}

/// The pool that the base becomes: always the same one, and nothing was read but what mounting reads.
struct Mounted {
    machine: SimMachine,
    pool: OpenPool,
    files: Files,
}

impl Mounted {
    fn with(images: Vec<Image>) -> Mounted {
        let images = images.into_iter().enumerate().collect();
        let machine = SimMachine::with_images(2, images);
        let pool = machine.open(options()).expect("it opens");
        assert_eq!(pool.read_only, ReadOnly::No);
        Mounted { machine, pool, files: base().files.clone() }
    }

    /// With batches in its log.
    fn in_use() -> Mounted {
        let mut mounted = Mounted::with(base().images.clone());
        log_it(&mounted.pool, &mut mounted.files);
        mounted
    }

    /// Everything reads, is mended, and the platter says so.
    fn is_well(&self, round: &Round, before: &[Image]) {
        let what = &round.name;
        if !round.check_first {
            compare(&self.pool.namespace, &self.files);
        }
        let mut report = mended(&self.pool);
        if round.check_first {
            let found = &report.findings;
            assert!(found.len() >= round.findings, "{what}: {} {found:#?}", round.findings);
            compare(&self.pool.namespace, &self.files);
        }
        for _ in 0..8 {
            if report.is_clean() {
                break;
            }
            let lost: Vec<_> = report.findings.iter().filter(|found| !found.mended).collect();
            assert!(lost.is_empty(), "{what}: {lost:?}");
            self.machine.world.run_for(Duration::from_secs(5));
            report = mended(&self.pool);
        }
        assert!(report.is_clean(), "{what}: {report:#?}");
        compare(&self.pool.namespace, &self.files);
        self.platter_is_right(&round.spots, before, what);
    }

    /// Looked at without the check: labels and roots decode; what was spoilt elsewhere is as it was before, or
    /// nothing that counts has it.
    fn platter_is_right(&self, spots: &[Spot], before: &[Image], what: &str) {
        let (images, pool) = (images_of(&self.machine), &self.pool);
        for (disk, image) in images.iter().enumerate() {
            let uuid = pool.members.uuid(DiskIndex(disk as u16)).expect("it is a member");
            for offset in layout().label_offsets {
                let bytes = bytes_at(image, offset, UNIT_BYTES as usize);
                let label = RawLabel::decode(&bytes, offset).and_then(|raw| raw.verify(DISK_BYTES));
                assert_eq!(label.expect(what).disk, uuid, "{what}");
            }
            let roots = roots_on(image, pool, disk);
            assert!(roots.iter().all(Option::is_some), "{what}: slots of disk {disk}");
        }
        let needed = needed(&images, pool);
        for &Spot { disk, offset, of } in spots {
            let same = bytes_at(&images[disk], offset, 1) == bytes_at(&before[disk], offset, 1);
            let is_needed = needed.iter().any(|copy| {
                (copy.disk, copy.of) == (disk, of)
                    && (copy.offset..copy.offset + copy.bytes).contains(&offset)
            });
            assert!(same || !is_needed, "{what}: disk {disk}, byte {offset}");
        }
    }

    fn end(self) {
        self.machine.world.clear();
    }
}

/// What lies in log and data area, and counts.
fn needed(images: &[Image], pool: &OpenPool) -> Vec<Copy> {
    let mut all = entries(images, pool);
    all.extend(objects(pool));
    all.into_iter().flat_map(|structure| structure.copies).collect()
}

/// A round.
struct Round {
    name: String,
    spots: Vec<Spot>,
    /// What a check says of them: labels, roots and batches copy by copy, objects as a whole.
    findings: usize,
    /// The check comes before anybody reads.
    check_first: bool,
}

/// Rounds of these kinds; each with its name and what it spoils.
fn rounds(structures: &[Structure], kinds: &[Kind]) -> Vec<Round> {
    let chosen: Vec<&Structure> =
        structures.iter().filter(|structure| kinds.contains(&structure.kind)).collect();
    let most = chosen.iter().map(|structure| copy_sets(structure.copies.len()).len()).max();
    let mut rounds = Vec::new();
    for at in ATS {
        for number in 0..most.unwrap_or(0) {
            let (mut spots, mut findings) = (Vec::new(), 0);
            for structure in &chosen {
                let sets = copy_sets(structure.copies.len());
                let Some(set) = sets.get(number) else { continue };
                findings += match structure.kind {
                    Kind::Header(_) | Kind::Payload(_) => 1,
                    Kind::Label | Kind::Root | Kind::OldRoot | Kind::Entry => set.len(),
                };
                spots.extend(set.iter().map(|&copy| structure.copies[copy].spot(at)));
            }
            let name = format!("{kinds:?}, {at:?} byte, set {number}");
            let check_first = rounds.len() % 2 == 0;
            rounds.push(Round { name, spots, findings, check_first });
        }
    }
    rounds
}

/// How many cases there are: structures x places x sets of copies, by kind.
fn cases(structures: &[Structure], kinds: &[Kind]) -> BTreeMap<Kind, usize> {
    let mut cases = BTreeMap::new();
    for structure in structures.iter().filter(|structure| kinds.contains(&structure.kind)) {
        *cases.entry(structure.kind).or_default() +=
            ATS.len() * copy_sets(structure.copies.len()).len();
    }
    cases
}

/// All rounds of these kinds, while the pool is not mounted, and while it is. Returns how many cases.
fn rot(kinds: &[Kind]) -> BTreeMap<Kind, usize> {
    let base = base();
    let mut done = BTreeMap::new();
    let mut count = |structures: &[Structure]| {
        for (kind, cases) in cases(structures, kinds) {
            *done.entry(kind).or_default() += cases;
        }
    };
    count(&base.structures);
    for mut round in rounds(&base.structures, kinds) {
        let mut images = base.images.clone();
        round.spots.iter().for_each(|spot| images[spot.disk].flip_bit(spot.offset, 3));
        let mounted = Mounted::with(images);
        round.name = format!("not mounted, {}", round.name);
        // The mount has mended some of it.
        round.findings = 0;
        mounted.is_well(&round, &base.images);
        mounted.end();
    }
    let scout = Mounted::in_use();
    let there = structures(&scout.machine, &scout.pool);
    scout.end();
    count(&there);
    for mut round in rounds(&there, kinds) {
        let mounted = Mounted::in_use();
        let before = images_of(&mounted.machine);
        let disks = &mounted.machine.disks;
        round.spots.iter().for_each(|spot| disks[spot.disk].flip_bit(spot.offset, 3));
        round.name = format!("mounted, {}", round.name);
        mounted.is_well(&round, &before);
        mounted.end();
    }
    println!("{done:?}");
    done
}

#[test]
fn r6_rot_in_labels() {
    let done = rot(&[Kind::Label]);
    assert_eq!(done[&Kind::Label], 2 * DISKS * ATS.len() * (3 + 3));
}

#[test]
fn r9_rot_in_roots() {
    let sets = DISKS + DISKS * (DISKS - 1) / 2;
    for kinds in [&[Kind::Root][..], &[Kind::Root, Kind::OldRoot]] {
        let done = rot(kinds);
        for kind in kinds {
            assert_eq!(done[kind], 2 * ATS.len() * sets);
        }
    }
}

#[test]
fn r5_rot_in_the_log() {
    let done = rot(&[Kind::Entry]);
    // Three batches at least, of m + 2 copies.
    assert!(done[&Kind::Entry] >= 2 * ATS.len() * 3 * (4 + 6), "{done:?}");
}

const HOLDS: [Holds; 5] =
    [Holds::Data, Holds::Replicas, Holds::Table, Holds::Manifest, Holds::Space];

fn rot_in_objects(kind: fn(Holds) -> Kind) {
    let done = rot(&HOLDS.map(kind));
    // Two objects of data shards, of five and of four; two of replicas, three of each; what is of the index has
    // m + 2 copies.
    let least = [(5 + 10) + (4 + 6), 3 + 3, 4 + 6, 4 + 6, 4 + 6];
    for (holds, least) in HOLDS.into_iter().zip(least) {
        assert!(done[&kind(holds)] >= 2 * ATS.len() * least, "{holds:?}: {done:?}");
    }
}

/// docs/semantics.md: "A bit that turned over on a disk, in whatever structure, is never returned"
#[test]
fn r21_rot_in_shards() {
    rot_in_objects(Kind::Payload);
}

#[test]
fn r26_rot_in_headers_of_shards() {
    rot_in_objects(Kind::Header);
}

/// docs/semantics.md: "A disk of which no copy of the label can be used is not taken"
///
/// No copy of its label is left: nobody can tell whose the disk is, and the pool mounts without it, as without m
/// such disks.
#[test]
fn i5_a_disk_without_a_label_is_not_taken() {
    for gone in 0..DISKS {
        for at in ATS {
            let mut images = base().images.clone();
            let both = [gone, (gone + 1) % DISKS];
            for disk in both {
                let copies = layout().label_offsets;
                copies.iter().for_each(|&offset| {
                    let copy = Copy { disk, offset, bytes: UNIT_BYTES, of: 0 };
                    images[disk].flip_bit(copy.byte(at), 5);
                });
            }
            let mounted = Mounted::with(images);
            let mut missing = mounted.pool.missing.clone();
            missing.sort();
            let mut want = both.map(|disk| DiskIndex(disk as u16));
            want.sort();
            assert_eq!(missing, want, "{at:?}");
            compare(&mounted.pool.namespace, &mounted.files);
            mounted.end();
        }
    }
}

/// While the pool is mounted it is known what they should say: all three are written again.
#[test]
fn r6_all_copies_of_a_label_are_mended_while_mounted() {
    for disk in 0..DISKS {
        let mounted = Mounted::in_use();
        let before = images_of(&mounted.machine);
        let spots = layout().label_offsets.map(|at| Spot { disk, offset: at + 700, of: 0 });
        let spots = spots.to_vec();
        let flip = |spot: &Spot| mounted.machine.disks[disk].flip_bit(spot.offset, 1);
        spots.iter().for_each(flip);
        let name = format!("all labels of disk {disk}");
        let findings = spots.len();
        mounted.is_well(&Round { name, spots, findings, check_first: true }, &before);
        mounted.pool.close().expect("it closes");
        let images = images_of(&mounted.machine).into_iter().enumerate().collect();
        let again = SimMachine::with_images(3, images);
        let pool = again.open(options()).expect("it opens");
        assert!(pool.missing.is_empty() && !pool.was_unclean);
        compare(&pool.namespace, &mounted.files);
        pool.close().expect("it closes");
    }
}

/// A pool that is only looked at stays as it is, and it is said what is bad, and on which disk.
#[test]
fn what_is_bad_on_a_pool_that_is_not_mounted_is_told_and_left() {
    let mut images = base().images.clone();
    images[1].flip_bit(layout().label_offsets[2] + 90, 0);
    images[2].flip_bit(layout().slot_offset(0) + 90, 0);
    images[4].flip_bit(layout().slot_offset(1) + 9, 0);
    let entry = base().structures.iter().find(|structure| structure.kind == Kind::Entry);
    let copies = &entry.expect("there is a log").copies;
    copies[..PARITY].iter().for_each(|copy| images[copy.disk].flip_bit(copy.byte(At::Last), 0));
    let machine = SimMachine::with_images(2, images.into_iter().enumerate().collect());
    let mut read_only = options();
    read_only.assemble.read_only = true;
    read_only.namespace.read_only = true;
    let pool = machine.open(read_only).expect("it opens");
    let report = mended(&pool);
    let told: Vec<&str> = report.findings.iter().map(|found| &found.what[..]).collect();
    assert!(told[0].starts_with("copy 2 of the label of disk 1 cannot be used"), "{told:#?}");
    assert!(told[1].starts_with("the checkpoint root in slot 0 of disk 2 does not"), "{told:#?}");
    assert!(told[2].starts_with("the checkpoint root in slot 1 of disk 4 does not"), "{told:#?}");
    assert!(told[3].contains(" 2 copies are good, fewer than"), "{told:#?}");
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(report.findings.iter().all(|found| !found.mended && !found.lost));
    let written: u64 = machine.disks.iter().map(|disk| disk.counters().written_bytes).sum();
    assert_eq!(written, 0, "it was only read");
}
