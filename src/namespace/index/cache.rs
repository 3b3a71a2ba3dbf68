//! Table parts in memory: the block cache, what an operation holds on to, and what it still needs.
//!
//! Filters, index blocks and data blocks share one budget; the eviction (S3-FIFO of `quick_cache`)
//! keeps what is asked for often, and that is filters and index blocks. Each shard is the crate's
//! unsynchronised cache behind our own lock, with a hash of ours: one seed gives one run.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};

use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::tree::Table;
use crate::base::sync::{Arc, Mutex};
use crate::base::{KIB, MIB};
use crate::format::table::{Block, Extent, Filter, PartKind};

/// Shards of a large cache.
const SHARDS_MAX: u64 = 16;
/// A shard holds at least this, so that the largest part is a small share of it.
const SHARD_BYTES_MIN: u64 = 4 * MIB;
/// What an entry costs beside its part.
const ENTRY_BYTES: u64 = 96;

/// A verified part of a table.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Block(Arc<Block>),
    Filter(Arc<Filter>),
}

/// Which part: the table's tag, and where in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct PartKey {
    pub(super) tag: u64,
    pub(super) offset: u32,
}

/// A part of a table that must be loaded before a lookup can go on. Holds its table: the table is not
/// freed while one of these is alive.
#[derive(Clone, Debug)]
pub struct BlockRef {
    pub(super) table: Arc<Table>,
    pub(super) kind: PartKind,
    pub(super) extent: Extent,
}

impl BlockRef {
    pub(super) fn key(&self) -> PartKey {
        PartKey { tag: self.table.meta.tag, offset: self.extent.offset }
    }
}

/// A lookup could not go on: drop your locks, `load` this into your pins, and start again.
#[derive(Clone, Debug)]
pub struct Need(pub BlockRef);

/// Table parts loaded for one operation, so that its next try finds them. Clear or drop it when the
/// operation is over; it holds memory outside the cache's budget (at most what the operation loaded).
#[derive(Default, Debug)]
pub struct Pins {
    parts: BTreeMap<PartKey, Part>,
}

impl Pins {
    /// No pins.
    pub fn new() -> Pins {
        Pins::default()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.parts.clear();
    }

    /// Parts held.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Nothing held.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn insert(&mut self, key: PartKey, part: Part) {
        self.parts.insert(key, part);
    }
}

/// Hashes part keys, the same way in every run.
#[derive(Clone, Copy, Default)]
struct PartHash(u64);

impl Hasher for PartHash {
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9FB2_1C65_1E98_DF25);
        mixed ^ (mixed >> 29)
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }
    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(31) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl BuildHasher for PartHash {
    type Hasher = PartHash;
    fn build_hasher(&self) -> PartHash {
        PartHash::default()
    }
}

#[derive(Clone)]
struct PartWeight;

impl Weighter<PartKey, Part> for PartWeight {
    fn weight(&self, _key: &PartKey, part: &Part) -> u64 {
        let bytes = match part {
            Part::Block(block) => block.memory_bytes(),
            Part::Filter(filter) => filter.memory_bytes(),
        };
        bytes as u64 + ENTRY_BYTES
    }
}

type Shard = Cache<PartKey, Part, PartWeight, PartHash, DefaultLifecycle<PartKey, Part>>;

/// See the module's text.
pub(super) struct BlockCache {
    shards: Vec<Mutex<Shard>>,
}

impl BlockCache {
    /// A cache that holds at most `bytes`.
    pub(super) fn new(bytes: u64) -> BlockCache {
        let count = (bytes / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
        let shard_bytes = bytes / count;
        let shard = || {
            let options = OptionsBuilder::new()
                .estimated_items_capacity((shard_bytes / (24 * KIB)).max(16) as usize)
                .weight_capacity(shard_bytes)
                .shards(1)
                .build()
                .expect("both capacities are given");
            let lifecycle = DefaultLifecycle::default();
            Mutex::new(Cache::with_options(options, PartWeight, PartHash::default(), lifecycle))
        };
        BlockCache { shards: (0..count).map(|_| shard()).collect() }
    }

    fn shard(&self, key: PartKey) -> &Mutex<Shard> {
        let hash = PartHash::default().hash_one(key);
        // The low bits choose the place inside the shard.
        &self.shards[((hash >> 32) as usize) % self.shards.len()]
    }

    /// The part, from the pins or the cache; else what to load.
    pub(super) fn part(
        &self,
        table: &Arc<Table>,
        kind: PartKind,
        extent: Extent,
        pins: &Pins,
    ) -> Result<Part, Need> {
        let key = PartKey { tag: table.meta.tag, offset: extent.offset };
        if !pins.is_empty()
            && let Some(part) = pins.parts.get(&key)
        {
            return Ok(part.clone());
        }
        self.get(key).ok_or_else(|| Need(BlockRef { table: table.clone(), kind, extent }))
    }

    /// The part, if it is here.
    pub(super) fn get(&self, key: PartKey) -> Option<Part> {
        self.shard(key).lock().get(&key).cloned()
    }

    /// Keeps a part, as long as it is worth it.
    pub(super) fn insert(&self, key: PartKey, part: Part) {
        self.shard(key).lock().insert(key, part);
    }

    /// Bytes held now.
    pub(super) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().weight()).sum()
    }
}
