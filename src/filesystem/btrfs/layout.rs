//! Decides where everything is; `emit` then writes it without deciding anything.
//!
//! The trees of extents, of free space and of roots describe blocks that are counted only when these trees are: they are laid out
//! again and again, each time with the blocks that were lacking, until nothing is.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail, ensure};

use super::census::Census;
use super::compress::{Compression, Job, Packed, Piece, store};
use super::items::{self, is_inline};
use super::leaves::Leaves;
use super::on_disk::{NODE, SECTOR, group, tree};
use super::space::{Lacking, Space};
use super::trees::Uuids;
use super::{Formatted, MINIMUM_SIZE, Options, Volumes, Wanted};
use crate::content::{Content, ContentStore};
use crate::error::unsupported;
use crate::tree::Kind;

const MIB: u64 = 1 << 20;
/// What is not compressed is cut into extents of this size: `BTRFS_MAX_EXTENT_SIZE`.
const MAX_EXTENT: u64 = 128 * MIB;
/// Room for a label in the superblock, with a zero behind it.
const LABEL_BYTES: usize = 255;
/// A device on which everything fits, to count what that is.
const ENDLESS: u64 = 1 << 60;
/// Room for metadata on it: that of hundreds of millions of files.
const ENDLESS_METADATA: u64 = 1 << 38;
/// Rounds after which the trees that describe each other must have settled; three do.
const ROUNDS: u32 = 32;

/// Subvolumes, counted, with files compressed: all that does not depend on the size of the file system.
#[derive(Debug)]
pub struct Prepared<'a> {
    pub(super) volumes: Vec<Census<'a>>,
    /// Number of the default subvolume, if it is not the top.
    pub(super) default_volume: Option<u64>,
    pub(super) contents: &'a ContentStore,
    /// How files are stored, by subvolume and index in its census; nothing of those without extents.
    files: Vec<Vec<Arc<Vec<Piece>>>>,
    /// Bytes of all blocks of trees, in one copy; a few more or less on devices of other sizes.
    metadata: u64,
}

/// A stretch of a file on the device.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    /// Index of the subvolume.
    pub(super) volume: usize,
    /// Number of the inode.
    pub(super) inode: u64,
    /// Offset in the file.
    pub(super) start: u64,
    /// Bytes of the file.
    pub(super) length: u64,
    /// Logical address.
    pub(super) place: u64,
    /// Bytes on the device.
    pub(super) stored: u64,
    /// `None`: as they are.
    pub(super) packed: Option<Packed>,
}

/// Why something has no place.
#[derive(Debug)]
enum Unplaced {
    /// The device is too small, by so many bytes at least.
    Device(u64),
    /// The chunks for metadata are too small.
    Metadata,
    Failed(anyhow::Error),
}

impl From<Lacking> for Unplaced {
    fn from(lacking: Lacking) -> Self {
        match lacking {
            Lacking::Device(bytes) => Self::Device(bytes),
            Lacking::Metadata => Self::Metadata,
        }
    }
}

impl From<anyhow::Error> for Unplaced {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// The blocks of a tree.
#[derive(Clone, Debug)]
pub(super) struct TreeBlocks {
    pub(super) number: u64,
    /// How many there are of each level, leaves first.
    pub(super) levels: Vec<u64>,
    /// Logical addresses, of the leaves first; empty until they are placed.
    pub(super) places: Vec<u64>,
}

impl TreeBlocks {
    pub(super) fn count(&self) -> u64 {
        self.levels.iter().sum()
    }

    pub(super) fn level(&self) -> u8 {
        self.levels.len() as u8 - 1
    }

    /// Where its root is; 0 before it is placed.
    pub(super) fn root(&self) -> u64 {
        self.places.last().copied().unwrap_or(0)
    }
}

/// A file system, laid out.
#[derive(Debug)]
pub(super) struct Placed<'p> {
    pub(super) prepared: &'p Prepared<'p>,
    pub(super) options: Options,
    pub(super) uuids: Uuids,
    pub(super) space: Space,
    /// In the order of places, which is that of subvolumes, inodes and offsets.
    pub(super) extents: Vec<Extent>,
    /// By subvolume and index in its census: where in `extents` those of the inode begin; one more at the end.
    first_extents: Vec<Vec<usize>>,
    /// In the order of places: chunks, subvolumes, then what describes all of them.
    pub(super) trees: Vec<TreeBlocks>,
}

