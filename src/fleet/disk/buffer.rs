#![allow(unsafe_code)]
//! Memory for disk I/O: aligned, counted, handed around without copying.
//!
//! * A [`Buffer`] is one run of memory aligned to 4 KiB, as O_DIRECT wants it. Its bytes are always
//!   initialised (zeros, or whatever an earlier user of the pool left there).
//! * A [`BufferPool`] bounds how much of it exists at once [R27]: `take` waits for room through the
//!   `Wait` it was given. Dropped buffers are kept for the next taker, because fresh pages cost more
//!   than the disk access they are for; what is kept counts, and goes first when room is short. With
//!   what is out it never exceeds the most that was out at once lately: kinds that nobody asks for
//!   any more do not pile up.
//! * A buffer can be cut into parts that lie side by side: the shards of an object are read to such parts
//!   at once, and what is in several of them is one run of bytes ([`side_by_side`]).
//! * A [`Slice`] is a shared, read-only range of a buffer: one shard can be written to several disks.
//!
//! The disk owns a buffer from submit to completion, so no one can free memory that the kernel
//! still writes to.
//!
//! No order among those who wait for room: in simulation they wait inside each other, and a queue
//! of them would deadlock.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

use crate::base::sync::{Arc, Mutex};
use crate::base::units::round_up;
use crate::base::{Event, KIB, MIB, UNIT_BYTES, Wait};

/// Takes after which the most that was out at once is forgotten, unless it comes again.
const LATELY: u32 = 4096;

/// Alignment of every buffer, in memory as on disk.
const ALIGN: usize = UNIT_BYTES as usize;

/// Memory from this size on is aligned here: the allocator would fill memory with zeros that it aligns itself,
/// though fresh pages are zeros.
const ALIGNED_HERE_BYTES: usize = 128 * KIB as usize;
/// Memory from this size on is mapped by itself, so that it can consist of huge pages: for each access the
/// kernel looks every page up, and holds it, in the disk's thread and once more in the one that answers.
const HUGE_PAGE_BYTES: usize = 2 * MIB as usize;

/// Memory of a buffer: zeros at first, freed on drop.
struct Memory {
    /// Where its bytes begin, aligned, within what was allocated.
    start: NonNull<u8>,
    capacity: usize,
    allocated: NonNull<u8>,
}

// SAFETY: `Memory` is the only owner of its allocation, like a `Box<[u8]>`.
unsafe impl Send for Memory {}
// SAFETY: shared access only reads, as for a `Box<[u8]>`.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(capacity: usize) -> Memory {
        assert!(capacity > 0, "a buffer holds at least one unit");
        let layout = Memory::layout(capacity);
        let (allocated, align) = if capacity < HUGE_PAGE_BYTES {
            // SAFETY: alloc_zeroed requires a layout of non-zero size: just checked.
            (unsafe { alloc_zeroed(layout) }, ALIGN)
        } else {
            (map(layout.size()), HUGE_PAGE_BYTES)
        };
        let Some(allocated) = NonNull::new(allocated) else { handle_alloc_error(layout) };
        let skip = allocated.align_offset(align);
        assert!(skip + capacity <= layout.size(), "there is more than is used, or no gap");
        // SAFETY: add requires the result to be inside the allocation: just checked.
        let start = unsafe { allocated.add(skip) };
        if capacity >= HUGE_PAGE_BYTES {
            // SAFETY: madvise requires a mapped range: it is inside what was just mapped. The advice
            // changes no byte; where it is not taken, the pages are small.
            unsafe { libc::madvise(start.as_ptr().cast(), capacity, libc::MADV_HUGEPAGE) };
        }
        Memory { start, capacity, allocated }
    }

    /// What is asked for, so that an aligned part of it is `capacity` long.
    fn layout(capacity: usize) -> Layout {
        let (bytes, align) = match capacity {
            HUGE_PAGE_BYTES.. => (capacity + HUGE_PAGE_BYTES, ALIGN),
            ALIGNED_HERE_BYTES.. => (capacity + ALIGN, align_of::<u128>()),
            _ => (capacity, ALIGN),
        };
        Layout::from_size_align(bytes, align).expect("both are powers of two, sizes are small")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let layout = Memory::layout(self.capacity);
        if self.capacity >= HUGE_PAGE_BYTES {
            // SAFETY: munmap requires a range that nobody uses any more: exactly what `map` gave, once.
            let result = unsafe { libc::munmap(self.allocated.as_ptr().cast(), layout.size()) };
            debug_assert_eq!(result, 0, "it was mapped");
            return;
        }
        // SAFETY: dealloc requires the pointer from this allocator and the layout it was made with:
        // `allocated` comes from `alloc_zeroed` with exactly this layout, and is dropped once.
        unsafe { dealloc(self.allocated.as_ptr(), layout) }
    }
}

