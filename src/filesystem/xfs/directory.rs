//! Directories: which of four forms one has, and its blocks.
//!
//! ```text
//! short   in the inode: |count|parent|len offset name type inode| …
//! block   one block:    |header|entries …   |gap|hashes, sorted|tail|
//! leaf    data blocks from block 0: |header|entries …|gap|; at 32 GiB one leaf: |header|hashes|  |gaps of the data blocks|
//! node    data blocks; at 32 GiB a tree of leaves of hashes; at 64 GiB free indexes: |header|gaps of 2016 data blocks|
//! ```
//!
//! "XFS Algorithms & Data Structures", chapter "Directories".

use anyhow::Result;
use zerocopy::IntoBytes;

use super::btree::spread_evenly;
use super::on_disk::{
    BLOCK_BYTES, DaBlock, DataBlock, FREE_OFFSET, Free, FreeIndex, LEAF_OFFSET, headed, seal,
};
use crate::error::unsupported;
use crate::filesystem::linux::TYPE_DIRECTORY;
use crate::tree::Inode;

/// Bytes of the longest name.
const MAX_NAME: usize = 255;
const HEADER: usize = size_of::<DataBlock>();
/// Bytes of an entry of a leaf: a hash and an address; and of one of a node: a hash and a block.
const PAIR: usize = 8;
/// Pairs in a leaf of hashes or a node.
const PAIRS: usize = (BLOCK_BYTES - size_of::<DaBlock>()) / PAIR;
/// Data blocks that a free index tells of.
const GAPS: usize = (BLOCK_BYTES - size_of::<FreeIndex>()) / 2;
/// Addresses count so many bytes.
const ADDRESS_UNIT: usize = 8;
/// Bytes of the tail of a block with hashes: how many, how many stale.
const TAIL: usize = 8;

const BLOCK_MAGIC: [u8; 4] = *b"XDB3";
const DATA_MAGIC: [u8; 4] = *b"XDD3";
const FREE_MAGIC: [u8; 4] = *b"XDF3";
const LEAF1_MAGIC: u16 = 0x3df1;
const LEAFN_MAGIC: u16 = 0x3dff;
/// Magic number of nodes, in directories as in attributes.
pub(super) const NODE_MAGIC: u16 = 0x3ebe;

/// The hash that directories and attributes are sorted by (`xfs_da_hashname`).
pub(super) fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0, |hash: u32, &byte| u32::from(byte) ^ hash.rotate_left(7))
}

/// Bytes of an entry in a data block: inode, length, name, type, and where it begins; eights.
fn entry_size(name: &[u8]) -> usize {
    (8 + 1 + name.len() + 1 + 2).next_multiple_of(8)
}

/// The form of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Short,
    Block,
    Leaf,
    Node,
}

/// A directory without numbers and places: its form, and blocks of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) form: Form,
    /// `di_size`: bytes inline, or of the data blocks.
    pub(super) size: u64,
    data: u32,
    /// Leaves of hashes, and nodes above them.
    hashes: u32,
    free: u32,
}

impl Shape {
    /// The shape for a directory whose data fork has `room` bytes in the inode. Fails if a name is too long.
    pub(super) fn of(inode: &Inode, room: usize) -> Result<Self> {
        for (name, _) in inode.children() {
            if name.len() > MAX_NAME {
                return Err(unsupported(
                    format!("the name \"{}\" is longer than {MAX_NAME} bytes", name.escape_ascii()),
                    None,
                ));
            }
        }
        let names = || inode.children().map(|(name, _)| &**name);
        let short = 6 + names().map(|name| 1 + 2 + name.len() + 1 + 4).sum::<usize>();
        // A short form counts its names in a byte; so many would not be inline anyway.
        if short <= room {
            let (form, size) = (Form::Short, short as u64);
            return Ok(Self { form, size, data: 0, hashes: 0, free: 0 });
        }
        let with_dots = || [b".".as_slice(), b".."].into_iter().chain(names());
        let (mut count, mut bytes, mut data, mut end) = (0, 0, 1, HEADER);
        for name in with_dots() {
            let size = entry_size(name);
            (count, bytes) = (count + 1, bytes + size);
            if end + size > BLOCK_BYTES {
                (data, end) = (data + 1, HEADER);
            }
            end += size;
        }
        let (form, hashes, free) = if HEADER + bytes + PAIR * count + TAIL <= BLOCK_BYTES {
            (Form::Block, 0, 0)
        } else if size_of::<DaBlock>() + PAIR * count + 2 * data + 4 <= BLOCK_BYTES {
            (Form::Leaf, 1, 0)
        } else {
            let mut hashes: Vec<u32> = with_dots().map(hash).collect();
            hashes.sort_unstable();
            let levels = levels(&hashes);
            let blocks = levels.iter().map(Vec::len).sum();
            (Form::Node, blocks, data.div_ceil(GAPS))
        };
        Ok(Self {
            form,
            size: (data * BLOCK_BYTES) as u64,
            data: u32::try_from(data)?,
            hashes: u32::try_from(hashes)?,
            free: u32::try_from(free)?,
        })
    }

