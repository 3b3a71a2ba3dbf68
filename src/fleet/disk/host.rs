//! Everything of a disk between its trait and its device: queue, meter, counters, failure. The
//! io_uring engine and the simulator are both thin shells around a [`Host`], so that the simulator
//! tests the queue that production runs.
//!
//! The engine asks for the next [`DeviceRequest`], carries it out, and reports its end. It owns the
//! buffers of what it carries out [R7]; the host owns everything else. Completions are called with
//! no lock held.
//!
//! * [I10] A failed flush, and a failed durable write, fail the disk; so does a device that is gone.
//!   What waits then is answered with `Failed`, what is on the device when the device answers.
//! * A durable write on a device without FUA is a write and then a flush of the host's own, which
//!   joins other waiting flushes [R8]. It cannot be cancelled any more once its write was done.
//! * A host file system that is full is not the disk's failure.

use std::time::Duration;

use crate::base::canary::{self, Bug};
use crate::base::sync::{Arc, Mutex};
use crate::base::{Clock, RequestId, Ticks, UNIT_BYTES};

use super::meter::{Calibration, Meter};
use super::queue::{Job, Kind, Next, Queue, Rules};
use super::{
    Buffer, Class, Completion, Counters, DiskError, Failure, Identity, Load, Operation, Outcome,
    Request, Slice,
};

/// What the device is to do now. `token` names it when its end is reported.
#[derive(Debug)]
pub(super) enum DeviceRequest {
    Read { token: usize, offset: u64, buffer: Buffer },
    Write { token: usize, offset: u64, data: Slice, durable: bool },
    Flush { token: usize },
}

/// What is known of a request besides what the queue needs.
struct Work {
    operation: Operation,
    done: Completion,
}

/// What is on the device.
struct Running {
    kind: Kind,
    class: Class,
    bytes: u64,
    issued: Ticks,
    /// Predicted for this access as it was issued.
    expected: Duration,
    action: Action,
    /// One answer; several for joined flushes.
    answers: Vec<Answer>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Read { offset: u64 },
    Write { offset: u64, durable: bool },
    Flush,
}

struct Answer {
    id: u64,
    deadline: Option<Ticks>,
    /// As counted in the meter.
    cost: Duration,
    done: Completion,
}

struct Inner {
    queue: Queue<Work>,
    running: Vec<Option<Running>>,
    in_flight: u32,
    failure: Option<Failure>,
    counters: Counters,
    next_id: u64,
    /// Where the last access on the device ended: the next one there needs no seek.
    position: u64,
    unflushed_writes: u64,
    unflushed_bytes: u64,
}

/// See the head of this file.
pub(super) struct Host {
    identity: Identity,
    clock: Arc<dyn Clock>,
    calibration: Calibration,
    /// Whether the device takes durable writes by itself.
    fua: bool,
    meter: Meter,
    inner: Mutex<Inner>,
}

/// Completions to call once the lock is released.
type Answers = Vec<(Completion, Outcome)>;

impl Host {
    pub fn new(
        identity: Identity,
        clock: Arc<dyn Clock>,
        calibration: Calibration,
        fua: bool,
        rules: Rules,
    ) -> Host {
        let meter = Meter::new(clock.now());
        let inner = Inner {
            queue: Queue::new(rules),
            running: Vec::new(),
            in_flight: 0,
            failure: None,
            counters: Counters::default(),
            next_id: 0,
            position: 0,
            unflushed_writes: 0,
            unflushed_bytes: 0,
        };
        Host { identity, clock, calibration, fua, meter, inner: Mutex::new(inner) }
    }

