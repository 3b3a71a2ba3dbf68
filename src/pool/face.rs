//! What the admin socket of an open pool shows: its status, and what to do next.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::create::NewDisk;
use super::events::EventLog;
use super::host::Host;
use super::membership::{Membership, MembershipError};
use super::open::ReadOnly;
use super::platter::Platter;
use super::returned::{Returns, Sightings, drives_of};
use crate::base::sync::Arc;
use crate::base::{Clock, DiskIndex, KIB, PoolUuid};
use crate::control::{
    CheckError, CheckReport, Controlled, DiskRequest, DiskStatus, Health, MemoryStatus, PoolStatus,
    RepairStatus, Tell,
};
use crate::fleet::disk::{Identity, probe};
use crate::fleet::{Heat, Member, MemberState, Members, Space};
use crate::format::MemberEntry;
use crate::namespace::Namespace;
use crate::services::check::check;
use crate::services::repair::SharedProgress;

/// What the admin socket may see of the pool.
pub(super) struct Face {
    pub(super) namespace: Namespace,
    pub(super) members: Arc<Members>,
    /// As of opening.
    pub(super) entries: Vec<MemberEntry>,
    /// None if it is read-only.
    pub(super) membership: Option<Arc<Membership>>,
    pub(super) host: Host,
    pub(super) returns: Returns,
    pub(super) space: Arc<Space>,
    pub(super) heat: Arc<Heat>,
    pub(super) name: String,
    pub(super) uuid: PoolUuid,
    pub(super) mountpoint: PathBuf,
    pub(super) read_only: ReadOnly,
    pub(super) log: Box<dyn Fn() -> (u64, bool) + Send + Sync>,
    /// How far repair is.
    pub(super) repair: SharedProgress,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) events: Arc<EventLog>,
    pub(super) sightings: Arc<Sightings>,
    pub(super) platter: Platter,
}

impl Face {
    fn entries(&self) -> Vec<MemberEntry> {
        let now = self.membership.as_ref().map(|membership| membership.entries());
        now.unwrap_or_else(|| self.entries.clone())
    }

    fn add(&self, path: &str, force: bool) -> Result<DiskIndex, String> {
        let membership = self.may_change()?;
        let at = Path::new(path);
        let probe = probe(at).map_err(|error| error.to_string())?;
        let drives = drives_of(&self.members);
        let disk = self.host.open_disk(at, false).map_err(|error| error.to_string())?;
        let new = NewDisk { disk, probe };
        membership.add(&new, &drives, force).map_err(|error| error.to_string())
    }

    fn may_change(&self) -> Result<&Membership, String> {
        let read_only = || "the pool is read-only: its disks stay as they are".to_string();
        self.membership.as_deref().ok_or_else(read_only)
    }

    fn leave(&self, disk: u16) -> Result<(), String> {
        self.may_change()?.leave(DiskIndex(disk)).map_err(|error| error.to_string())
    }

    fn member(&self, member: &Member, entries: &[MemberEntry]) -> DiskStatus {
        let room = self.space.room(member.index).unwrap_or_default();
        let identity = member.handle.as_ref().map(|disk| disk.identity().clone());
        // Of a disk that is not here the root knows what to look for.
        let entry = entries.iter().find(|entry| entry.index == member.index);
        let identity = identity.unwrap_or_else(|| Identity {
            serial: entry.map(|entry| entry.serial.clone()).unwrap_or_default(),
            ..Identity::default()
        });
        let counters = member.handle.as_ref().map(|disk| disk.counters()).unwrap_or_default();
        let state = match member.state {
            MemberState::Active if self.members.leaving().contains(&member.index) => "leaving",
            MemberState::Active => "active",
            _ if self.members.is_given_up(member.index) => "given-up",
            MemberState::Failed => "failed",
            MemberState::Missing => "missing",
        };
        let wait = match member.state {
            MemberState::Active => self.heat.wait(member.index, 64 * KIB),
            MemberState::Failed | MemberState::Missing => Duration::ZERO,
        };
        DiskStatus {
            index: member.index.0,
            uuid: member.uuid.to_string(),
            path: identity.path,
            by_id: identity.by_id,
            model: identity.model,
            serial: identity.serial,
            state: state.to_string(),
            seen_at: self.sightings.of(member),
            bytes: entry.map_or(member.layout.disk_bytes, |entry| entry.bytes),
            used_bytes: room.used.bytes(),
            errors: counters.errors,
            wait_us: u64::try_from(wait.as_micros()).unwrap_or(u64::MAX),
            read_bytes: counters.read_bytes,
            written_bytes: counters.written_bytes,
        }
    }
}

