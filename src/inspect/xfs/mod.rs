//! XFS, read: how full it is, and the few small files that say what the system is.
//!
//! It shares no code with what writes XFS. Numbers are from "XFS Algorithms & Data Structures" (3rd edition); everything is big-endian.
//! The log is not replayed: of a machine that lost its power, what is read is what was written back.

mod directory;
mod inode;

use anyhow::Result;

use self::inode::{Inode, Kind};
use super::disk::Slice;
use super::qcow2::explain;
use crate::error::{corrupt, unsupported};

/// Boot entries, states and configurations are small, and so is a commit; what is larger is none.
const LARGEST_FILE: u64 = 4 << 20;
/// Bytes of the blocks of names of the largest directory that is read.
const LARGEST_DIRECTORY: u64 = 64 << 20;
/// Symbolic links that are followed at most, as Linux does.
const MOST_LINKS: u32 = 40;
/// `sb_features_incompat`: ftype, spinodes, meta_uuid, bigtime, needsrepair, nrext64, exchange, parent. Of others nothing is known.
const KNOWN_INCOMPAT: u32 = 0xff;
/// `sb_features_incompat`: entries of directories tell of types.
const FTYPE: u32 = 0x1;
/// `sb_features_incompat`: counters of extents are wide.
const NREXT64: u32 = 0x20;

/// An XFS file system.
#[derive(Debug)]
pub(super) struct Volume {
    slice: Slice,
    /// What it is called in errors: `the XFS of partition 4`.
    name: String,
    block: u64,
    inode: u64,
    group_blocks: u64,
    groups: u64,
    /// Bits of a block's number in its group, and of an inode's in its block.
    group_log: u32,
    inode_log: u32,
    directory_block: u64,
    root: u64,
    incompat: u32,
    label: String,
    uuid: String,
    /// Bytes of it that are in use.
    used: u64,
}

/// A big-endian number of 16, 32 or 64 bits.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

impl Volume {
    /// Whether there is a super block at the start.
    pub(super) fn is_it(start: &[u8]) -> bool {
        start.starts_with(b"XFSB")
    }

    pub(super) fn open(slice: Slice, name: String) -> Result<Self> {
        let mut head = [0; 512];
        slice.read_at(0, &mut head).map_err(|error| explain(error, &name))?;
        let bad = |reason: &str| corrupt(&name, reason);
        let field = |at: usize, bytes: usize| number(&head[at..at + bytes]);
        let version = field(100, 2) & 0xf;
        if version != 5 {
            return Err(unsupported(
                format!("{name} is of version {version}; only version 5 is read"),
                None,
            ));
        }
        let incompat = field(216, 4) as u32;
        if incompat & !KNOWN_INCOMPAT != 0 {
            let unknown = incompat & !KNOWN_INCOMPAT;
            return Err(unsupported(
                format!("{name} has features that bootpress does not read: {unknown:#x}"),
                None,
            ));
        }
        let (block, inode) = (field(4, 4), field(104, 2));
        let (block_log, inode_log) = (head[120], head[123]);
        let sane = matches!(block, 512..=65536)
            && block == 1 << block_log
            && matches!(inode, 256..=2048)
            && inode_log <= 8
            && inode.checked_shl(inode_log.into()) == Some(block);
        if !sane {
            return Err(bad("its sizes of blocks and inodes are absurd"));
        }
        let (group_blocks, groups, group_log) = (field(84, 4), field(88, 4), head[124]);
        if group_blocks == 0 || groups == 0 || !(1..=32).contains(&group_log) || head[192] > 8 {
            return Err(bad("its groups are absurd"));
        }
        let directory_block = block << head[192];
        let used = field(8, 8).checked_sub(field(144, 8)).and_then(|used| used.checked_mul(block));
        let used = used.ok_or_else(|| bad("it has more free blocks than blocks"))?;
        let label = head[108..120].split(|&byte| byte == 0).next().unwrap_or_default();
        let uuid = uuid::Uuid::from_slice(&head[32..48])?;
        Ok(Self {
            slice,
            block,
            inode,
            group_blocks,
            groups,
            group_log: group_log.into(),
            inode_log: inode_log.into(),
            directory_block,
            root: field(56, 8),
            incompat,
            label: String::from_utf8_lossy(label).into_owned(),
            uuid: uuid.to_string(),
            used,
            name,
        })
    }

    pub(super) fn label(&self) -> String {
        self.label.clone()
    }

