//! The load: writers that append, overwrite, replace by rename, link, delete and sync, each in a
//! directory of its own, and log each step before and after.
//!
//! It goes on until the pool goes away under it. Failures count as the pool's own fault unless the
//! file `LOG.cut` says that the pool was being cut.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::history::{self, BLOCK, Log, Operation, mix};

/// What the load is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where; is made.
    pub dir: PathBuf,
    /// The log, outside the pool.
    pub log: PathBuf,
    /// Everything random follows from it and the writer's number.
    pub seed: u64,
    /// Writers at once.
    pub writers: u64,
    /// Ends by itself after this.
    pub time_max: Duration,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// Operations that returned success.
    pub operations: u64,
    /// The pool went away, as announced by `LOG.cut`.
    pub cut: bool,
    /// Operations failed without that.
    pub failed: bool,
}

/// Runs until the pool goes away or the time is over.
pub fn run(options: &Options) -> Ended {
    fs::create_dir_all(&options.dir).expect("the load's directory can be made");
    let log = Arc::new(Log::create(&options.log).expect("the log can be made"));
    let stop = Arc::new(AtomicBool::new(false));
    let files = Arc::new(AtomicU64::new(mix(options.seed) >> 32 << 20));
    let end = Instant::now() + options.time_max;
    let threads: Vec<_> = (0..options.writers)
        .map(|number| {
            let mut writer = Writer {
                number,
                random: mix(options.seed ^ mix(number)),
                dir: options.dir.clone(),
                cut_file: cut_file(&options.log),
                log: log.clone(),
                files: files.clone(),
                alive: Vec::new(),
                dirs: Vec::new(),
                names: 0,
                operations: 0,
            };
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut outcome = writer.start();
                while outcome.is_ok() && !stop.load(Ordering::Relaxed) && Instant::now() < end {
                    outcome = writer.step();
                }
                stop.store(true, Ordering::Relaxed);
                (writer.operations, outcome)
            })
        })
        .collect();
    let mut ended = Ended { operations: 0, cut: false, failed: false };
    for thread in threads {
        let (operations, outcome) = thread.join().expect("no writer panics");
        ended.operations += operations;
        match outcome {
            Ok(()) => {}
            Err(End::Cut) => ended.cut = true,
            Err(End::Failed) => ended.failed = true,
        }
    }
    ended
}

/// The file whose presence says that the pool is being cut.
pub fn cut_file(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".cut");
    name.into()
}

/// The files of `create_many` are told apart: `whole` with the file's number over its beginning, and a
/// length that differs from that of its neighbours.
fn one_of_many(whole: &[u8], index: u64) -> Vec<u8> {
    let length = whole.len() - (index % 7).min(whole.len() as u64 / 2) as usize;
    let mut content = whole[..length].to_vec();
    let number = index.to_le_bytes();
    let marked = length.min(number.len());
    content[..marked].copy_from_slice(&number[..marked]);
    content
}

/// Creates `count` files of `bytes` bytes or up to 6 less, a hundred to a directory: the benchmark of small
/// files.
pub fn create_many(dir: &Path, count: u64, bytes: u64) {
    let whole = history::stream(count, 0, bytes as usize);
    for index in 0..count {
        let parent = dir.join(format!("d{}", index / 100));
        if index % 100 == 0 {
            fs::create_dir_all(&parent).expect("a directory can be made");
        }
        let content = one_of_many(&whole, index);
        fs::write(parent.join(format!("f{index}")), content).expect("a file can be written");
    }
}

