//! Reading tables: every key is asked for, what nobody asked for is a mistake, and all mistakes are told at once.

use std::fmt;
use std::ops::RangeInclusive;

use anyhow::{Result, anyhow};

use super::document::{Key, Node, Place, Value};
use super::size;
use crate::error::{Unsupported, corrupt, unsupported};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gravity {
    /// The value makes no sense.
    Wrong,
    /// Nobody knows the key; a warning if the user is lenient.
    Unknown,
    /// The key makes sense, but bootpress cannot honour it; a warning if the user is lenient.
    Refused,
    /// The key makes sense, but bootpress cannot honour it, and a disk without it would be a different one.
    Impossible,
    /// The key has no effect on a disk, or not the expected one, and never fails a build.
    Idle,
}

#[derive(Debug)]
struct Problem {
    at: Place,
    gravity: Gravity,
    text: String,
}

/// Everything that is to be said about one file.
#[derive(Debug)]
pub(super) struct Problems {
    file: String,
    found: Vec<Problem>,
}

impl Problems {
    /// Nothing yet about a file of this name.
    pub(super) fn of(file: &str) -> Self {
        Self { file: file.to_owned(), found: Vec::new() }
    }

    pub(super) fn add(&mut self, at: Place, gravity: Gravity, text: impl Into<String>) {
        self.found.push(Problem { at, gravity, text: text.into() });
    }

    pub(super) fn wrong(&mut self, at: Place, text: impl Into<String>) {
        self.add(at, Gravity::Wrong, text);
    }

    /// The warnings, or one error with a line for each mistake.
    pub(super) fn settle(mut self, lenient: bool) -> Result<Vec<String>> {
        self.found.sort_by_key(|problem| problem.at);
        let fatal = |gravity| match gravity {
            Gravity::Wrong | Gravity::Impossible => true,
            Gravity::Unknown | Gravity::Refused => !lenient,
            Gravity::Idle => false,
        };
        let line = |problem: &Problem| format!("{}:{}: {}", self.file, problem.at, problem.text);
        let (errors, warnings): (Vec<&Problem>, Vec<&Problem>) =
            self.found.iter().partition(|problem| fatal(problem.gravity));
        if errors.is_empty() {
            return Ok(warnings.into_iter().map(line).collect());
        }
        let text = errors.iter().copied().map(line).collect::<Vec<_>>().join("\n");
        let can_be_skipped = |problem: &&Problem| problem.gravity == Gravity::Refused;
        if errors.iter().all(can_be_skipped) {
            Err(Unsupported {
                what: text,
                hint: Some("with --lenient such keys are skipped with a warning".to_owned()),
            }
            .into())
        } else {
            Err(anyhow!(text))
        }
    }
}

impl Problems {
    /// The warnings of a file of the image, or one error: `Corrupt` where it makes no sense, `Unsupported` where bootpress cannot
    /// do it. What is unknown, or can be skipped, passes with a warning, as builders before passed it. `way_out`: how to build
    /// without the file.
    pub(super) fn settle_in_image(mut self, way_out: Option<&str>) -> Result<Vec<String>> {
        self.found.sort_by_key(|problem| problem.at);
        let fatal =
            |problem: &Problem| matches!(problem.gravity, Gravity::Wrong | Gravity::Impossible);
        if !self.found.iter().any(fatal) {
            return self.settle(true);
        }
        let errors: Vec<&Problem> = self.found.iter().filter(|problem| fatal(problem)).collect();
        if errors.iter().all(|problem| problem.gravity == Gravity::Impossible) {
            let lines = errors
                .iter()
                .map(|problem| format!("{}:{}: {}", self.file, problem.at, problem.text));
            let what = lines.collect::<Vec<_>>().join("\n");
            return Err(unsupported(what, way_out));
        }
        let mut reason = errors
            .iter()
            .map(|problem| format!("{}: {}", problem.at, problem.text))
            .collect::<Vec<_>>()
            .join("\n");
        if let Some(way_out) = way_out {
            reason += &format!(" ({way_out})");
        }
        Err(corrupt(self.file, reason))
    }
}

