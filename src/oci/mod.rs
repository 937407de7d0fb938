//! Container image → layers: finding, verifying and unpacking OCI images.
//!
//! ```text
//! Reference ──► Blobs (registry, layout, archives, store) ──► Image: manifest and config, verified
//!                 └──► each layer: blob ─ Verified ─ decompressed ─ Verified ─ tar ──► entries, contents in the store
//! ```

mod access;
mod archive;
mod attachments;
mod beside;
mod cache;
mod decompressed;
mod digest;
mod directory;
mod docker_archive;
mod documents;
mod entries;
mod kept;
mod layout;
mod lookaside;
mod manifest;
mod packed;
mod pieces;
mod reference;
mod registry;
mod remote;
mod repository;
mod saved;
mod scopes;
mod storage;
mod survey;
mod tar;

use std::cmp::Reverse;
use std::fmt;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};

pub use self::access::{Access, CredentialHelper, Password, Places};
pub use self::beside::Attached;
pub use self::cache::{Cache, CachedImage, Pruned, UnpackedLayers};
use self::decompressed::decompressed;
use self::digest::{Digest, Verified};
use self::directory::Directory;
use self::docker_archive::DockerArchive;
pub use self::documents::Documents;
use self::entries::Room;
use self::kept::{Costs, Kept};
use self::layout::Layout;
use self::manifest::Document;
use self::reference::Place;
pub use self::reference::Reference;
use self::remote::Connection;
pub use self::repository::{Blob, Part, Pushed, Repository};
pub use self::saved::Saved;
use self::storage::{Storage, Stores};
pub use self::survey::{EntryFacts, SignatureFacts, Survey, TopFacts, survey};
use self::tar::{Members, Stream};
use crate::architecture::Architecture;
use crate::content::ContentStore;
use crate::error::{Corrupt, corrupt, unsupported};
use crate::image::{Image, LayerRecord};
use crate::layer::{Entry, Layer};
use crate::limits::Budget;
use crate::progress::{Code, Progress, Stage, StageGuard};
use crate::signature::{Claim, Subject, Wanted};

/// Layers that are unpacked at once, at most: beyond it the spool's disk is what is waited for.
const MAXIMUM_THREADS: usize = 8;

/// Bytes behind the end of an archive; tar fills up to a record, which is 1 MiB at most where somebody asks for that.
const LONGEST_TRAILER: u64 = 64 << 20;

/// Where the blobs of an image are. Readers are not trusted.
trait Blobs: Send + Sync {
    /// An index or manifest; registries keep them apart from other blobs.
    fn document(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send + '_>>;

    /// A config or layer.
    fn blob(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send + '_>>;

    /// Announces blobs that will be read soon, in this order.
    fn announce(&self, _: &[(Digest, u64)]) {}

    /// What was read was wrong. Whether reading it again may give something else: a copy from another day is removed.
    fn forget(&self, _: &Digest) -> bool {
        false
    }

    /// Everything was read, and was right.
    fn complete(&self) {}

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

/// An image whose documents are read and verified, and for which nobody has vouched yet. Nothing of it can be unpacked.
pub struct Unvouched {
    /// What the image says about itself, verified.
    pub image: Image,
    /// Digests of the documents that led to the image: the outermost index first, the manifest last.
    documents: Vec<Digest>,
    /// What a signature policy calls it.
    transport: &'static str,
    scopes: Vec<String>,
    has_name: bool,
    blobs: Box<dyn Blobs>,
    /// The first document: an index, or the manifest.
    top: Document,
    /// The registry that it is in.
    connection: Option<Arc<Connection>>,
    budget: Budget,
    /// The cache whose unpacked layers are used; `None`: none are.
    unpacked: Option<PathBuf>,
}

impl fmt::Debug for Unvouched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unvouched").field("image", &self.image).finish_non_exhaustive()
    }
}

/// An image whose layers can be unpacked, because somebody vouched for it, or because it was said why nobody has to.
#[derive(Debug)]
pub struct Source(Unvouched);

impl Deref for Source {
    type Target = Unvouched;

