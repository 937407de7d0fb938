//! Images that carry a commit, as exporters make them of a repository: a layer with the commit, layers ("chunks") with its files.
//!
//! ```text
//! layer 1    …/objects/xx/y.commit, then .dirtree and .dirmeta                       ┐ below sysroot/ostree/repo
//! layer 2    …/objects/xx/y.file-xattrs-link (the attributes), then …/xx/y.file      │ label ostree.commit
//! layer 3    the same, of the objects from 8… on                                      ┘ label ostree.final-diffid: this layer
//! ```
//!
//! `conformance::importer` holds the real importer against what this writes.

use std::fs;
use std::path::Path;

use bootpress::content::ContentStore;
use bootpress::tree::{Kind, Metadata, Tree};

use serde_json::{Value, json};
use support::tiny_image::{Compression, Item, TinyImage, TinyLayer, digest, tiny_image};

/// Where a physical root has its objects.
const OBJECTS: &str = "ostree/repo/objects";

/// The image of a commit of the repository in `sysroot`, in two chunks, with the tag `base`. Other commits that are there stay out.
pub(crate) fn encapsulate(sysroot: &Tree, contents: &ContentStore, commit: &str) -> TinyImage {
    let path = |name: &str| format!("sysroot/{OBJECTS}/{name}");
    let mut layers = [TinyLayer::default(), TinyLayer::default(), TinyLayer::default()];
    let mut first = None;
    for (name, id) in sysroot.walk_from(sysroot.find(OBJECTS).unwrap()) {
        let name = String::from_utf8(name).unwrap();
        let inode = sysroot.inode(id);
        let bytes = match &inode.kind {
            Kind::File(content) => contents.bytes(content).unwrap(),
            _ => Vec::new(),
        };
        let Some((checksum, extension)) = name.rsplit_once('.') else { continue };
        match extension {
            "file" => {
                let Metadata { mode, uid, gid, ref xattrs, .. } = inode.metadata;
                let item = match &inode.kind {
                    Kind::Symlink(target) => Item::symlink(path(&name), target),
                    _ => Item::file(path(&name), bytes).mode(mode.into()),
                };
                let list = list(&xattrs.iter().collect::<Vec<_>>());
                let chunk = &mut layers[if name.as_str() < "8" { 1 } else { 2 }];
                *chunk = std::mem::take(chunk)
                    .file(path(&format!("{name}-xattrs-link")), list)
                    .add(item.owner(uid.into(), gid.into()));
            }
            "commit" if checksum.replace('/', "") == commit => first = Some((name, bytes)),
            "commit" => {}
            _ => layers[0] = std::mem::take(&mut layers[0]).file(path(&name), bytes),
        }
    }
    let (name, bytes) = first.unwrap();
    let [metadata, one, two] = layers.map(TinyLayer::unfinished);
    let commit_first = TinyLayer::default().file(path(&name), bytes).raw(&metadata);
    let two = TinyLayer::default().raw(&two).archive();
    tiny_image()
        .compression(Compression::None)
        .label("containers.bootc", "1")
        .label("ostree.commit", commit)
        .label("ostree.final-diffid", &digest(&two))
        .tag("base")
        .archive_layer(commit_first.archive())
        .archive_layer(TinyLayer::default().raw(&one).archive())
        .archive_layer(two)
}

/// Adds layers, uncompressed archives, to an image of a layout, and names the result with another tag.
pub(crate) fn derive(layout: &Path, from: &str, archives: &[Vec<u8>], tag: &str) {
    let blobs = layout.join("blobs/sha256");
    let read = |digest: &Value| -> Value {
        let name = digest.as_str().unwrap().trim_start_matches("sha256:");
        serde_json::from_slice(&fs::read(blobs.join(name)).unwrap()).unwrap()
    };
    let write = |media_type: &Value, bytes: &[u8]| -> Value {
        let digest = digest(bytes);
        fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    let list = |value: &mut Value, item: Value| value.as_array_mut().unwrap().push(item);
    let path = layout.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let name = "org.opencontainers.image.ref.name";
    let entries = index["manifests"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["annotations"][name] == from).unwrap().clone();
    let mut manifest = read(&entry["digest"]);
    let mut config = read(&manifest["config"]["digest"]);
    for archive in archives {
        let layer = write(&"application/vnd.oci.image.layer.v1.tar".into(), archive);
        list(&mut config["rootfs"]["diff_ids"], layer["digest"].clone());
        list(&mut config["history"], json!({ "created": "2025-01-02T03:04:05Z" }));
        list(&mut manifest["layers"], layer);
    }
    let config = serde_json::to_vec(&config).unwrap();
    manifest["config"] = write(&manifest["config"]["mediaType"], &config);
    let mut derived = write(&entry["mediaType"], &serde_json::to_vec(&manifest).unwrap());
    derived["platform"] = entry["platform"].clone();
    derived["annotations"] = json!({ name: tag });
    list(&mut index["manifests"], derived);
    fs::write(path, serde_json::to_vec(&index).unwrap()).unwrap();
}

/// `a(ayay)` as GVariant has it.
fn list(xattrs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for (name, value) in xattrs {
        bytes.extend(framed([name, &b"\0"[..], value].concat(), &[name.len() + 1]));
        ends.push(bytes.len());
    }
    framed(bytes, &ends)
}

/// A container and the offsets in it, each in as few bytes as the whole allows.
fn framed(mut bytes: Vec<u8>, offsets: &[usize]) -> Vec<u8> {
    let fits = |width: &usize| (bytes.len() + offsets.len() * width) >> (8 * width) == 0;
    let width = [1, 2, 4].into_iter().find(fits).unwrap();
    for offset in offsets {
        bytes.extend(&offset.to_le_bytes()[..width]);
    }
    bytes
}
