//! Disks to a registry, and back: what stands under a name, sent and fetched.
//!
//! ```text
//! push: hash ─► blobs that are not there yet ─► manifests by digest ─► what refers to them ─► the index, by its tag, last
//! pull: index ─(architecture, format)─► manifest ─► the one layer ─► a file
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use crate::architecture::Architecture;
use crate::error::{corrupt, unsupported};
use crate::oci::{Access, Blob, Part, Reference, Repository};
use crate::progress::Progress;
use crate::release::artifact::{self, Attachment, Disk, EMPTY, Shape, TITLE};

/// What to push, and where to.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// The place, with a tag.
    pub to: Reference,
    /// How the registry is reached.
    pub access: Access,
    /// How the disks are kept there.
    pub shape: Shape,
    /// The disks.
    pub disks: Vec<PushDisk>,
    /// Whether disks for other machines stay under the tag.
    pub add: bool,
    /// Whether the tag names an index, and not the one disk itself.
    pub index: bool,
}

/// A disk to push.
#[derive(Clone, Debug)]
pub struct PushDisk {
    /// The file.
    pub path: PathBuf,
    /// What it is.
    pub disk: Disk,
    /// Files that are about it.
    pub attachments: Vec<(Attachment, PathBuf)>,
}

/// What was pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PushReport {
    /// Registry, repository and tag.
    pub reference: String,
    /// Digest of the index.
    pub digest: String,
    /// The disks.
    pub disks: Vec<PushedDisk>,
}

/// A disk in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PushedDisk {
    /// The file.
    pub path: PathBuf,
    /// Digest of its manifest.
    pub digest: String,
    /// Digest of the blob that holds it.
    pub blob: String,
    /// What refers to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<PushedAttachment>,
}

/// Something that is about a disk, in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PushedAttachment {
    /// The file.
    pub path: PathBuf,
    /// Its media type.
    pub media_type: &'static str,
    /// Digest of the manifest that refers to the disk.
    pub digest: String,
    /// Digest of the file.
    pub blob: String,
    /// cosign's tag for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

impl PushRequest {
    /// Judges all that can be judged without the registry.
    pub fn check(&self) -> Result<()> {
        if self.to.is_by_digest() {
            return Err(unsupported(
                format!("{} names a digest, and what is pushed has its own", self.to),
                Some("name a tag"),
            ));
        }
        if !self.index && (self.disks.len() != 1 || self.add) {
            return Err(unsupported(
                "without an index a tag names one disk",
                Some("push disks one by one, or leave out --no-index and --add"),
            ));
        }
        let mut seen: Vec<Value> = Vec::new();
        for PushDisk { path, disk, attachments } in &self.disks {
            disk.check(self.shape)?;
            for file in attachments.iter().map(|(_, file)| file).chain([path]) {
                if !file.is_file() {
                    bail!("{} is not a file", file.display());
                }
            }
            let nothing = artifact::Blob { digest: "", size: 0 };
            let entry = disk.entry(self.shape, nothing)?;
            if seen.contains(&entry) {
                return Err(unsupported(
                    format!("{} is for the same machines as another disk", path.display()),
                    Some("push it under another tag"),
                ));
            }
            seen.push(entry);
        }
        Ok(())
    }
}

/// Pushes disks and what is about them. The tag is written last, so that it never names what is not whole.
pub fn push(request: &PushRequest, progress: &Progress) -> Result<PushReport> {
    request.check()?;
    let repository = Repository::open(&request.to, &request.access, true)?;
    let tag = repository.named();
    // The only manifest gets the tag itself.
    let own_tag = (!request.index).then_some(tag.as_str());
    let place = Pushing { repository: &repository, shape: request.shape, own_tag, progress };
    let (mut entries, mut disks) = (Vec::new(), Vec::new());
    for disk in &request.disks {
        let (entry, pushed) =
            place.disk(disk).with_context(|| format!("pushing {}", disk.path.display()))?;
        entries.push(entry);
        disks.push(pushed);
    }
    let reference = format!("{}:{tag}", repository.name());
    if let (false, [disk]) = (request.index, &disks[..]) {
        return Ok(PushReport { reference, digest: disk.digest.clone(), disks });
    }
    let older = if request.add { repository.document(&tag)? } else { None };
    let index = artifact::index(&entries, older.as_ref(), &common(&request.disks));
    let digest = repository.put_manifest(&index, Some(&tag))?.digest;
    Ok(PushReport { reference, digest, disks })
}

/// What is said about all of the disks.
fn common(disks: &[PushDisk]) -> BTreeMap<String, String> {
    let mut all = disks.iter().map(|disk| &disk.disk.annotations);
    let Some(first) = all.next() else { return BTreeMap::new() };
    let is_common = |(key, value): &(&String, &String)| {
        disks.iter().all(|disk| disk.disk.annotations.get(*key) == Some(*value))
    };
    let common = first.iter().filter(is_common);
    common.map(|(key, value)| (key.clone(), value.clone())).collect()
}

