//! The manifest: which tables the index consists of. A chain of objects named by the root; the first is
//! whole, the others change what is before them [R9].
//!
//! ```text
//!   0  frame "ISOMANIF", version 1, length as used
//!  24  u64 object · u64 sequence · u8 whole · 3 B reserved · u32 entries
//!  48  per entry: u8 kind, then
//!        1 add     u8 level · u64 run · u16 length of record · record (`object_record.rs`) ·
//!                  meta (`table.rs`)
//!        2 remove  u64 object of the table
//! ```
//!
//! An entry takes about 250 bytes: the 24,000 tables of 100 TB make 6 MB.

use super::bytes::{Reader, Writer, as_u16, as_u32};
use super::frame::Kind;
use super::table::{LEVEL_MAX, TableMeta};
use super::{FormatError, ObjectKind, ObjectRecord};
use crate::base::{MIB, ObjectId};

const KIND: Kind =
    Kind { what: "manifest", magic: *b"ISOMANIF", version: 1, oldest: 1, bytes_max: 32 * MIB };
const HEAD_BYTES: usize = 48;
const ENTRY_BYTES_MIN: usize = 9;

const ADD: u8 = 1;
const REMOVE: u8 = 2;

/// One live table of the index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableEntry {
    /// Level, 0..=7. Tables of level 0 may overlap; of one other level never.
    pub level: u8,
    /// On level 0: which flush wrote it; higher is newer, tables of one run are disjoint. Else 0.
    pub run: u64,
    /// Where it is.
    pub record: ObjectRecord,
    /// What is in it.
    pub meta: TableMeta,
}

/// A change of the set of live tables. A table that changes its level is removed and added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ManifestEntry {
    /// This table is live.
    Add(Box<TableEntry>),
    /// This table is no longer.
    Remove(ObjectId),
}

/// One object of the manifest's chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The object it is.
    pub object: ObjectId,
    /// The root's sequence it was written for.
    pub sequence: u64,
    /// It begins a chain: nothing before it counts, and it only adds.
    pub whole: bool,
    /// Changes, in order.
    pub entries: Vec<ManifestEntry>,
}

impl Manifest {
    /// The object's bytes. Fails only if it is too large: then write several, the first one whole.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let mut out = KIND.begin(HEAD_BYTES + 256 * self.entries.len());
        out.u64(self.object.0).u64(self.sequence).bool(self.whole).zeros(3);
        out.u32(as_u32(self.entries.len()));
        for entry in &self.entries {
            encode_entry(&mut out, entry);
        }
        KIND.seal(out)
    }

    /// The reverse. `object` is what was read: another one's bytes are refused [I4].
    pub fn decode(bytes: &[u8], object: ObjectId) -> Result<Manifest, FormatError> {
        let mut reader = KIND.open(bytes, 0)?;
        if ObjectId(reader.u64()?) != object {
            return Err(KIND.misplaced(0, "object"));
        }
        let (sequence, whole) = (reader.u64()?, reader.bool("whole")?);
        reader.zeros(3)?;
        let count = reader.u32()?;
        let count = reader.count(count.into(), ENTRY_BYTES_MIN, "number of entries")?;
        let entries = (0..count).map(|_| decode_entry(&mut reader)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Manifest { object, sequence, whole, entries })
    }
}

fn encode_entry(out: &mut Writer, entry: &ManifestEntry) {
    match entry {
        ManifestEntry::Add(table) => {
            let record = table.record.encode();
            out.u8(ADD).u8(table.level).u64(table.run).u16(as_u16(record.len())).bytes(&record);
            table.meta.encode(out);
        }
        ManifestEntry::Remove(object) => {
            out.u8(REMOVE).u64(object.0);
        }
    }
}

fn decode_entry(reader: &mut Reader<'_>) -> Result<ManifestEntry, FormatError> {
    match reader.u8()? {
        ADD => {
            let (level, run) = (reader.u8()?, reader.u64()?);
            let record_bytes = reader.u16()?.into();
            let record = ObjectRecord::decode(reader.take(record_bytes)?)?;
            if level > LEVEL_MAX || (level > 0 && run > 0) || record.kind != ObjectKind::Table {
                return Err(reader.wrong("level, run or kind of a table"));
            }
            let meta = TableMeta::decode(reader)?;
            if !meta.fits(record.length) {
                return Err(reader.wrong("length of a table"));
            }
            Ok(ManifestEntry::Add(Box::new(TableEntry { level, run, record, meta })))
        }
        REMOVE => Ok(ManifestEntry::Remove(ObjectId(reader.u64()?))),
        _ => Err(reader.wrong("kind of entry")),
    }
}

