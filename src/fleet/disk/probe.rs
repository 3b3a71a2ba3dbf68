#![allow(unsafe_code)]
//! What is behind a path: size, sectors, name, whose it is, and what is on it.

use std::path::Path;

use super::Identity;
use super::error::ProbeError;

/// Which physical drive a path leads to: equal for two partitions of one drive, for one drive seen by
/// two paths, for a file and a loop device over it [R24].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DriveKey(pub String);

/// Something recognised on a disk [I9].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signature {
    /// For people: `ext4`, `GPT partition table`, `Isotherm`, ...
    pub name: &'static str,
    /// Byte offset of its magic number.
    pub offset: u64,
    /// One of ours.
    pub isotherm: bool,
}

/// Who uses a disk now [I9].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Use {
    /// A filesystem on it, or on a partition of it, is mounted there.
    Mounted {
        /// Mount point.
        at: String,
    },
    /// Swap space.
    Swap,
    /// Device mapper, md, or another driver sits on it.
    Held {
        /// Name of the holder: `dm-0`, `md127`.
        by: String,
    },
    /// Somebody holds it exclusively.
    Busy,
}

/// What probing found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// What it is.
    pub identity: Identity,
    /// Which physical drive.
    pub drive: DriveKey,
    /// What is on it.
    pub signatures: Vec<Signature>,
    /// Who uses it.
    pub uses: Vec<Use>,
    /// Cannot be written to.
    pub read_only: bool,
}

/// Looks at the block device or regular file at `path`; changes nothing.
pub fn probe(path: &Path) -> Result<Probe, ProbeError> {
    let _ = path;
    todo!("lands next")
}

/// Reads `bytes` at `offset` past the page cache (both multiples of 4096).
pub fn read_at(path: &Path, offset: u64, bytes: usize) -> Result<Vec<u8>, ProbeError> {
    let _ = (path, offset, bytes);
    todo!("lands next")
}

/// Writes `data` at `offset` (multiples of 4096) past the page cache and flushes it. Holds the disk
/// exclusively meanwhile.
pub fn write_at(path: &Path, offset: u64, data: &[u8]) -> Result<(), ProbeError> {
    let _ = (path, offset, data);
    todo!("lands next")
}
