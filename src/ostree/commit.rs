//! A united image → commits: the merge commit that is deployed, and one commit for each layer.
//!
//! ```text
//! ostree/container/image/TARGET  → merge commit    parent: the base commit, if the image carries one
//! ostree/container/blob/DIGEST   → layer commit    the base commit itself, a list of a chunk's objects, or a layer's tree
//! ostree/1/1/0                   → merge commit    keeps the deployment's commit
//! ```
//!
//! With a policy, the merged tree and the layers' own trees get its labels, so that they share objects.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::hash::Jobs;
use super::object::{self, Commit, CommitRoot, DirTree, MetadataKind};
use super::repo::Repository;
use super::union::{PartKind, Union};
use super::{Checksum, Committed, Labels, document, labels, refname};
use crate::content::ContentStore;
use crate::error::corrupt;
use crate::image::Image;
use crate::progress::Progress;
use crate::tree::{Metadata, Tree, Xattrs};

/// The importer whose rules we follow; with another version here, merge commits would have other checksums than its own.
const IMPORTER_VERSION: (&str, &str) = ("ostree.importer.version", "0.15.3");

impl Union {
    /// The merged tree alone, with the labels that its commit has; nothing is hashed.
    pub fn labelled(mut self, labels: Option<&Labels<'_>>) -> Result<Tree> {
        label(&mut self.root, labels, &mut HashMap::new()).context("labelling the merged tree")?;
        Ok(self.root)
    }

    /// Hashes everything and makes the commits.
    ///
    /// `target`: the image reference that the machine updates from, as container tools print it (`docker://quay.io/x:1`).
    /// `labels`: the policy of the merged tree, if it has one; entries for which it has no label keep what they had.
    /// `Corrupt` if a content object of an encapsulated image is not what its name says.
    pub fn commit(
        mut self,
        image: &Image,
        target: &str,
        labels: Option<&Labels<'_>>,
        contents: &ContentStore,
        progress: &Progress,
    ) -> Result<(Repository, Committed)> {
        self.label(labels)?;
        let mut jobs = Jobs::default();
        let base = self.base.as_ref();
        let base_files: Vec<(Checksum, usize)> = base
            .iter()
            .flat_map(|base| &base.files)
            .map(|(checksum, inode)| (*checksum, jobs.add(inode)))
            .collect();
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|part| match &part.kind {
                PartKind::Derived(tree) => jobs.add_tree(tree),
                _ => Vec::new(),
            })
            .collect();
        let merged = jobs.add_tree(&self.root);
        let checksums = jobs.run(contents, progress).context("hashing content objects")?;
        for (expected, place) in base_files {
            if checksums[place] != expected {
                let reason = format!("its checksum is {}", checksums[place]);
                return Err(corrupt(format!("{expected}.file"), reason));
            }
        }
        let named = |places: &[Option<usize>]| -> Vec<Option<Checksum>> {
            places.iter().map(|place| place.map(|place| checksums[place])).collect()
        };

