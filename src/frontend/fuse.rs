//! FUSE: decode, call, reply. The only file that names fuser.
//!
//! Thin on purpose: what an operation means is the [`FileSystem`]'s, which number an error has is
//! `errno.rs`'s, how the mount comes about is `session.rs`'s. What is decided here is what the kernel
//! may cache and which of its abilities are used:
//!
//! * names, absent names and attributes for an hour, file contents for as long as it likes: all
//!   changes come through this mount. `AUTO_INVAL_DATA` stays off (it drops the page cache whenever
//!   the daemon's own mtime moves), and so do `FLOCK_LOCKS` and `POSIX_LOCKS`: locks are the kernel's.
//! * suid, sgid and capabilities are cleared by the daemon. With version 2 of that agreement the
//!   kernel says with each write whether to, and need not ask for `security.capability` before each
//!   one. fuser does not pass on the same bit of truncate and open: there the caller decides (not root).
//! * a name's umask is applied by the daemon (`DONT_MASK`), which knows about default ACLs.
//! * `ATOMIC_O_TRUNC` stays off: with it the kernel lets open(O_TRUNC) cut a running program's file,
//!   and says ETXTBSY afterwards. Without it, it looks first and then asks for the cut.
//! * close sends no FLUSH: errors come at write and fsync [I7].
//!
//! Requests that change something pass the [`Gate`], so that two workers never wait for room [R27].

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, Config, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType,
    Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner,
    MountOption, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, Session,
    SessionACL, TimeOrNow, WriteFlags,
};

use super::decode::{
    CACHE_TIME, allocate_of, cache_time, kind_of, no_inode, open_mode_of, seek_of, system_time,
    wall_time, xattr_mode_of,
};
use super::errno::{NO_SUCH_IOCTL, NOT_IMPLEMENTED, errno_of, errno_of_seek};
use super::file_system::{CopyEnd, FileSystem, Handle, WriteMode};
use super::gate::Gate;
use super::gate::Waits::{self, Data, Names};
use super::session::{MountOptions, max_write_bytes};
use crate::base::sync::Arc;
use crate::base::units::MIB;
use crate::base::{Ino, UNIT_BYTES};
use crate::namespace::{
    Attr, Caller, FileKind, NamespaceError, NewInode, ReadBuffer, RenameMode, SetAttr, SetTime,
};

/// Inode numbers are never reused [R5], so one generation is enough.
const GENERATION: Generation = Generation(0);

/// A mounted session before its workers run.
pub(super) struct Transport {
    session: Session<Kernel>,
}

impl Transport {
    /// Takes over `device`, a `/dev/fuse` that was mounted, and agrees with the kernel on its use.
    pub(super) fn from_device(
        fs: Arc<dyn FileSystem>,
        device: OwnedFd,
        options: &MountOptions,
    ) -> io::Result<Transport> {
        let acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        let session =
            Session::from_fd(Kernel::new(fs, options), device, acl, config_of(options, acl))?;
        Ok(Transport { session })
    }

    /// Mounts through fusermount3, for users without the right to mount.
    pub(super) fn by_fusermount(
        fs: Arc<dyn FileSystem>,
        mountpoint: &Path,
        options: &MountOptions,
    ) -> io::Result<Transport> {
        let acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        let session = Session::new(Kernel::new(fs, options), mountpoint, &config_of(options, acl))?;
        Ok(Transport { session })
    }

    /// Answers requests until the file system is unmounted.
    pub(super) fn run(self) -> io::Result<()> {
        self.session.run()
    }
}

fn config_of(options: &MountOptions, acl: SessionACL) -> Config {
    let mut config = Config::default();
    config.acl = acl;
    config.n_threads = Some(options.threads.max(1));
    config.mount_options = vec![
        MountOption::FSName(options.source.clone()),
        MountOption::Subtype(super::session::SUBTYPE.to_string()),
        MountOption::DefaultPermissions,
        if options.read_only { MountOption::RO } else { MountOption::RW },
    ];
    if options.no_exec {
        config.mount_options.push(MountOption::NoExec);
    }
    if options.no_atime {
        config.mount_options.push(MountOption::NoAtime);
    }
    config
}

