//! `isotherm list`: pools by the labels on the disks that are here.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::{Outcome, args};
use crate::control::running_pools;
use crate::pool::host::{FoundDisk, Host};

/// Prints a line per pool, and one per disk.
pub fn run(args: args::List) -> Outcome {
    let host = Host::start();
    let paths = if args.devices.is_empty() { host.block_devices() } else { args.devices };
    let mut pools: BTreeMap<String, Vec<FoundDisk>> = BTreeMap::new();
    for disk in host.find(&paths) {
        pools.entry(disk.label.pool.to_string()).or_default().push(disk);
    }
    let running = running_pools();
    for (uuid, disks) in &pools {
        let label = &disks[0].label;
        let mounted = running.iter().find(|pool| pool.status.uuid == *uuid);
        let place = match mounted {
            Some(pool) => format!("mounted on {}", pool.status.mountpoint),
            None if label.open => "not closed: the next mount recovers".to_string(),
            None => "clean".to_string(),
        };
        println!(
            "{}  {uuid}  {}  {} of {} disks here, {place}",
            label.pool_name,
            label.redundancy,
            disks.len(),
            label.member_count
        );
        for disk in disks {
            let identity = &disk.identity;
            println!("    {:>2}  {}  {}", disk.label.index, identity.path, identity.by_id);
        }
    }
    if pools.is_empty() {
        println!("no pools found");
    }
    Ok(ExitCode::SUCCESS)
}
