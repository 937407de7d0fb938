//! Superblock, chunks and trees of items.

use std::ops::RangeInclusive;

use anyhow::Result;
use uuid::Uuid;

use super::super::disk::Slice;
use super::super::qcow2::explain;
use crate::error::{corrupt, unsupported};

/// Where the superblock is, and its size.
const SUPER_PLACE: u64 = 64 << 10;
const SUPER_BYTES: usize = 4096;
/// Bytes of a block's header, of an item of a leaf, and of a pointer of a node.
const HEADER: usize = 101;
const ITEM: usize = 25;
const POINTER: usize = 33;
/// Bytes of a key on disk.
const KEY: usize = 17;
/// `BTRFS_MAX_LEVEL`.
const MOST_LEVELS: u8 = 8;
/// Blocks that one look-up may touch: a directory of millions of names has fewer.
const MOST_BLOCKS: u32 = 1 << 16;
/// `BTRFS_FIRST_CHUNK_TREE_OBJECTID`, and the type of a chunk.
const CHUNKS: u64 = 256;
const CHUNK_ITEM: u8 = 228;
/// Chunk types of which each stripe holds everything: no RAID bits but DUP.
const PLAIN: u64 = 0x1 | 0x2 | 0x4 | 0x20;
/// `incompat_flags` that change nothing for this reader, or that it knows: mixed backrefs, default subvolume, mixed groups, lzo,
/// zstd, big metadata, extended references, skinny metadata, no holes, metadata UUID.
const KNOWN: u64 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200 | 0x400;

/// What items are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) objectid: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
}

impl Key {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (objectid, offset) = (u64_at(bytes, 0)?, u64_at(bytes, 9)?);
        Some(Self { objectid, kind: *bytes.get(8)?, offset })
    }

    /// All keys of an object with this type.
    pub(super) fn all_of(objectid: u64, kind: u8) -> RangeInclusive<Self> {
        let key = |offset| Self { objectid, kind, offset };
        key(0)..=key(u64::MAX)
    }
}

/// A stretch of logical addresses.
#[derive(Debug)]
struct Chunk {
    logical: u64,
    length: u64,
    /// Where each copy begins on the device.
    copies: Vec<u64>,
}

/// A file system's trees.
#[derive(Debug)]
pub(super) struct Trees {
    slice: Slice,
    /// What it is called in errors: `the btrfs of partition 3`.
    pub(super) name: String,
    pub(super) uuid: Uuid,
    pub(super) label: String,
    /// Bytes of the device in use.
    pub(super) used: u64,
    /// Logical address of the root tree.
    pub(super) root: u64,
    node_bytes: usize,
    chunks: Vec<Chunk>,
}

impl Trees {
    /// Reads the superblock and all chunks. `Unsupported`: several devices, or features that are not known here.
    pub(super) fn open(slice: Slice, name: String) -> Result<Self> {
        let mut block = vec![0; SUPER_BYTES];
        slice.read_at(SUPER_PLACE, &mut block).map_err(|error| explain(error, &name))?;
        if !is_sealed(&block) {
            return Err(corrupt(&name, "the checksum of its superblock is wrong"));
        }
        check_features(&block, &name)?;
        let number = |at| u64_at(&block, at).unwrap_or_default();
        let node_bytes = number(148) as u32 as usize;
        if !node_bytes.is_power_of_two() || !(4096..=65536).contains(&node_bytes) {
            return Err(corrupt(&name, format!("its blocks have {node_bytes} bytes")));
        }
        let label = block[299..555].split(|byte| *byte == 0).next().unwrap_or_default();
        let mut trees = Self {
            slice,
            name,
            uuid: Uuid::from_slice(&block[32..48]).unwrap_or_default(),
            label: String::from_utf8_lossy(label).into_owned(),
            used: 0,
            root: number(80),
            node_bytes,
            chunks: Vec::new(),
        };
        let array = (number(160) as u32 as usize).min(2048);
        trees.system_chunks(&block[811..811 + array])?;
        let chunk_root = number(88);
        let range = Key::all_of(CHUNKS, CHUNK_ITEM);
        let mut chunks = Vec::new();
        for (key, bytes) in trees.scan(chunk_root, range)? {
            chunks.push(trees.chunk(key.offset, &bytes)?.0);
        }
        chunks.sort_by_key(|chunk| chunk.logical);
        trees.chunks = chunks;
        trees.used = trees.count_used(number(120))?;
        Ok(trees)
    }

