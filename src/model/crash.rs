//! Whether a tree found after a crash is one of those allowed, and in plain words why not.
//!
//! The set of allowed trees is never built: for every prefix of the namespace history that may be the
//! surviving one [I2] the names are compared, and where they agree, each inode with the versions it
//! may have. Content is compared whole: bytes of two versions in one file are no version [I3, I4].

use std::collections::BTreeMap;

use super::dump::Dump;
use super::namespace::{Step, Tree};
use super::pool::{Floor, Pool};
use super::words::{Body, Kind, Name};
use crate::base::Ino;

/// Differences told per finding: more would only be the same again.
const TOLD_MAX: usize = 12;

type Names = BTreeMap<Ino, BTreeMap<Name, Ino>>;

/// What was found to be allowed.
#[derive(Clone, Debug)]
pub struct Survived {
    /// Steps that survived at least.
    pub steps: usize,
    /// Steps there were.
    pub of: usize,
    /// Inode numbers of the dump, and what they are in the model.
    pub inodes: BTreeMap<Ino, Ino>,
}

/// A prefix of the history beside what was found.
struct Candidate {
    steps: usize,
    inodes: BTreeMap<Ino, Ino>,
    differences: Vec<String>,
    same_names: bool,
}

impl Pool {
    /// Whether `dump`, taken after a crash, is allowed. `floor` is what was promised when the crash
    /// came; `known` translates the dump's inode numbers into ours, as far as they were ever told.
    pub fn check_crash(
        &self,
        floor: &Floor,
        dump: &Dump,
        known: &BTreeMap<Ino, Ino>,
    ) -> Result<Survived, String> {
        let mut names = self.base_names.clone();
        let mut best: Option<Candidate> = None;
        for steps in 0..=self.steps.len() {
            if let Some(index) = steps.checked_sub(1) {
                let step = &self.steps[index];
                apply(&mut names, step);
                if step.entries.is_empty() && steps > floor.namespace {
                    continue;
                }
            }
            if steps < floor.namespace {
                continue;
            }
            let mut candidate = compare_names(steps, &names, dump, known);
            if candidate.same_names {
                self.compare_bodies(floor, dump, &mut candidate);
            }
            if candidate.differences.is_empty() {
                let (of, inodes) = (self.steps.len(), candidate.inodes);
                return Ok(Survived { steps, of, inodes });
            }
            let rank = |c: &Candidate| (c.same_names, std::cmp::Reverse(c.differences.len()));
            if best.as_ref().is_none_or(|best| rank(&candidate) >= rank(best)) {
                best = Some(candidate);
            }
        }
        let best = best.expect("the whole history is always a candidate");
        Err(self.explain(floor, &best))
    }

    /// Whether `dump` is exactly what is applied: nothing crashed.
    pub fn check_now(&self, dump: &Dump, known: &BTreeMap<Ino, Ino>) -> Result<(), String> {
        let mut now = self.clone();
        now.forget_history();
        now.check_crash(&now.floor(), dump, known).map(|_| ())
    }

    /// The pool as it was found, all of it durable, in our own inode numbers.
    pub fn recovered(&self, dump: &Dump, survived: &Survived) -> Pool {
        let ours = |ino: &Ino| survived.inodes[ino];
        let bodies = dump.bodies.iter().map(|(ino, (body, _))| (ours(ino), body.clone())).collect();
        let entries = dump
            .entries
            .iter()
            .map(|(dir, names)| {
                let names = names.iter().map(|(name, ino)| (name.clone(), ours(ino))).collect();
                (ours(dir), names)
            })
            .collect();
        Pool::new(Tree::rebuild(bodies, entries, self.tree().next()))
    }

    /// Every version of an inode: after how many steps, whether a namespace step made it, the body.
    fn versions(&self, ino: Ino) -> Vec<(usize, bool, &Body)> {
        let base = self.base_bodies.get(&ino).map(|body| (0, true, body));
        let since = self.steps.iter().enumerate().filter_map(|(index, step)| {
            Some((index + 1, !step.entries.is_empty(), step.bodies.get(&ino)?))
        });
        base.into_iter().chain(since).collect()
    }

    fn compare_bodies(&self, floor: &Floor, dump: &Dump, candidate: &mut Candidate) {
        for (theirs, (found, _)) in &dump.bodies {
            let ours = candidate.inodes[theirs];
            let durable = floor.all.max(floor.inodes.get(&ours).copied().unwrap_or(0));
            let versions = self.versions(ours);
            let low = versions
                .iter()
                .rposition(|&(at, names, _)| at <= durable || (names && at <= candidate.steps))
                .unwrap_or(0);
            let high = versions
                .iter()
                .position(|&(at, names, _)| names && at > candidate.steps)
                .unwrap_or(versions.len());
            let allowed = &versions[low.min(high)..high];
            let atimes = &self.atimes[&ours];
            let same = |body: &Body| {
                let mut body = body.clone();
                body.atime = found.atime;
                body.size = if found.kind == Kind::Directory { found.size } else { body.size };
                body == *found
            };
            if !atimes.contains(&found.atime) {
                let why = format!("inode {ours}: access time {:?} never was", found.atime);
                candidate.differences.push(why);
            }
            if !allowed.iter().any(|(_, _, body)| same(body)) {
                let why = explain_body(ours, found, allowed, &versions);
                candidate.differences.push(why);
            }
        }
    }

