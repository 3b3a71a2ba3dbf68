//! One disk's ring: where entries go, how full it is, what may be written over. Pure arithmetic.
//!
//! A *position* counts the bytes ever given out in this ring, over all mounts; it never wraps. The
//! byte at position `p` lies at `start + p % bytes` on the disk, so every position of the last lap has
//! exactly one place, and an entry that states its own position is believed only there [R5].
//!
//! ```text
//!   head                 tail            head + bytes
//!    | live entries ...   | free ...          |
//! ```
//!
//! * Entries start and end at multiples of 4 KiB [R6]. An entry may run over the ring's end: it is
//!   then written in two pieces.
//! * [R7] A write that was not reaped keeps its place: room ends one lap after the oldest of them, even
//!   if the head has been trimmed past it.
//! * [R10] User batches stop at 75 % of the ring; the commits that make room use the rest.
//! * [R5] A scan ends where nothing valid comes for `SILENCE_BYTES`. So an entry goes only where that much
//!   cannot have been left unwritten before it: what is on its way, and what was refused, may be a hole.
//! * A write that was refused at the tail gives its place back, unless a root that begins there may be on
//!   its way. Whatever it left there counted for nothing, and the next entry is written over it.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::base::limits::JOURNAL_USER_PERCENT;
use crate::base::{DiskIndex, DiskUuid, Ticks, UNIT_BYTES};

use super::Level;
use super::scan::SILENCE_BYTES;

/// A part of an entry and where it lies on its disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RingPiece {
    /// Byte offset on the disk.
    pub offset: u64,
    /// Which bytes of the entry.
    pub range: Range<usize>,
}

/// Where a ring lies on its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RingPlace {
    /// First byte of the ring on the disk.
    pub start: u64,
    /// Bytes of the ring; a multiple of 4 KiB.
    pub bytes: u64,
}

impl RingPlace {
    /// Where `len` bytes from `position` on lie: one piece, or two around the ring's end.
    pub fn pieces(self, position: u64, len: usize) -> Vec<RingPiece> {
        assert!(len > 0 && len as u64 <= self.bytes, "an entry fits its ring");
        assert!(position.is_multiple_of(UNIT_BYTES) && (len as u64).is_multiple_of(UNIT_BYTES));
        let begin = position % self.bytes;
        let first = (self.bytes - begin).min(len as u64) as usize;
        let mut pieces = vec![RingPiece { offset: self.start + begin, range: 0..first }];
        if first < len {
            pieces.push(RingPiece { offset: self.start, range: first..len });
        }
        pieces
    }
}

/// State of one disk's ring.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    pub disk: DiskIndex,
    pub uuid: DiskUuid,
    pub place: RingPlace,
    /// Everything before is given up: a checkpoint covers it.
    head: u64,
    /// Where the next entry begins.
    tail: u64,
    /// Takes new entries. False for a late disk, until the next checkpoint [R5], and for a failed one.
    pub in_rotation: bool,
    /// Position to (bytes, when it becomes late) of writes that were not reaped [R7].
    unreaped: BTreeMap<u64, (u64, Ticks)>,
    /// Where the last entry ends that is known to be there, or where scans begin: what lies between
    /// here and the tail may be a hole after a crash.
    proven: u64,
    /// The tail as it was told to whoever writes a root: replay may begin there, so nothing goes before.
    marked: u64,
}

impl Ring {
    /// An empty ring whose next entry begins at `position`.
    pub fn new(disk: DiskIndex, uuid: DiskUuid, place: RingPlace, position: u64) -> Ring {
        assert!(position.is_multiple_of(UNIT_BYTES), "entries begin at whole units [R6]");
        Ring {
            disk,
            uuid,
            place,
            head: position,
            tail: position,
            in_rotation: true,
            unreaped: BTreeMap::new(),
            proven: position,
            marked: position,
        }
    }

    /// Where the next entry begins.
    #[cfg(test)]
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// The tail, for a root: no entry will begin before it.
    pub fn mark(&mut self) -> u64 {
        self.marked = self.tail;
        self.tail
    }

