//! What reclaim costs: bytes of files that it moves for each byte that users write, by loads that run long
//! enough for the pool to be full of what they leave behind. Greedy and cost-benefit side by side, from one
//! seed, in simulated time.

use std::time::Duration;

use super::reclaim::{USER, read};
use crate::base::{Ino, KIB, MIB, Random};
use crate::format::Redundancy;
use crate::namespace::{FileKind, Namespace, NewInode};
use crate::pool::open::{OpenOptions, OpenPool};
use crate::pool::simulated::SimMachine;

const FILE: NewInode = NewInode { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };
/// One disk, no redundancy: many objects in little memory, and what is moved is the same.
const DISK_BYTES: u64 = 512 * MIB;
/// So much of the pool is alive all the time.
const LIVE_PERCENT: u64 = 75;
/// Users' bytes before it counts, and while it counts, in percent of the pool.
const WARM_PERCENT: u64 = 150;
const COUNT_PERCENT: u64 = 100;
const BLOCK_BYTES: u64 = 64 * KIB;
const FILE_BYTES: u64 = 256 * KIB;

/// Which bytes are written again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Load {
    /// Blocks of one file, each as likely.
    Uniform,
    /// 90 % of the writes go to the first 10 % of the file.
    Skewed,
    /// The same, and the 10 % are scattered over the file.
    Scattered,
    /// Small files are deleted and made anew, 90 % of the time one of the same 10 %.
    Files,
}

impl Load {
    /// Bytes that are written at once, and die at once.
    fn unit_bytes(self) -> u64 {
        if self == Load::Files { FILE_BYTES } else { BLOCK_BYTES }
    }

    /// Which of so many units is written next.
    fn next(self, count: u64, random: &mut Random) -> u64 {
        let hot = count / 10;
        let at = match self {
            Load::Uniform => return random.below(count),
            _ if random.below(10) < 9 => random.below(hot),
            _ => hot + random.below(count - hot),
        };
        // Every tenth one is hot.
        if self == Load::Scattered { at % hot * 10 + at / hot } else { at }
    }
}

/// A pool under a load, and what must be in it.
struct Bench {
    machine: SimMachine,
    pool: OpenPool,
    load: Load,
    /// Of each unit of the load, how often anything had been written when it was.
    versions: Vec<u64>,
    /// The one file, or all.
    inos: Vec<Ino>,
    written_bytes: u64,
}

fn name(file: usize) -> Vec<u8> {
    format!("f{file}").into_bytes()
}

fn make(namespace: &Namespace, file: usize) -> Ino {
    namespace.mknod(Ino::ROOT, &name(file), &FILE, USER).expect("the name is new").ino
}

impl Bench {
    /// Everything is written once.
    fn new(load: Load, greedy: bool) -> Bench {
        let machine = SimMachine::new(1, &[DISK_BYTES]);
        machine.create(Redundancy::Replica { copies: 1 });
        let mut options = OpenOptions::default();
        options.reclaim.greedy = greedy;
        // A large pool has minutes for what takes milliseconds here.
        options.reclaim.look = Duration::from_millis(10);
        options.reclaim.loose_bytes_min = MIB;
        let pool = machine.open(options).expect("the pool opens");
        let live_bytes = pool.namespace.statfs().total_bytes * LIVE_PERCENT / 100;
        let count = (live_bytes / load.unit_bytes() / 10 * 10) as usize;
        let files = if load == Load::Files { count } else { 1 };
        let inos = (0..files).map(|file| make(&pool.namespace, file)).collect();
        let versions = vec![0; count];
        let mut bench = Bench { machine, pool, load, versions, inos, written_bytes: 0 };
        (0..count).for_each(|unit| bench.write(unit));
        bench
    }

    /// The file of a unit, and where in it.
    fn place(&self, unit: usize) -> (Ino, u64) {
        match self.load {
            Load::Files => (self.inos[unit], 0),
            _ => (self.inos[0], unit as u64 * BLOCK_BYTES),
        }
    }

