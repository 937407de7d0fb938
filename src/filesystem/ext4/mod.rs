//! ext4, written in one go: a tree becomes a file system without a mount, without root, and the same each time.
//!
//! ```text
//! group 0                                             group 1
//! |super block|descriptors|bitmaps|inode tables|files |super block, descriptors|files  …  | free
//! ```
//!
//! [`Layout::of`] decides where everything is, [`Layout::emit`] writes it, [`fit`] tells beforehand how large it must be. The
//! features are those that mke2fs 1.47 chooses, plus `verity` (composefs wants it) and less what GRUB 2.06 cannot read.
//!
//! Read `on_disk` (the structures), `geometry` (fixed metadata), `census` (what a tree needs), `allocator` and `extent` (where
//! it goes), `directory` with `hash`, `xattr`, `inode`, `verity`, `journal`; then `layout` and `emit`, which put them together.

mod allocator;
mod census;
mod checksum;
mod directory;
mod dump;
mod emit;
mod extent;
mod geometry;
mod hash;
mod inode;
mod journal;
mod layout;
mod on_disk;
mod verity;
mod xattr;

use uuid::Uuid;

pub use dump::dump;
pub use layout::{Layout, fit};

/// The least size, in bytes: what a journal of 4 MiB and the tables leave room in.
pub const MINIMUM_SIZE: u64 = 8 << 20;
/// Below this size, in bytes, the group descriptors of all groups fit into one.
const MAXIMUM_SIZE: u64 = 128 << 40;

/// Everything that a file system depends on besides the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes; what is left over beyond a multiple of 4096, or as a last group too small for its tables, stays unused.
    pub size: u64,
    /// `s_uuid`: also the start of all checksums.
    pub uuid: Uuid,
    /// `s_volume_name`: up to 16 bytes.
    pub label: String,
    /// `s_hash_seed`: orders the names of large directories.
    pub hash_seed: Uuid,
    /// At least so many inodes, 11 of which are ext4's own; rounded up to fill the tables. mke2fs: a 16384th of the size.
    pub inode_count: u32,
    /// 1024 at least; [`default_journal_blocks`] is mke2fs's rule. A block has 4096 bytes.
    pub journal_blocks: u32,
    /// Percent of the blocks that only root may fill; mke2fs: 5.
    pub reserved_percent: u8,
    /// When the file system was made, in seconds since 1970; 0 to 2^40 - 1.
    pub time: i64,
}

/// What [`fit`] is to make room for, besides the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Bytes that shall be free.
    pub free_bytes: u64,
    /// Inodes that shall be free.
    pub free_inodes: u32,
    /// There shall be an inode at least for so many bytes of the size; mke2fs: 16384.
    pub bytes_per_inode: u64,
    /// As in [`Options`]: how names are ordered decides how many blocks they need.
    pub hash_seed: Uuid,
}

/// What [`fit`] found: the parts of [`Options`] that depend on the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fitted {
    /// Bytes.
    pub size: u64,
    /// For [`Options::inode_count`].
    pub inode_count: u32,
    /// For [`Options::journal_blocks`].
    pub journal_blocks: u32,
}

/// How full a file system is. Blocks have 4096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// All blocks.
    pub blocks: u64,
    /// Blocks that hold nothing; those reserved for root among them.
    pub free_blocks: u64,
    /// All inodes.
    pub inodes: u32,
    /// Inodes that are not used.
    pub free_inodes: u32,
}

/// The size that mke2fs gives the journal of a file system of `size` bytes, in blocks of 4096.
pub fn default_journal_blocks(size: u64) -> u32 {
    journal::default_blocks(size)
}