impl<'a> Prepared<'a> {
    /// Counts, and compresses what is to be compressed, with all cores; what comes of that goes into `contents`. Fails with
    /// `Unsupported` or `Corrupt` if btrfs cannot hold something.
    pub fn of(volumes: &Volumes<'a>, contents: &'a ContentStore) -> Result<Self> {
        let census = Census::of_all(volumes)?;
        let files = census.iter().map(|volume| files(volume, contents)).collect::<Result<_>>()?;
        let default_volume = volumes.default.map(|index| tree::FIRST_FREE + index as u64);
        let mut prepared = Self { volumes: census, default_volume, contents, files, metadata: 0 };
        prepared.metadata = prepared.measure()?;
        Ok(prepared)
    }

    /// The least size for the content and the room wanted besides, in whole MiB.
    pub fn fit(&self, wanted: &Wanted) -> Result<u64> {
        let copies = if wanted.duplicate { 2 } else { 1 };
        let least = self.data() + copies * self.metadata + wanted.free_bytes;
        let mut options = Options {
            size: least.next_multiple_of(MIB).max(MINIMUM_SIZE),
            uuid: uuid::Uuid::nil(),
            label: String::new(),
            duplicate: wanted.duplicate,
            block_group_tree: wanted.block_group_tree,
            time: 0,
        };
        loop {
            if options.size >= ENDLESS / 2 {
                return Err(unsupported("the content is larger than a btrfs file system", None));
            }
            let lacking = match self.place(&options) {
                Ok(placed) => wanted.free_bytes.saturating_sub(placed.free()),
                Err(Unplaced::Failed(error)) => return Err(error),
                Err(Unplaced::Device(bytes)) => bytes.max(1),
                Err(Unplaced::Metadata) => unreachable!("`place` makes room for metadata"),
            };
            if lacking == 0 {
                return Ok(options.size);
            }
            options.size += lacking.next_multiple_of(MIB);
        }
    }

    /// Writes the file system. Fails if the size does not suffice.
    pub fn format(&self, options: &Options) -> Result<Formatted> {
        check(options)?;
        match self.place(options) {
            Ok(placed) => placed.emit(),
            Err(Unplaced::Failed(error)) => Err(error),
            Err(Unplaced::Metadata) => unreachable!("`place` makes room for metadata"),
            Err(Unplaced::Device(bytes)) => bail!(
                "the content does not fit: {} MiB are too few by {} MiB or more",
                options.size / MIB,
                bytes.div_ceil(MIB)
            ),
        }
    }

    /// Bytes that all files take on the device; those that are inline take none.
    pub fn data(&self) -> u64 {
        self.files.iter().flatten().flat_map(|pieces| &**pieces).map(stored).sum()
    }

    /// Whether files are compressed in such a way, or will be.
    pub(super) fn compresses(&self, how: fn(Compression) -> bool) -> bool {
        self.volumes.iter().filter_map(|volume| volume.compression).any(how)
    }

    pub(super) fn has_verity(&self) -> bool {
        let mut all = self
            .volumes
            .iter()
            .flat_map(|volume| volume.inodes.iter().map(|counted| volume.tree.verity(counted.id)));
        all.any(|verity| verity.is_some())
    }

    /// Bytes of all blocks of trees on a device on which everything fits.
    fn measure(&self) -> Result<u64> {
        let options = Options {
            size: ENDLESS,
            uuid: uuid::Uuid::nil(),
            label: String::new(),
            duplicate: false,
            block_group_tree: true,
            time: 0,
        };
        match Placed::of(self, &options, ENDLESS_METADATA) {
            Ok(placed) => Ok(placed.trees.iter().map(TreeBlocks::count).sum::<u64>() * NODE),
            Err(Unplaced::Failed(error)) => Err(error),
            Err(_) => Err(unsupported("the content is larger than a btrfs file system", None)),
        }
    }

