//! Container image → layers: finding, verifying and unpacking OCI images.
//!
//! ```text
//! Reference ──► Blobs (layout directory, archive, registry) ──► Image: manifest and config, verified
//!                 └──► each layer: blob ─ Verified ─ decompressed ─ Verified ─ tar ──► entries, contents in the store
//! ```

mod access;
mod cache;
mod decompressed;
mod digest;
mod documents;
mod entries;
mod layout;
mod manifest;
mod reference;
mod registry;
mod remote;
mod survey;
mod tar;

use std::cmp::Reverse;
use std::fmt;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};

pub use self::access::{Access, CredentialHelper, Password, Places};
pub use self::cache::{Cache, CachedImage, Pruned};
use self::decompressed::decompressed;
use self::digest::{Digest, Verified};
pub use self::documents::Documents;
use self::entries::Budget;
use self::layout::Layout;
use self::manifest::Document;
use self::reference::Place;
pub use self::reference::Reference;
use self::remote::Connection;
pub use self::survey::{EntryFacts, SignatureFacts, Survey, TopFacts, survey};
use self::tar::{Members, Stream};
use crate::architecture::Architecture;
use crate::content::ContentStore;
use crate::error::{Corrupt, unsupported};
use crate::image::{Image, LayerRecord};
use crate::layer::{Entry, Layer};
use crate::progress::{Progress, Stage, StageGuard};

/// Layers that are unpacked at once, at most: beyond it the spool's disk is what is waited for.
const MAXIMUM_THREADS: usize = 8;

