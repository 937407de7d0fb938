//! The places on the way of a boot, and when it came by.

use std::fmt;

use serde::{Deserialize, Serialize};

use Milestone::{Bootloader, Firmware, Initramfs, Kernel, Nothing, Running, Userspace};

/// A place on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Milestone {
    /// Not even firmware spoke.
    Nothing,
    /// OVMF, AAVMF or SeaBIOS spoke.
    Firmware,
    /// Firmware started a boot loader, or a boot loader spoke.
    Bootloader,
    /// The kernel spoke, or its EFI stub.
    Kernel,
    /// The initial RAM file system's programs run.
    Initramfs,
    /// The installed system's programs run.
    Userspace,
    /// The system is up.
    Running,
}

impl Milestone {
    /// All milestones, in the order in which a boot reaches them.
    pub const ALL: [Self; 6] = [Firmware, Bootloader, Kernel, Initramfs, Userspace, Running];

    /// A noun, for sentences and progress lines.
    pub const fn name(self) -> &'static str {
        match self {
            Nothing => "nothing",
            Firmware => "firmware",
            Bootloader => "boot loader",
            Kernel => "kernel",
            Initramfs => "initramfs",
            Userspace => "user space",
            Running => "running",
        }
    }
}

impl fmt::Display for Milestone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A milestone and when it was reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reached {
    /// The milestone.
    pub milestone: Milestone,
    /// Since power-on.
    pub seconds: f64,
}

/// What a boot tells while it goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// The boot has reached a milestone.
    Reached(Reached),
    /// This machine broke the boot under KVM, for this reason: it begins again under TCG.
    Again(String),
}
