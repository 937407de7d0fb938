//! A btrfs of a layout: the root in one subvolume, and what else is mounted in others.
//!
//! ```text
//! btrfs ─┬─ root   /          found by the kernel: rootflags=subvol=root
//!        ├─ home   /home      found by a mount unit: Options=subvol=home
//!        └─ spare             not mounted
//! ```

use anyhow::Result;
use uuid::Uuid;

use super::arranged::{Arrangement, Wish};
use super::volumes::{Wishes, fit_data};
use crate::config::{Mount, Subvolume};
use crate::ostree::Sysroot;
use crate::tree::Tree;

/// Those that are not the root, in their order.
fn beside_root(subvolumes: &[Subvolume]) -> impl Iterator<Item = &Subvolume> {
    subvolumes.iter().filter(|one| one.mountpoint.as_deref() != Some("/"))
}

/// What is mounted of a volume, besides the root.
pub(super) fn mounts(subvolumes: &[Subvolume], uuid: &Uuid) -> Vec<Mount> {
    let mount = |one: &Subvolume| {
        let mut options = format!("subvol={}", one.name);
        if let Some(how) = &one.compression {
            options += &format!(",compress={how}");
        }
        if one.read_only {
            options += ",ro";
        }
        let (uuid, mountpoint) = (uuid.to_string(), one.mountpoint.clone());
        // fsck.btrfs does nothing.
        Mount { uuid, mountpoint, kind: "btrfs", options, frequency: 0, pass: 0 }
    };
    beside_root(subvolumes).filter(|one| one.mountpoint.is_some()).map(mount).collect()
}

impl Arrangement {
    /// What the further subvolumes of the root's volume hold.
    pub(super) fn further<'a>(&self, slot: &Wish, sysroot: &'a Sysroot) -> Result<Vec<&'a Tree>> {
        beside_root(slot.partition.subvolumes())
            .map(|one| self.tree(one.mountpoint.as_ref(), sysroot))
            .collect()
    }

    /// Bytes that they take: what ext4 would need, and an eighth, as for the root.
    pub(super) fn beside_root(
        &self,
        slot: &Wish,
        sysroot: &Sysroot,
        wishes: &Wishes<'_>,
    ) -> Result<u64> {
        let mut total = 0;
        for tree in self.further(slot, sysroot)? {
            let size = fit_data(tree, 0, wishes)?;
            total += size + size / 8;
        }
        Ok(total)
    }
}
