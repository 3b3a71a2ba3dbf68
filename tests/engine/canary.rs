//! Planted bugs: the harness must find each, and no build without the feature may contain one.

/// Spelled backwards here, so that this file does not put it into the binary itself.
const KRAM: &str = "dliub siht ni detnalp si gub a :yranac-mrehtosi";

fn contains_mark(path: &std::path::Path) -> bool {
    let mark: String = KRAM.chars().rev().collect();
    let bytes = std::fs::read(path).expect("a binary that was just built can be read");
    bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
}

#[cfg(not(feature = "canary"))]
#[test]
fn a_build_without_the_feature_has_no_planted_bugs() {
    let this = std::env::current_exe().expect("a test knows its binary");
    assert!(!contains_mark(&this), "the test binary can plant bugs");
    let daemon = std::path::Path::new(env!("CARGO_BIN_EXE_isotherm"));
    assert!(!contains_mark(daemon), "the daemon can plant bugs");
}

#[cfg(feature = "canary")]
mod planted {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use isotherm::base::Random;
    use isotherm::base::canary::{BUGS, Bug, MARK, NOT_FOUND_YET, plant};

    use crate::crash::{Effort, run};
    use crate::harness::Finding;
    use crate::hunt;
    use crate::machine::{Engine, SHAPE};
    use crate::ops::{Mix, generate};
    use crate::runs::guarded;
    use crate::shelf::Shape;

    /// A bug that is not found within this time is not found.
    const TIME_MAX: Duration = Duration::from_secs(60);

    #[test]
    fn the_mark_is_found_where_bugs_can_be_planted() {
        plant(&[]);
        assert_eq!(MARK.chars().rev().collect::<String>(), super::KRAM);
        let this = std::env::current_exe().expect("a test knows its binary");
        assert!(super::contains_mark(&this));
    }

    /// Seeds take turns: a short life of small files with many crashes, and one of a hunt.
    fn try_it(bugs: &[Bug], seed: u64) -> Result<(), Finding> {
        plant(bugs);
        let result = guarded(|| match seed % 2 {
            0 => hunt::life(seed),
            _ => {
                SHAPE.set(Shape::WIDE);
                let ops = generate(&mut Random::new(seed), 120, Mix::SMALL);
                run::<Engine>(seed, &ops, Effort::USUAL)
            }
        });
        plant(&[]);
        result
    }

    /// The first seed that finds it, what it found, and after how long.
    #[allow(clippy::disallowed_methods, reason = "how long it takes is real time")]
    fn search(bug: Bug) -> Result<(u64, Finding, Duration), u64> {
        let begin = Instant::now();
        for seed in 1.. {
            if let Err(why) = try_it(&[bug], seed) {
                return Ok((seed, why, begin.elapsed()));
            }
            if begin.elapsed() > TIME_MAX {
                return Err(seed);
            }
        }
        unreachable!("seeds do not end")
    }

    #[test]
    fn every_planted_bug_is_found() {
        let missed = search_all(&BUGS);
        assert!(missed.is_empty(), "not found: {missed:?}");
        println!("{} more are planted, and not found yet", NOT_FOUND_YET.len());
    }

    /// What a property that is added may find now: then it goes over to the others.
    #[test]
    #[ignore = "some minutes, and it asks for nothing"]
    fn those_that_are_not_found_yet() {
        search_all(&NOT_FOUND_YET);
    }

    /// Those that are not found.
    fn search_all(bugs: &[Bug]) -> Vec<Bug> {
        let (left, missed) = (Mutex::new(bugs.to_vec()), Mutex::new(Vec::new()));
        let next = || left.lock().expect("nobody panics with it").pop();
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        std::thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| {
                    while let Some(bug) = next() {
                        match search(bug) {
                            Ok((seed, why, time)) => {
                                let first = why.lines().take(4).collect::<Vec<_>>().join(" | ");
                                let first: String = first.chars().take(300).collect();
                                println!(
                                    "{bug:?}: found in {:.1} s by seed {seed}: {first}",
                                    time.as_secs_f64()
                                );
                                let clean = try_it(&[], seed);
                                assert_eq!(clean, Ok(()), "without the bug the same run is clean");
                            }
                            Err(seeds) => {
                                println!("{bug:?}: NOT found by {seeds} seeds");
                                missed.lock().expect("nobody panics with it").push(bug);
                            }
                        }
                    }
                });
            }
        });
        let missed = missed.into_inner().expect("nobody panics with it");
        println!("{} of {} planted bugs found", bugs.len() - missed.len(), bugs.len());
        missed
    }
}
