//! One layer's entries → the tree that its layer commit holds: names moved and dropped, links resolved, whiteouts kept as files.
//!
//! ```text
//! etc/x              → usr/etc/x         run/x tmp/x dev/x proc/x sys/x → dropped (not the directories themselves)
//! usr/x var/x        → kept              anything else at the top       → kept or dropped, as the base wants it
//! ```
//!
//! Every name gets an inode of its own: ostree knows no hard links, and labels go by path.

use std::collections::HashMap;

use anyhow::{Context, Result};

use super::acl;
use crate::error::{corrupt, unsupported};
use crate::layer::{Entry, EntryKind, Layer};
use crate::tree::{Inode, InodeId, Kind, Metadata, Tree, Xattrs, components};

/// What Linux takes as a path, with its NUL. Longer ones could not be opened on the machine.
const PATH_MAX: usize = 4096;

/// Where an encapsulated image has its objects. When a container changes one, the upper layer carries the changed object and
/// hard links to it.
const REPOSITORY: &str = "sysroot/ostree/repo/";

/// The tree of a layer. `everything`: keep what is neither in `usr`, `etc` nor `var`, too.
pub(super) fn layer_tree(layer: &Layer, everything: bool) -> Result<Tree> {
    let mut import = Import {
        tree: Tree::new(Metadata::root(0o755)),
        everything,
        changed_objects: HashMap::new(),
        links: Vec::new(),
    };
    for entry in &layer.entries {
        import.take(entry).with_context(|| format!("importing {}", printable(&entry.path)))?;
    }
    import.resolve_links()
}

struct Import {
    tree: Tree,
    everything: bool,
    /// Changed objects of the base by path, until a hard link says where they belong.
    changed_objects: HashMap<String, Inode>,
    /// Hard links, path and target, in archive order; they wait until all of the layer is there.
    links: Vec<(String, String)>,
}

impl Import {
    fn take(&mut self, entry: &Entry) -> Result<()> {
        let subject = || printable(&entry.path);
        let path = normalized(&entry.path)?;
        let kind = match &entry.kind {
            EntryKind::File(content) => Kind::File(content.clone()),
            EntryKind::Directory => Kind::directory(),
            EntryKind::Symlink(target) => {
                check_target(target)?;
                Kind::Symlink(respelled(target).into())
            }
            EntryKind::HardLink(target) => return self.link(&path, entry, &normalized(target)?),
            EntryKind::CharacterDevice(..) => return Err(special(&subject(), "character device")),
            EntryKind::BlockDevice(..) => return Err(special(&subject(), "block device")),
            EntryKind::Fifo => return Err(special(&subject(), "named pipe")),
        };
        let is_file = matches!(kind, Kind::File(_));
        if is_file && path.starts_with(REPOSITORY) && entry.metadata.mtime > 0 {
            let metadata = tidy(&entry.metadata, &kind)?;
            self.changed_objects.insert(path, Inode { metadata, kind });
            return Ok(());
        }
        let Some(path) = self.place(path) else { return Ok(()) };
        let Some((parent, name)) = self.parent(&path, &entry.metadata)? else {
            let Kind::Directory(_) = kind else {
                return Err(corrupt(subject(), "the root is a directory and nothing else"));
            };
            self.tree.inode_mut(Tree::ROOT).metadata = tidy(&entry.metadata, &kind)?;
            return Ok(());
        };
        let metadata = tidy(&entry.metadata, &kind)?;
        self.put(parent, name, Inode { metadata, kind })
    }

    /// Names an inode, under the rules for several entries of one name: the last wins, unless one is a directory.
    fn put(&mut self, parent: InodeId, name: &[u8], inode: Inode) -> Result<()> {
        let existing = self.tree.lookup(parent, name);
        match existing.map(|id| (id, self.tree.inode(id).is_directory())) {
            Some((id, true)) if inode.is_directory() => {
                self.tree.inode_mut(id).metadata = inode.metadata;
            }
            Some((_, directory)) if directory || inode.is_directory() => {
                return Err(corrupt(
                    printable(name),
                    "the layer has it both as a directory and as something else",
                ));
            }
            _ => {
                self.tree.create(parent, name, inode.metadata, inode.kind);
            }
        }
        Ok(())
    }

