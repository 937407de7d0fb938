//! Everything that the command prints passes through here, so that no image, disk or registry can speak to the terminal.
//!
//! Labels, versions, tags, paths and console lines come from strangers. A terminal would obey the escape sequences in them, and
//! a line break in them could pass for a line of ours. So characters that are not shown as themselves are printed as `\u{1b}`.
//! In text, they and line breaks become visible; in JSON, they become escapes that every reader undoes.
//!
//! Nothing here panics when nobody reads: standard error may be a closed pipe or on a full disk.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

use anyhow::{Context, Result};
use serde::Serialize;

/// Characters of one value that are printed in text. A kernel takes command lines of at most half of this.
const LONGEST: usize = 8192;

/// Prints a message on standard error, as `eprintln!` does, but filtered, and without a panic when it cannot be written.
macro_rules! say {
    ($($message:tt)*) => { $crate::cli::say::message(&format!($($message)*)) };
}
pub(crate) use say;

/// Prints a message on standard error. Lines after its first are indented, so that none of them passes for a message.
pub(crate) fn message(text: &str) {
    // Together, so that lines of several threads do not mix; and if nobody listens, the work goes on.
    let _ = io::stderr().lock().write_all(format!("{}\n", indented(text)).as_bytes());
}

/// A message without what terminals act on, its lines after the first indented by two spaces.
pub(crate) fn indented(text: &str) -> String {
    let lines: Vec<_> = text.trim_end_matches('\n').split('\n').map(|part| line(part)).collect();
    lines.join("\n  ")
}

/// A value as one line of text: what terminals act on becomes visible, and what is too long is cut.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    let cut = text.char_indices().nth(LONGEST).map_or(text, |(end, _)| &text[..end]);
    if cut.len() == text.len() && !text.chars().any(is_active) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(cut.len());
    for c in cut.chars() {
        if is_active(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    if cut.len() < text.len() {
        shown.push_str(&format!("… ({} bytes more)", text.len() - cut.len()));
    }
    Cow::Owned(shown)
}

/// Whether a terminal does something at a character other than showing it: control characters (Unicode's Cc), and those that
/// change the direction of text, break lines or are not seen (Zl, Zp and Cf without the soft hyphen).
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Text for standard output, built line by line. A value cannot end its line.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    /// Adds a line.
    pub(crate) fn line(&mut self, text: impl fmt::Display) {
        self.0.push_str(&line(&text.to_string()));
        self.0.push('\n');
    }

    /// Adds an empty line.
    pub(crate) fn blank(&mut self) {
        self.0.push('\n');
    }

    /// Adds lines that are laid out already and end with a newline; values in them have no line breaks of their own.
    pub(crate) fn lines(&mut self, text: &str) {
        text.lines().for_each(|line| self.line(line));
    }

    /// What was added.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

/// Prints text on standard output: lines of ours, whose values went through a [`Page`] or [`line`].
pub(crate) fn print(text: &str, what: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).with_context(|| what.to_owned())
}

/// Prints a value as a JSON document on standard output.
pub(crate) fn print_json(value: &impl Serialize, what: &str) -> Result<()> {
    let text = serde_json::to_string_pretty(value).with_context(|| what.to_owned())?;
    print(&format!("{}\n", json(&text)), what)
}

/// JSON in which characters that terminals act on are escapes. It means the same: only strings can have such characters, except
/// for the line breaks between values.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    let escaped = |c: char| is_active(c) && c != '\n';
    if !text.contains(escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if escaped(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Where log lines go: standard error, by way of the filter.
#[derive(Debug)]
pub(crate) struct Log;

impl Write for Log {
    /// An event comes in one piece.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        message(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_shows_what_a_terminal_would_obey() {
        assert_eq!(line("6.17.1-300.fc43 ü €"), "6.17.1-300.fc43 ü €");
        assert_eq!(line("a\u{1b}]0;owned\u{7}b"), "a\\u{1b}]0;owned\\u{7}b");
        assert_eq!(line("1\nerror: no\r\t\u{9b}2J\u{7f}"), "1\\nerror: no\\r\\t\\u{9b}2J\\u{7f}");
        assert_eq!(line("\u{202e}gpj.exe\u{2069}"), "\\u{202e}gpj.exe\\u{2069}");
        let long = "é".repeat(LONGEST + 3);
        assert_eq!(line(&long), format!("{}… (6 bytes more)", "é".repeat(LONGEST)));
    }

    #[test]
    fn message_with_line_breaks_forges_no_second_message() {
        assert_eq!(indented("reading x\nerror: no\n"), "reading x\n  error: no");
        assert_eq!(indented("a\r\nhint: \u{1b}[2J"), "a\\r\n  hint: \\u{1b}[2J");
    }

    #[test]
    fn page_value_stays_on_its_line() {
        let mut page = Page::default();
        page.line(format_args!("{:<6} {}", "label", "x\nsha256 0"));
        page.lines("a\nb\n");
        assert_eq!(page.into_text(), "label  x\\nsha256 0\na\nb\n");
    }

    #[test]
    fn json_means_the_same_and_is_harmless() {
        let value = serde_json::json!({"a\u{9b}": ["\u{7f}\u{202e}x\n", "\u{e0041}"]});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let safe = json(&text);
        assert!(safe.chars().all(|c| c == '\n' || !is_active(c)), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }
}
