//! `isotherm status`: how pools are, which disks are missing, and what to do next.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::Outcome;
use super::args::Status;
use super::printing::{Table, duration, print, size};
use super::running::find;
use crate::control::{DiskStatus, Health, PoolStatus, RepairStatus};
use crate::pool::mounting::{mountpoint_of, running_pools, unanswered};

/// Events shown; `--json` has all that are kept.
const EVENTS_SHOWN: usize = 10;

pub(super) fn run(arguments: &Status) -> Outcome {
    let pools: Vec<PoolStatus> = if arguments.targets.is_empty() {
        running_pools().into_iter().map(|pool| pool.status).chain(unanswered()).collect()
    } else {
        arguments.targets.iter().map(|name| status_of(name)).collect::<Result<_, _>>()?
    };
    if arguments.json {
        let text = serde_json::to_string_pretty(&pools).map_err(|error| error.to_string())?;
        print(&format!("{text}\n"));
    } else if pools.is_empty() {
        eprintln!("isotherm: no pool is mounted; `isotherm list` shows what there is");
    } else {
        let texts: Vec<String> = pools.iter().map(show).collect();
        print(&texts.join("\n"));
    }
    let healthy = pools.iter().all(PoolStatus::is_healthy);
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn status_of(target: &str) -> Result<PoolStatus, String> {
    find(target).map(|pool| pool.status).or_else(|error| {
        let path = mountpoint_of(Path::new(target)).display().to_string();
        let is_it = |pool: &PoolStatus| pool.name == target || pool.mountpoint == path;
        unanswered().into_iter().find(is_it).ok_or(error)
    })
}

fn show(pool: &PoolStatus) -> String {
    if pool.health == Health::NoDaemon {
        let (state, advice) = (state(pool), pool.advice.join("\n  "));
        return format!(
            "pool        {}\nstate       {state}\nmounted     {}\n\nwhat to do\n  {advice}\n",
            pool.name, pool.mountpoint
        );
    }
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<11} {value}").expect("writing to a String cannot fail");
    };
    line("pool", format!("{} ({})", pool.name, pool.uuid));
    line("state", state(pool));
    line("mounted", format!("{} by process {}", pool.mountpoint, pool.pid));
    if !pool.read_only.is_empty() {
        line("read-only", pool.read_only.clone());
    }
    line("redundancy", pool.redundancy.clone());
    let used = pool.total_bytes.saturating_sub(pool.free_bytes);
    let percent = (used * 100).checked_div(pool.total_bytes).unwrap_or(0);
    line(
        "usable",
        format!(
            "{}, {} used ({percent} %), {} inodes",
            size(pool.total_bytes),
            size(used),
            pool.inodes
        ),
    );
    line(
        "in memory",
        format!("{} not yet in objects, log {} % full", size(pool.dirty_bytes), pool.log_percent),
    );
    if let Some(repair) = repair(&pool.repair) {
        line("repair", repair);
    }
    text.push('\n');
    text.push_str(&disks(&pool.disks));
    let skipped = pool.events.len().saturating_sub(EVENTS_SHOWN);
    if !pool.events.is_empty() {
        text.push_str("\nlast events\n");
        for event in &pool.events[skipped..] {
            writeln!(text, "  {event}").expect("writing to a String cannot fail");
        }
    }
    if !pool.advice.is_empty() {
        text.push_str("\nwhat to do\n");
        for advice in &pool.advice {
            writeln!(text, "  {advice}").expect("writing to a String cannot fail");
        }
    }
    text
}

