//! The journal on simulated disks: named scenarios of the design review here, random histories with
//! crashes in `property.rs`.

use std::time::Duration;

use super::*;
use crate::base::limits::{BUFFER_POOL_BYTES, WRITE_DEADLINE_MS};
use crate::base::simulation::World;
use crate::base::sync::atomic::AtomicU64;
use crate::base::{Clock, DiskUuid, GIB, MIB, Random, UNIT_BYTES};
use crate::fleet::disk::sim::{Access as SimAccess, Image, SimDisk, SimParameters, Snapshot};
use crate::fleet::disk::{BufferPool, DiskError};
use crate::fleet::{FailReason, Member, MemberState, RecordMembers, Report, Reports};
use crate::format::{DiskLayout, RawEntryHeader, Redundancy};

mod property;

const POOL: PoolUuid = PoolUuid([7; 16]);
const DISK_BYTES: u64 = 256 * MIB;
const ALL: [DiskIndex; 3] = [DiskIndex(0), DiskIndex(1), DiskIndex(2)];
const ZERO: Mark = Mark { lsn: Lsn(0), batch_crc: 0, heads: Vec::new() };

/// Labels that always take what they are told; counts how often.
struct TestLabels {
    members: Arc<Members>,
    records: AtomicU64,
}

impl RecordMembers for TestLabels {
    fn record(&self) -> Result<(), FleetError> {
        self.records.fetch_add(1, Ordering::SeqCst);
        self.members.set_recorded(self.members.sequence());
        Ok(())
    }
}

struct Bench {
    world: Arc<World>,
    disks: Vec<Arc<SimDisk>>,
    access: Access,
    members: Arc<Members>,
    labels: Arc<TestLabels>,
    reports: Arc<Reports>,
    epoch: Epoch,
}

fn uuid(index: usize) -> DiskUuid {
    DiskUuid([index as u8 + 1; 16])
}

fn parameters(index: usize) -> SimParameters {
    SimParameters::quick(&format!("disk{index}"), DISK_BYTES)
}

impl Bench {
    fn new(seed: u64, disks: usize, parity: u8) -> Bench {
        Bench::sized(seed, disks, parity, DISK_BYTES)
    }

    fn sized(seed: u64, disks: usize, parity: u8, bytes: u64) -> Bench {
        let images = (0..disks).map(|_| Some(Image::new(bytes))).collect();
        Bench::open(seed, images, parity, Epoch(1))
    }

    /// Disks with these images; None: missing.
    fn open(seed: u64, images: Vec<Option<Image>>, parity: u8, epoch: Epoch) -> Bench {
        let world = World::new(seed);
        let reports = Arc::new(Reports::new());
        let redundancy = Redundancy::Replica { copies: parity + 1 };
        let members = Arc::new(Members::new(POOL, redundancy, reports.clone()));
        let mut disks = Vec::new();
        for (index, image) in images.into_iter().enumerate() {
            let here = image.is_some();
            let image = image.unwrap_or_else(|| Image::new(DISK_BYTES));
            let bytes = image.bytes();
            let parameters = SimParameters { bytes, ..parameters(index) };
            let disk = SimDisk::open(&world, parameters, image);
            members.set(Member {
                index: DiskIndex(index as u16),
                uuid: uuid(index),
                layout: DiskLayout::for_disk(bytes).expect("it is large enough"),
                state: if here { MemberState::Active } else { MemberState::Missing },
                handle: here.then(|| disk.clone() as _),
                enclosure: None,
                failing: false,
            });
            disks.push(disk);
        }
        members.set_recorded(members.sequence());
        let buffers = BufferPool::new(BUFFER_POOL_BYTES, world.clone());
        let access = Access { clock: world.clone(), wait: world.clone(), buffers };
        let labels = Arc::new(TestLabels { members: members.clone(), records: AtomicU64::new(0) });
        Bench { world, disks, access, members, labels, reports, epoch }
    }

