//! The importer inside bootc (ostree-ext, `tests/importer`) as the witness of what we make of images: it imports the same
//! layouts, and the trees of all its commits are ours. Its exporter makes images that carry a commit, and so do we here.
//!
//! It differs from bootc 1.16, whose rules we follow, and so do we from it, in what trees do not show: it takes images only that
//! carry a commit, stores documents unsorted, and stamps layer commits with the time. What trees show is a test of its own.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use bootpress::architecture::Architecture;
use bootpress::content::ContentStore;
use bootpress::image::Image;
use bootpress::layer::Entry;
use bootpress::oci;
use bootpress::ostree::{Committed, Repository, unite};
use bootpress::progress::Progress;
use bootpress::tree::{Metadata, Tree, Xattrs};
use expect_test::{Expect, expect};
use serde_json::Value;

use crate::directory;
use crate::encapsulated::{derive, encapsulate};
use crate::ostree_repo::{Dice, archive, blob, init, ostree, random_layer, root_of, scratch};
use support::tiny_image::{Compression, Item, TinyImage, TinyLayer, tiny_image};
use support::tool::{is_root, run, tool};

const TARGET: &str = "docker://registry.example/os:1";

/// The program; `None` where it cannot be. It is made of 230 packages, so only a run that requires all tools builds it.
fn importer() -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("importer");
        let program = target.join("debug/importer");
        let required = std::env::var_os("REQUIRE_TOOLS").is_some();
        if required {
            let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/importer/Cargo.toml");
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--locked"]);
            run(cargo.arg("--manifest-path").arg(package).arg("--target-dir").arg(target));
        }
        if !program.is_file() || !is_root() {
            assert!(!required, "REQUIRE_TOOLS is set, and this is not root");
            eprintln!("skipped: needs root, and tests/importer built into target/importer");
            return None;
        }
        Some(program)
    };
    let program = BUILT.get_or_init(build).clone()?;
    (tool("skopeo").is_some() && tool("ostree").is_some() && tool("setfattr").is_some())
        .then_some(program)
}

/// Runs the importer; its last line, or what it says when it refuses.
fn ask(importer: &Path, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(importer)
        .args(arguments)
        // Below systemd it would give its rights away, and could not read the layout.
        .env_remove("INVOCATION_ID")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if !output.status.success() {
        return Err(text(output.stderr));
    }
    Ok(text(output.stdout).lines().next_back().unwrap().to_owned())
}

fn theirs(importer: &Path, layout: &Path, tag: &str, repository: &Path) -> Result<String, String> {
    init(repository);
    let image = format!("oci:{}:{tag}", layout.display());
    ask(importer, &["import", &image, repository.to_str().unwrap(), TARGET], "")
}

/// What we make of an image of a layout.
struct Ours {
    image: Image,
    repository: Repository,
    committed: Committed,
    contents: ContentStore,
}

impl Ours {
    fn of(layout: &Path, tag: &str) -> Self {
        let index = fs::read(layout.join("index.json")).unwrap();
        let index = String::from_utf8(index).unwrap();
        let architecture =
            if index.contains("\"arm64\"") { Architecture::Aarch64 } else { Architecture::X86_64 };
        let reference = format!("oci:{}:{tag}", layout.display()).parse().unwrap();
        let progress = Progress::default();
        let source = oci::open(&reference, architecture, &progress).unwrap();
        let source = source.unjudged("tests vouch for what they make");
        let contents = ContentStore::create_in(layout).unwrap();
        let layers = source.unpack(&contents, &progress).unwrap();
        let union = unite(&source.image, layers, &contents).unwrap();
        let (repository, committed) =
            union.commit(&source.image, TARGET, None, &contents, &progress).unwrap();
        Self { image: source.image.clone(), repository, committed, contents }
    }

    fn sysroot(&self) -> Tree {
        let mut sysroot = Tree::new(Metadata::root(0o755));
        self.repository.place(&mut sysroot, &[], &self.contents).unwrap();
        sysroot
    }

