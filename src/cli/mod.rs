//! Room `cli`: one file per subcommand. `args` declares every flag once.

mod args;
mod create;
mod inspect;
mod list;
mod mount;
mod null;
mod status;
mod sync;
mod umount;
mod wipe;

use std::process::ExitCode;

use clap::Parser;

pub use args::{Args, Command};

/// What a subcommand returns: an exit code, or why it could not do its work.
pub type Outcome = Result<ExitCode, Box<dyn std::error::Error>>;

/// Parses the command line and runs the subcommand. Errors go to standard error, as
/// `isotherm: what, where, what next`; the exit code is then 1 (2 for a wrong command line).
pub fn main() -> ExitCode {
    let args = Args::parse();
    start_logging(args.log_level.as_deref());
    let outcome = match args.command {
        Command::Create(create) => create::run(create),
        Command::Mount(mount) => mount::run(mount),
        Command::Umount(umount) => umount::run(umount),
        Command::Sync(sync) => sync::run(sync),
        Command::List(list) => list::run(list),
        Command::Status(status) => status::run(status),
        Command::Inspect(inspect) => inspect::run(inspect),
        Command::Wipe(wipe) => wipe::run(wipe),
        Command::Version => {
            println!("isotherm {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Command::BenchNull(null) => null::run(null),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("isotherm: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(level: Option<&str>) {
    let environment = env_logger::Env::default().default_filter_or(level.unwrap_or("warn"));
    env_logger::Builder::from_env(environment).format_target(false).init();
}
