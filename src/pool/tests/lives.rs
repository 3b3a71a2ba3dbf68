//! The life of a pool over many mounts: each is cut short by a crash at any moment (mounting included),
//! with at most m disks away, failing, hanging or lying. What was acknowledged is always there, in
//! order; what is there was always appended; nothing is ever merged from two histories [I1, I2, I8].

use super::*;
use crate::base::Lsn;
use crate::base::sync::Mutex;
use crate::fleet::disk::DiskError;
use crate::fleet::disk::sim::{Access as SimAccess, Snapshot};
use crate::fleet::{Heat, Journal, JournalContext, Level, ReplayFrom, replay};
use crate::format::{RingHead, batch_crc};

/// A batch as it was submitted, and the checksum of the chain up to it.
#[derive(Clone)]
struct Batch {
    payload: Vec<u8>,
    crc: u64,
}

/// What the world outside knows.
#[derive(Clone, Default)]
struct Known {
    /// Batch n + 1 at index n.
    history: Vec<Batch>,
    /// So many of them must be there.
    acked: usize,
}

#[derive(Default)]
struct Shared {
    known: Known,
    /// The crash: what was on the plugged-in disks, and what was known.
    crash: Option<(Vec<Option<Snapshot>>, Known)>,
}

struct Life {
    seed: u64,
    random: Random,
    m: usize,
    images: Vec<Option<Image>>,
    known: Known,
    /// Disks whose word cannot be trusted: they are away next time.
    liars: Vec<usize>,
    /// Mounts that reached their workload.
    mounts: usize,
}

impl Life {
    fn begin(seed: u64) -> Life {
        let mut random = Random::new(seed);
        let disks = 1 + random.below(6) as usize;
        let m = random.below((disks as u64).min(3)) as usize;
        println!("seed {seed}: {disks} disks, m = {m}");
        let bench = Bench::empty(random.next_u64(), disks);
        bench.create(m as u8).expect("nothing is in the way");
        let images = bench.images();
        Life { seed, random, m, images, known: Known::default(), liars: vec![], mounts: 0 }
    }

    fn disks(&self) -> usize {
        self.images.len()
    }

    /// At most m disks, the liars among them.
    fn pick(&mut self, mut picked: Vec<usize>, most: usize) -> Vec<usize> {
        let count = self.random.below(most as u64 + 1) as usize;
        while picked.len() < count {
            let disk = self.random.below(self.disks() as u64) as usize;
            if !picked.contains(&disk) {
                picked.push(disk);
            }
        }
        picked
    }

    /// One mount with its crash.
    fn mount(&mut self) {
        let away = std::mem::take(&mut self.liars);
        let away = self.pick(away, self.m);
        let seed = self.random.next_u64();
        let bench = Bench::new(seed, &without(&self.images, &away));
        let assembled = bench.assemble();
        let assembled = match assembled {
            Ok(assembled) => assembled,
            Err(error) => panic!("seed {}: {error}", self.seed),
        };
        if std::env::var("ISOTHERM_SEED").is_ok() {
            println!("away {away:?}, {:?}, missing {:?}", assembled.mode, assembled.missing);
            println!("  root {:?} {}", assembled.root.epoch, assembled.root.sequence);
            for candidate in bench.candidates() {
                let label = candidate.label;
                println!("  {} {:?} {:?}", label.index, label.claim, label.member_states);
            }
        }
        if assembled.mode == Mode::CouldBeElsewhere {
            assert!(self.disks() <= 2 * self.m, "seed {}: N > 2m is always told apart", self.seed);
            return;
        }
        let lost = |lost: &[usize]| {
            assembled.participants.iter().all(|disk| lost.contains(&disk.as_usize()))
        };
        if lost(&away) {
            assert_eq!(assembled.mode, Mode::TooManyMissing, "seed {}", self.seed);
            return;
        }
        assert_eq!(assembled.mode, Mode::ReadWrite, "seed {}: {away:?} are away", self.seed);
        let mut victims = self.pick(away.clone(), self.m);
        if lost(&victims) {
            // Those that are back do not have everything yet: losing all others is beyond m.
            victims = away.clone();
        }
        if std::env::var("ISOTHERM_SEED").is_ok() {
            println!("  victims {victims:?}, acked {}", self.known.acked);
        }
        let shared = Arc::new(Mutex::new(Shared { known: self.known.clone(), crash: None }));
        for &disk in victims.iter().filter(|disk| !away.contains(disk)) {
            self.hurt(&bench, disk);
        }
        self.schedule_crash(&bench, &shared);
        self.live(&bench, &assembled, &shared);
        let crash = shared.lock().crash.take();
        let (snapshots, known) = crash.unwrap_or_else(|| {
            let now = bench.disks.iter().map(|disk| Some(disk.as_ref()?.snapshot()));
            (now.collect(), shared.lock().known.clone())
        });
        for (image, snapshot) in self.images.iter_mut().zip(snapshots) {
            if let Some(snapshot) = snapshot {
                *image = Some(snapshot.crash_image(&mut self.random));
            }
        }
        self.known = known;
        bench.world.clear();
    }

