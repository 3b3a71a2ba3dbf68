//! Objects on simulated disks: what is written is read, whatever up to m disks do.

use std::time::Duration;

use super::reader::{Progress, Reading};
use super::*;
use crate::base::limits::SHARD_BYTES;
use crate::base::simulation::World;
use crate::base::sync::Arc;
use crate::base::{Clock, DiskIndex, DiskUuid, Epoch, MIB, PoolUuid, Random};
use crate::fleet::disk::sim::{Access, SimParameters};
use crate::fleet::disk::{BufferPool, Disk, DiskError, SimDisk};
use crate::fleet::{FailReason, Heat, Member, MemberState, Members, Report, Reports, Space};
use crate::format::{DiskLayout, Place, RawShardHeader};

mod enclosures;

const DISK_BYTES: u64 = 256 * MIB;
const POOL: PoolUuid = PoolUuid([7; 16]);

struct Rig {
    world: Arc<World>,
    disks: Vec<Arc<SimDisk>>,
    members: Arc<Members>,
    space: Arc<Space>,
    heat: Arc<Heat>,
    buffers: BufferPool,
    store: ObjectStore,
}

fn ec(data: u8, parity: u8) -> Redundancy {
    Redundancy::Erasure { data, parity }
}

fn rig(seed: u64, disks: usize, redundancy: Redundancy) -> Rig {
    rig_of(seed, disks, redundancy, SimParameters::quick)
}

fn rig_of(
    seed: u64,
    disks: usize,
    redundancy: Redundancy,
    parameters: fn(&str, u64) -> SimParameters,
) -> Rig {
    let world = World::new(seed);
    let disks = (0..disks)
        .map(|number| SimDisk::new(&world, parameters(&format!("disk{number}"), DISK_BYTES)))
        .collect();
    rig_on(world, disks, redundancy)
}

fn rig_on(world: Arc<World>, disks: Vec<Arc<SimDisk>>, redundancy: Redundancy) -> Rig {
    let reports = Arc::new(Reports::new());
    let members = Arc::new(Members::new(POOL, redundancy, reports));
    let space = Arc::new(Space::new());
    let layout = DiskLayout::for_disk(DISK_BYTES).expect("256 MiB are enough");
    for (number, disk) in disks.iter().enumerate() {
        let index = DiskIndex(number as u16);
        space.add_disk(index, layout.data_units, layout.group_units);
        members.set(Member {
            index,
            uuid: DiskUuid([number as u8 + 1; 16]),
            layout,
            state: MemberState::Active,
            handle: Some(disk.clone()),
            enclosure: None,
            failing: false,
        });
    }
    let heat = Arc::new(Heat::new(world.clone(), members.clone()));
    let buffers = BufferPool::new(256 * MIB, world.clone());
    let store = ObjectStore::new(ObjectContext {
        clock: world.clone(),
        wait: world.clone(),
        random: world.fork_random(),
        members: members.clone(),
        space: space.clone(),
        heat: heat.clone(),
        buffers: buffers.clone(),
        epoch: Epoch(5),
        read_only: false,
    });
    Rig { world, disks, members, space, heat, buffers, store }
}

fn bytes_of(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Random::new(seed ^ 0xB17E5).fill(&mut bytes);
    bytes
}

