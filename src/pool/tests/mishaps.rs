//! Repair beside everything else that goes wrong: objects that are just being named, what cannot be read,
//! no room, a second loss, disks that come back with what they had.

use std::time::Duration;

use super::checks::checked;
use super::files::{content, make, read, write};
use super::reclaim::crashed;
use super::repairs::{Files, compare, machine, options, overwrite, records};
use crate::base::sync::Arc;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::{Clock, DiskIndex, Event, Ino, ObjectId, Pace, Random, ShardIndex, Task};
use crate::fleet::{MemberState, Report};
use crate::format::ObjectRecord;
use crate::namespace::Namespace;
use crate::pool::events::{Reporter, Teller};
use crate::pool::open::{OpenPool, ReadOnly};
use crate::pool::simulated::SimMachine;

/// Notes a bad shard of the objects that are being written just now, again and again.
struct Noter {
    namespace: Namespace,
    clock: Arc<dyn Clock>,
    event: Arc<Event>,
    /// The newest object with a name.
    named: Arc<AtomicU64>,
    every: Duration,
}

impl Task for Noter {
    fn name(&self) -> &'static str {
        "noter"
    }

    fn event(&self) -> Arc<Event> {
        self.event.clone()
    }

    fn step(&mut self) -> Pace {
        let named = self.named.load(Ordering::SeqCst);
        (named..named + 4).for_each(|id| self.namespace.note_bad(ObjectId(id), ShardIndex(0)));
        Pace::Idle(Some(self.clock.now() + self.every))
    }
}

fn newest(namespace: &Namespace) -> u64 {
    records(namespace).iter().map(|record| record.id.0).max().unwrap_or(0)
}

/// Its new place was free again when the batch that named the object was durable.
#[test]
fn an_object_is_repaired_only_when_what_named_it_is_durable() {
    for seed in 0..4 {
        let machine = machine(seed, 7);
        let pool = machine.open(options()).expect("it opens");
        let namespace = &pool.namespace;
        write(namespace, make(namespace, "first"), 0, &content(1, 5 << 20));
        namespace.sync().expect("it syncs");
        let named = Arc::new(AtomicU64::new(newest(namespace)));
        machine.world.add_task(Box::new(Noter {
            namespace: namespace.clone(),
            clock: machine.world.clone(),
            event: Arc::default(),
            named: named.clone(),
            every: Duration::from_micros(300 + 100 * seed),
        }));
        let mut random = Random::new(seed);
        let mut files = Files::new();
        for number in 0..60u64 {
            let (name, bytes) = (format!("f{number}"), content(number, 1 << 20));
            let ino = make(namespace, &name);
            write(namespace, ino, 0, &bytes);
            namespace.fsync(ino).expect("it syncs");
            namespace.forget(ino, 1);
            files.insert(name, bytes);
            named.store(newest(namespace), Ordering::SeqCst);
            if random.below(4) == 0 {
                machine.world.run_for(Duration::from_millis(random.below(20)));
            }
            if let Some(old) = number.checked_sub(4) {
                namespace.unlink(Ino::ROOT, format!("f{old}").as_bytes()).expect("it is there");
                files.remove(&format!("f{old}"));
            }
        }
        named.store(u64::MAX >> 1, Ordering::SeqCst);
        machine.world.run_for(Duration::from_secs(5));
        let report = checked(&pool, true);
        assert!(report.is_clean() && report.compared_space, "seed {seed}: {report:?}");
        compare(namespace, &files);
        for name in files.keys() {
            namespace.unlink(Ino::ROOT, name.as_bytes()).expect("it is there");
        }
        namespace.sync().expect("what they had is free");
        pool.close().expect("it closes");
    }
}

fn spoil(machine: &SimMachine, pool: &OpenPool, record: &ObjectRecord, shard: usize, at: u64) {
    let place = record.places[shard].expect("it has a place");
    let layout = pool.members.layout(place.disk).expect("it is a member");
    machine.disks[place.disk.as_usize()].flip_bit(layout.data_offset(place.offset) + at, 3);
}

/// As the daemon does it: bad shards are noted. How many reports there were.
fn report(pool: &OpenPool) -> usize {
    let mut reports = 0;
    while let Some(report) = pool.reports.pop() {
        reports += 1;
        if let Report::BadShard { object, shard, repaired: false, .. } = report {
            pool.namespace.note_bad(object, shard);
        }
    }
    reports
}

#[test]
fn what_cannot_be_read_is_told_once_and_not_again_by_its_repair() {
    let machine = machine(1, 6);
    let pool = machine.open(options()).expect("it opens");
    let ino = make(&pool.namespace, "f");
    write(&pool.namespace, ino, 0, &content(1, 5 << 20));
    pool.namespace.sync().expect("it syncs");
    let record = records(&pool.namespace).remove(0);
    (0..3).for_each(|shard| spoil(&machine, &pool, &record, shard, 4096 + 77));
    let mut bytes = Vec::new();
    pool.namespace.read(ino, 0, 4096, &mut bytes).expect_err("it is lost");
    assert!(report(&pool) > 0, "that is told");
    let mut again = 0;
    for _ in 0..600 {
        machine.world.run_for(Duration::from_millis(100));
        again += report(&pool);
    }
    assert_eq!(again, 0, "nobody else has asked for it");
    pool.close().expect("it closes");
}

