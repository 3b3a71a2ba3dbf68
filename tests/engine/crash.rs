//! Loss of power at any moment, and what recovery makes of it.
//!
//! While operations run, snapshots of all disks are taken at random moments, most of them in the middle
//! of an operation. Each is then recovered in a world of its own, several times over: with the caches
//! torn in other ways, with disks missing, with a second crash in the middle of the recovery. What is
//! found must be allowed by the model [I1, I2, I3], and recovering again must change nothing [I8].
//! Now and then the run goes on from what was recovered.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use isotherm::base::Random;
use isotherm::model::Dump;

use super::harness::{Finding, Harness, Moment, Recovered, note_accesses};
use super::ops::Op;
use super::target::Target;

/// A machine with disks, which can lose its power.
pub trait Machine: Target + Sized + 'static {
    /// All its disks at one moment.
    type Snapshot: Clone;
    /// A new machine with an empty, mounted pool.
    fn create(seed: u64) -> Result<Self, Finding>;
    /// Takes a snapshot once this much more time has passed.
    fn snapshot_in(&mut self, micros: u64);
    /// Takes a snapshot now: nothing that is on its way moves on.
    fn snapshot_now(&mut self) -> Self::Snapshot;
    /// The snapshots taken since this was last asked.
    fn taken(&mut self) -> Vec<Self::Snapshot>;
    /// Another machine, with what a crash at that moment left, mounted.
    fn recover(snapshot: &Self::Snapshot, how: How) -> Result<Self, Finding>;
}

/// How a machine comes back.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Decides what the caches lost, and which disks are missing.
    pub seed: u64,
    /// Take away this many disks, within what redundancy covers; those already lost count.
    pub missing: u32,
    /// Take a snapshot this long after recovery began.
    pub snapshot_in: Option<u64>,
}

/// How hard to try.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Recoveries of each snapshot.
    pub recoveries: u32,
    /// Longest time between two snapshots, in simulated microseconds.
    pub interval_us: u64,
    /// One in so many recoveries is gone on from; 0: none.
    pub go_on_one_in: u64,
    /// Disks that may be missing at a recovery.
    pub missing_max: u32,
}

impl Effort {
    /// Some dozen recoveries a run.
    pub const USUAL: Effort =
        Effort { recoveries: 2, interval_us: 3_000_000, go_on_one_in: 12, missing_max: 2 };
}

/// Crashes of this thread whose outcome was checked: power lost at some moment, the caches torn in
/// some way, recovered, compared with the model.
#[derive(Clone, Copy, Default, Debug)]
pub struct Crashes {
    /// Moments at which power was lost, recoveries under way included.
    pub moments: u64,
    /// Recoveries that were checked: each moment with its caches torn in several ways.
    pub recoveries: u64,
}

std::thread_local! {
    static CRASHES: Cell<Crashes> = const { Cell::new(Crashes { moments: 0, recoveries: 0 }) };
}

/// The counts of this thread since they were last taken.
pub fn take_counts() -> Crashes {
    CRASHES.take()
}

/// Runs `ops` on a new machine, losing power again and again.
pub fn run<M: Machine>(seed: u64, ops: &[Op], effort: Effort) -> Result<(), Finding> {
    let random = Rc::new(RefCell::new(Random::new(seed ^ 0x00c0_ffee)));
    let next: Rc<RefCell<Option<Recovered<M>>>> = Rc::default();
    let mut harness = Harness::new(M::create(seed)?)?;
    harness.target.snapshot_in(interval(&mut random.borrow_mut(), effort));
    let (random_in_hook, next_in_hook) = (random.clone(), next.clone());
    harness.set_hook(Box::new(move |machine: &mut M, moment| {
        let random = &mut *random_in_hook.borrow_mut();
        if moment.has_promised() && random.one_in(PROMISES_TRIED_ONE_IN) {
            check_promise::<M>(machine, &moment, random, effort)?;
        }
        for snapshot in machine.taken() {
            let recovered = examine(&snapshot, &moment, random, effort)?;
            if effort.go_on_one_in > 0 && random.one_in(effort.go_on_one_in) {
                *next_in_hook.borrow_mut() = Some(recovered);
            }
            machine.snapshot_in(interval(random, effort));
        }
        Ok(())
    }));
    for (index, op) in ops.iter().enumerate() {
        harness.apply(op).map_err(|why| format!("operation {index}, {op:?}:\n{why}"))?;
        if let Some(recovered) = next.borrow_mut().take() {
            harness.replace_target(recovered);
            harness.target.snapshot_in(interval(&mut random.borrow_mut(), effort));
        }
    }
    harness.finish().map_err(|why| format!("after all operations:\n{why}"))
}