/// Looks every file of `create_many` up: each name leads to an inode of its own, the one that its directory
/// lists, with the file's length; the directories list exactly these, and every 10th file has its content.
/// Returns what is wrong.
pub fn look_up_many(dir: &Path, count: u64, bytes: u64) -> Vec<String> {
    let whole = history::stream(count, 0, bytes as usize);
    let mut faults = Vec::new();
    let mut inodes = HashMap::new();
    for parent in (0..count.div_ceil(100)).map(|index| dir.join(format!("d{index}"))) {
        let names = match fs::read_dir(&parent) {
            Ok(names) => names,
            Err(error) => {
                faults.push(format!("{}: {error}", parent.display()));
                continue;
            }
        };
        for name in names {
            match name {
                Ok(name) => drop(inodes.insert(name.path(), name.ino())),
                Err(error) => faults.push(format!("{}: {error}", parent.display())),
            }
        }
    }
    if inodes.len() as u64 != count {
        faults.push(format!("{} files are listed, not {count}", inodes.len()));
    }
    let mut seen = HashSet::new();
    for index in 0..count {
        let path = dir.join(format!("d{}/f{index}", index / 100));
        let wanted = one_of_many(&whole, index);
        let fault = match fs::symlink_metadata(&path) {
            Ok(found) if found.len() != wanted.len() as u64 => format!("{} bytes", found.len()),
            Ok(found) if inodes.get(&path) != Some(&found.ino()) => "listed otherwise".to_string(),
            Ok(found) if !seen.insert(found.ino()) => "another file's inode".to_string(),
            Ok(_) if index % 10 == 0 && fs::read(&path).ok() != Some(wanted) => {
                "not what was written".to_string()
            }
            Ok(_) => continue,
            Err(error) => error.to_string(),
        };
        faults.push(format!("{}: {fault}", path.display()));
    }
    faults
}

enum End {
    Cut,
    Failed,
}

#[derive(Clone, Debug)]
struct Alive {
    path: String,
    file: u64,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Stream { length: u64 },
    Blocks { versions: BTreeMap<u64, u64>, count: u64 },
}

struct Writer {
    number: u64,
    random: u64,
    dir: PathBuf,
    cut_file: PathBuf,
    log: Arc<Log>,
    files: Arc<AtomicU64>,
    alive: Vec<Alive>,
    dirs: Vec<String>,
    names: u64,
    operations: u64,
}

type Step = Result<(), End>;

impl Writer {
    fn draw(&mut self, below: u64) -> u64 {
        self.random = mix(self.random);
        self.random % below
    }

