//! Disk: probe.
