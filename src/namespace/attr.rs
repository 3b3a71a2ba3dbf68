//! Attributes as `stat` shows them.

use super::core::{Core, State};
use super::error::NamespaceError;
use super::tx::Tx;
use super::types::{Attr, FileKind};
use crate::base::Ino;
use crate::format::InodeRecord;

/// Attributes of an inode, data that is not in objects yet counted as if it were.
pub(super) fn attr_of(state: &State, ino: Ino, record: &InodeRecord) -> Attr {
    let buffered = state.inodes.get(&ino).map_or(0, |inode| inode.overlay.data_bytes());
    let allocated = (record.allocated + buffered).min(record.size.max(record.allocated));
    let size = match record.kind {
        FileKind::Symlink => record.target.len() as u64,
        FileKind::File
        | FileKind::Directory
        | FileKind::BlockDevice
        | FileKind::CharDevice
        | FileKind::Fifo
        | FileKind::Socket => record.size,
    };
    Attr {
        ino,
        kind: record.kind,
        mode: u32::from(record.mode),
        links: record.links,
        uid: record.uid,
        gid: record.gid,
        rdev: record.rdev,
        size,
        blocks: allocated.div_ceil(512),
        atime: record.atime,
        mtime: record.mtime,
        ctime: record.ctime,
        btime: record.btime,
    }
}

impl Core {
    /// Attributes now.
    pub(super) fn getattr(&self, ino: Ino) -> Result<Attr, NamespaceError> {
        self.look(|tx| {
            let record = tx.inode(ino)?;
            Ok(tx.attr(ino, &record))
        })
    }

    /// Gives kernel references back.
    pub(super) fn forget(&self, ino: Ino, references: u64) {
        let mut state = self.state.lock();
        let known = state.known_mut(ino);
        known.references = known.references.saturating_sub(references);
        drop(state);
        self.check_unused(ino);
    }
}

impl Tx<'_> {
    pub(super) fn attr(&self, ino: Ino, record: &InodeRecord) -> Attr {
        attr_of(self.state, ino, record)
    }

    /// The kernel holds one reference more. The last step of an operation.
    pub(super) fn refer(&mut self, ino: Ino, parent: Ino) {
        let known = self.state.known_mut(ino);
        known.references += 1;
        known.parent_hint = parent.0;
    }
}

#[cfg(test)]
impl super::Namespace {
    /// How many inodes are in use, and how many more the kernel knows.
    pub(crate) fn inodes_in_memory(&self) -> (usize, usize) {
        let state = self.core.state.lock();
        (state.inodes.len(), state.known.len())
    }
}
