//! Room 3, `fleet`: shards on disks. Objects, journal, checkpoint, placement, heat, codec, disks.

pub mod access;
pub mod capacity;
pub mod checkpoint;
pub mod codec;
pub mod disk;
pub mod error;
pub mod geometry;
pub mod heat;
pub mod journal;
pub mod members;
pub mod object;
pub mod placement;
pub mod quorum;
pub mod reports;
pub mod space;

pub use access::Access;
pub use checkpoint::{Checkpoint, FoundRoot, SlotsRead, choose_root, read_roots};
pub use codec::Codec;
pub use error::FleetError;
pub use heat::Heat;
pub use journal::{Journal, JournalContext, Level, Mark, Replay, ReplayFrom, replay};
pub use members::{Member, MemberState, Members};
pub use object::{
    ChecksumSource, Judge, ObjectContext, ObjectStore, REBUILD_BYTES, Rebuild, Rebuilt,
    ShardHealth, StoredObject, WriteObject,
};
pub use quorum::{Quorum, RecordMembers};
pub use reports::{FailReason, Report, Reports};
pub use space::{Pin, Reservation, ReserveLevel, Snapshot, Space, Stream};