/// [R21] Above a bad header nothing is mended in place: what a reader finds there is made anew, when the
/// reporter has told it.
#[test]
fn r21_what_a_reader_may_not_mend_in_place_is_noted_for_repair() {
    let machine = machine(1, 5);
    let pool = machine.open(options()).expect("it opens");
    machine.world.add_task(Box::new(Reporter {
        reports: pool.reports.clone(),
        members: pool.members.clone(),
        namespace: pool.namespace.clone(),
        teller: Teller::new(machine.world.clone(), "pool", None),
    }));
    let (ino, bytes) = (make(&pool.namespace, "f"), content(1, 5 << 20));
    write(&pool.namespace, ino, 0, &bytes);
    pool.namespace.sync().expect("it syncs");
    let record = records(&pool.namespace).remove(0);
    spoil(&machine, &pool, &record, 0, 100);
    spoil(&machine, &pool, &record, 0, 4096 + 77);
    assert!(read(&pool.namespace, ino, 0, u32::MAX) == bytes, "others have it");
    machine.world.run_for(Duration::from_secs(20));
    let report = checked(&pool, true);
    assert!(report.is_clean(), "{report:?}");
    assert!(records(&pool.namespace).remove(0).places[0] != record.places[0], "it has moved");
    pool.close().expect("it closes");
}

/// Where there is no room to write some objects again, the others are repaired all the same.
#[test]
fn i5_no_room_for_narrower_objects_keeps_no_other_from_being_repaired() {
    let machine = machine(2, 5);
    let pool = machine.open(options()).expect("it opens");
    let namespace = &pool.namespace;
    let mut number = 0;
    loop {
        let ino = make(namespace, &format!("b{number}"));
        let bytes = content(number, 1 << 20);
        let full =
            (0..5).any(|part| namespace.write(ino, part << 20, &bytes, false, false).is_err());
        namespace.forget(ino, 1);
        if full || namespace.sync().is_err() {
            break;
        }
        number += 1;
    }
    for old in [number, number - 1] {
        namespace.unlink(Ino::ROOT, format!("b{old}").as_bytes()).expect("it is there");
    }
    namespace.sync().expect("it syncs");
    machine.world.run_for(Duration::from_secs(10));
    for small in 0..8 {
        let ino = make(namespace, &format!("s{small}"));
        write(namespace, ino, 0, &content(small, 300_000));
        namespace.sync().expect("there is room for that");
    }
    [1, 4].into_iter().for_each(|disk| machine.disks[disk].detach());
    let ino = make(namespace, "wakes them");
    write(namespace, ino, 0, &content(9, 300_000));
    namespace.fsync(ino).expect("the others take it");
    machine.world.run_for(Duration::from_secs(300));
    let all = records(namespace);
    let lacking: Vec<&ObjectRecord> =
        all.iter().filter(|record| pool.members.lacks(record)).collect();
    assert!(lacking.iter().any(|record| record.length > 1 << 20), "there was no room for all");
    let small = lacking.iter().filter(|record| record.length < 1 << 20).count();
    assert_eq!(small, 0, "the third disk has room for these");
    let progress = *pool.repair.lock();
    let waiting = lacking.len() as u64;
    assert!(waiting > 0 && progress.waiting == waiting, "that is told: {waiting}, {progress:?}");
    pool.close().expect("it closes");
}

#[test]
fn a_second_loss_is_noticed_in_the_middle_of_a_pass() {
    let machine = machine(1, 7);
    let pool = machine.open(options()).expect("it opens");
    for number in 0..60 {
        let ino = make(&pool.namespace, &format!("f{number}"));
        write(&pool.namespace, ino, 0, &content(number, 5 << 20));
        pool.namespace.sync().expect("it syncs");
    }
    machine.disks[0].detach();
    pool.namespace.checkpoint().expect("the others take it");
    machine.disks.iter().for_each(|disk| disk.set_slow(60.0));
    while !pool.repair.lock().running {
        machine.world.run_for(Duration::from_millis(100));
    }
    machine.disks[1].detach();
    let failed = |pool: &OpenPool| pool.members.state(DiskIndex(1)) != Some(MemberState::Active);
    while !failed(&pool) {
        machine.world.run_for(Duration::from_millis(100));
    }
    let begun = machine.world.now();
    while !pool.members.is_given_up(DiskIndex(1)) {
        machine.world.run_for(Duration::from_millis(100));
    }
    let waited = machine.world.now().since(begun);
    assert!(waited < Duration::from_secs(4), "one second, for none may be lost now: {waited:?}");
    assert!(pool.repair.lock().running, "and it is in the middle of it");
    pool.close().expect("it closes");
}

