//! The command as a user meets it: what it prints, what it leaves behind, how it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use expect_test::expect;
use support::program::bootpress_named;
use support::tiny_image::{self, TinyImage, tiny_index};
use support::{bootc_image, bootpress};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs bootpress here: relative paths are below this directory.
    fn bootpress(&self, arguments: &[&str]) -> Output {
        bootpress()
            .args(arguments)
            .current_dir(self.0.path())
            .env_remove("RUST_LOG")
            .output()
            .unwrap()
    }

    fn build(&self, arguments: &[&str]) -> Output {
        let common = ["build", "--arch", "x86_64", "--progress", "none", "--no-cache"];
        self.bootpress(&[&common, arguments].concat())
    }

    /// What a build that fails says, and its exit code.
    fn refusal(&self, arguments: &[&str]) -> String {
        let before = self.names();
        let output = self.build(arguments);
        assert_eq!(output.stdout, b"", "a failure prints nothing on standard output");
        assert_eq!(self.names(), before, "a failure leaves nothing behind");
        format!("{}exit code {}\n", text(&output.stderr), output.status.code().unwrap())
    }

    fn names(&self) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.unwrap().file_name().into_string().unwrap()
        };
        let mut names: Vec<String> = fs::read_dir(self.0.path()).unwrap().map(name).collect();
        names.sort();
        names
    }

    fn with(image: &TinyImage) -> Self {
        let place = Self::new();
        image.write_oci_layout(&place.path("image"));
        place
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What can be judged from the command line alone is judged before the image is opened: there is none here.
#[test]
fn bad_value_is_refused_before_the_image_is_opened() {
    let place = Place::new();
    fs::write(
        place.path("files.toml"),
        "[[customizations.files]]\npath = \"/etc/x\"\ndata = \"y\"\n",
    )
    .unwrap();
    let long = "x".repeat(129);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--stateroot", "../x"], 2, "--stateroot"),
        (&["--stateroot", ""], 2, "--stateroot"),
        (&["--name-template", "fedora"], 2, "expected one of: fedora-iot"),
        (&["--name-template", "bib", "--format", "raw,ami"], 3, "the same name"),
        (&["--name-template", "{subvariant}.{ext}"], 3, "add --subvariant NAME"),
        (&["--name-value", "version=43"], 1, "--name-template"),
        (&["--compose-id", "Fedora-43"], 2, "Fedora-IoT-43-20251014.0"),
        (&["--productmd", "images.json"], 2, "--compose-id"),
        (&["--checksum=a/b"], 1, "without directories"),
        (&["--sign", "pgp:me"], 2, "expected one of: gpg, sq, cosign"),
        (&["--filesystem", "xfs", "--btrfs-compress", "zstd"], 3, "--btrfs-compress"),
        (&["--filesystem", "ext4", "--btrfs-subvolume", "root"], 3, "--btrfs-subvolume"),
        (&["--filesystem", "zfs"], 2, "--filesystem"),
        (&["--btrfs-compress", "zstd:99"], 2, "--btrfs-compress"),
        (&["--btrfs-subvolume", "a//b"], 2, "--btrfs-subvolume"),
        (&["--format", "iso", "--volume-id", "a/b"], 2, "--volume-id"),
        (&["--format", "iso", "--publisher", &long], 2, "--publisher"),
        (&["--format", "iso", "--application-id", "ä"], 2, "--application-id"),
        (&["--format", "iso", "--sector-size", "4096"], 3, "--sector-size"),
        (&["--format", "iso", "--bootloader", "none"], 3, "--bootloader"),
        (&["--format", "ova", "--sector-size", "4096"], 3, "--sector-size"),
        (&["--format", "anaconda-iso", "--install-to", "serial=x"], 3, "serial=x"),
        (&["--format", "anaconda-iso", "--config", "files.toml"], 3, "customizations.files"),
        (&["--root-mount-spec", "a b"], 2, "--root-mount-spec"),
        (&["--boot-mount-spec", "a\nb"], 2, "--boot-mount-spec"),
        (&["--target-imgref", "a b"], 2, "--target-imgref"),
        (&["--karg", "a\nb"], 2, "--karg"),
        (&["--size", "ten"], 2, "--size"),
    ];
    for (flags, code, named) in cases {
        let said = place.refusal(&[&["oci:nowhere"], *flags].concat());
        assert!(said.ends_with(&format!("exit code {code}\n")), "{flags:?}: {said}");
        assert!(said.contains(named), "{flags:?}: {said}");
        assert!(!said.contains("nowhere"), "{flags:?} was judged after the image: {said}");
    }
}

