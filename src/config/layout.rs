//! Partitions that somebody asks for, whichever file says so, and the rules that they have to keep.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::filesystem_kind::FileSystem;
use crate::name::{Compression, SubvolumeName};

/// The kind of a partition table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableKind {
    /// GUID partition table.
    #[default]
    Gpt,
    /// Master boot record: four partitions, 2 TiB.
    Dos,
}

/// How the running system learns what to mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountStyle {
    /// `.mount` and `.swap` units.
    #[default]
    Units,
    /// Lines of `/etc/fstab`.
    Fstab,
    /// Not at all: the machine finds partitions by their types, or somebody else mounts them.
    None,
}

/// A whole layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Who asks for it, for messages: `config.toml`.
    pub origin: String,
    /// The table.
    pub table: TableKind,
    /// Its GUID, or the four bytes of an MBR's signature; `None`: derived.
    pub table_id: Option<Uuid>,
    /// Bytes that the disk has at least.
    pub minsize: Option<u64>,
    /// Offset of the first partition, in bytes, if it is not 1 MiB.
    pub start_offset: Option<u64>,
    /// Bytes of a sector.
    pub sector_size: Option<u64>,
    /// Whether the partitions are all there are, except for what booting takes. Else they are added to those of the preset.
    pub complete: bool,
    /// Whether the root takes what other partitions leave of a larger disk.
    pub root_fills_disk: bool,
    /// In the order in which they lie.
    pub partitions: Vec<Partition>,
    /// How they get mounted.
    pub mounts: MountStyle,
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// Bytes that it has at least.
    pub minsize: u64,
    /// Bytes that it has at most, if somebody says it.
    pub maxsize: Option<u64>,
    /// Its part of the room that the least sizes leave of a disk, compared with that of others; `None`: it keeps its least size.
    pub weight: Option<u32>,
    /// GUID of its type, if somebody says it.
    pub type_guid: Option<Uuid>,
    /// Type in an MBR, if somebody says it.
    pub type_byte: Option<u8>,
    /// Its name in a GPT.
    pub name: Option<String>,
    /// Its own GUID in a GPT.
    pub guid: Option<Uuid>,
    /// Whether it carries the mark of legacy boot loaders.
    pub bootable: bool,
    /// Attribute bits of a GPT entry.
    pub attributes: u64,
    /// What is in it.
    pub payload: Payload,
}

/// What is in a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// A file system.
    Filesystem(Filesystem),
    /// A swap area.
    Swap {
        /// At most 15 bytes.
        label: String,
        /// `None`: derived.
        uuid: Option<Uuid>,
    },
    /// The bytes of a file of the image.
    Raw {
        /// Path in the image.
        source: String,
    },
    /// A btrfs with subvolumes.
    Btrfs {
        /// Its label; empty: the usual one.
        label: String,
        /// `None`: derived.
        uuid: Option<Uuid>,
        /// In the order in which they are made.
        subvolumes: Vec<Subvolume>,
    },
    /// Nothing.
    #[default]
    Empty,
}

/// A subvolume of a btrfs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subvolume {
    /// Its path from the top of the volume, without a leading slash: `root`, `subvols/root`.
    pub name: String,
    /// Where it is mounted.
    pub mountpoint: Option<String>,
    /// How it is compressed, as `compress=` has it.
    pub compression: Option<String>,
    /// Whether it is mounted so that nobody writes to it.
    pub read_only: bool,
}

/// A file system of a layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    /// `None`: ext4, or FAT for the ESP.
    pub kind: Option<FileSystem>,
    /// Where it is mounted.
    pub mountpoint: Option<String>,
    /// Its label.
    pub label: Option<String>,
    /// Its UUID, in the form that its kind has; `None`: derived.
    pub uuid: Option<String>,
    /// Options of its mount.
    pub options: Option<String>,
    /// fstab's `dump` field.
    pub frequency: u64,
    /// fstab's order of checks.
    pub pass: u64,
}

