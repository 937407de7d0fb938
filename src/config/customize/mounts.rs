//! How a running system finds its volumes: mount and swap units, or lines of `/etc/fstab`.

use anyhow::Result;

use super::grow::Grow;
use super::services;
use super::system::{Access, System};
use crate::config::layout::MountStyle;
use crate::error::unsupported;

/// A volume that is mounted, or a swap area that is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// UUID of what is in the partition, as `blkid` says it.
    pub uuid: String,
    /// Where it is mounted; `None`: it is a swap area.
    pub mountpoint: Option<String>,
    /// `ext4`, `vfat`, `swap`.
    pub kind: &'static str,
    /// Options, separated by commas.
    pub options: String,
    /// fstab's `dump` field.
    pub frequency: u64,
    /// fstab's order of checks.
    pub pass: u64,
}

/// Everything that is mounted besides the root and `/boot`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounting {
    /// How.
    pub style: MountStyle,
    /// What, in any order.
    pub mounts: Vec<Mount>,
    /// Makes the root file system fill its disk at the first boot, if the image has what it takes.
    pub grow: Option<Grow>,
}

/// Where the ESP is mounted, if it is.
const ESP: &str = "/boot/efi";

/// Writes units or lines, and returns the mount points without links in them.
pub(super) fn apply(system: &mut System<'_>, mounting: &Mounting) -> Result<Vec<String>> {
    let mut volumes = Vec::new();
    let mut fstab = String::new();
    for mount in &mounting.mounts {
        let mut mount = mount.clone();
        if let Some(asked) = &mount.mountpoint {
            let path = mountpoint(system, asked)?;
            // What is on the ESP comes from the boot loader, not from a directory.
            if path != ESP {
                volumes.push(path.clone());
            }
            mount.mountpoint = Some(path);
        }
        match mounting.style {
            MountStyle::Units => write_unit(system, &mount)?,
            MountStyle::Fstab => fstab += &line(&mount),
            MountStyle::None => {}
        }
    }
    if !fstab.is_empty() {
        let text = system.read("/etc/fstab")?.unwrap_or_default();
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        system.rewrite("/etc/fstab", &format!("{text}{end}{fstab}"))?;
    }
    Ok(volumes)
}

/// The directory that is mounted over, made below `/var` and looked for elsewhere.
fn mountpoint(system: &mut System<'_>, asked: &str) -> Result<String> {
    let path = system.canonical(asked)?;
    // On the disk it is part of `/boot`, which whoever fills that makes.
    if path == ESP || system.is_directory(&path) {
        return Ok(path);
    }
    if path.starts_with("/var/") && !system.exists(&path) {
        system.make_directory(&path, Access::root(0o755)).map(|()| path)
    } else {
        Err(unsupported(
            format!(
                "nothing can be mounted at {asked}: the image has no directory {path}, and only below /var can one be made"
            ),
            Some("make the directory in the image's Containerfile, or mount below /var"),
        ))
    }
}

fn line(mount: &Mount) -> String {
    let Mount { uuid, kind, options, frequency, pass, .. } = mount;
    let place = mount.mountpoint.as_deref().unwrap_or("none");
    format!("UUID={uuid} {place} {kind} {options} {frequency} {pass}\n")
}

fn write_unit(system: &mut System<'_>, mount: &Mount) -> Result<()> {
    let device = format!("/dev/disk/by-uuid/{}", mount.uuid);
    let (name, text) = match &mount.mountpoint {
        None => {
            let text = format!(
                "[Unit]\nDescription=Swap\n\n[Swap]\nWhat={device}\nOptions={}\n\n[Install]\nWantedBy=swap.target\n",
                mount.options
            );
            (format!("{}.swap", escaped(&device)), text)
        }
        Some(place) => {
            let check = match mount.kind {
                "ext4" | "vfat" => {
                    let unit = format!("systemd-fsck@{}.service", escaped(&device));
                    format!("Requires={unit}\nAfter={unit}\n")
                }
                _ => String::new(),
            };
            let text = format!(
                "[Unit]\nDescription={place}\nBefore=local-fs.target\n{check}\n[Mount]\nWhat={device}\nWhere={place}\n\
                 Type={}\nOptions={}\n\n[Install]\nRequiredBy=local-fs.target\n",
                mount.kind, mount.options
            );
            (format!("{}.mount", escaped(place)), text)
        }
    };
    system.write(&format!("/etc/systemd/system/{name}"), text.as_bytes(), Access::root(0o644))?;
    services::enable_own(system, &name)
}

/// A path as a part of a unit's name (systemd.unit(5), "String escaping for inclusion in unit names").
fn escaped(path: &str) -> String {
    let trimmed = path.trim_matches('/');
    let mut name = String::new();
    for (index, byte) in trimmed.bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if index == 0 => name += "\\x2e",
            b':' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                name.push(char::from(byte))
            }
            other => name += &format!("\\x{other:02x}"),
        }
    }
    if name.is_empty() { "-".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_are_escaped_paths() {
        assert_eq!(escaped("/var/log"), "var-log");
        assert_eq!(escaped("/dev/disk/by-uuid/a-b"), "dev-disk-by\\x2duuid-a\\x2db");
        assert_eq!(escaped("/.x"), "\\x2ex");
        assert_eq!(escaped("/"), "-");
    }
}
