//! Memory goes back to the machine.
//!
//! A million small changes of the index, and the tables they become, are a million small pieces of memory. When
//! they are freed, the C library keeps the pages: more than half of what the daemon held after a million
//! files were made (tests/loop/scale.sh). So after the index has changed its tables, it is told to let go. And
//! what is kept for the next to write is freed when nobody writes.

use std::time::Duration;

use crate::base::sync::Arc;
use crate::base::{Clock, Event, Pace, Task};
use crate::fleet::disk::buffer::give_back_free_memory;
use crate::namespace::Namespace;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(2);

/// The background task of a daemon.
pub(super) struct Trimmer {
    namespace: Namespace,
    clock: Arc<dyn Clock>,
    /// The index, as it was at the last look.
    index_bytes: Vec<u64>,
}

impl Trimmer {
    pub(super) fn new(namespace: Namespace, clock: Arc<dyn Clock>) -> Trimmer {
        Trimmer { namespace, clock, index_bytes: Vec::new() }
    }
}

impl Task for Trimmer {
    fn name(&self) -> &'static str {
        "trimmer"
    }

    fn event(&self) -> Arc<Event> {
        Arc::default()
    }

    fn step(&mut self) -> Pace {
        self.namespace.free_unused_memory();
        let index_bytes = self.namespace.progress().index_bytes;
        if index_bytes != self.index_bytes {
            self.index_bytes = index_bytes;
            give_back_free_memory();
        }
        Pace::Idle(Some(self.clock.now() + LOOK))
    }
}
