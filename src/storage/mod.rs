//! Application images → the store in which podman finds them, as part of a tree: "containers-storage", driver `overlay`.
//!
//! ```text
//! overlay/ID/diff/…  link  lower  work/  merged/      a layer; `link` says its SHORT, `lower` those below: l/SHORT:l/SHORT
//! overlay/l/SHORT -> ../ID/diff
//! overlay-layers/layers.json                          what layers there are, and what they are made of
//! overlay-images/images.json                          what images there are, which layer is the topmost, what they are called
//! overlay-images/ID/manifest  =BASE64(name)           their documents
//! storage.lock  userns.lock  overlay-{layers,images,containers}/*.lock
//! ```
//!
//! As skopeo and podman write it, but for `overlay-layers/ID.tar-split.gz`, with which a layer's archive can be put together again:
//! without it an image runs, and is pulled again if it has to be copied elsewhere.

mod layer;
mod records;

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use self::records::{ImageRecord, LayerRecord};
use crate::content::{Content, ContentStore};
use crate::error::{corrupt, unsupported};
use crate::image::Image;
use crate::layer::Layer;
use crate::tree::{InodeId, Kind, Metadata, Tree};

/// Where bootc keeps the store, in the physical root; images link to it from `/usr/lib/bootc/storage`.
pub const PLACE: &str = "ostree/bootc/storage";

/// Where policies know such a store: its labels are those of this place.
const LABELLED_AS: &str = "/var/lib/containers/storage";

/// bootc labels a store that has not this file.
const LABELLED: &[u8] = b".bootc_labeled";

/// Characters of a layer's short name; mount options have to hold many of them.
const SHORT: usize = 26;

/// The SELinux label of an absolute path whose `st_mode` is given.
type Labels<'a> = dyn Fn(&str, u32) -> Result<Option<Arc<[u8]>>> + Sync + 'a;

/// An application image, unpacked.
#[derive(Debug)]
pub struct Application {
    /// The name by which the system is bound to it: `quay.io/x/app:1`.
    pub name: String,
    /// What it says about itself.
    pub image: Image,
    /// Its manifest, as it is stored.
    pub manifest: Vec<u8>,
    /// Its config, as it is stored.
    pub config: Vec<u8>,
    /// Digest of the config: `sha256:…`.
    pub config_digest: String,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
}

/// Puts a store with these images into a physical root, at [`PLACE`]; does nothing if there are none.
///
/// `Corrupt` or `Unsupported` if a layer is not what a directory can hold.
pub fn place(
    root: &mut Tree,
    applications: &[Application],
    labels: Option<&Labels<'_>>,
    contents: &ContentStore,
) -> Result<()> {
    if applications.is_empty() {
        return Ok(());
    }
    let top = root.make_directories(PLACE, &Metadata::root(0o755));
    put(root, top, applications, contents)?;
    if labels.is_some() {
        root.create(top, LABELLED, Metadata::root(0o644), Kind::File(Content::EMPTY));
    }
    label(root, top, labels)
}

/// Puts a store with these images into a directory that is there; does nothing if there are none.
///
/// `Unsupported` if the image has a store there; otherwise fails as [`place`] does.
pub fn fill(
    tree: &mut Tree,
    directory: &str,
    applications: &[Application],
    labels: Option<&Labels<'_>>,
    contents: &ContentStore,
) -> Result<()> {
    if applications.is_empty() {
        return Ok(());
    }
    let top = tree.find(directory).with_context(|| format!("there is no directory {directory}"))?;
    if tree.inode(top).children().next().is_some() {
        return Err(unsupported(
            format!(
                "containers: the image has something in /{directory} already, and bootpress only makes new stores"
            ),
            Some("name another place with customizations.containers-storage.destination-path"),
        ));
    }
    put(tree, top, applications, contents)?;
    label(tree, top, labels)
}

fn put(
    tree: &mut Tree,
    top: InodeId,
    applications: &[Application],
    contents: &ContentStore,
) -> Result<()> {
    let mut store = Store::make(tree, top, contents)?;
    for application in applications {
        store
            .add(application)
            .with_context(|| format!("storing the image {}", application.name))?;
    }
    store.finish()
}

/// A store that fills.
struct Store<'a> {
    tree: &'a mut Tree,
    contents: &'a ContentStore,
    overlay: InodeId,
    short_names: InodeId,
    layers: InodeId,
    images: InodeId,
    layer_records: Vec<LayerRecord>,
    image_records: Vec<ImageRecord>,
}

impl<'a> Store<'a> {
    fn make(tree: &'a mut Tree, top: InodeId, contents: &'a ContentStore) -> Result<Self> {
        let mut directory = |above, name: &str, mode| {
            tree.create(above, name.as_bytes(), Metadata::root(mode), Kind::directory())
        };
        let overlay = directory(top, "overlay", 0o700);
        let short_names = directory(overlay, "l", 0o755);
        let layers = directory(top, "overlay-layers", 0o700);
        let images = directory(top, "overlay-images", 0o700);
        let containers = directory(top, "overlay-containers", 0o700);
        directory(top, "tmp", 0o700);
        // Readers that may not write need them to be there.
        for (above, name) in [
            (top, "storage.lock"),
            (top, "userns.lock"),
            (layers, "layers.lock"),
            (images, "images.lock"),
            (containers, "containers.lock"),
        ] {
            let nothing = Kind::File(Content::EMPTY);
            tree.create(above, name.as_bytes(), Metadata::root(0o644), nothing);
        }
        let (layer_records, image_records) = (Vec::new(), Vec::new());
        Ok(Self {
            tree,
            contents,
            overlay,
            short_names,
            layers,
            images,
            layer_records,
            image_records,
        })
    }

