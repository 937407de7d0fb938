//! What has been done of a compose, so that a second run does only what is missing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use bootpress::error::unsupported;
use bootpress::output;
use serde::{Deserialize, Serialize};

/// The form of the file; grows by one when a field changes its meaning or goes away.
const VERSION: u32 = 1;

/// The file's name.
pub(super) const FILE: &str = "status.json";

/// What has been done.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct State {
    pub(super) version: u32,
    /// The compose's ID.
    pub(super) compose: String,
    /// Whether nothing that blocks the release is missing.
    pub(super) releasable: bool,
    /// By `image/architecture/format`.
    pub(super) artifacts: BTreeMap<String, Item>,
    /// By `image/architecture/format/test`.
    pub(super) tests: BTreeMap<String, Item>,
}

/// An artifact or a test.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Item {
    pub(super) outcome: Outcome,
    pub(super) blocking: bool,
    /// Changes when something else is asked for.
    pub(super) fingerprint: String,
    pub(super) seconds: f64,
    /// Why it is not done, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// The file, from the compose's directory on; of a test, its report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<String>,
    /// The log, from the compose's directory on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) log: Option<String>,
}

/// How something went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The artifact is there, or the test passed.
    Done,
    /// The artifact did not come about, or the test did not pass.
    Failed,
    /// This machine broke it: nothing was learned.
    Error,
    /// Not tried, as what it needs is not there.
    Skipped,
}

impl Outcome {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Error => "error",
            Self::Skipped => "skipped",
        }
    }
}

impl State {
    /// What was done in a directory, for a compose.
    pub(super) fn load(root: &Path, compose: &str) -> Result<Self> {
        let file = root.join(FILE);
        if !file.exists() {
            return Ok(Self { version: VERSION, compose: compose.to_owned(), ..Self::default() });
        }
        let context = || format!("reading {}", file.display());
        let text = fs::read(&file).with_context(context)?;
        let state: Self = serde_json::from_slice(&text).map_err(|error| {
            bootpress::error::corrupt(file.display().to_string(), error.to_string())
        })?;
        if state.version != VERSION || state.compose != compose {
            return Err(unsupported(
                format!("{} is of compose {}, not of {compose}", file.display(), state.compose),
                Some("use another --output for another compose"),
            ));
        }
        Ok(state)
    }

    /// Writes it down.
    pub(super) fn save(&self, root: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).context("writing the compose's state")?;
        output::write_document(&root.join(FILE), &text).map(drop)
    }

    /// What a release waits for, and why it is not there.
    pub(super) fn blockers(&self) -> Vec<(&str, &Item)> {
        let all = self.artifacts.iter().chain(&self.tests);
        let missing = all.filter(|(_, item)| item.blocking && item.outcome != Outcome::Done);
        missing.map(|(key, item)| (key.as_str(), item)).collect()
    }
}

impl Item {
    /// Whether it is done as it is asked for now, and its file is still there.
    pub(super) fn stands(&self, fingerprint: &str, root: &Path) -> bool {
        let is_there = self.file.as_ref().is_none_or(|file| {
            let metadata = fs::metadata(root.join(file));
            metadata.is_ok_and(|there| {
                self.size.is_none_or(|size| there.is_dir() || there.len() == size)
            })
        });
        self.outcome == Outcome::Done && self.fingerprint == fingerprint && is_there
    }
}
