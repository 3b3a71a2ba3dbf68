//! Tests of tables: what goes in comes out, and bad bytes never pass [I4].

use super::*;
use crate::base::Random;

const TAG: u64 = 0x1234_5678_9abc_def0;

/// Key, LSN, value of a put, delta of an add.
type Sample = (Vec<u8>, Lsn, Option<Vec<u8>>, i64);

/// Entries in key order, with shared prefixes, long keys and every kind of operation.
fn entries(count: u64) -> Vec<Sample> {
    let mut random = Random::new(count);
    let mut entries = Vec::new();
    for number in 0..count {
        let mut key = vec![3];
        key.extend_from_slice(&(number * 7).to_be_bytes());
        key.resize(key.len() + random.below(200) as usize, b'n');
        let value = (random.below(3) > 0).then(|| vec![number as u8; random.below(300) as usize]);
        let delta = random.below(2) as i64 * (1 + number as i64);
        entries.push((key, Lsn(10_000 + random.below(1000)), value, delta));
    }
    entries
}

fn op((_, _, value, delta): &Sample) -> Op<'_> {
    match value {
        Some(value) => Op::Put(value),
        None if *delta > 0 => Op::Add(*delta),
        None => Op::Delete,
    }
}

fn build(count: u64) -> BuiltTable {
    let mut builder = TableBuilder::new(TAG, 4096);
    for entry in &entries(count) {
        builder.add(&entry.0, entry.1, op(entry));
    }
    builder.finish().unwrap()
}

fn part(table: &BuiltTable, extent: Extent) -> Vec<u8> {
    table.bytes[extent.offset as usize..][..extent.length as usize].to_vec()
}

#[test]
fn a_table_gives_back_what_was_put_in() {
    let table = build(1000);
    let footer = &table.bytes[table.bytes.len() - FOOTER_BYTES as usize..];
    assert_eq!(decode_footer(footer, table.bytes.len() as u32).unwrap(), table.meta);
    let index = Block::open_index(part(&table, table.meta.index), &table.meta).unwrap();
    let filter = Filter::open(part(&table, table.meta.filter), &table.meta).unwrap();
    let entries = entries(1000);
    let mut wanted = entries.iter();
    let mut key = Vec::new();
    for position in 0..index.len() {
        let place = index.place(position);
        let block = Block::open_data(part(&table, place), TAG, place.offset).unwrap();
        for at in 0..block.len() {
            let next = wanted.next().unwrap();
            block.key_into(at, &mut key);
            assert_eq!(key, next.0);
            assert_eq!(block.entry(at), Entry { lsn: next.1, op: op(next) });
            assert_eq!(block.find(&key), Some(block.entry(at)));
            assert_eq!(block.search(&key), at);
            assert_eq!(index.search(&key), position);
            key.push(0);
            assert_eq!(block.search(&key), at + 1);
            assert_eq!(block.find(&key), None);
            key.pop();
            assert!(filter.may_hold(hash_key(&key)));
        }
        assert!(block.find(&[3]).is_none() && block.search(&[2]) == 0);
        assert_eq!(block.search(&[4]), block.len());
    }
    assert!(wanted.next().is_none());
    let tombstones = entries.iter().filter(|entry| op(entry) == Op::Delete).count();
    assert_eq!((table.meta.entries, table.meta.tombstones), (1000, tombstones as u64));
    assert_eq!(table.meta.max_lsn, entries.iter().map(|entry| entry.1).max().unwrap());
}

#[test]
fn few_absent_keys_pass_the_filter() {
    let mut builder = TableBuilder::new(TAG, 32768);
    for number in 0..20_000u64 {
        builder.add(&number.to_be_bytes(), Lsn(1), Op::Delete);
    }
    let table = builder.finish().unwrap();
    let filter = Filter::open(part(&table, table.meta.filter), &table.meta).unwrap();
    let absent = 20_000..120_000u64;
    let passed = absent.filter(|key| filter.may_hold(hash_key(&key.to_be_bytes()))).count();
    assert!(passed < 2500, "{passed} of 100,000 passed");
}

