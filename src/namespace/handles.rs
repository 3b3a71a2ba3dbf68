//! Open files and directories, by number.

use std::collections::HashMap;

use crate::base::Ino;

/// What an open directory remembers: which name went with the last position it gave out, because two
/// names may share a hash.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Listing {
    pub(super) cookie: u64,
    pub(super) name: Vec<u8>,
}

/// One open file or directory.
#[derive(Clone, Debug)]
pub(super) struct OpenHandle {
    pub(super) ino: Ino,
    pub(super) listing: Option<Listing>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Handles {
    next: u64,
    open: HashMap<u64, OpenHandle>,
}

impl Handles {
    pub(super) fn add(&mut self, ino: Ino, listing: Option<Listing>) -> u64 {
        self.next += 1;
        self.open.insert(self.next, OpenHandle { ino, listing });
        self.next
    }

    pub(super) fn get_mut(&mut self, handle: u64) -> Option<&mut OpenHandle> {
        self.open.get_mut(&handle)
    }

    pub(super) fn remove(&mut self, handle: u64) -> Option<OpenHandle> {
        self.open.remove(&handle)
    }
}
