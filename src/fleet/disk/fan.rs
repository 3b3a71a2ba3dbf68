//! A set of requests in flight together, and one caller that waits for some of them.
//!
//! Every fan-out of the fleet (shards of an object, copies of a batch, roots, flushes) is a [`Fan`]:
//! submit each request under a slot number, wait until enough of them are answered, take what came.
//! The caller decides what "enough" is; the fan never blocks a disk and never waits for one that is
//! late.
//!
//! [R7] A slot that nobody waits for any more is simply left: dropping the fan does not end its
//! request. The guard handed in with it lives until the answer arrives, so that a place on disk
//! stays taken as long as the write may still reach it; a late answer is then dropped.

use std::any::Any;

use crate::base::sync::{Arc, Mutex};
use crate::base::{Event, RequestId, Ticks, Wait};

use super::{DiskError, DiskHandle, Outcome, Request};

/// Kept until a request is answered, whoever still waits for it.
pub type Guard = Box<dyn Any + Send>;

enum Slot {
    /// Nothing was submitted, or its outcome was taken.
    Empty,
    Pending,
    Done(Outcome),
}

struct State {
    slots: Vec<Slot>,
    /// The fan is gone: answers are dropped as they come.
    abandoned: bool,
}

struct Shared {
    event: Event,
    state: Mutex<State>,
}

/// Requests in flight together.
pub struct Fan {
    shared: Arc<Shared>,
    /// Where each slot's request went, for cancelling.
    sent: Mutex<Vec<Option<(DiskHandle, RequestId)>>>,
}

impl Fan {
    /// A fan of slots `0..slots`, all empty. It grows when a higher slot is submitted.
    pub fn new(slots: usize) -> Fan {
        let state = State { slots: (0..slots).map(|_| Slot::Empty).collect(), abandoned: false };
        let shared = Arc::new(Shared { event: Event::new(), state: Mutex::new(state) });
        Fan { shared, sent: Mutex::default() }
    }

    /// Hands a request to `disk`, to be answered under `slot`, which must be empty.
    pub fn submit(&self, slot: usize, disk: &DiskHandle, request: Request) {
        self.submit_guarded(slot, disk, request, Box::new(()));
    }

    /// As `submit`; `guard` is dropped when the answer arrives, even if the fan is gone by then
    /// [R7]. It is dropped in the disk's own thread: its `Drop` must be short and must not wait.
    pub fn submit_guarded(&self, slot: usize, disk: &DiskHandle, request: Request, guard: Guard) {
        {
            let mut state = self.shared.state.lock();
            while state.slots.len() <= slot {
                state.slots.push(Slot::Empty);
            }
            assert!(matches!(state.slots[slot], Slot::Empty), "slot {slot} is already in use");
            state.slots[slot] = Slot::Pending;
        }
        let shared = self.shared.clone();
        // The disk may answer before `submit` returns, so no lock is held here.
        let id = disk.submit(
            request,
            Box::new(move |outcome| {
                drop(guard);
                let mut outcome = Some(outcome);
                {
                    let mut state = shared.state.lock();
                    if !state.abandoned {
                        state.slots[slot] = Slot::Done(outcome.take().expect("just put there"));
                    }
                }
                drop(outcome);
                shared.event.notify();
            }),
        );
        let mut sent = self.sent.lock();
        while sent.len() <= slot {
            sent.push(None);
        }
        sent[slot] = Some((disk.clone(), id));
    }

    /// Waits until `enough` says so (true), or `deadline` has passed (false). `enough` is called with
    /// a lock held: it looks at the view and at nothing else that may wait.
    pub fn wait(
        &self,
        wait: &dyn Wait,
        deadline: Option<Ticks>,
        mut enough: impl FnMut(&FanView) -> bool,
    ) -> bool {
        wait.until(&self.shared.event, deadline, &mut || {
            enough(&FanView { slots: &self.shared.state.lock().slots })
        })
    }

    /// Looks at the slots as they are now, without waiting.
    pub fn look<T>(&self, see: impl FnOnce(&FanView) -> T) -> T {
        see(&FanView { slots: &self.shared.state.lock().slots })
    }

    /// The answer under `slot`, once; the slot is then empty. None while it is pending or empty.
    pub fn take(&self, slot: usize) -> Option<Outcome> {
        let mut state = self.shared.state.lock();
        let place = state.slots.get_mut(slot)?;
        match std::mem::replace(place, Slot::Empty) {
            Slot::Done(outcome) => Some(outcome),
            other => {
                *place = other;
                None
            }
        }
    }

    /// Takes a pending request back if it still waits in its disk's host queue (true): it is then
    /// answered with `Cancelled`.
    pub fn cancel(&self, slot: usize) -> bool {
        let sent = self.sent.lock().get(slot).cloned().flatten();
        let pending = self.look(|view| view.is_pending(slot));
        match sent {
            Some((disk, id)) if pending => disk.cancel(id),
            _ => false,
        }
    }
}

impl Drop for Fan {
    fn drop(&mut self) {
        let slots = {
            let mut state = self.shared.state.lock();
            state.abandoned = true;
            std::mem::take(&mut state.slots)
        };
        drop(slots);
    }
}

/// What has been answered so far.
pub struct FanView<'a> {
    slots: &'a [Slot],
}

impl FanView<'_> {
    /// The result under `slot`; None while it is pending, empty or taken.
    pub fn result(&self, slot: usize) -> Option<Result<(), DiskError>> {
        match self.slots.get(slot)? {
            Slot::Done(outcome) => Some(outcome.result),
            Slot::Empty | Slot::Pending => None,
        }
    }

    /// Submitted and not answered.
    pub fn is_pending(&self, slot: usize) -> bool {
        matches!(self.slots.get(slot), Some(Slot::Pending))
    }

    /// Slots submitted and not answered.
    pub fn pending(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot, Slot::Pending)).count()
    }

    /// Slots answered with success and not taken.
    pub fn succeeded(&self) -> usize {
        self.done().filter(|result| result.is_ok()).count()
    }

    /// Slots answered with an error and not taken.
    pub fn failed(&self) -> usize {
        self.done().filter(|result| result.is_err()).count()
    }

    fn done(&self) -> impl Iterator<Item = Result<(), DiskError>> + '_ {
        (0..self.slots.len()).filter_map(|slot| self.result(slot))
    }
}
