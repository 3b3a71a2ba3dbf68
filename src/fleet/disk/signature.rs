//! What is already on a disk, recognised by its magic numbers [I9].
//!
//! The table knows what a shelf of second-hand disks has on it: filesystems, volume managers, RAID
//! members, swap, encryption, partition tables. Where a structure has copies at the end of the disk,
//! those count too: wiping the first megabyte does not make a disk free. Pure: the caller reads.

use crate::base::{KIB, MIB};
use crate::format::DiskLayout;
use crate::format::label::LABEL_MAGIC;

/// Something recognised on a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signature {
    /// For people: `ext2/3/4`, `GPT partition table`, `Isotherm`, ...
    pub name: &'static str,
    /// Byte offset of its magic number.
    pub offset: u64,
    /// One of ours.
    pub isotherm: bool,
}

/// Bytes from the start of the disk that [`recognise`] looks at.
pub(super) const HEAD_BYTES: u64 = 272 * KIB;
/// Bytes from its end.
pub(super) const TAIL_BYTES: u64 = 640 * KIB;

/// Name, offset, bytes there.
type Magic = (&'static str, u64, &'static [u8]);

/// Counted from the start.
const AT_START: &[Magic] = &[
    ("GPT partition table", 512, b"EFI PART"),
    ("GPT partition table", 4096, b"EFI PART"),
    ("ext2/3/4 filesystem", 1080, b"\x53\xEF"),
    ("XFS filesystem", 0, b"XFSB"),
    ("btrfs filesystem", 64 * KIB + 64, b"_BHRfS_M"),
    (
        "bcachefs filesystem",
        4096 + 24,
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
    ),
    (
        "bcache device",
        4096 + 24,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
    ),
    ("LVM physical volume", 0, b"LABELONE"),
    ("LVM physical volume", 512, b"LABELONE"),
    ("LVM physical volume", 1024, b"LABELONE"),
    ("LVM physical volume", 1536, b"LABELONE"),
    ("Linux RAID member", 0, b"\xfc\x4e\x2b\xa9"),
    ("Linux RAID member", 4096, b"\xfc\x4e\x2b\xa9"),
    ("LUKS volume", 0, b"LUKS\xba\xbe"),
    ("LUKS volume", 16 * KIB, b"SKUL\xba\xbe"),
    ("swap space", 4086, b"SWAPSPACE2"),
    ("swap space", 4086, b"SWAP-SPACE"),
    ("swap space", 16 * KIB - 10, b"SWAPSPACE2"),
    ("swap space", 64 * KIB - 10, b"SWAPSPACE2"),
    ("NTFS filesystem", 3, b"NTFS    "),
    ("exFAT filesystem", 3, b"EXFAT   "),
    ("BitLocker volume", 3, b"-FVE-FS-"),
    ("ReFS filesystem", 0, b"\0\0\0ReFS\0"),
    ("FAT filesystem", 82, b"FAT32   "),
    ("FAT filesystem", 54, b"FAT16   "),
    ("FAT filesystem", 54, b"FAT12   "),
    ("HFS+ filesystem", 1024, b"H+\0\x04"),
    ("HFSX filesystem", 1024, b"HX\0\x05"),
    ("APFS container", 32, b"NXSB"),
    ("F2FS filesystem", 1024, b"\x10\x20\xf5\xf2"),
    ("NILFS2 filesystem", 1030, b"\x34\x34"),
    ("EROFS filesystem", 1024, b"\xe2\xe1\xf5\xe0"),
    ("squashfs filesystem", 0, b"hsqs"),
    ("JFS filesystem", 32 * KIB, b"JFS1"),
    ("ReiserFS filesystem", 64 * KIB + 52, b"ReIsEr"),
    ("GFS2 filesystem", 64 * KIB, b"\x01\x16\x19\x70"),
    ("OCFS2 filesystem", 8192, b"OCFSV2"),
    ("ISO 9660 filesystem", 32 * KIB + 1, b"CD001"),
    ("UDF filesystem", 32 * KIB + 1, b"BEA01"),
    ("Ceph BlueStore device", 0, b"bluestore block device"),
    ("Stratis pool member", 512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh"),
    ("VDO volume", 0, b"dmvdo001"),
    ("DRBD device", 0, b"\x83\x74\x02\x6b"),
];

/// Counted back from the end.
const AT_END: &[Magic] = &[
    ("GPT partition table", 512, b"EFI PART"),
    ("GPT partition table", 4096, b"EFI PART"),
    ("Intel RAID member", 1024, b"Intel Raid ISM Cfg Sig. "),
    ("DDF RAID member", 512, b"\xde\x11\xde\x11"),
];

/// Parts of a disk, as they were read.
pub(super) struct Parts<'a> {
    /// Size of the disk in bytes.
    pub bytes: u64,
    /// The first bytes: `HEAD_BYTES`, or all there is.
    pub head: &'a [u8],
    /// The last bytes: `TAIL_BYTES`, or all there is.
    pub tail: &'a [u8],
    /// The beginnings of our label's copies, with their offsets.
    pub labels: &'a [(u64, Vec<u8>)],
}

