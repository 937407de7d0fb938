//! Signatures that gpg, skopeo, cosign and openssl made: good ones accepted, every other one refused.

mod certificates;
mod programs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bootpress::architecture::Architecture;
use bootpress::oci;
use bootpress::progress::Progress;
use bootpress::trust::{self, Demand, Verdict};
use serde_json::{Value, json};
use support::Build;
use support::bootc_image::bootc_image;
use support::tool::{run, tool};
use tempfile::TempDir;

/// The name that signatures are for.
const NAME: &str = "quay.io/example/tiny:43";

/// An unsigned image in `dir:`, the only local form that keeps signatures, and room for keys.
struct Workshop {
    directory: TempDir,
    digest: String,
}

impl Workshop {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let image = bootc_image().tag(NAME);
        let digest = image.write_oci_layout(&directory.path().join("layout"));
        let blobs = image.blobs();
        let dir = directory.path().join("image");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("version"), "Directory Transport Version: 1.1\n").unwrap();
        for (name, bytes) in &blobs.blobs {
            let name = if *name == digest { "manifest.json" } else { &name[7..] };
            fs::write(dir.join(name), bytes).unwrap();
        }
        Self { directory, digest }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn image(&self) -> String {
        format!("dir:{}", self.at("image").display())
    }

    fn layout(&self) -> String {
        format!("oci:{}:{NAME}", self.at("layout").display())
    }

    /// The one signature of the image.
    fn sign(&self, signature: &[u8]) {
        fs::write(self.at("image/signature-1"), signature).unwrap();
    }

    /// A policy with one requirement for everything.
    fn policy(&self, requirement: &Value) -> Demand {
        let policy = json!({ "default": [requirement] });
        let file = self.at("policy.json");
        fs::write(&file, policy.to_string()).unwrap();
        Demand::Policy(file)
    }

    /// What is signed about an image called `name`.
    fn claim(&self, kind: &str, name: &str) -> Vec<u8> {
        let critical = json!({
            "type": kind,
            "image": { "docker-manifest-digest": self.digest },
            "identity": { "docker-reference": name },
        });
        json!({ "critical": critical, "optional": {} }).to_string().into_bytes()
    }

    fn openssl(&self, arguments: &[&str]) -> Option<()> {
        let mut openssl = tool("openssl")?;
        run(openssl.args(arguments).current_dir(self.directory.path()));
        Some(())
    }

    /// `bytes` signed with the key in a file, SHA-256.
    fn signed(&self, key: &str, bytes: &[u8]) -> Vec<u8> {
        fs::write(self.at("to-sign"), bytes).unwrap();
        self.openssl(&["dgst", "-sha256", "-sign", key, "-out", "signed", "to-sign"]).unwrap();
        fs::read(self.at("signed")).unwrap()
    }
}

fn check(demand: &Demand, reference: &str) -> Result<Verdict> {
    let reference = reference.parse()?;
    let source = oci::open(&reference, Architecture::X86_64, &Progress::default())?;
    trust::check(demand, &source.subject(), &|wanted| source.claims(wanted))
}

#[track_caller]
fn accepted(demand: &Demand, reference: &str) -> Verdict {
    let verdict = check(demand, reference).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(verdict.verified, "{verdict}");
    verdict
}

#[track_caller]
fn refused(demand: &Demand, reference: &str, reason: &str) {
    let error = match check(demand, reference) {
        Ok(verdict) => panic!("accepted: {verdict}"),
        Err(error) => format!("{error:#}"),
    };
    assert!(error.contains(reason), "{error}");
}

/// A sigstore signature as container tools keep it in a file.
fn stored(payload: &[u8], annotations: &Value) -> Vec<u8> {
    let json = json!({
        "mimeType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "payload": STANDARD.encode(payload),
        "annotations": annotations,
    });
    [b"\0sigstore-json\n", json.to_string().as_bytes()].concat()
}

const COSIGN: &str = "cosign container image signature";
const SIMPLE: &str = "atomic container signature";

