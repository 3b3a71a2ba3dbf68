//! The machine that a pool runs on in production: its clock, threads, randomness and block devices.
//!
//! Disks are found by their labels, wherever udev has put them: every whole disk and partition is
//! looked at, read-only and with a deadline, so that one hung disk delays a mount but never stops it.
//! Only the members of the pool that is wanted are then opened exclusively [R7, R24].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::assemble::Candidate;
use super::create::{CreateError, CreateOptions, NewDisk, create};
use super::labels::{FoundLabel, LabelError, read_labels};
use super::open::{Machine, OpenError, OpenOptions, OpenPool, TaskHost, open};
use super::threads::{MachineClock, Threads, machine_wait};
use crate::base::sync::Arc;
use crate::base::{Clock, MIB, PoolUuid, Random, Task, Wait};
use crate::fleet::Access;
use crate::fleet::disk::buffer::keep_large_memory_apart;
use crate::fleet::disk::error::ProbeError;
use crate::fleet::disk::probe::{DriveKey, Identified, identify, probe};
use crate::fleet::disk::uring::{UringDisk, UringOptions};
use crate::fleet::disk::{BufferPool, DiskHandle, Identity};
use crate::format::Label;

/// Memory for reading and writing labels and roots outside an open pool.
const TOOL_BUFFER_BYTES: u64 = 32 * MIB;

/// The machine.
#[derive(Clone)]
pub struct Host {
    clock: Arc<dyn Clock>,
    wait: Arc<dyn Wait>,
    threads: Arc<Threads>,
}

/// A disk with a label, as found by looking.
#[derive(Clone, PartialEq, Debug)]
pub struct FoundDisk {
    /// What it is.
    pub identity: Identity,
    /// Which physical drives it lies on.
    pub drives: BTreeSet<DriveKey>,
    /// What its label says.
    pub label: Label,
}

/// A disk that has a label of which no copy can be used: whose it is cannot be told, so no pool takes it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{path} is refused: no copy of its label can be used ({why}); its pool goes on without it, and makes \
     anew what was on it; isotherm disk replace POOL DISK {path} --force takes it as a new disk"
)]
pub struct RefusedDisk {
    /// Where it is.
    pub path: String,
    /// What is wrong with the copy that says most.
    pub why: LabelError,
}

/// What looking at disks came to.
#[derive(Clone, Default, Debug)]
pub struct Found {
    /// Disks with a label.
    pub disks: Vec<FoundDisk>,
    /// Disks whose label nobody can use.
    pub refused: Vec<RefusedDisk>,
}

impl TaskHost for Threads {
    fn run(&self, task: Box<dyn Task>) {
        Threads::run(self, task);
    }

    fn stop(&self) {
        Threads::stop(self);
    }
}

impl Host {
    /// The machine's clock and threads.
    pub fn start() -> Host {
        keep_large_memory_apart();
        let clock: Arc<dyn Clock> = MachineClock::start();
        let wait = machine_wait(clock.clone());
        let threads = Arc::new(Threads::new(wait.clone()));
        Host { clock, wait, threads }
    }

    /// The clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// How to wait.
    pub fn wait(&self) -> Arc<dyn Wait> {
        self.wait.clone()
    }

    /// The threads, for tasks of the daemon itself.
    pub fn threads(&self) -> Arc<Threads> {
        self.threads.clone()
    }

