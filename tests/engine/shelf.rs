//! A shelf of simulated disks in one world, with a pool on it; its faults; and what a crash leaves of it.

use std::collections::{BTreeMap, BTreeSet};

use isotherm::base::simulation::World;
use isotherm::base::sync::{Arc, Mutex};
use isotherm::base::{Clock, MIB, Random, Ticks, WallTime};
use isotherm::fleet::disk::DiskError;
use isotherm::fleet::disk::sim::{Access, Image, SimDisk, SimParameters, Snapshot};
use isotherm::format::Redundancy;

use super::crash::How;

/// What the disks of a pool are like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Their sizes in MiB.
    pub disks_mib: &'static [u64],
    /// Default redundancy of the pool.
    pub redundancy: Redundancy,
}

impl Shape {
    /// 6+2 on eight unequal disks.
    pub const WIDE: Shape = Shape {
        disks_mib: &[512, 768, 512, 1024, 640, 512, 896, 512],
        redundancy: Redundancy::Erasure { data: 6, parity: 2 },
    };
    /// 3+2 on six, with a place to spare.
    pub const SPARE: Shape = Shape {
        disks_mib: &[512, 512, 768, 512, 640, 512],
        redundancy: Redundancy::Erasure { data: 3, parity: 2 },
    };
    /// A mirror of two on three disks.
    pub const MIRROR: Shape =
        Shape { disks_mib: &[512, 512, 768], redundancy: Redundancy::Replica { copies: 2 } };

    /// Disks that may be lost.
    pub fn margin(&self) -> usize {
        self.redundancy.tolerates()
    }
}

/// What may befall a disk while the pool runs.
#[derive(Clone, Copy, Debug)]
pub enum Mishap {
    /// Everything takes so many times as long.
    Slow(u32),
    /// Answers nothing any more.
    Hang,
    /// Hangs in its next flush.
    HangFlush,
    /// The cable is pulled.
    Detach,
    /// Flushes and durable writes are answered, and nothing becomes durable.
    LieAboutFlush,
    /// The next so many writes never happen.
    LoseWrites(u32),
    /// The next write lands elsewhere.
    Misdirect(i32),
    /// So many bits turn over, all over the disk.
    Rot(u32),
    /// Reads of this part of the disk (in 1/64) fail.
    BadRange(u32),
    /// Some of the next reads fail, once each.
    ReadErrors(u32),
    /// Some of the next writes fail, once each.
    WriteErrors(u32),
    /// A disk that does not take part is plugged in again, with what it certainly has.
    Return,
    /// Works again as well as it can.
    Heal,
}

/// Faults, as [`Mishap::fault`] calls them, and what is in force otherwise.
pub const FAULTS: [&str; 13] = [
    "none",
    "slow",
    "hang",
    "hang-flush",
    "gone",
    "lies",
    "lost-writes",
    "misdirected",
    "rot",
    "bad-range",
    "read-errors",
    "write-errors",
    "returned",
];

impl Mishap {
    /// What is in force on a disk afterwards.
    fn fault(self) -> Option<&'static str> {
        Some(match self {
            Mishap::Slow(_) => "slow",
            Mishap::Hang => "hang",
            Mishap::HangFlush => "hang-flush",
            Mishap::Detach => "gone",
            Mishap::LieAboutFlush => "lies",
            Mishap::LoseWrites(_) => "lost-writes",
            Mishap::Misdirect(_) => "misdirected",
            Mishap::Rot(_) => "rot",
            Mishap::BadRange(_) => "bad-range",
            Mishap::ReadErrors(_) => "read-errors",
            Mishap::WriteErrors(_) => "write-errors",
            Mishap::Return => "returned",
            Mishap::Heal => return None,
        })
    }
}

/// Errors of one mishap that makes several.
const ERRORS: u64 = 4;

/// The time of day that operations get, under the harness' control; the rest is the world's.
pub struct SetClock {
    world: Arc<World>,
    wall: Mutex<WallTime>,
}

impl SetClock {
    /// The world's time, and midnight of 1970.
    pub fn new(world: &Arc<World>) -> Arc<SetClock> {
        Arc::new(SetClock { world: world.clone(), wall: Mutex::default() })
    }