/// Keys of one gpg, gone with the directory.
struct Gpg(PathBuf);

impl Gpg {
    fn new(workshop: &Workshop) -> Option<Self> {
        tool("gpg")?;
        let home = workshop.at("gpg");
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        Some(Self(home))
    }

    fn command(&self) -> Command {
        let mut gpg = tool("gpg").unwrap();
        gpg.env("GNUPGHOME", &self.0).args(["--batch", "--quiet", "--yes", "--passphrase", ""]);
        gpg
    }

    /// Makes a key that signs; `further` are algorithm, usage and expiry.
    fn key(&self, user: &str, further: &[&str]) {
        run(self.command().args(["--quick-generate-key", user]).args(further));
    }

    fn export(&self, user: &str, to: &Path) {
        run(self.command().arg("--output").arg(to).args(["--armor", "--export", user]));
    }

    fn sign(&self, user: &str, payload: &[u8], options: &[&str]) -> Vec<u8> {
        let (from, to) = (self.0.join("payload"), self.0.join("message"));
        fs::write(&from, payload).unwrap();
        let mut gpg = self.command();
        gpg.args(["--local-user", user]).args(options).arg("--output").arg(&to);
        run(gpg.arg("--sign").arg(from));
        fs::read(to).unwrap()
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        if let Some(mut gpgconf) = tool("gpgconf") {
            let _ = gpgconf.env("GNUPGHOME", &self.0).args(["--kill", "all"]).output();
        }
    }
}

fn signed_by(key: &Path, identity: &Value) -> Value {
    json!({ "type": "signedBy", "keyType": "GPGKeys", "keyPath": key, "signedIdentity": identity })
}

fn exact(name: &str) -> Value {
    json!({ "type": "exactReference", "dockerReference": name })
}

#[test]
fn simple_signing_by_gpg() {
    let workshop = Workshop::new();
    let Some(gpg) = Gpg::new(&workshop) else { return };
    let (image, one, two) = (workshop.image(), workshop.at("one.asc"), workshop.at("two.asc"));
    gpg.key("one@example.com", &["rsa2048", "sign", "never"]);
    gpg.key("two@example.com", &["ed25519", "sign", "never"]);
    gpg.export("one@example.com", &one);
    gpg.export("two@example.com", &two);
    let by_one = workshop.policy(&signed_by(&one, &exact(NAME)));
    refused(&by_one, &image, "the image has none");
    let claim = workshop.claim(SIMPLE, NAME);
    for options in [&[][..], &["--compress-algo", "none"], &["--compress-algo", "zlib"]] {
        workshop.sign(&gpg.sign("one@example.com", &claim, options));
        let verdict = accepted(&by_one, &image);
        assert_eq!(verdict.signatures[0].identity.as_deref(), Some(NAME));
        assert!(verdict.to_string().contains("one@example.com"), "{verdict}");
    }
    let message = gpg.sign("one@example.com", &claim, &["--compress-algo", "none"]);
    for at in (0..message.len()).step_by(7) {
        let mut damaged = message.clone();
        damaged[at] ^= 4;
        workshop.sign(&damaged);
        // Bytes that no hash covers, such as the time in the literal packet, may change.
        if let Ok(verdict) = check(&by_one, &image) {
            assert_eq!(verdict.signatures[0].digest, workshop.digest, "byte {at}");
        }
    }
    let mut forged = message.clone();
    let place = forged.windows(3).position(|bytes| bytes == b":43").unwrap();
    forged[place + 2] = b'4';
    workshop.sign(&forged);
    refused(&by_one, &image, "it was not made with a key in");
    workshop.sign(&message);
    let by_two = workshop.policy(&signed_by(&two, &exact(NAME)));
    refused(&by_two, &image, "it was not made with a key in");
    let other = workshop.policy(&signed_by(&one, &exact("quay.io/example/other:43")));
    refused(&other, &image, "it is for quay.io/example/tiny:43, not for quay.io/example/other:43");
    // By default the name has to be the image's, and dir: gives it none.
    refused(
        &workshop.policy(&signed_by(&one, &json!({ "type": "matchRepoDigestOrExact" }))),
        &image,
        "no name to compare",
    );
    workshop.sign(&gpg.sign("one@example.com", &workshop.claim(COSIGN, NAME), &[]));
    refused(&workshop.policy(&signed_by(&one, &exact(NAME))), &image, COSIGN);
    workshop.sign(&gpg.sign("two@example.com", &claim, &[]));
    accepted(&workshop.policy(&signed_by(&two, &exact(NAME))), &image);
    // A key and a ring, without a policy.
    accepted(&Demand::Keys { files: vec![one.clone(), two.clone()], name: None }, &image);
    refused(&Demand::Keys { files: vec![one.clone()], name: None }, &image, "--verify-key");
    let both = json!({ "type": "signedBy", "keyType": "GPGKeys", "keyPaths": [one, two], "signedIdentity": exact(NAME) });
    accepted(&workshop.policy(&both), &image);
    // Another manifest under the same signature.
    let manifest = workshop.at("image/manifest.json");
    let mut bytes = fs::read(&manifest).unwrap();
    bytes.push(b'\n');
    fs::write(&manifest, bytes).unwrap();
    refused(&workshop.policy(&both), &image, "not for this image");
}

