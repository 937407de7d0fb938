//! The blocks of a directory: names in a row, and a tree over their hashes when one block does not hold them.
//!
//! ```text
//! one block      |.|..|name|name|name            |tail|
//!
//! more    root   |.|..|info|leaf a|hash, leaf b|hash, leaf c| …  507 |checksum|    or nodes instead of leaves,
//!         node   |unused entry|leaf a|hash, leaf b|  …           510 |checksum|    then 507 times 510 leaves
//!         leaf   |name|name|name                             |tail|
//! ```
//!
//! Leaves are filled to the brim in the order of the hashes; a kernel that adds a name splits one.

use anyhow::{Result, ensure};
use zerocopy::IntoBytes;

use super::checksum::Crc;
use super::hash::{HALF_MD4, Seed};
use super::on_disk::{BLOCK_BYTES, DirectoryEntry, DirectoryTail, HashTreeInfo};
use crate::error::{corrupt, unsupported};
use crate::filesystem::linux::TYPE_DIRECTORY;

const HEADER: usize = size_of::<DirectoryEntry>();
const TAIL: usize = size_of::<DirectoryTail>();
const ROOM: usize = BLOCK_BYTES - TAIL;
/// `.` and `..` together.
const DOTS: usize = 24;
/// Where the index begins in the root, and in a node.
const ROOT_INDEX: usize = DOTS + size_of::<HashTreeInfo>();
const NODE_INDEX: usize = HEADER;
/// Entries in the root and in a node; the last eight bytes are the checksum's.
const ROOT_LIMIT: usize = (BLOCK_BYTES - ROOT_INDEX - 8) / 8;
const NODE_LIMIT: usize = (BLOCK_BYTES - NODE_INDEX - 8) / 8;
/// `det_reserved_ft`.
const TAIL_TYPE: u8 = 0xde;

/// What is in which block of a directory.
#[derive(Debug)]
pub(super) struct Directory<'a> {
    leaves: Vec<Leaf<'a>>,
    indexed: bool,
}

#[derive(Debug)]
struct Leaf<'a> {
    /// The least hash; its lowest bit says that the leaf before ends with names of the same hash.
    hash: u32,
    names: Vec<Named<'a>>,
}

/// A name in a directory, and what it names. Names differ, so the derived order is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named<'a> {
    pub(super) name: &'a [u8],
    /// Its inode number.
    pub(super) number: u32,
    /// `file_type` of the entry.
    pub(super) file_type: u8,
}

impl<'a> Directory<'a> {
    /// Distributes the names of a directory. Fails if one is longer than 255 bytes, or if there are too many for two levels of index.
    pub(super) fn of(names: Vec<Named<'a>>, seed: Seed) -> Result<Self> {
        for named in &names {
            check_name(named.name)?;
        }
        let sum: usize = names.iter().map(|named| entry_bytes(named.name)).sum();
        if DOTS + sum <= ROOM {
            return Ok(Self { leaves: vec![Leaf { hash: 0, names }], indexed: false });
        }
        let leaves = pack(names, seed);
        if leaves.len() > ROOT_LIMIT * NODE_LIMIT {
            return Err(unsupported(
                "a directory has more names than two levels of index can hold",
                Some("distribute them over several directories"),
            ));
        }
        Ok(Self { leaves, indexed: true })
    }

    /// Whether there is a hash tree: the inode must say so.
    pub(super) fn is_indexed(&self) -> bool {
        self.indexed
    }

    /// Blocks of leaves and index.
    pub(super) fn block_count(&self) -> u64 {
        let index = if self.indexed { 1 + self.node_count() } else { 0 };
        (index + self.leaves.len()) as u64
    }

    /// Nodes between the root and the leaves.
    fn node_count(&self) -> usize {
        if self.leaves.len() <= ROOT_LIMIT { 0 } else { self.leaves.len().div_ceil(NODE_LIMIT) }
    }

