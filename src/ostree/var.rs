//! `/var` of a stateroot: what the commit has in `/var`, once; machines keep it from then on.

use anyhow::Result;

use super::labels::{Labeller, Style};
use super::sysroot::copy_below;
use crate::content::Content;
use crate::tree::{InodeId, Kind, Metadata, Tree};

/// Without it the next deployment would label all of `/var` again.
const STAMP: &[u8] = b".ostree-selabeled";

/// What old systems expect, whose systemd-tmpfiles does not make it.
const SKELETON: [(&[u8], u16); 3] = [(b"tmp", 0o1777), (b"lib", 0o755), (b"log", 0o755)];
const SKELETON_LINKS: [(&[u8], &[u8]); 2] = [(b"run", b"../run"), (b"lock", b"../run/lock")];

/// Fills the empty directory `var` from the checkout `deployment`.
pub(super) fn prepare(
    root: &mut Tree,
    var: InodeId,
    deployment: InodeId,
    labeller: Labeller<'_>,
) -> Result<()> {
    if let Some(source) = root.lookup(deployment, b"var") {
        copy_below(root, source, var);
    }
    root.unlink(var, b".updated");
    if !has_tmpfiles(root, deployment) {
        add_skeleton(root, var);
    }
    labeller.set_below(root, var, "/var", Style::Ostree)?;
    let stamp = root.create(var, STAMP, Metadata::root(0o644), Kind::File(Content::EMPTY));
    // Where SELinux is off while it installs, the real one leaves the label of the place in the physical root on it.
    labeller.set(root, stamp, b"/var/.ostree-selabeled", Style::Ostree)
}

fn has_tmpfiles(root: &Tree, deployment: InodeId) -> bool {
    [&b"usr"[..], b"lib", b"tmpfiles.d"]
        .into_iter()
        .try_fold(deployment, |directory, name| root.lookup(directory, name))
        .is_some()
}

fn add_skeleton(root: &mut Tree, var: InodeId) {
    for (name, mode) in SKELETON {
        if root.lookup(var, name).is_none() {
            root.create(var, name, Metadata::root(mode), Kind::directory());
        }
    }
    for (name, target) in SKELETON_LINKS {
        if root.lookup(var, name).is_none() {
            root.create(var, name, Metadata::root(0o777), Kind::Symlink(target.into()));
        }
    }
}
