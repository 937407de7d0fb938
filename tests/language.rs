//! Plain English in what people read: patterns that the style page forbids do not come back.

use std::fs;
use std::path::Path;

use super::{is_test, sources};

/// Where messages and doc comments are.
const ROOTS: [&str; 3] = ["src", "partitioning/src", "qemu/src"];

/// How the first line of a doc comment must not begin: it has to make sense alone.
const DANGLING: [&str; 5] = ["The same", "Those ", "These ", "Of ", "It "];

#[test]
fn message_says_it_in_plain_english() {
    let mut wrong = Vec::new();
    for (path, text) in shipped() {
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            if !code.starts_with("//")
                && let Some(reason) = strings(code).iter().find_map(|string| objection(string))
            {
                wrong.push(format!("{}:{}: {reason}: {code}", path, number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn first_line_of_doc_comment_stands_alone() {
    let mut wrong = Vec::new();
    for (path, text) in shipped() {
        let mut before = "";
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.starts_with("///") && !before.starts_with("///") {
                let said = line.trim_start_matches('/').trim_start();
                if DANGLING.iter().any(|start| said.starts_with(start)) || said == "It." {
                    wrong.push(format!("{}:{}: {line}", path, number + 1));
                }
            }
            before = line;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn objection_is_raised_to_old_habits_only() {
    for bad in [
        "`{kind}` is no partition",
        "the user ann stands twice",
        "{name} is no format: raw and qcow2 are",
        "known formats: {}",
    ] {
        assert!(objection(bad).is_some(), "{bad}");
    }
    for good in ["there is no cache", "`x` is not a size", "expected one of: a, b", "no image here"]
    {
        assert_eq!(objection(good), None, "{good}");
    }
    assert_eq!(strings(r#"bail!("a \"b\" c", 'x', "d")"#), [r#"a \"b\" c"#, "d"]);
}

/// What is wrong with the words of a message, if something is.
fn objection(text: &str) -> Option<&'static str> {
    let no = text.match_indices(" is no ").any(|(at, _)| {
        let there = text[..at].to_lowercase().ends_with("there");
        let rest = &text[at + " is no ".len()..];
        let idiom = ["more", "longer", "other", "place", "room", "reason"];
        !there && !idiom.iter().any(|word| rest.starts_with(word))
    });
    if no {
        return Some("write `is not a`");
    }
    if text.contains(" stands twice") || text.contains(" stand twice") {
        return Some("write `is defined twice`");
    }
    if text.starts_with("known ") && text.contains(": {") {
        return Some("write `expected one of: …`");
    }
    None
}

/// String literals of a line of code, without their quotes.
fn strings(line: &str) -> Vec<&str> {
    let (mut found, mut start, mut escaped) = (Vec::new(), None, false);
    for (at, c) in line.char_indices() {
        match (start, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (None, '"') => start = Some(at + 1),
            (Some(from), '"') => {
                found.push(&line[from..at]);
                start = None;
            }
            _ => {}
        }
    }
    found
}

/// Path and text of each source file, without files of unit tests and without the unit tests at their end.
fn shipped() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for path in ROOTS.iter().flat_map(|root| sources(Path::new(root))).filter(|path| !is_test(path))
    {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path)).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        files.push((path.display().to_string(), text));
    }
    files
}
