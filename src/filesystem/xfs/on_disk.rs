//! The structures of XFS version 5 as they are on disk, under the names of "XFS Algorithms & Data Structures" (3rd edition).
//!
//! A blank line follows every 16 bytes, so that a structure can be laid beside a hex dump. Everything is big-endian but the
//! checksums, which are little-endian. A *daddr* counts 512 bytes from the start of the file system, whatever the sector size.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, little_endian};

/// Bytes of a block; the only size we write, being the page size of what we boot.
pub(super) const BLOCK: u64 = 4096;
/// Bytes of a block, for slices.
pub(super) const BLOCK_BYTES: usize = BLOCK as usize;
/// Bytes of an inode.
pub(super) const INODE_BYTES: usize = 512;
/// Bytes of an inode for its two forks: what a directory, link or attribute must fit into to be inline.
pub(super) const LITERAL_BYTES: usize = INODE_BYTES - size_of::<Inode>();
/// `sb_inopblock`: inodes in a block.
pub(super) const INODES_PER_BLOCK: u32 = (BLOCK_BYTES / INODE_BYTES) as u32;
/// Inodes are allocated in chunks of so many.
pub(super) const CHUNK: u32 = 64;
/// Blocks of a chunk of inodes.
pub(super) const CHUNK_BLOCKS: u32 = CHUNK / INODES_PER_BLOCK;
/// No block, no inode, in fields of 32 bits.
pub(super) const NULL32: u32 = u32::MAX;
/// No block in fields of 64 bits.
pub(super) const NULL64: u64 = u64::MAX;
/// Blocks of the longest extent record (BMBT_BLOCKCOUNT_BITLEN is 21).
pub(super) const MAX_EXTENT: u64 = (1 << 21) - 1;
/// The block of a directory at which its leaves begin: byte 32 GiB (XFS_DIR2_LEAF_OFFSET).
pub(super) const LEAF_OFFSET: u64 = (32 << 30) / BLOCK;
/// The block of a directory at which its free indexes begin: byte 64 GiB (XFS_DIR2_FREE_OFFSET).
pub(super) const FREE_OFFSET: u64 = (64 << 30) / BLOCK;

/// `sb_versionnum`: version 5, ATTR, NLINK, ALIGN, LOGV2, EXTFLG, DIRV2, MOREBITS.
pub(super) const VERSION: u16 = 5 | 0x10 | 0x20 | 0x80 | 0x400 | 0x1000 | 0x2000 | 0x8000;
/// `sb_versionnum`: sectors are larger than 512 bytes.
pub(super) const VERSION_SECTOR: u16 = 0x800;
/// `sb_features2`: LAZYSBCOUNT, ATTR2, PROJID32, CRC.
pub(super) const FEATURES2: u32 = 0x2 | 0x8 | 0x80 | 0x100;
/// `sb_features_ro_compat`: finobt, reflink, inobtcount.
pub(super) const RO_COMPAT: u32 = 0x1 | 0x4 | 0x8;
/// `sb_features_ro_compat`: rmapbt.
pub(super) const RO_COMPAT_RMAPBT: u32 = 0x2;
/// `sb_features_incompat`: ftype, spinodes, bigtime.
pub(super) const INCOMPAT: u32 = 0x1 | 0x2 | 0x8;
/// `sb_features_incompat`: nrext64.
pub(super) const INCOMPAT_NREXT64: u32 = 0x20;
/// `di_flags`: the real-time bitmap's mark.
pub(super) const FLAG_NEWRTBM: u16 = 0x4;
/// `di_flags`: `chattr +i`.
pub(super) const FLAG_IMMUTABLE: u16 = 0x8;
/// `di_flags2`: times count nanoseconds.
pub(super) const FLAG2_BIGTIME: u64 = 0x8;
/// `di_flags2`: extent counters are wide.
pub(super) const FLAG2_NREXT64: u64 = 0x10;

/// `di_format`: a device number.
pub(super) const FORMAT_DEV: u8 = 0;
/// `di_format`: inline.
pub(super) const FORMAT_LOCAL: u8 = 1;
/// `di_format`: a list of extents.
pub(super) const FORMAT_EXTENTS: u8 = 2;
/// `di_format`: the root of a tree of extents.
pub(super) const FORMAT_BTREE: u8 = 3;