/// One in so many promises is put to the test at once.
const PROMISES_TRIED_ONE_IN: u64 = 3;

/// Power is lost in the very moment in which something was promised, and as many disks as may be are lost with it,
/// others each time: whoever relies on what will be there a moment later is found out.
fn check_promise<M: Machine>(
    machine: &mut M,
    moment: &Moment,
    random: &mut Random,
    effort: Effort,
) -> Result<(), Finding> {
    let snapshot = machine.snapshot_now();
    let floor = moment.pool.promised();
    let (pool, known, used, now) = (moment.pool, moment.known, moment.used, moment.now);
    note_crashes(1, 0);
    for _ in 0..effort.recoveries.max(1) {
        let how = How { seed: random.next_u64(), missing: effort.missing_max, snapshot_in: None };
        recover_and_check::<M>(&snapshot, &Moment { pool, floor, known, used, now }, how)
            .map_err(|why| format!("I1: in the moment of a promise: {why}"))?;
    }
    Ok(())
}

/// Short ones as likely as long ones: the interesting moments are close together.
fn interval(random: &mut Random, effort: Effort) -> u64 {
    let bits = random.below(64 - u64::from(effort.interval_us.leading_zeros()) + 1);
    random.below((1 << bits).min(effort.interval_us).max(1)) + 20
}

/// Recovers a snapshot in several ways; every one must be allowed.
fn examine<M: Machine>(
    snapshot: &M::Snapshot,
    moment: &Moment,
    random: &mut Random,
    effort: Effort,
) -> Result<Recovered<M>, Finding> {
    let mut last = None;
    note_crashes(1, 0);
    for _ in 0..effort.recoveries.max(1) {
        let how = How {
            seed: random.next_u64(),
            missing: random.below(u64::from(effort.missing_max) + 1) as u32,
            snapshot_in: random
                .one_in(2)
                .then(|| interval(random, Effort { interval_us: 200_000, ..effort })),
        };
        let (recovered, during) = recover_and_check::<M>(snapshot, moment, how)?;
        note_crashes(during.len() as u64, 0);
        for again in &during {
            // Nobody has seen yet what was recovered; disks that were missing then may be back, and it may
            // have known more. With the same disks it is the same [I8].
            let same = How { seed: random.next_u64(), missing: 0, snapshot_in: None };
            let found = recovered.moment(moment);
            let against = if how.missing == 0 { &found } else { moment };
            recover_and_check::<M>(again, against, same)
                .map_err(|why| format!("I8: crashed again during the recovery: {why}"))?;
        }
        last = Some(check_again(recovered, moment, random)?);
    }
    Ok(last.expect("it was recovered at least once"))
}

fn note_crashes(moments: u64, recoveries: u64) {
    let so_far = CRASHES.get();
    CRASHES.set(Crashes {
        moments: so_far.moments + moments,
        recoveries: so_far.recoveries + recoveries,
    });
}

/// Recovers, and compares. Also returns what was taken before the recovery had ended.
fn recover_and_check<M: Machine>(
    snapshot: &M::Snapshot,
    moment: &Moment,
    how: How,
) -> Result<(Recovered<M>, Vec<M::Snapshot>), Finding> {
    let told = |why: Finding| format!("after a crash, recovered with {how:?}:\n{why}");
    note_crashes(0, 1);
    let mut target = M::recover(snapshot, how).map_err(told)?;
    let during = target.taken();
    target.set_now(moment.now);
    target.audit().map_err(told)?;
    let dump = Dump::take(&mut target).map_err(told)?;
    let survived = moment.pool.check_crash(moment.floor, &dump, moment.known).map_err(told)?;
    let mut pool = moment.pool.recovered(&dump, &survived);
    note_accesses(&mut pool, &dump, &survived.inodes, target.abilities(), moment.now);
    let used = moment.used.iter().chain(survived.inodes.keys()).copied().collect();
    Ok((Recovered { target, pool, known: survived.inodes, used }, during))
}

