//! [R19] Cuts and deletions that take several transactions, and power that is lost between any two of
//! them: what is found then is the file before or after, never something in between.

use std::time::Duration;

use super::files::*;
use crate::base::sync::{Arc, Mutex};
use crate::base::{Clock, Ino, MIB, Random};
use crate::fleet::disk::Disk;
use crate::fleet::disk::sim::Image;
use crate::format::Redundancy;
use crate::namespace::{Allocate, Namespace, SetAttr};
use crate::pool::open::{OpenOptions, OpenPool};
use crate::pool::simulated::SimMachine;

/// A machine whose power is cut again and again while something long goes on.
struct Long {
    machine: SimMachine,
    pool: OpenPool,
    random: Random,
    /// Always clean: whoever syncs it commits what others have done.
    other: Ino,
    images: Vec<Vec<(usize, Image)>>,
}

impl Long {
    fn new(seed: u64) -> Long {
        let machine = machine(seed);
        let pool = open(&machine, OpenOptions::default());
        let other = make(&pool.namespace, "other");
        pool.namespace.sync().expect("it syncs");
        Long { machine, pool, random: Random::new(seed), other, images: Vec::new() }
    }

    fn namespace(&self) -> Namespace {
        self.pool.namespace.clone()
    }

    /// What has been done so far is durable, and what a power cut would leave now is kept.
    fn cut_power(&mut self) {
        self.pool.namespace.fsync(self.other).expect("it commits");
        self.images.push(crash_images(&self.machine, &mut self.random));
    }

    /// Flushes what is dirty, and cuts power after each transaction of the cut.
    fn flush(&mut self) -> u32 {
        let namespace = self.namespace();
        namespace.with_steps_of_a_flush(
            || {},
            || {},
            || {
                self.cut_power();
                true
            },
        )
    }

    /// The same, if anything is dirty.
    fn flush_all(&mut self) {
        if self.pool.namespace.audit().expect("it reads").unsettled > 0 {
            self.flush();
        }
    }

    /// Each power cut is recovered, and goes on; `check` looks at what is there. Then the pool itself.
    fn recover(self, mut check: impl FnMut(&Namespace, usize)) {
        let count = self.images.len();
        for (index, images) in self.images.into_iter().enumerate() {
            let told = format!("power was cut after step {} of {count}", index + 1);
            println!("{told}");
            let machine = SimMachine::with_images(100 + index as u64, images);
            let during = images_in(&machine, Duration::from_micros(200 << (index % 8)));
            let pool = open(&machine, OpenOptions::default());
            // [I8] And once more, with power lost again in the middle of the recovery.
            let during = during.lock().take();
            if let Some(images) = during {
                let machine = SimMachine::with_images(200 + index as u64, images);
                let pool = open(&machine, OpenOptions::default());
                assert_clean(&pool.namespace, &told);
                check(&pool.namespace, index);
                pool.close().expect("it closes");
            }
            assert_clean(&pool.namespace, &told);
            check(&pool.namespace, index);
            // The work goes on after the crash.
            machine.world.run_for(Duration::from_secs(20));
            assert_clean(&pool.namespace, &told);
            check(&pool.namespace, index);
            pool.close().expect("it closes");
        }
        self.pool.namespace.sync().expect("it syncs");
        self.machine.world.run_for(Duration::from_secs(20));
        assert_clean(&self.pool.namespace, "without a power cut");
        check(&self.pool.namespace, count);
        self.pool.close().expect("it closes");
    }
}

type Images = Vec<(usize, Image)>;

/// What a power cut leaves so much later.
fn images_in(machine: &SimMachine, later: Duration) -> Arc<Mutex<Option<Images>>> {
    let images: Arc<Mutex<Option<Images>>> = Arc::default();
    let (disks, taken) = (machine.disks.clone(), images.clone());
    let cut = move || {
        let mut random = Random::new(later.as_micros() as u64);
        let disks = disks.iter().enumerate();
        let images = disks.map(|(at, disk)| (at, disk.snapshot().crash_image(&mut random)));
        *taken.lock() = Some(images.collect());
    };
    machine.world.schedule(machine.world.now() + later, Box::new(cut));
    images
}

