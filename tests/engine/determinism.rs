//! One seed, twice: the same events at the same moments, byte for byte, and the same bytes on every disk.
//! Without that, no seed replays anything.

use isotherm::base::Random;

use super::crash::Machine;
use super::harness::{Finding, Harness};
use super::machine::{Engine, SHAPE};
use super::ops::{Mix, generate};
use super::runs::with_seeds;
use super::shelf::Shape;

/// Everything that happened, a line each, and what is on the disks.
fn trace(seed: u64) -> Result<(String, u64), Finding> {
    SHAPE.set(Shape::WIDE);
    let ops = generate(&mut Random::new(seed), 120, Mix { mishap_one_in: 40, ..Mix::FULL });
    let mut harness = Harness::new(Engine::create(seed)?)?;
    harness.target.ground.shelf.world.keep_log();
    harness.run(&ops)?;
    let shelf = &harness.target.ground.shelf;
    Ok((shelf.world.take_log(), shelf.fingerprint()))
}

fn first_difference(one: &str, other: &str) -> String {
    let mut lines = one.lines().zip(other.lines()).enumerate();
    let differs = lines.find(|(_, (one, other))| one != other);
    format!("{differs:?}, of {} and {} lines", one.lines().count(), other.lines().count())
}

#[test]
fn one_seed_gives_one_run() {
    with_seeds(2, |seed| {
        let ((first, on_disks), (second, again)) = (trace(seed)?, trace(seed)?);
        if first != second || on_disks != again {
            return Err(format!("the event logs differ: {}", first_difference(&first, &second)));
        }
        println!("seed {seed}: two event logs of {} lines, byte-identical", first.lines().count());
        let (other, _) = trace(seed + 1000)?;
        if other == first || first.lines().count() < 300 {
            return Err("another seed gives the same run: nothing was compared".to_string());
        }
        for kind in ["committer", "flusher", "(Write,", "(Read,", "(Flush,"] {
            if !first.contains(kind) {
                return Err(format!("the log does not speak of {kind}"));
            }
        }
        Ok(())
    });
}
