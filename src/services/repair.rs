//! Repair: a pool that lost a disk becomes fully redundant again by itself.
//!
//! 1. A member that does not take part is *given up* after a while, so that a cable that is put back, or a
//!    restart, costs nothing; after a tenth of that if no other disk may be lost. Bad shards that a reader could not
//!    mend in place wait for nothing.
//! 2. A pass counts what lacks shards, then goes through all objects, some at a time, and has each made
//!    whole (`namespace::repair`), waiting for their batch before the next ones.
//! 3. Where no disk is left for a shard and the next loss would be one of data, what is alive in the
//!    object is written again, narrower and at full margin [R12]: a compaction that frees nothing. So are
//!    objects that were written with too few disks at hand, when there are more.
//! 4. Tables are written again by the index's compactor, and the root's chains by a checkpoint; also of those
//!    with a bad copy, at once, and a checkpoint names them, also where nothing else changes.
//! 5. A member that is to leave is treated likewise, but for being read from; and when nothing is on it
//!    any more, it is removed.
//!
//! A pass also begins when there are more disks than before, and once after opening: what was left then is
//! not known.
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
/// Pause while tables or chains are written anew.
const RENEWAL: Duration = Duration::from_millis(500);
/// Pause after a pass that could not do everything.
const RETRY: Duration = Duration::from_secs(60);
/// The same after many such passes: each one doubles it.
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// Objects with noted shards that wait for the next pass, at most.
const HELD_MAX: usize = 1024;

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
    /// That checkpoint took effect. False if another one is needed.
    fn end(&self, disk: DiskIndex) -> bool;
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
    Rewriting(Page, Compaction),
    /// Step 4.
    Ending,
    /// Step 5: it is none any more with this checkpoint.
    Removing(DiskIndex, u64),
}

/// What is left of a page.
struct Page {
    left: VecDeque<(Lacking, Vec<ShardIndex>)>,
    next: Option<ObjectId>,
    /// Bad shards that readers noted: no part of a pass.
    noted: bool,
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
    /// How often a disk had come when it last looked; None before it has.
    arrivals: Option<u64>,
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
    /// The last object there was when the pass began: what it writes itself is none of its work.
    last: ObjectId,
    /// Objects that no disk is left for, and short ones.
    rewritten: VecDeque<Lacking>,
    /// When members are looked at next.
    next_look: Ticks,
    /// Pause before the next pass, if there is something left.
    retry: Duration,
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
            arrivals: None,
            away: BTreeMap::new(),
            due: None,
            left_over: false,
            left: Vec::new(),
            last: ObjectId(0),
            rewritten: VecDeque::new(),
            next_look: Ticks::default(),
            retry: RETRY,
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

    /// Whether a disk has come: what waited for one may have one now.
    fn has_more_disks(&mut self) -> bool {
        let arrivals = self.members.arrivals();
        match self.arrivals.replace(arrivals) {
            Some(before) => arrivals != before,
            None => {
                if let Some(delay) = self.options.delay {
                    let first = self.clock.now() + delay / 10;
                    self.set_due(first);
                }
                false
            }
        }
    }

