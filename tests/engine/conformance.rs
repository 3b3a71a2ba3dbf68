//! Whole trees, compared operation by operation: the model with this machine's own file system, and the
//! engine with the model.

use isotherm::base::Random;

use super::crash::Machine;
use super::harness::Harness;
use super::machine::{Engine, SHAPE};
use super::ops::{Mix, generate};
use super::real_directory::RealDirectory;
use super::runs::{run_minimised, with_seeds};
use super::shelf::Shape;

/// The judge is judged first: by Linux, on whatever holds the temporary directory. As root only
/// (device nodes, owners).
#[test]
fn the_model_agrees_with_this_machine() {
    with_seeds(2, |seed| {
        let mix = Mix { size_max: 1 << 33, ..Mix::SMALL };
        let ops = generate(&mut Random::new(seed), 200, mix);
        run_minimised(&ops, |ops| {
            let directory = tempfile::tempdir().expect("there is room for a directory");
            let Some(real) = RealDirectory::new(directory.path()) else {
                println!("skipped: needs root");
                return Ok(());
            };
            Harness::new(real)?.run(ops)
        })
    });
}

/// Many small operations, with tables and compaction in the background.
#[test]
fn the_engine_does_what_the_model_says() {
    with_seeds(8, |seed| {
        SHAPE.set([Shape::WIDE, Shape::SPARE, Shape::MIRROR][seed as usize % 3]);
        let ops = generate(&mut Random::new(seed), 300, Mix::SMALL);
        run_minimised(&ops, |ops| Harness::new(Engine::create(seed)?)?.run(ops))
    });
}

/// Files beyond three objects, sparse and dense.
#[test]
fn large_files_too() {
    with_seeds(2, |seed| {
        SHAPE.set(Shape::WIDE);
        let ops = generate(&mut Random::new(seed), 60, Mix::LARGE);
        run_minimised(&ops, |ops| Harness::new(Engine::create(seed)?)?.run(ops))
    });
}
