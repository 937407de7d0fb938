//! Tree → SparseMap, without I/O: ext4, FAT, swap, ISO 9660, and the EROFS images of composefs; the squashfs that a disk travels in;
//! and the hash trees of fs-verity. And, with the kernel's help: xfs and btrfs.

pub mod erofs;
pub mod ext4;
pub mod fat;
pub mod iso9660;
pub mod kernel;
pub mod squashfs;
pub mod swap;
pub mod verity;
