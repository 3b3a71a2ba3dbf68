//! The index: an LSM tree whose tables are replicated objects.
//!
//! ```text
//!   apply ─▶ memtable ─freeze─▶ frozen (<= 2) ─Flusher─▶ runs of level 0 ─Compactor─▶ levels 1..
//!   get, scan: memtable, frozen, level 0 newest first, level 1, 2, ...: the newest entry wins,
//!              `Add` entries are summed up down to the first `Put` or `Delete`
//! ```
//!
//! * Lookups never do I/O. A table part that is not in memory makes them return [`Need`]; the caller
//!   drops its locks, calls [`Index::load`], and starts again [R23]. Loaded parts stay in the
//!   caller's [`Pins`], so that each round gets further, however small the cache is.
//! * Lock order inside: tree, memtable, cache shard. None is held across I/O, and none is visible
//!   outside; all are short.
//! * A snapshot pins structure, not versions: it holds the memtables and tables that were current.
//!   Only the active memtable keeps older versions of a key, while a snapshot needs them. Tables hold
//!   one entry a key, so compaction need not know about snapshots.
//! * Entries keep the LSN of their newest change [R26].
//! * [R9] A table counts only once a root names it. [`Index::capture`] gives, in one consistent cut,
//!   the changes of the manifest and the LSN from which replay must start; [`Index::confirm`] is told
//!   when that root is effective and hands out the tables that may be freed then [I3].
//!   Add entries are not idempotent, so the cut is exact: tables hold the batches up to that LSN, all
//!   of them and no others. Hence `freeze` at batch boundaries only, and flushes in order.

use crate::base::sync::Arc;
use crate::base::{Clock, Event, Lsn, Pace, Task};
use crate::fleet::FleetError;
use crate::format::ObjectRecord;
use crate::format::manifest::{ManifestEntry, TableEntry};

mod store;

pub use store::TableStore;

/// A value; of a counter (`Op::Add`), the sum as 8 little-endian bytes.
pub type Value = Vec<u8>;

/// One change of the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op<'a> {
    /// The key has this value from now on.
    Put(&'a [u8]),
    /// The key has no value from now on.
    Delete,
    /// The counter under the key grows by this (wrapping). A key without value counts as 0. Counters
    /// are i64, 8 little-endian bytes; a value of another length counts as 0.
    Add(i64),
}

/// A part of a table that must be loaded before a lookup can go on. Holds its table: the table is not
/// freed while one of these is alive.
#[derive(Clone, Debug)]
pub struct BlockRef {}

/// A lookup could not go on: drop your locks, `load` this into your pins, and start again.
#[derive(Clone, Debug)]
pub struct Need(pub BlockRef);

/// Table parts loaded for one operation, so that its next try finds them. Clear or drop it when the
/// operation is over; it holds memory outside the cache's budget (at most what the operation loaded).
#[derive(Default, Debug)]
pub struct Pins {}

impl Pins {
    /// No pins.
    pub fn new() -> Pins {
        Pins::default()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        todo!()
    }
}

/// The index as it was at one moment. Holds memory and disk space while it lives: keep it short.
#[derive(Debug)]
pub struct Snapshot {}

/// What a scan found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scan {
    /// Entries in key order, deleted ones left out, counters summed up.
    pub entries: Vec<(Vec<u8>, Value)>,
    /// Where to go on (inclusive), if there may be more below the end of the range. A scan ends early
    /// at its limit, at a block it needs (the next call then returns `Need`), or after many deleted
    /// entries; `entries` may be empty then.
    pub next: Option<Vec<u8>>,
}

/// How far flushing and compaction are behind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Pressure {
    /// Go on.
    None,
    /// Level 0 is deep: delay writers a little.
    Slow,
    /// Memtables are full and cannot be frozen, or level 0 is too deep: admit no new user operation
    /// until it falls (wait on `changed_event`). What is already begun may still be applied.
    Stop,
}

/// A consistent cut of the manifest for a checkpoint.
#[derive(Clone, Debug)]
pub struct Capture {
    /// The root may carry this as its replay LSN: tables hold exactly the batches up to it.
    pub flushed_through: Lsn,
    /// All live tables, or what changed since the last confirmed capture, in order.
    pub entries: Vec<ManifestEntry>,
    /// Position in the manifest's history, for `confirm`.
    position: u64,
}

/// Sizes of one index. `Default` is production; tests make everything small.
#[derive(Clone, Debug)]
pub struct IndexOptions {
    /// Memory for table parts: data, index blocks, filters. At least 1 MiB.
    pub cache_bytes: u64,
    /// A memtable wants to be frozen at this size.
    pub memtable_bytes: u64,
    /// Tables end near this size (8 to 16 MiB).
    pub table_bytes: u32,
    /// Data blocks end near this size.
    pub block_bytes: u32,
    /// Level 1 may hold this; each level below ten times as much as the one above.
    pub level_bytes: u64,
    /// Level 0 is compacted at this many runs, writers slow down at twice, stop at four times it.
    pub level_0_runs: usize,
    /// Seed of the tables' tags: different in every mount.
    pub seed: u64,
}

/// The index. Shared by all; see the module's text.
pub struct Index {}

impl Index {
    /// Opens an index with these tables, which hold the batches up to `flushed_through`. Batches
    /// after it are then replayed through `apply`. `FleetError::Damaged` if the tables contradict
    /// each other.
    pub fn open(
        options: IndexOptions,
        store: Arc<dyn TableStore>,
        tables: Vec<TableEntry>,
        flushed_through: Lsn,
    ) -> Result<Arc<Index>, FleetError> {
        let _ = (options, store, tables, flushed_through);
        todo!()
    }

