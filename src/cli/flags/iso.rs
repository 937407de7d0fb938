//! Flags of `build` that concern media, and of `iso`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, anyhow};
use bootpress::config::{Blueprint, Installer};
use bootpress::filesystem_kind::FileSystem;
use bootpress::iso::{MediumKind, Selector, Settings, Url};
use bootpress::name::VolumeId;
use bootpress::oci::Reference;
use bootpress::output::FileFormat;
use bootpress::request::{AnacondaRequest, MediumRequest};
use clap::{Args, Subcommand};

use super::config::SetConfigFlags;

/// What `--format` names: a disk file, or a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Disk(FileFormat),
    Medium(MediumKind),
}

impl Wanted {
    /// The format, if it is one of disks.
    pub(crate) fn disk(self) -> Option<FileFormat> {
        match self {
            Self::Disk(format) => Some(format),
            Self::Medium(_) => None,
        }
    }

    /// The kind of medium, if it is one.
    pub(crate) fn medium(self) -> Option<MediumKind> {
        match self {
            Self::Disk(_) => None,
            Self::Medium(kind) => Some(kind),
        }
    }
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match MediumKind::ALL.into_iter().find(|kind| kind.name() == name) {
            Some(kind) => Ok(Self::Medium(kind)),
            None => name.parse().map(Self::Disk).map_err(|error: String| {
                // Only a name that is not known leaves other choices.
                let others = if error.starts_with("unknown format") {
                    ", iso, pxe, anaconda-iso"
                } else {
                    ""
                };
                error + others
            }),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(format) => format.fmt(f),
            Self::Medium(kind) => f.pad(kind.name()),
        }
    }
}

/// What a medium is called, and what it does by itself.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "ISO")]
pub(crate) struct MediumFlags {
    /// Set the label of the ISO
    ///
    /// It has at most 32 of the characters A-Z a-z 0-9 _ . - and is the image's name and version without this flag.
    #[arg(long, value_name = "LABEL", hide_short_help = true)]
    pub(crate) volume_id: Option<VolumeId>,

    /// Set the publisher that the ISO names
    #[arg(long, value_name = "TEXT", hide_short_help = true, value_parser = descriptor_text)]
    pub(crate) publisher: Option<String>,

    /// Set the application that the ISO names
    #[arg(long, value_name = "TEXT", hide_short_help = true, value_parser = descriptor_text)]
    pub(crate) application_id: Option<String>,

    /// Set the image that --format anaconda-iso installs
    ///
    /// The ISO carries it. Without this flag, the image with Anaconda installs itself.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) installer_payload: Option<Reference>,

    /// Say where the directory of --format pxe will be served
    ///
    /// http://HOST[:PORT]/PATH. Machines fetch its files from there, even if they found GRUB or iPXE by TFTP. Without this flag they fetch
    /// them from where they found the menu.
    #[arg(long, value_name = "URL", value_parser = Url::parse)]
    pub(crate) pxe_url: Option<Url>,

    /// Install to the selected disk without asking
    ///
    /// The selector is serial=TEXT, wwn=TEXT, path=/dev/NAME, size>=SIZE or only-disk. Installation starts after a countdown that any key stops,
    /// if exactly one disk matches. Everything on that disk is lost.
    #[arg(long, value_name = "SELECTOR", value_parser = Selector::parse)]
    pub(crate) install_to: Option<Selector>,
}

