//! The `isotherm` command from outside: a pool on image files, as any user can make one.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use isotherm::frontend::abandon;
use isotherm::frontend::mounts::find_mount;

use crate::harness::is_root;

const MIB: u64 = 1 << 20;

/// How many shelves this process has made: each has a name of its own.
static SHELVES: AtomicUsize = AtomicUsize::new(0);

/// Six image files, a mount point, and a run directory of their own.
pub struct Shelf {
    pub name: String,
    pub directory: tempfile::TempDir,
    pub disks: Vec<PathBuf>,
}

impl Shelf {
    pub fn new() -> Shelf {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("mnt")).expect("mkdir");
        let disks = (0..6).map(|index| {
            let path = directory.path().join(format!("disk{index}"));
            let file = File::create(&path).expect("create");
            file.set_len((300 + 40 * index) * MIB).expect("a sparse file");
            path
        });
        let disks = disks.collect();
        let number = SHELVES.fetch_add(1, Ordering::Relaxed);
        let name = format!("shelf-{}-{number}", std::process::id());
        Shelf { name, directory, disks }
    }

    pub fn mountpoint(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let output = Command::new(env!("CARGO_BIN_EXE_isotherm"))
            .args(arguments)
            .env("XDG_RUNTIME_DIR", self.directory.path())
            .env("XDG_STATE_HOME", self.directory.path())
            .output();
        output.expect("the program runs")
    }

    /// Runs `command DISKS... rest`.
    pub fn with_disks(&self, command: &[&str], rest: &[&str]) -> Output {
        let disks = self.disks.iter().map(|disk| disk.to_str().expect("our own names"));
        let arguments: Vec<&str> =
            command.iter().copied().chain(disks).chain(rest.iter().copied()).collect();
        self.run(&arguments)
    }

    pub fn create(&self) {
        let made = self.with_disks(&["create", &self.name], &[]);
        assert!(made.status.success(), "{}", said(&made));
    }

    pub fn mount(&self) -> bool {
        if File::options().read(true).write(true).open("/dev/fuse").is_err() {
            eprintln!("skipped: /dev/fuse cannot be opened");
            return false;
        }
        let log = self.directory.path().join("log").display().to_string();
        let mountpoint = self.mountpoint().display().to_string();
        let mounted = self.with_disks(&["mount"], &[&mountpoint, "--log", &log]);
        assert!(mounted.status.success(), "{}", said(&mounted));
        assert!(find_mount(&self.mountpoint()).is_some(), "it returns when it is mounted");
        true
    }

    pub fn status(&self) -> (bool, serde_json::Value) {
        let output = self.run(&["status", "--json", &self.mountpoint().display().to_string()]);
        let pools = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
        let serde_json::Value::Array(mut pools) = pools else { panic!("an array of pools") };
        (output.status.success(), pools.remove(0))
    }

    pub fn sync(&self) -> Output {
        self.run(&["sync", &self.mountpoint().display().to_string()])
    }

    pub fn umount(&self) -> Output {
        self.run(&["umount", &self.mountpoint().display().to_string()])
    }

    /// As [`Shelf::umount`], which must do.
    pub fn umount_cleanly(&self) {
        let done = self.umount();
        assert!(done.status.success(), "{}", said(&done));
    }

    pub fn is_clean(&self) -> bool {
        self.disks.iter().all(|disk| {
            let label = self.run(&["inspect", "label", &disk.display().to_string()]);
            let text = String::from_utf8_lossy(&label.stdout).into_owned();
            text.contains(&self.name)
                && !text.lines().any(|line| line.trim_end().ends_with(" true"))
        })
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory.path().join("log"));
            eprintln!("its log:\n{}", log.unwrap_or_default());
        }
        if find_mount(&self.mountpoint()).is_some() {
            let _ = abandon(&self.mountpoint());
        }
    }
}

/// A process that has ended may still be there to be reaped.
fn is_alive(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.contains(" Z "))
}

pub fn said(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!("{} {}{}", output.status, String::from_utf8_lossy(out), String::from_utf8_lossy(error))
}

