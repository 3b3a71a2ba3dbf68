//! What is mounted where, from `/proc/self/mountinfo`: never by asking the file systems themselves,
//! one of which may be dead or waiting for a disk.

use std::fs;
use std::path::{Path, PathBuf};

/// One line of mountinfo.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountEntry {
    /// Device number, `major:minor`: names the bdi in sysfs.
    pub device: String,
    /// Where.
    pub mountpoint: PathBuf,
    /// Type, such as `fuse.isotherm`.
    pub kind: String,
    /// What is mounted: for us, the pool's name.
    pub source: String,
    /// Who mounted it, as FUSE mounts tell.
    pub user: Option<u32>,
}

impl MountEntry {
    /// Number of the FUSE connection: the directory below `/sys/fs/fuse/connections`.
    pub fn connection(&self) -> Option<&str> {
        self.device.split(':').nth(1)
    }
}

/// All mounts, in the order in which they were made.
pub fn mounts() -> Vec<MountEntry> {
    let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
    parse(&String::from_utf8_lossy(&text))
}

/// The mount on `path` (the last one, if several lie over one another).
pub fn find_mount(path: &Path) -> Option<MountEntry> {
    let path = mountpoint_of(path);
    mounts().into_iter().rev().find(|mount| mount.mountpoint == path)
}

/// `path` as mountinfo would show it, without asking what is mounted on it: the directory above is
/// resolved, the last name is not.
pub fn mountpoint_of(path: &Path) -> PathBuf {
    let absolute = if path.is_absolute() {
        path.to_path_buf()
    } else {
        std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")).join(path)
    };
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => match fs::canonicalize(parent) {
            Ok(parent) => {
                let candidate = parent.join(name);
                // A symbolic link to a mount point is followed; that asks the directory it lies in.
                match fs::read_link(&candidate) {
                    Ok(_) => fs::canonicalize(&candidate).unwrap_or(candidate),
                    Err(_) => candidate,
                }
            }
            Err(_) => absolute,
        },
        // "/", or a path that ends in "..".
        _ => fs::canonicalize(&absolute).unwrap_or(absolute),
    }
}

/// Lines read `id parent major:minor root mountpoint options [fields] - type source options`.
fn parse(text: &str) -> Vec<MountEntry> {
    text.lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ');
            let device = left.nth(2)?.to_string();
            let mountpoint = PathBuf::from(unescape(left.nth(1)?));
            let mut right = right.split(' ');
            let kind = right.next()?.to_string();
            let source = unescape(right.next()?);
            let mut options = right.next().unwrap_or_default().split(',');
            let user = options.find_map(|option| option.strip_prefix("user_id=")?.parse().ok());
            Some(MountEntry { device, mountpoint, kind, source, user })
        })
        .collect()
}

/// Space, tab, newline and backslash stand there as `\ooo`.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes
            .get(at + 1..at + 4)
            .filter(|_| bytes[at] == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_optional_fields_are_understood() {
        let text = "36 35 0:52 / /mnt/my\\040pool rw,relatime shared:7 - fuse.isotherm tank rw,user_id=7,group_id=0\n\
                    37 35 8:1 / / rw - ext4 /dev/sda1 rw\nnonsense\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].device, "0:52");
        assert_eq!(mounts[0].connection(), Some("52"));
        assert_eq!(mounts[0].mountpoint, Path::new("/mnt/my pool"));
        assert_eq!(mounts[0].kind, "fuse.isotherm");
        assert_eq!((mounts[0].source.as_str(), mounts[0].user), ("tank", Some(7)));
        assert_eq!(mounts[1].kind, "ext4");
    }

    #[test]
    fn a_relative_path_is_made_absolute() {
        let path = mountpoint_of(Path::new("no-such-directory"));
        assert!(path.is_absolute() && path.ends_with("no-such-directory"));
        assert_eq!(mountpoint_of(Path::new("/")), Path::new("/"));
        assert_eq!(mountpoint_of(Path::new("/proc/")), Path::new("/proc"));
    }
}
