//! The words in which the model is spoken to: its own, so that it shares none with what it judges.

use std::collections::BTreeMap;

use super::content::Content;
use crate::base::WallTime;

/// A file name.
pub type Name = Vec<u8>;

/// What an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    File,
    Directory,
    Symlink,
    BlockDevice,
    CharDevice,
    Fifo,
    Socket,
}

/// Why an operation was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Refusal {
    NotFound,
    Exists,
    NotDirectory,
    IsDirectory,
    NotEmpty,
    NameTooLong,
    Invalid,
    NotPermitted,
    NoData,
    TooBig,
    FileTooBig,
}

/// What an operation came to.
pub type Outcome<T> = Result<T, Refusal>;

/// Whose new inodes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Caller {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A new inode.
#[derive(Clone, Debug)]
pub struct New {
    /// What it is to be.
    pub kind: Kind,
    /// Permission bits, umask already taken off.
    pub mode: u32,
    /// Device number of device nodes.
    pub rdev: u32,
    /// Target of a symlink, empty for others.
    pub target: Vec<u8>,
}

/// Attributes to change.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "the names say it")]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<WallTime>,
    pub mtime: Option<WallTime>,
}

/// How a rename treats its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Rename {
    Replace,
    NoReplace,
    Exchange,
}

/// How setxattr treats an existing attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum XattrMode {
    Any,
    Create,
    Replace,
}

/// What fallocate is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Reserve {
    Extend,
    KeepSize,
    PunchHole,
    Zero,
    ZeroKeepSize,
}

/// Everything of an inode that follows the inode's own order [I2]; entries and links follow the
/// history of namespace operations.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Body {
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size: u64,
    pub atime: WallTime,
    pub mtime: WallTime,
    pub ctime: WallTime,
    pub btime: WallTime,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Name, Vec<u8>>,
    pub content: Content,
}

impl Body {
    /// A directory as `mkfs` would make the root.
    pub fn root(mode: u32, owner: Caller, now: WallTime) -> Body {
        Body {
            kind: Kind::Directory,
            mode,
            uid: owner.uid,
            gid: owner.gid,
            rdev: 0,
            size: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            target: Vec::new(),
            xattrs: BTreeMap::new(),
            content: Content::default(),
        }
    }

    /// Content was changed.
    pub(super) fn modified(&mut self, kill: bool, now: WallTime) {
        self.mtime = now;
        self.ctime = now;
        if kill {
            self.clear_suid();
        }
    }

    /// Suid goes; sgid too, where the group may execute.
    pub(super) fn clear_suid(&mut self) {
        self.mode &= !0o4000;
        if self.mode & 0o010 != 0 {
            self.mode &= !0o2000;
        }
    }
}
