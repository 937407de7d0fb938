//! Blobs in an archive as `docker save` and `podman save` write it.
//!
//! ```text
//! manifest.json     [{"Config": PATH, "RepoTags": [NAME…], "Layers": [PATH…]}, …]
//! PATH              configs, and the archives of layers, rarely compressed
//! ```
//!
//! There is no manifest with a digest in it, so one is made, the same bytes that skopeo and podman make: docker's type, and each
//! layer by its diff id. Its media types say gzip where nothing is compressed; that is how everybody else makes it.

use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;

use super::archive::Archive;
use super::decompressed::{Compression, decompressed};
use super::digest::Digest;
use super::manifest::Document;
use super::{Blobs, reference};
use crate::error::{corrupt, unsupported};
use crate::image::LayerRecord;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// One image of such an archive.
#[derive(Debug)]
pub(super) struct DockerArchive {
    archive: Archive,
    manifest: Document,
    config: Document,
    /// Paths of the layers, lowest first.
    layers: Vec<String>,
}

/// Which image of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The only one.
    Only,
    /// The one with this name.
    Named(String),
    /// By its place in `manifest.json`, from 0 on.
    Number(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

impl DockerArchive {
    /// The image, the manifest made for it, and the name that it has if it has exactly one. See [`Archive::open`].
    pub(super) fn open(
        path: &Path,
        which: &Which,
        spool: &Path,
    ) -> Result<(Self, Document, Option<String>)> {
        let archive = Archive::open(path, spool)?;
        let shown = archive.path().display().to_string();
        if !archive.has("manifest.json") {
            let what = format!("{shown} is not a docker archive: it has no manifest.json");
            if archive.has("index.json") {
                let hint = format!("say oci-archive:{shown}");
                return Err(unsupported(format!("{what}, but an OCI layout"), Some(&hint)));
            }
            bail!(what);
        }
        let items: Vec<Item> = serde_json::from_slice(&archive.document("manifest.json")?)
            .map_err(|error| corrupt(format!("manifest.json of {shown}"), error.to_string()))?;
        let (item, name) = choose(items, which, &shown)?;
        let bytes = archive.document(&item.config)?;
        let config = Document { digest: Digest::of(&bytes), bytes };
        let layers = item.layers.unwrap_or_default();
        let manifest = manifest(&archive, &config, &layers)?;
        let made = Document { digest: Digest::of(&manifest), bytes: manifest };
        let top = Document { digest: made.digest, bytes: made.bytes.clone() };
        Ok((Self { archive, manifest: made, config, layers }, top, name))
    }
}

fn choose(items: Vec<Item>, which: &Which, shown: &str) -> Result<(Item, Option<String>)> {
    let known = || {
        let names = items.iter().flat_map(|item| item.repo_tags.iter().flatten());
        match names.map(String::as_str).collect::<Vec<_>>().join(", ") {
            names if names.is_empty() => format!("its {} images have no names", items.len()),
            names => format!("there is {names}"),
        }
    };
    let position = match which {
        Which::Only if items.len() == 1 => 0,
        Which::Only if items.is_empty() => bail!("{shown} has no image in it"),
        Which::Only => bail!(
            "{shown} has several images, say which by name or as @0, @1 and so on; {}",
            known()
        ),
        Which::Number(number) if *number < items.len() => *number,
        Which::Number(number) => {
            bail!("{shown} has no image number {number}, it has {}", items.len())
        }
        Which::Named(name) => {
            let wanted = reference::normal_name(name)?;
            let is_wanted =
                |tag: &String| reference::normal_name(tag).is_ok_and(|tag| tag == wanted);
            let found =
                items.iter().position(|item| item.repo_tags.iter().flatten().any(is_wanted));
            match found {
                Some(position) => position,
                None => bail!("{shown} has no image called {name}; {}", known()),
            }
        }
    };
    let item = items.into_iter().nth(position).context("it was there")?;
    let name = match (which, item.repo_tags.as_deref()) {
        (Which::Named(name), _) => Some(reference::normal_name(name)?),
        (_, Some([name])) => reference::normal_name(name).ok(),
        _ => None,
    };
    Ok((item, name))
}

/// The manifest, byte for byte as Go's encoder writes it: order and media types count, since its digest is recorded.
fn manifest(archive: &Archive, config: &Document, layers: &[String]) -> Result<Vec<u8>> {
    let parsed: Config = serde_json::from_slice(&config.bytes)
        .map_err(|error| corrupt(config.digest.to_string(), error.to_string()))?;
    let diff_ids = parsed.rootfs.diff_ids;
    if diff_ids.len() != layers.len() {
        let reason = format!("it has {} diff ids for {} layers", diff_ids.len(), layers.len());
        return Err(corrupt(config.digest.to_string(), reason));
    }
    let mut descriptors = Vec::new();
    for (path, diff_id) in layers.iter().zip(&diff_ids) {
        let digest = Digest::parse(diff_id)?.to_string();
        let size = unpacked_size(archive, path)?;
        descriptors.push(json!({ "mediaType": LAYER, "size": size, "digest": digest }));
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": CONFIG,
            "size": config.bytes.len(),
            "digest": config.digest.to_string(),
        },
        "layers": descriptors,
    });
    serde_json::to_vec(&manifest).context("making a manifest")
}

/// Bytes of a layer's archive. A compressed one has to be decompressed to know.
fn unpacked_size(archive: &Archive, path: &str) -> Result<u64> {
    if sniff(archive, path)? == Compression::None {
        return archive.size(path);
    }
    let mut reader = unpacked(archive, path)?;
    io::copy(&mut reader, &mut io::sink()).map_err(|error| match error.raw_os_error() {
        Some(_) => error.into(),
        None => corrupt(format!("{path} of {}", archive.path().display()), error.to_string()),
    })
}

fn sniff(archive: &Archive, path: &str) -> Result<Compression> {
    let mut head = Vec::new();
    archive
        .read(path)?
        .take(4)
        .read_to_end(&mut head)
        .with_context(|| format!("reading {path} of {}", archive.path().display()))?;
    Ok(Compression::sniff(&head))
}

fn unpacked<'a>(archive: &'a Archive, path: &str) -> Result<Box<dyn Read + Send + 'a>> {
    let name = format!("{path} of {}", archive.path().display());
    decompressed(archive.read(path)?, sniff(archive, path)?, &name)
}

impl Blobs for DockerArchive {
    fn document(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send + '_>> {
        self.blob(digest, size)
    }

    fn blob(&self, digest: &Digest, _: u64) -> Result<Box<dyn Read + Send + '_>> {
        let documents = [&self.manifest, &self.config];
        match documents.into_iter().find(|document| document.digest == *digest) {
            Some(document) => Ok(Box::new(&document.bytes[..])),
            None => bail!("{} has no {digest}", self.archive.path().display()),
        }
    }

    fn unpacked(
        &self,
        number: usize,
        _: &LayerRecord,
    ) -> Result<Option<Box<dyn Read + Send + '_>>> {
        let path = self.layers.get(number).context("the manifest has a layer for each path")?;
        unpacked(&self.archive, path).map(Some)
    }
}