#[allow(clippy::disallowed_methods, reason = "a test waits for a process")]
pub fn wait_for(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "it takes too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn create_shows_the_choices_and_refuses_what_is_not_blank() {
    let shelf = Shelf::new();
    let shown = shelf.with_disks(&["create", "shelf"], &["--dry-run"]);
    let text = said(&shown);
    assert!(shown.status.success() && text.contains("*  ec:3+2"), "{text}");
    assert!(text.contains("survives any 2 failed disks"), "{text}");
    // A dry run has written nothing: everything is still blank.
    let shown = shelf.with_disks(&["create", "shelf"], &["--dry-run", "--redundancy", "replica:3"]);
    assert!(said(&shown).contains("*  replica:3"), "{}", said(&shown));
    shelf.create();
    // [I9] Not twice, and not over somebody else's.
    let again = shelf.with_disks(&["create", "other"], &[]);
    assert!(!again.status.success() && said(&again).contains("Isotherm"), "{}", said(&again));
    let forced = shelf.with_disks(&["create", "other"], &["--force"]);
    assert!(forced.status.success(), "{}", said(&forced));
    let one = shelf.run(&["create", "one", &shelf.disks[0].display().to_string(), "--force"]);
    assert!(!one.status.success() && said(&one).contains("--redundancy none"), "{}", said(&one));
}

#[test]
fn what_is_on_a_disk_can_be_looked_at_and_wiped() {
    let shelf = Shelf::new();
    let disk = shelf.disks[0].display().to_string();
    let blank = shelf.run(&["inspect", "root", &disk]);
    assert!(
        !blank.status.success() && said(&blank).contains("no usable label"),
        "{}",
        said(&blank)
    );
    shelf.create();
    for what in ["label", "root", "journal", "object", "layout"] {
        let shown = shelf.run(&["inspect", what, &disk]);
        assert!(shown.status.success(), "{what}: {}", said(&shown));
    }
    let listed = shelf.with_disks(&["list"], &[]);
    assert!(
        said(&listed).contains("6 of 6") && said(&listed).contains("clean"),
        "{}",
        said(&listed)
    );
    assert!(!shelf.run(&["wipe", &disk]).status.success(), "not without --yes");
    let wiped = shelf.run(&["wipe", &disk, "--yes"]);
    assert!(wiped.status.success(), "{}", said(&wiped));
    assert!(!shelf.run(&["wipe", &disk, "--yes"]).status.success(), "there is nothing any more");
    let listed = shelf.with_disks(&["list"], &[]);
    assert!(said(&listed).contains("5 of 6"), "{}", said(&listed));
    let size = shelf.run(&["inspect", "layout", "4T"]);
    assert!(said(&size).contains("4398046511104"), "{}", said(&size));
}

#[test]
fn a_pool_is_mounted_used_unmounted_and_clean() {
    let shelf = Shelf::new();
    shelf.create();
    if !shelf.mount() {
        return;
    }
    let file = shelf.mountpoint().join("file");
    fs::write(&file, vec![7; 3 << 20]).expect("whoever mounts a new pool may write to it");
    let (healthy, pool) = shelf.status();
    assert!(healthy, "{pool}");
    assert_eq!(pool["name"], shelf.name.as_str());
    let synced = shelf.run(&["sync", &file.display().to_string()]);
    assert!(synced.status.success(), "a path inside is as good: {}", said(&synced));
    // A second daemon is refused, and the first one named.
    let second = shelf.with_disks(&["mount"], &[&shelf.directory.path().display().to_string()]);
    let pid = pool["pid"].as_u64().expect("a number");
    assert!(!second.status.success(), "{}", said(&second));
    assert!(said(&second).contains(&format!("process {pid}")), "{}", said(&second));
    // In use: refused, and the user named.
    let open = File::open(&file).expect("open");
    let busy = shelf.umount();
    assert!(!busy.status.success(), "{}", said(&busy));
    assert!(said(&busy).contains(&std::process::id().to_string()), "{}", said(&busy));
    drop(open);
    let gone = shelf.umount();
    assert!(gone.status.success(), "{}", said(&gone));
    assert!(
        !is_alive(pid),
        "the daemon has ended: {}",
        fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default()
    );
    assert!(shelf.is_clean());
    assert!(shelf.mount());
    assert_eq!(fs::read(&file).expect("read"), vec![7; 3 << 20]);
    shelf.umount_cleanly();
}

