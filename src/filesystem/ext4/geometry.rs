//! Where the metadata of each block group is: arithmetic on a size and a number of inodes, the same as mke2fs does.
//!
//! ```text
//! group 0   |super block, descriptors, reserved descriptors|bitmaps and inode tables of 16 groups| …
//! group 1   |the same, as a backup                         | …
//! group 2   | …                           (backups are in groups 0, 1 and the powers of 3, 5 and 7)
//! group 16  |bitmaps and inode tables of the next 16 groups| …
//! ```

use std::ops::Range;

use anyhow::Result;

use super::on_disk::{
    BLOCK, BLOCKS_PER_GROUP, DESCRIPTOR_BYTES, INODE_BYTES, MAX_INODES_PER_GROUP,
};
use crate::error::unsupported;

const DESCRIPTORS_PER_BLOCK: u64 = BLOCK / DESCRIPTOR_BYTES as u64;
const INODES_PER_BLOCK: u32 = BLOCK as u32 / INODE_BYTES as u32;
/// Block numbers that fit in an indirect block, and so the most reserved descriptor blocks that the resize inode can hold.
pub(super) const POINTERS_PER_BLOCK: u64 = BLOCK / 4;
/// How many groups keep their bitmaps and inode tables together: mke2fs's 16.
pub(super) const LOG_GROUPS_PER_FLEX: u8 = 4;
/// What a last, partial group must have left besides its metadata: mke2fs's number.
const LAST_GROUP_ROOM: u64 = 50;
/// Below this many blocks there is no room for a journal.
const MIN_BLOCKS: u64 = 2048;

/// Where a group's own metadata is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) block_bitmap: u64,
    pub(super) inode_bitmap: u64,
    pub(super) inode_table: u64,
}

/// The shape of a file system. All numbers are of blocks unless they say otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// `s_blocks_count`; up to a small group less than what there is room for.
    pub(super) blocks: u64,
    pub(super) descriptor_blocks: u64,
    /// Kept free behind the descriptors, so that the kernel can add groups while mounted.
    pub(super) reserved_descriptor_blocks: u64,
    pub(super) inodes_per_group: u32,
    pub(super) tables: Vec<Tables>,
}

impl Geometry {
    /// The shape for `size` bytes and at least `inodes` inodes. Fails if that is too small, too large or too many.
    pub(super) fn of(size: u64, inodes: u32) -> Result<Self> {
        let all = size / BLOCK;
        if all < MIN_BLOCKS {
            return Err(unsupported(
                format!("an ext4 file system of {size} bytes is too small: it needs 8 MiB"),
                None,
            ));
        }
        let mut shape = Self::shape(all, inodes)?;
        let rest = all % BLOCKS_PER_GROUP;
        let dropped = all > BLOCKS_PER_GROUP
            && rest != 0
            && rest < shape.least_blocks(shape.group_count() - 1);
        if dropped {
            shape = Self::shape(all - rest, inodes)?;
        }
        shape.place_tables()?;
        Ok(shape)
    }

    /// Everything but the tables.
    fn shape(blocks: u64, inodes: u32) -> Result<Self> {
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let descriptor_blocks = groups.div_ceil(DESCRIPTORS_PER_BLOCK);
        let reserved_descriptor_blocks = reserved_descriptor_blocks(blocks, descriptor_blocks);
        let base = 1 + descriptor_blocks + reserved_descriptor_blocks;
        if u32::try_from(groups).is_err() || base > BLOCKS_PER_GROUP / 2 {
            return Err(unsupported(
                format!("an ext4 file system of {blocks} blocks is too large"),
                Some("use less than 128 TiB"),
            ));
        }
        let wanted = u64::from(inodes).div_ceil(groups).next_multiple_of(INODES_PER_BLOCK.into());
        let inodes_per_group = u32::try_from(wanted).unwrap_or(u32::MAX);
        if inodes_per_group > MAX_INODES_PER_GROUP
            || wanted.saturating_mul(groups) > u64::from(u32::MAX)
        {
            return Err(unsupported(
                format!("{inodes} inodes are too many for an ext4 file system of {blocks} blocks"),
                Some("make it larger"),
            ));
        }
        let tables = Vec::with_capacity(groups as usize);
        Ok(Self {
            blocks,
            descriptor_blocks,
            reserved_descriptor_blocks,
            inodes_per_group: inodes_per_group.max(INODES_PER_BLOCK),
            tables,
        })
    }

