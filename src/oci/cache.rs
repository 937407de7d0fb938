//! Blobs that were fetched, kept by digest: an OCI layout that other tools can read, too.
//!
//! ```text
//! bootpress/
//!   oci-layout  index.json       images by their full names: `skopeo inspect oci:~/.cache/bootpress:quay.io/x/y:1`
//!   blobs/sha256/<hex>           whole and verified when it came; verified again by whoever reads it
//!   unpacked/<hex>               a layer by its diff ID, as it was unpacked (`kept`), and checksums of what is in it
//!   ingest/<hex>                 on its way here, locked by who fetches it; left where a fetch broke, to go on from there
//!   lock                         shared by those who use the cache, exclusive for who removes something
//!   index.lock                   exclusive while index.json is changed
//! ```
//!
//! Blobs are not synced to the disk: what a power failure damages has another size or digest, and is fetched again. An index
//! that is damaged nevertheless is made anew.

mod download;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

pub(super) use self::download::Cached;
use super::digest::Digest;
use super::kept;
use super::manifest::{Document, MAXIMUM_DOCUMENT};

/// What marks the directory as an OCI layout.
const MARKER: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// The annotation by which layouts name images.
const NAME: &str = "org.opencontainers.image.ref.name";

/// A cache.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// An image in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CachedImage {
    /// Its full name: `quay.io/fedora/fedora-bootc:43`.
    pub name: String,
    /// The digest that its name means: of an index, or of a manifest.
    pub digest: String,
    /// The platforms of which everything is there: `linux/amd64`.
    pub platforms: Vec<String>,
    /// Bytes of what is there, shared blobs included.
    pub size: u64,
    /// When it was last used, in seconds since 1970.
    pub used: u64,
}

/// Layers that are kept as they were unpacked, for later builds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UnpackedLayers {
    /// How many.
    pub count: usize,
    /// Their bytes on the host, holes not counted.
    pub size: u64,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Names of the images.
    pub images: Vec<String>,
    /// How many files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that are left.
    pub left: u64,
}

/// Somebody uses the cache, so nothing is removed.
#[derive(Debug)]
pub(super) struct InUse {
    _lock: File,
}

/// A place for a blob that is on its way.
enum Place {
    /// Somebody brought it meanwhile.
    There(File),
    /// Locked for us, with what came of it before.
    Ours(File),
}

impl Cache {
    /// The cache in a directory, which is made if need be.
    pub fn open(directory: &Path) -> Result<Self> {
        let context = || format!("opening the cache {}", directory.display());
        for part in ["blobs/sha256", "ingest", kept::DIRECTORY] {
            // What a login was needed for is for nobody else on the machine.
            let mut builder = DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o700)
                .create(directory.join(part))
                .with_context(context)?;
        }
        let cache = Self { directory: directory.to_owned() };
        let marked =
            fs::read(directory.join("oci-layout")).is_ok_and(|text| text == MARKER.as_bytes());
        if !marked || !directory.join("index.json").exists() || cache.entries()?.is_none() {
            cache.change_index(|_| ()).with_context(context)?;
        }
        Ok(cache)
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The images, by name.
    pub fn list(&self) -> Result<Vec<CachedImage>> {
        let entries = self.entries()?.unwrap_or_default();
        let mut images: Vec<CachedImage> = entries
            .iter()
            .filter_map(|entry| {
                let (name, digest) = (name(entry)?.to_owned(), digest(entry)?);
                let found = self.reach(&digest);
                Some(CachedImage {
                    name,
                    digest: digest.to_string(),
                    platforms: found.platforms.into_iter().collect(),
                    size: found.blobs.values().sum(),
                    used: self.used(&digest),
                })
            })
            .collect();
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }

    /// Bytes of everything in it.
    pub fn size(&self) -> Result<u64> {
        Ok(self.files()?.iter().map(|(_, size)| size).sum::<u64>() + self.unpacked()?.size)
    }

