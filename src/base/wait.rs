//! Waiting. Every wait of the engine (disk, log, memory, lock hand-over) is a call on a [`Wait`].
//!
//! In production `pool` hands in [`ParkingWait`], which parks the thread on the event. In simulation
//! it hands in a wait that advances simulated time and runs background steps until the condition
//! holds. Nothing else parks, so the whole engine also runs in one thread, from one seed.
//!
//! Rules for callers: hold no lock while waiting [R23]; `ready` may take locks itself, but must not
//! wait; every notifier changes the state *before* it calls [`Event::notify`].

use super::clock::{Clock, Ticks};
use super::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use super::sync::{Arc, Condvar, Mutex, assert_no_lock_held};

/// Something that happens again and again, and can be waited for.
#[derive(Debug, Default)]
pub struct Event {
    generation: AtomicU64,
    waiters: AtomicUsize,
    gate: Mutex<()>,
    bell: Condvar,
}

impl Event {
    /// A new event.
    pub fn new() -> Event {
        Event::default()
    }

    /// Tells all waiters to look at their condition again. Cheap when nobody waits.
    pub fn notify(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            let _gate = self.gate.lock();
            self.bell.notify_all();
        }
    }

    /// How often it happened. A simulator compares two values to see whether a task was woken.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }
}

/// How a wait is carried out; handed in by `pool`.
pub trait Wait: Send + Sync {
    /// Returns true as soon as `ready` does, false once `deadline` has passed first.
    /// `ready` is called at least once, and again after each `event.notify()`.
    fn until(
        &self,
        event: &Event,
        deadline: Option<Ticks>,
        ready: &mut dyn FnMut() -> bool,
    ) -> bool;
}

/// Production: parks the calling thread.
pub struct ParkingWait {
    clock: Arc<dyn Clock>,
}

impl ParkingWait {
    /// A wait whose deadlines are on `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> ParkingWait {
        ParkingWait { clock }
    }
}

impl Wait for ParkingWait {
    fn until(
        &self,
        event: &Event,
        deadline: Option<Ticks>,
        ready: &mut dyn FnMut() -> bool,
    ) -> bool {
        assert_no_lock_held();
        loop {
            // The generation is read before the condition: a notify between the two is not lost.
            let seen = event.generation();
            if ready() {
                return true;
            }
            event.waiters.fetch_add(1, Ordering::SeqCst);
            let mut gate = event.gate.lock();
            let mut expired = false;
            while event.generation() == seen {
                match deadline {
                    None => gate = event.bell.wait(gate),
                    Some(deadline) => {
                        let now = self.clock.now();
                        if now >= deadline {
                            expired = true;
                            break;
                        }
                        gate = event.bell.wait_timeout(gate, deadline.since(now));
                    }
                }
            }
            drop(gate);
            event.waiters.fetch_sub(1, Ordering::SeqCst);
            if expired {
                return ready();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::TestClock;
    use std::time::Duration;

    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "tests of the parking wait need a real thread and clock"
    )]
    fn a_notify_wakes_the_waiter() {
        let wait = ParkingWait::new(TestClock::start());
        let event = Arc::new(Event::new());
        let flag = Arc::new(AtomicU64::new(0));
        let (event2, flag2) = (event.clone(), flag.clone());
        let thread = std::thread::spawn(move || {
            flag2.store(1, Ordering::SeqCst);
            event2.notify();
        });
        assert!(wait.until(&event, None, &mut || flag.load(Ordering::SeqCst) == 1));
        thread.join().expect("the thread does not panic");
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let clock = TestClock::start();
        let wait = ParkingWait::new(clock.clone());
        let deadline = clock.now() + Duration::from_millis(5);
        assert!(!wait.until(&Event::new(), Some(deadline), &mut || false));
        assert!(clock.now() >= deadline);
    }
}
