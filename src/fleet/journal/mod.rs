//! The journal: a ring on every disk; each batch goes to m+2 of them and counts at m+1 [R1].
//!
//! ```text
//! append(batch 102)            ring of disk 0   | 100 | 102 |
//!   -> 4 of 6 disks, m = 2     ring of disk 1   | 101 | 102 |
//!   -> acknowledged at the     ring of disk 2   | 100 | 101 | 102 |
//!      third durable copy      ring of disk 3   | 100 | 101 | 10.   (late: replaced by disk 4)
//! ```
//!
//! * [R3] One batch is in flight at a time, so a batch is durable only when all before it are.
//! * [R5] An LSN is bound to its bytes when it is first submitted: every copy, every retry has the
//!   same batch bytes; only the header says which disk and position it was written for.
//! * [R6] Entries occupy whole 4 KiB units.
//! * [R7] A position with an unreaped write is not written again (`ring.rs`).
//! * [R10] User batches stop at 75 % of the ring; internal ones use the rest.
//! * [R11] A late disk leaves the rotation until the next checkpoint, another one takes its copy; a
//!   failed one is failed. If fewer than needed can take a batch, `append` waits and says so; it never
//!   acknowledges less.
//! * [R2] Before a batch is acknowledged without a member, the survivors' labels say that it is out.
//!
//! Files: `ring.rs` one disk's ring (pure), `commit.rs` how a batch becomes durable, `scan.rs` what a
//! ring holds (pure), `chain.rs` which of it counts (pure), `replay.rs` reading it all back, `look.rs` whether what
//! is in use is still there.
//! Not here: what a batch means (`format::batch`), when to checkpoint, labels (`pool`).

use std::collections::VecDeque;

use crate::base::limits::ENTRY_BYTES_MAX;
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::base::sync::{Arc, Mutex};
use crate::base::{DiskIndex, Epoch, Event, Lsn, PoolUuid};

use super::access::Access;
use super::error::FleetError;
use super::heat::Heat;
use super::members::{Member, Members};
use super::quorum::Quorum;

mod chain;
mod commit;
mod look;
mod replay;
mod ring;
mod scan;
#[cfg(test)]
mod tests;

pub use replay::{Replay, ReplayFrom, replay};

use commit::{Flight, Pending};
use ring::{Ring, RingPlace};

/// Who appends [R10].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// On behalf of a user: stops at 75 % of the ring.
    User,
    /// Flusher, reclaim, checkpoint: they make room, and may use all of it.
    Internal,
}

/// A moment between two batches: what a root must say so that replay begins after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The last batch before.
    pub lsn: Lsn,
    /// Its checksum, which the next batch's entry names as its predecessor's.
    pub batch_crc: u64,
    /// Per member, ascending: the ring position from which on batches after `lsn` may lie.
    pub heads: Vec<(DiskIndex, u64)>,
}

/// What a journal is made of.
pub struct JournalContext {
    /// How disks are reached.
    pub access: Access,
    /// Who must have what.
    pub quorum: Arc<Quorum>,
    /// Expected waits of disks.
    pub heat: Arc<Heat>,
    /// The pool.
    pub pool: PoolUuid,
    /// This mount's epoch.
    pub epoch: Epoch,
    /// Its random id.
    pub epoch_id: u64,
}

/// A batch that is durable, or in flight, and not trimmed yet.
struct Logged {
    lsn: Lsn,
    batch_crc: u64,
    bytes: u64,
    /// Where copies of it were begun.
    places: Vec<(DiskIndex, u64)>,
    /// Where of these it is known to be.
    written: Vec<(DiskIndex, u64)>,
}

struct State {
    /// By disk, ascending.
    rings: Vec<Ring>,
    /// The highest acknowledged batch and its checksum.
    acked: Lsn,
    acked_crc: u64,
    /// The batch before the first in `log`, and its checksum.
    trimmed: Lsn,
    trimmed_crc: u64,
    log: VecDeque<Logged>,
    log_bytes: u64,
    /// Acknowledged, with copies that are still being written.
    stragglers: Vec<Flight>,
    /// Bound but not acknowledged: waits for a retry.
    pending: Option<Pending>,
    /// A batch is in flight.
    busy: bool,
    /// Too few disks take the batch in flight [R11].
    suspended: bool,
}

