//! The audit: a walk over the whole index, which proves that it agrees with itself and with the space
//! map [R17, R18]. Nothing is read but the index, and nothing is changed.
//!
//! 1. At a moment at which no batch is on its way, under the lock: a snapshot of the index, what the
//!    space map says, and what memory still works on.
//! 2. Files (`files`): inodes, their names, content and attributes, by windows of inode numbers, so
//!    that memory is bounded however many there are.
//! 3. Objects (`objects`): records, checksums and live bytes, by windows of ids.
//! 4. Places (`places`): where all objects are, disk by disk, beside the space map.
//! 5. What was found gets paths.
//!
//! Files with changes that the index does not know, or that are being deleted, are counted apart, and
//! their bytes are not judged: what their extents come to is in between. Whether the bytes of an object
//! and its owners' list are those that its record says is not asked here: that needs the disks.
//!
//! The snapshot keeps old memtables and tables as long as the walk takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Namespace;
use super::core::Core;
use super::error::{FleetError, NamespaceError};
use super::index::{Index, Pins, Snapshot};
use super::long_cut;
use crate::base::{Ino, ObjectId};
use crate::fleet::space::Inventory;
use crate::format::{
    DirentValue, ExtentValue, InodeRecord, KEY_BYTES_MAX, Key, KeyView, ObjectRecord,
    decode_cut_steps,
};

mod files;
mod finding;
mod objects;
mod places;

pub use finding::Finding;

/// Findings that a report keeps; more are only counted.
const FINDINGS_MAX: usize = 1000;
/// Inodes or objects of a window: some 100 MiB.
const WINDOW: usize = 1 << 20;
/// Entries of one look into the index.
const PAGE: usize = 512;
/// How often a moment without a batch on its way is waited for.
const ROUNDS: u32 = 8;
/// Directories above a file at most, for its path: PATH_MAX has no room for more.
const DEPTH_MAX: usize = 4096;

// First bytes of keys (`format::keys`).
const INODES: u8 = 0x01;
const NAMES: u8 = 0x02;
const EXTENTS: u8 = 0x03;
const ATTRIBUTES: u8 = 0x04;
const OBJECTS: u8 = 0x05;
const CHECKSUMS: u8 = 0x06;
const LIVE: u8 = 0x07;
const WORK: u8 = 0x08;
const REST: u8 = 0x09;

/// What an audit came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Audit {
    /// Inodes.
    pub inodes: u64,
    /// Names in directories.
    pub names: u64,
    /// Extents of files.
    pub extents: u64,
    /// Objects with bytes of files.
    pub objects: u64,
    /// Bytes of all extents.
    pub bytes: u64,
    /// Inodes whose bytes were not judged: memory has changes of them, or they are being deleted.
    pub unsettled: u64,
    /// Units that are held for a moment: in flight, or deleted and not free yet.
    pub pending_units: u64,
    /// Entries for recovery, should power be lost now: parts of long cuts, objects that memory counts on.
    pub intents: u64,
    /// False if batches were on their way all the time, so that the space map says something else.
    pub compared_space: bool,
    /// Findings in all.
    pub found: u64,
    /// The first of them.
    pub findings: Vec<Found>,
}

/// A finding, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// What.
    pub finding: Finding,
    /// A path to the file or directory it is about, if one leads there.
    pub path: Option<Vec<u8>>,
}

impl Audit {
    /// Nothing contradicts anything.
    pub fn is_clean(&self) -> bool {
        self.found == 0
    }

    fn note(&mut self, finding: Finding) {
        self.found += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Found { finding, path: None });
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}: {}", path.escape_ascii(), self.finding),
            None => self.finding.fmt(f),
        }
    }
}

impl Namespace {
    /// Walks the whole index, and says where it contradicts itself or the space map. Exact on a pool
    /// that is at rest: while others write, an object may be said to be unused that is just being freed.
    pub fn audit(&self) -> Result<Audit, NamespaceError> {
        self.audit_by(WINDOW, &|_| true)
    }

    /// The same; `watch` is told how many entries of the index were read since it was told last, and ends
    /// it with false (error `Stopped`). It reads some more than [`Namespace::index_entries`] says.
    pub fn audit_watched(&self, watch: &Watch<'_>) -> Result<Audit, NamespaceError> {
        self.audit_by(WINDOW, watch)
    }

