//! The POSIX tree as if nothing ever failed: inodes, names, and which times change when.
//!
//! Rules are Linux's (checked against tmpfs) where POSIX leaves a choice:
//!
//! * A directory has 2 links and one more per subdirectory.
//! * A new inode in a directory with sgid inherits its group; a new directory inherits the bit too.
//! * Changing the owner clears suid, and sgid where the group may execute, except on directories.
//!   Writing, truncating and allocating do so for callers without privilege (`kill`).
//! * An unlinked inode lives until its last `close`.
//! * Access times are relatime: written when not newer than the others, or a day old.
//!
//! Every operation also leaves a [`Step`]: the names and inode versions it made. A refused operation
//! changes nothing. Permissions are the kernel's to check (`default_permissions`), not ours.

use std::collections::BTreeMap;

use super::content::Content;
use super::words::{
    Body, Caller, Kind, Name, New, Outcome, Refusal, Rename, Reserve, SetAttr, XattrMode,
};
use crate::base::limits::{
    FILE_BYTES_MAX, NAME_BYTES_MAX, SYMLINK_BYTES_MAX, XATTR_VALUE_BYTES_MAX,
};
use crate::base::{Ino, WallTime};

/// What one operation changed.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Names set (or taken away: None). A step with any is a namespace operation.
    pub entries: Vec<(Ino, Name, Option<Ino>)>,
    /// Inodes changed, as they then were.
    pub bodies: BTreeMap<Ino, Body>,
}

/// The tree.
#[derive(Clone)]
pub struct Tree {
    bodies: BTreeMap<Ino, Body>,
    entries: BTreeMap<Ino, BTreeMap<Name, Ino>>,
    parents: BTreeMap<Ino, Ino>,
    links: BTreeMap<Ino, u32>,
    opens: BTreeMap<Ino, u32>,
    next: u64,
    step: Step,
}

impl Tree {
    /// A tree of just this root.
    pub fn new(root: Body) -> Tree {
        assert_eq!(root.kind, Kind::Directory);
        Tree {
            bodies: [(Ino::ROOT, root)].into(),
            entries: [(Ino::ROOT, BTreeMap::new())].into(),
            parents: [(Ino::ROOT, Ino::ROOT)].into(),
            links: [(Ino::ROOT, 2)].into(),
            opens: BTreeMap::new(),
            next: 2,
            step: Step::default(),
        }
    }

    /// The tree with these inodes and names, as found after a crash. New inodes get numbers from
    /// `next` on: no number is ever used twice.
    pub fn rebuild(
        bodies: BTreeMap<Ino, Body>,
        entries: BTreeMap<Ino, BTreeMap<Name, Ino>>,
        next: u64,
    ) -> Tree {
        let mut tree = Tree::new(bodies[&Ino::ROOT].clone());
        for (&ino, body) in &bodies {
            let directory = body.kind == Kind::Directory;
            tree.links.insert(ino, if directory { 2 } else { 0 });
            if directory {
                tree.entries.entry(ino).or_default();
            }
        }
        tree.bodies = bodies;
        for (dir, names) in entries {
            for (name, ino) in names {
                tree.set_entry(dir, &name, Some(ino));
            }
        }
        tree.next = next;
        tree.step = Step::default();
        tree
    }

    // --- looking ------------------------------------------------------------------------------

    /// Attributes, content and xattrs.
    pub fn body(&self, ino: Ino) -> Outcome<&Body> {
        self.bodies.get(&ino).ok_or(Refusal::NotFound)
    }

    /// Hard links.
    pub fn links(&self, ino: Ino) -> u32 {
        self.links[&ino]
    }

    /// The inode that `name` means in `dir`.
    pub fn lookup(&self, dir: Ino, name: &[u8]) -> Outcome<Ino> {
        let entries = self.entries.get(&dir).ok_or(Refusal::NotDirectory)?;
        // Linux looks at the directory before it looks at the name.
        if self.links[&dir] == 0 {
            return Err(Refusal::NotFound);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(Refusal::NameTooLong);
        }
        entries.get(name).copied().ok_or(Refusal::NotFound)
    }

    /// The names in `dir`, without `.` and `..`.
    pub fn list(&self, dir: Ino) -> Outcome<&BTreeMap<Name, Ino>> {
        self.entries.get(&dir).ok_or(Refusal::NotDirectory)
    }

    /// All inodes that exist, open unlinked ones included.
    pub fn inodes(&self) -> impl Iterator<Item = (Ino, &Body)> {
        self.bodies.iter().map(|(&ino, body)| (ino, body))
    }

