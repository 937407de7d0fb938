//! Layouts: which partitions a preset has, and where they come to lie.
//!
//! ```text
//! 0      1 MiB                                                        size - 1 MiB   size
//! | table | BIOS boot 1 MiB | ESP | /boot (osbuild) | root ......... |  backup table |
//!           x86_64 only
//! ```
//!
//! Every partition begins and ends at a multiple of 1 MiB, as sfdisk lays them out, whatever the sector size.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use uuid::Uuid;

use crate::lba::{Lba, MIB, SectorSize};
use crate::table::{Partition, Scheme, Table};
use crate::types::{Architecture, Role};

/// Room for GRUB's core: 1 MiB, as everyone gives it.
const BIOS_BOOT_SIZE: u64 = MIB;

/// GPT attribute bit 2, "legacy BIOS bootable" (UEFI 2.10, table 5.8): `bootc install to-disk` and osbuild set it on the BIOS
/// boot partition.
const LEGACY_BIOS_BOOTABLE: u64 = 1 << 2;

/// Whose layout to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// `bootc install to-disk`: `/boot` inside the root, which has the discoverable type of its architecture.
    Bootc,
    /// osbuild's bootc disks: a separate `/boot`, a root of type Linux data, no partition names.
    Osbuild,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Bootc, Self::Osbuild];

    /// The preset as one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bootc => "bootc",
            Self::Osbuild => "osbuild",
        }
    }

    /// Bytes of the ESP unless somebody asks for others: what bootc and osbuild give it.
    pub const fn default_esp(self) -> u64 {
        match self {
            Self::Bootc => 512 * MIB,
            Self::Osbuild => 501 * MIB,
        }
    }

    /// Bytes of a separate `/boot` unless somebody asks for others: osbuild's 1 GiB.
    pub const fn default_boot(self) -> u64 {
        1024 * MIB
    }

    /// The partitions, in the order in which they are numbered and lie. osbuild's layout has a separate `/boot` in any case.
    pub fn roles(self, architecture: Architecture, separate_boot: bool) -> Vec<Role> {
        let wanted = |role: &Role| match role {
            Role::BiosBoot => architecture == Architecture::X86_64,
            Role::Boot => separate_boot || self == Self::Osbuild,
            Role::Esp | Role::Root => true,
            // These are chosen one by one.
            Role::Data | Role::Swap => false,
        };
        Role::ALL.into_iter().filter(wanted).collect()
    }

    /// The name in the table.
    const fn partition_name(self, role: Role) -> &'static str {
        match (self, role) {
            (Self::Osbuild, _) => "",
            (Self::Bootc, Role::BiosBoot) => "BIOS-BOOT",
            (Self::Bootc, Role::Esp) => "EFI-SYSTEM",
            (Self::Bootc, Role::Boot) => "boot",
            (Self::Bootc, Role::Root) => "root",
            (Self::Bootc, Role::Data | Role::Swap) => "",
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|preset| preset.name() == name).ok_or_else(|| {
            format!("{name} is no layout: {}", Self::ALL.map(Self::name).join(" or "))
        })
    }
}

/// GUIDs of the table and of each partition; those of partitions that a layout does not have go unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guids {
    /// Of the table.
    pub disk: Uuid,
    /// Of the BIOS boot partition.
    pub bios_boot: Uuid,
    /// Of the ESP.
    pub esp: Uuid,
    /// Of a separate `/boot`.
    pub boot: Uuid,
    /// Of the root.
    pub root: Uuid,
}

/// How large the root is, and with it the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// So many bytes, rounded up to MiB; the disk is as large as that takes.
    Exactly(u64),
    /// What a disk of `disk` bytes (rounded up to MiB) leaves, which must be at least `needs` bytes.
    RestOf {
        /// Bytes of the whole disk.
        disk: u64,
        /// Bytes below which the root cannot be.
        needs: u64,
    },
}

/// Everything that a table follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Whose layout.
    pub preset: Preset,
    /// The machine's architecture.
    pub architecture: Architecture,
    /// Bytes of a sector.
    pub sector_size: SectorSize,
    /// GUIDs to use.
    pub guids: Guids,
    /// Bytes of the ESP, rounded up to MiB.
    pub esp: u64,
    /// Whether there is a separate `/boot` even if the preset has none: a root that GRUB cannot read wants it.
    pub separate_boot: bool,
    /// Bytes of a separate `/boot`, rounded up to MiB; not looked at where there is none.
    pub boot: u64,
    /// The root.
    pub root: Root,
}

