//! Every bug that a random run found, as the few operations that show it. Named after what was wrong.

use isotherm::model::{Kind, Rename, Reserve, XattrMode};

use super::crash::{Effort, Machine, run};
use super::harness::Harness;
use super::machine::{Engine, SHAPE};
use super::ops::{At, Op, Set};
use super::shelf::Shape;

/// Without a crash.
fn plain(ops: &[Op]) {
    SHAPE.set(Shape::WIDE);
    let run = |ops| Harness::new(Engine::create(1)?)?.run(ops);
    if let Err(why) = run(ops) {
        panic!("{why}");
    }
}

/// With crashes, as `seed` has them in `crash.rs` and `faults.rs`.
fn crashing(seed: u64, ops: &[Op]) {
    SHAPE.set([Shape::WIDE, Shape::SPARE, Shape::MIRROR][seed as usize % 3]);
    if let Err(why) = run::<Engine>(seed, ops, Effort::USUAL) {
        panic!("{why}");
    }
}

fn file(name: u32) -> Op {
    Op::Make { dir: 0, name, kind: Kind::File, mode: 0o644, who: 0 }
}

/// conformance, seed 1.
#[test]
fn the_second_file_had_the_number_of_the_root() {
    plain(&[file(4), file(5)]);
}

/// conformance, seed 1: the reaper passed over it while it was flushed, and was not woken.
#[test]
fn a_file_deleted_while_it_was_flushed_stayed() {
    plain(&[
        file(4),
        Op::Replace { entry: 0, length: 4096, fill: 1, fsync: true },
        Op::Write { file: 0, at: At::Byte(1), length: 3, fill: 3, kill: false },
        Op::Unlink { entry: 0 },
        Op::Sync,
    ]);
}

/// conformance, seed 1: only ctime moved.
#[test]
fn fallocate_moves_both_times() {
    plain(&[
        file(4),
        Op::Allocate { file: 0, at: 0, length: 1, how: Reserve::KeepSize, kill: false },
    ]);
}

/// conformance, seed 6: the directory's times moved.
#[test]
fn exchanging_a_name_with_itself_changes_nothing() {
    plain(&[file(4), Op::RenameOver { entry: 0, over: 0, mode: Rename::Exchange }]);
}

/// conformance, seed 7: answered that it was a loop.
#[test]
fn exchanging_with_a_missing_name_below_itself() {
    plain(&[
        Op::Make { dir: 0, name: 4, kind: Kind::Directory, mode: 0o755, who: 0 },
        Op::Rename { entry: 0, dir: 1, name: 5, mode: Rename::Exchange },
    ]);
}

/// determinism, seed 2: only regular files lost them.
#[test]
fn a_new_owner_takes_suid_from_anything_but_directories() {
    plain(&[
        Op::Make { dir: 0, name: 4, kind: Kind::Fifo, mode: 0o6755, who: 0 },
        Op::Set { inode: 1, set: Set::Owner(Some(3), Some(1)) },
    ]);
}

/// faults, seed 1: Linux passes such names on; the daemon panicked.
#[test]
fn a_name_too_long_is_refused_wherever_it_comes() {
    plain(&[Op::Missing { dir: 0, name: 2 }]);
}

/// conformance, seed 117690158678062: a directory that is open and gone has no names, short or long.
#[test]
fn in_a_directory_that_is_gone_nothing_is_found() {
    plain(&[
        Op::Make { dir: 0, name: 0, kind: Kind::Directory, mode: 0o755, who: 0 },
        Op::Open { inode: 1 },
        Op::Rmdir { directory: 0 },
        Op::Missing { dir: 1, name: 2 },
        Op::Missing { dir: 1, name: 3 },
        Op::Make { dir: 1, name: 2, kind: Kind::Directory, mode: 0o755, who: 0 },
        Op::Make { dir: 1, name: 2, kind: Kind::Symlink, mode: 0o755, who: 0 },
        file(3),
        Op::Rename { entry: 0, dir: 1, name: 2, mode: Rename::Replace },
        Op::Link { inode: 2, dir: 1, name: 2 },
    ]);
}

/// faults, seed 1: the attribute was in the log, the data written before it was not [I2].
/// docs/semantics.md: "A namespace operation on an inode never survives without the data written to that inode"
#[test]
fn an_attribute_does_not_overtake_data() {
    let mut ops = vec![file(4)];
    for fill in 0..12 {
        ops.push(Op::Write { file: 0, at: At::End, length: 70_000, fill, kill: false });
        let mode = XattrMode::Any;
        ops.push(Op::SetXattr { inode: 1, name: fill as u32, length: 25, fill, mode });
        // Its fsync takes what is in the open batch with it.
        ops.push(Op::Fsync { inode: 0 });
    }
    (1..=3).for_each(|seed| crashing(seed, &ops));
}

/// faults, seed 117651291504690: a checkpoint passed bytes that only the log had, because they had been cut
/// off in memory; the cut itself was not durable [R10]. The old size was found, with zeros.
#[test]
fn a_checkpoint_waits_for_what_was_cut_off() {
    let ops = [
        Op::Make {
            dir: 4003396541,
            name: 2852846464,
            kind: Kind::File,
            mode: 0o644,
            who: 405971013,
        },
        Op::Replace { entry: 1061168641, length: 49142, fill: 15952309252476948966, fsync: true },
        Op::Fsync { inode: 647858466 },
        Op::Truncate { file: 4201207495, size: 0, kill: true },
        Op::Pass { ms: 38 },
        Op::Pass { ms: 6728 },
        Op::Read { file: 2900265747, at: 4095, length: 4096 },
    ];
    crashing(117651291504690, &ops);
}

/// crash, seed 117651291701253: the same, with bytes overwritten.
#[test]
fn a_checkpoint_waits_for_what_was_overwritten() {
    let directory = |dir, name, mode| Op::Make { dir, name, kind: Kind::Directory, mode, who: 0 };
    let ops = [
        directory(2350935948, 2938231914, 493),
        directory(2602179863, 674453839, 493),
        directory(4157599948, 569334233, 493),
        directory(822796059, 1392917396, 420),
        Op::Make {
            dir: 3708458000,
            name: 1953456224,
            kind: Kind::File,
            mode: 420,
            who: 3013944087,
        },
        Op::Make { dir: 3735059292, name: 661702508, kind: Kind::File, mode: 420, who: 4096670584 },
        Op::Make {
            dir: 2362205340,
            name: 2996684313,
            kind: Kind::File,
            mode: 3193,
            who: 1183144122,
        },
        Op::Make { dir: 3811136616, name: 3761389079, kind: Kind::File, mode: 420, who: 673156671 },
        Op::Write {
            file: 2849940006,
            at: At::Byte(4096),
            length: 12288,
            fill: 857760295980556001,
            kill: true,
        },
        Op::RenameOver { entry: 1366275746, over: 2647771077, mode: Rename::Exchange },
        Op::Write {
            file: 1568670986,
            at: At::Byte(2),
            length: 49141,
            fill: 8975944311257480624,
            kill: false,
        },
        Op::Pass { ms: 4598 },
        Op::Sync,
    ];
    crashing(117651291701253, &ops);
}
