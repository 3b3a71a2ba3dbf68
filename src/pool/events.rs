//! What happens to an open pool, for people: in the log, in `isotherm status`, and to the administrator's
//! own command. A pool that is degraded in silence is how data get lost.

use std::collections::VecDeque;

use super::host::RefusedDisk;
use super::open::OpenPool;
use crate::base::sync::{Arc, Mutex};
use crate::base::{Clock, DiskIndex, Event, Pace, Task};
use crate::fleet::{FailReason, Members, Report, Reports};
use crate::namespace::Namespace;

/// Events kept for status.
const EVENTS_MAX: usize = 64;

/// Something that happened, perhaps several times.
struct Entry {
    text: String,
    serious: bool,
    first: String,
    last: String,
    times: u64,
}

/// The last things that happened. What repeats is counted, and gives way to what is serious: a slow
/// disk must not push out the failed one.
#[derive(Default)]
pub(super) struct EventLog {
    entries: Mutex<VecDeque<Entry>>,
}

impl EventLog {
    /// Adds what happened at `time`.
    pub(super) fn push(&self, time: &str, text: &str, serious: bool) {
        let mut entries = self.entries.lock();
        let time = time.to_string();
        if let Some(at) = entries.iter().position(|entry| entry.text == text)
            && let Some(mut entry) = entries.remove(at)
        {
            entry.last = time;
            entry.times += 1;
            entries.push_back(entry);
            return;
        }
        if entries.len() == EVENTS_MAX {
            let least = entries.iter().position(|entry| !entry.serious).unwrap_or(0);
            entries.remove(least);
        }
        let text = text.to_string();
        entries.push_back(Entry { text, serious, first: time.clone(), last: time, times: 1 });
    }

    /// All of them as lines, newest last.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |entry: &Entry| match entry.times {
            1 => format!("{} {}", entry.last, entry.text),
            times => format!("{} {} ({times} times since {})", entry.last, entry.text, entry.first),
        };
        self.entries.lock().iter().map(line).collect()
    }
}

/// Tells people what happens: in the log, in the status, and serious things to the administrator's own
/// command.
#[derive(Clone)]
pub(super) struct Teller {
    clock: Arc<dyn Clock>,
    events: Arc<EventLog>,
    pool: String,
    on_event: Option<String>,
}

impl Teller {
    /// For the pool of this name.
    pub(super) fn new(clock: Arc<dyn Clock>, pool: &str, on_event: Option<String>) -> Teller {
        Teller { clock, events: Arc::default(), pool: pool.to_string(), on_event }
    }

    /// The events told so far.
    pub(super) fn events(&self) -> Arc<EventLog> {
        self.events.clone()
    }

    /// Something happened.
    pub(super) fn tell(&self, line: &str, serious: bool) {
        if serious {
            log::error!("pool {}: {line}", self.pool);
        } else {
            log::warn!("pool {}: {line}", self.pool);
        }
        self.events.push(&self.clock.wall().to_string(), line, serious);
        if serious && let Some(command) = &self.on_event {
            run_command(command, &self.pool, line);
        }
    }

    /// What is wrong with a pool that was just opened: that it is degraded is an event like any other,
    /// else a machine that boots without a disk says nothing.
    /// `refused`: disks that could be some of its own.
    pub(super) fn tell_opening(&self, pool: &OpenPool, refused: &[RefusedDisk]) {
        if pool.was_unclean {
            let (name, replayed) = (&pool.label.pool_name, pool.replayed);
            log::info!("pool {name} was not closed: {replayed} batches were replayed");
        }
        for disk in &pool.missing {
            let entry = pool.entries.iter().find(|entry| entry.index == *disk);
            let serial =
                entry.map(|entry| entry.serial.as_str()).filter(|serial| !serial.is_empty());
            let serial = serial.map(|serial| format!(" (serial {serial})")).unwrap_or_default();
            self.tell(&format!("disk {disk}{serial} is missing"), true);
        }
        for disk in refused {
            self.tell(&disk.to_string(), !pool.missing.is_empty());
        }
        for gap in &pool.gaps {
            self.tell(&format!("batches {} to {} are lost", gap.start(), gap.end()), true);
        }
        if let Some(why) = pool.read_only.words() {
            self.tell(&format!("it is read-only: {why}"), pool.read_only.is_trouble());
        }
    }
}

