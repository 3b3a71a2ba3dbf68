//! What the kernel's side needs from a file system: the seam between the transport (`fuse.rs` today)
//! and whatever answers (the namespace; the in-memory file system of tests and benchmarks).
//!
//! All calls are synchronous and may block; many threads call at once. Names are bytes without `/` or
//! NUL, at most 255 of them as far as the caller knows. Permissions were checked by the kernel
//! (`default_permissions`): callers are handed down for ownership, for what only the daemon can
//! decide (suid and sgid), and for listing `trusted.*` attributes.
//!
//! 1. References: every `Attr` returned by `lookup`, `mknod`, `mkdir`, `symlink`, `link`, `create`,
//!    and every `readdirplus` entry *taken* by the callback except `.` and `..`, is one reference that
//!    the kernel holds until `forget` gives it back. An inode with no name and no references, and
//!    not open, may be freed. A crash or an unmount forgets everything.
//! 2. Handles: each `open`, `create` and `opendir` is matched by exactly one `release` or
//!    `releasedir`, unless the mount ends first.
//! 3. The kernel caches names and attributes for an hour, because all changes come through it. What
//!    the file system changes by itself must not show: `blocks` of dirty data is counted when
//!    written, not when flushed. Times after write, truncate and rename are asked for again.

use crate::base::{Ino, WallTime};
use crate::namespace::{
    Allocate, Attr, Caller, DirEntry, NamespaceError, NewInode, ReadBuffer, RenameMode, Seek,
    SetAttr, Statfs, XattrMode,
};

/// What an operation returns.
pub type FsResult<T> = Result<T, NamespaceError>;

/// An open file or directory, as numbered by the file system.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Handle(pub u64);

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenMode {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Every write goes to the end.
    pub append: bool,
    /// To be cut to nothing, in the same step as the open.
    pub truncate: bool,
    /// With `create`: the name must not exist.
    pub exclusive: bool,
}

/// How a write is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteMode {
    /// Clear suid, sgid (if group-executable) and `security.capability` of the file.
    pub kill_privileges: bool,
    /// The file was opened for appending: the kernel's offset is the end of the file as it knows it,
    /// which is right, since it is the only writer.
    pub append: bool,
    /// From the page cache (`-o writeback`, or a memory mapping): the handle may be any open one of
    /// this inode, and the bytes beyond the end of the file were cut off by the kernel.
    pub from_cache: bool,
}

/// One side of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyEnd {
    /// The file.
    pub ino: Ino,
    /// Opened as.
    pub handle: Handle,
    /// From this byte on.
    pub offset: u64,
}