    /// All names: directory, name, inode.
    pub fn names(&self) -> impl Iterator<Item = (Ino, &Name, Ino)> {
        self.entries
            .iter()
            .flat_map(|(&dir, names)| names.iter().map(move |(name, &ino)| (dir, name, ino)))
    }

    /// All names, by directory.
    pub fn entries(&self) -> &BTreeMap<Ino, BTreeMap<Name, Ino>> {
        &self.entries
    }

    /// The next inode number to be used.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether a hole may begin at `offset`, as SEEK_HOLE would answer it.
    pub fn may_be_hole(&self, ino: Ino, offset: u64) -> bool {
        let body = &self.bodies[&ino];
        offset == body.size
            || (offset < body.size && body.content.next_data(offset) != Some(offset))
    }

    /// Whether SEEK_DATA from `offset` may answer `found` (None: no data from here on). Any zeros may
    /// count as data, but nothing else may be passed over.
    pub fn may_be_data(&self, ino: Ino, offset: u64, found: Option<u64>) -> bool {
        let body = &self.bodies[&ino];
        let next = body.content.next_data(offset);
        match found {
            None => offset >= body.size || next.is_none(),
            Some(at) => at >= offset && at < body.size && next.is_none_or(|next| at <= next),
        }
    }

    // --- names --------------------------------------------------------------------------------

    /// creat, mknod, mkdir and symlink.
    pub fn make(
        &mut self,
        dir: Ino,
        name: &[u8],
        new: New,
        caller: Caller,
        now: WallTime,
    ) -> Outcome<Ino> {
        if new.target.len() > SYMLINK_BYTES_MAX {
            return Err(Refusal::NameTooLong);
        }
        self.check_free(dir, name)?;
        let parent = &self.bodies[&dir];
        let inherits = parent.mode & 0o2000 != 0;
        let body = Body {
            kind: new.kind,
            mode: match new.kind {
                Kind::Symlink => 0o777,
                Kind::Directory if inherits => new.mode | 0o2000,
                _ => new.mode,
            },
            uid: caller.uid,
            gid: if inherits { parent.gid } else { caller.gid },
            rdev: new.rdev,
            size: new.target.len() as u64,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            target: new.target,
            xattrs: BTreeMap::new(),
            content: Content::default(),
        };
        let ino = Ino(self.next);
        self.next += 1;
        if new.kind == Kind::Directory {
            self.entries.insert(ino, BTreeMap::new());
        }
        self.links.insert(ino, if new.kind == Kind::Directory { 2 } else { 0 });
        self.bodies.insert(ino, body.clone());
        self.step.bodies.insert(ino, body);
        self.set_entry(dir, name, Some(ino));
        self.touch(dir, now);
        Ok(ino)
    }

    /// A further name for an inode.
    pub fn link(&mut self, ino: Ino, dir: Ino, name: &[u8], now: WallTime) -> Outcome<()> {
        self.check_free(dir, name)?;
        if self.body(ino)?.kind == Kind::Directory {
            return Err(Refusal::NotPermitted);
        }
        if self.links[&ino] == 0 {
            return Err(Refusal::NotFound);
        }
        self.set_entry(dir, name, Some(ino));
        self.change(ino, |body| body.ctime = now);
        self.touch(dir, now);
        Ok(())
    }

    /// Takes away a name that is not a directory's.
    pub fn unlink(&mut self, dir: Ino, name: &[u8], now: WallTime) -> Outcome<()> {
        let ino = self.lookup(dir, name)?;
        if self.bodies[&ino].kind == Kind::Directory {
            return Err(Refusal::IsDirectory);
        }
        self.remove(dir, name, ino, now);
        Ok(())
    }

    /// Takes away an empty directory.
    pub fn rmdir(&mut self, dir: Ino, name: &[u8], now: WallTime) -> Outcome<()> {
        let ino = self.lookup(dir, name)?;
        let entries = self.entries.get(&ino).ok_or(Refusal::NotDirectory)?;
        if !entries.is_empty() {
            return Err(Refusal::NotEmpty);
        }
        self.remove(dir, name, ino, now);
        Ok(())
    }

