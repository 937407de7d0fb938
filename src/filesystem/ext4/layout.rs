//! Decides where everything is; `emit` then writes it without deciding anything.

use std::ops::Range;

use anyhow::{Result, ensure};

use super::allocator::Allocator;
use super::census::Census;
use super::extent::FileMap;
use super::geometry::Geometry;
use super::hash::Seed;
use super::on_disk::{BLOCK, BLOCKS_PER_GROUP, MAX_INODES_PER_GROUP};
use super::{Fitted, Options, Usage, Wanted, inode, journal, verity};
use crate::error::unsupported;
use crate::tree::{Kind, Tree};

/// Blocks of lost+found: full directories are hard to extend when a file system is broken, so mke2fs, too, makes it large.
pub(super) const LOST_AND_FOUND_BLOCKS: u64 = 4;
/// Room for a label in the super block.
const LABEL_BYTES: usize = 16;

/// A file system, laid out.
#[derive(Debug)]
pub struct Layout {
    pub(super) options: Options,
    pub(super) geometry: Geometry,
    pub(super) census: Census,
    pub(super) places: Places,
    /// All used blocks, ascending, neighbours joined.
    pub(super) used: Vec<Range<u64>>,
    free: u64,
}

/// Where the things are that have no fixed place.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) journal: FileMap,
    /// The double-indirect block of the resize inode, if the file system has one.
    pub(super) resize: Option<u64>,
    pub(super) lost_and_found: Option<FileMap>,
    /// In the order of `Census::inodes`.
    pub(super) files: Vec<FileMap>,
    /// In the order of `Census::shared`.
    pub(super) xattrs: Vec<u64>,
}

impl Layout {
    /// Places a tree in a file system of `options.size` bytes. Fails with `Unsupported` or `Corrupt` if ext4 cannot hold
    /// something in the tree, and plainly if the size does not suffice.
    pub fn of(tree: &Tree, options: &Options) -> Result<Self> {
        check(options)?;
        let census = Census::of(tree, Seed::new(&options.hash_seed))?;
        let geometry = Geometry::of(options.size, options.inode_count)?;
        let (needs, has) = (census.last_number(), geometry.inode_count());
        ensure!(
            needs <= has,
            "the content does not fit: it needs {needs} inodes, and there are {has}"
        );
        let mut allocator = Allocator::new(&geometry);
        let places = place(tree, &census, &geometry, options.journal_blocks, &mut allocator);
        allocator.check()?;
        let used = allocator.used(&geometry);
        Ok(Self {
            options: options.clone(),
            geometry,
            census,
            places,
            used,
            free: allocator.free(),
        })
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let inodes = self.geometry.inode_count();
        Usage {
            blocks: self.geometry.blocks,
            free_blocks: self.free,
            inodes,
            free_inodes: inodes - self.census.last_number(),
        }
    }
}

/// The least size for a tree and the room wanted besides; and inodes and journal as mke2fs chooses them for that size.
/// Bytes and inodes are what the file system will report as free, what is reserved for root included.
pub fn fit(tree: &Tree, wanted: &Wanted) -> Result<Fitted> {
    ensure!(wanted.bytes_per_inode > 0, "bytes per inode must not be zero");
    let census = Census::of(tree, Seed::new(&wanted.hash_seed))?;
    let free = wanted.free_bytes.div_ceil(BLOCK);
    let inodes = census.last_number().saturating_add(wanted.free_inodes);
    // Groups that the inodes alone need, all but the last whole.
    let groups = u64::from(inodes.div_ceil(MAX_INODES_PER_GROUP));
    let mut blocks = ((groups - 1) * BLOCKS_PER_GROUP).max(super::MINIMUM_SIZE / BLOCK);
    let mut refusals = 0;
    loop {
        let size = blocks
            .checked_mul(BLOCK)
            .filter(|&size| size < super::MAXIMUM_SIZE)
            .ok_or_else(|| unsupported("the content is larger than an ext4 file system", None))?;
        let by_size = u32::try_from(size / wanted.bytes_per_inode).unwrap_or(u32::MAX);
        let inode_count = inodes.max(by_size);
        let geometry = match Geometry::of(size, inode_count) {
            Ok(geometry) => geometry,
            // So many inodes want another group, large enough for its tables; if even a whole one does not help, nothing does.
            Err(error) if refusals > BLOCKS_PER_GROUP => return Err(error),
            Err(_) => {
                refusals += 1;
                blocks += 1;
                continue;
            }
        };
        let journal_blocks = journal::default_blocks(size);
        let mut allocator = Allocator::new(&geometry);
        place(tree, &census, &geometry, journal_blocks, &mut allocator);
        // Each round adds what the last one lacked: metadata grows with the size, so that this does not go too far.
        match allocator.lacking() + free.saturating_sub(allocator.free()) {
            0 => return Ok(Fitted { size, inode_count, journal_blocks }),
            lacking => blocks = geometry.grown_by(lacking).max(blocks + 1),
        }
    }
}

/// Takes blocks for everything: the journal, then directories (so that walking the tree reads one stretch of the disk), then
/// the rest in the order of inode numbers. Never fails: the allocator counts what is lacking.
fn place(
    tree: &Tree,
    census: &Census,
    geometry: &Geometry,
    journal_blocks: u32,
    allocator: &mut Allocator,
) -> Places {
    let journal = FileMap::whole(journal_blocks.into(), allocator);
    let resize = (geometry.reserved_descriptor_blocks > 0).then(|| allocator.take_one());
    let lost_and_found =
        census.adds_lost_and_found.then(|| FileMap::whole(LOST_AND_FOUND_BLOCKS, allocator));
    let mut files = vec![FileMap::default(); census.inodes.len()];
    for (map, counted) in files.iter_mut().zip(&census.inodes) {
        if counted.directory_blocks > 0 {
            *map = FileMap::whole(counted.directory_blocks, allocator);
        }
    }
    let xattrs = census.shared.iter().map(|_| allocator.take_one()).collect();
    for (map, counted) in files.iter_mut().zip(&census.inodes) {
        match &tree.inode(counted.id).kind {
            Kind::File(content) => {
                let ranges = verity::block_ranges(content, tree.verity(counted.id));
                *map = FileMap::allocate(ranges.into_iter(), allocator);
            }
            Kind::Symlink(target) => {
                *map = FileMap::whole(inode::symlink_blocks(target), allocator);
            }
            _ => {}
        }
    }
    Places { journal, resize, lost_and_found, files, xattrs }
}

/// Refuses options that no file system can have.
fn check(options: &Options) -> Result<()> {
    let label = &options.label;
    if label.len() > LABEL_BYTES || label.contains('\0') {
        return Err(unsupported(
            format!("the label \"{}\" does not fit into ext4's 16 bytes", label.escape_debug()),
            None,
        ));
    }
    if !(0..1 << 40).contains(&options.time) {
        return Err(unsupported(format!("ext4 cannot be made at second {}", options.time), None));
    }
    ensure!(options.reserved_percent <= 50, "ext4 reserves at most 50 percent of its blocks");
    ensure!(
        options.journal_blocks >= journal::MIN_BLOCKS,
        "an ext4 journal has at least {} blocks",
        journal::MIN_BLOCKS
    );
    Ok(())
}
