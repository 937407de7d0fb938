//! From an index or manifest to the image for one platform: which documents are read, and what they must agree on.
//!
//! ```text
//! index ──(platform)──► index ──(platform)──► manifest ──► config ──► diff ids
//!                                                  └──► layers ─────► one each
//! ```
//!
//! Specifications: OCI image 1.1, docker's "Image Manifest Version 2, Schema 2".

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::decompressed::Compression;
use super::digest::{Digest, Verified};
use super::{Blobs, reference};
use crate::architecture::Architecture;
use crate::error::{Corrupt, corrupt, unsupported};
use crate::image::{Image, LayerRecord};

/// The largest index, manifest or config; real ones stay below a tenth of it. Registries refuse larger manifests, and JSON takes up to
/// 64 times its size in memory.
pub(super) const MAXIMUM_DOCUMENT: u64 = 4 << 20;

/// Indexes inside indexes; nobody nests more than one.
const MAXIMUM_DEPTH: usize = 4;

pub(super) const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const MANIFESTS: [&str; 2] = [OCI_MANIFEST, DOCKER_MANIFEST];
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// What cosign calls the things that it keeps in layouts: `image`, `imageIndex`, `sigs`, `atts`.
const COSIGN: &str = "dev.cosignproject.cosign/";

/// How one document names another.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default)]
    urls: Option<Vec<String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    pub(super) artifact_type: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Index {
    pub(super) manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// A document, its digest known to be right.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
}

impl Descriptor {
    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The tag that a layout's index gives.
    pub(super) fn tag(&self) -> Option<&str> {
        self.annotation("org.opencontainers.image.ref.name")
    }

    /// The name in a registry that a layout's index gives.
    pub(super) fn full_name(&self) -> Option<String> {
        [self.tag(), self.annotation("io.containerd.image.name")]
            .into_iter()
            .flatten()
            .find_map(reference::full_name)
    }

    /// Whether a layout's index calls it `tag`.
    pub(super) fn is_called(&self, tag: &str) -> bool {
        self.tag() == Some(tag) || self.annotation("io.containerd.image.name") == Some(tag)
    }

    /// What it describes if that is not an image: a build attestation, a signature, or whatever people keep in registries.
    pub(super) fn artifact(&self) -> Option<&str> {
        let unknown = self.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
        if unknown || self.annotation("vnd.docker.reference.type").is_some() {
            return Some("attestation");
        }
        if let Some(kind) = self.annotation("kind").and_then(|kind| kind.strip_prefix(COSIGN)) {
            return Some(kind).filter(|kind| !kind.starts_with("image"));
        }
        // Who gives no type of its own has that of its config.
        let own =
            self.artifact_type.as_deref().filter(|own| !own.is_empty() && !CONFIGS.contains(own));
        let media_type = self.media_type.as_str();
        let is_document = INDEXES.contains(&media_type) || MANIFESTS.contains(&media_type);
        own.or_else(|| (!media_type.is_empty() && !is_document).then_some(media_type))
    }

    /// The platform as people write it: `linux/arm64/v8`.
    pub(super) fn platform_name(&self) -> Option<String> {
        let Platform { os, architecture, variant } = self.platform.as_ref()?;
        let variant = variant.as_deref().filter(|variant| !variant.is_empty());
        Some(
            [Some(os.as_str()), Some(architecture), variant]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("/"),
        )
    }
}

/// Reads a document whole. Corrupt if its bytes are not those of the descriptor.
pub(super) fn read(blobs: &dyn Blobs, descriptor: &Descriptor) -> Result<Document> {
    let digest = Digest::parse(&descriptor.digest)?;
    match read_once(blobs, descriptor, digest) {
        Err(error) if error.is::<Corrupt>() && blobs.forget(&digest) => {
            read_once(blobs, descriptor, digest)
        }
        outcome => outcome,
    }
}

fn read_once(blobs: &dyn Blobs, descriptor: &Descriptor, digest: Digest) -> Result<Document> {
    let context = || format!("reading {digest}");
    if descriptor.size > MAXIMUM_DOCUMENT {
        let what = format!("a document of {} bytes is larger than any real one", descriptor.size);
        return Err(unsupported(what, None)).with_context(context);
    }
    let is_manifest = !CONFIGS.contains(&descriptor.media_type.as_str());
    let blob = if is_manifest {
        blobs.document(&digest, descriptor.size)
    } else {
        blobs.blob(&digest, descriptor.size)
    };
    let mut blob = Verified::new(blob.with_context(context)?.take(descriptor.size + 1));
    let mut bytes = Vec::new();
    if let Err(error) = blob.read_to_end(&mut bytes) {
        return Err(blob.failure().unwrap_or(error)).with_context(context);
    }
    blob.finish(&digest, Some(descriptor.size))?;
    Ok(Document { digest, bytes })
}