fn crash_images(machine: &SimMachine, random: &mut Random) -> Vec<(usize, Image)> {
    let disks = machine.disks.iter().enumerate();
    disks.map(|(index, disk)| (index, disk.snapshot().crash_image(random))).collect()
}

fn assert_clean(namespace: &Namespace, told: &str) {
    let audit = namespace.audit().expect("it reads");
    let words: Vec<String> = audit.findings.iter().map(|found| found.to_string()).collect();
    assert!(audit.is_clean(), "{told}: {} findings: {words:#?}", audit.found);
    assert!(audit.compared_space, "{told}: it is at rest");
    assert_eq!(audit.intents, 0, "{told}: nothing is left to be done");
}

/// All that is in a file, if it is there.
fn whole(namespace: &Namespace, name: &[u8]) -> Option<Vec<u8>> {
    let attr = namespace.lookup(Ino::ROOT, name).ok()?;
    let bytes = read(namespace, attr.ino, 0, u32::MAX);
    assert_eq!(bytes.len() as u64, attr.size);
    namespace.forget(attr.ino, 1);
    Some(bytes)
}

fn riddled(extents: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..extents).flat_map(|number| [1 + (number % 250) as u8, 0]).collect();
    bytes.pop();
    bytes
}

/// Either before or after, and once after, always after.
fn before_or_after(
    name: &str,
    before: &[u8],
    after: &[u8],
) -> impl FnMut(&Namespace, usize) + use<> {
    let (name, before, after) = (name.to_string(), before.to_vec(), after.to_vec());
    let mut arrived = None;
    move |namespace: &Namespace, index: usize| {
        let found = whole(namespace, name.as_bytes()).expect("it is there");
        let is_after = found == after;
        assert!(
            is_after || found == before,
            "[I1] {name} is neither as before nor as after step {}: {} bytes, differs from before \
             at {:?}, from after at {:?}",
            index + 1,
            found.len(),
            (0..found.len()).find(|&at| before.get(at) != found.get(at)),
            (0..found.len()).find(|&at| after.get(at) != found.get(at)),
        );
        assert!(is_after || arrived.is_none_or(|at| at == index), "it was cut before");
        if is_after {
            arrived.get_or_insert(index);
        }
    }
}

#[test]
fn r19_a_large_write_over_thousands_of_extents_is_there_or_is_not() {
    let mut long = Long::new(1);
    let namespace = long.namespace();
    let file = make(&namespace, "file");
    riddle(&namespace, file, 5000);
    namespace.sync().expect("it syncs");
    let new = content(1, 30_000);
    write(&namespace, file, 0, &new);
    assert!(long.flush() > 3, "it takes several transactions");
    long.recover(before_or_after("file", &riddled(5000), &new));
}

#[test]
fn r19_a_truncate_of_fifty_thousand_extents_is_there_or_is_not() {
    let mut long = Long::new(2);
    let namespace = long.namespace();
    let file = make(&namespace, "file");
    riddle(&namespace, file, 50_000);
    namespace.sync().expect("it syncs");
    resize(&namespace, file, 0);
    assert!(long.flush() > 20, "it takes many transactions");
    // Some of them are as good as all: each is recovered as a whole.
    let mut kept = 0;
    long.images.retain(|_| {
        kept += 1;
        kept < 4 || kept % 16 == 0
    });
    let mut check = before_or_after("file", &riddled(50_000), &[]);
    long.recover(|namespace, index| {
        check(namespace, index);
        let attr = namespace.lookup(Ino::ROOT, b"file").expect("it is there");
        if attr.size == 0 {
            // What was cut off does not come to light again.
            resize(namespace, attr.ino, 1000);
            assert_eq!(read(namespace, attr.ino, 0, 1000), [0; 1000]);
            resize(namespace, attr.ino, 0);
        }
        namespace.forget(attr.ino, 1);
    });
}

