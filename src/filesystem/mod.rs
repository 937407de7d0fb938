//! Tree → SparseMap, without I/O: ext4, FAT, and the EROFS images of composefs.

pub mod erofs;
pub mod ext4;
pub mod fat;
