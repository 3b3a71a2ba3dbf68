//! A directory of this machine as a target: it proves the model right, before the model judges.
//!
//! Every inode is held by an O_PATH descriptor, so that names play no part. The machine's times cannot
//! be set, so they are translated: what falls between two operations belongs to the earlier one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use isotherm::base::{Ino, WallTime};
use isotherm::model::{
    Body, Caller, Kind, Name, New, Refusal, Rename, Reserve, SetAttr, Subject, XattrMode,
};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FallocateFlags, OFlag, RenameFlags};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, Whence};

use super::target::{Abilities, Failure, Reply, Target};

/// Longer than a kernel tick at 100 Hz: times of two operations differ.
const TICK: Duration = Duration::from_millis(12);

/// The model's time of what happened before the first operation.
const BEFORE: WallTime = WallTime { seconds: 1_699_999_999, nanos: 0 };

/// The directory.
pub struct RealDirectory {
    inodes: BTreeMap<Ino, OwnedFd>,
    root: Ino,
    targets: BTreeMap<Ino, Vec<u8>>,
    open: BTreeMap<u64, File>,
    next: u64,
    /// When operations began, in the machine's time and in the model's.
    began: BTreeMap<WallTime, WallTime>,
}

impl RealDirectory {
    /// An empty directory; None where this user may not make devices.
    pub fn new(path: &Path) -> Option<RealDirectory> {
        if !Uid::effective().is_root() {
            return None;
        }
        nix::sys::stat::umask(Mode::empty());
        let fd = nix::fcntl::open(path, OFlag::O_PATH, Mode::empty()).expect("it exists");
        let root = Ino(nix::sys::stat::fstat(&fd).expect("it is open").st_ino);
        let mut real = RealDirectory {
            inodes: [(Ino::ROOT, fd)].into(),
            root,
            targets: BTreeMap::new(),
            open: BTreeMap::new(),
            next: 0,
            began: BTreeMap::new(),
        };
        // What is older than the first operation belongs to a moment before all.
        real.began.insert(WallTime { seconds: 1_750_000_000, nanos: 0 }, BEFORE);
        Some(real)
    }

    fn path(&self, ino: Ino) -> PathBuf {
        format!("/proc/self/fd/{}", self.inodes[&ino].as_raw_fd()).into()
    }

    fn file(&self, ino: Ino, write: bool) -> std::io::Result<File> {
        let flags = OFlag::O_NONBLOCK.bits();
        File::options().read(true).write(write).custom_flags(flags).open(self.path(ino))
    }

    /// For looking without leaving a trace.
    fn quiet(&self, ino: Ino) -> Result<File, String> {
        File::options()
            .read(true)
            .custom_flags(OFlag::O_NOATIME.bits())
            .open(self.path(ino))
            .map_err(|error| error.to_string())
    }

    fn number(&self, st_ino: u64) -> Ino {
        if Ino(st_ino) == self.root { Ino::ROOT } else { Ino(st_ino) }
    }

    fn translate(&self, seconds: i64, nanos: i64) -> WallTime {
        let time = WallTime { seconds, nanos: nanos as u32 };
        match self.began.range(..=time).next_back() {
            Some((_, &model)) => model,
            None => time,
        }
    }

    fn read_names(&self, dir: Ino, flags: OFlag) -> Result<Vec<(Name, Ino, Kind)>, Errno> {
        let mut names = Vec::new();
        for entry in Dir::open(&self.path(dir), flags, Mode::empty())?.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                let path = OsStr::from_bytes(&name);
                let stat = nix::sys::stat::fstatat(
                    &self.inodes[&dir],
                    path,
                    AtFlags::AT_SYMLINK_NOFOLLOW,
                )?;
                names.push((name, self.number(entry.ino()), kind_of(&stat)));
            }
        }
        Ok(names)
    }
}

impl Subject for RealDirectory {
    fn list(&mut self, dir: Ino) -> Result<Vec<(Name, Ino, Kind)>, String> {
        self.read_names(dir, OFlag::O_NOATIME).map_err(|errno| errno.to_string())
    }

