//! Layouts that users choose: their partitions, in their order, and what booting takes besides.
//!
//! ```text
//! config::Layout ─► Arrangement (which partitions: known before anything is built)
//!                      ├─► number of /boot's partition, UUIDs, mounts
//!                      └─► sizes, once the contents are known ─► Table ─► Disk
//! ```

use anyhow::{Context, Result};
use partitioning::{MIB, Preset, Role, Scheme, SectorSize, Slot, Table};
use uuid::Uuid;

use super::subvolumes;
use super::volumes::{
    Needs, Wishes, esp_volume, ext4_volume, fit, fit_data, image_size, kernel_volume,
};
use super::{BiosBytes, Disk, FilesystemReport, Filled, Plan};
use crate::architecture::Architecture;
use crate::bootloader::Boot;
use crate::config::{
    Filesystem, FilesystemKind, Layout, Mount, Mounting, Partition, Payload, TableKind,
};
use crate::content::{Content, ContentStore};
use crate::error::{corrupt, unsupported};
use crate::filesystem::{fat, swap};
use crate::identity::Identity;
use crate::ostree::Sysroot;
use crate::sparse::SparseMap;
use crate::tree::{Kind, Tree};

/// Bytes of a `/boot` of which nobody says how large it shall be: osbuild's 1 GiB, room for three kernels.
const BOOT_SIZE: u64 = 1024 * MIB;

/// What a file system has free of which nobody says how large it shall be.
const SPARE: u64 = 64 * MIB;

/// GPT attribute bit 2 (UEFI 2.10, table 5.8), and the active mark of an MBR.
const BOOTABLE: u64 = 1 << 2;

/// Which partitions there are, before anybody knows how large they are.
#[derive(Clone, Debug)]
pub struct Arrangement {
    layout: Layout,
    slots: Vec<Wish>,
}

/// A partition to be.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    role: Role,
    pub(super) partition: Partition,
    /// Of a raw partition.
    raw: Option<Content>,
    guid: Uuid,
    /// Of what is in it.
    uuid: Uuid,
    type_guid: Uuid,
}

impl Wish {
    fn filesystem(&self) -> Option<&Filesystem> {
        match &self.partition.payload {
            Payload::Filesystem(filesystem) => Some(filesystem),
            _ => None,
        }
    }

    /// The kind of an extra file system.
    fn kind(&self) -> FilesystemKind {
        let asked = self.filesystem().and_then(|filesystem| filesystem.kind);
        asked.unwrap_or(if self.role == Role::Esp {
            FilesystemKind::Vfat
        } else {
            FilesystemKind::Ext4
        })
    }

    /// Of a FAT, whose UUID is a number.
    fn volume_id(&self) -> u32 {
        let bytes = self.uuid.as_bytes();
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// As `blkid` says it.
    fn blkid(&self) -> String {
        match self.kind() {
            FilesystemKind::Vfat if self.filesystem().is_some() => fat::uuid(self.volume_id()),
            _ => self.uuid.to_string(),
        }
    }

    fn label(&self) -> String {
        let asked = self.filesystem().and_then(|filesystem| filesystem.label.clone());
        let asked = asked.or_else(|| match &self.partition.payload {
            Payload::Btrfs { label, .. } => Some(label.clone()).filter(|label| !label.is_empty()),
            _ => None,
        });
        asked.unwrap_or_else(|| match self.role {
            Role::Root => "root".to_owned(),
            Role::Boot => "boot".to_owned(),
            Role::Esp => "EFI-SYSTEM".to_owned(),
            _ => String::new(),
        })
    }
}

/// The UUIDs of a disk whose layout may name some of them.
///
/// Fails if one that it names has not the form that its file system wants.
pub fn identify(identity: Identity, layout: Option<&Layout>) -> Result<Identity> {
    let mut identity = identity;
    let Some(layout) = layout else { return Ok(identity) };
    identity.disk = layout.table_id.unwrap_or(identity.disk);
    for partition in &layout.partitions {
        let (guid, filesystem) = match partition.mountpoint() {
            Some("/") => (&mut identity.root_partition, Some(&mut identity.root_filesystem)),
            Some("/boot") => (&mut identity.boot_partition, Some(&mut identity.boot_filesystem)),
            Some("/boot/efi") => (&mut identity.esp_partition, None),
            _ => continue,
        };
        *guid = partition.guid.unwrap_or(*guid);
        match (&partition.payload, filesystem) {
            (Payload::Btrfs { uuid: Some(uuid), .. }, Some(place)) => *place = *uuid,
            (Payload::Filesystem(Filesystem { uuid: Some(uuid), .. }), Some(place)) => {
                *place = uuid_of(uuid, &layout.origin)?;
            }
            (Payload::Filesystem(Filesystem { uuid: Some(uuid), .. }), None) => {
                identity.esp_volume = volume_id_of(uuid, &layout.origin)?;
            }
            _ => {}
        }
    }
    Ok(identity)
}

fn uuid_of(text: &str, origin: &str) -> Result<Uuid> {
    Uuid::try_parse(text)
        .map_err(|_| corrupt(origin, format!("`{text}` is no UUID of a file system")))
}

/// `7B77-95E7`.
fn volume_id_of(text: &str, origin: &str) -> Result<u32> {
    let digits = text.replace('-', "");
    let id = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 8);
    id.ok_or_else(|| {
        corrupt(origin, format!("`{text}` is no volume id of a FAT, such as 7B77-95E7"))
    })
}