/// Takes reports from the fleet and tells them.
pub(super) struct Reporter {
    pub(super) reports: Arc<Reports>,
    pub(super) members: Arc<Members>,
    pub(super) namespace: Namespace,
    pub(super) teller: Teller,
}

impl Task for Reporter {
    fn name(&self) -> &'static str {
        "reporter"
    }

    fn event(&self) -> Arc<Event> {
        self.reports.event()
    }

    fn step(&mut self) -> Pace {
        let Some(report) = self.reports.pop() else { return Pace::Idle(None) };
        let name = |disk| {
            let member = self.members.all().into_iter().find(|member| member.index == disk);
            let identity = member.and_then(|member| Some(member.handle?.identity().clone()));
            match identity {
                Some(identity) if !identity.by_id.is_empty() => {
                    format!("disk {disk} ({}, {})", identity.path, identity.by_id)
                }
                Some(identity) => format!("disk {disk} ({})", identity.path),
                None => format!("disk {disk}"),
            }
        };
        let (line, serious) = match report {
            // It is empty by then, and is being removed.
            Report::DiskFailed { disk, why: FailReason::TakenOut } if self.is_leaving(disk) => {
                (format!("nothing is left on {}: it is removed from the pool", name(disk)), false)
            }
            Report::DiskFailed { disk, why } => {
                (format!("{} is not used any more: {why}", name(disk)), true)
            }
            Report::DiskLate { disk } => (format!("{} answers late", name(disk)), false),
            Report::BadShard { object, shard, disk, repaired } => {
                if !repaired {
                    self.namespace.note_bad(object, shard);
                }
                let what = if repaired { "was rewritten" } else { "is to be made anew" };
                (format!("a bad shard {shard} of object {object} on {} {what}", name(disk)), false)
            }
            Report::ShortObject { object } => {
                (format!("object {object} was written with less than full margin"), false)
            }
            Report::Suspended => {
                ("too few disks take writes: writers wait, nothing is lost".to_string(), true)
            }
            Report::Resumed => ("writing goes on".to_string(), true),
            Report::LogFailed => (
                "the log cannot be written: nothing is accepted any more, what was synced before is \
                 safe; unmount, look at the disks, and mount again"
                    .to_string(),
                true,
            ),
            Report::Unreadable { object } if self.too_many_are_away() => (
                format!("object {object} cannot be read while so many disks are away"),
                false,
            ),
            Report::Unreadable { object } => {
                (format!("object {object} is lost: too few good shards"), true)
            }
        };
        self.teller.tell(&line, serious);
        Pace::Again
    }
}

impl Reporter {
    fn is_leaving(&self, disk: DiskIndex) -> bool {
        self.members.leaving().contains(&disk)
    }

    /// More than the redundancy covers: they may come back, and nothing is lost until it is known that they do
    /// not.
    fn too_many_are_away(&self) -> bool {
        self.members.enough().is_err()
    }
}

/// Runs the administrator's command; not waited for, that it cannot be run is logged.
fn run_command(command: &str, pool: &str, line: &str) {
    // The shell that we wait for leaves it to init, so that nothing is left to be reaped.
    let started = std::process::Command::new("/bin/sh")
        .args(["-c", "eval \"$1\" &", "isotherm", command])
        .env("ISOTHERM_POOL", pool)
        .env("ISOTHERM_EVENT", line)
        .stdin(std::process::Stdio::null())
        .status();
    if let Err(error) = started {
        log::error!("the command for events could not be run: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_counted_and_gives_way_to_what_is_serious() {
        let events = EventLog::default();
        events.push("t0", "disk 3 is gone", true);
        for number in 0..1000 {
            events.push(&format!("t{number}"), "disk 1 answers late", false);
        }
        assert_eq!(
            events.lines(),
            ["t0 disk 3 is gone", "t999 disk 1 answers late (1000 times since t0)"]
        );
        for number in 0..10 * EVENTS_MAX {
            events.push("t", &format!("a bad shard of object {number}"), false);
        }
        let lines = events.lines();
        assert_eq!((lines.len(), lines[0].as_str()), (EVENTS_MAX, "t0 disk 3 is gone"));
        assert!(lines[EVENTS_MAX - 1].ends_with(&format!("{}", 10 * EVENTS_MAX - 1)));
    }
}
