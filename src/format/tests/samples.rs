//! One of each structure, with no two numbers alike and every list longer than one.

use crate::base::limits::DISKS_MAX;
use crate::base::{DiskIndex, DiskUuid, Epoch, GIB, Ino, Lsn, ObjectId, PoolUuid, ShardIndex};
use crate::base::{Units, WallTime};
use crate::format::manifest::{Manifest, ManifestEntry, TableEntry};
use crate::format::table::{BuiltTable, Op, TableBuilder};
use crate::format::*;

pub(super) const POOL: PoolUuid = PoolUuid(*b"the pool's uuid.");
pub(super) const DISK: DiskUuid = DiskUuid(*b"the disk's uuid.");
pub(super) const DISK_BYTES: u64 = 500 * GIB;

pub(super) fn object(counter: u64) -> ObjectId {
    ObjectId::new(Epoch(7), counter)
}

pub(super) fn label() -> Label {
    Label {
        pool: POOL,
        pool_name: "attic".into(),
        created_seconds: 1_790_000_000,
        disk: DISK,
        index: DiskIndex(3),
        member_count: 8,
        sequence: 0x1122_3344,
        layout: DiskLayout::for_disk(DISK_BYTES).expect("large enough"),
        claim: EpochClaim { epoch: Epoch(7), id: 0xdead_beef_0000_0007, parent_id: 0x6666_0006 },
        machine_id: *b"the machine's id",
        open: true,
        redundancy: Redundancy::Erasure { data: 5, parity: 2 },
        member_states: MemberStates { sequence: 12, failed: 1 << 4, dropped: 1 << 63 },
    }
}

pub(super) fn erasure_record() -> ObjectRecord {
    let place = |disk, offset| Some(Place { disk: DiskIndex(disk), offset: Units(offset) });
    ObjectRecord {
        id: object(0x1234),
        kind: ObjectKind::Data,
        redundancy: Redundancy::Erasure { data: 2, parity: 1 },
        codec: CODEC_VANDERMONDE,
        cell_bytes: 32 << 10,
        length: 3_000_000,
        shard_bytes: 1_503_232,
        pieces_offset: 2_999_952,
        version: 9,
        provisional: true,
        lsn: Lsn(4711),
        places: vec![place(0, 77), None, place(DISKS_MAX as u16 - 1, 1 << 41)],
    }
}

pub(super) fn replica_record(kind: ObjectKind, counter: u64) -> ObjectRecord {
    let place = |disk| Some(Place { disk: DiskIndex(disk), offset: Units(100 + counter) });
    ObjectRecord {
        id: object(counter),
        kind,
        redundancy: Redundancy::Replica { copies: 3 },
        codec: CODEC_VANDERMONDE,
        cell_bytes: 4 << 10,
        length: 20_000,
        shard_bytes: 20_480,
        pieces_offset: 20_000,
        version: 0,
        provisional: false,
        lsn: Lsn(4000 + counter),
        places: vec![place(1), place(2), place(5)],
    }
}

pub(super) fn pieces() -> Vec<Piece> {
    vec![
        Piece { ino: Ino(100), file_offset: 1 << 40, object_offset: 0, length: 2_000_000 },
        Piece { ino: Ino(101), file_offset: 0, object_offset: 2_000_000, length: 999_952 },
    ]
}

pub(super) fn root() -> Root {
    let member = |index, state, serial: &str| MemberEntry {
        index: DiskIndex(index),
        uuid: DiskUuid([index as u8 + 1; 16]),
        bytes: DISK_BYTES + u64::from(index),
        serial: serial.into(),
        state,
        enclosure: None,
        leaving: false,
    };
    let head = |disk, position| RingHead { disk: DiskIndex(disk), position };
    let link = |kind, counter| ChainLink {
        record: replica_record(kind, counter),
        crc: 0x5555_0000 + counter,
    };
    Root {
        pool: POOL,
        epoch: Epoch(7),
        epoch_id: 0xdead_beef_0000_0007,
        sequence: 31,
        replay_lsn: Lsn(4700),
        replay_crc: 0x0123_4567_89ab_cdef,
        object_counter: 0x1300,
        ino_lease: Ino(70_000),
        name_hash_key: [0xaaaa_0001, 0xbbbb_0002],
        inodes: 60_123,
        user_bytes: 9_876_543_210,
        config: PoolConfig {
            redundancy: Redundancy::Erasure { data: 5, parity: 2 },
            enclosure_cap: 2,
        },
        members: vec![
            member(0, MemberState::Active, "WD-0001"),
            member(1, MemberState::Missing, ""),
            member(4, MemberState::Failed, "ZL2-9"),
            member(5, MemberState::Removed, "S5"),
        ],
        heads: vec![head(0, 0), head(4, 8 << 20)],
        manifest: vec![link(ObjectKind::Manifest, 21), link(ObjectKind::Manifest, 22)],
        space: vec![link(ObjectKind::SpaceSnapshot, 23), link(ObjectKind::SpaceSnapshot, 24)],
    }
}