    /// Whether a scan would find an entry at the tail, whatever a crash leaves of those before it [R5].
    pub fn is_in_sight(&self) -> bool {
        self.tail - self.proven < SILENCE_BYTES
    }

    /// Bytes that may not be written over: live entries, and whatever an unreaped write may still hit.
    pub fn used(&self) -> u64 {
        let floor = self.unreaped.keys().next().map_or(self.head, |&oldest| oldest.min(self.head));
        let used = self.tail - floor;
        assert!(used <= self.place.bytes, "a ring is never overfilled");
        used
    }

    /// How full, in percent.
    pub fn percent(&self) -> u64 {
        self.used() * 100 / self.place.bytes
    }

    /// Whether an entry of `len` bytes may be put here [R10].
    pub fn has_room(&self, level: Level, len: u64) -> bool {
        let limit = match level {
            Level::User => self.place.bytes / 100 * JOURNAL_USER_PERCENT,
            Level::Internal => self.place.bytes,
        };
        self.used() + len <= limit
    }

    /// Takes the next `len` bytes for a write that is late after `late_at`; returns the position.
    /// The caller has checked `has_room`.
    pub fn reserve(&mut self, len: u64, late_at: Ticks) -> u64 {
        assert!(self.has_room(Level::Internal, len) && len.is_multiple_of(UNIT_BYTES));
        assert!(self.is_in_sight(), "an entry that no scan would find [R5]");
        let position = self.tail;
        self.tail += len;
        let before = self.unreaped.insert(position, (len, late_at));
        assert!(before.is_none(), "a position is given out once");
        position
    }

    /// The write at `position` was answered; `written`: with success.
    pub fn reaped(&mut self, position: u64, written: bool) {
        let (len, _) = self.unreaped.remove(&position).expect("a write is reaped once");
        let end = position + len;
        if written {
            self.proven = self.proven.max(end);
        } else if end == self.tail && position >= self.marked {
            self.tail = position;
        }
    }

    /// Whether a write has not been answered although its time is up.
    pub fn is_late(&self, now: Ticks) -> bool {
        self.unreaped.values().any(|&(_, late_at)| late_at <= now)
    }

    /// Whether every write has been answered.
    pub fn is_quiet(&self) -> bool {
        self.unreaped.is_empty()
    }

