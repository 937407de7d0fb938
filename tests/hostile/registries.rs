//! Registries that are slow, silent, endless, or send one on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::runner::Case;

const CORRUPT: i32 = 4;
const UNSUPPORTED: i32 = 3;
const FAILED: i32 = 1;

/// A build of an image in a registry that answers each request as told; it is given the path. The server ends with the test.
fn registry(
    name: &str,
    exit: i32,
    answer: impl Fn(&str, &mut TcpStream) + Clone + Send + Sync + 'static,
) -> Case {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || {
                // One who comes with TLS is sent away, and comes again without.
                while let Some(path) = request(&mut client) {
                    answer(&path, &mut client);
                }
            });
        }
    });
    let image = format!("docker://{address}/x:1");
    Case::new(format!("registry that {name}"), exit, &["build", &image, "--max-wait", "2"], |_| ())
        .within(40, 160)
}

/// The path of a request, after which its head is read.
fn request(client: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
        if head[0] != b'G' {
            return None;
        }
    }
    let head = String::from_utf8_lossy(&head);
    head.split(' ').nth(1).map(str::to_owned)
}

fn send(client: &mut TcpStream, text: &str) {
    // Who does not want to know more hangs up.
    let _ = client.write_all(text.as_bytes());
}

fn good(client: &mut TcpStream, body: &str) {
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let length = body.len();
    send(
        client,
        &format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    );
}

/// Answers the greeting well, and the rest as told.
fn then(
    rest: impl Fn(&mut TcpStream) + Clone + Send + Sync + 'static,
) -> impl Fn(&str, &mut TcpStream) + Clone + Send + Sync + 'static {
    move |path, client| match path {
        "/v2/" => good(client, "{}"),
        _ => rest(client),
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let redirect = |to: &'static str| {
        move |client: &mut TcpStream| {
            send(client, &format!("HTTP/1.1 307 X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"))
        }
    };
    let status = |status: &'static str, headers: &'static str, body: &'static str| {
        move |client: &mut TcpStream| {
            let length = body.len();
            send(
                client,
                &format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}"),
            )
        }
    };
    vec![
        registry(
            "sends a byte a second",
            FAILED,
            then(|client| {
                send(client, "HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n");
                while client.write_all(b" ").is_ok() {
                    thread::sleep(Duration::from_secs(1));
                }
            }),
        ),
        registry(
            "sends a byte of its head a second",
            FAILED,
            then(|client| {
                send(client, "HTTP/1.1 200 OK\r\nX-Slow: ");
                while client.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_secs(1));
                }
            }),
        ),
        registry("sends a byte a second of its greeting", FAILED, |_, client: &mut TcpStream| {
            send(client, "HTTP/1.1 401 X\r\nX-Slow: ");
            while client.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_secs(1));
            }
        }),
        registry("is silent", FAILED, |_, _: &mut TcpStream| {
            thread::sleep(Duration::from_secs(60))
        }),
        registry(
            "sends a manifest without end",
            UNSUPPORTED,
            then(|client| {
                send(client, "HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n");
                while client.write_all(&[b' '; 65536]).is_ok() {}
            }),
        ),
        registry("sends a manifest that is none", CORRUPT, then(|client| good(client, "<html>"))),
        registry(
            "sends what is not HTTP",
            FAILED,
            then(|client| send(client, "\u{1b}]0;owned\u{7}\nerror: forged\r\n\r\n")),
        ),
        registry(
            "refuses with escape sequences",
            FAILED,
            then(status(
                "404",
                "",
                "{\"errors\":[{\"code\":\"X\",\"message\":\"\\u001b]0;owned\\u0007\\nerror: forged\"}]}",
            )),
        ),
        registry(
            "refuses with a page of escape sequences",
            FAILED,
            then(status("418", "", "\u{1b}]0;owned\u{7}\nerror: forged\n")),
        ),
        registry(
            "wants to be left alone for a day",
            FAILED,
            then(status("429", "Retry-After: 86400\r\n", "")),
        ),
        registry("sends one round in circles", FAILED, then(redirect("/v2/x/manifests/1"))),
        registry("sends one to a file", FAILED, then(redirect("file:///etc/passwd"))),
        registry("sends one to nowhere", FAILED, then(redirect("http://"))),
        registry("never lets one in", FAILED, |_, client: &mut TcpStream| {
            send(
                client,
                "HTTP/1.1 401 X\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n",
            )
        }),
        registry("gives tokens that are none", FAILED, |path: &str, client: &mut TcpStream| {
            if path.starts_with("/token") {
                return good(client, "{\"token\":\"a\\nb\"}");
            }
            let address = client.local_addr().unwrap();
            send(
                client,
                &format!(
                    "HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer realm=\"http://{address}/token\"\r\nContent-Length: 0\r\n\r\n"
                ),
            )
        }),
    ]
}