/// Everything known that is on the disk, each kind once, in order of offset.
pub(super) fn recognise(parts: &Parts) -> Vec<Signature> {
    let mut found: Vec<Signature> = Vec::new();
    let mut add = |name: &'static str, offset: u64| {
        let isotherm = name == ISOTHERM;
        found.push(Signature { name, offset, isotherm });
    };
    for (offset, bytes) in parts.labels {
        if bytes.starts_with(&LABEL_MAGIC) {
            add(ISOTHERM, *offset);
        }
    }
    for &(name, offset, magic) in AT_START {
        if parts.is_at(offset, magic) {
            add(name, offset);
        }
    }
    for &(name, back, magic) in AT_END {
        if let Some(offset) = parts.bytes.checked_sub(back).filter(|&at| parts.is_at(at, magic)) {
            add(name, offset);
        }
    }
    for offset in parts.md_offsets() {
        if parts.is_at(offset, b"\xfc\x4e\x2b\xa9") {
            add("Linux RAID member", offset);
        }
    }
    if let Some(offset) = parts.zfs() {
        add("ZFS pool member", offset);
    }
    if parts.has_mbr() {
        add("MBR partition table", 510);
    }
    found.sort_by_key(|signature| signature.offset);
    let mut names: Vec<&str> = Vec::new();
    found.retain(|signature| {
        let first = !names.contains(&signature.name);
        names.push(signature.name);
        first
    });
    found
}

const ISOTHERM: &str = "Isotherm";

/// Where our labels would be on a disk of `bytes`; empty where it is too small for any.
pub(super) fn label_places(bytes: u64) -> Vec<u64> {
    let places = DiskLayout::label_offsets_for(bytes).into_iter();
    places.filter(|place| place + 4096 <= bytes).collect()
}

