//! Reclaim where room, log, and disks are at their limits.

use std::time::Duration;

use super::files::take_room;
use super::reclaim::{USER, by_hand, crashed, finish, read, survey};
use crate::base::{Clock, Ino, MIB, ObjectId, Random};
use crate::fleet::ReserveLevel;
use crate::format::{DiskLayout, Key, ObjectRecord, Redundancy};
use crate::namespace::{Allocate, FileKind, Namespace, NamespaceError, NewInode};
use crate::pool::open::{OpenOptions, OpenPool};
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

fn objects(namespace: &Namespace) -> Vec<ObjectId> {
    survey(namespace).iter().map(|(object, _)| *object).collect()
}

/// Small files are aligned in their object: that is not room that could be had.
#[test]
fn what_cannot_be_packed_any_denser_is_left_alone() {
    for bytes in [41, 700, 5000] {
        let machine = pool_of(1, &[256 * MIB; 6], Redundancy::Erasure { data: 3, parity: 2 });
        let pool = machine.open(by_hand()).expect("the pool opens");
        let namespace = &pool.namespace;
        for file in 0..1500 {
            make(namespace, &format!("f{file}"), &content(file, bytes)).expect("there is room");
            if file % 100 == 99 {
                namespace.sync().expect("it syncs");
            }
        }
        namespace.sync().expect("it syncs");
        let begun = namespace.begin_compaction(&objects(namespace), 5).expect("it begins");
        finish(namespace, begun.expect("many small objects become few"));
        let packed = objects(namespace);
        let free = namespace.statfs().free_bytes;
        for _ in 0..3 {
            if let Some(again) =
                namespace.begin_compaction(&objects(namespace), 5).expect("it looks")
            {
                finish(namespace, again);
            }
        }
        let gained = namespace.statfs().free_bytes as i64 - free as i64;
        assert_eq!(objects(namespace), packed, "{bytes} bytes each: copied, {gained} bytes gained");
        pool.close().expect("it closes");
    }
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
    assert!(written > 0, "half of what lay there is free");
    for (file, ino) in kept {
        assert!(read(namespace, ino) == small(file), "file {file}");
    }
    pool.close().expect("it closes");
}

const CHUNKS: u64 = 130;
const PIECES: u64 = 1500;

/// A pool with two files, "kept" and "gone", of very many extents each, in the same objects.
fn many_extents(seed: u64) -> (SimMachine, OpenPool, [Ino; 2]) {
    let machine = pool_of(seed, &[256 * MIB; 6], Redundancy::Erasure { data: 3, parity: 2 });
    let mut options = by_hand();
    options.namespace.dirty_bytes_max = 64 * MIB;
    let pool = machine.open(options).expect("the pool opens");
    let namespace = &pool.namespace;
    let inos = ["kept", "gone"].map(|name| make(namespace, name, &[]).expect("it is new"));
    for chunk in 0..CHUNKS {
        for piece in 0..PIECES {
            let at = (chunk * PIECES + piece) * 128;
            for ino in inos {
                namespace.write(ino, at, &at.to_le_bytes(), false, false).expect("there is room");
            }
        }
        namespace.sync().expect("it syncs");
    }
    namespace.checkpoint().expect("it works");
    (machine, pool, inos)
}

/// The log is filled nearly to where a checkpoint begins; then disks hang, and a checkpoint takes as
/// long as they are waited for.
fn fill_log_and_hang(machine: &SimMachine, pool: &OpenPool) {
    let namespace = &pool.namespace;
    let other = make(namespace, "other", &[]).expect("it is new");
    while pool.journal.as_ref().expect("it is open").fill_percent() < 46 {
        namespace.write(other, 0, &content(9, 200 << 10), false, false).expect("there is room");
        namespace.fsync(other).expect("it syncs");
    }
    machine.disks[1].set_hang(true);
    machine.disks[2].set_hang(true);
}