    fn place(&self, options: &Options) -> Result<Placed<'_>, Unplaced> {
        // Half as much again: the kernel writes blocks anew before it gives up the old ones, and balancing needs room, too.
        let mut metadata = self.metadata + self.metadata / 2 + MIB;
        loop {
            match Placed::of(self, options, metadata) {
                Err(Unplaced::Metadata) => metadata += 16 * MIB,
                other => return other,
            }
        }
    }
}

/// How the files of a subvolume are stored, by index in its census.
fn files(volume: &Census<'_>, contents: &ContentStore) -> Result<Vec<Arc<Vec<Piece>>>> {
    let mut indices = Vec::new();
    let mut jobs = Vec::new();
    for index in 0..volume.inodes.len() {
        if let Some(content) = content_of(volume, index).filter(|content| !is_inline(content)) {
            indices.push(index);
            jobs.push(Job { content, how: volume.compression });
        }
    }
    let mut files = vec![Arc::default(); volume.inodes.len()];
    for (index, pieces) in indices.into_iter().zip(store(&jobs, contents)?) {
        files[index] = pieces;
    }
    Ok(files)
}

/// The content of an inode of a subvolume, by its index in the census; `None`: it is not a regular file.
pub(super) fn content_of<'c>(volume: &Census<'c>, index: usize) -> Option<&'c Content> {
    match &volume.tree.inode(volume.inodes[index].id).kind {
        Kind::File(content) => Some(content),
        _ => None,
    }
}

/// Bytes of a piece on the device.
fn stored(piece: &Piece) -> u64 {
    match &piece.packed {
        Some(packed) => u64::from(packed.size).next_multiple_of(SECTOR),
        None => piece.length,
    }
}

/// Refuses options that no file system can have.
fn check(options: &Options) -> Result<()> {
    let label = &options.label;
    if label.len() > LABEL_BYTES || label.contains(['\0', '\n']) {
        return Err(unsupported(
            format!("the label \"{}\" does not fit into btrfs' 255 bytes", label.escape_debug()),
            Some("use a shorter label, of one line"),
        ));
    }
    ensure!(
        options.size >= MINIMUM_SIZE,
        "a btrfs of {} bytes is too small: the least are {} MiB",
        options.size,
        MINIMUM_SIZE / MIB
    );
    Ok(())
}

impl<'p> Placed<'p> {
    fn of(prepared: &'p Prepared<'p>, options: &Options, metadata: u64) -> Result<Self, Unplaced> {
        let copies = if options.duplicate { 2 } else { 1 };
        let size = options.size / SECTOR * SECTOR;
        let mut placed = Self {
            prepared,
            options: options.clone(),
            uuids: Uuids::of(options.uuid),
            space: Space::new(size, metadata, copies)?,
            extents: Vec::new(),
            first_extents: Vec::new(),
            trees: Vec::new(),
        };
        placed.place_files()?;
        placed.place_trees()?;
        Ok(placed)
    }

    /// Bytes that data may still take.
    pub(super) fn free(&self) -> u64 {
        let in_chunks = self.space.chunks.iter().filter(|chunk| chunk.kind == group::DATA);
        self.space.unallocated() + in_chunks.map(|chunk| chunk.length - chunk.used()).sum::<u64>()
    }

    /// Where the bytes of an inode are, by subvolume and index in its census.
    fn extents_of(&self, volume: usize, index: usize) -> &[Extent] {
        let first = &self.first_extents[volume];
        &self.extents[first[index]..first[index + 1]]
    }

    fn place_files(&mut self) -> Result<(), Unplaced> {
        let mut left = self.prepared.data();
        for (volume, files) in self.prepared.files.iter().enumerate() {
            let mut first = Vec::with_capacity(files.len() + 1);
            for (inode, pieces) in (tree::FIRST_FREE..).zip(files) {
                first.push(self.extents.len());
                for piece in &**pieces {
                    // All that is left has no place either.
                    self.place_piece(volume, inode, piece).map_err(|lacking| match lacking {
                        Lacking::Device(bytes) => Unplaced::Device(bytes.max(left)),
                        other => other.into(),
                    })?;
                    left -= stored(piece);
                }
            }
            first.push(self.extents.len());
            self.first_extents.push(first);
        }
        Ok(())
    }

