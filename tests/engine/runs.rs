//! Seeds, time limits, and making failing runs small.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::harness::Finding;
use super::ops::Op;

/// Tries this long to make a failing run smaller.
const MINIMISE: Duration = Duration::from_secs(120);

/// Runs `body` with seeds 1..=count; with `ISOTHERM_SEED`, with just that one; with
/// `ISOTHERM_MINUTES`, with ever new seeds for so long. A finding fails the test, and names the seed.
/// False if it was just one seed: then nobody may ask what all of them together have seen.
#[allow(clippy::disallowed_methods, reason = "how long a test runs is real time")]
pub fn with_seeds(count: u64, body: impl Fn(u64) -> Result<(), Finding>) -> bool {
    let check = |seed| {
        if let Err(why) = guarded(|| body(seed)) {
            panic!("ISOTHERM_SEED={seed} finds:\n{why}");
        }
    };
    if let Some(seed) = number("ISOTHERM_SEED") {
        check(seed);
        return false;
    }
    (1..=count).for_each(check);
    if let Some(minutes) = number("ISOTHERM_MINUTES") {
        let start = Instant::now();
        let first = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs() << 16);
        let mut seed = first;
        while start.elapsed() < Duration::from_secs(60 * minutes) {
            check(seed);
            seed += 1;
        }
        println!("{} further seeds from {first}", seed - first);
    }
    true
}

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A panic is a finding too.
pub fn guarded(body: impl FnOnce() -> Result<(), Finding>) -> Result<(), Finding> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or(panic.downcast_ref::<&str>().map(|text| text.to_string()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

/// Runs `ops`; if they fail, finds a small part of them that still does, and prints it as code for
/// `regressions.rs`.
#[allow(clippy::disallowed_methods, reason = "how long a test runs is real time")]
pub fn run_minimised(
    ops: &[Op],
    run: impl Fn(&[Op]) -> Result<(), Finding>,
) -> Result<(), Finding> {
    let Err(mut why) = guarded(|| run(ops)) else { return Ok(()) };
    let start = Instant::now();
    let mut ops = ops.to_vec();
    let mut chunk = ops.len().div_ceil(2);
    while chunk > 0 && start.elapsed() < MINIMISE {
        let mut at = 0;
        let mut smaller = false;
        while at < ops.len() && start.elapsed() < MINIMISE {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + chunk).min(ops.len()));
            match guarded(|| run(&fewer)) {
                Err(reason) => (ops, why, smaller) = (fewer, reason, true),
                Ok(()) => at += chunk,
            }
        }
        if !smaller || chunk > 1 {
            chunk /= 2;
        }
    }
    let list: Vec<String> = ops.iter().map(|op| format!("    Op::{op:?},")).collect();
    Err(format!("{why}\nwith {} operations:\n{}", ops.len(), list.join("\n")))
}
