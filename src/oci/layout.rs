//! Blobs in an OCI layout: a directory, or a tar archive of one that is read in place.
//!
//! ```text
//! oci-layout               {"imageLayoutVersion": "1.0.0"}
//! index.json               index of what is in it; annotations give tags
//! blobs/sha256/<hex>       every blob and document
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::Blobs;
use super::decompressed::Compression;
use super::digest::Digest;
use super::manifest::{Descriptor, Index, MAXIMUM_DOCUMENT, select};
use super::tar::{Input, MemberKind, Members};
use crate::architecture::Architecture;
use crate::error::{corrupt, unsupported};
use crate::tree::components;

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
    Archive { file: File, size: u64, members: BTreeMap<Vec<u8>, Place> },
}

/// Where in an archive a file's bytes are.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u64,
    size: u64,
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
            "{} is no OCI layout: it has no index.json",
            path.display()
        );
        layout.check_version()
    }

    /// A layout in a tar archive, whose members are looked up once.
    pub(super) fn archive(path: &Path) -> Result<Self> {
        let context = || format!("reading {}", path.display());
        let file = File::open(path).with_context(context)?;
        let facts = file.metadata().with_context(context)?;
        ensure!(facts.is_file(), "{} is not a file", path.display());
        let size = facts.len();
        let mut head = Vec::new();
        (&file).take(6).read_to_end(&mut head).with_context(context)?;
        if Compression::sniff(&head) != Compression::None || head.starts_with(b"\xfd7zXZ\0") {
            let hint = "decompress it, or write it again with `skopeo copy`";
            let what = format!("{} is compressed; layers already are", path.display());
            return Err(unsupported(what, Some(hint)));
        }
        let members = index(&file, size, path)?;
        if !members.contains_key(&b"index.json"[..]) {
            let what =
                format!("{} is no archive of an OCI layout: it has no index.json", path.display());
            if members.contains_key(&b"manifest.json"[..]) {
                let hint = "`skopeo copy docker-archive:OLD oci-archive:NEW` makes one";
                return Err(unsupported(
                    format!("{what}, but a manifest.json as docker writes it"),
                    Some(hint),
                ));
            }
            bail!(what);
        }
        Self { path: path.to_owned(), files: Files::Archive { file, size, members } }
            .check_version()
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
            Files::Archive { members, .. } => Ok(self.place(members, name)?.size),
        }
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send + '_>> {
        Ok(match &self.files {
            Files::Directory => {
                self.size(name)?;
                let path = self.path.join(name);
                Box::new(File::open(&path).with_context(|| format!("reading {}", path.display()))?)
            }
            Files::Archive { file, size, members } => {
                let Place { start, size: length } = self.place(members, name)?;
                // A member that the archive's end cuts off reads short, as a cut blob does.
                let end = start.saturating_add(length).min(*size);
                Box::new(Window { file, position: start, end })
            }
        })
    }

    fn place(&self, members: &BTreeMap<Vec<u8>, Place>, name: &str) -> Result<Place> {
        let place = members.get(name.as_bytes()).copied();
        place.with_context(|| format!("{} has no {name}", self.path.display()))
    }
}

impl Blobs for Layout {
    fn document(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send + '_>> {
        self.blob(digest, size)
    }

    fn blob(&self, digest: &Digest, _: u64) -> Result<Box<dyn Read + Send + '_>> {
        self.open(&format!("blobs/sha256/{}", digest.hex()))
    }
}

/// The files of an archive by their normal paths. Of several with one path the last counts, as when it is extracted.
fn index(file: &File, size: u64, path: &Path) -> Result<BTreeMap<Vec<u8>, Place>> {
    let window = Window { file, position: 0, end: size };
    let mut members = Members::new(window, path.display().to_string());
    let mut places = BTreeMap::new();
    while let Some(member) = members.next()? {
        if member.kind == MemberKind::File && member.sparse.is_none() {
            let name = components(&member.path).collect::<Vec<_>>().join(&b"/"[..]);
            places.insert(name, Place { start: members.position(), size: member.size });
        }
    }
    Ok(places)
}

/// A range of a file. Several may read one file at a time.
#[derive(Debug)]
struct Window<'a> {
    file: &'a File,
    position: u64,
    end: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..count], self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Input for Window<'_> {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let skipped = count.min(self.end.saturating_sub(self.position));
        self.position += skipped;
        Ok(skipped)
    }
}
