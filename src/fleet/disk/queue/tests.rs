//! The host queue: classes, deadlines, turns, cancelling.

use super::*;
use crate::base::Random;

const MS: u64 = 1_000_000;

fn at(ms: u64) -> Ticks {
    Ticks(ms * MS)
}

struct Bench {
    queue: Queue<()>,
    ids: u64,
    /// Class and bytes of what is in flight, by id.
    running: Vec<(u64, Kind, Class, u64)>,
}

impl Bench {
    fn new() -> Bench {
        Bench { queue: Queue::new(Rules::default()), ids: 0, running: Vec::new() }
    }

    fn push(&mut self, now: u64, class: Class, kind: Kind, deadline: Option<u64>) -> u64 {
        self.push_bytes(now, class, kind, deadline, 4096)
    }

    fn push_bytes(
        &mut self,
        now: u64,
        class: Class,
        kind: Kind,
        deadline: Option<u64>,
        bytes: u64,
    ) -> u64 {
        self.ids += 1;
        let job = Job {
            id: self.ids,
            class,
            deadline: deadline.map(at),
            kind,
            bytes,
            cost: Duration::from_millis(10),
            cancellable: true,
            payload: (),
        };
        self.queue.push(at(now), job);
        self.ids
    }

    fn read(&mut self, now: u64, class: Class) -> u64 {
        self.push(now, class, Kind::Transfer, None)
    }

    /// Ids of what is started now, until the queue wants no more.
    fn start(&mut self, now: u64) -> Vec<u64> {
        let mut started = Vec::new();
        while let Some(next) = self.queue.next(at(now)) {
            match next {
                Next::Transfer(job) => {
                    self.running.push((job.id, Kind::Transfer, job.class, job.bytes));
                    started.push(job.id);
                }
                Next::Flush(jobs) => {
                    self.running.push((jobs[0].id, Kind::Flush, jobs[0].class, 0));
                    started.extend(jobs.iter().map(|job| job.id));
                }
            }
        }
        started
    }

    fn finish(&mut self, id: u64) -> Class {
        let index = self.running.iter().position(|running| running.0 == id);
        let (_, kind, class, bytes) = self.running.remove(index.expect("it runs"));
        self.queue.finished(kind, class, bytes);
        class
    }

    fn finish_all(&mut self) {
        while let Some(&(id, ..)) = self.running.first() {
            self.finish(id);
        }
    }
}

#[test]
fn one_class_alone_fills_the_drive_and_a_second_narrows_it() {
    for (class, depth) in
        [(Class::Foreground, 32), (Class::Journal, 32), (Class::Flush, 16), (Class::Background, 8)]
    {
        let mut bench = Bench::new();
        for _ in 0..40 {
            bench.read(0, class);
        }
        assert_eq!(bench.start(0).len(), depth, "{class:?}");
    }
    let mut bench = Bench::new();
    for _ in 0..40 {
        bench.read(0, Class::Foreground);
        bench.read(0, Class::Background);
    }
    let started = bench.start(0);
    assert_eq!(started.len(), 6, "{started:?}");
    assert!(started.iter().all(|id| id % 2 == 1), "all are foreground");
}

#[test]
fn a_reader_never_waits_for_background_work_in_flight() {
    let mut bench = Bench::new();
    for _ in 0..40 {
        bench.read(0, Class::Background);
    }
    assert_eq!(bench.start(0).len(), 8);
    let reader = bench.read(1, Class::Foreground);
    assert_eq!(bench.start(1), [reader]);
    // While readers wait, background keeps to two in flight; the reader in flight alone does not
    // hold it below what it may have.
    bench.finish_all();
    let readers: Vec<u64> = (0..10).map(|_| bench.read(2, Class::Foreground)).collect();
    assert_eq!(bench.start(2), readers[..6]);
}

#[test]
fn large_requests_are_limited_in_bytes() {
    let mut bench = Bench::new();
    for _ in 0..16 {
        bench.push_bytes(0, Class::Foreground, Kind::Transfer, None, 2 << 20);
    }
    assert_eq!(bench.start(0).len(), 4);
    bench.finish(1);
    assert_eq!(bench.start(0), [5]);
}

#[test]
fn the_nearest_deadline_goes_first_within_a_class() {
    let mut bench = Bench::new();
    let patient = bench.read(0, Class::Foreground);
    let far = bench.push(0, Class::Foreground, Kind::Transfer, Some(5000));
    let near = bench.push(0, Class::Foreground, Kind::Transfer, Some(1000));
    assert_eq!(bench.start(0), [near, far, patient]);
}

#[test]
fn a_near_deadline_overtakes_more_urgent_classes_and_a_missed_one_does_not() {
    for (deadline, first) in [(1050, true), (5000, false), (900, false)] {
        let mut bench = Bench::new();
        let reader = bench.read(1000, Class::Foreground);
        let flush = bench.push(0, Class::Flush, Kind::Transfer, Some(deadline));
        let expected = if first { [flush, reader] } else { [reader, flush] };
        assert_eq!(bench.start(1000), expected, "deadline {deadline}");
    }
}

