//! What was built: for programs as JSON, for people as a picture.

mod picture;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::architecture::Architecture;
use crate::attest::DocumentReport;
use crate::disk::PartitionReport;
use crate::image::{Image, LayerRecord};
use crate::iso::MediumKind;
use crate::make::{InstalledDisk, Made};
use crate::output::{DirectoryReport, FileReport};
use crate::plan::{Decision, Plan};
use crate::progress::Stage;
use crate::trust::Verdict;
use crate::written::{Written, WrittenMedium};

pub use picture::{Row, human, picture};

/// The form of the JSON; grows by one when a field changes its meaning or goes away.
const VERSION: u32 = 1;

/// Everything worth knowing about a build that succeeded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The form of this report.
    pub version: u32,
    /// What it was built from.
    pub image: ImageReport,
    /// Who vouches for it; `None`: nobody asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<Verdict>,
    /// The machine's architecture.
    pub architecture: Architecture,
    /// What boots.
    pub system: SystemReport,
    /// Bytes of the disk; 0 if nothing that was built carries one.
    pub size: u64,
    /// Its partitions, in order.
    pub partitions: Vec<PartitionReport>,
    /// The files it was written to, in the order in which they were asked for.
    pub files: Vec<FileReport>,
    /// Media that boot live and install, if any were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<MediumReport>,
    /// Documents that were written beside them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<DocumentReport>,
    /// The files that would have been written if this had not been a dry run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub planned: Vec<PlannedReport>,
    /// The choices of a dry run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decision>,
    /// Application images that the system is bound to and that are not on the disk: the machine pulls them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bound_images: Vec<String>,
    /// Application images stored on the disk.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stored_images: Vec<String>,
    /// What the configuration wrote into the system, by path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub configured: Vec<String>,
    /// How long each stage took, in the order in which they ran.
    pub stages: Vec<StageReport>,
    /// What the user should know though all went well.
    pub warnings: Vec<String>,
    /// Files that were written along with the disks: checksums, signatures, metadata.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<PublishedReport>,
    /// Facts for the files that are published with a disk; not part of the JSON.
    #[serde(skip)]
    pub origin: Option<OriginReport>,
}

/// A file that was written along with the disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublishedReport {
    /// Where it is.
    pub path: PathBuf,
    /// What it is: `checksums`, `signature`, `compose metadata`.
    pub what: &'static str,
}

/// What the image says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct OriginReport {
    /// Its manifest and config.
    pub image: Image,
    /// `NAME` of its os-release; empty: there is none.
    pub product: String,
    /// `VERSION_ID` of its os-release; empty: there is none.
    pub version: String,
}

/// A file that would have been written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedReport {
    /// Where it would be.
    pub path: PathBuf,
    /// What it would be: `qcow2`, `raw.xz`, `iso`.
    pub format: String,
}

/// A layer of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerReport {
    /// Digest of the blob: `sha256:…`.
    pub digest: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Media type, as the manifest spells it.
    pub media_type: String,
}

/// A medium that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MediumReport {
    /// Where it is.
    pub path: PathBuf,
    /// What it is: `iso`, `pxe`.
    pub format: &'static str,
    /// Bytes of the file, or of all files of a directory.
    pub size: u64,
    /// SHA-256 of the file, or of a directory's `SHA256SUMS`, which has those of its files; lower-case hexadecimal.
    pub sha256: String,
}

impl MediumReport {
    fn of(kind: MediumKind, written: WrittenMedium) -> Self {
        let format = kind.name();
        match written {
            WrittenMedium::File(FileReport { path, size, sha256, .. })
            | WrittenMedium::Directory(DirectoryReport { path, size, sha256 }) => {
                Self { path, format, size, sha256 }
            }
        }
    }
}

/// The image a disk was built from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageReport {
    /// The reference it was opened by.
    pub reference: String,
    /// Digest of the platform's manifest: `sha256:…`.
    pub digest: String,
    /// The version that people know it by.
    pub version: Option<String>,
    /// Its layers, lowest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerReport>,
}

impl LayerReport {
    fn of(layer: &LayerRecord) -> Self {
        let LayerRecord { digest, size, media_type, .. } = layer.clone();
        Self { digest, size, media_type }
    }
}

