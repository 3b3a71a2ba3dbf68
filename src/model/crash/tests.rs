//! What may be found after a crash and what not: each rule with a tree that keeps and one that breaks it.

use super::*;
use crate::base::WallTime;
use crate::model::{Caller, New, Rename, SetAttr};

const ROOT: Ino = Ino::ROOT;

struct Story {
    pool: Pool,
    seconds: i64,
}

impl Story {
    fn new() -> Story {
        let root = Body::root(0o755, Caller::default(), WallTime::default());
        Story { pool: Pool::new(Tree::new(root)), seconds: 0 }
    }

    fn now(&mut self) -> WallTime {
        self.seconds += 1;
        WallTime { seconds: self.seconds, nanos: 0 }
    }

    fn make(&mut self, name: &[u8], kind: Kind) -> Ino {
        let now = self.now();
        let new = New { kind, mode: 0o644, rdev: 0, target: Vec::new() };
        self.pool.run(|tree| tree.make(ROOT, name, new, Caller::default(), now)).unwrap()
    }

    fn write(&mut self, ino: Ino, bytes: &[u8]) {
        let now = self.now();
        self.pool.run(|tree| tree.write(ino, 0, bytes, false, now)).unwrap();
    }

    fn chmod(&mut self, ino: Ino, mode: u32) {
        let now = self.now();
        let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
        self.pool.run(|tree| tree.setattr(ino, set, false, now)).unwrap();
    }

    fn rename(&mut self, from: &[u8], to: &[u8]) {
        let now = self.now();
        self.pool.run(|tree| tree.rename((ROOT, from), (ROOT, to), Rename::Replace, now)).unwrap();
    }

    fn verdict(&self, dump: &Dump) -> Result<Survived, String> {
        let known = dump.bodies.keys().map(|&ino| (ino, ino)).collect();
        self.pool.check_crash(&self.pool.floor(), dump, &known)
    }
}

fn dump(tree: &Tree) -> Dump {
    let links = |ino| tree.links(ino);
    Dump {
        bodies: tree.inodes().map(|(ino, body)| (ino, (body.clone(), links(ino)))).collect(),
        entries: tree.entries().clone(),
        accessed: Vec::new(),
    }
}

#[test]
fn every_prefix_is_allowed_until_it_is_synced() {
    let mut story = Story::new();
    let mut found = vec![dump(story.pool.tree())];
    let a = story.make(b"a", Kind::File);
    found.push(dump(story.pool.tree()));
    story.write(a, b"one");
    found.push(dump(story.pool.tree()));
    story.make(b"b", Kind::Directory);
    found.push(dump(story.pool.tree()));
    story.rename(b"a", b"c");
    found.push(dump(story.pool.tree()));
    for (steps, dump) in found.iter().enumerate() {
        story.verdict(dump).unwrap_or_else(|why| panic!("after {steps} steps: {why}"));
    }
    story.pool.fsync(a);
    story.verdict(found.last().unwrap()).unwrap();
    assert!(story.verdict(&found[3]).unwrap_err().contains("missing"), "I1: the rename was synced");
}

#[test]
fn a_file_renamed_over_is_never_empty() {
    let mut story = Story::new();
    story.make(b"target", Kind::File);
    story.pool.sync();
    let new = story.make(b"new", Kind::File);
    let empty = story.pool.tree().body(new).unwrap().clone();
    story.write(new, b"content");
    story.rename(b"new", b"target");
    let mut found = dump(story.pool.tree());
    story.verdict(&found).unwrap();
    found.bodies.get_mut(&new).unwrap().0.content = empty.content.clone();
    assert!(story.verdict(&found).unwrap_err().contains("content"), "I2: empty with a new size");
    found.bodies.get_mut(&new).unwrap().0 = empty;
    assert!(story.verdict(&found).unwrap_err().contains("size 0"), "I2: as before the write");
}

#[test]
fn inodes_are_independent_of_each_other() {
    let mut story = Story::new();
    let (a, b) = (story.make(b"a", Kind::File), story.make(b"b", Kind::File));
    story.pool.sync();
    let before = story.pool.tree().body(a).unwrap().clone();
    story.write(a, b"a");
    story.write(b, b"b");
    let mut found = dump(story.pool.tree());
    found.bodies.get_mut(&a).unwrap().0 = before.clone();
    story.verdict(&found).unwrap();
    story.pool.fsync(a);
    assert!(story.verdict(&found).is_err(), "I1: a was synced");
}

#[test]
fn one_inode_keeps_its_own_order() {
    let mut story = Story::new();
    let a = story.make(b"a", Kind::File);
    story.pool.sync();
    let before = story.pool.tree().body(a).unwrap().clone();
    story.write(a, b"data");
    let middle = dump(story.pool.tree());
    story.chmod(a, 0o600);
    story.verdict(&middle).unwrap();
    let mut found = dump(story.pool.tree());
    let (body, _) = found.bodies.get_mut(&a).unwrap();
    body.content = before.content;
    body.size = before.size;
    assert!(story.verdict(&found).is_err(), "the new mode came after the data");
}

#[test]
fn versions_do_not_mix() {
    let mut story = Story::new();
    let a = story.make(b"a", Kind::File);
    story.write(a, &[1; 9000]);
    story.pool.sync();
    story.write(a, &[2; 9000]);
    let mut found = dump(story.pool.tree());
    story.verdict(&found).unwrap();
    found.bodies.get_mut(&a).unwrap().0.content.write(4096, &[1; 100]);
    let why = story.verdict(&found).unwrap_err();
    assert!(why.contains("byte 4096: 0x01, not 0x02") && why.contains("never was this"), "{why}");
}

#[test]
fn an_inode_number_means_one_inode() {
    let mut story = Story::new();
    let a = story.make(b"a", Kind::File);
    let mut found = dump(story.pool.tree());
    let body = found.bodies.remove(&a).unwrap();
    found.bodies.insert(Ino(99), body);
    found.entries.get_mut(&ROOT).unwrap().insert(b"a".to_vec(), Ino(99));
    let known = [(Ino(99), Ino(77))].into();
    assert!(story.pool.check_crash(&story.pool.floor(), &found, &known).is_err());
    story.pool.check_crash(&story.pool.floor(), &found, &BTreeMap::new()).unwrap();
}

#[test]
fn link_counts_must_fit_the_names() {
    let mut story = Story::new();
    let a = story.make(b"a", Kind::File);
    let mut found = dump(story.pool.tree());
    found.bodies.get_mut(&a).unwrap().1 = 2;
    assert!(story.verdict(&found).unwrap_err().contains("counts 2 links"));
}

#[test]
fn the_pool_goes_on_from_what_was_found() {
    let mut story = Story::new();
    let a = story.make(b"a", Kind::File);
    story.write(a, b"one");
    let found = dump(story.pool.tree());
    story.make(b"lost", Kind::Directory);
    let survived = story.verdict(&found).unwrap();
    assert_eq!((survived.steps, survived.of), (1, 3));
    story.pool = story.pool.recovered(&found, &survived);
    assert!(story.make(b"b", Kind::File) > Ino(3), "R5: numbers never recur");
    assert!(story.verdict(&found).is_ok(), "b may be lost again");
    story.pool.sync();
    assert!(story.verdict(&found).is_err());
}
