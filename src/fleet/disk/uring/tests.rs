//! On files in a temporary directory, without root; on loop devices where the machine lets us.

use super::super::{Buffer, Class, Fan, Operation, Outcome, Slice};
use super::*;
use crate::base::clock::TestClock;
use crate::base::wait::ParkingWait;
use crate::base::{MIB, Random, UNIT_BYTES};
use crate::fleet::disk::DiskState;

mod loops;

/// What pool does for disks.
pub(super) struct Machine {
    clock: Arc<dyn Clock>,
    wait: ParkingWait,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

#[allow(clippy::disallowed_methods, reason = "a real disk needs a real clock and a real thread")]
impl Machine {
    pub fn new() -> Machine {
        let clock = TestClock::start();
        Machine { wait: ParkingWait::new(clock.clone()), clock, threads: Mutex::default() }
    }

    pub fn open(&self, path: &Path, bytes: u64, is_file: bool) -> Result<DiskHandle, ProbeError> {
        let identity = Identity {
            path: path.display().to_string(),
            bytes,
            is_file,
            logical_sector_bytes: 512,
            physical_sector_bytes: 4096,
            ..Identity::default()
        };
        let spawn = |name: String, main: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name).spawn(main);
            self.threads.lock().push(thread.expect("the machine has threads left"));
        };
        let options = UringOptions {
            clock: self.clock.clone(),
            wait: &self.wait,
            spawn: &spawn,
            read_only: false,
        };
        UringDisk::open(path, identity, options)
    }

    /// Waits until all disks that were dropped are released.
    pub fn join(&self) {
        for thread in std::mem::take(&mut *self.threads.lock()) {
            thread.join().expect("the disk's thread does not panic");
        }
    }

    pub fn run(&self, disk: &DiskHandle, operation: Operation) -> Outcome {
        let fan = Fan::new(1);
        fan.submit(0, disk, Request { operation, class: Class::Foreground, deadline: None });
        let deadline = self.clock.now() + Duration::from_secs(60);
        assert!(fan.wait(&self.wait, Some(deadline), |view| view.pending() == 0), "no answer");
        fan.take(0).expect("it was answered")
    }
}

pub(super) fn read(offset: u64, bytes: u64) -> Operation {
    let mut buffer = Buffer::zeroed(bytes as usize);
    buffer.fill(0xEE);
    Operation::Read { offset, buffer }
}

pub(super) fn write(offset: u64, bytes: u64, fill: u8, durable: bool) -> Operation {
    let mut buffer = Buffer::zeroed(bytes as usize);
    buffer.fill(fill);
    Operation::Write { offset, data: Slice::from(buffer), durable }
}

fn file_disk(directory: &tempfile::TempDir, bytes: u64) -> PathBuf {
    let path = directory.path().join("disk");
    let file = File::create(&path).expect("the directory is ours");
    file.set_len(bytes).expect("sparse files are allowed");
    path
}

#[test]
fn a_file_is_written_flushed_and_read_back() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file_disk(&directory, 16 * MIB);
    let machine = Machine::new();
    let disk = machine.open(&path, 16 * MIB, true).expect("it opens");
    assert_eq!(machine.run(&disk, write(MIB, 2 * MIB, 5, false)).result, Ok(()));
    assert_eq!(machine.run(&disk, write(0, 4096, 6, true)).result, Ok(()));
    assert_eq!(machine.run(&disk, Operation::Flush).result, Ok(()));
    let outcome = machine.run(&disk, read(MIB - 4096, MIB));
    assert_eq!(outcome.result, Ok(()));
    let buffer = outcome.buffer.expect("reads return their buffer");
    assert!(buffer[..4096].iter().all(|&byte| byte == 0));
    assert!(buffer[4096..].iter().all(|&byte| byte == 5));
    let counters = disk.counters();
    assert_eq!((counters.reads, counters.writes), (1, 2));
    // A durable write on a file is a write and a flush.
    assert_eq!(counters.flushes, 2);
    assert_eq!((disk.in_flight(), disk.load().requests), (0, 0));
    drop(disk);
    machine.join();
    assert_eq!(std::fs::read(&path).expect("it is a file")[0], 6);
}

