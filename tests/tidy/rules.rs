//! The rules that look at one thing at a time.

use std::collections::BTreeSet;

use super::lexer::words;
use super::{Finding, Source, root};

/// The only files that may contain `unsafe`.
const UNSAFE_FILES: [&str; 5] = [
    "src/fleet/disk/uring.rs",
    "src/fleet/disk/buffer.rs",
    "src/fleet/disk/probe.rs",
    "src/fleet/codec/x86.rs",
    "src/fleet/codec/aarch64.rs",
];

/// Files that talk to the kernel about disks and mounts, and so see its error numbers. What the
/// engine's callers get to see is decided in `frontend/errno.rs` alone.
const KERNEL_FILES: [&str; 4] =
    ["src/frontend/errno.rs", "src/fleet/disk/uring.rs", "src/fleet/disk/probe.rs", "src/cli/"];

/// Lines of a file, tests included, above which it is no longer one sitting.
const LINES_MAX: usize = 800;

/// Characters beyond ASCII that the sources may use.
const CHARACTERS: &str = "\u{2016}\u{d7}\u{f7}\u{b7}\u{b5}\u{b1}\u{b2}\u{2076}\u{2077}\u{2078}\
    \u{2081}\u{2082}\u{2211}\u{2212}\u{2013}\u{2014}\u{2026}\u{2190}\u{2192}\u{2260}\u{2264}\
    \u{2265}\u{2308}\u{2309}\u{2032}\u{3a3}\u{2243}\u{2248}";

/// Box-drawing characters, for the drawings in documents and file heads.
const DRAWING: std::ops::RangeInclusive<char> = '\u{2500}'..='\u{25ff}';

/// Invariants and rules that no code names yet. This list only shrinks.
pub const NOT_IN_CODE: &[&str] = &["R14", "R25"];

/// Invariants and rules that no test names yet. This list only shrinks.
pub const NOT_IN_TESTS: &[&str] = &["I10", "R8", "R25"];

fn lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source.text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn has_word(line: &str, wanted: &str) -> bool {
    words(line).iter().any(|(_, word)| *word == wanted)
}

/// `unsafe` stands in five files and nowhere else.
pub fn unsafe_stays_home(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        if UNSAFE_FILES.contains(&source.path.as_str()) {
            continue;
        }
        for (line, text, _) in source.code_lines() {
            if has_word(text, "unsafe") || has_word(text, "unsafe_code") {
                let what = "`unsafe` belongs into its five files only (docs/style.md, 15)";
                findings.push(Finding::new(source, line, what));
            }
        }
    }
    findings
}

fn is_errno(word: &str) -> bool {
    const NUMBERS: [&str; 32] = [
        "EPERM",
        "ENOENT",
        "EINTR",
        "EIO",
        "ENXIO",
        "EBADF",
        "EAGAIN",
        "ENOMEM",
        "EACCES",
        "EBUSY",
        "EEXIST",
        "EXDEV",
        "ENODEV",
        "ENOTDIR",
        "EISDIR",
        "EINVAL",
        "ENOTTY",
        "EFBIG",
        "ENOSPC",
        "EROFS",
        "EMLINK",
        "ERANGE",
        "ENAMETOOLONG",
        "ENOSYS",
        "ENOTEMPTY",
        "ELOOP",
        "ENODATA",
        "EOVERFLOW",
        "EOPNOTSUPP",
        "ENOTSUP",
        "ETIMEDOUT",
        "ENOTCONN",
    ];
    NUMBERS.contains(&word)
}

/// Only `fuse.rs` names fuser, only `errno.rs` decides on error numbers.
pub fn fuser_and_errno_stay_home(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_engine()) {
        let kernel = KERNEL_FILES.iter().any(|path| source.path.starts_with(path));
        for (line, text, in_tests) in source.code_lines() {
            if has_word(text, "fuser") && source.path != "src/frontend/fuse.rs" {
                findings.push(Finding::new(source, line, "only frontend/fuse.rs names fuser"));
            }
            let named = words(text).into_iter().find(|(_, word)| is_errno(word));
            if let (Some((_, word)), false, false) = (named, kernel, in_tests) {
                let what = format!("`{word}`: only frontend/errno.rs names error numbers");
                findings.push(Finding::new(source, line, what));
            }
        }
    }
    findings
}

