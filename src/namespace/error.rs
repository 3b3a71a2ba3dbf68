//! What can go wrong in the namespace, as its caller must decide on it. `frontend/errno.rs` maps it.

/// The cause inside [`NamespaceError::Io`], for those who may not know the fleet.
pub use crate::fleet::FleetError;

/// Why a namespace operation was refused or failed. Nothing was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// No such name or inode.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("the name exists already")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// A directory where none is allowed.
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A name above 255 bytes, or a symlink target above 4095.
    #[error("the name is too long")]
    NameTooLong,
    /// More hard links than an inode can count.
    #[error("too many links")]
    TooManyLinks,
    /// An argument that makes no sense.
    #[error("invalid argument")]
    Invalid,
    /// Not allowed to this caller (EPERM).
    #[error("operation not permitted")]
    NotPermitted,
    /// Mode bits or ACL deny it (EACCES).
    #[error("permission denied")]
    AccessDenied,
    /// No such extended attribute, or no data or hole after this offset.
    #[error("no such attribute or data")]
    NoData,
    /// The answer does not fit the caller's buffer.
    #[error("the buffer is too small")]
    Range,
    /// An attribute value above 64 KiB.
    #[error("the value is too large")]
    TooBig,
    /// Beyond the largest file size.
    #[error("the file would be too large")]
    FileTooBig,
    /// An operation this file system does not have.
    #[error("operation not supported")]
    Unsupported,
    /// No room, pending frees already waited for [R22].
    #[error("no space left in the pool")]
    NoSpace,
    /// The pool is mounted read-only (asked for, or degraded as I5 and I6 say).
    #[error("the pool is read-only")]
    ReadOnly,
    /// The handle does not exist.
    #[error("bad handle")]
    BadHandle,
    /// The engine is being shut down.
    #[error("the pool is being unmounted")]
    Stopped,
    /// Disks could not deliver: data lost beyond redundancy, or the log cannot be written.
    #[error("input/output error: {0}")]
    Io(#[from] FleetError),
}
