//! The check: does everything agree, and is everything there?
//!
//! 1. Labels, checkpoint roots and the log, on every disk (`FixedPlaces`).
//! 2. The audit of the index (`namespace::audit`): names, links, counts, extents, records, the space map.
//! 3. Deep: every shard of every object is read, copies of the index and of what the root names too, and
//!    the owners' list inside each object is compared with the extents [R17].
//! 4. What was found is told in terms of files.
//!
//! A pool that is only read stays as it is. In one that is mounted to be written to, what is bad and can be
//! made from what is good is: copies of labels at once, roots and log by checkpoints, shards by repair, which
//! is told of them. Users' reads go first, and what they change meanwhile is no finding. Memory is bounded:
//! findings beyond a thousand are only counted.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::base::{DiskIndex, Ino, ObjectId, ShardIndex};
use crate::fleet::{FleetError, ShardHealth};
use crate::format::ObjectKind;
use crate::namespace::{Namespace, NamespaceError, ObjectHealth};

/// Findings that are kept; more are only counted.
const FINDINGS_MAX: usize = 1000;
/// Files that are named for one object.
const PATHS_MAX: usize = 8;

/// What every disk has at fixed places: labels, checkpoint roots, the log. Whoever knows them can look.
pub trait FixedPlaces {
    /// What is not as it was written, on which disk, as `name` calls it; mended by the time it is told, where
    /// that can be. `tell` hears how much was looked at since it was last called; if it says false, the rest
    /// is left out.
    fn look(
        &self,
        name: &dyn Fn(DiskIndex) -> String,
        tell: &mut dyn FnMut(u64) -> bool,
    ) -> Vec<CheckFinding>;
    /// Whether what is bad may be written again.
    fn may_mend(&self) -> bool;
}

/// How far a check is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CheckProgress {
    /// `disks` (counts structures), `index` (counts entries) or `shards` (counts bytes).
    pub step: String,
    /// Done of it.
    pub done: u64,
    /// All of it, about.
    pub total: u64,
}

/// Something that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CheckFinding {
    /// Files and directories it is about, some of them, with what is no printable ASCII escaped.
    pub paths: Vec<String>,
    /// What it is.
    pub what: String,
    /// Bytes of files are gone: fewer shards are good than are needed.
    pub lost: bool,
    /// What is bad was written again, or is about to be.
    pub mended: bool,
}

/// A disk that does not take part or does not answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CheckAway {
    /// Which.
    pub disk: String,
    /// Objects with a shard there.
    pub objects: u64,
}

/// What a check came to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CheckReport {
    /// Labels, roots and copies of batches that were looked at, on all disks together.
    pub fixed: u64,
    /// Inodes.
    pub inodes: u64,
    /// Names in directories.
    pub names: u64,
    /// Extents of files.
    pub extents: u64,
    /// Objects with bytes of files.
    pub objects: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Files that were being changed: their bytes were not judged.
    pub unsettled: u64,
    /// The space map was compared; false if batches were on their way all the time.
    pub compared_space: bool,
    /// Shards that were read, if it was deep.
    pub shards: u64,
    /// Their bytes.
    pub shard_bytes: u64,
    /// Disks whose shards could not be looked at.
    pub away: Vec<CheckAway>,
    /// Findings in all.
    pub found: u64,
    /// The first of them.
    pub findings: Vec<CheckFinding>,
}

impl CheckReport {
    /// Everything agrees, and everything that was looked at is there.
    pub fn is_clean(&self) -> bool {
        self.found == 0 && self.away.is_empty()
    }