impl Arrangement {
    /// Decides which partitions there are; among them a `/boot` if it is wanted in any case. `root` is the image's tree, for partitions that it fills.
    ///
    /// `Unsupported` for what bootpress cannot make.
    pub fn of(
        layout: &Layout,
        (preset, architecture): (Preset, Architecture),
        boot_wanted: bool,
        identity: &Identity,
        root: &Tree,
    ) -> Result<Self> {
        let architecture = super::partitioning_architecture(architecture);
        let dos = layout.table == TableKind::Dos;
        let usual = preset.roles(architecture, boot_wanted);
        let mut wishes = Vec::new();
        let given = |role| layout.partitions.iter().any(|partition| role_of(partition) == role);
        for role in Role::ALL {
            let wanted = match role {
                // Boot code has its place before the first partition there.
                Role::BiosBoot => usual.contains(&role) && !dos && !given(role),
                Role::Esp => !given(role),
                Role::Boot => {
                    let preset_has = !layout.complete && usual.contains(&role);
                    (preset_has || boot_wanted) && !given(role)
                }
                _ => false,
            };
            if wanted {
                wishes.push((role, Partition::default()));
            }
        }
        wishes.extend(
            layout.partitions.iter().map(|partition| (role_of(partition), partition.clone())),
        );
        if !given(Role::Root) {
            wishes.push((Role::Root, Partition::default()));
        }
        if dos && wishes.len() > 4 {
            return Err(unsupported(
                format!(
                    "{}: with those that booting takes there are {} partitions, and a dos table has at most 4",
                    layout.origin,
                    wishes.len()
                ),
                Some("leave one away, or take a gpt table"),
            ));
        }
        let slots = wishes
            .into_iter()
            .enumerate()
            .map(|(index, (role, partition))| {
                let type_guid =
                    partition.type_guid.unwrap_or_else(|| role.type_guid(preset, architecture));
                wish(index, role, partition, type_guid, identity, root)
                    .with_context(|| format!("{}: partition {}", layout.origin, index + 1))
            })
            .collect::<Result<_>>()?;
        Ok(Self { layout: layout.clone(), slots })
    }

    /// Number of the partition that holds `/boot`.
    pub fn boot_partition(&self) -> u32 {
        let number = |role| {
            self.slots.iter().zip(1..).find(|(slot, _)| slot.role == role).map(|(_, number)| number)
        };
        number(Role::Boot).or_else(|| number(Role::Root)).expect("every arrangement has a root")
    }

    /// Whether `/boot` is a file system of its own.
    pub fn separate_boot(&self) -> bool {
        self.slots.iter().any(|slot| slot.role == Role::Boot)
    }

    /// Whether the table is a master boot record.
    pub fn is_dos(&self) -> bool {
        self.layout.table == TableKind::Dos
    }

    /// Whether nothing lies behind the root.
    pub fn root_is_last(&self) -> bool {
        self.slots.last().is_some_and(|slot| slot.role == Role::Root)
    }

