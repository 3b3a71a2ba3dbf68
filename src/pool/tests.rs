//! Creating, assembling, claiming on simulated disks: the scenarios of the design review by name here,
//! random lives of a pool over many mounts in `lives.rs`, files read in order in `streams.rs`, checkpoints
//! written as increments in `chains.rs`, what reclaim moves in `write_cost.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::assemble::*;
use super::create::*;
use super::labels::*;
use crate::base::limits::BUFFER_POOL_BYTES;
use crate::base::simulation::World;
use crate::base::sync::Arc;
use crate::base::{Clock, DiskIndex, Epoch, MIB, PoolUuid, Random};
use crate::fleet::disk::probe::{DriveKey, Probe, Signature};
use crate::fleet::disk::sim::{Image, SimDisk, SimParameters};
use crate::fleet::disk::{BufferPool, Disk, DiskHandle};
use crate::fleet::{
    Access, Checkpoint, FailReason, FleetError, MemberState, Quorum, RecordMembers, Reports,
    choose_root, read_roots,
};
use crate::format::{DiskLayout, Redundancy, Root};

mod audits;
mod chains;
mod checks;
mod comeback;
mod cut_short;
mod files;
mod gone_at_once;
mod holes;
mod hostile;
mod interrupted;
mod limits;
mod lives;
mod long_cuts;
mod membership;
mod mishaps;
mod nth;
mod pauses;
mod reclaim;
mod rejoin;
mod repairs;
mod rot;
mod streams;
mod write_cost;

const DISK_BYTES: u64 = 256 * MIB;
const HERE: [u8; 16] = [1; 16];

/// A machine with some disks plugged in.
struct Bench {
    world: Arc<World>,
    access: Access,
    disks: Vec<Option<Arc<SimDisk>>>,
}

fn parity(m: u8) -> Redundancy {
    Redundancy::Replica { copies: m + 1 }
}

impl Bench {
    /// A machine with these images plugged in; None: that disk is away.
    fn new(seed: u64, images: &[Option<Image>]) -> Bench {
        let world = World::new(seed);
        let buffers = BufferPool::new(BUFFER_POOL_BYTES, world.clone());
        let access = Access { clock: world.clone(), wait: world.clone(), buffers };
        let open = |(index, image): (usize, &Option<Image>)| {
            let parameters = SimParameters::quick(&format!("disk{index}"), DISK_BYTES);
            Some(SimDisk::open(&world, parameters, image.clone()?))
        };
        let disks = images.iter().enumerate().map(open).collect();
        Bench { world, access, disks }
    }

    /// A machine with empty disks.
    fn empty(seed: u64, disks: usize) -> Bench {
        Bench::new(seed, &vec![Some(Image::new(DISK_BYTES)); disks])
    }

    fn disk(&self, index: usize) -> &Arc<SimDisk> {
        self.disks[index].as_ref().expect("it is plugged in")
    }

    /// What is on the disks now, none of it lost.
    fn images(&self) -> Vec<Option<Image>> {
        let live = |disk: &Option<Arc<SimDisk>>| Some(disk.as_ref()?.snapshot().live().clone());
        self.disks.iter().map(live).collect()
    }

    fn new_disks(&self) -> Vec<NewDisk> {
        let disks = self.disks.iter().flatten();
        let new = |disk: &Arc<SimDisk>| {
            let handle: DiskHandle = disk.clone();
            let identity = handle.identity().clone();
            let drives = BTreeSet::from([DriveKey(identity.path.clone())]);
            let probe =
                Probe { identity, drives, read_only: false, signatures: vec![], uses: vec![] };
            NewDisk { disk: handle, probe }
        };
        disks.map(new).collect()
    }

    fn create(&self, m: u8) -> Result<PoolUuid, CreateError> {
        create(&self.access, &options(m), &self.new_disks(), &mut Random::new(1))
    }

