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

/// Why a path could not be opened or examined as a disk.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nothing is there.
    #[error("{path}: there is no such device or file")]
    NotFound {
        /// As it was given.
        path: String,
    },
    /// A directory, a socket, a character device.
    #[error("{path}: neither a block device nor a regular file")]
    NotADisk {
        /// As it was given.
        path: String,
    },
    /// No permission to open it.
    #[error("{path}: permission denied; run as root, or make the device or file yours")]
    Denied {
        /// As it was given.
        path: String,
    },
    /// Somebody else holds it exclusively: a mount, another daemon, device mapper, md.
    #[error("{path}: in use by another mount or program")]
    InUse {
        /// As it was given.
        path: String,
    },
    /// Reading or writing it failed, or gave fewer bytes than asked for.
    #[error("{path}: cannot {action} at byte {offset}: {errno}")]
    Io {
        /// As it was given.
        path: String,
        /// `read`, `write`, `open`, ...
        action: &'static str,
        /// Where, 0 if it is about the whole.
        offset: u64,
        /// What the kernel said; 0 for a short transfer.
        errno: Errno,
    },
    /// It did not answer in time.
    #[error("{path}: no answer within {seconds} s; the disk may be hung")]
    Late {
        /// As it was given.
        path: String,
        /// How long we waited.
        seconds: u64,
    },
}

/// An error number of the kernel, kept for messages; nothing decides on it above this directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("fewer bytes than asked for"),
            number => std::io::Error::from_raw_os_error(number).fmt(f),
        }
    }
}
