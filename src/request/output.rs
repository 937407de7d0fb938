//! The files that a build writes: disks in their formats, and media.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::DiskRequest;
use crate::config::{self, Blueprint};
use crate::disk::SectorSize;
use crate::error::unsupported;
use crate::filesystem_kind::FileSystem;
use crate::image::Image;
use crate::iso::{self, MediumKind};
use crate::name::VolumeId;
use crate::naming::{Naming, Origin, Subject};
use crate::oci::Reference;
use crate::output::{self, ClusterCompression, FileFormat, Target};

/// Bytes of the longest publisher and application ID: fields of the primary volume descriptor (ECMA-119, section 8.4).
const LONGEST_MEDIUM_TEXT: usize = 128;

/// Bytes of the longest file name (`NAME_MAX`).
const LONGEST_NAME: usize = 255;

/// What is written, and where.
#[derive(Clone, Debug)]
pub struct OutputRequest {
    /// The formats of the disk, each once.
    pub formats: Vec<FileFormat>,
    /// How a qcow2's clusters are compressed.
    pub qcow2_compression: Option<ClusterCompression>,
    /// Media that boot live and install the disk, or start the image's own installer.
    pub medium: Option<MediumRequest>,
    /// Where the files go.
    pub destination: Destination,
    /// How files in a directory are named; `None`: `<image name>-<version>.<arch>.<ext>`.
    pub naming: Option<Naming>,
    /// Whether everything is done but for writing the files.
    pub dry_run: bool,
}

/// What is asked of a medium.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediumRequest {
    /// The kinds to make, each once; never empty.
    pub kinds: Vec<MediumKind>,
    /// Where machines that boot from the network find what is made for them; `None`: where they found its menu.
    pub url: Option<iso::Url>,
    /// The volume ID, which `blkid` shows as label; `None`: what the image says, else made of its name and version.
    pub volume_id: Option<VolumeId>,
    /// Who made it.
    pub publisher: String,
    /// The application that it is for.
    pub application: String,
    /// What can be changed afterwards.
    pub settings: iso::Settings,
    /// For a medium with Anaconda: what it installs, and how.
    pub anaconda: Option<AnacondaRequest>,
}

/// What Anaconda does on its medium.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnacondaRequest {
    /// The image that it installs; `None`: the one that it is in.
    pub payload: Option<Reference>,
    /// The file system of the root that it makes; `None`: what the image configures, else ext4.
    pub filesystem: Option<FileSystem>,
    /// What it is told; the configuration of the request is that of the disk, which is not on this medium.
    pub blueprint: Blueprint,
}

/// Where the files go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Into a directory, under names that say what they are.
    Directory(PathBuf),
    /// This very file; for a request with one format.
    File(PathBuf),
    /// A file for each format, in their order.
    Files(Vec<PathBuf>),
}