    fn note(&mut self, finding: CheckFinding) {
        self.found += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// Why a check has no result.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Nobody listens any more.
    #[error("stopped")]
    Stopped,
    /// The index cannot be read, say.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
}

/// Told how far it is; false ends the check.
pub type Tell<'a> = dyn FnMut(&CheckProgress) -> bool + 'a;

/// Checks a pool. `name` says how people call a disk.
pub fn check(
    namespace: &Namespace,
    places: &dyn FixedPlaces,
    deep: bool,
    name: &dyn Fn(DiskIndex) -> String,
    tell: &mut Tell<'_>,
) -> Result<CheckReport, CheckError> {
    let (fixed, found) = look(places, name, tell)?;
    let mut report = CheckReport { fixed, ..audit(namespace, tell)? };
    found.into_iter().for_each(|finding| report.note(finding));
    if deep {
        let mut walk = Walk {
            namespace,
            name,
            may_mend: places.may_mend(),
            tell,
            report: &mut report,
            progress: CheckProgress { step: "shards".into(), ..CheckProgress::default() },
            away: BTreeMap::new(),
            broken: Vec::new(),
        };
        walk.run()?;
    }
    Ok(report)
}

/// Step 1.
fn look(
    places: &dyn FixedPlaces,
    name: &dyn Fn(DiskIndex) -> String,
    tell: &mut Tell<'_>,
) -> Result<(u64, Vec<CheckFinding>), CheckError> {
    let (mut done, mut goes_on) = (0, true);
    let found = places.look(name, &mut |more| {
        done += more;
        goes_on = goes_on && tell(&CheckProgress { step: "disks".into(), done, total: done });
        goes_on
    });
    if goes_on { Ok((done, found)) } else { Err(CheckError::Stopped) }
}

/// Step 2.
fn audit(namespace: &Namespace, tell: &mut Tell<'_>) -> Result<CheckReport, CheckError> {
    let total = namespace.index_entries();
    let (done, tell) = (Cell::new(0), RefCell::new(tell));
    let audit = namespace.audit_watched(&|entries| {
        done.set(done.get() + entries);
        let progress = CheckProgress { step: "index".into(), done: done.get(), total };
        (tell.borrow_mut())(&CheckProgress { total: total.max(progress.done), ..progress })
    });
    let audit = match audit {
        Err(NamespaceError::Io(FleetError::Stopped)) => return Err(CheckError::Stopped),
        other => other?,
    };
    let findings = audit.findings.iter().map(|found| CheckFinding {
        paths: found.path.iter().map(|path| path.escape_ascii().to_string()).collect(),
        what: found.finding.to_string(),
        ..CheckFinding::default()
    });
    Ok(CheckReport {
        inodes: audit.inodes,
        names: audit.names,
        extents: audit.extents,
        objects: audit.objects,
        bytes: audit.bytes,
        unsettled: audit.unsettled,
        compared_space: audit.compared_space,
        found: audit.found,
        findings: findings.collect(),
        ..CheckReport::default()
    })
}

/// Step 3 under way.
struct Walk<'a, 't> {
    namespace: &'a Namespace,
    name: &'a dyn Fn(DiskIndex) -> String,
    may_mend: bool,
    tell: &'a mut Tell<'t>,
    report: &'a mut CheckReport,
    progress: CheckProgress,
    /// By disk: how many objects have a shard that could not be looked at.
    away: BTreeMap<DiskIndex, u64>,
    broken: Vec<ObjectHealth>,
}

impl Walk<'_, '_> {
    fn run(&mut self) -> Result<(), CheckError> {
        let unkeyed = self.namespace.unkeyed();
        self.progress.total = unkeyed.disk_bytes();
        self.each_object(&mut |walk, _, bytes| {
            walk.progress.total += bytes;
            Ok(())
        })?;
        for number in 0..unkeyed.len() {
            let health = self.namespace.verify_unkeyed(&unkeyed, number);
            let bytes = health.disk_bytes;
            self.take(health);
            self.done(bytes)?;
        }
        drop(unkeyed);
        self.each_object(&mut |walk, object, bytes| {
            if let Some(health) = walk.namespace.verify_object(object)? {
                walk.take(health);
            }
            walk.done(bytes)
        })?;
        let away = self.away.iter().map(|(&disk, &objects)| {
            let disk = (self.name)(disk);
            CheckAway { disk, objects }
        });
        self.report.away = away.collect();
        self.tell_broken()
    }

    /// All objects with bytes of files, and the bytes that they take.
    fn each_object(
        &mut self,
        visit: &mut dyn FnMut(&mut Self, ObjectId, u64) -> Result<(), CheckError>,
    ) -> Result<(), CheckError> {
        let mut from = Some(ObjectId(0));
        while let Some(at) = from {
            let (page, next) = self.namespace.survey(at)?;
            for entry in page {
                visit(self, entry.object, entry.disk_bytes)?;
            }
            from = next;
        }
        Ok(())
    }

    fn done(&mut self, bytes: u64) -> Result<(), CheckError> {
        self.progress.done += bytes;
        self.progress.total = self.progress.total.max(self.progress.done);
        match (self.tell)(&self.progress) {
            true => Ok(()),
            false => Err(CheckError::Stopped),
        }
    }