/// The tables that a chain of manifests, from the whole one on, leaves live, in the order they were
/// added. None if one is removed that is not there or added twice, or the chain begins with an
/// increment.
pub fn live_tables(chain: &[Manifest]) -> Option<Vec<TableEntry>> {
    let mut live: std::collections::BTreeMap<ObjectId, (usize, TableEntry)> = Default::default();
    let mut added = 0;
    if !chain.first()?.whole || chain[1..].iter().any(|manifest| manifest.whole) {
        return None;
    }
    for entry in chain.iter().flat_map(|manifest| &manifest.entries) {
        let fine = match entry {
            ManifestEntry::Add(table) => {
                added += 1;
                live.insert(table.record.id, (added, (**table).clone())).is_none()
            }
            ManifestEntry::Remove(object) => live.remove(object).is_some(),
        };
        if !fine {
            return None;
        }
    }
    let mut tables: Vec<_> = live.into_values().collect();
    tables.sort_by_key(|(added, _)| *added);
    Some(tables.into_iter().map(|(_, table)| table).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{DiskIndex, Epoch, Lsn, Units};
    use crate::format::table::{Op, TableBuilder};
    use crate::format::{CODEC_VANDERMONDE, Place, Redundancy};

    fn table(counter: u64, level: u8) -> TableEntry {
        let mut builder = TableBuilder::new(counter, 4096);
        builder.add(&counter.to_be_bytes(), Lsn(counter), Op::Put(b"value"));
        let built = builder.finish().unwrap();
        let length = built.bytes.len() as u32;
        let record = ObjectRecord {
            id: ObjectId::new(Epoch(1), counter),
            kind: ObjectKind::Table,
            redundancy: Redundancy::Replica { copies: 2 },
            codec: CODEC_VANDERMONDE,
            cell_bytes: 32768,
            length,
            shard_bytes: length.next_multiple_of(4096),
            pieces_offset: length,
            version: 1,
            provisional: false,
            lsn: Lsn(counter),
            places: vec![Some(Place { disk: DiskIndex(1), offset: Units(7) }), None],
        };
        TableEntry { level, run: 0, record, meta: built.meta }
    }

    fn add(table: &TableEntry) -> ManifestEntry {
        ManifestEntry::Add(Box::new(table.clone()))
    }

    #[test]
    fn a_manifest_keeps_what_it_is_told_and_refuses_bad_bytes() {
        let object = ObjectId::new(Epoch(1), 99);
        let (a, b) = (table(1, 0), table(2, 3));
        let entries = vec![add(&a), add(&b), ManifestEntry::Remove(a.record.id)];
        let manifest = Manifest { object, sequence: 5, whole: true, entries };
        let bytes = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&bytes, object).unwrap(), manifest);
        assert!(Manifest::decode(&bytes, ObjectId(7)).is_err(), "I4: another object");
        for index in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[index] ^= 0x10;
            assert!(Manifest::decode(&bad, object).is_err());
            assert!(Manifest::decode(&bytes[..index], object).is_err());
        }
    }

    #[test]
    fn r9_a_chain_leaves_what_was_added_and_not_removed() {
        let object = ObjectId::new(Epoch(1), 99);
        let (a, b, mut c) = (table(1, 0), table(2, 0), table(1, 1));
        let remove = ManifestEntry::Remove(a.record.id);
        c.record.id = a.record.id;
        let whole = Manifest { object, sequence: 1, whole: true, entries: vec![add(&a), add(&b)] };
        let more = vec![remove.clone(), add(&c)];
        let more = Manifest { object, sequence: 2, whole: false, entries: more };
        let chain = [whole.clone(), more.clone()];
        assert_eq!(live_tables(&chain), Some(vec![b, c]));
        assert_eq!(live_tables(std::slice::from_ref(&more)), None, "it begins with an increment");
        assert_eq!(live_tables(&[]), None);
        let twice = Manifest { entries: vec![remove.clone(), remove], ..more };
        assert_eq!(live_tables(&[whole, twice]), None, "removed twice");
    }
}
