//! The audit of files: inodes beside their names, extents, attributes and the work left on them.

use std::collections::{BTreeMap, BTreeSet};

use super::{ATTRIBUTES, EXTENTS, Finding, INODES, NAMES, WORK, Walk, Window};
use crate::base::Ino;
use crate::format::{
    DirentValue, ExtentValue, FileKind, InodeRecord, Key, KeyView, Orphan, name_hash,
};
use crate::namespace::error::NamespaceError;

/// An inode of the window, and what was seen of it elsewhere.
struct Seen {
    kind: FileKind,
    links: u32,
    size: u64,
    allocated: u64,
    parent: Ino,
    /// Names that point at it.
    names: u32,
    /// A directory that names it: of a directory, the only one.
    named_in: Option<Ino>,
    /// Directories in it.
    directories: u32,
    /// Bytes of the names in it.
    names_bytes: u64,
    /// Bytes of its extents.
    extents: u64,
    /// Where the last of them ends.
    end: u64,
    work: Option<Orphan>,
}

impl Seen {
    fn new(record: &InodeRecord) -> Seen {
        Seen {
            kind: record.kind,
            links: record.links,
            size: record.size,
            allocated: record.allocated,
            parent: record.parent,
            names: 0,
            named_in: None,
            directories: 0,
            names_bytes: 0,
            extents: 0,
            end: 0,
            work: None,
        }
    }

    fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

type Inodes = BTreeMap<Ino, Seen>;

impl Walk<'_> {
    /// All files, a window of inode numbers at a time.
    pub(super) fn files(&mut self) -> Result<(), NamespaceError> {
        let mut reachable = BTreeSet::new();
        let mut from = None;
        loop {
            let (window, mut inodes) = self.inodes(from)?;
            self.names(window, &mut inodes)?;
            self.extents(window, &mut inodes)?;
            self.attributes(window, &inodes)?;
            self.work(window, &mut inodes)?;
            for (&ino, seen) in &inodes {
                self.judge(ino, seen);
                if seen.is_directory() && seen.links > 0 {
                    self.climb(ino, &mut reachable)?;
                }
            }
            match window.to {
                Some(to) => from = Some(to),
                None => return Ok(()),
            }
        }
    }

    /// The next inodes, and which numbers they cover.
    fn inodes(&mut self, from: Option<u64>) -> Result<(Window, Inodes), NamespaceError> {
        let mut window = Window { from, to: None };
        let mut inodes = Inodes::new();
        let Walk { reader, audit, moment, window: limit, .. } = self;
        reader.each(&window.start(INODES), &window.end(INODES), &mut |key, value| {
            match (KeyView::decode(key), InodeRecord::decode(value)) {
                (Ok(KeyView::Inode(ino)), _) if inodes.len() == *limit => {
                    window.to = Some(ino.0);
                    return false;
                }
                (Ok(KeyView::Inode(ino)), Ok(record)) => {
                    audit.inodes += 1;
                    audit.unsettled += u64::from(moment.unsettled.contains(&ino));
                    if ino.0 >= moment.next_ino {
                        audit.note(Finding::BeyondLease { ino });
                    }
                    inodes.insert(ino, Seen::new(&record));
                }
                _ => audit.note(Finding::Unreadable { key: key.to_vec() }),
            }
            true
        })?;
        Ok((window, inodes))
    }

    /// All names: those in directories of the window, and those of its inodes.
    fn names(&mut self, window: Window, inodes: &mut Inodes) -> Result<(), NamespaceError> {
        let Walk { reader, audit, name_key, .. } = self;
        reader.each(&Key::kind_from(NAMES), &Key::kind_from(NAMES + 1), &mut |key, value| {
            let (Ok(KeyView::Dirent { parent, hash, name }), Ok(DirentValue { ino, kind })) =
                (KeyView::decode(key), DirentValue::decode(value))
            else {
                if window.is_first() {
                    audit.note(Finding::Unreadable { key: key.to_vec() });
                }
                return true;
            };
            let (directory, name_bytes) = (parent, name.len() as u64);
            let name = || name.to_vec();
            if window.has(parent.0) {
                audit.names += 1;
                match inodes.get_mut(&parent).filter(|seen| seen.is_directory()) {
                    Some(seen) => {
                        seen.names_bytes += name_bytes;
                        seen.directories += u32::from(kind == FileKind::Directory);
                    }
                    None => audit.note(Finding::NameInNoDirectory { directory, name: name() }),
                }
                if hash != name_hash(*name_key, &name()) {
                    audit.note(Finding::NameMisplaced { directory, name: name() });
                }
            }
            if window.has(ino.0) {
                match inodes.get_mut(&ino) {
                    Some(seen) => {
                        seen.names += 1;
                        seen.named_in = Some(parent);
                        if seen.kind != kind {
                            let name = name();
                            audit.note(Finding::NameOfOtherKind { directory, name, ino });
                        }
                    }
                    None => audit.note(Finding::NameOfNobody { directory, name: name(), ino }),
                }
            }
            true
        })
    }

