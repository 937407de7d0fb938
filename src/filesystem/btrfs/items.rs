//! The items of a subvolume: inodes, their names, attributes, entries and extents, in the order of their keys.
//!
//! ```text
//! (257, inode) (257, ref, 256) (257, xattr, hash) (257, verity …) (257, entry, hash) (257, index, n) (257, extent, offset)
//! ```

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use zerocopy::{FromZeros, IntoBytes};

use super::census::{Census, Counted, Entry, Target};
use super::layout::Extent;
use super::leaves::Leaves;
use super::on_disk::{
    DirectoryItem, DiskKey, FarRef, FileExtent, GENERATION, INODE_IMMUTABLE, INODE_VERITY,
    InodeItem, InodeRef, Key, MAX_ITEM, RegularExtent, TYPE_XATTR, Time, VerityItem, extref_hash,
    item, name_hash, tree,
};
use crate::content::{Content, ContentStore};
use crate::filesystem::verity::{DESCRIPTOR_BYTES, descriptor};
use crate::tree::{Inode, InodeId, Kind, Verity};

/// Files up to this size have their bytes in the tree: the kernel's default of `max_inline`.
pub(super) const INLINE: u64 = 2048;
/// Bytes of a hash tree in one item: `MERKLE_ITEM` chunks of `fs/btrfs/verity.c`.
const MERKLE: u64 = 2048;
/// `type` of an extent that has its bytes elsewhere.
const REGULAR: u8 = 1;

/// Whether a file has its bytes in the tree.
pub(super) fn is_inline(content: &Content) -> bool {
    content.size <= INLINE
}

/// Gives all items of a subvolume. `extents_of` tells where the bytes of an inode are, by its index in the census.
pub(super) fn subvolume<'e>(
    census: &Census<'_>,
    extents_of: impl Fn(usize) -> &'e [Extent],
    contents: &ContentStore,
    leaves: &mut Leaves<'_>,
) -> Result<()> {
    for (index, counted) in census.inodes.iter().enumerate() {
        let inode = census.tree.inode(counted.id);
        let number = tree::FIRST_FREE + index as u64;
        let mut items = Items { census, counted, inode, number, contents, leaves };
        let extents = extents_of(index);
        items.inode(extents)?;
        items.references()?;
        items.xattrs()?;
        if let (Kind::File(content), Some(verity)) = (&inode.kind, census.tree.verity(counted.id)) {
            items.verity(content, verity)?;
        }
        if inode.is_directory() {
            items.directory(counted.id)?;
        }
        items.data(extents)?;
    }
    Ok(())
}

/// The root directory of a subvolume that is empty, and of trees that are none: inode 256 and its name.
pub(super) fn empty_root(time: i64, leaves: &mut Leaves<'_>) -> Result<()> {
    let number = tree::FIRST_FREE;
    let inode = empty_directory(time);
    leaves.item(Key(number, item::INODE, 0), size_of::<InodeItem>(), copy(inode.as_bytes()))?;
    let name = own_name();
    leaves.item(Key(number, item::INODE_REF, number), name.len(), copy(&name))
}

/// The inode of an empty directory that only root writes to.
pub(super) fn empty_directory(time: i64) -> InodeItem {
    let mut inode = InodeItem::new_zeroed();
    inode.generation.set(GENERATION);
    inode.transid.set(GENERATION);
    // mkfs.btrfs gives these a block, unlike the kernel.
    inode.nbytes.set(super::on_disk::NODE);
    inode.nlink.set(1);
    inode.mode.set(0o040_755);
    set_times(&mut inode, time);
    inode
}

/// The name of a directory at the top, as its own entry: `..`.
pub(super) fn own_name() -> Vec<u8> {
    let head = InodeRef { index: 0.into(), name_len: 2.into() };
    [head.as_bytes(), b".."].concat()
}

/// An entry of a directory, or an attribute.
pub(super) fn entry(location: DiskKey, kind: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let head = DirectoryItem {
        location,
        transid: GENERATION.into(),
        data_len: (value.len() as u16).into(),
        name_len: (name.len() as u16).into(),
        kind,
    };
    [head.as_bytes(), name, value].concat()
}

/// Fills an item with bytes that are there already.
pub(super) fn copy(bytes: &[u8]) -> impl FnOnce(&mut [u8]) -> Result<()> {
    move |place| {
        place.copy_from_slice(bytes);
        Ok(())
    }
}

