//! Small OCI images made in code.
//!
//! ```ignore
//! let digest = tiny_image()
//!     .label("containers.bootc", "1")
//!     .layer(|l| l.directory("usr/bin").file("usr/bin/true", b"\x7fELF").symlink("bin", "usr/bin"))
//!     .compression(Compression::Zstd)
//!     .layer(|l| l.whiteout("usr/bin/true").add(Item::file("usr/bin/su", b"").mode(0o4755).xattr("user.x", b"\n")))
//!     .tag("quay.io/example/tiny:1")
//!     .write_oci_layout(directory.path());
//! ```
//!
//! The same calls give the same bytes. Panics on errors: for tests.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// The time of entries that say nothing else: 2025-01-01T00:00:00Z.
pub const MTIME: i64 = 1_735_689_600;

/// How a layer's archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub const ALL: [Self; 3] = [Self::None, Self::Gzip, Self::Zstd];

    /// Compresses.
    pub fn pack(self, archive: &[u8]) -> Vec<u8> {
        match self {
            Self::None => archive.to_vec(),
            Self::Gzip => {
                let level = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(archive).unwrap();
                encoder.finish().unwrap()
            }
            Self::Zstd => zstd::encode_all(archive, 1).unwrap(),
        }
    }

    fn media_type(self, docker: bool) -> String {
        let (prefix, separator) = if docker {
            ("application/vnd.docker.image.rootfs.diff.tar", ".")
        } else {
            ("application/vnd.oci.image.layer.v1.tar", "+")
        };
        match self {
            Self::None => prefix.to_owned(),
            Self::Gzip => format!("{prefix}{separator}gzip"),
            Self::Zstd => format!("{prefix}{separator}zstd"),
        }
    }
}

/// An image without layers, for amd64.
pub fn tiny_image() -> TinyImage {
    TinyImage {
        architecture: "amd64".to_owned(),
        created: "2025-01-02T03:04:05Z".to_owned(),
        compression: Compression::Gzip,
        labels: BTreeMap::new(),
        layers: Vec::new(),
        tag: None,
        docker: false,
    }
}

/// An image being described.
#[derive(Clone, Debug)]
pub struct TinyImage {
    architecture: String,
    created: String,
    compression: Compression,
    labels: BTreeMap<String, String>,
    layers: Vec<(Vec<u8>, Compression)>,
    tag: Option<String>,
    docker: bool,
}

/// The blobs of an image by digest, and the descriptor of its manifest.
#[derive(Clone, Debug)]
pub struct Blobs {
    pub manifest: Value,
    pub blobs: BTreeMap<String, Vec<u8>>,
}

impl TinyImage {
    /// Adds a layer on top.
    pub fn layer(mut self, fill: impl FnOnce(TinyLayer) -> TinyLayer) -> Self {
        let archive = fill(TinyLayer::default()).archive();
        self.layers.push((archive, self.compression));
        self
    }

    /// Adds a layer on top whose archive somebody else made.
    pub fn archive_layer(mut self, archive: impl Into<Vec<u8>>) -> Self {
        self.layers.push((archive.into(), self.compression));
        self
    }

    /// How the layers that are added from here on are compressed; gzip at first.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// A label of the config.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The architecture, in OCI's words: `amd64`, `arm64`.
    pub fn architecture(mut self, architecture: &str) -> Self {
        self.architecture = architecture.to_owned();
        self
    }

    /// When the config says it was created.
    pub fn created(mut self, created: &str) -> Self {
        self.created = created.to_owned();
        self
    }

    /// The tag in the index of a layout; none at first.
    pub fn tag(mut self, tag: &str) -> Self {
        self.tag = Some(tag.to_owned());
        self
    }

