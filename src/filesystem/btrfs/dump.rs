//! An annotated dump of a file system's metadata, for people and for goldens.
//!
//! It reads what `emit` wrote through the same structures, so it witnesses that bytes changed, not that they are right.

use std::io;

use zerocopy::{FromBytes, IntoBytes};

use super::on_disk::{
    BlockGroupItem, ChunkItem, DeviceExtent, DeviceItem, DirectoryItem, DiskKey, ExtentDataRef,
    ExtentItem, FarRef, FileExtent, FreeSpaceInfo, Header, InodeItem, InodeRef, Item, Key,
    KeyPointer, NODE_BYTES, RegularExtent, RootItem, SUPER_PLACES, Stripe, SuperBlock,
    TreeBlockRef, VerityItem, item, tree,
};
use crate::content::ContentStore;
use crate::filesystem::dump::{Dump, fields, text};
use crate::sparse::SparseMap;

/// Superblock, and every item of every tree, as text; of blocks that are there twice, the first copy.
/// Fails if reading the store does, or if the volume is not a whole btrfs of ours.
pub fn dump(volume: &SparseMap, contents: &ContentStore) -> io::Result<String> {
    let mut dump = Btrfs { out: Dump::of(volume, contents, "btrfs"), chunks: Vec::new() };
    dump.filesystem()?;
    Ok(dump.out.finish())
}

/// What is dumped of such a file system.
struct Btrfs<'a> {
    out: Dump<'a>,
    /// Logical address, bytes, and place on the device of each chunk that is known.
    chunks: Vec<(u64, u64, u64)>,
}

