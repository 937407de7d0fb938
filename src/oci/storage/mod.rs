//! Images in a store of podman, buildah, skopeo and CRI-O, read without any of them.
//!
//! ```text
//! <root>/<driver>-images/images.json          images: names, top layer
//! <root>/<driver>-images/<image>/<key>        manifest, config, signatures: "big data"
//! <root>/<driver>-layers/layers.json          layers: parents
//! <root>/<driver>-layers/<layer>.tar-split.gz the layer's archive without the contents of files
//! <root>/overlay/<layer>/diff/                those contents
//! <root>/vfs/dir/<layer>/                     those contents, and everything of the layers below
//! ```
//!
//! A store keeps no blobs of layers, so a layer is verified by its diff id alone; the manifest promises the config, and that
//! the diff ids. An image that was pulled still has the manifest of its registry, to the byte. One that was built here has one
//! that lists uncompressed layers, and gets another digest when it is pushed.

mod config;
mod tar_split;

use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

pub(super) use self::config::{Spec, Stores};
use self::tar_split::TarSplit;
use super::digest::Digest;
use super::manifest::{Document, MAXIMUM_DOCUMENT};
use super::{Blobs, reference, scopes};
use crate::error::{corrupt, unsupported};
use crate::image::LayerRecord;
use crate::signature::{Claim, Signature, Wanted};

/// `images.json` and `layers.json` of a store with thousands of images stay below a tenth of it.
const MAXIMUM_INDEX: u64 = 256 << 20;

/// Layers on top of each other; overlay itself takes 500.
const MAXIMUM_LAYERS: usize = 1024;

/// An image of a store.
#[derive(Debug)]
pub(super) struct Storage {
    /// Directory of its big data.
    directory: PathBuf,
    driver: &'static str,
    root: PathBuf,
    record: ImageRecord,
    /// Lowest first.
    layers: Vec<StoredLayer>,
}

#[derive(Clone, Debug, Deserialize)]
struct ImageRecord {
    id: String,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    layer: String,
    #[serde(default)]
    metadata: String,
    #[serde(default, rename = "big-data-names")]
    big_data_names: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
struct LayerEntry {
    id: String,
    #[serde(default)]
    parent: String,
}

/// A layer, and where its parts are.
#[derive(Debug)]
struct StoredLayer {
    id: String,
    /// The archive without contents.
    tar_split: PathBuf,
    /// The contents.
    root: PathBuf,
}

/// One driver's part of one store.
#[derive(Debug)]
struct Store {
    root: PathBuf,
    driver: &'static str,
    images: Vec<ImageRecord>,
}

/// Drivers whose layers are directories.
const DRIVERS: [&str; 2] = ["overlay", "vfs"];

impl Storage {
    /// The image called `name`, its manifest, and the name that it has in full.
    ///
    /// `name` is a name, a name with a digest, `@ID`, `NAME@ID`, or the beginning of an ID, as podman takes them.
    pub(super) fn open(stores: &Stores, name: &str) -> Result<(Self, Document, Option<String>)> {
        let found = stores.roots.iter().flat_map(|root| {
            DRIVERS.iter().filter_map(|driver| {
                let asked = stores.driver.as_deref();
                asked.is_none_or(|asked| asked == *driver).then(|| Store::open(root, driver))
            })
        });
        let found: Vec<Store> = found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        let listed = stores.roots.iter().map(|root| root.display().to_string());
        let listed = listed.collect::<Vec<_>>().join(", ");
        if found.is_empty() {
            refuse_other_drivers(stores)?;
            bail!("there is no container storage in {listed}, did you forget to mount it here?");
        }
        let (store, record, called) = find(&found, name, &listed)?;
        let layers = chain(&found, &record.layer, stores)
            .with_context(|| format!("reading the layers of image {}", record.id))?;
        let directory = store.images_directory().join(plain(&record.id)?);
        let (driver, root) = (store.driver, store.root.clone());
        let storage = Self { directory, driver, root, record: record.clone(), layers };
        let bytes = storage.big_data("manifest")?.with_context(|| {
            format!("image {} has no manifest: it was not pulled or built", record.id)
        })?;
        let count = serde_json::from_slice::<Value>(&bytes)
            .ok()
            .and_then(|manifest| Some(manifest.get("layers")?.as_array()?.len()));
        if let Some(count) = count.filter(|&count| count != storage.layers.len()) {
            let what = format!(
                "image {} has {} layers in the store and {count} in its manifest",
                record.id,
                storage.layers.len()
            );
            return Err(unsupported(what, Some(SKOPEO)));
        }
        let digest = Digest::of(&bytes);
        Ok((storage, Document { digest, bytes }, called))
    }

