//! The root of a checkpoint [R9]: from it a mount finds everything else. At most 64 KiB, in alternate
//! slots, on every disk; each copy states the disk and the slot it is for.
//!
//! ```text
//!   0  frame "ISO_ROOT", version 3 (1 and 2 are read), length as used
//!  24  16 B pool · 16 B disk uuid · u8 slot · 7 B reserved
//!  64  u32 epoch · u32 reserved · u64 epoch id · u64 sequence · u64 replay LSN · u64 replay batch crc
//! 104  u64 object counter · u64 inode lease · 2 u64 name hash key · u64 inodes · u64 user bytes
//! 152  u16 members · u16 heads · u16 manifest links · u16 space links
//! 160  3 B default redundancy · u8 shards per enclosure · 4 B reserved
//! 168  members: u16 index · u8 state · u8 serial length · u16 enclosure, 0: none · u8 flags: 1 leaving · u8 0 · 16 B uuid ·
//!               u64 bytes · serial
//!      heads:   u16 disk · 6 B reserved · u64 ring position
//!      links:   u64 CRC-64 of the object's bytes · object record (64 + 12 a shard)
//! ```

use std::fmt::Write as _;

use super::FormatError;
use super::bytes::{Reader, as_u16};
use super::frame::Kind;
use super::object_record::{ObjectRecord, Redundancy};
use crate::base::limits::{DISKS_MAX, ROOT_BYTES_MAX};
use crate::base::{DiskIndex, DiskUuid, Epoch, Ino, Lsn, PoolUuid, UNIT_BYTES};

const KIND: Kind = Kind {
    what: "checkpoint root",
    magic: *b"ISO_ROOT",
    version: 3,
    oldest: 1,
    bytes_max: ROOT_BYTES_MAX,
};
const MEMBER_BYTES: usize = 32;
const HEAD_BYTES: usize = 16;
const LINK_BYTES_MIN: usize = 8 + 64 + 12;
/// The longest serial number kept, in bytes.
pub const SERIAL_BYTES_MAX: usize = 63;

/// What the pool thinks of a member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum MemberState {
    /// Takes part.
    Active = 1,
    /// Failed: errors, or a failed flush.
    Failed = 2,
    /// Absent; the pool went on without it.
    Missing = 3,
    /// Taken out for good. Its index is not used again.
    Removed = 4,
}

/// One member of the pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberEntry {
    /// Its index, for good.
    pub index: DiskIndex,
    /// Its identity.
    pub uuid: DiskUuid,
    /// Its size.
    pub bytes: u64,
    /// Its serial number, at most 63 bytes, empty if unknown.
    pub serial: String,
    /// What the pool thinks of it.
    pub state: MemberState,
    /// Members with one number share an enclosure, and so a fate [R24]; never 0.
    pub enclosure: Option<u16>,
    /// What is on it moves to the others, and then it is removed.
    pub leaving: bool,
}

/// Settings of the pool that change rarely.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolConfig {
    /// For new objects.
    pub redundancy: Redundancy,
    /// At most this many shards of an object in one enclosure: m where enclosures are known, 0 where not.
    pub enclosure_cap: u8,
}

/// Where replay begins in one disk's ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingHead {
    /// Which disk.
    pub disk: DiskIndex,
    /// Bytes from the start of its ring, a multiple of 4096.
    pub position: u64,
}

/// One object of a chain: the first is a whole, the others are increments over it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChainLink {
    /// Where it is.
    pub record: ObjectRecord,
    /// `crc64` of its bytes (`record.length` of them).
    pub crc: u64,
}

/// What a checkpoint says, the same on every disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Root {
    /// Which pool.
    pub pool: PoolUuid,
    /// The epoch that wrote it.
    pub epoch: Epoch,
    /// That epoch's random id.
    pub epoch_id: u64,
    /// Raised by every root ever attempted.
    pub sequence: u64,
    /// Everything up to this batch is in the manifest and the space snapshot; replay begins after it.
    pub replay_lsn: Lsn,
    /// `batch_crc` of that batch: what the next one must name as its predecessor.
    pub replay_crc: u64,
    /// Counters of object ids given out in this epoch before this root; ids are never reused anyhow.
    pub object_counter: u64,
    /// Inode numbers below this may have been given out [R5].
    pub ino_lease: Ino,
    /// Key of `name_hash`, drawn when the pool was made.
    pub name_hash_key: [u64; 2],
    /// Inodes in use.
    pub inodes: u64,
    /// Live bytes of files.
    pub user_bytes: u64,
    /// Settings.
    pub config: PoolConfig,
    /// All members ever, by index, without gaps in their order.
    pub members: Vec<MemberEntry>,
    /// Where replay begins on each disk.
    pub heads: Vec<RingHead>,
    /// The manifest: oldest first.
    pub manifest: Vec<ChainLink>,
    /// The space snapshot: oldest first.
    pub space: Vec<ChainLink>,
}