/// Fresh memory of the kernel's, zeros, whole pages; null if there is none.
fn map(bytes: usize) -> *mut u8 {
    let (access, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: mmap without an address touches no memory that exists; the result is checked.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
    if start == libc::MAP_FAILED { std::ptr::null_mut() } else { start.cast() }
}

/// Memory, and where it goes when it is not needed any more.
struct Owned {
    /// None only inside `drop`.
    memory: Option<Memory>,
    pool: Option<Arc<Shared>>,
}

impl Owned {
    fn memory(&self) -> &Memory {
        self.memory.as_ref().expect("memory leaves its owner only in drop")
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let memory = self.memory.take().expect("memory leaves its owner only in drop");
        if let Some(pool) = self.pool.take() {
            pool.give_back(memory);
        }
    }
}

/// Bytes for one disk access, aligned to 4 KiB in memory.
pub struct Buffer {
    /// Shared with the other parts, if it is one.
    owned: Arc<Owned>,
    /// Where its own bytes begin: those from there to `capacity` belong to nobody else.
    from: usize,
    bytes: usize,
}

impl Buffer {
    /// A buffer of its own, zeroed, that no pool counts: for tools and tests. `bytes` > 0.
    pub fn zeroed(bytes: usize) -> Buffer {
        Buffer::new(Memory::new(class_bytes(bytes)), bytes, None)
    }

    fn new(memory: Memory, bytes: usize, pool: Option<Arc<Shared>>) -> Buffer {
        Buffer { owned: Arc::new(Owned { memory: Some(memory), pool }), from: 0, bytes }
    }

    /// Makes it end earlier. `bytes` must not exceed its length; the rest stays reserved.
    pub fn truncate(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes, "a buffer cannot grow");
        self.bytes = bytes;
    }

    /// Parts of `bytes` each, which lie side by side; what is left over stays reserved. The memory is
    /// given back when all of them are dropped. `bytes` is a multiple of 4 KiB.
    pub fn split(self, bytes: usize) -> Vec<Buffer> {
        assert!(bytes > 0 && bytes.is_multiple_of(ALIGN), "parts are aligned like buffers");
        let parts = 0..self.bytes / bytes;
        let part = |at| Buffer { owned: self.owned.clone(), from: self.from + at * bytes, bytes };
        parts.map(part).collect()
    }

    fn start(&self) -> *mut u8 {
        let memory = self.owned.memory();
        assert!(self.from + self.bytes <= memory.capacity, "a part lies inside its memory");
        // SAFETY: add requires the result to be inside the allocation, or at its end: just checked.
        unsafe { memory.start.as_ptr().add(self.from) }
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: from_raw_parts requires initialised, readable memory that is not written to
        // meanwhile: it was allocated zeroed, `start` has seen that it is long enough, no other buffer
        // has these bytes, and &self excludes writers.
        unsafe { std::slice::from_raw_parts(self.start(), self.bytes) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; &mut self makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.bytes) }
    }
}

/// Both as one run of bytes, if `second` begins in memory where `first` ends, of one allocation.
pub fn side_by_side<'a>(first: &'a Buffer, second: &'a Buffer) -> Option<&'a [u8]> {
    let adjoin =
        Arc::ptr_eq(&first.owned, &second.owned) && first.from + first.bytes == second.from;
    // SAFETY: as in `deref`, for both: they are parts of one allocation, the pointer comes from the whole
    // of it, and both are borrowed for as long as the result is.
    adjoin.then(|| unsafe { std::slice::from_raw_parts(first.start(), first.bytes + second.bytes) })
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.bytes)
    }
}

/// A shared, read-only range of a buffer.
#[derive(Clone)]
pub struct Slice {
    buffer: Arc<Buffer>,
    range: Range<usize>,
}

impl Slice {
    /// A copy of `bytes` in memory of its own, zero-padded to whole 4 KiB units; at least one unit.
    pub fn copy_of(bytes: &[u8]) -> Slice {
        let padded = round_up((bytes.len() as u64).max(1), UNIT_BYTES) as usize;
        let mut buffer = Buffer::zeroed(padded);
        buffer[..bytes.len()].copy_from_slice(bytes);
        Slice::from(buffer)
    }