impl Partition {
    /// Where it is mounted, if it holds a file system that is; a btrfs that has the root in a subvolume counts as that.
    pub fn mountpoint(&self) -> Option<&str> {
        match &self.payload {
            Payload::Filesystem(filesystem) => filesystem.mountpoint.as_deref(),
            Payload::Btrfs { subvolumes, .. } => {
                let mut mounted = subvolumes.iter().filter_map(|one| one.mountpoint.as_deref());
                mounted.find(|path| *path == "/")
            }
            _ => None,
        }
    }

    /// Its subvolumes; none unless it is a btrfs.
    pub fn subvolumes(&self) -> &[Subvolume] {
        match &self.payload {
            Payload::Btrfs { subvolumes, .. } => subvolumes,
            _ => &[],
        }
    }

    /// Every place at which something of it is mounted.
    fn mountpoints(&self) -> impl Iterator<Item = &str> {
        let own = match &self.payload {
            Payload::Filesystem(filesystem) => filesystem.mountpoint.as_deref(),
            _ => None,
        };
        own.into_iter().chain(self.subvolumes().iter().filter_map(|one| one.mountpoint.as_deref()))
    }
}

/// Bytes of a mebibyte.
const MIB: u64 = 1 << 20;

impl Layout {
    /// The root's file system, if somebody says it.
    pub fn root_kind(&self) -> Option<FileSystem> {
        let root = self.partitions.iter().find(|partition| partition.mountpoint() == Some("/"))?;
        match &root.payload {
            Payload::Filesystem(filesystem) => filesystem.kind,
            Payload::Btrfs { .. } => Some(FileSystem::Btrfs),
            _ => None,
        }
    }

    /// The subvolumes of its btrfs; none if it has no such partition.
    pub fn subvolumes(&self) -> &[Subvolume] {
        let mut all = self.partitions.iter().map(Partition::subvolumes);
        all.find(|subvolumes| !subvolumes.is_empty()).unwrap_or_default()
    }

    /// Compresses what nobody else says how to.
    pub fn compress(&mut self, how: &str) {
        for partition in &mut self.partitions {
            if let Payload::Btrfs { subvolumes, .. } = &mut partition.payload {
                for subvolume in subvolumes {
                    subvolume.compression.get_or_insert_with(|| how.to_owned());
                }
            }
        }
    }

    /// What breaks the rules, a line each.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.table == TableKind::Dos {
            self.dos_faults(&mut faults);
        }
        let mut seen = BTreeSet::new();
        let mut btrfs = 0;
        for (partition, index) in self.partitions.iter().zip(1..) {
            let mut fault = |text: String| faults.push(format!("partition {index}: {text}"));
            if partition.name.as_ref().is_some_and(|name| name.encode_utf16().count() > 36) {
                fault("its name is longer than 36 UTF-16 units".to_owned());
            }
            match &partition.payload {
                Payload::Filesystem(filesystem) => filesystem_faults(filesystem, &mut fault),
                Payload::Swap { label, .. } if label.len() > 15 => {
                    fault("the label of a swap area has at most 15 bytes".to_owned());
                }
                Payload::Btrfs { subvolumes, .. } => {
                    btrfs += 1;
                    subvolume_faults(subvolumes, &mut fault);
                }
                _ => {}
            }
            for mountpoint in partition.mountpoints() {
                if let Some(reason) = mountpoint_fault(mountpoint) {
                    fault(reason);
                }
                if !seen.insert(mountpoint.to_owned()) {
                    fault(format!("{mountpoint} is mounted twice"));
                }
            }
        }
        if btrfs > 1 {
            faults.push("there is more than one btrfs volume".to_owned());
        }
        if self
            .start_offset
            .is_some_and(|offset| offset % MIB != 0 || offset == 0 || offset > MIB << 20)
        {
            faults.push("start_offset must be a multiple of 1 MiB, at most 1 TiB".to_owned());
        }
        if self.sector_size.is_some_and(|size| size != 512 && size != 4096) {
            faults.push("sector_size must be 512 or 4096".to_owned());
        }
        faults
    }

    fn dos_faults(&self, faults: &mut Vec<String>) {
        if self.partitions.len() > 4 {
            faults.push("a dos table has at most four partitions".to_owned());
        }
        for (partition, index) in self.partitions.iter().zip(1..) {
            if partition.name.is_some() {
                faults
                    .push(format!("partition {index}: part_label is not supported for dos tables"));
            }
            if partition.guid.is_some() {
                faults
                    .push(format!("partition {index}: part_uuid is not supported for dos tables"));
            }
        }
    }
}

