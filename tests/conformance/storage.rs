//! The store of application images: what we make of an image is what skopeo makes of it, and skopeo and podman find it there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bootpress::architecture::Architecture;
use bootpress::content::ContentStore;
use bootpress::oci;
use bootpress::progress::Progress;
use bootpress::storage::{Application, PLACE, place};
use bootpress::tree::{Metadata, Tree};
use serde_json::Value;
use support::tiny_image::{Compression, Item, TinyImage, tiny_image};
use support::tool::{is_root, run, tool};

use crate::extract::extract;
use crate::ostree_repo::scratch;

const NAME: &str = "registry.example/app:1";

/// Three layers in which everything happens that overlayfs has a word for.
fn image() -> TinyImage {
    tiny_image()
        .tag("app")
        .layer(|layer| {
            layer
                .directory("bin")
                .add(Item::file("bin/app", "app").mode(0o4755).owner(3, 4))
                .file("bin/first", "two names")
                .hardlink("bin/second", "bin/first")
                .directory("etc")
                .add(Item::directory("private").mode(0o700).owner(0, 70_000))
                .file("etc/removed", "x")
                .directory("gone")
                .file("gone/x", "x")
                .directory("opaque")
                .file("opaque/old", "old")
                .symlink("link", "bin/app")
                .add(Item::file("attributes", "a").xattr("user.note", "\0binary\n"))
                .add(Item::new(tar::EntryType::Fifo, "fifo"))
        })
        .compression(Compression::Zstd)
        .layer(|layer| {
            layer
                .whiteout("etc/removed")
                .whiteout("gone")
                .opaque("opaque")
                .file("opaque/new", "new")
                .file("missing/parents/of", "this")
        })
        .compression(Compression::None)
        .layer(|layer| layer.file("etc/removed", "again"))
}

/// Our store with the image of a layout, as a directory.
fn ours(layout: &Path, to: &Path) -> Option<()> {
    let contents = ContentStore::create_in(layout).unwrap();
    let reference = format!("oci:{}:app", layout.display()).parse().unwrap();
    let progress = Progress::default();
    let source = oci::open(&reference, Architecture::X86_64, &progress).unwrap();
    let source = source.unjudged("tests vouch for what they make");
    let layers = source.unpack(&contents, &progress).unwrap();
    let oci::Documents { manifest, config, config_digest } = source.documents().unwrap();
    let (name, image) = (NAME.to_owned(), source.image.clone());
    let application = Application { name, image, manifest, config, config_digest, layers };
    let mut root = Tree::new(Metadata::root(0o755));
    place(&mut root, &[application], None, &contents).unwrap();
    fs::create_dir(to).unwrap();
    extract(&root, &contents, to)
}

/// How container tools name an image of a store.
fn stored(store: &Path, scratch: &Path) -> String {
    let run = scratch.join("run");
    format!("containers-storage:[overlay@{}+{}]{NAME}", store.display(), run.display())
}

/// Everything in a layer's directory: type and mode, owner, device, content or target, opaque or not.
fn listing(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(here) = directories.pop() {
        for entry in fs::read_dir(&here).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = match metadata.file_type() {
                kind if kind.is_dir() => {
                    directories.push(path.clone());
                    String::new()
                }
                kind if kind.is_file() => {
                    format!("{} names, {:?}", metadata.nlink(), fs::read(&path).unwrap())
                }
                kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
                _ => format!("device {}", metadata.rdev()),
            };
            let attributes = run(tool("getfattr")
                .unwrap()
                .args(["-h", "-d", "-m", "-", "-e", "hex", "--absolute-names"])
                .arg(&path));
            let attributes: Vec<&str> =
                attributes.lines().filter(|line| line.contains('=')).collect();
            let owner = (metadata.uid(), metadata.gid());
            let shown = format!("{:o} {owner:?} {attributes:?} {content}", metadata.mode());
            let name = path.strip_prefix(directory).unwrap().as_os_str().as_bytes();
            found.insert(String::from_utf8(name.to_vec()).unwrap(), shown);
        }
    }
    found
}