    /// A part of it, counted from its own start. Panics if `range` goes beyond its end. To be
    /// written to a disk, a slice must start and end at multiples of 4 KiB of its buffer.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.len(), "a slice lies inside its own");
        let start = self.range.start;
        Slice { buffer: self.buffer.clone(), range: start + range.start..start + range.end }
    }
}

impl From<Buffer> for Slice {
    fn from(buffer: Buffer) -> Slice {
        let range = 0..buffer.len();
        Slice { buffer: Arc::new(buffer), range }
    }
}

impl Deref for Slice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({:?} of {:?})", self.range, self.buffer)
    }
}

#[derive(Default)]
struct PoolState {
    /// Capacity of the buffers that are out.
    taken: u64,
    /// Capacity of the memory kept for the next taker.
    kept: u64,
    /// Kept memory by capacity.
    free: BTreeMap<usize, Vec<Memory>>,
    /// The most that was out at once, in this window of takes and in the one before.
    most: u64,
    most_before: u64,
    /// Takes of this window.
    takes: u32,
    /// Takes since it was last asked to give memory back.
    takes_since: u64,
}

struct Shared {
    bytes_max: u64,
    wait: Arc<dyn Wait>,
    room: Event,
    state: Mutex<PoolState>,
}

impl Shared {
    fn give_back(&self, memory: Memory) {
        let evicted = {
            let mut state = self.state.lock();
            let capacity = memory.capacity;
            state.taken = state
                .taken
                .checked_sub(capacity as u64)
                .expect("what comes back was counted when it was taken");
            state.kept += capacity as u64;
            state.free.entry(capacity).or_default().push(memory);
            state.trim()
        };
        drop(evicted);
        self.room.notify();
    }
}

/// All memory for disk I/O, bounded. Cloning shares it.
#[derive(Clone)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

impl BufferPool {
    /// A pool of at most `bytes_max` bytes, whose takers wait through `wait`.
    pub fn new(bytes_max: u64, wait: Arc<dyn Wait>) -> BufferPool {
        assert!(bytes_max >= UNIT_BYTES, "a pool holds at least one unit");
        let shared = Shared { bytes_max, wait, room: Event::new(), state: Mutex::default() };
        BufferPool { shared: Arc::new(shared) }
    }

    /// A buffer of `bytes` (> 0, at most the pool's bound); waits for room. Its content is
    /// unspecified. Hold no lock [R23], and take all you need for one step before starting it: who
    /// waits for memory while holding some can deadlock with others that do the same.
    pub fn take(&self, bytes: usize) -> Buffer {
        assert!(class_bytes(bytes) as u64 <= self.shared.bytes_max, "more than the pool ever has");
        self.take_all(&[bytes]).pop().expect("one was asked for")
    }

    /// As `take`, several at once: each is given back by itself. What is more than the pool has in all
    /// comes from outside it.
    pub fn take_all(&self, bytes: &[usize]) -> Vec<Buffer> {
        let total: u64 = bytes.iter().map(|&one| class_bytes(one) as u64).sum();
        if total > self.shared.bytes_max {
            return bytes.iter().map(|&one| Buffer::zeroed(one)).collect();
        }
        let mut taken = None;
        self.shared.wait.until(&self.shared.room, None, &mut || {
            taken = self.try_take_all(bytes);
            taken.is_some()
        });
        taken.expect("the wait has no deadline, so it ends with the buffers")
    }

    /// As `take`, filled with zeros.
    pub fn take_zeroed(&self, bytes: usize) -> Buffer {
        let mut buffer = self.take(bytes);
        buffer.fill(0);
        buffer
    }

    /// A buffer of `bytes` if there is room now. Its content is unspecified.
    pub fn try_take(&self, bytes: usize) -> Option<Buffer> {
        self.try_take_all(&[bytes])?.pop()
    }

    fn try_take_all(&self, bytes: &[usize]) -> Option<Vec<Buffer>> {
        let total: u64 = bytes.iter().map(|&one| class_bytes(one) as u64).sum();
        let mut found: Vec<Option<Memory>> = Vec::with_capacity(bytes.len());
        let evicted = {
            let mut state = self.shared.state.lock();
            if state.taken + total > self.shared.bytes_max {
                return None;
            }
            for &one in bytes {
                found.push(state.pop(class_bytes(one)));
            }
            state.taken += total;
            state.note_take();
            state.trim()
        };
        drop(evicted);
        let buffers = found.into_iter().zip(bytes).map(|(memory, &one)| {
            let memory = memory.unwrap_or_else(|| Memory::new(class_bytes(one)));
            Buffer::new(memory, one, Some(self.shared.clone()))
        });
        Some(buffers.collect())
    }