    /// It is this time of day from now on.
    pub fn set(&self, now: WallTime) {
        *self.wall.lock() = now;
    }
}

impl Clock for SetClock {
    fn now(&self) -> Ticks {
        self.world.now()
    }

    fn wall(&self) -> WallTime {
        *self.wall.lock()
    }
}

/// All disks of a shelf at one moment.
#[derive(Clone)]
pub struct ShelfSnapshot {
    shape: Shape,
    /// By position; whether something had befallen it.
    disks: BTreeMap<usize, (Snapshot, bool)>,
}

/// The disks.
pub struct Shelf {
    pub world: Arc<World>,
    pub shape: Shape,
    /// Shared with snapshots that are due later: they see who is plugged in then.
    disks: Arc<Mutex<BTreeMap<usize, Arc<SimDisk>>>>,
    /// Disks that do not count any more: at most the margin, those missing included.
    impaired: Arc<Mutex<BTreeSet<usize>>>,
    /// What is wrong with them.
    faults: BTreeMap<usize, BTreeSet<&'static str>>,
    /// Disks that have answered flushes that were none: what they have may be older than it should be.
    liars: BTreeSet<usize>,
    taken: Arc<Mutex<Vec<ShelfSnapshot>>>,
}

fn parameters(shape: &Shape, position: usize) -> SimParameters {
    let bytes = shape.disks_mib[position] * MIB;
    // Some rotate, some do not: order of completion varies more.
    match position % 3 {
        0 => SimParameters { fua: false, ..SimParameters::hdd(&format!("disk{position}"), bytes) },
        1 => SimParameters::hdd(&format!("disk{position}"), bytes),
        _ => SimParameters::quick(&format!("disk{position}"), bytes),
    }
}

impl Shelf {
    /// Disks full of zeros, in a new world.
    pub fn new(seed: u64, shape: Shape) -> Shelf {
        let world = World::new(seed);
        let disks = (0..shape.disks_mib.len())
            .map(|at| (at, SimDisk::new(&world, parameters(&shape, at))))
            .collect();
        Shelf::of(world, shape, disks)
    }

    fn of(world: Arc<World>, shape: Shape, disks: BTreeMap<usize, Arc<SimDisk>>) -> Shelf {
        let (impaired, taken) = Default::default();
        let (faults, liars) = Default::default();
        let disks = Arc::new(Mutex::new(disks));
        Shelf { world, shape, disks, impaired, faults, liars, taken }
    }

    /// What a crash left, in a new world: caches torn, `missing` disks gone. Disks that something had
    /// befallen go first: they count already.
    pub fn recover(snapshot: &ShelfSnapshot, how: How) -> Shelf {
        let mut random = Random::new(how.seed);
        let (shape, world) = (snapshot.shape, World::new(how.seed));
        let mut left = shape.margin();
        let mut missing = (how.missing as usize).min(left);
        let mut order: Vec<usize> = snapshot.disks.keys().copied().collect();
        for at in (1..order.len()).rev() {
            order.swap(at, random.below(at as u64 + 1) as usize);
        }
        order.sort_by_key(|at| !snapshot.disks[at].1);
        let mut shelf = Shelf::of(world, shape, BTreeMap::new());
        for at in order {
            let (disk, befallen) = &snapshot.disks[&at];
            // A disk that something befell counts as impaired whether it comes back or not.
            if *befallen {
                shelf.impaired.lock().insert(at);
                left = left.saturating_sub(1);
            }
            if missing > 0 && (*befallen || left > 0) {
                missing -= 1;
                left = left.saturating_sub(usize::from(!*befallen));
                // It stays as it is, and may be back.
                shelf.plug_in(at, disk.crash_image(&mut random)).detach();
                shelf.set_fault(at, "gone");
                continue;
            }
            shelf.plug_in(at, disk.crash_image(&mut random));
        }
        shelf
    }

    /// A disk with this on it, in place of the one that was there.
    fn plug_in(&mut self, at: usize, image: Image) -> Arc<SimDisk> {
        let disk = SimDisk::open(&self.world, parameters(&self.shape, at), image);
        self.disks.lock().insert(at, disk.clone());
        disk
    }

