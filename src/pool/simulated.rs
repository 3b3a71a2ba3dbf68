//! Whole pools on simulated disks, in one thread, from one seed: the engine is the real one from the
//! namespace down to the disks' queues; only the machine under it is a [`World`].

use std::collections::BTreeSet;

use super::assemble::{AssembleOptions, Candidate};
use super::create::{CreateOptions, NewDisk, create};
use super::labels::{FoundLabel, read_labels};
use super::open::{Machine, OpenError, OpenOptions, OpenPool, TaskHost, open};
use crate::base::limits::BUFFER_POOL_BYTES;
use crate::base::simulation::World;
use crate::base::sync::Arc;
use crate::base::{Clock, MIB, Task, Wait};
use crate::fleet::Access;
use crate::fleet::disk::probe::{DriveKey, Probe};
use crate::fleet::disk::sim::{Image, SimDisk, SimParameters};
use crate::fleet::disk::{BufferPool, DiskHandle};
use crate::format::Redundancy;

/// Tasks of a simulated machine are stepped inside its waits.
struct WorldHost(Arc<World>);

impl TaskHost for WorldHost {
    fn run(&self, task: Box<dyn Task>) {
        self.0.add_task(task);
    }

    fn stop(&self) {
        self.0.stop_tasks();
    }
}

/// A simulated machine with disks.
pub struct SimMachine {
    /// Its time and tasks.
    pub world: Arc<World>,
    /// Its disks.
    pub disks: Vec<Arc<SimDisk>>,
}

/// The identity of every simulated machine.
const MACHINE_ID: [u8; 16] = [7; 16];

impl SimMachine {
    /// A machine with empty disks of these sizes, quick ones.
    pub fn new(seed: u64, disk_bytes: &[u64]) -> SimMachine {
        let world = World::new(seed);
        let disks = disk_bytes.iter().enumerate();
        let disks =
            disks.map(|(index, &bytes)| SimDisk::new(&world, parameters(index, bytes))).collect();
        SimMachine { world, disks }
    }

    /// A machine that finds these images on its disks: after a crash, or with some taken away.
    pub fn with_images(seed: u64, images: Vec<(usize, Image)>) -> SimMachine {
        let world = World::new(seed);
        let disks = images.into_iter().map(|(index, image)| {
            let parameters = parameters(index, image.bytes());
            SimDisk::open(&world, parameters, image)
        });
        let disks = disks.collect();
        SimMachine { world, disks }
    }

    fn access(&self) -> Access {
        let wait: Arc<dyn Wait> = self.world.clone();
        Access {
            clock: self.world.clone(),
            wait: wait.clone(),
            buffers: BufferPool::new(64 * MIB, wait),
        }
    }

    /// Makes a pool of all disks. Panics if that is refused: the caller chose the disks.
    pub fn create(&self, redundancy: Redundancy) {
        let options = CreateOptions {
            name: "simulated".to_string(),
            redundancy,
            enclosures: Vec::new(),
            machine_id: MACHINE_ID,
            now_seconds: self.world.wall().seconds,
            force: false,
        };
        let disks: Vec<NewDisk> =
            self.handles().into_iter().map(|disk| NewDisk { probe: blank(&disk), disk }).collect();
        let mut random = self.world.fork_random();
        create(&self.access(), &options, &disks, &mut random).expect("blank disks make a pool");
    }

    /// One more disk, blank.
    #[cfg(test)]
    pub(crate) fn plug_in(&mut self, bytes: u64) -> NewDisk {
        let disk = SimDisk::new(&self.world, parameters(self.disks.len(), bytes));
        self.disks.push(disk.clone());
        let disk: DiskHandle = disk;
        NewDisk { probe: blank(&disk), disk }
    }

    /// A disk that was unplugged is back, with this on it. None if it has no label.
    #[cfg(test)]
    pub(crate) fn put_back(&mut self, index: usize, image: Image) -> Option<Candidate> {
        let disk = SimDisk::open(&self.world, parameters(index, image.bytes()), image);
        self.disks[index] = disk.clone();
        self.candidates_among(vec![disk]).pop()
    }

