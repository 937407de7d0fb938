//! Layouts that an image brings itself: `disk.yaml`, the partitions of an old `config.toml`, and `repart.d`. The first that is there
//! counts.
//!
//! ```text
//! /usr/lib/image-builder/bootc/disk.yaml
//! /usr/lib/bootc-image-builder/{disk.yaml, config.json, config.toml}
//! /usr/lib/repart.d/*.conf
//! ```

use anyhow::Result;
use uuid::Uuid;

use super::disk::named_subvolume;
use super::document::{self, Language, Value};
use super::layout::{Filesystem, Layout, MountStyle, Partition, Payload, Subvolume, TableKind};
use super::table::{Found, Gravity, Problems, Table};
use super::{Config, Reading, repart};
use crate::architecture::Architecture;
use crate::command_line;
use crate::content::ContentStore;
use crate::error::corrupt;
use crate::files::Files;
use crate::filesystem_kind::FileSystem;
use crate::name::VolumeId;
use crate::tree::Tree;

/// Where images keep what builders of disks shall know; the first that has a file wins.
const DIRECTORIES: [&str; 2] = ["usr/lib/image-builder/bootc", "usr/lib/bootc-image-builder"];

/// How a disk is built without what the image says about partitions.
const WITHOUT_LAYOUT: &str = "use --ignore-image-layout to build with the usual partitions";

/// A layout larger than this is none.
const LARGEST: u64 = 1 << 20;

/// The layout that an image brings, and what is to be said about it.
///
/// Fails if it has one that is broken, or that bootpress cannot make.
pub fn layout_in_image(
    root: &Tree,
    contents: &ContentStore,
    architecture: Architecture,
) -> Result<(Option<Layout>, Vec<String>)> {
    let files = Files { root, contents };
    for directory in DIRECTORIES {
        let path = format!("{directory}/disk.yaml");
        if let Some(text) = files.text_up_to(&path, LARGEST)? {
            let (layout, warnings) = disk_yaml(&text, &format!("the image's {path}"))?;
            return Ok((Some(layout), warnings));
        }
    }
    for name in ["config.json", "config.toml"] {
        let path = format!("{}/{name}", DIRECTORIES[1]);
        if let Some(text) = files.text_up_to(&path, LARGEST)? {
            let nothing = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
            // Of such a file only the partitions count; the rest is for somebody else.
            let reading = Reading { lenient: true, ..Reading::default() };
            let file = format!("the image's {path}");
            let config = Config::read(&text, &file, reading, &nothing)
                .map_err(|error| corrupt(file, format!("{error:#} ({WITHOUT_LAYOUT})")))?;
            // One that says nothing about partitions leaves them to whoever does.
            if let Some(layout) = config.blueprint.layout {
                return Ok((Some(layout), Vec::new()));
            }
        }
    }
    let described = repart::layout(root, contents, architecture)?;
    Ok(described.map_or((None, Vec::new()), |(layout, warnings)| (Some(layout), warnings)))
}

/// What an image says about media that are made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediumInImage {
    /// Its volume id.
    pub label: Option<VolumeId>,
    /// Further kernel arguments, one word each.
    pub kernel_arguments: Vec<String>,
}

/// The image's `iso.yaml`, and what is to be said about it.
///
/// Fails if it has one that is broken.
pub fn medium_in_image(
    root: &Tree,
    contents: &ContentStore,
) -> Result<(MediumInImage, Vec<String>)> {
    let files = Files { root, contents };
    for directory in DIRECTORIES {
        let path = format!("{directory}/iso.yaml");
        if let Some(text) = files.text_up_to(&path, LARGEST)? {
            return iso_yaml(&text, &format!("the image's {path}"));
        }
    }
    Ok((MediumInImage::default(), Vec::new()))
}

