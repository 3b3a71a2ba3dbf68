//! The engine beside its specification, on simulated disks, from seeds. Needs nothing.
//!
//! `ISOTHERM_SEED` replays one seed, `ISOTHERM_MINUTES` adds ever new ones for so long (per test).

#[path = "engine/conformance.rs"]
mod conformance;
#[path = "engine/harness.rs"]
mod harness;
#[path = "engine/ops.rs"]
mod ops;
#[path = "engine/real_directory.rs"]
mod real_directory;
#[path = "engine/runs.rs"]
mod runs;
#[path = "engine/target.rs"]
mod target;
