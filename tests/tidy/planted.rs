//! One violation of every rule, and the proof that the rule sees it, at its line and only there.

use super::{Finding, Source, arrows, quotes, rules};

type Rule = fn(&[Source]) -> Vec<Finding>;

/// A rule, a path, a text that breaks the rule, and the line where it does; the last text is close
/// to a violation and must pass.
struct Plant {
    rule: Rule,
    path: &'static str,
    broken: String,
    line: usize,
    sound: &'static str,
}

fn plant(rule: Rule, path: &'static str, broken: &str, line: usize, sound: &'static str) -> Plant {
    Plant { rule, path, broken: broken.to_string(), line, sound }
}

#[allow(clippy::too_many_lines, reason = "a list: one entry a rule")]
fn plants() -> Vec<Plant> {
    let many = "x\n".repeat(801);
    let mark = concat!("//! a\n\n// TO", "DO later\n");
    let place = concat!("//! a\n// see /wo", "rk/main\n");
    vec![
        plant(
            arrows::imports_point_down,
            "src/fleet/disk/uring.rs",
            "//! a\nuse crate::base::Lsn;\nuse crate::namespace::Attr;\n",
            3,
            "//! [`crate::namespace`]\nuse crate::base::Lsn;\n",
        ),
        plant(
            arrows::imports_point_down,
            "src/model/pool.rs",
            "fn a() {\n    let b = crate::fleet::Space::new();\n}\n",
            2,
            "use crate::base::Lsn;\n",
        ),
        plant(arrows::imports_point_down, "src/attic/mod.rs", "//! a\n", 0, ""),
        plant(
            arrows::siblings_respect_their_order,
            "src/fleet/disk/queue.rs",
            "use crate::fleet::{\n    object::Writer,\n    disk::Request,\n};\n",
            2,
            "use super::Request;\n",
        ),
        plant(
            arrows::siblings_respect_their_order,
            "src/fleet/space.rs",
            "use super::members::Members;\n",
            1,
            "#[cfg(test)]\nmod tests {\n    use super::*;\n}\n",
        ),
        plant(
            arrows::siblings_respect_their_order,
            "src/namespace/index/mod.rs",
            "use crate::namespace::write_buffer::Range;\n",
            1,
            "use crate::fleet::journal::Journal;\n",
        ),
        plant(
            arrows::no_slippery_imports,
            "src/pool/open.rs",
            "use crate::{fleet, base};\n",
            1,
            "use crate::fleet::{Members, Space};\n",
        ),
        plant(
            arrows::no_slippery_imports,
            "src/fleet/object/cell.rs",
            "\nuse super::super::space;\n",
            2,
            "use super::cell;\n",
        ),
        plant(
            rules::unsafe_stays_home,
            "src/fleet/disk/queue.rs",
            "fn a() {\n    unsafe { b() }\n}\n",
            2,
            "// unsafe is a word here\nlet unsafety = \"unsafe\";\n",
        ),
        plant(
            rules::fuser_and_errno_stay_home,
            "src/frontend/session.rs",
            "use fuser::Session;\n",
            1,
            "// fuser\n",
        ),
        plant(
            rules::fuser_and_errno_stay_home,
            "src/namespace/dir.rs",
            "fn a() -> i32 {\n    libc::ENOENT\n}\n",
            2,
            "fn a() -> Result<(), Eio> {}\n",
        ),
        plant(
            rules::locks_stay_home,
            "src/fleet/space.rs",
            "use std::sync::Mutex;\n",
            1,
            "use crate::base::sync::Mutex;\n",
        ),
        plant(
            rules::environment_is_handed_in,
            "src/fleet/space.rs",
            "let a = std::env::var(\"A\");\n",
            1,
            "",
        ),
        plant(
            rules::no_unwrap_outside_tests,
            "src/fleet/space.rs",
            "fn a() {\n    b().unwrap();\n}\n",
            2,
            "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { c().unwrap(); }\n}\n",
        ),
        plant(
            rules::opens_with_its_why,
            "src/fleet/space.rs",
            "use a;\n",
            1,
            "#![allow(unsafe_code)]\n//! why\n",
        ),
        plant(rules::files_are_short, "src/fleet/space.rs", &many, 0, "//! short\n"),
        plant(
            rules::characters_are_plain,
            "src/fleet/space.rs",
            "//! a\n// \u{201c}quoted\u{201d}\n",
            2,
            "// k \u{d7} 2 MiB\n",
        ),
        plant(rules::open_ends_have_an_issue, "src/fleet/space.rs", mark, 3, "//! TODOs\n"),
        plant(
            rules::ignored_tests_say_why,
            "tests/engine.rs",
            "#[test]\n#[ignore]\nfn a() {}\n",
            2,
            "#[ignore = \"takes an hour\"]\n",
        ),
        plant(
            rules::skips_are_counted,
            "tests/mount.rs",
            concat!("fn a() {\n    eprintln!(\"", "SKIPPED: why\");\n}\n"),
            2,
            concat!("    eprintln!(\"", "skipped: why\");\n"),
        ),
        plant(rules::words_speak_of_the_project, "src/lib.rs", place, 2, "//! hard work/rest\n"),
        plant(
            rules::links_resolve,
            "docs/testing.md",
            "# a\n[b](nowhere.md)\n",
            2,
            "[c](../Cargo.toml) [d](https://example.org/x.md) [e](#a)\n",
        ),
        plant(
            rules::scripts_stop_at_errors,
            "tests/run",
            "#!/usr/bin/env bash\necho a\n",
            1,
            "#!/bin/sh\nset -eu\n",
        ),
        plant(
            quotes::semantics_are_tested,
            "docs/semantics.md",
            "# A\n\nb\n\n## C\n\nA promise\nof two lines.\n",
            7,
            "# A\n\nb\n\n## C\n",
        ),
        plant(
            quotes::semantics_are_tested,
            "tests/mount/a.rs",
            concat!("/// docs/", "semantics.md: \"A promise that is gone\"\n#[test]\nfn a() {}\n"),
            1,
            concat!("/// docs/", "semantics.md: what it is\n#[test]\nfn a() {}\n"),
        ),
    ]
}

