//! The kinds of file systems that a disk can have, in the spelling of mount(8), blkid(8) and bootc.

use std::fmt;

/// A file system, or a swap area, that can be in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// FAT32.
    Vfat,
    /// A swap area.
    Swap,
}

impl FileSystem {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ext4, Self::Xfs, Self::Btrfs, Self::Vfat, Self::Swap];

    /// Those that can be a root: they know owners, modes and extended attributes.
    pub const ROOTS: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// The name that mount, blkid and mkfs use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Vfat => "vfat",
            Self::Swap => "swap",
        }
    }

    /// The kind of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it has fs-verity: XFS does not up to Linux 6.18.
    pub const fn has_verity(self) -> bool {
        matches!(self, Self::Ext4 | Self::Btrfs)
    }

    /// Whether trees of files are in it.
    pub const fn holds_files(self) -> bool {
        !matches!(self, Self::Swap)
    }

    /// Bytes of the longest label: the sizes of `s_volume_name` (ext4), `sb_fname` (XFS), the label of a btrfs super block without
    /// its final NUL, the volume label of FAT, and `volume_name` of a swap header without its final NUL.
    pub const fn longest_label(self) -> usize {
        match self {
            Self::Ext4 => 16,
            Self::Xfs => 12,
            Self::Btrfs => 255,
            Self::Vfat => 11,
            Self::Swap => 15,
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_back() {
        for kind in FileSystem::ALL {
            assert_eq!(FileSystem::parse(kind.name()), Some(kind));
        }
        assert_eq!(FileSystem::parse("zfs"), None);
        assert!(FileSystem::ROOTS.iter().all(|kind| kind.holds_files()));
    }
}