    /// Accepts a request. The engine then asks for `next` until there is none.
    pub fn submit(&self, mut request: Request, done: Completion) -> RequestId {
        if canary::planted(Bug::FlushSkipped) {
            match &mut request.operation {
                Operation::Flush => {
                    done(Outcome { result: Ok(()), buffer: None });
                    return RequestId(0);
                }
                Operation::Write { durable, .. } => *durable = false,
                Operation::Read { .. } => {}
            }
        }
        if canary::planted(Bug::FlushJoined)
            && matches!(request.operation, Operation::Flush)
            && let inner = &mut self.inner.lock().running
            && let Some(running) = inner.iter_mut().flatten().find(|one| one.kind == Kind::Flush)
        {
            running.answers.push(Answer {
                id: 0,
                deadline: request.deadline,
                cost: Duration::ZERO,
                done,
            });
            return RequestId(0);
        }
        let inside = self.is_inside(&request.operation);
        let now = self.clock.now();
        let (id, refused) = {
            let mut inner = self.inner.lock();
            inner.next_id += 1;
            let id = inner.next_id;
            if inner.failure.is_some() || !inside {
                inner.counters.errors += 1;
                let error = match inner.failure {
                    Some(_) => DiskError::Failed,
                    None => DiskError::Medium { offset: request.operation.offset() },
                };
                (id, Some((error, done, request.operation)))
            } else {
                let cost = self.cost(&inner, &request.operation);
                self.meter.accepted(cost);
                let (kind, bytes) = match &request.operation {
                    Operation::Read { buffer, .. } => (Kind::Transfer, buffer.len() as u64),
                    Operation::Write { data, .. } => (Kind::Transfer, data.len() as u64),
                    Operation::Flush => (Kind::Flush, 0),
                };
                let job = Job {
                    id,
                    class: request.class,
                    deadline: request.deadline,
                    kind,
                    bytes,
                    cost,
                    cancellable: true,
                    payload: Work { operation: request.operation, done },
                };
                inner.queue.push(now, job);
                (id, None)
            }
        };
        if let Some((error, done, operation)) = refused {
            done(Outcome { result: Err(error), buffer: buffer_of(operation) });
        }
        RequestId(id)
    }

    /// Takes a request back that still waits.
    pub fn cancel(&self, id: RequestId) -> bool {
        let job = self.inner.lock().queue.cancel(id.0);
        match job {
            Some(job) => {
                self.meter.answered(job.cost);
                let buffer = buffer_of(job.payload.operation);
                (job.payload.done)(Outcome { result: Err(DiskError::Cancelled), buffer });
                true
            }
            None => false,
        }
    }

    /// The next request for the device, if it should have one more now.
    pub fn next(&self) -> Option<DeviceRequest> {
        let now = self.clock.now();
        let mut inner = self.inner.lock();
        let next = inner.queue.next(now)?;
        let request = match next {
            Next::Transfer(job) => self.start_transfer(&mut inner, now, job),
            Next::Flush(jobs) => self.start_flush(&mut inner, now, jobs),
        };
        self.note_oldest(&inner);
        Some(request)
    }

    fn start_transfer(&self, inner: &mut Inner, now: Ticks, job: Job<Work>) -> DeviceRequest {
        let Job { id, class, deadline, kind, bytes, cost, payload, .. } = job;
        let (action, offset) = match &payload.operation {
            Operation::Read { offset, .. } => (Action::Read { offset: *offset }, *offset),
            Operation::Write { offset, durable, .. } => {
                (Action::Write { offset: *offset, durable: *durable }, *offset)
            }
            Operation::Flush => unreachable!("flushes leave the queue as flushes"),
        };
        let expected = if offset == inner.position {
            self.calibration.continued(bytes)
        } else {
            self.calibration.service(bytes)
        };
        inner.position = offset + bytes;
        let answers = vec![Answer { id, deadline, cost, done: payload.done }];
        let token =
            inner.insert(Running { kind, class, bytes, issued: now, expected, action, answers });
        match payload.operation {
            Operation::Read { offset, buffer } => DeviceRequest::Read { token, offset, buffer },
            Operation::Write { offset, data, durable } => {
                DeviceRequest::Write { token, offset, data, durable: durable && self.fua }
            }
            Operation::Flush => unreachable!("flushes leave the queue as flushes"),
        }
    }