impl Face {
    fn repair(&self) -> RepairStatus {
        let progress = *self.repair.lock();
        let seconds = self.clock.now().since(progress.since).as_secs_f64();
        let rate = if seconds > 0.0 { progress.bytes_done as f64 / seconds } else { 0.0 };
        let left = progress.bytes_total.saturating_sub(progress.bytes_done) as f64;
        RepairStatus {
            running: progress.running,
            objects_total: progress.objects_total,
            objects_done: progress.objects_done,
            bytes_total: progress.bytes_total,
            bytes_done: progress.bytes_done,
            bytes_per_second: if progress.running { rate as u64 } else { 0 },
            seconds_left: (progress.running && rate > 0.0).then_some((left / rate) as u64),
            waiting: progress.waiting,
            lost: progress.lost,
        }
    }
}

impl Controlled for Face {
    fn status(&self) -> PoolStatus {
        let entries = self.entries();
        let disks: Vec<DiskStatus> =
            self.members.all().iter().map(|member| self.member(member, &entries)).collect();
        let progress = self.namespace.progress();
        let room = self.namespace.statfs();
        let (log_percent, suspended) = (self.log)();
        let out = disks.iter().filter(|disk| !disk.takes_part()).count();
        let health = if progress.failed {
            Health::Failed
        } else if suspended {
            Health::Suspended
        } else if self.read_only.is_trouble() {
            Health::ReadOnly
        } else if out > 0 {
            Health::Degraded
        } else {
            Health::Healthy
        };
        let mut status = PoolStatus {
            name: self.name.clone(),
            uuid: self.uuid.to_string(),
            health,
            mountpoint: self.mountpoint.display().to_string(),
            pid: std::process::id(),
            read_only: self.read_only.words().unwrap_or_default().to_string(),
            redundancy: self.members.redundancy().to_string(),
            total_bytes: room.total_bytes,
            free_bytes: room.free_bytes,
            inodes: progress.inodes,
            index_bytes: progress.index_bytes,
            dirty_bytes: progress.dirty_bytes,
            memory: MemoryStatus {
                buffers: progress.buffer_bytes,
                dirty: progress.dirty_bytes,
                read_cache: progress.cache_bytes,
                index_cache: progress.index_cache_bytes,
                memtables: progress.memtable_bytes,
            },
            log_percent,
            advice: Vec::new(),
            disks,
            repair: self.repair(),
            events: self.events.lines(),
        };
        status.advice = advice(&status, self.members.parity());
        status
    }

    fn sync(&self) -> Result<(), String> {
        self.namespace.sync().map_err(|error| error.to_string())
    }

    fn check(&self, deep: bool, tell: &mut Tell<'_>) -> Result<CheckReport, CheckError> {
        let (members, entries) = (&self.members, self.entries());
        check_open(&self.namespace, &self.platter, members, &entries, deep, tell)
    }

