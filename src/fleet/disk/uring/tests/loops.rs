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

/// An ext4 that can be frozen: writes to files on it then hang in the kernel, beyond any signal.
struct Freezer(PathBuf);

impl Freezer {
    fn new(directory: &Path) -> Option<Freezer> {
        let (image, mount) = (directory.join("ext4"), directory.join("mnt"));
        std::fs::create_dir(&mount).expect("the directory is ours");
        let file = File::create(&image).expect("the directory is ours");
        file.set_len(64 * MIB).expect("sparse files are allowed");
        run("mkfs.ext4", &["-q", "-F", &text(&image)])?;
        run("mount", &["-o", "loop", &text(&image), &text(&mount)])?;
        Some(Freezer(mount))
    }

    fn set_frozen(&self, frozen: bool) -> Option<String> {
        run("fsfreeze", &[if frozen { "--freeze" } else { "--unfreeze" }, &text(&self.0)])
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        run("umount", &["--lazy", &text(&self.0)]);
    }
}

const CHILD: &str = "fleet::disk::uring::tests::loops::a_process_with_hung_disks";
const CHILD_DISKS: &str = "ISOTHERM_TEST_HUNG_DISKS";

/// Not a test by itself: the process that the next one kills. Opens the disks it is told, the last
/// one healthy, and hangs in a write on each of the others.
#[test]
#[ignore = "run by the next test, in a process of its own"]
fn a_process_with_hung_disks() {
    let Ok(disks) = std::env::var(CHILD_DISKS) else { return };
    let machine = Machine::new();
    let mut open = Vec::new();
    for disk in disks.split(',') {
        let is_file = !disk.starts_with("/dev/");
        open.push(machine.open(Path::new(disk), 4 * MIB, is_file).expect("it opens"));
    }
    let healthy = open.pop().expect("there is one");
    assert_eq!(machine.run(&healthy, write(0, MIB, 1, true)).result, Ok(()));
    // The parent freezes the hung ones' filesystem when it reads this, and answers with a line.
    println!("opened");
    std::io::stdin().read_line(&mut String::new()).expect("the parent answers");
    let fan = Fan::new(open.len());
    for (slot, disk) in open.iter().enumerate() {
        let operation = write(0, MIB, 2, false);
        fan.submit(slot, disk, Request { operation, class: Class::Flush, deadline: None });
    }
    let deadline = machine.clock.now() + Duration::from_secs(1);
    assert!(!fan.wait(&machine.wait, Some(deadline), |view| view.succeeded() > 0), "they hang");
    assert_eq!(machine.run(&healthy, read(0, MIB)).result, Ok(()), "others do not");
    println!("hung");
    fan.wait(&machine.wait, None, |view| view.pending() == 0);
}

/// Waits for a line of the child's output.
fn await_line(output: &mut impl std::io::BufRead, expected: &str) {
    let mut line = String::new();
    while line.trim_end() != expected {
        line.clear();
        let count = output.read_line(&mut line).expect("the pipe works");
        assert!(count > 0, "the child ended before it was {expected}");
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "waits for the kernel to release a real device")]
fn r7_a_killed_process_with_hung_disks_releases_the_others() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(healthy) = Loop::over(&directory.path().join("healthy"), 4 * MIB) else { return };
    let Some(freezer) = Freezer::new(directory.path()) else { return };
    let Some(hung) = Loop::over(&freezer.0.join("backing"), 4 * MIB) else { return };
    let hung_file = freezer.0.join("file");
    File::create(&hung_file).and_then(|file| file.set_len(4 * MIB)).expect("it has room");
    let disks = [&hung_file, &hung.device, &healthy.device].map(|path| text(path)).join(",");
    let mut child = Command::new(std::env::current_exe().expect("we run"))
        .args([CHILD, "--exact", "--ignored", "--nocapture"])
        .env(CHILD_DISKS, disks)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("we can run ourselves");
    let mut output = std::io::BufReader::new(child.stdout.take().expect("it is piped"));
    await_line(&mut output, "opened");
    let frozen = freezer.set_frozen(true).is_some();
    if frozen {
        let mut input = child.stdin.take().expect("it is piped");
        std::io::Write::write_all(&mut input, b"\n").expect("the child reads");
        await_line(&mut output, "hung");
    }
    child.kill().expect("it runs");
    let start = std::time::Instant::now();
    let machine = Machine::new();
    let mut opened = machine.open(&healthy.device, 4 * MIB, false).map(|_| ());
    while opened.is_err() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
        opened = machine.open(&healthy.device, 4 * MIB, false).map(|_| ());
    }
    println!("released {:?} after the kill", start.elapsed());
    let still_hung = machine.open(&hung_file, 4 * MIB, true).map(|_| ());
    machine.join();
    freezer.set_frozen(false);
    child.wait().expect("it was killed");
    drop(hung);
    assert!(frozen, "fsfreeze works");
    assert_eq!(opened, Ok(()), "the healthy disk is free while the others hang");
    assert!(still_hung.is_err(), "R7: what hangs stays held");
}

/// Rates of 1 MiB requests, eight in flight, on the device named in ISOTHERM_TEST_DEVICE (which is
/// overwritten), to be set beside those of fio in the same minute:
/// `fio --ioengine=io_uring --direct=1 --bs=1M --iodepth=8 --rw=write --name=x --filename=DEVICE`.
#[test]
#[ignore = "a measurement: needs ISOTHERM_TEST_DEVICE, which it overwrites"]
fn rates_of_large_requests() {
    let Ok(device) = std::env::var("ISOTHERM_TEST_DEVICE") else { return };
    let machine = Machine::new();
    let bytes = crate::fleet::disk::identify(Path::new(&device)).expect("it is a disk");
    let bytes = bytes.identity.bytes / MIB * MIB;
    let disk = machine.open(Path::new(&device), bytes, false).expect("it opens");
    let data = Slice::from(Buffer::zeroed(MIB as usize));
    for writes in [true, false] {
        let mut buffers: Vec<Buffer> = (0..8).map(|_| Buffer::zeroed(MIB as usize)).collect();
        let fan = Fan::new(8);
        let start = machine.clock.now();
        let mut next = 0;
        while next < bytes || fan.look(|view| view.pending() > 0) {
            for slot in 0..8 {
                if let Some(outcome) = fan.take(slot) {
                    assert_eq!(outcome.result, Ok(()));
                    buffers.extend(outcome.buffer);
                }
                if next < bytes && !fan.look(|view| view.is_pending(slot)) {
                    let operation = if writes {
                        Operation::Write { offset: next, data: data.clone(), durable: false }
                    } else {
                        let buffer = buffers.pop().expect("one for each slot");
                        Operation::Read { offset: next, buffer }
                    };
                    next += MIB;
                    let class = Class::Flush;
                    fan.submit(slot, &disk, Request { operation, class, deadline: None });
                }
            }
            fan.wait(&machine.wait, None, |view| view.succeeded() > 0 || view.pending() == 0);
        }
        let seconds = machine.clock.now().since(start).as_secs_f64();
        let name = if writes { "write" } else { "read" };
        println!("{name}: {:.0} MB/s, {:?}", bytes as f64 / seconds / 1e6, disk.load());
    }
}