    /// What is mounted besides the root and `/boot`, in the order of the partitions.
    pub fn mounting(&self) -> Mounting {
        let mut mounts = Vec::new();
        for slot in &self.slots {
            let plain = Mount {
                uuid: slot.blkid(),
                mountpoint: None,
                kind: "swap",
                options: "defaults".to_owned(),
                frequency: 0,
                pass: 0,
            };
            match (&slot.partition.payload, slot.role) {
                (Payload::Swap { .. }, _) => mounts.push(plain),
                (Payload::Btrfs { subvolumes, .. }, _) => {
                    mounts.extend(subvolumes::mounts(subvolumes, &slot.uuid));
                }
                (Payload::Filesystem(filesystem), Role::Data | Role::Esp) => {
                    let Some(mountpoint) = &filesystem.mountpoint else { continue };
                    let esp = slot.role == Role::Esp;
                    let otherwise = if esp { "umask=0077,shortname=winnt" } else { "defaults" };
                    mounts.push(Mount {
                        mountpoint: Some(mountpoint.clone()),
                        kind: slot.kind().name(),
                        options: filesystem.options.clone().unwrap_or_else(|| otherwise.to_owned()),
                        frequency: filesystem.frequency,
                        pass: if filesystem.pass == 0 { 2 } else { filesystem.pass },
                        ..plain
                    });
                }
                _ => {}
            }
        }
        Mounting { style: self.layout.mounts, mounts, grow: None }
    }

    /// Formats the file systems and joins them to a disk, as [`super::lay_out`] does for presets.
    pub fn lay_out(
        &self,
        sysroot: &Sysroot,
        boot: &Boot,
        wishes: &Wishes<'_>,
        contents: &ContentStore,
    ) -> Result<Disk> {
        let needs = fit(&sysroot.root, wishes)?;
        let table = self.table(sysroot, &needs, wishes)?;
        let mut filled = Vec::new();
        for (slot, partition) in self.slots.iter().zip(&table.partitions) {
            let size = partition.size(table.sector_size);
            let fill = self.fill(slot, size, sysroot, boot, wishes, contents);
            filled.push(fill.with_context(|| {
                format!("formatting partition {}, {}", partition.number, slot.role)
            })?);
        }
        let embed = |first_lba: u64, protective: &[u8; 512]| {
            let code = boot.bios.as_ref().context("no boot code for BIOS")?;
            let (mbr, core) = code.embed(first_lba, protective);
            Ok(BiosBytes { mbr, core })
        };
        Plan { table }.join(filled, boot.bios.is_some().then_some(&embed))
    }

    fn table(&self, sysroot: &Sysroot, needs: &Needs, wishes: &Wishes<'_>) -> Result<Table> {
        let fills = wishes.size.is_some() || self.layout.root_fills_disk;
        let root_size = if wishes.size.is_some() { needs.least } else { needs.comfortable };
        let mut slots = Vec::new();
        for slot in &self.slots {
            let asked = slot.partition.minsize;
            let size = match slot.role {
                Role::BiosBoot => asked.max(MIB),
                Role::Esp if asked == 0 => wishes.preset.default_esp(),
                Role::Boot if asked == 0 => BOOT_SIZE,
                Role::Root => asked.max(root_size + self.beside_root(slot, sysroot, wishes)?),
                Role::Data => self.data_size(slot, sysroot, wishes)?,
                Role::Swap => asked.max(swap::SMALLEST),
                Role::Esp | Role::Boot => asked,
            };
            let marked = slot.partition.bootable || slot.role == Role::BiosBoot;
            slots.push(Slot {
                role: slot.role,
                type_guid: slot.type_guid,
                type_byte: slot.partition.type_byte.unwrap_or(type_byte(slot)),
                guid: slot.guid,
                name: slot.partition.name.clone().unwrap_or_default(),
                attributes: slot.partition.attributes | if marked { BOOTABLE } else { 0 },
                size,
            });
        }
        let root = self.slots.iter().position(|slot| slot.role == Role::Root);
        let mut arrangement = partitioning::Arrangement {
            scheme: if self.is_dos() { Scheme::Dos } else { Scheme::Gpt },
            guid: wishes.identity.disk,
            sector_size: wishes.sector_size,
            start: self.layout.start_offset.unwrap_or(MIB),
            slots,
            disk: None,
            grows: root.filter(|_| fills),
        };
        let too_small = |error: partitioning::PlanError| {
            unsupported(
                format!("{}: {error}", self.layout.origin),
                Some("ask for a larger disk, or for none, and it becomes as large as it must"),
            )
        };
        // A least size is no reason to fail.
        let least = Table::arrange(&arrangement).map_err(too_small)?.size();
        let asked = wishes.size.map(|size| size.bytes(least, image_size(&sysroot.root)));
        // Who lays out the whole disk says how large it is, too.
        let usual = Some(wishes.least_size).filter(|size| *size > 0 && !self.layout.complete);
        let minsize = self.layout.minsize.or(usual);
        arrangement.disk = asked.or_else(|| minsize.map(|size| size.max(least)));
        let table = Table::arrange(&arrangement).map_err(too_small)?;
        if table.size().is_multiple_of(wishes.size_unit) {
            return Ok(table);
        }
        // The table's backup is at the very end, so the format's padding has to be part of the disk.
        arrangement.disk = Some(table.size().next_multiple_of(wishes.size_unit));
        Table::arrange(&arrangement).map_err(too_small)
    }

