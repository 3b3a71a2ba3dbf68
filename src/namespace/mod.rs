//! Room 2, `namespace`: names and metadata. POSIX operations over the index and the object store.
//!
//! ```text
//! operation ─▶ transaction (tx) ─▶ memtable + open batch ─committer─▶ journal
//! write     ─▶ overlay (write buffer) ─flusher─▶ objects ─cut─▶ transaction
//! read      ◀─ overlay, extents ─▶ objects
//! ```
//!
//! * One lock guards everything in memory; it is held for in-memory work only [R23]. Its order is the
//!   order of history [I2].
//! * Operations are transactions that start again when they miss a block of the index (`tx`).
//! * A file's content above what the index knows is its overlay (`overlay`); it reaches the history in
//!   cuts (`cut`) [R15].
//! * Nothing here knows FUSE or errno, shards or io_uring.

mod acl;
mod attr;
mod audit;
mod cache;
mod chain;
mod checkpointer;
mod chunk;
mod commit;
mod compact;
mod core;
mod cut;
mod dir;
pub mod error;
mod extent;
mod flush;
mod handles;
pub mod index;
mod inode_state;
mod long_cut;
mod open;
mod open_batch;
mod orphan;
mod overlay;
mod pack;
mod read;
mod read_buffer;
mod readdir;
mod recover;
mod rejoin;
mod rename;
mod repair;
mod room;
mod stream;
mod sync;
mod tx;
pub mod types;
mod verify;
mod write;
mod written;
mod xattr;

use crate::base::sync::Arc;
use crate::base::{Ino, Lsn, Task, WallTime};

pub use audit::{Audit, Finding, Found, Watch};
pub use chain::ChainLimits;
pub use checkpointer::{CheckpointParts, RootPart, RootWriter};
pub use compact::{Compacted, Compaction, DENSE_PERCENT, ObjectUse, Room};
pub use core::{Fleet, Options, Origin};
pub use error::{FleetError, NamespaceError};
pub use read_buffer::ReadBuffer;
pub use repair::{Lacking, LackingPage, Repaired};
pub use types::*;
pub use verify::{ObjectHealth, Unkeyed};

pub use recover::{Recovery, load_root};

use core::Core;

/// What an operation returns.
pub type Result<T> = std::result::Result<T, NamespaceError>;

/// An open pool's names and files. All methods may be called from any thread.
#[derive(Clone)]
pub struct Namespace {
    core: Arc<Core>,
}

/// Where the namespace stands, for status and for closing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Bytes written by users and not yet in objects.
    pub dirty_bytes: u64,
    /// The last durable batch.
    pub durable: Lsn,
    /// Inodes in use.
    pub inodes: u64,
    /// Bytes of the index on each level, from 0.
    pub index_bytes: Vec<u64>,
    /// Bytes in the read cache.
    pub cache_bytes: u64,
    /// Memory for disk I/O, in use or kept for the next.
    pub buffer_bytes: u64,
    /// Blocks of the index in its cache.
    pub index_cache_bytes: u64,
    /// Changes of the index that are not in tables yet.
    pub memtable_bytes: u64,
    /// Bytes of files that reclaim has moved since the pool was opened.
    pub moved_bytes: u64,
    /// The log failed: nothing is accepted any more.
    pub failed: bool,
}

