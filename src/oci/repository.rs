//! A repository of a registry, read and written by whoever publishes something that is no image to be unpacked.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::access::Access;
use super::decompressed::{Compression, decompressed};
use super::digest::{Digest, Verified};
use super::manifest::INDEXES;
use super::reference::{Place, Reference};
pub use super::registry::Part;
use super::registry::Writer;
use super::registry::conf::Registries;
use crate::error::{corrupt, unsupported};
use crate::progress::{Progress, Stage};
use crate::sha256::Sha256;

/// Media type of OCI's manifests.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Bytes to be sent, with their digest.
#[derive(Clone, Debug)]
pub struct Blob {
    parts: Vec<Part>,
    /// `sha256:…`.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

impl Blob {
    /// A blob in memory.
    pub fn of_bytes(bytes: Vec<u8>) -> Self {
        let (digest, size) = (Digest::of(&bytes).to_string(), bytes.len() as u64);
        Self { parts: vec![Part::Bytes(bytes)], digest, size }
    }

    /// A file as a blob; it is read to hash it.
    pub fn of_file(path: &Path) -> Result<Self> {
        let context = || format!("looking at {}", path.display());
        let metadata = path.metadata().with_context(context)?;
        if !metadata.is_file() {
            bail!("{} is not a file", path.display());
        }
        Self::of_parts(vec![Part::File(path.to_owned(), metadata.len())])
            .with_context(|| format!("hashing {}", path.display()))
    }

    /// Pieces one after the other.
    pub fn of_parts(parts: Vec<Part>) -> Result<Self> {
        let mut hash = Sha256::new();
        let mut size = 0;
        for part in &parts {
            size += io::copy(&mut part.open()?, &mut Hashing(&mut hash))?;
        }
        if size != parts.iter().map(Part::size).sum::<u64>() {
            bail!("a file changed while it was read");
        }
        Ok(Self { parts, digest: Digest::from(hash).to_string(), size })
    }
}

struct Hashing<'a>(&'a mut Sha256);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A repository, connected to with leave to write or just to read.
pub struct Repository {
    writer: Writer,
    /// Bytes of the largest disk that is fetched.
    limit: u64,
}

impl Repository {
    /// Connects. `Unsupported` if the reference is not one of a registry.
    pub fn open(reference: &Reference, access: &Access, writes: bool) -> Result<Self> {
        let Place::Registry(name) = &reference.0 else {
            return Err(unsupported(
                format!("{reference} is not in a registry"),
                Some("name a place such as docker://quay.io/NAME/REPOSITORY:TAG"),
            ));
        };
        let places = access.places.as_ref();
        let registries = places.map(Registries::load).transpose()?.unwrap_or_default();
        let writer = Writer::open(&name.reference, access, &registries, writes)?;
        Ok(Self { writer, limit: access.budget.limits().image_size })
    }

    /// Registry and repository: `quay.io/x/y`.
    pub fn name(&self) -> String {
        self.writer.name()
    }

    /// The tag or digest of the reference.
    pub fn named(&self) -> String {
        self.writer.named()
    }

    /// Sends a blob unless it is there. Returns whether it was sent.
    pub fn put_blob(&self, blob: &Blob, progress: &Progress) -> Result<bool> {
        if self.writer.has_blob(&blob.digest)? {
            return Ok(false);
        }
        let stage = progress.stage(Stage::Push, Some(blob.size));
        let sent = Arc::new(AtomicU64::new(0));
        self.writer.put_blob(&blob.digest, &blob.parts, &sent)?;
        stage.advance(blob.size);
        Ok(true)
    }

    /// Sends a manifest or an index, under a tag or under its digest. Returns its digest.
    ///
    /// One with a subject is entered in the index that stands for the registry's list of referrers, if it has no such list
    /// (OCI distribution 1.1, "Referrers Tag Schema").
    pub fn put_manifest(&self, manifest: &Value, tag: Option<&str>) -> Result<Pushed> {
        let bytes = serde_json::to_vec(manifest).context("writing a manifest")?;
        let digest = Digest::of(&bytes).to_string();
        let media_type = manifest["mediaType"].as_str().unwrap_or(MANIFEST);
        let knows = self.writer.put_manifest(tag.unwrap_or(&digest), media_type, &bytes)?;
        let pushed = Pushed { digest, size: bytes.len() as u64 };
        if let Some(subject) = manifest["subject"]["digest"].as_str().filter(|_| !knows.0) {
            self.refer(subject, manifest, &pushed)?;
        }
        Ok(pushed)
    }

