//! What the kernel says about a block device without touching it: /sys, /proc, /dev/disk.
//!
//! Nothing here waits for a disk, so a hung one can be looked at like any other. All paths start at
//! a [`Tree`], so that tests can show it shelves that this machine does not have.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where /sys, /proc and /dev are.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    root: PathBuf,
}

/// Devices stacked on devices end somewhere.
const DEPTH_MAX: u32 = 16;

impl Tree {
    /// This machine's.
    pub fn machine() -> Tree {
        Tree { root: PathBuf::from("/") }
    }

    /// One below another directory.
    #[cfg(test)]
    pub fn at(root: &Path) -> Tree {
        Tree { root: root.to_path_buf() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The device with this number, if the kernel knows it.
    pub fn device(&self, rdev: u64) -> Option<Device> {
        let (major, minor) = (nix::sys::stat::major(rdev), nix::sys::stat::minor(rdev));
        let directory = self.path(&format!("sys/dev/block/{major}:{minor}"));
        let directory = fs::canonicalize(directory).ok()?;
        Some(Device { tree: self.clone(), directory })
    }

    /// The device of this kernel name: `sda1`, `dm-0`.
    fn named(&self, name: &str) -> Option<Device> {
        let directory = fs::canonicalize(self.path(&format!("sys/class/block/{name}"))).ok()?;
        Some(Device { tree: self.clone(), directory })
    }

    /// Lines of a file; empty if it cannot be read.
    fn lines(&self, path: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(path)).unwrap_or_default();
        text.lines().map(str::to_string).collect()
    }

    /// Mounted filesystems: device number `major:minor`, mount point, source.
    pub fn mounts(&self) -> Vec<Mount> {
        self.lines("proc/self/mountinfo").iter().filter_map(|line| Mount::parse(line)).collect()
    }

    /// Paths of devices and files used as swap.
    pub fn swaps(&self) -> Vec<PathBuf> {
        let lines = self.lines("proc/swaps");
        let first = |line: &String| line.split_whitespace().next().map(unescape);
        lines.iter().skip(1).filter_map(first).map(PathBuf::from).collect()
    }

    /// Loop devices over this file.
    pub fn loops_over(&self, file: &Path) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("sys/block")) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .flatten()
            .filter(|entry| {
                let backing = fs::read_to_string(entry.path().join("loop/backing_file"));
                backing.is_ok_and(|backing| Path::new(backing.trim_end()) == file)
            })
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// A process other than `but` that has `file` open, in words.
    pub fn opened_by(&self, file: &Path, but: u32) -> Option<String> {
        let numbers = |path: PathBuf| {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
            entries.filter_map(number).collect::<Vec<u32>>()
        };
        let has_it = |pid: &u32| {
            let threads = self.path(&format!("proc/{pid}/task"));
            numbers(threads.clone()).into_iter().any(|thread| {
                let open = fs::read_dir(threads.join(format!("{thread}/fd")));
                let open = open.into_iter().flatten().flatten();
                open.into_iter()
                    .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == file))
            })
        };
        let pid = numbers(self.path("proc")).into_iter().filter(|&pid| pid != but).find(has_it)?;
        let name = self.lines(&format!("proc/{pid}/comm")).into_iter().next().unwrap_or_default();
        Some(format!("{name} (process {pid})"))
    }

    /// The best name of `node` under /dev/disk/by-id, empty if none: that of the model and serial
    /// number first, a world wide name last.
    pub fn by_id(&self, node: &str) -> String {
        let Ok(entries) = fs::read_dir(self.path("dev/disk/by-id")) else { return String::new() };
        let mut names: Vec<(bool, String)> = entries
            .flatten()
            .filter(|entry| {
                let target = fs::read_link(entry.path()).unwrap_or_default();
                target.file_name().is_some_and(|name| name == node)
            })
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .map(|name| (name.starts_with("wwn-") || name.starts_with("nvme-eui."), name))
            .collect();
        names.sort();
        names.into_iter().next().map(|(_, name)| name).unwrap_or_default()
    }
}

