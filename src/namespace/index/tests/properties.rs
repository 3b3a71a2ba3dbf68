//! Random histories, compared with a map after every step: changes, freezes, flushes, compactions,
//! checkpoints that take effect or not, crashes, snapshots held across all of it.

use super::*;
use crate::format::manifest::{Manifest, live_tables};

type Map = BTreeMap<Vec<u8>, Value>;

#[derive(Clone, Debug)]
enum Change {
    Put(Vec<u8>, Value),
    Delete(Vec<u8>),
    Add(Vec<u8>, i64),
}

impl Change {
    fn parts(&self) -> (&[u8], Op<'_>) {
        match self {
            Change::Put(key, value) => (key, Op::Put(value)),
            Change::Delete(key) => (key, Op::Delete),
            Change::Add(key, delta) => (key, Op::Add(*delta)),
        }
    }

    /// The specification.
    fn apply(&self, map: &mut Map) {
        match self {
            Change::Put(key, value) => {
                map.insert(key.clone(), value.clone());
            }
            Change::Delete(key) => {
                map.remove(key);
            }
            Change::Add(key, delta) => {
                let before = map.get(key).and_then(|value| value.as_slice().try_into().ok());
                let sum = before.map_or(0, i64::from_le_bytes).wrapping_add(*delta);
                map.insert(key.clone(), sum.to_le_bytes().to_vec());
            }
        }
    }
}

/// Keys of the real shapes, few enough to meet again and again.
fn random_key(random: &mut Random) -> Vec<u8> {
    let kind = 1 + random.below(7) as u8;
    let mut key = vec![kind];
    key.extend_from_slice(&random.below(12).to_be_bytes());
    match kind {
        2 => key.extend(std::iter::repeat_n(b'n', random.below(60) as usize)),
        3 => key.extend_from_slice(&(random.below(30) * 4096).to_be_bytes()),
        _ => {}
    }
    key
}

fn random_change(random: &mut Random, deletes: u64) -> Change {
    let key = random_key(random);
    match random.below(10) {
        n if n < deletes => Change::Delete(key),
        // Counters have a key range of their own, mostly.
        8 | 9 if key[0] == 7 || random.one_in(20) => Change::Add(key, random.next_u64() as i64 % 9),
        _ => {
            let bytes = if random.one_in(50) { 1500 } else { random.below(60) };
            let mut value = vec![0; bytes as usize];
            random.fill(&mut value);
            Change::Put(key, value)
        }
    }
}

/// A pool's worth of durable state: root and journal.
#[derive(Default)]
struct Durable {
    chain: Vec<Manifest>,
    flushed_through: Lsn,
    journal: Vec<(Lsn, Vec<Change>)>,
}

