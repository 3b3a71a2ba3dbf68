//! The self-test: the load runs in a plain directory; the checker must pass what it left behind,
//! and fail each fault that is then planted into a copy.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use super::check::{self, check};
use super::history::{self, Operation, Record};
use super::load;

type Plant = fn(&Path, &[Record]) -> Option<()>;

/// The last operation that fits, and its result.
fn last<'a, T>(records: &'a [Record], fits: impl Fn(&'a Operation) -> Option<T>) -> Option<T> {
    records.iter().rev().filter(|record| record.done.is_some()).find_map(|r| fits(&r.operation))
}

/// The path of a synced file with content, by walking the names forward.
fn synced_file(dir: &Path, records: &[Record]) -> Option<PathBuf> {
    let sizes = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.len());
    let mut candidates = Vec::new();
    for record in records {
        if let Operation::Create { path, file } = &record.operation {
            let synced = records.iter().any(|r| r.operation == Operation::Fsync { file: *file });
            let path = dir.join(path);
            if synced && sizes(&path).is_some_and(|bytes| bytes > 64) {
                candidates.push(path);
            }
        }
    }
    candidates.pop()
}

fn alter_a_byte(dir: &Path, records: &[Record]) -> Option<()> {
    let path = synced_file(dir, records)?;
    let file = fs::OpenOptions::new().read(true).write(true).open(path).ok()?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, 40).ok()?;
    file.write_all_at(&[byte[0] ^ 1], 40).ok()
}

fn empty_a_file(dir: &Path, records: &[Record]) -> Option<()> {
    fs::OpenOptions::new().write(true).open(synced_file(dir, records)?).ok()?.set_len(0).ok()
}

fn zero_the_tail(dir: &Path, records: &[Record]) -> Option<()> {
    let file = fs::OpenOptions::new().write(true).open(synced_file(dir, records)?).ok()?;
    let length = file.metadata().ok()?.len();
    file.write_all_at(&[0; 16], length - 16).ok()
}

fn lose_a_file(dir: &Path, records: &[Record]) -> Option<()> {
    fs::remove_file(synced_file(dir, records)?).ok()
}

fn undo_a_rename(dir: &Path, records: &[Record]) -> Option<()> {
    // The very last renames may not be durable yet: undoing those is allowed.
    let settled = &records[..records.len() - records.len() / 4];
    let (from, to) = last(settled, |operation| match operation {
        Operation::Rename { from, to } if dir.join(to).exists() => Some((from, to)),
        _ => None,
    })?;
    fs::rename(dir.join(to), dir.join(from)).ok()
}

fn resurrect_a_file(dir: &Path, records: &[Record]) -> Option<()> {
    let path = last(records, |operation| match operation {
        Operation::Unlink { path } => Some(path),
        _ => None,
    })?;
    fs::write(dir.join(path), "back again").ok()
}

fn lose_an_early_directory(dir: &Path, _records: &[Record]) -> Option<()> {
    fs::remove_dir_all(dir.join("w1")).ok()
}

fn add_a_link(dir: &Path, records: &[Record]) -> Option<()> {
    let path = synced_file(dir, records)?;
    fs::hard_link(&path, dir.join("outside")).ok()
}

fn swap_two_files(dir: &Path, records: &[Record]) -> Option<()> {
    let first = synced_file(dir, records)?;
    let second = fs::read_dir(first.parent()?).ok()?.flatten().find(|entry| {
        entry.path() != first && entry.file_type().is_ok_and(|kind| kind.is_file())
    })?;
    let (a, b) = (fs::read(&first).ok()?, fs::read(second.path()).ok()?);
    fs::write(&first, b).ok()?;
    fs::write(second.path(), a).ok()
}

const PLANTS: [(&str, Plant); 9] = [
    ("a byte of a synced file altered", alter_a_byte),
    ("a synced file emptied", empty_a_file),
    ("zeros at the end of a synced file", zero_the_tail),
    ("a synced file lost", lose_a_file),
    ("a rename undone", undo_a_rename),
    ("a deleted file back", resurrect_a_file),
    ("a synced directory lost", lose_an_early_directory),
    ("a link too many", add_a_link),
    ("two files' contents swapped", swap_two_files),
];

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(done.is_ok_and(|status| status.success()), "cp -a works");
}

fn load_some(dir: &Path, log: &Path, seed: u64) {
    let options = load::Options {
        dir: dir.into(),
        log: log.into(),
        seed,
        writers: 3,
        time_max: Duration::from_millis(1500),
    };
    let ended = load::run(&options);
    assert!(!ended.failed && !ended.cut && ended.operations > 100, "{ended:?}");
}