    /// Frees the memory that is kept, if nobody took any since the last call.
    pub fn free_if_unused(&self) {
        let evicted = {
            let mut state = self.shared.state.lock();
            let unused = std::mem::take(&mut state.takes_since) == 0;
            if unused { state.free_kept() } else { Vec::new() }
        };
        drop(evicted);
    }

    /// Bytes that are out now.
    pub fn taken_bytes(&self) -> u64 {
        self.shared.state.lock().taken
    }

    /// Bytes that are out now, or kept for the next taker.
    pub fn held_bytes(&self) -> u64 {
        let state = self.shared.state.lock();
        state.taken + state.kept
    }

    /// Bytes that are kept for the next taker.
    pub fn kept_bytes(&self) -> u64 {
        self.shared.state.lock().kept
    }

    /// The bound it was made with.
    pub fn bytes_max(&self) -> u64 {
        self.shared.bytes_max
    }
}

impl PoolState {
    fn note_take(&mut self) {
        self.takes_since += 1;
        self.takes += 1;
        if self.takes == LATELY {
            (self.most_before, self.most, self.takes) = (self.most, 0, 0);
        }
        self.most = self.most.max(self.taken);
    }

    /// Memory that is to be freed. Never more is out than was at most, and that is within the bound.
    fn trim(&mut self) -> Vec<Memory> {
        let most = self.most.max(self.most_before);
        let mut evicted = Vec::new();
        while self.taken + self.kept > most {
            evicted.push(self.evict());
        }
        evicted
    }

    /// All that is kept.
    fn free_kept(&mut self) -> Vec<Memory> {
        self.kept = 0;
        (self.most, self.most_before) = (self.taken, 0);
        std::mem::take(&mut self.free).into_values().flatten().collect()
    }

    fn pop(&mut self, capacity: usize) -> Option<Memory> {
        let list = self.free.get_mut(&capacity)?;
        let memory = list.pop()?;
        if list.is_empty() {
            self.free.remove(&capacity);
        }
        self.kept -= capacity as u64;
        Some(memory)
    }

    /// Some kept memory, the largest kind first.
    fn evict(&mut self) -> Memory {
        let capacity = *self.free.keys().next_back().expect("called only while kept > 0");
        self.pop(capacity).expect("empty lists are removed")
    }
}

/// What a buffer of `bytes` really occupies: few sizes, so that kept memory is found again.
fn class_bytes(bytes: usize) -> usize {
    assert!(bytes > 0, "a buffer holds at least one byte");
    let bytes = bytes as u64;
    // The largest are data shards of objects side by side: nearly full ones are one kind.
    let step = match bytes {
        _ if bytes <= 64 * KIB => UNIT_BYTES,
        _ if bytes <= 4 * MIB => 64 * KIB,
        _ => HUGE_PAGE_BYTES as u64,
    };
    round_up(bytes, step) as usize
}

/// Memory of this size and more goes back to the machine as soon as it is freed. What writers hand over, 1 MiB
/// at a time, is below: it is taken again at once, and fresh pages cost more than that.
const LARGE_BYTES: i32 = 3 << 19;
/// So much of the rest is kept at the end of each of the C library's heaps. Its usual 128 KiB, which a border of
/// one's own brings back, would give pages away with every write and take them again with the next.
const KEPT_BYTES: i32 = 2 << 20;

/// From now on large memory is apart from the rest. Otherwise the C library begins, when it is first freed, to
/// keep it among small pieces, where it cannot be given back: a daemon that makes tables of the index was
/// twice as large.
pub fn keep_large_memory_apart() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes any number, and may be called at any time; it is called before threads start.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}

