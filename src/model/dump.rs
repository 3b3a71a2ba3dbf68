//! The tree that is really there, as two different walks see it: by listing directories, and by
//! resolving every path from the root. Whoever is to be examined implements [`Subject`].

use std::collections::BTreeMap;

use super::content::Content;
use super::words::{Body, Kind, Name};
use crate::base::Ino;

/// Files up to this are read from the first byte to the last; in larger ones SEEK_DATA is believed.
const READ_WHOLE_BYTES: u64 = 64 << 20;
/// Bytes of one read.
const READ_BYTES: u64 = 1 << 20;

/// What can be walked. Errors are told in words: any error is a finding.
pub trait Subject {
    /// Names in a directory without `.` and `..`: name, inode, kind.
    fn list(&mut self, dir: Ino) -> Result<Vec<(Name, Ino, Kind)>, String>;
    /// The inode that a name means.
    fn lookup(&mut self, dir: Ino, name: &[u8]) -> Result<Ino, String>;
    /// Everything but content and the target of a symlink, and the link count.
    fn stat(&mut self, ino: Ino) -> Result<(Body, u32), String>;
    /// The target of a symlink.
    fn target(&mut self, ino: Ino) -> Result<Vec<u8>, String>;
    /// Bytes of a file; fewer only at its end.
    fn read(&mut self, ino: Ino, offset: u64, length: u64) -> Result<Vec<u8>, String>;
    /// The next data at or after `offset`.
    fn seek_data(&mut self, ino: Ino, offset: u64) -> Result<Option<u64>, String>;
}

/// A tree with its content, in the inode numbers of whom it was taken from.
#[derive(Clone, Default, Debug)]
pub struct Dump {
    /// Inodes with content, and link counts.
    pub bodies: BTreeMap<Ino, (Body, u32)>,
    /// Names by directory.
    pub entries: BTreeMap<Ino, BTreeMap<Name, Ino>>,
    /// Inodes whose content was read: their access times may have changed since they were seen.
    pub accessed: Vec<Ino>,
}

impl Dump {
    /// Walks the whole tree both ways. An error says where the two disagree, or what failed.
    pub fn take(subject: &mut dyn Subject) -> Result<Dump, String> {
        let mut dump = Dump::default();
        dump.add(subject, Ino::ROOT, None, "/")?;
        let mut directories = vec![(Ino::ROOT, String::new())];
        while let Some((dir, path)) = directories.pop() {
            let mut names = BTreeMap::new();
            for (name, ino, kind) in subject.list(dir).map_err(|why| format!("{path}/: {why}"))? {
                let path = format!("{path}/{}", name.escape_ascii());
                if names.insert(name, ino).is_some() {
                    return Err(format!("{path} is listed twice"));
                }
                let is_new = dump.add(subject, ino, Some(kind), &path)?;
                match (kind, is_new) {
                    (Kind::Directory, true) => directories.push((ino, path)),
                    (Kind::Directory, false) => return Err(format!("{path} is a second name")),
                    _ => {}
                }
            }
            dump.entries.insert(dir, names);
        }
        dump.check_by_path(subject, Ino::ROOT, "")?;
        Ok(dump)
    }

    fn add(
        &mut self,
        subject: &mut dyn Subject,
        ino: Ino,
        kind: Option<Kind>,
        path: &str,
    ) -> Result<bool, String> {
        let is_new = !self.bodies.contains_key(&ino);
        if is_new {
            let (mut body, links) =
                subject.stat(ino).map_err(|why| format!("{path} ({ino}): stat: {why}"))?;
            let told = |why| format!("{path} ({ino}): {why}");
            match body.kind {
                Kind::File => {
                    let (content, accessed) = read_all(subject, ino, body.size).map_err(told)?;
                    body.content = content;
                    self.accessed.extend(accessed.then_some(ino));
                }
                Kind::Symlink => {
                    body.target = subject.target(ino).map_err(told)?;
                    self.accessed.push(ino);
                }
                Kind::Directory => self.accessed.push(ino),
                _ => {}
            }
            self.bodies.insert(ino, (body, links));
        }
        let found = self.bodies[&ino].0.kind;
        if kind.is_some_and(|kind| kind != found) {
            return Err(format!("{path} is listed as {kind:?} but is a {found:?}"));
        }
        Ok(is_new)
    }

    /// The second walk: every path, one component after the other from the root.
    fn check_by_path(&self, subject: &mut dyn Subject, dir: Ino, path: &str) -> Result<(), String> {
        for (name, &listed) in &self.entries[&dir] {
            let path = format!("{path}/{}", name.escape_ascii());
            let mut at = Ino::ROOT;
            for component in self.path_to(dir).iter().chain([name]) {
                at =
                    subject.lookup(at, component).map_err(|why| format!("lookup {path}: {why}"))?;
            }
            if at != listed {
                return Err(format!("{path} is listed as inode {listed}, but lookup gives {at}"));
            }
            let (body, links) = subject.stat(at).map_err(|why| format!("{path}: stat: {why}"))?;
            let (before, links_before) = &self.bodies[&listed];
            if (body.size, body.mode, links) != (before.size, before.mode, *links_before) {
                return Err(format!("{path} changed while nobody touched it"));
            }
            if self.entries.contains_key(&listed) {
                self.check_by_path(subject, listed, &path)?;
            }
        }
        Ok(())
    }

    fn path_to(&self, dir: Ino) -> Vec<Name> {
        let mut path = Vec::new();
        let mut at = dir;
        while at != Ino::ROOT {
            let above = self.entries.iter().find_map(|(&above, names)| {
                let name = names.iter().find(|&(_, &ino)| ino == at)?.0;
                Some((above, name.clone()))
            });
            let (above, name) = above.expect("every directory was reached through a name");
            path.push(name);
            at = above;
        }
        path.reverse();
        path
    }
}

/// All bytes, and whether any read was needed for that.
fn read_all(subject: &mut dyn Subject, ino: Ino, size: u64) -> Result<(Content, bool), String> {
    let mut content = Content::default();
    let mut accessed = false;
    let mut offset = 0;
    while offset < size {
        if size > READ_WHOLE_BYTES {
            match subject.seek_data(ino, offset)? {
                Some(at) => offset = at,
                None => break,
            }
        }
        let length = READ_BYTES.min(size - offset);
        let bytes = subject.read(ino, offset, length).map_err(|why| format!("read: {why}"))?;
        if bytes.len() as u64 != length {
            return Err(format!("a read of {length} at {offset} of {size} gave {}", bytes.len()));
        }
        content.write(offset, &bytes);
        offset += length;
        accessed = true;
    }
    Ok((content, accessed))
}
