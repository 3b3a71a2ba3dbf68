//! What a disk answers when it could not do as asked.

/// Why a request failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiskError {
    /// The medium could not deliver or take these bytes (EIO on one request).
    #[error("medium error at byte {offset}")]
    Medium {
        /// Where.
        offset: u64,
    },
    /// The device is gone, or answered nonsense (short or 0-byte transfer, ENODEV, ENXIO).
    #[error("the device is gone")]
    Gone,
    /// The host file system under a file-backed disk is full: not the disk's failure.
    #[error("the host file system is full")]
    HostFull,
    /// The disk was failed before (a failed flush, or by its owner) and is not used any more [I10].
    #[error("the disk has failed")]
    Failed,
    /// Taken back while it was still queued.
    #[error("cancelled")]
    Cancelled,
}
