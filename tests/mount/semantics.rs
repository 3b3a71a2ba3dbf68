//! What docs/semantics.md promises, on pools behind real mounts. Each test quotes what it is about.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use isotherm::fleet::disk::Buffer;
use isotherm::frontend::memory::Contents;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{Shelf, said, wait_for};
use crate::harness::{is_root, memory};
use crate::mounted;

const MIB: usize = 1 << 20;

/// A pool that is mounted.
pub fn pool() -> Option<Shelf> {
    let shelf = Shelf::new();
    shelf.create();
    shelf.mount().then_some(shelf)
}

fn kill_daemon(shelf: &Shelf) {
    let pid = shelf.status().1["pid"].as_u64().expect("a number");
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("it is ours");
    wait_for(|| nix::sys::statfs::statfs(&shelf.mountpoint()).is_err());
}

/// Calls that the standard library does not offer, made by a program that is given `path`.
pub fn python(program: &str, path: &Path) {
    let done = Command::new("python3").args(["-c", program]).arg(path).output();
    let done = done.expect("python3 is needed for this test: install it");
    assert!(done.status.success(), "{}", said(&done));
}

fn number<T: std::fmt::Debug>(result: std::io::Result<T>) -> Errno {
    Errno::from_raw(result.expect_err("it is refused").raw_os_error().expect("by the kernel"))
}

/// docs/semantics.md: "After `fsync` or `fdatasync` returns, after a write to a file opened with O_SYNC or O_DSYNC"
#[test]
fn what_was_synced_outlives_the_daemon_and_two_disks() {
    let Some(shelf) = pool() else { return };
    let at = |name: &str| shelf.mountpoint().join(name);
    let content = |fill: u8| vec![fill; 3 * MIB + 17];
    for (fill, name) in [(1, "fsync"), (2, "fdatasync")] {
        let mut file = File::create(at(name)).expect("create");
        file.write_all(&content(fill)).expect("write");
        if fill == 1 { file.sync_all() } else { file.sync_data() }.expect("sync");
    }
    for (fill, name, flag) in [(3, "o_sync", nix::libc::O_SYNC), (4, "o_dsync", nix::libc::O_DSYNC)]
    {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).custom_flags(flag).open(at(name));
        file.expect("create").write_all(&content(fill)).expect("write");
    }
    fs::write(at("before sync"), content(5)).expect("write");
    assert!(shelf.sync().status.success());
    kill_daemon(&shelf);
    for disk in [&shelf.disks[1], &shelf.disks[4]] {
        File::options().write(true).open(disk).expect("open").set_len(0).expect("taken away");
    }
    assert!(shelf.mount());
    for (fill, name) in
        [(1, "fsync"), (2, "fdatasync"), (3, "o_sync"), (4, "o_dsync"), (5, "before sync")]
    {
        assert!(fs::read(at(name)).expect("read") == content(fill), "{name}");
    }
    shelf.umount_cleanly();
}

/// docs/semantics.md: "`fsync` of a file also makes its name durable; `fsync` of a directory makes all its entries"
#[test]
fn an_fsync_makes_names_and_all_history_durable() {
    let Some(shelf) = pool() else { return };
    let at = |name: &str| shelf.mountpoint().join(name);
    for by_directory in [false, true] {
        let top = at(if by_directory { "d" } else { "f" });
        fs::create_dir_all(top.join("a/b")).expect("mkdir");
        fs::create_dir(top.join("elsewhere")).expect("mkdir");
        File::create(top.join("a/b/old")).expect("create");
        fs::rename(top.join("a/b/old"), top.join("a/new")).expect("rename");
        fs::hard_link(top.join("a/new"), top.join("elsewhere/link")).expect("link");
        symlink("target", top.join("symlink")).expect("symlink");
        fs::remove_dir(top.join("a/b")).expect("rmdir");
        fs::set_permissions(top.join("a"), fs::Permissions::from_mode(0o701)).expect("chmod");
        if by_directory {
            File::open(top.join("elsewhere")).expect("open").sync_all().expect("fsync");
        } else {
            File::create(at("last")).expect("create").sync_all().expect("fsync");
        }
        kill_daemon(&shelf);
        assert!(shelf.mount());
        assert!(by_directory || at("last").exists());
        assert!(!top.join("a/b").exists() && !top.join("a/b/old").exists());
        assert_eq!(fs::metadata(top.join("a/new")).expect("renamed").nlink(), 2);
        assert_eq!(fs::metadata(top.join("a")).expect("it is there").mode() & 0o777, 0o701);
        assert_eq!(fs::read_link(top.join("symlink")).expect("symlink"), Path::new("target"));
    }
    shelf.umount_cleanly();
}