fn object<'a>(data: &'a [&'a [u8]], redundancy: Redundancy) -> WriteObject<'a> {
    WriteObject {
        id: None,
        kind: ObjectKind::Data,
        redundancy,
        data,
        pieces: &[],
        cell_bytes: 32768,
        class: Class::Flush,
        level: ReserveLevel::User,
        lsn: Lsn(9),
    }
}

impl Rig {
    fn write(&self, bytes: &[u8], redundancy: Redundancy) -> Result<StoredObject, FleetError> {
        let stored = self.store.write(&object(&[bytes], redundancy))?;
        self.space.put(&stored.record).expect("its places were held");
        self.space.check_invariants();
        Ok(stored)
    }

    fn read(
        &self,
        stored: &StoredObject,
        range: std::ops::Range<u32>,
    ) -> Result<Vec<u8>, FleetError> {
        let _pin = self.space.pin(stored.record.id);
        self.store.read(&stored.record, &stored.checksums[..], range, Class::Foreground)
    }

    /// All of it, by way of its shards.
    fn read_shards(&self, stored: &StoredObject) -> Result<Vec<u8>, FleetError> {
        let _pin = self.space.pin(stored.record.id);
        let memory = |_: Option<usize>, bytes: usize| {
            (bytes > 4096).then(|| crate::fleet::disk::Buffer::zeroed(bytes))
        };
        let lists = &stored.checksums[..];
        let shards = self.store.read_shards(&stored.record, lists, Class::Foreground, &memory)?;
        assert_eq!(shards.len(), stored.record.redundancy.data_shards());
        let mut bytes = Vec::new();
        for shard in shards {
            let rest = stored.record.length as usize - bytes.len();
            bytes.extend_from_slice(&shard[..rest.min(stored.record.shard_bytes as usize)]);
        }
        Ok(bytes)
    }

    fn disk_of(&self, stored: &StoredObject, shard: usize) -> &SimDisk {
        let place = stored.record.places[shard].expect("all shards are there");
        &self.disks[place.disk.as_usize()]
    }

    /// Byte offset of a byte of a shard's payload.
    fn payload(&self, stored: &StoredObject, shard: usize, at: u64) -> u64 {
        let place = stored.record.places[shard].expect("all shards are there");
        let layout = self.members.layout(place.disk).expect("it is a member");
        layout.data_offset(place.offset) + 4096 + at
    }

    fn flip(&self, stored: &StoredObject, shard: usize, at: u64) {
        self.disk_of(stored, shard).flip_bit(self.payload(stored, shard, at), 3);
    }

    fn reports(&self) -> Vec<Report> {
        std::iter::from_fn(|| self.members.reports().pop()).collect()
    }

    fn reads(&self) -> Vec<u64> {
        self.disks.iter().map(|disk| disk.counters().reads).collect()
    }
}

#[test]
fn what_is_written_is_read_in_any_part() {
    let mut random = Random::new(1);
    for (disks, redundancy) in
        [(8, ec(6, 2)), (5, ec(2, 1)), (4, Redundancy::Replica { copies: 3 }), (9, ec(4, 3))]
    {
        let rig = rig(random.next_u64(), disks, redundancy);
        for length in [1, 4095, 4096, 4097, 100_000, 1 << 20, 3_000_001] {
            let bytes = bytes_of(length as u64, length);
            let stored = rig.write(&bytes, redundancy).expect("all disks work");
            assert_eq!(rig.read(&stored, 0..length as u32), Ok(bytes.clone()));
            assert_eq!(rig.read_shards(&stored), Ok(bytes.clone()));
            for _ in 0..10 {
                let start = random.below(length as u64);
                let end = start + 1 + random.below(length as u64 - start);
                let want = bytes[start as usize..end as usize].to_vec();
                assert_eq!(rig.read(&stored, start as u32..end as u32), Ok(want));
            }
            assert_eq!(rig.read(&stored, 0..0), Ok(Vec::new()));
            let mut used: Vec<DiskIndex> =
                stored.record.places.iter().flatten().map(|place| place.disk).collect();
            used.sort();
            used.dedup();
            assert_eq!(used.len(), redundancy.shards(), "distinct disks");
        }
        assert_eq!(rig.buffers.taken_bytes(), 0);
        assert!(rig.reports().is_empty());
    }
}

#[test]
fn background_io_goes_in_pieces_of_512_kib() {
    let rig = rig(20, 7, ec(4, 2));
    let bytes = bytes_of(3, 5 * MIB as usize);
    let parts: [&[u8]; 1] = [&bytes];
    let written = WriteObject { class: Class::Background, ..object(&parts, ec(4, 2)) };
    let stored = rig.store.write(&written).expect("all disks work");
    assert_eq!(stored.record.shard_bytes, 5 * MIB as u32 / 4);
    let writes: u64 = rig.disks.iter().map(|disk| disk.counters().writes).sum();
    assert_eq!(writes, 6 * 3, "1.25 MiB and a header");
    rig.space.put(&stored.record).expect("its places were held");
    for shard in 0..2 {
        rig.flip(&stored, shard, 700_000);
    }
    let sums = &stored.checksums[..];
    let read = rig.store.read(&stored.record, sums, 0..5 * MIB as u32, Class::Background);
    assert!(read == Ok(bytes));
    let reads: u64 = rig.disks.iter().map(|disk| disk.counters().reads).sum();
    assert!((4 * 3..=4 * 3 + 2 + 2).contains(&reads), "{reads} with two cells and two headers");
    let hung = rig.disk_of(&stored, 3);
    hung.set_hang(true);
    for seed in 0..3 {
        let bytes = bytes_of(seed, 3 * MIB as usize);
        let parts: [&[u8]; 1] = [&bytes];
        let written = WriteObject { class: Class::Background, ..object(&parts, ec(4, 2)) };
        let stored = rig.store.write(&written).expect("one disk hangs");
        assert_eq!(rig.read(&stored, 0..3 * MIB as u32), Ok(bytes));
    }
}

#[test]
fn r26_headers_stand_before_each_shard() {
    let rig = rig(2, 6, ec(3, 2));
    let stored = rig.write(&bytes_of(1, 300_000), ec(3, 2)).expect("all disks work");
    for (shard, place) in stored.record.places.iter().enumerate() {
        let place = place.expect("all shards are there");
        let at = rig.payload(&stored, shard, 0) - 4096;
        let snapshot = rig.disks[place.disk.as_usize()].snapshot();
        let mut unit = vec![0; 4096];
        snapshot.durable().read(at, &mut unit);
        let header = RawShardHeader::decode(&unit, at)
            .and_then(|raw| {
                let disk = rig.members.uuid(place.disk).expect("it is a member");
                raw.verify(POOL, disk, place.offset)
            })
            .expect("a durable header names its place");
        assert!(header.is_shard_of(&stored.record, ShardIndex(shard as u8)));
        assert_eq!(header.checksums, stored.checksums[shard]);
    }
}

#[test]
fn i3_every_shard_is_durable_when_write_returns() {
    for seed in 0..20 {
        let rig = rig(seed, 6, ec(4, 2));
        let objects: Vec<Vec<u8>> =
            (0..3).map(|n| bytes_of(seed * 3 + n, 50_000 + 90_000 * n as usize)).collect();
        let parts: Vec<[&[u8]; 1]> = objects.iter().map(|bytes| [&bytes[..]]).collect();
        let wanted: Vec<WriteObject<'_>> =
            parts.iter().map(|part| object(part, ec(4, 2))).collect();
        let stored = rig.store.write_all(&wanted).expect("all disks work");
        let mut random = Random::new(seed);
        let world = World::new(seed + 100);
        let reopened = rig.disks.iter().map(|disk| {
            let image = disk.snapshot().crash_image(&mut random);
            SimDisk::open(&world, disk.parameters().clone(), image)
        });
        let after = rig_on(world.clone(), reopened.collect(), ec(4, 2));
        for (one, bytes) in stored.iter().zip(&objects) {
            assert_eq!(after.read(one, 0..bytes.len() as u32).as_ref(), Ok(bytes), "seed {seed}");
        }
        assert!(after.reports().is_empty(), "seed {seed}: nothing was lost or torn");
    }
}

#[test]
fn a_cold_4_kib_read_is_one_access_of_one_cell() {
    let rig = rig(3, 8, ec(6, 2));
    let bytes = bytes_of(2, 12 * MIB as usize);
    let stored = rig.write(&bytes, ec(6, 2)).expect("all disks work");
    let before = rig.reads();
    let read_bytes: u64 = rig.disks.iter().map(|disk| disk.counters().read_bytes).sum();
    assert_eq!(
        rig.read(&stored, 5_000_000..5_004_096).expect("all good"),
        bytes[5_000_000..][..4096]
    );
    assert_eq!(rig.reads().iter().sum::<u64>() - before.iter().sum::<u64>(), 1);
    let after: u64 = rig.disks.iter().map(|disk| disk.counters().read_bytes).sum();
    assert_eq!(after - read_bytes, 32768);
}

#[test]
fn a_whole_read_has_k_accesses_in_flight_before_the_first_completes() {
    let rig = rig(4, 8, ec(6, 2));
    let bytes = bytes_of(2, 12 * MIB as usize);
    let stored = rig.write(&bytes, ec(6, 2)).expect("all disks work");
    let range = 0..bytes.len() as u32;
    let sums = &stored.checksums[..];
    let mut reading =
        Reading::new(&rig.store, &stored.record, sums, range, Class::Foreground).expect("sound");
    let Ok(Progress::Wait(_)) = reading.advance() else { panic!("nothing can be there yet") };
    let in_flight: u32 = rig.disks.iter().map(|disk| disk.load().requests).sum();
    assert_eq!(in_flight, 6);
    assert_eq!(rig.reads(), [0; 8]);
    while let Progress::Wait(_) = reading.advance().expect("all good") {
        rig.world.step(None);
    }
    let mut into = vec![0; bytes.len()];
    reading.finish(&mut into);
    assert!(into == bytes);
    assert_eq!(rig.reads().iter().sum::<u64>(), 6, "one access a shard");
}

/// What can be wrong with one shard.
fn spoil(rig: &Rig, stored: &StoredObject, shard: usize, random: &mut Random) -> &'static str {
    let disk = rig.disk_of(stored, shard);
    let length = u64::from(stored.record.shard_bytes);
    match random.below(6) {
        0 => {
            disk.detach();
            "detached"
        }
        1 => {
            disk.set_hang(true);
            "hung"
        }
        2 => {
            for at in (0..length).step_by(4096) {
                disk.flip_bit(rig.payload(stored, shard, at + random.below(4096)), 1);
            }
            "rotten"
        }
        3 => {
            let at = rig.payload(stored, shard, 0);
            disk.add_bad_range(at..at + length);
            "unreadable"
        }
        4 => {
            let place = stored.record.places[shard].expect("all shards are there");
            rig.members.fail(place.disk, FailReason::TakenOut);
            "failed"
        }
        _ => {
            rig.flip(stored, shard, random.below(length));
            "one bit flipped"
        }
    }
}

