//! The `isotherm` command: parse, dispatch, exit code; no logic.

use std::process::ExitCode;

fn main() -> ExitCode {
    isotherm::cli::main()
}
