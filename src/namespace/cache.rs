//! The read cache: verified data shards of objects, in memory, bounded by bytes.
//!
//! Objects are immutable and their ids never recur [R5], so an entry is right for ever; it is dropped
//! when its object is freed, only to give memory back. The kernel caches what programs read; this
//! cache holds what was read *ahead* (whole objects of streams) and beside (shards packed with small
//! files), until the kernel asks for it.

use lru::LruCache;

use crate::base::ObjectId;
use crate::base::sync::{Arc, Mutex};

/// Which data shard of which object.
type CacheKey = (ObjectId, u8);

struct State {
    entries: LruCache<CacheKey, Arc<Vec<u8>>>,
    bytes: u64,
}

/// See the module's text.
pub(super) struct ReadCache {
    state: Mutex<State>,
    bytes_max: u64,
}

impl ReadCache {
    pub(super) fn new(bytes_max: u64) -> ReadCache {
        let state = State { entries: LruCache::unbounded(), bytes: 0 };
        ReadCache { state: Mutex::new(state), bytes_max }
    }

    /// The shard's bytes, if they are here.
    pub(super) fn get(&self, object: ObjectId, shard: u8) -> Option<Arc<Vec<u8>>> {
        self.state.lock().entries.get(&(object, shard)).cloned()
    }

    /// Keeps the shard's bytes, which were verified [I4], while there is room; the longest unused go.
    pub(super) fn put(&self, object: ObjectId, shard: u8, bytes: Arc<Vec<u8>>) {
        let mut state = self.state.lock();
        state.bytes += bytes.len() as u64;
        if let Some(old) = state.entries.put((object, shard), bytes) {
            state.bytes -= old.len() as u64;
        }
        while state.bytes > self.bytes_max {
            let Some((_, old)) = state.entries.pop_lru() else { break };
            state.bytes -= old.len() as u64;
        }
    }

    /// The object was freed.
    pub(super) fn forget(&self, object: ObjectId) {
        let mut state = self.state.lock();
        for shard in 0..crate::base::limits::SHARDS_MAX as u8 {
            if let Some(old) = state.entries.pop(&(object, shard)) {
                state.bytes -= old.len() as u64;
            }
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// Largest part of an object that is worth keeping.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_go_first_and_bytes_are_bounded() {
        let cache = ReadCache::new(300);
        for object in 0..3 {
            cache.put(ObjectId(object), 0, Arc::new(vec![0; 100]));
        }
        assert!(cache.get(ObjectId(0), 0).is_some());
        cache.put(ObjectId(3), 0, Arc::new(vec![0; 100]));
        assert!(cache.get(ObjectId(0), 0).is_some());
        assert!(cache.get(ObjectId(1), 0).is_none());
        assert_eq!(cache.bytes(), 300);
        cache.forget(ObjectId(0));
        assert_eq!(cache.bytes(), 200);
    }
}
