//! Container image → layers: finding, verifying and unpacking OCI images.
//!
//! ```text
//! Reference ──► Blobs (registry, layout, archives, store) ──► Image: manifest and config, verified
//!                 └──► each layer: blob ─ Verified ─ decompressed ─ Verified ─ tar ──► entries, contents in the store
//! ```

mod archive;
mod attachments;
mod decompressed;
mod digest;
mod directory;
mod docker_archive;
mod entries;
mod layout;
mod manifest;
mod reference;
mod registry;
mod scopes;
mod storage;
mod tar;

use std::cmp::Reverse;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow};

use self::decompressed::decompressed;
use self::digest::{Digest, Verified};
use self::directory::Directory;
use self::docker_archive::DockerArchive;
use self::entries::Budget;
use self::layout::Layout;
use self::reference::Place;
pub use self::reference::Reference;
use self::registry::Registry;
use self::storage::{Storage, Stores};
use self::tar::{Members, Stream};
use crate::architecture::Architecture;
use crate::content::ContentStore;
use crate::error::{Corrupt, unsupported};
use crate::image::{Image, LayerRecord};
use crate::layer::{Entry, Layer};
use crate::progress::{Progress, Stage, StageGuard};
use crate::signature::{Claim, Subject, Wanted};

/// Layers that are unpacked at once, at most: beyond it the spool's disk is what is waited for.
const MAXIMUM_THREADS: usize = 8;

/// Where the blobs of an image are. Readers are not trusted.
trait Blobs: Send + Sync {
    /// An index or manifest; registries keep them apart from other blobs.
    fn document(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send + '_>>;

    /// A config or layer.
    fn blob(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send + '_>>;

    /// The archive of layer `number`, counted from the lowest, where layers are not kept as blobs: then the diff id alone is
    /// what it is verified by.
    fn unpacked(
        &self,
        _number: usize,
        _record: &LayerRecord,
    ) -> Result<Option<Box<dyn Read + Send + '_>>> {
        Ok(None)
    }

    /// What claims to be a signature of a manifest or index.
    fn claims(&self, _about: &Digest, _wanted: &Wanted) -> Result<Vec<Claim>> {
        Ok(Vec::new())
    }
}

/// An image whose layers can be unpacked.
pub struct Source {
    /// What the image says about itself, verified.
    pub image: Image,
    /// Digests of the documents that led to the image: the outermost index first, the manifest last.
    documents: Vec<Digest>,
    /// What a signature policy calls it.
    transport: &'static str,
    scopes: Vec<String>,
    has_name: bool,
    blobs: Box<dyn Blobs>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("image", &self.image).finish_non_exhaustive()
    }
}

/// The same as [`open_in`], with the system's directory for temporary files.
pub fn open(
    reference: &Reference,
    architecture: Architecture,
    progress: &Progress,
) -> Result<Source> {
    open_in(&std::env::temp_dir(), reference, architecture, progress)
}

/// Reads and verifies an image's index, manifest and config; no layer yet. An archive that cannot be read in place, such as
/// one from standard input, is kept in an unnamed file in `spool`.
///
/// Unsupported: no image for `architecture`, an artifact, layer types that the installed system would refuse, a registry that
/// wants a login. Corrupt: documents whose digests or contents disagree.
pub fn open_in(
    spool: &Path,
    reference: &Reference,
    architecture: Architecture,
    progress: &Progress,
) -> Result<Source> {
    let context = || format!("opening {reference}");
    let opened = match &reference.0 {
        Place::Registry(name) => {
            let _stage = progress.stage(Stage::Fetch, None);
            let registry = Registry::connect(name).with_context(context)?;
            let top = registry.top().with_context(context)?;
            let opened = Opened::new(registry, top, Some(name.whole()));
            return opened.image(architecture, reference).with_context(context);
        }
        Place::Layout { directory, tag } => Layout::directory(directory)
            .and_then(|layout| Opened::layout(layout, tag.as_deref(), architecture)),
        Place::Archive { file, tag } => Layout::archive(file, spool)
            .and_then(|layout| Opened::layout(layout, tag.as_deref(), architecture)),
        Place::DockerArchive { file, which } => DockerArchive::open(file, which, spool)
            .map(|(archive, top, name)| Opened::new(archive, top, name)),
        Place::Directory(directory) => {
            Directory::open(directory).map(|(directory, top)| Opened::new(directory, top, None))
        }
        Place::Storage { spec, name } => Stores::locate(spec.as_ref())
            .and_then(|stores| Storage::open(&stores, name))
            .map(|(storage, top, name)| Opened {
                scopes: storage.scopes(name.as_deref()),
                ..Opened::new(storage, top, name)
            }),
    };
    opened.and_then(|opened| opened.image(architecture, reference)).with_context(context)
}