impl Btrfs<'_> {
    fn filesystem(&mut self) -> io::Result<()> {
        let [place, ..] = SUPER_PLACES;
        let block = self.out.read::<SuperBlock>(place)?;
        self.super_block(place, &block);
        let array = &block.sys_chunk_array[..block.sys_chunk_array_size.get() as usize];
        let (key, chunk) = self.out.prefix::<DiskKey>(array)?;
        self.chunk(key.offset.get(), chunk)?;
        self.tree(block.chunk_root.get())?;
        for (key, bytes) in self.tree(block.root.get())? {
            if let Key(_, item::ROOT, _) = key {
                let (root, _) = self.out.prefix::<RootItem>(&bytes)?;
                self.tree(root.bytenr.get())?;
            }
        }
        Ok(())
    }

    fn super_block(&mut self, place: u64, block: &SuperBlock) {
        self.out.line(&format!("{place:08x} superblock"));
        fields!(
            self.out,
            SuperBlock,
            block,
            [
                bytenr,
                flags,
                generation,
                root,
                chunk_root,
                log_root,
                log_root_transid,
                total_bytes,
                bytes_used,
                root_dir_objectid,
                num_devices,
                sectorsize,
                nodesize,
                leafsize,
                stripesize,
                sys_chunk_array_size,
                chunk_root_generation,
                compat_flags,
                compat_ro_flags,
                incompat_flags,
                csum_type,
                root_level,
                chunk_root_level,
                log_root_level,
                cache_generation,
                uuid_tree_generation,
            ]
        );
        let (sum, fsid) = (hex(&block.csum[..4]), uuid::Uuid::from_bytes(block.fsid));
        self.out.line(&format!("   csum: {sum}, fsid: {fsid}, label: \"{}\"", text(&block.label)));
        let backup = &block.super_roots[0];
        self.out.line(&format!("   super_roots[0]: {}", words(&backup.as_bytes()[..0x78])));
    }

    /// All blocks of a tree whose root is at a logical address; returns the items.
    fn tree(&mut self, logical: u64) -> io::Result<Vec<(Key, Vec<u8>)>> {
        let place = self.place(logical)?;
        let bytes = self.out.bytes(place, NODE_BYTES)?;
        let (header, body) = self.out.prefix::<Header>(&bytes)?;
        let (level, count) = (header.level, header.nritems.get() as usize);
        self.out.line(&format!(
            "{place:08x} tree {}, level {level}, {count} items, at {logical:#x}, csum {}",
            number(header.owner.get()),
            hex(&header.csum[..4])
        ));
        let mut items = Vec::new();
        if level > 0 {
            let mut rest = body;
            for _ in 0..count {
                let (pointer, next) = self.out.prefix::<KeyPointer>(rest)?;
                rest = next;
                let place = pointer.blockptr.get();
                self.out.line(&format!("   {} at {place:#x}", shown(&pointer.key)));
            }
            let mut rest = body;
            for _ in 0..count {
                let (pointer, next) = self.out.prefix::<KeyPointer>(rest)?;
                rest = next;
                items.extend(self.tree(pointer.blockptr.get())?);
            }
            return Ok(items);
        }
        let mut rest = body;
        for _ in 0..count {
            let (item, next) = self.out.prefix::<Item>(rest)?;
            rest = next;
            let (start, size) = (item.offset.get() as usize, item.size.get() as usize);
            let data = body.get(start..start + size).ok_or_else(|| self.out.broken())?;
            self.out.line(&shown(&item.key));
            let key = Key(item.key.objectid.get(), item.key.kind, item.key.offset.get());
            self.item(key, data)?;
            items.push((key, data.to_vec()));
        }
        Ok(items)
    }

    fn item(&mut self, Key(_, kind, offset): Key, data: &[u8]) -> io::Result<()> {
        match kind {
            item::INODE => {
                let (inode, _) = self.out.prefix::<InodeItem>(data)?;
                self.inode(&inode);
            }
            item::INODE_REF => {
                self.names::<InodeRef>(data, |head| {
                    (format!("index {}", head.index), head.name_len.get().into(), 0)
                })?;
            }
            item::INODE_EXTREF | item::ROOT_REF | item::ROOT_BACKREF => {
                self.names::<FarRef>(data, |head| {
                    let place = format!("index {} of {}", head.index, head.directory);
                    (place, head.name_len.get().into(), 0)
                })?;
            }
            item::DIRECTORY | item::DIRECTORY_INDEX | item::XATTR => {
                self.names::<DirectoryItem>(data, |head| {
                    let what = format!("type {}, {}", head.kind, shown(&head.location));
                    (what, head.name_len.get().into(), head.data_len.get().into())
                })?;
            }
            item::EXTENT_DATA => self.file_extent(data)?,
            item::ROOT => {
                let (root, _) = self.out.prefix::<RootItem>(data)?;
                self.root(&root);
            }
            item::EXTENT | item::METADATA => self.extent(data)?,
            item::DEVICE => {
                let (device, _) = self.out.prefix::<DeviceItem>(data)?;
                fields!(
                    self.out,
                    DeviceItem,
                    device,
                    [devid, total_bytes, bytes_used, io_align, io_width, sector_size]
                );
                let [own, fsid] = [device.uuid, device.fsid].map(uuid::Uuid::from_bytes);
                self.out.line(&format!("   uuid: {own}, fsid: {fsid}"));
            }
            item::CHUNK => self.chunk(offset, data)?,
            item::BLOCK_GROUP => {
                let (group, _) = self.out.prefix::<BlockGroupItem>(data)?;
                fields!(self.out, BlockGroupItem, group, [used, chunk_objectid, flags]);
            }
            item::FREE_SPACE_INFO => {
                let (info, _) = self.out.prefix::<FreeSpaceInfo>(data)?;
                fields!(self.out, FreeSpaceInfo, info, [extent_count, flags]);
            }
            item::DEVICE_EXTENT => {
                let (extent, _) = self.out.prefix::<DeviceExtent>(data)?;
                fields!(
                    self.out,
                    DeviceExtent,
                    extent,
                    [chunk_tree, chunk_objectid, chunk_offset, length]
                );
            }
            item::VERITY_DESCRIPTOR if offset == 0 => {
                let (head, _) = self.out.prefix::<VerityItem>(data)?;
                fields!(self.out, VerityItem, head, [size, encryption]);
            }
            item::FREE_SPACE_EXTENT => {}
            _ => self.out.line(&format!("      {}", words(data))),
        }
        Ok(())
    }

    fn inode(&mut self, inode: &InodeItem) {
        fields!(
            self.out,
            InodeItem,
            inode,
            [
                generation,
                transid,
                size,
                nbytes,
                block_group,
                nlink,
                uid,
                gid,
                mode,
                rdev,
                flags,
                sequence,
            ]
        );
        let times = [inode.atime, inode.ctime, inode.mtime, inode.otime];
        let times = times.map(|time| time.sec.get().cast_signed());
        if times != [0; 4] {
            self.out.line(&format!("   atime, ctime, mtime, otime: {times:?}"));
        }
    }

    fn root(&mut self, root: &RootItem) {
        self.inode(&root.inode);
        fields!(
            self.out,
            RootItem,
            root,
            [
                generation,
                root_dirid,
                bytenr,
                byte_limit,
                bytes_used,
                last_snapshot,
                flags,
                refs,
                drop_level,
                level,
                generation_v2,
                ctransid,
                otransid,
                stransid,
                rtransid,
            ]
        );
        if root.uuid != [0; 16] {
            let [own, parent] = [root.uuid, root.parent_uuid].map(uuid::Uuid::from_bytes);
            self.out.line(&format!("   uuid: {own}, parent_uuid: {parent}"));
        }
    }

    fn file_extent(&mut self, data: &[u8]) -> io::Result<()> {
        let (head, rest) = self.out.prefix::<FileExtent>(data)?;
        fields!(self.out, FileExtent, head, [generation, ram_bytes, compression, encryption, kind]);
        if head.kind == 0 {
            self.out.line(&format!("   inline: {}", text(rest)));
            return Ok(());
        }
        let (extent, _) = self.out.prefix::<RegularExtent>(rest)?;
        fields!(self.out, RegularExtent, extent, [disk_bytenr, disk_num_bytes, offset, num_bytes]);
        Ok(())
    }

    fn extent(&mut self, data: &[u8]) -> io::Result<()> {
        let (extent, rest) = self.out.prefix::<ExtentItem>(data)?;
        fields!(self.out, ExtentItem, extent, [refs, generation, flags]);
        let (user, _) = self.out.prefix::<TreeBlockRef>(rest)?;
        if user.kind == item::TREE_BLOCK_REF {
            self.out.line(&format!("   of tree {}", number(user.root.get())));
            return Ok(());
        }
        let (user, _) = self.out.prefix::<ExtentDataRef>(rest)?;
        self.out.line(&format!(
            "   of inode {} of tree {}, from {} on, {} times",
            user.objectid,
            number(user.root.get()),
            user.offset,
            user.count
        ));
        Ok(())
    }

    fn chunk(&mut self, logical: u64, bytes: &[u8]) -> io::Result<()> {
        let (chunk, mut rest) = self.out.prefix::<ChunkItem>(bytes)?;
        fields!(
            self.out,
            ChunkItem,
            chunk,
            [
                length,
                owner,
                stripe_len,
                kind,
                io_align,
                io_width,
                sector_size,
                num_stripes,
                sub_stripes,
            ]
        );
        for number in 0..chunk.num_stripes.get() {
            let (stripe, next) = self.out.prefix::<Stripe>(rest)?;
            rest = next;
            let offset = stripe.offset.get();
            self.out.line(&format!("   {logical:#x} is at {offset:#x} of device {}", stripe.devid));
            if number == 0 {
                self.chunks.push((logical, chunk.length.get(), offset));
            }
        }
        Ok(())
    }

    /// Entries, each of a structure, a name and a value. `head` says of the structure what it shows, and how long the two are.
    fn names<T: FromBytes>(
        &mut self,
        data: &[u8],
        head: impl Fn(&T) -> (String, usize, usize),
    ) -> io::Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            let (entry, behind) = self.out.prefix::<T>(rest)?;
            let (what, name_len, data_len) = head(&entry);
            let split = behind.split_at_checked(name_len).ok_or_else(|| self.out.broken())?;
            let (name, behind) = split;
            let split = behind.split_at_checked(data_len).ok_or_else(|| self.out.broken())?;
            let (value, behind) = split;
            let name = name.escape_ascii();
            match value {
                [] => self.out.line(&format!("   \"{name}\": {what}")),
                value => self.out.line(&format!("   \"{name}\": {what}: {}", text(value))),
            }
            rest = behind;
        }
        Ok(())
    }

    /// Where on the device a logical address lies.
    fn place(&self, logical: u64) -> io::Result<u64> {
        let mut chunks = self.chunks.iter();
        let found = chunks.find(|(start, length, _)| (*start..*start + *length).contains(&logical));
        let (start, _, place) = found.ok_or_else(|| self.out.broken())?;
        Ok(place + (logical - start))
    }
}

