//! Disks that come and go while a simulated pool is open.

use std::time::Duration;

use super::checks::checked;
use super::files::{content, make, write};
use super::reclaim::crashed;
use super::repairs::{compare, fill, machine, options, records, without};
use crate::base::{Clock, DiskIndex, MIB};
use crate::fleet::disk::sim::Image;
use crate::format::Redundancy;
use crate::pool::assemble::AssembleError;
use crate::pool::membership::MembershipError;
use crate::pool::open::{OpenError, OpenOptions, OpenPool, ReadOnly};
use crate::pool::simulated::SimMachine;

fn add(machine: &mut SimMachine, pool: &OpenPool) -> DiskIndex {
    let new = machine.plug_in(300 * MIB);
    let membership = pool.membership.as_ref().expect("it may be written to");
    membership.add(&new, &[], false).expect("it is blank")
}

/// Runs until this disk is no member any more.
fn gone(machine: &SimMachine, pool: &OpenPool, disk: DiskIndex) {
    for _ in 0..600 {
        if pool.members.get(disk).is_none() {
            return;
        }
        machine.world.run_for(Duration::from_millis(500));
    }
    let (progress, room) = (*pool.repair.lock(), pool.space.room(disk));
    let states: Vec<_> = pool.members.all().iter().map(|member| member.state).collect();
    panic!("disk {disk} stays: {progress:?}, {room:?}, {states:?}");
}

fn is_whole(pool: &OpenPool) {
    let report = checked(pool, true);
    assert!(report.is_clean() && report.compared_space, "{report:?}");
}

#[test]
fn a_disk_that_is_added_takes_its_share_and_counts() {
    for seed in 0..3 {
        let mut machine = machine(seed, 5);
        let pool = machine.open(options()).expect("it opens");
        let mut files = fill(&pool.namespace, seed);
        let before = pool.namespace.statfs().total_bytes;
        let index = add(&mut machine, &pool);
        assert_eq!(index, DiskIndex(5));
        assert!(pool.namespace.statfs().total_bytes > before);
        for number in 0..6 {
            let bytes = content(number, 6 << 20);
            write(&pool.namespace, make(&pool.namespace, &format!("n{number}")), 0, &bytes);
            files.insert(format!("n{number}"), bytes);
        }
        pool.namespace.sync().expect("it syncs");
        let places = records(&pool.namespace);
        let on =
            places.iter().filter(|record| record.places.iter().flatten().any(|p| p.disk == index));
        assert!(on.count() > 0, "it is used");
        is_whole(&pool);
        pool.close().expect("it closes");
        // Any two of the six, the new one too.
        for gone in [[5, 0], [1, 2], [3, 5]] {
            let poorer = without(&machine, &gone);
            let pool = poorer.open(options()).expect("it opens");
            assert_eq!(pool.read_only, ReadOnly::No, "{gone:?}");
            assert_eq!(pool.members.len(), 6);
            compare(&pool.namespace, &files);
            pool.close().expect("it closes");
        }
    }
}

#[test]
fn i8_adding_a_disk_may_be_cut_short_anywhere() {
    let mut added = 0;
    for seed in 0..40 {
        let mut machine = machine(seed, 5);
        let pool = machine.open(options()).expect("it opens");
        let files = fill(&pool.namespace, seed);
        let new = machine.plug_in(300 * MIB);
        // The machine stops after so many writes of the new disk and the old ones.
        let disks = machine.disks.clone();
        let at = Duration::from_micros(450 * seed);
        let images = crate::base::sync::Arc::new(crate::base::sync::Mutex::new(Vec::new()));
        let (taken, when) = (images.clone(), machine.world.now() + at);
        let world = machine.world.clone();
        // Time goes on in small steps, whoever waits for what.
        for tick in 0..200 {
            let at = machine.world.now() + Duration::from_micros(100 * tick);
            machine.world.schedule(at, Box::new(|| ()));
        }
        machine.world.schedule(
            when,
            Box::new(move || {
                let mut random = world.fork_random();
                *taken.lock() =
                    disks.iter().map(|disk| disk.snapshot().crash_image(&mut random)).collect();
            }),
        );
        let membership = pool.membership.as_ref().expect("it may be written to");
        membership.add(&new, &[], false).expect("it is blank");
        machine.world.run_for(at + Duration::from_secs(1));
        let images = std::mem::take(&mut *images.lock());
        machine.world.clear();
        drop(pool);
        let again = SimMachine::with_images(seed, images.into_iter().enumerate().collect());
        let pool = again.open(options()).expect("it opens after a crash");
        assert_eq!(pool.read_only, ReadOnly::No, "seed {seed}");
        added += usize::from(pool.members.len() == 6);
        compare(&pool.namespace, &files);
        is_whole(&pool);
        pool.close().expect("it closes");
    }
    assert!((5..36).contains(&added), "{added} of 40 had been added");
}