/// Locks, atomics and channels come from base/sync.rs, so that schedules can be explored.
pub fn locks_stay_home(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_engine()) {
        if source.path == "src/base/sync.rs" {
            continue;
        }
        for (line, text, _) in source.code_lines() {
            let foreign =
                ["std::sync", "core::sync", "parking_lot", "crossbeam_channel", "shuttle"];
            // `nix::unistd::syncfs` is none of them.
            let text = text.replace("unistd::", "");
            if let Some(name) = foreign.iter().find(|name| text.contains(**name)) {
                let cfg = text.trim_start().starts_with("#[cfg");
                if !cfg {
                    let what = format!("`{name}`: locks and atomics come from base/sync.rs");
                    findings.push(Finding::new(source, line, what));
                }
            }
        }
    }
    findings
}

/// The engine reads no environment: what it depends on is handed in.
pub fn environment_is_handed_in(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_engine()) {
        let outer = ["src/main.rs", "src/cli/", "src/pool/"];
        if outer.iter().any(|path| source.path.starts_with(path)) {
            continue;
        }
        for (line, text, in_tests) in source.code_lines() {
            if !in_tests && (text.contains("env::var") || text.contains("env::args")) {
                findings.push(Finding::new(source, line, "the environment is handed in by pool"));
            }
        }
    }
    findings
}

/// `unwrap` is for tests; `expect` says why it cannot happen.
pub fn no_unwrap_outside_tests(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_engine()) {
        for (line, text, in_tests) in source.code_lines() {
            if in_tests {
                continue;
            }
            if text.contains(".unwrap()") {
                findings.push(Finding::new(source, line, "use `expect` and say why it holds"));
            }
            if let Some(word) =
                ["todo!", "unimplemented!", "dbg!"].iter().find(|word| text.contains(**word))
            {
                findings.push(Finding::new(source, line, format!("`{word}` is unfinished work")));
            }
        }
    }
    findings
}

/// Every Rust file opens with why it exists.
pub fn opens_with_its_why(sources: &[Source]) -> Vec<Finding> {
    let rust = sources.iter().filter(|source| source.is_rust());
    rust.filter(|source| {
        let first = source.text.lines().find(|line| {
            !line.trim().is_empty() && !line.starts_with("#![") && !line.starts_with("// SPDX")
        });
        !first.is_some_and(|line| line.starts_with("//!"))
    })
    .map(|source| Finding::new(source, 1, "open the file with `//!`: why it exists"))
    .collect()
}

/// A file is one sitting.
pub fn files_are_short(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| !source.path.ends_with(".md")) {
        let count = source.text.lines().count();
        if count > LINES_MAX {
            let what = format!("{count} lines; above {LINES_MAX} a file is split");
            findings.push(Finding::new(source, 0, what));
        }
    }
    findings
}

/// ASCII, a short list of signs, and box drawing.
pub fn characters_are_plain(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        for (line, text) in lines(source) {
            let foreign = text
                .chars()
                .find(|c| !c.is_ascii() && !CHARACTERS.contains(*c) && !DRAWING.contains(c));
            if let Some(c) = foreign {
                let what = format!("character U+{:04X} is not on the list", c as u32);
                findings.push(Finding::new(source, line, what));
            }
            if text.contains('\t') && !source.path.ends_with(".md") {
                findings.push(Finding::new(source, line, "a tab: use spaces"));
            }
        }
    }
    findings
}

/// An open end names its issue: `TODO(#12)`.
pub fn open_ends_have_an_issue(sources: &[Source]) -> Vec<Finding> {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut findings = Vec::new();
    for source in sources {
        for (line, text) in lines(source) {
            for (at, word) in words(text) {
                let rest = &text[at + word.len()..];
                if marks.contains(&word) && !rest.starts_with("(#") {
                    findings.push(Finding::new(source, line, format!("`{word}` without an issue")));
                }
            }
        }
    }
    findings
}

/// A test that is not always run says why.
pub fn ignored_tests_say_why(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        for (line, text, _) in source.code_lines() {
            if text.trim_start().starts_with("#[ignore]") {
                findings.push(Finding::new(source, line, "say why: `#[ignore = \"…\"]`"));
            }
        }
    }
    findings
}

