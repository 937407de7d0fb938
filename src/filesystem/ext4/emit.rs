//! Writes what `Layout` decided: each structure at its place.

use std::ops::Range;

use zerocopy::{FromZeros, IntoBytes};

use super::checksum::{self, Crc};
use super::directory;
use super::extent::FileMap;
use super::geometry::{LOG_GROUPS_PER_FLEX, POINTERS_PER_BLOCK, group_start};
use super::hash::{FLAG_SIGNED, HALF_MD4, Seed};
use super::inode::{self, Record};
use super::layout::{LOST_AND_FOUND_BLOCKS, Layout};
use super::on_disk::{
    BLOCK, BLOCK_BYTES, BLOCKS_PER_GROUP, COMPAT, COMPAT_RESIZE_INODE, DESCRIPTOR_BYTES,
    EXTRA_BYTES, FIRST_INODE, FLAG_EXTENTS, FLAG_VERITY, GROUP_BLOCK_UNINIT, GROUP_INODE_UNINIT,
    GROUP_INODE_ZEROED, GroupDescriptor, INCOMPAT, INODE_BYTES, INODE_XATTR_BYTES, Inode,
    JOURNAL_INODE, MAGIC, RESIZE_INODE, RO_COMPAT, ROOT_INODE, SuperBlock,
};
use super::{journal, verity, xattr};
use crate::sparse::SparseMap;
use crate::tree::{Kind, Tree};

/// `s_state`: cleanly unmounted.
const CLEAN: u16 = 1;
/// `s_errors`: go on after an error, as mke2fs has it.
const CONTINUE: u16 = 1;
/// `s_rev_level`: inode sizes and features vary.
const DYNAMIC: u32 = 1;
/// `s_default_mount_opts`: user_xattr, acl.
const MOUNT_OPTIONS: u32 = 0x4 | 0x8;
/// `s_checksum_type`.
const CRC32C: u8 = 1;
/// `s_jnl_backup_type`: `s_jnl_blocks` is a copy of the journal inode's `i_block` and size.
const JOURNAL_BACKUP: u8 = 1;

impl Layout {
    /// The file system. `tree` is the one it was laid out for.
    pub fn emit(&self, tree: &Tree) -> SparseMap {
        let filesystem = Crc::of_filesystem(&self.options.uuid);
        let mut volume = SparseMap::new(self.options.size);
        let mut tables = InodeTables::new(self);
        self.emit_own_inodes(filesystem, &mut tables, &mut volume);
        self.emit_tree(tree, filesystem, &mut tables, &mut volume);
        for (shared, &number) in self.census.shared.iter().zip(&self.places.xattrs) {
            let mut block = shared.bytes.clone();
            xattr::seal(&mut block, shared.references, number, filesystem);
            volume.put(number * BLOCK, block);
        }
        let descriptors = self.emit_groups(&tables, filesystem, &mut volume);
        tables.emit(self, &mut volume);
        self.emit_super_blocks(&descriptors, &mut volume);
        volume
    }