impl MediumFlags {
    /// As the engine wants it; a flag goes before what the configuration says.
    pub(crate) fn medium(
        &self,
        kinds: Vec<MediumKind>,
        configured: &Installer,
    ) -> Result<MediumRequest> {
        let either = |flag: &Option<String>, configured: &Option<String>| {
            flag.clone().or_else(|| configured.clone())
        };
        let install_to = match (&self.install_to, &configured.device) {
            (Some(selector), _) => Some(selector.clone()),
            (None, Some(device)) => Some(selector(&format!("path={device}"))?),
            // Nobody says which disk, so there must be no choice.
            (None, None) if configured.unattended => Some(selector("only-disk")?),
            (None, None) => None,
        };
        Ok(MediumRequest {
            kinds,
            url: self.pxe_url.clone(),
            volume_id: self.volume_id.clone().or_else(|| configured.volume_id.clone()),
            publisher: either(&self.publisher, &configured.publisher).unwrap_or_default(),
            application: either(&self.application_id, &configured.application_id)
                .unwrap_or_default(),
            settings: Settings { kernel_arguments: Vec::new(), install_to },
            anaconda: None,
        })
    }

    /// What Anaconda does on its medium.
    pub(crate) fn anaconda(
        &self,
        blueprint: Blueprint,
        filesystem: Option<FileSystem>,
    ) -> AnacondaRequest {
        AnacondaRequest { payload: self.installer_payload.clone(), filesystem, blueprint }
    }

    /// A flag that was given though none of these kinds has a use for it, and the format that has.
    pub(crate) fn idle(&self, kinds: &[MediumKind]) -> Option<(&'static str, &'static str)> {
        const ISO: &[MediumKind] = &[MediumKind::Iso, MediumKind::Anaconda];
        const ANACONDA: &[MediumKind] = &[MediumKind::Anaconda];
        const PXE: &[MediumKind] = &[MediumKind::Pxe];
        [
            ("--volume-id", self.volume_id.is_some(), ISO),
            ("--publisher", self.publisher.is_some(), ISO),
            ("--application-id", self.application_id.is_some(), ISO),
            ("--install-to", self.install_to.is_some(), &MediumKind::ALL),
            ("--installer-payload", self.installer_payload.is_some(), ANACONDA),
            ("--pxe-url", self.pxe_url.is_some(), PXE),
        ]
        .into_iter()
        .filter(|(_, given, used)| *given && !used.iter().any(|kind| kinds.contains(kind)))
        .map(|(name, _, used)| (name, used[0].name()))
        .next()
    }
}

/// What the volume descriptor of ISO 9660 has room for.
fn descriptor_text(text: &str) -> Result<String, String> {
    if text.len() > 128 || !text.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return Err("expected at most 128 ASCII characters".to_owned());
    }
    Ok(text.to_owned())
}

/// Where an installation goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Ask,
    Disk(Selector),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ask" => Ok(Self::Ask),
            text => Selector::parse(text).map(Self::Disk),
        }
    }
}

fn selector(text: &str) -> Result<Selector> {
    Selector::parse(text).map_err(|reason| anyhow!("customizations.installation_device: {reason}"))
}

/// Show or change the settings of an ISO, in place
#[derive(Debug, Args)]
pub(crate) struct IsoFlags {
    #[command(subcommand)]
    pub(crate) command: IsoCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IsoCommand {
    /// Show the settings
    Show {
        /// Name the ISO
        file: PathBuf,

        /// Print the settings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Set kernel arguments, the target disk, and a blueprint
    ///
    /// What is not named stays as it is.
    Set {
        /// Name the ISO
        file: PathBuf,

        /// Add a kernel argument to the live system and the installer
        ///
        /// Repeat the flag for several. They replace those that were set before.
        #[arg(long = "karg", value_name = "ARG", allow_hyphen_values = true)]
        kargs: Vec<String>,

        /// Install to the selected disk without asking
        ///
        /// The selector is serial=TEXT, wwn=TEXT, path=/dev/NAME, size>=SIZE or only-disk. Everything on that disk is lost. `ask` makes the
        /// installer ask again.
        #[arg(long, value_name = "SELECTOR")]
        install_to: Option<Target>,

        #[command(flatten)]
        config: SetConfigFlags,
    },
    /// Remove all settings
    Reset {
        /// Name the ISO
        file: PathBuf,
    },
}