#[test]
fn r19_a_file_that_is_written_anew_is_the_old_or_the_new_one() {
    let mut long = Long::new(3);
    let namespace = long.namespace();
    let file = make(&namespace, "file");
    riddle(&namespace, file, 4000);
    namespace.sync().expect("it syncs");
    resize(&namespace, file, 0);
    let new = content(1, 3000);
    write(&namespace, file, 0, &new);
    assert!(long.flush() > 3, "it takes several transactions");
    long.recover(before_or_after("file", &riddled(4000), &new));
}

#[test]
fn r19_a_hole_punched_into_thousands_of_extents_is_there_or_is_not() {
    let mut long = Long::new(4);
    let namespace = long.namespace();
    let file = make(&namespace, "file");
    riddle(&namespace, file, 4000);
    namespace.sync().expect("it syncs");
    namespace.allocate(file, Allocate::PunchHole, 101, 7000, ROOT_USER).expect("it is punched");
    assert!(long.flush() > 3, "it takes several transactions");
    let before = riddled(4000);
    let mut after = before.clone();
    after[101..7101].fill(0);
    long.recover(before_or_after("file", &before, &after));
}

#[test]
fn r19_thousands_of_small_writes_are_cut_together() {
    let mut long = Long::new(5);
    let namespace = long.namespace();
    let file = make(&namespace, "file");
    write(&namespace, file, 0, &vec![9; 9999]);
    namespace.sync().expect("it syncs");
    riddle(&namespace, file, 5000);
    let mut after = riddled(5000);
    after.iter_mut().for_each(|byte| *byte = if *byte == 0 { 9 } else { *byte });
    assert!(long.flush() > 3, "it takes several transactions");
    long.recover(before_or_after("file", &[9; 9999], &after));
}

/// What is left of a transaction was used for a part of the next file.
#[test]
fn r19_a_file_that_fits_a_transaction_is_cut_in_one() {
    let mut long = Long::new(6);
    let namespace = long.namespace();
    let names = ["first", "second", "third"];
    for name in names {
        let file = make(&namespace, name);
        write(&namespace, file, 0, &vec![9; 1399]);
        namespace.sync().expect("it syncs");
        riddle(&namespace, file, 700);
    }
    let before = vec![9; 1399];
    for name in names {
        let attr = namespace.lookup(Ino::ROOT, name.as_bytes()).expect("it is there");
        assert_eq!(attr.size, 1399);
    }
    for name in names {
        let attr = namespace.lookup(Ino::ROOT, name.as_bytes()).expect("it is there");
        riddle(&namespace, attr.ino, 700);
    }
    let mut after = riddled(700);
    after.iter_mut().for_each(|byte| *byte = if *byte == 0 { 9 } else { *byte });
    // The syncs above have taken the first two along.
    let synced = |name: &str| name != "third";
    assert!(long.flush() > 1, "it takes several transactions");
    let checks = names.map(|name| {
        let before = if synced(name) { &after } else { &before };
        before_or_after(name, before, &after)
    });
    let mut checks = checks;
    long.recover(|namespace, index| checks.iter_mut().for_each(|check| check(namespace, index)));
}

