//! The house rules that a compiler does not check (docs/style.md), as tests.
//!
//! Every rule is a pure function from files to findings, so that the same rule runs over the tree
//! and over a planted violation: `each_rule_catches_its_planted_violation` proves that none of them
//! has gone blind. A finding names file, line and what to do instead.
//!
//! Not here: what clippy checks (`clippy.toml`: clocks, threads, function length).

#[path = "tidy/arrows.rs"]
mod arrows;
#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/planted.rs"]
mod planted;
#[path = "tidy/quotes.rs"]
mod quotes;
#[path = "tidy/rules.rs"]
mod rules;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// One file of the repository, with its code apart from comments and strings.
pub struct Source {
    /// Path from the repository's root, with forward slashes.
    pub path: String,
    /// The text as it is.
    pub text: String,
    /// Rust only: the text with comments and the insides of literals blanked, line for line.
    pub code: String,
    /// Rust only: the first line (from 0) of the file's test module; the number of lines if none.
    pub tests_from: usize,
}

impl Source {
    /// A file as the rules see it.
    pub fn new(path: &str, text: &str) -> Source {
        let code = if path.ends_with(".rs") { lexer::code_only(text) } else { String::new() };
        let tests_from = if path.starts_with("tests/")
            || path.ends_with("/tests.rs")
            || path.contains("/tests/")
        {
            0
        } else {
            lexer::test_module_line(&code).unwrap_or(text.lines().count())
        };
        Source { path: path.to_string(), text: text.to_string(), code, tests_from }
    }

    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it is part of the engine: Rust below src/.
    pub fn is_engine(&self) -> bool {
        self.is_rust() && self.path.starts_with("src/")
    }

    /// Code lines with their numbers from 1, and whether they belong to tests.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str, bool)> {
        self.code
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line, index >= self.tests_from))
    }
}

/// A broken rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    /// Where: path.
    pub path: String,
    /// Where: line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What, and what to do instead.
    pub what: String,
}

impl Finding {
    /// A finding in `source`.
    pub fn new(source: &Source, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: source.path.clone(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file the rules look at: Rust, Markdown and shell; generated and recorded output left out.
fn tree() -> Vec<Source> {
    let mut sources = Vec::new();
    for top in ["src", "tests", "benchmarks", "mount-scripts", "docs", ".ci"] {
        collect(&root().join(top), &mut sources);
    }
    for top in ["README.md", "CHANGELOG.md", "Cargo.toml", "clippy.toml"] {
        add(&root().join(top), &mut sources);
    }
    assert!(sources.len() > 20, "the tree was not found");
    sources
}

fn collect(directory: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("the tree can be listed").path()).collect();
    paths.sort();
    for path in paths {
        let relative = path.strip_prefix(root()).expect("it was found below the root");
        let left_out = ["benchmarks/runs", "tests/out", "tests/golden"];
        if left_out.iter().any(|prefix| relative.starts_with(prefix)) {
            continue;
        }
        if path.is_dir() {
            collect(&path, sources);
        } else {
            add(&path, sources);
        }
    }
}

fn add(path: &Path, sources: &mut Vec<Source>) {
    let Ok(bytes) = fs::read(path) else { return };
    let Ok(text) = String::from_utf8(bytes) else { return };
    let relative = path.strip_prefix(root()).expect("it was found below the root");
    let relative = relative.to_str().expect("our own names are UTF-8");
    sources.push(Source::new(relative, &text));
}

fn report(rule: &str, findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(findings.is_empty(), "{rule}: {} findings\n{}\n", lines.len(), lines.join("\n"));
}

macro_rules! rule_tests {
    ($($name:ident = $rule:path;)*) => {
        $(#[test]
        fn $name() {
            report(stringify!($name), &$rule(&tree()));
        })*
    };
}

rule_tests! {
    imports_point_down = arrows::imports_point_down;
    siblings_respect_their_order = arrows::siblings_respect_their_order;
    no_import_slips_past_the_arrows = arrows::no_slippery_imports;
    unsafe_stays_in_its_five_files = rules::unsafe_stays_home;
    fuser_and_errno_have_one_file_each = rules::fuser_and_errno_stay_home;
    locks_come_from_base_sync = rules::locks_stay_home;
    environment_is_handed_in = rules::environment_is_handed_in;
    no_unwrap_outside_tests = rules::no_unwrap_outside_tests;
    every_file_says_why_it_exists = rules::opens_with_its_why;
    files_are_one_sitting = rules::files_are_short;
    characters_are_plain = rules::characters_are_plain;
    open_ends_have_an_issue = rules::open_ends_have_an_issue;
    ignored_tests_say_why = rules::ignored_tests_say_why;
    skips_are_counted = rules::skips_are_counted;
    words_speak_of_the_project = rules::words_speak_of_the_project;
    links_in_docs_resolve = rules::links_resolve;
    scripts_stop_at_errors = rules::scripts_stop_at_errors;
    what_semantics_promise_is_tested = quotes::semantics_are_tested;
}

#[test]
fn every_invariant_and_rule_is_named_in_code_and_tests() {
    report("named rules", &rules::named_rules(&tree(), rules::NOT_IN_CODE, rules::NOT_IN_TESTS));
}

#[test]
fn each_rule_catches_its_planted_violation() {
    planted::check();
}