impl Parts<'_> {
    /// `count` bytes at `offset` of the disk, if they were read.
    fn bytes_at(&self, offset: u64, count: usize) -> Option<&[u8]> {
        let within = |part: &'_ [u8], start: u64| -> Option<std::ops::Range<usize>> {
            let from = usize::try_from(offset.checked_sub(start)?).ok()?;
            let to = from.checked_add(count)?;
            (to <= part.len()).then_some(from..to)
        };
        if let Some(range) = within(self.head, 0) {
            return Some(&self.head[range]);
        }
        let start = self.bytes.checked_sub(self.tail.len() as u64)?;
        within(self.tail, start).map(|range| &self.tail[range])
    }

    fn is_at(&self, offset: u64, magic: &[u8]) -> bool {
        self.bytes_at(offset, magic.len()) == Some(magic)
    }

    /// md superblocks of versions 0.90 and 1.0 are near the end.
    fn md_offsets(&self) -> Vec<u64> {
        let old = (self.bytes / (64 * KIB) * (64 * KIB)).checked_sub(64 * KIB);
        let new = self.bytes.checked_sub(8 * KIB).map(|at| at / (4 * KIB) * (4 * KIB));
        old.into_iter().chain(new).collect()
    }

    /// ZFS: two labels of 256 KiB at each end; the second half of a label is a ring of uberblocks.
    fn zfs(&self) -> Option<u64> {
        const LABEL: u64 = 256 * KIB;
        let end = self.bytes / LABEL * LABEL;
        let labels = [Some(0), end.checked_sub(2 * LABEL), end.checked_sub(LABEL)];
        labels.into_iter().flatten().find_map(|label| {
            (label + LABEL / 2..label + LABEL).step_by(1024).find(|&at| {
                self.is_at(at, b"\x0c\xb1\xba\0\0\0\0\0")
                    || self.is_at(at, b"\0\0\0\0\0\xba\xb1\x0c")
            })
        })
    }

    /// An MBR has the boot mark, sane flags and at least one partition. (Boot sectors of filesystems
    /// have the mark too; they are recognised by themselves.)
    fn has_mbr(&self) -> bool {
        let Some(sector) = self.bytes_at(0, 512) else { return false };
        let entries: Vec<&[u8]> = sector[446..510].chunks(16).collect();
        sector[510..] == [0x55, 0xAA]
            && entries.iter().all(|entry| entry[0] & 0x7f == 0)
            && entries.iter().any(|entry| entry[4] != 0)
    }
}

const _: () = assert!(TAIL_BYTES >= 2 * 256 * KIB + 64 * KIB && TAIL_BYTES < MIB);

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 8 * MIB + 12 * KIB;

    fn names(disk: &[u8]) -> Vec<(&'static str, u64)> {
        let bytes = disk.len() as u64;
        let labels: Vec<(u64, Vec<u8>)> = label_places(bytes)
            .into_iter()
            .map(|at| (at, disk[at as usize..at as usize + 4096].to_vec()))
            .collect();
        let parts = Parts {
            bytes,
            head: &disk[..HEAD_BYTES as usize],
            tail: &disk[(bytes - TAIL_BYTES) as usize..],
            labels: &labels,
        };
        recognise(&parts).iter().map(|found| (found.name, found.offset)).collect()
    }

    fn disk_with(offset: u64, magic: &[u8]) -> Vec<u8> {
        let mut disk = vec![0; BYTES as usize];
        disk[offset as usize..offset as usize + magic.len()].copy_from_slice(magic);
        disk
    }

    #[test]
    fn i9_every_row_of_the_tables_is_recognised() {
        assert_eq!(names(&vec![0; BYTES as usize]), []);
        for &(name, offset, magic) in AT_START {
            assert_eq!(names(&disk_with(offset, magic)), [(name, offset)]);
        }
        for &(name, back, magic) in AT_END {
            assert_eq!(names(&disk_with(BYTES - back, magic)), [(name, BYTES - back)]);
        }
    }

    #[test]
    fn i9_what_lies_near_the_end_is_recognised() {
        let md = b"\xfc\x4e\x2b\xa9";
        let old = BYTES / 65536 * 65536 - 65536;
        assert_eq!(names(&disk_with(old, md)), [("Linux RAID member", old)]);
        assert_eq!(names(&disk_with(BYTES - 8192, md)), [("Linux RAID member", BYTES - 8192)]);
        let uberblock = BYTES / 262_144 * 262_144 - 131_072 + 5 * 1024;
        let zfs = disk_with(uberblock, b"\x0c\xb1\xba\0\0\0\0\0");
        assert_eq!(names(&zfs), [("ZFS pool member", uberblock)]);
    }

    #[test]
    fn each_copy_of_our_label_is_recognised() {
        for place in label_places(BYTES) {
            assert_eq!(names(&disk_with(place, &LABEL_MAGIC)), [("Isotherm", place)]);
        }
    }

    #[test]
    fn an_mbr_needs_a_partition() {
        let mut disk = disk_with(510, b"\x55\xaa");
        assert_eq!(names(&disk), []);
        disk[446 + 4] = 0x83;
        assert_eq!(names(&disk), [("MBR partition table", 510)]);
        disk[446] = 0x12;
        assert_eq!(names(&disk), []);
    }
}
