//! Isotherm pools raw, locally attached hard disks of any size into one POSIX filesystem.
//!
//! The rooms, top to bottom; imports point down only (`tests/tidy.rs` checks):
//!
//! | room | what it is for |
//! |---|---|
//! | [`cli`] | one file per subcommand |
//! | [`pool`] | composition root: opens, recovers and closes a pool; threads, clocks, seeds |
//! | [`frontend`] | the kernel's side: FUSE and errno |
//! | [`services`] | background data services |
//! | [`control`] | status, metrics, events, the admin socket: looks, never changes |
//! | [`namespace`] | names, inodes, extents, the write buffer, the index |
//! | [`fleet`] | objects, journal, checkpoint, placement, heat, codec, disks |
//! | [`mod@format`] | every byte on disk, no I/O |
//! | [`model`] | the executable specification |
//! | [`base`] | ids, units, limits, time, randomness, locks, waiting |

pub mod base;
pub mod cli;
pub mod control;
pub mod fleet;
pub mod format;
pub mod frontend;
pub mod model;
pub mod namespace;
pub mod pool;
pub mod services;