/// What a service manager or a clean shell leaves open decides which number `open` gets: any of them
/// will do, the one that is set aside too.
#[test]
#[allow(clippy::disallowed_methods, reason = "a file table of its own needs a thread of its own")]
fn a_disk_settles_from_whatever_number_it_was_opened_under() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file_disk(&directory, MIB);
    let opening = Opening { path: path.clone(), read_only: false };
    let settling = std::thread::spawn(move || {
        isolate().expect("a thread may leave the file table");
        let mut file = File::open(&path).expect("it is there");
        for _ in 0..2 {
            file = opening.settle(file).expect("any number will do");
            assert_eq!(file.metadata().expect("it is open").len(), MIB);
        }
        file.as_raw_fd()
    });
    let number = Wake::numbers().expect("eventfds are to be had").disk;
    assert_eq!(settling.join().expect("it settles"), number);
}

#[test]
fn r7_a_disk_is_held_exclusively_until_it_is_closed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file_disk(&directory, MIB);
    let machine = Machine::new();
    let disk = machine.open(&path, MIB, true).expect("it opens");
    let second = machine.open(&path, MIB, true).map(|_| ());
    assert!(matches!(second, Err(ProbeError::InUse { .. })), "{second:?}");
    drop(disk);
    machine.join();
    drop(machine.open(&path, MIB, true).expect("it is free again"));
    let larger = machine.open(&path, 2 * MIB, true).map(|_| ());
    assert!(larger.is_err());
    machine.join();
    let missing = machine.open(&directory.path().join("no"), MIB, true).map(|_| ());
    assert!(matches!(missing, Err(ProbeError::NotFound { .. })), "{missing:?}");
    let other = machine.open(directory.path(), MIB, true).map(|_| ());
    assert!(other.is_err(), "a directory is no disk");
}

#[test]
fn a_file_that_shrank_is_gone_and_never_zeros() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file_disk(&directory, 8 * MIB);
    let machine = Machine::new();
    let disk = machine.open(&path, 8 * MIB, true).expect("it opens");
    assert_eq!(machine.run(&disk, write(0, 8 * MIB, 9, false)).result, Ok(()));
    let file = OpenOptions::new().write(true).open(&path).expect("it is ours");
    file.set_len(MIB).expect("files can be cut");
    let outcome = machine.run(&disk, read(4 * MIB, MIB));
    assert_eq!(outcome.result, Err(DiskError::Gone));
    assert_eq!(disk.state(), DiskState::Failed);
    assert_eq!(machine.run(&disk, read(0, MIB)).result, Err(DiskError::Failed));
    assert_eq!(machine.run(&disk, Operation::Flush).result, Err(DiskError::Failed));
}

/// Writing made the file longer again, and what it had lost read as zeros: a disk that was taken away under
/// a pool of image files was said to be active.
#[test]
fn a_file_that_was_cut_off_does_not_come_back_with_a_write() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file_disk(&directory, 8 * MIB);
    let machine = Machine::new();
    let disk = machine.open(&path, 8 * MIB, true).expect("it opens");
    assert_eq!(machine.run(&disk, write(0, 8 * MIB, 9, false)).result, Ok(()));
    let file = OpenOptions::new().write(true).open(&path).expect("it is ours");
    file.set_len(0).expect("files can be cut");
    assert_eq!(machine.run(&disk, write(4 * MIB, MIB, 7, false)).result, Err(DiskError::Gone));
    assert_eq!(machine.run(&disk, read(0, MIB)).result, Err(DiskError::Failed));
}

