//! The host queue: which of the waiting requests goes to the device next. Pure; no I/O, no clock.
//!
//! A drive serves what it has been given in an order of its own, so whatever must stay in our hands
//! (priority, deadline, cancelling, prediction) waits here (design 5.5):
//!
//! * **Depth.** One class alone may fill the drive's own queue (16 to 32 requests: a shallower one
//!   costs 19 to 32 % of saturated random reads). As soon as another class waits, or a deadline is
//!   near, each class counts itself and the more urgent ones against `depth_shared`, so that less
//!   urgent work in flight never keeps a reader out; a class that is owed a turn may have two in
//!   flight beyond that. Large requests are also limited in bytes.
//! * **Order.** First what is near its deadline, then a class that is owed its minimum share, then
//!   the most urgent class. Within a class the nearest deadline first; a request without one counts
//!   as due `PATIENCE` after it came, so nothing waits for ever. A deadline that has passed makes
//!   nobody hurry: its sender is gone, the request goes to the back of its class, once.
//! * **Share.** A class that waits is owed a turn when the others were given `share` times the cost
//!   of its head since its last turn: no class starves.
//! * [R8] **Flushes** that wait here together leave as one device flush, and at most one is on the
//!   device. A flush that comes while one is running waits for the next: the running one was issued
//!   before, and may have missed writes that this one must cover.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::Ticks;

use super::Class;

/// A request without a deadline is ordered as if it had this one.
const PATIENCE: Duration = Duration::from_secs(10);
/// Number of classes.
pub(super) const CLASSES: usize = 4;

/// The limits of one queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// In flight per class while it is alone, most urgent class first.
    pub depth_alone: [u32; CLASSES],
    /// In flight of a class and all more urgent ones, while another class waits or a deadline nears.
    pub depth_shared: u32,
    /// In flight of the background class while another class waits.
    pub depth_background: u32,
    /// Bytes in flight beyond the first four requests.
    pub bytes_max: u64,
    /// A class is owed a turn when the others got this many times the cost of its head.
    pub share: [u32; CLASSES],
    /// A deadline this close makes a request urgent.
    pub near: Duration,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            depth_alone: [32, 32, 16, 8],
            depth_shared: 6,
            depth_background: 2,
            bytes_max: 8 << 20,
            share: [2, 4, 8, 16],
            near: Duration::from_millis(100),
        }
    }
}

/// Requests in flight that are never limited by bytes.
const FREE_OF_BYTES: u32 = 4;

/// What a request wants from the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Read or write of some bytes.
    Transfer,
    /// Everything completed so far made durable.
    Flush,
}

/// A request as the queue sees it; `payload` is the owner's business.
#[derive(Debug)]
pub(super) struct Job<T> {
    pub id: u64,
    pub class: Class,
    pub deadline: Option<Ticks>,
    pub kind: Kind,
    pub bytes: u64,
    /// Predicted service time.
    pub cost: Duration,
    /// False once part of it was carried out.
    pub cancellable: bool,
    pub payload: T,
}

/// What goes to the device.
#[derive(Debug)]
pub(super) enum Next<T> {
    /// One read or write.
    Transfer(Job<T>),
    /// One device flush that answers all of these; counts as in flight under the first's class.
    Flush(Vec<Job<T>>),
}

/// Order inside a class: due time, then arrival.
type Key = (Ticks, u64);

struct Waiting<T> {
    job: Job<T>,
    /// Its deadline has passed and it was sent to the back already.
    late: bool,
}

/// The host queue of one disk.
pub(super) struct Queue<T> {
    rules: Rules,
    arrivals: u64,
    waiting: [BTreeMap<Key, Waiting<T>>; CLASSES],
    flushes: BTreeMap<(usize, Key), Job<T>>,
    places: BTreeMap<u64, (usize, Key)>,
    in_flight: [u32; CLASSES],
    in_flight_bytes: u64,
    flush_running: bool,
    /// Service given to others since each class's last turn, while it waited.
    owed: [Duration; CLASSES],
}