    /// The unpacked layers.
    pub fn unpacked(&self) -> Result<UnpackedLayers> {
        let layers = kept::layers(&self.directory.join(kept::DIRECTORY))?;
        Ok(UnpackedLayers {
            count: layers.len(),
            size: layers.iter().map(|layer| layer.size).sum(),
        })
    }

    /// Removes what no image needs and what broken fetches and builds left; then, if there are more than `maximum` bytes, unpacked
    /// layers, which can be made again, and after them images, those first that were not used for the longest time. Waits until nobody uses the cache; `waiting` is called if that takes time.
    pub fn prune(&self, maximum: Option<u64>, waiting: impl FnOnce()) -> Result<Pruned> {
        let lock = self.lock_file("lock")?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                lock.lock().context("waiting for who uses the cache")?;
            }
            Err(TryLockError::Error(error)) => return Err(error).context("locking the cache"),
        }
        let mut images = self.list()?;
        images.sort_by_key(|image| (std::cmp::Reverse(image.used), image.name.clone()));
        let mut pruned = Pruned::default();
        let mut needed = self.needed(&images)?;
        self.prune_unpacked(maximum, needed.values().sum(), &mut pruned)?;
        while maximum.is_some_and(|maximum| needed.values().sum::<u64>() > maximum) {
            let Some(oldest) = images.pop() else { break };
            pruned.images.push(oldest.name);
            needed = self.needed(&images)?;
        }
        let gone = pruned.images.clone();
        self.change_index(|entries| {
            entries.retain(|entry| {
                name(entry).is_some_and(|name| !gone.iter().any(|gone| gone == name))
            });
        })?;
        for (path, size) in self.files()? {
            let kept = path.parent().is_some_and(|parent| parent.ends_with("sha256"))
                && path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| needed.contains_key(name));
            if kept {
                pruned.left += size;
                continue;
            }
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            pruned.files += 1;
            pruned.bytes += size;
        }
        Ok(pruned)
    }

    /// Removes what belongs to no unpacked layer, and layers as long as they and `others` have more than `maximum` bytes.
    fn prune_unpacked(&self, maximum: Option<u64>, others: u64, pruned: &mut Pruned) -> Result<()> {
        let directory = self.directory.join(kept::DIRECTORY);
        for (path, size) in kept::leavings(&directory)? {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            pruned.files += 1;
            pruned.bytes += size;
        }
        let layers = kept::layers(&directory)?;
        let mut left: u64 = layers.iter().map(|layer| layer.size).sum();
        for layer in layers {
            if maximum.is_none_or(|maximum| left + others <= maximum) {
                break;
            }
            layer.remove()?;
            left -= layer.size;
            pruned.files += 1;
            pruned.bytes += layer.size;
        }
        pruned.left += left;
        Ok(())
    }

    /// Keeps others from removing things until the guard drops.
    pub(super) fn enter(&self) -> Result<InUse> {
        let lock = self.lock_file("lock")?;
        lock.lock_shared().context("locking the cache")?;
        Ok(InUse { _lock: lock })
    }

    /// The document that a full name meant when it was last fetched.
    pub(super) fn named(&self, wanted: &str) -> Option<Document> {
        let entries = self.entries().ok()??;
        let entry = entries.iter().find(|entry| name(entry) == Some(wanted))?;
        self.document(&digest(entry)?)
    }

    /// A document, if it is there and whole.
    pub(super) fn document(&self, digest: &Digest) -> Option<Document> {
        let mut bytes = Vec::new();
        let file = self.blob(digest, None)?;
        file.take(MAXIMUM_DOCUMENT + 1).read_to_end(&mut bytes).ok()?;
        if Digest::of(&bytes) != *digest {
            self.forget(digest);
            return None;
        }
        Some(Document { digest: *digest, bytes })
    }

    /// Notes that an image is here, under its full name; what the name meant before has none any more.
    pub(super) fn record(&self, image: &str, document: &Document) -> Result<()> {
        let value: Value = serde_json::from_slice(&document.bytes).unwrap_or_default();
        let media_type = super::manifest::media_type(&value);
        let entry = json!({
            "mediaType": media_type,
            "digest": document.digest.to_string(),
            "size": document.bytes.len(),
            "annotations": { NAME: image },
        });
        self.touch(&document.digest);
        if self.entries()?.is_some_and(|entries| entries.contains(&entry)) {
            return Ok(());
        }
        self.change_index(|entries| {
            entries.retain(|other| name(other) != Some(image));
            entries.push(entry);
        })
    }

    /// A blob, if it is there and has the right size.
    fn blob(&self, digest: &Digest, size: Option<u64>) -> Option<File> {
        let file = File::open(self.path(digest)).ok()?;
        let found = file.metadata().ok()?.len();
        if size.is_some_and(|size| size != found) {
            tracing::info!("{digest} in the cache has {found} bytes: removed");
            self.forget(digest);
            return None;
        }
        Some(file)
    }

    /// Removes a blob that is not what its name says.
    fn forget(&self, digest: &Digest) {
        // If it cannot be removed, it will be found again, and again not believed.
        let _ = fs::remove_file(self.path(digest));
    }

    /// Keeps bytes that are known to have the digest.
    fn insert(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if let Place::Ours(mut file) = self.place(digest, bytes.len() as u64)? {
            file.set_len(0)?;
            file.write_all(bytes)?;
            self.commit(digest)?;
        }
        Ok(())
    }

    /// A place for a blob; waits while another process fetches the same.
    fn place(&self, digest: &Digest, size: u64) -> Result<Place> {
        let path = self.ingest(digest);
        let context = || format!("writing {}", path.display());
        loop {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(&path);
            let file = file.with_context(context)?;
            file.lock().with_context(context)?;
            // While we waited the file may have become the blob.
            let ours = file.metadata().with_context(context)?.ino();
            match fs::metadata(&path) {
                Ok(facts) if facts.ino() == ours => {}
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(context),
            }
            return match self.blob(digest, Some(size)) {
                Some(blob) => {
                    fs::remove_file(&path).with_context(context)?;
                    Ok(Place::There(blob))
                }
                None => Ok(Place::Ours(file)),
            };
        }
    }

    /// What came of a blob becomes the blob.
    fn commit(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        fs::rename(self.ingest(digest), &path)
            .with_context(|| format!("writing {}", path.display()))
    }

    /// What came of a blob is of no use. Must be called while the place is locked.
    fn abandon(&self, digest: &Digest) {
        // If it cannot be removed, the next one to come finds it, and finds it wrong.
        let _ = fs::remove_file(self.ingest(digest));
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs/sha256").join(digest.hex())
    }

    fn ingest(&self, digest: &Digest) -> PathBuf {
        self.directory.join("ingest").join(digest.hex())
    }

    /// An image's last use is the modification time of its first document.
    fn touch(&self, digest: &Digest) {
        // Only the order in which things are removed depends on it.
        let _ = File::open(self.path(digest)).and_then(|file| file.set_modified(SystemTime::now()));
    }

    fn used(&self, digest: &Digest) -> u64 {
        let facts = fs::metadata(self.path(digest));
        facts.map_or(0, |facts| u64::try_from(facts.mtime()).unwrap_or(0))
    }

    fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.directory.join(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        file.with_context(|| format!("opening {}", path.display()))
    }

    /// The entries of index.json; `None`: it is damaged, as after a power cut, and what names meant is lost. Blobs are not.
    fn entries(&self) -> Result<Option<Vec<Value>>> {
        let path = self.directory.join("index.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(Vec::new())),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let index: Value = serde_json::from_slice(&text).unwrap_or_default();
        let entries = index.get("manifests").and_then(Value::as_array).cloned();
        if entries.is_none() {
            tracing::warn!("{} is not an index of an OCI layout: it is made anew", path.display());
        }
        Ok(entries)
    }

    /// One at a time changes what describes the cache.
    fn change_index(&self, change: impl FnOnce(&mut Vec<Value>)) -> Result<()> {
        let lock = self.lock_file("index.lock")?;
        lock.lock().context("locking the cache's index")?;
        let mut entries = self.entries()?.unwrap_or_default();
        change(&mut entries);
        let index = json!({ "schemaVersion": 2, "manifests": entries }).to_string();
        for (name, text) in [("index.json", index.as_str()), ("oci-layout", MARKER)] {
            self.replace(name, text.as_bytes())
                .with_context(|| format!("writing the cache's {name}"))?;
        }
        Ok(())
    }

    /// Writes a file that others see before or after, never in between. Must be called while `index.lock` is held.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let draft = self.directory.join(format!("{name}.new"));
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        // Unlike blobs, which have a digest: an index that a power cut emptied would not be fetched again.
        file.sync_all()?;
        fs::rename(draft, self.directory.join(name))
    }

    /// All blobs, and what is on its way, with sizes.
    fn files(&self) -> Result<Vec<(PathBuf, u64)>> {
        let mut files = Vec::new();
        for part in ["blobs/sha256", "ingest"] {
            let directory = self.directory.join(part);
            let context = || format!("reading {}", directory.display());
            for entry in fs::read_dir(&directory).with_context(context)? {
                let entry = entry.with_context(context)?;
                let facts = entry.metadata().with_context(context)?;
                if facts.is_file() {
                    files.push((entry.path(), facts.len()));
                }
            }
        }
        Ok(files)
    }

    /// What some images need, by digits of the digest, with sizes.
    fn needed(&self, images: &[CachedImage]) -> Result<BTreeMap<String, u64>> {
        let mut needed = BTreeMap::new();
        for image in images {
            needed.extend(self.reach(&Digest::parse(&image.digest)?).blobs);
        }
        Ok(needed)
    }

    /// What of an image is there.
    fn reach(&self, top: &Digest) -> Reached {
        let mut reached = Reached::default();
        self.follow(top, 0, &mut reached);
        reached
    }

    fn follow(&self, at: &Digest, depth: usize, reached: &mut Reached) {
        let Some(document) = self.document(at).filter(|_| depth < 4) else { return };
        reached.blobs.insert(at.hex(), document.bytes.len() as u64);
        let value: Value = serde_json::from_slice(&document.bytes).unwrap_or_default();
        let list =
            |key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        for entry in list("manifests") {
            if let Some(child) = digest(&entry) {
                self.follow(&child, depth + 1, reached);
            }
        }
        let Some(config) = value.get("config") else { return };
        let mut complete = true;
        for entry in [vec![config.clone()], list("layers")].concat() {
            let size = entry.get("size").and_then(Value::as_u64);
            match digest(&entry).map(|digest| (digest, self.blob(&digest, size))) {
                Some((digest, Some(_))) => {
                    reached.blobs.insert(digest.hex(), size.unwrap_or(0));
                }
                _ => complete = false,
            }
        }
        let config = digest(config).and_then(|digest| self.document(&digest));
        if let Some(config) = config.filter(|_| complete) {
            let config: Value = serde_json::from_slice(&config.bytes).unwrap_or_default();
            let word =
                |key: &str| config.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
            reached.platforms.insert(format!("{}/{}", word("os"), word("architecture")));
        }
    }
}

#[derive(Default)]
struct Reached {
    blobs: BTreeMap<String, u64>,
    platforms: BTreeSet<String>,
}

fn name(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(NAME)?.as_str()
}

fn digest(entry: &Value) -> Option<Digest> {
    Digest::parse(entry.get("digest")?.as_str()?).ok()
}

#[cfg(test)]
mod tests;