    fn journal(&self, from: &Mark) -> Journal {
        let context = JournalContext {
            access: self.access.clone(),
            quorum: Arc::new(Quorum::new(self.members.clone(), self.labels.clone())),
            heat: Arc::new(Heat::new(self.world.clone(), self.members.clone())),
            pool: POOL,
            epoch: self.epoch,
            epoch_id: u64::from(self.epoch.0) * 1000,
        };
        Journal::open(context, from)
    }

    /// What a mount finds that goes on from a root of `epoch` with this mark.
    fn replay(&self, epoch: Epoch, mark: &Mark) -> Replay {
        let from = ReplayFrom {
            pool: POOL,
            epoch,
            epoch_id: u64::from(epoch.0) * 1000,
            mark: mark.clone(),
        };
        replay(&self.access, &self.members, &from)
    }

    fn after(&self, ms: u64, event: impl FnOnce() + Send + 'static) {
        self.world.schedule(self.world.now() + Duration::from_millis(ms), Box::new(event));
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        self.disks.iter().map(|disk| disk.snapshot()).collect()
    }

    /// The pool after a crash now that loses everything volatile.
    fn crash(&self) -> Bench {
        let images = self.snapshots().iter().map(|s| Some(s.durable().clone())).collect();
        Bench::open(99, images, self.members.parity() as u8, self.epoch)
    }

    fn reports(&self) -> Vec<Report> {
        std::iter::from_fn(|| self.reports.pop()).collect()
    }

    /// All valid entries of this epoch on all disks: (disk, position, header).
    fn entries(&self) -> Vec<(usize, u64, crate::format::EntryHeader)> {
        let mut found = Vec::new();
        for (index, disk) in self.disks.iter().enumerate() {
            let layout = DiskLayout::for_disk(DISK_BYTES).expect("it is large enough");
            let snapshot = disk.snapshot();
            let mut unit = vec![0; UNIT_BYTES as usize];
            for at in (0..layout.journal_bytes).step_by(UNIT_BYTES as usize) {
                snapshot.live().read(layout.journal_offset + at, &mut unit);
                let Ok(raw) = RawEntryHeader::decode(&unit, at) else { continue };
                if let Ok(header) = raw.verify(POOL, uuid(index), at) {
                    found.push((index, at, header));
                }
            }
        }
        found
    }
}

fn payload(lsn: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random::new(lsn);
    let mut payload = vec![0; bytes];
    random.fill(&mut payload);
    payload
}

fn check(replay: &Replay, expected: std::ops::RangeInclusive<u64>, bytes: usize) {
    let lsns: Vec<u64> = (0..replay.len()).map(|index| replay.lsn(index).0).collect();
    assert_eq!(lsns, expected.collect::<Vec<u64>>());
    for (index, lsn) in lsns.iter().enumerate() {
        assert_eq!(*replay.payload(index).expect("readable"), payload(*lsn, bytes), "batch {lsn}");
    }
}

#[test]
fn r27_a_replayed_batch_is_given_up_and_can_be_read_again() {
    let bench = Bench::new(27, 3, 1);
    append(&bench.journal(&ZERO), 1..=5, 100_000);
    let mut replay = bench.crash().replay(Epoch(1), &ZERO);
    for left in (0..5).rev() {
        replay.give_up(4 - left);
        assert_eq!(replay.kept_bytes(), left * 100_000);
    }
    check(&replay, 1..=5, 100_000);
}

fn append(journal: &Journal, lsns: std::ops::RangeInclusive<u64>, bytes: usize) {
    for lsn in lsns {
        journal.append(Lsn(lsn), &payload(lsn, bytes)).expect("the batch is taken");
    }
}

