//! The checker: is what came back after a crash one of the states that the log allows?
//!
//! For each writer, the names found must be those after some prefix of its namespace operations
//! [I2], a prefix that reaches at least to the last one that an fsync of file or directory covered
//! [I1]. Across writers, an operation that survived must not have started after another one had
//! returned that did not survive [I2]. A file's bytes must be those written to it, at least as far
//! as it was synced, or renamed or linked by an operation that survived [I1, I2, R14]: never empty,
//! mixed, or with a tail of zeros [R15].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::history::{self, BLOCK, Operation, Record, mix};

/// What the checker found.
#[derive(Default, Debug)]
pub struct Verdict {
    /// Violations, in words.
    pub faults: Vec<String>,
    operations: usize,
    kept: usize,
    namespace: usize,
    synced: usize,
    files: usize,
    bytes: u64,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} operations, {} syncs; {} of {} namespace operations there; {} files, {} bytes \
             compared; {} faults",
            self.operations,
            self.synced,
            self.kept,
            self.namespace,
            self.files,
            self.bytes,
            self.faults.len()
        )
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Node {
    Directory,
    Symlink(String),
    File(u64),
}

#[derive(Clone, Debug)]
struct Found {
    node: FoundNode,
    inode: u64,
    links: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum FoundNode {
    Directory,
    Symlink(String),
    File,
    Other,
}

type Names = BTreeMap<String, Node>;

/// Walks `top` inside `dir`; paths are relative to `dir`.
fn walk(dir: &Path, top: &str, found: &mut BTreeMap<String, Found>, faults: &mut Vec<String>) {
    let path = dir.join(top);
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                faults.push(format!("{top}: cannot be looked at: {error}"));
            }
            return;
        }
    };
    let kind = metadata.file_type();
    let node = if kind.is_dir() {
        FoundNode::Directory
    } else if kind.is_symlink() {
        let target = fs::read_link(&path).unwrap_or_default();
        FoundNode::Symlink(String::from_utf8_lossy(target.as_os_str().as_bytes()).into_owned())
    } else if kind.is_file() {
        FoundNode::File
    } else {
        FoundNode::Other
    };
    let descend = node == FoundNode::Directory;
    let links = metadata.nlink();
    found.insert(top.to_string(), Found { node, inode: metadata.ino(), links });
    if !descend {
        return;
    }
    match fs::read_dir(&path) {
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Ok(entry) => {
                        let name = entry.file_name().to_string_lossy().into_owned();
                        walk(dir, &format!("{top}/{name}"), found, faults);
                    }
                    Err(error) => faults.push(format!("{top}: cannot be listed: {error}")),
                }
            }
        }
        Err(error) => faults.push(format!("{top}: cannot be listed: {error}")),
    }
}

/// A namespace operation with what it concerns.
struct Change<'a> {
    record: &'a Record,
    /// Place in the writer's records, to compare with data and sync operations.
    at: usize,
    files: Vec<u64>,
    dirs: Vec<String>,
}

fn parent(path: &str) -> String {
    path.rsplit_once('/').map_or(String::new(), |(parent, _)| parent.to_string())
}

/// Applies a namespace operation; returns the files and directories it concerns.
fn apply(names: &mut Names, operation: &Operation) -> (Vec<u64>, Vec<String>) {
    let file_at = |names: &Names, path: &str| match names.get(path) {
        Some(Node::File(file)) => vec![*file],
        _ => Vec::new(),
    };
    match operation {
        Operation::Create { path, file } => {
            names.insert(path.clone(), Node::File(*file));
            (vec![*file], vec![parent(path)])
        }
        Operation::Rename { from, to } => {
            let files = file_at(names, from);
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
            (files, vec![parent(from), parent(to)])
        }
        Operation::Link { from, to } => {
            let files = file_at(names, from);
            if let Some(node) = names.get(from).cloned() {
                names.insert(to.clone(), node);
            }
            (files, vec![parent(to)])
        }
        Operation::Unlink { path } => {
            let files = file_at(names, path);
            names.remove(path);
            (files, vec![parent(path)])
        }
        Operation::Mkdir { path } => {
            names.insert(path.clone(), Node::Directory);
            (Vec::new(), vec![parent(path), path.clone()])
        }
        Operation::Rmdir { path } => {
            names.remove(path);
            (Vec::new(), vec![parent(path)])
        }
        Operation::Symlink { path, to } => {
            names.insert(path.clone(), Node::Symlink(to.clone()));
            (Vec::new(), vec![parent(path)])
        }
        _ => (Vec::new(), Vec::new()),
    }
}

