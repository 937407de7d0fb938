//! `customizations.filesystem` and `customizations.disk`: two ways in which a blueprint asks for partitions.

use uuid::Uuid;

use super::layout::{Filesystem, Layout, Partition, Payload, Subvolume, TableKind};
use super::table::{Found, Gravity, Problems, Table};
use crate::filesystem_kind::FileSystem;

/// Paths below `/var` that are more than a directory: mounting there would hide what ostree or the image puts there.
const NOT_BELOW_VAR: [&str; 8] = [
    "/var",
    "/var/home",
    "/var/lock",
    "/var/mail",
    "/var/mnt",
    "/var/roothome",
    "/var/run",
    "/var/srv",
];

/// `customizations.filesystem`: least sizes of `/` and `/boot`, and file systems below `/var`.
pub(super) fn filesystem(table: &mut Table<'_>, problems: &mut Problems) -> Option<Layout> {
    let mut partitions = Vec::new();
    for mut entry in table.tables("filesystem", problems) {
        let at = entry.at();
        let mountpoint = entry.required("mountpoint", problems);
        let size = minsize(&mut entry, problems);
        entry.finish(problems);
        let (Some(mountpoint), Some(size)) = (mountpoint, size) else { continue };
        if size.value == 0 {
            problems.wrong(at, format!("the size of {mountpoint} is zero"));
        }
        let path = mountpoint.value.as_str();
        let fits = matches!(path, "/" | "/boot")
            || path.starts_with("/var/")
                && !NOT_BELOW_VAR.contains(&path)
                && path != "/var/usrlocal";
        if !fits {
            let text = format!(
                "{path} cannot be a file system of its own: `/`, `/boot` and directories below /var can"
            );
            problems.wrong(mountpoint.at, text);
        }
        let filesystem = Filesystem { mountpoint: Some(mountpoint.value), ..Filesystem::default() };
        partitions.push(Partition {
            minsize: size.value,
            payload: Payload::Filesystem(filesystem),
            ..Partition::default()
        });
    }
    if partitions.is_empty() {
        return None;
    }
    // The root grows, so it has to be the last.
    partitions.sort_by_key(|partition| partition.mountpoint() == Some("/"));
    let layout = Layout { partitions, root_fills_disk: true, ..Layout::default() };
    check(&layout, table, problems);
    Some(layout)
}

/// `minsize`, or `size` as old files have it.
fn minsize(entry: &mut Table<'_>, problems: &mut Problems) -> Option<Found<u64>> {
    let both = entry.has("minsize") && entry.has("size");
    if both {
        problems.wrong(entry.at(), "`size` and `minsize` exclude each other");
    }
    let minsize = entry.size("minsize", problems);
    let size = entry.size("size", problems);
    let found = minsize.or(size);
    if found.is_none() && !both {
        problems.wrong(entry.at(), format!("{} is missing", entry.name("minsize")));
    }
    found
}

/// `customizations.disk`: the partitions themselves.
pub(super) fn disk(table: &mut Table<'_>, problems: &mut Problems) -> Option<Layout> {
    let mut entry = table.table("disk", problems)?;
    let mut layout = Layout { complete: true, ..Layout::default() };
    if let Some(kind) = entry.text("type", problems) {
        match kind.value.as_str() {
            "" | "gpt" => {}
            "dos" => layout.table = TableKind::Dos,
            _ => problems.wrong(
                kind.at,
                format!("`{kind}` is not a partition table: expected one of: gpt, dos"),
            ),
        }
    }
    layout.minsize = entry.size("minsize", problems).map(|size| size.value);
    layout.start_offset = entry.size("start_offset", problems).map(|size| size.value);
    layout.sector_size = entry.size("sector_size", problems).map(|size| size.value);
    let dos = layout.table == TableKind::Dos;
    for mut partition in entry.tables("partitions", problems) {
        let at = partition.at();
        let kind = partition.text("type", problems);
        let kind = kind.as_ref().map_or("plain", |kind| kind.value.as_str());
        let mut read = common(&mut partition, dos, problems);
        match kind {
            "" | "plain" => read.payload = plain(&mut partition, problems),
            "btrfs" => read.payload = btrfs(&mut partition, problems),
            "lvm" | "luks" => {
                let text = format!(
                    "bootpress makes no {} yet: a kernel or its tools would have to write it; use plain partitions",
                    kind.to_uppercase()
                );
                problems.add(at, Gravity::Refused, text);
                continue;
            }
            _ => {
                problems.wrong(
                    at,
                    format!("`{kind}` is not a partition: expected one of: plain, btrfs, lvm"),
                );
                continue;
            }
        }
        partition.finish(problems);
        layout.partitions.push(read);
    }
    // A disk without a word about its root means one that fills it.
    layout.root_fills_disk =
        !layout.partitions.iter().any(|partition| partition.mountpoint() == Some("/"));
    entry.finish(problems);
    check(&layout, table, problems);
    Some(layout)
}