    /// Moves a name, over another one if need be.
    pub fn rename(
        &mut self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        mode: Rename,
        now: WallTime,
    ) -> Outcome<()> {
        let source = self.lookup(from.0, from.1)?;
        let target = match self.lookup(to.0, to.1) {
            Ok(target) => Some(target),
            Err(Refusal::NotFound) if self.links[&to.0] > 0 => None,
            Err(refusal) => return Err(refusal),
        };
        match (mode, target) {
            (Rename::NoReplace, Some(_)) => return Err(Refusal::Exists),
            (Rename::Exchange, None) => return Err(Refusal::NotFound),
            _ => {}
        }
        if self.is_within(to.0, source) {
            return Err(Refusal::Invalid);
        }
        if target.is_some_and(|target| self.is_within(from.0, target)) {
            let exchange = mode == Rename::Exchange;
            return Err(if exchange { Refusal::Invalid } else { Refusal::NotEmpty });
        }
        if target == Some(source) {
            return Ok(());
        }
        match (mode, target) {
            (Rename::Exchange, Some(target)) => {
                self.set_entry(from.0, from.1, Some(target));
                self.set_entry(to.0, to.1, Some(source));
                self.change(target, |body| body.ctime = now);
            }
            (_, Some(target)) => {
                self.check_replaceable(source, target)?;
                self.set_entry(from.0, from.1, None);
                self.change(target, |body| body.ctime = now);
                self.set_entry(to.0, to.1, Some(source));
                self.lost_a_name(target);
            }
            (_, None) => {
                self.set_entry(from.0, from.1, None);
                self.set_entry(to.0, to.1, Some(source));
            }
        }
        self.change(source, |body| body.ctime = now);
        self.touch(from.0, now);
        self.touch(to.0, now);
        Ok(())
    }

    // --- one inode ----------------------------------------------------------------------------

    /// Keeps the inode alive until `close`.
    pub fn open(&mut self, ino: Ino) {
        *self.opens.entry(ino).or_default() += 1;
    }

    /// The end of one `open`.
    pub fn close(&mut self, ino: Ino) {
        *self.opens.get_mut(&ino).expect("only what was opened is closed") -= 1;
        self.bury(ino);
    }

    /// Bytes at `offset`, fewer at the end of the file.
    pub fn read(&mut self, ino: Ino, offset: u64, length: u64, now: WallTime) -> Vec<u8> {
        let body = &self.bodies[&ino];
        let length = length.min(body.size.saturating_sub(offset));
        let bytes = body.content.read(offset, length as usize);
        self.accessed(ino, now);
        bytes
    }

    /// Somebody read the content of a file, directory or symlink: relatime. Not a step: access times
    /// may be lost at any time.
    pub fn accessed(&mut self, ino: Ino, now: WallTime) {
        let body = self.bodies.get_mut(&ino).expect("only what exists is read");
        let day_old = (now.seconds, now.nanos) >= (body.atime.seconds + 86_400, body.atime.nanos);
        if body.atime <= body.mtime || body.atime <= body.ctime || day_old {
            body.atime = now;
        }
    }

