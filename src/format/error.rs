//! What can be wrong with bytes: for the caller's decision whether to try another copy, to refuse
//! the pool, or to report damage. Never a panic: these are bytes from a disk.

/// Why bytes are not what they should be. `at` is the byte offset on the disk for structures that
/// are decoded in place, and inside the value or object otherwise.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    /// The bytes end too early.
    #[error("{what} at {at}: {have} bytes where {need} are needed")]
    Truncated {
        /// Which structure.
        what: &'static str,
        /// Where.
        at: u64,
        /// Bytes needed from there on.
        need: u64,
        /// Bytes there.
        have: u64,
    },
    /// Nothing of this kind is here: another structure, or none at all.
    #[error("{what} at {at}: not there (other magic)")]
    Magic {
        /// Which structure.
        what: &'static str,
        /// Where.
        at: u64,
    },
    /// Made by another version of the format. Behind a good checksum, so it is not rot.
    #[error(
        "{what} at {at}: format version {found}, but this program knows only {known}; \
         use the version of isotherm that wrote it"
    )]
    Version {
        /// Which structure.
        what: &'static str,
        /// Where.
        at: u64,
        /// Its version.
        found: u16,
        /// The one this program reads and writes.
        known: u16,
    },
    /// It uses features that this program does not have.
    #[error("{what} at {at}: unknown features {bits:#06x}; use a newer isotherm")]
    Features {
        /// Which structure.
        what: &'static str,
        /// Where.
        at: u64,
        /// The unknown bits.
        bits: u16,
    },
    /// Rotten, torn or never fully written.
    #[error("{what} at {at}: checksum mismatch")]
    Checksum {
        /// Which structure.
        what: &'static str,
        /// Where.
        at: u64,
    },
    /// Whole, but it belongs elsewhere: another pool, disk, place or object [R5, R26].
    #[error("{what} at {at}: belongs elsewhere, its {field} is another one")]
    Misplaced {
        /// Which structure.
        what: &'static str,
        /// Where.
        at: u64,
        /// What differs.
        field: &'static str,
    },
    /// A value that this field cannot have.
    #[error("{what} at {at}: impossible {field}")]
    Field {
        /// Which structure.
        what: &'static str,
        /// Where.
        at: u64,
        /// Which field.
        field: &'static str,
    },
    /// Larger than its place on disk; on encoding only.
    #[error("{what}: {bytes} bytes do not fit into {bytes_max}")]
    TooLarge {
        /// Which structure.
        what: &'static str,
        /// Bytes it would take.
        bytes: u64,
        /// Bytes it may take.
        bytes_max: u64,
    },
    /// A disk too small to be a member.
    #[error("a disk of {bytes} bytes is too small, at least {bytes_min} are needed")]
    DiskTooSmall {
        /// Its size.
        bytes: u64,
        /// The smallest size.
        bytes_min: u64,
    },
}
