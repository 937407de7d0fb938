//! The extents of a fork: a list in the inode, or a tree whose root is there.
//!
//! "XFS Algorithms & Data Structures", chapter "Data Extents".

use super::btree::spread_evenly;
use super::geometry::{Geometry, Place};
use super::on_disk::{BLOCK_BYTES, Extent, LongBlock, NULL64, extent, headed, seal};

const HEADER: usize = size_of::<LongBlock>();
const MAGIC: [u8; 4] = *b"BMA3";
/// Bytes of an extent record.
pub(super) const RECORD: usize = size_of::<Extent>();
/// Records of a leaf, and keys of a node.
const MOST: usize = (BLOCK_BYTES - HEADER) / RECORD;
/// Bytes of the head of a root: level, count.
const ROOT_HEADER: usize = 4;

/// Blocks of a fork that are next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The first block in the fork.
    pub(super) offset: u64,
    pub(super) place: Place,
    pub(super) count: u32,
}

impl Piece {
    /// The record of it.
    pub(super) fn record(&self, geometry: &Geometry) -> Extent {
        extent(self.offset, geometry.fsblock(self.place), self.count.into())
    }
}

/// Where a block of a fork is.
pub(super) fn find(pieces: &[Piece], index: u64) -> Place {
    let after = pieces.partition_point(|piece| piece.offset <= index);
    let piece = pieces[after - 1];
    piece.place.plus(index - piece.offset)
}

/// Children that a root of `room` bytes has at most.
fn root_room(room: usize) -> usize {
    (room - ROOT_HEADER) / RECORD
}

/// How many records are in each block of the tree, leaves first, without the root; none where a list of `count` fits `room` bytes.
fn levels(count: usize, room: usize) -> Vec<Vec<usize>> {
    if count * RECORD <= room {
        return Vec::new();
    }
    let mut levels = vec![spread_evenly(count, MOST)];
    while let Some(below) = levels.last().map(Vec::len).filter(|&below| below > root_room(room)) {
        levels.push(spread_evenly(below, MOST));
    }
    levels
}

/// Blocks of the tree outside of the inode.
pub(super) fn node_count(count: usize, room: usize) -> u64 {
    levels(count, room).iter().map(Vec::len).sum::<usize>() as u64
}

/// The tree of a fork with many extents: returns the root, for the inode, and gives the blocks to `put`.
pub(super) fn emit_tree(
    pieces: &[Piece],
    nodes: &[Place],
    room: usize,
    (inode, uuid): (u64, [u8; 16]),
    geometry: &Geometry,
    put: &mut dyn FnMut(Place, Vec<u8>),
) -> Vec<u8> {
    let levels = levels(pieces.len(), room);
    let mut nodes = nodes;
    // What is below the current level: each item's first block in the fork, and where it is.
    let mut below: Vec<(u64, u64)> = Vec::new();
    for (level, sizes) in levels.iter().enumerate() {
        let (places, rest) = nodes.split_at(sizes.len());
        nodes = rest;
        let (mut position, mut here) = (0, Vec::with_capacity(sizes.len()));
        for (index, &size) in sizes.iter().enumerate() {
            let sibling = |place: Option<&Place>| place.map_or(NULL64, |&p| geometry.fsblock(p));
            let head = LongBlock {
                bb_magic: MAGIC,
                bb_level: (level as u16).into(),
                bb_numrecs: (size as u16).into(),
                bb_leftsib: sibling(index.checked_sub(1).map(|left| &places[left])).into(),
                bb_rightsib: sibling(places.get(index + 1)).into(),
                bb_blkno: geometry.daddr(places[index]).into(),
                bb_lsn: 0.into(),
                bb_uuid: uuid,
                bb_owner: inode.into(),
                bb_crc: 0.into(),
                bb_pad: 0.into(),
            };
            let mut block = headed(&head, BLOCK_BYTES);
            let range = position..position + size;
            let first = if level == 0 {
                let mine = &pieces[range];
                for (place, piece) in block[HEADER..].chunks_exact_mut(RECORD).zip(mine) {
                    place.copy_from_slice(&piece.record(geometry));
                }
                mine[0].offset
            } else {
                let mine = &below[range];
                put_keys(&mut block[HEADER..], MOST, mine);
                mine[0].0
            };
            here.push((first, geometry.fsblock(places[index])));
            position += size;
            seal(&mut block, std::mem::offset_of!(LongBlock, bb_crc));
            put(places[index], block);
        }
        below = here;
    }
    let most = root_room(room);
    let mut root = vec![0; ROOT_HEADER + most * RECORD];
    root[..2].copy_from_slice(&(levels.len() as u16).to_be_bytes());
    root[2..4].copy_from_slice(&(below.len() as u16).to_be_bytes());
    put_keys(&mut root[ROOT_HEADER..], most, &below);
    root
}

/// Keys, and blocks behind the room for `most` keys.
fn put_keys(bytes: &mut [u8], most: usize, children: &[(u64, u64)]) {
    let (keys, pointers) = bytes.split_at_mut(most * 8);
    for (index, (key, pointer)) in children.iter().enumerate() {
        keys[index * 8..][..8].copy_from_slice(&key.to_be_bytes());
        pointers[index * 8..][..8].copy_from_slice(&pointer.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_begins_where_the_list_ends() {
        // 336 bytes: a list of 21; a root of 20 children.
        assert_eq!(node_count(21, 336), 0);
        assert_eq!(node_count(22, 336), 1);
        assert_eq!(node_count(20 * 251, 336), 20);
        assert_eq!(node_count(20 * 251 + 1, 336), 21 + 1);
        // What a fork has at least beside attributes: 56 bytes, a root of three.
        assert_eq!(node_count(3 * 251 + 1, 56), 4 + 1);
    }

    #[test]
    fn block_is_found_in_its_piece() {
        let place = |block| Place { group: 1, block };
        let pieces = [
            Piece { offset: 0, place: place(100), count: 10 },
            Piece { offset: 20, place: place(500), count: 5 },
        ];
        assert_eq!(find(&pieces, 9), place(109));
        assert_eq!(find(&pieces, 20), place(500));
        assert_eq!(find(&pieces, 24), place(504));
    }
}
