//! Room `format`: every byte on disk, as pure functions between bytes and types. No I/O.
//!
//! Each file opens with the table of its bytes; `docs/on-disk-format.md` explains how they hang
//! together. Integers are little-endian (but big-endian inside index keys, so that they sort), reserved
//! bytes are zero and checked to be zero, and every structure has a version.
//!
//! What stands on its own on a disk is *framed* (magic, version, length, CRC-64) and says where it
//! belongs. It is decoded in two steps: `RawX::decode` trusts nothing but the checksum, and `verify`
//! turns it into an `X` only where it belongs to this pool, disk and place [R5, R26]. What lives inside
//! something checksummed (records, keys, values) is decoded in one step.
//!
//! Decoders never panic, whatever the bytes, and allocate no more than the bytes' own length justifies.
//! Encoders panic on what makes no sense: that is our own bug, and must not reach a disk.

mod bytes;
mod frame;

pub mod batch;
pub mod checksum;
pub mod cut_steps;
pub mod error;
pub mod inode_record;
pub mod journal_entry;
pub mod keys;
pub mod label;
pub mod layout;
pub mod manifest;
pub mod object_record;
pub mod root;
pub mod shard_header;
pub mod space_snapshot;
pub mod table;

pub use batch::{
    BatchReader, BatchWriter, Change, ChangeRef, VALUE_BYTES_MAX, decode_batch, encode_batch,
};
pub use checksum::{cell_crc, crc32c, crc64};
pub use cut_steps::{CUT_STEPS_MAX, CutStep, decode_cut_steps, encode_cut_steps};
pub use error::FormatError;
pub use inode_record::{DirentValue, ExtentValue, FileKind, InodeRecord, Orphan};
pub use journal_entry::{
    ENTRY_HEADER_BYTES, EntryHeader, PAYLOAD_BYTES_MAX, RawEntryHeader, batch_crc, entry_bytes,
};
pub use keys::{KEY_BYTES_MAX, Key, KeyView, name_hash};
pub use label::{EpochClaim, Label, MemberStates, RawLabel};
pub use layout::{DISK_BYTES_MIN, DiskLayout, LABEL_BYTES, LABEL_COPIES, SLOTS};
pub use object_record::{
    CODEC_VANDERMONDE, Checksums, ObjectKind, ObjectRecord, PIECE_BYTES, Piece, Place, Redundancy,
    decode_pieces, encode_pieces,
};
pub use root::{ChainLink, MemberEntry, MemberState, PoolConfig, RawRoot, RingHead, Root};
pub use shard_header::{
    HEADER_CELLS_MAX, ObjectHead, RawShardHeader, SHARD_HEADER_BYTES, ShardHeader,
};
pub use space_snapshot::{GroupState, Run, SpaceSnapshot};

#[cfg(test)]
mod tests;
