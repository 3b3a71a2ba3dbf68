//! [R27] Writers that wait for room do not keep readers waiting.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use isotherm::base::sync::atomic::{AtomicU64, Ordering};
use isotherm::base::sync::{Arc, Condvar, Mutex};
use isotherm::base::{Ino, WallTime};
use isotherm::frontend::file_system::{CopyEnd, FileSystem, FsResult, Handle, OpenMode, WriteMode};
use isotherm::frontend::memory::{Contents, MemoryFileSystem};
use isotherm::namespace::{
    Allocate, Attr, Caller, DirEntry, NewInode, ReadBuffer, RenameMode, Seek, SetAttr, Statfs,
    XattrMode,
};

use crate::harness::{Mounted, memory};

/// A file system whose writes wait until they are let through.
struct Full {
    inner: Arc<MemoryFileSystem>,
    room: Mutex<bool>,
    bell: Condvar,
    waiting: AtomicU64,
}

impl Full {
    fn let_through(&self) {
        *self.room.lock() = true;
        self.bell.notify_all();
    }

    fn wait_for_room(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut room = self.room.lock();
        while !*room {
            room = self.bell.wait(room);
        }
    }
}

macro_rules! forward {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($argument: $kind),*) -> $result {
            self.inner.$name($($argument),*)
        })*
    };
}

impl FileSystem for Full {
    fn write(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        data: &[u8],
        mode: WriteMode,
    ) -> FsResult<u32> {
        self.wait_for_room();
        self.inner.write(ino, handle, offset, data, mode)
    }

    forward! {
        lookup(parent: Ino, name: &[u8]) -> FsResult<Attr>;
        forget(ino: Ino, references: u64) -> ();
        getattr(ino: Ino) -> FsResult<Attr>;
        now() -> WallTime;
        setattr(ino: Ino, handle: Option<Handle>, change: &SetAttr, caller: Caller) -> FsResult<Attr>;
        readlink(ino: Ino) -> FsResult<Vec<u8>>;
        mknod(parent: Ino, name: &[u8], new: &NewInode, caller: Caller) -> FsResult<Attr>;
        mkdir(parent: Ino, name: &[u8], new: &NewInode, caller: Caller) -> FsResult<Attr>;
        unlink(parent: Ino, name: &[u8]) -> FsResult<()>;
        rmdir(parent: Ino, name: &[u8]) -> FsResult<()>;
        symlink(parent: Ino, name: &[u8], target: &[u8], caller: Caller) -> FsResult<Attr>;
        link(ino: Ino, parent: Ino, name: &[u8]) -> FsResult<Attr>;
        rename(parent: Ino, name: &[u8], to: Ino, new_name: &[u8], mode: RenameMode) -> FsResult<()>;
        open(ino: Ino, mode: OpenMode, caller: Caller) -> FsResult<Handle>;
        create(parent: Ino, name: &[u8], new: &NewInode, mode: OpenMode, caller: Caller)
            -> FsResult<(Attr, Handle)>;
        read(ino: Ino, handle: Handle, offset: u64, size: u32, into: &mut ReadBuffer) -> FsResult<()>;
        flush(ino: Ino, handle: Handle) -> FsResult<()>;
        release(ino: Ino, handle: Handle) -> FsResult<()>;
        fsync(ino: Ino, handle: Handle, data_only: bool) -> FsResult<()>;
        opendir(ino: Ino) -> FsResult<Handle>;
        readdir(ino: Ino, handle: Handle, cookie: u64, add: &mut dyn FnMut(&DirEntry) -> bool)
            -> FsResult<()>;
        readdirplus(
            ino: Ino, handle: Handle, cookie: u64, add: &mut dyn FnMut(&DirEntry, &Attr) -> bool
        ) -> FsResult<()>;
        releasedir(ino: Ino, handle: Handle) -> FsResult<()>;
        fsyncdir(ino: Ino, handle: Handle, data_only: bool) -> FsResult<()>;
        statfs() -> FsResult<Statfs>;
        setxattr(ino: Ino, name: &[u8], value: &[u8], mode: XattrMode, caller: Caller)
            -> FsResult<()>;
        getxattr(ino: Ino, name: &[u8], caller: Caller) -> FsResult<Vec<u8>>;
        listxattr(ino: Ino, caller: Caller) -> FsResult<Vec<Vec<u8>>>;
        removexattr(ino: Ino, name: &[u8], caller: Caller) -> FsResult<()>;
        fallocate(
            ino: Ino, handle: Handle, what: Allocate, offset: u64, length: u64, caller: Caller
        ) -> FsResult<()>;
        lseek(ino: Ino, handle: Handle, offset: u64, what: Seek) -> FsResult<u64>;
        copy_file_range(from: CopyEnd, to: CopyEnd, length: u64, caller: Caller) -> FsResult<u64>;
        sync() -> FsResult<()>;
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "many writers are many threads")]
fn readers_go_on_while_all_writers_wait() {
    let full = Arc::new(Full {
        inner: memory(Contents::Kept),
        room: Mutex::new(true),
        bell: Condvar::new(),
        waiting: AtomicU64::new(0),
    });
    let Some(mount) = Mounted::with(full.clone(), |options| options.threads = 5) else { return };
    fs::write(mount.join("readable"), vec![5; 70_000]).expect("write while there is room");
    *full.room.lock() = false;
    let writers: Vec<_> = (0..12u8)
        .map(|number| {
            let path = mount.join(&format!("writer-{number}"));
            // Files made beforehand: it is the writes that wait.
            File::create(&path).expect("create");
            std::thread::spawn(move || {
                let file = File::options().write(true).open(&path).expect("open");
                file.write_all_at(&[number; 9000], 0).expect("write");
            })
        })
        .collect();
    // One of five workers is waiting, the other eleven writes were put aside.
    // The first write, while there was room, counts too.
    let start = std::time::Instant::now();
    while full.waiting.load(Ordering::SeqCst) < 2 && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Past the page cache, so that a worker must answer.
    let reader = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(mount.join("readable"))
        .expect("open");
    let mut first = vec![0; 8192];
    assert_eq!(reader.read_at(&mut first, 0).expect("read"), 8192);
    assert_eq!(first[100], 5);
    assert!(fs::read_dir(mount.path()).expect("list").count() >= 12);
    // And a name can be made while data waits.
    fs::create_dir(mount.join("directory")).expect("mkdir");
    full.let_through();
    for writer in writers {
        writer.join().expect("no writer fails");
    }
    for number in 0..12u8 {
        let bytes = fs::read(mount.join(&format!("writer-{number}"))).expect("read");
        assert_eq!(bytes, vec![number; 9000]);
    }
    drop(reader);
    mount.finish().expect("it ends well");
}
