//! `isotherm wipe`: takes disks out of use. Shows what would go; does it with `--yes`.

use std::process::ExitCode;

use super::args::Wipe;
use super::printing::print;
use super::{Outcome, explain};
use crate::pool::inspect::{wipe, wipeable};

pub(super) fn run(arguments: &Wipe) -> Outcome {
    // All are looked at before the first is touched.
    for device in &arguments.devices {
        let label = wipeable(device).map_err(|error| explain(&error))?;
        print(&format!(
            "{}: disk {} of {} of pool {} ({}){}\n",
            device.display(),
            label.index,
            label.member_count,
            label.pool_name,
            label.pool,
            if label.open { ", which was not unmounted cleanly" } else { "" },
        ));
    }
    if !arguments.yes {
        return Err(
            "nothing was changed; say --yes to wipe them: their pool cannot use them again".into(),
        );
    }
    for device in &arguments.devices {
        wipe(device).map_err(|error| explain(&error))?;
        print(&format!("{}: wiped\n", device.display()));
    }
    Ok(ExitCode::SUCCESS)
}
