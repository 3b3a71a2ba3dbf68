//! Room `pool`.
