//! Refusals have the numbers that programs look for.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};

use isotherm::frontend::memory::Contents;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::harness::{Mounted, memory, while_in_use};
use crate::mounted;

fn number<T: std::fmt::Debug>(result: std::io::Result<T>) -> Errno {
    Errno::from_raw(result.expect_err("it is refused").raw_os_error().expect("by the kernel"))
}

#[test]
fn refusals_have_their_numbers() {
    let mount = mounted!(memory(Contents::Kept));
    let at = |name: &str| mount.join(name);
    fs::create_dir_all(at("full/sub")).expect("mkdir");
    fs::write(at("file"), "0123456789").expect("write");
    assert_eq!(number(fs::metadata(at("absent"))), Errno::ENOENT);
    assert_eq!(number(fs::create_dir(at("full"))), Errno::EEXIST);
    assert_eq!(number(fs::remove_dir(at("full"))), Errno::ENOTEMPTY);
    assert_eq!(number(fs::remove_file(at("full"))), Errno::EISDIR);
    assert_eq!(number(fs::remove_dir(at("file"))), Errno::ENOTDIR);
    assert_eq!(number(fs::read_dir(at("file"))), Errno::ENOTDIR);
    assert_eq!(number(fs::rename(at("full"), at("full/sub/x"))), Errno::EINVAL);
    assert_eq!(number(fs::rename(at("file"), at("full"))), Errno::EISDIR);
    assert_eq!(number(File::create(at(&"n".repeat(256)))), Errno::ENAMETOOLONG);
    File::create(at(&"n".repeat(255))).expect("255 bytes are allowed");
    assert_eq!(number(File::create_new(at("file"))), Errno::EEXIST);
}

#[test]
fn extended_attributes_are_kept_and_refused() {
    let mount = mounted!(memory(Contents::Kept));
    let path = mount.join("file");
    File::create(&path).expect("create");
    let run =
        |args: &[&str]| std::process::Command::new(args[0]).args(&args[1..]).arg(&path).output();
    let Ok(set) = run(&["setfattr", "-n", "user.colour", "-v", "blue"]) else {
        eprintln!("skipped: setfattr is not installed (package attr)");
        return;
    };
    assert!(set.status.success(), "{set:?}");
    let got = run(&["getfattr", "-d"]).expect("getfattr");
    assert!(String::from_utf8_lossy(&got.stdout).contains("user.colour=\"blue\""), "{got:?}");
    let missing = run(&["getfattr", "-n", "user.none"]).expect("getfattr");
    assert!(!missing.status.success());
    assert!(run(&["setfattr", "-x", "user.colour"]).expect("setfattr").status.success());
    let again = run(&["setfattr", "-x", "user.colour"]).expect("setfattr");
    assert!(!again.status.success());
}

#[test]
fn holes_end_where_the_file_ends() {
    let mount = mounted!(memory(Contents::Kept));
    let file = File::create(mount.join("file")).expect("create");
    file.write_all_at(b"0123456789", 0).expect("write");
    assert_eq!(lseek(&file, 3, Whence::SeekData), Ok(3));
    assert_eq!(lseek(&file, 3, Whence::SeekHole), Ok(10));
    assert_eq!(lseek(&file, 10, Whence::SeekData), Err(Errno::ENXIO));
}

/// The kernel asks for the cut only after it has seen that nobody runs the file: as one request, the
/// file would be cut first, refused second, and the program would die.
#[test]
fn a_running_program_is_not_cut() {
    let mount = mounted!(memory(Contents::Kept));
    let path = mount.join("program");
    let content = fs::read("/bin/sleep").expect("every machine has one");
    fs::write(&path, &content).expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    let mut command = std::process::Command::new(&path);
    command.arg("60");
    let mut program = while_in_use(|| command.spawn()).expect("it runs");
    let refused = [libc::O_RDONLY | libc::O_TRUNC, libc::O_RDWR | libc::O_TRUNC, libc::O_WRONLY]
        .map(|flags| {
            let write = flags & libc::O_ACCMODE != libc::O_RDONLY;
            File::options()
                .read(!write)
                .write(write)
                .custom_flags(flags & libc::O_TRUNC)
                .open(&path)
        })
        .map(|opened| opened.map(|_| ()).map_err(|error| error.raw_os_error()));
    let alive = program.try_wait().expect("it is our child").is_none();
    program.kill().expect("it is our child");
    program.wait().expect("it is our child");
    assert_eq!(refused, [Err(Some(libc::ETXTBSY)); 3]);
    assert!(alive, "it was cut while it ran");
    assert!(fs::read(&path).expect("read") == content);
    drop(File::create(&path).expect("nobody runs it now"));
    assert_eq!(fs::metadata(&path).expect("stat").len(), 0);
}

#[test]
fn a_read_only_mount_refuses_changes() {
    let Some(mount) = Mounted::with(memory(Contents::Kept), |options| options.read_only = true)
    else {
        return;
    };
    assert_eq!(number(File::create(mount.join("file"))), Errno::EROFS);
}

/// docs/semantics.md: "`flock` and record locks work, between processes on this machine"
#[test]
fn locks_are_the_kernels_own() {
    let mount = mounted!(memory(Contents::Kept));
    let path = mount.join("file");
    let (one, two) = (File::create(&path).expect("create"), File::open(&path).expect("open"));
    one.lock().expect("lock");
    assert!(two.try_lock().is_err());
    one.unlock().expect("unlock");
    two.try_lock().expect("lock");
    let program = "import fcntl, sys\n\
        file = open(sys.argv[1], 'r+b')\n\
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)\n\
        try:\n    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n\
        except BlockingIOError: sys.exit(7)\n";
    let other = std::process::Command::new("python3").args(["-c", program]).arg(&path).status();
    let other = other.expect("python3 is needed for this test: install it");
    assert_eq!(other.code(), Some(7), "record locks are had, the lock on the file is ours");
}

#[test]
fn a_copy_inside_the_mount_copies() {
    let mount = mounted!(memory(Contents::Kept));
    fs::write(mount.join("file"), vec![3; 3 << 20]).expect("write");
    // The standard library uses copy_file_range(2) between two files.
    let mut source = File::open(mount.join("file")).expect("open");
    let mut target = File::create(mount.join("copy")).expect("create");
    assert_eq!(std::io::copy(&mut source, &mut target).expect("copy"), 3 << 20);
    assert_eq!(fs::read(mount.join("copy")).expect("read"), vec![3; 3 << 20]);
}
