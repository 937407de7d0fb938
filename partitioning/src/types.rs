//! What a partition is for, and the GUIDs that say so (Discoverable Partitions Specification; UEFI 2.10, table 5.7).

use std::fmt;

use uuid::{Uuid, uuid};

use crate::Preset;

const BIOS_BOOT: Uuid = uuid!("21686148-6449-6e6f-744e-656564454649");
const ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
const XBOOTLDR: Uuid = uuid!("bc13c2ff-59e6-4262-a352-b275fd6f7172");
const LINUX_DATA: Uuid = uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4");
const SWAP: Uuid = uuid!("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f");
const ROOT_X86_64: Uuid = uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709");
const ROOT_AARCH64: Uuid = uuid!("b921b045-1df0-41c3-af44-4c6f280d3fae");

/// A machine architecture: decides whether there is a BIOS and which GUID the root has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// amd64: UEFI and BIOS.
    X86_64,
    /// arm64: UEFI only.
    Aarch64,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// Whether a partition of this type is a root of this architecture and of no other.
    pub fn has_root_type(self, type_guid: Uuid) -> bool {
        type_guid == Role::Root.type_guid(Preset::Bootc, self)
    }
}

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Where GRUB's core lies for BIOS; without a file system.
    BiosBoot,
    /// EFI system partition.
    Esp,
    /// Separate `/boot`: kernels and boot entries ("extended boot loader partition", XBOOTLDR).
    Boot,
    /// Root file system.
    Root,
    /// Any other file system, or none.
    Data,
    /// Swap.
    Swap,
}

impl Role {
    /// All of them, in the order in which they lie on a disk.
    pub const ALL: [Self; 6] =
        [Self::BiosBoot, Self::Esp, Self::Boot, Self::Root, Self::Data, Self::Swap];

    /// The role as one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BiosBoot => "bios-boot",
            Self::Esp => "esp",
            Self::Boot => "boot",
            Self::Root => "root",
            Self::Data => "data",
            Self::Swap => "swap",
        }
    }

    /// The role that a partition type speaks of; Linux data is taken for a root, as in the osbuild preset.
    pub fn of_type(type_guid: Uuid) -> Option<Self> {
        match type_guid {
            BIOS_BOOT => Some(Self::BiosBoot),
            ESP => Some(Self::Esp),
            XBOOTLDR => Some(Self::Boot),
            SWAP => Some(Self::Swap),
            ROOT_X86_64 | ROOT_AARCH64 | LINUX_DATA => Some(Self::Root),
            _ => None,
        }
    }

    /// The role that a type in a master boot record speaks of; Linux is taken for a root, which has no type of its own there.
    pub(crate) fn of_type_byte(type_byte: u8) -> Option<Self> {
        match type_byte {
            0xef => Some(Self::Esp),
            0x82 => Some(Self::Swap),
            0x83 => Some(Self::Root),
            _ => None,
        }
    }

    /// The type that this role has in a master boot record.
    pub const fn type_byte(self) -> u8 {
        match self {
            Self::Esp => 0xef,
            Self::Swap => 0x82,
            Self::BiosBoot | Self::Boot | Self::Root | Self::Data => 0x83,
        }
    }

    /// The partition type that a preset gives to this role.
    pub const fn type_guid(self, preset: Preset, architecture: Architecture) -> Uuid {
        match (self, preset, architecture) {
            (Self::BiosBoot, _, _) => BIOS_BOOT,
            (Self::Esp, _, _) => ESP,
            (Self::Boot, _, _) => XBOOTLDR,
            (Self::Swap, _, _) => SWAP,
            (Self::Data, _, _) | (Self::Root, Preset::Osbuild, _) => LINUX_DATA,
            (Self::Root, Preset::Bootc, Architecture::X86_64) => ROOT_X86_64,
            (Self::Root, Preset::Bootc, Architecture::Aarch64) => ROOT_AARCH64,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What people call a type in a master boot record; "unknown" for one that no layout of ours uses.
pub const fn type_byte_name(type_byte: u8) -> &'static str {
    match type_byte {
        0x05 | 0x0f | 0x85 => "extended",
        0x0b | 0x0c => "FAT32",
        0x82 => "Linux swap",
        0x83 => "Linux",
        0xef => "EFI system",
        _ => "unknown",
    }
}

/// The GUID that stands for a type in a master boot record; nil for one without.
pub(crate) fn type_of_byte(type_byte: u8) -> Uuid {
    match type_byte {
        0xef => ESP,
        0x82 => SWAP,
        0x83 => LINUX_DATA,
        _ => Uuid::nil(),
    }
}

/// What people call a partition type; "unknown" for one that no layout of ours uses.
pub fn type_name(type_guid: Uuid) -> &'static str {
    match type_guid {
        BIOS_BOOT => "BIOS boot",
        ESP => "EFI system",
        XBOOTLDR => "Linux extended boot",
        LINUX_DATA => "Linux data",
        SWAP => "Linux swap",
        ROOT_X86_64 => "Linux root (x86-64)",
        ROOT_AARCH64 => "Linux root (ARM-64)",
        _ => "unknown",
    }
}
