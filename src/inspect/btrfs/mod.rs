//! btrfs, read: how full it is, and the few small files that say what the system is. On one device, as disks have it.
//!
//! ```text
//! superblock ─► chunks ─► root tree ─► subvolume ─► directory entries ─► inode ─► extents ─► bytes
//! ```
//!
//! Names and numbers are those of the kernel's `uapi/linux/btrfs_tree.h`. A log of the last seconds before a power cut is not
//! replayed: what is read is the last whole transaction.

mod extents;
mod lzo;
mod tree;

use anyhow::Result;

use self::tree::{Key, Trees, u16_at, u64_at};
use super::disk::Slice;
use crate::error::corrupt;

/// Boot entries, states and configurations are small, and so is a commit; what is larger is none.
const LARGEST_FILE: u64 = 4 << 20;
/// Linux gives up after so many symbolic links, too.
const MOST_LINKS: usize = 40;

/// `BTRFS_FS_TREE_OBJECTID`: the subvolume at the top.
const TOP: u64 = 5;
/// `BTRFS_ROOT_TREE_DIR_OBJECTID`, and the name in it that leads to the default subvolume.
const ROOT_DIRECTORY: u64 = 6;
/// `BTRFS_FIRST_FREE_OBJECTID`: the root directory of every subvolume.
const ROOT_INODE: u64 = 256;

/// Types of items.
const INODE_ITEM: u8 = 1;
const DIR_ITEM: u8 = 84;
const DIR_INDEX: u8 = 96;
const ROOT_ITEM: u8 = 132;
const ROOT_REF: u8 = 156;

/// A btrfs.
#[derive(Debug)]
pub(super) struct Btrfs {
    trees: Trees,
    /// Where paths begin.
    start: Inode,
}

/// An inode, and the root block of the subvolume that it is in.
#[derive(Clone, Copy, Debug)]
struct Inode {
    subvolume: u64,
    number: u64,
}

/// A name in a directory.
struct Entry {
    name: Vec<u8>,
    /// `BTRFS_FT_*`.
    kind: u8,
    target: Key,
}

impl Btrfs {
    /// Whether there is a superblock at 64 KiB, behind which `start` must reach.
    pub(super) fn is_it(start: &[u8]) -> bool {
        start.get(0x10040..0x10048) == Some(b"_BHRfS_M")
    }

    /// `name`: what it is called in errors.
    pub(super) fn open(slice: Slice, name: String) -> Result<Self> {
        let trees = Trees::open(slice, name)?;
        let start = Inode { subvolume: 0, number: ROOT_INODE };
        let mut btrfs = Self { trees, start };
        btrfs.start = btrfs.system()?;
        Ok(btrfs)
    }

    pub(super) fn label(&self) -> &str {
        &self.trees.label
    }

    pub(super) fn uuid(&self) -> String {
        self.trees.uuid.to_string()
    }

    /// Bytes that are in use; what is there twice counts twice.
    pub(super) fn used(&self) -> u64 {
        self.trees.used
    }

    /// The names in a directory, links followed, sorted; none if it is not there.
    pub(super) fn names(&self, path: &str) -> Result<Vec<String>> {
        let Some(directory) = self.find(path)? else { return Ok(Vec::new()) };
        let entries = self.entries(directory)?;
        // A name that is not UTF-8 is none that anybody looks for here.
        let names = entries.into_iter().filter_map(|entry| String::from_utf8(entry.name).ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names)
    }

    /// How many bytes a regular file has, links followed; `None`: there is none.
    pub(super) fn size(&self, path: &str) -> Result<Option<u64>> {
        let Some(inode) = self.find(path)? else { return Ok(None) };
        let (mode, size) = self.mode_and_size(inode)?;
        Ok((mode & 0o170_000 == 0o100_000).then_some(size))
    }