    /// One fault of one disk at a random time.
    fn hurt(&mut self, bench: &Bench, index: usize) {
        let disk = bench.disk(index).clone();
        let at = bench.world.now() + Duration::from_micros(self.random.below(200_000));
        match self.random.below(6) {
            0 => bench.world.schedule(at, Box::new(move || disk.detach())),
            1 => bench.world.schedule(at, Box::new(move || disk.set_hang(true))),
            2 => {
                let (again, span) = (disk.clone(), self.random.below(15_000));
                let later = at + Duration::from_millis(span);
                bench.world.schedule(at, Box::new(move || disk.set_hang(true)));
                bench.world.schedule(later, Box::new(move || again.set_hang(false)));
            }
            3 => {
                let factor = 2.0 + self.random.unit() * 2000.0;
                bench.world.schedule(at, Box::new(move || disk.set_slow(factor)));
            }
            4 => {
                let nth = self.random.below(30);
                disk.fail_nth(SimAccess::Write, nth, DiskError::Medium { offset: 0 });
            }
            // Half a pool cannot tell a liar from the truth: only where the rest is a quorum.
            _ if self.disks() > 2 * self.m => {
                bench.world.schedule(at, Box::new(move || disk.set_flush_lies(true)));
                self.liars.push(index);
            }
            _ => {}
        }
    }

    fn schedule_crash(&mut self, bench: &Bench, shared: &Arc<Mutex<Shared>>) {
        let at = match self.random.below(4) {
            0 => self.random.below(8_000),
            1 => self.random.below(30_000_000),
            _ => self.random.below(200_000),
        };
        let (disks, shared) = (bench.disks.clone(), shared.clone());
        let snapshot = move || {
            let snapshots = disks.iter().map(|disk| Some(disk.as_ref()?.snapshot())).collect();
            let mut shared = shared.lock();
            let known = shared.known.clone();
            shared.crash = Some((snapshots, known));
        };
        bench.world.schedule(bench.world.now() + Duration::from_micros(at), Box::new(snapshot));
    }

