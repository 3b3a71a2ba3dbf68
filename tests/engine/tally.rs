//! What was tried: operations by kind and outcome, and beside which faults. A harness that does not count
//! does not know what it has not seen.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// What came of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// It was refused, as the model says.
    Refused,
    /// What it aims at does not exist.
    Nothing,
}

/// Counts of one or many runs.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    /// By kind: done, refused, nothing.
    pub operations: BTreeMap<&'static str, [u64; 3]>,
    /// Kind, and a fault that was in force on some disk.
    pub pairs: BTreeMap<(&'static str, &'static str), u64>,
}

std::thread_local! {
    static TALLY: RefCell<Tally> = RefCell::default();
}

/// An operation of this thread is over. What came to nothing is not counted beside faults.
pub fn note(kind: &'static str, outcome: Outcome, faults: &[&'static str]) {
    TALLY.with_borrow_mut(|tally| {
        tally.operations.entry(kind).or_default()[outcome as usize] += 1;
        if outcome != Outcome::Nothing {
            for fault in faults {
                *tally.pairs.entry((kind, fault)).or_default() += 1;
            }
        }
    });
}

/// What was counted in this thread since this was last asked.
pub fn take() -> Tally {
    TALLY.take()
}

impl Tally {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Tally) {
        for (kind, counts) in &other.operations {
            let sum = self.operations.entry(kind).or_default();
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        for (pair, count) in &other.pairs {
            *self.pairs.entry(*pair).or_default() += count;
        }
    }

    /// Operations that were asked for, without those that came to nothing.
    pub fn asked(&self) -> u64 {
        self.operations.values().map(|[done, refused, _]| done + refused).sum()
    }

    /// Share of those that were carried out, in percent.
    pub fn done_percent(&self) -> u64 {
        let done: u64 = self.operations.values().map(|[done, ..]| done).sum();
        done * 100 / self.asked().max(1)
    }

    /// Operations that aimed at nothing.
    pub fn nothing(&self) -> u64 {
        self.operations.values().map(|[_, _, nothing]| nothing).sum()
    }

    /// Of all kinds beside all faults, the pair that was met least, and how often.
    pub fn least(&self, kinds: &[&'static str], faults: &[&'static str]) -> (String, u64) {
        let pairs = kinds.iter().flat_map(|kind| faults.iter().map(move |fault| (*kind, *fault)));
        let counted = pairs.map(|pair| (self.pairs.get(&pair).copied().unwrap_or(0), pair));
        counted.min().map_or((String::new(), 0), |(count, (kind, fault))| {
            (format!("{kind} beside {fault}"), count)
        })
    }

    /// How many pairs were met at least so often, of how many.
    pub fn covered(
        &self,
        kinds: &[&'static str],
        faults: &[&'static str],
        least: u64,
    ) -> (usize, usize) {
        let met = |kind, fault| self.pairs.get(&(kind, fault)).copied().unwrap_or(0) >= least;
        let covered =
            kinds.iter().map(|kind| faults.iter().filter(|fault| met(*kind, **fault)).count());
        (covered.sum(), kinds.len() * faults.len())
    }
}