    fn lookup(&mut self, dir: Ino, name: &[u8]) -> Result<Ino, String> {
        let path = OsStr::from_bytes(name);
        nix::sys::stat::fstatat(&self.inodes[&dir], path, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map(|stat| self.number(stat.st_ino))
            .map_err(|errno| errno.to_string())
    }

    fn stat(&mut self, ino: Ino) -> Result<(Body, u32), String> {
        let stat = nix::sys::stat::fstat(&self.inodes[&ino]).map_err(|errno| errno.to_string())?;
        let kind = kind_of(&stat);
        let device = matches!(kind, Kind::BlockDevice | Kind::CharDevice);
        let mut body = Body::root(
            stat.st_mode & 0o7777,
            Caller { uid: stat.st_uid, gid: stat.st_gid },
            WallTime::default(),
        );
        body.kind = kind;
        body.rdev = if device { stat.st_rdev as u32 } else { 0 };
        body.size = stat.st_size as u64;
        body.atime = self.translate(stat.st_atime, stat.st_atime_nsec);
        body.mtime = self.translate(stat.st_mtime, stat.st_mtime_nsec);
        body.ctime = self.translate(stat.st_ctime, stat.st_ctime_nsec);
        body.btime = self.born(ino);
        Ok((body, stat.st_nlink as u32))
    }

    fn target(&mut self, ino: Ino) -> Result<Vec<u8>, String> {
        // Reading it leaves a trace: what it was made with must do; `readlink` compares.
        Ok(self.targets[&ino].clone())
    }

    fn read(&mut self, ino: Ino, offset: u64, length: u64) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; length as usize];
        let got = read_full(&self.quiet(ino)?, &mut bytes, offset).map_err(|e| e.to_string())?;
        bytes.truncate(got);
        Ok(bytes)
    }

    fn seek_data(&mut self, ino: Ino, offset: u64) -> Result<Option<u64>, String> {
        self.seek(ino, offset, true).map_err(|failure| format!("{failure:?}"))
    }
}