struct Pushing<'a> {
    repository: &'a Repository,
    shape: Shape,
    own_tag: Option<&'a str>,
    progress: &'a Progress,
}

impl Pushing<'_> {
    /// Sends a disk; its entry in the index.
    fn disk(&self, PushDisk { path, disk, attachments }: &PushDisk) -> Result<(Value, PushedDisk)> {
        let (manifest, blob) = match self.shape {
            Shape::ContainerDisk => {
                let size = path.metadata().context("looking at the disk")?.len();
                let (before, behind) = disk.container_layer(size)?;
                let file = Part::File(path.clone(), size);
                let layer = self.send(Blob::of_parts(vec![
                    Part::Bytes(before),
                    file,
                    Part::Bytes(behind),
                ])?)?;
                let config = serde_json::to_vec(&disk.container_config(&layer.digest))?;
                let config = self.send(Blob::of_bytes(config))?;
                (disk.container_manifest(named(&layer), named(&config)), layer)
            }
            shape => {
                let layer = self.send(Blob::of_file(path)?)?;
                let config = self.send(Blob::of_bytes(disk.config(shape)))?;
                (disk.manifest(shape, named(&layer), named(&config))?, layer)
            }
        };
        let pushed = self.repository.put_manifest(&manifest, None)?;
        let subject = artifact::Blob { digest: &pushed.digest, size: pushed.size };
        let entry = disk.entry(self.shape, subject)?;
        let attachments = self.attach(attachments, subject)?;
        if let Some(tag) = self.own_tag {
            self.repository.put_manifest(&manifest, Some(tag))?;
        }
        let (digest, blob) = (pushed.digest.clone(), blob.digest);
        Ok((entry, PushedDisk { path: path.clone(), digest, blob, attachments }))
    }

    /// Sends what is about a manifest: as referrers, and under cosign's tags.
    fn attach(
        &self,
        attachments: &[(Attachment, PathBuf)],
        subject: artifact::Blob<'_>,
    ) -> Result<Vec<PushedAttachment>> {
        let mut pushed = Vec::new();
        // One tag holds all statements; of SBOMs cosign knows one.
        let mut tags: BTreeMap<(&str, &str), Vec<Blob>> = BTreeMap::new();
        for (kind, path) in attachments {
            let context = || format!("attaching {}", path.display());
            let layer = self.send(Blob::of_file(path)?).with_context(context)?;
            let empty = self.send(Blob::of_bytes(EMPTY.to_vec()))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let manifest = artifact::referrer(*kind, &name, named(&layer), named(&empty), subject);
            let digest =
                self.repository.put_manifest(&manifest, None).with_context(context)?.digest;
            let tag =
                kind.tag().map(|(end, _)| format!("{}.{end}", subject.digest.replace(':', "-")));
            pushed.push(PushedAttachment {
                path: path.clone(),
                media_type: kind.media_type(),
                digest,
                blob: layer.digest.clone(),
                tag,
            });
            if let Some(key) = kind.tag() {
                tags.entry(key).or_default().push(layer);
            }
        }
        for ((end, media_type), layers) in &tags {
            let digests: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
            let config = serde_json::to_vec(&artifact::tagged_config(&digests))?;
            let config = self.send(Blob::of_bytes(config))?;
            let layers: Vec<artifact::Blob<'_>> = layers.iter().map(named).collect();
            let manifest = artifact::tagged(media_type, &layers, named(&config));
            let tag = format!("{}.{end}", subject.digest.replace(':', "-"));
            self.repository.put_manifest(&manifest, Some(&tag))?;
        }
        Ok(pushed)
    }

    fn send(&self, blob: Blob) -> Result<Blob> {
        self.repository.put_blob(&blob, self.progress)?;
        Ok(blob)
    }
}

fn named(blob: &Blob) -> artifact::Blob<'_> {
    artifact::Blob { digest: &blob.digest, size: blob.size }
}

/// What to pull.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// The name.
    pub from: Reference,
    /// How the registry is reached.
    pub access: Access,
    /// The machine's architecture.
    pub architecture: Architecture,
    /// Which one, if there are several: how the file's name ends, such as `qcow2`; the first that there is. None: it is the only one.
    pub formats: Vec<String>,
    /// Where the file goes.
    pub directory: PathBuf,
}

/// A disk that was pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PulledDisk {
    /// The file.
    pub path: PathBuf,
    /// Digest of the manifest.
    pub digest: String,
    /// Bytes of the file.
    pub size: u64,
}

