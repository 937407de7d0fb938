//! Layers → ostree repository and deployment, as a tree.
//!
//! ```text
//! layers ─unite─► Union ─commit─► Repository + Committed ─deploy─► Installed (the physical root)
//!          (union rules)   (objects, refs)        (checkout, /etc, /var, kernel, boot entry, labels)
//! ```

mod acl;
mod aleph;
mod archive;
mod boot_entry;
mod commit;
mod container;
mod deployment;
mod document;
mod etc;
mod gvariant;
mod hash;
mod import;
mod labels;
mod object;
mod refname;
mod repo;
mod sysroot;
#[cfg(test)]
mod testing;
mod union;
mod var;
mod verity;
mod volumes;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use anyhow::Result;

use crate::tree::{InodeId, Tree};

pub use aleph::record as aleph_bytes;
pub use archive::Archived;
pub use boot_entry::KernelSource;
pub use deployment::{
    Changed, ComposefsWriter, Customize, DeployOptions, FsVerity, SignaturePolicy, System, deploy,
};
pub use etc::RootSshKeys;
pub use refname::{signed_reference, unverified_reference};
pub use repo::Repository;
pub use union::{Union, unite};

/// The SHA-256 that names an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checksum(pub [u8; 32]);

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The SELinux label of an absolute path (`/usr/bin/ls`) whose `st_mode` is given, without the final NUL.
/// `None`: the policy has no label for it.
pub type Labels<'a> = dyn Fn(&str, u32) -> Result<Option<Arc<[u8]>>> + Sync + 'a;

/// A commit all of whose objects are in the repository.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Checksum of the commit object.
    pub checksum: Checksum,
    /// The tree that was committed, with the metadata (labels, too) that its objects have.
    pub tree: Tree,
    /// The content object of each regular file and symbolic link of `tree`, by inode index.
    pub objects: Vec<Option<Checksum>>,
}

/// The content objects in the physical root: regular files and symbolic links under `ostree/repo/objects`.
pub type ObjectInodes = HashMap<Checksum, InodeId>;