    fn write(&self, to: &Path) {
        fs::create_dir(to).unwrap();
        directory::write(&self.sysroot(), "ostree/repo", &self.contents, to);
    }

    /// Which commit each reference names.
    fn references(&self) -> String {
        self.repository.refs().iter().map(|(name, commit)| format!("{commit} {name}\n")).collect()
    }
}

/// All that is below the roots of two commits, where it differs.
fn differences(theirs: (&Path, &str), ours: (&Path, &str)) -> Vec<String> {
    if root_of(theirs.0, theirs.1) == root_of(ours.0, ours.1) {
        return Vec::new();
    }
    let lines = |(repository, commit): (&Path, &str)| -> BTreeSet<String> {
        let list = run(ostree(repository).unwrap().args(["ls", "-RCX", commit]));
        list.lines().filter(|line| !line.starts_with('d')).map(str::to_owned).collect()
    };
    let (theirs, ours) = (lines(theirs), lines(ours));
    let missing = theirs.difference(&ours).map(|line| format!("- {line}"));
    let added = ours.difference(&theirs).map(|line| format!("+ {line}"));
    missing.chain(added).chain(["directories, maybe".to_owned()]).collect()
}

/// Imports an image both ways: the same references, and below each of them the same tree.
#[track_caller]
fn assert_same(importer: &Path, layout: &Path, tag: &str, what: &str) {
    let directory = scratch();
    let (their_repository, our_repository) =
        (directory.path().join("theirs"), directory.path().join("ours"));
    let merge = theirs(importer, layout, tag, &their_repository)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let ours = Ours::of(layout, tag);
    ours.write(&our_repository);
    let own = ours.committed.checksum.to_string();
    for record in &ours.image.layers {
        let reference = blob(&record.digest);
        let found = differences((&their_repository, &reference), (&our_repository, &reference));
        assert!(found.is_empty(), "{what}, layer {}: {found:#?}", record.digest);
    }
    let found = differences((&their_repository, &merge), (&our_repository, &own));
    assert!(found.is_empty(), "{what}: {found:#?}");

    let names = |repository: &Path| -> BTreeSet<String> {
        let names = run(ostree(repository).unwrap().arg("refs"));
        names.lines().filter(|name| *name != "ostree/1/1/0").map(str::to_owned).collect()
    };
    assert_eq!(names(&their_repository), names(&our_repository), "{what}");
    // The commits of the base and its chunks depend on no time.
    let last = ours.image.label("ostree.final-diffid").unwrap();
    let chunks = ours.image.layers.iter().position(|layer| layer.diff_id == last).unwrap();
    for record in &ours.image.layers[..=chunks] {
        let commit = |repository: &Path| {
            run(ostree(repository).unwrap().args(["rev-parse", &blob(&record.digest)]))
        };
        assert_eq!(commit(&their_repository), commit(&our_repository), "{what}");
    }
    run(ostree(&our_repository).unwrap().arg("fsck"));
}

/// A base: what every bootable image has, and something of everything for the layers above to change.
fn base(layer: TinyLayer) -> TinyLayer {
    layer
        .add(Item::directory("./"))
        .file("usr/lib/ostree/prepare-root.conf", "[composefs]\nenabled = yes\n")
        .file("usr/lib/modules/6.1/vmlinuz", "kernel")
        .file("usr/lib/modules/6.1/initramfs.img", "initramfs")
        .file("usr/lib/os-release", "ID=tiny\n")
        .add(Item::file("usr/bin/tool", "tool").mode(0o4755))
        .file("usr/share/doc/a", "a")
        .file("usr/share/doc/empty", "")
        .file("usr/share/gone/x/y", "y")
        .file("usr/share/opaque/old", "old")
        .file("usr/share/opaque/below/old", "old")
        .file("usr/share/type/directory/x", "x")
        .file("usr/share/type/file", "file")
        .symlink("usr/share/type/link", "file")
        .add(Item::directory("usr/share/kept").mode(0o700).owner(3, 4))
        .add(Item::file("usr/share/attributes", "a").xattr("user.a", "\0binary"))
        .symlink("bin", "usr/bin")
        .directory("boot")
        .directory("sysroot")
        .file("etc/conf", "conf")
        .symlink("etc/link", "conf")
        .file("var/lib/state", "state")
}