/// What boots from a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SystemReport {
    /// Boot loaders that were found and installed, one line each.
    pub bootloader: Vec<String>,
    /// Version of the kernel, as `uname -r` will say.
    pub kernel: String,
    /// The system on the disk; `None`: nothing that was built carries a disk.
    #[serde(flatten)]
    pub installed: Option<InstalledReport>,
}

/// A system that is installed on a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstalledReport {
    /// Kernel command line of the boot entry.
    pub command_line: String,
    /// Storage backend: `ostree`, `composefs`.
    pub backend: &'static str,
    /// Why it is that one.
    pub backend_because: String,
    /// What the deployed version is known by: the checksum of the ostree commit, or the digest of the composefs image.
    pub commit: String,
    /// The root file system: `ext4`, `xfs`, `btrfs`.
    pub root_filesystem: &'static str,
    /// Why it is that one.
    pub root_filesystem_because: &'static str,
}

/// How long a stage took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StageReport {
    /// Which.
    #[serde(serialize_with = "stage_name")]
    pub stage: Stage,
    /// How long; in JSON as seconds.
    #[serde(serialize_with = "seconds", rename = "seconds")]
    pub took: Duration,
}

impl Report {
    /// What a build has made and written, by its plan.
    pub fn of(plan: &Plan, made: Made, written: Written) -> Self {
        let Made {
            contents: _,
            image,
            verdict,
            bound_images,
            product: (product, version),
            stored_images,
            boot,
            kernel,
            disk,
            media: _,
        } = made;
        let Written { files, media, planned_files, planned_media } = written;
        let from = ImageReport {
            reference: image.reference.clone(),
            digest: image.manifest_digest.clone(),
            version: image.version().map(str::to_owned),
            layers: image.layers.iter().map(LayerReport::of).collect(),
        };
        let dry_run = !planned_files.is_empty() || !planned_media.is_empty();
        let (installed, disk) = match disk {
            Some(InstalledDisk { installed, disk }) => (Some(installed), Some(disk)),
            None => (None, None),
        };
        let system = SystemReport {
            bootloader: boot.found,
            kernel: kernel.version,
            installed: installed.as_ref().map(|installed| InstalledReport {
                command_line: installed.command_line.clone(),
                backend: plan.backend.backend.name(),
                backend_because: plan.backend.because.clone(),
                commit: installed.version.clone(),
                root_filesystem: plan.root.filesystem.name(),
                root_filesystem_because: plan.root.because,
            }),
        };
        let size = disk.as_ref().map_or(0, |disk| disk.map.size());
        let partitions = disk.map(|disk| disk.partitions).unwrap_or_default();
        let mut report = Self::new(from, image.architecture, system, size, partitions, files);
        report.trust = verdict;
        report.media =
            media.into_iter().map(|(kind, medium)| MediumReport::of(kind, medium)).collect();
        let files = planned_files.into_iter().map(|one| (one.path, one.format.to_string()));
        let media = planned_media.into_iter().map(|(kind, path)| (path, kind.name().to_owned()));
        report.planned =
            files.chain(media).map(|(path, format)| PlannedReport { path, format }).collect();
        report.decisions = if dry_run { plan.decisions() } else { Vec::new() };
        let absent = bound_images.into_iter().filter(|name| !stored_images.contains(name));
        report.bound_images = absent.collect();
        report.stored_images = stored_images;
        report.configured = installed.map(|installed| installed.written).unwrap_or_default();
        report.configured.sort();
        report.configured.dedup();
        report.warnings = boot.warnings;
        report.origin = Some(OriginReport { image, product, version });
        report
    }

    /// Adds documents to the report.
    pub fn with_documents(self, documents: Vec<DocumentReport>) -> Self {
        Self { documents, ..self }
    }

    /// A report of the current form about a disk that has been built; times and warnings are added by whoever listened.
    pub fn new(
        image: ImageReport,
        architecture: Architecture,
        system: SystemReport,
        size: u64,
        partitions: Vec<PartitionReport>,
        files: Vec<FileReport>,
    ) -> Self {
        Self {
            version: VERSION,
            image,
            trust: None,
            architecture,
            system,
            size,
            partitions,
            files,
            media: Vec::new(),
            documents: Vec::new(),
            planned: Vec::new(),
            decisions: Vec::new(),
            bound_images: Vec::new(),
            stored_images: Vec::new(),
            configured: Vec::new(),
            stages: Vec::new(),
            warnings: Vec::new(),
            published: Vec::new(),
            origin: None,
        }
    }
}