    fn refer(&self, subject: &str, manifest: &Value, pushed: &Pushed) -> Result<()> {
        let tag = subject.replace(':', "-");
        let mut index = match self.document(&tag)? {
            Some(index) => index,
            None => json!({ "schemaVersion": 2, "mediaType": INDEXES[0], "manifests": [] }),
        };
        let list = index["manifests"].as_array_mut();
        let list = list.ok_or_else(|| corrupt(&tag, "the list of referrers has no manifests"))?;
        if list.iter().all(|one| one["digest"] != pushed.digest) {
            list.push(json!({
                "mediaType": MANIFEST,
                "digest": pushed.digest,
                "size": pushed.size,
                "artifactType": manifest["artifactType"],
                "annotations": manifest["annotations"],
            }));
        }
        self.put_manifest(&index, Some(&tag)).map(drop)
    }

    /// A manifest or an index by tag or digest; `None`: there is none.
    pub fn document(&self, named: &str) -> Result<Option<Value>> {
        let Some(bytes) = self.writer.manifest(named)? else { return Ok(None) };
        if named.starts_with("sha256:") && Digest::of(&bytes) != Digest::parse(named)? {
            return Err(corrupt(named, "its bytes have another digest"));
        }
        let document = serde_json::from_slice(&bytes);
        document.map(Some).map_err(|error| corrupt(named, error.to_string()))
    }

    /// Writes a blob out, verified.
    pub fn copy_blob(
        &self,
        digest: &str,
        size: u64,
        out: &mut dyn io::Write,
        progress: &Progress,
    ) -> Result<()> {
        let digest = Digest::parse(digest)?;
        self.refuse_huge(size)?;
        let stage = progress.stage(Stage::Fetch, Some(size));
        let mut verified = Verified::new(stage.read(self.writer.blob(&digest, size)));
        let context = || format!("fetching {digest}");
        let copied = io::copy(&mut (&mut verified).take(size), out);
        verified.finish(&digest, Some(size)).with_context(context)?;
        copied.map(drop).with_context(context)
    }

    /// Writes out the disk in a containerDisk's layer, verified: the one file in `disk/`. Returns its name.
    pub fn extract_disk(
        &self,
        digest: &str,
        size: u64,
        out: &mut dyn io::Write,
        progress: &Progress,
    ) -> Result<String> {
        let digest = Digest::parse(digest)?;
        self.refuse_huge(size)?;
        let stage = progress.stage(Stage::Fetch, Some(size));
        let mut verified = Verified::new(stage.read(self.writer.blob(&digest, size)));
        let context = || format!("fetching {digest}");
        let name = unpack_disk(&mut verified, &digest, self.limit, out);
        // What is wrong with the bytes counts more than what came of that.
        verified.finish(&digest, Some(size)).with_context(context)?;
        name.with_context(context)
    }

    fn refuse_huge(&self, size: u64) -> Result<()> {
        if size > self.limit {
            return Err(unsupported(
                format!("a disk of {} MiB is larger than the limit", size >> 20),
                Some("raise the limit with --max-image-size"),
            ));
        }
        Ok(())
    }
}

/// The one file in `disk/` of a layer.
fn unpack_disk(
    layer: &mut (dyn Read + Send),
    digest: &Digest,
    limit: u64,
    out: &mut dyn io::Write,
) -> Result<String> {
    let mut head = [0; 4];
    layer.read_exact(&mut head)?;
    let compression = Compression::sniff(&head);
    let layer = decompressed(io::Cursor::new(head).chain(layer), compression, &digest.to_string())?;
    let mut archive = tar::Archive::new(layer);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path_bytes().into_owned();
        let path = path.strip_prefix(b"./").unwrap_or(&path);
        let Some(name) = path.strip_prefix(b"disk/").filter(|name| !name.is_empty()) else {
            continue;
        };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(name).into_owned();
        let copied = io::copy(&mut (&mut entry).take(limit.saturating_add(1)), out)?;
        if copied > limit {
            return Err(unsupported(
                format!("{name} is larger than {} MiB", limit >> 20),
                Some("raise the limit with --max-image-size"),
            ));
        }
        return Ok(name);
    }
    Err(unsupported(
        "the image has no file in /disk, so it is not a containerDisk",
        Some("`bootpress build` makes disks of bootc images"),
    ))
}

/// A manifest in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// `sha256:…`.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}