/// Why there is no such table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The root would be smaller than it must be.
    #[error(
        "does not fit: the root needs {} MiB, the disk of {} MiB leaves {} MiB; {} MiB would do",
        needs.div_ceil(MIB), disk / MIB, leaves / MIB, would_do / MIB
    )]
    DoesNotFit {
        /// Bytes that the root needs.
        needs: u64,
        /// Bytes of the disk.
        disk: u64,
        /// Bytes that the other partitions and the tables leave.
        leaves: u64,
        /// Bytes of the smallest disk that suffices.
        would_do: u64,
    },
    /// A partition of no bytes.
    #[error("the partition {role} has no size")]
    Empty {
        /// Which.
        role: Role,
    },
    /// More than a master boot record can say.
    #[error("a dos table has at most 4 partitions on at most 2 TiB, not {partitions} on {} MiB", disk / MIB)]
    NoDos {
        /// How many partitions there would be.
        partitions: usize,
        /// Bytes of the disk.
        disk: u64,
    },
    /// More bytes than 64 bits can count.
    #[error("the disk is larger than any disk can be")]
    TooLarge,
}

impl Table {
    /// Decides where every partition lies.
    pub fn plan(layout: &Layout) -> Result<Self, PlanError> {
        let Layout { preset, architecture, sector_size, .. } = *layout;
        let mut partitions = Vec::new();
        let mut next = MIB;
        for (role, number) in preset.roles(architecture, layout.separate_boot).into_iter().zip(1..)
        {
            let size = size_of(layout, role, next)?;
            if size == 0 {
                return Err(PlanError::Empty { role });
            }
            let end = next.checked_add(size).ok_or(PlanError::TooLarge)?;
            let sector = |offset: u64| Lba(offset / sector_size.bytes());
            partitions.push(Partition {
                number,
                role: Some(role),
                type_guid: role.type_guid(preset, architecture),
                type_byte: None,
                guid: guid_of(&layout.guids, role),
                name: preset.partition_name(role).to_owned(),
                first: sector(next),
                last: Lba(sector(end).0 - 1),
                attributes: if role == Role::BiosBoot { LEGACY_BIOS_BOOTABLE } else { 0 },
            });
            next = end;
        }
        // The backup table needs 33 sectors of 512 bytes or 5 of 4096: less than the MiB that it gets.
        let size = next.checked_add(MIB).ok_or(PlanError::TooLarge)?;
        let sectors = size / sector_size.bytes();
        Ok(Self { guid: layout.guids.disk, scheme: Scheme::Gpt, sector_size, sectors, partitions })
    }
}

/// Bytes of a partition that begins at `start`; a multiple of 1 MiB.
fn size_of(layout: &Layout, role: Role, start: u64) -> Result<u64, PlanError> {
    let whole = |bytes: u64| bytes.checked_next_multiple_of(MIB).ok_or(PlanError::TooLarge);
    match (role, layout.root) {
        (Role::BiosBoot, _) => Ok(BIOS_BOOT_SIZE),
        (Role::Esp, _) => whole(layout.esp),
        (Role::Boot, _) => whole(layout.boot),
        (Role::Root, Root::Exactly(size)) => whole(size),
        (Role::Data | Role::Swap, _) => Ok(0),
        (Role::Root, Root::RestOf { disk, needs }) => {
            let disk = whole(disk)?;
            let around = start.checked_add(MIB).ok_or(PlanError::TooLarge)?;
            let would_do = whole(needs.max(1))?.checked_add(around).ok_or(PlanError::TooLarge)?;
            if disk < would_do {
                let leaves = disk.saturating_sub(around);
                return Err(PlanError::DoesNotFit { needs, disk, leaves, would_do });
            }
            Ok(disk - around)
        }
    }
}

