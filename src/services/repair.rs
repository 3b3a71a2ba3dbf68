//! Repair: a pool that lost a disk becomes fully redundant again by itself.
//!
//! 1. A member that does not take part is *given up* after a while, so that a cable that is put back, or a
//!    restart, costs nothing; after a tenth of that if no other disk may be lost. Bad shards that a reader could not
//!    mend in place wait for nothing.
//! 2. A pass counts what lacks shards, then goes through all objects, some at a time, and has each made
//!    whole (`namespace::repair`), waiting for their batch before the next ones.
//! 3. Where no disk is left for a shard and the next loss would be one of data, what is alive in the
//!    object is written again, narrower and at full margin [R12]: a compaction that frees nothing.
//! 4. Tables are written again by the index's compactor, and the root's chains by a checkpoint.
//! 5. A member that is to leave is treated likewise, but for being read from; and when nothing is on it
//!    any more, it is removed.
//!
//! Any order, no throttle but that users' requests go first. It stops and begins at any step; a crash
//! loses nothing but the pass, and the next one finds what is left.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::base::sync::{Arc, Mutex};
use crate::base::{Clock, DiskIndex, Event, Lsn, MIB, ObjectId, Pace, ShardIndex, Task, Ticks};
use crate::fleet::{FleetError, MemberState, Members, REBUILD_BYTES};
use crate::namespace::{Compaction, Lacking, Namespace, NamespaceError, Repaired};

/// Numbers that tests and administrators change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RepairOptions {
    /// A member that is missing or failed for so long is given up, after a tenth of it if no other may be
    /// lost; None: never.
    pub delay: Option<Duration>,
    /// How often it looks.
    pub look: Duration,
}

/// A restart, or a cable that is put back, takes less.
pub const REPAIR_DELAY: Duration = Duration::from_secs(600);

impl Default for RepairOptions {
    fn default() -> RepairOptions {
        RepairOptions { delay: Some(REPAIR_DELAY), look: Duration::from_secs(5) }
    }
}

/// Pause while a batch is on its way.
const BATCH: Duration = Duration::from_millis(5);
/// Pause after a pass that could not do everything.
const RETRY: Duration = Duration::from_secs(60);
/// Objects that are written again together.
const NARROWED_MAX: usize = 32;

/// How far repair is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RepairProgress {
    /// A pass is on.
    pub running: bool,
    /// Objects that were found lacking in this pass, or the last one.
    pub objects_total: u64,
    /// Those that are whole again.
    pub objects_done: u64,
    /// Bytes that are to be written for them.
    pub bytes_total: u64,
    /// Those that were written.
    pub bytes_done: u64,
    /// When it began.
    pub since: Ticks,
    /// Objects that no disk is left for, and tables that still lack a copy: the pool lacks disks or room.
    pub waiting: u64,
    /// Objects that cannot be read any more.
    pub lost: u64,
}

/// Takes a member out of the pool, in two steps; `pool` can.
pub trait Removal: Send + Sync {
    /// Begins to: the number of the checkpoint with which it is none any more. None if that cannot be
    /// now: something is still on it, or it would be one too many.
    fn begin(&self, disk: DiskIndex) -> Option<u64>;
    /// That checkpoint took effect.
    fn end(&self, disk: DiskIndex);
}

/// Shared with whoever shows it.
pub type SharedProgress = Arc<Mutex<RepairProgress>>;

enum Phase {
    /// Until something is to be done.
    Resting,
    /// Step 2: how much there is, from this object on.
    Counting(ObjectId),
    /// Step 2: the next page begins with this object.
    Looking(ObjectId),
    /// Step 2: these are repaired when this batch is durable.
    Settling(Page, Lsn),
    /// Step 2.
    Repairing(Page),
    /// Step 3: some are being written again.
    Narrowing(Page, Compaction),
    /// Step 4.
    Ending,
    /// Step 5: it is none any more with this checkpoint.
    Removing(DiskIndex, u64),
}