    fn candidates(&self) -> Vec<Candidate> {
        let disks: Vec<DiskHandle> =
            self.disks.iter().flatten().map(|disk| disk.clone() as DiskHandle).collect();
        let labels = read_labels(&self.access, &disks);
        let both = disks.into_iter().zip(labels);
        both.filter_map(|(disk, label)| {
            let drives = BTreeSet::from([DriveKey(disk.identity().path.clone())]);
            let FoundLabel { label, copies } = label.ok()?;
            Some(Candidate { disk, drives, label, copies })
        })
        .collect()
    }

    fn assemble(&self) -> Result<Assembled, AssembleError> {
        self.assemble_with(AssembleOptions { machine_id: HERE, ..AssembleOptions::default() })
    }

    fn assemble_with(&self, options: AssembleOptions) -> Result<Assembled, AssembleError> {
        assemble(&self.access, self.candidates(), &options, Arc::new(Reports::new()))
    }

    /// Assembles and claims with this id; panics if it may not.
    fn claim(&self, id: u64) -> Assembled {
        self.claim_with(id, false)
    }

    fn claim_with(&self, id: u64, degraded: bool) -> Assembled {
        let options = AssembleOptions { machine_id: HERE, degraded, ..AssembleOptions::default() };
        let assembled = self.assemble_with(options).expect("the pool is there");
        assert_eq!(assembled.mode, Mode::ReadWrite);
        assembled.labels.claim(id, HERE).expect("enough disks take the claim");
        assembled
    }

    /// A claimed pool with a root of its epoch: as after recovery.
    fn mount(&self, id: u64) -> (Assembled, Checkpoint, Root) {
        let assembled = self.claim(id);
        let checkpoint = checkpoint(self, &assembled);
        let root = next_root(&assembled, &assembled.root);
        checkpoint.write_root(&root).expect("enough disks take the root");
        (assembled, checkpoint, root)
    }
}

fn options(m: u8) -> CreateOptions {
    CreateOptions {
        name: "tank".to_string(),
        redundancy: parity(m),
        enclosures: Vec::new(),
        machine_id: HERE,
        now_seconds: 1_700_000_000,
        force: false,
    }
}

fn checkpoint(bench: &Bench, assembled: &Assembled) -> Checkpoint {
    let quorum = Arc::new(Quorum::new(assembled.members.clone(), assembled.labels.clone()));
    Checkpoint::open(bench.access.clone(), quorum, &assembled.roots, Some(&assembled.root))
}

fn next_root(assembled: &Assembled, before: &Root) -> Root {
    let claim = assembled.labels.current();
    Root { epoch: claim.epoch, epoch_id: claim.id, sequence: before.sequence + 1, ..before.clone() }
}

fn without(images: &[Option<Image>], away: &[usize]) -> Vec<Option<Image>> {
    let keep = |(index, image): (usize, &Option<Image>)| {
        if away.contains(&index) { None } else { image.clone() }
    };
    images.iter().enumerate().map(keep).collect()
}

#[test]
fn a_new_pool_is_found_again() {
    let bench = Bench::empty(1, 4);
    let uuid = bench.create(1).expect("nothing is in the way");
    let assembled = Bench::new(2, &bench.images()).assemble().expect("it is there");
    assert_eq!(assembled.label.pool, uuid);
    assert_eq!(assembled.label.pool_name, "tank");
    assert_eq!(assembled.mode, Mode::ReadWrite);
    assert_eq!((assembled.members.len(), assembled.members.parity()), (4, 1));
    assert_eq!((assembled.root.sequence, assembled.root.epoch), (1, Epoch(0)));
    assert!(assembled.missing.is_empty() && assembled.returned.is_empty());
    assert!(!assembled.unclean);
}