#[test]
fn plain_umount_waits_for_a_clean_pool() {
    // [R27]
    if !is_root() {
        eprintln!("skipped: needs root: umount(8) of others is fusermount3 -u");
        return;
    }
    let shelf = Shelf::new();
    shelf.create();
    if !shelf.mount() {
        return;
    }
    let pid = shelf.status().1["pid"].as_u64().expect("a number");
    for number in 0..50 {
        fs::write(shelf.mountpoint().join(format!("{number}")), vec![1; 300_000]).expect("write");
    }
    let output = Command::new("umount").arg(shelf.mountpoint()).output().expect("umount runs");
    assert!(output.status.success(), "{}", said(&output));
    assert!(output.stderr.is_empty(), "nothing went wrong: {}", said(&output));
    assert!(
        !is_alive(pid),
        "the daemon has ended: {}",
        fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default()
    );
    assert!(shelf.is_clean());
}

#[test]
fn a_killed_daemons_mount_point_is_cleared_and_what_was_synced_is_there() {
    let shelf = Shelf::new();
    shelf.create();
    if !shelf.mount() {
        return;
    }
    let file = shelf.mountpoint().join("file");
    fs::write(&file, "synced").expect("write");
    File::open(&file).expect("open").sync_all().expect("fsync");
    let pid = shelf.status().1["pid"].as_u64().expect("a number");
    let killed = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid as i32),
        nix::sys::signal::Signal::SIGKILL,
    );
    killed.expect("it is ours");
    wait_for(|| nix::sys::statfs::statfs(&shelf.mountpoint()).is_err());
    assert!(shelf.mount(), "over its own dead mount point");
    assert_eq!(fs::read(&file).expect("read"), b"synced");
    let gone = shelf.umount();
    assert!(gone.status.success(), "{}", said(&gone));
}

#[test]
fn a_degraded_pool_says_so_and_exits_with_1() {
    // [I5]
    let shelf = Shelf::new();
    shelf.create();
    if !shelf.mount() {
        return;
    }
    let file = shelf.mountpoint().join("file");
    fs::write(&file, vec![9; 4 << 20]).expect("write");
    shelf.umount_cleanly();
    for disk in &shelf.disks[1..3] {
        File::options().write(true).open(disk).expect("open").set_len(0).expect("taken away");
    }
    assert!(shelf.mount());
    assert_eq!(fs::read(&file).expect("read"), vec![9; 4 << 20]);
    let (healthy, pool) = shelf.status();
    assert!(!healthy);
    assert_eq!(pool["health"], "degraded");
    let missing =
        pool["disks"].as_array().expect("disks").iter().filter(|disk| disk["state"] == "missing");
    assert_eq!(missing.count(), 2);
    assert!(!pool["advice"].as_array().expect("advice").is_empty());
    let gone = shelf.umount();
    assert!(gone.status.success(), "{}", said(&gone));
}

/// docs/semantics.md: "A disk that is back while the pool is mounted takes part again"
#[test]
fn a_disk_that_is_back_takes_part_again_and_never_serves_what_is_old() {
    // [R2, R5]
    let shelf = Shelf::new();
    shelf.create();
    if !shelf.mount() {
        return;
    }
    let file = shelf.mountpoint().join("file");
    fs::write(&file, vec![1; 4 << 20]).expect("write");
    shelf.umount_cleanly();
    let (disk, aside) = (&shelf.disks[1], shelf.directory.path().join("aside"));
    fs::rename(disk, &aside).expect("unplugged");
    File::create(disk).expect("an empty slot");
    assert!(shelf.mount());
    fs::write(&file, vec![2; 4 << 20]).expect("written without it");
    assert!(shelf.sync().status.success());
    assert_eq!(shelf.status().1["disks"][1]["state"], "missing");
    fs::rename(&aside, disk).expect("plugged in");
    wait_for(|| shelf.status().1["disks"][1]["state"] == "active");
    let (healthy, pool) = shelf.status();
    assert!(healthy, "{pool}");
    // Told a moment after it is so.
    wait_for(|| shelf.status().1["events"].to_string().contains("disk 1 is back"));
    assert_eq!(fs::read(&file).expect("read"), vec![2; 4 << 20]);
    fs::write(shelf.mountpoint().join("new"), vec![3; 4 << 20]).expect("written with it");
    shelf.umount_cleanly();
    // It counts for nothing that was written without it, and for all that was with it: two others may go.
    for disk in [&shelf.disks[0], &shelf.disks[4]] {
        File::options().write(true).open(disk).expect("open").set_len(0).expect("taken away");
    }
    assert!(shelf.mount());
    assert_eq!(fs::read(&file).expect("read"), vec![2; 4 << 20]);
    assert_eq!(fs::read(shelf.mountpoint().join("new")).expect("read"), vec![3; 4 << 20]);
    shelf.umount_cleanly();
}