#[test]
fn i5_up_to_m_bad_shards_are_right_and_more_are_never_wrong() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let redundancies = [ec(4, 2), ec(2, 2), ec(3, 3), Redundancy::Replica { copies: 3 }];
        let redundancy = redundancies[random.below(4) as usize];
        let rig = rig(seed, 7, redundancy);
        let bytes = bytes_of(seed, 1 + random.below(700_000) as usize);
        let stored = rig.write(&bytes, redundancy).expect("all disks work");
        let beyond = random.one_in(3);
        let most = if beyond { redundancy.shards() } else { redundancy.tolerates() };
        let mut shards: Vec<usize> = (0..redundancy.shards()).collect();
        let mut spoilt = Vec::new();
        for _ in 0..1 + random.below(most as u64) {
            let shard = shards.swap_remove(random.below(shards.len() as u64) as usize);
            spoilt.push((shard, spoil(&rig, &stored, shard, &mut random)));
        }
        for _ in 0..4 {
            let start = random.below(bytes.len() as u64) as u32;
            let end = start + 1 + random.below((bytes.len() as u32 - start).into()) as u32;
            let whole = random.one_in(2);
            let (start, end) = if whole { (0, bytes.len() as u32) } else { (start, end) };
            let case = format!("seed {seed} {redundancy:?} {start}..{end} {spoilt:?}");
            let by_shards = whole && random.one_in(2);
            let read =
                if by_shards { rig.read_shards(&stored) } else { rig.read(&stored, start..end) };
            match read {
                Ok(read) => assert!(read == bytes[start as usize..end as usize], "[I4] {case}"),
                Err(FleetError::Unreadable { object, .. }) => {
                    assert_eq!(object, stored.record.id);
                    assert!(spoilt.len() > redundancy.tolerates(), "[I5] {case}");
                }
                Err(other) => panic!("{other}: {case}"),
            }
        }
    }
}