#[test]
fn i4_no_part_passes_with_a_flipped_bit_or_in_another_place() {
    let table = build(60);
    let meta = &table.meta;
    let index = Block::open_index(part(&table, meta.index), meta).unwrap();
    let place = index.place(0);
    let block = part(&table, place);
    assert!(is_part(&block, PartKind::Data, TAG, place.offset));
    assert!(Block::open_data(block.clone(), TAG + 1, place.offset).is_err());
    assert!(Block::open_data(block.clone(), TAG, place.offset + 4096).is_err());
    assert!(!is_part(&block, PartKind::Index, TAG, place.offset));
    for at in 0..block.len() {
        let mut bad = block.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(Block::open_data(bad, TAG, place.offset).is_err(), "byte {at}");
        assert!(Block::open_data(block[..at].to_vec(), TAG, place.offset).is_err());
    }
    let footer = &table.bytes[table.bytes.len() - FOOTER_BYTES as usize..];
    for at in 0..footer.len() {
        let mut bad = footer.to_vec();
        bad[at] ^= 0x40;
        assert!(decode_footer(&bad, table.bytes.len() as u32).is_err());
    }
    assert!(decode_footer(&footer[1..], table.bytes.len() as u32).is_err());
    assert!(decode_footer(footer, table.bytes.len() as u32 + 4).is_err());
}

/// Random bytes behind a good checksum: what a bug of ours, or malice, could leave.
#[test]
fn sealed_nonsense_is_an_error_and_not_a_panic() {
    let table = build(60);
    let mut random = Random::new(11);
    let meta = &table.meta;
    for round in 0..20_000 {
        let place = if round % 2 == 0 { meta.index } else { Extent { offset: 0, length: 0 } };
        let mut bytes = if round % 2 == 0 {
            part(&table, meta.index)
        } else {
            let index = Block::open_index(part(&table, meta.index), meta).unwrap();
            part(&table, index.place(0))
        };
        let (count, shared) = (random.below(40) as u32, random.below(40) as u16);
        let mut count_of = |right: u32| if random.one_in(4) { count } else { right };
        let right = u32::from_le_bytes(bytes[24..28].try_into().unwrap());
        let count = count_of(right);
        for _ in 0..1 + random.below(3) {
            let at = 32 + random.below(bytes.len() as u64 - 32) as usize;
            bytes[at] = random.next_u64() as u8;
        }
        if random.one_in(4) {
            let length = 32 + random.below(bytes.len() as u64 - 32) as usize;
            bytes.truncate(length);
        }
        let shared = if random.one_in(4) { shared } else { 0 };
        if round % 2 == 0 {
            seal_part(&mut bytes, PartKind::Index, TAG, place.offset, count, shared);
            if let Ok(block) = Block::open_index(bytes, meta) {
                block.place(block.len() - 1);
            }
        } else {
            seal_part(&mut bytes, PartKind::Data, TAG, 0, count, shared);
            if let Ok(block) = Block::open_data(bytes, TAG, 0) {
                let mut key = Vec::new();
                block.key_into(block.len() - 1, &mut key);
                assert_eq!(block.find(&key), Some(block.entry(block.len() - 1)));
            }
        }
    }
}

/// The bytes of a block, written out; the whole table is among the golden images.
#[test]
fn a_block_is_laid_out_as_documented() {
    let mut builder = TableBuilder::new(TAG, 4096);
    builder.add(b"\x01aaaa", Lsn(7), Op::Put(b"one"));
    builder.add(b"\x01aabb", Lsn(9), Op::Delete);
    builder.add(b"\x01aac", Lsn(8), Op::Add(-2));
    let table = builder.finish().unwrap();
    let (filter, index) = (table.meta.filter, table.meta.index);
    assert_eq!(filter, Extent { offset: 84, length: 96 });
    assert_eq!(index, Extent { offset: 180, length: 61 });
    let block: &[u8] = b"\x07\0\0\0\0\0\0\0\x01aa\
        \x02\0aa\x01\x00\x03one\
        \x02\0bb\x00\x02\
        \x01\0c\x02\x01\xfe\xff\xff\xff\xff\xff\xff\xff\
        \x2b\0\0\0\x35\0\0\0\x3b\0\0\0";
    assert_eq!(&table.bytes[32..84], block);
}
