//! Values of the namespace's keys: inode, directory entry, extent, orphan. They live in batches and
//! table blocks, whose checksums cover them.
//!
//! ```text
//! inode: 136 bytes + symlink target                        directory entry: 12 bytes
//!   0  u8 version = 1   1  u8 kind   2  u16 mode             0  u8 version = 1   1  u8 kind
//!   4  u32 links        8  u32 uid  12  u32 gid              2  u16 reserved     4  u64 inode
//!  16  u32 rdev        20  u32 flags
//!  24  u64 size        32  u64 allocated bytes             extent: 24 bytes
//!  40  u64 generation  48  u64 parent (directories)          0  u8 version = 1   1  u8 flags: 1 unwritten
//!  56  4 times: atime mtime ctime btime,                     2  u16 reserved     4  u32 offset in object
//!      each i64 seconds · u32 nanoseconds                    8  u64 length      16  u64 object
//! 104  u16 target length   106..136 reserved, zero
//! 136  symlink target                                      orphan: 16 bytes
//!                                                            0  u8 version = 1   1  u8 what
//!                                                            2..8 reserved       8  u64 from, number
//! ```

use super::FormatError;
use super::bytes::{Reader, Writer, as_u16};
use crate::base::limits::{FILE_BYTES_MAX, LINKS_MAX, SYMLINK_BYTES_MAX};
use crate::base::{Ino, ObjectId, WallTime};

const VERSION: u8 = 1;
const INODE_BYTES: usize = 136;
const UNWRITTEN: u8 = 1;

/// What an inode is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum FileKind {
    /// A regular file.
    File = 1,
    /// A directory.
    Directory = 2,
    /// A symbolic link.
    Symlink = 3,
    /// A block device node.
    BlockDevice = 4,
    /// A character device node.
    CharDevice = 5,
    /// A named pipe.
    Fifo = 6,
    /// A socket.
    Socket = 7,
}

impl FileKind {
    fn decode(reader: &mut Reader<'_>) -> Result<FileKind, FormatError> {
        Ok(match reader.u8()? {
            1 => FileKind::File,
            2 => FileKind::Directory,
            3 => FileKind::Symlink,
            4 => FileKind::BlockDevice,
            5 => FileKind::CharDevice,
            6 => FileKind::Fifo,
            7 => FileKind::Socket,
            _ => return Err(reader.wrong("kind of file")),
        })
    }
}

/// All about an inode but its names, extents and attributes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InodeRecord {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with suid, sgid and sticky: `0o7777` at most.
    pub mode: u16,
    /// Hard links; 0 while it is an orphan.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of device nodes, 0 for others.
    pub rdev: u32,
    /// For later: 0.
    pub flags: u32,
    /// Bytes; at most `FILE_BYTES_MAX`.
    pub size: u64,
    /// Bytes of its extents.
    pub allocated: u64,
    /// Distinguishes inodes for NFS; inode numbers never recur [R5], so any constant would do.
    pub generation: u64,
    /// The directory a directory is in (the root is in itself); 0 for others.
    pub parent: Ino,
    /// Last read.
    pub atime: WallTime,
    /// Last change of content.
    pub mtime: WallTime,
    /// Last change of anything.
    pub ctime: WallTime,
    /// Creation.
    pub btime: WallTime,
    /// Where a symlink points, at most `SYMLINK_BYTES_MAX`; empty for others.
    pub target: Vec<u8>,
}

impl InodeRecord {
    /// As the value under `Key::inode`.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.mode <= 0o7777 && self.links <= LINKS_MAX && self.size <= FILE_BYTES_MAX);
        assert!(self.flags == 0, "no flags are known yet");
        assert!(self.target.len() <= SYMLINK_BYTES_MAX, "targets have at most 4095 bytes");
        let mut out = Writer::with_capacity(INODE_BYTES + self.target.len());
        out.u8(VERSION).u8(self.kind as u8).u16(self.mode);
        out.u32(self.links).u32(self.uid).u32(self.gid).u32(self.rdev).u32(self.flags);
        out.u64(self.size).u64(self.allocated).u64(self.generation).u64(self.parent.0);
        out.time(self.atime).time(self.mtime).time(self.ctime).time(self.btime);
        out.u16(as_u16(self.target.len())).pad_to(INODE_BYTES).bytes(&self.target);
        out.0
    }

    /// The reverse.
    pub fn decode(bytes: &[u8]) -> Result<InodeRecord, FormatError> {
        let mut reader = Reader::new("inode record", bytes, 0);
        reader.small_version(VERSION)?;
        let kind = FileKind::decode(&mut reader)?;
        let mode = reader.u16()?;
        let (links, uid, gid) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let (rdev, flags) = (reader.u32()?, reader.u32()?);
        let (size, allocated) = (reader.u64()?, reader.u64()?);
        let (generation, parent) = (reader.u64()?, Ino(reader.u64()?));
        if mode > 0o7777 || links > LINKS_MAX || size > FILE_BYTES_MAX || flags != 0 {
            return Err(reader.wrong("mode, links, size or flags"));
        }
        let (atime, mtime) = (reader.time("atime")?, reader.time("mtime")?);
        let (ctime, btime) = (reader.time("ctime")?, reader.time("btime")?);
        let target_bytes = usize::from(reader.u16()?);
        reader.zeros(INODE_BYTES - 106)?;
        if target_bytes > SYMLINK_BYTES_MAX {
            return Err(reader.wrong("target length"));
        }
        let target = reader.take(target_bytes)?.to_vec();
        reader.finish()?;
        Ok(InodeRecord {
            kind,
            mode,
            links,
            uid,
            gid,
            rdev,
            flags,
            size,
            allocated,
            generation,
            parent,
            atime,
            mtime,
            ctime,
            btime,
            target,
        })
    }
}

