//! The hunt: whole lives of pools, ever new ones, on all cores. A life is a pool of some shape, random
//! operations, work of the background, disks that fail and come back, and power lost again and again, each time
//! recovered in several ways beside the life that goes on. In the end everything must become whole.
//!
//! `tests/hunt --minutes N` runs it; a short share of it is a test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use isotherm::base::Random;

use super::crash::{self, Crashes, Effort};
use super::harness::Finding;
use super::machine::{Engine, SHAPE};
use super::ops::{KINDS, Mix, Op, generate};
use super::runs::{guarded, number, run_minimised};
use super::shelf::{FAULTS, Shape};
use super::tally::{self, Tally};

/// Operations of one life.
const OPERATIONS: u64 = 160;
/// A pair of operation and fault counts as covered when it was met so often.
const PAIR_LEAST: u64 = 100;
/// How many findings end a hunt: more would only be the same again.
const FINDINGS_MAX: usize = 8;
/// Lives of the short share.
const SHARE: u64 = 10;

/// What a life is like follows from its seed.
fn operations(seed: u64) -> Vec<Op> {
    let mut random = Random::new(seed);
    SHAPE.set([Shape::WIDE, Shape::SPARE, Shape::MIRROR][random.below(3) as usize]);
    let mix = if random.one_in(4) { Mix::SMALL } else { Mix::FULL };
    let count = OPERATIONS / 2 + random.below(OPERATIONS);
    generate(&mut random, count as usize, mix)
}

fn effort(seed: u64) -> Effort {
    let recoveries = 1 + (seed % 3) as u32;
    Effort { recoveries, ..Effort::USUAL }
}

fn live(seed: u64, ops: &[Op]) -> Result<(), Finding> {
    crash::run::<Engine>(seed, ops, effort(seed))
}

/// The life of a seed.
#[cfg(feature = "canary")]
pub fn life(seed: u64) -> Result<(), Finding> {
    live(seed, &operations(seed))
}

/// What all workers have done.
#[derive(Default)]
struct Bag {
    tally: Tally,
    crashes: Crashes,
    findings: BTreeMap<u64, Finding>,
}

/// The counts of this thread go into the bag.
fn collect(bag: &Mutex<Bag>) {
    let mut bag = bag.lock().expect("no worker panics with it");
    bag.tally.add(&tally::take());
    let crashes = crash::take_counts();
    bag.crashes.moments += crashes.moments;
    bag.crashes.recoveries += crashes.recoveries;
}

fn progress(bag: &Mutex<Bag>, runs: u64, since: Instant) -> String {
    let bag = bag.lock().expect("no worker panics with it");
    let (tally, seconds) = (&bag.tally, since.elapsed().as_secs().max(1));
    let (covered, pairs) = tally.covered(&KINDS, &FAULTS, PAIR_LEAST);
    let (least, times) = tally.least(&KINDS, &FAULTS);
    format!(
        "{} s: {runs} lives, {} operations ({} a second, {} % carried out, {} more aimed at nothing), {} \
         crashes ({} a second), {} recoveries, {covered} of {pairs} pairs of operation and fault {PAIR_LEAST} \
         times (least: {least}, {times}), {} findings",
        seconds,
        tally.asked(),
        tally.asked() / seconds,
        tally.done_percent(),
        tally.nothing(),
        bag.crashes.moments,
        bag.crashes.moments / seconds,
        bag.crashes.recoveries,
        bag.findings.len(),
    )
}

/// A failing seed, made small, is kept in a file.
fn keep(seed: u64, why: &str) {
    let dir = PathBuf::from(std::env::var("ISOTHERM_FINDINGS").unwrap_or("tests/out/hunt".into()));
    let path = dir.join(format!("{seed}.txt"));
    let text = format!("ISOTHERM_SEED={seed} finds:\n{why}\n");
    let kept = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, text));
    match kept {
        Ok(()) => println!("FOUND by seed {seed}: see {}", path.display()),
        Err(error) => println!("FOUND by seed {seed}, and not kept: {error}\n{why}"),
    }
}

