//! The structures of btrfs as they are on disk, under the names of the kernel's `uapi/linux/btrfs_tree.h`.
//!
//! Everything is little-endian and packed. A logical address is btrfs' own; chunks say where on the device it lies.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a sector: the unit of data and of their checksums, and the page size of what we boot.
pub(super) const SECTOR: u64 = 4096;
/// Bytes of a block of a tree; what mkfs.btrfs chooses.
pub(super) const NODE: u64 = 16384;
/// [`NODE`] as a `usize`, for slices.
pub(super) const NODE_BYTES: usize = NODE as usize;
/// Bytes of a leaf behind its header, for items and their data.
pub(super) const ROOM: usize = NODE_BYTES - size_of::<Header>();
/// What an item's data may have at most: `BTRFS_MAX_ITEM_SIZE`.
pub(super) const MAX_ITEM: usize = ROOM - size_of::<Item>();
/// Pointers that a node holds.
pub(super) const POINTERS: usize = ROOM / size_of::<KeyPointer>();
/// Everything is made in the same transaction, the first.
pub(super) const GENERATION: u64 = 1;
/// Places of the superblock and its copies: `btrfs_sb_offset`.
pub(super) const SUPER_PLACES: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
/// Around each of them the kernel keeps this much free of anything else: `BTRFS_STRIPE_LEN`.
pub(super) const SUPER_ROOM: u64 = 64 << 10;
/// No chunk begins before: `BTRFS_DEVICE_RANGE_RESERVED`.
pub(super) const FIRST_PLACE: u64 = 1 << 20;

/// Trees, and objects of the root tree.
pub(super) mod tree {
    pub(crate) const ROOT: u64 = 1;
    pub(crate) const EXTENT: u64 = 2;
    pub(crate) const CHUNK: u64 = 3;
    pub(crate) const DEVICE: u64 = 4;
    /// The subvolume at the top.
    pub(crate) const TOP: u64 = 5;
    /// The directory whose entry `default` names the default subvolume.
    pub(crate) const ROOT_DIRECTORY: u64 = 6;
    pub(crate) const CHECKSUM: u64 = 7;
    pub(crate) const UUID: u64 = 9;
    pub(crate) const FREE_SPACE: u64 = 10;
    pub(crate) const BLOCK_GROUP: u64 = 11;
    pub(crate) const DATA_RELOCATION: u64 = 9_u64.wrapping_neg();
    /// The object of all checksums.
    pub(crate) const CHECKSUM_OBJECT: u64 = 10_u64.wrapping_neg();
    /// The first subvolume below the top; also the first inode, and the object of all chunks.
    pub(crate) const FIRST_FREE: u64 = 256;
    /// The first device.
    pub(crate) const DEVICES: u64 = 1;
}

/// Types of items, which order what belongs to one object.
pub(super) mod item {
    pub(crate) const INODE: u8 = 1;
    pub(crate) const INODE_REF: u8 = 12;
    pub(crate) const INODE_EXTREF: u8 = 13;
    pub(crate) const XATTR: u8 = 24;
    pub(crate) const VERITY_DESCRIPTOR: u8 = 36;
    pub(crate) const VERITY_MERKLE: u8 = 37;
    pub(crate) const DIRECTORY: u8 = 84;
    pub(crate) const DIRECTORY_INDEX: u8 = 96;
    pub(crate) const EXTENT_DATA: u8 = 108;
    pub(crate) const EXTENT_CHECKSUM: u8 = 128;
    pub(crate) const ROOT: u8 = 132;
    pub(crate) const ROOT_BACKREF: u8 = 144;
    pub(crate) const ROOT_REF: u8 = 156;
    pub(crate) const EXTENT: u8 = 168;
    pub(crate) const METADATA: u8 = 169;
    pub(crate) const TREE_BLOCK_REF: u8 = 176;
    pub(crate) const EXTENT_DATA_REF: u8 = 178;
    pub(crate) const BLOCK_GROUP: u8 = 192;
    pub(crate) const FREE_SPACE_INFO: u8 = 198;
    pub(crate) const FREE_SPACE_EXTENT: u8 = 199;
    pub(crate) const DEVICE_EXTENT: u8 = 204;
    pub(crate) const DEVICE: u8 = 216;
    pub(crate) const CHUNK: u8 = 228;
    pub(crate) const UUID_SUBVOLUME: u8 = 251;
}

/// What a chunk is for, and how often it lies on the device.
pub(super) mod group {
    pub(crate) const DATA: u64 = 1;
    pub(crate) const SYSTEM: u64 = 2;
    pub(crate) const METADATA: u64 = 4;
    pub(crate) const DUP: u64 = 32;
}

