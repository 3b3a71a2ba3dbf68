//! Joining on simulated pools: what lies in pieces and is read in order is written anew, and nothing else
//! changes.

use std::time::Duration;

use super::files::{content, machine, make, open, read, resize, write};
use super::reclaim::{by_hand, crashed, finish};
use crate::base::{Ino, MIB, Random};
use crate::fleet::disk::Disk;
use crate::namespace::Namespace;
use crate::pool::open::{OpenOptions, OpenPool};
use crate::pool::simulated::SimMachine;

const BYTES: usize = 24 * MIB as usize;
const BLOCK: usize = 4096;

/// A file that was written in order, then in 1,500 blocks; with what is in it.
fn in_pieces(pool: &OpenPool, seed: u64) -> (Ino, Vec<u8>) {
    let namespace = &pool.namespace;
    let ino = make(namespace, "file");
    let mut bytes = content(seed, BYTES);
    write(namespace, ino, 0, &bytes);
    namespace.sync().expect("it syncs");
    let mut random = Random::new(seed);
    for round in 0..1500 {
        let at = random.below((BYTES / BLOCK) as u64) as usize * BLOCK;
        let block = content(seed + 1 + round, BLOCK);
        bytes[at..at + BLOCK].copy_from_slice(&block);
        write(namespace, ino, at as u64, &block);
    }
    namespace.sync().expect("it syncs");
    (ino, bytes)
}

fn read_in_order(namespace: &Namespace, ino: Ino) -> Vec<u8> {
    let handle = namespace.open(ino, false, super::files::ROOT_USER).expect("it opens");
    let parts = (0..BYTES as u64 / MIB).map(|at| read(namespace, ino, at * MIB, MIB as u32));
    let bytes = parts.collect::<Vec<_>>().concat();
    namespace.release(handle).expect("it closes");
    bytes
}

/// Read requests of all disks together.
fn requests(machine: &SimMachine) -> u64 {
    machine.disks.iter().map(|disk| disk.counters().reads).sum()
}

/// Reads it in order with cold caches; how many requests that takes.
fn cold_read(machine: &SimMachine, ino: Ino, bytes: &[u8]) -> u64 {
    let pool = open(machine, by_hand());
    let before = requests(machine);
    assert!(read_in_order(&pool.namespace, ino) == bytes, "every byte is what was written");
    let reads = requests(machine) - before;
    pool.close().expect("it closes");
    reads
}

#[test]
fn a_file_in_pieces_that_is_read_in_order_is_written_anew() {
    let machine = machine(41);
    let pool = open(&machine, by_hand());
    let (ino, bytes) = in_pieces(&pool, 41);
    pool.close().expect("it closes");
    let pool = open(&machine, OpenOptions::default());
    let before = requests(&machine);
    assert!(read_in_order(&pool.namespace, ino) == bytes);
    let in_pieces = requests(&machine) - before;
    machine.world.run_for(Duration::from_secs(20));
    assert!(read_in_order(&pool.namespace, ino) == bytes);
    assert_eq!(pool.namespace.next_ragged(), None, "what was joined is not joined again");
    pool.close().expect("it closes");
    let joined = cold_read(&machine, ino, &bytes);
    println!("{in_pieces} requests in pieces, {joined} when it was joined");
    assert!(joined * 8 < in_pieces, "{joined} of {in_pieces} requests are left");
}

#[test]
fn r20_what_is_written_while_it_is_joined_stands() {
    let machine = machine(42);
    let pool = open(&machine, by_hand());
    let namespace = &pool.namespace;
    let (ino, mut bytes) = in_pieces(&pool, 42);
    let mut random = Random::new(42);
    for window in 0..2 {
        let begun = namespace.begin_rejoin(ino, window * 12 * MIB).expect("it begins");
        let begun = begun.expect("it lies in pieces");
        for round in 0..200 {
            let at = random.below((BYTES / BLOCK) as u64) as usize * BLOCK;
            let block = content(9000 + round, BLOCK);
            bytes[at..at + BLOCK].copy_from_slice(&block);
            write(namespace, ino, at as u64, &block);
            if round == 100 {
                namespace.sync().expect("it syncs");
            }
        }
        finish(namespace, begun);
    }
    assert!(read_in_order(namespace, ino) == bytes);
    assert!(namespace.begin_rejoin(ino, 96 * MIB).expect("beyond its end").is_none());
    namespace.unlink(Ino::ROOT, b"file").expect("it is there");
    namespace.forget(ino, 1);
    namespace.sync().expect("it syncs");
    machine.world.run_for(Duration::from_secs(10));
    assert!(namespace.begin_rejoin(ino, 0).expect("it is gone").is_none());
    pool.close().expect("it closes");
}

#[test]
fn a_crash_while_it_is_joined_loses_nothing() {
    for steps in 0..4 {
        let machine = machine(50 + steps);
        let pool = open(&machine, by_hand());
        let (ino, bytes) = in_pieces(&pool, 50 + steps);
        let namespace = &pool.namespace;
        let begun = namespace.begin_rejoin(ino, 0).expect("it begins");
        let mut compaction = begun.expect("it lies in pieces");
        for step in 0..steps {
            namespace.go_on(&mut compaction).expect("it moves");
            if step % 2 == 1 {
                namespace.sync().expect("it syncs");
            }
        }
        let after = crashed(&machine, steps);
        let pool = open(&after, by_hand());
        assert!(read_in_order(&pool.namespace, ino) == bytes, "after {steps} steps");
        pool.close().expect("it closes");
    }
}

/// Holes keep it in pieces; it is not written anew each time it is read.
#[test]
fn a_sparse_file_is_joined_once() {
    let machine = machine(43);
    let pool = open(&machine, OpenOptions::default());
    let namespace = &pool.namespace;
    let ino = make(namespace, "file");
    let mut bytes = vec![0; BYTES];
    for at in (0..BYTES).step_by(4 * BLOCK) {
        let block = content(at as u64, BLOCK);
        bytes[at..at + BLOCK].copy_from_slice(&block);
        write(namespace, ino, at as u64, &block);
        if at % (16 * BLOCK) == 0 {
            namespace.sync().expect("each has an object of its own");
        }
    }
    namespace.sync().expect("it syncs");
    resize(namespace, ino, BYTES as u64);
    assert!(read_in_order(namespace, ino) == bytes);
    machine.world.run_for(Duration::from_secs(20));
    let moved = namespace.progress().moved_bytes;
    for _ in 0..3 {
        assert!(read_in_order(namespace, ino) == bytes);
        machine.world.run_for(Duration::from_secs(20));
    }
    assert!(moved > 0, "it was joined once");
    assert_eq!(namespace.progress().moved_bytes, moved, "and not again");
    pool.close().expect("it closes");
}
