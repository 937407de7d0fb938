//! The back half of a disk: which partitions there are, how large, and what is in each.
//!
//! Sizes come first, because file systems are formatted to fit; then the parts are joined:
//!
//! ```text
//! let plan = Plan::new(&options)?;                            how large is what
//! let root = ext4_volume(&tree, plan.root_size(), ..)?;       formatted to fit (volumes.rs)
//! let disk = plan.assemble(Parts { root, .. })?;              table, code and file systems as one map
//! ```

mod arranged;
mod size;
mod subvolumes;
mod volumes;

use std::fmt;

use anyhow::{Result, ensure};
pub use arranged::{Arrangement, identify, sector_size};
use partitioning::{
    Guids, Layout, Partition, PlanError, Root, Scheme, Table, type_byte_name, type_name,
};
pub use partitioning::{MIB, Preset, Role, SectorSize};
use serde::{Serialize, Serializer};
pub use size::{DiskSize, parse_size};
pub use volumes::{Wishes, boot_partition, lay_out};

use crate::architecture::Architecture;
use crate::error::unsupported;
use crate::identity::Identity;
use crate::sparse::SparseMap;

/// Bytes of the MBR; in a sector of 4096 bytes zeros follow.
const MBR_SIZE: usize = 512;

/// Where the MBR holds partition records and its signature: what boot code must leave alone (UEFI 2.10, table 5.3).
const MBR_RECORDS: std::ops::Range<usize> = 446..512;

/// How large the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As large as it takes for a root of so many bytes.
    Root(u64),
    /// `total` bytes in all; the root gets what is left, and fails to fit below `root_needs` bytes.
    Disk { total: u64, root_needs: u64 },
}

/// What a plan follows from.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Whose layout to follow.
    pub preset: Preset,
    /// The machine's architecture.
    pub architecture: Architecture,
    /// GUIDs to use.
    pub identity: &'a Identity,
    /// Bytes of a sector.
    pub sector_size: SectorSize,
    /// Bytes of the ESP; [`Preset::default_esp`] when nobody says otherwise.
    pub esp: u64,
    /// Whether `/boot` is separate even where the preset has it in the root.
    pub separate_boot: bool,
    /// Bytes of a separate `/boot`; [`Preset::default_boot`] when nobody says otherwise.
    pub boot: u64,
    /// The root and the whole.
    pub size: Size,
}

/// Which partitions there are, and where, before anything is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    table: Table,
}

/// A file system that goes into a partition.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its bytes; exactly as large as the plan said.
    pub map: SparseMap,
    /// Its kind, as `blkid` says it: `ext4`, `vfat`.
    pub filesystem: &'static str,
    /// Its label.
    pub label: String,
    /// Its UUID, as `blkid` says it.
    pub uuid: String,
    /// Bytes of it that are in use.
    pub used: u64,
}

/// The bytes of a partition, and what there is to say about them if they are a file system.
type Filled = (SparseMap, Option<FilesystemReport>);

impl From<Volume> for Filled {
    fn from(volume: Volume) -> Self {
        let Volume { map, filesystem: kind, label, uuid, used } = volume;
        (map, Some(FilesystemReport { kind, label, uuid, used }))
    }
}

/// What a BIOS starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BiosBytes {
    /// The first sector's 512 bytes: boot code, and the partition records that were there.
    pub mbr: [u8; MBR_SIZE],
    /// What fills the BIOS boot partition from its first byte on.
    pub core: Vec<u8>,
}

/// Makes the BIOS's part for the LBA at which the BIOS boot partition begins, and the protective MBR.
pub type Embed<'a> = dyn Fn(u64, &[u8; MBR_SIZE]) -> Result<BiosBytes> + 'a;

/// What goes into the partitions; one that gets nothing is zero.
pub struct Parts<'a> {
    /// Root file system.
    pub root: Volume,
    /// File system of a separate `/boot`.
    pub boot: Option<Volume>,
    /// FAT of the ESP.
    pub esp: Option<Volume>,
    /// Boot code for BIOS.
    pub bios: Option<&'a Embed<'a>>,
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

impl Plan {
    /// Decides where every partition lies; fails if the root does not fit.
    pub fn new(options: &Options<'_>) -> Result<Self> {
        let identity = options.identity;
        let layout = Layout {
            preset: options.preset,
            architecture: partitioning_architecture(options.architecture),
            sector_size: options.sector_size,
            guids: Guids {
                disk: identity.disk,
                bios_boot: identity.bios_partition,
                esp: identity.esp_partition,
                boot: identity.boot_partition,
                root: identity.root_partition,
            },
            esp: options.esp,
            separate_boot: options.separate_boot,
            boot: options.boot,
            root: match options.size {
                Size::Root(size) => Root::Exactly(size),
                Size::Disk { total, root_needs } => Root::RestOf { disk: total, needs: root_needs },
            },
        };
        let table = Table::plan(&layout).map_err(|error| {
            let hint = matches!(error, PlanError::DoesNotFit { .. }).then_some(
                "ask for a larger disk, or for none, and it becomes as large as it must",
            );
            unsupported(error.to_string(), hint)
        })?;
        Ok(Self { table })
    }

    /// Bytes of the whole disk, a multiple of 1 MiB.
    pub fn size(&self) -> u64 {
        self.table.size()
    }

