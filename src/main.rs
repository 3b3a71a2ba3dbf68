//! The `isotherm` command: parse, dispatch, exit code; no logic.

fn main() {}
