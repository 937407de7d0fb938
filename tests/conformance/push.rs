//! Disks in a registry, against a real one: pulled back by skopeo and by plain requests, with what refers to them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::bootc_image::bootc_image;
use support::server::Server;
use support::tool::{fetched, run, signer, tool};
use support::{Build, bootpress};
use tempfile::TempDir;

/// A registry, and disks of a tiny image.
struct Workshop {
    place: TempDir,
    registry: Server,
}

impl Workshop {
    fn new() -> Option<Self> {
        let (registry, place) = (Server::registry(None, false, None)?, TempDir::new().unwrap());
        bootc_image().write_oci_layout(&place.path().join("image"));
        Some(Self { place, registry })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Disks of these formats, with a record.
    fn disks(&self, formats: &str) -> Vec<PathBuf> {
        let record = self.path("record.json");
        let build = Build::new(format!("oci:{}", self.path("image").display()));
        let built = build
            .format(formats)
            .output(self.path("out/"))
            .flag("--build-metadata")
            .flag(record)
            .run();
        (0..formats.split(',').count()).map(|number| built.file(number)).collect()
    }

    fn name(&self, tag: &str) -> String {
        format!("docker://{}/disks/os:{tag}", self.registry.address)
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = bootpress();
        let signers = fetched("signers/bin").canonicalize().unwrap_or_default();
        let path = format!("{}:{}", signers.display(), std::env::var("PATH").unwrap());
        command.arg(verb).current_dir(self.place.path()).env("HOME", self.place.path());
        command.env("PATH", path).env("COSIGN_PASSWORD", "");
        if verb != "test" {
            command.args(["--progress", "none"]);
        }
        command
    }

    fn push(&self, disks: &[PathBuf], tag: &str, flags: &[&str]) -> Value {
        let mut command = self.command("push");
        command.args(disks).arg(self.name(tag)).args(flags).arg("--json");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn refusal(&self, command: &mut Command) -> String {
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// What a plain client gets, as oras asks.
    fn get(&self, path: &str) -> Vec<u8> {
        let url = format!("http://{}/v2/disks/os/{path}", self.registry.address);
        let accept = "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
        let output = Command::new("curl").args(["-sfL", "-H", accept, &url]).output().unwrap();
        assert!(output.status.success(), "{url}: {:?}", output.status);
        output.stdout
    }

    fn document(&self, named: &str) -> Value {
        serde_json::from_slice(&self.get(&format!("manifests/{named}"))).unwrap()
    }
}

fn same(one: &Path, other: &Path) -> bool {
    fs::read(one).unwrap() == fs::read(other).unwrap()
}

#[test]
fn pushed_disks_come_back_byte_for_byte_with_what_refers_to_them() {
    let (Some(workshop), Some(mut skopeo), Some(_)) =
        (Workshop::new(), tool("skopeo"), tool("curl"))
    else {
        return;
    };
    let disks = workshop.disks("qcow2,raw.gz");
    let sbom = PathBuf::from(format!("{}.spdx.json", disks[0].display()));
    let statement = PathBuf::from(format!("{}.dsse.json", disks[0].display()));
    fs::write(&sbom, "{\"spdxVersion\":\"SPDX-2.3\"}").unwrap();
    fs::write(&statement, "{\"payloadType\":\"application/vnd.in-toto+json\"}").unwrap();
    let flags = [
        "--build-metadata",
        "record.json",
        "--attach",
        sbom.to_str().unwrap(),
        "--attach",
        statement.to_str().unwrap(),
    ];
    let pushed = workshop.push(&disks, "43", &flags);

    let index = workshop.document("43");
    let entries = index["manifests"].as_array().unwrap();
    let types: Vec<&Value> = entries.iter().map(|entry| &entry["artifactType"]).collect();
    assert_eq!(types, ["application/vnd.diskimage.qcow2", "application/vnd.diskimage.raw.gzip"]);
    assert_eq!(entries[0]["platform"]["architecture"], "amd64");
    assert_eq!(index["annotations"]["org.opencontainers.image.version"], "43.1");
    for (number, disk) in disks.iter().enumerate() {
        let manifest = workshop.document(entries[number]["digest"].as_str().unwrap());
        let layer = &manifest["layers"][0];
        let blob = workshop.path("blob");
        fs::write(&blob, workshop.get(&format!("blobs/{}", layer["digest"].as_str().unwrap())))
            .unwrap();
        assert!(same(&blob, disk), "{disk:?}");
        let name = disk.file_name().unwrap().to_str().unwrap();
        assert_eq!(layer["annotations"]["org.opencontainers.image.title"], name);
        assert!(manifest["annotations"]["org.opencontainers.image.base.digest"].is_string());
    }
    // skopeo copies whatever the manifest names, each blob verified.
    let copy = workshop.path("copy");
    let first = pushed["disks"][0]["digest"].as_str().unwrap();
    let from = format!("docker://{}/disks/os@{first}", workshop.registry.address);
    run(skopeo
        .args(["copy", "--src-tls-verify=false", &from])
        .arg(format!("dir:{}", copy.display())));
    let blob = pushed["disks"][0]["blob"].as_str().unwrap().trim_start_matches("sha256:");
    assert!(same(&copy.join(blob), &disks[0]));

    // The registry of Debian knows no referrers: their index has a tag. cosign's tags are there, too.
    let referrers = workshop.document(&first.replace(':', "-"));
    let kinds: Vec<&Value> =
        referrers["manifests"].as_array().unwrap().iter().map(|one| &one["artifactType"]).collect();
    assert_eq!(kinds, ["application/spdx+json", "application/vnd.dsse.envelope.v1+json"]);
    for (end, kind, file) in [
        ("sbom", "text/spdx+json", &sbom),
        ("att", "application/vnd.dsse.envelope.v1+json", &statement),
    ] {
        let tagged = workshop.document(&format!("{}.{end}", first.replace(':', "-")));
        assert_eq!(tagged["layers"][0]["mediaType"], kind);
        let blob =
            workshop.get(&format!("blobs/{}", tagged["layers"][0]["digest"].as_str().unwrap()));
        assert_eq!(blob, fs::read(file).unwrap());
    }

    // And back by bootpress itself, which has to choose.
    let said = workshop.refusal(
        workshop
            .command("pull")
            .arg(workshop.name("43"))
            .args(["--output", "back", "--arch", "x86_64"]),
    );
    assert!(said.contains("several disks for x86_64") && said.contains("raw.gz"), "{said}");
    run(workshop
        .command("pull")
        .arg(workshop.name("43"))
        .args(["--output", "back", "--arch", "x86_64", "--format", "qcow2"]));
    assert!(same(&workshop.path("back").join(disks[0].file_name().unwrap()), &disks[0]));
    let said = workshop.refusal(
        workshop
            .command("pull")
            .arg(workshop.name("43"))
            .args(["--output", "back", "--arch", "aarch64"]),
    );
    assert!(said.contains("no such disk for aarch64"), "{said}");

    // A second run changes nothing; another machine's disk is added.
    assert_eq!(workshop.push(&disks, "43", &flags)["digest"], pushed["digest"]);
    let other = workshop.path("other.aarch64.qcow2");
    fs::write(&other, "stands for a disk").unwrap();
    workshop.push(std::slice::from_ref(&other), "43", &["--add"]);
    assert_eq!(workshop.document("43")["manifests"].as_array().unwrap().len(), 3);
    run(workshop
        .command("pull")
        .arg(workshop.name("43"))
        .args(["--output", "back", "--arch", "aarch64"]));
    assert!(same(&workshop.path("back/other.aarch64.qcow2"), &other));
}

#[test]
fn container_disk_is_as_kubevirt_documents_it() {
    let (Some(workshop), Some(mut skopeo), Some(mut listing)) =
        (Workshop::new(), tool("skopeo"), tool("tar"))
    else {
        return;
    };
    let disks = workshop.disks("qcow2");
    workshop.push(&disks, "kubevirt", &["--as", "containerdisk"]);
    let copy = workshop.path("copy");
    let reference = workshop.name("kubevirt");
    run(skopeo
        .args(["copy", "--src-tls-verify=false", "--override-arch", "amd64", &reference])
        .arg(format!("dir:{}", copy.display())));
    let manifest: Value =
        serde_json::from_slice(&fs::read(copy.join("manifest.json")).unwrap()).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    let layer = copy.join(layers[0]["digest"].as_str().unwrap().trim_start_matches("sha256:"));
    let listed = run(listing.args(["--numeric-owner", "-tvf"]).arg(&layer));
    let name = disks[0].file_name().unwrap().to_str().unwrap();
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].starts_with("drwxr-xr-x 107/107") && lines[0].ends_with(" disk/"), "{listed}");
    assert!(
        lines[1].starts_with("-r--r----- 107/107") && lines[1].ends_with(&format!(" disk/{name}")),
        "{listed}"
    );
    run(Command::new("tar")
        .args(["--no-same-owner", "-xf"])
        .arg(&layer)
        .arg("-C")
        .arg(workshop.place.path()));
    assert!(same(&workshop.path("disk").join(name), &disks[0]));
    // An engine takes it as an image: its config fits the layer.
    if support::tool::is_root()
        && let Some(mut buildah) = tool("buildah")
    {
        buildah
            .arg("--root")
            .arg(workshop.path("store"))
            .arg("--runroot")
            .arg(workshop.path("run"));
        buildah.args([
            "--storage-driver",
            "vfs",
            "pull",
            "--tls-verify=false",
            "--arch",
            "amd64",
            &reference,
        ]);
        run(&mut buildah);
    }
    run(workshop.command("pull").arg(&reference).args(["--output", "back", "--arch", "x86_64"]));
    assert!(same(&workshop.path("back").join(name), &disks[0]));
    let vmdk = workshop.disks("vmdk");
    let said = workshop.refusal(
        workshop.command("push").args(&vmdk).arg(&reference).args(["--as", "containerdisk"]),
    );
    assert!(
        said.contains("KubeVirt starts no vmdk") && said.contains("hint: push a qcow2"),
        "{said}"
    );
}

#[test]
fn podman_machine_finds_the_disk_of_its_hypervisor() {
    let Some(workshop) = Workshop::new() else { return };
    let disks = workshop.disks("qcow2.zst,raw.zst,vhdx.zst");
    workshop.push(&disks, "machine", &["--as", "podman-machine"]);
    let index = workshop.document("machine");
    for (number, kind) in ["qemu", "applehv", "hyperv"].into_iter().enumerate() {
        // What podman's ocipull asks of an entry and its manifest.
        let entry = &index["manifests"][number];
        assert_eq!(
            (&entry["annotations"]["disktype"], &entry["platform"]["os"]),
            (&kind.into(), &"linux".into())
        );
        assert_eq!(entry["platform"]["architecture"], "x86_64");
        let manifest = workshop.document(entry["digest"].as_str().unwrap());
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
        assert_eq!(manifest["layers"][0]["mediaType"], "application/zstd");
        let title = &manifest["layers"][0]["annotations"]["org.opencontainers.image.title"];
        assert_eq!(title, disks[number].file_name().unwrap().to_str().unwrap());
    }
}

#[test]
fn pushed_disk_is_signed_as_cosign_verifies_it() {
    let (Some(workshop), Some(mut generate)) = (Workshop::new(), signer("cosign")) else { return };
    let disks = workshop.disks("qcow2");
    run(generate
        .arg("generate-key-pair")
        .env("COSIGN_PASSWORD", "")
        .current_dir(workshop.place.path()));
    let pushed = workshop.push(&disks, "43", &["--sign", "cosign:cosign.key"]);
    for digest in [&pushed["digest"], &pushed["disks"][0]["digest"]] {
        for form in ["true", "false"] {
            let mut verify = signer("cosign").unwrap();
            verify.args([
                "verify",
                "--key",
                "cosign.pub",
                "--insecure-ignore-tlog",
                "--allow-http-registry",
            ]);
            verify.arg(format!("--new-bundle-format={form}")).env("HOME", workshop.place.path());
            let image =
                format!("{}/disks/os@{}", workshop.registry.address, digest.as_str().unwrap());
            run(verify.arg(image).current_dir(workshop.place.path()));
        }
    }
}

#[test]
fn what_cannot_be_pushed_is_told_before_the_registry_is_asked() {
    let place = TempDir::new().unwrap();
    for name in ["a.raw", "a.x86_64.raw", "b.x86_64.raw", "c.txt"] {
        fs::write(place.path().join(name), "x").unwrap();
    }
    let digest = format!("docker://nowhere.invalid/x@sha256:{}", "0".repeat(64));
    for (arguments, code, told) in [
        (&["a.raw", "docker://nowhere.invalid/x"][..], 3, "add --arch"),
        (&["c.txt", "docker://nowhere.invalid/x"], 3, "does not end as one of a disk"),
        (&["a.x86_64.raw", "b.x86_64.raw", "docker://nowhere.invalid/x"], 3, "the same machines"),
        (&["a.x86_64.raw", "oci:dir"], 3, "not in a registry"),
        (&["a.x86_64.raw", &digest], 3, "name a tag"),
        (
            &["missing.x86_64.raw", "docker://nowhere.invalid/x"],
            1,
            "missing.x86_64.raw is not a file",
        ),
        (
            &["a.x86_64.raw", "docker://nowhere.invalid/x", "--sign", "gpg:me"],
            2,
            "expected cosign:KEY",
        ),
        (&["a.x86_64.raw", "docker://nowhere.invalid/x", "--attach", "c.txt"], 1, ".spdx.json"),
    ] {
        let output =
            bootpress().arg("push").args(arguments).current_dir(place.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(told), "{arguments:?}: {said}");
    }
}