/// docs/semantics.md: "Pages of a shared mapping count once they reach the daemon"
#[test]
fn a_mapping_is_durable_after_msync() {
    let Some(shelf) = pool() else { return };
    let file = shelf.mountpoint().join("mapped");
    fs::write(&file, vec![b'.'; 3 * 4096]).expect("write");
    let program = "import mmap, sys\n\
        file = open(sys.argv[1], 'r+b')\n\
        pages = mmap.mmap(file.fileno(), 0)\n\
        pages[4096:4101] = b'msync'\n\
        pages.flush()\n";
    python(program, &file);
    kill_daemon(&shelf);
    assert!(shelf.mount());
    let content = fs::read(&file).expect("read");
    assert_eq!((content.len(), &content[4095..4102]), (3 * 4096, &b".msync."[..]));
    shelf.umount_cleanly();
}

/// docs/semantics.md: "All calls on one mount see one another's results"
#[test]
fn calls_see_one_another() {
    let Some(shelf) = pool() else { return };
    let path = shelf.mountpoint().join("file");
    let mut one = File::create(&path).expect("create");
    let mut two = OpenOptions::new().read(true).append(true).open(&path).expect("open");
    one.write_all(b"one").expect("write");
    two.write_all(b"two").expect("append");
    let mut text = String::new();
    two.seek(SeekFrom::Start(0)).expect("seek");
    two.read_to_string(&mut text).expect("read");
    assert_eq!(text, "onetwo");
    assert_eq!(one.metadata().expect("stat").len(), 6);
    one.set_len(1).expect("truncate");
    assert_eq!(fs::read(&path).expect("read"), b"o");
    two.write_all(b"!").expect("append");
    fs::rename(&path, shelf.mountpoint().join("elsewhere")).expect("rename");
    drop((one, two));
    assert_eq!(number(File::open(&path)), Errno::ENOENT);
    assert_eq!(fs::read(shelf.mountpoint().join("elsewhere")).expect("read"), b"o!");
    shelf.umount_cleanly();
}

/// docs/semantics.md: "A listing of a directory shows each name once that is there throughout"
#[test]
fn a_listing_shows_what_stays_once() {
    let Some(shelf) = pool() else { return };
    let dir = shelf.mountpoint().join("dir");
    fs::create_dir(&dir).expect("mkdir");
    let make = |name: String| drop(File::create(dir.join(name)).expect("create"));
    (0..2000).for_each(|number| make(format!("stays{number}")));
    for round in 0..5 {
        let mut seen = BTreeSet::new();
        for (number, entry) in fs::read_dir(&dir).expect("it is a directory").enumerate() {
            let name = entry.expect("it reads").file_name();
            if name.as_encoded_bytes().starts_with(b"stays") {
                assert!(seen.insert(name), "a name was listed twice");
            }
            // Between what the kernel asks for.
            if number % 20 == 0 {
                make(format!("new{round}-{number}"));
                let old = dir.join(format!("new{}-{number}", round - 1));
                if old.exists() {
                    fs::rename(old, dir.join(format!("moved{round}-{number}"))).expect("rename");
                }
                let _ = fs::remove_file(dir.join(format!("moved{}-{number}", round - 1)));
            }
        }
        assert_eq!(seen.len(), 2000, "a name was not listed");
    }
    shelf.umount_cleanly();
}

