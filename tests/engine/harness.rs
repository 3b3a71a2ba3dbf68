//! Drives a target and the model with the same operations, and compares every answer, the attributes of
//! every inode touched, and now and then the whole tree.

use std::collections::BTreeMap;
use std::fmt::Debug;

use isotherm::base::{Ino, MIB, WallTime};
use isotherm::model::{
    Body, Caller, Dump, Floor, Kind, Name, New, Outcome, Pool, Refusal, Rename, SetAttr, Tree,
};

use super::ops::{At, Op, Pick, Set, bytes, name, xattr_name};
use super::tally::{self, Outcome as Came};
use super::target::{Abilities, Failure, Reply, Target};

/// What goes wrong, in words.
pub type Finding = String;
/// Called after each single step.
pub type Hook<T> = Box<dyn FnMut(&mut T, Moment) -> Result<(), Finding>>;

/// The moment after a step.
pub struct Moment<'a> {
    /// The pool with the step done.
    pub pool: &'a Pool,
    /// What was promised before the step began.
    pub floor: &'a Floor,
    /// Inode numbers of the target, and what they are in the model.
    pub known: &'a BTreeMap<Ino, Ino>,
    /// Inode numbers that the target had used before the step began.
    pub used: &'a [Ino],
    /// The time it is.
    pub now: WallTime,
}

impl Moment<'_> {
    /// Whether the step has promised something.
    pub fn has_promised(&self) -> bool {
        self.floor != self.pool.promised()
    }
}

/// A write is cut into pieces of this, as the kernel does.
const WRITE_BYTES: u64 = MIB;
/// The model's time starts here; later than every time that operations set.
const START_SECONDS: i64 = 1_700_000_000;

/// A target that recovered from a crash, and the pool as it was found.
pub struct Recovered<T> {
    pub target: T,
    pub pool: Pool,
    /// Inode numbers of the target, and what they are in the model.
    pub known: BTreeMap<Ino, Ino>,
    /// Inode numbers that may not come again [R5].
    pub used: Vec<Ino>,
}

/// A target beside the model.
pub struct Harness<T: Target> {
    pub target: T,
    pub pool: Pool,
    /// Told numbers of the target's inodes, and what they are in the model.
    pub known: BTreeMap<Ino, Ino>,
    theirs: BTreeMap<Ino, Ino>,
    used: Vec<Ino>,
    handles: Vec<(Ino, u64)>,
    seconds: i64,
    hook: Option<Hook<T>>,
    /// Of the operation that is under way: of its last step.
    outcome: Came,
}

type Entry = (Ino, Name, Ino);

impl<T: Target> Harness<T> {
    /// Begins with an empty target.
    pub fn new(mut target: T) -> Result<Harness<T>, Finding> {
        let root = target.stat(Ino::ROOT)?.0;
        Ok(Harness {
            target,
            pool: Pool::new(Tree::new(root)),
            known: [(Ino::ROOT, Ino::ROOT)].into(),
            theirs: [(Ino::ROOT, Ino::ROOT)].into(),
            used: vec![Ino::ROOT],
            handles: Vec::new(),
            seconds: START_SECONDS,
            hook: None,
            outcome: Came::Nothing,
        })
    }

    /// From now on `hook` is called after each step.
    pub fn set_hook(&mut self, hook: Hook<T>) {
        self.hook = Some(hook);
    }

    /// Goes on with another target, which recovered from a crash of this one.
    pub fn replace_target(&mut self, recovered: Recovered<T>) {
        self.target = recovered.target;
        self.pool = recovered.pool;
        self.theirs = recovered.known.iter().map(|(&theirs, &ours)| (ours, theirs)).collect();
        self.known = recovered.known;
        self.used = recovered.used;
        self.handles.clear();
    }

    /// Runs them all; the finding says at which one.
    pub fn run(&mut self, ops: &[Op]) -> Result<(), Finding> {
        for (index, op) in ops.iter().enumerate() {
            self.apply(op).map_err(|why| format!("operation {index}, {op:?}:\n{why}"))?;
        }
        self.finish().map_err(|why| format!("after all operations:\n{why}"))
    }

