//! `--provenance` and `bootpress verify`: the same disk elsewhere, what a flipped byte is called, and cosign's opinion of the signature.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::bootc_image::bootc_image;
use support::program::bootpress_for_everybody;
use support::tool::{is_root, run, signer, tool};
use support::{Build, bootpress};
use tempfile::TempDir;

/// A build with a signed provenance.
struct Built {
    place: TempDir,
}

impl Built {
    fn new() -> Option<Self> {
        let place = TempDir::new().unwrap();
        bootc_image().tag("quay.io/example/os:1").write_oci_layout(&place.path().join("image"));
        let path = |name: &str| place.path().join(name);
        let mut key = tool("openssl")?;
        key.args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"]);
        run(key.arg(path("key.pem")));
        run(tool("openssl")?
            .args(["pkey", "-pubout", "-in"])
            .arg(path("key.pem"))
            .arg("-out")
            .arg(path("key.pub")));
        fs::write(path("config.toml"), "[customizations]\nhostname = \"tiny\"\n").unwrap();
        fs::create_dir(path("out")).unwrap();
        Build::new("oci:image")
            .directory(place.path())
            .flags(["--format", "raw,qcow2", "--output", "out", "--seed", "s", "--karg", "quiet"])
            .flags(["--config", "config.toml", "--provenance", "--provenance-key", "key.pem"])
            .run();
        Some(Self { place })
    }

    /// The file with this ending.
    fn file(&self, ending: &str) -> PathBuf {
        let files = fs::read_dir(self.place.path().join("out")).unwrap();
        let mut files = files.map(|file| file.unwrap().path());
        files.find(|file| file.to_str().unwrap().ends_with(ending)).unwrap()
    }

    fn verify(&self, disk: &Path, more: &[&str]) -> Output {
        let mut command = bootpress();
        command.arg("verify").arg(disk).arg(self.file(".provenance.json")).args([
            "--json",
            "--image",
            "oci:image",
        ]);
        command.args(more).args(["--", "--config", "config.toml"]);
        command.current_dir(self.place.path()).output().unwrap()
    }