/// One line of mountinfo.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mount {
    /// `major:minor` of the filesystem; an anonymous one for btrfs and the like.
    pub device: String,
    /// Where.
    pub at: String,
    /// What was named in mount(8): usually a device.
    pub source: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Mount> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let device = left.nth(2)?.to_string();
        let at = unescape(left.nth(1)?);
        let source = unescape(right.split(' ').nth(1)?);
        Some(Mount { device, at, source })
    }
}

/// Undoes the octal escapes of /proc.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match value {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A block device as /sys shows it.
#[derive(Clone, Debug)]
pub(super) struct Device {
    tree: Tree,
    directory: PathBuf,
}

impl Device {
    /// Its kernel name: `sda`, `nvme0n1p2`.
    pub fn name(&self) -> String {
        self.directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn text(&self, file: &str) -> Option<String> {
        let text = fs::read_to_string(self.directory.join(file)).ok()?;
        Some(text.trim().to_string()).filter(|text| !text.is_empty())
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.parse().ok()
    }

    fn list(&self, directory: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.directory.join(directory)) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Size in bytes (/sys counts in 512 B whatever the sector is).
    pub fn bytes(&self) -> u64 {
        self.number("size").unwrap_or(0) * 512
    }

    /// `major:minor`.
    pub fn device_number(&self) -> String {
        self.text("dev").unwrap_or_default()
    }

    /// Cannot be written to.
    pub fn is_read_only(&self) -> bool {
        self.number("ro") == Some(1)
    }

    /// The whole disk: of a partition its parent, else itself.
    pub fn whole(&self) -> Device {
        match self.directory.parent() {
            Some(parent) if self.directory.join("partition").exists() => {
                Device { tree: self.tree.clone(), directory: parent.to_path_buf() }
            }
            _ => self.clone(),
        }
    }

    /// A property of the queue, in bytes or as a flag.
    pub fn queue(&self, file: &str) -> Option<u64> {
        self.whole().number(&format!("queue/{file}"))
    }

    /// A durable write needs no flush behind it: FUA, or no volatile cache.
    pub fn has_durable_writes(&self) -> bool {
        let cache = self.whole().text("queue/write_cache");
        self.queue("fua") == Some(1) || cache.as_deref() == Some("write through")
    }

    /// Partitions of a whole disk.
    pub fn partitions(&self) -> Vec<Device> {
        let inside = |name: &String| self.directory.join(name).join("partition").exists();
        let names = self.list(".");
        let directory = |name: String| self.directory.join(name);
        names
            .into_iter()
            .filter(inside)
            .map(|name| Device { tree: self.tree.clone(), directory: directory(name) })
            .collect()
    }

    /// Names of the drivers that sit on it: device mapper, md.
    pub fn holders(&self) -> Vec<String> {
        self.list("holders")
    }

    /// File or device under a loop device.
    pub fn backing_file(&self) -> Option<PathBuf> {
        self.text("loop/backing_file").map(PathBuf::from)
    }

    /// Model name, empty if unknown.
    pub fn model(&self) -> String {
        self.whole().text("device/model").unwrap_or_default()
    }

    /// Serial number, empty if unknown.
    pub fn serial(&self) -> String {
        let whole = self.whole();
        let page = || {
            // SCSI page 0x80, as sd keeps it: 4 bytes of header, then ASCII.
            let page = fs::read(whole.directory.join("device/vpd_pg80")).ok()?;
            let text: String = page.get(4..)?.iter().map(|&byte| char::from(byte)).collect();
            Some(text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_string())
        };
        whole
            .text("device/serial")
            .or_else(|| whole.text("serial"))
            .or_else(page)
            .filter(|serial| serial.chars().all(|c| !c.is_control()))
            .unwrap_or_default()
    }

    /// What it shares a fate with [R24]: the enclosure that says it holds it, else the USB device or the
    /// PCI function (a controller) that it hangs on. None for what hangs on nothing: loop devices, volumes.
    pub fn enclosure(&self) -> Option<String> {
        let whole = self.whole();
        let slots = whole.list("device").into_iter();
        let slot = slots.filter(|name| name.starts_with("enclosure_device:")).min();
        if let Some(slot) = slot
            && let Ok(slot) = fs::canonicalize(whole.directory.join("device").join(slot))
            && let Some(enclosure) = slot.parent()
        {
            let id = fs::read_to_string(enclosure.join("id")).unwrap_or_default();
            let name = enclosure.file_name().unwrap_or_default().to_string_lossy();
            let id = if id.trim().is_empty() { &*name } else { id.trim() };
            return Some(format!("enclosure {id}"));
        }
        let name =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let usb = whole.directory.ancestors().find(|path| path.join("idVendor").exists());
        let pci = || whole.directory.ancestors().map(name).find(|name| is_pci_function(name));
        usb.map(|path| format!("usb {}", name(path)))
            .or_else(|| Some(format!("controller {}", pci()?)))
    }

    /// Keys of the physical drives it lies on [R24]: through partitions, loop devices over other
    /// devices, device mapper and md. `file` says what the key of a regular file is.
    pub fn drives(&self, file: &dyn Fn(&Path) -> Option<Below>) -> BTreeSet<String> {
        let mut drives = BTreeSet::new();
        self.add_drives(file, &mut drives, 0);
        drives
    }

    fn add_drives(
        &self,
        file: &dyn Fn(&Path) -> Option<Below>,
        drives: &mut BTreeSet<String>,
        depth: u32,
    ) {
        let whole = self.whole();
        let below = whole.backing_file().and_then(|path| file(&path));
        let slaves = whole.list("slaves");
        match below {
            _ if depth > DEPTH_MAX => {}
            Some(Below::File(key)) => {
                drives.insert(key);
                return;
            }
            Some(Below::Device(rdev)) => {
                if let Some(device) = self.tree.device(rdev) {
                    device.add_drives(file, drives, depth + 1);
                    return;
                }
            }
            None if !slaves.is_empty() => {
                for slave in slaves.iter().filter_map(|name| self.tree.named(name)) {
                    slave.add_drives(file, drives, depth + 1);
                }
                return;
            }
            None => {}
        }
        drives.insert(whole.drive());
    }

    /// The key of a whole disk that is no stack: serial number or world wide name if it has one, so
    /// that two paths to it agree; its kernel name if not.
    fn drive(&self) -> String {
        let serial = self.serial();
        let named = |file: &str| self.text(file).map(|name| format!("wwid {name}"));
        if !serial.is_empty() {
            return format!("serial {} {serial}", self.model());
        }
        named("device/wwid")
            .or_else(|| named("wwid"))
            .unwrap_or_else(|| format!("device {}", self.name()))
    }
}

/// `0000:3b:00.0`.
fn is_pci_function(name: &str) -> bool {
    let parts: Vec<&str> = name.split([':', '.']).collect();
    let hex = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_hexdigit());
    let [domain, bus, device, function] = parts[..] else { return false };
    parts.iter().all(hex)
        && domain.len() >= 4
        && (bus.len(), device.len(), function.len()) == (2, 2, 1)
}

/// What lies under a loop device.
pub(super) enum Below {
    /// A regular file, with its key.
    File(String),
    /// A block device, with its number.
    Device(u64),
}

/// Whether the block device with this number makes durable writes durable by itself.
pub(super) fn has_durable_writes(rdev: u64) -> bool {
    Tree::machine().device(rdev).is_some_and(|device| device.has_durable_writes())
}

/// Whether a loop device lies over this file, whose path has no links in it.
pub(super) fn has_loop_device(file: &Path) -> bool {
    !Tree::machine().loops_over(file).is_empty()
}

#[cfg(test)]
mod tests;
