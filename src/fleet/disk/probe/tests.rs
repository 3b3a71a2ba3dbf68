//! Probing, tried on images of what it must recognise.

use std::process::Command;

use super::*;
use crate::base::MIB;
use crate::format::label::LABEL_MAGIC;

fn file(directory: &tempfile::TempDir, name: &str, bytes: u64) -> PathBuf {
    let path = directory.path().join(name);
    File::create(&path).and_then(|file| file.set_len(bytes)).expect("the directory is ours");
    path
}

fn names(probe: &Probe) -> Vec<&'static str> {
    probe.signatures.iter().map(|signature| signature.name).collect()
}

#[test]
fn a_blank_file_is_a_free_disk() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file(&directory, "disk", 4 * MIB);
    let found = probe(&path).expect("it is a file");
    assert_eq!((found.signatures, found.uses), (Vec::new(), Vec::new()));
    assert!(found.identity.is_file && !found.identity.rotational && !found.read_only);
    assert_eq!(found.identity.bytes, 4 * MIB);
    let other = identify(&file(&directory, "other", MIB)).expect("it is a file");
    assert!(other.drives.is_disjoint(&found.drives), "two files are two drives");
    std::os::unix::fs::symlink(&path, directory.path().join("again")).expect("links work");
    let again = identify(&directory.path().join("again")).expect("it is a file");
    assert_eq!(again.drives, found.drives, "R24: one file under two names is one drive");
}

#[test]
fn i9_what_was_written_is_recognised() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file(&directory, "disk", 4 * MIB);
    let mut unit = vec![0; 4096];
    unit[..8].copy_from_slice(&LABEL_MAGIC);
    write_at(&path, MIB, &unit).expect("it can be written");
    assert_eq!(read_at(&path, MIB, 4096).expect("it can be read"), unit);
    let found = probe(&path).expect("it is a file");
    assert_eq!(names(&found), ["Isotherm"]);
    assert!(found.signatures[0].isotherm && found.signatures[0].offset == MIB);
    assert!(write_at(&path, 4 * MIB, &unit).is_err(), "beyond the end");
    assert_eq!(std::fs::metadata(&path).expect("it is there").len(), 4 * MIB);
    assert!(read_at(&path, 4 * MIB, 4096).is_err(), "beyond the end");
}

#[test]
fn i9_a_locked_file_is_busy() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file(&directory, "disk", MIB);
    let holder = File::open(&path).expect("it opens");
    assert!(try_lock(&holder));
    assert_eq!(probe(&path).expect("it is a file").uses, [Use::Busy]);
    let refused = write_at(&path, 0, &[0; 4096]);
    assert!(matches!(refused, Err(ProbeError::InUse { .. })), "{refused:?}");
    drop(holder);
    assert_eq!(probe(&path).expect("it is a file").uses, []);
}

#[test]
fn tiny_files_and_other_things_are_refused_or_blank() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for bytes in [0, 1, 4095, 4096, 5000] {
        let path = file(&directory, "tiny", bytes);
        assert_eq!(probe(&path).expect("it is a file").signatures, []);
    }
    let missing = probe(&directory.path().join("no"));
    assert!(matches!(missing, Err(ProbeError::NotFound { .. })), "{missing:?}");
    let other = probe(directory.path());
    assert!(matches!(other, Err(ProbeError::NotADisk { .. })), "{other:?}");
    let null = probe(Path::new("/dev/null"));
    assert!(matches!(null, Err(ProbeError::NotADisk { .. })), "{null:?}");
    let message = missing.expect_err("as above").to_string();
    assert!(message.contains("no such device or file"), "{message}");
}

/// Detached when it goes.
struct Loop(PathBuf);

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[test]
fn r24_a_loop_device_is_the_drive_of_its_file() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file(&directory, "backing", 16 * MIB);
    let made = Command::new("losetup").args(["--find", "--show"]).arg(&path).output();
    let Some(made) = made.ok().filter(|made| made.status.success()) else {
        println!("skipped: needs root and loop devices");
        return;
    };
    let device = Loop(PathBuf::from(String::from_utf8_lossy(&made.stdout).trim()));
    let found = probe(&device.0).expect("it is a block device");
    assert_eq!(found.identity.bytes, 16 * MIB);
    assert!(!found.identity.is_file);
    assert_eq!(found.uses, []);
    let below = probe(&path).expect("it is a file");
    assert_eq!(below.drives, found.drives);
    let name = device.0.file_name().expect("it has one").to_string_lossy().into_owned();
    assert_eq!(below.uses, [Use::Held { by: name }]);
    let holder = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&device.0);
    let holder = holder.expect("it is free");
    assert_eq!(probe(&device.0).expect("it is a block device").uses, [Use::Busy]);
    let refused = write_at(&device.0, 0, &[0; 4096]);
    assert!(matches!(refused, Err(ProbeError::InUse { .. })), "{refused:?}");
    drop(holder);
    let made = Command::new("mkfs.ext4").arg("-q").arg(&device.0).status();
    if made.is_ok_and(|made| made.success()) {
        assert_eq!(
            names(&probe(&device.0).expect("it is a block device")),
            ["ext2/3/4 filesystem"]
        );
    }
}
