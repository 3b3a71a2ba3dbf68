//! Reclaim: space that dead bytes take becomes free again.
//!
//! Whole dead objects are freed by whoever deletes their last byte. What is left are objects that are
//! dead in part, and small ones, which take more than their bytes would in full ones [R13]: *loose* bytes.
//! When there are enough of them, or room is short, or somebody would be refused, a *pass*:
//!
//! 1. Survey: all objects, a page at a time; those that pay best are remembered.
//! 2. The best of them are compacted, some of one age at a time (`namespace::compact`), each time waiting
//!    until what was freed is free.
//! 3. It ends when the next ones are not worth it: the less room there is, the more is ([`worth`]).
//!
//! What pays: benefit over cost, `(1 - u) * age / (1 + u)` of an object that is alive to the share `u`. The
//! room that an old object gives is kept for long, as is what moves out of it; in a young one more is about
//! to die by itself, and what is moved now is moved in vain. So a young object counts as denser than it is
//! ([`weigh`]), never as sparser: age defers work, and makes none.
//!
//! Age: no record has a time. Objects are numbered in the order in which they are written, over all mounts,
//! and a survey meets them in that order; an object's age is the share that it and all younger ones have of
//! the bytes that are taken. So it is bytes written since, of which still something is there: it needs
//! nothing on disk, stands still while nobody writes, and many small objects age the others no more than
//! a few large ones do.
//!
//! Streams: an object that a compaction writes holds nothing fresh, and nothing of victims of another age
//! ([`choose`]): what was quiet for long stays so, what is hot dies soon, and together they would make
//! objects that are neither.
//!
//! Whoever would be refused does not care for the long run: the pass that answers him is greedy, sparsest
//! first, and takes everything that frees anything.
//!
//! What is written is bounded: a compaction that frees little more than it takes is not begun. A pass stops
//! and begins at any step; a crash loses nothing but the pass.

use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::base::sync::Arc;
use crate::base::{Clock, Event, Lsn, MIB, ObjectId, Pace, Task};
use crate::namespace::{
    Compacted, Compaction, DENSE_PERCENT, Namespace, NamespaceError, ObjectUse, Room,
};

/// Numbers that tests change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReclaimOptions {
    /// No pass begins before so many bytes are loose,
    pub loose_bytes_min: u64,
    /// nor before one in so many of the pool's bytes has; where room is short, a fourth of that, and a
    /// sixteenth where there is next to none.
    pub loose_share: u64,
    /// Objects of which at most so many percent are alive are compacted however much room there is.
    pub worth_percent_min: u64,
    /// How often it looks.
    pub look: Duration,
    /// Between reading and moving; users are faster then.
    pub pause: Duration,
    /// Objects that a survey remembers at most, best first.
    pub victims_max: usize,
    /// Age never counts: what tests measure cost-benefit against.
    pub greedy: bool,
}

impl Default for ReclaimOptions {
    fn default() -> ReclaimOptions {
        let look = Duration::from_secs(5);
        let pause = Duration::ZERO;
        ReclaimOptions {
            loose_bytes_min: 64 * MIB,
            loose_share: 16,
            worth_percent_min: 12,
            look,
            pause,
            victims_max: VICTIMS_MAX,
            greedy: false,
        }
    }
}

/// Objects that a survey remembers at most, by default.
const VICTIMS_MAX: usize = 4096;
/// Objects that are compacted together at most.
const TOGETHER_MAX: usize = 256;
/// Pause while a batch is on its way, or the open one is full.
const BATCH: Duration = Duration::from_millis(5);
/// Pause after an error.
const RETRY: Duration = Duration::from_secs(10);

/// Objects of one age are compacted together. In a model of the loads in `pool::tests::write_cost` two ages
/// were a little worse where what is hot is scattered, and more than three no better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum AgeClass {
    Old,
    Middling,
    Young,
}

/// An object that may be compacted: first the one that counts as fullest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Victim {
    /// As how dense it counts, in thousandths.
    density: u64,
    object: ObjectId,
    live_bytes: u64,
    age: AgeClass,
}

