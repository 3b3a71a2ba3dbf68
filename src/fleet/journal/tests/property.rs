//! Random histories with crashes: whatever happens to at most m disks, every acknowledged batch comes
//! back, in order, and nothing but a prefix of what was appended [I1, I2, I8].

use super::*;

/// A moment of a run: the disks, and what had been acknowledged by then.
struct Moment {
    disks: Vec<Snapshot>,
    acked: u64,
    /// The mark that would stand in the last effective root.
    mark: Mark,
}

struct Run {
    appended: Vec<Vec<u8>>,
    moments: Vec<Moment>,
    /// Disks that something happens to, at most m.
    victims: Vec<usize>,
}

#[derive(Default)]
struct Progress {
    acked: u64,
    mark: Option<Mark>,
    moments: Vec<Moment>,
}

fn choose(random: &mut Random, from: usize, count: usize) -> Vec<usize> {
    let mut left: Vec<usize> = (0..from).collect();
    (0..count).map(|_| left.remove(random.below(left.len() as u64) as usize)).collect()
}

/// One fault of one disk at a random time.
fn hurt(bench: &Bench, random: &mut Random, disk: usize) {
    let at = random.below(400);
    let target = bench.disks[disk].clone();
    match random.below(8) {
        0 => bench.after(at, move || target.detach()),
        1 => bench.after(at, move || target.set_hang(true)),
        2 => {
            let again = target.clone();
            bench.after(at, move || target.set_hang(true));
            bench.after(at + random.below(9000), move || again.set_hang(false));
        }
        3 => {
            let factor = 2.0 + random.unit() * 2000.0;
            bench.after(at, move || target.set_slow(factor));
        }
        4 => {
            let nth = random.below(20);
            target.fail_nth(SimAccess::Write, nth, DiskError::Medium { offset: 0 });
        }
        5 => {
            let count = 1 + random.below(5);
            bench.after(at, move || target.lose_writes(count));
        }
        6 => {
            let by = (1 + random.below(200) as i64) * UNIT_BYTES as i64;
            bench.after(at, move || target.misdirect_next_write(by));
        }
        _ => bench.after(at, move || target.set_flush_lies(true)),
    }
}

fn run(seed: u64, disks: usize, parity: u8) -> Run {
    let mut random = Random::new(seed);
    let bench = Bench::new(random.next_u64(), disks, parity);
    let journal = bench.journal(&ZERO);
    let count = random.below(u64::from(parity) + 1) as usize;
    let victims = choose(&mut random, disks, count);
    victims.iter().for_each(|&disk| hurt(&bench, &mut random, disk));
    let progress = Arc::new(Mutex::new(Progress::default()));
    for _ in 0..6 {
        let (progress, disks) = (progress.clone(), bench.disks.clone());
        let at = if random.one_in(3) { random.below(20_000_000) } else { random.below(300_000) };
        bench.world.schedule(
            bench.world.now() + Duration::from_micros(at),
            Box::new(move || {
                let disks = disks.iter().map(|disk| disk.snapshot()).collect();
                let mut progress = progress.lock();
                let mark = progress.mark.clone().unwrap_or(ZERO);
                let acked = progress.acked;
                progress.moments.push(Moment { disks, acked, mark });
            }),
        );
    }
    let mut appended = Vec::new();
    for lsn in 1..=60 {
        let bytes = match random.below(8) {
            0 => 1 + random.below(1_500_000),
            1..=3 => 1 + random.below(60_000),
            _ => 1 + random.below(4000),
        };
        let payload = payload(lsn ^ seed << 8, bytes as usize);
        appended.push(payload.clone());
        if !journal.room(Level::User, payload.len()) || random.one_in(20) {
            let from = progress.lock().mark.clone().map_or(0, |mark: Mark| mark.lsn.0);
            let mark = journal.mark(Lsn(from + random.below(lsn - from)));
            // As if a root with this mark took effect now.
            progress.lock().mark = Some(mark.clone());
            journal.trim(&mark);
        }
        if !journal.room(Level::Internal, payload.len()) {
            appended.pop();
            break;
        }
        let result = journal.append(Lsn(lsn), &payload);
        assert_eq!(result, Ok(()), "seed {seed}: at most m disks are hurt");
        progress.lock().acked = lsn;
        if random.one_in(12) {
            // Right after the acknowledgement, while slower copies are still on their way.
            let disks = bench.snapshots();
            let mut progress = progress.lock();
            let mark = progress.mark.clone().unwrap_or(ZERO);
            progress.moments.push(Moment { disks, acked: lsn, mark });
        }
    }
    let moments = std::mem::take(&mut progress.lock().moments);
    bench.world.clear();
    Run { appended, moments, victims }
}

