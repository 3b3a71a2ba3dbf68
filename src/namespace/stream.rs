//! Streams: files that are read in order get whole objects, ahead of their readers.
//!
//! A whole object is read from the k cheapest of its k+m shards, all in flight together; that is how
//! many disks work for one reader, and how a slow disk is gone around. Its shards wait in the read cache
//! until the kernel asks for them.
//!
//! * **Once.** The kernel's own read-ahead asks for eight parts of one object at a time, and each would
//!   fetch all of it. So whoever comes first leads, and the others wait for what it brings.
//! * **Ahead.** Objects further on are queued for the prefetchers, so that the disks work while the
//!   reader copies. What has been queued is remembered per inode, so a reader looks extents up once
//!   an object, not once a request.
//! * A prefetch is a guess: it waits for nobody, an error of it is nobody's, and when memory is short
//!   it is not made. The reader then reads what it needs by itself.

use std::collections::{HashMap, VecDeque};

use super::cache::Shard;
use super::core::Core;
use super::read::Located;
use super::tx::{Attempt, Tx};
use crate::base::sync::{Arc, Mutex};
use crate::base::{Event, Ino, KIB, MIB, ObjectId, Pace, Task};

/// A read belongs to a stream once this many bytes were read in order.
const STREAM_BYTES: u64 = 256 * KIB;
/// How far from where the last read ended the next may begin: the kernel has a whole read-ahead window
/// of requests under way, and our threads take them in any order.
const NEAR_BYTES: u64 = 8 * MIB;
/// How far ahead of a stream objects are fetched.
const AHEAD_BYTES: u64 = 24 * MIB;
/// Objects that wait for a prefetcher; more streams than that read for themselves.
const QUEUE_MAX: usize = 16;
/// An object is fetched whole for an extent that is at least this share of it.
const SHARE: u64 = 4;
/// Extents looked at for one look ahead.
const EXTENTS_AHEAD: usize = 16;

/// Where the reader of a file is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct ReadingHead {
    /// Where the furthest read of the run ended.
    next: u64,
    /// Bytes read in order so far.
    run: u64,
    /// Objects up to here were queued.
    ahead_to: u64,
}

impl ReadingHead {
    /// After a read of `offset..end`.
    fn moved(self, offset: u64, end: u64) -> ReadingHead {
        let near = offset <= self.next.saturating_add(NEAR_BYTES)
            && self.next <= offset.saturating_add(NEAR_BYTES);
        if near && (self.run > 0 || offset == 0) {
            let run = self.run.saturating_add(end - offset);
            return ReadingHead { run, next: self.next.max(end), ..self };
        }
        // A stream may begin anywhere: the next read in order counts.
        ReadingHead { next: end, run: u64::from(offset > 0), ahead_to: 0 }
    }

    fn is_stream(&self) -> bool {
        self.run >= STREAM_BYTES
    }
}

/// An object that somebody is fetching.
#[derive(Default)]
struct Fetch {
    /// Some once it is over; then the shards, if it went well.
    outcome: Mutex<Option<Option<Vec<Shard>>>>,
    over: Event,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Arc<Located>>,
    fetches: HashMap<ObjectId, Arc<Fetch>>,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Streams {
    state: Mutex<State>,
    /// Work for the prefetchers.
    event: Arc<Event>,
}

impl Streams {
    /// Queues objects for the prefetchers.
    fn push(&self, objects: Vec<Arc<Located>>) {
        if objects.is_empty() {
            return;
        }
        {
            let mut state = self.state.lock();
            let room = QUEUE_MAX.saturating_sub(state.queue.len());
            state.queue.extend(objects.into_iter().take(room));
        }
        self.event.notify();
    }

    /// The fetch of this object; true if the caller is to carry it out.
    fn join(&self, object: ObjectId) -> (Arc<Fetch>, bool) {
        let mut state = self.state.lock();
        let mut leads = false;
        let fetch = state.fetches.entry(object).or_insert_with(|| {
            leads = true;
            Arc::default()
        });
        (fetch.clone(), leads)
    }

    fn end(&self, object: ObjectId, fetch: &Fetch, outcome: Option<Vec<Shard>>) {
        *fetch.outcome.lock() = Some(outcome);
        self.state.lock().fetches.remove(&object);
        fetch.over.notify();
    }
}

impl Core {
    /// Whether it pays to fetch all of an object for an extent of `extent_bytes` in it.
    pub(super) fn is_worth_whole(&self, object: &Located, extent_bytes: u64) -> bool {
        let length = u64::from(object.record.length);
        length <= self.cache.bytes_max() / 4 && extent_bytes * SHARE >= length
    }

    /// All data shards of the object, through the cache. None if they could not be had: the caller
    /// reads what it needs.
    pub(super) fn whole_object(&self, object: &Located) -> Option<Vec<Shard>> {
        let (fetch, leads) = self.streams.join(object.record.id);
        if leads {
            return self.lead(object, &fetch);
        }
        let mut outcome = None;
        self.wait.until(&fetch.over, None, &mut || {
            outcome = fetch.outcome.lock().clone();
            outcome.is_some()
        });
        outcome.flatten()
    }