#[test]
fn i5_a_hung_disk_costs_one_deadline_once() {
    let rig = rig(6, 6, ec(4, 2));
    let bytes = bytes_of(6, 1 << 20);
    let stored = rig.write(&bytes, ec(4, 2)).expect("all disks work");
    rig.disk_of(&stored, 1).set_hang(true);
    let at = stored.record.shard_bytes + 5000;
    let took = |rig: &Rig| {
        let start = rig.world.now();
        let read = rig.read(&stored, at..at + 4096).expect("one disk hangs");
        assert_eq!(read, bytes[at as usize..][..4096]);
        rig.world.now().since(start)
    };
    let first = took(&rig);
    assert!(first >= Duration::from_secs(2) && first < Duration::from_secs(3), "{first:?}");
    let place = stored.record.places[1].expect("all shards are there");
    assert_eq!(rig.reports(), [Report::DiskLate { disk: place.disk }]);
    assert_eq!(rig.members.state(place.disk), Some(MemberState::Active), "[R11] late is not dead");
    assert!(took(&rig) < Duration::from_millis(100), "a disk known to hang is not asked");
    rig.disk_of(&stored, 1).set_hang(false);
    rig.world.run_for(Duration::from_secs(5));
    let reads = rig.reads()[place.disk.as_usize()];
    took(&rig);
    assert_eq!(
        rig.reads()[place.disk.as_usize()],
        reads + 1,
        "it answers again, it is asked again"
    );
}