/// A file system, as the kernel uses one. See the module for what holds between calls.
pub trait FileSystem: Send + Sync {
    /// The inode that `name` stands for in `parent`. Takes one reference.
    fn lookup(&self, parent: Ino, name: &[u8]) -> FsResult<Attr>;
    /// Gives `references` back.
    fn forget(&self, ino: Ino, references: u64);
    /// Attributes now.
    fn getattr(&self, ino: Ino) -> FsResult<Attr>;
    /// The time with which it marks changes.
    fn now(&self) -> WallTime;
    /// Changes attributes. A changed size by a caller that is not root, and a changed owner by
    /// anyone, clears suid, sgid (if group-executable) and `security.capability` of a regular file.
    fn setattr(
        &self,
        ino: Ino,
        handle: Option<Handle>,
        change: &SetAttr,
        caller: Caller,
    ) -> FsResult<Attr>;
    /// Where a symbolic link points.
    fn readlink(&self, ino: Ino) -> FsResult<Vec<u8>>;
    /// Makes a file, device node, fifo or socket. Takes one reference. The umask in `new` is still
    /// to be applied, unless `parent` has a default ACL.
    fn mknod(&self, parent: Ino, name: &[u8], new: &NewInode, caller: Caller) -> FsResult<Attr>;
    /// Makes a directory. Takes one reference.
    fn mkdir(&self, parent: Ino, name: &[u8], new: &NewInode, caller: Caller) -> FsResult<Attr>;
    /// Removes the name of anything but a directory.
    fn unlink(&self, parent: Ino, name: &[u8]) -> FsResult<()>;
    /// Removes an empty directory.
    fn rmdir(&self, parent: Ino, name: &[u8]) -> FsResult<()>;
    /// Makes a symbolic link to `target`. Takes one reference.
    fn symlink(&self, parent: Ino, name: &[u8], target: &[u8], caller: Caller) -> FsResult<Attr>;
    /// Gives `ino` another name. Takes one reference.
    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> FsResult<Attr>;
    /// Moves a name.
    fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        mode: RenameMode,
    ) -> FsResult<()>;

    /// Opens a regular file. `truncate` cuts it in the same step (and clears suid and sgid as
    /// `setattr` does).
    fn open(&self, ino: Ino, mode: OpenMode, caller: Caller) -> FsResult<Handle>;
    /// Makes a regular file and opens it; a name that exists is opened, unless `exclusive`.
    /// Takes one reference.
    fn create(
        &self,
        parent: Ino,
        name: &[u8],
        new: &NewInode,
        mode: OpenMode,
        caller: Caller,
    ) -> FsResult<(Attr, Handle)>;
    /// Appends to `into` (handed over empty) the bytes from `offset` on, `size` of them, fewer only
    /// at the end of the file.
    fn read(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        size: u32,
        into: &mut ReadBuffer,
    ) -> FsResult<()>;
    /// Writes all of `data` at `offset`; returns its length. Waits while the write buffer is full.
    fn write(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        data: &[u8],
        mode: WriteMode,
    ) -> FsResult<u32>;
    /// One of the descriptors of `handle` is being closed; the place to report a late write error.
    fn flush(&self, ino: Ino, handle: Handle) -> FsResult<()>;
    /// The last descriptor was closed.
    fn release(&self, ino: Ino, handle: Handle) -> FsResult<()>;
    /// Makes the file durable [I1]; with `data_only` without times that do not matter for reading.
    fn fsync(&self, ino: Ino, handle: Handle, data_only: bool) -> FsResult<()>;

    /// Opens a directory.
    fn opendir(&self, ino: Ino) -> FsResult<Handle>;
    /// Lists a directory from `cookie` on (0: from the start), `.` and `..` included, until `add`
    /// says false: that entry was not taken.
    fn readdir(
        &self,
        ino: Ino,
        handle: Handle,
        cookie: u64,
        add: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> FsResult<()>;
    /// As `readdir`, with attributes. Takes one reference for each entry that `add` takes, except
    /// `.` and `..`. An entry that was removed meanwhile is left out.
    fn readdirplus(
        &self,
        ino: Ino,
        handle: Handle,
        cookie: u64,
        add: &mut dyn FnMut(&DirEntry, &Attr) -> bool,
    ) -> FsResult<()>;
    /// Closes a directory.
    fn releasedir(&self, ino: Ino, handle: Handle) -> FsResult<()>;
    /// Makes the names in a directory durable [I1].
    fn fsyncdir(&self, ino: Ino, handle: Handle, data_only: bool) -> FsResult<()>;

    /// Numbers of the whole file system.
    fn statfs(&self) -> FsResult<Statfs>;
    /// Sets an extended attribute. `system.posix_acl_access` also sets the mode it implies.
    fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
        caller: Caller,
    ) -> FsResult<()>;
    /// An extended attribute's value; `NoData` if there is none.
    fn getxattr(&self, ino: Ino, name: &[u8], caller: Caller) -> FsResult<Vec<u8>>;
    /// Names of all extended attributes; `trusted.*` only for root.
    fn listxattr(&self, ino: Ino, caller: Caller) -> FsResult<Vec<Vec<u8>>>;
    /// Removes an extended attribute; `NoData` if there is none.
    fn removexattr(&self, ino: Ino, name: &[u8], caller: Caller) -> FsResult<()>;

    /// Reserves, punches or zeroes a range. Clears suid and sgid as `setattr` of a size does.
    fn fallocate(
        &self,
        ino: Ino,
        handle: Handle,
        what: Allocate,
        offset: u64,
        length: u64,
        caller: Caller,
    ) -> FsResult<()>;
    /// The next data or hole at or after `offset`; `NoData` when there is none.
    fn lseek(&self, ino: Ino, handle: Handle, offset: u64, what: Seek) -> FsResult<u64>;
    /// Copies up to `length` bytes; returns how many, 0 at the end of the source.
    fn copy_file_range(
        &self,
        from: CopyEnd,
        to: CopyEnd,
        length: u64,
        caller: Caller,
    ) -> FsResult<u64>;
    /// Makes everything durable that was done before the call [I1].
    fn sync(&self) -> FsResult<()>;
}
