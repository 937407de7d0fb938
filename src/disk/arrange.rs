//! Which partitions a disk has, in their order, before anybody knows how large they are: those of a preset, or those of a layout and
//! what booting takes besides.

use anyhow::{Context, Result};
use partitioning::{Preset, Role, Scheme, SectorSize};
use uuid::Uuid;

use crate::architecture::Architecture;
use crate::config::{
    Filesystem, Layout, Mount, Mounting, Partition, Payload, Subvolume, TableKind,
};
use crate::content::Content;
use crate::error::{corrupt, unsupported};
use crate::filesystem_kind::FileSystem;
use crate::identity::Identity;
use crate::tree::{Kind, Tree};

/// GPT attribute bit 2 (UEFI 2.10, table 5.8), and the active mark of an MBR.
const BOOTABLE: u64 = 1 << 2;

/// What decides about partitions.
#[derive(Clone, Copy, Debug)]
pub struct Partitioning<'a> {
    /// Partitions that somebody chose; `None`: the preset's.
    pub layout: Option<&'a Layout>,
    /// Whose partitions to make, and whose types and sizes where nobody says others.
    pub preset: Preset,
    /// The machine's architecture.
    pub architecture: Architecture,
    /// What the root is on.
    pub root: &'a RootVolume,
    /// Whether `/boot` is separate even where the preset has it in the root.
    pub separate_boot: bool,
}

/// The root's file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootVolume {
    /// Its kind.
    pub kind: FileSystem,
    /// The subvolume of a btrfs that it is in, if there is one.
    pub subvolume: Option<String>,
    /// How a btrfs compresses it, as `compress=` has it.
    pub compression: Option<String>,
}

/// Which partitions there are.
#[derive(Clone, Debug)]
pub struct Arrangement {
    /// The layout that is followed; that of a preset asks for nothing.
    pub(super) layout: Layout,
    pub(super) preset: Preset,
    pub(super) root: RootVolume,
    pub(super) slots: Vec<Slot>,
}

/// A partition to be.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) role: Role,
    pub(super) partition: Partition,
    /// What fills it.
    pub(super) holds: Holds,
    /// GUID of the partition itself.
    pub(super) guid: Uuid,
    pub(super) type_guid: Uuid,
}

/// What a partition holds.
#[derive(Clone, Debug)]
pub(super) enum Holds {
    /// Nothing, or boot code.
    Nothing,
    /// The bytes of a file of the image.
    Raw(Content),
    /// A file system or swap area with this UUID; of a FAT the first four bytes are the volume ID.
    Volume(FileSystem, Uuid),
}

impl Slot {
    pub(super) fn filesystem(&self) -> Option<&Filesystem> {
        match &self.partition.payload {
            Payload::Filesystem(filesystem) => Some(filesystem),
            _ => None,
        }
    }

    pub(super) fn label(&self) -> String {
        let asked = match &self.partition.payload {
            Payload::Filesystem(filesystem) => filesystem.label.clone(),
            Payload::Btrfs { label, .. } => Some(label.clone()).filter(|label| !label.is_empty()),
            Payload::Swap { label, .. } => Some(label.clone()),
            Payload::Raw { .. } | Payload::Empty => None,
        };
        asked.unwrap_or_else(|| match self.role {
            Role::Root => "root".to_owned(),
            Role::Boot => "boot".to_owned(),
            Role::Esp => "EFI-SYSTEM".to_owned(),
            Role::BiosBoot | Role::Data | Role::Swap => String::new(),
        })
    }

    /// Subvolumes that are not the root, in their order.
    pub(super) fn beside_root(&self) -> impl Iterator<Item = &Subvolume> {
        let all = self.partition.subvolumes().iter();
        all.filter(|one| one.mountpoint.as_deref() != Some("/"))
    }

    /// Type byte in an MBR, as everybody uses them.
    fn type_byte(&self) -> u8 {
        match (self.role, &self.holds) {
            (Role::Data, Holds::Volume(FileSystem::Vfat, _)) => 0x0c,
            (role, _) => role.type_byte(),
        }
    }

