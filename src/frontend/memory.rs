//! A file system of plain maps: what FUSE itself costs, and something to mount in tests.
//!
//! As `Contents::Discarded` it is the baseline of the benchmarks (`isotherm bench-null`): names and
//! attributes are kept, writes are accepted and dropped, reads give zeros. Any figure of a pool over
//! the same figure here, in one run with the same mount options and workers, is what the engine costs.
//! As `Contents::Kept` files hold their bytes, sparse by nothing. Nothing survives the process.

use std::collections::{BTreeMap, HashMap};

use super::file_system::{CopyEnd, FileSystem, FsResult, Handle, OpenMode, WriteMode};
use crate::base::limits::{FILE_BYTES_MAX, NAME_BYTES_MAX};
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::sync::{Arc, Mutex, MutexGuard};
use crate::base::units::GIB;
use crate::base::{Clock, Ino, UNIT_BYTES, WallTime};
use crate::namespace::{
    Allocate, Attr, Caller, DirEntry, FileKind, NamespaceError, NewInode, ReadBuffer, RenameMode,
    Seek, SetAttr, SetTime, Statfs, XattrMode,
};

/// Whether files keep what is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contents {
    /// Yes.
    Kept,
    /// No: reads give zeros.
    Discarded,
}

/// What was asked of a [`MemoryFileSystem`] so far; for tests.
#[derive(Debug, Default)]
pub struct Asked {
    /// Write requests.
    pub writes: AtomicU64,
    /// Bytes of the largest one.
    pub largest_write: AtomicU64,
    /// Read requests.
    pub reads: AtomicU64,
    /// fsync requests on files.
    pub fsyncs: AtomicU64,
    /// fsync requests on directories.
    pub dir_fsyncs: AtomicU64,
    /// Requests to sync everything.
    pub syncs: AtomicU64,
    /// Lookups of names.
    pub lookups: AtomicU64,
    /// Requests for attributes.
    pub getattrs: AtomicU64,
    /// Requests for extended attributes.
    pub getxattrs: AtomicU64,
}

/// Names, attributes and, if wanted, contents in maps behind one lock.
pub struct MemoryFileSystem {
    contents: Contents,
    clock: Arc<dyn Clock>,
    tree: Mutex<Tree>,
    asked: Asked,
}

struct Tree {
    nodes: HashMap<Ino, Node>,
    next_ino: u64,
}

struct Node {
    attr: Attr,
    body: Body,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    references: u64,
}

enum Body {
    File(Vec<u8>),
    Directory(Directory),
    Symlink(Vec<u8>),
    Special,
}

struct Directory {
    parent: Ino,
    /// In the order of creation: the key is the cookie, stable whatever others do.
    entries: BTreeMap<u64, (Vec<u8>, Ino)>,
    cookies: HashMap<Vec<u8>, u64>,
    next_cookie: u64,
}

impl Directory {
    /// Cookies 1 and 2 are those of `.` and `..`.
    fn new(parent: Ino) -> Directory {
        Directory { parent, entries: BTreeMap::new(), cookies: HashMap::new(), next_cookie: 3 }
    }

    fn get(&self, name: &[u8]) -> Option<Ino> {
        self.cookies.get(name).map(|cookie| self.entries[cookie].1)
    }

    fn insert(&mut self, name: &[u8], ino: Ino) {
        self.cookies.insert(name.to_vec(), self.next_cookie);
        self.entries.insert(self.next_cookie, (name.to_vec(), ino));
        self.next_cookie += 1;
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some(cookie) = self.cookies.remove(name) {
            self.entries.remove(&cookie);
        }
    }
}

impl Tree {
    fn node(&self, ino: Ino) -> FsResult<&Node> {
        self.nodes.get(&ino).ok_or(NamespaceError::NotFound)
    }

