//! Names, kinds, attributes and contents, as programs use them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use isotherm::frontend::memory::Contents;
use isotherm::frontend::mounts::find_mount;
use nix::fcntl::{RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;

use crate::command::{Shelf, said};
use crate::harness::{is_root, memory};
use crate::mounted;

#[test]
fn it_is_mounted_under_its_own_type_and_the_pools_name() {
    let mount = mounted!(memory(Contents::Kept));
    let entry = find_mount(mount.path()).expect("it is mounted");
    assert_eq!(entry.kind, "fuse.isotherm");
    assert_eq!(entry.source, "testpool");
    if is_root() {
        let file = format!("/sys/class/bdi/{}/read_ahead_kb", entry.device);
        assert_eq!(fs::read_to_string(file).expect("the bdi is there").trim(), "8192");
    }
    let path = mount.path().to_path_buf();
    mount.finish().expect("it ends well");
    assert!(find_mount(&path).is_none());
}

/// As mount(8) and fstab call it: with one word for all devices, options behind, and names after `--`.
#[test]
fn the_helper_of_mount_mounts() {
    let shelf = Shelf::new();
    shelf.create();
    if std::fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
        eprintln!("skipped: /dev/fuse cannot be opened");
        return;
    }
    let disks: Vec<String> = shelf.disks.iter().map(|disk| disk.display().to_string()).collect();
    let helper = concat!(env!("CARGO_MANIFEST_DIR"), "/mount-scripts/mount.isotherm");
    let run = |options: &str| {
        let output = std::process::Command::new(helper)
            .arg(disks.join(","))
            .arg(shelf.mountpoint())
            .args(["-o", options])
            .env("ISOTHERM", env!("CARGO_BIN_EXE_isotherm"))
            .env("XDG_RUNTIME_DIR", shelf.directory.path())
            .env("XDG_STATE_HOME", shelf.directory.path())
            .output();
        output.expect("it runs")
    };
    let mounted = run("rw,noatime,dev,suid");
    assert!(mounted.status.success(), "{}", said(&mounted));
    std::fs::write(shelf.mountpoint().join("file"), "x").expect("it is mounted");
    shelf.umount_cleanly();
    let refused = run("rw,no-such-option");
    assert!(!refused.status.success() && said(&refused).contains("no-such-option"));
}

#[test]
fn files_keep_what_is_written_wherever_it_is_written() {
    let mount = mounted!(memory(Contents::Kept));
    let path = mount.join("file");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .expect("open");
    file.write_all(b"hello, world").expect("write");
    file.write_all_at(b"far away", 3_000_000).expect("write far");
    assert_eq!(file.metadata().expect("stat").len(), 3_000_008);
    file.seek(SeekFrom::Start(0)).expect("seek");
    let mut all = Vec::new();
    file.read_to_end(&mut all).expect("read");
    assert_eq!(&all[..12], b"hello, world");
    assert!(all[12..3_000_000].iter().all(|&byte| byte == 0));
    assert_eq!(&all[3_000_000..], b"far away");
    file.set_len(5).expect("truncate");
    assert_eq!(fs::read(&path).expect("read"), b"hello");
    File::options().append(true).open(&path).expect("open").write_all(b"!").expect("append");
    assert_eq!(fs::read(&path).expect("read"), b"hello!");
    File::options().write(true).truncate(true).open(&path).expect("open to nothing");
    assert_eq!(fs::metadata(&path).expect("stat").len(), 0);
    fs::copy("/proc/self/exe", &path).expect("copy");
    assert_eq!(
        fs::metadata(&path).expect("stat").len(),
        fs::metadata("/proc/self/exe").expect("stat").len()
    );
}

#[test]
fn directories_list_what_is_in_them_however_much() {
    let mount = mounted!(memory(Contents::Kept));
    let directory = mount.join("many");
    fs::create_dir(&directory).expect("mkdir");
    let wanted: BTreeSet<String> =
        (0..5000).map(|n| format!("{n}-{}", "x".repeat(n % 200))).collect();
    for name in &wanted {
        File::create(directory.join(name)).expect("create");
    }
    let listed = || -> BTreeSet<String> {
        fs::read_dir(&directory)
            .expect("list")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("our own names"))
            .collect()
    };
    assert_eq!(listed(), wanted);
    assert_eq!(fs::metadata(&directory).expect("stat").nlink(), 2);
    fs::create_dir(directory.join("sub")).expect("mkdir");
    assert_eq!(fs::metadata(&directory).expect("stat").nlink(), 3);
    fs::remove_dir(directory.join("sub")).expect("rmdir");
    for name in &wanted {
        fs::remove_file(directory.join(name)).expect("unlink");
    }
    assert!(listed().is_empty());
    fs::remove_dir(&directory).expect("rmdir");
}

