//! `isotherm wipe`: labels and roots are overwritten, so that the disk is nobody's.

use std::process::ExitCode;

use super::{Outcome, args};
use crate::pool::host::Host;

/// Wipes, after saying what would be lost.
pub fn run(args: args::Wipe) -> Outcome {
    let host = Host::start();
    let found = host.find(&args.devices);
    for path in &args.devices {
        let disk = found.iter().find(|disk| std::path::Path::new(&disk.identity.path) == path);
        let Some(disk) = disk else {
            return Err(
                format!("{} has no label of a pool: nothing was changed", path.display()).into()
            );
        };
        let label = &disk.label;
        println!("{}: disk {} of pool {}", path.display(), label.index, label.pool_name);
    }
    if !args.force {
        return Err("nothing was changed: add --force to make these disks forget their pool".into());
    }
    for path in &args.devices {
        host.wipe(path)?;
        println!("{}: wiped", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
