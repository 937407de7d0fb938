//! What was tried in one go, and the forms it is reported in.
//!
//! ```text
//! BootReport ─┐
//! BootReport ─┼─► Suite ──► junit  tap  json  tmt  resultsdb  html        Format::render, Format::write
//! a reason  ──┘        └──► table                                         for terminals
//! ```

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{BootReport, Verdict, html, json, junit, resultsdb, tap, tmt};

/// What was tried in one go.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The program and its version.
    pub tool: String,
    /// When it began.
    pub began: SystemTime,
    /// How long it took.
    pub seconds: f64,
    /// The distribution's compose that the disks belong to, as in `Fedora-IoT-43-20251014.0`.
    pub compose: Option<String>,
    /// Which of a compose's subvariants they are.
    pub subvariant: Option<String>,
    /// In the order in which they were asked for.
    pub cases: Vec<Case>,
}

/// A disk in a machine.
#[derive(Clone, Debug)]
pub struct Case {
    /// The disk's file.
    pub disk: PathBuf,
    /// The machine's name, unique among those with this disk, and the same on every host; steps of a chain add theirs.
    pub machine: String,
    /// When it began.
    pub began: SystemTime,
    /// What came of it.
    pub outcome: Outcome,
    /// Where its evidence is.
    pub evidence: Option<PathBuf>,
}

/// What came of a case.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The disk was booted.
    Tried(Box<BootReport>),
    /// There can be no such case, for this reason.
    LeftOut(String),
    /// The boot could not be tried, for this reason. Nothing was learned about the disk.
    NotTried(String),
}

/// A form of report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JUnit's XML: a suite to a case, a test to a check.
    Junit,
    /// Test Anything Protocol 13.
    Tap,
    /// Our own JSON, described by `result.schema.json`.
    Json,
    /// `results.yaml` of tmt.
    Tmt,
    /// JSON that ResultsDB takes, a result to a case, with the fields of Fedora's composes.
    ResultsDb,
    /// A page that needs nothing else.
    Html,
}

impl Suite {
    /// Whether every case that can be tried passed.
    pub fn passed(&self) -> bool {
        self.cases.iter().all(|case| matches!(case.state(), State::Passed | State::LeftOut))
    }

    /// How many cases are in a state.
    pub(super) fn count(&self, state: State) -> usize {
        self.cases.iter().filter(|case| case.state() == state).count()
    }
}

/// What came of a case, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Passed,
    Failed,
    /// This machine or this program broke it; nothing was learned about the disk.
    Error,
    LeftOut,
}

impl State {
    pub(super) const ALL: [Self; 4] = [Self::Passed, Self::Failed, Self::Error, Self::LeftOut];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::LeftOut => "left out",
            Self::Error => "error",
        }
    }
}

impl Case {
    /// The disk's file name.
    pub fn disk_name(&self) -> String {
        self.disk.file_name().unwrap_or(self.disk.as_os_str()).to_string_lossy().into_owned()
    }

    pub(super) fn report(&self) -> Option<&BootReport> {
        match &self.outcome {
            Outcome::Tried(report) => Some(report),
            _ => None,
        }
    }

    pub(super) fn state(&self) -> State {
        match &self.outcome {
            Outcome::Tried(report) => match report.verdict {
                Verdict::Passed => State::Passed,
                Verdict::Failed { .. } => State::Failed,
                Verdict::Error { .. } => State::Error,
            },
            Outcome::NotTried(_) => State::Error,
            Outcome::LeftOut(_) => State::LeftOut,
        }
    }

    /// Why it did not pass.
    pub(super) fn reason(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Tried(report) => report.reason(),
            Outcome::LeftOut(reason) | Outcome::NotTried(reason) => Some(reason),
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.report().map_or(0.0, |report| report.seconds)
    }
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Junit, Self::Tap, Self::Json, Self::Tmt, Self::ResultsDb, Self::Html];

    /// The name on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Junit => "junit",
            Self::Tap => "tap",
            Self::Json => "json",
            Self::Tmt => "tmt",
            Self::ResultsDb => "resultsdb",
            Self::Html => "html",
        }
    }

    /// Reads [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The report as text.
    pub fn render(self, suite: &Suite) -> String {
        match self {
            Self::Junit => junit::render(suite),
            Self::Tap => tap::render(suite),
            Self::Json => json::render(suite),
            Self::Tmt => tmt::render(suite),
            Self::ResultsDb => resultsdb::render(suite),
            Self::Html => html::render(suite),
        }
    }

    /// Writes the report; what was there before stays until the new one is whole.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(self, suite: &Suite, file: &Path) -> io::Result<()> {
        let directory = match file.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        // Reports are for others to read, which temporary files are not.
        let mut whole = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)?;
        whole.write_all(self.render(suite).as_bytes())?;
        whole.persist(file).map_err(|error| error.error)?;
        Ok(())
    }
}
