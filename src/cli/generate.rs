//! Shell completions, manual pages and pages for the documentation, made from the flags themselves.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::flags::Flags;
use super::{completions, markdown};

#[derive(Debug, Args)]
pub(crate) struct CompletionsFlags {
    /// Name the shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManFlags {
    /// Name a directory for a page for each command
    ///
    /// The directory is created if it does not exist. Without it, bootpress.1 is printed.
    directory: Option<PathBuf>,

    /// Write Markdown instead of manual pages
    #[arg(long, requires = "directory")]
    markdown: bool,
}

/// Prints the completions of a shell.
pub(super) fn completions(flags: &CompletionsFlags) -> Result<()> {
    // Into memory first: the generator cannot report that nobody reads any more.
    let script = completions::script(flags.shell);
    io::stdout().lock().write_all(script.as_bytes()).context("printing the completions")
}

/// Prints the manual page, or writes all of them.
pub(super) fn man(flags: &ManFlags) -> Result<()> {
    // Without pages for `help build` and the like.
    let command = Flags::command().disable_help_subcommand(true);
    let Some(directory) = &flags.directory else {
        return clap_mangen::Man::new(command)
            .render(&mut io::stdout().lock())
            .context("printing the manual page");
    };
    fs::create_dir_all(directory)
        .with_context(|| format!("creating directory {}", directory.display()))?;
    let context = || format!("writing pages to {}", directory.display());
    if !flags.markdown {
        return clap_mangen::generate_to(command, directory).with_context(context);
    }
    for (name, page) in markdown::pages(command) {
        fs::write(directory.join(name), page).with_context(context)?;
    }
    Ok(())
}
