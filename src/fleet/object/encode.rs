//! From the bytes of an object to what goes to the disks: per shard one buffer of header unit and
//! payload, so that a shard is one write, and a write that hangs holds no more memory than its own.
//!
//! The bytes come through the cache once: a cell of every data shard is copied from where the caller has it
//! into the I/O buffer, and while these are still in the cache, the parity cells are made of them, and all are
//! checksummed.

use crate::base::canary::{self, Bug};
use crate::base::{DiskUuid, Epoch, PoolUuid, ShardIndex, UNIT_BYTES};
use crate::fleet::codec::Codec;
use crate::format::shard_header::HEADER_CELLS_MAX;
use crate::format::{
    Checksums, ObjectHead, ObjectRecord, Place, Redundancy, SHARD_HEADER_BYTES, ShardHeader,
    cell_crc,
};

/// Whose header a shard gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    /// The pool.
    pub(super) pool: PoolUuid,
    /// Who writes.
    pub(super) epoch: Epoch,
}

/// Bytes of one shard with its header.
pub(super) fn stride(record: &ObjectRecord) -> usize {
    SHARD_HEADER_BYTES + record.shard_bytes as usize
}

/// Lays the object out in `units`, one a shard, behind room for its header; returns its lists of
/// checksums. `parts` are joined; their length is the record's. Each unit's length is `stride`, its
/// content before does not matter.
pub(super) fn encode(
    record: &ObjectRecord,
    parts: &[&[u8]],
    units: &mut [&mut [u8]],
) -> Vec<Checksums> {
    let shards = record.redundancy.shards();
    let data_shards = record.redundancy.data_shards();
    assert_eq!(units.len(), shards, "one unit a shard");
    assert!(units.iter().all(|unit| unit.len() == stride(record)), "one stride a unit");
    let length: usize = parts.iter().map(|part| part.len()).sum();
    assert_eq!(length, record.length as usize, "the record says how long the object is");
    let shard_bytes = record.shard_bytes as usize;
    let mut sources: Vec<Source<'_>> =
        (0..data_shards).map(|shard| Source::new(parts, shard * shard_bytes)).collect();
    let last = record.checksum_list(ShardIndex(shards as u8 - 1));
    let mut checksums = vec![Checksums::default(); last.as_usize() + 1];
    for (cell, start) in (0..shard_bytes).step_by(record.cell_bytes as usize).enumerate() {
        let end = shard_bytes.min(start + record.cell_bytes as usize);
        let place = SHARD_HEADER_BYTES + start..SHARD_HEADER_BYTES + end;
        let mut cells: Vec<&mut [u8]> =
            units.iter_mut().map(|unit| &mut unit[place.clone()]).collect();
        let (data, rest) = cells.split_at_mut(data_shards);
        for (source, bytes) in sources.iter_mut().zip(&mut *data) {
            source.fill(bytes);
        }
        match record.redundancy {
            Redundancy::Replica { .. } => {
                rest.iter_mut().for_each(|copy| copy.copy_from_slice(data[0]))
            }
            Redundancy::Erasure { .. }
                if canary::planted(Bug::ParityOfEdge) && end == shard_bytes && start > 0 =>
            {
                rest.iter_mut().for_each(|bytes| bytes.fill(0))
            }
            Redundancy::Erasure { data: k, parity } => {
                let inputs: Vec<&[u8]> = data.iter().map(|bytes| &**bytes).collect();
                Codec::new(k.into(), parity.into()).encode(&inputs, rest);
            }
        }
        for (list, (sums, bytes)) in checksums.iter_mut().zip(&cells).enumerate() {
            sums.0.push(cell_crc(record.id, ShardIndex(list as u8), cell as u32, bytes));
        }
    }
    checksums
}

/// Where the next bytes of a shard come from.
struct Source<'a> {
    parts: &'a [&'a [u8]],
    /// Bytes of the first part that lie before.
    at: usize,
}

impl<'a> Source<'a> {
    /// What lies at `at` of all `parts`, and after it.
    fn new(parts: &'a [&'a [u8]], mut at: usize) -> Source<'a> {
        let mut parts = parts;
        while let Some((first, rest)) = parts.split_first().filter(|(first, _)| first.len() <= at) {
            at -= first.len();
            parts = rest;
        }
        Source { parts, at }
    }

    /// Fills `into` with what comes next, zeros after the end.
    fn fill(&mut self, into: &mut [u8]) {
        let mut filled = 0;
        while filled < into.len() {
            let Some(part) = self.parts.first() else {
                into[filled..].fill(0);
                return;
            };
            let count = (part.len() - self.at).min(into.len() - filled);
            into[filled..filled + count].copy_from_slice(&part[self.at..self.at + count]);
            filled += count;
            self.at += count;
            if self.at == part.len() {
                self.parts = &self.parts[1..];
                self.at = 0;
            }
        }
    }
}

