//! Disks that are back while a simulated pool is open.

use std::time::Duration;

use super::checks::checked;
use super::files::{content, make, write};
use super::reclaim::crashed;
use super::repairs::{Files, compare, fill, machine, options, overwrite, repaired, without};
use crate::base::sync::{Arc, Mutex};
use crate::base::{Clock, DiskIndex, Lsn, MIB, Random};
use crate::fleet::disk::sim::{Image, SimDisk};
use crate::fleet::disk::{Counters, Disk, DiskState};
use crate::fleet::{FailReason, Member, MemberState, RecordMembers};
use crate::format::{Label, Redundancy};
use crate::namespace::Namespace;
use crate::pool::assemble::may_come_back;
use crate::pool::membership::{Membership, MembershipError};
use crate::pool::open::{OpenPool, ReadOnly};
use crate::pool::simulated::SimMachine;

pub(super) fn is_whole(pool: &OpenPool) {
    let report = checked(pool, true);
    assert!(report.is_clean() && report.compared_space, "{report:?}");
}

fn membership(pool: &OpenPool) -> Arc<Membership> {
    pool.membership.clone().expect("it may be written to")
}

/// What a disk would have now if its power had been cut.
pub(super) fn cut(machine: &SimMachine, disk: usize, random: &mut Random) -> Image {
    machine.disks[disk].snapshot().crash_image(random)
}

/// Takes a disk back that holds `image` now.
pub(super) fn take_back(
    machine: &mut SimMachine,
    pool: &OpenPool,
    disk: usize,
    image: Image,
) -> Result<(), MembershipError> {
    membership(pool).close(DiskIndex(disk as u16))?;
    let back = machine.put_back(disk, image).expect("it has a label");
    membership(pool).take_back(back)
}

/// Whether the labels say that this disk is out.
fn is_out(pool: &OpenPool, disk: u16) -> bool {
    let label = membership(pool).labels.sample().expect("there are labels");
    label.member_states.is_out(DiskIndex(disk))
}

/// New files, and new content of old ones.
fn go_on(namespace: &Namespace, files: &mut Files, seed: u64, round: u64) {
    for number in 0..3 {
        let bytes = content(seed * 1000 + round * 10 + number, 3 << 20);
        overwrite(namespace, files, format!("n{round}-{number}"), &bytes);
        overwrite(namespace, files, format!("f{}", (round + number) % 8), &bytes[..90_000]);
    }
    namespace.sync().expect("it syncs");
}

#[derive(Clone, Copy, Debug)]
enum Away {
    Unplugged,
    TakenOut,
    MissingAtMount,
}