    fn start_flush(&self, inner: &mut Inner, now: Ticks, jobs: Vec<Job<Work>>) -> DeviceRequest {
        let class = jobs.first().expect("a device flush answers at least one").class;
        let expected = self.calibration.flush(inner.unflushed_writes, inner.unflushed_bytes);
        let answers = jobs
            .into_iter()
            .map(|job| Answer {
                id: job.id,
                deadline: job.deadline,
                cost: job.cost,
                done: job.payload.done,
            })
            .collect();
        // Writes that complete from now on are not covered [R8]; they count for the next one.
        inner.unflushed_writes = 0;
        inner.unflushed_bytes = 0;
        self.meter.set_flushing(true);
        let token = inner.insert(Running {
            kind: Kind::Flush,
            class,
            bytes: 0,
            issued: now,
            expected,
            action: Action::Flush,
            answers,
        });
        DeviceRequest::Flush { token }
    }

    /// The device has ended the request `token`. `buffer` is a read's.
    pub fn finished(&self, token: usize, result: Result<(), DiskError>, buffer: Option<Buffer>) {
        let now = self.clock.now();
        let answers = {
            let mut inner = self.inner.lock();
            let running = inner.running[token].take().expect("a token is used once");
            inner.in_flight -= 1;
            inner.queue.finished(running.kind, running.class, running.bytes);
            self.measure(&running, result.is_ok(), now);
            let answers = self.conclude(&mut inner, running, result, buffer, now);
            self.note_oldest(&inner);
            answers
        };
        for (done, outcome) in answers {
            done(outcome);
        }
    }

    fn measure(&self, running: &Running, ok: bool, now: Ticks) {
        let actual = self.meter.completed(running.issued, now);
        let ratio = actual.as_secs_f64() / running.expected.as_secs_f64().max(1e-9);
        match running.action {
            Action::Flush => self.meter.set_flushing(false),
            Action::Read { .. } if ok => self.meter.sample(now, ratio),
            Action::Write { .. } if ok => self.meter.sample(now, ratio.max(1.0)),
            Action::Read { .. } | Action::Write { .. } => {}
        }
    }

    /// Decides what the end of a request means; returns what is to be answered.
    fn conclude(
        &self,
        inner: &mut Inner,
        running: Running,
        result: Result<(), DiskError>,
        buffer: Option<Buffer>,
        now: Ticks,
    ) -> Answers {
        let Running { class, bytes, action, answers, .. } = running;
        let fatal = match (action, result) {
            (_, Ok(()) | Err(DiskError::HostFull)) if action != Action::Flush => None,
            (_, Ok(())) => None,
            (_, Err(DiskError::Gone | DiskError::Failed)) => Some(Failure::Gone),
            (Action::Read { .. }, Err(_)) => None,
            (Action::Write { durable, .. }, Err(_)) => {
                (durable && self.fua).then_some(Failure::Write)
            }
            (Action::Flush, Err(_)) => Some(Failure::Flush),
        };
        inner.counters.note(action, bytes, result.is_ok());
        if let Action::Write { durable, .. } = action {
            // A failed write too may have reached the drive's cache.
            inner.unflushed_writes += 1;
            inner.unflushed_bytes += bytes;
            if durable && !self.fua && result.is_ok() && inner.failure.is_none() {
                for answer in answers {
                    inner.queue.push(now, second_phase(answer, class));
                }
                return Vec::new();
            }
        }
        // [I10] Nobody learns more of a failed flush than that the disk is gone for us.
        let result = match (action, result) {
            (Action::Flush, Err(_)) => Err(DiskError::Failed),
            // Its flush could not follow any more.
            (Action::Write { durable: true, .. }, Ok(())) if !self.fua => Err(DiskError::Failed),
            _ => result,
        };
        let mut out: Answers = Vec::new();
        let mut buffer = buffer;
        for answer in answers {
            self.meter.answered(answer.cost);
            out.push((answer.done, Outcome { result, buffer: buffer.take() }));
        }
        if let Some(failure) = fatal {
            out.extend(self.fail_locked(inner, failure));
        }
        out
    }

    /// Stops using the disk; see `Disk::fail`.
    pub fn fail(&self) {
        let answers = self.fail_locked(&mut self.inner.lock(), Failure::Told);
        for (done, outcome) in answers {
            done(outcome);
        }
    }