    /// What is mounted of it, besides the root and `/boot`.
    fn mounts(&self) -> Vec<Mount> {
        let Holds::Volume(kind, uuid) = &self.holds else { return Vec::new() };
        let plain = Mount {
            uuid: kind.shown_uuid(*uuid),
            mountpoint: None,
            kind: kind.name(),
            options: "defaults".to_owned(),
            frequency: 0,
            pass: 0,
        };
        match (&self.partition.payload, self.role) {
            (Payload::Swap { .. }, _) => vec![plain],
            (Payload::Btrfs { .. }, _) => self.subvolume_mounts(&plain),
            (Payload::Filesystem(filesystem), Role::Data | Role::Esp) => {
                let Some(mountpoint) = &filesystem.mountpoint else { return Vec::new() };
                let esp = self.role == Role::Esp;
                let otherwise = if esp { "umask=0077,shortname=winnt" } else { "defaults" };
                vec![Mount {
                    mountpoint: Some(mountpoint.clone()),
                    options: filesystem.options.clone().unwrap_or_else(|| otherwise.to_owned()),
                    frequency: filesystem.frequency,
                    pass: if filesystem.pass == 0 { 2 } else { filesystem.pass },
                    ..plain
                }]
            }
            _ => Vec::new(),
        }
    }

    /// The root's subvolume is mounted by the kernel (`rootflags=subvol=`), the others by units.
    fn subvolume_mounts(&self, plain: &Mount) -> Vec<Mount> {
        let mount = |one: &Subvolume| {
            let mut options = format!("subvol={}", one.name);
            if let Some(how) = &one.compression {
                options += &format!(",compress={how}");
            }
            if one.read_only {
                options += ",ro";
            }
            // fsck.btrfs does nothing, so it is not asked for.
            Mount { mountpoint: one.mountpoint.clone(), options, ..plain.clone() }
        };
        self.beside_root().filter(|one| one.mountpoint.is_some()).map(mount).collect()
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
        .map_err(|_| corrupt(origin, format!("`{text}` is not a UUID of a file system")))
}

/// `7B77-95E7`.
fn volume_id_of(text: &str, origin: &str) -> Result<u32> {
    let digits = text.replace('-', "");
    let id = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 8);
    id.ok_or_else(|| {
        corrupt(origin, format!("`{text}` is not a volume id of a FAT, such as 7B77-95E7"))
    })
}

impl Arrangement {
    /// Decides which partitions there are. `image` is the image's tree, for partitions that its files fill.
    ///
    /// `Unsupported` for what bootpress cannot make.
    pub fn of(wanted: &Partitioning<'_>, identity: &Identity, image: &Tree) -> Result<Self> {
        let preset = || Layout { root_fills_disk: true, ..Layout::default() };
        let layout = wanted.layout.cloned().unwrap_or_else(preset);
        let architecture = super::partitioning_architecture(wanted.architecture);
        let partitions = complete(&layout, wanted);
        if layout.table == TableKind::Dos && partitions.len() > 4 {
            return Err(unsupported(
                format!(
                    "{}: with those that booting takes there are {} partitions, and a dos table has at most 4",
                    layout.origin,
                    partitions.len()
                ),
                Some("leave one away, or take a gpt table"),
            ));
        }
        let slot = |(index, (role, partition)): (usize, (Role, Partition))| {
            let holds = holds(index, role, &partition, wanted.root.kind, identity, image)
                .with_context(|| format!("{}: partition {}", layout.origin, index + 1))?;
            let derived = match role {
                Role::BiosBoot => identity.bios_partition,
                Role::Esp => identity.esp_partition,
                Role::Boot => identity.boot_partition,
                Role::Root => identity.root_partition,
                Role::Data | Role::Swap => identity.further(&format!("partition {index}")),
            };
            let usual = role.type_guid(wanted.preset, architecture);
            Ok(Slot {
                role,
                holds,
                guid: partition.guid.unwrap_or(derived),
                type_guid: partition.type_guid.unwrap_or(usual),
                partition,
            })
        };
        let slots = partitions.into_iter().enumerate().map(slot).collect::<Result<_>>()?;
        Ok(Self { layout, preset: wanted.preset, root: wanted.root.clone(), slots })
    }