    fn write(&mut self, unit: usize) {
        let (ino, from) = self.place(unit);
        let length = self.load.unit_bytes();
        let version = self.written_bytes / length;
        let block = vec![version as u8; BLOCK_BYTES as usize];
        for at in (from..from + length).step_by(block.len()) {
            self.pool.namespace.write(ino, at, &block, false, false).expect("it never fills");
        }
        self.versions[unit] = version;
        self.written_bytes += length;
        // Users are not faster than the disk.
        self.machine.world.run_for(Duration::from_micros(10 * length / KIB));
    }

    /// Until users have written so much in all.
    fn run(&mut self, until_bytes: u64, random: &mut Random) {
        let count = self.versions.len() as u64;
        while self.written_bytes < until_bytes {
            let unit = self.load.next(count, random) as usize;
            if self.load == Load::Files {
                let namespace = &self.pool.namespace;
                namespace.unlink(Ino::ROOT, &name(unit)).expect("it is there");
                namespace.forget(self.inos[unit], 1);
                self.inos[unit] = make(namespace, unit);
            }
            self.write(unit);
        }
    }

    fn check(&self) {
        let namespace = &self.pool.namespace;
        for (unit, &version) in self.versions.iter().enumerate() {
            let (ino, from) = self.place(unit);
            let mut bytes = Vec::new();
            match self.load {
                Load::Files => bytes = read(namespace, ino),
                _ => {
                    let block = namespace.read(ino, from, BLOCK_BYTES as u32, &mut bytes);
                    block.expect("it reads");
                }
            }
            assert_eq!(bytes.len() as u64, self.load.unit_bytes(), "{:?}: {unit}", self.load);
            assert!(bytes.iter().all(|&byte| byte == version as u8), "{:?}: {unit}", self.load);
        }
    }
}

/// Bytes that are moved for each one that is written, in thousandths.
fn cost(load: Load, greedy: bool) -> u64 {
    let mut bench = Bench::new(load, greedy);
    let total = bench.pool.namespace.statfs().total_bytes;
    let mut random = Random::new(2);
    bench.run(total * WARM_PERCENT / 100, &mut random);
    let moved_bytes = |bench: &Bench| bench.pool.namespace.progress().moved_bytes;
    let (written, moved) = (bench.written_bytes, moved_bytes(&bench));
    bench.run(total * (WARM_PERCENT + COUNT_PERCENT) / 100, &mut random);
    let (written, moved) = (bench.written_bytes - written, moved_bytes(&bench) - moved);
    let room = bench.pool.namespace.room();
    let (free, waits) = (room.available_bytes * 100 / total, room.wanted);
    println!("{load:?}: {free} % free at the end, somebody waited for room {waits} times");
    bench.pool.namespace.sync().expect("it syncs");
    bench.check();
    bench.pool.close().expect("it closes");
    moved * 1000 / written
}

/// Cost-benefit moves at most so many percent of what greedy moves.
fn compare(load: Load, percent_max: u64) {
    let (greedy, benefit) = (cost(load, true), cost(load, false));
    let percent = benefit * 100 / greedy;
    println!("{load:?}: greedy {greedy}, cost-benefit {benefit} thousandths: {percent} %");
    assert!(percent <= percent_max, "{load:?}: {percent} % of what greedy moves");
}

/// There is nothing to tell objects by, and nothing to gain; and nothing is lost.
#[test]
fn uniform_overwrites_cost_no_more_than_greedy() {
    compare(Load::Uniform, 105);
}

#[test]
fn skewed_overwrites_cost_half() {
    compare(Load::Skewed, 55);
}

/// Hot and cold bytes share every object that is written; survivors of one age get objects of their own.
#[test]
fn scattered_overwrites_are_told_apart_by_moving_them() {
    compare(Load::Scattered, 55);
}

#[test]
fn small_files_that_come_and_go_cost_half() {
    compare(Load::Files, 55);
}
