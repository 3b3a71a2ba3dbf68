//! Structures that stand on their own: found, refused, and believed only in their place.

use proptest::prelude::*;

use super::samples::{self, DISK, DISK_BYTES, POOL};
use super::{check_canonical, check_framed, reseal};
use crate::base::{DiskUuid, Epoch, Lsn, MIB, ObjectId, PoolUuid, ShardIndex, Units};
use crate::format::manifest::Manifest;
use crate::format::*;

const ELSEWHERE: DiskUuid = DiskUuid([9; 16]);

fn decode_label(bytes: &[u8]) -> Result<Label, FormatError> {
    RawLabel::decode(bytes, MIB)?.verify(DISK_BYTES)
}

fn decode_root(bytes: &[u8]) -> Result<Root, FormatError> {
    RawRoot::decode(bytes, 3 * MIB)?.verify(POOL, DISK, 1)
}

fn encode_root(root: &Root) -> Vec<u8> {
    root.encode(DISK, 1).expect("it is small")
}

fn decode_header(bytes: &[u8]) -> Result<ShardHeader, FormatError> {
    RawShardHeader::decode(bytes, 0)?.verify(POOL, DISK, Units(77))
}

fn decode_entry(bytes: &[u8]) -> Result<EntryHeader, FormatError> {
    RawEntryHeader::decode(bytes, 0)?.verify(POOL, DISK, 5 * 4096)
}

fn decode_space(bytes: &[u8]) -> Result<SpaceSnapshot, FormatError> {
    SpaceSnapshot::decode(bytes, samples::object(23))
}

fn decode_manifest(bytes: &[u8]) -> Result<Manifest, FormatError> {
    Manifest::decode(bytes, samples::object(21))
}

fn encode_manifest(manifest: &Manifest) -> Vec<u8> {
    manifest.encode().expect("it is small")
}

#[test]
fn labels() {
    check_framed(&samples::label(), Label::encode, decode_label);
}

#[test]
fn roots() {
    check_framed(&samples::root(), encode_root, decode_root);
}

#[test]
fn journal_entries() {
    let header = samples::entry(b"payload");
    check_framed(&header, |header| header.encode().to_vec(), decode_entry);
}

#[test]
fn shard_headers() {
    check_framed(&samples::shard_header(), ShardHeader::encode, decode_header);
}

#[test]
fn space_snapshots() {
    let encode = |space: &SpaceSnapshot| space.encode().expect("it is small");
    check_framed(&samples::space(), encode, decode_space);
}

#[test]
fn manifests() {
    check_framed(&samples::manifest(), encode_manifest, decode_manifest);
    let error = Manifest::decode(&encode_manifest(&samples::manifest()), samples::object(22));
    assert_eq!(misplaced(error), "object");
}

fn misplaced<T: std::fmt::Debug>(result: Result<T, FormatError>) -> &'static str {
    match result {
        Err(FormatError::Misplaced { field, .. }) => field,
        other => panic!("not misplaced but {other:?}"),
    }
}

#[test]
fn r5_an_entry_is_believed_only_in_its_place() {
    let bytes = samples::entry(b"payload").encode();
    let raw = RawEntryHeader::decode(&bytes, 0).expect("it is whole");
    assert_eq!(misplaced(raw.verify(PoolUuid([0; 16]), DISK, 5 * 4096)), "pool");
    assert_eq!(misplaced(raw.verify(POOL, ELSEWHERE, 5 * 4096)), "disk");
    assert_eq!(misplaced(raw.verify(POOL, DISK, 6 * 4096)), "ring position");
}

#[test]
fn r5_a_batch_is_bound_to_epoch_number_and_predecessor() {
    let header = samples::entry(b"payload");
    assert_eq!(header.verify_payload(b"payload"), Ok(()));
    let refused = |header: EntryHeader, payload: &[u8]| header.verify_payload(payload).is_err();
    assert!(refused(header, b"Payload"));
    assert!(refused(header, b"payload."));
    assert!(refused(EntryHeader { epoch: Epoch(8), ..header }, b"payload"));
    assert!(refused(EntryHeader { lsn: header.lsn.next(), ..header }, b"payload"));
    assert!(refused(EntryHeader { prev_batch_crc: 1, ..header }, b"payload"));
}