#[test]
fn batches_come_back_in_order() {
    let bench = Bench::new(1, 6, 2);
    let journal = bench.journal(&ZERO);
    append(&journal, 1..=40, 10_000);
    assert_eq!(journal.acked(), Lsn(40));
    let crashed = bench.crash();
    let replay = crashed.replay(Epoch(1), &ZERO);
    check(&replay, 1..=40, 10_000);
    assert!(replay.is_sound(2, &ALL) && replay.unread.is_empty());
    assert_eq!(replay.end.lsn, Lsn(40));
    // m + 2 copies of each, on distinct disks [R1].
    for lsn in 1..=40 {
        let mut disks: Vec<usize> =
            bench.entries().iter().filter(|e| e.2.lsn.0 == lsn).map(|e| e.0).collect();
        disks.dedup();
        assert!(disks.len() >= 3, "batch {lsn} is on {disks:?}");
    }
}

#[test]
fn scenario_1_no_batch_is_found_without_the_one_before() {
    let bench = Bench::new(3, 5, 1);
    let journal = bench.journal(&ZERO);
    bench.disks[0].set_slow(300.0);
    bench.disks[1].set_slow(100.0);
    let snapshots = Arc::new(Mutex::new(Vec::new()));
    for tenth in 0..400 {
        let (disks, snapshots) = (bench.disks.clone(), snapshots.clone());
        bench.world.schedule(
            bench.world.now() + Duration::from_micros(tenth * 100),
            Box::new(move || {
                snapshots.lock().push(disks.iter().map(|d| d.snapshot()).collect::<Vec<_>>());
            }),
        );
    }
    append(&journal, 1..=30, 5000);
    let mut random = Random::new(5);
    let snapshots = std::mem::take(&mut *snapshots.lock());
    assert!(snapshots.len() > 20);
    for moment in snapshots {
        let images = moment.iter().map(|s| Some(s.crash_image(&mut random))).collect();
        let replay = Bench::open(4, images, 1, Epoch(1)).replay(Epoch(1), &ZERO);
        let count = replay.len() as u64;
        check(&replay, 1..=count, 5000);
        assert_eq!((replay.dropped, replay.gaps.len()), (0, 0), "[R3]");
    }
}

#[test]
fn scenario_4_an_old_102_does_not_continue_a_new_101() {
    let bench = Bench::new(6, 4, 1);
    let journal = bench.journal(&ZERO);
    append(&journal, 1..=1, 3000);
    let before = bench.snapshots();
    append(&journal, 2..=3, 3000);
    let after = bench.snapshots();
    // A crash; the disks that had 2 are not there: the mount goes on from 1 in a new epoch.
    let mut images: Vec<Option<Image>> = before.iter().map(|s| Some(s.live().clone())).collect();
    let late = 3;
    images[late] = None;
    let second = Bench::open(7, images, 1, Epoch(2));
    let replayed = second.replay(Epoch(1), &ZERO);
    assert_eq!(replayed.end.lsn, Lsn(1));
    // Several bytes for the new one: its checksum may rank before or after the old one's.
    for other in 0..8u8 {
        let images = second.snapshots().iter().map(|s| Some(s.live().clone())).collect();
        let again = Bench::open(7, images, 1, Epoch(2));
        let journal = again.journal(&replayed.end);
        journal.append(Lsn(2), &[other; 100]).expect("taken");
        // It crashes too; the disk with the old 2 and 3 is back.
        let mut images: Vec<Option<Image>> =
            again.snapshots().iter().map(|s| Some(s.live().clone())).collect();
        images[late] = Some(after[late].live().clone());
        let third = Bench::open(8, images, 1, Epoch(3));
        let last = third.replay(Epoch(2), &replayed.end);
        assert_eq!((last.len(), last.lsn(0), last.dropped), (1, Lsn(2), 0));
        assert_eq!(*last.payload(0).expect("readable"), [other; 100]);
    }
}

