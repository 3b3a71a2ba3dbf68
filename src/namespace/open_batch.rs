//! The batch that operations are being added to: history that is applied but not yet in the journal.
//!
//! One batch is open at a time. Its number is known from the start, so every change can be applied to
//! the index under it at once. Repeated puts of one inode record inside the batch replace each other:
//! the batch is atomic, nobody can tell.

use std::collections::HashMap;

use crate::base::{Ino, Lsn};
use crate::format::{BatchWriter, Change, KeyView, ObjectRecord};

/// Changes of the batch with the next LSN.
pub(super) struct OpenBatch {
    /// Its number.
    pub(super) lsn: Lsn,
    changes: Vec<Change>,
    bytes: u64,
    inodes: HashMap<Ino, usize>,
    /// Objects that become named when it commits.
    pub(super) placed: Vec<ObjectRecord>,
    /// Records that others take the place of, old and new, in the order of history.
    pub(super) rehomed: Vec<(ObjectRecord, ObjectRecord)>,
    /// Objects whose space becomes free when it (and all before it) is durable [I3].
    pub(super) freed: Vec<ObjectRecord>,
}

impl OpenBatch {
    pub(super) fn new(lsn: Lsn) -> OpenBatch {
        OpenBatch {
            lsn,
            changes: Vec::new(),
            bytes: 0,
            inodes: HashMap::new(),
            placed: Vec::new(),
            rehomed: Vec::new(),
            freed: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Bytes it takes in the journal, nearly.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a change, in the order of history.
    pub(super) fn push(&mut self, change: Change) {
        if let Change::Put { key, .. } = &change
            && let Ok(KeyView::Inode(ino)) = key.view()
        {
            if let Some(&at) = self.inodes.get(&ino)
                && matches!(self.changes[at], Change::Put { .. })
            {
                self.bytes -= self.changes[at].encoded_bytes() as u64;
                self.bytes += change.encoded_bytes() as u64;
                self.changes[at] = change;
                return;
            }
            self.inodes.insert(ino, self.changes.len());
        } else if let Change::Delete { key } = &change
            && let Ok(KeyView::Inode(ino)) = key.view()
        {
            // A put after this delete must not replace the one before it.
            self.inodes.remove(&ino);
        }
        self.bytes += change.encoded_bytes() as u64;
        self.changes.push(change);
    }

    /// The payload of the journal entry.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = BatchWriter::new();
        for change in &self.changes {
            writer.push(change.view());
        }
        writer.finish()
    }
}
