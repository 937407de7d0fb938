//! A file tree: one table of inodes, and directories that name them. A hard link is two names for one [`InodeId`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::content::Content;

/// One component of a path: not empty, not `.` or `..`, without `/` and NUL.
pub type Name = Box<[u8]>;

/// Names an inode of one [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(u32);

impl InodeId {
    /// The inode's place in the tree's table: dense, from 0 (the root) on.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Extended attributes: full names without NUL, raw values; sorted bytewise by name, each name once. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattrs(Option<Arc<XattrMap>>);

type XattrMap = BTreeMap<Box<[u8]>, Box<[u8]>>;

impl Xattrs {
    /// None at all.
    pub const NONE: Self = Self(None);

    /// The pairs, in bytewise order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().flat_map(|map| map.iter()).map(|(name, value)| (&**name, &**value))
    }

    /// The value of one.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.as_ref()?.get(name).map(|value| &**value)
    }

    /// Adds or replaces one.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        Arc::make_mut(self.0.get_or_insert_default()).insert(name.into(), value.into());
    }

    /// Takes one away.
    pub fn remove(&mut self, name: &[u8]) {
        if self.get(name).is_some() {
            let map = Arc::make_mut(self.0.get_or_insert_default());
            map.remove(name);
            if map.is_empty() {
                self.0 = None;
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for Xattrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(n, v)| {
                (String::from_utf8_lossy(n).into_owned(), v.escape_ascii().to_string())
            }))
            .finish()
    }
}

/// What an inode has besides its kind. For layers, ostree and all file systems alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits, 0 to 0o7777; the type is [`Kind`]'s.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// Whether the file system shall refuse changes (`chattr +i`).
    pub immutable: bool,
}

impl Metadata {
    /// Owned by root, time 0, without extended attributes.
    pub const fn root(mode: u16) -> Self {
        Self { mode, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::NONE, immutable: false }
    }
}

/// What an inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Names for inodes, in bytewise order.
    Directory(BTreeMap<Name, InodeId>),
    /// Regular file.
    File(Content),
    /// Symbolic link and its target.
    Symlink(Box<[u8]>),
    /// Character device, by major and minor number.
    CharacterDevice(u32, u32),
    /// Block device, by major and minor number.
    BlockDevice(u32, u32),
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
}

impl Kind {
    /// An empty directory.
    pub const fn directory() -> Self {
        Self::Directory(BTreeMap::new())
    }

    /// The type bits of `st_mode`.
    pub const fn type_bits(&self) -> u32 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharacterDevice(..) => 0o020_000,
            Self::Directory(_) => 0o040_000,
            Self::BlockDevice(..) => 0o060_000,
            Self::File(_) => 0o100_000,
            Self::Symlink(_) => 0o120_000,
            Self::Socket => 0o140_000,
        }
    }
}

/// A file, directory or link, without its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Mode, owner, time, extended attributes.
    pub metadata: Metadata,
    /// Directory, file, link, …
    pub kind: Kind,
}

impl Inode {
    /// `st_mode`: type bits and permission bits.
    pub const fn st_mode(&self) -> u32 {
        self.kind.type_bits() | self.metadata.mode as u32
    }

    /// Whether it is a directory.
    pub const fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    /// The names in a directory; none in anything else.
    pub fn children(&self) -> impl Iterator<Item = (&Name, InodeId)> {
        let map = match &self.kind {
            Kind::Directory(map) => Some(map),
            _ => None,
        };
        map.into_iter().flatten().map(|(name, id)| (name, *id))
    }
}

/// Where a composefs image finds a content: the path below the data layer, and the fs-verity digest if it is to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// `xx/yyyy….file`, without a leading `/`.
    pub redirect: String,
    /// The fs-verity digest of the content: 32 bytes for SHA-256, 64 for SHA-512.
    pub digest: Option<Box<[u8]>>,
}

/// Where a composefs image has the content of a regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// In the image itself.
    Inside(Box<[u8]>),
    /// In the data layer.
    Outside(Payload),
}

