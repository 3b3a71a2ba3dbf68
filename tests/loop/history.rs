//! What the load does, as lines of a log, and the content its files have.
//!
//! The log lies outside the pool. A line `B id writer operation` is written before an operation
//! starts, `D id [inode]` after it returned success. The order of lines is the clock: what has its
//! D before another's B happened before it. Every byte of a file follows from the file's number, so
//! mixed, shifted and foreign data are told apart from the right ones.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Mutex;

/// Bytes of one block of a block file.
pub const BLOCK: usize = 4096;

/// An operation of the load. Paths are relative to the load's directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Creates an empty file with a number never used before.
    Create { path: String, file: u64 },
    /// Renames, replacing what is there.
    Rename { from: String, to: String },
    /// Makes a second name.
    Link { from: String, to: String },
    /// Removes a name.
    Unlink { path: String },
    /// Makes a directory.
    Mkdir { path: String },
    /// Removes an empty directory.
    Rmdir { path: String },
    /// Makes a symbolic link to `to`.
    Symlink { path: String, to: String },
    /// Appends bytes of the file's stream.
    Append { file: u64, offset: u64, length: u64 },
    /// Writes all blocks of a block file, in version 0.
    Init { file: u64, blocks: u64 },
    /// Overwrites one block.
    Write { file: u64, block: u64, version: u64 },
    /// fsync of a file.
    Fsync { file: u64 },
    /// fsync of a directory.
    FsyncDir { path: String },
}

impl Operation {
    /// Whether it is part of the namespace's history.
    pub fn is_namespace(&self) -> bool {
        use Operation::*;
        match self {
            Create { .. } | Rename { .. } | Link { .. } | Unlink { .. } => true,
            Mkdir { .. } | Rmdir { .. } | Symlink { .. } => true,
            Append { .. } | Init { .. } | Write { .. } | Fsync { .. } | FsyncDir { .. } => false,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Create { path, file } => write!(f, "create {path} {file}"),
            Operation::Rename { from, to } => write!(f, "rename {from} {to}"),
            Operation::Link { from, to } => write!(f, "link {from} {to}"),
            Operation::Unlink { path } => write!(f, "unlink {path}"),
            Operation::Mkdir { path } => write!(f, "mkdir {path}"),
            Operation::Rmdir { path } => write!(f, "rmdir {path}"),
            Operation::Symlink { path, to } => write!(f, "symlink {path} {to}"),
            Operation::Append { file, offset, length } => {
                write!(f, "append {file} {offset} {length}")
            }
            Operation::Init { file, blocks } => write!(f, "init {file} {blocks}"),
            Operation::Write { file, block, version } => {
                write!(f, "write {file} {block} {version}")
            }
            Operation::Fsync { file } => write!(f, "fsync {file}"),
            Operation::FsyncDir { path } => write!(f, "fsyncdir {path}"),
        }
    }
}

impl Operation {
    /// The inverse of `Display`.
    pub fn parse(words: &[&str]) -> Option<Operation> {
        let text = |index: usize| words.get(index).map(|word| word.to_string());
        let number = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
        Some(match *words.first()? {
            "create" => Operation::Create { path: text(1)?, file: number(2)? },
            "rename" => Operation::Rename { from: text(1)?, to: text(2)? },
            "link" => Operation::Link { from: text(1)?, to: text(2)? },
            "unlink" => Operation::Unlink { path: text(1)? },
            "mkdir" => Operation::Mkdir { path: text(1)? },
            "rmdir" => Operation::Rmdir { path: text(1)? },
            "symlink" => Operation::Symlink { path: text(1)?, to: text(2)? },
            "append" => {
                Operation::Append { file: number(1)?, offset: number(2)?, length: number(3)? }
            }
            "init" => Operation::Init { file: number(1)?, blocks: number(2)? },
            "write" => {
                Operation::Write { file: number(1)?, block: number(2)?, version: number(3)? }
            }
            "fsync" => Operation::Fsync { file: number(1)? },
            "fsyncdir" => Operation::FsyncDir { path: text(1)? },
            _ => return None,
        })
    }
}

/// The log as it is written. A line is one write(2): the log survives the daemon, not the host.
pub struct Log {
    file: Mutex<(File, u64)>,
}

impl Log {
    /// Creates the log.
    pub fn create(path: &std::path::Path) -> io::Result<Log> {
        Ok(Log { file: Mutex::new((File::create(path)?, 0)) })
    }

    /// The operation is about to start; returns its number.
    pub fn begin(&self, writer: u64, operation: &Operation) -> u64 {
        let mut file = self.file.lock().unwrap();
        file.1 += 1;
        let id = file.1;
        file.0.write_all(format!("B {id} {writer} {operation}\n").as_bytes()).unwrap();
        id
    }

    /// The operation returned success.
    pub fn done(&self, id: u64, inode: Option<u64>) {
        let line = match inode {
            Some(inode) => format!("D {id} {inode}\n"),
            None => format!("D {id}\n"),
        };
        self.file.lock().unwrap().0.write_all(line.as_bytes()).unwrap();
    }

    /// An operation failed though nothing had been done to the pool.
    pub fn failed(&self, id: u64, why: &str) {
        let line = format!("X {id} {why}\n");
        self.file.lock().unwrap().0.write_all(line.as_bytes()).unwrap();
    }
}

/// One operation as the log tells it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Who did it.
    pub writer: u64,
    /// What.
    pub operation: Operation,
    /// Line of its start.
    pub begun: usize,
    /// Line of its success, if it came to that.
    pub done: Option<usize>,
    /// The inode it made, if it made one and returned.
    pub inode: Option<u64>,
}

/// Reads a log: its operations in the order of their starts, and the failures it tells of.
pub fn read_log(path: &std::path::Path) -> (Vec<Record>, Vec<String>) {
    let text = std::fs::read_to_string(path).expect("the log can be read");
    let mut records: Vec<Record> = Vec::new();
    let mut failures = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let words: Vec<&str> = text.split(' ').collect();
        let id: usize = words[1].parse().expect("the second word is the operation's number");
        match words[0] {
            "B" => {
                assert_eq!(id, records.len() + 1, "operations are numbered from 1");
                records.push(Record {
                    writer: words[2].parse().expect("the third word is the writer"),
                    operation: Operation::parse(&words[3..]).expect("an operation"),
                    begun: line,
                    done: None,
                    inode: None,
                });
            }
            "D" => {
                records[id - 1].done = Some(line);
                records[id - 1].inode = words.get(2).map(|word| word.parse().expect("an inode"));
            }
            _ => failures.push(format!("{text} ({})", records[id - 1].operation)),
        }
    }
    (records, failures)
}

/// splitmix64: a good mixer in three lines.
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Bytes `offset..offset + length` of the stream of `file`.
pub fn stream(file: u64, offset: u64, length: usize) -> Vec<u8> {
    let first = offset / 8;
    let last = (offset + length as u64).div_ceil(8);
    let mut bytes = Vec::with_capacity(((last - first) * 8) as usize);
    for word in first..last {
        bytes.extend_from_slice(&mix(mix(file) ^ word).to_le_bytes());
    }
    let skip = (offset % 8) as usize;
    bytes[skip..skip + length].to_vec()
}

/// A block of a block file: its version, then a stream of file, block and version.
pub fn block(file: u64, block: u64, version: u64) -> Vec<u8> {
    let mut bytes = version.to_le_bytes().to_vec();
    bytes.extend(stream(mix(file) ^ mix(block << 20 ^ version), 0, BLOCK - 8));
    bytes
}
