//! Which blocks of a file are where: extents, and the tree of them when four are not enough.
//!
//! ```text
//! i_block   |header depth 1|node a|node b|  …  at most 4 entries
//! node a    |header depth 0|extent|extent|extent| … 340 |checksum|
//! ```

use std::ops::Range;

use zerocopy::IntoBytes;

use super::allocator::Allocator;
use super::checksum::{self, Crc};
use super::on_disk::{BLOCK, BLOCK_BYTES, EXTENT_MAGIC, ExtentHeader, ExtentIndex, ExtentLeaf};
use crate::content::Content;
use crate::sparse::SparseMap;

/// An extent of more blocks would mean one that is allocated but not written.
const MAX_EXTENT: u64 = 32_768;
const IN_INODE: usize = 4;
const IN_BLOCK: usize = 340;

/// Some blocks of a file in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first of them, counted in the file.
    pub(super) logical: u64,
    /// The first of them, counted in the file system.
    pub(super) start: u64,
    /// 1 to 32768.
    pub(super) count: u64,
}

/// Where a file is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FileMap {
    /// Ascending.
    pub(super) extents: Vec<Extent>,
    /// Nodes of the tree outside of the inode: leaves first, then what is above them.
    pub(super) nodes: Vec<u64>,
}

impl FileMap {
    /// Takes blocks for the ranges of a file that hold something; they are counted in blocks, ascending, and do not touch.
    pub(super) fn allocate(
        ranges: impl Iterator<Item = Range<u64>>,
        allocator: &mut Allocator,
    ) -> Self {
        let mut extents = Vec::new();
        for range in ranges {
            let mut logical = range.start;
            for mut run in allocator.take(range.end - range.start) {
                while !run.is_empty() {
                    let count = MAX_EXTENT.min(run.end - run.start);
                    extents.push(Extent { logical, start: run.start, count });
                    logical += count;
                    run.start += count;
                }
            }
        }
        let nodes = (0..node_count(extents.len())).map(|_| allocator.take_one()).collect();
        Self { extents, nodes }
    }

    /// Takes blocks for a file without holes.
    pub(super) fn whole(blocks: u64, allocator: &mut Allocator) -> Self {
        Self::allocate(std::iter::once(0..blocks), allocator)
    }

    /// Blocks of content and of the tree.
    pub(super) fn block_count(&self) -> u64 {
        self.extents.iter().map(|extent| extent.count).sum::<u64>() + self.nodes.len() as u64
    }

    /// `i_block`: the root of the tree.
    pub(super) fn root(&self) -> [u8; 60] {
        let entries = self.levels().pop().unwrap_or_default();
        let depth = self.levels().len() as u16 - 1;
        let mut root = [0; 60];
        write_node(&mut root, &entries, IN_INODE, depth);
        root
    }

    /// Writes the nodes of the tree that are blocks of their own.
    pub(super) fn emit_nodes(&self, inode: Crc, volume: &mut SparseMap) {
        let mut nodes = self.nodes.iter();
        for (depth, level) in self.levels().iter().enumerate() {
            // The last level is the root's, and so is the end of `nodes`.
            for (entries, &node) in level.chunks(IN_BLOCK).zip(&mut nodes) {
                let mut block = vec![0; BLOCK_BYTES];
                write_node(&mut block, entries, IN_BLOCK, depth as u16);
                checksum::seal_extents(&mut block, inode);
                volume.put(node * BLOCK, block);
            }
        }
        assert!(nodes.next().is_none(), "a tree of extents is smaller than laid out");
    }

    /// Writes the start of the file; what the bytes do not reach stays zero.
    pub(super) fn emit_bytes(&self, bytes: &[u8], volume: &mut SparseMap) {
        for extent in &self.extents {
            let from = bytes.len().min((extent.logical * BLOCK) as usize);
            let to = bytes.len().min(from + (extent.count * BLOCK) as usize);
            volume.put(extent.start * BLOCK, bytes[from..to].to_vec());
        }
    }

    /// Places a content where its blocks are; exactly its data, so that the rest of a block stays zero.
    pub(super) fn emit_content(&self, content: &Content, volume: &mut SparseMap) {
        self.emit_content_at(0, content, volume);
    }

    /// Puts the data of a content that begins at this byte of the file.
    pub(super) fn emit_content_at(&self, offset: u64, content: &Content, volume: &mut SparseMap) {
        let mut extents = self.extents.iter().peekable();
        for range in content.data_ranges() {
            let mut position = offset + range.start;
            while position < offset + range.end {
                let extent = extents.peek().expect("each range of a content has blocks");
                let start = extent.logical * BLOCK;
                let end = start + extent.count * BLOCK;
                if position >= end {
                    extents.next();
                    continue;
                }
                let to = end.min(offset + range.end);
                let target = extent.start * BLOCK + (position - start);
                volume.put_content(target, content.id, position - offset, to - position);
                position = to;
            }
        }
    }

    /// Where the file's last block is, in bytes of the file system.
    pub(super) fn last_block(&self) -> u64 {
        let last = self.extents.last().expect("the file has blocks");
        (last.start + last.count - 1) * BLOCK
    }