#[test]
fn r6_an_entry_fills_whole_units() {
    let payload = vec![3u8; 5000];
    let header = samples::entry(&payload);
    assert_eq!(header.entry_bytes(), 8192);
    let mut entry = vec![0xee; 8192];
    header.encode_entry(&payload, &mut entry);
    assert_eq!(decode_entry(&entry), Ok(header));
    assert_eq!(&entry[ENTRY_HEADER_BYTES..][..5000], &payload);
    assert!(entry[ENTRY_HEADER_BYTES + 5000..].iter().all(|&byte| byte == 0));
    assert_eq!(entry_bytes(PAYLOAD_BYTES_MAX), 8 * MIB);
    assert_eq!(entry_bytes(4096 - ENTRY_HEADER_BYTES), 4096);
}

#[test]
fn r24_a_root_knows_who_shares_an_enclosure() {
    let mut root = samples::root();
    let without = encode_root(&root);
    root.members[0].enclosure = Some(0x0102);
    let bytes = encode_root(&root);
    assert_eq!(decode_root(&bytes).as_ref(), Ok(&root));
    assert!(root.describe().contains("\"WD-0001\", enclosure 258"), "{}", root.describe());
    // Nothing else moved: roots from before there were enclosures read as they did.
    let changed = (24..bytes.len()).filter(|&at| bytes[at] != without[at]);
    assert_eq!(changed.collect::<Vec<_>>(), [172, 173]);
}

#[test]
fn r9_a_root_is_believed_only_in_its_slot_and_fits_it() {
    let bytes = encode_root(&samples::root());
    assert_eq!(bytes.len() % 4096, 0);
    let raw = RawRoot::decode(&bytes, 3 * MIB).expect("it is whole");
    assert_eq!(misplaced(raw.clone().verify(PoolUuid([0; 16]), DISK, 1)), "pool");
    assert_eq!(misplaced(raw.clone().verify(POOL, ELSEWHERE, 1)), "disk");
    assert_eq!(misplaced(raw.verify(POOL, DISK, 0)), "slot");
    let mut root = samples::root();
    root.manifest = vec![root.manifest[0].clone(); 1000];
    assert!(matches!(root.encode(DISK, 0), Err(FormatError::TooLarge { .. })));
}

#[test]
fn r26_a_shard_header_is_believed_only_in_its_place() {
    let bytes = samples::shard_header().encode();
    let raw = RawShardHeader::decode(&bytes, 0).expect("it is whole");
    assert_eq!(misplaced(raw.clone().verify(PoolUuid([0; 16]), DISK, Units(77))), "pool");
    assert_eq!(misplaced(raw.clone().verify(POOL, ELSEWHERE, Units(77))), "disk");
    assert_eq!(misplaced(raw.verify(POOL, DISK, Units(78))), "offset");
}

#[test]
fn r21_a_header_names_its_shard_and_object() {
    let (header, record) = (samples::shard_header(), samples::erasure_record());
    assert!(header.is_shard_of(&record, ShardIndex(0)));
    assert!(!header.is_shard_of(&record, ShardIndex(1)));
    let newer = ObjectRecord { version: 10, provisional: false, ..record.clone() };
    assert!(header.is_shard_of(&newer, ShardIndex(0)), "moving other shards changes nothing");
    let other = ObjectRecord { id: ObjectId(record.id.0 + 1), ..record };
    assert!(!header.is_shard_of(&other, ShardIndex(0)));
}

#[test]
fn a_label_is_believed_only_where_its_layout_says() {
    let bytes = samples::label().encode();
    for &at in &samples::label().layout.label_offsets {
        let raw = RawLabel::decode(&bytes, at).expect("it is whole");
        assert_eq!(raw.clone().verify(DISK_BYTES), Ok(samples::label()));
        assert_eq!(misplaced(raw.verify(DISK_BYTES - 4096)), "disk size");
    }
    let raw = RawLabel::decode(&bytes, 2 * MIB).expect("it is whole");
    assert_eq!(misplaced(raw.verify(DISK_BYTES)), "offset");
}

