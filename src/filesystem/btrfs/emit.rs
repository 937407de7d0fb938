//! Writes what `layout` decided: data by reference, blocks of trees through the spool, and the superblocks.

use std::cell::Cell;
use std::io::Write;

use anyhow::{Context, Result};
use zerocopy::{FromZeros, IntoBytes};

use super::compress::{Compression, in_parallel};
use super::layout::{Extent, Placed, content_of};
use super::leaves::{Leaves, Stamp};
use super::on_disk::{
    COMPAT_RO, COMPAT_RO_BLOCK_GROUP_TREE, COMPAT_RO_VERITY, DiskKey, GENERATION, INCOMPAT,
    INCOMPAT_DEFAULT_SUBVOLUME, INCOMPAT_LZO, INCOMPAT_ZSTD, Key, MAGIC, NODE, RootBackup, SECTOR,
    SUPER_PLACES, SuperBlock, group, item, seal, tree,
};
use super::{Formatted, Usage};
use crate::sparse::SparseMap;

/// Data that one thread reads in one go.
const BATCH: u64 = 8 << 20;
/// Bytes that are collected before they go into the spool.
const BUFFER: usize = 1 << 20;

impl Placed<'_> {
    /// The file system.
    pub(super) fn emit(&self) -> Result<Formatted> {
        let mut map = SparseMap::new(self.options.size);
        for extent in &self.extents {
            self.emit_extent(extent, &mut map);
        }
        let sums = self.checksums()?;
        self.emit_blocks(&sums, &mut map)?;
        for place in SUPER_PLACES.into_iter().filter(|place| place + SECTOR <= self.space.size) {
            let mut block = self.super_block();
            block.bytenr.set(place);
            seal(block.as_mut_bytes());
            map.put(place, block.as_bytes().to_vec());
        }
        Ok(Formatted { map, usage: self.usage() })
    }

    fn usage(&self) -> Usage {
        let used = |data: bool| {
            let chunks =
                self.space.chunks.iter().filter(|chunk| (chunk.kind == group::DATA) == data);
            chunks.map(|chunk| chunk.used() * chunk.stripes.len() as u64).sum()
        };
        let unallocated = self.space.unallocated();
        Usage { data: used(true), metadata: used(false), unallocated }
    }

    fn emit_extent(&self, extent: &Extent, map: &mut SparseMap) {
        let (id, start, length) = self.source(extent);
        for place in self.space.chunk_of(extent.place).places(extent.place) {
            map.put_content(place, id, start, length);
        }
    }

    /// Where the bytes of an extent come from: content, offset, length. Zeros fill the last sector.
    fn source(&self, extent: &Extent) -> (crate::content::ContentId, u64, u64) {
        if let Some(packed) = &extent.packed {
            return (packed.id, 0, packed.size.into());
        }
        let volume = &self.prepared.volumes[extent.volume];
        let content = content_of(volume, (extent.inode - tree::FIRST_FREE) as usize);
        let content = content.expect("only files have extents");
        (content.id, extent.start, extent.length.min(content.size - extent.start))
    }

    /// Checksums of all sectors of data in the order of their places, by all cores.
    fn checksums(&self) -> Result<Vec<u32>> {
        let mut batches = Vec::new();
        let (mut first, mut bytes) = (0, 0);
        for (index, extent) in self.extents.iter().enumerate() {
            bytes += extent.stored;
            if bytes >= BATCH || index + 1 == self.extents.len() {
                batches.push(first..index + 1);
                (first, bytes) = (index + 1, 0);
            }
        }
        let sums = in_parallel(&batches, Vec::new, |buffer: &mut Vec<u8>, batch| {
            let mut sums = Vec::new();
            for extent in &self.extents[batch.clone()] {
                self.checksum(extent, buffer, &mut sums)?;
            }
            Ok(sums)
        })?;
        Ok(sums.concat())
    }

    fn checksum(&self, extent: &Extent, buffer: &mut Vec<u8>, sums: &mut Vec<u32>) -> Result<()> {
        let (id, start, length) = self.source(extent);
        let mut done = 0;
        while done < extent.stored {
            let step = (extent.stored - done).min(BUFFER as u64);
            let known = length.saturating_sub(done).min(step) as usize;
            buffer.clear();
            buffer.resize(step as usize, 0);
            let read = &mut buffer[..known];
            let contents = self.prepared.contents;
            contents.read_exact_at(id, start + done, read).context("reading the spool")?;
            sums.extend(buffer.chunks(SECTOR as usize).map(crc32c::crc32c));
            done += step;
        }
        Ok(())
    }

    /// The blocks of all trees. They go through the spool: two copies of them in memory would be more than all else.
    fn emit_blocks(&self, sums: &[u32], map: &mut SparseMap) -> Result<()> {
        let count: u64 = self.trees.iter().map(super::layout::TreeBlocks::count).sum();
        let mut writer = self.prepared.contents.writer(count * NODE);
        let mut buffered = std::io::BufWriter::with_capacity(BUFFER, &mut writer);
        let stamp = Stamp {
            fsid: *self.uuids.filesystem.as_bytes(),
            chunk_tree: *self.uuids.chunk_tree.as_bytes(),
        };
        // Places as they are written, in whole runs.
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let last = Cell::new(0);
        for blocks in &self.trees {
            let mut put = |place: u64, block: &[u8]| {
                assert!(place > last.get(), "blocks are written in the order of their places");
                last.set(place);
                match runs.last_mut() {
                    Some((start, length)) if *start + *length == place => *length += NODE,
                    _ => runs.push((place, NODE)),
                }
                buffered.write_all(block).context("writing to the spool")
            };
            let mut leaves = Leaves::writing(stamp, blocks.number, &blocks.places, &mut put);
            self.items(blocks.number, sums, &mut leaves)?;
            leaves.finish()?;
        }
        buffered.flush().context("writing to the spool")?;
        drop(buffered);
        let content = writer.finish()?;
        let mut position = 0;
        for (start, length) in runs {
            self.emit_run(start, length, |place, skip, length| {
                map.put_content(place, content.id, position + skip, length);
            });
            position += length;
        }
        Ok(())
    }

    /// Tells where the parts of a run of logical addresses lie, cut where chunks end: place, offset in the run, length.
    fn emit_run(&self, start: u64, length: u64, mut put: impl FnMut(u64, u64, u64)) {
        let mut done = 0;
        while done < length {
            let chunk = self.space.chunk_of(start + done);
            let step = (chunk.logical + chunk.length - start - done).min(length - done);
            chunk.places(start + done).for_each(|place| put(place, done, step));
            done += step;
        }
    }

    fn super_block(&self) -> SuperBlock {
        let find = |number| self.trees.iter().find(|blocks| blocks.number == number);
        let blocks = |number| find(number).expect("every file system has these trees");
        let (root, chunk) = (blocks(tree::ROOT), blocks(tree::CHUNK));
        let used: u64 = self.space.chunks.iter().map(super::space::Chunk::used).sum();
        let size = self.space.size;
        let mut block = SuperBlock::new_zeroed();
        block.fsid = *self.uuids.filesystem.as_bytes();
        block.flags.set(1);
        block.magic = MAGIC;
        block.generation.set(GENERATION);
        block.root.set(root.root());
        block.root_level = root.level();
        block.chunk_root.set(chunk.root());
        block.chunk_root_level = chunk.level();
        block.chunk_root_generation.set(GENERATION);
        block.total_bytes.set(size);
        block.bytes_used.set(used);
        block.root_dir_objectid.set(tree::ROOT_DIRECTORY);
        block.num_devices.set(1);
        block.sectorsize.set(SECTOR as u32);
        block.nodesize.set(NODE as u32);
        block.leafsize.set(NODE as u32);
        block.stripesize.set(SECTOR as u32);
        self.features(&mut block);
        block.dev_item = self.device();
        let label = self.options.label.as_bytes();
        block.label[..label.len()].copy_from_slice(label);
        // Else the first mount looks for subvolumes without an entry in the UUID tree.
        block.uuid_tree_generation.set(GENERATION);
        // What is needed to read the tree of chunks.
        let system = &self.space.chunks[0];
        let key = DiskKey::from(Key(tree::FIRST_FREE, item::CHUNK, system.logical));
        let array = [key.as_bytes(), &self.chunk(system)].concat();
        block.sys_chunk_array_size.set(array.len() as u32);
        block.sys_chunk_array[..array.len()].copy_from_slice(&array);
        let (extent, top) = (blocks(tree::EXTENT), blocks(tree::TOP));
        let (device, checksum) = (blocks(tree::DEVICE), blocks(tree::CHECKSUM));
        let generation = GENERATION.into();
        block.super_roots[0] = RootBackup {
            tree_root: root.root().into(),
            tree_root_gen: generation,
            chunk_root: chunk.root().into(),
            chunk_root_gen: generation,
            extent_root: extent.root().into(),
            extent_root_gen: generation,
            fs_root: top.root().into(),
            fs_root_gen: generation,
            dev_root: device.root().into(),
            dev_root_gen: generation,
            csum_root: checksum.root().into(),
            csum_root_gen: generation,
            total_bytes: size.into(),
            bytes_used: used.into(),
            num_devices: 1.into(),
            unused: [0.into(); 4],
            tree_root_level: root.level(),
            chunk_root_level: chunk.level(),
            extent_root_level: extent.level(),
            fs_root_level: top.level(),
            dev_root_level: device.level(),
            csum_root_level: checksum.level(),
            reserved: [0; 10],
        };
        block
    }

    fn features(&self, block: &mut SuperBlock) {
        let mut incompat = INCOMPAT;
        for (bit, wanted) in [
            (INCOMPAT_DEFAULT_SUBVOLUME, self.prepared.default_volume.is_some()),
            (INCOMPAT_LZO, self.prepared.compresses(|how| matches!(how, Compression::Lzo))),
            (INCOMPAT_ZSTD, self.prepared.compresses(|how| matches!(how, Compression::Zstd(_)))),
        ] {
            incompat |= if wanted { bit } else { 0 };
        }
        let mut read_only = COMPAT_RO;
        for (bit, wanted) in [
            (COMPAT_RO_VERITY, self.prepared.has_verity()),
            (COMPAT_RO_BLOCK_GROUP_TREE, self.options.block_group_tree),
        ] {
            read_only |= if wanted { bit } else { 0 };
        }
        block.incompat_flags.set(incompat);
        block.compat_ro_flags.set(read_only);
    }
}
