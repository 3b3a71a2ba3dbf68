//! Room `base`: what every other room stands on, and which knows none of them.
//!
//! Ids, units, limits; and the five things a module may never take from the machine by itself
//! (clock, randomness, threads, locks, waiting), as things that are handed in.

pub mod canary;
pub mod clock;
pub mod ids;
pub mod limits;
pub mod random;
pub mod simulation;
pub mod sync;
pub mod task;
pub mod units;
pub mod wait;

pub use clock::{Clock, Ticks, WallTime};
pub use ids::{DiskIndex, DiskUuid, Epoch, Ino, Lsn, ObjectId, PoolUuid, RequestId, ShardIndex};
pub use random::Random;
pub use task::{Pace, Task};
pub use units::{GIB, KIB, MIB, UNIT_BYTES, Units};
pub use wait::{Event, Wait};
