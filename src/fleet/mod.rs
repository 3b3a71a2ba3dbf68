//! Room 3, `fleet`: shards on disks. Objects, journal, checkpoint, placement, heat, codec, disks.

pub mod disk;
pub mod error;

pub use error::FleetError;
