//! The back half of a disk: which partitions there are, how large, what is in each, and all of it as one map.
//!
//! ```text
//! layout or preset ─► arrange: Arrangement (known before anything is built: numbers, UUIDs, mounts)
//!                         └─► size: Table ─► fill: file systems ─► join: Disk
//! ```

mod arrange;
mod disk_size;
mod fill;
mod join;
mod size;

use std::fmt;

use anyhow::Result;
pub use arrange::{Arrangement, Partitioning, RootVolume, identify, sector_size};
pub use disk_size::{DiskSize, parse_size};
pub use partitioning::{MIB, Preset, Role, SectorSize};
use serde::{Serialize, Serializer};

use crate::architecture::Architecture;
use crate::bootloader::Boot;
use crate::content::ContentStore;
use crate::filesystem_kind::XfsProfile;
use crate::identity::Identity;
use crate::installed::Installed;
use crate::progress::{Progress, Stage};
use crate::sparse::SparseMap;

/// What a disk depends on besides what is on it.
#[derive(Clone, Copy, Debug)]
pub struct DiskOptions<'a> {
    /// The partitions.
    pub arrangement: &'a Arrangement,
    /// UUIDs.
    pub identity: &'a Identity,
    /// Bytes of a sector.
    pub sector_size: SectorSize,
    /// Size of the whole disk; `None`: what is needed, and room for one upgrade.
    pub size: Option<DiskSize>,
    /// Whether the root grows when the system starts.
    pub grow: bool,
    /// Which features an XFS has.
    pub xfs_profile: XfsProfile,
    /// Bytes that the disk has at least, unless its size is asked for.
    pub least_size: u64,
    /// The whole disk is a multiple of this many bytes: what the strictest of its formats wants.
    pub size_unit: u64,
}

/// A finished disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Its bytes.
    pub map: SparseMap,
    /// Its partitions, in order.
    pub partitions: Vec<PartitionReport>,
}

/// One partition, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// From 1 on.
    pub number: u32,
    /// What it is for: `bios-boot`, `esp`, `boot`, `root`.
    #[serde(serialize_with = "display")]
    pub role: Role,
    /// What people call its type.
    pub type_name: &'static str,
    /// GUID of its type; on a disk without GPT its byte, `0x83`.
    pub type_guid: String,
    /// Its own GUID.
    pub guid: String,
    /// Its name in the table, which may be empty.
    pub name: String,
    /// Offset of its first byte.
    pub start: u64,
    /// Bytes of it.
    pub size: u64,
    /// What is in it, if a file system is.
    pub filesystem: Option<FilesystemReport>,
}

/// A file system, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FilesystemReport {
    /// As `blkid` says it.
    pub kind: &'static str,
    /// Its label.
    pub label: String,
    /// Its UUID.
    pub uuid: String,
    /// Bytes of it that are in use.
    pub used: u64,
}

/// The member knows nothing of ours, not even this.
const fn partitioning_architecture(architecture: Architecture) -> partitioning::Architecture {
    match architecture {
        Architecture::X86_64 => partitioning::Architecture::X86_64,
        Architecture::Aarch64 => partitioning::Architecture::Aarch64,
    }
}

fn display<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Decides the sizes, formats the file systems, and joins them to a disk.
///
/// Fails if the content does not fit into the size that was asked for, before anything is written.
pub fn lay_out(
    installed: &Installed,
    boot: &Boot,
    options: &DiskOptions<'_>,
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Disk> {
    let _stage = progress.stage(Stage::LayOut, None);
    let table = size::table(installed, options, contents, progress)?;
    let filled = fill::partitions(&table, installed, boot, options, contents)?;
    let embed = boot.bios.as_ref().map(|code| |lba: u64, mbr: &[u8; 512]| code.embed(lba, mbr));
    join::disk(&table, filled, embed.as_ref().map(|embed| embed as &join::Embed<'_>))
}
