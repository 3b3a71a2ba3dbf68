//! An object that is on disk, and durable there, but perhaps not yet named by the index.
//!
//! Until a batch that names it commits, its space is held in memory only: a crash before that leaves
//! nothing to clean up, because free space is derived from committed batches. When the last piece that
//! points at it goes without having been named, its space is given up.

use crate::base::sync::Arc;
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::fleet::{Space, StoredObject};
use crate::format::{Checksums, ObjectRecord};

/// See the module's text.
pub(super) struct Written {
    stored: StoredObject,
    space: Arc<Space>,
    named: AtomicBool,
}

impl Written {
    pub(super) fn new(stored: StoredObject, space: Arc<Space>) -> Written {
        Written { stored, space, named: AtomicBool::new(false) }
    }

    pub(super) fn record(&self) -> &ObjectRecord {
        &self.stored.record
    }

    pub(super) fn checksums(&self) -> &[Checksums] {
        &self.stored.checksums
    }

    /// A batch that is applied names it.
    pub(super) fn is_named(&self) -> bool {
        self.named.load(Ordering::SeqCst)
    }

    pub(super) fn set_named(&self) {
        self.named.store(true, Ordering::SeqCst);
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if !self.is_named() {
            self.space.abandon(self.stored.record.id);
        }
    }
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Written({})", self.stored.record.id)
    }
}