#[test]
fn keys_that_may_not_sign() {
    let workshop = Workshop::new();
    let Some(gpg) = Gpg::new(&workshop) else { return };
    let (image, ring) = (workshop.image(), workshop.at("ring.asc"));
    let claim = workshop.claim(SIMPLE, NAME);
    let policy = || workshop.policy(&signed_by(&ring, &exact(NAME)));
    let old = "--faked-system-time=20240101T000000!";

    gpg.key("plain@example.com", &["ed25519", "cert", "never"]);
    let listed = run(gpg.command().args(["--with-colons", "--list-keys", "plain@example.com"]));
    let fingerprint = listed.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).unwrap();
    let fingerprint = fingerprint.trim_end_matches(':');
    run(gpg.command().args(["--quick-add-key", fingerprint, "ed25519", "sign", "never"]));
    gpg.export("plain@example.com", &ring);
    workshop.sign(&gpg.sign("plain@example.com", &claim, &[]));
    accepted(&policy(), &image);
    // The subkey alone revoked.
    let script = "key 1\nrevkey\ny\n1\n\ny\nsave\n";
    let commands = workshop.at("commands");
    fs::write(&commands, script).unwrap();
    let mut edit = gpg.command();
    edit.args(["--no-tty", "--command-fd", "0", "--edit-key", fingerprint]);
    edit.stdin(fs::File::open(&commands).unwrap());
    let _ = edit.output();
    gpg.export("plain@example.com", &ring);
    refused(&policy(), &image, "is revoked");

    run(gpg.command().arg(old).args([
        "--quick-generate-key",
        "old@example.com",
        "rsa2048",
        "sign",
        "30d",
    ]));
    gpg.export("old@example.com", &ring);
    workshop.sign(&gpg.sign("old@example.com", &claim, &[old]));
    refused(&policy(), &image, "expired");

    gpg.key("gone@example.com", &["rsa2048", "sign", "never"]);
    workshop.sign(&gpg.sign("gone@example.com", &claim, &[]));
    gpg.export("gone@example.com", &ring);
    accepted(&policy(), &image);
    workshop.sign(&gpg.sign(
        "gone@example.com",
        &claim,
        &["--digest-algo", "sha1", "--allow-weak-digest-algos"],
    ));
    refused(&policy(), &image, "can be forged");
    let listed = run(gpg.command().args(["--with-colons", "--list-keys", "gone@example.com"]));
    let fingerprint = listed.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).unwrap();
    let revocation =
        gpg.0.join(format!("openpgp-revocs.d/{}.rev", fingerprint.trim_end_matches(':')));
    let text = fs::read_to_string(revocation).unwrap().replace("\n:-----", "\n-----");
    fs::write(workshop.at("revocation"), text).unwrap();
    workshop.sign(&gpg.sign("gone@example.com", &claim, &[]));
    run(gpg.command().arg("--import").arg(workshop.at("revocation")));
    gpg.export("gone@example.com", &ring);
    refused(&policy(), &image, "is revoked");
}

