//! Images opened and unpacked whole: every compression, hostile blobs, the choice among several.

use std::path::Path;

use serde_json::json;
use support::tiny_image::{
    self, Blobs as TinyBlobs, Compression, Item, TinyImage, TinyLayer, tiny_image, tiny_index,
};

use super::*;
use crate::error::Unsupported;
use crate::layer::EntryKind;
use crate::progress::Event;

const AMD64: Architecture = Architecture::X86_64;

fn open_layout(directory: &Path, tag: &str) -> Result<Source> {
    let reference: Reference = format!("oci:{}{tag}", directory.display()).parse()?;
    Ok(open(&reference, AMD64, &Progress::default())?.unjudged("tests vouch for what they make"))
}

fn store() -> ContentStore {
    ContentStore::create_in(&std::env::temp_dir()).unwrap()
}

fn unpack_blobs(blobs: &TinyBlobs) -> Result<Vec<Layer>> {
    let directory = tempfile::tempdir()?;
    blobs.write_oci_layout(directory.path());
    open_layout(directory.path(), "")?.unpack(&store(), &Progress::default())
}

fn unpack(image: &TinyImage) -> Result<Vec<Layer>> {
    unpack_blobs(&image.blobs())
}

/// An error of that type with those words; prints what it is otherwise.
#[track_caller]
fn refused<T, E: std::error::Error + Send + Sync + 'static>(
    result: Result<T>,
    words: &str,
) -> String {
    let error = result.err().expect("an error");
    let text = format!("{error:#}");
    assert!(error.is::<E>(), "another kind of error: {text}");
    assert!(text.contains(words), "{text}");
    text
}

#[track_caller]
fn corrupt<T>(result: Result<T>, words: &str) -> String {
    refused::<T, Corrupt>(result, words)
}

#[track_caller]
fn unsupported<T>(result: Result<T>, words: &str) -> String {
    refused::<T, Unsupported>(result, words)
}

fn one_file() -> TinyImage {
    tiny_image().layer(|l| l.file("a", b"abc"))
}

/// An image whose manifest is changed.
fn with_manifest(image: &TinyImage, change: impl FnOnce(&mut serde_json::Value)) -> TinyBlobs {
    let mut blobs = image.blobs();
    let old = blobs.manifest["digest"].as_str().unwrap().to_owned();
    let mut manifest = serde_json::from_slice(&blobs.blobs[&old]).unwrap();
    change(&mut manifest);
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let digest = tiny_image::digest(&bytes);
    blobs.manifest["digest"] = json!(digest);
    blobs.manifest["size"] = json!(bytes.len());
    blobs.blobs.insert(digest, bytes);
    blobs
}

#[test]
fn entries_come_as_the_archive_has_them_in_every_compression() {
    let mut image = tiny_image();
    for compression in Compression::ALL {
        image = image.compression(compression).layer(|l| {
            l.directory("./")
                .directory("usr/bin/")
                .add(
                    Item::file("/usr/bin/su", b"su")
                        .mode(0o4755)
                        .owner(1, 2)
                        .xattr("user.a", b"\n"),
                )
                .hardlink("usr/bin/us", "/usr/bin/su")
                .symlink("bin", "usr//bin/")
                .whiteout("etc/old")
        });
    }
    let directory = tempfile::tempdir().unwrap();
    let digest = image.label("containers.bootc", "1").write_oci_layout(directory.path());
    let source = open_layout(directory.path(), "").unwrap();
    assert_eq!(source.image.manifest_digest, digest);
    assert_eq!(source.image.label("containers.bootc"), Some("1"));
    let contents = store();
    let layers = source.unpack(&contents, &Progress::default()).unwrap();
    assert_eq!(layers.len(), 3);
    for (layer, record) in layers.iter().zip(&source.image.layers) {
        assert_eq!((&layer.digest, &layer.diff_id), (&record.digest, &record.diff_id));
        let paths: Vec<&[u8]> = layer.entries.iter().map(|entry| &*entry.path).collect();
        let expected: [&[u8]; 6] =
            [b"./", b"usr/bin/", b"/usr/bin/su", b"usr/bin/us", b"bin", b"etc/.wh.old"];
        assert_eq!(paths, expected);
        let EntryKind::File(content) = &layer.entries[2].kind else { panic!("a file") };
        assert_eq!(contents.bytes(content).unwrap(), b"su");
        let metadata = &layer.entries[2].metadata;
        assert_eq!((metadata.mode, metadata.uid, metadata.gid), (0o4755, 1, 2));
        assert_eq!(metadata.mtime, tiny_image::MTIME);
        assert_eq!(metadata.xattrs.get(b"user.a"), Some(&b"\n"[..]));
        assert_eq!(layer.entries[3].kind, EntryKind::HardLink((*b"/usr/bin/su").into()));
        assert_eq!(layer.entries[4].kind, EntryKind::Symlink((*b"usr//bin/").into()));
    }
}