/// A place whose first document is known.
struct Opened {
    blobs: Box<dyn Blobs>,
    top: manifest::Document,
    /// What its descriptor says, if there is one.
    media_type: String,
    name: Option<String>,
    /// Scopes that only the place knows.
    scopes: Vec<String>,
}

impl Opened {
    fn new(blobs: impl Blobs + 'static, top: manifest::Document, name: Option<String>) -> Self {
        Self { blobs: Box::new(blobs), top, media_type: String::new(), name, scopes: Vec::new() }
    }

    fn layout(layout: Layout, tag: Option<&str>, architecture: Architecture) -> Result<Self> {
        let descriptor = layout.find(tag, architecture)?;
        let top = manifest::read(&layout, &descriptor)?;
        let name = descriptor.full_name();
        Ok(Self { media_type: descriptor.media_type, ..Self::new(layout, top, name) })
    }

    fn image(self, architecture: Architecture, reference: &Reference) -> Result<Source> {
        let Self { blobs, top, media_type, name, mut scopes } = self;
        let spelled = reference.to_string();
        let mut documents = Vec::new();
        let way = &mut documents;
        let found = manifest::resolve(&*blobs, top, &media_type, architecture, &spelled, way)?;
        let image = manifest::image(&*blobs, found, architecture, spelled, name)?;
        if scopes.is_empty() {
            scopes = reference.scopes();
        }
        let has_name = matches!(
            reference.0,
            Place::Registry(_) | Place::Storage { .. } | Place::DockerArchive { .. }
        );
        let transport = reference.transport();
        Ok(Source { image, documents, transport, scopes, has_name, blobs })
    }
}

impl Source {
    /// What claims to be a signature of the image's manifest, or of an index that led to it; the manifest's come first.
    pub fn claims(&self, wanted: &Wanted) -> Result<Vec<Claim>> {
        let mut claims = Vec::new();
        for digest in self.documents.iter().rev() {
            let found = self.blobs.claims(digest, wanted);
            claims.extend(found.with_context(|| format!("looking for signatures of {digest}"))?);
        }
        Ok(claims)
    }

    /// What the image is to a signature policy. Whoever signed one of its digests signed the image.
    pub fn subject(&self) -> Subject {
        let name = self.image.name.clone();
        let (reference, called) = if self.has_name { (name, None) } else { (None, name) };
        Subject {
            transport: self.transport,
            scopes: self.scopes.clone(),
            reference,
            called,
            digests: self.documents.iter().rev().map(Digest::to_string).collect(),
        }
    }

    /// Unpacks all layers, several at once; they come lowest first, contents in `contents`. Progress counts compressed bytes.
    ///
    /// Corrupt: a blob or archive that has not the promised digest or size, is cut, or contradicts itself. Unsupported:
    /// entries that no installed system could hold.
    pub fn unpack(&self, contents: &ContentStore, progress: &Progress) -> Result<Vec<Layer>> {
        let records = &self.image.layers;
        let total = records.iter().fold(0_u64, |sum, record| sum.saturating_add(record.size));
        let stage = progress.stage(Stage::Unpack, Some(total));
        // The largest first: it would be the last to end if it began late.
        let mut order: Vec<usize> = (0..records.len()).collect();
        order.sort_by_key(|&i| (Reverse(records[i].size), i));
        let unpacking = Unpacking {
            blobs: &*self.blobs,
            contents,
            stage: &stage,
            budget: Budget::new(),
            stop: AtomicBool::new(false),
        };
        let next = AtomicUsize::new(0);
        let outcomes: Mutex<Vec<Option<Result<Layer>>>> =
            Mutex::new(records.iter().map(|_| None).collect());
        let work = || {
            while let Some(&i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                if unpacking.stop.load(Ordering::Relaxed) {
                    return;
                }
                let outcome = unpacking
                    .layer(i, &records[i])
                    .with_context(|| format!("unpacking layer {} of {}", i + 1, records.len()));
                // Whoever is stopped fails too, but that is not the error to tell.
                if outcome.is_err() && unpacking.stop.swap(true, Ordering::Relaxed) {
                    return;
                }
                outcomes.lock().expect("no thread panics with the lock")[i] = Some(outcome);
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(MAXIMUM_THREADS).min(records.len()) {
                scope.spawn(work);
            }
        });
        let outcomes = outcomes.into_inner().expect("no thread panics with the lock");
        // A missing outcome means that another one is the error.
        let (done, failed): (Vec<_>, Vec<_>) =
            outcomes.into_iter().flatten().partition(|outcome| outcome.is_ok());
        failed.into_iter().chain(done).collect()
    }
}

