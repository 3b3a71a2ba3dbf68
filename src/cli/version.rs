//! `isotherm version`.

use std::process::ExitCode;

use super::Outcome;
use super::printing::print;

/// The format on disk that this program reads and writes; not frozen before 1.0.
const FORMAT_VERSION: u32 = 1;

pub(super) fn run() -> Outcome {
    print(&format!("isotherm {}, format {FORMAT_VERSION}\n", env!("CARGO_PKG_VERSION")));
    Ok(ExitCode::SUCCESS)
}
