//! Disks that fail while the pool runs: slow, hung, pulled, lying about writes, rotting; at most as many
//! as redundancy covers. Nobody above notices [I4, I5], and nothing promised is lost [I1].

use isotherm::base::Random;

use super::crash::{Effort, Machine, run};
use super::harness::Harness;
use super::machine::{Engine, SHAPE};
use super::ops::{Mix, generate};
use super::runs::{run_minimised, with_seeds};
use super::shelf::Shape;

const MIX: Mix = Mix { mishap_one_in: 25, ..Mix::SMALL };

fn shape(seed: u64) {
    SHAPE.set([Shape::WIDE, Shape::SPARE, Shape::MIRROR][seed as usize % 3]);
}

/// docs/semantics.md: "With up to m disks missing, dead, hung or slow, everything above holds."
#[test]
fn up_to_m_failures_are_an_inconvenience() {
    with_seeds(6, |seed| {
        shape(seed);
        let ops = generate(&mut Random::new(seed), 200, MIX);
        run_minimised(&ops, |ops| Harness::new(Engine::create(seed)?)?.run(ops))
    });
}

#[test]
fn power_is_lost_among_failures() {
    with_seeds(4, |seed| {
        shape(seed);
        let ops = generate(&mut Random::new(seed), 100, MIX);
        run_minimised(&ops, |ops| run::<Engine>(seed, ops, Effort::USUAL))
    });
}
