//! Layers → one tree, by the rules of composefs-rs: entries are applied in the order of the archives, nothing is renamed or left out, hard
//! links stay what they are, and a directory has the metadata of the uppermost layer that has it.
//!
//! Source: composefs-oci 0.9.4, `image.rs` and `tar.rs`.

use anyhow::{Context, Result};

use crate::error::{corrupt, unsupported};
use crate::layer::{Entry, EntryKind, Layer};
use crate::tree::{InodeId, Kind, Metadata, Tree, components};

/// Names that begin so hide the rest of the name, and `.wh..wh..opq` empties the directory that it is in.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// An image's layers, united.
#[derive(Debug)]
pub struct Union {
    /// The merged tree. Hard links are names of one inode, and times are those of the archives.
    pub root: Tree,
}

/// Unites the layers of an image, which must be all of them in their order.
///
/// `Unsupported`: an entry's directory is in no layer, which composefs-rs refuses. `Corrupt`: a hard link leads to nothing.
pub fn unite(layers: &[Layer]) -> Result<Union> {
    let mut root = Tree::new(Metadata::root(0o755));
    for (layer, number) in layers.iter().zip(1..) {
        for entry in &layer.entries {
            apply(&mut root, entry).with_context(|| {
                format!("uniting layer {number} of {}: {}", layers.len(), entry.path.escape_ascii())
            })?;
        }
    }
    Ok(Union { root })
}

fn apply(tree: &mut Tree, entry: &Entry) -> Result<()> {
    let Some((above, name)) = split(&entry.path) else {
        if entry.kind != EntryKind::Directory {
            return Err(corrupt("/", "the root is a directory and nothing else"));
        }
        set_metadata(tree, Tree::ROOT, entry);
        return Ok(());
    };
    let directory = find(tree, &above)?;
    if name == OPAQUE {
        let names: Vec<_> =
            tree.inode(directory).children().map(|(name, _)| name.clone()).collect();
        for name in &names {
            tree.unlink(directory, name);
        }
        return Ok(());
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        tree.unlink(directory, hidden);
        return Ok(());
    }
    let kind = match &entry.kind {
        EntryKind::Directory => {
            let there = tree.lookup(directory, name).filter(|id| tree.inode(*id).is_directory());
            if let Some(id) = there {
                set_metadata(tree, id, entry);
                return Ok(());
            }
            Kind::directory()
        }
        EntryKind::HardLink(target) => {
            let linked = target_of(tree, target)?;
            tree.link(directory, name, linked);
            return Ok(());
        }
        EntryKind::File(content) => Kind::File(content.clone()),
        EntryKind::Symlink(target) => Kind::Symlink(target.clone()),
        EntryKind::CharacterDevice(major, minor) => Kind::CharacterDevice(*major, *minor),
        EntryKind::BlockDevice(major, minor) => Kind::BlockDevice(*major, *minor),
        EntryKind::Fifo => Kind::Fifo,
    };
    let id = tree.create(directory, name, entry.metadata.clone(), kind);
    tree.set_nanoseconds(id, entry.nanoseconds);
    Ok(())
}

fn set_metadata(tree: &mut Tree, id: InodeId, entry: &Entry) {
    tree.inode_mut(id).metadata = entry.metadata.clone();
    tree.set_nanoseconds(id, entry.nanoseconds);
}

/// The components of the directory of a path, and its last; `None` for the root.
fn split(path: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    let mut names: Vec<&[u8]> = components(path).collect();
    let last = names.pop()?;
    Some((names, last))
}

/// A directory, without following links: composefs-rs does not.
fn find(tree: &Tree, names: &[&[u8]]) -> Result<InodeId> {
    let mut directory = Tree::ROOT;
    for name in names {
        let printed = names.join(&b'/').escape_ascii().to_string();
        let Some(id) = tree.lookup(directory, name) else {
            return Err(unsupported(
                format!(
                    "the directory {printed} is in no layer, and bootc's composefs backend does not make it"
                ),
                Some(
                    "build the image with a tool that writes directories, or with --backend ostree",
                ),
            ));
        };
        if !tree.inode(id).is_directory() {
            return Err(unsupported(
                format!(
                    "{printed} leads through something that is not a directory, and bootc's composefs backend follows no links"
                ),
                Some("write the file to where the link leads, or build with --backend ostree"),
            ));
        }
        directory = id;
    }
    Ok(directory)
}

fn target_of(tree: &Tree, target: &[u8]) -> Result<InodeId> {
    let printed = target.escape_ascii();
    let found = match split(target) {
        Some((above, name)) => tree.lookup(find(tree, &above)?, name),
        None => None,
    };
    match found {
        Some(id) if !tree.inode(id).is_directory() => Ok(id),
        Some(_) => {
            Err(corrupt(printed.to_string(), "a hard link leads to it, but it is a directory"))
        }
        None => Err(corrupt(printed.to_string(), "a hard link leads to it, but it is not there")),
    }
}
