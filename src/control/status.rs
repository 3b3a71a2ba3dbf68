//! What `isotherm status` says, as data. Field names are part of the interface: `--json` prints them.

use serde::{Deserialize, Serialize};

/// How a pool is, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// All disks take part.
    #[default]
    Healthy,
    /// Some do not; data is complete, and new data fully redundant while enough disks remain.
    Degraded,
    /// Nothing can be written, though nobody asked for that.
    ReadOnly,
    /// Too few disks take writes: writers wait, nothing is lost.
    Suspended,
    /// The log cannot be written: unmount and mount again.
    Failed,
    /// It is mounted, but its daemon has died, or does not answer.
    NoDaemon,
}

/// One member.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Its number in the pool.
    pub index: u16,
    /// Its identity.
    pub uuid: String,
    /// Where it was found; empty if missing.
    pub path: String,
    /// Its name under /dev/disk/by-id; empty if none or missing.
    pub by_id: String,
    /// Model and serial number; empty if unknown.
    pub model: String,
    /// Serial number; empty if unknown.
    pub serial: String,
    /// `active`, `failed`, `missing`, `given-up` or `leaving`: what is on it is made anew on
    /// other disks.
    pub state: String,
    /// Where a disk that does not take part was seen meanwhile; empty if nowhere.
    pub seen_at: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Bytes in use on it.
    pub used_bytes: u64,
    /// Requests that failed since it was opened.
    pub errors: u64,
    /// Expected wait of one more read of 64 KiB, in microseconds.
    pub wait_us: u64,
    /// Bytes read since it was opened.
    pub read_bytes: u64,
    /// Bytes written since it was opened.
    pub written_bytes: u64,
}

/// What is to be done with a member, or a disk that is to become one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskRequest {
    /// A disk becomes a member.
    Add {
        /// Which disk.
        path: String,
        /// Overwrite what is on it.
        force: bool,
    },
    /// A disk becomes a member, and another one leaves.
    Replace {
        /// Who leaves.
        disk: u16,
        /// The new one.
        path: String,
        /// Overwrite what is on it.
        force: bool,
    },
    /// What is on a member moves to the others; then it is removed.
    Remove {
        /// Which.
        disk: u16,
    },
    /// It is not used any more, until it is taken back.
    Offline {
        /// Which.
        disk: u16,
    },
    /// It is looked for, and takes part again; or stays.
    Online {
        /// Which.
        disk: u16,
    },
}

/// How far making lost shards anew is: now, or when it last ended.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct RepairStatus {
    /// It goes on.
    pub running: bool,
    /// Objects that were found lacking.
    pub objects_total: u64,
    /// Those that are whole again.
    pub objects_done: u64,
    /// Bytes to be written for them.
    pub bytes_total: u64,
    /// Bytes written.
    pub bytes_done: u64,
    /// As fast as that, since it began.
    pub bytes_per_second: u64,
    /// At that rate.
    pub seconds_left: Option<u64>,
    /// Objects that wait: no disk is left for their shards, or none with room.
    pub waiting: u64,
    /// Objects that cannot be read any more.
    pub lost: u64,
}

/// Memory of the daemon in bytes, by what it is for; what has no bound of its own is not in it.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryStatus {
    /// Disk I/O: in use, or kept for the next.
    pub buffers: u64,
    /// Written by users, not yet in objects.
    pub dirty: u64,
    /// Data that was read ahead.
    pub read_cache: u64,
    /// Blocks of the index.
    pub index_cache: u64,
    /// Changes of the index that are not in tables yet.
    pub memtables: u64,
}

/// One pool.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: String,
    /// In one word.
    pub health: Health,
    /// Where it is mounted; empty if it is not.
    pub mountpoint: String,
    /// Process that serves it; 0 if none.
    pub pid: u32,
    /// Why nothing can be written, in words; empty if it can.
    pub read_only: String,
    /// Redundancy of new objects.
    pub redundancy: String,
    /// Usable bytes.
    pub total_bytes: u64,
    /// Usable bytes that are free.
    pub free_bytes: u64,
    /// Inodes in use.
    pub inodes: u64,
    /// Bytes of the index in tables, on each level from 0.
    #[serde(default)]
    pub index_bytes: Vec<u64>,
    /// Written by users, not yet in objects.
    pub dirty_bytes: u64,
    /// Memory, by what it is for.
    #[serde(default)]
    pub memory: MemoryStatus,
    /// How full the log is, in percent.
    pub log_percent: u64,
    /// Its members.
    pub disks: Vec<DiskStatus>,
    /// How far repair is.
    #[serde(default)]
    pub repair: RepairStatus,
    /// What happened lately, newest last.
    pub events: Vec<String>,
    /// What the administrator should do, most urgent first; empty if nothing.
    pub advice: Vec<String>,
}

impl DiskStatus {
    /// Whether requests go there.
    pub fn takes_part(&self) -> bool {
        self.state == "active" || self.state == "leaving"
    }
}

impl PoolStatus {
    /// Of a mount that nobody answers for: all that can be said.
    pub fn no_daemon(name: &str, mountpoint: &str, pid: u32, advice: String) -> PoolStatus {
        PoolStatus {
            name: name.to_string(),
            uuid: String::new(),
            health: Health::NoDaemon,
            mountpoint: mountpoint.to_string(),
            pid,
            read_only: String::new(),
            redundancy: String::new(),
            total_bytes: 0,
            free_bytes: 0,
            inodes: 0,
            index_bytes: Vec::new(),
            dirty_bytes: 0,
            memory: MemoryStatus::default(),
            log_percent: 0,
            disks: Vec::new(),
            repair: RepairStatus::default(),
            events: Vec::new(),
            advice: vec![advice],
        }
    }

    /// Whether `isotherm status` exits with 0.
    pub fn is_healthy(&self) -> bool {
        self.health == Health::Healthy
    }
}
