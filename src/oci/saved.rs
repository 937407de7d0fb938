//! An image in an OCI layout, byte for byte as it was published wherever its layers are kept as blobs: for media whose installer
//! reads it from there.
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
use crate::error::Corrupt;
use crate::image::{Image, LayerRecord};
use crate::progress::{Code, Progress, Stage, StageGuard};
use crate::tree::{Metadata, Tree};

/// Where blobs are in a layout (image-spec, image-layout.md).
const BLOBS: &str = "blobs/sha256";

/// An image in a layout.
#[derive(Debug)]
pub struct Saved {
    /// The files of the layout.
    pub layout: Tree,
    /// The image as it is there: another manifest if its layers had to be packed again.
    pub image: Image,
}

impl Source {
    /// The image as the files of a layout with one manifest. Progress counts bytes of layers.
    ///
    /// A store keeps layers unpacked; they are packed again, which changes the manifest, and a warning says so.
    /// Corrupt: a blob has not the promised digest or size.
    pub fn save(&self, contents: &ContentStore, progress: &Progress) -> Result<Saved> {
        let records = &self.image.layers;
        let total = records.iter().fold(0_u64, |sum, record| sum.saturating_add(record.size));
        let stage = progress.stage(Stage::Fetch, Some(total));
        let mut announced = Vec::new();
        for record in records {
            announced.push((Digest::parse(&record.digest)?, record.size));
        }
        self.blobs.announce(&announced);
        let mut tree = Tree::new(Metadata::root(0o755));
        let mut image = self.image.clone();
        let Documents { mut manifest, config, config_digest } = self.documents()?;
        if let Some(blobs) = self.packed(contents, &stage)? {
            for (content, record) in blobs {
                record.put_into(&mut image, &mut tree, content);
            }
            manifest = serde_json::to_vec(&image.manifest).context("writing the manifest")?;
            image.manifest_digest = Digest::of(&manifest).to_string();
            progress.warn(Code::Repacked, format!(
                "{} keeps its layers unpacked; they are packed again, and the copy has the manifest digest {} instead of {}",
                self.image.reference, image.manifest_digest, self.image.manifest_digest
            ));
        } else {
            self.copy_layers(&mut tree, contents, &stage)?;
        }
        self.blobs.complete();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": self.media_type(),
                "digest": image.manifest_digest,
                "size": manifest.len(),
            }],
        });
        let files = [
            (path(&config_digest), config),
            (path(&image.manifest_digest), manifest),
            ("index.json".to_owned(), index.to_string().into_bytes()),
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ];
        for (path, bytes) in files {
            tree.put(&path, contents.insert_bytes(&bytes)?);
        }
        Ok(Saved { layout: tree, image })
    }

    fn copy_layers(
        &self,
        tree: &mut Tree,
        contents: &ContentStore,
        stage: &StageGuard,
    ) -> Result<()> {
        let records = &self.image.layers;
        for (number, record) in records.iter().enumerate() {
            // An image may have a layer twice.
            if tree.find(&path(&record.digest)).is_some() {
                continue;
            }
            let context = || format!("copying layer {} of {}", number + 1, records.len());
            let content = self.blob(record, contents, stage).with_context(context)?;
            tree.put(&path(&record.digest), content);
        }
        Ok(())
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

pub(super) fn path(digest: &str) -> String {
    format!("{BLOBS}/{}", digest.trim_start_matches("sha256:"))
}
