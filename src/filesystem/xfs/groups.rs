//! Writes what a group says of itself: super block, headers, free list, and its trees.

use zerocopy::{FromZeros, IntoBytes};

use super::allocator::Finished;
use super::btree::{Home, Kind, Mapping, Shape};
use super::geometry::Place;
use super::layout::Layout;
use super::on_disk::{
    Agf, Agfl, Agi, BLOCK_BYTES, CHUNK, FEATURES2, INCOMPAT, INCOMPAT_NREXT64, INODE_BYTES,
    INODES_PER_BLOCK, NULL32, RO_COMPAT, RO_COMPAT_RMAPBT, SuperBlock, VERSION, VERSION_SECTOR,
    headed, seal,
};
use crate::sparse::SparseMap;

/// `sb_inoalignmt`: chunks of inodes begin at multiples of so many blocks.
const INODE_ALIGNMENT: u32 = 8;
/// `sb_spino_align`: the same of parts of chunks.
const SPARSE_ALIGNMENT: u32 = 4;

impl Layout {
    /// Everything in all groups that has a fixed place, and the trees behind it.
    pub(super) fn emit_groups(&self, volume: &mut SparseMap) {
        for group in &self.places.groups {
            let sector = self.geometry.sector;
            let start = self.geometry.byte(Place { group: group.number, block: 0 });
            let mut put = |number: u64, bytes| volume.put(start + number * sector, bytes);
            put(0, self.super_block(group));
            put(1, self.free_space(group));
            put(2, self.inode_information(group));
            put(3, self.free_list(group));
            self.emit_trees(group, volume);
        }
    }

    fn super_block(&self, group: &Finished) -> Vec<u8> {
        let geometry = &self.geometry;
        let large = geometry.sector > 512;
        let root = self.places.inodes[0].number;
        let log = geometry.log_group;
        let log_block = self.places.groups[log as usize].log.expect("the log is in its group");
        let chunks: u64 = self.places.groups.iter().map(|group| u64::from(group.chunks)).sum();
        let inodes = chunks * u64::from(CHUNK);
        let usage = self.usage();
        let mut block = SuperBlock::new_zeroed();
        block.sb_magicnum = *b"XFSB";
        block.sb_blocksize.set(BLOCK_BYTES as u32);
        block.sb_dblocks.set(geometry.blocks);
        block.sb_uuid = *self.options.uuid.as_bytes();
        block.sb_logstart.set(geometry.fsblock(Place { group: log, block: log_block }));
        block.sb_rootino.set(root);
        block.sb_rbmino.set(root + 1);
        block.sb_rsumino.set(root + 2);
        block.sb_rextsize.set(1);
        block.sb_agblocks.set(geometry.group_blocks as u32);
        block.sb_agcount.set(geometry.groups);
        block.sb_logblocks.set(geometry.log_blocks);
        block.sb_versionnum.set(VERSION | if large { VERSION_SECTOR } else { 0 });
        block.sb_sectsize.set(geometry.sector as u16);
        block.sb_inodesize.set(INODE_BYTES as u16);
        block.sb_inopblock.set(INODES_PER_BLOCK as u16);
        let label = self.options.label.as_bytes();
        block.sb_fname[..label.len()].copy_from_slice(label);
        block.sb_blocklog = BLOCK_BYTES.ilog2() as u8;
        block.sb_sectlog = geometry.sector.ilog2() as u8;
        block.sb_inodelog = INODE_BYTES.ilog2() as u8;
        block.sb_inopblog = INODES_PER_BLOCK.ilog2() as u8;
        block.sb_agblklog = geometry.group_log as u8;
        // Set in all copies, as mkfs and growfs leave it: a copy by itself is none that can be mounted.
        block.sb_inprogress = u8::from(group.number > 0);
        block.sb_imax_pct = self.inode_percent();
        block.sb_icount.set(inodes);
        block.sb_ifree.set(inodes - usage.used_inodes);
        block.sb_fdblocks.set(usage.free_blocks);
        block.sb_inoalignmt.set(INODE_ALIGNMENT);
        if large {
            block.sb_logsectlog = geometry.sector.ilog2() as u8;
            block.sb_logsectsize.set(geometry.sector as u16);
        }
        block.sb_logsunit.set(if large { geometry.sector as u32 } else { 1 });
        block.sb_features2.set(FEATURES2);
        block.sb_bad_features2.set(FEATURES2);
        let rmapbt = if geometry.profile.rmapbt() { RO_COMPAT_RMAPBT } else { 0 };
        block.sb_features_ro_compat.set(RO_COMPAT | rmapbt);
        let nrext64 = if geometry.profile.nrext64() { INCOMPAT_NREXT64 } else { 0 };
        block.sb_features_incompat.set(INCOMPAT | nrext64);
        block.sb_spino_align.set(SPARSE_ALIGNMENT);
        self.sector(&block, std::mem::offset_of!(SuperBlock, sb_crc))
    }