/// [R10, I5] Moving extents goes into the log like all else: it waits for the checkpoint that makes room
/// there, however late that is.
#[test]
fn r10_moving_leaves_the_log_to_those_who_empty_it() {
    let (machine, pool, [kept, gone]) = many_extents(3);
    let namespace = &pool.namespace;
    remove(namespace, "gone", gone);
    machine.world.run_for(Duration::from_secs(12));
    namespace.sync().expect("it syncs");
    namespace.checkpoint().expect("it works");
    let victims = objects(namespace);
    let begun = namespace.begin_compaction(&victims, 5).expect("it begins");
    let mut compaction = begun.expect("half is dead");
    fill_log_and_hang(&machine, &pool);
    let mut steps = 0;
    while !namespace.go_on(&mut compaction).expect("it moves") {
        machine.world.run_for(Duration::from_millis(5));
        steps += 1;
        assert!(steps < 20_000, "it never ends");
    }
    namespace.end_compaction(compaction).expect("it ends");
    namespace.sync().expect("the log works");
    assert!(objects(namespace).iter().all(|left| !victims.contains(left)), "all has moved");
    let mut found = Vec::new();
    for piece in (0..CHUNKS * PIECES).step_by(97) {
        found.clear();
        namespace.read(kept, piece * 128, 8, &mut found).expect("it reads");
        assert_eq!(found, (piece * 128).to_le_bytes());
    }
    machine.disks[1].set_hang(false);
    machine.disks[2].set_hang(false);
    pool.close().expect("it closes");
}

/// [R10] Whoever fills the log: flushing starts when half of it is full.
#[test]
fn r10_a_checkpoint_begins_when_half_of_the_log_is_full() {
    let machine = pool_of(9, &[256 * MIB; 6], Redundancy::Erasure { data: 3, parity: 2 });
    let pool = machine.open(by_hand()).expect("the pool opens");
    let namespace = &pool.namespace;
    let ino = make(namespace, "file", &[]).expect("it is new");
    let journal = pool.journal.as_ref().expect("it is open");
    while journal.fill_percent() < 50 {
        namespace.write(ino, 0, &content(9, 200 << 10), false, false).expect("there is room");
        namespace.fsync(ino).expect("it syncs");
    }
    machine.world.run_for(Duration::from_secs(2));
    assert!(journal.fill_percent() < 10, "{} % are full", journal.fill_percent());
    pool.close().expect("it closes");
}

/// Three in four files of objects of all sizes go; what is left moves, whatever the pool is made of.
#[test]
fn pools_of_every_kind_are_compacted() {
    let ec = |data, parity| Redundancy::Erasure { data, parity };
    let replica = |copies| Redundancy::Replica { copies };
    let small = 256 * MIB;
    let kinds: [(&[u64], Redundancy); 6] = [
        (&[small; 1], replica(1)),
        (&[small; 2], replica(2)),
        (&[small, small, 2 * small], replica(3)),
        (&[small, small, small, 3 * small], ec(2, 1)),
        (&[small; 6], ec(3, 2)),
        (&[small; 11], ec(8, 3)),
    ];
    for (seed, (disks, redundancy)) in kinds.into_iter().enumerate() {
        let machine = pool_of(seed as u64, disks, redundancy);
        let pool = machine.open(by_hand()).expect("the pool opens");
        let namespace = &pool.namespace;
        let size = |file: u64| [1, 300, 5000, 70_000, 400_000][file as usize % 5] as usize;
        let mut made = Vec::new();
        for file in 0..200 {
            let ino = make(namespace, &format!("f{file}"), &content(file, size(file)));
            made.push((file, ino.expect("there is room")));
            if file % 23 == 0 {
                namespace.sync().expect("it syncs");
            }
        }
        namespace.sync().expect("it syncs");
        let (kept, gone): (Vec<_>, Vec<_>) = made.into_iter().partition(|(file, _)| file % 4 == 1);
        for (file, ino) in gone {
            remove(namespace, &format!("f{file}"), ino);
        }
        machine.world.run_for(Duration::from_secs(12));
        namespace.sync().expect("it syncs");
        let victims = objects(namespace);
        let begun = namespace.begin_compaction(&victims, 5).expect("it begins");
        finish(namespace, begun.expect("most is dead"));
        let left = objects(namespace);
        assert!(left.iter().all(|object| !victims.contains(object)), "{redundancy:?}");
        check(namespace, &kept, size);
        pool.close().expect("it closes");
        let pool = machine.open(by_hand()).expect("it opens again");
        assert_eq!(pool.replayed, 0, "{redundancy:?}");
        check(&pool.namespace, &kept, size);
        pool.close().expect("it closes");
    }
}

