//! The client against a registry that misbehaves on request.

use support::tiny_image::{TinyImage, tiny_image, tiny_index};

use super::super::open;
use super::testing::{Manners, Server};
use super::*;
use crate::architecture::Architecture;
use crate::error::Corrupt;
use crate::progress::Progress;

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
fn without_ranges_what_is_known_is_skipped() {
    let blobs = image().blobs();
    let (digest, bytes) = blobs.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let (digest, bytes) = (Digest::parse(digest).unwrap(), bytes.clone());
    let server = Server::start(blobs, Manners::default());
    let registry = server.registry();
    let mut rest = Vec::new();
    registry.blob_from(&digest, bytes.len() as u64, 100_000).read_to_end(&mut rest).unwrap();
    assert!(rest == bytes[100_000..]);
    assert_eq!(server.requests("range: bytes=100000-"), 1);
}

#[test]
fn a_silent_server_is_left_and_without_progress_it_ends() {
    let stalls =
        Manners { breaks_after: Some(100_000), stalls: 1, ranges: true, ..Manners::default() };
    let server = Server::start(image().blobs(), stalls);
    assert_eq!(server.unpack().unwrap()[1].entries.len(), 1);

    let server =
        Server::start(image().blobs(), Manners { breaks_after: Some(0), ..Manners::default() });
    let error = format!("{:#}", server.open().unwrap_err());
    assert!(error.contains("fetching"), "{error}");
    // The first attempt, and one for each wait.
    assert_eq!(server.requests("/blobs/"), 1 + BACK_OFF.len());
}

/// Fast: a second to each of two greetings here, some fifteen elsewhere.
#[test]
fn silence_is_told_as_silence_and_soon() {
    let server = Server::start(image().blobs(), Manners { silent: true, ..Manners::default() });
    let began = std::time::Instant::now();
    let error = format!("{:#}", server.open().unwrap_err());
    assert!(error.contains("does not answer") && error.contains("timed out"), "{error}");
    assert!(!error.contains("TLS") && !error.contains("tls"), "{error}");
    assert!(server.requests("GET /v2/") <= 2, "{:?}", server.log());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn unknown_host_is_told_as_such_and_soon() {
    let reference = "docker://no-such-host.invalid/x:1".parse().unwrap();
    let began = std::time::Instant::now();
    let error = open(&reference, Architecture::X86_64, &Progress::default()).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("the host of no-such-host.invalid is not known"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn a_token_buys_a_token() {
    let manners = Manners { token: Some("t0k3n"), identity: Some("r3fresh"), ..Manners::default() };
    let server = Server::start(image().blobs(), manners);
    let open = |token: &'static str| {
        let answer = format!(r#"{{"Username": "<token>", "Secret": "{token}"}}"#);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("auth.json");
        let registry = &server.address;
        std::fs::write(&file, format!(r#"{{"credHelpers": {{"{registry}": "x"}}}}"#)).unwrap();
        let access = Access {
            auth_file: Some(file),
            helper: Some(Arc::new(move |_: &str, _: &str| Ok(Some(answer.clone())))),
            ..Access::default()
        };
        let progress = Progress::default();
        super::super::open_with(&access, &server.reference(), Architecture::X86_64, &progress)
    };
    open("r3fresh").unwrap();
    let error = format!("{:#}", open("another").unwrap_err());
    assert!(error.contains("by a token (from docker-credential-x)"), "{error}");
}

#[test]
fn the_longer_wait_counts() {
    let seconds = Duration::from_secs;
    let asked = |text: &str| {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("retry-after", text.parse().unwrap());
        longer(seconds(2), &Failure::refused(429, &headers, b""))
    };
    assert_eq!([asked("7"), asked("1"), asked("soon")], [seconds(7), seconds(2), seconds(2)]);
    assert_eq!(asked("100000"), LONGEST_WAIT);
}

#[test]
fn the_server_is_left_alone_as_long_as_it_asks() {
    let manners = Manners { overloaded: 1, asks: Some("1"), ..Manners::default() };
    let server = Server::start(image().blobs(), manners);
    let began = std::time::Instant::now();
    server.unpack().unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());

    let manners = Manners { overloaded: 1, asks: Some("7200"), ..Manners::default() };
    let server = Server::start(image().blobs(), manners);
    let error = format!("{:#}", server.open().unwrap_err());
    assert!(error.contains("120 minutes"), "{error}");
    assert_eq!(server.requests("/v2/"), 1);
}

#[test]
fn the_next_source_is_asked_when_a_mirror_fails() {
    let (empty, full) = (
        Server::start(
            tiny_image().blobs(),
            Manners { overloaded: usize::MAX, ..Manners::default() },
        ),
        Server::start(image().blobs(), Manners::default()),
    );
    let directory = tempfile::tempdir().unwrap();
    let conf = directory.path().join("registries.conf");
    let text = format!(
        "[[registry]]\nprefix = 'nowhere.example.org'\nlocation = '{}'\n[[registry.mirror]]\nlocation = '{}'\n",
        full.address, empty.address
    );
    std::fs::write(&conf, text).unwrap();
    let mut places = super::super::Places::of(|_| None, 0);
    places.etc = directory.path().into();
    places.registries_conf = Some(conf);
    let access = Access { places: Some(places), ..Access::default() };
    let reference = "nowhere.example.org/x".parse().unwrap();
    let source =
        super::super::open_with(&access, &reference, Architecture::X86_64, &Progress::default())
            .unwrap();
    // The machine follows the name, wherever it came from today.
    assert_eq!(source.image.name.as_deref(), Some("nowhere.example.org/x:latest"));
    assert!(empty.requests("/v2/") > 1);
}

#[test]
fn tokens_are_asked_for_and_overload_passes() {
    let manners = Manners { token: Some("t0k3n"), overloaded: 2, ..Manners::default() };
    let server = Server::start(image().blobs(), manners);
    assert_eq!(server.unpack().unwrap().len(), 2);
    assert_eq!(server.requests("GET /token"), 1);

    let server = Server::start(image().blobs(), Manners { quiet: true, ..manners });
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
    assert!(format!("{error:#}").contains("asked without a login: 401"), "{error:#}");
    assert!(format!("{error:#}").contains("podman login 127.0.0.1"), "{error:#}");
}
