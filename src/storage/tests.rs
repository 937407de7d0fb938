//! A store of two images that share a layer.

use super::*;
use crate::architecture::Architecture;
use crate::image::LayerRecord;
use crate::layer::{Entry, EntryKind};
use serde_json::json;

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry { path: path.as_bytes().into(), metadata: Metadata::root(0o755), nanoseconds: 0, kind }
}

fn layer(number: u8, entries: Vec<Entry>) -> Layer {
    let digest = |first: u8| format!("sha256:{}", format!("{first:02x}").repeat(32));
    Layer { digest: digest(number), diff_id: digest(number + 0x10), size: 7, entries }
}

fn application(name: &str, layers: Vec<Layer>) -> Application {
    let records = layers.iter().map(|layer| LayerRecord {
        digest: layer.digest.clone(),
        size: layer.size,
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
        diff_id: layer.diff_id.clone(),
    });
    let config = json!({ "created": "2025-01-02T03:04:05Z" });
    Application {
        name: name.to_owned(),
        image: Image {
            reference: "oci:x".to_owned(),
            name: None,
            architecture: Architecture::X86_64,
            manifest_digest: format!("sha256:{}", sha256(name.as_bytes())),
            manifest: json!({}),
            config,
            layers: records.collect(),
        },
        manifest: name.as_bytes().to_vec(),
        config: b"{}".to_vec(),
        config_digest: format!("sha256:{}", sha256(format!("config {name}").as_bytes())),
        layers,
    }
}

fn store() -> ContentStore {
    ContentStore::create_in(&std::env::temp_dir()).unwrap()
}

fn listing(tree: &Tree) -> Vec<String> {
    let top = tree.find(PLACE).unwrap();
    tree.walk_from(top).map(|(path, _)| String::from_utf8(path).unwrap()).collect()
}

#[test]
fn layers_are_stacked_and_shared() {
    let contents = store();
    let text = |text: &str| EntryKind::File(contents.insert_bytes(text.as_bytes()).unwrap());
    let base = || {
        layer(
            1,
            vec![
                entry("./", EntryKind::Directory),
                entry("etc/x", text("x")),
                entry("o/old", text("o")),
                entry("o/again", EntryKind::HardLink(b"./o/old"[..].into())),
            ],
        )
    };
    let above = layer(
        2,
        vec![
            entry("etc/.wh.x", EntryKind::File(Content::EMPTY)),
            entry("o/.wh..wh..opq", EntryKind::File(Content::EMPTY)),
            entry("o", EntryKind::Directory),
            entry("dev/null", EntryKind::CharacterDevice(1, 3)),
            entry(".wh..wh.plnk", EntryKind::Directory),
        ],
    );
    let applications =
        [application("x.io/a", vec![base(), above]), application("x.io/b:2", vec![base()])];
    let mut root = Tree::new(Metadata::root(0o755));
    place(&mut root, &applications, None, &contents).unwrap();

    let lowest = "11".repeat(32);
    let top = sha256(format!("{lowest}+{}", "12".repeat(32)).as_bytes());
    let at = |path: &str| {
        root.inode(root.find(&format!("{PLACE}/{path}")).unwrap_or_else(|| panic!("{path}")))
    };
    assert_eq!(at(&format!("overlay/{lowest}/diff")).metadata.mode, 0o755);
    assert_eq!(at(&format!("overlay/{top}/diff")).metadata.mode, 0o555);
    assert_eq!(at(&format!("overlay/{top}/diff/etc/x")).kind, Kind::CharacterDevice(0, 0));
    assert_eq!(at(&format!("overlay/{top}/diff/dev/null")).kind, Kind::CharacterDevice(1, 3));
    let opaque = &at(&format!("overlay/{top}/diff/o")).metadata.xattrs;
    assert_eq!(opaque.get(b"trusted.overlay.opaque"), Some(&b"y"[..]));
    let inode = |path: &str| root.find(&format!("{PLACE}/overlay/{lowest}/diff/{path}"));
    assert_eq!(inode("o/old"), inode("o/again"));
    assert!(!listing(&root).iter().any(|path| path.contains("plnk")));

    let json = |path: &str| -> serde_json::Value {
        let bytes = contents.bytes(root.file(&format!("{PLACE}/{path}")).unwrap()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let layers = json("overlay-layers/layers.json");
    assert_eq!(layers.as_array().unwrap().len(), 2);
    assert_eq!((&layers[1]["id"], &layers[1]["parent"]), (&json!(top), &json!(lowest)));
    let images = json("overlay-images/images.json");
    assert_eq!(images[0]["names"], json!(["x.io/a:latest"]));
    assert_eq!(images[1]["layer"], json!(lowest));
    assert_eq!(layers[0]["compression"], json!(2));
}

#[test]
fn what_a_layer_cannot_mean_is_told() {
    let contents = store();
    let tried = |entries: Vec<Entry>| {
        let mut root = Tree::new(Metadata::root(0o755));
        let applications = [application("x", vec![layer(1, entries)])];
        format!("{:#}", place(&mut root, &applications, None, &contents).unwrap_err())
    };
    let nothing = || EntryKind::File(Content::EMPTY);
    let link = |target: &str| EntryKind::HardLink(target.as_bytes().into());
    for (entries, word) in [
        (vec![entry("a", nothing()), entry("a/b", nothing())], "not a directory of this layer"),
        (vec![entry("a", link("b"))], "not in the same layer"),
        (vec![entry("d", EntryKind::Directory), entry("a", link("d"))], "is a directory"),
        (vec![entry(".wh.", nothing())], "hides nothing"),
    ] {
        let error = tried(entries);
        assert!(error.contains(word) && error.contains("the image x"), "{error}");
    }
}

#[test]
fn labels_are_of_the_place_that_policies_know() {
    let contents = store();
    let by_path = |path: &str, _: u32| Ok(Some(path.as_bytes().into()));
    let mut root = Tree::new(Metadata::root(0o755));
    let applications = [application("x", vec![layer(1, vec![entry("a", EntryKind::Directory)])])];
    place(&mut root, &applications, Some(&by_path), &contents).unwrap();
    for path in listing(&root) {
        let id = root.find(format!("{PLACE}/{path}").trim_end_matches('/')).unwrap();
        let label = root.inode(id).metadata.xattrs.get(b"security.selinux").unwrap();
        let expected = format!("/var/lib/containers/storage/{path}");
        assert_eq!(label, expected.trim_end_matches('/').as_bytes());
    }
    assert!(listing(&root).contains(&".bootc_labeled".to_owned()));
}

#[test]
fn documents_have_files_of_plain_names() {
    assert_eq!(records::file_name("manifest"), "manifest");
    assert_eq!(records::file_name("sha256:33"), "=c2hhMjU2OjMz");
    assert_eq!(short_name("a").len(), SHORT);
    assert_ne!(short_name("a"), short_name("b"));
    assert_eq!(named("localhost:5000/app"), "localhost:5000/app:latest");
    assert_eq!(named("x/app@sha256:1"), "x/app@sha256:1");
}