    /// The last comparison: when the background has come to rest, no deleted inode is left.
    pub fn finish(&mut self) -> Result<(), Finding> {
        self.compare()?;
        self.target.pass(20_000);
        let (found, expected) = (self.target.inodes(), self.pool.tree().inodes().count() as u64);
        if found.is_some_and(|found| found != expected) {
            return Err(format!("{found:?} inodes are said to be in use, not {expected}"));
        }
        self.target.audit()?;
        self.compare()?;
        self.target.settle()?;
        self.compare()
    }

    /// Compares the whole tree, by two walks.
    pub fn compare(&mut self) -> Result<(), Finding> {
        self.tick();
        let dump = Dump::take(&mut self.target)?;
        self.outcome = Came::Done;
        self.pool.check_now(&dump, &self.known)?;
        let (now, pool) = (self.now(), &mut self.pool);
        note_accesses(pool, &dump, &self.known, self.target.abilities(), now);
        Ok(())
    }

    /// One operation; nothing if what it aims at does not exist. It is counted.
    pub fn apply(&mut self, op: &Op) -> Result<(), Finding> {
        self.outcome = Came::Nothing;
        let faults = self.target.faults();
        let result = self.apply_uncounted(op);
        tally::note(op.kind(), self.outcome, &faults);
        result
    }

    fn apply_uncounted(&mut self, op: &Op) -> Result<(), Finding> {
        match *op {
            Op::Make { .. } | Op::Link { .. } | Op::Missing { .. } => self.apply_new_name(op),
            Op::Unlink { .. } | Op::Rmdir { .. } | Op::Rename { .. } | Op::RenameOver { .. } => {
                self.apply_name(op)
            }
            Op::Open { inode } => self.open(inode),
            Op::Close { handle } => self.close(handle),
            Op::Set { .. } | Op::SetXattr { .. } | Op::RemoveXattr { .. } => {
                self.apply_attributes(op)
            }
            Op::Readlink { inode } => self.readlink(inode),
            Op::List { dir, at_a_time } => self.list(dir, at_a_time),
            Op::Fsync { inode } => match self.pick_inode(inode, |_| true) {
                Some(ino) => self.fsync(ino),
                None => Ok(()),
            },
            Op::Sync => self.step(
                &[],
                |target, _| target.sync(),
                |pool, _| {
                    pool.sync();
                    Ok(())
                },
            ),
            Op::Pass { ms } => self.step(
                &[],
                |target, _| {
                    target.pass(ms);
                    Ok(())
                },
                |_, _| Ok(()),
            ),
            Op::Befall { disk, mishap } => {
                if self.target.befall(disk, mishap)? {
                    self.outcome = Came::Done;
                }
                Ok(())
            }
            Op::Work { work } => {
                self.tick();
                if self.target.work(work)? {
                    self.outcome = Came::Done;
                }
                Ok(())
            }
            Op::Compare => self.compare(),
            Op::Replace { entry, length, fill, fsync } => self.replace(entry, length, fill, fsync),
            _ => self.apply_content(op),
        }
    }

    // --- names --------------------------------------------------------------------------------

