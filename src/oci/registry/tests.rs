//! The client against a registry of a few lines that misbehaves on request.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::super::tests::tiny_image::{Blobs as TinyBlobs, TinyImage, tiny_image, tiny_index};
use super::super::{Source, open};
use super::*;
use crate::architecture::Architecture;
use crate::content::ContentStore;
use crate::error::{Corrupt, Unsupported};
use crate::layer::Layer;
use crate::progress::Progress;

/// What the registry does wrong, or wants.
#[derive(Clone, Copy, Debug, Default)]
struct Manners {
    /// Blobs break off when they have sent this many bytes.
    breaks_after: Option<usize>,
    /// Whether a range request is answered with the range.
    ranges: bool,
    /// Answers these many first requests with 503.
    overloaded: usize,
    /// Answers without this token are 401.
    token: Option<&'static str>,
    /// Sends blobs with a byte changed.
    lies: bool,
}

struct Server {
    address: String,
    log: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Serves blobs, and the manifest as `x:latest`, until dropped.
    fn start(blobs: TinyBlobs, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (log, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let server = Self { address, log: Arc::clone(&log), stop: Arc::clone(&stop) };
        let (address, requests) = (server.address.clone(), Arc::new(AtomicUsize::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (blobs, log) = (blobs.clone(), Arc::clone(&log));
                let (address, requests) = (address.clone(), Arc::clone(&requests));
                std::thread::spawn(move || {
                    answer(&stream.unwrap(), &blobs, manners, &log, &address, &requests)
                });
            }
        });
        server
    }

    fn reference(&self) -> super::super::Reference {
        format!("docker://{}/x", self.address).parse().unwrap()
    }

    fn open(&self) -> Result<Source> {
        open(&self.reference(), Architecture::X86_64, &Progress::default())
    }

    fn unpack(&self) -> Result<Vec<Layer>> {
        let contents = ContentStore::create_in(&std::env::temp_dir())?;
        self.open()?.unpack(&contents, &Progress::default())
    }

    /// Requests of which the line or a header contains `text`.
    fn requests(&self, text: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|request| request.contains(text)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.address);
    }
}

