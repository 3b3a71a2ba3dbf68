//! Programs that the scripts in tests/loop use on real block devices: a load that logs what it was
//! promised, a checker that compares the log with what is there after a crash, and a file layer
//! with a volatile cache to put loop devices on.
//!
//!     loop load  --dir DIR --log LOG --seed N [--writers N] [--seconds N]
//!     loop check --dir DIR --log LOG
//!     loop freeze DIR FILE | loop frozen DIR FILE
//!     loop plant DIR LOG
//!     loop create DIR COUNT BYTES | loop lookups DIR COUNT BYTES
//!     loop layer --mount DIR --control DIR [--lie] FILE...
//!
//! Without arguments (`cargo test --test loop`) it tests itself, which needs neither root nor a
//! pool: the checker passes an honest directory and must fail each planted fault.

// These programs stand outside the engine: they have their own clock and threads.
#![allow(clippy::disallowed_methods)]

#[path = "loop/check.rs"]
mod check;
#[path = "loop/history.rs"]
mod history;
#[path = "loop/layer.rs"]
mod layer;
#[path = "loop/load.rs"]
mod load;
#[path = "loop/planted.rs"]
mod planted;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The value after `--name`.
fn option<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments.get(at + 1).map(String::as_str)
}

fn path(arguments: &[String], name: &str) -> PathBuf {
    option(arguments, name).unwrap_or_else(|| panic!("{name} PATH is needed")).into()
}

fn number(arguments: &[String], name: &str, default: u64) -> u64 {
    option(arguments, name).map_or(default, |text| text.parse().expect("a number"))
}

fn run_load(arguments: &[String]) -> ExitCode {
    let options = load::Options {
        dir: path(arguments, "--dir"),
        log: path(arguments, "--log"),
        seed: number(arguments, "--seed", 1),
        writers: number(arguments, "--writers", 4),
        time_max: Duration::from_secs(number(arguments, "--seconds", 3600)),
    };
    let ended = load::run(&options);
    println!("load: seed {}, {} operations, {ended:?}", options.seed, ended.operations);
    ExitCode::SUCCESS
}

fn run_check(arguments: &[String]) -> ExitCode {
    let verdict = check::check(&path(arguments, "--dir"), &path(arguments, "--log"));
    for fault in &verdict.faults {
        println!("FAULT {fault}");
    }
    println!("check: {verdict}");
    if verdict.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_frozen(arguments: &[String]) -> ExitCode {
    let [dir, file] = arguments else { panic!("DIR FILE are needed") };
    let now = check::listing(dir.as_ref()).join("\n");
    let then = std::fs::read_to_string(file).expect("the frozen listing can be read");
    if now == then {
        return ExitCode::SUCCESS;
    }
    for line in then.lines().filter(|line| !now.lines().any(|other| other == *line)) {
        println!("FAULT was: {line}");
    }
    for line in now.lines().filter(|line| !then.lines().any(|other| other == *line)) {
        println!("FAULT is:  {line}");
    }
    ExitCode::FAILURE
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("load") => run_load(&arguments[1..]),
        Some("check") => run_check(&arguments[1..]),
        Some("freeze") => {
            let [dir, file] = &arguments[1..] else { panic!("DIR FILE are needed") };
            std::fs::write(file, check::listing(dir.as_ref()).join("\n")).expect("can be written");
            ExitCode::SUCCESS
        }
        Some("frozen") => run_frozen(&arguments[1..]),
        Some("create") => {
            let [dir, count, bytes] = &arguments[1..] else { panic!("DIR COUNT BYTES are needed") };
            let number = |text: &String| text.parse().expect("a number");
            load::create_many(dir.as_ref(), number(count), number(bytes));
            ExitCode::SUCCESS
        }
        Some("lookups") => {
            let [dir, count, bytes] = &arguments[1..] else { panic!("DIR COUNT BYTES are needed") };
            let number = |text: &String| text.parse().expect("a number");
            let faults = load::look_up_many(dir.as_ref(), number(count), number(bytes));
            faults.iter().take(20).for_each(|fault| println!("FAULT {fault}"));
            println!("lookups: {} faults in {count} files", faults.len());
            if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Some("plant") => {
            let [dir, log] = &arguments[1..] else { panic!("DIR LOG are needed") };
            planted::plant_one(dir.as_ref(), log.as_ref());
            ExitCode::SUCCESS
        }
        Some("layer") => layer::run(&arguments[1..]),
        _ => planted::run_all(),
    }
}
