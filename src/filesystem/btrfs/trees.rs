//! The items of the trees that are no subvolumes: they say where those are, and who uses which address.

use anyhow::Result;
use uuid::Uuid;
use zerocopy::{FromZeros, IntoBytes};

use super::census::{Census, Target};
use super::items::{copy, empty_directory, entry, own_name};
use super::layout::{Extent, Placed, TreeBlocks};
use super::leaves::Leaves;
use super::on_disk::{
    BlockGroupItem, ChunkItem, DeviceExtent, DeviceItem, ExtentDataRef, ExtentItem, FarRef,
    FreeSpaceInfo, GENERATION, INODE_ROOT_ITEM, InodeItem, InodeRef, Item, Key, MAX_ITEM, NODE,
    ROOM, RootItem, SECTOR, Stripe, Time, TreeBlockRef, item, name_hash, tree,
};
use super::space::Chunk;
use crate::filesystem::linux::TYPE_DIRECTORY;

/// Bytes of a checksum.
const CHECKSUM: usize = 4;
/// Checksums that stand together at most: `MAX_CSUM_ITEMS` of `fs/btrfs/file-item.c`.
const CHECKSUMS: usize = (ROOM - 2 * size_of::<Item>()) / CHECKSUM - 1;
/// `flags` of an extent item.
const IS_DATA: u64 = 1;
const IS_BLOCK: u64 = 2;
/// How much of a chunk lies in one place, where there are more than one; without meaning here.
const STRIPE_LEN: u64 = 64 << 10;
/// The entry of the root directory that names the default subvolume.
const DEFAULT: &[u8] = b"default";

/// The UUIDs of a file system, all derived from its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uuids {
    pub(super) filesystem: Uuid,
    pub(super) device: Uuid,
    pub(super) chunk_tree: Uuid,
}

impl Uuids {
    pub(super) fn of(filesystem: Uuid) -> Self {
        let derived = |what: &str| Uuid::new_v5(&filesystem, what.as_bytes());
        Self { filesystem, device: derived("device"), chunk_tree: derived("chunk tree") }
    }

    pub(super) fn subvolume(&self, census: &Census<'_>) -> Uuid {
        Uuid::new_v5(&self.filesystem, format!("subvolume {}", census.number).as_bytes())
    }
}

/// Every tree block, and what it belongs to: (place, tree, level), in the order of places.
pub(super) fn blocks(trees: &[TreeBlocks]) -> impl Iterator<Item = (u64, u64, u8)> {
    trees.iter().flat_map(|one| {
        let levels =
            (0..).zip(&one.levels).flat_map(|(level, count)| (0..*count).map(move |_| level));
        one.places.iter().zip(levels).map(|(place, level)| (*place, one.number, level))
    })
}

