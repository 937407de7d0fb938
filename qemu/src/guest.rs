//! The guest's own words: the lines that `guest.sh` writes, and what they mean.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

mod checks;

/// A longer line is not ours: the script says at most 60,000 bytes of a fact, 80,000 characters in base64.
const LONGEST_LINE: usize = 100_000;

/// Most facts that are remembered; the script has some thirty.
const FACTS: usize = 1000;

/// Most parts of the journal, of up to 60,000 bytes each.
const JOURNAL_PARTS: u32 = 100;

/// What a guest said, by key. Later lines replace earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Guest {
    facts: BTreeMap<String, String>,
    /// Parts of the journal by number: bytes, since a part may end within a character.
    #[serde(skip)]
    journal: BTreeMap<u32, Vec<u8>>,
    #[serde(skip)]
    unfinished: Vec<u8>,
}

/// A line of `/proc/self/mountinfo`, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted: a device, or a word of the file system's choice.
    pub source: String,
    /// The file system's type.
    pub filesystem: String,
    /// Options of this mount, such as `ro,relatime`.
    pub options: String,
    /// Options of the file system, such as `rw,verity=require`.
    pub filesystem_options: String,
}

impl Guest {
    /// Takes bytes as they arrive on the port; lines may be cut anywhere.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.unfinished);
                    self.line(&String::from_utf8_lossy(&line));
                }
                _ if self.unfinished.len() < LONGEST_LINE => self.unfinished.push(byte),
                _ => {}
            }
        }
    }

    /// Takes a line, which may be anything.
    pub(crate) fn line(&mut self, line: &str) {
        let Some((key, value)) = parse(line) else { return };
        match key.strip_prefix("journal.").map(str::parse) {
            // A guest may say what it likes, but not fill our memory with it.
            Some(Ok(part)) if part < JOURNAL_PARTS => {
                self.journal.insert(part, value);
            }
            Some(_) => {}
            None if self.facts.len() < FACTS => {
                self.facts.insert(key, String::from_utf8_lossy(&value).into_owned());
            }
            None => {}
        }
    }

    /// Adds a fact that no guest has said.
    #[cfg(test)]
    pub(crate) fn tell(&mut self, key: &str, value: &str) {
        self.facts.insert(key.to_owned(), value.to_owned());
    }

    /// A fact.
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.facts.get(key).map(String::as_str)
    }

    /// The journal of this boot, as far as it was sent.
    pub fn journal(&self) -> String {
        let bytes: Vec<u8> = self.journal.values().flatten().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether it said anything at all: user space was reached and could speak.
    pub fn spoke(&self) -> bool {
        !self.facts.is_empty()
    }

    /// Whether it said everything it had to say.
    pub fn finished(&self) -> bool {
        self.facts.contains_key("end")
    }

    /// Units that failed.
    pub fn failed_units(&self) -> Vec<&str> {
        self.fact("failed")
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect()
    }

    /// What is mounted at a path; the topmost, if there are several.
    pub fn mount(&self, path: &str) -> Option<Mount> {
        let mut lines = self.fact("mounts")?.lines();
        lines
            .rfind(|line| line.split(' ').nth(4).is_some_and(|point| unescaped(point) == path))
            .and_then(|line| {
                let (place, source) = line.split_once(" - ")?;
                let mut source = source.split(' ');
                Some(Mount {
                    filesystem: source.next()?.to_owned(),
                    source: unescaped(source.next()?),
                    options: place.split(' ').nth(5)?.to_owned(),
                    filesystem_options: source.next().unwrap_or_default().to_owned(),
                })
            })
    }
}

/// Reads `boot-report KEY=BASE64 LENGTH`, possibly after something else on the same line. The length shows that nothing is
/// missing or mixed in.
fn parse(line: &str) -> Option<(String, Vec<u8>)> {
    let (_, fact) = line.trim_end().rsplit_once("boot-report ")?;
    let (fact, length) = fact.split_once(' ')?;
    let (key, value) = fact.split_once('=')?;
    let sound = length.parse() == Ok(value.len())
        && !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_graphic());
    let value = STANDARD.decode(value).ok().filter(|_| sound)?;
    Some((key.to_owned(), value))
}

/// Undoes mountinfo's octal escapes of space, tab, newline and backslash.
fn unescaped(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                text.push(char::from(byte));
                text.push_str(part.get(3..).unwrap_or_default());
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
