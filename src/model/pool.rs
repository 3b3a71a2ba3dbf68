//! What is applied, what is durable, what may be lost.
//!
//! Every operation that changed something is a [`Step`]. After a crash [I2]
//!
//! * the names are those after some prefix of the namespace steps, not shorter than the floor;
//! * each inode is in one of the versions it had between the last surviving and the first lost
//!   namespace step on it, not older than the floor.
//!
//! The floor is what fsync, sync and unmount promised [I1]: fsync of an inode promises the inode as it
//! is, and the namespace steps up to the last one on it (hence its own creation, and for a directory
//! every name in it).

use std::collections::{BTreeMap, BTreeSet};

use super::namespace::{Step, Tree};
use super::words::{Body, Name, Outcome};
use crate::base::{Ino, WallTime};

/// How much of the history is durable, counted in steps.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Floor {
    /// Namespace steps among the first so many have to survive.
    pub(super) namespace: usize,
    /// Each of these inodes has to be at least as after so many steps.
    pub(super) inodes: BTreeMap<Ino, usize>,
    /// Every inode has to be at least as after so many steps.
    pub(super) all: usize,
}

/// The pool as its user may think of it.
#[derive(Clone)]
pub struct Pool {
    /// What is applied.
    tree: Tree,
    /// Where the history begins: everything here is durable.
    pub(super) base_names: BTreeMap<Ino, BTreeMap<Name, Ino>>,
    pub(super) base_bodies: BTreeMap<Ino, Body>,
    /// The history since.
    pub(super) steps: Vec<Step>,
    /// Access times that were ever seen: any of them may be found after a crash.
    pub(super) atimes: BTreeMap<Ino, BTreeSet<WallTime>>,
    floor: Floor,
}

impl Pool {
    /// A pool that holds this tree, all of it durable.
    pub fn new(tree: Tree) -> Pool {
        let mut pool = Pool {
            tree,
            base_names: BTreeMap::new(),
            base_bodies: BTreeMap::new(),
            steps: Vec::new(),
            atimes: BTreeMap::new(),
            floor: Floor::default(),
        };
        pool.forget_history();
        pool
    }

    /// The tree as applied.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Carries out one operation.
    pub fn run<T>(&mut self, operation: impl FnOnce(&mut Tree) -> Outcome<T>) -> Outcome<T> {
        let outcome = operation(&mut self.tree);
        let step = self.tree.take_step();
        if !step.bodies.is_empty() {
            assert!(outcome.is_ok(), "a refused operation changes nothing");
            for (&ino, body) in &step.bodies {
                self.atimes.entry(ino).or_default().insert(body.atime);
            }
            self.steps.push(step);
        }
        outcome
    }

    /// Somebody read this inode's content.
    pub fn accessed(&mut self, ino: Ino, now: WallTime) {
        self.tree.accessed(ino, now);
        let body = self.tree.body(ino).expect("only what exists is read");
        self.atimes.entry(ino).or_default().insert(body.atime);
    }

    /// fsync of this inode returned: it survives from now on [I1].
    pub fn fsync(&mut self, ino: Ino) {
        let on_it = |step: &Step| !step.entries.is_empty() && step.bodies.contains_key(&ino);
        let last = self.steps.iter().rposition(on_it).map_or(0, |index| index + 1);
        self.floor.namespace = self.floor.namespace.max(last);
        self.floor.inodes.insert(ino, self.steps.len());
    }

    /// sync returned: everything survives from now on [I1].
    pub fn sync(&mut self) {
        self.floor.namespace = self.steps.len();
        self.floor.all = self.steps.len();
    }

    /// What is promised now.
    pub fn promised(&self) -> &Floor {
        &self.floor
    }

    /// A copy of what is promised now. Taken before an operation begins, it is what a crash in the middle of
    /// the operation must honour.
    pub fn floor(&self) -> Floor {
        self.floor.clone()
    }

    /// Begins the history anew, where everything is durable. Floors taken earlier are void.
    pub fn forget_history(&mut self) {
        self.base_names = self.tree.entries().clone();
        self.base_bodies = self.tree.inodes().map(|(ino, body)| (ino, body.clone())).collect();
        self.atimes.clear();
        for (&ino, body) in &self.base_bodies {
            self.atimes.entry(ino).or_default().insert(body.atime);
        }
        self.steps.clear();
        self.floor = Floor::default();
    }
}
