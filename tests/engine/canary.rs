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
    use isotherm::base::Random;
    use isotherm::base::canary::{BUGS, Bug, MARK, plant};

    use crate::crash::{Effort, run};
    use crate::harness::Finding;
    use crate::machine::{Engine, SHAPE};
    use crate::ops::{Mix, generate};
    use crate::runs::guarded;
    use crate::shelf::Shape;

    /// A bug that is not found within so many runs is not found.
    const RUNS_MAX: u64 = 12;

    #[test]
    fn the_mark_is_found_where_bugs_can_be_planted() {
        plant(&[]);
        assert_eq!(MARK.chars().rev().collect::<String>(), super::KRAM);
        let this = std::env::current_exe().expect("a test knows its binary");
        assert!(super::contains_mark(&this));
    }

    /// The property of `crash.rs`, with bugs planted.
    fn try_it(bugs: &[Bug], seed: u64) -> Result<(), Finding> {
        SHAPE.set(Shape::WIDE);
        plant(bugs);
        let ops = generate(&mut Random::new(seed), 120, Mix::SMALL);
        let result = guarded(|| run::<Engine>(seed, &ops, Effort::USUAL));
        plant(&[]);
        result
    }

    #[test]
    fn every_planted_bug_is_found() {
        for bug in BUGS {
            let found = (1..=RUNS_MAX).find_map(|seed| Some((seed, try_it(&[bug], seed).err()?)));
            let Some((seed, why)) = found else { panic!("{bug:?} was not found") };
            println!("{bug:?}: found by seed {seed}: {why}\n");
            assert_eq!(try_it(&[], seed), Ok(()), "without the bug the same run is clean");
        }
        println!("{0} of {0} planted bugs found", BUGS.len());
    }
}
