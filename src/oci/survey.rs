//! What can be told of an image without its layers: platforms, sizes, labels, signatures.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use super::digest::Digest;
use super::manifest::{self, INDEXES};
use super::{Access, Connection, Reference, Unvouched, open_with};
use crate::architecture::Architecture;
use crate::progress::{Code, Progress};

/// An image as its documents describe it.
#[derive(Debug)]
pub struct Survey {
    /// The image for the architecture, with its documents.
    pub source: Unvouched,
    /// The first document: an index, or the manifest.
    pub top: TopFacts,
    /// What refers to the image's manifest or index as a signature; `None`: there was no registry to ask.
    pub signatures: Option<Vec<SignatureFacts>>,
}

/// The document that the name means.
#[derive(Clone, Debug, Serialize)]
pub struct TopFacts {
    /// Its digest.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// What it has, if it is an index: images first.
    pub entries: Vec<EntryFacts>,
}

/// An entry of an index.
#[derive(Clone, Debug, Serialize)]
pub struct EntryFacts {
    /// `linux/arm64/v8`; `None`: it does not say.
    pub platform: Option<String>,
    /// Digest of its manifest.
    pub digest: String,
    /// What it is when it is not an image: `attestation`, or an artifact's type.
    pub artifact: Option<String>,
}

/// Something that claims to vouch for the image. Nothing of it was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignatureFacts {
    /// `cosign` for its tags, else the type of the artifact.
    pub kind: String,
    /// Which digest it is about.
    pub about: String,
    /// Digest of the signature's manifest.
    pub digest: String,
}

/// Reads an image's documents, and looks for signatures in its registry. Of several platforms it takes `architecture`, else
/// the first of ours that there is.
pub fn survey(
    access: &Access,
    reference: &Reference,
    architecture: Option<Architecture>,
    progress: &Progress,
) -> Result<Survey> {
    let wanted = match architecture {
        Some(asked) => vec![asked],
        None => {
            let host = Architecture::host();
            let others = Architecture::ALL.into_iter().filter(|other| Some(*other) != host);
            host.into_iter().chain(others).collect()
        }
    };
    let mut first_error = None;
    for architecture in wanted {
        match open_with(access, reference, architecture, progress) {
            Ok(source) => return describe(source, access, progress),
            // Only a missing platform is worth another try.
            Err(error) if !error.is::<crate::error::Unsupported>() => return Err(error),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    Err(first_error.context("there is no architecture to look for")?)
}

fn describe(source: Unvouched, access: &Access, progress: &Progress) -> Result<Survey> {
    let value: Value = serde_json::from_slice(&source.top.bytes).context("reading the index")?;
    let media_type = manifest::media_type(&value).to_owned();
    let mut entries = Vec::new();
    if INDEXES.contains(&media_type.as_str()) {
        let index: manifest::Index =
            serde_json::from_slice(&source.top.bytes).context("reading the index")?;
        entries.extend(index.manifests.iter().map(|entry| EntryFacts {
            platform: entry.platform_name(),
            digest: entry.digest.clone(),
            artifact: entry.artifact().map(str::to_owned),
        }));
        entries.sort_by_key(|entry| entry.artifact.is_some());
    }
    let top = TopFacts { digest: source.top.digest.to_string(), media_type, entries };
    let signatures = match (&source.connection, access.offline) {
        (Some(connection), false) => signatures(connection, &source)
            .inspect_err(|error| {
                progress
                    .warn(Code::Signatures, format!("signatures cannot be looked for: {error:#}"));
            })
            .ok(),
        _ => None,
    };
    Ok(Survey { source, top, signatures })
}

/// What says of itself that it is about the image's manifest or its index.
fn signatures(connection: &Connection, source: &Unvouched) -> Result<Vec<SignatureFacts>> {
    let registry = connection.registry()?;
    let mut about = vec![Digest::parse(&source.image.manifest_digest)?];
    if source.top.digest != about[0] {
        about.push(source.top.digest);
    }
    let mut found = Vec::new();
    for digest in about {
        let mut tell = |kind: &str, signature: String| {
            found.push(SignatureFacts {
                kind: kind.to_owned(),
                about: digest.to_string(),
                digest: signature,
            });
        };
        let tag = format!("{}.sig", digest.to_string().replace(':', "-"));
        if let Some(document) = registry.tagged(&tag)? {
            tell("cosign", document.digest.to_string());
        }
        let index: Option<manifest::Index> =
            registry.referrers(&digest)?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        for entry in index.map(|index| index.manifests).unwrap_or_default() {
            tell(entry.artifact_type.as_deref().unwrap_or("unknown type"), entry.digest.clone());
        }
    }
    Ok(found)
}
