//! What goes along with a build, against those who read it: `sha256sum`, gpg, sq, cosign, productmd, JSON Schema.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::Build;
use support::bootc_image::bootc_image;
use support::tool::{fetched, run, signer, tool};
use tempfile::TempDir;

/// An image, a keyring, and a directory for what is built.
struct Workshop(TempDir);

impl Workshop {
    fn new() -> Self {
        let place = TempDir::new().unwrap();
        bootc_image()
            .label("org.opencontainers.image.version", "43.20251014.0")
            .write_oci_layout(&place.path().join("image"));
        for directory in ["gpg", "compose/IoT/x86_64/images"] {
            fs::create_dir_all(place.path().join(directory)).unwrap();
        }
        Self(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn images(&self) -> PathBuf {
        self.path("compose/IoT/x86_64/images")
    }

    /// A build that finds the tools that the tests have, with keys of its own.
    fn build(&self) -> Build {
        let path = std::env::var("PATH").unwrap();
        let signers = fetched("signers/bin").canonicalize().unwrap_or_default();
        Build::new(format!("oci:{}", self.path("image").display()))
            .env("PATH", format!("{}:{path}", signers.display()))
            .env("GNUPGHOME", self.path("gpg"))
            .env("COSIGN_PASSWORD", "")
            .env("HOME", self.0.path())
            .output(self.images())
    }

    fn compose(&self) -> Build {
        self.build().flags(["--compose-id", "Fedora-IoT-43-20251014.0", "--variant", "IoT"])
    }

    fn gpg(&self) -> Option<Command> {
        let mut gpg = tool("gpg")?;
        gpg.env("GNUPGHOME", self.path("gpg"));
        gpg.args([
            "--batch",
            "--quiet",
            "--yes",
            "--passphrase",
            "",
            "--pinentry-mode",
            "loopback",
        ]);
        Some(gpg)
    }

    fn verifies(&self, arguments: &[&Path]) -> bool {
        let mut gpg = self.gpg().unwrap();
        gpg.arg("--verify").args(arguments).output().unwrap().status.success()
    }

    /// `sha256sum -c`, in the directory of the files.
    fn sums_agree(&self, checksums: &str) -> bool {
        let Some(mut sha256sum) = tool("sha256sum") else { return true };
        sha256sum
            .args(["-c", checksums])
            .current_dir(self.images())
            .output()
            .unwrap()
            .status
            .success()
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        if let Some(mut gpgconf) = tool("gpgconf") {
            // The agent that gpg started ends with its directory.
            let _ = gpgconf.env("GNUPGHOME", self.path("gpg")).args(["--kill", "all"]).output();
        }
    }
}

const CHECKSUM: &str = "Fedora-IoT-43-20251014.0-x86_64-CHECKSUM";

#[test]
fn checksums_and_signatures_are_accepted_and_notice_a_change() {
    let workshop = Workshop::new();
    let (Some(mut gpg), Some(mut cosign)) = (workshop.gpg(), signer("cosign")) else { return };
    run(gpg.args(["--quick-generate-key", "release@example.org", "ed25519", "sign", "never"]));
    run(cosign.env("COSIGN_PASSWORD", "").arg("generate-key-pair").current_dir(workshop.0.path()));
    let cosign_key = format!("cosign:{}", workshop.path("cosign.key").display());
    let build = |format: &str| {
        let build = workshop.compose().flags(["--name-template", "fedora-iot", "--checksum"]);
        build.format(format).flags(["--sign", "gpg:release@example.org", "--sign", &cosign_key])
    };
    let built = build("raw.zst").run();
    let disk = built.file(0);
    assert!(disk.ends_with("Fedora-IoT-raw-43-20251014.0.x86_64.raw.zst"), "{disk:?}");
    // A second build adds to a file that is signed by now.
    let second = build("qcow2").run().file(0);
    assert!(workshop.sums_agree(CHECKSUM));
    let checksums = workshop.images().join(CHECKSUM);
    let text = fs::read_to_string(&checksums).unwrap();
    assert_eq!(text.matches("\nSHA256 (").count(), 2, "{text}");
    assert!(workshop.verifies(&[&checksums]));
    for disk in [&disk, &second] {
        let signature = with_end(disk, "asc");
        assert!(workshop.verifies(&[&signature, disk]));
        let verify = |file: &Path| {
            let mut cosign = signer("cosign").unwrap();
            cosign.args(["verify-blob", "--insecure-ignore-tlog", "--key"]);
            cosign.arg(workshop.path("cosign.pub")).env("HOME", workshop.0.path());
            cosign.arg("--bundle").arg(with_end(disk, "sigstore.json")).arg(file);
            cosign.output().unwrap().status.success()
        };
        assert!(verify(disk));
        assert!(!verify(&checksums));
        assert!(!workshop.verifies(&[&signature, &checksums]));
    }
    fs::write(&second, "another disk").unwrap();
    assert!(!workshop.sums_agree(CHECKSUM));
    fs::write(&checksums, text.replace("raw.zst", "raw.zzz")).unwrap();
    assert!(!workshop.verifies(&[&checksums]));
    fs::write(&checksums, text).unwrap();
    // Whoever adds to it without a key would take its signature away.
    let unsigned = workshop.compose().flags(["--name-template", "fedora-iot", "--checksum"]);
    let refusal = unsigned.format("vdi").fails();
    assert!(
        refusal.code == 3 && refusal.said.contains("its signature would be lost"),
        "{}",
        refusal.said
    );
}

#[test]
fn sq_of_every_version_signs() {
    let old = tool("sq").map(|_| PathBuf::from("/usr/bin"));
    let new = Some(fetched("signers/bin")).filter(|place| place.join("sq").is_file());
    for place in old.into_iter().chain(new.and_then(|place| place.canonicalize().ok())) {
        let workshop = Workshop::new();
        let sq = || {
            let mut sq = Command::new(place.join("sq"));
            sq.env("HOME", workshop.0.path()).current_dir(workshop.0.path());
            sq
        };
        let help = run(sq().args(["key", "generate", "--help"]));
        let mut generate = sq();
        generate.args(["key", "generate"]);
        if help.contains("--export") {
            generate.args(["--export", "key", "-u", "sq@example.org"]);
        } else {
            generate.args(["--own-key", "--without-password", "--email", "sq@example.org"]);
            generate.args(["--output", "key", "--rev-cert", "key.rev"]);
        }
        run(&mut generate);
        let key = workshop.path("key");
        let built = workshop
            .build()
            .env("PATH", format!("{}:{}", place.display(), std::env::var("PATH").unwrap()))
            .flags(["--sign", &format!("sq:{}", key.display()), "--checksum"])
            .format("qcow2")
            .run();
        let Some(mut gpg) = workshop.gpg() else { return };
        run(gpg.arg("--import").arg(&key));
        assert!(workshop.verifies(&[&with_end(&built.file(0), "asc"), &built.file(0)]));
        assert!(workshop.verifies(&[&workshop.images().join("CHECKSUM")]));
        assert!(workshop.sums_agree("CHECKSUM"));
    }
}

#[test]
fn wrong_key_is_noticed_before_the_image_is_opened() {
    if tool("gpg").is_none() {
        return;
    }
    let workshop = Workshop::new();
    fs::remove_dir_all(workshop.path("image")).unwrap();
    let refusal = workshop.build().flags(["--sign", "gpg:nobody@example.org"]).fails();
    assert!(refusal.said.contains("trying the key of --sign gpg"), "{}", refusal.said);
    assert_eq!(fs::read_dir(workshop.images()).unwrap().count(), 0);
}

/// Loads what was written with Fedora's own library, writes it anew, and prints what it knows.
const PRODUCTMD: &str = "
import sys, json, productmd
compose = productmd.Compose(sys.argv[1])
for name, read in (('images', compose.images), ('composeinfo', compose.info)):
    written, ours = json.loads(read.dumps()), json.load(open(f'{sys.argv[1]}/metadata/{name}.json'))
    assert written == ours, (name, written, ours)
    assert open(f'{sys.argv[1]}/metadata/{name}.json').read().strip() == json.dumps(ours, indent=4, sort_keys=True)
print(compose.info.compose.id, compose.info.create_compose_id(), compose.info.release_id)
for variant in compose.images.images:
    paths = compose.info.variants[variant].paths.images
    for arch in sorted(compose.images.images[variant]):
        for image in sorted(compose.images.images[variant][arch], key=lambda image: image.path):
            print(variant, arch, image.type, image.format, image.subvariant, image.path, image.path.startswith(paths[arch] + '/'))
";

fn productmd(compose: &Path) -> Option<String> {
    let library = fetched("productmd");
    if !library.join("complete").is_file() {
        assert!(
            std::env::var_os("REQUIRE_TOOLS").is_none(),
            "run tests/support/productmd target/productmd"
        );
        return None;
    }
    let mut python = tool("python3")?;
    python.env("PYTHONPATH", library).arg("-c").arg(PRODUCTMD).arg(compose);
    let output = python.output().unwrap();
    Some(format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

#[test]
fn productmd_reads_what_two_builds_wrote_together() {
    let workshop = Workshop::new();
    let images = workshop.path("compose/metadata/images.json");
    let build = || {
        let build = workshop.compose().flags(["--name-template", "fedora-iot", "--productmd"]);
        build.flag(&images)
    };
    let built = build().format("raw.xz").format("vhdx").run();
    let warning = &built.report["warnings"][0];
    assert!(warning.as_str().unwrap().contains("productmd knows no vhdx"), "{warning}");
    build().format("qcow2").run();
    // Once more: what is rebuilt is replaced.
    build().format("qcow2").run();
    let name = "Fedora-IoT-43-20251014.0";
    let Some(said) = productmd(&workshop.path("compose")) else { return };
    let expected = format!(
        "{name} {name} Fedora-IoT-43\n\
         IoT x86_64 qcow2 qcow2 IoT IoT/x86_64/images/Fedora-IoT-qcow2-43-20251014.0.x86_64.qcow2 True\n\
         IoT x86_64 raw-xz raw.xz IoT IoT/x86_64/images/Fedora-IoT-raw-43-20251014.0.x86_64.raw.xz True\n"
    );
    assert_eq!(said, expected);
    // The same type and format under another name: productmd's rule.
    let twin =
        build().flags(["--seed", "other", "--name-value", "name=Other"]).format("qcow2").fails();
    assert!(twin.code == 3 && twin.said.contains("could not tell"), "{}", twin.said);
    let both = build().format("raw").format("ami").fails();
    assert!(both.code == 3 && both.said.contains("different --subvariant"), "{}", both.said);
    assert_eq!(productmd(&workshop.path("compose")).unwrap(), expected);
    // The witness sees what breaks the rules.
    let text = fs::read_to_string(&images).unwrap();
    fs::write(&images, text.replace("\"raw-xz\"", "\"raw-zst\"")).unwrap();
    assert!(productmd(&workshop.path("compose")).unwrap().contains("invalid value: raw-zst"));
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}.{end}", path.display()))
}

/// A JSON document judged by a schema.
pub(crate) fn is_valid(schema: &str, documents: &[Value]) -> Option<Result<(), String>> {
    let mut python = tool("python3")?;
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("schema.json"), schema).unwrap();
    fs::write(place.path().join("documents.json"), serde_json::to_vec(documents).unwrap()).unwrap();
    let script = "import json, sys, jsonschema\n\
                  schema = json.load(open(sys.argv[1] + '/schema.json'))\n\
                  jsonschema.Draft202012Validator.check_schema(schema)\n\
                  validator = jsonschema.Draft202012Validator(schema)\n\
                  for document in json.load(open(sys.argv[1] + '/documents.json')): validator.validate(document)";
    let output = python.arg("-c").arg(script).arg(place.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(if output.status.success() { Ok(()) } else { Err(told) })
}

const EVENTS: &str = include_str!("../../src/cli/events.schema.json");
const METADATA: &str = include_str!("../../src/release/build-metadata.schema.json");

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn events_of_every_build_are_of_the_schema_also_when_it_fails() {
    let workshop = Workshop::new();
    let events = workshop.path("events.jsonl");
    let with_events = |build: Build| build.flag("--events").flag(&events);
    let heard = || lines(&fs::read_to_string(&events).unwrap());
    let last = |lines: &[Value]| lines.last().unwrap().clone();
    let mut all = Vec::new();

    let built = workshop.compose().flags(["--checksum", "--build-metadata"]);
    let record = workshop.path("build-metadata.json");
    with_events(built.flag(&record).format("raw").format("qcow2")).run();
    let done = heard();
    assert_eq!(done[0]["event"], "begin");
    let count = |event: &str| done.iter().filter(|line| line["event"] == event).count();
    assert!(count("started") >= 4 && count("started") == count("finished"), "{done:#?}");
    assert_eq!(count("output"), 4);
    let warning = done.iter().find(|line| line["event"] == "warning").unwrap();
    assert_eq!(warning["code"], "update-source");
    assert_eq!((&last(&done)["outcome"], &last(&done)["exit_code"]), (&"done".into(), &0.into()));
    all.extend(done.clone());

    // Refused by the command line, by the image, and because there is no image.
    let broken = workshop.path("broken");
    support::tiny_image::tiny_image().layer(|layer| layer.file("x", "y")).write_oci_layout(&broken);
    let failures = [
        (workshop.build().flags(["--name-template", "bib"]).format("raw,ami"), "unsupported"),
        (Build::new(format!("oci:{}", broken.display())).output(workshop.images()), "unsupported"),
        (Build::new("oci:nowhere").output(workshop.images()), "failed"),
    ];
    for (build, kind) in failures {
        let refusal = with_events(build).fails();
        let failed = heard();
        let last = last(&failed);
        assert_eq!((&last["outcome"], &last["error"]["kind"]), (&"failed".into(), &kind.into()));
        assert_eq!(last["exit_code"], refusal.code);
        let message = last["error"]["message"].as_str().unwrap();
        assert!(refusal.said.contains(message), "{message}: {}", refusal.said);
        all.extend(failed);
    }

    // A descriptor gets the same; what is in its file stays.
    let shell = "exec 5>>\"$1\"; shift; exec \"$@\" --events 5";
    let mut command = Command::new("sh");
    command.args(["-c", shell, "sh"]).arg(&events);
    let build = workshop.build().format("raw").command();
    command.arg(build.get_program()).args(build.get_args());
    let before = fs::read_to_string(&events).unwrap();
    run(&mut command);
    let after = fs::read_to_string(&events).unwrap();
    assert!(after.starts_with(&before) && lines(&after[before.len()..])[0]["event"] == "begin");
    all.extend(lines(&after[before.len()..]));

    // `--progress json` speaks the same language.
    let mut build = support::bootpress();
    let image = format!("oci:{}", workshop.path("image").display());
    build.args(["build", &image, "--arch", "x86_64", "--format", "raw", "--progress", "json"]);
    build.arg("--output").arg(workshop.images());
    all.extend(lines(&String::from_utf8(build.output().unwrap().stderr).unwrap()));

    let Some(verdict) = is_valid(EVENTS, &all) else { return };
    assert_eq!(verdict, Ok(()));
    let wrong = |key: &str, value: Value| {
        let mut line = last(&done);
        line[key] = value;
        is_valid(EVENTS, &[line]).unwrap().is_err()
    };
    assert!(
        wrong("exit_code", 1.into()) && wrong("version", 2.into()) && wrong("color", "red".into())
    );

    let record: Value = serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
    assert_eq!(is_valid(METADATA, std::slice::from_ref(&record)).unwrap(), Ok(()));
    assert_eq!(record["compose"]["id"], "Fedora-IoT-43-20251014.0");
    assert_eq!(record["warnings"][0]["code"], "update-source");
    let mut changed = record;
    changed["artifacts"][0]["sha256"] = "0".into();
    assert!(is_valid(METADATA, &[changed]).unwrap().is_err());
}

/// The codes that the schema allows are those that there are.
#[test]
fn schema_of_events_names_every_code_and_stage() {
    let schema: Value = serde_json::from_str(EVENTS).unwrap();
    let names = |of: &str| schema["$defs"][of]["enum"].as_array().unwrap().clone();
    let codes: Vec<Value> = bootpress::progress::Code::ALL.map(|code| code.name().into()).to_vec();
    let stages: Vec<Value> = bootpress::progress::Stage::ALL.map(|one| one.name().into()).to_vec();
    assert_eq!((names("code"), names("stage")), (codes, stages));
}
