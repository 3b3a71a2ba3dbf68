//! Directories: names, and everything that changes them.
//!
//! Each operation is one transaction, so it is in the history whole or not at all [I2]. An inode that
//! gets or loses a name while it has data that is not in the log gets an inline cut in the same
//! transaction, so that the name never survives a crash without the data written before.
//!
//! The size of a directory is the sum of the lengths of its names; its links are 2 and one per directory
//! in it.

use super::acl::{self, Acl};
use super::attr::attr_of;
use super::core::Core;
use super::error::NamespaceError;
use super::recover::INODES_KEY;
use super::tx::{Attempt, Effect, Tx};
use super::types::{Attr, Caller, FileKind, NewInode};
use crate::base::Ino;
use crate::base::canary::{self, Bug};
use crate::base::limits::{LINKS_MAX, NAME_BYTES_MAX, SYMLINK_BYTES_MAX};
use crate::format::{DirentValue, InodeRecord, Key, Orphan};

const SET_GID: u16 = 0o2000;

/// Names that may be made: not empty, not `.` or `..`. How long they are is asked where they are looked up:
/// in a directory that is gone nothing is found, however long its name.
fn check_name(name: &[u8]) -> Result<(), NamespaceError> {
    if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
        return Err(NamespaceError::Invalid);
    }
    if name == b"." || name == b".." {
        return Err(NamespaceError::Exists);
    }
    Ok(())
}

impl Core {
    /// The inode that `name` stands for; the kernel holds a reference to it afterwards.
    pub(super) fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, NamespaceError> {
        self.look(|tx| {
            let directory = tx.inode(parent)?;
            if directory.kind != FileKind::Directory {
                return Err(NamespaceError::NotDirectory.into());
            }
            if name.len() > NAME_BYTES_MAX {
                tx.directory(parent)?;
                return Err(NamespaceError::NameTooLong.into());
            }
            let ino = match name {
                b"." => parent,
                b".." => directory.parent,
                b"" => return Err(NamespaceError::NotFound.into()),
                _ => tx.dirent(parent, name)?.ok_or(NamespaceError::NotFound)?.ino,
            };
            let record = tx.inode(ino)?;
            tx.refer(ino, parent);
            Ok(tx.attr(ino, &record))
        })
    }

    /// Makes an inode of any kind but a symlink, under a new name.
    pub(super) fn make(
        &self,
        parent: Ino,
        name: &[u8],
        new: &NewInode,
        caller: Caller,
    ) -> Result<Attr, NamespaceError> {
        check_name(name)?;
        if new.kind == FileKind::Symlink {
            return Err(NamespaceError::Invalid);
        }
        let ino = self.new_ino()?;
        self.change(|tx| {
            let mut record = new_record(tx, new, caller);
            tx.inherit(ino, parent, &mut record, new)?;
            tx.add_new(parent, name, ino, record)
        })
    }

    /// Makes a symbolic link.
    pub(super) fn symlink(
        &self,
        parent: Ino,
        name: &[u8],
        target: &[u8],
        caller: Caller,
    ) -> Result<Attr, NamespaceError> {
        check_name(name)?;
        if target.is_empty() {
            return Err(NamespaceError::NotFound);
        }
        if target.len() > SYMLINK_BYTES_MAX {
            return Err(NamespaceError::NameTooLong);
        }
        let ino = self.new_ino()?;
        self.change(|tx| {
            let new = NewInode { kind: FileKind::Symlink, mode: 0o777, umask: 0, rdev: 0 };
            let mut record = new_record(tx, &new, caller);
            let directory = tx.directory(parent)?;
            if directory.mode & SET_GID != 0 {
                record.gid = directory.gid;
            }
            record.target = target.to_vec();
            tx.add_new(parent, name, ino, record)
        })
    }

    /// Where a symbolic link points.
    pub(super) fn readlink(&self, ino: Ino) -> Result<Vec<u8>, NamespaceError> {
        self.look(|tx| {
            let record = tx.inode(ino)?;
            if record.kind != FileKind::Symlink {
                return Err(NamespaceError::Invalid.into());
            }
            Ok(record.target)
        })
    }

