//! What the harness drives: the engine, or a directory of the machine.

use isotherm::base::{Ino, WallTime};
use isotherm::model::{
    Caller, Kind, Name, New, Refusal, Rename, Reserve, SetAttr, Subject, XattrMode,
};

use super::ops::Work;
use super::shelf::Mishap;

/// Why an operation was not carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It was refused, as the model may refuse it too.
    Refused(Refusal),
    /// Something the model never says: no room, an I/O error.
    Broken(String),
}

/// An answer.
pub type Reply<T> = Result<T, Failure>;

/// A file system under test. Inode numbers are its own; the root is `Ino::ROOT`.
pub trait Target: Subject {
    /// Every time written from now on is this one.
    fn set_now(&mut self, now: WallTime);
    /// What it can do; the harness leaves out the rest.
    fn abilities(&self) -> Abilities;
    fn make(&mut self, dir: Ino, name: &[u8], new: &New, caller: Caller) -> Reply<Ino>;
    fn link(&mut self, ino: Ino, dir: Ino, name: &[u8]) -> Reply<()>;
    fn unlink(&mut self, dir: Ino, name: &[u8]) -> Reply<()>;
    fn rmdir(&mut self, dir: Ino, name: &[u8]) -> Reply<()>;
    fn rename(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: Rename) -> Reply<()>;
    fn open(&mut self, ino: Ino, kind: Kind) -> Reply<u64>;
    fn close(&mut self, handle: u64) -> Reply<()>;
    /// A read that counts as access.
    fn access(&mut self, ino: Ino, offset: u64, length: u64) -> Reply<Vec<u8>>;
    fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8], kill: bool) -> Reply<()>;
    fn setattr(&mut self, ino: Ino, set: SetAttr, kill: bool) -> Reply<()>;
    fn fallocate(&mut self, ino: Ino, at: u64, length: u64, how: Reserve, kill: bool) -> Reply<()>;
    /// None: ENXIO.
    fn seek(&mut self, ino: Ino, offset: u64, data: bool) -> Reply<Option<u64>>;
    fn setxattr(&mut self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Reply<()>;
    fn removexattr(&mut self, ino: Ino, name: &[u8]) -> Reply<()>;
    /// Reads the target of a symlink; counts as access.
    fn readlink(&mut self, ino: Ino) -> Reply<Vec<u8>>;
    /// Lists a directory in pieces of `at_a_time` entries; counts as access.
    fn readdir(&mut self, dir: Ino, at_a_time: u32) -> Reply<Vec<(Name, Ino, Kind)>>;
    fn fsync(&mut self, ino: Ino, kind: Kind) -> Reply<()>;
    fn sync(&mut self) -> Reply<()>;
    /// Nobody knows this inode any more: it has no name and is not open.
    fn forget(&mut self, ino: Ino);
    /// Lets time pass.
    fn pass(&mut self, ms: u64);
    /// Something happens to one of its disks; false if nothing does.
    fn befall(&mut self, _disk: u32, _mishap: Mishap) -> Result<bool, String> {
        Ok(false)
    }
    /// Work of its background is done now; false if it has none.
    fn work(&mut self, _work: Work) -> Result<bool, String> {
        Ok(false)
    }
    /// What is wrong with its disks.
    fn faults(&self) -> Vec<&'static str> {
        vec!["none"]
    }
    /// Nothing goes wrong any more, and everything becomes whole again.
    fn settle(&mut self) -> Result<(), String> {
        Ok(())
    }
    /// Inodes in use, if it can tell. The place to look whether its state makes sense.
    fn inodes(&mut self) -> Option<u64> {
        None
    }
    /// What it keeps agrees with itself, all of it, if it can tell [R18].
    fn audit(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// What a target can do.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// Extended attributes.
    pub xattrs: bool,
    /// Callers other than root, and operations without privilege.
    pub callers: bool,
    /// fallocate that zeroes.
    pub zero_range: bool,
    /// Listing a directory and reading a symlink count as access.
    pub names_access: bool,
    /// Looking ([`Subject`]) leaves access times alone.
    pub quiet: bool,
}
