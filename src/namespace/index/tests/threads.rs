//! Readers, a writer, the flusher and the compactor at once, on threads (or on shuttle's schedules).

use super::*;
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::base::sync::thread;

const PAIRS: u64 = 8;

fn keys(pair: u64) -> [Vec<u8>; 2] {
    [0u8, 9].map(|side| [&[side][..], &pair.to_be_bytes(), &[7; 20]].concat())
}

fn number(value: Option<Value>) -> u64 {
    value.map_or(0, |value| u64::from_le_bytes(value[..8].try_into().unwrap()))
}

/// Both keys of a pair change together, and only upwards.
fn read(index: &Index, done: &AtomicBool, seed: u64) {
    let mut random = Random::new(seed);
    let mut seen = [0; PAIRS as usize];
    while !done.load(Ordering::SeqCst) {
        let pair = random.below(PAIRS);
        let [a, b] = keys(pair);
        let newest = number(get(index, &a).unwrap());
        assert!(newest >= seen[pair as usize], "a value went back");
        seen[pair as usize] = newest;
        let snapshot = index.snapshot();
        let at = |key: &[u8]| retry(index, |pins| index.get_at(&snapshot, key, pins)).unwrap().0;
        let (a, b) = (number(at(&a)), number(at(&b)));
        assert_eq!(a, b, "a snapshot shows half an apply");
        assert!(a >= newest);
        let mut scanned = scan_all(index, Some(&snapshot), 5).unwrap();
        let later = scanned.split_off(scanned.len() / 2);
        let values = |half: Vec<(Vec<u8>, Value)>| half.into_iter().map(|(_, value)| value);
        assert!(values(scanned).eq(values(later)), "a scan shows half an apply");
        thread::yield_now();
    }
}

fn write(index: &Index, rounds: u64) {
    let mut random = Random::new(3);
    for round in 1..=rounds {
        let [a, b] = keys(random.below(PAIRS));
        let mut value = round.to_le_bytes().to_vec();
        value.resize(8 + random.below(200) as usize, 1);
        index.apply(Lsn(round), [(&a[..], Op::Put(&value)), (&b[..], Op::Put(&value))]);
        if index.wants_freeze() {
            index.freeze(Lsn(round));
        }
        if round % 16 == 0 {
            thread::yield_now();
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a test of threads needs threads")]
fn everybody_at_once(rounds: u64, readers: u64) {
    let store = Arc::new(MemoryStore::default());
    let options = IndexOptions { memtable_bytes: 2 << 10, ..tiny() };
    let index = Index::open(options, store.clone(), Vec::new(), Lsn(0)).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for seed in 0..readers {
        let (index, done) = (index.clone(), done.clone());
        threads.push(thread::spawn(move || read(&index, &done, seed)));
    }
    let tasks: [Box<dyn Task>; 2] = [
        Box::new(Flusher::new(index.clone(), Arc::new(NoClock))),
        Box::new(Compactor::new(index.clone(), Arc::new(NoClock))),
    ];
    for mut task in tasks {
        let (index, done, store) = (index.clone(), done.clone(), store.clone());
        threads.push(thread::spawn(move || {
            while !done.load(Ordering::SeqCst) {
                if task.step() != Pace::Again {
                    thread::yield_now();
                } else if task.name() == "index compactor" {
                    // What it frees nobody may read any more: the store would panic [I3].
                    index.confirm(&index.capture(true)).iter().for_each(|t| store.remove(t));
                }
            }
        }));
    }
    write(&index, rounds);
    done.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
#[cfg(not(feature = "shuttle"))]
fn i3_readers_are_never_disturbed() {
    everybody_at_once(20_000, 2);
}

#[test]
#[cfg(feature = "shuttle")]
fn i3_readers_are_never_disturbed() {
    crate::base::sync::check_random(|| everybody_at_once(40, 1), 500);
}
