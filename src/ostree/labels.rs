//! SELinux labels of what a deployment adds to its commit.
//!
//! ostree writes the final NUL of a label into the attribute, bootc leaves it away; the kernel takes both. We write what the
//! tool that would have written the file writes, so that the two can be compared byte by byte.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::Labels;
use crate::error::corrupt;
use crate::tree::{InodeId, Tree};

/// The attribute that holds a label.
pub(super) const SELINUX: &[u8] = b"security.selinux";

/// The label of an absolute path, without the final NUL, by libostree's rule: `/proc` has the label of `/mnt`.
///
/// Policies leave `/proc` without a label of its own, since what is mounted there labels itself. But on the disk it is a
/// directory of the root, and on one without a label nothing may be mounted.
pub(super) fn lookup(labels: &Labels<'_>, path: &str, st_mode: u32) -> Result<Option<Arc<[u8]>>> {
    let asked = if path == "/proc" { "/mnt" } else { path };
    labels(asked, st_mode).with_context(|| format!("labelling {path}"))
}

/// Who labels: it decides about the final NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// With a final NUL.
    Ostree,
    /// Without.
    Bootc,
}

/// Labels inodes by a path and by what they are; does nothing when the image has no policy.
#[derive(Clone, Copy)]
pub(super) struct Labeller<'a>(pub(super) Option<&'a Labels<'a>>);

impl Labeller<'_> {
    /// Whether there is a policy.
    pub(super) fn is_enabled(self) -> bool {
        self.0.is_some()
    }

    /// Gives an inode the label of an absolute path; if the policy has none, the inode keeps what it has.
    pub(super) fn set(self, tree: &mut Tree, id: InodeId, path: &[u8], style: Style) -> Result<()> {
        let st_mode = tree.inode(id).st_mode();
        self.set_as(tree, id, path, st_mode, style)
    }

    /// Gives an inode the label that something else, of that `st_mode`, would have at the path.
    pub(super) fn set_as(
        self,
        tree: &mut Tree,
        id: InodeId,
        path: &[u8],
        st_mode: u32,
        style: Style,
    ) -> Result<()> {
        let Some(labels) = self.0 else { return Ok(()) };
        let path = std::str::from_utf8(path)
            .map_err(|_| corrupt(path.escape_ascii().to_string(), "its name is not UTF-8"))?;
        if let Some(label) = lookup(labels, path, st_mode)? {
            let mut value = label.to_vec();
            if style == Style::Ostree {
                value.push(0);
            }
            tree.inode_mut(id).metadata.xattrs.set(SELINUX, &value);
        }
        Ok(())
    }

    /// Gives a directory and everything below it the labels of `path` and what is below that, as `restorecon -R` would.
    pub(super) fn set_below(
        self,
        tree: &mut Tree,
        directory: InodeId,
        path: &str,
        style: Style,
    ) -> Result<()> {
        if !self.is_enabled() {
            return Ok(());
        }
        for (below, id) in walk_below(tree, directory, path, |_| true) {
            self.set(tree, id, &below, style)?;
        }
        Ok(())
    }

    /// The last pass of an installation: labels what has no label yet, by its path in the physical root, of which `tree` is the
    /// part at `path`. What `keep` says yes to is left alone: an object's attributes are part of its checksum.
    pub(super) fn complete(
        self,
        tree: &mut Tree,
        path: &str,
        keep: impl Fn(InodeId) -> bool,
    ) -> Result<()> {
        if !self.is_enabled() {
            return Ok(());
        }
        let unlabelled = |id| tree.inode(id).metadata.xattrs.get(SELINUX).is_none();
        for (below, id) in walk_below(tree, Tree::ROOT, path, |id| unlabelled(id) && !keep(id)) {
            self.set(tree, id, &below, Style::Bootc)?;
        }
        Ok(())
    }
}

/// A directory and what is below it, as far as it is wanted, with absolute paths if the directory is at `path` (`/` or `/etc`).
fn walk_below(
    tree: &Tree,
    directory: InodeId,
    path: &str,
    wanted: impl Fn(InodeId) -> bool,
) -> Vec<(Vec<u8>, InodeId)> {
    let stem = path.trim_end_matches('/').as_bytes();
    tree.walk_from(directory)
        .filter(|(_, id)| wanted(*id))
        .map(|(below, id)| {
            if below.is_empty() {
                (path.as_bytes().to_vec(), id)
            } else {
                ([stem, &below].join(&b'/'), id)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::tree::{Kind, Metadata};

    fn by_path(path: &str, mode: u32) -> Result<Option<Arc<[u8]>>> {
        let label = format!("{path}:{mode:o}");
        Ok((!path.contains("none")).then(|| label.into_bytes().into()))
    }

    fn label(tree: &Tree, path: &str) -> Option<String> {
        let xattrs = &tree.inode(tree.find(path).unwrap()).metadata.xattrs;
        Some(String::from_utf8(xattrs.get(SELINUX)?.to_vec()).unwrap())
    }

    #[test]
    fn labels_are_of_the_path_in_the_running_system() {
        let mut tree = Tree::new(Metadata::root(0o755));
        let etc = tree.make_directories("deploy/etc", &Metadata::root(0o755));
        tree.create(etc, b"fstab", Metadata::root(0o644), Kind::File(Content::EMPTY));
        tree.create(etc, b"none", Metadata::root(0o644), Kind::File(Content::EMPTY));
        let labeller = Labeller(Some(&by_path));
        labeller.set_below(&mut tree, etc, "/etc", Style::Ostree).unwrap();
        assert_eq!(label(&tree, "deploy/etc").unwrap(), "/etc:40755\0");
        assert_eq!(label(&tree, "deploy/etc/fstab").unwrap(), "/etc/fstab:100644\0");
        assert_eq!(label(&tree, "deploy/etc/none"), None);
        let kept = tree.find("deploy").unwrap();
        labeller.complete(&mut tree, "/", |id| id == kept).unwrap();
        assert_eq!(label(&tree, "").unwrap(), "/:40755");
        assert_eq!(label(&tree, "deploy"), None);
        assert_eq!(label(&tree, "deploy/etc").unwrap(), "/etc:40755\0");
    }

    #[test]
    fn proc_is_labelled_as_mnt() {
        let asked = |path| lookup(&by_path, path, 0o040_755).unwrap().unwrap().to_vec();
        assert_eq!(asked("/proc"), b"/mnt:40755");
        assert_eq!(asked("/proc/1"), b"/proc/1:40755");
        assert_eq!(asked("/usr/proc"), b"/usr/proc:40755");
    }

    #[test]
    fn without_a_policy_nothing_happens() {
        let mut tree = Tree::new(Metadata::root(0o755));
        Labeller(None).complete(&mut tree, "/", |_| false).unwrap();
        assert_eq!(label(&tree, ""), None);
    }
}
