//! An object that is on disk, and durable there, but perhaps not yet named by the index.
//!
//! Until a batch that names it commits, its space is held in memory only: a crash before that leaves
//! nothing to clean up, because free space is derived from committed batches. When the last piece that
//! points at it goes without having been named, its space is given up.
//!
//! Once it is named, the index counts its live bytes. It is not freed at 0 while somebody holds it: a cut
//! to come may put more of it into the index. When the last holder has gone it is [`Spent`]: whoever
//! looks at these next frees those without a live byte.

use crate::base::ObjectId;
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::base::sync::{Arc, Mutex};
use crate::fleet::{Space, StoredObject};
use crate::format::{Checksums, ObjectRecord};

/// See the module's text.
pub(super) struct Written {
    stored: StoredObject,
    space: Arc<Space>,
    spent: Arc<Spent>,
    named: AtomicBool,
}

/// Objects that nobody holds any more, and whether they were named.
#[derive(Default)]
pub(super) struct Spent(Mutex<Vec<(ObjectId, bool)>>);

impl Spent {
    /// Those that came since this was last asked.
    pub(super) fn take(&self) -> Vec<(ObjectId, bool)> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Written {
    pub(super) fn new(stored: StoredObject, space: Arc<Space>, spent: Arc<Spent>) -> Written {
        Written { stored, space, spent, named: AtomicBool::new(false) }
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
        let (id, named) = (self.stored.record.id, self.is_named());
        if !named {
            self.space.abandon(id);
        }
        self.spent.0.lock().push((id, named));
    }
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Written({})", self.stored.record.id)
    }
}