/// Layers in which everything happens.
fn derived(image: TinyImage) -> TinyImage {
    image
        .layer(|layer| {
            layer
                .add(Item::directory("./").mode(0o700).owner(1, 1))
                .directory("usr/share/kept")
                .file("usr/share/kept/new", "new")
                .whiteout("usr/share/gone")
                .opaque("usr/share/opaque")
                .add(Item::directory("usr/share/opaque").mode(0o711).owner(5, 6))
                .file("usr/share/opaque/new", "new")
                .file("usr/share/type/directory", "now a file")
                .symlink("usr/share/type/file", "link")
                .file("usr/share/type/link", "now a file")
                .file("run/dropped", "")
                .file("tmp/below/dropped", "")
                .file("dev/dropped", "")
                .file("proc/dropped", "")
                .file("sys/dropped", "")
                .add(Item::file("etc/new", "new").mode(0o640).owner(7, 8))
                .add(Item::file("opt/missing/parents", "x").owner(9, 10))
                .hardlink("usr/share/hard", "etc/new")
                .hardlink("./etc/hard", "/etc/new")
                .file("var/new", "new")
                .symlink("usr/share/spelled", "a//b/./c/")
                .symlink("usr/share/root", "/")
                .add(Item::symlink("usr/share/record", "x").record("linkpath", "ü//x"))
        })
        .layer(|layer| {
            layer
                .file("usr/share/gone/again", "again")
                .whiteout("usr/share/doc/a")
                .file("usr/share/doc/a", "the same layer")
                .file("usr/share/doc/-x", "sorts before its whiteout")
                .whiteout("usr/share/doc/-x")
                .whiteout("usr/nowhere/x")
                .file("usr/twice", "1")
                .file("usr/twice", "2")
                .file("sysroot/ostree/repo/objects/ab/cd.file", "changed by a container")
                .hardlink("usr/bin/tool", "sysroot/ostree/repo/objects/ab/cd.file")
        })
        .layer(|layer| {
            layer
                .whiteout("usr/share/kept")
                .add(Item::directory("usr/share/kept").mode(0o1777))
                .file("usr/share/kept/newest", "newest")
                .add(Item::file("usr/bin/su", "su").mode(0o6755).xattr("user.b", "b"))
                .add(Item::directory("usr/share/ünïcode").xattr("user.c", "c"))
                .file(format!("usr/share/{}", "n".repeat(255)), "long")
                .whiteout("etc/conf")
        })
}

fn plain() -> TinyImage {
    let image = tiny_image().compression(Compression::None).label("containers.bootc", "1");
    image.tag("plain").layer(base)
}

/// The image of a commit: ours of the plain base, as an exporter would carry it.
fn encapsulated(scratch: &Path) -> TinyImage {
    plain().write_oci_layout(scratch);
    let ours = Ours::of(scratch, "plain");
    encapsulate(&ours.sysroot(), &ours.contents, &ours.committed.checksum.to_string())
}

#[test]
fn the_importer_makes_the_same_of_every_union_case() {
    let Some(importer) = importer() else { return };
    let directory = scratch();
    let layout = directory.path().join("layout");
    let base = encapsulated(&directory.path().join("scratch"));
    base.write_oci_layout(&layout);
    derived(base.clone()).tag("derived").write_oci_layout(&layout);
    assert_same(&importer, &layout, "base", "a base");
    assert_same(&importer, &layout, "derived", "three layers above it");

    // Without a commit in it, the same image has the same tree: what the importer of bootc 1.16 takes, and this one does not.
    derived(plain()).tag("plain").write_oci_layout(&layout);
    let refused = theirs(&importer, &layout, "plain", &directory.path().join("refused"));
    assert!(refused.unwrap_err().contains("not an ostree encapsulated container"));
    let write = |tag: &str| {
        let ours = Ours::of(&layout, tag);
        let to = directory.path().join(tag);
        ours.write(&to);
        root_of(&to, &ours.committed.checksum.to_string())
    };
    assert_eq!(write("plain"), write("derived"));
}

