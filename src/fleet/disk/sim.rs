//! A disk that is not there: the same host queue as production above a simulated device, on the
//! simulated time of a [`World`].
//!
//! **Service.** One head: seek by distance, a random part of a rotation, then the transfer; what
//! continues the request before needs neither. Writes go into the drive's volatile cache at transfer
//! speed; a flush pays a short seek for each scattered one. Durable writes pay like reads. Up to the
//! host queue's depth the drive serves the nearest first, but nothing is overtaken more than
//! `OVERTAKEN_MAX` times, and nothing passes a flush.
//!
//! **What is where.** `live` is what reads return; `durable` is what certainly survives; `pending`
//! are writes that reached the drive and are not certainly durable: all of them, some sectors of
//! them, or none may survive a crash, in any order. A flush makes durable what had completed when
//! the drive began it [R8]. [`SimDisk::snapshot`] costs a few pointers, so a test can take one at any
//! event and later open a new disk from [`Snapshot::crash_image`].
//!
//! **Faults** (`faults.rs`) can be set at any time: slow, hung, detached, bad sectors, single
//! failures, writes lost or misdirected, flushes that lie, flipped bits.

use std::time::Duration;

use crate::base::simulation::World;
use crate::base::sync::{Arc, Mutex, Weak};
use crate::base::{Clock, Random, RequestId};

use super::host::{DeviceRequest, Host};
use super::meter::Calibration;
use super::queue::Rules;
use super::{
    Buffer, Completion, Counters, Disk, DiskError, Failure, Identity, Load, Request, Slice,
};

mod faults;
mod image;
mod media;

pub use faults::Access;
pub use image::Image;
pub use media::Snapshot;

use faults::Faults;
use media::Media;

/// A request may be overtaken by nearer ones this often.
const OVERTAKEN_MAX: u32 = 16;

/// How a simulated disk behaves while healthy.
#[derive(Clone, Debug)]
pub struct SimParameters {
    /// Name, as `Identity::path`; also serial number.
    pub name: String,
    /// Size in bytes, a multiple of 4096.
    pub bytes: u64,
    /// Seek from one end to the other.
    pub seek_full: Duration,
    /// Shortest seek.
    pub seek_track: Duration,
    /// One revolution.
    pub rotation: Duration,
    /// Fixed part of every command.
    pub overhead: Duration,
    /// Transfer rate.
    pub bytes_per_second: u64,
    /// Writes are cached until a flush. Without, every completed write is durable.
    pub cache: bool,
    /// Takes durable writes by itself; without, a durable write is a write and a flush.
    pub fua: bool,
    /// What the host believes of it.
    pub calibration: Calibration,
}

impl SimParameters {
    /// A 7200 rpm disk: about 12 ms a random access, 200 MB/s.
    pub fn hdd(name: &str, bytes: u64) -> SimParameters {
        SimParameters {
            name: name.to_string(),
            bytes,
            seek_full: Duration::from_micros(13_000),
            seek_track: Duration::from_micros(1_000),
            rotation: Duration::from_micros(8_333),
            overhead: Duration::from_micros(100),
            bytes_per_second: 200_000_000,
            cache: true,
            fua: true,
            calibration: Calibration::ROTATING,
        }
    }

    /// A disk without seeks, for tests that care about order and loss but not about time.
    pub fn quick(name: &str, bytes: u64) -> SimParameters {
        SimParameters {
            seek_full: Duration::ZERO,
            seek_track: Duration::ZERO,
            rotation: Duration::ZERO,
            overhead: Duration::from_micros(150),
            bytes_per_second: 500_000_000,
            calibration: Calibration::SOLID,
            ..SimParameters::hdd(name, bytes)
        }
    }
}

/// A simulated disk; at once the [`Disk`] and the handle that sets its faults.
pub struct SimDisk {
    host: Host,
    world: Arc<World>,
    parameters: SimParameters,
    device: Mutex<Device>,
    me: Weak<SimDisk>,
}