fn check(namespace: &Namespace, kept: &[(u64, Ino)], size: impl Fn(u64) -> usize) {
    for &(file, ino) in kept {
        assert!(read(namespace, ino) == content(file, size(file)), "file {file}");
    }
}

/// [I7] What a user deletes on a full pool can be written again, however little it is.
/// docs/semantics.md: "Reserves are kept for metadata, reclaim and repair"
#[test]
fn i7_a_little_that_was_deleted_can_be_written_again() {
    let machine = pool_of(5, &[256 * MIB; 6], Redundancy::Erasure { data: 3, parity: 2 });
    let mut options = by_hand();
    options.namespace.dirty_bytes_max = 16 * MIB;
    let pool = machine.open(options).expect("the pool opens");
    let namespace = &pool.namespace;
    let size = 48 << 10;
    let mut files = Vec::new();
    loop {
        let file = files.len() as u64;
        match make(namespace, &format!("f{file}"), &content(file, size)) {
            Ok(ino) => files.push((file, ino)),
            Err(error) => {
                assert!(matches!(error, NamespaceError::NoSpace), "{error}");
                break;
            }
        }
    }
    namespace.sync().expect("what was accepted is written");
    // All that is to be had is taken.
    let filler = make(namespace, "filler", &[]).expect("it is new");
    let mut at = 0;
    while namespace.write(filler, at, &[1; 4096], false, false).is_ok() {
        at += 4096;
        if at % (64 << 10) == 0 {
            namespace.sync().expect("it syncs");
        }
    }
    namespace.sync().expect("it syncs");
    // Neighbours: they lie in one object.
    for file in 400..418 {
        remove(namespace, &format!("f{file}"), files[file as usize].1);
    }
    machine.world.run_for(Duration::from_secs(1));
    let ino = make(namespace, "again", &[]).expect("it is new");
    let again = (0..18).take_while(|&file| {
        let bytes = content(file, size);
        namespace.write(ino, file * size as u64, &bytes, false, false).is_ok()
    });
    let again = again.count();
    assert!(again >= 6, "{again} of 18 fit again");
    namespace.sync().expect("it syncs");
    pool.close().expect("it closes");
}

/// A write over many small extents is cut in several transactions; power goes out between them.
#[test]
fn what_was_durable_outlives_a_cut_in_several_transactions() {
    let machine = pool_of(6, &[256 * MIB; 6], Redundancy::Erasure { data: 3, parity: 2 });
    let pool = machine.open(by_hand()).expect("the pool opens");
    let namespace = &pool.namespace;
    let ino = make(namespace, "file", &[]).expect("it is new");
    // Backwards and in two goes: no two neighbours are in one extent.
    const BLOCKS: u64 = 4000;
    for half in 0..2 {
        for block in (0..BLOCKS / 2).rev() {
            let at = (2 * block + half) * 512;
            namespace.write(ino, at, &[1; 512], false, false).expect("there is room");
        }
        namespace.sync().expect("it syncs");
    }
    namespace.checkpoint().expect("it works");
    let bytes = vec![2; (BLOCKS * 512) as usize];
    for (at, part) in bytes.chunks(1 << 20).enumerate() {
        namespace.write(ino, (at << 20) as u64, part, false, false).expect("there is room");
    }
    let mut crashes = Vec::new();
    let other = make(namespace, "other", &[]).expect("it is new");
    let begun = namespace.begin_compaction(&objects(namespace), 0).expect("it begins");
    let mut compaction = begun.expect("there are gaps");
    let mut moving = true;
    let between = || {
        if moving {
            moving = !namespace.go_on(&mut compaction).expect("it moves");
        }
        namespace.write(other, 0, &[1], false, false).expect("there is room");
        namespace.fsync(other).expect("it syncs");
        crashes.push(crashed(&machine, 1));
        true
    };
    namespace.with_steps_of_a_flush(|| {}, || {}, between);
    assert!(crashes.len() > 2, "the cut took several transactions");
    finish(namespace, compaction);
    assert!(read(namespace, ino).iter().all(|&byte| byte == 2), "what was written is read");
    for (number, machine) in crashes.into_iter().enumerate() {
        let pool = machine.open(by_hand()).expect("it opens after a crash");
        let found = read(&pool.namespace, ino_of_name(&pool, b"file"));
        assert_eq!(found.len() as u64, BLOCKS * 512);
        let lost = found.iter().filter(|&&byte| byte == 0).count();
        assert_eq!(lost, 0, "crash {number}: {lost} bytes are neither old nor new");
        machine.world.clear();
        drop(pool);
    }
    machine.world.clear();
    drop(pool);
}