    fn free_space(&self, group: &Finished) -> Vec<u8> {
        let roots = self.geometry.roots;
        let longest = group.free.iter().map(|range| range.end - range.start).max().unwrap_or(0);
        let height = |owners: &super::allocator::Owners| owners.tree.height();
        let mut agf = Agf::new_zeroed();
        agf.agf_magicnum = *b"XAGF";
        agf.agf_versionnum.set(1);
        agf.agf_seqno.set(group.number);
        agf.agf_length.set(group.length);
        agf.agf_roots = [roots.by_block, roots.by_size, roots.owners.unwrap_or(0)].map(Into::into);
        agf.agf_levels = [1, 1, group.owners.as_ref().map_or(0, height)].map(Into::into);
        let listed = group.free_list.len() as u32;
        agf.agf_fllast.set(listed - 1);
        agf.agf_flcount.set(listed);
        agf.agf_freeblks.set(group.free_blocks());
        agf.agf_longest.set(longest);
        agf.agf_btreeblks.set(group.tree_blocks());
        agf.agf_uuid = *self.options.uuid.as_bytes();
        agf.agf_rmap_blocks.set(group.owners.as_ref().map_or(0, |owners| owners.tree.blocks()));
        agf.agf_refcount_blocks.set(1);
        agf.agf_refcount_root.set(roots.sharing);
        agf.agf_refcount_level.set(1);
        self.sector(&agf, std::mem::offset_of!(Agf, agf_crc))
    }

    fn inode_information(&self, group: &Finished) -> Vec<u8> {
        let count = group.chunks * CHUNK;
        let mut agi = Agi::new_zeroed();
        agi.agi_magicnum = *b"XAGI";
        agi.agi_versionnum.set(1);
        agi.agi_seqno.set(group.number);
        agi.agi_length.set(group.length);
        agi.agi_count.set(count);
        agi.agi_root.set(self.geometry.roots.inodes);
        agi.agi_level.set(group.inode_tree.0.height());
        agi.agi_freecount.set(count - group.inodes);
        agi.agi_newino.set(match group.chunks {
            0 => NULL32,
            _ => group.chunks_at * INODES_PER_BLOCK,
        });
        agi.agi_dirino.set(NULL32);
        agi.agi_unlinked = [NULL32.into(); 64];
        agi.agi_uuid = *self.options.uuid.as_bytes();
        agi.agi_free_root.set(self.geometry.roots.free_inodes);
        agi.agi_free_level.set(1);
        agi.agi_iblocks.set(group.inode_tree.0.blocks());
        agi.agi_fblocks.set(1);
        self.sector(&agi, std::mem::offset_of!(Agi, agi_crc))
    }

    fn free_list(&self, group: &Finished) -> Vec<u8> {
        let mut agfl = Agfl::new_zeroed();
        agfl.agfl_magicnum = *b"XAFL";
        agfl.agfl_seqno.set(group.number);
        agfl.agfl_uuid = *self.options.uuid.as_bytes();
        let mut bytes = headed(&agfl, self.geometry.sector as usize);
        let all = group.free_list.iter().copied().chain(std::iter::repeat(NULL32));
        for (place, block) in bytes[size_of::<Agfl>()..].chunks_exact_mut(4).zip(all) {
            place.copy_from_slice(&block.to_be_bytes());
        }
        seal(&mut bytes, std::mem::offset_of!(Agfl, agfl_crc));
        bytes
    }

    /// A structure that has a sector of its own, sealed.
    fn sector(&self, head: &(impl IntoBytes + zerocopy::Immutable), crc: usize) -> Vec<u8> {
        let mut bytes = headed(head, self.geometry.sector as usize);
        seal(&mut bytes, crc);
        bytes
    }

    fn emit_trees(&self, group: &Finished, volume: &mut SparseMap) {
        let roots = self.geometry.roots;
        let uuid = *self.options.uuid.as_bytes();
        let home = Home { geometry: &self.geometry, uuid, group: group.number };
        let mut put = |place, block| volume.put(self.geometry.byte(place), block);
        let mut by_size = group.free.clone();
        by_size.sort_by_key(|range| (range.end - range.start, range.start));
        let free = |ranges: &[std::ops::Range<u32>]| -> Vec<u8> {
            let pair = |range: &std::ops::Range<u32>| [range.start, range.end - range.start];
            ranges.iter().flat_map(pair).flat_map(u32::to_be_bytes).collect()
        };
        let chunks: Vec<[u8; 16]> = (0..group.chunks).map(|index| chunk(group, index)).collect();
        let partly = !group.inodes.is_multiple_of(CHUNK);
        let last = chunks.last().filter(|_| partly).map_or(&[][..], <[u8; 16]>::as_slice);
        for (kind, records, root) in [
            (Kind::ByBlock, free(&group.free), roots.by_block),
            (Kind::BySize, free(&by_size), roots.by_size),
            (Kind::FreeInodes, last.to_vec(), roots.free_inodes),
            (Kind::Sharing, Vec::new(), roots.sharing),
        ] {
            let shape = Shape::of(kind, records.len() / kind.record());
            shape.emit(&records, &home, root, &[], &mut put);
        }
        let (tree, blocks) = &group.inode_tree;
        tree.emit(chunks.as_flattened(), &home, roots.inodes, blocks, &mut put);
        if let (Some(owners), Some(root)) = (&group.owners, roots.owners) {
            let records = Mapping::records(&owners.mappings);
            owners.tree.emit(&records, &home, root, &owners.blocks, &mut put);
        }
    }
}

/// The record of a chunk of inodes (`xfs_inobt_rec`): all but the last are in use.
fn chunk(group: &Finished, index: u32) -> [u8; 16] {
    let first = group.chunks_at * INODES_PER_BLOCK + index * CHUNK;
    let used = (group.inodes - index * CHUNK).min(CHUNK);
    let free = if used == CHUNK { 0 } else { u64::MAX << used };
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&first.to_be_bytes());
    // No part of the chunk is a hole.
    bytes[6] = CHUNK as u8;
    bytes[7] = (CHUNK - used) as u8;
    bytes[8..].copy_from_slice(&free.to_be_bytes());
    bytes
}
