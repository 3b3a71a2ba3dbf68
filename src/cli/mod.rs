//! The `isotherm` command: one file per subcommand. Parses, asks the rooms below, prints, and turns
//! what went wrong into a message that says what, where, and what to do next.
//!
//! Exit codes: 0 done · 1 refused or failed, and for `status`: a pool is not healthy · 2 wrong usage ·
//! 4 for `check`: something was found, as fsck says it.

mod args;
mod bench_null;
mod check;
mod create;
mod disk;
mod inspect;
mod list;
mod logging;
mod mount;
mod mount_options;
mod printing;
mod progress;
mod running;
mod status;
mod sync;
mod umount;
mod umount_helper;
mod version;
mod wipe;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};

/// What a subcommand ends with: an exit code, or a message for people.
type Outcome = Result<ExitCode, String>;

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Create(arguments) => create::run(&arguments),
        Command::Mount(arguments) => mount::run(&arguments),
        Command::Umount(arguments) => umount::run(&arguments),
        Command::Sync(arguments) => sync::run(&arguments),
        Command::List(arguments) => list::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Disk(arguments) => disk::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Wipe(arguments) => wipe::run(&arguments),
        Command::Version => version::run(),
        Command::BenchNull(arguments) => bench_null::run(&arguments),
    };
    match outcome {
        Ok(code) => code,
        Err(message) => {
            eprintln!("isotherm: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Names the cause of each cause, once.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