#[test]
fn scenario_7_holes_on_one_disk_do_not_hide_what_comes_after() {
    let bench = Bench::new(9, 3, 1);
    let journal = bench.journal(&ZERO);
    append(&journal, 1..=20, 9000);
    let layout = DiskLayout::for_disk(DISK_BYTES).expect("it is large enough");
    // Rot in the header of one entry and in the payload of another, on one disk.
    let (_, first, _) = bench.entries().into_iter().find(|e| e.0 == 0).expect("it has entries");
    bench.disks[0].flip_bit(layout.journal_offset + first + 40, 3);
    bench.disks[0].flip_bit(layout.journal_offset + first + 12_288 * 3 + 5000, 3);
    check(&bench.crash().replay(Epoch(1), &ZERO), 1..=20, 9000);
    // The same on every disk that has it: an acknowledged batch is lost, the rest is applied [I6].
    for (disk, at, header) in bench.entries() {
        if header.lsn == Lsn(11) {
            bench.disks[disk].flip_bit(layout.journal_offset + at + 200, 1);
        }
    }
    let replay = bench.crash().replay(Epoch(1), &ZERO);
    assert_eq!(replay.gaps, [11..=11]);
    assert!(!replay.is_sound(1, &ALL));
    assert_eq!(replay.len(), 19);
    assert_eq!(replay.lsn(18), Lsn(20));
    // The last one on every disk: above the acknowledged as far as anybody can tell, a tail.
    for (disk, at, header) in bench.entries() {
        if header.lsn == Lsn(20) {
            bench.disks[disk].flip_bit(layout.journal_offset + at + 200, 1);
        }
    }
    let replay = bench.crash().replay(Epoch(1), &ZERO);
    assert_eq!((replay.gaps.clone(), replay.len()), (vec![11..=11], 18));
}

#[test]
fn scenario_8_entries_inside_entries_are_dead() {
    let bench = Bench::new(10, 2, 1);
    let journal = bench.journal(&ZERO);
    append(&journal, 1..=3, 6000);
    // A file that is an image of this very disk's ring, fsynced inline.
    let layout = DiskLayout::for_disk(DISK_BYTES).expect("it is large enough");
    let mut ring = vec![0; 100_000];
    bench.disks[0].snapshot().live().read(layout.journal_offset, &mut ring);
    // Aligned so that the images begin at whole units.
    let mut file = vec![0; UNIT_BYTES as usize - commit::HEADER_BYTES];
    file.extend_from_slice(&ring);
    journal.append(Lsn(4), &file).expect("taken");
    let replay = bench.crash().replay(Epoch(1), &ZERO);
    assert_eq!(replay.len(), 4);
    assert_eq!(*replay.payload(3).expect("readable"), file);
    // The entry itself torn on both disks: what is inside must not be taken for entries.
    for (disk, at, header) in bench.entries() {
        if header.lsn == Lsn(4) {
            bench.disks[disk].flip_bit(layout.journal_offset + at + 3, 1);
        }
    }
    let replay = bench.crash().replay(Epoch(1), &ZERO);
    assert_eq!((replay.len(), replay.dropped), (3, 0));
}

#[test]
fn scenario_9_what_is_acknowledged_survives_the_loss_of_every_cache() {
    for fua in [true, false] {
        let bench = Bench::new(11, 4, 2);
        // Disks without FUA: a durable write is a write and a flush submitted after it completed.
        let images = bench.snapshots().iter().map(|s| s.live().clone()).collect::<Vec<_>>();
        let mut bench = bench;
        for (index, image) in images.into_iter().enumerate() {
            let parameters = SimParameters { fua, ..parameters(index) };
            let disk = SimDisk::open(&bench.world, parameters, image);
            let mut member = bench.members.get(DiskIndex(index as u16)).expect("it is a member");
            member.handle = Some(disk.clone());
            bench.members.set(member);
            bench.disks[index] = disk;
        }
        bench.members.set_recorded(bench.members.sequence());
        let journal = bench.journal(&ZERO);
        for lsn in 1..=10 {
            append(&journal, lsn..=lsn, 5000);
            let replay = bench.crash().replay(Epoch(1), &ZERO);
            check(&replay, 1..=lsn, 5000);
        }
    }
}

#[test]
fn scenario_10_no_two_entries_share_a_unit() {
    let bench = Bench::new(12, 4, 1);
    let journal = bench.journal(&ZERO);
    for lsn in 1..=50 {
        append(&journal, lsn..=lsn, 1 + (lsn as usize * 977) % 20_000);
    }
    let entries = bench.entries();
    for pair in entries.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        assert!(pair[0].1.is_multiple_of(UNIT_BYTES));
        assert!(pair[0].1 + pair[0].2.entry_bytes() <= pair[1].1, "[R6]");
    }
}