fn ino_of_name(pool: &OpenPool, name: &[u8]) -> Ino {
    pool.namespace.lookup(Ino::ROOT, name).expect("it is there").ino
}

/// [I5] Disks die while it copies and while it moves.
#[test]
fn i5_disks_that_die_meanwhile_are_an_inconvenience() {
    for seed in 0..6u64 {
        let machine =
            pool_of(30 + seed, &[256 * MIB; 6], Redundancy::Erasure { data: 3, parity: 2 });
        let pool = machine.open(by_hand()).expect("the pool opens");
        let namespace = &pool.namespace;
        let size = |_| 48 << 10;
        let mut made = Vec::new();
        for file in 0..240 {
            let ino = make(namespace, &format!("f{file}"), &content(file, size(file)));
            made.push((file, ino.expect("there is room")));
        }
        namespace.sync().expect("it syncs");
        let (kept, gone): (Vec<_>, Vec<_>) = made.into_iter().partition(|(file, _)| file % 3 == 0);
        for (file, ino) in gone {
            remove(namespace, &format!("f{file}"), ino);
        }
        machine.world.run_for(Duration::from_secs(12));
        namespace.sync().expect("it syncs");
        let victims = objects(namespace);
        let die = |at: u64| machine.disks[((seed + at) % 6) as usize].detach();
        if seed % 2 == 0 {
            die(0);
        } else {
            let disk = machine.disks[(seed % 6) as usize].clone();
            machine.world.schedule(
                machine.world.now() + Duration::from_millis(3 * seed),
                Box::new(move || disk.detach()),
            );
        }
        let begun = namespace.begin_compaction(&victims, 10);
        let Ok(Some(compaction)) = begun else { panic!("{seed}: {:?}", begun.err()) };
        die(3);
        finish(namespace, compaction);
        check(namespace, &kept, size);
        let left = objects(namespace);
        assert!(left.iter().all(|object| !victims.contains(object)), "seed {seed}");
        pool.close().expect("it closes");
        let pool = machine.open(by_hand()).expect("it opens again");
        check(&pool.namespace, &kept, size);
        pool.close().expect("it closes");
    }
}

/// Copies that go to splinters take what they free: a pass ends all the same, and says that it found
/// nothing.
#[test]
fn a_pass_that_gains_nothing_ends() {
    let machine = pool_of(7, &[256 * MIB; 2], Redundancy::Replica { copies: 2 });
    let mut options = by_hand();
    options.reclaim.victims_max = 64;
    options.namespace.dirty_bytes_max = 8 * MIB;
    let pool = machine.open(options).expect("the pool opens");
    let namespace = &pool.namespace;
    let mut files = Vec::new();
    for file in 0..4000 {
        // 11 units: dense. 5 units: what the smallest shards of a large file take, too.
        let size = if file % 2 == 0 { 40_900 } else { 16_300 };
        match make(namespace, &format!("f{file}"), &content(file, size)) {
            Ok(ino) => files.push((file, ino)),
            Err(error) => panic!("{error}"),
        }
        namespace.sync().expect("it syncs");
    }
    let (kept, gone): (Vec<_>, Vec<_>) = files.into_iter().partition(|(file, _)| file % 2 == 0);
    let large = make(namespace, "large", &[]).expect("it is new");
    let block = vec![7; MIB as usize];
    let mut written = 0;
    while namespace.write(large, written, &block, false, false).is_ok() {
        written += MIB;
        namespace.sync().expect("it syncs");
    }
    for (file, ino) in gone {
        remove(namespace, &format!("f{file}"), ino);
    }
    machine.world.run_for(Duration::from_secs(12));
    namespace.sync().expect("it syncs");
    let more = make(namespace, "more", &[]).expect("it is new");
    let mut written = 0;
    while namespace.write(more, written, &block[..64 << 10], false, false).is_ok() {
        written += 64 << 10;
        if written % MIB == 0 {
            namespace.sync().unwrap_or_else(|error| {
                panic!("{error} after {written}: {:?}", namespace.statfs())
            });
        }
    }
    assert!(written > 0, "the small ones are gone");
    for (file, ino) in kept {
        assert!(read(namespace, ino) == content(file, 40_900), "file {file}");
    }
    pool.close().expect("it closes");
}

