//! Power that fails again and again, mounts included, with other disks away each time: what one attempt
//! at recovery writes must never harm what another, which sees other disks, builds on [I1, I8, R4].
//!
//! Files hold one version of themselves, as a whole. What was synced is there, or something newer; what
//! was found once a mount had succeeded is there from then on.

use super::*;
use crate::base::Ino;
use crate::base::sync::Mutex;
use crate::fleet::disk::sim::Snapshot;
use crate::namespace::{Caller, FileKind, Namespace, NewInode, RenameMode};
use crate::pool::open::{OpenOptions, OpenPool, ReadOnly};
use crate::pool::simulated::SimMachine;

const FILE: NewInode = NewInode { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };
/// Bytes of each file, whatever its version.
const LENGTHS: [usize; 7] = [60, 300, 4096, 20_000, 150_000, 700_000, 3 << 20];

/// What the world outside knows of one file: versions from the one that must be there to the newest.
#[derive(Clone, Copy, Default, Debug)]
struct Versions {
    floor: u32,
    newest: u32,
}

type Known = [Versions; LENGTHS.len()];

#[derive(Default)]
struct Shared {
    known: Known,
    crash: Option<(Vec<Snapshot>, Known)>,
}

struct Life {
    seed: u64,
    random: Random,
    m: usize,
    images: Vec<Image>,
    known: Known,
    mounts: usize,
    cut_short: usize,
}

fn content(file: usize, version: u32) -> Vec<u8> {
    let mut bytes = vec![0; LENGTHS[file]];
    Random::new((file as u64) << 32 | u64::from(version)).fill(&mut bytes);
    bytes[..4].copy_from_slice(&version.to_le_bytes());
    bytes
}

fn name(file: usize) -> Vec<u8> {
    format!("f{file}").into_bytes()
}

fn open_options() -> OpenOptions {
    let mut options = OpenOptions::default();
    options.namespace.commit_interval = Duration::from_millis(300);
    options.index.memtable_bytes = 16 << 10;
    options.index.table_bytes = 64 << 10;
    options.index.block_bytes = 4 << 10;
    options.index.level_bytes = 256 << 10;
    options
}

impl Life {
    fn begin(seed: u64) -> Life {
        let mut random = Random::new(seed);
        let (disks, m) = [(3, 1), (4, 1), (5, 2), (6, 2)][random.below(4) as usize];
        println!("seed {seed}: {disks} disks, m = {m}");
        let machine = SimMachine::new(random.next_u64(), &vec![DISK_BYTES; disks]);
        machine.create(parity(m as u8));
        let images = machine.disks.iter().map(|disk| disk.snapshot().live().clone()).collect();
        let known = Known::default();
        Life { seed, random, m, images, known, mounts: 0, cut_short: 0 }
    }

    /// One mount, cut short at any moment, with up to m disks away.
    fn mount(&mut self) {
        let mut away: Vec<usize> = Vec::new();
        for _ in 0..self.random.below(self.m as u64 + 1) {
            away.push(self.random.below(self.images.len() as u64) as usize);
        }
        let here: Vec<usize> = (0..self.images.len()).filter(|d| !away.contains(d)).collect();
        let images = here.iter().map(|&disk| (disk, self.images[disk].clone())).collect();
        let machine = SimMachine::with_images(self.random.next_u64(), images);
        let shared = Arc::new(Mutex::new(Shared { known: self.known, crash: None }));
        self.trouble(&machine);
        self.schedule_crash(&machine, &shared);
        let opened = machine.open(open_options());
        let cut_short = shared.lock().crash.is_some();
        let mut read_only = false;
        match opened {
            Err(error) if !cut_short => {
                panic!("seed {}: without {away:?} it does not open: {error}", self.seed)
            }
            Err(_) => {}
            Ok(pool) => {
                read_only = pool.read_only != ReadOnly::No;
                if !cut_short && !read_only {
                    self.mounts += 1;
                    self.live(&machine, &pool, &shared);
                }
                machine.world.stop_tasks();
            }
        }
        self.cut_short += usize::from(cut_short);
        let crash = shared.lock().crash.take();
        let (snapshots, known) = crash.unwrap_or_else(|| {
            let now = machine.disks.iter().map(|disk| disk.snapshot());
            (now.collect(), shared.lock().known)
        });
        for (disk, snapshot) in here.into_iter().zip(snapshots) {
            self.images[disk] = snapshot.crash_image(&mut self.random);
        }
        if !read_only {
            self.known = known;
        }
        machine.world.clear();
    }

    /// Slow disks, so that at a crash some have what others have not.
    fn trouble(&mut self, machine: &SimMachine) {
        let slow = self.random.below(machine.disks.len() as u64 + 1);
        for _ in 0..slow {
            let disk = &machine.disks[self.random.below(machine.disks.len() as u64) as usize];
            let factor = 1.0 + self.random.unit() * 100.0;
            let at = machine.world.now() + Duration::from_micros(self.random.below(100_000));
            let disk = disk.clone();
            machine.world.schedule(at, Box::new(move || disk.set_slow(factor)));
        }
    }