    fn apply_new_name(&mut self, op: &Op) -> Result<(), Finding> {
        match *op {
            Op::Make { dir, name: at, kind, mode, who } => {
                let dir = self.pick_dir(dir);
                let callers = self.target.abilities().callers;
                let uid = if callers { who % 3 } else { 0 };
                let caller = Caller { uid, gid: who / 3 % 3 };
                let new = New {
                    kind,
                    mode,
                    rdev: if is_device(kind) { 0x0103 + who % 7 } else { 0 },
                    target: match kind {
                        Kind::Symlink => vec![b'/'; 1 + who as usize % 4095],
                        _ => Vec::new(),
                    },
                };
                self.make(dir, &name(at), new, caller).map(|_| ())
            }
            Op::Link { inode, dir, name: at } => {
                let dir = self.pick_dir(dir);
                let Some(ino) = self.pick_inode(inode, |_| true) else { return Ok(()) };
                let at = name(at);
                let (t_ino, t_dir) = (self.theirs[&ino], self.theirs[&dir]);
                self.step(
                    &[ino, dir],
                    |target, _| target.link(t_ino, t_dir, &at),
                    |pool, now| pool.run(|tree| tree.link(ino, dir, &at, now)),
                )
            }
            Op::Missing { dir, name: at } => {
                let (dir, at) = (self.pick_dir(dir), name(at));
                if self.pool.tree().lookup(dir, &at).is_ok() {
                    return Ok(());
                }
                let t_dir = self.theirs[&dir];
                self.step(
                    &[dir],
                    |target, _| target.unlink(t_dir, &at),
                    |pool, now| pool.run(|tree| tree.unlink(dir, &at, now)),
                )
            }
            _ => unreachable!("not an operation that makes a name"),
        }
    }

    /// Makes an inode; Ok(None) if both refused.
    fn make(
        &mut self,
        dir: Ino,
        name: &[u8],
        new: New,
        caller: Caller,
    ) -> Result<Option<Ino>, Finding> {
        let t_dir = self.theirs[&dir];
        let mut made = None;
        self.step(
            &[dir],
            |target, _| target.make(t_dir, name, &new, caller).map(|ino| made = Some(ino)),
            |pool, now| pool.run(|tree| tree.make(dir, name, new.clone(), caller, now)).map(|_| ()),
        )?;
        let Some(theirs) = made else { return Ok(None) };
        let ours = self.pool.tree().lookup(dir, name).expect("it was just made");
        if self.used.contains(&theirs) {
            return Err(format!("R5: inode number {theirs} was used before"));
        }
        self.used.push(theirs);
        self.known.insert(theirs, ours);
        self.theirs.insert(ours, theirs);
        self.check_stat(ours)?;
        Ok(Some(ours))
    }

    fn apply_name(&mut self, op: &Op) -> Result<(), Finding> {
        match *op {
            Op::Unlink { entry } => {
                let Some((dir, name, ino)) = self.pick_entry(entry, |_| true) else {
                    return Ok(());
                };
                self.unlink(dir, &name, ino)
            }
            Op::Rmdir { directory } => {
                // One in four aims at anything, files too.
                let any = directory.is_multiple_of(4);
                let entry = self.pick_entry(directory, |kind| any || kind == Kind::Directory);
                let Some((dir, name, ino)) = entry else { return Ok(()) };
                let t_dir = self.theirs[&dir];
                self.step(
                    &[dir, ino],
                    |target, _| target.rmdir(t_dir, &name),
                    |pool, now| pool.run(|tree| tree.rmdir(dir, &name, now)),
                )
            }
            Op::Rename { entry, dir, name: at, mode } => {
                let Some(from) = self.pick_entry(entry, |_| true) else { return Ok(()) };
                let dir = self.pick_dir(dir);
                self.rename(from, dir, &name(at), mode)
            }
            Op::RenameOver { entry, over, mode } => {
                let Some(from) = self.pick_entry(entry, |_| true) else { return Ok(()) };
                let Some((dir, at, _)) = self.pick_entry(over, |_| true) else { return Ok(()) };
                self.rename(from, dir, &at, mode)
            }
            _ => unreachable!("not an operation on a name"),
        }
    }

    fn unlink(&mut self, dir: Ino, name: &[u8], ino: Ino) -> Result<(), Finding> {
        let t_dir = self.theirs[&dir];
        self.step(
            &[dir, ino],
            |target, _| target.unlink(t_dir, name),
            |pool, now| pool.run(|tree| tree.unlink(dir, name, now)),
        )
    }

