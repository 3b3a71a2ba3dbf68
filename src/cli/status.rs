//! `isotherm status`.

use std::path::Path;
use std::process::ExitCode;

use super::{Outcome, args};
use crate::base::units::human_bytes;
use crate::control::{DiskStatus, Health, PoolStatus, running_pools};

/// Prints how pools are. 0: all healthy; 1: at least one is not.
pub fn run(args: args::Status) -> Outcome {
    let pools: Vec<PoolStatus> = if args.pools.is_empty() {
        running_pools().into_iter().map(|pool| pool.status).collect()
    } else {
        let mut found = Vec::new();
        for name in &args.pools {
            let pool = super::umount::find(Path::new(name)).ok_or_else(|| {
                format!("{name} is not mounted; `isotherm list` shows pools that are not")
            })?;
            found.push(pool.status);
        }
        found
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&pools)?);
    } else if pools.is_empty() {
        println!("no pool is mounted; `isotherm list` shows those that could be");
    } else {
        pools.iter().for_each(print);
    }
    let healthy = pools.iter().all(PoolStatus::is_healthy);
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(pool: &PoolStatus) {
    let health = match pool.health {
        Health::Healthy => "healthy",
        Health::Degraded => "DEGRADED",
        Health::ReadOnly => "READ-ONLY",
        Health::Suspended => "SUSPENDED",
        Health::Failed => "FAILED",
    };
    println!("pool {} ({}) on {}: {health}", pool.name, pool.uuid, pool.mountpoint);
    println!(
        "  {}, {} usable, {} free, {} files, log {} %, {} not yet in objects, served by {}",
        pool.redundancy,
        human_bytes(pool.total_bytes),
        human_bytes(pool.free_bytes),
        pool.inodes,
        pool.log_percent,
        human_bytes(pool.dirty_bytes),
        pool.pid
    );
    println!(
        "  {:>4}  {:<8} {:>10} {:>10} {:>7} {:>9}  where",
        "disk", "state", "size", "used", "errors", "wait"
    );
    for disk in &pool.disks {
        println!(
            "  {:>4}  {:<8} {:>10} {:>10} {:>7} {:>6} us  {}",
            disk.index,
            disk.state,
            human_bytes(disk.bytes),
            human_bytes(disk.used_bytes),
            disk.errors,
            disk.wait_us,
            place(disk)
        );
    }
    for event in pool.events.iter().rev().take(10).rev() {
        println!("  event: {event}");
    }
    for line in &pool.advice {
        println!("  next: {line}");
    }
}

fn place(disk: &DiskStatus) -> String {
    let parts = [&disk.path, &disk.by_id, &disk.model, &disk.serial];
    let known: Vec<&str> =
        parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    if known.is_empty() { format!("(uuid {})", disk.uuid) } else { known.join("  ") }
}