/// docs/semantics.md: "A read with O_DIRECT sees a write of up to 1 MiB, aligned to that, whole or not at all"
#[test]
fn a_write_of_a_mebibyte_is_seen_whole_by_direct_reads() {
    let Some(shelf) = pool() else { return };
    let path = shelf.mountpoint().join("file");
    for flags in [0, nix::libc::O_DIRECT] {
        fs::write(&path, vec![0; MIB]).expect("write");
        let (done, mut mixed, mut seen) = (AtomicBool::new(false), 0, BTreeSet::new());
        #[allow(clippy::disallowed_methods, reason = "a writer beside a reader")]
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let file = OpenOptions::new().write(true).custom_flags(flags).open(&path);
                let (file, mut bytes) = (file.expect("open"), Buffer::zeroed(MIB));
                for fill in (1..=250).cycle() {
                    bytes.fill(fill);
                    file.write_all_at(&bytes, 0).expect("write");
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                }
            });
            let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_DIRECT).open(&path);
            let (file, mut bytes) = (file.expect("open"), Buffer::zeroed(MIB));
            for _ in 0..1000 {
                file.read_exact_at(&mut bytes, 0).expect("read");
                mixed += usize::from(bytes.iter().any(|&byte| byte != bytes[0]));
                seen.insert(bytes[0]);
                if seen.len() > 20 {
                    break;
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        assert!(seen.len() > 20, "reads saw {} writes", seen.len());
        assert_eq!(mixed, 0, "reads saw a part of a write");
    }
    shelf.umount_cleanly();
}

/// docs/semantics.md: "**EROFS**: mounted read-only"
#[test]
fn a_pool_without_enough_disks_is_only_read() {
    let Some(shelf) = pool() else { return };
    let small = shelf.mountpoint().join("small");
    fs::write(&small, "on as many disks as may be lost, and one more").expect("write");
    shelf.umount_cleanly();
    for disk in &shelf.disks[0..3] {
        File::options().write(true).open(disk).expect("open").set_len(0).expect("taken away");
    }
    assert!(shelf.mount());
    assert_eq!(number(File::create(shelf.mountpoint().join("new"))), Errno::EROFS);
    assert_eq!(number(fs::remove_file(&small)), Errno::EROFS);
    // What is still there: with three of six disks that depends on where the small file lies.
    if let Ok(text) = fs::read(&small) {
        assert_eq!(text.len(), 45);
    }
    assert_eq!(shelf.status().1["health"], "read-only");
    shelf.umount_cleanly();
}

/// docs/semantics.md: "`fallocate` succeeds if there is room now, and sets the size"
#[test]
fn an_allocation_sets_the_size_and_reserves_nothing() {
    let Some(shelf) = pool() else { return };
    let path = shelf.mountpoint().join("file");
    let file = File::create(&path).expect("create");
    let mode = nix::fcntl::FallocateFlags::empty();
    nix::fcntl::fallocate(&file, mode, 0, 5 * MIB as i64).expect("there is room");
    assert_eq!(file.metadata().expect("stat").len(), 5 * MIB as u64);
    assert_eq!(file.metadata().expect("stat").blocks(), 0);
    assert!(fs::read(&path).expect("read").iter().all(|&byte| byte == 0));
    let beyond = nix::fcntl::fallocate(&file, mode, 0, 1 << 50);
    assert_eq!(beyond, Err(Errno::ENOSPC), "what is promised is that there is room now");
    drop(file);
    shelf.umount_cleanly();
}

