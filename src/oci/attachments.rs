//! Signatures that are kept beside an image, in manifests of their own.
//!
//! ```text
//! tag sha256-<hex>.sig                 manifest: each layer a claim, its signature in the layer's annotations (cosign 1 and 2)
//! referrers of the digest,             manifests with the image as their subject: layers that are sigstore bundles
//! or the index tagged sha256-<hex>     (cosign 3), or the same as above
//! ```

use std::io::Read;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Blobs;
use super::digest::{Digest, Verified};
use super::manifest::{self, Descriptor, Index, MANIFESTS};
use super::registry::Registry;
use crate::error::{corrupt, unsupported};
use crate::signature::{Claim, Signature};

/// Signatures of one manifest that are looked at, and manifests that are searched for them.
pub(super) const MAXIMUM: usize = 128;

/// The largest signature; a bundle with certificates has 10 KB.
const MAXIMUM_SIZE: u64 = 1 << 20;

#[derive(Deserialize)]
struct Attachment {
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    subject: Option<Descriptor>,
}

/// The tag that cosign gives to the signatures of a digest.
pub(super) fn tag(about: &Digest) -> String {
    format!("sha256-{}.sig", about.hex())
}

/// Whether a layer, or an artifact, may hold a signature of an image.
pub(super) fn is_signature(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.dev.cosign.")
        || media_type.starts_with("application/vnd.dev.sigstore.bundle")
}

/// Whether a manifest says that it is about `about`.
pub(super) fn is_about(manifest: &[u8], about: &Digest) -> bool {
    let parsed: Option<Attachment> = serde_json::from_slice(manifest).ok();
    let subject = parsed.and_then(|attachment| attachment.subject);
    subject.is_some_and(|subject| subject.digest == about.to_string())
}

/// What a manifest with signatures in it claims. `place` says where the manifest was found.
pub(super) fn of_manifest(
    blobs: &dyn Blobs,
    manifest: &[u8],
    about: &Digest,
    place: &str,
) -> Result<Vec<Claim>> {
    let attachment: Attachment = serde_json::from_slice(manifest)
        .map_err(|error| corrupt(place.to_owned(), error.to_string()))?;
    let layers = attachment.layers.iter().filter(|layer| is_signature(&layer.media_type));
    let mut claims = Vec::new();
    for layer in layers.take(MAXIMUM) {
        let payload = Digest::parse(&layer.digest)
            .and_then(|digest| blob(blobs, &digest, layer.size, MAXIMUM_SIZE))
            .with_context(|| format!("reading {place}"))?;
        let annotation = |key: &str| layer.annotation(key).map(str::to_owned);
        claims.push(Claim {
            about: about.to_string(),
            place: place.to_owned(),
            signature: Signature::attached(&layer.media_type, payload, annotation),
        });
    }
    Ok(claims)
}

/// What a registry has beside an image. `blobs` are those of the image's repository.
pub(super) fn in_registry(
    blobs: &dyn Blobs,
    registry: &Registry,
    about: &Digest,
) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    let tag = tag(about);
    if let Some(document) = registry.tagged(&tag)? {
        claims.extend(of_manifest(blobs, &document.bytes, about, &tag)?);
    }
    let Some(referrers) = registry.referrers(about)? else { return Ok(claims) };
    let index: Index = serde_json::from_slice(&referrers)
        .map_err(|error| corrupt(format!("the referrers of {about}"), error.to_string()))?;
    // What the index says that they are is not always true: some registries take the type of an empty config.
    let manifests =
        index.manifests.iter().filter(|entry| MANIFESTS.contains(&entry.media_type.as_str()));
    for entry in manifests.take(MAXIMUM) {
        let document = manifest::read(blobs, entry)?;
        if is_about(&document.bytes, about) {
            let place = format!("referrer {}", entry.digest);
            claims.extend(of_manifest(blobs, &document.bytes, about, &place)?);
        }
    }
    Ok(claims)
}

/// The bytes of an attached blob, verified. `Unsupported`: there are more than `largest`.
pub(super) fn blob(blobs: &dyn Blobs, digest: &Digest, size: u64, largest: u64) -> Result<Vec<u8>> {
    if size > largest {
        let what = format!("an attachment of {size} bytes is larger than any real one");
        return Err(unsupported(what, None));
    }
    let mut blob = Verified::new(blobs.blob(digest, size)?.take(size + 1));
    let mut bytes = Vec::new();
    if let Err(error) = blob.read_to_end(&mut bytes) {
        return Err(blob.failure().unwrap_or(error).into());
    }
    blob.finish(digest, Some(size))?;
    Ok(bytes)
}