/// What does not run says so in the words that `tests/run` counts.
pub fn skips_are_counted(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let told =
        [concat!("println!(\"", "skip"), concat!("echo \"", "skip"), concat!("say \"", "skip")];
    for source in sources.iter().filter(|source| !source.path.ends_with(".md")) {
        for (line, text) in (1..).zip(source.text.lines()) {
            let small = text.to_ascii_lowercase();
            let Some(at) = told.iter().find_map(|words| Some(small.find(words)? + words.len()))
            else {
                continue;
            };
            if !text[at - 4..].starts_with("skipped: ") {
                findings.push(Finding::new(source, line, "begin the line with `skipped: `"));
            }
        }
    }
    findings
}

/// The repository speaks of the project, not of the place or the hands it was made with.
pub fn words_speak_of_the_project(sources: &[Source]) -> Vec<Finding> {
    let banned = [
        concat!("/wo", "rk/"),
        concat!("work", "tree"),
        concat!("suba", "gent"),
        concat!("sub-a", "gent"),
        concat!("co-", "authored-by"),
        concat!("language ", "model"),
        concat!("CONTRACT", ".md"),
        concat!("/ro", "ot/"),
    ];
    let banned_words = [concat!("age", "nt"), concat!("age", "nts"), concat!("assis", "tant")];
    let mut findings = Vec::new();
    for source in sources {
        for (line, text) in lines(source) {
            let lower = text.to_lowercase();
            let part = banned.iter().find(|part| lower.contains(&part.to_lowercase()));
            let word = banned_words.iter().find(|word| has_word(&lower, word));
            if let Some(found) = part.or(word) {
                findings.push(Finding::new(
                    source,
                    line,
                    format!("`{found}` is not of the project"),
                ));
            }
        }
    }
    findings
}

/// Relative links in Markdown lead somewhere.
pub fn links_resolve(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".md")) {
        let directory = match source.path.rsplit_once('/') {
            Some((directory, _)) => root().join(directory),
            None => root(),
        };
        for (line, text) in lines(source) {
            for link in links(text) {
                let path = link.split('#').next().unwrap_or_default();
                let outside = link.contains("://") || link.starts_with("mailto:");
                if !outside && !path.is_empty() && !directory.join(path).exists() {
                    findings.push(Finding::new(source, line, format!("`{link}` leads nowhere")));
                }
            }
        }
    }
    findings
}

fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("](") {
        rest = &rest[at + 2..];
        if let Some(end) = rest.find(')') {
            found.push(rest[..end].trim());
            rest = &rest[end..];
        }
    }
    found
}

/// Shell scripts stop at the first error and at unset names.
pub fn scripts_stop_at_errors(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.text.starts_with("#!")) {
        let first = source.text.lines().next().unwrap_or_default();
        let shell = first.ends_with("/sh") || first.ends_with("bash");
        let strict = source
            .text
            .lines()
            .any(|line| line.starts_with("set -eu") || line.starts_with("set -euo pipefail"));
        if shell && !strict {
            findings.push(Finding::new(source, 1, "a script starts with `set -eu`"));
        }
    }
    findings
}

fn all_names() -> Vec<String> {
    let invariants = (1..=10).map(|number| format!("I{number}"));
    invariants.chain((1..=27).map(|number| format!("R{number}"))).collect()
}

/// Every invariant I1–I10 and rule R1–R27 of docs/ARCHITECTURE.md is named by code and by a test,
/// except those on the two lists, which only shrink.
pub fn named_rules(
    sources: &[Source],
    not_in_code: &[&str],
    not_in_tests: &[&str],
) -> Vec<Finding> {
    let mut code = BTreeSet::new();
    let mut tests = BTreeSet::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        if source.path.starts_with("tests/tidy") {
            continue;
        }
        for (line, text) in lines(source) {
            let target = if line > source.tests_from { &mut tests } else { &mut code };
            target.extend(words(text).into_iter().map(|(_, word)| word.to_string()));
        }
    }
    let mut findings = Vec::new();
    for (named, missing, place) in [(&code, not_in_code, "code"), (&tests, not_in_tests, "test")] {
        for name in all_names() {
            let what = match (named.contains(&name), missing.contains(&name.as_str())) {
                (false, false) => format!("no {place} names {name}"),
                (true, true) => format!("a {place} names {name} now: take it off the list"),
                _ => continue,
            };
            let path = "tests/tidy/rules.rs".to_string();
            findings.push(Finding { path, line: 0, what });
        }
    }
    findings
}