    fn fail_locked(&self, inner: &mut Inner, failure: Failure) -> Answers {
        inner.failure.get_or_insert(failure);
        let jobs = inner.queue.drain();
        inner.counters.errors += jobs.len() as u64;
        jobs.into_iter()
            .map(|job| {
                self.meter.answered(job.cost);
                let buffer = buffer_of(job.payload.operation);
                (job.payload.done, Outcome { result: Err(DiskError::Failed), buffer })
            })
            .collect()
    }

    /// Predicted service of `operation`, as the meter counts it.
    fn cost(&self, inner: &Inner, operation: &Operation) -> Duration {
        match operation {
            Operation::Read { buffer, .. } => self.calibration.service(buffer.len() as u64),
            Operation::Write { data, .. } => self.calibration.service(data.len() as u64),
            // It will leave together with the one that waits.
            Operation::Flush if inner.queue.has_waiting_flush() => Duration::from_nanos(1),
            Operation::Flush => {
                self.calibration.flush(inner.unflushed_writes, inner.unflushed_bytes)
            }
        }
    }

    /// Unaligned requests are bugs of ours. One that goes beyond the disk may come from bytes that a
    /// disk gave us: false, and its sender is told that there is nothing.
    fn is_inside(&self, operation: &Operation) -> bool {
        let (offset, start, bytes) = match operation {
            Operation::Read { offset, buffer } => (*offset, buffer.as_ptr(), buffer.len() as u64),
            Operation::Write { offset, data, .. } => (*offset, data.as_ptr(), data.len() as u64),
            Operation::Flush => return true,
        };
        assert!(bytes > 0 && bytes.is_multiple_of(UNIT_BYTES), "{bytes} bytes are not whole units");
        assert!(offset.is_multiple_of(UNIT_BYTES), "byte {offset} is not the start of a unit");
        assert!((start as u64).is_multiple_of(UNIT_BYTES), "the memory is not aligned to a unit");
        offset.checked_add(bytes).is_some_and(|end| end <= self.identity.bytes)
    }

    fn note_oldest(&self, inner: &Inner) {
        let oldest = inner.running.iter().flatten().min_by_key(|running| running.issued);
        self.meter.set_oldest(oldest.map(|running| (running.issued, running.expected)));
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn load(&self) -> Load {
        self.meter.load(&*self.clock)
    }

    pub fn predict(&self, bytes: u64) -> Duration {
        self.calibration.service(bytes)
    }

    pub fn counters(&self) -> Counters {
        self.inner.lock().counters
    }

    pub fn failure(&self) -> Option<Failure> {
        self.inner.lock().failure
    }

    pub fn in_flight(&self) -> u32 {
        self.inner.lock().in_flight
    }
}

impl Inner {
    fn insert(&mut self, running: Running) -> usize {
        self.in_flight += 1;
        match self.running.iter().position(Option::is_none) {
            Some(free) => {
                self.running[free] = Some(running);
                free
            }
            None => {
                self.running.push(Some(running));
                self.running.len() - 1
            }
        }
    }
}

impl Counters {
    fn note(&mut self, action: Action, bytes: u64, ok: bool) {
        match (action, ok) {
            (_, false) => self.errors += 1,
            (Action::Read { .. }, true) => {
                self.reads += 1;
                self.read_bytes += bytes;
            }
            (Action::Write { .. }, true) => {
                self.writes += 1;
                self.written_bytes += bytes;
            }
            (Action::Flush, true) => self.flushes += 1,
        }
    }
}

/// The flush that makes a write durable which the device could not make durable by itself.
fn second_phase(answer: Answer, class: Class) -> Job<Work> {
    Job {
        id: answer.id,
        class,
        deadline: answer.deadline,
        kind: Kind::Flush,
        bytes: 0,
        cost: answer.cost,
        cancellable: false,
        payload: Work { operation: Operation::Flush, done: answer.done },
    }
}

impl Operation {
    /// Where it begins on the disk; 0 for a flush.
    fn offset(&self) -> u64 {
        match self {
            Operation::Read { offset, .. } | Operation::Write { offset, .. } => *offset,
            Operation::Flush => 0,
        }
    }
}

fn buffer_of(operation: Operation) -> Option<Buffer> {
    match operation {
        Operation::Read { buffer, .. } => Some(buffer),
        Operation::Write { .. } | Operation::Flush => None,
    }
}