    fn add(&mut self, application: &Application) -> Result<()> {
        let mut below: Vec<String> = Vec::new();
        for (layer, record) in application.layers.iter().zip(&application.image.layers) {
            let id = layer_id(below.last().map(String::as_str), &layer.diff_id)?;
            if !self.layer_records.iter().any(|known| known.id == id) {
                let made = self.add_layer(&id, &below, layer, application)?;
                self.layer_records
                    .push(LayerRecord { media_type: record.media_type.clone(), ..made });
            }
            below.push(id);
        }
        let id = hex(&application.config_digest)?.to_owned();
        let name = named(&application.name);
        if let Some(known) = self.image_records.iter_mut().find(|known| known.id == id) {
            if !known.names.contains(&name) {
                known.names.push(name);
            }
            return Ok(());
        }
        let digest = &application.image.manifest_digest;
        let documents = [
            (application.config_digest.clone(), &application.config),
            (format!("manifest-{digest}"), &application.manifest),
            ("manifest".to_owned(), &application.manifest),
        ];
        let directory =
            self.tree.create(self.images, id.as_bytes(), Metadata::root(0o700), Kind::directory());
        for (key, bytes) in &documents {
            self.file(directory, &records::file_name(key), 0o600, bytes)?;
        }
        let documents = documents.into_iter().map(|(key, bytes)| (key, bytes.clone()));
        self.image_records.push(ImageRecord {
            id,
            digest: digest.clone(),
            names: vec![name],
            layer: below.pop(),
            documents: documents.collect(),
            created: created(&application.image),
        });
        Ok(())
    }

    /// Adds a layer; `below`: those below it, lowest first.
    fn add_layer(
        &mut self,
        id: &str,
        below: &[String],
        layer: &Layer,
        application: &Application,
    ) -> Result<LayerRecord> {
        let private = || Metadata::root(0o700);
        let own = self.tree.create(self.overlay, id.as_bytes(), private(), Kind::directory());
        let diff = Metadata::root(0o555);
        let diff = self.tree.create(own, b"diff", diff, Kind::directory());
        for name in [&b"work"[..], b"merged"] {
            self.tree.create(own, name, private(), Kind::directory());
        }
        if below.is_empty() {
            self.tree.create(own, b"empty", private(), Kind::directory());
        } else {
            let lower: Vec<String> =
                below.iter().rev().map(|id| format!("l/{}", short_name(id))).collect();
            self.file(own, "lower", 0o644, lower.join(":").as_bytes())?;
        }
        let short = short_name(id);
        self.file(own, "link", 0o644, short.as_bytes())?;
        let target = Kind::Symlink(format!("../{id}/diff").into_bytes().into());
        self.tree.create(self.short_names, short.as_bytes(), Metadata::root(0o777), target);
        let found = layer::fill(self.tree, diff, layer)
            .with_context(|| format!("unpacking layer {}", layer.digest))?;
        Ok(LayerRecord {
            id: id.to_owned(),
            parent: below.last().cloned(),
            created: created(&application.image),
            digest: layer.digest.clone(),
            size: layer.size,
            diff_id: layer.diff_id.clone(),
            media_type: String::new(),
            found,
        })
    }

    fn finish(&mut self) -> Result<()> {
        let layers = records::layers(&self.layer_records);
        let images = records::images(&self.image_records);
        self.file(self.layers, "layers.json", 0o600, &layers)?;
        self.file(self.images, "images.json", 0o600, &images)
    }

    fn file(&mut self, directory: InodeId, name: &str, mode: u16, bytes: &[u8]) -> Result<()> {
        let content = Kind::File(self.contents.insert_bytes(bytes)?);
        self.tree.create(directory, name.as_bytes(), Metadata::root(mode), content);
        Ok(())
    }
}

/// The labels of [`LABELLED_AS`] and what is below it.
fn label(root: &mut Tree, top: InodeId, labels: Option<&Labels<'_>>) -> Result<()> {
    let Some(labels) = labels else { return Ok(()) };
    let below: Vec<_> = root.walk_from(top).collect();
    for (path, id) in below {
        let path = if path.is_empty() {
            LABELLED_AS.to_owned()
        } else {
            format!("{LABELLED_AS}/{}", String::from_utf8_lossy(&path))
        };
        let inode = root.inode_mut(id);
        if let Some(label) = labels(&path, inode.st_mode())? {
            inode.metadata.xattrs.set(b"security.selinux", &label);
        }
    }
    Ok(())
}

/// What a layer and all below it are called together.
fn layer_id(below: Option<&str>, diff_id: &str) -> Result<String> {
    let own = hex(diff_id)?;
    Ok(match below {
        None => own.to_owned(),
        Some(below) => sha256(format!("{below}+{own}").as_bytes()),
    })
}

/// A name of [`SHORT`] letters and digits. Others take it from dice; it only has to be another one for each layer.
fn short_name(id: &str) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha256::digest(id.as_bytes());
    digest.iter().take(SHORT).map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

/// The name as stores have it, always with a tag or digest.
fn named(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") }
}

fn created(image: &Image) -> String {
    // What stores take for a time that nobody told.
    let unknown = "0001-01-01T00:00:00Z";
    image.config.get("created").and_then(|value| value.as_str()).unwrap_or(unknown).to_owned()
}

fn hex(digest: &str) -> Result<&str> {
    digest
        .strip_prefix("sha256:")
        .ok_or_else(|| corrupt(digest, "it is not the digest of an image's part"))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a layer turned out to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    /// Bytes of its files, about what its archive has; shown to people.
    size: u64,
    uids: BTreeSet<u32>,
    gids: BTreeSet<u32>,
}

#[cfg(test)]
mod tests;