    /// Claim, recovery, batches and checkpoints.
    fn live(&mut self, bench: &Bench, assembled: &Assembled, shared: &Arc<Mutex<Shared>>) {
        let seed = self.seed;
        let claim = assembled.labels.claim(self.random.next_u64(), HERE);
        let claim = claim.unwrap_or_else(|error| panic!("seed {seed}: claim: {error}"));
        let root = &assembled.root;
        let replayed = replay(&bench.access, &assembled.members, &ReplayFrom::root(root));
        assert!(
            replayed.is_sound(self.m, &assembled.participants),
            "seed {seed}: gaps {:?}",
            replayed.gaps
        );
        let from = root.replay_lsn.0 as usize;
        let end = from + replayed.len();
        {
            let known = shared.lock().known.clone();
            assert!(end >= known.acked, "seed {seed}: {} acknowledged, {end} found", known.acked);
            assert!(end <= known.history.len(), "seed {seed}: more than was ever written");
            if from > 0 {
                let crc = known.history[from - 1].crc;
                assert_eq!(root.replay_crc, crc, "seed {seed}: a root of another history");
            }
            for index in 0..replayed.len() {
                let found = replayed.payload(index).expect("readable");
                let batch = &known.history[from + index];
                assert_eq!(*found, batch.payload, "seed {seed}: batch {}", from + index + 1);
            }
        }
        // The recovery's root: from now on all that was found is part of the history for good.
        let quorum = Arc::new(Quorum::new(assembled.members.clone(), assembled.labels.clone()));
        let checkpoint = checkpoint(bench, assembled);
        let mut last = with_mark(next_root(assembled, root), &replayed.end);
        let written = checkpoint.write_root(&last);
        assert_eq!(written, Ok(()), "seed {seed}: the recovery's root");
        {
            let known = &mut shared.lock().known;
            known.history.truncate(end);
            known.acked = end;
        }
        self.mounts += 1;
        let heat = Arc::new(Heat::new(bench.world.clone(), assembled.members.clone()));
        let (pool, access) = (assembled.label.pool, bench.access.clone());
        let (epoch, epoch_id) = (claim.epoch, claim.id);
        let context = JournalContext { access, quorum, heat, pool, epoch, epoch_id };
        let journal = Journal::open(context, &replayed.end);
        for _ in 0..self.random.below(40) {
            if shared.lock().crash.is_some() {
                return;
            }
            self.append(&journal, epoch, shared);
            if self.random.one_in(9) {
                last = with_mark(next_root(assembled, &last), &journal.mark(journal.acked()));
                if checkpoint.write_root(&last).is_ok() {
                    journal.trim(&journal.mark(last.replay_lsn));
                }
            }
        }
    }

    fn append(&mut self, journal: &Journal, epoch: Epoch, shared: &Arc<Mutex<Shared>>) {
        let most = if self.random.one_in(8) { 900_000 } else { 9000 };
        let mut payload = vec![0; 1 + self.random.below(most) as usize];
        self.random.fill(&mut payload);
        if !journal.room(Level::User, payload.len()) {
            return;
        }
        let lsn = {
            let known = &mut shared.lock().known;
            let lsn = Lsn(known.history.len() as u64 + 1);
            let before = known.history.last().map_or(0, |batch| batch.crc);
            let crc = batch_crc(epoch, lsn, before, &payload);
            known.history.push(Batch { payload: payload.clone(), crc });
            lsn
        };
        let result = journal.append(lsn, &payload);
        assert_eq!(result, Ok(()), "seed {}: at most m disks are hurt", self.seed);
        shared.lock().known.acked = lsn.0 as usize;
    }
}

fn with_mark(root: Root, mark: &crate::fleet::Mark) -> Root {
    let heads = mark.heads.iter();
    Root {
        replay_lsn: mark.lsn,
        replay_crc: mark.batch_crc,
        heads: heads.map(|&(disk, position)| RingHead { disk, position }).collect(),
        ..root
    }
}

#[test]
fn i1_i8_a_pool_lives_through_crashes_and_the_loss_of_any_m_disks() {
    let seeds: Vec<u64> = match std::env::var("ISOTHERM_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => vec![seed],
        None => {
            let minutes = std::env::var("ISOTHERM_MINUTES").ok().and_then(|m| m.parse().ok());
            // About a fifth of a second each.
            (1..=minutes.map_or(30, |minutes: u64| minutes * 300)).collect()
        }
    };
    let mut mounts = 0;
    for seed in seeds {
        let mut life = Life::begin(seed);
        for _ in 0..8 {
            life.mount();
        }
        mounts += life.mounts;
    }
    println!("{mounts} mounts recovered");
}