    fn node_mut(&mut self, ino: Ino) -> FsResult<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(NamespaceError::NotFound)
    }

    fn directory(&mut self, ino: Ino) -> FsResult<&mut Directory> {
        match &mut self.node_mut(ino)?.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(NamespaceError::NotDirectory),
        }
    }

    fn child(&mut self, parent: Ino, name: &[u8]) -> FsResult<Ino> {
        if name.len() > NAME_BYTES_MAX {
            return Err(NamespaceError::NameTooLong);
        }
        self.directory(parent)?.get(name).ok_or(NamespaceError::NotFound)
    }

    fn free_if_unused(&mut self, ino: Ino) {
        if self.nodes.get(&ino).is_some_and(|node| node.attr.links == 0 && node.references == 0) {
            self.nodes.remove(&ino);
        }
    }

    /// Takes a name away; the inode goes with its last name and last reference.
    fn drop_name(&mut self, parent: Ino, name: &[u8], now: WallTime) -> FsResult<()> {
        let ino = self.child(parent, name)?;
        self.directory(parent)?.remove(name);
        let node = self.node_mut(ino)?;
        node.attr.ctime = now;
        let was_directory = node.attr.kind == FileKind::Directory;
        node.attr.links = if was_directory { 0 } else { node.attr.links - 1 };
        self.touch_parent(parent, if was_directory { -1 } else { 0 }, now)?;
        self.free_if_unused(ino);
        Ok(())
    }

    fn touch_parent(&mut self, parent: Ino, links: i32, now: WallTime) -> FsResult<()> {
        let attr = &mut self.node_mut(parent)?.attr;
        (attr.mtime, attr.ctime) = (now, now);
        attr.links = attr.links.saturating_add_signed(links);
        Ok(())
    }

    /// An empty directory, or something else, as `replaced` says, may be replaced by `kind`.
    fn check_replaceable(&mut self, replaced: Ino, kind: FileKind) -> FsResult<()> {
        let node = self.node(replaced)?;
        match (&node.body, kind == FileKind::Directory) {
            (Body::Directory(directory), true) if directory.entries.is_empty() => Ok(()),
            (Body::Directory(_), true) => Err(NamespaceError::NotEmpty),
            (Body::Directory(_), false) => Err(NamespaceError::IsDirectory),
            (_, true) => Err(NamespaceError::NotDirectory),
            (_, false) => Ok(()),
        }
    }

    /// True if `ino` is `ancestor` or below it.
    fn is_below(&mut self, ino: Ino, ancestor: Ino) -> bool {
        let mut at = ino;
        loop {
            if at == ancestor {
                return true;
            }
            match self.directory(at) {
                Ok(directory) if directory.parent != at => at = directory.parent,
                _ => return false,
            }
        }
    }
}

impl MemoryFileSystem {
    /// An empty one. Its root belongs to `owner` and is open to all.
    pub fn new(contents: Contents, clock: Arc<dyn Clock>, owner: Caller) -> MemoryFileSystem {
        let now = clock.wall();
        let root = Node {
            attr: Attr { links: 2, ..new_attr(Ino::ROOT, FileKind::Directory, 0o755, owner, now) },
            body: Body::Directory(Directory::new(Ino::ROOT)),
            xattrs: BTreeMap::new(),
            references: 1,
        };
        let tree = Tree { nodes: HashMap::from([(Ino::ROOT, root)]), next_ino: 2 };
        MemoryFileSystem { contents, clock, tree: Mutex::new(tree), asked: Asked::default() }
    }

