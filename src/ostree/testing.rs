//! Layers and images in a few words, and trees as lines: for the tests of this module.

use serde_json::json;

use super::object;
use crate::architecture::Architecture;
use crate::content::{Content, ContentStore};
use crate::image::{Image, LayerRecord};
use crate::layer::{Entry, EntryKind, Layer};
use crate::tree::{Kind, Metadata, Tree};

pub(super) fn store() -> ContentStore {
    ContentStore::create_in(&std::env::temp_dir()).unwrap()
}

/// Builds a layer entry by entry; owner, group and attributes are those of the last `owner` and `xattr`.
pub(super) struct Build<'a> {
    store: &'a ContentStore,
    entries: Vec<Entry>,
    next: Metadata,
}

impl<'a> Build<'a> {
    pub(super) fn new(store: &'a ContentStore) -> Self {
        let next = Metadata { mtime: 1, ..Metadata::root(0) };
        Self { store, entries: Vec::new(), next }
    }

    /// What follows belongs to this user and group.
    pub(super) fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.next.uid, self.next.gid) = (uid, gid);
        self
    }

    /// The next entry has this attribute.
    pub(super) fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.next.xattrs.set(name.as_bytes(), value);
        self
    }

    pub(super) fn dir(self, path: &str, mode: u16) -> Self {
        self.entry(path, mode, EntryKind::Directory)
    }

    pub(super) fn file(self, path: &str, mode: u16, text: &str) -> Self {
        let content = match text {
            "" => Content::EMPTY,
            text => self.store.insert_bytes(text.as_bytes()).unwrap(),
        };
        self.entry(path, mode, EntryKind::File(content))
    }

    /// An empty file, 0644.
    pub(super) fn touch(self, path: &str) -> Self {
        self.file(path, 0o644, "")
    }

    pub(super) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, 0o777, EntryKind::Symlink(target.as_bytes().into()))
    }

    pub(super) fn link(self, path: &str, target: &str) -> Self {
        self.entry(path, 0o644, EntryKind::HardLink(target.as_bytes().into()))
    }

    pub(super) fn entry(self, path: &str, mode: u16, kind: EntryKind) -> Self {
        self.raw(path.as_bytes(), mode, kind)
    }

    pub(super) fn raw(mut self, path: &[u8], mode: u16, kind: EntryKind) -> Self {
        let metadata = Metadata { mode, ..self.next.clone() };
        self.next.xattrs = crate::tree::Xattrs::NONE;
        self.entries.push(Entry { path: path.into(), metadata, nanoseconds: 0, kind });
        self
    }

    /// The layer; its digests are made of `name`.
    pub(super) fn layer(self, name: &str) -> Layer {
        Layer {
            digest: format!("sha256:{}", object::checksum(name.as_bytes())),
            diff_id: format!("sha256:diff-{name}"),
            size: 1,
            entries: self.entries,
        }
    }
}

/// An image of these layers, made 2026-11-20T10:11:12Z, with labels.
pub(super) fn image(layers: &[Layer], labels: &[(&str, &str)]) -> Image {
    let labels: serde_json::Map<_, _> =
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    Image {
        reference: "oci:x".into(),
        name: None,
        architecture: Architecture::X86_64,
        manifest_digest: "sha256:00".into(),
        manifest: json!({ "schemaVersion": 2 }),
        config: json!({ "created": "2026-11-20T10:11:12Z", "config": { "Labels": labels } }),
        layers: layers
            .iter()
            .map(|layer| LayerRecord {
                digest: layer.digest.clone(),
                size: layer.size,
                media_type: String::new(),
                diff_id: layer.diff_id.clone(),
            })
            .collect(),
    }
}

/// One line for each name but the root's: type, mode, owner, path, text or target, attributes.
pub(super) fn listing(tree: &Tree, store: &ContentStore) -> Vec<String> {
    tree.walk()
        .skip(1)
        .map(|(path, id)| {
            let inode = tree.inode(id);
            let Metadata { mode, uid, gid, xattrs, mtime, .. } = &inode.metadata;
            assert_eq!(*mtime, 0);
            let path = String::from_utf8(path).unwrap();
            let what = match &inode.kind {
                Kind::Directory(_) => "/".to_owned(),
                Kind::Symlink(target) => format!(" -> {}", String::from_utf8_lossy(target)),
                Kind::File(content) if content.size == 0 => String::new(),
                Kind::File(content) => {
                    format!(" {:?}", String::from_utf8(store.bytes(content).unwrap()).unwrap())
                }
                other => panic!("{other:?}"),
            };
            let xattrs = if xattrs.is_empty() { String::new() } else { format!(" {xattrs:?}") };
            format!("{mode:o} {uid}:{gid} {path}{what}{xattrs}")
        })
        .collect()
}