fn set_times(inode: &mut InodeItem, time: i64) {
    let time = Time::of(time);
    (inode.atime, inode.ctime, inode.mtime, inode.otime) = (time, time, time, time);
}

/// Where an entry leads.
fn location(target: Target) -> DiskKey {
    match target {
        Target::Inode(number) => Key(number, item::INODE, 0),
        Target::Subvolume(number) => Key(number, item::ROOT, u64::MAX),
    }
    .into()
}

/// One inode and where its items go.
struct Items<'i, 'l, 'w> {
    census: &'i Census<'i>,
    counted: &'i Counted,
    inode: &'i Inode,
    number: u64,
    contents: &'i ContentStore,
    leaves: &'l mut Leaves<'w>,
}

impl Items<'_, '_, '_> {
    fn inode(&mut self, extents: &[Extent]) -> Result<()> {
        let (inode, census, counted) = (self.inode, self.census, self.counted);
        let key = Key(self.number, item::INODE, 0);
        self.leaves.item(key, size_of::<InodeItem>(), |place| {
            let record = record(census, counted, inode, extents);
            place.copy_from_slice(record.as_bytes());
            Ok(())
        })
    }

    /// Back from an inode to its names: by directory, and by hash those for which that item has no room.
    fn references(&mut self) -> Result<()> {
        let names = self.census.names_of(self.counted);
        if names.is_empty() {
            let name = own_name();
            let key = Key(self.number, item::INODE_REF, self.number);
            return self.leaves.item(key, name.len(), copy(&name));
        }
        let mut far: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for group in names.chunk_by(|one, other| one.parent == other.parent) {
            let parent = group[0].parent;
            let mut near = Vec::new();
            for named in group {
                let name_len = (named.name.len() as u16).into();
                let head = InodeRef { index: named.index.into(), name_len };
                if near.len() + size_of::<InodeRef>() + named.name.len() <= MAX_ITEM {
                    near.extend(head.as_bytes());
                    near.extend(named.name);
                } else {
                    let index = named.index.into();
                    let head = FarRef { directory: parent.into(), index, name_len };
                    let place = far.entry(extref_hash(parent, named.name)).or_default();
                    place.extend(head.as_bytes());
                    place.extend(named.name);
                }
            }
            self.leaves.item(Key(self.number, item::INODE_REF, parent), near.len(), copy(&near))?;
        }
        for (hash, bytes) in far {
            let key = Key(self.number, item::INODE_EXTREF, hash);
            self.leaves.item(key, bytes.len(), copy(&bytes))?;
        }
        Ok(())
    }

    fn xattrs(&mut self) -> Result<()> {
        let mut by_hash: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (name, value) in self.inode.metadata.xattrs.iter() {
            let bytes = entry(Key::default().into(), TYPE_XATTR, name, value);
            by_hash.entry(name_hash(name)).or_default().extend(bytes);
        }
        for (hash, bytes) in by_hash {
            self.leaves.item(Key(self.number, item::XATTR, hash), bytes.len(), copy(&bytes))?;
        }
        Ok(())
    }

    fn verity(&mut self, content: &Content, verity: &Verity) -> Result<()> {
        let head = VerityItem {
            size: (DESCRIPTOR_BYTES as u64).into(),
            reserved: [0.into(); 2],
            encryption: 0,
        };
        let key = |kind, offset| Key(self.number, kind, offset);
        let head = head.as_bytes();
        self.leaves.item(key(item::VERITY_DESCRIPTOR, 0), head.len(), copy(head))?;
        let descriptor = descriptor(content.size, &verity.root_hash);
        self.leaves.item(key(item::VERITY_DESCRIPTOR, 1), DESCRIPTOR_BYTES, copy(&descriptor))?;
        let mut position = 0;
        for level in &verity.levels {
            for start in (0..level.size).step_by(MERKLE as usize) {
                let length = MERKLE.min(level.size - start) as usize;
                let key = key(item::VERITY_MERKLE, position);
                self.leaves.item(key, length, |place| {
                    let read = self.contents.read_exact_at(level.id, start, place);
                    read.context("reading the spool")
                })?;
                position += length as u64;
            }
        }
        Ok(())
    }

    fn directory(&mut self, id: InodeId) -> Result<()> {
        let entries = self.census.entries(id);
        let mut by_hash: Vec<(u64, &Entry<'_>)> =
            entries.iter().map(|entry| (name_hash(entry.name), entry)).collect();
        by_hash.sort_by_key(|(hash, _)| *hash);
        for group in by_hash.chunk_by(|one, other| one.0 == other.0) {
            let size = group.iter().map(|(_, one)| size_of::<DirectoryItem>() + one.name.len());
            let key = Key(self.number, item::DIRECTORY, group[0].0);
            self.leaves.item(key, size.sum(), |place| {
                let bytes = group.iter().flat_map(|(_, one)| named(one)).collect::<Vec<u8>>();
                copy(&bytes)(place)
            })?;
        }
        for one in &entries {
            let key = Key(self.number, item::DIRECTORY_INDEX, one.index);
            let size = size_of::<DirectoryItem>() + one.name.len();
            self.leaves.item(key, size, |place| copy(&named(one))(place))?;
        }
        Ok(())
    }

    fn data(&mut self, extents: &[Extent]) -> Result<()> {
        match &self.inode.kind {
            Kind::Symlink(target) => self.inline(target.len(), |place| copy(target)(place)),
            Kind::File(content) if is_inline(content) => {
                if content.data_ranges().is_empty() {
                    return Ok(());
                }
                let contents = self.contents;
                self.inline(content.size as usize, |place| {
                    contents.read_exact_at(content.id, 0, place).context("reading the spool")
                })
            }
            _ => extents.iter().try_for_each(|extent| self.extent(extent)),
        }
    }

    fn inline(&mut self, size: usize, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
        let head = size_of::<FileExtent>();
        self.leaves.item(Key(self.number, item::EXTENT_DATA, 0), head + size, |place| {
            let (start, rest) = place.split_at_mut(head);
            start.copy_from_slice(file_extent(size as u64, 0, 0).as_bytes());
            fill(rest)
        })
    }

    fn extent(&mut self, extent: &Extent) -> Result<()> {
        let compression = extent.packed.as_ref().map_or(0, |packed| packed.how.code());
        let head = file_extent(extent.length, compression, REGULAR);
        let rest = RegularExtent {
            disk_bytenr: extent.place.into(),
            disk_num_bytes: extent.stored.into(),
            offset: 0.into(),
            num_bytes: extent.length.into(),
        };
        let bytes = [head.as_bytes(), rest.as_bytes()].concat();
        let key = Key(self.number, item::EXTENT_DATA, extent.start);
        self.leaves.item(key, bytes.len(), copy(&bytes))
    }
}