/// How far repair is; None if there was nothing to do.
fn repair(repair: &RepairStatus) -> Option<String> {
    let mut parts = Vec::new();
    if repair.running {
        let percent = (repair.bytes_done * 100).checked_div(repair.bytes_total).unwrap_or(100);
        parts.push(format!(
            "{percent} % of {} made anew, {}/s",
            size(repair.bytes_total),
            size(repair.bytes_per_second)
        ));
        parts.extend(repair.seconds_left.map(|left| format!("{} left", span(left))));
    } else if repair.objects_done > 0 {
        let (objects, bytes) = (repair.objects_done, size(repair.bytes_done));
        parts.push(format!("done: {objects} objects, {bytes} made anew"));
    }
    if repair.waiting > 0 {
        let waiting = repair.waiting;
        parts.push(format!("{waiting} objects wait for another disk, or for room"));
    }
    if repair.lost > 0 {
        parts.push(format!("{} objects CANNOT BE READ", repair.lost));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Seconds as people say them.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn state(pool: &PoolStatus) -> String {
    let out = pool.disks.iter().filter(|disk| !disk.takes_part()).count();
    let word = match pool.health {
        Health::Healthy => "healthy",
        Health::Degraded => "DEGRADED",
        Health::ReadOnly => "READ-ONLY",
        Health::Suspended => "SUSPENDED: writers wait",
        Health::Failed => "FAILED: nothing is accepted any more",
        Health::NoDaemon => "NOT SERVED: its daemon has died, or does not answer",
    };
    match out {
        0 => word.to_string(),
        1 => format!("{word}, 1 of {} disks does not take part", pool.disks.len()),
        _ => format!("{word}, {out} of {} disks do not take part", pool.disks.len()),
    }
}

/// One line for each.
pub(super) fn disks(disks: &[DiskStatus]) -> String {
    let mut table =
        Table::new(&["DISK", "STATE", "SIZE", "USED", "ERRORS", "WAIT", "PATH", "SERIAL", "BY-ID"]);
    let or_dash = |text: &str| if text.is_empty() { "-".to_string() } else { text.to_string() };
    for disk in disks {
        let wait = if disk.takes_part() { duration(disk.wait_us) } else { "-".to_string() };
        table.row(vec![
            disk.index.to_string(),
            if disk.state == "active" { disk.state.clone() } else { disk.state.to_uppercase() },
            size(disk.bytes),
            size(disk.used_bytes),
            disk.errors.to_string(),
            wait,
            or_dash(&disk.path),
            or_dash(&disk.serial),
            or_dash(&disk.by_id),
        ]);
    }
    table.print(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::MemoryStatus;

    #[test]
    fn a_degraded_pool_names_its_disks_and_what_to_do() {
        let disk = |index: u16, state: &str, serial: &str| DiskStatus {
            index,
            uuid: String::new(),
            path: format!("/dev/sd{index}"),
            by_id: String::new(),
            model: String::new(),
            serial: serial.to_string(),
            state: state.to_string(),
            seen_at: String::new(),
            bytes: 4_000_000_000_000,
            used_bytes: 1_000_000_000_000,
            errors: 3,
            wait_us: 8_000,
            read_bytes: 0,
            written_bytes: 0,
        };
        let pool = PoolStatus {
            name: "tank".to_string(),
            uuid: "u".to_string(),
            health: Health::Degraded,
            mountpoint: "/mnt".to_string(),
            pid: 7,
            read_only: String::new(),
            redundancy: "ec:6+2".to_string(),
            total_bytes: 100,
            free_bytes: 25,
            inodes: 3,
            index_bytes: Vec::new(),
            dirty_bytes: 0,
            memory: MemoryStatus::default(),
            log_percent: 2,
            disks: vec![disk(0, "active", "A"), disk(1, "failed", "SERIAL9")],
            repair: RepairStatus {
                running: true,
                objects_total: 10,
                bytes_total: 400_000_000,
                bytes_done: 100_000_000,
                bytes_per_second: 1_000_000,
                seconds_left: Some(300),
                waiting: 3,
                ..RepairStatus::default()
            },
            events: (0..20).map(|number| format!("event {number}")).collect(),
            advice: vec!["replace disk 1".to_string()],
        };
        let text = show(&pool);
        assert!(text.contains("DEGRADED, 1 of 2 disks does not take part"), "{text}");
        assert!(text.contains("FAILED") && text.contains("SERIAL9"), "{text}");
        let repair =
            "25 % of 400 MB made anew, 1.00 MB/s, 5 min left, 3 objects wait for another disk";
        assert!(text.contains(repair), "{text}");
        assert!(text.contains("(75 %)") && text.contains("replace disk 1"), "{text}");
        assert!(text.contains("event 19") && !text.contains("event 9\n"), "{text}");
    }
}
