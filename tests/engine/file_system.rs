//! Anything that answers the kernel's side (`frontend::FileSystem`) as a target. Keeps the protocol: one
//! reference for every inode it knows of, handles for reading and writing.

use std::collections::BTreeSet;

use isotherm::base::sync::Arc;
use isotherm::base::{Ino, WallTime};
use isotherm::frontend::{FileSystem, Handle, OpenMode, WriteMode};
use isotherm::model;
use isotherm::model::{Body, Kind, Name, New, Refusal, Rename, Reserve, SetAttr, Subject};
use isotherm::namespace::{
    Allocate, Attr, Caller, DirEntry, FileKind, NamespaceError, NewInode, ReadBuffer, RenameMode,
    Seek, SetTime, XattrMode,
};

use super::ops::Work;
use super::shelf::Mishap;
use super::target::{Abilities, Failure, Reply, Target};

const ROOT: Caller = Caller { uid: 0, gid: 0 };
const USER: Caller = Caller { uid: 1000, gid: 1000 };

/// What stands behind a file system.
pub trait Ground {
    /// Every time written from now on is this one.
    fn set_now(&mut self, now: WallTime);
    /// Lets time pass.
    fn pass(&mut self, ms: u64);
    /// Something happens to a disk.
    fn befall(&mut self, disk: u32, mishap: Mishap) -> Result<bool, String>;
    /// Work of the background, now.
    fn work(&mut self, work: Work) -> Result<bool, String>;
    /// What is wrong with its disks.
    fn faults(&self) -> Vec<&'static str>;
    /// Everything becomes whole again.
    fn settle(&mut self) -> Result<(), String>;
    /// Panics if the state in memory contradicts itself.
    fn check_invariants(&self);
    /// What is on its disks agrees with itself.
    fn audit(&self) -> Result<(), String>;
}

/// See the head of this file.
pub struct FileSystemTarget<G> {
    pub fs: Arc<dyn FileSystem>,
    pub ground: G,
    /// Inodes with one reference each.
    held: BTreeSet<Ino>,
    open: Vec<Option<(Ino, Handle, Kind)>>,
}

impl<G: Ground> FileSystemTarget<G> {
    /// A target on this ground.
    pub fn new(fs: Arc<dyn FileSystem>, ground: G) -> FileSystemTarget<G> {
        FileSystemTarget { fs, ground, held: BTreeSet::new(), open: Vec::new() }
    }

    /// The reference that came with `attr`: kept if it is the first.
    fn keep(&mut self, attr: &Attr) -> Ino {
        if !self.held.insert(attr.ino) {
            self.fs.forget(attr.ino, 1);
        }
        attr.ino
    }

    fn with_file<A>(
        &mut self,
        ino: Ino,
        write: bool,
        what: impl FnOnce(&dyn FileSystem, Handle) -> Result<A, NamespaceError>,
    ) -> Reply<A> {
        let mode = OpenMode { read: !write, write, ..OpenMode::default() };
        let handle = self.fs.open(ino, mode, ROOT).map_err(failure)?;
        let answer = what(&*self.fs, handle).map_err(failure);
        self.fs.release(ino, handle).map_err(failure)?;
        answer
    }

    fn read_file(&mut self, ino: Ino, offset: u64, length: u64) -> Reply<Vec<u8>> {
        self.with_file(ino, false, |fs, handle| {
            let mut buffer = ReadBuffer::default();
            let size = u32::try_from(length).expect("reads are small");
            fs.read(ino, handle, offset, size, &mut buffer)?;
            Ok(buffer.into())
        })
    }

    fn body(&self, attr: &Attr) -> Body {
        let owner = model::Caller { uid: attr.uid, gid: attr.gid };
        let mut body = Body::root(attr.mode, owner, attr.atime);
        body.kind = kind_of(attr.kind);
        (body.rdev, body.size) = (attr.rdev, attr.size);
        (body.mtime, body.ctime, body.btime) = (attr.mtime, attr.ctime, attr.btime);
        body
    }
}

