//! Manifests, configurations and blobs that disagree, lie, or are too much.

use serde_json::{Value, json};

use crate::runner::Case;
use support::bootc_image::bootc_image;
use support::tiny_image::{Blobs, Compression, TinyLayer, digest, tiny_image};

const CORRUPT: i32 = 4;
const UNSUPPORTED: i32 = 3;
const FAILED: i32 = 1;

/// A build of an image whose manifest and configuration were changed; digests are right.
fn changed(name: &str, exit: i32, change: impl FnOnce(&mut Value, &mut Value)) -> Case {
    let mut blobs = bootc_image().blobs();
    let mut take = |descriptor: &Value| -> Value {
        let found = blobs.blobs.remove(descriptor["digest"].as_str().unwrap()).unwrap();
        serde_json::from_slice(&found).unwrap()
    };
    let mut manifest = take(&blobs.manifest.clone());
    let mut config = take(&manifest["config"].clone());
    let original = config.clone();
    change(&mut manifest, &mut config);
    let bytes = serde_json::to_vec(&config).unwrap();
    if config != original {
        manifest["config"]["digest"] = json!(digest(&bytes));
        manifest["config"]["size"] = json!(bytes.len());
    }
    blobs.blobs.insert(digest(&bytes), bytes);
    top(name, exit, blobs, serde_json::to_vec(&manifest).unwrap())
}

/// A build of an image whose manifest is these bytes.
fn top(name: &str, exit: i32, mut blobs: Blobs, manifest: Vec<u8>) -> Case {
    blobs.manifest["digest"] = json!(digest(&manifest));
    blobs.manifest["size"] = json!(manifest.len());
    blobs.blobs.insert(digest(&manifest), manifest);
    layout(name, exit, blobs)
}

fn layout(name: &str, exit: i32, blobs: Blobs) -> Case {
    Case::build(format!("image {name}"), exit, move |place| {
        blobs.write_oci_layout(&place.join("image"));
    })
}

/// A build of an image with a blob that was damaged: its last layer.
fn damaged(
    name: &str,
    exit: i32,
    compression: Compression,
    damage: impl FnOnce(&mut Vec<u8>),
) -> Case {
    let image = bootc_image().compression(compression);
    let image = image.layer(|l| l.file("usr/last", "the last layer's file"));
    let mut blobs = image.blobs();
    let manifest: Value =
        serde_json::from_slice(&blobs.blobs[blobs.manifest["digest"].as_str().unwrap()]).unwrap();
    let layer = manifest["layers"].as_array().unwrap().last().unwrap().clone();
    damage(blobs.blobs.get_mut(layer["digest"].as_str().unwrap()).unwrap());
    layout(name, exit, blobs)
}

/// The same where the digest in the manifest is that of the damaged blob.
fn forged(
    name: &str,
    exit: i32,
    compression: Compression,
    forge: impl FnOnce(&mut Vec<u8>),
) -> Case {
    let archive = TinyLayer::default().file("usr/last", "the last layer's file").archive();
    let image = bootc_image().compression(compression).archive_layer(archive);
    let mut blobs = image.blobs();
    let mut manifest: Value =
        serde_json::from_slice(&blobs.blobs[blobs.manifest["digest"].as_str().unwrap()]).unwrap();
    let last = manifest["layers"].as_array_mut().unwrap().last_mut().unwrap();
    let mut blob = blobs.blobs.remove(last["digest"].as_str().unwrap()).unwrap();
    forge(&mut blob);
    last["digest"] = json!(digest(&blob));
    last["size"] = json!(blob.len());
    blobs.blobs.insert(digest(&blob), blob);
    top(name, exit, blobs, serde_json::to_vec(&manifest).unwrap())
}

pub(crate) fn cases() -> Vec<Case> {
    [blobs(), manifests(), indexes()].into_iter().flatten().collect()
}

fn blobs() -> Vec<Case> {
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 3);
    let flip = |bytes: &mut Vec<u8>| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
    };
    let mut cases = Vec::new();
    for compression in Compression::ALL {
        cases.push(damaged(&format!("layer cut, {compression:?}"), CORRUPT, compression, cut));
        cases.push(damaged(&format!("layer altered, {compression:?}"), CORRUPT, compression, flip));
        cases.push(damaged(
            &format!("layer longer, {compression:?}"),
            CORRUPT,
            compression,
            |bytes| bytes.extend_from_slice(b"more"),
        ));
    }
    for compression in [Compression::Gzip, Compression::Zstd] {
        cases.push(forged(
            &format!("layer ends early, {compression:?}"),
            CORRUPT,
            compression,
            cut,
        ));
        cases.push(forged(
            &format!("layer is not what it says, {compression:?}"),
            CORRUPT,
            compression,
            |bytes| *bytes = b"no archive at all".to_vec(),
        ));
        cases.push(forged(
            &format!("layer has noise behind it, {compression:?}"),
            CORRUPT,
            compression,
            |bytes| bytes.extend_from_slice(&[0x5a; 100]),
        ));
        cases.push(forged(
            &format!("layer is of another diff id, {compression:?}"),
            CORRUPT,
            compression,
            move |bytes| {
                *bytes = compression.pack(&TinyLayer::default().file("usr/other", "").archive())
            },
        ));
        // 16 GiB of zeros would be 15 MB of gzip; a run of 1 GiB makes the point.
        cases.push(forged(
            &format!("layer is a bomb, {compression:?}"),
            CORRUPT,
            compression,
            move |bytes| *bytes = compression.pack(&vec![0; 200 << 20]),
        ));
    }
    cases
}