fn filesystem_faults(filesystem: &Filesystem, fault: &mut impl FnMut(String)) {
    let kind = filesystem.kind;
    match filesystem.mountpoint.as_deref() {
        Some("/boot") if !matches!(kind, None | Some(FileSystem::Ext4 | FileSystem::Xfs)) => {
            fault("/boot must be ext4 or xfs".to_owned());
        }
        Some("/boot/efi") if !matches!(kind, None | Some(FileSystem::Vfat)) => {
            fault("/boot/efi must be vfat".to_owned());
        }
        _ => {}
    }
    let longest = kind.unwrap_or(FileSystem::Ext4).longest_label().min(16);
    if filesystem.label.as_ref().is_some_and(|label| label.len() > longest) {
        fault(format!("the label of such a file system has at most {longest} bytes"));
    }
    let unfit = |text: &String| text.contains(|c: char| c.is_whitespace() || c.is_control());
    if filesystem.options.as_ref().is_some_and(unfit) {
        fault("mount options are one word".to_owned());
    }
}

fn subvolume_faults(subvolumes: &[Subvolume], fault: &mut impl FnMut(String)) {
    if subvolumes.is_empty() {
        fault("a btrfs volume needs at least one subvolume".to_owned());
    }
    let mut names = BTreeSet::new();
    for Subvolume { name, mountpoint, compression, .. } in subvolumes {
        if !names.insert(name) {
            fault(format!("subvolume {name} is defined twice"));
        }
        if name.parse::<SubvolumeName>().is_err() {
            fault(format!(
                "invalid name `{name}` of a subvolume: expected a path of letters, digits, `@`, `-`, `_`, `.` and `+`"
            ));
        }
        if let Some(outer) = subvolumes.iter().find(|other| is_inside(name, &other.name)) {
            fault(format!(
                "the subvolume {name} lies inside of the subvolume {}: put it beside it",
                outer.name
            ));
        }
        if mountpoint.as_deref() == Some("/boot/efi") {
            fault("/boot/efi cannot be a subvolume".to_owned());
        }
        if let Some(how) = compression.as_ref().filter(|how| how.parse::<Compression>().is_err()) {
            fault(format!(
                "`{how}` is not a compression: expected one of: zstd, zlib, lzo, or one with a level such as zstd:3"
            ));
        }
    }
}

/// Whether a path of a subvolume lies inside of another.
fn is_inside(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

/// Why this is no place to mount something at.
fn mountpoint_fault(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return Some(format!("the mount point `{path}` is not absolute"));
    }
    if path.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Some(format!("the mount point {path:?} has blanks in it"));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let canonical = format!("/{}", parts.join("/"));
    if canonical != path {
        return Some(format!(
            "the mount point `{path}` is not canonical; did you mean `{canonical}`?"
        ));
    }
    // These are the image's, or the kernel's, and what is mounted over them hides them.
    let hidden = [
        "/bin", "/dev", "/etc", "/lib", "/lib64", "/ostree", "/proc", "/run", "/sbin", "/sys",
        "/sysroot", "/usr",
    ];
    let below = |root: &str| path == root || path.starts_with(&format!("{root}/"));
    hidden
        .iter()
        .find(|root| below(root))
        .map(|root| format!("{path} cannot be a mount point: {root} belongs to the system"))
}