    fn rename(&mut self, from: Entry, dir: Ino, at: &[u8], mode: Rename) -> Result<(), Finding> {
        let (from_dir, from_name, ino) = from;
        let (t_from, t_dir) = (self.theirs[&from_dir], self.theirs[&dir]);
        let over = self.pool.tree().lookup(dir, at).unwrap_or(dir);
        let over_above = self.pool.tree().is_within(from_dir, over);
        self.step(
            &[from_dir, dir, ino, over],
            |target, _| {
                let answer = target.rename((t_from, &from_name), (t_dir, at), mode);
                // A file over a directory above it: Linux itself refuses, before anybody is asked.
                match answer {
                    Err(Failure::Refused(Refusal::IsDirectory)) if over_above => {
                        Err(Failure::Refused(Refusal::NotEmpty))
                    }
                    answer => answer,
                }
            },
            |pool, now| pool.run(|tree| tree.rename((from_dir, &from_name), (dir, at), mode, now)),
        )
    }

    /// Writes a new file and renames it over an existing one.
    fn replace(&mut self, entry: Pick, length: u64, fill: u64, fsync: bool) -> Result<(), Finding> {
        let entry = self.pick_entry(entry, |kind| kind == Kind::File);
        let Some((dir, name, _)) = entry else { return Ok(()) };
        let new = New { kind: Kind::File, mode: 0o600, rdev: 0, target: Vec::new() };
        let Some(ino) = self.make(dir, b"name.new", new, Caller::default())? else {
            return Ok(());
        };
        self.write(ino, 0, &bytes(fill, length), false)?;
        if fsync {
            self.fsync(ino)?;
        }
        self.rename((dir, b"name.new".to_vec(), ino), dir, &name, Rename::Replace)
    }

    // --- content ------------------------------------------------------------------------------

    fn apply_content(&mut self, op: &Op) -> Result<(), Finding> {
        let (Op::Read { file, .. }
        | Op::Write { file, .. }
        | Op::Rewrite { file, .. }
        | Op::Truncate { file, .. }
        | Op::Allocate { file, .. }
        | Op::Seek { file, .. }) = *op
        else {
            unreachable!("not an operation on content: {op:?}")
        };
        let Some(ino) = self.pick_inode(file, |kind| kind == Kind::File) else { return Ok(()) };
        let theirs = self.theirs[&ino];
        let abilities = self.target.abilities();
        match *op {
            Op::Read { at, length, .. } => self.step_answer(
                &[ino],
                |target, _| target.access(theirs, at, length),
                |pool, now| {
                    let body = pool.tree().body(ino)?;
                    let length = length.min(body.size.saturating_sub(at));
                    let bytes = body.content.read(at, length as usize);
                    // Also where it reads nothing, behind the end.
                    pool.accessed(ino, now);
                    Ok(bytes)
                },
            ),
            Op::Write { at, length, fill, kill, .. } => {
                let at = match at {
                    At::Byte(at) => at,
                    At::End => self.size(ino).min(1 << 41),
                };
                self.write(ino, at, &bytes(fill, length), kill && abilities.callers)
            }
            Op::Rewrite { length, fill, .. } => {
                self.truncate(ino, 0, false)?;
                self.write(ino, 0, &bytes(fill, length), false)
            }
            Op::Truncate { size, kill, .. } => self.truncate(ino, size, kill && abilities.callers),
            Op::Allocate { at, length, how, kill, .. } => {
                use isotherm::model::Reserve::{Zero, ZeroKeepSize};
                if !abilities.zero_range && matches!(how, Zero | ZeroKeepSize) {
                    return Ok(());
                }
                let kill = kill && abilities.callers;
                self.step(
                    &[ino],
                    |target, _| target.fallocate(theirs, at, length, how, kill),
                    |pool, now| pool.run(|tree| tree.fallocate(ino, at, length, how, kill, now)),
                )
            }
            Op::Seek { at, data, .. } => self.seek(ino, at, data),
            _ => unreachable!("not an operation on content"),
        }
    }

