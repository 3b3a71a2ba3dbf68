//! Bloom filters of tables: lines of 64 bytes, so that one lookup touches one cache line.
//!
//! ```text
//! filter, after the part's header (32 bytes): `count` lines of 64 bytes
//! hash(key): h = 0x9E3779B97F4A7C15 ^ length; for each 8 bytes w of the key (little-endian, the last ones
//!            zero-padded): h = (h ^ w) * 0x9FB21C651E98DF25 mod 2^64, h = h ^ (h >> 32);
//!            then the finalizer of SplitMix64
//! line(h)  = (h >> 32) * count >> 32
//! bits(h)  : six bits of the line: ((h * 0xD6E8FEB86659FD93 mod 2^64) >> (10 + 9 * i)) & 511, i = 0..=5;
//!            bit b is bit b % 8 of byte b / 8
//! ```
//!
//! Ten bits a key: about 1.5 of 100 lookups of absent keys pass.

use super::{HEADER_BYTES, PART_BYTES_MAX, PartKind, TableMeta, open_part, seal_part};
use crate::format::FormatError;
use crate::format::bytes::as_u32;

const LINE_BYTES: usize = 64;
const BITS_PER_KEY: usize = 10;
const PROBES: u32 = 6;

/// The hash of a key that filters use.
pub fn hash_key(key: &[u8]) -> u64 {
    let mut hash = 0x9E37_79B9_7F4A_7C15 ^ key.len() as u64;
    let mut chunks = key.chunks_exact(8);
    for chunk in &mut chunks {
        hash = mix(hash, u64::from_le_bytes(chunk.try_into().expect("chunks of 8 bytes")));
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let mut word = [0u8; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = mix(hash, u64::from_le_bytes(word));
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

fn mix(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(0x9FB2_1C65_1E98_DF25);
    hash ^ (hash >> 32)
}

fn line_of(hash: u64, lines: usize) -> usize {
    (((hash >> 32) * lines as u64) >> 32) as usize
}

/// The bits of a hash within its line.
fn bits_of(hash: u64) -> impl Iterator<Item = usize> {
    let spread = hash.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (0..PROBES).map(move |probe| (spread >> (10 + 9 * probe)) as usize & 511)
}

/// A verified filter.
#[derive(Debug)]
pub struct Filter {
    bytes: Box<[u8]>,
    lines: usize,
}

impl Filter {
    /// Verifies bytes that were read as the filter of a table.
    pub fn open(bytes: Vec<u8>, meta: &TableMeta) -> Result<Filter, FormatError> {
        let (tag, offset) = (meta.tag, meta.filter.offset);
        let (count, _) = open_part(&bytes, PartKind::Filter, tag, offset)?;
        let lines = count as usize;
        if lines == 0 || Some(bytes.len() - HEADER_BYTES) != lines.checked_mul(LINE_BYTES) {
            let (what, at) = ("index filter", offset.into());
            return Err(FormatError::Field { what, at, field: "number of lines" });
        }
        Ok(Filter { bytes: bytes.into(), lines })
    }

    /// False only if no key with this hash is in the table.
    pub fn may_hold(&self, hash: u64) -> bool {
        let start = HEADER_BYTES + LINE_BYTES * line_of(hash, self.lines);
        let line = &self.bytes[start..start + LINE_BYTES];
        bits_of(hash).all(|bit| line[bit / 8] >> (bit % 8) & 1 == 1)
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + size_of::<Filter>()
    }
}

/// Collects hashes and lays a filter out.
#[derive(Default, Debug)]
pub(super) struct FilterBuilder {
    hashes: Vec<u64>,
}

impl FilterBuilder {
    pub(super) fn add(&mut self, key: &[u8]) {
        self.hashes.push(hash_key(key));
    }

    /// The part's bytes.
    pub(super) fn finish(&self, tag: u64, offset: u32) -> Vec<u8> {
        let lines = (self.hashes.len() * BITS_PER_KEY).div_ceil(8 * LINE_BYTES).max(1);
        let mut part = vec![0u8; HEADER_BYTES + LINE_BYTES * lines];
        assert!(part.len() <= PART_BYTES_MAX as usize, "tables have few enough entries");
        for &hash in &self.hashes {
            let start = HEADER_BYTES + LINE_BYTES * line_of(hash, lines);
            for bit in bits_of(hash) {
                part[start + bit / 8] |= 1 << (bit % 8);
            }
        }
        seal_part(&mut part, PartKind::Filter, tag, offset, as_u32(lines), 0);
        part
    }
}
