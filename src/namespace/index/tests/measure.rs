//! Rates and memory of the index with real sizes. Rates are printed, not asserted.

use super::*;

/// CPU and wall time are the machine's: tests may look.
#[allow(clippy::disallowed_methods, reason = "a measurement needs a clock")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn report(what: &str, count: u64, since: std::time::Instant) {
    let micros = since.elapsed().as_secs_f64() * 1e6 / count as f64;
    println!("{what}: {micros:.2} us each, {count} of them");
}

/// A file as the namespace makes it: inode, directory entry, extent.
fn file(number: u64) -> [Vec<u8>; 3] {
    let (ino, directory) = (1000 + number, number / 1000);
    let mut inode = vec![1];
    inode.extend_from_slice(&ino.to_be_bytes());
    let mut dirent = vec![2];
    dirent.extend_from_slice(&directory.to_be_bytes());
    dirent.extend_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    dirent.extend_from_slice(format!("file-{number:08}").as_bytes());
    let mut extent = vec![3];
    extent.extend_from_slice(&ino.to_be_bytes());
    extent.extend_from_slice(&0u64.to_be_bytes());
    [inode, dirent, extent]
}

/// The first two thirds of a file's index memory must stay bounded whatever the number of files.
fn fill_and_read(files: u64, options: IndexOptions) {
    let store = Arc::new(MemoryStore::default());
    let index = Index::open(options.clone(), store.clone(), Vec::new(), Lsn(0)).unwrap();
    let (mut flusher, mut compactor) = (
        Flusher::new(index.clone(), Arc::new(NoClock)),
        Compactor::new(index.clone(), Arc::new(NoClock)),
    );
    let (inode, dirent, extent) = ([1u8; 120], [2u8; 9], [3u8; 28]);
    let start = now();
    let mut applying = std::time::Duration::ZERO;
    for number in 0..files {
        let keys = file(number);
        let begin = now();
        let values: [&[u8]; 3] = [&inode, &dirent, &extent];
        let changes = keys.iter().zip(values).map(|(key, value)| (&key[..], Op::Put(value)));
        index.apply(Lsn(1 + number), changes);
        applying += begin.elapsed();
        if index.wants_freeze() && index.freeze(Lsn(1 + number)) {
            while flusher.run_step().unwrap() == Pace::Again {}
            while compactor.run_step().unwrap() == Pace::Again {}
            index.confirm(&index.capture(false)).iter().for_each(|table| store.remove(table));
        }
        if number % 1024 == 0 {
            assert!(index.cache_used_bytes() <= options.cache_bytes);
            assert!(index.memtable_used_bytes() <= options.memtable_bytes + 4096);
        }
    }
    println!("{files} files, levels {:?}", index.levels());
    println!("apply of 3 puts: {:.2} us", applying.as_secs_f64() * 1e6 / files as f64);
    report("file with flush and compaction", files, start);
    let mut random = Random::new(1);
    let mut run = |what: &str, count: u64, range: u64, absent: bool| {
        let (start, reads) = (now(), store.inner.lock().reads);
        for _ in 0..count {
            let number = random.below(range);
            let [inode, mut dirent, _] = file(number);
            if absent {
                dirent.push(b'x');
            }
            let key = if absent { &dirent } else { &inode };
            assert_eq!(get(&index, key).unwrap().is_none(), absent);
        }
        report(what, count, start);
        let reads = store.inner.lock().reads - reads;
        println!("  {:.3} reads each", reads as f64 / count as f64);
        assert!(index.cache_used_bytes() <= options.cache_bytes);
    };
    run("get over 1000 files, first touch", 10_000, 1000.min(files), false);
    run("get over 1000 files, cached", 100_000, 1000.min(files), false);
    run("get over all files", 20_000, files, false);
    run("get of an absent name, all directories", 20_000, files, true);
    let start = now();
    let listed = scan_all(&index, None, 1000).unwrap().len() as u64;
    report("entry of a scan", listed, start);
    assert_eq!(listed, 3 * files);
    let mut ascending = 0;
    let start = now();
    for number in (0..files).step_by((files / 10_000).max(1) as usize) {
        let [_, _, extent] = file(number);
        let mut key = extent.clone();
        key[15] = 9;
        let lookup = |pins: &Pins| index.get_at_or_before(&key, &extent[..9], None, pins);
        assert_eq!(retry(&index, lookup).unwrap().0.unwrap().0, extent);
        ascending += 1;
    }
    report("extent at or before, files in order", ascending, start);
}

#[test]
fn memory_stays_bounded_with_a_small_cache() {
    let options = IndexOptions {
        cache_bytes: 1 << 20,
        memtable_bytes: 4 << 20,
        table_bytes: 2 << 20,
        level_bytes: 4 << 20,
        ..IndexOptions::default()
    };
    fill_and_read(60_000, options);
}

#[test]
#[ignore = "a measurement; takes a minute: cargo test --release --lib measure -- --ignored --nocapture"]
fn a_million_files_with_8_mib_of_cache() {
    fill_and_read(1_000_000, IndexOptions { cache_bytes: 8 << 20, ..IndexOptions::default() });
}

#[test]
#[ignore = "a measurement; takes a minute: cargo test --release --lib measure -- --ignored --nocapture"]
fn a_million_files_with_the_default_cache() {
    fill_and_read(1_000_000, IndexOptions::default());
}
