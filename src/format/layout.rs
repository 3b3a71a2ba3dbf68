//! Where everything is on a disk. All offset arithmetic lives here.
//!
//! ```text
//!       0        1 MiB     2 MiB    3 MiB    4 MiB                                       end - 2 MiB
//!       | label 0 | label 1 | slot 0 | slot 1 | journal ring | data area in groups ...     | label 2 | slack |
//! ```
//!
//! The labels are far apart, and the last one well before the end, where a partition tool writes its
//! backup table (design-review 49). Each label and each checkpoint slot has 1 MiB of its own, so that no write of
//! one shares a unit, or a drive's larger physical sector, with another [R6].

use super::FormatError;
use crate::base::limits::{ENTRY_BYTES_MAX, ROOT_BYTES_MAX, SHARD_BYTES};
use crate::base::{GIB, MIB, UNIT_BYTES, Units};

/// Bytes of a label.
pub const LABEL_BYTES: u64 = 4096;
/// Copies of the label on each disk.
pub const LABEL_COPIES: usize = 3;
/// Checkpoint slots on each disk.
pub const SLOTS: usize = 2;
/// The smallest disk that can be a member.
pub const DISK_BYTES_MIN: u64 = 256 * MIB;
/// The largest size that the arithmetic here is meant for: 2^54 bytes, 16 PiB.
pub const DISK_BYTES_MAX: u64 = 1 << 54;

const SLOT_OFFSETS: [u64; SLOTS] = [2 * MIB, 3 * MIB];
const JOURNAL_OFFSET: u64 = 4 * MIB;
const TAIL_BYTES: u64 = 2 * MIB;
/// Share of a disk that its journal ring takes (design 8).
const JOURNAL_SHARE: u64 = 512;
const JOURNAL_BYTES_MIN: u64 = 32 * MIB;
const JOURNAL_BYTES_MAX: u64 = 2 * GIB;
/// Below this a disk is a trial, and 32 MiB of journal too much of it.
const SMALL_DISK_BYTES: u64 = 4 * GIB;
const JOURNAL_BYTES_SMALL: u64 = 16 * MIB;
const GROUP_BYTES_MAX: u64 = 256 * MIB;
const GROUPS_MIN: u64 = 64;
const GROUP_UNITS_MIN: u64 = SHARD_BYTES / UNIT_BYTES + 1;
/// Units of the largest allocation group.
pub const GROUP_UNITS_MAX: u64 = GROUP_BYTES_MAX / UNIT_BYTES;

const _: () = assert!(LABEL_BYTES == UNIT_BYTES && ROOT_BYTES_MAX <= MIB);
const _: () = assert!(JOURNAL_BYTES_SMALL >= 2 * ENTRY_BYTES_MAX, "the ring holds two entries");
const _: () = assert!(
    (DISK_BYTES_MIN - JOURNAL_OFFSET - JOURNAL_BYTES_SMALL - TAIL_BYTES - MIB) / GROUPS_MIN
        >= GROUP_UNITS_MIN * UNIT_BYTES,
    "a group of the smallest disk holds a full shard"
);

/// The places of everything on one disk. Decided when the disk joins, written in its label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskLayout {
    /// Bytes of the disk that are used, a multiple of 4096.
    pub disk_bytes: u64,
    /// Where the copies of the label are.
    pub label_offsets: [u64; LABEL_COPIES],
    /// Where the checkpoint slots are.
    pub slot_offsets: [u64; SLOTS],
    /// Where the journal ring begins.
    pub journal_offset: u64,
    /// Bytes of the journal ring.
    pub journal_bytes: u64,
    /// Where the data area begins, in bytes.
    pub data_offset: u64,
    /// Units of the data area.
    pub data_units: Units,
    /// Units of an allocation group [R22]; the last group may be smaller.
    pub group_units: Units,
}

impl DiskLayout {
    /// The layout of a new member of `bytes` bytes.
    pub fn for_disk(bytes: u64) -> Result<DiskLayout, FormatError> {
        if bytes < DISK_BYTES_MIN {
            return Err(FormatError::DiskTooSmall { bytes, bytes_min: DISK_BYTES_MIN });
        }
        let disk_bytes = bytes.min(DISK_BYTES_MAX) / UNIT_BYTES * UNIT_BYTES;
        let journal_bytes = if disk_bytes < SMALL_DISK_BYTES {
            JOURNAL_BYTES_SMALL
        } else {
            (disk_bytes / JOURNAL_SHARE).clamp(JOURNAL_BYTES_MIN, JOURNAL_BYTES_MAX) / MIB * MIB
        };
        let data_offset = JOURNAL_OFFSET + journal_bytes;
        let last_label = disk_bytes - TAIL_BYTES;
        let data_bytes = (last_label - data_offset) / MIB * MIB;
        let group_bytes = (data_bytes / GROUPS_MIN).min(GROUP_BYTES_MAX) / UNIT_BYTES * UNIT_BYTES;
        let layout = DiskLayout {
            disk_bytes,
            label_offsets: [0, MIB, last_label],
            slot_offsets: SLOT_OFFSETS,
            journal_offset: JOURNAL_OFFSET,
            journal_bytes,
            data_offset,
            data_units: Units(data_bytes / UNIT_BYTES),
            group_units: Units(group_bytes / UNIT_BYTES),
        };
        assert!(layout.is_sound(), "what we lay out is sound");
        Ok(layout)
    }

