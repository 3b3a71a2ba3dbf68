//! Looking at what is on one disk, structure by structure, for people. Reads only, without opening
//! the pool, so that it also helps where a pool does not open.
//!
//! Texts are handed out line by line as they are found: a whole data area takes hours to walk.

use std::path::Path;

use super::plan::use_in_words;
use crate::base::limits::ROOT_BYTES_MAX;
use crate::base::units::round_up;
use crate::base::{MIB, ShardIndex, UNIT_BYTES, Units};
use crate::fleet::disk::error::ProbeError;
use crate::fleet::disk::probe::{identify, read_at, uses, write_at};
use crate::format::journal_entry::{ENTRY_HEADER_BYTES, EntryHeader, RawEntryHeader};
use crate::format::shard_header::{RawShardHeader, ShardHeader};
use crate::format::{
    DiskLayout, FormatError, LABEL_BYTES, Label, RawLabel, RawRoot, Redundancy, cell_crc,
};

/// Bytes read at a time while walking.
const STEP_BYTES: u64 = 4 * MIB;

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It cannot be read.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// It has no usable label, so nothing else can be found on it.
    #[error("{path}: no usable label on this disk: it is not a member of a pool")]
    NoLabel {
        /// Which disk.
        path: String,
    },
    /// Somebody uses it [I9].
    #[error("{path} is in use: {by}; nothing was written")]
    Used {
        /// Which disk.
        path: String,
        /// By whom.
        by: String,
    },
    /// No layout for a disk of this size.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Where texts go; false ends it.
pub type Print<'a> = &'a mut dyn FnMut(&str) -> bool;

/// Where a copy of the label lies, and what it says.
type LabelCopy = (u64, Result<Label, FormatError>);

fn copies(path: &Path) -> Result<Vec<LabelCopy>, InspectError> {
    let bytes = identify(path)?.identity.bytes;
    let mut found = Vec::new();
    for offset in DiskLayout::label_offsets_for(bytes) {
        let label = read_at(path, offset, LABEL_BYTES)
            .map(|read| RawLabel::decode(&read, offset).and_then(|raw| raw.verify(bytes)))?;
        found.push((offset, label));
    }
    Ok(found)
}

/// The label that counts.
pub fn current_label(path: &Path) -> Result<Label, InspectError> {
    let labels = copies(path)?.into_iter().filter_map(|(_, label)| label.ok());
    labels
        .max_by_key(|label| label.sequence)
        .ok_or_else(|| InspectError::NoLabel { path: path.display().to_string() })
}

/// All copies of the label.
pub fn label(path: &Path, print: Print<'_>) -> Result<(), InspectError> {
    for (number, (offset, label)) in copies(path)?.into_iter().enumerate() {
        let text = match label {
            Ok(label) => label.describe(),
            Err(error) => format!("unusable: {error}\n"),
        };
        if !print(&format!("label copy {number} at {offset}\n{text}\n")) {
            break;
        }
    }
    Ok(())
}

/// The checkpoint roots in both slots.
pub fn root(path: &Path, print: Print<'_>) -> Result<(), InspectError> {
    let label = current_label(path)?;
    for (slot, &offset) in label.layout.slot_offsets.iter().enumerate() {
        let bytes = read_at(path, offset, ROOT_BYTES_MAX)?;
        let text = match RawRoot::decode(&bytes, offset) {
            Ok(raw) => match raw.clone().verify(label.pool, label.disk, slot) {
                Ok(root) => root.describe(),
                Err(error) => format!("not of this place: {error}\n{}", raw.describe()),
            },
            Err(error) => format!("none: {error}\n"),
        };
        if !print(&format!("slot {slot} at {offset}\n{text}\n")) {
            break;
        }
    }
    Ok(())
}

/// Every entry found in the journal ring, in the order of their places.
pub fn journal(path: &Path, print: Print<'_>) -> Result<(), InspectError> {
    let label = current_label(path)?;
    let (start, ring_bytes) = (label.layout.journal_offset, label.layout.journal_bytes);
    walk(path, start, ring_bytes, &mut |place, bytes| {
        let next = place + UNIT_BYTES;
        let Ok(raw) = RawEntryHeader::decode(&bytes[..ENTRY_HEADER_BYTES], place) else {
            return Some(next);
        };
        // Positions count on from lap to lap of the ring.
        let position = raw.ring_position();
        let header = raw.verify(label.pool, label.disk, position);
        let (kind, payload) = match header.ok().filter(|_| position % ring_bytes == place) {
            Some(header) => ("entry", payload_of(path, &label, place, &header)),
            None => ("entry not of this place", String::new()),
        };
        let text = raw.describe();
        let go_on = print(&format!("{kind} at {place}, byte {}\n{text}{payload}\n", start + place));
        go_on.then_some(next)
    })
}

/// Whether the payload of an entry is what it was written with, in words.
fn payload_of(path: &Path, label: &Label, place: u64, header: &EntryHeader) -> String {
    let (start, ring_bytes) = (label.layout.journal_offset, label.layout.journal_bytes);
    let bytes = round_up(header.entry_bytes(), UNIT_BYTES);
    let first = bytes.min(ring_bytes - place);
    let read = read_at(path, start + place, first).and_then(|mut entry| {
        // It may run over the end of the ring.
        entry.extend(read_at(path, start, bytes - first)?);
        Ok(entry)
    });
    let end = ENTRY_HEADER_BYTES + header.payload_len as usize;
    match read {
        Err(error) => format!("payload          cannot be read: {error}\n"),
        Ok(entry) => match header.verify_payload(&entry[ENTRY_HEADER_BYTES..end]) {
            Ok(()) => "payload          matches its checksum\n".to_string(),
            Err(_) => "payload          DOES NOT MATCH its checksum\n".to_string(),
        },
    }
}