impl Target for RealDirectory {
    #[allow(clippy::disallowed_methods, reason = "the machine's own times are what is compared")]
    fn set_now(&mut self, now: WallTime) {
        let real = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("it is later than 1970");
        let real = WallTime { seconds: real.as_secs() as i64, nanos: real.subsec_nanos() };
        self.began.insert(real, now);
        std::thread::sleep(TICK);
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            xattrs: false,
            callers: false,
            zero_range: false,
            names_access: true,
            quiet: true,
        }
    }

    fn make(&mut self, dir: Ino, name: &[u8], new: &New, caller: Caller) -> Reply<Ino> {
        let (fd, path) = (&self.inodes[&dir], OsStr::from_bytes(name));
        let mode = Mode::from_bits_truncate(new.mode);
        nix::unistd::setfsgid(Gid::from_raw(caller.gid));
        let made = match new.kind {
            Kind::Directory => nix::sys::stat::mkdirat(fd, path, mode),
            Kind::Symlink => nix::unistd::symlinkat(OsStr::from_bytes(&new.target), fd, path),
            kind => nix::sys::stat::mknodat(fd, path, flag_of(kind), mode, u64::from(new.rdev)),
        };
        nix::unistd::setfsgid(Gid::from_raw(0));
        made.map_err(refused)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        let inode = nix::fcntl::openat(fd, path, flags, Mode::empty()).map_err(refused)?;
        let stat = nix::sys::stat::fstat(&inode).map_err(refused)?;
        let ino = self.number(stat.st_ino);
        self.inodes.insert(ino, inode);
        self.targets.insert(ino, new.target.clone());
        Ok(ino)
    }

    fn link(&mut self, ino: Ino, dir: Ino, name: &[u8]) -> Reply<()> {
        let path = OsStr::from_bytes(name);
        let inode = &self.inodes[&ino];
        nix::unistd::linkat(inode, "", &self.inodes[&dir], path, LinkatFlags::AT_EMPTY_PATH)
            .map_err(refused)
    }

    fn unlink(&mut self, dir: Ino, name: &[u8]) -> Reply<()> {
        let path = OsStr::from_bytes(name);
        nix::unistd::unlinkat(&self.inodes[&dir], path, UnlinkatFlags::NoRemoveDir).map_err(refused)
    }

    fn rmdir(&mut self, dir: Ino, name: &[u8]) -> Reply<()> {
        let path = OsStr::from_bytes(name);
        nix::unistd::unlinkat(&self.inodes[&dir], path, UnlinkatFlags::RemoveDir).map_err(refused)
    }

    fn rename(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: Rename) -> Reply<()> {
        let flags = match mode {
            Rename::Replace => RenameFlags::empty(),
            Rename::NoReplace => RenameFlags::RENAME_NOREPLACE,
            Rename::Exchange => RenameFlags::RENAME_EXCHANGE,
        };
        nix::fcntl::renameat2(
            &self.inodes[&from.0],
            OsStr::from_bytes(from.1),
            &self.inodes[&to.0],
            OsStr::from_bytes(to.1),
            flags,
        )
        .map_err(refused)
    }

    fn open(&mut self, ino: Ino, _kind: Kind) -> Reply<u64> {
        self.next += 1;
        let file = self.file(ino, false).map_err(|error| Failure::Broken(error.to_string()))?;
        self.open.insert(self.next, file);
        Ok(self.next)
    }

    fn close(&mut self, handle: u64) -> Reply<()> {
        self.open.remove(&handle).expect("it was opened");
        Ok(())
    }

    fn access(&mut self, ino: Ino, offset: u64, length: u64) -> Reply<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        let file = self.file(ino, false).map_err(broken)?;
        let got = read_full(&file, &mut bytes, offset).map_err(broken)?;
        bytes.truncate(got);
        Ok(bytes)
    }

    fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8], _kill: bool) -> Reply<()> {
        let file = self.file(ino, true).map_err(broken)?;
        file.write_all_at(bytes, offset).map_err(broken)
    }

    fn setattr(&mut self, ino: Ino, set: SetAttr, _kill: bool) -> Reply<()> {
        let (fd, path) = (&self.inodes[&ino], self.path(ino));
        if let Some(size) = set.size {
            self.file(ino, true).map_err(broken)?.set_len(size).map_err(broken)?;
        }
        if set.uid.is_some() || set.gid.is_some() {
            let (uid, gid) = (set.uid.map(Uid::from_raw), set.gid.map(Gid::from_raw));
            nix::unistd::fchownat(fd, "", uid, gid, AtFlags::AT_EMPTY_PATH).map_err(refused)?;
        }
        if let Some(mode) = set.mode {
            nix::sys::stat::fchmodat(
                nix::fcntl::AT_FDCWD,
                &path,
                Mode::from_bits_truncate(mode),
                nix::sys::stat::FchmodatFlags::FollowSymlink,
            )
            .map_err(refused)?;
        }
        if set.atime.is_some() || set.mtime.is_some() {
            let spec = |time: Option<WallTime>| match time {
                Some(time) => TimeSpec::new(time.seconds, i64::from(time.nanos)),
                None => TimeSpec::UTIME_OMIT,
            };
            let (atime, mtime) = (spec(set.atime), spec(set.mtime));
            // Through /proc a symlink's own times cannot be reached; they are set by no operation.
            let follow = UtimensatFlags::FollowSymlink;
            nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &path, &atime, &mtime, follow)
                .map_err(refused)?;
        }
        Ok(())
    }

    fn fallocate(&mut self, ino: Ino, at: u64, length: u64, how: Reserve, _: bool) -> Reply<()> {
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let flags = match how {
            Reserve::Extend => FallocateFlags::empty(),
            Reserve::KeepSize => keep,
            Reserve::PunchHole => FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep,
            Reserve::Zero => FallocateFlags::FALLOC_FL_ZERO_RANGE,
            Reserve::ZeroKeepSize => FallocateFlags::FALLOC_FL_ZERO_RANGE | keep,
        };
        let file = self.file(ino, true).map_err(broken)?;
        nix::fcntl::fallocate(&file, flags, at as i64, length as i64).map_err(refused)
    }

    fn seek(&mut self, ino: Ino, offset: u64, data: bool) -> Reply<Option<u64>> {
        let file = self.file(ino, false).map_err(broken)?;
        let whence = if data { Whence::SeekData } else { Whence::SeekHole };
        match nix::unistd::lseek(&file, offset as i64, whence) {
            Ok(at) => Ok(Some(at as u64)),
            Err(Errno::ENXIO) => Ok(None),
            Err(errno) => Err(refused(errno)),
        }
    }

    fn setxattr(&mut self, _: Ino, _: &[u8], _: &[u8], _: XattrMode) -> Reply<()> {
        unreachable!("it said that it cannot")
    }

    fn removexattr(&mut self, _: Ino, _: &[u8]) -> Reply<()> {
        unreachable!("it said that it cannot")
    }

    fn readlink(&mut self, ino: Ino) -> Reply<Vec<u8>> {
        nix::fcntl::readlinkat(&self.inodes[&ino], "")
            .map(|target| target.as_bytes().to_vec())
            .map_err(refused)
    }

    fn readdir(&mut self, dir: Ino, _at_a_time: u32) -> Reply<Vec<(Name, Ino, Kind)>> {
        self.read_names(dir, OFlag::empty()).map_err(refused)
    }

    fn fsync(&mut self, _ino: Ino, _kind: Kind) -> Reply<()> {
        Ok(())
    }

    fn sync(&mut self) -> Reply<()> {
        Ok(())
    }

    fn forget(&mut self, _ino: Ino) {
        // Kept open, so that its number does not come again.
    }

    fn pass(&mut self, _ms: u64) {}
}

