//! The engine on a shelf of simulated disks: everything from `pool::open` down, in one thread, from one
//! seed. Memory limits are small, so that pressure, tables and compaction come early.

use std::collections::BTreeSet;
use std::time::Duration;

use isotherm::base::simulation::World;
use isotherm::base::sync::Arc;
use isotherm::base::sync::atomic::{AtomicBool, Ordering};
use isotherm::base::{DiskIndex, Event, Ino, KIB, MIB, ObjectId, Pace, Random, Task, WallTime};
use isotherm::fleet::disk::probe::{DriveKey, Probe};
use isotherm::fleet::disk::{BufferPool, DiskHandle};
use isotherm::fleet::{Access, MemberState, Report};
use isotherm::format::Label;
use isotherm::namespace::{Caller, ChainLimits, Options, SetAttr};
use isotherm::pool::assemble::Candidate;
use isotherm::pool::create::{CreateOptions, NewDisk, create};
use isotherm::pool::labels::{FoundLabel, read_labels};
use isotherm::pool::membership::MembershipError;
use isotherm::pool::open::{Machine as Rooms, OpenOptions, OpenPool, ReadOnly, TaskHost, open};
use isotherm::services::check::{CheckReport, check};
use isotherm::services::reclaim::ReclaimOptions;
use isotherm::services::repair::RepairOptions;

use super::crash::{How, Machine};
use super::file_system::{FileSystemTarget, Ground};
use super::harness::Finding;
use super::ops::Work;
use super::shelf::{Mishap, SetClock, Shape, Shelf, ShelfSnapshot};

/// Bytes for I/O buffers: enough for a few objects at once, so that they run short.
const BUFFER_BYTES: u64 = 192 * MIB;

std::thread_local! {
    /// What pools made in this thread are like.
    pub static SHAPE: std::cell::Cell<Shape> = const { std::cell::Cell::new(Shape::WIDE) };
    /// Whether pools made in this thread move what is not wholly alive.
    pub static RECLAIMS: std::cell::Cell<bool> = const { std::cell::Cell::new(true) };
    /// Bytes that reclaim has moved in pools of this thread that are gone.
    pub static MOVED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// A checkpoint that is asked for while disks hang may take longer: it is not waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Checks until nothing is found.
const CHECKS_MAX: u32 = 20;
/// Times 5 seconds, until everything is whole again.
const SETTLE_ROUNDS: u32 = 60;

/// A pool on a shelf.
pub struct SimPool {
    pub shelf: Shelf,
    pub clock: Arc<SetClock>,
    pub pool: Option<OpenPool>,
    /// Disks that were not taken back, because they were rolled back.
    refused: BTreeSet<DiskIndex>,
    /// What the labels said when it was opened, for findings.
    seen: Vec<String>,
}

/// The engine as a target.
pub type Engine = FileSystemTarget<SimPool>;

/// Tasks run inside the waits of the world.
struct WorldTasks {
    world: Arc<World>,
    stopped: Arc<AtomicBool>,
}

/// A task that ends when all are stopped.
struct Stoppable {
    task: Box<dyn Task>,
    stopped: Arc<AtomicBool>,
}

impl Task for Stoppable {
    fn name(&self) -> &'static str {
        self.task.name()
    }
    fn event(&self) -> Arc<Event> {
        self.task.event()
    }
    fn step(&mut self) -> Pace {
        if self.stopped.load(Ordering::SeqCst) { Pace::Done } else { self.task.step() }
    }
}

impl TaskHost for WorldTasks {
    fn run(&self, task: Box<dyn Task>) {
        self.world.add_task(Box::new(Stoppable { task, stopped: self.stopped.clone() }));
    }
    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }
}

impl SimPool {
    fn rooms(shelf: &Shelf, clock: &Arc<SetClock>) -> (Rooms, Access) {
        let wait = shelf.world.clone();
        let tasks = WorldTasks { world: shelf.world.clone(), stopped: Arc::default() };
        let rooms = Rooms {
            clock: clock.clone(),
            wait: wait.clone(),
            tasks: Arc::new(tasks),
            random: shelf.world.fork_random(),
        };
        let buffers = BufferPool::new(BUFFER_BYTES, wait.clone());
        (rooms, Access { clock: clock.clone(), wait, buffers })
    }