/// Fetches a disk, of whatever shape. A file of its name is replaced when the new one is whole.
pub fn pull(request: &PullRequest, progress: &Progress) -> Result<PulledDisk> {
    let repository = Repository::open(&request.from, &request.access, false)?;
    let named = repository.named();
    let context = || format!("opening {}", request.from);
    let absent = || unsupported(format!("the registry has no {}", request.from), None);
    let top =
        repository.document(&named).and_then(|top| top.ok_or_else(absent)).with_context(context)?;
    let (digest, manifest) = match top.get("manifests") {
        None => (named, top),
        Some(_) => {
            let digest = choose(request, &repository, &top).with_context(context)?;
            let manifest = repository.document(&digest)?.ok_or_else(absent)?;
            (digest, manifest)
        }
    };
    let layers = manifest["layers"].as_array().map_or(&[][..], Vec::as_slice);
    let [layer] = layers else {
        return Err(unsupported(
            format!(
                "{} has {} layers, and a disk has one: it is something else",
                request.from,
                layers.len()
            ),
            Some("`bootpress build` makes disks of bootc images"),
        ));
    };
    let (blob, size) = (text(layer, "digest")?, layer["size"].as_u64().unwrap_or(0));
    let place = tempfile::Builder::new()
        .prefix(".bootpress-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(&request.directory)
        .with_context(|| format!("creating a file in {}", request.directory.display()))?;
    let title = layer["annotations"][TITLE].as_str();
    let name = match title {
        Some(title) => {
            repository.copy_blob(blob, size, &mut place.as_file(), progress)?;
            title.to_owned()
        }
        None => repository.extract_disk(blob, size, &mut place.as_file(), progress)?,
    };
    let path = request.directory.join(safe(&name)?);
    place.as_file().sync_all().context("writing the disk")?;
    if path.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory))
            .with_context(|| format!("replacing {}", path.display()));
    }
    let kept = place.persist(&path).with_context(|| format!("naming {}", path.display()))?;
    let size = kept.metadata().context("looking at the disk")?.len();
    Ok(PulledDisk { path, digest, size })
}

/// The entry of an index that is for a machine.
fn choose(request: &PullRequest, repository: &Repository, index: &Value) -> Result<String> {
    let names = [request.architecture.name(), artifact::go_name(request.architecture)];
    let entries = index["manifests"].as_array().map_or(&[][..], Vec::as_slice);
    let ours = |entry: &&Value| {
        let architecture = entry["platform"]["architecture"].as_str();
        architecture.is_none_or(|name| names.contains(&name))
    };
    let mut found = Vec::new();
    for entry in entries.iter().filter(ours) {
        let digest = text(entry, "digest")?;
        let manifest = repository.document(digest)?;
        let title =
            manifest.as_ref().and_then(|one| one["layers"][0]["annotations"][TITLE].as_str());
        let label = title.map_or_else(|| digest.to_owned(), str::to_owned);
        found.push((label, digest.to_owned()));
    }
    let all: Vec<String> = found.iter().map(|(label, _)| label.clone()).collect();
    if !request.formats.is_empty() {
        let chosen = request.formats.iter().find_map(|format| {
            found.iter().find(|(label, _)| label.ends_with(&format!(".{format}"))).cloned()
        });
        // An only disk without a name may be any of them.
        if chosen.is_some() || found.len() != 1 || found[0].0.contains('.') {
            found = chosen.into_iter().collect();
        }
    }
    match &found[..] {
        [(_, digest)] => Ok(digest.clone()),
        [] => Err(unsupported(
            format!(
                "there is no such disk for {}; there are: {}",
                request.architecture,
                all.join(", ")
            ),
            Some("name another --arch or --format"),
        )),
        _ => Err(unsupported(
            format!("there are several disks for {}: {}", request.architecture, all.join(", ")),
            Some("choose one by how its name ends, with --format"),
        )),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().ok_or_else(|| corrupt("the manifest", format!("a descriptor has no {key}")))
}

/// A name from a registry as one of a file, which cannot lead elsewhere.
fn safe(name: &str) -> Result<String> {
    let last = Path::new(name).file_name().unwrap_or_default().to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.+~".contains(c);
    let safe: String = last.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    if safe.is_empty() || safe.starts_with(['.', '-']) || safe.len() > 255 {
        return Err(corrupt("the manifest", format!("{name:?} is not a name for a file")));
    }
    Ok(safe)
}

/// Makes a directory for what is pulled.
pub fn create_directory(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("creating directory {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_registries_lead_nowhere_else() {
        assert_eq!(safe("os.qcow2").unwrap(), "os.qcow2");
        assert_eq!(safe("../../etc/os qcow2").unwrap(), "os_qcow2");
        for name in ["", "..", "a/..", ".ssh", "-rf", &"x".repeat(256)] {
            assert!(safe(name).is_err(), "{name}");
        }
    }
}