    /// About how many entries the index has: those of its tables.
    pub fn index_entries(&self) -> u64 {
        let tables = self.core.index.snapshot().tables();
        tables.iter().map(|(_, meta)| meta.entries).sum()
    }

    /// The same with so many inodes or objects at a time.
    fn audit_by(&self, window: usize, watch: &Watch<'_>) -> Result<Audit, NamespaceError> {
        let moment = Moment::wait_for(&self.core)?;
        let reader = Reader { index: &self.core.index, snapshot: &moment.index, watch };
        let name_key = self.core.name_key;
        let mut audit = Audit { compared_space: moment.space.is_some(), ..Audit::default() };
        let mut walk = Walk { reader, moment: &moment, name_key, window, audit: &mut audit };
        walk.files()?;
        walk.objects()?;
        walk.places()?;
        walk.rest()?;
        let mut paths = Paths { reader, known: BTreeMap::new() };
        paths.find(&mut audit)?;
        Ok(audit)
    }
}

/// What there is, all at one moment.
struct Moment {
    index: Snapshot,
    /// None while batches are on their way.
    space: Option<Vec<Inventory>>,
    /// Objects that no key names: tables, and the chains of the root.
    unkeyed: Vec<ObjectRecord>,
    /// Inodes of which the index does not know everything, or that are being deleted.
    unsettled: BTreeSet<Ino>,
    /// Objects that memory still counts on.
    in_flush: BTreeSet<ObjectId>,
    inodes: u64,
    next_ino: u64,
}

impl Moment {
    /// The space map hears of a batch when it is durable: so it is best looked at when all are.
    fn wait_for(core: &Core) -> Result<Moment, NamespaceError> {
        let mut round = 0;
        loop {
            round += 1;
            if !core.options.read_only {
                core.commit_all()?;
            }
            let state = core.state.lock();
            let told = state.open.placed.is_empty() && state.open.freed.is_empty();
            let at_rest = told && state.durable.next() == state.open.lsn;
            if !at_rest && round < ROUNDS {
                continue;
            }
            let unsettled = state.inodes.iter();
            let unsettled = unsettled.filter(|(_, inode)| inode.flushing || !inode.is_clean());
            let mut unkeyed = core.index.tables();
            unkeyed.extend(state.chains.iter().cloned());
            return Ok(Moment {
                index: core.index.snapshot(),
                space: at_rest.then(|| core.space.inventory()),
                unkeyed,
                unsettled: unsettled.map(|(&ino, _)| ino).chain(state.reap.clone()).collect(),
                in_flush: state.in_flush.iter().copied().collect(),
                inodes: state.inode_count,
                next_ino: state.next_ino,
            });
        }
    }
}

/// Told how many entries were read; false ends it.
pub type Watch<'a> = dyn Fn(u64) -> bool + 'a;

/// Reads the index as of the moment. Waits for disks; no lock is held.
#[derive(Clone, Copy)]
struct Reader<'a> {
    index: &'a Index,
    snapshot: &'a Snapshot,
    watch: &'a Watch<'a>,
}

impl Reader<'_> {
    /// Every entry of a range, in order, until `visit` says false.
    fn each(
        &self,
        start: &Key,
        end: &Key,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), NamespaceError> {
        let mut from = start.as_bytes().to_vec();
        let mut pins = Pins::new();
        loop {
            let scan = self.index.scan(&from, end.as_bytes(), PAGE, Some(self.snapshot), &pins);
            let scan = match scan {
                Ok(scan) => scan,
                Err(need) => {
                    self.index.load(&need.0, &mut pins)?;
                    continue;
                }
            };
            if !(self.watch)(scan.entries.len() as u64) {
                return Err(NamespaceError::Io(FleetError::Stopped));
            }
            if !scan.entries.iter().all(|(key, value)| visit(key, value)) {
                return Ok(());
            }
            match scan.next {
                Some(next) => from = next,
                None => return Ok(()),
            }
            // Bounded: what was needed so far is behind us.
            pins = Pins::new();
        }
    }

    /// The value of one key.
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, NamespaceError> {
        Ok(self.index.read(key.as_bytes(), Some(self.snapshot))?)
    }

    /// An inode's record, if there is one that makes sense.
    fn inode(&self, ino: Ino) -> Result<Option<InodeRecord>, NamespaceError> {
        Ok(self.get(&Key::inode(ino))?.and_then(|value| InodeRecord::decode(&value).ok()))
    }
}