/// Recovery has ended: whatever crashes since must come back as the same tree [I8].
fn check_again<M: Machine>(
    mut recovered: Recovered<M>,
    moment: &Moment,
    random: &mut Random,
) -> Result<Recovered<M>, Finding> {
    recovered.target.snapshot_in(0);
    recovered.target.pass(1);
    let after = recovered.target.taken();
    note_crashes(after.len() as u64, 0);
    for snapshot in &after {
        let how = How { seed: random.next_u64(), missing: 0, snapshot_in: None };
        let told = |why: Finding| format!("I8: crashed again after the recovery: {why}");
        recover_and_check::<M>(snapshot, &recovered.moment(moment), how).map_err(told)?;
    }
    Ok(recovered)
}

impl<T> Recovered<T> {
    /// What was found is what there is: all of it durable.
    fn moment<'a>(&'a self, before: &Moment) -> Moment<'a> {
        let (pool, known, used) = (&self.pool, &self.known, &self.used);
        Moment { pool, floor: pool.promised(), known, used, now: before.now }
    }
}

mod tests {
    use super::*;
    use crate::machine::{Engine, MOVED, SHAPE};
    use crate::ops::{Mix, generate};
    use crate::runs::{guarded, number, run_minimised, with_seeds};
    use crate::shelf::Shape;
    use isotherm::base::MIB;

    /// Seeds of the short form, and the crashes that it has at the least.
    const SEEDS: u64 = 6;
    const CRASHES_MIN: u64 = 100;

    fn life(seed: u64) -> Result<(), Finding> {
        SHAPE.set([Shape::WIDE, Shape::SPARE, Shape::MIRROR][seed as usize % 3]);
        let ops = generate(&mut Random::new(seed), 120, Mix::SMALL);
        run_minimised(&ops, |ops| run::<Engine>(seed, ops, Effort::USUAL))
    }

    /// The whole-engine crash property: whatever was promised survives, and nothing else appears.
    /// With `ISOTHERM_CRASHES`, goes on until power was lost at so many moments.
    /// docs/semantics.md: "After a crash the names in the pool are those after some prefix"
    /// docs/semantics.md: "An append never leaves a tail of zeros."
    #[test]
    fn what_survives_is_what_was_promised() {
        CRASHES.take();
        MOVED.take();
        let mut seeds = SEEDS;
        let all = with_seeds(seeds, life);
        let least = number("ISOTHERM_CRASHES").unwrap_or(CRASHES_MIN);
        while all && number("ISOTHERM_CRASHES").is_some() && CRASHES.get().moments < least {
            seeds += 1;
            if let Err(why) = guarded(|| life(seeds)) {
                panic!("ISOTHERM_SEED={seeds} finds:\n{why}");
            }
        }
        let Crashes { moments, recoveries } = CRASHES.get();
        println!(
            "{moments} simulated crashes, each recovered and checked, {recoveries} times in all; \
             0 faults"
        );
        let moved = MOVED.get() / MIB;
        println!("{moved} MiB were moved by reclaim meanwhile");
        assert!(!all || moments >= least, "only {moments} of {least} crashes");
        assert!(!all || moved > 0, "reclaim had nothing to do");
    }

    /// The same with files beyond three objects.
    #[test]
    fn large_files_survive_too() {
        with_seeds(1, |seed| {
            SHAPE.set(Shape::WIDE);
            let ops = generate(&mut Random::new(seed), 40, Mix::LARGE);
            run_minimised(&ops, |ops| run::<Engine>(seed, ops, Effort::USUAL))
        });
    }
}
