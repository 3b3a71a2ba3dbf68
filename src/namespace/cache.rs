//! The read cache: verified data shards of objects, in memory, bounded by bytes.
//!
//! Objects are immutable and their ids never recur [R5], so an entry is right for ever; it is dropped
//! when its object is freed, only to give memory back. The kernel caches what programs read; this
//! cache holds what was read *ahead* (whole objects of streams) and beside (shards packed with small
//! files), until the kernel asks for it.

use std::cell::RefCell;

use lru::LruCache;

use crate::base::limits::SHARDS_MAX;
use crate::base::sync::{Arc, Mutex};
use crate::base::{ObjectId, UNIT_BYTES, Wait};
use crate::fleet::disk::{Buffer, BufferPool};

/// Which data shard of which object.
type CacheKey = (ObjectId, u8);

/// Verified bytes of a shard from its start on.
pub(super) type Shard = Arc<Buffer>;

/// See the module's text.
pub(super) struct ReadCache {
    entries: Mutex<LruCache<CacheKey, Shard>>,
    /// Where all its memory comes from: shards kept, and shards being read or copied from.
    pool: BufferPool,
    bytes_max: u64,
}

impl ReadCache {
    pub(super) fn new(bytes_max: u64, wait: Arc<dyn Wait>) -> ReadCache {
        let pool = BufferPool::new(bytes_max.max(UNIT_BYTES), wait);
        ReadCache { entries: Mutex::new(LruCache::unbounded()), pool, bytes_max }
    }

    /// The shard's bytes, if they are here.
    pub(super) fn get(&self, object: ObjectId, shard: u8) -> Option<Shard> {
        self.entries.lock().get(&(object, shard)).cloned()
    }

    /// All shards of an object, if they are here.
    pub(super) fn get_all(&self, object: ObjectId, shards: usize) -> Option<Vec<Shard>> {
        let mut entries = self.entries.lock();
        (0..shards as u8).map(|shard| entries.get(&(object, shard)).cloned()).collect()
    }

    /// Memory for the data shards of an object, `count` of `bytes` each, side by side; and more for those that
    /// are put together anew. The longest unused shards make room. None if most of the cache is being read to
    /// or copied from just now.
    pub(super) fn memory(&self, count: usize, bytes: usize) -> Option<Memory<'_>> {
        let ready = self.take(count * bytes)?.split(bytes).into_iter().map(Some).collect();
        Some(Memory { cache: self, ready: RefCell::new(ready) })
    }

    fn take(&self, bytes: usize) -> Option<Buffer> {
        loop {
            if let Some(buffer) = self.pool.try_take(bytes) {
                return Some(buffer);
            }
            // The shards of an object lie in one piece, which goes with the last of them. Freed only after the
            // lock is released, and only if nobody copies from it.
            let _oldest = {
                let mut entries = self.entries.lock();
                let ((object, _), oldest) = entries.pop_lru()?;
                (oldest, pop_object(&mut entries, object))
            };
        }
    }

    /// Keeps the shard's bytes, which were verified [I4], until others need their memory.
    pub(super) fn put(&self, object: ObjectId, shard: u8, bytes: Shard) {
        let _old = self.entries.lock().put((object, shard), bytes);
    }

    /// The object was freed.
    pub(super) fn forget(&self, object: ObjectId) {
        let _shards = pop_object(&mut self.entries.lock(), object);
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        self.pool.taken_bytes()
    }

    /// The bound it was made with.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

/// Takes out what is kept of an object.
fn pop_object(entries: &mut LruCache<CacheKey, Shard>, object: ObjectId) -> Vec<Shard> {
    if entries.is_empty() {
        return Vec::new();
    }
    (0..SHARDS_MAX as u8).filter_map(|shard| entries.pop(&(object, shard))).collect()
}

/// Memory of the cache, for one object that is about to be read.
pub(super) struct Memory<'a> {
    cache: &'a ReadCache,
    /// By data shard, until it is taken.
    ready: RefCell<Vec<Option<Buffer>>>,
}

