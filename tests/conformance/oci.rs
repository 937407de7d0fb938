//! Archives that GNU tar and bsdtar wrote, images that skopeo copied, a registry that Debian ships: read back equal.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use bootpress::architecture::Architecture;
use bootpress::content::ContentStore;
use bootpress::image::LayerRecord;
use bootpress::layer::{Entry, EntryKind, Layer};
use bootpress::oci::{self, Source};
use bootpress::progress::Progress;
use bootpress::tree::components;
use support::server::Server;
use support::tiny_image::{Compression, Item, TinyImage, TinyLayer, tiny_image, tiny_index};
use support::tool::{run, tool};
use tempfile::TempDir;

/// What a path is, in words that tell all differences but holes.
type Listing = BTreeMap<Vec<u8>, String>;

fn open(reference: &str, architecture: Architecture) -> Source {
    let reference = reference.parse().unwrap();
    let opened = oci::open(&reference, architecture, &Progress::default()).unwrap();
    opened.unjudged("tests vouch for what they make")
}

fn unpack(source: &Source) -> (ContentStore, Vec<Layer>) {
    let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
    let layers = source.unpack(&contents, &Progress::default()).unwrap();
    (contents, layers)
}

fn describe(mode: u32, mtime: i64, what: &str, content: &[u8]) -> String {
    let sum =
        content.iter().fold(17_u64, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    format!("{what} {mode:o} {mtime} {} bytes {sum:x}", content.len())
}

fn listing(contents: &ContentStore, entries: &[Entry]) -> Listing {
    let mut listing = Listing::new();
    for entry in entries {
        let path = components(&entry.path).collect::<Vec<_>>().join(&b'/');
        let (mode, mtime) = (u32::from(entry.metadata.mode), entry.metadata.mtime);
        let told = match &entry.kind {
            EntryKind::Directory => describe(mode, mtime, "directory", b""),
            EntryKind::File(content) => {
                describe(mode, mtime, "file", &contents.bytes(content).unwrap())
            }
            EntryKind::Symlink(target) => describe(mode, mtime, "link", target),
            EntryKind::HardLink(target) => {
                let target = components(target).collect::<Vec<_>>().join(&b'/');
                listing[&target].clone()
            }
            EntryKind::Fifo => describe(mode, mtime, "fifo", b""),
            other => panic!("{other:?}"),
        };
        listing.insert(path, told);
    }
    listing
}

/// The same, of a directory on this machine.
fn listing_of(root: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let facts = fs::symlink_metadata(&path).unwrap();
        let (mode, mtime) = (facts.mode() & 0o7777, facts.mtime());
        let told = if facts.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            describe(mode, mtime, "directory", b"")
        } else if facts.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            describe(mode, mtime, "link", target.as_os_str().as_bytes())
        } else if facts.is_file() {
            describe(mode, mtime, "file", &fs::read(&path).unwrap())
        } else {
            describe(mode, mtime, "fifo", b"")
        };
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        listing.insert(name, told);
    }
    listing
}

