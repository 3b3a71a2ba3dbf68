//! What `create` would do: the disks, what is on them, and the redundancies they allow. Reads only.

use std::path::{Path, PathBuf};

use crate::base::UNIT_BYTES;
use crate::fleet::disk::error::ProbeError;
use crate::fleet::disk::probe::{Probe, Use, enclosure, opened_by, probe};
use crate::format::{DiskLayout, FormatError, Redundancy};

pub use crate::fleet::capacity::{Choice, choose_redundancy, usable_bytes};

/// A disk that is to become a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedDisk {
    /// As given.
    pub path: String,
    /// Model and serial number, as far as known.
    pub model: String,
    /// Serial number, empty if unknown.
    pub serial: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Bytes of its data area: what is left for objects.
    pub data_bytes: u64,
    /// The enclosure or controller it hangs on, as far as known [R24].
    pub enclosure: Option<String>,
    /// Who uses it, in words; nothing overrides that [I9].
    pub used: Vec<String>,
    /// What is on it, in words; empty for a blank disk [I9].
    pub foreign: Vec<String>,
}

/// Why a disk cannot be planned with.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It cannot be looked at.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// Two of the disks are one physical drive, or parts of one [R24].
    #[error("{first} and {second} are the same physical drive: one failure would take both")]
    SameDrive {
        /// One path.
        first: String,
        /// The other.
        second: String,
    },
    /// Too small, or impossible.
    #[error("{path}: {source}")]
    Layout {
        /// Which disk.
        path: String,
        /// Why.
        source: FormatError,
    },
}

/// Looks at the disks.
pub fn plan_disks(paths: &[PathBuf]) -> Result<Vec<PlannedDisk>, PlanError> {
    let mut probes: Vec<Probe> = Vec::new();
    for path in paths {
        let found = probe(path)?;
        let same = probes.iter().find(|other| !other.drives.is_disjoint(&found.drives));
        if let Some(other) = same {
            let (first, second) = (other.identity.path.clone(), found.identity.path);
            return Err(PlanError::SameDrive { first, second });
        }
        probes.push(found);
    }
    probes.into_iter().map(plan_disk).collect()
}

fn plan_disk(found: Probe) -> Result<PlannedDisk, PlanError> {
    let identity = found.identity;
    let layout = DiskLayout::for_disk(identity.bytes)
        .map_err(|source| PlanError::Layout { path: identity.path.clone(), source })?;
    let mut used: Vec<String> =
        found.uses.iter().map(|used| use_in_words(used, Path::new(&identity.path))).collect();
    if found.read_only {
        used.push("read-only device".to_string());
    }
    let mut foreign: Vec<String> =
        found.signatures.iter().map(|found| found.name.to_string()).collect();
    foreign.dedup();
    Ok(PlannedDisk {
        enclosure: enclosure(Path::new(&identity.path)),
        path: identity.path,
        model: identity.model,
        serial: identity.serial,
        bytes: identity.bytes,
        data_bytes: layout.data_units.0 * UNIT_BYTES,
        used,
        foreign,
    })
}

/// Who uses the disk at `path`, for people.
pub fn use_in_words(used: &Use, path: &Path) -> String {
    match used {
        Use::Mounted { at } => format!("mounted at {at}"),
        Use::Swap => "in use as swap".to_string(),
        Use::Held { by } => format!("held by {by}"),
        Use::Busy => match opened_by(path) {
            Some(process) => format!("opened by {process}"),
            None => "opened by another process".to_string(),
        },
    }
}

/// The redundancies these disks allow; see [`choose_redundancy`].
pub fn choices(disks: &[PlannedDisk]) -> Vec<Choice> {
    let bytes: Vec<u64> = disks.iter().map(|disk| disk.data_bytes).collect();
    choose_redundancy(&bytes)
}

/// Bytes of data that fit with `redundancy`; 0 if these disks do not allow it.
pub fn usable(disks: &[PlannedDisk], redundancy: Redundancy) -> u64 {
    let bytes: Vec<u64> = disks.iter().map(|disk| disk.data_bytes).collect();
    usable_bytes(&bytes, redundancy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{GIB, MIB};

    #[test]
    fn files_can_be_planned_with_and_small_ones_are_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut paths = Vec::new();
        for (index, bytes) in [GIB, 2 * GIB, 3 * GIB].into_iter().enumerate() {
            let path = directory.path().join(format!("disk{index}"));
            std::fs::File::create(&path).expect("create").set_len(bytes).expect("truncate");
            paths.push(path);
        }
        let disks = plan_disks(&paths).expect("they are fine");
        assert!(disks.iter().all(|disk| disk.foreign.is_empty() && disk.used.is_empty()));
        assert!(disks[0].data_bytes < GIB && disks[0].data_bytes > GIB * 9 / 10);
        let choices = choices(&disks);
        let default = choices.iter().find(|choice| choice.recommended).expect("a default");
        assert_eq!(default.redundancy, Redundancy::Replica { copies: 2 });
        assert_eq!(default.usable_bytes, usable(&disks, default.redundancy));
        std::fs::File::create(&paths[0]).expect("create").set_len(MIB).expect("truncate");
        assert!(matches!(plan_disks(&paths), Err(PlanError::Layout { .. })));
    }

    #[test]
    fn what_is_on_a_disk_is_named() {
        // [I9]
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("disk");
        let mut bytes = vec![0; 1 << 20];
        bytes[..4].copy_from_slice(b"XFSB");
        std::fs::write(&path, &bytes).expect("write");
        std::fs::File::options().write(true).open(&path).expect("open").set_len(GIB).expect("grow");
        let disks = plan_disks(&[path]).expect("it can be looked at");
        assert_eq!(disks[0].foreign, ["XFS filesystem"]);
    }
}