/// The log with the inode numbers of the copy in place of the original's.
fn log_for_copy(log: &Path, original: &Path, copy: &Path, copied_log: &Path) {
    let inodes = check::inodes(original);
    let copies = check::inodes(copy);
    let renumbered = |inode: &str| {
        let inode: u64 = inode.parse().expect("an inode");
        let path = inodes.iter().find(|(_, known)| **known == inode).map(|(path, _)| path);
        // A file that is gone gets a number that nothing has.
        path.map_or(u64::MAX, |path| copies[path])
    };
    let line = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        ["D", id, inode] => format!("D {id} {}\n", renumbered(inode)),
        _ => format!("{line}\n"),
    };
    let text = fs::read_to_string(log).expect("the log can be read");
    fs::write(copied_log, text.lines().map(line).collect::<String>()).expect("can be written");
}

/// Alters a byte of a synced file in place: what a check afterwards must see.
pub fn plant_one(dir: &Path, log: &Path) {
    let (records, _) = history::read_log(log);
    alter_a_byte(dir, &records).expect("there is a synced file");
}

/// Faults in a hundred and thirty small files that the look-up must see.
fn unseen_among_many(dir: &Path) -> Vec<String> {
    let at = |index: u64| dir.join(format!("d{}/f{index}", index / 100));
    let swap = |first: u64, second: u64| {
        fs::rename(at(first), dir.join("aside")).expect("rename");
        fs::rename(at(second), at(first)).expect("rename");
        fs::rename(dir.join("aside"), at(second)).expect("rename");
    };
    let faults = || load::look_up_many(dir, 130, 100);
    load::create_many(dir, 130, 100);
    let mut failed = Vec::new();
    let mut must = |name: &str, right: bool| {
        if !right {
            failed.push(format!("many files: {name}"));
        }
    };
    must("they pass", faults().is_empty());
    swap(3, 4);
    must("two names swapped", !faults().is_empty());
    swap(3, 4);
    // The same length: only their content tells.
    swap(0, 70);
    must("two names of equal lengths swapped", !faults().is_empty());
    swap(0, 70);
    must("they pass again", faults().is_empty());
    fs::write(dir.join("d1/more"), "x").expect("write");
    must("one too many", !faults().is_empty());
    fs::remove_file(dir.join("d1/more")).expect("unlink");
    fs::remove_file(at(107)).expect("unlink");
    must("one lost", !faults().is_empty());
    fs::hard_link(at(2), at(107)).expect("link");
    must("one file with two names", !faults().is_empty());
    failed
}

/// Runs everything and reports like any test.
pub fn run_all() -> ExitCode {
    let seed = std::env::var("ISOTHERM_SEED").map_or(7, |text| text.parse().expect("a number"));
    println!("seed {seed}");
    let top = tempfile::tempdir().expect("a temporary directory");
    let (dir, log) = (top.path().join("sound"), top.path().join("log"));
    load_some(&dir, &log, seed);
    let honest = check(&dir, &log);
    println!("test an_honest_directory_passes: {honest}");
    let mut failed =
        honest.faults.iter().map(|fault| format!("honest: {fault}")).collect::<Vec<_>>();
    let (records, _) = history::read_log(&log);
    for (index, (name, plant)) in PLANTS.iter().enumerate() {
        let broken = top.path().join(format!("broken{index}"));
        copy(&dir, &broken);
        let log = top.path().join(format!("log{index}"));
        log_for_copy(&top.path().join("log"), &dir, &broken, &log);
        let faithful = check(&broken, &log).faults;
        assert!(faithful.is_empty(), "a faithful copy passes: {:?}", faithful.first());
        plant(&broken, &records).unwrap_or_else(|| panic!("seed {seed}: no place for: {name}"));
        match check(&broken, &log).faults.first() {
            Some(fault) => println!("test {name}: found: {fault}"),
            None => failed.push(format!("not found: {name}")),
        }
    }
    let before = check::listing(&dir);
    if before != check::listing(&dir) || check::listing(&top.path().join("broken0")) == before {
        failed.push("a frozen listing must be stable and see a change".into());
    }
    failed.extend(unseen_among_many(&top.path().join("many")));
    for fault in &failed {
        println!("FAULT {fault}");
    }
    let all = PLANTS.len() + 3;
    let bad = failed.len().min(all);
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("test result: {word}. {} passed; {bad} failed; 0 ignored", all - bad);
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