#[test]
fn r19_a_file_of_fifty_thousand_extents_is_deleted_across_crashes() {
    let mut long = Long::new(7);
    let namespace = long.namespace();
    let free = free_units(&long.pool);
    let file = make(&namespace, "file");
    riddle(&namespace, file, 50_000);
    namespace.sync().expect("it syncs");
    assert!(free_units(&long.pool) < free);
    namespace.unlink(Ino::ROOT, b"file").expect("it is there");
    let steps = namespace.with_steps_of_a_reap(file, || long.cut_power());
    assert!(steps > 20, "it takes many transactions");
    let mut kept = 0;
    long.images.retain(|_| {
        kept += 1;
        kept < 4 || kept % 16 == 0
    });
    for (index, images) in std::mem::take(&mut long.images).into_iter().enumerate() {
        let machine = SimMachine::with_images(100 + index as u64, images);
        let pool = open(&machine, OpenOptions::default());
        assert_eq!(whole(&pool.namespace, b"file"), None, "[I2] its name is gone for good");
        assert_clean(&pool.namespace, "just opened");
        machine.world.run_for(Duration::from_secs(20));
        assert_clean(&pool.namespace, "the reaper has gone on");
        assert_eq!(pool.namespace.progress().inodes, 2, "the root and the other one");
        pool.close().expect("it closes");
    }
    long.recover(|namespace, _| assert_eq!(namespace.progress().inodes, 2));
}

/// An fsync is faster than a flush whose bytes it has logged: the flush only hands over what it wrote, over
/// thousands of old extents. What was synced is there after each of its transactions.
#[test]
fn r19_a_flush_that_was_overtaken_hands_over_in_steps_and_ends() {
    for newer in [false, true] {
        let mut long = Long::new(8);
        let namespace = long.namespace();
        let file = make(&namespace, "file");
        riddle(&namespace, file, 5000);
        namespace.sync().expect("it syncs");
        let mut new = content(1, 10_000);
        write(&namespace, file, 0, &new);
        new[9990..].fill(4);
        let overtake = || {
            write(&namespace, file, 9990, &[4; 10]);
            namespace.fsync(file).expect("it is logged");
            if newer {
                // The record in memory is newer than the index from here on.
                write(&namespace, file, 10_000, &[3]);
            }
        };
        let step = || {
            long.cut_power();
            true
        };
        let steps = namespace.with_steps_of_a_flush(overtake, || {}, step);
        assert!(steps > 3, "it takes several transactions");
        let longer = [new.clone(), vec![3]].concat();
        let after = if newer { longer } else { new.clone() };
        long.recover(before_or_after("file", &new, &after));
    }
}

/// An error ends the flush in the middle of its cut. The next one goes on, with what was written since.
#[test]
fn r19_a_long_cut_that_was_given_up_is_gone_on_with() {
    for (given_up_after, synced) in (1..6).flat_map(|after| [(after, false), (after, true)]) {
        let mut long = Long::new(9);
        let namespace = long.namespace();
        let file = make(&namespace, "file");
        riddle(&namespace, file, 4400);
        namespace.sync().expect("it syncs");
        let mut new = content(1, 20_000);
        write(&namespace, file, 0, &new);
        let mut steps = 0;
        let step = || {
            steps += 1;
            long.cut_power();
            steps < given_up_after
        };
        namespace.with_steps_of_a_flush(|| {}, || {}, step);
        let first = new.clone();
        write(&namespace, file, 1000, &[5; 3000]);
        new[1000..4000].fill(5);
        if synced {
            // Another flush has come no further than to write what is new; then somebody syncs.
            let step = || {
                long.cut_power();
                false
            };
            namespace.with_steps_of_a_flush(|| {}, || {}, step);
            namespace.fsync(file).expect("it syncs");
            long.cut_power();
        }
        long.flush_all();
        // Of three versions each is allowed, in their order.
        let versions = [riddled(4400), first, new];
        let mut at = 0;
        long.recover(|namespace, index| {
            let found = whole(namespace, b"file").expect("it is there");
            let version = versions.iter().position(|version| *version == found);
            let version = version.unwrap_or_else(|| panic!("[I1] never was this, step {index}"));
            assert!(version >= at, "[I1] version {version} after version {at}");
            at = version;
        });
        assert_eq!(at, 2, "all of it arrives");
    }
}

