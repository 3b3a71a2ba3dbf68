//! Reclaim where room, log, and disks are at their limits.

use std::time::Duration;

use super::reclaim::{USER, by_hand, read};
use crate::base::{Ino, MIB, Random};
use crate::format::Redundancy;
use crate::namespace::{FileKind, Namespace, NamespaceError, NewInode};
use crate::pool::simulated::SimMachine;

const FILE: NewInode = NewInode { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };

fn pool_of(seed: u64, disks: &[u64], redundancy: Redundancy) -> SimMachine {
    let machine = SimMachine::new(seed, disks);
    machine.create(redundancy);
    machine
}

fn content(file: u64, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    Random::new(file).fill(&mut content);
    content
}

fn make(namespace: &Namespace, name: &str, bytes: &[u8]) -> Result<Ino, NamespaceError> {
    let ino = namespace.mknod(Ino::ROOT, name.as_bytes(), &FILE, USER)?.ino;
    namespace.write(ino, 0, bytes, false, false)?;
    Ok(ino)
}

fn remove(namespace: &Namespace, name: &str, ino: Ino) {
    namespace.unlink(Ino::ROOT, name.as_bytes()).expect("it is there");
    namespace.forget(ino, 1);
}

/// [R22] Free space in runs that no shard fits: nothing is accepted for it, and compaction makes
/// long runs of it.
#[test]
fn r22_what_is_accepted_can_be_placed_in_the_shortest_runs() {
    let machine = pool_of(2, &[256 * MIB; 2], Redundancy::Replica { copies: 2 });
    let pool = machine.open(by_hand()).expect("the pool opens");
    let namespace = &pool.namespace;
    let large = make(namespace, "large", &[]).expect("it is new");
    let block = vec![7; MIB as usize];
    for at in 0..150 {
        namespace.write(large, at * MIB, &block, false, false).expect("there is room");
    }
    namespace.sync().expect("it syncs");
    let small = |file: u64| content(file, 12_200);
    let mut files = Vec::new();
    for file in 0..3600 {
        match make(namespace, &format!("f{file}"), &small(file)) {
            Ok(ino) => files.push((file, ino)),
            Err(_) => break,
        }
        namespace.sync().expect("it syncs");
    }
    let (gone, kept): (Vec<_>, Vec<_>) = files.into_iter().partition(|(file, _)| file % 2 == 0);
    for (file, ino) in gone {
        remove(namespace, &format!("f{file}"), ino);
    }
    machine.world.run_for(Duration::from_secs(12));
    namespace.sync().expect("it syncs");
    let mut written = 0;
    let more = make(namespace, "more", &[]).expect("it is new");
    while namespace.write(more, written, &block[..64 << 10], false, false).is_ok() {
        written += 64 << 10;
        if written % MIB == 0 {
            namespace.sync().unwrap_or_else(|error| {
                panic!("{error} after {written}: {:?}", namespace.statfs())
            });
        }
    }
    namespace.sync().expect("what was accepted is written");
    for (file, ino) in kept {
        assert!(read(namespace, ino) == small(file), "file {file}");
    }
    pool.close().expect("it closes");
}