#[test]
fn holes_stay_holes() {
    let sparse = Item::file("s", b"abcd").record("GNU.sparse.size", "100000");
    let layers = |map: &str| {
        let item = sparse.clone().record("GNU.sparse.map", map);
        let directory = tempfile::tempdir().unwrap();
        tiny_image().layer(|l| l.add(item)).write_oci_layout(directory.path());
        let contents = store();
        let source = open_layout(directory.path(), "").unwrap();
        let layers = source.unpack(&contents, &Progress::default()).unwrap();
        let EntryKind::File(content) = layers[0].entries[0].kind.clone() else { panic!("a file") };
        (contents.bytes(&content).unwrap(), content)
    };
    let (bytes, content) = layers("8192,2,99998,2");
    assert_eq!(content.data_ranges(), [8192..8194, 99_998..100_000]);
    assert_eq!((&bytes[8192..8194], &bytes[99_998..]), (&b"ab"[..], &b"cd"[..]));
    assert_eq!(bytes.iter().filter(|&&byte| byte != 0).count(), 4);
    let (bytes, _) = layers("0,4");
    assert_eq!((&bytes[..5], bytes.len()), (&b"abcd\0"[..], 100_000));
}

#[test]
fn empty_layers_trailing_garbage_and_many_layers() {
    assert_eq!(unpack(&tiny_image()).unwrap().len(), 0);
    let image = tiny_image()
        .compression(Compression::None)
        .archive_layer(b"")
        .archive_layer(TinyLayer::default().raw(&[0; 512]).raw(b"garbage").unfinished());
    let layers = unpack(&image).unwrap();
    assert!(layers.iter().all(|layer| layer.entries.is_empty()));
    let image = (0..40).fold(tiny_image(), |image, i| {
        image.layer(|l| l.file(format!("f{i}"), vec![i; usize::from(i) * 1000]))
    });
    let layers = unpack(&image).unwrap();
    assert!(
        layers.iter().enumerate().all(|(i, l)| *l.entries[0].path == *format!("f{i}").as_bytes())
    );
}

#[test]
fn progress_counts_the_bytes_of_blobs() {
    let directory = tempfile::tempdir().unwrap();
    one_file().layer(|l| l.file("b", [7; 9000])).write_oci_layout(directory.path());
    let source = open_layout(directory.path(), "").unwrap();
    let total: u64 = source.image.layers.iter().map(|layer| layer.size).sum();
    let (sender, events) = std::sync::mpsc::channel();
    let progress = Progress::to(move |event| sender.send(event).unwrap());
    source.unpack(&store(), &progress).unwrap();
    drop(progress);
    let mut counted = 0;
    for event in events {
        match event {
            Event::Started { stage, bytes } => {
                assert_eq!((stage, bytes), (Stage::Unpack, Some(total)))
            }
            Event::Advanced { bytes, .. } => counted += bytes,
            _ => {}
        }
    }
    assert_eq!(counted, total);
}

