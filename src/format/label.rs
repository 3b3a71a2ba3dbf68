//! The label: who a disk is, which pool it belongs to, where everything on it lies, and the pool's
//! epoch claims [R2]. Three copies, one rewritten and flushed at a time [R6]; the highest sequence that
//! verifies counts.
//!
//! ```text
//!   0  frame "ISOLABEL", version 1, length 4096
//!  24  16 B pool uuid        40  16 B disk uuid       56  16 B machine id of the last opener
//!  72  u16 disk index        74  u8 open              75  3 B default redundancy
//!  78  u16 member count      80  u64 label sequence
//!  88  u32 epoch             92  u32 reserved         96  u64 epoch id   104  u64 parent's epoch id
//! 112  u64 member states' sequence   120  u64 failed bitmap   128  u64 dropped bitmap
//! 136  u64 disk bytes       144  3 u64 label offsets  168  2 u64 slot offsets
//! 184  u64 journal offset   192  u64 journal bytes    200  u64 data offset   208  u64 data units
//! 216  u64 group units      224  i64 created, seconds since 1970
//! 232  u8 name length       233  63 B pool name       296..4096 reserved, zero
//! ```

use std::fmt::Write as _;

use super::FormatError;
use super::bytes::Reader;
use super::frame::Kind;
use super::layout::{DiskLayout, LABEL_BYTES};
use super::object_record::Redundancy;
use crate::base::limits::DISKS_MAX;
use crate::base::{DiskIndex, DiskUuid, Epoch, PoolUuid, Units};

/// How a label begins, in every version.
pub const LABEL_MAGIC: [u8; 8] = *b"ISOLABEL";

const KIND: Kind =
    Kind { what: "label", magic: LABEL_MAGIC, version: 1, oldest: 1, bytes_max: LABEL_BYTES };

/// The longest pool name, in bytes.
pub const POOL_NAME_BYTES_MAX: usize = 63;
const EPOCH_MAX: u32 = (1 << 24) - 1;

const _: () = assert!(DISKS_MAX == 64, "member states are 64-bit maps");

/// One read-write mount's claim on the pool [R2]. Two ids with one parent are a split brain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EpochClaim {
    /// Its number; 0 until the pool is first mounted.
    pub epoch: Epoch,
    /// Random.
    pub id: u64,
    /// The id of the epoch it follows.
    pub parent_id: u64,
}

/// Which members the pool went on without: one bit per disk index. The highest sequence counts [R1, R2].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemberStates {
    /// Raised by every change.
    pub sequence: u64,
    /// Disks that failed (errors, a failed flush).
    pub failed: u64,
    /// Disks that were absent when the pool acknowledged something without them.
    pub dropped: u64,
}

impl MemberStates {
    /// Whether the pool went on without this disk.
    pub fn is_out(&self, disk: DiskIndex) -> bool {
        disk.as_usize() < DISKS_MAX && (self.failed | self.dropped) >> disk.0 & 1 == 1
    }
}

/// A label that belongs to the disk it is on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    /// Which pool.
    pub pool: PoolUuid,
    /// The pool's name, 1..=63 bytes.
    pub pool_name: String,
    /// When the pool was made, in seconds since 1970.
    pub created_seconds: i64,
    /// Which disk.
    pub disk: DiskUuid,
    /// Its position in the member table.
    pub index: DiskIndex,
    /// Members of the pool, counting those it went on without, not those that were removed.
    pub member_count: u16,
    /// Raised by every rewrite of this disk's label.
    pub sequence: u64,
    /// Where everything on this disk is.
    pub layout: DiskLayout,
    /// The last read-write mount this disk knows of.
    pub claim: EpochClaim,
    /// The machine that last opened the pool.
    pub machine_id: [u8; 16],
    /// Opened and not closed since [R24].
    pub open: bool,
    /// For new objects.
    pub redundancy: Redundancy,
    /// Which members the pool went on without.
    pub member_states: MemberStates,
}

/// A label whose checksum is good, but which may have been copied here from another disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawLabel {
    label: Label,
    at: u64,
}

