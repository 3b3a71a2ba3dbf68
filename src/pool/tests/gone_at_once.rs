//! More than m disks of a simulated pool go at once, as with a cable, and are back a moment later.

use std::time::Duration;

use super::comeback::{cut, is_whole, take_back};
use super::files::content;
use super::reclaim::crashed;
use super::repairs::{Files, compare, fill, machine, options, overwrite, repaired, without};
use crate::base::sync::{Arc, Mutex};
use crate::base::{Clock, DiskIndex, Ino, MIB, Random};
use crate::fleet::{FailReason, FleetError, Journal, Members};
use crate::format::Redundancy;
use crate::namespace::NamespaceError;
use crate::pool::open::{OpenPool, ReadOnly};
use crate::pool::simulated::SimMachine;

const GONE: [usize; 3] = [1, 3, 5];

/// Unplugs the disks within the next eight seconds: while a batch is on its way to them (true), or, with every
/// other seed, at any moment. They are slow with half of the seeds, and
/// owe their answers then.
fn unplug_soon(
    machine: &SimMachine,
    members: &Arc<Members>,
    journal: &Arc<Journal>,
    seed: u64,
) -> Arc<Mutex<Option<bool>>> {
    let (unplugged, random) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Random::new(seed))));
    for step in 1..=32_000 {
        let disks = GONE.map(|disk| machine.disks[disk].clone());
        let (journal, members) = (journal.clone(), members.clone());
        let (unplugged, random) = (unplugged.clone(), random.clone());
        let look = move || {
            let in_flight = journal.bound() > journal.acked();
            let chance = if in_flight { 2 } else { 20_000 };
            let now = (in_flight || seed % 2 == 1) && random.lock().one_in(chance);
            if now && unplugged.lock().is_none() {
                for (number, disk) in GONE.into_iter().zip(&disks) {
                    if in_flight && seed % 4 < 2 {
                        members.fail(DiskIndex(number as u16), FailReason::TakenOut);
                    } else {
                        disk.detach();
                    }
                }
                *unplugged.lock() = Some(in_flight);
            }
        };
        let at = machine.world.now() + Duration::from_micros(250 * step);
        machine.world.schedule(at, Box::new(look));
    }
    unplugged
}

struct Suspended {
    machine: SimMachine,
    pool: OpenPool,
    files: Files,
    /// Those that were synced before, and not changed since.
    synced: Files,
    /// The disks went while a batch was on its way to them.
    in_flight: bool,
}

/// Three of six go while something is written; writing is suspended.
fn suspended(seed: u64) -> Suspended {
    let machine = machine(seed, 6);
    let pool = machine.open(options()).expect("it opens");
    let mut files = fill(&pool.namespace, seed);
    let mut synced = files.clone();
    synced.remove("f1");
    overwrite(&pool.namespace, &mut files, "f1".to_string(), &content(seed, 200_000));
    overwrite(&pool.namespace, &mut files, "late".to_string(), &content(seed + 1, 3 << 20));
    let journal = pool.journal.clone().expect("it may be written to");
    if seed % 4 < 2 {
        GONE.into_iter().for_each(|disk| machine.disks[disk].set_slow(30.0));
    }
    let unplugged = unplug_soon(&machine, &pool.members, &journal, seed);
    machine.world.run_for(Duration::from_secs(8));
    let unplugged = *unplugged.lock();
    // Disks of which nothing is asked are not missed.
    if journal.lost().is_none() {
        overwrite(&pool.namespace, &mut files, "later".to_string(), &content(seed + 2, 90_000));
        GONE.into_iter().for_each(|disk| machine.disks[disk].detach());
    }
    machine.world.run_for(Duration::from_secs(20));
    assert!(pool.suspended(), "seed {seed}: three of six are gone");
    assert!(!pool.namespace.progress().failed, "seed {seed}: they are waited for");
    Suspended { machine, pool, files, synced, in_flight: unplugged == Some(true) }
}