    fn link(&mut self, path: &str, entry: &Entry, target: &str) -> Result<()> {
        let Some(path) = self.place(path.to_owned()) else { return Ok(()) };
        let target = if self.changed_objects.contains_key(target) {
            target.to_owned()
        } else {
            self.place(target.to_owned()).ok_or_else(|| {
                unsupported(
                    format!("the hard link leads to {target}, which ostree does not install"),
                    Some("copy the file in the Containerfile instead of linking to it"),
                )
            })?
        };
        if self.parent(&path, &entry.metadata)?.is_none() {
            return Err(corrupt("/", "the root is a directory and nothing else"));
        }
        self.links.push((path, target));
        Ok(())
    }

    /// The directory of a path, made with all above it, and the path's last component; `None` for the root.
    ///
    /// When something is missing, it and everything above it, the root too, become 0755 and belong to whom the entry belongs,
    /// whatever the layer has said about them before: that is what ostree makes of such layers.
    fn parent<'p>(
        &mut self,
        path: &'p str,
        metadata: &Metadata,
    ) -> Result<Option<(InodeId, &'p [u8])>> {
        let mut names = components(path.as_bytes());
        let Some(last) = names.next_back() else { return Ok(None) };
        let mut chain = vec![Tree::ROOT];
        let mut missing = Vec::new();
        for name in names {
            let above = chain.last().copied().expect("the root at least");
            match self.tree.lookup(above, name).filter(|_| missing.is_empty()) {
                Some(id) if self.tree.inode(id).is_directory() => chain.push(id),
                Some(_) => {
                    let name = printable(name);
                    let reason = format!("the layer has {name} as something else than a directory");
                    return Err(corrupt(path, reason));
                }
                None => missing.push(name),
            }
        }
        let mut directory = chain.last().copied().expect("the root at least");
        if !missing.is_empty() {
            let made = Metadata { uid: metadata.uid, gid: metadata.gid, ..Metadata::root(0o755) };
            for id in chain {
                self.tree.inode_mut(id).metadata = made.clone();
            }
            for name in missing {
                directory = self.tree.create(directory, name, made.clone(), Kind::directory());
            }
        }
        Ok(Some((directory, last)))
    }

    /// Where a path of the layer goes in the tree; `None`: nowhere.
    fn place(&self, path: String) -> Option<String> {
        let (first, below) = match path.split_once('/') {
            Some((first, below)) => (first, Some(below)),
            None => (path.as_str(), None),
        };
        match (first, below) {
            ("" | "usr" | "var", _) => Some(path),
            ("etc", None) => Some("usr/etc".to_owned()),
            ("etc", Some(below)) => Some(format!("usr/etc/{below}")),
            ("run" | "tmp" | "dev" | "proc" | "sys", below) => below.is_none().then_some(path),
            _ => self.everything.then_some(path),
        }
    }

    /// Gives every hard link the file that its target is now, at the end of the layer.
    fn resolve_links(mut self) -> Result<Tree> {
        let targets: HashMap<&str, &str> =
            self.links.iter().map(|(path, target)| (path.as_str(), target.as_str())).collect();
        let mut resolved = Vec::new();
        for (path, target) in &self.links {
            let inode = self
                .target(&targets, target)
                .with_context(|| format!("importing {path}, a hard link to {target}"))?;
            resolved.push((path.clone(), inode));
        }
        for (path, inode) in resolved {
            let owner = inode.metadata.clone();
            let Some((parent, name)) = self.parent(&path, &owner)? else { continue };
            self.put(parent, name, inode).with_context(|| format!("importing {path}"))?;
        }
        Ok(self.tree)
    }

    fn target(&self, targets: &HashMap<&str, &str>, target: &str) -> Result<Inode> {
        let mut end = target;
        // Links to links are rare, rings of them hostile; as many as Linux follows symbolic links.
        for _ in 0..40 {
            match targets.get(end) {
                Some(next) if *next != end => end = next,
                _ => break,
            }
        }
        if let Some(object) = self.changed_objects.get(end) {
            return Ok(object.clone());
        }
        let Some(id) = self.tree.find(end) else {
            return Err(unsupported(
                format!(
                    "the hard link leads to {end}, which is not in the same layer; bootc cannot import such a link, either"
                ),
                Some(
                    "create the link and the file in one RUN of the Containerfile, or build the image with --squash-all",
                ),
            ));
        };
        let inode = self.tree.inode(id);
        if inode.is_directory() {
            return Err(corrupt(end, "a hard link leads to it, but it is a directory"));
        }
        Ok(inode.clone())
    }
}

