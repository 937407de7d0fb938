//! The ID of a compose: `Fedora-IoT-43-20251014.n.0`.
//!
//! ```text
//! Fedora-IoT - 43 - 20251014 .n .0
//! short      version date   type respin        types: none (production), .n nightly, .t test, .ci, .d development
//! ```
//!
//! Source: productmd 1.51, `composeinfo.py` (`create_compose_id`, `COMPOSE_TYPE_SUFFIXES`).

use std::fmt;
use std::str::FromStr;

/// A compose's ID, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComposeId {
    text: String,
    /// The product's short name, such as `Fedora-IoT`.
    pub short: String,
    /// The product's version, such as `43` or `Rawhide`.
    pub version: String,
    /// The release's type if it is not a general one: `updates`, `updates-testing`.
    pub release_type: Option<&'static str>,
    /// The day, as `YYYYMMDD`.
    pub date: String,
    /// What kind of compose it is.
    pub kind: ComposeKind,
    /// Its number on that day.
    pub respin: u32,
}

/// Kinds of composes; productmd's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComposeKind {
    /// What is released.
    Production,
    /// Made every night.
    Nightly,
    /// Made to try something.
    Test,
    /// Made by continuous integration.
    Ci,
    /// Made of what is not released.
    Development,
}

impl ComposeKind {
    /// All of them, and what the ID has for them.
    const SUFFIXES: [(Self, &'static [&'static str]); 5] = [
        (Self::Production, &[""]),
        (Self::Nightly, &["n", "nightly"]),
        (Self::Test, &["t", "test"]),
        (Self::Ci, &["ci"]),
        (Self::Development, &["d"]),
    ];

    /// The name in productmd's files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Nightly => "nightly",
            Self::Test => "test",
            Self::Ci => "ci",
            Self::Development => "development",
        }
    }
}

/// Types of releases that a compose ID names behind the version.
const RELEASE_TYPES: [&str; 2] = ["updates-testing", "updates"];

impl ComposeId {
    /// The date with the letter of the compose's type, as file names have it: `20251014` or `20251014.n`.
    pub fn dated(&self) -> &str {
        let moment = self.text.rsplit('-').next().unwrap_or_default();
        moment.rsplit_once('.').map_or(moment, |(dated, _)| dated)
    }
}

impl FromStr for ComposeId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        read(text).ok_or_else(|| {
            format!(
                "{text:?} is not SHORT-VERSION-DATE[.TYPE].RESPIN, such as Fedora-IoT-43-20251014.0"
            )
        })
    }
}

impl fmt::Display for ComposeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn read(text: &str) -> Option<ComposeId> {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if !text.chars().all(is_safe) || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let (release, moment) = text.rsplit_once('-')?;
    let (dated, respin) = moment.rsplit_once('.')?;
    let (date, suffix) = dated.split_once('.').unwrap_or((dated, ""));
    let mut kinds = ComposeKind::SUFFIXES.into_iter();
    let (kind, _) = kinds.find(|(_, names)| names.contains(&suffix))?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if date.len() != 8 || !is_number(date) || !is_number(respin) || dated.ends_with('.') {
        return None;
    }
    let typed = RELEASE_TYPES
        .into_iter()
        .find_map(|kind| Some((release.strip_suffix(kind)?.strip_suffix('-')?, kind)));
    let (release, release_type) = match typed {
        Some((release, kind)) => (release, Some(kind)),
        None => (release, None),
    };
    let (short, version) = release.rsplit_once('-')?;
    // Versions are numbers, or begin with something else than a digit (productmd's RELEASE_VERSION_RE).
    let is_version = match version.bytes().next()? {
        b'0'..=b'9' => version.split('.').all(is_number),
        _ => true,
    };
    if !is_version || short.is_empty() {
        return None;
    }
    Some(ComposeId {
        text: text.to_owned(),
        short: short.to_owned(),
        version: version.to_owned(),
        release_type,
        date: date.to_owned(),
        kind,
        respin: respin.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compose_ids_are_taken_apart() {
        for (text, short, version, dated, kind, respin) in [
            ("Fedora-IoT-43-20251014.0", "Fedora-IoT", "43", "20251014", "production", 0),
            ("Fedora-Rawhide-20180616.n.3", "Fedora", "Rawhide", "20180616.n", "nightly", 3),
            ("Fedora-ELN-20250101.t.12", "Fedora", "ELN", "20250101.t", "test", 12),
            ("CentOS-Stream-10-20250101.ci.1", "CentOS-Stream", "10", "20250101.ci", "ci", 1),
            ("RHEL-9.4-20250101.d.1", "RHEL", "9.4", "20250101.d", "development", 1),
        ] {
            let id: ComposeId = text.parse().unwrap();
            assert_eq!((&*id.short, &*id.version, id.dated()), (short, version, dated), "{text}");
            assert_eq!((id.kind.name(), id.respin), (kind, respin), "{text}");
            assert_eq!(id.to_string(), text);
        }
        let id: ComposeId = "Fedora-39-updates-testing-20250101.0".parse().unwrap();
        assert_eq!((&*id.version, id.release_type), ("39", Some("updates-testing")));
    }

    #[test]
    fn other_texts_are_no_compose_ids() {
        for text in [
            "",
            "Fedora",
            "Fedora-43",
            "Fedora-43-20251014",
            "Fedora-43-2025101.0",
            "Fedora-43-20251014.x.0",
            "Fedora-43-20251014..0",
            "Fedora-43-20251014.n.",
            "43-20251014.0",
            "-43-20251014.0",
            "Fedora-4x-20251014.0",
            "../Fedora-43-20251014.0",
            "Fedora-43-20251014.99999999999",
        ] {
            assert!(text.parse::<ComposeId>().is_err(), "{text}");
        }
    }
}
