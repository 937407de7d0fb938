//! Blobs in a registry.
//!
//! ```text
//! name ─ registries.conf ─► mirrors, itself ─► the first Endpoint that has it
//! fetcher thread: one runtime ──► chunk chunk chunk (bounded) ──► BlobReader: an ordinary blocking reader
//! ```
//!
//! Nothing that a registry says is believed: whoever reads verifies digests and sizes.

mod auth;
mod certs;
pub(super) mod conf;
mod endpoint;
mod failure;
mod tls;
mod upload;

use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use oci_client::Reference;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};

use self::certs::Certificates;
use self::conf::{Registries, Source};
pub(super) use self::endpoint::redirects;
use self::endpoint::{Endpoint, Purpose, Security, is_loopback};
use self::failure::{Failure, LONGEST_WAIT};
pub(super) use self::upload::KnowsSubjects;
pub use self::upload::Part;
use super::access::Access;
use super::digest::Digest;
use super::manifest::{Document, INDEXES, MANIFESTS};

/// The first wait between attempts; tests have no time.
const MOMENT: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 250 });

/// Waits between attempts, 12 seconds in all, unless the server asks for longer ones. A blob that made progress has all of
/// them again.
const BACK_OFF: [Duration; 4] =
    [MOMENT, MOMENT.saturating_mul(4), MOMENT.saturating_mul(12), MOMENT.saturating_mul(32)];

/// Waits between attempts where there is another way to get the answer.
const IMPATIENT: [Duration; 1] = [MOMENT];

/// Progress that earns new attempts, so that a server cannot keep us with a byte at a time.
const PROGRESS: u64 = 1 << 20;

/// Chunks that wait for a reader; a chunk is what one TLS record or read gave, some 16 KiB.
const READ_AHEAD: usize = 64;

/// An image in a registry.
pub(super) struct Registry {
    endpoint: Arc<Endpoint>,
    /// The image's name where it was found, which may be a mirror.
    reference: Reference,
    fetcher: Fetcher,
}

/// The thread that drives all connections. They end when this drops.
struct Fetcher {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why nothing was found anywhere.
pub(super) struct NotFound {
    /// All of it, in words.
    pub(super) error: Error,
    /// Whether nobody answered at all, so that what we have from another day may serve.
    pub(super) absent: bool,
}

impl Registry {
    /// Asks the sources one after the other for the index or manifest that the name means, and stays with the first that has it.
    /// With `hurry`, because there is another way, nobody is waited for.
    pub(super) fn find(
        reference: &Reference,
        access: &Access,
        registries: &Registries,
        hurry: bool,
    ) -> Result<(Self, Document), NotFound> {
        let failed = |error| NotFound { error, absent: false };
        let mut fetcher =
            Fetcher::start().context("starting the registry client").map_err(failed)?;
        let sources = registries.sources(reference).map_err(failed)?;
        let (mut errors, mut absent) = (Vec::new(), true);
        for (i, source) in sources.iter().enumerate() {
            let last = i + 1 == sources.len();
            let patience = if last && !hurry { &BACK_OFF[..] } else { &IMPATIENT[..] };
            match Self::ask(source, access, registries, fetcher, patience) {
                Ok(found) => return Ok(found),
                Err((returned, error, is_absence)) => {
                    fetcher = returned;
                    absent &= is_absence;
                    errors.push(error);
                }
            }
        }
        let Some(mut error) = errors.pop() else {
            return Err(failed(anyhow::anyhow!("there is nowhere to ask for {reference}")));
        };
        for earlier in errors {
            error = error.context(format!("a mirror failed first ({earlier:#})"));
        }
        Err(NotFound { error, absent })
    }