    /// Items whose keys lie in a range, in their order. `place`: logical address of the tree's root.
    pub(super) fn scan(
        &self,
        place: u64,
        range: RangeInclusive<Key>,
    ) -> Result<Vec<(Key, Vec<u8>)>> {
        let mut found = Vec::new();
        let mut left = MOST_BLOCKS;
        self.descend(place, MOST_LEVELS, &range, &mut left, &mut found)?;
        Ok(found)
    }

    /// Fills a buffer from a logical address, from the first copy.
    pub(super) fn read(&self, logical: u64, buffer: &mut [u8]) -> Result<()> {
        let place = self.places(logical, buffer.len() as u64)?[0];
        self.slice.read_at(place, buffer).map_err(|error| explain(error, &self.name))
    }

    pub(super) fn corrupt(&self, reason: impl Into<String>) -> anyhow::Error {
        corrupt(&self.name, reason)
    }

    fn descend(
        &self,
        place: u64,
        below: u8,
        range: &RangeInclusive<Key>,
        left: &mut u32,
        found: &mut Vec<(Key, Vec<u8>)>,
    ) -> Result<()> {
        *left = left.checked_sub(1).ok_or_else(|| self.corrupt("a tree of it has no end"))?;
        let block = self.block(place)?;
        let level = block[100];
        if level >= below {
            return Err(self.corrupt(format!("a block of level {level} is too deep in a tree")));
        }
        let count = block
            .get(96..100)
            .map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize);
        let size = if level == 0 { ITEM } else { POINTER };
        let slots = block.get(HEADER..HEADER + count.saturating_mul(size));
        let slots = slots.ok_or_else(|| self.corrupt("a block has more items than room"))?;
        let slots: Vec<(Key, &[u8])> = slots
            .chunks_exact(size)
            .map(|slot| (Key::parse(slot).expect("a slot begins with a key"), &slot[KEY..]))
            .collect();
        if level > 0 {
            for (index, (key, rest)) in slots.iter().enumerate() {
                let next = slots.get(index + 1).map(|(key, _)| *key);
                if key <= range.end() && next.is_none_or(|next| next > *range.start()) {
                    let child = u64_at(rest, 0).expect("a pointer has a place");
                    self.descend(child, level, range, left, found)?;
                }
            }
            return Ok(());
        }
        for (key, rest) in slots.into_iter().filter(|(key, _)| range.contains(key)) {
            let number =
                |at: usize| u32::from_le_bytes(std::array::from_fn(|i| rest[at + i])) as usize;
            let start = HEADER + number(0);
            let data = start.checked_add(number(4)).and_then(|end| block.get(start..end));
            let data = data.ok_or_else(|| self.corrupt("an item lies outside of its leaf"))?;
            found.push((key, data.to_vec()));
        }
        Ok(())
    }

    /// A block of a tree, from the first copy that is whole.
    fn block(&self, logical: u64) -> Result<Vec<u8>> {
        let mut block = vec![0; self.node_bytes];
        for place in self.places(logical, self.node_bytes as u64)? {
            self.slice.read_at(place, &mut block).map_err(|error| explain(error, &self.name))?;
            if is_sealed(&block) && u64_at(&block, 48) == Some(logical) {
                return Ok(block);
            }
        }
        Err(self.corrupt(format!("the block at {logical} is damaged")))
    }

    /// Where on the device a stretch of logical addresses is; at least one place.
    fn places(&self, logical: u64, length: u64) -> Result<Vec<u64>> {
        let holds = |chunk: &&Chunk| {
            logical
                .checked_sub(chunk.logical)
                .is_some_and(|skip| skip.checked_add(length).is_some_and(|end| end <= chunk.length))
        };
        let chunk = self.chunks.iter().find(holds);
        let chunk = chunk.ok_or_else(|| self.corrupt(format!("no chunk holds {logical}")))?;
        let places = chunk.copies.iter().map(|copy| copy.checked_add(logical - chunk.logical));
        places.collect::<Option<_>>().ok_or_else(|| self.corrupt("a chunk lies beyond all disks"))
    }

    /// The chunks that the superblock itself tells of.
    fn system_chunks(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let key = Key::parse(bytes).ok_or_else(|| self.corrupt("its chunks are cut short"))?;
            let (chunk, length) = self.chunk(key.offset, &bytes[KEY..])?;
            self.chunks.push(chunk);
            bytes = &bytes[KEY + length..];
        }
        Ok(())
    }

    /// A `btrfs_chunk` and its length.
    fn chunk(&self, logical: u64, bytes: &[u8]) -> Result<(Chunk, usize)> {
        let parsed = || {
            let stripes = usize::from(u16_at(bytes, 44)?);
            let place = |index: usize| u64_at(bytes, 48 + index * 32 + 8);
            let copies = (0..stripes).map(place).collect::<Option<Vec<u64>>>()?;
            let chunk = Chunk { logical, length: u64_at(bytes, 0)?, copies };
            let length = 48 + stripes * 32;
            (stripes > 0 && length <= bytes.len()).then_some((chunk, u64_at(bytes, 24)?, length))
        };
        let (chunk, kind, length) = parsed().ok_or_else(|| self.corrupt("a chunk is cut short"))?;
        if kind & !PLAIN != 0 {
            return Err(unsupported(format!("{} uses RAID", self.name), None));
        }
        Ok((chunk, length))
    }

    /// Bytes of the device in use, of all copies: what block groups say, or, where those have a tree of their own, the superblock.
    fn count_used(&self, once: u64) -> Result<u64> {
        const EXTENT_TREE: u64 = 2;
        const ROOT_ITEM: u8 = 132;
        const BLOCK_GROUP_ITEM: u8 = 192;
        let roots = self.scan(self.root, Key::all_of(EXTENT_TREE, ROOT_ITEM))?;
        let Some(extents) = roots.first().and_then(|(_, bytes)| u64_at(bytes, 176)) else {
            return Err(self.corrupt("it has no tree of extents"));
        };
        let mut used = 0;
        for chunk in &self.chunks {
            let range = Key::all_of(chunk.logical, BLOCK_GROUP_ITEM);
            let groups = self.scan(extents, range)?;
            let Some((_, group)) = groups.first() else { return Ok(once) };
            let bytes = u64_at(group, 0).unwrap_or_default();
            used += bytes.saturating_mul(chunk.copies.len() as u64);
        }
        Ok(used)
    }
}

/// Whether the CRC-32C of a block is right.
fn is_sealed(block: &[u8]) -> bool {
    block[..4] == crc32c::crc32c(&block[32..]).to_le_bytes()
}

fn check_features(block: &[u8], name: &str) -> Result<()> {
    let unknown = u64_at(block, 188).unwrap_or_default() & !KNOWN;
    if unknown != 0 {
        return Err(unsupported(
            format!("{name} has features that are not read: {unknown:#x}"),
            None,
        ));
    }
    if u64_at(block, 136) != Some(1) {
        return Err(unsupported(format!("{name} is one of several devices of a btrfs"), None));
    }
    match u16_at(block, 196) {
        Some(0) => Ok(()),
        _ => Err(unsupported(format!("{name} has other checksums than crc32c"), None)),
    }
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