/// Whoever changes a file while its long cut goes on changes it after the cut.
#[test]
fn r19_a_file_is_changed_while_its_long_cut_goes_on() {
    let mut long = Long::new(10);
    let namespace = long.namespace();
    let file = make(&namespace, "file");
    riddle(&namespace, file, 4000);
    namespace.sync().expect("it syncs");
    let new = content(1, 20_000);
    write(&namespace, file, 0, &new);
    let mut longer = new.clone();
    let mut steps = 0;
    let step = || {
        steps += 1;
        write(&namespace, file, 20_000 + 10 * steps, &[7; 10]);
        let change = SetAttr { mode: Some(0o600 + steps as u32), ..SetAttr::default() };
        namespace.setattr(file, &change, ROOT_USER).expect("it takes any mode");
        longer.resize(20_000 + 10 * steps as usize, 0);
        longer.extend_from_slice(&[7; 10]);
        long.cut_power();
        true
    };
    namespace.with_steps_of_a_flush(|| {}, || {}, step);
    long.flush();
    let before = riddled(4000);
    long.recover(|namespace, index| {
        let found = whole(namespace, b"file").expect("it is there");
        let known = [&before, &new, &longer].contains(&&found);
        assert!(known, "[I1] {} bytes, step {}", found.len(), index + 1);
    });
}

/// [I1] Only the mode changes while the long cut goes on: the end of the cut put the old one back.
#[test]
fn i1_a_mode_set_while_a_long_cut_goes_on_stays() {
    for set_after in 1..6 {
        let mut long = Long::new(30 + set_after);
        let namespace = long.namespace();
        let file = make(&namespace, "file");
        riddle(&namespace, file, 4000);
        namespace.sync().expect("it syncs");
        write(&namespace, file, 0, &content(1, 20_000));
        let mut steps = 0;
        let step = || {
            steps += 1;
            if steps == set_after {
                let change = SetAttr { mode: Some(0o601), ..SetAttr::default() };
                namespace.setattr(file, &change, ROOT_USER).expect("it takes any mode");
            }
            true
        };
        namespace.with_steps_of_a_flush(|| {}, || {}, step);
        assert!(steps > 3, "{steps} transactions");
        let mode = |namespace: &Namespace| namespace.getattr(file).expect("there").mode & 0o7777;
        assert_eq!(mode(&namespace), 0o601, "set after {set_after} of {steps}");
        namespace.fsync(file).expect("it syncs");
        long.cut_power();
        long.recover(|namespace, _| assert_eq!(mode(namespace), 0o601, "after a crash"));
    }
}

/// The last name goes while the long cut goes on: the file is deleted after a crash, and what it has in
/// objects with it.
#[test]
fn r19_a_file_is_deleted_while_its_long_cut_goes_on() {
    let mut long = Long::new(11);
    let namespace = long.namespace();
    for (unlinked_after, given_up) in (1..6).flat_map(|after| [(after, false), (after, true)]) {
        let file = make(&namespace, "file");
        riddle(&namespace, file, 4000);
        namespace.sync().expect("it syncs");
        write(&namespace, file, 0, &content(1, 20_000));
        let mut steps = 0;
        let step = || {
            steps += 1;
            if steps == unlinked_after {
                namespace.unlink(Ino::ROOT, b"file").expect("it is there");
            }
            if steps >= unlinked_after {
                long.cut_power();
            }
            steps < unlinked_after || !given_up
        };
        namespace.with_steps_of_a_flush(|| {}, || {}, step);
        assert_eq!(read(&namespace, file, 0, 30_000), content(1, 20_000), "it is still known");
        namespace.forget(file, 1);
        long.machine.world.run_for(Duration::from_secs(20));
        assert_clean(&namespace, "the reaper has taken all of it");
    }
    for (index, images) in std::mem::take(&mut long.images).into_iter().enumerate() {
        let machine = SimMachine::with_images(100 + index as u64, images);
        let pool = open(&machine, OpenOptions::default());
        assert_eq!(whole(&pool.namespace, b"file"), None);
        machine.world.run_for(Duration::from_secs(20));
        assert_clean(&pool.namespace, &format!("crash {index}"));
        assert_eq!(pool.namespace.progress().inodes, 2);
        pool.close().expect("it closes");
    }
    long.recover(|namespace, _| assert_eq!(namespace.progress().inodes, 2));
}

