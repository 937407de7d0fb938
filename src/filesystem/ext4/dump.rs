//! An annotated dump of a file system's metadata, for people and for goldens.
//!
//! It reads what `emit` wrote through the same structures, so it witnesses that bytes changed, not that they are right.

use std::io;

use super::on_disk::{
    BLOCK, BLOCK_BYTES, DESCRIPTOR_BYTES, ExtentHeader, ExtentIndex, ExtentLeaf, FLAG_EXTENTS,
    GROUP_BLOCK_UNINIT, GROUP_INODE_UNINIT, GroupDescriptor, INODE_BYTES, Inode, JournalSuperBlock,
    SuperBlock,
};
use crate::content::ContentStore;
use crate::filesystem::dump::{Dump, fields, text};
use crate::sparse::SparseMap;

/// Super block, descriptors, bitmaps, and each inode in use with its directory entries, as text.
/// Fails if reading the store does, or if the volume is not a whole ext4 of ours.
pub fn dump(volume: &SparseMap, contents: &ContentStore) -> io::Result<String> {
    let mut dump = Ext4(Dump::of(volume, contents, "ext4"));
    dump.filesystem()?;
    Ok(dump.0.finish())
}

/// What is dumped of such a file system.
struct Ext4<'a>(Dump<'a>);