/// A request on the device.
struct Accepted {
    token: usize,
    action: Action,
    overtaken: u32,
}

enum Action {
    Read { offset: u64, buffer: Buffer },
    Write { offset: u64, data: Slice, durable: bool, sequence: u64 },
    Flush,
}

struct Device {
    media: Media,
    /// Completed writes may be volatile.
    cache: bool,
    faults: Faults,
    random: Random,
    accepted: Vec<Accepted>,
    /// The one being served; its event is scheduled, or it is stuck.
    serving: Option<Accepted>,
    /// The drive does not answer: `serving` was due and stays.
    stuck: bool,
    /// Where the head is: the end of the last access.
    head: u64,
    /// Scattered writes in the cache, each a seek for the flush.
    scattered: u32,
    last_write_end: u64,
    /// What had ended when the flush being served began has a number below this.
    flush_covers: u64,
    /// Counts detaches, so that an event scheduled before one finds that it is out of date.
    generation: u64,
}

impl SimDisk {
    /// A disk full of zeros.
    pub fn new(world: &Arc<World>, parameters: SimParameters) -> Arc<SimDisk> {
        let image = Image::new(parameters.bytes);
        SimDisk::open(world, parameters, image)
    }

    /// A disk that holds `image`, all of it durable: after a crash, or to return stale with an old
    /// one. The image's size must be the parameters'.
    pub fn open(world: &Arc<World>, parameters: SimParameters, image: Image) -> Arc<SimDisk> {
        assert_eq!(image.bytes(), parameters.bytes, "the image belongs to a disk of its size");
        let identity = Identity {
            path: parameters.name.clone(),
            model: "simulated".to_string(),
            serial: parameters.name.clone(),
            by_id: String::new(),
            bytes: parameters.bytes,
            logical_sector_bytes: 512,
            physical_sector_bytes: 4096,
            rotational: parameters.calibration == Calibration::ROTATING,
            is_file: false,
        };
        let clock: Arc<dyn Clock> = world.clone();
        let fua = parameters.fua;
        let host = Host::new(identity, clock, parameters.calibration, fua, Rules::default());
        let device = Device {
            media: Media::new(image),
            cache: parameters.cache,
            faults: Faults::default(),
            random: world.fork_random(),
            accepted: Vec::new(),
            serving: None,
            stuck: false,
            head: 0,
            scattered: 0,
            last_write_end: 0,
            flush_covers: 0,
            generation: 0,
        };
        let (world, device) = (world.clone(), Mutex::new(device));
        Arc::new_cyclic(|me| SimDisk { host, world, parameters, device, me: me.clone() })
    }

    /// What it is made of, for opening another like it.
    pub fn parameters(&self) -> &SimParameters {
        &self.parameters
    }

    /// Everything it holds now, live, durable and in between; cheap.
    pub fn snapshot(&self) -> Snapshot {
        self.device.lock().media.snapshot()
    }

    /// Gives the device all it should have now, and lets it work.
    fn pump(&self) {
        while let Some(request) = self.host.next() {
            self.device.lock().accept(request);
        }
        let started = self.device.lock().start(&self.parameters);
        if let Some((service, generation)) = started {
            self.schedule(service, generation);
        }
    }

    fn schedule(&self, after: Duration, generation: u64) {
        let me = self.me.upgrade().expect("a disk that is used exists");
        let at = self.world.now() + after;
        self.world.schedule(at, Box::new(move || me.serve(generation)));
    }

    /// The service time of the request being served is over.
    fn serve(&self, generation: u64) {
        let ended = {
            let mut device = self.device.lock();
            if device.generation != generation {
                return;
            }
            device.end()
        };
        if let Some((token, what, result, buffer)) = ended {
            self.world.note(|| format!("{} {what:?} {result:?}", self.parameters.name));
            self.host.finished(token, result, buffer);
            self.pump();
        }
    }
}

