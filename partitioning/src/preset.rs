//! Presets: which partitions a disk has by default, what they are called and of which types they are.
//!
//! ```text
//! 0      1 MiB                                                        size - 1 MiB   size
//! | table | BIOS boot 1 MiB | ESP | /boot (osbuild) | root ......... |  backup table |
//!           x86_64 only
//! ```

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::arrangement::Slot;
use crate::lba::MIB;
use crate::types::{Architecture, Role};

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

    /// The slot of a partition that this preset has: its type, name and attributes, for an own GUID and a size in bytes.
    pub fn slot(self, role: Role, architecture: Architecture, guid: Uuid, size: u64) -> Slot {
        Slot {
            role,
            type_guid: role.type_guid(self, architecture),
            type_byte: role.type_byte(),
            guid,
            name: self.partition_name(role).to_owned(),
            attributes: if role == Role::BiosBoot { LEGACY_BIOS_BOOTABLE } else { 0 },
            size,
        }
    }

    /// Bytes of a partition unless somebody asks for others; zero for the root and for partitions that are chosen one by one.
    pub const fn default_size(self, role: Role) -> u64 {
        match (role, self) {
            // Room for GRUB's core: 1 MiB, as everyone gives it.
            (Role::BiosBoot, _) => MIB,
            (Role::Esp, Self::Bootc) => 512 * MIB,
            (Role::Esp, Self::Osbuild) => 501 * MIB,
            (Role::Boot, _) => 1024 * MIB,
            (Role::Root | Role::Data | Role::Swap, _) => 0,
        }
    }

    /// The name in the table.
    pub const fn partition_name(self, role: Role) -> &'static str {
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
            format!("{name} is not a layout: {}", Self::ALL.map(Self::name).join(" or "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrangement::Arrangement;
    use crate::{Partition, PlanError, Scheme, SectorSize, Table};

    /// The preset's partitions, with a root of `root` bytes that takes what a disk of `disk` bytes leaves.
    fn table(
        preset: Preset,
        architecture: Architecture,
        separate_boot: bool,
        root: u64,
        disk: Option<u64>,
    ) -> Result<Table, PlanError> {
        let slot = |role: Role| {
            let size = if role == Role::Root { root } else { preset.default_size(role) };
            preset.slot(role, architecture, Uuid::from_u128(role as u128), size)
        };
        let slots: Vec<_> =
            preset.roles(architecture, separate_boot).into_iter().map(slot).collect();
        Table::arrange(&Arrangement {
            scheme: Scheme::Gpt,
            guid: Uuid::from_u128(1),
            sector_size: SectorSize::S512,
            start: MIB,
            grows: slots.iter().position(|slot| slot.role == Role::Root),
            slots,
            disk,
        })
    }

    fn picture(table: &Table) -> Vec<String> {
        let line = |p: &Partition| {
            let (start, size) = (p.start(table.sector_size), p.size(table.sector_size));
            assert_eq!((start % MIB, size % MIB), (0, 0));
            let (start, end) = (start / MIB, (start + size) / MIB);
            let role = p.role.unwrap();
            format!("{} {role} {start}..{end} {:?} {:x}", p.number, p.name, p.attributes)
        };
        table.partitions.iter().map(line).collect()
    }

    #[test]
    fn bootc_preset_puts_root_behind_esp() {
        let table = table(Preset::Bootc, Architecture::X86_64, false, 100 * MIB - 7, None).unwrap();
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
    fn bootc_preset_gets_boot_partition_where_root_cannot_hold_it() {
        let table = table(Preset::Bootc, Architecture::Aarch64, true, 100 * MIB, None).unwrap();
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
    fn osbuild_preset_has_boot_partition_and_no_names() {
        let disk = Some(10240 * MIB);
        let table = table(Preset::Osbuild, Architecture::Aarch64, false, 2048 * MIB, disk).unwrap();
        assert_eq!(
            picture(&table),
            ["1 esp 1..502 \"\" 0", "2 boot 502..1526 \"\" 0", "3 root 1526..10239 \"\" 0"]
        );
        assert_eq!(table.size(), 10240 * MIB);
    }

    #[test]
    fn disk_too_small_error_tells_the_smallest_size() {
        let plan =
            |disk, root| table(Preset::Bootc, Architecture::X86_64, false, root, Some(disk * MIB));
        assert_eq!(
            plan(1024, 1000 * MIB).unwrap_err().to_string(),
            "does not fit: the root needs 1000 MiB, the disk of 1024 MiB leaves 509 MiB; 1515 MiB would do"
        );
        assert!(plan(1515, 1000 * MIB).is_ok());
        assert!(plan(1514, 1000 * MIB).is_err());
        assert!(matches!(plan(0, MIB), Err(PlanError::DoesNotFit { leaves: 0, .. })));
        assert_eq!(plan(600, 0), Err(PlanError::Empty { role: Role::Root }));
    }

    #[test]
    fn absurd_sizes_are_errors() {
        let plan = |root, disk| table(Preset::Osbuild, Architecture::X86_64, false, root, disk);
        assert_eq!(plan(u64::MAX, None), Err(PlanError::TooLarge));
        assert_eq!(plan(MIB, Some(u64::MAX)), Err(PlanError::TooLarge));
        let last = u64::MAX / MIB * MIB - 1527 * MIB;
        assert_eq!(plan(last, None), Err(PlanError::TooLarge));
    }
}