    fn run(
        &mut self,
        operation: Operation,
        act: impl FnOnce(&Path) -> io::Result<Option<u64>>,
    ) -> Step {
        let id = self.log.begin(self.number, &operation);
        match act(&self.dir) {
            Ok(inode) => {
                self.log.done(id, inode);
                self.operations += 1;
                Ok(())
            }
            Err(error) => {
                // Whoever cuts announces it first; a moment's grace for a slow disk below the log.
                for _ in 0..20 {
                    if self.cut_file.exists() {
                        return Err(End::Cut);
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
                self.log.failed(id, &error.to_string());
                Err(End::Failed)
            }
        }
    }

    fn start(&mut self) -> Step {
        let top = format!("w{}", self.number);
        self.mkdir(top.clone())?;
        for index in 0..3 {
            self.mkdir(format!("{top}/d{index}"))?;
        }
        self.sync_dir(&top)
    }

    fn mkdir(&mut self, path: String) -> Step {
        let operation = Operation::Mkdir { path: path.clone() };
        self.run(operation, |dir| fs::create_dir(dir.join(&path)).map(|()| None))?;
        self.dirs.push(path);
        Ok(())
    }

    fn new_name(&mut self) -> String {
        let index = self.draw(self.dirs.len() as u64) as usize;
        self.names += 1;
        format!("{}/n{}", self.dirs[index], self.names)
    }

    fn step(&mut self) -> Step {
        if self.alive.len() > 120 {
            return self.delete();
        }
        match self.draw(100) {
            0..18 => self.new_stream().map(|_| ()),
            18..24 => self.new_blocks(),
            24..42 => self.replace(),
            42..54 => self.append(),
            54..74 => self.overwrite(),
            74..80 => self.link_or_symlink(),
            80..86 => self.rename(),
            86..93 => self.delete(),
            93..95 => self.directory(),
            95..98 => self.sync_any_dir(),
            _ => self.sync_any_file(),
        }
    }

    fn length(&mut self) -> u64 {
        match self.draw(40) {
            0 => 0,
            1..15 => 1 + self.draw(3000),
            15..30 => 1 + self.draw(100_000),
            30..39 => 1 + self.draw(3 << 20),
            _ => 1 + self.draw(24 << 20),
        }
    }

    fn create(&mut self) -> Result<(String, u64), End> {
        let path = self.new_name();
        let file = self.files.fetch_add(1, Ordering::Relaxed);
        let operation = Operation::Create { path: path.clone(), file };
        self.run(operation, |dir| {
            let made = OpenOptions::new().write(true).create_new(true).open(dir.join(&path))?;
            Ok(Some(made.metadata()?.ino()))
        })?;
        Ok((path, file))
    }

    /// A new file with content; synced or not. Returns its place in `alive`.
    fn new_stream(&mut self) -> Result<usize, End> {
        let (path, file) = self.create()?;
        self.alive.push(Alive { path, file, kind: Kind::Stream { length: 0 } });
        let index = self.alive.len() - 1;
        let length = self.length();
        self.append_to(index, length)?;
        if self.draw(3) == 0 {
            self.sync_file(index)?;
        }
        Ok(index)
    }

    fn append_to(&mut self, index: usize, length: u64) -> Step {
        let Alive { path, file, kind: Kind::Stream { length: offset } } = self.alive[index].clone()
        else {
            return Ok(());
        };
        let mut at = offset;
        while at < offset + length {
            let part = (offset + length - at).min(1 + self.draw(1 << 20));
            self.run(Operation::Append { file, offset: at, length: part }, |dir| {
                let mut open = OpenOptions::new().append(true).open(dir.join(&path))?;
                open.write_all(&history::stream(file, at, part as usize))?;
                Ok(None)
            })?;
            at += part;
            self.alive[index].kind = Kind::Stream { length: at };
        }
        Ok(())
    }

    fn append(&mut self) -> Step {
        let Some(index) =
            self.pick(|kind| matches!(kind, Kind::Stream { length } if *length < 8 << 20))
        else {
            return Ok(());
        };
        let length = 1 + self.draw(20_000);
        self.append_to(index, length)?;
        if self.draw(2) == 0 { self.sync_file(index) } else { Ok(()) }
    }

    fn new_blocks(&mut self) -> Step {
        let (path, file) = self.create()?;
        let count = 1 + self.draw(512);
        self.run(Operation::Init { file, blocks: count }, |dir| {
            let mut open = OpenOptions::new().write(true).open(dir.join(&path))?;
            for block in 0..count {
                open.write_all(&history::block(file, block, 0))?;
            }
            Ok(None)
        })?;
        self.alive.push(Alive {
            path,
            file,
            kind: Kind::Blocks { versions: BTreeMap::new(), count },
        });
        if self.draw(2) == 0 { self.sync_file(self.alive.len() - 1) } else { Ok(()) }
    }

    fn overwrite(&mut self) -> Step {
        let Some(index) = self.pick(|kind| matches!(kind, Kind::Blocks { .. })) else {
            return Ok(());
        };
        for _ in 0..1 + self.draw(8) {
            let count = match &self.alive[index].kind {
                Kind::Blocks { count, .. } => *count,
                Kind::Stream { .. } => unreachable!("a block file was picked"),
            };
            let block = self.draw(count);
            let Alive { path, file, kind } = &mut self.alive[index];
            let Kind::Blocks { versions, .. } = kind else { unreachable!("still a block file") };
            let version = versions.get(&block).map_or(1, |version| version + 1);
            versions.insert(block, version);
            let (path, file) = (path.clone(), *file);
            self.run(Operation::Write { file, block, version }, |dir| {
                let open = OpenOptions::new().write(true).open(dir.join(&path))?;
                let bytes = history::block(file, block, version);
                open.write_all_at(&bytes, block * BLOCK as u64)?;
                Ok(None)
            })?;
        }
        if self.draw(3) == 0 { self.sync_file(index) } else { Ok(()) }
    }

    /// Write new, perhaps sync, rename over: what editors and databases do.
    fn replace(&mut self) -> Step {
        let source = self.new_stream()?;
        if self.alive.len() < 2 {
            return Ok(());
        }
        let target = self.draw(self.alive.len() as u64 - 1) as usize;
        self.rename_to(source, self.alive[target].path.clone())?;
        if self.draw(3) == 0 { self.sync_dir_of(self.alive.len() - 1) } else { Ok(()) }
    }

    fn rename(&mut self) -> Step {
        let Some(index) = self.pick(|_| true) else { return Ok(()) };
        let to = self.new_name();
        self.rename_to(index, to)
    }

    /// Renames, and forgets whoever had the name; the renamed one becomes the last of `alive`.
    fn rename_to(&mut self, index: usize, to: String) -> Step {
        let from = self.alive[index].path.clone();
        let operation = Operation::Rename { from: from.clone(), to: to.clone() };
        self.run(operation, |dir| fs::rename(dir.join(&from), dir.join(&to)).map(|()| None))?;
        let mut moved = self.alive[index].clone();
        self.alive.retain(|alive| alive.path != from && alive.path != to);
        moved.path = to;
        self.alive.push(moved);
        Ok(())
    }

    fn link_or_symlink(&mut self) -> Step {
        let Some(index) = self.pick(|_| true) else { return Ok(()) };
        let from = self.alive[index].path.clone();
        let to = self.new_name();
        if self.draw(3) == 0 {
            let operation = Operation::Symlink { path: to.clone(), to: from.clone() };
            return self.run(operation, |dir| {
                std::os::unix::fs::symlink(&from, dir.join(&to)).map(|()| None)
            });
        }
        let operation = Operation::Link { from: from.clone(), to: to.clone() };
        self.run(operation, |dir| fs::hard_link(dir.join(&from), dir.join(&to)).map(|()| None))
    }

    fn delete(&mut self) -> Step {
        let Some(index) = self.pick(|_| true) else { return Ok(()) };
        let path = self.alive.swap_remove(index).path;
        let operation = Operation::Unlink { path: path.clone() };
        self.run(operation, |dir| fs::remove_file(dir.join(&path)).map(|()| None))?;
        if self.draw(4) == 0 {
            let parent = path.rsplit_once('/').expect("files lie in directories").0.to_string();
            self.sync_dir(&parent)?;
        }
        Ok(())
    }

    /// Makes a directory, or makes and removes one.
    fn directory(&mut self) -> Step {
        self.names += 1;
        let path = format!("w{}/e{}", self.number, self.names);
        self.mkdir(path.clone())?;
        if self.draw(2) == 0 {
            self.dirs.pop();
            let operation = Operation::Rmdir { path: path.clone() };
            self.run(operation, |dir| fs::remove_dir(dir.join(&path)).map(|()| None))?;
        }
        Ok(())
    }

    fn pick(&mut self, fits: impl Fn(&Kind) -> bool) -> Option<usize> {
        let fitting: Vec<usize> =
            (0..self.alive.len()).filter(|&index| fits(&self.alive[index].kind)).collect();
        if fitting.is_empty() {
            return None;
        }
        Some(fitting[self.draw(fitting.len() as u64) as usize])
    }

    fn sync_file(&mut self, index: usize) -> Step {
        let Alive { path, file, .. } = self.alive[index].clone();
        let data_only = self.draw(2) == 0;
        self.run(Operation::Fsync { file }, |dir| {
            let open = OpenOptions::new().write(true).open(dir.join(&path))?;
            if data_only {
                open.sync_data()?
            } else {
                open.sync_all()?
            }
            Ok(None)
        })
    }

    fn sync_any_file(&mut self) -> Step {
        self.pick(|_| true).map_or(Ok(()), |index| self.sync_file(index))
    }

    fn sync_dir(&mut self, path: &str) -> Step {
        let operation = Operation::FsyncDir { path: path.to_string() };
        self.run(operation, |dir| File::open(dir.join(path))?.sync_all().map(|()| None))
    }

    fn sync_dir_of(&mut self, index: usize) -> Step {
        let path = &self.alive[index].path;
        let parent = path.rsplit_once('/').expect("files lie in directories").0.to_string();
        self.sync_dir(&parent)
    }

    fn sync_any_dir(&mut self) -> Step {
        let index = self.draw(self.dirs.len() as u64) as usize;
        let path = self.dirs[index].clone();
        self.sync_dir(&path)
    }
}
