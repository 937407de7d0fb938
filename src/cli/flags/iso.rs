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
            None => name
                .parse()
                .map(Self::Disk)
                .map_err(|error: String| format!("{error}, or iso, pxe, anaconda-iso")),
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
    /// The label of an ISO, at most 32 of A-Z a-z 0-9 _ . - [default: the image's name and version]
    #[arg(long, value_name = "LABEL")]
    pub(crate) volume_id: Option<VolumeId>,

    /// Who an ISO says that it is from
    #[arg(long, value_name = "TEXT", value_parser = descriptor_text)]
    pub(crate) publisher: Option<String>,

    /// The application that an ISO says it is for
    #[arg(long, value_name = "TEXT", value_parser = descriptor_text)]
    pub(crate) application_id: Option<String>,

    /// The image that --format anaconda-iso installs, which its medium carries [default: IMAGE, which has to hold Anaconda itself]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) installer_payload: Option<Reference>,

    /// Where the directory of --format pxe will be, as http://HOST[:PORT]/PATH; what it holds is then fetched from there, even by
    /// machines that found GRUB or iPXE by TFTP [default: wherever they found its menu]
    #[arg(long, value_name = "URL", value_parser = Url::parse)]
    pub(crate) pxe_url: Option<Url>,

    /// An ISO, or a boot from the network, that installs without asking, after a countdown, to the one disk that this selects:
    /// serial=TEXT, wwn=TEXT, path=/dev/NAME, size>=SIZE or only-disk. Everything on that disk is lost
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

        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Set kernel arguments, the disk to install to, and a configuration; what is not named stays as it is
    Set {
        /// The ISO
        file: PathBuf,

        /// A further kernel argument of the live system and the installer; repeat it for several. They replace those set before
        #[arg(long = "karg", value_name = "ARG", allow_hyphen_values = true)]
        kargs: Vec<String>,

        /// Install without asking, after a countdown, to the one disk that this selects: serial=TEXT, wwn=TEXT,
        /// path=/dev/NAME, size>=SIZE or only-disk. Everything on that disk is lost. `ask` asks again
        #[arg(long, value_name = "SELECTOR")]
        install_to: Option<Target>,

        #[command(flatten)]
        config: SetConfigFlags,
    },
    /// Take everything back that was set
    Reset {
        /// The ISO
        file: PathBuf,
    },
}
