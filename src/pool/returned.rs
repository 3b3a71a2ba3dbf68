//! Looks out for members that do not take part: one that was missing appears late, one that had failed
//! answers again. What was missing, or had been unplugged, is taken back at once, a few times; what was
//! failed for its errors, or taken out by hand, is told and shown, and waits for `isotherm disk online`.
//!
//! A disk is looked at once, and again only if it has become another one (a new device of that name, or
//! another size): one that hangs takes a thread with it, and must not take one with every look. Disks that
//! take part are not touched. Everything is opened for reading only.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::daemon::open_candidates;
use super::events::Teller;
use super::host::{FoundDisk, Host};
use super::membership::{Membership, MembershipError};
use crate::base::sync::{Arc, Mutex};
use crate::base::{DiskIndex, DiskUuid, Event};
use crate::fleet::disk::{DriveKey, identify};
use crate::fleet::{FailReason, Member, MemberState, Members};

/// How often it is looked whether a disk has come.
const LOOK: Duration = Duration::from_secs(5);
/// A disk that goes again and again is taken back so often by itself.
const TAKEN_MAX: u32 = 3;

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

/// Takes members of one open pool back.
#[derive(Clone)]
pub(super) struct Returns {
    pub(super) host: Host,
    pub(super) members: Arc<Members>,
    /// None if the pool is read-only.
    pub(super) membership: Option<Arc<Membership>>,
    /// Where to look; empty: every block device.
    pub(super) devices: Vec<PathBuf>,
}

impl Returns {
    /// Takes a member back that was seen there.
    fn take(&self, disk: DiskIndex, found: &FoundDisk) -> Result<(), TakeError> {
        let membership = self.membership.as_ref().ok_or(TakeError::ReadOnly)?;
        let same = |(other, of): &(DiskIndex, BTreeSet<DriveKey>)| {
            *other != disk && !of.is_disjoint(&found.drives)
        };
        if let Some(&(other, _)) = drives_of(&self.members).iter().find(|one| same(one)) {
            let path = found.identity.path.clone();
            return Err(MembershipError::SameDrive { path, other }.into());
        }
        membership.close(disk)?;
        let opened = open_candidates(&self.host, std::slice::from_ref(found), false);
        let opened = opened.map_err(|error| TakeError::Open(error.to_string()))?;
        let path = &found.identity.path;
        let gone = || TakeError::Open(format!("{path} could not be opened: look at the log"));
        membership.take_back(opened.into_iter().next().ok_or_else(gone)?)?;
        Ok(())
    }

    /// Looks for a member, and takes it back. Says where it was.
    pub(super) fn look_for(&self, disk: DiskIndex) -> Result<String, String> {
        let uuid = self.members.uuid(disk);
        let uuid = uuid.ok_or_else(|| MembershipError::Unknown(disk).to_string())?;
        if let Some(membership) = &self.membership {
            // While it is open here, a name that it has lost may still lead to it. (A disk that cannot be
            // closed is refused when it is taken.)
            membership.close(disk).ok();
        }
        let active = self.active();
        let mut paths = self.paths();
        paths.retain(|path| !active.contains(path));
        let mut found = self.host.find(&paths);
        found.retain(|found| self.is_it(uuid, found));
        let mut answer = Err(TakeError::NotSeen(disk));
        for one in &found {
            if let Some(other) = found.iter().find(|other| are_copies(one, other)) {
                return Err(copies_in_words(one, other));
            }
            // Several names of one drive: the first that it can be opened by.
            answer = self.take(disk, one).map(|()| one.identity.path.clone());
            if !matches!(&answer, Err(TakeError::Open(_))) {
                break;
            }
        }
        answer.map_err(|error| error.to_string())
    }

    fn is_it(&self, uuid: DiskUuid, found: &FoundDisk) -> bool {
        found.label.pool == self.members.pool() && found.label.disk == uuid
    }

    fn paths(&self) -> Vec<PathBuf> {
        match self.devices.is_empty() {
            true => self.host.block_devices(),
            false => self.devices.clone(),
        }
    }

    /// Where the members that take part are.
    fn active(&self) -> Vec<PathBuf> {
        let active = self.members.all().into_iter().filter(|m| m.state == MemberState::Active);
        let path = |member: Member| Some(PathBuf::from(&member.handle?.identity().path));
        active.filter_map(path).collect()
    }
}

/// The drives that members lie on, of those that take part: the name of one that is gone may be another
/// disk's by now.
pub(super) fn drives_of(members: &Members) -> Vec<(DiskIndex, BTreeSet<DriveKey>)> {
    let active = members.all().into_iter().filter(|m| m.state == MemberState::Active);
    let open = active.filter_map(|member| Some((member.index, member.handle?)));
    let drives = open.filter_map(|(index, disk)| {
        Some((index, identify(Path::new(&disk.identity().path)).ok()?.drives))
    });
    drives.collect()
}

/// Whether they say that they are one disk, on different drives [R24].
fn are_copies(one: &FoundDisk, other: &FoundDisk) -> bool {
    let disk = |found: &FoundDisk| (found.label.pool, found.label.disk);
    disk(one) == disk(other) && one.drives != other.drives
}