#[test]
fn scenario_11_an_lsn_has_one_kind_of_bytes_whatever_fails() {
    let bench = Bench::new(13, 6, 2);
    let journal = bench.journal(&ZERO);
    append(&journal, 1..=3, 20_000);
    // Two of the log disks die with the next batch in flight.
    let disks = bench.disks.clone();
    bench.after(0, move || disks[0].fail_nth(SimAccess::Write, 0, DiskError::Gone));
    let disks = bench.disks.clone();
    bench.after(1, move || disks[1].detach());
    append(&journal, 4..=12, 20_000);
    let entries = bench.entries();
    for (_, _, header) in &entries {
        let same = entries.iter().filter(|other| other.2.lsn == header.lsn);
        assert!(same.into_iter().all(|other| other.2.batch_crc == header.batch_crc), "[R5]");
    }
    assert_eq!(bench.members.active().len(), 4);
    assert!(bench.labels.records.load(Ordering::SeqCst) >= 1, "[R2] recorded before the ack");
    let mut images: Vec<Option<Image>> =
        bench.snapshots().iter().map(|s| Some(s.durable().clone())).collect();
    (images[0], images[1]) = (None, None);
    check(&Bench::open(1, images, 2, Epoch(1)).replay(Epoch(1), &ZERO), 1..=12, 20_000);
}

#[test]
fn scenario_11_a_late_disk_is_replaced_and_stays_out_until_the_checkpoint() {
    let bench = Bench::new(14, 5, 1);
    let journal = bench.journal(&ZERO);
    append(&journal, 1..=2, 5000);
    bench.disks[0].set_hang(true);
    bench.disks[1].set_hang(true);
    append(&journal, 3..=8, 5000);
    bench.world.run_for(Duration::from_secs(3));
    append(&journal, 9..=9, 5000);
    let late = |report: &Report| matches!(report, Report::DiskLate { .. });
    assert!(bench.reports().iter().any(late));
    assert_eq!(bench.members.active().len(), 5, "[R11] late is not dead");
    let count = |disk: usize| bench.entries().iter().filter(|e| e.0 == disk).count();
    let hung = count(0);
    bench.disks[0].set_hang(false);
    bench.disks[1].set_hang(false);
    bench.world.run_for(Duration::from_secs(1));
    append(&journal, 10..=12, 5000);
    assert!(count(0) <= hung + 1, "only the late write itself arrived");
    assert!(!journal.state.lock().rings.iter().all(|ring| ring.in_rotation));
    journal.trim(&journal.mark(Lsn(12)));
    assert!(journal.state.lock().rings.iter().all(|ring| ring.in_rotation), "back after it");
    append(&journal, 13..=40, 5000);
    let from = journal.mark(Lsn(12));
    check(&bench.crash().replay(Epoch(1), &from), 13..=40, 5000);
}

#[test]
fn r24_copies_of_a_batch_are_spread_over_enclosures() {
    let bench = Bench::new(15, 8, 2);
    for member in bench.members.all() {
        // The first four disks, which a tie prefers, share one.
        bench.members.set(Member { enclosure: Some(member.index.0 / 4 + 1), ..member });
    }
    let journal = bench.journal(&ZERO);
    append(&journal, 1..=20, 5000);
    for lsn in 1..=20 {
        let copies = bench.entries().into_iter().filter(|(_, _, entry)| entry.lsn == Lsn(lsn));
        let disks: Vec<usize> = copies.map(|(disk, _, _)| disk).collect();
        let first = disks.iter().filter(|&&disk| disk < 4).count();
        assert!(first <= 2 && disks.len() - first <= 2, "batch {lsn} is on {disks:?}");
        assert!(disks.len() > 2, "batch {lsn} is on {disks:?}");
    }
}

