//! Kernel arguments: those of `kargs.d`, and the command line that all sources make together.

use anyhow::Result;
use serde::Deserialize;

use super::{Files, Settings, has_extension, matches_architecture};
use crate::architecture::Architecture;
use crate::command_line::{check, split};
use crate::error::corrupt;

const DIRECTORY: &str = "usr/lib/bootc/kargs.d";

/// A file of `kargs.d`. bootc refuses other keys: what it cannot read it could not take back at an update.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Document {
    kargs: Vec<String>,
    match_architectures: Option<Vec<String>>,
}

/// The arguments of `kargs.d` for an architecture, in the order of file names and arrays.
pub(super) fn load(files: &Files<'_>, architecture: Architecture) -> Result<Vec<String>> {
    let mut arguments = Vec::new();
    for name in files.names(DIRECTORY) {
        if !has_extension(&name, "toml") {
            continue;
        }
        let path = format!("{DIRECTORY}/{name}");
        let Some(text) = files.text(&path)? else { continue };
        let document: Document = toml::from_str(&text).map_err(|error| {
            let mut reason = error.to_string().trim_end().to_owned();
            if toml::from_str::<toml::Table>(&text).is_ok_and(|table| table.contains_key("install")) {
                reason += "\nkargs.d has `kargs = [\"…\"]` without a table; [install] belongs into usr/lib/bootc/install";
            }
            corrupt(&path, reason)
        })?;
        if matches_architecture(document.match_architectures.as_deref(), architecture) {
            sound(&path, &document.kargs)?;
            arguments.extend(
                document.kargs.iter().flat_map(|argument| split(argument)).map(str::to_owned),
            );
        }
    }
    Ok(arguments)
}

/// Refuses arguments in a file of the image that no boot loader could pass on.
pub(super) fn sound(path: &str, arguments: &[String]) -> Result<()> {
    arguments.iter().try_for_each(|argument| {
        check(argument)
            .map_err(|why| corrupt(path, format!("the kernel argument {argument:?}: {why}")))
    })
}

/// Where the installed system finds its file systems: `UUID=…`, a path or whatever `mount` understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounts {
    /// The value of `root=`; `None`: no `root=`.
    pub root: Option<String>,
    /// The value of `rootflags=`, for a Btrfs subvolume.
    pub root_flags: Option<String>,
    /// The value of `boot=` and the source of `/boot` in fstab; `None`: `/boot` is on the root file system.
    pub boot: Option<String>,
}

impl Mounts {
    /// The mounts of a disk whose file systems have these UUIDs, unless the image says otherwise.
    pub fn of(settings: &Settings, root_uuid: &str, boot_uuid: Option<&str>) -> Self {
        let install = &settings.install;
        let named = |spec: &Option<String>, uuid: Option<&str>| match spec {
            Some(spec) => (!spec.is_empty()).then(|| spec.clone()),
            None => uuid.map(|uuid| format!("UUID={uuid}")),
        };
        let discoverable = install.discoverable_partitions == Some(true);
        let root_uuid = Some(root_uuid).filter(|_| !discoverable);
        Self {
            root: named(&install.root_mount_spec, root_uuid),
            root_flags: None,
            boot: named(&install.boot_mount_spec, boot_uuid),
        }
    }
}

/// The kernel command line without `ostree=`, one element an argument: mounts, install configuration, `kargs.d`, minus what is
/// deleted (`key=value`: that one; `key`: all of it), plus `added`. Nothing is ever made unique: two `console=` stay two.
pub fn command_line(
    settings: &Settings,
    mounts: &Mounts,
    added: &[String],
    deleted: &[String],
) -> Vec<String> {
    let mut line = Vec::new();
    line.extend(mounts.root.iter().map(|root| format!("root={root}")));
    line.extend(mounts.root_flags.iter().map(|flags| format!("rootflags={flags}")));
    line.push("rw".to_owned());
    line.extend(mounts.boot.iter().map(|boot| format!("boot={boot}")));
    let install = &settings.install;
    for source in [&install.kernel_arguments, &settings.kernel_arguments] {
        line.extend(source.iter().flat_map(|argument| split(argument)).map(str::to_owned));
    }
    for delete in
        install.kernel_argument_deletes.iter().chain(deleted).flat_map(|delete| split(delete))
    {
        line.retain(|argument| !deletes(delete, argument));
    }
    line.extend(added.iter().flat_map(|argument| split(argument)).map(str::to_owned));
    line
}