impl<G: Ground> Subject for FileSystemTarget<G> {
    fn list(&mut self, dir: Ino) -> Result<Vec<(Name, Ino, Kind)>, String> {
        let handle = self.fs.opendir(dir).map_err(|error| error.to_string())?;
        let mut found: Vec<(DirEntry, Attr)> = Vec::new();
        self.fs
            .readdirplus(dir, handle, 0, &mut |entry, attr| {
                found.push((entry.clone(), *attr));
                true
            })
            .map_err(|error| error.to_string())?;
        self.fs.releasedir(dir, handle).map_err(|error| error.to_string())?;
        let mut names = Vec::new();
        for (entry, attr) in found {
            if entry.name == b"." || entry.name == b".." {
                continue;
            }
            self.keep(&attr);
            if (entry.ino, entry.kind) != (attr.ino, attr.kind) {
                return Err(format!("readdirplus gives {entry:?} with {attr:?}"));
            }
            names.push((entry.name, entry.ino, kind_of(entry.kind)));
        }
        Ok(names)
    }

    fn lookup(&mut self, dir: Ino, name: &[u8]) -> Result<Ino, String> {
        let attr = self.fs.lookup(dir, name).map_err(|error| error.to_string())?;
        Ok(self.keep(&attr))
    }

    fn stat(&mut self, ino: Ino) -> Result<(Body, u32), String> {
        let attr = self.fs.getattr(ino).map_err(|error| error.to_string())?;
        if attr.ino != ino {
            return Err(format!("getattr of {ino} answers for {}", attr.ino));
        }
        let mut body = self.body(&attr);
        for name in self.fs.listxattr(ino, ROOT).map_err(|error| error.to_string())? {
            let value = self.fs.getxattr(ino, &name, ROOT).map_err(|error| error.to_string())?;
            body.xattrs.insert(name, value);
        }
        Ok((body, attr.links))
    }

    fn target(&mut self, ino: Ino) -> Result<Vec<u8>, String> {
        self.fs.readlink(ino).map_err(|error| error.to_string())
    }

    fn read(&mut self, ino: Ino, offset: u64, length: u64) -> Result<Vec<u8>, String> {
        self.read_file(ino, offset, length).map_err(|failure| format!("{failure:?}"))
    }

    fn seek_data(&mut self, ino: Ino, offset: u64) -> Result<Option<u64>, String> {
        self.seek(ino, offset, true).map_err(|failure| format!("{failure:?}"))
    }
}