fn json(store: &Path, file: &str) -> Value {
    serde_json::from_slice(&fs::read(store.join(file)).unwrap()).unwrap()
}

/// Layers and images as a store tells them, without what differs from one import to the next: times, how much the archive of a
/// layer had around its files, and places for signatures that there are none of.
fn records(store: &Path) -> (Value, Value) {
    let mut layers = json(store, "overlay-layers/layers.json");
    for layer in layers.as_array_mut().unwrap() {
        for key in ["created", "diff-size"] {
            layer.as_object_mut().unwrap().remove(key);
        }
    }
    let mut images = json(store, "overlay-images/images.json");
    for image in images.as_array_mut().unwrap() {
        let image = image.as_object_mut().unwrap();
        image.remove("metadata");
        image["big-data-names"]
            .as_array_mut()
            .unwrap()
            .retain(|name| !name.as_str().unwrap().starts_with("signature-"));
        for key in ["big-data-sizes", "big-data-digests"] {
            image[key].as_object_mut().unwrap().retain(|name, _| !name.starts_with("signature-"));
        }
    }
    (layers, images)
}

#[test]
fn a_store_is_what_skopeo_makes_of_the_image() {
    let (Some(mut copy), Some(mut inspect), Some(_)) =
        (tool("skopeo"), tool("skopeo"), tool("getfattr"))
    else {
        return;
    };
    if !is_root() {
        assert!(std::env::var_os("REQUIRE_TOOLS").is_none(), "this is not root");
        eprintln!("skipped: needs root");
        return;
    }
    let directory = scratch();
    let (layout, extracted) = (directory.path().join("layout"), directory.path().join("ours"));
    image().write_oci_layout(&layout);
    let Some(()) = ours(&layout, &extracted) else { return };
    let (ours, theirs) = (extracted.join(PLACE), directory.path().join("theirs"));
    let policy = "--insecure-policy";
    let from = format!("oci:{}:app", layout.display());
    run(copy.args([policy, "copy", &from, &stored(&theirs, directory.path())]));

    let (our_records, their_records) = (records(&ours), records(&theirs));
    assert_eq!(our_records, their_records);
    for layer in our_records.0.as_array().unwrap() {
        let diff = format!("overlay/{}/diff", layer["id"].as_str().unwrap());
        assert_eq!(listing(&ours.join(&diff)), listing(&theirs.join(&diff)), "{diff}");
    }
    let told = run(inspect.args(["inspect", &stored(&ours, directory.path())]));
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["Name"], "registry.example/app");

    // Stacked by the kernel as podman asks it to.
    let Some(mut podman) = tool("podman") else { return };
    let run_root = directory.path().join("podman");
    podman.arg("--root").arg(&ours).arg("--runroot").arg(&run_root);
    let mut again = std::process::Command::new(podman.get_program());
    again.args(podman.get_args());
    let listed = run(podman.args([
        "--storage-driver",
        "overlay",
        "images",
        "--format",
        "{{.Repository}}:{{.Tag}}",
    ]));
    assert!(listed.lines().any(|line| line == NAME), "{listed}");
    let mounted = run(again.args(["--storage-driver", "overlay", "image", "mount", NAME]));
    let mounted = Path::new(mounted.lines().last().unwrap().trim()).to_owned();
    let read = |path: &str| fs::read_to_string(mounted.join(path)).ok();
    let shown = ["bin/app", "etc/removed", "opaque/old", "opaque/new", "gone/x"].map(read);
    run(std::process::Command::new("umount").arg(&mounted));
    // The tools leave each store mounted on itself, or not; a directory that is one cannot be removed.
    for store in [&ours, &theirs] {
        let _ = std::process::Command::new("umount").arg(store.join("overlay")).output();
    }
    let expected = [Some("app"), Some("again"), None, Some("new"), None];
    assert_eq!(shown, expected.map(|text| text.map(str::to_owned)));
}