fn iso_yaml(text: &str, file: &str) -> Result<(MediumInImage, Vec<String>)> {
    let node = document::parse(text, Language::Yaml, file)
        .map_err(|error| corrupt(file, error.to_string()))?;
    let mut problems = Problems::of(file);
    let mut top = Table::of(&node, "", &mut problems);
    let label = top.text("label", &mut problems).filter(|label| !label.value.is_empty());
    let label = label.and_then(|label| {
        let parsed = label.value.parse();
        let invalid = |reason| format!("invalid label `{label}` of an ISO: {reason}");
        parsed.map_err(|reason: String| problems.wrong(label.at, invalid(reason))).ok()
    });
    let mut kernel_arguments = Vec::new();
    for argument in top.texts("kernel_args", &mut problems) {
        kernel_arguments.extend(command_line::split(&argument.value).map(str::to_owned));
    }
    if let Some(grub) = top.table("grub2", &mut problems) {
        menu(grub, &mut problems);
    }
    drop(top);
    let medium = MediumInImage { label, kernel_arguments };
    Ok((medium, problems.settle_in_image(None)?))
}

/// `grub2`: checked, and not used.
fn menu(mut grub: Table<'_>, problems: &mut Problems) {
    let at = grub.at();
    grub.integer("default", 0..=99, problems);
    grub.integer("timeout", 0..=3600, problems);
    for mut entry in grub.tables("entries", problems) {
        for key in ["name", "linux", "initrd"] {
            entry.required(key, problems);
        }
        entry.finish(problems);
    }
    grub.finish(problems);
    problems.add(
        at,
        Gravity::Idle,
        "grub2 has no effect: bootpress writes the menu of its media itself",
    );
}

/// Reads a `disk.yaml`; unknown keys pass with a warning, as builders before passed them.
pub(super) fn disk_yaml(text: &str, file: &str) -> Result<(Layout, Vec<String>)> {
    let node = document::parse(text, Language::Yaml, file)
        .map_err(|error| corrupt(file, format!("{error} ({WITHOUT_LAYOUT})")))?;
    let mut problems = Problems::of(file);
    let mut top = Table::of(&node, "", &mut problems);
    let mut layout = Layout {
        origin: file.to_owned(),
        complete: true,
        root_fills_disk: true,
        ..Layout::default()
    };
    if let Some(style) = top.text("mount_configuration", &mut problems) {
        match style.value.as_str() {
            "" | "units" => {}
            "fstab" => layout.mounts = MountStyle::Fstab,
            "none" => layout.mounts = MountStyle::None,
            _ => problems.wrong(
                style.at,
                format!(
                    "`{style}` is not a mount_configuration: expected one of: units, fstab, none"
                ),
            ),
        }
    }
    match top.table("partition_table", &mut problems) {
        Some(table) => partition_table(table, &mut layout, &mut problems),
        None => problems.wrong(node.at, "partition_table is missing"),
    }
    // Files of this kind keep what their anchors name under keys of their own.
    drop(top);
    for fault in layout.faults() {
        problems.wrong(node.at, fault);
    }
    Ok((layout, problems.settle_in_image(Some(WITHOUT_LAYOUT))?))
}

