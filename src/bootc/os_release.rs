//! `os-release`: what the system is called.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Files;
use crate::error::unsupported;

pub(super) const PATHS: [&str; 2] = ["usr/lib/os-release", "etc/os-release"];

/// All of it; empty: there is none.
pub(super) fn text(files: &Files<'_>) -> Result<String> {
    for path in PATHS {
        if let Some(text) = files.text(path)? {
            return Ok(text);
        }
    }
    Ok(String::new())
}

/// `PRETTY_NAME`, else `ID`.
pub(super) fn title(files: &Files<'_>) -> Result<String> {
    for path in PATHS {
        if let Some(text) = files.text(path)? {
            return value(&text, "PRETTY_NAME").or_else(|| value(&text, "ID")).ok_or_else(|| {
                unsupported(
                    format!("{path} has neither PRETTY_NAME nor ID"),
                    Some("boot entries need a title"),
                )
            });
        }
    }
    Err(unsupported(format!("the image has no {}", PATHS[0]), Some("boot entries need a title")))
}

/// `NAME` and `VERSION_ID`, as installers name what they install; empty where there is none.
pub(super) fn product(files: &Files<'_>) -> Result<(String, String)> {
    for path in PATHS {
        if let Some(text) = files.text(path)? {
            let value = |key| value(&text, key).unwrap_or_default();
            return Ok((value("NAME"), value("VERSION_ID")));
        }
    }
    Ok(Default::default())
}

/// All keys and their values, of the first file that there is.
pub(super) fn all(files: &Files<'_>) -> Result<BTreeMap<String, String>> {
    for path in PATHS {
        let Some(text) = files.text(path)? else { continue };
        let pairs = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let pairs = pairs.filter_map(|line| line.split_once('='));
        return Ok(pairs.map(|(key, value)| (key.to_owned(), unquote(value))).collect());
    }
    Ok(BTreeMap::new())
}

/// The last value of a key. It ends with its line, so it never holds a newline.
fn value(text: &str, key: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))
        .next_back()
        .map(unquote)
        .filter(|value| !value.is_empty())
}

/// What a shell would make of a word: between single quotes everything is literal, between double quotes a backslash protects
/// the four characters that mean something there, elsewhere any.
fn unquote(word: &str) -> String {
    let mut out = String::new();
    let mut quote = None;
    let mut characters = word.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, '"' | '\'') => quote = Some(character),
            (None, '\\') => out.extend(characters.next()),
            (Some('"'), '\\') => match characters.next() {
                Some(next @ ('$' | '`' | '"' | '\\')) => out.push(next),
                next => {
                    out.push('\\');
                    out.extend(next);
                }
            },
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_is_the_shell_s() {
        assert_eq!(unquote(r#""Fedora Linux 44 (\"Forty\")""#), r#"Fedora Linux 44 ("Forty")"#);
        assert_eq!(unquote("'a\\b'"), "a\\b");
        assert_eq!(unquote("plain"), "plain");
        assert_eq!(unquote(r#""a\nb""#), r"a\nb");
        let text = "# PRETTY_NAME=no\nPRETTY_NAME=\"One\"\nPRETTY_NAME_X=2\nID=x\n";
        assert_eq!(value(text, "PRETTY_NAME").as_deref(), Some("One"));
        assert_eq!(value(text, "VERSION"), None);
        assert_eq!(value("PRETTY_NAME=\"\"\n", "PRETTY_NAME"), None);
    }
}