#[test]
fn a_disk_that_is_back_takes_part_at_once_and_gets_only_what_it_missed() {
    for (seed, away) in
        (0..).zip([Away::Unplugged, Away::TakenOut, Away::MissingAtMount, Away::Unplugged])
    {
        let mut random = Random::new(seed);
        let mut machine = machine(seed, 6);
        let mut pool = machine.open(options()).expect("it opens");
        let mut files = fill(&pool.namespace, seed);
        let disk = seed as usize + 1;
        let had = pool.space.room(DiskIndex(disk as u16)).expect("it is a member").used.bytes();
        assert!(had > 2 * MIB, "{away:?}: there is something on it");
        match away {
            Away::Unplugged => machine.disks[disk].detach(),
            Away::TakenOut => {
                membership(&pool).take_out(DiskIndex(disk as u16)).expect("one may be out");
            }
            Away::MissingAtMount => {
                pool.close().expect("it closes");
                // It is found by nobody, and stays as it was.
                machine.disks[disk].detach();
                pool = machine.open(options()).expect("it opens");
            }
        }
        go_on(&pool.namespace, &mut files, seed, 1);
        assert_ne!(pool.members.state(DiskIndex(disk as u16)), Some(MemberState::Active));
        let image = cut(&machine, disk, &mut random);
        let missed = pool.journal.as_ref().expect("it may be written to").bound();
        take_back(&mut machine, &pool, disk, image).expect("it is that disk");
        assert!(is_out(&pool, disk as u16), "{away:?}: until it has a root");
        let (labels, index) = (membership(&pool).labels.clone(), DiskIndex(disk as u16));
        labels.whole(&[index], Lsn(missed.0 - 1));
        assert!(labels.is_returned(index), "{away:?}: a root that lacks a batch which it missed");
        compare(&pool.namespace, &files);
        repaired(&machine, &pool);
        pool.namespace.checkpoint().expect("it is written");
        let Counters { written_bytes, .. } = machine.disks[disk].counters();
        assert!(written_bytes < had / 4, "{away:?}: {written_bytes} of {had}");
        for round in 2..5 {
            go_on(&pool.namespace, &mut files, seed, round);
        }
        assert!(!is_out(&pool, disk as u16), "{away:?}");
        let Counters { written_bytes, .. } = machine.disks[disk].counters();
        assert!(written_bytes > MIB, "{away:?}: it is written to like the others");
        is_whole(&pool);
        pool.close().expect("it closes");
        // It counts: any two others may go.
        for gone in [[0, 1], [2, 5], [3, 4]] {
            let gone: Vec<usize> = gone.iter().map(|other| (disk + 1 + other % 5) % 6).collect();
            let poorer = without(&machine, &gone);
            let pool = poorer.open(options()).expect("it opens");
            assert_eq!(pool.read_only, ReadOnly::No, "{away:?} {gone:?}");
            compare(&pool.namespace, &files);
            pool.close().expect("it closes");
        }
    }
}

#[test]
fn a_disk_that_was_given_up_is_taken_back_in_the_middle_of_repair() {
    for seed in 0..6 {
        let mut random = Random::new(seed);
        let mut machine = machine(seed, 6);
        let pool = machine.open(options()).expect("it opens");
        let mut files = fill(&pool.namespace, seed);
        machine.disks[2].detach();
        go_on(&pool.namespace, &mut files, seed, 1);
        // Whoever is asked nothing is not missed.
        go_on(&pool.namespace, &mut files, seed, 4);
        // Given up after ten seconds; some of it was made anew when it is back.
        machine.world.run_for(Duration::from_millis(11_000 + 30 * seed));
        assert!(pool.members.is_given_up(DiskIndex(2)), "seed {seed}");
        let image = cut(&machine, 2, &mut random);
        take_back(&mut machine, &pool, 2, image).expect("it is that disk");
        assert!(!pool.members.is_given_up(DiskIndex(2)));
        go_on(&pool.namespace, &mut files, seed, 2);
        repaired(&machine, &pool);
        is_whole(&pool);
        compare(&pool.namespace, &files);
        pool.close().expect("it closes");
        let poorer = without(&machine, &[0, 5]);
        let pool = poorer.open(options()).expect("it opens");
        compare(&pool.namespace, &files);
        pool.close().expect("it closes");
    }
}

/// What lacked a disk gets it: four disks, two of them away, so that tables have two copies.
#[test]
fn r12_what_waited_for_a_disk_is_made_whole_with_the_one_that_is_back() {
    for seed in 0..3 {
        let mut machine = SimMachine::new(seed, &[256 * MIB; 4]);
        machine.create(Redundancy::Erasure { data: 2, parity: 2 });
        let mut opening = options();
        opening.repair.delay = None;
        let pool = machine.open(opening.clone()).expect("it opens");
        let mut files = fill(&pool.namespace, seed);
        machine.disks[2].detach();
        machine.disks[3].detach();
        go_on(&pool.namespace, &mut files, seed, 1);
        let mut random = Random::new(seed);
        for disk in [2, 3] {
            let image = cut(&machine, disk, &mut random);
            take_back(&mut machine, &pool, disk, image).expect("it is that disk");
        }
        repaired(&machine, &pool);
        pool.namespace.checkpoint().expect("it is written");
        go_on(&pool.namespace, &mut files, seed, 2);
        is_whole(&pool);
        assert!(!is_out(&pool, 2) && !is_out(&pool, 3));
        pool.close().expect("it closes");
        for gone in [[0, 1], [2, 3], [1, 2]] {
            let poorer = without(&machine, &gone);
            let mut degraded = opening.clone();
            degraded.assemble.degraded = true;
            let pool = poorer.open(degraded).expect("it opens");
            assert_eq!(pool.read_only, ReadOnly::No, "seed {seed} {gone:?}");
            compare(&pool.namespace, &files);
            pool.close().expect("it closes");
        }
    }
}

