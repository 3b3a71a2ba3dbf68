//! `isotherm create`.

use std::process::ExitCode;

use super::{Outcome, args};
use crate::base::units::human_bytes;
use crate::format::Redundancy;
use crate::pool::create::CreateOptions;
use crate::pool::host::{Choice, Host};

/// Makes a pool, or prints what it would be.
pub fn run(args: args::Create) -> Outcome {
    let host = Host::start();
    let (bytes, choices) = host.choices(&args.devices)?;
    let redundancy = match &args.redundancy {
        Some(text) => parse(text)?,
        None => match choices.iter().find(|choice| choice.recommended) {
            Some(choice) => choice.redundancy,
            None => {
                return Err("one disk has no redundancy: say so with --redundancy none, or give \
                            more disks"
                    .into());
            }
        },
    };
    if args.redundancy.as_deref() == Some("none") && args.devices.len() > 1 {
        return Err("--redundancy none is for a single disk; see --dry-run for the choices".into());
    }
    if args.dry_run {
        print_choices(&bytes, &choices, redundancy);
        return Ok(ExitCode::SUCCESS);
    }
    let options = CreateOptions {
        name: args.name.clone(),
        redundancy,
        enclosure_cap: 0,
        machine_id: [0; 16],
        now_seconds: 0,
        force: args.force,
    };
    let uuid = host.create_pool(&args.devices, options)?;
    let usable = Host::usable_bytes(&bytes, redundancy);
    println!(
        "pool {} ({uuid}): {} disks, {redundancy}, {} usable, survives {} lost disks",
        args.name,
        bytes.len(),
        human_bytes(usable),
        redundancy.tolerates()
    );
    println!("next: isotherm mount {} MOUNTPOINT", args.name);
    Ok(ExitCode::SUCCESS)
}

/// `ec:6+2`, `replica:3`, `none`.
pub(super) fn parse(text: &str) -> Result<Redundancy, String> {
    let wrong = || format!("\"{text}\" is no redundancy: ec:K+M (ec:6+2), replica:R, or none");
    if text == "none" {
        return Ok(Redundancy::Replica { copies: 1 });
    }
    if let Some(copies) = text.strip_prefix("replica:") {
        let copies = copies.parse().map_err(|_| wrong())?;
        return checked(Redundancy::Replica { copies }).ok_or_else(wrong);
    }
    let (data, parity) =
        text.strip_prefix("ec:").and_then(|rest| rest.split_once('+')).ok_or_else(wrong)?;
    let data = data.parse().map_err(|_| wrong())?;
    let parity = parity.parse().map_err(|_| wrong())?;
    checked(Redundancy::Erasure { data, parity }).ok_or_else(wrong)
}

fn checked(redundancy: Redundancy) -> Option<Redundancy> {
    redundancy.is_valid().then_some(redundancy)
}

fn print_choices(bytes: &[u64], choices: &[Choice], chosen: Redundancy) {
    let raw: u64 = bytes.iter().sum();
    println!("{} disks, {} raw", bytes.len(), human_bytes(raw));
    println!("{:<12} {:>12} {:>9}  rebuilds itself", "redundancy", "usable", "survives");
    for choice in choices {
        let itself = match choice.spare_disks {
            0 => "only onto a new disk",
            _ => "yes",
        };
        println!(
            "{:<12} {:>12} {:>9}  {itself}{}",
            choice.redundancy.to_string(),
            human_bytes(choice.usable_bytes),
            choice.survives,
            if choice.redundancy == chosen { "   <- chosen" } else { "" }
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redundancy_is_read_as_it_is_printed() {
        for text in ["ec:6+2", "ec:1+1", "replica:3"] {
            assert_eq!(parse(text).map(|redundancy| redundancy.to_string()), Ok(text.to_string()));
        }
        assert_eq!(parse("none"), Ok(Redundancy::Replica { copies: 1 }));
        for text in ["", "ec:", "ec:6", "ec:0+2", "ec:30+8", "replica:0", "raid6", "ec:6+9"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