/// A path of the archive without leading `/`, `.` and empty components; empty for the root.
fn normalized(path: &[u8]) -> Result<String> {
    let subject = || printable(path);
    if path.is_empty() {
        return Err(corrupt("the archive", "an entry or hard link has an empty name"));
    }
    let mut normalized = String::with_capacity(path.len());
    for name in components(path) {
        let Ok(text) = std::str::from_utf8(name) else {
            return Err(unsupported(
                format!("{}: a name that is not UTF-8, which ostree cannot store", subject()),
                None,
            ));
        };
        if text == ".." {
            return Err(corrupt(subject(), "its path leads upwards"));
        }
        if name.len() > 255 {
            return Err(unsupported(format!("{}: a name of more than 255 bytes", subject()), None));
        }
        if !normalized.is_empty() {
            normalized.push('/');
        }
        normalized.push_str(text);
    }
    // A `/` goes before it, a NUL after it.
    if normalized.len() + 2 > PATH_MAX {
        return Err(unsupported(format!("{}: a path that is too long for Linux", subject()), None));
    }
    Ok(normalized)
}

fn check_target(target: &[u8]) -> Result<()> {
    if target.is_empty() {
        return Err(corrupt("a symbolic link", "its target is empty"));
    }
    if target.len() >= PATH_MAX || target.contains(&0) {
        return Err(corrupt("a symbolic link", "its target is not one that a link can have"));
    }
    if std::str::from_utf8(target).is_err() {
        return Err(unsupported(
            "a symbolic link whose target is not UTF-8, which ostree cannot store",
            None,
        ));
    }
    Ok(())
}

/// A target as the importer passes it on, which writes each layer anew: in the header of an entry it has no doubled slashes and
/// no `.` but at the beginning; a last slash stays, and `/` itself gets a second one. Targets that are too long for a header or
/// are not ASCII travel as a record, as they are.
fn respelled(target: &[u8]) -> Vec<u8> {
    if target.len() > 100 || !target.is_ascii() {
        return target.to_vec();
    }
    let absolute = target.starts_with(b"/");
    let names: Vec<&[u8]> = target
        .split(|byte| *byte == b'/')
        .enumerate()
        .filter(|(index, name)| !name.is_empty() && (*name != b"." || *index == 0))
        .map(|(_, name)| name)
        .collect();
    let mut spelled = if absolute { b"/".to_vec() } else { Vec::new() };
    spelled.extend(names.join(&b'/'));
    if target.ends_with(b"/") {
        spelled.push(b'/');
    }
    spelled
}

/// The metadata that an object of this kind can have.
fn tidy(metadata: &Metadata, kind: &Kind) -> Result<Metadata> {
    let symlink = matches!(kind, Kind::Symlink(_));
    let mut tidied = Metadata {
        // Nothing but 0777 comes back from a file system.
        mode: if symlink { 0o777 } else { metadata.mode & 0o7777 },
        mtime: 0,
        xattrs: Xattrs::NONE,
        immutable: false,
        ..*metadata
    };
    for (name, value) in metadata.xattrs.iter() {
        // ostree does not see empty values when it reads a file, so the object would not be what its name says.
        if value.is_empty() {
            continue;
        }
        let printed = String::from_utf8_lossy(name);
        let known = match printed.split_once('.') {
            Some(("user", rest)) => !symlink && !rest.is_empty(),
            Some(("security" | "trusted", rest)) => !rest.is_empty(),
            Some(("system", "posix_acl_access")) => !symlink,
            Some(("system", "posix_acl_default")) => matches!(kind, Kind::Directory(_)),
            _ => false,
        };
        if !known || name.len() > 255 {
            return Err(unsupported(
                format!("the extended attribute {printed}, which Linux does not take there"),
                None,
            ));
        }
        let list = name.starts_with(b"system.posix_acl_");
        let effect = match list.then(|| acl::effect(value)) {
            Some(None) => return Err(corrupt(printed, "it is not an access control list")),
            Some(Some(effect)) => effect,
            None => {
                tidied.xattrs.set(name, value);
                continue;
            }
        };
        if name == b"system.posix_acl_access" {
            if let Some(permissions) = effect.permissions {
                tidied.mode = tidied.mode & 0o7000 | permissions;
            }
            if effect.redundant {
                continue;
            }
        }
        if effect.permissions.is_some() {
            tidied.xattrs.set(name, value);
        }
    }
    Ok(tidied)
}

fn special(path: &str, what: &str) -> anyhow::Error {
    unsupported(
        format!("{path}: a {what}, which ostree cannot store"),
        Some("remove it from the image; systemd-tmpfiles can make it at boot"),
    )
}

fn printable(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

#[cfg(test)]
#[path = "import/tests.rs"]
mod tests;
