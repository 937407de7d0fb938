//! The trees in which a group records its free space, its inodes and who owns its blocks.
//!
//! ```text
//! leaf   |header|record|record| …                    node   |header|key|key| …  |block|block| …
//! ```
//!
//! "XFS Algorithms & Data Structures", chapters "Allocation Groups" and "Reverse-Mapping B+tree".

use super::geometry::{Geometry, Place};
use super::on_disk::{BLOCK_BYTES, NULL32, ShortBlock, headed, seal};

const HEADER: usize = size_of::<ShortBlock>();
/// Bytes of a block number in a node.
const POINTER: usize = 4;

/// Which tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Free space by block.
    ByBlock,
    /// Free space by size.
    BySize,
    /// Chunks of inodes.
    Inodes,
    /// Chunks of inodes of which some are free.
    FreeInodes,
    /// Who owns which blocks.
    Owners,
    /// Which blocks several files share: none.
    Sharing,
}

impl Kind {
    const fn magic(self) -> [u8; 4] {
        match self {
            Self::ByBlock => *b"AB3B",
            Self::BySize => *b"AB3C",
            Self::Inodes => *b"IAB3",
            Self::FreeInodes => *b"FIB3",
            Self::Owners => *b"RMB3",
            Self::Sharing => *b"R3FC",
        }
    }

    /// Bytes of a record.
    pub(super) const fn record(self) -> usize {
        match self {
            Self::ByBlock | Self::BySize => 8,
            Self::Inodes | Self::FreeInodes => 16,
            Self::Owners => 24,
            Self::Sharing => 12,
        }
    }

    /// Bytes of a key; owners have two, the lowest and the highest.
    const fn key(self) -> usize {
        match self {
            Self::ByBlock | Self::BySize => 8,
            Self::Inodes | Self::FreeInodes | Self::Sharing => 4,
            Self::Owners => 2 * OWNER_KEY,
        }
    }

    const fn records_in_leaf(self) -> usize {
        (BLOCK_BYTES - HEADER) / self.record()
    }

    const fn keys_in_node(self) -> usize {
        (BLOCK_BYTES - HEADER) / (self.key() + POINTER)
    }

    /// The key of one record: of free space the whole record, of others the number that they begin with.
    fn key_of(self, record: &[u8]) -> Vec<u8> {
        match self {
            Self::Owners => Mapping::keys(record).concat(),
            _ => record[..self.key()].to_vec(),
        }
    }

    /// The key of everything from what has the key `first` to what has the key `last`. Owners do not overlap here, since nothing is shared:
    /// the last one has the highest key.
    fn span(self, first: &[u8], last: &[u8]) -> Vec<u8> {
        match self {
            Self::Owners => [&first[..OWNER_KEY], &last[OWNER_KEY..]].concat(),
            _ => first.to_vec(),
        }
    }
}

/// Bytes of an owner's key: block, owner, offset.
const OWNER_KEY: usize = 20;
/// `rm_offset`: blocks of an attribute fork.
pub(super) const OFFSET_ATTRIBUTE: u64 = 1 << 63;
/// `rm_offset`: blocks of a tree of extents.
pub(super) const OFFSET_NODE: u64 = 1 << 62;

/// Owners that are no inodes (XFS_RMAP_OWN_*).
pub(super) mod owner {
    /// The headers of a group.
    pub(in super::super) const HEADERS: u64 = u64::MAX - 2;
    /// The log.
    pub(in super::super) const LOG: u64 = u64::MAX - 3;
    /// The trees of free space and of owners, and the free list.
    pub(in super::super) const GROUP: u64 = u64::MAX - 4;
    /// The trees of inodes.
    pub(in super::super) const INODE_TREES: u64 = u64::MAX - 5;
    /// Inodes.
    pub(in super::super) const INODES: u64 = u64::MAX - 6;
    /// The tree of sharing.
    pub(in super::super) const SHARING: u64 = u64::MAX - 7;
}

/// Who owns a run of blocks (`xfs_rmap_rec`). The derived order is the tree's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mapping {
    pub(super) start: u32,
    pub(super) count: u32,
    /// An inode number or one of [`owner`].
    pub(super) owner: u64,
    /// The block in the fork, and which fork.
    pub(super) offset: u64,
}

