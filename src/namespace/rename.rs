//! rename, in its three forms: one transaction over up to two directories and two inodes.
//!
//! [R23] Directory moves are checked for loops by walking up the parents of the new place, under the
//! same namespace lock that orders everything, so that two crossing moves cannot make a cycle.

use super::core::Core;
use super::error::NamespaceError;
use super::tx::{Attempt, Tx};
use super::types::{FileKind, RenameMode};
use crate::base::Ino;
use crate::base::canary::{self, Bug};
use crate::format::{DirentValue, Key};

/// One name in one directory.
#[derive(Clone, Copy)]
struct At<'a> {
    parent: Ino,
    name: &'a [u8],
}

/// Deeper trees than this are taken for a cycle: no path reaches so far down (PATH_MAX is 4096).
const DEPTH_MAX: u32 = 1 << 20;

impl Core {
    /// Moves a name.
    pub(super) fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), NamespaceError> {
        let special = |name: &[u8]| name.is_empty() || name == b"." || name == b"..";
        if special(name) || special(new_name) {
            return Err(NamespaceError::Invalid);
        }
        let from = At { parent, name };
        let to = At { parent: new_parent, name: new_name };
        let gone = self.change(|tx| tx.rename(from, to, mode))?;
        if let Some(ino) = gone {
            self.check_unused(ino);
        }
        Ok(())
    }
}

impl Tx<'_> {
    /// Returns the inode that lost a name, if one did.
    fn rename(&mut self, from: At<'_>, to: At<'_>, mode: RenameMode) -> Attempt<Option<Ino>> {
        self.directory(from.parent)?;
        let moved = self.dirent(from.parent, from.name)?.ok_or(NamespaceError::NotFound)?;
        self.directory(to.parent)?;
        let target = self.dirent(to.parent, to.name)?;
        if mode == RenameMode::NoReplace && target.is_some() {
            return Err(NamespaceError::Exists.into());
        }
        if mode == RenameMode::Exchange && target.is_none() {
            return Err(NamespaceError::NotFound.into());
        }
        if moved.kind == FileKind::Directory {
            self.check_no_loop(moved.ino, to.parent)?;
        }
        if mode == RenameMode::Exchange {
            let target = target.ok_or(NamespaceError::NotFound)?;
            if target.ino == moved.ino {
                return Ok(None);
            }
            if target.kind == FileKind::Directory {
                self.check_no_loop(target.ino, from.parent)?;
            }
            self.exchange(from, moved, to, target)?;
            return Ok(None);
        }
        if let Some(target) = target {
            if target.ino == moved.ino {
                // Two names of one inode: POSIX says that nothing happens.
                return Ok(None);
            }
            self.check_replaceable(moved, target)?;
        }
        self.settle(moved)?;
        self.replace(from, moved, to, target)?;
        Ok(target.map(|target| target.ino))
    }

    /// The data written to a file before goes into the same batch as its new name [I2].
    fn settle(&mut self, moved: DirentValue) -> Attempt<()> {
        if !canary::planted(Bug::RenameBeforeData) {
            self.inline_cut(moved.ino, self.core.inline_bytes_max())?;
        }
        let mut record = self.inode(moved.ino)?;
        record.ctime = self.now();
        self.put_inode(moved.ino, &record);
        Ok(())
    }

    fn check_replaceable(&mut self, moved: DirentValue, target: DirentValue) -> Attempt<()> {
        match (moved.kind == FileKind::Directory, target.kind == FileKind::Directory) {
            (true, false) => Err(NamespaceError::NotDirectory.into()),
            (false, true) => Err(NamespaceError::IsDirectory.into()),
            (true, true) => self.check_empty(target.ino),
            (false, false) => Ok(()),
        }
    }

    /// A directory must not become its own ancestor.
    fn check_no_loop(&mut self, moved: Ino, new_parent: Ino) -> Attempt<()> {
        let mut at = new_parent;
        for _ in 0..DEPTH_MAX {
            if at == moved {
                return Err(NamespaceError::Invalid.into());
            }
            if at == Ino::ROOT {
                return Ok(());
            }
            at = self.inode(at)?.parent;
        }
        Err(NamespaceError::Invalid.into())
    }

    fn replace(
        &mut self,
        from: At<'_>,
        moved: DirentValue,
        to: At<'_>,
        target: Option<DirentValue>,
    ) -> Attempt<()> {
        let is_directory = moved.kind == FileKind::Directory;
        if let Some(target) = target {
            if target.kind == FileKind::Directory {
                self.orphan_directory(target.ino)?;
            } else {
                self.drop_link(target.ino)?;
            }
        }
        let key = self.dirent_key(from.parent, from.name);
        self.delete(key);
        self.put_dirent(to.parent, to.name, moved);
        // The target's `..` leaves with it, the moved one's comes: links change only if it is new.
        let arrives = i32::from(is_directory && target.is_none());
        let leaves = i32::from(is_directory);
        let (from_bytes, to_bytes) = (from.name.len() as i64, to.name.len() as i64);
        let grown = if target.is_some() { 0 } else { to_bytes };
        if from.parent == to.parent {
            let directory = self.directory(from.parent)?;
            self.grow_directory(from.parent, directory, grown - from_bytes, arrives - leaves);
            return Ok(());
        }
        let directory = self.directory(from.parent)?;
        self.grow_directory(from.parent, directory, -from_bytes, -leaves);
        let directory = self.directory(to.parent)?;
        self.grow_directory(to.parent, directory, grown, arrives);
        if is_directory {
            self.set_parent(moved.ino, to.parent)?;
        }
        Ok(())
    }

    fn exchange(
        &mut self,
        from: At<'_>,
        moved: DirentValue,
        to: At<'_>,
        target: DirentValue,
    ) -> Attempt<()> {
        self.settle(moved)?;
        self.settle(target)?;
        self.put_dirent(from.parent, from.name, target);
        self.put_dirent(to.parent, to.name, moved);
        let (out, back) = (
            i32::from(moved.kind == FileKind::Directory),
            i32::from(target.kind == FileKind::Directory),
        );
        if from.parent == to.parent {
            let directory = self.directory(from.parent)?;
            self.grow_directory(from.parent, directory, 0, 0);
            return Ok(());
        }
        let directory = self.directory(from.parent)?;
        self.grow_directory(from.parent, directory, 0, back - out);
        let directory = self.directory(to.parent)?;
        self.grow_directory(to.parent, directory, 0, out - back);
        if out == 1 {
            self.set_parent(moved.ino, to.parent)?;
        }
        if back == 1 {
            self.set_parent(target.ino, from.parent)?;
        }
        Ok(())
    }

    fn set_parent(&mut self, ino: Ino, parent: Ino) -> Attempt<()> {
        let mut record = self.inode(ino)?;
        record.parent = parent;
        self.put(Key::inode(ino), record.encode());
        Ok(())
    }
}
