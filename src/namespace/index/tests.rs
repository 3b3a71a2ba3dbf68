//! Tests of the index against plain maps, over a store in memory that can rot, lose and refuse.

use std::collections::BTreeMap;

use super::*;
use crate::base::{
    Clock, DiskIndex, Epoch, ObjectId, Pace, ShardIndex, Task, Ticks, UNIT_BYTES, Units, WallTime,
};
use crate::format::{CODEC_VANDERMONDE, ObjectKind, Place, Redundancy};

mod faults;
mod measure;
mod properties;
mod threads;

/// Replicas of each table.
const COPIES: u8 = 3;

/// A table store in memory. Reading a freed table is a bug, and panics [I3].
#[derive(Default)]
struct MemoryStore {
    inner: Mutex<MemoryInner>,
}

#[derive(Default)]
struct MemoryInner {
    tables: BTreeMap<ObjectId, Vec<Vec<u8>>>,
    counter: u64,
    reads: u64,
    read_bytes: u64,
    written_bytes: u64,
    smallest_background_read: Option<u32>,
    /// The next this many writes are refused.
    refuse_writes: u64,
    /// So are tables above this, if any are.
    longest_run: Option<usize>,
    /// They lack a copy: all up to this number.
    lacking: u64,
}

impl MemoryStore {
    fn remove(&self, table: &ObjectRecord) {
        let removed = self.inner.lock().tables.remove(&table.id);
        assert!(removed.is_some(), "I3: table {} was freed twice", table.id);
    }

    /// Drops every table that is not in `keep`: what a crash does to tables that no root names.
    fn keep_only(&self, keep: &[ObjectId]) {
        self.inner.lock().tables.retain(|id, _| keep.contains(id));
    }

    fn table_count(&self) -> usize {
        self.inner.lock().tables.len()
    }
}

impl TableStore for MemoryStore {
    fn read_block(
        &self,
        table: &ObjectRecord,
        offset: u32,
        length: u32,
        class: Class,
        verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, FleetError> {
        let mut inner = self.inner.lock();
        inner.reads += 1;
        inner.read_bytes += u64::from(length);
        if class == Class::Background && offset + length < table.length * 9 / 10 {
            let smallest = inner.smallest_background_read.get_or_insert(length);
            *smallest = length.min(*smallest);
        }
        let replicas = inner.tables.get(&table.id);
        let replicas = replicas.unwrap_or_else(|| panic!("I3: table {} is freed", table.id));
        for replica in replicas {
            let range = offset as usize..(offset + length) as usize;
            if let Some(bytes) = replica.get(range)
                && verify(bytes)
            {
                return Ok(bytes.to_vec());
            }
        }
        Err(FleetError::Unreadable { object: table.id, have: 0, need: 1 })
    }

    fn write_table(
        &self,
        bytes: Vec<u8>,
        lsn: Lsn,
        _class: Class,
    ) -> Result<ObjectRecord, FleetError> {
        assert!(bytes.len() <= crate::format::table::TABLE_BYTES_MAX as usize);
        let mut inner = self.inner.lock();
        if inner.refuse_writes > 0 || inner.longest_run.is_some_and(|run| bytes.len() > run) {
            inner.refuse_writes = inner.refuse_writes.saturating_sub(1);
            return Err(FleetError::NoRoom { shards: COPIES.into(), bytes: bytes.len() as u64 });
        }
        inner.counter += 1;
        inner.written_bytes += bytes.len() as u64;
        let id = ObjectId::new(Epoch(1), inner.counter);
        let length = bytes.len() as u32;
        let place = |copy| Some(Place { disk: DiskIndex(copy), offset: Units(0) });
        inner.tables.insert(id, vec![bytes; COPIES.into()]);
        let record = ObjectRecord {
            id,
            kind: ObjectKind::Table,
            redundancy: Redundancy::Replica { copies: COPIES },
            codec: CODEC_VANDERMONDE,
            cell_bytes: 32 << 10,
            length,
            shard_bytes: length.next_multiple_of(UNIT_BYTES as u32),
            pieces_offset: length,
            version: 1,
            provisional: false,
            lsn,
            places: (0..COPIES).map(|copy| place(copy.into())).collect(),
        };
        assert_eq!(record.checksum_list(ShardIndex(1)), ShardIndex(0));
        Ok(record)
    }

    fn lacks(&self, table: &ObjectRecord) -> bool {
        table.id <= ObjectId::new(Epoch(1), self.inner.lock().lacking)
    }

    fn free_table(&self, table: &ObjectRecord) {
        self.remove(table);
    }
}

struct NoClock;

impl Clock for NoClock {
    fn now(&self) -> Ticks {
        Ticks(0)
    }
    fn wall(&self) -> WallTime {
        WallTime::default()
    }
}

/// Everything tiny, so that a few hundred changes fill several levels and hardly anything is cached.
fn tiny() -> IndexOptions {
    IndexOptions {
        cache_bytes: 4 << 10,
        memtable_bytes: 6 << 10,
        table_bytes: 2 << 10,
        block_bytes: 300,
        level_bytes: 8 << 10,
        level_0_runs: 2,
        piece_bytes: 1 << 10,
        seed: 7,
    }
}

/// Repeats a lookup until it needs nothing more. Returns the answer and how often it had to load.
fn retry<R>(
    index: &Index,
    mut lookup: impl FnMut(&Pins) -> Result<R, Need>,
) -> Result<(R, usize), FleetError> {
    let mut pins = Pins::new();
    loop {
        match lookup(&pins) {
            Ok(found) => return Ok((found, pins.len())),
            Err(Need(block)) => {
                let before = pins.len();
                index.load(&block, &mut pins)?;
                assert_eq!(pins.len(), before + 1, "every round gets further");
                assert!(pins.len() < 1000);
            }
        }
    }
}

fn get(index: &Index, key: &[u8]) -> Result<Option<Value>, FleetError> {
    Ok(retry(index, |pins| index.get(key, pins))?.0)
}

fn flush_all(index: &Arc<Index>) {
    let mut flusher = Flusher::new(index.clone(), Arc::new(NoClock));
    while flusher.run_step().unwrap() == Pace::Again {}
}

fn compact_all(index: &Arc<Index>) {
    let mut compactor = Compactor::new(index.clone(), Arc::new(NoClock));
    for _ in 0..100_000 {
        if compactor.run_step().unwrap() != Pace::Again {
            return;
        }
    }
    panic!("compaction never ends: {:?}", index.levels());
}

/// All entries, by scans of `limit`.
fn scan_all(
    index: &Index,
    snapshot: Option<&Snapshot>,
    limit: usize,
) -> Result<Vec<(Vec<u8>, Value)>, FleetError> {
    let (mut all, mut start) = (Vec::new(), vec![]);
    loop {
        let (scan, _) =
            retry(index, |pins| index.scan(&start, &[0xff; 300], limit, snapshot, pins))?;
        assert!(scan.entries.len() <= limit);
        assert!(scan.entries.iter().all(|(key, _)| *key >= start));
        all.extend(scan.entries);
        match scan.next {
            Some(next) => start = next,
            None => return Ok(all),
        }
    }
}