    /// Counts of what the kernel asked.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock()
    }

    fn make(
        &self,
        parent: Ino,
        name: &[u8],
        new: &NewInode,
        body: Body,
        caller: Caller,
    ) -> FsResult<Attr> {
        let now = self.clock.wall();
        let mut tree = self.tree();
        match tree.child(parent, name) {
            Ok(_) => return Err(NamespaceError::Exists),
            Err(NamespaceError::NotFound) => {}
            Err(error) => return Err(error),
        }
        let directory = new.kind == FileKind::Directory;
        let parent_attr = tree.node(parent)?.attr;
        let mut attr =
            new_attr(Ino(tree.next_ino), new.kind, new.mode & !new.umask & 0o7777, caller, now);
        attr.rdev = new.rdev;
        if parent_attr.mode & 0o2000 != 0 {
            attr.gid = parent_attr.gid;
            attr.mode |= if directory { 0o2000 } else { 0 };
        }
        attr.links = if directory { 2 } else { 1 };
        if let Body::Symlink(target) = &body {
            attr.size = target.len() as u64;
        }
        tree.next_ino += 1;
        let node = Node { attr, body, xattrs: BTreeMap::new(), references: 1 };
        tree.nodes.insert(attr.ino, node);
        tree.directory(parent)?.insert(name, attr.ino);
        tree.touch_parent(parent, i32::from(directory), now)?;
        Ok(attr)
    }

    fn resize(&self, node: &mut Node, size: u64) -> FsResult<()> {
        let Body::File(bytes) = &mut node.body else { return Err(NamespaceError::Invalid) };
        if size > FILE_BYTES_MAX {
            return Err(NamespaceError::FileTooBig);
        }
        if self.contents == Contents::Kept {
            bytes.resize(size as usize, 0);
        }
        node.attr.size = size;
        node.attr.blocks = size.div_ceil(512);
        Ok(())
    }

    fn list(
        &self,
        ino: Ino,
        cookie: u64,
        add: &mut dyn FnMut(&DirEntry, &Attr) -> bool,
        count_references: bool,
    ) -> FsResult<()> {
        let mut tree = self.tree();
        let parent = tree.directory(ino)?.parent;
        for (at, name, of) in [(1, &b"."[..], ino), (2, b"..", parent)] {
            let Ok(node) = tree.node(of) else { continue };
            let entry =
                DirEntry { ino: of, kind: FileKind::Directory, cookie: at, name: name.to_vec() };
            if cookie < at && !add(&entry, &node.attr) {
                return Ok(());
            }
        }
        let entries: Vec<_> = tree
            .directory(ino)?
            .entries
            .range(cookie + 1..)
            .take(4096)
            .map(|(cookie, (name, ino))| (*cookie, name.clone(), *ino))
            .collect();
        for (cookie, name, child) in entries {
            let node = tree.node_mut(child)?;
            let entry = DirEntry { ino: child, kind: node.attr.kind, cookie, name };
            if !add(&entry, &node.attr) {
                break;
            }
            node.references += u64::from(count_references);
        }
        Ok(())
    }
}

fn new_attr(ino: Ino, kind: FileKind, mode: u32, owner: Caller, now: WallTime) -> Attr {
    Attr {
        ino,
        kind,
        mode,
        links: 1,
        uid: owner.uid,
        gid: owner.gid,
        rdev: 0,
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
    }
}