fn copies_in_words(one: &FoundDisk, other: &FoundDisk) -> String {
    let (one, other) = (&one.identity.path, &other.identity.path);
    format!("{one} and {other} are copies of one disk; remove the one that is not in use")
}

/// Why a member was not taken back.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error("the pool is read-only: its disks stay as they are")]
    ReadOnly,
    #[error("disk {0} is not to be seen: look at cable and power")]
    NotSeen(DiskIndex),
    #[error("{0}")]
    Open(String),
    #[error(transparent)]
    Refused(#[from] MembershipError),
}

impl TakeError {
    /// Whether it may go soon, without anybody doing anything.
    fn is_for_now(&self) -> bool {
        matches!(self, TakeError::Refused(MembershipError::Busy | MembershipError::Unanswered(_)))
    }
}

/// The lookout of one open pool.
pub(super) struct Lookout {
    pub(super) returns: Returns,
    /// Its name.
    pub(super) pool: String,
    pub(super) sightings: Arc<Sightings>,
    pub(super) teller: Teller,
}

impl Lookout {
    /// Looks for ever, in a thread that ends with the process: a look may hang in the kernel, and
    /// closing the pool must not wait for it.
    pub(super) fn start(self) {
        let threads = self.returns.host.threads();
        threads.spawn("lookout", Box::new(move || self.run()));
    }

    fn run(self) {
        let mut known: HashMap<PathBuf, Token> = HashMap::new();
        let mut taken: HashMap<DiskIndex, u32> = HashMap::new();
        let (never, host) = (Event::new(), &self.returns.host);
        loop {
            let look = host.clock().now() + LOOK;
            host.wait().until(&never, Some(look), &mut || false);
            let out: Vec<Member> = self.out();
            if !out.is_empty() {
                let found = host.find(&self.unknown(&mut known));
                for disk in &found {
                    if let Some(copy) = found.iter().find(|other| are_copies(disk, other)) {
                        self.tell_copies(&out, disk, copy);
                    } else if self.saw(&out, disk, &mut taken) {
                        known.remove(&PathBuf::from(&disk.identity.path));
                    }
                }
            }
        }
    }

    fn out(&self) -> Vec<Member> {
        let members = self.returns.members.all().into_iter();
        // One that was emptied to be removed is no member for long, and is not waited for.
        let leaving = self.returns.members.leaving();
        let out = members.filter(|member| {
            member.state != MemberState::Active && !leaving.contains(&member.index)
        });
        // Whoever holds a disk keeps it open.
        out.map(|member| Member { handle: None, ..member }).collect()
    }

    /// The paths that have not been looked at since they lead to what they lead to.
    fn unknown(&self, known: &mut HashMap<PathBuf, Token>) -> Vec<PathBuf> {
        let paths = self.returns.paths();
        known.retain(|path, _| paths.contains(path));
        let active = self.returns.active();
        let is_new = |path: &PathBuf| {
            let Some(token) = Token::of(path).filter(|_| !active.contains(path)) else {
                known.remove(path);
                return false;
            };
            known.insert(path.clone(), token.clone()) != Some(token)
        };
        paths.into_iter().filter(is_new).collect()
    }

    fn tell_copies(&self, out: &[Member], disk: &FoundDisk, copy: &FoundDisk) {
        if out.iter().any(|member| self.returns.is_it(member.uuid, disk)) {
            self.teller.tell(&copies_in_words(disk, copy), false);
        }
    }

    /// True if it should be looked at again soon.
    fn saw(&self, out: &[Member], disk: &FoundDisk, taken: &mut HashMap<DiskIndex, u32>) -> bool {
        let is_it = |member: &&Member| self.returns.is_it(member.uuid, disk);
        let Some(member) = out.iter().find(is_it) else { return false };
        let (index, path) = (member.index, &disk.identity.path);
        let is_new = {
            let mut seen = self.sightings.seen.lock();
            seen.insert(index, PathBuf::from(path)).is_none_or(|before| before != Path::new(path))
        };
        let reason = self.returns.members.reason(index);
        let by_itself = matches!(reason, None | Some(FailReason::Gone))
            && self.returns.membership.is_some()
            && *taken.entry(index).or_default() < TAKEN_MAX;
        if !by_itself {
            let how = if reason.is_none() { "is there now" } else { "answers" };
            let online = format!("isotherm disk online {} {index} takes it back", self.pool);
            self.teller.tell(&format!("disk {index} {how}, as {path}; {online}"), false);
            return false;
        }
        match self.returns.take(index, disk) {
            Ok(()) => {
                *taken.entry(index).or_default() += 1;
                self.sightings.seen.lock().remove(&index);
                self.teller.tell(&format!("disk {index} is back, as {path}"), false);
                // When it goes once more, and comes before the next look, nothing tells that from here.
                true
            }
            Err(error) => {
                if is_new || !error.is_for_now() {
                    let line = format!("disk {index} is seen as {path}, and stays out: {error}");
                    self.teller.tell(&line, false);
                }
                error.is_for_now()
            }
        }
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
