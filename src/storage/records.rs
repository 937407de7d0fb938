//! What a store says about its layers and images: two JSON documents, in the words of containers-storage.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Found, sha256};

/// A layer, with all below it.
#[derive(Clone, Debug)]
pub(super) struct LayerRecord {
    pub(super) id: String,
    pub(super) parent: Option<String>,
    pub(super) created: String,
    /// Digest and size of the blob.
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) diff_id: String,
    pub(super) media_type: String,
    pub(super) found: Found,
}

/// An image.
#[derive(Clone, Debug)]
pub(super) struct ImageRecord {
    pub(super) id: String,
    pub(super) digest: String,
    pub(super) names: Vec<String>,
    /// The topmost layer.
    pub(super) layer: Option<String>,
    /// Documents by name.
    pub(super) documents: Vec<(String, Vec<u8>)>,
    pub(super) created: String,
}

/// `layers.json`.
pub(super) fn layers(records: &[LayerRecord]) -> Vec<u8> {
    let layer = |record: &LayerRecord| {
        let mut layer = Map::new();
        layer.insert("id".to_owned(), record.id.clone().into());
        if let Some(parent) = &record.parent {
            layer.insert("parent".to_owned(), parent.clone().into());
        }
        for (key, value) in [
            ("created", Value::from(record.created.clone())),
            ("compressed-diff-digest", record.digest.clone().into()),
            ("compressed-size", record.size.into()),
            ("diff-digest", record.diff_id.clone().into()),
            ("diff-size", record.found.size.into()),
            ("compression", compression(&record.media_type)),
            ("uidset", record.found.uids.iter().copied().collect()),
            ("gidset", record.found.gids.iter().copied().collect()),
        ] {
            if !value.is_null() {
                layer.insert(key.to_owned(), value);
            }
        }
        Value::from(layer)
    };
    Value::from(records.iter().map(layer).collect::<Vec<_>>()).to_string().into_bytes()
}

/// The number that stands for a compression; none for none.
fn compression(media_type: &str) -> Value {
    match media_type.rsplit(['+', '.']).next() {
        Some("gzip") => 2.into(),
        Some("zstd") => 4.into(),
        _ => Value::Null,
    }
}

/// `images.json`.
pub(super) fn images(records: &[ImageRecord]) -> Vec<u8> {
    let image = |record: &ImageRecord| {
        let each = |value: fn(&[u8]) -> Value| -> Map<String, Value> {
            record.documents.iter().map(|(name, bytes)| (name.clone(), value(bytes))).collect()
        };
        let names: Vec<&String> = record.documents.iter().map(|(name, _)| name).collect();
        json!({
            "id": record.id,
            "digest": record.digest,
            "names": record.names,
            "names-history": record.names,
            "layer": record.layer,
            "metadata": "{}",
            "big-data-names": names,
            "big-data-sizes": each(|bytes| bytes.len().into()),
            "big-data-digests": each(|bytes| format!("sha256:{}", sha256(bytes)).into()),
            "created": record.created,
        })
    };
    Value::from(records.iter().map(image).collect::<Vec<_>>()).to_string().into_bytes()
}

/// The name of the file that has a document: as it is if that is plain, else in base64.
pub(super) fn file_name(name: &str) -> String {
    let plain = |c: char| c == '.' || c.is_ascii_digit() || c.is_ascii_lowercase();
    if name.chars().all(plain) { name.to_owned() } else { format!("={}", STANDARD.encode(name)) }
}