/// docs/semantics.md: "When more than m disks go at once while the pool is mounted, writing waits two minutes for them"
#[test]
fn what_is_written_waits_for_disks_that_went_together() {
    let mut in_flight = 0;
    for seed in 0..32 {
        let mut random = Random::new(seed);
        let Suspended { mut machine, pool, mut files, in_flight: was, .. } = suspended(seed);
        in_flight += usize::from(was);
        for disk in GONE {
            machine.disks[disk].detach();
        }
        for disk in GONE {
            let image = cut(&machine, disk, &mut random);
            take_back(&mut machine, &pool, disk, image).expect("it is that disk");
        }
        pool.namespace.sync().expect("it goes on");
        assert!(!pool.suspended(), "seed {seed}");
        let synced = crashed(&machine, seed);
        overwrite(&pool.namespace, &mut files, "after".to_string(), &content(seed + 3, 70_000));
        pool.namespace.sync().expect("it syncs");
        repaired(&machine, &pool);
        is_whole(&pool);
        compare(&pool.namespace, &files);
        pool.close().expect("it closes");
        files.remove("after");
        let pool = synced.open(options()).expect("it recovers");
        compare(&pool.namespace, &files);
        pool.close().expect("it closes");
    }
    assert!(in_flight > 5, "{in_flight} of 32 lost the disks under a batch");
}

/// Nobody waits for ever.
#[test]
fn after_two_minutes_the_log_has_failed_and_what_was_synced_is_there() {
    let Suspended { machine, pool, synced: before, .. } = suspended(20);
    machine.world.run_for(Duration::from_secs(90));
    assert!(!pool.namespace.progress().failed, "not yet");
    machine.world.run_for(Duration::from_secs(20));
    assert!(pool.namespace.progress().failed);
    let synced = pool.namespace.sync();
    assert!(
        matches!(synced, Err(NamespaceError::Io(FleetError::TooFewDisks { .. }))),
        "{synced:?}"
    );
    assert!(pool.close().is_err());
    let pool = crashed(&machine, 20).open(options()).expect("it recovers");
    compare(&pool.namespace, &before);
    pool.close().expect("it closes");
}

/// A pool that is closed meanwhile waits for nobody.
#[test]
fn a_close_does_not_wait_for_disks_that_went_together() {
    let Suspended { machine, pool, synced, .. } = suspended(21);
    let before = machine.world.now();
    assert!(pool.close().is_err(), "what was written last is not durable");
    assert!(machine.world.now() < before + Duration::from_secs(10));
    let pool = crashed(&machine, 21).open(options()).expect("it recovers");
    compare(&pool.namespace, &synced);
    pool.close().expect("it closes");
}

/// Unplugged disks of which nothing was asked are not missed yet: as if it had been.
fn put_back(machine: &mut SimMachine, pool: &OpenPool, disk: usize, random: &mut Random) {
    pool.members.fail(DiskIndex(disk as u16), FailReason::TakenOut);
    machine.world.run_for(Duration::from_millis(5));
    let image = cut(machine, disk, random);
    take_back(machine, pool, disk, image).expect("it is that disk");
}

/// [I1, R12] What is written while too few disks are there to acknowledge anything has its whole margin all the
/// same: with the fsync that comes back when they are, any m disks may go.
#[test]
fn i1_what_was_written_with_too_few_disks_has_its_whole_margin() {
    for (seed, gone) in (0..24).zip([&[1, 3, 4, 5][..], &[1, 2, 3, 4, 5]].into_iter().cycle()) {
        let mut random = Random::new(seed);
        let mut machine = machine(seed, 6);
        let mut opening = options();
        opening.index.memtable_bytes = 32 << 10;
        let pool = machine.open(opening.clone()).expect("it opens");
        let mut files = fill(&pool.namespace, seed);
        gone.iter().for_each(|&disk| machine.disks[disk].detach());
        overwrite(&pool.namespace, &mut files, "f1".to_string(), &content(seed, 50));
        for number in 0..200 {
            overwrite(&pool.namespace, &mut files, format!("{number:0100}"), &[number]);
        }
        overwrite(&pool.namespace, &mut files, "new".to_string(), &content(seed + 1, 3 << 20));
        machine.world.run_for(Duration::from_secs(20));
        assert!(pool.suspended(), "seed {seed}");
        gone.iter().for_each(|&disk| put_back(&mut machine, &pool, disk, &mut random));
        pool.namespace.sync().expect("it syncs");
        // Repair has not looked yet.
        assert_eq!(pool.namespace.lacking_unkeyed(), 0, "seed {seed}: tables or chains are short");
        let synced = crashed(&machine, seed);
        machine.world.clear();
        drop(pool);
        // Those that were there, and one more if that was one.
        let lost = if gone.len() == 4 { [0, 2] } else { [0, 1 + seed as usize % 5] };
        let pool = without(&synced, &lost).open(opening).expect("it opens");
        assert_eq!(pool.read_only, ReadOnly::No, "seed {seed}: two of six are lost");
        compare(&pool.namespace, &files);
        pool.close().expect("it closes");
    }
}