/// One request, one answer. What is not HTTP, such as the beginning of TLS, gets none.
fn answer(
    stream: &TcpStream,
    blobs: &TinyBlobs,
    manners: Manners,
    log: &Mutex<Vec<String>>,
    address: &str,
    requests: &AtomicUsize,
) -> Option<()> {
    let mut lines = BufReader::new(stream).split(b'\n');
    let mut line = move || String::from_utf8(lines.next()?.ok()?).ok();
    let mut request = line().filter(|line| line.starts_with("GET "))?;
    loop {
        let header = line()?.to_ascii_lowercase();
        if header.trim().is_empty() {
            break;
        }
        request += &header;
    }
    log.lock().unwrap().push(request.clone());
    let respond = |status: &str, headers: &str, body: &[u8], sent: usize| {
        let mut stream = stream;
        let head = format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(&body[..sent.min(body.len())]).ok()
    };
    let everything = usize::MAX;
    let path = request.split(' ').nth(1)?.to_owned();
    if requests.fetch_add(1, Ordering::Relaxed) < manners.overloaded {
        return respond("503 Service Unavailable", "", b"later", everything);
    }
    if path.starts_with("/token") {
        let token = format!(r#"{{"token":"{}"}}"#, manners.token?);
        return respond("200 OK", "", token.as_bytes(), everything);
    }
    if manners.token.is_some_and(|token| !request.contains(&format!("bearer {token}"))) {
        let challenge =
            format!(r#"WWW-Authenticate: Bearer realm="http://{address}/token",service="s""#);
        return respond("401 Unauthorized", &format!("{challenge}\r\n"), b"{}", everything);
    }
    let name = path.rsplit('/').next()?;
    let manifest = blobs.manifest["digest"].as_str()?;
    let is_blob = path.contains("/blobs/");
    let Some(bytes) = blobs.blobs.get(if name == "latest" { manifest } else { name }) else {
        let known = path == "/v2/";
        let status = if known { "200 OK" } else { "404 Not Found" };
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#;
        return respond(status, "", if known { b"{}" } else { body }, everything);
    };
    let mut bytes = bytes.clone();
    if manners.lies && is_blob {
        bytes[0] ^= 1;
    }
    let sent = manners.breaks_after.filter(|_| is_blob).unwrap_or(everything);
    let range = request
        .split("range: bytes=")
        .nth(1)
        .and_then(|range| range.split('-').next()?.parse().ok());
    match range.filter(|_| manners.ranges) {
        Some(start) => respond("206 Partial Content", "", bytes.get(start..)?, sent),
        None => respond("200 OK", "", &bytes, sent),
    }
}

/// Some bytes that do not compress.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn image() -> TinyImage {
    tiny_image().layer(|l| l.file("a", b"abc")).layer(|l| l.file("b", noise(300_000)))
}

#[test]
fn an_image_is_fetched_and_its_architecture_chosen() {
    let server = Server::start(image().blobs(), Manners::default());
    let source = server.open().unwrap();
    assert_eq!(source.image.manifest_digest, image().blobs().manifest["digest"].as_str().unwrap());
    assert_eq!(source.image.name, Some(format!("{}/x:latest", server.address)));
    assert_eq!(source.image.reference, format!("docker://{}/x:latest", server.address));
    assert_eq!(server.unpack().unwrap()[1].entries.len(), 1);

    let both = tiny_index(&[tiny_image().architecture("arm64"), image()]);
    let server = Server::start(both, Manners::default());
    assert_eq!(server.unpack().unwrap().len(), 2);
}

#[test]
fn a_blob_that_breaks_off_is_resumed() {
    // The large layer has some 300 kB: four pieces, one more than a blob without progress would get.
    let manners = Manners { breaks_after: Some(100_000), ranges: true, ..Manners::default() };
    let server = Server::start(image().blobs(), manners);
    assert_eq!(server.unpack().unwrap()[1].entries.len(), 1);
    assert!(server.requests("range: bytes=100000-") > 0);
    assert!(server.requests("range: bytes=200000-") > 0);
}

#[test]
fn without_ranges_what_is_known_is_skipped_and_without_progress_it_ends() {
    let (client, fetcher) = (client(ClientProtocol::Http).unwrap(), Fetcher::start().unwrap());
    let blobs = image().blobs();
    let (digest, bytes) = blobs.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let (digest, bytes) = (Digest::parse(digest).unwrap(), bytes.clone());
    let server = Server::start(blobs, Manners::default());
    let reference = format!("{}/x", server.address).parse::<Reference>().unwrap();
    let fetch = Fetch {
        client,
        reference,
        descriptor: OciDescriptor { digest: digest.to_string(), ..OciDescriptor::default() },
        size: bytes.len() as u64,
        done: 100_000,
    };
    let (sender, chunks) = mpsc::channel(READ_AHEAD);
    fetcher.handle.spawn(fetch.run(sender));
    let mut rest = Vec::new();
    BlobReader { chunks, current: Cursor::new(Vec::new()) }.read_to_end(&mut rest).unwrap();
    assert!(rest == bytes[100_000..]);
    assert_eq!(server.requests("range: bytes=100000-"), 1);
}

#[test]
fn tokens_are_asked_for_and_overload_passes() {
    let manners = Manners { token: Some("t0k3n"), overloaded: 2, ..Manners::default() };
    let server = Server::start(image().blobs(), manners);
    assert_eq!(server.unpack().unwrap().len(), 2);
    assert_eq!(server.requests("GET /token"), 1);
}

#[test]
fn what_cannot_be_fetched_says_why() {
    let server = Server::start(image().blobs(), Manners { lies: true, ..Manners::default() });
    let error = server.open().unwrap_err();
    assert!(error.is::<Corrupt>(), "{error:#}");

    let server = Server::start(image().blobs(), Manners::default());
    let other = format!("{}/x:other", server.address).parse().unwrap();
    let error = open(&other, Architecture::X86_64, &Progress::default()).unwrap_err();
    assert!(format!("{error:#}").contains("the registry has no"), "{error:#}");

    let wrong = format!("{}/x@sha256:{}", server.address, "0".repeat(64)).parse().unwrap();
    assert!(open(&wrong, Architecture::X86_64, &Progress::default()).is_err());

    // The token server gives a token that the registry does not take.
    let manners = Manners { token: Some("UPPER"), ..Manners::default() };
    let server = Server::start(image().blobs(), manners);
    let error = server.open().unwrap_err();
    assert!(error.is::<Unsupported>(), "{error:#}");
    assert!(format!("{error:#}").contains("does not log in"), "{error:#}");
}

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
