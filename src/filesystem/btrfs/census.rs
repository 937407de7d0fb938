//! What a subvolume needs, wherever it is placed: inode numbers, and for each inode its names.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::compress::Compression;
use super::on_disk::{MAX_ITEM, tree};
use super::{Subvolume, Volumes};
use crate::error::{corrupt, unsupported};
use crate::filesystem::linux::{DEVICE, Limits, TYPE_DIRECTORY, file_type, path};
use crate::tree::{Inode, InodeId, Tree};

/// Names of an inode: `BTRFS_LINK_MAX`.
const MAX_LINKS: usize = 65_535;
/// Bytes of a name: `BTRFS_NAME_LEN`.
const MAX_NAME: usize = 255;
/// Files have signed sizes; the kernel reads a target as one page, and wants a zero behind it.
const LIMITS: Limits =
    Limits { name: "btrfs", file: i64::MAX as u64, target: 4095, device: DEVICE, way_out: None };
/// Bytes of an entry's item besides its name.
const ENTRY: usize = 30;
/// The first index of a directory: 0 and 1 were for `.` and `..`.
const FIRST_INDEX: u64 = 2;

/// An inode that has a name.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) id: InodeId,
    /// Range of `Census::names`, sorted by parent and index.
    names: (u32, u32),
}

/// One name of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named<'a> {
    /// Index in `Census::inodes`.
    inode: u32,
    /// Number of the directory.
    pub(super) parent: u64,
    /// Index in the directory.
    pub(super) index: u64,
    pub(super) name: &'a [u8],
}

/// What an entry of a directory names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// An inode, by number.
    Inode(u64),
    /// A subvolume, by number.
    Subvolume(u64),
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) index: u64,
    pub(super) name: &'a [u8],
    pub(super) target: Target,
    /// Type of an entry, as in `btrfs_dir_item`.
    pub(super) kind: u8,
}

/// A subvolume, counted.
#[derive(Debug)]
pub(super) struct Census<'a> {
    /// Number of the subvolume: 5 for the top, from 256 on for others.
    pub(super) number: u64,
    pub(super) tree: &'a Tree,
    pub(super) compression: Option<Compression>,
    /// In the order of their numbers, which begin at 256 with the root and are dense.
    pub(super) inodes: Vec<Counted>,
    /// Inode numbers by the tree's index; 0 for what has no name.
    numbers: Vec<u64>,
    names: Vec<Named<'a>>,
    /// Subvolumes below, for the top one.
    below: Vec<Below<'a>>,
}

/// A subvolume, as a directory of the top names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Below<'a> {
    directory: InodeId,
    name: &'a [u8],
    /// Number of the subvolume.
    number: u64,
}

impl<'a> Census<'a> {
    /// All subvolumes, the top first. Fails at what btrfs cannot hold, telling its path.
    pub(super) fn of_all(volumes: &Volumes<'a>) -> Result<Vec<Self>> {
        let mut below: Vec<Below<'a>> = Vec::new();
        for (volume, number) in volumes.below.iter().zip(tree::FIRST_FREE..) {
            let found = place(volumes.top.tree, volume.name, number);
            let taken = |one: &Below<'_>| {
                let same =
                    |other: &Below<'_>| (other.directory, other.name) == (one.directory, one.name);
                volumes.top.tree.lookup(one.directory, one.name).is_some() || below.iter().any(same)
            };
            let free = found.filter(|one| !taken(one)).ok_or_else(|| {
                let name = volume.name.escape_debug();
                unsupported(
                    format!("invalid name of a subvolume \"{name}\""),
                    Some("use a path for each subvolume that nothing else has"),
                )
            })?;
            below.push(free);
        }
        let top = Self::of(tree::TOP, &volumes.top, below.clone())?;
        let others = volumes.below.iter().zip(&below).map(|(volume, Below { number, .. })| {
            Self::of(*number, volume, Vec::new())
                .with_context(|| format!("laying out the subvolume {}", volume.name))
        });
        std::iter::once(Ok(top)).chain(others).collect()
    }

    fn of(number: u64, volume: &Subvolume<'a>, below: Vec<Below<'a>>) -> Result<Self> {
        let tree = volume.tree;
        let mut census = Self {
            number,
            tree,
            compression: volume.compression,
            inodes: Vec::with_capacity(tree.inode_count()),
            numbers: vec![0; tree.inode_count()],
            names: Vec::new(),
            below,
        };
        census.walk()?;
        for counted in &census.inodes {
            let links = counted.names.1 - counted.names.0;
            check(tree.inode(counted.id), links as usize)
                .with_context(|| format!("laying out {}", path(tree, counted.id)))?;
        }
        Ok(census)
    }

    /// Gives numbers, directory by directory: what is in one has numbers in a row.
    fn walk(&mut self) -> Result<()> {
        self.add(Tree::ROOT);
        let mut stack = vec![Tree::ROOT];
        while let Some(directory) = stack.pop() {
            let parent = self.numbers[directory.index()];
            let start = stack.len();
            for (index, (name, child)) in (FIRST_INDEX..).zip(self.merged(directory)) {
                ensure!(
                    name.len() <= MAX_NAME,
                    corrupt(path(self.tree, directory), "it has a name of more than 255 bytes")
                );
                if let Ok(id) = child {
                    if self.numbers[id.index()] == 0 {
                        self.add(id);
                        if self.tree.inode(id).is_directory() {
                            stack.push(id);
                        }
                    } else if self.tree.inode(id).is_directory() {
                        return Err(corrupt(path(self.tree, id), "a directory has two names"));
                    }
                    let inode = (self.numbers[id.index()] - tree::FIRST_FREE) as u32;
                    self.names.push(Named { inode, parent, index, name });
                }
            }
            stack[start..].reverse();
        }
        self.names.sort_unstable_by_key(|named| (named.inode, named.parent, named.index));
        let mut position = 0;
        for (inode, counted) in (0..).zip(&mut self.inodes) {
            let start = position;
            while self.names.get(position).is_some_and(|named| named.inode == inode) {
                position += 1;
            }
            counted.names = (start as u32, position as u32);
        }
        Ok(())
    }

    fn add(&mut self, id: InodeId) {
        self.numbers[id.index()] = tree::FIRST_FREE + self.inodes.len() as u64;
        self.inodes.push(Counted { id, names: (0, 0) });
    }

    /// What is in a directory, in bytewise order of names: an inode, or a subvolume by number.
    fn merged(&self, directory: InodeId) -> Vec<(&'a [u8], Result<InodeId, u64>)> {
        let tree: &'a Tree = self.tree;
        let own = tree.inode(directory).children().map(|(name, id)| (&**name, Ok(id)));
        let mut all: Vec<_> = own.collect();
        let count = all.len();
        let below = self.below.iter().filter(|below| below.directory == directory);
        all.extend(below.map(|below| (below.name, Err(below.number))));
        if all.len() > count {
            all.sort_unstable_by_key(|(name, _)| *name);
        }
        all
    }

    /// The entries that name subvolumes, each with the number of its directory.
    pub(super) fn subvolumes(&self) -> Vec<(u64, Entry<'a>)> {
        let directories: BTreeSet<InodeId> = self.below.iter().map(|one| one.directory).collect();
        let mut found = Vec::new();
        for directory in directories {
            let entries = self.entries(directory).into_iter();
            let of_volumes = entries.filter(|entry| matches!(entry.target, Target::Subvolume(_)));
            found.extend(of_volumes.map(|entry| (self.number_of(directory), entry)));
        }
        found
    }

    /// Number of an inode.
    pub(super) fn number_of(&self, id: InodeId) -> u64 {
        self.numbers[id.index()]
    }

    /// The names of an inode, by number of the directory and index in it; none of the root.
    pub(super) fn names_of(&self, counted: &Counted) -> &[Named<'a>] {
        &self.names[counted.names.0 as usize..counted.names.1 as usize]
    }

    /// The entries of a directory, by index.
    pub(super) fn entries(&self, directory: InodeId) -> Vec<Entry<'a>> {
        let entry = |(index, (name, child))| {
            let (target, kind) = match child {
                Ok(id) => (Target::Inode(self.number_of(id)), file_type(&self.tree.inode(id).kind)),
                Err(number) => (Target::Subvolume(number), TYPE_DIRECTORY),
            };
            Entry { index, name, target, kind }
        };
        (FIRST_INDEX..).zip(self.merged(directory)).map(entry).collect()
    }
}