/// [R22] What was deleted a moment ago is room for who writes next, before anything of it was committed.
#[test]
fn r22_what_is_being_freed_counts_before_anybody_is_refused() {
    let machine = pool_of(9, &[256 * MIB; 2], Redundancy::Replica { copies: 2 });
    let pool = machine.open(by_hand()).expect("the pool opens");
    let namespace = &pool.namespace;
    let block = vec![7; MIB as usize];
    let fill = |name: &str, mib: u64| {
        let ino = make(namespace, name, &[]).expect("it is new");
        let put = |at: &u64| namespace.write(ino, at * MIB, &block, false, false).is_ok();
        (ino, (0..mib).take_while(put).count() as u64)
    };
    let (gone, mib) = fill("gone", 40);
    namespace.sync().expect("it syncs");
    let (_, rest) = fill("rest", 1000);
    assert!(mib == 40 && rest > 50 && rest < 1000, "{mib} and {rest} MiB");
    namespace.sync().expect("what was accepted is written");
    remove(namespace, "gone", gone);
    let before = machine.world.now();
    let (_, again) = fill("again", 30);
    let took = machine.world.now().since(before);
    assert_eq!(again, 30, "40 MiB were free");
    println!("{took:?}");
    namespace.sync().expect("it syncs");
    pool.close().expect("it closes");
}

/// What cannot be packed any denser, or not be read, hides nothing that is sparse behind it.
#[test]
fn a_survey_goes_on_behind_what_gains_nothing() {
    let machine = pool_of(8, &[256 * MIB; 6], Redundancy::Erasure { data: 3, parity: 2 });
    let mut options = by_hand();
    options.reclaim.victims_max = 4;
    options.namespace.dirty_bytes_max = 16 * MIB;
    let pool = machine.open(options).expect("the pool opens");
    let namespace = &pool.namespace;
    // Ten objects of files of 5000 bytes, which take 8192; full of them.
    for file in 0..7500 {
        make(namespace, &format!("s{file}"), &content(file, 5000)).expect("there is room");
    }
    namespace.sync().expect("it syncs");
    for _ in 0..3 {
        if let Some(begun) = namespace.begin_compaction(&objects(namespace), 1).expect("it begins")
        {
            finish(namespace, begun);
        }
    }
    let block = vec![7; MIB as usize];
    let mut large = Vec::new();
    'full: for file in 0.. {
        let ino = make(namespace, &format!("l{file}"), &[]).expect("it is new");
        large.push(ino);
        for at in 0..16 {
            if namespace.write(ino, at * MIB, &block, false, false).is_err() {
                break 'full;
            }
        }
    }
    namespace.sync().expect("it syncs");
    // A quarter of each large object dies: they are alive to 75 %, the small files' to 60.
    let mut died = 0;
    for &ino in &large {
        for at in (0..16).step_by(4) {
            namespace.allocate(ino, Allocate::PunchHole, at * MIB, MIB, USER).expect("it works");
            died += MIB;
        }
    }
    namespace.sync().expect("it syncs");
    let ino = make(namespace, "more", &[]).expect("it is new");
    let mut written = 0;
    while namespace.write(ino, written, &block, false, false).is_ok() {
        written += MIB;
    }
    namespace.sync().expect("what was accepted is written");
    let percent = written * 100 / died;
    assert!(percent >= 80, "{percent} % of what died could be written again");
    pool.close().expect("it closes");
}