/// How many names differ between the model and what was found, with the first as an example.
fn differences(
    names: &Names,
    found: &BTreeMap<String, Found>,
    inodes: &BTreeMap<u64, u64>,
) -> (usize, String) {
    let mut count = 0;
    let mut example = String::new();
    let paths: BTreeSet<&String> = names.keys().chain(found.keys()).collect();
    for path in paths {
        let same = match (names.get(path), found.get(path)) {
            (Some(Node::Directory), Some(found)) => found.node == FoundNode::Directory,
            (Some(Node::Symlink(to)), Some(found)) => found.node == FoundNode::Symlink(to.clone()),
            (Some(Node::File(file)), Some(found)) => {
                let right = inodes.get(file).is_none_or(|inode| *inode == found.inode);
                found.node == FoundNode::File && right
            }
            _ => false,
        };
        if !same {
            count += 1;
            if example.is_empty() {
                example =
                    format!("{path}: {:?} expected, {:?} found", names.get(path), found.get(path));
            }
        }
    }
    (count, example)
}

/// One writer's part of the log and of the pool.
struct Judged<'a> {
    changes: Vec<Change<'a>>,
    /// Fewest and most operations that agree with what was found.
    kept: Option<(usize, usize)>,
}

struct Writer<'a> {
    number: u64,
    records: Vec<&'a Record>,
    found: BTreeMap<String, Found>,
}

