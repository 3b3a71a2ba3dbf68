//! The payload of a journal entry: changes that become visible together, in this order.
//!
//! ```text
//!   0  u16 version = 1   2  u16 reserved   4  u32 changes
//!   8  per change:  u8 kind, then
//!        1 put      u16 key length · u32 value length · key · value
//!        2 delete   u16 key length · key
//!        3 add      u16 key length · i64 delta · key
//!        4 inline   u64 inode · u64 offset · u32 length · data
//!        5 settled  u64 inode · u64 offset · u64 length
//! ```
//!
//! The checksum over it is the entry's: `journal_entry::batch_crc`. An *add* merges into the i64 under
//! its key [R17]. *Inline* data belongs to the write buffer until it is in an object [R10]; *settled*
//! says that what was logged inline of this range before is void: the index knows better by now.

use super::FormatError;
use super::bytes::{Reader, Writer, as_u16, as_u32};
use super::keys::{KEY_BYTES_MAX, Key, KeyView};
use crate::base::Ino;
use crate::base::limits::{FILE_BYTES_MAX, OPERATION_BYTES_MAX};

const VERSION: u16 = 1;
const HEAD_BYTES: usize = 8;
const CHANGE_BYTES_MIN: usize = 4;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const ADD: u8 = 3;
const INLINE: u8 = 4;
const SETTLED: u8 = 5;

/// The longest value in the index: an extended attribute with its head [R19].
pub const VALUE_BYTES_MAX: usize = OPERATION_BYTES_MAX as usize / 2;

/// One change of the index or of a file's data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// `key` has `value` from now on.
    Put {
        /// Which.
        key: Key,
        /// What; at most `VALUE_BYTES_MAX`.
        value: Vec<u8>,
    },
    /// `key` is no more.
    Delete {
        /// Which.
        key: Key,
    },
    /// The i64 under `key` (0 if there is none) grows by `delta`.
    Add {
        /// Which.
        key: Key,
        /// By how much.
        delta: i64,
    },
    /// The file has these bytes, which are in no object yet.
    Inline {
        /// Which file.
        ino: Ino,
        /// Where in it.
        offset: u64,
        /// The bytes, at least one.
        data: Vec<u8>,
    },
    /// Inline data of this range, of batches before or of changes before in this batch, is void.
    Settled {
        /// Which file.
        ino: Ino,
        /// Where in it.
        offset: u64,
        /// Bytes, at least one; the range may end at `u64::MAX`.
        length: u64,
    },
}

/// A change still in the bytes it was decoded from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeRef<'a> {
    /// As [`Change::Put`]; the key's bytes were checked.
    Put {
        /// Which.
        key: &'a [u8],
        /// What.
        value: &'a [u8],
    },
    /// As [`Change::Delete`].
    Delete {
        /// Which.
        key: &'a [u8],
    },
    /// As [`Change::Add`].
    Add {
        /// Which.
        key: &'a [u8],
        /// By how much.
        delta: i64,
    },
    /// As [`Change::Inline`].
    Inline {
        /// Which file.
        ino: Ino,
        /// Where in it.
        offset: u64,
        /// The bytes.
        data: &'a [u8],
    },
    /// As [`Change::Settled`].
    Settled {
        /// Which file.
        ino: Ino,
        /// Where in it.
        offset: u64,
        /// Bytes.
        length: u64,
    },
}

impl Change {
    /// The same, borrowed.
    pub fn view(&self) -> ChangeRef<'_> {
        match self {
            Change::Put { key, value } => ChangeRef::Put { key: key.as_bytes(), value },
            Change::Delete { key } => ChangeRef::Delete { key: key.as_bytes() },
            Change::Add { key, delta } => ChangeRef::Add { key: key.as_bytes(), delta: *delta },
            Change::Inline { ino, offset, data } => {
                ChangeRef::Inline { ino: *ino, offset: *offset, data }
            }
            Change::Settled { ino, offset, length } => {
                ChangeRef::Settled { ino: *ino, offset: *offset, length: *length }
            }
        }
    }

    /// Bytes it takes in a batch.
    pub fn encoded_bytes(&self) -> usize {
        self.view().encoded_bytes()
    }
}

impl ChangeRef<'_> {
    /// The same, owned.
    pub fn to_change(self) -> Change {
        match self {
            ChangeRef::Put { key, value } => {
                Change::Put { key: Key::from_bytes(key), value: value.to_vec() }
            }
            ChangeRef::Delete { key } => Change::Delete { key: Key::from_bytes(key) },
            ChangeRef::Add { key, delta } => Change::Add { key: Key::from_bytes(key), delta },
            ChangeRef::Inline { ino, offset, data } => {
                Change::Inline { ino, offset, data: data.to_vec() }
            }
            ChangeRef::Settled { ino, offset, length } => Change::Settled { ino, offset, length },
        }
    }

    /// Bytes it takes in a batch.
    pub fn encoded_bytes(self) -> usize {
        match self {
            ChangeRef::Put { key, value } => 1 + 2 + 4 + key.len() + value.len(),
            ChangeRef::Delete { key } => 1 + 2 + key.len(),
            ChangeRef::Add { key, .. } => 1 + 2 + 8 + key.len(),
            ChangeRef::Inline { data, .. } => 1 + 8 + 8 + 4 + data.len(),
            ChangeRef::Settled { .. } => 1 + 8 + 8 + 8,
        }
    }
}