/// The importer's reader of archives takes a newline in an attribute for the end of it, and refuses the layer. We do not.
fn without_newlines(entry: &mut Entry) {
    let mut xattrs = Xattrs::NONE;
    for (name, value) in entry.metadata.xattrs.iter() {
        let value: Vec<u8> =
            value.iter().map(|byte| if *byte == b'\n' { b'x' } else { *byte }).collect();
        xattrs.set(name, &value);
    }
    entry.metadata.xattrs = xattrs;
}

#[test]
fn the_importer_makes_the_same_of_random_layers() {
    let Some(importer) = importer() else { return };
    let directory = scratch();
    let base = encapsulated(&directory.path().join("scratch"));
    for seed in 11..=12 {
        let layout = directory.path().join(seed.to_string());
        let store = ContentStore::create_in(directory.path()).unwrap();
        let mut dice = Dice(seed);
        let layers = (0..3).map(|number| random_layer(&mut dice, &store, number));
        let image = layers.fold(base.clone(), |image, mut layer| {
            layer.entries.iter_mut().for_each(without_newlines);
            image.archive_layer(archive(&layer, &store))
        });
        image.tag("random").write_oci_layout(&layout);
        assert_same(&importer, &layout, "random", &format!("seed {seed}"));
    }
}

#[test]
fn images_of_the_real_exporter_come_back() {
    let Some(importer) = importer() else { return };
    let directory = scratch();
    let (layout, tree) = (directory.path().join("layout"), directory.path().join("tree"));
    plain().write_oci_layout(&layout);
    let ours = Ours::of(&layout, "plain");
    fs::create_dir(&tree).unwrap();
    ours.write(&tree.join("repo"));
    let source = tree.join("repo");
    let commit = ours.committed.checksum.to_string();
    let listed = run(ostree(&source).unwrap().args(["ls", "-RC", &commit]));
    let components: String = listed
        .lines()
        .filter(|line| line.starts_with(['-', 'l']))
        .map(|line| {
            let checksum = line.split_whitespace().nth(4).unwrap();
            let component = if line.contains("/modules/") { "kernel" } else { "rest" };
            format!("{checksum} {component}\n")
        })
        .collect();
    let to = directory.path().join("exported");
    let (repository, name) = (source.to_str().unwrap(), format!("{}:base", to.display()));
    ask(&importer, &["export", repository, &commit, &name], &components).unwrap();
    let image = Ours::of(&to, "base").image;
    assert!(image.layers.len() >= 3, "{} layers", image.layers.len());
    assert_same(&importer, &to, "base", "exported");

    // Any image's layers will do as archives.
    let layers = derived(tiny_image().compression(Compression::None)).blobs();
    let archives: Vec<Vec<u8>> = {
        let bytes = &layers.blobs[layers.manifest["digest"].as_str().unwrap()];
        let manifest: Value = serde_json::from_slice(bytes).unwrap();
        let records = manifest["layers"].as_array().unwrap();
        records.iter().map(|l| layers.blobs[l["digest"].as_str().unwrap()].clone()).collect()
    };
    derive(&to, "base", &archives, "derived");
    assert_same(&importer, &to, "derived", "exported, and three layers above it");
}

