//! One seed, twice: the same events at the same moments, the same bytes on every disk. Without that, no
//! seed replays anything.

use isotherm::base::{Clock, Random, Ticks};

use super::crash::Machine;
use super::harness::{Finding, Harness};
use super::machine::{Engine, SHAPE};
use super::ops::{Mix, generate};
use super::runs::with_seeds;
use super::shelf::Shape;

/// When it ended, and what is on the disks.
fn trace(seed: u64) -> Result<(Ticks, u64), Finding> {
    SHAPE.set(Shape::WIDE);
    let mix = Mix { mishap_one_in: 40, ..Mix::SMALL };
    let ops = generate(&mut Random::new(seed), 120, mix);
    let mut harness = Harness::new(Engine::create(seed)?)?;
    harness.run(&ops)?;
    let shelf = &harness.target.ground.shelf;
    Ok((shelf.world.now(), shelf.fingerprint()))
}

#[test]
fn one_seed_gives_one_run() {
    with_seeds(2, |seed| {
        let (first, second) = (trace(seed)?, trace(seed)?);
        if first != second {
            return Err(format!("first {first:?}, then {second:?}"));
        }
        if trace(seed + 1000)? == first {
            return Err("another seed gives the same run: nothing was compared".to_string());
        }
        Ok(())
    });
}