#[test]
fn i4_lost_and_misdirected_writes_are_noticed() {
    for misdirected in [false, true] {
        let rig = rig(7, 5, ec(3, 2));
        // Something older lies where the shard goes.
        let old = rig.write(&bytes_of(1, 300_000), ec(3, 2)).expect("all disks work");
        rig.space.delete(&old.record).expect("it was put");
        if misdirected {
            rig.disks[2].misdirect_next_write(64 * 4096);
        } else {
            rig.disks[2].lose_writes(1);
        }
        let bytes = bytes_of(2, 300_000);
        let stored = rig.write(&bytes, ec(3, 2)).expect("the disk says it wrote");
        for shard in 0..3 {
            let start = shard * stored.record.shard_bytes;
            let end = (start + stored.record.shard_bytes).min(300_000);
            let want = &bytes[start as usize..end as usize];
            assert_eq!(rig.read(&stored, start..end).expect("four shards are right"), want);
        }
        let lied = |report: &Report| {
            matches!(report, Report::BadShard { disk: DiskIndex(2), repaired: false, .. })
        };
        let data = stored.record.places[..3].iter().flatten().any(|place| place.disk.0 == 2);
        assert_eq!(rig.reports().iter().any(lied), data, "[R21] no header there: no repair there");
    }
}

#[test]
fn r21_a_bad_cell_is_rewritten_in_place() {
    for (redundancy, medium) in
        [(ec(4, 2), false), (ec(4, 2), true), (Redundancy::Replica { copies: 3 }, false)]
    {
        let rig = rig(8, 6, redundancy);
        let bytes = bytes_of(3, 900_000);
        let stored = rig.write(&bytes, redundancy).expect("all disks work");
        // Replicas are chosen by wait: make sure that the bad one is asked first.
        let shard = 0;
        for one in 0..redundancy.shards() {
            if one == shard || matches!(redundancy, Redundancy::Replica { .. }) {
                let at = rig.payload(&stored, one, 40_000);
                match medium {
                    true => rig.disk_of(&stored, one).add_bad_range(at..at + 512),
                    false if one < 2 => rig.flip(&stored, one, 40_000),
                    false => {}
                }
            }
        }
        let want = bytes[39_000..39_000 + 4096].to_vec();
        for _ in 0..4 {
            assert_eq!(rig.read(&stored, 39_000..43_096), Ok(want.clone()));
        }
        let bad = |report: &&Report| matches!(report, Report::BadShard { .. });
        let reports = rig.reports();
        let reports: Vec<&Report> = reports.iter().filter(bad).collect();
        let whole = |report: &&&Report| matches!(report, Report::BadShard { repaired: true, .. });
        assert!(!reports.is_empty() || matches!(redundancy, Redundancy::Replica { .. }));
        assert_eq!(reports.iter().filter(whole).count(), reports.len(), "{redundancy:?}");
        for _ in 0..4 {
            assert_eq!(rig.read(&stored, 39_000..43_096), Ok(want.clone()));
        }
        assert!(rig.reports().is_empty(), "it stays whole");
    }
}

#[test]
fn r21_somebody_elses_place_is_left_alone() {
    for redundancy in [ec(3, 2), Redundancy::Replica { copies: 3 }] {
        let rig = rig(9, 5, redundancy);
        let (ours, theirs) = (bytes_of(4, 300_000), bytes_of(5, 300_000));
        let mut stale = rig.write(&ours, redundancy).expect("all disks work");
        let other = rig.write(&theirs, redundancy).expect("all disks work");
        // A stale record: one shard moved, and its old place is another object's by now.
        for shard in 0..redundancy.tolerates() {
            stale.record.places[shard] = other.record.places[shard];
        }
        for _ in 0..4 {
            let pin = rig.space.pin(stale.record.id);
            let sums = &stale.checksums[..];
            let read = rig.store.read(&stale.record, sums, 0..300_000, Class::Foreground);
            assert_eq!(read, Ok(ours.clone()));
            drop(pin);
        }
        let repaired = |report: &Report| matches!(report, Report::BadShard { repaired: true, .. });
        let reports = rig.reports();
        assert!(!reports.iter().any(repaired), "the header there names another object");
        for _ in 0..4 {
            assert_eq!(rig.read(&other, 0..300_000), Ok(theirs.clone()));
        }
        assert!(rig.reports().is_empty(), "nothing of theirs was touched");
    }
}

