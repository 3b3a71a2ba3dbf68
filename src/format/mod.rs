//! Room `format`: every byte on disk, as pure functions between bytes and types. No I/O.

pub mod manifest;
pub mod object_record;
pub mod table;

pub use object_record::{Checksums, ObjectKind, ObjectRecord, Piece, Place, Redundancy};
