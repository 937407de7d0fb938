//! btrfs, written in one go: trees become subvolumes without a mount, without root, and the same each time.
//!
//! ```text
//! superblock ─► chunk tree ─► where logical addresses are
//!            └► root tree ─┬► subvolumes: inodes, names, extents
//!                          ├► checksums of all data
//!                          └► extents, free space: who uses which address, their own blocks included
//! ```
//!
//! [`Prepared::of`] counts what the trees need and compresses files, [`Prepared::fit`] says how large the file system must be, and
//! [`Prepared::format`] writes it. The features are those that mkfs.btrfs 6.14 chooses: skinny metadata, no holes, a free space
//! tree, metadata twice. So Linux 6.1, 6.12 and 6.18 mount it, and GRUB from 2.06 on reads it.
//!
//! Everything that a btrfs knows is an *item*, a key and some bytes, in one of some ten trees. What the bytes say does not change
//! how many leaves there are, so items are made twice: counted, then written.
//!
//! Read `on_disk` (the structures), `census` (what is in a subvolume), `compress` with `lzo` (what files become), `items` (items of
//! a subvolume), `leaves` (items in blocks), `space` (chunks), `trees` (items of all other trees); then `layout` and `emit`, which
//! put them together. `dump` prints what came of it.

mod census;
mod compress;
mod dump;
mod emit;
mod items;
mod layout;
mod leaves;
mod lzo;
mod on_disk;
mod space;
mod trees;

use uuid::Uuid;

pub use compress::Compression;
pub use dump::dump;
pub use layout::Prepared;

use crate::sparse::SparseMap;
use crate::tree::Tree;

/// The least size, in bytes: what the kernel and its tools still work with.
pub const MINIMUM_SIZE: u64 = 128 << 20;

/// What goes into a file system.
#[derive(Clone, Debug)]
pub struct Volumes<'a> {
    /// The subvolume at the top, which all others are in.
    pub top: Subvolume<'a>,
    /// Subvolumes in directories of the top, beside what these have there themselves.
    pub below: Vec<Subvolume<'a>>,
    /// Index in `below` of the one that is mounted when nobody names another; `None`: the top.
    pub default: Option<usize>,
}

/// A subvolume.
#[derive(Clone, Debug)]
pub struct Subvolume<'a> {
    /// Its path from the top: `root`, `subvols/root`. The directories on the way are in the tree of the top, whose own name nobody
    /// sees.
    pub name: &'a str,
    /// What is in it.
    pub tree: &'a Tree,
    /// How its files are compressed; `None`: not at all.
    pub compression: Option<Compression>,
}

impl<'a> Volumes<'a> {
    /// A file system without subvolumes.
    pub fn of(tree: &'a Tree, compression: Option<Compression>) -> Self {
        let top = Subvolume { name: "", tree, compression };
        Self { top, below: Vec::new(), default: None }
    }
}

/// Everything that a file system depends on besides what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes; what is left over beyond a multiple of 4096 stays unused.
    pub size: u64,
    /// `fsid`. The UUIDs of device, chunk tree and subvolumes are derived from it.
    pub uuid: Uuid,
    /// Up to 255 bytes.
    pub label: String,
    /// Whether metadata is there twice, as mkfs.btrfs has it on a single device.
    pub duplicate: bool,
    /// Whether block groups have a tree of their own, as mkfs.btrfs has it since 6.19: large file systems mount faster, by Linux 6.1 and later.
    pub block_group_tree: bool,
    /// When the file system was made, in seconds since 1970.
    pub time: i64,
}

/// What [`Prepared::fit`] is to make room for, besides the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Bytes that data may still take.
    pub free_bytes: u64,
    /// As in [`Options`].
    pub duplicate: bool,
    /// As in [`Options`].
    pub block_group_tree: bool,
}

/// A finished file system.
#[derive(Clone, Debug)]
pub struct Formatted {
    /// Its bytes.
    pub map: SparseMap,
    /// How full it is.
    pub usage: Usage,
}

/// How full a file system is, in bytes of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Data, as it is on the device.
    pub data: u64,
    /// Metadata, all copies counted.
    pub metadata: u64,
    /// What no chunk covers.
    pub unallocated: u64,
}
