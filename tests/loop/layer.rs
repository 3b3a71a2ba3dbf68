//! A file layer with a volatile write cache, to put loop devices on: what a disk with its cache
//! on does at a power cut.
//!
//! It shows each FILE as `diskN` in the mount point. Writes stay in memory, and reach FILE in no
//! particular order: all at an fsync (the loop device's FLUSH), some earlier, drawn at random. Killing
//! the layer is the power cut: what is not in FILE is gone. Two files in the control directory
//! break a disk while they exist: `diskN.hang-read` and `diskN.hang-flush` keep those requests
//! without an answer until the layer ends. `--lie` answers FLUSH without carrying it out: the
//! planted fault that every crash test must find.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::history::mix;

const PAGE: u64 = 4096;
/// Dirty pages a disk keeps before it destages some by itself: 16 MiB, as small drives do.
const PAGES_MAX: usize = 4096;
const TTL: Duration = Duration::from_secs(3600);

/// One disk: the platter, and the cache that a power cut loses.
struct Disk {
    platter: File,
    bytes: u64,
    cache: BTreeMap<u64, Vec<u8>>,
    random: u64,
}

impl Disk {
    fn read(&self, offset: u64, length: u64) -> std::io::Result<Vec<u8>> {
        let end = (offset + length).min(self.bytes);
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        self.platter.read_exact_at(&mut bytes, offset)?;
        for (&page, content) in self.cache.range(offset / PAGE..end.div_ceil(PAGE)) {
            let start = (page * PAGE).max(offset);
            let stop = ((page + 1) * PAGE).min(end);
            let source = &content[(start - page * PAGE) as usize..(stop - page * PAGE) as usize];
            bytes[(start - offset) as usize..(stop - offset) as usize].copy_from_slice(source);
        }
        Ok(bytes)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let mut at = offset;
        let end = offset + data.len() as u64;
        while at < end {
            let page = at / PAGE;
            let stop = ((page + 1) * PAGE).min(end);
            if !self.cache.contains_key(&page) {
                let content = self.read(page * PAGE, PAGE)?;
                self.cache.insert(page, content);
            }
            let content = self.cache.get_mut(&page).expect("it was just put there");
            content[(at - page * PAGE) as usize..(stop - page * PAGE) as usize]
                .copy_from_slice(&data[(at - offset) as usize..(stop - offset) as usize]);
            at = stop;
        }
        // A real drive destages when it likes: one page in a while, half of them when full.
        self.random = mix(self.random);
        let some =
            if self.cache.len() > PAGES_MAX { PAGES_MAX / 2 } else { self.random as usize % 2 };
        for _ in 0..some {
            self.destage_one()?;
        }
        Ok(())
    }

    fn destage_one(&mut self) -> std::io::Result<()> {
        self.random = mix(self.random);
        let from = self.random % (self.bytes / PAGE);
        let page =
            self.cache.range(from..).next().or(self.cache.iter().next()).map(|(page, _)| *page);
        if let Some(content) = page.and_then(|page| self.cache.remove(&page)) {
            self.platter.write_all_at(&content, page.expect("it was found") * PAGE)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        for (page, content) in std::mem::take(&mut self.cache) {
            self.platter.write_all_at(&content, page * PAGE)?;
        }
        Ok(())
    }
}

struct Layer {
    disks: Vec<Mutex<Disk>>,
    control: PathBuf,
    lie: bool,
    hung_reads: Mutex<Vec<ReplyData>>,
    hung_flushes: Mutex<Vec<ReplyEmpty>>,
}

impl Layer {
    fn attr(&self, ino: u64) -> FileAttr {
        let bytes = match ino {
            1 => 0,
            _ => self.disks[ino as usize - 2].lock().unwrap().bytes,
        };
        FileAttr {
            ino: INodeNo(ino),
            size: bytes,
            blocks: bytes / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if ino == 1 { FileType::Directory } else { FileType::RegularFile },
            perm: if ino == 1 { 0o755 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: PAGE as u32,
            flags: 0,
        }
    }

    fn known(&self, ino: u64) -> bool {
        ino >= 1 && (ino as usize) < self.disks.len() + 2
    }

    fn hangs(&self, ino: u64, what: &str) -> bool {
        self.control.join(format!("disk{}.hang-{what}", ino - 2)).exists()
    }
}

impl Filesystem for Layer {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = name.to_str().and_then(|name| name.strip_prefix("disk")?.parse::<u64>().ok());
        match number.filter(|number| self.known(number + 2)) {
            Some(number) => reply.entry(&TTL, &self.attr(number + 2), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.known(ino.0) {
            true => reply.attr(&TTL, &self.attr(ino.0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.attr(&TTL, &self.attr(ino.0));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if self.hangs(ino.0, "read") {
            return self.hung_reads.lock().unwrap().push(reply);
        }
        match self.disks[ino.0 as usize - 2].lock().unwrap().read(offset, size.into()) {
            Ok(bytes) => reply.data(&bytes),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.disks[ino.0 as usize - 2].lock().unwrap().write(offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if self.hangs(ino.0, "flush") {
            return self.hung_flushes.lock().unwrap().push(reply);
        }
        if self.lie {
            return reply.ok();
        }
        match self.disks[ino.0 as usize - 2].lock().unwrap().flush() {
            Ok(()) => reply.ok(),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        for number in offset..self.disks.len() as u64 {
            let name = format!("disk{number}");
            if reply.add(INodeNo(number + 2), number + 1, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }
}

/// `loop layer --mount DIR --control DIR [--lie] FILE...`; runs until it is killed or unmounted.
pub fn run(arguments: &[String]) -> ExitCode {
    let mount = super::path(arguments, "--mount");
    let control = super::path(arguments, "--control");
    let lie = arguments.iter().any(|argument| argument == "--lie");
    let options = 4 + usize::from(lie);
    let disks = arguments[options..]
        .iter()
        .enumerate()
        .map(|(index, path)| {
            let platter =
                OpenOptions::new().read(true).write(true).open(path).expect("a disk file");
            let bytes = platter.metadata().expect("its size").len();
            let random = mix(index as u64 ^ bytes ^ u64::from(std::process::id()));
            Mutex::new(Disk { platter, bytes, cache: BTreeMap::new(), random })
        })
        .collect();
    let layer =
        Layer { disks, control, lie, hung_reads: Mutex::default(), hung_flushes: Mutex::default() };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("disk-layer".to_string())];
    config.n_threads = Some(4);
    match fuser::mount(layer, &mount, &config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("layer: {}: {error}", mount.display());
            ExitCode::FAILURE
        }
    }
}