/// Sets a fault, writes, and returns what was stored after checking that it reads and is whole.
fn write_through(rig: &Rig, redundancy: Redundancy, seed: u64) -> StoredObject {
    let bytes = bytes_of(seed, 600_000);
    let stored = rig.write(&bytes, redundancy).expect("enough disks are left");
    for place in stored.record.places.iter().flatten() {
        assert_eq!(rig.members.state(place.disk), Some(MemberState::Active));
    }
    assert_eq!(rig.read(&stored, 0..600_000), Ok(bytes));
    stored
}

#[test]
fn r12_a_late_shard_goes_elsewhere_and_its_place_stays_held() {
    for in_flush in [false, true] {
        let rig = rig(10, 7, ec(4, 2));
        // Whichever disk it is, it is used sooner or later.
        if in_flush {
            rig.disks[3].set_hang_flush(true)
        } else {
            rig.disks[3].set_hang(true)
        }
        let free = rig.space.free_units(DiskIndex(3));
        let start = rig.world.now();
        for seed in 0..8 {
            let stored = write_through(&rig, ec(4, 2), seed);
            assert_eq!(stored.record.redundancy, ec(4, 2), "one disk is spare");
            assert!(stored.record.places.iter().flatten().all(|place| place.disk != DiskIndex(3)));
        }
        let took = rig.world.now().since(start);
        assert!(took < Duration::from_secs(15), "waited for once, then known: {took:?}");
        assert!(rig.reports().contains(&Report::DiskLate { disk: DiskIndex(3) }));
        assert_eq!(rig.members.state(DiskIndex(3)), Some(MemberState::Active), "[R11]");
        if !in_flush {
            assert!(rig.space.free_units(DiskIndex(3)) < free, "[R7] the write may still land");
        }
        rig.disks[3].set_hang(false);
        rig.disks[3].set_hang_flush(false);
        rig.world.run_for(Duration::from_secs(30));
        assert_eq!(rig.space.free_units(DiskIndex(3)), free, "reaped");
        rig.space.check_invariants();
    }
}

#[test]
fn i10_a_disk_whose_flush_failed_is_not_believed() {
    for access in [Access::Flush, Access::Write] {
        let rig = rig(11, 7, ec(4, 2));
        for disk in &rig.disks[..2] {
            disk.fail_nth(access, 0, DiskError::Medium { offset: 0 });
        }
        for seed in 0..6 {
            let stored = write_through(&rig, ec(4, 2), seed);
            assert_eq!(stored.record.redundancy.tolerates(), 2, "[R12] full margin");
            // Their first flush, or write, failed: there is nothing durable on them to name.
            let believed = |place: &Place| place.disk < DiskIndex(2);
            assert!(!stored.record.places.iter().flatten().any(believed), "{access:?}");
        }
        for disk in [DiskIndex(0), DiskIndex(1)] {
            assert_eq!(rig.members.state(disk), Some(MemberState::Failed), "{access:?}");
        }
        let failed = |report: &&Report| matches!(report, Report::DiskFailed { .. });
        assert_eq!(rig.reports().iter().filter(failed).count(), 2);
        rig.space.check_invariants();
    }
}

#[test]
fn r12_narrower_at_full_margin_when_no_disk_is_spare() {
    let rig = rig(12, 6, ec(4, 2));
    rig.disks[0].detach();
    let stored = write_through(&rig, ec(4, 2), 1);
    assert_eq!(stored.record.redundancy, ec(3, 2));
    assert!(stored.record.provisional);
    rig.disks[1].set_hang(true);
    let stored = write_through(&rig, ec(4, 2), 2);
    assert_eq!(stored.record.redundancy, ec(2, 2));
    rig.disks[2].detach();
    let bytes = bytes_of(3, 1000);
    let stored = rig.write(&bytes, Redundancy::Replica { copies: 3 }).expect("three are left");
    assert_eq!(stored.record.redundancy, Redundancy::Replica { copies: 3 });
    assert_eq!(rig.read(&stored, 0..1000), Ok(bytes));
}