/// `incompat_flags`: mixed backrefs, big metadata, extended references, skinny metadata, no holes.
pub(super) const INCOMPAT: u64 = 0x1 | 0x20 | 0x40 | 0x100 | 0x200;
/// `incompat_flags`: there is a default subvolume that is not the top.
pub(super) const INCOMPAT_DEFAULT_SUBVOLUME: u64 = 0x2;
/// `incompat_flags`: something may be compressed with lzo.
pub(super) const INCOMPAT_LZO: u64 = 0x8;
/// `incompat_flags`: something may be compressed with zstd.
pub(super) const INCOMPAT_ZSTD: u64 = 0x10;
/// `compat_ro_flags`: a free space tree, which is valid.
pub(super) const COMPAT_RO: u64 = 0x1 | 0x2;
/// `compat_ro_flags`: a file has fs-verity.
pub(super) const COMPAT_RO_VERITY: u64 = 0x4;
/// `compat_ro_flags`: block groups have a tree of their own.
pub(super) const COMPAT_RO_BLOCK_GROUP_TREE: u64 = 0x8;

/// `flags` of an inode: `chattr +i`.
pub(super) const INODE_IMMUTABLE: u64 = 1 << 6;
/// `flags` of an inode, in the half that older kernels must not change: fs-verity.
pub(super) const INODE_VERITY: u64 = 1 << 32;
/// `flags` of the inode in a root item of a file tree: `BTRFS_INODE_ROOT_ITEM_INIT`.
pub(super) const INODE_ROOT_ITEM: u64 = 1 << 31;
/// `flags` of a header: written, and with mixed backrefs (`BTRFS_MIXED_BACKREF_REV` from bit 56 on).
pub(super) const HEADER_FLAGS: u64 = 1 | 1 << 56;
/// The type of an extended attribute among those of directory entries.
pub(super) const TYPE_XATTR: u8 = 8;

/// What items are found by, and sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(pub(super) u64, pub(super) u8, pub(super) u64);

/// A key, `btrfs_disk_key`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DiskKey {
    pub(super) objectid: U64,
    pub(super) kind: u8,
    pub(super) offset: U64,
}

impl From<Key> for DiskKey {
    fn from(Key(objectid, kind, offset): Key) -> Self {
        Self { objectid: objectid.into(), kind, offset: offset.into() }
    }
}

/// What every block of a tree begins with, `btrfs_header`.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) csum: [u8; 32],
    pub(super) fsid: [u8; 16],
    pub(super) bytenr: U64,
    pub(super) flags: U64,
    pub(super) chunk_tree_uuid: [u8; 16],
    pub(super) generation: U64,
    pub(super) owner: U64,
    pub(super) nritems: U32,
    pub(super) level: u8,
}

/// An item of a leaf, `btrfs_item`; the offset counts from the end of the header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Item {
    pub(super) key: DiskKey,
    pub(super) offset: U32,
    pub(super) size: U32,
}

/// A pointer of a node, `btrfs_key_ptr`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct KeyPointer {
    pub(super) key: DiskKey,
    pub(super) blockptr: U64,
    pub(super) generation: U64,
}

/// `btrfs_timespec`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Time {
    pub(super) sec: U64,
    pub(super) nsec: U32,
}

impl Time {
    /// Whole seconds since 1970.
    pub(super) fn of(seconds: i64) -> Self {
        Self { sec: seconds.cast_unsigned().into(), nsec: 0.into() }
    }
}

/// `btrfs_inode_item`.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct InodeItem {
    pub(super) generation: U64,
    pub(super) transid: U64,
    pub(super) size: U64,
    pub(super) nbytes: U64,
    pub(super) block_group: U64,
    pub(super) nlink: U32,
    pub(super) uid: U32,
    pub(super) gid: U32,
    pub(super) mode: U32,
    pub(super) rdev: U64,
    pub(super) flags: U64,
    pub(super) sequence: U64,
    pub(super) reserved: [u8; 32],
    pub(super) atime: Time,
    pub(super) ctime: Time,
    pub(super) mtime: Time,
    pub(super) otime: Time,
}

/// The first bytes of an entry of a directory, or of an extended attribute: `btrfs_dir_item`. Name and value follow.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DirectoryItem {
    pub(super) location: DiskKey,
    pub(super) transid: U64,
    pub(super) data_len: U16,
    pub(super) name_len: U16,
    pub(super) kind: u8,
}

/// The first bytes of a reference by name, `btrfs_inode_ref`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct InodeRef {
    pub(super) index: U64,
    pub(super) name_len: U16,
}