#[test]
fn a_refusal_says_what_and_where_and_what_to_do() {
    let mut bytes = samples::label().encode();
    bytes[16] = 3;
    reseal(&mut bytes);
    let error = RawLabel::decode(&bytes, MIB).expect_err("a version of the future");
    assert_eq!(
        error.to_string(),
        "label at 1048576: format version 3, but this program knows only 1; \
         use the version of isotherm that wrote it"
    );
    bytes[16] = 1;
    let error = RawLabel::decode(&bytes, MIB).expect_err("a flipped bit");
    assert_eq!(error.to_string(), "label at 1048576: checksum mismatch");
    let error = RawRoot::decode(&[0; 4096], 2 * MIB).expect_err("an empty slot");
    assert_eq!(error.to_string(), "checkpoint root at 2097152: not there (other magic)");
}

#[test]
fn counts_beyond_the_bytes_are_refused() {
    let mut bytes = samples::space().encode().expect("it is small");
    bytes[44..48].copy_from_slice(&u32::MAX.to_le_bytes());
    reseal(&mut bytes);
    let error = decode_space(&bytes).expect_err("four billion groups in 100 bytes");
    assert!(matches!(error, FormatError::Field { field: "number of groups", .. }), "{error}");
}

#[test]
fn descriptions_name_what_matters() {
    let label = samples::label().describe();
    let root = samples::root().describe();
    let entry = samples::entry(b"").describe();
    let header = samples::shard_header().describe();
    for (text, words) in [
        (label, ["\"attic\"", "index 3 of 8", "ec:5+2", "groups"]),
        (root, ["batch 4700", "WD-0001", "replica:3", "disk 4 at 8388608"]),
        (entry, ["4712", "4710", "7777666655554444", "ring position 20480"]),
        (header, ["7.1234", "0 of ec:2+1", "unit 77", "02020202"]),
    ] {
        for word in words {
            assert!(text.contains(word), "{word} is not in\n{text}");
        }
    }
    assert_eq!(samples::entry(b"").lsn, Lsn(4712));
}

proptest! {
    /// A good checksum over random insides: what an attacker, or a bug of another version, could write.
    #[test]
    fn random_insides_never_panic(
        kind in 0usize..6,
        at in 24usize..300,
        noise in proptest::collection::vec(any::<u8>(), 1..200),
    ) {
        let mut bytes = match kind {
            0 => samples::label().encode(),
            1 => encode_root(&samples::root()),
            2 => samples::entry(b"payload").encode().to_vec(),
            3 => samples::shard_header().encode(),
            4 => encode_manifest(&samples::manifest()),
            _ => samples::space().encode().expect("it is small"),
        };
        let end = bytes.len().min(at + noise.len());
        let at = at.min(end);
        bytes[at..end].copy_from_slice(&noise[..end - at]);
        reseal(&mut bytes);
        match kind {
            0 => check_canonical(&bytes, Label::encode, decode_label),
            1 => check_canonical(&bytes, encode_root, decode_root),
            2 => check_canonical(&bytes, |header| header.encode().to_vec(), decode_entry),
            3 => check_canonical(&bytes, ShardHeader::encode, decode_header),
            4 => check_canonical(&bytes, encode_manifest, decode_manifest),
            _ => {
                let encode = |space: &SpaceSnapshot| space.encode().expect("it was decoded");
                check_canonical(&bytes, encode, decode_space);
            }
        }
    }

    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(RawLabel::decode(&bytes, 0).is_err());
        prop_assert!(RawRoot::decode(&bytes, 0).is_err());
        prop_assert!(RawEntryHeader::decode(&bytes, 0).is_err());
        prop_assert!(RawShardHeader::decode(&bytes, 0).is_err());
        prop_assert!(decode_manifest(&bytes).is_err());
        prop_assert!(SpaceSnapshot::decode(&bytes, samples::object(23)).is_err());
    }
}