impl Mapping {
    fn has_offset(owner: u64, offset: u64) -> bool {
        owner < 1 << 63 && offset & OFFSET_NODE == 0
    }

    fn encode(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..4].copy_from_slice(&self.start.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.count.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.owner.to_be_bytes());
        bytes[16..].copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }

    /// The lowest and the highest key of a record.
    fn keys(record: &[u8]) -> [Vec<u8>; 2] {
        let word = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| record[at + i]));
        let long = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| record[at + i]));
        let (start, count, owner, offset) = (word(0), word(4), long(8), long(16));
        let more = if Self::has_offset(owner, offset) { u64::from(count) - 1 } else { 0 };
        [(start, offset), (start + count - 1, offset + more)].map(|(block, offset)| {
            [&block.to_be_bytes()[..], &owner.to_be_bytes(), &offset.to_be_bytes()].concat()
        })
    }

    /// Whether `next` continues this one: then the two must be one record.
    fn continues_in(&self, next: &Self) -> bool {
        let flags = OFFSET_ATTRIBUTE | OFFSET_NODE;
        let follows = !Self::has_offset(self.owner, self.offset)
            || self.offset + u64::from(self.count) == next.offset;
        self.start + self.count == next.start
            && self.owner == next.owner
            && self.offset & flags == next.offset & flags
            && follows
    }

    /// Sorts mappings, and makes one of those that continue each other.
    pub(super) fn merge(mut mappings: Vec<Self>) -> Vec<Self> {
        mappings.sort_unstable();
        mappings.dedup_by(|next, before| {
            let merged = before.continues_in(next);
            if merged {
                before.count += next.count;
            }
            merged
        });
        mappings
    }

    /// The records of a tree of owners.
    pub(super) fn records(mappings: &[Self]) -> Vec<u8> {
        mappings.iter().flat_map(Self::encode).collect()
    }
}

/// Sizes of as few parts as hold `count` with at most `most` in each, as equal as can be: so none is less than half full. There is one
/// part at least.
pub(super) fn spread_evenly(count: usize, most: usize) -> Vec<usize> {
    let parts = count.div_ceil(most).max(1);
    let (each, more) = (count / parts, count % parts);
    (0..parts).map(|part| each + usize::from(part < more)).collect()
}

/// How a tree is divided into blocks, leaves first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    kind: Kind,
    levels: Vec<Vec<usize>>,
}

impl Shape {
    /// For so many records.
    pub(super) fn of(kind: Kind, records: usize) -> Self {
        let mut levels = vec![spread_evenly(records, kind.records_in_leaf())];
        while let Some(below) = levels.last().map(Vec::len).filter(|&below| below > 1) {
            levels.push(spread_evenly(below, kind.keys_in_node()));
        }
        Self { kind, levels }
    }

    /// All blocks, the root included.
    pub(super) fn blocks(&self) -> u32 {
        self.levels.iter().map(Vec::len).sum::<usize>() as u32
    }

    /// Levels; 1 if the root is a leaf.
    pub(super) fn height(&self) -> u32 {
        self.levels.len() as u32
    }

    /// The blocks of the tree, given to `put`. `further`: the blocks that it has besides its root.
    pub(super) fn emit(
        &self,
        records: &[u8],
        group: &Home<'_>,
        root: u32,
        further: &[u32],
        put: &mut dyn FnMut(Place, Vec<u8>),
    ) {
        let record = self.kind.record();
        let mut blocks = further.iter().copied().chain(std::iter::once(root));
        // What is below the current level: each item's key, and where it is.
        let mut below: Vec<(Vec<u8>, u32)> = Vec::new();
        for (level, sizes) in self.levels.iter().enumerate() {
            let places: Vec<u32> = blocks.by_ref().take(sizes.len()).collect();
            let (mut position, mut here) = (0, Vec::with_capacity(sizes.len()));
            for (index, &size) in sizes.iter().enumerate() {
                let left = index.checked_sub(1).map_or(NULL32, |left| places[left]);
                let right = places.get(index + 1).copied().unwrap_or(NULL32);
                let head = group.head(self.kind, level, size, (left, right), places[index]);
                let mut block = headed(&head, BLOCK_BYTES);
                let range = position..position + size;
                if level == 0 {
                    let mine = &records[range.start * record..range.end * record];
                    block[HEADER..HEADER + mine.len()].copy_from_slice(mine);
                    if size > 0 {
                        let first = self.kind.key_of(&mine[..record]);
                        let last = self.kind.key_of(&mine[mine.len() - record..]);
                        here.push((self.kind.span(&first, &last), places[index]));
                    }
                } else {
                    let mine = &below[range];
                    self.fill_node(&mut block, mine);
                    let span = self.kind.span(&mine[0].0, &mine[size - 1].0);
                    here.push((span, places[index]));
                }
                position += size;
                seal(&mut block, std::mem::offset_of!(ShortBlock, bb_crc));
                put(Place { group: group.group, block: places[index] }, block);
            }
            below = here;
        }
        assert!(blocks.next().is_none(), "a tree has as many blocks as were set aside for it");
    }

