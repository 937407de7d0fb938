//! The structures of ext4 as they are on disk, under the kernel documentation's names ("ext4 Data Structures and Algorithms").
//!
//! A blank line follows every 16 bytes, so that a structure can be laid beside a hex dump. Everything is little-endian but
//! the journal, which is big-endian.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, big_endian};

/// Bytes of a block; the only size we write, being the page size of what we boot.
pub(super) const BLOCK: u64 = 4096;
/// [`BLOCK`] as a `usize`, for slices.
pub(super) const BLOCK_BYTES: usize = BLOCK as usize;
/// One bitmap block tells of as many blocks as it has bits.
pub(super) const BLOCKS_PER_GROUP: u64 = 8 * BLOCK;
/// Bytes of an inode.
pub(super) const INODE_BYTES: usize = 256;
/// `s_inodes_per_group` may not exceed the bits of one bitmap block.
pub(super) const MAX_INODES_PER_GROUP: u32 = 8 * BLOCK as u32;
/// `s_desc_size` with the feature 64bit.
pub(super) const DESCRIPTOR_BYTES: usize = 64;
/// `i_extra_isize`: what of the inode lies behind the classic 128 bytes, up to and with `i_projid`.
pub(super) const EXTRA_BYTES: u16 = 32;
/// What is left of an inode for extended attributes.
pub(super) const INODE_XATTR_BYTES: usize = 96;

/// The root directory.
pub(super) const ROOT_INODE: u32 = 2;
/// Holds the reserved descriptor blocks.
pub(super) const RESIZE_INODE: u32 = 7;
/// The journal.
pub(super) const JOURNAL_INODE: u32 = 8;
/// `s_first_ino`: the first that is not reserved; lost+found's, as mke2fs has it.
pub(super) const FIRST_INODE: u32 = 11;

/// `s_magic`.
pub(super) const MAGIC: u16 = 0xef53;
/// `s_feature_compat`: has_journal, ext_attr, dir_index. resize_inode is added where it works.
pub(super) const COMPAT: u32 = 0x4 | 0x8 | 0x20;
/// `s_feature_compat`: resize_inode.
pub(super) const COMPAT_RESIZE_INODE: u32 = 0x10;
/// `s_feature_incompat`: filetype, extents, 64bit, flex_bg. GRUB 2.06 reads all of them.
pub(super) const INCOMPAT: u32 = 0x2 | 0x40 | 0x80 | 0x200;
/// `s_feature_ro_compat`: sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum, verity.
pub(super) const RO_COMPAT: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400 | 0x8000;

/// `i_flags`: `chattr +i`.
pub(super) const FLAG_IMMUTABLE: u32 = 0x10;
/// `i_flags`: the directory has a hash tree.
pub(super) const FLAG_INDEX: u32 = 0x1000;
/// `i_flags`: `i_block` holds an extent tree.
pub(super) const FLAG_EXTENTS: u32 = 0x8_0000;
/// `i_flags`: the file is read-only for good, and its hashes lie behind its end.
pub(super) const FLAG_VERITY: u32 = 0x10_0000;

/// `bg_flags`: the inode bitmap was never written; all are free.
pub(super) const GROUP_INODE_UNINIT: u16 = 1;
/// `bg_flags`: the block bitmap was never written; used is what the group's own place implies.
pub(super) const GROUP_BLOCK_UNINIT: u16 = 2;
/// `bg_flags`: the inode table is zero where it is not used, so that the kernel need not clear it.
pub(super) const GROUP_INODE_ZEROED: u16 = 4;