fn manifests() -> Vec<Case> {
    let nested = |open: &str, close: &str| [open.repeat(100_000), close.repeat(100_000)].concat();
    let small = || tiny_image().blobs();
    let mut cases = vec![
        top("manifest is not JSON", CORRUPT, small(), b"not JSON".to_vec()),
        top("manifest is empty", CORRUPT, small(), Vec::new()),
        top("manifest is a list", UNSUPPORTED, small(), b"[]".to_vec()),
        top("manifest is deep lists", CORRUPT, small(), nested("[", "]").into_bytes()),
        top("manifest is deep objects", CORRUPT, small(), nested("{\"a\":", "}").into_bytes()),
        top("manifest has 5 MiB", UNSUPPORTED, small(), vec![b' '; 5 << 20]),
        top("manifest has 4 MB of lists", CORRUPT, small(), {
            format!("{{\"schemaVersion\":2,\"x\":[{}0]}}", "[],".repeat(1_300_000)).into_bytes()
        })
        .within(20, 400),
        changed("without layers", CORRUPT, |manifest, _| {
            drop(manifest.as_object_mut().unwrap().remove("layers"))
        }),
        changed("with more layers than diff ids", CORRUPT, |manifest, _| {
            let layers = manifest["layers"].as_array_mut().unwrap();
            layers.push(layers[0].clone());
        }),
        changed("with fewer layers than diff ids", CORRUPT, |manifest, _| {
            manifest["layers"].as_array_mut().unwrap().pop();
        }),
        changed("with layers in another order", CORRUPT, |manifest, _| {
            manifest["layers"].as_array_mut().unwrap().reverse();
        }),
        changed("for another architecture", UNSUPPORTED, |_, config| {
            config["architecture"] = json!("s390x")
        }),
        changed("for another system", UNSUPPORTED, |_, config| config["os"] = json!("windows")),
        changed("without diff ids", CORRUPT, |_, config| config["rootfs"] = json!({})),
        changed("whose configuration is a list", CORRUPT, |_, config| *config = json!([])),
        changed("whose labels are numbers", UNSUPPORTED, |_, config| {
            config["config"]["Labels"] = json!({"a": 1})
        }),
        changed("whose labels are a list", UNSUPPORTED, |_, config| {
            config["config"]["Labels"] = json!([1])
        }),
        changed("of schema version 1", UNSUPPORTED, |manifest, _| {
            manifest["schemaVersion"] = json!(1)
        }),
        changed("that is an artifact", UNSUPPORTED, |manifest, _| {
            manifest["config"]["mediaType"] = json!("application/vnd.example.thing.v1+json")
        }),
    ];
    for (name, exit, key, value) in [
        ("digest is not a digest", CORRUPT, "digest", json!("sha256:abc")),
        ("digest leads out", CORRUPT, "digest", json!("sha256:../../../../etc/passwd")),
        (
            "digest is another algorithm's",
            CORRUPT,
            "digest",
            json!("md5:d41d8cd98f00b204e9800998ecf8427e"),
        ),
        ("digest is a number", CORRUPT, "digest", json!(7)),
        ("digest is nobody's", 1, "digest", json!(digest(b"nobody's"))),
        ("size is negative", CORRUPT, "size", json!(-1)),
        ("size is text", CORRUPT, "size", json!("many")),
        ("size is too small", CORRUPT, "size", json!(3)),
        ("size is huge", UNSUPPORTED, "size", json!(u64::MAX)),
        ("type is unknown", UNSUPPORTED, "mediaType", json!("application/vnd.example+lz4")),
        (
            "type speaks to terminals",
            UNSUPPORTED,
            "mediaType",
            json!("x\u{1b}]0;owned\u{7}\nerror: forged"),
        ),
        (
            "type is encrypted",
            UNSUPPORTED,
            "mediaType",
            json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
        ),
        (
            "type is foreign",
            UNSUPPORTED,
            "mediaType",
            json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        ),
    ] {
        cases.push(changed(&format!("whose layer's {name}"), exit, |manifest, _| {
            manifest["layers"][0][key] = value;
        }));
    }
    cases.push(changed("with 2000 layers", UNSUPPORTED, |manifest, config| {
        let layer = manifest["layers"][0].clone();
        manifest["layers"] = json!(vec![layer; 2000]);
        let diff_id = config["rootfs"]["diff_ids"][0].clone();
        config["rootfs"]["diff_ids"] = json!(vec![diff_id; 2000]);
    }));
    cases.push(changed("whose configuration's size is huge", UNSUPPORTED, |manifest, _| {
        manifest["config"]["size"] = json!(1_u64 << 40);
    }));
    cases
}

fn indexes() -> Vec<Case> {
    let index = |name: &str, exit: i32, text: &str| {
        let text = text.to_owned();
        Case::build(format!("layout's index {name}"), exit, move |place| {
            bootc_image().write_oci_layout(&place.join("image"));
            std::fs::write(place.join("image/index.json"), &text).unwrap();
        })
    };
    let mut nested = bootc_image().blobs();
    let kind = "application/vnd.oci.image.index.v1+json";
    for _ in 0..6 {
        let one = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [nested.manifest] });
        let bytes = serde_json::to_vec(&one).unwrap();
        nested.manifest =
            json!({ "mediaType": kind, "digest": digest(&bytes), "size": bytes.len() });
        nested.blobs.insert(digest(&bytes), bytes);
    }
    vec![
        index("is no JSON", CORRUPT, "nothing"),
        index("is empty", CORRUPT, ""),
        index("has no manifests", CORRUPT, "{}"),
        index("lists nothing", FAILED, r#"{"schemaVersion":2,"manifests":[]}"#),
        index("lists what is not a descriptor", CORRUPT, r#"{"schemaVersion":2,"manifests":[7]}"#),
        layout("in indexes in indexes", UNSUPPORTED, nested),
    ]
}
