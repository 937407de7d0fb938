//! The installed system as a configuration changes it: paths are those of the running system, whatever they are links to.
//!
//! ```text
//! /etc …  the deployment's copy, which may be changed
//! /var …  the stateroot's, likewise
//! /usr …  the commit's, which may only be read
//! ```

use anyhow::{Context, Result};

use crate::content::ContentStore;
use crate::error::{corrupt, unsupported};
use crate::tree::{InodeId, Kind, Metadata, Tree, Xattrs, components};

/// Larger files configure nothing that is changed here.
const LARGEST: u64 = 4 << 20;

/// Linux gives up after as many links.
const MOST_LINKS: usize = 40;

/// Where the parts of a system are in the tree of its disk.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The checkout.
    pub deployment: InodeId,
    /// Its `/etc`.
    pub etc: InodeId,
    /// The stateroot's `/var`.
    pub var: InodeId,
}

/// A system being changed.
pub(super) struct System<'a> {
    pub(super) tree: &'a mut Tree,
    places: Places,
    contents: &'a ContentStore,
    /// What was written, by its path in the running system; it has no label yet.
    pub(super) changed: Vec<(String, InodeId)>,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

/// Owner, group and permission bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u16,
}

impl Access {
    pub(super) const fn root(mode: u16) -> Self {
        Self { uid: 0, gid: 0, mode }
    }

    fn metadata(self) -> Metadata {
        Metadata { uid: self.uid, gid: self.gid, ..Metadata::root(self.mode) }
    }
}

/// Where a path leads.
struct Walked {
    /// Names from the root, links resolved.
    names: Vec<Box<[u8]>>,
    /// The inodes of those that exist; the root's first.
    inodes: Vec<InodeId>,
}

impl Walked {
    fn exists(&self) -> bool {
        self.inodes.len() == self.names.len() + 1
    }

    fn path(&self) -> String {
        self.names
            .iter()
            .fold(String::new(), |path, name| path + "/" + &String::from_utf8_lossy(name))
    }
}