impl Namespace {
    /// See [`types`] and the kernel's manual pages for each of these.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        self.core.lookup(parent, name)
    }

    /// Gives references back that `lookup` and the makers of inodes took.
    pub fn forget(&self, ino: Ino, references: u64) {
        self.core.forget(ino, references);
    }

    /// Attributes now.
    pub fn getattr(&self, ino: Ino) -> Result<Attr> {
        self.core.getattr(ino)
    }

    /// Changes attributes, size included.
    pub fn setattr(&self, ino: Ino, change: &SetAttr, caller: Caller) -> Result<Attr> {
        self.core.setattr(ino, change, caller)
    }

    /// Where a symbolic link points.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        self.core.readlink(ino)
    }

    /// Makes a file, directory, device node, fifo or socket. Takes a reference.
    pub fn mknod(&self, parent: Ino, name: &[u8], new: &NewInode, caller: Caller) -> Result<Attr> {
        self.core.make(parent, name, new, caller)
    }

    /// Makes a symbolic link. Takes a reference.
    pub fn symlink(&self, parent: Ino, name: &[u8], target: &[u8], caller: Caller) -> Result<Attr> {
        self.core.symlink(parent, name, target, caller)
    }

    /// Gives an inode another name. Takes a reference.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr> {
        self.core.link(ino, parent, name)
    }

    /// Removes the name of anything but a directory.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.core.unlink(parent, name)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.core.rmdir(parent, name)
    }

    /// Moves a name.
    pub fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        self.core.rename(parent, name, new_parent, new_name, mode)
    }

    /// Opens a file or directory; `truncate` cuts a file to nothing.
    pub fn open(&self, ino: Ino, truncate: bool, caller: Caller) -> Result<u64> {
        self.core.open(ino, truncate, caller)
    }

    /// Closes a handle.
    pub fn release(&self, handle: u64) -> Result<()> {
        self.core.release(handle)
    }

    /// Appends the file's bytes of `offset ..` to `into`: `size`, fewer only at its end.
    pub fn read(&self, ino: Ino, offset: u64, size: u32, into: &mut Vec<u8>) -> Result<()> {
        let mut buffer = ReadBuffer::from(std::mem::take(into));
        let result = self.core.read(ino, offset, size, &mut buffer);
        *into = buffer.into();
        result
    }

    /// As `read`, without a copy where that can be.
    pub fn read_shared(
        &self,
        ino: Ino,
        offset: u64,
        size: u32,
        into: &mut ReadBuffer,
    ) -> Result<()> {
        self.core.read(ino, offset, size, into)
    }

    /// Writes all of `data` at `offset`, or at the end with `append`. Returns where it ended.
    pub fn write(
        &self,
        ino: Ino,
        offset: u64,
        data: &[u8],
        append: bool,
        kill_privileges: bool,
    ) -> Result<u64> {
        self.core.write(ino, offset, data, append, kill_privileges)
    }

    /// Makes a file or directory durable, and all history before [I1].
    pub fn fsync(&self, ino: Ino) -> Result<()> {
        self.core.fsync(ino)
    }

    /// Makes everything done so far durable [I1].
    pub fn sync(&self) -> Result<()> {
        self.core.sync()
    }

    /// Lists a directory.
    pub fn readdir(
        &self,
        ino: Ino,
        handle: u64,
        cookie: u64,
        add: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> Result<()> {
        self.core.readdir(ino, handle, cookie, add)
    }

    /// Lists a directory with attributes; takes a reference for each entry taken but `.` and `..`.
    pub fn readdirplus(
        &self,
        ino: Ino,
        handle: u64,
        cookie: u64,
        add: &mut dyn FnMut(&DirEntry, &Attr) -> bool,
    ) -> Result<()> {
        self.core.readdirplus(ino, handle, cookie, add)
    }

    /// Numbers of the whole file system.
    pub fn statfs(&self) -> Statfs {
        self.core.statfs()
    }

    /// Sets an extended attribute.
    pub fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
        caller: Caller,
    ) -> Result<()> {
        self.core.setxattr(ino, name, value, mode, caller)
    }

    /// An extended attribute's value.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        self.core.getxattr(ino, name)
    }

    /// Names of all extended attributes; `trusted.*` only for root.
    pub fn listxattr(&self, ino: Ino, caller: Caller) -> Result<Vec<Vec<u8>>> {
        self.core.listxattr(ino, caller)
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.core.removexattr(ino, name)
    }

    /// Reserves, punches or zeroes a range.
    pub fn allocate(
        &self,
        ino: Ino,
        what: Allocate,
        offset: u64,
        length: u64,
        caller: Caller,
    ) -> Result<()> {
        self.core.allocate(ino, what, offset, length, caller)
    }

    /// The next data or hole at or after `offset`.
    pub fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64> {
        self.core.seek(ino, offset, what)
    }

    /// The time with which changes are marked.
    pub fn now(&self) -> WallTime {
        self.core.clock.wall()
    }

    /// Frees memory that was kept for the next to write, if nobody has written since the last call.
    pub fn free_unused_memory(&self) {
        self.core.chunks.free_if_unused();
    }

    /// Where things stand.
    pub fn progress(&self) -> Progress {
        let index_bytes = self.core.index.levels().iter().map(|&(_, bytes)| bytes).collect();
        let buffer_bytes = self.core.objects.buffer_bytes() + self.core.chunks.kept_bytes();
        let index_cache_bytes = self.core.index.cache_used_bytes();
        let memtable_bytes = self.core.index.memtable_used_bytes();
        let cache_bytes = self.core.cache.bytes();
        let state = self.core.state.lock();
        Progress {
            dirty_bytes: state.dirty_bytes,
            durable: state.durable,
            inodes: state.inode_count,
            index_bytes,
            cache_bytes,
            buffer_bytes,
            index_cache_bytes,
            memtable_bytes,
            moved_bytes: state.moved_bytes,
            failed: state.failed.is_some(),
        }
    }

    /// Panics if the state in memory contradicts itself. For tests.
    pub fn check_invariants(&self) {
        self.core.state.lock().check_invariants();
    }

    /// The background tasks, for `pool` to run: they work until the namespace is closed.
    pub fn tasks(&self) -> Vec<Box<dyn Task>> {
        let core = &self.core;
        vec![
            Box::new(commit::Committer::new(core.clone())),
            Box::new(flush::Flusher::new(core.clone())),
            Box::new(flush::Flusher::new(core.clone())),
            Box::new(stream::Prefetcher::new(core.clone())),
            Box::new(stream::Prefetcher::new(core.clone())),
            Box::new(orphan::Reaper::new(core.clone())),
            Box::new(index::Flusher::new(core.index.clone(), core.clock.clone())),
            Box::new(index::Compactor::new(core.index.clone(), core.clock.clone())),
        ]
    }
}