    /// Bytes of a partition that is neither root nor boot: what was asked for, or what is in it and some room.
    fn data_size(&self, slot: &Wish, sysroot: &Sysroot, wishes: &Wishes<'_>) -> Result<u64> {
        let asked = slot.partition.minsize;
        if let Some(raw) = &slot.raw {
            return Ok(asked.max(raw.size).max(1));
        }
        let Some(filesystem) = slot.filesystem() else { return Ok(asked.max(MIB)) };
        match slot.kind() {
            FilesystemKind::Ext4 => {
                let spare = if asked == 0 { SPARE } else { 0 };
                let tree = self.tree(filesystem.mountpoint.as_ref(), sysroot)?;
                Ok(asked.max(fit_data(tree, spare, wishes)?))
            }
            _ => Ok(if asked == 0 { SPARE } else { asked }),
        }
    }

    /// What a volume holds; nothing if it is not mounted.
    pub(super) fn tree<'a>(
        &self,
        mountpoint: Option<&String>,
        sysroot: &'a Sysroot,
    ) -> Result<&'a Tree> {
        static NOTHING: std::sync::OnceLock<Tree> = std::sync::OnceLock::new();
        let Some(mountpoint) = mountpoint else {
            return Ok(NOTHING.get_or_init(|| Tree::new(crate::tree::Metadata::root(0o755))));
        };
        // Volumes come in the order of mounts, links resolved.
        let mounts = self.mounting().mounts;
        let mounted = mounts.iter().filter_map(|mount| mount.mountpoint.as_ref());
        let mut pairs = mounted.filter(|path| *path != "/boot/efi").zip(&sysroot.volumes);
        let found = pairs.find(|(path, _)| *path == mountpoint);
        found
            .map(|(_, (_, tree))| tree)
            .with_context(|| format!("nothing was prepared for {mountpoint}"))
    }

    fn fill(
        &self,
        slot: &Wish,
        size: u64,
        sysroot: &Sysroot,
        boot: &Boot,
        wishes: &Wishes<'_>,
        contents: &ContentStore,
    ) -> Result<Option<Filled>> {
        let identity = wishes.identity;
        let label = slot.label();
        let seed = identity.further(&format!("hash seed of {}", slot.guid));
        let volume = match slot.role {
            Role::BiosBoot => return Ok(None),
            Role::Root => match wishes.kernel {
                Some(kernel) => {
                    let further = self.further(slot, sysroot)?;
                    let root = (&sysroot.root, further.as_slice());
                    kernel_volume(root, size, &label, wishes, kernel, contents)?
                }
                None => {
                    let uuids = (identity.root_filesystem, identity.root_hash_seed);
                    ext4_volume(&sysroot.root, size, &label, uuids)?
                }
            },
            Role::Boot => {
                let tree = sysroot.boot.as_ref().context("no content for /boot")?;
                ext4_volume(
                    tree,
                    size,
                    &label,
                    (identity.boot_filesystem, identity.boot_hash_seed),
                )?
            }
            Role::Esp => match &boot.esp {
                Some(tree) => {
                    esp_volume(tree, size, &label, identity.esp_volume, wishes, contents)?
                }
                None => return Ok(None),
            },
            Role::Swap => {
                let Payload::Swap { label, .. } = &slot.partition.payload else { return Ok(None) };
                let report = FilesystemReport {
                    kind: "swap",
                    label: label.clone(),
                    uuid: slot.uuid.to_string(),
                    used: 0,
                };
                return Ok(Some((swap::format(size, slot.uuid, label), Some(report))));
            }
            Role::Data => {
                if let Some(raw) = &slot.raw {
                    let mut map = SparseMap::new(size);
                    map.put_content(0, raw.id, 0, raw.size);
                    return Ok(Some((map, None)));
                }
                let Some(filesystem) = slot.filesystem() else { return Ok(None) };
                let tree = self.tree(filesystem.mountpoint.as_ref(), sysroot)?;
                match slot.kind() {
                    FilesystemKind::Vfat => {
                        esp_volume(tree, size, &label, slot.volume_id(), wishes, contents)?
                    }
                    _ => ext4_volume(tree, size, &label, (slot.uuid, seed))?,
                }
            }
        };
        Ok(Some(volume.into()))
    }
}