/// What machines upgrade from: the repository of an image as one of mode `archive`, file by file as it would be served.
#[test]
fn ostree_pulls_what_is_served() {
    let directory = scratch();
    let layout = directory.path().join("layout");
    derived(encapsulated(&directory.path().join("scratch")))
        .tag("derived")
        .write_oci_layout(&layout);
    let ours = Ours::of(&layout, "derived");
    let served = directory.path().join("served");
    let sysroot = ours.sysroot();
    let objects = sysroot.walk_from(sysroot.find("ostree/repo/objects").unwrap());
    let files = objects
        .map(|(name, _)| String::from_utf8(name).unwrap())
        .filter(|name| name.contains('.'))
        .map(|name| format!("objects/{}", name.replace(".file", ".filez")));
    let names = ours.repository.refs().keys().map(|name| format!("refs/heads/{name}"));
    for path in files.chain(names).chain(["config".to_owned()]) {
        let mut file = ours.repository.archived(&path, &ours.contents).expect("it is there");
        let mut bytes = Vec::new();
        file.body.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, file.size, "{path}");
        let place = served.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, bytes).unwrap();
    }
    // What no HTTP client asks for, but ostree here.
    for empty in ["refs/remotes", "refs/mirrors", "state", "extensions", "tmp/cache"] {
        fs::create_dir_all(served.join(empty)).unwrap();
    }
    let Some(mut fsck) = ostree(&served) else { return };
    run(fsck.arg("fsck"));
    if !is_root() {
        eprintln!("skipped: only root can pull files of others");
        return;
    }
    let pulled = directory.path().join("pulled");
    init(&pulled);
    let url = format!("file://{}", served.display());
    run(ostree(&pulled).unwrap().args(["remote", "add", "--no-gpg-verify", "served", &url]));
    let commit = ours.committed.checksum.to_string();
    let layers = ours.image.layers.iter().map(|layer| blob(&layer.digest));
    run(ostree(&pulled).unwrap().args(["pull", "--mirror", "served", &commit]).args(layers));
    run(ostree(&pulled).unwrap().arg("fsck"));
    assert_eq!(root_of(&pulled, &commit), root_of(&served, &commit));
}

/// bootc 1.16 takes away the empty files over which container engines mount theirs; version 0.15.3 of its importer does not.
#[test]
fn empty_files_of_container_engines_are_left_to_the_older_importer() {
    let Some(importer) = importer() else { return };
    let directory = scratch();
    let layout = directory.path().join("layout");
    let image = encapsulated(&directory.path().join("scratch")).layer(|layer| {
        layer.file("etc/resolv.conf", "").file("etc/hostname", "").file("etc/other", "")
    });
    image.tag("empty").write_oci_layout(&layout);
    let (their_repository, our_repository) =
        (directory.path().join("theirs"), directory.path().join("ours"));
    let merge = theirs(&importer, &layout, "empty", &their_repository).unwrap();
    let ours = Ours::of(&layout, "empty");
    ours.write(&our_repository);
    let own = ours.committed.checksum.to_string();
    let found = differences((&their_repository, &merge), (&our_repository, &own));
    let names: Vec<&str> =
        found.iter().filter_map(|line| line.rsplit_once('/')).map(|(_, n)| n).collect();
    assert_eq!(names, ["hostname", "resolv.conf"]);
    assert!(found[..2].iter().all(|line| line.starts_with('-')));
}

