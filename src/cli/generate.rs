//! Shell completions and manual pages, made from the flags themselves.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::flags::Flags;

#[derive(Debug, Args)]
pub(crate) struct CompletionsFlags {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManFlags {
    /// Directory for bootpress.1 and a page for each command, made if need be; without it, bootpress.1 is printed
    directory: Option<PathBuf>,
}

/// Prints the completions of a shell.
pub(super) fn completions(flags: &CompletionsFlags) -> Result<()> {
    // Into memory first: the generator cannot report that nobody reads any more.
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut Flags::command(), "bootpress", &mut script);
    io::stdout().lock().write_all(&script).context("printing the completions")
}

/// Prints the manual page, or writes all of them.
pub(super) fn man(flags: &ManFlags) -> Result<()> {
    let Some(directory) = &flags.directory else {
        return clap_mangen::Man::new(Flags::command())
            .render(&mut io::stdout().lock())
            .context("printing the manual page");
    };
    fs::create_dir_all(directory)
        .with_context(|| format!("creating directory {}", directory.display()))?;
    // Without pages for `help build` and the like.
    let command = Flags::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, directory)
        .with_context(|| format!("writing manual pages to {}", directory.display()))
}