    /// Makes a pool of a new shelf; not open.
    pub fn make(seed: u64, shape: Shape) -> Result<Shelf, Finding> {
        let shelf = Shelf::new(seed, shape);
        let clock = SetClock::new(&shelf.world);
        let (_, access) = SimPool::rooms(&shelf, &clock);
        let disks: Vec<NewDisk> = shelf
            .disks()
            .into_iter()
            .map(|(at, disk)| {
                let disk: DiskHandle = disk;
                let identity = disk.identity().clone();
                let drives = BTreeSet::from([DriveKey(format!("drive{at}"))]);
                let (signatures, uses) = (Vec::new(), Vec::new());
                let probe = Probe { identity, drives, read_only: false, signatures, uses };
                NewDisk { disk, probe }
            })
            .collect();
        let options = CreateOptions {
            name: "pool".to_string(),
            redundancy: shape.redundancy,
            enclosures: Vec::new(),
            machine_id: [7; 16],
            now_seconds: 1_690_000_000,
            force: false,
        };
        create(&access, &options, &disks, &mut Random::new(seed ^ 1))
            .map_err(|error| format!("create: {error}"))?;
        Ok(shelf)
    }

    /// Opens the pool on a shelf for reading and writing; anything less is a finding.
    pub fn open(shelf: Shelf) -> Result<Engine, Finding> {
        let engine = SimPool::open_somehow(shelf)?;
        match engine.ground.pool.as_ref().map(|pool| pool.read_only) {
            Some(ReadOnly::No) => Ok(engine),
            other => {
                let pool = engine.ground.pool();
                let disks: Vec<String> = engine.ground.seen.clone();
                let (missing, disks) = (&pool.missing, disks.join("\n"));
                Err(format!("opened read-only: {other:?}; missing are {missing:?}, and\n{disks}"))
            }
        }
    }

    /// Opens the pool on a shelf, as `isotherm mount` would, for writing or not.
    pub fn open_somehow(shelf: Shelf) -> Result<Engine, Finding> {
        let clock = SetClock::new(&shelf.world);
        let (rooms, access) = SimPool::rooms(&shelf, &clock);
        let mut ground =
            SimPool { shelf, clock, pool: None, refused: BTreeSet::new(), seen: Vec::new() };
        let disks: Vec<(usize, DiskHandle)> =
            ground.shelf.disks().into_iter().map(|(at, disk)| (at, disk as DiskHandle)).collect();
        let candidates = candidates(&access, disks);
        ground.seen = candidates.iter().map(|one| told(&one.label)).collect();
        let mut options = OpenOptions { buffer_bytes: BUFFER_BYTES, ..OpenOptions::default() };
        options.assemble.machine_id = [7; 16];
        options.namespace =
            Options { cache_bytes: 4 * MIB, dirty_bytes_max: 24 * MIB, ..options.namespace };
        // Small pools too are to be mounted from increments [R9].
        options.namespace.chains = ChainLimits { whole_bytes: 0, links: 4, growth: 1000 };
        // Whatever is not wholly alive moves, all the time.
        options.reclaim = ReclaimOptions {
            loose_bytes_min: 1,
            loose_share: u64::MAX,
            worth_percent_min: if RECLAIMS.get() { 90 } else { 0 },
            look: Duration::from_millis(300),
            pause: Duration::from_millis(6000),
            ..ReclaimOptions::default()
        };
        // Who is away for longer than a while is not waited for.
        options.repair =
            RepairOptions { delay: Some(Duration::from_secs(20)), look: Duration::from_secs(1) };
        options.index.memtable_bytes = 64 * KIB;
        options.index.table_bytes = 64 * KIB as u32;
        options.index.block_bytes = 4 * KIB as u32;
        options.index.level_bytes = 256 * KIB;
        options.index.cache_bytes = MIB;
        let pool = open(rooms, candidates, options).map_err(|error| format!("open: {error}"))?;
        let namespace = pool.namespace.clone();
        ground.pool = Some(pool);
        Ok(FileSystemTarget::new(Arc::new(namespace), ground))
    }

    /// Closes the pool; the shelf stays.
    #[allow(
        dead_code,
        reason = "clean closes become an operation with the proof's wider histories"
    )]
    pub fn close(mut self) -> Result<ShelfSnapshot, Finding> {
        let pool = self.pool.take().expect("it is open");
        pool.close().map_err(|error| format!("close: {error}"))?;
        Ok(self.shelf.snapshot())
    }
}