    /// Earlier than that if it was to be earlier.
    fn set_due(&mut self, at: Ticks) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn rest(&mut self) -> Result<Pace, NamespaceError> {
        let now = self.clock.now();
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            return Ok(self.begin_pass());
        }
        let bad = self.namespace.take_bad();
        if bad.is_empty() {
            let is_done = self.namespace.has_renewed();
            return Ok(self.pause(if is_done { self.options.look } else { RENEWAL }));
        }
        let lacking = |object| Lacking { object, bytes: 0, length: 0, margin: 1, short: false };
        let left = bad.into_iter().map(|(object, shards)| (lacking(object), shards)).collect();
        let settled = self.namespace.settled();
        self.phase = Phase::Settling(Page { left, next: None, noted: true }, settled);
        Ok(Pace::Again)
    }

    fn begin_pass(&mut self) -> Pace {
        self.left_over = false;
        self.rewritten.clear();
        for (object, bad) in std::mem::take(&mut self.held) {
            bad.into_iter().for_each(|shard| self.namespace.note_bad(object, shard));
        }
        self.namespace.renew_short();
        let since = self.clock.now();
        self.progress = RepairProgress { running: true, since, ..RepairProgress::default() };
        self.phase = Phase::Counting(ObjectId(0));
        Pace::Again
    }

    fn count(&mut self, from: ObjectId) -> Result<Pace, NamespaceError> {
        let page = self.namespace.lacking(from)?;
        self.last = page.last.unwrap_or(self.last);
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
        let found = page.found.into_iter().filter(|lacking| lacking.object <= self.last);
        let left: VecDeque<_> = found.map(|lacking| (lacking, Vec::new())).collect();
        self.phase = match page.next.filter(|&next| next <= self.last) {
            Some(next) if left.is_empty() => Phase::Looking(next),
            next => {
                let settled = self.namespace.settled();
                Phase::Settling(Page { left, next, noted: false }, settled)
            }
        };
        Ok(Pace::Again)
    }

    /// The first ones of a page, as many as go together. Of those that were noted it is not known how much
    /// they take.
    fn take_some(page: &mut Page) -> Vec<(Lacking, Vec<ShardIndex>)> {
        let mut bytes = 0;
        let fits = page.left.iter().take_while(|(lacking, _)| {
            bytes += if page.noted { REBUILD_BYTES } else { lacking.bytes };
            bytes <= REBUILD_BYTES
        });
        let count = fits.count().max(1).min(page.left.len());
        page.left.drain(..count).collect()
    }

    /// Step 2, some objects.
    fn repair(&mut self, mut page: Page) -> Result<Pace, NamespaceError> {
        if !self.namespace.repair_has_room() {
            self.phase = Phase::Repairing(page);
            return Ok(self.pause(BATCH * 20));
        }
        if let Some(compaction) = self.rewrite() {
            self.phase = Phase::Rewriting(page, compaction);
            return Ok(Pace::Again);
        }
        let some = Self::take_some(&mut page);
        if some.is_empty() {
            self.phase = match page.next {
                Some(next) => Phase::Looking(next),
                None if page.noted => Phase::Resting,
                None => Phase::Ending,
            };
            return Ok(Pace::Again);
        }
        let todo: Vec<(ObjectId, Vec<ShardIndex>)> =
            some.iter().map(|(lacking, bad)| (lacking.object, bad.clone())).collect();
        let results = self.namespace.repair(&todo);
        let mut last = Lsn(0);
        for ((lacking, bad), result) in some.into_iter().zip(results) {
            match result {
                Ok(Repaired::Whole(lsn)) => {
                    self.done(&page, &lacking);
                    // As many as it was given: the next pass writes it again.
                    self.left_over |= lacking.short;
                    last = last.max(lsn);
                }
                Ok(Repaired::Nothing) if lacking.short => self.rewritten.push_back(lacking),
                Ok(Repaired::Nothing) => self.done(&page, &Lacking { bytes: 0, ..lacking }),
                Ok(Repaired::NoPlace) if !page.noted && self.must_narrow(&lacking) => {
                    self.rewritten.push_back(lacking);
                }
                Ok(Repaired::NoPlace) if !page.noted => self.progress.waiting += 1,
                // Of a noted shard it was told by who read it.
                Err(NamespaceError::Io(FleetError::Unreadable { .. })) => {
                    self.progress.lost += u64::from(!page.noted);
                }
                Ok(Repaired::Busy | Repaired::NoPlace) => self.again(&lacking, bad),
                Err(error) => {
                    log::warn!("object {} could not be repaired: {error}", lacking.object);
                    self.again(&lacking, bad);
                }
            }
        }
        self.phase = match self.rewrite() {
            Some(compaction) => Phase::Rewriting(page, compaction),
            None => Phase::Settling(page, last),
        };
        Ok(Pace::Again)
    }

    fn done(&mut self, page: &Page, lacking: &Lacking) {
        if !page.noted {
            self.progress.objects_done += 1;
            self.progress.bytes_done += lacking.bytes;
        }
    }

    /// It is tried again with the next pass.
    fn again(&mut self, lacking: &Lacking, bad: Vec<ShardIndex>) {
        self.left_over = true;
        if !bad.is_empty() && self.held.len() < HELD_MAX {
            self.held.push((lacking.object, bad));
            let retry = self.clock.now() + RETRY;
            self.set_due(retry);
        }
    }

    /// Without a disk for its shards it is written again, narrower.
    fn must_narrow(&self, lacking: &Lacking) -> bool {
        lacking.margin <= 0 || !self.left.is_empty()
    }

    /// Step 3, for the next of the objects that no disk is left for and that there is room for. None if
    /// there are none left.
    fn rewrite(&mut self) -> Option<Compaction> {
        while !self.rewritten.is_empty() {
            let mut bytes = 0;
            let fits = self.rewritten.iter().take_while(|lacking| {
                bytes += lacking.length;
                bytes <= self.namespace.compaction_bytes()
            });
            let count = fits.count().max(1);
            let some: Vec<Lacking> = self.rewritten.drain(..count).collect();
            let victims: Vec<ObjectId> = some.iter().map(|lacking| lacking.object).collect();
            match self.namespace.begin_rewrite(&victims) {
                Ok(Some(compaction)) => {
                    // Who was passed over is met again.
                    self.left_over |= compaction.objects() < some.len();
                    self.progress.objects_done += compaction.objects() as u64;
                    if compaction.objects() == some.len() {
                        self.progress.bytes_done += some.iter().map(|one| one.bytes).sum::<u64>();
                    }
                    return Some(compaction);
                }
                Ok(None) => self.left_over = true,
                Err(error) => {
                    log::warn!("{} objects could not be written again: {error}", some.len());
                    self.progress.waiting += some.len() as u64;
                }
            }
        }
        None
    }

    fn go_on(&mut self, page: Page, mut compaction: Compaction) -> Result<Pace, NamespaceError> {
        match self.namespace.go_on(&mut compaction) {
            Ok(false) => {
                self.phase = Phase::Rewriting(page, compaction);
                return Ok(self.pause(BATCH));
            }
            Ok(true) => {}
            Err(error) => {
                log::warn!("objects could not be written again: {error}");
                self.left_over = true;
            }
        }
        // The next ones begin when what these took is free.
        let lsn = self.namespace.end_compaction(compaction)?.lsn;
        self.phase = Phase::Settling(page, lsn);
        Ok(Pace::Again)
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
        if self.left_over || waiting > 0 || (lost > 0 && !self.left.is_empty()) {
            let at = self.clock.now() + self.retry;
            self.set_due(at);
            self.retry = (self.retry * 2).min(RETRY_MAX);
        } else if !self.left.is_empty() {
            self.remove_one();
        }
        let level = match objects_done + waiting + lost {
            0 => log::Level::Debug,
            _ => log::Level::Info,
        };
        log::log!(
            level,
            "repair: {objects_done} objects are whole again ({} MiB written), {waiting} wait for disks \
             or room, {lost} cannot be read",
            bytes_done / MIB
        );
        Pace::Again
    }

    /// Who is away, or is to leave: once in a while, also in the middle of a pass, which then begins anew:
    /// what was whole may lack something now.
    fn look_at_members(&mut self) {
        let now = self.clock.now();
        if now < self.next_look {
            return;
        }
        self.next_look = now + self.options.look;
        let leaving = self.members.leaving();
        let leaves = leaving.iter().any(|disk| !self.left.contains(disk));
        let news = self.give_up() | self.has_more_disks() | leaves;
        self.left = leaving;
        if news {
            self.retry = RETRY;
            self.due = Some(now);
            if matches!(self.phase, Phase::Rewriting(..) | Phase::Removing(..)) {
                return;
            }
            if let Phase::Settling(page, _) | Phase::Repairing(page) =
                std::mem::replace(&mut self.phase, Phase::Resting)
            {
                let noted = page.left.into_iter().filter(|(_, bad)| !bad.is_empty());
                self.held.extend(noted.map(|(lacking, bad)| (lacking.object, bad)));
            }
        }
    }

    /// Step 5, for the first one that nothing is on any more.
    fn remove_one(&mut self) {
        for &disk in &self.left {
            if let Some(checkpoint) = self.removal.begin(disk) {
                self.phase = Phase::Removing(disk, checkpoint);
                return;
            }
        }
        // Tables that were replaced are free after the next checkpoint, and what is on its way to a disk that
        // leaves is named, or given up, before long.
        self.namespace.want_checkpoint();
        let at = self.clock.now() + self.options.look;
        self.set_due(at);
    }

    fn run_step(&mut self) -> Result<Pace, NamespaceError> {
        self.look_at_members();
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
            Phase::Rewriting(page, compaction) => self.go_on(page, compaction),
            Phase::Ending => Ok(self.end()),
            Phase::Removing(disk, checkpoint) if self.namespace.checkpoint_is_done(checkpoint) => {
                if !self.removal.end(disk) {
                    self.phase = Phase::Removing(disk, self.namespace.want_checkpoint());
                    return Ok(Pace::Again);
                }
                self.left.retain(|&left| left != disk);
                if !self.left.is_empty() {
                    let now = self.clock.now();
                    self.set_due(now);
                }
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
            if let Phase::Rewriting(_, compaction) =
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
            let at = self.clock.now() + RETRY;
            self.set_due(at);
            self.pause(self.options.look)
        });
        *self.shared.lock() = self.progress;
        pace
    }
}
