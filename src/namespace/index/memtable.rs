//! The memtable: changes that are in no table yet, in RAM, in key order.
//!
//! Every `apply` is one step of the memtable's own sequence. A key keeps its newest version, and older
//! ones only while a snapshot may still ask for them; without snapshots a change replaces the one
//! before in place. Versions are complete in themselves: an `Add` is joined with what is below it in
//! this memtable, so a reader looks at one version.
//!
//! Once frozen it never changes: the index hands `apply` only to the active one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::ops::Bound;

use super::Op;
use super::fold::OwnedOp;
use super::key::Key;
use crate::base::Lsn;
use crate::base::sync::{RwLock, RwLockReadGuard};
use crate::format::table::Entry;

/// What an entry costs beside its key's and value's own heap: nodes are about two thirds full.
const ENTRY_BYTES: usize = (size_of::<Key>() + size_of::<Versions>()) * 3 / 2;

/// Sees all of a memtable.
pub(super) const NEWEST: u64 = u64::MAX;

#[derive(Debug)]
struct Version {
    sequence: u64,
    lsn: Lsn,
    op: OwnedOp,
}

#[derive(Debug)]
struct Versions {
    newest: Version,
    /// Oldest first. Rarely there at all.
    #[allow(clippy::box_collection, reason = "8 bytes instead of 24 in every entry")]
    older: Option<Box<Vec<Version>>>,
}

impl Versions {
    /// The version that a reader of `sequence` sees.
    fn at(&self, sequence: u64) -> Option<&Version> {
        if self.newest.sequence <= sequence {
            return Some(&self.newest);
        }
        self.older.as_deref()?.iter().rev().find(|version| version.sequence <= sequence)
    }
}

#[derive(Default, Debug)]
struct Inner {
    map: BTreeMap<Key, Versions>,
    bytes: usize,
    sequence: u64,
    max_lsn: Lsn,
    /// Sequence numbers that snapshots hold, with how many hold each.
    snapshots: BTreeMap<u64, u32>,
}

/// See the module's text.
#[derive(Default, Debug)]
pub(super) struct Memtable(RwLock<Inner>);

impl Memtable {
    /// Carries out changes, visible all at once.
    pub(super) fn apply<'a>(
        &self,
        lsn: Lsn,
        changes: impl IntoIterator<Item = (&'a [u8], Op<'a>)>,
    ) {
        let mut inner = self.0.write();
        assert!(lsn >= inner.max_lsn, "batches are applied in their order");
        inner.max_lsn = lsn;
        inner.sequence += 1;
        for (key, op) in changes {
            inner.change(key, lsn, op);
        }
    }

    /// Calls `found` with what a reader of `sequence` sees under the key.
    pub(super) fn look<R>(
        &self,
        key: &[u8],
        sequence: u64,
        found: impl FnOnce(Option<Op<'_>>) -> R,
    ) -> R {
        let inner = self.0.read();
        let version = inner.map.get(key).and_then(|versions| versions.at(sequence));
        found(version.map(|version| version.op.view()))
    }

    /// For walking through it. Holds the lock: no I/O meanwhile.
    pub(super) fn read(&self) -> Reading<'_> {
        Reading(self.0.read())
    }

    /// Memory, nearly.
    pub(super) fn bytes(&self) -> u64 {
        self.0.read().bytes as u64
    }

    /// Nothing was applied.
    pub(super) fn is_empty(&self) -> bool {
        self.0.read().map.is_empty()
    }

    /// The highest batch applied; 0 if none.
    pub(super) fn max_lsn(&self) -> Lsn {
        self.0.read().max_lsn
    }

    /// Keeps what is visible now until `release` is told the number returned.
    pub(super) fn hold(&self) -> u64 {
        let mut inner = self.0.write();
        let sequence = inner.sequence;
        *inner.snapshots.entry(sequence).or_default() += 1;
        sequence
    }

    /// Ends one `hold`.
    pub(super) fn release(&self, sequence: u64) {
        let mut inner = self.0.write();
        let holders = inner.snapshots.get_mut(&sequence).expect("released once per hold");
        *holders -= 1;
        if *holders == 0 {
            inner.snapshots.remove(&sequence);
        }
    }

    /// Versions beyond one a key: for tests of their bound.
    #[cfg(test)]
    pub(super) fn older_versions(&self) -> usize {
        let inner = self.0.read();
        inner.map.values().filter_map(|versions| versions.older.as_ref()).map(|v| v.len()).sum()
    }
}

