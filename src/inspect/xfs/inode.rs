//! Inodes: what they are, and where their bytes are.

use anyhow::Result;

use super::{NREXT64, Volume, number};

/// Bytes of an inode of version 3 before its forks.
const CORE: usize = 176;
/// Bytes of an extent record.
const RECORD: usize = 16;
/// Bytes of the head of a block of a tree of extents.
const NODE: usize = 72;
/// Levels of the highest tree of extents (XFS_BM_MAXLEVELS is below).
const HIGHEST: u64 = 9;
/// Extents of the file with the most that is read: what is read is small.
const MOST_EXTENTS: usize = 1 << 15;
/// Bytes of the longest target of a symbolic link.
const LONGEST_TARGET: u64 = 1024;
/// Bytes of the head of a target in blocks of its own.
const TARGET_HEAD: usize = 56;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    Other,
}

/// An inode that was read.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) number: u64,
    pub(super) kind: Kind,
    /// Bytes.
    pub(super) size: u64,
    /// The data fork, if it is inline.
    pub(super) inline: Option<Vec<u8>>,
    /// The data fork otherwise, and whether it is the root of a tree.
    fork: (Vec<u8>, bool),
    extents: u64,
}

/// A run of blocks; all numbers count blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// In the file.
    pub(super) offset: u64,
    /// In the file system.
    pub(super) block: u64,
    pub(super) count: u64,
    /// Allocated and never written: it reads as zero.
    unwritten: bool,
}

impl Extent {
    fn parse(bytes: &[u8; RECORD]) -> Self {
        let packed = u128::from_be_bytes(*bytes);
        let part = |from: u32, bits: u32| (packed >> from & ((1 << bits) - 1)) as u64;
        Self {
            offset: part(73, 54),
            block: part(21, 52),
            count: part(0, 21),
            unwritten: part(127, 1) == 1,
        }
    }
}

impl Volume {
    /// Reads an inode.
    pub(super) fn inode(&self, wanted: u64) -> Result<Inode> {
        let bits = self.group_log + self.inode_log;
        let (group, within) = (wanted >> bits, wanted & ((1 << bits) - 1));
        let fsblock = group << self.group_log | within >> self.inode_log;
        let offset = self.byte(fsblock)? + (within & ((1 << self.inode_log) - 1)) * self.inode;
        let bytes = self.bytes(offset, self.inode)?;
        let field = |at: usize, length: usize| number(&bytes[at..at + length]);
        let bad = |reason: &str| self.corrupt(format!("inode {wanted} {reason}"));
        if !bytes.starts_with(b"IN") || bytes[4] != 3 || field(152, 8) != wanted {
            return Err(bad("is none"));
        }
        let mut sealed = bytes.clone();
        sealed[100..104].fill(0);
        if crc32c::crc32c(&sealed).to_le_bytes() != bytes[100..104] {
            return Err(bad("does not match its checksum"));
        }
        let kind = match field(2, 2) & 0o170_000 {
            0o100_000 => Kind::File,
            0o040_000 => Kind::Directory,
            0o120_000 => Kind::Symlink,
            _ => Kind::Other,
        };
        let end = match usize::from(bytes[82]) {
            0 => bytes.len(),
            eights => CORE + eights * 8,
        };
        let fork = bytes.get(CORE..end).ok_or_else(|| bad("has a fork outside of it"))?.to_vec();
        let size = field(56, 8);
        let wide = self.incompat & NREXT64 != 0 && field(120, 8) & 0x10 != 0;
        let extents = if wide { field(24, 8) } else { field(76, 4) };
        let inline = || {
            let length = usize::try_from(size).ok();
            length.and_then(|length| fork.get(..length)).map(<[u8]>::to_vec)
        };
        let (inline, is_tree) = match bytes[5] {
            0 => (None, false),
            1 => (Some(inline().ok_or_else(|| bad("is longer than itself"))?), false),
            2 => (None, false),
            3 => (None, true),
            _ => return Err(bad("has an unknown format")),
        };
        Ok(Inode { number: wanted, kind, size, inline, fork: (fork, is_tree), extents })
    }