/// A name of an inode where the key has no room for the directory: `btrfs_inode_extref`; and `btrfs_root_ref`, which has the same form.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct FarRef {
    pub(super) directory: U64,
    pub(super) index: U64,
    pub(super) name_len: U16,
}

/// What `btrfs_file_extent_item` begins with; inline data follow, or [`RegularExtent`].
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct FileExtent {
    pub(super) generation: U64,
    pub(super) ram_bytes: U64,
    pub(super) compression: u8,
    pub(super) encryption: u8,
    pub(super) other_encoding: U16,
    /// 0: inline; 1: regular.
    pub(super) kind: u8,
}

/// Where the bytes of a file are that is not inline.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RegularExtent {
    pub(super) disk_bytenr: U64,
    pub(super) disk_num_bytes: U64,
    pub(super) offset: U64,
    pub(super) num_bytes: U64,
}

/// `btrfs_verity_descriptor_item`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct VerityItem {
    pub(super) size: U64,
    pub(super) reserved: [U64; 2],
    pub(super) encryption: u8,
}

/// `btrfs_root_item`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RootItem {
    pub(super) inode: InodeItem,
    pub(super) generation: U64,
    pub(super) root_dirid: U64,
    pub(super) bytenr: U64,
    pub(super) byte_limit: U64,
    pub(super) bytes_used: U64,
    pub(super) last_snapshot: U64,
    pub(super) flags: U64,
    pub(super) refs: U32,
    pub(super) drop_progress: DiskKey,
    pub(super) drop_level: u8,
    pub(super) level: u8,
    /// Must equal `generation`; else the kernel takes what follows for garbage of old versions.
    pub(super) generation_v2: U64,
    pub(super) uuid: [u8; 16],
    pub(super) parent_uuid: [u8; 16],
    pub(super) received_uuid: [u8; 16],
    pub(super) ctransid: U64,
    pub(super) otransid: U64,
    pub(super) stransid: U64,
    pub(super) rtransid: U64,
    pub(super) ctime: Time,
    pub(super) otime: Time,
    pub(super) stime: Time,
    pub(super) rtime: Time,
    pub(super) reserved: [U64; 8],
}

/// `btrfs_extent_item`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ExtentItem {
    pub(super) refs: U64,
    pub(super) generation: U64,
    /// 1: data; 2: a block of a tree.
    pub(super) flags: U64,
}

/// Who uses a block of a tree: `btrfs_extent_inline_ref`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct TreeBlockRef {
    pub(super) kind: u8,
    pub(super) root: U64,
}

/// Who uses an extent of data: `btrfs_extent_data_ref` behind its type.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ExtentDataRef {
    pub(super) kind: u8,
    pub(super) root: U64,
    pub(super) objectid: U64,
    pub(super) offset: U64,
    pub(super) count: U32,
}

/// `btrfs_block_group_item`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct BlockGroupItem {
    pub(super) used: U64,
    pub(super) chunk_objectid: U64,
    pub(super) flags: U64,
}

/// `btrfs_chunk`; a [`Stripe`] follows for each copy.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ChunkItem {
    pub(super) length: U64,
    pub(super) owner: U64,
    pub(super) stripe_len: U64,
    pub(super) kind: U64,
    pub(super) io_align: U32,
    pub(super) io_width: U32,
    pub(super) sector_size: U32,
    pub(super) num_stripes: U16,
    pub(super) sub_stripes: U16,
}

/// `btrfs_stripe`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Stripe {
    pub(super) devid: U64,
    pub(super) offset: U64,
    pub(super) dev_uuid: [u8; 16],
}

/// `btrfs_dev_item`.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DeviceItem {
    pub(super) devid: U64,
    pub(super) total_bytes: U64,
    pub(super) bytes_used: U64,
    pub(super) io_align: U32,
    pub(super) io_width: U32,
    pub(super) sector_size: U32,
    pub(super) kind: U64,
    pub(super) generation: U64,
    pub(super) start_offset: U64,
    pub(super) dev_group: U32,
    pub(super) seek_speed: u8,
    pub(super) bandwidth: u8,
    pub(super) uuid: [u8; 16],
    pub(super) fsid: [u8; 16],
}

/// `btrfs_dev_extent`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DeviceExtent {
    pub(super) chunk_tree: U64,
    pub(super) chunk_objectid: U64,
    pub(super) chunk_offset: U64,
    pub(super) length: U64,
    pub(super) chunk_tree_uuid: [u8; 16],
}

/// `btrfs_free_space_info`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct FreeSpaceInfo {
    pub(super) extent_count: U32,
    pub(super) flags: U32,
}