    fn ask(
        source: &Source,
        access: &Access,
        registries: &Registries,
        fetcher: Fetcher,
        patience: &[Duration],
    ) -> Result<(Self, Document), (Fetcher, Error, bool)> {
        let reference = &source.reference;
        let prepared = prepare(source, access, registries);
        let (credentials, certificates, security) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Err((fetcher, error, false)),
        };
        let who = credentials.shown();
        let pace = access.budget.limits().patience;
        let connect = || {
            let (credentials, purpose) = (credentials.clone(), Purpose::Read);
            Endpoint::connect(reference, credentials, &certificates, security, pace, purpose)
        };
        let endpoint = match fetcher.handle.block_on(persistently(patience, connect)) {
            Ok(endpoint) => Arc::new(endpoint),
            Err(failure) => {
                let absent = failure.is_absence();
                return Err((fetcher, failure.explain(&reference.whole(), &who), absent));
            }
        };
        let registry = Self { endpoint, reference: reference.clone(), fetcher };
        match registry.top() {
            Ok(document) => Ok((registry, document)),
            Err(error) => Err((registry.fetcher, error, false)),
        }
    }

    /// The index or manifest that the reference names. Its digest is right by definition, unless the reference has one.
    fn top(&self) -> Result<Document> {
        let named = self.reference.digest().or(self.reference.tag()).unwrap_or("latest");
        let bytes = self.manifest(named)?;
        let digest = Digest::of(&bytes);
        if let Some(wanted) = self.reference.digest() {
            let wanted = Digest::parse(wanted)?;
            if digest != wanted {
                let reason = format!("its bytes have the digest {digest}");
                return Err(crate::error::corrupt(wanted.to_string(), reason));
            }
        }
        Ok(Document { digest, bytes })
    }

    fn manifest(&self, named: &str) -> Result<Vec<u8>> {
        self.fetch(&format!("manifests/{named}"), &[INDEXES, MANIFESTS].concat().join(", "))
            .map(|body| body.bytes)
            .map_err(|failure| failure.explain(&self.name(named), &self.endpoint.who()))
    }

    /// What another tag of the same repository names, such as one that holds signatures; `None`: there is no such tag.
    pub(super) fn tagged(&self, tag: &str) -> Result<Option<Document>> {
        let accept = [INDEXES, MANIFESTS].concat().join(", ");
        match self.fetch(&format!("manifests/{tag}"), &accept) {
            Ok(body) => Ok(Some(Document { digest: Digest::of(&body.bytes), bytes: body.bytes })),
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(failure.explain(&self.name(tag), &self.endpoint.who())),
        }
    }

    /// The index of what refers to a manifest (distribution 1.1), from the registry's interface or from the tag that stands in
    /// for it; `None`: there is none.
    pub(super) fn referrers(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        match self.fetch(&format!("referrers/{digest}"), INDEXES[0]) {
            Ok(body) if body.media_type.starts_with(INDEXES[0]) => return Ok(Some(body.bytes)),
            // Some registries answer everything with some page.
            Ok(_) => {}
            // Who does not know the request says so in many ways.
            Err(failure) if !failure.is_passing() => {}
            Err(failure) => {
                return Err(failure.explain(&self.name("referrers"), &self.endpoint.who()));
            }
        }
        let found = self.tagged(&digest.to_string().replace(':', "-"))?;
        Ok(found.map(|document| document.bytes))
    }

    /// A page of the list of tags, as JSON: those after `last`, in the registry's order.
    pub(super) fn tags(&self, last: Option<&String>) -> Result<Vec<u8>> {
        // Tags have no character that means something in a query (OCI distribution 1.1: `[a-zA-Z0-9_][a-zA-Z0-9._-]*`).
        let from = last.map_or(String::new(), |last| format!("&last={last}"));
        let is_tag =
            |tag: &String| tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let path = if last.is_none_or(is_tag) {
            format!("tags/list?n=1000{from}")
        } else {
            "tags/list?n=1000".to_owned()
        };
        match self.fetch(&path, "application/json") {
            Ok(body) => Ok(body.bytes),
            Err(failure) => Err(failure.explain(&self.name("tags"), &self.endpoint.who())),
        }
    }

    /// A document by its digest.
    pub(super) fn document(&self, digest: &Digest) -> Result<Cursor<Vec<u8>>> {
        Ok(Cursor::new(self.manifest(&digest.to_string())?))
    }

    fn fetch(&self, path: &str, accept: &str) -> Result<endpoint::Body, Failure> {
        let request = || self.endpoint.document(path, accept);
        self.fetcher.handle.block_on(persistently(&BACK_OFF, request))
    }

