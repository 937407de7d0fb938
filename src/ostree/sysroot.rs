//! The physical root: what is on the root file system, and at run time under `/sysroot`.
//!
//! ```text
//! .bootc-aleph.json
//! boot/                                  or a file system of its own
//!   boot -> .    loader -> loader.1    loader.1/entries/ostree-1.conf
//!   ostree/default-BOOTCSUM/{vmlinuz,initramfs}-VERSION…
//! ostree/
//!   boot.1 -> boot.1.1
//!   boot.1.1/default/BOOTCSUM/0 -> ../../../deploy/default/deploy/COMMIT.0
//!   repo/…
//!   bootc/
//!   deploy/default/
//!     deploy/COMMIT.0/     deploy/COMMIT.0.origin
//!     backing/COMMIT.0/root-transient/{upper,work}
//!     var/
//! ```

use anyhow::{Context, Result};

use super::Checksum;
use crate::content::ContentStore;
use crate::tree::{InodeId, Kind, Metadata, Tree};

/// The names of one deployment.
#[derive(Clone, Debug)]
pub(super) struct Names<'a> {
    /// The stateroot.
    pub(super) stateroot: &'a str,
    /// `COMMIT.0`: the serial is 0 for the first deployment of a commit.
    pub(super) deployment: String,
}

/// The directories of the physical root that a deployment fills.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skeleton {
    pub(super) ostree: InodeId,
    /// `ostree/deploy/NAME/deploy`.
    pub(super) deploy: InodeId,
    /// `ostree/deploy/NAME/var`.
    pub(super) var: InodeId,
    /// `ostree/deploy/NAME/backing`.
    pub(super) backing: InodeId,
    /// The mount point or the directory.
    pub(super) boot: InodeId,
}

impl Skeleton {
    pub(super) fn make(root: &mut Tree, stateroot: &str) -> Self {
        let plain = Metadata::root(0o755);
        let boot = root.make_directories("boot", &plain);
        let ostree = root.make_directories("ostree", &plain);
        // bootc keeps application images below this. It makes the store itself when there is none; its update watch wants
        // the directory.
        root.make_directories("ostree/bootc", &plain);
        // libostree takes this directory's time for the version of what it has loaded, and 0 for nothing loaded yet: a
        // sysroot of that time it never reads.
        root.make_directories("ostree/deploy", &Metadata { mtime: 1, ..plain.clone() });
        let os = root.make_directories(&format!("ostree/deploy/{stateroot}"), &plain);
        Self {
            ostree,
            deploy: root.create(os, b"deploy", plain.clone(), Kind::directory()),
            var: root.create(os, b"var", plain, Kind::directory()),
            backing: root.create(os, b"backing", Metadata::root(0o700), Kind::directory()),
            boot,
        }
    }
}

/// Makes the directories that a transient root would write to; `upper` shows through, so it has the deployment's own mode.
pub(super) fn make_backing(
    root: &mut Tree,
    backing: InodeId,
    names: &Names<'_>,
    deployment_mode: u16,
) {
    let private = Metadata::root(0o700);
    let own = root.create(backing, names.deployment.as_bytes(), private.clone(), Kind::directory());
    let transient = root.create(own, b"root-transient", private.clone(), Kind::directory());
    root.create(transient, b"work", private, Kind::directory());
    root.create(transient, b"upper", Metadata::root(deployment_mode), Kind::directory());
}

/// Makes the links that lead from the command line's `ostree=` to the deployment: boot version 1, sub-version 1.
pub(super) fn make_boot_links(
    root: &mut Tree,
    ostree: InodeId,
    names: &Names<'_>,
    bootcsum: &Checksum,
) {
    let plain = Metadata::root(0o755);
    let stateroot = names.stateroot;
    make_link(root, ostree, b"boot.1", "boot.1.1");
    let own = root.make_directories(&format!("ostree/boot.1.1/{stateroot}/{bootcsum}"), &plain);
    let target = format!("../../../deploy/{stateroot}/deploy/{}", names.deployment);
    make_link(root, own, b"0", &target);
}

pub(super) fn make_link(tree: &mut Tree, directory: InodeId, name: &[u8], target: &str) {
    tree.create(directory, name, Metadata::root(0o777), Kind::Symlink(target.as_bytes().into()));
}

/// Writes a small file, 0644 root, replacing what had the name.
pub(super) fn write_file(
    tree: &mut Tree,
    directory: InodeId,
    name: &[u8],
    bytes: &[u8],
    contents: &ContentStore,
) -> Result<InodeId> {
    let content =
        contents.insert_bytes(bytes).with_context(|| format!("writing {}", name.escape_ascii()))?;
    Ok(tree.create(directory, name, Metadata::root(0o644), Kind::File(content)))
}

/// Metadata of a copy: the time of a copy would be now, and we have no now.
pub(super) fn without_time(metadata: &Metadata) -> Metadata {
    Metadata { mtime: 0, immutable: false, ..metadata.clone() }
}

/// Copies what is below one directory into another of the same tree; every copy is an inode of its own. A directory that is
/// there already keeps its metadata.
pub(super) fn copy_below(tree: &mut Tree, from: InodeId, into: InodeId) {
    let mut stack = vec![(from, into)];
    while let Some((from, into)) = stack.pop() {
        let children: Vec<_> =
            tree.inode(from).children().map(|(name, id)| (name.clone(), id)).collect();
        for (name, id) in children {
            let inode = tree.inode(id);
            let metadata = without_time(&inode.metadata);
            if !inode.is_directory() {
                let kind = inode.kind.clone();
                tree.create(into, &name, metadata, kind);
                continue;
            }
            let there = tree.lookup(into, &name).filter(|&id| tree.inode(id).is_directory());
            let copy =
                there.unwrap_or_else(|| tree.create(into, &name, metadata, Kind::directory()));
            stack.push((id, copy));
        }
    }
}
