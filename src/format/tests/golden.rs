//! The images of each version of the format, made once by the code of that version and never changed:
//! today's code reads them, and writes the bytes of the newest. A changed format gets a new version and
//! new images beside these.
//!
//! The files are hex dumps, so that a diff shows what changed: a head, the length, then lines of 16
//! bytes with their offset; lines of zeros are left out.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::samples::{self, DISK, DISK_BYTES, POOL};
use crate::base::{GIB, Ino, MIB, UNIT_BYTES, Units};
use crate::format::manifest::Manifest;
use crate::format::table::{Block, FOOTER_BYTES, Filter, decode_footer, hash_key};
use crate::format::*;

/// Of the version that today's code writes.
fn path(name: &str) -> PathBuf {
    path_of(if name == "root.hex" { 3 } else { 1 }, name)
}

fn path_of(version: u32, name: &str) -> PathBuf {
    let images = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    images.join(format!("format-v{version}")).join(name)
}

fn to_hex(what: &str, bytes: &[u8]) -> String {
    let mut text = format!("# {what}\nlength {}\n", bytes.len());
    for (line, bytes) in bytes.chunks(16).enumerate() {
        if bytes.iter().any(|&byte| byte != 0) {
            let mut dump = String::new();
            for byte in bytes {
                write!(dump, " {byte:02x}").expect("writing to a String cannot fail");
            }
            writeln!(text, "{:06x}:{dump}", 16 * line).expect("writing to a String cannot fail");
        }
    }
    text
}

fn from_hex(text: &str) -> Vec<u8> {
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let length = lines.next().and_then(|line| line.strip_prefix("length ")).expect("a length");
    let mut bytes = vec![0; length.parse().expect("a number")];
    for line in lines {
        let (offset, dump) = line.split_once(':').expect("an offset and bytes");
        let offset = usize::from_str_radix(offset, 16).expect("a hex offset");
        for (index, byte) in dump.split_whitespace().enumerate() {
            bytes[offset + index] = u8::from_str_radix(byte, 16).expect("hex bytes");
        }
    }
    bytes
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All samples as the code of today writes them: file, what it is, bytes.
fn images() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let payload = encode_batch(&samples::changes());
    let header = samples::entry(&payload);
    let mut entry = vec![0; header.entry_bytes() as usize];
    header.encode_entry(&payload, &mut entry);
    let root = samples::root().encode(DISK, 1).expect("it is small");
    let replica = samples::replica_record(ObjectKind::Table, 4);
    let dirent = DirentValue { ino: Ino(100), kind: FileKind::Fifo };
    let manifest = samples::manifest().encode().expect("it is small");
    let keys = samples::keys();
    let keys: Vec<u8> = keys
        .iter()
        .flat_map(|key| [&[key.as_bytes().len() as u8], key.as_bytes()].concat())
        .collect();
    vec![
        ("label.hex", "label", samples::label().encode()),
        ("root.hex", "checkpoint root, slot 1", root),
        ("journal_entry.hex", "journal entry with a batch of every kind of change", entry),
        ("shard_header.hex", "shard header", samples::shard_header().encode()),
        ("space_snapshot.hex", "space snapshot", samples::space().encode().expect("it is small")),
        ("manifest.hex", "manifest, an increment", manifest),
        ("table.hex", "table of the index, blocks of 256 bytes", samples::table().bytes),
        ("object_record_erasure.hex", "object record, ec:2+1", samples::erasure_record().encode()),
        ("object_record_replica.hex", "object record, replica:3", replica.encode()),
        ("pieces.hex", "owners' list", encode_pieces(&samples::pieces())),
        ("checksums.hex", "list of checksums", samples::checksums().encode()),
        ("inode.hex", "inode record of a symlink", samples::inode().encode()),
        ("dirent.hex", "directory entry", dirent.encode()),
        ("extent.hex", "extent", samples::extent().encode()),
        ("orphan.hex", "orphan", Orphan::Truncated { from: 9 }.encode()),
        ("keys.hex", "one key of each kind, each after its length (u8)", keys),
    ]
}

#[test]
fn today_writes_the_images() {
    for (name, what, bytes) in images() {
        assert_eq!(to_hex(what, &bytes), read(name), "{name}");
        assert_eq!(from_hex(&read(name)), bytes, "{name}");
    }
}

#[test]
fn today_reads_the_images() {
    let image = |name| from_hex(&read(name));
    let label = RawLabel::decode(&image("label.hex"), MIB).and_then(|raw| raw.verify(DISK_BYTES));
    assert_eq!(label, Ok(samples::label()));
    for version in [1, 2, 3] {
        let text = std::fs::read_to_string(path_of(version, "root.hex")).expect("it is there");
        let root = RawRoot::decode(&from_hex(&text), 3 * MIB);
        assert_eq!(root.and_then(|raw| raw.verify(POOL, DISK, 1)), Ok(samples::root()));
    }
    let entry = image("journal_entry.hex");
    let header = RawEntryHeader::decode(&entry, 0).and_then(|raw| raw.verify(POOL, DISK, 5 * 4096));
    let header = header.expect("the header is good");
    let payload = &entry[ENTRY_HEADER_BYTES..][..header.payload_len as usize];
    assert_eq!(header.verify_payload(payload), Ok(()));
    assert_eq!(decode_batch(payload), Ok(samples::changes()));
    let shard = RawShardHeader::decode(&image("shard_header.hex"), 0);
    assert_eq!(
        shard.and_then(|raw| raw.verify(POOL, DISK, Units(77))),
        Ok(samples::shard_header())
    );
    let space = SpaceSnapshot::decode(&image("space_snapshot.hex"), samples::object(23));
    assert_eq!(space, Ok(samples::space()));
    let record = samples::erasure_record();
    assert_eq!(ObjectRecord::decode(&image("object_record_erasure.hex")), Ok(record.clone()));
    let replica = samples::replica_record(ObjectKind::Table, 4);
    assert_eq!(ObjectRecord::decode(&image("object_record_replica.hex")), Ok(replica));
    assert_eq!(decode_pieces(&record, &image("pieces.hex")), Ok(samples::pieces()));
    assert_eq!(Checksums::decode(&image("checksums.hex")), Ok(samples::checksums()));
    assert_eq!(InodeRecord::decode(&image("inode.hex")), Ok(samples::inode()));
    let dirent = DirentValue { ino: Ino(100), kind: FileKind::Fifo };
    assert_eq!(DirentValue::decode(&image("dirent.hex")), Ok(dirent));
    assert_eq!(ExtentValue::decode(&image("extent.hex")), Ok(samples::extent()));
    assert_eq!(Orphan::decode(&image("orphan.hex")), Ok(Orphan::Truncated { from: 9 }));
}

