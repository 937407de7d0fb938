//! A registry of a few lines that misbehaves on request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use support::tiny_image::Blobs as TinyBlobs;

use super::super::{Access, Source, open};
use super::Registry;
use super::conf::Registries;
use crate::architecture::Architecture;
use crate::content::ContentStore;
use crate::layer::Layer;
use crate::progress::Progress;

/// What the registry does wrong, or wants.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::oci) struct Manners {
    /// Blobs break off when they have sent this many bytes.
    pub(in crate::oci) breaks_after: Option<usize>,
    /// Whether a range request is answered with the range.
    pub(in crate::oci) ranges: bool,
    /// Answers these many first requests with 503.
    pub(in crate::oci) overloaded: usize,
    /// Answers without this token are 401.
    pub(in crate::oci) token: Option<&'static str>,
    /// Says that it wants a token only when it is asked for something.
    pub(in crate::oci) quiet: bool,
    /// The token is given only for this other token.
    pub(in crate::oci) identity: Option<&'static str>,
    /// Sends blobs with a byte changed.
    pub(in crate::oci) lies: bool,
    /// Sends large blobs with a byte changed.
    pub(in crate::oci) lies_about_layers: bool,
    /// So many blobs that break off leave the connection open.
    pub(in crate::oci) stalls: usize,
    /// Takes connections, and answers nothing.
    pub(in crate::oci) silent: bool,
    /// What the answer 503 asks for.
    pub(in crate::oci) asks: Option<&'static str>,
}

pub(in crate::oci) struct Server {
    pub(in crate::oci) address: String,
    log: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Serves blobs, and the manifest as `x:latest`, until dropped.
    pub(in crate::oci) fn start(blobs: TinyBlobs, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (log, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let server = Self { address, log: Arc::clone(&log), stop: Arc::clone(&stop) };
        let (address, requests) =
            (server.address.clone(), Arc::new((AtomicUsize::new(0), AtomicUsize::new(0))));
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

    pub(in crate::oci) fn reference(&self) -> super::super::Reference {
        format!("docker://{}/x", self.address).parse().unwrap()
    }

    pub(super) fn open(&self) -> Result<Source> {
        let opened = open(&self.reference(), Architecture::X86_64, &Progress::default())?;
        Ok(opened.unjudged("tests vouch for what they make"))
    }

    pub(super) fn registry(&self) -> Registry {
        let reference = format!("{}/x", self.address).parse().unwrap();
        let found = Registry::find(&reference, &Access::default(), &Registries::default(), false);
        found.map_err(|failure| failure.error).unwrap().0
    }

    pub(super) fn unpack(&self) -> Result<Vec<Layer>> {
        let contents = ContentStore::create_in(&std::env::temp_dir())?;
        self.open()?.unpack(&contents, &Progress::default())
    }

    /// All requests: line and headers.
    pub(in crate::oci) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Requests of which the line or a header contains `text`.
    pub(in crate::oci) fn requests(&self, text: &str) -> usize {
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
    (requests, stalled): &(AtomicUsize, AtomicUsize),
) -> Option<()> {
    let mut lines = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        lines.read_line(&mut line).ok()?;
        Some(line)
    };
    let mut request =
        line().filter(|line| line.starts_with("GET ") || line.starts_with("POST "))?;
    loop {
        let header = line()?.to_ascii_lowercase();
        if header.trim().is_empty() {
            break;
        }
        request += &header;
    }
    log.lock().unwrap().push(request.clone());
    if manners.silent {
        std::thread::sleep(Duration::from_secs(4));
        return None;
    }
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
        let asks = manners.asks.map_or(String::new(), |asks| format!("Retry-After: {asks}\r\n"));
        return respond("503 Service Unavailable", &asks, b"later", everything);
    }
    if let (Some(identity), true) = (manners.identity, path.starts_with("/token")) {
        let right = format!("refresh_token={identity}");
        let length =
            request.split("content-length: ").nth(1)?.lines().next()?.trim().parse().ok()?;
        let mut form = vec![0; length];
        lines.read_exact(&mut form).ok()?;
        let form = String::from_utf8(form).ok()?;
        let wanted =
            ["grant_type=refresh_token", "service=s", "scope=repository%3Ax%3Apull", &right];
        if !request.starts_with("POST")
            || !wanted.iter().all(|wanted| form.split('&').any(|pair| pair == *wanted))
        {
            return respond("401 Unauthorized", "", b"{}", everything);
        }
    }
    if path.starts_with("/token") {
        let token = format!(r#"{{"token":"{}"}}"#, manners.token?);
        return respond("200 OK", "", token.as_bytes(), everything);
    }
    let may_ask = manners.quiet && path == "/v2/";
    if !may_ask && manners.token.is_some_and(|token| !request.contains(&format!("bearer {token}")))
    {
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
    if is_blob && (manners.lies || manners.lies_about_layers && bytes.len() > 1000) {
        bytes[0] ^= 1;
    }
    let sent = manners.breaks_after.filter(|_| is_blob).unwrap_or(everything);
    let range = request
        .split("range: bytes=")
        .nth(1)
        .and_then(|range| range.split('-').next()?.parse().ok());
    let sent = match range.filter(|_| manners.ranges) {
        Some(start) => {
            let range =
                format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
            respond("206 Partial Content", &range, bytes.get(start..)?, sent)
        }
        None => respond("200 OK", "", &bytes, sent),
    };
    if is_blob && bytes.len() > 100_000 && stalled.fetch_add(1, Ordering::Relaxed) < manners.stalls
    {
        std::thread::sleep(Duration::from_secs(8));
    }
    sent
}
