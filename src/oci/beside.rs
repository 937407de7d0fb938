//! What lies beside an image in its repository: other tags, and bills of materials that are attached to it.
//!
//! ```text
//! tags/list                             names of tags, page by page (OCI distribution 1.1, "Listing Tags")
//! tag sha256-<hex>.sbom                 what `cosign attach sbom` pushes: each layer a document
//! tag sha256-<hex>.att                  what `cosign attest` pushes: layers are DSSE envelopes, annotated with predicateType
//! referrers of the digest               the same as artifacts of a type
//! entries of an index                   what BuildKit adds: manifests annotated vnd.docker.reference.type, layers in-toto
//! ```

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest::Digest;
use super::manifest::{self, Descriptor, INDEXES, Index};
use super::{Blobs, Unvouched, attachments};

/// Tags that are listed, at most: more than any repository of images has.
const MOST_TAGS: usize = 100_000;

/// Manifests of attachments that are looked into.
const MOST: usize = attachments::MAXIMUM;

/// The largest bill of materials that is read; Fedora's desktops' have 30 MB.
const LARGEST_SBOM: u64 = 128 << 20;

/// Types of documents, and the predicates of statements that hold them.
const DOCUMENTS: [(&str, &str); 6] = [
    ("text/spdx+json", "spdx"),
    ("text/spdx", "spdx"),
    ("application/spdx+json", "spdx"),
    ("spdx+json", "spdx"),
    ("application/vnd.cyclonedx+json", "cyclonedx"),
    ("application/vnd.cyclonedx+xml", "cyclonedx"),
];
const PREDICATES: [(&str, &str); 2] =
    [("https://spdx.dev/Document", "spdx"), ("https://cyclonedx.org/bom", "cyclonedx")];

/// A bill of materials that is attached to an image, or to the index that it is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// `spdx` or `cyclonedx`.
    pub form: &'static str,
    /// Digest of the manifest or index that it is about.
    pub about: String,
    /// Digest of the document, or of the envelope that it is in.
    pub digest: String,
    /// Bytes of it.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// Where it was found.
    pub place: String,
}

#[derive(Deserialize)]
struct TagList {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Layers {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

impl Unvouched {
    /// The tags of the image's repository; `None`: there is no registry to ask.
    pub fn tags(&self) -> Result<Option<Vec<String>>> {
        let Some(connection) = &self.connection else { return Ok(None) };
        let registry = connection.registry()?;
        let mut tags: Vec<String> = Vec::new();
        while tags.len() < MOST_TAGS {
            let list: TagList = serde_json::from_slice(&registry.tags(tags.last())?)?;
            let page = list.tags.unwrap_or_default();
            let before = tags.len();
            // Registries that know no pages send the first one again.
            for tag in page {
                if !tags.contains(&tag) || tags.len() > 1000 && tags.last() < Some(&tag) {
                    tags.push(tag);
                }
            }
            if tags.len() == before {
                break;
            }
        }
        Ok(Some(tags))
    }

    /// The digest that a tag of the same repository has; `None`: there is no such tag, or no registry.
    pub fn tag_digest(&self, tag: &str) -> Result<Option<String>> {
        let Some(connection) = &self.connection else { return Ok(None) };
        let document = connection.registry()?.tagged(tag)?;
        Ok(document.map(|document| document.digest.to_string()))
    }

    /// Annotations of the manifest, and of the index where the manifest has none of that name.
    pub fn annotations(&self) -> std::collections::BTreeMap<String, String> {
        let top: Value = serde_json::from_slice(&self.top.bytes).unwrap_or_default();
        let of = |document: &Value| {
            let map = document.get("annotations").and_then(Value::as_object).cloned();
            map.into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())))
        };
        of(&top).collect::<Vec<_>>().into_iter().chain(of(&self.image.manifest)).collect()
    }

    /// Bills of materials that are attached; `None`: none came with the image, and there is no registry to ask.
    pub fn sboms(&self, offline: bool) -> Result<Option<Vec<Attached>>> {
        let mut found = self.in_index()?;
        let connection = self.connection.as_ref().filter(|_| !offline);
        let Some(connection) = connection else {
            return Ok(if found.is_empty() { None } else { Some(found) });
        };
        let registry = connection.registry()?;
        for about in self.documents.iter().rev() {
            for suffix in ["sbom", "att"] {
                let tag = format!("sha256-{}.{suffix}", about.hex());
                if let Some(document) = registry.tagged(&tag)? {
                    found.extend(documents(&document.bytes, None, about, &tag));
                }
            }
            let Some(referrers) = registry.referrers(about)? else { continue };
            let Ok(index) = serde_json::from_slice::<Index>(&referrers) else { continue };
            for entry in index.manifests.iter().take(MOST) {
                let document = manifest::read(&*self.blobs, entry)?;
                if attachments::is_about(&document.bytes, about) {
                    let place = format!("referrer {}", entry.digest);
                    let own = entry.artifact_type.as_deref();
                    found.extend(documents(&document.bytes, own, about, &place));
                }
            }
        }
        Ok(Some(found))
    }

    /// What BuildKit put into the index.
    fn in_index(&self) -> Result<Vec<Attached>> {
        let mut found = Vec::new();
        let Ok(index) = serde_json::from_slice::<Index>(&self.top.bytes) else { return Ok(found) };
        let about = Digest::parse(&self.image.manifest_digest)?;
        let about_text = about.to_string();
        let entries = index.manifests.iter().filter(|entry| {
            entry.annotation("vnd.docker.reference.digest") == Some(about_text.as_str())
        });
        for entry in
            entries.filter(|entry| !INDEXES.contains(&entry.media_type.as_str())).take(MOST)
        {
            let document = manifest::read(&*self.blobs, entry)?;
            let place = format!("entry {} of the index", entry.digest);
            found.extend(documents(&document.bytes, None, &about, &place));
        }
        Ok(found)
    }

    /// The bytes of an attached document, or of the envelope that it is in.
    pub fn read_attached(&self, attached: &Attached) -> Result<Vec<u8>> {
        let digest = Digest::parse(&attached.digest)?;
        attachments::blob(&*self.blobs as &dyn Blobs, &digest, attached.size, LARGEST_SBOM)
    }
}

/// The documents among the layers of a manifest. `own`: the type of the artifact, for layers that have none.
fn documents(manifest: &[u8], own: Option<&str>, about: &Digest, place: &str) -> Vec<Attached> {
    let layers = serde_json::from_slice::<Layers>(manifest).map(|parsed| parsed.layers);
    let form = |layer: &Descriptor| {
        let predicate = ["predicateType", "in-toto.io/predicate-type"]
            .iter()
            .find_map(|key| layer.annotation(key))
            .and_then(|predicate| {
                PREDICATES.iter().find(|(known, _)| predicate.starts_with(known))
            });
        let known = |media_type: &str| {
            let bare = media_type.split(';').next().unwrap_or_default().trim();
            DOCUMENTS.iter().find(|(known, _)| *known == bare).map(|(_, form)| *form)
        };
        known(&layer.media_type).or(predicate.map(|(_, form)| *form)).or_else(|| known(own?))
    };
    let layers = layers.unwrap_or_default();
    let found = layers.iter().take(MOST).filter_map(|layer| {
        Some(Attached {
            form: form(layer)?,
            about: about.to_string(),
            digest: layer.digest.clone(),
            size: layer.size,
            media_type: layer.media_type.clone(),
            place: place.to_owned(),
        })
    });
    found.collect()
}