impl Placed<'_> {
    /// Gives all items of the tree of extents: who uses which address.
    pub(super) fn extent_items(&self, leaves: &mut Leaves<'_>) -> Result<()> {
        let mut blocks = blocks(&self.trees).peekable();
        let mut extents = self.extents.iter().peekable();
        for chunk in &self.space.chunks {
            let end = chunk.logical + chunk.length;
            let mut group = (!self.options.block_group_tree).then_some(chunk);
            // A chunk holds either blocks or data. What begins with the chunk comes before the chunk's own item.
            while let Some((place, owner, level)) = blocks.next_if(|(place, ..)| *place < end) {
                if place > chunk.logical
                    && let Some(chunk) = group.take()
                {
                    group_item(chunk, leaves)?;
                }
                let item = [
                    extent_item(IS_BLOCK).as_bytes(),
                    TreeBlockRef { kind: item::TREE_BLOCK_REF, root: owner.into() }.as_bytes(),
                ]
                .concat();
                let key = Key(place, item::METADATA, level.into());
                leaves.item(key, item.len(), copy(&item))?;
            }
            while let Some(extent) = extents.next_if(|extent| extent.place < end) {
                if extent.place > chunk.logical
                    && let Some(chunk) = group.take()
                {
                    group_item(chunk, leaves)?;
                }
                self.data_extent(extent, leaves)?;
            }
            if let Some(chunk) = group {
                group_item(chunk, leaves)?;
            }
        }
        Ok(())
    }

    fn data_extent(&self, extent: &Extent, leaves: &mut Leaves<'_>) -> Result<()> {
        let user = ExtentDataRef {
            kind: item::EXTENT_DATA_REF,
            root: self.prepared.volumes[extent.volume].number.into(),
            objectid: extent.inode.into(),
            offset: extent.start.into(),
            count: 1.into(),
        };
        let item = [extent_item(IS_DATA).as_bytes(), user.as_bytes()].concat();
        leaves.item(Key(extent.place, item::EXTENT, extent.stored), item.len(), copy(&item))
    }

    /// Gives all items of the tree of block groups, if there is one.
    pub(super) fn group_items(&self, leaves: &mut Leaves<'_>) -> Result<()> {
        self.space.chunks.iter().try_for_each(|chunk| group_item(chunk, leaves))
    }

    /// Gives all items of the free space tree.
    pub(super) fn free_items(&self, leaves: &mut Leaves<'_>) -> Result<()> {
        for chunk in &self.space.chunks {
            let free = chunk.free();
            let count = free.len() as u32;
            let info = FreeSpaceInfo { extent_count: count.into(), flags: 0.into() };
            let key = Key(chunk.logical, item::FREE_SPACE_INFO, chunk.length);
            leaves.item(key, size_of::<FreeSpaceInfo>(), copy(info.as_bytes()))?;
            for range in free {
                let key = Key(range.start, item::FREE_SPACE_EXTENT, range.end - range.start);
                leaves.item(key, 0, copy(b""))?;
            }
        }
        Ok(())
    }

    /// Gives all items of the tree of checksums; `sums` are those of all sectors of data, in order.
    pub(super) fn checksum_items(&self, sums: &[u32], leaves: &mut Leaves<'_>) -> Result<()> {
        let mut extents = self.extents.iter().peekable();
        let mut done = 0;
        while let Some(first) = extents.next() {
            let mut end = first.place + first.stored;
            while let Some(next) = extents.next_if(|next| next.place == end) {
                end += next.stored;
            }
            let mut place = first.place;
            while place < end {
                let count = ((end - place) / SECTOR).min(CHECKSUMS as u64) as usize;
                let key = Key(tree::CHECKSUM_OBJECT, item::EXTENT_CHECKSUM, place);
                leaves.item(key, count * CHECKSUM, |bytes| {
                    let sums = &sums[done..done + count];
                    let slots = bytes.as_chunks_mut::<CHECKSUM>().0;
                    slots.iter_mut().zip(sums).for_each(|(slot, sum)| *slot = sum.to_le_bytes());
                    Ok(())
                })?;
                done += count;
                place += count as u64 * SECTOR;
            }
        }
        Ok(())
    }

    /// Gives all items of the tree of devices: what each stretch of the device is for.
    pub(super) fn device_items(&self, leaves: &mut Leaves<'_>) -> Result<()> {
        for chunk in &self.space.chunks {
            for stripe in &chunk.stripes {
                let extent = DeviceExtent {
                    chunk_tree: tree::CHUNK.into(),
                    chunk_objectid: tree::FIRST_FREE.into(),
                    chunk_offset: chunk.logical.into(),
                    length: chunk.length.into(),
                    chunk_tree_uuid: *self.uuids.chunk_tree.as_bytes(),
                };
                let key = Key(tree::DEVICES, item::DEVICE_EXTENT, *stripe);
                leaves.item(key, size_of::<DeviceExtent>(), copy(extent.as_bytes()))?;
            }
        }
        Ok(())
    }

    /// Gives all items of the tree of chunks.
    pub(super) fn chunk_items(&self, leaves: &mut Leaves<'_>) -> Result<()> {
        let device = self.device();
        let key = Key(tree::DEVICES, item::DEVICE, 1);
        leaves.item(key, size_of::<DeviceItem>(), copy(device.as_bytes()))?;
        for chunk in &self.space.chunks {
            let bytes = self.chunk(chunk);
            let key = Key(tree::FIRST_FREE, item::CHUNK, chunk.logical);
            leaves.item(key, bytes.len(), copy(&bytes))?;
        }
        Ok(())
    }

    /// A chunk and where it lies.
    pub(super) fn chunk(&self, chunk: &Chunk) -> Vec<u8> {
        let head = ChunkItem {
            length: chunk.length.into(),
            owner: tree::EXTENT.into(),
            stripe_len: STRIPE_LEN.into(),
            kind: chunk.kind.into(),
            io_align: (STRIPE_LEN as u32).into(),
            io_width: (STRIPE_LEN as u32).into(),
            sector_size: (SECTOR as u32).into(),
            num_stripes: (chunk.stripes.len() as u16).into(),
            sub_stripes: 1.into(),
        };
        let mut bytes = head.as_bytes().to_vec();
        for stripe in &chunk.stripes {
            let dev_uuid = *self.uuids.device.as_bytes();
            let stripe = Stripe { devid: 1.into(), offset: (*stripe).into(), dev_uuid };
            bytes.extend(stripe.as_bytes());
        }
        bytes
    }

    /// The only device.
    pub(super) fn device(&self) -> DeviceItem {
        let chunks = self.space.chunks.iter();
        let used: u64 = chunks.map(|chunk| chunk.length * chunk.stripes.len() as u64).sum();
        let sector = SECTOR as u32;
        DeviceItem {
            devid: 1.into(),
            total_bytes: self.space.size.into(),
            bytes_used: used.into(),
            io_align: sector.into(),
            io_width: sector.into(),
            sector_size: sector.into(),
            uuid: *self.uuids.device.as_bytes(),
            fsid: *self.uuids.filesystem.as_bytes(),
            ..DeviceItem::new_zeroed()
        }
    }

    /// Gives all items of the tree that finds subvolumes by UUID.
    pub(super) fn uuid_items(&self, leaves: &mut Leaves<'_>) -> Result<()> {
        let mut items: Vec<(Key, u64)> = Vec::new();
        for volume in &self.prepared.volumes {
            let bytes = self.uuids.subvolume(volume).into_bytes();
            let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
            items.push((Key(half(0), item::UUID_SUBVOLUME, half(8)), volume.number));
        }
        items.sort_unstable();
        items.iter().try_for_each(|(key, number)| leaves.item(*key, 8, copy(&number.to_le_bytes())))
    }

    /// Gives all items of the root tree: all other trees, how subvolumes are named, and which is the default.
    pub(super) fn root_items(&self, leaves: &mut Leaves<'_>) -> Result<()> {
        let mut items: Vec<(Key, Vec<u8>)> = Vec::new();
        let others =
            self.trees.iter().filter(|one| !matches!(one.number, tree::ROOT | tree::CHUNK));
        for blocks in others {
            let volume = self.prepared.volumes.iter().find(|volume| volume.number == blocks.number);
            let root = self.root_item(blocks, volume);
            items.push((Key(blocks.number, item::ROOT, 0), root.as_bytes().to_vec()));
        }
        let top = &self.prepared.volumes[0];
        for (directory, entry) in top.subvolumes() {
            let Target::Subvolume(number) = entry.target else { continue };
            let head = FarRef {
                directory: directory.into(),
                index: entry.index.into(),
                name_len: (entry.name.len() as u16).into(),
            };
            let bytes = [head.as_bytes(), entry.name].concat();
            items.push((Key(tree::TOP, item::ROOT_REF, number), bytes.clone()));
            items.push((Key(number, item::ROOT_BACKREF, tree::TOP), bytes));
        }
        self.default_items(&mut items);
        items.sort_unstable_by_key(|(key, _)| *key);
        items.iter().try_for_each(|(key, bytes)| leaves.item(*key, bytes.len(), copy(bytes)))
    }

    /// The directory with the entry that names the default subvolume.
    fn default_items(&self, items: &mut Vec<(Key, Vec<u8>)>) {
        let directory = tree::ROOT_DIRECTORY;
        let inode = empty_directory(self.options.time);
        items.push((Key(directory, item::INODE, 0), inode.as_bytes().to_vec()));
        items.push((Key(directory, item::INODE_REF, directory), own_name()));
        let head = InodeRef { index: 0.into(), name_len: (DEFAULT.len() as u16).into() };
        let name = [head.as_bytes(), DEFAULT].concat();
        items.push((Key(tree::TOP, item::INODE_REF, directory), name));
        // As mkfs.btrfs names the top, and `btrfs subvolume set-default` another.
        let location = match self.prepared.default_volume {
            None => Key(tree::TOP, item::ROOT, u64::MAX),
            Some(number) => Key(number, item::ROOT, 0),
        };
        let bytes = entry(location.into(), TYPE_DIRECTORY, DEFAULT, b"");
        items.push((Key(directory, item::DIRECTORY, name_hash(DEFAULT)), bytes));
    }

    /// Where a tree is; `volume`: which subvolume it is, if it is one.
    fn root_item(&self, blocks: &TreeBlocks, volume: Option<&Census<'_>>) -> RootItem {
        let is_files = volume.is_some() || blocks.number == tree::DATA_RELOCATION;
        let mut inode = InodeItem::new_zeroed();
        inode.generation.set(1);
        inode.size.set(3);
        inode.nbytes.set(NODE);
        inode.nlink.set(1);
        inode.mode.set(0o040_755);
        inode.flags.set(if is_files { INODE_ROOT_ITEM } else { 0 });
        let mut root = RootItem::new_zeroed();
        root.inode = inode;
        root.generation.set(GENERATION);
        root.generation_v2.set(GENERATION);
        root.root_dirid.set(if is_files { tree::FIRST_FREE } else { 0 });
        root.bytenr.set(blocks.root());
        root.bytes_used.set(blocks.count() * NODE);
        root.refs.set(1);
        root.level = blocks.level();
        if let Some(volume) = volume {
            root.uuid = self.uuids.subvolume(volume).into_bytes();
            root.ctransid.set(GENERATION);
            root.otransid.set(if volume.number == tree::TOP { 0 } else { GENERATION });
            (root.ctime, root.otime) = (Time::of(self.options.time), Time::of(self.options.time));
        }
        root
    }
}

fn extent_item(flags: u64) -> ExtentItem {
    ExtentItem { refs: 1.into(), generation: GENERATION.into(), flags: flags.into() }
}

fn group_item(chunk: &Chunk, leaves: &mut Leaves<'_>) -> Result<()> {
    let item = BlockGroupItem {
        used: chunk.used().into(),
        chunk_objectid: tree::FIRST_FREE.into(),
        flags: chunk.kind.into(),
    };
    let key = Key(chunk.logical, item::BLOCK_GROUP, chunk.length);
    leaves.item(key, size_of::<BlockGroupItem>(), copy(item.as_bytes()))
}

const _: () = assert!(CHECKSUMS * CHECKSUM <= MAX_ITEM);