/// What is left of a page.
struct Page {
    left: VecDeque<(Lacking, Vec<ShardIndex>)>,
    next: Option<ObjectId>,
}

/// The background task.
pub struct Repair {
    namespace: Namespace,
    members: Arc<Members>,
    clock: Arc<dyn Clock>,
    removal: Arc<dyn Removal>,
    options: RepairOptions,
    shared: SharedProgress,
    progress: RepairProgress,
    phase: Phase,
    /// Since when members do not take part.
    away: BTreeMap<DiskIndex, Ticks>,
    /// There is something to be done, from this moment on.
    due: Option<Ticks>,
    /// Of the pass: somebody held an object, or there was an error.
    left_over: bool,
    /// Members that leave, and that a pass has begun for.
    left: Vec<DiskIndex>,
    /// Bad shards of objects that were busy: noted again with the next pass.
    held: Vec<(ObjectId, Vec<ShardIndex>)>,
    /// The index's tables were waited for so many times.
    looks: u32,
}

impl Repair {
    /// A task that repairs this namespace's objects, and where it says how far it is.
    pub fn new(
        namespace: Namespace,
        members: Arc<Members>,
        clock: Arc<dyn Clock>,
        removal: Arc<dyn Removal>,
        options: RepairOptions,
    ) -> (Repair, SharedProgress) {
        let shared = SharedProgress::default();
        let repair = Repair {
            namespace,
            members,
            clock,
            removal,
            options,
            shared: shared.clone(),
            progress: RepairProgress::default(),
            phase: Phase::Resting,
            away: BTreeMap::new(),
            due: None,
            left_over: false,
            left: Vec::new(),
            held: Vec::new(),
            looks: 0,
        };
        (repair, shared)
    }

    fn pause(&self, pause: Duration) -> Pace {
        Pace::Idle(Some(self.clock.now() + pause))
    }

    /// Step 1: gives up who is away for long. True if somebody was.
    fn give_up(&mut self) -> bool {
        let now = self.clock.now();
        let all = self.members.all();
        let away: Vec<DiskIndex> = (all.iter())
            .filter(|member| member.state != MemberState::Active)
            .map(|member| member.index)
            .collect();
        self.away.retain(|disk, _| away.contains(disk));
        let (parity, mut given_up) = (self.members.parity(), false);
        for &disk in &away {
            let since = *self.away.entry(disk).or_insert(now);
            let Some(delay) = self.options.delay else { continue };
            let urgent = parity > 0 && away.len() >= parity;
            let delay = if urgent { delay / 10 } else { delay };
            if now >= since + delay && !self.members.is_given_up(disk) {
                log::warn!("disk {disk} is given up: what was on it is made anew on other disks");
                self.members.give_up(disk);
                given_up = true;
            }
        }
        given_up
    }