    pub(super) fn uuid(&self) -> String {
        self.uuid.clone()
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// The names in a directory, links followed, sorted; none if it is not there.
    pub(super) fn names(&self, path: &str) -> Result<Vec<String>> {
        let Some(inode) = self.find(path)? else { return Ok(Vec::new()) };
        if inode.kind != Kind::Directory {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for (name, _) in self.entries(&inode)? {
            // A name that is not UTF-8 is none that anybody looks for here.
            names.extend(String::from_utf8(name));
        }
        names.sort();
        Ok(names)
    }

    /// How many bytes a regular file has, links followed; `None`: there is none.
    pub(super) fn size(&self, path: &str) -> Result<Option<u64>> {
        let inode = self.find(path)?.filter(|inode| inode.kind == Kind::File);
        Ok(inode.map(|inode| inode.size))
    }

    /// The bytes of a regular file, links followed; `None`: there is none.
    pub(super) fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(inode) = self.find(path)? else { return Ok(None) };
        if inode.kind != Kind::File {
            return Ok(None);
        }
        if inode.size > LARGEST_FILE {
            let what = format!("{path} on {} has {} bytes", self.name, inode.size);
            return Err(corrupt(what, format!("at most {LARGEST_FILE} are expected of it")));
        }
        self.content(&inode).map(Some)
    }

    /// What a path leads to, links followed.
    fn find(&self, path: &str) -> Result<Option<Inode>> {
        let components = |path: &[u8]| -> Vec<Vec<u8>> {
            let parts = path.split(|&byte| byte == b'/');
            let parts = parts.filter(|part| !part.is_empty() && *part != b".");
            parts.rev().map(<[u8]>::to_vec).collect()
        };
        let mut left = components(path.as_bytes());
        let mut above = vec![self.inode(self.root)?];
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                if above.len() > 1 {
                    above.pop();
                }
                continue;
            }
            let Some(here) = above.last().filter(|here| here.kind == Kind::Directory) else {
                return Ok(None);
            };
            let entries = self.entries(here)?;
            let found = entries.into_iter().find(|(entry, _)| *entry == name);
            let Some((_, found)) = found else { return Ok(None) };
            let inode = self.inode(found)?;
            if inode.kind != Kind::Symlink {
                above.push(inode);
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Ok(None);
            }
            let target = self.target(&inode)?;
            if target.starts_with(b"/") {
                above.truncate(1);
            }
            left.extend(components(&target));
        }
        Ok(above.pop())
    }

    /// The byte at which a block begins, by its number in the whole file system.
    fn byte(&self, fsblock: u64) -> Result<u64> {
        let (group, block) = (fsblock >> self.group_log, fsblock & ((1 << self.group_log) - 1));
        if group >= self.groups || block >= self.group_blocks {
            return Err(self.corrupt(format!("block {fsblock} is outside of it")));
        }
        Ok((group * self.group_blocks + block) * self.block)
    }

    fn bytes(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length)?];
        self.slice.read_at(offset, &mut bytes).map_err(|error| explain(error, &self.name))?;
        Ok(bytes)
    }

    fn corrupt(&self, reason: impl Into<String>) -> anyhow::Error {
        corrupt(&self.name, reason)
    }

    /// Names of a directory, without itself and its parent, and the inodes that they name.
    fn entries(&self, inode: &Inode) -> Result<Vec<(Vec<u8>, u64)>> {
        let types = self.incompat & FTYPE != 0;
        if let Some(inline) = &inode.inline {
            let entries = directory::short(inline, types);
            return entries.ok_or_else(|| self.absurd(inode, "the names"));
        }
        let extents = self.extents(inode)?;
        let per_block = self.directory_block / self.block;
        let mut entries = Vec::new();
        let mut read = 0;
        for extent in extents.iter().filter(|extent| extent.offset < directory::leaf(self.block)) {
            for block in (0..extent.count).step_by(per_block as usize) {
                read += self.directory_block;
                if read > LARGEST_DIRECTORY {
                    return Err(self.absurd(inode, "the length of a directory"));
                }
                let bytes = self.bytes(self.byte(extent.block + block)?, self.directory_block)?;
                let found = directory::block(&bytes, types);
                entries.extend(found.ok_or_else(|| self.absurd(inode, "a block of names"))?);
            }
        }
        Ok(entries)
    }

    fn absurd(&self, inode: &Inode, what: &str) -> anyhow::Error {
        self.corrupt(format!("{what} in inode {} cannot be", inode.number))
    }
}