    fn fill_node(&self, block: &mut [u8], children: &[(Vec<u8>, u32)]) {
        let (key_bytes, most) = (self.kind.key(), self.kind.keys_in_node());
        let (keys, pointers) = block[HEADER..].split_at_mut(most * key_bytes);
        for (index, (key, place)) in children.iter().enumerate() {
            keys[index * key_bytes..][..key_bytes].copy_from_slice(key);
            pointers[index * POINTER..][..POINTER].copy_from_slice(&place.to_be_bytes());
        }
    }
}

/// What all blocks of a group's trees say of themselves.
pub(super) struct Home<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) uuid: [u8; 16],
    pub(super) group: u32,
}

impl Home<'_> {
    fn head(
        &self,
        kind: Kind,
        level: usize,
        count: usize,
        (left, right): (u32, u32),
        block: u32,
    ) -> ShortBlock {
        ShortBlock {
            bb_magic: kind.magic(),
            bb_level: (level as u16).into(),
            bb_numrecs: (count as u16).into(),
            bb_leftsib: left.into(),
            bb_rightsib: right.into(),
            bb_blkno: self.geometry.daddr(Place { group: self.group, block }).into(),
            bb_lsn: 0.into(),
            bb_uuid: self.uuid,
            bb_owner: self.group.into(),
            bb_crc: 0.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_at_least_half_full() {
        for most in [2, 5, 91, 168, 505] {
            for count in (0..3 * most).chain([1000, 12_345]) {
                let parts = spread_evenly(count, most);
                assert_eq!(parts.iter().sum::<usize>(), count);
                assert!(parts.iter().all(|&part| part <= most));
                assert!(parts.len() == 1 || parts.iter().all(|&part| part >= most / 2));
            }
        }
    }

    #[test]
    fn neighbours_with_one_owner_are_one_record() {
        let mapping = |start, count, owner, offset| Mapping { start, count, owner, offset };
        let merged = Mapping::merge(vec![
            mapping(10, 5, 131, 5),
            mapping(5, 5, 131, 0),
            // A hole in the file: another record.
            mapping(15, 1, 131, 11),
            mapping(16, 2, owner::GROUP, 0),
            mapping(18, 2, owner::GROUP, 0),
            mapping(20, 1, 131, OFFSET_NODE),
            mapping(21, 1, 131, OFFSET_NODE),
            mapping(22, 1, 131, OFFSET_ATTRIBUTE),
        ]);
        let expected = [
            mapping(5, 10, 131, 0),
            mapping(15, 1, 131, 11),
            mapping(16, 4, owner::GROUP, 0),
            mapping(20, 2, 131, OFFSET_NODE),
            mapping(22, 1, 131, OFFSET_ATTRIBUTE),
        ];
        assert_eq!(merged, expected);
    }

    #[test]
    fn capacities_are_those_of_the_format() {
        // xfs_allocbt_maxrecs, xfs_inobt_maxrecs, xfs_rmapbt_maxrecs, xfs_refcountbt_maxrecs for blocks of 4096.
        for (kind, leaf, node) in [
            (Kind::ByBlock, 505, 336),
            (Kind::Inodes, 252, 505),
            (Kind::Owners, 168, 91),
            (Kind::Sharing, 336, 505),
        ] {
            assert_eq!((kind.records_in_leaf(), kind.keys_in_node()), (leaf, node), "{kind:?}");
        }
    }
}