/// A pool that is only read shows the same, and is not written to.
#[test]
fn r19_a_long_cut_is_seen_whole_by_who_only_reads() {
    let mut long = Long::new(12);
    let namespace = long.namespace();
    let file = make(&namespace, "file");
    riddle(&namespace, file, 5000);
    namespace.sync().expect("it syncs");
    let (before, after) = (riddled(5000), content(1, 30_000));
    write(&namespace, file, 0, &after);
    long.flush();
    let mut options = OpenOptions::default();
    options.assemble.read_only = true;
    let mut seen = [0; 2];
    for images in std::mem::take(&mut long.images) {
        let machine = SimMachine::with_images(100, images);
        let pool = open(&machine, options.clone());
        let found = whole(&pool.namespace, b"file").expect("it is there");
        assert!(found == before || found == after, "[I1]");
        seen[usize::from(found == after)] += 1;
        let written: u64 = machine.disks.iter().map(|disk| disk.counters().writes).sum();
        assert_eq!(written, 0, "[I5] nothing is written");
        pool.close().expect("it closes");
    }
    assert!(seen[0] > 0 && seen[1] > 1, "{seen:?}: as before, and in the middle");
}

/// All of a long cut went into one batch, which on small disks is more than the log takes at a time: the
/// pool failed.
#[test]
fn r10_r19_a_long_cut_is_not_more_than_the_log_takes_at_a_time() {
    let machine = SimMachine::new(13, &[256 * MIB; 4]);
    machine.create(Redundancy::Replica { copies: 2 });
    let pool = open(&machine, OpenOptions::default());
    let namespace = &pool.namespace;
    let (file, other) = (make(namespace, "file"), make(namespace, "other"));
    riddle(namespace, file, 200_000);
    namespace.fsync(file).expect("it syncs");
    assert_clean(namespace, "written");
    resize(namespace, file, 0);
    write(namespace, other, 0, b"meanwhile");
    namespace.fsync(other).expect("it syncs");
    namespace.fsync(file).expect("it syncs");
    machine.world.run_for(Duration::from_secs(100));
    assert_clean(namespace, "cut off");
    assert!(!namespace.progress().failed);
    pool.close().expect("it closes");
}

/// Two files share an object that a failed flush wrote; the first was cut, and is cut off. Power is lost
/// while the second still counts on the object: nobody ever freed it.
#[test]
fn r17_an_object_that_only_memory_counted_on_is_freed_after_a_crash() {
    let machine = machine(6);
    let pool = open(&machine, OpenOptions::default());
    let namespace = &pool.namespace;
    let [first, second, large] = ["first", "second", "large"].map(|name| make(namespace, name));
    write(namespace, first, 0, &content(1, 5000));
    write(namespace, second, 0, &content(2, 5000));
    write_in_strides(namespace, large);
    // The first objects are written; for the others there is no room.
    let held = fail_the_next_flush(&machine, &pool);
    namespace.fsync(first).expect("it was written");
    resize(namespace, first, 0);
    namespace.fsync(first).expect("it needs no room");
    assert_eq!(namespace.audit().expect("it reads").intents, 1, "the second file counts on it");
    let images = crash_images(&machine, &mut Random::new(14));
    drop(held);
    machine.world.clear();
    let machine = SimMachine::with_images(15, images);
    let pool = open(&machine, OpenOptions::default());
    assert_clean(&pool.namespace, "after the crash");
    pool.close().expect("it closes");
}
