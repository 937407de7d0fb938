//! Firmware: which kinds there are, and where distributions keep their images.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::architecture::Architecture;
use crate::error::BootError;

/// What runs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// UEFI: OVMF on x86, AAVMF on Arm.
    Uefi,
    /// UEFI with Secure Boot on and Microsoft's keys enrolled.
    #[serde(alias = "uefi-secure")]
    UefiSecureBoot,
    /// SeaBIOS, x86 only.
    Bios,
}

impl Firmware {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Uefi, Self::UefiSecureBoot, Self::Bios];

    /// The name on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uefi => "uefi",
            Self::UefiSecureBoot => "uefi-secure",
            Self::Bios => "bios",
        }
    }

    /// Reads [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|firmware| firmware.name() == name)
    }

    /// What people call it.
    pub const fn product(self, architecture: Architecture) -> &'static str {
        match (self, architecture) {
            (Self::Uefi, Architecture::X86_64) => "OVMF",
            (Self::Uefi, Architecture::Aarch64) => "AAVMF",
            (Self::UefiSecureBoot, Architecture::X86_64) => "OVMF with Secure Boot",
            (Self::UefiSecureBoot, Architecture::Aarch64) => "AAVMF with Secure Boot",
            (Self::Bios, _) => "SeaBIOS",
        }
    }
}

/// The two halves of UEFI in flash memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flash {
    /// Read-only code.
    pub code: PathBuf,
    /// Variables: as found a template, of which every machine gets a copy of its own.
    pub variables: PathBuf,
}

impl Flash {
    /// The disk format of both files, by the suffix distributions give them.
    pub fn format(&self) -> &'static str {
        if self.code.extension().is_some_and(|extension| extension == "qcow2") {
            "qcow2"
        } else {
            "raw"
        }
    }

    /// With a copy of the variables' template, writable and of one machine alone; one that is there already is taken as it is.
    pub(crate) fn own_variables(&self, copy: &Path) -> Result<Self, BootError> {
        if !copy.exists() {
            let doing = format!("copying {}", self.variables.display());
            // Not fs::copy, which would copy a read-only template's permissions too.
            let template = fs::read(&self.variables).map_err(BootError::io(doing.clone()))?;
            fs::write(copy, template).map_err(BootError::io(doing))?;
        }
        Ok(Self { code: self.code.clone(), variables: copy.to_owned() })
    }
}

/// Directory, code, variables; the first pair that is there wins. 4 MiB images come before 2 MiB ones, which are too small
/// for today's revocation lists.
type Place = (&'static str, &'static str, &'static str);

const OVMF: &[Place] = &[
    ("usr/share/OVMF", "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
    ("usr/share/edk2/ovmf", "OVMF_CODE_4M.qcow2", "OVMF_VARS_4M.qcow2"),
    ("usr/share/edk2/ovmf", "OVMF_CODE.fd", "OVMF_VARS.fd"),
    ("usr/share/OVMF", "OVMF_CODE.fd", "OVMF_VARS.fd"),
];

const OVMF_SECURE_BOOT: &[Place] = &[
    ("usr/share/OVMF", "OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"),
    ("usr/share/edk2/ovmf", "OVMF_CODE_4M.secboot.qcow2", "OVMF_VARS_4M.secboot.qcow2"),
    ("usr/share/edk2/ovmf", "OVMF_CODE.secboot.fd", "OVMF_VARS.secboot.fd"),
    ("usr/share/OVMF", "OVMF_CODE.secboot.fd", "OVMF_VARS.ms.fd"),
];

const AAVMF: &[Place] = &[
    ("usr/share/AAVMF", "AAVMF_CODE.fd", "AAVMF_VARS.fd"),
    ("usr/share/edk2/aarch64", "QEMU_EFI-silent-pflash.qcow2", "vars-template-pflash.qcow2"),
    ("usr/share/edk2/aarch64", "QEMU_EFI-silent-pflash.raw", "vars-template-pflash.raw"),
    ("usr/share/edk2/aarch64", "QEMU_EFI-pflash.raw", "vars-template-pflash.raw"),
];

const AAVMF_SECURE_BOOT: &[Place] = &[("usr/share/AAVMF", "AAVMF_CODE.ms.fd", "AAVMF_VARS.ms.fd")];

/// Finds the images below `root`, which is `/` but in tests. `None` for firmware that QEMU finds itself.
pub(crate) fn find(
    root: &Path,
    firmware: Firmware,
    architecture: Architecture,
) -> Result<Option<Flash>, BootError> {
    let (places, packages) = match (firmware, architecture) {
        (Firmware::Bios, _) => return Ok(None),
        (Firmware::Uefi, Architecture::X86_64) => (OVMF, "ovmf (Debian) or edk2-ovmf (Fedora)"),
        (Firmware::UefiSecureBoot, Architecture::X86_64) => {
            (OVMF_SECURE_BOOT, "ovmf (Debian) or edk2-ovmf (Fedora)")
        }
        (Firmware::Uefi, Architecture::Aarch64) => {
            (AAVMF, "qemu-efi-aarch64 (Debian) or edk2-aarch64 (Fedora)")
        }
        (Firmware::UefiSecureBoot, Architecture::Aarch64) => {
            (AAVMF_SECURE_BOOT, "qemu-efi-aarch64 (Debian)")
        }
    };
    places
        .iter()
        .map(|(directory, code, variables)| {
            let directory = root.join(directory);
            Flash { code: directory.join(code), variables: directory.join(variables) }
        })
        .find(|flash| flash.code.is_file() && flash.variables.is_file())
        .map(Some)
        .ok_or_else(|| BootError::Missing {
            what: format!("{} firmware", firmware.product(architecture)),
            packages: packages.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_counts_only_when_both_halves_are_there() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("usr/share/edk2/ovmf");
        fs::create_dir_all(&directory).unwrap();
        let find = || find(root.path(), Firmware::Uefi, Architecture::X86_64);
        fs::write(directory.join("OVMF_CODE_4M.qcow2"), "").unwrap();
        fs::write(directory.join("OVMF_CODE.fd"), "").unwrap();
        let error = find().unwrap_err().to_string();
        assert_eq!(
            error,
            "OVMF firmware was not found: install ovmf (Debian) or edk2-ovmf (Fedora)"
        );
        fs::write(directory.join("OVMF_VARS.fd"), "").unwrap();
        assert_eq!(find().unwrap().unwrap().format(), "raw");
        fs::write(directory.join("OVMF_VARS_4M.qcow2"), "").unwrap();
        assert_eq!(find().unwrap().unwrap().format(), "qcow2");
    }

    #[test]
    fn names_read_back() {
        for firmware in Firmware::ALL {
            assert_eq!(Firmware::parse(firmware.name()), Some(firmware));
        }
    }
}
