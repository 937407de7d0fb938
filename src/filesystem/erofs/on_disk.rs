//! The on-disk structures of EROFS, as composefs uses them: little-endian, names are those of the kernel's `erofs_fs.h`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

/// Bytes of a block.
pub(super) const BLOCK: u64 = 4096;
/// Inodes begin at multiples of this; an nid counts in it.
pub(super) const SLOT: u64 = 32;
/// Where the super block is.
pub(super) const SUPER_OFFSET: u64 = 1024;
/// Where inodes may begin: behind the super block.
pub(super) const INODES_OFFSET: u64 = SUPER_OFFSET + size_of::<SuperBlock>() as u64;

/// Data in blocks only.
pub(super) const FLAT_PLAIN: u16 = 0;
/// Data in blocks and a tail behind the inode.
pub(super) const FLAT_INLINE: u16 = 2;
/// A list of chunk addresses behind the inode.
pub(super) const CHUNK_BASED: u16 = 4;

/// composefs' own header, at offset 0.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: U32,
    pub(super) version: U32,
    pub(super) flags: U32,
    pub(super) composefs_version: U32,

    pub(super) unused: [U32; 4],
}

/// `Header::magic`.
pub(super) const HEADER_MAGIC: u32 = 0xd078_629a;
/// `Header::flags`: some inode has a POSIX ACL, so that the mount needs no `noacl`.
pub(super) const HEADER_HAS_ACL: u32 = 1;

/// The EROFS super block, at offset 1024.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct SuperBlock {
    pub(super) magic: U32,
    pub(super) checksum: U32,
    pub(super) feature_compat: U32,
    pub(super) blkszbits: u8,
    pub(super) sb_extslots: u8,
    pub(super) root_nid: U16,

    pub(super) inos: U64,
    pub(super) build_time: U64,

    pub(super) build_time_nsec: U32,
    pub(super) blocks: U32,
    pub(super) meta_blkaddr: U32,
    pub(super) xattr_blkaddr: U32,

    // uuid, volume_name, feature_incompat and everything younger: zero.
    pub(super) rest: [U64; 10],
}

/// `SuperBlock::magic`.
pub(super) const SUPER_MAGIC: u32 = 0xe0f5_e1e2;
/// `SuperBlock::feature_compat`: times in inodes are modification times; xattr bodies begin with a name filter.
pub(super) const FEATURE_COMPAT_MTIME_XATTR_FILTER: u32 = 0x2 | 0x4;

/// An inode whose numbers are small and whose time is the super block's.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct CompactInode {
    pub(super) i_format: U16,
    pub(super) i_xattr_icount: U16,
    pub(super) i_mode: U16,
    pub(super) i_nlink: U16,
    pub(super) i_size: U32,
    pub(super) i_reserved: U32,

    pub(super) i_u: U32,
    pub(super) i_ino: U32,
    pub(super) i_uid: U16,
    pub(super) i_gid: U16,
    pub(super) i_reserved2: U32,
}

/// Any other inode.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct ExtendedInode {
    pub(super) i_format: U16,
    pub(super) i_xattr_icount: U16,
    pub(super) i_mode: U16,
    pub(super) i_reserved: U16,
    pub(super) i_size: U64,

    pub(super) i_u: U32,
    pub(super) i_ino: U32,
    pub(super) i_uid: U32,
    pub(super) i_gid: U32,

    pub(super) i_mtime: U64,
    pub(super) i_mtime_nsec: U32,
    pub(super) i_nlink: U32,

    pub(super) i_reserved2: [U64; 2],
}

/// Begins the xattr body behind an inode; ids of shared entries follow, then entries.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct XattrHeader {
    pub(super) h_name_filter: U32,
    pub(super) h_shared_count: u8,
    pub(super) h_reserved2: [u8; 7],
}

/// Begins an xattr; its name without the prefix follows, then the value, then zeros to a multiple of 4.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct XattrEntry {
    pub(super) e_name_len: u8,
    pub(super) e_name_index: u8,
    pub(super) e_value_size: U16,
}

/// A name in a directory block; all of a block's entries come first, then their names.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct DirectoryEntry {
    pub(super) nid: U64,
    pub(super) nameoff: U16,
    pub(super) file_type: u8,
    pub(super) reserved: u8,
}

/// `DirectoryEntry::file_type` of an `st_mode`.
pub(super) const fn file_type(st_mode: u32) -> u8 {
    match st_mode & 0o170_000 {
        0o100_000 => 1,
        0o040_000 => 2,
        0o020_000 => 3,
        0o060_000 => 4,
        0o010_000 => 5,
        0o140_000 => 6,
        0o120_000 => 7,
        _ => 0,
    }
}

const _: () = assert!(size_of::<Header>() == 32);
const _: () = assert!(size_of::<SuperBlock>() == 128);
const _: () = assert!(size_of::<CompactInode>() == 32);
const _: () = assert!(size_of::<ExtendedInode>() == 64);
const _: () = assert!(size_of::<XattrHeader>() == 12);
const _: () = assert!(size_of::<XattrEntry>() == 4);
const _: () = assert!(size_of::<DirectoryEntry>() == DIRECTORY_ENTRY as usize);

/// Bytes of a [`DirectoryEntry`].
pub(super) const DIRECTORY_ENTRY: u64 = 12;
