//! What goes wrong below, and what must stay bounded.

use super::*;

fn put_all(index: &Index, lsn: u64, keys: impl Iterator<Item = u64>, value: &[u8]) {
    let keys: Vec<[u8; 8]> = keys.map(u64::to_be_bytes).collect();
    index.apply(Lsn(lsn), keys.iter().map(|key| (&key[..], Op::Put(value))));
}

fn open(options: IndexOptions) -> (Arc<MemoryStore>, Arc<Index>) {
    let store = Arc::new(MemoryStore::default());
    let index = Index::open(options, store.clone(), Vec::new(), Lsn(0)).unwrap();
    (store, index)
}

/// An index with several levels and nothing in its memtable.
fn filled() -> (Arc<MemoryStore>, Arc<Index>) {
    let (store, index) = open(IndexOptions { cache_bytes: 0, ..tiny() });
    for round in 1..=20 {
        let keys = (0..60).map(|n| (n * 37 + round * 11) % 1000);
        put_all(&index, round, keys, format!("value of round {round}").as_bytes());
        assert!(index.freeze(Lsn(round)));
        flush_all(&index);
        compact_all(&index);
    }
    assert!(index.levels().len() >= 2, "{:?}", index.levels());
    (store, index)
}

#[test]
fn i4_a_rotten_block_is_read_elsewhere_or_is_an_error() {
    let (store, index) = filled();
    let wanted = scan_all(&index, None, 50).unwrap();
    let mut random = Random::new(5);
    for copies in 1..=COPIES {
        // One more replica of everything goes bad, somewhere in each 100 bytes.
        for table in store.inner.lock().tables.values_mut() {
            let replica = &mut table[usize::from(copies) - 1];
            for chunk in replica.chunks_mut(100) {
                let at = random.below(chunk.len() as u64) as usize;
                chunk[at] ^= 1 << random.below(8);
            }
        }
        let found = scan_all(&index, None, 50);
        if copies < COPIES {
            assert_eq!(found.unwrap(), wanted);
        } else {
            assert!(matches!(found, Err(FleetError::Unreadable { .. })));
        }
    }
    for (key, _) in wanted {
        assert!(matches!(get(&index, &key), Err(FleetError::Unreadable { .. })));
    }
}

#[test]
fn i4_blocks_of_another_table_are_not_believed() {
    let (store, index) = filled();
    {
        let mut inner = store.inner.lock();
        let ids: Vec<ObjectId> = inner.tables.keys().copied().collect();
        let first = inner.tables[&ids[0]].clone();
        for pair in ids.windows(2) {
            let next = inner.tables[&pair[1]].clone();
            inner.tables.insert(pair[0], next);
        }
        inner.tables.insert(ids[ids.len() - 1], first);
    }
    assert!(matches!(scan_all(&index, None, 50), Err(FleetError::Unreadable { .. })));
}

#[test]
fn i4_a_compaction_of_a_rotten_table_changes_nothing() {
    let (store, index) = filled();
    let wanted = scan_all(&index, None, 50).unwrap();
    for round in 21..=24 {
        put_all(&index, round, 0..1000, b"new");
        index.freeze(Lsn(round));
        flush_all(&index);
    }
    let good = store.inner.lock().tables.clone();
    // Rot in the middle of the last block of one table of level 1: found when much is written already.
    let tree = index.tree();
    let victim = tree.level(1).unwrap().tables.last().unwrap();
    let (id, at) = (victim.record.id, victim.meta.data_bytes() as usize - 5);
    for replica in store.inner.lock().tables.get_mut(&id).unwrap() {
        replica[at] ^= 1;
    }
    let mut compactor = Compactor::new(index.clone(), Arc::new(NoClock));
    let before: Vec<ObjectId> = index.tables().iter().map(|record| record.id).collect();
    let error = loop {
        match compactor.run_step() {
            Ok(pace) => assert_eq!(pace, Pace::Again),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, FleetError::Unreadable { object, .. } if object == id));
    let after: Vec<ObjectId> = index.tables().iter().map(|record| record.id).collect();
    assert_eq!(before, after);
    let kept: Vec<ObjectId> = store.inner.lock().tables.keys().copied().collect();
    assert_eq!(kept, good.keys().copied().collect::<Vec<_>>(), "what was written is given back");
    let waits = (0..1000).any(|_| matches!(compactor.step(), Pace::Idle(Some(_))));
    assert!(waits, "the task waits before it tries again");
    // A replica comes back.
    store.inner.lock().tables = good;
    compact_all(&index);
    let new = scan_all(&index, None, 50).unwrap();
    assert!(new.len() >= wanted.len() && new.iter().all(|(_, value)| value == b"new"));
}