/// The journal of an open pool. `append` has one caller at a time; the rest may be called from any
/// thread.
pub struct Journal {
    context: JournalContext,
    state: Mutex<State>,
    event: Arc<Event>,
    stopped: AtomicBool,
}

impl Journal {
    /// A journal whose rings are empty, and whose next batch follows `from`: after recovery, what
    /// `Replay::end` says. Nothing is written. The ring content before is dead once the recovery's
    /// root (of this epoch) is effective: no batch may be appended earlier [R4].
    pub fn open(context: JournalContext, from: &Mark) -> Journal {
        let members = context.quorum.members();
        let mut rings = Vec::new();
        for member in members.all() {
            let head = from.heads.iter().find(|(disk, _)| *disk == member.index);
            let place = RingPlace {
                start: member.layout.journal_offset,
                bytes: member.layout.journal_bytes,
            };
            let position = head.map_or(0, |&(_, position)| position);
            rings.push(Ring::new(member.index, member.uuid, place, position));
        }
        let state = State {
            rings,
            acked: from.lsn,
            acked_crc: from.batch_crc,
            trimmed: from.lsn,
            trimmed_crc: from.batch_crc,
            log: VecDeque::new(),
            log_bytes: 0,
            stragglers: Vec::new(),
            pending: None,
            busy: false,
            suspended: false,
        };
        Journal {
            context,
            state: Mutex::new(state),
            event: Arc::new(Event::new()),
            stopped: AtomicBool::new(false),
        }
    }

    /// A disk became a member: batches go there from now on.
    pub fn add(&self, member: &Member) {
        let place =
            RingPlace { start: member.layout.journal_offset, bytes: member.layout.journal_bytes };
        let ring = Ring::new(member.index, member.uuid, place, 0);
        let mut state = self.state.lock();
        state.rings.retain(|ring| ring.disk != member.index);
        state.rings.push(ring);
        state.rings.sort_by_key(|ring| ring.disk);
    }

    /// A disk that takes part again takes batches too. False, and nothing happened, while one that was sent to
    /// it has not been answered [R7].
    pub fn take_back(&self, disk: DiskIndex) -> bool {
        self.reap_stragglers();
        self.reap_pending();
        let mut state = self.state.lock();
        let ring = state.rings.iter_mut().find(|ring| ring.disk == disk);
        let Some(ring) = ring.filter(|ring| ring.is_quiet()) else { return false };
        ring.in_rotation = true;
        true
    }

    /// The highest batch that may have been acknowledged, or will be, without asking anew which disks take
    /// part.
    pub fn bound(&self) -> Lsn {
        let state = self.state.lock();
        state.log.back().map_or(state.acked, |logged| logged.lsn.max(state.acked))
    }

    /// Makes a batch durable: on min(active, m+1) members when this returns Ok, and so is every batch
    /// before it [R1, R3]. `lsn` is the one after the last acknowledged; `payload` is 1 byte to
    /// [`Journal::payload_bytes_max`]. Waits while disks are late [R11]; hold no lock [R23].
    ///
    /// Errors: `JournalFull`: nothing was written, the LSN is still free. `TooFewDisks`: more than m
    /// members have *failed*; the LSN is bound, and the only thing that may be appended next is the
    /// same batch again. `Stopped`: as `TooFewDisks`, for good.
    pub fn append(&self, lsn: Lsn, payload: &[u8]) -> Result<(), FleetError> {
        let pending = self.bind(lsn, payload)?;
        let (pending, result) = self.carry_out(pending, payload);
        self.unbind(pending, &result);
        result
    }

    /// Largest payload that `append` takes: an entry is at most 8 MiB and an eighth of the ring that
    /// limits us, so that the quarter kept for internal commits always holds two.
    pub fn payload_bytes_max(&self) -> usize {
        let state = self.state.lock();
        let mut bytes: Vec<u64> = state.rings.iter().map(|ring| ring.place.bytes).collect();
        drop(state);
        bytes.sort_unstable_by(|a, b| b.cmp(a));
        let limiting = self.context.quorum.wish().clamp(1, bytes.len().max(1)) - 1;
        let ring = bytes.get(limiting).copied().unwrap_or(0);
        (ring / 8).min(ENTRY_BYTES_MAX) as usize - commit::HEADER_BYTES
    }

