//! The object store: what the rooms above may ask.

use std::ops::Range;

use super::reader::{ShardMemory, run_peek, run_read, run_read_shards};
use super::rebuild::{Rebuild, Rebuilt, run_rebuild};
use super::table::run_table_read;
use super::verify::{Judge, ShardHealth, bad_cells, run_verify};
use super::writer::run_writes;
use super::{ChecksumSource, StoredObject, WriteObject};
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::sync::{Arc, Mutex};
use crate::base::{Clock, DiskIndex, Epoch, ObjectId, Random, Units, Wait};
use crate::fleet::disk::{Buffer, BufferPool, Class};
use crate::fleet::error::FleetError;
use crate::fleet::geometry::{AtHand, geometry_at_hand, geometry_wish, shard_bytes};
use crate::fleet::heat::Heat;
use crate::fleet::members::Members;
use crate::fleet::space::{ReserveLevel, Space};
use crate::format::{ObjectRecord, Redundancy};

/// What an object store is made of.
pub struct ObjectContext {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How it waits for disks.
    pub wait: Arc<dyn Wait>,
    /// For placement.
    pub random: Random,
    /// The disks.
    pub members: Arc<Members>,
    /// Free space.
    pub space: Arc<Space>,
    /// Expected waits.
    pub heat: Arc<Heat>,
    /// Memory for I/O.
    pub buffers: BufferPool,
    /// This mount's epoch: object ids are epoch and counter, so they never recur [R5].
    pub epoch: Epoch,
    /// The pool is only read: bad cells stay as they are, others may be using the disks [I5].
    pub read_only: bool,
}

/// Writes and reads objects. All methods may be called from any thread.
pub struct ObjectStore {
    pub(super) context: ObjectContext,
    pub(super) random: Mutex<Random>,
    counter: AtomicU64,
}

impl ObjectStore {
    /// A store whose first object is number 1 of the epoch.
    pub fn new(context: ObjectContext) -> ObjectStore {
        let random = Mutex::new(context.random.clone());
        ObjectStore { context, random, counter: AtomicU64::new(1) }
    }

    /// Memory for disk I/O, in use or kept for the next.
    pub fn buffer_bytes(&self) -> u64 {
        self.context.buffers.held_bytes()
    }

    /// The disks.
    pub fn members(&self) -> &Arc<Members> {
        &self.context.members
    }

    /// Free space.
    pub fn space(&self) -> &Arc<Space> {
        &self.context.space
    }

    /// A fresh id, for an object whose bytes must name it: `WriteObject::id`.
    pub fn new_id(&self) -> ObjectId {
        self.next_id()
    }

    pub(super) fn next_id(&self) -> ObjectId {
        ObjectId::new(self.context.epoch, self.counter.fetch_add(1, Ordering::SeqCst))
    }

    /// How an object of `bytes` (owners' list included) is best written now, and the bytes of each
    /// shard: min(k, ceil(bytes / 2 MiB)) data shards and m parity; one: m+1 replicas [R13]; narrower
    /// at full margin where disks are missing or full [R12]. `shard_bytes_max`: `SHARD_BYTES` for these
    /// 2 MiB, or less where free space is in splinters [R22].
    pub fn geometry_for(&self, bytes: u64, shard_bytes_max: u64) -> (Redundancy, u32) {
        let members = &self.context.members;
        let present = members.placeable().len();
        let mut wish = geometry_wish(members.redundancy(), bytes, shard_bytes_max);
        loop {
            let shard_bytes = shard_bytes(wish, bytes);
            let units = Units(1) + Units::covering(shard_bytes);
            let room = |&disk: &DiskIndex| {
                let room = self.context.space.room(disk).unwrap_or_default();
                room.free_for(ReserveLevel::Reclaim) >= units
            };
            let with_room = members.placeable().into_iter().filter(room).count();
            let at_hand = AtHand { present, with_room: with_room.min(present) };
            match geometry_at_hand(wish, members.parity(), at_hand) {
                Some(narrower) if narrower != wish => wish = narrower,
                Some(_) | None => return (wish, shard_bytes as u32),
            }
        }
    }

    /// Writes an object: encodes, places, writes all shards at once, sends late and failed ones
    /// elsewhere, flushes every disk it touched; returns when every shard is durable. Errors:
    /// `NoRoom`, `TooFewDisks` (the pool is suspended: keep the data, try again).
    pub fn write(&self, object: &WriteObject<'_>) -> Result<StoredObject, FleetError> {
        let mut stored = self.write_all(std::slice::from_ref(object))?;
        Ok(stored.pop().expect("one object in, one out"))
    }