    /// Carries out the changes of (a part of) the batch `lsn`, all at once. In memory only, cannot
    /// fail. LSNs never fall; several calls with one LSN are fine. Panics if `lsn` is not above the
    /// last frozen one.
    pub fn apply<'a>(&self, lsn: Lsn, changes: impl IntoIterator<Item = (&'a [u8], Op<'a>)>) {
        let _ = (lsn, changes.into_iter());
        todo!()
    }

    /// The value of a key now.
    pub fn get(&self, key: &[u8], pins: &Pins) -> Result<Option<Value>, Need> {
        let _ = (key, pins);
        todo!()
    }

    /// The value of a key when the snapshot was taken.
    pub fn get_at(
        &self,
        snapshot: &Snapshot,
        key: &[u8],
        pins: &Pins,
    ) -> Result<Option<Value>, Need> {
        let _ = (snapshot, key, pins);
        todo!()
    }

    /// The last entry with this prefix whose key is at most `key`, which starts with `prefix`. For
    /// extents: the one that may contain an offset.
    pub fn get_at_or_before(
        &self,
        key: &[u8],
        prefix: &[u8],
        snapshot: Option<&Snapshot>,
        pins: &Pins,
    ) -> Result<Option<(Vec<u8>, Value)>, Need> {
        let _ = (key, prefix, snapshot, pins);
        todo!()
    }

    /// Up to `limit` entries with `start <= key < end`, now or as of the snapshot.
    pub fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        snapshot: Option<&Snapshot>,
        pins: &Pins,
    ) -> Result<Scan, Need> {
        let _ = (start, end, limit, snapshot, pins);
        todo!()
    }

    /// Reads what a lookup needed, into the cache and `pins`. Waits for a disk: hold no lock.
    pub fn load(&self, block: &BlockRef, pins: &mut Pins) -> Result<(), FleetError> {
        let _ = (block, pins);
        todo!()
    }

    /// The index as it is now, for reading later.
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }

    /// The memtable is full: freeze it at the next batch boundary.
    pub fn wants_freeze(&self) -> bool {
        todo!()
    }

    /// Freezes the memtable, which must hold all batches up to `through` and nothing after: call it
    /// under the lock that orders batches, right after sealing batch `through`. False if two are
    /// frozen already: nothing happened, try again at a later boundary.
    pub fn freeze(&self, through: Lsn) -> bool {
        let _ = through;
        todo!()
    }

    /// Whether writers should wait.
    pub fn pressure(&self) -> Pressure {
        todo!()
    }

    /// Tables hold exactly the batches up to this one.
    pub fn flushed_through(&self) -> Lsn {
        todo!()
    }

    /// The manifest for a checkpoint: whole, or what changed since the last confirmed capture.
    /// The root must not become effective before batch `flushed_through` is durable in the journal
    /// or a predecessor of it would be missing [R3].
    pub fn capture(&self, full: bool) -> Capture {
        let _ = full;
        todo!()
    }

    /// The root made from `capture` is effective [R9]. Returns the tables that no choosable root
    /// names and nobody reads any more: their space may be freed now [I3].
    pub fn confirm(&self, capture: &Capture) -> Vec<ObjectRecord> {
        let _ = capture;
        todo!()
    }

    /// All live tables: what recovery adds to the space map, what scrub and repair visit.
    pub fn tables(&self) -> Vec<ObjectRecord> {
        todo!()
    }
}

impl Index {
    /// Notified when there is work for the flusher or the compactor.
    pub fn work_event(&self) -> Arc<Event> {
        todo!()
    }

    /// Notified when a flush or compaction was installed: pressure may have fallen, tables changed.
    pub fn changed_event(&self) -> Arc<Event> {
        todo!()
    }

    /// True if no frozen memtable waits to be flushed: `flushed_through` is the last frozen LSN.
    pub fn is_flushed(&self) -> bool {
        todo!()
    }
}

/// Writes frozen memtables out as level-0 tables, oldest first. One per index.
pub struct Flusher {}

impl Flusher {
    /// A flusher for this index. `clock` paces retries after an error.
    pub fn new(index: Arc<Index>, clock: Arc<dyn Clock>) -> Flusher {
        let _ = (index, clock);
        todo!()
    }

    /// Writes at most one table, or installs a finished flush. `Again` if there is more to do now.
    /// After an error nothing is lost: the next step tries again.
    pub fn run_step(&mut self) -> Result<Pace, FleetError> {
        todo!()
    }
}

impl Task for Flusher {
    fn name(&self) -> &'static str {
        "index flusher"
    }
    fn event(&self) -> Arc<Event> {
        todo!()
    }
    fn step(&mut self) -> Pace {
        todo!()
    }
}

/// Merges tables down the levels. One per index.
pub struct Compactor {}

impl Compactor {
    /// A compactor for this index. `clock` paces retries after an error.
    pub fn new(index: Arc<Index>, clock: Arc<dyn Clock>) -> Compactor {
        let _ = (index, clock);
        todo!()
    }

    /// Moves a table, or reads and writes one table's worth of a merge. `Again` if there is more to
    /// do now. After an error the merge is given up; a later step begins it anew.
    pub fn run_step(&mut self) -> Result<Pace, FleetError> {
        todo!()
    }
}

impl Task for Compactor {
    fn name(&self) -> &'static str {
        "index compactor"
    }
    fn event(&self) -> Arc<Event> {
        todo!()
    }
    fn step(&mut self) -> Pace {
        todo!()
    }
}
