//! Disk: uring.