    fn disk(&self, request: &DiskRequest) -> Result<String, String> {
        let in_words = |error: MembershipError| error.to_string();
        match request {
            DiskRequest::Add { path, force } => {
                let index = self.add(path, *force)?;
                Ok(format!("{path} is disk {index} of pool {} now", self.name))
            }
            DiskRequest::Replace { disk, path, force } => {
                if self.members.get(DiskIndex(*disk)).is_none() {
                    return Err(MembershipError::Unknown(DiskIndex(*disk)).to_string());
                }
                let index = self.add(path, *force)?;
                self.leave(*disk)?;
                Ok(format!(
                    "{path} is disk {index} now, and what is on disk {disk} moves; then that is removed"
                ))
            }
            DiskRequest::Remove { disk } => {
                self.leave(*disk)?;
                Ok(format!("what is on disk {disk} moves to the others; then it is removed"))
            }
            DiskRequest::Offline { disk } => {
                self.may_change()?.take_out(DiskIndex(*disk)).map_err(in_words)?;
                Ok(format!(
                    "disk {disk} is not used any more; isotherm disk online {} {disk} takes it back, and so \
                     does the next mount",
                    self.name
                ))
            }
            DiskRequest::Online { disk } if self.members.leaving().contains(&DiskIndex(*disk)) => {
                self.may_change()?.stay(DiskIndex(*disk)).map_err(in_words)?;
                Ok(format!("disk {disk} stays"))
            }
            DiskRequest::Online { disk } => match self.members.state(DiskIndex(*disk)) {
                None => Err(MembershipError::Unknown(DiskIndex(*disk)).to_string()),
                Some(MemberState::Active) => Ok(format!("disk {disk} takes part already")),
                Some(_) => {
                    self.may_change()?;
                    let path = self.returns.look_for(DiskIndex(*disk))?;
                    Ok(format!("disk {disk} takes part again, as {path}"))
                }
            },
        }
    }
}

/// Checks an open pool.
pub(super) fn check_open(
    namespace: &Namespace,
    platter: &Platter,
    members: &Members,
    entries: &[MemberEntry],
    deep: bool,
    tell: &mut Tell<'_>,
) -> Result<CheckReport, CheckError> {
    let name = |index: DiskIndex| {
        let path = members.handle(index).map(|disk| disk.identity().path.clone());
        let serial = entries.iter().find(|entry| entry.index == index);
        let serial = serial.map(|entry| entry.serial.as_str()).filter(|serial| !serial.is_empty());
        match (path, serial) {
            (Some(path), _) => format!("disk {} ({path})", index.0),
            (None, Some(serial)) => format!("disk {} (serial {serial})", index.0),
            (None, None) => format!("disk {}", index.0),
        }
    };
    check(namespace, platter, deep, &name, tell)
}

/// What to do next, in plain words.
fn advice(pool: &PoolStatus, parity: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let again = format!(
        "isotherm umount {mountpoint}, then mount {name} there again",
        mountpoint = pool.mountpoint,
        name = pool.name
    );
    match pool.health {
        Health::Failed => {
            lines.push(format!(
                "the log could not be written; what was synced before is safe: check the disks' cables and \
                 power, then {again}"
            ));
            // Nothing else can be done before that.
            return lines;
        }
        Health::Suspended => lines.push(
            "too few disks take writes; writers wait and nothing is lost: bring disks back".into(),
        ),
        Health::ReadOnly => lines.push(format!("read-only: {}", pool.read_only)),
        Health::Healthy | Health::Degraded | Health::NoDaemon => {}
    }
    let out: Vec<&DiskStatus> = pool.disks.iter().filter(|disk| !disk.takes_part()).collect();
    if out.is_empty() {
        return lines;
    }
    let names: Vec<String> = out.iter().map(|disk| name_of(disk)).collect();
    let verb = if out.len() == 1 { "does" } else { "do" };
    let repair = &pool.repair;
    let given_up = out.iter().all(|disk| disk.state == "given-up");
    let is_whole = given_up && !repair.running && repair.waiting + repair.lost == 0;
    let margin = match parity.saturating_sub(out.len()) {
        _ if is_whole => "what was on it is on the others again".to_string(),
        _ if out.len() > parity => {
            "more than the redundancy covers: some files cannot be read until disks are back"
                .to_string()
        }
        0 => "NO other disk may fail: copy what matters elsewhere".to_string(),
        1 => "1 more may fail".to_string(),
        more => format!("{more} more may fail"),
    };
    let all = pool.disks.len();
    lines.push(format!(
        "{} of {all} disks {verb} not take part: {}; {margin}",
        out.len(),
        names.join(", ")
    ));
    let first = out[0].index;
    lines.push(about_the_old(pool, &out, &again));
    // One that is only read from gets no disks.
    if pool.read_only.is_empty() {
        lines.push(format!(
            "with a new disk: isotherm disk replace {name} {first} DEVICE; without: isotherm disk remove \
             {name} {first}",
            name = pool.name
        ));
    }
    lines
}

