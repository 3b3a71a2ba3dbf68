//! Room `services`: background work on namespace and fleet.

pub mod check;
pub mod reclaim;
pub mod rejoin;
pub mod repair;
