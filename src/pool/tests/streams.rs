//! Files read in order, in whole pools on simulated disks: how much is read, and what is still read
//! when more is lost than the redundancy bears.

use crate::base::units::MIB;
use crate::base::{Ino, Random};
use crate::fleet::disk::Disk;
use crate::format::Redundancy;
use crate::namespace::{Caller, FileKind, Namespace, NamespaceError, NewInode, ReadBuffer};
use crate::pool::open::{OpenOptions, OpenPool};
use crate::pool::simulated::SimMachine;

const FILE: NewInode = NewInode { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };
const BYTES: usize = 40 << 20;

/// A machine whose pool holds one file, flushed, and opened again so that nothing is cached.
fn with_file(seed: u64, cache_bytes: u64) -> (SimMachine, OpenPool, Ino, Vec<u8>) {
    let machine = SimMachine::new(seed, &[256 * MIB; 6]);
    machine.create(Redundancy::Erasure { data: 3, parity: 2 });
    let mut content = vec![0; BYTES];
    Random::new(seed).fill(&mut content);
    let pool = machine.open(OpenOptions::default()).expect("the pool opens");
    let namespace = &pool.namespace;
    let ino = namespace.mknod(Ino::ROOT, b"file", &FILE, Caller::default()).expect("it is new").ino;
    for (index, part) in content.chunks(1 << 20).enumerate() {
        namespace.write(ino, (index << 20) as u64, part, false, false).expect("there is room");
    }
    pool.close().expect("it closes");
    let mut options = OpenOptions::default();
    options.namespace.cache_bytes = cache_bytes;
    let pool = machine.open(options).expect("it opens again");
    let ino = pool.namespace.lookup(Ino::ROOT, b"file").expect("it is there").ino;
    // Where its reader is, is known of files that are open.
    pool.namespace.open(ino, false, Caller::default()).expect("it opens");
    (machine, pool, ino, content)
}

fn read(
    namespace: &Namespace,
    ino: Ino,
    offset: usize,
    size: usize,
) -> Result<Vec<u8>, NamespaceError> {
    let mut bytes = Vec::new();
    namespace.read(ino, offset as u64, size as u32, &mut bytes)?;
    Ok(bytes)
}

fn bytes_read(machine: &SimMachine) -> u64 {
    machine.disks.iter().map(|disk| disk.counters().read_bytes).sum()
}

/// As the kernel's read-ahead asks: windows in order, the requests of a window in any order.
fn stream_order(random: &mut Random, request: usize) -> Vec<usize> {
    let mut order = Vec::new();
    for window in (0..BYTES).step_by(8 << 20) {
        let mut requests: Vec<usize> =
            (window..BYTES.min(window + (8 << 20))).step_by(request).collect();
        while !requests.is_empty() {
            order.push(requests.swap_remove(random.below(requests.len() as u64) as usize));
        }
    }
    order
}

#[test]
fn a_stream_reads_every_byte_from_the_disks_once() {
    for (seed, cache_bytes) in [(1, 128 * MIB), (2, 64 * MIB), (3, 32 * MIB)] {
        let (machine, pool, ino, content) = with_file(seed, cache_bytes);
        let before = bytes_read(&machine);
        for offset in stream_order(&mut Random::new(seed), 1 << 20) {
            let bytes = read(&pool.namespace, ino, offset, 1 << 20).expect("all disks work");
            assert!(bytes == content[offset..offset + bytes.len()], "[I4] seed {seed} at {offset}");
        }
        let read = bytes_read(&machine) - before;
        let most = BYTES as u64 + 8 * MIB;
        assert!(pool.namespace.progress().cache_bytes > 0, "it was a stream, seed {seed}");
        assert!(read <= most, "{read} bytes of the disks for {BYTES}, seed {seed}");
        assert!(pool.namespace.progress().cache_bytes <= cache_bytes, "[R27]");
        pool.close().expect("it closes");
    }
}

/// An object lies in one piece of memory: only requests that go into the next object are copied.
#[test]
fn what_a_stream_reads_is_lent_and_not_copied() {
    let (_machine, pool, ino, content) = with_file(6, 64 * MIB);
    let (mut lent, mut requests) = (0, 0);
    for offset in (0..BYTES).step_by(1 << 20) {
        let mut bytes = ReadBuffer::default();
        pool.namespace.read_shared(ino, offset as u64, 1 << 20, &mut bytes).expect("it reads");
        assert!(*bytes.bytes() == content[offset..offset + bytes.bytes().len()], "at {offset}");
        lent += usize::from(bytes.is_lent());
        requests += 1;
    }
    // Objects of 6 MiB, begun 4 KiB earlier each: one request in six goes into the next one.
    assert!(lent * 10 >= requests * 8, "{lent} of {requests}");
    pool.close().expect("it closes");
}

#[test]
fn a_cache_without_room_for_objects_still_reads() {
    let (_machine, pool, ino, content) = with_file(4, 4 * MIB);
    for offset in stream_order(&mut Random::new(4), 1 << 20) {
        let bytes = read(&pool.namespace, ino, offset, 1 << 20).expect("all disks work");
        assert!(bytes == content[offset..offset + bytes.len()], "[I4] at {offset}");
    }
    pool.close().expect("it closes");
}

/// A stream fetches whole objects, and those cannot be had: what their good shards hold can.
#[test]
fn i6_a_stream_reads_what_the_surviving_shards_hold() {
    let (machine, pool, ino, content) = with_file(5, 128 * MIB);
    let namespace = &pool.namespace;
    // So that the index is in memory: what is lost here is data.
    read(namespace, ino, BYTES / 2, 4096).expect("all disks work");
    for disk in &machine.disks[..3] {
        disk.detach();
    }
    const STEP: usize = 128 << 10;
    let alone = |offset| {
        // Far from the read before: no stream.
        let _ = read(namespace, ino, (offset + BYTES / 2) % BYTES, 1);
        read(namespace, ino, offset, STEP)
    };
    let survivors: Vec<usize> =
        (0..BYTES).step_by(STEP).filter(|&offset| alone(offset).is_ok()).collect();
    assert!(!survivors.is_empty() && survivors.len() < BYTES / STEP);
    let in_order: Vec<usize> = (0..BYTES)
        .step_by(STEP)
        .filter(|&offset| match read(namespace, ino, offset, STEP) {
            Ok(bytes) => {
                assert!(bytes == content[offset..offset + STEP], "[I4] at {offset}");
                true
            }
            Err(_) => false,
        })
        .collect();
    assert_eq!(in_order, survivors);
}
