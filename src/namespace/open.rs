//! Opening and closing.

use super::core::Core;
use super::error::NamespaceError;
use super::handles::Listing;
use super::types::{Caller, FileKind};
use crate::base::Ino;

impl Core {
    /// Opens a file or directory.
    pub(super) fn open(
        &self,
        ino: Ino,
        truncate: bool,
        caller: Caller,
    ) -> Result<u64, NamespaceError> {
        if truncate {
            self.truncate_on_open(ino, caller)?;
        }
        self.look(|tx| {
            let record = tx.inode(ino)?;
            let listing = (record.kind == FileKind::Directory).then(Listing::default);
            tx.state.inode_mut(ino).opens += 1;
            Ok(tx.state.handles.add(ino, listing))
        })
    }

    /// Closes a handle.
    pub(super) fn release(&self, handle: u64) -> Result<(), NamespaceError> {
        let ino = {
            let mut state = self.state.lock();
            let open = state.handles.remove(handle).ok_or(NamespaceError::BadHandle)?;
            if let Some(inode) = state.inodes.get_mut(&open.ino) {
                inode.opens = inode.opens.saturating_sub(1);
            }
            open.ino
        };
        self.check_unused(ino);
        Ok(())
    }
}
