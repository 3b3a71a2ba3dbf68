//! The model as its own engine: a machine whose "disks" are the trees it has had. It keeps the harness
//! honest, because its lies are known: each must be found.

use isotherm::base::{Ino, Random, WallTime};
use isotherm::model::{
    Body, Caller, Kind, Name, New, Outcome, Rename, Reserve, SetAttr, Subject, Tree, XattrMode,
};

use super::crash::{How, Machine};
use super::harness::Finding;
use super::target::{Abilities, Failure, Reply, Target};

/// What is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// fsync promises and does not keep.
    Fsync,
    /// Data of a file is lost where the names survive.
    EmptyFile,
    /// Recovery loses what it had recovered.
    Recovery,
    /// An inode number comes again.
    Number,
}

std::thread_local! {
    /// The lie of every machine made in this thread.
    pub static LIE: std::cell::Cell<Option<Lie>> = const { std::cell::Cell::new(None) };
}

/// Trees since the last durable one, that one included.
#[derive(Clone)]
pub struct History(Vec<Tree>);

/// See the head of this file.
pub struct StandIn {
    tree: Tree,
    history: History,
    now: WallTime,
    handles: Vec<Option<Ino>>,
    armed: bool,
    taken: Vec<History>,
}

impl StandIn {
    fn with(tree: Tree) -> StandIn {
        let history = History(vec![tree.clone()]);
        let now = WallTime::default();
        StandIn { tree, history, now, handles: Vec::new(), armed: false, taken: Vec::new() }
    }

    fn run<A>(&mut self, operation: impl FnOnce(&mut Tree, WallTime) -> Outcome<A>) -> Reply<A> {
        let answer = operation(&mut self.tree, self.now).map_err(Failure::Refused);
        if std::mem::take(&mut self.armed) {
            self.taken.push(self.history.clone());
        }
        self.history.0.push(self.tree.clone());
        answer
    }

    fn make_durable(&mut self) -> Reply<()> {
        if LIE.get() != Some(Lie::Fsync) {
            self.history.0.drain(..self.history.0.len() - 1);
        }
        Ok(())
    }
}

impl Machine for StandIn {
    type Snapshot = History;

    fn create(_seed: u64) -> Result<StandIn, Finding> {
        let root = Body::root(0o755, Caller::default(), WallTime::default());
        Ok(StandIn::with(Tree::new(root)))
    }

    fn snapshot_in(&mut self, _micros: u64) {
        self.armed = true;
    }

    fn snapshot_now(&mut self) -> History {
        self.history.clone()
    }

    fn taken(&mut self) -> Vec<History> {
        std::mem::take(&mut self.taken)
    }

    fn recover(snapshot: &History, how: How) -> Result<StandIn, Finding> {
        let mut random = Random::new(how.seed);
        let trees = &snapshot.0;
        let index = random.below(trees.len() as u64) as usize;
        let (names, newest) = (&trees[index], trees.last().expect("one is always durable"));
        let next = if LIE.get() == Some(Lie::Number) { names.next() } else { newest.next() };
        let orphaned = |ino: Ino| names.links(ino) == 0;
        let bodies = names.inodes().filter(|&(ino, _)| !orphaned(ino)).map(|(ino, body)| {
            let mut body = body.clone();
            if LIE.get() == Some(Lie::EmptyFile) && body.kind == Kind::File {
                body.content = Default::default();
            }
            (ino, body)
        });
        let mut entries = names.entries().clone();
        entries.retain(|&dir, _| !orphaned(dir));
        let tree = Tree::rebuild(bodies.collect(), entries, next);
        let mut recovered = StandIn::with(tree);
        if LIE.get() == Some(Lie::Recovery) {
            let root = recovered.tree.body(Ino::ROOT).expect("it is there").clone();
            recovered.history.0.insert(0, Tree::new(root));
        }
        Ok(recovered)
    }
}

impl Subject for StandIn {
    fn list(&mut self, dir: Ino) -> Result<Vec<(Name, Ino, Kind)>, String> {
        let names = self.tree.list(dir).map_err(|refusal| format!("{refusal:?}"))?;
        let kind = |ino: Ino| self.tree.body(ino).expect("names name what exists").kind;
        Ok(names.iter().map(|(name, &ino)| (name.clone(), ino, kind(ino))).collect())
    }

    fn lookup(&mut self, dir: Ino, name: &[u8]) -> Result<Ino, String> {
        self.tree.lookup(dir, name).map_err(|refusal| format!("{refusal:?}"))
    }

    fn stat(&mut self, ino: Ino) -> Result<(Body, u32), String> {
        let body = self.tree.body(ino).map_err(|refusal| format!("{refusal:?}"))?.clone();
        let links = self.tree.links(ino);
        Ok((Body { content: Default::default(), target: Vec::new(), ..body }, links))
    }

    fn target(&mut self, ino: Ino) -> Result<Vec<u8>, String> {
        self.tree.body(ino).map(|body| body.target.clone()).map_err(|r| format!("{r:?}"))
    }

    fn read(&mut self, ino: Ino, offset: u64, length: u64) -> Result<Vec<u8>, String> {
        let body = self.tree.body(ino).map_err(|refusal| format!("{refusal:?}"))?;
        Ok(body.content.read(offset, length.min(body.size.saturating_sub(offset)) as usize))
    }