/// The super block, in the first sector of every group.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SuperBlock {
    pub(super) sb_magicnum: [u8; 4],
    pub(super) sb_blocksize: U32,
    pub(super) sb_dblocks: U64,

    pub(super) sb_rblocks: U64,
    pub(super) sb_rextents: U64,

    pub(super) sb_uuid: [u8; 16],

    pub(super) sb_logstart: U64,
    pub(super) sb_rootino: U64,

    pub(super) sb_rbmino: U64,
    pub(super) sb_rsumino: U64,

    pub(super) sb_rextsize: U32,
    pub(super) sb_agblocks: U32,
    pub(super) sb_agcount: U32,
    pub(super) sb_rbmblocks: U32,

    pub(super) sb_logblocks: U32,
    pub(super) sb_versionnum: U16,
    pub(super) sb_sectsize: U16,
    pub(super) sb_inodesize: U16,
    pub(super) sb_inopblock: U16,
    pub(super) sb_fname: [u8; 12],
    pub(super) sb_blocklog: u8,
    pub(super) sb_sectlog: u8,
    pub(super) sb_inodelog: u8,
    pub(super) sb_inopblog: u8,
    pub(super) sb_agblklog: u8,
    pub(super) sb_rextslog: u8,
    pub(super) sb_inprogress: u8,
    pub(super) sb_imax_pct: u8,

    pub(super) sb_icount: U64,
    pub(super) sb_ifree: U64,

    pub(super) sb_fdblocks: U64,
    pub(super) sb_frextents: U64,

    pub(super) sb_uquotino: U64,
    pub(super) sb_gquotino: U64,

    pub(super) sb_qflags: U16,
    pub(super) sb_flags: u8,
    pub(super) sb_shared_vn: u8,
    pub(super) sb_inoalignmt: U32,
    pub(super) sb_unit: U32,
    pub(super) sb_width: U32,

    pub(super) sb_dirblklog: u8,
    pub(super) sb_logsectlog: u8,
    pub(super) sb_logsectsize: U16,
    pub(super) sb_logsunit: U32,
    pub(super) sb_features2: U32,
    pub(super) sb_bad_features2: U32,

    pub(super) sb_features_compat: U32,
    pub(super) sb_features_ro_compat: U32,
    pub(super) sb_features_incompat: U32,
    pub(super) sb_features_log_incompat: U32,

    pub(super) sb_crc: little_endian::U32,
    pub(super) sb_spino_align: U32,
    pub(super) sb_pquotino: U64,

    pub(super) sb_lsn: U64,
    pub(super) sb_meta_uuid: [u8; 16],
}
const _: () = assert!(size_of::<SuperBlock>() == 264);

/// What a group says of its free space and its trees, in its second sector.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Agf {
    pub(super) agf_magicnum: [u8; 4],
    pub(super) agf_versionnum: U32,
    pub(super) agf_seqno: U32,
    pub(super) agf_length: U32,

    /// By block, by size, of owners.
    pub(super) agf_roots: [U32; 3],
    pub(super) agf_levels: [U32; 3],
    pub(super) agf_flfirst: U32,
    pub(super) agf_fllast: U32,

    pub(super) agf_flcount: U32,
    pub(super) agf_freeblks: U32,
    pub(super) agf_longest: U32,
    pub(super) agf_btreeblks: U32,

    pub(super) agf_uuid: [u8; 16],

    pub(super) agf_rmap_blocks: U32,
    pub(super) agf_refcount_blocks: U32,
    pub(super) agf_refcount_root: U32,
    pub(super) agf_refcount_level: U32,

    pub(super) agf_spare64: [u8; 112],

    pub(super) agf_lsn: U64,
    pub(super) agf_crc: little_endian::U32,
    pub(super) agf_spare2: U32,
}
const _: () = assert!(size_of::<Agf>() == 224);

/// What a group says of its inodes, in its third sector.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Agi {
    pub(super) agi_magicnum: [u8; 4],
    pub(super) agi_versionnum: U32,
    pub(super) agi_seqno: U32,
    pub(super) agi_length: U32,

    pub(super) agi_count: U32,
    pub(super) agi_root: U32,
    pub(super) agi_level: U32,
    pub(super) agi_freecount: U32,

    pub(super) agi_newino: U32,
    pub(super) agi_dirino: U32,
    pub(super) agi_unlinked: [U32; 64],
    pub(super) agi_uuid: [u8; 16],
    pub(super) agi_crc: little_endian::U32,
    pub(super) agi_pad32: U32,
    pub(super) agi_lsn: U64,
    pub(super) agi_free_root: U32,
    pub(super) agi_free_level: U32,
    pub(super) agi_iblocks: U32,
    pub(super) agi_fblocks: U32,
}
const _: () = assert!(size_of::<Agi>() == 344);

/// The list of blocks that trees may take without asking, in the fourth sector; block numbers follow it up to its end.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Agfl {
    pub(super) agfl_magicnum: [u8; 4],
    pub(super) agfl_seqno: U32,
    pub(super) agfl_uuid: [u8; 16],
    pub(super) agfl_lsn: U64,
    pub(super) agfl_crc: little_endian::U32,
}
const _: () = assert!(size_of::<Agfl>() == 36);

