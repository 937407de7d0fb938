//! What follows from the size alone: groups, the log, and the blocks with a fixed place.
//!
//! ```text
//! byte 0     S     2S    3S     block H
//! | super    | AGF | AGI | AGFL |by block|by size|inodes|free inodes|[owners]|sharing|[log]|free list|…
//! ```
//!
//! S is the sector size, H = ceil(4 S / 4096). The trees' roots have a block each; the log is in the middle group.

use anyhow::{Result, ensure};

use super::Options;
use super::on_disk::{BLOCK, CHUNK_BLOCKS, INODES_PER_BLOCK};
use super::{MINIMUM_SIZE, Profile};
use crate::error::unsupported;

/// Blocks of the smallest group: 16 MiB (XFS_AG_MIN_BYTES).
const MIN_GROUP: u64 = (16 << 20) / BLOCK;
/// Blocks of the largest group: 1 TiB less a block (XFS_AG_MAX_BLOCKS).
const MAX_GROUP: u64 = (1 << 40) / BLOCK - 1;
/// Blocks of the smallest log that mkfs.xfs makes today: 64 MiB.
const MIN_LOG: u64 = (64 << 20) / BLOCK;
/// Blocks of the largest log: 2 GiB less 10 MiB (XFS_MAX_LOG_BYTES).
const MAX_LOG: u64 = ((2 << 30) - (10 << 20)) / BLOCK;
/// The log is so small a part of the file system, where that is more than the least.
const LOG_PART: u64 = 2048;

/// The blocks at which the trees of a group have their roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Roots {
    pub(super) by_block: u32,
    pub(super) by_size: u32,
    pub(super) inodes: u32,
    pub(super) free_inodes: u32,
    pub(super) owners: Option<u32>,
    pub(super) sharing: u32,
}

/// A block: its group, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: u32,
    pub(super) block: u32,
}

impl Place {
    /// The block `count` blocks behind this one, in the same group.
    pub(super) fn plus(self, count: u64) -> Self {
        Self { block: self.block + count as u32, ..self }
    }
}

/// Sizes and fixed places of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Bytes of a sector.
    pub(super) sector: u64,
    pub(super) profile: Profile,
    /// `sb_dblocks`.
    pub(super) blocks: u64,
    /// `sb_agblocks`.
    pub(super) group_blocks: u64,
    /// `sb_agcount`.
    pub(super) groups: u32,
    /// `sb_agblklog`.
    pub(super) group_log: u32,
    /// Blocks of the four sectors that a group begins with.
    pub(super) headers: u32,
    pub(super) roots: Roots,
    /// The first block behind the roots.
    pub(super) first: u32,
    /// The group that the log is in.
    pub(super) log_group: u32,
    /// `sb_logblocks`.
    pub(super) log_blocks: u32,
    /// Blocks on the free list where all trees have one level: what the allocator wants for each of the trees that it serves.
    pub(super) free_list: u32,
    /// `sb_imax_pct` as mkfs chooses it.
    pub(super) inode_percent: u8,
}