impl SimPool {
    fn pool(&self) -> &OpenPool {
        self.pool.as_ref().expect("it is open")
    }

    fn returning(&self) -> Vec<DiskIndex> {
        self.pool().membership.as_ref().map(|one| one.returning()).unwrap_or_default()
    }

    /// What the daemon does with reports: bad shards that no reader mended are noted.
    fn attend(&self) {
        let pool = self.pool();
        while let Some(report) = pool.reports.pop() {
            if let Report::BadShard { object, shard, repaired: false, .. } = report {
                pool.namespace.note_bad(object, shard);
            }
        }
    }

    /// One of the disks that do not take part is plugged in again, and asked for, as `isotherm disk online`
    /// does. False if there is none that can be.
    fn put_back(&mut self, pick: u32) -> Result<bool, String> {
        let members = self.pool().members.all();
        let out = members.iter().filter(|member| member.state != MemberState::Active);
        let out: Vec<DiskIndex> = out.map(|member| member.index).collect();
        // A disk that was rolled back is not taken, whatever is done: it would be asked for again and again.
        let out: Vec<DiskIndex> =
            out.into_iter().filter(|disk| !self.refused.contains(disk)).collect();
        let Some(membership) = self.pool().membership.clone().filter(|_| !out.is_empty()) else {
            return Ok(false);
        };
        let disk = out[pick as usize % out.len()];
        let at = disk.as_usize();
        let suspect = self.shelf.is_suspect(at);
        let back = self.shelf.put_back(at);
        membership.close(disk).map_err(|error| format!("disk {disk} is not closed: {error}"))?;
        let (_, access) = SimPool::rooms(&self.shelf, &self.clock);
        let handle: DiskHandle = back;
        let Some(candidate) = candidates(&access, vec![(at, handle)]).pop() else {
            return Err(format!("disk {disk} is back, and has no label"));
        };
        match membership.take_back(candidate) {
            Ok(()) => Ok(true),
            Err(MembershipError::NotIt { .. }) if suspect => {
                self.refused.insert(disk);
                Ok(true)
            }
            Err(error) => Err(format!("disk {disk} is not taken back: {error}")),
        }
    }

    fn check(&self) -> Result<CheckReport, String> {
        let (pool, name) = (self.pool(), |disk: DiskIndex| format!("disk {disk}"));
        check(&pool.namespace, &pool.platter, true, &name, &mut |_| true)
            .map_err(|error| format!("check: {error}"))
    }

    /// Checks again and again, until nothing is found; false if disks that go on failing keep it from that.
    fn check_until_clean(&mut self) -> Result<bool, String> {
        for _ in 0..CHECKS_MAX {
            if self.check()?.found == 0 {
                return Ok(true);
            }
            self.pass(2_000);
        }
        Ok(false)
    }

    /// None if every shard that there should be is there, and good; else what is missing.
    fn is_whole(&self) -> Result<Option<String>, String> {
        let report = self.check()?;
        if report.found > 0 {
            let told: Vec<String> = report.findings.iter().map(|one| format!("{one:?}")).collect();
            return Ok(Some(format!("{} findings: {}", report.found, told.join("\n"))));
        }
        let pool = self.pool();
        let all_here = pool.members.all().iter().all(|one| one.state == MemberState::Active);
        if !all_here {
            // Who was rolled back stays out; there may be too few others for everything.
            return Ok(None);
        }
        if !self.returning().is_empty() {
            return Ok(Some(format!("{:?} are back, and recorded as out", self.returning())));
        }
        let page = pool.namespace.lacking(ObjectId(0)).map_err(|error| error.to_string())?;
        let unkeyed = pool.namespace.lacking_unkeyed();
        let lacks = page.found.len() + unkeyed;
        Ok((lacks > 0).then(|| format!("{:?}, {unkeyed} tables and chains", page.found)))
    }
}

fn told(label: &Label) -> String {
    let Label { index, sequence, claim, member_states: states, open, .. } = label;
    format!("disk {index}: label {sequence} of {claim:?}, open {open}, {states:?}")
}

