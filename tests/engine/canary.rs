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
#[test]
fn the_mark_is_found_where_bugs_can_be_planted() {
    isotherm::base::canary::plant(&[]);
    assert_eq!(isotherm::base::canary::MARK.chars().rev().collect::<String>(), KRAM);
    let this = std::env::current_exe().expect("a test knows its binary");
    assert!(contains_mark(&this));
}
