//! Everything that a build depends on besides the image's bytes, in parts that are judged before anything is opened.

mod disk;
mod output;
mod system;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

use crate::architecture::Architecture;
use crate::bootloader::Loader;
use crate::config::Config;
use crate::disk::{DiskSize, Preset, SectorSize};
use crate::filesystem_kind::{FileSystem, XfsProfile};
use crate::name::{Compression, SubvolumeName};
use crate::oci::{Access, Reference};
use crate::sbom::Form;
use crate::trust::{Demand, SigningKey};

pub use output::{AnacondaRequest, Destination, MediumRequest, OutputRequest, default_volume_id};
pub use system::{SystemRequest, Transport};

/// What to build, how, and where to put it.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it is built from.
    pub image: ImageRequest,
    /// The disk.
    pub disk: DiskRequest,
    /// The system that is installed on it.
    pub system: SystemRequest,
    /// Application images beside that system.
    pub applications: ApplicationsRequest,
    /// The files that are written.
    pub output: OutputRequest,
    /// Documents that are written beside them.
    pub documents: DocumentsRequest,
    /// What a configuration file asks for.
    pub config: Config,
    /// What UUIDs derive from besides the manifest's digest.
    pub seed: String,
    /// Where the unpacked image is kept while it is worked on.
    pub work_directory: PathBuf,
}

/// What is written beside the files of a build, about them.
#[derive(Clone, Debug, Default)]
pub struct DocumentsRequest {
    /// Bills of materials, each form once.
    pub sboms: Vec<Form>,
    /// A statement about how they were built; `None`: none is written.
    pub provenance: Option<ProvenanceRequest>,
}

/// What the name of the provenance ends with.
pub const PROVENANCE: &str = "provenance.json";

/// What a provenance states besides what the build knows itself.
#[derive(Clone, Debug)]
pub struct ProvenanceRequest {
    /// The flags that count for the bytes of the files, as they are typed.
    pub arguments: Vec<String>,
    /// Flags that name files, and the files' SHA-256.
    pub inputs: Vec<(String, String)>,
    /// What signs it; `None`: nothing.
    pub key: Option<Arc<SigningKey>>,
}

impl DocumentsRequest {
    /// What the names of the documents end with.
    pub fn extensions(&self) -> Vec<&'static str> {
        let provenance = self.provenance.as_ref().map(|_| PROVENANCE);
        self.sboms.iter().map(|form| form.extension()).chain(provenance).collect()
    }
}

/// An image, and how it is got.
#[derive(Clone, Debug)]
pub struct ImageRequest {
    /// Where it is.
    pub reference: Reference,
    /// The architecture to take from it.
    pub architecture: Architecture,
    /// How registries are reached, and what is kept of what they send.
    pub access: Access,
    /// Who has to vouch for it.
    pub trust: Demand,
    /// What it is called, whatever it is opened by; `None`: what it is opened by says it.
    pub called: Option<Option<String>>,
}

/// What is asked of the disk.
#[derive(Clone, Debug)]
pub struct DiskRequest {
    /// Which partitions, where nobody lays out others.
    pub preset: Preset,
    /// Bytes of a sector.
    pub sector_size: SectorSize,
    /// Size of the whole disk; `None`: what is needed, and room for one upgrade.
    pub size: Option<DiskSize>,
    /// Bytes that a disk has at least whose size nobody names.
    pub least_size: u64,
    /// The root's file system; `None`: what a layout or the image says, else ext4.
    pub root: Option<FileSystem>,
    /// How a root on btrfs compresses; `None`: not at all.
    pub btrfs_compression: Option<Compression>,
    /// The subvolume that a root on btrfs is in; `None`: none is made.
    pub btrfs_subvolume: Option<SubvolumeName>,
    /// Which features an XFS has; `None`: what the image's kernel and GRUB understand.
    pub xfs_profile: Option<XfsProfile>,
    /// Whether the image's boot loader is installed. Without it the disk boots by other means or not at all.
    pub install_bootloader: bool,
    /// Which one; `None`: what the image configures, else by bootupd's rules.
    pub loader: Option<Loader>,
    /// Whether a layout inside the image counts, where the configuration has none.
    pub image_layout: bool,
    /// Whether the root shall fill its disk at the first boot.
    pub grow: bool,
}

/// What is asked about application images.
#[derive(Clone, Debug, Default)]
pub struct ApplicationsRequest {
    /// What is done about those that the image is bound to.
    pub bound: BoundImages,
    /// Where some of them are.
    pub sources: Vec<ApplicationSource>,
}

/// Where an application image is.
#[derive(Clone, Debug)]
pub struct ApplicationSource {
    /// The name by which the system is bound to it.
    pub name: String,
    /// Where it is.
    pub reference: Reference,
}

/// What is done about application images that the image is bound to; bootc's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BoundImages {
    /// The machine pulls them when it first uses them.
    #[default]
    Skip,
    /// They are put on the disk; all of them have to be given.
    Stored,
    /// They are put on the disk; those that are not given are pulled.
    Pull,
}

impl Default for DiskRequest {
    /// A disk of which nobody asks for anything.
    fn default() -> Self {
        Self {
            preset: Preset::Bootc,
            sector_size: SectorSize::S512,
            size: None,
            least_size: 0,
            root: None,
            btrfs_compression: None,
            btrfs_subvolume: None,
            xfs_profile: None,
            install_bootloader: true,
            loader: None,
            image_layout: true,
            grow: false,
        }
    }
}

impl Request {
    /// A build that asks for nothing and writes nothing: front ends change what they are told.
    pub fn new(reference: Reference, architecture: Architecture, work_directory: &Path) -> Self {
        Self {
            image: ImageRequest {
                reference,
                architecture,
                access: Access::default(),
                trust: Demand::default(),
                called: None,
            },
            disk: DiskRequest::default(),
            system: SystemRequest::default(),
            applications: ApplicationsRequest::default(),
            output: OutputRequest::in_directory(work_directory),
            documents: DocumentsRequest::default(),
            config: Config::default(),
            seed: String::new(),
            work_directory: work_directory.to_owned(),
        }
    }

    /// Judges everything that can be judged without the image. Touches no file but those that say what this machine can do.
    ///
    /// `Unsupported` for what contradicts itself or cannot be had; the error names the flag or the key.
    pub fn check(&self) -> Result<()> {
        let layout = self.config.blueprint.layout.as_ref();
        self.disk.check(layout)?;
        self.system.check()?;
        self.output.check(&self.disk)
    }
}