fn recover(seed: u64, run: &Run, parity: u8) {
    let mut random = Random::new(seed ^ 0xdead);
    for moment in &run.moments {
        let mut images: Vec<Option<Image>> =
            moment.disks.iter().map(|disk| Some(disk.crash_image(&mut random))).collect();
        // Of the victims some are gone; others come back as they are. More are lost, m in all.
        let mut lost = run.victims.clone();
        if random.one_in(2) {
            // The worst of choices: those that have the last acknowledged batch.
            let bench = Bench::open(1, images.clone(), parity, Epoch(2));
            let holders = bench.entries().into_iter().filter(|e| e.2.lsn.0 == moment.acked);
            for (disk, _, _) in holders {
                if lost.len() < usize::from(parity) && !lost.contains(&disk) {
                    lost.push(disk);
                }
            }
        }
        while lost.len() < usize::from(parity) {
            let disk = random.below(images.len() as u64) as usize;
            if !lost.contains(&disk) {
                lost.push(disk);
            }
        }
        for disk in lost {
            if !run.victims.contains(&disk) || random.one_in(2) {
                images[disk] = None;
            }
        }
        let bench = Bench::open(random.next_u64(), images.clone(), parity, Epoch(2));
        let from = moment.mark.lsn.0;
        let replayed = bench.replay(Epoch(1), &moment.mark);
        let all: Vec<DiskIndex> = bench.members.all().iter().map(|member| member.index).collect();
        assert!(
            replayed.is_sound(usize::from(parity), &all),
            "seed {seed}: gaps {:?}",
            replayed.gaps
        );
        let end = from + replayed.len() as u64;
        assert!(end >= moment.acked, "seed {seed}: {} acknowledged, {end} found", moment.acked);
        for index in 0..replayed.len() {
            let lsn = replayed.lsn(index).0;
            assert_eq!(lsn, from + index as u64 + 1, "seed {seed}");
            let found = replayed.payload(index).expect("readable");
            assert_eq!(*found, run.appended[lsn as usize - 1], "seed {seed}: batch {lsn}");
        }
        // [I8] Once more, from the same disks: the same.
        let again = Bench::open(random.next_u64(), images, parity, Epoch(2));
        let second = again.replay(Epoch(1), &moment.mark);
        assert_eq!(second.end, replayed.end, "seed {seed}");
    }
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("ISOTHERM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => {
            let minutes = std::env::var("ISOTHERM_MINUTES").ok().and_then(|m| m.parse().ok());
            // About half a second each.
            (1..=minutes.map_or(count, |minutes: u64| minutes * 120)).collect()
        }
    }
}

#[test]
fn i1_i2_every_acknowledged_batch_survives_a_crash_and_the_loss_of_m_disks() {
    for seed in seeds(24) {
        let mut random = Random::new(seed);
        let disks = 1 + random.below(7) as usize;
        let parity = random.below((disks as u64).min(3)) as u8;
        println!("seed {seed}: {disks} disks, m = {parity}");
        let run = run(seed, disks, parity);
        recover(seed, &run, parity);
    }
}
