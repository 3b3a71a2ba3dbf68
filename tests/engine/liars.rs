//! Disks that lie about their flushes, more of them than redundancy covers, and then the power goes.
//!
//! What they claimed to have is lost, and nobody can help that. But the pool still mounts, for reading at
//! least; what was not lost reads; and whatever reads is what was once written there, never anything
//! else: the rest is an error [I4, I6]. A pool that is only read writes nothing.
//!
//! The index has m + 2 copies: only with more liars than m + 1 may it be lost as a whole, and a mount
//! be refused.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use isotherm::base::{Clock, Ino, Random};
use isotherm::fleet::disk::Disk;
use isotherm::model::{Caller, Content, Kind, New, Subject};
use isotherm::pool::open::ReadOnly;

use super::crash::{How, Machine};
use super::file_system::Ground;
use super::harness::{Finding, Harness};
use super::machine::{Engine, RECLAIMS, SHAPE, SimPool};
use super::ops::{Mix, Op, generate};
use super::runs::with_seeds;
use super::shelf::{Shape, Shelf, ShelfSnapshot};
use super::target::{Failure, Target};

/// Everything that a file ever held, with its size, by the target's inode number.
type Versions = BTreeMap<Ino, Vec<(u64, Content)>>;

/// Longer than the time between two checkpoints.
const CHECKPOINT_MS: u64 = 61_000;
/// One read.
const READ_BYTES: u64 = 1 << 16;

/// What became of the pools, and what was found in them.
#[derive(Default, Debug)]
struct Tally {
    writable: u32,
    log_lost: u32,
    damaged: u32,
    refused: u32,
    files: u32,
    errors: u32,
    whole: u32,
}

/// The disks of a life, and how many of them lie.
struct Liars {
    disks: Vec<usize>,
    /// So many that the index may be lost.
    too_many: bool,
}

impl Liars {
    fn draw(random: &mut Random, shape: Shape) -> Liars {
        let all = shape.disks_mib.len();
        let few = shape.margin() + 1;
        let count = if random.one_in(2) {
            few
        } else {
            few + random.below((all - few + 1) as u64) as usize
        };
        let mut disks: Vec<usize> = (0..all).collect();
        for at in (1..all).rev() {
            disks.swap(at, random.below(at as u64 + 1) as usize);
        }
        disks.truncate(count);
        Liars { disks, too_many: count > few }
    }
}

/// Mounts what the crash left; None if it is refused, which is a finding unless the index may be lost.
fn mount(
    snapshot: &ShelfSnapshot,
    seed: u64,
    liars: &Liars,
    tally: &mut Tally,
) -> Result<Option<Engine>, Finding> {
    let how = How { seed, missing: 0, snapshot_in: None };
    let engine = match SimPool::open_somehow(Shelf::recover(snapshot, how)) {
        Ok(engine) => engine,
        Err(why) if liars.too_many && why.contains("every copy of it is lost") => {
            tally.refused += 1;
            return Ok(None);
        }
        Err(why) => return Err(format!("recovered with {how:?}: {why}")),
    };
    match engine.ground.pool.as_ref().map(|pool| pool.read_only) {
        Some(ReadOnly::No) => {
            tally.writable += 1;
            // Of what can be read: a table may be lost with the liars.
            match engine.ground.audit() {
                Err(why) if why.starts_with("R18") => return Err(why),
                _ => {}
            }
        }
        Some(ReadOnly::LogLost) => tally.log_lost += 1,
        Some(ReadOnly::Damaged) => tally.damaged += 1,
        other => return Err(format!("no disk is missing, and yet {other:?}")),
    }
    Ok(Some(engine))
}

/// Runs `look`, which only reads: if the pool is mounted for reading only, no disk is written to.
fn only_looking<A>(
    engine: &mut Engine,
    look: impl FnOnce(&mut Engine) -> Result<A, Finding>,
) -> Result<A, Finding> {
    let written = |engine: &Engine| -> u64 {
        engine.ground.shelf.disks().into_iter().map(|(_, disk)| disk.counters().written_bytes).sum()
    };
    let before = written(engine);
    let answer = look(engine)?;
    engine.pass(CHECKPOINT_MS);
    let read_only = engine.ground.pool.as_ref().is_some_and(|p| p.read_only != ReadOnly::No);
    let after = written(engine);
    if read_only && before != after {
        return Err(format!("I6: {} bytes written to a pool that is only read", after - before));
    }
    Ok(answer)
}