    /// Everything in the tree: inodes, and the blocks of files, directories and links.
    fn emit_tree(
        &self,
        tree: &Tree,
        filesystem: Crc,
        tables: &mut InodeTables,
        volume: &mut SparseMap,
    ) {
        let seed = Seed::new(&self.options.hash_seed);
        for (counted, map) in self.census.inodes.iter().zip(&self.places.files) {
            let inode = tree.inode(counted.id);
            let seal = filesystem.of_inode(counted.number);
            let mut indexed = false;
            let size = match &inode.kind {
                Kind::Directory(_) => {
                    let directory = self.census.directory(tree, counted.id, seed);
                    let directory = directory.expect("the tree is the one that was laid out");
                    indexed = directory.is_indexed();
                    let bytes = directory.emit(counted.number, counted.parent, seal);
                    map.emit_bytes(&bytes, volume);
                    bytes.len() as u64
                }
                Kind::File(content) => {
                    map.emit_content(content, volume);
                    if let Some(verity) = tree.verity(counted.id) {
                        verity::emit(map, content, verity, volume);
                    }
                    content.size
                }
                Kind::Symlink(target) => {
                    map.emit_bytes(target, volume);
                    target.len() as u64
                }
                _ => 0,
            };
            map.emit_nodes(seal, volume);
            let verity = tree.verity(counted.id).map_or(0, |_| FLAG_VERITY);
            let flags = inode::flags(inode, indexed) | verity;
            let xattr_block = counted.xattrs.map(|shared| self.places.xattrs[shared]);
            let encoded = xattr::encode(&inode.metadata.xattrs);
            let record = Record {
                mode: inode.st_mode(),
                uid: inode.metadata.uid,
                gid: inode.metadata.gid,
                time: inode.metadata.mtime,
                links: counted.links,
                size,
                blocks: map.block_count() + u64::from(xattr_block.is_some()),
                flags,
                block: match flags & FLAG_EXTENTS {
                    0 => inode::inline_block(&inode.kind),
                    _ => map.root(),
                },
                xattr_block: xattr_block.unwrap_or(0),
                xattrs: encoded.expect("the tree is the one that was laid out").inode,
            };
            let directory = inode.is_directory();
            tables.put(counted.number, &record.encode(counted.number, filesystem), directory);
        }
    }

    /// The inodes that are not of the tree: reserved ones, journal, resize inode, lost+found.
    fn emit_own_inodes(&self, filesystem: Crc, tables: &mut InodeTables, volume: &mut SparseMap) {
        for number in (1..FIRST_INODE).filter(|&number| number != ROOT_INODE) {
            tables.put(number, &inode::unused(number, filesystem), false);
        }

        let journal = &self.places.journal;
        let blocks = self.options.journal_blocks;
        let seal = filesystem.of_inode(JOURNAL_INODE);
        journal.emit_bytes(&journal::super_block(blocks, &self.options.uuid), volume);
        journal.emit_nodes(seal, volume);
        let record = self.record(0o100_600, 1, u64::from(blocks) * BLOCK, journal);
        tables.put(JOURNAL_INODE, &record.encode(JOURNAL_INODE, filesystem), false);

        if let Some(block) = self.places.resize {
            let record = self.emit_resize_inode(block, volume);
            tables.put(RESIZE_INODE, &record.encode(RESIZE_INODE, filesystem), false);
        }

        if let Some(map) = &self.places.lost_and_found {
            let seal = filesystem.of_inode(FIRST_INODE);
            let blocks = LOST_AND_FOUND_BLOCKS as usize;
            let bytes = directory::emit_empty(blocks, FIRST_INODE, ROOT_INODE, seal);
            map.emit_bytes(&bytes, volume);
            let record = self.record(0o040_700, 2, LOST_AND_FOUND_BLOCKS * BLOCK, map);
            tables.put(FIRST_INODE, &record.encode(FIRST_INODE, filesystem), true);
        }
    }

    /// An inode of ours: root's, made when the file system is.
    fn record(&self, mode: u32, links: u16, size: u64, map: &FileMap) -> Record {
        Record {
            mode,
            uid: 0,
            gid: 0,
            time: self.options.time,
            links,
            size,
            blocks: map.block_count(),
            flags: FLAG_EXTENTS,
            block: map.root(),
            xattr_block: 0,
            xattrs: [0; INODE_XATTR_BYTES],
        }
    }

    /// The resize inode is a file with old-style indirect blocks: its double-indirect block names the reserved descriptor
    /// blocks of group 0, and each of those, being an indirect block, its copies in the groups with backups.
    fn emit_resize_inode(&self, block: u64, volume: &mut SparseMap) -> Record {
        let first = 1 + self.geometry.descriptor_blocks;
        let count = self.geometry.reserved_descriptor_blocks;
        let backups: Vec<u32> = self.geometry.backups().collect();
        let mut double = vec![0; BLOCK_BYTES];
        for reserved in first..first + count {
            // Counted from the first descriptor block; past 1024 of them the count begins anew.
            put_pointer(&mut double, (reserved - 1) % POINTERS_PER_BLOCK, reserved);
            if !backups.is_empty() {
                let mut indirect = vec![0; BLOCK_BYTES];
                for (index, &group) in (0..).zip(&backups) {
                    put_pointer(&mut indirect, index, group_start(group) + reserved);
                }
                volume.put(reserved * BLOCK, indirect);
            }
        }
        volume.put(block * BLOCK, double);
        let mut pointers = [0; 60];
        // 12 direct, one indirect, then the double-indirect block.
        pointers[13 * 4..14 * 4].copy_from_slice(&(block as u32).to_le_bytes());
        let whole = POINTERS_PER_BLOCK * POINTERS_PER_BLOCK + POINTERS_PER_BLOCK + 12;
        let none = FileMap::default();
        Record {
            flags: 0,
            block: pointers,
            blocks: 1 + count * (1 + backups.len() as u64),
            ..self.record(0o100_600, 1, whole * BLOCK, &none)
        }
    }