    /// Gives up everything before `head`.
    pub fn trim(&mut self, head: u64) {
        assert!(head <= self.tail, "only what was written is trimmed");
        self.head = self.head.max(head);
        self.proven = self.proven.max(head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{KIB, MIB, Random};

    fn ring(bytes: u64, position: u64) -> Ring {
        let place = RingPlace { start: 5 * MIB, bytes };
        Ring::new(DiskIndex(0), DiskUuid([1; 16]), place, position)
    }

    #[test]
    fn an_entry_over_the_end_has_two_pieces() {
        let ring = ring(64 * KIB, 0);
        assert_eq!(
            ring.place.pieces(60 * KIB, 4096),
            vec![RingPiece { offset: 5 * MIB + 60 * KIB, range: 0..4096 }]
        );
        assert_eq!(
            ring.place.pieces(64 * KIB * 7 + 60 * KIB, 12288),
            vec![
                RingPiece { offset: 5 * MIB + 60 * KIB, range: 0..4096 },
                RingPiece { offset: 5 * MIB, range: 4096..12288 }
            ]
        );
    }

    #[test]
    fn r10_user_batches_stop_at_75_percent_and_internal_ones_at_100() {
        let mut ring = ring(100 * 4096, 4096 * 30);
        for _ in 0..75 {
            assert!(ring.has_room(Level::User, 4096));
            let position = ring.reserve(4096, Ticks(9));
            ring.reaped(position, true);
        }
        assert!(!ring.has_room(Level::User, 4096));
        assert!(ring.has_room(Level::Internal, 25 * 4096));
        assert!(!ring.has_room(Level::Internal, 26 * 4096));
        assert_eq!(ring.percent(), 75);
        ring.trim(4096 * 31);
        assert!(ring.has_room(Level::User, 4096));
    }

    #[test]
    fn r7_an_unreaped_write_keeps_its_place_after_a_trim() {
        let mut ring = ring(8 * 4096, 0);
        let stuck = ring.reserve(4096, Ticks(10));
        let quick = ring.reserve(4096, Ticks(10));
        ring.reaped(quick, true);
        ring.trim(ring.tail());
        assert_eq!(ring.used(), 2 * 4096);
        assert!(!ring.has_room(Level::Internal, 7 * 4096));
        assert!(!ring.is_late(Ticks(9)) && ring.is_late(Ticks(10)) && !ring.is_quiet());
        ring.reaped(stuck, true);
        assert_eq!(ring.used(), 0);
        assert!(ring.is_quiet());
    }

    #[test]
    fn r5_what_may_be_a_hole_is_never_as_long_as_the_silence_that_ends_a_scan() {
        let mut ring = ring(64 * MIB, 8 * MIB);
        let len = SILENCE_BYTES / 2;
        let first = ring.reserve(len, Ticks(1));
        let second = ring.reserve(len, Ticks(1));
        // Two entries are on their way; the one after them could be all that a crash leaves.
        assert!(!ring.is_in_sight());
        ring.reaped(second, true);
        assert!(ring.is_in_sight(), "a scan finds the second one first");
        let third = ring.reserve(len, Ticks(1));
        ring.reaped(first, true);
        let fourth = ring.reserve(len, Ticks(1));
        ring.reaped(third, false);
        assert!(!ring.is_in_sight(), "refused ones are holes too");
        ring.trim(ring.tail());
        assert!(ring.is_in_sight(), "a scan begins at the head");
        ring.reaped(fourth, true);
    }

    #[test]
    fn r5_what_was_refused_gives_its_place_back_unless_a_root_may_begin_after_it() {
        let mut ring = ring(64 * MIB, 8 * MIB);
        let first = ring.reserve(4096, Ticks(1));
        ring.reaped(first, false);
        assert_eq!((ring.used(), ring.reserve(8192, Ticks(1))), (0, first));
        // A root that names the tail is on its way when the write before the tail is refused.
        let mark = ring.mark();
        ring.reaped(first, false);
        assert_eq!(ring.reserve(4096, Ticks(1)), mark, "an entry before it would never be found");
        ring.trim(mark);
        assert_eq!(ring.used(), 4096);
    }

    #[test]
    fn no_two_live_or_unreaped_entries_ever_share_a_byte() {
        let seed = 0x5eed_0001;
        let mut random = Random::new(seed);
        let mut ring = ring(32 * 4096, 4096 * 31);
        let mut live: Vec<(u64, u64, bool)> = Vec::new();
        let mut head = 0;
        for step in 0..5000 {
            let len = 4096 * (1 + random.below(5));
            if random.one_in(2) && ring.has_room(Level::Internal, len) {
                let position = ring.reserve(len, Ticks(1));
                let new: Vec<u64> = units(&ring, position, len);
                for &(position, len, _) in &live {
                    let old = units(&ring, position, len);
                    assert!(new.iter().all(|unit| !old.contains(unit)), "seed {seed} step {step}");
                }
                live.push((position, len, false));
            } else if random.one_in(2) {
                let open: Vec<usize> = (0..live.len()).filter(|&i| !live[i].2).collect();
                if !open.is_empty() {
                    let pick = open[random.below(open.len() as u64) as usize];
                    live[pick].2 = true;
                    let written = !random.one_in(4);
                    ring.reaped(live[pick].0, written);
                    if !written {
                        live.remove(pick);
                    }
                }
            } else if !live.is_empty() {
                let upto = live[random.below(live.len() as u64) as usize].0;
                ring.trim(upto);
                head = head.max(upto);
            }
            live.retain(|&(position, _, reaped)| position >= head || !reaped);
        }
    }

    fn units(ring: &Ring, position: u64, len: u64) -> Vec<u64> {
        ring.place
            .pieces(position, len as usize)
            .into_iter()
            .flat_map(|piece| {
                (0..piece.range.len() as u64 / 4096).map(move |unit| piece.offset + unit * 4096)
            })
            .collect()
    }
}