/// What the kernel checks each block of a regular file against: fs-verity, blocks of 4096 bytes and no salt.
///
/// It belongs to an inode, not to its metadata: a copy of a file has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verity {
    /// What the kernel measures, and composefs asks for: 32 bytes for SHA-256, 64 for SHA-512.
    pub digest: Box<[u8]>,
    /// The hash at the top of the tree of hashes, as long as the digest; zero for an empty file.
    pub root_hash: Box<[u8]>,
    /// The levels of the tree, whole blocks each, from the single block at the top down; none for a file of one block or less.
    pub levels: Box<[Content]>,
}

impl Verity {
    /// Bytes that a file system keeps of it: the levels, and a block that tells of the tree.
    pub fn size(&self) -> u64 {
        self.levels.iter().map(|level| level.size).sum::<u64>() + 4096
    }
}

/// A file tree.
#[derive(Clone, Debug)]
pub struct Tree {
    inodes: Vec<Inode>,
    verity: BTreeMap<InodeId, Verity>,
    /// Fractions of the times of the few inodes that have one.
    nanoseconds: BTreeMap<InodeId, u32>,
}

impl Tree {
    /// The root directory.
    pub const ROOT: InodeId = InodeId(0);

    /// An empty root directory.
    pub fn new(root: Metadata) -> Self {
        let root = Inode { metadata: root, kind: Kind::directory() };
        Self { inodes: vec![root], verity: BTreeMap::new(), nanoseconds: BTreeMap::new() }
    }

    /// How many inodes the table has, named or not.
    pub fn inode_count(&self) -> usize {
        self.inodes.len()
    }

