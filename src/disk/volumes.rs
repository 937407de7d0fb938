//! The file systems of a disk: how large they have to be, formatted, and joined with the boot code.

use anyhow::{Context, Result};

use super::{
    Arrangement, BiosBytes, Disk, DiskSize, Options, Parts, Plan, Preset, Role, SectorSize, Size,
    Volume,
};
use crate::architecture::Architecture;
use crate::bootloader::Boot;
use crate::content::ContentStore;
use crate::error::unsupported;
use crate::filesystem::{ext4, fat, kernel};
use crate::identity::Identity;
use crate::ostree::Sysroot;
use crate::progress::{Progress, Stage};
use crate::tree::{Kind, Tree, Verity};

/// ostree refuses to write when less than this much of the file system would stay free (`min-free-space-percent`).
const OSTREE_FREE_PERCENT: u64 = 3;

/// What a running system writes besides an upgrade: journal, caches, logs of the first days.
const BREATHING_ROOM: u64 = 256 << 20;

/// Bytes of a root or `/boot` for which there is an inode, as mke2fs does it.
const BYTES_PER_INODE: u64 = 16384;

/// What the joining depends on besides what is joined.
#[derive(Clone, Copy, Debug)]
pub struct Wishes<'a> {
    /// Whose layout to follow.
    pub preset: Preset,
    /// The machine's architecture.
    pub architecture: Architecture,
    /// UUIDs.
    pub identity: &'a Identity,
    /// Bytes of a sector.
    pub sector_size: SectorSize,
    /// Bytes of the whole disk; `None`: what is needed, and room for one upgrade.
    pub size: Option<DiskSize>,
    /// Partitions that the user chose; `None`: those of the preset.
    pub arrangement: Option<&'a Arrangement>,
    /// Whether `/boot` is separate even where the preset has it in the root.
    pub separate_boot: bool,
    /// What the kernel shall write as the root; `None`: the root is ext4, and written by us.
    pub kernel: Option<&'a kernel::Wanted>,
    /// Bytes that the disk has at least, unless its size is asked for.
    pub least_size: u64,
    /// The whole disk is a multiple of this many bytes: what the strictest of its formats wants.
    pub size_unit: u64,
}

/// Number of the partition that holds `/boot`.
pub fn boot_partition(preset: Preset, architecture: Architecture, separate_boot: bool) -> u32 {
    let architecture = super::partitioning_architecture(architecture);
    let roles = preset.roles(architecture, separate_boot);
    let holds_boot = if roles.contains(&Role::Boot) { Role::Boot } else { Role::Root };
    roles.into_iter().zip(1..).find(|(role, _)| *role == holds_boot).map_or(1, |(_, number)| number)
}