    /// Who lays out the partitions, unless it is the preset.
    pub fn origin(&self) -> Option<&str> {
        Some(self.layout.origin.as_str()).filter(|origin| !origin.is_empty())
    }

    /// What the root is on.
    pub fn root(&self) -> &RootVolume {
        &self.root
    }

    /// Number of the partition that holds `/boot`.
    pub fn boot_partition(&self) -> u32 {
        let number = |role| {
            self.slots.iter().zip(1..).find(|(slot, _)| slot.role == role).map(|(_, number)| number)
        };
        number(Role::Boot).or_else(|| number(Role::Root)).expect("every arrangement has a root")
    }

    /// The file system that `/boot` is on.
    pub fn boot_filesystem(&self) -> FileSystem {
        let boot = self.slots.iter().find(|slot| slot.role == Role::Boot);
        match boot.map(|slot| &slot.holds) {
            Some(Holds::Volume(kind, _)) => *kind,
            _ => self.root.kind,
        }
    }

    /// Whether `/boot` is a file system of its own.
    pub fn separate_boot(&self) -> bool {
        self.slots.iter().any(|slot| slot.role == Role::Boot)
    }

    /// The label of a `/boot` of its own.
    pub fn boot_label(&self) -> Option<String> {
        self.slots.iter().find(|slot| slot.role == Role::Boot).map(Slot::label)
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
        let mounts = self.slots.iter().flat_map(Slot::mounts).collect();
        Mounting { style: self.layout.mounts, mounts, grow: None }
    }

    /// As the table wants it, for sizes in bytes that go with the slots; nothing grows yet.
    pub(super) fn with_sizes(
        &self,
        sizes: &[u64],
        disk: Uuid,
        sector_size: SectorSize,
    ) -> partitioning::Arrangement {
        let slots = self.slots.iter().zip(sizes).map(|(slot, &size)| {
            let marked = slot.partition.bootable || slot.role == Role::BiosBoot;
            partitioning::Slot {
                role: slot.role,
                type_guid: slot.type_guid,
                type_byte: slot.partition.type_byte.unwrap_or(slot.type_byte()),
                guid: slot.guid,
                name: slot.partition.name.clone().unwrap_or_default(),
                attributes: slot.partition.attributes | if marked { BOOTABLE } else { 0 },
                size,
            }
        });
        partitioning::Arrangement {
            scheme: if self.is_dos() { Scheme::Dos } else { Scheme::Gpt },
            guid: disk,
            sector_size,
            start: self.layout.start_offset.unwrap_or(partitioning::MIB),
            slots: slots.collect(),
            disk: None,
            grows: None,
        }
    }
}

