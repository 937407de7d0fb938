//! Directories of a system that become volumes of their own: what is in them moves there.

use std::collections::HashMap;

use anyhow::Result;

use super::deployment::System;
use super::labels::{Labeller, Style};
use crate::error::unsupported;
use crate::installed::MountedTree;
use crate::tree::{InodeId, Kind, Metadata, Tree, components};

/// Takes the content out of each directory. What is left is an empty mount point.
///
/// A directory of the image outside `/var` keeps its content, which the volume gets a copy of: it belongs to the commit.
pub(super) fn take(
    root: &mut Tree,
    system: System,
    paths: &[String],
    labeller: Labeller<'_>,
) -> Result<Vec<MountedTree>> {
    let mut volumes: Vec<Option<Tree>> = vec![None; paths.len()];
    // The innermost first: what is mounted inside of another volume is not a part of that.
    let mut order: Vec<usize> = (0..paths.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(paths[index].len()));
    for index in order {
        let path = &paths[index];
        let Some((directory, movable)) = find(root, system, path) else {
            return Err(unsupported(format!("there is no directory {path} to mount at"), None));
        };
        let mut volume = copy(root, directory);
        if movable {
            let names: Vec<_> =
                root.inode(directory).children().map(|(name, _)| name.clone()).collect();
            for name in names {
                root.unlink(directory, &name);
            }
        }
        if labeller.is_enabled() {
            // Its formatter makes one where there is none, but without a label.
            let found =
                volume.create(Tree::ROOT, b"lost+found", Metadata::root(0o700), Kind::directory());
            labeller.set(
                &mut volume,
                found,
                format!("{path}/lost+found").as_bytes(),
                Style::Bootc,
            )?;
        }
        volumes[index] = Some(volume);
    }
    let taken = paths.iter().cloned().zip(volumes.into_iter().flatten());
    Ok(taken.map(|(path, tree)| MountedTree { path, tree }).collect())
}

/// The directory of a path, and whether it is the machine's.
fn find(root: &Tree, system: System, path: &str) -> Option<(InodeId, bool)> {
    let mut names = components(path.as_bytes());
    let first = names.next()?;
    let (start, movable) = match first {
        b"var" => (system.var, true),
        name => (root.lookup(system.deployment, name)?, false),
    };
    let found = names.try_fold(start, |directory, name| root.lookup(directory, name))?;
    root.inode(found).is_directory().then_some((found, movable))
}

/// What is in a directory, as a tree of its own, whose root is like that directory.
fn copy(tree: &Tree, directory: InodeId) -> Tree {
    let mut copy =
        Tree::new(Metadata { immutable: false, ..tree.inode(directory).metadata.clone() });
    let mut copies: HashMap<InodeId, InodeId> = HashMap::new();
    let mut stack = vec![(directory, Tree::ROOT)];
    while let Some((from, into)) = stack.pop() {
        for (name, id) in tree.inode(from).children() {
            let inode = tree.inode(id);
            if inode.is_directory() {
                let made = copy.create(into, name, inode.metadata.clone(), Kind::directory());
                stack.push((id, made));
                continue;
            }
            let made = *copies
                .entry(id)
                .or_insert_with(|| copy.add(inode.metadata.clone(), inode.kind.clone()));
            copy.link(into, name, made);
        }
    }
    copy
}
