//! Key files: groups in brackets, `key=value` lines, `#` comments; GLib's dialect, which systemd's units share.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::error::corrupt;

/// A parsed key file.
pub(super) struct KeyFile<'a> {
    path: &'a str,
    groups: BTreeMap<String, BTreeMap<String, String>>,
}

impl<'a> KeyFile<'a> {
    /// Reads the text of `path`. A key that comes twice has its last value.
    pub(super) fn parse(path: &'a str, text: &str) -> Result<Self> {
        let mut groups: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut group: Option<String> = None;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let wrong = |what: &str| corrupt(path, format!("line {}: {what}", number + 1));
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[') {
                let name = name.strip_suffix(']').ok_or_else(|| wrong("a group without ]"))?;
                groups.entry(name.to_owned()).or_default();
                group = Some(name.to_owned());
                continue;
            }
            let (key, value) =
                line.split_once('=').ok_or_else(|| wrong("neither a group nor key=value"))?;
            let group = group.as_ref().ok_or_else(|| wrong("a key before the first group"))?;
            groups
                .entry(group.clone())
                .or_default()
                .insert(key.trim_end().to_owned(), value.trim_start().to_owned());
        }
        Ok(Self { path, groups })
    }

    /// The value of a key.
    pub(super) fn get(&self, group: &str, key: &str) -> Option<&str> {
        self.groups.get(group)?.get(key).map(String::as_str)
    }

    /// A value that must be `true`, `1`, `false` or `0`.
    pub(super) fn boolean(&self, group: &str, key: &str) -> Result<Option<bool>> {
        match self.get(group, key) {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => {
                Err(corrupt(self.path, format!("[{group}] {key}={other} is not a boolean")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_comments_and_spaces() {
        let file =
            KeyFile::parse("x", "# c\n[a]\n k = v = w \nk2=true\n[b]\nk=1\n[a]\nk2=0\n").unwrap();
        assert_eq!(file.get("a", "k"), Some("v = w"));
        assert_eq!(file.boolean("a", "k2").unwrap(), Some(false));
        assert_eq!(file.boolean("b", "k").unwrap(), Some(true));
        assert_eq!(file.get("c", "k"), None);
        assert!(file.boolean("a", "k").is_err());
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, what) in [
            ("k=v", "line 1: a key before"),
            ("[a]\nk", "line 2: neither"),
            ("[a", "line 1: a group"),
        ] {
            let Err(error) = KeyFile::parse("some.conf", text) else {
                panic!("{text:?} was accepted")
            };
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}
