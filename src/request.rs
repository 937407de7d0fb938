//! Everything a build depends on besides the image's bytes.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::architecture::Architecture;
use crate::config::{Blueprint, Config};
use crate::disk::{DiskSize, Preset, SectorSize};
use crate::error::unsupported;
use crate::filesystem_kind::FileSystem;
use crate::image::Image;
use crate::iso::{self, MediumKind};
use crate::oci::{Access, Reference};
use crate::output::{ClusterCompression, FileFormat, Target};
use crate::trust::Demand;

/// What to build, how, and where to put it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The image.
    pub image: Reference,
    /// Who has to vouch for it.
    pub trust: Demand,
    /// How registries are reached, and what is kept of what they send.
    pub access: Access,
    /// The architecture to take from it.
    pub architecture: Architecture,
    /// The formats, each once.
    pub formats: Vec<FileFormat>,
    /// Media that boot live and install the disk, besides the disk files.
    pub medium: Option<Medium>,
    /// How a qcow2's clusters are compressed.
    pub qcow2_compression: Option<ClusterCompression>,
    /// Where the files go.
    pub destination: Destination,
    /// Which partitions.
    pub layout: Preset,
    /// Bytes of a sector of the disk.
    pub sector_size: SectorSize,
    /// Size of the whole disk; `None`: what is needed, and room for one upgrade.
    pub size: Option<DiskSize>,
    /// Bytes that a disk has at least whose size nobody names.
    pub least_size: u64,
    /// Root file system; `None`: what the image configures, else ext4.
    pub root_filesystem: Option<FileSystem>,
    /// How a root on btrfs compresses: what `compress=` means to `mount`.
    pub btrfs_compression: Option<String>,
    /// The subvolume of a root on btrfs that is mounted; `None`: none is made.
    pub btrfs_subvolume: Option<String>,
    /// Whether the image's boot loader is installed. Without it the disk boots by other means or not at all.
    pub install_bootloader: bool,
    /// The value of `root=`, empty for none; `None`: what the image configures, else the root's UUID.
    pub root_mount_spec: Option<String>,
    /// What is mounted on `/boot`, empty for nothing; `None`: what the image configures, else its UUID if it has one.
    pub boot_mount_spec: Option<String>,
    /// What UUIDs derive from besides the manifest's digest.
    pub seed: String,
    /// Whether the layout's own kernel arguments are added: osbuild has some.
    pub preset_kargs: bool,
    /// Kernel arguments to add, in order.
    pub kargs: Vec<String>,
    /// Kernel arguments to take away: `key` or `key=value`.
    pub karg_deletes: Vec<String>,
    /// The image name that the machine follows; `None`: the image it is made from.
    pub target_image: Option<String>,
    /// How the machine gets at that image.
    pub target_transport: Transport,
    /// Whether the machine's container policy decides about updates, even if the image does not ask for it.
    pub enforce_container_sigpolicy: bool,
    /// What is done about the images that the image is bound to.
    pub bound_images: BoundImages,
    /// Where some of them are: name and image.
    pub bound_image_sources: Vec<(String, Reference)>,
    /// Public keys that let root log in by ssh: the text of an `authorized_keys` file.
    pub root_ssh_keys: Option<Vec<u8>>,
    /// Stateroot; `None`: what the image configures, else `default`.
    pub stateroot: Option<String>,
    /// What a configuration file asks for.
    pub config: Config,
    /// Whether a layout inside the image counts, where the configuration has none.
    pub image_layout: bool,
    /// Whether the root shall fill its disk at the first boot.
    pub grow: bool,
    /// Whether everything is done but for writing the disk.
    pub dry_run: bool,
    /// Where the spool goes.
    pub work_directory: PathBuf,
}

/// What is asked of a medium.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Medium {
    /// The kinds to make, each once; never empty.
    pub kinds: Vec<MediumKind>,
    /// Where machines that boot from the network find what is made for them; `None`: where they found its menu.
    pub url: Option<iso::Url>,
    /// The label that `blkid` shows; `None`: made of the image's name and version.
    pub volume_id: Option<String>,
    /// Who made it.
    pub publisher: String,
    /// The application that it is for.
    pub application: String,
    /// What can be changed afterwards.
    pub settings: iso::Settings,
    /// For a medium with Anaconda: what it installs, and how.
    pub anaconda: Option<Anaconda>,
}

/// What Anaconda does on its medium.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anaconda {
    /// The image that it installs; `None`: the one that it is in.
    pub payload: Option<Reference>,
    /// The file system of the root that it makes; `None`: what the image configures, else ext4.
    pub filesystem: Option<FileSystem>,
    /// What it is told; the configuration of the request is that of the disk, which is not on this medium.
    pub blueprint: Blueprint,
}