    /// A blob from a byte on, resumed when connections break. Must not be read on a thread of an async runtime.
    pub(super) fn blob_from(&self, digest: &Digest, size: u64, done: u64) -> BlobReader {
        let (sender, chunks) = mpsc::channel(READ_AHEAD);
        let name = self.reference.clone_with_digest(digest.to_string()).whole();
        let fetch = Fetch {
            endpoint: Arc::clone(&self.endpoint),
            digest: digest.to_string(),
            name,
            size,
            done,
        };
        self.fetcher.handle.spawn(fetch.run(sender));
        BlobReader { chunks, current: Cursor::new(Vec::new()) }
    }

    fn name(&self, named: &str) -> String {
        let separator = if named.contains(':') { '@' } else { ':' };
        format!("{}/{}{separator}{named}", self.reference.registry(), self.reference.repository())
    }
}

/// A repository that is read and written by whoever knows what is in it. There are no mirrors of it.
pub(super) struct Writer {
    registry: Registry,
}

impl Writer {
    /// Connects to the registry itself, where `registries.conf` says that it is.
    pub(super) fn open(
        reference: &Reference,
        access: &Access,
        registries: &Registries,
        writes: bool,
    ) -> Result<Self> {
        let fetcher = Fetcher::start().context("starting the registry client")?;
        let sources = registries.sources(reference)?;
        let source = sources.iter().rev().find(|source| !source.mirror);
        let source = source.with_context(|| format!("there is nowhere to ask for {reference}"))?;
        let reference = source.reference.clone();
        let (credentials, certificates, security) = prepare(source, access, registries)?;
        let who = credentials.shown();
        let pace = access.budget.limits().patience;
        let purpose = if writes { Purpose::Write } else { Purpose::Read };
        let connect = || {
            let credentials = credentials.clone();
            Endpoint::connect(&reference, credentials, &certificates, security, pace, purpose)
        };
        let endpoint = fetcher.handle.block_on(persistently(&BACK_OFF, connect));
        let endpoint = endpoint.map_err(|failure| failure.explain(&reference.whole(), &who))?;
        let endpoint = Arc::new(endpoint);
        Ok(Self { registry: Registry { endpoint, reference, fetcher } })
    }

    /// Registry and repository.
    pub(super) fn name(&self) -> String {
        let reference = &self.registry.reference;
        format!("{}/{}", reference.registry(), reference.repository())
    }

    /// Tag or digest.
    pub(super) fn named(&self) -> String {
        let reference = &self.registry.reference;
        reference.digest().or(reference.tag()).unwrap_or("latest").to_owned()
    }

    /// Whether the repository has a blob.
    pub(super) fn has_blob(&self, digest: &str) -> Result<bool> {
        self.ask(digest, || self.registry.endpoint.has_blob(digest))
    }

    /// Sends a blob, anew after a broken connection.
    pub(super) fn put_blob(
        &self,
        digest: &str,
        parts: &[Part],
        sent: &Arc<AtomicU64>,
    ) -> Result<()> {
        self.ask(digest, || self.registry.endpoint.put_blob(digest, parts, sent))
    }

    /// Sends a manifest under a tag or its digest.
    pub(super) fn put_manifest(
        &self,
        named: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<KnowsSubjects> {
        self.ask(named, || self.registry.endpoint.put_manifest(named, media_type, bytes))
    }

    /// A manifest by tag or digest; `None`: there is none.
    pub(super) fn manifest(&self, named: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.registry.tagged(named)?.map(|document| document.bytes))
    }

    /// A blob.
    pub(super) fn blob(&self, digest: &Digest, size: u64) -> BlobReader {
        self.registry.blob_from(digest, size, 0)
    }

    fn ask<T, F>(&self, named: &str, request: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let registry = &self.registry;
        let asked = registry.fetcher.handle.block_on(persistently(&BACK_OFF, request));
        asked.map_err(|failure| failure.explain(&registry.name(named), &registry.endpoint.who()))
    }
}

type Prepared = (auth::Credentials, Certificates, Security);