    fn seek_data(&mut self, ino: Ino, offset: u64) -> Result<Option<u64>, String> {
        let body = self.tree.body(ino).map_err(|refusal| format!("{refusal:?}"))?;
        Ok(body.content.next_data(offset))
    }
}

impl Target for StandIn {
    fn set_now(&mut self, now: WallTime) {
        self.now = now;
    }
    fn abilities(&self) -> Abilities {
        Abilities { xattrs: true, callers: true, zero_range: true, names_access: true, quiet: true }
    }
    fn make(&mut self, dir: Ino, name: &[u8], new: &New, caller: Caller) -> Reply<Ino> {
        self.run(|tree, now| tree.make(dir, name, new.clone(), caller, now))
    }
    fn link(&mut self, ino: Ino, dir: Ino, name: &[u8]) -> Reply<()> {
        self.run(|tree, now| tree.link(ino, dir, name, now))
    }
    fn unlink(&mut self, dir: Ino, name: &[u8]) -> Reply<()> {
        self.run(|tree, now| tree.unlink(dir, name, now))
    }
    fn rmdir(&mut self, dir: Ino, name: &[u8]) -> Reply<()> {
        self.run(|tree, now| tree.rmdir(dir, name, now))
    }
    fn rename(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: Rename) -> Reply<()> {
        self.run(|tree, now| tree.rename(from, to, mode, now))
    }
    fn open(&mut self, ino: Ino, _kind: Kind) -> Reply<u64> {
        self.tree.open(ino);
        self.handles.push(Some(ino));
        Ok(self.handles.len() as u64 - 1)
    }
    fn close(&mut self, handle: u64) -> Reply<()> {
        let ino = self.handles[handle as usize].take().expect("it was opened");
        self.tree.close(ino);
        Ok(())
    }
    fn access(&mut self, ino: Ino, offset: u64, length: u64) -> Reply<Vec<u8>> {
        self.tree.accessed(ino, self.now);
        self.read(ino, offset, length).map_err(Failure::Broken)
    }
    fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8], kill: bool) -> Reply<()> {
        self.run(|tree, now| tree.write(ino, offset, bytes, kill, now))
    }
    fn setattr(&mut self, ino: Ino, set: SetAttr, kill: bool) -> Reply<()> {
        self.run(|tree, now| tree.setattr(ino, set, kill, now))
    }
    fn fallocate(&mut self, ino: Ino, at: u64, length: u64, how: Reserve, kill: bool) -> Reply<()> {
        self.run(|tree, now| tree.fallocate(ino, at, length, how, kill, now))
    }
    fn seek(&mut self, ino: Ino, offset: u64, data: bool) -> Reply<Option<u64>> {
        let body = self.tree.body(ino).map_err(Failure::Refused)?;
        Ok(match data {
            _ if offset >= body.size => None,
            true => body.content.next_data(offset),
            false => Some(body.size),
        })
    }
    fn setxattr(&mut self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Reply<()> {
        self.run(|tree, now| tree.setxattr(ino, name, value, mode, now))
    }
    fn removexattr(&mut self, ino: Ino, name: &[u8]) -> Reply<()> {
        self.run(|tree, now| tree.removexattr(ino, name, now))
    }
    fn readlink(&mut self, ino: Ino) -> Reply<Vec<u8>> {
        self.tree.accessed(ino, self.now);
        self.tree.body(ino).map(|body| body.target.clone()).map_err(Failure::Refused)
    }
    fn readdir(&mut self, dir: Ino, _at_a_time: u32) -> Reply<Vec<(Name, Ino, Kind)>> {
        self.tree.accessed(dir, self.now);
        self.list(dir).map_err(Failure::Broken)
    }
    fn fsync(&mut self, _ino: Ino, _kind: Kind) -> Reply<()> {
        self.make_durable()
    }
    fn sync(&mut self) -> Reply<()> {
        self.make_durable()
    }
    fn forget(&mut self, _ino: Ino) {}
    fn pass(&mut self, _ms: u64) {
        let _ = self.run(|_, _| Ok(()));
    }
}

mod tests {
    use super::*;
    use crate::crash::{Effort, run};
    use crate::ops::{Mix, generate};
    use crate::runs::{guarded, with_seeds};

    const EFFORT: Effort = Effort { interval_us: 1, go_on_one_in: 40, ..Effort::USUAL };

    fn try_it(lie: Option<Lie>, seed: u64) -> Result<(), Finding> {
        LIE.set(lie);
        let ops = generate(&mut Random::new(seed), 120, Mix::SMALL);
        guarded(|| run::<StandIn>(seed, &ops, EFFORT))
    }

    #[test]
    fn an_honest_machine_is_believed() {
        with_seeds(6, |seed| try_it(None, seed));
    }

    #[test]
    fn every_lie_is_found() {
        for lie in [Lie::Fsync, Lie::EmptyFile, Lie::Recovery, Lie::Number] {
            let found = (1..=10).find_map(|seed| try_it(Some(lie), seed).err());
            let found = found.unwrap_or_else(|| panic!("{lie:?} was believed"));
            println!("{lie:?}: {found}");
        }
    }
}
