//! Hands out the blocks of a group in ascending order: inodes first, then what the tree needs, then the rest of the group's own trees.
//!
//! What is free therefore lies in one piece at the end, besides at most seven blocks before the inodes.

use super::btree::{Kind, Mapping, Shape, owner};
use super::geometry::Geometry;
use super::on_disk::{CHUNK, CHUNK_BLOCKS};

/// Blocks of a group that nobody gets: what the kernel keeps for its free list and for splits (`xfs_alloc_set_aside`).
pub(super) const SET_ASIDE: u32 = 8;

/// A group whose blocks are being handed out.
#[derive(Debug)]
pub(super) struct Group {
    number: u32,
    length: u32,
    /// Inodes in use.
    pub(super) inodes: u32,
    log: Option<u32>,
    free_list: Vec<u32>,
    /// Where the first chunk of inodes is, or would be.
    chunks_at: u32,
    /// The first block that has no fixed use.
    first: u32,
    cursor: u32,
    /// Blocks from here on are not handed out to the tree.
    limit: u32,
    reserve: u32,
    /// Who owns what; empty where the file system does not record it.
    owned: Vec<Mapping>,
    records_owners: bool,
}

impl Group {
    pub(super) fn new(geometry: &Geometry, number: u32) -> Self {
        let mut at = geometry.first;
        let mut group = Self {
            number,
            length: geometry.length(number),
            inodes: 0,
            log: None,
            free_list: Vec::new(),
            chunks_at: 0,
            first: 0,
            cursor: 0,
            limit: 0,
            reserve: geometry.reserve(number),
            owned: Vec::new(),
            records_owners: geometry.roots.owners.is_some(),
        };
        group.own(0, geometry.headers, owner::HEADERS, 0);
        let roots = geometry.roots;
        group.own(roots.by_block, 2, owner::GROUP, 0);
        group.own(roots.inodes, 2, owner::INODE_TREES, 0);
        if let Some(root) = roots.owners {
            group.own(root, 1, owner::GROUP, 0);
        }
        group.own(roots.sharing, 1, owner::SHARING, 0);
        if number == geometry.log_group {
            group.log = Some(at);
            group.own(at, geometry.log_blocks, owner::LOG, 0);
            at += geometry.log_blocks;
        }
        group.free_list = (at..at + geometry.free_list).collect();
        group.own(at, geometry.free_list, owner::GROUP, 0);
        group.first = at + geometry.free_list;
        // xfs_repair computes from this where the root directory is.
        group.chunks_at = Geometry::align_chunk(group.first);
        group
    }

    /// Blocks for inodes and what they need.
    pub(super) fn capacity(&self) -> u32 {
        self.length.saturating_sub(self.chunks_at + self.reserve + SET_ASIDE)
    }

    /// The number in the group of the next inode, which is in use from now on.
    pub(super) fn take_inode(&mut self) -> u32 {
        let number = self.chunks_at * super::on_disk::INODES_PER_BLOCK + self.inodes;
        self.inodes += 1;
        number
    }

    fn chunks(&self) -> u32 {
        self.inodes.div_ceil(CHUNK)
    }

    /// All inodes are taken: their chunks come first, and blocks may be taken behind them. Returns how many blocks are lacking for them.
    pub(super) fn start(&mut self) -> u64 {
        let chunks = self.chunks();
        let lacking = u64::from(chunks * CHUNK_BLOCKS).saturating_sub(self.capacity().into());
        self.cursor = match chunks {
            // Nothing to align: all that is free is one run.
            0 => self.first,
            _ => self.chunks_at + chunks * CHUNK_BLOCKS,
        };
        self.own(self.chunks_at, chunks * CHUNK_BLOCKS, owner::INODES, 0);
        let tree = Shape::of(Kind::Inodes, chunks as usize);
        self.limit = self.length.saturating_sub(self.reserve + SET_ASIDE + tree.blocks());
        lacking
    }

    /// Blocks that are left for the tree.
    pub(super) fn room(&self) -> u32 {
        self.limit.saturating_sub(self.cursor)
    }