/// Headers of shards in the data area: of all, or of the one object whose id prints as `wanted`.
pub fn object(path: &Path, wanted: Option<&str>, print: Print<'_>) -> Result<(), InspectError> {
    let label = current_label(path)?;
    let bytes = label.layout.data_units.0 * UNIT_BYTES;
    walk(path, label.layout.data_offset, bytes, &mut |position, unit| {
        let offset = Units(position / UNIT_BYTES);
        let header = RawShardHeader::decode(unit, position)
            .and_then(|raw| raw.verify(label.pool, label.disk, offset));
        let Ok(header) = header else { return Some(position + UNIT_BYTES) };
        let id = header.object.id.to_string();
        let at = label.layout.data_offset + position;
        let (cells, is_there) = cells_of(path, at, &header);
        // The payload may hold anything, also what looks like a header: it is passed over. Of an object that is
        // no more others may have the place by now.
        let payload = if is_there { u64::from(header.object.shard_bytes) } else { 0 };
        let next = position + UNIT_BYTES + payload;
        let go_on = match wanted {
            None => print(&format!(
                "unit {:<10} object {id} {:?} shard {} of {} bytes {} written in epoch {} after batch {}, \
                 cells: {cells}\n",
                offset.0,
                header.object.kind,
                header.shard,
                header.object.redundancy,
                header.object.shard_bytes,
                header.epoch,
                header.object.lsn,
            )),
            Some(wanted) if wanted == id => {
                let cells = format!("cells            {cells}");
                print(&format!("header at byte {at}\n{}{cells}\n\n", header.describe()))
            }
            Some(_) => true,
        };
        go_on.then_some(next)
    })
}

/// How many cells of the shard whose header is at byte `at` match the checksums in that, in words; and
/// whether its payload is there, as far as can be told.
fn cells_of(path: &Path, at: u64, header: &ShardHeader) -> (String, bool) {
    let object = &header.object;
    if header.checksums.0.is_empty() {
        return ("their checksums are in the index only".to_string(), true);
    }
    let bytes = round_up(object.shard_bytes.into(), UNIT_BYTES);
    let payload = match read_at(path, at + UNIT_BYTES, bytes) {
        Err(error) => return (format!("cannot be read: {error}"), false),
        Ok(payload) => payload,
    };
    let list = match object.redundancy {
        Redundancy::Replica { .. } => ShardIndex(0),
        Redundancy::Erasure { .. } => header.shard,
    };
    let cells = payload[..object.shard_bytes as usize].chunks(object.cell_bytes as usize);
    let expected = header.checksums.0.iter();
    let bad = cells.zip(expected).zip(0..).filter(|((cell, expected), column)| {
        cell_crc(object.id, list, *column, cell) != **expected
    });
    match (header.checksums.0.len(), bad.count()) {
        (all, 0) => (format!("{all}, all match"), true),
        (all, bad) => (format!("{all}, {bad} DO NOT MATCH"), false),
    }
}

/// Where everything lies: on this disk, or on a new one of `bytes`.
pub fn layout(path: &Path, print: Print<'_>) -> Result<(), InspectError> {
    let layout = match current_label(path) {
        Ok(label) => label.layout,
        Err(InspectError::NoLabel { .. }) => DiskLayout::for_disk(identify(path)?.identity.bytes)?,
        Err(error) => return Err(error),
    };
    print(&layout.describe());
    Ok(())
}

/// As [`layout`], of a disk that is not there.
pub fn layout_of_size(bytes: u64) -> Result<String, InspectError> {
    Ok(DiskLayout::for_disk(bytes)?.describe())
}

/// Calls `look` with the unit at each position; it says where to go on, or None to end. What cannot be
/// read is passed over as if it were zeros.
fn walk(
    path: &Path,
    start: u64,
    bytes: u64,
    look: &mut dyn FnMut(u64, &[u8]) -> Option<u64>,
) -> Result<(), InspectError> {
    let unit = UNIT_BYTES as usize;
    let (mut position, mut from, mut step) = (0, 0, Vec::new());
    while position + UNIT_BYTES <= bytes {
        if position < from || position + UNIT_BYTES > from + step.len() as u64 {
            from = position;
            let length = STEP_BYTES.min(bytes - from);
            step = read_at(path, start + from, length).unwrap_or_else(|error| {
                log::warn!("{error}");
                vec![0; length as usize]
            });
        }
        let at = (position - from) as usize;
        match look(position, &step[at..at + unit]) {
            Some(next) => position = next.max(position + UNIT_BYTES),
            None => break,
        }
    }
    Ok(())
}

/// The label of a disk that may be wiped: it has one, and nobody uses it [I9].
pub fn wipeable(path: &Path) -> Result<Label, InspectError> {
    let label = current_label(path)?;
    match uses(path)?.first() {
        None => Ok(label),
        Some(used) => {
            let by = use_in_words(used, path);
            Err(InspectError::Used { path: path.display().to_string(), by })
        }
    }
}

/// Takes the labels and roots off a disk, so that no pool takes it any more. Its data stays until it
/// is overwritten. Refused if it is not [`wipeable`].
pub fn wipe(path: &Path) -> Result<Label, InspectError> {
    let label = wipeable(path)?;
    // The labels first: from the first one on, the disk is on its way out.
    let places = label.layout.label_offsets.iter().chain(&label.layout.slot_offsets);
    for &offset in places {
        write_at(path, offset, &vec![0; UNIT_BYTES as usize])?;
    }
    Ok(label)
}
