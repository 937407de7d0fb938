//! What an image says about itself: its manifest and config, read and verified, before any layer is unpacked.

use serde_json::Value;

use crate::architecture::Architecture;

/// One layer as the manifest and config describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRecord {
    /// Digest of the blob: `sha256:…`.
    pub digest: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Media type, as the manifest spells it.
    pub media_type: String,
    /// Digest of the uncompressed archive, from the config.
    pub diff_id: String,
}

/// An image for one platform.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The reference it was opened by, as a container tool spells it: `docker://quay.io/fedora/fedora-bootc:43`, `oci:DIR:TAG`.
    pub reference: String,
    /// What a machine calls it when nobody says otherwise: `quay.io/fedora/fedora-bootc:43`. For local sources the name that
    /// the index annotates it with, if it is a registry reference.
    pub name: Option<String>,
    /// The architecture of the image.
    pub architecture: Architecture,
    /// Digest of the platform's manifest: `sha256:…`.
    pub manifest_digest: String,
    /// The manifest.
    pub manifest: Value,
    /// The config.
    pub config: Value,
    /// Layers, lowest first.
    pub layers: Vec<LayerRecord>,
}

impl Image {
    /// A label of the config.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels()?.get(key)?.as_str()
    }

    /// All labels of the config.
    pub fn labels(&self) -> Option<&serde_json::Map<String, Value>> {
        self.config.get("config")?.get("Labels")?.as_object()
    }

    /// The version that people know it by: label `org.opencontainers.image.version`, else `version`.
    pub fn version(&self) -> Option<&str> {
        self.label("org.opencontainers.image.version").or_else(|| self.label("version"))
    }
}