/// A root whose checksum is good, but which may be for another disk or slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawRoot {
    root: Root,
    disk: DiskUuid,
    slot: u8,
    at: u64,
}

impl Root {
    /// The copy for one slot of one disk, padded with zeros to whole units. Fails only if it is too
    /// large: the chains must be merged first.
    pub fn encode(&self, disk: DiskUuid, slot: usize) -> Result<Vec<u8>, FormatError> {
        assert!(self.is_sound(), "a root that makes no sense: {self:?}");
        assert!(slot < super::layout::SLOTS, "there are two slots");
        let mut out = KIND.begin(8 * 1024);
        out.bytes(&self.pool.0).bytes(&disk.0).u8(slot as u8).zeros(7);
        out.u32(self.epoch.0).u32(0).u64(self.epoch_id).u64(self.sequence);
        out.u64(self.replay_lsn.0).u64(self.replay_crc);
        out.u64(self.object_counter).u64(self.ino_lease.0);
        out.u64(self.name_hash_key[0]).u64(self.name_hash_key[1]);
        out.u64(self.inodes).u64(self.user_bytes);
        out.u16(as_u16(self.members.len())).u16(as_u16(self.heads.len()));
        out.u16(as_u16(self.manifest.len())).u16(as_u16(self.space.len()));
        self.config.redundancy.encode(&mut out);
        out.u8(self.config.enclosure_cap).zeros(4);
        for member in &self.members {
            out.u16(member.index.0).u8(member.state as u8).u8(member.serial.len() as u8);
            out.u16(member.enclosure.unwrap_or(0)).u8(u8::from(member.leaving)).zeros(1);
            out.bytes(&member.uuid.0).u64(member.bytes).bytes(member.serial.as_bytes());
        }
        for head in &self.heads {
            out.u16(head.disk.0).zeros(6).u64(head.position);
        }
        for link in self.manifest.iter().chain(&self.space) {
            out.u64(link.crc);
            link.record.encode_into(&mut out);
        }
        let mut bytes = KIND.seal(out)?;
        bytes.resize(bytes.len().next_multiple_of(UNIT_BYTES as usize), 0);
        Ok(bytes)
    }

    fn is_sound(&self) -> bool {
        let ascending = |indexes: &[DiskIndex]| indexes.windows(2).all(|pair| pair[0] < pair[1]);
        let members: Vec<DiskIndex> = self.members.iter().map(|member| member.index).collect();
        let heads: Vec<DiskIndex> = self.heads.iter().map(|head| head.disk).collect();
        ascending(&members)
            && ascending(&heads)
            && members.iter().chain(&heads).all(|disk| disk.as_usize() < DISKS_MAX)
            && self.members.iter().all(|member| member.serial.len() <= SERIAL_BYTES_MAX)
            && self.members.iter().all(|member| member.enclosure != Some(0))
            && self.heads.iter().all(|head| head.position.is_multiple_of(UNIT_BYTES))
            && self.config.redundancy.is_valid()
    }

    /// All of it as readable text, for `isotherm inspect`.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            writeln!(text, "{name:<16} {value}").expect("writing to a String cannot fail");
        };
        line("pool", self.pool.to_string());
        line("epoch", format!("{} id {:016x}", self.epoch, self.epoch_id));
        line("sequence", self.sequence.to_string());
        line("replay after", format!("batch {} crc {:016x}", self.replay_lsn, self.replay_crc));
        line("object counter", self.object_counter.to_string());
        line("inode lease", self.ino_lease.to_string());
        line("inodes", self.inodes.to_string());
        line("user bytes", self.user_bytes.to_string());
        line("redundancy", self.config.redundancy.to_string());
        line("enclosure cap", self.config.enclosure_cap.to_string());
        for member in &self.members {
            let MemberEntry { index, uuid, bytes, serial, state, enclosure, leaving } = member;
            let enclosure = enclosure.map(|number| format!(", enclosure {number}"));
            let enclosure = enclosure.unwrap_or_default();
            let text = format!("{index} {uuid} {state:?} {bytes} bytes, serial \"{serial}\"");
            let leaving = if *leaving { ", leaving" } else { "" };
            line("member", text + &enclosure + leaving);
        }
        for head in &self.heads {
            line("ring head", format!("disk {} at {}", head.disk, head.position));
        }
        for (name, chain) in [("manifest", &self.manifest), ("space", &self.space)] {
            for link in chain {
                line(name, format!("crc {:016x} {}", link.crc, link.record));
            }
        }
        text
    }
}

