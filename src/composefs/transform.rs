//! The merged tree → the tree that boots: what differs between builds of one image is made alike, and everything is labelled.
//!
//! Source: composefs 0.9.4, `generic_tree.rs` (`transform_for_oci`), composefs-boot 0.9.4, `integration.rs` and `selabel.rs`.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;

use super::{ImageLabels, Union};
use crate::error::unsupported;
use crate::tree::{InodeId, Tree};

/// The attribute that holds a label.
pub(super) const SELINUX: &[u8] = b"security.selinux";

/// Which extended attributes of the layers stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Xattrs {
    /// `security.capability` alone: what bootc does.
    CapabilitiesOnly,
    /// And what begins with `user.`: a mode that composefs-rs has had since 0.9.
    WithUser,
}

impl Xattrs {
    fn keeps(self, name: &[u8]) -> bool {
        name == b"security.capability" || self == Self::WithUser && name.starts_with(b"user.")
    }
}

/// The tree that an image of the boot kind holds. `labels`: of the image's policy, if it has one.
///
/// `Unsupported`: a directory that must be there is not.
pub(super) fn boot_tree(
    union: &Union,
    labels: Option<ImageLabels<'_>>,
    xattrs: Xattrs,
) -> Result<Tree> {
    let mut tree = union.root.clone();
    let top = |tree: &Tree, name: &str| {
        let id = tree.find(name).filter(|id| tree.inode(*id).is_directory());
        id.ok_or_else(|| unsupported(format!("the image has no directory /{name}"), None))
    };
    let usr = top(&tree, "usr")?;
    tree.inode_mut(Tree::ROOT).metadata = tree.inode(usr).metadata.clone();
    let (seconds, nanoseconds) = (tree.inode(usr).metadata.mtime, tree.nanoseconds(usr));
    tree.set_nanoseconds(Tree::ROOT, nanoseconds);
    let mut emptied = vec![top(&tree, "boot")?, top(&tree, "sysroot")?];
    if tree.find("run").is_some() {
        emptied.push(top(&tree, "run")?);
    }
    for id in emptied {
        let names: Vec<_> = tree.inode(id).children().map(|(name, _)| name.clone()).collect();
        for name in &names {
            tree.unlink(id, name);
        }
        tree.inode_mut(id).metadata.mtime = seconds;
        tree.set_nanoseconds(id, nanoseconds);
    }
    let mut reached: Vec<InodeId> = tree.walk().map(|(_, id)| id).collect();
    reached.sort_unstable();
    reached.dedup();
    for id in reached {
        let kept = &mut tree.inode_mut(id).metadata.xattrs;
        let gone: Vec<Vec<u8>> = kept
            .iter()
            .filter(|(name, _)| !xattrs.keeps(name))
            .map(|(name, _)| name.to_vec())
            .collect();
        gone.iter().for_each(|name| kept.remove(name));
    }
    if let Some(labels) = labels {
        let mut labeller = Labeller { labels, given: HashMap::new() };
        labeller.directory(&mut tree, Tree::ROOT, b"/".to_vec())?;
    }
    Ok(tree)
}

struct Labeller<'a> {
    labels: ImageLabels<'a>,
    /// The label that each inode that is no directory has got.
    given: HashMap<InodeId, Option<Arc<[u8]>>>,
}

impl Labeller<'_> {
    /// Labels a directory that counts as `path`, and what is below it.
    fn directory(&mut self, tree: &mut Tree, id: InodeId, path: Vec<u8>) -> Result<()> {
        let mut stack = vec![(id, path)];
        while let Some((id, path)) = stack.pop() {
            let label = (self.labels.label)(&path, tree.inode(id).st_mode())?;
            set(tree, id, label.as_deref());
            let children: Vec<_> =
                tree.inode(id).children().map(|(name, child)| (name.clone(), child)).collect();
            let mut directories = Vec::new();
            for (name, child) in children {
                let mut below = path.clone();
                if !below.ends_with(b"/") {
                    below.push(b'/');
                }
                below.extend_from_slice(&name);
                let below = (self.labels.alias)(&below).unwrap_or(below);
                if tree.inode(child).is_directory() {
                    directories.push((child, below));
                } else {
                    self.leaf(tree, id, &name, child, &below)?;
                }
            }
            // In their order, each with all that is below it, as whoever splits hard links first does.
            stack.extend(directories.into_iter().rev());
        }
        Ok(())
    }

    /// Labels a name of an inode; if another name has got another label, this one becomes an inode of its own.
    fn leaf(
        &mut self,
        tree: &mut Tree,
        directory: InodeId,
        name: &[u8],
        id: InodeId,
        path: &[u8],
    ) -> Result<()> {
        let label = (self.labels.label)(path, tree.inode(id).st_mode())?;
        let id = match self.given.get(&id) {
            Some(before) if *before != label => {
                let (metadata, kind) =
                    (tree.inode(id).metadata.clone(), tree.inode(id).kind.clone());
                let nanoseconds = tree.nanoseconds(id);
                let copy = tree.create(directory, name, metadata, kind);
                tree.set_nanoseconds(copy, nanoseconds);
                copy
            }
            _ => id,
        };
        set(tree, id, label.as_deref());
        self.given.entry(id).or_insert(label);
        Ok(())
    }
}

fn set(tree: &mut Tree, id: InodeId, label: Option<&[u8]>) {
    let xattrs = &mut tree.inode_mut(id).metadata.xattrs;
    match label {
        Some(label) => xattrs.set(SELINUX, label),
        None => xattrs.remove(SELINUX),
    }
}
