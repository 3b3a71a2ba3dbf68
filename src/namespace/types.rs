//! The words in which the namespace is spoken to: plain types, no kernel, no FUSE.

use crate::base::{Ino, WallTime};

pub use crate::format::FileKind;

/// Attributes of an inode, as `stat` shows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with suid, sgid and sticky: `0o7777` at most.
    pub mode: u32,
    /// Hard links.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of device nodes.
    pub rdev: u32,
    /// Bytes.
    pub size: u64,
    /// Bytes allocated, counted in 512 B as `st_blocks`.
    pub blocks: u64,
    /// Last read.
    pub atime: WallTime,
    /// Last change of content.
    pub mtime: WallTime,
    /// Last change of anything.
    pub ctime: WallTime,
    /// Creation.
    pub btime: WallTime,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// The pool's clock, now.
    Now,
    /// This time.
    At(WallTime),
}

/// Attributes to change; None leaves one as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Truncate or extend.
    pub size: Option<u64>,
    /// Last read.
    pub atime: Option<SetTime>,
    /// Last change of content.
    pub mtime: Option<SetTime>,
}

/// Attributes of a new inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewInode {
    /// What it is to be.
    pub kind: FileKind,
    /// Permission bits as asked for.
    pub mode: u32,
    /// The caller's umask: ignored where the directory has a default ACL.
    pub umask: u32,
    /// Device number of device nodes.
    pub rdev: u32,
}

/// How a rename treats its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    /// Replace it.
    Replace,
    /// Refuse if it exists.
    NoReplace,
    /// Swap the two.
    Exchange,
}

/// One entry of a directory listing. `.` and `..` are included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The inode it names.
    pub ino: Ino,
    /// Its kind.
    pub kind: FileKind,
    /// Position after this entry: pass it to go on from here. Stable under changes of others.
    pub cookie: u64,
    /// The name.
    pub name: Vec<u8>,
}

/// How setxattr treats an existing attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    /// Create or replace.
    Any,
    /// Must not exist.
    Create,
    /// Must exist.
    Replace,
}

/// What fallocate is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allocate {
    /// Reserve, extending the size if the range ends beyond it.
    Extend,
    /// Reserve, keeping the size.
    KeepSize,
    /// Make a hole, keeping the size.
    PunchHole,
    /// Make zeros, extending the size.
    Zero,
    /// Make zeros, keeping the size.
    ZeroKeepSize,
}

/// What lseek looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seek {
    /// The next byte with data.
    Data,
    /// The next hole; the end of the file counts as one.
    Hole,
}

/// Numbers of the whole file system, in bytes and counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statfs {
    /// Bytes that user data can occupy at the default redundancy, used ones included.
    pub total_bytes: u64,
    /// Of these, free.
    pub free_bytes: u64,
    /// Of these, free for users (reserves taken off).
    pub available_bytes: u64,
    /// Inodes in use.
    pub inodes: u64,
}
