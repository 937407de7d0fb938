//! The files of labels: one regular expression, file type and label a line.
//!
//! ```text
//! /usr/lib(/.*)?          system_u:object_r:lib_t:s0
//! /dev/null       -c      system_u:object_r:null_device_t:s0
//! /proc/.*                <<none>>
//! ```
//!
//! `.subs` and `.subs_dist`: `/from /to`, for paths that are to be labelled as if they were elsewhere.

use std::borrow::Cow;
use std::sync::Arc;

use anyhow::Result;

use super::pattern::{has_meta_characters, stems};
use crate::error::corrupt;

/// A line of `file_contexts`.
#[derive(Debug)]
pub(super) struct Spec {
    /// The regular expression, as PCRE has it.
    pub(super) regex: Box<[u8]>,
    /// File and line, for errors.
    pub(super) origin: String,
    /// The type bits of `st_mode` that it is for; `None`: all.
    pub(super) file_type: Option<u32>,
    /// `None`: `<<none>>`.
    pub(super) label: Option<Arc<[u8]>>,
    /// The first components of the directory that the path has to be in, without slashes; none for an exact path.
    pub(super) stems: Vec<Box<[u8]>>,
}

impl Spec {
    /// In the order in which they are tried: exact paths before expressions, in each the last line first.
    pub(super) fn by_precedence(mut specs: Vec<Self>) -> Vec<Self> {
        specs.reverse();
        specs.sort_by_key(|spec| has_meta_characters(&spec.regex));
        specs
    }

    /// Whether the path is in the directory that the expression demands, whatever its own syntax would take.
    pub(super) fn stems_fit(&self, path: &[u8]) -> bool {
        let mut rest = path;
        self.stems.iter().all(|stem| {
            let below = rest.strip_prefix(b"/").and_then(|rest| rest.strip_prefix(&**stem));
            rest = below.unwrap_or_default();
            rest.starts_with(b"/")
        })
    }

    /// Whether it is an expression that takes labels away.
    pub(super) fn is_none(&self) -> bool {
        self.label.is_none() && has_meta_characters(&self.regex)
    }
}

/// The lines of a file; `name` is for errors.
pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Vec<Spec>> {
    let mut specs = Vec::new();
    for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let origin = format!("{name}:{}", number + 1);
        let mut fields = fields(line);
        let Some(regex) = fields.next() else { continue };
        let (file_type, label) = match (fields.next(), fields.next()) {
            (Some(file_type), Some(label)) => match type_bits(file_type) {
                Some(bits) => (Some(bits), label),
                None => {
                    let reason =
                        format!("{} is not a file type", String::from_utf8_lossy(file_type));
                    return Err(corrupt(origin, reason));
                }
            },
            (Some(label), None) => (None, label),
            (None, _) => return Err(corrupt(origin, "the line has no label")),
        };
        specs.push(Spec {
            regex: regex.into(),
            origin,
            file_type,
            label: (label != b"<<none>>").then(|| label.into()),
            stems: if has_meta_characters(regex) { stems(regex) } else { Vec::new() },
        });
    }
    Ok(specs)
}

/// The words of a line, none if it is a comment.
fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let line = line.trim_ascii();
    let line = if line.starts_with(b"#") { b"" } else { line };
    line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty())
}

/// The type bits of `st_mode` for `--`, `-d`, …
fn type_bits(field: &[u8]) -> Option<u32> {
    Some(match field {
        b"-p" => 0o010_000,
        b"-c" => 0o020_000,
        b"-d" => 0o040_000,
        b"-b" => 0o060_000,
        b"--" => 0o100_000,
        b"-l" => 0o120_000,
        b"-s" => 0o140_000,
        _ => return None,
    })
}

/// Beginnings of paths and what stands for them. The last line that fits wins.
#[derive(Debug)]
pub(super) struct Substitutions(Vec<Substitution>);

/// From, to.
type Substitution = (Box<[u8]>, Box<[u8]>);

impl Substitutions {
    /// Lines of fewer than two words are none, as for libselinux.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let pair = |line| {
            let mut fields = fields(line);
            Some((fields.next()?.into(), fields.next()?.into()))
        };
        let mut pairs: Vec<_> = bytes.split(|&byte| byte == b'\n').filter_map(pair).collect();
        pairs.reverse();
        Self(pairs)
    }

    /// The path under which to look.
    pub(super) fn apply<'a>(&self, path: &'a [u8]) -> Cow<'a, [u8]> {
        for (from, to) in &self.0 {
            let Some(rest) = path.strip_prefix(&**from) else { continue };
            match rest {
                [] => return to.to_vec().into(),
                [b'/', below @ ..] if **to == *b"/" => return [b"/", below].concat().into(),
                [b'/', ..] => return [to, rest].concat().into(),
                _ => {}
            }
        }
        path.into()
    }
}
