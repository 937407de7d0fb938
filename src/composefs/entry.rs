//! Boot entries of a deployment: Boot Loader Specification, Type #1, and the menu of a GRUB that starts a unified kernel image.
//!
//! ```text
//! title Debian GNU/Linux forky/sid
//! version 43                                            of os-release; the id where it has none
//! linux /boot/bootc_composefs-ID/vmlinuz                or `uki`, `efi` and no more than that
//! initrd /boot/bootc_composefs-ID/initrd
//! options root=UUID=… rw composefs=ID …
//! sort-key bootc-debian-0
//! ```
//!
//! Source: bootc 1.17, `bootc_composefs/boot.rs`, `parsers/{bls_config,grub_menuconfig}.rs`.

use anyhow::Result;

use crate::error::corrupt;

/// What os-release says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Os {
    pub(super) id: String,
    pub(super) title: Option<String>,
    pub(super) version: Option<String>,
}

impl Os {
    /// Reads os-release; its last value of a key counts.
    pub(super) fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let mut lines =
                text.lines().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
            let value = lines.next_back()?.trim().trim_matches(['"', '\'']).replace('\\', "");
            Some(value).filter(|value| !value.is_empty())
        };
        Self {
            id: value("ID").unwrap_or_else(|| "linux".to_owned()),
            title: value("PRETTY_NAME").or_else(|| value("NAME")).or_else(|| value("ID")),
            version: value("VERSION_ID").or_else(|| value("VERSION")),
        }
    }

    /// The name of the primary entry: GRUB takes it for name, version and release, and sorts by them.
    pub(super) fn file_name(&self, id: &str) -> Result<String> {
        let version = self.version.as_deref().unwrap_or(id);
        let unfit = |text: &str| text.contains(['/', '\0', '\n']) || text.len() > 200;
        if unfit(&self.id) || unfit(version) {
            return Err(corrupt("os-release", "its ID or version cannot be part of a file name"));
        }
        Ok(format!("bootc_{}-{version}-1.conf", self.id.replace('-', "_")))
    }

    /// The entry; `what` are its lines between version and sort key.
    pub(super) fn entry(&self, id: &str, what: &[(&str, String)]) -> Result<String> {
        let title = self.title.as_deref().unwrap_or(id);
        let version = self.version.as_deref().unwrap_or(id);
        let mut lines = vec![("title", title.to_owned()), ("version", version.to_owned())];
        lines.extend_from_slice(what);
        lines.push(("sort-key", format!("bootc-{}-0", self.id)));
        if lines.iter().any(|(_, value)| value.contains(['\n', '\r', '\0'])) {
            return Err(corrupt("a boot entry", "one of its values is not of one line"));
        }
        Ok(lines.into_iter().map(|(key, value)| format!("{key} {value}\n")).collect())
    }
}

/// `efiuuid.cfg` of GRUB: how it finds the ESP.
pub(super) fn grub_esp(volume_id: u32) -> String {
    format!("set EFI_PART_UUID=\"{:04X}-{:04X}\"", volume_id >> 16, volume_id & 0xffff)
}

/// `user.cfg` of GRUB: starts a unified kernel image on the ESP.
pub(super) fn grub_menu(label: &str, id: &str) -> Result<String> {
    if label.contains(['"', '\n', '\\', '$', '\0']) {
        return Err(corrupt("os-release", "its name cannot be in a menu of GRUB"));
    }
    Ok(format!(
        r#"
if [ -f ${{config_directory}}/efiuuid.cfg ]; then
        source ${{config_directory}}/efiuuid.cfg
fi
menuentry "{label}: ({id})" {{
insmod fat
insmod chain
search --no-floppy --set=root --fs-uuid "${{EFI_PART_UUID}}"
chainloader /EFI/Linux/bootc/bootc_composefs-{id}.efi
}}
"#
    ))
}
