//! A file system that the system is read from, whatever its kind.

use anyhow::Result;

use super::btrfs::Btrfs;
use super::disk::Slice;
use super::{ext4, xfs};

/// A file system with files that say what the system is.
#[derive(Debug)]
pub(super) enum Volume {
    Ext4(ext4::Volume),
    Xfs(xfs::Volume),
    Btrfs(Box<Btrfs>),
}

impl Volume {
    /// Opens what is there; `None`: nothing that is read. `start`: its first bytes. `whose`: `partition 4`.
    pub(super) fn open(slice: Slice, start: &[u8], whose: &str) -> Option<Result<Self>> {
        if ext4::Volume::is_it(start) {
            return Some(ext4::Volume::open(slice, format!("the ext4 of {whose}")).map(Self::Ext4));
        }
        if xfs::Volume::is_it(start) {
            return Some(xfs::Volume::open(slice, format!("the XFS of {whose}")).map(Self::Xfs));
        }
        if Btrfs::is_it(start) {
            let opened = Btrfs::open(slice, format!("the btrfs of {whose}"));
            return Some(opened.map(|btrfs| Self::Btrfs(Box::new(btrfs))));
        }
        None
    }

    /// As `blkid` says it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Ext4(_) => "ext4",
            Self::Xfs(_) => "xfs",
            Self::Btrfs(_) => "btrfs",
        }
    }

    pub(super) fn label(&self) -> String {
        match self {
            Self::Ext4(ext4) => ext4.label(),
            Self::Xfs(xfs) => xfs.label(),
            Self::Btrfs(btrfs) => btrfs.label().to_owned(),
        }
    }

    pub(super) fn uuid(&self) -> String {
        match self {
            Self::Ext4(ext4) => ext4.uuid(),
            Self::Xfs(xfs) => xfs.uuid(),
            Self::Btrfs(btrfs) => btrfs.uuid(),
        }
    }

    /// Bytes of it that are in use.
    pub(super) fn used(&self) -> u64 {
        match self {
            Self::Ext4(ext4) => ext4.used,
            Self::Xfs(xfs) => xfs.used(),
            Self::Btrfs(btrfs) => btrfs.used(),
        }
    }

    /// The names in a directory, links followed, sorted; none if it is not there.
    pub(super) fn names(&self, path: &str) -> Result<Vec<String>> {
        match self {
            Self::Ext4(ext4) => ext4.names(path),
            Self::Xfs(xfs) => xfs.names(path),
            Self::Btrfs(btrfs) => btrfs.names(path),
        }
    }

    /// How many bytes a regular file has, links followed; `None`: there is none.
    pub(super) fn size(&self, path: &str) -> Result<Option<u64>> {
        match self {
            Self::Ext4(ext4) => ext4.size(path),
            Self::Xfs(xfs) => xfs.size(path),
            Self::Btrfs(btrfs) => btrfs.size(path),
        }
    }

    /// The bytes of a regular file, links followed; `None`: there is none.
    pub(super) fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Ext4(ext4) => ext4.read(path),
            Self::Xfs(xfs) => xfs.read(path),
            Self::Btrfs(btrfs) => btrfs.read(path),
        }
    }

    /// The text of a file; what is not UTF-8 is replaced.
    pub(super) fn text(&self, path: &str) -> Result<Option<String>> {
        Ok(self.read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}
