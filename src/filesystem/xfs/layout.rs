//! Decides where everything is; `emit` then writes it without deciding anything.

use std::ops::Range;

use anyhow::{Result, bail, ensure};

use super::allocator::{Finished, Group, SET_ASIDE};
use super::btree::{OFFSET_ATTRIBUTE, OFFSET_NODE};
use super::census::{Census, Counted};
use super::extent::{self, Piece};
use super::geometry::{Geometry, Place};
use super::on_disk::{BLOCK, INODES_PER_BLOCK, MAX_EXTENT};
use super::{LONGEST_LABEL, MAXIMUM_SIZE, MINIMUM_SIZE, Options, Usage, Wanted};
use crate::error::unsupported;
use crate::tree::Tree;

/// Sizes are tried in steps of so many bytes: partitions have no others.
const STEP: u64 = 1 << 20;
/// What the kernel keeps for operations that must not fail: a twentieth of the blocks, at most so many (`xfs_default_resblks`).
const MAX_RESERVED: u64 = 8192;

/// A file system, laid out.
#[derive(Debug)]
pub struct Layout {
    pub(super) options: Options,
    pub(super) geometry: Geometry,
    pub(super) census: Census,
    pub(super) places: Places,
}

/// Where each inode is, and its blocks.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) group: u32,
    /// `di_ino`.
    pub(super) number: u64,
    data: Range<u32>,
    attributes: Range<u32>,
    nodes: Range<u32>,
}

/// Where the things are that have no fixed place.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) groups: Vec<Finished>,
    /// In the order of `Census::inodes`.
    pub(super) inodes: Vec<Placed>,
    pieces: Vec<Piece>,
    nodes: Vec<Place>,
}

impl Places {
    /// The extents of a data fork.
    pub(super) fn data(&self, placed: &Placed) -> &[Piece] {
        &self.pieces[placed.data.start as usize..placed.data.end as usize]
    }

    /// The extents of an attribute fork.
    pub(super) fn attributes(&self, placed: &Placed) -> &[Piece] {
        &self.pieces[placed.attributes.start as usize..placed.attributes.end as usize]
    }

    /// The blocks of a tree of extents.
    pub(super) fn nodes(&self, placed: &Placed) -> &[Place] {
        &self.nodes[placed.nodes.start as usize..placed.nodes.end as usize]
    }
}

impl Layout {
    /// Places a tree in a file system of `options.size` bytes. Fails with `Unsupported` or `Corrupt` if XFS cannot hold something in the
    /// tree, and plainly if the size does not suffice.
    pub fn of(tree: &Tree, options: &Options) -> Result<Self> {
        check(options)?;
        let geometry = Geometry::of(options)?;
        let census = Census::of(tree)?;
        let places = match Placing::run(&census, &geometry)? {
            Placing { lacking: 0, places, .. } => places,
            Placing { lacking, .. } => {
                let needs = geometry.blocks + lacking;
                bail!(
                    "the content does not fit: it needs at least {needs} blocks of 4096 bytes, and there are {}",
                    geometry.blocks
                );
            }
        };
        Ok(Self { options: options.clone(), geometry, census, places })
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        usage(&self.geometry, &self.places)
    }

    /// `sb_imax_pct`: what mkfs chooses, or more where half of what it allows is used already.
    pub(super) fn inode_percent(&self) -> u8 {
        let blocks = (self.places.inodes.len() as u64).div_ceil(INODES_PER_BLOCK.into());
        let needed = (2 * blocks * 100).div_ceil(self.geometry.blocks).min(100);
        self.geometry.inode_percent.max(needed as u8)
    }
}

fn usage(geometry: &Geometry, places: &Places) -> Usage {
    let free: u64 = places.groups.iter().map(Finished::counted_free).sum();
    let reserved: u64 =
        places.groups.iter().map(|group| u64::from(group.reserve + SET_ASIDE)).sum();
    let kept = (geometry.blocks / 20).min(MAX_RESERVED);
    Usage {
        blocks: geometry.blocks,
        free_blocks: free,
        available_blocks: free.saturating_sub(reserved + kept),
        used_inodes: places.inodes.len() as u64,
    }
}