#[test]
fn i9_foreign_disks_are_refused_and_taken_with_force() {
    let bench = Bench::empty(3, 3);
    let mut disks = bench.new_disks();
    let signature = Signature { name: "ext4", offset: 0x438, isotherm: false };
    disks[1].probe.signatures.push(signature);
    let before = bench.disk(1).counters();
    let refused = create(&bench.access, &options(1), &disks, &mut Random::new(1));
    assert!(matches!(refused, Err(CreateError::Foreign { .. })), "{refused:?}");
    assert_eq!(bench.disk(1).counters().writes, before.writes, "nothing was written");
    let force = CreateOptions { force: true, ..options(1) };
    create(&bench.access, &force, &disks, &mut Random::new(1)).expect("force takes them");
    assert!(bench.assemble().is_ok());
}

#[test]
fn r24_one_drive_twice_is_refused() {
    let bench = Bench::empty(4, 3);
    let mut disks = bench.new_disks();
    disks[2].probe.drives = disks[0].probe.drives.clone();
    let refused = create(&bench.access, &options(1), &disks, &mut Random::new(1));
    assert!(matches!(refused, Err(CreateError::SameDrive { .. })), "{refused:?}");
}

#[test]
fn r24_members_keep_their_enclosures_over_mounts_here_or_not() {
    let bench = Bench::empty(13, 5);
    let (one, two) = (Some(1), Some(2));
    let enclosures = vec![one, one, two, None, two];
    let options = CreateOptions { enclosures: enclosures.clone(), ..options(1) };
    let new = bench.new_disks();
    create(&bench.access, &options, &new, &mut Random::new(1)).expect("blank disks");
    let (first, _, root) = bench.mount(1);
    assert_eq!(root.config.enclosure_cap, 1);
    let of = |assembled: &Assembled| {
        assembled.members.all().iter().map(|member| member.enclosure).collect::<Vec<_>>()
    };
    assert_eq!(of(&first), enclosures);
    // Their number is in the next mount's root too, and known of a member that is missing.
    let again = Bench::new(14, &without(&bench.images(), &[1]));
    let assembled = again.claim(2);
    assert_eq!((of(&assembled), assembled.missing), (enclosures, vec![DiskIndex(1)]));
}

#[test]
fn a_pool_needs_the_disks_its_redundancy_needs_and_a_name() {
    let bench = Bench::empty(5, 2);
    let refused = bench.create(2);
    assert!(matches!(refused, Err(CreateError::Disks { have: 2, need: 3 })), "{refused:?}");
    for name in ["", "a/b", "a\nb", &"x".repeat(64)] {
        let named = CreateOptions { name: name.to_string(), ..options(1) };
        let refused = create(&bench.access, &named, &bench.new_disks(), &mut Random::new(1));
        assert!(matches!(refused, Err(CreateError::Name { .. })), "{name:?}");
    }
}

/// docs/semantics.md: "With more than m gone the pool mounts read-only"
#[test]
fn i5_any_m_members_may_be_missing_and_i6_more_make_it_read_only() {
    let bench = Bench::empty(6, 5);
    bench.create(2).expect("nothing is in the way");
    let images = bench.images();
    for first in 0..5 {
        for second in 0..5 {
            let here = Bench::new(7, &without(&images, &[first, second]));
            let assembled = here.assemble().expect("it is there");
            assert_eq!(assembled.mode, Mode::ReadWrite);
            assert_eq!(assembled.members.len(), 5, "missing members count");
        }
    }
    let here = Bench::new(7, &without(&images, &[0, 1, 2]));
    assert_eq!(here.assemble().expect("it is there").mode, Mode::TooManyMissing);
}