/// Pages that were freed go back to the machine, as far as the C library can do that.
pub fn give_back_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes any padding, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::simulation::World;
    use std::time::Duration;

    #[test]
    fn buffers_are_aligned_and_zeroed() {
        for bytes in [1, 4096, 5000, 65536, 70000, 1 << 20, 2 << 20, 5 << 20] {
            let buffer = Buffer::zeroed(bytes);
            assert_eq!(buffer.len(), bytes);
            assert_eq!(buffer.as_ptr() as usize % 4096, 0);
            assert!(buffer.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn what_nobody_takes_is_freed() {
        let pool = BufferPool::new(64 * KIB, World::new(1));
        let (first, second) = (pool.take(8192), pool.take(4096));
        drop(first);
        pool.free_if_unused();
        assert_eq!(pool.held_bytes(), 12288, "it was taken since the last call");
        pool.free_if_unused();
        assert_eq!(pool.held_bytes(), 4096, "what is out stays");
        drop(second);
        drop(pool.take(8192));
        pool.free_if_unused();
        assert!(pool.held_bytes() >= 8192, "it is in use again");
        pool.free_if_unused();
        assert_eq!(pool.held_bytes(), 0);
    }

    #[test]
    fn parts_lie_side_by_side_and_are_given_back_together() {
        let pool = BufferPool::new(64 * KIB, World::new(1));
        let mut parts = pool.take(5 * 4096).split(8192);
        assert_eq!(parts.len(), 2, "what is left over is nobody's");
        parts[0].fill(1);
        parts[1].fill(2);
        assert!(parts[0].iter().all(|&byte| byte == 1), "nobody else wrote here");
        assert!(parts.iter().all(|part| (part.as_ptr() as usize).is_multiple_of(4096)));
        let both = side_by_side(&parts[0], &parts[1]).expect("they are");
        assert_eq!((both.len(), both[8191], both[8192]), (16384, 1, 2));
        assert!(side_by_side(&parts[1], &parts[0]).is_none());
        assert!(side_by_side(&parts[0], &parts[0]).is_none());
        let other = pool.take(8192);
        assert!(side_by_side(&parts[1], &other).is_none(), "other memory");
        parts[0].truncate(4096);
        assert!(side_by_side(&parts[0], &parts[1]).is_none(), "there is a gap");
        drop(other);
        parts.pop();
        assert_eq!(pool.taken_bytes(), 5 * 4096);
        parts.pop();
        assert_eq!(pool.taken_bytes(), 0);
    }

    #[test]
    fn slices_share_one_buffer() {
        let mut buffer = Buffer::zeroed(8192);
        buffer[4096] = 7;
        let slice = Slice::from(buffer);
        let second = slice.slice(4096..8192);
        drop(slice);
        assert_eq!((second.len(), second[0]), (4096, 7));
        assert_eq!(second.slice(1..3).len(), 2);
        assert_eq!(Slice::copy_of(&[1, 2, 3]).len(), 4096);
    }

    #[test]
    fn r27_the_pool_never_gives_more_than_its_bound() {
        let world = World::new(1);
        let pool = BufferPool::new(128 * KIB, world.clone());
        let first = pool.try_take(64 * 1024).expect("there is room");
        let second = pool.try_take(60 * 1024).expect("there is room");
        assert!(pool.try_take(8192).is_none());
        assert!(pool.try_take(4096).is_some());
        drop(first);
        assert_eq!(pool.taken_bytes(), 60 * 1024);
        // 64 KiB are kept; a larger class must push them out.
        let third = pool.try_take(65 * 1024);
        assert!(third.is_none());
        drop(second);
        let third = pool.try_take(65 * 1024).expect("kept memory gives way");
        assert_eq!(pool.taken_bytes(), 128 * KIB);
        drop(third);
        assert_eq!(pool.taken_bytes(), 0);
    }

    #[test]
    fn r27_kinds_that_nobody_asks_for_any_more_do_not_pile_up() {
        let pool = BufferPool::new(1024 * KIB, World::new(1));
        let two = [pool.take(64 * 1024), pool.take(64 * 1024)];
        drop(two);
        assert_eq!(pool.held_bytes(), 128 * KIB, "kept for the next");
        for units in 1..16 {
            drop(pool.take(units * 4096));
            assert!(pool.held_bytes() <= 128 * KIB);
        }
        for _ in 0..2 * LATELY {
            drop(pool.take(8192));
        }
        drop(pool.take(8192));
        assert!(pool.held_bytes() <= 8192, "it is long ago that more was out at once");
    }

    #[test]
    fn a_taker_waits_until_room_comes_back() {
        let world = World::new(1);
        let pool = BufferPool::new(8192, world.clone());
        let held = pool.take(8192);
        world.schedule(Ticks::default() + Duration::from_millis(5), Box::new(move || drop(held)));
        let buffer = pool.take_zeroed(4096);
        assert_eq!(buffer.len(), 4096);
        assert!(world.now() >= Ticks::default() + Duration::from_millis(5));
    }

    use crate::base::{Clock, Ticks};
}
