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

    /// File systems that can be a root: they know owners, modes and extended attributes.
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

/// Which features an XFS has besides those that every one has here: crc, ftype, finobt, spinodes, reflink, bigtime, inobtcount.
///
/// Profiles are named after the kernels that xfsprogs has them for (`/usr/share/xfsprogs/mkfs/lts_*.conf`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XfsProfile {
    /// Nothing else: any kernel from 5.10, any GRUB from 2.06.
    Lts61,
    /// `rmapbt` and `nrext64`, as mkfs.xfs for kernels from 6.6 has it; GRUB from 2.12 reads it.
    Lts612,
}

impl XfsProfile {
    /// All of them, the most compatible first.
    pub const ALL: [Self; 2] = [Self::Lts61, Self::Lts612];

    /// The name that flags use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lts61 => "lts-6.1",
            Self::Lts612 => "lts-6.12",
        }
    }

    /// The profile of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// What a kernel and a GRUB of these versions (major, minor) understand; `None`: it is not known which they are.
    pub fn understood_by(kernel: Option<(u32, u32)>, grub: Option<(u32, u32)>) -> Self {
        let newer = |version: Option<_>, than| version.is_some_and(|version| version >= than);
        if newer(kernel, (6, 6)) && newer(grub, (2, 12)) { Self::Lts612 } else { Self::Lts61 }
    }

    /// Whether each group records who owns its blocks.
    pub const fn rmapbt(self) -> bool {
        matches!(self, Self::Lts612)
    }

    /// Whether inodes count their extents in 48 bits.
    pub const fn nrext64(self) -> bool {
        matches!(self, Self::Lts612)
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

    #[test]
    fn newer_features_need_a_newer_kernel_and_a_newer_grub() {
        for profile in XfsProfile::ALL {
            assert_eq!(XfsProfile::parse(profile.name()), Some(profile));
        }
        let of = XfsProfile::understood_by;
        assert_eq!(of(Some((6, 6)), Some((2, 12))), XfsProfile::Lts612);
        for (kernel, grub) in [
            (Some((6, 1)), Some((2, 12))),
            (Some((6, 12)), Some((2, 6))),
            (Some((5, 14)), Some((2, 6))),
            (None, Some((2, 14))),
            (Some((7, 0)), None),
        ] {
            assert_eq!(of(kernel, grub), XfsProfile::Lts61, "{kernel:?} {grub:?}");
        }
    }
}
