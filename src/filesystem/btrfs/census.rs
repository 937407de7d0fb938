//! What a subvolume needs, wherever it is placed: inode numbers, and for each inode its names.

use anyhow::{Context, Result, ensure};

use super::compress::Compression;
use super::on_disk::{MAX_ITEM, tree};
use super::{Subvolume, Volumes};
use crate::error::{corrupt, unsupported};
use crate::tree::{Inode, InodeId, Kind, Tree};

/// Names of an inode: `BTRFS_LINK_MAX`.
const MAX_LINKS: usize = 65_535;
/// Bytes of a name: `BTRFS_NAME_LEN`.
const MAX_NAME: usize = 255;
/// The kernel reads a target as one page, and wants a zero behind it.
const MAX_SYMLINK: usize = 4095;
/// Bytes of an entry's item besides its name.
const ENTRY: usize = 30;
/// The first index of a directory: 0 and 1 were for `.` and `..`.
const FIRST_INDEX: u64 = 2;

/// An inode that has a name.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) id: InodeId,
    /// Of `Census::names`, by parent and index.
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
    /// Of the top: names and numbers of those below.
    below: Vec<(&'a str, u64)>,
}

impl<'a> Census<'a> {
    /// All subvolumes, the top first. Fails at what btrfs cannot hold, telling its path.
    pub(super) fn of_all(volumes: &Volumes<'a>) -> Result<Vec<Self>> {
        let below: Vec<(&'a str, u64)> =
            volumes.below.iter().map(|volume| volume.name).zip(tree::FIRST_FREE..).collect();
        for (name, _) in &below {
            let taken = volumes.top.tree.lookup(Tree::ROOT, name.as_bytes()).is_some()
                || below.iter().filter(|(other, _)| other == name).count() > 1;
            let bad = name.is_empty() || name.len() > MAX_NAME || name.contains(['/', '\0']);
            if taken || bad || matches!(*name, "." | "..") {
                return Err(unsupported(
                    format!("invalid name of a subvolume \"{}\"", name.escape_debug()),
                    Some("use another name, without \"/\", for each subvolume"),
                ));
            }
        }
        let top = Self::of(tree::TOP, &volumes.top, below.clone())?;
        let others = volumes.below.iter().zip(&below).map(|(volume, (name, number))| {
            Self::of(*number, volume, Vec::new())
                .with_context(|| format!("laying out the subvolume {name}"))
        });
        std::iter::once(Ok(top)).chain(others).collect()
    }

    fn of(number: u64, volume: &Subvolume<'a>, below: Vec<(&'a str, u64)>) -> Result<Self> {
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
        let below: &[(&'a str, u64)] =
            if directory == Tree::ROOT { &self.below } else { Default::default() };
        let mut all: Vec<_> = own.collect();
        all.extend(below.iter().map(|(name, number)| (name.as_bytes(), Err(*number))));
        if !below.is_empty() {
            all.sort_unstable_by_key(|(name, _)| *name);
        }
        all
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
                Ok(id) => (Target::Inode(self.number_of(id)), entry_type(self.tree.inode(id))),
                Err(number) => (Target::Subvolume(number), super::on_disk::TYPE_DIRECTORY),
            };
            Entry { index, name, target, kind }
        };
        (FIRST_INDEX..).zip(self.merged(directory)).map(entry).collect()
    }
}

/// Type of an entry: `BTRFS_FT_*`.
fn entry_type(inode: &Inode) -> u8 {
    match inode.kind {
        Kind::File(_) => 1,
        Kind::Directory(_) => 2,
        Kind::CharacterDevice(..) => 3,
        Kind::BlockDevice(..) => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => 7,
    }
}

/// Fails if btrfs cannot hold such an inode.
fn check(inode: &Inode, links: usize) -> Result<()> {
    match &inode.kind {
        Kind::File(content) if content.size > i64::MAX.cast_unsigned() => {
            return Err(unsupported("the file is larger than 2^63 bytes", None));
        }
        Kind::Symlink(target) => {
            ensure!(
                !target.is_empty() && !target.contains(&0),
                corrupt("the symbolic link", "its target is empty or contains a zero byte")
            );
            if target.len() > MAX_SYMLINK {
                return Err(unsupported(
                    "the symbolic link's target is longer than 4095 bytes",
                    None,
                ));
            }
        }
        Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor)
            if *major > 0xfff || *minor > 0xf_ffff =>
        {
            return Err(unsupported(
                format!("the device number {major}:{minor} is larger than Linux can hold"),
                None,
            ));
        }
        _ => {}
    }
    if inode.metadata.immutable && !matches!(inode.kind, Kind::File(_) | Kind::Directory(_)) {
        return Err(unsupported("only files and directories can be immutable on btrfs", None));
    }
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

/// A path of an inode; slow, for errors.
fn path(tree: &Tree, id: InodeId) -> String {
    let found = tree.walk().find(|(_, other)| *other == id);
    let path = found.map(|(path, _)| path).unwrap_or_default();
    format!("/{}", path.escape_ascii())
}