/// The super block, at byte 1024 and at the start of some groups.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SuperBlock {
    pub(super) s_inodes_count: U32,
    pub(super) s_blocks_count_lo: U32,
    pub(super) s_r_blocks_count_lo: U32,
    pub(super) s_free_blocks_count_lo: U32,

    pub(super) s_free_inodes_count: U32,
    pub(super) s_first_data_block: U32,
    pub(super) s_log_block_size: U32,
    pub(super) s_log_cluster_size: U32,

    pub(super) s_blocks_per_group: U32,
    pub(super) s_clusters_per_group: U32,
    pub(super) s_inodes_per_group: U32,
    pub(super) s_mtime: U32,

    pub(super) s_wtime: U32,
    pub(super) s_mnt_count: U16,
    pub(super) s_max_mnt_count: U16,
    pub(super) s_magic: U16,
    pub(super) s_state: U16,
    pub(super) s_errors: U16,
    pub(super) s_minor_rev_level: U16,

    pub(super) s_lastcheck: U32,
    pub(super) s_checkinterval: U32,
    pub(super) s_creator_os: U32,
    pub(super) s_rev_level: U32,

    pub(super) s_def_resuid: U16,
    pub(super) s_def_resgid: U16,
    pub(super) s_first_ino: U32,
    pub(super) s_inode_size: U16,
    pub(super) s_block_group_nr: U16,
    pub(super) s_feature_compat: U32,

    pub(super) s_feature_incompat: U32,
    pub(super) s_feature_ro_compat: U32,
    pub(super) s_uuid: [u8; 16],
    pub(super) s_volume_name: [u8; 16],
    pub(super) s_last_mounted: [u8; 64],
    pub(super) s_algorithm_usage_bitmap: U32,
    pub(super) s_prealloc_blocks: u8,
    pub(super) s_prealloc_dir_blocks: u8,
    pub(super) s_reserved_gdt_blocks: U16,

    pub(super) s_journal_uuid: [u8; 16],

    pub(super) s_journal_inum: U32,
    pub(super) s_journal_dev: U32,
    pub(super) s_last_orphan: U32,
    pub(super) s_hash_seed: [u8; 16],
    pub(super) s_def_hash_version: u8,
    pub(super) s_jnl_backup_type: u8,
    pub(super) s_desc_size: U16,

    pub(super) s_default_mount_opts: U32,
    pub(super) s_first_meta_bg: U32,
    pub(super) s_mkfs_time: U32,
    pub(super) s_jnl_blocks: [U32; 17],

    pub(super) s_blocks_count_hi: U32,
    pub(super) s_r_blocks_count_hi: U32,
    pub(super) s_free_blocks_count_hi: U32,
    pub(super) s_min_extra_isize: U16,
    pub(super) s_want_extra_isize: U16,

    pub(super) s_flags: U32,
    pub(super) s_raid_stride: U16,
    pub(super) s_mmp_interval: U16,
    pub(super) s_mmp_block: U64,

    pub(super) s_raid_stripe_width: U32,
    pub(super) s_log_groups_per_flex: u8,
    pub(super) s_checksum_type: u8,
    pub(super) s_reserved_pad: U16,
    pub(super) s_kbytes_written: U64,

    // s_snapshot_*, s_error_count, s_first_error_*, s_last_error_*: nothing has happened yet.
    pub(super) s_snapshots_and_errors: [u8; 128],

    pub(super) s_mount_opts: [u8; 64],

    pub(super) s_usr_quota_inum: U32,
    pub(super) s_grp_quota_inum: U32,
    pub(super) s_overhead_blocks: U32,
    pub(super) s_backup_bgs: [U32; 2],
    pub(super) s_encrypt_algos: [u8; 4],
    pub(super) s_encrypt_pw_salt: [u8; 16],
    pub(super) s_lpf_ino: U32,
    pub(super) s_prj_quota_inum: U32,

    pub(super) s_checksum_seed: U32,
    pub(super) s_wtime_hi: u8,
    pub(super) s_mtime_hi: u8,
    pub(super) s_mkfs_time_hi: u8,
    pub(super) s_lastcheck_hi: u8,
    pub(super) s_first_error_time_hi: u8,
    pub(super) s_last_error_time_hi: u8,
    pub(super) s_first_error_errcode: u8,
    pub(super) s_last_error_errcode: u8,
    pub(super) s_encoding: U16,
    pub(super) s_encoding_flags: U16,

    pub(super) s_orphan_file_inum: U32,
    pub(super) s_reserved: [U32; 94],
    pub(super) s_checksum: U32,
}
const _: () = assert!(size_of::<SuperBlock>() == 1024);