#[test]
fn bad_copies_of_long_chains_are_written_anew_too() {
    let machine = machine(1, 6);
    let mut options = options();
    options.namespace.chains.whole_bytes = 0;
    options.namespace.chains.links = 1000;
    options.namespace.chains.growth = 100_000;
    let pool = machine.open(options).expect("it opens");
    let checkpoint = |number: u64| {
        let ino = make(&pool.namespace, &format!("f{number}"));
        write(&pool.namespace, ino, 0, &content(number, 100_000));
        pool.namespace.checkpoint().expect("it has room");
    };
    (0..4).for_each(checkpoint);
    let chains = || {
        let mut chains = pool.namespace.unkeyed().records();
        chains.retain(|record| record.kind != crate::format::ObjectKind::Table);
        chains
    };
    let spoilt = chains();
    assert!(spoilt.len() > 4, "they are long");
    for record in &spoilt {
        spoil(&machine, &pool, record, 0, 4096);
        pool.namespace.note_bad(record.id, ShardIndex(0));
    }
    (4..8).for_each(checkpoint);
    let left: Vec<ObjectRecord> = chains()
        .into_iter()
        .filter(|record| spoilt.iter().any(|old| old.id == record.id))
        .collect();
    assert_eq!(left, [], "none of them is named any more");
    pool.close().expect("it closes");
}

/// One life of a pool: disks fail, shards go bad, users go on, and the power fails or it is closed.
fn live(
    machine: &SimMachine,
    random: &mut Random,
    files: &mut Files,
    number: &mut u64,
) -> SimMachine {
    let mut options = options();
    options.repair.delay = Some(Duration::from_secs(2));
    options.repair.look = Duration::from_millis(200);
    if random.below(2) == 0 {
        options.index.memtable_bytes = 4096;
        options.index.table_bytes = 65536;
        options.namespace.chains.whole_bytes = 0;
        options.reclaim.look = Duration::from_millis(300);
        options.reclaim.loose_bytes_min = 1;
        options.reclaim.loose_share = u64::MAX;
        options.reclaim.worth_percent_min = 90;
    }
    let pool = machine.open(options).expect("it opens");
    assert_eq!(pool.read_only, ReadOnly::No);
    let namespace = &pool.namespace;
    compare(namespace, files);
    let report = checked(&pool, true);
    let harm = |what: &str| what.contains("both") || what.contains("space");
    assert!(report.findings.iter().all(|one| !one.lost && !harm(&one.what)), "{report:?}");
    let (lose, mut lost) = (random.below(3), 0);
    for _ in 0..20 + random.below(40) {
        if lost < lose && random.below(10) == 0 {
            machine.disks[random.below(7) as usize].detach();
            lost += 1;
        }
        let name = format!("f{}", random.below(20));
        match random.below(6) {
            0 if files.remove(&name).is_some() => {
                namespace.unlink(Ino::ROOT, name.as_bytes()).expect("it is there");
            }
            1 => note_some(namespace, random),
            2 if random.below(4) == 0 => namespace.checkpoint().expect("it has room"),
            _ => {
                *number += 1;
                let bytes = content(*number, random.below(4 << 20) as usize + 1);
                overwrite(namespace, files, name, &bytes);
            }
        }
        if random.below(3) == 0 {
            namespace.sync().expect("it syncs");
        }
        machine.world.run_for(Duration::from_millis(random.below(300)));
    }
    namespace.sync().expect("it syncs");
    let pause = if random.below(3) == 0 { 1 << 24 } else { 3000 };
    machine.world.run_for(Duration::from_micros(random.below(pause)));
    compare(namespace, files);
    let seed = random.next_u64();
    if random.below(4) == 0 {
        pool.close().expect("it closes");
        return crashed(machine, seed);
    }
    let next = crashed(machine, seed);
    machine.world.clear();
    next
}

fn note_some(namespace: &Namespace, random: &mut Random) {
    let all = records(namespace);
    if !all.is_empty() && random.below(2) == 0 {
        let record = &all[random.below(all.len() as u64) as usize];
        let shard = random.below(record.places.len() as u64) as u8;
        namespace.note_bad(record.id, ShardIndex(shard));
    }
    for record in namespace.unkeyed().records() {
        if random.below(6) == 0 {
            namespace.note_bad(record.id, ShardIndex(0));
        }
    }
}

/// All disks come back with every life, with what they had.
#[test]
fn r2_disks_that_come_back_with_stale_shards_harm_nobody() {
    for seed in 0..5 {
        let mut random = Random::new(1000 + seed);
        let mut machine = machine(seed, 7);
        let (mut files, mut number) = (Files::new(), 0);
        for _ in 0..5 {
            machine = live(&machine, &mut random, &mut files, &mut number);
        }
    }
}
