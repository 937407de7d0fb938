//! What is asked of the disk, judged against the partitions that somebody lays out.

use anyhow::Result;

use super::DiskRequest;
use crate::config::Layout;
use crate::error::unsupported;
use crate::filesystem_kind::FileSystem;

impl DiskRequest {
    /// Refuses what contradicts itself. `layout`: that of the configuration.
    pub(super) fn check(&self, layout: Option<&Layout>) -> Result<()> {
        let arranged = layout.map(|layout| self.root_in(layout)).transpose()?.flatten();
        let root = self.root.or(arranged);
        if let Some(kind) = root.filter(|kind| *kind != FileSystem::Btrfs) {
            self.refuse_btrfs_options(kind, "as asked for")?;
        }
        Ok(())
    }

    /// Refuses flags for btrfs where the root is on another file system. `because`: who chose that one.
    pub fn refuse_btrfs_options(&self, root: FileSystem, because: &str) -> Result<()> {
        let given = [
            ("--btrfs-compress", self.btrfs_compression.is_some()),
            ("--btrfs-subvolume", self.btrfs_subvolume.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((flag, _)) if root != FileSystem::Btrfs => Err(unsupported(
                format!("{flag} is for a root on btrfs, and the root is {root}, {because}"),
                Some("build with --filesystem btrfs, or without --btrfs-…"),
            )),
            _ => Ok(()),
        }
    }

    /// The root file system that a layout asks for, if it says one. `Unsupported` if the request contradicts it.
    pub fn root_in(&self, layout: &Layout) -> Result<Option<FileSystem>> {
        let origin = &layout.origin;
        // A btrfs without the root stands beside it.
        let mut subvolumes = layout.subvolumes().iter();
        if subvolumes.any(|one| one.mountpoint.as_deref() == Some("/")) {
            if let Some(other) = self.root.filter(|kind| *kind != FileSystem::Btrfs) {
                return Err(unsupported(
                    format!(
                        "{origin} has the root in a subvolume of btrfs, and --filesystem asks for {other}"
                    ),
                    Some("leave one of them away, or take plain partitions"),
                ));
            }
            if self.btrfs_subvolume.is_some() {
                return Err(unsupported(
                    format!(
                        "{origin} says what subvolumes there are, and --btrfs-subvolume asks for another"
                    ),
                    Some("leave --btrfs-subvolume away"),
                ));
            }
        }
        match layout.root_kind() {
            Some(FileSystem::Vfat | FileSystem::Swap) => {
                Err(unsupported("the root cannot be on FAT, which knows no owners", None))
            }
            kind => Ok(kind),
        }
    }
}