/// The head of a block of a group's tree (`xfs_btree_block`, short form).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ShortBlock {
    pub(super) bb_magic: [u8; 4],
    pub(super) bb_level: U16,
    pub(super) bb_numrecs: U16,
    pub(super) bb_leftsib: U32,
    pub(super) bb_rightsib: U32,

    pub(super) bb_blkno: U64,
    pub(super) bb_lsn: U64,

    pub(super) bb_uuid: [u8; 16],

    pub(super) bb_owner: U32,
    pub(super) bb_crc: little_endian::U32,
}
const _: () = assert!(size_of::<ShortBlock>() == 56);

/// The head of a block of a file's tree of extents (`xfs_btree_block`, long form).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct LongBlock {
    pub(super) bb_magic: [u8; 4],
    pub(super) bb_level: U16,
    pub(super) bb_numrecs: U16,
    pub(super) bb_leftsib: U64,

    pub(super) bb_rightsib: U64,
    pub(super) bb_blkno: U64,

    pub(super) bb_lsn: U64,
    pub(super) bb_uuid: [u8; 16],
    pub(super) bb_owner: U64,

    pub(super) bb_crc: little_endian::U32,
    pub(super) bb_pad: U32,
}
const _: () = assert!(size_of::<LongBlock>() == 72);

/// An inode without its forks (`xfs_dinode`, version 3).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Inode {
    pub(super) di_magic: [u8; 2],
    pub(super) di_mode: U16,
    pub(super) di_version: u8,
    pub(super) di_format: u8,
    pub(super) di_onlink: U16,
    pub(super) di_uid: U32,
    pub(super) di_gid: U32,

    pub(super) di_nlink: U32,
    pub(super) di_projid_lo: U16,
    pub(super) di_projid_hi: U16,
    /// With nrext64 the number of extents; else zero.
    pub(super) di_big_nextents: U64,

    pub(super) di_atime: U64,
    pub(super) di_mtime: U64,

    pub(super) di_ctime: U64,
    pub(super) di_size: U64,

    pub(super) di_nblocks: U64,
    pub(super) di_extsize: U32,
    /// The number of extents; with nrext64 that of the attributes.
    pub(super) di_nextents: U32,

    /// The number of the attributes' extents; with nrext64 zero.
    pub(super) di_anextents: U16,
    pub(super) di_forkoff: u8,
    pub(super) di_aformat: u8,
    pub(super) di_dmevmask: U32,
    pub(super) di_dmstate: U16,
    pub(super) di_flags: U16,
    pub(super) di_gen: U32,

    pub(super) di_next_unlinked: U32,
    pub(super) di_crc: little_endian::U32,
    pub(super) di_changecount: U64,

    pub(super) di_lsn: U64,
    pub(super) di_flags2: U64,

    pub(super) di_cowextsize: U32,
    pub(super) di_pad2: [u8; 12],

    pub(super) di_crtime: U64,
    pub(super) di_ino: U64,

    pub(super) di_uuid: [u8; 16],
}
const _: () = assert!(size_of::<Inode>() == 176);

/// The head of a directory's block of names (`xfs_dir3_data_hdr`).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DataBlock {
    pub(super) magic: [u8; 4],
    pub(super) crc: little_endian::U32,
    pub(super) blkno: U64,

    pub(super) lsn: U64,
    pub(super) uuid: [u8; 16],
    pub(super) owner: U64,

    pub(super) best_free: [Free; 3],
    pub(super) pad: U32,
}
const _: () = assert!(size_of::<DataBlock>() == 64);

/// A gap: its offset and length.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Free {
    pub(super) offset: U16,
    pub(super) length: U16,
}

/// The head of a directory's free index (`xfs_dir3_free_hdr`).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct FreeIndex {
    pub(super) magic: [u8; 4],
    pub(super) crc: little_endian::U32,
    pub(super) blkno: U64,

    pub(super) lsn: U64,
    pub(super) uuid: [u8; 16],
    pub(super) owner: U64,

    pub(super) firstdb: U32,
    pub(super) nvalid: U32,
    pub(super) nused: U32,
    pub(super) pad: U32,
}
const _: () = assert!(size_of::<FreeIndex>() == 64);

