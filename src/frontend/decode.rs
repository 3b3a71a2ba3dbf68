//! The kernel's numbers, as words: flags of open, mknod, fallocate, lseek, setxattr, and times.
//!
//! Pure, and shared by every transport.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::file_system::OpenMode;
use crate::base::{Ino, WallTime};
use crate::namespace::{Allocate, Attr, FileKind, Seek, XattrMode};

/// Flags of open(2).
pub(super) fn open_mode_of(flags: i32) -> OpenMode {
    let access = flags & libc::O_ACCMODE;
    OpenMode {
        read: access != libc::O_WRONLY,
        write: access != libc::O_RDONLY,
        append: flags & libc::O_APPEND != 0,
        truncate: flags & libc::O_TRUNC != 0,
        exclusive: flags & libc::O_EXCL != 0,
    }
}

/// The file type in a mode of mknod(2); None if it is not one that mknod makes.
pub(super) fn kind_of(mode: u32) -> Option<FileKind> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(FileKind::File),
        libc::S_IFCHR => Some(FileKind::CharDevice),
        libc::S_IFBLK => Some(FileKind::BlockDevice),
        libc::S_IFIFO => Some(FileKind::Fifo),
        libc::S_IFSOCK => Some(FileKind::Socket),
        _ => None,
    }
}

/// Mode of fallocate(2); None if it is one that we do not have.
pub(super) fn allocate_of(mode: i32) -> Option<Allocate> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match mode {
        0 => Some(Allocate::Extend),
        KEEP => Some(Allocate::KeepSize),
        PUNCH => Some(Allocate::PunchHole),
        ZERO => Some(Allocate::Zero),
        ZERO_KEEP => Some(Allocate::ZeroKeepSize),
        _ => None,
    }
}

/// What lseek(2) looks for; the kernel does all but these two itself.
pub(super) fn seek_of(whence: i32) -> Option<Seek> {
    match whence {
        libc::SEEK_DATA => Some(Seek::Data),
        libc::SEEK_HOLE => Some(Seek::Hole),
        _ => None,
    }
}

/// Flags of setxattr(2).
pub(super) fn xattr_mode_of(flags: i32) -> XattrMode {
    if flags & libc::XATTR_CREATE != 0 {
        XattrMode::Create
    } else if flags & libc::XATTR_REPLACE != 0 {
        XattrMode::Replace
    } else {
        XattrMode::Any
    }
}

/// How long the kernel may keep names and attributes.
pub(super) const CACHE_TIME: Duration = Duration::from_secs(3600);

/// How long it may keep these attributes. A directory in which somebody has just changed a name may be
/// changed again before the answer arrives, and the kernel would keep what was before: not at all.
pub(super) fn cache_time(attr: &Attr, now: WallTime) -> Duration {
    let is_fresh = now.seconds.abs_diff(attr.ctime.seconds) <= 1;
    if attr.kind == FileKind::Directory && is_fresh { Duration::ZERO } else { CACHE_TIME }
}

/// A time for the kernel. Times outside what the clock type can hold become its ends.
pub(super) fn system_time(time: WallTime) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds >= 0 {
        UNIX_EPOCH.checked_add(seconds)
    } else {
        UNIX_EPOCH.checked_sub(seconds)
    };
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

/// The time a caller gave. For times before 1970, fuser 0.18 turns (seconds, nanos) into
/// `epoch - (|seconds| + nanos)` instead of `epoch - |seconds| + nanos`: undone here.
pub(super) fn wall_time(time: SystemTime) -> WallTime {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => WallTime {
            seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanos: after.subsec_nanos(),
        },
        Err(error) => {
            let before = error.duration();
            WallTime {
                seconds: 0i64.saturating_sub_unsigned(before.as_secs()),
                nanos: before.subsec_nanos(),
            }
        }
    }
}

/// What stands for "no such name, and remember that": inode 0.
pub(super) fn no_inode() -> Attr {
    let never = WallTime::default();
    Attr {
        ino: Ino(0),
        kind: FileKind::File,
        mode: 0,
        links: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        blocks: 0,
        atime: never,
        mtime: never,
        ctime: never,
        btime: never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_fraction() {
        let time = WallTime { seconds: -2, nanos: 800_000_000 };
        let out = system_time(time);
        assert_eq!(UNIX_EPOCH.duration_since(out).expect("before"), Duration::from_millis(1200));
        // What fuser 0.18 makes of -2 s + 800 ms when it decodes.
        let decoded = UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(wall_time(decoded), time);
        let later = WallTime { seconds: 5, nanos: 7 };
        assert_eq!(wall_time(system_time(later)), later);
    }

    #[test]
    fn no_time_panics() {
        for seconds in [i64::MIN, i64::MIN + 1, i64::MAX] {
            let _ = system_time(WallTime { seconds, nanos: 999_999_999 });
        }
    }

    #[test]
    fn flags_become_words() {
        let mode = open_mode_of(libc::O_RDWR | libc::O_TRUNC | libc::O_APPEND);
        assert!(mode.read && mode.write && mode.append && mode.truncate && !mode.exclusive);
        assert!(!open_mode_of(libc::O_WRONLY).read);
        assert_eq!(kind_of(libc::S_IFSOCK | 0o644), Some(FileKind::Socket));
        assert_eq!(kind_of(libc::S_IFDIR), None);
        assert_eq!(allocate_of(libc::FALLOC_FL_PUNCH_HOLE), None);
        assert_eq!(allocate_of(libc::FALLOC_FL_COLLAPSE_RANGE), None);
        assert_eq!(seek_of(libc::SEEK_HOLE), Some(Seek::Hole));
        assert_eq!(seek_of(libc::SEEK_SET), None);
    }
}