    /// What a signature policy calls the image.
    pub(super) fn scopes(&self, name: Option<&str>) -> Vec<String> {
        scopes::of_store(self.driver, &self.root, name, &self.record.id)
    }

    /// A piece of data that the store keeps for the image.
    fn big_data(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let known = self.record.big_data_names.iter().flatten().any(|name| name == key);
        if !known {
            return Ok(None);
        }
        let path = self.directory.join(big_data_name(key));
        small(&path, MAXIMUM_DOCUMENT).map(Some)
    }
}

const SKOPEO: &str =
    "`skopeo copy containers-storage:NAME oci:DIR` makes a copy that bootpress reads";

/// Names of files of big data: keys of plain letters as they are, others in base64.
fn big_data_name(key: &str) -> String {
    if key.bytes().all(|byte| matches!(byte, b'.' | b'0'..=b'9' | b'a'..=b'z')) {
        key.to_owned()
    } else {
        format!("={}", STANDARD.encode(key))
    }
}

/// An ID that is safe as a file name.
fn plain(id: &str) -> Result<&str> {
    let good = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if good { Ok(id) } else { Err(corrupt(format!("ID {id:?} in a store"), "it is not an ID")) }
}

fn small(path: &Path, maximum: u64) -> Result<Vec<u8>> {
    let context = || format!("reading {}", path.display());
    let facts = fs::metadata(path).with_context(context)?;
    ensure!(facts.is_file(), "{} is not a file", path.display());
    if facts.len() > maximum {
        let what =
            format!("{} of {} bytes is larger than any real one", path.display(), facts.len());
        return Err(unsupported(what, None));
    }
    fs::read(path).with_context(context)
}

fn json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    if !path.try_exists().with_context(|| format!("reading {}", path.display()))? {
        return Ok(None);
    }
    serde_json::from_slice(&small(path, MAXIMUM_INDEX)?)
        .map(Some)
        .map_err(|error| corrupt(path.display().to_string(), error.to_string()))
}

impl Store {
    fn open(root: &Path, driver: &'static str) -> Result<Option<Self>> {
        let images = json(&root.join(format!("{driver}-images/images.json")))?;
        Ok(images.map(|images| Self { root: root.to_owned(), driver, images }))
    }

    fn images_directory(&self) -> PathBuf {
        self.root.join(format!("{}-images", self.driver))
    }
}

/// Stores of drivers that keep layers in something that only they can read.
fn refuse_other_drivers(stores: &Stores) -> Result<()> {
    for root in &stores.roots {
        for driver in ["btrfs", "zfs", "aufs", "devicemapper"] {
            if root.join(format!("{driver}-images")).is_dir() {
                let what = format!("{} keeps its layers with the driver {driver}", root.display());
                return Err(unsupported(what, Some(SKOPEO)));
            }
        }
    }
    Ok(())
}