    fn explain(&self, floor: &Floor, best: &Candidate) -> String {
        let mut text = format!(
            "not a tree that may be found: {} steps in the history, the first {} durable; nearest is \
             what {} steps give{}:\n",
            self.steps.len(),
            floor.namespace,
            best.steps,
            if best.same_names { ", names agree" } else { "" },
        );
        for difference in best.differences.iter().take(TOLD_MAX) {
            text.push_str(&format!("  - {difference}\n"));
        }
        let more = best.differences.len().saturating_sub(TOLD_MAX);
        if more > 0 {
            text.push_str(&format!("  - and {more} more\n"));
        }
        text
    }
}

fn apply(names: &mut Names, step: &Step) {
    for (dir, name, ino) in &step.entries {
        let entries = names.entry(*dir).or_default();
        match ino {
            Some(ino) => entries.insert(name.clone(), *ino),
            None => entries.remove(name),
        };
    }
}

/// Walks both trees side by side from the root, pairing inode numbers.
fn compare_names(
    steps: usize,
    names: &Names,
    dump: &Dump,
    known: &BTreeMap<Ino, Ino>,
) -> Candidate {
    let mut differences = Vec::new();
    let mut inodes = BTreeMap::from([(Ino::ROOT, Ino::ROOT)]);
    let mut paired = BTreeMap::from([(Ino::ROOT, Ino::ROOT)]);
    let mut links: BTreeMap<Ino, u32> = BTreeMap::new();
    let mut left = vec![(Ino::ROOT, Ino::ROOT, String::new())];
    let empty = BTreeMap::new();
    while let Some((ours, theirs, path)) = left.pop() {
        let (mine, found) = (names.get(&ours).unwrap_or(&empty), &dump.entries[&theirs]);
        for name in found.keys().filter(|name| !mine.contains_key(*name)) {
            differences.push(format!("{path}/{} should not be there", name.escape_ascii()));
        }
        for (name, &ours) in mine {
            let path = format!("{path}/{}", name.escape_ascii());
            let Some(&theirs) = found.get(name) else {
                differences.push(format!("{path} (inode {ours}) is missing"));
                continue;
            };
            let other = known.get(&theirs).is_some_and(|&known| known != ours);
            let paired_before = paired.insert(ours, theirs);
            if other
                || inodes.insert(theirs, ours).is_some_and(|before| before != ours)
                || paired_before.is_some_and(|before| before != theirs)
            {
                let known = known.get(&theirs);
                differences.push(format!("{path} is another inode: {known:?}, not {ours}"));
                continue;
            }
            *links.entry(theirs).or_default() += 1;
            if dump.entries.contains_key(&theirs) {
                left.push((ours, theirs, path));
            }
        }
    }
    if differences.is_empty() {
        differences.extend(check_links(dump, &links));
    }
    let same_names = differences.is_empty();
    Candidate { steps, inodes, differences, same_names }
}

/// The link counts found are those that the names found imply.
fn check_links(dump: &Dump, names: &BTreeMap<Ino, u32>) -> Vec<String> {
    let mut differences = Vec::new();
    for (ino, (_, links)) in &dump.bodies {
        let expected = match dump.entries.get(ino) {
            Some(entries) => {
                2 + entries.values().filter(|i| dump.entries.contains_key(i)).count() as u32
            }
            None => names[ino],
        };
        if *links != expected {
            differences
                .push(format!("inode {ino} counts {links} links, its names make {expected}"));
        }
    }
    differences
}

fn explain_body(
    ino: Ino,
    found: &Body,
    allowed: &[(usize, bool, &Body)],
    all: &[(usize, bool, &Body)],
) -> String {
    let Some((after, _, newest)) = allowed.last() else {
        return format!("inode {ino} has no version that may survive beside these names");
    };
    let mut parts = Vec::new();
    let mut tell = |what: &str, differs: bool, values: String| {
        if differs {
            parts.push(format!("{what} {values}"));
        }
    };
    let (a, b) = (found, newest);
    tell("kind", a.kind != b.kind, format!("{:?}, not {:?}", a.kind, b.kind));
    tell("mode", a.mode != b.mode, format!("{:o}, not {:o}", a.mode, b.mode));
    tell("owner", (a.uid, a.gid) != (b.uid, b.gid), format!("{}:{}", a.uid, a.gid));
    tell("rdev", a.rdev != b.rdev, format!("{}, not {}", a.rdev, b.rdev));
    tell("size", a.size != b.size, format!("{}, not {}", a.size, b.size));
    tell("mtime", a.mtime != b.mtime, format!("{:?}, not {:?}", a.mtime, b.mtime));
    tell("ctime", a.ctime != b.ctime, format!("{:?}, not {:?}", a.ctime, b.ctime));
    tell("btime", a.btime != b.btime, format!("{:?}, not {:?}", a.btime, b.btime));
    tell("target", a.target != b.target, String::new());
    tell("xattrs", a.xattrs != b.xattrs, format!("{:?}, not {:?}", keys(a), keys(b)));
    if let Some((at, is, should)) = a.content.first_difference(&b.content) {
        tell("content", true, format!("at byte {at}: {is:#04x}, not {should:#04x}"));
    }
    let old =
        all.iter().rfind(|(_, _, body)| body.content == found.content && body.size == found.size);
    let as_of = match old {
        Some((at, _, _)) => format!("content is that after step {at}"),
        None => "content never was this".to_string(),
    };
    format!(
        "inode {ino} ({} versions allowed, after steps {}..={after}): {}; {as_of}",
        allowed.len(),
        allowed[0].0,
        parts.join(", ")
    )
}

fn keys(body: &Body) -> Vec<(String, usize)> {
    body.xattrs.iter().map(|(k, v)| (k.escape_ascii().to_string(), v.len())).collect()
}

#[cfg(test)]
mod tests;
