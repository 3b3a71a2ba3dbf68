//! Every n-th failure: one life of a pool, again and again, and each time another one of its accesses to the disks
//! fails once, or another one of its requests for space is refused. Nobody above may notice [I5].
//!
//! `ISOTHERM_NTH=1` fails every one; without, one in so many.

use std::time::Duration;

use super::comeback::is_whole;
use super::files::{content, make, resize, write};
use super::reclaim::{finish, survey};
use super::repairs::{Files, compare, fill, machine, options, overwrite, repaired};
use crate::base::{Ino, Random};
use crate::fleet::disk::sim::{Access, Image};
use crate::fleet::disk::{Counters, Disk, DiskError};
use crate::namespace::{Namespace, RenameMode};
use crate::pool::open::OpenPool;
use crate::pool::simulated::SimMachine;

const SEED: u64 = 11;
/// One in so many is tried, without `ISOTHERM_NTH`.
const STEP: u64 = 23;

fn step() -> u64 {
    std::env::var("ISOTHERM_NTH").map_or(STEP, |text| text.parse().expect("a number"))
}

/// A pool with some files in it, closed.
fn base() -> (Vec<(usize, Image)>, Files) {
    let machine = machine(SEED, 6);
    let pool = machine.open(options()).expect("it opens");
    let files = fill(&pool.namespace, SEED);
    pool.close().expect("it closes");
    let images = machine.disks.iter().map(|disk| disk.snapshot().live().clone());
    let images = images.enumerate().collect();
    machine.world.clear();
    (images, files)
}

fn remove(namespace: &Namespace, files: &mut Files, name: &str) {
    namespace.unlink(Ino::ROOT, name.as_bytes()).expect("it is there");
    files.remove(name);
}

/// A bit of everything: new files, overwrites, a truncate, a rename, a delete, all kinds of syncs, a checkpoint,
/// what is not wholly alive moved, and time for the background.
fn life(pool: &OpenPool, files: &mut Files) {
    let namespace = &pool.namespace;
    overwrite(namespace, files, "new".to_string(), &content(1, 2 << 20));
    overwrite(namespace, files, "small".to_string(), &content(2, 3_000));
    let small = namespace.lookup(Ino::ROOT, b"small").expect("it is there").ino;
    namespace.fsync(small).expect("it syncs");
    overwrite(namespace, files, "f0".to_string(), &content(3, 90_000));
    namespace.sync().expect("it syncs");
    remove(namespace, files, "f3");
    resize(namespace, small, 1_000);
    files.get_mut("small").expect("it is there").truncate(1_000);
    let renamed = namespace.rename(Ino::ROOT, b"new", Ino::ROOT, b"f1", RenameMode::Replace);
    renamed.expect("it is there");
    let bytes = files.remove("new").expect("it is there");
    files.insert("f1".to_string(), bytes);
    namespace.checkpoint().expect("it is written");
    let victims: Vec<_> = survey(namespace).iter().map(|(object, _)| *object).collect();
    if let Some(begun) = namespace.begin_compaction(&victims, 1).expect("it begins") {
        finish(namespace, begun);
    }
    let last = make(namespace, "last");
    write(namespace, last, 0, &content(4, 500_000));
    files.insert("last".to_string(), content(4, 500_000));
    namespace.sync().expect("it syncs");
}

/// Opens the pool, lives, closes it, opens it again, and everything is there, and whole. Returns what the disks and
/// the space were asked for until it was closed.
fn whole_life(
    images: &[(usize, Image)],
    files: &Files,
    before: impl FnOnce(&SimMachine),
    opened: impl FnOnce(&OpenPool),
) -> (Vec<Counters>, u64) {
    // Each mount draws other tags for its tables, as on a real machine.
    let machine = SimMachine::with_images(SEED + 1, images.to_vec());
    before(&machine);
    let mut files = files.clone();
    let pool = machine.open(options()).expect("it opens");
    opened(&pool);
    life(&pool, &mut files);
    machine.world.run_for(Duration::from_secs(8));
    compare(&pool.namespace, &files);
    let space = pool.space.clone();
    pool.close().expect("it closes");
    let asked = machine.disks.iter().map(|disk| disk.counters()).collect();
    let requests = space.requests();
    let images = machine.disks.iter().map(|disk| disk.snapshot().crash_image(&mut Random::new(1)));
    let again = SimMachine::with_images(SEED + 2, images.enumerate().collect());
    machine.world.clear();
    let pool = again.open(options()).expect("it opens again");
    compare(&pool.namespace, &files);
    repaired(&again, &pool);
    is_whole(&pool);
    compare(&pool.namespace, &files);
    pool.close().expect("it closes again");
    again.world.clear();
    (asked, requests)
}

#[test]
fn i5_any_access_to_a_disk_may_fail_once() {
    let (images, files) = base();
    let (asked, _) = whole_life(&images, &files, |_| {}, |_| {});
    let (mut tried, mut all) = (0, 0);
    for (disk, counters) in asked.iter().enumerate() {
        let kinds = [
            (Access::Read, counters.reads),
            (Access::Write, counters.writes),
            (Access::Flush, counters.flushes),
        ];
        for (access, count) in kinds {
            all += count;
            for nth in (disk as u64 % step()..count).step_by(step() as usize) {
                println!("disk {disk}: {access:?} {nth} of {count} fails");
                let error = DiskError::Medium { offset: 0 };
                let fail = |machine: &SimMachine| machine.disks[disk].fail_nth(access, nth, error);
                whole_life(&images, &files, fail, |_| {});
                tried += 1;
            }
        }
    }
    println!("{tried} of {all} accesses failed once, each in a life of its own");
    assert!(tried >= 20 && tried >= all / step(), "{tried} of {all}");
}

#[test]
fn r22_any_request_for_space_may_be_refused_once() {
    let (images, files) = base();
    let (_, requests) = whole_life(&images, &files, |_| {}, |_| {});
    let mut tried = 0;
    for nth in (0..requests).step_by(step() as usize) {
        println!("request {nth} of {requests} is refused");
        whole_life(&images, &files, |_| {}, |pool| pool.space.refuse(nth));
        tried += 1;
    }
    println!(
        "{tried} of {requests} requests for space were refused once, each in a life of its own"
    );
    assert!(tried >= 3, "{tried} of {requests}");
}