/// The image that `name` means, and its name in full if it was found by one.
fn find<'a>(
    stores: &'a [Store],
    name: &str,
    listed: &str,
) -> Result<(&'a Store, &'a ImageRecord, Option<String>)> {
    let all = || stores.iter().flat_map(|s| s.images.iter().map(move |image| (s, image)));
    let only_name = |image: &ImageRecord| match image.names.as_deref() {
        Some([name]) => reference::full_name(name),
        _ => None,
    };
    let by_id = |id: &str| {
        let mut fitting: Vec<_> = all().filter(|(_, image)| image.id.starts_with(id)).collect();
        // The same image may be in several stores.
        fitting.dedup_by(|a, b| a.1.id == b.1.id);
        match &fitting[..] {
            [] => bail!("no image in {listed} has the ID {id}"),
            [(store, image)] => Ok((*store, *image, only_name(image))),
            _ => bail!("several images in {listed} have IDs that begin with {id}"),
        }
    };
    if let Some((name, id)) = name.rsplit_once('@').filter(|(_, id)| !id.contains(':')) {
        let (store, image, called) = by_id(plain(id)?)?;
        if name.is_empty() {
            return Ok((store, image, called));
        }
        let full = reference::normal_name(name)?;
        ensure!(has_name(image, &full), "image {id} in {listed} is not called {name}");
        return Ok((store, image, Some(full)));
    }
    let candidates = candidates(name);
    for full in &candidates {
        if let Some((store, image)) = all().find(|(_, image)| has_name(image, full)) {
            return Ok((store, image, Some(full.clone())));
        }
    }
    let is_id = name.len() >= 3 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id && let Ok(found) = by_id(name) {
        return Ok(found);
    }
    // As podman does: a short name may be the end of a long one.
    let tagged = if name.rsplit('/').next().is_some_and(|last| last.contains([':', '@'])) {
        format!("/{name}")
    } else {
        format!("/{name}:latest")
    };
    let mut fitting: Vec<_> = all()
        .flat_map(|(store, image)| image.names.iter().flatten().map(move |n| (store, image, n)))
        .filter(|(_, _, called)| called.ends_with(&tagged))
        .collect();
    fitting.dedup_by(|a, b| a.1.id == b.1.id);
    match &fitting[..] {
        [(store, image, called)] => Ok((*store, *image, Some((*called).clone()))),
        [] => {
            let mut names: Vec<&str> = all()
                .flat_map(|(_, image)| image.names.iter().flatten())
                .map(String::as_str)
                .collect();
            names.truncate(20);
            let there =
                if names.is_empty() { "none with a name".to_owned() } else { names.join(", ") };
            bail!("there is no image {name} in {listed}; there is {there}")
        }
        several => {
            let names = several.iter().map(|(_, _, name)| name.as_str());
            bail!("{name} may be {}; say which", names.collect::<Vec<_>>().join(" or "))
        }
    }
}

/// What a name may be in full.
fn candidates(name: &str) -> Vec<String> {
    let mut candidates: Vec<String> = reference::full_name(name).into_iter().collect();
    if candidates.is_empty() {
        candidates.extend(reference::full_name(&format!("localhost/{name}")));
        candidates.extend(reference::normal_name(name).ok());
    }
    candidates
}

/// Whether an image has a name; `host/path@digest` fits every name in `host/path` of an image with that digest.
fn has_name(image: &ImageRecord, full: &str) -> bool {
    let names = || image.names.iter().flatten();
    if names().any(|name| name == full) {
        return true;
    }
    let Some((repository, digest)) = full.split_once('@') else { return false };
    let repository = repository_of(repository);
    let known = image.digest.as_deref() == Some(digest)
        || image
            .big_data_names
            .iter()
            .flatten()
            .any(|n| n.strip_prefix("manifest-") == Some(digest));
    known && names().any(|name| repository_of(name) == repository)
}

