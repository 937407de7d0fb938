//! What is in each partition: file systems, formatted to fit.

use anyhow::{Context, Result};
use partitioning::{Partition, Role, Table};

use super::DiskOptions;
use super::arrange::{Arrangement, Holds, Slot};
use super::join::Filled;
use crate::bootloader::Boot;
use crate::config::Mount;
use crate::content::ContentStore;
use crate::filesystem::{Filling, Subvolume, VolumeOptions};
use crate::installed::Installed;
use crate::sparse::SparseMap;
use crate::tree::{Metadata, Tree};

/// Fills the partitions of a table, in its order; `None`: nothing is in it.
pub(super) fn partitions(
    table: &Table,
    installed: &Installed,
    boot: &Boot,
    options: &DiskOptions<'_>,
    contents: &ContentStore,
) -> Result<Vec<Option<Filled>>> {
    let slots = options.arrangement.slots.iter().zip(&table.partitions);
    let fill = |(slot, partition): (&Slot, &Partition)| {
        let size = partition.size(table.sector_size);
        fill(slot, size, installed, boot, options, contents)
            .with_context(|| format!("formatting {}", called(slot.role, partition.number)))
    };
    slots.map(fill).collect()
}

fn called(role: Role, number: u32) -> String {
    match role {
        Role::Root => "the root file system".to_owned(),
        Role::Boot => "the file system of /boot".to_owned(),
        Role::Esp => "the ESP".to_owned(),
        Role::BiosBoot | Role::Data | Role::Swap => format!("partition {number}, {role}"),
    }
}

fn fill(
    slot: &Slot,
    size: u64,
    installed: &Installed,
    boot: &Boot,
    options: &DiskOptions<'_>,
    contents: &ContentStore,
) -> Result<Option<Filled>> {
    let esp = if slot.role == Role::Esp { esp(boot, installed) } else { None };
    let (kind, filling) = match (&slot.holds, slot.role) {
        (Holds::Nothing, _) => return Ok(None),
        (Holds::Raw(content), _) => {
            let mut map = SparseMap::new(size);
            map.put_content(0, content.id, 0, content.size);
            return Ok(Some(Filled { map, filesystem: None }));
        }
        (Holds::Volume(kind, _), Role::Esp) => {
            let Some(esp) = &esp else { return Ok(None) };
            (kind, Filling::of(esp))
        }
        (Holds::Volume(kind, _), _) => (kind, filling(slot, installed, options)?),
    };
    let label = slot.label();
    let volume = volume_options(slot, &label, options);
    kind.format(&filling, size, &volume, contents).map(|volume| Some(volume.into()))
}

/// What is on the ESP: the boot loader, and what the installed system adds to it; `None`: nothing.
fn esp(boot: &Boot, installed: &Installed) -> Option<Tree> {
    let adds = installed.esp.inode(Tree::ROOT).children().next().is_some();
    let mut esp = match &boot.esp {
        Some(esp) => esp.clone(),
        None if adds => Tree::new(Metadata::root(0o755)),
        None => return None,
    };
    esp.merge(&installed.esp, Tree::ROOT);
    Some(esp)
}

/// What the file system of a partition holds; of an ESP that is known to whoever has the boot loader.
pub(super) fn filling<'a>(
    slot: &'a Slot,
    installed: &'a Installed,
    options: &DiskOptions<'a>,
) -> Result<Filling<'a>> {
    let arrangement = options.arrangement;
    let volume = |mountpoint| volume_tree(arrangement, mountpoint, installed);
    let further = slot.beside_root().map(|one| {
        let tree = volume(one.mountpoint.as_ref())?;
        let compression = one.compression.as_deref();
        Ok(Subvolume { name: &one.name, tree, compression })
    });
    match slot.role {
        Role::Root => {
            let root = &arrangement.root;
            Ok(Filling {
                root: &installed.root,
                subvolume: root.subvolume.as_deref(),
                compression: root.compression.as_deref(),
                further: further.collect::<Result<_>>()?,
            })
        }
        Role::Boot => {
            let tree = installed.boot.as_ref().context("no content for /boot")?;
            Ok(Filling::of(tree))
        }
        Role::BiosBoot | Role::Esp | Role::Data | Role::Swap => {
            let mountpoint =
                slot.filesystem().and_then(|filesystem| filesystem.mountpoint.as_ref());
            let root = volume(mountpoint)?;
            Ok(Filling { further: further.collect::<Result<_>>()?, ..Filling::of(root) })
        }
    }
}

/// What a volume holds that is mounted there; nothing if it is not mounted.
fn volume_tree<'a>(
    arrangement: &Arrangement,
    mountpoint: Option<&String>,
    installed: &'a Installed,
) -> Result<&'a Tree> {
    static NOTHING: std::sync::OnceLock<Tree> = std::sync::OnceLock::new();
    let Some(mountpoint) = mountpoint else {
        return Ok(NOTHING.get_or_init(|| Tree::new(Metadata::root(0o755))));
    };
    // Volumes come in the order of mounts, links resolved.
    let mounts = arrangement.mounting().mounts;
    let mounted = mounts.iter().filter_map(|Mount { mountpoint, .. }| mountpoint.as_ref());
    let mut pairs = mounted.filter(|path| *path != "/boot/efi").zip(&installed.volumes);
    let found = pairs.find(|(path, _)| *path == mountpoint);
    found
        .map(|(_, volume)| &volume.tree)
        .with_context(|| format!("nothing was prepared for {mountpoint}"))
}

/// What a partition's file system depends on besides its content.
pub(super) fn volume_options<'a>(
    slot: &Slot,
    label: &'a str,
    options: &DiskOptions<'_>,
) -> VolumeOptions<'a> {
    let identity = options.identity;
    let uuid = match slot.holds {
        Holds::Volume(_, uuid) => uuid,
        Holds::Nothing | Holds::Raw(_) => slot.guid,
    };
    let hash_seed = match slot.role {
        Role::Root => identity.root_hash_seed,
        Role::Boot => identity.boot_hash_seed,
        _ => identity.further(&format!("hash seed of {}", slot.guid)),
    };
    VolumeOptions {
        uuid,
        label,
        hash_seed,
        sector_size: options.sector_size.bytes(),
        // A disk whose size nobody chose is put onto larger ones.
        grows: slot.role == Role::Root && (options.grow || options.size.is_none()),
        xfs_profile: options.xfs_profile,
    }
}
