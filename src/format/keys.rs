//! Keys of the index. Big-endian inside, so that the order of bytes is the order of meaning: all
//! entries of a directory, all extents of a file, all checksums of an object lie together.
//!
//! ```text
//! 01 ino                   inode record          05 object            object record
//! 02 parent hash63 name    directory entry       06 object list(u8)   checksums of one list [R16]
//! 03 ino offset            extent                07 object            live bytes, i64, merged by adding [R17]
//! 04 ino name              extended attribute    08 ino               orphan: work still to be done [R19]
//!                                                09 name              anything else of the pool
//! ```
//!
//! Numbers are u64 but for the list. `hash63` is below 2^63, so that it can be a readdir position.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::FormatError;
use super::bytes::Reader;
use crate::base::limits::NAME_BYTES_MAX;
use crate::base::{Ino, ObjectId, ShardIndex};

/// The longest key: a directory entry with a name of 255 bytes.
pub const KEY_BYTES_MAX: usize = 1 + 8 + 8 + NAME_BYTES_MAX;

const INODE: u8 = 0x01;
const DIRENT: u8 = 0x02;
const EXTENT: u8 = 0x03;
const XATTR: u8 = 0x04;
const OBJECT: u8 = 0x05;
const CHECKSUMS: u8 = 0x06;
const LIVE: u8 = 0x07;
const ORPHAN: u8 = 0x08;
const META: u8 = 0x09;

/// The smallest hash of a name: positions below are for `.`, `..` and the start of a listing.
pub const NAME_HASH_MIN: u64 = 16;
/// The largest hash of a name: the positions above mean the end to some programs.
pub const NAME_HASH_MAX: u64 = (1 << 63) - 16;

/// Where a name stands in its directory: SipHash-2-4 under the pool's own key, so that nobody can
/// prepare names that collide. In `NAME_HASH_MIN..=NAME_HASH_MAX`.
pub fn name_hash(key: [u64; 2], name: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(key[0], key[1]);
    hasher.write(name);
    (hasher.finish() >> 1).clamp(NAME_HASH_MIN, NAME_HASH_MAX)
}

/// A key of the index, in its bytes. Ordered as they are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key(Vec<u8>);

/// What a key means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyView<'a> {
    /// The inode record.
    Inode(Ino),
    /// An entry of the directory `parent`.
    Dirent {
        /// The directory.
        parent: Ino,
        /// `name_hash` of the name.
        hash: u64,
        /// The name, 1..=255 bytes.
        name: &'a [u8],
    },
    /// The extent of a file that begins at `offset`.
    Extent {
        /// The file.
        ino: Ino,
        /// Bytes from the start of the file.
        offset: u64,
    },
    /// An extended attribute.
    Xattr {
        /// Its inode.
        ino: Ino,
        /// Its name, 1..=255 bytes.
        name: &'a [u8],
    },
    /// The object record.
    Object(ObjectId),
    /// One checksum list of an object [R16].
    Checksums {
        /// The object.
        object: ObjectId,
        /// Which list: `ObjectRecord::checksum_list`.
        list: ShardIndex,
    },
    /// Live bytes of an object, an i64 merged by adding [R17].
    Live(ObjectId),
    /// An inode with work left to do: unlinked while open, or a long truncate [R19].
    Orphan(Ino),
    /// Anything else, by name, 1..=255 bytes.
    Meta(&'a [u8]),
}

impl Key {
    /// Of an inode record.
    pub fn inode(ino: Ino) -> Key {
        KeyView::Inode(ino).to_key()
    }

    /// Of a directory entry. `hash` is `name_hash(.., name)`.
    pub fn dirent(parent: Ino, hash: u64, name: &[u8]) -> Key {
        KeyView::Dirent { parent, hash, name }.to_key()
    }

    /// Of the extent of a file that begins at `offset`.
    pub fn extent(ino: Ino, offset: u64) -> Key {
        KeyView::Extent { ino, offset }.to_key()
    }