    /// Bitmaps and tables of each flexible group from its start on, packed.
    fn place_tables(&mut self) -> Result<()> {
        let groups = self.group_count();
        let flex = 1_u32 << LOG_GROUPS_PER_FLEX;
        for first in (0..groups).step_by(flex as usize) {
            let members = flex.min(groups - first);
            let mut cursor = group_start(first);
            let mut place = |count| self.place(&mut cursor, count);
            let block_bitmaps: Vec<u64> = (0..members).map(|_| place(1)).collect();
            let inode_bitmaps: Vec<u64> = (0..members).map(|_| place(1)).collect();
            let inode_tables: Vec<u64> =
                (0..members).map(|_| place(self.inode_table_blocks())).collect();
            if cursor > self.blocks {
                return Err(unsupported(
                    format!("{} blocks do not hold ext4's own tables", self.blocks),
                    Some("make the file system larger"),
                ));
            }
            for ((block_bitmap, inode_bitmap), inode_table) in
                block_bitmaps.into_iter().zip(inode_bitmaps).zip(inode_tables)
            {
                self.tables.push(Tables { block_bitmap, inode_bitmap, inode_table });
            }
        }
        Ok(())
    }

    /// The next place for `count` blocks in a row that no super block or descriptor needs.
    fn place(&self, cursor: &mut u64, count: u64) -> u64 {
        loop {
            let group = (*cursor / BLOCKS_PER_GROUP) as u32;
            *cursor = (*cursor).max(group_start(group) + self.base_blocks(group));
            let next = group_start(group + 1);
            if *cursor + count <= next || !has_super_block(group + 1) {
                let start = *cursor;
                *cursor += count;
                return start;
            }
            *cursor = next;
        }
    }

    /// How many groups there are.
    pub(super) fn group_count(&self) -> u32 {
        self.blocks.div_ceil(BLOCKS_PER_GROUP) as u32
    }

    /// `s_inodes_count`.
    pub(super) fn inode_count(&self) -> u32 {
        self.group_count() * self.inodes_per_group
    }

    /// Blocks of one group's inode table.
    pub(super) fn inode_table_blocks(&self) -> u64 {
        u64::from(self.inodes_per_group / INODES_PER_BLOCK)
    }

    /// Super block, descriptors and reserved descriptors at the start of a group; none in most.
    pub(super) fn base_blocks(&self, group: u32) -> u64 {
        if has_super_block(group) {
            1 + self.descriptor_blocks + self.reserved_descriptor_blocks
        } else {
            0
        }
    }

    /// The blocks of a group; the last may be short.
    pub(super) fn group_range(&self, group: u32) -> Range<u64> {
        group_start(group)..group_start(group + 1).min(self.blocks)
    }

    /// Groups besides 0 that have a copy of super block and descriptors, ascending.
    pub(super) fn backups(&self) -> impl Iterator<Item = u32> {
        (1..self.group_count()).filter(|&group| has_super_block(group))
    }

    /// All blocks that hold fixed metadata, ascending, neighbours joined.
    pub(super) fn metadata(&self) -> Vec<Range<u64>> {
        let groups = 0..self.group_count();
        let base = groups
            .map(|group| group_start(group)..group_start(group) + self.base_blocks(group))
            .filter(|range| !range.is_empty());
        let tables = self.tables.iter().flat_map(|tables| {
            let end = tables.inode_table + self.inode_table_blocks();
            [
                tables.block_bitmap..tables.block_bitmap + 1,
                tables.inode_bitmap..tables.inode_bitmap + 1,
                tables.inode_table..end,
            ]
        });
        let mut ranges: Vec<Range<u64>> = base.chain(tables).collect();
        ranges.sort_by_key(|range| range.start);
        join(ranges)
    }

    /// The blocks of a file system that is larger by at least this many; more if they would begin a group too small to be.
    pub(super) fn grown_by(&self, count: u64) -> u64 {
        let grown = self.blocks + count;
        let group = self.group_count();
        if grown > group_start(group) {
            grown.max(group_start(group) + self.least_blocks(group))
        } else {
            grown
        }
    }

    /// Fewer blocks than this in a last group are not worth having.
    fn least_blocks(&self, group: u32) -> u64 {
        self.base_blocks(group) + 2 + self.inode_table_blocks() + LAST_GROUP_ROOM
    }
}

/// The first block of a group.
pub(super) fn group_start(group: u32) -> u64 {
    u64::from(group) * BLOCKS_PER_GROUP
}

/// Whether a group has a super block and descriptors: the feature sparse_super.
pub(super) fn has_super_block(group: u32) -> bool {
    let is_power = |base: u32| {
        let mut rest = group;
        while rest > 1 && rest.is_multiple_of(base) {
            rest /= base;
        }
        rest == 1
    };
    group <= 1 || is_power(3) || is_power(5) || is_power(7)
}