enum Phase {
    /// Until something is to be done.
    Resting,
    /// Step 1, from this object on.
    Surveying(ObjectId, BinaryHeap<Victim>),
    /// Step 2: what to compact next.
    Choosing(VecDeque<Victim>),
    /// Step 2: some are being compacted.
    Moving(VecDeque<Victim>, Compaction),
    /// Step 2: what was freed is free with this batch.
    Committing(VecDeque<Victim>, Lsn),
}

/// What is known of a pass.
#[derive(Clone, Copy, Default)]
struct Pass {
    /// What had become loose when it began.
    loose_bytes: u64,
    /// Whoever wanted room before it began.
    wanted: u64,
    /// There were more objects worth it than were remembered.
    truncated: bool,
    /// The densest of those that were: a survey that goes further begins behind it.
    seen: Option<Victim>,
    /// Somebody waits for it: age does not count.
    greedy: bool,
    /// Bytes on all disks together that were taken when it began,
    taken_bytes: u64,
    /// and by the objects that this survey has met so far.
    met_bytes: u64,
    objects: usize,
    moved_bytes: u64,
}

/// The background task.
pub struct Reclaim {
    namespace: Namespace,
    clock: Arc<dyn Clock>,
    options: ReclaimOptions,
    phase: Phase,
    pass: Pass,
    /// What had become loose when the last pass began; None before the first.
    surveyed: Option<u64>,
    /// The last pass took whatever was to be had.
    thorough: bool,
    answered: u64,
}

/// Of an object, so many percent may be alive for it to be compacted: the less room, the more.
fn worth(room: &Room, wanted: bool, options: &ReclaimOptions) -> u64 {
    let share = room.available_bytes.saturating_mul(100) / room.total_bytes.max(1);
    let worth = match share {
        _ if wanted => DENSE_PERCENT,
        0..5 => DENSE_PERCENT,
        5..10 => 75,
        10..25 => 50,
        25..50 => 25,
        _ => 12,
    };
    worth.max(options.worth_percent_min)
}

/// Bytes that must have become loose since the last survey for the next one. Where next to nothing is free,
/// few: young objects were spared, and a pass that takes the best of them now is cheaper than the greedy
/// one that begins when somebody waits.
fn step_bytes(room: &Room, options: &ReclaimOptions) -> u64 {
    let parts = match room.available_bytes.saturating_mul(100) / room.total_bytes.max(1) {
        0 => 16,
        _ if is_short(room) => 4,
        _ => 1,
    };
    (room.total_bytes / options.loose_share.saturating_mul(parts)).max(options.loose_bytes_min)
}

fn is_short(room: &Room) -> bool {
    room.available_bytes < room.total_bytes / 4
}

/// As how dense an object counts that is alive to so many thousandths, and so many thousandths old: the
/// oldest as what it is, a younger one as the oldest one would that pays as little.
fn weigh(alive: u64, age: u64) -> u64 {
    let (alive, age) = (alive.min(1000), age.min(1000));
    let (benefit, cost) = ((1000 - alive) * age, (1000 + alive) * 1000);
    1000 * (cost - benefit) / (cost + benefit)
}

fn age_class(age: u64) -> AgeClass {
    match age {
        500.. => AgeClass::Old,
        250.. => AgeClass::Middling,
        _ => AgeClass::Young,
    }
}

/// Keeps the sparsest. True if there are too many, so that the densest was forgotten.
fn remember(victims: &mut BinaryHeap<Victim>, victim: Victim, victims_max: usize) -> bool {
    victims.push(victim);
    let too_many = victims.len() > victims_max;
    if too_many {
        victims.pop();
    }
    too_many
}

/// The first ones that are worth it and of an age with the very first, as many as go together.
fn choose(victims: &mut VecDeque<Victim>, worth_percent: u64, bytes_max: u64) -> Vec<ObjectId> {
    let Some(age) = victims.front().map(|first| first.age) else { return Vec::new() };
    let (mut chosen, mut bytes, mut at) = (Vec::new(), 0, 0);
    while let Some(&next) = victims.get(at) {
        if next.density > worth_percent * 10 || chosen.len() >= TOGETHER_MAX {
            break;
        }
        if next.age != age {
            at += 1;
            continue;
        }
        if !chosen.is_empty() && bytes + next.live_bytes > bytes_max {
            break;
        }
        bytes += next.live_bytes;
        chosen.push(next.object);
        victims.remove(at);
    }
    chosen
}