/// A name without its tag and digest.
fn repository_of(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// The layers from the lowest to `top`.
fn chain(stores: &[Store], top: &str, places: &Stores) -> Result<Vec<StoredLayer>> {
    let mut known = Vec::new();
    let mut drivers: Vec<(&Path, &'static str)> =
        stores.iter().map(|store| (store.root.as_path(), store.driver)).collect();
    // A store that only has layers has no list of images.
    for root in &places.roots {
        drivers.extend(DRIVERS.iter().map(|driver| (root.as_path(), *driver)));
    }
    drivers.dedup();
    for (root, driver) in drivers {
        for list in ["layers.json", "volatile-layers.json"] {
            let entries: Option<Vec<LayerEntry>> =
                json(&root.join(format!("{driver}-layers")).join(list))?;
            known.extend(entries.into_iter().flatten().map(|entry| (entry, root, driver)));
        }
    }
    let by_id: std::collections::HashMap<&str, &(LayerEntry, &Path, &'static str)> =
        known.iter().rev().map(|layer| (layer.0.id.as_str(), layer)).collect();
    let mut layers = Vec::new();
    let mut next = top;
    while !next.is_empty() {
        let (entry, root, driver) =
            by_id.get(next).with_context(|| format!("the store has no layer {next}"))?;
        let id = plain(&entry.id)?;
        ensure!(layers.len() < MAXIMUM_LAYERS, "there are over {MAXIMUM_LAYERS} layers");
        let contents = match *driver {
            "overlay" => root.join("overlay").join(id).join("diff"),
            _ => root.join("vfs/dir").join(id),
        };
        let tar_split = root.join(format!("{driver}-layers/{id}.tar-split.gz"));
        layers.push(StoredLayer { id: id.to_owned(), tar_split, root: contents });
        next = &entry.parent;
    }
    layers.reverse();
    Ok(layers)
}

impl Blobs for Storage {
    fn document(&self, digest: &Digest, _: u64) -> Result<Box<dyn Read + Send + '_>> {
        let bytes = match self.big_data(&format!("manifest-{digest}"))? {
            Some(bytes) => Some(bytes),
            None => self.big_data("manifest")?,
        };
        let bytes = bytes.with_context(|| format!("the store has no manifest {digest}"))?;
        Ok(Box::new(Cursor::new(bytes)))
    }

    fn blob(&self, digest: &Digest, _: u64) -> Result<Box<dyn Read + Send + '_>> {
        let bytes = self.big_data(&digest.to_string())?;
        let bytes = bytes.with_context(|| format!("the store has no config {digest}"))?;
        Ok(Box::new(Cursor::new(bytes)))
    }

    fn unpacked(
        &self,
        number: usize,
        _: &LayerRecord,
    ) -> Result<Option<Box<dyn Read + Send + '_>>> {
        let layer = self.layers.get(number).context("the manifest has as many layers")?;
        if !layer.tar_split.is_file() {
            let what = format!(
                "layer {} of the store cannot be told exactly: it has no tar-split file",
                layer.id
            );
            return Err(unsupported(what, Some(SKOPEO)));
        }
        let composefs = layer.root.parent().map(|parent| parent.join("composefs-data"));
        if composefs.is_some_and(|path| path.is_dir()) {
            let what = format!("layer {} of the store is kept as composefs objects", layer.id);
            return Err(unsupported(what, Some(SKOPEO)));
        }
        let reader = TarSplit::open(&layer.tar_split, &layer.root)?;
        Ok(Some(Box::new(reader)))
    }

    fn claims(&self, about: &Digest, _: &Wanted) -> Result<Vec<Claim>> {
        #[derive(Default, Deserialize)]
        struct Metadata {
            #[serde(default, rename = "signature-sizes")]
            sizes: Option<Vec<usize>>,
            #[serde(default, rename = "signatures-sizes")]
            by_digest: Option<std::collections::BTreeMap<String, Option<Vec<usize>>>>,
        }
        let metadata: Metadata = serde_json::from_str(&self.record.metadata).unwrap_or_default();
        let by_digest = metadata.by_digest.unwrap_or_default().remove(&about.to_string());
        let (key, sizes) = match by_digest.flatten() {
            Some(sizes) => (format!("signature-{}", about.hex()), sizes),
            // Stores of old programs; these are of the image's own manifest.
            None if self.record.digest.as_deref() == Some(&*about.to_string()) => {
                ("signatures".to_owned(), metadata.sizes.unwrap_or_default())
            }
            None => return Ok(Vec::new()),
        };
        let Some(bytes) = self.big_data(&key)? else { return Ok(Vec::new()) };
        let mut rest = &bytes[..];
        let mut claims = Vec::new();
        for (number, size) in sizes.into_iter().enumerate() {
            let Some((signature, behind)) = rest.split_at_checked(size) else {
                let reason = "it is shorter than its signatures";
                return Err(corrupt(format!("{key} of image {}", self.record.id), reason));
            };
            rest = behind;
            claims.push(Claim {
                about: about.to_string(),
                place: format!("signature {} in the store", number + 1),
                signature: Signature::from_file(signature.to_vec()),
            });
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests;