    fn take(&mut self, health: ObjectHealth) {
        let mut broken = !health.agrees || health.readable() < health.need;
        for &shard in &health.shards {
            match shard {
                ShardHealth::Away(disk) | ShardHealth::Silent(disk) => {
                    *self.away.entry(disk).or_default() += 1;
                }
                ShardHealth::Good => self.report.shards += 1,
                ShardHealth::Nowhere
                | ShardHealth::Unread(_)
                | ShardHealth::Nameless(_)
                | ShardHealth::Bad(..)
                | ShardHealth::Unjudged(_) => {
                    self.report.shards += 1;
                    broken = true;
                }
            }
        }
        self.report.shard_bytes += health.disk_bytes;
        if !broken {
            return;
        }
        self.mend(&health);
        if self.broken.len() < FINDINGS_MAX {
            self.broken.push(health);
        } else {
            self.report.found += 1;
        }
    }

    /// Whether repair can do something about it, or could not as it is.
    fn can_mend(&self, health: &ObjectHealth) -> bool {
        let is_bad = |shard: &ShardHealth| shard.is_bad();
        self.may_mend && health.readable() >= health.need && health.shards.iter().any(is_bad)
    }

    /// Tells repair.
    fn mend(&self, health: &ObjectHealth) {
        if self.can_mend(health) {
            let shards = health.shards.iter().zip(0..);
            for (_, shard) in shards.filter(|(shard, _)| shard.is_bad()) {
                self.namespace.note_bad(health.object, ShardIndex(shard));
            }
        }
    }

    /// Step 4.
    fn tell_broken(&mut self) -> Result<(), CheckError> {
        let broken = std::mem::take(&mut self.broken);
        // What is lost does not say whose it was: the index does.
        let lost = broken.iter().filter(|health| health.owners.is_none());
        let lost = self.namespace.owners(&lost.map(|health| health.object).collect(), PATHS_MAX)?;
        let named = |health: &ObjectHealth| -> Vec<Ino> {
            let owners = health.owners.as_ref().or_else(|| lost.get(&health.object));
            owners.into_iter().flatten().take(PATHS_MAX).copied().collect()
        };
        let inodes: BTreeSet<Ino> = broken.iter().flat_map(named).collect();
        let paths = self.namespace.paths(&inodes)?;
        for health in &broken {
            let named = named(health);
            let paths = named.iter().filter_map(|ino| paths.get(ino));
            let finding = CheckFinding {
                paths: paths.map(|path| path.escape_ascii().to_string()).collect(),
                what: describe(health, self.name),
                lost: health.readable() < health.need,
                mended: self.can_mend(health),
            };
            self.report.note(finding);
        }
        Ok(())
    }
}

/// In words.
fn describe(health: &ObjectHealth, name: &dyn Fn(DiskIndex) -> String) -> String {
    let kind = match health.kind {
        ObjectKind::Data => "object",
        ObjectKind::Table => "table of the index",
        ObjectKind::Manifest => "manifest",
        ObjectKind::SpaceSnapshot => "space snapshot",
    };
    let mut parts: Vec<String> = Vec::new();
    for (number, &shard) in health.shards.iter().enumerate() {
        let (disk, what) = match shard {
            ShardHealth::Good => continue,
            ShardHealth::Nowhere => (None, "has no place".to_string()),
            ShardHealth::Away(disk) => (Some(disk), "is not there".to_string()),
            ShardHealth::Silent(disk) => (Some(disk), "does not answer".to_string()),
            ShardHealth::Unread(disk) => (Some(disk), "cannot be read".to_string()),
            ShardHealth::Nameless(disk) => (Some(disk), "has another's header".to_string()),
            ShardHealth::Bad(disk, 1) => (Some(disk), "does not match its checksum".to_string()),
            ShardHealth::Bad(disk, bad) => {
                (Some(disk), format!("does not match its checksums in {bad} places"))
            }
            ShardHealth::Unjudged(disk) => (Some(disk), "has no checksums".to_string()),
        };
        let on = disk.map(|disk| format!(" on {}", name(disk))).unwrap_or_default();
        parts.push(format!("shard {number}{on} {what}"));
    }
    if !health.agrees {
        parts.push("its list of owners says something else than the index".to_string());
    }
    let (good, need) = (health.readable(), health.need);
    let margin = match good.checked_sub(need) {
        None => format!("LOST: {good} good shards of {need} needed"),
        Some(0) => "readable, and no other shard may be lost".to_string(),
        Some(more) => format!("readable, and {more} more may be lost"),
    };
    format!("{kind} {}: {}; {margin}", health.object, parts.join(", "))
}