#[test]
fn simple_signing_by_skopeo() {
    let workshop = Workshop::new();
    let Some(gpg) = Gpg::new(&workshop) else { return };
    gpg.key("one@example.com", &["rsa2048", "sign", "never"]);
    let key = workshop.at("one.asc");
    gpg.export("one@example.com", &key);
    let anything = workshop.at("anything.json");
    fs::write(&anything, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    let copy = |from: &str, to: &str, options: &[&str]| {
        let mut skopeo = tool("skopeo").unwrap();
        skopeo.env("GNUPGHOME", &gpg.0).arg("--policy").arg(&anything);
        run(skopeo.args(["copy", "-q"]).args(options).args([from, to]));
    };
    if tool("skopeo").is_none() {
        return;
    }
    let to = format!("dir:{}", workshop.at("copy").display());
    copy(&workshop.layout(), &to, &["--sign-by", "one@example.com", "--sign-identity", NAME]);
    accepted(&workshop.policy(&signed_by(&key, &exact(NAME))), &to);
    // A store keeps signatures, and gives its images names.
    if support::tool::is_root() {
        let store =
            format!("[vfs@{}+{}]", workshop.at("store").display(), workshop.at("run").display());
        let image = format!("containers-storage:{store}{NAME}");
        copy(&to, &image, &[]);
        for kind in ["matchExact", "matchRepoDigestOrExact", "matchRepository"] {
            accepted(&workshop.policy(&signed_by(&key, &json!({ "type": kind }))), &image);
        }
        let other = format!("containers-storage:{store}quay.io/example/tiny:44");
        copy(&to, &other, &[]);
        refused(
            &workshop.policy(&signed_by(&key, &json!({ "type": "matchExact" }))),
            &other,
            "not for",
        );
        accepted(&workshop.policy(&signed_by(&key, &json!({ "type": "matchRepository" }))), &other);
    }
}

#[test]
fn sigstore_keys_of_every_kind() {
    let workshop = Workshop::new();
    let image = workshop.image();
    let curve = |name: &'static str| ["-algorithm", "EC", "-pkeyopt", name];
    let kinds: [(&str, Vec<&str>); 4] = [
        ("p256", curve("ec_paramgen_curve:P-256").to_vec()),
        ("p384", curve("ec_paramgen_curve:P-384").to_vec()),
        ("p521", curve("ec_paramgen_curve:P-521").to_vec()),
        ("rsa", vec!["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ];
    let claim = workshop.claim(COSIGN, NAME);
    let mut keys = Vec::new();
    for (name, options) in &kinds {
        let (private, public) = (format!("{name}.key"), format!("{name}.pub"));
        let made = workshop.openssl(&[&["genpkey", "-out", &private], &options[..]].concat());
        if made.is_none() {
            return;
        }
        workshop.openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]).unwrap();
        keys.push((private, workshop.at(&public)));
    }
    for (i, (private, public)) in keys.iter().enumerate() {
        let signature = workshop.signed(private, &claim);
        let annotation =
            |bytes: &[u8]| json!({ "dev.cosignproject.cosign/signature": STANDARD.encode(bytes) });
        workshop.sign(&stored(&claim, &annotation(&signature)));
        let require = |key: &Path, identity: &Value| {
            workshop.policy(
                &json!({ "type": "sigstoreSigned", "keyPath": key, "signedIdentity": identity }),
            )
        };
        let verdict = accepted(&require(public, &exact(NAME)), &image);
        assert_eq!((verdict.signatures.len(), verdict.signatures[0].kind), (1, "sigstore"));
        let demand = |name: Option<&str>| Demand::Keys {
            files: vec![public.clone()],
            name: name.map(str::to_owned),
        };
        accepted(&demand(None), &image);
        accepted(&demand(Some("quay.io/example/tiny")), &image);
        refused(
            &demand(Some("quay.io/example/other")),
            &image,
            "it is for quay.io/example/tiny:43",
        );
        let other = &keys[(i + 1) % keys.len()].1;
        refused(&require(other, &exact(NAME)), &image, "it was not made with");
        refused(&require(public, &exact("quay.io/example/tiny:44")), &image, "it is for");
        let repository =
            json!({ "type": "exactRepository", "dockerRepository": "quay.io/example/tiny" });
        accepted(&require(public, &repository), &image);
        let lists = json!({ "type": "sigstoreSigned", "keyPaths": [other, public], "signedIdentity": exact(NAME) });
        accepted(&workshop.policy(&lists), &image);
        let data = STANDARD.encode(fs::read(public).unwrap());
        let data =
            json!({ "type": "sigstoreSigned", "keyData": data, "signedIdentity": exact(NAME) });
        accepted(&workshop.policy(&data), &image);
        workshop.sign(&stored(
            &workshop.claim(COSIGN, "quay.io/example/other:1"),
            &annotation(&signature),
        ));
        refused(&require(public, &exact(NAME)), &image, "it was not made with");
        let simple = workshop.claim(SIMPLE, NAME);
        workshop.sign(&stored(&simple, &annotation(&workshop.signed(private, &simple))));
        refused(&require(public, &exact(NAME)), &image, SIMPLE);
    }
    fs::remove_file(workshop.at("image/signature-1")).unwrap();
    refused(
        &Demand::Keys { files: vec![keys[0].1.clone()], name: None },
        &image,
        "the image has none",
    );
}

#[test]
fn a_refused_image_writes_nothing_and_an_accepted_one_says_by_whom() {
    let workshop = Workshop::new();
    let made = workshop.openssl(&[
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
        "one.key",
    ]);
    if made.is_none() {
        return;
    }
    workshop.openssl(&["pkey", "-in", "one.key", "-pubout", "-out", "cosign.pub"]).unwrap();
    let (room, home) = (workshop.at("room"), workshop.at("home"));
    fs::create_dir(&room).unwrap();
    fs::create_dir_all(home.join(".config/containers")).unwrap();
    let build = |options: &[&str]| {
        let build = Build::new(workshop.image()).format("raw").output(&room);
        let build = build.flags(["--target-imgref", NAME]).flags(options);
        build.env("HOME", &home).env_remove("XDG_CONFIG_HOME").command().output().unwrap()
    };
    let key = workshop.at("cosign.pub").display().to_string();
    let by_key = ["--verify-key", &key, "--verify-identity", "quay.io/example/tiny", "--json"];
    let output = build(&by_key);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is refused by --verify-key"), "{said}");
    assert_eq!(fs::read_dir(&room).unwrap().count(), 0);
    let claim = workshop.claim(COSIGN, NAME);
    let signature = STANDARD.encode(workshop.signed("one.key", &claim));
    workshop.sign(&stored(&claim, &json!({ "dev.cosignproject.cosign/signature": signature })));
    let output = build(&by_key);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (trust, signature) = (&report["trust"], &report["trust"]["signatures"][0]);
    assert_eq!((&trust["verified"], &trust["by"]), (&json!(true), &json!("--verify-key")));
    assert_eq!((&signature["key"], &signature["identity"]), (&json!(key), &json!(NAME)));
    assert_eq!(signature["digest"], json!(workshop.digest));
    assert_eq!(signature["fingerprint"].as_str().unwrap().len(), 71);
    // The policy that container tools would find.
    fs::write(home.join(".config/containers/policy.json"), r#"{"default":[{"type":"reject"}]}"#)
        .unwrap();
    let said = String::from_utf8(build(&[]).stderr).unwrap();
    assert!(said.contains("policy.json, default: it rejects all images from there"), "{said}");
    let insecure = build(&["--insecure-policy"]);
    let told = String::from_utf8(insecure.stdout).unwrap();
    assert!(told.contains("not verified (--insecure-policy)"), "{told}");
}