    /// Writes several objects, as `write`, all of them in flight together and every disk flushed once;
    /// in groups that fit the I/O memory. All or none: after an error nothing is held any more.
    pub fn write_all(&self, objects: &[WriteObject<'_>]) -> Result<Vec<StoredObject>, FleetError> {
        run_writes(self, objects)
    }

    /// Gives up an object that no batch will ever name: its places become free.
    pub fn release(&self, record: &ObjectRecord) {
        self.context.space.abandon(record.id);
    }

    /// Reads bytes `range` of an object into `into`, whose length is the range's. Every byte was
    /// verified [I4]. The caller holds a pin (`Space::pin`). Error `Unreadable` if fewer shards are
    /// good than needed.
    pub fn read_into<C: ChecksumSource + ?Sized>(
        &self,
        record: &ObjectRecord,
        checksums: &C,
        range: Range<u32>,
        class: Class,
        into: &mut [u8],
    ) -> Result<(), FleetError> {
        run_read(self, record, checksums, range, class, into)
    }

    /// As `read_into`, into memory of its own.
    pub fn read<C: ChecksumSource + ?Sized>(
        &self,
        record: &ObjectRecord,
        checksums: &C,
        range: Range<u32>,
        class: Class,
    ) -> Result<Vec<u8>, FleetError> {
        let mut bytes = vec![0; range.len()];
        self.read_into(record, checksums, range, class, &mut bytes)?;
        Ok(bytes)
    }

    /// As `read`, when users leave time for it; what is bad is left as it is.
    pub fn peek<C: ChecksumSource + ?Sized>(
        &self,
        record: &ObjectRecord,
        checksums: &C,
        range: Range<u32>,
    ) -> Result<Vec<u8>, FleetError> {
        run_peek(self, record, checksums, range)
    }

    /// Reads the whole object, shard by shard: its k data shards in order (of replicas: one), each to
    /// memory that `memory` gave for it. Shards at the end of the object may end with its last byte,
    /// or go on with padding. Every byte was verified [I4]; the caller holds a pin, as for `read_into`.
    pub fn read_shards<C: ChecksumSource + ?Sized>(
        &self,
        record: &ObjectRecord,
        checksums: &C,
        class: Class,
        memory: &ShardMemory<'_>,
    ) -> Result<Vec<Buffer>, FleetError> {
        run_read_shards(self, record, checksums, class, memory)
    }

    /// Makes shards of these objects anew, durably, at other places, on disks without another shard of
    /// their object; one answer each. Together no more than [`REBUILD_BYTES`](super::REBUILD_BYTES), or
    /// one object. Errors: as for `read_into`; `Damaged` if what is made does not have the checksums that
    /// it should.
    pub fn rebuild<C: ChecksumSource + ?Sized>(
        &self,
        todo: &[Rebuild<'_>],
        checksums: &C,
    ) -> Vec<Result<Rebuilt, FleetError>> {
        run_rebuild(self, todo, checksums)
    }

    /// Reads every shard, header and padding included, and says what each is like, in their order. `judge`
    /// says of a payload how many of its parts are bad. Repairs nothing. The caller holds a pin.
    pub fn verify(&self, record: &ObjectRecord, judge: &mut Judge<'_>) -> Vec<ShardHealth> {
        run_verify(self, record, judge)
    }

    /// As `verify`, cell by cell by these checksums.
    pub fn verify_cells<C: ChecksumSource + ?Sized>(
        &self,
        record: &ObjectRecord,
        checksums: &C,
    ) -> Result<Vec<ShardHealth>, FleetError> {
        let mut failed = None;
        let found = self.verify(record, &mut |shard, payload| {
            let list = record.checksum_list(shard);
            let expected = match checksums.list(record.id, list) {
                Ok(expected) => expected?,
                Err(error) => {
                    failed = Some(error);
                    return None;
                }
            };
            Some(bad_cells(record, list, &expected, payload))
        });
        failed.map_or(Ok(found), Err)
    }

    /// Reads `length` bytes at `offset` of a replicated object whose parts carry their own checksum
    /// and identity (tables, manifest): the replica of least wait, then the others, until `verify`
    /// accepts one. Error `Unreadable` if it accepts none.
    pub fn read_table_block(
        &self,
        record: &ObjectRecord,
        offset: u32,
        length: u32,
        class: Class,
        verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, FleetError> {
        run_table_read(self, record, offset, length, class, verify)
    }
}
