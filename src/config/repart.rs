//! `repart.d`: the partitions that an image describes to systemd-repart, by which `bootc install to-disk` partitions, too.
//!
//! ```text
//! usr/lib/repart.d/10-esp.conf     [Partition]           a file is a partition, in the order of names; /etc hides /usr/local/lib,
//! usr/lib/repart.d/50-root.conf    Type=root             that hides /usr/lib; an empty file and a link to /dev/null hide, too
//!                                  Format=xfs
//! ```
//!
//! Source: repart.d(5) of systemd 258; bootc-installation(7), "systemd-repart".

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use uuid::{Uuid, uuid};

use super::layout::{Filesystem, Layout, MountStyle, Partition, Payload, Subvolume};
use super::size::binary;
use crate::architecture::Architecture;
use crate::content::ContentStore;
use crate::error::{corrupt, unsupported};
use crate::filesystem_kind::FileSystem;
use crate::tree::{Kind, Tree};

/// In rising precedence: a file hides those of the same name before it. `/run` is a machine's, not an image's.
const DIRECTORIES: [&str; 3] = ["usr/lib/repart.d", "usr/local/lib/repart.d", "etc/repart.d"];

/// Who reads the files when bootc installs.
const PROGRAM: &str = "usr/bin/systemd-repart";

const WITHOUT_LAYOUT: &str = "use --ignore-image-layout to build with the usual partitions";

/// Files that describe a partition have a few lines.
const LARGEST: u64 = 1 << 16;

/// Partitions, at most: a GPT of the usual size has 128.
const MOST: usize = 128;

/// Bytes of a partition of which nobody says how small it may be, and of which SizeMaxBytes= says less than that (repart.d(5)).
const LEAST: u64 = 10 << 20;

/// How much of the free room a partition gets of which nobody says it (repart.d(5), Weight=).
const WEIGHT: u32 = 1000;

/// GPT attribute bits of the Discoverable Partitions Specification.
const NO_AUTO: u64 = 1 << 63;
const READ_ONLY: u64 = 1 << 60;
const GROW_FILE_SYSTEM: u64 = 1 << 59;

const ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
const XBOOTLDR: Uuid = uuid!("bc13c2ff-59e6-4262-a352-b275fd6f7172");
const SWAP: Uuid = uuid!("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f");
const ROOT_X86_64: Uuid = uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709");
const ROOT_ARM64: Uuid = uuid!("b921b045-1df0-41c3-af44-4c6f280d3fae");
const USR_X86_64: Uuid = uuid!("8484680c-9521-48c6-9c11-b0720656f69e");
const USR_ARM64: Uuid = uuid!("b0e01050-ee5f-4781-949a-9101b17104e9");

