#![allow(unsafe_code)]
//! What is behind a path: size, sectors, name, whose it is, and what is on it.
//!
//! [`identify`] asks only the kernel (`sysfs.rs`): it never touches the disk, so a hung one cannot
//! hold it up. [`probe`] also reads the disk for signatures, and tries whether somebody holds it;
//! [`read_at`] and [`write_at`] read and write a few blocks past the page cache. Those three block
//! as long as the disk does: they are for tools that look at disks, while a mounted pool, and mount
//! itself, go through [`super::UringDisk`] with deadlines.

use std::collections::BTreeSet;
use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::base::UNIT_BYTES;
use crate::base::units::{round_down, round_up};

use super::error::{Errno, ProbeError};
use super::signature::{HEAD_BYTES, Parts, TAIL_BYTES, label_places, recognise};
use super::sysfs::{Below, Device, Tree};
use super::{Buffer, Identity};

pub use super::signature::Signature;

/// Which physical drives a path leads to: common to two partitions of one drive, to one drive seen by
/// two paths, to a file and a loop device over it [R24].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DriveKey(pub String);

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
    /// Device mapper, md, or another driver sits on it, or a loop device on the file.
    Held {
        /// Name of the holder: `dm-0`, `md127`, `loop3`.
        by: String,
    },
    /// Somebody holds it exclusively.
    Busy,
}

/// What the kernel knows of a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identified {
    /// What it is.
    pub identity: Identity,
    /// The physical drives it lies on; usually one.
    pub drives: BTreeSet<DriveKey>,
    /// Cannot be written to.
    pub read_only: bool,
}

/// What probing found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// What it is.
    pub identity: Identity,
    /// The physical drives it lies on; usually one.
    pub drives: BTreeSet<DriveKey>,
    /// Cannot be written to.
    pub read_only: bool,
    /// What is on it, in order of offset.
    pub signatures: Vec<Signature>,
    /// Who uses it.
    pub uses: Vec<Use>,
}

/// Looks at the block device or regular file at `path` without touching the disk.
pub fn identify(path: &Path) -> Result<Identified, ProbeError> {
    let found = Found::at(path)?;
    let read_only = match &found.device {
        Some(device) => device.is_read_only(),
        None => found.metadata.permissions().readonly(),
    };
    Ok(Identified { identity: found.identity(), drives: found.drives(), read_only })
}

/// Looks at the block device or regular file at `path` and reads what is on it; changes nothing.
pub fn probe(path: &Path) -> Result<Probe, ProbeError> {
    let Identified { identity, drives, read_only } = identify(path)?;
    let uses = uses(path)?;
    let bytes = identity.bytes;
    let head = read_at(path, 0, round_down(bytes.min(HEAD_BYTES), UNIT_BYTES))?;
    let tail_at = round_down(bytes.saturating_sub(TAIL_BYTES), UNIT_BYTES);
    let tail_bytes = round_down(bytes - tail_at, UNIT_BYTES);
    let mut tail = read_at(path, tail_at, tail_bytes)?;
    // A disk whose size is no multiple of 4 KiB: its last sectors cannot be read in whole units.
    tail.resize((bytes - tail_at) as usize, 0);
    let mut labels = Vec::new();
    for place in label_places(bytes) {
        labels.push((place, read_at(path, place, UNIT_BYTES)?));
    }
    let signatures = recognise(&Parts { bytes, head: &head, tail: &tail, labels: &labels });
    Ok(Probe { identity, drives, read_only, signatures, uses })
}

/// Who uses the disk now [I9]. Opens it, and reads nothing.
pub fn uses(path: &Path) -> Result<Vec<Use>, ProbeError> {
    let found = Found::at(path)?;
    let mut uses = found.uses();
    if uses.is_empty() && found.is_busy()? {
        uses.push(Use::Busy);
    }
    Ok(uses)
}

/// The enclosure or controller that a disk shares with others, as far as the kernel knows [R24].
pub fn enclosure(path: &Path) -> Option<String> {
    Found::at(path).ok()?.device?.enclosure()
}

