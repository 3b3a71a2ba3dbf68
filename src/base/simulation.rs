//! Simulated time, for running the whole engine in one thread from one seed.
//!
//! A [`World`] is at once the clock, the wait and the place where tasks live. Waiting steps the world:
//! a ready background task runs (nested inside the wait), or the next timed event (a simulated disk
//! completing a request) is carried out and time moves on. Which of the two is the seed's choice.
//! A wait that nothing can ever satisfy is a deadlock, and panics with what every task is doing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock::{Clock, Ticks, WallTime};
use super::random::Random;
use super::sync::{Arc, Mutex, assert_no_lock_held};
use super::task::{Pace, Task};
use super::wait::{Event, Wait};

type Timed = Box<dyn FnOnce() + Send>;

struct Slot {
    name: &'static str,
    event: Arc<Event>,
    seen: u64,
    due: Option<Ticks>,
    again: bool,
    /// None while the task is being stepped (it may be waiting, with us nested inside), or is done.
    task: Option<Box<dyn Task>>,
    done: bool,
}

struct State {
    now: Ticks,
    random: Random,
    timed: BTreeMap<(Ticks, u64), Timed>,
    sequence: u64,
    slots: Vec<Slot>,
    steps: u64,
    depth: u32,
    /// What happened, a line each, if anybody wants to know.
    log: Option<String>,
}

/// One simulated machine: its time, its randomness, its background tasks.
pub struct World {
    state: Mutex<State>,
}

/// How far time may move on although a task is ready: as long as a busy machine may leave a thread waiting. More
/// would not be a busy machine but a stopped one, and would make every timer a possible cause of every wait.
const OVERTAKE_MAX: Duration = Duration::from_millis(100);
/// Nesting of waits inside background steps beyond which something recurses without end.
const DEPTH_MAX: u32 = 64;

impl World {
    /// A world at time zero, whose every choice follows from `seed`.
    pub fn new(seed: u64) -> Arc<World> {
        Arc::new(World {
            state: Mutex::new(State {
                now: Ticks(1),
                random: Random::new(seed),
                timed: BTreeMap::new(),
                sequence: 0,
                slots: Vec::new(),
                steps: 0,
                depth: 0,
                log: None,
            }),
        })
    }

    /// A random stream of its own, derived from the seed.
    pub fn fork_random(&self) -> Random {
        self.state.lock().random.fork()
    }

    /// Runs `event` when simulated time reaches `at` (at once if that has passed).
    pub fn schedule(&self, at: Ticks, event: Timed) {
        let mut state = self.state.lock();
        let at = at.max(state.now);
        state.sequence += 1;
        let key = (at, state.sequence);
        state.timed.insert(key, event);
    }

    /// Adds a background task; it is stepped inside waits from now on.
    pub fn add_task(&self, task: Box<dyn Task>) {
        let (name, event) = (task.name(), task.event());
        self.state.lock().slots.push(Slot {
            name,
            event,
            seen: 0,
            due: None,
            again: true,
            task: Some(task),
            done: false,
        });
    }

    /// Drops all tasks and all timed events, as when the machine loses power.
    /// Must not be called from inside a task's step.
    pub fn clear(&self) {
        let (slots, timed) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.slots), std::mem::take(&mut state.timed))
        };
        drop((slots, timed));
    }

    /// Drops all tasks; disks go on. Must not be called from inside a task's step.
    pub fn stop_tasks(&self) {
        let slots = std::mem::take(&mut self.state.lock().slots);
        drop(slots);
    }

    /// How many steps (task steps and timed events) were carried out so far.
    pub fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    /// From now on everything that happens is written down: two runs from one seed give the same lines.
    pub fn keep_log(&self) {
        self.state.lock().log = Some(String::new());
    }

    /// The log since the last call; empty if none is kept.
    pub fn take_log(&self) -> String {
        self.state.lock().log.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Adds a line to the log, if one is kept.
    pub fn note(&self, line: impl FnOnce() -> String) {
        let mut state = self.state.lock();
        if state.log.is_some() {
            let line = format!("{} {}\n", state.now.0, line());
            state.log.as_mut().expect("it was just there").push_str(&line);
        }
    }

    /// Carries out one task step or one timed event not later than `limit`.
    /// False if there is nothing to do until then.
    pub fn step(&self, limit: Option<Ticks>) -> bool {
        enum Chosen {
            Task(usize, Box<dyn Task>),
            Timed(Timed),
        }
        let chosen = {
            let mut state = self.state.lock();
            let ready: Vec<usize> = (0..state.slots.len()).filter(|&i| state.is_ready(i)).collect();
            let timed = state.timed.keys().next().copied();
            let next = match (timed, state.next_due()) {
                (Some(key), Some(due)) if due < key.0 => Some((due, None)),
                (Some(key), _) => Some((key.0, Some(key))),
                (None, Some(due)) => Some((due, None)),
                (None, None) => None,
            };
            let next = next.filter(|&(at, _)| limit.is_none_or(|limit| at <= limit));
            // A ready task is usually stepped at once, but may also be overtaken by a little time.
            let near = next.is_some_and(|(at, _)| at <= state.now + OVERTAKE_MAX);
            let overtaken = near && state.random.one_in(4);
            let run_task = !ready.is_empty() && !overtaken;
            if run_task {
                let pick = ready[state.random.below(ready.len() as u64) as usize];
                let slot = &mut state.slots[pick];
                slot.seen = slot.event.generation();
                slot.again = false;
                slot.due = None;
                Chosen::Task(pick, slot.task.take().expect("a ready task is in its slot"))
            } else {
                let Some((at, key)) = next else { return false };
                state.now = state.now.max(at);
                match key {
                    Some(key) => Chosen::Timed(state.timed.remove(&key).expect("it was just seen")),
                    // Time moved on; the task that was due is now ready.
                    None => return true,
                }
            }
        };
        {
            let mut state = self.state.lock();
            state.steps += 1;
            state.depth += 1;
            assert!(
                state.depth <= DEPTH_MAX,
                "background steps wait inside each other without end"
            );
        }
        match chosen {
            Chosen::Timed(event) => event(),
            Chosen::Task(index, mut task) => {
                self.note(|| task.name().to_string());
                let pace = task.step();
                let mut state = self.state.lock();
                if let Some(slot) = state.slots.get_mut(index) {
                    match pace {
                        Pace::Again => slot.again = true,
                        Pace::Idle(due) => slot.due = due,
                        Pace::Done => slot.done = true,
                    }
                    slot.task = Some(task);
                }
            }
        }
        self.state.lock().depth -= 1;
        true
    }

    /// Runs everything that happens within `span` of simulated time.
    pub fn run_for(&self, span: Duration) {
        let limit = self.now() + span;
        while self.step(Some(limit)) {}
        let mut state = self.state.lock();
        state.now = state.now.max(limit);
    }

    fn describe(&self) -> String {
        let state = self.state.lock();
        let tasks: Vec<String> = state
            .slots
            .iter()
            .map(|slot| {
                let doing = match (&slot.task, slot.done) {
                    (_, true) => "done",
                    (None, false) => "inside a step",
                    (Some(_), false) => "idle",
                };
                format!("{} ({doing})", slot.name)
            })
            .collect();
        format!("at {:?}, depth {}, tasks: {}", state.now, state.depth, tasks.join(", "))
    }
}

