//! Room `pool`: the composition root. It opens, recovers and closes a pool, and is the only place that
//! knows all rooms, starts threads, reads the machine's clock and seeds randomness.

pub mod assemble;
mod comeback;
pub mod create;
pub mod daemon;
pub mod enclosures;
mod events;
mod face;
pub mod host;
pub mod inspect;
pub mod labels;
pub mod membership;
mod memory;
pub mod mounting;
pub mod open;
pub mod plan;
mod platter;
mod returned;
mod root_keeper;
pub mod simulated;
pub mod threads;

#[cfg(test)]
mod tests;
