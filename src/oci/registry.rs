//! Blobs in a registry, fetched without logging in.
//!
//! ```text
//! fetcher thread: one runtime, one client ──► chunk chunk chunk (bounded) ──► BlobReader: an ordinary blocking reader
//! ```
//!
//! Nothing that a registry says is believed: whoever reads verifies digests and sizes.

use std::io::{self, Cursor, Read};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol, SizedStream};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};

use super::Blobs;
use super::digest::Digest;
use super::manifest::{Document, INDEXES, MANIFESTS, MAXIMUM_DOCUMENT};
use crate::error::unsupported;

/// Waits between attempts. A blob that made progress has all of them again.
const BACK_OFF: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(8),
];

/// Progress that earns new attempts, so that a server cannot keep us with a byte at a time.
const PROGRESS: u64 = 1 << 20;

/// Chunks that wait for a reader; a chunk is what one TLS record or read gave, some 16 KiB.
const READ_AHEAD: usize = 64;

/// An image in a registry.
pub(super) struct Registry {
    client: Client,
    reference: Reference,
    fetcher: Fetcher,
}

/// The thread that drives all connections. They end when this drops.
struct Fetcher {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Registry {
    /// Connects and asks for an anonymous token. Plain HTTP is spoken with this machine only, if it speaks nothing better.
    pub(super) fn connect(reference: &Reference) -> Result<Self> {
        let fetcher = Fetcher::start().context("starting the registry client")?;
        let registry = reference.resolve_registry();
        let connected = |protocol, patience: &'static [Duration]| -> Result<Client> {
            let client = client(protocol)?;
            let request =
                || client.auth(reference, &RegistryAuth::Anonymous, RegistryOperation::Pull);
            fetcher.handle.block_on(persistently(patience, request))?;
            Ok(client)
        };
        let client = if is_loopback(registry) {
            connected(ClientProtocol::Https, &[])
                .or_else(|_| connected(ClientProtocol::Http, &BACK_OFF))
        } else {
            connected(ClientProtocol::Https, &BACK_OFF)
        };
        let client = client.map_err(|error| explain(error, registry))?;
        Ok(Self { client, reference: reference.clone(), fetcher })
    }

    /// The index or manifest that the reference names. Its digest is right by definition, unless the reference has one.
    pub(super) fn top(&self) -> Result<Document> {
        let bytes = self.manifest(&self.reference)?;
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

    fn manifest(&self, reference: &Reference) -> Result<Vec<u8>> {
        let accepted = [INDEXES, MANIFESTS].concat();
        let auth = RegistryAuth::Anonymous;
        let request = || self.client.pull_manifest_raw(reference, &auth, &accepted);
        let fetched = self.fetcher.handle.block_on(persistently(&BACK_OFF, request));
        let (bytes, _) = fetched.map_err(|error| explain(error, &reference.whole()))?;
        if bytes.len() as u64 > MAXIMUM_DOCUMENT {
            let what = format!("a document of {} bytes is larger than any real one", bytes.len());
            return Err(unsupported(what, None));
        }
        Ok(bytes.into())
    }
}

impl Blobs for Registry {
    fn document(&self, digest: &Digest, _: u64) -> Result<Box<dyn Read + Send + '_>> {
        let reference = self.reference.clone_with_digest(digest.to_string());
        Ok(Box::new(Cursor::new(self.manifest(&reference)?)))
    }

    fn blob(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send + '_>> {
        let (sender, chunks) = mpsc::channel(READ_AHEAD);
        let fetch = Fetch {
            client: self.client.clone(),
            reference: self.reference.clone(),
            descriptor: OciDescriptor {
                digest: digest.to_string(),
                size: i64::try_from(size).unwrap_or(i64::MAX),
                ..OciDescriptor::default()
            },
            size,
            done: 0,
        };
        self.fetcher.handle.spawn(fetch.run(sender));
        Ok(Box::new(BlobReader { chunks, current: Cursor::new(Vec::new()) }))
    }
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
    client: Client,
    reference: Reference,
    descriptor: OciDescriptor,
    size: u64,
    /// Bytes that were handed on.
    done: u64,
}