    /// Of an extended attribute.
    pub fn xattr(ino: Ino, name: &[u8]) -> Key {
        KeyView::Xattr { ino, name }.to_key()
    }

    /// Of an object record.
    pub fn object(object: ObjectId) -> Key {
        KeyView::Object(object).to_key()
    }

    /// Of one checksum list of an object.
    pub fn checksums(object: ObjectId, list: ShardIndex) -> Key {
        KeyView::Checksums { object, list }.to_key()
    }

    /// Of the live bytes of an object.
    pub fn live(object: ObjectId) -> Key {
        KeyView::Live(object).to_key()
    }

    /// Of an inode with work left to do.
    pub fn orphan(ino: Ino) -> Key {
        KeyView::Orphan(ino).to_key()
    }

    /// Of anything else. `name` has 1..=255 bytes.
    pub fn meta(name: &[u8]) -> Key {
        KeyView::Meta(name).to_key()
    }

    /// The smallest key a directory entry with this hash or a higher one can have: where a listing
    /// goes on. Not a key itself.
    pub fn dirents_from(parent: Ino, hash: u64) -> Key {
        join(DIRENT, &[&parent.0.to_be_bytes(), &hash.to_be_bytes()])
    }

    /// Between all entries of the directory `parent` and what follows.
    pub fn dirents_end(parent: Ino) -> Key {
        join(DIRENT, &[&parent.0.to_be_bytes(), &u64::MAX.to_be_bytes()])
    }

    /// Beyond all extents of the file: no offset reaches it.
    pub fn extents_end(ino: Ino) -> Key {
        join(EXTENT, &[&ino.0.to_be_bytes(), &u64::MAX.to_be_bytes()])
    }

    /// Before all extended attributes of the inode. Not a key itself.
    pub fn xattrs_from(ino: Ino) -> Key {
        join(XATTR, &[&ino.0.to_be_bytes()])
    }

    /// Beyond all extended attributes of the inode. Not a key itself.
    pub fn xattrs_end(ino: Ino) -> Key {
        join(XATTR, &[&ino.0.wrapping_add(1).to_be_bytes()])
    }

    /// The smallest key with this first byte (0x01..=0x09, see the table above) or beyond.
    pub fn kind_from(kind: u8) -> Key {
        Key(vec![kind])
    }

    /// The smallest key with this first byte about the inode or object `number`, or beyond. Not a key
    /// itself for most kinds.
    pub fn kind_from_number(kind: u8, number: u64) -> Key {
        join(kind, &[&number.to_be_bytes()])
    }

    /// Takes bytes that are known to be in order with other keys, such as the end of a range. What
    /// comes from a disk goes through [`KeyView::decode`]. One byte more than a key has is what comes
    /// right behind the longest one.
    pub fn from_bytes(bytes: &[u8]) -> Key {
        assert!(bytes.len() <= KEY_BYTES_MAX + 1, "keys are at most {KEY_BYTES_MAX} bytes long");
        Key(bytes.to_vec())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What it means.
    pub fn view(&self) -> Result<KeyView<'_>, FormatError> {
        KeyView::decode(&self.0)
    }
}

fn join(kind: u8, parts: &[&[u8]]) -> Key {
    let mut bytes = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    bytes.push(kind);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    Key(bytes)
}

