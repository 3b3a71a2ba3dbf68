//! Trees as kernels show them, of shelves that the machine running the tests does not have.

use super::*;

struct Shelf {
    directory: tempfile::TempDir,
}

impl Shelf {
    fn new() -> Shelf {
        Shelf { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    fn tree(&self) -> Tree {
        Tree::at(self.directory.path())
    }

    fn file(&self, path: &str, text: &[u8]) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("the directory is ours");
        fs::write(path, text).expect("the directory is ours");
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("the directory is ours");
        std::os::unix::fs::symlink(target, path).expect("the directory is ours");
    }

    /// A device at sys/devices/`place`, known by number and name.
    fn device(&self, place: &str, number: &str, files: &[(&str, &str)]) {
        let name = place.rsplit('/').next().expect("it has a name");
        self.file(&format!("sys/devices/{place}/dev"), format!("{number}\n").as_bytes());
        for (file, text) in files {
            self.file(&format!("sys/devices/{place}/{file}"), format!("{text}\n").as_bytes());
        }
        self.link(&format!("sys/dev/block/{number}"), &format!("../../devices/{place}"));
        self.link(&format!("sys/class/block/{name}"), &format!("../../devices/{place}"));
        if !files.iter().any(|(file, _)| *file == "partition") {
            self.link(&format!("sys/block/{name}"), &format!("../devices/{place}"));
        }
    }

    fn get(&self, major: u64, minor: u64) -> Device {
        self.tree().device(nix::sys::stat::makedev(major, minor)).expect("the shelf has it")
    }

    fn drives(&self, major: u64, minor: u64) -> Vec<String> {
        let below = |path: &Path| match path.to_str() {
            Some("/dev/sda1") => Some(Below::Device(nix::sys::stat::makedev(8, 1))),
            Some(path) => Some(Below::File(format!("file {path}"))),
            None => None,
        };
        self.get(major, minor).drives(&below).into_iter().collect()
    }
}

/// sda with a partition, sdb as a second path to the same drive, sdc without any name; dm-0 over sda1
/// and sdc, dm-1 over dm-0; loop0 over a file, loop1 over /dev/sda1; an NVMe drive.
fn shelf() -> Shelf {
    let shelf = Shelf::new();
    let sata = [
        ("size", "15628053168"),
        ("queue/rotational", "1"),
        ("queue/logical_block_size", "512"),
        ("queue/fua", "0"),
        ("queue/write_cache", "write back"),
        ("device/model", "ST8000NM0055-1RM"),
        ("device/wwid", "naa.5000c500a1b2c3d4"),
        ("ro", "0"),
    ];
    shelf.device("pci0/ata1/block/sda", "8:0", &sata);
    shelf.device("pci0/ata2/block/sdb", "8:16", &sata);
    for disk in ["ata1/block/sda", "ata2/block/sdb"] {
        shelf.file(
            &format!("sys/devices/pci0/{disk}/device/vpd_pg80"),
            b"\0\x80\0\x10  ZA1XXXXX  \0\0",
        );
    }
    shelf.device("pci0/ata1/block/sda/sda1", "8:1", &[("partition", "1"), ("size", "2048")]);
    shelf.file("sys/devices/pci0/ata1/block/sda/sda1/holders/dm-0/x", b"");
    shelf.device("pci0/usb/block/sdc", "8:32", &[("size", "4096"), ("ro", "1")]);
    shelf.device("virtual/block/dm-0", "252:0", &[("size", "2048")]);
    shelf.file("sys/devices/virtual/block/dm-0/slaves/sda1/x", b"");
    shelf.file("sys/devices/virtual/block/dm-0/slaves/sdc/x", b"");
    shelf.device("virtual/block/dm-1", "252:1", &[("size", "2048")]);
    shelf.file("sys/devices/virtual/block/dm-1/slaves/dm-0/x", b"");
    shelf.device("virtual/block/loop0", "7:0", &[("loop/backing_file", "/images/disk 1")]);
    shelf.device("virtual/block/loop1", "7:1", &[("loop/backing_file", "/dev/sda1")]);
    let nvme = [
        ("device/serial", "S4EVNX0N"),
        ("device/model", "Samsung SSD 970"),
        ("wwid", "eui.0025385b"),
        ("queue/fua", "1"),
    ];
    shelf.device("pci0/nvme/nvme0/nvme0n1", "259:0", &nvme);
    shelf
}

#[test]
fn r24_every_way_to_a_drive_has_its_key() {
    let shelf = shelf();
    let sda = ["serial ST8000NM0055-1RM ZA1XXXXX"];
    assert_eq!(shelf.drives(8, 0), sda);
    assert_eq!(shelf.drives(8, 16), sda, "a second path to the same drive");
    assert_eq!(shelf.drives(8, 1), sda, "a partition");
    assert_eq!(shelf.drives(7, 1), sda, "a loop device over a partition");
    assert_eq!(shelf.drives(8, 32), ["device sdc"]);
    let both = ["device sdc", sda[0]];
    assert_eq!(shelf.drives(252, 0), both, "a volume over two drives");
    assert_eq!(shelf.drives(252, 1), both, "a volume over a volume");
    assert_eq!(shelf.drives(7, 0), ["file /images/disk 1"]);
    assert_eq!(shelf.drives(259, 0), ["serial Samsung SSD 970 S4EVNX0N"]);
    assert!(shelf.tree().device(nix::sys::stat::makedev(9, 9)).is_none());
}

#[test]
fn stacks_that_end_nowhere_are_survived() {
    let shelf = Shelf::new();
    shelf.device("virtual/block/dm-0", "252:0", &[]);
    shelf.file("sys/devices/virtual/block/dm-0/slaves/dm-0/x", b"");
    assert_eq!(shelf.drives(252, 0), ["device dm-0"]);
}

#[test]
fn a_disk_is_described_by_its_kernel() {
    let shelf = shelf();
    let disk = shelf.get(8, 0);
    assert_eq!((disk.name().as_str(), disk.bytes()), ("sda", 8_001_563_222_016));
    assert_eq!((disk.model().as_str(), disk.serial().as_str()), ("ST8000NM0055-1RM", "ZA1XXXXX"));
    assert_eq!(disk.queue("rotational"), Some(1));
    assert!(!disk.has_durable_writes(), "a volatile cache and no FUA");
    assert!(shelf.get(259, 0).has_durable_writes(), "FUA");
    shelf.file("sys/devices/pci0/ata1/block/sda/queue/write_cache", b"write through\n");
    let partition = shelf.get(8, 1);
    assert!(partition.has_durable_writes(), "no cache; a partition has its disk's queue");
    assert_eq!(
        (partition.queue("rotational"), partition.holders()),
        (Some(1), vec!["dm-0".into()])
    );
    assert_eq!(disk.partitions().iter().map(Device::name).collect::<Vec<_>>(), ["sda1"]);
    assert!(shelf.get(8, 32).is_read_only() && !disk.is_read_only());
    assert_eq!(shelf.tree().loops_over(Path::new("/images/disk 1")), ["loop0"]);
}

#[test]
fn the_name_that_people_know_comes_first() {
    let shelf = Shelf::new();
    for (name, node) in [
        ("wwn-0x5000c500", "sda"),
        ("scsi-SATA_ST8000", "sda"),
        ("ata-ST8000NM0055_ZA1", "sda"),
        ("ata-ST8000NM0055_ZA1-part1", "sda1"),
    ] {
        shelf.link(&format!("dev/disk/by-id/{name}"), &format!("../../{node}"));
    }
    assert_eq!(shelf.tree().by_id("sda"), "ata-ST8000NM0055_ZA1");
    assert_eq!(shelf.tree().by_id("sdb"), "");
    assert_eq!(Shelf::new().tree().by_id("sda"), "");
}

#[test]
fn i9_mounts_and_swap_are_seen() {
    let shelf = Shelf::new();
    shelf.file(
        "proc/self/mountinfo",
        b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
          40 27 8:1 / /mnt/my\\040disk rw shared:1 master:2 - ext4 /dev/sda1 rw\n\
          nonsense\n",
    );
    shelf.file("proc/swaps", b"Filename\tType\tSize\n/dev/sdb2  partition 8 0 -2\n");
    let mounts = shelf.tree().mounts();
    assert_eq!(mounts.len(), 2);
    let (device, at, source) = ("8:1".into(), "/mnt/my disk".into(), "/dev/sda1".into());
    assert_eq!(mounts[1], Mount { device, at, source });
    assert_eq!(shelf.tree().swaps(), [PathBuf::from("/dev/sdb2")]);
}

#[test]
fn r24_disks_that_share_an_enclosure_are_known() {
    let shelf = Shelf::new();
    let host = "pci0000:3a/0000:3a:00.0/0000:3b:00.0/host6";
    for (name, number, slot) in [("sda", "8:0", "Slot 01"), ("sdb", "8:16", "Slot 02")] {
        let place = format!("{host}/port-6:0/end_device-{number}/block/{name}");
        shelf.device(&place, number, &[("size", "4096")]);
        let directory = format!("sys/devices/{place}/device");
        shelf.file(&format!("{directory}/model"), b"X");
        shelf.file(&format!("sys/devices/{host}/enclosure/6:0:9:0/{slot}/fault"), b"0\n");
        let root = shelf.directory.path().join("sys/devices");
        let slot_at = root.join(host).join("enclosure/6:0:9:0").join(slot);
        let link = format!("{directory}/enclosure_device:{slot}");
        shelf.link(&link, slot_at.to_str().expect("it is ASCII"));
    }
    assert_eq!(shelf.get(8, 0).enclosure().as_deref(), Some("enclosure 6:0:9:0"), "without an id");
    shelf.file(&format!("sys/devices/{host}/enclosure/6:0:9:0/id"), b"0x500304800a1b2c3f\n");
    let known = Some("enclosure 0x500304800a1b2c3f");
    assert_eq!(shelf.get(8, 0).enclosure().as_deref(), known);
    assert_eq!(shelf.get(8, 16).enclosure().as_deref(), known, "both by its own identity");
    // No enclosure speaks for it: the box on USB, with its bridges; else the controller.
    let usb = "pci0000:00/0000:00:14.0/usb2/2-3/2-3.1";
    for (lun, name, number) in [("0", "sdc", "8:32"), ("1", "sdd", "8:48")] {
        let place = format!("{usb}/2-3.1:1.0/host8/target8:0:0/8:0:0:{lun}/block/{name}");
        shelf.device(&place, number, &[("size", "4096")]);
        assert_eq!(shelf.drives(8, if lun == "0" { 32 } else { 48 }), [format!("device {name}")]);
    }
    for hub in ["usb2", "usb2/2-3", "usb2/2-3/2-3.1"] {
        shelf.file(&format!("sys/devices/pci0000:00/0000:00:14.0/{hub}/idVendor"), b"174c\n");
    }
    assert_eq!(shelf.get(8, 32).enclosure().as_deref(), Some("usb 2-3.1"));
    assert_eq!(shelf.get(8, 48).enclosure().as_deref(), Some("usb 2-3.1"));
    let sata = "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sde";
    shelf.device(sata, "8:64", &[("size", "4096")]);
    shelf.device(&format!("{sata}/sde1"), "8:65", &[("partition", "1")]);
    for minor in [64, 65] {
        let of = shelf.get(8, minor).enclosure();
        assert_eq!(
            of.as_deref(),
            Some("controller 0000:00:1f.2"),
            "a partition is where its disk is"
        );
    }
    shelf.device("virtual/block/loop0", "7:0", &[("loop/backing_file", "/images/disk 1")]);
    assert_eq!(shelf.get(7, 0).enclosure(), None);
}
