//! Requests that write to a registry: blobs in one stream each, and manifests.
//!
//! ```text
//! HEAD blobs/DIGEST ─ 404 ─► POST blobs/uploads/ ─ 202, Location ─► PUT Location?digest=DIGEST, the bytes ─► 201
//! PUT manifests/TAG or DIGEST ─► 201; with `OCI-Subject` if the registry knows what refers to what
//! ```
//!
//! Specification: OCI distribution 1.1, "Pushing a blob monolithically", "Pushing manifests with subject".

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use reqwest::{RequestBuilder, Response, Url};

use super::endpoint::{Endpoint, read};
use super::failure::Failure;
use crate::limits::Limits;
use crate::oci::manifest::MAXIMUM_DOCUMENT;

/// Bytes that are read from a file at a time.
const CHUNK: usize = 256 << 10;

/// How often a registry may let its time pass without a word after it has all bytes of a blob: it hashes, and may copy, all of them.
const THOUGHTS: u32 = 10;

/// A piece of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Bytes in memory.
    Bytes(Vec<u8>),
    /// A whole file, of this many bytes.
    File(PathBuf, u64),
}

impl Part {
    /// Its bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, size) => *size,
        }
    }

    /// Reads it from the front.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send + Sync>> {
        Ok(match self {
            Self::Bytes(bytes) => Box::new(io::Cursor::new(bytes.clone())),
            Self::File(path, size) => Box::new(File::open(path)?.take(*size)),
        })
    }
}

/// Whether the registry said that it keeps what refers to a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::oci) struct KnowsSubjects(pub(in crate::oci) bool);

impl Endpoint {
    /// Whether the repository has a blob.
    pub(super) async fn has_blob(&self, digest: &str) -> Result<bool, Failure> {
        let url = self.url(&format!("blobs/{digest}"));
        match self.perform(&|| Ok(self.client.head(&url)), &[200], None).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_not_found() => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Sends a blob. `sent` counts the bytes that have left.
    pub(super) async fn put_blob(
        &self,
        digest: &str,
        parts: &[Part],
        sent: &Arc<AtomicU64>,
    ) -> Result<(), Failure> {
        let start = self.url("blobs/uploads/");
        let answer = self.perform(&|| Ok(self.client.post(&start)), &[202], None).await?;
        let location = answer.headers().get(LOCATION).and_then(|place| place.to_str().ok());
        let place = location.and_then(|place| Url::parse(&start).ok()?.join(place).ok());
        let mut place = place.ok_or_else(|| {
            Failure::Final(anyhow!("the answer does not say where to send a blob"))
        })?;
        place.query_pairs_mut().append_pair("digest", digest);
        let put = || {
            sent.store(0, Ordering::Relaxed);
            let body = Upload::new(parts, Arc::clone(sent));
            let request = self.client.put(place.clone());
            Ok(request
                .header(CONTENT_TYPE, "application/octet-stream")
                .body(reqwest::Body::wrap(body)))
        };
        let size = parts.iter().map(Part::size).sum();
        self.perform(&put, &[201], Some((sent, size))).await.map(drop)
    }

    /// Sends a manifest or an index.
    pub(super) async fn put_manifest(
        &self,
        named: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<KnowsSubjects, Failure> {
        let url = self.url(&format!("manifests/{named}"));
        let put = || {
            let request = self.client.put(&url).header(CONTENT_TYPE, media_type);
            Ok(request.body(bytes.to_vec()))
        };
        let answer = self.perform(&put, &[201], None).await?;
        Ok(KnowsSubjects(answer.headers().contains_key("oci-subject")))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", self.base, self.reference.repository())
    }

    /// Makes a request, once more with a new token if that has run out.
    async fn perform(
        &self,
        make: &(dyn Fn() -> Result<RequestBuilder, Failure> + Sync),
        wanted: &[u16],
        sent: Option<(&Arc<AtomicU64>, u64)>,
    ) -> Result<Response, Failure> {
        let mut again = true;
        loop {
            let authorization = self.authorization.lock().await.clone();
            let mut request = make()?;
            if let Some(value) = &authorization {
                request = request.header(AUTHORIZATION, value);
            }
            let answer = self.watched(request, sent).await?;
            match answer.status().as_u16() {
                status if wanted.contains(&status) => return Ok(answer),
                401 if again => {
                    again = false;
                    self.log_in(answer.headers(), authorization.as_ref()).await?;
                }
                status => {
                    let headers = answer.headers().clone();
                    let body =
                        read(answer, MAXIMUM_DOCUMENT, self.patience).await.unwrap_or_default();
                    return Err(Failure::refused(status, &headers, &body));
                }
            }
        }
    }

    /// Waits for an answer for as long as bytes leave at the least pace.
    async fn watched(
        &self,
        request: RequestBuilder,
        sent: Option<(&Arc<AtomicU64>, u64)>,
    ) -> Result<Response, Failure> {
        let mut answer = pin!(request.send());
        let (mut before, mut thoughts) = (0, 0);
        loop {
            if let Ok(answer) = tokio::time::timeout(self.patience, answer.as_mut()).await {
                return Ok(answer?);
            }
            let (now, size) =
                sent.map_or((0, 0), |(sent, size)| (sent.load(Ordering::Relaxed), size));
            if now >= size && size > 0 {
                thoughts += 1;
            }
            let is_slow = now < size && now - before < Limits::PACE;
            if size == 0 || is_slow || thoughts > THOUGHTS {
                let seconds = Duration::as_secs(&self.patience);
                return Err(Failure::Final(anyhow!(
                    "the server took no more for {seconds} seconds, after {now} of {size} bytes; raise the limit with --max-wait"
                )));
            }
            before = now;
        }
    }
}

/// A blob on its way.
struct Upload {
    parts: VecDeque<Part>,
    current: Option<Box<dyn Read + Send + Sync>>,
    left: u64,
    sent: Arc<AtomicU64>,
}

impl Upload {
    fn new(parts: &[Part], sent: Arc<AtomicU64>) -> Self {
        let left = parts.iter().map(Part::size).sum();
        Self { parts: parts.iter().cloned().collect(), current: None, left, sent }
    }

    /// The next bytes; `None` at the end. A file that has become shorter is an error.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let Some(current) = &mut self.current else {
                match self.parts.pop_front() {
                    Some(part) => self.current = Some(part.open()?),
                    None if self.left == 0 => return Ok(None),
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
                continue;
            };
            let mut chunk = vec![0; CHUNK];
            let count = current.read(&mut chunk)?;
            if count == 0 {
                self.current = None;
                continue;
            }
            chunk.truncate(count);
            self.left = self.left.checked_sub(count as u64).ok_or(io::ErrorKind::InvalidData)?;
            self.sent.fetch_add(count as u64, Ordering::Relaxed);
            return Ok(Some(chunk.into()));
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    // Files are read on the thread that drives the connections: it has nothing else to do.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(self.next().transpose().map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.current.is_none() && self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