    /// The disks that have a label.
    fn candidates(&self) -> Vec<Candidate> {
        self.candidates_among(self.handles())
    }

    fn candidates_among(&self, handles: Vec<DiskHandle>) -> Vec<Candidate> {
        let labels = read_labels(&self.access(), &handles);
        let candidates = handles.into_iter().zip(labels).filter_map(|(disk, label)| {
            let drives = BTreeSet::from([DriveKey(disk.identity().path.clone())]);
            let FoundLabel { label, copies } = label.ok()?;
            Some(Candidate { disk, drives, label, copies })
        });
        candidates.collect()
    }

    /// The root that the next mount would begin with. Panics if there is none.
    #[cfg(test)]
    pub(crate) fn root(&self) -> crate::format::Root {
        let reports = Arc::new(crate::fleet::Reports::new());
        let options = AssembleOptions { machine_id: MACHINE_ID, ..AssembleOptions::default() };
        let assembled =
            super::assemble::assemble(&self.access(), self.candidates(), &options, reports);
        assembled.expect("the disks make a pool").root
    }

    /// Opens the pool with the disks that have a label.
    pub fn open(&self, options: OpenOptions) -> Result<OpenPool, OpenError> {
        self.open_with_tasks(options, Arc::new(WorldHost(self.world.clone())))
    }

    fn open_with_tasks(
        &self,
        mut options: OpenOptions,
        tasks: Arc<dyn TaskHost>,
    ) -> Result<OpenPool, OpenError> {
        options.assemble = AssembleOptions { machine_id: MACHINE_ID, ..options.assemble };
        // Here who waits for memory waits inside whoever holds it: there must be enough for all who write
        // at once, which a machine's threads do not need.
        options.buffer_bytes = options.buffer_bytes.max(BUFFER_POOL_BYTES);
        let machine = Machine {
            clock: self.world.clone(),
            wait: self.world.clone(),
            tasks,
            random: self.world.fork_random(),
        };
        open(machine, self.candidates(), options)
    }

    fn handles(&self) -> Vec<DiskHandle> {
        self.disks.iter().map(|disk| disk.clone() as DiskHandle).collect()
    }
}

fn parameters(index: usize, bytes: u64) -> SimParameters {
    SimParameters::quick(&format!("disk{index}"), bytes)
}