    /// Media types as docker has them.
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// All blobs of the image.
    pub fn blobs(&self) -> Blobs {
        let types = if self.docker {
            [
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
            ]
        } else {
            [
                "application/vnd.oci.image.manifest.v1+json",
                "application/vnd.oci.image.config.v1+json",
            ]
        };
        let mut blobs = BTreeMap::new();
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for (archive, compression) in &self.layers {
            diff_ids.push(digest(archive));
            let media_type = compression.media_type(self.docker);
            layers.push(add(&mut blobs, &media_type, compression.pack(archive)));
        }
        let history: Vec<Value> = (1..=self.layers.len())
            .map(|i| json!({ "created": self.created, "created_by": format!("layer {i}") }))
            .collect();
        let config = json!({
            "created": self.created,
            "architecture": self.architecture,
            "os": "linux",
            "config": { "Labels": self.labels },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": history,
        });
        let config = add(&mut blobs, types[1], serde_json::to_vec(&config).unwrap());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": types[0],
            "config": config,
            "layers": layers,
        });
        let mut manifest = add(&mut blobs, types[0], serde_json::to_vec(&manifest).unwrap());
        manifest["platform"] = json!({ "architecture": self.architecture, "os": "linux" });
        if let Some(tag) = &self.tag {
            manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        }
        Blobs { manifest, blobs }
    }

    /// Writes a layout, or adds to one. Returns the digest of the manifest.
    pub fn write_oci_layout(&self, directory: &Path) -> String {
        self.blobs().write_oci_layout(directory)
    }

    /// Writes an archive of a layout. Returns the digest of the manifest.
    pub fn write_oci_archive(&self, file: &Path) -> String {
        let Blobs { manifest, blobs } = self.blobs();
        let mut layer = TinyLayer::default().directory("blobs").directory("blobs/sha256");
        for (digest, bytes) in &blobs {
            layer = layer.file(format!("blobs/{}", digest.replace(':', "/")), bytes);
        }
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        let archive = layer
            .file("index.json", serde_json::to_vec(&index).unwrap())
            .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
            .archive();
        std::fs::write(file, archive).unwrap();
        manifest["digest"].as_str().unwrap().to_owned()
    }
}

/// One index for several images, as multi-architecture images have it; its tag is that of the first image.
pub fn tiny_index(images: &[TinyImage]) -> Blobs {
    let mut blobs = BTreeMap::new();
    let mut manifests = Vec::new();
    for image in images {
        let one = image.blobs();
        blobs.extend(one.blobs);
        let mut manifest = one.manifest;
        manifest.as_object_mut().unwrap().remove("annotations");
        manifests.push(manifest);
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
    let mut manifest = add(&mut blobs, media_type, serde_json::to_vec(&index).unwrap());
    if let Some(tag) = images.first().and_then(|image| image.tag.as_ref()) {
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    }
    Blobs { manifest, blobs }
}

impl Blobs {
    /// Writes a layout, or adds to one. Returns the digest of the manifest or index.
    pub fn write_oci_layout(&self, directory: &Path) -> String {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for (digest, bytes) in &self.blobs {
            std::fs::write(blobs.join(digest.strip_prefix("sha256:").unwrap()), bytes).unwrap();
        }
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let path = directory.join("index.json");
        let mut index = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
            Err(_) => json!({ "schemaVersion": 2, "manifests": [] }),
        };
        index["manifests"].as_array_mut().unwrap().push(self.manifest.clone());
        std::fs::write(&path, serde_json::to_vec(&index).unwrap()).unwrap();
        self.manifest["digest"].as_str().unwrap().to_owned()
    }
}

fn add(blobs: &mut BTreeMap<String, Vec<u8>>, media_type: &str, bytes: Vec<u8>) -> Value {
    let digest = digest(&bytes);
    let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
    blobs.insert(digest, bytes);
    descriptor
}

/// `sha256:…` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A layer being described: an archive that grows.
#[derive(Clone, Debug, Default)]
pub struct TinyLayer(Vec<u8>);

impl TinyLayer {
    /// A regular file, 0644.
    pub fn file(self, path: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Self {
        self.add(Item::file(path, bytes))
    }

    /// A directory, 0755.
    pub fn directory(self, path: impl AsRef<[u8]>) -> Self {
        self.add(Item::directory(path))
    }

    /// A symbolic link.
    pub fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.add(Item::symlink(path, target))
    }