/// The kernel command line of the composefs backend, one element an argument: mounts, install configuration, `added`, the place of
/// the argument that names the image (`composefs=`), `kargs.d`, minus what is deleted.
///
/// bootc leaves the install configuration and deletions out on this backend (its issue 2539); here they count.
pub fn composefs_command_line(
    settings: &Settings,
    mounts: &Mounts,
    added: &[String],
    deleted: &[String],
) -> Vec<String> {
    const PLACE: &str = "composefs=";
    let install = &settings.install;
    let words = |source: &[String]| -> Vec<String> {
        source.iter().flat_map(|argument| split(argument)).map(str::to_owned).collect()
    };
    let mut line = Vec::new();
    line.extend(mounts.root.iter().map(|root| format!("root={root}")));
    line.extend(mounts.root_flags.iter().map(|flags| format!("rootflags={flags}")));
    line.push("rw".to_owned());
    line.extend(words(&install.kernel_arguments));
    let mut behind = words(&settings.kernel_arguments);
    for delete in
        install.kernel_argument_deletes.iter().chain(deleted).flat_map(|delete| split(delete))
    {
        line.retain(|argument| !deletes(delete, argument));
        behind.retain(|argument| !deletes(delete, argument));
    }
    line.extend(words(added));
    let named = |argument: &String| {
        argument.starts_with(PLACE) || argument.starts_with("composefs.digest=")
    };
    line.retain(|argument| !named(argument));
    behind.retain(|argument| !named(argument));
    line.push(PLACE.to_owned());
    line.extend(behind);
    line
}

/// Key and value without the quotes that kept them together: `key="a b"` and `"key=a b"` are the same.
fn parse(argument: &str) -> (&str, Option<&str>) {
    let bare = unquoted(argument);
    match bare.split_once('=') {
        Some((key, value)) => (key, Some(unquoted(value))),
        None => (bare, None),
    }
}

fn unquoted(text: &str) -> &str {
    match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').unwrap_or(rest),
        None => text,
    }
}

fn deletes(delete: &str, argument: &str) -> bool {
    let (key, value) = parse(delete);
    let (argument_key, argument_value) = parse(argument);
    same_key(key, argument_key) && (value.is_none() || value == argument_value)
}

/// The kernel takes `-` and `_` in keys for the same character.
fn same_key(a: &str, b: &str) -> bool {
    let plain = |byte: u8| if byte == b'-' { b'_' } else { byte };
    a.bytes().map(plain).eq(b.bytes().map(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_lose_their_quotes() {
        assert_eq!(parse(r#"b="c d""#), ("b", Some("c d")));
        assert_eq!(parse(r#""e=f g""#), ("e", Some("f g")));
        assert_eq!(parse("root=UUID=1"), ("root", Some("UUID=1")));
    }

    #[test]
    fn deletion_is_by_pair_or_by_key() {
        assert!(deletes("console=ttyS0", "console=ttyS0"));
        assert!(!deletes("console=ttyS0", "console=ttyS1"));
        assert!(deletes("console", "console=ttyS1"));
        assert!(deletes("systemd.first-boot", "systemd.first_boot=off"));
        assert!(!deletes("a=x-y", "a=x_y"));
        assert!(!deletes("quiet=", "quiet"));
        assert!(deletes(r#"dyndbg="a b""#, r#""dyndbg=a b""#));
    }
}