    /// The bytes of a regular file, links followed; `None`: there is none.
    pub(super) fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(inode) = self.find(path)? else { return Ok(None) };
        let (mode, size) = self.mode_and_size(inode)?;
        if mode & 0o170_000 != 0o100_000 {
            return Ok(None);
        }
        if size > LARGEST_FILE {
            return Err(self.corrupt(format!("{path} has {size} bytes")));
        }
        self.bytes(inode, size).map(Some)
    }

    /// The subvolume to read: the default one; or, where that holds no system, another below the top that does, as Fedora's
    /// installer and osbuild have it.
    fn system(&self) -> Result<Inode> {
        let default = self.subvolume(self.default_subvolume()?)?;
        let mut candidates = vec![default];
        for (key, _) in self.trees.scan(self.trees.root, Key::all_of(TOP, ROOT_REF))? {
            candidates.push(self.subvolume(key.offset)?);
        }
        for candidate in candidates {
            if self.lookup(candidate, b"ostree")?.is_some() {
                return Ok(candidate);
            }
        }
        Ok(default)
    }

    fn default_subvolume(&self) -> Result<u64> {
        let range = Key::all_of(ROOT_DIRECTORY, DIR_ITEM);
        for (_, bytes) in self.trees.scan(self.trees.root, range)? {
            for entry in self.parse_entries(&bytes)? {
                if entry.name == b"default" {
                    return Ok(entry.target.objectid);
                }
            }
        }
        Ok(TOP)
    }

    /// The root directory of a subvolume, by its number.
    fn subvolume(&self, number: u64) -> Result<Inode> {
        let items = self.trees.scan(self.trees.root, Key::all_of(number, ROOT_ITEM))?;
        // bytenr stands behind the inode, the generation and the number of the root directory.
        let place = items.first().and_then(|(_, bytes)| u64_at(bytes, 176));
        let subvolume = place.ok_or_else(|| self.corrupt(format!("no subvolume {number}")))?;
        Ok(Inode { subvolume, number: ROOT_INODE })
    }

    /// What has this path, links followed.
    fn find(&self, path: &str) -> Result<Option<Inode>> {
        let mut left: Vec<Vec<u8>> = components(path.as_bytes());
        let mut above = vec![self.start];
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                if above.len() > 1 {
                    above.pop();
                }
                continue;
            }
            let directory = *above.last().expect("the root is never taken away");
            let Some(found) = self.lookup(directory, &name)? else { return Ok(None) };
            let (mode, size) = self.mode_and_size(found)?;
            if mode & 0o170_000 != 0o120_000 {
                above.push(found);
                continue;
            }
            links += 1;
            if links > MOST_LINKS || size > 4096 {
                return Ok(None);
            }
            let target = self.bytes(found, size)?;
            if target.starts_with(b"/") {
                above.truncate(1);
            }
            left.extend(components(&target));
        }
        Ok(above.pop())
    }

    fn lookup(&self, directory: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let hash = u64::from(!crc32c::crc32c_append(1, name));
        let key = Key { objectid: directory.number, kind: DIR_ITEM, offset: hash };
        let items = self.trees.scan(directory.subvolume, key..=key)?;
        let Some((_, bytes)) = items.first() else { return Ok(None) };
        let entries = self.parse_entries(bytes)?;
        let Some(entry) = entries.iter().find(|entry| entry.name == name) else { return Ok(None) };
        match entry.target.kind {
            ROOT_ITEM => self.subvolume(entry.target.objectid).map(Some),
            _ => Ok(Some(Inode { number: entry.target.objectid, ..directory })),
        }
    }

    fn entries(&self, directory: Inode) -> Result<Vec<Entry>> {
        let range = Key::all_of(directory.number, DIR_INDEX);
        let mut entries = Vec::new();
        for (_, bytes) in self.trees.scan(directory.subvolume, range)? {
            entries.extend(self.parse_entries(&bytes)?);
        }
        Ok(entries)
    }

    /// The entries in one item: those whose names have the same hash.
    fn parse_entries(&self, mut bytes: &[u8]) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            let parsed = parse_entry(bytes);
            let (entry, length) =
                parsed.ok_or_else(|| self.corrupt("an entry of a directory is cut short"))?;
            // Attributes have the same form.
            if entry.kind != 8 {
                entries.push(entry);
            }
            bytes = &bytes[length..];
        }
        Ok(entries)
    }

    fn mode_and_size(&self, inode: Inode) -> Result<(u32, u64)> {
        let items = self.trees.scan(inode.subvolume, Key::all_of(inode.number, INODE_ITEM))?;
        let parsed = items.first().and_then(|(_, bytes)| {
            let mode = bytes.get(52..56)?.try_into().ok()?;
            Some((u32::from_le_bytes(mode), u64_at(bytes, 16)?))
        });
        parsed.ok_or_else(|| self.corrupt(format!("inode {} is not there", inode.number)))
    }

    fn corrupt(&self, reason: impl Into<String>) -> anyhow::Error {
        corrupt(&self.trees.name, reason)
    }
}

/// A `btrfs_dir_item` and its length: location, transid, data_len, name_len, type, name, data.
fn parse_entry(bytes: &[u8]) -> Option<(Entry, usize)> {
    let target = Key::parse(bytes)?;
    let (data_len, name_len) = (u16_at(bytes, 25)?, u16_at(bytes, 27)?);
    let kind = *bytes.get(29)?;
    let end = 30 + usize::from(name_len);
    let name = bytes.get(30..end)?.to_vec();
    let length = end + usize::from(data_len);
    (length <= bytes.len()).then_some((Entry { name, kind, target }, length))
}

/// The components of a path, the last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/');
    let parts = parts.filter(|part| !part.is_empty() && *part != b".");
    parts.rev().map(<[u8]>::to_vec).collect()
}