    /// Carries a fetch out, for all who wait for it.
    fn lead(&self, object: &Located, fetch: &Fetch) -> Option<Vec<Shard>> {
        let record = &object.record;
        // It may have come since the caller looked.
        let kept = self.cache.get_all(record.id, record.redundancy.data_shards());
        let shards = kept.or_else(|| {
            let shards: Vec<Shard> = self.fetch_shards(object)?.into_iter().map(Arc::new).collect();
            for (shard, bytes) in shards.iter().enumerate() {
                self.cache.put(record.id, shard as u8, bytes.clone());
            }
            Some(shards)
        });
        self.streams.end(record.id, fetch, shards.clone());
        shards
    }

    /// Queues what lies ahead of a stream.
    pub(super) fn prefetch(&self, ahead: Vec<Arc<Located>>) {
        self.streams.push(ahead);
    }
}

impl Tx<'_> {
    /// A read of `offset..end` was planned: true if it belongs to a stream, and the objects that
    /// should be fetched ahead of it. The last step of planning.
    pub(super) fn note_read(
        &mut self,
        ino: Ino,
        offset: u64,
        end: u64,
        file_bytes: u64,
    ) -> Attempt<(bool, Vec<Arc<Located>>)> {
        let Some(inode) = self.state.inodes.get(&ino) else { return Ok((false, Vec::new())) };
        let mut head = inode.reading.moved(offset, end);
        // What is written at the same time is in memory, or moves: nothing to guess.
        let quiet = inode.overlay.is_empty();
        let mut ahead = Vec::new();
        if head.is_stream() && quiet {
            (ahead, head.ahead_to) = self.plan_ahead(ino, head, file_bytes)?;
        }
        if let Some(inode) = self.state.inodes.get_mut(&ino) {
            inode.reading = head;
        }
        Ok((head.is_stream(), ahead))
    }

    /// Objects that begin to matter now, and up to where that is.
    fn plan_ahead(
        &self,
        ino: Ino,
        head: ReadingHead,
        file_bytes: u64,
    ) -> Attempt<(Vec<Arc<Located>>, u64)> {
        let reach = AHEAD_BYTES.min(self.core.cache.bytes_max() / 4);
        let from = head.ahead_to.max(head.next);
        let to = head.next.saturating_add(reach).min(file_bytes);
        let mut objects = Vec::new();
        if from >= to {
            return Ok((objects, head.ahead_to));
        }
        let (extents, rest) = self.extents(ino, from..to, EXTENTS_AHEAD)?;
        let mut ahead_to = to;
        for (offset, extent) in extents {
            let end = offset.saturating_add(extent.length);
            // The rest of an extent is in the object that is fetched for its beginning.
            ahead_to = if rest.is_some() { end } else { ahead_to.max(end) };
            if !extent.unwritten {
                let object = self.locate(extent.object, &[])?;
                if self.core.is_worth_whole(&object, extent.length) {
                    objects.push(object);
                }
            }
        }
        Ok((objects, ahead_to))
    }
}

/// The background task; there are several.
pub(super) struct Prefetcher {
    core: Arc<Core>,
}

impl Prefetcher {
    pub(super) fn new(core: Arc<Core>) -> Prefetcher {
        Prefetcher { core }
    }
}

impl Task for Prefetcher {
    fn name(&self) -> &'static str {
        "prefetcher"
    }

    fn event(&self) -> Arc<Event> {
        self.core.streams.event.clone()
    }

    fn step(&mut self) -> Pace {
        let next = self.core.streams.state.lock().queue.pop_front();
        let Some(object) = next else { return Pace::Idle(None) };
        let (fetch, leads) = self.core.streams.join(object.record.id);
        if leads {
            self.core.lead(&object, &fetch);
        }
        Pace::Again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(reads: &[(u64, u64)]) -> ReadingHead {
        reads.iter().fold(ReadingHead::default(), |head, &(offset, end)| head.moved(offset, end))
    }

    #[test]
    fn reads_in_order_are_a_stream_and_others_are_not() {
        assert!(head(&[(0, STREAM_BYTES)]).is_stream());
        assert!(!head(&[(0, 4096), (4096, 8192)]).is_stream());
        assert!(!head(&[(0, 4096), (100 * MIB, 100 * MIB + STREAM_BYTES)]).is_stream());
        let middle = 100 * MIB;
        let window: Vec<(u64, u64)> =
            [3, 0, 1, 2].iter().map(|at| (middle + at * MIB, middle + (at + 1) * MIB)).collect();
        let head = head(&window);
        assert!(head.is_stream(), "a window of requests in any order");
        assert_eq!(head.next, middle + 4 * MIB);
        let away = ReadingHead { ahead_to: middle + 30 * MIB, ..head }.moved(0, MIB);
        assert!(!away.is_stream());
        assert_eq!(away.ahead_to, 0, "what was queued there says nothing about here");
    }

    #[test]
    fn who_comes_first_leads_and_the_others_get_what_it_brings() {
        let streams = Streams::default();
        let (first, leads) = streams.join(ObjectId(1));
        let (second, follows) = streams.join(ObjectId(1));
        assert!(leads && !follows);
        assert!(streams.join(ObjectId(2)).1, "another object is another fetch");
        streams.end(ObjectId(1), &first, Some(Vec::new()));
        assert!(matches!(&*second.outcome.lock(), Some(Some(_))));
        assert!(streams.join(ObjectId(1)).1, "what is over is not joined");
    }
}
