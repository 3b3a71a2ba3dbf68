//! `isotherm disk`: the disks of a mounted pool come and go. The daemon does it; this asks, and shows how
//! far it is. Ended early, the work goes on, also after a crash: `isotherm status` shows it.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::Outcome;
use super::args::Disk;
use super::printing::print;
use super::progress::{Counts, Progress};
use super::running::find;
use super::status;
use crate::base::Event;
use crate::control::{DiskRequest, DiskStatus, RunningPool};
use crate::pool::host::Host;

/// How often the daemon is asked how far it is.
const LOOK: Duration = Duration::from_millis(500);

pub(super) fn run(arguments: &Disk) -> Outcome {
    match arguments {
        Disk::List { pool, json } => list(pool, *json),
        Disk::Add { pool, device, force } => {
            let path = absolute(device)?;
            ask(&find(pool)?, &DiskRequest::Add { path, force: *force })
        }
        Disk::Replace { pool, disk, device, force, no_wait } => {
            let (pool, path) = (find(pool)?, absolute(device)?);
            let disk = index_of(&pool.status.disks, disk)?;
            ask(&pool, &DiskRequest::Replace { disk, path, force: *force })?;
            until_gone(&pool, disk, *no_wait)
        }
        Disk::Remove { pool, disk, no_wait } => {
            let pool = find(pool)?;
            let disk = index_of(&pool.status.disks, disk)?;
            ask(&pool, &DiskRequest::Remove { disk })?;
            until_gone(&pool, disk, *no_wait)
        }
        Disk::Offline { pool, disk } => {
            let pool = find(pool)?;
            let disk = index_of(&pool.status.disks, disk)?;
            ask(&pool, &DiskRequest::Offline { disk })
        }
        Disk::Online { pool, disk } => {
            let pool = find(pool)?;
            let disk = index_of(&pool.status.disks, disk)?;
            ask(&pool, &DiskRequest::Online { disk })
        }
    }
}

fn list(pool: &str, json: bool) -> Outcome {
    let pool = find(pool)?;
    if json {
        let text = serde_json::to_string_pretty(&pool.status.disks);
        print(&format!("{}\n", text.map_err(|error| error.to_string())?));
    } else {
        print(&status::disks(&pool.status.disks));
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(pool: &RunningPool, request: &DiskRequest) -> Outcome {
    let done = pool.client.disk(request).map_err(|error| error.to_string())?;
    print(&format!("{done}\n"));
    Ok(ExitCode::SUCCESS)
}

/// The daemon has another working directory.
fn absolute(path: &Path) -> Result<String, String> {
    let absolute = std::path::absolute(path);
    let absolute = absolute.map_err(|error| format!("{}: {error}", path.display()))?;
    let text = absolute.to_str().ok_or_else(|| format!("{}: not UTF-8", path.display()))?;
    Ok(text.to_string())
}

/// The number of the disk that is meant.
fn index_of(disks: &[DiskStatus], meant: &str) -> Result<u16, String> {
    let by_id = meant.strip_prefix("/dev/disk/by-id/").unwrap_or(meant);
    let path = std::fs::canonicalize(meant).ok();
    let is_meant = |disk: &&DiskStatus| {
        let same_path = !disk.path.is_empty()
            && (disk.path == meant
                || path.is_some() && path == std::fs::canonicalize(&disk.path).ok());
        let names = [&disk.by_id, &disk.serial, &disk.uuid];
        same_path
            || disk.index.to_string() == meant
            || names.iter().any(|name| !name.is_empty() && **name == by_id)
    };
    let found: Vec<&DiskStatus> = disks.iter().filter(is_meant).collect();
    match found[..] {
        [disk] => Ok(disk.index),
        [] => Err(format!("\"{meant}\" is no disk of the pool; `isotherm disk list` shows them")),
        _ => Err(format!("\"{meant}\" means several disks of the pool: say its number")),
    }
}

/// Waits until the disk is no member any more, and shows how far it is.
fn until_gone(pool: &RunningPool, disk: u16, no_wait: bool) -> Outcome {
    if no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    let host = Host::start();
    let mut bar = Progress::new("moving", Counts::Bytes);
    let mut told = 0;
    loop {
        let status = pool.client.status().map_err(|error| {
            format!("the daemon does not answer ({error}); the work goes on with the next mount")
        })?;
        if !status.disks.iter().any(|one| one.index == disk) {
            bar.finish();
            print(&format!("disk {disk} was removed: nothing is on it any more\n"));
            return Ok(ExitCode::SUCCESS);
        }
        let repair = &status.repair;
        if repair.bytes_total > 0 {
            bar.set(repair.bytes_done, repair.bytes_total);
        }
        if repair.waiting > told && !repair.running {
            told = repair.waiting;
            eprintln!(
                "isotherm: {told} objects wait for another disk, or for room; the rest is done, and it goes \
                 on when there is"
            );
        }
        let next = host.clock().now() + LOOK;
        host.wait().until(&Event::new(), Some(next), &mut || false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_meant_by_number_path_serial_or_name() {
        let disk = |index: u16, serial: &str| DiskStatus {
            index,
            uuid: format!("uuid-{index}"),
            path: format!("/nowhere/sd{index}"),
            by_id: format!("ata-{serial}"),
            serial: serial.to_string(),
            ..DiskStatus::default()
        };
        let disks = [disk(0, "A"), disk(1, "7"), disk(7, "B")];
        for meant in ["1", "/nowhere/sd1", "ata-7", "/dev/disk/by-id/ata-7", "uuid-1"] {
            assert_eq!(index_of(&disks, meant), Ok(1), "{meant}");
        }
        assert_eq!(index_of(&disks, "B"), Ok(7));
        assert!(index_of(&disks, "7").expect_err("a number and a serial").contains("several"));
        assert!(index_of(&disks, "C").expect_err("nobody").contains("disk list"));
    }
}
