//! The tables of an ext4, read without a library: which attributes inodes have, and what belongs to whom.
//!
//! ```text
//! block group: | super block, descriptors (some groups) | block bitmap | inode bitmap | inode table | data … |
//! inode (256): | fields, extents (128) | extra fields | attributes │ … │        more attributes in a block of their own
//! ```
//!
//! `ext4-view` reads files and knows no attributes. Names are those of the kernel's documentation
//! (Documentation/filesystems/ext4).

use anyhow::Result;

use super::disk::Slice;
use super::qcow2::explain;
use crate::error::{corrupt, unsupported};

/// Directories below directories; paths have no room for more.
const DEEPEST: usize = 256;

/// Files that are walked, at most.
const MOST_FILES: u64 = 8 << 20;

/// Extents of one directory or file.
const MOST_EXTENTS: usize = 1 << 20;

/// Bytes of a directory.
const LARGEST_DIRECTORY: u64 = 256 << 20;

const EXTENT_MAGIC: u16 = 0xf30a;
const XATTR_MAGIC: u32 = 0xea02_0000;
/// `EXT4_EXTENTS_FL`, `EXT4_INLINE_DATA_FL`.
const EXTENTS: u32 = 0x8_0000;
const INLINE_DATA: u32 = 0x1000_0000;
/// `e_name_index` of names that begin with `security.`.
const SECURITY: u8 = 6;

/// The file system's geometry.
#[derive(Debug)]
pub(super) struct Tables {
    slice: Slice,
    name: String,
    block: u64,
    inode_size: u64,
    inodes_per_group: u32,
    inodes: u32,
    /// The first block of the first group, and how many a group has.
    first: u64,
    per_group: u64,
    /// Blocks of the table of group descriptors.
    descriptor_blocks: u64,
    /// Blocks of the bitmaps of each group.
    bitmaps: Vec<(u64, u64)>,
    /// The block where each group's inode table begins.
    inode_tables: Vec<u64>,
}