    fn write(&mut self, ino: Ino, at: u64, bytes: &[u8], kill: bool) -> Result<(), Finding> {
        let theirs = self.theirs[&ino];
        for (index, piece) in bytes.chunks(WRITE_BYTES as usize).enumerate() {
            let at = at + index as u64 * WRITE_BYTES;
            self.step(
                &[ino],
                |target, _| target.write(theirs, at, piece, kill),
                |pool, now| pool.run(|tree| tree.write(ino, at, piece, kill, now)),
            )?;
        }
        Ok(())
    }

    fn truncate(&mut self, ino: Ino, size: u64, kill: bool) -> Result<(), Finding> {
        let theirs = self.theirs[&ino];
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        self.step(
            &[ino],
            |target, _| target.setattr(theirs, set, kill),
            |pool, now| pool.run(|tree| tree.setattr(ino, set, kill, now)),
        )
    }

    fn seek(&mut self, ino: Ino, at: u64, data: bool) -> Result<(), Finding> {
        self.tick();
        let found = match self.target.seek(self.theirs[&ino], at, data) {
            Ok(found) => found,
            Err(failure) => return Err(format!("seek: {failure:?}")),
        };
        self.outcome = Came::Done;
        let (tree, size) = (self.pool.tree(), self.size(ino));
        let allowed = match found {
            None if at >= size => true,
            found if data => tree.may_be_data(ino, at, found),
            None => false,
            Some(found) => found >= at && tree.may_be_hole(ino, found),
        };
        let what = if data { "data" } else { "hole" };
        allowed.then_some(()).ok_or(format!("{what} from {at} of {size}: {found:?} is not allowed"))
    }

    fn fsync(&mut self, ino: Ino) -> Result<(), Finding> {
        let theirs = self.theirs[&ino];
        let kind = self.kind(ino);
        self.step(
            &[ino],
            |target, _| target.fsync(theirs, kind),
            |pool, _| {
                pool.fsync(ino);
                Ok(())
            },
        )
    }

    // --- attributes and the rest --------------------------------------------------------------

    fn apply_attributes(&mut self, op: &Op) -> Result<(), Finding> {
        match *op {
            Op::Set { inode, set } => {
                // Linux gives symlinks no mode of their own.
                let no_links = matches!(set, Set::Mode(_) | Set::ModeAndTime(..));
                let pick = self.pick_inode(inode, |kind| kind != Kind::Symlink || !no_links);
                let Some(ino) = pick else { return Ok(()) };
                let mut attr = SetAttr::default();
                match set {
                    Set::Mode(mode) => attr.mode = Some(mode),
                    Set::Owner(uid, gid) => (attr.uid, attr.gid) = (uid, gid),
                    Set::Times(atime, mtime) => (attr.atime, attr.mtime) = (atime, mtime),
                    Set::ModeAndTime(mode, mtime) => {
                        (attr.mode, attr.mtime) = (Some(mode), Some(mtime))
                    }
                }
                if matches!(set, Set::Owner(None, None)) {
                    return Ok(());
                }
                let theirs = self.theirs[&ino];
                self.step(
                    &[ino],
                    |target, _| target.setattr(theirs, attr, false),
                    |pool, now| pool.run(|tree| tree.setattr(ino, attr, false, now)),
                )
            }
            Op::SetXattr { inode, name: at, length, fill, mode } => {
                let Some(ino) = self.pick_xattr_inode(inode) else { return Ok(()) };
                let (at, value) = (xattr_name(at), bytes(fill, u64::from(length)));
                let theirs = self.theirs[&ino];
                self.step(
                    &[ino],
                    |target, _| target.setxattr(theirs, &at, &value, mode),
                    |pool, now| pool.run(|tree| tree.setxattr(ino, &at, &value, mode, now)),
                )
            }
            Op::RemoveXattr { inode, name: at } => {
                let Some(ino) = self.pick_xattr_inode(inode) else { return Ok(()) };
                let (theirs, at) = (self.theirs[&ino], xattr_name(at));
                self.step(
                    &[ino],
                    |target, _| target.removexattr(theirs, &at),
                    |pool, now| pool.run(|tree| tree.removexattr(ino, &at, now)),
                )
            }
            _ => unreachable!("not an operation on attributes"),
        }
    }