impl Ext4<'_> {
    fn filesystem(&mut self) -> io::Result<()> {
        let block = self.0.read::<SuperBlock>(1024)?;
        self.super_block(&block);
        let groups = block.s_blocks_count_lo.get().div_ceil(block.s_blocks_per_group.get());
        for group in 0..groups {
            let offset = BLOCK + u64::from(group) * DESCRIPTOR_BYTES as u64;
            let descriptor = self.0.read::<GroupDescriptor>(offset)?;
            self.group(group, offset, &descriptor, &block)?;
        }
        Ok(())
    }

    fn super_block(&mut self, block: &SuperBlock) {
        self.0.line("00000400 super block");
        fields!(
            self.0,
            SuperBlock,
            block,
            [
                s_inodes_count,
                s_blocks_count_lo,
                s_r_blocks_count_lo,
                s_free_blocks_count_lo,
                s_free_inodes_count,
                s_first_data_block,
                s_log_block_size,
                s_log_cluster_size,
                s_blocks_per_group,
                s_clusters_per_group,
                s_inodes_per_group,
                s_mtime,
                s_wtime,
                s_mnt_count,
                s_max_mnt_count,
                s_magic,
                s_state,
                s_errors,
                s_lastcheck,
                s_rev_level,
                s_first_ino,
                s_inode_size,
                s_block_group_nr,
                s_feature_compat,
                s_feature_incompat,
                s_feature_ro_compat,
                s_reserved_gdt_blocks,
                s_journal_inum,
                s_desc_size,
                s_default_mount_opts,
                s_mkfs_time,
                s_blocks_count_hi,
                s_free_blocks_count_hi,
                s_min_extra_isize,
                s_want_extra_isize,
                s_flags,
                s_kbytes_written,
                s_overhead_blocks,
                s_checksum,
            ]
        );
        self.0.line(&format!("   +068  s_uuid: {}", uuid::Uuid::from_bytes(block.s_uuid)));
        self.0.line(&format!("   +078  s_volume_name: \"{}\"", text(&block.s_volume_name)));
        self.0
            .line(&format!("   +0ec  s_hash_seed: {}", uuid::Uuid::from_bytes(block.s_hash_seed)));
        let (hash, flex, sum) =
            (block.s_def_hash_version, block.s_log_groups_per_flex, block.s_checksum_type);
        self.0.line(&format!(
            "   +0fc  s_def_hash_version: {hash}, s_log_groups_per_flex: {flex}, s_checksum_type: {sum}"
        ));
    }

    fn group(
        &mut self,
        group: u32,
        offset: u64,
        descriptor: &GroupDescriptor,
        block: &SuperBlock,
    ) -> io::Result<()> {
        self.0.line(&format!("{offset:08x} descriptor of group {group}"));
        fields!(
            self.0,
            GroupDescriptor,
            descriptor,
            [
                bg_block_bitmap_lo,
                bg_inode_bitmap_lo,
                bg_inode_table_lo,
                bg_free_blocks_count_lo,
                bg_free_inodes_count_lo,
                bg_used_dirs_count_lo,
                bg_flags,
                bg_block_bitmap_csum_lo,
                bg_inode_bitmap_csum_lo,
                bg_itable_unused_lo,
                bg_checksum,
                bg_block_bitmap_hi,
                bg_inode_bitmap_hi,
                bg_inode_table_hi,
                bg_block_bitmap_csum_hi,
                bg_inode_bitmap_csum_hi,
            ]
        );
        let flags = descriptor.bg_flags.get();
        if flags & GROUP_BLOCK_UNINIT == 0 {
            self.bitmap("block", descriptor.bg_block_bitmap_lo.get())?;
        }
        if flags & GROUP_INODE_UNINIT != 0 {
            return Ok(());
        }
        self.bitmap("inode", descriptor.bg_inode_bitmap_lo.get())?;
        let per_group = block.s_inodes_per_group.get();
        let used = per_group.saturating_sub(descriptor.bg_itable_unused_lo.get().into());
        for index in 0..used {
            let number = group * per_group + index + 1;
            let table = u64::from(descriptor.bg_inode_table_lo.get()) * BLOCK;
            let offset = table + u64::from(index) * INODE_BYTES as u64;
            let inode = self.0.read::<Inode>(offset)?;
            self.inode(number, offset, &inode)?;
        }
        Ok(())
    }

    /// A bitmap as the ranges of its set bits.
    fn bitmap(&mut self, what: &str, block: u32) -> io::Result<()> {
        let offset = u64::from(block) * BLOCK;
        let bytes = self.0.bytes(offset, BLOCK_BYTES)?;
        let bit = |bit: usize| bytes[bit / 8] >> (bit % 8) & 1 == 1;
        let mut ranges = Vec::new();
        let mut start = 0;
        for end in 1..=8 * bytes.len() {
            if end == 8 * bytes.len() || bit(end) != bit(start) {
                if bit(start) {
                    ranges.push(format!("{start}-{}", end - 1));
                }
                start = end;
            }
        }
        self.0.line(&format!("{offset:08x} {what} bitmap: {}", ranges.join(" ")));
        Ok(())
    }

    fn inode(&mut self, number: u32, offset: u64, inode: &Inode) -> io::Result<()> {
        self.0.line(&format!("{offset:08x} inode {number}"));
        fields!(
            self.0,
            Inode,
            inode,
            [
                i_mode,
                i_uid,
                i_size_lo,
                i_atime,
                i_ctime,
                i_mtime,
                i_gid,
                i_links_count,
                i_blocks_lo,
                i_flags,
                i_file_acl_lo,
                i_size_high,
                i_uid_high,
                i_gid_high,
                i_checksum_lo,
                i_extra_isize,
                i_checksum_hi,
                i_ctime_extra,
                i_mtime_extra,
                i_atime_extra,
                i_crtime,
                i_crtime_extra,
            ]
        );
        if inode.i_xattrs != [0; 96] {
            self.0.line(&format!("   +0a0  extended attributes: {}", text(&inode.i_xattrs)));
        }
        let xattrs = u64::from(inode.i_file_acl_lo.get()) * BLOCK;
        if xattrs != 0 {
            let bytes = self.0.bytes(xattrs, BLOCK_BYTES)?;
            self.0.line(&format!("{xattrs:08x} extended attributes: {}", text(&bytes)));
        }
        if inode.i_flags.get() & FLAG_EXTENTS == 0 {
            if inode.i_block != [0; 60] {
                self.0.line(&format!("   +028  i_block: {}", text(&inode.i_block)));
            }
            return Ok(());
        }
        self.extents(&inode.i_block, inode.i_mode.get() & 0o170_000 == 0o040_000)?;
        let journal = number == super::on_disk::JOURNAL_INODE;
        if journal {
            let (extent, _) = self.0.prefix::<ExtentLeaf>(&inode.i_block[12..])?;
            self.journal(u64::from(extent.ee_start_lo.get()) * BLOCK)?;
        }
        Ok(())
    }

    /// A node of an extent tree, what is below it, and the names if it is a directory's.
    fn extents(&mut self, node: &[u8], directory: bool) -> io::Result<()> {
        let (header, entries) = self.0.prefix::<ExtentHeader>(node)?;
        for entry in entries.chunks_exact(12).take(header.eh_entries.get().into()) {
            if header.eh_depth.get() > 0 {
                let (index, _) = self.0.prefix::<ExtentIndex>(entry)?;
                let offset = u64::from(index.ei_leaf_lo.get()) * BLOCK;
                self.0.line(&format!("{offset:08x} node of extents"));
                let node = self.0.bytes(offset, BLOCK_BYTES)?;
                self.extents(&node, directory)?;
                continue;
            }
            let (extent, _) = self.0.prefix::<ExtentLeaf>(entry)?;
            let (logical, count) = (extent.ee_block.get(), extent.ee_len.get());
            let start = extent.ee_start_lo.get();
            self.0.line(&format!("   extent: blocks {logical}+{count} at {start}"));
            for block in (start..start + u32::from(count)).filter(|_| directory) {
                self.directory(u64::from(block) * BLOCK)?;
            }
        }
        Ok(())
    }

    fn directory(&mut self, offset: u64) -> io::Result<()> {
        let bytes = self.0.bytes(offset, BLOCK_BYTES)?;
        self.0.line(&format!("{offset:08x} directory block"));
        let mut position = 0;
        while let Some(&[a, b, c, d, length_lo, length_hi, name_len, file_type]) =
            bytes.get(position..).and_then(|rest| rest.first_chunk())
        {
            let number = u32::from_le_bytes([a, b, c, d]);
            let length = usize::from(u16::from_le_bytes([length_lo, length_hi]));
            let end = position + 8 + usize::from(name_len);
            let name = bytes.get(position + 8..end).ok_or_else(|| self.0.broken())?;
            let line = match (number, file_type) {
                (0, 0xde) => {
                    format!("   +{position:03x}  tail, checksum {}", hex(&bytes[position + 8..]))
                }
                _ => format!(
                    "   +{position:03x}  {number} type {file_type} \"{}\" ({length} bytes)",
                    name.escape_ascii()
                ),
            };
            self.0.line(&line);
            position += length.max(8);
        }
        Ok(())
    }

    fn journal(&mut self, offset: u64) -> io::Result<()> {
        let block = self.0.read::<JournalSuperBlock>(offset)?;
        self.0.line(&format!("{offset:08x} super block of the journal"));
        fields!(
            self.0,
            JournalSuperBlock,
            block,
            [
                h_magic,
                h_blocktype,
                h_sequence,
                s_blocksize,
                s_maxlen,
                s_first,
                s_sequence,
                s_start,
                s_errno,
                s_feature_compat,
                s_feature_incompat,
                s_feature_ro_compat,
                s_nr_users,
                s_checksum,
            ]
        );
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}