/// Files of every sort that a dialect of tar can be proud of.
fn files(root: &Path, dialect_knows_long_names: bool) {
    let write = |name: &[u8], bytes: &[u8]| {
        let path = root.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
    };
    write(b"empty", b"");
    write(b"usr/bin/tool", &[7; 1000]);
    write(b"usr/bin/exact", &[7; 1024]);
    write(b"name with\nnewline", b"x");
    write("usr/share/\u{e9}\u{fc}".as_bytes(), b"unicode");
    write(b"usr/share/raw\xff\xfe", b"not UTF-8");
    write([&[b'p'; 80][..], b"/", &[b'q'; 90]].concat().as_slice(), b"needs a prefix");
    fs::set_permissions(root.join("usr/bin/tool"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/also")).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    symlink("../..//odd/./target/", root.join("usr/odd")).unwrap();
    run(Command::new("mkfifo").arg(root.join("pipe")));
    if dialect_knows_long_names {
        write([&[b'l'; 200][..], b"/", &[b'm'; 220]].concat().as_slice(), b"long");
        symlink("t/".repeat(150), root.join("long-link")).unwrap();
        fs::hard_link(root.join("usr/bin/tool"), root.join("h".repeat(140))).unwrap();
    }
    // Holes at the front, in the middle (many of them) and at the end.
    let sparse = File::create(root.join("sparse")).unwrap();
    for i in 1..40 {
        sparse.write_all_at(format!("data {i}").as_bytes(), i * 65_536).unwrap();
    }
    sparse.set_len(40 * 65_536 + 5).unwrap();
    File::create(root.join("hole")).unwrap().set_len(1 << 20).unwrap();
}

/// Reads an archive as the one layer of an image.
fn read_archive(archive: Vec<u8>) -> (ContentStore, Vec<Entry>) {
    let directory = TempDir::new().unwrap();
    tiny_image().archive_layer(archive).write_oci_layout(directory.path());
    let reference = format!("oci:{}", directory.path().display());
    let (contents, mut layers) = unpack(&open(&reference, Architecture::X86_64));
    (contents, layers.remove(0).entries)
}

fn holes(entries: &[Entry], name: &str) -> u64 {
    let entry = entries.iter().find(|entry| entry.path.ends_with(name.as_bytes())).unwrap();
    let EntryKind::File(content) = &entry.kind else { panic!("{name} is not a file") };
    content.size - content.data_ranges().iter().map(|range| range.end - range.start).sum::<u64>()
}

#[test]
fn archives_of_gnu_tar_read_back_equal() {
    if tool("tar").is_none() {
        return;
    }
    for (format, long_names, sparse) in [
        ("--format=v7", false, &[][..]),
        ("--format=ustar", false, &[]),
        ("--format=oldgnu", true, &["--sparse"]),
        ("--format=gnu", true, &["--sparse"]),
        ("--format=gnu", true, &[]),
        ("--format=posix", true, &["--sparse", "--sparse-version=0.0"]),
        ("--format=posix", true, &["--sparse", "--sparse-version=0.1"]),
        ("--format=posix", true, &["--sparse", "--sparse-version=1.0"]),
    ] {
        let root = TempDir::new().unwrap();
        files(root.path(), long_names);
        if format == "--format=v7" {
            fs::remove_file(root.path().join("pipe")).unwrap();
            fs::remove_dir_all(root.path().join("p".repeat(80))).unwrap();
        }
        let mut tar = tool("tar").unwrap();
        tar.arg(format).args(sparse).args(["--owner=7:1234", "--group=8:3000000000"]);
        if format.ends_with("v7") || format.ends_with("ustar") {
            tar.arg("--group=8:8");
        }
        let output = tar.args(["-cf", "-", "-C"]).arg(root.path()).arg(".").output().unwrap();
        assert!(output.status.success(), "{format}: {}", String::from_utf8_lossy(&output.stderr));
        let (contents, entries) = read_archive(output.stdout);
        let found = listing(&contents, &entries);
        assert_eq!(found, listing_of(root.path()), "{format} {sparse:?}");
        assert!(entries.iter().all(|entry| entry.metadata.uid == 1234), "{format}");
        let gid = if entries[0].metadata.gid == 8 { 8 } else { 3_000_000_000 };
        assert!(entries.iter().all(|entry| entry.metadata.gid == gid), "{format}");
        assert_eq!(holes(&entries, "/sparse") > 1 << 20, !sparse.is_empty(), "{format} {sparse:?}");
        assert_eq!(holes(&entries, "/hole") == 1 << 20, !sparse.is_empty(), "{format} {sparse:?}");
    }
}

#[test]
fn archives_of_bsdtar_read_back_equal() {
    for format in ["pax", "ustar", "gnutar"] {
        let Some(mut bsdtar) = tool("bsdtar") else { return };
        let root = TempDir::new().unwrap();
        files(root.path(), format != "ustar");
        bsdtar.args(["--format", format, "--uid", "1234", "--gid", "5678", "-cf", "-", "-C"]);
        let output = bsdtar.arg(root.path()).arg(".").env("LC_ALL", "C.UTF-8").output().unwrap();
        let (contents, entries) = read_archive(output.stdout);
        assert_eq!(listing(&contents, &entries), listing_of(root.path()), "{format}");
        assert!(entries.iter().all(|entry| entry.metadata.uid == 1234), "{format}");
        if format == "pax" {
            assert!(holes(&entries, "/sparse") > 1 << 20);
        }
    }
}

#[test]
fn extended_attributes_survive_both_tars() {
    let root = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = root.path().join("file");
    fs::write(&file, b"x").unwrap();
    // A newline, a NUL, and text that looks like another record.
    let value = b"\x01\x00\n12 path=evil\n\xff";
    let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    let Some(mut setfattr) = tool("setfattr") else { return };
    run(setfattr.args(["-n", "user.some-name", "-v", &format!("0x{hex}")]).arg(&file));
    let gnu = tool("tar").map(|mut tar| {
        tar.args(["--format=posix", "--xattrs", "-cf", "-", "-C"]);
        tar
    });
    let bsd = tool("bsdtar").map(|mut tar| {
        tar.args(["--format=pax", "--xattrs", "-cf", "-", "-C"]);
        tar
    });
    for mut command in [gnu, bsd].into_iter().flatten() {
        let archive = command.arg(root.path()).arg("file").output().unwrap().stdout;
        let (_, entries) = read_archive(archive);
        let xattrs: Vec<_> = entries[0].metadata.xattrs.iter().collect();
        let expected = [(&b"user.some-name"[..], &value[..])];
        assert_eq!(xattrs, expected, "{:?}", command.get_program());
    }
}

fn sample() -> TinyImage {
    tiny_image()
        .label("containers.bootc", "1")
        .layer(|l| {
            l.directory("usr/").add(Item::file("usr/a", vec![1; 100_000]).xattr("user.x", b"\n"))
        })
        .compression(Compression::None)
        .layer(|l| l.symlink("bin", "usr/bin").whiteout("usr/a"))
        .tag("tiny")
}

/// Layers by their archives: what a copy in another compression must not change.
fn archives(layers: &[Layer]) -> Vec<(&str, Vec<&[u8]>)> {
    let paths = layers.iter().map(|layer| layer.entries.iter().map(|entry| &*entry.path).collect());
    layers.iter().map(|layer| layer.diff_id.as_str()).zip(paths).collect()
}

#[test]
fn copies_of_skopeo_have_the_same_layers() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    sample().write_oci_layout(Path::new(&at("source")));
    let source = open(&format!("oci:{}:tiny", at("source")), Architecture::X86_64);
    let (_, expected) = unpack(&source);
    let zstd =
        &["--dest-decompress=false", "--dest-compress-format=zstd", "--dest-compress-level=3"];
    for (to, options) in [
        (format!("oci-archive:{}:quay.io/x/y:1", at("copy.tar")), &[][..]),
        (format!("oci:{}:tiny", at("zstd")), &zstd[..]),
        (format!("oci-archive:{}:z", at("zstd.tar")), &zstd[..]),
    ] {
        let Some(mut skopeo) = tool("skopeo") else { return };
        skopeo.args(["--insecure-policy", "copy"]).args(options);
        run(skopeo.arg(format!("oci:{}:tiny", at("source"))).arg(&to));
        let copy = open(&to, Architecture::X86_64);
        assert_eq!(copy.image.config, source.image.config);
        assert_eq!(copy.image.name.as_deref(), to.contains("quay.io").then_some("quay.io/x/y:1"));
        assert_eq!(archives(&unpack(&copy).1), archives(&expected), "{to}");
        let zstd = |layer: &LayerRecord| layer.media_type.ends_with("+zstd");
        assert_eq!(copy.image.layers.iter().any(zstd), to.contains("zstd"), "{to}");
    }
}

#[test]
fn images_come_from_a_registry() {
    let (Some(registry), Some(_)) = (Server::registry(None, false, None), tool("skopeo")) else {
        return;
    };
    let directory = TempDir::new().unwrap();
    let layout = directory.path().display().to_string();
    let push = |from: &str, to: &str, options: &[&str]| {
        let mut skopeo = tool("skopeo").unwrap();
        skopeo.args(["--insecure-policy", "copy", "--dest-tls-verify=false"]).args(options);
        run(skopeo.arg(from).arg(format!("docker://{}/{to}", registry.address)));
    };
    sample().write_oci_layout(directory.path());
    let expected = unpack(&open(&format!("oci:{layout}:tiny"), Architecture::X86_64)).1;
    push(&format!("oci:{layout}:tiny"), "some/tiny:1", &[]);
    push(&format!("oci:{layout}:tiny"), "some/docker:1", &["--format=v2s2"]);
    for name in ["some/tiny:1", "some/docker:1"] {
        let source = open(&format!("{}/{name}", registry.address), Architecture::X86_64);
        assert_eq!(source.image.name, Some(format!("{}/{name}", registry.address)));
        assert_eq!(archives(&unpack(&source).1), archives(&expected), "{name}");
        let repository = name.strip_suffix(":1").unwrap();
        let pinned = format!("{}/{repository}@{}", registry.address, source.image.manifest_digest);
        let pinned = open(&pinned, Architecture::X86_64);
        assert_eq!(pinned.image.manifest, source.image.manifest);
    }

    let arm64 = sample().architecture("arm64").layer(|l| l.file("arm64", b""));
    tiny_index(&[sample().tag("both"), arm64]).write_oci_layout(directory.path());
    push(&format!("oci:{layout}:both"), "both:latest", &["--all"]);
    for (architecture, layers) in [(Architecture::X86_64, 2), (Architecture::Aarch64, 3)] {
        let source = open(&format!("docker://{}/both", registry.address), architecture);
        assert_eq!((source.image.architecture, unpack(&source).1.len()), (architecture, layers));
    }

    let reference = format!("{}/both:gone", registry.address).parse().unwrap();
    let error = oci::open(&reference, Architecture::X86_64, &Progress::default()).unwrap_err();
    assert!(format!("{error:#}").contains("the registry has no"), "{error:#}");
}

#[test]
fn gnu_tar_reads_what_tiny_image_makes() {
    let Some(mut tar) = tool("tar") else { return };
    let long = "l".repeat(150);
    let layer = TinyLayer::default()
        .directory("usr")
        .add(Item::file(&long, b"12345").owner(7, 8).xattr("user.x", b"\n"))
        .symlink("bin", "usr/bin")
        .hardlink("hard", &long);
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("layer.tar");
    fs::write(&file, layer.archive()).unwrap();
    let text = run(tar.args(["--numeric-owner", "-tvf"]).arg(&file));
    assert!(text.contains("drwxr-xr-x 0/0") && text.contains("bin -> usr/bin"), "{text}");
    assert!(text.contains(&format!("hard link to {long}")), "{text}");
    assert!(text.contains("-rw-r--r-- 7/8") && text.contains(" 5 2025-01-0"), "{text}");
}