impl<'a> System<'a> {
    pub(super) fn new(tree: &'a mut Tree, places: Places, contents: &'a ContentStore) -> Self {
        Self { tree, places, contents, changed: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    fn lookup(&self, depth: usize, directory: InodeId, name: &[u8]) -> Option<InodeId> {
        match (depth, name) {
            (0, b"etc") => Some(self.places.etc),
            (0, b"var") => Some(self.places.var),
            _ => self.tree.lookup(directory, name),
        }
    }

    /// Follows links, of the last name only if `last` says so. What does not exist ends the walk of inodes, not that of names.
    fn walk(&self, path: &str, last: bool) -> Result<Walked> {
        let mut left: Vec<Box<[u8]>> = components(path.as_bytes()).map(Into::into).rev().collect();
        let mut walked = Walked { names: Vec::new(), inodes: vec![self.places.deployment] };
        let mut links = 0;
        while let Some(name) = left.pop() {
            if &*name == b".." {
                walked.names.pop();
                walked.inodes.truncate(walked.names.len() + 1);
                continue;
            }
            let found = if walked.exists() {
                self.lookup(walked.names.len(), walked.inodes[walked.names.len()], &name)
            } else {
                None
            };
            if let Some(id) = found
                && let Kind::Symlink(target) = &self.tree.inode(id).kind
                && (last || !left.is_empty())
            {
                links += 1;
                if links > MOST_LINKS {
                    return Err(corrupt(path, "its links lead in circles"));
                }
                if target.starts_with(b"/") {
                    walked.names.clear();
                    walked.inodes.truncate(1);
                }
                left.extend(components(target).map(Box::from).rev());
                continue;
            }
            walked.names.push(name);
            walked.inodes.extend(found);
        }
        Ok(walked)
    }

    /// The path without links, whether it exists or not.
    pub(super) fn canonical(&self, path: &str) -> Result<String> {
        Ok(self.walk(path, true)?.path())
    }

    /// What a path leads to.
    pub(super) fn find(&self, path: &str) -> Option<InodeId> {
        let walked = self.walk(path, true).ok()?;
        walked.exists().then(|| walked.inodes[walked.names.len()])
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    pub(super) fn is_directory(&self, path: &str) -> bool {
        self.find(path).is_some_and(|id| self.tree.inode(id).is_directory())
    }

    /// The target of a link, if the path names one.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        let walked = self.walk(path, false).ok()?;
        let id = walked.exists().then(|| walked.inodes[walked.names.len()])?;
        match &self.tree.inode(id).kind {
            Kind::Symlink(target) => Some(String::from_utf8_lossy(target).into_owned()),
            _ => None,
        }
    }

    /// The names in a directory; none if it is none.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let Some(id) = self.find(path) else { return Vec::new() };
        let names = self.tree.inode(id).children();
        names.map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    /// The text of a regular file, if it is there.
    pub(super) fn read(&self, path: &str) -> Result<Option<String>> {
        let Some(id) = self.find(path) else { return Ok(None) };
        let Kind::File(content) = &self.tree.inode(id).kind else { return Ok(None) };
        if content.size > LARGEST {
            return Err(corrupt(path, format!("{} bytes are too many for it", content.size)));
        }
        let bytes = self.contents.bytes(content).with_context(|| format!("reading {path}"))?;
        String::from_utf8(bytes).map(Some).map_err(|_| corrupt(path, "it is not UTF-8"))
    }

    /// Owner, group and mode of what is there.
    pub(super) fn access(&self, path: &str) -> Option<Access> {
        let Metadata { uid, gid, mode, .. } = self.tree.inode(self.find(path)?).metadata;
        Some(Access { uid, gid, mode })
    }

    /// The directory that a new name goes into, and the name; what is missing above is made, root's and 0755.
    fn parent(&mut self, path: &str, last: bool) -> Result<(InodeId, Box<[u8]>, String)> {
        let mut walked = self.walk(path, last)?;
        let canonical = walked.path();
        let name = walked.names.pop().with_context(|| format!("{path} names no file"))?;
        if !matches!(walked.names.first().map(|name| &**name), Some(b"etc" | b"var")) {
            return Err(unsupported(
                format!(
                    "{path} is {canonical} in this image, which belongs to the image and not to the machine"
                ),
                Some("put it into the image, in its Containerfile"),
            ));
        }
        walked.inodes.truncate(walked.names.len() + 1);
        while walked.inodes.len() <= walked.names.len() {
            let depth = walked.inodes.len();
            let directory = self.directory_at(walked.inodes[depth - 1], path)?;
            let path = Walked { names: walked.names[..depth].to_vec(), inodes: Vec::new() }.path();
            // Root's home is nobody else's.
            let mode = if path == "/var/roothome" { 0o700 } else { 0o755 };
            let made = self.tree.create(
                directory,
                &walked.names[depth - 1],
                Metadata::root(mode),
                Kind::directory(),
            );
            self.changed.push((path, made));
            walked.inodes.push(made);
        }
        let directory = self.directory_at(walked.inodes[walked.names.len()], path)?;
        Ok((directory, name, canonical))
    }

    fn directory_at(&self, id: InodeId, path: &str) -> Result<InodeId> {
        if self.tree.inode(id).is_directory() {
            Ok(id)
        } else {
            Err(unsupported(format!("what is above {path} is not a directory in this image"), None))
        }
    }

    /// Writes a regular file in the place of what was there; links are followed, to the file that they mean.
    pub(super) fn write(&mut self, path: &str, bytes: &[u8], access: Access) -> Result<()> {
        if self.is_directory(path) {
            return Err(unsupported(
                format!("{path} is a directory in this image, not a file"),
                None,
            ));
        }
        let (directory, name, canonical) = self.parent(path, true)?;
        let content =
            self.contents.insert_bytes(bytes).with_context(|| format!("writing {path}"))?;
        let id = self.tree.create(directory, &name, access.metadata(), Kind::File(content));
        self.changed.push((canonical, id));
        Ok(())
    }

    /// Writes a file of root's: it keeps owner and mode if it is there, and is 0644 if not.
    pub(super) fn rewrite(&mut self, path: &str, text: &str) -> Result<()> {
        let access = self.access(path).unwrap_or(Access::root(0o644));
        self.write(path, text.as_bytes(), access)
    }

    /// Makes a symbolic link in the place of what was there, which must not be a directory.
    pub(super) fn make_link(&mut self, path: &str, target: &str) -> Result<()> {
        let (directory, name, canonical) = self.parent(path, false)?;
        if self.tree.lookup(directory, &name).is_some_and(|id| self.tree.inode(id).is_directory()) {
            return Err(unsupported(format!("{path} is a directory in this image"), None));
        }
        let kind = Kind::Symlink(target.as_bytes().into());
        let id = self.tree.create(directory, &name, Metadata::root(0o777), kind);
        self.changed.push((canonical, id));
        Ok(())
    }

    /// Makes a directory, or gives the one that is there this access.
    pub(super) fn make_directory(&mut self, path: &str, access: Access) -> Result<()> {
        if let Some(id) = self.find(path) {
            self.directory_at(id, &format!("{path}/"))?;
            let canonical = self.canonical(path)?;
            if !canonical.starts_with("/etc/") && !canonical.starts_with("/var") {
                return Err(unsupported(format!("{path} belongs to the image"), None));
            }
            let metadata = &mut self.tree.inode_mut(id).metadata;
            (metadata.uid, metadata.gid, metadata.mode) = (access.uid, access.gid, access.mode);
            self.changed.push((canonical, id));
            return Ok(());
        }
        let (directory, name, canonical) = self.parent(path, true)?;
        let id = self.tree.create(directory, &name, access.metadata(), Kind::directory());
        self.changed.push((canonical, id));
        Ok(())
    }

    /// Makes a directory unless there is one.
    pub(super) fn make_directory_once(&mut self, path: &str, access: Access) -> Result<()> {
        if self.is_directory(path) { Ok(()) } else { self.make_directory(path, access) }
    }

    /// Takes a name away; a link is taken, not what it leads to.
    pub(super) fn remove(&mut self, path: &str) -> Result<()> {
        let (directory, name, _) = self.parent(path, false)?;
        self.tree.unlink(directory, &name);
        Ok(())
    }

    /// Copies what is below a directory of the system to a new one, all of it with this owner.
    pub(super) fn copy_below(&mut self, from: &str, into: &str, uid: u32, gid: u32) -> Result<()> {
        let Some(from) = self.find(from) else { return Ok(()) };
        let found: Vec<_> = self.tree.walk_from(from).skip(1).collect();
        for (path, id) in found {
            let path = format!("{into}/{}", String::from_utf8_lossy(&path));
            let inode = self.tree.inode(id).clone();
            let metadata = Metadata {
                uid,
                gid,
                mtime: 0,
                xattrs: Xattrs::NONE,
                immutable: false,
                ..inode.metadata
            };
            let (directory, name, canonical) = self.parent(&path, false)?;
            let kind = if matches!(inode.kind, Kind::Directory(_)) {
                Kind::directory()
            } else {
                inode.kind
            };
            let copy = self.tree.create(directory, &name, metadata, kind);
            self.changed.push((canonical, copy));
        }
        Ok(())
    }
}
