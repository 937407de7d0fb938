//! A small HTTP server on this machine's loopback, for one guest: GET and HEAD, several requests to a connection, no more.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::error::BootError;

/// Where the guest of a user-mode network finds this machine's loopback.
const GATEWAY: &str = "10.0.2.2";

/// Bytes of a request's head: clients of ours send less than 1 KiB.
const LONGEST_HEAD: u64 = 16 << 10;

/// How long a connection may be idle.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// What a server serves.
pub trait Site: Send + Sync {
    /// What is at a path, without the slash at its beginning and with nothing escaped; `None`: nothing is.
    fn page(&self, path: &str) -> Option<Page<'_>>;
}

/// A page.
pub struct Page<'a> {
    /// Its size in bytes.
    pub size: u64,
    /// Its bytes, that many.
    pub body: Box<dyn Read + 'a>,
}

/// A running server. Dropping it ends it.
pub(super) struct Server {
    port: u16,
    stopped: Arc<AtomicBool>,
}

impl Server {
    /// Serves until it is dropped.
    pub(super) fn start(site: Arc<dyn Site>) -> Result<Self, BootError> {
        let doing = "listening on this machine's loopback";
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(BootError::io(doing))?;
        let port = listener.local_addr().map_err(BootError::io(doing))?.port();
        let stopped = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&stopped);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if heard.load(Ordering::Relaxed) {
                    return;
                }
                let site = Arc::clone(&site);
                // A connection that breaks is the guest's to notice.
                thread::spawn(move || drop(attend(&stream, &*site)));
            }
        });
        Ok(Self { port, stopped })
    }

    /// Its address, as the guest sees it.
    pub(super) fn url(&self) -> String {
        format!("http://{GATEWAY}:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes it; if that fails, it is not listening any more.
        let _ = TcpStream::connect(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port));
    }
}

/// Answers the requests of a connection, until it ends.
fn attend(stream: &TcpStream, site: &dyn Site) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_LIMIT))?;
    stream.set_write_timeout(Some(IDLE_LIMIT))?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = head(&mut reader)? {
        answer(&request, site, stream)?;
    }
    Ok(())
}

/// The first line of the next request, whose other lines say nothing that matters here; `None` at the end of the connection.
fn head(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut reader = reader.take(LONGEST_HEAD);
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end().is_empty() {
            return Ok(Some(first.trim_end().to_owned()));
        }
    }
}

fn answer(request: &str, site: &dyn Site, mut stream: &TcpStream) -> io::Result<()> {
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let refuse = |mut stream: &TcpStream, status: &str| {
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    };
    if !matches!(method, "GET" | "HEAD") {
        return refuse(stream, "405 Method Not Allowed");
    }
    let path = target.split('?').next().unwrap_or_default().trim_start_matches('/');
    let Some(Page { size, body }) = unescaped(path).and_then(|path| site.page(&path)) else {
        return refuse(stream, "404 Not Found");
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
    )?;
    if method == "GET" && io::copy(&mut body.take(size), &mut stream)? < size {
        // The connection must end here: what would come next would be taken for the rest.
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Undoes `%41`.
fn unescaped(path: &str) -> Option<String> {
    let mut parts = path.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Greeting;

    impl Site for Greeting {
        fn page(&self, path: &str) -> Option<Page<'_>> {
            let text: &[u8] = match path {
                "a b" => b"hello",
                "cut" => return Some(Page { size: 9, body: Box::new(&b"cut"[..]) }),
                _ => return None,
            };
            Some(Page { size: text.len() as u64, body: Box::new(text) })
        }
    }

    #[test]
    fn requests_are_answered_one_after_the_other() {
        let server = Server::start(Arc::new(Greeting)).unwrap();
        assert!(server.url().starts_with("http://10.0.2.2:"));
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).unwrap();
        let requests = "HEAD /a%20b HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\n\r\n\
                        POST / HTTP/1.1\r\n\r\nGET /a%20b?x HTTP/1.1\r\n\r\nGET /cut HTTP/1.1\r\n\r\n";
        stream.write_all(requests.as_bytes()).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        let statuses: Vec<&str> =
            answers.lines().filter_map(|line| line.split("HTTP/1.1 ").nth(1)).collect();
        let expected = ["200 OK", "404 Not Found", "405 Method Not Allowed", "200 OK", "200 OK"];
        assert_eq!(statuses, expected, "{answers}");
        assert_eq!(answers.matches("hello").count(), 1, "a HEAD has no body: {answers}");
        assert!(answers.ends_with("\r\n\r\ncut"), "{answers}");
    }

    #[test]
    fn what_no_path_says_is_refused() {
        for path in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(unescaped(path), None, "{path}");
        }
        assert_eq!(unescaped("a%2Fb").unwrap(), "a/b");
    }
}
