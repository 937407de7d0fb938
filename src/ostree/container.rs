//! Images that carry an ostree commit in their layers ("encapsulated"): its objects, each under its checksum.
//!
//! ```text
//! sysroot/ostree/repo/objects/xx/yyyy….commit .commitmeta .dirtree .dirmeta       commit layer (the first)
//!                             xx/yyyy….file-xattrs        a list of xattrs, by its own checksum
//!                             xx/yyyy….file-xattrs-link   the list of the next .file: its bytes, or a link to the above
//!                             xx/yyyy….file               owner and mode from the archive
//! sysroot/ostree/repo/xattrs/zzzz…                        older images: a list of xattrs
//!                     objects/xx/yyyy….file.xattrs        older images: a link to the list of yyyy
//! ```
//!
//! Everything else in these layers is the same files again, for container engines to run.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result};

use super::Checksum;
use super::object::{self, DirTree, MetadataKind};
use crate::content::{Content, ContentStore};
use crate::error::{corrupt, unsupported};
use crate::image::Image;
use crate::layer::{Entry, EntryKind, Layer};
use crate::tree::{Inode, Kind, Metadata, Tree, Xattrs, components};

/// Larger metadata objects the importer does not take, either.
const METADATA_LIMIT: u64 = 10 << 20;

/// More names than any image has (large ones have 300,000). Trees name trees by checksum, so a few small objects can describe
/// an endless one.
const NAMES_LIMIT: usize = 3_000_000;

/// The label with the diff id of the last layer that belongs to the commit.
const FINAL_DIFF_ID: &str = "ostree.final-diffid";

/// The label with the commit's checksum.
const COMMIT: &str = "ostree.commit";

/// The commit in an image, and all objects that came with it.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) commit: Checksum,
    pub(super) metadata: BTreeMap<(Checksum, MetadataKind), Vec<u8>>,
    /// Content objects under the checksums that the image claims; not verified yet.
    pub(super) files: BTreeMap<Checksum, Inode>,
    /// For each layer the content objects in it; `None` for the commit layer.
    pub(super) chunks: Vec<Option<BTreeSet<Checksum>>>,
}

/// How many of the layers hold the objects of an ostree commit; 0 for a plain image.
pub(super) fn encapsulated(image: &Image, layers: &[Layer]) -> Result<usize> {
    let Some(last) = image.label(FINAL_DIFF_ID) else { return Ok(0) };
    match layers.iter().position(|layer| layer.diff_id == last) {
        Some(index) => Ok(index + 1),
        None => Err(unsupported(
            format!(
                "the image's label {FINAL_DIFF_ID} names {last:?}, but none of its layers is that"
            ),
            Some(
                "its layers were squashed or rewritten after they were made from an ostree commit; \
                 rebuild it without squashing, or remove the label (podman build --unsetlabel)",
            ),
        )),
    }
}

/// Whether the base wants layers to have content beside `/usr`, `/etc` and `/var`: when its root is composefs or transient.
pub(super) fn keeps_top_level(base: &Tree, contents: &ContentStore) -> Result<bool> {
    const CONFIG: &str = "usr/lib/ostree/prepare-root.conf";
    let Some(content) = base.file(CONFIG) else { return Ok(false) };
    if content.size > METADATA_LIMIT {
        return Err(corrupt(CONFIG, "it is too long for a configuration"));
    }
    let text = contents.bytes(content).with_context(|| format!("reading {CONFIG}"))?;
    let (mut group, mut composefs, mut transient) = (String::new(), false, false);
    for line in String::from_utf8_lossy(&text).lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut group);
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = value.trim();
        let on = matches!(value, "yes" | "true" | "1");
        match (group.as_str(), key.trim()) {
            ("composefs", "enabled") => {
                composefs = on || matches!(value, "signed" | "verity" | "maybe");
            }
            ("root", "transient") => transient = on,
            _ => {}
        }
    }
    Ok(composefs || transient)
}

impl Base {
    /// Reads the objects from the layers that hold them, the commit layer first.
    pub(super) fn read(image: &Image, layers: &[Layer], contents: &ContentStore) -> Result<Self> {
        let (mut metadata, mut files) = (BTreeMap::new(), BTreeMap::new());
        let (mut chunks, mut commit) = (Vec::new(), None);
        for (index, layer) in layers.iter().enumerate() {
            let objects = Objects::read(layer, contents, index == 0)
                .with_context(|| format!("reading layer {}", index + 1))?;
            commit = commit.or(objects.commit);
            chunks.push((index > 0).then(|| objects.files.keys().copied().collect()));
            metadata.extend(objects.metadata);
            files.extend(objects.files);
        }
        let commit = commit.ok_or_else(|| {
            corrupt("the first layer", "it should hold an ostree commit, and does not")
        })?;
        if let Some(label) = image.label(COMMIT)
            && label != commit.to_string()
        {
            let reason = format!("it names {label}, but the commit in the image is {commit}");
            return Err(corrupt(format!("label {COMMIT}"), reason));
        }
        Ok(Self { commit, metadata, files, chunks })
    }