/// The disks that have a label.
fn candidates(access: &Access, disks: Vec<(usize, DiskHandle)>) -> Vec<Candidate> {
    let handles: Vec<DiskHandle> = disks.iter().map(|(_, disk)| disk.clone()).collect();
    let labels = read_labels(access, &handles);
    let found = disks.into_iter().zip(labels).filter_map(|((at, disk), label)| {
        let drives = BTreeSet::from([DriveKey(format!("drive{at}"))]);
        let FoundLabel { label, copies } = label.ok()?;
        Some(Candidate { disk, drives, label, copies })
    });
    found.collect()
}

impl Drop for SimPool {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            MOVED.set(MOVED.get() + pool.namespace.progress().moved_bytes);
        }
        // Tasks and timed events hold the world that holds them.
        self.shelf.world.clear();
    }
}

impl Ground for SimPool {
    fn set_now(&mut self, now: WallTime) {
        self.clock.set(now);
    }

    fn pass(&mut self, ms: u64) {
        self.shelf.world.run_for(Duration::from_millis(ms));
        self.attend();
    }

    fn befall(&mut self, disk: u32, mishap: Mishap) -> Result<bool, String> {
        match mishap {
            Mishap::Return => self.put_back(disk),
            _ => Ok(self.shelf.befall(disk, mishap)),
        }
    }

    fn work(&mut self, work: Work) -> Result<bool, String> {
        let namespace = self.pool().namespace.clone();
        match work {
            Work::Checkpoint => {
                namespace.checkpoint_within(PATIENCE);
            }
            Work::Repair => namespace.repair_event().notify(),
            Work::Reclaim => namespace.reclaim_event().notify(),
            Work::Check => {
                if self.check_until_clean()? {
                    let members = self.pool().members.all();
                    let returning = self.returning();
                    let active = members.iter().filter(|one| {
                        one.state == MemberState::Active && !returning.contains(&one.index)
                    });
                    let active = active.map(|one| one.index.as_usize()).collect();
                    self.shelf.forgive(&active);
                }
            }
        }
        Ok(true)
    }

    fn faults(&self) -> Vec<&'static str> {
        self.shelf.faults()
    }

    fn settle(&mut self) -> Result<(), String> {
        self.shelf.heal_all();
        while self.put_back(0)? {}
        let mut last = String::new();
        for _ in 0..SETTLE_ROUNDS {
            self.pass(5_000);
            match self.is_whole()? {
                None => return Ok(()),
                Some(why) => last = why,
            }
        }
        Err(format!("it does not become whole: {last}"))
    }

    fn check_invariants(&self) {
        self.pool.as_ref().expect("it is open").namespace.check_invariants();
    }

    fn audit(&self) -> Result<(), String> {
        let namespace = &self.pool.as_ref().expect("it is open").namespace;
        let audit = namespace.audit().map_err(|error| format!("audit: {error}"))?;
        if !audit.is_clean() {
            let told: Vec<String> = audit.findings.iter().map(|found| found.to_string()).collect();
            return Err(format!("R18: {} contradictions:\n{}", audit.found, told.join("\n")));
        }
        if !audit.compared_space {
            return Err("the pool did not come to rest for an audit".to_string());
        }
        Ok(())
    }
}

impl Machine for Engine {
    type Snapshot = ShelfSnapshot;

    fn create(seed: u64) -> Result<Engine, Finding> {
        let engine = SimPool::open(SimPool::make(seed, SHAPE.get())?)?;
        // The root directory is made by create: give it attributes that the model knows.
        let mode = SetAttr { mode: Some(0o755), ..SetAttr::default() };
        let attributes = engine.fs.setattr(Ino::ROOT, None, &mode, Caller::default());
        attributes.map_err(|error| format!("chmod of the root: {error}"))?;
        engine.fs.sync().map_err(|error| format!("first sync: {error}"))?;
        Ok(engine)
    }

    fn snapshot_in(&mut self, micros: u64) {
        self.ground.shelf.snapshot_in(micros);
    }

    fn snapshot_now(&mut self) -> ShelfSnapshot {
        self.ground.shelf.snapshot()
    }

    fn taken(&mut self) -> Vec<ShelfSnapshot> {
        self.ground.shelf.taken()
    }

    fn recover(snapshot: &ShelfSnapshot, how: How) -> Result<Engine, Finding> {
        let shelf = Shelf::recover(snapshot, how);
        if let Some(micros) = how.snapshot_in {
            shelf.snapshot_in(micros);
        }
        SimPool::open(shelf)
    }
}
