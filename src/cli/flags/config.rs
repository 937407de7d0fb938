//! Flags of `build` and `iso set` that name configuration files, and what is done with them.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bootpress::config::{Config, Purpose, Reading};
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct ConfigFlags {
    /// Apply a blueprint: users, keys, files, services, partitions
    ///
    /// FILE ends in .toml or .json; `-` reads JSON from standard input.
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    pub(crate) config: Option<PathBuf>,

    /// Warn about keys of --config that have no effect, and go on
    ///
    /// Without this flag, a key that is unknown or cannot be honoured is an error.
    #[arg(long, requires = "config", help_heading = "Configuration")]
    pub(crate) lenient: bool,

    /// Ignore the partition layout inside the image
    ///
    /// Without this flag, a layout of the image counts if --config has none.
    #[arg(long, help_heading = "Configuration")]
    pub(crate) ignore_image_layout: bool,

    /// Make the root fill its disk at the first boot
    ///
    /// This uses the tools that the image has for it.
    #[arg(long, help_heading = "Disk")]
    pub(crate) grow: bool,

    /// Show what would be built, and write nothing
    ///
    /// It shows layers, partitions, sizes, kernel arguments and the files that would be added. Only the cache of fetched images is
    /// written.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl ConfigFlags {
    /// Reads and judges the file, before anything is fetched.
    pub(crate) fn read(&self, purpose: Purpose) -> Result<Config> {
        let reading = Reading { lenient: self.lenient, purpose };
        self.config.as_deref().map_or(Ok(Config::default()), |file| read(file, reading))
    }
}

/// Flags of `iso set` that name a configuration file.
#[derive(Debug, Args)]
pub(crate) struct SetConfigFlags {
    /// Apply a blueprint to the live and the installed system
    ///
    /// It may set hostname, users, groups, keys, time zone, locale, directories, files, services and first-boot scripts. It replaces the
    /// one that was set before. An installed system applies it at its first boot.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Warn about unknown keys of --config, and go on
    #[arg(long, requires = "config")]
    lenient: bool,
}

impl SetConfigFlags {
    /// Reads and judges the file; `None`: none was named.
    pub(crate) fn read(&self) -> Result<Option<Config>> {
        self.config
            .as_deref()
            .map(|file| read(file, Reading { lenient: self.lenient, ..Reading::default() }))
            .transpose()
    }
}

pub(crate) fn read(file: &Path, reading: Reading) -> Result<Config> {
    let name = file.display().to_string();
    let text = if name == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("reading standard input")?;
        text
    } else {
        fs::read_to_string(file).with_context(|| format!("reading {name}"))?
    };
    Config::read(&text, &name, reading, &|path| fs::read(path))
}