impl OutputRequest {
    /// Nothing yet, in a directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            formats: Vec::new(),
            qcow2_compression: None,
            medium: None,
            destination: Destination::Directory(directory.to_owned()),
            naming: None,
            dry_run: false,
        }
    }

    /// Whether a disk is written, or is on a medium that is.
    pub fn needs_disk(&self) -> bool {
        let carries = |medium: &MediumRequest| medium.kinds.iter().any(|kind| kind.carries_disk());
        self.medium.as_ref().is_none_or(carries) || !self.formats.is_empty()
    }

    /// Refuses what no image could be made to fit.
    pub(super) fn check(&self, disk: &DiskRequest) -> Result<()> {
        if let Some(naming) = &self.naming {
            naming.check(&self.subjects())?;
        }
        for format in &self.formats {
            if disk.sector_size == SectorSize::S4096 && !format.format.takes_large_sectors() {
                return Err(unsupported(
                    format!("disks of format {} have sectors of 512 bytes", format.format),
                    Some("build with --sector-size 512, or as raw, qcow2 or vhdx"),
                ));
            }
        }
        let Some(medium) = &self.medium else { return Ok(()) };
        if disk.sector_size != SectorSize::S512 {
            return Err(unsupported(
                "a medium installs to disks with sectors of 512 bytes, and this disk would have others",
                Some("build the medium without --sector-size"),
            ));
        }
        if !disk.install_bootloader {
            return Err(unsupported(
                "a medium starts with the image's boot loader",
                Some("build it without --bootloader none"),
            ));
        }
        if let Some(anaconda) = &medium.anaconda {
            // What a kickstart cannot say is told before the image is opened.
            let said = config::Installation {
                transport: "registry",
                target: "",
                filesystem: FileSystem::Ext4,
                arguments: &[],
                disk: medium.settings.install_to.as_ref().map(iso::Selector::text),
                seed: "",
            };
            config::kickstart(&anaconda.blueprint, &said)?;
        }
        for (flag, text) in
            [("--publisher", &medium.publisher), ("--application-id", &medium.application)]
        {
            let fits = |c: char| c.is_ascii_graphic() || c == ' ';
            if text.len() > LONGEST_MEDIUM_TEXT || !text.chars().all(fits) {
                return Err(unsupported(
                    format!(
                        "invalid {flag} {text:?}: expected at most {LONGEST_MEDIUM_TEXT} ASCII characters"
                    ),
                    None,
                ));
            }
        }
        Ok(())
    }

    /// The disk files to write, for an image opened by `reference`; for a dry run, those that would be written. Fails if they
    /// cannot be written where they go, or documents with these extensions beside them. `version` is that of the image's os-release;
    /// before that is read, names are provisional.
    pub fn targets(
        &self,
        reference: &Reference,
        image: &Image,
        version: Option<&str>,
        documents: &[&str],
    ) -> Result<Vec<Target>> {
        let medium_path = |kind| self.medium_path(reference, image, version, kind);
        for kind in self.medium.iter().flat_map(|medium| &medium.kinds) {
            let path = medium_path(*kind)?;
            if kind.is_directory() && path.exists() && !path.is_dir() {
                return Err(unsupported(
                    format!("{} is a file, and {} makes a directory", path.display(), kind.name()),
                    Some("name another one with --output"),
                ));
            }
        }
        let path = |index: usize, format: FileFormat| -> Result<PathBuf> {
            Ok(match &self.destination {
                Destination::File(file) => file.clone(),
                Destination::Files(files) => files[index].clone(),
                Destination::Directory(directory) => {
                    let subject = Subject::Disk(format);
                    directory.join(self.name(subject, reference, image, version)?)
                }
            })
        };
        let formats = self.formats.iter().enumerate();
        let targets =
            formats.map(|(index, format)| Ok(Target::new(*format, path(index, *format)?)));
        let targets: Vec<_> = targets.collect::<Result<_>>()?;
        let kinds = self.medium.iter().flat_map(|medium| &medium.kinds);
        let media = kinds.filter(|kind| !kind.is_directory()).map(|kind| medium_path(*kind));
        let disks = targets.iter().map(|target| Ok(target.path.clone()));
        let documents =
            documents.iter().map(|one| self.document_path(reference, image, version, one));
        for path in disks.chain(media).chain(documents) {
            let path = path?;
            check_name(&path)?;
            if !self.dry_run {
                output::check_place(&path)?;
            }
        }
        Ok(targets)
    }

    /// Where a medium goes.
    pub fn medium_path(
        &self,
        reference: &Reference,
        image: &Image,
        version: Option<&str>,
        kind: MediumKind,
    ) -> Result<PathBuf> {
        let kinds = self.medium.as_ref().map_or(&[][..], |medium| &medium.kinds);
        let index = kinds.iter().position(|other| *other == kind).unwrap_or(0);
        Ok(match &self.destination {
            Destination::File(file) => file.clone(),
            // Disks come first.
            Destination::Files(files) => files[self.formats.len() + index].clone(),
            Destination::Directory(directory) => {
                directory.join(self.name(Subject::Medium(kind), reference, image, version)?)
            }
        })
    }

    /// The name of a file in a directory.
    fn name(
        &self,
        subject: Subject,
        reference: &Reference,
        image: &Image,
        version: Option<&str>,
    ) -> Result<String> {
        /// Stands for what is not read yet.
        const PROVISIONAL: &str = "0";
        let Some(naming) = &self.naming else {
            let extension = match subject {
                Subject::Disk(format) => format.extension(),
                Subject::Medium(kind) => kind.extension().to_owned(),
            };
            return Ok(file_name(reference, image, &extension));
        };
        let stem = reference.file_stem();
        let os_version = version.unwrap_or(PROVISIONAL);
        naming.name(subject, Origin { stem: &stem, image, os_version })
    }

    /// Where a document goes that is written beside the files: with their name and another extension, or behind the name of the
    /// only file.
    pub fn document_path(
        &self,
        reference: &Reference,
        image: &Image,
        version: Option<&str>,
        extension: &str,
    ) -> Result<PathBuf> {
        let behind = |file: &Path| {
            let mut name = file.as_os_str().to_owned();
            name.push(format!(".{extension}"));
            PathBuf::from(name)
        };
        Ok(match &self.destination {
            Destination::File(file) => behind(file),
            Destination::Files(files) => {
                files.first().map_or_else(PathBuf::new, |file| behind(file))
            }
            Destination::Directory(directory) => match self.subjects().first() {
                // A template says which file is which, so the documents are those of the first.
                Some(first) if self.naming.is_some() => {
                    behind(&directory.join(self.name(*first, reference, image, version)?))
                }
                _ => directory.join(file_name(reference, image, extension)),
            },
        })
    }

    /// What is written: disks, then media.
    pub fn subjects(&self) -> Vec<Subject> {
        let disks = self.formats.iter().map(|format| Subject::Disk(*format));
        let media = self.medium.iter().flat_map(|medium| &medium.kinds);
        disks.chain(media.map(|kind| Subject::Medium(*kind))).collect()
    }

    /// The size of the disk must be a multiple of this many bytes, for all the formats.
    pub fn size_unit(&self) -> u64 {
        self.formats.iter().map(|format| format.format.size_unit()).max().unwrap_or(1)
    }
}

/// Refuses names that no file system takes, before all the work is done.
fn check_name(path: &Path) -> Result<()> {
    let length = path.file_name().map_or(0, |name| name.len());
    if length > LONGEST_NAME {
        let what = format!(
            "the name of the disk's file would have {length} bytes, and names end at {LONGEST_NAME}: \
             it is made of the image's name and version"
        );
        return Err(unsupported(what, Some("name the file with --output")));
    }
    Ok(())
}

/// The volume ID of a medium when nobody says otherwise: `<image name>-<version>`, as far as it has room.
pub fn default_volume_id(reference: &Reference, image: &Image) -> VolumeId {
    let name = file_name(reference, image, "");
    let name = name.trim_end_matches('.').trim_end_matches(image.architecture.name());
    VolumeId::like(name.trim_end_matches('.'))
}

/// `<image name>-<version>.<arch>.<ext>`; without a version label, the beginning of the digest says which one it is.
fn file_name(reference: &Reference, image: &Image, extension: &str) -> String {
    let digest = image.manifest_digest.trim_start_matches("sha256:");
    let version = image.version().unwrap_or(&digest[..digest.len().min(12)]);
    let stem = format!("{}-{version}", reference.file_stem());
    let safe: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.+~".contains(c) { c } else { '_' })
        .collect();
    let safe = safe.trim_start_matches(['.', '-']);
    format!("{safe}.{}.{extension}", image.architecture)
}