/// What this machine knows about a source.
fn prepare(source: &Source, access: &Access, registries: &Registries) -> Result<Prepared> {
    let reference = &source.reference;
    let credentials = auth::find(access, registries, source)?;
    let certificates = Certificates::load(access, reference.registry())?;
    let verify = access.verify_tls.unwrap_or(!source.insecure);
    let is_local = is_loopback(reference.resolve_registry());
    let security = Security { verify, plain: !verify || is_local && access.verify_tls.is_none() };
    Ok((credentials, certificates, security))
}

impl Fetcher {
    fn start() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("registry".to_owned()).spawn(move || {
            // Either way the other end is gone, and with it everybody who could want something.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say; a panic in it has been printed.
            let _ = thread.join();
        }
    }
}

/// One blob under way.
struct Fetch {
    endpoint: Arc<Endpoint>,
    digest: String,
    /// For error messages.
    name: String,
    size: u64,
    /// Bytes that were handed on, or that whoever asks has already.
    done: u64,
}

impl Fetch {
    /// Hands on the blob's bytes, resuming after broken connections, and at last an error if that did not help.
    async fn run(mut self, sender: mpsc::Sender<io::Result<Vec<u8>>>) {
        let (mut waits, mut started_from) = (BACK_OFF.iter(), self.done);
        loop {
            let failure = match self.attempt(&sender).await {
                Ok(()) => return,
                Err(failure) => failure,
            };
            if self.done - started_from >= PROGRESS {
                (waits, started_from) = (BACK_OFF.iter(), self.done);
            }
            match waits.next().filter(|_| failure.is_passing()) {
                Some(&wait) => {
                    tracing::info!("{} broke after {} bytes: {failure}", self.digest, self.done);
                    tokio::time::sleep(longer(wait, &failure)).await;
                }
                None => {
                    let error = failure.explain(&self.name, &self.endpoint.who());
                    // Without a reader nobody needs to know.
                    let _ = sender.send(Err(io::Error::other(format!("{error:#}")))).await;
                    return;
                }
            }
        }
    }

    async fn attempt(&mut self, sender: &mpsc::Sender<io::Result<Vec<u8>>>) -> Result<(), Failure> {
        let (mut answer, begins) = self.endpoint.blob(&self.digest, self.done).await?;
        let mut skip = self.done - begins;
        let mut pace = self.endpoint.pace();
        while let Some(bytes) = pace.chunk(&mut answer).await? {
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
            skip -= known as u64;
            let bytes = if known == 0 { bytes } else { bytes[known..].to_vec() };
            self.done += bytes.len() as u64;
            let received = sender.send(Ok(bytes)).await;
            // Too long a blob is for the reader to judge; it needs to see only that there is more.
            if received.is_err() || self.done > self.size {
                return Ok(());
            }
        }
        if self.done >= self.size {
            return Ok(());
        }
        let reason = format!("the connection ended after {} of {} bytes", self.done, self.size);
        Err(Failure::Ended(io::Error::new(io::ErrorKind::UnexpectedEof, reason)))
    }
}

/// The receiving end. Must not be used on a thread of an async runtime: it blocks.
pub(super) struct BlobReader {
    chunks: mpsc::Receiver<io::Result<Vec<u8>>>,
    current: Cursor<Vec<u8>>,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.current.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = Cursor::new(chunk?),
                None => return Ok(0),
            }
        }
    }
}

/// Repeats a request while its failure may pass and there is patience left.
async fn persistently<T, F>(patience: &[Duration], request: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut waits = patience.iter();
    let mut tried = 0;
    loop {
        let failure = match request().await {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        tried += 1;
        match waits.next().filter(|_| failure.is_passing() && tried < failure.attempts()) {
            Some(&wait) => {
                tracing::info!("a request failed: {failure}");
                tokio::time::sleep(longer(wait, &failure)).await;
            }
            None => return Err(failure),
        }
    }
}

/// The wait before the next attempt: ours, or the server's if that is longer.
fn longer(wait: Duration, failure: &Failure) -> Duration {
    failure.wait().map_or(wait, |asked| asked.clamp(wait, LONGEST_WAIT))
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