    /// Bitmaps, where they say more than that all is free. Returns the descriptors of all groups.
    fn emit_groups(
        &self,
        tables: &InodeTables,
        filesystem: Crc,
        volume: &mut SparseMap,
    ) -> Vec<u8> {
        let geometry = &self.geometry;
        let mut bytes = Vec::with_capacity(geometry.group_count() as usize * DESCRIPTOR_BYTES);
        let mut used = self.used.as_slice();
        for (group, place) in (0..geometry.group_count()).zip(&geometry.tables) {
            let range = geometry.group_range(group);
            // Ranges that end before this group are done with.
            let done = used.iter().take_while(|used| used.end <= range.start).count();
            used = &used[done..];
            let here = || clip(used, &range);
            let count: u64 = here().map(|used| used.end - used.start).sum();
            let mut descriptor = GroupDescriptor::new_zeroed();
            let mut flags = GROUP_INODE_ZEROED;
            let last = group + 1 == geometry.group_count();
            if group > 0 && !last && count == geometry.base_blocks(group) {
                flags |= GROUP_BLOCK_UNINIT;
            } else {
                let end = (range.end - range.start) as usize..8 * BLOCK_BYTES;
                let ranges = here().map(|used| used.start as usize..used.end as usize);
                let bitmap = bitmap(ranges.chain(std::iter::once(end)));
                let sum = filesystem.with(&bitmap).value();
                descriptor.bg_block_bitmap_csum_lo.set(sum as u16);
                descriptor.bg_block_bitmap_csum_hi.set((sum >> 16) as u16);
                volume.put(place.block_bitmap * BLOCK, bitmap);
            }
            let inodes = tables.used(group);
            if inodes == 0 {
                flags |= GROUP_INODE_UNINIT;
            } else {
                let all = geometry.inodes_per_group as usize;
                let bitmap = bitmap([0..inodes as usize, all..8 * BLOCK_BYTES].into_iter());
                let sum = filesystem.with(&bitmap[..all / 8]).value();
                descriptor.bg_inode_bitmap_csum_lo.set(sum as u16);
                descriptor.bg_inode_bitmap_csum_hi.set((sum >> 16) as u16);
                volume.put(place.inode_bitmap * BLOCK, bitmap);
            }
            descriptor.bg_flags.set(flags);
            let (lo, hi) = (&mut descriptor.bg_block_bitmap_lo, &mut descriptor.bg_block_bitmap_hi);
            set_halves(lo, hi, place.block_bitmap);
            let (lo, hi) = (&mut descriptor.bg_inode_bitmap_lo, &mut descriptor.bg_inode_bitmap_hi);
            set_halves(lo, hi, place.inode_bitmap);
            let (lo, hi) = (&mut descriptor.bg_inode_table_lo, &mut descriptor.bg_inode_table_hi);
            set_halves(lo, hi, place.inode_table);
            // A group has at most 32768 of anything: the upper halves stay zero.
            let free_inodes = (geometry.inodes_per_group - inodes) as u16;
            descriptor.bg_free_blocks_count_lo.set((range.end - range.start - count) as u16);
            descriptor.bg_free_inodes_count_lo.set(free_inodes);
            descriptor.bg_itable_unused_lo.set(free_inodes);
            descriptor.bg_used_dirs_count_lo.set(tables.directories(group) as u16);
            checksum::seal_descriptor(&mut descriptor, group, filesystem);
            bytes.extend(descriptor.as_bytes());
        }
        bytes
    }

