//! Tree → SparseMap, without I/O: ext4, FAT, and the EROFS images of composefs; and the hash trees of fs-verity. And, with the
//! kernel's help: xfs and btrfs.

pub mod erofs;
pub mod ext4;
pub mod fat;
pub mod kernel;
pub mod verity;