    fn place_piece(&mut self, volume: usize, inode: u64, piece: &Piece) -> Result<(), Lacking> {
        if let Some(packed) = &piece.packed {
            let got = self.space.take_data(stored(piece), true)?;
            self.extents.push(Extent {
                volume,
                inode,
                start: piece.start,
                length: piece.length,
                place: got.start,
                stored: got.end - got.start,
                packed: Some(packed.clone()),
            });
            return Ok(());
        }
        let Range { mut start, end } = piece.start..piece.start + piece.length;
        while start < end {
            let got = self.space.take_data(MAX_EXTENT.min(end - start), false)?;
            let length = got.end - got.start;
            let (place, stored) = (got.start, length);
            self.extents.push(Extent { volume, inode, start, length, place, stored, packed: None });
            start += length;
        }
        Ok(())
    }

    /// Takes room for the blocks of all trees.
    fn place_trees(&mut self) -> Result<(), Unplaced> {
        let volumes = self.prepared.volumes.iter().map(|volume| volume.number);
        let mut fixed: Vec<u64> = std::iter::once(tree::CHUNK).chain(volumes).collect();
        fixed.extend([tree::CHECKSUM, tree::UUID, tree::DATA_RELOCATION, tree::DEVICE]);
        if self.options.block_group_tree {
            fixed.push(tree::BLOCK_GROUP);
        }
        let mut wanted = Vec::new();
        for number in fixed {
            wanted.push((number, self.count(number)?));
        }
        let describing = [tree::EXTENT, tree::FREE_SPACE, tree::ROOT];
        wanted.extend(describing.map(|number| (number, vec![1])));
        let before = self.space.clone();
        for _ in 0..ROUNDS {
            self.space = before.clone();
            self.trees.clear();
            for (number, levels) in &wanted {
                let count = levels.iter().sum::<u64>();
                let places = (0..count).map(|_| self.space.take_block(*number == tree::CHUNK));
                let places = places.collect::<Result<_, _>>()?;
                self.trees.push(TreeBlocks { number: *number, levels: levels.clone(), places });
            }
            let mut settled = true;
            for (number, levels) in wanted.iter_mut().rev().take(describing.len()) {
                let counted = self.count(*number)?;
                settled &= counted == *levels;
                *levels = counted;
            }
            if settled {
                return Ok(());
            }
        }
        Err(anyhow!("the trees of a btrfs that describe each other do not settle").into())
    }

    /// Blocks of a tree, by level.
    fn count(&self, number: u64) -> Result<Vec<u64>> {
        let mut leaves = Leaves::counting();
        self.items(number, &[], &mut leaves)?;
        Ok(leaves.levels())
    }

    /// Gives all items of a tree. `sums`: checksums of all sectors of data; nobody asks for them while counting.
    pub(super) fn items(&self, number: u64, sums: &[u32], leaves: &mut Leaves<'_>) -> Result<()> {
        match number {
            tree::ROOT => self.root_items(leaves),
            tree::EXTENT => self.extent_items(leaves),
            tree::CHUNK => self.chunk_items(leaves),
            tree::DEVICE => self.device_items(leaves),
            tree::CHECKSUM => self.checksum_items(sums, leaves),
            tree::UUID => self.uuid_items(leaves),
            tree::FREE_SPACE => self.free_items(leaves),
            tree::BLOCK_GROUP => self.group_items(leaves),
            tree::DATA_RELOCATION => items::empty_root(self.options.time, leaves),
            _ => {
                let mut volumes = self.prepared.volumes.iter();
                let volume = volumes.position(|volume| volume.number == number);
                let volume = volume.expect("every other tree is a subvolume");
                items::subvolume(
                    &self.prepared.volumes[volume],
                    |index| self.extents_of(volume, index),
                    self.prepared.contents,
                    leaves,
                )
            }
        }
    }
}