/// How a machine gets at the image that it follows; bootc's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// From a registry.
    #[default]
    Registry,
    /// An OCI layout on the machine.
    Oci,
    /// The same as an archive.
    OciArchive,
    /// What podman has on the machine.
    ContainersStorage,
    /// An archive of docker's.
    DockerArchive,
    /// A directory that skopeo wrote.
    Directory,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Registry,
        Self::Oci,
        Self::OciArchive,
        Self::ContainersStorage,
        Self::DockerArchive,
        Self::Directory,
    ];

    /// The name that bootc gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Oci => "oci",
            Self::OciArchive => "oci-archive",
            Self::ContainersStorage => "containers-storage",
            Self::DockerArchive => "docker-archive",
            Self::Directory => "dir",
        }
    }

    /// A reference as container tools print it: `docker://NAME`, `oci:NAME`.
    pub fn reference(self, name: &str) -> String {
        match self {
            Self::Registry => format!("docker://{name}"),
            other => format!("{}:{name}", other.name()),
        }
    }
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

/// Where the disk files go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Into a directory, named `<image name>-<version>.<arch>.<ext>`.
    Directory(PathBuf),
    /// This very file; for a request with one format.
    File(PathBuf),
    /// A file for each format, in their order.
    Files(Vec<PathBuf>),
}

impl Request {
    /// The files to write; for a dry run, those that would be written. Fails early if their directory does not exist, or if a format cannot hold such a disk.
    pub fn targets(&self, image: &Image) -> Result<Vec<Target>> {
        let path = |index: usize, format: FileFormat| match &self.destination {
            Destination::File(file) => file.clone(),
            Destination::Files(files) => files[index].clone(),
            Destination::Directory(directory) => {
                directory.join(self.file_name(image, &format.extension()))
            }
        };
        for kind in self.medium.iter().flat_map(|medium| &medium.kinds) {
            let path = self.medium_path(image, *kind);
            if kind.is_directory() && path.exists() && !path.is_dir() {
                return Err(unsupported(
                    format!("{} is a file, and {} makes a directory", path.display(), kind.name()),
                    Some("name another one with --output"),
                ));
            }
        }
        let formats = self.formats.iter().enumerate();
        let targets: Vec<_> =
            formats.map(|(index, format)| Target::new(*format, path(index, *format))).collect();
        for Target { format, path } in &targets {
            if self.sector_size == SectorSize::S4096 && !format.format.takes_large_sectors() {
                return Err(unsupported(
                    format!("disks of format {} have sectors of 512 bytes", format.format),
                    Some("build with --sector-size 512, or as raw, qcow2 or vhdx"),
                ));
            }
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            if self.dry_run {
                continue;
            }
            if let Some(directory) = directory {
                directory
                    .metadata()
                    .with_context(|| format!("looking at directory {}", directory.display()))?;
            }
        }
        Ok(targets)
    }

    /// The media, by name, and where they go.
    pub fn media(&self, image: &Image) -> Vec<(&'static str, PathBuf)> {
        let kinds = self.medium.iter().flat_map(|medium| &medium.kinds);
        kinds.map(|kind| (kind.name(), self.medium_path(image, *kind))).collect()
    }

    /// Where a medium goes.
    pub fn medium_path(&self, image: &Image, kind: MediumKind) -> PathBuf {
        let kinds = self.medium.as_ref().map_or(&[][..], |medium| &medium.kinds);
        let index = kinds.iter().position(|other| *other == kind).unwrap_or(0);
        match &self.destination {
            Destination::File(file) => file.clone(),
            // Disks come first.
            Destination::Files(files) => files[self.formats.len() + index].clone(),
            Destination::Directory(directory) => {
                directory.join(self.file_name(image, kind.extension()))
            }
        }
    }

    /// The label of the medium when nobody says otherwise: `<image name>-<version>`, as far as a volume id can hold it.
    pub fn volume_id(&self, image: &Image) -> String {
        let name = self.file_name(image, "");
        let name = name.trim_end_matches('.').trim_end_matches(image.architecture.name());
        let safe = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' };
        name.trim_end_matches('.').chars().map(safe).take(32).collect()
    }

    /// The size of the disk must be a multiple of this many bytes, for all the formats.
    pub fn size_unit(&self) -> u64 {
        self.formats.iter().map(|format| format.format.size_unit()).max().unwrap_or(1)
    }

    /// `<image name>-<version>.<arch>.<ext>`; without a version label, the beginning of the digest says which one it is.
    fn file_name(&self, image: &Image, extension: &str) -> String {
        let digest = image.manifest_digest.trim_start_matches("sha256:");
        let version = image.version().unwrap_or(&digest[..digest.len().min(12)]);
        let stem = format!("{}-{version}", self.image.file_stem());
        let safe: String = stem
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.+~".contains(c) { c } else { '_' })
            .collect();
        let safe = safe.trim_start_matches(['.', '-']);
        format!("{safe}.{}.{extension}", image.architecture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_spelled_as_container_tools_do() {
        let spelled = Transport::ALL.map(|transport| transport.reference("x:1"));
        let expected = [
            "docker://x:1",
            "oci:x:1",
            "oci-archive:x:1",
            "containers-storage:x:1",
            "docker-archive:x:1",
            "dir:x:1",
        ];
        assert_eq!(spelled, expected);
    }
}