#[test]
fn r11_beyond_m_late_disks_writing_is_suspended_and_resumes() {
    let rig = rig(13, 6, ec(4, 2));
    rig.disks[1..].iter().for_each(|disk| disk.set_hang(true));
    let bytes = bytes_of(1, 600_000);
    let result = rig.write(&bytes, ec(4, 2));
    assert!(matches!(result, Err(FleetError::TooFewDisks { .. })), "{result:?}");
    assert_eq!(rig.members.active().len(), 6, "none was failed by being late");
    rig.disks.iter().for_each(|disk| disk.set_hang(false));
    rig.world.run_for(Duration::from_secs(30));
    let stored = write_through(&rig, ec(4, 2), 1);
    assert_eq!(stored.record.redundancy, ec(4, 2));
    // A mirror of two goes on with one.
    let mirror = rig_of(1, 2, Redundancy::Replica { copies: 2 }, SimParameters::quick);
    mirror.disks[0].set_hang(true);
    let stored = mirror.write(&bytes, Redundancy::Replica { copies: 2 }).expect("[I5] m = 1");
    assert_eq!(stored.record.redundancy, Redundancy::Replica { copies: 1 });
    let short = Report::ShortObject { object: stored.record.id };
    assert!(mirror.reports().contains(&short));
}

#[test]
fn r22_a_full_pool_says_so_and_gives_everything_back() {
    let rig = rig(14, 4, ec(2, 1));
    let bytes = bytes_of(1, 4 * MIB as usize);
    let mut stored = Vec::new();
    let error = loop {
        match rig.write(&bytes, ec(2, 1)) {
            Ok(one) => stored.push(one),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, FleetError::NoRoom { .. }), "{error}");
    for disk in 0..4 {
        let room = rig.space.room(DiskIndex(disk)).expect("it was added");
        assert!(room.free.0 * 100 >= room.total.0 * 10, "users leave a tenth");
    }
    for one in &stored {
        assert_eq!(one.record.redundancy.tolerates(), 1);
        rig.space.delete(&one.record).expect("it was put");
    }
    let released = rig.store.write(&object(&[&bytes], ec(2, 1))).expect("all is free again");
    rig.store.release(&released.record);
    let total = rig.members.layout(DiskIndex(0)).expect("it is a member").data_units;
    assert!((0..4).all(|disk| rig.space.free_units(DiskIndex(disk)) == total));
}

#[test]
fn tables_are_read_from_any_replica_that_is_right() {
    let redundancy = Redundancy::Replica { copies: 4 };
    let rig = rig(15, 6, ec(4, 2));
    let bytes = bytes_of(1, 3 * MIB as usize);
    let parts: [&[u8]; 1] = [&bytes];
    let table = WriteObject { kind: ObjectKind::Table, ..object(&parts, redundancy) };
    let stored = rig.store.write(&table).expect("all disks work");
    rig.space.put(&stored.record).expect("its places were held");
    let want = &bytes[100_000..150_000];
    let read = || {
        rig.store.read_table_block(&stored.record, 100_000, 50_000, Class::Foreground, &|block| {
            block == want
        })
    };
    assert_eq!(read().as_deref(), Ok(want));
    rig.flip(&stored, 0, 120_000);
    rig.disk_of(&stored, 1).set_hang(true);
    rig.disk_of(&stored, 2).detach();
    for _ in 0..5 {
        assert_eq!(read().as_deref(), Ok(want));
    }
    rig.flip(&stored, 3, 120_000);
    assert!(matches!(read(), Err(FleetError::Unreadable { .. })));
    let beyond = rig.store.read_table_block(
        &stored.record,
        3 * MIB as u32 - 10,
        11,
        Class::Foreground,
        &|_| true,
    );
    assert!(beyond.is_err());
}

#[test]
fn r17_the_owners_list_ends_the_object() {
    let rig = rig(16, 6, ec(4, 2));
    let piece = |ino, object_offset| Piece {
        ino: crate::base::Ino(ino),
        file_offset: 5,
        object_offset,
        length: 100,
    };
    let pieces = [piece(3, 0), piece(4, 100)];
    let bytes = bytes_of(1, 200);
    let (first, second) = bytes.split_at(77);
    let parts = [first, second];
    let (redundancy, shard_bytes) = rig.store.geometry_for(200 + 48, SHARD_BYTES);
    assert_eq!((redundancy, shard_bytes), (Redundancy::Replica { copies: 3 }, 4096), "[R13]");
    let written = WriteObject { pieces: &pieces, ..object(&parts, redundancy) };
    let stored = rig.store.write(&written).expect("all disks work");
    assert_eq!((stored.record.pieces_offset, stored.record.length), (200, 248));
    assert!(stored.record.provisional);
    let list = rig.read(&stored, 200..248).expect("all good");
    assert_eq!(crate::format::decode_pieces(&stored.record, &list), Ok(pieces.to_vec()));
    assert_eq!(rig.read(&stored, 0..200), Ok(bytes));
}

