//! The engine beside its specification, on simulated disks, from seeds. Needs nothing.
//!
//! `ISOTHERM_SEED` replays one seed, `ISOTHERM_MINUTES` adds ever new ones for so long (per test).

#[path = "engine/canary.rs"]
mod canary;
#[path = "engine/conformance.rs"]
mod conformance;
#[path = "engine/crash.rs"]
mod crash;
#[path = "engine/determinism.rs"]
mod determinism;
#[path = "engine/faults.rs"]
mod faults;
#[path = "engine/file_system.rs"]
mod file_system;
#[path = "engine/harness.rs"]
mod harness;
#[path = "engine/hunt.rs"]
mod hunt;
#[path = "engine/liars.rs"]
mod liars;
#[path = "engine/machine.rs"]
mod machine;
#[path = "engine/ops.rs"]
mod ops;
#[path = "engine/real_directory.rs"]
mod real_directory;
#[path = "engine/regressions.rs"]
mod regressions;
#[path = "engine/runs.rs"]
mod runs;
#[path = "engine/shelf.rs"]
mod shelf;
#[path = "engine/stand_in.rs"]
mod stand_in;
#[path = "engine/tally.rs"]
mod tally;
#[path = "engine/target.rs"]
mod target;