impl<G: Ground> Target for FileSystemTarget<G> {
    fn set_now(&mut self, now: WallTime) {
        self.ground.set_now(now);
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            xattrs: true,
            callers: true,
            zero_range: true,
            names_access: false,
            quiet: false,
        }
    }

    fn make(&mut self, dir: Ino, name: &[u8], new: &New, caller: model::Caller) -> Reply<Ino> {
        let caller = Caller { uid: caller.uid, gid: caller.gid };
        let inode =
            NewInode { kind: file_kind(new.kind), mode: new.mode, umask: 0, rdev: new.rdev };
        let attr = match new.kind {
            Kind::Directory => self.fs.mkdir(dir, name, &inode, caller),
            Kind::Symlink => self.fs.symlink(dir, name, &new.target, caller),
            _ => self.fs.mknod(dir, name, &inode, caller),
        };
        let attr = attr.map_err(failure)?;
        Ok(self.keep(&attr))
    }

    fn link(&mut self, ino: Ino, dir: Ino, name: &[u8]) -> Reply<()> {
        let attr = self.fs.link(ino, dir, name).map_err(failure)?;
        self.keep(&attr);
        Ok(())
    }

    fn unlink(&mut self, dir: Ino, name: &[u8]) -> Reply<()> {
        self.fs.unlink(dir, name).map_err(failure)
    }

    fn rmdir(&mut self, dir: Ino, name: &[u8]) -> Reply<()> {
        self.fs.rmdir(dir, name).map_err(failure)
    }

    fn rename(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: Rename) -> Reply<()> {
        let mode = match mode {
            Rename::Replace => RenameMode::Replace,
            Rename::NoReplace => RenameMode::NoReplace,
            Rename::Exchange => RenameMode::Exchange,
        };
        self.fs.rename(from.0, from.1, to.0, to.1, mode).map_err(failure)
    }

    fn open(&mut self, ino: Ino, kind: Kind) -> Reply<u64> {
        let mode = OpenMode { read: true, ..OpenMode::default() };
        let handle = match kind {
            Kind::Directory => self.fs.opendir(ino),
            _ => self.fs.open(ino, mode, ROOT),
        };
        self.open.push(Some((ino, handle.map_err(failure)?, kind)));
        Ok(self.open.len() as u64 - 1)
    }

    fn close(&mut self, handle: u64) -> Reply<()> {
        let (ino, handle, kind) = self.open[handle as usize].take().expect("it was opened");
        match kind {
            Kind::Directory => self.fs.releasedir(ino, handle).map_err(failure),
            _ => {
                self.fs.flush(ino, handle).map_err(failure)?;
                self.fs.release(ino, handle).map_err(failure)
            }
        }
    }

    fn access(&mut self, ino: Ino, offset: u64, length: u64) -> Reply<Vec<u8>> {
        self.read_file(ino, offset, length)
    }

    fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8], kill: bool) -> Reply<()> {
        let mode = WriteMode { kill_privileges: kill, ..WriteMode::default() };
        let written =
            self.with_file(ino, true, |fs, handle| fs.write(ino, handle, offset, bytes, mode))?;
        if written as usize != bytes.len() {
            return Err(Failure::Broken(format!("{written} of {} written", bytes.len())));
        }
        Ok(())
    }

    fn setattr(&mut self, ino: Ino, set: SetAttr, kill: bool) -> Reply<()> {
        let change = isotherm::namespace::SetAttr {
            mode: set.mode,
            uid: set.uid,
            gid: set.gid,
            size: set.size,
            atime: set.atime.map(SetTime::At),
            mtime: set.mtime.map(SetTime::At),
        };
        let caller = if kill { USER } else { ROOT };
        self.fs.setattr(ino, None, &change, caller).map(|_| ()).map_err(failure)
    }

    fn fallocate(&mut self, ino: Ino, at: u64, length: u64, how: Reserve, kill: bool) -> Reply<()> {
        let what = match how {
            Reserve::Extend => Allocate::Extend,
            Reserve::KeepSize => Allocate::KeepSize,
            Reserve::PunchHole => Allocate::PunchHole,
            Reserve::Zero => Allocate::Zero,
            Reserve::ZeroKeepSize => Allocate::ZeroKeepSize,
        };
        let caller = if kill { USER } else { ROOT };
        self.with_file(ino, true, |fs, handle| fs.fallocate(ino, handle, what, at, length, caller))
    }

    fn seek(&mut self, ino: Ino, offset: u64, data: bool) -> Reply<Option<u64>> {
        let what = if data { Seek::Data } else { Seek::Hole };
        let answer = self.with_file(ino, false, |fs, handle| fs.lseek(ino, handle, offset, what));
        match answer {
            Err(Failure::Refused(Refusal::NoData)) => Ok(None),
            answer => answer.map(Some),
        }
    }

    fn setxattr(
        &mut self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: model::XattrMode,
    ) -> Reply<()> {
        let mode = match mode {
            model::XattrMode::Any => XattrMode::Any,
            model::XattrMode::Create => XattrMode::Create,
            model::XattrMode::Replace => XattrMode::Replace,
        };
        self.fs.setxattr(ino, name, value, mode, ROOT).map_err(failure)
    }

    fn removexattr(&mut self, ino: Ino, name: &[u8]) -> Reply<()> {
        self.fs.removexattr(ino, name, ROOT).map_err(failure)
    }

    fn readlink(&mut self, ino: Ino) -> Reply<Vec<u8>> {
        self.fs.readlink(ino).map_err(failure)
    }

    fn readdir(&mut self, dir: Ino, at_a_time: u32) -> Reply<Vec<(Name, Ino, Kind)>> {
        let handle = self.fs.opendir(dir).map_err(failure)?;
        let (mut names, mut cookie, mut dots) = (Vec::new(), 0, 0);
        loop {
            let mut left = at_a_time;
            let mut taken = Vec::new();
            self.fs
                .readdir(dir, handle, cookie, &mut |entry| {
                    if left > 0 {
                        taken.push(entry.clone());
                    }
                    left = left.saturating_sub(1);
                    left > 0 || taken.len() < at_a_time as usize
                })
                .map_err(failure)?;
            let Some(last) = taken.last() else { break };
            cookie = last.cookie;
            for entry in taken {
                match entry.name.as_slice() {
                    b"." | b".." => dots += 1,
                    _ => names.push((entry.name, entry.ino, kind_of(entry.kind))),
                }
            }
        }
        self.fs.releasedir(dir, handle).map_err(failure)?;
        if dots != 2 {
            return Err(Failure::Broken(format!("{dots} of . and .. listed")));
        }
        Ok(names)
    }

    fn fsync(&mut self, ino: Ino, kind: Kind) -> Reply<()> {
        match kind {
            Kind::File => self.with_file(ino, true, |fs, handle| fs.fsync(ino, handle, false)),
            Kind::Directory => {
                let handle = self.fs.opendir(ino).map_err(failure)?;
                let answer = self.fs.fsyncdir(ino, handle, false).map_err(failure);
                self.fs.releasedir(ino, handle).map_err(failure)?;
                answer
            }
            // The others cannot be opened.
            _ => self.sync(),
        }
    }

    fn sync(&mut self) -> Reply<()> {
        self.fs.sync().map_err(failure)
    }

    fn forget(&mut self, ino: Ino) {
        if self.held.remove(&ino) {
            self.fs.forget(ino, 1);
        }
    }

    fn pass(&mut self, ms: u64) {
        self.ground.pass(ms);
    }

    fn work(&mut self, work: Work) -> Result<bool, String> {
        self.ground.work(work)
    }

    fn faults(&self) -> Vec<&'static str> {
        self.ground.faults()
    }

    fn settle(&mut self) -> Result<(), String> {
        self.ground.settle()
    }

    fn befall(&mut self, disk: u32, mishap: Mishap) -> Result<bool, String> {
        self.ground.befall(disk, mishap)
    }

    fn audit(&mut self) -> Result<(), String> {
        self.ground.audit()?;
        // Once more with what memory had: files with changes are not judged whole.
        self.fs.sync().map_err(|error| format!("sync before an audit: {error}"))?;
        self.ground.pass(1000);
        self.ground.audit()
    }

    fn inodes(&mut self) -> Option<u64> {
        self.ground.check_invariants();
        self.fs.statfs().ok().map(|numbers| numbers.inodes)
    }
}

