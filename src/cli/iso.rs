//! `bootpress iso`: shows and changes the settings of a finished medium.

use std::path::Path;

use anyhow::{Result, bail};
use bootpress::config;
use bootpress::iso::{self, Settings};
use serde::Serialize;

use super::flags::iso::{IsoCommand, IsoFlags, Target};
use super::say::{self, Page};

/// Does what the flags ask for, and prints the settings as they are then.
pub(super) fn run(flags: &IsoFlags) -> Result<()> {
    match &flags.command {
        IsoCommand::Show { file, json } => print(file, *json),
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
                        super::say::say!("warning: {warning}");
                    }
                    Some(config::provision(&config.blueprint, &now.build_id)?)
                }
            };
            iso::set(file, &settings, configuration.as_deref())?;
            print(file, false)
        }
        IsoCommand::Reset { file } => {
            iso::reset(file)?;
            print(file, false)
        }
    }
}

/// What is set on a medium, for people and for programs.
#[derive(Debug, Serialize)]
pub(super) struct MediumFacts {
    volume_id: String,
    build_id: String,
    kernel_arguments: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    install_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<String>,
}

impl MediumFacts {
    /// `Unsupported` if the file is not a medium of ours.
    pub(super) fn of(file: &Path) -> Result<Self> {
        let shown = iso::show(file)?;
        // The script has hashes of passwords; its second line says what it does.
        let summary = |script: String| {
            script.lines().nth(1).map(|line| line.trim_start_matches("# ").to_owned())
        };
        Ok(Self {
            volume_id: shown.volume_id,
            build_id: shown.build_id,
            kernel_arguments: shown.settings.kernel_arguments,
            install_to: shown.settings.install_to.map(|selector| selector.text().to_owned()),
            configuration: shown.configuration.and_then(summary),
        })
    }

    /// A line each.
    pub(super) fn text(&self) -> String {
        let arguments = self.kernel_arguments.join(" ");
        let or = |text: &Option<String>, otherwise: &str| {
            text.clone().unwrap_or_else(|| otherwise.to_owned())
        };
        let mut page = Page::default();
        for (name, value) in [
            ("volume id", self.volume_id.clone()),
            ("build id", self.build_id.clone()),
            ("kernel arguments", if arguments.is_empty() { "none".to_owned() } else { arguments }),
            ("install to", or(&self.install_to, "asks for the disk")),
            ("configuration", or(&self.configuration, "none")),
        ] {
            page.line(format_args!("{name:<16} {value}"));
        }
        page.into_text()
    }
}

fn print(file: &Path, json: bool) -> Result<()> {
    let facts = MediumFacts::of(file)?;
    let context = "printing the settings";
    if json { say::print_json(&facts, context) } else { say::print(&facts.text(), context) }
}
