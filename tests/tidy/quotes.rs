//! What docs/semantics.md promises is tested: every paragraph below a heading, and every point of a list, is
//! quoted from its beginning by a test, in a line of the test's documentation:
//!
//!     /// docs/semantics.md: "All calls on one mount"
//!
//! And what is quoted stands there: a promise that changes takes its test along.

use super::{Finding, Source};

const DOCUMENT: &str = "docs/semantics.md";
/// Lines between a quote and its `#[test]`.
const NEAR: usize = 6;
/// A shorter quote could stand anywhere.
const LEAST: usize = 12;

/// See the module's text.
pub fn semantics_are_tested(sources: &[Source]) -> Vec<Finding> {
    let document = sources.iter().find(|source| source.path == DOCUMENT);
    let paragraphs = document.map(paragraphs).unwrap_or_default();
    let mut quoted = vec![false; paragraphs.len()];
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        for (line, quote) in quotes(source) {
            let known = paragraphs.iter().position(|(_, text)| text.starts_with(quote));
            match known.filter(|_| quote.len() >= LEAST) {
                Some(known) => quoted[known] = true,
                None => findings.push(Finding::new(
                    source,
                    line,
                    format!("no paragraph of {DOCUMENT} begins with \"{quote}\""),
                )),
            }
        }
    }
    for ((line, text), _) in paragraphs.iter().zip(quoted).filter(|(_, quoted)| !quoted) {
        let begin: String = text.chars().take(60).collect();
        let source = document.expect("paragraphs come from it");
        findings.push(Finding::new(source, *line, format!("no test quotes \"{begin}...\"")));
    }
    findings
}

/// Line and words of every paragraph below a heading of the second level.
fn paragraphs(source: &Source) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let (mut begun, mut inside) = (false, false);
    for (index, line) in source.text.lines().enumerate() {
        if line.starts_with('#') {
            begun |= line.starts_with("## ");
            inside = false;
        } else if line.trim().is_empty() {
            inside = false;
        } else if begun {
            let point = line.strip_prefix("- ");
            if point.is_some() || !inside {
                found.push((index + 1, String::new()));
            }
            let text = &mut found.last_mut().expect("one was just begun").1;
            for word in point.unwrap_or(line).split_whitespace() {
                if !text.is_empty() {
                    text.push(' ');
                }
                text.push_str(word);
            }
            inside = true;
        }
    }
    found
}

/// Line and words of every quote that documents a test.
fn quotes(source: &Source) -> Vec<(usize, &str)> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(rest) = line.trim_start().strip_prefix("/// docs/semantics.md: \"") else {
            continue;
        };
        let near = lines[index..].iter().take(NEAR);
        if let (Some((quote, _)), true) =
            (rest.rsplit_once('"'), near.into_iter().any(|line| line.trim() == "#[test]"))
        {
            found.push((index + 1, quote));
        }
    }
    found
}
