//! `bootpress iso`: shows and changes the settings of a finished medium.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use bootpress::config;
use bootpress::iso::{self, Selector, Settings};

use super::flags::iso::{IsoCommand, IsoFlags, Target};

/// Does what the flags ask for, and prints the settings as they are then.
pub(super) fn run(flags: &IsoFlags) -> Result<()> {
    match &flags.command {
        IsoCommand::Show { file } => print(file),
        IsoCommand::Set { file, kargs, install_to, config } => {
            let config = config.read()?;
            if kargs.is_empty() && install_to.is_none() && config.is_none() {
                bail!(
                    "nothing to set: name --karg, --install-to or --config, or use `bootpress iso reset`"
                );
            }
            let now = iso::show(file)?;
            let settings = Settings {
                kernel_arguments: if kargs.is_empty() {
                    now.settings.kernel_arguments
                } else {
                    kargs.clone()
                },
                install_to: match install_to {
                    None => now.settings.install_to,
                    Some(Target::Ask) => None,
                    Some(Target::Disk(selector)) => Some(selector.clone()),
                },
            };
            let configuration = match config {
                None => now.configuration,
                Some(config) => {
                    for warning in &config.warnings {
                        eprintln!("warning: {warning}");
                    }
                    Some(config::provision(&config.blueprint, &now.build_id)?)
                }
            };
            iso::set(file, &settings, configuration.as_deref())?;
            print(file)
        }
        IsoCommand::Reset { file } => {
            iso::reset(file)?;
            print(file)
        }
    }
}

fn print(file: &Path) -> Result<()> {
    let shown = iso::show(file)?;
    let arguments = shown.settings.kernel_arguments.join(" ");
    let selector = shown.settings.install_to.as_ref().map_or("asks for the disk", Selector::text);
    let configuration = shown.configuration.as_deref().map(|script| {
        script.lines().nth(1).and_then(|line| line.strip_prefix("# ")).unwrap_or("a script")
    });
    let mut out = io::stdout().lock();
    for (name, value) in [
        ("volume id", shown.volume_id.as_str()),
        ("build id", &shown.build_id),
        ("kernel arguments", if arguments.is_empty() { "none" } else { &arguments }),
        ("install to", selector),
        ("configuration", configuration.unwrap_or("none")),
    ] {
        writeln!(out, "{name:<16} {value}").context("printing the settings")?;
    }
    Ok(())
}