impl Geometry {
    /// Fails if no XFS can have these options.
    pub(super) fn of(options: &Options) -> Result<Self> {
        let &Options { size, sector_size, profile, groups, .. } = options;
        ensure!(matches!(sector_size, 512 | 4096), "a sector of XFS has 512 or 4096 bytes here");
        if size < MINIMUM_SIZE {
            return Err(unsupported(
                format!("an XFS file system needs at least {} MiB", MINIMUM_SIZE >> 20),
                Some("use a larger --size, or omit it to get the smallest disk that fits"),
            ));
        }
        let mut blocks = size / BLOCK;
        let group_blocks = blocks.div_ceil(u64::from(groups.count())).min(MAX_GROUP);
        let mut count = blocks.div_ceil(group_blocks);
        if blocks - (count - 1) * group_blocks < MIN_GROUP {
            // The end is too small for a group: it stays unused.
            count -= 1;
            blocks = count * group_blocks;
        }
        let headers = (4 * sector_size).div_ceil(BLOCK) as u32;
        let has_owners = profile.rmapbt();
        let roots = Roots {
            by_block: headers,
            by_size: headers + 1,
            inodes: headers + 2,
            free_inodes: headers + 3,
            owners: has_owners.then_some(headers + 4),
            sharing: headers + 4 + u32::from(has_owners),
        };
        let log_blocks = (blocks / LOG_PART).clamp(MIN_LOG, MAX_LOG).min(group_blocks - 64);
        Ok(Self {
            sector: sector_size,
            profile,
            blocks,
            group_blocks,
            groups: u32::try_from(count)?,
            group_log: u64::BITS - (group_blocks - 1).leading_zeros(),
            headers,
            roots,
            first: roots.sharing + 1,
            log_group: u32::try_from(count / 2)?,
            log_blocks: u32::try_from(log_blocks)?,
            free_list: if has_owners { 6 } else { 4 },
            inode_percent: match (blocks * BLOCK) >> 40 {
                0 => 25,
                1..50 => 5,
                _ => 1,
            },
        })
    }

    /// Blocks of a group: `sb_agblocks`, but for the last one.
    pub(super) fn length(&self, group: u32) -> u32 {
        let left = self.blocks - u64::from(group) * self.group_blocks;
        left.min(self.group_blocks) as u32
    }

    /// `xfs_ino_t`, for the number in the group.
    pub(super) fn inode_number(&self, group: u32, in_group: u32) -> u64 {
        u64::from(group) << (self.group_log + INODES_PER_BLOCK.ilog2()) | u64::from(in_group)
    }

    /// Whether all inode numbers of a group have 32 bits: those of others would make directories larger than the census takes them to be.
    pub(super) fn has_small_numbers(&self, group: u32) -> bool {
        u64::from(group + 1) << (self.group_log + INODES_PER_BLOCK.ilog2()) <= 1 << 32
    }

    /// `xfs_fsblock_t`: group and block in fixed numbers of bits.
    pub(super) fn fsblock(&self, place: Place) -> u64 {
        u64::from(place.group) << self.group_log | u64::from(place.block)
    }

    /// The byte at which a block begins.
    pub(super) fn byte(&self, place: Place) -> u64 {
        (u64::from(place.group) * self.group_blocks + u64::from(place.block)) * BLOCK
    }

    /// What a block calls itself: its byte in units of 512.
    pub(super) fn daddr(&self, place: Place) -> u64 {
        self.byte(place) / 512
    }

    /// Blocks of a group that the kernel withholds at each mount, for trees that may grow (`xfs_ag_resv_init`). Those for owners
    /// are withheld whole, since their blocks count as free; of the others, what is not used yet.
    pub(super) fn reserve(&self, group: u32) -> u32 {
        let log = if group == self.log_group { self.log_blocks } else { 0 };
        let usable = self.length(group) - log;
        let sharing = half_full_tree(usable, 168, 252) - 1;
        let chunks = u64::from(usable) * u64::from(INODES_PER_BLOCK) / 64;
        let free_inodes = half_full_tree(chunks as u32, 126, 252) - 1;
        let owners = match self.roots.owners {
            Some(_) => (usable / 100).max(half_full_tree(usable, 84, 45)),
            None => 0,
        };
        sharing + free_inodes + owners
    }

    /// Where the chunks of inodes begin in a group: `at` is behind everything that has a fixed place.
    pub(super) fn align_chunk(at: u32) -> u32 {
        at.next_multiple_of(CHUNK_BLOCKS)
    }
}

/// Blocks of a tree over so many records whose blocks are half full (`xfs_btree_calc_size`).
fn half_full_tree(records: u32, leaf: u32, node: u32) -> u32 {
    let mut level = records.div_ceil(leaf).max(1);
    let mut blocks = level;
    while level > 1 {
        level = level.div_ceil(node);
        blocks += level;
    }
    blocks
}