/// What a partition of a layout is for.
fn role_of(partition: &Partition) -> Role {
    let typed = partition.type_guid.and_then(Role::of_type);
    match (&partition.payload, partition.mountpoint()) {
        (Payload::Swap { .. }, _) => Role::Swap,
        (_, Some("/")) => Role::Root,
        (_, Some("/boot")) => Role::Boot,
        (_, Some("/boot/efi")) => Role::Esp,
        (Payload::Empty, None) if typed == Some(Role::BiosBoot) => Role::BiosBoot,
        (_, None) if typed == Some(Role::Esp) || partition.type_byte == Some(0xef) => Role::Esp,
        _ => Role::Data,
    }
}

/// Type bytes of an MBR, as everybody uses them.
fn type_byte(slot: &Wish) -> u8 {
    match slot.role {
        Role::Esp => 0xef,
        Role::Swap => 0x82,
        Role::Data if slot.filesystem().is_some() && slot.kind() == FilesystemKind::Vfat => 0x0c,
        _ => 0x83,
    }
}

fn wish(
    index: usize,
    role: Role,
    partition: Partition,
    type_guid: Uuid,
    identity: &Identity,
    root: &Tree,
) -> Result<Wish> {
    let derived = identity.further(&format!("partition {index}"));
    let guid = match role {
        Role::BiosBoot => identity.bios_partition,
        Role::Esp => identity.esp_partition,
        Role::Boot => identity.boot_partition,
        Role::Root => identity.root_partition,
        Role::Data | Role::Swap => derived,
    };
    let guid = partition.guid.unwrap_or(guid);
    let mut uuid = identity.further(&format!("content of partition {index}"));
    let mut raw = None;
    match &partition.payload {
        Payload::Filesystem(filesystem) => {
            refuse_kinds(role, filesystem)?;
            if let Some(named) = &filesystem.uuid {
                uuid = match filesystem.kind {
                    Some(FilesystemKind::Vfat) => {
                        let mut bytes = *uuid.as_bytes();
                        bytes[..4]
                            .copy_from_slice(&volume_id_of(named, "the layout")?.to_le_bytes());
                        Uuid::from_bytes(bytes)
                    }
                    _ => uuid_of(named, "the layout")?,
                };
            }
        }
        Payload::Swap { uuid: Some(named), .. } => uuid = *named,
        Payload::Raw { source } => raw = Some(content_of(root, source)?),
        Payload::Btrfs { .. } if role == Role::Root => uuid = identity.root_filesystem,
        Payload::Btrfs { .. } => return Err(no_filesystem("btrfs")),
        Payload::Swap { .. } | Payload::Empty => {}
    }
    Ok(Wish { role, partition, raw, guid, uuid, type_guid })
}

fn content_of(root: &Tree, source: &str) -> Result<Content> {
    match root.resolve(source).map(|id| &root.inode(id).kind) {
        Some(Kind::File(content)) if content.size > 0 => Ok(content.clone()),
        _ => Err(unsupported(
            format!("the image has no file {source} to fill a partition with"),
            None,
        )),
    }
}

fn refuse_kinds(role: Role, filesystem: &Filesystem) -> Result<()> {
    match (filesystem.kind, role) {
        // What the root is on is decided with all that have a say in it.
        (_, Role::Root) | (None | Some(FilesystemKind::Ext4), _) => Ok(()),
        (Some(FilesystemKind::Vfat), Role::Esp | Role::Data) => Ok(()),
        (Some(kind), _) => Err(no_filesystem(kind.name())),
    }
}

fn no_filesystem(name: &str) -> anyhow::Error {
    unsupported(format!("bootpress writes ext4 and FAT here, not {name}"), Some("take ext4"))
}

/// Sector sizes of a layout that speaks of one.
pub fn sector_size(layout: &Layout) -> Option<SectorSize> {
    SectorSize::from_bytes(layout.sector_size?)
}
