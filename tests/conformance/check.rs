//! `bootpress check` as a whole program: exit codes, forms of reports before their own schemas, a registry, and the page in `docs/`.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use expect_test::{expect, expect_file};
use serde_json::Value;
use support::bootc_image::{bootc_image, without_bootloader};
use support::server::Server;
use support::tiny_image::{Item, TinyImage, tiny_image, tiny_index};
use support::tool::{fetched, run, signer, tool};
use support::{Build, bootpress};
use tempfile::TempDir;

/// Runs the check here; `HOME` is this directory, so that no policy of this machine counts.
fn check(place: &Path, arguments: &[&str]) -> Output {
    let mut command = bootpress();
    command.arg("check").args(arguments).args(["--effective-time", "2026-12-01"]);
    command.current_dir(place).env("HOME", place).env_remove("XDG_CONFIG_HOME");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A report as JSON, and the exit code.
#[track_caller]
fn report(place: &Path, arguments: &[&str]) -> (Value, i32) {
    let output = check(place, &[arguments, &["--json"]].concat());
    let code = output.status.code().unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    (report, code)
}

/// The status of a rule.
#[track_caller]
fn status<'a>(report: &'a Value, rule: &str) -> &'a str {
    let findings = report["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["rule"] == rule);
    finding.unwrap_or_else(|| panic!("{rule} was not judged: {report:#}"))["status"]
        .as_str()
        .unwrap()
}

