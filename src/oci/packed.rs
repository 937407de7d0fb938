//! Layers that a store keeps unpacked, packed again: the same archives, with the same diff IDs, compressed with gzip.
//!
//! How a registry had compressed them nobody knows any more, so the blobs get other digests, and so does the manifest.

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::digest::{Digest, Verified};
use super::saved::path;
use super::{MAXIMUM_THREADS, Source};
use crate::content::{Content, ContentStore, ContentWriter};
use crate::error::corrupt;
use crate::image::{Image, LayerRecord};
use crate::progress::StageGuard;
use crate::sha256::Sha256;
use crate::tree::Tree;

/// How much larger than its record a packed layer may become, tried in turn: room in the spool is reserved by address only.
const FACTORS: [u64; 3] = [2, 32, 512];

/// Bytes that are reserved besides.
const MARGIN: u64 = 64 << 20;

/// A layer after it was packed.
pub(super) struct PackedLayer {
    number: usize,
    digest: Digest,
    size: u64,
}

impl PackedLayer {
    /// Puts the blob into a layout, and what it is now into the image.
    pub(super) fn put_into(self, image: &mut Image, layout: &mut Tree, content: Content) {
        let digest = self.digest.to_string();
        let blob = path(&digest);
        // An image may have a layer twice.
        if layout.find(&blob).is_none() {
            layout.put(&blob, content);
        }
        let layer = &mut image.manifest["layers"][self.number];
        let docker = layer["mediaType"].as_str().is_some_and(|name| name.contains(".docker."));
        let media_type = if docker {
            "application/vnd.docker.image.rootfs.diff.tar.gzip"
        } else {
            "application/vnd.oci.image.layer.v1.tar+gzip"
        };
        layer["mediaType"] = media_type.into();
        layer["digest"] = digest.as_str().into();
        layer["size"] = self.size.into();
        // Tables of contents of zstd:chunked and eStargz belong to the blobs that were.
        if let Some(Value::Object(annotations)) = layer.get_mut("annotations") {
            annotations.retain(|key, _| {
                !key.starts_with("io.github.containers.") && !key.starts_with("io.containers.")
            });
        }
        let record = &mut image.layers[self.number];
        (record.digest, record.size) = (digest, self.size);
        media_type.clone_into(&mut record.media_type);
    }
}

impl Source {
    /// The layers as new blobs, lowest first; `None`: they are kept as blobs already. Several are packed at once.
    pub(super) fn packed(
        &self,
        contents: &ContentStore,
        stage: &StageGuard,
    ) -> Result<Option<Vec<(Content, PackedLayer)>>> {
        let records = &self.image.layers;
        match records.first() {
            Some(first) if self.blobs.unpacked(0, first)?.is_some() => {}
            _ => return Ok(None),
        }
        let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(record) = records.get(number) else { return };
            let outcome = self
                .pack(number, record, contents)
                .with_context(|| format!("packing layer {} of {}", number + 1, records.len()));
            stage.advance(record.size);
            if outcome.is_err() {
                // Nobody needs the others any more.
                next.store(records.len(), Ordering::Relaxed);
            }
            outcomes.lock().expect("no thread panics with the lock").push(outcome);
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(MAXIMUM_THREADS).min(records.len()) {
                scope.spawn(work);
            }
        });
        let outcomes = outcomes.into_inner().expect("no thread panics with the lock");
        let mut layers = outcomes.into_iter().collect::<Result<Vec<_>>>()?;
        layers.sort_by_key(|(_, layer)| layer.number);
        Ok(Some(layers))
    }

    fn pack(
        &self,
        number: usize,
        record: &LayerRecord,
        contents: &ContentStore,
    ) -> Result<(Content, PackedLayer)> {
        for factor in FACTORS {
            let room = record.size.saturating_mul(factor).saturating_add(MARGIN);
            if let Some((content, digest)) =
                self.pack_into(number, record, contents.writer(room))?
            {
                let size = content.size;
                return Ok((content, PackedLayer { number, digest, size }));
            }
        }
        Err(corrupt(
            &record.diff_id,
            format!("it is far larger than the {} bytes of its record", record.size),
        ))
    }

    /// One attempt; `None`: the room is too small.
    fn pack_into(
        &self,
        number: usize,
        record: &LayerRecord,
        writer: ContentWriter<'_>,
    ) -> Result<Option<(Content, Digest)>> {
        let archive =
            self.blobs.unpacked(number, record)?.context("the other layers are unpacked")?;
        let mut archive = Verified::new(archive);
        let mut encoder = GzEncoder::new(Hashed::new(writer), Compression::default());
        let copied = io::copy(&mut archive, &mut encoder);
        if let Some(failure) = archive.failure() {
            return Err(match failure.kind() {
                // What the store says about its own files.
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                    corrupt(record.diff_id.as_str(), failure.to_string())
                }
                _ => anyhow!(failure).context(format!("reading {}", record.diff_id)),
            });
        }
        let full = encoder.get_ref().full;
        let finished = copied.and_then(|_| encoder.finish());
        let hashed = match finished {
            Ok(hashed) if !hashed.full => hashed,
            Ok(_) => return Ok(None),
            Err(error) if !full && error.kind() != io::ErrorKind::WriteZero => {
                return Err(anyhow!(error).context("writing to the spool"));
            }
            Err(_) => return Ok(None),
        };
        archive.finish(&Digest::parse(&record.diff_id)?, None)?;
        Ok(Some((hashed.writer.finish_early(&[])?, hashed.hash.into())))
    }
}

/// Hashes what is written through it, and remembers whether there was no room for it.
struct Hashed<'a> {
    writer: ContentWriter<'a>,
    hash: Sha256,
    full: bool,
}

impl<'a> Hashed<'a> {
    fn new(writer: ContentWriter<'a>) -> Self {
        Self { writer, hash: Sha256::new(), full: false }
    }
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.writer.room() < bytes.len() as u64 {
            self.full = true;
            return Err(io::ErrorKind::WriteZero.into());
        }
        let count = self.writer.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