/// A process that has the disk open, in words: `isotherm (process 12)`. Of others' processes only root
/// sees that. Looks at every thread: each disk of a pool is open in one thread's table alone.
pub fn opened_by(path: &Path) -> Option<String> {
    let path = std::fs::canonicalize(path).ok()?;
    Tree::machine().opened_by(&path, std::process::id())
}

/// Reads `bytes` at `offset` (both multiples of 4096) past the page cache. Blocks as long as the disk
/// does. A short read is an error.
pub fn read_at(path: &Path, offset: u64, bytes: u64) -> Result<Vec<u8>, ProbeError> {
    assert!(offset.is_multiple_of(UNIT_BYTES) && bytes.is_multiple_of(UNIT_BYTES), "whole units");
    if bytes == 0 {
        return Ok(Vec::new());
    }
    let found = Found::at(path)?;
    let file = found.open(false, 0)?;
    let mut buffer = Buffer::zeroed(bytes as usize);
    file.read_exact_at(&mut buffer, offset).map_err(|error| found.io("read", offset, &error))?;
    Ok(buffer.to_vec())
}

/// Writes `data` at `offset` (multiples of 4096) past the page cache and flushes it; holds the disk
/// exclusively meanwhile. Blocks as long as the disk does.
pub fn write_at(path: &Path, offset: u64, data: &[u8]) -> Result<(), ProbeError> {
    let bytes = data.len() as u64;
    assert!(offset.is_multiple_of(UNIT_BYTES) && bytes.is_multiple_of(UNIT_BYTES), "whole units");
    let found = Found::at(path)?;
    let file = found.open(true, libc::O_EXCL)?;
    if found.device.is_none() && !try_lock(&file) {
        return Err(ProbeError::InUse { path: found.name() });
    }
    let end = offset.checked_add(bytes).filter(|&end| end <= found.identity().bytes);
    if end.is_none() {
        let (path, errno) = (found.name(), Errno(libc::ENOSPC));
        return Err(ProbeError::Io { path, action: "write", offset, errno });
    }
    if bytes > 0 {
        let mut buffer = Buffer::zeroed(data.len());
        buffer.copy_from_slice(data);
        file.write_all_at(&buffer, offset).map_err(|error| found.io("write", offset, &error))?;
    }
    // [I10] Told once, to whoever asked for this write; nothing here goes on as if it had worked.
    file.sync_data().map_err(|error| found.io("flush", offset, &error))
}

/// A path that leads to a block device or a regular file.
struct Found {
    path: PathBuf,
    metadata: Metadata,
    /// None for a file.
    device: Option<Device>,
    tree: Tree,
}

impl Found {
    fn at(path: &Path) -> Result<Found, ProbeError> {
        let name = || path.display().to_string();
        let metadata =
            std::fs::metadata(path).map_err(|error| convert(path, "look at", 0, &error))?;
        let tree = Tree::machine();
        let device = if metadata.file_type().is_block_device() {
            let device = tree.device(metadata.rdev());
            Some(device.ok_or_else(|| ProbeError::NotFound { path: name() })?)
        } else if metadata.is_file() {
            None
        } else {
            return Err(ProbeError::NotADisk { path: name() });
        };
        Ok(Found { path: path.to_path_buf(), metadata, device, tree })
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn io(&self, action: &'static str, offset: u64, error: &std::io::Error) -> ProbeError {
        convert(&self.path, action, offset, error)
    }

    fn identity(&self) -> Identity {
        let Some(device) = &self.device else {
            return Identity {
                path: self.name(),
                bytes: self.metadata.len(),
                logical_sector_bytes: 512,
                physical_sector_bytes: UNIT_BYTES as u32,
                is_file: true,
                ..Identity::default()
            };
        };
        let sector = |file: &str| {
            let bytes = device.queue(file).and_then(|bytes| u32::try_from(bytes).ok());
            bytes.filter(|&bytes| bytes >= 512).unwrap_or(512)
        };
        Identity {
            path: self.name(),
            model: device.model(),
            serial: device.serial(),
            by_id: self.tree.by_id(&device.name()),
            bytes: device.bytes(),
            logical_sector_bytes: sector("logical_block_size"),
            physical_sector_bytes: sector("physical_block_size"),
            rotational: device.queue("rotational") == Some(1),
            is_file: false,
        }
    }

    fn drives(&self) -> BTreeSet<DriveKey> {
        let file_key = |metadata: &Metadata| format!("file {}:{}", metadata.dev(), metadata.ino());
        let below = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            if metadata.file_type().is_block_device() {
                Some(Below::Device(metadata.rdev()))
            } else {
                Some(Below::File(file_key(&metadata)))
            }
        };
        match &self.device {
            Some(device) => device.drives(&below).into_iter().map(DriveKey).collect(),
            None => BTreeSet::from([DriveKey(file_key(&self.metadata))]),
        }
    }