    /// Super block and descriptors, and their copies.
    fn emit_super_blocks(&self, descriptors: &[u8], volume: &mut SparseMap) {
        let mut block = self.super_block();
        for group in std::iter::once(0).chain(self.geometry.backups()) {
            let start = group_start(group) * BLOCK;
            block.s_block_group_nr.set(group as u16);
            checksum::seal_super_block(&mut block);
            // Group 0 leaves room for a boot sector.
            let offset = if group == 0 { 1024 } else { 0 };
            volume.put(start + offset, block.as_bytes().to_vec());
            volume.put(start + BLOCK, descriptors.to_vec());
        }
    }

    fn super_block(&self) -> SuperBlock {
        let Layout { options, geometry, .. } = self;
        let usage = self.usage();
        let reserved = geometry.blocks * u64::from(options.reserved_percent) / 100;
        let (time, time_hi) = (options.time as u32, (options.time >> 32) as u8);
        let mut block = SuperBlock::new_zeroed();
        block.s_inodes_count.set(usage.inodes);
        block.s_free_inodes_count.set(usage.free_inodes);
        set_halves(&mut block.s_blocks_count_lo, &mut block.s_blocks_count_hi, usage.blocks);
        set_halves(&mut block.s_r_blocks_count_lo, &mut block.s_r_blocks_count_hi, reserved);
        let (lo, hi) = (&mut block.s_free_blocks_count_lo, &mut block.s_free_blocks_count_hi);
        set_halves(lo, hi, usage.free_blocks);
        // 1024 << 2, and no clusters larger than blocks.
        block.s_log_block_size.set(2);
        block.s_log_cluster_size.set(2);
        block.s_blocks_per_group.set(BLOCKS_PER_GROUP as u32);
        block.s_clusters_per_group.set(BLOCKS_PER_GROUP as u32);
        block.s_inodes_per_group.set(geometry.inodes_per_group);
        // s_mtime, s_mnt_count: zero, it was never mounted. s_max_mnt_count: minus one, no check by count.
        block.s_max_mnt_count.set(u16::MAX);
        block.s_magic.set(MAGIC);
        block.s_state.set(CLEAN);
        block.s_errors.set(CONTINUE);
        block.s_rev_level.set(DYNAMIC);
        for field in [&mut block.s_wtime, &mut block.s_lastcheck, &mut block.s_mkfs_time] {
            field.set(time);
        }
        block.s_wtime_hi = time_hi;
        block.s_lastcheck_hi = time_hi;
        block.s_mkfs_time_hi = time_hi;
        block.s_first_ino.set(FIRST_INODE);
        block.s_inode_size.set(INODE_BYTES as u16);
        let resize = self.places.resize.map_or(0, |_| COMPAT_RESIZE_INODE);
        block.s_feature_compat.set(COMPAT | resize);
        block.s_feature_incompat.set(INCOMPAT);
        block.s_feature_ro_compat.set(RO_COMPAT);
        block.s_uuid = *options.uuid.as_bytes();
        block.s_volume_name[..options.label.len()].copy_from_slice(options.label.as_bytes());
        block.s_reserved_gdt_blocks.set(geometry.reserved_descriptor_blocks as u16);
        block.s_journal_inum.set(JOURNAL_INODE);
        block.s_jnl_backup_type = JOURNAL_BACKUP;
        let root = self.places.journal.root();
        for (place, word) in block.s_jnl_blocks.iter_mut().zip(root.as_chunks::<4>().0) {
            place.set(u32::from_le_bytes(*word));
        }
        let journal = u64::from(options.journal_blocks) * BLOCK;
        block.s_jnl_blocks[15].set((journal >> 32) as u32);
        block.s_jnl_blocks[16].set(journal as u32);
        block.s_hash_seed = *options.hash_seed.as_bytes();
        block.s_def_hash_version = HALF_MD4;
        block.s_flags.set(FLAG_SIGNED);
        block.s_desc_size.set(DESCRIPTOR_BYTES as u16);
        block.s_default_mount_opts.set(MOUNT_OPTIONS);
        block.s_min_extra_isize.set(EXTRA_BYTES);
        block.s_want_extra_isize.set(EXTRA_BYTES);
        block.s_log_groups_per_flex = LOG_GROUPS_PER_FLEX;
        block.s_checksum_type = CRC32C;
        let metadata: u64 = geometry.metadata().iter().map(|range| range.end - range.start).sum();
        block.s_overhead_blocks.set((metadata + u64::from(options.journal_blocks)) as u32);
        block
    }
}