/// The head of leaves and nodes, of directories as of attributes (`xfs_da3_blkinfo`).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DaBlock {
    pub(super) forw: U32,
    pub(super) back: U32,
    pub(super) magic: U16,
    pub(super) pad: U16,
    pub(super) crc: little_endian::U32,

    pub(super) blkno: U64,
    pub(super) lsn: U64,

    pub(super) uuid: [u8; 16],

    pub(super) owner: U64,
    /// Entries, and then the level of a node, or how many entries of a directory's leaf are stale.
    pub(super) count: U16,
    pub(super) level_or_stale: U16,
    pub(super) pad2: U32,
}
const _: () = assert!(size_of::<DaBlock>() == 64);

/// The head of a leaf of attributes (`xfs_attr3_leaf_hdr`).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct AttributeLeaf {
    pub(super) forw: U32,
    pub(super) back: U32,
    pub(super) magic: U16,
    pub(super) pad: U16,
    pub(super) crc: little_endian::U32,

    pub(super) blkno: U64,
    pub(super) lsn: U64,

    pub(super) uuid: [u8; 16],

    pub(super) owner: U64,
    pub(super) count: U16,
    pub(super) usedbytes: U16,
    pub(super) firstused: U16,
    pub(super) holes: u8,
    pub(super) pad1: u8,

    pub(super) freemap: [Free; 3],
    pub(super) pad2: U32,
}
const _: () = assert!(size_of::<AttributeLeaf>() == 80);

/// The head of a block of a link's target or of an attribute's value (`xfs_dsymlink_hdr`, `xfs_attr3_rmt_hdr`).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RemoteBlock {
    pub(super) magic: [u8; 4],
    pub(super) offset: U32,
    pub(super) bytes: U32,
    pub(super) crc: little_endian::U32,

    pub(super) uuid: [u8; 16],

    pub(super) owner: U64,
    pub(super) blkno: U64,

    pub(super) lsn: U64,
}
const _: () = assert!(size_of::<RemoteBlock>() == 56);

/// The head of a record in the log (`xlog_rec_header`), up to its words; zeros follow them up to 300.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct LogRecord {
    pub(super) h_magicno: U32,
    pub(super) h_cycle: U32,
    pub(super) h_version: U32,
    pub(super) h_len: U32,

    pub(super) h_lsn: U64,
    pub(super) h_tail_lsn: U64,

    pub(super) h_crc: little_endian::U32,
    pub(super) h_prev_block: U32,
    pub(super) h_num_logops: U32,
    /// The words that stood where each block of 512 bytes now begins with the cycle.
    pub(super) h_cycle_data: [U32; 64],

    pub(super) h_fmt: U32,
    pub(super) h_fs_uuid: [u8; 16],
    pub(super) h_size: U32,
}
const _: () = assert!(size_of::<LogRecord>() == 324);

/// What goes into a block besides its own fields: an extent, a free range, a chunk.
pub(super) type Extent = [u8; 16];

/// An extent record: `offset` in blocks of the fork, `block` an fsblock, `count` blocks (`xfs_bmbt_rec`).
pub(super) fn extent(offset: u64, block: u64, count: u64) -> Extent {
    let high = offset << 9 | block >> 43;
    let low = (block & ((1 << 43) - 1)) << 21 | count;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&high.to_be_bytes());
    bytes[8..].copy_from_slice(&low.to_be_bytes());
    bytes
}

/// Nanoseconds since 1901-12-13T20:45:52, for a time in seconds since 1970. What XFS cannot hold becomes the nearest that it can, as in
/// the kernel: up to 2486-07-02 (XFS_BIGTIME_TIME_MAX).
pub(super) fn big_time(seconds: i64) -> u64 {
    const EPOCH: i64 = 1 << 31;
    const LAST: i64 = (u64::MAX / NANOSECONDS).cast_signed() & !3;
    const NANOSECONDS: u64 = 1_000_000_000;
    let counted = seconds.saturating_add(EPOCH).clamp(0, LAST);
    counted.cast_unsigned() * NANOSECONDS
}

/// Seals a structure whose checksum, which is zero, is at `at`.
pub(super) fn seal(bytes: &mut [u8], at: usize) {
    let sum = crc32c::crc32c(bytes);
    bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}

/// A structure at the start of `length` bytes that are zero otherwise.
pub(super) fn headed(head: &(impl IntoBytes + Immutable), length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[..size_of_val(head)].copy_from_slice(head.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_1901() {
        for (seconds, expected) in [
            (0, 0x8000_0000 * 1_000_000_000),
            (-0x8000_0000, 0),
            (i64::MIN, 0),
            (i64::MAX, 18_446_744_072 * 1_000_000_000),
        ] {
            assert_eq!(big_time(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn extent_is_packed_across_both_words() {
        // Offset 1, block 2^43 + 5, 7 blocks.
        let bytes = extent(1, (1 << 43) + 5, 7);
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0xa0, 0, 7]);
    }
}