    fn extents(&mut self, window: Window, inodes: &mut Inodes) -> Result<(), NamespaceError> {
        let Walk { reader, audit, .. } = self;
        let mut nobody = None;
        reader.each(&window.start(EXTENTS), &window.end(EXTENTS), &mut |key, value| {
            let (Ok(KeyView::Extent { ino, offset }), Ok(extent)) =
                (KeyView::decode(key), ExtentValue::decode(value))
            else {
                audit.note(Finding::Unreadable { key: key.to_vec() });
                return true;
            };
            audit.extents += 1;
            audit.bytes += extent.length;
            let Some(seen) = inodes.get_mut(&ino).filter(|seen| seen.kind == FileKind::File) else {
                // Once for all of them.
                if nobody.replace(ino) != Some(ino) {
                    audit.note(Finding::ExtentOfNobody { ino, offset });
                }
                return true;
            };
            if offset < seen.end {
                audit.note(Finding::ExtentsOverlap { ino, offset });
            }
            seen.end = seen.end.max(offset.saturating_add(extent.length));
            seen.extents = seen.extents.saturating_add(extent.length);
            true
        })
    }

    fn attributes(&mut self, window: Window, inodes: &Inodes) -> Result<(), NamespaceError> {
        let Walk { reader, audit, .. } = self;
        reader.each(&window.start(ATTRIBUTES), &window.end(ATTRIBUTES), &mut |key, _| {
            match KeyView::decode(key) {
                Ok(KeyView::Xattr { ino, .. }) if inodes.contains_key(&ino) => {}
                Ok(KeyView::Xattr { ino, name }) => {
                    audit.note(Finding::AttributeOfNobody { ino, name: name.to_vec() });
                }
                _ => audit.note(Finding::Unreadable { key: key.to_vec() }),
            }
            true
        })
    }

    fn work(&mut self, window: Window, inodes: &mut Inodes) -> Result<(), NamespaceError> {
        let Walk { reader, audit, .. } = self;
        reader.each(&window.start(WORK), &window.end(WORK), &mut |key, value| {
            match (KeyView::decode(key), Orphan::decode(value)) {
                (Ok(KeyView::Orphan(ino)), Ok(work)) => match inodes.get_mut(&ino) {
                    Some(seen) => seen.work = Some(work),
                    None => audit.note(Finding::WorkOnNobody { ino }),
                },
                _ => audit.note(Finding::Unreadable { key: key.to_vec() }),
            }
            true
        })
    }

    /// What one inode says of itself beside what was seen of it.
    fn judge(&mut self, ino: Ino, seen: &Seen) {
        match (seen.links, seen.work) {
            (0, Some(Orphan::Unlinked)) => {}
            (0, _) => self.audit.note(Finding::Nameless { ino }),
            (_, Some(Orphan::Unlinked)) => self.audit.note(Finding::DoomedWithLinks { ino }),
            _ => {}
        }
        if seen.is_directory() {
            self.judge_directory(ino, seen);
        } else if seen.links != seen.names {
            let (recorded, names) = (seen.links, seen.names);
            self.audit.note(Finding::Links { ino, recorded, names });
        }
        let in_between = matches!(seen.work, Some(Orphan::Truncated { .. } | Orphan::Cut { .. }));
        if in_between || self.moment.unsettled.contains(&ino) {
            return;
        }
        if seen.allocated != seen.extents {
            let (recorded, extents) = (seen.allocated, seen.extents);
            self.audit.note(Finding::Allocated { ino, recorded, extents });
        }
        if seen.kind == FileKind::File && seen.end > seen.size {
            self.audit.note(Finding::ExtentBeyondEnd { ino, size: seen.size, end: seen.end });
        }
    }

    fn judge_directory(&mut self, ino: Ino, seen: &Seen) {
        let mut note = |finding| self.audit.note(finding);
        let expected = if seen.links == 0 { 0 } else { 2 + seen.directories };
        if seen.links != expected {
            note(Finding::Links { ino, recorded: seen.links, names: expected });
        }
        if seen.size != seen.names_bytes {
            let (recorded, names_bytes) = (seen.size, seen.names_bytes);
            note(Finding::DirectorySize { ino, recorded, names_bytes });
        }
        let one = u32::from(seen.links > 0 && ino != Ino::ROOT);
        if seen.names != one {
            note(Finding::DirectoryNames { ino, names: seen.names });
        }
        match seen.named_in {
            Some(found) if seen.names == one && found != seen.parent => {
                note(Finding::Parent { ino, recorded: seen.parent, found });
            }
            _ => {}
        }
    }

    /// From a directory up to the root, or to one that is known to be below it. Memory is bounded: what
    /// is known is forgotten now and then.
    fn climb(&mut self, ino: Ino, known: &mut BTreeSet<Ino>) -> Result<(), NamespaceError> {
        let mut way = BTreeSet::new();
        let mut at = ino;
        while at != Ino::ROOT && !known.contains(&at) {
            let above = self.reader.inode(at)?;
            let above = above.filter(|record| record.kind == FileKind::Directory);
            // Where we have been already: a circle.
            let Some(record) = above.filter(|_| way.insert(at)) else {
                self.audit.note(Finding::Unreachable { ino });
                return Ok(());
            };
            at = record.parent;
        }
        if known.len() > self.window {
            known.clear();
        }
        known.extend(way);
        Ok(())
    }
}
