//! What a tree needs, wherever it is placed: inodes in the order of their numbers, link counts, forks, and runs of blocks.

use std::ops::Range;

use anyhow::{Context, Result, ensure};

use super::attribute::Attributes;
use super::directory::{Form, Shape};
use super::on_disk::{BLOCK, LITERAL_BYTES};
use crate::content::Content;
use crate::error::{corrupt, unsupported};
use crate::filesystem::linux::{Limits, path};
use crate::tree::{InodeId, Kind, Tree};

/// What a data fork has at least beside attributes, in bytes: the root of a tree of three extents, in eights (`xfs_bmdr_space_calc`).
const LEAST_DATA_FORK: usize = 56;
/// Bytes for a device number: with attributes, the kernel wants exactly these.
const DEVICE_FORK: usize = 8;
/// Bytes of the attribute fork where it is a list of extents.
const ATTRIBUTE_FORK: usize = 40;
/// Files have signed sizes; XFS_SYMLINK_MAXLEN, less its terminator; and Linux reads 9 bits of a major and 18 of a minor number back
/// (`sysv_major`, `sysv_minor`).
const LIMITS: Limits = Limits {
    name: "XFS",
    file: i64::MAX as u64,
    target: 1023,
    device: ((1 << 9) - 1, (1 << 18) - 1),
    way_out: Some("build with --filesystem ext4"),
};
/// The most links (XFS_MAXLINK).
const MAX_LINKS: u32 = i32::MAX as u32;

/// Blocks of the data fork, by block in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Runs {
    One(Range<u64>),
    Many(Box<[Range<u64>]>),
}

impl Runs {
    const NONE: Self = Self::One(0..0);

    fn of(mut runs: Vec<Range<u64>>) -> Self {
        match runs.len() {
            0 => Self::NONE,
            1 => Self::One(runs.remove(0)),
            _ => Self::Many(runs.into()),
        }
    }

    /// In ascending order; none is empty.
    pub(super) fn as_slice(&self) -> &[Range<u64>] {
        match self {
            Self::One(run) if run.is_empty() => &[],
            Self::One(run) => std::slice::from_ref(run),
            Self::Many(runs) => runs,
        }
    }

    /// Blocks of all of them.
    pub(super) fn block_count(&self) -> u64 {
        self.as_slice().iter().map(|run| run.end - run.start).sum()
    }
}

/// One inode.
#[derive(Debug)]
pub(super) struct Counted {
    /// `None`: one of XFS' own.
    pub(super) id: Option<InodeId>,
    /// The directory where it was met first, by place in the census.
    pub(super) parent: u32,
    /// `di_nlink`.
    pub(super) links: u32,
    /// Bytes of the data fork.
    pub(super) room: u16,
    /// Whether its attributes are in the inode.
    pub(super) short_attributes: bool,
    /// Below `/boot`: GRUB reads it, so it has as few extents as can be.
    pub(super) for_boot: bool,
    /// Blocks of the attribute fork.
    pub(super) attribute_blocks: u64,
    pub(super) runs: Runs,
    /// How the entries of a directory are kept; `None` for anything else.
    pub(super) directory: Option<Box<Shape>>,
}

impl Counted {
    fn new(id: Option<InodeId>, parent: u32, for_boot: bool) -> Self {
        Self {
            id,
            parent,
            links: 1,
            room: LITERAL_BYTES as u16,
            short_attributes: false,
            for_boot,
            attribute_blocks: 0,
            runs: Runs::NONE,
            directory: None,
        }
    }

    /// Blocks of both forks; those of a tree of extents are not known yet.
    pub(super) fn block_count(&self) -> u64 {
        self.runs.block_count() + self.attribute_blocks
    }

    /// Bytes at which the attribute fork begins, behind the inode's fields; 0: there is none (`di_forkoff`, in eights).
    pub(super) fn fork_offset(&self) -> usize {
        if self.short_attributes || self.attribute_blocks > 0 { self.room.into() } else { 0 }
    }
}

/// A tree, counted.
#[derive(Debug)]
pub(super) struct Census {
    /// In order of inode numbers: the root, two of XFS' own (for real-time bitmaps), and the children of each directory side by side.
    pub(super) inodes: Vec<Counted>,
    /// Places in `inodes` by the tree's index; only for what has a name.
    pub(super) places: Vec<u32>,
}

/// Inodes that come before those of the tree but its root.
pub(super) const OWN_INODES: usize = 2;