#[test]
fn a_disk_that_leaves_is_read_from_until_nothing_is_on_it_and_then_is_no_member() {
    for seed in 0..3 {
        let machine = machine(seed, 7);
        let pool = machine.open(options()).expect("it opens");
        let files = fill(&pool.namespace, seed);
        let membership = pool.membership.clone().expect("it may be written to");
        membership.leave(DiskIndex(2)).expect("it is a member");
        gone(&machine, &pool, DiskIndex(2));
        assert_eq!(pool.members.len(), 6);
        is_whole(&pool);
        compare(&pool.namespace, &files);
        drop(membership);
        pool.close().expect("it closes");
        // Not missed, and not taken; two others may go.
        for away in [vec![2], vec![], vec![2, 0, 5], vec![0, 5]] {
            let poorer = without(&machine, &away);
            let pool = poorer.open(options()).expect("it opens");
            assert_eq!(pool.read_only, ReadOnly::No, "{away:?}");
            assert_eq!(pool.members.len(), 6, "{away:?}");
            assert!(pool.missing.iter().all(|disk| *disk != DiskIndex(2)), "{away:?}");
            compare(&pool.namespace, &files);
            pool.close().expect("it closes");
        }
    }
}

#[test]
fn i8_a_replacement_goes_on_after_crashes() {
    for seed in 0..10 {
        let mut machine = machine(seed, 6);
        let mut pool = machine.open(options()).expect("it opens");
        let files = fill(&pool.namespace, seed);
        let old = DiskIndex(seed as u16 % 6);
        let lost = seed % 2 == 0;
        if lost {
            machine.disks[old.as_usize()].detach();
            let ino = make(&pool.namespace, "wakes it");
            write(&pool.namespace, ino, 0, &content(9, 3 << 20));
            pool.namespace.sync().expect("the others take it");
        }
        let new = add(&mut machine, &pool);
        assert_eq!(new, DiskIndex(6));
        pool.membership.as_ref().expect("rw").leave(old).expect("it is a member");
        for round in 0..3u64 {
            machine.world.run_for(Duration::from_millis(20 + 37 * ((seed * 3 + round) % 9)));
            let crashed = crashed(&machine, seed * 10 + round);
            machine.world.clear();
            drop(pool);
            machine =
                if lost && round == 0 { without(&crashed, &[old.as_usize()]) } else { crashed };
            pool = machine.open(options()).expect("it opens after a crash");
            assert_eq!(pool.read_only, ReadOnly::No, "seed {seed}");
        }
        gone(&machine, &pool, old);
        compare(&pool.namespace, &files);
        is_whole(&pool);
        assert_eq!(pool.members.len(), 6);
        assert!(records(&pool.namespace).iter().all(|record| !pool.members.lacks(record)));
        pool.close().expect("it closes");
    }
}

#[test]
fn r12_a_pool_without_a_spare_disk_shrinks_to_narrower_objects() {
    let machine = machine(3, 5);
    let pool = machine.open(options()).expect("it opens");
    let files = fill(&pool.namespace, 3);
    let membership = pool.membership.clone().expect("it may be written to");
    membership.leave(DiskIndex(0)).expect("it is a member");
    gone(&machine, &pool, DiskIndex(0));
    for record in records(&pool.namespace) {
        assert_eq!(record.redundancy.tolerates(), 2, "{record}");
    }
    is_whole(&pool);
    compare(&pool.namespace, &files);
    drop(membership);
    pool.close().expect("it closes");
    // Four members: with two of them missing it must be said that nobody else has those.
    let poorer = without(&machine, &[0, 1, 4]);
    let mut degraded = options();
    degraded.assemble.degraded = true;
    let pool = poorer.open(degraded).expect("it opens");
    assert_eq!(pool.read_only, ReadOnly::No);
    compare(&pool.namespace, &files);
    pool.close().expect("it closes");
}

#[test]
fn i5_one_disk_too_many_is_not_taken_out() {
    let machine = machine(3, 5);
    let pool = machine.open(options()).expect("it opens");
    let files = fill(&pool.namespace, 3);
    let membership = pool.membership.clone().expect("it may be written to");
    membership.take_out(DiskIndex(0)).expect("four are left");
    membership.take_out(DiskIndex(1)).expect("three are left");
    let refused = membership.take_out(DiskIndex(2)).expect_err("two are too few");
    assert!(matches!(refused, MembershipError::TooMany { out: 2 }), "{refused}");
    let unknown = membership.take_out(DiskIndex(9)).expect_err("there is none");
    assert!(matches!(unknown, MembershipError::Unknown(_)), "{unknown}");
    compare(&pool.namespace, &files);
    drop(membership);
    pool.close().expect("it closes");
}