    fn deref(&self) -> &Unvouched {
        &self.0
    }
}

/// Opens an image with nothing of this machine's configuration: no login, no mirrors, no cache.
pub fn open(
    reference: &Reference,
    architecture: Architecture,
    progress: &Progress,
) -> Result<Unvouched> {
    open_with(&Access::default(), reference, architecture, progress)
}

/// Reads and verifies an image's index, manifest and config; no layer yet. An archive that cannot be read in place, such as
/// one from standard input, is kept in an unnamed file.
///
/// Unsupported: no image for `architecture`, an artifact, layer types that the installed system would refuse. Corrupt: documents
/// whose digests or contents disagree.
pub fn open_with(
    access: &Access,
    reference: &Reference,
    architecture: Architecture,
    progress: &Progress,
) -> Result<Unvouched> {
    if let Place::Registry(name) = &reference.0
        && name.is_built_here()
        && let Some(local) = in_store(name, access)
    {
        progress.warn(
            Code::LocalImage,
            format!("{} is taken from this machine's container storage: {local}", name.reference),
        );
        return open_with(access, &local, architecture, progress);
    }
    let context = || format!("opening {reference}");
    let temporary = std::env::temp_dir();
    let spool = access.spool.as_deref().unwrap_or(&temporary);
    let opened = match &reference.0 {
        Place::Registry(name) => {
            let _stage = progress.stage(Stage::Fetch, None);
            let found = remote::find(name, access, progress)
                .map_err(|error| with_way_to_store(error, name, access))
                .with_context(context)?;
            let opened = Opened {
                blobs: found.blobs(progress),
                spelled: format!("docker://{}", found.name),
                scopes: scopes::of_name(&found.name),
                top: found.top,
                media_type: String::new(),
                name: Some(found.name),
                connection: Some(found.connection),
            };
            return opened.image(architecture, reference, access).with_context(context);
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
    opened.and_then(|opened| opened.image(architecture, reference, access)).with_context(context)
}

/// A place whose first document is known.
struct Opened {
    blobs: Box<dyn Blobs>,
    top: Document,
    /// What its descriptor says, if there is one.
    media_type: String,
    name: Option<String>,
    /// How container tools spell it, if not as it was typed.
    spelled: String,
    /// Scopes, if only the place knows them.
    scopes: Vec<String>,
    connection: Option<Arc<Connection>>,
}

impl Opened {
    fn new(blobs: impl Blobs + 'static, top: Document, name: Option<String>) -> Self {
        Self {
            blobs: Box::new(blobs),
            top,
            media_type: String::new(),
            name,
            spelled: String::new(),
            scopes: Vec::new(),
            connection: None,
        }
    }

    fn layout(layout: Layout, tag: Option<&str>, architecture: Architecture) -> Result<Self> {
        let descriptor = layout.find(tag, architecture)?;
        let top = manifest::read(&layout, &descriptor)?;
        let name = descriptor.full_name();
        Ok(Self { media_type: descriptor.media_type, ..Self::new(layout, top, name) })
    }

    fn image(
        self,
        architecture: Architecture,
        reference: &Reference,
        access: &Access,
    ) -> Result<Unvouched> {
        let Self { blobs, top, media_type, name, mut spelled, mut scopes, connection } = self;
        if spelled.is_empty() {
            spelled = reference.to_string();
        }
        if scopes.is_empty() {
            scopes = reference.scopes();
        }
        let mut documents = Vec::new();
        let way = &mut documents;
        let found =
            manifest::resolve(&*blobs, top.clone(), &media_type, architecture, &spelled, way)?;
        let image = manifest::image(&*blobs, found, architecture, spelled, name)?;
        let budget = access.budget.clone();
        budget.check_layers(image.layers.iter().map(|layer| layer.size))?;
        let has_name = matches!(
            reference.0,
            Place::Registry(_) | Place::Storage { .. } | Place::DockerArchive { .. }
        );
        let transport = reference.transport();
        Ok(Unvouched {
            image,
            documents,
            transport,
            scopes,
            has_name,
            blobs,
            top,
            connection,
            budget,
            unpacked: access.unpacked.clone(),
        })
    }
}

/// The image of that name in the store of this machine, if it may be looked at and has one.
fn in_store(name: &reference::Name, access: &Access) -> Option<Reference> {
    access.places.as_ref().filter(|_| name.bare)?;
    let stores = Stores::locate(None).ok()?;
    let typed = name.short.clone().unwrap_or_else(|| name.reference.whole());
    Storage::open(&stores, &typed).ok()?;
    Some(Reference(Place::Storage { spec: None, name: typed }))
}

/// Says that the image is in the store of this machine, or where names such as `localhost/my-os` come from.
fn with_way_to_store(
    error: anyhow::Error,
    name: &reference::Name,
    access: &Access,
) -> anyhow::Error {
    match in_store(name, access) {
        Some(local) => error.context(format!(
            "the registry does not serve it, but this machine's container storage has it: use {local}"
        )),
        None if name.is_built_here() => error.context(format!(
            "there is no image {name} in this machine's container storage, and no registry serves it; \
             podman of another user keeps it elsewhere: use containers-storage:[overlay@/ROOT]{name}",
            name = name.reference
        )),
        None => error,
    }
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
    access
        .budget
        .check_layers(image.layers.iter().map(|layer| layer.size))
        .with_context(context)?;
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
    let manifest =
        manifest::resolve(blobs, found.top.clone(), "", architecture, &spelled, &mut Vec::new())?;
    manifest::image(blobs, manifest, architecture, spelled, Some(found.name.clone()))
}

impl Unvouched {
    /// Lets a judge look at what the image is and at its signatures; what it says comes back with the image, its error instead of it.
    pub fn vouched<V>(
        self,
        judge: impl FnOnce(&Subject, &dyn Fn(&Wanted) -> Result<Vec<Claim>>) -> Result<V>,
    ) -> Result<(Source, V)> {
        let verdict = judge(&self.subject(), &|wanted| self.claims(wanted))?;
        Ok((Source(self), verdict))
    }

    /// The image without a judge, for a reason that whoever reads the code can check.
    pub fn unjudged(self, why: &'static str) -> Source {
        tracing::debug!(image = %self.image.reference, why, "nobody has to vouch");
        Source(self)
    }

    /// What claims to be a signature of the image's manifest, or of an index that led to it; the manifest's come first.
    pub fn claims(&self, wanted: &Wanted) -> Result<Vec<Claim>> {
        let mut claims = Vec::new();
        for digest in self.documents.iter().rev() {
            let found = match &self.connection {
                Some(connection) => self.remote_claims(connection, digest, wanted),
                None => self.blobs.claims(digest, wanted),
            };
            claims.extend(found.with_context(|| format!("looking for signatures of {digest}"))?);
        }
        Ok(claims)
    }

    fn remote_claims(
        &self,
        connection: &Connection,
        about: &Digest,
        wanted: &Wanted,
    ) -> Result<Vec<Claim>> {
        let mut claims = Vec::new();
        if let (Some(base), Some(name)) = (&wanted.lookaside, &self.image.name) {
            claims.extend(lookaside::claims(base, name, about)?);
        }
        if wanted.attachments {
            let registry = connection.registry()?;
            claims.extend(attachments::in_registry(&*self.blobs, &registry, about)?);
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
}

impl Source {
    /// Renames the image: what a machine that is made of it calls it.
    pub fn called(mut self, name: Option<String>) -> Self {
        self.0.image.name = name;
        self
    }

    /// What the image says about itself, alone.
    pub fn into_image(self) -> Image {
        self.0.image
    }

    /// Unpacks all layers, several at once; they come lowest first, contents in `contents`. Progress counts compressed bytes.
    ///
    /// Corrupt: a blob or archive that has not the promised digest or size, is cut, or contradicts itself. Unsupported:
    /// entries that no installed system could hold.
    pub fn unpack(&self, contents: &ContentStore, progress: &Progress) -> Result<Vec<Layer>> {
        self.each_layer(contents, progress, |unpacking, i, record| unpacking.layer(i, record))
    }

    /// Reads all layers, several at once, largest first; what `read` makes of each comes lowest first.
    fn each_layer<T: Send>(
        &self,
        contents: &ContentStore,
        progress: &Progress,
        read: impl Fn(&Unpacking<'_>, usize, &LayerRecord) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let records = &self.image.layers;
        let total = records.iter().fold(0_u64, |sum, record| sum.saturating_add(record.size));
        let stage = progress.stage(Stage::Unpack, Some(total));
        // The largest first: it would be the last to end if it began late.
        let mut order: Vec<usize> = (0..records.len()).collect();
        order.sort_by_key(|&i| (Reverse(records[i].size), i));
        let kept = self.kept();
        let mut announced = Vec::new();
        for &i in &order {
            let diff_id = Digest::parse(&records[i].diff_id)?;
            if !kept.as_ref().is_some_and(|kept| kept.has(&diff_id)) {
                announced.push((Digest::parse(&records[i].digest)?, records[i].size));
            }
        }
        self.blobs.announce(&announced);
        let unpacking = Unpacking {
            blobs: &*self.blobs,
            contents,
            stage: &stage,
            budget: &self.budget,
            kept: kept.as_ref(),
            stop: AtomicBool::new(false),
        };
        let next = AtomicUsize::new(0);
        let outcomes: Mutex<Vec<Option<Result<T>>>> =
            Mutex::new(records.iter().map(|_| None).collect());
        let work = || {
            while let Some(&i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                if unpacking.stop.load(Ordering::Relaxed) {
                    return;
                }
                let outcome = read(&unpacking, i, &records[i])
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
        let layers: Vec<T> = failed.into_iter().chain(done).collect::<Result<_>>()?;
        self.blobs.complete();
        kept.iter().for_each(Kept::trim);
        Ok(layers)
    }

    /// The layers of earlier builds. A cache that cannot be used is no reason not to build.
    fn kept(&self) -> Option<Kept> {
        let kept = Kept::open(self.unpacked.as_deref()?);
        kept.inspect_err(|error| tracing::info!("no unpacked layers are used: {error:#}")).ok()
    }
}

/// What threads share.
struct Unpacking<'a> {
    blobs: &'a dyn Blobs,
    contents: &'a ContentStore,
    stage: &'a StageGuard,
    budget: &'a Budget,
    kept: Option<&'a Kept>,
    stop: AtomicBool,
}

impl Unpacking<'_> {
    fn layer(&self, number: usize, record: &LayerRecord) -> Result<Layer> {
        if let Some(kept) = self.kept
            && let Some(entries) =
                kept.recall(&Digest::parse(&record.diff_id)?, self.contents, self.budget)?
        {
            self.stage.advance(record.size);
            return Ok(layer(record, entries));
        }
        let entries = self.read(number, record, &|archive| self.archive(archive, record))?;
        Ok(layer(record, entries))
    }

    /// What `read` makes of the archive of a layer, which is verified to be what the image says.
    fn read<T>(
        &self,
        number: usize,
        record: &LayerRecord,
        read: &dyn Fn(&mut dyn Read) -> Result<T>,
    ) -> Result<T> {
        let digest = Digest::parse(&record.digest)?;
        if let Some(archive) = self.blobs.unpacked(number, record)? {
            let archive = Stoppable { inner: archive, stop: &self.stop };
            let mut archive = Verified::new(archive);
            let outcome = read(&mut archive);
            if let Some(failure) = archive.failure() {
                return Err(match failure.kind() {
                    // What the place says about its own files.
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                        corrupt(record.diff_id.as_str(), failure.to_string())
                    }
                    _ => anyhow!(failure).context(format!("reading {}", record.diff_id)),
                });
            }
            self.stage.advance(record.size);
            return outcome;
        }
        match self.layer_once(record, digest, read) {
            Err(error) if error.is::<Corrupt>() && self.blobs.forget(&digest) => {
                tracing::info!("once more: {error:#}");
                self.layer_once(record, digest, read)
            }
            outcome => outcome,
        }
    }

    fn layer_once<T>(
        &self,
        record: &LayerRecord,
        digest: Digest,
        read: &dyn Fn(&mut dyn Read) -> Result<T>,
    ) -> Result<T> {
        let blob = self.blobs.blob(&digest, record.size)?;
        let blob = Stoppable { inner: blob, stop: &self.stop };
        // One byte more than promised is enough to see that there are more.
        let blob = self.stage.read(blob).take(record.size.saturating_add(1));
        let mut blob = Verified::new(blob);
        let outcome = compressed(&mut blob, record, read);
        // Who is to blame, in this order: the disk or network, the blob, what is in it. A damaged blob shows first as damaged
        // contents, so its digest is looked at before those are believed.
        if let Some(failure) = blob.failure() {
            return Err(anyhow!(failure).context(format!("reading {digest}")));
        }
        if outcome.as_ref().map_or_else(|error| error.is::<Corrupt>(), |_| true) {
            blob.finish(&digest, Some(record.size))?;
        }
        outcome
    }

    fn archive(&self, archive: impl Read, record: &LayerRecord) -> Result<Vec<Entry>> {
        let diff_id = Digest::parse(&record.diff_id)?;
        let mut archive = Verified::new(Metered { inner: archive, budget: self.budget });
        let mut members = Members::new(Stream(&mut archive), record.digest.as_str());
        let draft = self.kept.and_then(|kept| kept.begin(record.size, self.contents));
        let room = match &draft {
            Some(draft) => Room::Kept(draft.put_up()),
            None => Room::Spool(self.contents),
        };
        let entries = entries::read(&mut members, room, self.budget);
        // Whoever reads from it sees only that there is no more.
        let limit = |archive: &mut Verified<_>| {
            archive.failure().filter(|error| error.kind() == io::ErrorKind::QuotaExceeded)
        };
        if let (Err(_), Some(_)) = (&entries, limit(&mut archive)) {
            return Err(self.budget.too_large());
        }
        let (entries, metadata) = entries?;
        pass_trailer(&mut archive, record)?;
        let costs = Costs { archive: archive.size(), metadata };
        // What follows the end blocks belongs to both digests.
        archive.finish(&diff_id, None).map_err(|error| match error.downcast::<io::Error>() {
            Ok(error) if error.kind() == io::ErrorKind::QuotaExceeded => self.budget.too_large(),
            Ok(error) => corrupt(record.digest.as_str(), error.to_string()),
            Err(error) => error,
        })?;
        if let (Some(kept), Some(draft)) = (self.kept, draft) {
            kept.keep(&diff_id, draft, &entries, costs);
        }
        Ok(entries)
    }
}

fn compressed<T>(
    blob: &mut (impl Read + Send),
    record: &LayerRecord,
    read: &dyn Fn(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    let (_, compression) = manifest::compression(&record.media_type).ok_or_else(|| {
        let what = format!("layers of type {:?} are not supported", record.media_type);
        unsupported(what, None)
    })?;
    read(&mut decompressed(blob, compression, &record.digest)?)
}

fn layer(record: &LayerRecord, entries: Vec<Entry>) -> Layer {
    Layer {
        digest: record.digest.clone(),
        diff_id: record.diff_id.clone(),
        size: record.size,
        entries,
    }
}

/// Reads what follows the end blocks of an archive.
fn pass_trailer(archive: &mut dyn Read, record: &LayerRecord) -> Result<()> {
    let trailer = archive.take(LONGEST_TRAILER + 1);
    if io::copy(&mut { trailer }, &mut io::sink()).is_ok_and(|count| count > LONGEST_TRAILER) {
        let reason = format!("more than {} MiB follow the archive's end", LONGEST_TRAILER >> 20);
        return Err(corrupt(record.digest.as_str(), reason));
    }
    Ok(())
}

/// A reader that fails when more comes out of a decompressor than the image may have.
struct Metered<'a, R> {
    inner: R,
    budget: &'a Budget,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let within = self.budget.take_archive(count as u64);
        if within { Ok(count) } else { Err(io::ErrorKind::QuotaExceeded.into()) }
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
