//! The rules that a comparison with tmpfs cannot reach, and a few that it does.

use super::*;

fn at(seconds: i64) -> WallTime {
    WallTime { seconds, nanos: 0 }
}

fn new(kind: Kind) -> New {
    New { kind, mode: 0o644, rdev: 0, target: Vec::new() }
}

const WHO: Caller = Caller { uid: 1, gid: 1 };

fn tree() -> Tree {
    Tree::new(Body::root(0o755, Caller::default(), at(0)))
}

#[test]
fn directories_count_their_subdirectories() {
    let mut tree = tree();
    let a = tree.make(Ino::ROOT, b"a", new(Kind::Directory), WHO, at(1)).unwrap();
    let b = tree.make(a, b"b", new(Kind::Directory), WHO, at(1)).unwrap();
    assert_eq!((tree.links(Ino::ROOT), tree.links(a), tree.links(b)), (3, 3, 2));
    tree.rename((a, b"b"), (Ino::ROOT, b"b"), Rename::Replace, at(2)).unwrap();
    assert_eq!((tree.links(Ino::ROOT), tree.links(a)), (4, 2));
    tree.rmdir(Ino::ROOT, b"b", at(3)).unwrap();
    assert_eq!(tree.links(Ino::ROOT), 3);
    assert!(tree.body(b).is_err());
}

#[test]
fn a_directory_cannot_move_into_itself() {
    let mut tree = tree();
    let a = tree.make(Ino::ROOT, b"a", new(Kind::Directory), WHO, at(1)).unwrap();
    let b = tree.make(a, b"b", new(Kind::Directory), WHO, at(1)).unwrap();
    let root = Ino::ROOT;
    let mut rename = |from, to, mode| tree.rename(from, to, mode, at(2));
    assert_eq!(rename((root, b"a"), (b, b"x"), Rename::Replace), Err(Refusal::Invalid));
    assert_eq!(rename((root, b"a"), (root, b"a"), Rename::Replace), Ok(()));
    assert_eq!(rename((a, b"b"), (root, b"a"), Rename::Exchange), Err(Refusal::Invalid));
    assert_eq!(rename((a, b"b"), (root, b"a"), Rename::Replace), Err(Refusal::NotEmpty));
}

#[test]
fn an_unlinked_file_lives_until_its_last_close() {
    let mut tree = tree();
    let file = tree.make(Ino::ROOT, b"f", new(Kind::File), WHO, at(1)).unwrap();
    tree.open(file);
    tree.unlink(Ino::ROOT, b"f", at(2)).unwrap();
    tree.write(file, 3, b"x", false, at(3)).unwrap();
    assert_eq!(tree.read(file, 0, 10, at(4)), b"\0\0\0x");
    tree.close(file);
    assert_eq!(tree.body(file), Err(Refusal::NotFound));
}

#[test]
fn an_open_directory_outlives_its_parents() {
    let mut tree = tree();
    let a = tree.make(Ino::ROOT, b"a", new(Kind::Directory), WHO, at(1)).unwrap();
    let b = tree.make(a, b"b", new(Kind::Directory), WHO, at(1)).unwrap();
    tree.open(b);
    tree.rmdir(a, b"b", at(2)).unwrap();
    tree.rmdir(Ino::ROOT, b"a", at(2)).unwrap();
    let made = tree.make(b, b"x", new(Kind::File), WHO, at(3));
    assert_eq!(made, Err(Refusal::NotFound));
    tree.close(b);
}

#[test]
fn writing_without_privilege_clears_suid() {
    let mut tree = tree();
    let file = tree.make(Ino::ROOT, b"f", new(Kind::File), WHO, at(1)).unwrap();
    let chmod = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
    tree.setattr(file, chmod(0o6755), false, at(2)).unwrap();
    tree.write(file, 0, b"x", false, at(3)).unwrap();
    assert_eq!(tree.body(file).unwrap().mode, 0o6755);
    tree.write(file, 0, b"x", true, at(3)).unwrap();
    assert_eq!(tree.body(file).unwrap().mode, 0o755);
    tree.setattr(file, chmod(0o6745), false, at(2)).unwrap();
    tree.write(file, 0, b"x", true, at(3)).unwrap();
    assert_eq!(tree.body(file).unwrap().mode, 0o2745, "sgid without x is mandatory locking");
}

#[test]
fn access_times_are_relative() {
    let mut tree = tree();
    let file = tree.make(Ino::ROOT, b"f", new(Kind::File), WHO, at(1)).unwrap();
    let mut read = |now| {
        tree.accessed(file, at(now));
        tree.body(file).unwrap().atime
    };
    assert_eq!(read(2), at(2));
    assert_eq!(read(3), at(2));
    assert_eq!(read(2 + 86_400), at(2 + 86_400));
}

#[test]
fn a_step_names_what_changed() {
    let mut tree = tree();
    let file = tree.make(Ino::ROOT, b"f", new(Kind::File), WHO, at(1)).unwrap();
    let step = tree.take_step();
    assert_eq!(step.entries, [(Ino::ROOT, b"f".to_vec(), Some(file))]);
    assert_eq!(step.bodies.into_keys().collect::<Vec<_>>(), [Ino::ROOT, file]);
    assert!(tree.unlink(Ino::ROOT, b"nothing", at(2)).is_err());
    assert!(tree.take_step().bodies.is_empty());
}