    /// Gives an inode another name.
    pub(super) fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, NamespaceError> {
        check_name(name)?;
        self.change(|tx| {
            let directory = tx.directory(parent)?;
            if tx.dirent(parent, name)?.is_some() {
                return Err(NamespaceError::Exists.into());
            }
            tx.inline_cut(ino, tx.core.inline_bytes_max())?;
            let mut record = tx.inode(ino)?;
            if record.kind == FileKind::Directory {
                return Err(NamespaceError::NotPermitted.into());
            }
            if record.links == 0 {
                return Err(NamespaceError::NotFound.into());
            }
            if record.links >= LINKS_MAX {
                return Err(NamespaceError::TooManyLinks.into());
            }
            record.links += 1;
            record.ctime = tx.now();
            tx.put_inode(ino, &record);
            tx.put_dirent(parent, name, DirentValue { ino, kind: record.kind });
            tx.grow_directory(parent, directory, name.len() as i64, 0);
            tx.refer(ino, parent);
            Ok(tx.attr(ino, &record))
        })
    }

    /// Removes the name of anything but a directory.
    pub(super) fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), NamespaceError> {
        let ino = self.change(|tx| {
            let directory = tx.directory(parent)?;
            let entry = tx.dirent(parent, name)?.ok_or(NamespaceError::NotFound)?;
            if entry.kind == FileKind::Directory {
                return Err(NamespaceError::IsDirectory.into());
            }
            tx.drop_name(parent, name, directory, 0)?;
            tx.drop_link(entry.ino)?;
            Ok(entry.ino)
        })?;
        self.check_unused(ino);
        Ok(())
    }

    /// Removes an empty directory.
    pub(super) fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), NamespaceError> {
        match name {
            b"." => return Err(NamespaceError::Invalid),
            b".." => return Err(NamespaceError::NotEmpty),
            _ => {}
        }
        let ino = self.change(|tx| {
            let directory = tx.directory(parent)?;
            let entry = tx.dirent(parent, name)?.ok_or(NamespaceError::NotFound)?;
            if entry.kind != FileKind::Directory {
                return Err(NamespaceError::NotDirectory.into());
            }
            tx.check_empty(entry.ino)?;
            tx.drop_name(parent, name, directory, -1)?;
            tx.orphan_directory(entry.ino)?;
            Ok(entry.ino)
        })?;
        self.check_unused(ino);
        Ok(())
    }
}

fn new_record(tx: &Tx<'_>, new: &NewInode, caller: Caller) -> InodeRecord {
    let now = tx.now();
    InodeRecord {
        kind: new.kind,
        mode: (new.mode & 0o7777) as u16,
        links: if new.kind == FileKind::Directory { 2 } else { 1 },
        uid: caller.uid,
        gid: caller.gid,
        rdev: new.rdev,
        flags: 0,
        size: 0,
        allocated: 0,
        generation: 0,
        parent: Ino(0),
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        target: Vec::new(),
    }
}

