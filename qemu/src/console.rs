//! A serial console: bytes with escape sequences in, lines of text with times out.

use std::collections::VecDeque;
use std::time::Duration;

/// Longer lines are broken: a machine that repeats one character for ever must not fill our memory. A guest's report may
/// come this way, and its lines are up to 80,000 characters long.
const LONGEST_LINE: usize = 100_000;

/// How many lines are remembered; the evidence directory has them all.
const REMEMBERED: usize = 100;

/// A line as it would be read on a screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// When it was finished, since the machine was switched on.
    pub(crate) at: Duration,
    /// Its text, without control characters and never empty.
    pub(crate) text: String,
}

/// The state of the terminal.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and an intermediate byte such as `(`: one byte follows.
    Designation,
    /// After `ESC [`: parameters up to a letter.
    Control,
    /// After `ESC ]` and the like: a string up to BEL or `ESC \`.
    String,
}

/// A console that is being read.
#[derive(Debug, Default)]
pub(crate) struct Console {
    state: State,
    unfinished: Vec<u8>,
    lines: VecDeque<Line>,
}

impl Console {
    /// Takes bytes that arrived at a time; gives the lines they finish.
    pub(crate) fn feed(&mut self, at: Duration, bytes: &[u8]) -> Vec<Line> {
        let mut finished = Vec::new();
        for &byte in bytes {
            if self.ends_line(byte) {
                finished.extend(self.finish(at));
            }
        }
        finished
    }

    /// What the unfinished line reads so far: a prompt, for instance.
    pub(crate) fn partial(&self) -> String {
        text(&self.unfinished)
    }

    /// Ends the unfinished line, as when the machine is switched off.
    pub(crate) fn finish(&mut self, at: Duration) -> Option<Line> {
        let line = Line { at, text: text(&std::mem::take(&mut self.unfinished)) };
        if line.text.is_empty() {
            return None;
        }
        if self.lines.len() == REMEMBERED {
            self.lines.pop_front();
        }
        self.lines.push_back(line.clone());
        Some(line)
    }

    /// The last lines, with the unfinished one.
    pub(crate) fn tail(&self, count: usize) -> Vec<String> {
        let partial = Some(self.partial()).filter(|partial| !partial.is_empty());
        let all: Vec<String> =
            self.lines.iter().map(|line| line.text.clone()).chain(partial).collect();
        all[all.len().saturating_sub(count)..].to_vec()
    }

    /// One byte on; true if it ends a line. What moves the cursor ends a line too: what follows stands somewhere else.
    fn ends_line(&mut self, byte: u8) -> bool {
        let (state, ends) = match (self.state, byte) {
            (State::String, 0x07) => (State::Text, false),
            (_, 0x1b) => (State::Escape, false),
            (State::Text, b'\n' | b'\r') => (State::Text, true),
            (State::Text, b'\t') => {
                self.unfinished.push(b' ');
                (State::Text, false)
            }
            (State::Text, 0..=0x1f | 0x7f) => (State::Text, false),
            (State::Text, _) => {
                self.unfinished.push(byte);
                (State::Text, self.unfinished.len() >= LONGEST_LINE)
            }
            (State::Escape, b'[') => (State::Control, false),
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => (State::String, false),
            (State::Escape, b' '..=b'/') => (State::Designation, false),
            (State::Escape, b'c') => (State::Text, true),
            (State::Escape | State::Designation, _) => (State::Text, false),
            (State::Control, b'A' | b'B' | b'E' | b'F' | b'H' | b'J' | b'd' | b'f') => {
                (State::Text, true)
            }
            (State::Control, 0x40..=0x7e) => (State::Text, false),
            (State::Control, _) => (State::Control, false),
            (State::String, _) => (State::String, false),
        };
        self.state = state;
        ends
    }
}

fn text(bytes: &[u8]) -> String {
    // GRUB frames its menu in bytes that are no UTF-8.
    let frame = |c: char| c.is_whitespace() || c == char::REPLACEMENT_CHARACTER;
    String::from_utf8_lossy(bytes).trim_matches(frame).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> (Vec<String>, String) {
        let mut console = Console::default();
        let lines = console.feed(Duration::ZERO, bytes).into_iter().map(|line| line.text).collect();
        (lines, console.partial())
    }

    #[test]
    fn escape_sequences_are_not_text() {
        let (lines, partial) = lines(b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS\r\n\x1b]0;title\x07\x1b(B[\x1b[32m  OK  \x1b[0m] up\nShell> ");
        assert_eq!(lines, ["SeaBIOS", "[  OK  ] up"]);
        assert_eq!(partial, "Shell>");
    }

    #[test]
    fn what_stands_elsewhere_is_another_line() {
        assert_eq!(lines(b"one\x1b[02;01Htwo\rthree\x1b[1mfour\n").0, ["one", "two", "threefour"]);
    }

    #[test]
    fn frames_are_not_text() {
        assert_eq!(lines(b"\xda\xc4\xc4\xc4\n\xb3 Linux \xb3\n").0, ["Linux"]);
    }

    #[test]
    fn memory_is_bounded_and_nothing_panics() {
        let mut console = Console::default();
        console.feed(Duration::ZERO, &vec![b'x'; 10_000_000]);
        assert!(console.lines.len() <= REMEMBERED && console.unfinished.len() < LONGEST_LINE);
        for first in 0..=255 {
            for second in 0..=255 {
                console.feed(Duration::ZERO, &[0x1b, first, second, b'\n']);
            }
        }
        assert_eq!(console.tail(20).len(), 20);
        assert!(Console::default().tail(20).is_empty());
    }
}
