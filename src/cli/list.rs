//! `isotherm list`: the pools on this machine, by the labels on its disks.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::Outcome;
use super::args::List;
use super::printing::{Table, print, size};
use crate::base::PoolUuid;
use crate::format::Label;
use crate::pool::host::{Found, FoundDisk, Host};
use crate::pool::mounting::running_pools;

pub(super) fn run(arguments: &List) -> Outcome {
    let host = Host::start();
    let given = !arguments.devices.is_empty();
    let paths = if given { arguments.devices.clone() } else { host.block_devices() };
    let mut pools: BTreeMap<PoolUuid, Vec<FoundDisk>> = BTreeMap::new();
    let Found { disks, refused } = host.look(&paths);
    refused.iter().for_each(|disk| eprintln!("isotherm: {disk}"));
    for disk in disks {
        pools.entry(disk.label.pool).or_default().push(disk);
    }
    let running = running_pools();
    let mut table = Table::new(&["POOL", "DISKS", "SIZE", "REDUNDANCY", "STATE", "UUID"]);
    for (uuid, disks) in &pools {
        let Some(label) = newest(disks) else { continue };
        let mounted = running.iter().find(|pool| pool.status.uuid == uuid.to_string());
        let state = match mounted {
            Some(pool) => format!("mounted on {}", pool.status.mountpoint),
            None if label.open => "not mounted, was not unmounted cleanly".to_string(),
            None => "not mounted, clean".to_string(),
        };
        table.row(vec![
            label.pool_name.clone(),
            count(disks, label),
            size(disks.iter().map(|disk| disk.identity.bytes).sum()),
            label.redundancy.to_string(),
            state,
            uuid.to_string(),
        ]);
    }
    // On files, which are only looked at when named.
    for pool in
        running.iter().filter(|pool| !pools.keys().any(|uuid| uuid.to_string() == pool.status.uuid))
    {
        let status = &pool.status;
        let active = status.disks.iter().filter(|disk| disk.state == "active").count();
        table.row(vec![
            status.name.clone(),
            format!("{active} of {}", status.disks.len()),
            size(status.disks.iter().map(|disk| disk.bytes).sum()),
            status.redundancy.clone(),
            format!("mounted on {}", status.mountpoint),
            status.uuid.clone(),
        ]);
    }
    if pools.is_empty() && running.is_empty() {
        let hint = if nix::unistd::geteuid().is_root() || given {
            "no pool was found"
        } else {
            "no pool was found; only root may look at block devices, name image files to look at them"
        };
        eprintln!("isotherm: {hint}");
        return Ok(ExitCode::SUCCESS);
    }
    print(&table.print(0));
    Ok(ExitCode::SUCCESS)
}

/// The label that counts: of the newest epoch, and of its labels the newest.
pub(super) fn newest(disks: &[FoundDisk]) -> Option<&Label> {
    let labels = disks.iter().map(|disk| &disk.label);
    labels.max_by_key(|label| (label.claim.epoch, label.member_states.sequence, label.sequence))
}

/// One drive by two paths counts once.
fn count(disks: &[FoundDisk], label: &Label) -> String {
    let mut uuids: Vec<_> = disks.iter().map(|disk| disk.label.disk).collect();
    uuids.sort();
    uuids.dedup();
    format!("{} of {}", uuids.len(), label.member_count)
}