/// Lives from `first` on, for so long; what they did.
#[allow(clippy::disallowed_methods, reason = "a hunt runs for real minutes on real cores")]
fn hunt(first: u64, time: Duration) -> Bag {
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let (since, bag) = (Instant::now(), Mutex::new(Bag::default()));
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let ops = operations(seed);
                    let first_try = guarded(|| live(seed, &ops));
                    collect(&bag);
                    if first_try.is_err() {
                        let smaller = run_minimised(&ops, |ops| live(seed, ops));
                        // Trying again what fails already is no coverage.
                        tally::take();
                        crash::take_counts();
                        let why = smaller.err().or(first_try.err()).expect("it was found");
                        keep(seed, &why);
                        bag.lock().expect("no worker panics with it").findings.insert(seed, why);
                    }
                }
            });
        }
        let mut told = Instant::now();
        while since.elapsed() < time {
            std::thread::sleep(Duration::from_millis(200));
            let runs = next.load(Ordering::Relaxed) - first;
            if told.elapsed() >= Duration::from_secs(10) {
                told = Instant::now();
                println!("{}", progress(&bag, runs, since));
            }
            let found = bag.lock().expect("no worker panics with it").findings.len();
            if found >= FINDINGS_MAX {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{}", progress(&bag, next.load(Ordering::Relaxed) - first, since));
    bag.into_inner().expect("no worker panics with it")
}

/// A seed that no hunt has had.
#[allow(clippy::disallowed_methods, reason = "seeds are to be new ones")]
fn fresh_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() << 20)
}

/// `tests/hunt` runs this one: `ISOTHERM_HUNT_MINUTES`, `ISOTHERM_SEED` to begin with.
#[test]
#[ignore = "goes on for as long as it is asked to: tests/hunt"]
fn goes_on() {
    let minutes = number("ISOTHERM_HUNT_MINUTES").unwrap_or(1);
    let first = number("ISOTHERM_SEED").unwrap_or_else(fresh_seed);
    println!("from seed {first}");
    let bag = hunt(first, Duration::from_secs(60 * minutes));
    for (kind, [done, refused, nothing]) in &bag.tally.operations {
        println!("{kind:12} {done:10} done, {refused:9} refused, {nothing:9} aimed at nothing");
    }
    assert!(bag.findings.is_empty(), "{} lives failed", bag.findings.len());
    assert!(bag.tally.done_percent() >= 60, "most operations are to be carried out");
    let (covered, pairs) = bag.tally.covered(&KINDS, &FAULTS, PAIR_LEAST);
    assert!(minutes < 20 || covered == pairs, "only {covered} of {pairs} pairs were covered");
}

/// One life, again; with `ISOTHERM_WHOLE` as it was, else made as small as it can be.
#[test]
#[ignore = "repeats one seed of a hunt: ISOTHERM_SEED"]
fn again() {
    let seed = number("ISOTHERM_SEED").expect("ISOTHERM_SEED says which");
    let ops = operations(seed);
    let result = match number("ISOTHERM_WHOLE") {
        Some(_) => guarded(|| live(seed, &ops)),
        None => run_minimised(&ops, |ops| live(seed, ops)),
    };
    if let Err(why) = result {
        panic!("ISOTHERM_SEED={seed} finds:\n{why}");
    }
}

/// A share of the hunt, of other lives each time.
#[test]
fn a_share_of_the_hunt_finds_nothing() {
    let first = number("ISOTHERM_SEED").unwrap_or_else(fresh_seed);
    for seed in first..first + SHARE {
        let ops = operations(seed);
        if let Err(why) = run_minimised(&ops, |ops| live(seed, ops)) {
            panic!("ISOTHERM_SEED={seed} finds:\n{why}");
        }
    }
    let tally = tally::take();
    println!("seeds from {first}: {} operations, {} %", tally.asked(), tally.done_percent());
    assert!(tally.done_percent() >= 60, "most operations are to be carried out");
}