#[test]
fn what_is_late_goes_to_the_back_of_its_class_but_not_for_ever() {
    let mut bench = Bench::new();
    let late = bench.push(0, Class::Foreground, Kind::Transfer, Some(10));
    let timely = bench.push(0, Class::Foreground, Kind::Transfer, Some(5000));
    assert_eq!(bench.start(100), [timely, late]);
    // A stream of requests with deadlines does not starve one without, or a late one.
    let mut bench = Bench::new();
    let late = bench.push(0, Class::Foreground, Kind::Transfer, Some(10));
    let patient = bench.read(0, Class::Foreground);
    let mut seen = Vec::new();
    for now in (100..12_000).step_by(100) {
        bench.push(now, Class::Foreground, Kind::Transfer, Some(now + 2000));
        if let Some(Next::Transfer(job)) = bench.queue.next(at(now)) {
            bench.queue.finished(Kind::Transfer, job.class, job.bytes);
            seen.push(job.id);
        }
    }
    assert!(seen.contains(&late) && seen.contains(&patient), "{seen:?}");
}

#[test]
fn no_class_starves() {
    let mut bench = Bench::new();
    let classes = [Class::Foreground, Class::Journal, Class::Flush, Class::Background];
    let mut served = [0u32; CLASSES];
    for class in classes {
        for _ in 0..16 {
            bench.read(0, class);
        }
    }
    // A device that serves one after the other; who was served asks again.
    for now in 0..20_000 {
        bench.start(now);
        let class = bench.finish(bench.running[0].0);
        served[class as usize] += 1;
        bench.read(now, class);
    }
    let total: u32 = served.iter().sum();
    let share = served.map(|count| f64::from(count) / f64::from(total));
    assert!(share[0] > 0.35, "{share:?}");
    assert!(share[3] > 0.03 && share[3] < 0.12, "{share:?}");
    assert!(share[1] > share[2] && share[2] > share[3], "{share:?}");
}

#[test]
fn cancelling_takes_only_what_waits() {
    let mut bench = Bench::new();
    let first = bench.read(0, Class::Foreground);
    let flush = bench.push(0, Class::Journal, Kind::Flush, None);
    let second = bench.read(0, Class::Background);
    assert_eq!(bench.queue.len(), 3);
    assert!(bench.queue.cancel(second).is_some());
    assert!(bench.queue.cancel(second).is_none());
    assert!(bench.queue.cancel(flush).is_some());
    assert_eq!(bench.start(0), [first]);
    assert!(bench.queue.cancel(first).is_none(), "it is on the device");
    assert_eq!(bench.queue.len(), 0);
}

#[test]
fn r8_flushes_that_wait_together_leave_as_one_and_later_ones_do_not_join() {
    let mut bench = Bench::new();
    let one = bench.push(0, Class::Flush, Kind::Flush, None);
    let two = bench.push(0, Class::Journal, Kind::Flush, None);
    let started = bench.start(0);
    assert_eq!(started, [two, one], "the most urgent class leads");
    // The device flush runs: it may have missed what completed since, so a new one waits.
    let three = bench.push(1, Class::Foreground, Kind::Flush, None);
    let four = bench.push(1, Class::Flush, Kind::Flush, None);
    assert_eq!(bench.start(1), [] as [u64; 0]);
    let read = bench.read(1, Class::Foreground);
    assert_eq!(bench.start(1), [read], "reads go on meanwhile");
    bench.finish(two);
    assert_eq!(bench.start(2), [three, four]);
}

#[test]
fn draining_gives_back_everything_that_waits() {
    let mut bench = Bench::new();
    for class in [Class::Background, Class::Foreground, Class::Journal] {
        bench.read(0, class);
        bench.push(0, class, Kind::Flush, None);
    }
    let jobs = bench.queue.drain();
    assert_eq!((jobs.len(), bench.queue.len()), (6, 0));
    assert_eq!(bench.start(0), [] as [u64; 0]);
}

/// Whatever happens, everything pushed is started or cancelled exactly once, and soon.
#[test]
fn random_traffic_is_served_completely() {
    for seed in 0..50 {
        let mut random = Random::new(seed);
        let mut bench = Bench::new();
        let mut waiting: Vec<u64> = Vec::new();
        let classes = [Class::Foreground, Class::Journal, Class::Flush, Class::Background];
        let mut now = 0;
        for _ in 0..400 {
            now += random.below(20);
            match random.below(6) {
                0..3 => {
                    let class = classes[random.below(4) as usize];
                    let kind = if random.one_in(5) { Kind::Flush } else { Kind::Transfer };
                    let deadline = random.one_in(2).then(|| now + random.below(300));
                    let bytes = 4096 << random.below(10);
                    waiting.push(bench.push_bytes(now, class, kind, deadline, bytes));
                }
                3 if !waiting.is_empty() => {
                    let index = random.below(waiting.len() as u64) as usize;
                    let id = waiting.swap_remove(index);
                    assert!(bench.queue.cancel(id).is_some(), "seed {seed}");
                }
                4 if !bench.running.is_empty() => {
                    let index = random.below(bench.running.len() as u64) as usize;
                    bench.finish(bench.running[index].0);
                }
                _ => {}
            }
            for id in bench.start(now) {
                let index = waiting.iter().position(|&other| other == id);
                waiting.swap_remove(index.unwrap_or_else(|| panic!("seed {seed}: {id} twice")));
            }
            assert_eq!(bench.queue.len(), waiting.len(), "seed {seed}");
            assert!(bench.running.len() <= 32, "seed {seed}");
        }
        while !bench.running.is_empty() {
            bench.finish_all();
            for id in bench.start(now) {
                waiting.retain(|&other| other != id);
            }
        }
        assert!(waiting.is_empty(), "seed {seed}: {waiting:?} never left");
    }
}
