//! Loop devices: real block devices, where we are root and the machine has them. Every device and
//! mount that a test makes is taken away by its guard, also when the test fails.

use std::process::Command;

use super::*;

/// A loop device over a file of its own.
struct Loop {
    device: PathBuf,
    backing: PathBuf,
}

impl Loop {
    /// None, with the reason printed, where this machine cannot.
    fn over(backing: &Path, bytes: u64) -> Option<Loop> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            println!("skipped: needs root and /dev/loop-control");
            return None;
        }
        let file = File::create(backing).expect("the directory is ours");
        file.set_len(bytes).expect("sparse files are allowed");
        let made = run("losetup", &["--find", "--show", "--direct-io=on", &text(backing)])?;
        Some(Loop { device: PathBuf::from(made.trim()), backing: backing.to_path_buf() })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", &text(&self.device)]);
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Runs a command: its output, or None with the reason printed.
fn run(command: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(command).args(arguments).output() {
        Ok(output) if output.status.success() => {
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => {
            println!("skipped: {command}: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            println!("skipped: {command}: {error}");
            None
        }
    }
}

#[test]
fn a_loop_device_works_and_is_held_exclusively() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(device) = Loop::over(&directory.path().join("backing"), 32 * MIB) else { return };
    let machine = Machine::new();
    let disk = machine.open(&device.device, 32 * MIB, false).expect("it opens");
    assert_eq!(machine.run(&disk, write(MIB, 4 * MIB, 3, false)).result, Ok(()));
    assert_eq!(machine.run(&disk, write(0, 4096, 4, true)).result, Ok(()));
    assert_eq!(machine.run(&disk, Operation::Flush).result, Ok(()));
    let buffer = machine.run(&disk, read(MIB, 4 * MIB)).buffer.expect("it was read");
    assert!(buffer.iter().all(|&byte| byte == 3));
    let second = machine.open(&device.device, 32 * MIB, false).map(|_| ());
    assert!(matches!(second, Err(ProbeError::InUse { .. })), "{second:?}");
    drop(disk);
    machine.join();
    // Released in the moment the thread ends, not some time after.
    drop(machine.open(&device.device, 32 * MIB, false).expect("it is free again"));
    machine.join();
}

#[test]
fn a_loop_device_whose_file_is_cut_fails_and_never_reads_zeros() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(device) = Loop::over(&directory.path().join("backing"), 32 * MIB) else { return };
    let machine = Machine::new();
    let disk = machine.open(&device.device, 32 * MIB, false).expect("it opens");
    assert_eq!(machine.run(&disk, write(0, 32 * MIB / 2, 3, false)).result, Ok(()));
    assert_eq!(machine.run(&disk, Operation::Flush).result, Ok(()));
    let file = OpenOptions::new().write(true).open(&device.backing).expect("it is ours");
    file.set_len(MIB).expect("files can be cut");
    let outcome = machine.run(&disk, read(8 * MIB, MIB));
    assert!(outcome.result.is_err(), "cut file: {:?}", outcome.result);
    // The device learns of its new size: now its end is inside what we use.
    run("losetup", &["--set-capacity", &text(&device.device)]).expect("losetup -c works");
    let outcome = machine.run(&disk, read(4 * MIB, MIB));
    assert!(outcome.result.is_err(), "shrunk device: {:?}", outcome.result);
    drop(disk);
    machine.join();
}