#[test]
fn scenario_5_half_a_mirror_is_read_only_until_told_and_then_the_other_half_is_old() {
    let bench = Bench::empty(8, 2);
    bench.create(1).expect("nothing is in the way");
    let whole = Bench::new(9, &bench.images());
    whole.mount(100);
    let images = whole.images();
    let first = Bench::new(10, &without(&images, &[1]));
    assert_eq!(first.assemble().expect("there").mode, Mode::CouldBeElsewhere, "[I5]");
    first.claim_with(101, true);
    // Told once, it is recorded: from now on this half knows that the other one is out.
    let first = Bench::new(11, &first.images());
    assert_eq!(first.assemble().expect("there").mode, Mode::ReadWrite);
    // Both: the other one returns, older.
    let mut both = images.clone();
    both[0] = first.images()[0].clone();
    let assembled = Bench::new(12, &both).assemble().expect("one history");
    assert_eq!((assembled.mode, assembled.returned), (Mode::ReadWrite, vec![DiskIndex(1)]));
}

#[test]
fn scenario_5_two_halves_that_both_went_on_are_never_merged() {
    let bench = Bench::empty(13, 2);
    bench.create(1).expect("nothing is in the way");
    let images = bench.images();
    let first = Bench::new(14, &without(&images, &[1]));
    first.claim_with(201, true);
    let second = Bench::new(15, &without(&images, &[0]));
    second.claim_with(202, true);
    let both = vec![first.images()[0].clone(), second.images()[1].clone()];
    let refused = Bench::new(16, &both).assemble();
    assert!(matches!(refused, Err(AssembleError::SplitBrain { .. })), "[R2]");
    // One of them has gone on further meanwhile: still two histories.
    let second = Bench::new(17, &second.images());
    second.claim_with(203, true);
    let second = Bench::new(17, &second.images());
    second.claim_with(204, true);
    let both = vec![first.images()[0].clone(), second.images()[1].clone()];
    let refused = Bench::new(18, &both).assemble();
    assert!(matches!(refused, Err(AssembleError::SplitBrain { .. })), "[R2]");
    let force = AssembleOptions { force: true, machine_id: HERE, ..AssembleOptions::default() };
    let forced = Bench::new(18, &both).assemble_with(force).expect("the newest is taken");
    assert_eq!(forced.labels.current().id, 204);
}

#[test]
fn scenario_5_a_survivor_that_recorded_the_other_as_dropped_is_not_overruled_by_it() {
    let bench = Bench::empty(19, 2);
    bench.create(1).expect("nothing is in the way");
    let whole = Bench::new(20, &bench.images());
    let (assembled, ..) = whole.mount(300);
    assembled.members.fail(DiskIndex(0), FailReason::Write);
    assembled.labels.record().expect("the survivor takes it");
    // The dropped one alone does not know, and may not write by itself.
    let images = whole.images();
    let dropped = Bench::new(21, &without(&images, &[1]));
    assert_eq!(dropped.assemble().expect("there").mode, Mode::CouldBeElsewhere);
    // Forced to: two histories.
    dropped.claim_with(301, true);
    let both = vec![dropped.images()[0].clone(), images[1].clone()];
    let refused = Bench::new(22, &both).assemble();
    assert!(matches!(refused, Err(AssembleError::SplitBrain { .. })), "[R2]");
    // The survivor alone may go on, and with the dropped one as it was.
    let survivor = Bench::new(23, &without(&images, &[0]));
    assert_eq!(survivor.assemble().expect("there").mode, Mode::ReadWrite);
    let both = Bench::new(24, &images).assemble().expect("one history");
    assert_eq!((both.mode, both.returned), (Mode::ReadWrite, vec![DiskIndex(0)]));
}