const fn guid_of(guids: &Guids, role: Role) -> Uuid {
    match role {
        Role::BiosBoot => guids.bios_boot,
        Role::Esp => guids.esp,
        Role::Boot => guids.boot,
        Role::Root | Role::Data | Role::Swap => guids.root,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(preset: Preset, architecture: Architecture, root: Root) -> Layout {
        let guids = Guids {
            disk: Uuid::from_u128(1),
            bios_boot: Uuid::from_u128(2),
            esp: Uuid::from_u128(3),
            boot: Uuid::from_u128(4),
            root: Uuid::from_u128(5),
        };
        let (esp, boot) = (preset.default_esp(), preset.default_boot());
        let sector_size = SectorSize::S512;
        let separate_boot = false;
        Layout { preset, architecture, sector_size, guids, esp, separate_boot, boot, root }
    }

    fn picture(table: &Table) -> Vec<String> {
        let line = |p: &Partition| {
            let MibRange(start, end) = MibRange::of(p, table.sector_size);
            format!(
                "{} {} {start}..{end} {:?} {:x}",
                p.number,
                p.role.unwrap(),
                p.name,
                p.attributes
            )
        };
        table.partitions.iter().map(line).collect()
    }

    struct MibRange(u64, u64);

    impl MibRange {
        fn of(partition: &Partition, sector_size: SectorSize) -> Self {
            let (start, size) = (partition.start(sector_size), partition.size(sector_size));
            assert_eq!((start % MIB, size % MIB), (0, 0));
            Self(start / MIB, (start + size) / MIB)
        }
    }

    #[test]
    fn bootc_has_its_root_behind_the_esp() {
        let table =
            Table::plan(&layout(Preset::Bootc, Architecture::X86_64, Root::Exactly(100 * MIB - 7)));
        let table = table.unwrap();
        assert_eq!(
            picture(&table),
            [
                "1 bios-boot 1..2 \"BIOS-BOOT\" 4",
                "2 esp 2..514 \"EFI-SYSTEM\" 0",
                "3 root 514..614 \"root\" 0"
            ]
        );
        assert_eq!(table.size(), 615 * MIB);
    }

    #[test]
    fn bootc_gets_a_boot_partition_where_its_root_cannot_hold_it() {
        let layout = layout(Preset::Bootc, Architecture::Aarch64, Root::Exactly(100 * MIB));
        let table = Table::plan(&Layout { separate_boot: true, ..layout }).unwrap();
        assert_eq!(
            picture(&table),
            [
                "1 esp 1..513 \"EFI-SYSTEM\" 0",
                "2 boot 513..1537 \"boot\" 0",
                "3 root 1537..1637 \"root\" 0"
            ]
        );
    }

    #[test]
    fn osbuild_has_a_boot_partition_and_no_names() {
        let root = Root::RestOf { disk: 10240 * MIB, needs: 2048 * MIB };
        for sector_size in SectorSize::ALL {
            let layout =
                Layout { sector_size, ..layout(Preset::Osbuild, Architecture::Aarch64, root) };
            let table = Table::plan(&layout).unwrap();
            assert_eq!(
                picture(&table),
                ["1 esp 1..502 \"\" 0", "2 boot 502..1526 \"\" 0", "3 root 1526..10239 \"\" 0"]
            );
            assert_eq!(table.size(), 10240 * MIB);
        }
    }

    #[test]
    fn a_disk_that_is_too_small_says_by_how_much() {
        let plan = |disk, needs| {
            Table::plan(&layout(Preset::Bootc, Architecture::X86_64, Root::RestOf { disk, needs }))
        };
        let error = plan(1024 * MIB, 1000 * MIB).unwrap_err();
        assert_eq!(
            error.to_string(),
            "does not fit: the root needs 1000 MiB, the disk of 1024 MiB leaves 509 MiB; 1515 MiB would do"
        );
        assert!(plan(1515 * MIB, 1000 * MIB).is_ok());
        assert!(plan(1514 * MIB, 1000 * MIB).is_err());
        // A root that needs nothing still is a partition.
        assert!(matches!(plan(515 * MIB, 0), Err(PlanError::DoesNotFit { .. })));
        assert!(matches!(plan(0, 0), Err(PlanError::DoesNotFit { leaves: 0, .. })));
    }

    #[test]
    fn absurd_sizes_are_errors() {
        let base = layout(Preset::Osbuild, Architecture::X86_64, Root::Exactly(u64::MAX));
        assert_eq!(Table::plan(&base), Err(PlanError::TooLarge));
        let huge = Root::RestOf { disk: u64::MAX, needs: u64::MAX };
        assert_eq!(Table::plan(&Layout { root: huge, ..base }), Err(PlanError::TooLarge));
        let last = Root::Exactly(u64::MAX / MIB * MIB - 1527 * MIB);
        assert_eq!(Table::plan(&Layout { root: last, ..base }), Err(PlanError::TooLarge));
        assert_eq!(
            Table::plan(&Layout { esp: 0, ..base }),
            Err(PlanError::Empty { role: Role::Esp })
        );
    }
}
