//! What a tree needs, wherever it is placed: inode numbers, link counts, and blocks of directories and attributes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::directory::{Directory, Named};
use super::hash::Seed;
use super::inode;
use super::on_disk::{FIRST_INODE, ROOT_INODE};
use super::verity;
use super::xattr::{self, MAX_REFERENCES};
use crate::error::{corrupt, unsupported};
use crate::filesystem::linux::{TYPE_DIRECTORY, file_type, path};
use crate::tree::{InodeId, Kind, Tree};

/// e2fsck puts what lost its name there.
pub(super) const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Beyond this many links a directory's count is not kept: the feature dir_nlink.
const MAX_DIRECTORY_LINKS: u32 = 65_000;

/// One inode of the tree that has a name.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) id: InodeId,
    pub(super) number: u32,
    /// The inode number of the directory where it was met first.
    pub(super) parent: u32,
    /// `i_links_count`.
    pub(super) links: u16,
    /// Blocks of a directory; 0 for anything else.
    pub(super) directory_blocks: u64,
    /// Which of `Census::shared` it uses.
    pub(super) xattrs: Option<usize>,
}

/// A block of extended attributes.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) bytes: Vec<u8>,
    /// How many inodes use it: 1 to 1024.
    pub(super) references: u32,
}

/// A tree, counted.
#[derive(Debug)]
pub(super) struct Census {
    /// In order of inode numbers; the root first.
    pub(super) inodes: Vec<Counted>,
    /// Inode numbers by the tree's index; 0 for what has no name.
    pub(super) numbers: Vec<u32>,
    pub(super) shared: Vec<Shared>,
    /// Whether a lost+found is to be added; not if the tree has one.
    pub(super) adds_lost_and_found: bool,
}

impl Census {
    /// Numbers everything in the order of `Tree::walk`, and counts. Fails at what ext4 cannot hold, telling its path.
    pub(super) fn of(tree: &Tree, seed: Seed) -> Result<Self> {
        let adds_lost_and_found = match tree.lookup(Tree::ROOT, LOST_AND_FOUND) {
            None => true,
            Some(id) if tree.inode(id).is_directory() => false,
            Some(_) => {
                return Err(unsupported("/lost+found is not a directory, as ext4 needs it", None));
            }
        };
        let first = FIRST_INODE + u32::from(adds_lost_and_found);
        let mut census = Self {
            inodes: Vec::with_capacity(tree.inode_count()),
            numbers: vec![0; tree.inode_count()],
            shared: Vec::new(),
            adds_lost_and_found,
        };
        let links = census.number(tree, first)?;
        let mut latest = BTreeMap::new();
        for index in 0..census.inodes.len() {
            let id = census.inodes[index].id;
            census
                .count(tree, seed, index, links[id.index()], &mut latest)
                .with_context(|| format!("laying out {}", path(tree, id)))?;
        }
        Ok(census)
    }

    /// The highest inode number in use.
    pub(super) fn last_number(&self) -> u32 {
        let last = self.inodes.last().map_or(0, |last| last.number);
        last.max(FIRST_INODE - u32::from(!self.adds_lost_and_found))
    }

    /// Gives numbers; returns how many names each inode has, and for directories how many directories are in it.
    fn number(&mut self, tree: &Tree, first: u32) -> Result<Vec<u32>> {
        let mut links = vec![0_u32; tree.inode_count()];
        let mut next = first;
        let mut stack = vec![(Tree::ROOT, ROOT_INODE)];
        while let Some((id, parent)) = stack.pop() {
            let directory = tree.inode(id).is_directory();
            if self.numbers[id.index()] != 0 {
                ensure!(!directory, corrupt(path(tree, id), "a directory has two names"));
                links[id.index()] += 1;
                continue;
            }
            let number = if id == Tree::ROOT { ROOT_INODE } else { next };
            if id != Tree::ROOT {
                next = next
                    .checked_add(1)
                    .ok_or_else(|| unsupported("ext4 holds fewer than 2^32 inodes", None))?;
            }
            self.numbers[id.index()] = number;
            let counted =
                Counted { id, number, parent, links: 0, directory_blocks: 0, xattrs: None };
            self.inodes.push(counted);
            if directory {
                let start = stack.len();
                stack.extend(tree.inode(id).children().map(|(_, child)| (child, number)));
                stack[start..].reverse();
                links[id.index()] = stack[start..]
                    .iter()
                    .filter(|(child, _)| tree.inode(*child).is_directory())
                    .count() as u32;
            } else {
                links[id.index()] = 1;
            }
        }
        if self.adds_lost_and_found {
            links[Tree::ROOT.index()] += 1;
        }
        Ok(links)
    }

    /// Fills in the rest of one inode. `latest` is the last block with the same attributes, which may still have room for a
    /// reference.
    fn count(
        &mut self,
        tree: &Tree,
        seed: Seed,
        index: usize,
        links: u32,
        latest: &mut BTreeMap<Vec<u8>, usize>,
    ) -> Result<()> {
        let id = self.inodes[index].id;
        let inode = tree.inode(id);
        inode::LIMITS.check(inode)?;
        if let (Kind::File(content), Some(verity)) = (&inode.kind, tree.verity(id)) {
            verity::check(content, verity)?;
        }
        let directory_blocks =
            if inode.is_directory() { self.directory(tree, id, seed)?.block_count() } else { 0 };
        let counted = &mut self.inodes[index];
        counted.directory_blocks = directory_blocks;
        counted.links = if inode.is_directory() {
            match links.saturating_add(2) {
                links @ ..=MAX_DIRECTORY_LINKS => links as u16,
                // "Not counted".
                _ => 1,
            }
        } else if links > inode::MAX_LINKS {
            return Err(unsupported(
                format!("the file has {links} names, and ext4 allows {}", inode::MAX_LINKS),
                None,
            ));
        } else {
            links as u16
        };
        let Some(bytes) = xattr::encode(&inode.metadata.xattrs)?.block else { return Ok(()) };
        let shared = match latest.get(&bytes) {
            Some(&shared) if self.shared[shared].references < MAX_REFERENCES => shared,
            _ => {
                let shared = self.shared.len();
                self.shared.push(Shared { bytes: bytes.clone(), references: 0 });
                latest.insert(bytes, shared);
                shared
            }
        };
        self.shared[shared].references += 1;
        self.inodes[index].xattrs = Some(shared);
        Ok(())
    }

    /// The blocks of a directory of the tree, whose numbers are given already.
    pub(super) fn directory<'a>(
        &self,
        tree: &'a Tree,
        id: InodeId,
        seed: Seed,
    ) -> Result<Directory<'a>> {
        let mut names: Vec<Named> = tree
            .inode(id)
            .children()
            .map(|(name, child)| Named {
                name,
                number: self.numbers[child.index()],
                file_type: file_type(&tree.inode(child).kind),
            })
            .collect();
        if id == Tree::ROOT && self.adds_lost_and_found {
            let file_type = TYPE_DIRECTORY;
            names.push(Named { name: LOST_AND_FOUND, number: FIRST_INODE, file_type });
        }
        Directory::of(names, seed)
    }
}
