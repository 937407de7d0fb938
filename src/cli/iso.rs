//! `bootpress iso`: shows and changes the settings of a finished medium.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use bootpress::iso::{self, Selector, Settings};

use super::flags::iso::{IsoCommand, IsoFlags};

/// Does what the flags ask for, and prints the settings as they are then.
pub(super) fn run(flags: &IsoFlags) -> Result<()> {
    match &flags.command {
        IsoCommand::Show { file } => print(file),
        IsoCommand::Set { file, kargs, install_to } => {
            if kargs.is_empty() && install_to.is_none() {
                bail!("nothing to set: name --karg or --install-to, or use `bootpress iso reset`");
            }
            let now = iso::show(file)?.settings;
            let settings = Settings {
                kernel_arguments: if kargs.is_empty() {
                    now.kernel_arguments
                } else {
                    kargs.clone()
                },
                install_to: install_to.clone().or(now.install_to),
            };
            iso::set(file, &settings)?;
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
    let selector = shown.settings.install_to.as_ref().map_or("asks for the disk", Selector::text);
    let arguments = shown.settings.kernel_arguments.join(" ");
    writeln!(
        io::stdout().lock(),
        "{:<16} {}\n{:<16} {}\n{:<16} {selector}",
        "volume id",
        shown.volume_id,
        "kernel arguments",
        if arguments.is_empty() { "none" } else { &arguments },
        "install to",
    )
    .context("printing the settings")
}