/// An image with something for every rule about files.
fn spoiled() -> TinyImage {
    without_bootloader().layer(|layer| {
        layer
            .file("usr/lib/modules/6.18/vmlinuz", "another kernel")
            .file("usr/lib/bootc/kargs.d/20-bad.toml", "kargs = 'quiet'\n")
            .file("usr/lib/bootc/install/20-bad.toml", "[install]\nroot-fs-type = 'fat'\n")
            .file("usr/lib/ostree/prepare-root.conf", "[composefs]\nenabled = maybee\n")
            .file("usr/lib/os-release", "ID=tiny\n")
            .file("boot/vmlinuz-6.18", "not installed")
            .file("var/log/dnf.log", "left over")
            .file("run/lock/x", "")
            .file("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
            .file("etc/ssh/ssh_host_rsa_key", "key")
            .file("var/lib/systemd/random-seed", "seed")
            .file("etc/shadow", "root::1::::::\nann:$6$x$y:1::::::\nbin:*:1::::::\n")
            .add(Item::file("usr/bin/backdoor", "x").mode(0o4755))
            .file("usr/etc/x", "")
    })
}

#[test]
fn rules_about_files_see_what_is_in_the_layers() {
    let place = TempDir::new().unwrap();
    spoiled().write_oci_layout(&place.path().join("spoiled"));
    bootc_image().write_oci_layout(&place.path().join("good"));
    let (bad, code) = report(place.path(), &["oci:spoiled", "--arch", "x86_64"]);
    assert_eq!(code, 1);
    for rule in [
        "single-kernel",
        "boot-payload",
        "kargs-valid",
        "install-config-valid",
        "root-config-valid",
        "os-release",
        "boot-empty",
        "var-empty",
        "run-tmp-empty",
        "no-machine-id",
        "no-host-keys",
        "no-random-seed",
        "no-passwords",
        "setuid",
        "etc-usr-etc",
    ] {
        assert_eq!(status(&bad, &format!("content.{rule}")), "failed", "{rule}");
    }
    let (good, _) = report(place.path(), &["oci:good", "--arch", "x86_64"]);
    for rule in
        ["single-kernel", "boot-payload", "kargs-valid", "root-config-valid", "no-passwords"]
    {
        assert_eq!(status(&good, &format!("content.{rule}")), "passed", "{rule}: {good:#}");
    }
}

/// What is worth a look at the whole: the report for people, on an image made to violate rules.
#[test]
fn report_for_people_names_rule_message_and_fix() {
    let place = TempDir::new().unwrap();
    without_bootloader()
        .label("org.opencontainers.image.licenses", "GPLv2+ and MIT\u{1b}[2J")
        .tag("quay.io/example/os-bootc-43:test")
        .write_oci_layout(&place.path().join("image"));
    let output = check(place.path(), &["oci:image", "--arch", "x86_64", "--no-content"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    let told: Vec<&str> = told.lines().filter(|line| !line.starts_with("digest")).collect();
    expect_file!["../golden/check-report.txt"].assert_eq(&(told.join("\n") + "\n"));
}

#[test]
fn exit_code_follows_the_severity_that_is_asked_for() {
    let place = TempDir::new().unwrap();
    bootc_image().write_oci_layout(&place.path().join("image"));
    let policy = "bootpress: { extends: none, severity: { image.licences: warning, image.sbom: note, content.initramfs: off } }";
    fs::write(place.path().join("mine.yaml"), policy).unwrap();
    let code = |more: &[&str]| {
        let common = ["oci:image", "--arch", "x86_64", "--no-content", "--policy", "mine.yaml"];
        check(place.path(), &[&common, more].concat()).status.code().unwrap()
    };
    assert_eq!(code(&[]), 0);
    assert_eq!(code(&["--fail-on", "warning"]), 1);
    assert_eq!(code(&["--fail-on", "never"]), 0);
    for (arguments, exit, error) in [
        (
            &["oci:image", "--policy", "nothing"][..],
            1,
            "unknown policy \"nothing\": expected a file or one of: default, fedora",
        ),
        (&["oci:image", "--report", "sarif=no/such/place"], 1, "no/such is not a directory"),
        (&["oci:image", "--report", "xml=x"], 2, "expected one of: json, sarif, junit"),
        (&["--explain", "image.nothing"], 1, "unknown rule \"image.nothing\""),
        (&[], 2, "<IMAGE|DISK|ISO>"),
        (&["oci:absent"], 1, "absent"),
    ] {
        let output = check(place.path(), arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {said}");
        assert!(said.contains(error), "{arguments:?}: {said}");
    }
}

#[test]
fn sarif_and_junit_are_what_their_schemas_say() {
    let place = TempDir::new().unwrap();
    spoiled().label("vendor", "<&\"\u{1b}").write_oci_layout(&place.path().join("image"));
    let reports =
        ["--report", "sarif=out.sarif", "--report", "junit=out.xml", "--report", "json=out.json"];
    let arguments =
        [&["oci:image", "--arch", "x86_64", "--policy", "fedora"][..], &reports].concat();
    assert_eq!(check(place.path(), &arguments).status.code(), Some(1));
    if let Some(mut xmllint) = tool("xmllint") {
        run(xmllint.arg("--noout").arg(place.path().join("out.xml")));
    }
    let schema = fetched("documents").join("sarif-schema.json");
    if !schema.exists() {
        assert!(
            std::env::var_os("REQUIRE_TOOLS").is_none(),
            "run tests/support/documents target/documents"
        );
        return;
    }
    let script = "import json, sys, jsonschema\nschema, log = (json.load(open(name)) for name in sys.argv[1:])\n\
                  jsonschema.Draft7Validator(schema).validate(log)\nprint(len(log['runs'][0]['results']))";
    let mut python = Command::new("python3");
    let counted = run(python.args(["-c", script]).arg(&schema).arg(place.path().join("out.sarif")));
    assert!(counted.trim().parse::<u32>().unwrap() > 15, "{counted}");
}

/// The registry that Debian ships: tags that agree and do not, an index, an attached bill of materials, a parent image.
#[test]
fn registry_tells_tags_platforms_and_attachments() {
    let (Some(server), Some(skopeo)) = (Server::registry(None, false, None), signer("skopeo"))
    else {
        return;
    };
    let skopeo = skopeo.get_program().to_owned();
    let place = TempDir::new().unwrap();
    let image = |architecture: &str| {
        tiny_image()
            .architecture(architecture)
            .label("containers.bootc", "1")
            .layer(|layer| layer.file("x", architecture))
    };
    tiny_index(&[image("amd64").tag("new"), image("arm64")])
        .write_oci_layout(&place.path().join("layout"));
    image("amd64").label("age", "old").tag("old").write_oci_layout(&place.path().join("layout"));
    let repository = format!("{}/os/fedora-bootc", server.address);
    let push = |from: &str, to: &str| {
        let mut command = Command::new(&skopeo);
        command.args(["--insecure-policy", "copy", "--quiet", "--all", "--dest-tls-verify=false"]);
        let from = format!("oci:{}:{from}", place.path().join("layout").display());
        run(command.arg(from).arg(format!("docker://{repository}:{to}")));
    };
    for (from, to) in [("old", "43.20261130.0"), ("new", "43.20261201.0"), ("new", "latest")] {
        push(from, to);
    }
    fs::write(
        place.path().join("mine.yaml"),
        "bootpress: { extends: fedora, tags: { required: [latest], agree: [[latest, '@newest']] } }",
    )
    .unwrap();
    let judged = |tag: &str| {
        let name = format!("docker://{repository}:{tag}");
        let arguments = [
            name.as_str(),
            "--policy",
            "mine.yaml",
            "--no-content",
            "--no-cache",
            "--arch",
            "x86_64",
        ];
        report(place.path(), &arguments).0
    };
    let good = judged("43.20261201.0");
    for rule in ["repository-name", "tag-form", "tags-present", "tags-agree", "index-complete"] {
        assert_eq!(status(&good, &format!("image.{rule}")), "passed", "{good:#}");
    }
    for rule in ["signed", "sbom"] {
        assert_eq!(status(&good, &format!("image.{rule}")), "failed", "{good:#}");
    }
    assert_eq!(status(&judged("43.20261130.0"), "image.index-complete"), "failed");
    push("old", "latest");
    let behind = judged("43.20261201.0");
    assert_eq!(status(&behind, "image.tags-agree"), "failed", "{behind:#}");
}

/// A disk of the tests' image, with a policy of SELinux that labels everything.
fn disk(place: &Path) -> PathBuf {
    bootc_image()
        .layer(|layer| {
            layer.file("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=tiny\n").file(
                "etc/selinux/tiny/contexts/files/file_contexts",
                "/.* system_u:object_r:usr_t:s0\n",
            )
        })
        .write_oci_layout(&place.join("image"));
    let built = Build::new("oci:image").directory(place).format("raw").output("disk.raw").run();
    place.join(built.file(0))
}

/// Runs a command of debugfs on the root file system.
fn debugfs(disk: &Path, start: u64, command: &str) -> Option<String> {
    let mut debugfs = tool("debugfs")?;
    Some(run(debugfs.args(["-w", "-R", command]).arg(format!("{}?offset={start}", disk.display()))))
}

#[test]
fn rules_about_disks_see_what_is_broken() {
    let place = TempDir::new().unwrap();
    let disk = disk(place.path());
    let (sound, _) = report(place.path(), &["disk.raw"]);
    for rule in [
        "table-consistent",
        "esp-readable",
        "esp-room",
        "boot-entries",
        "filesystems-clean",
        "selinux-labels",
    ] {
        assert_eq!(status(&sound, &format!("disk.{rule}")), "passed", "{sound:#}");
    }
    // The programs of this image are words.
    assert_eq!(status(&sound, "disk.secure-boot"), "failed", "{sound:#}");
    let facts = bootpress::inspect::inspect(&disk).unwrap();
    let start =
        |role: &str| facts.partitions.iter().find(|one| one.role == Some(role)).unwrap().start;
    let (esp, root) = (start("esp"), start("root"));
    let size = fs::metadata(&disk).unwrap().len();
    let copy = || {
        let broken = place.path().join("broken.raw");
        run(Command::new("cp").arg("--sparse=always").arg(&disk).arg(&broken));
        broken
    };
    // s_state of the super block: 0, not unmounted.
    for (at, value, rule) in [
        (512 + 60, 0xff, "table-consistent"),
        (size - 512 + 60, 0xff, "table-consistent"),
        (esp + 11, 0xff, "esp-readable"),
        (root + 1024 + 0x3a, 0, "filesystems-clean"),
    ] {
        let file = fs::File::options().write(true).open(copy()).unwrap();
        file.write_all_at(&[value], at).unwrap();
        let (report, code) = report(place.path(), &["broken.raw"]);
        assert_eq!((status(&report, &format!("disk.{rule}")), code), ("failed", 1), "{report:#}");
    }
    let kernel = facts.boot_entries[0].linux.clone();
    let kernel = if kernel.starts_with("/boot") { kernel } else { format!("/boot{kernel}") };
    let deployment = &facts.deployments[0];
    let release = format!(
        "/ostree/deploy/{}/deploy/{}.{}/usr/lib/os-release",
        deployment.stateroot, deployment.commit, deployment.serial
    );
    for (command, rule, told) in [
        (format!("rm {kernel}"), "boot-entries", "its kernel"),
        (
            format!("ea_rm {release} security.selinux"),
            "selinux-labels",
            "/usr/lib/os-release has no label",
        ),
    ] {
        let Some(_) = debugfs(&copy(), root, &command) else { return };
        let (report, _) = report(place.path(), &["broken.raw"]);
        assert_eq!(status(&report, &format!("disk.{rule}")), "failed", "{command}: {report:#}");
        assert!(report.to_string().contains(told), "{told}: {report:#}");
    }
}

/// A hybrid ISO as xorriso makes it, with the MD5 that isomd5sum implants; then with each thing broken.
#[test]
fn rules_about_isos_see_what_is_broken() {
    let place = TempDir::new().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir(at("files")).unwrap();
    fs::write(at("files/readme"), vec![b'x'; 300_000]).unwrap();
    fs::write(at("efi.img"), vec![0; 4 << 20]).unwrap();
    let (Some(mut mkfs), Some(mut xorriso), Some(mut implant)) =
        (tool("mkfs.fat"), tool("xorriso"), tool("implantisomd5"))
    else {
        return;
    };
    run(mkfs.args(["-F", "16", "-s", "1"]).arg(at("efi.img")));
    let options = [
        "-as",
        "mkisofs",
        "-o",
        "sound.iso",
        "-V",
        "TINY",
        "-append_partition",
        "2",
        "0xef",
        "efi.img",
        "-appended_part_as_gpt",
        "-e",
        "--interval:appended_partition_2:all::",
        "-no-emul-boot",
        "files",
    ];
    run(xorriso.args(options).current_dir(place.path()));
    run(implant.arg(at("sound.iso")));
    let (sound, code) = report(place.path(), &["sound.iso"]);
    for rule in ["volume", "boot-catalog", "hybrid", "md5"] {
        assert_eq!(status(&sound, &format!("iso.{rule}")), "passed", "{sound:#}");
    }
    assert_eq!(code, 0);
    let bytes = fs::read(at("sound.iso")).unwrap();
    let readme = bytes.windows(100).position(|window| window == [b'x'; 100]).unwrap();
    let catalogue =
        u32::from_le_bytes(*bytes[17 * 2048 + 71..].first_chunk().unwrap()) as usize * 2048;
    let altered = |at: usize, value: u8| {
        let mut broken = bytes.clone();
        broken[at] = value;
        broken
    };
    for (broken, rule) in [
        (altered(readme, b'y'), "md5"),
        (altered(16 * 2048 + 80, 0xff), "volume"),
        (bytes[..readme + 1000].to_vec(), "volume"),
        (altered(catalogue + 30, 0), "boot-catalog"),
        (altered(512 + 60, 0xff), "hybrid"),
    ] {
        fs::write(at("broken.iso"), broken).unwrap();
        let (report, _) = report(place.path(), &["broken.iso"]);
        assert_eq!(status(&report, &format!("iso.{rule}")), "failed", "{report:#}");
    }
}

/// The list of rules, an explanation, and the report on the tests' image, as they stand in the documentation.
#[test]
fn page_in_docs_is_what_the_program_prints() {
    let place = TempDir::new().unwrap();
    let print = |arguments: &[&str]| {
        let output = check(place.path(), arguments);
        text(&output.stdout).to_owned()
    };
    bootc_image()
        .tag("quay.io/example/fedora-bootc:43.20261201.0")
        .write_oci_layout(&place.path().join("image"));
    // The digest depends on the versions of compressors.
    let report = print(&["oci:image", "--arch", "x86_64", "--policy", "fedora"]);
    let report: Vec<&str> = report.lines().filter(|line| !line.starts_with("digest")).collect();
    let page = include_str!("../../docs/check.in.md")
        .replace("@LIST@", print(&["--list"]).trim_end())
        .replace("@EXPLAIN@", print(&["--explain", "content.initramfs"]).trim_end())
        .replace("@REPORT@", &report.join("\n"));
    expect_file!["../../docs/src/check.md"].assert_eq(&page);
}

#[test]
fn policies_in_the_program_are_listed_by_the_error() {
    let place = TempDir::new().unwrap();
    let said = check(place.path(), &["oci:x", "--policy", "redhat"]);
    expect![[r#"
        error: unknown policy "redhat": expected a file or one of: default, fedora
    "#]]
    .assert_eq(text(&said.stderr));
}