fn partition_table(mut table: Table<'_>, layout: &mut Layout, problems: &mut Problems) {
    if let Some(kind) = table.text("type", problems) {
        match kind.value.as_str() {
            "gpt" => {}
            "dos" => layout.table = TableKind::Dos,
            _ => problems.wrong(
                kind.at,
                format!("`{kind}` is not a partition table: expected one of: gpt, dos"),
            ),
        }
    }
    layout.minsize = table.size("size", problems).map(|size| size.value).filter(|size| *size > 0);
    layout.sector_size =
        table.size("sector_size", problems).map(|size| size.value).filter(|size| *size > 0);
    if let Some(id) = table.text("uuid", problems).filter(|id| !id.value.is_empty()) {
        let digits = id.value.trim_start_matches("0x");
        let signature = u32::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 8);
        match (Uuid::try_parse(&id.value), signature) {
            (Ok(guid), _) => layout.table_id = Some(guid),
            // Written down, the first four bytes of the GUID are the signature.
            (_, Some(signature)) if layout.table == TableKind::Dos => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&signature.to_le_bytes());
                layout.table_id = Some(Uuid::from_bytes(bytes));
            }
            _ => problems.wrong(id.at, format!("`{id}` is not a UUID of a partition table")),
        }
    }
    layout.start_offset =
        table.size("start_offset", problems).map(|size| size.value).filter(|size| *size > 0);
    for key in ["grain_size", "extra_padding", "absolute_start_offset"] {
        // Everything begins at a multiple of 1 MiB, which is the grain of all known files.
        table.take(key);
    }
    if let Some(mut policy) = table.table("policy", problems) {
        policy.bool("ensure_xbootldr", problems);
        layout.root_fills_disk = policy.bool("grow_root_to_fill_disk", problems).unwrap_or(true);
        policy.finish(problems);
    }
    for entry in table.tables("partitions", problems) {
        partition(entry, layout, problems);
    }
    table.finish(problems);
}

fn partition(mut entry: Table<'_>, layout: &mut Layout, problems: &mut Problems) {
    let at = entry.at();
    entry.size("start", problems);
    let mut read = Partition {
        minsize: entry.size("size", problems).map_or(0, |size| size.value),
        bootable: entry.bool("bootable", problems) == Some(true),
        name: entry.text("label", problems).map(|text| text.value).filter(|text| !text.is_empty()),
        ..Partition::default()
    };
    if let Some(node) = entry.take("type") {
        let text = match &node.value {
            Value::Text(text) => text.clone(),
            // Two digits look like a number.
            Value::Integer(number) => format!("{number:02}"),
            other => other.kind().to_owned(),
        };
        read.type_guid = Uuid::try_parse(&text).ok();
        read.type_byte = u8::from_str_radix(&text, 16).ok().filter(|_| text.len() == 2);
        if !text.is_empty() && read.type_guid.is_none() && read.type_byte.is_none() {
            problems.wrong(node.at, format!("`{text}` is not a type of a partition"));
        }
    }
    if let Some(guid) = entry.text("uuid", problems).filter(|guid| !guid.value.is_empty()) {
        match Uuid::try_parse(&guid.value) {
            Ok(guid) if layout.table == TableKind::Gpt => read.guid = Some(guid),
            Ok(_) => {}
            Err(_) => problems.wrong(guid.at, format!("`{guid}` is not a UUID of a partition")),
        }
    }
    for node in entry.list("attrs", problems) {
        match node.value {
            Value::Integer(bit @ 0..=63) => read.attributes |= 1 << bit,
            _ => problems.wrong(node.at, "attrs holds numbers of bits, from 0 to 63"),
        }
    }
    let kind = entry.text("payload_type", problems);
    let payload = entry.table("payload", problems);
    entry.finish(problems);
    let kind = kind.map_or_else(String::new, |kind| kind.value);
    match (kind.as_str(), payload) {
        ("" | "no-payload" | "empty", None) => {}
        ("filesystem", Some(payload)) => read.payload = filesystem(payload, problems),
        ("swap", payload) => read.payload = swap(payload, problems),
        ("raw", Some(mut payload)) => {
            if let Some(source) = payload.required("source_path", problems) {
                read.payload = Payload::Raw { source: source.value };
            }
            payload.finish(problems);
        }
        ("btrfs", Some(payload)) => read.payload = btrfs(payload, problems),
        ("luks" | "lvm", _) => {
            let text = format!("{} volumes in disk.yaml are not supported", kind.to_uppercase());
            problems.add(at, Gravity::Impossible, text);
        }
        ("" | "empty" | "no-payload", Some(_)) => problems.wrong(at, "payload_type is missing"),
        (_, None) => problems.wrong(at, format!("the payload of type {kind} is missing")),
        _ => problems.wrong(
            at,
            format!("`{kind}` is not a payload_type: expected one of: filesystem, swap, btrfs, raw, luks, lvm"),
        ),
    }
    layout.partitions.push(read);
}

