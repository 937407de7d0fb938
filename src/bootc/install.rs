//! `bootc/install/*.toml`: what the image wants of its installation.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;
use toml::Value;

use super::{Files, has_extension, matches_architecture};
use crate::architecture::Architecture;
use crate::error::{corrupt, unsupported};
use crate::filesystem_kind::FileSystem;
use crate::progress::{Code, Progress};

/// In rising precedence: a file hides those of the same name before it. `/run` is a machine's, not an image's.
const DIRECTORIES: [&str; 3] =
    ["usr/lib/bootc/install", "usr/local/lib/bootc/install", "etc/bootc/install"];

/// A root file system, as install configurations spell it: bootc knows no others.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RootType {
    Xfs,
    Ext4,
    Btrfs,
}

impl From<RootType> for FileSystem {
    fn from(root: RootType) -> Self {
        match root {
            RootType::Xfs => Self::Xfs,
            RootType::Ext4 => Self::Ext4,
            RootType::Btrfs => Self::Btrfs,
        }
    }
}

/// A boot loader that bootc knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bootloader {
    /// GRUB, by bootupd's rules.
    Grub,
    /// systemd-boot.
    Systemd,
    /// None: somebody else takes care of it.
    None,
    /// GRUB for confidential computing.
    GrubCc,
}

/// The merged install configuration. `None`: no file says anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstallConfig {
    /// Type of the root file system.
    pub root_filesystem: Option<FileSystem>,
    /// Kernel arguments of all files, in their order, as spelled.
    pub kernel_arguments: Vec<String>,
    /// Kernel arguments to take away, of all files.
    pub kernel_argument_deletes: Vec<String>,
    /// Stored into the repository's configuration, group `sysroot`, key `bls-append-except-default`.
    pub bls_append_except_default: Option<String>,
    /// Name of the stateroot.
    pub stateroot: Option<String>,
    /// The value of `root=`; empty: no `root=`.
    pub root_mount_spec: Option<String>,
    /// What is mounted on `/boot`; empty: nothing.
    pub boot_mount_spec: Option<String>,
    /// Whether GRUB's `bootuuid.cfg` is left out.
    pub skip_boot_uuid: Option<bool>,
    /// Boot loader.
    pub bootloader: Option<Bootloader>,
    /// Whether `root=` is left to the Discoverable Partitions Specification.
    pub discoverable_partitions: Option<bool>,
    /// Whether the installed system verifies signatures when it updates.
    pub enforce_container_sigpolicy: Option<bool>,
}

type Unknown = BTreeMap<String, Value>;

#[derive(Deserialize)]
struct Document {
    install: Option<Table>,
    // Other tables are somebody else's; bootc ignores them, too.
    #[serde(flatten)]
    others: Unknown,
}

/// Keys that people forget to put into the table.
const OF_THE_TABLE: [&str; 9] = [
    "block",
    "boot-mount-spec",
    "bootupd",
    "filesystem",
    "karg-deletes",
    "kargs",
    "root-fs-type",
    "root-mount-spec",
    "stateroot",
];

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Table {
    root_fs_type: Option<RootType>,
    filesystem: Option<FilesystemTable>,
    block: Option<Vec<String>>,
    kargs: Option<Vec<String>>,
    karg_deletes: Option<Vec<String>>,
    match_architectures: Option<Vec<String>>,
    ostree: Option<OstreeTable>,
    stateroot: Option<String>,
    root_mount_spec: Option<String>,
    boot_mount_spec: Option<String>,
    bootupd: Option<BootupdTable>,
    bootloader: Option<Bootloader>,
    discoverable_partitions: Option<bool>,
    enforce_container_sigpolicy: Option<bool>,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Deserialize)]
struct FilesystemTable {
    root: Option<RootTable>,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Deserialize)]