pub(super) fn changes() -> Vec<Change> {
    vec![
        Change::Put { key: Key::inode(Ino(100)), value: inode().encode() },
        Change::Delete { key: Key::dirent(Ino::ROOT, 99, b"gone") },
        Change::Add { key: Key::live(object(0x1234)), delta: -4096 },
        Change::Inline { ino: Ino(100), offset: 1 << 33, data: b"inline data".to_vec() },
        Change::Settled { ino: Ino(101), offset: 5, length: u64::MAX - 5 },
        Change::Put { key: Key::meta(b"empty"), value: Vec::new() },
    ]
}

pub(super) fn entry(payload: &[u8]) -> EntryHeader {
    let (epoch, lsn, prev_batch_crc) = (Epoch(7), Lsn(4712), 0x7777_6666_5555_4444);
    EntryHeader {
        pool: POOL,
        disk: DISK,
        ring_position: 5 * 4096,
        epoch,
        epoch_id: 0xdead_beef_0000_0007,
        lsn,
        acked_lsn: Lsn(4710),
        prev_batch_crc,
        batch_crc: batch_crc(epoch, lsn, prev_batch_crc, payload),
        payload_len: payload.len() as u32,
    }
}

pub(super) fn checksums() -> Checksums {
    Checksums((0..46).map(|cell| 0x0101_0101u32.wrapping_mul(cell)).collect())
}

pub(super) fn shard_header() -> ShardHeader {
    ShardHeader {
        pool: POOL,
        disk: DISK,
        offset: Units(77),
        shard: ShardIndex(0),
        epoch: Epoch(8),
        object: ObjectHead::of(&erasure_record()),
        checksums: checksums(),
    }
}

pub(super) fn space() -> SpaceSnapshot {
    let run = |start, units| Run { start, units };
    let group = |disk, group, class, runs| GroupState { disk: DiskIndex(disk), group, class, runs };
    SpaceSnapshot {
        object: object(23),
        sequence: 31,
        whole: true,
        groups: vec![
            group(0, 0, 3, vec![run(0, 513), run(600, 1), run(60_000, 5_536)]),
            group(0, 9, 0, vec![]),
            group(4, 2, 1, vec![run(17, 16)]),
        ],
    }
}

/// Several blocks, every kind of entry.
pub(super) fn table() -> BuiltTable {
    let mut builder = TableBuilder::new(0x7a61_6754_a5a5_0001, 256);
    for number in 0..20u64 {
        let key = Key::extent(Ino(100 + number / 8), number * 4096);
        let op = match number % 5 {
            3 => Op::Delete,
            4 => Op::Add(-(number as i64)),
            _ => Op::Put(b"some value of an entry"),
        };
        builder.add(key.as_bytes(), Lsn(4600 + number * 7 % 20), op);
    }
    builder.finish().expect("entries were added")
}

pub(super) fn manifest() -> Manifest {
    let built = table();
    let length = built.bytes.len() as u32;
    let record = ObjectRecord {
        length,
        shard_bytes: length.next_multiple_of(4096),
        pieces_offset: length,
        ..replica_record(ObjectKind::Table, 25)
    };
    let entry = TableEntry { level: 0, run: 12, record, meta: built.meta };
    Manifest {
        object: object(21),
        sequence: 31,
        whole: false,
        entries: vec![ManifestEntry::Add(Box::new(entry)), ManifestEntry::Remove(object(20))],
    }
}

pub(super) fn inode() -> InodeRecord {
    let time = |seconds, nanos| WallTime { seconds, nanos };
    InodeRecord {
        kind: FileKind::Symlink,
        mode: 0o7754,
        links: 2,
        uid: 1000,
        gid: 1001,
        rdev: 0x0801,
        flags: 0,
        size: 1 << 41,
        allocated: 1 << 40,
        generation: 5,
        parent: Ino(1),
        atime: time(1_790_000_001, 1),
        mtime: time(-2, 999_999_999),
        ctime: time(1_790_000_003, 3),
        btime: time(1_790_000_004, 4),
        target: b"../elsewhere".to_vec(),
    }
}

pub(super) fn extent() -> ExtentValue {
    ExtentValue { length: 123_456, object: object(0x1234), object_offset: 789, unwritten: false }
}

pub(super) fn keys() -> Vec<Key> {
    vec![
        Key::inode(Ino(100)),
        Key::dirent(Ino::ROOT, name_hash([1, 2], b"name"), b"name"),
        Key::extent(Ino(100), 1 << 33),
        Key::xattr(Ino(100), b"user.color"),
        Key::object(object(0x1234)),
        Key::checksums(object(0x1234), ShardIndex(2)),
        Key::live(object(0x1234)),
        Key::orphan(Ino(100)),
        Key::meta(b"anything"),
    ]
}
