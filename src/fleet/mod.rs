//! Room 3, `fleet`: shards on disks. Objects, journal, checkpoint, placement, heat, codec, disks.

pub mod capacity;
pub mod codec;
pub mod disk;
pub mod error;
pub mod geometry;
pub mod heat;
pub mod members;
pub mod object;
pub mod placement;
pub mod reports;
pub mod space;

pub use codec::Codec;
pub use error::FleetError;
pub use heat::Heat;
pub use members::{Member, MemberState, Members};
pub use object::{ChecksumSource, ObjectContext, ObjectStore, StoredObject, WriteObject};
pub use reports::{FailReason, Report, Reports};
pub use space::{Pin, Reservation, ReserveLevel, Space, Stream};