#[test]
fn today_reads_the_table_of_version_1() {
    let bytes = from_hex(&read("table.hex"));
    let footer = &bytes[bytes.len() - FOOTER_BYTES as usize..];
    let meta = decode_footer(footer, bytes.len() as u32).expect("the footer is good");
    assert_eq!(meta, samples::table().meta);
    let part =
        |place: table::Extent| bytes[place.offset as usize..][..place.length as usize].to_vec();
    let index = Block::open_index(part(meta.index), &meta).expect("the index is good");
    let filter = Filter::open(part(meta.filter), &meta).expect("the filter is good");
    assert!(index.len() > 1, "several blocks");
    let (mut entries, mut key) = (0, Vec::new());
    for place in (0..index.len()).map(|number| index.place(number)) {
        let block = Block::open_data(part(place), meta.tag, place.offset).expect("a good block");
        for number in 0..block.len() {
            block.key_into(number, &mut key);
            assert!(filter.may_hold(hash_key(&key)));
            assert!(KeyView::decode(&key).is_ok());
            entries += 1;
        }
    }
    assert_eq!(entries, meta.entries);
    let manifest = Manifest::decode(&from_hex(&read("manifest.hex")), samples::object(21));
    assert_eq!(manifest, Ok(samples::manifest()));
}

/// The layouts of some disks as text.
fn layouts() -> String {
    let sizes = [256 * MIB, 256 * MIB + 5000, GIB, 4 * GIB, 40 * GIB, 500 * GIB, 4_000_787_030_016];
    let mut text = String::from("# layouts of disks of several sizes\n");
    for bytes in sizes.into_iter().chain([24_000_277_250_048]) {
        let layout = DiskLayout::for_disk(bytes).expect("large enough");
        write!(text, "\na disk of {bytes} bytes\n{}", layout.describe())
            .expect("writing to a String cannot fail");
    }
    text
}

#[test]
fn layouts_stay_where_they_are() {
    assert_eq!(layouts(), read("layouts.txt"));
}

#[test]
fn r22_groups_cover_the_data_area() {
    for bytes in [256 * MIB, 700 * MIB, 5 * GIB, 500 * GIB, 24_000_277_250_048] {
        let layout = DiskLayout::for_disk(bytes).expect("large enough");
        let units: u64 = (0..layout.groups()).map(|group| layout.group_length(group).0).sum();
        assert_eq!(Units(units), layout.data_units);
        assert!(layout.groups() >= 64 && layout.group_units.bytes() <= 256 * MIB);
        let last = layout.data_units - Units(1);
        assert_eq!(layout.group_of(last), layout.groups() - 1);
        assert!(layout.data_offset(last) + UNIT_BYTES <= layout.label_offsets[2]);
        assert_eq!(DiskLayout::label_offsets_for(bytes), layout.label_offsets);
    }
    assert!(DiskLayout::for_disk(DISK_BYTES_MIN - 1).is_err());
    assert!(DiskLayout::for_disk(u64::MAX).is_ok());
}

#[test]
fn overlapping_layouts_are_refused() {
    let sound = DiskLayout::for_disk(GIB).expect("large enough");
    let broken: [fn(&mut DiskLayout); 8] = [
        |layout| layout.journal_offset -= MIB,
        |layout| layout.journal_bytes += 4096,
        |layout| layout.data_units.0 += 512,
        |layout| layout.data_units.0 = u64::MAX,
        |layout| layout.group_units.0 = 0,
        |layout| layout.slot_offsets.swap(0, 1),
        |layout| layout.data_offset += 1,
        |layout| layout.disk_bytes = layout.label_offsets[2],
    ];
    for (index, change) in broken.iter().enumerate() {
        let mut layout = sound;
        change(&mut layout);
        assert!(!layout.is_sound(), "number {index}: {layout:?}");
    }
}

#[test]
#[ignore = "writes missing images, once per version of the format; never overwrites"]
fn write_missing_images() {
    for version in [1, 2, 3] {
        std::fs::create_dir_all(path_of(version, "")).expect("the directory can be made");
    }
    let images = images().into_iter().map(|(name, what, bytes)| (name, to_hex(what, &bytes)));
    for (name, text) in images.chain([("layouts.txt", layouts())]) {
        if !path(name).exists() {
            std::fs::write(path(name), text).expect("the file can be written");
        }
    }
}
