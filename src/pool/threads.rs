//! The machine's own time and threads: the one place that takes them, for everybody else [style 5.10].
//!
//! * [`MachineClock`] is the real [`Clock`]; [`machine_wait`] is the parking [`Wait`] on it.
//! * [`Threads`] runs each [`Task`] in a thread of its own: step, then park on the task's event until
//!   it is notified, its timer is due, or everything stops.
//! * Stopping is orderly: every task finishes the step it is in, then its thread ends and is joined.
//!   Who waits inside a step for something that will never come must be told to stop first (the
//!   journal's `stop`, for one); `Threads` cannot know what a step waits for.
//!
//! Threads that are not tasks (one per disk, FUSE workers) are started through [`Threads::spawn`] and
//! end by themselves when what they serve is dropped.

use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::base::sync::{Arc, Mutex};
use crate::base::wait::ParkingWait;
use crate::base::{Clock, Event, Pace, Task, Ticks, Wait, WallTime};

/// Linux keeps 15 bytes of a thread's name.
const NAME_BYTES_MAX: usize = 15;

/// The machine's clock.
#[derive(Debug)]
pub struct MachineClock {
    start: Instant,
}

impl MachineClock {
    /// A clock whose monotonic time starts now. One per process is enough.
    #[allow(clippy::disallowed_methods, reason = "this is the clock that is handed to all others")]
    pub fn start() -> Arc<MachineClock> {
        Arc::new(MachineClock { start: Instant::now() })
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Ticks {
        // One nanosecond is added so that 0 stays before everything, as in simulation.
        let nanos = self.start.elapsed().as_nanos().saturating_add(1);
        Ticks(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    #[allow(clippy::disallowed_methods, reason = "this is the clock that is handed to all others")]
    fn wall(&self) -> WallTime {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => WallTime {
                seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                nanos: since.subsec_nanos(),
            },
            // Before 1970: rounded down to whole seconds, which no caller can tell.
            Err(before) => WallTime {
                seconds: i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s - 1),
                nanos: 0,
            },
        }
    }
}

/// The wait that parks threads, on the machine's clock.
pub fn machine_wait(clock: Arc<dyn Clock>) -> Arc<dyn Wait> {
    Arc::new(ParkingWait::new(clock))
}

struct Running {
    event: Arc<Event>,
    thread: JoinHandle<()>,
}

/// The threads of one open pool.
pub struct Threads {
    wait: Arc<dyn Wait>,
    stopping: Arc<AtomicBool>,
    tasks: Mutex<Vec<Running>>,
    others: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// No threads yet; tasks will park through `wait`.
    pub fn new(wait: Arc<dyn Wait>) -> Threads {
        Threads {
            wait,
            stopping: Arc::new(AtomicBool::new(false)),
            tasks: Mutex::default(),
            others: Mutex::default(),
        }
    }

    /// Runs `task` in a thread of its own until it is done or everything stops. Panics if the machine
    /// has no thread left: without its background work a pool cannot be kept.
    pub fn run(&self, task: Box<dyn Task>) {
        assert!(!self.stopping.load(Ordering::SeqCst), "no task starts while all of them stop");
        let (name, event) = (task.name(), task.event());
        let (wait, stopping) = (self.wait.clone(), self.stopping.clone());
        let thread = start_thread(name, Box::new(move || run_steps(task, &*wait, &stopping)));
        self.tasks.lock().push(Running { event, thread });
    }

    /// Runs `body` in a thread of its own, which must end by itself. `name` is for people; Linux
    /// shows its first 15 bytes. Panics if the machine has no thread left.
    pub fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) {
        let thread = start_thread(name, body);
        self.others.lock().push(thread);
    }

    /// Ends all tasks after the step each is in, and waits for their threads. A panic of one of them
    /// goes on here (in release builds it has ended the process already).
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in &tasks {
            task.event.notify();
        }
        for task in tasks {
            join(task.thread);
        }
    }

    /// Waits for the threads that `spawn` started. Call it when what they serve has been dropped; a
    /// disk that hangs in the kernel keeps its thread, so a daemon that must end does without.
    pub fn join_others(&self) {
        let others = std::mem::take(&mut *self.others.lock());
        for thread in others {
            join(thread);
        }
    }

    /// Whether `stop` was called: long loops inside a step may look at it.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