impl Writer<'_> {
    fn judge(&self, verdict: &mut Verdict) -> Judged<'_> {
        let inodes: BTreeMap<u64, u64> = self
            .records
            .iter()
            .filter_map(|record| match record.operation {
                Operation::Create { file, .. } => Some((file, record.inode?)),
                _ => None,
            })
            .collect();
        let mut names = Names::new();
        let mut changes: Vec<Change> = Vec::new();
        let mut agree = Vec::new();
        let mut nearest = (usize::MAX, 0, String::new());
        let mut compare = |names: &Names, kept: usize| {
            let (count, example) = differences(names, &self.found, &inodes);
            if count == 0 {
                agree.push(kept);
            }
            if count <= nearest.0 {
                nearest = (count, kept, example);
            }
        };
        compare(&names, 0);
        for (at, record) in self.records.iter().enumerate() {
            if record.operation.is_namespace() {
                let (files, dirs) = apply(&mut names, &record.operation);
                changes.push(Change { record, at, files, dirs });
                compare(&names, changes.len());
            }
        }
        let synced = self.synced_changes(&changes);
        let fewest = agree.iter().copied().find(|kept| *kept >= synced);
        let kept = fewest.map(|fewest| (fewest, *agree.last().expect("fewest is one of them")));
        match (kept, agree.last()) {
            (Some(_), _) => {}
            (None, Some(kept)) => verdict.faults.push(format!(
                "w{}: {kept} namespace operations are there, but {synced} were synced; lost: {}",
                self.number, changes[*kept].record.operation
            )),
            (None, None) => verdict.faults.push(format!(
                "w{}: no prefix of the namespace operations; nearest {} of {}: {} differ; {}",
                self.number,
                nearest.1,
                changes.len(),
                nearest.0,
                nearest.2
            )),
        }
        verdict.namespace += changes.len();
        verdict.kept += kept.map_or(0, |(fewest, _)| fewest);
        Judged { changes, kept }
    }

    /// How many namespace operations syncs have covered.
    fn synced_changes(&self, changes: &[Change]) -> usize {
        let mut covered = 0;
        for (at, record) in self.records.iter().enumerate() {
            if record.done.is_none() {
                continue;
            }
            let concerned = |change: &Change| match &record.operation {
                Operation::Fsync { file } => change.files.contains(file),
                Operation::FsyncDir { path } => change.dirs.contains(path),
                _ => false,
            };
            let last = changes.iter().rposition(|change| change.at < at && concerned(change));
            covered = covered.max(last.map_or(0, |index| index + 1));
        }
        covered
    }

    /// Checks every file's bytes, given how many namespace operations are there.
    fn check_data(&self, dir: &Path, changes: &[Change], kept: usize, verdict: &mut Verdict) {
        let mut names = Names::new();
        for change in &changes[..kept] {
            apply(&mut names, &change.record.operation);
        }
        let mut links: BTreeMap<u64, u64> = BTreeMap::new();
        for node in names.values() {
            if let Node::File(file) = node {
                *links.entry(*file).or_default() += 1;
            }
        }
        let mut seen = BTreeSet::new();
        for (path, node) in &names {
            let Node::File(file) = node else { continue };
            let found = &self.found[path];
            if found.links != links[file] {
                let (is, want) = (found.links, links[file]);
                verdict.faults.push(format!("{path}: {is} links counted, {want} there"));
            }
            if !seen.insert(*file) {
                continue;
            }
            // Synced, or named by an operation that is there: everything written before counts.
            let sure = self.sure_data(*file, &changes[..kept]);
            match fs::read(dir.join(path)) {
                Ok(bytes) => {
                    verdict.files += 1;
                    verdict.bytes += bytes.len() as u64;
                    if let Err(fault) = self.check_bytes(*file, &bytes, sure) {
                        verdict.faults.push(format!("{path} (file {file}): {fault}"));
                    }
                }
                Err(error) => verdict.faults.push(format!("{path}: cannot be read: {error}")),
            }
        }
    }

    /// The place in the records before which the file's writes must be there.
    fn sure_data(&self, file: u64, kept: &[Change]) -> usize {
        let synced = self.records.iter().rposition(|record| {
            record.done.is_some() && record.operation == Operation::Fsync { file }
        });
        let named = kept.iter().rev().find(|change| change.files.contains(&file));
        synced.unwrap_or(0).max(named.map_or(0, |change| change.at))
    }

    fn check_bytes(&self, file: u64, bytes: &[u8], sure: usize) -> Result<(), String> {
        let mut length = (0, 0);
        let mut blocks: Option<(u64, bool)> = None;
        let mut versions: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for (at, record) in self.records.iter().enumerate() {
            match record.operation {
                Operation::Append { file: it, offset, length: added } if it == file => {
                    length.1 = offset + added;
                    if at < sure {
                        length.0 = length.1;
                    }
                }
                Operation::Init { file: it, blocks: count } if it == file => {
                    blocks = Some((count, at < sure));
                }
                Operation::Write { file: it, block, version } if it == file => {
                    let range = versions.entry(block).or_default();
                    range.1 = version;
                    if at < sure {
                        range.0 = version;
                    }
                }
                _ => {}
            }
        }
        match blocks {
            Some((count, sure)) => check_blocks(file, bytes, count, sure, &versions),
            None => check_stream(file, bytes, length),
        }
    }
}

fn check_stream(file: u64, bytes: &[u8], (low, high): (u64, u64)) -> Result<(), String> {
    let length = bytes.len() as u64;
    if length < low || length > high {
        return Err(format!("{length} bytes, {low} were promised, {high} written"));
    }
    let expected = history::stream(file, 0, bytes.len());
    match bytes.iter().zip(&expected).position(|(is, want)| is != want) {
        Some(at) => {
            let zeros = bytes[at..].iter().all(|byte| *byte == 0);
            let how = if zeros { "zeros from there to the end" } else { "foreign bytes" };
            Err(format!("differs at byte {at} of {length}: {how}"))
        }
        None => Ok(()),
    }
}

fn check_blocks(
    file: u64,
    bytes: &[u8],
    count: u64,
    sure: bool,
    versions: &BTreeMap<u64, (u64, u64)>,
) -> Result<(), String> {
    let (length, full) = (bytes.len() as u64, count * BLOCK as u64);
    if length > full || (sure && length < full) {
        return Err(format!("{length} bytes of {full}"));
    }
    for (number, block) in bytes.chunks(BLOCK).enumerate() {
        let (low, high) = versions.get(&(number as u64)).copied().unwrap_or_default();
        if block.len() < 8 {
            continue;
        }
        let version = u64::from_le_bytes(block[..8].try_into().expect("eight bytes"));
        if version > high {
            return Err(format!("block {number} is none that was written"));
        }
        if version < low {
            return Err(format!("block {number} has version {version}, {low} was synced"));
        }
        if *block != history::block(file, number as u64, version)[..block.len()] {
            return Err(format!("block {number}, version {version}, is mixed"));
        }
    }
    Ok(())
}

