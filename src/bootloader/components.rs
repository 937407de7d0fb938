//! Boot loaders that an image brings side by side below `/usr/lib/efi`: which of them is installed.
//!
//! bootupd 0.3 and later know three, each a package of its own. They may bring the same path: Fedora's systemd-boot is
//! `EFI/fedora/grubx64.efi`, where the shim looks for GRUB.
//!
//! ```text
//! usr/lib/efi/grub2/<evr>/EFI/…          GRUB
//! usr/lib/efi/grub-cc/<evr>/EFI/…        GRUB for confidential computing
//! usr/lib/efi/systemd-boot/<evr>/EFI/…   systemd-boot
//! usr/lib/efi/shim/<evr>/EFI/…           belongs to all of them, as does every other package
//! ```

use std::fmt;

use anyhow::Result;
use serde_json::Value;

use super::NO_BOOTLOADER;
use crate::error::{corrupt, unsupported};

/// A boot loader that bootupd installs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    /// GRUB.
    Grub,
    /// GRUB for confidential computing.
    GrubCc,
    /// systemd-boot.
    SystemdBoot,
}

impl Loader {
    const ALL: [Self; 3] = [Self::Grub, Self::GrubCc, Self::SystemdBoot];

    /// The name of its package below `/usr/lib/efi`.
    const fn package(self) -> &'static str {
        match self {
            Self::Grub => "grub2",
            Self::GrubCc => "grub-cc",
            Self::SystemdBoot => "systemd-boot",
        }
    }

    /// The boot loader that `default-bootloader` of `EFI.json` names, in the spellings that bootupd and bootc have.
    fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "grub" | "grub2" => Some(Self::Grub),
            "grub-cc" | "grubcc" | "grub_cc" => Some(Self::GrubCc),
            "systemd" | "systemd-boot" | "systemdboot" => Some(Self::SystemdBoot),
            _ => None,
        }
    }

    /// Whether a package below `/usr/lib/efi` is another boot loader, which must stay off the ESP.
    pub(super) fn excludes(self, package: &str) -> bool {
        Self::ALL.into_iter().any(|other| other != self && other.package() == package)
    }

    /// Leaves only what is installed in the `version` and `versions` of a component, as bootupd does.
    pub(super) fn filter(self, metadata: &mut Value) {
        let others = || Self::ALL.into_iter().filter(|other| *other != self).map(Self::package);
        if let Some(Value::String(version)) = metadata.get_mut("version") {
            let kept: Vec<&str> = version
                .split(',')
                .filter(|part| !others().any(|other| part.trim_start().starts_with(other)))
                .collect();
            *version = kept.join(",");
        }
        if let Some(Value::Array(versions)) = metadata.get_mut("versions") {
            versions.retain(|one| !others().any(|other| one["name"] == *other));
        }
    }
}

impl fmt::Display for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grub => "GRUB",
            Self::GrubCc => "grub-cc",
            Self::SystemdBoot => "systemd-boot",
        })
    }
}

/// Chooses by bootupd's rules: what was asked for; else what the image's `EFI.json` calls its default; else GRUB where a BIOS
/// shall start the disk, too; else the only one there is. An image without any of the packages has GRUB in its payload.
///
/// `packages`: the names below `/usr/lib/efi` that have EFI files. `on_esp`: whether boot loaders can be installed that read entries
/// from the ESP. `Unsupported`: there is no telling, or it is not GRUB and has to be.
pub(super) fn choose(
    asked: Option<Loader>,
    metadata: Option<&Value>,
    packages: &[String],
    bios: bool,
    on_esp: bool,
) -> Result<Loader> {
    const GRUB: &str = "install GRUB with --bootloader grub";
    let present: Vec<Loader> = Loader::ALL
        .into_iter()
        .filter(|loader| packages.iter().any(|package| package == loader.package()))
        .collect();
    let (chosen, because) = match (asked, default(metadata)?, present.as_slice()) {
        (Some(loader), ..) => (loader, "was asked for"),
        (None, Some(loader), _) => (loader, "is the default in the image's EFI.json"),
        (None, None, _) if bios => (Loader::Grub, "is what a BIOS needs"),
        (None, None, []) => (Loader::Grub, "is what every payload had"),
        (None, None, [only]) => (*only, "is the only one in the image"),
        (None, None, several) => {
            let names: Vec<String> = several.iter().map(Loader::to_string).collect();
            let what = format!(
                "the image has several boot loaders below /usr/lib/efi ({}), and EFI.json has no default-bootloader",
                names.join(", ")
            );
            return Err(unsupported(what, Some(GRUB)));
        }
    };
    if !present.is_empty() && !present.contains(&chosen) {
        let what = format!(
            "the boot loader {chosen} {because}, and the image lacks it: there is no usr/lib/efi/{}",
            chosen.package()
        );
        return Err(unsupported(what, Some(NO_BOOTLOADER)));
    }
    if chosen != Loader::Grub && !on_esp {
        let hint = if present.contains(&Loader::Grub) { GRUB } else { NO_BOOTLOADER };
        let what = format!(
            "the boot loader {chosen} {because}, and systems of the ostree backend are started by GRUB only"
        );
        return Err(unsupported(what, Some(hint)));
    }
    Ok(chosen)
}

/// The default that the metadata of the EFI component names.
fn default(metadata: Option<&Value>) -> Result<Option<Loader>> {
    let Some(value) = metadata.and_then(|metadata| metadata.get("default-bootloader")) else {
        return Ok(None);
    };
    if value.is_null() {
        return Ok(None);
    }
    let loader = value.as_str().and_then(Loader::parse);
    loader.map(Some).ok_or_else(|| {
        let reason =
            format!("invalid default-bootloader {value}: expected one of: grub, grub-cc, systemd");
        corrupt("usr/lib/bootupd/updates/EFI.json", reason)
    })
}