#[test]
fn scenario_12_a_full_ring_stops_users_first_and_a_trim_frees_it() {
    let bench = Bench::new(15, 3, 1);
    let journal = bench.journal(&ZERO);
    let bytes = journal.payload_bytes_max();
    assert!(bytes >= MIB as usize);
    let mut lsn = 0;
    let mut flush_seen = false;
    while journal.room(Level::User, bytes) {
        lsn += 1;
        journal.append(Lsn(lsn), &payload(lsn, bytes)).expect("there is room");
        flush_seen |= (50..75).contains(&journal.fill_percent());
    }
    assert!(flush_seen && journal.fill_percent() <= 75);
    let mut internal = 0;
    while journal.room(Level::Internal, bytes) {
        lsn += 1;
        internal += 1;
        journal.append(Lsn(lsn), &payload(lsn, bytes)).expect("there is room");
    }
    assert!(internal >= 2, "[R10] a quarter is kept for commits that make room");
    let full = journal.append(Lsn(lsn + 1), &payload(lsn + 1, bytes));
    assert_eq!(full, Err(FleetError::JournalFull));
    // Another batch may have that LSN: it was not bound.
    let mark = journal.mark(Lsn(lsn - 1));
    journal.trim(&mark);
    assert!(journal.logged_bytes() <= bytes as u64 + UNIT_BYTES);
    for _ in 0..6 {
        lsn += 1;
        journal.append(Lsn(lsn), &payload(lsn, bytes)).expect("there is room again");
    }
    check(&bench.crash().replay(Epoch(1), &mark), mark.lsn.0 + 1..=lsn, bytes);
}

#[test]
fn entries_go_around_the_end_of_the_ring() {
    let bench = Bench::new(16, 4, 1);
    let journal = bench.journal(&ZERO);
    let mut mark = ZERO;
    // Three laps and more, with sizes that never fit the end exactly.
    for lsn in 1..=120u64 {
        append(&journal, lsn..=lsn, 700_001);
        if lsn % 7 == 0 {
            mark = journal.mark(Lsn(lsn - 2));
            journal.trim(&mark);
        }
        if lsn % 10 == 0 {
            let replay = bench.crash().replay(Epoch(1), &mark);
            check(&replay, mark.lsn.0 + 1..=lsn, 700_001);
        }
    }
    assert!(mark.heads.iter().all(|&(_, head)| head > 16 * MIB * 2));
}

#[test]
fn r11_when_all_disks_stall_writing_waits_and_nobody_is_failed() {
    let bench = Bench::new(17, 5, 1);
    let journal = bench.journal(&ZERO);
    append(&journal, 1..=3, 5000);
    bench.disks.iter().for_each(|disk| disk.set_hang(true));
    let disks = bench.disks.clone();
    bench.after(60_000, move || disks.iter().for_each(|disk| disk.set_hang(false)));
    let before = bench.world.now();
    append(&journal, 4..=4, 5000);
    assert!(bench.world.now().since(before) >= Duration::from_secs(60));
    assert_eq!(bench.members.active().len(), 5);
    let reports = bench.reports();
    assert!(reports.contains(&Report::Suspended) && reports.contains(&Report::Resumed));
    assert!(!journal.suspended());
    append(&journal, 5..=9, 5000);
    check(&bench.crash().replay(Epoch(1), &ZERO), 1..=9, 5000);
}

#[test]
fn r11_stopping_ends_a_suspended_append_and_nothing_was_acknowledged() {
    let bench = Bench::new(18, 3, 1);
    let journal = Arc::new(bench.journal(&ZERO));
    append(&journal, 1..=3, 5000);
    bench.disks.iter().for_each(|disk| disk.set_hang(true));
    let stopping = journal.clone();
    bench.after(30_000, move || stopping.stop());
    assert_eq!(journal.append(Lsn(4), &payload(4, 5000)), Err(FleetError::Stopped));
    assert_eq!(journal.acked(), Lsn(3));
    assert_eq!(journal.append(Lsn(4), &payload(4, 5000)), Err(FleetError::Stopped));
}