fn named(one: &Entry<'_>) -> Vec<u8> {
    entry(location(one.target), one.kind, one.name, b"")
}

fn file_extent(ram_bytes: u64, compression: u8, kind: u8) -> FileExtent {
    FileExtent {
        generation: GENERATION.into(),
        ram_bytes: ram_bytes.into(),
        compression,
        encryption: 0,
        other_encoding: 0.into(),
        kind,
    }
}

fn record(census: &Census<'_>, counted: &Counted, inode: &Inode, extents: &[Extent]) -> InodeItem {
    let mut record = InodeItem::new_zeroed();
    let mut links = census.names_of(counted).len() as u32;
    // `nbytes` counts what is not a hole, before compression.
    let (size, nbytes) = match &inode.kind {
        Kind::File(content) if is_inline(content) => {
            let is_hole = content.data_ranges().is_empty();
            (content.size, if is_hole { 0 } else { content.size })
        }
        Kind::File(content) => (content.size, extents.iter().map(|extent| extent.length).sum()),
        Kind::Symlink(target) => (target.len() as u64, target.len() as u64),
        Kind::Directory(_) => {
            // Directories have no link count, and each name counts twice: once by hash, once by index.
            links = 1;
            let names = census.entries(counted.id);
            (2 * names.iter().map(|entry| entry.name.len() as u64).sum::<u64>(), 0)
        }
        _ => (0, 0),
    };
    let metadata = &inode.metadata;
    record.generation.set(GENERATION);
    record.transid.set(GENERATION);
    record.size.set(size);
    record.nbytes.set(nbytes);
    record.nlink.set(links);
    record.uid.set(metadata.uid);
    record.gid.set(metadata.gid);
    record.mode.set(inode.st_mode());
    if let Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) = inode.kind {
        record.rdev.set(u64::from(major) << 20 | u64::from(minor));
    }
    let immutable = if metadata.immutable { INODE_IMMUTABLE } else { 0 };
    let verity = if census.tree.verity(counted.id).is_some() { INODE_VERITY } else { 0 };
    record.flags.set(immutable | verity);
    set_times(&mut record, metadata.mtime);
    record
}