impl Inner {
    fn change(&mut self, key: &[u8], lsn: Lsn, op: Op<'_>) {
        let sequence = self.sequence;
        let versions = match self.map.entry(Key::new(key)) {
            MapEntry::Vacant(vacant) => {
                let op = OwnedOp::new(op);
                self.bytes += ENTRY_BYTES + vacant.key().heap_bytes() + op.heap_bytes();
                let newest = Version { sequence, lsn, op };
                vacant.insert(Versions { newest, older: None });
                return;
            }
            MapEntry::Occupied(occupied) => occupied.into_mut(),
        };
        let version = Version { sequence, lsn, op: versions.newest.op.then(op) };
        self.bytes += version.op.heap_bytes();
        let before = std::mem::replace(&mut versions.newest, version);
        if self.snapshots.last_key_value().is_none_or(|(&held, _)| held < before.sequence) {
            self.bytes -= before.op.heap_bytes();
        } else {
            let older = versions.older.get_or_insert_default();
            self.bytes += size_of::<Version>();
            older.push(before);
            self.bytes -= prune(older, sequence, &self.snapshots);
        }
    }
}

/// Drops versions that no snapshot sees; `newest` is the sequence of the version above them.
/// Returns the bytes saved.
fn prune(older: &mut Vec<Version>, newest: u64, snapshots: &BTreeMap<u64, u32>) -> usize {
    let mut saved = 0;
    let mut above = newest;
    for index in (0..older.len()).rev() {
        let version = &older[index];
        if snapshots.range(version.sequence..above).next().is_some() {
            above = version.sequence;
        } else {
            saved += size_of::<Version>() + version.op.heap_bytes();
            older.remove(index);
        }
    }
    saved
}

/// A memtable being walked through.
pub(super) struct Reading<'a>(RwLockReadGuard<'a, Inner>);

impl Reading<'_> {
    /// Entries between the bounds as a reader of `sequence` sees them.
    pub(super) fn range(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        sequence: u64,
    ) -> impl DoubleEndedIterator<Item = (&[u8], Entry<'_>)> {
        let empty = match (start, end) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (
                Bound::Included(start) | Bound::Excluded(start),
                Bound::Included(end) | Bound::Excluded(end),
            ) => start >= end,
        };
        let bounds = if empty {
            let nowhere: &[u8] = &[];
            (Bound::Included(nowhere), Bound::Excluded(nowhere))
        } else {
            (start, end)
        };
        self.0.map.range::<[u8], _>(bounds).filter_map(move |(key, versions)| {
            let version = versions.at(sequence)?;
            Some((key.as_bytes(), Entry { lsn: version.lsn, op: version.op.view() }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(table: &Memtable, lsn: u64, key: &[u8], value: &[u8]) {
        table.apply(Lsn(lsn), [(key, Op::Put(value))]);
    }

    fn look(table: &Memtable, key: &[u8], sequence: u64) -> Option<OwnedOp> {
        table.look(key, sequence, |op| op.map(OwnedOp::new))
    }

    #[test]
    fn versions_are_kept_only_while_a_snapshot_needs_them() {
        let table = Memtable::default();
        put(&table, 1, b"k", b"one");
        put(&table, 1, b"k", b"two");
        assert_eq!(table.older_versions(), 0);
        let held = table.hold();
        for round in 0..100 {
            put(&table, 2 + round, b"k", b"three");
        }
        assert_eq!(table.older_versions(), 1);
        assert_eq!(look(&table, b"k", held), Some(OwnedOp::Put((*b"two").into())));
        assert_eq!(look(&table, b"k", NEWEST), Some(OwnedOp::Put((*b"three").into())));
        let other = table.hold();
        put(&table, 200, b"k", b"four");
        assert_eq!(table.older_versions(), 2);
        table.release(held);
        let third = table.hold();
        put(&table, 201, b"k", b"five");
        assert_eq!(look(&table, b"k", other), Some(OwnedOp::Put((*b"three").into())));
        assert_eq!(look(&table, b"k", third), Some(OwnedOp::Put((*b"four").into())));
        assert_eq!(table.older_versions(), 2, "the version of the released snapshot went");
        let bytes = table.bytes();
        table.release(other);
        table.release(third);
        let last = table.hold();
        put(&table, 202, b"k", b"six");
        assert_eq!(table.older_versions(), 1);
        assert!(table.bytes() < bytes + 100);
        table.release(last);
    }

    #[test]
    fn a_snapshot_does_not_see_keys_made_later() {
        let table = Memtable::default();
        put(&table, 1, b"a", b"1");
        let held = table.hold();
        put(&table, 1, b"b", b"2");
        table.apply(Lsn(2), [(b"a".as_slice(), Op::Delete), (b"c", Op::Add(3))]);
        assert_eq!(look(&table, b"b", held), None);
        let reading = table.read();
        let all = (Bound::Unbounded, Bound::Unbounded);
        let seen: Vec<_> = reading.range(all.0, all.1, held).map(|(key, _)| key).collect();
        assert_eq!(seen, [b"a"]);
        let seen: Vec<_> = reading.range(all.0, all.1, NEWEST).map(|(key, _)| key).collect();
        assert_eq!(seen, [b"a", b"b", b"c"]);
        let none = reading.range(Bound::Excluded(b"b"), Bound::Excluded(b"b"), NEWEST).count();
        assert_eq!(none, 0);
    }
}