#[test]
fn i5_a_mirror_with_one_hung_disk_goes_on_after_the_deadline() {
    let bench = Bench::new(19, 2, 1);
    let journal = bench.journal(&ZERO);
    append(&journal, 1..=3, 5000);
    bench.disks[1].set_hang(true);
    let before = bench.world.now();
    append(&journal, 4..=4, 5000);
    let waited = bench.world.now().since(before);
    assert!(waited <= Duration::from_millis(WRITE_DEADLINE_MS + 1000), "{waited:?}");
    assert_eq!(bench.members.active(), [DiskIndex(0)]);
    assert_eq!(bench.labels.records.load(Ordering::SeqCst), 1, "[R2]");
    append(&journal, 5..=8, 5000);
}

#[test]
fn r1_more_than_m_failed_disks_end_acknowledging_and_a_retry_has_the_same_bytes() {
    let bench = Bench::new(20, 4, 1);
    let journal = bench.journal(&ZERO);
    append(&journal, 1..=3, 5000);
    bench.disks[0].detach();
    bench.disks[2].detach();
    let result = (4..=9).find_map(|lsn| journal.append(Lsn(lsn), &payload(lsn, 5000)).err());
    assert_eq!(result, Some(FleetError::TooFewDisks { have: 2, need: 3 }));
    let stuck = journal.acked().next();
    let again = journal.append(stuck, &payload(stuck.0, 5000));
    assert_eq!(again, Err(FleetError::TooFewDisks { have: 2, need: 3 }));
    assert_eq!(journal.acked().next(), stuck);
}

#[test]
#[should_panic(expected = "an LSN never changes its bytes")]
fn r5_a_bound_lsn_refuses_other_bytes() {
    let bench = Bench::new(21, 2, 1);
    let journal = Arc::new(bench.journal(&ZERO));
    append(&journal, 1..=1, 5000);
    // Suspended, with the batch on its way; more than m fail while it waits.
    bench.disks.iter().for_each(|disk| disk.set_hang(true));
    let disks = bench.disks.clone();
    bench.after(3_000, move || disks.iter().for_each(|disk| disk.detach()));
    let result = journal.append(Lsn(2), b"these bytes");
    assert!(matches!(result, Err(FleetError::TooFewDisks { .. })));
    bench.members.all().into_iter().for_each(|mut member| {
        member.state = MemberState::Active;
        bench.members.set(member);
    });
    let _ = journal.append(Lsn(2), b"other bytes");
}

#[test]
fn r12_bad_sectors_in_a_ring_cost_only_the_entries_on_them() {
    let bench = Bench::new(22, 2, 1);
    let journal = bench.journal(&ZERO);
    append(&journal, 1..=30, 9000);
    let layout = DiskLayout::for_disk(DISK_BYTES).expect("it is large enough");
    let crashed = bench.crash();
    let bad = layout.journal_offset + 40_000;
    crashed.disks[0].add_bad_range(bad..bad + 512);
    let bad = layout.journal_offset + 140_000;
    crashed.disks[1].add_bad_range(bad..bad + 4096);
    let replay = crashed.replay(Epoch(1), &ZERO);
    check(&replay, 1..=30, 9000);
    assert!(replay.unread.is_empty());
}

#[test]
fn r24_a_host_that_was_full_for_long_hides_nothing_that_comes_after() {
    let bench = Bench::sized(24, 2, 1, 8 * GIB);
    let journal = bench.journal(&ZERO);
    append(&journal, 1..=3, MIB as usize);
    // The disks are files, and their host has no room: every write is refused, until it has.
    for disk in &bench.disks {
        (0..400).for_each(|nth| disk.fail_nth(SimAccess::Write, nth, DiskError::HostFull));
    }
    let before = bench.world.now();
    append(&journal, 4..=4, MIB as usize);
    let waited = bench.world.now().since(before);
    assert!(waited > Duration::from_secs(1), "it was suspended, not for {waited:?}");
    assert_eq!(bench.members.active().len(), 2, "full is not failed");
    check(&bench.crash().replay(Epoch(1), &ZERO), 1..=4, MIB as usize);
    assert!(journal.fill_percent() < 20, "what was refused takes no room in the ring");
    let mark = journal.mark(Lsn(3));
    append(&journal, 5..=9, MIB as usize);
    journal.trim(&mark);
    check(&bench.crash().replay(Epoch(1), &mark), 4..=9, MIB as usize);
}

