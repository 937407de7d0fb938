//! Streams that are closed or full, secrets, links, and a cache that was damaged.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use support::bootc_image::bootc_image;
use support::server::{Authority, Server};
use support::tool::tool;

/// A directory with an image, and a home in it.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    // What it says reaches standard error: a warning, and lines of the log.
    bootc_image().write_oci_layout(&place.path().join("image"));
    place
}

fn bootpress(place: &Path, arguments: &[&str]) -> Command {
    let mut command = support::bootpress();
    command
        .args(arguments)
        .current_dir(place)
        .env_clear()
        .env("HOME", place)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("RUST_LOG", "bootpress=trace");
    command
}

const BUILD: [&str; 7] =
    ["build", "oci:image", "--arch", "x86_64", "--format", "raw", "--output=disk"];

/// The writing end of a pipe that nobody reads any more.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn build_whose_standard_error_goes_away_is_finished() {
    for progress in ["auto", "bars", "lines", "json", "none"] {
        for full in [false, true] {
            let place = place();
            let errors = if full {
                File::options().write(true).open("/dev/full").unwrap().into()
            } else {
                unread()
            };
            let mut command = bootpress(place.path(), &BUILD);
            command.args(["--progress", progress]).stdout(Stdio::null()).stderr(errors);
            let status = command.status().unwrap();
            assert!(status.success(), "{progress}, full: {full}: {status}");
            assert!(place.path().join("disk").is_file());
        }
    }
}

#[test]
fn failure_whose_standard_error_goes_away_keeps_its_exit_code() {
    for (arguments, code) in [
        (&["build", "oci:nothing"][..], 1),
        (&["build", "oci:image", "--filesystem", "none"], 2),
        (&["build", "oci:image", "--output", "-"], 3),
        (&["inspect", "image/index.json"], 4),
    ] {
        let place = place();
        let mut command = bootpress(place.path(), arguments);
        let status = command.stdout(unread()).stderr(unread()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn output_that_nobody_reads_is_a_failure_and_no_panic() {
    for arguments in [
        &["inspect", "oci:image", "--arch", "x86_64"][..],
        &["inspect", "oci:image", "--arch", "x86_64", "--json"],
        &["completions", "bash"],
        &["man"],
        &["cache", "list"],
        &["--help"],
    ] {
        let place = place();
        let output =
            bootpress(place.path(), arguments).stdout(unread()).stderr(Stdio::piped()).output();
        let output = output.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}: {}", output.status);
        assert!(!errors.contains("panicked"), "{errors}");
    }
}

#[test]
fn closed_streams_are_no_reason_to_abort() {
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let place = place();
        let program = support::program::program();
        let program = program.display();
        let arguments = BUILD.join(" ");
        let script = format!("exec {program} {arguments} --progress lines {closed}");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(place.path()).env("HOME", place.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{closed}: {output:?}");
        assert_eq!(fs::metadata(place.path().join("disk")).unwrap().len() % (1 << 20), 0);
        let script = format!("exec {program} build oci:nothing {closed}");
        let mut command = Command::new("sh");
        let status = command.args(["-c", &script]).current_dir(place.path()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{closed}");
    }
}

#[test]
fn json_lines_and_log_carry_no_escape_sequences() {
    let place = tempfile::tempdir().unwrap();
    let version = "1\u{1b}]0;owned\u{7}\nerror: forged\u{9b}2J";
    let image = bootc_image().label("org.opencontainers.image.version", version);
    image.write_oci_layout(&place.path().join("image"));
    let arguments = [&BUILD[..], &["--progress", "json", "--json", "--dry-run"]].concat();
    let output = bootpress(place.path(), &arguments).output().unwrap();
    let (said, errors) = (output.stdout, String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{errors}");
    let said = String::from_utf8(said).unwrap();
    for text in [&said, &errors] {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("error")), "{text}");
    }
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["image"]["version"], version);
}

#[test]
fn passwords_are_in_no_message() {
    let place = place();
    let login = place.path().join("login");
    fs::write(&login, "hunter2 without a user\n").unwrap();
    for arguments in [
        &["build", "oci:image", "--creds", "hunter2"][..],
        &["build", "oci:image", "--creds=:hunter2"],
        &["build", "oci:image", "--creds-file", "login"],
        &["pull", "localhost:1/x", "--creds", "me:hunter2"],
    ] {
        let output = bootpress(place.path(), arguments).env("RUST_LOG", "trace").output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!errors.contains("hunter2"), "{arguments:?}: {errors}");
    }
}

#[test]
fn redirect_from_https_to_plain_http_is_refused() {
    let (Some(_), Some(authority)) = (tool("nginx"), Authority::new()) else { return };
    let place = place();
    let certificates = place.path().join("certificates");
    authority.copy("ca.crt", &certificates.join("ca.crt"));
    let plain = Server::nginx("", "location / { return 404; }").unwrap();
    let encrypted = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let files = authority.0.path().display();
    let _front = Server::nginx("", &format!(
        "listen {encrypted} ssl; ssl_certificate {files}/server.crt; ssl_certificate_key {files}/server.key;\n\
         location = /v2/ {{ return 200; }}\nlocation / {{ return 307 http://{}$request_uri; }}",
        plain.address
    ))
    .unwrap();
    let image = format!("{encrypted}/x:1");
    let said = |arguments: &[&str]| {
        let mut command = bootpress(place.path(), &["pull", &image, "--arch", "x86_64"]);
        let output = command.args(arguments).env_remove("RUST_LOG").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let refused = said(&["--cert-dir", "certificates"]);
    assert!(refused.contains("redirects from https to plain http"), "{refused}");
    let followed = said(&["--tls-verify=false"]);
    assert!(followed.contains("the registry has no"), "{followed}");
}

#[test]
fn output_by_a_link_leaves_the_link() {
    let place = place();
    let directory = place.path().join("elsewhere");
    fs::create_dir(&directory).unwrap();
    symlink("elsewhere/real", place.path().join("disk")).unwrap();
    for before in [None, Some("what was there")] {
        if let Some(text) = before {
            fs::write(directory.join("real"), text).unwrap();
        }
        let output = bootpress(place.path(), &BUILD).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(fs::symlink_metadata(place.path().join("disk")).unwrap().is_symlink());
        assert!(fs::metadata(directory.join("real")).unwrap().len() > 1 << 20);
    }
}

#[test]
fn cache_with_a_damaged_index_mends_itself() {
    let place = place();
    let cache = place.path().join(".cache/bootpress");
    let list = || bootpress(place.path(), &["cache", "list"]).output().unwrap();
    assert!(list().status.success());
    let index = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","size":3,"annotations":{"org.opencontainers.image.ref.name":"quay.io/x/y:1"}}]}"#;
    let damaged = (0..index.len()).step_by(7).map(|at| {
        let mut bytes = index.as_bytes().to_vec();
        bytes[at] ^= 0x41;
        bytes
    });
    let cut = (0..index.len()).step_by(31).map(|at| index.as_bytes()[..at].to_vec());
    for bytes in damaged.chain(cut).chain([vec![0; 300], b"[]".to_vec()]) {
        fs::write(cache.join("index.json"), &bytes).unwrap();
        let output = list();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", String::from_utf8_lossy(&bytes));
        let mended = fs::read(cache.join("index.json")).unwrap();
        let mended: serde_json::Value = serde_json::from_slice(&mended).unwrap();
        assert!(mended["manifests"].is_array());
    }
    fs::write(cache.join("oci-layout"), "").unwrap();
    assert!(list().status.success());
    assert!(fs::metadata(cache.join("oci-layout")).unwrap().len() > 10);
}