impl Device {
    fn accept(&mut self, request: DeviceRequest) {
        let (token, action) = match request {
            DeviceRequest::Read { token, offset, buffer } => {
                (token, Action::Read { offset, buffer })
            }
            DeviceRequest::Write { token, offset, data, durable } => {
                // From here on it may reach the medium at any time, in part.
                let sequence = self.media.begin_write(offset, &data);
                (token, Action::Write { offset, data, durable, sequence })
            }
            DeviceRequest::Flush { token } => (token, Action::Flush),
        };
        self.accepted.push(Accepted { token, action, overtaken: 0 });
    }

    /// Begins the next request if the head is idle: its service time, and the generation.
    fn start(&mut self, parameters: &SimParameters) -> Option<(Duration, u64)> {
        if self.serving.is_some() || self.accepted.is_empty() {
            return None;
        }
        let index = self.choose();
        let next = self.accepted.remove(index);
        let service = self.service(parameters, &next.action);
        if matches!(next.action, Action::Flush) {
            self.flush_covers = self.media.next_ending();
        }
        self.serving = Some(next);
        Some((self.faults.stretch(service), self.generation))
    }

    /// The nearest request before the first flush, unless one was overtaken too often.
    fn choose(&mut self) -> usize {
        let barrier = self.accepted.iter().position(|next| matches!(next.action, Action::Flush));
        let end = match barrier {
            Some(0) => return 0,
            Some(flush) => flush,
            None => self.accepted.len(),
        };
        if self.accepted[0].overtaken >= OVERTAKEN_MAX {
            return 0;
        }
        let head = self.head;
        let nearest = (0..end)
            .min_by_key(|&index| self.accepted[index].action.offset().abs_diff(head))
            .expect("there is at least one");
        for passed in &mut self.accepted[..nearest] {
            passed.overtaken += 1;
        }
        nearest
    }

    fn service(&mut self, parameters: &SimParameters, action: &Action) -> Duration {
        let transfer =
            |bytes: u64| Duration::from_secs_f64(bytes as f64 / parameters.bytes_per_second as f64);
        match action {
            Action::Read { offset, buffer } => {
                let moved = self.position(parameters, *offset);
                self.head = offset + buffer.len() as u64;
                parameters.overhead + moved + transfer(buffer.len() as u64)
            }
            Action::Write { offset, data, durable, .. } => {
                let bytes = data.len() as u64;
                let mut service = parameters.overhead + transfer(bytes);
                if *durable || !parameters.cache {
                    service += self.position(parameters, *offset);
                    self.head = offset + bytes;
                } else if *offset != self.last_write_end {
                    self.scattered += 1;
                }
                self.last_write_end = offset + bytes;
                service
            }
            Action::Flush => {
                // The drive sorts what it has; each scattered write costs a short seek.
                let seeks =
                    parameters.seek_track * 3 * std::mem::take(&mut self.scattered).min(256);
                parameters.overhead + parameters.rotation / 2 + seeks
            }
        }
    }

    /// Seek and rotation to `offset`; nothing if the head is there.
    fn position(&mut self, parameters: &SimParameters, offset: u64) -> Duration {
        if offset == self.head {
            return Duration::ZERO;
        }
        let distance = offset.abs_diff(self.head) as f64 / parameters.bytes as f64;
        let span = parameters.seek_full.saturating_sub(parameters.seek_track);
        let turn = parameters.rotation.mul_f64(self.random.unit());
        parameters.seek_track + span.mul_f64(distance.sqrt()) + turn
    }

