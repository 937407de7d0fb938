//! An image as it was published, byte for byte, in an OCI layout: for media whose installer reads it from there.
//!
//! ```text
//! oci-layout   index.json ─► blobs/sha256/<manifest> ─► <config> <layer> …
//! ```

use std::io::{self, Read};

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use super::digest::{Digest, Verified};
use super::{Documents, Source};
use crate::content::{Content, ContentStore};
use crate::error::{Corrupt, unsupported};
use crate::image::LayerRecord;
use crate::progress::{Progress, Stage, StageGuard};
use crate::tree::{Metadata, Tree};

/// Where blobs are in a layout (image-spec, image-layout.md).
const BLOBS: &str = "blobs/sha256";

impl Source {
    /// The image as the files of a layout with one manifest. Progress counts bytes of layers.
    ///
    /// Corrupt: a blob has not the promised digest or size. Unsupported: the place keeps layers unpacked, so that their bytes
    /// are not those that the manifest names.
    pub fn save(&self, contents: &ContentStore, progress: &Progress) -> Result<Tree> {
        let records = &self.image.layers;
        let total = records.iter().fold(0_u64, |sum, record| sum.saturating_add(record.size));
        let stage = progress.stage(Stage::Fetch, Some(total));
        let mut announced = Vec::new();
        for record in records {
            announced.push((Digest::parse(&record.digest)?, record.size));
        }
        self.blobs.announce(&announced);
        let mut tree = Tree::new(Metadata::root(0o755));
        for (number, record) in records.iter().enumerate() {
            // An image may have a layer twice.
            if tree.find(&path(&record.digest)).is_some() {
                continue;
            }
            let context = || format!("copying layer {} of {}", number + 1, records.len());
            if self.blobs.unpacked(number, record)?.is_some() {
                return Err(unsupported(
                    format!(
                        "{} keeps layers unpacked, and a medium carries them packed",
                        self.image.reference
                    ),
                    Some(
                        "name the image in a registry, or copy it into a layout first: skopeo copy containers-storage:… oci:DIR",
                    ),
                ));
            }
            let content = self.blob(record, contents, &stage).with_context(context)?;
            tree.put(&path(&record.digest), content);
        }
        self.blobs.complete();
        let Documents { manifest, config, config_digest } = self.documents()?;
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": self.media_type(),
                "digest": self.image.manifest_digest,
                "size": manifest.len(),
            }],
        });
        let files = [
            (path(&config_digest), config),
            (path(&self.image.manifest_digest), manifest),
            ("index.json".to_owned(), index.to_string().into_bytes()),
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ];
        for (path, bytes) in files {
            tree.put(&path, contents.insert_bytes(&bytes)?);
        }
        Ok(tree)
    }

    fn media_type(&self) -> &str {
        const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
        self.image.manifest["mediaType"].as_str().unwrap_or(OCI)
    }

    fn blob(
        &self,
        record: &LayerRecord,
        contents: &ContentStore,
        stage: &StageGuard,
    ) -> Result<Content> {
        let digest = Digest::parse(&record.digest)?;
        match self.blob_once(record, &digest, contents, stage) {
            Err(error) if error.is::<Corrupt>() && self.blobs.forget(&digest) => {
                self.blob_once(record, &digest, contents, stage)
            }
            outcome => outcome,
        }
    }

    fn blob_once(
        &self,
        record: &LayerRecord,
        digest: &Digest,
        contents: &ContentStore,
        stage: &StageGuard,
    ) -> Result<Content> {
        let blob = self.blobs.blob(digest, record.size)?;
        // One byte more than promised is enough to see that there are more.
        let mut blob = Verified::new(stage.read(blob).take(record.size.saturating_add(1)));
        let mut writer = contents.writer(record.size.saturating_add(1));
        let copied = io::copy(&mut blob, &mut writer);
        if let Some(failure) = blob.failure() {
            return Err(anyhow!(failure).context(format!("reading {digest}")));
        }
        copied.context("writing to the spool")?;
        blob.finish(digest, Some(record.size))?;
        writer.finish_early(&[])
    }
}

fn path(digest: &str) -> String {
    format!("{BLOBS}/{}", digest.trim_start_matches("sha256:"))
}
