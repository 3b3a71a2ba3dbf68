//! The `isotherm` command: parse, dispatch, exit code; no logic.

fn main() -> std::process::ExitCode {
    isotherm::cli::run()
}
