//! The space snapshot: which units of which groups are in use, exactly as the batches up to the replay
//! LSN imply [R18]. A chain of objects named by the root; the first is whole (groups it does not name are
//! empty), the others replace the groups they name [R9].
//!
//! ```text
//!   0  frame "ISOSPACE", version 1, length as used
//!  24  u64 object · u64 sequence · u8 whole · 3 B reserved · u32 groups
//!  48  per group: u16 disk · u8 class · u8 reserved · u32 group · u32 used units · u32 runs
//!                 per run: u32 first unit, from the group's start · u32 units
//! ```

use super::FormatError;
use super::bytes::{Reader, as_u32};
use super::frame::Kind;
use super::layout::GROUP_UNITS_MAX;
use crate::base::limits::DISKS_MAX;
use crate::base::{DiskIndex, MIB, ObjectId};

const KIND: Kind = Kind {
    what: "space snapshot",
    magic: *b"ISOSPACE",
    version: 1,
    oldest: 1,
    bytes_max: 32 * MIB,
};
const GROUP_BYTES: usize = 16;
const RUN_BYTES: usize = 8;

/// Units in use, side by side.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Run {
    /// The first, counted from the start of the group.
    pub start: u32,
    /// How many, at least 1.
    pub units: u32,
}

/// What is in use in one allocation group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupState {
    /// Which disk.
    pub disk: DiskIndex,
    /// Which group of it.
    pub group: u32,
    /// Which size class it serves [R22], as `fleet::space` numbers them; 0: none.
    pub class: u8,
    /// Ascending, not overlapping. None: the group is empty.
    pub runs: Vec<Run>,
}

impl GroupState {
    /// Units in use.
    pub fn used_units(&self) -> u32 {
        self.runs.iter().map(|run| run.units).sum()
    }
}

/// One object of the space snapshot's chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpaceSnapshot {
    /// The object it is.
    pub object: ObjectId,
    /// The root's sequence it was written for.
    pub sequence: u64,
    /// It begins a chain: nothing before it counts.
    pub whole: bool,
    /// The groups it speaks of.
    pub groups: Vec<GroupState>,
}

impl SpaceSnapshot {
    /// Bytes that a group with this many runs takes: for splitting a large snapshot.
    pub const fn group_bytes(runs: usize) -> usize {
        GROUP_BYTES + RUN_BYTES * runs
    }

    /// The object's bytes. Fails only if it is too large: then write several, the first one whole.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let bytes: usize =
            self.groups.iter().map(|group| Self::group_bytes(group.runs.len())).sum();
        let mut out = KIND.begin(48 + bytes);
        out.u64(self.object.0).u64(self.sequence).bool(self.whole).zeros(3);
        out.u32(as_u32(self.groups.len()));
        for group in &self.groups {
            assert!(group.is_sound(), "a group that makes no sense: {group:?}");
            out.u16(group.disk.0).u8(group.class).u8(0).u32(group.group);
            out.u32(group.used_units()).u32(as_u32(group.runs.len()));
            for run in &group.runs {
                out.u32(run.start).u32(run.units);
            }
        }
        KIND.seal(out)
    }

    /// The reverse. `object` is what was read: another one's bytes are refused [I4].
    pub fn decode(bytes: &[u8], object: ObjectId) -> Result<SpaceSnapshot, FormatError> {
        let mut reader = KIND.open(bytes, 0)?;
        if ObjectId(reader.u64()?) != object {
            return Err(KIND.misplaced(0, "object"));
        }
        let (sequence, whole) = (reader.u64()?, reader.bool("whole")?);
        reader.zeros(3)?;
        let count = reader.u32()?;
        let count = reader.count(count.into(), GROUP_BYTES, "number of groups")?;
        let groups = (0..count).map(|_| decode_group(&mut reader)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(SpaceSnapshot { object, sequence, whole, groups })
    }
}

fn decode_group(reader: &mut Reader<'_>) -> Result<GroupState, FormatError> {
    let (disk, class) = (DiskIndex(reader.u16()?), reader.u8()?);
    reader.zeros(1)?;
    let (group, used_units, runs) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let runs = reader.count(runs.into(), RUN_BYTES, "number of runs")?;
    let runs = (0..runs)
        .map(|_| Ok(Run { start: reader.u32()?, units: reader.u32()? }))
        .collect::<Result<_, FormatError>>()?;
    let state = GroupState { disk, group, class, runs };
    if state.is_sound() && state.used_units() == used_units {
        Ok(state)
    } else {
        Err(reader.wrong("disk, runs or used units"))
    }
}

impl GroupState {
    fn is_sound(&self) -> bool {
        let mut end = 0u64;
        self.disk.as_usize() < DISKS_MAX
            && self.runs.iter().all(|run| {
                let fits = u64::from(run.start) >= end && run.units > 0;
                end = u64::from(run.start) + u64::from(run.units);
                fits && end <= GROUP_UNITS_MAX
            })
    }
}