/// The kernel's view of a [`FileSystem`].
struct Kernel {
    fs: Arc<dyn FileSystem>,
    gate: Arc<Gate>,
    max_background: u16,
    writeback: bool,
}

impl Kernel {
    fn new(fs: Arc<dyn FileSystem>, options: &MountOptions) -> Kernel {
        Kernel {
            fs,
            gate: Arc::new(Gate::new(options.threads)),
            max_background: options.max_background,
            writeback: options.writeback,
        }
    }

    /// Carries out a request that may have to wait for room, through the gate [R27].
    fn change(&self, waits: Waits, work: impl FnOnce(&dyn FileSystem) + Send + 'static) {
        let Some(_permit) = self.gate.enter(waits) else {
            let fs = self.fs.clone();
            return self.gate.run_or_queue(waits, 0, Box::new(move || work(&*fs)));
        };
        work(&*self.fs);
    }

    fn abilities(&self) -> InitFlags {
        let mut flags = InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_HANDLE_KILLPRIV
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2;
        if self.writeback {
            flags |= InitFlags::FUSE_WRITEBACK_CACHE;
        }
        flags
    }
}

thread_local! {
    /// Reused by each worker for every read: pages that are touched once, not once a request.
    static READ_BUFFER: std::cell::RefCell<ReadBuffer> = std::cell::RefCell::default();
}