/// The numbers from `from` up to and without `to`, of inodes or objects; None: no bound.
#[derive(Clone, Copy)]
struct Window {
    from: Option<u64>,
    to: Option<u64>,
}

impl Window {
    fn start(self, kind: u8) -> Key {
        self.from.map_or(Key::kind_from(kind), |from| Key::kind_from_number(kind, from))
    }

    fn end(self, kind: u8) -> Key {
        self.to.map_or(Key::kind_from(kind + 1), |to| Key::kind_from_number(kind, to))
    }

    fn has(self, number: u64) -> bool {
        self.from.is_none_or(|from| from <= number) && self.to.is_none_or(|to| number < to)
    }

    fn is_first(self) -> bool {
        self.from.is_none()
    }
}

/// A walk under way.
struct Walk<'a> {
    reader: Reader<'a>,
    moment: &'a Moment,
    name_key: [u64; 2],
    /// Inodes or objects at a time.
    window: usize,
    audit: &'a mut Audit,
}

impl Walk<'_> {
    /// What is of no file and of no object.
    fn rest(&mut self) -> Result<(), NamespaceError> {
        let Walk { reader, audit, .. } = self;
        let counted = Key::meta(super::recover::INODES_KEY);
        let lease = Key::meta(super::sync::LEASE_KEY);
        let mut index = 0;
        let mut note = |key: &[u8], value: &[u8]| {
            let number = <[u8; 8]>::try_from(value).ok().map(u64::from_le_bytes);
            match number {
                Some(number) if key == counted.as_bytes() => index = number,
                Some(_) if key == lease.as_bytes() => {}
                _ if long_cut::spent_of(key).is_some() && value.is_empty() => audit.intents += 1,
                _ if long_cut::part_of(key).is_some() && decode_cut_steps(value).is_ok() => {
                    audit.intents += 1;
                }
                _ => audit.note(Finding::Unreadable { key: key.to_vec() }),
            }
            true
        };
        reader.each(&Key::from_bytes(&[]), &Key::kind_from(INODES), &mut note)?;
        reader.each(
            &Key::kind_from(REST),
            &Key::from_bytes(&[u8::MAX; KEY_BYTES_MAX]),
            &mut note,
        )?;
        let (there, memory) = (self.audit.inodes, self.moment.inodes);
        if there != index || there != memory {
            self.audit.note(Finding::InodeCount { there, index, memory });
        }
        Ok(())
    }
}

/// One path to each of these, where one leads there.
pub(super) fn paths(
    index: &Index,
    inodes: &BTreeSet<Ino>,
) -> Result<BTreeMap<Ino, Vec<u8>>, NamespaceError> {
    let snapshot = index.snapshot();
    let reader = Reader { index, snapshot: &snapshot, watch: &|_| true };
    let mut paths = Paths { reader, known: BTreeMap::new() };
    paths.learn(inodes)?;
    let mut found = BTreeMap::new();
    for &ino in inodes {
        if let Some(path) = paths.path(ino)? {
            found.insert(ino, path);
        }
    }
    Ok(found)
}

/// Inodes with extents in these objects, at most `each` of one.
pub(super) fn owners(
    index: &Index,
    objects: &BTreeSet<ObjectId>,
    each: usize,
) -> Result<BTreeMap<ObjectId, Vec<Ino>>, NamespaceError> {
    let mut found: BTreeMap<ObjectId, Vec<Ino>> = BTreeMap::new();
    if objects.is_empty() {
        return Ok(found);
    }
    let snapshot = index.snapshot();
    let reader = Reader { index, snapshot: &snapshot, watch: &|_| true };
    let (start, end) = (Key::kind_from(EXTENTS), Key::kind_from(EXTENTS + 1));
    reader.each(&start, &end, &mut |key, value| {
        if let Ok(KeyView::Extent { ino, .. }) = KeyView::decode(key)
            && let Ok(extent) = ExtentValue::decode(value)
            && objects.contains(&extent.object)
        {
            let inodes = found.entry(extent.object).or_default();
            if inodes.last() != Some(&ino) && inodes.len() < each {
                inodes.push(ino);
            }
        }
        true
    })?;
    Ok(found)
}

