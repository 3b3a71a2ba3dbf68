//! Blocking reads and writes of a few places on many disks at once, for those who work on whole
//! disks: labels, checkpoint slots, the journal's scan. Every wait has a deadline [I5]: what is late
//! or failed is an answer of its own, never an endless wait.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::limits::{
    FLUSH_DEADLINE_MS, JOURNAL_LATE_MS, MOUNT_PATIENCE_MS, MOUNT_READ_DEADLINE_MS,
};
use crate::base::sync::Arc;
use crate::base::{Clock, Event, Ticks, Wait};

use super::disk::{
    Buffer, BufferPool, Class, DiskError, DiskHandle, Fan, FanView, Operation, Request, Slice,
};

/// How disks are reached: time, waiting, memory. Cloning shares them.
#[derive(Clone)]
pub struct Access {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How to wait.
    pub wait: Arc<dyn Wait>,
    /// Memory for I/O.
    pub buffers: BufferPool,
}

/// Why bytes were not read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Miss {
    /// No answer before the deadline; the request goes on [R7, R11].
    Late,
    /// The disk said no.
    Failed(DiskError),
}

/// One place to be read.
#[derive(Clone)]
pub struct ReadAt {
    /// From which disk.
    pub disk: DiskHandle,
    /// Byte offset, a multiple of 4096.
    pub offset: u64,
    /// Bytes, a multiple of 4096.
    pub bytes: usize,
}

/// One place to be written.
pub struct WriteAt {
    /// To which disk.
    pub disk: DiskHandle,
    /// Byte offset, a multiple of 4096.
    pub offset: u64,
    /// What; its length is a multiple of 4096.
    pub data: Slice,
    /// Kept until the disk has answered, also after we stopped waiting [R7]: more than one reference
    /// means that the place must not be written again.
    pub hold: Arc<()>,
}

impl Access {
    /// The moment `ms` milliseconds from now.
    pub fn after_ms(&self, ms: u64) -> Ticks {
        self.clock.now() + Duration::from_millis(ms)
    }

    /// Lets `span` pass.
    pub fn pause(&self, span: Duration) {
        self.wait.until(&Event::new(), Some(self.clock.now() + span), &mut || false);
    }

    /// Reads all places at once, for mounting; waits until each is answered. After
    /// `MOUNT_READ_DEADLINE_MS` it does without those who are late if they are `spare` disks or
    /// fewer; after `MOUNT_PATIENCE_MS` in any case [R11].
    pub fn read(&self, class: Class, places: &[ReadAt], spare: usize) -> Vec<Result<Buffer, Miss>> {
        let buffers: Vec<Buffer> = places.iter().map(|at| self.buffers.take(at.bytes)).collect();
        let [soon, last] = [MOUNT_READ_DEADLINE_MS, MOUNT_PATIENCE_MS].map(|ms| self.after_ms(ms));
        let fan = Fan::new(places.len());
        for (slot, (place, buffer)) in places.iter().zip(buffers).enumerate() {
            let operation = Operation::Read { offset: place.offset, buffer };
            fan.submit(slot, &place.disk, Request { operation, class, deadline: Some(soon) });
        }
        let late = |view: &FanView| {
            let late = places.iter().enumerate().filter(|(slot, _)| view.is_pending(*slot));
            let disks = late.map(|(_, place)| place.disk.identity().path.as_str());
            disks.collect::<BTreeSet<&str>>().len()
        };
        if !fan.wait(&*self.wait, Some(soon), |view| view.pending() == 0) {
            fan.wait(&*self.wait, Some(last), |view| late(view) <= spare);
        }
        (0..places.len())
            .map(|slot| match fan.take(slot) {
                None => Err(Miss::Late),
                Some(outcome) => match (outcome.result, outcome.buffer) {
                    (Ok(()), Some(buffer)) => Ok(buffer),
                    (Ok(()), None) => Err(Miss::Failed(DiskError::Gone)),
                    (Err(error), _) => Err(Miss::Failed(error)),
                },
            })
            .collect()
    }

    /// Writes all places at once, durably; waits until each is answered, or `JOURNAL_LATE_MS` has
    /// passed and `enough` are written, or `FLUSH_DEADLINE_MS` has passed. What is late may still be
    /// written at any time: its `hold` tells.
    pub fn write_durably(
        &self,
        class: Class,
        places: &[WriteAt],
        enough: usize,
    ) -> Vec<Result<(), Miss>> {
        let deadline = self.after_ms(FLUSH_DEADLINE_MS);
        let fan = Fan::new(places.len());
        for (slot, place) in places.iter().enumerate() {
            let operation =
                Operation::Write { offset: place.offset, data: place.data.clone(), durable: true };
            let request = Request { operation, class, deadline: Some(deadline) };
            fan.submit_guarded(slot, &place.disk, request, Box::new(place.hold.clone()));
        }
        // Those who are slow are waited for, but not long once enough are through.
        let patience = self.after_ms(JOURNAL_LATE_MS).min(deadline);
        let wait = &*self.wait;
        let all = fan.wait(wait, Some(patience), |view| view.pending() == 0);
        if !all {
            fan.wait(wait, Some(deadline), |view| {
                view.pending() == 0 || view.succeeded() >= enough
            });
        }
        (0..places.len())
            .map(|slot| match fan.take(slot) {
                None => Err(Miss::Late),
                Some(outcome) => outcome.result.map_err(Miss::Failed),
            })
            .collect()
    }
}