/// docs/semantics.md: "| what | limit |"
#[test]
fn limits_are_what_they_are_said_to_be() {
    let Some(shelf) = pool() else { return };
    let at = |name: &str| shelf.mountpoint().join(name);
    File::create(at(&"n".repeat(255))).expect("255 bytes are a name");
    assert_eq!(number(File::create(at(&"n".repeat(256)))), Errno::ENAMETOOLONG);
    symlink("t".repeat(4095), at("symlink")).expect("4,095 bytes are a target");
    assert_eq!(fs::read_link(at("symlink")).expect("read").as_os_str().len(), 4095);
    let file = File::create(at("file")).expect("create");
    file.set_len(i64::MAX as u64).expect("2^63 - 1 bytes are a size");
    assert_eq!(file.metadata().expect("stat").len(), i64::MAX as u64);
    drop(file);
    python("import os, sys; os.setxattr(sys.argv[1], 'user.x', bytes(65536))", &at("file"));
    python(
        "import os, sys; assert os.getxattr(sys.argv[1], 'user.x') == bytes(65536)",
        &at("file"),
    );
    // Names of 16 bytes each: 4,096 of them fill a list.
    let program = "import errno, os, sys\n\
        for number in range(4096): os.setxattr(sys.argv[1], f'user.{number:010}', b'')\n\
        assert len(os.listxattr(sys.argv[1])) == 4096\n\
        os.setxattr(sys.argv[1], 'user.more', b'x')\n\
        assert os.getxattr(sys.argv[1], 'user.more') == b'x'\n\
        try: os.listxattr(sys.argv[1])\n\
        except OSError as error: sys.exit(error.errno != errno.E2BIG)\n\
        sys.exit('it is listed')\n";
    File::create(at("attributes")).expect("create");
    python(program, &at("attributes"));
    shelf.umount_cleanly();
}

/// docs/semantics.md: "Times are kept in nanoseconds"
#[test]
fn times_outlive_the_mount() {
    let Some(shelf) = pool() else { return };
    let path = shelf.mountpoint().join("file");
    fs::write(&path, "x").expect("write");
    let file = File::open(&path).expect("open");
    let then = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_007, 123_456_789);
    file.set_times(fs::FileTimes::new().set_modified(then).set_accessed(then)).expect("utimens");
    drop(file);
    shelf.umount_cleanly();
    assert!(shelf.mount());
    let found = fs::metadata(&path).expect("stat");
    assert_eq!((found.mtime(), found.mtime_nsec()), (1_000_000_007, 123_456_789));
    assert_eq!((found.atime(), found.atime_nsec()), (1_000_000_007, 123_456_789));
    fs::read(&path).expect("read");
    wait_for(|| fs::metadata(&path).expect("stat").atime() > 1_000_000_007);
    let moved = fs::metadata(&path).expect("stat").atime();
    fs::read(&path).expect("read");
    assert_eq!(fs::metadata(&path).expect("stat").atime(), moved, "relatime: once after a change");
    shelf.umount_cleanly();
}

/// docs/semantics.md: "O_TMPFILE is refused (EOPNOTSUPP)"
#[test]
fn a_file_without_a_name_is_refused() {
    let Some(shelf) = pool() else { return };
    let mut options = OpenOptions::new();
    let nameless = options.write(true).custom_flags(nix::libc::O_TMPFILE);
    assert_eq!(number(nameless.open(shelf.mountpoint())), Errno::EOPNOTSUPP);
    shelf.umount_cleanly();
}

/// docs/semantics.md: "`ioctl`-based attributes (`chattr`) are not offered."
#[test]
fn flags_of_inodes_are_not_offered() {
    let Some(shelf) = pool() else { return };
    let path = shelf.mountpoint().join("file");
    fs::write(&path, "x").expect("write");
    let copy_of = |path: &Path, options: &[&str]| {
        let copy =
            Command::new("cp").args(options).arg(path).arg(path.with_extension("c")).output();
        copy.expect("cp runs").status.success()
    };
    assert!(!copy_of(&path, &["--reflink=always"]), "there are no reflinks");
    assert!(copy_of(&path, &[]));
    assert_eq!(fs::read(path.with_extension("c")).expect("read"), b"x");
    let flags = Command::new("chattr").arg("+i").arg(&path).output().expect("chattr runs");
    assert!(!flags.status.success());
    shelf.umount_cleanly();
}