    /// Ends the request being served, unless the drive hangs.
    fn end(&mut self) -> Option<Ended> {
        let serving = self.serving.take()?;
        if self.faults.is_hung(serving.action.access()) {
            self.serving = Some(serving);
            self.stuck = true;
            return None;
        }
        self.stuck = false;
        let what = serving.action.what();
        let failure = self.faults.strike(serving.action.access());
        let (result, buffer) = match serving.action {
            Action::Read { offset, mut buffer } => {
                let range = offset..offset + buffer.len() as u64;
                let result = match failure.or(self.faults.bad_sector(&range)) {
                    Some(error) => Err(error.at(offset)),
                    None => {
                        self.media.live().read(offset, &mut buffer);
                        Ok(())
                    }
                };
                (result, Some(buffer))
            }
            Action::Write { offset, data, durable, sequence } => {
                let result = self.end_write(offset, &data, durable, sequence, failure);
                (result, None)
            }
            Action::Flush => match failure {
                Some(error) => (Err(error.at(0)), None),
                None => {
                    if !self.faults.flush_lies {
                        self.media.flush(self.flush_covers);
                    }
                    (Ok(()), None)
                }
            },
        };
        Some((serving.token, what, result, buffer))
    }

    fn end_write(
        &mut self,
        offset: u64,
        data: &[u8],
        durable: bool,
        sequence: u64,
        failure: Option<DiskError>,
    ) -> Result<(), DiskError> {
        if let Some(error) = failure {
            // What of it got to the medium is anybody's guess: it stays pending.
            self.media.abandon_write(sequence);
            return Err(error.at(offset));
        }
        if self.faults.take_lost_write() {
            self.media.cancel_write(sequence);
            return Ok(());
        }
        let certain = !self.cache || durable && !self.faults.flush_lies;
        if let Some(elsewhere) = self.faults.take_misdirection(offset, data.len(), &self.media) {
            self.media.cancel_write(sequence);
            let sequence = self.media.begin_write(elsewhere, data);
            self.media.end_write(sequence, certain);
            return Ok(());
        }
        self.faults.heal(&(offset..offset + data.len() as u64));
        self.media.end_write(sequence, certain);
        Ok(())
    }
}

/// A request that is over: its token, what it was, and what came of it.
type Ended = (usize, (Access, u64, usize), Result<(), DiskError>, Option<Buffer>);

impl Action {
    /// Kind, offset, bytes.
    fn what(&self) -> (Access, u64, usize) {
        let bytes = match self {
            Action::Read { buffer, .. } => buffer.len(),
            Action::Write { data, .. } => data.len(),
            Action::Flush => 0,
        };
        (self.access(), self.offset(), bytes)
    }

    fn offset(&self) -> u64 {
        match self {
            Action::Read { offset, .. } | Action::Write { offset, .. } => *offset,
            Action::Flush => 0,
        }
    }

    fn access(&self) -> Access {
        match self {
            Action::Read { .. } => Access::Read,
            Action::Write { .. } => Access::Write,
            Action::Flush => Access::Flush,
        }
    }
}

impl DiskError {
    /// The same error, at `offset` if it has a place.
    fn at(self, offset: u64) -> DiskError {
        match self {
            DiskError::Medium { .. } => DiskError::Medium { offset },
            other => other,
        }
    }
}

impl Disk for SimDisk {
    fn identity(&self) -> &Identity {
        self.host.identity()
    }

    fn submit(&self, request: Request, done: Completion) -> RequestId {
        let id = self.host.submit(request, done);
        self.pump();
        id
    }

    fn cancel(&self, id: RequestId) -> bool {
        self.host.cancel(id)
    }

    fn load(&self) -> Load {
        self.host.load()
    }

    fn predict(&self, bytes: u64) -> Duration {
        self.host.predict(bytes)
    }

    fn counters(&self) -> Counters {
        self.host.counters()
    }

    fn failure(&self) -> Option<Failure> {
        self.host.failure()
    }

    fn fail(&self) {
        self.host.fail();
    }

    fn in_flight(&self) -> u32 {
        self.host.in_flight()
    }
}

#[cfg(test)]
mod tests;