#[test]
fn a_refused_write_is_tried_again_and_leaks_nothing() {
    let (store, index) = open(tiny());
    let clock = || Arc::new(NoClock);
    let (mut flusher, mut compactor) =
        (Flusher::new(index.clone(), clock()), Compactor::new(index.clone(), clock()));
    let mut refused = 0;
    for round in 1..=30u64 {
        put_all(&index, round, (0..200).map(|n| n * round % 500), &[round as u8; 20]);
        assert!(index.freeze(Lsn(round)));
        store.inner.lock().refuse_writes = round % 3;
        for _ in 0..10_000 {
            let paces = [flusher.run_step(), compactor.run_step()];
            refused += paces.iter().filter(|pace| pace.is_err()).count();
            if paces.iter().all(|pace| matches!(pace, Ok(Pace::Idle(_)))) {
                break;
            }
        }
        assert_eq!(index.flushed_through(), Lsn(round));
        let capture = index.capture(false);
        index.confirm(&capture).iter().for_each(|table| store.remove(table));
        assert_eq!(store.table_count(), index.tables().len());
    }
    assert!(refused >= 20);
    assert_eq!(
        scan_all(&index, None, 50).unwrap().len(),
        (0..500u64)
            .filter(|n| { (1..=30u64).any(|round| (0..200).any(|k| k * round % 500 == *n)) })
            .count()
    );
}

#[test]
fn i3_a_table_that_a_snapshot_reads_is_not_freed() {
    let (store, index) = filled();
    let snapshot = index.snapshot();
    let wanted = scan_all(&index, None, 50).unwrap();
    for round in 21..=40 {
        put_all(&index, round, 0..1000, b"new");
        index.freeze(Lsn(round));
        flush_all(&index);
        compact_all(&index);
        let capture = index.capture(true);
        index.confirm(&capture).iter().for_each(|table| store.remove(table));
    }
    assert_eq!(scan_all(&index, Some(&snapshot), 50).unwrap(), wanted);
    let held = store.table_count() - index.tables().len();
    assert!(held > 0);
    drop(snapshot);
    let freed = index.confirm(&index.capture(false));
    assert_eq!(freed.len(), held, "freed once nobody reads them");
}

#[test]
fn r9_tables_are_freed_only_by_a_root_that_took_effect() {
    let (store, index) = filled();
    let before = index.capture(true);
    index.confirm(&before);
    put_all(&index, 21, 0..1000, b"new");
    index.freeze(Lsn(21));
    let early = index.capture(false);
    flush_all(&index);
    put_all(&index, 22, 0..1000, b"newer");
    index.freeze(Lsn(22));
    flush_all(&index);
    compact_all(&index);
    assert!(early.entries.is_empty() && early.flushed_through == Lsn(20));
    // The root of `early` takes effect: it names every table of `before`.
    assert!(index.confirm(&early).is_empty());
    let late = index.capture(false);
    assert_eq!(late.flushed_through, Lsn(22));
    let again = index.capture(false);
    assert_eq!(late.entries, again.entries, "an attempt that failed changes nothing");
    let freed = index.confirm(&again);
    assert!(!freed.is_empty());
    assert!(freed.iter().all(|record| !late.tables.contains(record)));
    freed.iter().for_each(|table| store.remove(table));
    assert!(index.confirm(&late).is_empty(), "once");
}