struct RootTable {
    r#type: Option<RootType>,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct OstreeTable {
    bls_append_except_default: Option<String>,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct BootupdTable {
    skip_boot_uuid: Option<bool>,
    #[serde(flatten)]
    unknown: Unknown,
}

impl Table {
    /// The keys that nobody knows, with the tables they are in.
    fn unknown(&self) -> Vec<String> {
        let tables = [
            ("", Some(&self.unknown)),
            ("filesystem.", self.filesystem.as_ref().map(|table| &table.unknown)),
            (
                "filesystem.root.",
                self.filesystem
                    .as_ref()
                    .and_then(|table| table.root.as_ref())
                    .map(|table| &table.unknown),
            ),
            ("ostree.", self.ostree.as_ref().map(|table| &table.unknown)),
            ("bootupd.", self.bootupd.as_ref().map(|table| &table.unknown)),
        ];
        tables
            .into_iter()
            .flat_map(|(prefix, table)| {
                table.into_iter().flatten().map(move |(key, _)| format!("{prefix}{key}"))
            })
            .collect()
    }
}

/// Reads the surviving files in the order of their names and merges them.
pub(super) fn load(
    files: &Files<'_>,
    architecture: Architecture,
    progress: &Progress,
) -> Result<InstallConfig> {
    let mut config = InstallConfig::default();
    let mut root_fs_type = None;
    let mut block = None;
    for path in surviving(files) {
        let Some(text) = files.text(&path)? else { continue };
        let document: Document =
            toml::from_str(&text).map_err(|error| corrupt(&path, error.to_string().trim_end()))?;
        for key in document.others.keys().filter(|key| OF_THE_TABLE.contains(&key.as_str())) {
            progress.warn(
                Code::ImageConfiguration,
                format!("{path}: {key} has no effect outside of the table [install]"),
            );
        }
        let Some(table) = document.install else { continue };
        if !matches_architecture(table.match_architectures.as_deref(), architecture) {
            continue;
        }
        super::kernel_arguments::sound(&path, table.kargs.as_deref().unwrap_or_default())?;
        for key in table.unknown() {
            progress.warn(Code::ImageConfiguration, format!("{path}: unknown key install.{key}"));
        }
        root_fs_type = table.root_fs_type.or(root_fs_type);
        block = table.block.clone().or(block);
        merge(&mut config, table);
    }
    // The older spelling counts only where the newer is silent, in whatever files they are.
    config.root_filesystem = config.root_filesystem.or(root_fs_type.map(Into::into));
    check_block(block.as_deref())?;
    Ok(config)
}

/// The paths of the files that count, in the order of their names.
fn surviving(files: &Files<'_>) -> Vec<String> {
    let mut by_name = BTreeMap::new();
    for directory in DIRECTORIES {
        for name in files.names(directory) {
            if !has_extension(&name, "toml") || name.starts_with('.') {
                continue;
            }
            let path = format!("{directory}/{name}");
            // A link to /dev/null masks what it hides.
            if files.link(&path).as_deref() == Some("/dev/null") {
                by_name.remove(&name);
            } else {
                by_name.insert(name, path);
            }
        }
    }
    by_name.into_values().collect()
}

/// Lists grow, everything else is replaced.
fn merge(config: &mut InstallConfig, table: Table) {
    fn replace<T>(old: &mut Option<T>, new: Option<T>) {
        if new.is_some() {
            *old = new;
        }
    }
    config.kernel_arguments.extend(table.kargs.into_iter().flatten());
    config.kernel_argument_deletes.extend(table.karg_deletes.into_iter().flatten());
    replace(
        &mut config.root_filesystem,
        table
            .filesystem
            .and_then(|table| table.root)
            .and_then(|table| table.r#type)
            .map(Into::into),
    );
    replace(
        &mut config.bls_append_except_default,
        table.ostree.and_then(|table| table.bls_append_except_default),
    );
    replace(&mut config.stateroot, table.stateroot);
    replace(&mut config.root_mount_spec, table.root_mount_spec);
    replace(&mut config.boot_mount_spec, table.boot_mount_spec);
    replace(&mut config.skip_boot_uuid, table.bootupd.and_then(|table| table.skip_boot_uuid));
    replace(&mut config.bootloader, table.bootloader);
    replace(&mut config.discoverable_partitions, table.discoverable_partitions);
    replace(&mut config.enforce_container_sigpolicy, table.enforce_container_sigpolicy);
}

/// An image may insist on a root that is encrypted with the machine's TPM; nobody but the machine can do that.
fn check_block(block: Option<&[String]>) -> Result<()> {
    match block {
        Some(list) if !list.is_empty() && !list.iter().any(|setup| setup == "direct") => {
            Err(unsupported(
                format!("the image allows only these block setups: {}", list.join(", ")),
                Some("bootpress makes direct ones; add \"direct\" to install.block"),
            ))
        }
        _ => Ok(()),
    }
}