    /// An inode.
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.index()]
    }

    /// An inode, to change it. Do not change a directory's names through it: `link` and `unlink` do that.
    pub fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        &mut self.inodes[id.index()]
    }

    /// The fs-verity of a regular file, if it has it.
    pub fn verity(&self, id: InodeId) -> Option<&Verity> {
        self.verity.get(&id)
    }

    /// Gives fs-verity to a regular file, whose content must not change from then on.
    pub fn set_verity(&mut self, id: InodeId, verity: Verity) {
        assert!(matches!(self.inode(id).kind, Kind::File(_)), "fs-verity is for regular files");
        self.verity.insert(id, verity);
    }

    /// The fraction of an inode's time, in nanoseconds: 0 unless somebody set it. Only composefs' own images keep it.
    pub fn nanoseconds(&self, id: InodeId) -> u32 {
        self.nanoseconds.get(&id).copied().unwrap_or(0)
    }

    /// Sets the fraction of an inode's time, in nanoseconds.
    pub fn set_nanoseconds(&mut self, id: InodeId, nanoseconds: u32) {
        if nanoseconds == 0 {
            self.nanoseconds.remove(&id);
        } else {
            self.nanoseconds.insert(id, nanoseconds);
        }
    }

    /// Adds an inode that has no name yet.
    pub fn add(&mut self, metadata: Metadata, kind: Kind) -> InodeId {
        let id = InodeId(u32::try_from(self.inodes.len()).expect("fewer than 2^32 inodes"));
        self.inodes.push(Inode { metadata, kind });
        id
    }

    /// Names an inode in a directory, replacing what had the name; returns what was replaced.
    pub fn link(&mut self, directory: InodeId, name: &[u8], inode: InodeId) -> Option<InodeId> {
        self.names_mut(directory).insert(name.into(), inode)
    }

    /// Takes a name away; the inode stays in the table.
    pub fn unlink(&mut self, directory: InodeId, name: &[u8]) -> Option<InodeId> {
        self.names_mut(directory).remove(name)
    }

    /// Adds and names an inode.
    pub fn create(
        &mut self,
        directory: InodeId,
        name: &[u8],
        metadata: Metadata,
        kind: Kind,
    ) -> InodeId {
        let id = self.add(metadata, kind);
        self.link(directory, name, id);
        id
    }

    /// What has this name in this directory.
    pub fn lookup(&self, directory: InodeId, name: &[u8]) -> Option<InodeId> {
        match &self.inode(directory).kind {
            Kind::Directory(names) => names.get(name).copied(),
            _ => None,
        }
    }

    /// What has this path (`usr/lib/modules`; a leading `/` is ignored), not following symbolic links.
    pub fn find(&self, path: &str) -> Option<InodeId> {
        components(path.as_bytes())
            .try_fold(Self::ROOT, |directory, name| self.lookup(directory, name))
    }

    /// What a path leads to when symbolic links are followed inside the tree, as `chroot` would. Where a tree has no `/etc`, as
    /// ostree's commits have not, what is looked for there is found in `/usr/etc`.
    pub fn resolve(&self, path: &str) -> Option<InodeId> {
        let mut left: Vec<Name> = components(path.as_bytes()).map(Into::into).rev().collect();
        let mut above = vec![Self::ROOT];
        // Linux gives up after 40 links, too.
        let mut links = 40;
        while let Some(name) = left.pop() {
            if &*name == b".." {
                if above.len() > 1 {
                    above.pop();
                }
                continue;
            }
            let id = match self.lookup(*above.last()?, &name) {
                Some(id) => id,
                None if above.len() == 1 && &*name == b"etc" => {
                    above.push(self.lookup(Self::ROOT, b"usr")?);
                    self.lookup(*above.last()?, b"etc")?
                }
                None => return None,
            };
            match &self.inode(id).kind {
                Kind::Symlink(target) => {
                    links = i32::checked_sub(links, 1).filter(|&left| left > 0)?;
                    if target.starts_with(b"/") {
                        above.truncate(1);
                    }
                    left.extend(components(target).map(Name::from).rev());
                }
                _ => above.push(id),
            }
        }
        above.last().copied()
    }

    /// The content of the regular file that a path leads to, following links.
    pub fn file(&self, path: &str) -> Option<&Content> {
        match &self.inode(self.resolve(path)?).kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    /// The directory of this path, making it and what is missing above it with `metadata`.
    /// Panics if something else is in the way: for trees that we lay out ourselves.
    pub fn make_directories(&mut self, path: &str, metadata: &Metadata) -> InodeId {
        components(path.as_bytes()).fold(Self::ROOT, |directory, name| {
            match self.lookup(directory, name) {
                Some(id) => id,
                None => self.create(directory, name, metadata.clone(), Kind::directory()),
            }
        })
    }

    /// Puts a file at a path that only root owns and nobody writes, making the directories above it: for trees of our own, as
    /// `make_directories`.
    pub fn put(&mut self, path: &str, content: Content) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.make_directories(directory, &Metadata::root(0o755));
        self.create(directory, name.as_bytes(), Metadata::root(0o444), Kind::File(content));
    }

    /// Adds another tree's content to a directory; directories unite, hard links become files of their own. Panics if a name that is
    /// no directory in both is in both.
    pub fn merge(&mut self, source: &Self, into: InodeId) {
        let mut stack = vec![(Self::ROOT, into)];
        while let Some((from, into)) = stack.pop() {
            for (name, id) in source.inode(from).children() {
                let Inode { metadata, kind } = source.inode(id);
                let there = self.lookup(into, name);
                if !source.inode(id).is_directory() {
                    assert!(there.is_none(), "{} comes twice", name.escape_ascii());
                    self.create(into, name, metadata.clone(), kind.clone());
                    continue;
                }
                let copy = there.unwrap_or_else(|| {
                    self.create(into, name, metadata.clone(), Kind::directory())
                });
                stack.push((id, copy));
            }
        }
    }

    /// Every name of the tree with its path, parents first, siblings in bytewise order; the root's path is empty.
    /// An inode with several names comes several times.
    pub fn walk(&self) -> Walk<'_> {
        self.walk_from(Self::ROOT)
    }

    /// Walks through what is below a directory; paths are relative to it.
    pub fn walk_from(&self, directory: InodeId) -> Walk<'_> {
        Walk { tree: self, stack: vec![(Vec::new(), directory)] }
    }

    /// For each inode, by index, how many names it has. A directory counts `.` and each subdirectory's `..`, as `st_nlink` does.
    /// Zero: not reachable from the root.
    pub fn link_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.inodes.len()];
        counts[Self::ROOT.index()] = 2;
        let mut stack = vec![Self::ROOT];
        while let Some(directory) = stack.pop() {
            for (_, child) in self.inode(directory).children() {
                if self.inode(child).is_directory() {
                    counts[child.index()] += 2;
                    counts[directory.index()] += 1;
                    stack.push(child);
                } else {
                    counts[child.index()] += 1;
                }
            }
        }
        counts
    }

    fn names_mut(&mut self, directory: InodeId) -> &mut BTreeMap<Name, InodeId> {
        match &mut self.inodes[directory.index()].kind {
            Kind::Directory(names) => names,
            other => panic!("{other:?} holds no names"),
        }
    }
}

