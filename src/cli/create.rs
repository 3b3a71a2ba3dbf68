//! `isotherm create`: shows what the disks allow, and makes a pool of them.

use std::process::ExitCode;

use super::args::Create;
use super::printing::{Table, print, size};
use super::{Outcome, explain};
use crate::format::Redundancy;
use crate::pool::create::CreateOptions;
use crate::pool::enclosures::Enclosures;
use crate::pool::host::Host;
use crate::pool::plan::{Choice, PlannedDisk, choices, plan_disks, usable};

pub(super) fn run(arguments: &Create) -> Outcome {
    let disks = plan_disks(&arguments.devices).map_err(|error| explain(&error))?;
    let choices = choices(&disks);
    let asked = arguments.redundancy.as_deref().map(parse_redundancy).transpose()?;
    let redundancy = asked.or_else(|| {
        choices.iter().find(|choice| choice.recommended).map(|choice| choice.redundancy)
    });
    let enclosures = match arguments.enclosures.is_empty() {
        true => Enclosures::detected(&disks, redundancy),
        false => {
            Enclosures::named(&disks, &arguments.enclosures).map_err(|error| explain(&error))?
        }
    };
    if arguments.dry_run {
        print(&show_disks(&disks));
        print(&show_choices(&choices, redundancy));
        print(&show_enclosures(&enclosures, redundancy));
        if let Err(why) = accept(arguments, &disks, redundancy) {
            print(&format!("\nWith these arguments create would refuse:\n{why}\n"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let redundancy = accept(arguments, &disks, redundancy)?;
    let options = CreateOptions {
        name: arguments.name.clone(),
        redundancy,
        enclosures: enclosures.labels(),
        machine_id: [0; 16],
        now_seconds: 0,
        force: arguments.force,
    };
    let uuid =
        Host::start().create_pool(&arguments.devices, options).map_err(|error| explain(&error))?;
    print(&format!(
        "pool {} ({uuid}): {} on {} disks, {} usable, {}\n\
         {}mount it with: isotherm mount {} MOUNTPOINT\n",
        arguments.name,
        redundancy,
        disks.len(),
        size(usable(&disks, redundancy)),
        survives(redundancy.tolerates()),
        show_enclosures(&enclosures, Some(redundancy)),
        mount_words(arguments, &disks),
    ));
    Ok(ExitCode::SUCCESS)
}

/// The redundancy that the pool gets, or why nothing is made.
fn accept(
    arguments: &Create,
    disks: &[PlannedDisk],
    redundancy: Option<Redundancy>,
) -> Result<Redundancy, String> {
    let Some(redundancy) = redundancy else {
        return Err(format!(
            "one disk cannot protect anything: give more disks, or say --redundancy none to live \
             with losing \"{}\" when {} fails",
            arguments.name, disks[0].path
        ));
    };
    refuse_foreign(disks, arguments.force)?;
    if redundancy.tolerates() == 0 && disks.len() > 1 {
        return Err(
            "--redundancy none is for one disk: with several, losing any one would lose files"
                .into(),
        );
    }
    Ok(redundancy)
}

/// Pools on files are not found by name: only block devices are looked at.
fn mount_words(arguments: &Create, disks: &[PlannedDisk]) -> String {
    if disks.iter().all(|disk| disk.path.starts_with("/dev/")) {
        return arguments.name.clone();
    }
    let paths: Vec<&str> = disks.iter().map(|disk| disk.path.as_str()).collect();
    paths.join(" ")
}

/// [I9] Names all that is in the way, not only the first.
fn refuse_foreign(disks: &[PlannedDisk], force: bool) -> Result<(), String> {
    let named = |of: fn(&PlannedDisk) -> &Vec<String>| {
        let found = disks.iter().filter(|disk| !of(disk).is_empty());
        let lines = found.map(|disk| format!("\n  {}: {}", disk.path, of(disk).join(", ")));
        lines.collect::<String>()
    };
    let used = named(|disk| &disk.used);
    if !used.is_empty() {
        return Err(format!(
            "these disks are in use:{used}\nnothing was written; end what uses them first (--force does \
             not override that)"
        ));
    }
    let foreign = named(|disk| &disk.foreign);
    if force || foreign.is_empty() {
        return Ok(());
    }
    Err(format!(
        "these disks are not blank:{foreign}\nnothing was written; --force overwrites what is on them"
    ))
}

fn show_disks(disks: &[PlannedDisk]) -> String {
    let mut table = Table::new(&["DISK", "SIZE", "MODEL", "SERIAL", "HANGS ON", "ON IT"]);
    for disk in disks {
        let on_it: Vec<String> = disk.used.iter().chain(&disk.foreign).cloned().collect();
        let on_it = if on_it.is_empty() { "nothing".to_string() } else { on_it.join(", ") };
        table.row(vec![
            disk.path.clone(),
            size(disk.bytes),
            or_dash(&disk.model),
            or_dash(&disk.serial),
            or_dash(disk.enclosure.as_deref().unwrap_or_default()),
            on_it,
        ]);
    }
    table.print(0)
}

/// What the loss of an enclosure takes; empty if none are known [R24].
fn show_enclosures(enclosures: &Enclosures, redundancy: Option<Redundancy>) -> String {
    let (Some(redundancy), false) = (redundancy, enclosures.groups.is_empty()) else {
        return String::new();
    };
    let count = |disks: usize| if disks == 1 { "1 disk".into() } else { format!("{disks} disks") };
    let names: Vec<String> = (enclosures.groups.iter())
        .map(|group| format!("{} ({})", group.name, count(group.disks.len())))
        .collect();
    let (most, all) = (enclosures.shared_at_most(redundancy), redundancy.shards());
    let outcome = if most > redundancy.tolerates() {
        "more than it survives: losing one whole can lose files. More enclosures, or a redundancy with \
         fewer shards or more parity, prevent that"
    } else if enclosures.groups.iter().any(|group| group.disks.len() > redundancy.tolerates()) {
        "files survive losing any one whole, though the pool may be read-only until it is back"
    } else {
        "losing any one whole is survived"
    };
    let limited = match enclosures.limits {
        true => "at most",
        false => "not limited (--enclosure NAME=DISK,... does), at best",
    };
    format!(
        "enclosures: {}\n{limited} {most} of an object's {all} shards share one, while there is room \
         elsewhere: {outcome}\n",
        names.join(", ")
    )
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_string() } else { text.to_string() }
}

fn show_choices(choices: &[Choice], taken: Option<Redundancy>) -> String {
    let mut table = Table::new(&["", "REDUNDANCY", "USABLE", "SURVIVES", "AFTER A FAILURE"]);
    // Several disks without redundancy are refused: that is no choice.
    let several = choices.iter().any(|choice| choice.survives > 0);
    for choice in choices.iter().filter(|choice| choice.survives > 0 || !several) {
        let mark = if Some(choice.redundancy) == taken { "*" } else { " " };
        let after = match (choice.survives, choice.spare_disks) {
            (0, _) => "files are lost",
            (_, 0) => "less margin until the disk is replaced",
            _ => "heals onto the other disks",
        };
        table.row(vec![
            mark.to_string(),
            name_of(choice.redundancy),
            size(choice.usable_bytes),
            survives(choice.survives),
            after.to_string(),
        ]);
    }
    let legend =
        if taken.is_some() { "\n* is what create takes with these arguments.\n" } else { "" };
    format!("\n{}{legend}", table.print(0))
}

fn name_of(redundancy: Redundancy) -> String {
    match redundancy {
        Redundancy::Replica { copies: 1 } => "none".to_string(),
        other => other.to_string(),
    }
}

fn survives(disks: usize) -> String {
    match disks {
        0 => "survives no failed disk".to_string(),
        1 => "survives any 1 failed disk".to_string(),
        more => format!("survives any {more} failed disks"),
    }
}

/// `ec:6+2`, `replica:3` or `none`.
pub(super) fn parse_redundancy(text: &str) -> Result<Redundancy, String> {
    let wrong = || {
        format!(
            "\"{text}\" is no redundancy: write ec:K+M as in ec:6+2, replica:N as in replica:3, or none"
        )
    };
    let number = |text: &str| text.parse::<u8>().map_err(|_| wrong());
    let redundancy = match text.split_once(':') {
        None if text == "none" => Redundancy::Replica { copies: 1 },
        Some(("ec", rest)) => {
            let (data, parity) = rest.split_once('+').ok_or_else(wrong)?;
            Redundancy::Erasure { data: number(data)?, parity: number(parity)? }
        }
        Some(("replica", copies)) => Redundancy::Replica { copies: number(copies)? },
        _ => return Err(wrong()),
    };
    if redundancy.is_valid() { Ok(redundancy) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redundancies_are_read() {
        assert_eq!(parse_redundancy("ec:6+2"), Ok(Redundancy::Erasure { data: 6, parity: 2 }));
        assert_eq!(parse_redundancy("replica:3"), Ok(Redundancy::Replica { copies: 3 }));
        assert_eq!(parse_redundancy("none"), Ok(Redundancy::Replica { copies: 1 }));
        for wrong in ["", "ec", "ec:6", "ec:6+0", "ec:0+2", "ec:40+2", "replica:0", "raid5"] {
            assert!(parse_redundancy(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn everything_in_the_way_is_named() {
        // [I9]
        let disk = |path: &str, foreign: &[&str]| PlannedDisk {
            path: path.to_string(),
            model: String::new(),
            serial: String::new(),
            bytes: 1 << 30,
            data_bytes: 1 << 29,
            enclosure: None,
            used: Vec::new(),
            foreign: foreign.iter().map(|what| what.to_string()).collect(),
        };
        let mut disks =
            [disk("/dev/sda", &["XFS filesystem"]), disk("b", &[]), disk("c", &["LUKS"])];
        let refusal = refuse_foreign(&disks, false).expect_err("two are not blank");
        assert!(refusal.contains("/dev/sda: XFS filesystem") && refusal.contains("c: LUKS"));
        assert!(refuse_foreign(&disks, true).is_ok());
        assert!(show_disks(&disks).contains("nothing"));
        disks[1].used.push("mounted at /".to_string());
        let refusal = refuse_foreign(&disks, true).expect_err("in use, force or not");
        assert!(refusal.contains("b: mounted at /") && !refusal.contains("XFS"), "{refusal}");
    }
}