impl<'a> KeyView<'a> {
    /// The key with this meaning. Panics on names that are empty or too long, and on hashes of 64
    /// bits: callers have checked them.
    pub fn to_key(self) -> Key {
        if let KeyView::Dirent { name, .. } | KeyView::Xattr { name, .. } | KeyView::Meta(name) =
            self
        {
            assert!((1..=NAME_BYTES_MAX).contains(&name.len()), "names have 1 to 255 bytes");
        }
        match self {
            KeyView::Inode(ino) => join(INODE, &[&ino.0.to_be_bytes()]),
            KeyView::Dirent { parent, hash, name } => {
                assert!(hash < 1 << 63, "hashes of names have 63 bits");
                join(DIRENT, &[&parent.0.to_be_bytes(), &hash.to_be_bytes(), name])
            }
            KeyView::Extent { ino, offset } => {
                join(EXTENT, &[&ino.0.to_be_bytes(), &offset.to_be_bytes()])
            }
            KeyView::Xattr { ino, name } => join(XATTR, &[&ino.0.to_be_bytes(), name]),
            KeyView::Object(object) => join(OBJECT, &[&object.0.to_be_bytes()]),
            KeyView::Checksums { object, list } => {
                join(CHECKSUMS, &[&object.0.to_be_bytes(), &[list.0]])
            }
            KeyView::Live(object) => join(LIVE, &[&object.0.to_be_bytes()]),
            KeyView::Orphan(ino) => join(ORPHAN, &[&ino.0.to_be_bytes()]),
            KeyView::Meta(name) => join(META, &[name]),
        }
    }

    /// What these bytes mean, or why they are no key.
    pub fn decode(bytes: &'a [u8]) -> Result<KeyView<'a>, FormatError> {
        let mut reader = Reader::new("key", bytes, 0);
        let view = match reader.u8()? {
            INODE => KeyView::Inode(ino(&mut reader)?),
            DIRENT => {
                let (parent, hash) = (ino(&mut reader)?, number(&mut reader)?);
                if hash >= 1 << 63 {
                    return Err(reader.wrong("hash"));
                }
                KeyView::Dirent { parent, hash, name: name(&mut reader)? }
            }
            EXTENT => KeyView::Extent { ino: ino(&mut reader)?, offset: number(&mut reader)? },
            XATTR => KeyView::Xattr { ino: ino(&mut reader)?, name: name(&mut reader)? },
            OBJECT => KeyView::Object(ObjectId(number(&mut reader)?)),
            CHECKSUMS => {
                let object = ObjectId(number(&mut reader)?);
                KeyView::Checksums { object, list: ShardIndex(reader.u8()?) }
            }
            LIVE => KeyView::Live(ObjectId(number(&mut reader)?)),
            ORPHAN => KeyView::Orphan(ino(&mut reader)?),
            META => KeyView::Meta(name(&mut reader)?),
            _ => return Err(FormatError::Field { what: "key", at: 0, field: "kind" }),
        };
        reader.finish()?;
        Ok(view)
    }
}

fn number(reader: &mut Reader<'_>) -> Result<u64, FormatError> {
    Ok(u64::from_be_bytes(reader.array()?))
}

fn ino(reader: &mut Reader<'_>) -> Result<Ino, FormatError> {
    Ok(Ino(number(reader)?))
}

fn name<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], FormatError> {
    if (1..=NAME_BYTES_MAX).contains(&reader.left()) {
        Ok(reader.rest())
    } else {
        Err(reader.wrong("name"))
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Readable: `Extent(7 @ 4096)`; bytes that are no key, such as the ends of ranges, in hex.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.view() {
            Ok(KeyView::Inode(ino)) => write!(f, "Inode({ino})"),
            Ok(KeyView::Dirent { parent, hash, name }) => {
                write!(f, "Dirent({parent} / {} #{hash:x})", name.escape_ascii())
            }
            Ok(KeyView::Extent { ino, offset }) => write!(f, "Extent({ino} @ {offset})"),
            Ok(KeyView::Xattr { ino, name }) => write!(f, "Xattr({ino} {})", name.escape_ascii()),
            Ok(KeyView::Object(object)) => write!(f, "Object({object})"),
            Ok(KeyView::Checksums { object, list }) => write!(f, "Checksums({object} #{list})"),
            Ok(KeyView::Live(object)) => write!(f, "Live({object})"),
            Ok(KeyView::Orphan(ino)) => write!(f, "Orphan({ino})"),
            Ok(KeyView::Meta(name)) => write!(f, "Meta({})", name.escape_ascii()),
            Err(_) => {
                f.write_str("Key(")?;
                for byte in &self.0 {
                    write!(f, "{byte:02x}")?;
                }
                f.write_str(")")
            }
        }
    }
}