fn join(thread: JoinHandle<()>) {
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn run_steps(mut task: Box<dyn Task>, wait: &dyn Wait, stopping: &AtomicBool) {
    let event = task.event();
    while !stopping.load(Ordering::SeqCst) {
        // Read before the step: a notify during the step is not lost.
        let seen = event.generation();
        match task.step() {
            Pace::Again => {}
            Pace::Done => return,
            Pace::Idle(due) => {
                wait.until(&event, due, &mut || {
                    event.generation() != seen || stopping.load(Ordering::SeqCst)
                });
            }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the place where the pool's threads start")]
fn start_thread(name: &str, body: Box<dyn FnOnce() + Send>) -> JoinHandle<()> {
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    std::thread::Builder::new()
        .name(name[..end].to_owned())
        .spawn(body)
        .expect("a pool needs its threads; raise the limit of tasks (ulimit -u, TasksMax=)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sync::atomic::AtomicU64;
    use std::time::Duration;

    struct Ticker {
        event: Arc<Event>,
        clock: Arc<dyn Clock>,
        steps: Arc<AtomicU64>,
        done: Arc<Event>,
        timer: bool,
    }

    impl Task for Ticker {
        fn name(&self) -> &'static str {
            "a-rather-long-name"
        }
        fn event(&self) -> Arc<Event> {
            self.event.clone()
        }
        fn step(&mut self) -> Pace {
            let steps = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
            self.done.notify();
            match steps {
                1 => Pace::Again,
                _ if self.timer => Pace::Idle(Some(self.clock.now() + Duration::from_millis(1))),
                _ => Pace::Idle(None),
            }
        }
    }

    #[allow(clippy::type_complexity, reason = "what the tests take apart at once")]
    fn run(timer: bool) -> (Threads, Arc<AtomicU64>, Arc<Event>, Arc<Event>, Arc<dyn Wait>) {
        let clock: Arc<dyn Clock> = MachineClock::start();
        let wait = machine_wait(clock.clone());
        let threads = Threads::new(wait.clone());
        let (steps, event, done) =
            (Arc::new(AtomicU64::new(0)), Arc::new(Event::new()), Arc::new(Event::new()));
        threads.run(Box::new(Ticker {
            event: event.clone(),
            clock,
            steps: steps.clone(),
            done: done.clone(),
            timer,
        }));
        (threads, steps, event, done, wait)
    }

    #[test]
    fn a_task_is_stepped_again_when_its_event_is_notified_and_stops_when_told() {
        let (threads, steps, event, done, wait) = run(false);
        wait.until(&done, None, &mut || steps.load(Ordering::SeqCst) >= 2);
        event.notify();
        wait.until(&done, None, &mut || steps.load(Ordering::SeqCst) >= 3);
        threads.stop();
        let last = steps.load(Ordering::SeqCst);
        event.notify();
        assert_eq!(steps.load(Ordering::SeqCst), last);
    }

    #[test]
    fn a_timer_steps_a_task_without_a_notify() {
        let (threads, steps, _event, done, wait) = run(true);
        wait.until(&done, None, &mut || steps.load(Ordering::SeqCst) >= 5);
        threads.stop();
        assert!(threads.stopping());
    }

    #[test]
    fn the_clock_moves_and_knows_the_year() {
        let clock = MachineClock::start();
        let first = clock.now();
        assert!(first > Ticks(0));
        assert!(clock.now() >= first);
        assert!(clock.wall().seconds > 1_600_000_000);
    }

    #[test]
    fn other_threads_are_joined() {
        let clock: Arc<dyn Clock> = MachineClock::start();
        let threads = Threads::new(machine_wait(clock));
        let flag = Arc::new(AtomicBool::new(false));
        let flag2 = flag.clone();
        threads.spawn("disk-0", Box::new(move || flag2.store(true, Ordering::SeqCst)));
        threads.join_others();
        assert!(flag.load(Ordering::SeqCst));
    }
}
