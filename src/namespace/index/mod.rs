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

use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::limits::{INDEX_CACHE_BYTES, MEMTABLE_BYTES, MEMTABLES_MAX};
use crate::base::sync::atomic::{AtomicU32, Ordering};
use crate::base::sync::{Arc, Mutex, RwLock};
use crate::base::{Event, KIB, Lsn, MIB, ObjectId, Random};
use crate::fleet::FleetError;
use crate::fleet::disk::Class;
use crate::format::ObjectRecord;
use crate::format::manifest::{ManifestEntry, TableEntry};
use crate::format::table::{Block, BuiltTable, Filter, PartKind, is_part};

mod cache;
mod compaction;
mod cursor;
mod flush;
mod fold;
mod key;
mod memtable;
mod plan;
mod read;
mod snapshot;
mod state;
mod store;
mod tree;

pub use crate::format::table::Op;
pub use cache::{BlockRef, Need, Pins};
pub use compaction::Compactor;
pub use flush::Flusher;
pub use snapshot::Snapshot;
pub use store::TableStore;

use cache::{BlockCache, Part, PartKey};
use fold::Fold;
use memtable::NEWEST;
use read::View;
use state::State;
use tree::{Table, Tree};

/// A value; of a counter (`Op::Add`), the sum as 8 little-endian bytes.
pub type Value = Vec<u8>;

/// How long flusher and compactor wait after an error before they try again.
const RETRY: Duration = Duration::from_secs(1);
/// Tables become no smaller than this, however short the runs of free space are.
const TABLE_BYTES_LEAST: u32 = 64 << 10;

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
    /// All live tables' objects, changed or not.
    pub tables: Vec<ObjectRecord>,
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
    /// Tables end near this size.
    pub table_bytes: u32,
    /// Data blocks end near this size.
    pub block_bytes: u32,
    /// Level 1 may hold this; each level below ten times as much as the one above.
    pub level_bytes: u64,
    /// Level 0 is compacted at this many runs, writers slow down at twice, stop at four times it.
    pub level_0_runs: usize,
    /// Compaction reads pieces of this size.
    pub piece_bytes: u32,
    /// Seed of the tables' tags: different in every mount.
    pub seed: u64,
}

impl Default for IndexOptions {
    fn default() -> IndexOptions {
        IndexOptions {
            cache_bytes: INDEX_CACHE_BYTES,
            memtable_bytes: MEMTABLE_BYTES,
            table_bytes: 12 * MIB as u32,
            block_bytes: 32 * KIB as u32,
            level_bytes: 64 * MIB,
            level_0_runs: 4,
            piece_bytes: 2 * MIB as u32,
            seed: 0,
        }
    }
}

impl IndexOptions {
    /// For a cache of this size. Where it is smaller than usual memory is scarce, and what is built and merged
    /// in memory is smaller too, down to tables of 4 MiB: four copies of one are on their way at once.
    pub fn for_cache(bytes: u64) -> IndexOptions {
        let usual = IndexOptions::default();
        let part = |usual: u64, least: u64| {
            let scaled = usual.saturating_mul(bytes) / INDEX_CACHE_BYTES;
            scaled.clamp(least, usual)
        };
        IndexOptions {
            cache_bytes: bytes,
            memtable_bytes: part(usual.memtable_bytes, 8 * MIB),
            table_bytes: part(usual.table_bytes.into(), 4 * MIB) as u32,
            level_bytes: part(usual.level_bytes, 16 * MIB),
            piece_bytes: part(usual.piece_bytes.into(), 512 * KIB) as u32,
            ..usual
        }
    }
}