/// Checksums of everything in images that never change. The importer's tests above compare these very images.
#[test]
fn the_checksums_of_small_images_stay() {
    let directory = scratch();
    let layout = directory.path().join("layout");
    let base = encapsulated(&directory.path().join("scratch"));
    base.write_oci_layout(&layout);
    derived(base).tag("derived").write_oci_layout(&layout);
    derived(plain()).tag("plain").write_oci_layout(&layout);
    let check = |tag: &str, expected: Expect| {
        expected.assert_eq(&Ours::of(&layout, tag).references());
    };
    check(
        "base",
        expect![[r#"
        bf339f51807f6a28609dc5eb29f067224c113c377b993eacb7b5cc2d9c440292 ostree/1/1/0
        5f59ac75534e976a6c1d81d2a357fbc0c4ff2f21bb145b0cb1fe4819ab084d08 ostree/container/blob/sha256_3A_1c852b09c41c1adcc819e3b5c885fb0ad2da77794768d755c779e586a4b70c16
        55c0285adba736d738479a92750e5e354f2ccb62f12386d0c130a790e1de4daa ostree/container/blob/sha256_3A_623ff59ffbeddc31e928016ff91b167d8532edea46810eaba9b8cf6aa950f776
        8b93dbbedc7dc836023016f0baa3dd14620c9c6c18b0a66687cb2a3539deef87 ostree/container/blob/sha256_3A_c3d7a804e27759aeb0eb4d8502c7ead081ae9bdc65bb50587a578c4dd084553a
        bf339f51807f6a28609dc5eb29f067224c113c377b993eacb7b5cc2d9c440292 ostree/container/image/docker_3A__2F__2F_registry_2E_example/os_3A_1
    "#]],
    );
    check(
        "derived",
        expect![[r#"
        cb139cd1665dde12f3b306fe91345bf75fa9c8594ea48cc25bf5fdb586cfe242 ostree/1/1/0
        08571ad9093e8868a751e40921f693570bfe9238fb1d2cac0a60ebd640a5c2a8 ostree/container/blob/sha256_3A_0114248027d38477e14858c91bcd27bccb75cb59ad737f07f55e47fb897077d1
        5f59ac75534e976a6c1d81d2a357fbc0c4ff2f21bb145b0cb1fe4819ab084d08 ostree/container/blob/sha256_3A_1c852b09c41c1adcc819e3b5c885fb0ad2da77794768d755c779e586a4b70c16
        85d0c28386add9e33f2fb678a2ae5e426cd010a9d91dcba145da38f6f0f48083 ostree/container/blob/sha256_3A_1cef6405a4cf7646900c44398ba5b7d0914d31d96af77c67bcf93e7b7c3f1043
        55c0285adba736d738479a92750e5e354f2ccb62f12386d0c130a790e1de4daa ostree/container/blob/sha256_3A_623ff59ffbeddc31e928016ff91b167d8532edea46810eaba9b8cf6aa950f776
        7a6ad82c0facc0c959f5a6745b7caead8b0221a4729039bd358e066bce3fc68f ostree/container/blob/sha256_3A_a178223abb63a1a9faab266e6df548a57a54a468dd343c45f48b0f37485d4014
        8b93dbbedc7dc836023016f0baa3dd14620c9c6c18b0a66687cb2a3539deef87 ostree/container/blob/sha256_3A_c3d7a804e27759aeb0eb4d8502c7ead081ae9bdc65bb50587a578c4dd084553a
        cb139cd1665dde12f3b306fe91345bf75fa9c8594ea48cc25bf5fdb586cfe242 ostree/container/image/docker_3A__2F__2F_registry_2E_example/os_3A_1
    "#]],
    );
    check(
        "plain",
        expect![[r#"
        66947ea73849a8bb030c9c9687143d9d03451805c71144c906fe0fffd2d265b1 ostree/1/1/0
        08571ad9093e8868a751e40921f693570bfe9238fb1d2cac0a60ebd640a5c2a8 ostree/container/blob/sha256_3A_0114248027d38477e14858c91bcd27bccb75cb59ad737f07f55e47fb897077d1
        85d0c28386add9e33f2fb678a2ae5e426cd010a9d91dcba145da38f6f0f48083 ostree/container/blob/sha256_3A_1cef6405a4cf7646900c44398ba5b7d0914d31d96af77c67bcf93e7b7c3f1043
        91c88ffd2fda459692ea024d5942d72097d065512207507fc2d418f0c212a8f5 ostree/container/blob/sha256_3A_5278558b7f123299371456658fe6f5b6f848f6afc6d3bbd4d38c44d688e931ba
        7a6ad82c0facc0c959f5a6745b7caead8b0221a4729039bd358e066bce3fc68f ostree/container/blob/sha256_3A_a178223abb63a1a9faab266e6df548a57a54a468dd343c45f48b0f37485d4014
        66947ea73849a8bb030c9c9687143d9d03451805c71144c906fe0fffd2d265b1 ostree/container/image/docker_3A__2F__2F_registry_2E_example/os_3A_1
    "#]],
    );
}