    fn set_fault(&mut self, at: usize, fault: &'static str) {
        self.impaired.lock().insert(at);
        self.faults.entry(at).or_default().insert(fault);
    }

    /// A disk is unplugged, if it is not already, and plugged in again: it has what a loss of power leaves.
    pub fn put_back(&mut self, at: usize) -> Arc<SimDisk> {
        let disk = self.disk(at);
        disk.detach();
        let image = disk.snapshot().crash_image(&mut self.world.fork_random());
        self.faults.remove(&at);
        self.set_fault(at, "returned");
        self.plug_in(at, image)
    }

    fn disk(&self, at: usize) -> Arc<SimDisk> {
        self.disks.lock()[&at].clone()
    }

    /// Whether it may have lost what it had answered to have, or may not tell what it has any more.
    pub fn is_suspect(&self, at: usize) -> bool {
        let bad = ["lies", "lost-writes", "misdirected", "rot", "bad-range"];
        let faults = self.faults.get(&at);
        let doubtful = faults.is_some_and(|faults| bad.iter().any(|bad| faults.contains(bad)));
        doubtful || self.liars.contains(&at)
    }

    /// What is wrong with any disk: for counting.
    pub fn faults(&self) -> Vec<&'static str> {
        let all: BTreeSet<&'static str> = self.faults.values().flatten().copied().collect();
        if all.is_empty() { vec!["none"] } else { all.into_iter().collect() }
    }

    /// Every shard was found good, or mended: disks count again unless something goes on, or they do not take
    /// part.
    pub fn forgive(&mut self, take_part: &BTreeSet<usize>) {
        for (&at, faults) in &mut self.faults {
            let disk = self.disks.lock()[&at].clone();
            if !faults.contains("gone") {
                disk.lose_writes(0);
                disk.misdirect_next_write(0);
                disk.fail_none();
                for passed in
                    ["rot", "lost-writes", "misdirected", "returned", "read-errors", "write-errors"]
                {
                    faults.remove(passed);
                }
            }
        }
        self.faults.retain(|_, faults| !faults.is_empty());
        let (faults, liars) = (&self.faults, &self.liars);
        let serious = |at: &usize| {
            let slow = |faults: &BTreeSet<&str>| faults.len() == 1 && faults.contains("slow");
            let goes_on = faults.get(at).is_some_and(|faults| !slow(faults));
            goes_on || liars.contains(at) || !take_part.contains(at)
        };
        self.impaired.lock().retain(serious);
    }

    /// The disks that are here.
    pub fn disks(&self) -> Vec<(usize, Arc<SimDisk>)> {
        self.disks.lock().iter().map(|(&at, disk)| (at, disk.clone())).collect()
    }

    /// Takes a snapshot of all disks once `micros` have passed.
    pub fn snapshot_in(&self, micros: u64) {
        let at = self.world.now() + std::time::Duration::from_micros(micros);
        let (taken, shape) = (self.taken.clone(), self.shape);
        let (disks, impaired) = (self.disks.clone(), self.impaired.clone());
        self.world.schedule(
            at,
            Box::new(move || {
                // As of then: something may befall a disk until the snapshot is due.
                let impaired = impaired.lock();
                let disks = disks
                    .lock()
                    .iter()
                    .map(|(&at, disk)| (at, (disk.snapshot(), impaired.contains(&at))))
                    .collect();
                taken.lock().push(ShelfSnapshot { shape, disks });
            }),
        );
    }

    /// A snapshot now.
    pub fn snapshot(&self) -> ShelfSnapshot {
        let disks = self
            .disks()
            .into_iter()
            .map(|(at, disk)| (at, (disk.snapshot(), self.impaired.lock().contains(&at))))
            .collect();
        ShelfSnapshot { shape: self.shape, disks }
    }

    /// The snapshots taken since this was last asked.
    pub fn taken(&self) -> Vec<ShelfSnapshot> {
        std::mem::take(&mut self.taken.lock())
    }

    /// Something happens to a disk, unless redundancy would not cover it: then false.
    pub fn befall(&mut self, pick: u32, mishap: Mishap) -> bool {
        let all: Vec<usize> = self.disks.lock().keys().copied().collect();
        let at = all[pick as usize % all.len()];
        let harmless = matches!(mishap, Mishap::Slow(_) | Mishap::Heal);
        let mut impaired = self.impaired.lock();
        if !harmless && !impaired.contains(&at) {
            if impaired.len() >= self.shape.margin() {
                return false;
            }
            impaired.insert(at);
        }
        drop(impaired);
        if let Some(fault) = mishap.fault() {
            self.faults.entry(at).or_default().insert(fault);
        }
        let disk = self.disk(at);
        let bytes = disk.parameters().bytes;
        match mishap {
            Mishap::Slow(factor) => disk.set_slow(f64::from(factor.max(1))),
            Mishap::Hang => disk.set_hang(true),
            Mishap::HangFlush => disk.set_hang_flush(true),
            Mishap::Detach => disk.detach(),
            Mishap::LieAboutFlush => {
                disk.set_flush_lies(true);
                self.liars.insert(at);
            }
            Mishap::ReadErrors(nth) => {
                let error = DiskError::Medium { offset: 0 };
                (0..ERRORS).for_each(|n| disk.fail_nth(Access::Read, u64::from(nth) * n, error));
            }
            Mishap::WriteErrors(nth) => {
                let error = DiskError::Medium { offset: 0 };
                (0..ERRORS).for_each(|n| disk.fail_nth(Access::Write, u64::from(nth) * n, error));
            }
            Mishap::Return => unreachable!("the pool has a say in that"),
            Mishap::LoseWrites(count) => disk.lose_writes(u64::from(count)),
            Mishap::Misdirect(pages) => disk.misdirect_next_write(i64::from(pages) * 4096),
            Mishap::Rot(count) => {
                let mut random = Random::new(u64::from(pick) << 32 | u64::from(count));
                for _ in 0..count {
                    disk.flip_bit(random.below(bytes), random.below(8) as u8);
                }
            }
            Mishap::BadRange(part) => {
                let part = u64::from(part % 64);
                disk.add_bad_range(bytes / 64 * part..bytes / 64 * (part + 1));
            }
            Mishap::Heal => {
                disk.set_slow(1.0);
                disk.set_hang(false);
                disk.set_hang_flush(false);
                disk.set_flush_lies(false);
                disk.clear_bad_ranges();
                disk.lose_writes(0);
                if let Some(faults) = self.faults.get_mut(&at) {
                    let over = ["slow", "hang", "hang-flush", "lies", "bad-range"];
                    faults.retain(|fault| !over.contains(fault));
                }
            }
        }
        true
    }

    /// Nothing goes on any more: what it did is left.
    pub fn heal_all(&mut self) {
        let all: Vec<usize> = self.disks.lock().keys().copied().collect();
        for (pick, _) in all.iter().enumerate() {
            self.befall(pick as u32, Mishap::Heal);
        }
    }

    /// From now on these disks lie about flushes, though they may be more than redundancy covers.
    pub fn lie(&self, disks: &[usize]) {
        disks.iter().for_each(|&at| self.disk(at).set_flush_lies(true));
    }

    /// Everything on all disks that certainly survives, as one number: for telling two runs apart.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = 0u64;
        for (at, disk) in self.disks() {
            let snapshot = disk.snapshot();
            hash = mix(hash, at as u64);
            hash = mix(hash, fingerprint(snapshot.durable()));
        }
        mix(hash, self.world.steps())
    }
}

fn mix(hash: u64, value: u64) -> u64 {
    Random::new(hash ^ value.rotate_left(23)).next_u64()
}

fn fingerprint(image: &Image) -> u64 {
    // The first MiB (labels, slots, journal) byte by byte; the rest by samples.
    let mut hash = image.resident_bytes();
    let mut bytes = vec![0; 4096];
    let total = image.bytes();
    let dense = (0..(64 * MIB).min(total)).step_by(4096);
    let sparse = (0..total).step_by(4096 * 97);
    for offset in dense.chain(sparse) {
        image.read(offset, &mut bytes);
        for word in bytes.chunks_exact(8) {
            let word = u64::from_le_bytes(word.try_into().expect("8 bytes"));
            if word != 0 {
                hash = hash.rotate_left(5) ^ word.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            }
        }
    }
    hash
}