#[test]
fn damaged_blobs_are_blamed_by_digest() {
    let image = tiny_image().layer(|l| l.file("a", b"abc")).layer(|l| l.file("b", [7; 9000]));
    let blobs = image.blobs();
    for digest in blobs.blobs.keys() {
        for damage in ["flip", "cut", "grow", "gone"] {
            let mut damaged = blobs.clone();
            let bytes = damaged.blobs.get_mut(digest).unwrap();
            let middle = bytes.len() / 2;
            match damage {
                "flip" => bytes[middle] ^= 1,
                "cut" => bytes.truncate(middle),
                "grow" => bytes.push(0),
                _ => drop(damaged.blobs.remove(digest)),
            }
            let result = unpack_blobs(&damaged);
            if damage == "gone" {
                assert!(format!("{:#}", result.unwrap_err()).contains(&digest[7..]));
            } else {
                corrupt(result, &format!("{digest} is corrupt"));
            }
        }
    }
}

#[test]
fn another_diff_id_another_type_and_a_cut_archive_are_corrupt() {
    let other = one_file().blobs();
    let (mut config, old) = {
        let manifest = other.manifest["digest"].as_str().unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&other.blobs[manifest]).unwrap();
        let digest = manifest["config"]["digest"].as_str().unwrap().to_owned();
        (serde_json::from_slice::<serde_json::Value>(&other.blobs[&digest]).unwrap(), manifest)
    };
    config["rootfs"]["diff_ids"][0] = json!(format!("sha256:{}", "0".repeat(64)));
    let bytes = serde_json::to_vec(&config).unwrap();
    let digest = tiny_image::digest(&bytes);
    let mut blobs = with_manifest(&one_file(), |manifest| {
        *manifest = old;
        manifest["config"]["digest"] = json!(digest);
        manifest["config"]["size"] = json!(bytes.len());
    });
    blobs.blobs.insert(digest, bytes);
    corrupt(unpack_blobs(&blobs), "sha256:0000");

    let blobs = with_manifest(&one_file(), |manifest| {
        manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+zstd");
    });
    corrupt(unpack_blobs(&blobs), "its bytes are gzip, its media type says zstd");

    let cut = TinyLayer::default().file("a", [1; 600]).unfinished()[..600].to_vec();
    let text = corrupt(unpack(&one_file().archive_layer(cut)), "unexpected end of stream");
    assert!(text.starts_with("unpacking layer 2 of 2: reading a: sha256:"), "{text}");
}

#[test]
fn entries_that_no_tree_may_hold_are_refused_by_name() {
    let long = "n".repeat(256);
    let deep = "d/".repeat(2100);
    let layer = |item: Item| unpack(&tiny_image().layer(|l| l.add(item)));
    corrupt(layer(Item::file("a/../b", b"")), "reading a/../b");
    corrupt(layer(Item::file("..", b"")), "component '..'");
    corrupt(layer(Item::file("", b"")), "no name");
    corrupt(layer(Item::file("x", b"").record("path", b"a\0b")), r"reading a\x00b");
    corrupt(layer(Item::symlink("l", "")), "no target");
    corrupt(layer(Item::symlink("l", "x").record("linkpath", b"a\0b")), "NUL");
    corrupt(layer(Item::new(::tar::EntryType::Link, "l").target("../x")), "component '..'");
    unsupported(layer(Item::file(format!("a/{long}"), b"")), "over 255 bytes");
    unsupported(layer(Item::file(&deep, b"")), "over 4095 bytes");
    unsupported(layer(Item::symlink("l", "x".repeat(4096))), "over 4095 bytes");
    assert!(layer(Item::file(&long[1..], b"")).is_ok());
    assert!(layer(Item::symlink("l", "../../x")).is_ok());
    let huge = Item::file("s", b"").record("GNU.sparse.size", "9223372036854775807");
    unsupported(layer(huge.record("GNU.sparse.map", "0,0")), "larger than 128 GiB");
}