/// Joins sorted ranges that touch. Overlap is our mistake.
fn join(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            last => {
                let end = last.map_or(0, |last| last.end);
                assert!(end <= range.start, "block {} is used twice", range.start);
                joined.push(range);
            }
        }
    }
    joined
}

/// Room to grow 1024 times, or to 2^32 blocks, as mke2fs leaves it. The resize inode's block numbers have 32 bits: a larger
/// file system has none.
fn reserved_descriptor_blocks(blocks: u64, descriptor_blocks: u64) -> u64 {
    let limit = u64::from(u32::MAX);
    if blocks > limit {
        return 0;
    }
    let grown = if blocks < limit / 1024 { blocks * 1024 } else { limit };
    let descriptors = grown.div_ceil(BLOCKS_PER_GROUP).div_ceil(DESCRIPTORS_PER_BLOCK);
    descriptors.saturating_sub(descriptor_blocks).min(POINTERS_PER_BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const TIB: u64 = 1 << 40;

    /// The expected numbers are those of mke2fs 1.47.0 with 4096-byte blocks.
    #[test]
    fn the_same_as_mke2fs() {
        let geometry = Geometry::of(600 * MIB, 38_400).unwrap();
        assert_eq!(geometry.blocks, 153_600);
        assert_eq!(geometry.reserved_descriptor_blocks, 74);
        assert_eq!(geometry.inodes_per_group, 7680);
        let first = Tables { block_bitmap: 76, inode_bitmap: 81, inode_table: 86 };
        assert_eq!(geometry.tables[0], first);
        let last = Tables { block_bitmap: 80, inode_bitmap: 85, inode_table: 2006 };
        assert_eq!(geometry.tables[4], last);
        assert_eq!(geometry.backups().collect::<Vec<_>>(), [1, 3]);
        for (gib, expected) in [(1, 127), (4, 511), (10, 1024), (100, 1024)] {
            let blocks = gib * 1024 * MIB / BLOCK;
            let descriptors = blocks.div_ceil(BLOCKS_PER_GROUP).div_ceil(DESCRIPTORS_PER_BLOCK);
            assert_eq!(reserved_descriptor_blocks(blocks, descriptors), expected, "{gib} GiB");
        }
    }

    #[test]
    fn backups_are_where_sparse_super_says() {
        let groups: Vec<u32> = (0..130).filter(|&group| has_super_block(group)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn metadata_never_overlaps_and_never_leaves() {
        for size in
            [8 * MIB, 16 * MIB, 127 * MIB, 129 * MIB, 1000 * MIB, 3 * TIB, 15 * TIB, 20 * TIB]
        {
            for bytes_per_inode in [8192, 16_384, MIB] {
                let inodes = u32::try_from(size / bytes_per_inode).unwrap_or(1 << 31);
                let Ok(geometry) = Geometry::of(size, inodes) else {
                    panic!("{size} bytes, {inodes} inodes")
                };
                let metadata = geometry.metadata();
                assert!(metadata.last().unwrap().end <= geometry.blocks);
                let count: u64 = metadata.iter().map(|range| range.end - range.start).sum();
                let base: u64 = (0..geometry.group_count()).map(|g| geometry.base_blocks(g)).sum();
                let groups = u64::from(geometry.group_count());
                assert_eq!(count, base + groups * (2 + geometry.inode_table_blocks()));
                assert!(geometry.inode_count() >= inodes.min(geometry.inode_count()));
            }
        }
    }

    #[test]
    fn a_last_group_that_is_too_small_is_left_out() {
        let geometry = Geometry::of(128 * MIB + 40 * BLOCK, 1024).unwrap();
        assert_eq!(geometry.blocks, BLOCKS_PER_GROUP);
        let least = Geometry::of(256 * MIB, 1024).unwrap().least_blocks(1);
        assert_eq!(
            Geometry::of(128 * MIB + least * BLOCK, 1024).unwrap().blocks,
            BLOCKS_PER_GROUP + least
        );
    }

    #[test]
    fn the_resize_inode_ends_at_32_bits() {
        assert_eq!(Geometry::of(17 * TIB, 1 << 20).unwrap().reserved_descriptor_blocks, 0);
        assert!(Geometry::of(200 * TIB, 1 << 20).is_err());
        assert!(Geometry::of(4 * MIB, 16).is_err());
        assert!(Geometry::of(128 * MIB, 40_000).is_err());
    }
}