/// Names of partition types (repart.d(5), Type=) besides those of the architecture itself.
const TYPES: [(&str, Uuid); 13] = [
    ("esp", ESP),
    ("xbootldr", XBOOTLDR),
    ("swap", SWAP),
    ("home", uuid!("933ac7e1-2eb4-4f13-b844-0e14e2aef915")),
    ("srv", uuid!("3b8f8425-20e0-4f3b-907f-1a25a76f98e8")),
    ("var", uuid!("4d21b016-b534-45c2-a9fb-5c16e091fd2d")),
    ("tmp", uuid!("7ec6f557-3bc5-4aca-b293-16ef5df639d1")),
    ("user-home", uuid!("773f91ef-66d4-49b5-bd83-d683bf40ad16")),
    ("linux-generic", uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4")),
    ("root-x86-64", ROOT_X86_64),
    ("root-arm64", ROOT_ARM64),
    ("usr-x86-64", USR_X86_64),
    ("usr-arm64", USR_ARM64),
];

/// Keys that change nothing on a disk that is made anew.
const IDLE: [&str; 12] = [
    "Priority",
    "SplitName",
    "Minimize",
    "FactoryReset",
    "CompressionLevel",
    "Compression",
    "MountPoint",
    "EncryptedVolume",
    "TPM2PCRs",
    "AddValidateFS",
    "FileSystemSectorSize",
    "VerityMatchKey",
];

/// Keys that fill or transform a partition in ways of their own, and why they are refused.
const REFUSED: [(&str, &str); 8] = [
    ("CopyFiles", "bootpress puts nothing but the installed system into partitions"),
    ("CopyBlocks", "there is no other disk to copy from"),
    ("MakeDirectories", "bootpress puts nothing but the installed system into partitions"),
    ("MakeSymlinks", "bootpress puts nothing but the installed system into partitions"),
    ("ExcludeFiles", "nothing is copied that could be left out"),
    ("ExcludeFilesTarget", "nothing is copied that could be left out"),
    ("SupplementFor", "it merges definitions of an existing disk"),
    ("PaddingMinBytes", "bootpress puts partitions side by side"),
];

/// The layout that `repart.d` describes, and what is to be said about it; `None`: there is none.
///
/// `Corrupt`: a file is broken. `Unsupported`: it asks for what bootpress cannot make.
pub(super) fn layout(
    root: &Tree,
    contents: &ContentStore,
    architecture: Architecture,
) -> Result<Option<(Layout, Vec<String>)>> {
    let files = surviving(root);
    if files.is_empty() {
        return Ok(None);
    }
    if files.len() > MOST {
        let what = format!("the image describes {} partitions in repart.d", files.len());
        return Err(unsupported(format!("{what}; the limit is {MOST}"), Some(WITHOUT_LAYOUT)));
    }
    let mut warnings = Vec::new();
    let mut partitions = Vec::new();
    for (path, content) in files.values() {
        if content.size > LARGEST {
            return Err(corrupt(
                path.as_str(),
                format!("{} bytes are too many for it", content.size),
            ));
        }
        let bytes = contents.bytes(content).with_context(|| format!("reading {path}"))?;
        let text = String::from_utf8(bytes).map_err(|_| corrupt(path, "it is not UTF-8"))?;
        if text.trim().is_empty() {
            continue;
        }
        partitions.push(Definition::parse(path, &text)?.partition(architecture, &mut warnings)?);
    }
    if partitions.is_empty() {
        return Ok(None);
    }
    if !partitions.iter().any(|partition| partition.mountpoint() == Some("/")) {
        // bootc describes the root itself if nobody else does.
        let name = architecture_name("root", architecture);
        partitions.push(filesystem_partition(name, Some("/"), None));
    }
    let mut directories: Vec<&str> =
        files.values().filter_map(|(path, _)| Some(path.rsplit_once('/')?.0)).collect();
    directories.sort_unstable();
    directories.dedup();
    let layout = Layout {
        origin: format!("the image's {}", directories.join(" and ")),
        complete: true,
        root_fills_disk: true,
        mounts: MountStyle::None,
        partitions,
        ..Layout::default()
    };
    if let Some(fault) = layout.faults().into_iter().next() {
        return Err(corrupt(layout.origin, format!("{fault} ({WITHOUT_LAYOUT})")));
    }
    if root.resolve(PROGRAM).is_none() {
        warnings.push(format!(
            "{} is followed, but `bootc install` would not: the image has no /{PROGRAM}",
            layout.origin
        ));
    }
    Ok(Some((layout, warnings)))
}

/// The files that count, by name: where each is, and its content.
fn surviving(root: &Tree) -> BTreeMap<Vec<u8>, (String, crate::content::Content)> {
    let mut files = BTreeMap::new();
    for directory in DIRECTORIES {
        let Some(id) = root.resolve(directory) else { continue };
        for (name, id) in root.inode(id).children() {
            let Ok(text) = std::str::from_utf8(name) else { continue };
            if !text.ends_with(".conf") || text.starts_with('.') {
                continue;
            }
            let path = format!("{directory}/{text}");
            let content = match &root.inode(id).kind {
                Kind::File(content) => Some(content),
                _ => root.file(&path),
            };
            match content {
                Some(content) => files.insert(name.to_vec(), (path, content.clone())),
                // A link to /dev/null.
                None => files.remove(&name.to_vec()),
            };
        }
    }
    files.retain(|_, (_, content)| content.size > 0);
    files
}

/// `root-x86-64`: what systemd calls a type of this architecture.
fn architecture_name(stem: &str, architecture: Architecture) -> String {
    match architecture {
        Architecture::X86_64 => format!("{stem}-x86-64"),
        Architecture::Aarch64 => format!("{stem}-arm64"),
    }
}

fn filesystem_partition(
    name: String,
    mountpoint: Option<&str>,
    kind: Option<FileSystem>,
) -> Partition {
    let longest = kind.unwrap_or(FileSystem::Ext4).longest_label().min(16);
    let label = match kind {
        // FAT has no small letters.
        Some(FileSystem::Vfat) => name.to_ascii_uppercase(),
        // The root's kind may be somebody else's choice.
        None => name.chars().take(12).collect(),
        Some(_) => name.clone(),
    };
    let filesystem = Filesystem {
        kind,
        mountpoint: mountpoint.map(str::to_owned),
        label: Some(label.chars().take(longest).collect()),
        ..Filesystem::default()
    };
    Partition {
        name: Some(name),
        weight: Some(WEIGHT),
        payload: Payload::Filesystem(filesystem),
        ..Partition::default()
    }
}

/// A file, read.
struct Definition<'a> {
    path: &'a str,
    /// The keys of `[Partition]`; empty assignments have taken away what was before them.
    keys: Vec<(&'a str, &'a str)>,
    /// Sections and keys in them that nobody knows, as `Section.Key`.
    unknown: Vec<String>,
}

