//! Looks out for members that do not take part: one that was missing appears late, one that had failed
//! answers again. It is told and shown, and taken with the next mount; while a pool is open its members
//! do not come back, because what they missed is not brought to them yet.
//!
//! A disk is looked at once, and again only if it has become another one (a new device of that name, or
//! another size): one that hangs takes a thread with it, and must not take one with every look. Disks that
//! take part are not touched. Everything is opened for reading only.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::events::Teller;
use super::host::{FoundDisk, Host};
use crate::base::sync::{Arc, Mutex};
use crate::base::{DiskIndex, Event};
use crate::fleet::{Member, MemberState, Members};

/// How often it is looked whether a disk has come.
const LOOK: Duration = Duration::from_secs(5);

/// Where members that do not take part were seen.
#[derive(Default)]
pub(super) struct Sightings {
    seen: Mutex<HashMap<DiskIndex, PathBuf>>,
}

impl Sightings {
    /// Where `member` was seen; empty if it takes part, or nowhere.
    pub(super) fn of(&self, member: &Member) -> String {
        let seen = self.seen.lock();
        let path = seen.get(&member.index).filter(|_| member.state != MemberState::Active);
        path.map(|path| path.display().to_string()).unwrap_or_default()
    }
}

/// What a path led to when it was looked at: another value, another disk.
#[derive(Clone, PartialEq, Eq)]
struct Token {
    device: u64,
    inode: u64,
    /// The kernel's count of devices, new with each disk that is plugged in or loop device attached.
    sequence: String,
    bytes: u64,
}

impl Token {
    /// None if nothing is there, or nothing in it.
    fn of(path: &Path) -> Option<Token> {
        let found = std::fs::metadata(path).ok()?;
        let (mut bytes, mut sequence) = (found.len(), String::new());
        if found.rdev() != 0 {
            let (major, minor) =
                (nix::sys::stat::major(found.rdev()), nix::sys::stat::minor(found.rdev()));
            let about = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
            let read = |name| std::fs::read_to_string(about.join(name)).unwrap_or_default();
            bytes = read("size").trim().parse().unwrap_or(0);
            sequence = read("diskseq");
        }
        let (device, inode) = (found.rdev(), found.ino());
        (bytes > 0).then_some(Token { device, inode, sequence, bytes })
    }
}

/// The lookout of one open pool.
pub(super) struct Lookout {
    pub(super) host: Host,
    pub(super) members: Arc<Members>,
    /// Where to look; empty: every block device.
    pub(super) devices: Vec<PathBuf>,
    pub(super) sightings: Arc<Sightings>,
    pub(super) teller: Teller,
}

impl Lookout {
    /// Looks for ever, in a thread that ends with the process: a look may hang in the kernel, and
    /// closing the pool must not wait for it.
    pub(super) fn start(self) {
        let threads = self.host.threads();
        threads.spawn("lookout", Box::new(move || self.run()));
    }

    fn run(self) {
        let mut known: HashMap<PathBuf, Token> = HashMap::new();
        let never = Event::new();
        loop {
            let look = self.host.clock().now() + LOOK;
            self.host.wait().until(&never, Some(look), &mut || false);
            let out: Vec<Member> = self.out();
            if !out.is_empty() {
                let found = self.host.find(&self.unknown(&mut known));
                found.iter().for_each(|disk| self.saw(&out, disk));
            }
        }
    }

    fn out(&self) -> Vec<Member> {
        let members = self.members.all().into_iter();
        members.filter(|member| member.state != MemberState::Active).collect()
    }

    /// The paths that have not been looked at since they lead to what they lead to.
    fn unknown(&self, known: &mut HashMap<PathBuf, Token>) -> Vec<PathBuf> {
        let paths = match self.devices.is_empty() {
            true => self.host.block_devices(),
            false => self.devices.clone(),
        };
        known.retain(|path, _| paths.contains(path));
        let active = self.members.all().into_iter().filter(|m| m.state == MemberState::Active);
        let active: Vec<PathBuf> = active
            .filter_map(|member| Some(PathBuf::from(&member.handle?.identity().path)))
            .collect();
        let is_new = |path: &PathBuf| {
            let Some(token) = Token::of(path).filter(|_| !active.contains(path)) else {
                known.remove(path);
                return false;
            };
            known.insert(path.clone(), token.clone()) != Some(token)
        };
        paths.into_iter().filter(is_new).collect()
    }

    fn saw(&self, out: &[Member], disk: &FoundDisk) {
        let label = &disk.label;
        let is_it =
            |member: &&Member| label.pool == self.members.pool() && label.disk == member.uuid;
        let Some(member) = out.iter().find(is_it) else { return };
        let path = &disk.identity.path;
        self.sightings.seen.lock().insert(member.index, PathBuf::from(path));
        let how = match member.state {
            MemberState::Missing => "is there now",
            MemberState::Failed | MemberState::Active => "answers",
        };
        let line = format!("disk {} {how}, as {path}; the next mount takes it", member.index);
        self.teller.tell(&line, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_elsewhere_is_looked_at_again() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("disk");
        assert!(Token::of(&path).is_none(), "nothing is there");
        let file = std::fs::File::create(&path).expect("create");
        assert!(Token::of(&path).is_none(), "taken away");
        file.set_len(4096).expect("grow");
        let first = Token::of(&path).expect("it is back");
        assert!(Token::of(&path).as_ref() == Some(&first));
        file.set_len(8192).expect("grow");
        assert!(Token::of(&path).as_ref() != Some(&first), "another size");
        std::fs::rename(&path, directory.path().join("old")).expect("move");
        let other = std::fs::File::create(&path).expect("create");
        other.set_len(4096).expect("grow");
        assert!(Token::of(&path).as_ref() != Some(&first), "another file");
    }
}
