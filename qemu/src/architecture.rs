//! The kinds of processor that can be booted.

use serde::{Deserialize, Serialize};

/// An architecture that can be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// PC, chip set Q35.
    #[serde(rename = "x86_64")]
    X86_64,
    /// Arm, QEMU's `virt` board.
    #[serde(rename = "aarch64")]
    Aarch64,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The name that `uname -m` and QEMU's program names use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Reads [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.name() == name)
    }

    /// This machine's, if it is one of them.
    pub fn host() -> Option<Self> {
        Self::parse(std::env::consts::ARCH)
    }
}