    /// The extents of a data fork, in the order of the file.
    pub(super) fn extents(&self, inode: &Inode) -> Result<Vec<Extent>> {
        let (fork, is_tree) = &inode.fork;
        let count = usize::try_from(inode.extents).ok().filter(|&count| count <= MOST_EXTENTS);
        let absurd = || self.absurd(inode, "the number of extents");
        let count = count.ok_or_else(absurd)?;
        let found = if *is_tree {
            self.tree(inode, count)?
        } else {
            let records = fork.as_chunks::<RECORD>().0.get(..count).ok_or_else(absurd)?;
            records.iter().map(Extent::parse).collect()
        };
        if found.len() != count {
            return Err(absurd());
        }
        let ascending = found.windows(2).all(|two| two[0].offset + two[0].count <= two[1].offset);
        if ascending { Ok(found) } else { Err(self.absurd(inode, "the order of extents")) }
    }

    /// The extents of a tree; not many more than `count`.
    fn tree(&self, inode: &Inode, count: usize) -> Result<Vec<Extent>> {
        let (fork, _) = &inode.fork;
        let field = |at: usize, length: usize| fork.get(at..at + length).map(number);
        let (level, children) = (field(0, 2), field(2, 2));
        let most = fork.len().saturating_sub(4) / 16;
        let mut found = Vec::new();
        for child in 0..children.unwrap_or(0) {
            let pointer = field(4 + most * 8 + child as usize * 8, 8);
            let (Some(level @ 1..=HIGHEST), Some(pointer)) = (level, pointer) else {
                return Err(self.absurd(inode, "the tree of extents"));
            };
            self.node(inode, pointer, level - 1, count, &mut found)?;
        }
        Ok(found)
    }

    /// A node of a tree of extents, and what is below it.
    fn node(
        &self,
        inode: &Inode,
        fsblock: u64,
        level: u64,
        most: usize,
        found: &mut Vec<Extent>,
    ) -> Result<()> {
        let bytes = self.bytes(self.byte(fsblock)?, self.block)?;
        let bad = || self.absurd(inode, "a node of the tree of extents");
        let count = number(&bytes[6..8]) as usize;
        // Levels fall and leaves are not empty, so this ends even where nodes are their own children.
        if !bytes.starts_with(b"BMA3") || number(&bytes[4..6]) != level || count == 0 {
            return Err(bad());
        }
        let body = &bytes[NODE..];
        if level == 0 {
            let records = body.as_chunks::<RECORD>().0.get(..count).ok_or_else(bad)?;
            found.extend(records.iter().map(Extent::parse));
        } else {
            let pointers = body.get(body.len() / 16 * 8..).ok_or_else(bad)?;
            let pointers = pointers.as_chunks::<8>().0.get(..count).ok_or_else(bad)?;
            for pointer in pointers {
                self.node(inode, u64::from_be_bytes(*pointer), level - 1, most, found)?;
            }
        }
        if found.len() > most { Err(bad()) } else { Ok(()) }
    }

    /// The bytes of a file whose size was judged before.
    pub(super) fn content(&self, inode: &Inode) -> Result<Vec<u8>> {
        let mut content = vec![0; usize::try_from(inode.size)?];
        for extent in self.extents(inode)?.iter().filter(|extent| !extent.unwritten) {
            let start = extent.offset.saturating_mul(self.block).min(inode.size);
            let end = (extent.offset + extent.count).saturating_mul(self.block).min(inode.size);
            if start < end {
                let bytes = self.bytes(self.byte(extent.block)?, end - start)?;
                content[start as usize..end as usize].copy_from_slice(&bytes);
            }
        }
        Ok(content)
    }

    /// The target of a symbolic link.
    pub(super) fn target(&self, inode: &Inode) -> Result<Vec<u8>> {
        if let Some(inline) = &inode.inline {
            return Ok(inline.clone());
        }
        if inode.size > LONGEST_TARGET {
            return Err(self.absurd(inode, "the length of a link"));
        }
        let mut target = Vec::new();
        for extent in self.extents(inode)? {
            for block in 0..extent.count {
                let bytes = self.bytes(self.byte(extent.block + block)?, self.block)?;
                if !bytes.starts_with(b"XSLM") {
                    return Err(self.absurd(inode, "the target of a link"));
                }
                let left = (inode.size as usize).saturating_sub(target.len());
                let piece = &bytes[TARGET_HEAD..];
                target.extend(&piece[..left.min(piece.len())]);
                if target.len() as u64 == inode.size {
                    return Ok(target);
                }
            }
        }
        Err(self.absurd(inode, "the target of a link"))
    }
}
