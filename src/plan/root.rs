//! The choice of the root file system, and who made it.

use anyhow::Result;

use crate::bootc::{Composefs, Settings};
use crate::config::{Layout, Subvolume};
use crate::disk::RootVolume;
use crate::error::unsupported;
use crate::filesystem_kind::FileSystem;
use crate::request::DiskRequest;

/// A root file system, and who wanted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootChoice {
    /// Which.
    pub filesystem: FileSystem,
    /// Why: `--filesystem`, …
    pub because: &'static str,
}

impl RootChoice {
    /// What the user says goes before what a layout says, that before what the image configures, and else it is ext4.
    ///
    /// `Unsupported` if the user and the layout contradict each other.
    pub(super) fn of(
        disk: &DiskRequest,
        settings: &Settings,
        layout: Option<&Layout>,
    ) -> Result<Self> {
        let arranged = layout.map(|layout| disk.root_in(layout)).transpose()?.flatten();
        let (filesystem, because) = match (disk.root, arranged, settings.install.root_filesystem) {
            (Some(asked), _, _) => (asked, "as asked for"),
            (None, Some(arranged), _) => (arranged, "as the layout says"),
            (None, None, Some(configured)) => {
                (configured, "as the image's install configuration says")
            }
            (None, None, None) => {
                (FileSystem::Ext4, "by default: neither you nor the image names another")
            }
        };
        Ok(Self { filesystem, because })
    }

    /// The root's file system with its subvolume and compression. `Unsupported` if it cannot be had.
    pub(super) fn volume(
        &self,
        disk: &DiskRequest,
        settings: &Settings,
        layout: Option<&Layout>,
    ) -> Result<RootVolume> {
        let kind = self.filesystem;
        disk.refuse_btrfs_options(kind, self.because)?;
        if settings.prepare_root.composefs == Composefs::Verity && !kind.has_verity() {
            return Err(unsupported(
                format!(
                    "the image wants fs-verity (composefs.enabled = verity), and {kind} does not have it"
                ),
                Some("build with --filesystem ext4 or --filesystem btrfs"),
            ));
        }
        let mut subvolumes = layout.map(Layout::subvolumes).unwrap_or_default().iter();
        let of_root: Option<&Subvolume> =
            subvolumes.find(|one| one.mountpoint.as_deref() == Some("/"));
        let compression = of_root.and_then(|one| one.compression.clone());
        let subvolume = of_root.map(|one| one.name.clone());
        Ok(RootVolume {
            kind,
            compression: compression
                .or_else(|| disk.btrfs_compression.as_ref().map(ToString::to_string)),
            subvolume: subvolume.or_else(|| disk.btrfs_subvolume.as_ref().map(ToString::to_string)),
        })
    }
}

/// How the machine mounts the root, so that it is compressed further on, too.
pub(super) fn flags(root: &RootVolume) -> Option<String> {
    let subvolume = root.subvolume.as_ref().map(|name| format!("subvol={name}"));
    let compress = root.compression.as_ref().map(|how| format!("compress={how}"));
    let flags: Vec<String> = subvolume.into_iter().chain(compress).collect();
    (!flags.is_empty()).then(|| flags.join(","))
}