impl Tx<'_> {
    /// Group and mode as the directory hands them down: set-group-id, default ACL, umask.
    fn inherit(
        &mut self,
        ino: Ino,
        parent: Ino,
        record: &mut InodeRecord,
        new: &NewInode,
    ) -> Attempt<()> {
        let directory = self.directory(parent)?;
        if directory.mode & SET_GID != 0 {
            record.gid = directory.gid;
            if new.kind == FileKind::Directory {
                record.mode |= SET_GID;
            }
        }
        let default = match self.get(&Key::xattr(parent, acl::DEFAULT))? {
            Some(value) => Acl::decode(&value).map(|list| (list, value)),
            None => None,
        };
        let Some((list, value)) = default else {
            record.mode &= !(new.umask & 0o777) as u16;
            return Ok(());
        };
        let access = list.inherited(u32::from(record.mode));
        record.mode = record.mode & !0o777 | access.mode() as u16;
        if !access.is_minimal() {
            self.put(Key::xattr(ino, acl::ACCESS), access.encode());
        }
        if new.kind == FileKind::Directory {
            self.put(Key::xattr(ino, acl::DEFAULT), value);
        }
        Ok(())
    }

    /// The last part of every operation that makes an inode.
    fn add_new(
        &mut self,
        parent: Ino,
        name: &[u8],
        ino: Ino,
        mut record: InodeRecord,
    ) -> Attempt<Attr> {
        let directory = self.directory(parent)?;
        if self.dirent(parent, name)?.is_some() {
            return Err(NamespaceError::Exists.into());
        }
        let is_directory = record.kind == FileKind::Directory;
        if is_directory {
            record.parent = parent;
            if directory.links >= LINKS_MAX {
                return Err(NamespaceError::TooManyLinks.into());
            }
        }
        self.put_inode(ino, &record);
        self.put_dirent(parent, name, DirentValue { ino, kind: record.kind });
        self.grow_directory(parent, directory, name.len() as i64, i32::from(is_directory));
        self.count_inodes(1);
        self.refer(ino, parent);
        Ok(attr_of(self.state, ino, &record))
    }

    /// Inodes in use, in the index and in memory. The last step of an operation.
    pub(super) fn count_inodes(&mut self, delta: i64) {
        self.add(Key::meta(INODES_KEY), delta);
        self.state.inode_count = self.state.inode_count.saturating_add_signed(delta);
    }

    pub(super) fn put_dirent(&mut self, parent: Ino, name: &[u8], value: DirentValue) {
        let key = self.dirent_key(parent, name);
        self.put(key, value.encode());
    }

    /// A name was added to or removed from the directory: its size, links and times change.
    pub(super) fn grow_directory(
        &mut self,
        ino: Ino,
        mut directory: InodeRecord,
        name_bytes: i64,
        links: i32,
    ) {
        directory.size = directory.size.saturating_add_signed(name_bytes);
        directory.links = directory.links.saturating_add_signed(links);
        directory.mtime = self.now();
        directory.ctime = self.now();
        self.put_inode(ino, &directory);
    }

    pub(super) fn drop_name(
        &mut self,
        parent: Ino,
        name: &[u8],
        directory: InodeRecord,
        links: i32,
    ) -> Attempt<()> {
        let key = self.dirent_key(parent, name);
        self.delete(key);
        self.grow_directory(parent, directory, -(name.len() as i64), links);
        Ok(())
    }

    /// A file lost a name. With the last one it becomes an orphan: it goes when nobody uses it.
    pub(super) fn drop_link(&mut self, ino: Ino) -> Attempt<()> {
        let mut record = self.inode(ino)?;
        if record.links > 1 {
            self.inline_cut(ino, self.core.inline_bytes_max())?;
            record = self.inode(ino)?;
        }
        record.links = record.links.saturating_sub(1);
        record.ctime = self.now();
        if record.links == 0 {
            // Its unwritten data need not be with it: a crash removes the file. In memory the data
            // stays for those who have it open.
            if !canary::planted(Bug::OrphanForgotten) {
                self.put(Key::orphan(ino), Orphan::Unlinked.encode());
            }
            self.effect(Effect::Orphan(ino));
        }
        self.put_inode(ino, &record);
        Ok(())
    }

    pub(super) fn check_empty(&mut self, ino: Ino) -> Attempt<()> {
        let scan = self.scan(&Key::dirents_from(ino, 0), &Key::dirents_end(ino), 1)?;
        if scan.entries.is_empty() && scan.next.is_some() {
            // Many deleted names lie before the first live one: look further.
            let mut next = scan.next;
            while let Some(from) = next {
                let from = Key::from_bytes(&from);
                let scan = self.scan(&from, &Key::dirents_end(ino), 1)?;
                if !scan.entries.is_empty() {
                    return Err(NamespaceError::NotEmpty.into());
                }
                next = scan.next;
            }
            return Ok(());
        }
        if scan.entries.is_empty() { Ok(()) } else { Err(NamespaceError::NotEmpty.into()) }
    }

    pub(super) fn orphan_directory(&mut self, ino: Ino) -> Attempt<()> {
        let mut record = self.inode(ino)?;
        record.links = 0;
        record.size = 0;
        record.ctime = self.now();
        self.put(Key::orphan(ino), Orphan::Unlinked.encode());
        self.effect(Effect::Orphan(ino));
        self.put_inode(ino, &record);
        Ok(())
    }
}
