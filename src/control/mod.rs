//! Room `control`: looking at an open pool from outside. It reads, and passes on what the administrator
//! asks for; it changes nothing itself.

pub mod client;
pub mod server;
pub mod status;

pub use client::{Client, Daemons, RunningPool, daemons, running_pools};
pub use server::{Controlled, Server};
pub use status::{DiskRequest, DiskStatus, Health, MemoryStatus, PoolStatus, RepairStatus};

pub use crate::services::check::{
    CheckAway, CheckError, CheckFinding, CheckProgress, CheckReport, Tell,
};