#[test]
fn r13_geometry_follows_length_disks_and_room() {
    let rig = rig(17, 6, ec(4, 2));
    let geometry = |bytes| rig.store.geometry_for(bytes, SHARD_BYTES);
    assert_eq!(geometry(8 * MIB), (ec(4, 2), 2 * MIB as u32));
    assert_eq!(geometry(3 * MIB), (ec(2, 2), 3 * MIB as u32 / 2));
    rig.members.fail(DiskIndex(0), FailReason::TakenOut);
    assert_eq!(geometry(9 * MIB), (ec(3, 2), 3 * MIB as u32));
}

/// Eight readers of whole objects, all the time, for `span` of simulated time; counts, per disk,
/// the reads it answered. Returns the number of reads of objects.
fn readers(rig: &Rig, stored: &[StoredObject], span: Duration, random: &mut Random) -> u64 {
    let until = rig.world.now() + span;
    let mut running: Vec<Reading<'_, [Checksums]>> = Vec::new();
    let mut done = 0;
    while rig.world.now() < until {
        while running.len() < 8 {
            let one = &stored[random.below(stored.len() as u64) as usize];
            let range = 0..one.record.length;
            let sums = &one.checksums[..];
            let reading = Reading::new(&rig.store, &one.record, sums, range, Class::Foreground);
            let mut reading = reading.expect("sound");
            reading.advance().expect("all good");
            running.push(reading);
        }
        if !rig.world.step(Some(until)) {
            break;
        }
        running.retain_mut(|reading| {
            let over = reading.advance().expect("all good") == Progress::Done;
            done += u64::from(over);
            !over
        });
    }
    done
}

#[test]
fn a_slow_disk_is_left_alone_and_taken_back_when_it_recovers() {
    for (seed, redundancy) in [(0, ec(5, 2)), (1, ec(6, 2)), (2, ec(5, 2)), (3, ec(6, 2))] {
        let rig = rig_of(seed, 8, redundancy, SimParameters::hdd);
        let mut random = Random::new(seed);
        let bytes = bytes_of(seed, 120_000);
        let stored: Vec<StoredObject> =
            (0..12).map(|_| rig.write(&bytes, redundancy).expect("all disks work")).collect();
        let victim = 3;
        let shares = |rig: &Rig, span: Duration, random: &mut Random| {
            let before = rig.reads();
            let objects = readers(rig, &stored, span, random);
            let after = rig.reads();
            let reads: Vec<f64> = after.iter().zip(&before).map(|(a, b)| (a - b) as f64).collect();
            let fair = reads.iter().sum::<f64>() / 8.0;
            (reads[victim] / objects as f64, reads[victim] / fair)
        };
        let seconds = Duration::from_secs;
        let (_, healthy) = shares(&rig, seconds(5), &mut random);
        assert!(healthy > 0.8, "seed {seed}: a healthy disk takes its part, {healthy}");
        rig.disks[victim].set_slow(10.0);
        shares(&rig, seconds(5), &mut random);
        let (touched, _) = shares(&rig, seconds(20), &mut random);
        assert!(touched < 0.03, "seed {seed}: {touched} of the reads touch the slow disk");
        rig.disks[victim].set_slow(1.0);
        shares(&rig, seconds(5), &mut random);
        let (_, share) = shares(&rig, seconds(5), &mut random);
        assert!(share >= 0.8, "seed {seed}: {share} of its fair share after 5 s");
        println!(
            "seed {seed} {redundancy}: healthy {healthy:.2} of fair; 10 times slower: in {:.2} % \
             of the reads; recovered: {share:.2} of fair",
            touched * 100.0
        );
    }
}

#[test]
fn waits_of_all_disks_are_told() {
    let rig = rig_of(1, 3, ec(2, 1), SimParameters::hdd);
    let service = rig.heat.service(DiskIndex(0), 4096);
    assert!(service > Duration::from_millis(5));
    assert_eq!(rig.heat.wait(DiskIndex(0), 4096), service, "idle and healthy");
    rig.members.fail(DiskIndex(0), FailReason::TakenOut);
    assert_eq!(rig.heat.wait(DiskIndex(0), 4096), Duration::MAX);
    assert_eq!(rig.heat.wait(DiskIndex(9), 4096), Duration::MAX);
}