/// Everything that can be reached reads as something that was once there, or not at all.
fn walk(engine: &mut Engine, versions: &Versions, tally: &mut Tally) -> Result<(), Finding> {
    let mut directories = vec![Ino::ROOT];
    let mut seen = Vec::new();
    while let Some(dir) = directories.pop() {
        // Beyond loss a directory may have two names: not more than once here.
        if seen.contains(&dir) {
            continue;
        }
        seen.push(dir);
        let Ok(names) = engine.list(dir) else {
            tally.errors += 1;
            continue;
        };
        for (name, ino, kind) in names {
            match kind {
                Kind::Directory => directories.push(ino),
                Kind::File => read_file(engine, ino, versions, tally)
                    .map_err(|why| format!("{}: {why}", name.escape_ascii()))?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn read_file(
    engine: &mut Engine,
    ino: Ino,
    versions: &Versions,
    tally: &mut Tally,
) -> Result<(), Finding> {
    tally.files += 1;
    let Ok((body, _)) = engine.stat(ino) else {
        tally.errors += 1;
        return Ok(());
    };
    let none = Vec::new();
    let versions = versions.get(&ino).unwrap_or(&none);
    // Holes beyond what was ever written need not be read.
    let end = versions.iter().map(|(size, _)| *size).max().unwrap_or(0).min(body.size);
    for start in (0..end).step_by(READ_BYTES as usize) {
        let length = (end - start).min(READ_BYTES);
        let Ok(bytes) = engine.read(ino, start, length) else {
            tally.errors += 1;
            continue;
        };
        let once: Vec<Vec<u8>> =
            versions.iter().map(|(_, content)| content.read(start, length as usize)).collect();
        // A lost write may have left a hole.
        let known = |at: usize, byte: u8| byte == 0 || once.iter().any(|old| old[at] == byte);
        if let Some(at) = (0..bytes.len()).find(|&at| !known(at, bytes[at])) {
            let (at, byte) = (start + at as u64, bytes[at]);
            return Err(format!("I4: byte {at} of inode {ino} is {byte:#04x} and never was"));
        }
    }
    Ok(())
}

fn note_versions(harness: &Harness<Engine>, versions: &mut Versions) {
    for (&theirs, &ours) in &harness.known {
        let Ok(body) = harness.pool.tree().body(ours) else { continue };
        let seen = versions.entry(theirs).or_default();
        if body.kind == Kind::File && seen.last().is_none_or(|(_, last)| *last != body.content) {
            seen.push((body.size, body.content.clone()));
        }
    }
}

fn shape(seed: u64) -> Shape {
    let shape = [Shape::WIDE, Shape::SPARE, Shape::MIRROR][seed as usize % 3];
    SHAPE.set(shape);
    shape
}

/// One life of a pool: from some moment on too many disks lie, and power is lost again and again.
fn life(seed: u64, tally: &mut Tally) -> Result<(), Finding> {
    let shape = shape(seed);
    let mut random = Random::new(seed);
    let ops = generate(&mut random, 100, Mix::SMALL);
    let liars = Liars::draw(&mut random, shape);
    let begin = random.below(40) as usize;
    let mut versions = Versions::new();
    let mut harness = Harness::new(Engine::create(seed)?)?;
    for (index, op) in ops.iter().enumerate() {
        if index == begin {
            harness.target.ground.shelf.lie(&liars.disks);
        }
        // Long enough for a checkpoint: then it is not only the log that is lost.
        if index > begin && random.one_in(8) {
            harness.apply(&Op::Pass { ms: CHECKPOINT_MS })?;
        }
        if index > begin && random.one_in(3) {
            harness.target.snapshot_in(random.below(1_000_000));
        }
        let told = |why| format!("disks {:?} lie, operation {index}, {op:?}:\n{why}", liars.disks);
        harness.apply(op).map_err(told)?;
        note_versions(&harness, &mut versions);
        for snapshot in harness.target.taken() {
            let found = mount(&snapshot, random.next_u64(), &liars, tally).map_err(told)?;
            let Some(mut engine) = found else { continue };
            only_looking(&mut engine, |engine| walk(engine, &versions, tally)).map_err(told)?;
        }
    }
    Ok(())
}

/// A file of one byte value, of a size drawn at random.
fn make_file(
    engine: &mut Engine,
    random: &mut Random,
    name: &str,
) -> Result<(String, u8, u64), Failure> {
    let new = New { kind: Kind::File, mode: 0o644, rdev: 0, target: Vec::new() };
    let ino = engine.make(Ino::ROOT, name.as_bytes(), &new, Caller::default())?;
    let (fill, bytes) = (1 + random.below(255) as u8, 1 + random.below(300_000));
    engine.write(ino, 0, &vec![fill; bytes as usize], false)?;
    if random.one_in(3) {
        engine.fsync(ino, Kind::File)?;
    }
    Ok((name.to_string(), fill, bytes))
}

/// What was written before the lie, and was left alone since.
fn read_old(engine: &mut Engine, old: &[(String, u8, u64)]) -> Result<(), Finding> {
    let names = engine.list(Ino::ROOT)?;
    for (name, fill, size) in old {
        let found = names.iter().find(|(other, _, _)| other == name.as_bytes());
        let Some((_, ino, _)) = found else { return Err(format!("{name} is not there")) };
        let (body, _) = engine.stat(*ino)?;
        if body.size != *size {
            return Err(format!("{name} has {} bytes, not {size}", body.size));
        }
        for start in (0..*size).step_by(READ_BYTES as usize) {
            let bytes = engine.read(*ino, start, (*size - start).min(READ_BYTES))?;
            if bytes.iter().any(|byte| byte != fill) {
                return Err(format!("I4: {name} has other bytes after {start}"));
            }
        }
    }
    Ok(())
}

/// Files are written and are in a checkpoint; then disks lie about all that comes, more and more new
/// files. Whatever the power cut takes of those, the old ones are there: with m + 1 liars for ever,
/// with more of them until a checkpoint that they lied about takes the place of that one.
fn old_and_new(seed: u64, tally: &mut Tally) -> Result<(), Finding> {
    let shape = shape(seed);
    let mut random = Random::new(seed);
    let liars = Liars::draw(&mut random, shape);
    let mut engine = Engine::create(seed)?;
    let broken = |failure: Failure| format!("{failure:?}");
    let old: Result<Vec<_>, _> =
        (0..20).map(|at| make_file(&mut engine, &mut random, &format!("old{at}"))).collect();
    let old = old.map_err(broken)?;
    engine.sync().map_err(broken)?;
    let checkpoint = engine.ground.pool.as_ref().map(|pool| pool.namespace.checkpoint());
    checkpoint.expect("it is open").map_err(|error| format!("checkpoint: {error}"))?;
    engine.ground.shelf.lie(&liars.disks);
    let until = engine.ground.shelf.world.now() + Duration::from_secs(50);
    for at in 0..60 {
        if random.one_in(3) {
            engine.snapshot_in(random.below(1_000_000));
        }
        make_file(&mut engine, &mut random, &format!("new{at}")).map_err(broken)?;
        let long = !liars.too_many && random.one_in(10);
        engine.pass(if long { CHECKPOINT_MS } else { random.below(100) });
        if liars.too_many && engine.ground.shelf.world.now() > until {
            break;
        }
        for snapshot in engine.taken() {
            let told = |why| format!("disks {:?} lie, file {at}: {why}", liars.disks);
            let found = mount(&snapshot, random.next_u64(), &liars, tally).map_err(told)?;
            let mut engine = found.ok_or_else(|| told("refused".to_string()))?;
            only_looking(&mut engine, |engine| read_old(engine, &old)).map_err(told)?;
            tally.whole += old.len() as u32;
        }
    }
    Ok(())
}

#[test]
fn more_liars_than_m_lose_what_they_claimed_and_nothing_is_made_up() {
    let tally = RefCell::new(Tally::default());
    let all = with_seeds(12, |seed| life(seed, &mut tally.borrow_mut()));
    let tally = tally.into_inner();
    println!("{tally:?}");
    let kinds = [tally.writable, tally.log_lost, tally.damaged, tally.errors, tally.files];
    assert!(!all || kinds.iter().all(|&count| count > 0), "not all of it happened: {tally:?}");
    // An older root mostly leads somewhere; without going back to it, about half are refused.
    assert!(!all || tally.refused * 4 < tally.damaged, "refused too often: {tally:?}");
}

#[test]
fn what_was_durable_before_the_lie_is_served() {
    // What is moved while disks lie was written to them like anything else.
    RECLAIMS.set(false);
    let tally = RefCell::new(Tally::default());
    let all = with_seeds(16, |seed| old_and_new(seed, &mut tally.borrow_mut()));
    let tally = tally.into_inner();
    println!("{tally:?}");
    let kinds = [tally.writable, tally.log_lost, tally.whole];
    assert!(!all || kinds.iter().all(|&count| count > 0), "not all of it happened: {tally:?}");
}