/// A block group descriptor.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct GroupDescriptor {
    pub(super) bg_block_bitmap_lo: U32,
    pub(super) bg_inode_bitmap_lo: U32,
    pub(super) bg_inode_table_lo: U32,
    pub(super) bg_free_blocks_count_lo: U16,
    pub(super) bg_free_inodes_count_lo: U16,

    pub(super) bg_used_dirs_count_lo: U16,
    pub(super) bg_flags: U16,
    pub(super) bg_exclude_bitmap_lo: U32,
    pub(super) bg_block_bitmap_csum_lo: U16,
    pub(super) bg_inode_bitmap_csum_lo: U16,
    pub(super) bg_itable_unused_lo: U16,
    pub(super) bg_checksum: U16,

    pub(super) bg_block_bitmap_hi: U32,
    pub(super) bg_inode_bitmap_hi: U32,
    pub(super) bg_inode_table_hi: U32,
    pub(super) bg_free_blocks_count_hi: U16,
    pub(super) bg_free_inodes_count_hi: U16,

    pub(super) bg_used_dirs_count_hi: U16,
    pub(super) bg_itable_unused_hi: U16,
    pub(super) bg_exclude_bitmap_hi: U32,
    pub(super) bg_block_bitmap_csum_hi: U16,
    pub(super) bg_inode_bitmap_csum_hi: U16,
    pub(super) bg_reserved: U32,
}
const _: () = assert!(size_of::<GroupDescriptor>() == DESCRIPTOR_BYTES);

/// An inode.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Inode {
    pub(super) i_mode: U16,
    pub(super) i_uid: U16,
    pub(super) i_size_lo: U32,
    pub(super) i_atime: U32,
    pub(super) i_ctime: U32,

    pub(super) i_mtime: U32,
    pub(super) i_dtime: U32,
    pub(super) i_gid: U16,
    pub(super) i_links_count: U16,
    pub(super) i_blocks_lo: U32,

    pub(super) i_flags: U32,
    pub(super) i_version: U32,
    pub(super) i_block: [u8; 60],
    pub(super) i_generation: U32,
    pub(super) i_file_acl_lo: U32,
    pub(super) i_size_high: U32,

    pub(super) i_obso_faddr: U32,
    pub(super) i_blocks_high: U16,
    pub(super) i_file_acl_high: U16,
    pub(super) i_uid_high: U16,
    pub(super) i_gid_high: U16,
    pub(super) i_checksum_lo: U16,
    pub(super) i_reserved: U16,

    pub(super) i_extra_isize: U16,
    pub(super) i_checksum_hi: U16,
    pub(super) i_ctime_extra: U32,
    pub(super) i_mtime_extra: U32,
    pub(super) i_atime_extra: U32,

    pub(super) i_crtime: U32,
    pub(super) i_crtime_extra: U32,
    pub(super) i_version_hi: U32,
    pub(super) i_projid: U32,

    pub(super) i_xattrs: [u8; INODE_XATTR_BYTES],
}
const _: () = assert!(size_of::<Inode>() == INODE_BYTES);

/// Opens each node of an extent tree.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ExtentHeader {
    pub(super) eh_magic: U16,
    pub(super) eh_entries: U16,
    pub(super) eh_max: U16,
    pub(super) eh_depth: U16,
    pub(super) eh_generation: U32,
}
/// `eh_magic`.
pub(super) const EXTENT_MAGIC: u16 = 0xf30a;

/// A leaf entry: some blocks of the file, and where they are.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ExtentLeaf {
    pub(super) ee_block: U32,
    pub(super) ee_len: U16,
    pub(super) ee_start_hi: U16,
    pub(super) ee_start_lo: U32,
}

