//! The figures by themselves, and what least-expected-wait does with them (issue 2, demand 6).

use super::*;
use crate::base::simulation::World;
use crate::base::sync::Arc;
use crate::base::{MIB, Random};
use crate::fleet::disk::sim::SimParameters;
use crate::fleet::disk::{Buffer, Class, Disk, DiskHandle, Fan, Operation, Request, SimDisk};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn run_to(world: &World, at: u64) {
    let at = Ticks(at * 1_000_000);
    world.run_for(at.since(world.now()));
}

#[test]
fn s_moves_by_a_tenth_among_frequent_samples_and_by_more_after_silence() {
    let world = World::new(1);
    let meter = Meter::new(world.now());
    let now = world.now();
    meter.sample(now, 11.0);
    assert!((meter.load(&*world).slowdown - 2.0).abs() < 0.01);
    meter.sample(now, 2.0);
    assert!((meter.load(&*world).slowdown - 2.0).abs() < 0.01);
    run_to(&world, 5000);
    meter.sample(world.now(), 11.0);
    assert!(meter.load(&*world).slowdown > 10.5, "an old estimate yields to a new measurement");
    for _ in 0..60 {
        meter.sample(world.now(), 1.0);
    }
    assert!(meter.load(&*world).slowdown < 1.1);
}

#[test]
fn a_slow_disk_that_gets_no_requests_looks_healthy_again_after_a_while() {
    let world = World::new(1);
    let meter = Meter::new(world.now());
    for _ in 0..100 {
        meter.sample(world.now(), 10.0);
    }
    assert!(meter.load(&*world).slowdown > 9.9);
    run_to(&world, 1000);
    let after = meter.load(&*world).slowdown;
    assert!((4.0..5.0).contains(&after), "{after}");
    run_to(&world, 10_000);
    assert!(meter.load(&*world).slowdown < 1.01);
    // A fast one does not look slower for being idle.
    for _ in 0..100 {
        meter.sample(world.now(), 0.2);
    }
    run_to(&world, 20_000);
    assert!(meter.load(&*world).slowdown < 0.21);
}

#[test]
fn silence_with_a_request_in_flight_is_a_measurement() {
    let world = World::new(1);
    let meter = Meter::new(world.now());
    meter.set_oldest(Some((world.now(), ms(10))));
    run_to(&world, 100);
    let shown = meter.load(&*world).slowdown;
    assert!((9.0..11.0).contains(&shown), "{shown}");
    meter.completed(Ticks(1), world.now());
    assert!(meter.load(&*world).slowdown < 1.01, "it did answer");
}

#[test]
fn predictions_know_seeks_and_caches() {
    let disk = Calibration::ROTATING;
    assert_eq!(disk.service(0), ms(12));
    assert_eq!(disk.service(2_000_000), ms(22));
    assert!(disk.continued(2_000_000) < ms(11));
    assert_eq!(disk.flush(0, 0), ms(12));
    assert!(disk.flush(16, 8 << 20) > ms(80));
    assert_eq!(disk.flush(1_000_000, 1 << 40), FLUSH_MAX);
}

/// Readers that each ask for any 6 of 8 shards, by expected wait, as the read plan does.
struct Shelf {
    world: Arc<World>,
    disks: Vec<Arc<SimDisk>>,
    handles: Vec<DiskHandle>,
    random: Random,
    reads: Vec<u64>,
}

const DISK_BYTES: u64 = 1024 * MIB;
const READ_BYTES: u64 = 16 * 1024;

impl Shelf {
    fn new(seed: u64) -> Shelf {
        let world = World::new(seed);
        let disks: Vec<Arc<SimDisk>> = (0..8)
            .map(|index| SimDisk::new(&world, SimParameters::hdd(&format!("d{index}"), DISK_BYTES)))
            .collect();
        let handles = disks.iter().map(|disk| disk.clone() as DiskHandle).collect();
        Shelf { world, disks, handles, random: Random::new(seed), reads: vec![0; 8] }
    }

    /// `W = s (Q + S)`, ties by chance.
    fn waits(&mut self) -> Vec<(f64, usize)> {
        let mut waits: Vec<(f64, usize)> = Vec::new();
        for (index, disk) in self.disks.iter().enumerate() {
            let load = disk.load();
            let work = (load.outstanding + disk.predict(READ_BYTES)).as_secs_f64();
            let noise = 1.0 + 0.01 * self.random.unit();
            waits.push((load.slowdown * work * noise, index));
        }
        waits.sort_by(|a, b| a.0.total_cmp(&b.0));
        waits
    }

    /// So many readers for `span` of simulated time; the share of reads that went to disk 0.
    fn read_for(&mut self, readers: usize, span: Duration) -> f64 {
        let end = self.world.now() + span;
        self.reads = vec![0; 8];
        let mut readers: Vec<Option<Fan>> = (0..readers).map(|_| None).collect();
        while self.world.now() < end {
            for reader in &mut readers {
                let done = reader.as_ref().is_none_or(|fan| fan.look(|view| view.pending() == 0));
                if done {
                    let fan = Fan::new(6);
                    for (slot, (_, disk)) in self.waits().into_iter().take(6).enumerate() {
                        let units = self.random.below(DISK_BYTES / READ_BYTES);
                        let buffer = Buffer::zeroed(READ_BYTES as usize);
                        let operation = Operation::Read { offset: units * READ_BYTES, buffer };
                        let class = Class::Foreground;
                        let request = Request { operation, class, deadline: None };
                        fan.submit(slot, &self.handles[disk], request);
                        self.reads[disk] += 1;
                    }
                    *reader = Some(fan);
                }
            }
            if !self.world.step(Some(end)) {
                break;
            }
        }
        self.reads[0] as f64 / self.reads.iter().sum::<u64>() as f64
    }
}

#[test]
fn a_slow_disk_is_left_alone_and_regains_its_share_when_it_heals() {
    // With eight readers the others' queues lead some reads to the slow disk; with two, only time.
    for (seed, readers) in [(1, 8), (2, 8), (3, 8), (4, 2), (5, 2), (6, 2)] {
        let mut shelf = Shelf::new(seed);
        let healthy = shelf.read_for(readers, Duration::from_secs(10));
        let case = format!("seed {seed}, {readers} readers");
        assert!((0.09..0.16).contains(&healthy), "{case}: {healthy} of 0.125 while healthy");
        shelf.disks[0].set_slow(10.0);
        shelf.read_for(readers, Duration::from_secs(5));
        let slow = shelf.read_for(readers, Duration::from_secs(20));
        assert!(slow < 0.03, "{case}: {slow} of the reads touch the slow disk");
        assert!(slow > 0.0, "{case}: it is tried now and then");
        shelf.disks[0].set_slow(1.0);
        shelf.read_for(readers, Duration::from_secs(5));
        let healed = shelf.read_for(readers, Duration::from_secs(10));
        println!("{case}: healthy {healthy:.3}, slow {slow:.4}, healed {healed:.3}");
        assert!(healed >= 0.8 * 0.125, "{case}: {healed} of 0.125 after healing");
    }
}
