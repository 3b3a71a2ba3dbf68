//! Disk: sim.