#[test]
fn what_is_no_image_is_refused() {
    let change =
        |change: fn(&mut serde_json::Value)| unpack_blobs(&with_manifest(&one_file(), change));
    unsupported(change(|m| m["layers"][0]["urls"] = json!(["https://example.org/x"])), "outside");
    unsupported(
        change(|m| {
            m["layers"][0]["mediaType"] =
                json!("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
        }),
        "reading layer 1 of 1",
    );
    unsupported(
        change(|m| {
            m["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.diff.tar.gzip")
        }),
        "not supported in application/vnd.oci.image.manifest.v1+json",
    );
    unsupported(
        change(|m| m["config"]["mediaType"] = json!("application/vnd.oci.empty.v1+json")),
        "is not a container image",
    );
    unsupported(change(|m| m["schemaVersion"] = json!(1)), "schema version");
    corrupt(change(|m| m["manifests"] = json!([])), "not what its media type says");
    corrupt(change(|m| m["mediaType"] = json!("x/y")), "not the one of its descriptor");
    corrupt(change(|m| m["layers"] = json!([])), "1 diff ids for 0 layers");
    corrupt(change(|m| m["layers"][0]["digest"] = json!("sha256:../../x")), "sha256:../../x");
    corrupt(change(|m| m["layers"][0]["size"] = json!(-1)), "is corrupt");
    unsupported(change(|m| m["config"]["size"] = json!(u64::MAX)), "larger than any real one");
    unsupported(change(|m| m["layers"][0]["size"] = json!(u64::MAX)), "larger than 128 GiB");
}

#[test]
fn docker_manifests_are_read_too() {
    let image = tiny_image().docker().layer(|l| l.file("a", b"abc"));
    assert_eq!(unpack(&image).unwrap()[0].entries.len(), 1);
}

#[test]
fn an_index_is_resolved_by_architecture() {
    let amd64 = tiny_image().layer(|l| l.file("amd64", b""));
    let arm64 = tiny_image().architecture("arm64").layer(|l| l.file("arm64", b""));
    let mut blobs = tiny_index(&[amd64.clone(), arm64.clone()]);
    let directory = tempfile::tempdir().unwrap();
    blobs.write_oci_layout(directory.path());
    let reference: Reference = format!("oci:{}", directory.path().display()).parse().unwrap();
    for (architecture, name) in [(AMD64, "amd64"), (Architecture::Aarch64, "arm64")] {
        let source = open(&reference, architecture, &Progress::default())
            .unwrap()
            .unjudged("tests vouch for what they make");
        let layers = source.unpack(&store(), &Progress::default()).unwrap();
        assert_eq!(*layers[0].entries[0].path, *name.as_bytes());
        assert_eq!(source.image.architecture, architecture);
    }
    // An index in an index, beside an attestation and other things that are no images.
    let inner = blobs.manifest.clone();
    let mut bill = amd64.blobs().manifest;
    bill["artifactType"] = json!("application/spdx+json");
    let mut chart = bill.clone();
    chart["mediaType"] = json!("application/vnd.example.chart");
    for thing in [&mut bill, &mut chart] {
        thing.as_object_mut().unwrap().remove("platform");
    }
    chart.as_object_mut().unwrap().remove("artifactType");
    let mut attestation = arm64.blobs().manifest;
    attestation["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    let outer = json!({ "schemaVersion": 2, "manifests": [attestation, bill, chart, inner] });
    let bytes = serde_json::to_vec(&outer).unwrap();
    blobs.manifest["digest"] = json!(tiny_image::digest(&bytes));
    blobs.manifest["size"] = json!(bytes.len());
    blobs.blobs.insert(tiny_image::digest(&bytes), bytes);
    assert_eq!(*unpack_blobs(&blobs).unwrap()[0].entries[0].path, *b"amd64");

    let text = unsupported(
        unpack_blobs(&tiny_index(&[arm64.clone(), arm64.clone()])),
        "no image for amd64",
    );
    assert!(text.contains("images for arm64"), "{text}");
    let text =
        unsupported(unpack(&arm64), "is an image for arm64, and one for amd64 was asked for");
    assert!(text.contains("oci:"), "{text}");
}

#[test]
fn layouts_are_asked_by_tag() {
    let directory = tempfile::tempdir().unwrap();
    let one = tiny_image().tag("one").layer(|l| l.file("1", b""));
    let two = tiny_image().tag("quay.io/x/two:2").layer(|l| l.file("2", b""));
    one.write_oci_layout(directory.path());
    assert_eq!(open_layout(directory.path(), "").unwrap().image.name, None);
    let digest = two.write_oci_layout(directory.path());
    let source = open_layout(directory.path(), ":quay.io/x/two:2").unwrap();
    assert_eq!(source.image.name.as_deref(), Some("quay.io/x/two:2"));
    assert_eq!(source.image.manifest_digest, digest);
    assert_eq!(
        source.image.reference,
        format!("oci:{}:quay.io/x/two:2", directory.path().display())
    );
    for tag in ["", ":three"] {
        let text = format!("{:#}", open_layout(directory.path(), tag).unwrap_err());
        assert!(text.contains("there is one, quay.io/x/two:2"), "{text}");
    }
    assert!(open_layout(&directory.path().join("blobs"), "").is_err());
}

#[test]
fn archives_are_read_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.ociarchive");
    let image = one_file().tag("t").layer(|l| l.file("b", [7; 9000]));
    let digest = image.write_oci_archive(&file);
    let reference: Reference = format!("oci-archive:{}", file.display()).parse().unwrap();
    let open_it = || -> Result<Source> {
        Ok(open(&reference, AMD64, &Progress::default())?
            .unjudged("tests vouch for what they make"))
    };
    let source = open_it().unwrap();
    assert_eq!(source.image.manifest_digest, digest);
    assert_eq!(source.unpack(&store(), &Progress::default()).unwrap().len(), 2);

    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    corrupt(open_it(), "unexpected end of stream");
    for compression in [Compression::Gzip, Compression::Zstd] {
        let packed = compression.pack(&whole);
        std::fs::write(&file, &packed).unwrap();
        let source = open_it().unwrap();
        assert_eq!(source.image.manifest_digest, digest);
        assert_eq!(source.unpack(&store(), &Progress::default()).unwrap().len(), 2);
        std::fs::write(&file, &packed[..packed.len() - 9]).unwrap();
        assert!(open_it().is_err());
    }
    std::fs::write(&file, b"\xfd7zXZ\0").unwrap();
    unsupported(open_it(), "compressed with xz");
    std::fs::write(&file, TinyLayer::default().file("manifest.json", b"[]").archive()).unwrap();
    unsupported(open_it(), "docker");
    std::fs::write(&file, b"").unwrap();
    assert!(format!("{:#}", open_it().unwrap_err()).contains("no index.json"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn mutated_archives_unpack_or_are_refused(
        changes in proptest::collection::vec((0..4096_usize, proptest::prelude::any::<u8>()), 1..6),
    ) {
        let mut archive = TinyLayer::default()
            .directory("d")
            .add(Item::file("d/f", b"content").xattr("user.x", b"y"))
            .symlink("l", "d")
            .hardlink("h", "d/f")
            .archive();
        for (at, byte) in changes {
            let length = archive.len();
            archive[at % length] = byte;
        }
        if let Err(error) = unpack(&tiny_image().archive_layer(archive)) {
            proptest::prop_assert!(error.is::<Corrupt>() || error.is::<Unsupported>(), "{:#}", error);
        }
    }
}