/// The least size for a tree and the room wanted besides, in bytes: a multiple of 1 MiB.
pub fn fit(tree: &Tree, wanted: &Wanted) -> Result<u64> {
    let census = Census::of(tree)?;
    let per_block = u64::from(INODES_PER_BLOCK);
    let free = wanted
        .free_bytes
        .map(|bytes| bytes.div_ceil(BLOCK) + u64::from(wanted.free_inodes).div_ceil(per_block));
    let fits = |size: u64| -> Result<bool> {
        let options = Options {
            size,
            uuid: uuid::Uuid::nil(),
            label: String::new(),
            sector_size: wanted.sector_size,
            profile: wanted.profile,
            groups: wanted.groups,
            time: 0,
        };
        let geometry = Geometry::of(&options)?;
        let Placing { lacking, places, .. } = Placing::run(&census, &geometry)?;
        let suffices =
            || free.is_none_or(|free| usage(&geometry, &places).available_blocks >= free);
        Ok(lacking == 0 && suffices())
    };
    // At `low` it does not fit; at `high` it may, and in the end does.
    let needs: u64 = census.inodes.iter().map(Counted::block_count).sum();
    let needs = (needs + free.unwrap_or(0)).saturating_mul(BLOCK).min(MAXIMUM_SIZE);
    let mut high = MINIMUM_SIZE.max(needs.next_multiple_of(STEP));
    let mut low = high - STEP;
    while !fits(high)? {
        low = high;
        high += (high / 16).next_multiple_of(STEP);
        if high > MAXIMUM_SIZE {
            return Err(unsupported("the content is larger than 1 PiB", None));
        }
    }
    while high - low > STEP {
        let middle = low + (high - low) / 2 / STEP * STEP;
        if fits(middle)? { high = middle } else { low = middle }
    }
    Ok(high)
}

/// A tree while it is placed.
struct Placing {
    groups: Vec<Group>,
    places: Places,
    /// Blocks that were asked for and not there; how much is counted on, so that one attempt tells most of the need.
    lacking: u64,
}

impl Placing {
    fn run(census: &Census, geometry: &Geometry) -> Result<Self> {
        let groups = (0..geometry.groups).map(|number| Group::new(geometry, number)).collect();
        let count = census.inodes.len();
        let places = Places {
            groups: Vec::new(),
            inodes: Vec::with_capacity(count),
            pieces: Vec::with_capacity(count),
            nodes: Vec::new(),
        };
        let mut placing = Self { groups, places, lacking: 0 };
        placing.spread(census, geometry);
        placing.lacking += placing.groups.iter_mut().map(Group::start).sum::<u64>();
        // What GRUB reads comes first, when every group still has room in one piece.
        for for_boot in [true, false] {
            for (index, counted) in census.inodes.iter().enumerate() {
                if counted.for_boot == for_boot {
                    placing.place(index, counted)?;
                }
            }
        }
        placing.places.groups = placing.groups.drain(..).map(Group::finish).collect();
        Ok(placing)
    }

    /// Gives each group its share of the inodes, in the order of their numbers and in proportion to its room.
    fn spread(&mut self, census: &Census, geometry: &Geometry) {
        let usable: Vec<usize> = (0..geometry.groups)
            .filter(|&group| geometry.has_small_numbers(group))
            .map(|group| group as usize)
            .filter(|&group| group == 0 || self.groups[group].capacity() > 0)
            .collect();
        let rooms: Vec<u64> =
            usable.iter().map(|&group| self.groups[group].capacity().into()).collect();
        let room: u64 = rooms.iter().sum();
        // In eighths of a block, for the inode itself.
        let cost = |counted: &Counted| counted.block_count() * u64::from(INODES_PER_BLOCK) + 1;
        let total: u64 = census.inodes.iter().map(cost).sum();
        let share = |room_so_far: u64| {
            (u128::from(total) * u128::from(room_so_far) / u128::from(room.max(1))) as u64
        };
        let (mut at, mut passed, mut room_so_far) = (0, 0, rooms[0]);
        for (index, counted) in census.inodes.iter().enumerate() {
            // The root and XFS' own are the first of all inodes.
            while index > super::census::OWN_INODES
                && at + 1 < usable.len()
                && passed >= share(room_so_far)
            {
                at += 1;
                room_so_far += rooms[at];
            }
            let group = usable[at];
            let number = self.groups[group].take_inode();
            let group = group as u32;
            self.places.inodes.push(Placed {
                group,
                number: geometry.inode_number(group, number),
                data: 0..0,
                attributes: 0..0,
                nodes: 0..0,
            });
            passed += cost(counted);
        }
    }