impl Label {
    /// The 4 KiB to be written at each of `layout.label_offsets`. Panics if the label makes no sense.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.is_sound(), "a label that makes no sense: {self:?}");
        let mut out = KIND.begin(LABEL_BYTES as usize);
        out.bytes(&self.pool.0).bytes(&self.disk.0).bytes(&self.machine_id);
        out.u16(self.index.0).bool(self.open);
        self.redundancy.encode(&mut out);
        out.u16(self.member_count).u64(self.sequence);
        out.u32(self.claim.epoch.0).u32(0).u64(self.claim.id).u64(self.claim.parent_id);
        let states = &self.member_states;
        out.u64(states.sequence).u64(states.failed).u64(states.dropped);
        let layout = &self.layout;
        out.u64(layout.disk_bytes);
        for &offset in layout.label_offsets.iter().chain(&layout.slot_offsets) {
            out.u64(offset);
        }
        out.u64(layout.journal_offset).u64(layout.journal_bytes).u64(layout.data_offset);
        out.u64(layout.data_units.0).u64(layout.group_units.0).i64(self.created_seconds);
        out.u8(self.pool_name.len() as u8).bytes(self.pool_name.as_bytes());
        out.pad_to(LABEL_BYTES as usize);
        KIND.seal(out).expect("a label is padded to exactly its size")
    }

    fn is_sound(&self) -> bool {
        let name = &self.pool_name;
        self.layout.is_sound()
            && (1..=POOL_NAME_BYTES_MAX).contains(&name.len())
            && !name.chars().any(char::is_control)
            && self.index.as_usize() < DISKS_MAX
            && (1..=DISKS_MAX).contains(&self.member_count.into())
            && self.claim.epoch.0 <= EPOCH_MAX
            && self.redundancy.is_valid()
    }

    /// All of it as readable text, for `isotherm inspect`.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let Label { claim, member_states: states, layout, .. } = self;
        let mut line = |name: &str, value: String| {
            writeln!(text, "{name:<16} {value}").expect("writing to a String cannot fail");
        };
        line("pool", format!("{} \"{}\"", self.pool, self.pool_name));
        line("created", format!("{} s", self.created_seconds));
        line("disk", format!("{} index {} of {}", self.disk, self.index, self.member_count));
        line("sequence", self.sequence.to_string());
        line(
            "epoch",
            format!("{} id {:016x} parent {:016x}", claim.epoch, claim.id, claim.parent_id),
        );
        line("machine", format!("{:032x}", u128::from_be_bytes(self.machine_id)));
        line("open", self.open.to_string());
        line("redundancy", self.redundancy.to_string());
        line(
            "member states",
            format!(
                "#{} failed {:#x} dropped {:#x}",
                states.sequence, states.failed, states.dropped
            ),
        );
        text + &layout.describe()
    }
}

impl RawLabel {
    /// Decodes what was read at byte `at` of a disk: at least 4 KiB.
    pub fn decode(bytes: &[u8], at: u64) -> Result<RawLabel, FormatError> {
        let mut reader = KIND.open(bytes, at)?;
        let label = decode_body(&mut reader)?;
        if label.is_sound() {
            Ok(RawLabel { label, at })
        } else {
            Err(reader.wrong("layout or name"))
        }
    }

    /// The label, if it was read where its own layout says, on a disk of at least `disk_bytes` bytes.
    /// (A partition or an image inside a larger disk fails here.)
    pub fn verify(self, disk_bytes: u64) -> Result<Label, FormatError> {
        let RawLabel { label, at } = self;
        if !label.layout.label_offsets.contains(&at) {
            return Err(KIND.misplaced(at, "offset"));
        }
        if label.layout.disk_bytes > disk_bytes {
            return Err(KIND.misplaced(at, "disk size"));
        }
        Ok(label)
    }

    /// As [`Label::describe`]: looking is allowed before verifying.
    pub fn describe(&self) -> String {
        self.label.describe()
    }
}

fn decode_body(reader: &mut Reader<'_>) -> Result<Label, FormatError> {
    let (pool, disk) = (PoolUuid(reader.array()?), DiskUuid(reader.array()?));
    let machine_id = reader.array()?;
    let (index, open) = (DiskIndex(reader.u16()?), reader.bool("open")?);
    let redundancy = Redundancy::decode(reader)?;
    let (member_count, sequence) = (reader.u16()?, reader.u64()?);
    let epoch = Epoch(reader.u32()?);
    reader.zeros(4)?;
    let claim = EpochClaim { epoch, id: reader.u64()?, parent_id: reader.u64()? };
    let member_states =
        MemberStates { sequence: reader.u64()?, failed: reader.u64()?, dropped: reader.u64()? };
    let layout = DiskLayout {
        disk_bytes: reader.u64()?,
        label_offsets: [reader.u64()?, reader.u64()?, reader.u64()?],
        slot_offsets: [reader.u64()?, reader.u64()?],
        journal_offset: reader.u64()?,
        journal_bytes: reader.u64()?,
        data_offset: reader.u64()?,
        data_units: Units(reader.u64()?),
        group_units: Units(reader.u64()?),
    };
    let created_seconds = reader.i64()?;
    let name_bytes = usize::from(reader.u8()?);
    let pool_name = reader.text(name_bytes, "pool name")?.to_owned();
    reader.zeros(reader.left())?;
    Ok(Label {
        pool,
        pool_name,
        created_seconds,
        disk,
        index,
        member_count,
        sequence,
        layout,
        claim,
        machine_id,
        open,
        redundancy,
        member_states,
    })
}