/// The used part of each group's inode table. Numbers are dense, so that is all groups up to some, and the start of one.
struct InodeTables {
    per_group: u32,
    groups: Vec<GroupInodes>,
}

#[derive(Clone, Default)]
struct GroupInodes {
    used: u32,
    directories: u32,
    bytes: Vec<u8>,
}

impl InodeTables {
    fn new(layout: &Layout) -> Self {
        let per_group = layout.geometry.inodes_per_group;
        let mut left = layout.census.last_number();
        let mut groups = Vec::new();
        while left > 0 {
            let used = left.min(per_group);
            let bytes = vec![0; (used as usize * INODE_BYTES).next_multiple_of(BLOCK_BYTES)];
            groups.push(GroupInodes { used, directories: 0, bytes });
            left -= used;
        }
        Self { per_group, groups }
    }

    /// Sets an inode; the journal's and the like were set as unused before.
    fn put(&mut self, number: u32, inode: &Inode, directory: bool) {
        let (group, index) = ((number - 1) / self.per_group, (number - 1) % self.per_group);
        let group = &mut self.groups[group as usize];
        let start = index as usize * INODE_BYTES;
        group.bytes[start..start + INODE_BYTES].copy_from_slice(inode.as_bytes());
        group.directories += u32::from(directory);
    }

    fn used(&self, group: u32) -> u32 {
        self.groups.get(group as usize).map_or(0, |group| group.used)
    }

    fn directories(&self, group: u32) -> u32 {
        self.groups.get(group as usize).map_or(0, |group| group.directories)
    }

    fn emit(self, layout: &Layout, volume: &mut SparseMap) {
        for (group, place) in self.groups.into_iter().zip(&layout.geometry.tables) {
            volume.put(place.inode_table * BLOCK, group.bytes);
        }
    }
}

/// The parts of sorted ranges that lie in `range`, counted from its start.
fn clip<'a>(
    ranges: &'a [Range<u64>],
    range: &'a Range<u64>,
) -> impl Iterator<Item = Range<u64>> + use<'a> {
    ranges.iter().take_while(|part| part.start < range.end).map(|part| {
        part.start.max(range.start) - range.start..part.end.min(range.end) - range.start
    })
}

/// A bitmap block with these bits set.
fn bitmap(ranges: impl Iterator<Item = Range<usize>>) -> Vec<u8> {
    let mut bytes = vec![0_u8; BLOCK_BYTES];
    for range in ranges {
        let mut bit = range.start;
        while bit < range.end {
            if bit.is_multiple_of(8) && bit + 8 <= range.end {
                let end = range.end / 8;
                bytes[bit / 8..end].fill(0xff);
                bit = end * 8;
            } else {
                bytes[bit / 8] |= 1 << (bit % 8);
                bit += 1;
            }
        }
    }
    bytes
}

fn put_pointer(block: &mut [u8], index: u64, pointer: u64) {
    let start = index as usize * 4;
    block[start..start + 4].copy_from_slice(&(pointer as u32).to_le_bytes());
}

fn set_halves(
    lo: &mut zerocopy::little_endian::U32,
    hi: &mut zerocopy::little_endian::U32,
    value: u64,
) {
    lo.set(value as u32);
    hi.set((value >> 32) as u32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmaps_have_their_lowest_bit_first() {
        let bytes = bitmap([0..3, 8..17, 30..31].into_iter());
        assert_eq!(bytes[..5], [0b111, 0xff, 1, 0x40, 0]);
        assert_eq!(bitmap(std::iter::once(5..32_768))[..2], [0xe0, 0xff]);
    }
}