    fn schedule_crash(&mut self, machine: &SimMachine, shared: &Arc<Mutex<Shared>>) {
        let bits = 10 + self.random.below(13);
        let at = self.random.below(1 << bits);
        let (disks, shared) = (machine.disks.clone(), shared.clone());
        let snapshot = move || {
            let snapshots = disks.iter().map(|disk| disk.snapshot()).collect();
            let mut shared = shared.lock();
            let known = shared.known;
            shared.crash = Some((snapshots, known));
        };
        let at = machine.world.now() + Duration::from_micros(at);
        machine.world.schedule(at, Box::new(snapshot));
    }

    /// Looks at everything, then changes some of it until the power fails.
    fn live(&mut self, machine: &SimMachine, pool: &OpenPool, shared: &Arc<Mutex<Shared>>) {
        let namespace = &pool.namespace;
        for file in 0..LENGTHS.len() {
            let versions = shared.lock().known[file];
            let found = self.look(namespace, file, versions);
            shared.lock().known[file] = Versions { floor: found, newest: found };
        }
        for _ in 0..3 + self.random.below(30) {
            if shared.lock().crash.is_some() {
                return;
            }
            self.change(namespace, shared);
            let bits = self.random.below(19);
            let pause = self.random.below(1 << bits);
            machine.world.run_for(Duration::from_micros(pause));
        }
    }

    /// Which version of the file is there.
    fn look(&self, namespace: &Namespace, file: usize, versions: Versions) -> u32 {
        let seed = self.seed;
        let ino = match namespace.lookup(Ino::ROOT, &name(file)) {
            Ok(attr) => attr.ino,
            Err(error) => {
                assert_eq!(versions.floor, 0, "seed {seed}: file {file} is gone: {error}");
                return 0;
            }
        };
        let mut bytes = Vec::new();
        if let Err(error) = namespace.read(ino, 0, u32::MAX, &mut bytes) {
            panic!("seed {seed}: file {file}, {versions:?}, cannot be read: {error}");
        }
        assert_eq!(bytes.len(), LENGTHS[file], "seed {seed}: length of file {file}");
        let found = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
        assert!(
            (versions.floor..=versions.newest).contains(&found),
            "seed {seed}: file {file} is of version {found}, not of {versions:?}"
        );
        assert!(bytes == content(file, found), "seed {seed}: file {file} is mixed");
        found
    }

    fn change(&mut self, namespace: &Namespace, shared: &Arc<Mutex<Shared>>) {
        let file = self.random.below(LENGTHS.len() as u64) as usize;
        let version = {
            let versions = &mut shared.lock().known[file];
            versions.newest += 1;
            versions.newest
        };
        let bytes = content(file, version);
        let there = namespace.lookup(Ino::ROOT, &name(file)).map(|attr| attr.ino).ok();
        let synced = self.random.below(3) > 0;
        let ino = match there {
            Some(ino) if self.random.one_in(2) => {
                namespace.write(ino, 0, &bytes, false, false).expect("there is room");
                ino
            }
            _ => {
                // Left over from a crash, perhaps.
                let _ = namespace.unlink(Ino::ROOT, b"new");
                let new = namespace.mknod(Ino::ROOT, b"new", &FILE, Caller::default());
                let ino = new.expect("the name is free").ino;
                namespace.write(ino, 0, &bytes, false, false).expect("there is room");
                let mode = RenameMode::Replace;
                let renamed = namespace.rename(Ino::ROOT, b"new", Ino::ROOT, &name(file), mode);
                renamed.expect("it replaces the old one");
                if let Some(old) = there {
                    namespace.forget(old, 1);
                }
                ino
            }
        };
        if synced {
            namespace.fsync(ino).expect("it syncs");
            shared.lock().known[file].floor = version;
        }
        if self.random.one_in(12) {
            namespace.checkpoint().expect("it is written");
        }
    }
}

#[test]
fn i8_recoveries_cut_short_with_other_disks_each_time_harm_nothing() {
    let seeds: Vec<u64> = match std::env::var("ISOTHERM_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => vec![seed],
        None => {
            let minutes = std::env::var("ISOTHERM_MINUTES").ok().and_then(|m| m.parse().ok());
            (1..=minutes.map_or(20, |minutes: u64| minutes * 100)).collect()
        }
    };
    let (mut mounts, mut cut_short) = (0, 0);
    for seed in seeds {
        let mut life = Life::begin(seed);
        for _ in 0..12 {
            life.mount();
        }
        mounts += life.mounts;
        cut_short += life.cut_short;
    }
    println!("{mounts} mounts succeeded, {cut_short} were cut short before that");
}