impl RawRoot {
    /// Decodes what was read at byte `at` of a disk: a slot, or the first `ROOT_BYTES_MAX` of it.
    pub fn decode(bytes: &[u8], at: u64) -> Result<RawRoot, FormatError> {
        let mut reader = KIND.open(bytes, at)?;
        let pool = PoolUuid(reader.array()?);
        let disk = DiskUuid(reader.array()?);
        let slot = reader.u8()?;
        reader.zeros(7)?;
        let root = decode_body(&mut reader, pool)?;
        reader.finish()?;
        if root.is_sound() {
            Ok(RawRoot { root, disk, slot, at })
        } else {
            Err(reader.wrong("members or heads"))
        }
    }

    /// The root, if it is of this pool and was written to this slot of this disk.
    pub fn verify(self, pool: PoolUuid, disk: DiskUuid, slot: usize) -> Result<Root, FormatError> {
        let field = if self.root.pool != pool {
            "pool"
        } else if self.disk != disk {
            "disk"
        } else if usize::from(self.slot) != slot {
            "slot"
        } else {
            return Ok(self.root);
        };
        Err(KIND.misplaced(self.at, field))
    }

    /// As [`Root::describe`], with the disk and slot it is for.
    pub fn describe(&self) -> String {
        format!("{:<16} {} slot {}\n{}", "written to", self.disk, self.slot, self.root.describe())
    }
}

fn decode_body(reader: &mut Reader<'_>, pool: PoolUuid) -> Result<Root, FormatError> {
    let epoch = Epoch(reader.u32()?);
    reader.zeros(4)?;
    let (epoch_id, sequence) = (reader.u64()?, reader.u64()?);
    let (replay_lsn, replay_crc) = (Lsn(reader.u64()?), reader.u64()?);
    let (object_counter, ino_lease) = (reader.u64()?, Ino(reader.u64()?));
    let name_hash_key = [reader.u64()?, reader.u64()?];
    let (inodes, user_bytes) = (reader.u64()?, reader.u64()?);
    let (members, heads) = (reader.u16()?, reader.u16()?);
    let (manifest, space) = (reader.u16()?, reader.u16()?);
    let redundancy = Redundancy::decode(reader)?;
    let config = PoolConfig { redundancy, enclosure_cap: reader.u8()? };
    reader.zeros(4)?;
    Ok(Root {
        pool,
        epoch,
        epoch_id,
        sequence,
        replay_lsn,
        replay_crc,
        object_counter,
        ino_lease,
        name_hash_key,
        inodes,
        user_bytes,
        config,
        members: decode_list(reader, members, MEMBER_BYTES, decode_member)?,
        heads: decode_list(reader, heads, HEAD_BYTES, decode_head)?,
        manifest: decode_list(reader, manifest, LINK_BYTES_MIN, decode_link)?,
        space: decode_list(reader, space, LINK_BYTES_MIN, decode_link)?,
    })
}

fn decode_list<T>(
    reader: &mut Reader<'_>,
    count: u16,
    item_bytes: usize,
    item: fn(&mut Reader<'_>) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    let count = reader.count(count.into(), item_bytes, "count")?;
    (0..count).map(|_| item(reader)).collect()
}

fn decode_member(reader: &mut Reader<'_>) -> Result<MemberEntry, FormatError> {
    let index = DiskIndex(reader.u16()?);
    let state = match reader.u8()? {
        1 => MemberState::Active,
        2 => MemberState::Failed,
        3 => MemberState::Missing,
        4 => MemberState::Removed,
        _ => return Err(reader.wrong("member state")),
    };
    let serial_bytes = usize::from(reader.u8()?);
    let enclosure = Some(reader.u16()?).filter(|&number| number != 0);
    let leaving = reader.bool("flags")?;
    reader.zeros(1)?;
    let (uuid, bytes) = (DiskUuid(reader.array()?), reader.u64()?);
    let serial = reader.text(serial_bytes, "serial")?.to_owned();
    Ok(MemberEntry { index, uuid, bytes, serial, state, enclosure, leaving })
}

fn decode_head(reader: &mut Reader<'_>) -> Result<RingHead, FormatError> {
    let disk = DiskIndex(reader.u16()?);
    reader.zeros(6)?;
    Ok(RingHead { disk, position: reader.u64()? })
}

fn decode_link(reader: &mut Reader<'_>) -> Result<ChainLink, FormatError> {
    let crc = reader.u64()?;
    Ok(ChainLink { record: ObjectRecord::decode_from(reader)?, crc })
}