/// The manifest of an image.
#[derive(Debug)]
pub(super) struct Resolved {
    /// As it was read.
    document: Document,
    /// Parsed.
    manifest: Value,
    /// Its media type, as it says it or its descriptor does.
    media_type: String,
}

/// From the first document, whose media type is not always known, to the manifest for `architecture`. The digests of the
/// documents on the way are added to `way`.
pub(super) fn resolve(
    blobs: &dyn Blobs,
    mut document: Document,
    media_type: &str,
    architecture: Architecture,
    name: &str,
    way: &mut Vec<Digest>,
) -> Result<Resolved> {
    let mut media_type = media_type.to_owned();
    for _ in 0..MAXIMUM_DEPTH {
        way.push(document.digest);
        let value: Value = parse(&document)?;
        media_type = kind(&document, &value, &media_type)?;
        if MANIFESTS.contains(&media_type.as_str()) {
            return Ok(Resolved { document, manifest: value, media_type });
        }
        let index: Index = parse(&document)?;
        let descriptor = select(&index.manifests, architecture, name)?;
        media_type.clone_from(&descriptor.media_type);
        document = read(blobs, descriptor)?;
    }
    Err(unsupported(format!("{name} has indexes inside indexes inside indexes"), None))
}

/// The entry for a platform: Linux and the architecture, the plainest variant, the first of several. A sole entry that does
/// not say what it is for is taken; its config will tell.
pub(super) fn select<'a>(
    entries: &'a [Descriptor],
    architecture: Architecture,
    name: &str,
) -> Result<&'a Descriptor> {
    let images: Vec<&Descriptor> =
        entries.iter().filter(|entry| entry.artifact().is_none()).collect();
    let fits = |entry: &&&Descriptor| {
        entry.platform.as_ref().is_some_and(|platform| {
            platform.os == "linux" && platform.architecture == architecture.oci()
        })
    };
    // Every arm64 is v8; amd64's v2 and up need newer CPUs than the plain one.
    let is_plain = |entry: &&&Descriptor| {
        let variant = entry.platform.as_ref().and_then(|platform| platform.variant.as_deref());
        matches!(variant, None | Some("" | "v8" | "v1"))
    };
    let fitting = || images.iter().filter(fits);
    if let Some(entry) = fitting().find(is_plain).or_else(|| fitting().next()) {
        return Ok(entry);
    }
    let unnamed: Vec<_> = images.iter().filter(|entry| entry.platform.is_none()).collect();
    if let [entry] = unnamed[..] {
        return Ok(entry);
    }
    let known: BTreeSet<&str> = images
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .map(|platform| platform.architecture.as_str())
        .collect();
    let known = match known.len() {
        0 => "no image for any".to_owned(),
        _ => format!("images for {}", Vec::from_iter(known).join(", ")),
    };
    // An image of one architecture only, which is none of ours: say why not.
    if let [entry] = images[..] {
        let platform = entry.platform.as_ref();
        let refused = platform.and_then(|platform| Architecture::refusal(&platform.architecture));
        if let Some(refused) = refused {
            return Err(refused.context(format!("taking the only image of {name}")));
        }
    }
    let wanted = architecture.oci();
    Err(unsupported(format!("{name} has no image for {wanted}; it has {known}"), None))
}

/// The media type that a document has or, if it does not say, that its shape has.
pub(super) fn media_type(document: &Value) -> &str {
    let own = document.get("mediaType").and_then(Value::as_str);
    own.unwrap_or(if document.get("manifests").is_some() { INDEXES[0] } else { OCI_MANIFEST })
}

/// What a document is, by the media type inside it, by that of its descriptor, by its shape; they may not contradict.
fn kind(document: &Document, value: &Value, described: &str) -> Result<String> {
    let blame = |reason: &str| corrupt(document.digest.to_string(), reason);
    if value.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
        let what = "manifests of another schema version than 2 are not supported";
        return Err(unsupported(what, Some("push the image again with a newer tool")));
    }
    let (is_index, is_manifest) = (value.get("manifests").is_some(), value.get("layers").is_some());
    let own = value.get("mediaType").and_then(Value::as_str).unwrap_or_default();
    let media_type = match (own, described) {
        ("", "") if is_index => INDEXES[0],
        ("", "") => OCI_MANIFEST,
        (own, "") => own,
        ("", described) => described,
        (own, described) if own == described => own,
        _ => return Err(blame("its media type is not the one of its descriptor")),
    };
    // A document that is both would be two images to two readers.
    match (INDEXES.contains(&media_type), MANIFESTS.contains(&media_type)) {
        (true, _) if is_index && !is_manifest => Ok(media_type.to_owned()),
        (_, true) if is_manifest && !is_index => Ok(media_type.to_owned()),
        (false, false) => Err(unsupported(format!("{media_type:?} is not an image"), None)),
        _ => Err(blame("its contents are not what its media type says")),
    }
}

