//! The namespace, as the kernel's side wants to be answered.

use super::file_system::{CopyEnd, FileSystem, FsResult, Handle, OpenMode, WriteMode};
use crate::base::{Ino, MIB, WallTime};
use crate::namespace::{
    Allocate, Attr, Caller, DirEntry, FileKind, Namespace, NamespaceError, NewInode, ReadBuffer,
    RenameMode, Seek, SetAttr, Statfs, XattrMode,
};

/// Bytes of one step of a copy inside the daemon.
const COPY_BYTES: u64 = MIB;

impl FileSystem for Namespace {
    fn lookup(&self, parent: Ino, name: &[u8]) -> FsResult<Attr> {
        Namespace::lookup(self, parent, name)
    }

    fn forget(&self, ino: Ino, references: u64) {
        Namespace::forget(self, ino, references);
    }

    fn getattr(&self, ino: Ino) -> FsResult<Attr> {
        Namespace::getattr(self, ino)
    }

    fn now(&self) -> WallTime {
        Namespace::now(self)
    }

    fn setattr(
        &self,
        ino: Ino,
        _handle: Option<Handle>,
        change: &SetAttr,
        caller: Caller,
    ) -> FsResult<Attr> {
        Namespace::setattr(self, ino, change, caller)
    }

    fn readlink(&self, ino: Ino) -> FsResult<Vec<u8>> {
        Namespace::readlink(self, ino)
    }

    fn mknod(&self, parent: Ino, name: &[u8], new: &NewInode, caller: Caller) -> FsResult<Attr> {
        Namespace::mknod(self, parent, name, new, caller)
    }

    fn mkdir(&self, parent: Ino, name: &[u8], new: &NewInode, caller: Caller) -> FsResult<Attr> {
        let new = NewInode { kind: FileKind::Directory, ..*new };
        Namespace::mknod(self, parent, name, &new, caller)
    }

    fn unlink(&self, parent: Ino, name: &[u8]) -> FsResult<()> {
        Namespace::unlink(self, parent, name)
    }

    fn rmdir(&self, parent: Ino, name: &[u8]) -> FsResult<()> {
        Namespace::rmdir(self, parent, name)
    }

    fn symlink(&self, parent: Ino, name: &[u8], target: &[u8], caller: Caller) -> FsResult<Attr> {
        Namespace::symlink(self, parent, name, target, caller)
    }

    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> FsResult<Attr> {
        Namespace::link(self, ino, parent, name)
    }

    fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        mode: RenameMode,
    ) -> FsResult<()> {
        Namespace::rename(self, parent, name, new_parent, new_name, mode)
    }

    fn open(&self, ino: Ino, mode: OpenMode, caller: Caller) -> FsResult<Handle> {
        Namespace::open(self, ino, mode.truncate, caller).map(Handle)
    }

    fn create(
        &self,
        parent: Ino,
        name: &[u8],
        new: &NewInode,
        mode: OpenMode,
        caller: Caller,
    ) -> FsResult<(Attr, Handle)> {
        let new = NewInode { kind: FileKind::File, ..*new };
        let (attr, truncate) = match Namespace::mknod(self, parent, name, &new, caller) {
            Ok(attr) => (attr, false),
            Err(NamespaceError::Exists) if !mode.exclusive => {
                (Namespace::lookup(self, parent, name)?, mode.truncate)
            }
            Err(error) => return Err(error),
        };
        match Namespace::open(self, attr.ino, truncate, caller) {
            Ok(handle) => Ok((attr, Handle(handle))),
            Err(error) => {
                Namespace::forget(self, attr.ino, 1);
                Err(error)
            }
        }
    }

    fn read(
        &self,
        ino: Ino,
        _handle: Handle,
        offset: u64,
        size: u32,
        into: &mut ReadBuffer,
    ) -> FsResult<()> {
        Namespace::read_shared(self, ino, offset, size, into)
    }

    fn write(
        &self,
        ino: Ino,
        _handle: Handle,
        offset: u64,
        data: &[u8],
        mode: WriteMode,
    ) -> FsResult<u32> {
        Namespace::write(self, ino, offset, data, false, mode.kill_privileges)?;
        Ok(data.len() as u32)
    }

    fn flush(&self, _ino: Ino, _handle: Handle) -> FsResult<()> {
        Ok(())
    }

    fn release(&self, _ino: Ino, handle: Handle) -> FsResult<()> {
        Namespace::release(self, handle.0)
    }

    fn fsync(&self, ino: Ino, _handle: Handle, _data_only: bool) -> FsResult<()> {
        Namespace::fsync(self, ino)
    }

    fn opendir(&self, ino: Ino) -> FsResult<Handle> {
        Namespace::open(self, ino, false, Caller::default()).map(Handle)
    }

    fn readdir(
        &self,
        ino: Ino,
        handle: Handle,
        cookie: u64,
        add: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> FsResult<()> {
        Namespace::readdir(self, ino, handle.0, cookie, add)
    }

    fn readdirplus(
        &self,
        ino: Ino,
        handle: Handle,
        cookie: u64,
        add: &mut dyn FnMut(&DirEntry, &Attr) -> bool,
    ) -> FsResult<()> {
        Namespace::readdirplus(self, ino, handle.0, cookie, add)
    }

    fn releasedir(&self, _ino: Ino, handle: Handle) -> FsResult<()> {
        Namespace::release(self, handle.0)
    }

    fn fsyncdir(&self, ino: Ino, _handle: Handle, _data_only: bool) -> FsResult<()> {
        Namespace::fsync(self, ino)
    }

    fn statfs(&self) -> FsResult<Statfs> {
        Ok(Namespace::statfs(self))
    }

    fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
        caller: Caller,
    ) -> FsResult<()> {
        Namespace::setxattr(self, ino, name, value, mode, caller)
    }

    fn getxattr(&self, ino: Ino, name: &[u8], _caller: Caller) -> FsResult<Vec<u8>> {
        Namespace::getxattr(self, ino, name)
    }

    fn listxattr(&self, ino: Ino, caller: Caller) -> FsResult<Vec<Vec<u8>>> {
        Namespace::listxattr(self, ino, caller)
    }

    fn removexattr(&self, ino: Ino, name: &[u8], _caller: Caller) -> FsResult<()> {
        Namespace::removexattr(self, ino, name)
    }

    fn fallocate(
        &self,
        ino: Ino,
        _handle: Handle,
        what: Allocate,
        offset: u64,
        length: u64,
        caller: Caller,
    ) -> FsResult<()> {
        Namespace::allocate(self, ino, what, offset, length, caller)
    }

    fn lseek(&self, ino: Ino, _handle: Handle, offset: u64, what: Seek) -> FsResult<u64> {
        Namespace::seek(self, ino, offset, what)
    }

    fn copy_file_range(
        &self,
        from: CopyEnd,
        to: CopyEnd,
        length: u64,
        caller: Caller,
    ) -> FsResult<u64> {
        let mut done = 0;
        let mut bytes = Vec::new();
        while done < length {
            let size = (length - done).min(COPY_BYTES) as u32;
            bytes.clear();
            let read = Namespace::read(self, from.ino, from.offset + done, size, &mut bytes);
            if read.is_ok() && bytes.is_empty() {
                break;
            }
            let kill = caller.uid != 0;
            let write = |()| Namespace::write(self, to.ino, to.offset + done, &bytes, false, kill);
            match read.and_then(write) {
                Ok(_) => done += bytes.len() as u64,
                // What was copied is there, and the kernel must know: it caches pages and size.
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn sync(&self) -> FsResult<()> {
        Namespace::sync(self)
    }
}