    /// The bytes of all blocks. `number` and `parent` are the inode numbers of the directory and of the one above.
    pub(super) fn emit(&self, number: u32, parent: u32, inode: Crc) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.block_count() as usize * BLOCK_BYTES);
        if self.indexed {
            self.emit_index(number, parent, inode, &mut bytes);
        }
        for leaf in &self.leaves {
            let mut block = Block::new();
            if !self.indexed {
                block.push(b".", number, TYPE_DIRECTORY);
                block.push(b"..", parent, TYPE_DIRECTORY);
            }
            for named in &leaf.names {
                block.push(named.name, named.number, named.file_type);
            }
            bytes.extend(block.seal(inode));
        }
        assert_eq!(bytes.len() as u64, self.block_count() * BLOCK_BYTES as u64);
        bytes
    }

    fn emit_index(&self, number: u32, parent: u32, inode: Crc, bytes: &mut Vec<u8>) {
        let nodes = self.node_count();
        let first_leaf = 1 + nodes as u32;
        let leaves: Vec<(u32, u32)> =
            self.leaves.iter().zip(first_leaf..).map(|(leaf, block)| (leaf.hash, block)).collect();
        let mut root = vec![0; BLOCK_BYTES];
        put_entry(&mut root[..12], b".", number, TYPE_DIRECTORY, 12);
        put_entry(&mut root[12..], b"..", parent, TYPE_DIRECTORY, BLOCK_BYTES - 12);
        let info = HashTreeInfo {
            reserved_zero: 0.into(),
            hash_version: HALF_MD4,
            info_length: size_of::<HashTreeInfo>() as u8,
            indirect_levels: u8::from(nodes > 0),
            unused_flags: 0,
        };
        root[DOTS..ROOT_INDEX].copy_from_slice(info.as_bytes());
        let below: Vec<(u32, u32)> = match nodes {
            0 => leaves.clone(),
            _ => leaves.chunks(NODE_LIMIT).map(|chunk| chunk[0].0).zip(1..).collect(),
        };
        put_index(&mut root, ROOT_INDEX, ROOT_LIMIT, &below, inode);
        bytes.extend(root);
        for chunk in leaves.chunks(NODE_LIMIT).take(nodes) {
            let mut node = vec![0; BLOCK_BYTES];
            put_entry(&mut node, b"", 0, 0, BLOCK_BYTES);
            put_index(&mut node, NODE_INDEX, NODE_LIMIT, chunk, inode);
            bytes.extend(node);
        }
    }
}

/// The blocks of a directory that has no names but `.` and `..`, and room for many: lost+found.
pub(super) fn emit_empty(blocks: usize, number: u32, parent: u32, inode: Crc) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(blocks * BLOCK_BYTES);
    for index in 0..blocks {
        let mut block = Block::new();
        if index == 0 {
            block.push(b".", number, TYPE_DIRECTORY);
            block.push(b"..", parent, TYPE_DIRECTORY);
        }
        bytes.extend(block.seal(inode));
    }
    bytes
}

/// One block of names under construction.
struct Block {
    bytes: Vec<u8>,
    end: usize,
    last: usize,
}

impl Block {
    fn new() -> Self {
        Self { bytes: vec![0; BLOCK_BYTES], end: 0, last: 0 }
    }

    fn push(&mut self, name: &[u8], number: u32, file_type: u8) {
        let size = entry_bytes(name);
        assert!(self.end + size <= ROOM, "a directory block is too full");
        self.last = self.end;
        put_entry(&mut self.bytes[self.end..], name, number, file_type, size);
        self.end += size;
    }

    /// Lets the last entry (an unused one, if there is none) reach up to the tail, and writes that.
    fn seal(mut self, inode: Crc) -> Vec<u8> {
        let length = (ROOM - self.last) as u16;
        self.bytes[self.last + 4..self.last + 6].copy_from_slice(&length.to_le_bytes());
        let tail = DirectoryTail {
            det_reserved_zero1: 0.into(),
            det_rec_len: (TAIL as u16).into(),
            det_reserved_zero2: 0,
            det_reserved_ft: TAIL_TYPE,
            det_checksum: inode.with(&self.bytes[..ROOM]).value().into(),
        };
        self.bytes[ROOM..].copy_from_slice(tail.as_bytes());
        self.bytes
    }
}