/// The index. Shared by all; see the module's text.
pub struct Index {
    options: IndexOptions,
    store: Arc<dyn TableStore>,
    cache: BlockCache,
    state: RwLock<State>,
    tags: Mutex<Random>,
    /// Bytes of a table now: fewer than wished for while free space is in splinters.
    table_bytes: AtomicU32,
    /// Tables that are to be written again.
    stale: Mutex<BTreeSet<ObjectId>>,
    work: Arc<Event>,
    changed: Arc<Event>,
}

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
        let state = State::open(tables, flushed_through)
            .ok_or(FleetError::Damaged { what: "manifest", lsn: flushed_through })?;
        Ok(Arc::new(Index {
            cache: BlockCache::new(options.cache_bytes),
            state: RwLock::new(state),
            tags: Mutex::new(Random::new(options.seed)),
            table_bytes: AtomicU32::new(options.table_bytes),
            stale: Mutex::default(),
            work: Arc::new(Event::new()),
            changed: Arc::new(Event::new()),
            options,
            store,
        }))
    }

    /// Carries out the changes of (a part of) the batch `lsn`, all at once. In memory only, cannot
    /// fail. LSNs never fall; several calls with one LSN are fine. Panics if `lsn` is not above the
    /// last frozen one.
    pub fn apply<'a>(&self, lsn: Lsn, changes: impl IntoIterator<Item = (&'a [u8], Op<'a>)>) {
        let state = self.state.read();
        assert!(lsn > state.frozen_through, "a memtable is frozen at the end of a batch");
        state.active.apply(lsn, changes);
    }

    /// The value of a key now.
    pub fn get(&self, key: &[u8], pins: &Pins) -> Result<Option<Value>, Need> {
        let mut fold = Fold::default();
        let tree = {
            let state = self.state.read();
            let answer = state.active.look(key, NEWEST, |op| op.and_then(|op| fold.feed(op)));
            if let Some(answer) = answer {
                return Ok(answer);
            }
            state.tree.clone()
        };
        read::get_below(&tree, &self.cache, key, fold, pins)
    }

    /// The value of a key when the snapshot was taken.
    pub fn get_at(
        &self,
        snapshot: &Snapshot,
        key: &[u8],
        pins: &Pins,
    ) -> Result<Option<Value>, Need> {
        let mut fold = Fold::default();
        let (active, sequence) = (&snapshot.active, snapshot.sequence);
        if let Some(answer) = active.look(key, sequence, |op| op.and_then(|op| fold.feed(op))) {
            return Ok(answer);
        }
        read::get_below(&snapshot.tree, &self.cache, key, fold, pins)
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
        self.view(snapshot, pins, |view| read::get_at_or_before(view, key, prefix))
    }

    /// The value of a key, now or as of the snapshot; loads the blocks that it takes. Waits for disks.
    pub fn read(
        &self,
        key: &[u8],
        snapshot: Option<&Snapshot>,
    ) -> Result<Option<Value>, FleetError> {
        let mut pins = Pins::new();
        loop {
            let value = match snapshot {
                Some(snapshot) => self.get_at(snapshot, key, &pins),
                None => self.get(key, &pins),
            };
            match value {
                Ok(value) => return Ok(value),
                Err(need) => self.load(&need.0, &mut pins)?,
            }
        }
    }

    /// Up to `limit` entries with `start <= key < end`, now or as of the snapshot. Anything found
    /// before a part is missing is returned; `Need` comes only when nothing was.
    pub fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        snapshot: Option<&Snapshot>,
        pins: &Pins,
    ) -> Result<Scan, Need> {
        self.view(snapshot, pins, |view| read::scan(view, start, end, limit))
    }

    fn view<R>(
        &self,
        snapshot: Option<&Snapshot>,
        pins: &Pins,
        read: impl FnOnce(View<'_>) -> R,
    ) -> R {
        let cache = &self.cache;
        if let Some(snapshot) = snapshot {
            let (active, tree) = (&*snapshot.active, &*snapshot.tree);
            return read(View { active, sequence: snapshot.sequence, tree, cache, pins });
        }
        let (active, tree) = {
            let state = self.state.read();
            (state.active.clone(), state.tree.clone())
        };
        read(View { active: &active, sequence: NEWEST, tree: &tree, cache, pins })
    }

    /// Reads what a lookup needed, into the cache and `pins`. Waits for a disk: hold no lock.
    pub fn load(&self, block: &BlockRef, pins: &mut Pins) -> Result<(), FleetError> {
        let key = block.key();
        let part = match self.cache.get(key) {
            Some(part) => part,
            None => {
                let part = self.read_part(block, Class::Foreground)?;
                self.cache.insert(key, part.clone());
                part
            }
        };
        pins.insert(key, part);
        Ok(())
    }

    fn read_part(&self, block: &BlockRef, class: Class) -> Result<Part, FleetError> {
        let BlockRef { table, kind, extent } = block;
        let judge = |bytes: &[u8]| {
            bytes.len() == extent.length as usize
                && is_part(bytes, *kind, table.meta.tag, extent.offset)
        };
        let (offset, length) = (extent.offset, extent.length);
        let bytes = self.store.read_block(&table.record, offset, length, class, &judge)?;
        open_part(table, *kind, offset, bytes)
    }

    /// The index as it is now, for reading later.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state.read();
        Snapshot::new(state.active.clone(), state.tree.clone())
    }

    /// The memtable is full: freeze it at the next batch boundary.
    pub fn wants_freeze(&self) -> bool {
        self.state.read().active.bytes() >= self.options.memtable_bytes
    }

    /// Freezes the memtable, which must hold all batches up to `through` and nothing after: call it
    /// under the lock that orders batches, right after sealing batch `through`. False if two are
    /// frozen already: nothing happened, try again at a later boundary.
    pub fn freeze(&self, through: Lsn) -> bool {
        let done = self.state.write().freeze(through, MEMTABLES_MAX as usize - 1);
        if done {
            self.work.notify();
        }
        done
    }

    /// Whether writers should wait.
    pub fn pressure(&self) -> Pressure {
        let state = self.state.read();
        let runs = state.tree.level_0_runs();
        let full = state.tree.frozen.len() + 1 >= MEMTABLES_MAX as usize
            && state.active.bytes() >= self.options.memtable_bytes;
        if full || runs >= 4 * self.options.level_0_runs {
            Pressure::Stop
        } else if runs >= 2 * self.options.level_0_runs {
            Pressure::Slow
        } else {
            Pressure::None
        }
    }

    /// Tables hold exactly the batches up to this one.
    pub fn flushed_through(&self) -> Lsn {
        self.state.read().flushed_through
    }

    /// True if no frozen memtable waits to be flushed: `flushed_through` is the last frozen LSN.
    pub fn is_flushed(&self) -> bool {
        self.state.read().tree.frozen.is_empty()
    }

    /// The manifest for a checkpoint: whole, or what changed since the last confirmed capture.
    /// The root must not become effective before batch `flushed_through` is durable in the journal
    /// or a predecessor of it would be missing [R3].
    pub fn capture(&self, full: bool) -> Capture {
        self.state.read().capture(full)
    }

    /// The root made from `capture` is effective [R9]. Returns the tables that no choosable root
    /// names and nobody reads any more: their space may be freed now [I3].
    pub fn confirm(&self, capture: &Capture) -> Vec<ObjectRecord> {
        self.state.write().confirm(capture.position)
    }

    /// All live tables: what recovery adds to the space map, what scrub and repair visit.
    pub fn tables(&self) -> Vec<ObjectRecord> {
        self.state.read().tree.placed().map(|placed| placed.table.record.clone()).collect()
    }

    /// Notified when there is work for the flusher or the compactor.
    pub fn work_event(&self) -> Arc<Event> {
        self.work.clone()
    }

    /// If this is a table, it is written again: a copy of it is bad.
    pub fn refresh(&self, object: ObjectId) -> bool {
        let is_table = self.tree().placed().any(|placed| placed.table.record.id == object);
        if is_table {
            self.stale.lock().insert(object);
            self.work.notify();
        }
        is_table
    }

    /// Whether tables of which a copy is bad are still to be written again.
    pub fn has_stale(&self) -> bool {
        !self.stale.lock().is_empty()
    }

    /// Whether a table is to be written again.
    fn is_stale(&self, table: &Table) -> bool {
        self.store.lacks(&table.record) || self.stale.lock().contains(&table.record.id)
    }

    /// There may be something for the compactor to do that it has not been told of.
    pub fn look_again(&self) {
        self.work.notify();
    }

    /// Notified when a flush or compaction was installed: pressure may have fallen, tables changed.
    pub fn changed_event(&self) -> Arc<Event> {
        self.changed.clone()
    }

    /// Memory of table parts now; never above `IndexOptions::cache_bytes`.
    pub fn cache_used_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Memory of memtables now, frozen ones included.
    pub fn memtable_used_bytes(&self) -> u64 {
        let state = self.state.read();
        let frozen: u64 = state.tree.frozen.iter().map(|frozen| frozen.memtable.bytes()).sum();
        state.active.bytes() + frozen
    }

    /// Per level, from 0: tables and bytes. For status.
    pub fn levels(&self) -> Vec<(usize, u64)> {
        let state = self.state.read();
        let mut levels: Vec<(usize, u64)> = Vec::new();
        for run in &state.tree.runs {
            let level = usize::from(run.level);
            levels.resize(levels.len().max(level + 1), (0, 0));
            levels[level].0 += run.tables.len();
            levels[level].1 += run.bytes();
        }
        levels
    }

    fn tree(&self) -> Arc<Tree> {
        self.state.read().tree.clone()
    }

    /// The tag of the next table. Random, and never 0.
    fn next_tag(&self) -> u64 {
        self.tags.lock().next_u64() | 1
    }

    /// Writes a table and keeps its filter and index block at hand: it will soon be asked.
    fn write_table(&self, built: BuiltTable, class: Class) -> Result<Arc<Table>, FleetError> {
        let BuiltTable { bytes, meta } = built;
        let warm = [(PartKind::Filter, meta.filter), (PartKind::Index, meta.index)].map(
            |(kind, extent)| {
                let start = extent.offset as usize;
                (kind, extent.offset, bytes[start..start + extent.length as usize].to_vec())
            },
        );
        let record = self.store.write_table(bytes, meta.max_lsn, class);
        let record = record.inspect_err(|error| self.note_no_room(error))?;
        let table = Arc::new(Table { record, meta });
        for (kind, offset, bytes) in warm {
            let part = open_part(&table, kind, offset, bytes)?;
            self.cache.insert(PartKey { tag: table.meta.tag, offset }, part);
        }
        Ok(table)
    }

    fn table_bytes(&self) -> u32 {
        self.table_bytes.load(Ordering::SeqCst)
    }

    /// No run is long enough: the next tables are smaller [R22].
    fn note_no_room(&self, error: &FleetError) {
        let least = TABLE_BYTES_LEAST.min(self.options.table_bytes);
        if matches!(error, FleetError::NoRoom { .. }) {
            self.table_bytes.store((self.table_bytes() / 2).max(least), Ordering::SeqCst);
        }
    }

    /// Not while a merge runs: it would grow them to what does not fit, and be begun anew for ever.
    fn grow_tables(&self) {
        let bytes = self.table_bytes();
        let more = bytes.saturating_add(bytes / 8).min(self.options.table_bytes);
        self.table_bytes.store(more, Ordering::SeqCst);
    }

    fn notify_installed(&self) {
        self.grow_tables();
        self.changed.notify();
        self.work.notify();
    }
}

/// Verifies a part in depth. Its checksum is good already, so an error here is a bug or worse: no
/// other replica can help.
fn open_part(
    table: &Table,
    kind: PartKind,
    offset: u32,
    bytes: Vec<u8>,
) -> Result<Part, FleetError> {
    let Table { record, meta } = table;
    let part = match kind {
        PartKind::Data => {
            Block::open_data(bytes, meta.tag, offset).map(|block| Part::Block(Arc::new(block)))
        }
        PartKind::Index => Block::open_index(bytes, meta).map(|block| Part::Block(Arc::new(block))),
        PartKind::Filter => Filter::open(bytes, meta).map(|filter| Part::Filter(Arc::new(filter))),
        PartKind::Footer => unreachable!("lookups never read a footer"),
    };
    part.map_err(|error| {
        log::error!("index table {}: {error}; its checksum is good: please report this", record.id);
        FleetError::Damaged { what: "index table", lsn: meta.max_lsn }
    })
}

#[cfg(test)]
mod tests;
