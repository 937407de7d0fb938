//! The corpora of configuration files in `tests/config`: containers' own tools have to say of each file what the corpus says. Unit tests
//! hold our readers against the same files.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use support::tool::{signer, tool};

/// The cases of a file: what the head line says, and the text below it.
fn cases(name: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name);
    let text = fs::read_to_string(path).unwrap();
    let case = |case: &str| {
        let (head, text) = case.split_once('\n').unwrap();
        (head.to_owned(), text.to_owned())
    };
    text.split("### ").skip(1).map(case).collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Nobody listens at this port, so whoever can read the file gets as far as a refused connection.
#[test]
fn registries_conf_verdicts_are_those_of_skopeo() {
    let Some(skopeo) = signer("skopeo") else { return };
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("registries.conf");
    for (head, text) in cases("registries.txt") {
        fs::write(&file, &text).unwrap();
        let output = Command::new(skopeo.get_program())
            .args(["--insecure-policy", "--registries-conf"])
            .arg(&file)
            .args(["inspect", "docker://127.0.0.1:1/x:1"])
            .env("HOME", home.path())
            .output()
            .unwrap();
        let said = stderr(&output);
        // Credential helpers are asked once the file has been read.
        let can_be_read =
            said.contains("connection refused") || said.contains("docker-credential-");
        assert_eq!(can_be_read, head.starts_with("accepted"), "{head}: {said}\n{text}");
    }
}

#[test]
fn policy_verdicts_are_those_of_skopeo() {
    let Some(skopeo) = signer("skopeo") else { return };
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("policy.json");
    for (head, text) in cases("policies.txt") {
        fs::write(&file, &text).unwrap();
        let output = Command::new(skopeo.get_program())
            .arg("--policy")
            .arg(&file)
            .args(["copy", "dir:/nonexistent", "dir:/nonexistent/copy"])
            .output()
            .unwrap();
        let said = stderr(&output);
        let is_good = !said.contains("trust policy");
        assert_eq!(is_good, head == "accepted", "{head}: {said}\n{text}");
    }
}

#[test]
fn credentials_are_those_that_podman_finds() {
    let Some(podman) = tool("podman") else { return };
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("auth.json");
    for (head, text) in cases("auth.txt") {
        let (name, expected) = head.split_once(" => ").unwrap();
        fs::write(&file, &text).unwrap();
        let output = Command::new(podman.get_program())
            .args(["login", "--get-login", "--authfile"])
            .arg(&file)
            .arg(name)
            .env("HOME", home.path())
            .output()
            .unwrap();
        let said = stderr(&output);
        let found = if output.status.success() {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        } else if said.contains("not logged in") {
            "none".to_owned()
        } else {
            "error".to_owned()
        };
        assert_eq!(found, expected, "{head}: {said}\n{text}");
    }
}