    /// Whether a batch with `payload_bytes` could be written now without going beyond what its level
    /// may use [R10]. Ask before taking any lock, and before the batch gets its LSN [R23].
    pub fn room(&self, level: Level, payload_bytes: usize) -> bool {
        let Ok(need) = self.context.quorum.need() else { return false };
        let bytes = commit::entry_bytes(payload_bytes);
        let active = self.members().active();
        let state = self.state.lock();
        let fits = state.rings.iter().filter(|ring| active.contains(&ring.disk));
        fits.filter(|ring| ring.has_room(level, bytes)).count() >= need
    }

    /// How full the log is, in percent: the fullest ring among those that the next batch would take
    /// if it took the emptiest of those that are left when the m emptiest are lost. At 50 flushing
    /// starts [R10].
    pub fn fill_percent(&self) -> u64 {
        let active = self.members().active();
        let state = self.state.lock();
        let rings = state.rings.iter().filter(|ring| active.contains(&ring.disk));
        let mut fill: Vec<u64> = rings.map(Ring::percent).collect();
        drop(state);
        fill.sort_unstable();
        let index = (self.context.quorum.wish() + self.members().parity()).saturating_sub(1);
        fill.get(index).or(fill.last()).copied().unwrap_or(100)
    }

    /// Bytes of batches since the last trim, one copy of each. At 512 MiB a checkpoint starts [R10].
    pub fn logged_bytes(&self) -> u64 {
        self.state.lock().log_bytes
    }

    /// The highest acknowledged batch.
    pub fn acked(&self) -> Lsn {
        self.state.lock().acked
    }

    /// What a root must say so that replay begins after batch `lsn`, which is acknowledged and not
    /// before the last trim. Panics otherwise.
    pub fn mark(&self, lsn: Lsn) -> Mark {
        let mut state = self.state.lock();
        assert!(state.trimmed <= lsn && lsn <= state.acked, "{lsn} is not in the log");
        let batch_crc = match state.log.iter().find(|logged| logged.lsn == lsn) {
            Some(logged) => logged.batch_crc,
            None => state.trimmed_crc,
        };
        let mut heads: Vec<(DiskIndex, u64)> =
            state.rings.iter_mut().map(|ring| (ring.disk, ring.mark())).collect();
        let after = state.log.iter().filter(|logged| logged.lsn > lsn);
        for &(disk, position) in after.flat_map(|logged| &logged.places) {
            let head = heads.iter_mut().find(|(of, _)| *of == disk);
            let head = head.expect("every copy is in a ring we know");
            head.1 = head.1.min(position);
        }
        Mark { lsn, batch_crc, heads }
    }

    /// The root that says `mark` is effective [R9]: everything before may be written over, and late
    /// disks that have answered come back into the rotation [R5].
    pub fn trim(&self, mark: &Mark) {
        self.reap_stragglers();
        {
            let mut state = self.state.lock();
            assert!(mark.lsn <= state.acked, "only acknowledged batches are trimmed");
            for &(disk, head) in &mark.heads {
                if let Some(ring) = state.rings.iter_mut().find(|ring| ring.disk == disk) {
                    ring.trim(head);
                }
            }
            for ring in &mut state.rings {
                ring.in_rotation |= ring.is_quiet();
            }
            while state.log.front().is_some_and(|logged| logged.lsn <= mark.lsn) {
                let logged = state.log.pop_front().expect("it was just seen");
                state.log_bytes -= logged.bytes;
                state.trimmed = logged.lsn;
                state.trimmed_crc = logged.batch_crc;
            }
        }
        self.event.notify();
    }

    /// Notified when room was made, a batch acknowledged, or writing suspended or resumed.
    pub fn event(&self) -> Arc<Event> {
        self.event.clone()
    }

    /// Why nothing can be appended before members come back: more than m of them are gone.
    pub fn lost(&self) -> Option<FleetError> {
        let lost = self.context.quorum.need().err();
        if lost.is_some() {
            self.set_suspended(true, self.members().parity() + 1);
        } else if !self.state.lock().busy {
            self.set_suspended(false, 0);
        }
        lost
    }

    /// Whether a batch waits because too few disks take it [R11].
    pub fn suspended(&self) -> bool {
        self.state.lock().suspended
    }

    /// Ends a suspended `append` with `Stopped`, now or later. For closing a pool whose disks do not
    /// answer: what was not acknowledged is lost.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.event.notify();
    }

    fn members(&self) -> &Arc<Members> {
        self.context.quorum.members()
    }
}