    /// Another name for a file of this layer.
    pub fn hardlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.add(Item::new(EntryType::Link, path).target(target))
    }

    /// Hides a path of the layers below.
    pub fn whiteout(self, path: &str) -> Self {
        let marker = match path.rsplit_once('/') {
            Some((directory, name)) => format!("{directory}/.wh.{name}"),
            None => format!(".wh.{path}"),
        };
        self.file(marker, b"")
    }

    /// Hides everything that the layers below have in a directory.
    pub fn opaque(self, directory: &str) -> Self {
        self.file(format!("{directory}/.wh..wh..opq"), b"")
    }

    /// Anything.
    #[expect(
        clippy::should_implement_trait,
        reason = "an image in code reads as a list of calls, not as a sum"
    )]
    pub fn add(mut self, item: Item) -> Self {
        item.append(&mut self.0);
        self
    }

    /// Bytes as they are, for archives that no tool would write.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The archive, end blocks included.
    pub fn archive(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// The archive without end blocks.
    pub fn unfinished(self) -> Vec<u8> {
        self.0
    }
}

/// One entry of a layer.
#[derive(Clone, Debug)]
pub struct Item {
    header: Header,
    path: Vec<u8>,
    target: Vec<u8>,
    records: Vec<(String, Vec<u8>)>,
    content: Vec<u8>,
}

impl Item {
    /// An entry of any type, 0644, root's, without content.
    pub fn new(kind: EntryType, path: impl AsRef<[u8]>) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(MTIME as u64);
        let path = path.as_ref().to_vec();
        Self { header, path, target: Vec::new(), records: Vec::new(), content: Vec::new() }
    }

    /// A regular file.
    pub fn file(path: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Self {
        let mut item = Self::new(EntryType::Regular, path);
        item.content = bytes.as_ref().to_vec();
        item
    }

    /// A directory, 0755.
    pub fn directory(path: impl AsRef<[u8]>) -> Self {
        Self::new(EntryType::Directory, path).mode(0o755)
    }

    /// A symbolic link, 0777.
    pub fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::new(EntryType::Symlink, path).mode(0o777).target(target)
    }

    /// Permission bits.
    pub fn mode(mut self, mode: u32) -> Self {
        self.header.set_mode(mode);
        self
    }

    /// Owner and group.
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.header.set_uid(uid);
        self.header.set_gid(gid);
        self
    }

    /// Seconds since 1970.
    pub fn mtime(mut self, mtime: u64) -> Self {
        self.header.set_mtime(mtime);
        self
    }

    /// An extended attribute, as GNU tar and star write it.
    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.record(&format!("SCHILY.xattr.{name}"), value)
    }

    /// Any PAX record.
    pub fn record(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.records.push((key.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Target of a link.
    pub fn target(mut self, target: impl AsRef<[u8]>) -> Self {
        self.target = target.as_ref().to_vec();
        self
    }

    /// Major and minor number of a device.
    pub fn device(mut self, major: u32, minor: u32) -> Self {
        self.header.set_device_major(major).unwrap();
        self.header.set_device_minor(minor).unwrap();
        self
    }

    fn append(mut self, archive: &mut Vec<u8>) {
        let (path, target) = (self.path.clone(), self.target.clone());
        let old = self.header.as_old_mut();
        put(&mut old.name, &path);
        put(&mut old.linkname, &target);
        if path.len() > 100 {
            self.records.insert(0, ("path".to_owned(), path));
        }
        if target.len() > 100 {
            self.records.insert(0, ("linkpath".to_owned(), target));
        }
        if !self.records.is_empty() {
            let records: Vec<u8> =
                self.records.iter().flat_map(|(key, value)| record(key, value)).collect();
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            put(&mut header.as_old_mut().name, b"PaxHeaders/x");
            append(archive, header, &records);
        }
        append(archive, self.header, &self.content);
    }
}

/// A header, its size and checksum filled in, and data with its padding.
pub fn append(archive: &mut Vec<u8>, mut header: Header, data: &[u8]) {
    header.set_size(data.len() as u64);
    header.set_cksum();
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

/// A PAX record: its length counts all of it, the digits of the length too.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..).find(|length| length.to_string().len() + rest == *length).unwrap();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn put(field: &mut [u8], bytes: &[u8]) {
    let count = field.len().min(bytes.len());
    field[..count].copy_from_slice(&bytes[..count]);
}
