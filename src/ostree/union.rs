//! Layers → one tree, by the rules of ostree's importer.
//!
//! ```text
//! plain image          layer 0   layer 1  …  layer n        each united over what is below
//! encapsulated image   commit │ chunk … chunk │ layer … n    the commit's tree, then the layers over it
//!                             ╰ objects only ─╯
//! ```
//!
//! Inside one directory of one layer: an opaque marker first, then files, links and whiteouts in bytewise order, then
//! directories. A directory that exists keeps its mode, owner and attributes.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::Checksum;
use super::container::{self, Base};
use super::import::layer_tree;
use crate::content::ContentStore;
use crate::error::corrupt;
use crate::image::Image;
use crate::layer::Layer;
use crate::tree::{InodeId, Kind, Metadata, Tree};

/// A regular file of this name hides `NAME` of the layers below when something follows, and what it is in when it is the
/// opaque marker. (OCI image specification, "Whiteouts".)
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// An image's layers, united.
#[derive(Debug)]
pub struct Union {
    /// The merged tree: `/etc` is `/usr/etc`, every name has an inode of its own, all times are 0.
    pub root: Tree,
    pub(super) base: Option<Base>,
    pub(super) layers: Vec<Part>,
}

/// One layer and what its reference shall name.
#[derive(Debug)]
pub(super) struct Part {
    /// Digest of the blob: `sha256:…`.
    pub(super) digest: String,
    pub(super) kind: PartKind,
}

#[derive(Debug)]
pub(super) enum PartKind {
    /// The layer of the base commit: that commit.
    Commit,
    /// Content objects of the base.
    Chunk(BTreeSet<Checksum>),
    /// The layer's own tree.
    Derived(Tree),
}

/// Unites the layers of an image, which must be all of them in their order.
///
/// `Corrupt` or `Unsupported` when a layer holds what ostree's importer refuses. The content objects of an encapsulated image
/// are checked against their names later, by [`Union::commit`], where they are hashed anyway.
pub fn unite(image: &Image, layers: Vec<Layer>, contents: &ContentStore) -> Result<Union> {
    let total = layers.len();
    let encapsulated = container::encapsulated(image, &layers)?;
    let (base, mut root, everything) = if encapsulated == 0 {
        (None, Tree::new(Metadata::root(0o755)), true)
    } else {
        let base = Base::read(image, &layers[..encapsulated], contents)
            .context("reading the ostree commit in the image")?;
        let tree = base.tree().context("reading the ostree commit in the image")?;
        let everything = container::keeps_top_level(&tree, contents)?;
        (Some(base), tree, everything)
    };
    let mut chunks = base.as_ref().map(|base| base.chunks.clone()).unwrap_or_default().into_iter();
    let mut parts = Vec::with_capacity(total);
    for (index, layer) in layers.into_iter().enumerate() {
        let kind = if index >= encapsulated {
            let place = || format!("uniting layer {} of {total}", index + 1);
            let tree = layer_tree(&layer, everything).with_context(place)?;
            if index == 0 {
                // There is nothing below that could keep its own.
                root.inode_mut(Tree::ROOT).metadata = tree.inode(Tree::ROOT).metadata.clone();
            }
            apply(&mut root, &tree).with_context(place)?;
            PartKind::Derived(tree)
        } else {
            chunks.next().flatten().map_or(PartKind::Commit, PartKind::Chunk)
        };
        parts.push(Part { digest: layer.digest, kind });
    }
    clean(&mut root);
    let root = compact(&root);
    Ok(Union { root, base, layers: parts })
}

/// Unites a layer over what is there.
fn apply(root: &mut Tree, layer: &Tree) -> Result<()> {
    let mut stack = vec![(Tree::ROOT, Tree::ROOT)];
    while let Some((below, above)) = stack.pop() {
        // A link of this name empties the directory, too, and stays in it.
        let opaque = layer.lookup(above, OPAQUE).is_some_and(|id| !layer.inode(id).is_directory());
        if opaque {
            let inode = root.inode_mut(below);
            inode.kind = Kind::directory();
            inode.metadata = layer.inode(above).metadata.clone();
        }
        for (name, id) in layer.inode(above).children() {
            let inode = layer.inode(id);
            let whiteout = name.strip_prefix(WHITEOUT).filter(|_| is_file(layer, id));
            match whiteout {
                Some(b"" | b"." | b"..") => {
                    return Err(corrupt(
                        String::from_utf8_lossy(name),
                        "a whiteout that names no file",
                    ));
                }
                Some(_) if **name == *OPAQUE => {}
                Some(hidden) => {
                    root.unlink(below, hidden);
                }
                None if inode.is_directory() => {}
                None => {
                    root.create(below, name, inode.metadata.clone(), inode.kind.clone());
                }
            }
        }
        for (name, id) in layer.inode(above).children() {
            let inode = layer.inode(id);
            if inode.is_directory() {
                let existing = root.lookup(below, name).filter(|id| root.inode(*id).is_directory());
                let directory = existing.unwrap_or_else(|| {
                    root.create(below, name, inode.metadata.clone(), Kind::directory())
                });
                stack.push((directory, id));
            }
        }
    }
    Ok(())
}

fn is_file(tree: &Tree, id: InodeId) -> bool {
    matches!(tree.inode(id).kind, Kind::File(_))
}

/// Takes away the empty files over which container engines mount theirs during a build.
fn clean(root: &mut Tree) {
    let Some(etc) = root.find("usr/etc").filter(|id| root.inode(*id).is_directory()) else {
        return;
    };
    for name in [&b"hostname"[..], b"resolv.conf"] {
        let empty = root
            .lookup(etc, name)
            .is_some_and(|id| matches!(&root.inode(id).kind, Kind::File(c) if c.size == 0));
        if empty {
            root.unlink(etc, name);
        }
    }
}

/// A copy of a tree without the inodes that have lost their names.
fn compact(tree: &Tree) -> Tree {
    let mut compacted = Tree::new(tree.inode(Tree::ROOT).metadata.clone());
    let mut stack = vec![(Tree::ROOT, Tree::ROOT)];
    while let Some((old, new)) = stack.pop() {
        for (name, id) in tree.inode(old).children() {
            let inode = tree.inode(id);
            let kind = if inode.is_directory() { Kind::directory() } else { inode.kind.clone() };
            let copy = compacted.create(new, name, inode.metadata.clone(), kind);
            if inode.is_directory() {
                stack.push((id, copy));
            }
        }
    }
    compacted
}

#[cfg(test)]
#[path = "union/tests.rs"]
mod tests;