fn parse<T: serde::de::DeserializeOwned>(document: &Document) -> Result<T> {
    serde_json::from_slice(&document.bytes)
        .map_err(|error| corrupt(document.digest.to_string(), error.to_string()))
}

/// Reads the config and joins it with the manifest.
pub(super) fn image(
    blobs: &dyn Blobs,
    resolved: Resolved,
    architecture: Architecture,
    reference: String,
    name: Option<String>,
) -> Result<Image> {
    let Resolved { document, manifest, media_type } = resolved;
    let parsed: Manifest = parse(&document)?;
    if !CONFIGS.contains(&parsed.config.media_type.as_str()) {
        let found = parsed.config.media_type;
        let what = format!("{reference} is not a container image: its config is {found:?}");
        return Err(unsupported(what, None));
    }
    let config = read(blobs, &parsed.config)?;
    let value: Value = parse(&config)?;
    let facts: Config = parse(&config)?;
    if facts.os != "linux" {
        return Err(unsupported(format!("{reference} is for {:?}, not for linux", facts.os), None));
    }
    if let Some(refused) = Architecture::refusal(&facts.architecture) {
        return Err(refused.context(format!("looking at {reference}")));
    }
    if facts.architecture != architecture.oci() {
        let (found, wanted) = (facts.architecture, architecture.oci());
        let what =
            format!("{reference} is an image for {found}, and one for {wanted} was asked for");
        let hint = Architecture::parse(&found).map(|other| format!("build with --arch {other}"));
        return Err(unsupported(what, hint.as_deref()));
    }
    let (layers, diff_ids) = (parsed.layers, facts.rootfs.diff_ids);
    if layers.len() != diff_ids.len() {
        let reason = format!("it has {} diff ids for {} layers", diff_ids.len(), layers.len());
        return Err(corrupt(config.digest.to_string(), reason));
    }
    let count = layers.len();
    let layers = layers.into_iter().zip(diff_ids).enumerate();
    let layers = layers.map(|(i, (layer, diff_id))| {
        record(layer, &diff_id, &media_type)
            .with_context(|| format!("reading layer {} of {count}", i + 1))
    });
    Ok(Image {
        layers: layers.collect::<Result<_>>()?,
        manifest_digest: document.digest.to_string(),
        reference,
        name,
        architecture,
        manifest,
        config: value,
    })
}

fn record(layer: Descriptor, diff_id: &str, manifest: &str) -> Result<LayerRecord> {
    if layer.urls.is_some_and(|urls| !urls.is_empty()) {
        let what = "layers that are kept outside of the image are not supported";
        return Err(unsupported(what, None));
    }
    if compression(&layer.media_type).is_none_or(|(kind, _)| kind != manifest) {
        let what = format!("layers of type {:?} are not supported in {manifest}", layer.media_type);
        return Err(unsupported(what, None));
    }
    Ok(LayerRecord {
        digest: Digest::parse(&layer.digest)?.to_string(),
        diff_id: Digest::parse(diff_id)?.to_string(),
        size: layer.size,
        media_type: layer.media_type,
    })
}

/// The manifest type that a layer type belongs to, and how its archive is compressed. Non-distributable and encrypted layers
/// are not here, and neither is docker's type in an OCI manifest: machines would not accept such an image as an update.
pub(super) fn compression(media_type: &str) -> Option<(&'static str, Compression)> {
    Some(match media_type {
        "application/vnd.oci.image.layer.v1.tar" => (OCI_MANIFEST, Compression::None),
        "application/vnd.oci.image.layer.v1.tar+gzip" => (OCI_MANIFEST, Compression::Gzip),
        "application/vnd.oci.image.layer.v1.tar+zstd" => (OCI_MANIFEST, Compression::Zstd),
        "application/vnd.docker.image.rootfs.diff.tar" => (DOCKER_MANIFEST, Compression::None),
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => (DOCKER_MANIFEST, Compression::Gzip),
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => (DOCKER_MANIFEST, Compression::Zstd),
        _ => return None,
    })
}