#[test]
fn i8_coming_back_may_be_cut_short_anywhere() {
    let mut with_it = 0;
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let mut machine = machine(seed, 6);
        let pool = machine.open(options()).expect("it opens");
        let mut files = fill(&pool.namespace, seed);
        machine.disks[1].detach();
        go_on(&pool.namespace, &mut files, seed, 1);
        let image = cut(&machine, 1, &mut random);
        membership(&pool).close(DiskIndex(1)).expect("it is gone");
        let back = machine.put_back(1, image).expect("it has a label");
        let (disks, world) = (machine.disks.clone(), machine.world.clone());
        let at = Duration::from_micros(450 * seed);
        let images = Arc::new(Mutex::new(Vec::new()));
        let (taken, when) = (images.clone(), world.now() + at);
        // Time goes on in small steps, whoever waits for what.
        for tick in 0..200 {
            world.schedule(world.now() + Duration::from_micros(100 * tick), Box::new(|| ()));
        }
        let in_event = world.clone();
        world.schedule(
            when,
            Box::new(move || {
                let mut random = in_event.fork_random();
                *taken.lock() =
                    disks.iter().map(|disk| disk.snapshot().crash_image(&mut random)).collect();
            }),
        );
        membership(&pool).take_back(back).expect("it is that disk");
        // With its help, until the crash.
        for number in 0.. {
            let mut more = Files::new();
            synced(&pool.namespace, &mut more, &format!("s{number}"), &content(number, 3000));
            if world.now() >= when {
                break;
            }
            files.append(&mut more);
            with_it += 1;
        }
        world.run_for(at + Duration::from_secs(1));
        let images: Vec<Image> = std::mem::take(&mut *images.lock());
        machine.world.clear();
        drop(pool);
        // Whatever the crash left on it, two others may be lost with it.
        let gone = [[2, 3], [4, 5], [0, 2]][seed as usize % 3];
        let kept = images.into_iter().enumerate().filter(|(disk, _)| !gone.contains(disk));
        let again = SimMachine::with_images(seed, kept.collect());
        let pool = again.open(options()).expect("it opens after a crash");
        assert_eq!(pool.read_only, ReadOnly::No, "seed {seed}");
        compare(&pool.namespace, &files);
        pool.close().expect("it closes");
    }
    assert!(with_it > 20, "{with_it} files were synced with its help");
}

/// A small file, which the log alone has.
fn synced(namespace: &Namespace, files: &mut Files, name: &str, bytes: &[u8]) {
    let ino = make(namespace, name);
    write(namespace, ino, 0, bytes);
    namespace.fsync(ino).expect("the log takes it");
    files.insert(name.to_string(), bytes.to_vec());
}