/// Where the blobs of an image are. Readers are not trusted.
trait Blobs: Send + Sync {
    /// An index or manifest; registries keep them apart from other blobs.
    fn document(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send + '_>>;

    /// A config or layer.
    fn blob(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send + '_>>;

    /// These will be read soon, in this order.
    fn announce(&self, _: &[(Digest, u64)]) {}

    /// What was read was wrong. Whether reading it again may give something else: a copy from another day is removed.
    fn forget(&self, _: &Digest) -> bool {
        false
    }

    /// Everything was read, and was right.
    fn complete(&self) {}
}

/// An image whose layers can be unpacked.
pub struct Source {
    /// What the image says about itself, verified.
    pub image: Image,
    blobs: Box<dyn Blobs>,
    /// The first document: an index, or the manifest.
    top: Document,
    /// The registry that it is in.
    connection: Option<Arc<Connection>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("image", &self.image).finish_non_exhaustive()
    }
}

/// Opens an image with nothing of this machine's configuration: no login, no mirrors, no cache.
pub fn open(
    reference: &Reference,
    architecture: Architecture,
    progress: &Progress,
) -> Result<Source> {
    open_with(&Access::default(), reference, architecture, progress)
}

/// Reads and verifies an image's index, manifest and config; no layer yet.
///
/// Unsupported: no image for `architecture`, an artifact, layer types that the installed system would refuse. Corrupt: documents
/// whose digests or contents disagree.
pub fn open_with(
    access: &Access,
    reference: &Reference,
    architecture: Architecture,
    progress: &Progress,
) -> Result<Source> {
    let spelled = reference.to_string();
    let context = || format!("opening {spelled}");
    let (blobs, image, top, connection) = match &reference.0 {
        Place::Registry(name) => {
            let _stage = progress.stage(Stage::Fetch, None);
            let found = remote::find(name, access, progress).with_context(context)?;
            let blobs = found.blobs(progress);
            let image = remote_image(&*blobs, &found, architecture).with_context(context)?;
            (blobs, image, found.top, Some(found.connection))
        }
        Place::Layout { directory, tag } => {
            let layout = Layout::directory(directory).with_context(context)?;
            let (blobs, image, top) =
                local(layout, tag.as_deref(), architecture, &spelled).with_context(context)?;
            (blobs, image, top, None)
        }
        Place::Archive { file, tag } => {
            let layout = Layout::archive(file).with_context(context)?;
            let (blobs, image, top) =
                local(layout, tag.as_deref(), architecture, &spelled).with_context(context)?;
            (blobs, image, top, None)
        }
    };
    Ok(Source { image, blobs, top, connection })
}

/// Fetches an image into the cache, and verifies what of it is there already. Returns how many bytes the registry had to send.
pub fn pull(
    access: &Access,
    reference: &Reference,
    architecture: Architecture,
    progress: &Progress,
) -> Result<(Image, u64)> {
    let context = || format!("pulling {reference}");
    let Place::Registry(name) = &reference.0 else {
        let what =
            format!("{reference} is on this machine already; images are pulled from registries");
        return Err(unsupported(what, None));
    };
    let found = remote::find(name, access, progress).with_context(context)?;
    let cache =
        found.cache.as_ref().context("there is no cache to pull into").with_context(context)?;
    let cached = found.cached(cache).with_context(context)?;
    let image = remote_image(&cached, &found, architecture).with_context(context)?;
    let mut blobs = Vec::new();
    for layer in &image.layers {
        let blob = (Digest::parse(&layer.digest)?, layer.size);
        if !blobs.contains(&blob) {
            blobs.push(blob);
        }
    }
    let stage = progress.stage(Stage::Fetch, Some(blobs.iter().map(|(_, size)| size).sum()));
    let sent = cached.fetch(&blobs, &stage).with_context(context)?;
    Ok((image, sent))
}

fn remote_image(
    blobs: &dyn Blobs,
    found: &remote::Found,
    architecture: Architecture,
) -> Result<Image> {
    let spelled = format!("docker://{}", found.name);
    let manifest = manifest::resolve(blobs, found.top.clone(), "", architecture, &spelled)?;
    manifest::image(blobs, manifest, architecture, spelled, Some(found.name.clone()))
}

fn local(
    layout: Layout,
    tag: Option<&str>,
    architecture: Architecture,
    spelled: &str,
) -> Result<(Box<dyn Blobs>, Image, Document)> {
    let descriptor = layout.find(tag, architecture)?;
    let top = manifest::read(&layout, &descriptor)?;
    let found =
        manifest::resolve(&layout, top.clone(), &descriptor.media_type, architecture, spelled)?;
    let name = descriptor.full_name();
    let image = manifest::image(&layout, found, architecture, spelled.to_owned(), name)?;
    Ok((Box::new(layout), image, top))
}

impl Source {
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
        let mut announced = Vec::new();
        for &i in &order {
            announced.push((Digest::parse(&records[i].digest)?, records[i].size));
        }
        self.blobs.announce(&announced);
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
                    .layer(&records[i])
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
        let layers: Vec<Layer> = failed.into_iter().chain(done).collect::<Result<_>>()?;
        self.blobs.complete();
        Ok(layers)
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
    fn layer(&self, record: &LayerRecord) -> Result<Layer> {
        let digest = Digest::parse(&record.digest)?;
        match self.layer_once(record, digest) {
            Err(error) if error.is::<Corrupt>() && self.blobs.forget(&digest) => {
                tracing::info!("once more: {error:#}");
                self.layer_once(record, digest)
            }
            outcome => outcome,
        }
    }

    fn layer_once(&self, record: &LayerRecord, digest: Digest) -> Result<Layer> {
        let blob = self.blobs.blob(&digest, record.size)?;
        let blob = Stoppable { inner: blob, stop: &self.stop };
        // One byte more than promised is enough to see that there are more.
        let blob = self.stage.read(blob).take(record.size.saturating_add(1));
        let mut blob = Verified::new(blob);
        let outcome = self.archive(&mut blob, record);
        // Who is to blame, in this order: the disk or network, the blob, what is in it. A damaged blob shows first as damaged
        // contents, so its digest is looked at before those are believed.
        if let Some(failure) = blob.failure() {
            return Err(anyhow!(failure).context(format!("reading {digest}")));
        }
        if outcome.as_ref().map_or_else(|error| error.is::<Corrupt>(), |_| true) {
            blob.finish(&digest, Some(record.size))?;
        }
        Ok(Layer {
            digest: record.digest.clone(),
            diff_id: record.diff_id.clone(),
            size: record.size,
            entries: outcome?,
        })
    }

    fn archive(&self, blob: &mut impl Read, record: &LayerRecord) -> Result<Vec<Entry>> {
        let diff_id = Digest::parse(&record.diff_id)?;
        let (_, compression) = manifest::compression(&record.media_type).ok_or_else(|| {
            let what = format!("layers of type {:?} are not supported", record.media_type);
            unsupported(what, None)
        })?;
        let archive = decompressed(blob, compression, &record.digest)?;
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