impl Reclaim {
    /// A task that reclaims this namespace's space.
    pub fn new(namespace: Namespace, clock: Arc<dyn Clock>, options: ReclaimOptions) -> Reclaim {
        namespace.will_reclaim();
        Reclaim {
            namespace,
            clock,
            options,
            phase: Phase::Resting,
            pass: Pass::default(),
            surveyed: None,
            thorough: false,
            answered: 0,
        }
    }

    fn pause(&self, pause: Duration) -> Pace {
        Pace::Idle(Some(self.clock.now() + pause))
    }

    fn is_due(&self, room: &Room) -> bool {
        let Some(surveyed) = self.surveyed else {
            return room.wanted > self.answered || is_short(room) || room.loose_bytes > 0;
        };
        let loose = room.loose_bytes - surveyed;
        if room.wanted > self.answered {
            // However little it is: it may be all that is asked for.
            return !self.thorough || loose > 0;
        }
        loose >= step_bytes(room, &self.options)
    }

    fn rest(&mut self, room: &Room) -> Pace {
        if self.is_due(room) {
            let (loose_bytes, wanted) = (room.loose_bytes, room.wanted);
            let greedy = self.options.greedy || wanted > self.answered;
            let taken_bytes = self.namespace.taken_bytes();
            self.pass = Pass { loose_bytes, wanted, greedy, taken_bytes, ..Pass::default() };
            return self.begin_survey();
        }
        if room.wanted > self.answered {
            self.answer(room.wanted);
        }
        self.pause(self.options.look)
    }

    fn begin_survey(&mut self) -> Pace {
        self.pass.truncated = false;
        self.pass.met_bytes = 0;
        self.phase = Phase::Surveying(ObjectId(0), BinaryHeap::new());
        Pace::Again
    }

    fn answer(&mut self, wanted: u64) {
        self.answered = self.answered.max(wanted);
        self.namespace.answer(wanted);
    }

    /// Step 1, one page.
    fn survey(
        &mut self,
        from: ObjectId,
        mut victims: BinaryHeap<Victim>,
    ) -> Result<Pace, NamespaceError> {
        let (page, next) = self.namespace.survey(from)?;
        for entry in page {
            let victim = self.judge(&entry);
            let seen = self.pass.seen.is_some_and(|seen| victim <= seen);
            if victim.density <= DENSE_PERCENT * 10 && !seen {
                self.pass.truncated |= remember(&mut victims, victim, self.options.victims_max);
            }
        }
        self.phase = match next {
            Some(next) => Phase::Surveying(next, victims),
            None => {
                self.pass.seen = victims.peek().copied().or(self.pass.seen);
                Phase::Choosing(victims.into_sorted_vec().into())
            }
        };
        Ok(Pace::Again)
    }

    /// The next object that the survey meets.
    fn judge(&mut self, entry: &ObjectUse) -> Victim {
        let &ObjectUse { object, live_bytes, disk_bytes } = entry;
        let Pass { greedy, taken_bytes, met_bytes, .. } = self.pass;
        self.pass.met_bytes += disk_bytes;
        let needed = self.namespace.disk_bytes(live_bytes);
        let alive = needed.saturating_mul(1000) / disk_bytes.max(1);
        let since = taken_bytes.saturating_sub(met_bytes);
        let age = if greedy { 1000 } else { since.saturating_mul(1000) / taken_bytes.max(1) };
        Victim { density: weigh(alive, age), object, live_bytes, age: age_class(age) }
    }