fn blank(disk: &DiskHandle) -> Probe {
    Probe {
        identity: disk.identity().clone(),
        drives: BTreeSet::from([DriveKey(disk.identity().path.clone())]),
        signatures: Vec::new(),
        uses: Vec::new(),
        read_only: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sync::Mutex;
    use crate::base::{GIB, Ino, Pace};
    use crate::namespace::{Caller, FileKind, Namespace, NewInode};

    const FILE: NewInode = NewInode { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };

    fn machine(seed: u64) -> SimMachine {
        let sizes: Vec<u64> = (0..6).map(|disk| (1 + disk % 3) * GIB).collect();
        let machine = SimMachine::new(seed, &sizes);
        machine.create(Redundancy::Erasure { data: 3, parity: 2 });
        machine
    }

    fn write(namespace: &Namespace, name: &str, bytes: &[u8]) -> Ino {
        let attr = namespace
            .mknod(Ino::ROOT, name.as_bytes(), &FILE, Caller::default())
            .expect("the name is new");
        for (index, part) in bytes.chunks(1 << 17).enumerate() {
            let offset = (index << 17) as u64;
            namespace.write(attr.ino, offset, part, false, false).expect("there is room");
        }
        attr.ino
    }

    fn read(namespace: &Namespace, name: &str) -> Vec<u8> {
        let attr = namespace.lookup(Ino::ROOT, name.as_bytes()).expect("the name is there");
        let mut bytes = Vec::new();
        namespace.read(attr.ino, 0, u32::MAX, &mut bytes).expect("it reads");
        bytes
    }

    fn content(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        crate::base::Random::new(seed).fill(&mut bytes);
        bytes
    }

    #[test]
    fn what_was_written_is_there_after_close_and_open() {
        let machine = machine(1);
        let pool = machine.open(OpenOptions::default()).expect("the pool opens");
        for (index, length) in [0, 1, 4096, 70_000, 3 << 20, 20 << 20].into_iter().enumerate() {
            write(&pool.namespace, &format!("f{index}"), &content(index as u64, length));
        }
        pool.namespace.check_invariants();
        pool.close().expect("it closes");
        let pool = machine.open(OpenOptions::default()).expect("it opens again");
        assert!(!pool.was_unclean);
        assert_eq!(pool.replayed, 0, "a clean pool has nothing to replay");
        for (index, length) in [0, 1, 4096, 70_000, 3 << 20, 20 << 20].into_iter().enumerate() {
            assert_eq!(read(&pool.namespace, &format!("f{index}")), content(index as u64, length));
        }
        pool.close().expect("it closes");
    }

    #[test]
    fn what_was_synced_survives_a_power_cut_and_two_lost_disks() {
        for seed in 0..10 {
            let machine = machine(seed);
            let pool = machine.open(OpenOptions::default()).expect("the pool opens");
            for (index, length) in [5, 4096, 300_000, 9 << 20].into_iter().enumerate() {
                let ino =
                    write(&pool.namespace, &format!("f{index}"), &content(index as u64, length));
                pool.namespace.fsync(ino).expect("it syncs");
            }
            let mut random = crate::base::Random::new(seed);
            let images: Vec<(usize, Image)> = machine
                .disks
                .iter()
                .enumerate()
                .map(|(index, disk)| (index, disk.snapshot().crash_image(&mut random)))
                .filter(|(index, _)| *index as u64 != seed % 6 && *index as u64 != (seed + 1) % 6)
                .collect();
            machine.world.clear();
            drop(pool);
            let machine = SimMachine::with_images(seed + 100, images);
            let pool = machine.open(OpenOptions::default()).expect("it opens without two disks");
            for (index, length) in [5, 4096, 300_000, 9 << 20].into_iter().enumerate() {
                let name = format!("f{index}");
                assert_eq!(read(&pool.namespace, &name), content(index as u64, length), "{seed}");
            }
            pool.namespace.check_invariants();
            pool.close().expect("it closes");
        }
    }

    /// Found by killing the daemon: replay kept the place of such an object for ever, and then took
    /// the next object there for damage.
    #[test]
    fn an_object_named_and_freed_in_one_batch_leaves_no_trace_in_replay() {
        for seed in 0..5 {
            let machine = machine(seed);
            let pool = machine.open(OpenOptions::default()).expect("the pool opens");
            let namespace = &pool.namespace;
            // Flushed and cut at some 5 s into a batch that commits at some 10 s.
            let first = write(namespace, "first", &content(1, 9 << 20));
            machine.world.run_for(std::time::Duration::from_secs(6));
            namespace.unlink(Ino::ROOT, b"first").expect("it is there");
            namespace.forget(first, 1);
            machine.world.run_for(std::time::Duration::from_secs(6));
            for index in 0..4 {
                let ino = write(namespace, &format!("f{index}"), &content(index, 9 << 20));
                namespace.fsync(ino).expect("it syncs");
            }
            let mut random = crate::base::Random::new(seed);
            let disks = machine.disks.iter().enumerate();
            let images = disks
                .map(|(index, disk)| (index, disk.snapshot().crash_image(&mut random)))
                .collect();
            machine.world.clear();
            drop(pool);
            let machine = SimMachine::with_images(seed + 100, images);
            let pool = machine.open(OpenOptions::default()).expect("it opens after a crash");
            assert!(pool.replayed > 0, "the crash left a log");
            for index in 0..4 {
                assert_eq!(read(&pool.namespace, &format!("f{index}")), content(index, 9 << 20));
            }
            pool.close().expect("it closes");
        }
    }

    /// Found by killing the daemon (a block had an older version than was synced): an fsync that met
    /// bytes which a flush had written but not cut named them in the index, and left older logged
    /// bytes of the same range valid in the log.
    #[test]
    fn an_fsync_that_overtakes_a_flush_voids_what_was_logged_before() {
        for cut_too in [false, true] {
            let machine = machine(3);
            let pool = machine.open(OpenOptions::default()).expect("the pool opens");
            let namespace = &pool.namespace;
            let ino = write(namespace, "file", &content(1, 4096));
            namespace.fsync(ino).expect("the first version is logged");
            namespace.write(ino, 0, &content(2, 4096), false, false).expect("there is room");
            let mut images = Vec::new();
            let take = |images: &mut Vec<(usize, Image)>| {
                let disks = machine.disks.iter().enumerate();
                images.extend(disks.map(|(index, disk)| (index, disk.snapshot().live().clone())));
            };
            namespace.with_flush_before_its_cut(|| {
                namespace.fsync(ino).expect("the second version is synced");
                if !cut_too {
                    take(&mut images);
                }
            });
            if cut_too {
                namespace.fsync(ino).expect("the cut is committed");
                take(&mut images);
            }
            machine.world.clear();
            drop(pool);
            let machine = SimMachine::with_images(4, images);
            let pool = machine.open(OpenOptions::default()).expect("it opens after a crash");
            assert_eq!(read(&pool.namespace, "file"), content(2, 4096), "cut too: {cut_too}");
            pool.close().expect("it closes");
        }
    }

    /// A machine with what is on these disks now, as after a crash that loses nothing.
    fn crashed(machine: &SimMachine, seed: u64) -> SimMachine {
        let disks = machine.disks.iter().enumerate();
        let images = disks.map(|(index, disk)| (index, disk.snapshot().live().clone())).collect();
        SimMachine::with_images(seed, images)
    }

    /// Inode numbers were given out again after a crash, over files that existed: a checkpoint that
    /// ran between a lease's commit and its use put the older lease into its root.
    #[test]
    fn r5_a_checkpoint_between_a_lease_and_its_use_does_not_take_it_back() {
        let machine = machine(5);
        let pool = machine.open(OpenOptions::default()).expect("the pool opens");
        let namespace = &pool.namespace;
        namespace.with_lease_before_its_use(|| namespace.checkpoint().expect("it is written"));
        let first = write(namespace, "first", &content(1, 5000));
        namespace.fsync(first).expect("it syncs");
        let crashed = crashed(&machine, 6);
        machine.world.clear();
        drop(pool);
        let pool = crashed.open(OpenOptions::default()).expect("it opens after a crash");
        let second = write(&pool.namespace, "second", &content(2, 5000));
        assert_ne!(first, second, "[R5]");
        assert_eq!(read(&pool.namespace, "first"), content(1, 5000));
        pool.close().expect("it closes");
    }

    /// All tasks run but one, which the test steps itself.
    struct HoldsBack {
        name: &'static str,
        rest: WorldHost,
        held: Mutex<Option<Box<dyn Task>>>,
    }

    impl TaskHost for HoldsBack {
        fn run(&self, task: Box<dyn Task>) {
            if task.name() == self.name {
                *self.held.lock() = Some(task);
            } else {
                self.rest.run(task);
            }
        }

        fn stop(&self) {
            self.rest.stop();
        }
    }

    /// A file came and went while a checkpoint was on its way, and the checkpoint's own objects went to
    /// where it had been. Replay found its place taken, and the pool was said to have lost more than
    /// redundancy covers.
    #[test]
    fn r4_what_a_checkpoint_wrote_where_a_later_batch_had_been_is_no_damage() {
        (0..20).for_each(|seed| a_file_goes_below_a_checkpoint(seed, false));
    }

    /// So was one whose checkpoint had put its own objects where a file had been that went since it began.
    #[test]
    fn r4_what_a_checkpoint_wrote_where_an_older_file_had_been_is_no_damage() {
        (0..20).for_each(|seed| a_file_goes_below_a_checkpoint(seed, true));
    }

    fn a_file_goes_below_a_checkpoint(seed: u64, is_older: bool) {
        let machine = machine(seed);
        let world = &machine.world;
        let rest = WorldHost(world.clone());
        let tasks = Arc::new(HoldsBack { name: "checkpointer", rest, held: Mutex::new(None) });
        let pool = machine.open_with_tasks(OpenOptions::default(), tasks.clone());
        let pool = pool.expect("it opens");
        let mut checkpointer = tasks.held.lock().take().expect("it was started");
        let namespace = &pool.namespace;
        let stays = write(namespace, "stays", &content(1, 4096));
        namespace.fsync(stays).expect("it syncs");
        let come = |index: u64| {
            let ino = write(namespace, &format!("{index}"), &content(2, 3 << 20));
            namespace.sync().expect("it is written");
            namespace.forget(ino, 1);
        };
        if is_older {
            (0..8).for_each(come);
        }
        // Frozen, and what the log alone has is in objects; the root is still to be written.
        world.run_for(std::time::Duration::from_secs(100));
        while checkpointer.step() != Pace::Again {
            world.run_for(std::time::Duration::from_millis(20));
        }
        // All disks, one group each: wherever the checkpoint's objects go, something has been there.
        for index in 0..8 {
            if !is_older {
                come(index);
            }
            namespace.unlink(Ino::ROOT, format!("{index}").as_bytes()).expect("it is there");
            world.run_for(std::time::Duration::from_secs(6));
            namespace.sync().expect("its end is durable");
        }
        let root = machine.root().sequence;
        while machine.root().sequence == root {
            checkpointer.step();
            world.run_for(std::time::Duration::from_millis(20));
        }
        let crashed = crashed(&machine, seed);
        world.clear();
        drop(checkpointer);
        drop(pool);
        let pool = crashed.open(OpenOptions::default()).expect("it opens after a crash");
        assert_eq!(pool.read_only, crate::pool::open::ReadOnly::No, "{seed}");
        assert_eq!(read(&pool.namespace, "stays"), content(1, 4096));
        assert_eq!(pool.namespace.audit().expect("the index reads").found, 0, "[R18]");
        pool.close().expect("it closes");
    }

    /// What was logged after a checkpoint had begun was lost with the log, if the memtable was frozen
    /// once more, and the cut of these bytes was not durable yet, before the root was written.
    #[test]
    fn r10_a_checkpoint_passes_no_more_of_the_log_than_it_has_waited_for() {
        let machine = machine(7);
        let world = &machine.world;
        let rest = WorldHost(world.clone());
        let tasks = Arc::new(HoldsBack { name: "checkpointer", rest, held: Mutex::new(None) });
        let mut options = OpenOptions::default();
        options.index.memtable_bytes = 32 << 10;
        let pool = machine.open_with_tasks(options.clone(), tasks.clone()).expect("it opens");
        let mut checkpointer = tasks.held.lock().take().expect("it was started");
        let namespace = &pool.namespace;
        let file = write(namespace, "file", &content(1, 4096));
        namespace.fsync(file).expect("it syncs");
        // Due by its age; waits until what the log alone has is in objects, and this is committed.
        world.run_for(std::time::Duration::from_secs(100));
        while checkpointer.step() != Pace::Again {
            world.run_for(std::time::Duration::from_millis(20));
        }
        // Meanwhile: a newer version is logged, the memtable is frozen behind it and written out, and
        // a third version is cut.
        namespace.write(file, 0, &content(2, 4096), false, false).expect("there is room");
        namespace.fsync(file).expect("the second version is synced");
        for index in 0..200 {
            write(namespace, &format!("{index:0100}"), b"");
        }
        world.run_for(std::time::Duration::from_secs(6));
        namespace.write(file, 0, &content(3, 4096), false, false).expect("there is room");
        world.run_for(std::time::Duration::from_millis(5500));
        while checkpointer.step() == Pace::Again {}
        let crashed = crashed(&machine, 8);
        world.clear();
        drop(checkpointer);
        drop(pool);
        let pool = crashed.open(options).expect("it opens after a crash");
        let found = read(&pool.namespace, "file");
        assert!(found == content(2, 4096) || found == content(3, 4096), "[I1]");
        pool.close().expect("it closes");
    }
}