    /// Where the copies of the label are on a disk of `bytes`, before any label was read.
    pub fn label_offsets_for(bytes: u64) -> [u64; LABEL_COPIES] {
        let disk_bytes = bytes.min(DISK_BYTES_MAX) / UNIT_BYTES * UNIT_BYTES;
        [0, MIB, disk_bytes.saturating_sub(TAIL_BYTES)]
    }

    /// Byte offset on the disk of a place in the data area. Panics beyond the area.
    pub fn data_offset(&self, at: Units) -> u64 {
        assert!(at <= self.data_units, "{at:?} lies outside the data area");
        self.data_offset + at.bytes()
    }

    /// Byte offset on the disk of a checkpoint slot.
    pub fn slot_offset(&self, slot: usize) -> u64 {
        self.slot_offsets[slot]
    }

    /// Byte offset on the disk of a position in the ring, given in bytes from its start.
    pub fn ring_offset(&self, position: u64) -> u64 {
        assert!(position < self.journal_bytes, "position {position} lies outside the ring");
        self.journal_offset + position
    }

    /// Number of allocation groups, the last, smaller one included.
    pub fn groups(&self) -> u32 {
        self.data_units.0.div_ceil(self.group_units.0) as u32
    }

    /// Which group a place in the data area is in.
    pub fn group_of(&self, at: Units) -> u32 {
        assert!(at < self.data_units, "{at:?} lies outside the data area");
        (at.0 / self.group_units.0) as u32
    }

    /// Where a group begins.
    pub fn group_start(&self, group: u32) -> Units {
        assert!(group < self.groups(), "group {group} does not exist");
        Units(u64::from(group) * self.group_units.0)
    }

    /// Units of a group: `group_units`, but for the last.
    pub fn group_length(&self, group: u32) -> Units {
        self.group_units.min(self.data_units - self.group_start(group))
    }

    /// All of it as readable text, for `isotherm inspect`.
    pub fn describe(&self) -> String {
        let [label_0, label_1, label_2] = self.label_offsets;
        let [slot_0, slot_1] = self.slot_offsets;
        format!(
            "disk bytes       {}\nlabels at        {label_0} {label_1} {label_2}\n\
             slots at         {slot_0} {slot_1}\njournal          {} at {}\n\
             data area        {} units at {}, {} groups of {} units\n",
            self.disk_bytes,
            self.journal_bytes,
            self.journal_offset,
            self.data_units.0,
            self.data_offset,
            self.groups(),
            self.group_units.0
        )
    }

    /// Whether nothing overlaps and all lies on the disk, aligned. What a label says is not believed
    /// before.
    pub fn is_sound(&self) -> bool {
        let aligned = |value: u64| value.is_multiple_of(UNIT_BYTES);
        let [label_0, label_1, label_2] = self.label_offsets;
        let [slot_0, slot_1] = self.slot_offsets;
        let edges = [
            (label_0, LABEL_BYTES),
            (label_1, LABEL_BYTES),
            (slot_0, ROOT_BYTES_MAX),
            (slot_1, ROOT_BYTES_MAX),
            (self.journal_offset, self.journal_bytes),
            (self.data_offset, self.data_units.0.saturating_mul(UNIT_BYTES)),
            (label_2, LABEL_BYTES),
            (self.disk_bytes, 0),
        ];
        self.disk_bytes <= DISK_BYTES_MAX
            && edges.iter().all(|&(start, length)| aligned(start) && aligned(length))
            && edges.iter().all(|&(start, length)| start.checked_add(length).is_some())
            && edges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0)
            && self.journal_bytes >= 2 * ENTRY_BYTES_MAX
            && self.journal_bytes <= JOURNAL_BYTES_MAX
            && (GROUP_UNITS_MIN..=GROUP_UNITS_MAX).contains(&self.group_units.0)
            && self.data_units >= self.group_units
            && self.data_units.0 / self.group_units.0 < u64::from(u32::MAX)
    }
}