#[test]
fn scenario_5_a_returned_member_has_no_say_until_a_root_is_durable_on_it() {
    let bench = Bench::empty(46, 2);
    bench.create(1).expect("nothing is in the way");
    let whole = Bench::new(47, &bench.images());
    let (assembled, ..) = whole.mount(310);
    assembled.members.fail(DiskIndex(0), FailReason::Write);
    assembled.labels.record().expect("the survivor takes it");
    // The failed one is back; the mount is cut short after its claim, before its root.
    let back = Bench::new(48, &whole.images());
    assert_eq!(back.claim(311).returned, [DiskIndex(0)]);
    let images = back.images();
    let assembled = Bench::new(49, &images).assemble().expect("there");
    assert_eq!(assembled.participants, [DiskIndex(1)], "still");
    // The one that has everything stops answering after its label was read.
    let bench = Bench::new(50, &images);
    let candidates = bench.candidates();
    bench.disk(1).set_hang(true);
    let options = AssembleOptions { machine_id: HERE, degraded: true, ..Default::default() };
    let blind = assemble(&bench.access, candidates, &options, Arc::new(Reports::new()));
    assert_eq!(blind.expect("there").mode, Mode::TooManyMissing);
    // Or during the claim, which then fails, and does not say that it is out.
    let bench = Bench::new(51, &images);
    let assembled = bench.assemble().expect("there");
    bench.disk(1).detach();
    let refused = assembled.labels.claim(312, HERE);
    assert!(matches!(refused, Err(FleetError::TooFewDisks { .. })), "{refused:?}");
    let later = Bench::new(52, &bench.images());
    assert_eq!(later.assemble().expect("there").participants, [DiskIndex(1)]);
    // With a root on both it has everything, and the labels say so.
    later.mount(313);
    let assembled = Bench::new(53, &later.images()).assemble().expect("there");
    assert_eq!(assembled.participants.len(), 2);
}

#[test]
fn scenario_5_a_claim_that_one_disk_alone_took_is_overruled_by_a_quorum() {
    let bench = Bench::empty(25, 5);
    bench.create(2).expect("nothing is in the way");
    let images = bench.images();
    // Power is lost while the claim is being written: one disk has it. That disk is away next time.
    let crashed = Bench::new(26, &images);
    crashed.claim(400);
    let alone = crashed.images()[0].clone();
    let others = Bench::new(27, &without(&images, &[0]));
    others.mount(401);
    let mut all = others.images();
    all[0] = alone;
    let assembled = Bench::new(28, &all).assemble().expect("its claim was never complete");
    assert_eq!(assembled.labels.current().id, 401);
    assert_eq!(assembled.returned, [DiskIndex(0)]);
    assert_eq!(assembled.mode, Mode::ReadWrite);
}

#[test]
fn i5_a_claim_that_cannot_have_been_complete_stops_no_mount_without_m_others() {
    let bench = Bench::empty(60, 6);
    bench.create(2).expect("nothing is in the way");
    let images = bench.images();
    // As above; and then two of those that went on are away, so that less than N - m of them are here.
    let crashed = Bench::new(61, &images);
    crashed.claim(410);
    let alone = crashed.images()[0].clone();
    let others = Bench::new(62, &without(&images, &[0]));
    others.mount(411);
    let mut some = without(&others.images(), &[4, 5]);
    some[0] = alone;
    let assembled = Bench::new(63, &some).assemble().expect("its claim was never complete");
    assert_eq!(assembled.labels.current().id, 411);
    assert_eq!(assembled.returned, [DiskIndex(0)]);
    assert_eq!(assembled.mode, Mode::ReadWrite);
}

#[test]
fn r24_a_clone_is_refused_and_a_second_path_is_not() {
    let bench = Bench::empty(29, 3);
    bench.create(1).expect("nothing is in the way");
    let mut candidates = bench.candidates();
    let mut twin = candidates[0].clone();
    candidates.push(twin.clone());
    let take = |candidates: Vec<Candidate>| {
        let options = AssembleOptions { machine_id: HERE, ..AssembleOptions::default() };
        assemble(&bench.access, candidates, &options, Arc::new(Reports::new()))
    };
    assert_eq!(take(candidates.clone()).expect("two paths").members.len(), 3);
    twin.drives = BTreeSet::from([DriveKey("another drive".to_string())]);
    candidates[3] = twin;
    assert!(matches!(take(candidates), Err(AssembleError::Clone { .. })));
}

