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
        let outcome = {
            let mut state = self.shared.state.lock();
            let place = state.slots.get_mut(slot)?;
            match std::mem::replace(place, Slot::Empty) {
                Slot::Done(outcome) => outcome,
                other => {
                    *place = other;
                    return None;
                }
            }
        };
        // Nothing is left to be cancelled: whoever keeps the fan does not keep the disk open.
        let sent = self.sent.lock().get_mut(slot).and_then(Option::take);
        drop(sent);
        Some(outcome)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::simulation::World;
    use crate::base::sync::atomic::{AtomicU32, Ordering};
    use crate::base::{Clock, MIB};
    use crate::fleet::disk::sim::SimParameters;
    use crate::fleet::disk::{Class, Operation, SimDisk, Slice};
    use std::time::Duration;

    struct Held(Arc<AtomicU32>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn write(offset: u64) -> Request {
        let data = Slice::copy_of(&[1; 4096]);
        let operation = Operation::Write { offset, data, durable: false };
        Request { operation, class: Class::Flush, deadline: None }
    }

    fn disks(world: &Arc<World>, count: usize) -> (Vec<Arc<SimDisk>>, Vec<DiskHandle>) {
        let make = |index| SimDisk::new(world, SimParameters::quick(&format!("d{index}"), MIB));
        let disks: Vec<Arc<SimDisk>> = (0..count).map(make).collect();
        let handles = disks.iter().map(|disk| disk.clone() as DiskHandle).collect();
        (disks, handles)
    }

    #[test]
    fn a_fan_waits_for_enough_and_not_for_all() {
        let world = World::new(1);
        let (disks, handles) = disks(&world, 3);
        disks[1].set_hang(true);
        let fan = Fan::new(3);
        for (slot, disk) in handles.iter().enumerate() {
            fan.submit(slot, disk, write(0));
        }
        assert!(fan.wait(&*world, None, |view| view.succeeded() == 2));
        assert_eq!(fan.look(|view| (view.pending(), view.failed())), (1, 0));
        assert!(fan.look(|view| view.is_pending(1) && view.result(0) == Some(Ok(()))));
        assert!(fan.take(0).is_some() && fan.take(0).is_none() && fan.take(1).is_none());
        let deadline = world.now() + Duration::from_secs(1);
        assert!(!fan.wait(&*world, Some(deadline), |view| view.pending() == 0));
        assert_eq!(world.now(), deadline);
        // The late shard goes to another disk, under a slot of its own.
        fan.submit(3, &handles[0], write(4096));
        assert!(fan.wait(&*world, None, |view| view.result(3).is_some()));
    }

    #[test]
    fn r7_a_guard_outlives_its_fan_until_the_write_is_reaped() {
        let world = World::new(2);
        let (disks, handles) = disks(&world, 2);
        disks[0].set_hang(true);
        let held = Arc::new(AtomicU32::new(2));
        let fan = Fan::new(2);
        for (slot, disk) in handles.iter().enumerate() {
            fan.submit_guarded(slot, disk, write(0), Box::new(Held(held.clone())));
        }
        assert!(fan.wait(&*world, None, |view| view.succeeded() == 1));
        drop(fan);
        world.run_for(Duration::from_secs(60));
        assert_eq!(held.load(Ordering::SeqCst), 1, "the hung write still holds its place");
        disks[0].set_hang(false);
        world.run_for(Duration::from_secs(1));
        assert_eq!(held.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_disk_that_has_answered_is_not_kept_open() {
        let world = World::new(4);
        let (disks, handles) = disks(&world, 2);
        let fan = Fan::new(2);
        for (slot, disk) in handles.iter().enumerate() {
            fan.submit(slot, disk, write(0));
        }
        drop(handles);
        let users = |disk: usize| Arc::strong_count(&disks[disk]);
        assert!(fan.wait(&*world, None, |view| view.succeeded() == 2));
        fan.take(0).expect("it is answered");
        // What the simulation keeps for a moment goes with the next events.
        world.run_for(Duration::from_secs(1));
        assert_eq!((users(0), users(1)), (1, 2), "the second answer was not taken");
        fan.take(1).expect("it is answered");
        assert_eq!(users(1), 1);
    }

    #[test]
    fn only_what_still_waits_is_cancelled() {
        let world = World::new(3);
        let (disks, handles) = disks(&world, 1);
        disks[0].set_hang(true);
        let fan = Fan::new(0);
        for slot in 0..40 {
            fan.submit(slot, &handles[0], write(slot as u64 * 4096));
        }
        assert!(!fan.cancel(0), "it is on the device");
        assert!(fan.cancel(39) && !fan.cancel(39) && !fan.cancel(40));
        assert_eq!(fan.take(39).map(|outcome| outcome.result), Some(Err(DiskError::Cancelled)));
    }
}