/// `btrfs_root_backup`, up to its reserved end.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RootBackup {
    pub(super) tree_root: U64,
    pub(super) tree_root_gen: U64,
    pub(super) chunk_root: U64,
    pub(super) chunk_root_gen: U64,
    pub(super) extent_root: U64,
    pub(super) extent_root_gen: U64,
    pub(super) fs_root: U64,
    pub(super) fs_root_gen: U64,
    pub(super) dev_root: U64,
    pub(super) dev_root_gen: U64,
    pub(super) csum_root: U64,
    pub(super) csum_root_gen: U64,
    pub(super) total_bytes: U64,
    pub(super) bytes_used: U64,
    pub(super) num_devices: U64,
    pub(super) unused: [U64; 4],
    pub(super) tree_root_level: u8,
    pub(super) chunk_root_level: u8,
    pub(super) extent_root_level: u8,
    pub(super) fs_root_level: u8,
    pub(super) dev_root_level: u8,
    pub(super) csum_root_level: u8,
    pub(super) reserved: [u8; 10],
}

/// `btrfs_super_block`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SuperBlock {
    pub(super) csum: [u8; 32],
    pub(super) fsid: [u8; 16],
    pub(super) bytenr: U64,
    pub(super) flags: U64,
    pub(super) magic: [u8; 8],
    pub(super) generation: U64,
    pub(super) root: U64,
    pub(super) chunk_root: U64,
    pub(super) log_root: U64,
    pub(super) log_root_transid: U64,
    pub(super) total_bytes: U64,
    pub(super) bytes_used: U64,
    pub(super) root_dir_objectid: U64,
    pub(super) num_devices: U64,
    pub(super) sectorsize: U32,
    pub(super) nodesize: U32,
    pub(super) leafsize: U32,
    pub(super) stripesize: U32,
    pub(super) sys_chunk_array_size: U32,
    pub(super) chunk_root_generation: U64,
    pub(super) compat_flags: U64,
    pub(super) compat_ro_flags: U64,
    pub(super) incompat_flags: U64,
    pub(super) csum_type: U16,
    pub(super) root_level: u8,
    pub(super) chunk_root_level: u8,
    pub(super) log_root_level: u8,
    pub(super) dev_item: DeviceItem,
    pub(super) label: [u8; 256],
    pub(super) cache_generation: U64,
    pub(super) uuid_tree_generation: U64,
    pub(super) metadata_uuid: [u8; 16],
    pub(super) reserved: [u8; 224],
    pub(super) sys_chunk_array: [u8; 2048],
    pub(super) super_roots: [RootBackup; 4],
    pub(super) padding: [u8; 565],
}

/// The magic number of a superblock.
pub(super) const MAGIC: [u8; 8] = *b"_BHRfS_M";

/// The checksum of a block or superblock, CRC-32C of all that stands behind the place of the checksum itself.
pub(super) fn seal(block: &mut [u8]) {
    let sum = crc32c::crc32c(&block[32..]);
    block[..4].copy_from_slice(&sum.to_le_bytes());
}

/// CRC-32C without the usual inversions, by which names are hashed.
fn plain_crc(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

/// The hash of a name in a directory, or of an extended attribute: `btrfs_name_hash`.
pub(super) fn name_hash(name: &[u8]) -> u64 {
    plain_crc(!1, name).into()
}

/// The hash of an extended reference: `btrfs_extref_hash`. `parent`: an inode number, of which the low half counts.
pub(super) fn extref_hash(parent: u64, name: &[u8]) -> u64 {
    plain_crc(parent as u32, name).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernel_s() {
        assert_eq!(size_of::<Header>(), 101);
        assert_eq!(size_of::<Item>(), 25);
        assert_eq!(size_of::<KeyPointer>(), 33);
        assert_eq!(size_of::<InodeItem>(), 160);
        assert_eq!(size_of::<RootItem>(), 439);
        assert_eq!(size_of::<FileExtent>() + size_of::<RegularExtent>(), 53);
        assert_eq!(size_of::<DeviceItem>(), 98);
        assert_eq!(size_of::<RootBackup>(), 168);
        assert_eq!(size_of::<SuperBlock>(), 4096);
        assert_eq!(std::mem::offset_of!(SuperBlock, sys_chunk_array), 811);
        assert_eq!(POINTERS, 493);
    }

    #[test]
    fn names_are_hashed_as_the_kernel_does() {
        // Seen in `btrfs inspect-internal dump-tree` of what mkfs.btrfs makes.
        assert_eq!(name_hash(b"default"), 2_378_154_706);
    }
}