/// Across writers: what survived started after nothing that is lost had returned [I2].
fn check_order(judged: &[Judged], faults: &mut Vec<String>) {
    for (index, survivor) in judged.iter().enumerate() {
        let Some((fewest @ 1.., _)) = survivor.kept else { continue };
        let last = survivor.changes[fewest - 1].record;
        for (other, lost) in judged.iter().enumerate() {
            let Some((_, most)) = lost.kept else { continue };
            let gone = lost.changes.get(most).map(|change| change.record);
            if let Some(gone) = gone.filter(|gone| gone.done.is_some_and(|done| done < last.begun))
            {
                faults.push(format!(
                    "writer {index} has `{}`, but writer {other} lost `{}`, which had returned before",
                    last.operation, gone.operation
                ));
            }
        }
    }
}

/// Compares `dir` with the log.
pub fn check(dir: &Path, log: &Path) -> Verdict {
    let (records, failures) = history::read_log(log);
    let mut verdict = Verdict { operations: records.len(), ..Verdict::default() };
    verdict
        .faults
        .extend(failures.into_iter().map(|text| format!("failed before the cut: {text}")));
    let numbers: BTreeSet<u64> = records.iter().map(|record| record.writer).collect();
    let is_sync = |record: &&Record| {
        matches!(record.operation, Operation::Fsync { .. } | Operation::FsyncDir { .. })
            && record.done.is_some()
    };
    verdict.synced = records.iter().filter(is_sync).count();
    let writers: Vec<Writer> = numbers
        .into_iter()
        .map(|number| {
            let mut found = BTreeMap::new();
            walk(dir, &format!("w{number}"), &mut found, &mut verdict.faults);
            let records = records.iter().filter(|record| record.writer == number).collect();
            Writer { number, records, found }
        })
        .collect();
    let judged: Vec<Judged> = writers.iter().map(|writer| writer.judge(&mut verdict)).collect();
    for (writer, judged) in writers.iter().zip(&judged) {
        if let Some((fewest, _)) = judged.kept {
            writer.check_data(dir, &judged.changes, fewest, &mut verdict);
        }
    }
    check_order(&judged, &mut verdict.faults);
    verdict
}

/// The inode number of every name below `dir`.
pub fn inodes(dir: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    walk_all(dir, &mut found, &mut Vec::new());
    found.into_iter().map(|(path, entry)| (path, entry.inode)).collect()
}

/// Every name below `dir` with everything that must not change by itself any more [I8].
pub fn listing(dir: &Path) -> Vec<String> {
    let mut found = BTreeMap::new();
    let mut lines = Vec::new();
    walk_all(dir, &mut found, &mut lines);
    for (path, entry) in &found {
        let full = dir.join(path);
        let content = match &entry.node {
            FoundNode::File => match fs::read(&full) {
                Ok(bytes) => format!("{} bytes {:016x}", bytes.len(), digest(&bytes)),
                Err(error) => format!("cannot be read: {error}"),
            },
            FoundNode::Symlink(to) => format!("-> {to}"),
            FoundNode::Directory | FoundNode::Other => String::new(),
        };
        let time =
            fs::symlink_metadata(&full).map_or(0, |m| m.mtime() * 1_000_000_000 + m.mtime_nsec());
        let Found { inode, links, .. } = entry;
        lines.push(format!("{path} inode {inode} links {links} mtime {time} {content}"));
    }
    lines
}

fn walk_all(dir: &Path, found: &mut BTreeMap<String, Found>, faults: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        faults.push(format!("{} cannot be listed", dir.display()));
        return;
    };
    for entry in entries.flatten() {
        walk(dir, &entry.file_name().to_string_lossy(), found, faults);
    }
}

fn digest(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(sum ^ u64::from_le_bytes(word))
    })
}
