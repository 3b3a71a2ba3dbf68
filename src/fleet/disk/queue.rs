//! Disk: queue.