struct Run {
    random: Random,
    options: IndexOptions,
    store: Arc<MemoryStore>,
    index: Arc<Index>,
    flusher: Flusher,
    compactor: Compactor,
    durable: Durable,
    map: Map,
    /// The map at the end of the last sealed batch: what a crash leaves.
    sealed: Map,
    /// Changes of the batch that is open.
    batch: Vec<Change>,
    lsn: Lsn,
    snapshots: Vec<(Snapshot, Map)>,
    /// A checkpoint that was begun, and whether its manifest is whole.
    attempt: Option<(Capture, bool)>,
    /// Deletes among ten changes: goes up and down.
    deletes: u64,
    needs: usize,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = Random::new(seed);
        let cache_bytes = [0, 1 << 10, 4 << 10, 1 << 20][random.below(4) as usize];
        let options = IndexOptions { cache_bytes, seed, ..tiny() };
        let store = Arc::new(MemoryStore::default());
        let index = Index::open(options.clone(), store.clone(), Vec::new(), Lsn(0)).unwrap();
        Run {
            random,
            options,
            store,
            flusher: Flusher::new(index.clone(), Arc::new(NoClock)),
            compactor: Compactor::new(index.clone(), Arc::new(NoClock)),
            index,
            durable: Durable::default(),
            map: Map::new(),
            sealed: Map::new(),
            batch: Vec::new(),
            lsn: Lsn(1),
            snapshots: Vec::new(),
            attempt: None,
            deletes: 2,
            needs: 0,
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..40 => self.change(),
            40..50 => self.seal(),
            50..62 => drop(self.flusher.run_step().unwrap()),
            62..76 => drop(self.compactor.run_step().unwrap()),
            76..82 => self.check_get(),
            82..87 => self.check_at_or_before(),
            87..91 => self.check_scan(),
            91 | 92 => self.snapshots.push((self.index.snapshot(), self.map.clone())),
            93 if !self.snapshots.is_empty() => {
                let which = self.random.below(self.snapshots.len() as u64) as usize;
                self.snapshots.swap_remove(which);
            }
            94..98 => self.checkpoint(),
            98 if self.random.one_in(6) => self.crash(),
            _ => self.deletes = self.random.below(8),
        }
        self.snapshots.truncate(4);
    }

    fn change(&mut self) {
        let count = 1 + self.random.below(12);
        let changes: Vec<Change> =
            (0..count).map(|_| random_change(&mut self.random, self.deletes)).collect();
        self.index.apply(self.lsn, changes.iter().map(Change::parts));
        changes.iter().for_each(|change| change.apply(&mut self.map));
        self.batch.extend(changes);
    }

    /// Ends the open batch, and freezes the memtable there if it is full.
    fn seal(&mut self) {
        self.durable.journal.push((self.lsn, std::mem::take(&mut self.batch)));
        self.sealed = self.map.clone();
        if self.index.wants_freeze() || self.random.one_in(10) {
            self.index.freeze(self.lsn);
        }
        assert!(self.index.flushed_through() <= self.lsn);
        self.lsn = self.lsn.next();
    }

    /// A view to look at, with what it must show.
    fn any_view(&mut self) -> (Option<usize>, Map) {
        match self.random.below(2 + self.snapshots.len() as u64).checked_sub(2) {
            Some(which) => (Some(which as usize), self.snapshots[which as usize].1.clone()),
            None => (None, self.map.clone()),
        }
    }

    fn check_get(&mut self) {
        let key = random_key(&mut self.random);
        let (view, map) = self.any_view();
        let (found, needs) = match view {
            Some(which) => {
                let snapshot = &self.snapshots[which].0;
                retry(&self.index, |pins| self.index.get_at(snapshot, &key, pins)).unwrap()
            }
            None => retry(&self.index, |pins| self.index.get(&key, pins)).unwrap(),
        };
        self.needs += needs;
        assert_eq!(found.as_ref(), map.get(&key), "{key:?}");
    }

    fn check_at_or_before(&mut self) {
        let mut key = random_key(&mut self.random);
        let prefix_bytes = [1, 9, key.len(), 0][self.random.below(4) as usize].min(key.len());
        let prefix = key[..prefix_bytes].to_vec();
        if self.random.one_in(3) {
            key.push(self.random.next_u64() as u8);
        }
        let (view, map) = self.any_view();
        let snapshot = view.map(|which| &self.snapshots[which].0);
        let wanted = map.range(prefix.clone()..=key.clone()).next_back();
        let wanted = wanted.map(|(key, value)| (key.clone(), value.clone()));
        let lookup = |pins: &Pins| self.index.get_at_or_before(&key, &prefix, snapshot, pins);
        let (found, needs) = retry(&self.index, lookup).unwrap();
        self.needs += needs;
        assert_eq!(found, wanted, "{key:?} in {prefix:?}");
    }

    fn check_scan(&mut self) {
        let (mut start, mut end) = (random_key(&mut self.random), random_key(&mut self.random));
        if start > end {
            std::mem::swap(&mut start, &mut end);
        }
        let limit = 1 + self.random.below(40) as usize;
        let (view, map) = self.any_view();
        let snapshot = view.map(|which| &self.snapshots[which].0);
        let (scan, needs) =
            retry(&self.index, |pins| self.index.scan(&start, &end, limit, snapshot, pins))
                .unwrap();
        self.needs += needs;
        assert!(scan.entries.len() <= limit);
        let reached = scan.next.unwrap_or(end);
        let wanted = map.range(start..reached);
        let wanted: Vec<_> = wanted.map(|(key, value)| (key.clone(), value.clone())).collect();
        assert_eq!(scan.entries, wanted);
    }

    /// Begins a checkpoint, or ends the one that was begun: its root takes effect, or the attempt
    /// fails, and then nothing was confirmed.
    fn checkpoint(&mut self) {
        let Some((capture, whole)) = self.attempt.take() else {
            let whole = self.durable.chain.is_empty() || self.random.one_in(4);
            self.attempt = Some((self.index.capture(whole), whole));
            return;
        };
        if self.random.one_in(3) {
            return;
        }
        let object = ObjectId::new(Epoch(1), 1 << 30);
        let manifest = Manifest { object, sequence: 1, whole, entries: capture.entries.clone() };
        let bytes = manifest.encode().unwrap();
        if whole {
            self.durable.chain.clear();
        }
        self.durable.chain.push(Manifest::decode(&bytes, object).unwrap());
        self.durable.flushed_through = capture.flushed_through;
        self.durable.journal.retain(|(lsn, _)| *lsn > capture.flushed_through);
        let mut named: Vec<ObjectId> = live_tables(&self.durable.chain)
            .expect("the chain of manifests makes sense")
            .iter()
            .map(|table| table.record.id)
            .collect();
        named.sort();
        let mut live: Vec<ObjectId> = capture.tables.iter().map(|record| record.id).collect();
        live.sort();
        assert_eq!(named, live, "R9: the chain names the live tables");
        for record in self.index.confirm(&capture) {
            assert!(!named.contains(&record.id), "I3: the root names it");
            self.store.remove(&record);
        }
    }

    /// Loses everything that is not durable, and recovers: root, then journal [I8, R9].
    fn crash(&mut self) {
        self.snapshots.clear();
        self.attempt = None;
        let tables = match self.durable.chain.is_empty() {
            true => Vec::new(),
            false => live_tables(&self.durable.chain).unwrap(),
        };
        let ids: Vec<ObjectId> = tables.iter().map(|table| table.record.id).collect();
        let through = self.durable.flushed_through;
        self.options.seed = self.random.next_u64();
        let index = Index::open(self.options.clone(), self.store.clone(), tables, through).unwrap();
        self.flusher = Flusher::new(index.clone(), Arc::new(NoClock));
        self.compactor = Compactor::new(index.clone(), Arc::new(NoClock));
        self.index = index;
        self.store.keep_only(&ids);
        // The batch that was open is lost.
        for (lsn, changes) in &self.durable.journal {
            assert!(*lsn > through);
            self.index.apply(*lsn, changes.iter().map(Change::parts));
        }
        self.lsn = self.durable.journal.last().map_or(through, |(lsn, _)| *lsn).next();
        self.map = self.sealed.clone();
        self.batch.clear();
    }

    fn check_all(&mut self) {
        let limit = 1 + self.random.below(50) as usize;
        let wanted: Vec<_> = self.map.clone().into_iter().collect();
        assert_eq!(scan_all(&self.index, None, limit).unwrap(), wanted);
        for (snapshot, map) in &self.snapshots {
            let wanted: Vec<_> = map.clone().into_iter().collect();
            assert_eq!(scan_all(&self.index, Some(snapshot), limit).unwrap(), wanted);
        }
        assert!(self.index.cache_used_bytes() <= self.options.cache_bytes);
    }
}

