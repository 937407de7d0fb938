//! `bootpress compose`: images × architectures × formats in one run, and one directory that can be published.
//!
//! ```text
//! MANIFEST.toml ─► for each image and architecture: check, build ─► for each test: boot ─► table, status.json, index.html
//!
//! OUTPUT/IoT/x86_64/images/   disks, CHECKSUM, signatures        OUTPUT/logs/     what builds said, their events and records
//! OUTPUT/metadata/            images.json, composeinfo.json      OUTPUT/tests/    reports and evidence of boots
//! ```
//!
//! Each build and each test is a process of its own: one that fails, or is killed, takes nothing along. What is done is written down
//! at once, and a second run does what is missing.

mod manifest;
mod page;
mod run;
mod state;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bootpress::output;
use clap::Args;

use self::manifest::Manifest;
use self::run::Runner;
use self::state::{Item, Outcome, State};
use super::say::{self, Page};

#[derive(Debug, Args)]
pub(crate) struct ComposeFlags {
    /// Read from this TOML file what the compose has in it
    #[arg(value_name = "MANIFEST")]
    manifest: PathBuf,

    /// Write the compose into this directory
    ///
    /// What is there already is not done again.
    #[arg(long, short, value_name = "DIR", default_value = "compose")]
    output: PathBuf,

    /// Build, and boot nothing
    #[arg(long)]
    no_tests: bool,

    /// Show what would be done
    #[arg(long)]
    dry_run: bool,

    /// Print the state of the compose as JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Makes what is missing of a compose. Exit codes: 0 nothing blocks the release, else 1.
pub(super) fn run(flags: &ComposeFlags) -> Result<ExitCode> {
    let manifest = Manifest::read(&flags.manifest)?;
    manifest.check_options().with_context(|| format!("reading {}", flags.manifest.display()))?;
    let mut runner = Runner::new(&manifest, &flags.manifest, &flags.output)?;
    if flags.dry_run {
        let mut page = Page::default();
        runner.planned(!flags.no_tests).iter().for_each(|line| page.line(line));
        return say::print(&page.into_text(), "printing the plan").map(|()| ExitCode::SUCCESS);
    }
    runner.prepare()?;
    runner.check()?;
    runner.build()?;
    if !flags.no_tests {
        runner.test()?;
    }
    runner.finish()?;
    let state = &runner.state;
    let page = page::html(state, &manifest.compose.variant);
    output::write_document(&runner.root.join("index.html"), page.as_bytes())?;
    if flags.json {
        say::print_json(state, "printing the compose")?;
    } else {
        say::print(&table(state), "printing the compose")?;
    }
    Ok(if state.releasable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line for each artifact and test, and what blocks the release.
fn table(state: &State) -> String {
    let mut page = Page::default();
    let width =
        state.artifacts.keys().chain(state.tests.keys()).map(String::len).max().unwrap_or(0);
    let mut row = |key: &str, item: &Item| {
        let blocking = if item.blocking { "blocking" } else { "" };
        let detail = item.reason.as_deref().or(item.file.as_deref()).unwrap_or_default();
        page.line(format_args!("{key:width$}  {:7}  {blocking:8}  {detail}", item.outcome.name()));
    };
    state.artifacts.iter().for_each(|(key, item)| row(key, item));
    state.tests.iter().for_each(|(key, item)| row(key, item));
    page.blank();
    let blockers = state.blockers();
    let missing = |item: &&Item| item.outcome != Outcome::Done;
    let missing = state.artifacts.values().chain(state.tests.values()).filter(missing).count();
    if blockers.is_empty() {
        page.line(format_args!(
            "nothing blocks the release of {}; {missing} missing",
            state.compose
        ));
    } else {
        page.line(format_args!(
            "{} is blocked by {} of {missing} that are missing:",
            state.compose,
            blockers.len()
        ));
        for (key, item) in blockers {
            page.line(format_args!(
                "  {key}: {}",
                item.reason.as_deref().unwrap_or(item.outcome.name())
            ));
        }
    }
    page.into_text()
}