impl RealDirectory {
    fn born(&self, ino: Ino) -> WallTime {
        let metadata = std::fs::metadata(self.path(ino));
        match metadata.ok().and_then(|metadata| metadata.created().ok()) {
            Some(time) => {
                let since = time.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
                self.translate(since.as_secs() as i64, i64::from(since.subsec_nanos()))
            }
            None => WallTime::default(),
        }
    }
}

fn read_full(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut got = 0;
    while got < bytes.len() {
        match file.read_at(&mut bytes[got..], offset + got as u64)? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}

fn kind_of(stat: &FileStat) -> Kind {
    let format = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let kinds = [
        Kind::File,
        Kind::Directory,
        Kind::Symlink,
        Kind::BlockDevice,
        Kind::CharDevice,
        Kind::Fifo,
        Kind::Socket,
    ];
    *kinds.iter().find(|&&kind| flag_of(kind) == format).expect("there are no others")
}

fn flag_of(kind: Kind) -> SFlag {
    match kind {
        Kind::File => SFlag::S_IFREG,
        Kind::Directory => SFlag::S_IFDIR,
        Kind::Symlink => SFlag::S_IFLNK,
        Kind::BlockDevice => SFlag::S_IFBLK,
        Kind::CharDevice => SFlag::S_IFCHR,
        Kind::Fifo => SFlag::S_IFIFO,
        Kind::Socket => SFlag::S_IFSOCK,
    }
}

fn broken(error: std::io::Error) -> Failure {
    match error.raw_os_error() {
        Some(number) => refused(Errno::from_raw(number)),
        None => Failure::Broken(error.to_string()),
    }
}

fn refused(errno: Errno) -> Failure {
    Failure::Refused(match errno {
        Errno::ENOENT => Refusal::NotFound,
        Errno::EEXIST => Refusal::Exists,
        Errno::ENOTDIR => Refusal::NotDirectory,
        Errno::EISDIR => Refusal::IsDirectory,
        Errno::ENOTEMPTY => Refusal::NotEmpty,
        Errno::ENAMETOOLONG => Refusal::NameTooLong,
        Errno::EINVAL => Refusal::Invalid,
        Errno::EPERM => Refusal::NotPermitted,
        Errno::ENODATA => Refusal::NoData,
        Errno::E2BIG => Refusal::TooBig,
        Errno::EFBIG => Refusal::FileTooBig,
        other => return Failure::Broken(other.to_string()),
    })
}
