//! Bills of materials: what is on the disks of a build, as SPDX 2.3 and CycloneDX 1.6.
//!
//! ```text
//! disk (first file) ── generated from ──► image ── contains ──► packages of its databases
//!   │  └─ contains ──► packages, and files of the boot loader by their digests
//!   └── variants: the other files, which hold the same disk
//! ```
//!
//! Documents depend on nothing but the build: their times are the image's, their UUIDs derive from its digest and the seed.
//! SPDX 3.0 is not written: there is no library for it in Rust, and its consumers read 2.3, too.

mod cyclonedx;
mod licence;
mod purl;
mod spdx;

use uuid::Uuid;

use crate::packages::Inventory;

pub use purl::purl;

/// A form of bills of materials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// SPDX 2.3, JSON.
    Spdx,
    /// CycloneDX 1.6, JSON.
    CycloneDx,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Spdx, Self::CycloneDx];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spdx => "spdx",
            Self::CycloneDx => "cyclonedx",
        }
    }

    /// What the name of its file ends with, as scanners expect it.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Spdx => "spdx.json",
            Self::CycloneDx => "cdx.json",
        }
    }

    /// The form with a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }
}

/// A file that a build has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its name, without directories.
    pub name: String,
    /// `qcow2`, `raw.xz`, `iso`.
    pub format: String,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
    /// Whether it installs a system instead of being one.
    pub installs: bool,
}

/// A file on the disk that no package database knows where it is: the boot loader's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFile {
    /// Its path on the partition, beginning with that partition's name: `ESP/EFI/BOOT/BOOTX64.EFI`.
    pub path: String,
    /// SHA-1 (SPDX wants it of every file), lower-case hexadecimal.
    pub sha1: String,
    /// SHA-256.
    pub sha256: String,
}

/// A bill of materials that came with the source image, kept beside the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// `spdx` or `cyclonedx`.
    pub form: &'static str,
    /// The name of the file that it is kept in.
    pub file: String,
    /// SHA-1 of that file.
    pub sha1: String,
    /// SHA-256 of it.
    pub sha256: String,
    /// What the document says that it is called: SPDX's namespace, CycloneDX's serial number with version, as a BOM-Link.
    pub identity: Option<String>,
}

/// The image that a disk was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceImage {
    /// What it is called in a registry: `quay.io/fedora/fedora-bootc:43`, else what the build calls it.
    pub name: String,
    /// Digest of its manifest: `sha256:…`.
    pub digest: String,
    /// `x86_64`.
    pub architecture: &'static str,
    /// The version in its labels.
    pub version: Option<String>,
}

/// The operating system, by its os-release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatingSystem {
    /// `fedora`.
    pub id: String,
    /// `43`.
    pub version: String,
    /// `Fedora Linux 43`.
    pub title: String,
}

/// Everything that a document tells.
#[derive(Clone, Debug)]
pub struct Bill {
    /// The files of the build; the first stands for the disk.
    pub artifacts: Vec<Artifact>,
    /// What they were made from.
    pub image: SourceImage,
    /// What runs on them.
    pub system: OperatingSystem,
    /// The packages in it.
    pub inventory: Inventory,
    /// The boot loader's payload.
    pub boot_files: Vec<BootFile>,
    /// What came with the image.
    pub carried: Vec<Carried>,
    /// The time that the document has: `2026-12-01T00:00:00Z`.
    pub created: String,
    /// What its identifiers derive from.
    pub identity: Uuid,
    /// `bootpress 0.1.0`: name and version of this program.
    pub tool: (&'static str, &'static str),
}

impl Bill {
    /// The document in a form.
    pub fn render(&self, form: Form) -> serde_json::Result<String> {
        let document = match form {
            Form::Spdx => spdx::document(self),
            Form::CycloneDx => cyclonedx::document(self),
        };
        Ok(serde_json::to_string_pretty(&document)? + "\n")
    }

    /// An identifier that belongs to this build and a form.
    fn uuid(&self, form: Form) -> Uuid {
        Uuid::new_v5(&self.identity, form.name().as_bytes())
    }

    /// What the document is called: the disk's file, else the image.
    fn name(&self) -> &str {
        self.artifacts.first().map_or(&self.image.name, |artifact| &artifact.name)
    }
}

/// A URL as documents may hold it: of the web, without what is not allowed in one.
fn web_url(url: &str) -> Option<&str> {
    let plain = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
    let of_web = url.starts_with("https://") || url.starts_with("http://");
    (of_web && url.len() > 10 && url.chars().all(plain)).then_some(url)
}

#[cfg(test)]
mod tests;
