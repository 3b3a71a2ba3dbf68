//! What every disk of an open pool has at fixed places, looked at and mended for a check: copies of labels,
//! checkpoint roots, the log.
//!
//! | bad | is mended by | because |
//! |---|---|---|
//! | copy of a label | writing that copy, as the others say, with a sequence of its own [R6] | it is what every change of a label does, for this copy alone |
//! | root in a slot | the next two checkpoints: one of them goes to that slot [R9] | the copy that is still good is not touched before a newer root is effective |
//! | copy of a batch | a checkpoint: what the log holds is in objects and tables then [R10] | the log is never written twice [R5] |
//!
//! Of a pool that is only read it is said what is bad, as far as that can be told without knowing what was
//! last written: a slot or an entry that a crash cut off looks like a rotten one.

use std::time::Duration;

use super::labels::{BadLabel, PoolLabels};
use super::root_keeper::RootKeeper;
use crate::base::sync::Arc;
use crate::base::{DiskIndex, Lsn};
use crate::fleet::Journal;
use crate::namespace::Namespace;
use crate::services::check::{CheckFinding, FixedPlaces};

/// How long a checkpoint is waited for: disks that do not answer must not keep a check for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was seen while the pool was opened to be read.
#[derive(Clone, Default, Debug)]
pub(super) struct SeenOpening {
    /// Slots with something in them that is no root of this place.
    pub(super) spoilt: Vec<(DiskIndex, usize)>,
    /// Acknowledged batches with fewer copies than they should have, and how many they have.
    pub(super) thin: Vec<(Lsn, usize)>,
}

/// Whoever writes roots and log of a pool that is written to.
#[derive(Clone)]
pub(super) struct Writers {
    pub(super) keeper: Arc<RootKeeper>,
    pub(super) journal: Arc<Journal>,
}

/// The fixed places of a pool's disks.
#[derive(Clone)]
pub struct Platter {
    pub(super) labels: Arc<PoolLabels>,
    pub(super) namespace: Namespace,
    /// None if it is only read.
    pub(super) writers: Option<Writers>,
    pub(super) seen: SeenOpening,
}

type Name<'a> = &'a dyn Fn(DiskIndex) -> String;

fn finding(what: String, mended: bool) -> CheckFinding {
    CheckFinding { what, mended, ..CheckFinding::default() }
}

fn slot_in_words(name: Name<'_>, &(disk, slot): &(DiskIndex, usize)) -> String {
    format!("the checkpoint root in slot {slot} of {} does not match its checksum", name(disk))
}

impl Platter {
    fn look_at_labels(&self, name: Name<'_>) -> (usize, Vec<CheckFinding>) {
        let (looked, bad) = self.labels.look();
        let mended = match &self.writers {
            Some(_) => self.labels.mend(&bad),
            None => vec![false; bad.len()],
        };
        let in_words = |(BadLabel { disk, copy, why }, mended): (&BadLabel, bool)| {
            finding(format!("copy {copy} of the label of {} {why}", name(*disk)), mended)
        };
        (looked, bad.iter().zip(mended).map(in_words).collect())
    }

    /// Roots and log of a pool that is written to.
    fn look_at_written(
        &self,
        writers: &Writers,
        name: Name<'_>,
        tell: &mut dyn FnMut(u64) -> bool,
    ) -> Vec<CheckFinding> {
        let (looked, slots) = writers.keeper.look();
        if !tell(looked as u64) {
            return Vec::new();
        }
        let (_, entries) = writers.journal.look(&mut |_| tell(1));
        let checkpoints = if slots.is_empty() { usize::from(!entries.is_empty()) } else { 2 };
        let written = (0..checkpoints).all(|_| self.namespace.checkpoint_within(PATIENCE));
        let entry = |&(disk, lsn): &(DiskIndex, Lsn)| {
            format!(
                "the copy of batch {lsn} in the log of {} does not match its checksum",
                name(disk)
            )
        };
        let slots = slots.iter().map(|slot| slot_in_words(name, slot));
        let all = slots.chain(entries.iter().map(entry));
        all.map(|what| finding(what, written)).collect()
    }

    fn seen_opening(&self, name: Name<'_>) -> Vec<CheckFinding> {
        let slots = self.seen.spoilt.iter().map(|slot| slot_in_words(name, slot));
        let thin = self.seen.thin.iter().map(|(lsn, copies)| {
            format!(
                "of batch {lsn} in the log {copies} copies are good, fewer than it was acknowledged with; \
                 the next mount replays it, and does not need it any more"
            )
        });
        slots.chain(thin).map(|what| finding(what, false)).collect()
    }
}

impl FixedPlaces for Platter {
    fn look(&self, name: Name<'_>, tell: &mut dyn FnMut(u64) -> bool) -> Vec<CheckFinding> {
        let (looked, mut found) = self.look_at_labels(name);
        if tell(looked as u64) {
            found.extend(match &self.writers {
                Some(writers) => self.look_at_written(writers, name, tell),
                None => self.seen_opening(name),
            });
        }
        found
    }

    fn may_mend(&self) -> bool {
        self.writers.is_some()
    }
}