fn kind_of(kind: FileKind) -> Kind {
    match kind {
        FileKind::File => Kind::File,
        FileKind::Directory => Kind::Directory,
        FileKind::Symlink => Kind::Symlink,
        FileKind::BlockDevice => Kind::BlockDevice,
        FileKind::CharDevice => Kind::CharDevice,
        FileKind::Fifo => Kind::Fifo,
        FileKind::Socket => Kind::Socket,
    }
}

fn file_kind(kind: Kind) -> FileKind {
    match kind {
        Kind::File => FileKind::File,
        Kind::Directory => FileKind::Directory,
        Kind::Symlink => FileKind::Symlink,
        Kind::BlockDevice => FileKind::BlockDevice,
        Kind::CharDevice => FileKind::CharDevice,
        Kind::Fifo => FileKind::Fifo,
        Kind::Socket => FileKind::Socket,
    }
}

fn failure(error: NamespaceError) -> Failure {
    Failure::Refused(match error {
        NamespaceError::NotFound => Refusal::NotFound,
        NamespaceError::Exists => Refusal::Exists,
        NamespaceError::NotDirectory => Refusal::NotDirectory,
        NamespaceError::IsDirectory => Refusal::IsDirectory,
        NamespaceError::NotEmpty => Refusal::NotEmpty,
        NamespaceError::NameTooLong => Refusal::NameTooLong,
        NamespaceError::Invalid => Refusal::Invalid,
        NamespaceError::NotPermitted => Refusal::NotPermitted,
        NamespaceError::NoData => Refusal::NoData,
        NamespaceError::TooBig => Refusal::TooBig,
        NamespaceError::FileTooBig => Refusal::FileTooBig,
        other => return Failure::Broken(other.to_string()),
    })
}