/// Parts that are split between objects, one piece of very many extents, gaps between neighbours: all of
/// it moves, and nothing of that counts as dead.
#[test]
fn extents_of_every_shape_move() {
    let machine = pool_of(11, &[256 * MIB; 6], Redundancy::Erasure { data: 3, parity: 2 });
    let pool = machine.open(by_hand()).expect("the pool opens");
    let namespace = &pool.namespace;
    let mib = MIB as usize;
    let mut parts = content(1, 24 * mib);
    let mut split = content(2, 6 * mib);
    let write = |ino, offset: usize, bytes: &[u8]| {
        namespace.write(ino, offset as u64, bytes, false, false).expect("there is room");
    };
    let inos = ["parts", "split", "gaps", "gone"].map(|name| make(namespace, name, &[]));
    let [large, many, gaps, gone] = inos.map(|ino| ino.expect("it is new"));
    for at in (0..24 * mib).step_by(mib) {
        write(large, at, &parts[at..at + mib]);
    }
    namespace.sync().expect("it syncs");
    for at in (0..6 * mib).step_by(mib) {
        write(many, at, &split[at..at + mib]);
    }
    namespace.sync().expect("it syncs");
    for at in (0..300 * 8192).step_by(8192) {
        write(gaps, at, &[5; 4096]);
        write(gone, at, &[6; 4096]);
    }
    namespace.sync().expect("it syncs");
    // Objects of 5 MiB: what is left of three of them does not fit into one.
    for (start, end) in [(0, 5), (5, 11), (11, 16), (16, 24)] {
        let hole = start * mib + 5 * mib / 2..end * mib;
        let (start, length) = (hole.start as u64, hole.len() as u64);
        parts[hole].fill(0);
        namespace.allocate(large, Allocate::PunchHole, start, length, USER).expect("it works");
    }
    for at in (0..6 * mib).step_by(4096) {
        split[at..at + 2048].fill(7);
        write(many, at, &[7; 2048]);
    }
    remove(namespace, "gone", gone);
    machine.world.run_for(Duration::from_secs(12));
    namespace.sync().expect("it syncs");
    let victims = survey(namespace);
    let alive: u64 = victims.iter().map(|(_, bytes)| bytes).sum();
    let victims: Vec<ObjectId> = victims.into_iter().map(|(object, _)| object).collect();
    let before = (namespace.room().loose_bytes, namespace.progress().moved_bytes + alive);
    let begun = namespace.begin_compaction(&victims, 0).expect("it begins");
    finish(namespace, begun.expect("much is dead"));
    assert_eq!((namespace.room().loose_bytes, namespace.progress().moved_bytes), before);
    assert!(objects(namespace).iter().all(|left| !victims.contains(left)), "all has moved");
    assert!(read(namespace, large) == parts && read(namespace, many) == split);
    for (at, block) in read(namespace, gaps).chunks(4096).enumerate() {
        assert!(block.iter().all(|&byte| byte == [5, 0][at % 2]), "block {at}");
    }
    assert!(namespace.audit().expect("it reads").is_clean());
    pool.close().expect("it closes");
}

/// One of three victims cannot be read, or its live bytes are miscounted: it stays, the others move.
#[test]
fn a_victim_that_cannot_be_moved_keeps_no_other() {
    let layout = DiskLayout::for_disk(256 * MIB).expect("it is large enough");
    for (broken, rots) in [(0, true), (1, true), (2, true), (0, false), (1, false), (2, false)] {
        let machine = pool_of(12, &[256 * MIB; 6], Redundancy::Erasure { data: 3, parity: 2 });
        let pool = machine.open(by_hand()).expect("the pool opens");
        let namespace = &pool.namespace;
        let size = |_| 48 << 10;
        let mut kept: Vec<Vec<(u64, Ino)>> = Vec::new();
        for group in 0..3 {
            let files = group * 60..(group + 1) * 60;
            let made = files.map(|file| {
                let ino = make(namespace, &format!("f{file}"), &content(file, size(file)));
                (file, ino.expect("there is room"))
            });
            kept.push(made.collect());
            namespace.sync().expect("it syncs");
            for (file, ino) in kept[group as usize].extract_if(.., |(file, _)| *file % 3 != 0) {
                remove(namespace, &format!("f{file}"), ino);
            }
        }
        machine.world.run_for(Duration::from_secs(12));
        namespace.sync().expect("it syncs");
        let victims = survey(namespace);
        assert_eq!(victims.len(), 3);
        let (victim, alive) = victims[broken];
        if rots {
            let kind = Key::object(victim).as_bytes()[0];
            let entries = namespace.entries(kind).into_iter();
            let records = entries.map(|(_, value)| ObjectRecord::decode(&value).expect("valid"));
            let record = records.into_iter().find(|record| record.id == victim);
            for place in record.expect("it is there").places.into_iter().flatten() {
                let start = layout.data_offset(place.offset) + 4096;
                machine.disks[place.disk.as_usize()].add_bad_range(start..start + 4096);
            }
        } else {
            let one_more = (alive as i64 + 1).to_le_bytes().to_vec();
            namespace.plant(&[(Key::live(victim), Some(one_more))], 0);
        }
        let all: Vec<ObjectId> = victims.into_iter().map(|(object, _)| object).collect();
        let begun = namespace.begin_compaction(&all, 5).expect("it begins");
        finish(namespace, begun.expect("two in three are dead"));
        let left = objects(namespace);
        for (at, object) in all.iter().enumerate() {
            assert_eq!(left.contains(object), at == broken, "victim {at} of {broken}, {rots}");
            if !rots || at != broken {
                check(namespace, &kept[at], size);
            }
        }
        pool.close().expect("it closes");
    }
}