    fn open(&mut self, inode: Pick) -> Result<(), Finding> {
        let openable = |kind| matches!(kind, Kind::File | Kind::Directory);
        let Some(ino) = self.pick_inode(inode, openable) else { return Ok(()) };
        self.tick();
        let kind = self.kind(ino);
        let handle =
            self.target.open(self.theirs[&ino], kind).map_err(|f| format!("open: {f:?}"))?;
        let opened = self.pool.run(|tree| {
            tree.open(ino);
            Ok(())
        });
        opened.expect("the model opens anything");
        self.outcome = Came::Done;
        self.handles.push((ino, handle));
        Ok(())
    }

    fn close(&mut self, handle: Pick) -> Result<(), Finding> {
        if self.handles.is_empty() {
            return Ok(());
        }
        let (ino, handle) = self.handles.swap_remove(handle as usize % self.handles.len());
        self.step(
            &[],
            |target, _| target.close(handle),
            |pool, _| {
                pool.run(|tree| {
                    tree.close(ino);
                    Ok(())
                })
            },
        )
    }

    fn readlink(&mut self, inode: Pick) -> Result<(), Finding> {
        let Some(ino) = self.pick_inode(inode, |kind| kind == Kind::Symlink) else { return Ok(()) };
        let theirs = self.theirs[&ino];
        let counts = self.target.abilities().names_access;
        self.step_answer(
            &[ino],
            |target, _| target.readlink(theirs),
            |pool, now| {
                if counts {
                    pool.accessed(ino, now);
                }
                Ok(pool.tree().body(ino)?.target.clone())
            },
        )
    }

    fn list(&mut self, dir: Pick, at_a_time: u32) -> Result<(), Finding> {
        let dir = self.pick_dir(dir);
        let theirs = self.theirs[&dir];
        let known = self.known.clone();
        let counts = self.target.abilities().names_access;
        self.step_answer(
            &[dir],
            |target, _| {
                let mut names: Vec<(Name, Option<Ino>, Kind)> = target
                    .readdir(theirs, at_a_time)?
                    .into_iter()
                    .map(|(name, ino, kind)| (name, known.get(&ino).copied(), kind))
                    .collect();
                names.sort_by(|a, b| a.0.cmp(&b.0));
                Ok(names)
            },
            |pool, now| {
                if counts {
                    pool.accessed(dir, now);
                }
                let tree = pool.tree();
                let names = tree.list(dir)?.iter();
                names
                    .map(|(name, &ino)| Ok((name.clone(), Some(ino), tree.body(ino)?.kind)))
                    .collect()
            },
        )
    }

    // --- the step itself ----------------------------------------------------------------------

    fn tick(&mut self) {
        self.seconds += 1;
        self.target.set_now(self.now());
    }

    fn now(&self) -> WallTime {
        WallTime { seconds: self.seconds, nanos: (self.seconds % 1000) as u32 * 1_000_001 }
    }

    fn step(
        &mut self,
        touched: &[Ino],
        theirs: impl FnOnce(&mut T, WallTime) -> Reply<()>,
        ours: impl FnOnce(&mut Pool, WallTime) -> Outcome<()>,
    ) -> Result<(), Finding> {
        self.step_answer(touched, theirs, ours)
    }