/// An inode.
#[derive(Debug)]
pub(super) struct Inode {
    /// `st_mode`.
    pub(super) mode: u16,
    /// Bytes.
    pub(super) size: u64,
    flags: u32,
    raw: Vec<u8>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

impl Inode {
    fn is_directory(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

impl Tables {
    /// Reads the super block and the group descriptors.
    pub(super) fn open(slice: Slice, name: &str) -> Result<Self> {
        let mut sb = [0; 1024];
        slice.read_at(1024, &mut sb).map_err(|error| explain(error, name))?;
        let bad = |reason: &str| corrupt(name, reason);
        let block =
            1024_u64.checked_shl(u32_at(&sb, 0x18)).filter(|size| *size <= 65536 && *size > 0);
        let block = block.ok_or_else(|| bad("its blocks have an impossible size"))?;
        let incompat = u32_at(&sb, 0x60);
        // 64BIT; META_BG moves descriptors to where nobody here looks.
        let wide = incompat & 0x80 != 0;
        if incompat & 0x10 != 0 {
            return Err(unsupported(
                format!("{name} has scattered group descriptors (meta_bg)"),
                None,
            ));
        }
        let high = |at: usize| if wide { u64::from(u32_at(&sb, at)) << 32 } else { 0 };
        let blocks = u64::from(u32_at(&sb, 0x04)) | high(0x150);
        let (per_group, inodes_per_group) = (u32_at(&sb, 0x20), u32_at(&sb, 0x28));
        let inode_size = u64::from(u16_at(&sb, 0x58));
        let descriptor = if wide { usize::from(u16_at(&sb, 0xfe)).max(64) } else { 32 };
        let first = u64::from(u32_at(&sb, 0x14));
        if per_group == 0
            || inodes_per_group == 0
            || inode_size < 128
            || inode_size > block
            || descriptor > 1024
        {
            return Err(bad("its groups are absurd"));
        }
        let groups = blocks.saturating_sub(first).div_ceil(per_group.into());
        let size = groups.checked_mul(descriptor as u64).filter(|size| *size <= 64 << 20);
        let size = size.ok_or_else(|| bad("it has more groups than any real one"))?;
        let mut bytes = vec![0; usize::try_from(size)?];
        slice.read_at((first + 1) * block, &mut bytes).map_err(|error| explain(error, name))?;
        let block_of = |one: &[u8], low: usize, high: usize| {
            u64::from(u32_at(one, low)) | if wide { u64::from(u32_at(one, high)) << 32 } else { 0 }
        };
        let descriptors = || bytes.chunks_exact(descriptor);
        let inode_tables = descriptors().map(|one| block_of(one, 8, 0x28)).collect();
        let bitmaps =
            descriptors().map(|one| (block_of(one, 0, 0x20), block_of(one, 4, 0x24))).collect();
        let descriptor_blocks = size.div_ceil(block) + u64::from(u16_at(&sb, 0xce));
        let inodes = u32_at(&sb, 0);
        Ok(Self {
            slice,
            name: name.to_owned(),
            block,
            inode_size,
            inodes_per_group,
            inodes,
            first,
            per_group: per_group.into(),
            descriptor_blocks,
            bitmaps,
            inode_tables,
        })
    }

    fn corrupt(&self, reason: impl Into<String>) -> anyhow::Error {
        corrupt(self.name.as_str(), reason)
    }

    fn read(&self, offset: u64, size: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(size)?];
        self.slice.read_at(offset, &mut bytes).map_err(|error| explain(error, &self.name))?;
        Ok(bytes)
    }

    /// An inode by its number, from 1 on.
    pub(super) fn inode(&self, number: u32) -> Result<Inode> {
        if number == 0 || number > self.inodes {
            return Err(self.corrupt(format!("there is no inode {number}")));
        }
        let (group, index) =
            ((number - 1) / self.inodes_per_group, (number - 1) % self.inodes_per_group);
        let table = self.inode_tables.get(group as usize);
        let table = table.ok_or_else(|| self.corrupt(format!("inode {number} is in no group")))?;
        let offset =
            table.saturating_mul(self.block).saturating_add(u64::from(index) * self.inode_size);
        let raw = self.read(offset, self.inode_size)?;
        Ok(Inode {
            mode: u16_at(&raw, 0),
            size: u64::from(u32_at(&raw, 4)) | u64::from(u32_at(&raw, 0x6c)) << 32,
            flags: u32_at(&raw, 0x20),
            raw,
        })
    }

    /// Whether an inode has the attribute `security.selinux`.
    pub(super) fn is_labelled(&self, inode: &Inode) -> Result<bool> {
        let extra = usize::from(u16_at(&inode.raw, 128));
        let start = 128 + extra;
        if inode.raw.len() > 132
            && u32_at(&inode.raw, start) == XATTR_MAGIC
            && has_label(inode.raw.get(start + 4..).unwrap_or_default())
        {
            return Ok(true);
        }
        // i_file_acl and its upper half.
        let acl = u64::from(u32_at(&inode.raw, 0x68)) | u64::from(u16_at(&inode.raw, 0x76)) << 32;
        if acl == 0 {
            return Ok(false);
        }
        let block = self.read(acl.saturating_mul(self.block), self.block)?;
        Ok(u32_at(&block, 0) == XATTR_MAGIC && has_label(block.get(32..).unwrap_or_default()))
    }

    /// The runs of blocks of an inode with extents: first block in the file, first block in the file system, count.
    fn extents(&self, inode: &Inode) -> Result<Vec<(u64, u64, u64)>> {
        let mut found = Vec::new();
        let root = inode.raw.get(0x28..0x64).unwrap_or_default().to_vec();
        let mut nodes = vec![(root, 0)];
        while let Some((node, depth)) = nodes.pop() {
            if u16_at(&node, 0) != EXTENT_MAGIC || depth > 6 {
                return Err(self.corrupt("a tree of extents is damaged"));
            }
            let (entries, levels) = (usize::from(u16_at(&node, 2)), u16_at(&node, 6));
            for at in (1..=entries).map(|number| 12 * number) {
                let entry = node
                    .get(at..at + 12)
                    .ok_or_else(|| self.corrupt("a tree of extents is cut short"))?;
                if levels == 0 {
                    let start = u64::from(u16_at(entry, 6)) << 32 | u64::from(u32_at(entry, 8));
                    // More than 32768: allocated, never written.
                    let count = u64::from(u16_at(entry, 4));
                    let count = if count > 32768 { count - 32768 } else { count };
                    found.push((u64::from(u32_at(entry, 0)), start, count));
                } else {
                    let below = u64::from(u16_at(entry, 8)) << 32 | u64::from(u32_at(entry, 4));
                    nodes.push((
                        self.read(below.saturating_mul(self.block), self.block)?,
                        depth + 1,
                    ));
                }
                if found.len() + nodes.len() > MOST_EXTENTS {
                    return Err(self.corrupt("an inode has more extents than any real one"));
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Names in a directory, without `.` and `..`.
    fn entries(&self, inode: &Inode) -> Result<Vec<(Vec<u8>, u32)>> {
        if inode.flags & INLINE_DATA != 0 || inode.flags & EXTENTS == 0 {
            return Err(unsupported(
                format!("{} has directories without extents, which are not read", self.name),
                None,
            ));
        }
        if inode.size > LARGEST_DIRECTORY {
            return Err(self.corrupt("a directory is larger than any real one"));
        }
        let mut names = Vec::new();
        let mut left = inode.size.div_ceil(self.block);
        for (_, start, count) in self.extents(inode)? {
            for number in 0..count.min(left) {
                let block = self.read((start + number).saturating_mul(self.block), self.block)?;
                let mut at = 0;
                while at + 8 <= block.len() {
                    let (target, length) =
                        (u32_at(&block, at), usize::from(u16_at(&block, at + 4)));
                    let name = block.get(at + 8..at + 8 + usize::from(block[at + 6]));
                    if length < 8 {
                        break;
                    }
                    if let (Some(name), true) = (name, target != 0 && block[at + 6] > 0)
                        && name != b"."
                        && name != b".."
                    {
                        names.push((name.to_vec(), target));
                    }
                    at += length;
                }
            }
            left = left.saturating_sub(count);
        }
        Ok(names)
    }

    /// What is at a byte of the volume: the structure, and the file or directory that it belongs to.
    pub(super) fn owner(&self, at: u64) -> Result<(String, Option<String>)> {
        /// `EXT4_JOURNAL_INO`.
        const JOURNAL: u32 = 8;
        if (1024..2048).contains(&at) {
            return Ok((format!("the super block, byte {}", at - 1024), None));
        }
        let block = at / self.block;
        let group = block.saturating_sub(self.first) / self.per_group;
        let index = usize::try_from(group)?;
        let within = block.saturating_sub(self.first) % self.per_group;
        let table = self.inode_tables.get(index).copied().unwrap_or(0);
        let table_bytes = u64::from(self.inodes_per_group) * self.inode_size;
        // With flex_bg tables of several groups lie together.
        for (number, table) in (0_u64..).zip(&self.inode_tables) {
            let start = table.saturating_mul(self.block);
            if (start..start.saturating_add(table_bytes)).contains(&at) {
                let inode =
                    number * u64::from(self.inodes_per_group) + (at - start) / self.inode_size + 1;
                let path = self.path_of(u32::try_from(inode)?)?;
                return Ok((
                    format!("inode {inode}, byte {}", (at - start) % self.inode_size),
                    path,
                ));
            }
        }
        for (number, (blocks, inodes)) in self.bitmaps.iter().enumerate() {
            if [*blocks, *inodes].contains(&block) {
                let of = if *blocks == block { "block" } else { "inode" };
                return Ok((format!("the {of} bitmap of group {number}"), None));
            }
        }
        let has_copy = group <= 1 || [3, 5, 7].iter().any(|base: &u64| is_power(group, *base));
        if has_copy && within <= self.descriptor_blocks && table != block {
            let what = if within == 0 { "super block" } else { "group descriptors" };
            let owner = self.owner_of_block(block)?;
            return Ok(match owner {
                Some((what, path)) => (what, Some(path)),
                None => (format!("{what}, the copy in group {group}"), None),
            });
        }
        let journal = self.inode(JOURNAL)?;
        if self.holds(&journal, block)?.is_some() {
            return Ok(("the journal".to_owned(), None));
        }
        Ok(match self.owner_of_block(block)? {
            Some((what, path)) => {
                (format!("{what} (block {block}, byte {})", at % self.block), Some(path))
            }
            None => (format!("block {block}, which belongs to no file"), None),
        })
    }

    /// The first block in the file of a block of the file system, if it belongs to the inode.
    fn holds(&self, inode: &Inode, block: u64) -> Result<Option<u64>> {
        if inode.flags & EXTENTS == 0 || inode.flags & INLINE_DATA != 0 {
            return Ok(None);
        }
        let extents = self.extents(inode)?;
        let found =
            extents.iter().find(|(_, start, count)| (*start..start + count).contains(&block));
        Ok(found.map(|(file, start, _)| file + (block - start)))
    }

    fn owner_of_block(&self, block: u64) -> Result<Option<(String, String)>> {
        let mut found = None;
        self.walk(|path, _, inode| {
            if found.is_some() {
                return Ok(());
            }
            let acl =
                u64::from(u32_at(&inode.raw, 0x68)) | u64::from(u16_at(&inode.raw, 0x76)) << 32;
            if acl == block {
                found = Some(("extended attributes".to_owned(), path.to_owned()));
            } else if let Some(index) = self.holds(inode, block)? {
                let kind = if inode.is_directory() { "a directory" } else { "a file" };
                found = Some((format!("block {index} of {kind}"), path.to_owned()));
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn path_of(&self, number: u32) -> Result<Option<String>> {
        let mut found = None;
        self.walk(|path, inode, _| {
            if inode == number && found.is_none() {
                found = Some(path.to_owned());
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Calls `visit` for everything that has a name, with its path, inode number and inode; directories before what is in them.
    pub(super) fn walk(
        &self,
        mut visit: impl FnMut(&str, u32, &Inode) -> Result<()>,
    ) -> Result<()> {
        const ROOT: u32 = 2;
        let mut stack = vec![(String::new(), ROOT, 0)];
        let mut seen = vec![0_u64; self.inodes as usize / 64 + 1];
        let mut files = 0;
        while let Some((path, number, depth)) = stack.pop() {
            let inode = self.inode(number)?;
            files += 1;
            if files > MOST_FILES || depth > DEEPEST {
                return Err(
                    self.corrupt("it has more files, or deeper directories, than any real one")
                );
            }
            visit(if path.is_empty() { "/" } else { &path }, number, &inode)?;
            if !inode.is_directory() {
                continue;
            }
            let (word, bit) = (number as usize / 64, 1_u64 << (number % 64));
            if seen[word] & bit != 0 {
                return Err(self.corrupt(format!("the directory {path} is in two places")));
            }
            seen[word] |= bit;
            for (name, below) in self.entries(&inode)?.into_iter().rev() {
                stack.push((
                    format!("{path}/{}", String::from_utf8_lossy(&name)),
                    below,
                    depth + 1,
                ));
            }
        }
        Ok(())
    }
}

/// Whether a number is a power of another one.
fn is_power(mut number: u64, base: u64) -> bool {
    while number > 1 && number.is_multiple_of(base) {
        number /= base;
    }
    number == 1
}

/// Whether a list of attributes has `security.selinux`.
fn has_label(mut list: &[u8]) -> bool {
    while list.len() >= 16 && list[..4] != [0; 4] {
        let length = usize::from(list[0]);
        let name = list.get(16..16 + length);
        if list[1] == SECURITY && name == Some(b"selinux") {
            return true;
        }
        list = list.get((16 + length).next_multiple_of(4)..).unwrap_or_default();
    }
    false
}