impl Memory<'_> {
    /// For one data shard or a part of it. None for anything else: parity is not kept, and what is as large as
    /// a shard would take the place of memory that is as large as an object, which is then made afresh.
    pub(super) fn take(&self, shard: Option<usize>, bytes: usize) -> Option<Buffer> {
        let mut ready = self.ready.borrow_mut();
        let ready = ready.get_mut(shard?);
        match ready.and_then(|ready| ready.take_if(|buffer| buffer.len() >= bytes)) {
            Some(mut buffer) => {
                buffer.truncate(bytes);
                Some(buffer)
            }
            None => self.cache.take(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::simulation::World;

    const SHARD: usize = 65536;

    fn keep(cache: &ReadCache, object: u64, fill: u8) {
        let memory = cache.memory(1, SHARD).expect("nobody holds anything");
        let mut buffer = memory.take(Some(0), SHARD).expect("it was taken already");
        buffer.fill(fill);
        cache.put(ObjectId(object), 0, Arc::new(buffer));
    }

    fn has(cache: &ReadCache, object: u64) -> bool {
        cache.get(ObjectId(object), 0).is_some()
    }

    #[test]
    fn r27_the_longest_unused_go_first_and_bytes_are_bounded() {
        let cache = ReadCache::new(3 * SHARD as u64, World::new(1));
        for object in 0..3 {
            keep(&cache, object, object as u8);
        }
        assert!(has(&cache, 0));
        keep(&cache, 3, 3);
        assert!(has(&cache, 0) && !has(&cache, 1));
        assert_eq!(cache.bytes(), 3 * SHARD as u64);
        cache.forget(ObjectId(0));
        assert_eq!(cache.bytes(), 2 * SHARD as u64);
        keep(&cache, 4, 4);
        assert!(has(&cache, 2) && has(&cache, 3));
        keep(&cache, 5, 5);
        assert!(has(&cache, 2) && has(&cache, 3) && !has(&cache, 4));
        assert_eq!(cache.get(ObjectId(5), 0).map(|shard| shard[SHARD - 1]), Some(5));
    }

    #[test]
    fn r27_what_is_in_use_is_counted_too() {
        let cache = ReadCache::new(3 * SHARD as u64, World::new(1));
        keep(&cache, 0, 0);
        let copied_from = cache.get(ObjectId(0), 0).expect("it was put there");
        let memory = cache.memory(2, SHARD).expect("two are free");
        assert!(cache.memory(1, SHARD).is_none(), "nothing can make room");
        assert!(!has(&cache, 0), "though it tried");
        assert!(memory.take(None, 4096).is_none(), "what is kept for shards is theirs");
        let taken = [memory.take(Some(1), SHARD / 2), memory.take(Some(0), SHARD)];
        assert!(taken.iter().all(Option::is_some));
        assert!(memory.take(Some(1), 4096).is_none(), "it has its own already");
        drop((copied_from, taken, memory));
        assert!(cache.memory(3, SHARD).is_some());
    }

    #[test]
    fn r27_an_object_goes_as_a_whole() {
        let cache = ReadCache::new(8 * 4096, World::new(1));
        for object in 0..4 {
            let memory = cache.memory(2, 4096).expect("there is room");
            for shard in 0..2 {
                let buffer = memory.take(Some(shard), 4096).expect("it was taken already");
                cache.put(ObjectId(object), shard as u8, Arc::new(buffer));
            }
        }
        // What is used of each would keep all of it.
        for object in 0..4 {
            assert!(has(&cache, object));
        }
        assert!(cache.memory(2, 4096).is_some());
        let left = (0..4).filter(|&object| cache.get_all(ObjectId(object), 2).is_some());
        assert_eq!(left.count(), 3, "one made room");
    }

    #[test]
    fn an_object_is_here_only_if_all_of_it_is() {
        let cache = ReadCache::new(3 * SHARD as u64, World::new(1));
        keep(&cache, 7, 1);
        assert!(cache.get_all(ObjectId(7), 1).is_some());
        assert!(cache.get_all(ObjectId(7), 2).is_none());
    }
}
