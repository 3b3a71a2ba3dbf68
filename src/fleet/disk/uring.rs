#![allow(unsafe_code)]
//! A real disk: one thread and one io_uring per disk.

use std::path::Path;

use crate::base::sync::Arc;
use crate::base::{Clock, Wait};

use super::error::ProbeError;
use super::{DiskHandle, Identity};

/// What a disk takes from `pool`.
pub struct UringOptions<'a> {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How `open` waits for the disk's thread.
    pub wait: &'a dyn Wait,
    /// Starts the disk's thread: a name, and what it runs. The thread ends when the disk was dropped
    /// and everything on the device has been answered [R7]: only then is the device released, so
    /// whoever wants to open it again joins the thread first.
    pub spawn: &'a dyn Fn(String, Box<dyn FnOnce() + Send>),
    /// Neither writes nor holds it exclusively: for `inspect`.
    pub read_only: bool,
}

/// A disk served by io_uring.
pub struct UringDisk;

impl UringDisk {
    /// Opens the block device or file at `path`, exclusively unless read only; `identity` is what
    /// probing found.
    pub fn open(
        path: &Path,
        identity: Identity,
        options: UringOptions,
    ) -> Result<DiskHandle, ProbeError> {
        let _ = (path, identity, options);
        todo!("lands next")
    }
}
