//! EROFS images in composefs' dialect: a tree's names and metadata, with the contents elsewhere.
//!
//! ```text
//! 0      composefs header, 32 bytes
//! 1024   super block, 128 bytes
//! 1152   inodes at multiples of 32 (nid = offset / 32), each: inode | xattr body | inline tail
//!        shared xattr entries
//!        zeros to a multiple of 4096
//!        data blocks: what did not fit into tails
//! ```
//!
//! Overlayfs stacks such an image on a directory of contents: `trusted.overlay.redirect` says which file there holds the
//! content of an inode. The bytes are those of `mkcomposefs`, formats 0 and 1, because digests of images are compared.

mod layout;
mod nodes;
mod on_disk;
mod second;
mod xattr;

#[cfg(test)]
mod tests;

use anyhow::{Context, Result};

use crate::tree::{InodeId, Kind, Metadata, Payload, Stored, Tree};

/// What besides the tree decides the bytes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Format of an image without whiteouts: 0 or 1.
    pub min_version: u8,
    /// Format of an image with whiteouts: 0 or 1. Only format 1 can show them inside the mounted image.
    pub max_version: u8,
    /// Whether names of one inode stay one inode. Without it each name has an inode of its own, with link count 1.
    pub keep_links: bool,
    /// Whether modification times stay; without it all are 0.
    pub keep_times: bool,
}

impl Options {
    /// What libostree passes for a deployment's `.ostree.cfs`: a commit knows neither times nor links.
    pub const OSTREE: Self =
        Self { min_version: 0, max_version: 1, keep_links: false, keep_times: false };

    /// What bootc's composefs repositories have since composefs 0.8, their format `v1_erofs`.
    const BOOTC: Self = Self { min_version: 1, max_version: 1, keep_links: true, keep_times: true };
}

/// The formats of bootc's composefs repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What repositories have.
    V1,
    /// What unified kernel images may name besides.
    V2,
}

/// The image of a tree, as composefs-rs makes it. `stored` says where the content of a regular file with a size above 0 is: in the
/// image, if it has at most 2048 bytes, or in the data layer.
///
/// Fails as [`composefs`] does.
pub fn bootc_image(
    tree: &Tree,
    stored: &dyn Fn(InodeId) -> Option<Stored>,
    format: Format,
) -> Result<Vec<u8>> {
    match format {
        Format::V1 => first(tree, stored, &Options::BOOTC),
        Format::V2 => second::image(tree, stored).context("laying out a composefs image"),
    }
}

/// The image of a tree. `payload` says where the content of a regular file with a size above 0 is.
///
/// Fails if such a file has no payload, or if something is too large for the format: names above 255 bytes, symbolic links
/// above 4095, extended attributes that fill an inode's 256 KiB.
pub fn composefs(
    tree: &Tree,
    payload: &dyn Fn(InodeId) -> Option<Payload>,
    options: &Options,
) -> Result<Vec<u8>> {
    assert!(options.min_version <= options.max_version && options.max_version <= 1);
    first(tree, &|id| payload(id).map(Stored::Outside), options)
}

fn first(
    tree: &Tree,
    stored: &dyn Fn(InodeId) -> Option<Stored>,
    options: &Options,
) -> Result<Vec<u8>> {
    let image = nodes::Image::of(tree, stored, options).context("laying out a composefs image")?;
    let layout = layout::Layout::of(&image).context("laying out a composefs image")?;
    Ok(layout.emit(&image))
}

/// The `.ostree.cfs` of a deployment, from the tree of its commit: mount points that the booted system needs are added
/// (0755, root's, unlabelled), times and links are left out.
pub fn ostree_image(tree: &Tree, payload: &dyn Fn(InodeId) -> Option<Payload>) -> Result<Vec<u8>> {
    let mut tree = tree.clone();
    for name in [&b"usr"[..], b"etc", b"boot", b"var", b"sysroot"] {
        if tree.lookup(Tree::ROOT, name).is_none() {
            tree.create(Tree::ROOT, name, Metadata::root(0o755), Kind::directory());
        }
    }
    composefs(&tree, payload, &Options::OSTREE)
}
