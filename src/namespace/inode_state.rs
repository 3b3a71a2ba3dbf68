//! What is known in memory of an inode that somebody uses or that has unwritten changes.

use super::long_cut::LongWork;
use super::overlay::Overlay;
use super::stream::ReadingHead;
use crate::base::Ticks;
use crate::format::InodeRecord;

/// How the kernel knows an inode. It keeps millions that nobody uses, as long as it has memory; of each of
/// those this is all that is in ours.
#[derive(Clone, Copy, Default)]
pub(super) struct Known {
    /// References the kernel holds (lookups not yet forgotten).
    pub(super) references: u64,
    /// Directory it was last reached through, so that neighbours are packed together.
    pub(super) parent_hint: u64,
}

/// In-core state of one inode. Exists while it is open or flushed, or while its overlay is not empty;
/// everything else about it is in the index.
#[derive(Default)]
pub(super) struct InodeState {
    /// How the kernel knows it.
    pub(super) known: Known,
    /// Open handles.
    pub(super) opens: u32,
    /// The inode as its users see it, if that is newer than what the index says.
    pub(super) record: Option<Box<InodeRecord>>,
    /// Content that the index does not have.
    pub(super) overlay: Overlay,
    /// Since when there have been unlogged changes.
    pub(super) dirty_since: Option<Ticks>,
    /// Some change is neither in the journal nor in the index.
    pub(super) unlogged: bool,
    /// Last point of the overlay's history that an inline cut committed (see `cut`).
    pub(super) cut_seq: u64,
    /// Everything up to this point of the overlay's history is in a cut.
    pub(super) settled: u64,
    /// A flush of this inode is running; a second one waits or goes elsewhere.
    pub(super) flushing: bool,
    /// The last flush of it ended before its cut: the open batch was full.
    pub(super) cut_waits: bool,
    /// A cut of it that takes several transactions is under way.
    pub(super) long_work: Option<LongWork>,
    /// How it is read.
    pub(super) reading: ReadingHead,
}

impl InodeState {
    /// Nothing here that the index would not know.
    pub(super) fn is_clean(&self) -> bool {
        self.record.is_none() && self.overlay.is_empty()
    }

    /// Nobody would miss this entry, but for how the kernel knows the inode.
    pub(super) fn is_idle(&self) -> bool {
        self.is_clean() && self.opens == 0 && !self.flushing
    }
}