    /// The verdict on a disk with a byte changed, which must be no.
    #[track_caller]
    fn flipped(&self, disk: &Path, at: u64) -> Value {
        // By the same name, so that it is known which file it was.
        let broken = self.place.path().join("broken");
        fs::create_dir_all(&broken).unwrap();
        let broken = broken.join(disk.file_name().unwrap());
        run(Command::new("cp").arg("--sparse=always").arg(disk).arg(&broken));
        let file = fs::File::options().read(true).write(true).open(&broken).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let output = self.verify(&broken, &[]);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(verdict["verified"], false);
        verdict["difference"].clone()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn disk_is_verified_and_a_flipped_byte_is_named() {
    let Some(built) = Built::new() else { return };
    let (raw, qcow2) = (built.file(".raw"), built.file(".qcow2"));
    for disk in [&raw, &qcow2] {
        let output = built.verify(disk, &["--key", "key.pub"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(verdict["verified"], true);
        assert!(verdict["signer"].as_str().unwrap().starts_with("sha256:"));
    }
    let facts = bootpress::inspect::inspect(&raw).unwrap();
    let start =
        |role: &str| facts.partitions.iter().find(|one| one.role == Some(role)).unwrap().start;
    let bytes = fs::read(&raw).unwrap();
    let find = |wanted: &[u8], from: u64| {
        let at = bytes[from as usize..].windows(wanted.len()).position(|window| window == wanted);
        from + at.unwrap() as u64
    };
    let kernel = find(&[0x4b; 4096], start("root")) + 5000;
    let shim = find(b"fallback", start("esp"));
    for (at, partition, structure, path) in [
        (512 + 60, None, "the header of the primary GPT", None),
        (kernel, Some("root"), "block 1 of a file", Some("vmlinuz")),
        (shim, Some("esp"), "byte 0 of a file", Some("/EFI/BOOT/fbx64.efi")),
    ] {
        let difference = built.flipped(&raw, at);
        assert_eq!(difference["disk_offset"], at, "{difference:#}");
        let text = |key: &str| difference[key].as_str().unwrap_or_default().to_owned();
        assert!(text("structure").contains(structure), "{difference:#}");
        assert!(text("partition").contains(partition.unwrap_or_default()), "{difference:#}");
        assert!(text("path").contains(path.unwrap_or_default()), "{difference:#}");
    }
    // A byte of the header that no guest sees: the offset of snapshots, of which there are none.
    let difference = built.flipped(&qcow2, 64);
    assert_eq!(
        (&difference["disk_offset"], &difference["file_offset"]),
        (&Value::Null, &Value::from(64))
    );
}

/// Another directory, user, time, time zone and number of processors.
#[test]
fn disk_is_verified_by_somebody_else() {
    let Some(built) = Built::new() else { return };
    let (Some(mut taskset), Some(faketime)) = (tool("taskset"), tool("faketime")) else { return };
    let elsewhere = TempDir::new().unwrap();
    let there = elsewhere.path();
    run(Command::new("cp").arg("-r").arg(built.place.path().join("image")).arg(there.join("copy")));
    for file in ["config.toml", "key.pub"] {
        fs::copy(built.place.path().join(file), there.join(file)).unwrap();
    }
    fs::copy(built.file(".raw"), there.join("renamed.img")).unwrap();
    fs::copy(built.file(".provenance.json"), there.join("p.json")).unwrap();
    let program = bootpress_for_everybody(there);
    run(Command::new("chmod").args(["-R", "a+rwX"]).arg(there));
    taskset.args(["-c", "0"]).arg(faketime.get_program()).arg("2031-02-03 04:05:06").arg(program);
    taskset.args([
        "verify",
        "renamed.img",
        "p.json",
        "--key",
        "key.pub",
        "--image",
        "oci:copy",
        "--",
        "--config",
        "config.toml",
    ]);
    taskset.env("TZ", "Asia/Tokyo").env("HOME", there).current_dir(there);
    if is_root() {
        taskset.uid(65534).gid(65534);
    }
    let told = run(&mut taskset);
    assert!(told.contains("verified     yes"), "{told}");
}

#[test]
fn provenance_that_does_not_fit_is_refused() {
    let Some(built) = Built::new() else { return };
    let raw = built.file(".raw");
    let provenance = built.file(".provenance.json");
    let original = fs::read(&provenance).unwrap();
    let mut other = tool("openssl").unwrap();
    let path = |name: &str| built.place.path().join(name);
    other.args(["genpkey", "-algorithm", "ED25519", "-out"]);
    run(other.arg(path("other.pem")));
    run(tool("openssl")
        .unwrap()
        .args(["pkey", "-pubout", "-in"])
        .arg(path("other.pem"))
        .arg("-out")
        .arg(path("other.pub")));
    let output = built.verify(&raw, &["--key", "other.pub"]);
    assert!(said(&output).contains("is not signed with this --key"), "{}", said(&output));
    // The same statement, bare, and changed in ways that would do harm.
    let envelope: Value = serde_json::from_slice(&original).unwrap();
    let payload =
        bootpress::signature::from_base64(envelope["dsseEnvelope"]["payload"].as_str().unwrap())
            .unwrap();
    let statement: Value = serde_json::from_slice(&payload).unwrap();
    assert!(!String::from_utf8(payload).unwrap().contains(built.place.path().to_str().unwrap()));
    for (argument, error) in [
        ("--output=/nowhere", "is not a flag that it may record"),
        ("--config=/etc/shadow", "is not a flag that it may record"),
        ("oci:other", "is not a flag that it may record"),
        ("--colour", "are not understood"),
    ] {
        let mut bad = statement.clone();
        let parameters = &mut bad["predicate"]["buildDefinition"]["externalParameters"];
        parameters["arguments"].as_array_mut().unwrap().push(argument.into());
        fs::write(&provenance, bad.to_string()).unwrap();
        let output = built.verify(&raw, &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(error), "{argument}: {}", said(&output));
    }
    fs::write(&provenance, statement.to_string()).unwrap();
    fs::write(path("config.toml"), "[customizations]\nhostname = \"other\"\n").unwrap();
    let output = built.verify(&raw, &[]);
    assert!(said(&output).contains("--config names a file with SHA-256"), "{}", said(&output));
}

#[test]
fn cosign_verifies_the_signature_of_the_provenance() {
    let (Some(built), Some(mut cosign)) = (Built::new(), signer("cosign")) else { return };
    cosign.args([
        "verify-blob-attestation",
        "--insecure-ignore-tlog",
        "--type",
        "slsaprovenance1",
        "--key",
    ]);
    cosign
        .arg(built.place.path().join("key.pub"))
        .arg("--bundle")
        .arg(built.file(".provenance.json"));
    cosign.env("HOME", built.place.path()).env("TUF_ROOT", built.place.path().join("tuf"));
    // cosign reads no blob of more than 128 MiB, and takes its digest instead.
    let told = run(tool("sha256sum").unwrap().arg(built.file(".raw")));
    let digest = told.split_whitespace().next().unwrap();
    run(cosign.args(["--digestAlg", "sha256", "--digest", digest]));
}