/// The components of a path, without empty ones and `.`.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// See [`Tree::walk`].
#[derive(Debug)]
pub struct Walk<'a> {
    tree: &'a Tree,
    stack: Vec<(Vec<u8>, InodeId)>,
}

impl Iterator for Walk<'_> {
    type Item = (Vec<u8>, InodeId);

    fn next(&mut self) -> Option<Self::Item> {
        let (path, id) = self.stack.pop()?;
        if let Kind::Directory(names) = &self.tree.inode(id).kind {
            for (name, child) in names.iter().rev() {
                let mut below = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(name);
                self.stack.push((below, *child));
            }
        }
        Some((path, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::new(Metadata::root(0o755));
        let usr = tree.make_directories("usr/lib", &Metadata::root(0o755));
        tree.create(usr, b"os-release", Metadata::root(0o644), Kind::File(Content::EMPTY));
        let etc = tree.make_directories("etc", &Metadata::root(0o755));
        tree.create(
            etc,
            b"os-release",
            Metadata::root(0o777),
            Kind::Symlink((*b"../usr/lib/os-release").into()),
        );
        tree.create(
            Tree::ROOT,
            b"lib",
            Metadata::root(0o777),
            Kind::Symlink((*b"/usr/../../usr/lib").into()),
        );
        tree.create(Tree::ROOT, b"loop", Metadata::root(0o777), Kind::Symlink((*b"loop").into()));
        tree
    }

    #[test]
    fn links_are_followed_inside_the_tree_only() {
        let tree = tree();
        let file = tree.find("usr/lib/os-release");
        assert!(file.is_some());
        assert_eq!(tree.resolve("/etc/os-release"), file);
        assert_eq!(tree.resolve("lib/os-release"), file);
        assert_eq!(tree.resolve("loop"), None);
        assert_eq!(tree.find("lib/os-release"), None);
        assert!(tree.file("etc/os-release").is_some());
    }

    #[test]
    fn link_counts_are_those_of_stat() {
        let mut tree = tree();
        let file = tree.find("usr/lib/os-release").unwrap();
        tree.link(Tree::ROOT, b"again", file);
        let counts = tree.link_counts();
        assert_eq!(counts[Tree::ROOT.index()], 4);
        assert_eq!(counts[file.index()], 2);
        assert_eq!(counts[tree.find("usr/lib").unwrap().index()], 2);
    }

    #[test]
    fn walking_meets_parents_first_in_bytewise_order() {
        let paths: Vec<String> =
            tree().walk().map(|(path, _)| String::from_utf8(path).unwrap()).collect();
        assert_eq!(
            paths,
            ["", "etc", "etc/os-release", "lib", "loop", "usr", "usr/lib", "usr/lib/os-release"]
        );
    }

    #[test]
    fn xattrs_are_sorted_and_unique() {
        let mut xattrs = Xattrs::NONE;
        xattrs.set(b"user.b", b"1");
        xattrs.set(b"user.a", b"2");
        xattrs.set(b"user.b", b"3");
        assert_eq!(
            xattrs.iter().collect::<Vec<_>>(),
            [(&b"user.a"[..], &b"2"[..]), (b"user.b", b"3")]
        );
        xattrs.remove(b"user.a");
        xattrs.remove(b"user.b");
        assert_eq!(xattrs, Xattrs::NONE);
    }
}
