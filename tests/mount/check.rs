//! `isotherm check` from outside: mounted and not, clean and spoilt.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::SystemTime;

use super::command::{Shelf, said};

/// Bytes that are found nowhere else on a disk.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let word = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*state >> 32) as u8
    };
    (0..length).map(|_| word(&mut state)).collect()
}

/// Spoils one byte of the file's data, on the first disk that has some.
fn spoil(shelf: &Shelf, content: &[u8]) {
    let needles: Vec<&[u8]> = content.chunks_exact(64 << 10).map(|part| &part[..64]).collect();
    for disk in &shelf.disks {
        let mut image = File::options().read(true).write(true).open(disk).expect("our own image");
        let mut unit = vec![0; 1 << 20];
        let mut at = 0;
        while image.read_exact_at(&mut unit, at).is_ok() {
            let starts = unit.chunks(4096).position(|bytes| needles.contains(&&bytes[..64]));
            if let Some(found) = starts {
                let offset = at + found as u64 * 4096;
                image.seek(SeekFrom::Start(offset)).expect("it is a file");
                image.write_all(&[!unit[found * 4096]]).expect("our own image");
                return;
            }
            at += unit.len() as u64;
        }
    }
    panic!("the data lie on a disk as they are");
}

/// When each disk was written to last.
fn written(shelf: &Shelf) -> Vec<SystemTime> {
    let modified = |disk: &PathBuf| fs::metadata(disk)?.modified();
    let all: std::io::Result<Vec<SystemTime>> = shelf.disks.iter().map(modified).collect();
    all.expect("our own images")
}

#[test]
fn a_check_says_what_is_spoilt_mounted_or_not() {
    let shelf = Shelf::new();
    shelf.create();
    if !shelf.mount() {
        return;
    }
    let mountpoint = shelf.mountpoint().display().to_string();
    let content = pattern(5 << 20);
    fs::create_dir(shelf.mountpoint().join("dir")).expect("mkdir");
    fs::write(shelf.mountpoint().join("dir/file"), &content).expect("write");
    shelf.umount_cleanly();
    assert!(shelf.mount());
    for arguments in [&["check", &mountpoint][..], &["check", &shelf.name, "--deep"]] {
        let checked = shelf.run(arguments);
        assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
        assert!(said(&checked).contains("3 inodes, 2 names"), "{}", said(&checked));
    }
    // Its disks are the daemon's.
    let busy = shelf.with_disks(&["check"], &[]);
    assert_eq!(busy.status.code(), Some(1), "{}", said(&busy));
    assert!(said(&busy).contains(&format!("isotherm check {mountpoint}")), "{}", said(&busy));
    shelf.umount_cleanly();
    let before = written(&shelf);
    let checked = shelf.with_disks(&["check", "--deep"], &[]);
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
    assert!(said(&checked).contains("everything is there"), "{}", said(&checked));
    assert_eq!(written(&shelf), before, "it has written nothing");

    spoil(&shelf, &content);
    let shallow = shelf.with_disks(&["check"], &[]);
    assert_eq!(shallow.status.code(), Some(0), "the index is whole: {}", said(&shallow));
    let deep = shelf.with_disks(&["check", "--deep", "--json"], &[]);
    assert_eq!(deep.status.code(), Some(4), "{}", said(&deep));
    let report: serde_json::Value = serde_json::from_slice(&deep.stdout).expect("JSON");
    assert_eq!(report["found"], 1, "{report}");
    assert_eq!(report["findings"][0]["paths"][0], "/dir/file", "{report}");
    assert!(shelf.mount());
    let mounted = shelf.run(&["check", "--deep", &shelf.name]);
    assert_eq!(mounted.status.code(), Some(4), "{}", said(&mounted));
    assert!(said(&mounted).contains("/dir/file: object "), "{}", said(&mounted));
    assert!(said(&mounted).contains("readable, and 1 more may be lost"), "{}", said(&mounted));
    assert!(fs::read(shelf.mountpoint().join("dir/file")).expect("it reads") == content);
    shelf.umount_cleanly();
    let none = shelf.run(&["check", "nobody"]);
    assert_eq!(none.status.code(), Some(1), "{}", said(&none));
}