#[test]
fn a_disk_that_was_taken_out_waits_to_be_taken_back() {
    let shelf = Shelf::new();
    shelf.create();
    if !shelf.mount() {
        return;
    }
    let mountpoint = shelf.mountpoint().display().to_string();
    let disk = |verb: &str, which: &str| shelf.run(&["disk", verb, &mountpoint, which]);
    let out = disk("offline", "2");
    assert!(out.status.success(), "{}", said(&out));
    fs::write(shelf.mountpoint().join("file"), vec![7; 4 << 20]).expect("written without it");
    wait_for(|| shelf.status().1["disks"][2]["seen_at"] != "");
    let (_, pool) = shelf.status();
    assert_eq!(pool["disks"][2]["state"], "failed", "nobody asked for it");
    let advice = pool["advice"].to_string();
    assert!(advice.contains(&format!("isotherm disk online {} 2", shelf.name)), "{advice}");
    let back = disk("online", "2");
    assert!(back.status.success() && said(&back).contains("takes part again"), "{}", said(&back));
    let (healthy, pool) = shelf.status();
    assert!(healthy && pool["disks"][2]["state"] == "active", "{pool}");
    assert!(said(&disk("online", "2")).contains("already"));
    let unknown = disk("online", "17");
    assert!(!unknown.status.success() && said(&unknown).contains("is no disk of the pool"));
    // One that is not there.
    assert!(disk("offline", "4").status.success());
    fs::rename(&shelf.disks[4], shelf.directory.path().join("aside")).expect("unplugged");
    let nowhere = disk("online", "4");
    assert!(!nowhere.status.success() && said(&nowhere).contains("is not to be seen"));
    assert_eq!(fs::read(shelf.mountpoint().join("file")).expect("read"), vec![7; 4 << 20]);
    shelf.umount_cleanly();
}

#[test]
fn mistakes_are_told_at_once() {
    let shelf = Shelf::new();
    let refused = |arguments: &[&str], word: &str| {
        let output = shelf.run(arguments);
        assert!(!output.status.success() && said(&output).contains(word), "{}", said(&output));
    };
    refused(&["mount", "no-such-pool", "/mnt", "-o", "frobnicate"], "frobnicate");
    refused(&["umount", "/no/such/place"], "no pool is mounted");
    refused(&["sync", "/no/such/place"], "/no/such/place");
    refused(&["create", "x", "/dev/null"], "/dev/null");
    refused(&["create", "x", "/no/such/disk"], "/no/such/disk");
    let disk = shelf.disks[0].display().to_string();
    refused(&["create", "x", &disk, "--redundancy", "raid5"], "raid5");
    refused(&["create", "x", &disk, &disk], "same physical drive");
}

#[test]
fn a_name_that_two_mounted_pools_have_is_refused() {
    let first = Shelf::new();
    let mut second = Shelf::new();
    second.name.clone_from(&first.name);
    for shelf in [&first, &second] {
        shelf.create();
        if !shelf.mount() {
            return;
        }
    }
    let mountpoints = [&first, &second].map(|shelf| shelf.mountpoint().display().to_string());
    for command in ["sync", "check", "umount"] {
        let refused = first.run(&[command, &first.name]);
        assert!(!refused.status.success(), "{command}: {}", said(&refused));
        for mountpoint in &mountpoints {
            assert!(said(&refused).contains(mountpoint), "{command}: {}", said(&refused));
        }
    }
    first.umount_cleanly();
    let gone = second.run(&["umount", &second.name]);
    assert!(gone.status.success(), "it is the only one now: {}", said(&gone));
}