/// An inner entry: a node, and the first block of the file that it tells of.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ExtentIndex {
    pub(super) ei_block: U32,
    pub(super) ei_leaf_lo: U32,
    pub(super) ei_leaf_hi: U16,
    pub(super) ei_unused: U16,
}
const _: () = assert!(size_of::<ExtentHeader>() == 12);
const _: () = assert!(size_of::<ExtentLeaf>() == 12 && size_of::<ExtentIndex>() == 12);

/// Precedes a name in a directory.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DirectoryEntry {
    pub(super) inode: U32,
    pub(super) rec_len: U16,
    pub(super) name_len: u8,
    pub(super) file_type: u8,
}
const _: () = assert!(size_of::<DirectoryEntry>() == 8);

/// Ends a directory block; looks like an unused entry to whoever does not know it.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DirectoryTail {
    pub(super) det_reserved_zero1: U32,
    pub(super) det_rec_len: U16,
    pub(super) det_reserved_zero2: u8,
    pub(super) det_reserved_ft: u8,
    pub(super) det_checksum: U32,
}
const _: () = assert!(size_of::<DirectoryTail>() == 12);

/// In the root of a hash tree, after `.` and `..`.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct HashTreeInfo {
    pub(super) reserved_zero: U32,
    pub(super) hash_version: u8,
    pub(super) info_length: u8,
    pub(super) indirect_levels: u8,
    pub(super) unused_flags: u8,
}
const _: () = assert!(size_of::<HashTreeInfo>() == 8);

/// Opens a block of extended attributes; in an inode there is only the magic.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct XattrHeader {
    pub(super) h_magic: U32,
    pub(super) h_refcount: U32,
    pub(super) h_blocks: U32,
    pub(super) h_hash: U32,

    pub(super) h_checksum: U32,
    pub(super) h_reserved: [U32; 3],
}
const _: () = assert!(size_of::<XattrHeader>() == 32);
/// `h_magic`.
pub(super) const XATTR_MAGIC: u32 = 0xea02_0000;

/// Precedes the name of an extended attribute.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct XattrEntry {
    pub(super) e_name_len: u8,
    pub(super) e_name_index: u8,
    pub(super) e_value_offs: U16,
    pub(super) e_value_inum: U32,
    pub(super) e_value_size: U32,
    pub(super) e_hash: U32,
}
const _: () = assert!(size_of::<XattrEntry>() == 16);

/// The journal's super block, version 2, in the journal's first block.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct JournalSuperBlock {
    pub(super) h_magic: big_endian::U32,
    pub(super) h_blocktype: big_endian::U32,
    pub(super) h_sequence: big_endian::U32,
    pub(super) s_blocksize: big_endian::U32,

    pub(super) s_maxlen: big_endian::U32,
    pub(super) s_first: big_endian::U32,
    pub(super) s_sequence: big_endian::U32,
    pub(super) s_start: big_endian::U32,

    pub(super) s_errno: big_endian::U32,
    pub(super) s_feature_compat: big_endian::U32,
    pub(super) s_feature_incompat: big_endian::U32,
    pub(super) s_feature_ro_compat: big_endian::U32,

    pub(super) s_uuid: [u8; 16],

    pub(super) s_nr_users: big_endian::U32,
    pub(super) s_dynsuper: big_endian::U32,
    pub(super) s_max_transaction: big_endian::U32,
    pub(super) s_max_trans_data: big_endian::U32,

    pub(super) s_checksum_type: u8,
    pub(super) s_padding2: [u8; 3],
    pub(super) s_num_fc_blks: big_endian::U32,
    pub(super) s_head: big_endian::U32,
    pub(super) s_padding: [big_endian::U32; 40],
    pub(super) s_checksum: big_endian::U32,
    pub(super) s_users: [u8; 768],
}
const _: () = assert!(size_of::<JournalSuperBlock>() == 1024);