        let mut repository = Repository::default();
        for (inode, checksum) in jobs.inodes().iter().zip(&checksums) {
            // The first one stays: equal bytes may lie in the spool several times, with different holes.
            repository.files.entry(*checksum).or_insert_with(|| inode.clone());
        }
        let layers: Vec<_> = layers.iter().map(|places| named(places)).collect();
        self.add_layers(&mut repository, &layers, image)?;
        let objects = named(&merged);
        let (dirtree, dirmeta) = repository.add_tree(&self.root, &objects);
        let (config, manifest) = (document::config(image), document::manifest(image));
        let commit = Commit {
            metadata: &[
                ("ostree.container.image-config", &config),
                IMPORTER_VERSION,
                ("ostree.manifest", &manifest),
                ("ostree.manifest-digest", &image.manifest_digest),
            ],
            parent: self.base.as_ref().map(|base| base.commit),
            timestamp: document::created(image),
            root: CommitRoot { dirtree, dirmeta },
        };
        let checksum = repository.add(MetadataKind::Commit, commit.to_bytes());
        repository.refs.insert(refname::escaped(refname::IMAGE, target)?, checksum);
        repository.refs.insert("ostree/1/1/0".to_owned(), checksum);
        Ok((repository, Committed { checksum, tree: self.root, objects }))
    }

    /// Adds the commit of each layer, and its reference. `files`: for each layer, its content objects by inode index.
    fn add_layers(
        &mut self,
        repository: &mut Repository,
        files: &[Vec<Option<Checksum>>],
        image: &Image,
    ) -> Result<()> {
        let base_commit = self.base.as_mut().map(|base| {
            repository.metadata.append(&mut base.metadata);
            base.commit
        });
        for (part, files) in self.layers.iter().zip(files) {
            let commit = match &part.kind {
                PartKind::Commit => base_commit.expect("a commit layer comes with its commit"),
                PartKind::Chunk(objects) => add_chunk(repository, objects),
                PartKind::Derived(tree) => {
                    let (dirtree, dirmeta) = repository.add_tree(tree, files);
                    let commit = Commit {
                        metadata: &[IMPORTER_VERSION],
                        parent: None,
                        // The importer takes the time of the import; we have none.
                        timestamp: document::created(image),
                        root: CommitRoot { dirtree, dirmeta },
                    };
                    repository.add(MetadataKind::Commit, commit.to_bytes())
                }
            };
            let name = refname::escaped(refname::BLOB, &part.digest)?;
            repository.refs.insert(name, commit);
        }
        Ok(())
    }

    /// Gives the merged tree and the layers the labels of the policy.
    fn label(&mut self, labels: Option<&Labels<'_>>) -> Result<()> {
        let mut cache = HashMap::new();
        label(&mut self.root, labels, &mut cache).context("labelling the merged tree")?;
        for (index, part) in self.layers.iter_mut().enumerate() {
            if let PartKind::Derived(tree) = &mut part.kind {
                label(tree, labels, &mut cache)
                    .with_context(|| format!("labelling layer {}", index + 1))?;
            }
        }
        Ok(())
    }
}

/// The commit of a chunk: a flat directory that names each content object by its checksum.
fn add_chunk(repository: &mut Repository, objects: &BTreeSet<Checksum>) -> Checksum {
    let files = objects.iter().map(|checksum| (checksum.to_string(), *checksum)).collect();
    let listing = DirTree { files, directories: Vec::new() };
    let root = CommitRoot {
        dirtree: repository.add(MetadataKind::DirTree, listing.to_bytes()),
        dirmeta: repository.add(MetadataKind::DirMeta, object::dirmeta(&Metadata::root(0o755))),
    };
    let commit = Commit { metadata: &[], parent: None, timestamp: 0, root };
    repository.add(MetadataKind::Commit, commit.to_bytes())
}

/// Most files have one of a few labels and nothing else: the maps are shared.
type LabelCache = HashMap<(Xattrs, Arc<[u8]>), Xattrs>;

fn label(tree: &mut Tree, labels: Option<&Labels<'_>>, cache: &mut LabelCache) -> Result<()> {
    let Some(labels) = labels else { return Ok(()) };
    let paths: Vec<_> = tree.walk().collect();
    for (path, id) in paths {
        let path = format!("/{}", String::from_utf8(path).expect("names were checked to be UTF-8"));
        let inode = tree.inode(id);
        let Some(label) = labels::lookup(labels, &path, inode.st_mode())? else { continue };
        let xattrs = inode.metadata.xattrs.clone();
        let labelled = cache.entry((xattrs.clone(), Arc::clone(&label))).or_insert_with(|| {
            let mut xattrs = xattrs;
            // On disks the label ends with a NUL, as libselinux writes it.
            xattrs.set(b"security.selinux", &[&*label, &[0]].concat());
            xattrs
        });
        tree.inode_mut(id).metadata.xattrs = labelled.clone();
    }
    Ok(())
}

#[cfg(test)]
#[path = "commit/tests.rs"]
mod tests;