#[test]
fn links_rename_and_kinds() {
    let mount = mounted!(memory(Contents::Kept));
    let (a, b) = (mount.join("a"), mount.join("b"));
    fs::write(&a, "one").expect("write");
    fs::hard_link(&a, &b).expect("link");
    assert_eq!(fs::metadata(&a).expect("stat").nlink(), 2);
    assert_eq!(fs::metadata(&a).expect("stat").ino(), fs::metadata(&b).expect("stat").ino());
    fs::remove_file(&a).expect("unlink");
    assert_eq!(fs::metadata(&b).expect("stat").nlink(), 1);
    symlink("b", &a).expect("symlink");
    assert_eq!(fs::read_link(&a).expect("readlink").to_str(), Some("b"));
    assert_eq!(fs::read(&a).expect("read through"), b"one");
    fs::write(mount.join("c"), "two").expect("write");
    fs::rename(mount.join("c"), &b).expect("rename over");
    assert_eq!(fs::read(&b).expect("read"), b"two");
    fs::write(mount.join("d"), "three").expect("write");
    let swap =
        |flags| renameat2(nix::fcntl::AT_FDCWD, &b, nix::fcntl::AT_FDCWD, &mount.join("d"), flags);
    assert_eq!(swap(RenameFlags::RENAME_NOREPLACE), Err(nix::errno::Errno::EEXIST));
    swap(RenameFlags::RENAME_EXCHANGE).expect("exchange");
    assert_eq!(fs::read(&b).expect("read"), b"three");
    let fifo = mount.join("fifo");
    mknod(&fifo, SFlag::S_IFIFO, Mode::from_bits_truncate(0o600), 0).expect("mkfifo");
    assert!(fs::symlink_metadata(&fifo).expect("stat").file_type().is_fifo());
    // An unlinked file lives on while it is open.
    let mut open = File::options().read(true).write(true).open(&b).expect("open");
    fs::remove_file(&b).expect("unlink");
    open.write_all(b"still here").expect("write");
    open.seek(SeekFrom::Start(0)).expect("seek");
    let mut text = String::new();
    open.read_to_string(&mut text).expect("read");
    assert_eq!(text, "still here");
    assert_eq!(open.metadata().expect("stat").nlink(), 0);
}

#[test]
fn modes_owners_and_times_are_kept_to_the_nanosecond() {
    let mount = mounted!(memory(Contents::Kept));
    let path = mount.join("file");
    File::create(&path).expect("create");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).expect("chmod");
    assert_eq!(fs::metadata(&path).expect("stat").mode() & 0o7777, 0o4751);
    for (seconds, nanos) in [(1_700_000_000, 123_456_789), (-2, 800_000_000), (-3, 0), (1 << 33, 1)]
    {
        let time = TimeSpec::new(seconds, nanos);
        utimensat(nix::fcntl::AT_FDCWD, &path, &time, &time, UtimensatFlags::NoFollowSymlink)
            .expect("utimensat");
        let stat = fs::metadata(&path).expect("stat");
        assert_eq!((stat.mtime(), stat.mtime_nsec()), (seconds, nanos));
        assert_eq!((stat.atime(), stat.atime_nsec()), (seconds, nanos));
    }
}

#[test]
fn umask_is_applied_once() {
    let mount = mounted!(memory(Contents::Kept));
    let script = format!("cd '{}' && umask 027 && touch f && mkdir d", mount.path().display());
    assert!(Command::new("sh").args(["-c", &script]).status().expect("sh").success());
    assert_eq!(fs::metadata(mount.join("f")).expect("stat").mode() & 0o777, 0o640);
    assert_eq!(fs::metadata(mount.join("d")).expect("stat").mode() & 0o777, 0o750);
}

#[test]
fn privileges_are_cleared_by_those_who_do_not_have_them() {
    if !is_root() {
        eprintln!("skipped: needs root, to be somebody else");
        return;
    }
    let mount = mounted!(memory(Contents::Kept));
    for how in
        ["echo x >> \"$1\"", "echo x > \"$1\"", "truncate -s 1 \"$1\"", "fallocate -l 99 \"$1\""]
    {
        let path = mount.join("file");
        fs::write(&path, "x").expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).expect("chmod");
        fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        assert_eq!(fs::metadata(&path).expect("stat").mode() & 0o7777, 0o6777);
        // Root keeps them.
        fs::write(&path, "x").expect("write");
        assert_eq!(fs::metadata(&path).expect("stat").mode() & 0o7777, 0o6777);
        let status = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", how, "sh"])
            .arg(&path)
            .current_dir("/")
            .status();
        match status {
            Ok(status) if status.success() => {}
            other => {
                eprintln!("skipped: cannot run as nobody: {other:?}");
                return;
            }
        }
        assert_eq!(fs::metadata(&path).expect("stat").mode() & 0o7777, 0o777, "{how}");
    }
}