    fn rest(&mut self) -> Result<Pace, NamespaceError> {
        let now = self.clock.now();
        let leaving = self.members.leaving();
        if self.give_up() || leaving.iter().any(|disk| !self.left.contains(disk)) {
            self.due = Some(now);
        }
        self.left = leaving;
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.left_over = false;
            for (object, bad) in std::mem::take(&mut self.held) {
                bad.into_iter().for_each(|shard| self.namespace.note_bad(object, shard));
            }
            self.progress =
                RepairProgress { running: true, since: now, ..RepairProgress::default() };
            self.phase = Phase::Counting(ObjectId(0));
            return Ok(Pace::Again);
        }
        let bad = self.namespace.take_bad();
        if bad.is_empty() {
            return Ok(self.pause(self.options.look));
        }
        let lacking = |object| Lacking { object, bytes: 0, margin: 1 };
        let left = bad.into_iter().map(|(object, shards)| (lacking(object), shards)).collect();
        let settled = self.namespace.settled();
        self.phase = Phase::Settling(Page { left, next: None }, settled);
        Ok(Pace::Again)
    }

    fn count(&mut self, from: ObjectId) -> Result<Pace, NamespaceError> {
        let page = self.namespace.lacking(from)?;
        for lacking in &page.found {
            self.progress.objects_total += 1;
            self.progress.bytes_total += lacking.bytes;
        }
        self.phase = match page.next {
            Some(next) => Phase::Counting(next),
            None => Phase::Looking(ObjectId(0)),
        };
        Ok(Pace::Again)
    }

    fn look(&mut self, from: ObjectId) -> Result<Pace, NamespaceError> {
        let page = self.namespace.lacking(from)?;
        let left = page.found.into_iter().map(|lacking| (lacking, Vec::new())).collect();
        self.phase = Phase::Settling(Page { left, next: page.next }, page.settled);
        Ok(Pace::Again)
    }

    /// Step 2, some objects.
    fn repair(&mut self, mut page: Page) -> Result<Pace, NamespaceError> {
        let Some(first) = page.left.front().map(|(lacking, _)| lacking.bytes) else {
            self.phase = match page.next {
                Some(next) => Phase::Looking(next),
                None => Phase::Ending,
            };
            return Ok(Pace::Again);
        };
        let mut bytes = 0;
        let fits = page.left.iter().take_while(|(lacking, _)| {
            bytes += lacking.bytes;
            bytes <= REBUILD_BYTES.max(first)
        });
        let count = fits.count().max(1);
        let some: Vec<(Lacking, Vec<ShardIndex>)> = page.left.drain(..count).collect();
        let todo: Vec<(ObjectId, Vec<ShardIndex>)> =
            some.iter().map(|(lacking, bad)| (lacking.object, bad.clone())).collect();
        let results = self.namespace.repair(&todo);
        let (mut narrow, mut last) = (Vec::new(), Lsn(0));
        for ((lacking, bad), result) in some.into_iter().zip(results) {
            match result {
                Ok(Repaired::Whole(lsn)) => {
                    self.progress.objects_done += 1;
                    self.progress.bytes_done += lacking.bytes;
                    last = last.max(lsn);
                }
                Ok(Repaired::Nothing) => self.progress.objects_done += 1,
                Ok(Repaired::Busy) => {
                    self.left_over = true;
                    self.held.extend((!bad.is_empty()).then_some((lacking.object, bad)));
                }
                Ok(Repaired::NoPlace) if lacking.margin <= 0 || !self.left.is_empty() => {
                    narrow.push(lacking);
                }
                Ok(Repaired::NoPlace) => self.progress.waiting += 1,
                Err(NamespaceError::Io(FleetError::Unreadable { .. })) => self.progress.lost += 1,
                Err(error) => {
                    log::warn!("object {} could not be repaired: {error}", lacking.object);
                    self.left_over = true;
                }
            }
        }
        if let Some(phase) = self.narrow(&narrow, &mut page)? {
            self.phase = phase;
        } else {
            self.phase = Phase::Settling(page, last);
        }
        Ok(Pace::Again)
    }

    /// Step 3, for objects that no disk is left for.
    fn narrow(
        &mut self,
        objects: &[Lacking],
        page: &mut Page,
    ) -> Result<Option<Phase>, NamespaceError> {
        let (some, rest) = objects.split_at(objects.len().min(NARROWED_MAX));
        page.left.extend(rest.iter().map(|&lacking| (lacking, Vec::new())));
        if some.is_empty() {
            return Ok(None);
        }
        let victims: Vec<ObjectId> = some.iter().map(|lacking| lacking.object).collect();
        let Some(compaction) = self.namespace.begin_rewrite(&victims)? else {
            self.progress.waiting += some.len() as u64;
            return Ok(None);
        };
        self.progress.objects_done += some.len() as u64;
        self.progress.bytes_done += some.iter().map(|lacking| lacking.bytes).sum::<u64>();
        let page = std::mem::replace(page, Page { left: VecDeque::new(), next: None });
        Ok(Some(Phase::Narrowing(page, compaction)))
    }

    fn go_on(&mut self, page: Page, mut compaction: Compaction) -> Result<Pace, NamespaceError> {
        match self.namespace.go_on(&mut compaction) {
            Ok(false) => {
                self.phase = Phase::Narrowing(page, compaction);
                Ok(self.pause(BATCH))
            }
            Ok(true) => {
                let lsn = self.namespace.end_compaction(compaction)?.lsn;
                self.phase = Phase::Settling(page, lsn);
                Ok(Pace::Again)
            }
            Err(error) => {
                self.namespace.end_compaction(compaction)?;
                Err(error)
            }
        }
    }

    /// Step 4, and the end of the pass.
    fn end(&mut self) -> Pace {
        let lacking = self.namespace.lacking_unkeyed() as u64;
        if lacking > 0 && self.looks < 60 {
            self.looks += 1;
            self.phase = Phase::Ending;
            self.namespace.want_checkpoint();
            return self.pause(Duration::from_secs(1));
        }
        self.looks = 0;
        self.progress.waiting += lacking;
        self.progress.running = false;
        let RepairProgress { objects_done, bytes_done, waiting, lost, .. } = self.progress;
        if self.left_over || waiting > 0 {
            self.due = Some(self.clock.now() + RETRY);
        } else if let Some(&disk) = self.left.first() {
            match self.removal.begin(disk) {
                Some(checkpoint) => self.phase = Phase::Removing(disk, checkpoint),
                // What is on its way there is named, or given up, before long.
                None => {
                    // Tables that were replaced are free after the next checkpoint.
                    self.namespace.want_checkpoint();
                    self.due = Some(self.clock.now() + self.options.look);
                }
            }
        }
        log::info!(
            "repair: {objects_done} objects are whole again ({} MiB written), {waiting} wait for disks \
             or room, {lost} cannot be read",
            bytes_done / MIB
        );
        Pace::Again
    }

    fn run_step(&mut self) -> Result<Pace, NamespaceError> {
        match std::mem::replace(&mut self.phase, Phase::Resting) {
            Phase::Resting => self.rest(),
            Phase::Counting(from) => self.count(from),
            Phase::Looking(from) => self.look(from),
            Phase::Settling(page, lsn) if self.namespace.progress().durable < lsn => {
                self.phase = Phase::Settling(page, lsn);
                Ok(self.pause(BATCH))
            }
            Phase::Settling(page, _) => {
                self.phase = Phase::Repairing(page);
                Ok(Pace::Again)
            }
            Phase::Repairing(page) => self.repair(page),
            Phase::Narrowing(page, compaction) => self.go_on(page, compaction),
            Phase::Ending => Ok(self.end()),
            Phase::Removing(disk, checkpoint) if self.namespace.checkpoint_is_done(checkpoint) => {
                self.removal.end(disk);
                self.left.retain(|&left| left != disk);
                self.due = (!self.left.is_empty()).then(|| self.clock.now());
                Ok(Pace::Again)
            }
            Phase::Removing(disk, checkpoint) => {
                self.phase = Phase::Removing(disk, checkpoint);
                Ok(self.pause(Duration::from_millis(100)))
            }
        }
    }
}

impl Task for Repair {
    fn name(&self) -> &'static str {
        "repair"
    }

    fn event(&self) -> Arc<Event> {
        self.namespace.repair_event()
    }

    fn step(&mut self) -> Pace {
        if self.namespace.room().ended {
            if let Phase::Narrowing(_, compaction) =
                std::mem::replace(&mut self.phase, Phase::Resting)
                && let Err(error) = self.namespace.end_compaction(compaction)
            {
                log::debug!("repair ends: {error}");
            }
            return self.pause(self.options.look);
        }
        let pace = self.run_step().unwrap_or_else(|error| {
            log::warn!("repair was interrupted, it is tried again: {error}");
            self.progress.running = false;
            self.due = Some(self.clock.now() + RETRY);
            self.pause(self.options.look)
        });
        *self.shared.lock() = self.progress;
        pace
    }
}
