//! What executes the guest's instructions, and what the caller wants to execute them.

use std::time::Duration;

use serde::Serialize;

use crate::architecture::Architecture;

/// What executes the guest's instructions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "name")]
pub enum Accelerator {
    /// The host's processor.
    Kvm,
    /// QEMU's translator, ten times slower.
    Tcg {
        /// Why not KVM.
        why: String,
    },
}

/// What the caller wants to execute the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acceleration {
    /// KVM where a trial shows that it works, else TCG. A boot that the host breaks under KVM is tried once more under TCG.
    #[default]
    Auto,
    /// KVM, whatever comes of it.
    Kvm,
    /// TCG.
    Tcg,
}

impl Acceleration {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Kvm, Self::Tcg];

    /// The name on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// Reads [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|wish| wish.name() == name)
    }
}

impl Accelerator {
    /// `kvm` or `tcg`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg { .. } => "tcg",
        }
    }

    /// The value of `-accel`. x86 has one processor under TCG (see `Machine::cpus_under`), but a thread of its own for it: the
    /// thread that takes turns among processors (`thread=single`) wakes up for each other's sake even where there is one, which
    /// was a fifth of a boot's processor time.
    pub(crate) fn qemu(&self, architecture: Architecture) -> &'static str {
        match (self, architecture) {
            (Self::Kvm, _) => "kvm",
            (Self::Tcg { .. }, Architecture::X86_64) => "tcg,thread=multi",
            (Self::Tcg { .. }, Architecture::Aarch64) => "tcg",
        }
    }

    /// The value of `-cpu`. Under KVM only `host`: a named model silently loses what KVM cannot offer, down to less than
    /// distributions are compiled for. Emulated Arm is cortex-a57, since `max` takes three times as long.
    pub(crate) fn cpu(&self, architecture: Architecture) -> &'static str {
        match (self, architecture) {
            (Self::Kvm, _) => "host",
            (Self::Tcg { .. }, Architecture::X86_64) => "max",
            (Self::Tcg { .. }, Architecture::Aarch64) => "cortex-a57",
        }
    }

    /// How long a boot may take, unless the caller knows better: time in which the host lets the guest run.
    pub fn time_limit(&self) -> Duration {
        match self {
            Self::Kvm => Duration::from_secs(300),
            Self::Tcg { .. } => Duration::from_secs(600),
        }
    }

    /// How long firmware may take to its first sign of life. OVMF needs one second under KVM, and six under TCG.
    pub(crate) fn firmware_limit(&self) -> Duration {
        match self {
            Self::Kvm => Duration::from_secs(7),
            Self::Tcg { .. } => Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for wish in Acceleration::ALL {
            assert_eq!(Acceleration::parse(wish.name()), Some(wish));
        }
    }
}