    /// An unpredictable stream, from the kernel.
    pub fn random(&self) -> Random {
        use std::io::Read;
        let mut seed = [0; 8];
        let read =
            std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed));
        if let Err(error) = read {
            // Ids must not repeat [R5]: the clock is the next best thing that does not.
            log::warn!("/dev/urandom cannot be read ({error}): seeding from the clock");
            let now = self.clock.wall();
            seed = (now.seconds as u64)
                .wrapping_mul(1_000_000_007)
                .wrapping_add(now.nanos.into())
                .to_le_bytes();
        }
        Random::new(u64::from_le_bytes(seed))
    }

    /// Identity of this machine, as systemd knows it; all zeros if it has none.
    pub fn machine_id(&self) -> [u8; 16] {
        let text = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        u128::from_str_radix(text.trim(), 16).unwrap_or(0).to_be_bytes()
    }

    /// How tools reach disks.
    pub fn access(&self) -> Access {
        Access {
            clock: self.clock.clone(),
            wait: self.wait.clone(),
            buffers: BufferPool::new(TOOL_BUFFER_BYTES, self.wait.clone()),
        }
    }

    /// Opens a disk; `read_only`: for looking, not exclusively.
    pub fn open_disk(&self, path: &Path, read_only: bool) -> Result<DiskHandle, ProbeError> {
        let Identified { identity, .. } = identify(path)?;
        let spawn = |name: String, body: Box<dyn FnOnce() + Send>| self.threads.spawn(&name, body);
        UringDisk::open(
            path,
            identity,
            UringOptions { clock: self.clock.clone(), wait: &*self.wait, spawn: &spawn, read_only },
        )
    }

    /// All block devices of this machine that could be members.
    pub fn block_devices(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir("/sys/class/block") else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.starts_with("ram") && !name.starts_with("zram"))
            .filter(|name| has_size(name))
            .map(|name| Path::new("/dev").join(name.replace('!', "/")))
            .filter(|path| path.exists())
            .collect();
        paths.sort();
        paths
    }

    /// The disks among `paths` that have a label. Those that do not answer, or have none, are left
    /// out.
    pub fn find(&self, paths: &[PathBuf]) -> Vec<FoundDisk> {
        self.look(paths).disks
    }

    /// The disks among `paths` that have a label, and those whose label nobody can use.
    pub fn look(&self, paths: &[PathBuf]) -> Found {
        let mut disks = Vec::new();
        for path in paths {
            let opened = identify(path).and_then(|found| {
                let disk = self.open_disk(path, true)?;
                Ok((found, disk))
            });
            match opened {
                Ok(found) => disks.push(found),
                Err(error) => log::debug!("{}: {error}", path.display()),
            }
        }
        let handles: Vec<DiskHandle> = disks.iter().map(|(_, disk)| disk.clone()).collect();
        let labels = read_labels(&self.access(), &handles);
        let mut all = Found::default();
        for ((found, _), label) in disks.into_iter().zip(labels) {
            let Identified { identity, drives, .. } = found;
            match label {
                Ok(FoundLabel { label, .. }) => {
                    all.disks.push(FoundDisk { identity, drives, label });
                }
                Err(why) if why.is_damage() => {
                    all.refused.push(RefusedDisk { path: identity.path, why });
                }
                Err(_) => {}
            }
        }
        all
    }

    /// Opens these disks exclusively, as candidates for members. A disk that cannot be opened is
    /// reported and left out, as a missing one; `ProbeError::InUse` of any of them ends it.
    pub fn candidates(
        &self,
        found: &[FoundDisk],
        read_only: bool,
    ) -> Result<Vec<Candidate>, ProbeError> {
        let mut candidates = Vec::new();
        let mut opened = Vec::new();
        for disk in found {
            match self.open_disk(Path::new(&disk.identity.path), read_only) {
                Ok(handle) => opened.push((disk, handle)),
                Err(error @ ProbeError::InUse { .. }) => return Err(error),
                Err(error) => log::warn!("{}: {error}", disk.identity.path),
            }
        }
        // Held exclusively now: the label is read again, it may have changed since we looked.
        let handles: Vec<DiskHandle> = opened.iter().map(|(_, handle)| handle.clone()).collect();
        let labels = read_labels(&self.access(), &handles);
        for ((disk, handle), label) in opened.into_iter().zip(labels) {
            match label {
                Ok(FoundLabel { label, copies }) if label.pool == disk.label.pool => {
                    let drives = disk.drives.clone();
                    candidates.push(Candidate { disk: handle, drives, label, copies });
                }
                Ok(_) => log::warn!("{}: has become another pool's disk", disk.identity.path),
                Err(error) => log::warn!("{}: {error}", disk.identity.path),
            }
        }
        Ok(candidates)
    }

    /// Opens a pool with these disks.
    pub fn open_pool(
        &self,
        candidates: Vec<Candidate>,
        mut options: OpenOptions,
    ) -> Result<OpenPool, OpenError> {
        options.assemble.machine_id = self.machine_id();
        let machine = Machine {
            clock: self.clock.clone(),
            wait: self.wait.clone(),
            tasks: self.threads.clone(),
            random: self.random(),
        };
        open(machine, candidates, options)
    }

    /// Makes a pool of the disks at these paths. `options.machine_id` and time are filled in.
    pub fn create_pool(
        &self,
        paths: &[PathBuf],
        mut options: CreateOptions,
    ) -> Result<PoolUuid, CreatePoolError> {
        options.machine_id = self.machine_id();
        options.now_seconds = self.clock.wall().seconds;
        let mut probes = Vec::new();
        for path in paths {
            probes.push(probe(path)?);
        }
        let mut disks = Vec::new();
        for (path, probe) in paths.iter().zip(probes) {
            disks.push(NewDisk { disk: self.open_disk(path, false)?, probe });
        }
        Ok(create(&self.access(), &options, &disks, &mut self.random())?)
    }
}

fn has_size(name: &str) -> bool {
    let size = std::fs::read_to_string(format!("/sys/class/block/{name}/size"));
    size.is_ok_and(|size| size.trim() != "0")
}

/// Why no pool was made.
#[derive(Debug, thiserror::Error)]
pub enum CreatePoolError {
    /// A disk cannot be used.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// See there.
    #[error(transparent)]
    Create(#[from] CreateError),
}