#[test]
fn a_build_says_what_it_made() {
    let place = Place::with(&bootc_image::bootc_image());
    let output = place.build(&[
        "oci:image",
        "--target-imgref",
        "example.com/tiny:43",
        "--format",
        "raw",
        "--format",
        "qcow2",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(place.names(), ["image", "image-43.1.x86_64.qcow2", "image-43.1.x86_64.raw"]);
    let said = text(&output.stdout);
    for expected in [
        "EFI-SYSTEM",
        "Linux root (x86-64)",
        "kernel        6.17.1-tiny",
        "console=ttyS0",
        "vendor tiny",
        "sha256:",
        "image-43.1.x86_64.raw",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
    let sum = Command::new("sha256sum").arg(place.path("image-43.1.x86_64.raw")).output().unwrap();
    let sum = text(&sum.stdout)[..64].to_owned();
    assert!(said.contains(&sum), "sha256sum says {sum}, we say\n{said}");
}

#[test]
fn the_report_is_json_on_request() {
    let place = Place::with(&bootc_image::bootc_image());
    let output = place.build(&[
        "oci:image",
        "--json",
        "-o",
        "disk.raw",
        "--format",
        "raw",
        "--karg",
        "quiet",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["files"][0]["path"], "disk.raw");
    assert_eq!(report["architecture"], "x86_64");
    assert!(report["system"]["command_line"].as_str().unwrap().contains(" quiet ostree="));
    assert!(report["warnings"][0].as_str().unwrap().contains("--target-imgref"));
    assert_eq!(report["size"], fs::metadata(place.path("disk.raw")).unwrap().len());
}

#[test]
fn what_is_no_bootc_image_is_told_what_it_lacks() {
    let place =
        Place::with(&tiny_image::tiny_image().layer(|layer| layer.file("usr/bin/true", "x")));
    expect![[r#"
        error: oci:image is not a bootc image: it lacks label containers.bootc or ostree.bootable, a kernel (usr/lib/modules/VERSION/vmlinuz), directory /sysroot, usr/lib/os-release
        hint: bootable container images are built from a base such as quay.io/fedora/fedora-bootc
        exit code 3
    "#]].assert_eq(&place.refusal(&["oci:image"]));
}

#[test]
fn an_image_without_boot_loader_is_accepted_only_knowingly() {
    let place = Place::with(&bootc_image::without_bootloader());
    expect![[r#"
        error: the image brings no boot loader: it lacks usr/lib/bootupd/updates/EFI.json, usr/lib/bootupd/updates/EFI or usr/lib/efi, usr/lib/bootupd/grub2-static/grub-static-pre.cfg, usr/lib/bootupd/grub2-static/grub-static-efi.cfg
        hint: build without a boot loader: --bootloader none
        exit code 3
    "#]].assert_eq(&place.refusal(&["oci:image"]));
    let output = place.build(&["oci:image", "--bootloader", "none"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn another_architecture_is_named() {
    let place = Place::with(&bootc_image::bootc_image().architecture("arm64"));
    expect![[r#"
        error: opening oci:image: oci:image is an image for arm64, and one for amd64 was asked for
        hint: build with --arch aarch64
        exit code 3
    "#]]
    .assert_eq(&place.refusal(&["oci:image"]));
}

#[test]
fn an_index_is_resolved_by_architecture() {
    let place = Place::new();
    let images = ["amd64", "arm64"]
        .map(|architecture| bootc_image::without_bootloader().architecture(architecture));
    tiny_index(&images).write_oci_layout(&place.path("image"));
    for architecture in ["x86_64", "aarch64"] {
        let output = place.build(&["oci:image", "--arch", architecture, "--bootloader", "none"]);
        // --arch came twice; clap takes neither for us.
        assert_eq!(output.status.code(), Some(2));
        let output = place.bootpress(&[
            "build",
            "oci:image",
            "--arch",
            architecture,
            "--bootloader",
            "none",
        ]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert_eq!(place.names(), ["image", "image-43.1.aarch64.qcow2", "image-43.1.x86_64.qcow2"]);
}

#[test]
fn a_flipped_byte_is_found_and_nothing_is_lost() {
    let place = Place::with(&bootc_image::bootc_image());
    fs::write(place.path("disk.qcow2"), "was there before").unwrap();
    let layer = largest_blob(&place.path("image"));
    let mut bytes = fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&layer, bytes).unwrap();
    let said = place.refusal(&["oci:image", "-o", "disk.qcow2"]);
    assert!(said.contains("unpacking layer 1 of 3: sha256:"), "{said}");
    assert!(said.contains("is corrupt"), "{said}");
    assert!(said.ends_with("exit code 4\n"), "{said}");
    assert_eq!(fs::read(place.path("disk.qcow2")).unwrap(), b"was there before");
}

#[test]
fn usage_is_explained() {
    let place = Place::new();
    let said = |arguments: &[&str]| place.refusal(arguments);
    expect![[r#"
        error: opening oci:nowhere: nowhere is not a directory
        exit code 1
    "#]]
    .assert_eq(&said(&["oci:nowhere"]));
    assert!(said(&["docker-daemon:x"]).ends_with("exit code 2\n"));
    assert!(said(&["oci:x", "--size", "ten"]).ends_with("exit code 2\n"));
    assert!(said(&["oci:x", "--format", "floppy"]).contains("raw"));
    let output = place.bootpress(&["build", "oci:x", "--arch", "s390x"]);
    assert!(
        text(&output.stderr).contains("no disks are made for s390x: "),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_disk_that_is_too_small_is_refused_before_it_is_written() {
    let place = Place::with(&bootc_image::bootc_image());
    let said = place.refusal(&["oci:image", "--target-imgref", "e.com/x:1", "--size", "515M"]);
    assert!(said.contains("does not fit: the root needs"), "{said}");
    assert!(said.ends_with("exit code 3\n"), "{said}");
    let output = place.build(&["oci:image", "--size", "2G", "-o", "disk.raw", "--format", "raw"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fs::metadata(place.path("disk.raw")).unwrap().len(), 2 << 30);
}

#[test]
fn help_teaches() {
    let place = Place::new();
    let help = place.bootpress(&["--help"]);
    assert!(help.status.success());
    for expected in
        ["bootpress build quay.io/fedora/fedora-bootc:43", "Exit codes: 0 done or passed"]
    {
        assert!(text(&help.stdout).contains(expected));
    }
    assert!(text(&place.bootpress(&["build", "--help"]).stdout).contains("--target-imgref"));
}

fn largest_blob(layout: &Path) -> PathBuf {
    let blobs =
        fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    blobs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

/// The program under the other tool's name.
fn bib(place: &Place, arguments: &[&str]) -> Output {
    bootpress_named("bootc-image-builder", place.0.path())
        .args(arguments)
        .current_dir(place.0.path())
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn bib_refusal(place: &Place, arguments: &[&str]) -> String {
    let output = bib(place, arguments);
    assert!(!output.status.success(), "{}", text(&output.stdout));
    text(&output.stderr)
}

#[test]
fn by_the_name_of_bootc_image_builder_it_takes_its_flags_and_leaves_its_files() {
    let place = Place::with(&bootc_image::bootc_image());
    // Who lays out the disk says how large it is; else it would have 10 GiB, and their hash would take its time.
    fs::write(place.path("disk.toml"), "[customizations.disk]\n").unwrap();
    let line = "--config disk.toml --type qcow2 --type raw --type ami --type vhd --type ova --target-arch amd64 --rootfs ext4 --chown 0:0 \
                --local --tls-verify=false --use-librepo=false --in-vm --rpmmd /rpmmd --store store --progress verbose \
                --log-level info --seed 7 --no-default-kernel-args --output out oci:image";
    let output = bib(&place, &line.split_whitespace().collect::<Vec<_>>());
    if !nix::unistd::getuid().is_root() {
        assert!(text(&output.stderr).contains("giving out to 0:0"));
    } else {
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).ends_with("Build complete!\nResults saved in\nout\n"));
    }
    let files = ["qcow2/disk.qcow2", "image/disk.raw", "vpc/disk.vhd", "archive/disk.ova"];
    for file in files {
        assert!(place.path("out").join(file).is_file(), "{file} is missing");
    }
    let manifest = fs::read(place.path("out/manifest-qcow2-raw-ami-vhd-ova.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["exports"][1]["types"], serde_json::json!(["raw", "ami"]));
    let said = text(&output.stdout);
    // Amazon's volumes are whole GiB, and so is the disk then, in every format.
    assert_eq!(fs::metadata(place.path("out/image/disk.raw")).unwrap().len() % (1 << 30), 0);
    assert!(said.contains("aws ec2 register-image") && !said.contains("console=tty0"), "{said}");

    assert!(place.path("store/bootpress").is_dir());
    let output = bib(&place, &["--target-arch", "amd64", "--output", "usual", "oci:image"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(" a disk of 10 GiB\n"), "{}", text(&output.stdout));

    let printed = bib(&place, &["manifest", "--target-arch", "amd64", "oci:image"]);
    let printed: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(printed["digest"], manifest["digest"]);
    let version = text(&bib(&place, &["version"]).stdout);
    for line in ["build_revision: ", "build_time: ", "build_tainted: "] {
        assert!(version.contains(line), "{version}");
    }
}

#[test]
fn by_that_name_it_refuses_what_cannot_be_done() {
    let place = Place::with(&bootc_image::bootc_image());
    let said = |arguments: &[&str]| bib_refusal(&place, arguments);
    assert!(said(&["--type", "floppy", "oci:image"]).contains("unsupported image type \"floppy\""));
    assert!(said(&["--type", "iso", "--type", "raw", "x"]).contains("cannot mix ISO/disk images"));
    let aws = ["--aws-ami-name=a", "--aws-bucket=b", "--aws-region=c", "oci:image"];
    assert!(said(&aws).contains("aws flags set for non-ami image type"));
    fs::write(place.path("disk.toml"), "[customizations.disk]\n").unwrap();
    let ami = ["--type", "ami", "--config", "disk.toml", "--target-arch", "amd64"];
    let told = said(&[&ami[..], &aws[..]].concat());
    assert!(told.contains("not uploaded") && told.contains("AWS_REGION=c"), "{told}");
    assert!(place.path("image/disk.raw").is_file(), "the disk itself is made");
    assert!(
        said(&["--aws-bucket=b", "oci:image"]).contains("aws-ami-name and aws-region is missing")
    );
    // Under this name the flag is called --rootfs, not --filesystem.
    for (flag, value) in [("--rootfs", "zfs"), ("--target-arch", "vax")] {
        let told = said(&[flag, value, "oci:image"]);
        assert!(told.contains(&format!("'{flag} <")) && told.contains(value), "{told}");
    }
    assert!(said(&["--chown", "me", "oci:image"]).contains("UID:GID"));
}

#[test]
fn by_the_name_of_image_builder_it_leaves_its_files() {
    let place = Place::with(&bootc_image::bootc_image());
    let called = |words: &[&str]| {
        bootpress_named("image-builder", place.0.path())
            .args(words)
            .current_dir(place.0.path())
            .env_remove("RUST_LOG")
            .output()
            .unwrap()
    };
    let line = "build raw --bootc-ref oci:image --arch x86_64 --image-size 2GiB --with-manifest --seed 7 --progress verbose \
                --bootc-default-fs ext4 --in-vm --with-sbom";
    let output = called(&line.split_whitespace().collect::<Vec<_>>());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let file = "bootc-raw-x86_64/bootc-raw-x86_64.raw";
    assert!(text(&output.stdout).ends_with(&format!("Image build successful: {file}\n")));
    assert_eq!(fs::metadata(place.path(file)).unwrap().len(), 2 << 30);
    assert!(place.path("bootc-raw-x86_64/bootc-raw-x86_64.raw.spdx.json").is_file());
    let manifest = place.path("bootc-raw-x86_64/bootc-raw-x86_64.osbuild-manifest.json");
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    assert_eq!(manifest["exports"][0]["path"], file);

    // The same words after `bootpress`, and a name of one's own.
    let line = "image-builder build raw --bootc-ref oci:image --arch x86_64 --image-size 2GiB --seed 7 --output-dir out \
                --output-name disk.raw";
    let output = place.bootpress(&line.split_whitespace().collect::<Vec<_>>());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(fs::read(place.path("out/disk.raw")).unwrap() == fs::read(place.path(file)).unwrap());

    let listed = text(&called(&["list", "--filter", "type:qcow2"]).stdout);
    assert_eq!(listed, "bootc type:qcow2 arch:x86_64\nbootc type:qcow2 arch:aarch64\n");
    assert!(text(&called(&["describe", "qcow2"]).stdout).contains("type: qcow2\n"));
    let output = called(&["build", "qcow2", "--distro", "fedora-43"]);
    assert!(text(&output.stderr).contains("hint: name the image with --bootc-ref"));
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn completions_and_manual_pages_are_made() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = text(&place.bootpress(&["completions", shell]).stdout);
        assert!(script.contains("bootpress") && script.contains("qcow2-compress"), "{shell}");
    }
    assert!(text(&place.bootpress(&["man"]).stdout).starts_with(".ie"));
    assert!(place.bootpress(&["man", "pages"]).status.success());
    let page = fs::read_to_string(place.path("pages/bootpress-build.1")).unwrap();
    assert!(page.contains("target\\-imgref"), "{page}");
}

/// `UPDATE_EXPECT=1 cargo test --test cli command_pages` writes them anew.
#[test]
fn command_pages_are_those_of_the_command_line() {
    let place = Place::new();
    assert!(place.bootpress(&["man", "--markdown", "pages"]).status.success());
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/commands");
    let names = |directory: &Path| {
        let entries = fs::read_dir(directory).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<std::collections::BTreeSet<String>>()
    };
    let made = names(&place.path("pages"));
    for name in &made {
        let page = fs::read_to_string(place.path("pages").join(name)).unwrap();
        expect_test::expect_file![directory.join(name)].assert_eq(&page);
    }
    assert_eq!(names(&directory), made, "there is a page without a command");
    let summary = fs::read_to_string(directory.join("../SUMMARY.md")).unwrap();
    for name in &made {
        assert!(summary.contains(&format!("(commands/{name})")), "{name} is not in SUMMARY.md");
    }
}

/// bash itself is asked, with a program in its path that has two images in its cache.
#[test]
fn image_name_is_completed_from_the_cache() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    fs::create_dir(place.path("bin")).unwrap();
    let program = place.path("bin/bootpress");
    fs::write(&program, "#!/bin/sh\necho quay.io/a/b:1\necho quay.io/a/c:2\n").unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(place.path("script"), place.bootpress(&["completions", "bash"]).stdout).unwrap();
    let completed = |line: &str| {
        let words = "script=$1; COMP_LINE=$2; COMP_POINT=${#2}; COMP_WORDS=($2); COMP_CWORD=2; COMP_WORDBREAKS=' :'; . \"$script\"; \
                     _bootpress_with_images bootpress \"${COMP_WORDS[2]}\" build; printf '%s\\n' \"${COMPREPLY[@]}\"";
        let path = format!("{}:/usr/bin:/bin", place.path("bin").display());
        let output = Command::new("bash")
            .args(["-c", words, "bash", "./script", line])
            .current_dir(place.0.path())
            .env("PATH", path)
            .output()
            .unwrap();
        text(&output.stdout)
    };
    assert!(completed("bootpress build quay.io/a").contains("quay.io/a/b:1\nquay.io/a/c:2\n"));
    assert!(completed("bootpress build quay.io/a/b:").ends_with("1\n"));
    assert!(!completed("bootpress test quay.io/a").contains("quay.io"));
    assert!(!completed("bootpress build --arch").contains("quay.io"));
}

#[test]
fn formats_are_named_and_refused_early() {
    let place = Place::with(&bootc_image::bootc_image());
    let said = place.refusal(&["oci:image", "--sector-size", "4096", "--format", "vmdk"]);
    assert!(said.contains("disks of format vmdk have sectors of 512 bytes"), "{said}");
    assert!(place.refusal(&["oci:image", "--format", "raw.rar"]).contains("unknown compression"));
    let output =
        place.build(&["oci:image", "--format", "raw.zst,vmdk", "-o", "out/", "--size", "1100M"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(place.path("out/image-43.1.x86_64.raw.zst").is_file());
    assert!(text(&output.stdout).contains("(uncompressed)"));
    // Google's disks are whole GiB.
    let output = place.build(&["oci:image", "--format", "gce", "--size", "1100M", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["size"], 2_u64 << 30);
    assert!(report["warnings"].to_string().contains("whole number of GiB"), "{report}");
}

/// A heading of a group of flags counts for those that come after it, too, unless they have one.
#[test]
fn flags_stand_under_the_headings_that_they_belong_to() {
    let place = Place::new();
    let wanted = [
        (
            "build",
            "Options",
            &["--format", "--output", "--dry-run", "--work-directory", "--progress", "--json"][..],
        ),
        ("build", "Configuration", &["--config", "--lenient"]),
        ("build", "ISO", &["--volume-id", "--installer-payload", "--install-to"]),
        ("build", "Trust", &["--verify-key", "--signature-policy"]),
        ("build", "Registry", &["--creds", "--offline"]),
        ("test", "Options", &["--jobs", "--chain", "--timeout", "--evidence", "--json"]),
        ("test", "Registry", &["--creds", "--offline"]),
        ("pull", "Options", &["--arch", "--progress", "--json"]),
    ];
    for (command, heading, flags) in wanted {
        let help = place.bootpress(&[command, "--help"]).stdout;
        let mut under = "";
        let mut found = Vec::new();
        let help = text(&help);
        for line in help.lines() {
            match line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
                Some(next) => under = next,
                None if under == heading && line.trim_start().starts_with('-') => {
                    found.extend(
                        line.split([' ', '=', '[', ',']).filter(|word| word.starts_with("--")),
                    );
                }
                None => {}
            }
        }
        for flag in flags {
            assert!(found.contains(flag), "{command}: {flag} is not under {heading}: {found:?}");
        }
        if heading != "Options" && heading != "Configuration" {
            let others = ["--json", "--dry-run", "--timeout", "--work-directory"];
            assert!(
                !found.iter().any(|flag| others.contains(flag)),
                "{command}, {heading}: {found:?}"
            );
        }
    }
}