/// Nobody is left who has everything that was acknowledged: all of them have, for nothing was without them.
#[test]
fn all_disks_of_a_pool_may_go_at_once() {
    let shapes = [
        (Redundancy::Erasure { data: 3, parity: 2 }, 6),
        (Redundancy::Replica { copies: 2 }, 2),
        (Redundancy::Replica { copies: 1 }, 1),
        (Redundancy::Replica { copies: 3 }, 4),
    ];
    for seed in 0..16 {
        let (redundancy, disks) = shapes[seed as usize % shapes.len()];
        let mut random = Random::new(seed);
        let mut machine = SimMachine::new(seed, &vec![256 * MIB; disks]);
        machine.create(redundancy);
        let pool = machine.open(options()).expect("it opens");
        let mut files = fill(&pool.namespace, seed);
        overwrite(&pool.namespace, &mut files, "f1".to_string(), &content(seed, 200_000));
        machine.world.run_for(Duration::from_millis(random.below(6_000)));
        machine.disks.iter().for_each(|disk| disk.detach());
        overwrite(&pool.namespace, &mut files, "late".to_string(), &content(seed + 1, 60_000));
        machine.world.run_for(Duration::from_secs(20));
        assert!(!pool.namespace.progress().failed, "seed {seed}: they are waited for");
        (0..disks).for_each(|disk| put_back(&mut machine, &pool, disk, &mut random));
        pool.namespace.sync().expect("it goes on");
        assert!(!pool.suspended(), "seed {seed}");
        let synced = crashed(&machine, seed);
        overwrite(&pool.namespace, &mut files, "after".to_string(), &content(seed + 2, 70_000));
        let ino = pool.namespace.lookup(Ino::ROOT, b"after").expect("it is there").ino;
        pool.namespace.fsync(ino).expect("it syncs");
        repaired(&machine, &pool);
        is_whole(&pool);
        compare(&pool.namespace, &files);
        pool.close().expect("it closes");
        files.remove("after");
        let parity = redundancy.tolerates();
        let lost: Vec<usize> = (0..parity).map(|one| (seed as usize + one) % disks).collect();
        let mut opening = options();
        opening.assemble.degraded = true;
        let pool = without(&synced, &lost).open(opening).expect("it recovers");
        compare(&pool.namespace, &files);
        pool.close().expect("it closes");
    }
}

/// A pool without any disk waits for them two minutes like others, and can be closed.
#[test]
fn all_disks_gone_for_good_end_it() {
    for stop in [false, true] {
        let machine = machine(5, 6);
        let pool = machine.open(options()).expect("it opens");
        let mut files = fill(&pool.namespace, 5);
        machine.disks.iter().for_each(|disk| disk.detach());
        overwrite(&pool.namespace, &mut files, "late".to_string(), &content(1, 60_000));
        machine.world.run_for(Duration::from_secs(if stop { 30 } else { 150 }));
        assert_eq!(pool.namespace.progress().failed, !stop);
        let before = machine.world.now();
        assert!(pool.close().is_err());
        assert!(machine.world.now() < before + Duration::from_secs(15));
    }
}