impl State {
    fn is_ready(&self, index: usize) -> bool {
        let slot = &self.slots[index];
        slot.task.is_some()
            && !slot.done
            && (slot.again
                || slot.event.generation() != slot.seen
                || slot.due.is_some_and(|due| due <= self.now))
    }

    /// The earliest timer of a task that is not ready yet.
    fn next_due(&self) -> Option<Ticks> {
        (0..self.slots.len())
            .filter(|&index| !self.is_ready(index))
            .map(|index| &self.slots[index])
            .filter(|slot| slot.task.is_some() && !slot.done)
            .filter_map(|slot| slot.due)
            .min()
    }
}

impl Clock for World {
    fn now(&self) -> Ticks {
        self.state.lock().now
    }

    fn wall(&self) -> WallTime {
        let now = self.now();
        WallTime {
            seconds: 1_700_000_000 + (now.0 / 1_000_000_000) as i64,
            nanos: (now.0 % 1_000_000_000) as u32,
        }
    }
}

impl Wait for World {
    fn until(
        &self,
        _event: &Event,
        deadline: Option<Ticks>,
        ready: &mut dyn FnMut() -> bool,
    ) -> bool {
        assert_no_lock_held();
        loop {
            if ready() {
                return true;
            }
            if deadline.is_some_and(|deadline| self.now() >= deadline) {
                return false;
            }
            if !self.step(deadline) {
                match deadline {
                    Some(deadline) => {
                        let mut state = self.state.lock();
                        state.now = state.now.max(deadline);
                    }
                    None => panic!("deadlock in simulation: {}", self.describe()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sync::atomic::{AtomicU64, Ordering};

    struct Counter {
        event: Arc<Event>,
        left: Arc<AtomicU64>,
    }

    impl Task for Counter {
        fn name(&self) -> &'static str {
            "counter"
        }
        fn event(&self) -> Arc<Event> {
            self.event.clone()
        }
        fn step(&mut self) -> Pace {
            if self.left.fetch_sub(1, Ordering::SeqCst) == 1 { Pace::Done } else { Pace::Again }
        }
    }

    #[test]
    fn waiting_runs_tasks_and_moves_time() {
        let world = World::new(1);
        let left = Arc::new(AtomicU64::new(3));
        let event = Arc::new(Event::new());
        world.add_task(Box::new(Counter { event: event.clone(), left: left.clone() }));
        let fired = Arc::new(AtomicU64::new(0));
        let fired2 = fired.clone();
        let at = world.now() + Duration::from_millis(10);
        world.schedule(at, Box::new(move || fired2.store(1, Ordering::SeqCst)));
        assert!(world.until(&event, None, &mut || {
            left.load(Ordering::SeqCst) == 0 && fired.load(Ordering::SeqCst) == 1
        }));
        assert!(world.now() >= at);
    }

    #[test]
    fn a_ready_task_is_overtaken_by_a_little_time_at_most() {
        let mut overtaken = 0;
        for seed in 0..64 {
            let world = World::new(seed);
            let (event, left) = (Arc::new(Event::new()), Arc::new(AtomicU64::new(1)));
            world.add_task(Box::new(Counter { event: event.clone(), left: left.clone() }));
            let before = world.now();
            for after in [Duration::from_millis(50), Duration::from_secs(60)] {
                world.schedule(before + after, Box::new(|| ()));
            }
            assert!(world.until(&event, None, &mut || left.load(Ordering::SeqCst) == 0));
            overtaken += u32::from(world.now() > before);
            assert!(world.now() <= before + OVERTAKE_MAX, "seed {seed}");
        }
        assert!((5..32).contains(&overtaken), "overtaken in {overtaken} of 64");
    }

    #[test]
    fn a_deadline_moves_time_to_itself() {
        let world = World::new(1);
        let deadline = world.now() + Duration::from_secs(1);
        assert!(!world.until(&Event::new(), Some(deadline), &mut || false));
        assert_eq!(world.now(), deadline);
    }

    #[test]
    #[should_panic(expected = "deadlock in simulation")]
    fn a_wait_that_nothing_can_end_is_reported() {
        World::new(1).until(&Event::new(), None, &mut || false);
    }
}
