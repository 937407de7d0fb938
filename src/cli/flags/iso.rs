//! Flags of `build` that concern media, and of `iso`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use bootpress::iso::{Selector, Settings};
use bootpress::output::FileFormat;
use bootpress::request::Medium;
use clap::{Args, Subcommand};

/// What `--format` names: a disk file, or a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Disk(FileFormat),
    Iso,
}

impl Wanted {
    /// The format, if it is one of disks.
    pub(crate) fn disk(self) -> Option<FileFormat> {
        match self {
            Self::Disk(format) => Some(format),
            Self::Iso => None,
        }
    }
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "iso" => Ok(Self::Iso),
            "anaconda-iso" => Err("bootpress makes no media with Anaconda; `iso` boots live and installs, from the image alone".to_owned()),
            name => name.parse().map(Self::Disk).map_err(|error: String| format!("{error}, or iso")),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(format) => format.fmt(f),
            Self::Iso => f.pad("iso"),
        }
    }
}

/// What a medium is called, and what it does by itself.
#[derive(Debug, Default, Args)]
pub(crate) struct MediumFlags {
    /// The label of an ISO, at most 32 of A-Z a-z 0-9 _ . - [default: the image's name and version]
    #[arg(long, value_name = "LABEL", help_heading = "ISO")]
    pub(crate) volume_id: Option<String>,

    /// Who an ISO says that it is from
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        help_heading = "ISO"
    )]
    pub(crate) publisher: String,

    /// The application that an ISO says it is for
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        help_heading = "ISO"
    )]
    pub(crate) application_id: String,

    /// An ISO that installs without asking, after a countdown, to the one disk that this selects: serial=TEXT, wwn=TEXT,
    /// path=/dev/NAME, size>=SIZE or only-disk. Everything on that disk is lost
    #[arg(long, value_name = "SELECTOR", value_parser = Selector::parse, help_heading = "ISO")]
    pub(crate) install_to: Option<Selector>,
}

impl MediumFlags {
    /// As the engine wants it.
    pub(crate) fn medium(&self) -> Medium {
        Medium {
            volume_id: self.volume_id.clone(),
            publisher: self.publisher.clone(),
            application: self.application_id.clone(),
            settings: Settings {
                kernel_arguments: Vec::new(),
                install_to: self.install_to.clone(),
            },
        }
    }

    /// The flag that only a medium has a use for, if one was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        [
            ("--volume-id", self.volume_id.is_some()),
            ("--publisher", !self.publisher.is_empty()),
            ("--application-id", !self.application_id.is_empty()),
            ("--install-to", self.install_to.is_some()),
        ]
        .into_iter()
        .find_map(|(name, given)| given.then_some(name))
    }
}

/// Changes a finished ISO in place.
#[derive(Debug, Args)]
pub(crate) struct IsoFlags {
    #[command(subcommand)]
    pub(crate) command: IsoCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IsoCommand {
    /// Show what was set
    Show {
        /// The ISO
        file: PathBuf,
    },
    /// Set kernel arguments and the disk to install to; what is not named stays as it is
    Set {
        /// The ISO
        file: PathBuf,

        /// A further kernel argument of the live system and the installer; repeat it for several. They replace those set before
        #[arg(long = "karg", value_name = "ARG", allow_hyphen_values = true)]
        kargs: Vec<String>,

        /// Install without asking, after a countdown, to the one disk that this selects: serial=TEXT, wwn=TEXT,
        /// path=/dev/NAME, size>=SIZE or only-disk. Everything on that disk is lost
        #[arg(long, value_name = "SELECTOR", value_parser = Selector::parse)]
        install_to: Option<Selector>,
    },
    /// Take everything back that was set
    Reset {
        /// The ISO
        file: PathBuf,
    },
}
