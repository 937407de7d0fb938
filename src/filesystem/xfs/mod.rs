//! XFS, written in one go: a tree becomes a file system without a mount, without root, and the same each time.
//!
//! ```text
//! group 0                                                  group 1 (the log is in the middle group)
//! |headers|roots of trees|free list|inodes|files …|  free  |headers|roots|log|free list|inodes|files …|  free  |
//! ```
//!
//! [`Layout::of`] decides where everything is, [`Layout::emit`] writes it, [`fit`] tells beforehand how large it must be. It is version 5
//! with what mkfs.xfs turns on by itself for kernels from 5.10 on; [`Profile`] says what else. Blocks have 4096 bytes, inodes 512. There
//! are no real-time section, quotas, stripes, parent pointers and no exchange of ranges: GRUB before 2.14 refuses the latter two.
//!
//! Read `on_disk` (the structures), `geometry` (fixed places), `census` with `directory` and `attribute` (what a tree needs), `allocator`
//! and `btree` (where it goes, and what a group records of it); then `layout` and `emit`, which put them together.

mod allocator;
mod attribute;
mod btree;
mod census;
mod directory;
mod dump;
mod emit;
mod extent;
mod geometry;
mod groups;
mod layout;
mod log;
mod on_disk;

use uuid::Uuid;

pub use crate::filesystem_kind::XfsProfile as Profile;
pub use dump::dump;
pub use layout::{Layout, fit};

/// The least size, in bytes: what mkfs.xfs makes at least.
pub const MINIMUM_SIZE: u64 = 300 << 20;
/// Bytes of the longest label (`sb_fname`).
pub const LONGEST_LABEL: usize = 12;
/// No larger size is tried, in bytes: what a content of this size is, is a mistake.
const MAXIMUM_SIZE: u64 = 1 << 50;

/// How many groups a file system is divided into, as long as none exceeds 1 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Groups {
    /// Half as many as mkfs makes: when the file system grows it gets more of the same size, and each costs time at every mount.
    Two,
    /// As mkfs has it.
    Four,
}

impl Groups {
    const fn count(self) -> u32 {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// Everything that a file system depends on besides the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes; what is left over beyond a multiple of 4096, or as a last group below 16 MiB, stays unused.
    pub size: u64,
    /// `sb_uuid`; inode generations derive from it, too.
    pub uuid: Uuid,
    /// `sb_fname`: up to 12 bytes.
    pub label: String,
    /// Bytes of a sector: 512 or 4096.
    pub sector_size: u64,
    /// Which features.
    pub profile: Profile,
    /// How many groups.
    pub groups: Groups,
    /// When the file system was made, in seconds since 1970.
    pub time: i64,
}

/// What [`fit`] is to make room for, besides the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Bytes that `df` shall show as available; `None`: the tree fits, and no more.
    pub free_bytes: Option<u64>,
    /// Inodes that there shall be room for besides.
    pub free_inodes: u32,
    /// As in [`Options`].
    pub sector_size: u64,
    /// As in [`Options`].
    pub profile: Profile,
    /// As in [`Options`].
    pub groups: Groups,
}

/// How full a file system is. Blocks have 4096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// All blocks.
    pub blocks: u64,
    /// Blocks that hold nothing (`sb_fdblocks`).
    pub free_blocks: u64,
    /// Blocks that users may fill: the free ones less what the kernel withholds.
    pub available_blocks: u64,
    /// Inodes in use, three of which are XFS' own.
    pub used_inodes: u64,
}

#[cfg(test)]
mod tests;