    /// The runs of blocks that it has, by block in the directory.
    pub(super) fn runs(&self) -> Vec<std::ops::Range<u64>> {
        let run = |start: u64, count: u32| start..start + u64::from(count);
        let runs = [run(0, self.data), run(LEAF_OFFSET, self.hashes), run(FREE_OFFSET, self.free)];
        runs.into_iter().filter(|run| !run.is_empty()).collect()
    }
}

/// How many hashes are in each leaf, and below each node of the levels above; leaves first. A single leaf is the root itself: xfs_repair 6.1
/// refuses a node over it.
fn levels(hashes: &[u32]) -> Vec<Vec<usize>> {
    let mut levels = vec![part(hashes)];
    while let Some(below) = levels.last().map(Vec::len).filter(|&below| below > 1) {
        levels.push(spread_evenly(below, PAIRS));
    }
    levels
}

/// Sizes of leaves: as equal as can be, but so that equal hashes stay in one leaf where one holds them all. The kernel follows them from leaf
/// to leaf; xfs_repair before 6.3 takes a hash that ends one leaf and begins the next for damage.
fn part(hashes: &[u32]) -> Vec<usize> {
    let (mut sizes, mut start) = (Vec::new(), 0);
    while start < hashes.len() {
        let left = hashes.len() - start;
        let mut end = start + left.div_ceil(left.div_ceil(PAIRS));
        if end < hashes.len() && hashes[end] == hashes[end - 1] {
            let run = hashes[start..end].partition_point(|&hash| hash < hashes[end]);
            if run > 0 {
                end = start + run;
            }
        }
        sizes.push(end - start);
        start = end;
    }
    sizes
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) number: u64,
    pub(super) file_type: u8,
}

/// A short form, for the inode.
pub(super) fn emit_short(parent: u64, entries: &[Entry<'_>]) -> Vec<u8> {
    let small = |number: u64| u32::try_from(number).expect("inode numbers have 32 bits");
    let mut bytes = vec![entries.len() as u8, 0];
    bytes.extend(small(parent).to_be_bytes());
    // Where each entry would be in a block, behind those for the directory itself and its parent.
    let mut offset = HEADER + entry_size(b".") + entry_size(b"..");
    for entry in entries {
        bytes.push(entry.name.len() as u8);
        bytes.extend((offset as u16).to_be_bytes());
        bytes.extend(entry.name);
        bytes.push(entry.file_type);
        bytes.extend(small(entry.number).to_be_bytes());
        offset += entry_size(entry.name);
    }
    bytes
}

/// What every block of a fork says of itself.
#[derive(Clone, Copy)]
pub(super) struct Home<'a> {
    pub(super) uuid: [u8; 16],
    /// The inode.
    pub(super) owner: u64,
    /// The address of a block of the fork.
    pub(super) daddr: &'a dyn Fn(u64) -> u64,
}

impl Home<'_> {
    /// A block of leaves or nodes, with its neighbours.
    fn da_block(&self, index: u64, neighbours: (u64, u64), magic: u16) -> DaBlock {
        let (back, forw) = neighbours;
        DaBlock {
            forw: (forw as u32).into(),
            back: (back as u32).into(),
            magic: magic.into(),
            pad: 0.into(),
            crc: 0.into(),
            blkno: (self.daddr)(index).into(),
            lsn: 0.into(),
            uuid: self.uuid,
            owner: self.owner.into(),
            count: 0.into(),
            level_or_stale: 0.into(),
            pad2: 0.into(),
        }
    }
}

/// A pair of a leaf or node: the hash, and what is there.
pub(super) type Pair = (u32, u32);

/// A leaf of hashes or a node, sealed.
pub(super) fn emit_pairs(
    home: &Home<'_>,
    index: u64,
    neighbours: (u64, u64),
    magic: u16,
    level: u16,
    pairs: &[Pair],
) -> Vec<u8> {
    let mut head = home.da_block(index, neighbours, magic);
    head.count.set(pairs.len() as u16);
    head.level_or_stale.set(level);
    let mut block = headed(&head, BLOCK_BYTES);
    put_pairs(&mut block[size_of::<DaBlock>()..], pairs);
    block
}

