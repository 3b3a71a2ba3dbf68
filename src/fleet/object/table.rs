//! Reading replicated objects whose parts carry their own checksum and identity: tables, manifest, space
//! snapshots. No checksums are looked up: the judge is handed in.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::store::ObjectStore;
use super::write_plan::payload_offset;
use crate::base::limits::READ_DEADLINE_MS;
use crate::base::units::{round_down, round_up};
use crate::base::{DiskIndex, ShardIndex, Ticks, UNIT_BYTES};
use crate::fleet::disk::{Buffer, Class, DiskError, Fan, Operation, Request};
use crate::fleet::error::FleetError;
use crate::fleet::reports::{FailReason, Report};
use crate::format::{ObjectRecord, Redundancy};

/// How long late replicas are waited for when no other is good.
const GIVE_UP: Duration = Duration::from_secs(60);

/// One replica asked.
struct Asked {
    shard: ShardIndex,
    disk: DiskIndex,
    deadline: Ticks,
    late: bool,
}

/// A read on its way.
struct TableRead<'a> {
    store: &'a ObjectStore,
    record: &'a ObjectRecord,
    /// Bytes of the payload to read, whole units.
    span: Range<u64>,
    class: Class,
    /// Replicas not asked yet, best first.
    order: VecDeque<(ShardIndex, DiskIndex, u64)>,
    /// By slot of the fan; None once answered.
    asked: Vec<Option<Asked>>,
    fan: Fan,
    started: Ticks,
}

/// See `ObjectStore::read_table_block`.
pub(super) fn run_table_read(
    store: &ObjectStore,
    record: &ObjectRecord,
    offset: u32,
    length: u32,
    class: Class,
    verify: &dyn Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, FleetError> {
    let unreadable = FleetError::Unreadable { object: record.id, have: 0, need: 1 };
    let end = offset.checked_add(length).filter(|&end| end <= record.length);
    let replicated = matches!(record.redundancy, Redundancy::Replica { .. });
    let (Some(end), true) = (end, replicated && length > 0 && record.is_sound()) else {
        return Err(unreadable);
    };
    let span = round_down(offset.into(), UNIT_BYTES)..round_up(end.into(), UNIT_BYTES);
    let skip = (u64::from(offset) - span.start) as usize;
    let order = replicas_by_wait(store, record, span.end - span.start);
    let mut read = TableRead {
        store,
        record,
        span,
        class,
        fan: Fan::new(order.len()),
        order,
        asked: Vec::new(),
        started: store.context.clock.now(),
    };
    let block = |buffer: &Buffer| {
        let block = &buffer[skip..skip + length as usize];
        verify(block).then(|| block.to_vec())
    };
    loop {
        read.ask();
        if read.is_over() {
            store.context.members.reports().push(Report::Unreadable { object: record.id });
            return Err(unreadable);
        }
        if let Some(block) = read.wait(&block) {
            return Ok(block);
        }
    }
}

impl TableRead<'_> {
    /// Asks the next replica when nobody is left who could still answer in time.
    fn ask(&mut self) {
        let context = &self.store.context;
        let now = context.clock.now();
        for one in self.asked.iter_mut().flatten().filter(|one| !one.late && one.deadline <= now) {
            one.late = true;
            context.members.late(one.disk);
        }
        while self.asked.iter().flatten().all(|one| one.late) {
            let Some((shard, disk, payload)) = self.order.pop_front() else { return };
            let Some(handle) = context.members.handle(disk) else { continue };
            let bytes = (self.span.end - self.span.start) as usize;
            // Who holds memory already must not wait for more.
            let buffer = if self.asked.is_empty() {
                context.buffers.take(bytes)
            } else {
                context.buffers.try_take(bytes).unwrap_or_else(|| Buffer::zeroed(bytes))
            };
            let busy = context.heat.wait(disk, bytes as u64).saturating_mul(2).min(GIVE_UP / 3);
            let deadline = now + Duration::from_millis(READ_DEADLINE_MS) + busy;
            let operation = Operation::Read { offset: payload + self.span.start, buffer };
            let request = Request { operation, class: self.class, deadline: Some(deadline) };
            self.fan.submit(self.asked.len(), &handle, request);
            self.asked.push(Some(Asked { shard, disk, deadline, late: false }));
        }
    }

    fn is_over(&self) -> bool {
        let now = self.store.context.clock.now();
        self.asked.iter().all(Option::is_none) || now >= self.started + GIVE_UP
    }

    /// Waits for an answer, or until the next replica is to be asked; the first good answer's bytes.
    fn wait(&mut self, block: &dyn Fn(&Buffer) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
        let in_time = self.asked.iter().flatten().filter(|one| !one.late).map(|one| one.deadline);
        let deadline = in_time.min().unwrap_or(self.started + GIVE_UP);
        let slots = 0..self.asked.len();
        self.fan.wait(&*self.store.context.wait, Some(deadline), |view| {
            slots.clone().any(|slot| view.result(slot).is_some())
        });
        for slot in slots {
            let Some(outcome) = self.fan.take(slot) else { continue };
            let one = self.asked[slot].take().expect("a slot is answered once");
            match (outcome.result, outcome.buffer) {
                (Ok(()), Some(buffer)) => match block(&buffer) {
                    Some(bytes) => return Some(bytes),
                    None => report_bad(self.store, self.record, &one),
                },
                (Err(DiskError::Gone | DiskError::Failed), _) => {
                    self.store.context.members.fail(one.disk, FailReason::Gone);
                }
                (Err(DiskError::Medium { .. }), _) => report_bad(self.store, self.record, &one),
                (Err(DiskError::HostFull | DiskError::Cancelled), _) | (Ok(()), None) => {}
            }
        }
        None
    }
}

fn report_bad(store: &ObjectStore, record: &ObjectRecord, one: &Asked) {
    store.context.members.reports().push(Report::BadShard {
        object: record.id,
        shard: one.shard,
        disk: one.disk,
        repaired: false,
    });
}

/// Replicas with their payload's byte offset; hung disks last.
fn replicas_by_wait(
    store: &ObjectStore,
    record: &ObjectRecord,
    bytes: u64,
) -> VecDeque<(ShardIndex, DiskIndex, u64)> {
    let heat = &store.context.heat;
    let mut order: Vec<(ShardIndex, DiskIndex, u64)> = (0..record.places.len() as u8)
        .filter_map(|shard| {
            let (disk, payload) = payload_offset(store, record, ShardIndex(shard))?;
            Some((ShardIndex(shard), disk, payload))
        })
        .filter(|&(_, disk, _)| store.context.members.handle(disk).is_some())
        .collect();
    order.sort_by_key(|&(_, disk, _)| (heat.is_hung(disk), heat.wait(disk, bytes)));
    order.into()
}