/// Where a subvolume of this path has its entry; `None`: the path is none, or leads through something that is not a directory.
fn place<'a>(top: &Tree, path: &'a str, number: u64) -> Option<Below<'a>> {
    let bad = |name: &str| {
        matches!(name, "" | "." | "..") || name.len() > MAX_NAME || name.contains('\0')
    };
    if path.split('/').any(bad) {
        return None;
    }
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let directory = top.find(above).filter(|id| top.inode(*id).is_directory())?;
    Some(Below { directory, name: name.as_bytes(), number })
}

/// Fails if btrfs cannot hold such an inode.
fn check(inode: &Inode, links: usize) -> Result<()> {
    LIMITS.check(inode)?;
    if links > MAX_LINKS {
        return Err(unsupported(
            format!("the file has {links} names, and btrfs allows {MAX_LINKS}"),
            Some("build with --filesystem xfs, which has no such limit"),
        ));
    }
    inode.metadata.xattrs.iter().try_for_each(|(name, value)| check_xattr(name, value))
}

fn check_xattr(name: &[u8], value: &[u8]) -> Result<()> {
    const PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
    let shown = name.escape_ascii();
    if ACLS.contains(&name) {
        ensure!(
            is_access_list(value),
            corrupt(format!("the access list {shown}"), "it is not in format 2")
        );
    } else if !PREFIXES.iter().any(|prefix| name.starts_with(prefix) && name.len() > prefix.len()) {
        return Err(unsupported(
            format!("btrfs cannot hold the extended attribute \"{shown}\""),
            Some(
                "names begin with user., trusted. or security., or are those of POSIX access lists",
            ),
        ));
    }
    ensure!(
        name.len() <= MAX_NAME,
        corrupt(format!("the extended attribute \"{shown}\""), "its name is too long")
    );
    let room = MAX_ITEM - ENTRY - name.len();
    if value.len() > room {
        return Err(unsupported(
            format!(
                "the extended attribute \"{shown}\" has {} bytes, and btrfs has room for {room}",
                value.len()
            ),
            Some("use a shorter value, or build with --filesystem xfs, which has room for 64 KiB"),
        ));
    }
    Ok(())
}

/// Whether this is a POSIX access list as `getxattr` gives it: version 2, and entries of tag, permissions and id. An order that
/// the kernel does not write makes `btrfs receive` fail later, but it is the image's.
fn is_access_list(value: &[u8]) -> bool {
    /// ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ, ACL_GROUP, ACL_MASK, ACL_OTHER.
    const TAGS: [u16; 6] = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20];
    let Some(entries) = value.strip_prefix(&2_u32.to_le_bytes()) else { return false };
    let (entries, rest) = entries.as_chunks::<8>();
    let known = |entry: &[u8; 8]| TAGS.contains(&u16::from_le_bytes([entry[0], entry[1]]));
    rest.is_empty() && entries.iter().all(known)
}