/// Of four disks with two of parity, two hold everything alone: then it matters who says that he has all.
#[test]
fn r2_a_disk_that_is_back_is_not_trusted_before_it_has_everything() {
    let mut refused = 0;
    for seed in 0..24 {
        let mut random = Random::new(seed);
        let mut machine = SimMachine::new(seed, &[256 * MIB; 4]);
        machine.create(Redundancy::Erasure { data: 2, parity: 2 });
        let pool = machine.open(options()).expect("it opens");
        let mut files = Files::new();
        synced(&pool.namespace, &mut files, "a", &content(seed, 5000));
        machine.disks[2].detach();
        machine.disks[3].detach();
        synced(&pool.namespace, &mut files, "b", &content(seed + 50, 5000));
        let image = cut(&machine, 2, &mut random);
        take_back(&mut machine, &pool, 2, image).expect("it is that disk");
        synced(&pool.namespace, &mut files, "c", &content(seed + 99, 5000));
        machine.world.run_for(Duration::from_micros(300 * seed * seed));
        let after = crashed(&machine, seed);
        machine.world.clear();
        drop(pool);
        // The two that had everything are lost.
        let after = without(&after, &[0, 1]);
        let mut degraded = options();
        degraded.assemble.degraded = true;
        match after.open(degraded) {
            Ok(pool) if pool.read_only == ReadOnly::No => {
                compare(&pool.namespace, &files);
                pool.close().expect("it closes");
            }
            Ok(_) => refused += 1,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!((2..23).contains(&refused), "{refused} of 24 were refused");
}

#[test]
fn r2_a_root_from_before_makes_nobody_whole() {
    let machine = machine(1, 6);
    let pool = machine.open(options()).expect("it opens");
    let labels = membership(&pool).labels.clone();
    let disk = DiskIndex(3);
    let out_after = |covers: u64| {
        labels.whole(&[disk], Lsn(covers));
        labels.record().expect("all take it");
        is_out(&pool, 3)
    };
    labels.expect(disk);
    assert!(out_after(1 << 40), "what it lacks is not known yet");
    labels.lacks(disk, Lsn(10));
    assert!(out_after(9));
    assert!(!out_after(10));
    pool.close().expect("it closes");
}

#[test]
fn r7_a_disk_with_unanswered_requests_is_not_taken_back() {
    let machine = machine(3, 6);
    let pool = machine.open(options()).expect("it opens");
    let files = fill(&pool.namespace, 3);
    machine.disks[4].set_hang(true);
    write(&pool.namespace, make(&pool.namespace, "wakes it"), 0, &content(9, 6 << 20));
    pool.namespace.sync().expect("the others take it");
    membership(&pool).take_out(DiskIndex(4)).expect("one may be out");
    assert!(machine.disks[4].in_flight() > 0, "it has something to answer");
    let refused = membership(&pool).close(DiskIndex(4)).expect_err("it has not answered");
    assert!(matches!(refused, MembershipError::Unanswered(DiskIndex(4))), "{refused}");
    machine.disks[4].set_hang(false);
    machine.world.run_for(Duration::from_secs(1));
    membership(&pool).close(DiskIndex(4)).expect("now it has");
    compare(&pool.namespace, &files);
    pool.close().expect("it closes");
}

#[test]
fn i5_with_too_few_disks_the_one_that_is_back_is_what_was_missed() {
    let mut machine = machine(11, 6);
    let pool = machine.open(options()).expect("it opens");
    let mut files = fill(&pool.namespace, 11);
    for disk in [1, 3, 4] {
        pool.members.fail(DiskIndex(disk), FailReason::TakenOut);
    }
    // What was on its way gets there.
    machine.world.run_for(Duration::from_millis(5));
    for disk in [1, 3, 4] {
        let image = machine.disks[disk].snapshot().live().clone();
        take_back(&mut machine, &pool, disk, image).expect("it is that disk");
        go_on(&pool.namespace, &mut files, 11, disk as u64);
    }
    repaired(&machine, &pool);
    is_whole(&pool);
    compare(&pool.namespace, &files);
    pool.close().expect("it closes");
}

/// A copy that was made of a disk is no older label away from it: what else is known of it must be there.
#[test]
fn r2_a_copy_that_was_made_before_is_refused() {
    for by in ["label", "root", "log"] {
        let mut machine = machine(5, 6);
        let pool = machine.open(options()).expect("it opens");
        let mut files = fill(&pool.namespace, 5);
        pool.namespace.checkpoint().expect("it is written");
        let early = machine.disks[1].snapshot().live().clone();
        match by {
            "label" => {
                // The labels say who is out.
                machine.disks[5].detach();
                go_on(&pool.namespace, &mut files, 5, 1);
            }
            "root" => {
                go_on(&pool.namespace, &mut files, 5, 1);
                pool.namespace.checkpoint().expect("it is written");
            }
            _ => {
                for number in 0..20 {
                    synced(&pool.namespace, &mut files, &format!("s{number}"), b"in the log");
                }
            }
        }
        machine.world.run_for(Duration::from_millis(50));
        machine.disks[1].detach();
        go_on(&pool.namespace, &mut files, 5, 2);
        let current = machine.disks[1].snapshot().live().clone();
        let older = take_back(&mut machine, &pool, 1, early).expect_err("it is older");
        assert!(older.to_string().contains("older than it was"), "{by}: {older}");
        compare(&pool.namespace, &files);
        take_back(&mut machine, &pool, 1, current).expect("it is that disk");
        go_on(&pool.namespace, &mut files, 5, 3);
        if by == "label" {
            let image = machine.disks[5].snapshot().live().clone();
            take_back(&mut machine, &pool, 5, image).expect("it is that disk");
        }
        is_whole(&pool);
        pool.close().expect("it closes");
    }
}

#[test]
fn a_disk_that_takes_part_is_not_closed() {
    let machine = machine(5, 6);
    let pool = machine.open(options()).expect("it opens");
    let taken = membership(&pool).close(DiskIndex(1)).expect_err("it takes part");
    assert!(matches!(taken, MembershipError::TakesPart(DiskIndex(1))), "{taken}");
    pool.close().expect("it closes");
}

/// The removal of a disk ends with a root, and that takes disks that are away: they come back meanwhile.
#[test]
fn i5_disks_come_back_while_another_one_is_being_removed() {
    let mut machine = machine(13, 6);
    let pool = machine.open(options()).expect("it opens");
    let files = fill(&pool.namespace, 13);
    let removed = DiskIndex(3);
    membership(&pool).leave(removed).expect("it may go");
    let removing = |pool: &OpenPool| *membership(pool).removing.lock() == Some(removed);
    for _ in 0..200_000 {
        if removing(&pool) {
            break;
        }
        machine.world.run_for(Duration::from_micros(500));
    }
    assert!(removing(&pool), "it got so far");
    for disk in [0, 4] {
        pool.members.fail(DiskIndex(disk), FailReason::TakenOut);
    }
    machine.world.run_for(Duration::from_secs(5));
    assert!(removing(&pool), "three disks are too few for a root");
    let busy = membership(&pool).take_out(DiskIndex(1)).expect_err("one change at a time");
    assert!(matches!(busy, MembershipError::Busy), "{busy}");
    for disk in [0, 4] {
        let image = machine.disks[disk].snapshot().live().clone();
        take_back(&mut machine, &pool, disk, image).expect("it is what was missed");
    }
    machine.world.run_for(Duration::from_secs(120));
    assert!(pool.members.get(removed).is_none(), "the removal ends");
    compare(&pool.namespace, &files);
    is_whole(&pool);
    pool.close().expect("it closes");
}

#[test]
fn a_disk_says_itself_why_it_failed() {
    use crate::fleet::disk::DiskError;
    use crate::fleet::disk::sim::Access;
    let table = [(Access::Flush, FailReason::Flush), (Access::Write, FailReason::Write)];
    for (access, reason) in table {
        let machine = machine(15, 6);
        let pool = machine.open(options()).expect("it opens");
        machine.disks[2].fail_nth(access, 0, DiskError::Medium { offset: 0 });
        fill(&pool.namespace, 15);
        assert_eq!(pool.members.reason(DiskIndex(2)), Some(reason));
        pool.close().expect("it closes");
    }
}

#[test]
fn r2_a_disk_that_the_pool_was_mounted_with_elsewhere_is_refused() {
    let machine = machine(7, 6);
    let pool = machine.open(options()).expect("it opens");
    let ours = membership(&pool).labels.sample().expect("there are labels");
    let active: Vec<DiskIndex> = [0, 1, 3, 4, 5].map(DiskIndex).to_vec();
    let back = |change: &dyn Fn(&mut Label)| {
        let mut label = Label { index: DiskIndex(2), ..ours.clone() };
        change(&mut label);
        may_come_back(&label, &ours, &active)
    };
    assert!(back(&|_| ()), "of this mount");
    assert!(back(&|label| label.claim.epoch.0 -= 1), "of one that was not claimed against");
    assert!(!back(&|label| label.claim.epoch.0 += 1), "claimed since");
    assert!(back(&|label| label.claim.id ^= 1), "one of six could not have gone on alone");
    let pair = Label { member_count: 2, ..ours.clone() };
    let pair = Label { redundancy: Redundancy::Replica { copies: 2 }, ..pair };
    let mut other = Label { index: DiskIndex(1), ..pair.clone() };
    other.claim.id ^= 1;
    assert!(!may_come_back(&other, &pair, &[DiskIndex(0)]), "one of two could");
    pool.close().expect("it closes");
}

#[test]
fn an_answer_from_before_does_not_fail_a_disk_that_is_back() {
    let mut machine = machine(9, 6);
    let pool = machine.open(options()).expect("it opens");
    machine.disks[1].detach();
    let mut files = fill(&pool.namespace, 9);
    let image = machine.disks[1].snapshot().live().clone();
    take_back(&mut machine, &pool, 1, image).expect("it is that disk");
    pool.members.fail(DiskIndex(1), FailReason::Gone);
    assert_eq!(pool.members.state(DiskIndex(1)), Some(MemberState::Active));
    machine.disks[1].detach();
    go_on(&pool.namespace, &mut files, 9, 1);
    assert_eq!(machine.disks[1].state(), DiskState::Failed);
    assert_eq!(pool.members.state(DiskIndex(1)), Some(MemberState::Failed));
    assert_eq!(pool.members.reason(DiskIndex(1)), Some(FailReason::Gone));
    pool.close().expect("it closes");
}

/// A disk loses power between a write and the flush that was to make it durable, and is back before that.
#[test]
fn i10_no_flush_covers_what_was_written_before_a_disk_came_back() {
    let mut hit = 0;
    for seed in 0..80 {
        let machine = machine(seed, 6);
        let pool = machine.open(options()).expect("it opens");
        machine.disks[2].set_slow(20.0);
        let at = machine.world.now() + Duration::from_micros(2_000 + 2_500 * seed);
        let (old, members) = (machine.disks[2].clone(), pool.members.clone());
        let world = machine.world.clone();
        let swapped = Arc::new(Mutex::new(None));
        let new = swapped.clone();
        machine.world.schedule(
            at,
            Box::new(move || {
                if old.load().flushing {
                    // Nobody could close it now.
                    return;
                }
                let writes = old.snapshot().pending_writes();
                let image = old.snapshot().durable().clone();
                let disk = SimDisk::open(&world, old.parameters().clone(), image);
                members.fail(DiskIndex(2), FailReason::TakenOut);
                let was = members.get(DiskIndex(2)).expect("it is a member");
                let (state, handle) = (MemberState::Active, Some(disk.clone() as _));
                members.set(Member { state, handle, ..was });
                *new.lock() = Some((disk, writes));
            }),
        );
        let mut files = Files::new();
        for number in 0..3 {
            let bytes = content(seed * 10 + number, 8 << 20);
            overwrite(&pool.namespace, &mut files, format!("f{number}"), &bytes);
        }
        pool.namespace.sync().expect("it syncs");
        machine.world.run_for(Duration::from_millis(200));
        let swapped = swapped.lock().take();
        hit += usize::from(swapped.is_some_and(|(_, writes)| writes > 0));
        is_whole(&pool);
        compare(&pool.namespace, &files);
        pool.close().expect("it closes");
    }
    assert!(hit > 20, "{hit} of 80 had something that was not durable");
}
