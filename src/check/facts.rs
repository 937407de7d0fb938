//! What rules look at: values, whoever read them.

use std::collections::BTreeMap;

use crate::inspect::{DiskHealth, IsoHealth};
use crate::oci::{Attached, SignatureFacts};

/// What is known of what is checked.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// An image's documents, and what its registry says.
    pub image: Option<ImageFacts>,
    /// An image's files.
    pub content: Option<ContentFacts>,
    /// A disk.
    pub disk: Option<DiskHealth>,
    /// An ISO.
    pub iso: Option<IsoHealth>,
    /// Seconds since 1970, for what is judged by its age.
    pub now: i64,
}

/// An image's documents.
#[derive(Clone, Debug, Default)]
pub struct ImageFacts {
    /// `quay.io/fedora/fedora-bootc`; `None`: it has no name in a registry.
    pub repository: Option<String>,
    /// The tag that it was asked for by, or that it says it has.
    pub tag: Option<String>,
    /// Digest of the platform's manifest.
    pub digest: String,
    /// What the name means: the digest of an index, or of the manifest.
    pub top_digest: String,
    /// The platforms of the index, `linux/arm64`; `None`: there is no index.
    pub platforms: Option<Vec<String>>,
    /// `x86_64`: what the config says, as kernels spell it.
    pub architecture: String,
    /// Labels of the config.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest, and of the index where the manifest has none of that name.
    pub annotations: BTreeMap<String, String>,
    /// When the config says that it was made.
    pub created: Option<String>,
    /// The image that it was built from.
    pub parent: Parent,
    /// The tags of the repository.
    pub tags: TagFacts,
    /// What claims to be a signature; `None`: nobody could be asked.
    pub signatures: Option<Vec<SignatureFacts>>,
    /// What a signature policy or keys say.
    pub trust: TrustFacts,
    /// Attached bills of materials; `None`: nobody could be asked.
    pub sboms: Option<Vec<Attached>>,
}

/// The image that an image was built from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Parent {
    /// No annotations name one.
    #[default]
    Unnamed,
    /// A base is named, and cannot be read: its reference, and why.
    Inaccessible(String, String),
    /// Its labels.
    Known(BTreeMap<String, String>),
}

/// What a signature policy says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TrustFacts {
    /// Nobody was asked.
    #[default]
    Unasked,
    /// The image was accepted, and by whom; without a signature if that is enough.
    Accepted {
        /// Whether that took a signature.
        verified: bool,
        /// Who vouches, in words.
        by: String,
    },
    /// The image was refused, and why.
    Refused(String),
}

/// Tags of a repository.
#[derive(Clone, Debug, Default)]
pub struct TagFacts {
    /// Why they are not known.
    pub unknown: Option<String>,
    /// All of them, as far as the registry lists them.
    pub names: Vec<String>,
    /// The digests of those that the policy asks about.
    pub digests: BTreeMap<String, String>,
}

/// Which of bootc's backends an image is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// ostree: prepare-root.conf.
    #[default]
    Ostree,
    /// composefs: setup-root-conf.toml.
    Composefs,
}

/// What is known of an initramfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initramfs {
    /// Whether it has `ostree-prepare-root`; `None`: it cannot be read.
    pub ostree: Option<bool>,
    /// Whether it has bootc's `initramfs-setup`.
    pub bootc: Option<bool>,
}

/// A program that runs with the rights of another user or group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetId {
    /// Its path, without a leading `/`.
    pub path: String,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
}

/// An image's files. Lists are in the order of paths.
#[derive(Clone, Debug, Default)]
pub struct ContentFacts {
    /// Why the layers could not be read or united; the rest is then unknown.
    pub broken: Option<String>,
    /// Names in layers that are not UTF-8, escaped.
    pub bad_names: Vec<String>,
    /// Versions of kernels.
    pub kernels: Vec<String>,
    /// The initramfs beside the kernel.
    pub initramfs: Option<Initramfs>,
    /// The kernels that are unified images, below `/boot/EFI/Linux`; those carry their initramfs.
    pub unified: bool,
    /// Which backend the image is for.
    pub backend: Backend,
    /// Why the boot loader cannot be installed.
    pub boot_payload: Option<String>,
    /// What is wrong with kargs.d.
    pub kargs: Option<String>,
    /// What is wrong with the install configuration.
    pub install: Option<String>,
    /// What is wrong with prepare-root.conf or setup-root-conf.toml.
    pub root_config: Option<String>,
    /// os-release.
    pub os_release: BTreeMap<String, String>,
    /// What of /sysroot and /ostree is missing.
    pub missing_base: Vec<String>,
    /// Layers that have both /etc and /usr/etc.
    pub usr_etc: bool,
    /// Files in /boot that are no unified kernel images.
    pub boot: Vec<String>,
    /// Files in /var that no tmpfiles.d line makes.
    pub var: Vec<String>,
    /// Files in /run and /tmp.
    pub run_tmp: Vec<String>,
    /// The text of /etc/machine-id, if there is one.
    pub machine_id: Option<String>,
    /// ssh host keys.
    pub host_keys: Vec<String>,
    /// Saved random seeds.
    pub random_seeds: Vec<String>,
    /// Accounts with a password: name and what its field says, in words.
    pub passwords: Vec<(String, String)>,
    /// Set-uid and set-gid programs.
    pub set_id: Vec<SetId>,
}