    /// Everybody who uses it, as far as the kernel tells.
    fn uses(&self) -> Vec<Use> {
        let Some(device) = &self.device else {
            let file = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
            let held = self.tree.loops_over(&file).into_iter().map(|by| Use::Held { by });
            let swap = self.tree.swaps().contains(&file).then_some(Use::Swap);
            return held.chain(swap).collect();
        };
        let mut parts = device.partitions();
        parts.push(device.clone());
        let numbers: Vec<String> = parts.iter().map(Device::device_number).collect();
        let is_part = |path: &Path| {
            std::fs::metadata(path).is_ok_and(|found| {
                found.file_type().is_block_device()
                    && self
                        .tree
                        .device(found.rdev())
                        .is_some_and(|found| numbers.contains(&found.device_number()))
            })
        };
        let mut uses = Vec::new();
        for mount in self.tree.mounts() {
            if numbers.contains(&mount.device) || is_part(Path::new(&mount.source)) {
                uses.push(Use::Mounted { at: mount.at });
            }
        }
        if self.tree.swaps().iter().any(|swap| is_part(swap)) {
            uses.push(Use::Swap);
        }
        for by in parts.iter().flat_map(Device::holders) {
            uses.push(Use::Held { by });
        }
        if let Some(file) = device.backing_file().filter(|file| is_locked(file)) {
            uses.push(Use::Held { by: format!("who uses {}", file.display()) });
        }
        uses
    }

    /// Somebody else holds it exclusively.
    fn is_busy(&self) -> Result<bool, ProbeError> {
        match self.open(false, libc::O_EXCL) {
            Ok(file) => Ok(self.device.is_none() && !try_lock(&file)),
            Err(ProbeError::InUse { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Opens it past the page cache; `exclusive` is O_EXCL or 0, and is for devices only.
    fn open(&self, write: bool, exclusive: i32) -> Result<File, ProbeError> {
        let exclusive = if self.device.is_some() { exclusive } else { 0 };
        let open = |direct: i32| {
            OpenOptions::new()
                .read(true)
                .write(write)
                .custom_flags(direct | exclusive | libc::O_NOCTTY)
                .open(&self.path)
        };
        let file = match open(libc::O_DIRECT) {
            // Some filesystems cannot.
            Err(error) if self.device.is_none() && error.raw_os_error() == Some(libc::EINVAL) => {
                open(0)
            }
            other => other,
        };
        file.map_err(|error| self.io("open", 0, &error))
    }
}

/// Whether a pool has locked this regular file: a disk under another name.
fn is_locked(file: &Path) -> bool {
    let is_file = std::fs::metadata(file).is_ok_and(|found| found.is_file());
    is_file && File::open(file).is_ok_and(|file| !try_lock(&file))
}

/// Locks a file as a pool does; false if somebody else has. Ends when the file is closed.
fn try_lock(file: &File) -> bool {
    // SAFETY: flock takes no pointers; the descriptor is open as long as `file` lives.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

fn convert(path: &Path, action: &'static str, offset: u64, error: &std::io::Error) -> ProbeError {
    let path = path.display().to_string();
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV | libc::ENOTDIR) => {
            ProbeError::NotFound { path }
        }
        Some(libc::EACCES | libc::EPERM) => ProbeError::Denied { path },
        Some(libc::EBUSY) => ProbeError::InUse { path },
        errno => ProbeError::Io { path, action, offset, errno: Errno(errno.unwrap_or(0)) },
    }
}

/// Bytes of a disk that can be used: whole units.
pub fn usable_bytes(identity: &Identity) -> u64 {
    round_down(identity.bytes, round_up(u64::from(identity.logical_sector_bytes), UNIT_BYTES))
}

#[cfg(test)]
mod tests;