/// The number of a tree or an object; those at the upper end of all numbers are negative.
fn number(number: u64) -> i64 {
    number.cast_signed()
}

fn shown(key: &DiskKey) -> String {
    let kind = match key.kind {
        0 => "-",
        item::INODE => "inode",
        item::INODE_REF => "inode ref",
        item::INODE_EXTREF => "inode extref",
        item::XATTR => "xattr",
        item::VERITY_DESCRIPTOR => "verity descriptor",
        item::VERITY_MERKLE => "verity merkle",
        item::DIRECTORY => "dir item",
        item::DIRECTORY_INDEX => "dir index",
        item::EXTENT_DATA => "extent data",
        item::EXTENT_CHECKSUM => "extent csum",
        item::ROOT => "root",
        item::ROOT_BACKREF => "root backref",
        item::ROOT_REF => "root ref",
        item::EXTENT => "extent",
        item::METADATA => "metadata",
        item::BLOCK_GROUP => "block group",
        item::FREE_SPACE_INFO => "free space info",
        item::FREE_SPACE_EXTENT => "free space",
        item::DEVICE_EXTENT => "dev extent",
        item::DEVICE => "device",
        item::CHUNK => "chunk",
        item::UUID_SUBVOLUME => "uuid",
        _ => "unknown",
    };
    let offset = key.offset.get();
    match (key.objectid.get(), key.kind) {
        (object, item::UUID_SUBVOLUME) => format!("({object:016x} {kind} {offset:016x})"),
        (tree::CHECKSUM_OBJECT, _) => format!("(-10 {kind} {offset:#x})"),
        (object, item::EXTENT | item::BLOCK_GROUP) => format!("({object:#x} {kind} {offset})"),
        (object, item::FREE_SPACE_INFO | item::FREE_SPACE_EXTENT | item::METADATA) => {
            format!("({object:#x} {kind} {offset})")
        }
        (object, item::CHUNK | item::DEVICE_EXTENT) => format!("({object} {kind} {offset:#x})"),
        (object, _) => format!("({} {kind} {})", number(object), number(offset)),
    }
}

/// Bytes as a little-endian number, hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes in eights, as little-endian numbers.
fn words(bytes: &[u8]) -> String {
    bytes.chunks(8).map(hex).collect::<Vec<_>>().join(" ")
}