    /// Takes blocks for one inode: those of its data side by side, then those of its attributes, then those of its tree of extents.
    fn place(&mut self, index: usize, counted: &Counted) -> Result<()> {
        let data = self.fork(index, counted.runs.as_slice(), 0)?;
        let extents = data.len();
        let run = 0..counted.attribute_blocks;
        let attributes = self.fork(index, std::slice::from_ref(&run), OFFSET_ATTRIBUTE)?;
        let start = u32::try_from(self.places.nodes.len())?;
        let nodes = extent::node_count(extents, counted.room.into());
        let owner = self.places.inodes[index].number;
        for (place, count) in self.take(index, nodes, false) {
            self.groups[place.group as usize].own(place.block, count, owner, OFFSET_NODE);
            self.places.nodes.extend((0..u64::from(count)).map(|further| place.plus(further)));
        }
        let placed = &mut self.places.inodes[index];
        placed.nodes = start..u32::try_from(self.places.nodes.len())?;
        (placed.data, placed.attributes) = (data, attributes);
        Ok(())
    }

    /// Places the runs of a fork; returns which pieces are its extents.
    fn fork(&mut self, index: usize, runs: &[Range<u64>], flag: u64) -> Result<Range<u32>> {
        let start = u32::try_from(self.places.pieces.len())?;
        let total = runs.iter().map(|run| run.end - run.start).sum();
        // Two extents of attributes have room in the inode; there is no reason to divide what is so small.
        let pieces = self.take(index, total, flag == OFFSET_ATTRIBUTE);
        let owner = self.places.inodes[index].number;
        let mut runs = runs.iter().cloned();
        let mut run = 0..0;
        for (mut place, count) in pieces {
            let mut left = u64::from(count);
            while left > 0 {
                if run.is_empty() {
                    run = runs.next().expect("as many blocks were taken as the runs have");
                    continue;
                }
                let count = left.min(run.end - run.start);
                let group = &mut self.groups[place.group as usize];
                group.own(place.block, count as u32, owner, run.start | flag);
                // The record of an extent counts in 21 bits, that of an owner in 32.
                for skip in (0..count).step_by(MAX_EXTENT as usize) {
                    self.places.pieces.push(Piece {
                        offset: run.start + skip,
                        place: place.plus(skip),
                        count: (count - skip).min(MAX_EXTENT) as u32,
                    });
                }
                run.start += count;
                place = place.plus(count);
                left -= count;
            }
        }
        Ok(start..u32::try_from(self.places.pieces.len())?)
    }

    /// Takes blocks: all in the group of the inode, or all in the next that has room; in pieces only where none has, unless they shall be
    /// `whole`. When they run out the rest is only counted.
    fn take(&mut self, index: usize, count: u64, whole: bool) -> Vec<(Place, u32)> {
        if count == 0 {
            return Vec::new();
        }
        let (home, all) = (self.places.inodes[index].group, self.groups.len() as u32);
        let order = || (home..all).chain(0..home);
        let has_room = |&group: &u32| u64::from(self.groups[group as usize].room()) >= count;
        if let Some(group) = order().find(has_room) {
            let block = self.groups[group as usize].take(count as u32);
            return vec![(Place { group, block }, count as u32)];
        }
        let (mut left, mut pieces) = (count, Vec::new());
        for group in order().filter(|_| !whole) {
            let room = u64::from(self.groups[group as usize].room()).min(left) as u32;
            if room > 0 {
                let block = self.groups[group as usize].take(room);
                pieces.push((Place { group, block }, room));
                left -= u64::from(room);
            }
        }
        self.lacking += left;
        pieces
    }
}

/// Refuses options that no file system can have.
fn check(options: &Options) -> Result<()> {
    let label = &options.label;
    if label.len() > LONGEST_LABEL || label.contains('\0') {
        return Err(unsupported(
            format!(
                "the label \"{}\" does not fit into the {LONGEST_LABEL} bytes of XFS",
                label.escape_debug()
            ),
            Some("use a shorter label"),
        ));
    }
    ensure!(options.size <= MAXIMUM_SIZE, "an XFS file system here has at most 1 PiB");
    Ok(())
}