impl<T> Queue<T> {
    pub fn new(rules: Rules) -> Queue<T> {
        Queue {
            rules,
            arrivals: 0,
            waiting: [const { BTreeMap::new() }; CLASSES],
            flushes: BTreeMap::new(),
            places: BTreeMap::new(),
            in_flight: [0; CLASSES],
            in_flight_bytes: 0,
            flush_running: false,
            owed: [Duration::ZERO; CLASSES],
        }
    }

    /// Adds a request that came at `now`. Its id must not be waiting already.
    pub fn push(&mut self, now: Ticks, job: Job<T>) {
        self.arrivals += 1;
        let key = (job.deadline.unwrap_or(now + PATIENCE), self.arrivals);
        let class = job.class as usize;
        let before = self.places.insert(job.id, (class, key));
        assert!(before.is_none(), "request {} waits twice", job.id);
        match job.kind {
            Kind::Flush => drop(self.flushes.insert((class, key), job)),
            Kind::Transfer => {
                drop(self.waiting[class].insert(key, Waiting { job, late: false }));
            }
        }
    }

    /// Takes a request back, if it waits here and nothing of it was carried out yet.
    pub fn cancel(&mut self, id: u64) -> Option<Job<T>> {
        let &(class, key) = self.places.get(&id)?;
        let cancellable = match self.flushes.get(&(class, key)) {
            Some(job) => job.cancellable,
            None => self.waiting[class].get(&key).is_some_and(|waiting| waiting.job.cancellable),
        };
        if !cancellable {
            return None;
        }
        self.places.remove(&id);
        match self.flushes.remove(&(class, key)) {
            Some(job) => Some(job),
            None => self.waiting[class].remove(&key).map(|waiting| waiting.job),
        }
    }

    /// Takes everything that waits, most urgent class first.
    pub fn drain(&mut self) -> Vec<Job<T>> {
        self.places.clear();
        let mut jobs: Vec<Job<T>> = Vec::new();
        for class in &mut self.waiting {
            jobs.extend(std::mem::take(class).into_values().map(|waiting| waiting.job));
        }
        jobs.extend(std::mem::take(&mut self.flushes).into_values());
        jobs
    }

    /// How many wait.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True if a flush waits, which a flush pushed now would leave together with.
    pub fn has_waiting_flush(&self) -> bool {
        !self.flushes.is_empty()
    }

    /// The next request for the device at `now`, if it should have one more. The owner reports its
    /// end with `finished`.
    pub fn next(&mut self, now: Ticks) -> Option<Next<T>> {
        self.send_late_to_the_back(now);
        let urgent = self.urgent_class(now);
        let startable: [bool; CLASSES] =
            std::array::from_fn(|class| self.may_start(class, urgent.is_some()));
        let first = (0..CLASSES).find(|&class| startable[class])?;
        let class = urgent
            .filter(|&class| startable[class])
            .or_else(|| (0..CLASSES).find(|&class| startable[class] && self.is_owed(class)))
            .unwrap_or(first);
        Some(self.start(class))
    }

    /// A request started by `next` is over. `kind`, `class` and `bytes` are those it had.
    pub fn finished(&mut self, kind: Kind, class: Class, bytes: u64) {
        let count = &mut self.in_flight[class as usize];
        *count = count.checked_sub(1).expect("it was started before it finished");
        match kind {
            Kind::Flush => {
                assert!(self.flush_running, "a flush that ends was running");
                self.flush_running = false;
            }
            Kind::Transfer => {
                self.in_flight_bytes = self
                    .in_flight_bytes
                    .checked_sub(bytes)
                    .expect("its bytes were counted when it was started");
            }
        }
    }