    /// Replaces bytes, extending the file if need be.
    pub fn write(
        &mut self,
        ino: Ino,
        offset: u64,
        bytes: &[u8],
        kill: bool,
        now: WallTime,
    ) -> Outcome<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= FILE_BYTES_MAX);
        let end = end.ok_or(Refusal::FileTooBig)?;
        if !bytes.is_empty() {
            self.change(ino, |body| {
                body.content.write(offset, bytes);
                body.size = body.size.max(end);
                body.modified(kill, now);
            });
        }
        Ok(())
    }

    /// Reserves, punches or zeroes.
    pub fn fallocate(
        &mut self,
        ino: Ino,
        offset: u64,
        length: u64,
        how: Reserve,
        kill: bool,
        now: WallTime,
    ) -> Outcome<()> {
        if length == 0 {
            return Err(Refusal::Invalid);
        }
        let end = offset.checked_add(length).filter(|&end| end <= FILE_BYTES_MAX);
        let end = end.ok_or(Refusal::FileTooBig)?;
        self.change(ino, |body| {
            if matches!(how, Reserve::PunchHole | Reserve::Zero | Reserve::ZeroKeepSize) {
                body.content.zero(offset..end);
            }
            if matches!(how, Reserve::Extend | Reserve::Zero) {
                body.size = body.size.max(end);
            }
            body.modified(kill, now);
        });
        Ok(())
    }

    /// chmod, chown, truncate, utimens.
    pub fn setattr(&mut self, ino: Ino, set: SetAttr, kill: bool, now: WallTime) -> Outcome<()> {
        let body = self.body(ino)?;
        if let Some(size) = set.size {
            match body.kind {
                Kind::File => {}
                Kind::Directory => return Err(Refusal::IsDirectory),
                _ => return Err(Refusal::Invalid),
            }
            if size > FILE_BYTES_MAX {
                return Err(Refusal::FileTooBig);
            }
        }
        self.change(ino, |body| {
            if let Some(size) = set.size {
                body.content.zero(size..u64::MAX);
                body.size = size;
                body.modified(kill, now);
            }
            if (set.uid.is_some() || set.gid.is_some()) && body.kind != Kind::Directory {
                body.clear_suid();
            }
            body.uid = set.uid.unwrap_or(body.uid);
            body.gid = set.gid.unwrap_or(body.gid);
            body.mode = set.mode.unwrap_or(body.mode);
            body.atime = set.atime.unwrap_or(body.atime);
            body.mtime = set.mtime.unwrap_or(body.mtime);
            body.ctime = now;
        });
        Ok(())
    }

    /// Sets an extended attribute.
    pub fn setxattr(
        &mut self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
        now: WallTime,
    ) -> Outcome<()> {
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Refusal::TooBig);
        }
        match (mode, self.body(ino)?.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(Refusal::Exists),
            (XattrMode::Replace, false) => return Err(Refusal::NoData),
            _ => {}
        }
        self.change(ino, |body| {
            body.xattrs.insert(name.to_vec(), value.to_vec());
            body.ctime = now;
        });
        Ok(())
    }

    /// Removes an extended attribute.
    pub fn removexattr(&mut self, ino: Ino, name: &[u8], now: WallTime) -> Outcome<()> {
        if !self.body(ino)?.xattrs.contains_key(name) {
            return Err(Refusal::NoData);
        }
        self.change(ino, |body| {
            body.xattrs.remove(name);
            body.ctime = now;
        });
        Ok(())
    }

    // --- how everything above is done ---------------------------------------------------------

    /// What was changed since it was last asked.
    pub(super) fn take_step(&mut self) -> Step {
        std::mem::take(&mut self.step)
    }

    fn change(&mut self, ino: Ino, how: impl FnOnce(&mut Body)) {
        let body = self.bodies.get_mut(&ino).expect("only what exists is changed");
        how(body);
        self.step.bodies.insert(ino, body.clone());
    }

    fn touch(&mut self, dir: Ino, now: WallTime) {
        self.change(dir, |body| {
            body.mtime = now;
            body.ctime = now;
        });
    }

    /// Sets or takes away a name and keeps the link counts.
    fn set_entry(&mut self, dir: Ino, name: &[u8], ino: Option<Ino>) {
        let entries = self.entries.get_mut(&dir).expect("names are set in directories");
        let before = match ino {
            Some(ino) => entries.insert(name.to_vec(), ino),
            None => entries.remove(name),
        };
        for (ino, gained) in
            before.map(|ino| (ino, false)).into_iter().chain(ino.map(|i| (i, true)))
        {
            let directory = self.bodies[&ino].kind == Kind::Directory;
            let counted = if directory { dir } else { ino };
            let links = self.links.get_mut(&counted).expect("every inode has a count");
            *links = if gained { *links + 1 } else { *links - 1 };
            if directory && gained {
                self.parents.insert(ino, dir);
            }
        }
        self.step.entries.push((dir, name.to_vec(), ino));
    }

    fn remove(&mut self, dir: Ino, name: &[u8], ino: Ino, now: WallTime) {
        self.set_entry(dir, name, None);
        self.change(ino, |body| body.ctime = now);
        self.touch(dir, now);
        self.lost_a_name(ino);
    }

    /// A directory has one name only: without it, it counts 0 links.
    fn lost_a_name(&mut self, ino: Ino) {
        if self.entries.contains_key(&ino) {
            self.links.insert(ino, 0);
        }
        self.bury(ino);
    }

    /// Forgets an inode that has no link left and is not open.
    fn bury(&mut self, ino: Ino) {
        if self.links[&ino] == 0 && self.opens.get(&ino).is_none_or(|&opens| opens == 0) {
            self.bodies.remove(&ino);
            self.entries.remove(&ino);
            self.parents.remove(&ino);
            self.links.remove(&ino);
            self.opens.remove(&ino);
        }
    }

    fn check_free(&self, dir: Ino, name: &[u8]) -> Outcome<()> {
        match self.lookup(dir, name) {
            Ok(_) => Err(Refusal::Exists),
            Err(Refusal::NotFound) if self.links[&dir] > 0 => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    fn check_replaceable(&self, source: Ino, target: Ino) -> Outcome<()> {
        match (self.entries.contains_key(&source), self.entries.get(&target)) {
            (true, None) => Err(Refusal::NotDirectory),
            (false, Some(_)) => Err(Refusal::IsDirectory),
            (true, Some(entries)) if !entries.is_empty() => Err(Refusal::NotEmpty),
            _ => Ok(()),
        }
    }

    /// Whether directory `ino` is `above` or lies somewhere below it.
    pub fn is_within(&self, mut ino: Ino, above: Ino) -> bool {
        while ino != above && ino != Ino::ROOT {
            let Some(&parent) = self.parents.get(&ino) else { return false };
            ino = parent;
        }
        ino == above
    }
}

#[cfg(test)]
mod tests;