impl Filesystem for Kernel {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for (_, ability) in self.abilities().iter_names() {
            if config.add_capabilities(ability).is_err() {
                log::debug!("this kernel lacks {ability:?}");
            }
        }
        // The bounds of these setters are wider than what is asked for, whatever the kernel.
        let _ = config.set_max_write(max_write_bytes());
        let _ = config.set_max_background(self.max_background);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.fs.lookup(ino(parent), name.as_bytes()) {
            Ok(attr) => reply.entry(&CACHE_TIME, &attr_out(&attr), GENERATION),
            // Inode 0: "no such name", to be remembered.
            Err(NamespaceError::NotFound) => {
                reply.entry(&CACHE_TIME, &attr_out(&no_inode()), GENERATION)
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn forget(&self, _: &Request, inode: INodeNo, references: u64) {
        self.fs.forget(ino(inode), references);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply_attr(&*self.fs, self.fs.getattr(ino(inode)), reply);
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = SetAttr {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(time_to_set),
            mtime: mtime.map(time_to_set),
        };
        let (caller, handle) = (caller(request), handle.map(handle_in));
        self.change(Names, move |fs| {
            reply_attr(fs, fs.setattr(ino(inode), handle, &change, caller), reply);
        });
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        match self.fs.readlink(ino(inode)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let Some(kind) = kind_of(mode) else {
            return reply.error(errno(&NamespaceError::Invalid));
        };
        let new = NewInode { kind, mode: mode & 0o7777, umask, rdev };
        let (caller, name) = (caller(request), name.as_bytes().to_vec());
        self.change(Names, move |fs| {
            reply_entry(fs.mknod(ino(parent), &name, &new, caller), reply)
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let new = NewInode { kind: FileKind::Directory, mode: mode & 0o7777, umask, rdev: 0 };
        let (caller, name) = (caller(request), name.as_bytes().to_vec());
        self.change(Names, move |fs| {
            reply_entry(fs.mkdir(ino(parent), &name, &new, caller), reply)
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.change(Names, move |fs| reply_empty(fs.unlink(ino(parent), &name), reply));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.change(Names, move |fs| reply_empty(fs.rmdir(ino(parent), &name), reply));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (caller, name) = (caller(request), name.as_bytes().to_vec());
        let target = target.as_os_str().as_bytes().to_vec();
        self.change(Names, move |fs| {
            reply_entry(fs.symlink(ino(parent), &name, &target, caller), reply)
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = if flags.is_empty() {
            RenameMode::Replace
        } else if flags == RenameFlags::RENAME_NOREPLACE {
            RenameMode::NoReplace
        } else if flags == RenameFlags::RENAME_EXCHANGE {
            RenameMode::Exchange
        } else {
            return reply.error(errno(&NamespaceError::Invalid));
        };
        let (name, new_name) = (name.as_bytes().to_vec(), new_name.as_bytes().to_vec());
        self.change(Names, move |fs| {
            reply_empty(fs.rename(ino(parent), &name, ino(new_parent), &new_name, mode), reply);
        });
    }

    fn link(
        &self,
        _: &Request,
        inode: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let name = new_name.as_bytes().to_vec();
        self.change(Names, move |fs| {
            reply_entry(fs.link(ino(inode), ino(new_parent), &name), reply)
        });
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (mode, caller) = (open_mode_of(flags.0), caller(request));
        let work = move |fs: &dyn FileSystem| match fs.open(ino(inode), mode, caller) {
            Ok(handle) => reply.opened(FileHandle(handle.0), open_answer()),
            Err(error) => reply.error(errno(&error)),
        };
        if mode.truncate { self.change(Names, work) } else { work(&*self.fs) }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let new = NewInode { kind: FileKind::File, mode: mode & 0o7777, umask, rdev: 0 };
        let (caller, name) = (caller(request), name.as_bytes().to_vec());
        self.change(Names, move |fs| {
            match fs.create(ino(parent), &name, &new, open_mode_of(flags), caller) {
                Ok((attr, handle)) => reply.created(
                    &CACHE_TIME,
                    &attr_out(&attr),
                    GENERATION,
                    FileHandle(handle.0),
                    open_answer(),
                ),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        READ_BUFFER.with_borrow_mut(|buffer| {
            match self.fs.read(ino(inode), handle_in(handle), offset, size, buffer) {
                Ok(()) => {
                    let bytes = buffer.bytes();
                    reply.data(&bytes[..bytes.len().min(size as usize)]);
                }
                Err(error) => reply.error(errno(&error)),
            }
            buffer.clear(2 * MIB as usize);
        });
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mode = WriteMode {
            kill_privileges: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            append: open_mode_of(flags.0).append,
            from_cache: write_flags.contains(WriteFlags::FUSE_WRITE_CACHE),
        };
        let (inode, handle) = (ino(inode), handle_in(handle));
        let finish = move |result, reply: ReplyWrite| match result {
            Ok(bytes) => reply.written(bytes),
            Err(error) => reply.error(errno(&error)),
        };
        if let Some(_permit) = self.gate.enter(Data) {
            return finish(self.fs.write(inode, handle, offset, data, mode), reply);
        }
        // No permit: the data leaves the worker's buffer, so that the worker can go on.
        let (fs, data) = (self.fs.clone(), data.to_vec());
        self.gate.run_or_queue(
            Data,
            data.len(),
            Box::new(move || finish(fs.write(inode, handle, offset, &data, mode), reply)),
        );
    }

    fn flush(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.change(Data, move |fs| reply_empty(fs.flush(ino(inode), handle_in(handle)), reply));
    }

    fn release(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        reply_empty(self.fs.release(ino(inode), handle_in(handle)), reply);
    }

    fn fsync(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.change(Data, move |fs| {
            reply_empty(fs.fsync(ino(inode), handle_in(handle), data_only), reply);
        });
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.fs.opendir(ino(inode)) {
            Ok(handle) => reply.opened(FileHandle(handle.0), FopenFlags::empty()),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let result = self.fs.readdir(ino(inode), handle_in(handle), offset, &mut |entry| {
            let name = OsStr::from_bytes(&entry.name);
            !reply.add(INodeNo(entry.ino.0), entry.cookie, file_type(entry.kind), name)
        });
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let result =
            self.fs.readdirplus(ino(inode), handle_in(handle), offset, &mut |entry, attr| {
                let name = OsStr::from_bytes(&entry.name);
                let attr = attr_out(attr);
                !reply.add(INodeNo(entry.ino.0), entry.cookie, name, &CACHE_TIME, &attr, GENERATION)
            });
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        reply_empty(self.fs.releasedir(ino(inode), handle_in(handle)), reply);
    }

    fn fsyncdir(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.change(Data, move |fs| {
            reply_empty(fs.fsyncdir(ino(inode), handle_in(handle), data_only), reply);
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.fs.statfs() {
            Ok(numbers) => {
                let unit = UNIT_BYTES as u32;
                let available = numbers.available_bytes / UNIT_BYTES;
                reply.statfs(
                    numbers.total_bytes / UNIT_BYTES,
                    numbers.free_bytes / UNIT_BYTES,
                    available,
                    // Inodes have no limit of their own: as many as the free room has units.
                    numbers.inodes + available,
                    available,
                    unit,
                    crate::base::limits::NAME_BYTES_MAX as u32,
                    unit,
                );
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let mode = xattr_mode_of(flags);
        let (caller, name, value) = (caller(request), name.as_bytes().to_vec(), value.to_vec());
        self.change(Names, move |fs| {
            reply_empty(fs.setxattr(ino(inode), &name, &value, mode, caller), reply);
        });
    }

    fn getxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        match self.fs.getxattr(ino(inode), name.as_bytes(), caller(request)) {
            Ok(value) => reply_sized(&value, size, reply),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        match self.fs.listxattr(ino(inode), caller(request)) {
            Ok(names) => {
                let mut list = Vec::new();
                for name in names {
                    list.extend_from_slice(&name);
                    list.push(0);
                }
                reply_sized(&list, size, reply);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn removexattr(&self, request: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (caller(request), name.as_bytes().to_vec());
        self.change(Names, move |fs| reply_empty(fs.removexattr(ino(inode), &name, caller), reply));
    }

    fn fallocate(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some(what) = allocate_of(mode) else {
            return reply.error(errno(&NamespaceError::Unsupported));
        };
        let caller = caller(request);
        self.change(Data, move |fs| {
            let done = fs.fallocate(ino(inode), handle_in(handle), what, offset, length, caller);
            reply_empty(done, reply);
        });
    }

    fn lseek(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Some(what) = seek_of(whence) else {
            return reply.error(errno(&NamespaceError::Invalid));
        };
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(Errno::from_i32(errno_of_seek(&NamespaceError::NoData)));
        };
        match self.fs.lseek(ino(inode), handle_in(handle), offset, what) {
            Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Err(error) => reply.error(Errno::from_i32(errno_of_seek(&error))),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        ino_in: INodeNo,
        handle_from: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        handle_to: FileHandle,
        offset_out: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let from = CopyEnd { ino: ino(ino_in), handle: handle_in(handle_from), offset: offset_in };
        let to = CopyEnd { ino: ino(ino_out), handle: handle_in(handle_to), offset: offset_out };
        // The reply counts in 32 bits.
        let length = length.min(u64::from(u32::MAX) & !(UNIT_BYTES - 1));
        let caller = caller(request);
        self.change(Data, move |fs| match fs.copy_file_range(from, to, length, caller) {
            Ok(copied) => reply.written(u32::try_from(copied).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(&error)),
        });
    }

    // What follows never gets to a file system; the library's own answers would log each time.

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::from_i32(NOT_IMPLEMENTED));
    }

    fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: ReplyBmap) {
        reply.error(Errno::from_i32(NOT_IMPLEMENTED));
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::from_i32(NO_SUCH_IOCTL));
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::from_i32(NOT_IMPLEMENTED));
    }
}

fn errno(error: &NamespaceError) -> Errno {
    Errno::from_i32(errno_of(error))
}

fn ino(inode: INodeNo) -> Ino {
    Ino(inode.0)
}

fn handle_in(handle: FileHandle) -> Handle {
    Handle(handle.0)
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid() }
}

fn reply_empty(result: Result<(), NamespaceError>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

/// What a directory was just before a change may reach the kernel after it, which would keep it.
fn reply_attr(fs: &dyn FileSystem, result: Result<Attr, NamespaceError>, reply: ReplyAttr) {
    match result {
        Ok(attr) => reply.attr(&cache_time(&attr, fs.now()), &attr_out(&attr)),
        Err(error) => reply.error(errno(&error)),
    }
}

fn reply_entry(result: Result<Attr, NamespaceError>, reply: ReplyEntry) {
    match result {
        Ok(attr) => reply.entry(&CACHE_TIME, &attr_out(&attr), GENERATION),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Size 0 asks how long the value is.
fn reply_sized(value: &[u8], size: u32, reply: ReplyXattr) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > size as usize {
        reply.error(errno(&NamespaceError::Range));
    } else {
        reply.data(value);
    }
}

fn open_answer() -> FopenFlags {
    FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH
}

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
    }
}

fn attr_out(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.btime),
        kind: file_type(attr.kind),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: UNIT_BYTES as u32,
        flags: 0,
    }
}

fn time_to_set(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(wall_time(time)),
    }
}