/// The partitions of a layout, with those that booting takes and the layout does not have.
fn complete(layout: &Layout, wanted: &Partitioning<'_>) -> Vec<(Role, Partition)> {
    let architecture = super::partitioning_architecture(wanted.architecture);
    let usual = wanted.preset.roles(architecture, wanted.separate_boot);
    let given = |role| layout.partitions.iter().any(|partition| role_of(partition) == role);
    let is_wanted = |role: &Role| match role {
        // Boot code has its place before the first partition of a master boot record.
        Role::BiosBoot => usual.contains(role) && layout.table != TableKind::Dos,
        Role::Boot => wanted.separate_boot || !layout.complete && usual.contains(role),
        Role::Esp | Role::Root => true,
        Role::Data | Role::Swap => false,
    };
    // A layout's partitions have names only where it says so.
    let name = |role| Some(wanted.preset.partition_name(role).to_owned());
    let own = |role| Partition {
        name: name(role).filter(|_| wanted.layout.is_none()),
        ..Partition::default()
    };
    let missing = Role::ALL.into_iter().filter(|role| is_wanted(role) && !given(*role));
    let (root, before): (Vec<_>, Vec<_>) = missing.partition(|role| *role == Role::Root);
    let before = before.into_iter().map(|role| (role, own(role)));
    let asked = layout.partitions.iter().map(|partition| (role_of(partition), partition.clone()));
    before.chain(asked).chain(root.into_iter().map(|role| (role, own(role)))).collect()
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

/// What the partition at an index holds.
fn holds(
    index: usize,
    role: Role,
    partition: &Partition,
    root: FileSystem,
    identity: &Identity,
    image: &Tree,
) -> Result<Holds> {
    let derived = identity.further(&format!("content of partition {index}"));
    let volume = |kind, uuid| Ok(Holds::Volume(kind, uuid));
    let of_boot = |one: &Subvolume| one.mountpoint.as_deref() == Some("/boot");
    if partition.subvolumes().iter().any(of_boot) {
        return Err(unsupported(
            "/boot cannot be in a subvolume of btrfs, because GRUB cannot write its environment there",
            Some("leave the subvolume away: /boot becomes an ext4 of its own"),
        ));
    }
    match (role, &partition.payload) {
        (Role::BiosBoot, _) => Ok(Holds::Nothing),
        // What these are on, and their UUIDs, was decided with all that have a say in it.
        (Role::Root, _) => volume(root, identity.root_filesystem),
        (Role::Data, Payload::Btrfs { uuid, .. }) => {
            volume(FileSystem::Btrfs, uuid.unwrap_or(derived))
        }
        (_, Payload::Btrfs { .. }) => Err(no_filesystem("btrfs", &[])),
        (Role::Esp, payload) => {
            refuse_other_than(&[FileSystem::Vfat, FileSystem::Ext4], payload)?;
            volume(FileSystem::Vfat, fat_uuid(identity.esp_volume, derived))
        }
        (Role::Boot, payload) => {
            refuse_other_than(&[FileSystem::Ext4, FileSystem::Xfs], payload)?;
            let kind = match payload {
                Payload::Filesystem(filesystem) => filesystem.kind,
                _ => None,
            };
            volume(kind.unwrap_or(FileSystem::Ext4), identity.boot_filesystem)
        }
        (Role::Swap | Role::Data, Payload::Swap { uuid, .. }) => {
            volume(FileSystem::Swap, uuid.unwrap_or(derived))
        }
        (Role::Swap | Role::Data, Payload::Raw { source }) => {
            Ok(Holds::Raw(content_of(image, source)?))
        }
        (Role::Swap | Role::Data, Payload::Filesystem(filesystem)) => {
            let kinds = [FileSystem::Ext4, FileSystem::Xfs, FileSystem::Btrfs, FileSystem::Vfat];
            refuse_other_than(&kinds, &partition.payload)?;
            let kind = filesystem.kind.unwrap_or(FileSystem::Ext4);
            let uuid = match (&filesystem.uuid, kind) {
                (None, _) => derived,
                (Some(named), FileSystem::Vfat) => {
                    fat_uuid(volume_id_of(named, "the layout")?, derived)
                }
                (Some(named), _) => uuid_of(named, "the layout")?,
            };
            volume(kind, uuid)
        }
        (Role::Swap | Role::Data, Payload::Empty) => Ok(Holds::Nothing),
    }
}

/// A UUID that says the volume ID of a FAT.
fn fat_uuid(volume_id: u32, otherwise: Uuid) -> Uuid {
    let mut bytes = *otherwise.as_bytes();
    bytes[..4].copy_from_slice(&volume_id.to_le_bytes());
    Uuid::from_bytes(bytes)
}

fn content_of(image: &Tree, source: &str) -> Result<Content> {
    match image.resolve(source).map(|id| &image.inode(id).kind) {
        Some(Kind::File(content)) if content.size > 0 => Ok(content.clone()),
        _ => Err(unsupported(
            format!("the image has no file {source} to fill a partition with"),
            None,
        )),
    }
}

fn refuse_other_than(kinds: &[FileSystem], payload: &Payload) -> Result<()> {
    match payload {
        Payload::Filesystem(Filesystem { kind: Some(kind), .. }) if !kinds.contains(kind) => {
            Err(no_filesystem(kind.name(), kinds))
        }
        _ => Ok(()),
    }
}

fn no_filesystem(name: &str, kinds: &[FileSystem]) -> anyhow::Error {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let hint = match names.as_slice() {
        [] => "use a plain partition of ext4".to_owned(),
        names => format!("use one of: {}", names.join(", ")),
    };
    unsupported(format!("this partition cannot be a {name}"), Some(&hint))
}

/// Sector sizes of a layout that speaks of one.
pub fn sector_size(layout: &Layout) -> Option<SectorSize> {
    SectorSize::from_bytes(layout.sector_size?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filesystem::fat;
    use crate::tree::Metadata;

    const EXT4: RootVolume =
        RootVolume { kind: FileSystem::Ext4, subvolume: None, compression: None };

    fn arranged(layout: Option<&Layout>, preset: Preset, separate_boot: bool) -> Arrangement {
        let architecture = Architecture::X86_64;
        let wanted = Partitioning { layout, preset, architecture, root: &EXT4, separate_boot };
        let image = Tree::new(Metadata::root(0o755));
        Arrangement::of(&wanted, &Identity::derive("sha256:00", ""), &image).unwrap()
    }

    fn picture(arrangement: &Arrangement) -> String {
        let line = |slot: &Slot| {
            format!("{} {:?}", slot.role, slot.partition.name.as_deref().unwrap_or("-"))
        };
        arrangement.slots.iter().map(line).collect::<Vec<_>>().join(", ")
    }

    fn mounted(path: &str) -> Partition {
        let filesystem = Filesystem { mountpoint: Some(path.to_owned()), ..Filesystem::default() };
        Partition { payload: Payload::Filesystem(filesystem), ..Partition::default() }
    }

    #[test]
    fn preset_is_an_arrangement_with_names_of_its_own() {
        let bootc = arranged(None, Preset::Bootc, false);
        assert_eq!(picture(&bootc), r#"bios-boot "BIOS-BOOT", esp "EFI-SYSTEM", root "root""#);
        assert!(bootc.root_is_last() && !bootc.separate_boot() && bootc.boot_partition() == 3);
        assert_eq!(bootc.mounting().mounts, []);
        let osbuild = arranged(None, Preset::Osbuild, false);
        assert_eq!(picture(&osbuild), r#"bios-boot "", esp "", boot "", root """#);
        assert!(osbuild.separate_boot() && osbuild.boot_partition() == 3);
        let separate = arranged(None, Preset::Bootc, true);
        assert!(picture(&separate).contains(r#"boot "boot", root "root""#));
    }

    #[test]
    fn layout_gets_what_booting_takes_and_no_names() {
        let partitions = vec![mounted("/var/data"), mounted("/")];
        let layout = Layout { partitions, ..Layout::default() };
        let added = arranged(Some(&layout), Preset::Osbuild, false);
        assert_eq!(picture(&added), r#"bios-boot "-", esp "-", boot "-", data "-", root "-""#);
        let whole = Layout { complete: true, table: TableKind::Dos, ..layout };
        assert_eq!(
            picture(&arranged(Some(&whole), Preset::Osbuild, false)),
            r#"esp "-", data "-", root "-""#
        );
    }

    #[test]
    fn esp_is_mounted_by_the_volume_id_that_it_is_formatted_with() {
        let layout = Layout { partitions: vec![mounted("/boot/efi")], ..Layout::default() };
        let mounts = arranged(Some(&layout), Preset::Bootc, false).mounting().mounts;
        let identity = Identity::derive("sha256:00", "");
        assert_eq!(mounts[0].uuid, fat::uuid(identity.esp_volume));
        assert_eq!(mounts[0].mountpoint.as_deref(), Some("/boot/efi"));
    }
}
