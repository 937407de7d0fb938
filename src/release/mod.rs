//! Facts of a build → the files that are published with a disk: checksums, compose metadata, build metadata.
//!
//! ```text
//! Report ─► Artifact … ─┬─► checksum    CHECKSUM, in Fedora's form
//!                       ├─► productmd   images.json, composeinfo.json
//!                       ├─► metadata    build-metadata.json
//!                       ├─► koji        metadata.json of a content generator
//!                       └─► artifact    manifests of a registry
//! ```

pub mod artifact;
pub mod checksum;
pub mod koji;
pub mod metadata;
pub mod productmd;

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::iso::MediumKind;
use crate::naming::Subject;
use crate::output::{FileFormat, Uncompressed};
use crate::report::Report;

/// A file of a build that is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub subject: Subject,
    /// Bytes of the file, holes counted.
    pub size: u64,
    /// Bytes of the disk in it; `None`: it is no disk.
    pub disk_size: Option<u64>,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: String,
    /// What is inside, if the file is compressed as a whole.
    pub uncompressed: Option<Uncompressed>,
    /// When it was written, in seconds since 1970.
    pub modified: i64,
    /// For an ISO: its volume ID.
    pub volume_id: Option<String>,
    /// For an ISO: the MD5 that `checkisomd5` compares.
    pub implanted_md5: Option<String>,
}

impl Artifact {
    /// The name without directories.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What `--format` calls it.
    pub fn format(&self) -> String {
        match self.subject {
            Subject::Disk(format) => format.to_string(),
            Subject::Medium(kind) => kind.name().to_owned(),
        }
    }
}

/// The files of a build, in the order in which they were asked for. A directory, as `--format pxe` makes it, is not one of them:
/// it has checksums of its own.
pub fn artifacts(report: &Report) -> Result<Vec<Artifact>> {
    let disks = report.files.iter().map(|file| {
        let format = FileFormat { format: file.format, packing: file.compression };
        let disk = Artifact {
            disk_size: Some(file.size),
            uncompressed: file.uncompressed.clone(),
            ..artifact(&file.path, Subject::Disk(format), &file.sha256)?
        };
        Ok(disk)
    });
    let media = report.media.iter().filter_map(|medium| {
        let kind = MediumKind::ALL.into_iter().find(|kind| kind.name() == medium.format)?;
        (!kind.is_directory()).then_some((kind, medium))
    });
    let media = media.map(|(kind, medium)| {
        let iso = artifact(&medium.path, Subject::Medium(kind), &medium.sha256)?;
        let (volume_id, implanted_md5) = descriptor(&medium.path)?;
        Ok(Artifact { volume_id, implanted_md5, ..iso })
    });
    disks.chain(media).collect()
}

fn artifact(path: &Path, subject: Subject, sha256: &str) -> Result<Artifact> {
    let metadata = path.metadata().with_context(|| format!("looking at {}", path.display()))?;
    Ok(Artifact {
        path: path.to_owned(),
        subject,
        size: metadata.len(),
        disk_size: None,
        sha256: sha256.to_owned(),
        uncompressed: None,
        modified: metadata.mtime(),
        volume_id: None,
        implanted_md5: None,
    })
}

/// Byte of the primary volume descriptor (ECMA-119, section 8.1.1: logical sector 16).
const DESCRIPTOR: u64 = 16 * 2048;

/// What the primary volume descriptor of an ISO says: its volume ID (section 8.4.7: bytes 40 to 71), and the checksum that
/// isomd5sum puts into the part for applications (section 8.4.32: bytes 883 to 1394).
fn descriptor(path: &Path) -> Result<(Option<String>, Option<String>)> {
    let mut sector = [0; 2048];
    File::open(path)
        .and_then(|file| file.read_exact_at(&mut sector, DESCRIPTOR))
        .with_context(|| format!("reading the volume descriptor of {}", path.display()))?;
    let volume = String::from_utf8_lossy(&sector[40..72]).trim_end().to_owned();
    let application = String::from_utf8_lossy(&sector[883..1395]).into_owned();
    let md5 = application.split_once("ISO MD5SUM = ").map(|(_, rest)| rest);
    let md5 = md5.and_then(|rest| rest.get(..32)).map(str::to_owned);
    Ok((Some(volume).filter(|volume| !volume.is_empty()), md5))
}