/// A table being read.
#[derive(Debug)]
pub(super) struct Table<'a> {
    /// `customizations.user[0]`, empty for the whole file.
    path: String,
    at: Place,
    left: Vec<(&'a Key, &'a Node)>,
    asked: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// Begins to read; what is not a table is a problem, and reads as an empty one.
    pub(super) fn of(node: &'a Node, path: impl Into<String>, problems: &mut Problems) -> Self {
        let path = path.into();
        let left = match &node.value {
            Value::Table(entries) => entries.iter().map(|(key, node)| (key, node)).collect(),
            other => {
                let name = if path.is_empty() { "the file" } else { &path };
                problems.wrong(node.at, format!("{name} must be a table, not {}", other.kind()));
                Vec::new()
            }
        };
        Self { path, at: node.at, left, asked: Vec::new() }
    }

    /// Where it begins.
    pub(super) fn at(&self) -> Place {
        self.at
    }

    /// The full name of a key.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Takes a key; null counts as absent.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.asked.push(key);
        let found = self.left.iter().position(|(name, _)| name.name == key)?;
        let (_, node) = self.left.remove(found);
        (node.value != Value::Null).then_some(node)
    }

    /// Whether a key that has not been taken yet is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.left.iter().any(|(name, _)| name.name == key)
    }

    fn mismatch(&self, key: &str, node: &Node, wanted: &str, problems: &mut Problems) {
        let text = format!("{} must be {wanted}, not {}", self.name(key), node.value.kind());
        problems.wrong(node.at, text);
    }

    pub(super) fn text(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<Found<String>> {
        let node = self.take(key)?;
        match &node.value {
            Value::Text(text) => Some(Found { value: text.clone(), at: node.at }),
            _ => {
                self.mismatch(key, node, "a string", problems);
                None
            }
        }
    }

    /// A string that must be there and not empty.
    pub(super) fn required(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<Found<String>> {
        let known = problems.found.len();
        let found = self.text(key, problems).filter(|text| !text.value.is_empty());
        if found.is_none() && problems.found.len() == known {
            problems.wrong(self.at, format!("{} is missing", self.name(key)));
        }
        found
    }

    pub(super) fn bool(&mut self, key: &'static str, problems: &mut Problems) -> Option<bool> {
        let node = self.take(key)?;
        match node.value {
            Value::Bool(value) => Some(value),
            _ => {
                self.mismatch(key, node, "true or false", problems);
                None
            }
        }
    }

    /// A number in a range.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<i64>,
        problems: &mut Problems,
    ) -> Option<i64> {
        let node = self.take(key)?;
        match node.value {
            Value::Integer(value) if range.contains(&value) => Some(value),
            Value::Integer(value) => {
                let (low, high) = range.into_inner();
                let name = self.name(key);
                problems
                    .wrong(node.at, format!("{name} = {value} is not between {low} and {high}"));
                None
            }
            _ => {
                self.mismatch(key, node, "an integer", problems);
                None
            }
        }
    }

    /// Bytes: a number, or a string with a unit.
    pub(super) fn size(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<Found<u64>> {
        let node = self.take(key)?;
        let parsed = match &node.value {
            Value::Integer(bytes) => u64::try_from(*bytes).map_err(|_| "is negative".to_owned()),
            Value::Float(bytes) => size::parse(&bytes.to_string()),
            Value::Text(text) => size::parse(text),
            other => Err(format!("must be a size such as \"10 GiB\", not {}", other.kind())),
        };
        match parsed {
            Ok(value) => Some(Found { value, at: node.at }),
            Err(reason) => {
                problems.wrong(node.at, format!("{}: {reason}", self.name(key)));
                None
            }
        }
    }

    /// A list of strings; empty if absent.
    pub(super) fn texts(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Vec<Found<String>> {
        let mut texts = Vec::new();
        for node in self.list(key, problems) {
            match &node.value {
                Value::Text(text) => texts.push(Found { value: text.clone(), at: node.at }),
                other => {
                    let name = self.name(key);
                    let text = format!("{name} must hold strings, not {}", other.kind());
                    problems.wrong(node.at, text);
                }
            }
        }
        texts
    }

    /// The items of a list; none if absent.
    pub(super) fn list(&mut self, key: &'static str, problems: &mut Problems) -> &'a [Node] {
        let Some(node) = self.take(key) else { return &[] };
        match &node.value {
            Value::List(list) => list,
            _ => {
                self.mismatch(key, node, "a list", problems);
                &[]
            }
        }
    }

    /// A list of tables; none if absent.
    pub(super) fn tables(&mut self, key: &'static str, problems: &mut Problems) -> Vec<Self> {
        let name = self.name(key);
        let items = self.list(key, problems).iter().enumerate();
        items.map(|(index, node)| Self::of(node, format!("{name}[{index}]"), problems)).collect()
    }

    /// A table inside.
    pub(super) fn table(&mut self, key: &'static str, problems: &mut Problems) -> Option<Self> {
        let node = self.take(key)?;
        Some(Self::of(node, self.name(key), problems))
    }

    /// Whatever nobody asked for is unknown.
    pub(super) fn finish(self, problems: &mut Problems) {
        #[cfg(test)]
        self.asked.iter().for_each(|key| asked::add(&self.name(key)));
        for (key, _) in &self.left {
            let mut text = format!("unknown key {}", self.name(&key.name));
            if let Some(near) = nearest(&key.name, &self.asked) {
                text += &format!("; did you mean `{near}`?");
            }
            problems.add(key.at, Gravity::Unknown, text);
        }
    }
}

/// A value that was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) at: Place,
}

impl<T: fmt::Display> fmt::Display for Found<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// The known word that is most likely meant, if one is near.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    let distance = |other: &str| {
        let other = plain(other);
        // Half a word is as near as a slip of the finger.
        let begins = word.len() >= 3 && (other.starts_with(&word) || word.starts_with(&other));
        if begins { 1 } else { edits(&word, &other) }
    };
    let best = known.iter().copied().min_by_key(|other| distance(other))?;
    // A third of the letters may be wrong; plurals and singulars are near in any case.
    (distance(best) <= (best.chars().count() / 3).max(1)).then_some(best)
}

/// Levenshtein's distance: letters to add, drop or change.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

/// Every key that readers asked for on this thread, for the test that holds them against the schema.
#[cfg(test)]
pub(super) mod asked {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        static ASKED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    }

    pub(in crate::config) fn add(name: &str) {
        let plain = name.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest));
        ASKED.with_borrow_mut(|set| set.insert(plain.collect::<Vec<_>>().join("[]")));
    }

    pub(in crate::config) fn clear() {
        ASKED.with_borrow_mut(BTreeSet::clear);
    }

    pub(in crate::config) fn all() -> BTreeSet<String> {
        ASKED.with_borrow(Clone::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_offered_and_far_ones_are_not() {
        let known = ["hostname", "kernel", "user", "filesystem", "containers-storage"];
        assert_eq!(nearest("hostnam", &known), Some("hostname"));
        assert_eq!(nearest("users", &known), Some("user"));
        assert_eq!(nearest("host", &known), Some("hostname"));
        assert_eq!(nearest("filesystems", &known), Some("filesystem"));
        assert_eq!(nearest("containers_storage", &known), Some("containers-storage"));
        assert_eq!(nearest("selinux", &known), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
