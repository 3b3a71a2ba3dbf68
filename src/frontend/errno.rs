//! What the namespace's refusals are called by the kernel. The only file that names errno.
//!
//! One exhaustive match per error type, without a `_` arm: a new error must be given its number here
//! before anything compiles.

#![deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]

use crate::namespace::{FleetError, NamespaceError};

/// The number that stands for `error`, positive.
pub(super) fn errno_of(error: &NamespaceError) -> i32 {
    match error {
        NamespaceError::NotFound => libc::ENOENT,
        NamespaceError::Exists => libc::EEXIST,
        NamespaceError::NotDirectory => libc::ENOTDIR,
        NamespaceError::IsDirectory => libc::EISDIR,
        NamespaceError::NotEmpty => libc::ENOTEMPTY,
        NamespaceError::NameTooLong => libc::ENAMETOOLONG,
        NamespaceError::TooManyLinks => libc::EMLINK,
        NamespaceError::Invalid => libc::EINVAL,
        NamespaceError::NotPermitted => libc::EPERM,
        NamespaceError::AccessDenied => libc::EACCES,
        NamespaceError::NoData => libc::ENODATA,
        NamespaceError::Range => libc::ERANGE,
        NamespaceError::TooBig => libc::E2BIG,
        NamespaceError::FileTooBig => libc::EFBIG,
        NamespaceError::Unsupported => libc::EOPNOTSUPP,
        NamespaceError::NoSpace => libc::ENOSPC,
        NamespaceError::ReadOnly => libc::EROFS,
        NamespaceError::BadHandle => libc::EBADF,
        NamespaceError::Stopped => libc::EIO,
        NamespaceError::Io(error) => errno_of_fleet(error),
    }
}

/// As [`errno_of`], for lseek: "no data or hole after this" has a number of its own there.
pub(super) fn errno_of_seek(error: &NamespaceError) -> i32 {
    if matches!(error, NamespaceError::NoData) { libc::ENXIO } else { errno_of(error) }
}

/// What an operation that does not exist is answered with: the kernel then never asks again.
pub(super) const NOT_IMPLEMENTED: i32 = libc::ENOSYS;
/// What an ioctl that we do not have is answered with.
pub(super) const NO_SUCH_IOCTL: i32 = libc::ENOTTY;

fn errno_of_fleet(error: &FleetError) -> i32 {
    match error {
        FleetError::NoRoom { .. } => libc::ENOSPC,
        // A full log is waited for; whoever sees this could not wait any longer.
        FleetError::JournalFull => libc::ENOSPC,
        FleetError::Unreadable { .. }
        | FleetError::Deleted { .. }
        | FleetError::TooFewDisks { .. }
        | FleetError::Damaged { .. }
        | FleetError::Disk { .. }
        | FleetError::Stopped => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::DiskIndex;

    #[test]
    fn refusals_have_the_numbers_that_programs_look_for() {
        assert_eq!(errno_of(&NamespaceError::NotFound), 2);
        assert_eq!(errno_of(&NamespaceError::NoSpace), 28);
        assert_eq!(errno_of(&NamespaceError::NotEmpty), 39);
        assert_eq!(errno_of(&NamespaceError::NoData), 61);
        assert_eq!(errno_of_seek(&NamespaceError::NoData), 6);
        assert_eq!(errno_of_seek(&NamespaceError::Invalid), 22);
        let failed = FleetError::Disk { disk: DiskIndex(3) };
        assert_eq!(errno_of(&NamespaceError::Io(failed)), 5);
        let full = FleetError::NoRoom { shards: 8, bytes: 2 << 20 };
        assert_eq!(errno_of(&NamespaceError::Io(full)), 28);
    }
}
