//! What is on a disk, as text: reads only, believes nothing it has not verified.

use std::fmt::Write as _;
use std::path::Path;

use super::host::Host;
use crate::base::limits::ROOT_BYTES_MAX;
use crate::base::{UNIT_BYTES, Units};
use crate::fleet::disk::error::ProbeError;
use crate::fleet::disk::probe::{identify, read_at};
use crate::format::{
    DiskLayout, FormatError, LABEL_BYTES, Label, RawEntryHeader, RawLabel, RawRoot, RawShardHeader,
    SLOTS,
};

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The disk cannot be read.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// No copy of the label is good.
    #[error("{path}: no good label: {source}")]
    Label {
        /// Which disk.
        path: String,
        /// What is wrong with the last copy.
        source: FormatError,
    },
    /// Beyond the data area.
    #[error("{path}: its data area has {units} units")]
    Unit {
        /// Which disk.
        path: String,
        /// How many.
        units: u64,
    },
}

impl Host {
    /// All copies of the label, good or not.
    pub fn inspect_label(&self, path: &Path) -> Result<String, InspectError> {
        let bytes = identify(path)?.identity.bytes;
        let mut text = String::new();
        for (copy, offset) in DiskLayout::label_offsets_for(bytes).into_iter().enumerate() {
            let raw = read_at(path, offset, LABEL_BYTES)?;
            let said = match RawLabel::decode(&raw, offset) {
                Ok(label) => label.describe(),
                Err(error) => format!("{error}\n"),
            };
            let _ = write!(text, "copy {copy} at byte {offset}\n{said}\n");
        }
        Ok(text)
    }

    /// Both slots.
    pub fn inspect_root(&self, path: &Path) -> Result<String, InspectError> {
        let label = self.good_label(path)?;
        let mut text = String::new();
        for slot in 0..SLOTS {
            let offset = label.layout.slot_offset(slot);
            let raw = read_at(path, offset, ROOT_BYTES_MAX)?;
            let said = match RawRoot::decode(&raw, offset) {
                Ok(root) => root.describe(),
                Err(error) => format!("{error}\n"),
            };
            let _ = write!(text, "slot {slot} at byte {offset}\n{said}\n");
        }
        Ok(text)
    }

    /// Headers of all entries in the ring, live or dead, in ring order.
    pub fn inspect_journal(&self, path: &Path) -> Result<String, InspectError> {
        let label = self.good_label(path)?;
        let (start, bytes) = (label.layout.journal_offset, label.layout.journal_bytes);
        let mut text = format!("ring of {bytes} bytes at byte {start}\n");
        let mut at = 0;
        let mut count = 0;
        while at < bytes {
            let raw = read_at(path, start + at, UNIT_BYTES)?;
            match RawEntryHeader::decode(&raw, start + at) {
                Ok(entry) => {
                    count += 1;
                    let _ = writeln!(text, "position {at}: {}", entry.describe().trim_end());
                }
                Err(FormatError::Version { .. } | FormatError::Features { .. }) => {
                    let _ = writeln!(text, "position {at}: an entry of another version");
                }
                Err(_) => {}
            }
            at += UNIT_BYTES;
        }
        let _ = writeln!(text, "{count} entries");
        Ok(text)
    }

    /// The shard header at a unit of the data area.
    pub fn inspect_object(&self, path: &Path, unit: u64) -> Result<String, InspectError> {
        let label = self.good_label(path)?;
        let units = label.layout.data_units.0;
        if unit >= units {
            return Err(InspectError::Unit { path: path.display().to_string(), units });
        }
        let offset = label.layout.data_offset(Units(unit));
        let raw = read_at(path, offset, UNIT_BYTES)?;
        Ok(match RawShardHeader::decode(&raw, offset) {
            Ok(header) => header.describe(),
            Err(error) => format!("{error}\n"),
        })
    }

    /// Where everything is on this disk.
    pub fn inspect_layout(&self, path: &Path) -> Result<String, InspectError> {
        Ok(self.good_label(path)?.layout.describe())
    }

    fn good_label(&self, path: &Path) -> Result<Label, InspectError> {
        let bytes = identify(path)?.identity.bytes;
        let mut last = FormatError::Magic { what: "label", at: 0 };
        for offset in DiskLayout::label_offsets_for(bytes) {
            let raw = read_at(path, offset, LABEL_BYTES)?;
            match RawLabel::decode(&raw, offset).and_then(|label| label.verify(bytes)) {
                Ok(label) => return Ok(label),
                Err(error) => last = error,
            }
        }
        Err(InspectError::Label { path: path.display().to_string(), source: last })
    }
}