/// It is closed while nothing, something, all is moved: nothing is left to be replayed.
#[test]
fn a_pool_is_closed_while_it_compacts() {
    for delay in (0..4000).step_by(250) {
        let machine = pool_of(13, &[256 * MIB; 6], Redundancy::Erasure { data: 3, parity: 2 });
        let mut options = by_hand();
        options.reclaim.look = Duration::from_millis(100);
        options.reclaim.pause = Duration::from_secs(1);
        options.reclaim.loose_bytes_min = 1;
        options.reclaim.worth_percent_min = 90;
        let pool = machine.open(options).expect("the pool opens");
        let namespace = &pool.namespace;
        let size = |_| 48 << 10;
        let mut kept = Vec::new();
        for file in 0..120 {
            let ino = make(namespace, &format!("f{file}"), &content(file, size(file)));
            kept.push((file, ino.expect("there is room")));
        }
        namespace.sync().expect("it syncs");
        for (file, ino) in kept.extract_if(.., |(file, _)| *file % 3 != 0) {
            remove(namespace, &format!("f{file}"), ino);
        }
        machine.world.run_for(Duration::from_millis(delay));
        pool.close().expect("it closes");
        let pool = machine.open(by_hand()).expect("it opens again");
        assert!(!pool.was_unclean && pool.replayed == 0, "after {delay} ms");
        check(&pool.namespace, &kept, size);
        assert!(pool.namespace.audit().expect("it reads").is_clean(), "after {delay} ms");
        pool.close().expect("it closes");
    }
}

/// [R22] However badly dirty data can be placed, it fits a quarter of reclaim's reserve: a small pool
/// accepts less of it.
#[test]
fn r22_a_small_pool_has_little_dirty_data() {
    let machine = pool_of(13, &[256 * MIB; 6], Redundancy::Erasure { data: 3, parity: 2 });
    let pool = machine.open(OpenOptions::default()).expect("the pool opens");
    let namespace = &pool.namespace;
    let most = namespace.statfs().total_bytes * 8 / 100 / 4;
    let ino = make(namespace, "large", &[]).expect("it is new");
    let block = vec![7; MIB as usize];
    let mut dirty = 0;
    for at in 0..100 {
        namespace.write(ino, at * MIB, &block, false, false).expect("there is room");
        dirty = namespace.progress().dirty_bytes.max(dirty);
    }
    assert!(dirty <= most, "{dirty} bytes are dirty, {most} at most");
    assert!(dirty >= most / 4, "{dirty} of {most} bytes: there was little to see");
    pool.close().expect("it closes");
}

/// [I7] Only repair's reserve is left: tables and roots may take it, for without them no delete would
/// ever be in a checkpoint, and the log would fill.
#[test]
fn i7_a_checkpoint_is_written_where_only_repairs_reserve_is_left() {
    let machine = pool_of(14, &[256 * MIB; 6], Redundancy::Erasure { data: 3, parity: 2 });
    let pool = machine.open(by_hand()).expect("the pool opens");
    let namespace = &pool.namespace;
    let ino = make(namespace, "file", &content(1, 9 << 20)).expect("there is room");
    namespace.sync().expect("it syncs");
    let held = take_room(&pool.members, &pool.space, ReserveLevel::Reclaim);
    let root = machine.root().sequence;
    remove(namespace, "file", ino);
    namespace.sync().expect("its end is durable");
    machine.world.run_for(Duration::from_secs(150));
    assert!(machine.root().sequence > root, "no checkpoint in 150 seconds");
    drop(held);
    pool.close().expect("it closes");
}
