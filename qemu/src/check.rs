//! What is looked at in a guest, and what it is expected to be.

use serde::Serialize;

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A noun.
    pub name: &'static str,
    /// Whether it is as it must be.
    pub passed: bool,
    /// How it is.
    pub detail: String,
    /// Whether failing decides nothing, because the caller said so.
    pub tolerated: bool,
}

/// What the guest must be besides up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Digest of the manifest of the image it must have been installed from, `sha256:…`.
    pub image_digest: Option<String>,
    /// Words that must be on the kernel's command line.
    pub kernel_arguments: Vec<String>,
    /// The mode SELinux must be in; `None` for what the guest's own configuration and command line say.
    pub selinux: Option<Selinux>,
    /// Names of checks whose failing is a note and decides nothing.
    pub tolerated: Vec<String>,
}

/// A mode of SELinux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selinux {
    /// The guest refuses what its policy does not allow.
    Enforcing,
    /// The guest logs what its policy does not allow, and allows it.
    Permissive,
    /// SELinux is off.
    Disabled,
}

impl Selinux {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Enforcing, Self::Permissive, Self::Disabled];

    /// The name in `/etc/selinux/config`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforcing => "enforcing",
            Self::Permissive => "permissive",
            Self::Disabled => "disabled",
        }
    }

    /// Reads [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

impl Check {
    pub(crate) fn new(name: &'static str, passed: bool, detail: impl Into<String>) -> Self {
        Self { name, passed, detail: detail.into(), tolerated: false }
    }
}