/// Formats the file systems and joins them to a disk.
///
/// Fails if the content does not fit into the size that was asked for, before anything is written.
pub fn lay_out(
    sysroot: &Sysroot,
    boot: &Boot,
    wishes: &Wishes<'_>,
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Disk> {
    let _stage = progress.stage(Stage::LayOut, None);
    if let Some(arrangement) = wishes.arrangement {
        return arrangement.lay_out(sysroot, boot, wishes, contents);
    }
    let identity = wishes.identity;
    let needs = fit(&sysroot.root, wishes)?;
    let options = Options {
        preset: wishes.preset,
        architecture: wishes.architecture,
        identity,
        sector_size: wishes.sector_size,
        esp: wishes.preset.default_esp(),
        separate_boot: wishes.separate_boot,
        boot: wishes.preset.default_boot(),
        size: Size::Root(needs.comfortable),
    };
    let size = match wishes.size {
        None => options.size,
        Some(asked) => {
            let least = Plan::new(&Options { size: Size::Root(needs.least), ..options })?.size();
            let total = asked.bytes(least, image_size(&sysroot.root));
            Size::Disk { total, root_needs: needs.least }
        }
    };
    let options = Options { size, ..options };
    let mut plan = Plan::new(&options)?;
    let least = if wishes.size.is_none() { wishes.least_size } else { 0 };
    let total = plan.size().max(least).next_multiple_of(wishes.size_unit);
    if total > plan.size() {
        // The table's backup is at the very end: padding the file would leave it in the middle of the disk.
        let size = Size::Disk { total, root_needs: needs.least };
        plan = Plan::new(&Options { size, ..options })?;
        if wishes.size.is_some() {
            progress.warn(format!(
                "the disk has {} MiB: one of its formats wants a whole number of GiB",
                total >> 20
            ));
        }
    }
    let root = match wishes.kernel {
        None => {
            let uuids = (identity.root_filesystem, identity.root_hash_seed);
            ext4_volume(&sysroot.root, plan.root_size(), "root", uuids)
        }
        Some(kernel) => {
            let root = (&sysroot.root, [].as_slice());
            kernel_volume(root, plan.root_size(), "root", wishes, kernel, contents)
        }
    }
    .context("formatting the root file system")?;
    let separate_boot = match (&sysroot.boot, plan.boot_size()) {
        (Some(tree), Some(size)) => Some(
            ext4_volume(tree, size, "boot", (identity.boot_filesystem, identity.boot_hash_seed))
                .context("formatting the file system of /boot")?,
        ),
        _ => None,
    };
    let esp = match &boot.esp {
        Some(tree) => Some(
            esp_volume(tree, plan.esp_size(), "EFI-SYSTEM", identity.esp_volume, wishes, contents)
                .context("formatting the ESP")?,
        ),
        None => None,
    };
    let embed = |first_lba: u64, protective: &[u8; 512]| {
        let code = boot.bios.as_ref().context("no boot code for BIOS")?;
        let (mbr, core) = code.embed(first_lba, protective);
        Ok(BiosBytes { mbr, core })
    };
    let has_bios = boot.bios.is_some();
    plan.assemble(Parts { root, boot: separate_boot, esp, bios: has_bios.then_some(&embed) })
}

/// Two sizes of a root, in bytes.
pub(super) struct Needs {
    /// What is there fits, and nothing more.
    pub(super) least: u64,
    /// There is room for one upgrade to an image of the same size, and for running.
    pub(super) comfortable: u64,
}

pub(super) fn fit(root: &Tree, wishes: &Wishes<'_>) -> Result<Needs> {
    let wanted = |free_bytes, free_inodes| ext4::Wanted {
        free_bytes,
        free_inodes,
        bytes_per_inode: BYTES_PER_INODE,
        hash_seed: wishes.identity.root_hash_seed,
    };
    let least = ext4::fit(root, &wanted(0, 0)).context("sizing the root file system")?.size;
    let (upgrade, inodes) = upgrade(root);
    let free = upgrade + BREATHING_ROOM;
    let free = free + (least + free) * OSTREE_FREE_PERCENT / 100;
    let comfortable =
        ext4::fit(root, &wanted(free, inodes)).context("sizing the root file system")?.size;
    let Some(kernel::Wanted { kind, .. }) = wishes.kernel else {
        return Ok(Needs { least, comfortable });
    };
    // Only the kernel knows how much it takes: what ext4 would need, an eighth, and what the file system has for itself.
    let enough = |size: u64| (size + size / 8 + kind.overhead()).max(kernel::Kind::MINIMUM_SIZE);
    Ok(Needs { least: enough(least), comfortable: enough(comfortable) })
}

/// Bytes of an ext4 that holds a tree and has so much free.
pub(super) fn fit_data(tree: &Tree, free: u64, wishes: &Wishes<'_>) -> Result<u64> {
    let wanted = ext4::Wanted {
        free_bytes: free,
        free_inodes: 64,
        bytes_per_inode: BYTES_PER_INODE,
        hash_seed: wishes.identity.root_hash_seed,
    };
    Ok(ext4::fit(tree, &wanted)?.size)
}

/// Bytes of the files of the image, each in whole blocks.
pub(super) fn image_size(root: &Tree) -> u64 {
    upgrade(root).0
}

/// Bytes and inodes that another image of this size would take beside this one.
fn upgrade(root: &Tree) -> (u64, u32) {
    let mut seen = vec![false; root.inode_count()];
    let (mut bytes, mut inodes) = (0_u64, 0_u32);
    for (_, id) in root.walk() {
        if std::mem::replace(&mut seen[id.index()], true) {
            continue;
        }
        inodes = inodes.saturating_add(1);
        bytes += match &root.inode(id).kind {
            Kind::File(content) => {
                let hashes = root.verity(id).map_or(0, Verity::size);
                content.size.div_ceil(4096) * 4096 + hashes
            }
            Kind::Directory(_) => 4096,
            _ => 0,
        };
    }
    (bytes, inodes)
}

pub(super) fn ext4_volume(
    tree: &Tree,
    size: u64,
    label: &str,
    (uuid, hash_seed): (uuid::Uuid, uuid::Uuid),
) -> Result<Volume> {
    let options = ext4::Options {
        size,
        uuid,
        label: label.to_owned(),
        hash_seed,
        inode_count: inode_count(tree, size),
        journal_blocks: ext4::default_journal_blocks(size),
        // Nobody but root writes to these file systems' roots before an administrator decides otherwise.
        reserved_percent: 0,
        time: 0,
    };
    let layout = ext4::Layout::of(tree, &options)?;
    let usage = layout.usage();
    Ok(Volume {
        map: layout.emit(tree),
        filesystem: "ext4",
        label: label.to_owned(),
        uuid: uuid.to_string(),
        used: (usage.blocks - usage.free_blocks) * 4096,
    })
}

/// `further`: what its further subvolumes hold.
pub(super) fn kernel_volume(
    (tree, further): (&Tree, &[&Tree]),
    size: u64,
    label: &str,
    wishes: &Wishes<'_>,
    wanted: &kernel::Wanted,
    contents: &ContentStore,
) -> Result<Volume> {
    if label.len() > wanted.kind.longest_label() {
        return Err(unsupported(
            format!("`{label}` is too long for the label of an {}", wanted.kind.name()),
            Some("it has room for 12 bytes"),
        ));
    }
    let (uuid, sector_size) = (wishes.identity.root_filesystem, wishes.sector_size.bytes());
    let options = kernel::Options { size, sector_size, uuid, label };
    let kernel::Written { map, used } = kernel::write(tree, further, contents, wanted, &options)?;
    let label = options.label.to_owned();
    Ok(Volume { map, filesystem: wanted.kind.name(), label, uuid: uuid.to_string(), used })
}

/// An inode for so many bytes, and in any case one for every inode of the tree and an upgrade of it.
fn inode_count(tree: &Tree, size: u64) -> u32 {
    let by_size = size / BYTES_PER_INODE;
    let (_, upgrade) = upgrade(tree);
    u32::try_from(by_size.max(2 * u64::from(upgrade) + 64)).unwrap_or(u32::MAX)
}

pub(super) fn esp_volume(
    tree: &Tree,
    size: u64,
    label: &str,
    volume_id: u32,
    wishes: &Wishes<'_>,
    contents: &ContentStore,
) -> Result<Volume> {
    let options = fat::Options {
        size,
        sector_size: u32::try_from(wishes.sector_size.bytes())?,
        volume_id,
        label,
    };
    let map = fat::format(tree, contents, &options)?;
    Ok(Volume {
        used: map.allocated(),
        map,
        filesystem: "vfat",
        label: options.label.to_owned(),
        uuid: fat::uuid(volume_id),
    })
}