fn check(layout: &Layout, table: &Table<'_>, problems: &mut Problems) {
    for fault in layout.faults() {
        problems.wrong(table.at(), format!("invalid partitioning customizations: {fault}"));
    }
}

fn common(entry: &mut Table<'_>, dos: bool, problems: &mut Problems) -> Partition {
    let mut partition = Partition::default();
    if let Some(size) = entry.size("minsize", problems) {
        partition.minsize = size.value;
    }
    if let Some(kind) = entry.text("part_type", problems).filter(|kind| !kind.value.is_empty()) {
        let byte = u8::from_str_radix(&kind.value, 16).ok().filter(|_| kind.value.len() == 2);
        let guid = Uuid::try_parse(&kind.value).ok();
        match (dos, byte, guid) {
            (true, Some(byte), _) => partition.type_byte = Some(byte),
            (false, _, Some(guid)) => partition.type_guid = Some(guid),
            (true, ..) => problems.wrong(
                kind.at,
                format!("part_type `{kind}` is not two hex digits, as dos tables have them"),
            ),
            (false, ..) => problems.wrong(kind.at, format!("part_type `{kind}` is not a GUID")),
        }
    }
    partition.name =
        entry.text("part_label", problems).map(|name| name.value).filter(|name| !name.is_empty());
    if let Some(guid) = entry.text("part_uuid", problems).filter(|guid| !guid.value.is_empty()) {
        match Uuid::try_parse(&guid.value) {
            Ok(guid) => partition.guid = Some(guid),
            Err(_) => problems.wrong(guid.at, format!("part_uuid `{guid}` is not a UUID")),
        }
    }
    partition
}

fn plain(entry: &mut Table<'_>, problems: &mut Problems) -> Payload {
    let at = entry.at();
    let mountpoint = entry.text("mountpoint", problems).filter(|path| !path.value.is_empty());
    let label =
        entry.text("label", problems).map(|label| label.value).filter(|label| !label.is_empty());
    let kind = entry.text("fs_type", problems);
    let name = kind.as_ref().map_or("", |kind| kind.value.as_str());
    match (name, mountpoint) {
        ("swap" | "none", Some(path)) => {
            problems.wrong(path.at, format!("a partition with fs_type {name} has no mount point"));
            Payload::Empty
        }
        ("swap", None) => Payload::Swap { label: label.unwrap_or_default(), uuid: None },
        ("none", None) => Payload::Empty,
        ("", None) => {
            problems.wrong(at, format!("{} is missing", entry.name("mountpoint")));
            Payload::Empty
        }
        (name, mountpoint) => {
            let kind = FileSystem::parse(name)
                .filter(|kind| kind.holds_files() && *kind != FileSystem::Btrfs);
            if kind.is_none() {
                let text = match name {
                    "" => "fs_type is missing: ext4, vfat and xfs are file systems, swap and none are none".to_owned(),
                    _ => format!("fs_type `{name}` is none of ext4, vfat, xfs, swap and none"),
                };
                problems.wrong(at, text);
            }
            let mountpoint = mountpoint.map(|path| path.value);
            Payload::Filesystem(Filesystem { kind, mountpoint, label, ..Filesystem::default() })
        }
    }
}

fn btrfs(entry: &mut Table<'_>, problems: &mut Problems) -> Payload {
    let mut subvolumes = Vec::new();
    for mut subvolume in entry.tables("subvolumes", problems) {
        let name = subvolume.required("name", problems);
        let mountpoint = subvolume.text("mountpoint", problems);
        subvolume.finish(problems);
        subvolumes.extend(named_subvolume(name, mountpoint, problems));
    }
    Payload::Btrfs { label: String::new(), uuid: None, subvolumes }
}

/// Whether an absolute path without `.` and `..` lies below a directory.
pub(super) fn is_below(directory: &str, path: &str) -> bool {
    path.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| {
        rest.split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains(char::is_control))
    })
}

/// A subvolume by name and mount point; none without a name, and none for what GRUB has to read.
pub(super) fn named_subvolume(
    name: Option<Found<String>>,
    mountpoint: Option<Found<String>>,
    problems: &mut Problems,
) -> Option<Subvolume> {
    let name = name?.value;
    let mountpoint = mountpoint.filter(|path| !path.value.is_empty());
    if let Some(path) = mountpoint.as_ref().filter(|path| path.value == "/boot") {
        let reason = "bootpress puts /boot into no subvolume, which not every GRUB reads: without this one, /boot becomes an ext4 of its own";
        problems.add(path.at, Gravity::Refused, reason);
        return None;
    }
    Some(Subvolume {
        // Some write the name as a path from the top of the volume.
        name: name.strip_prefix('/').unwrap_or(&name).to_owned(),
        mountpoint: mountpoint.map(|path| path.value),
        ..Subvolume::default()
    })
}