/// What to do with the disks that do not take part; at least one.
fn about_the_old(pool: &PoolStatus, out: &[&DiskStatus], again: &str) -> String {
    let seen: Vec<String> = (out.iter().filter(|disk| !disk.seen_at.is_empty()))
        .map(|disk| match disk.state.as_str() {
            "missing" => format!("disk {} is there now, as {}", disk.index, disk.seen_at),
            _ => format!("disk {} answers, as {}: look why it failed", disk.index, disk.seen_at),
        })
        .collect();
    let first = out[0].index;
    let online = |disk: u16| format!("isotherm disk online {} {disk}", pool.name);
    let is_seen = out.iter().find(|disk| !disk.seen_at.is_empty());
    match is_seen {
        Some(disk) => {
            format!("{}; to take it back: {}", seen.join("; "), online(disk.index))
        }
        None if pool.read_only.is_empty() => format!(
            "look at cables and power; a disk that is back is taken by itself, or by {}",
            online(first)
        ),
        None => format!(
            "look at cables and power; a disk that is back is taken with the next mount: {again}"
        ),
    }
}

fn name_of(disk: &DiskStatus) -> String {
    let serial =
        if disk.serial.is_empty() { String::new() } else { format!("serial {}", disk.serial) };
    let name =
        [&disk.by_id, &serial, &disk.path, &disk.uuid].into_iter().find(|name| !name.is_empty());
    let name = name.cloned().unwrap_or_default();
    format!("disk {} ({name}, {})", disk.index, disk.state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_about_a_lost_disk_depends_on_whether_it_was_made_up_for() {
        let disk = |index, state: &str| DiskStatus {
            index,
            serial: format!("S{index}"),
            state: state.to_string(),
            ..DiskStatus::default()
        };
        let mut pool = PoolStatus {
            name: "tank".to_string(),
            health: Health::Degraded,
            disks: vec![disk(0, "active"), disk(1, "leaving"), disk(2, "failed")],
            ..PoolStatus::default()
        };
        let told = advice(&pool, 2).join("\n");
        assert!(told.contains("1 of 3 disks does not take part: disk 2 (serial S2"), "{told}");
        assert!(told.contains("1 more may fail"), "{told}");
        assert!(told.contains("isotherm disk replace tank 2 DEVICE"), "{told}");
        pool.disks[2].state = "given-up".to_string();
        pool.repair.running = true;
        assert!(advice(&pool, 2).join("\n").contains("1 more may fail"), "not yet");
        pool.repair.running = false;
        let told = advice(&pool, 2).join("\n");
        assert!(told.contains("on the others again") && !told.contains("1 more"), "{told}");
        pool.repair.waiting = 3;
        assert!(advice(&pool, 2).join("\n").contains("1 more may fail"), "some objects wait");
        // What would be refused is not advised.
        pool.disks[0].state = "missing".to_string();
        pool.disks[1].state = "missing".to_string();
        pool.read_only = "more disks are missing than the redundancy covers".to_string();
        pool.health = Health::ReadOnly;
        let told = advice(&pool, 2).join("\n");
        assert!(told.contains("more than the redundancy covers: some files"), "{told}");
        assert!(!told.contains("disk replace") && !told.contains("NO other disk"), "{told}");
        pool.health = Health::Failed;
        let told = advice(&pool, 2).join("\n");
        assert!(told.contains("umount") && !told.contains("disk online"), "{told}");
    }
}
