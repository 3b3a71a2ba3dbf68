//! What happens to an open pool, for people: in the log, in `isotherm status`, and to the administrator's
//! own command. A pool that is degraded in silence is how data get lost.

use std::collections::VecDeque;

use crate::base::sync::{Arc, Mutex};
use crate::base::{Clock, Event, Pace, Task};
use crate::fleet::{Members, Report, Reports};

/// Events kept for status.
const EVENTS_MAX: usize = 64;

/// The last things that happened.
#[derive(Default)]
pub(super) struct EventLog {
    pub(super) lines: Mutex<VecDeque<String>>,
}

impl EventLog {
    pub(super) fn push(&self, line: String) {
        let mut lines = self.lines.lock();
        if lines.len() == EVENTS_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Takes reports from the fleet: logs each, keeps it for status, and runs the administrator's command.
pub(super) struct Reporter {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) reports: Arc<Reports>,
    pub(super) members: Arc<Members>,
    pub(super) events: Arc<EventLog>,
    pub(super) pool: String,
    pub(super) on_event: Option<String>,
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
            Report::DiskFailed { disk, why } => {
                (format!("{} is not used any more: {why}", name(disk)), true)
            }
            Report::DiskLate { disk } => (format!("{} answers late", name(disk)), false),
            Report::BadShard { object, shard, disk, repaired } => {
                let what = if repaired { "was rewritten" } else { "is read from others" };
                (format!("a bad shard {shard} of object {object} on {} {what}", name(disk)), false)
            }
            Report::ShortObject { object } => {
                (format!("object {object} was written with less than full margin"), false)
            }
            Report::Suspended => {
                ("too few disks take writes: writers wait, nothing is lost".to_string(), true)
            }
            Report::Resumed => ("writing goes on".to_string(), true),
            Report::Unreadable { object } => {
                (format!("object {object} is lost: too few good shards"), true)
            }
        };
        if serious {
            log::error!("pool {}: {line}", self.pool);
        } else {
            log::warn!("pool {}: {line}", self.pool);
        }
        self.events.push(format!("{} {line}", self.clock.wall()));
        if serious && let Some(command) = &self.on_event {
            run_command(command, &self.pool, &line);
        }
        Pace::Again
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
