//! Keeps workers free for reading while writers wait.
//!
//! [R27] A request that changes something may have to wait for room (write buffer, log). If all
//! workers slept there, nobody could read, and the flusher's own page faults could wait for
//! themselves. So at most n - 2 workers may be inside such requests at once, and at most n - 4 inside
//! requests that carry data, so that names can still be made and removed while the write buffer is
//! full. One more is put aside with a copy of its data, and whichever worker leaves the gate next
//! carries it out.
//!
//! 1. Something is queued only while a permit that it needs is taken.
//! 2. Queued work of one kind is started in the order in which it came; names before data.
//! 3. Queued bytes are bounded; beyond that the worker waits itself, rather than let memory grow.

use std::collections::VecDeque;

use crate::base::sync::Mutex;

/// Bytes of write data put aside at most: 64 writers of 1 MiB each.
const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Requests put aside at most, whatever their size.
const QUEUED_MAX: usize = 4096;

/// What a request may have to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waits {
    /// Room in the log: names, attributes.
    Names,
    /// Room in the write buffer, or a disk: writes, fsync.
    Data,
}

type Work = Box<dyn FnOnce() + Send>;

/// Counts the workers that may be waiting.
pub(super) struct Gate {
    state: Mutex<State>,
}

struct State {
    /// Workers that may still go in, whatever for.
    permits: usize,
    /// Of these, for requests with data.
    data_permits: usize,
    names: VecDeque<Work>,
    data: VecDeque<(usize, Work)>,
    queued_bytes: usize,
}

impl State {
    fn take(&mut self, waits: Waits) -> bool {
        let data = waits == Waits::Data;
        if self.permits == 0 || (data && self.data_permits == 0) {
            return false;
        }
        self.permits -= 1;
        self.data_permits -= usize::from(data);
        true
    }

    fn give_back(&mut self, waits: Waits) {
        self.permits += 1;
        self.data_permits += usize::from(waits == Waits::Data);
    }

    /// What can be carried out next, with its permit taken.
    fn next(&mut self) -> Option<(Waits, Work)> {
        if !self.names.is_empty() && self.take(Waits::Names) {
            return self.names.pop_front().map(|work| (Waits::Names, work));
        }
        if !self.data.is_empty() && self.take(Waits::Data) {
            let (bytes, work) = self.data.pop_front()?;
            self.queued_bytes -= bytes;
            return Some((Waits::Data, work));
        }
        None
    }
}

/// Held by a worker inside a request that may wait.
pub(super) struct Permit<'a> {
    gate: &'a Gate,
    /// None for a worker that had to go in although the queue was full [invariant 3].
    held: Option<Waits>,
}

impl Gate {
    /// A gate for `workers` threads: two of them stay outside, if there are that many.
    pub(super) fn new(workers: usize) -> Gate {
        let permits = workers.saturating_sub(2).max(1);
        let data_permits = workers.saturating_sub(4).max(1);
        Gate {
            state: Mutex::new(State {
                permits,
                data_permits,
                names: VecDeque::new(),
                data: VecDeque::new(),
                queued_bytes: 0,
            }),
        }
    }

    /// A permit, if one is left.
    pub(super) fn enter(&self, waits: Waits) -> Option<Permit<'_>> {
        let taken = self.state.lock().take(waits);
        taken.then(|| Permit { gate: self, held: Some(waits) })
    }

    /// Carries out `work`, which owns `bytes` of data: later by another worker if no permit is left
    /// and there is room in the queue, otherwise now.
    pub(super) fn run_or_queue(&self, waits: Waits, bytes: usize, work: Work) {
        let permit = {
            let mut state = self.state.lock();
            let queued = state.names.len() + state.data.len();
            if state.take(waits) {
                Permit { gate: self, held: Some(waits) }
            } else if state.queued_bytes + bytes <= QUEUED_BYTES_MAX && queued < QUEUED_MAX {
                match waits {
                    Waits::Names => state.names.push_back(work),
                    Waits::Data => {
                        state.queued_bytes += bytes;
                        state.data.push_back((bytes, work));
                    }
                }
                return;
            } else {
                Permit { gate: self, held: None }
            }
        };
        work();
        drop(permit);
    }
}

impl Drop for Permit<'_> {
    /// Goes on with what was put aside, and leaves when there is nothing that can be done.
    fn drop(&mut self) {
        while let Some(held) = self.held.take() {
            let next = {
                let mut state = self.gate.state.lock();
                state.give_back(held);
                state.next()
            };
            if let Some((waits, work)) = next {
                self.held = Some(waits);
                work();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sync::Arc;
    use crate::base::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn two_workers_stay_outside_and_two_more_are_for_names() {
        // [R27]
        let gate = Gate::new(6);
        let data: Vec<_> = (0..2).map(|_| gate.enter(Waits::Data)).collect();
        assert!(data.iter().all(Option::is_some));
        assert!(gate.enter(Waits::Data).is_none());
        let names: Vec<_> = (0..2).map(|_| gate.enter(Waits::Names)).collect();
        assert!(names.iter().all(Option::is_some));
        assert!(gate.enter(Waits::Names).is_none());
        drop(names);
        assert!(gate.enter(Waits::Data).is_none());
        drop(data);
        assert!(gate.enter(Waits::Data).is_some());
        assert!(Gate::new(1).enter(Waits::Data).is_some());
    }

    #[test]
    fn what_is_put_aside_is_carried_out_in_order_by_the_next_to_leave() {
        let gate = Gate::new(3);
        let order = Arc::new(Mutex::new(Vec::new()));
        let permit = gate.enter(Waits::Data).expect("the first enters");
        for number in 0..3 {
            let order = order.clone();
            let waits = if number == 2 { Waits::Names } else { Waits::Data };
            gate.run_or_queue(waits, 100, Box::new(move || order.lock().push(number)));
        }
        assert!(order.lock().is_empty());
        drop(permit);
        assert_eq!(*order.lock(), [2, 0, 1]);
        assert_eq!(gate.state.lock().queued_bytes, 0);
        assert!(gate.enter(Waits::Data).is_some());
    }

    #[test]
    fn beyond_the_bound_the_worker_waits_itself() {
        let gate = Gate::new(1);
        let _permit = gate.enter(Waits::Data).expect("the first enters");
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            let ran = ran.clone();
            let work = Box::new(move || {
                ran.fetch_add(1, Ordering::SeqCst);
            });
            gate.run_or_queue(Waits::Data, QUEUED_BYTES_MAX / 2, work);
        }
        assert_eq!(ran.load(Ordering::SeqCst), 1);
    }
}
