//! Images by shape, size and a fixed seed: contents that compress to about 40 percent, as programs and texts do.

use std::fs;
use std::path::{Path, PathBuf};

use support::bootc_image;
use support::tiny_image::{Compression, Item, TinyImage, TinyLayer};

/// Shapes, with what they are.
pub(crate) const SHAPES: [(&str, &str); 8] = [
    ("gzip", "six layers, gzip, files of all sizes: the reference"),
    ("selinux", "the same with a policy that labels every file"),
    ("zstd", "the same with zstd"),
    ("small", "many small files"),
    ("large", "few large files"),
    ("layers", "60 layers"),
    ("one", "one layer"),
    ("noise", "contents that do not compress"),
];

/// An image on disk.
pub(crate) struct Shape {
    /// The layout.
    pub(crate) layout: PathBuf,
    /// The same with another top layer.
    pub(crate) changed: PathBuf,
}

impl Shape {
    /// Where the images of a shape are, made if need be. To be called in a process of its own: it takes memory.
    pub(crate) fn make(name: &str, megabytes: usize, place: &Path) -> Self {
        let shape = Self::at(place);
        if shape.layout.join("index.json").is_file() {
            return shape;
        }
        fs::create_dir_all(place).unwrap();
        let base = layers(name, megabytes);
        let top = |text: &str| {
            let bytes = Random(u64::from(text.as_bytes()[0])).bytes(megabytes * 10_000, false);
            base.clone().layer(|l| l.file("usr/share/top", bytes))
        };
        top("2").write_oci_layout(&shape.changed);
        top("1").write_oci_layout(&shape.layout);
        shape
    }

    /// Where they are, if they are.
    pub(crate) fn at(place: &Path) -> Self {
        Self { layout: place.join("image"), changed: place.join("changed") }
    }

    /// The blobs of the layers, the largest first.
    pub(crate) fn layers(&self) -> Vec<PathBuf> {
        let read = |path: PathBuf| -> serde_json::Value {
            serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
        };
        let blob = |value: &serde_json::Value| {
            let digest = value["digest"].as_str().unwrap();
            self.layout.join("blobs").join(digest.replace(':', "/"))
        };
        let manifest = read(blob(&read(self.layout.join("index.json"))["manifests"][0]));
        let mut layers: Vec<PathBuf> =
            manifest["layers"].as_array().unwrap().iter().map(blob).collect();
        layers.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
        layers
    }
}

fn layers(name: &str, megabytes: usize) -> TinyImage {
    let mut image = bootc_image::without_bootloader();
    if name == "zstd" {
        image = image.compression(Compression::Zstd);
    }
    if name == "selinux" {
        image = image.layer(policy);
    }
    let count = match name {
        "layers" => 60,
        "one" => 1,
        _ => 6,
    };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for layer in 0..count {
        image = image.layer(|mut files| {
            let mut left = megabytes * 1_000_000 / count;
            let mut number = 0;
            while left > 0 {
                let draw = random.next() as usize;
                // Most files are small, most bytes are in large ones.
                let size = match name {
                    "small" => 100 + draw % 8000,
                    "large" => 48 << 20,
                    _ => (256 << (draw % 14)) + draw / 64 % 1000,
                };
                let size = size.min(left);
                let path = format!("usr/share/{layer}/{}/{number}", number % 97);
                files = files.file(path, random.bytes(size, name == "noise"));
                number += 1;
                left -= size;
            }
            files
        });
    }
    image
}

/// A policy about as long as a distribution's, of which most does not match.
fn policy(layer: TinyLayer) -> TinyLayer {
    let mut contexts = "/.* system_u:object_r:default_t:s0\n".to_owned();
    for number in 0..5000 {
        contexts += &format!("/usr/lib/x{number}(/.*)? system_u:object_r:x{number}_t:s0\n");
    }
    for number in 0..97 {
        contexts +=
            &format!("/usr/share/[0-9]+/{number}(/.*)? system_u:object_r:share{number}_t:s0\n");
    }
    layer
        .file("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n")
        .file("etc/selinux/targeted/contexts/files/file_contexts", contexts)
}

/// Images that grow in one respect: name, number, and what the number counts.
pub(crate) const GROWTH: [(&str, [usize; 3], &str); 5] = [
    ("files", [10_000, 100_000, 1_000_000], "files of 100 bytes"),
    ("directory", [10_000, 100_000, 1_000_000], "names in one directory"),
    ("layers", [5, 50, 500], "layers of 100 files"),
    ("depth", [20, 200, 2000], "directories, one in the other"),
    ("sparse", [200, 2000, 20_000], "MB of a sparse file"),
];

/// Makes an image of one of [`GROWTH`].
pub(crate) fn grown(name: &str, number: usize, layout: &Path) {
    let mut image = bootc_image::without_bootloader();
    let file = |number: usize| format!("{number:0>100}");
    image = match name {
        "files" | "directory" => image.layer(|layer| {
            (0..number).fold(layer, |layer, i| match name {
                "files" => layer.file(format!("usr/share/{}/{i}", i / 1000), file(i)),
                _ => layer.file(format!("usr/share/one/{i}"), file(i)),
            })
        }),
        "layers" => (0..number).fold(image, |image, i| {
            image.layer(|layer| {
                (0..100)
                    .fold(layer, |layer, j| layer.file(format!("usr/share/{i}/{j}"), file(i * j)))
            })
        }),
        // A path has 4095 bytes at most.
        "depth" => image
            .layer(|layer| layer.file(format!("usr/{}f", "d/".repeat(number)), "at the bottom")),
        "sparse" => {
            image.layer(|layer| layer.add(hole("usr/share/hole", number as u64 * 1_000_000)))
        }
        other => panic!("no growth is called {other}"),
    };
    image.write_oci_layout(layout);
}

/// A file that is a hole with a block at its end (GNU tar's sparse format 1.0).
fn hole(path: &str, size: u64) -> Item {
    let mut map = format!("1\n{}\n512\n", size - 512).into_bytes();
    map.resize(512, 0);
    map.extend([7; 512]);
    Item::file(path, map)
        .record("GNU.sparse.major", "1")
        .record("GNU.sparse.minor", "0")
        .record("GNU.sparse.name", path)
        .record("GNU.sparse.realsize", size.to_string())
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Bytes from a vocabulary of 4096 words, or, as noise, of their own.
    fn bytes(&mut self, size: usize, noise: bool) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            let word = if noise {
                self.next()
            } else {
                (self.next() % 4096).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
            };
            bytes.extend(word.to_le_bytes());
        }
        bytes.truncate(size);
        bytes
    }
}