    /// Step 2: the next ones, or the end of the pass.
    fn choose(
        &mut self,
        mut victims: VecDeque<Victim>,
        room: &Room,
    ) -> Result<Pace, NamespaceError> {
        let worth = worth(room, room.wanted > self.answered, &self.options);
        let chosen = choose(&mut victims, worth, self.namespace.compaction_bytes());
        if chosen.is_empty() {
            return Ok(self.go_further(&victims).unwrap_or_else(|| self.end_pass(worth)));
        }
        match self.namespace.begin_compaction(&chosen, (100 - worth) / 2)? {
            Some(compaction) => {
                self.phase = Phase::Moving(victims, compaction);
                let moves_now = self.options.pause.is_zero();
                Ok(if moves_now { Pace::Again } else { self.pause(self.options.pause) })
            }
            None => {
                // As dense as its small files can be packed; the next ones may be sparse all the same.
                self.phase = Phase::Choosing(victims);
                Ok(Pace::Again)
            }
        }
    }

    /// None of those remembered was worth it, and there are others behind them: the survey again, from
    /// the densest of these on.
    fn go_further(&mut self, left: &VecDeque<Victim>) -> Option<Pace> {
        let more = self.pass.truncated && self.pass.objects == 0 && left.is_empty();
        more.then(|| self.begin_survey())
    }

    fn end_pass(&mut self, worth: u64) -> Pace {
        let Pass { loose_bytes, wanted, objects, moved_bytes, greedy, .. } = self.pass;
        let more = self.pass.truncated && objects > 0;
        self.phase = Phase::Resting;
        self.surveyed = Some(loose_bytes);
        self.thorough = greedy && worth >= DENSE_PERCENT && !more;
        if objects > 0 {
            log::info!("reclaim: {objects} sparse objects freed, {} MiB moved", moved_bytes / MIB);
        }
        if more {
            // There is more where that came from.
            self.surveyed = None;
        } else if self.thorough {
            self.answer(wanted);
        }
        Pace::Again
    }

    /// Step 2, one transaction.
    fn go_on(
        &mut self,
        victims: VecDeque<Victim>,
        mut compaction: Compaction,
    ) -> Result<Pace, NamespaceError> {
        match self.namespace.go_on(&mut compaction) {
            Ok(false) => {
                self.phase = Phase::Moving(victims, compaction);
                Ok(self.pause(BATCH))
            }
            Ok(true) => {
                let Compacted { moved_bytes, objects, lsn } =
                    self.namespace.end_compaction(compaction)?;
                self.pass.objects += objects;
                self.pass.moved_bytes += moved_bytes;
                self.phase = Phase::Committing(victims, lsn);
                Ok(Pace::Again)
            }
            Err(error) => {
                self.namespace.end_compaction(compaction)?;
                Err(error)
            }
        }
    }

    fn run_step(&mut self, room: &Room) -> Result<Pace, NamespaceError> {
        match std::mem::replace(&mut self.phase, Phase::Resting) {
            Phase::Resting => Ok(self.rest(room)),
            Phase::Surveying(from, victims) => self.survey(from, victims),
            Phase::Choosing(victims) => self.choose(victims, room),
            Phase::Moving(victims, compaction) => self.go_on(victims, compaction),
            Phase::Committing(victims, lsn) => {
                if self.namespace.progress().durable >= lsn {
                    self.phase = Phase::Choosing(victims);
                    return Ok(Pace::Again);
                }
                self.phase = Phase::Committing(victims, lsn);
                Ok(self.pause(BATCH))
            }
        }
    }
}

impl Task for Reclaim {
    fn name(&self) -> &'static str {
        "reclaim"
    }

    fn event(&self) -> Arc<Event> {
        self.namespace.reclaim_event()
    }

    fn step(&mut self) -> Pace {
        let room = self.namespace.room();
        if room.ended {
            if let Phase::Moving(_, compaction) = std::mem::replace(&mut self.phase, Phase::Resting)
                && let Err(error) = self.namespace.end_compaction(compaction)
            {
                log::debug!("reclaim ends: {error}");
            }
            return self.pause(self.options.look);
        }
        match self.run_step(&room) {
            Ok(pace) => pace,
            Err(error) => {
                log::warn!("space could not be reclaimed yet, it is tried again: {error}");
                // Nobody waits for what may not come.
                self.answer(room.wanted);
                self.pause(RETRY)
            }
        }
    }
}

#[cfg(test)]
mod tests;