fn filesystem(mut payload: Table<'_>, problems: &mut Problems) -> Payload {
    let text = |text: Found<String>| Some(text.value).filter(|text| !text.is_empty());
    let at = payload.at();
    let kind = payload.text("type", problems).filter(|kind| !kind.value.is_empty());
    let is_typed = kind.is_some();
    let kind = kind.and_then(|kind| {
        let known = FileSystem::parse(&kind.value).filter(|kind| kind.holds_files());
        if known.is_none() {
            problems.wrong(
                kind.at,
                format!("`{kind}` is not a file system: expected one of: ext4, vfat, xfs, btrfs"),
            );
        }
        known
    });
    let number =
        |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or_default();
    let read = Filesystem {
        kind,
        uuid: payload.text("uuid", problems).and_then(text),
        label: payload.text("label", problems).and_then(text),
        mountpoint: payload.text("mountpoint", problems).and_then(text),
        options: payload.text("fstab_options", problems).and_then(text),
        frequency: number(payload.integer("fstab_freq", 0..=9, problems)),
        pass: number(payload.integer("fstab_passno", 0..=9, problems)),
    };
    // The root is what the image's install configuration says.
    if !is_typed && read.mountpoint.as_deref() != Some("/") {
        problems.wrong(at, format!("{} is missing", payload.name("type")));
    }
    // fs-verity needs no option with us, and geometry means nothing any more.
    payload.take("mkfs_options");
    payload.finish(problems);
    Payload::Filesystem(read)
}

fn swap(payload: Option<Table<'_>>, problems: &mut Problems) -> Payload {
    let Some(mut payload) = payload else {
        return Payload::Swap { label: String::new(), uuid: None };
    };
    let label = payload.text("label", problems).map(|text| text.value).unwrap_or_default();
    let uuid = payload.text("uuid", problems).filter(|uuid| !uuid.value.is_empty());
    let uuid = uuid.and_then(|uuid| parsed_uuid(&uuid, problems));
    payload.take("fstab_options");
    payload.finish(problems);
    Payload::Swap { label, uuid }
}

fn parsed_uuid(uuid: &Found<String>, problems: &mut Problems) -> Option<Uuid> {
    let parsed = Uuid::try_parse(&uuid.value).ok();
    if parsed.is_none() {
        problems.wrong(uuid.at, format!("`{uuid}` is not a UUID"));
    }
    parsed
}