#[test]
fn scenario_46_a_pool_open_on_another_machine_needs_force() {
    let bench = Bench::empty(30, 3);
    bench.create(1).expect("nothing is in the way");
    let assembled = bench.assemble().expect("there");
    assembled.labels.claim(1, [9; 16]).expect("taken");
    assert!(matches!(bench.assemble(), Err(AssembleError::OpenElsewhere { .. })));
    let options = AssembleOptions { machine_id: HERE, ..AssembleOptions::default() };
    let look = AssembleOptions { read_only: true, ..options };
    assert_eq!(bench.assemble_with(look).expect("looking is allowed").mode, Mode::Asked);
    let force = AssembleOptions { force: true, ..options };
    assert!(bench.assemble_with(force).expect("forced").unclean);
    assembled.labels.close();
    assert!(!bench.assemble().expect("closed there").unclean);
}

#[test]
fn scenario_47_a_disk_that_was_rolled_back_does_not_count_as_present() {
    let bench = Bench::empty(31, 4);
    bench.create(1).expect("nothing is in the way");
    let old = bench.images();
    let now = Bench::new(32, &old);
    now.mount(500);
    let mut images = now.images();
    images[2] = old[2].clone();
    let assembled = Bench::new(33, &images).assemble().expect("there");
    assert_eq!(assembled.rolled_back, [DiskIndex(2)]);
    assert_eq!(assembled.mode, Mode::ReadWrite);
    let more = Bench::new(34, &without(&images, &[0])).assemble().expect("there");
    assert_eq!(more.mode, Mode::TooManyMissing, "one missing and one rolled back, m = 1");
}

#[test]
fn scenario_49_any_one_copy_of_the_label_is_enough() {
    let bench = Bench::empty(35, 3);
    bench.create(1).expect("nothing is in the way");
    let offsets = DiskLayout::for_disk(DISK_BYTES).expect("large enough").label_offsets;
    for kept in 0..3 {
        let mut images = bench.images();
        let image = images[0].as_mut().expect("plugged in");
        for (copy, &offset) in offsets.iter().enumerate().filter(|(copy, _)| *copy != kept) {
            image.write(offset, &vec![copy as u8; 4096]);
        }
        assert!(Bench::new(36, &images).assemble().expect("there").missing.is_empty());
    }
    let mut images = bench.images();
    let image = images[0].as_mut().expect("plugged in");
    offsets.iter().for_each(|&offset| image.flip_bit(offset + 100, 1));
    assert_eq!(Bench::new(37, &images).assemble().expect("there").missing, [DiskIndex(0)]);
}

#[test]
fn scenario_3_a_root_counts_at_m_plus_1_and_never_overwrites_the_one_before() {
    let bench = Bench::empty(38, 4);
    bench.create(1).expect("nothing is in the way");
    let (assembled, checkpoint, first) = bench.mount(600);
    // Three of four disks stop taking writes: no root takes effect.
    (1..4).for_each(|index| bench.disk(index).set_hang(true));
    let second = next_root(&assembled, &first);
    let result = checkpoint.write_root(&second);
    assert_eq!(result, Err(FleetError::TooFewDisks { have: 1, need: 2 }));
    assert_eq!(checkpoint.effective(), Some((first.epoch, first.sequence)));
    // Every disk still has the effective root.
    let found = read_roots(&bench.access, &assembled.members).found;
    assert!(found.iter().any(|found| found.root == second && found.disk == DiskIndex(0)));
    (1..4).for_each(|index| bench.disk(index).set_hang(false));
    bench.world.run_for(Duration::from_secs(5));
    let holders = |root: &Root| {
        let found = read_roots(&bench.access, &assembled.members).found;
        found.iter().filter(|found| found.root == *root).count()
    };
    assert_eq!(holders(&first), 4, "[R9]");
    // The next attempt takes effect, and still leaves the one before alone.
    let third = next_root(&assembled, &second);
    checkpoint.write_root(&third).expect("all disks answer");
    assert_eq!((holders(&first), holders(&second), holders(&third)), (4, 0, 4));
    let found = read_roots(&bench.access, &assembled.members).found;
    assert_eq!(choose_root(&found), Ok(Some(&third)));
}

