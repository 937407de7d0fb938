//! Kept layers through what uses them: the second time comes from the cache, and is the same; damage is noticed.

use std::collections::BTreeSet;

use support::tiny_image::{Compression, Item, TinyImage, tiny_image};

use super::super::{Access, open_with};
use super::*;
use crate::architecture::Architecture;
use crate::layer::Layer;
use crate::limits::Limits;
use crate::progress::Progress;

/// Two layers with everything that an entry can be.
fn image() -> TinyImage {
    tiny_image()
        .layer(|l| {
            l.directory("./")
                .file("a", vec![7; 10_000])
                .file("empty", "")
                .symlink("link", "a")
                .hardlink("hard", "a")
                .add(
                    Item::file("b", vec![9; 5000])
                        .mode(0o4755)
                        .owner(7, 8)
                        .xattr("user.x", b"\0\n"),
                )
                .add(Item::file("old", "x").record("mtime", "1.5"))
        })
        .compression(Compression::Zstd)
        .layer(|l| {
            l.add(Item::new(tar::EntryType::Char, "null").device(1, 3))
                .add(Item::new(tar::EntryType::Block, "disk").device(8, 0))
                .add(Item::new(tar::EntryType::Fifo, "pipe"))
                .whiteout("a")
                .file("c", "c")
        })
}

struct Place {
    directory: tempfile::TempDir,
    access: Access,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        image().tag("x").write_oci_layout(&directory.path().join("image"));
        let unpacked = Some(directory.path().join("cache"));
        let access = Access { unpacked, ..Access::default() };
        Self { directory, access }
    }

    fn kept(&self) -> PathBuf {
        self.directory.path().join("cache/unpacked")
    }

    /// The layers with the bytes of all contents, and how many layers came from the cache.
    fn unpack(&self, access: &Access) -> Result<(Vec<Layer>, Vec<Vec<u8>>, usize)> {
        let contents = ContentStore::create_in(self.directory.path())?;
        let reference = format!("oci:{}", self.directory.path().join("image").display());
        let opened = open_with(
            access,
            &reference.parse().unwrap(),
            Architecture::X86_64,
            &Progress::default(),
        )?;
        let before = inodes(&self.kept());
        let source = opened.unjudged("tests vouch for what they make");
        let layers = source.unpack(&contents, &Progress::default())?;
        let recalled = inodes(&self.kept()).intersection(&before).count();
        let mut bytes = Vec::new();
        for entry in layers.iter().flat_map(|layer| &layer.entries) {
            if let EntryKind::File(content) = &entry.kind {
                bytes.push(contents.bytes(content)?);
            }
        }
        Ok((layers, bytes, recalled))
    }
}

/// The layers that are kept: a layer that is unpacked again is another file.
fn inodes(directory: &Path) -> BTreeSet<u64> {
    let Ok(layers) = layers(directory) else { return BTreeSet::new() };
    layers.iter().map(|layer| fs::metadata(&layer.path).unwrap().ino()).collect()
}

/// Entries without the places of contents, which depend on what is kept.
fn placeless(layers: &[Layer]) -> Vec<Entry> {
    let entries = layers.iter().flat_map(|layer| layer.entries.clone());
    let placeless = |mut entry: Entry| {
        if let EntryKind::File(content) = &mut entry.kind {
            content.id = Content::EMPTY.id;
        }
        entry
    };
    entries.map(placeless).collect()
}

#[test]
fn kept_layer_is_the_layer_that_was_unpacked() {
    let place = Place::new();
    let (fresh, fresh_bytes, none) = place.unpack(&Access::default()).unwrap();
    assert_eq!(none, 0);
    for recalled in [0, 2, 2] {
        let (layers, bytes, found) = place.unpack(&place.access).unwrap();
        assert_eq!(found, recalled);
        assert_eq!(placeless(&layers), placeless(&fresh));
        assert_eq!(bytes, fresh_bytes);
    }
    // Without the blobs nothing can be unpacked, and nothing has to be.
    for blob in fs::read_dir(place.directory.path().join("image/blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        if !fs::read(&path).unwrap().starts_with(b"{") {
            fs::remove_file(path).unwrap();
        }
    }
    assert_eq!(place.unpack(&place.access).unwrap().1, fresh_bytes);
    assert!(place.unpack(&Access::default()).is_err());
}

#[test]
fn damaged_kept_layer_is_unpacked_anew() {
    let place = Place::new();
    let (_, fresh, _) = place.unpack(&place.access).unwrap();
    let victim = || layers(&place.kept()).unwrap().pop().unwrap().path;
    let size = fs::metadata(victim()).unwrap().len();
    // In a content, in the index, in the trailer.
    for at in [0, size - 100, size - 1, size - TRAILER as u64] {
        let path = victim();
        let mut bytes = fs::read(&path).unwrap();
        bytes[at as usize] ^= 0x20;
        fs::write(&path, bytes).unwrap();
        let (_, bytes, recalled) = place.unpack(&place.access).unwrap();
        assert_eq!((bytes, recalled), (fresh.clone(), 1), "damaged at {at}");
        assert_eq!(place.unpack(&place.access).unwrap().2, 2);
    }
    for size in [0, 10, size / 2, size - 1] {
        fs::OpenOptions::new().write(true).open(victim()).unwrap().set_len(size).unwrap();
        assert_eq!(place.unpack(&place.access).unwrap().1, fresh, "cut to {size}");
        assert_eq!(place.unpack(&place.access).unwrap().2, 2);
    }
}

#[test]
fn kept_layer_takes_the_same_budget() {
    let place = Place::new();
    place.unpack(&place.access).unwrap();
    let usual = Limits::USUAL;
    for limits in [
        Limits { image_size: 20_000, ..usual },
        Limits { metadata: 1000, ..usual },
        Limits { files: 5, ..usual },
    ] {
        let access = |access: &Access| Access { budget: Budget::new(limits), ..access.clone() };
        for access in [access(&place.access), access(&Access::default())] {
            let error = place.unpack(&access).unwrap_err();
            assert!(error.is::<crate::error::Unsupported>(), "{error:#}");
        }
    }
}

#[test]
fn pruning_removes_layers_and_what_broken_builds_left() {
    let place = Place::new();
    place.unpack(&place.access).unwrap();
    let cache = Cache::open(&place.directory.path().join("cache")).unwrap();
    for left in [".tmpAbc", "x.sums"] {
        fs::write(place.kept().join(left), "12345").unwrap();
    }
    assert_eq!(cache.unpacked().unwrap().count, 2);
    let pruned = cache.prune(None, || {}).unwrap();
    assert_eq!((pruned.files, pruned.bytes), (2, 10));
    assert_eq!(pruned.left, cache.unpacked().unwrap().size);
    // Of equal age, the one with the larger name goes last.
    let largest = layers(&place.kept()).unwrap().iter().map(|layer| layer.size).max().unwrap();
    let pruned = cache.prune(Some(largest), || {}).unwrap();
    assert_eq!((pruned.files, cache.unpacked().unwrap().count), (1, 1));
    assert_eq!(cache.prune(Some(0), || {}).unwrap().left, 0);
    assert_eq!(fs::read_dir(place.kept()).unwrap().count(), 0);
    assert_eq!(place.unpack(&place.access).unwrap().2, 0);
}