/// Finds a name for what was found.
struct Paths<'a> {
    reader: Reader<'a>,
    /// One name of each: in which directory, and which.
    known: BTreeMap<Ino, (Ino, Vec<u8>)>,
}

impl Paths<'_> {
    fn find(&mut self, audit: &mut Audit) -> Result<(), NamespaceError> {
        let wanted: BTreeSet<Ino> =
            audit.findings.iter().filter_map(|found| found.finding.ino()).collect();
        self.learn(&wanted)?;
        for found in &mut audit.findings {
            if let Some(ino) = found.finding.ino() {
                found.path = self.path(ino)?;
            }
        }
        Ok(())
    }

    /// Finds a name of each of these.
    fn learn(&mut self, wanted: &BTreeSet<Ino>) -> Result<(), NamespaceError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let known = &mut self.known;
        let (start, end) = (Key::kind_from(NAMES), Key::kind_from(NAMES + 1));
        self.reader.each(&start, &end, &mut |key, value| {
            note_name(known, key, value, |ino| wanted.contains(&ino));
            true
        })
    }

    /// From the root down to this inode.
    fn path(&mut self, ino: Ino) -> Result<Option<Vec<u8>>, NamespaceError> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            if !self.known.contains_key(&at) {
                self.look_in_parent(at)?;
            }
            let Some((parent, name)) = self.known.get(&at) else { return Ok(None) };
            if names.len() == DEPTH_MAX {
                return Ok(None);
            }
            names.push(name.clone());
            at = *parent;
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        Ok(Some(if path.is_empty() { b"/".to_vec() } else { path }))
    }

    /// A directory above says itself where its name is.
    fn look_in_parent(&mut self, ino: Ino) -> Result<(), NamespaceError> {
        let Some(record) = self.reader.inode(ino)? else { return Ok(()) };
        let (start, end) = (Key::dirents_from(record.parent, 0), Key::dirents_end(record.parent));
        let known = &mut self.known;
        self.reader.each(&start, &end, &mut |key, value| {
            note_name(known, key, value, |other| other == ino);
            !known.contains_key(&ino)
        })
    }
}

fn note_name(
    known: &mut BTreeMap<Ino, (Ino, Vec<u8>)>,
    key: &[u8],
    value: &[u8],
    wanted: impl Fn(Ino) -> bool,
) {
    if let Ok(KeyView::Dirent { parent, name, .. }) = KeyView::decode(key)
        && let Ok(DirentValue { ino, .. }) = DirentValue::decode(value)
        && wanted(ino)
    {
        known.entry(ino).or_insert_with(|| (parent, name.to_vec()));
    }
}

#[cfg(test)]
impl Namespace {
    /// Puts and deletes entries of the index as they are, and counts so many more inodes: what no
    /// operation does, for an audit to find.
    pub(crate) fn plant(&self, entries: &[(Key, Option<Vec<u8>>)], inodes: i64) {
        let planted = self.core.change_inside(|tx| {
            for (key, value) in entries {
                match value {
                    Some(value) => tx.put(key.clone(), value.clone()),
                    None => tx.delete(key.clone()),
                }
            }
            tx.count_inodes(inodes);
            Ok(())
        });
        planted.expect("it takes anything");
    }

    /// All entries of this kind.
    pub(crate) fn entries(&self, kind: u8) -> Vec<(Key, Vec<u8>)> {
        let snapshot = self.core.index.snapshot();
        let reader = Reader { index: &self.core.index, snapshot: &snapshot, watch: &|_| true };
        let mut found = Vec::new();
        let (start, end) = (Key::kind_from(kind), Key::kind_from(kind + 1));
        let read = reader.each(&start, &end, &mut |key, value| {
            found.push((Key::from_bytes(key), value.to_vec()));
            true
        });
        read.expect("it reads");
        found
    }

    /// `audit`, with so many inodes or objects at a time.
    pub(crate) fn audit_in_windows(&self, window: usize) -> Audit {
        self.audit_by(window, &|_| true).expect("it reads")
    }
}