fn stage_name<S: Serializer>(stage: &Stage, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(stage.name())
}

fn seconds<S: Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::disk::{FilesystemReport, Role};
    use crate::output::Format;

    #[test]
    fn the_json_form() {
        let root = PartitionReport {
            number: 3,
            role: Role::Root,
            type_name: "Linux root (x86-64)",
            type_guid: "4f68bce3-e8cd-4db1-96e7-fbcaf984b709".to_owned(),
            guid: "00000000-0000-4000-8000-000000000005".to_owned(),
            name: "root".to_owned(),
            start: 514 << 20,
            size: 4 << 30,
            filesystem: Some(FilesystemReport {
                kind: "ext4",
                label: "root".to_owned(),
                uuid: "00000000-0000-4000-8000-000000000006".to_owned(),
                used: 1_900_000_000,
            }),
        };
        let file = FileReport {
            path: "disk.qcow2".into(),
            format: Format::Qcow2,
            compression: None,
            size: 4611 << 20,
            allocated: 1_910_000_000,
            sha256: "00".repeat(32),
            uncompressed: None,
        };
        let image = ImageReport {
            reference: "docker://quay.io/fedora/fedora-bootc:43".to_owned(),
            digest: format!("sha256:{}", "11".repeat(32)),
            version: None,
            layers: vec![LayerReport {
                digest: format!("sha256:{}", "33".repeat(32)),
                size: 1_500_000,
                media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
            }],
        };
        let system = SystemReport {
            bootloader: vec!["GRUB for UEFI, with shim".to_owned()],
            kernel: "6.17.1-300.fc43.x86_64".to_owned(),
            installed: Some(InstalledReport {
                command_line: "root=UUID=00000000-0000-4000-8000-000000000006 rw".to_owned(),
                backend: "ostree",
                backend_because: "as asked for".to_owned(),
                commit: "22".repeat(32),
                root_filesystem: "ext4",
                root_filesystem_because: "as asked for",
            }),
        };
        let mut report =
            Report::new(image, Architecture::X86_64, system, file.size, vec![root], vec![file]);
        report.stages.push(StageReport { stage: Stage::Write, took: Duration::from_millis(1500) });
        report.warnings.push("no signature was checked".to_owned());
        expect![[r#"
            {
              "version": 1,
              "image": {
                "reference": "docker://quay.io/fedora/fedora-bootc:43",
                "digest": "sha256:1111111111111111111111111111111111111111111111111111111111111111",
                "version": null,
                "layers": [
                  {
                    "digest": "sha256:3333333333333333333333333333333333333333333333333333333333333333",
                    "size": 1500000,
                    "media_type": "application/vnd.oci.image.layer.v1.tar+gzip"
                  }
                ]
              },
              "architecture": "x86_64",
              "system": {
                "bootloader": [
                  "GRUB for UEFI, with shim"
                ],
                "kernel": "6.17.1-300.fc43.x86_64",
                "command_line": "root=UUID=00000000-0000-4000-8000-000000000006 rw",
                "backend": "ostree",
                "backend_because": "as asked for",
                "commit": "2222222222222222222222222222222222222222222222222222222222222222",
                "root_filesystem": "ext4",
                "root_filesystem_because": "as asked for"
              },
              "size": 4834983936,
              "partitions": [
                {
                  "number": 3,
                  "role": "root",
                  "type_name": "Linux root (x86-64)",
                  "type_guid": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
                  "guid": "00000000-0000-4000-8000-000000000005",
                  "name": "root",
                  "start": 538968064,
                  "size": 4294967296,
                  "filesystem": {
                    "kind": "ext4",
                    "label": "root",
                    "uuid": "00000000-0000-4000-8000-000000000006",
                    "used": 1900000000
                  }
                }
              ],
              "files": [
                {
                  "path": "disk.qcow2",
                  "format": "qcow2",
                  "size": 4834983936,
                  "allocated": 1910000000,
                  "sha256": "0000000000000000000000000000000000000000000000000000000000000000"
                }
              ],
              "stages": [
                {
                  "stage": "writing",
                  "seconds": 1.5
                }
              ],
              "warnings": [
                "no signature was checked"
              ]
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&report).unwrap());
    }
}
