//! What the kernel asks for, and what it does not ask for again.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use isotherm::base::Ino;
use isotherm::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use isotherm::frontend::FileSystem;
use isotherm::frontend::memory::Contents;

use crate::harness::memory;
use crate::mounted;

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::SeqCst)
}

#[test]
fn a_mebibyte_is_written_in_one_request() {
    let fs = memory(Contents::Discarded);
    let mount = mounted!(fs.clone());
    let mut file = File::create(mount.join("file")).expect("create");
    file.write_all(&vec![7; 8 << 20]).expect("write");
    assert_eq!(value(&fs.asked().largest_write), 1 << 20);
    assert_eq!(value(&fs.asked().writes), 8);
}

#[test]
fn names_absent_names_and_attributes_are_asked_for_once() {
    let fs = memory(Contents::Kept);
    let mount = mounted!(fs.clone());
    let (there, absent) = (mount.join("there"), mount.join("absent"));
    fs::write(&there, "x").expect("write");
    let count = || value(&fs.asked().lookups) + value(&fs.asked().getattrs);
    // Attributes of a directory that has just changed are not kept.
    #[allow(clippy::disallowed_methods, reason = "the kernel's cache goes by the machine's time")]
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert!(fs::metadata(mount.path()).is_ok());
    assert!(fs::metadata(&there).is_ok() && fs::metadata(&absent).is_err());
    let before = count();
    for _ in 0..10 {
        assert!(fs::metadata(&there).is_ok());
        assert!(fs::metadata(&absent).is_err());
    }
    assert_eq!(count(), before);
    // What we do ourselves shows at once.
    fs::write(&absent, "now it is there").expect("write");
    assert_eq!(fs::metadata(&absent).expect("stat").len(), 15);
    fs::rename(&there, mount.join("elsewhere")).expect("rename");
    assert!(fs::metadata(&there).is_err());
}

#[test]
fn contents_stay_in_the_page_cache_after_close() {
    let fs = memory(Contents::Kept);
    let mount = mounted!(fs.clone());
    let path = mount.join("file");
    fs::write(&path, vec![1; 128 << 10]).expect("write");
    for _ in 0..5 {
        assert_eq!(fs::read(&path).expect("read").len(), 128 << 10);
    }
    assert_eq!(value(&fs.asked().reads), 0, "written pages are kept, over open and close");
}

#[test]
fn fsync_and_o_sync_reach_the_file_system() {
    let fs = memory(Contents::Kept);
    let mount = mounted!(fs.clone());
    let path = mount.join("file");
    let file = File::create(&path).expect("create");
    file.sync_all().expect("fsync");
    file.sync_data().expect("fdatasync");
    assert_eq!(value(&fs.asked().fsyncs), 2);
    let synchronous =
        File::options().write(true).custom_flags(libc::O_SYNC).open(&path).expect("open");
    synchronous.write_all_at(b"durable", 0).expect("write");
    assert_eq!(value(&fs.asked().fsyncs), 3, "[I1] a write with O_SYNC is durable when it returns");
    File::open(mount.path()).expect("open").sync_all().expect("fsync of a directory");
    assert_eq!(value(&fs.asked().dir_fsyncs), 1);
}

#[test]
fn a_write_does_not_ask_for_capabilities_each_time() {
    let fs = memory(Contents::Discarded);
    let mount = mounted!(fs.clone());
    let file = File::create(mount.join("file")).expect("create");
    for number in 0..100 {
        file.write_all_at(&[0; 4096], number * 4096).expect("write");
    }
    assert!(value(&fs.asked().getxattrs) <= 2, "asked {} times", value(&fs.asked().getxattrs));
}

/// A program looked at a directory while another one renamed in it; the answer to the first came after the
/// rename, and the kernel kept what it said for an hour: rsync took a directory's time for set already.
#[test]
fn what_a_directory_was_before_a_change_is_not_kept() {
    let fs = memory(Contents::Kept);
    let mount = mounted!(fs.clone());
    let (directory, done) = (mount.join("d"), AtomicBool::new(false));
    fs::create_dir(&directory).expect("mkdir");
    fs::write(directory.join("0"), "x").expect("write");
    let ino = Ino(fs::metadata(&directory).expect("stat").ino());
    let mut stale = 0;
    #[allow(clippy::disallowed_methods, reason = "somebody who looks beside somebody who changes")]
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let _ = fs::metadata(&directory).expect("stat");
                }
            });
        }
        for round in 0..20_000 {
            let (from, to) = (round.to_string(), (round + 1).to_string());
            fs::rename(directory.join(from), directory.join(to)).expect("rename");
            let truth = fs.getattr(ino).expect("it is there").mtime;
            let shown = fs::metadata(&directory).expect("stat");
            stale += usize::from(
                (shown.mtime(), shown.mtime_nsec()) != (truth.seconds, i64::from(truth.nanos)),
            );
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(stale, 0, "of 20,000 looks showed what was before");
}
