//! Flags of `build` and `iso set` that name configuration files, and what is done with them.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bootpress::config::{Config, Purpose, Reading};
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct ConfigFlags {
    /// Blueprint to apply: users, keys, files, services, partitions …; .toml or .json, or `-` for JSON on standard input
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    pub(crate) config: Option<PathBuf>,

    /// Skips keys of --config that are unknown or cannot be honoured, with a warning, instead of failing
    #[arg(long, requires = "config", help_heading = "Configuration")]
    pub(crate) lenient: bool,

    /// Partitions as usual, even if the image brings a layout (disk.yaml) and --config has none
    #[arg(long, help_heading = "Configuration")]
    pub(crate) ignore_image_layout: bool,

    /// Makes the root fill its disk at the first boot, with what the image has for that
    #[arg(long, help_heading = "Disk")]
    pub(crate) grow: bool,

    /// Shows what would be built, exactly: layers, partitions, sizes, kernel arguments, files that would be added. Writes nothing
    /// but the cache of fetched images
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
    /// Blueprint for the live system, and for what is installed when it boots for the first time: hostname, users, groups, keys,
    /// time zone, locale, directories, files, services and first-boot scripts. It replaces the one set before
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Skips keys of --config that are unknown, with a warning, instead of failing
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