    /// The tree of the commit.
    pub(super) fn tree(&self) -> Result<Tree> {
        self.tree_within(NAMES_LIMIT)
    }

    fn tree_within(&self, limit: usize) -> Result<Tree> {
        let commit = self.metadata(self.commit, MetadataKind::Commit)?;
        let root = object::parse_commit(commit)
            .ok_or_else(|| corrupt(format!("{}.commit", self.commit), "it is not a commit"))?;
        let mut tree = Tree::new(self.dirmeta(root.dirmeta)?);
        let mut stack = vec![(Tree::ROOT, root.dirtree, 0)];
        while let Some((directory, dirtree, depth)) = stack.pop() {
            let listing = DirTree::parse(self.metadata(dirtree, MetadataKind::DirTree)?)
                .ok_or_else(|| {
                    corrupt(format!("{dirtree}.dirtree"), "it is not a directory tree")
                })?;
            for (name, checksum) in &listing.files {
                let inode = self.files.get(checksum).ok_or_else(|| missing(*checksum, "file"))?;
                let Inode { metadata, kind } = inode.clone();
                tree.create(directory, name.as_bytes(), metadata, kind);
            }
            for (name, child, dirmeta) in &listing.directories {
                // What Linux takes as a path; deeper trees could not be opened.
                let length: usize = depth + 1 + name.len();
                if length > 4096 || tree.inode_count() > limit {
                    return Err(unsupported(
                        format!(
                            "the image's commit {}: its tree is too deep or too large",
                            self.commit
                        ),
                        None,
                    ));
                }
                if tree.lookup(directory, name.as_bytes()).is_some() {
                    return Err(twice(dirtree, name));
                }
                let metadata = self.dirmeta(*dirmeta)?;
                let id = tree.create(directory, name.as_bytes(), metadata, Kind::directory());
                stack.push((id, *child, length));
            }
        }
        Ok(tree)
    }

    fn metadata(&self, checksum: Checksum, kind: MetadataKind) -> Result<&[u8]> {
        let bytes = self.metadata.get(&(checksum, kind));
        bytes.map(Vec::as_slice).ok_or_else(|| missing(checksum, kind.extension()))
    }

    fn dirmeta(&self, checksum: Checksum) -> Result<Metadata> {
        object::parse_dirmeta(self.metadata(checksum, MetadataKind::DirMeta)?).ok_or_else(|| {
            corrupt(format!("{checksum}.dirmeta"), "it is not the metadata of a directory")
        })
    }
}

fn missing(checksum: Checksum, extension: &str) -> anyhow::Error {
    corrupt(format!("{checksum}.{extension}"), "the commit needs it, and no layer has it")
}

fn twice(dirtree: Checksum, name: &str) -> anyhow::Error {
    corrupt(format!("{dirtree}.dirtree"), format!("it names {name:?} twice"))
}

/// The objects of one layer.
#[derive(Default)]
struct Objects {
    commit: Option<Checksum>,
    metadata: BTreeMap<(Checksum, MetadataKind), Vec<u8>>,
    files: BTreeMap<Checksum, Inode>,
    /// Lists of xattrs by their own checksum.
    lists: HashMap<Checksum, Xattrs>,
    /// The xattrs of content objects, announced before the objects come.
    xattrs: HashMap<Checksum, Xattrs>,
}

/// What a path in the repository of a layer names.
enum Role {
    Metadata(MetadataKind),
    File,
    XattrList,
    XattrLink,
}

impl Objects {
    fn read(layer: &Layer, contents: &ContentStore, commit_layer: bool) -> Result<Self> {
        let mut objects = Self::default();
        for entry in &layer.entries {
            if matches!(entry.kind, EntryKind::Directory) {
                continue;
            }
            let Some((checksum, role)) = role(&entry.path)? else { continue };
            let path = String::from_utf8_lossy(&entry.path);
            objects
                .take(entry, checksum, &role, contents, commit_layer)
                .with_context(|| format!("reading {path}"))?;
        }
        Ok(objects)
    }

    fn take(
        &mut self,
        entry: &Entry,
        checksum: Checksum,
        role: &Role,
        contents: &ContentStore,
        commit_layer: bool,
    ) -> Result<()> {
        match role {
            Role::Metadata(kind) => {
                self.take_metadata(entry, checksum, *kind, contents, commit_layer)?;
            }
            Role::XattrList => {
                let xattrs = list(&regular(entry, contents)?, Some(checksum))?;
                self.lists.insert(checksum, xattrs);
            }
            Role::XattrLink => {
                let xattrs = match &entry.kind {
                    EntryKind::HardLink(target) => {
                        let found = match self::role(target)? {
                            Some((list, Role::XattrList)) => self.lists.get(&list),
                            Some((other, Role::XattrLink)) => self.xattrs.get(&other),
                            _ => None,
                        };
                        found.cloned().ok_or_else(|| {
                            corrupt(checksum.to_string(), "its xattrs are a link to nothing")
                        })?
                    }
                    _ => list(&regular(entry, contents)?, None)?,
                };
                self.xattrs.insert(checksum, xattrs);
            }
            Role::File => {
                let inode = self.file(entry, checksum)?;
                self.files.insert(checksum, inode);
            }
        }
        Ok(())
    }

