//! Sectors and their numbers: the unit in which a partition table counts.

use std::fmt;

/// Bytes of a mebibyte: every partition begins and ends at a multiple of it.
pub const MIB: u64 = 1 << 20;

/// How many bytes the disk's smallest addressable unit has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectorSize {
    /// 512 bytes: nearly every disk, and every BIOS.
    S512,
    /// 4096 bytes: "4K native" disks, which BIOS cannot start from.
    S4096,
}

impl SectorSize {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::S512, Self::S4096];

    /// Bytes of a sector.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::S512 => 512,
            Self::S4096 => 4096,
        }
    }

    /// The sector size of so many bytes, if it is one of ours.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.bytes() == bytes)
    }
}

/// The number of a sector, counted from 0 ("logical block address").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lba(pub u64);

impl Lba {
    /// Offset of the sector's first byte. A [`crate::Table`] holds only numbers for which this stays below 2^64.
    pub const fn to_bytes(self, sector_size: SectorSize) -> u64 {
        self.0 * sector_size.bytes()
    }

    /// The sector that begins at this offset, if one does.
    pub const fn at_offset(offset: u64, sector_size: SectorSize) -> Option<Self> {
        if offset.is_multiple_of(sector_size.bytes()) {
            Some(Self(offset / sector_size.bytes()))
        } else {
            None
        }
    }
}

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
