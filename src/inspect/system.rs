//! What is installed: boot entries, deployments, and what bootupd believes.

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use super::volume::Volume;

/// A boot entry (Boot Loader Specification, Type #1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BootEntry {
    /// Its path on the file system that it is on.
    pub path: String,
    /// What a menu shows.
    pub title: String,
    /// The kernel.
    pub linux: String,
    /// The initramfs.
    pub initrd: Option<String>,
    /// Kernel arguments.
    pub options: String,
}

/// A deployment of ostree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deployment {
    /// The stateroot that it is in.
    pub stateroot: String,
    /// Checksum of the commit.
    pub commit: String,
    /// Which deployment of this commit it is.
    pub serial: String,
    /// Where updates come from: `container-image-reference` or `refspec` of its origin.
    pub origin: Option<String>,
    /// Digest of the image's manifest, if the commit was made from an image.
    pub image_digest: Option<String>,
    /// The version that people know it by: the image's label, else what os-release says.
    pub version: Option<String>,
}

/// A component of bootupd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Component {
    /// `EFI` or `BIOS`.
    pub name: String,
    /// The packages that it is made of.
    pub version: String,
    /// When they were built.
    pub timestamp: String,
}

/// What a file with a boot entry says.
pub(super) fn boot_entry(path: String, text: &str) -> BootEntry {
    let mut entry = BootEntry { path, ..BootEntry::default() };
    for line in text.lines() {
        let line = line.trim();
        let Some((key, value)) = line.split_once(char::is_whitespace) else { continue };
        let value = value.trim().to_owned();
        match key {
            "title" => entry.title = value,
            "linux" => entry.linux = value,
            "initrd" => entry.initrd = Some(value),
            // The specification lets it be there more than once.
            "options" if entry.options.is_empty() => entry.options = value,
            "options" => entry.options = format!("{} {value}", entry.options),
            _ => {}
        }
    }
    entry
}

/// The boot entries in a directory of a file system.
pub(super) fn boot_entries(volume: &Volume, directory: &str) -> Result<Vec<BootEntry>> {
    let mut entries = Vec::new();
    for name in volume.names(directory)?.iter().filter(|name| name.ends_with(".conf")) {
        let path = format!("{directory}/{name}");
        if let Some(text) = volume.text(&path)? {
            entries.push(boot_entry(path, &text));
        }
    }
    Ok(entries)
}

/// The components in bootupd's state, a JSON document; none if it is not one.
pub(super) fn components(state: &[u8]) -> Vec<Component> {
    let Ok(state) = serde_json::from_slice::<Value>(state) else { return Vec::new() };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let installed = state.get("installed").and_then(Value::as_object);
    let component = |(name, value): (&String, &Value)| Component {
        name: name.clone(),
        version: text(&value["meta"]["version"]),
        timestamp: text(&value["meta"]["timestamp"]),
    };
    installed.into_iter().flatten().map(component).collect()
}

/// All deployments of a root file system.
pub(super) fn deployments(root: &Volume) -> Result<Vec<Deployment>> {
    let mut found = Vec::new();
    for stateroot in visible(root.names("/ostree/deploy")?) {
        let directory = format!("/ostree/deploy/{stateroot}/deploy");
        for name in root.names(&directory)? {
            let Some(deployment) = name.strip_suffix(".origin") else { continue };
            let Some((commit, serial)) = deployment.rsplit_once('.') else { continue };
            if commit.len() != 64 || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                continue;
            }
            let origin = root.text(&format!("{directory}/{name}"))?.unwrap_or_default();
            let origin =
                key(&origin, "container-image-reference").or_else(|| key(&origin, "refspec"));
            let object = format!("/ostree/repo/objects/{}/{}.commit", &commit[..2], &commit[2..]);
            let object = root.read(&object)?.unwrap_or_default();
            let metadata = CommitMetadata(&object);
            let release = format!("{directory}/{deployment}/usr/lib/os-release");
            let version = match metadata.version() {
                Some(version) => Some(version),
                None => root.text(&release)?.and_then(|text| release_version(&text)),
            };
            found.push(Deployment {
                stateroot: stateroot.clone(),
                commit: commit.to_owned(),
                serial: serial.to_owned(),
                origin,
                image_digest: metadata.string("ostree.manifest-digest").map(str::to_owned),
                version,
            });
        }
    }
    Ok(found)
}

/// Whether GRUB's configuration has a command that makes a menu, or goes on elsewhere.
pub(super) fn starts_something(grub: &str) -> bool {
    const STARTS: [&str; 6] =
        ["blscfg", "menuentry", "submenu", "configfile", "linux", "chainloader"];
    let lines = grub.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines
        .flat_map(|line| line.split(|c: char| c.is_whitespace() || ";{}".contains(c)))
        .any(|word| STARTS.contains(&word))
}

