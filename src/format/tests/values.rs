//! Values and keys that live inside something checksummed.

use proptest::prelude::*;

use super::samples;
use super::{check_canonical, check_value};
use crate::base::limits::{OBJECT_BYTES_MAX, SHARD_BYTES};
use crate::base::{Ino, ObjectId, ShardIndex, WallTime};
use crate::format::*;

#[test]
fn object_records() {
    for record in [samples::erasure_record(), samples::replica_record(ObjectKind::Table, 4)] {
        check_value(&record, Some(0), ObjectRecord::encode, ObjectRecord::decode);
        assert_eq!(record.encode().len(), 64 + 12 * 3, "R16: 64 + 12 bytes a shard");
    }
}

#[test]
fn impossible_geometries_are_refused() {
    let good = samples::erasure_record();
    assert!(good.is_sound());
    let record = |change: fn(&mut ObjectRecord)| {
        let mut record = samples::erasure_record();
        change(&mut record);
        record.is_sound()
    };
    assert!(!record(|record| record.codec = 2));
    assert!(!record(|record| record.cell_bytes = 2048));
    assert!(!record(|record| record.cell_bytes = 33 << 10));
    assert!(!record(|record| record.shard_bytes = 0));
    assert!(!record(|record| record.shard_bytes += 1));
    assert!(!record(|record| record.length = 2 * record.shard_bytes + 1));
    assert!(!record(|record| record.pieces_offset = record.length + 1));
    assert!(!record(|record| record.redundancy = Redundancy::Erasure { data: 2, parity: 0 }));
    assert!(!record(|record| record.redundancy = Redundancy::Erasure { data: 0, parity: 1 }));
    assert!(!record(|record| record.places.truncate(2)));
    assert!(u32::try_from(OBJECT_BYTES_MAX).is_ok(), "lengths of objects are u32");
    assert!(SHARD_BYTES / 4096 <= HEADER_CELLS_MAX as u64, "a full shard's checksums fit");
}

#[test]
fn r16_replicas_share_a_list_of_checksums() {
    let shard = ShardIndex(2);
    assert_eq!(samples::erasure_record().checksum_list(shard), shard);
    let replicas = samples::replica_record(ObjectKind::Table, 4);
    assert_eq!(replicas.checksum_list(shard), ShardIndex(0));
}

#[test]
fn lists_of_checksums() {
    check_value(&samples::checksums(), Some(0), Checksums::encode, Checksums::decode);
    check_value(&Checksums::default(), Some(0), Checksums::encode, Checksums::decode);
}

#[test]
fn r17_owners_lists() {
    let record = samples::erasure_record();
    let decode = |bytes: &[u8]| decode_pieces(&record, bytes);
    check_value(&samples::pieces(), None, |pieces| encode_pieces(pieces), decode);
    let mut beyond = samples::pieces();
    beyond[1].length += 1;
    assert!(decode(&encode_pieces(&beyond)).is_err(), "a piece reaches into the list");
}

#[test]
fn inodes_and_what_hangs_on_them() {
    check_value(&samples::inode(), Some(0), InodeRecord::encode, InodeRecord::decode);
    let dirent = DirentValue { ino: Ino(100), kind: FileKind::Fifo };
    check_value(&dirent, Some(0), DirentValue::encode, DirentValue::decode);
    check_value(&samples::extent(), Some(0), ExtentValue::encode, ExtentValue::decode);
    let unwritten =
        ExtentValue { object: ObjectId(0), object_offset: 0, unwritten: true, ..samples::extent() };
    check_value(&unwritten, Some(0), ExtentValue::encode, ExtentValue::decode);
    for orphan in [
        Orphan::Unlinked,
        Orphan::Truncated { from: 0 },
        Orphan::Truncated { from: 9 },
        Orphan::Cut { number: 9 },
    ] {
        check_value(&orphan, Some(0), Orphan::encode, Orphan::decode);
    }
}

#[test]
fn batches() {
    let encode = |changes: &Vec<Change>| encode_batch(changes);
    check_value(&samples::changes(), Some(0), encode, decode_batch);
    check_value(&Vec::new(), Some(0), encode, decode_batch);
    let changes = samples::changes();
    let bytes: usize = changes.iter().map(Change::encoded_bytes).sum();
    assert_eq!(encode_batch(&changes).len(), 8 + bytes);
}

#[test]
fn keys_decode_to_what_they_were_made_of() {
    for key in samples::keys() {
        assert_eq!(key.view().map(KeyView::to_key), Ok(key.clone()), "{key}");
        assert!(key.as_bytes().len() <= KEY_BYTES_MAX);
        check_value(
            &key,
            None,
            |key| key.as_bytes().to_vec(),
            |bytes| KeyView::decode(bytes).map(KeyView::to_key),
        );
    }
    assert_eq!(samples::keys()[2].to_string(), "Extent(100 @ 8589934592)");
    assert_eq!(
        Key::dirents_from(Ino(1), 16).to_string(),
        "Key(0200000000000000010000000000000010)"
    );
}