impl Fetch {
    /// Hands on the blob's bytes, resuming after broken connections, and at last an error if that did not help.
    async fn run(mut self, sender: mpsc::Sender<io::Result<Vec<u8>>>) {
        let (mut waits, mut started_from) = (BACK_OFF.iter(), 0);
        loop {
            let error = match self.attempt(&sender).await {
                Ok(()) => return,
                Err(error) => error,
            };
            if self.done - started_from >= PROGRESS {
                (waits, started_from) = (BACK_OFF.iter(), self.done);
            }
            match waits.next().filter(|_| is_passing(&error)) {
                Some(&wait) => {
                    tracing::info!(
                        "{} broke after {} bytes: {error:#}",
                        self.descriptor.digest,
                        self.done
                    );
                    tokio::time::sleep(wait).await;
                }
                None => {
                    let error = io::Error::other(explain(error, &self.reference.whole()));
                    // Without a reader nobody needs to know.
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            }
        }
    }

    async fn attempt(&mut self, sender: &mpsc::Sender<io::Result<Vec<u8>>>) -> Result<()> {
        let (mut stream, mut skip) = self.open().await?;
        loop {
            match std::future::poll_fn(|context| stream.stream.as_mut().poll_next(context)).await {
                Some(Ok(bytes)) => {
                    let known = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
                    skip -= known as u64;
                    let bytes = bytes.slice(known..);
                    self.done += bytes.len() as u64;
                    let received = sender.send(Ok(bytes.into())).await;
                    // Too long a blob is for the reader to judge; it needs to see only that there is more.
                    if received.is_err() || self.done > self.size {
                        return Ok(());
                    }
                }
                // The client's own opinion on the digest comes at the end; ours counts.
                Some(Err(_)) | None if self.done >= self.size => return Ok(()),
                Some(Err(error)) => return Err(error.into()),
                None => {
                    let (done, size) = (self.done, self.size);
                    let reason = format!("the connection ended after {done} of {size} bytes");
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason).into());
                }
            }
        }
    }

    /// The stream, and how many of its bytes are known already.
    async fn open(&self) -> Result<(SizedStream, u64)> {
        let (client, reference, descriptor) = (&self.client, &self.reference, &self.descriptor);
        if self.done == 0 {
            return Ok((client.pull_blob_stream(reference, descriptor).await?, 0));
        }
        let response = client.pull_blob_stream_partial(reference, descriptor, self.done, None);
        Ok(match response.await? {
            BlobResponse::Full(stream) => (stream, self.done),
            BlobResponse::Partial(stream) => (stream, 0),
        })
    }
}

/// The receiving end. Must not be used on a thread of an async runtime: it blocks.
struct BlobReader {
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

fn client(protocol: ClientProtocol) -> Result<Client> {
    let config = ClientConfig {
        protocol,
        platform_resolver: None,
        connect_timeout: Some(Duration::from_secs(20)),
        read_timeout: Some(Duration::from_secs(60)),
        user_agent: concat!("bootpress/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    Client::try_from(config).context("starting the registry client")
}

/// Whether the registry is this machine; then nobody between could change anything, and test registries have no certificate.
fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Repeats a request while its failure may pass and there is patience left.
async fn persistently<T, F>(patience: &[Duration], request: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T, OciDistributionError>>,
{
    let mut waits = patience.iter();
    loop {
        let error = match request().await {
            Ok(value) => return Ok(value),
            Err(error) => Error::from(error),
        };
        match waits.next().filter(|_| is_passing(&error)) {
            Some(&wait) => {
                tracing::info!("a request failed: {error:#}");
                tokio::time::sleep(wait).await;
            }
            None => return Err(error),
        }
    }
}

/// Whether trying again may help: broken connections, overload, faults of the server.
fn is_passing(error: &Error) -> bool {
    match error.downcast_ref::<OciDistributionError>() {
        None => error.is::<io::Error>(),
        Some(OciDistributionError::RequestError(_) | OciDistributionError::IoError(_)) => true,
        Some(OciDistributionError::ServerError { code, .. }) => matches!(code, 408 | 429 | 500..),
        Some(OciDistributionError::RegistryError { envelope, .. }) => {
            envelope.errors.iter().any(|error| error.code == OciErrorCode::Toomanyrequests)
        }
        Some(_) => false,
    }
}

/// The errors that people meet, in words that help them.
fn explain(error: Error, name: &str) -> Error {
    use OciDistributionError::{
        AuthenticationFailure, ImageManifestNotFoundError, RegistryError, ServerError,
        UnauthorizedError,
    };
    let login =
        "log in with other tools and make a local copy: `skopeo copy docker://NAME oci:DIR`";
    let refused = match error.downcast_ref::<OciDistributionError>() {
        Some(UnauthorizedError { .. } | AuthenticationFailure(_)) => true,
        Some(ServerError { code, .. }) => matches!(code, 401 | 403),
        Some(RegistryError { envelope, .. }) => envelope
            .errors
            .iter()
            .any(|error| matches!(error.code, OciErrorCode::Denied | OciErrorCode::Unauthorized)),
        _ => false,
    };
    if refused {
        let what = format!("{name} is private or does not exist, and bootpress does not log in");
        return unsupported(what, Some(login));
    }
    match error.downcast_ref::<OciDistributionError>() {
        Some(ImageManifestNotFoundError(_)) => error.context(format!("there is no {name}")),
        Some(RegistryError { envelope, .. })
            if envelope.errors.iter().any(|error| {
                matches!(error.code, OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown)
            }) =>
        {
            error.context(format!("the registry has no {name}"))
        }
        _ => error.context(format!("fetching {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        for (registry, loopback) in [
            ("localhost:5000", true),
            ("localhost", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("quay.io", false),
            ("localhost.example.org:5000", false),
            ("10.0.0.1:5000", false),
            ("127.0.0.1.example.org", false),
        ] {
            assert_eq!(is_loopback(registry), loopback, "{registry}");
        }
    }
}