    /// Due key and cost of the request of `class` that would go next; None if it has none that may.
    fn head(&self, class: usize) -> Option<(Key, &Job<T>)> {
        let transfer = self.waiting[class].iter().next().map(|(key, waiting)| (*key, &waiting.job));
        let flush = if self.flush_running {
            None
        } else {
            let first = (class, (Ticks(0), 0));
            let last = (class, (Ticks(u64::MAX), u64::MAX));
            self.flushes.range(first..=last).next().map(|((_, key), job)| (*key, job))
        };
        match (transfer, flush) {
            (Some(transfer), Some(flush)) if flush.0 < transfer.0 => Some(flush),
            (Some(transfer), _) => Some(transfer),
            (None, flush) => flush,
        }
    }

    fn send_late_to_the_back(&mut self, now: Ticks) {
        for class in 0..CLASSES {
            while let Some(entry) = self.waiting[class].first_entry() {
                let key = *entry.key();
                if entry.get().late || key.0 >= now {
                    break;
                }
                let mut waiting = entry.remove();
                waiting.late = true;
                let key = (now + PATIENCE, key.1);
                self.places.insert(waiting.job.id, (class, key));
                self.waiting[class].insert(key, waiting);
            }
        }
    }

    /// The class whose head has the nearest deadline, if that is near and not past.
    fn urgent_class(&self, now: Ticks) -> Option<usize> {
        (0..CLASSES)
            .filter_map(|class| {
                let (key, job) = self.head(class)?;
                let near = job.deadline == Some(key.0)
                    && key.0 >= now
                    && key.0.since(now) <= self.rules.near;
                near.then_some((key, class))
            })
            .min()
            .map(|(_, class)| class)
    }

    fn may_start(&self, class: usize, urgent: bool) -> bool {
        let Some((_, head)) = self.head(class) else { return false };
        let total: u32 = self.in_flight.iter().sum();
        let bytes = if head.kind == Kind::Flush { 0 } else { head.bytes };
        if total >= FREE_OF_BYTES && self.in_flight_bytes + bytes > self.rules.bytes_max {
            return false;
        }
        let depth_max = self.rules.depth_alone.iter().copied().max().unwrap_or(1);
        if total >= depth_max {
            return false;
        }
        let others = (0..CLASSES).any(|other| other != class && self.head(other).is_some());
        if !others && !urgent {
            return total < self.rules.depth_alone[class];
        }
        let ahead: u32 = self.in_flight[..=class].iter().sum();
        let few = self.in_flight[class] < self.rules.depth_background;
        // Who is owed a turn gets it although the more urgent classes keep their places taken.
        let background = class == Class::Background as usize;
        few && self.is_owed(class) || ahead < self.rules.depth_shared && (few || !background)
    }

    fn is_owed(&self, class: usize) -> bool {
        let Some((_, head)) = self.head(class) else { return false };
        // The most urgent waiting class needs no debt to go next.
        self.owed[class] >= head.cost * self.rules.share[class] && !self.owed[class].is_zero()
    }

    fn start(&mut self, class: usize) -> Next<T> {
        let (key, head) = self.head(class).expect("the caller found a head");
        let (kind, cost) = (head.kind, head.cost);
        self.owed[class] = Duration::ZERO;
        let next = match kind {
            Kind::Transfer => {
                let waiting = self.waiting[class].remove(&key).expect("it is the head");
                self.places.remove(&waiting.job.id);
                self.in_flight_bytes += waiting.job.bytes;
                Next::Transfer(waiting.job)
            }
            Kind::Flush => {
                assert!(!self.flush_running, "[R8] one device flush at a time");
                self.flush_running = true;
                let mut jobs: Vec<Job<T>> =
                    std::mem::take(&mut self.flushes).into_values().collect();
                for job in &jobs {
                    self.places.remove(&job.id);
                }
                let first = jobs.iter().position(|job| job.class as usize == class);
                jobs.swap(0, first.expect("the head is among them"));
                Next::Flush(jobs)
            }
        };
        self.in_flight[class] += 1;
        for other in 0..CLASSES {
            if other != class {
                let waits = self.head(other).is_some();
                self.owed[other] = if waits { self.owed[other] + cost } else { Duration::ZERO };
            }
        }
        next
    }
}

#[cfg(test)]
mod tests;