/// Clears suid, and sgid where the group may execute.
fn kill_privileges(attr: &mut Attr) {
    if attr.kind == FileKind::File {
        attr.mode &= !0o4000;
        if attr.mode & 0o010 != 0 {
            attr.mode &= !0o2000;
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl FileSystem for MemoryFileSystem {
    fn lookup(&self, parent: Ino, name: &[u8]) -> FsResult<Attr> {
        count(&self.asked.lookups);
        let mut tree = self.tree();
        let child = tree.child(parent, name)?;
        let node = tree.node_mut(child)?;
        node.references += 1;
        Ok(node.attr)
    }

    fn forget(&self, ino: Ino, references: u64) {
        let mut tree = self.tree();
        if let Ok(node) = tree.node_mut(ino) {
            node.references = node.references.saturating_sub(references);
        }
        tree.free_if_unused(ino);
    }

    fn getattr(&self, ino: Ino) -> FsResult<Attr> {
        count(&self.asked.getattrs);
        Ok(self.tree().node(ino)?.attr)
    }

    fn now(&self) -> WallTime {
        self.clock.wall()
    }

    fn setattr(
        &self,
        ino: Ino,
        _: Option<Handle>,
        change: &SetAttr,
        caller: Caller,
    ) -> FsResult<Attr> {
        let now = self.clock.wall();
        let mut tree = self.tree();
        let node = tree.node_mut(ino)?;
        let time = |time: SetTime| match time {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        if let Some(size) = change.size {
            self.resize(node, size)?;
            node.attr.mtime = now;
        }
        let attr = &mut node.attr;
        if change.uid.is_some()
            || change.gid.is_some()
            || (change.size.is_some() && caller.uid != 0)
        {
            kill_privileges(attr);
        }
        attr.mode = change.mode.unwrap_or(attr.mode);
        attr.uid = change.uid.unwrap_or(attr.uid);
        attr.gid = change.gid.unwrap_or(attr.gid);
        attr.atime = change.atime.map_or(attr.atime, time);
        attr.mtime = change.mtime.map_or(attr.mtime, time);
        attr.ctime = now;
        Ok(*attr)
    }

    fn readlink(&self, ino: Ino) -> FsResult<Vec<u8>> {
        match &self.tree().node(ino)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(NamespaceError::Invalid),
        }
    }

    fn mknod(&self, parent: Ino, name: &[u8], new: &NewInode, caller: Caller) -> FsResult<Attr> {
        let body = if new.kind == FileKind::File { Body::File(Vec::new()) } else { Body::Special };
        self.make(parent, name, new, body, caller)
    }

    fn mkdir(&self, parent: Ino, name: &[u8], new: &NewInode, caller: Caller) -> FsResult<Attr> {
        self.make(parent, name, new, Body::Directory(Directory::new(parent)), caller)
    }

    fn unlink(&self, parent: Ino, name: &[u8]) -> FsResult<()> {
        let mut tree = self.tree();
        let child = tree.child(parent, name)?;
        tree.check_replaceable(child, FileKind::File)?;
        tree.drop_name(parent, name, self.clock.wall())
    }

    fn rmdir(&self, parent: Ino, name: &[u8]) -> FsResult<()> {
        let mut tree = self.tree();
        let child = tree.child(parent, name)?;
        tree.check_replaceable(child, FileKind::Directory)?;
        tree.drop_name(parent, name, self.clock.wall())
    }

    fn symlink(&self, parent: Ino, name: &[u8], target: &[u8], caller: Caller) -> FsResult<Attr> {
        let new = NewInode { kind: FileKind::Symlink, mode: 0o777, umask: 0, rdev: 0 };
        self.make(parent, name, &new, Body::Symlink(target.to_vec()), caller)
    }

    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> FsResult<Attr> {
        let now = self.clock.wall();
        let mut tree = self.tree();
        if tree.child(parent, name).is_ok() {
            return Err(NamespaceError::Exists);
        }
        tree.node(ino)?;
        tree.directory(parent)?.insert(name, ino);
        tree.touch_parent(parent, 0, now)?;
        let node = tree.node_mut(ino)?;
        node.attr.links += 1;
        node.attr.ctime = now;
        node.references += 1;
        Ok(node.attr)
    }

    fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        mode: RenameMode,
    ) -> FsResult<()> {
        let now = self.clock.wall();
        let mut tree = self.tree();
        let moved = tree.child(parent, name)?;
        let kind = tree.node(moved)?.attr.kind;
        if kind == FileKind::Directory && tree.is_below(new_parent, moved) {
            return Err(NamespaceError::Invalid);
        }
        let target = tree.child(new_parent, new_name).ok();
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(NamespaceError::Exists),
            (RenameMode::Exchange, None) => return Err(NamespaceError::NotFound),
            (RenameMode::Replace, Some(target)) if target == moved => return Ok(()),
            (RenameMode::Replace, Some(target)) => {
                tree.check_replaceable(target, kind)?;
                tree.drop_name(new_parent, new_name, now)?;
            }
            _ => {}
        }
        tree.directory(parent)?.remove(name);
        tree.directory(new_parent)?.remove(new_name);
        tree.directory(new_parent)?.insert(new_name, moved);
        let mut now_at = vec![(moved, parent, new_parent)];
        if let (RenameMode::Exchange, Some(target)) = (mode, target) {
            tree.directory(parent)?.insert(name, target);
            now_at.push((target, new_parent, parent));
        }
        for (ino, from, to) in now_at {
            tree.node_mut(ino)?.attr.ctime = now;
            let links = i32::from(tree.node(ino)?.attr.kind == FileKind::Directory);
            if links == 1 {
                tree.directory(ino)?.parent = to;
            }
            tree.touch_parent(from, -links, now)?;
            tree.touch_parent(to, links, now)?;
        }
        Ok(())
    }

    fn open(&self, ino: Ino, mode: OpenMode, caller: Caller) -> FsResult<Handle> {
        if mode.truncate {
            let change = SetAttr { size: Some(0), ..SetAttr::default() };
            self.setattr(ino, None, &change, caller)?;
        } else {
            self.tree().node(ino)?;
        }
        Ok(Handle(ino.0))
    }

    fn create(
        &self,
        parent: Ino,
        name: &[u8],
        new: &NewInode,
        mode: OpenMode,
        caller: Caller,
    ) -> FsResult<(Attr, Handle)> {
        let attr = match self.make(parent, name, new, Body::File(Vec::new()), caller) {
            Err(NamespaceError::Exists) if !mode.exclusive => self.lookup(parent, name)?,
            made => made?,
        };
        Ok((attr, self.open(attr.ino, mode, caller)?))
    }

    fn read(
        &self,
        ino: Ino,
        _: Handle,
        offset: u64,
        size: u32,
        into: &mut ReadBuffer,
    ) -> FsResult<()> {
        count(&self.asked.reads);
        let tree = self.tree();
        let node = tree.node(ino)?;
        let end = offset.saturating_add(u64::from(size)).min(node.attr.size);
        let length = end.saturating_sub(offset) as usize;
        match (&node.body, self.contents) {
            (Body::File(bytes), Contents::Kept) if length > 0 => {
                into.append(&bytes[offset as usize..end as usize]);
            }
            (Body::File(_), _) => {
                drop(tree);
                into.append_zeros(length);
            }
            _ => return Err(NamespaceError::Invalid),
        }
        Ok(())
    }

    fn write(
        &self,
        ino: Ino,
        _: Handle,
        offset: u64,
        data: &[u8],
        mode: WriteMode,
    ) -> FsResult<u32> {
        count(&self.asked.writes);
        self.asked.largest_write.fetch_max(data.len() as u64, Ordering::Relaxed);
        let now = self.clock.wall();
        let mut tree = self.tree();
        let node = tree.node_mut(ino)?;
        let end = offset.checked_add(data.len() as u64).ok_or(NamespaceError::FileTooBig)?;
        if end > node.attr.size {
            self.resize(node, end)?;
        }
        if let (Body::File(bytes), Contents::Kept) = (&mut node.body, self.contents) {
            bytes[offset as usize..end as usize].copy_from_slice(data);
        }
        if mode.kill_privileges {
            kill_privileges(&mut node.attr);
        }
        (node.attr.mtime, node.attr.ctime) = (now, now);
        Ok(data.len() as u32)
    }

    fn flush(&self, _: Ino, _: Handle) -> FsResult<()> {
        Ok(())
    }

    fn release(&self, _: Ino, _: Handle) -> FsResult<()> {
        Ok(())
    }

    fn fsync(&self, _: Ino, _: Handle, _: bool) -> FsResult<()> {
        count(&self.asked.fsyncs);
        Ok(())
    }

    fn opendir(&self, ino: Ino) -> FsResult<Handle> {
        self.tree().directory(ino)?;
        Ok(Handle(ino.0))
    }

    fn readdir(
        &self,
        ino: Ino,
        _: Handle,
        cookie: u64,
        add: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> FsResult<()> {
        self.list(ino, cookie, &mut |entry, _| add(entry), false)
    }

    fn readdirplus(
        &self,
        ino: Ino,
        _: Handle,
        cookie: u64,
        add: &mut dyn FnMut(&DirEntry, &Attr) -> bool,
    ) -> FsResult<()> {
        self.list(ino, cookie, add, true)
    }

    fn releasedir(&self, _: Ino, _: Handle) -> FsResult<()> {
        Ok(())
    }

    fn fsyncdir(&self, _: Ino, _: Handle, _: bool) -> FsResult<()> {
        count(&self.asked.dir_fsyncs);
        Ok(())
    }

    fn statfs(&self) -> FsResult<Statfs> {
        let inodes = self.tree().nodes.len() as u64;
        let free = 1024 * GIB;
        Ok(Statfs { total_bytes: free, free_bytes: free, available_bytes: free, inodes })
    }

    fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
        _: Caller,
    ) -> FsResult<()> {
        let now = self.clock.wall();
        let mut tree = self.tree();
        let node = tree.node_mut(ino)?;
        match (mode, node.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(NamespaceError::Exists),
            (XattrMode::Replace, false) => return Err(NamespaceError::NoData),
            _ => {}
        }
        node.xattrs.insert(name.to_vec(), value.to_vec());
        node.attr.ctime = now;
        Ok(())
    }

    fn getxattr(&self, ino: Ino, name: &[u8], _: Caller) -> FsResult<Vec<u8>> {
        count(&self.asked.getxattrs);
        self.tree().node(ino)?.xattrs.get(name).cloned().ok_or(NamespaceError::NoData)
    }

    fn listxattr(&self, ino: Ino, caller: Caller) -> FsResult<Vec<Vec<u8>>> {
        let tree = self.tree();
        let names = tree.node(ino)?.xattrs.keys();
        Ok(names
            .filter(|name| caller.uid == 0 || !name.starts_with(b"trusted."))
            .cloned()
            .collect())
    }

    fn removexattr(&self, ino: Ino, name: &[u8], _: Caller) -> FsResult<()> {
        let removed = self.tree().node_mut(ino)?.xattrs.remove(name);
        removed.map(|_| ()).ok_or(NamespaceError::NoData)
    }

    fn fallocate(
        &self,
        ino: Ino,
        _: Handle,
        what: Allocate,
        offset: u64,
        length: u64,
        caller: Caller,
    ) -> FsResult<()> {
        let end = offset.checked_add(length).ok_or(NamespaceError::FileTooBig)?;
        let mut tree = self.tree();
        let node = tree.node_mut(ino)?;
        let size = node.attr.size;
        if let (Body::File(bytes), Contents::Kept) = (&mut node.body, self.contents)
            && matches!(what, Allocate::PunchHole | Allocate::Zero | Allocate::ZeroKeepSize)
        {
            bytes[offset.min(size) as usize..end.min(size) as usize].fill(0);
        }
        if matches!(what, Allocate::Extend | Allocate::Zero) && end > size {
            self.resize(node, end)?;
        }
        if caller.uid != 0 {
            kill_privileges(&mut node.attr);
        }
        Ok(())
    }

    fn lseek(&self, ino: Ino, _: Handle, offset: u64, what: Seek) -> FsResult<u64> {
        let size = self.tree().node(ino)?.attr.size;
        match what {
            _ if offset >= size => Err(NamespaceError::NoData),
            Seek::Data => Ok(offset),
            Seek::Hole => Ok(size),
        }
    }

    fn copy_file_range(&self, from: CopyEnd, to: CopyEnd, length: u64, _: Caller) -> FsResult<u64> {
        let mut data = ReadBuffer::default();
        let length = length.min(256 * UNIT_BYTES) as u32;
        self.read(from.ino, from.handle, from.offset, length, &mut data)?;
        self.write(to.ino, to.handle, to.offset, data.bytes(), WriteMode::default()).map(u64::from)
    }

    fn sync(&self) -> FsResult<()> {
        count(&self.asked.syncs);
        Ok(())
    }
}