/// A batch in the making.
#[derive(Clone, Debug)]
pub struct BatchWriter {
    writer: Writer,
    changes: u32,
}

impl Default for BatchWriter {
    fn default() -> BatchWriter {
        BatchWriter::new()
    }
}

impl BatchWriter {
    /// An empty batch.
    pub fn new() -> BatchWriter {
        let mut writer = Writer::default();
        writer.u16(VERSION).u16(0).u32(0);
        BatchWriter { writer, changes: 0 }
    }

    /// Appends a change. Panics on keys and values beyond their limits: our own.
    pub fn push(&mut self, change: ChangeRef<'_>) {
        let writer = &mut self.writer;
        match change {
            ChangeRef::Put { key, value } => {
                assert!(value.len() <= VALUE_BYTES_MAX, "R19: a value of {} bytes", value.len());
                writer.u8(PUT).u16(as_u16(key.len())).u32(as_u32(value.len()));
                writer.bytes(key).bytes(value);
            }
            ChangeRef::Delete { key } => {
                writer.u8(DELETE).u16(as_u16(key.len())).bytes(key);
            }
            ChangeRef::Add { key, delta } => {
                writer.u8(ADD).u16(as_u16(key.len())).i64(delta).bytes(key);
            }
            ChangeRef::Inline { ino, offset, data } => {
                writer.u8(INLINE).u64(ino.0).u64(offset).u32(as_u32(data.len())).bytes(data);
            }
            ChangeRef::Settled { ino, offset, length } => {
                writer.u8(SETTLED).u64(ino.0).u64(offset).u64(length);
            }
        }
        self.changes += 1;
    }

    /// Changes so far.
    pub fn changes(&self) -> usize {
        self.changes as usize
    }

    /// Nothing was pushed yet.
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// Bytes so far, as `finish` would return them.
    pub fn encoded_bytes(&self) -> usize {
        self.writer.0.len()
    }

    /// The payload.
    pub fn finish(mut self) -> Vec<u8> {
        self.writer.0[4..8].copy_from_slice(&self.changes.to_le_bytes());
        self.writer.0
    }
}

/// The payload with these changes.
pub fn encode_batch(changes: &[Change]) -> Vec<u8> {
    let mut writer = BatchWriter::new();
    for change in changes {
        writer.push(change.view());
    }
    writer.finish()
}

/// The changes of a payload whose checksum was verified, in order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct BatchReader<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> BatchReader<'a> {
    /// Begins to decode a payload.
    pub fn new(payload: &'a [u8]) -> Result<BatchReader<'a>, FormatError> {
        let mut reader = Reader::new("batch", payload, 0);
        reader.version(VERSION)?;
        reader.zeros(2)?;
        let changes = reader.u32()?;
        let left = reader.count(changes.into(), CHANGE_BYTES_MIN, "number of changes")?;
        if left == 0 {
            reader.finish()?;
        }
        Ok(BatchReader { reader, left })
    }

    fn change(&mut self) -> Result<ChangeRef<'a>, FormatError> {
        let reader = &mut self.reader;
        let change = match reader.u8()? {
            PUT => {
                let (key_bytes, value_bytes) = (reader.u16()?, reader.u32()? as usize);
                if value_bytes > VALUE_BYTES_MAX {
                    return Err(reader.wrong("value length"));
                }
                ChangeRef::Put { key: key(reader, key_bytes)?, value: reader.take(value_bytes)? }
            }
            DELETE => {
                let key_bytes = reader.u16()?;
                ChangeRef::Delete { key: key(reader, key_bytes)? }
            }
            ADD => {
                let (key_bytes, delta) = (reader.u16()?, reader.i64()?);
                ChangeRef::Add { key: key(reader, key_bytes)?, delta }
            }
            INLINE => {
                let (ino, offset, length) = (Ino(reader.u64()?), reader.u64()?, reader.u32()?);
                let end = offset.checked_add(length.into());
                if length == 0 || end.is_none_or(|end| end > FILE_BYTES_MAX) {
                    return Err(reader.wrong("inline range"));
                }
                ChangeRef::Inline { ino, offset, data: reader.take(length as usize)? }
            }
            SETTLED => {
                let (ino, offset, length) = (Ino(reader.u64()?), reader.u64()?, reader.u64()?);
                if length == 0 || offset.checked_add(length).is_none() {
                    return Err(reader.wrong("settled range"));
                }
                ChangeRef::Settled { ino, offset, length }
            }
            _ => return Err(reader.wrong("kind of change")),
        };
        if self.left == 1 {
            reader.finish()?;
        }
        Ok(change)
    }
}

fn key<'a>(reader: &mut Reader<'a>, bytes: u16) -> Result<&'a [u8], FormatError> {
    let key = reader.take(bytes.into())?;
    if key.len() > KEY_BYTES_MAX || KeyView::decode(key).is_err() {
        return Err(reader.wrong("key"));
    }
    Ok(key)
}

impl<'a> Iterator for BatchReader<'a> {
    type Item = Result<ChangeRef<'a>, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let change = self.change();
        self.left = if change.is_ok() { self.left - 1 } else { 0 };
        Some(change)
    }
}

/// All changes of a payload, or the first thing that is wrong with it.
pub fn decode_batch(payload: &[u8]) -> Result<Vec<Change>, FormatError> {
    BatchReader::new(payload)?.map(|change| change.map(ChangeRef::to_change)).collect()
}

const _: () = assert!(HEAD_BYTES == 8 && CHANGE_BYTES_MIN == 1 + 2 + 1);