#[test]
fn the_order_of_keys_is_the_order_of_meaning() {
    let keys = samples::keys();
    assert!(keys.is_sorted(), "kinds in the order of their table");
    assert!(Key::extent(Ino(1), 255) < Key::extent(Ino(1), 256));
    assert!(Key::extent(Ino(1), u64::MAX - 1) < Key::extents_end(Ino(1)));
    assert!(Key::extents_end(Ino(1)) < Key::extent(Ino(2), 0));
    assert!(Key::dirents_from(Ino(5), 7) < Key::dirent(Ino(5), 7, b"\0"));
    assert!(Key::dirent(Ino(5), 7, b"\xff") < Key::dirents_from(Ino(5), 8));
    assert!(Key::dirent(Ino(5), (1 << 63) - 1, &[0xff; 255]) < Key::dirents_end(Ino(5)));
    assert!(Key::dirents_end(Ino(5)) < Key::dirents_from(Ino(6), 0));
    assert!(Key::xattrs_from(Ino(5)) < Key::xattr(Ino(5), b"\0"));
    assert!(Key::xattr(Ino(5), &[0xff; 255]) < Key::xattrs_end(Ino(5)));
    assert!(Key::xattrs_end(Ino(5)) <= Key::xattrs_from(Ino(6)));
}

#[test]
fn name_hashes_leave_room_for_dots_and_the_end() {
    for number in 0..1000u32 {
        let hash = name_hash([3, 4], &number.to_le_bytes());
        assert!((16..=(1 << 63) - 16).contains(&hash));
    }
    assert_ne!(name_hash([3, 4], b"a"), name_hash([4, 3], b"a"), "the pool's key counts");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_canonical(&bytes, ObjectRecord::encode, ObjectRecord::decode);
        check_canonical(&bytes, Checksums::encode, Checksums::decode);
        check_canonical(&bytes, InodeRecord::encode, InodeRecord::decode);
        check_canonical(&bytes, DirentValue::encode, DirentValue::decode);
        check_canonical(&bytes, ExtentValue::encode, ExtentValue::decode);
        check_canonical(&bytes, Orphan::encode, Orphan::decode);
        check_canonical(&bytes, |changes: &Vec<Change>| encode_batch(changes), decode_batch);
        check_canonical(
            &bytes,
            |key: &Key| key.as_bytes().to_vec(),
            |bytes| KeyView::decode(bytes).map(KeyView::to_key),
        );
    }

    /// Noise inside something valid gets further than noise alone.
    #[test]
    fn noise_inside_never_panics(
        kind in 0usize..4,
        at in 0usize..150,
        noise in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let mut bytes = match kind {
            0 => samples::erasure_record().encode(),
            1 => samples::inode().encode(),
            2 => samples::checksums().encode(),
            _ => encode_batch(&samples::changes()),
        };
        let at = at.min(bytes.len());
        let end = bytes.len().min(at + noise.len());
        bytes[at..end].copy_from_slice(&noise[..end - at]);
        match kind {
            0 => check_canonical(&bytes, ObjectRecord::encode, ObjectRecord::decode),
            1 => check_canonical(&bytes, InodeRecord::encode, InodeRecord::decode),
            2 => check_canonical(&bytes, Checksums::encode, Checksums::decode),
            _ => check_canonical(&bytes, |changes: &Vec<Change>| encode_batch(changes), decode_batch),
        }
    }

    #[test]
    fn batches_round_trip(
        changes in proptest::collection::vec(any::<(u8, u64, i64, Vec<u8>)>(), 0..20)
    ) {
        let changes: Vec<Change> = changes
            .into_iter()
            .map(|(kind, number, delta, bytes)| match kind % 4 {
                0 => Change::Put { key: Key::extent(Ino(number), 5), value: bytes },
                1 => Change::Delete { key: Key::object(ObjectId(number)) },
                2 => Change::Add { key: Key::live(ObjectId(number)), delta },
                _ => Change::Inline { ino: Ino(number), offset: 7, data: [bytes, vec![1]].concat() },
            })
            .collect();
        prop_assert_eq!(decode_batch(&encode_batch(&changes)), Ok(changes));
    }

    #[test]
    fn inodes_round_trip(
        size in 0..=i64::MAX as u64, mode in 0u16..=0o7777, links in 0u32..=1 << 30,
        seconds: i64, nanos in 0u32..1_000_000_000,
        target in proptest::collection::vec(any::<u8>(), 0..4096),
    ) {
        let time = WallTime { seconds, nanos };
        let inode = InodeRecord { size, mode, links, mtime: time, target, ..samples::inode() };
        prop_assert_eq!(InodeRecord::decode(&inode.encode()), Ok(inode));
    }
}
