//! `isotherm check`: does everything agree, and is everything there? A mounted pool is checked by its daemon,
//! which mends what it can; one that is not by this process, which changes nothing.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::args::Check;
use super::logging::Logging;
use super::mount::pool_or_devices;
use super::printing::{print, size};
use super::progress::{Counts, Progress};
use super::running::find_if_any;
use super::{Outcome, explain};
use crate::control::{CheckProgress, CheckReport};
use crate::pool::daemon;
use crate::pool::host::Host;

/// Exit code: something was found; fsck has it for that.
const FOUND: u8 = 4;

pub(super) fn run(arguments: &Check) -> Outcome {
    let mut shown: Option<(String, Progress)> = None;
    let mut tell = |progress: &CheckProgress| {
        if shown.as_ref().is_none_or(|(step, _)| *step != progress.step) {
            let counts = if progress.step == "shards" { Counts::Bytes } else { Counts::Entries };
            let next = (progress.step.clone(), Progress::new(&progress.step, counts));
            if let Some((_, before)) = shown.replace(next) {
                before.finish();
            }
        }
        if let Some((_, bar)) = &mut shown {
            bar.set(progress.done, progress.total);
        }
        true
    };
    let report = check(arguments, &mut tell);
    if let Some((_, bar)) = shown {
        bar.finish();
    }
    let report = report?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        print(&format!("{text}\n"));
    } else {
        print(&show(&report, arguments.deep));
    }
    Ok(ExitCode::from(if report.is_clean() { 0 } else { FOUND }))
}

fn check(
    arguments: &Check,
    tell: &mut dyn FnMut(&CheckProgress) -> bool,
) -> Result<CheckReport, String> {
    if let [target] = &arguments.what[..]
        && let Some(pool) = find_if_any(target)?
    {
        return pool
            .client
            .check(arguments.deep, tell)
            .map_err(|error| format!("{} could not be checked: {error}", pool.status.name));
    }
    let (pool, devices) = pool_or_devices(&arguments.what)?;
    let host = Host::start();
    let _logging = Logging::start(host.clock(), "warn");
    daemon::check(&host, pool, devices, arguments.deep, tell).map_err(|error| match error {
        daemon::DaemonError::Mounted { name, mountpoint, .. } => {
            format!("pool {name} is mounted on {mountpoint}: isotherm check {mountpoint} checks it there")
        }
        other => explain(&other),
    })
}

fn show(report: &CheckReport, deep: bool) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let lost = if finding.lost { "LOST " } else { "" };
        let paths = match finding.paths.len() {
            0 => String::new(),
            _ => format!("{}: ", finding.paths.join(", ")),
        };
        let mended = if finding.mended { "; mended" } else { "" };
        writeln!(text, "{lost}{paths}{}{mended}", finding.what)
            .expect("writing to a String cannot fail");
    }
    let kept = report.findings.len() as u64;
    if report.found > kept {
        writeln!(text, "... and {} more", report.found - kept).expect("as above");
    }
    for away in &report.away {
        let (disk, objects) = (&away.disk, away.objects);
        writeln!(text, "{disk} does not take part: {objects} objects have a shard there")
            .expect("as above");
    }
    let CheckReport { fixed, inodes, names, objects, .. } = report;
    writeln!(text, "disks: {fixed} copies of labels, roots and batches").expect("as above");
    let bytes = size(report.bytes);
    writeln!(text, "index: {inodes} inodes, {names} names, {objects} objects, {bytes} of files")
        .expect("as above");
    if deep {
        let (shards, bytes) = (report.shards, size(report.shard_bytes));
        writeln!(text, "shards: {shards} read, {bytes}").expect("as above");
    }
    if report.unsettled > 0 {
        let unsettled = report.unsettled;
        writeln!(text, "{unsettled} files were being changed: their sizes were not compared")
            .expect("as above");
    }
    if !report.compared_space {
        writeln!(text, "the map of free space was not compared: there were changes all the time")
            .expect("as above");
    }
    let verdict = match (report.found, report.away.len(), deep) {
        (0, 0, true) => "everything agrees, and everything is there".to_string(),
        (0, 0, false) => "everything agrees; --deep reads every shard too".to_string(),
        (0, _, _) => {
            "everything agrees; what is on disks that are away could not be looked at".to_string()
        }
        (found, _, _) => match report.findings.iter().filter(|finding| finding.mended).count() {
            0 => format!("{found} findings; nothing was changed"),
            mended => format!(
                "{found} findings; {mended} are mended: shards and tables within moments, check again"
            ),
        },
    };
    writeln!(text, "{verdict}").expect("as above");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{CheckAway, CheckFinding};

    #[test]
    fn a_report_says_what_is_lost_and_where() {
        let report = CheckReport {
            inodes: 3,
            compared_space: true,
            found: 3,
            findings: vec![
                CheckFinding {
                    paths: vec!["/a".into(), "/b".into()],
                    what: "x".into(),
                    lost: true,
                    mended: false,
                },
                CheckFinding { what: "y".into(), ..CheckFinding::default() },
            ],
            away: vec![CheckAway { disk: "disk 2".into(), objects: 5 }],
            ..CheckReport::default()
        };
        let text = show(&report, true);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "LOST /a, /b: x",
                "y",
                "... and 1 more",
                "disk 2 does not take part: 5 objects have a shard there",
            ]
        );
        assert_eq!(lines.last(), Some(&"3 findings; nothing was changed"));
        let mut report = report;
        report.findings[1].mended = true;
        let text = show(&report, true);
        assert!(text.contains("\ny; mended\n"), "{text}");
        assert!(text.contains("\n3 findings; 1 are mended"), "{text}");
    }
}