/// Whether systemd of a deployment mounts the ESP over the `/boot` of the root file system and unmounts both when they idle: its
/// ostree tells systemd the device of the root, and there is no `/efi`, which would be preferred.
pub(super) fn boot_idles(root: &Volume, deployments: &[Deployment]) -> Result<bool> {
    const GENERATORS: &str = "usr/lib/systemd/system-generators";
    const TELLS_DEVICE: &[u8] = b"/run/systemd/volatile-root";
    for deployment in deployments {
        let Deployment { stateroot, commit, serial, .. } = deployment;
        let at = format!("/ostree/deploy/{stateroot}/deploy/{commit}.{serial}");
        let generators = root.names(&format!("{at}/{GENERATORS}"))?;
        let program = root.read(&format!("{at}/usr/lib/ostree/ostree-prepare-root"))?;
        let table = root.text(&format!("{at}/etc/fstab"))?.unwrap_or_default();
        let units = root.names(&format!("{at}/etc/systemd/system"))?;
        let tells = program.is_some_and(|bytes| {
            bytes.windows(TELLS_DEVICE.len()).any(|window| window == TELLS_DEVICE)
        });
        let in_table =
            table.lines().filter(|line| !line.trim_start().starts_with('#')).any(|line| {
                line.split_whitespace().nth(1).is_some_and(|at| ["/boot", "/efi"].contains(&at))
            });
        let masked = units.iter().any(|unit| unit == "boot.automount" || unit == "boot.mount");
        if tells
            && generators.iter().any(|name| name == "systemd-gpt-auto-generator")
            && !root.names(&at)?.iter().any(|name| name == "efi")
            && !in_table
            && !masked
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn visible(names: Vec<String>) -> impl Iterator<Item = String> {
    names.into_iter().filter(|name| !name.starts_with('.'))
}

/// The value of a key in a file of `key=value` lines; quotes around it are taken off.
fn key(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

fn release_version(text: &str) -> Option<String> {
    ["OSTREE_VERSION", "IMAGE_VERSION", "VERSION_ID"].into_iter().find_map(|name| key(text, name))
}

/// The dictionary that a commit object begins with: a GVariant `(a{sv}aya(say)sstayay)`.
///
/// Parts of variable size say at the end of what holds them where they end, in 1, 2, 4 or 8 bytes by the holder's size.
struct CommitMetadata<'a>(&'a [u8]);

impl<'a> CommitMetadata<'a> {
    /// The version in the labels of the image's configuration, else ostree's own key.
    fn version(&self) -> Option<String> {
        let config = self.string("ostree.container.image-config");
        let config = config.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let label = |name: &str| config.as_ref()?["config"]["Labels"][name].as_str();
        let version = label("org.opencontainers.image.version").or_else(|| label("version"));
        version.or_else(|| self.string("version")).map(str::to_owned)
    }

    /// The value of a key, if it is a string.
    fn string(&self, wanted: &str) -> Option<&'a str> {
        // A tuple names the ends of its parts from its own end on, the first part's last.
        let dictionary = self.0.get(..last_offset(self.0)?)?;
        let width = offset_width(dictionary.len());
        let table = last_offset(dictionary)?;
        let mut start = 0_usize;
        for end in dictionary.get(table..)?.chunks_exact(width).map(number) {
            let entry = dictionary.get(start.next_multiple_of(8)..end)?;
            let key_end = last_offset(entry)?;
            let value =
                entry.get(key_end.next_multiple_of(8)..entry.len() - offset_width(entry.len()));
            if entry.get(..key_end)?.strip_suffix(b"\0") == Some(wanted.as_bytes()) {
                return std::str::from_utf8(value?.strip_suffix(b"\0\0s")?).ok();
            }
            start = end;
        }
        None
    }
}

const fn offset_width(size: usize) -> usize {
    match size {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

/// The offset that stands at the very end.
fn last_offset(bytes: &[u8]) -> Option<usize> {
    let start = bytes.len().checked_sub(offset_width(bytes.len()))?;
    Some(number(&bytes[start..])).filter(|offset| *offset <= start)
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_with_any_white_space() {
        let text = "# comment\ntitle  Tiny 1 (ostree:0)\nversion 1\noptions\troot=UUID=1 rw\noptions quiet\nlinux /boot/v\ninitrd /boot/i\n";
        let entry = boot_entry("x".to_owned(), text);
        assert_eq!(entry.title, "Tiny 1 (ostree:0)");
        assert_eq!(entry.options, "root=UUID=1 rw quiet");
        assert_eq!((entry.linux.as_str(), entry.initrd.as_deref()), ("/boot/v", Some("/boot/i")));
        assert_eq!(boot_entry(String::new(), "\0\u{1}title"), BootEntry::default());
    }

    #[test]
    fn no_bytes_of_a_commit_panic() {
        for length in 0..600 {
            for byte in [0, 1, 0x20, 0xff] {
                let bytes = vec![byte; length];
                assert_eq!(CommitMetadata(&bytes).version(), None);
            }
        }
    }

    #[test]
    fn values_of_key_files_lose_their_quotes() {
        let text = "NAME=x\nVERSION_ID=\"13\"\n";
        assert_eq!(release_version(text).as_deref(), Some("13"));
        assert_eq!(key("[origin]\nrefspec = a\nrefspec=b\n", "refspec").as_deref(), Some("b"));
    }

    #[test]
    fn a_state_that_is_none_has_no_components() {
        assert!(components(b"").is_empty() && components(b"[]").is_empty());
        let state =
            br#"{"installed":{"EFI":{"meta":{"version":"grub2-1","timestamp":"t"}},"X":3}}"#;
        assert_eq!(components(state)[0].version, "grub2-1");
        assert_eq!(components(state).len(), 2);
    }
}