/// The header unit of one shard at `place` on the disk `disk`.
pub(super) fn shard_header(
    identity: Identity,
    record: &ObjectRecord,
    shard: ShardIndex,
    disk: DiskUuid,
    place: Place,
    checksums: &[Checksums],
) -> Vec<u8> {
    let list = &checksums[record.checksum_list(shard).as_usize()];
    let fits = list.0.len() <= HEADER_CELLS_MAX;
    let header = ShardHeader {
        pool: identity.pool,
        disk,
        offset: place.offset,
        shard,
        epoch: identity.epoch,
        object: ObjectHead::of(record),
        checksums: if fits { list.clone() } else { Checksums::default() },
    };
    let bytes = header.encode();
    assert_eq!(bytes.len() as u64, UNIT_BYTES, "the payload begins one unit later");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{DiskIndex, Lsn, ObjectId, Random, Units};
    use crate::format::{CODEC_VANDERMONDE, ObjectKind};

    fn record(redundancy: Redundancy, length: u32, shard_bytes: u32) -> ObjectRecord {
        ObjectRecord {
            id: ObjectId(77),
            kind: ObjectKind::Data,
            redundancy,
            codec: CODEC_VANDERMONDE,
            cell_bytes: 8192,
            length,
            shard_bytes,
            pieces_offset: length,
            version: 0,
            provisional: false,
            lsn: Lsn(1),
            places: vec![None; redundancy.shards()],
        }
    }

    #[test]
    fn data_shards_are_the_bytes_in_order_and_padded() {
        let record = record(Redundancy::Erasure { data: 3, parity: 2 }, 50_000, 20_480);
        let mut bytes = vec![0; 50_000];
        Random::new(1).fill(&mut bytes);
        let mut buffer = vec![0xee; stride(&record) * 5];
        let parts = [&bytes[..10], &[], &bytes[10..30_000], &bytes[30_000..]];
        let mut units: Vec<&mut [u8]> = buffer.chunks_mut(stride(&record)).collect();
        let checksums = encode(&record, &parts, &mut units);
        assert_eq!(checksums.len(), 5);
        let mut joined = Vec::new();
        for unit in buffer.chunks(stride(&record)).take(3) {
            joined.extend_from_slice(&unit[SHARD_HEADER_BYTES..]);
        }
        assert_eq!(&joined[..50_000], &bytes[..]);
        assert!(joined[50_000..].iter().all(|&byte| byte == 0), "zero-padded");
        let of = |list, payload: &[u8]| {
            let cells = payload.chunks(record.cell_bytes as usize).enumerate();
            Checksums(
                cells.map(|(cell, bytes)| cell_crc(record.id, list, cell as u32, bytes)).collect(),
            )
        };
        for (shard, unit) in buffer.chunks(stride(&record)).enumerate() {
            let list = ShardIndex(shard as u8);
            let payload = &unit[SHARD_HEADER_BYTES..];
            assert_eq!(checksums[shard], of(list, payload));
            assert_eq!(checksums[shard].0.len(), 3, "8 + 8 + 4 KiB");
        }
    }

    #[test]
    fn r16_replicas_share_a_list() {
        let record = record(Redundancy::Replica { copies: 3 }, 5000, 8192);
        let bytes = [5; 5000];
        let mut buffer = vec![0xee; stride(&record) * 3];
        let mut units: Vec<&mut [u8]> = buffer.chunks_mut(stride(&record)).collect();
        let checksums = encode(&record, &[&bytes], &mut units);
        assert_eq!(checksums.len(), 1);
        for unit in buffer.chunks(stride(&record)) {
            assert_eq!(&unit[SHARD_HEADER_BYTES..][..5000], &bytes);
        }
        let identity = Identity { pool: PoolUuid([1; 16]), epoch: Epoch(3) };
        let place = Place { disk: DiskIndex(2), offset: Units(9) };
        let disk = DiskUuid([2; 16]);
        let header = shard_header(identity, &record, ShardIndex(2), disk, place, &checksums);
        let header = crate::format::RawShardHeader::decode(&header, 0).expect("we just made it");
        let header = header.verify(identity.pool, disk, Units(9)).expect("it is in its place");
        assert!(header.is_shard_of(&record, ShardIndex(2)));
        assert_eq!(header.checksums, checksums[0]);
    }
}