#[test]
fn r7_a_slot_with_an_unreaped_write_is_left_alone() {
    let bench = Bench::empty(39, 4);
    bench.create(1).expect("nothing is in the way");
    let (assembled, checkpoint, first) = bench.mount(700);
    bench.disk(3).set_hang(true);
    let second = next_root(&assembled, &first);
    checkpoint.write_root(&second).expect("three disks are enough");
    let third = next_root(&assembled, &second);
    checkpoint.write_root(&third).expect("three disks are enough");
    bench.disk(3).set_hang(false);
    bench.world.run_for(Duration::from_secs(5));
    // The late disk got the second root in one slot and, at most, the third in the other.
    let found = read_roots(&bench.access, &assembled.members).found;
    let of_late: Vec<u64> = (found.iter())
        .filter(|found| found.disk == DiskIndex(3))
        .map(|found| found.root.sequence)
        .collect();
    assert!(of_late.contains(&second.sequence), "{of_late:?}");
    assert_eq!(choose_root(&found), Ok(Some(&third)));
}

#[test]
fn r6_a_crash_while_labels_are_rewritten_leaves_a_good_copy_on_every_disk() {
    let bench = Bench::empty(40, 3);
    bench.create(1).expect("nothing is in the way");
    let mut random = Random::new(40);
    let start = Bench::new(41, &bench.images());
    let moments = Arc::new(crate::base::sync::Mutex::new(Vec::new()));
    for step in 0..60 {
        let (disks, moments) = (start.disks.clone(), moments.clone());
        start.world.schedule(
            start.world.now() + Duration::from_micros(step * 60),
            Box::new(move || {
                let snapshots = disks.iter().flatten().map(|disk| disk.snapshot());
                moments.lock().push(snapshots.collect::<Vec<_>>());
            }),
        );
    }
    start.claim(800);
    start.world.run_for(Duration::from_millis(10));
    let moments = std::mem::take(&mut *moments.lock());
    for moment in &moments {
        let images: Vec<Option<Image>> =
            moment.iter().map(|snapshot| Some(snapshot.crash_image(&mut random))).collect();
        let crashed = Bench::new(42, &images);
        let assembled = crashed.assemble().expect("labels are there");
        assert_eq!((assembled.mode, assembled.missing.len()), (Mode::ReadWrite, 0));
        crashed.claim(801);
    }
}

#[test]
fn i5_a_disk_that_hangs_at_the_claim_is_recorded_as_out() {
    let bench = Bench::empty(43, 3);
    bench.create(1).expect("nothing is in the way");
    let assembled = bench.assemble().expect("there");
    bench.disk(1).set_hang(true);
    assembled.labels.claim(900, HERE).expect("two of three take it");
    assert_eq!(assembled.members.state(DiskIndex(1)), Some(MemberState::Failed));
    let rest = Bench::new(44, &without(&bench.images(), &[1])).assemble().expect("there");
    assert!(rest.label.member_states.is_out(DiskIndex(1)), "[R2]");
    // More than m hang: the claim fails, and nobody is failed for it [R11].
    let bench = Bench::empty(45, 3);
    bench.create(1).expect("nothing is in the way");
    let assembled = bench.assemble().expect("there");
    bench.disk(1).set_hang(true);
    bench.disk(2).set_hang(true);
    let refused = assembled.labels.claim(901, HERE);
    assert_eq!(refused, Err(FleetError::TooFewDisks { have: 1, need: 2 }));
    assert_eq!(assembled.members.active().len(), 3);
}