    /// Bytes of the root partition, a multiple of 1 MiB.
    pub fn root_size(&self) -> u64 {
        self.size_of(Role::Root).expect("every layout has a root")
    }

    /// Bytes of a separate `/boot`, if there is one.
    pub fn boot_size(&self) -> Option<u64> {
        self.size_of(Role::Boot)
    }

    /// Bytes of the ESP.
    pub fn esp_size(&self) -> u64 {
        self.size_of(Role::Esp).expect("every layout has an ESP")
    }

    /// The partition's number, as in `(hd0,gpt2)` and `/dev/vda2`.
    pub fn number_of(&self, role: Role) -> Option<u32> {
        self.table.find(role).map(|partition| partition.number)
    }

    fn size_of(&self, role: Role) -> Option<u64> {
        self.table.find(role).map(|partition| partition.size(self.table.sector_size))
    }

    /// Puts table, boot code and file systems in their places. Fails if the boot code does not fit; a volume of another size
    /// than the plan's, or one for a partition that the plan does not have, is our mistake.
    pub fn assemble(self, parts: Parts<'_>) -> Result<Disk> {
        let Parts { root, boot, esp, bios } = parts;
        let (mut boot, mut esp, mut root) = (boot, esp, Some(root));
        let take = |partition: &Partition| match partition.role {
            Some(Role::Esp) => esp.take(),
            Some(Role::Boot) => boot.take(),
            Some(Role::Root) => root.take(),
            _ => None,
        };
        let volumes: Vec<_> = self.table.partitions.iter().map(take).collect();
        assert!(boot.is_none(), "this layout has no separate /boot");
        self.join(volumes.into_iter().map(|volume| volume.map(Filled::from)).collect(), bios)
    }

    /// The same for partitions in order, whatever they are for; one that gets nothing is zero.
    fn join(self, filled: Vec<Option<Filled>>, bios: Option<&Embed<'_>>) -> Result<Disk> {
        let mut map = SparseMap::new(self.table.size());
        let mut bytes = self.table.bytes();
        if let Some(embed) = bios {
            let core = self.embed(embed, &mut bytes.primary)?;
            map.put(self.bios_room().0, core);
        }
        map.put(0, bytes.primary);
        if !bytes.backup.is_empty() {
            map.put(bytes.backup_offset, bytes.backup);
        }
        let mut partitions = Vec::new();
        for (partition, filled) in self.table.partitions.iter().zip(filled) {
            let role = partition.role.expect("planned partitions have roles");
            partitions.push(self.place(&mut map, partition, role, filled));
        }
        Ok(Disk { map, partitions })
    }

    fn place(
        &self,
        map: &mut SparseMap,
        partition: &Partition,
        role: Role,
        filled: Option<Filled>,
    ) -> PartitionReport {
        let (start, size) =
            (partition.start(self.table.sector_size), partition.size(self.table.sector_size));
        let filesystem = filled.and_then(|(inner, report)| {
            assert_eq!(inner.size(), size, "the {role} file system fills its partition");
            map.place(start, inner);
            report
        });
        PartitionReport {
            number: partition.number,
            role,
            type_name: partition.type_byte.map_or(type_name(partition.type_guid), type_byte_name),
            type_guid: match partition.type_byte {
                Some(byte) => format!("0x{byte:02x}"),
                None => partition.type_guid.to_string(),
            },
            guid: self.table.identity_of(partition),
            name: partition.name.clone(),
            start,
            size,
            filesystem,
        }
    }

    /// The core, after its MBR has taken the place of the protective one, whose partition records it keeps.
    fn embed(&self, embed: &Embed<'_>, primary: &mut [u8]) -> Result<Vec<u8>> {
        if self.table.scheme == Scheme::Gpt && self.table.find(Role::BiosBoot).is_none() {
            return Err(unsupported("only x86_64 disks start from BIOS", None));
        }
        if self.table.sector_size != SectorSize::S512 {
            return Err(unsupported(
                "no BIOS starts from sectors of 4096 bytes",
                Some("take sectors of 512 bytes, or leave BIOS out"),
            ));
        }
        let (start, room) = self.bios_room();
        let mbr = primary.first_chunk_mut::<MBR_SIZE>().expect("a table begins with an MBR");
        let bios = embed(start / SectorSize::S512.bytes(), mbr)?;
        assert_eq!(
            bios.mbr[MBR_RECORDS], mbr[MBR_RECORDS],
            "boot code leaves partition records alone"
        );
        ensure!(
            bios.core.len() as u64 <= room,
            "GRUB's core of {} bytes does not fit the {} of {room}",
            bios.core.len(),
            match self.table.scheme {
                Scheme::Gpt => "BIOS boot partition",
                Scheme::Dos => "gap before the first partition",
            }
        );
        *mbr = bios.mbr;
        Ok(bios.core)
    }

    /// Offset and size of the place for a BIOS's boot code: a partition, or without GPT the gap before the first.
    fn bios_room(&self) -> (u64, u64) {
        let sector_size = self.table.sector_size;
        match self.table.find(Role::BiosBoot) {
            Some(partition) => (partition.start(sector_size), partition.size(sector_size)),
            None => {
                let first = self.table.partitions.iter().map(|p| p.start(sector_size)).min();
                (MBR_SIZE as u64, first.unwrap_or(MIB) - MBR_SIZE as u64)
            }
        }
    }
}

#[cfg(test)]
mod tests;