/// What a directory entry says; its name is in the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirentValue {
    /// The inode it names.
    pub ino: Ino,
    /// Its kind, which never changes.
    pub kind: FileKind,
}

impl DirentValue {
    /// As the value under `Key::dirent`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(12);
        out.u8(VERSION).u8(self.kind as u8).u16(0).u64(self.ino.0);
        out.0
    }

    /// The reverse.
    pub fn decode(bytes: &[u8]) -> Result<DirentValue, FormatError> {
        let mut reader = Reader::new("directory entry", bytes, 0);
        reader.small_version(VERSION)?;
        let kind = FileKind::decode(&mut reader)?;
        reader.zeros(2)?;
        let ino = Ino(reader.u64()?);
        reader.finish()?;
        Ok(DirentValue { ino, kind })
    }
}

/// Where a byte range of a file is; its inode and offset are in the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtentValue {
    /// Bytes of the range, at least 1.
    pub length: u64,
    /// The object that holds them; 0 for unwritten ranges.
    pub object: ObjectId,
    /// Where in the object they begin.
    pub object_offset: u32,
    /// Allocated by fallocate, never written: reads as zeros, holds no bytes of an object.
    pub unwritten: bool,
}

impl ExtentValue {
    /// As the value under `Key::extent`.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.length > 0 && self.length <= FILE_BYTES_MAX, "extents are never empty");
        let mut out = Writer::with_capacity(24);
        out.u8(VERSION).u8(if self.unwritten { UNWRITTEN } else { 0 }).u16(0);
        out.u32(self.object_offset).u64(self.length).u64(self.object.0);
        out.0
    }

    /// The reverse.
    pub fn decode(bytes: &[u8]) -> Result<ExtentValue, FormatError> {
        let mut reader = Reader::new("extent", bytes, 0);
        reader.small_version(VERSION)?;
        let unwritten = reader.bool("flags")?;
        reader.zeros(2)?;
        let (object_offset, length) = (reader.u32()?, reader.u64()?);
        let object = ObjectId(reader.u64()?);
        reader.finish()?;
        if length == 0 || length > FILE_BYTES_MAX {
            return Err(reader.wrong("length"));
        }
        Ok(ExtentValue { length, object, object_offset, unwritten })
    }
}

/// Work that an operation left to be done in steps, across crashes [R19].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Orphan {
    /// No name is left: once nobody has it open, its extents, attributes and record go.
    Unlinked,
    /// Its extents at and beyond this offset are to go; the range reads as a hole already.
    Truncated {
        /// Bytes from the start of the file.
        from: u64,
    },
    /// A cut that takes several transactions was decided: its steps (`cut_steps`) are to be carried out.
    Cut {
        /// Which cut of the file.
        number: u64,
    },
}

impl Orphan {
    /// As the value under `Key::orphan`.
    pub fn encode(&self) -> Vec<u8> {
        let (what, from) = match *self {
            Orphan::Unlinked => (1, 0),
            Orphan::Truncated { from } => (2, from),
            Orphan::Cut { number } => (3, number),
        };
        let mut out = Writer::with_capacity(16);
        out.u8(VERSION).u8(what).zeros(6).u64(from);
        out.0
    }

    /// The reverse.
    pub fn decode(bytes: &[u8]) -> Result<Orphan, FormatError> {
        let mut reader = Reader::new("orphan", bytes, 0);
        reader.small_version(VERSION)?;
        let what = reader.u8()?;
        reader.zeros(6)?;
        let from = reader.u64()?;
        reader.finish()?;
        match (what, from) {
            (1, 0) => Ok(Orphan::Unlinked),
            (2, from) => Ok(Orphan::Truncated { from }),
            (3, number) => Ok(Orphan::Cut { number }),
            _ => Err(reader.wrong("kind of orphan")),
        }
    }
}