    fn take_metadata(
        &mut self,
        entry: &Entry,
        checksum: Checksum,
        kind: MetadataKind,
        contents: &ContentStore,
        commit_layer: bool,
    ) -> Result<()> {
        let name = || format!("{checksum}.{}", kind.extension());
        if !commit_layer {
            return Err(corrupt(name(), "only the first layer may hold metadata objects"));
        }
        let bytes = regular(entry, contents)?;
        let computed = object::checksum(&bytes);
        if kind != MetadataKind::CommitMeta && computed != checksum {
            return Err(corrupt(name(), format!("its checksum is {computed}")));
        }
        let is_commit = kind == MetadataKind::Commit;
        match self.commit {
            None if is_commit => self.commit = Some(checksum),
            None => return Err(corrupt(name(), "it comes before the commit")),
            Some(_) if is_commit => return Err(corrupt(name(), "it is a second commit")),
            Some(commit) if kind == MetadataKind::CommitMeta && commit != checksum => {
                return Err(corrupt(name(), "it belongs to another commit"));
            }
            Some(_) => {}
        }
        self.metadata.insert((checksum, kind), bytes);
        Ok(())
    }

    fn file(&self, entry: &Entry, checksum: Checksum) -> Result<Inode> {
        let no_object = |reason: &str| corrupt(format!("{checksum}.file"), reason);
        let (kind, mode) = match &entry.kind {
            EntryKind::File(content) => (Kind::File(content.clone()), entry.metadata.mode),
            EntryKind::Symlink(target) => (Kind::Symlink(target.clone()), 0o777),
            // Older images: the same file under another name.
            EntryKind::HardLink(target) => {
                let same = match role(target)? {
                    Some((other, Role::File)) => self.files.get(&other),
                    _ => None,
                };
                return same.cloned().ok_or_else(|| no_object("it is a link to nothing"));
            }
            _ => return Err(no_object("it is neither a file nor a link")),
        };
        if let Kind::Symlink(target) = &kind
            && (target.is_empty() || std::str::from_utf8(target).is_err())
        {
            return Err(no_object("its target is not UTF-8"));
        }
        let metadata = Metadata {
            uid: entry.metadata.uid,
            gid: entry.metadata.gid,
            xattrs: self.xattrs.get(&checksum).cloned().unwrap_or_default(),
            ..Metadata::root(mode)
        };
        Ok(Inode { metadata, kind })
    }
}

/// What the importer would see in a path: `None` for everything that is not an object.
fn role(path: &[u8]) -> Result<Option<(Checksum, Role)>> {
    let names: Vec<&[u8]> = components(path).collect();
    let [b"sysroot", b"ostree", b"repo", below @ ..] = names.as_slice() else { return Ok(None) };
    let wrong = || corrupt(String::from_utf8_lossy(path), "it is not a name of an object");
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| wrong());
    match below {
        [b"xattrs", name] => {
            let checksum = object::parse_checksum(text(name)?).ok_or_else(wrong)?;
            Ok(Some((checksum, Role::XattrList)))
        }
        [b"objects", first, rest] => {
            let (rest, extension) = text(rest)?.split_once('.').ok_or_else(wrong)?;
            let checksum = object::parse_checksum(&format!("{}{rest}", text(first)?))
                .filter(|_| first.len() == 2)
                .ok_or_else(wrong)?;
            let metadata = MetadataKind::ALL.into_iter().find(|k| k.extension() == extension);
            let role = match (metadata, extension) {
                (Some(kind), _) => Role::Metadata(kind),
                (_, "file") => Role::File,
                (_, "file-xattrs") => Role::XattrList,
                (_, "file-xattrs-link" | "file.xattrs") => Role::XattrLink,
                _ => return Err(wrong()),
            };
            Ok(Some((checksum, role)))
        }
        [b"objects", ..] => Err(wrong()),
        _ => Ok(None),
    }
}

/// The bytes of an entry that holds a value.
fn regular(entry: &Entry, contents: &ContentStore) -> Result<Vec<u8>> {
    let path = || String::from_utf8_lossy(&entry.path);
    let content: &Content = match &entry.kind {
        EntryKind::File(content) => content,
        _ => return Err(corrupt(path(), "it is not a regular file")),
    };
    if content.size > METADATA_LIMIT {
        return Err(corrupt(path(), "it is larger than 10 MiB"));
    }
    contents.bytes(content)
}

/// Reads a list of xattrs and checks it against its name, if it has one.
fn list(bytes: &[u8], name: Option<Checksum>) -> Result<Xattrs> {
    let computed = object::checksum(bytes);
    if name.is_some_and(|name| name != computed) {
        return Err(corrupt("a list of xattrs", format!("its checksum is {computed}")));
    }
    object::parse_xattr_list(bytes)
        .ok_or_else(|| corrupt("a list of xattrs", "it is not in normal form"))
}

#[cfg(test)]
#[path = "container/tests.rs"]
mod tests;
