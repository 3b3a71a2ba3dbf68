//! Room `pool`.

pub mod threads;