/// Runs histories; `ISOTHERM_SEED` replays one, `ISOTHERM_MINUTES` goes on for longer.
#[test]
fn r9_i3_the_index_is_a_map_whatever_happens_below() {
    let fixed = std::env::var("ISOTHERM_SEED").ok().and_then(|seed| seed.parse().ok());
    let minutes = std::env::var("ISOTHERM_MINUTES").ok().and_then(|text| text.parse().ok());
    let seeds = 24 + minutes.unwrap_or(0u64) * 400;
    let (mut needs, mut deepest) = (0, 0);
    for seed in fixed.map_or(1..1 + seeds, |seed| seed..seed + 1) {
        let caught = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed);
            for step in 0..1500 {
                run.step();
                if step % 100 == 99 {
                    run.check_all();
                }
            }
            run.seal();
            run.crash();
            run.check_all();
            run.index.freeze(Lsn(run.lsn.0 - 1));
            flush_all(&run.index);
            compact_all(&run.index);
            run.check_all();
            (run.needs, run.index.levels().len())
        });
        match caught {
            Ok((more, levels)) => {
                needs += more;
                deepest = deepest.max(levels);
            }
            Err(panic) => {
                eprintln!("replay with ISOTHERM_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    if fixed.is_none() {
        assert!(needs > 1000 && deepest >= 3, "{needs} needs, {deepest} levels: too tame a test");
    }
}
