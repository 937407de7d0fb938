//! A layer's entries → the directory that overlayfs stacks: whiteouts become what the kernel takes for them.
//!
//! ```text
//! .wh.x            → a character device 0:0 named x
//! .wh..wh..opq     → trusted.overlay.opaque=y on the directory
//! ```

use anyhow::{Context, Result};

use super::Found;
use crate::error::{corrupt, unsupported};
use crate::layer::{Entry, EntryKind, Layer};
use crate::tree::{InodeId, Kind, Metadata, Tree, components};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Prefix of what old union file systems kept for themselves.
const ALIEN: &[u8] = b".wh..wh.";

/// Fills the directory `diff`, whose own metadata stays unless the layer has an entry for its root.
pub(super) fn fill(tree: &mut Tree, diff: InodeId, layer: &Layer) -> Result<Found> {
    let mut found = Found::default();
    for entry in &layer.entries {
        take(tree, diff, entry, &mut found)
            .with_context(|| format!("unpacking {}", entry.path.escape_ascii()))?;
    }
    Ok(found)
}

fn take(tree: &mut Tree, diff: InodeId, entry: &Entry, found: &mut Found) -> Result<()> {
    let mut names: Vec<&[u8]> = components(&entry.path).filter(|name| *name != b".").collect();
    let Some(name) = names.pop() else {
        tree.inode_mut(diff).metadata = entry.metadata.clone();
        return Ok(());
    };
    let directory = parent(tree, diff, &names)?;
    if name == OPAQUE {
        let metadata = &mut tree.inode_mut(directory).metadata;
        metadata.xattrs.set(b"trusted.overlay.opaque", b"y");
        return Ok(());
    }
    if name.starts_with(ALIEN) {
        return Ok(());
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(corrupt("a whiteout", "it hides nothing that a directory can have"));
        }
        tree.unlink(directory, hidden);
        tree.create(directory, hidden, Metadata::root(0), Kind::CharacterDevice(0, 0));
        return Ok(());
    }
    found.uids.insert(entry.metadata.uid);
    found.gids.insert(entry.metadata.gid);
    let kind = match &entry.kind {
        EntryKind::Directory => Kind::directory(),
        EntryKind::File(content) => {
            found.size += content.size;
            Kind::File(content.clone())
        }
        EntryKind::Symlink(target) => Kind::Symlink(target.clone()),
        EntryKind::CharacterDevice(major, minor) => Kind::CharacterDevice(*major, *minor),
        EntryKind::BlockDevice(major, minor) => Kind::BlockDevice(*major, *minor),
        EntryKind::Fifo => Kind::Fifo,
        EntryKind::HardLink(target) => return link(tree, diff, directory, name, target),
    };
    if let Some(there) = tree.lookup(directory, name) {
        if tree.inode(there).is_directory() && matches!(kind, Kind::Directory(_)) {
            let mut metadata = entry.metadata.clone();
            // The mark may have come before the directory.
            if let Some(mark) = tree.inode(there).metadata.xattrs.get(b"trusted.overlay.opaque") {
                metadata.xattrs.set(b"trusted.overlay.opaque", mark);
            }
            tree.inode_mut(there).metadata = metadata;
            return Ok(());
        }
        tree.unlink(directory, name);
    }
    tree.create(directory, name, entry.metadata.clone(), kind);
    Ok(())
}

/// The directory with these names, made if the layer has not said anything about it.
fn parent(tree: &mut Tree, diff: InodeId, names: &[&[u8]]) -> Result<InodeId> {
    let mut directory = diff;
    for name in names {
        directory = match tree.lookup(directory, name) {
            Some(there) if tree.inode(there).is_directory() => there,
            Some(_) => {
                let name = name.escape_ascii();
                return Err(corrupt(
                    "the path",
                    format!("{name} in it is not a directory of this layer"),
                ));
            }
            None => tree.create(directory, name, Metadata::root(0o755), Kind::directory()),
        };
    }
    Ok(directory)
}

fn link(
    tree: &mut Tree,
    diff: InodeId,
    directory: InodeId,
    name: &[u8],
    target: &[u8],
) -> Result<()> {
    let mut at = Some(diff);
    for name in components(target).filter(|name| *name != b".") {
        at = at
            .filter(|id| tree.inode(*id).is_directory())
            .and_then(|directory| tree.lookup(directory, name));
    }
    let target = || target.escape_ascii().to_string();
    match at {
        Some(id) if !tree.inode(id).is_directory() => {
            tree.unlink(directory, name);
            tree.link(directory, name, id);
            Ok(())
        }
        Some(_) => Err(corrupt(target(), "a hard link leads to it, and it is a directory")),
        None => Err(unsupported(
            format!("a hard link to {}, which is not in the same layer", target()),
            None,
        )),
    }
}