/// Fails if a rule misses its violation, finds it elsewhere, or cries over sound text.
pub fn check() {
    for plant in plants() {
        let findings = (plant.rule)(&[Source::new(plant.path, &plant.broken)]);
        assert!(
            findings.iter().any(|finding| finding.line == plant.line),
            "planted in {} at line {}, found {findings:?}",
            plant.path,
            plant.line
        );
        assert!(
            findings.iter().all(|finding| finding.line == plant.line),
            "only there: {findings:?}"
        );
        if !plant.sound.is_empty() {
            let findings = (plant.rule)(&[Source::new(plant.path, plant.sound)]);
            assert!(findings.is_empty(), "sound text in {}: {findings:?}", plant.path);
        }
    }
    named();
}

/// The list of named rules has two ways to be wrong.
fn named() {
    let every: Vec<String> = (1..=10)
        .map(|number| format!("[I{number}]"))
        .chain((1..=27).map(|number| format!("[R{number}]")))
        .collect();
    let code = Source::new("src/a.rs", &format!("//! {}", every.join(" ")));
    let most = format!("//! {}", every[1..].join(" "));
    let tests = Source::new("tests/a.rs", &most);
    let sources = [code, tests];
    assert_eq!(rules::named_rules(&sources, &[], &["I1"]), []);
    let missing = rules::named_rules(&sources, &[], &[]);
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert!(missing[0].what.contains("I1"), "{missing:?}");
    let grown = rules::named_rules(&sources, &["R7"], &["I1"]);
    assert_eq!(grown.len(), 1, "{grown:?}");
    assert!(grown[0].what.contains("R7"), "{grown:?}");
}
