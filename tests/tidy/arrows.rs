//! Who may import whom: the rooms of the house, and the order of modules inside two of them.

use super::lexer::{use_paths, words};
use super::{Finding, Source};

/// Rooms, and what each may import besides itself. `model` never imports what it judges.
const ROOMS: [(&str, &[&str]); 10] = [
    ("cli", &["pool", "control", "format", "base"]),
    ("pool", &["frontend", "services", "control", "namespace", "fleet", "format", "base"]),
    ("frontend", &["namespace", "base"]),
    ("services", &["namespace", "fleet", "format", "base"]),
    ("control", &["services", "namespace", "fleet", "base"]),
    ("namespace", &["fleet", "format", "base"]),
    ("fleet", &["format", "base"]),
    ("format", &["base"]),
    ("model", &["base"]),
    ("base", &[]),
];

/// Modules inside `fleet` from top to bottom, and which siblings each may import besides itself.
const FLEET: [(&str, &[&str]); 15] = [
    (
        "object",
        &[
            "placement",
            "heat",
            "codec",
            "disk",
            "geometry",
            "members",
            "quorum",
            "reports",
            "space",
            "error",
        ],
    ),
    ("journal", &["access", "placement", "heat", "disk", "members", "quorum", "reports", "error"]),
    (
        "checkpoint",
        &["access", "placement", "heat", "disk", "members", "quorum", "reports", "error"],
    ),
    ("access", &["members", "disk", "error"]),
    ("quorum", &["members", "reports", "error"]),
    ("placement", &["space", "heat", "members", "disk", "error"]),
    ("heat", &["members", "disk"]),
    ("members", &["disk", "reports", "error"]),
    ("reports", &["disk", "error"]),
    ("space", &["error"]),
    ("geometry", &[]),
    ("capacity", &[]),
    ("codec", &["error"]),
    ("disk", &[]),
    ("error", &[]),
];

/// In `namespace`, everything may import `index`; `index` knows only these siblings.
const INDEX_MAY: [&str; 2] = ["error", "types"];

/// The module path of a file below src/, as its segments: `src/a/b.rs` and `src/a/b/mod.rs` are a::b.
fn module_of(path: &str) -> Vec<&str> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    path.split('/').filter(|part| *part != "mod").collect()
}

/// Resolves a path that starts with `crate` or `super` to segments from the crate's root; None for
/// any other.
fn resolve<'a>(path: &[&'a str], module: &[&'a str]) -> Option<Vec<&'a str>> {
    let mut resolved: Vec<&str> = match *path.first()? {
        "crate" => Vec::new(),
        "super" if !module.is_empty() => module[..module.len() - 1].to_vec(),
        _ => return None,
    };
    resolved.extend(&path[1..]);
    Some(resolved)
}

/// Every `crate::…` or `super::…` path written out in a line.
fn written_paths<'a>(line: &'a str, module: &[&'a str]) -> Vec<Vec<&'a str>> {
    let words = words(line);
    let mut found = Vec::new();
    for (index, (at, word)) in words.iter().enumerate() {
        let mut path = vec![*word];
        let mut end = at + word.len();
        for (next_at, next) in &words[index + 1..] {
            if line.get(end..*next_at) != Some("::") {
                break;
            }
            path.push(next);
            end = next_at + next.len();
        }
        found.extend(resolve(&path, module));
    }
    found
}

/// Every path of a file, in `use` statements and elsewhere: line from 1, in tests, segments.
fn paths(source: &Source) -> Vec<(usize, bool, Vec<&str>)> {
    let module = module_of(&source.path);
    let mut found = Vec::new();
    for (line, text, in_tests) in source.code_lines() {
        // Inside a test module `super` is the file itself: no import.
        let module: &[&str] = if in_tests { &[] } else { &module };
        found.extend(written_paths(text, module).into_iter().map(|path| (line, in_tests, path)));
    }
    for (index, path) in use_paths(&source.code) {
        let in_tests = index >= source.tests_from;
        let module: &[&str] = if in_tests { &[] } else { &module };
        found.extend(resolve(&path, module).map(|path| (index + 1, in_tests, path)));
    }
    found.sort();
    found.dedup();
    found
}

/// Imports between rooms point down. Tests beside the engine may also look at the model.
pub fn imports_point_down(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_engine()) {
        let module = module_of(&source.path);
        let room = module[0];
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            if !matches!(room, "lib" | "main") {
                findings.push(Finding::new(source, 0, format!("`{room}` is no room of the house")));
            }
            continue;
        };
        for (line, in_tests, path) in paths(source) {
            let Some(target) = path.first().copied() else { continue };
            let known = ROOMS.iter().any(|(name, _)| *name == target);
            let fine = target == room
                || allowed.contains(&target)
                || (in_tests && target == "model" && room != "base");
            if known && !fine {
                let what = format!("`{room}` imports `{target}`: imports point down");
                findings.push(Finding::new(source, line, what));
            }
        }
    }
    findings
}

/// Inside fleet and namespace, siblings keep their order too.
pub fn siblings_respect_their_order(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_engine()) {
        let module = module_of(&source.path);
        let (room, Some(me)) = (module[0], module.get(1).copied()) else { continue };
        let allowed: &[&str] = match room {
            "fleet" => match FLEET.iter().find(|(name, _)| *name == me) {
                Some((_, allowed)) => allowed,
                None => {
                    let what = format!("`fleet::{me}` has no line in the table of arrows");
                    findings.push(Finding::new(source, 0, what));
                    continue;
                }
            },
            "namespace" if me == "index" => &INDEX_MAY,
            _ => continue,
        };
        for (line, in_tests, path) in paths(source) {
            if in_tests || path.first() != Some(&room) {
                continue;
            }
            let Some(target) = path.get(1).copied() else { continue };
            let is_module = target.starts_with(|c: char| c.is_ascii_lowercase());
            let fine = matches!(target, "self") || target == me || allowed.contains(&target);
            if is_module && !fine {
                let what = format!("`{room}::{me}` may not import `{room}::{target}`");
                findings.push(Finding::new(source, line, what));
            }
        }
    }
    findings
}

/// Two ways to import that the scan above would not see.
pub fn no_slippery_imports(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_engine()) {
        for (line, text, in_tests) in source.code_lines() {
            let dense: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
            if dense.contains("use crate::{") || dense.contains("use super::{super") {
                findings.push(Finding::new(source, line, "name the room: `use crate::room::…`"));
            }
            if dense.contains("super::super") && !in_tests {
                findings.push(Finding::new(source, line, "`super::super` hides which room it is"));
            }
        }
    }
    findings
}

#[test]
fn paths_are_resolved() {
    let module = module_of("src/fleet/object/writer.rs");
    assert_eq!(module, ["fleet", "object", "writer"]);
    assert_eq!(
        written_paths("use super::read_plan::Plan;", &module),
        [["fleet", "object", "read_plan", "Plan"]]
    );
    assert_eq!(written_paths("x(crate::base::Lsn(1))", &module), [["base", "Lsn"]]);
    assert_eq!(module_of("src/fleet/mod.rs"), ["fleet"]);
}