    /// One step: the target first, then the model; the answers and what was touched must agree.
    fn step_answer<A: PartialEq + Debug>(
        &mut self,
        touched: &[Ino],
        theirs: impl FnOnce(&mut T, WallTime) -> Reply<A>,
        ours: impl FnOnce(&mut Pool, WallTime) -> Outcome<A>,
    ) -> Result<(), Finding> {
        self.tick();
        let floor = self.pool.floor();
        let now = self.now();
        let answer = theirs(&mut self.target, now);
        let expected = ours(&mut self.pool, now).map_err(Failure::Refused);
        if answer != expected {
            let brief =
                |answer: &Reply<A>| format!("{answer:?}").chars().take(300).collect::<String>();
            return Err(format!("answered {}, not {}", brief(&answer), brief(&expected)));
        }
        self.outcome = if answer.is_ok() { Came::Done } else { Came::Refused };
        for &ino in touched {
            if self.pool.tree().body(ino).is_ok() {
                self.check_stat(ino)?;
            }
        }
        self.forget_dead();
        match self.hook.as_mut() {
            Some(hook) => {
                let (pool, known, used) = (&self.pool, &self.known, &self.used);
                hook(&mut self.target, Moment { pool, floor: &floor, known, used, now })
            }
            None => Ok(()),
        }
    }

    /// What has no name and is not open is known to nobody.
    fn forget_dead(&mut self) {
        let tree = self.pool.tree();
        let gone = |ours: &&Ino| tree.body(**ours).is_err();
        for ours in self.theirs.keys().filter(gone).copied().collect::<Vec<_>>() {
            let theirs = self.theirs.remove(&ours).expect("it was just there");
            self.target.forget(theirs);
        }
    }

    fn check_stat(&mut self, ino: Ino) -> Result<(), Finding> {
        let (found, links) = self.target.stat(self.theirs[&ino])?;
        let mut expected: Body = self.pool.tree().body(ino).expect("it exists").clone();
        expected.content = found.content.clone();
        expected.target = found.target.clone();
        if expected.kind == Kind::Directory {
            expected.size = found.size;
        }
        let links_expected = self.pool.tree().links(ino);
        if found != expected || links != links_expected {
            return Err(format!(
                "inode {ino} is\n  {found:?}, {links} links, should be\n  {expected:?}, {links_expected} links"
            ));
        }
        Ok(())
    }

    // --- picking ------------------------------------------------------------------------------

    fn size(&self, ino: Ino) -> u64 {
        self.pool.tree().body(ino).expect("it was picked among what exists").size
    }

    fn kind(&self, ino: Ino) -> Kind {
        self.pool.tree().body(ino).expect("it was picked among what exists").kind
    }

    fn pick_inode(&self, pick: Pick, of: impl Fn(Kind) -> bool) -> Option<Ino> {
        let all: Vec<Ino> =
            self.pool.tree().inodes().filter(|(_, b)| of(b.kind)).map(|(ino, _)| ino).collect();
        (!all.is_empty()).then(|| all[pick as usize % all.len()])
    }

    fn pick_dir(&self, pick: Pick) -> Ino {
        self.pick_inode(pick, |kind| kind == Kind::Directory).expect("the root always exists")
    }

    fn pick_xattr_inode(&self, pick: Pick) -> Option<Ino> {
        let able = self.target.abilities().xattrs;
        let of = |kind| able && matches!(kind, Kind::File | Kind::Directory);
        self.pick_inode(pick, of)
    }

    fn pick_entry(&self, pick: Pick, of: impl Fn(Kind) -> bool) -> Option<Entry> {
        let all: Vec<Entry> = self
            .pool
            .tree()
            .names()
            .filter(|&(_, _, ino)| of(self.kind(ino)))
            .map(|(dir, name, ino)| (dir, name.clone(), ino))
            .collect();
        (!all.is_empty()).then(|| all[pick as usize % all.len()].clone())
    }
}

fn is_device(kind: Kind) -> bool {
    matches!(kind, Kind::BlockDevice | Kind::CharDevice)
}

/// The walk that made `dump` may have moved access times.
pub fn note_accesses(
    pool: &mut Pool,
    dump: &Dump,
    known: &BTreeMap<Ino, Ino>,
    abilities: Abilities,
    now: WallTime,
) {
    for theirs in &dump.accessed {
        let file = dump.bodies[theirs].0.kind == Kind::File;
        if !abilities.quiet && (file || abilities.names_access) {
            pool.accessed(known[theirs], now);
        }
    }
}
