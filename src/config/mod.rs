//! What users ask for in files: blueprints (`--config`) and layouts inside of images.
//!
//! ```text
//! config.toml, .json ─► document ─► Blueprint ─► customize: /etc and /var of the deployment
//!                                          ─► provision: a script, for a system that is finished
//!                                          ─► kickstart: for Anaconda, which installs another image
//! disk.yaml          ─► document ─► Layout    ─► disk: partitions
//! ```
//!
//! A file is read and judged as a whole before anything is fetched: all mistakes are told at once, with line and column.

mod accounts;
mod blueprint;
mod containers;
mod customize;
mod disk;
mod document;
mod files;
mod in_image;
mod installer;
mod kickstart;
mod layout;
mod provision;
mod repart;
mod size;
mod system;
mod table;

#[cfg(test)]
mod tests;

use anyhow::Result;

use document::Language;
use table::Problems;

pub use accounts::{Group, Owner, User};
pub use blueprint::Blueprint;
pub use containers::{Container, Containers};
pub use customize::{
    Changes, Grow, Mount, Mounting, Places, customize, customize_boot, kernel_arguments,
};
pub use files::{Directory, File, Ownership, ReadFile};
pub use in_image::{MediumInImage, layout_in_image, medium_in_image};
pub use installer::Installer;
pub use kickstart::{Installation, Kickstart, kickstart};
pub use layout::{Filesystem, Layout, MountStyle, Partition, Payload, Subvolume, TableKind};
pub use provision::provision;
pub use system::{Firewall, Ignition, Locale, Script, Services, Sshd, Timezone};

/// A configuration that has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What it asks for.
    pub blueprint: Blueprint,
    /// The file that it is from, for messages.
    pub origin: String,
    /// What is worth saying about it, a line each, with the place in the file.
    pub warnings: Vec<String>,
}

/// How a configuration is judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// Whether keys that are unknown or cannot be honoured are skipped with a warning.
    pub lenient: bool,
    /// What is made: some keys are for nothing else.
    pub purpose: Purpose,
}

/// What is made with a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Disks.
    #[default]
    Disk,
    /// A medium that boots live and installs.
    Medium,
    /// A medium with Anaconda, which is told by a kickstart.
    Anaconda,
}

impl Config {
    /// Reads a blueprint.
    ///
    /// `file` is its name for messages, and tells the language: JSON for `.json` and `-`, else TOML. `read` gets at the files
    /// that `uri` names.
    pub fn read(text: &str, file: &str, reading: Reading, read: &ReadFile<'_>) -> Result<Self> {
        let json = file == "-" || file.to_ascii_lowercase().ends_with(".json");
        let language = if json { Language::Json } else { Language::Toml };
        let shown = if file == "-" { "standard input" } else { file };
        let node = document::parse(text, language, shown)?;
        let mut problems = Problems::of(shown);
        let mut blueprint = blueprint::read(&node, reading.purpose, read, &mut problems);
        if let Some(layout) = &mut blueprint.layout {
            layout.origin = shown.to_owned();
        }
        Ok(Self {
            blueprint,
            origin: shown.to_owned(),
            warnings: problems.settle(reading.lenient)?,
        })
    }
}