#[test]
fn deletes_end_at_the_bottom() {
    let (store, index) = filled();
    let keys: Vec<Vec<u8>> =
        scan_all(&index, None, 50).unwrap().into_iter().map(|(key, _)| key).collect();
    index.apply(Lsn(21), keys.iter().map(|key| (&key[..], Op::Delete)));
    index.freeze(Lsn(21));
    flush_all(&index);
    for round in 22..=24 {
        // Some more runs, so that level 0 is due.
        put_all(&index, round, 2000..2001, b"x");
        index.freeze(Lsn(round));
        flush_all(&index);
        compact_all(&index);
    }
    compact_all(&index);
    let entries: u64 = index.tree().placed().map(|placed| placed.table.meta.entries).sum();
    assert!(entries < keys.len() as u64 / 2, "{entries} entries left of {} deletes", keys.len());
    assert_eq!(scan_all(&index, None, 50).unwrap().len(), 1);
    index.confirm(&index.capture(true)).iter().for_each(|table| store.remove(table));
    assert_eq!(store.table_count(), index.tables().len());
}

#[test]
fn tables_of_ascending_keys_move_unread() {
    let options = IndexOptions {
        memtable_bytes: 1 << 20,
        table_bytes: 256 << 10,
        block_bytes: 4096,
        level_bytes: 1 << 20,
        piece_bytes: 64 << 10,
        ..IndexOptions::default()
    };
    let (store, index) = open(options);
    let mut data = 0;
    for round in 1..=40u64 {
        put_all(&index, round, round * 10_000..(round + 1) * 10_000, &[7; 40]);
        data += 10_000 * 48;
        index.freeze(Lsn(round));
        flush_all(&index);
        compact_all(&index);
    }
    let inner = store.inner.lock();
    let written = inner.written_bytes as f64 / data as f64;
    assert!(written < 3.0, "{written} bytes written per byte of data");
    assert!(inner.smallest_background_read.is_none_or(|bytes| bytes > 56 << 10));
}

#[test]
fn a_trickle_of_small_flushes_does_not_rewrite_level_1() {
    let (store, index) = open(IndexOptions { memtable_bytes: 64 << 10, ..tiny() });
    put_all(&index, 1, 0..5000, &[7; 40]);
    index.freeze(Lsn(1));
    flush_all(&index);
    compact_all(&index);
    let before = store.inner.lock().written_bytes;
    for round in 2..=40u64 {
        put_all(&index, round, [round * 100, round * 100 + 1, 4999].into_iter(), &[8; 40]);
        index.freeze(Lsn(round));
        flush_all(&index);
        compact_all(&index);
    }
    let tree = index.tree();
    assert!(tree.level_0_runs() <= 2, "{:?}", index.levels());
    let written = store.inner.lock().written_bytes - before;
    // 39 flushes of a 1.4 KiB table, each rewritten every second time with what gathered.
    assert!(written < 400_000, "{written} bytes");
    assert_eq!(get(&index, &4999u64.to_be_bytes()).unwrap(), Some(vec![8; 40]));
    assert_eq!(get(&index, &4000u64.to_be_bytes()).unwrap(), Some(vec![8; 40]));
    assert_eq!(get(&index, &3999u64.to_be_bytes()).unwrap(), Some(vec![7; 40]));
}

#[test]
fn writers_are_told_to_wait() {
    let (_, index) = open(tiny());
    assert_eq!(index.pressure(), Pressure::None);
    let mut lsn = 0;
    let mut fill = |index: &Index| {
        lsn += 1;
        put_all(index, lsn, 0..100, &[1; 100]);
        assert!(index.wants_freeze());
        index.freeze(Lsn(lsn))
    };
    assert!(fill(&index) && fill(&index));
    assert_eq!(index.pressure(), Pressure::None);
    assert!(!fill(&index), "two are frozen");
    assert_eq!(index.pressure(), Pressure::Stop);
    assert!(!index.is_flushed());
    flush_all(&index);
    assert!(index.is_flushed() && index.pressure() == Pressure::None);
    assert_eq!(index.flushed_through(), Lsn(2), "the third was never frozen");
    for _ in 0..2 {
        assert!(fill(&index));
        flush_all(&index);
    }
    assert_eq!(index.pressure(), Pressure::Slow);
    for _ in 0..4 {
        assert!(fill(&index));
        flush_all(&index);
    }
    assert_eq!(index.pressure(), Pressure::Stop);
    compact_all(&index);
    assert_eq!(index.pressure(), Pressure::None);
}