fn btrfs(mut payload: Table<'_>, problems: &mut Problems) -> Payload {
    let label = payload.text("label", problems).map(|text| text.value).unwrap_or_default();
    let uuid = payload.text("uuid", problems).filter(|uuid| !uuid.value.is_empty());
    let uuid = uuid.and_then(|uuid| parsed_uuid(&uuid, problems));
    // Only its subvolumes are mounted.
    payload.text("mountpoint", problems);
    let mut subvolumes = Vec::new();
    for mut entry in payload.tables("subvolumes", problems) {
        let name = entry.required("name", problems);
        let mountpoint = entry.text("mountpoint", problems);
        let compression = entry.text("compress", problems).filter(|how| !how.value.is_empty());
        let read_only = entry.bool("read_only", problems) == Some(true);
        for key in ["size", "group_id", "uuid"] {
            if let Some(node) = entry.take(key)
                && !matches!(&node.value, Value::Integer(0))
            {
                let text = format!(
                    "{} has no effect: subvolumes share the room of their volume, and btrfs draws their UUIDs",
                    entry.name(key)
                );
                problems.add(node.at, Gravity::Idle, text);
            }
        }
        entry.finish(problems);
        let compression = compression.map(|how| how.value);
        let named = named_subvolume(name, mountpoint, problems);
        subvolumes.extend(named.map(|named| Subvolume { compression, read_only, ..named }));
    }
    payload.finish(problems);
    Payload::Btrfs { label, uuid, subvolumes }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "
.common:
  boot: &boot
    size: 1 GiB
    type: bc13c2ff-59e6-4262-a352-b275fd6f7172
    payload_type: filesystem
    payload: &ext4
      type: ext4
      mountpoint: /boot
      label: boot
mount_configuration: fstab
partition_table:
  type: gpt
  size: 20 GiB
  uuid: D209C89E-EA5E-4FBD-B161-B461CCE297E0
  policy:
    grow_root_to_fill_disk: false
  partitions:
    - size: 1 MiB
      bootable: true
      type: 21686148-6449-6E6F-744E-656564454649
    - size: 300 MiB
      attrs: [50, 2]
      payload_type: filesystem
      payload:
        type: vfat
        uuid: 7B77-95E7
        mountpoint: /boot/efi
        fstab_options: umask=0077
        fstab_passno: 2
    - *boot
    - size: 2 GiB
      payload_type: swap
      payload: {label: swap}
    - payload_type: filesystem
      colour: blue
      payload:
        <<: *ext4
        mountpoint: /
        label: root
        mkfs_options: {verity: true}
";

    #[test]
    fn a_layout_with_anchors_is_read() {
        let (layout, warnings) = disk_yaml(YAML, "disk.yaml").unwrap();
        assert_eq!(warnings, ["disk.yaml:36:7: unknown key partition_table.partitions[4].colour"]);
        assert_eq!(
            (layout.mounts, layout.root_fills_disk, layout.minsize),
            (MountStyle::Fstab, false, Some(20 << 30))
        );
        let points: Vec<_> = layout.partitions.iter().map(Partition::mountpoint).collect();
        assert_eq!(points, [None, Some("/boot/efi"), Some("/boot"), None, Some("/")]);
        assert_eq!(layout.partitions[1].attributes, 1 << 50 | 1 << 2);
        let Payload::Filesystem(root) = &layout.partitions[4].payload else { panic!() };
        assert_eq!((root.kind, root.label.as_deref()), (Some(FileSystem::Ext4), Some("root")));
    }

    #[test]
    fn media_are_told_their_label_and_arguments() {
        let text = "label: Tiny-43\nkernel_args: [quiet, inst.x=1 rd.y]\ngrub2:\n  timeout: 3\n  entries:\n    - {name: a, linux: /vmlinuz x, initrd: /initrd}\nfuture: 1\n";
        let (medium, warnings) = iso_yaml(text, "iso.yaml").unwrap();
        assert_eq!(medium.label.as_ref().map(VolumeId::as_str), Some("Tiny-43"));
        assert_eq!(medium.kernel_arguments, ["quiet", "inst.x=1", "rd.y"]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("grub2 has no effect"), "{warnings:?}");
        let said = |text: &str| iso_yaml(text, "iso.yaml").unwrap_err().to_string();
        assert!(said("label: a b\n").contains("iso.yaml is corrupt: 1:8: invalid label `a b`"));
        assert!(said("kernel_args: x\n").contains("must be a list"));
        assert!(said("grub2: {entries: [{name: a}]}\n").contains("entries[0].linux is missing"));
    }

    #[test]
    fn root_without_a_type_is_left_to_the_install_configuration() {
        let typeless = YAML.replace("<<: *ext4\n        mountpoint: /\n", "mountpoint: /\n");
        assert_ne!(typeless, YAML);
        let (layout, _) = disk_yaml(&typeless, "disk.yaml").unwrap();
        assert_eq!(layout.root_kind(), None);
        let points: Vec<_> = layout.partitions.iter().map(Partition::mountpoint).collect();
        assert_eq!(points[4], Some("/"));
        // No other file system has a default.
        let error = disk_yaml(&YAML.replace("        type: vfat\n", ""), "disk.yaml").unwrap_err();
        assert!(error.to_string().contains("payload.type is missing"), "{error}");
    }

    #[test]
    fn plain_numbers_may_have_underscores() {
        let size = |text: &str| {
            let yaml = YAML.replace("size: 2 GiB", &format!("size: {text}"));
            disk_yaml(&yaml, "disk.yaml").map(|(layout, _)| layout.partitions[3].minsize)
        };
        assert_eq!(size("100_000_000").unwrap(), 100_000_000);
        assert_eq!(size("0x10_00").unwrap(), 4096);
        assert_eq!(size("1_048_576 # a mebibyte").unwrap(), 1 << 20);
        for bad in ["\"100_000_000\"", "'1_0'", "_", "1_x", "100_000 MiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mistakes_of_the_image_are_corrupt_and_name_the_way_out() {
        use crate::error::{Corrupt, Unsupported};
        let error = |from: &str, to: &str| {
            disk_yaml(&YAML.replace(from, to), "the image's disk.yaml").unwrap_err()
        };
        for (from, to) in [
            ("type: vfat", "type: zfs"),
            ("size: 20 GiB", "size: 20 GB x"),
            ("partition_table:", "table:"),
            ("mount_configuration: fstab", "mount_configuration: ["),
        ] {
            let error = error(from, to);
            assert!(error.is::<Corrupt>(), "{to}: {error}");
            assert!(error.to_string().contains("--ignore-image-layout"), "{error}");
        }
        let error = error("payload_type: swap", "payload_type: lvm");
        let hint = error.downcast_ref::<Unsupported>().unwrap().hint.clone();
        assert!(hint.unwrap().contains("--ignore-image-layout"));
        assert!(iso_yaml("label: a b\n", "iso.yaml").unwrap_err().is::<Corrupt>());
    }

    #[test]
    fn what_cannot_be_made_is_an_error() {
        let said = |from: &str, to: &str| {
            disk_yaml(&YAML.replace(from, to), "disk.yaml").unwrap_err().to_string()
        };
        assert!(
            said("payload_type: swap", "payload_type: luks")
                .contains("disk.yaml:32:7: LUKS volumes in disk.yaml are not supported")
        );
        assert!(said("type: vfat", "type: zfs").contains("`zfs` is not a file system"));
        assert!(said("mountpoint: /boot/efi", "mountpoint: /boot").contains("mounted twice"));
        assert!(said("partition_table:", "table:").contains("partition_table is missing"));
    }

    #[test]
    fn subvolumes_are_read_with_what_is_said_about_them() {
        let text = "partition_table:\n  partitions:\n    - payload_type: btrfs\n      payload:\n        label: all\n        uuid: 6264d520-3fb9-423f-8ab8-7a0a8e3d3562\n        subvolumes:\n          - {name: /root, mountpoint: /, compress: 'zstd:1', size: 0}\n          - {name: boot, mountpoint: /boot}\n          - {name: data, mountpoint: /var/data, read_only: true, size: 5}\n";
        let (mut layout, warnings) = disk_yaml(text, "disk.yaml").unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("/boot becomes an ext4"), "{warnings:?}");
        assert!(warnings[1].contains("size has no effect"), "{warnings:?}");
        assert_eq!(layout.root_kind(), Some(FileSystem::Btrfs));
        layout.compress("lzo");
        let said: Vec<_> = layout
            .subvolumes()
            .iter()
            .map(|one| (one.name.as_str(), one.compression.as_deref().unwrap(), one.read_only))
            .collect();
        assert_eq!(said, [("root", "zstd:1", false), ("data", "lzo", true)]);
        let error = disk_yaml(&text.replace("zstd:1", "zstd:99"), "disk.yaml").unwrap_err();
        assert!(error.to_string().contains("`zstd:99` is not a compression"), "{error}");
    }
}