impl<'a> Definition<'a> {
    fn parse(path: &'a str, text: &'a str) -> Result<Self> {
        let mut section = None;
        let mut definition = Self { path, keys: Vec::new(), unknown: Vec::new() };
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            let wrong = |what: String| corrupt(path, format!("line {number}: {what}"));
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[') {
                let name = name.strip_suffix(']');
                let name = name.ok_or_else(|| wrong("a section without ]".to_owned()))?;
                if name != "Partition" && !name.starts_with("X-") {
                    definition.unknown.push(format!("[{name}]"));
                }
                section = Some(name);
                continue;
            }
            let pair = line.split_once('=');
            let (key, value) =
                pair.ok_or_else(|| wrong(format!("`{line}` is neither [section] nor key=value")))?;
            let (key, value) = (key.trim(), value.trim());
            match section {
                None => return Err(wrong(format!("{key} stands before the first section"))),
                Some("Partition") if value.is_empty() => {
                    definition.keys.retain(|(other, _)| *other != key);
                }
                Some("Partition") => definition.keys.push((key, value)),
                Some(_) => {}
            }
        }
        Ok(definition)
    }

    /// The last value of a key.
    fn last(&self, key: &str) -> Option<&'a str> {
        self.keys.iter().rev().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    fn wrong(&self, key: &str, value: &str, expected: &str) -> anyhow::Error {
        corrupt(
            format!("the image's {}", self.path),
            format!("invalid {key} \"{value}\": expected {expected} ({WITHOUT_LAYOUT})"),
        )
    }

    fn refused(&self, what: &str) -> anyhow::Error {
        unsupported(format!("the image's {}: {what}", self.path), Some(WITHOUT_LAYOUT))
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>> {
        match self.last(key) {
            None => Ok(None),
            Some("yes" | "true" | "on" | "1" | "y" | "t") => Ok(Some(true)),
            Some("no" | "false" | "off" | "0" | "n" | "f") => Ok(Some(false)),
            Some(other) => Err(self.wrong(key, other, "yes or no")),
        }
    }

    fn bytes(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.last(key) else { return Ok(None) };
        let parsed = binary(value).ok_or_else(|| self.wrong(key, value, "a size such as 512M"))?;
        Ok(Some(parsed))
    }

    /// The partition that is described.
    fn partition(
        &self,
        architecture: Architecture,
        warnings: &mut Vec<String>,
    ) -> Result<Partition> {
        self.check_keys(warnings)?;
        let (type_name, type_guid) = self.type_of(architecture)?;
        let format = self.format()?;
        let name = self.text("Label")?.unwrap_or_else(|| type_name.clone());
        let is_root = [ROOT_X86_64, ROOT_ARM64].contains(&type_guid);
        let mut partition = match (format, type_guid) {
            (Format::None, ESP) => filesystem_partition(name, None, Some(FileSystem::Vfat)),
            (Format::None, _) if is_root => filesystem_partition(name, Some("/"), None),
            (Format::None, XBOOTLDR) => {
                filesystem_partition(name, Some("/boot"), Some(FileSystem::Ext4))
            }
            (Format::None, _) => Partition { name: Some(name), ..Partition::default() },
            (Format::Swap, _) => {
                let label = name.chars().take(FileSystem::Swap.longest_label()).collect();
                let payload = Payload::Swap { label, uuid: None };
                Partition { name: Some(name), payload, ..Partition::default() }
            }
            (Format::Kind(kind), _) if is_root => filesystem_partition(name, Some("/"), Some(kind)),
            (Format::Kind(kind), XBOOTLDR) => filesystem_partition(name, Some("/boot"), Some(kind)),
            (Format::Kind(kind), _) => filesystem_partition(name, None, Some(kind)),
        };
        if let (Some(label), Payload::Filesystem(filesystem)) =
            (self.text("VolumeLabel")?, &mut partition.payload)
        {
            filesystem.label = Some(label);
        }
        self.subvolumes(&mut partition)?;
        partition.type_guid = Some(type_guid);
        partition.guid = self.uuid()?;
        partition.attributes = self.attributes()?;
        partition.weight = Some(self.weight()?);
        partition.maxsize = self.bytes("SizeMaxBytes")?;
        let least = partition.maxsize.map_or(LEAST, |most| most.min(LEAST));
        // What is made for booting has a size of its own, which is larger.
        let has_usual = is_root || [ESP, XBOOTLDR].contains(&type_guid);
        let least = if has_usual { 0 } else { least };
        partition.minsize = self.bytes("SizeMinBytes")?.unwrap_or(least);
        if let Some(most) = partition.maxsize.filter(|most| *most < partition.minsize) {
            let expected = format!("at least SizeMinBytes, {}", partition.minsize);
            return Err(self.wrong("SizeMaxBytes", &most.to_string(), &expected));
        }
        Ok(partition)
    }

    /// Names keys that nobody knows, and refuses those that cannot be honoured.
    fn check_keys(&self, warnings: &mut Vec<String>) -> Result<()> {
        const KNOWN: [&str; 15] = [
            "Type",
            "Label",
            "UUID",
            "Weight",
            "SizeMinBytes",
            "SizeMaxBytes",
            "Format",
            "Flags",
            "NoAuto",
            "ReadOnly",
            "GrowFileSystem",
            "VolumeLabel",
            "Subvolumes",
            "DefaultSubvolume",
            "PaddingWeight",
        ];
        for unknown in &self.unknown {
            warnings.push(format!("the image's {}: unknown section {unknown}", self.path));
        }
        for (key, value) in &self.keys {
            if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| refused == key) {
                return Err(self.refused(&format!("{key}= is not supported: {why}")));
            }
            match (*key, *value) {
                ("PaddingMaxBytes" | "PaddingWeight", "0") | ("Encrypt" | "Verity", "off") => {}
                ("Encrypt" | "Verity" | "Integrity", value) if value != "no" => {
                    return Err(self.refused(&format!("{key}={value} is not supported")));
                }
                ("PaddingMaxBytes" | "PaddingWeight", _) => {
                    return Err(self.refused(&format!(
                        "{key}= is not supported: bootpress puts partitions side by side"
                    )));
                }
                (key, _) if KNOWN.contains(&key) || IDLE.contains(&key) => {}
                (key, _) if key.starts_with("X-") || ["Encrypt", "Verity"].contains(&key) => {}
                (key, _) => {
                    warnings.push(format!("the image's {}: unknown key {key}", self.path));
                }
            }
        }
        Ok(())
    }

    fn type_of(&self, architecture: Architecture) -> Result<(String, Uuid)> {
        let Some(value) = self.last("Type") else {
            return Err(self.wrong("Type", "", "a type of partition such as root or esp"));
        };
        let value = match value {
            "root" | "usr" => architecture_name(value, architecture),
            other => other.to_owned(),
        };
        let named = TYPES.iter().find(|(name, _)| *name == value).map(|(_, guid)| *guid);
        let guid = named.or_else(|| Uuid::try_parse(&value).ok());
        let Some(guid) = guid else {
            let names: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
            let what = format!(
                "Type={value} is not supported: expected root, usr, a UUID or one of: {}",
                names.join(", ")
            );
            return Err(self.refused(&what));
        };
        let (_, own) = match architecture {
            Architecture::X86_64 => (ROOT_ARM64, ROOT_X86_64),
            Architecture::Aarch64 => (ROOT_X86_64, ROOT_ARM64),
        };
        if [ROOT_X86_64, ROOT_ARM64].contains(&guid) && guid != own {
            return Err(self.refused(&format!("Type={value} is the root of another architecture")));
        }
        let name = TYPES.iter().find(|(_, known)| *known == guid).map(|(name, _)| *name);
        Ok((name.unwrap_or("linux").to_owned(), guid))
    }

    fn format(&self) -> Result<Format> {
        match self.last("Format") {
            None | Some("empty") => Ok(Format::None),
            Some("swap") => Ok(Format::Swap),
            Some(name) => match FileSystem::parse(name).filter(|kind| kind.holds_files()) {
                Some(kind) => Ok(Format::Kind(kind)),
                None => Err(self.refused(&format!(
                    "Format={name} is not supported: expected one of: ext4, xfs, btrfs, vfat, swap, empty"
                ))),
            },
        }
    }

    /// A text in which systemd would replace `%` and a letter.
    fn text(&self, key: &str) -> Result<Option<String>> {
        let Some(value) = self.last(key) else { return Ok(None) };
        let plain = value.replace("%%", "");
        if plain.contains('%') {
            let what = format!("{key}={value} is not supported: specifiers are the machine's");
            return Err(self.refused(&what));
        }
        Ok(Some(value.replace("%%", "%")))
    }

    fn uuid(&self) -> Result<Option<Uuid>> {
        match self.last("UUID") {
            None => Ok(None),
            Some("null") => Ok(Some(Uuid::nil())),
            Some(value) => match Uuid::try_parse(value) {
                Ok(uuid) => Ok(Some(uuid)),
                Err(_) => Err(self.wrong("UUID", value, "a UUID")),
            },
        }
    }

    fn weight(&self) -> Result<u32> {
        let Some(value) = self.last("Weight") else { return Ok(WEIGHT) };
        let parsed = value.parse().ok().filter(|weight| *weight <= 1_000_000);
        parsed.ok_or_else(|| self.wrong("Weight", value, "a number from 0 to 1000000"))
    }

    fn attributes(&self) -> Result<u64> {
        let flags = match self.last("Flags") {
            None => 0,
            Some(value) => {
                let parsed = match value.strip_prefix("0x") {
                    Some(digits) => u64::from_str_radix(digits, 16).ok(),
                    None => value.parse().ok(),
                };
                parsed.ok_or_else(|| self.wrong("Flags", value, "a number of 64 bits"))?
            }
        };
        let bits =
            [("NoAuto", NO_AUTO), ("ReadOnly", READ_ONLY), ("GrowFileSystem", GROW_FILE_SYSTEM)];
        let mut attributes = flags;
        for (key, bit) in bits {
            match self.boolean(key)? {
                Some(true) => attributes |= bit,
                Some(false) => attributes &= !bit,
                None => {}
            }
        }
        Ok(attributes)
    }

    /// `Subvolumes=`: of the root only the default one can be the system's.
    fn subvolumes(&self, partition: &mut Partition) -> Result<()> {
        let listed = self.keys.iter().filter(|(key, _)| *key == "Subvolumes");
        let names: Vec<&str> = listed.flat_map(|(_, value)| value.split_whitespace()).collect();
        let default = self.last("DefaultSubvolume");
        if names.is_empty() && default.is_none() {
            return Ok(());
        }
        let Payload::Filesystem(Filesystem {
            kind: Some(FileSystem::Btrfs),
            label,
            mountpoint,
            ..
        }) = &partition.payload
        else {
            return Err(self.refused("Subvolumes= is for Format=btrfs"));
        };
        let mut subvolumes = Vec::new();
        for name in names {
            // `path:flag`; the only flag, `ro`, seals a subvolume that was filled by CopyFiles=.
            let (path, flags) = name.split_once(':').unwrap_or((name, ""));
            if !flags.is_empty() {
                return Err(self.refused(&format!("Subvolumes={name} is not supported: flags")));
            }
            let mounted = default == Some(path) && mountpoint.as_deref() == Some("/");
            subvolumes.push(Subvolume {
                name: path.trim_start_matches('/').to_owned(),
                mountpoint: mounted.then(|| "/".to_owned()),
                ..Subvolume::default()
            });
        }
        if !subvolumes.iter().any(|one| one.mountpoint.is_some()) {
            return Err(self.refused(
                "Subvolumes= is not supported without a DefaultSubvolume= among them, on the root",
            ));
        }
        let label = label.clone().unwrap_or_default();
        partition.payload = Payload::Btrfs { label, uuid: None, subvolumes };
        Ok(())
    }
}

/// What a partition is formatted with.
enum Format {
    None,
    Swap,
    Kind(FileSystem),
}

#[cfg(test)]
#[path = "repart/tests.rs"]
mod tests;