impl Census {
    /// Counts a tree. Fails at what XFS cannot hold, telling its path.
    pub(super) fn of(tree: &Tree) -> Result<Self> {
        let mut census = Self {
            inodes: Vec::with_capacity(tree.inode_count() + OWN_INODES),
            places: vec![u32::MAX; tree.inode_count()],
        };
        census.inodes.push(Counted::new(Some(Tree::ROOT), 0, false));
        census.inodes.extend((0..OWN_INODES).map(|_| Counted::new(None, 0, false)));
        census.places[Tree::ROOT.index()] = 0;
        census.number(tree)?;
        for counted in &mut census.inodes {
            if let Some(id) = counted.id {
                counted
                    .decide(tree, id)
                    .with_context(|| format!("laying out {}", path(tree, id)))?;
            }
        }
        Ok(census)
    }

    fn number(&mut self, tree: &Tree) -> Result<()> {
        let mut stack = vec![0_u32];
        while let Some(place) = stack.pop() {
            let Some(directory) = self.inodes[place as usize].id else { continue };
            let mut below = Vec::new();
            for (name, child) in tree.inode(directory).children() {
                let is_directory = tree.inode(child).is_directory();
                let known = self.places[child.index()];
                if known != u32::MAX {
                    ensure!(!is_directory, corrupt(path(tree, child), "a directory has two names"));
                    self.inodes[known as usize].links += 1;
                    continue;
                }
                let next = u32::try_from(self.inodes.len())
                    .map_err(|_| unsupported("XFS holds fewer than 2^32 inodes here", None))?;
                let boot = place == 0 && &**name == b"boot";
                let for_boot = boot || self.inodes[place as usize].for_boot;
                self.places[child.index()] = next;
                self.inodes.push(Counted::new(Some(child), place, for_boot));
                if is_directory {
                    below.push(next);
                }
            }
            self.inodes[place as usize].links = 2 + below.len() as u32;
            stack.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// The place in the census of what has a name in a directory.
    pub(super) fn place(&self, id: InodeId) -> usize {
        self.places[id.index()] as usize
    }
}

impl Counted {
    /// Divides the inode between its forks, and finds the runs of blocks of its data.
    fn decide(&mut self, tree: &Tree, id: InodeId) -> Result<()> {
        let inode = tree.inode(id);
        LIMITS.check(inode)?;
        if self.links > MAX_LINKS {
            return Err(unsupported("the file has more than 2^31 names", None));
        }
        if tree.verity(id).is_some() {
            return Err(unsupported(
                "XFS cannot store fs-verity",
                Some("build with --filesystem ext4"),
            ));
        }
        let attributes = Attributes::of(&inode.metadata.xattrs)?;
        if !attributes.is_empty() {
            self.divide(&inode.kind, &attributes)?;
        }
        self.runs = match &inode.kind {
            Kind::Directory(_) => {
                let shape = Shape::of(inode, self.room.into())?;
                let runs = if shape.form == Form::Short { Vec::new() } else { shape.runs() };
                self.directory = Some(Box::new(shape));
                Runs::of(runs)
            }
            Kind::Symlink(target) => Runs::One(0..u64::from(target.len() > usize::from(self.room))),
            // Whoever reads /boot in place of the kernel has no trouble with a single extent; holes would divide it.
            Kind::File(content) if self.for_boot => Runs::One(0..content.size.div_ceil(BLOCK)),
            Kind::File(content) => file_runs(content),
            _ => Runs::NONE,
        };
        Ok(())
    }

    fn divide(&mut self, kind: &Kind, attributes: &Attributes) -> Result<()> {
        let short = attributes.short_size().filter(|&size| size <= LITERAL_BYTES);
        let device = matches!(
            kind,
            Kind::CharacterDevice(..) | Kind::BlockDevice(..) | Kind::Fifo | Kind::Socket
        );
        let beside = |size: usize| (LITERAL_BYTES - size) / 8 * 8;
        let least = if device { DEVICE_FORK } else { LEAST_DATA_FORK };
        let short = short.map(beside).filter(|&room| room >= least);
        self.short_attributes = short.is_some();
        let room = match short {
            _ if device => DEVICE_FORK,
            Some(room) => room,
            None => beside(ATTRIBUTE_FORK),
        };
        self.room = room as u16;
        if !self.short_attributes {
            self.attribute_blocks = attributes.block_count()?;
        }
        Ok(())
    }
}

/// The blocks that hold data of a file.
fn file_runs(content: &Content) -> Runs {
    if content.data.is_none() {
        return Runs::One(0..content.size.div_ceil(BLOCK));
    }
    let mut runs: Vec<Range<u64>> = Vec::new();
    for range in content.data_ranges() {
        let (start, end) = (range.start / BLOCK, range.end.div_ceil(BLOCK));
        match runs.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if start <= last.end => last.end = end.max(last.end),
            _ => runs.push(start..end),
        }
    }
    Runs::of(runs)
}