/// Sorts names by hash and fills leaves with them.
fn pack(names: Vec<Named<'_>>, seed: Seed) -> Vec<Leaf<'_>> {
    let mut hashed: Vec<_> =
        names.into_iter().map(|named| (seed.hash(named.name), named)).collect();
    hashed.sort_unstable();
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut room = 0;
    let mut before = None;
    for ((hash, _), named) in hashed {
        let size = entry_bytes(named.name);
        match leaves.last_mut() {
            Some(leaf) if size <= room => leaf.names.push(named),
            _ => {
                let continued = u32::from(before == Some(hash));
                leaves.push(Leaf { hash: hash | continued, names: vec![named] });
                room = ROOM;
            }
        }
        room -= size;
        before = Some(hash);
    }
    leaves
}

/// Writes limit, count, entries and checksum of a hash tree's block. The first entry has no hash: limit and count are there.
fn put_index(block: &mut [u8], start: usize, limit: usize, entries: &[(u32, u32)], inode: Crc) {
    assert!(entries.len() <= limit, "a node of a hash tree is too full");
    for (place, &(hash, child)) in block[start..].chunks_exact_mut(8).zip(entries) {
        place[..4].copy_from_slice(&hash.to_le_bytes());
        place[4..].copy_from_slice(&child.to_le_bytes());
    }
    block[start..start + 2].copy_from_slice(&(limit as u16).to_le_bytes());
    block[start + 2..start + 4].copy_from_slice(&(entries.len() as u16).to_le_bytes());
    // Over the used entries, then over the tail: four reserved bytes, and its own checksum as zero.
    let sum = inode.with(&block[..start + 8 * entries.len()]).with(&[0; 8]);
    block[start + 8 * limit + 4..start + 8 * limit + 8].copy_from_slice(&sum.value().to_le_bytes());
}

fn put_entry(place: &mut [u8], name: &[u8], number: u32, file_type: u8, length: usize) {
    let header = DirectoryEntry {
        inode: number.into(),
        rec_len: (length as u16).into(),
        name_len: name.len() as u8,
        file_type,
    };
    place[..HEADER].copy_from_slice(header.as_bytes());
    place[HEADER..HEADER + name.len()].copy_from_slice(name);
}

/// `rec_len` of an entry without slack.
fn entry_bytes(name: &[u8]) -> usize {
    HEADER + name.len().next_multiple_of(4)
}

fn check_name(name: &[u8]) -> Result<()> {
    let shown = || name.escape_ascii().to_string();
    ensure!(
        !name.is_empty()
            && name != b"."
            && name != b".."
            && !name.contains(&b'/')
            && !name.contains(&0),
        corrupt(format!("the name \"{}\"", shown()), "no file can have it")
    );
    if name.len() > 255 {
        return Err(unsupported(
            format!("the name \"{}\" is longer than ext4's 255 bytes", shown()),
            None,
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn names(names: &[String]) -> Vec<Named<'_>> {
        names.iter().map(|name| Named { name: name.as_bytes(), number: 12, file_type: 1 }).collect()
    }

    fn seed() -> Seed {
        Seed::new(&Uuid::from_u128(7))
    }

    #[test]
    fn limits_are_the_kernels() {
        assert_eq!((ROOT_LIMIT, NODE_LIMIT), (507, 510));
    }

    #[test]
    fn one_block_has_no_index() {
        // 4084 bytes before the tail: 24 for the dots, then 12 for each name.
        for (count, indexed) in [(0, false), (338, false), (339, true)] {
            let all: Vec<String> = (0..count).map(|i| format!("{i:04}")).collect();
            let directory = Directory::of(names(&all), seed()).unwrap();
            assert_eq!(directory.is_indexed(), indexed, "{count}");
            assert_eq!(directory.block_count(), if indexed { 2 } else { 1 });
            let bytes = directory.emit(2, 2, Crc::START);
            assert_eq!(bytes.len() as u64, 4096 * directory.block_count());
        }
    }

    #[test]
    fn leaves_are_in_the_order_of_hashes() {
        let all: Vec<String> =
            (0..50_000).map(|i| format!("some-rather-long-name-{i:032}")).collect();
        let directory = Directory::of(names(&all), seed()).unwrap();
        assert!(directory.node_count() > 1);
        let count: usize = directory.leaves.iter().map(|leaf| leaf.names.len()).sum();
        assert_eq!(count, 50_000);
        for pair in directory.leaves.windows(2) {
            let hash = |named: Option<&Named>| seed().hash(named.unwrap().name).0;
            let (last, first) = (hash(pair[0].names.last()), hash(pair[1].names.first()));
            assert!(last <= first);
            assert_eq!(pair[1].hash, first | u32::from(last == first));
        }
    }

    #[test]
    fn names_that_no_file_can_have_are_refused() {
        for name in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256)] {
            assert!(Directory::of(names(&[name.to_owned()]), seed()).is_err(), "{name:?}");
        }
        assert!(Directory::of(names(&["x".repeat(255)]), seed()).is_ok());
    }
}