    /// Takes blocks, of which there must be room for as many; returns the first.
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let start = self.cursor;
        self.cursor += count;
        start
    }

    /// Notes who owns blocks that were taken.
    pub(super) fn own(&mut self, start: u32, count: u32, owner: u64, offset: u64) {
        if self.records_owners && count > 0 {
            self.owned.push(Mapping { start, count, owner, offset });
        }
    }

    fn take_own(&mut self, count: u32, owner: u64) -> Vec<u32> {
        let start = self.take(count);
        self.own(start, count, owner, 0);
        (start..start + count).collect()
    }

    /// Everything is placed: further blocks of the group's trees follow it, and what is behind them is free.
    pub(super) fn finish(mut self) -> Finished {
        let chunks = self.chunks();
        let inodes = Shape::of(Kind::Inodes, chunks as usize);
        let inode_blocks = self.take_own(inodes.blocks() - 1, owner::INODE_TREES);
        let owners = self.records_owners.then(|| self.finish_owners());
        // Between the free list and the chunks of inodes, and behind everything.
        let gap = if chunks == 0 { self.first..self.first } else { self.first..self.chunks_at };
        let free = [gap, self.cursor..self.length];
        Finished {
            number: self.number,
            length: self.length,
            inodes: self.inodes,
            chunks,
            chunks_at: self.chunks_at,
            log: self.log,
            reserve: self.reserve,
            inode_tree: (inodes, inode_blocks),
            owners,
            free: free.into_iter().filter(|range| !range.is_empty()).collect(),
            free_list: self.free_list,
        }
    }

    /// The number of records decides the height of the tree of owners, the height the blocks on the free list; and what both take may be a
    /// record more.
    fn finish_owners(&mut self) -> Owners {
        let known = Mapping::merge(std::mem::take(&mut self.owned));
        let mut further = 1;
        loop {
            let tree = Shape::of(Kind::Owners, known.len() + further);
            let listed = tree.height() - 1;
            let mut mappings = known.clone();
            let (start, count) = (self.cursor, tree.blocks() - 1 + listed);
            if count > 0 {
                mappings.push(Mapping { start, count, owner: owner::GROUP, offset: 0 });
            }
            let mappings = Mapping::merge(mappings);
            if mappings.len() == known.len() + further {
                let blocks = self.take_own(tree.blocks() - 1, owner::GROUP);
                let listed = self.take_own(listed, owner::GROUP);
                self.free_list.extend(listed);
                return Owners { tree, blocks, mappings };
            }
            further = mappings.len() - known.len();
        }
    }
}

/// The tree of owners.
#[derive(Debug)]
pub(super) struct Owners {
    pub(super) tree: Shape,
    /// Its blocks besides the root.
    pub(super) blocks: Vec<u32>,
    pub(super) mappings: Vec<Mapping>,
}

/// A group in which everything has its place.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) number: u32,
    pub(super) length: u32,
    pub(super) inodes: u32,
    pub(super) chunks: u32,
    pub(super) chunks_at: u32,
    pub(super) log: Option<u32>,
    pub(super) reserve: u32,
    /// The tree of chunks, and its blocks besides the root.
    pub(super) inode_tree: (Shape, Vec<u32>),
    pub(super) owners: Option<Owners>,
    /// Ascending.
    pub(super) free: Vec<std::ops::Range<u32>>,
    pub(super) free_list: Vec<u32>,
}

impl Finished {
    /// `agf_freeblks`.
    pub(super) fn free_blocks(&self) -> u32 {
        self.free.iter().map(|range| range.end - range.start).sum()
    }

    /// `agf_btreeblks`: of the trees of free space, which are a block each, and of owners.
    pub(super) fn tree_blocks(&self) -> u32 {
        self.owners.as_ref().map_or(0, |owners| owners.blocks.len() as u32)
    }

    /// What the super block counts as free.
    pub(super) fn counted_free(&self) -> u64 {
        u64::from(self.free_blocks()) + self.free_list.len() as u64 + u64::from(self.tree_blocks())
    }
}
