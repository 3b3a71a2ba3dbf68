//! Just enough of Rust's lexer to tell code from comments and literals, line for line.

/// The text with comments and the insides of string and character literals turned into spaces.
/// Line breaks stay, so line numbers hold.
pub fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let hidden_to = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => Some(line_end(&chars, at)),
            '/' if chars.get(at + 1) == Some(&'*') => Some(comment_end(&chars, at)),
            '"' => Some(string_end(&chars, at)),
            'r' if !is_word_before(&chars, at) => raw_string_end(&chars, at),
            '\'' => char_end(&chars, at),
            _ => None,
        };
        let end = hidden_to.map_or(at + 1, |end| end.min(chars.len()));
        for &c in &chars[at..end] {
            out.push(if hidden_to.is_none() || c == '\n' { c } else { ' ' });
        }
        at = end;
    }
    out
}

/// The line (from 0) on which the file's `#[cfg(test)]` module starts, if there is one.
pub fn test_module_line(code: &str) -> Option<usize> {
    let lines: Vec<&str> = code.lines().collect();
    lines.iter().enumerate().position(|(index, line)| {
        line.trim_start().starts_with("#[cfg(test)]")
            && lines[index + 1..].iter().take(3).any(|next| {
                let next = next.trim_start();
                next.starts_with("mod ") || next.starts_with("pub(crate) mod ")
            })
    })
}

fn is_word_before(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_') && chars[at - 1] != 'b'
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|&c| c == '\n').map_or(chars.len(), |length| at + length)
}

fn comment_end(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut here = at;
    while here + 1 < chars.len() {
        match (chars[here], chars[here + 1]) {
            ('/', '*') => {
                depth += 1;
                here += 2;
            }
            ('*', '/') => {
                depth -= 1;
                here += 2;
                if depth == 0 {
                    return here;
                }
            }
            _ => here += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut here = at + 1;
    while here < chars.len() {
        match chars[here] {
            '\\' => here += 2,
            '"' => return here + 1,
            _ => here += 1,
        }
    }
    chars.len()
}

fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(at + 1 + hashes) != Some(&'"') {
        return None;
    }
    let mut here = at + 2 + hashes;
    while here < chars.len() {
        let closes = chars[here] == '"'
            && chars[here + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes;
        if closes {
            return Some(here + 1 + hashes);
        }
        here += 1;
    }
    Some(chars.len())
}

/// The end of a character literal; None for a lifetime.
fn char_end(chars: &[char], at: usize) -> Option<usize> {
    match chars.get(at + 1)? {
        '\\' => chars[at + 3..].iter().position(|&c| c == '\'').map(|length| at + 4 + length),
        _ => (chars.get(at + 2) == Some(&'\'')).then_some(at + 3),
    }
}

/// The words of a line with the byte position of each: runs of letters, digits and underscores.
pub fn words(line: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut start = None;
    for (index, c) in line.char_indices().chain(std::iter::once((line.len(), ' '))) {
        let part = c.is_alphanumeric() || c == '_';
        match (part, start) {
            (true, None) => start = Some(index),
            (false, Some(from)) => {
                found.push((from, &line[from..index]));
                start = None;
            }
            _ => {}
        }
    }
    found
}

/// Every path of every `use` statement with its line (from 0), brace groups multiplied out:
/// `use a::{b, c::{d, e}};` gives a::b, a::c::d and a::c::e.
pub fn use_paths(code: &str) -> Vec<(usize, Vec<&str>)> {
    let mut found = Vec::new();
    let tokens: Vec<(usize, &str)> = code.lines().enumerate().flat_map(tokens_of).collect();
    let mut index = 0;
    while index < tokens.len() {
        index += 1;
        // `+ use<..>` after a type imports nothing.
        let captures = tokens.get(index).is_some_and(|&(_, token)| token == "<");
        if tokens[index - 1].1 == "use" && !captures {
            index = expand(&tokens, index, &[], &mut found);
        }
    }
    found
}

/// Words, and the punctuation that shapes a `use` statement.
fn tokens_of((line, text): (usize, &str)) -> Vec<(usize, &str)> {
    let words = words(text);
    let mut tokens: Vec<(usize, &str)> = words.clone();
    for (at, c) in text.char_indices() {
        if matches!(c, '{' | '}' | ',' | ';' | '*' | '<') {
            tokens.push((at, &text[at..at + 1]));
        }
    }
    tokens.sort();
    tokens.into_iter().map(|(_, token)| (line, token)).collect()
}

/// Reads one tree of a `use` from `index`; returns where it ends: after `;`, or at `,` or `}`.
fn expand<'a>(
    tokens: &[(usize, &'a str)],
    mut index: usize,
    prefix: &[&'a str],
    found: &mut Vec<(usize, Vec<&'a str>)>,
) -> usize {
    let mut path = prefix.to_vec();
    let mut line = 0;
    let mut grouped = false;
    while let Some(&(here, token)) = tokens.get(index) {
        match token {
            "{" => {
                grouped = true;
                index += 1;
                // An unbalanced group (inside a macro) ends with the statement.
                while tokens.get(index).is_some_and(|&(_, token)| !matches!(token, "}" | ";")) {
                    index = expand(tokens, index, &path, found);
                    if tokens.get(index).is_some_and(|&(_, token)| token == ",") {
                        index += 1;
                    }
                }
                index += 1;
            }
            "," | "}" | ";" => break,
            "as" => index += 2,
            word => {
                path.push(word);
                line = here;
                index += 1;
            }
        }
    }
    if !grouped && path.len() > prefix.len() {
        found.push((line, path));
    }
    if prefix.is_empty() { index + 1 } else { index }
}

#[test]
fn use_statements_are_multiplied_out() {
    let code = "use a::{b,\n c::{d, e}, self};\nuse f::g as h;\n\
        fn user() -> impl I + use<> { i(); }\n";
    let found = use_paths(code);
    let expected: Vec<(usize, Vec<&str>)> = vec![
        (0, vec!["a", "b"]),
        (1, vec!["a", "c", "d"]),
        (1, vec!["a", "c", "e"]),
        (1, vec!["a", "self"]),
        (2, vec!["f", "g"]),
    ];
    assert_eq!(found, expected);
}

#[test]
fn comments_and_literals_are_blanked_line_for_line() {
    let text = "let a = \"x // y\"; // z\n/* b\n*/ let c = 'd'; r#\"e\"f\"#; &'g h;\n";
    let code = code_only(text);
    assert_eq!(code.lines().count(), text.lines().count());
    for hidden in ["x", "y", "z", "b", "d", "e", "f"] {
        assert!(!words(&code).iter().any(|(_, word)| *word == hidden), "{hidden} is hidden");
    }
    for kept in ["a", "c", "g", "h"] {
        assert!(words(&code).iter().any(|(_, word)| *word == kept), "{kept} is code");
    }
}

#[test]
fn a_use_that_is_none_comes_to_an_end() {
    assert_eq!(use_paths("use a::{b; c; d").len(), 1);
    assert!(use_paths("use {;};;} use").is_empty());
}

#[test]
fn the_test_module_is_found() {
    assert_eq!(test_module_line("fn a() {}\n#[cfg(test)]\nmod tests {\n"), Some(1));
    assert_eq!(test_module_line("#[cfg(test)]\nuse x;\nfn a() {}\nfn b() {}\n"), None);
}
