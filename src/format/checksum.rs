//! Checksums: CRC32C for cells, CRC-64/NVME for everything that stands on its own (design-review 44).
//!
//! [I4, R16] A cell's identity is a *prefix* of the checksummed bytes, not folded into a seed: a stale,
//! misdirected or foreign cell fails as surely as a rotten one.
//!
//! ```text
//! prefix of a cell: u64 object · u32 checksum list (shard number; 0 for replicas) · u32 cell · u32 length
//! ```

use crc_fast::{CrcAlgorithm, Digest, checksum};

use crate::base::{ObjectId, ShardIndex};

/// CRC32C (Castagnoli, as in iSCSI).
pub fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// CRC-64/NVME.
pub fn crc64(bytes: &[u8]) -> u64 {
    checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// CRC-64/NVME of several parts as if they were one.
pub fn crc64_parts(parts: &[&[u8]]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    for part in parts {
        digest.update(part);
    }
    digest.finalize()
}

/// The checksum of one cell [I4, R16]. `list` is `ObjectRecord::checksum_list` of the shard: the shard
/// itself, or 0 for replicas, which share a list. `cell` counts from 0 within the shard; `bytes` is the
/// whole cell as it is on disk, padding included (the last cell of a shard may be shorter).
pub fn cell_crc(object: ObjectId, list: ShardIndex, cell: u32, bytes: &[u8]) -> u32 {
    let length = u32::try_from(bytes.len()).expect("a cell is at most 2 MiB");
    let mut prefix = [0u8; 20];
    prefix[0..8].copy_from_slice(&object.0.to_le_bytes());
    prefix[8..12].copy_from_slice(&u32::from(list.0).to_le_bytes());
    prefix[12..16].copy_from_slice(&cell.to_le_bytes());
    prefix[16..20].copy_from_slice(&length.to_le_bytes());
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&prefix);
    digest.update(bytes);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Epoch;

    #[test]
    fn the_algorithms_are_the_published_ones() {
        // Check values of the CRC catalogue, for "123456789".
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc64(b"123456789"), 0xAE8B_1486_0A79_9888);
        assert_eq!(crc64_parts(&[b"1234", b"", b"56789"]), crc64(b"123456789"));
    }

    #[test]
    fn i4_a_cell_is_bound_to_its_place() {
        let (object, list) = (ObjectId::new(Epoch(3), 9), ShardIndex(2));
        let bytes = [7u8; 4096];
        let crc = cell_crc(object, list, 5, &bytes);
        let mut flat = vec![9, 0, 0, 0, 0, 3, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 16, 0, 0];
        flat.extend_from_slice(&bytes);
        assert_eq!(crc, crc32c(&flat), "the prefix is part of the format");
        assert_ne!(crc, cell_crc(ObjectId::new(Epoch(3), 10), list, 5, &bytes));
        assert_ne!(crc, cell_crc(object, ShardIndex(1), 5, &bytes));
        assert_ne!(crc, cell_crc(object, list, 4, &bytes));
        assert_ne!(crc, cell_crc(object, list, 5, &bytes[1..]));
    }
}