    /// The entries of each level of the tree, from the leaves up to the root; always at least one level.
    fn levels(&self) -> Vec<Vec<[u8; 12]>> {
        let leaf = |extent: &Extent| {
            let entry = ExtentLeaf {
                ee_block: (extent.logical as u32).into(),
                ee_len: (extent.count as u16).into(),
                ee_start_hi: ((extent.start >> 32) as u16).into(),
                ee_start_lo: (extent.start as u32).into(),
            };
            (extent.logical, to_array(&entry))
        };
        let mut level: Vec<(u64, [u8; 12])> = self.extents.iter().map(leaf).collect();
        let mut levels = Vec::new();
        let mut nodes = self.nodes.iter();
        while level.len() > IN_INODE {
            let index = |(entries, &node): (&[(u64, [u8; 12])], &u64)| {
                let entry = ExtentIndex {
                    ei_block: (entries[0].0 as u32).into(),
                    ei_leaf_lo: (node as u32).into(),
                    ei_leaf_hi: ((node >> 32) as u16).into(),
                    ei_unused: 0.into(),
                };
                (entries[0].0, to_array(&entry))
            };
            let above = level.chunks(IN_BLOCK).zip(&mut nodes).map(index).collect();
            levels.push(level.into_iter().map(|(_, entry)| entry).collect());
            level = above;
        }
        levels.push(level.into_iter().map(|(_, entry)| entry).collect());
        levels
    }
}

/// The ranges of a content that hold data, rounded outward to blocks and joined, counted in blocks.
pub(super) fn block_ranges(content: &Content) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for range in content.data_ranges() {
        let (start, end) = (range.start / BLOCK, range.end.div_ceil(BLOCK));
        match ranges.last_mut() {
            Some(last) if start <= last.end => last.end = end.max(last.end),
            _ => ranges.push(start..end),
        }
    }
    ranges
}

/// How many blocks a tree of this many extents needs besides the inode.
fn node_count(extents: usize) -> usize {
    let (mut sum, mut level) = (0, extents);
    while level > IN_INODE {
        level = level.div_ceil(IN_BLOCK);
        sum += level;
    }
    sum
}

fn write_node(node: &mut [u8], entries: &[[u8; 12]], max: usize, depth: u16) {
    let header = ExtentHeader {
        eh_magic: EXTENT_MAGIC.into(),
        eh_entries: (entries.len() as u16).into(),
        eh_max: (max as u16).into(),
        eh_depth: depth.into(),
        eh_generation: 0.into(),
    };
    let (head, body) = node.split_at_mut(12);
    head.copy_from_slice(header.as_bytes());
    for (place, entry) in body.chunks_exact_mut(12).zip(entries) {
        place.copy_from_slice(entry);
    }
}

fn to_array(entry: &(impl IntoBytes + zerocopy::Immutable)) -> [u8; 12] {
    entry.as_bytes().try_into().expect("entries of extent trees have 12 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filesystem::ext4::geometry::Geometry;

    fn allocator() -> Allocator {
        Allocator::new(&Geometry::of(2 << 30, 4096).unwrap())
    }

    #[test]
    fn trees_grow_with_their_extents() {
        assert_eq!([0, 4, 5, 340, 341, 1360, 1361].map(node_count), [0, 0, 1, 1, 2, 4, 6]);
        for count in [0_u64, 1, 4, 5, 341, 1361, 2000] {
            let map = FileMap::allocate((0..count).map(|i| i * 2..i * 2 + 1), &mut allocator());
            assert_eq!(map.extents.len() as u64, count);
            let depth = [0, 0, 0, 1, 1, 2, 2]
                [[0, 1, 4, 5, 341, 1361, 2000].iter().position(|&c| c == count).unwrap()];
            assert_eq!(map.root()[6], depth, "{count}");
            let mut volume = SparseMap::new(2 << 30);
            map.emit_nodes(Crc::START, &mut volume);
            assert_eq!(volume.segments().count(), map.nodes.len());
            assert_eq!(map.block_count(), count + map.nodes.len() as u64);
        }
    }

    #[test]
    fn a_file_is_split_only_by_metadata_and_by_the_size_of_an_extent() {
        let mut allocator = allocator();
        let map = FileMap::whole(100_000, &mut allocator);
        let mut logical = 0;
        for extent in &map.extents {
            assert_eq!(extent.logical, logical);
            assert!(extent.count <= MAX_EXTENT);
            logical += extent.count;
        }
        assert_eq!(logical, 100_000);
        assert!(map.extents.len() <= 6, "{:?}", map.extents);
    }

    #[test]
    fn ranges_are_rounded_outward_and_joined() {
        let data = [0..1, 4000..4097, 8192..8193, 20_000..30_000];
        let content = Content { data: Some(data.into()), size: 40_000, ..Content::EMPTY };
        assert_eq!(block_ranges(&content), [0..3, 4..8]);
        let map = FileMap::allocate(block_ranges(&content).into_iter(), &mut allocator());
        let mut volume = SparseMap::new(2 << 30);
        map.emit_content(&content, &mut volume);
        assert_eq!(volume.allocated(), 1 + 97 + 1 + 10_000);
    }
}
