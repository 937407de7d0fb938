//! A machine architecture, in each of the vocabularies that name it differently.

use std::fmt;

use serde::Serialize;

use crate::error::unsupported;

/// An architecture that bootpress makes disks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// amd64, x64.
    #[serde(rename = "x86_64")]
    X86_64,
    /// arm64, aa64.
    Aarch64,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The architecture of this machine, if it is one of ours.
    pub fn host() -> Option<Self> {
        Self::parse(std::env::consts::ARCH)
    }

    /// Reads either spelling: `x86_64` or `amd64`, `aarch64` or `arm64`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| name == a.name() || name == a.oci())
    }

    /// Why there is no disk for an architecture that bootc has images for; `None`: it is ours, or nobody's.
    pub fn refusal(name: &str) -> Option<anyhow::Error> {
        let reason = match name {
            "ppc64le" | "ppc64" | "powerpc64" => {
                "its firmware starts an ELF core of GRUB in a PReP partition, which bootpress does not make"
            }
            "s390x" => {
                "its firmware follows zipl's boot map of block addresses, which bootpress does not make"
            }
            "riscv64" => {
                "its Linux roots and boot files are not laid out or tested by bootpress yet"
            }
            _ => return None,
        };
        let known = Self::ALL.map(Self::name).join(" and ");
        Some(unsupported(
            format!("no disks are made for {name}: {reason}"),
            Some(&format!("bootpress makes disks for {known}")),
        ))
    }

    /// The name in Rust, RPM, `uname -m`, `kargs.d` and on our command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The name in OCI documents: Go's.
    pub const fn oci(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The suffix of EFI file names such as `shimx64.efi` (upper case in `BOOTX64.EFI`; UEFI 2.10, section 3.5.1.1).
    pub const fn efi_suffix(self) -> &'static str {
        match self {
            Self::X86_64 => "x64",
            Self::Aarch64 => "aa64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