fn put_pairs(bytes: &mut [u8], pairs: &[Pair]) {
    for (place, (hash, what)) in bytes.chunks_exact_mut(PAIR).zip(pairs) {
        place[..4].copy_from_slice(&hash.to_be_bytes());
        place[4..].copy_from_slice(&what.to_be_bytes());
    }
}

/// Seals a leaf or node.
pub(super) fn seal_da(mut block: Vec<u8>) -> Vec<u8> {
    seal(&mut block, std::mem::offset_of!(DaBlock, crc));
    block
}

/// The blocks of a directory that is not inline, each with its index in the directory, given to `put`.
pub(super) fn emit(
    shape: &Shape,
    parent: u64,
    entries: &[Entry<'_>],
    home: &Home<'_>,
    put: &mut dyn FnMut(u64, Vec<u8>),
) {
    let dots = [(&b"."[..], home.owner), (b"..", parent)];
    let dots = dots.map(|(name, number)| Entry { name, number, file_type: TYPE_DIRECTORY });
    let all = || dots.iter().chain(entries).copied();
    let single = shape.form == Form::Block;
    let room = if single { BLOCK_BYTES - TAIL - PAIR * all().count() } else { BLOCK_BYTES };
    let mut pairs: Vec<Pair> = Vec::with_capacity(entries.len() + 2);
    let mut gaps: Vec<u16> = Vec::with_capacity(shape.data as usize);
    let (mut index, mut end, mut block) = (0, HEADER, vec![0; BLOCK_BYTES]);
    for entry in all() {
        let size = entry_size(entry.name);
        if end + size > room {
            let mut full = std::mem::replace(&mut block, vec![0; BLOCK_BYTES]);
            gaps.push(close(&mut full, DATA_MAGIC, home, index, end, room));
            seal(&mut full, std::mem::offset_of!(DataBlock, crc));
            put(index, full);
            (index, end) = (index + 1, HEADER);
        }
        put_entry(&mut block[end..end + size], &entry, end);
        let address = (index as usize * BLOCK_BYTES + end) / ADDRESS_UNIT;
        pairs.push((hash(entry.name), address as u32));
        end += size;
    }
    let magic = if single { BLOCK_MAGIC } else { DATA_MAGIC };
    gaps.push(close(&mut block, magic, home, index, end, room));
    pairs.sort_unstable();
    if single {
        put_pairs(&mut block[room..BLOCK_BYTES - TAIL], &pairs);
        block[BLOCK_BYTES - TAIL..][..4].copy_from_slice(&(pairs.len() as u32).to_be_bytes());
    }
    seal(&mut block, std::mem::offset_of!(DataBlock, crc));
    put(index, block);
    assert_eq!(gaps.len(), shape.data as usize, "as many blocks of names as were counted");
    match shape.form {
        Form::Short | Form::Block => {}
        Form::Leaf => put(LEAF_OFFSET, emit_leaf(home, &pairs, &gaps)),
        Form::Node => {
            emit_hashes(home, &pairs, put);
            emit_free(home, &gaps, put);
        }
    }
}

fn put_entry(bytes: &mut [u8], entry: &Entry<'_>, offset: usize) {
    let (name, size) = (entry.name, bytes.len());
    bytes[..8].copy_from_slice(&entry.number.to_be_bytes());
    bytes[8] = name.len() as u8;
    bytes[9..9 + name.len()].copy_from_slice(name);
    bytes[9 + name.len()] = entry.file_type;
    bytes[size - 2..].copy_from_slice(&(offset as u16).to_be_bytes());
}

/// Writes a data block's head, and the gap between `end` and `room`; returns the gap's length.
fn close(
    block: &mut [u8],
    magic: [u8; 4],
    home: &Home<'_>,
    index: u64,
    end: usize,
    room: usize,
) -> u16 {
    let gap = (room - end) as u16;
    let none = Free { offset: 0.into(), length: 0.into() };
    let offset = if gap == 0 { 0 } else { end as u16 };
    let head = DataBlock {
        magic,
        crc: 0.into(),
        blkno: (home.daddr)(index).into(),
        lsn: 0.into(),
        uuid: home.uuid,
        owner: home.owner.into(),
        best_free: [Free { offset: offset.into(), length: gap.into() }, none, none],
        pad: 0.into(),
    };
    block[..HEADER].copy_from_slice(head.as_bytes());
    if gap > 0 {
        block[end..end + 2].fill(0xff);
        block[end + 2..end + 4].copy_from_slice(&gap.to_be_bytes());
        block[room - 2..room].copy_from_slice(&offset.to_be_bytes());
    }
    gap
}

/// The only leaf of a directory: hashes, and from the end the gaps of the data blocks.
fn emit_leaf(home: &Home<'_>, pairs: &[Pair], gaps: &[u16]) -> Vec<u8> {
    let mut block = emit_pairs(home, LEAF_OFFSET, (0, 0), LEAF1_MAGIC, 0, pairs);
    let end = BLOCK_BYTES - 4;
    block[end..].copy_from_slice(&(gaps.len() as u32).to_be_bytes());
    for (place, gap) in block[end - 2 * gaps.len()..end].chunks_exact_mut(2).zip(gaps) {
        place.copy_from_slice(&gap.to_be_bytes());
    }
    seal_da(block)
}

/// Leaves of hashes, and nodes above them. The root is the first block, so levels are numbered from the top.
fn emit_hashes(home: &Home<'_>, pairs: &[Pair], put: &mut dyn FnMut(u64, Vec<u8>)) {
    let hashes: Vec<u32> = pairs.iter().map(|(hash, _)| *hash).collect();
    let levels = levels(&hashes);
    let mut below = pairs.to_vec();
    for (level, sizes) in levels.iter().enumerate() {
        let above: usize = levels[level + 1..].iter().map(Vec::len).sum();
        let first = LEAF_OFFSET + above as u64;
        let magic = if level == 0 { LEAFN_MAGIC } else { NODE_MAGIC };
        let (mut rest, mut here) = (below.as_slice(), Vec::with_capacity(sizes.len()));
        for (place, &size) in sizes.iter().enumerate() {
            let index = first + place as u64;
            let back = if place > 0 { index - 1 } else { 0 };
            let forw = if place + 1 < sizes.len() { index + 1 } else { 0 };
            let (mine, others) = rest.split_at(size);
            rest = others;
            // A leaf has in the place of its level how many hashes are stale: none.
            put(index, seal_da(emit_pairs(home, index, (back, forw), magic, level as u16, mine)));
            here.push((mine[size - 1].0, index as u32));
        }
        below = here;
    }
}

fn emit_free(home: &Home<'_>, gaps: &[u16], put: &mut dyn FnMut(u64, Vec<u8>)) {
    for (place, some) in gaps.chunks(GAPS).enumerate() {
        let index = FREE_OFFSET + place as u64;
        let count = (some.len() as u32).into();
        let head = FreeIndex {
            magic: FREE_MAGIC,
            crc: 0.into(),
            blkno: (home.daddr)(index).into(),
            lsn: 0.into(),
            uuid: home.uuid,
            owner: home.owner.into(),
            firstdb: ((place * GAPS) as u32).into(),
            nvalid: count,
            nused: count,
            pad: 0.into(),
        };
        let mut block = headed(&head, BLOCK_BYTES);
        for (place, gap) in block[size_of::<FreeIndex>()..].chunks_exact_mut(2).zip(some) {
            place.copy_from_slice(&gap.to_be_bytes());
        }
        seal(&mut block, std::mem::offset_of!(FreeIndex, crc));
        put(index, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_mixes_every_byte() {
        // By hand: 'a' = 0x61; ('a' << 7) ^ 'b'.
        assert_eq!(hash(b""), 0);
        assert_eq!(hash(b"a"), 0x61);
        assert_eq!(hash(b"ab"), 0x3080 ^ 0x62);
        // Five rounds bring the first byte's bits around.
        assert_eq!(hash(b"\x80\0\0\0\0"), 0x80_u32.rotate_left(28));
    }

    #[test]
    fn equal_hashes_stay_in_one_leaf_if_one_holds_them() {
        let mut hashes: Vec<u32> = (0..300).collect();
        hashes.extend([300; 400]);
        assert_eq!(part(&hashes), [300, 400]);
        // More than a leaf holds: there is no other way.
        assert_eq!(part(&[7; 1200]), [400, 400, 400]);
        assert_eq!(part(&(0..505).collect::<Vec<_>>()), [253, 252]);
    }

    #[test]
    fn single_leaf_has_no_node_above() {
        let hashes: Vec<u32> = (0..PAIRS as u32).collect();
        assert_eq!(levels(&hashes), [[PAIRS]]);
        assert_eq!(levels(&(0..1000).collect::<Vec<_>>()), [vec![500, 500], vec![2]]);
    }
}