/// docs/semantics.md: "`syncfs` and `sync` return at once and promise nothing"
/// docs/semantics.md: "`syncfs(2)` and `sync(1)` do not reach the daemon."
#[test]
fn syncfs_does_not_reach_the_daemon() {
    let fs = memory(Contents::Kept);
    let mount = mounted!(fs.clone());
    fs::write(mount.join("file"), "x").expect("write");
    let program = "import ctypes, os, sys\n\
        file = os.open(sys.argv[1], os.O_RDONLY)\n\
        assert ctypes.CDLL(None).syncfs(file) == 0\n";
    python(program, &mount.join("file"));
    let asked = fs.asked();
    let asked = [&asked.fsyncs, &asked.dir_fsyncs, &asked.syncs];
    assert!(asked.iter().all(|count| count.load(Ordering::SeqCst) == 0));
}

/// docs/semantics.md: "`statx` does not show the time of birth"
#[test]
fn the_time_of_birth_is_not_shown() {
    let mount = mounted!(memory(Contents::Kept));
    fs::write(mount.join("file"), "x").expect("write");
    let stat = Command::new("stat").args(["--format", "%W"]).arg(mount.join("file")).output();
    let shown = String::from_utf8(stat.expect("stat runs").stdout).expect("a number");
    assert_eq!(shown.trim(), "0", "statx shows it now: say so");
}

/// docs/semantics.md: "Directory change notifications (inotify) see what happens through this mount."
#[test]
fn changes_are_notified() {
    let mount = mounted!(memory(Contents::Kept));
    let program = "import ctypes, os, sys\n\
        libc = ctypes.CDLL(None)\n\
        watch, IN_CREATE = libc.inotify_init(), 0x100\n\
        assert libc.inotify_add_watch(watch, sys.argv[1].encode(), IN_CREATE) > 0\n\
        open(sys.argv[1] + '/made', 'w').close()\n\
        assert b'made' in os.read(watch, 4096)\n";
    python(program, mount.path());
}

/// docs/semantics.md: "Exporting by NFS is not supported yet."
#[test]
fn a_handle_does_not_outlive_the_mount() {
    if !is_root() {
        eprintln!("skipped: only root may open by handle");
        return;
    }
    let Some(shelf) = pool() else { return };
    fs::create_dir(shelf.mountpoint().join("d")).expect("mkdir");
    let file = shelf.mountpoint().join("d/file");
    fs::write(&file, "x").expect("write");
    let handle = shelf.directory.path().join("handle");
    let program = "import ctypes, os, sys\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        file, handle = sys.argv[1].split(':')\n\
        made, mount = ctypes.create_string_buffer(136), ctypes.c_int()\n\
        if not os.path.exists(handle):\n\
        \x20   made[0] = 128\n\
        \x20   assert libc.name_to_handle_at(-100, file.encode(), made, ctypes.byref(mount), 0) == 0\n\
        \x20   open(handle, 'wb').write(made.raw)\n\
        else:\n\
        \x20   made.raw = open(handle, 'rb').read()\n\
        \x20   top = os.open(os.path.dirname(os.path.dirname(file)), os.O_RDONLY)\n\
        \x20   assert libc.open_by_handle_at(top, made, os.O_RDONLY) < 0\n\
        \x20   assert ctypes.get_errno() == 116, ctypes.get_errno()\n";
    let both = format!("{}:{}", file.display(), handle.display());
    python(program, Path::new(&both));
    shelf.umount_cleanly();
    assert!(shelf.mount());
    python(program, Path::new(&both));
    shelf.umount_cleanly();
}