fn image(machine: &SimMachine, disk: usize) -> Image {
    machine.disks[disk].snapshot().live().clone()
}

fn degraded() -> OpenOptions {
    let mut options = options();
    options.assemble.degraded = true;
    options
}

/// A disk that one half has got since made the other half's history look as if it could not be one.
#[test]
fn r2_two_halves_that_both_went_on_are_not_merged_though_one_has_got_a_disk() {
    for mounts in 1..4 {
        let machine = SimMachine::new(mounts, &[256 * MIB; 2]);
        machine.create(Redundancy::Replica { copies: 2 });
        let pool = machine.open(options()).expect("it opens");
        fill(&pool.namespace, 1);
        pool.close().expect("it closes");
        let mut other = SimMachine::with_images(1, vec![(1, image(&machine, 1))]);
        for mount in 0..mounts {
            let pool = other.open(degraded()).expect("it opens");
            write(&pool.namespace, make(&pool.namespace, &format!("b{mount}")), 0, b"b");
            pool.close().expect("it closes");
            other = without(&other, &[]);
        }
        let mut half = SimMachine::with_images(2, vec![(0, image(&machine, 0))]);
        let pool = half.open(degraded()).expect("it opens");
        add(&mut half, &pool);
        write(&pool.namespace, make(&pool.namespace, "a"), 0, b"a");
        pool.close().expect("it closes");
        let all = vec![(0, image(&half, 0)), (1, image(&other, 0)), (2, image(&half, 1))];
        let all = SimMachine::with_images(3, all);
        let refused = all.open(options()).err();
        assert!(
            matches!(refused, Some(OpenError::Assemble(AssembleError::SplitBrain { .. }))),
            "{mounts}: {refused:?}"
        );
    }
}

#[test]
fn r1_nobody_leaves_if_what_is_left_cannot_keep_everything_redundant() {
    let machine = SimMachine::new(1, &[256 * MIB; 2]);
    machine.create(Redundancy::Replica { copies: 2 });
    let pool = machine.open(options()).expect("it opens");
    let membership = pool.membership.clone().expect("it may be written to");
    let refused = membership.leave(DiskIndex(0)).expect_err("one copy would be left");
    assert!(matches!(refused, MembershipError::TooFewLeft { others: 1, need: 2 }), "{refused}");
    drop(membership);
    pool.close().expect("it closes");
}

#[test]
fn a_disk_that_is_to_stay_stays() {
    let machine = machine(1, 7);
    let pool = machine.open(options()).expect("it opens");
    let files = fill(&pool.namespace, 1);
    let membership = pool.membership.clone().expect("it may be written to");
    membership.leave(DiskIndex(2)).expect("it is a member");
    membership.stay(DiskIndex(2)).expect("it did not go yet");
    machine.world.run_for(Duration::from_secs(60));
    assert_eq!(pool.members.len(), 7);
    is_whole(&pool);
    compare(&pool.namespace, &files);
    drop(membership);
    pool.close().expect("it closes");
}

/// The chains of a pool whose space map is large name the disk that went, for a while.
#[test]
fn a_pool_with_long_chains_mounts_after_a_removal_and_after_every_crash_in_it() {
    for seed in 0..12 {
        let mut machine = machine(seed, 7);
        let mut options = options();
        options.namespace.chains.whole_bytes = 0;
        options.namespace.chains.links = 6;
        options.namespace.chains.growth = 100_000;
        let mut pool = machine.open(options.clone()).expect("it opens");
        let files = fill(&pool.namespace, seed);
        pool.namespace.checkpoint().expect("it has room");
        pool.membership.as_ref().expect("rw").leave(DiskIndex(4)).expect("it is a member");
        for round in 0..4u64 {
            machine.world.run_for(Duration::from_millis(200 + 391 * ((seed * 5 + round) % 13)));
            let crashed = crashed(&machine, seed * 10 + round);
            machine.world.clear();
            drop(pool);
            machine = crashed;
            pool = machine.open(options.clone()).expect("it opens after a crash");
            assert_eq!(pool.read_only, ReadOnly::No, "seed {seed}, crash {round}");
        }
        gone(&machine, &pool, DiskIndex(4));
        is_whole(&pool);
        pool.close().expect("it closes");
        let pool = machine.open(options).expect("it opens");
        assert_eq!(pool.read_only, ReadOnly::No, "seed {seed}");
        compare(&pool.namespace, &files);
        is_whole(&pool);
        pool.close().expect("it closes");
    }
}