#[test]
fn i5_a_hung_ring_does_not_stop_a_mount() {
    let bench = Bench::new(23, 5, 2);
    let journal = bench.journal(&ZERO);
    append(&journal, 1..=30, 9000);
    let crashed = bench.crash();
    crashed.disks[1].set_hang(true);
    crashed.disks[3].detach();
    let before = crashed.world.now();
    let replay = crashed.replay(Epoch(1), &ZERO);
    assert!(crashed.world.now().since(before) < Duration::from_secs(30));
    check(&replay, 1..=30, 9000);
    assert_eq!(replay.unread.len(), 2);
    assert!(replay.is_sound(2, &ALL) && !replay.is_sound(1, &ALL));
}

/// The quickest disks took all copies until they were full; with two of the others lost, too few had room.
#[test]
fn i5_the_loss_of_disks_that_were_spared_leaves_room_for_the_next_batch() {
    let bench = Bench::new(29, 8, 2);
    for disk in &bench.disks[4..] {
        disk.set_slow(20.0);
    }
    let journal = bench.journal(&ZERO);
    let mut lsn = 0;
    while journal.room(Level::User, MIB as usize) {
        lsn += 1;
        append(&journal, lsn..=lsn, MIB as usize);
        let quick = journal.state.lock().rings[0].percent();
        assert!(
            journal.fill_percent() >= quick.min(50),
            "{quick} % in those that are left when two go"
        );
    }
    assert!(lsn > 10, "rings hold more than {lsn} batches");
    for disk in [6, 7] {
        bench.members.fail(DiskIndex(disk), crate::fleet::FailReason::Gone);
    }
    append(&journal, lsn + 1..=lsn + 2, MIB as usize);
}

#[test]
fn r5_r7_a_batch_that_lost_its_disks_is_appended_when_they_are_back() {
    let mut bench = Bench::new(23, 4, 1);
    let journal = bench.journal(&ZERO);
    append(&journal, 1..=3, 5000);
    bench.disks.iter().for_each(|disk| disk.set_hang(true));
    let members = bench.members.clone();
    bench.after(100, move || {
        (0..2).for_each(|disk| members.fail(DiskIndex(disk), FailReason::TakenOut));
    });
    let refused = journal.append(Lsn(4), &payload(4, 5000));
    assert_eq!(refused, Err(FleetError::TooFewDisks { have: 2, need: 3 }));
    assert!(journal.suspended() && journal.lost().is_some());
    let owes = |disk: u16| !journal.state.lock().rings[usize::from(disk)].is_quiet();
    assert!(owes(0) || owes(1), "a copy of it is still on its way to one of them");
    assert!((0..2).all(|disk| journal.take_back(DiskIndex(disk)) != owes(disk)), "[R7]");
    bench.disks.iter().for_each(|disk| disk.set_hang(false));
    bench.world.run_for(Duration::from_secs(1));
    for disk in 0..2 {
        assert!(journal.take_back(DiskIndex(disk)), "disk {disk} has answered");
        let image = bench.disks[usize::from(disk)].snapshot().live().clone();
        let again = SimDisk::open(&bench.world, parameters(disk.into()), image);
        bench.disks[usize::from(disk)] = again.clone();
        let was = bench.members.get(DiskIndex(disk)).expect("it is a member");
        let (state, handle) = (MemberState::Active, Some(again as _));
        bench.members.set(Member { state, handle, ..was });
    }
    assert!(journal.lost().is_none() && !journal.suspended());
    append(&journal, 4..=9, 5000);
    check(&bench.crash().replay(Epoch(1), &ZERO), 1..=9, 5000);
}