#[test]
fn r9_an_empty_memtable_lets_the_replay_lsn_pass() {
    let (_, index) = open(tiny());
    assert!(index.freeze(Lsn(5)));
    assert_eq!(index.flushed_through(), Lsn(5));
    put_all(&index, 6, 0..3, b"x");
    assert!(index.freeze(Lsn(6)) && index.freeze(Lsn(9)));
    assert_eq!(index.flushed_through(), Lsn(5));
    flush_all(&index);
    assert_eq!(index.flushed_through(), Lsn(9));
}

#[test]
#[should_panic(expected = "a memtable is frozen at the end of a batch")]
fn r9_a_batch_is_not_split_between_memtables() {
    let (_, index) = open(tiny());
    put_all(&index, 5, 0..3, b"x");
    index.freeze(Lsn(5));
    put_all(&index, 5, 3..6, b"x");
}

#[test]
fn contradicting_tables_are_refused() {
    let (store, index) = filled();
    let entries: Vec<TableEntry> = index.tree().placed().map(|placed| placed.entry()).collect();
    let open = |tables: Vec<TableEntry>, through| {
        Index::open(tiny(), store.clone(), tables, Lsn(through)).map(|_| ())
    };
    assert!(open(entries.clone(), 20).is_ok());
    assert!(open(entries.clone(), 19).is_err(), "newer than the root says");
    let mut twice = entries.clone();
    twice.push(entries[0].clone());
    assert!(open(twice, 20).is_err(), "overlapping");
    let mut deep = entries.clone();
    deep[0].level = 200;
    assert!(open(deep, 20).is_err());
}

/// [R22] A merge has many more tables than it takes until they have grown back to what does not fit.
#[test]
fn r22_a_merge_ends_where_only_small_tables_fit() {
    let sizes = IndexOptions { table_bytes: 512 << 10, memtable_bytes: 16 << 20, ..tiny() };
    let (store, index) = open(IndexOptions { block_bytes: 4 << 10, ..sizes });
    store.inner.lock().longest_run = Some(200 << 10);
    for round in 1..=3 {
        put_all(&index, round, 0..6000, &[round as u8; 1000]);
        assert!(index.freeze(Lsn(round)));
        let mut flusher = Flusher::new(index.clone(), Arc::new(NoClock));
        while flusher.run_step().unwrap() == Pace::Again {}
    }
    let mut compactor = Compactor::new(index.clone(), Arc::new(NoClock));
    let mut refused = 0;
    for _ in 0..2000 {
        match compactor.run_step() {
            Ok(Pace::Again) => {}
            Ok(_) => break,
            Err(_) => refused += 1,
        }
    }
    assert!(refused < 20, "begun anew {refused} times: {:?}", index.levels());
    assert!(scan_all(&index, None, 500).unwrap().iter().all(|(_, value)| value == &[3; 1000]));
}

/// It was tried again and again before anything else: level 0 grew until writers stopped.
#[test]
fn i6_a_table_that_cannot_be_written_again_keeps_no_other_from_being_merged() {
    let (store, index) = filled();
    let tree = index.tree();
    let deep = tree.placed().filter(|placed| placed.level > 0);
    let last = deep.max_by_key(|placed| placed.table.meta.first_key.to_vec());
    let last = last.expect("there are deep tables").table;
    let first = last.meta.first_key[..8].try_into().map(u64::from_be_bytes).expect("8 bytes");
    let id = last.record.id;
    drop((tree, last));
    for replica in store.inner.lock().tables.get_mut(&id).expect("it is there") {
        replica.iter_mut().for_each(|byte| *byte ^= 0x55);
    }
    assert!(index.refresh(id));
    let mut compactor = Compactor::new(index.clone(), Arc::new(NoClock));
    for lsn in 100..112 {
        put_all(&index, lsn, 0..first.min(40), b"new");
        assert!(index.freeze(Lsn(lsn)));
        flush_all(&index);
        for _ in 0..1000 {
            let _ = compactor.run_step();
        }
    }
    assert_eq!(index.pressure(), Pressure::None, "{:?}", index.levels());
}