#[test]
fn many_requests_at_once_do_what_they_say() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    const UNITS: u64 = 512;
    let path = file_disk(&directory, UNITS * UNIT_BYTES);
    let machine = Machine::new();
    let disk = machine.open(&path, UNITS * UNIT_BYTES, true).expect("it opens");
    let mut random = Random::new(11);
    let mut model = vec![0u8; UNITS as usize];
    for round in 0..20u8 {
        let fan = Fan::new(0);
        let classes = [Class::Foreground, Class::Journal, Class::Flush, Class::Background];
        // Disjoint places, so that any order gives the same.
        for slot in 0..64u64 {
            let first = slot * 8 + random.below(4);
            let units = 1 + random.below(4);
            let class = classes[random.below(4) as usize];
            let operation = match random.below(8) {
                0 => Operation::Flush,
                1..4 => {
                    let fill = 1 + round + slot as u8;
                    model[first as usize..(first + units) as usize].fill(fill);
                    write(first * UNIT_BYTES, units * UNIT_BYTES, fill, random.one_in(4))
                }
                _ => read(first * UNIT_BYTES, units * UNIT_BYTES),
            };
            fan.submit(slot as usize, &disk, Request { operation, class, deadline: None });
        }
        assert!(fan.wait(&machine.wait, None, |view| view.pending() == 0));
        assert_eq!(fan.look(|view| view.failed()), 0);
    }
    let all = machine.run(&disk, read(0, UNITS * UNIT_BYTES)).buffer.expect("it was read");
    for (unit, &expected) in model.iter().enumerate() {
        assert_eq!(all[unit * 4096], expected, "unit {unit}");
        assert_eq!(all[unit * 4096 + 4095], expected, "unit {unit}");
    }
    let counters = disk.counters();
    assert_eq!(counters.errors, 0);
    assert_eq!(disk.load().requests, 0);
}

#[test]
fn dropping_a_disk_answers_everything_that_was_accepted() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file_disk(&directory, 64 * MIB);
    let machine = Machine::new();
    let disk = machine.open(&path, 64 * MIB, true).expect("it opens");
    let answered = Arc::new(Mutex::new(0));
    for slot in 0..64 {
        let operation = write(slot * MIB, MIB, 1, false);
        let answered = answered.clone();
        // Past the fan, which would hold the handle.
        let done = Box::new(move |outcome: Outcome| {
            assert_eq!(outcome.result, Ok(()));
            *answered.lock() += 1;
        });
        disk.submit(Request { operation, class: Class::Flush, deadline: None }, done);
    }
    drop(disk);
    machine.join();
    assert_eq!(*answered.lock(), 64);
}

#[test]
fn r7_only_its_own_thread_holds_a_disk_and_under_the_number_set_aside() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file_disk(&directory, MIB);
    let machine = Machine::new();
    let disk = machine.open(&path, MIB, true).expect("it opens");
    assert_eq!(machine.run(&disk, write(0, 4096, 1, true)).result, Ok(()));
    let path = std::fs::canonicalize(&path).expect("it is there");
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").expect("proc is mounted").flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let Ok(descriptors) = std::fs::read_dir(task.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            if std::fs::read_link(descriptor.path()).is_ok_and(|target| target == path) {
                assert!(name.starts_with("disk-") || name.starts_with("iou-"), "held by {name}");
                found.push(descriptor.file_name().to_string_lossy().into_owned());
            }
        }
    }
    let number = Wake::numbers().expect("they were made").disk;
    assert!(!found.is_empty() && found.iter().all(|found| *found == number.to_string()));
    let here = std::fs::read_link(format!("/proc/thread-self/fd/{number}"));
    assert_eq!(here.expect("it is taken everywhere"), Path::new("anon_inode:[eventfd]"));
    drop(disk);
    machine.join();
}

#[test]
fn an_answer_is_judged_by_what_it_says_about_the_disk() {
    let medium = Err(DiskError::Medium { offset: 8192 });
    let cases = [
        (4096, false, Ok(())),
        (4096, true, Ok(())),
        (0, false, Err(DiskError::Gone)),
        (0, true, Err(DiskError::Gone)),
        (512, false, Err(DiskError::Gone)),
        (-libc::ENOSPC, false, Err(DiskError::Gone)),
        (-libc::ENOSPC, true, Err(DiskError::HostFull)),
        (-libc::EDQUOT, true, Err(DiskError::HostFull)),
        (-libc::EIO, false, medium),
        (-libc::ENODATA, false, medium),
        (-libc::EILSEQ, true, medium),
        (-libc::ENODEV, false, Err(DiskError::Gone)),
        (-libc::ENXIO, false, Err(DiskError::Gone)),
        (-libc::EBADF, true, Err(DiskError::Gone)),
        (-libc::EAGAIN, false, Err(DiskError::Gone)),
    ];
    for (answer, is_file, expected) in cases {
        assert_eq!(judge(answer, 4096, 8192, is_file), expected, "{answer} {is_file}");
    }
    assert_eq!(judge(0, 0, 0, false), Ok(()), "a flush moves nothing");
}
