//! The documents of an image as they are stored, byte for byte: for stores that keep them under their digests.

use std::io::Read;

use anyhow::{Context, Result};

use super::Source;
use super::digest::Digest;
use crate::error::corrupt;

/// Larger ones are not read when an image is opened either.
const MAXIMUM_SIZE: u64 = 4 << 20;

/// An image's documents.
#[derive(Clone, Debug)]
pub struct Documents {
    /// The platform's manifest; its digest is the image's.
    pub manifest: Vec<u8>,
    /// The config.
    pub config: Vec<u8>,
    /// Digest of the config: `sha256:…`.
    pub config_digest: String,
}

impl Source {
    /// Reads the documents once more, verified.
    pub fn documents(&self) -> Result<Documents> {
        let config_digest = self.image.manifest["config"]["digest"].as_str().unwrap_or_default();
        let size = self.image.manifest["config"]["size"].as_u64().unwrap_or_default();
        let (manifest, config) =
            (Digest::parse(&self.image.manifest_digest)?, Digest::parse(config_digest)?);
        let read = |digest: &Digest, reader: Box<dyn Read + Send + '_>| -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            let context = || format!("reading {digest}");
            reader.take(MAXIMUM_SIZE).read_to_end(&mut bytes).with_context(context)?;
            if Digest::of(&bytes) == *digest {
                Ok(bytes)
            } else {
                Err(corrupt(digest.to_string(), "its bytes have another digest"))
            }
        };
        Ok(Documents {
            manifest: read(&manifest, self.blobs.document(&manifest, MAXIMUM_SIZE)?)?,
            config: read(&config, self.blobs.blob(&config, size)?)?,
            config_digest: config_digest.to_owned(),
        })
    }
}