/// What threads share.
struct Unpacking<'a> {
    blobs: &'a dyn Blobs,
    contents: &'a ContentStore,
    stage: &'a StageGuard,
    budget: Budget,
    stop: AtomicBool,
}

impl Unpacking<'_> {
    fn layer(&self, number: usize, record: &LayerRecord) -> Result<Layer> {
        let digest = Digest::parse(&record.digest)?;
        if let Some(archive) = self.blobs.unpacked(number, record)? {
            let archive = Stoppable { inner: archive, stop: &self.stop };
            let mut archive = Verified::new(archive);
            let outcome = self.archive(&mut archive, record);
            if let Some(failure) = archive.failure() {
                return Err(anyhow!(failure).context(format!("reading {}", record.diff_id)));
            }
            self.stage.advance(record.size);
            return Ok(layer(record, outcome?));
        }
        let blob = self.blobs.blob(&digest, record.size)?;
        let blob = Stoppable { inner: blob, stop: &self.stop };
        // One byte more than promised is enough to see that there are more.
        let blob = self.stage.read(blob).take(record.size.saturating_add(1));
        let mut blob = Verified::new(blob);
        let outcome = self.compressed(&mut blob, record);
        // Who is to blame, in this order: the disk or network, the blob, what is in it. A damaged blob shows first as damaged
        // contents, so its digest is looked at before those are believed.
        if let Some(failure) = blob.failure() {
            return Err(anyhow!(failure).context(format!("reading {digest}")));
        }
        if outcome.as_ref().map_or_else(|error| error.is::<Corrupt>(), |_| true) {
            blob.finish(&digest, Some(record.size))?;
        }
        Ok(layer(record, outcome?))
    }

    fn compressed(
        &self,
        blob: &mut (impl Read + Send),
        record: &LayerRecord,
    ) -> Result<Vec<Entry>> {
        let (_, compression) = manifest::compression(&record.media_type).ok_or_else(|| {
            let what = format!("layers of type {:?} are not supported", record.media_type);
            unsupported(what, None)
        })?;
        self.archive(decompressed(blob, compression, &record.digest)?, record)
    }

    fn archive(&self, archive: impl Read, record: &LayerRecord) -> Result<Vec<Entry>> {
        let diff_id = Digest::parse(&record.diff_id)?;
        let mut archive = Verified::new(archive);
        let mut members = Members::new(Stream(&mut archive), record.digest.as_str());
        let entries = entries::read(&mut members, self.contents, &self.budget)?;
        // What follows the end blocks belongs to both digests.
        archive.finish(&diff_id, None).map_err(|error| match error.downcast::<io::Error>() {
            Ok(error) => crate::error::corrupt(record.digest.as_str(), error.to_string()),
            Err(error) => error,
        })?;
        Ok(entries)
    }
}

fn layer(record: &LayerRecord, entries: Vec<Entry>) -> Layer {
    Layer {
        digest: record.digest.clone(),
        diff_id: record.diff_id.clone(),
        size: record.size,
        entries,
    }
}

/// A reader that ends when another layer has failed.
struct Stoppable<'a, R> {
    inner: R,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped, because another layer failed"));
        }
        self.inner.read(buffer)
    }
}

#[cfg(test)]
mod tests;
