//! Blobs in an OCI layout: a directory, or a tar archive of one that is read in place.
//!
//! ```text
//! oci-layout               {"imageLayoutVersion": "1.0.0"}
//! index.json               index of what is in it; annotations give tags
//! blobs/sha256/<hex>       every blob and document
//! ```

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::archive::Archive;
use super::digest::Digest;
use super::manifest::{self, Descriptor, Index, MANIFESTS, MAXIMUM_DOCUMENT, select};
use super::{Blobs, attachments};
use crate::architecture::Architecture;
use crate::error::{corrupt, unsupported};
use crate::signature::{Claim, Wanted};

/// An OCI layout.
#[derive(Debug)]
pub(super) struct Layout {
    /// What the user calls it.
    path: PathBuf,
    files: Files,
}

#[derive(Debug)]
enum Files {
    Directory,
    Archive(Archive),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

impl Layout {
    /// A layout in a directory.
    pub(super) fn directory(path: &Path) -> Result<Self> {
        let layout = Self { path: path.to_owned(), files: Files::Directory };
        ensure!(path.is_dir(), "{} is not a directory", path.display());
        ensure!(
            path.join("index.json").is_file(),
            "{} is not an OCI layout: it has no index.json",
            path.display()
        );
        layout.check_version()
    }

    /// A layout in a tar archive; see [`Archive::open`].
    pub(super) fn archive(path: &Path, spool: &Path) -> Result<Self> {
        let archive = Archive::open(path, spool)?;
        let path = archive.path().to_owned();
        if !archive.has("index.json") {
            let shown = path.display();
            let what = format!("{shown} is not an archive of an OCI layout: it has no index.json");
            if archive.has("manifest.json") {
                let hint = format!("say docker-archive:{shown}");
                return Err(unsupported(
                    format!("{what}, but a manifest.json as docker writes it"),
                    Some(&hint),
                ));
            }
            bail!(what);
        }
        Self { path, files: Files::Archive(archive) }.check_version()
    }

    /// The descriptor that a tag names; without a tag, the only one there is. Several for different platforms count as one.
    pub(super) fn find(&self, tag: Option<&str>, architecture: Architecture) -> Result<Descriptor> {
        let index: Index = self.json("index.json")?;
        let mut entries = index.manifests;
        entries.retain(|entry| entry.artifact().is_none());
        let tags: BTreeSet<Option<&str>> = entries.iter().map(Descriptor::tag).collect();
        let path = self.path.display();
        let listed = match Vec::from_iter(tags.iter().copied().flatten()) {
            tags if tags.is_empty() => "there are no tags".to_owned(),
            tags => format!("there is {}", tags.join(", ")),
        };
        match tag {
            _ if entries.is_empty() => bail!("{path} has no image in it"),
            Some(tag) if !entries.iter().any(|entry| entry.is_called(tag)) => {
                bail!("{path} has no image with the tag {tag}; {listed}");
            }
            Some(tag) => entries.retain(|entry| entry.is_called(tag)),
            None if tags.len() > 1 => bail!("{path} has several images, say which; {listed}"),
            None => {}
        }
        match &entries[..] {
            [entry] => Ok(entry.clone()),
            entries => select(entries, architecture, &path.to_string()).cloned(),
        }
    }

    fn check_version(self) -> Result<Self> {
        // The marker is required by the specification, but some tools write layouts without it, and others read them.
        if self.size("oci-layout").is_ok() {
            let marker: Marker = self.json("oci-layout")?;
            let version = marker.image_layout_version;
            if !version.starts_with("1.") {
                let what = format!("version {version} of OCI layouts is not supported");
                return Err(unsupported(what, None));
            }
        }
        Ok(self)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let path = self.path.join(name);
        let (mut bytes, size) = (Vec::new(), self.size(name)?);
        if size > MAXIMUM_DOCUMENT {
            let what = format!("{} of {size} bytes is larger than any real one", path.display());
            return Err(unsupported(what, None));
        }
        self.open(name)?
            .take(MAXIMUM_DOCUMENT)
            .read_to_end(&mut bytes)
            .with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| corrupt(path.display().to_string(), error.to_string()))
    }

    fn size(&self, name: &str) -> Result<u64> {
        match &self.files {
            Files::Directory => {
                let path = self.path.join(name);
                let facts =
                    path.metadata().with_context(|| format!("reading {}", path.display()))?;
                ensure!(facts.is_file(), "{} is not a file", path.display());
                Ok(facts.len())
            }
            Files::Archive(archive) => archive.size(name),
        }
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send + '_>> {
        Ok(match &self.files {
            Files::Directory => {
                self.size(name)?;
                let path = self.path.join(name);
                Box::new(File::open(&path).with_context(|| format!("reading {}", path.display()))?)
            }
            Files::Archive(archive) => Box::new(archive.read(name)?),
        })
    }
}

impl Blobs for Layout {
    fn document(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send + '_>> {
        self.blob(digest, size)
    }

    fn blob(&self, digest: &Digest, _: u64) -> Result<Box<dyn Read + Send + '_>> {
        self.open(&format!("blobs/sha256/{}", digest.hex()))
    }

    /// What `cosign save` and copies of whole repositories leave beside an image.
    fn claims(&self, about: &Digest, wanted: &Wanted) -> Result<Vec<Claim>> {
        if !wanted.attachments {
            return Ok(Vec::new());
        }
        let index: Index = self.json("index.json")?;
        let tag = attachments::tag(about);
        let mut claims = Vec::new();
        for entry in index.manifests.iter().take(attachments::MAXIMUM) {
            let tagged =
                entry.tag().is_some_and(|name| name == tag || name.ends_with(&format!(":{tag}")));
            let attached = entry.annotation("kind") == Some("dev.cosignproject.cosign/sigs");
            // An image has no subject; reading a manifest is cheaper than guessing what it is.
            if !MANIFESTS.contains(&entry.media_type.as_str()) {
                continue;
            }
            let document = manifest::read(self, entry)?;
            if tagged || attached || attachments::is_about(&document.bytes, about) {
                let place = format!("{} in {}", entry.digest, self.path.display());
                claims.extend(attachments::of_manifest(self, &document.bytes, about, &place)?);
            }
        }
        Ok(claims)
    }
}
