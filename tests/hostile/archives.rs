//! Layers: archives that no tool writes, or that ask for more than there is.

use tar::{EntryType, Header};

use crate::runner::Case;
use support::bootc_image::bootc_image;
use support::tiny_image::{Compression, Item, TinyLayer, append, record};

const CORRUPT: i32 = 4;
const UNSUPPORTED: i32 = 3;

/// A layer on top of an image that would do.
fn layer(name: &str, exit: i32, fill: impl FnOnce(TinyLayer) -> TinyLayer) -> Case {
    Case::image(format!("layer {name}"), exit, bootc_image().layer(fill))
}

/// The same from bytes.
fn bytes(name: &str, exit: i32, archive: Vec<u8>) -> Case {
    Case::image(format!("layer {name}"), exit, bootc_image().archive_layer(archive))
}

/// An entry whose header is changed; its checksum is right.
fn header(kind: EntryType, change: impl FnOnce(&mut [u8; 512])) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_path("usr/x").unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    let mut block: [u8; 512] = *header.as_bytes();
    change(&mut block);
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.to_vec()
}

/// A header that extends the entry after it.
fn extension(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::new(kind));
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let mut archive = Vec::new();
    append(&mut archive, header, data);
    archive
}

fn file(path: &str) -> Vec<u8> {
    TinyLayer::default().file(path, "x").unfinished()
}

/// A file that is one hole: a few bytes of archive (GNU tar's sparse format 1.0).
pub(crate) fn hole(path: &str, size: u64) -> Item {
    let mut map = format!("1\n{size}\n0\n").into_bytes();
    map.resize(512, 0);
    Item::file(path, map)
        .record("GNU.sparse.major", "1")
        .record("GNU.sparse.minor", "0")
        .record("GNU.sparse.name", path)
        .record("GNU.sparse.realsize", size.to_string())
}

pub(crate) fn cases() -> Vec<Case> {
    [names(), headers(), records(), sparse(), amounts()].into_iter().flatten().collect()
}

fn names() -> Vec<Case> {
    let long = |count: usize| vec!["d".repeat(200); count].join("/");
    let mut cases = Vec::new();
    for (name, path) in [
        ("up", "../etc/passwd"),
        ("up in the middle", "usr/../../etc/passwd"),
        ("up at the end", "usr/.."),
        ("up behind a dot", "./.."),
        ("up from the root", "/../x"),
    ] {
        cases.push(layer(&format!("name {name}"), CORRUPT, |l| l.file(path, "x")));
        cases.push(layer(&format!("target {name}"), CORRUPT, |l| l.hardlink("usr/x", path)));
    }
    cases.push(layer("name empty", CORRUPT, |l| l.file("", "x")));
    cases.push(layer("name empty by a record", CORRUPT, |l| {
        l.add(Item::file("usr/x", "x").record("path", ""))
    }));
    cases.push(layer("name with NUL", CORRUPT, |l| {
        l.add(Item::file("usr/x", "x").record("path", "usr/a\0b"))
    }));
    cases.push(layer("name of 256 bytes", UNSUPPORTED, |l| {
        l.file(format!("usr/{}", "n".repeat(256)), "x")
    }));
    cases.push(layer("path of 5000 bytes", UNSUPPORTED, |l| l.file(long(25), "x")));
    cases.push(layer("symlink to nothing", CORRUPT, |l| l.symlink("usr/x", "")));
    cases.push(layer("symlink with NUL", CORRUPT, |l| {
        l.add(Item::symlink("usr/x", "y").record("linkpath", "a\0b"))
    }));
    cases.push(layer("symlink of 5000 bytes", UNSUPPORTED, |l| l.symlink("usr/x", long(25))));
    cases.push(layer("hard link to nothing there", UNSUPPORTED, |l| l.hardlink("usr/x", "usr/no")));
    cases.push(layer("hard link to itself", UNSUPPORTED, |l| l.hardlink("usr/x", "usr/x")));
    cases.push(layer("hard link to a directory", CORRUPT, |l| {
        l.directory("usr/d").hardlink("usr/x", "usr/d")
    }));
    cases.push(layer("hard link to nowhere", CORRUPT, |l| l.hardlink("usr/x", "")));
    cases.push(layer("file below a file", CORRUPT, |l| l.file("usr/f", "x").file("usr/f/g", "x")));
    cases.push(layer("name with escape sequences", UNSUPPORTED, |l| {
        l.hardlink("usr/\u{1b}]0;owned\u{7}\nerror: forged", "usr/\u{202e}no")
    }));
    cases
}

fn headers() -> Vec<Case> {
    let whole = file("usr/x");
    let mut wrong_sum = whole.clone();
    wrong_sum[0] ^= 1;
    let mut cases = vec![
        bytes("cut in a header", CORRUPT, whole[..300].to_vec()),
        bytes("cut in data", CORRUPT, whole[..513].to_vec()),
        bytes("cut in padding", CORRUPT, whole[..600].to_vec()),
        bytes("with a wrong checksum", CORRUPT, wrong_sum),
        bytes(
            "of noise",
            CORRUPT,
            (0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
        ),
        bytes(
            "with a header for all",
            UNSUPPORTED,
            [extension(b'g', &record("uid", b"1")), whole.clone()].concat(),
        ),
        bytes(
            "with two headers of a kind",
            CORRUPT,
            [extension(b'L', b"usr/a\0"), extension(b'L', b"usr/b\0"), whole.clone()].concat(),
        ),
        bytes(
            "with two headers of records",
            CORRUPT,
            [
                extension(b'x', &record("uid", b"1")),
                extension(b'x', &record("gid", b"1")),
                whole.clone(),
            ]
            .concat(),
        ),
        bytes(
            "with two long names",
            CORRUPT,
            [
                extension(b'L', b"usr/a\0"),
                extension(b'x', &record("path", b"usr/b")),
                whole.clone(),
            ]
            .concat(),
        ),
        bytes("that ends with an extension", CORRUPT, extension(b'L', b"usr/a\0")),
        bytes(
            "with an extension of 2 MiB",
            UNSUPPORTED,
            [extension(b'x', &record("comment", &vec![b'x'; 2 << 20])), whole.clone()].concat(),
        ),
        bytes(
            "with a directory that has data",
            CORRUPT,
            header(EntryType::Directory, |block| block[124..136].copy_from_slice(b"00000000777\0")),
        ),
    ];
    for (name, exit, field, value) in [
        ("size is not a number", CORRUPT, 124..136, &b"12x45678901\0"[..]),
        ("size is negative", CORRUPT, 124..136, &[0xff; 12][..]),
        ("size is 2^63", UNSUPPORTED, 124..136, &[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0][..]),
        ("size is 2^90", CORRUPT, 124..136, &[0x84, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]),
        ("mode is not a number", CORRUPT, 100..108, &b"rw-r--r-"[..]),
        ("uid is 2^40", CORRUPT, 108..116, &[0x80, 0, 1, 0, 0, 0, 0, 0][..]),
        ("mtime is not a number", CORRUPT, 136..148, &b"yesterday..."[..]),
    ] {
        let archive = header(EntryType::Regular, |block| block[field].copy_from_slice(value));
        cases.push(bytes(&format!("whose {name}"), exit, archive));
    }
    for kind in [b'Z', b'M', b'D', 0xff] {
        let archive = header(EntryType::new(kind), |_| ());
        cases.push(bytes(&format!("with an entry of type {kind:#x}"), UNSUPPORTED, archive));
    }
    cases
}

fn records() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, exit, key, value) in [
        ("size is not a number", CORRUPT, "size", &b"many"[..]),
        ("size is 2^70", CORRUPT, "size", b"1180591620717411303424"),
        ("uid is 2^40", CORRUPT, "uid", b"1099511627776"),
        ("mtime is not a time", CORRUPT, "mtime", b"1e9"),
        ("attribute has no name", CORRUPT, "SCHILY.xattr.", b"x"),
        ("attribute has no base64", CORRUPT, "LIBARCHIVE.xattr.user.x", b"***"),
        ("attribute has a broken name", CORRUPT, "LIBARCHIVE.xattr.user.%", b"eA=="),
        ("file is star's", CORRUPT, "SCHILY.realsize", b"4096"),
    ] {
        let item = Item::file("usr/x", "x").record(key, value);
        cases.push(layer(&format!("whose record's {name}"), exit, |l| l.add(item)));
    }
    let long = format!("user.{}", "n".repeat(300));
    cases.push(layer("with an attribute's name of 305 bytes", CORRUPT, |l| {
        l.add(Item::file("usr/x", "x").xattr(&long, "v"))
    }));
    cases.push(layer("with an attribute of two values", CORRUPT, |l| {
        let item = Item::file("usr/x", "x").xattr("user.a", "1");
        l.add(item.record("LIBARCHIVE.xattr.user.a", "Mg=="))
    }));
    cases.push(layer("with a record twice", CORRUPT, |l| {
        l.add(Item::file("usr/x", "x").record("uid", "1").record("uid", "2"))
    }));
    for (name, text) in [
        ("without a length", &b"path=usr/a\n"[..]),
        ("whose length is 0", b"0 path=usr/a\n"),
        ("whose length is too large", b"99 path=usr/a\n"),
        ("whose length is huge", b"99999999999999999999999 path=usr/a\n"),
        ("without an equals sign", b"12 pathusrx\n"),
        ("that does not end", b"15 path=usr/abc"),
    ] {
        let archive = [extension(b'x', text), file("usr/x")].concat();
        cases.push(bytes(&format!("with a record {name}"), CORRUPT, archive));
    }
    cases
}

fn sparse() -> Vec<Case> {
    let old = |name: &str, map: &str, size: &str, data: usize| {
        let item = Item::file("usr/x", vec![b'x'; data])
            .record("GNU.sparse.map", map)
            .record("GNU.sparse.size", size);
        layer(&format!("sparse {name}"), CORRUPT, |l| l.add(item))
    };
    let new = |name: &str, exit: i32, map: &str, size: &str| {
        let mut data = map.as_bytes().to_vec();
        data.resize(data.len().next_multiple_of(512), 0);
        let item = Item::file("usr/x", data)
            .record("GNU.sparse.major", "1")
            .record("GNU.sparse.minor", "0")
            .record("GNU.sparse.realsize", size);
        layer(&format!("sparse {name}"), exit, |l| l.add(item))
    };
    vec![
        old("runs overlap", "0,4,2,4", "100", 8),
        old("runs go back", "50,4,0,4", "100", 8),
        old("run ends behind the file", "98,4", "100", 4),
        old("runs have more than there is", "0,50", "100", 4),
        old("runs overflow", "18446744073709551615,4", "18446744073709551615", 4),
        old("map is odd", "0,4,8", "100", 4),
        old("map is not a list", "zero", "100", 4),
        new("map has no end", CORRUPT, "9\n0\n", "100"),
        new("map has too many runs", CORRUPT, "99999999\n", "100"),
        new("map is not a list of numbers", CORRUPT, "one\n", "100"),
        new("map has a number without end", CORRUPT, &"1".repeat(400), "100"),
        layer("sparse without a size", CORRUPT, |l| {
            l.add(Item::file("usr/x", "").record("GNU.sparse.map", "0,0"))
        }),
        layer("sparse of another version", UNSUPPORTED, |l| {
            let item = Item::file("usr/x", "").record("GNU.sparse.major", "7");
            l.add(item.record("GNU.sparse.realsize", "9"))
        }),
        layer("sparse directory", CORRUPT, |l| {
            l.add(Item::directory("usr/d").record("GNU.sparse.realsize", "9"))
        }),
    ]
}

/// Much out of little.
fn amounts() -> Vec<Case> {
    let zeros = |size: usize| Compression::Zstd.pack(&vec![0; size]);
    let behind = || {
        // What follows the end of an archive is compressed apart, so that the case itself needs no memory.
        let mut archive = TinyLayer::default().file("usr/x", "x").archive();
        archive.resize(archive.len() + (66 << 20), 0);
        archive
    };
    let long_names = |layers: usize| {
        let mut image = bootc_image();
        for number in 0..layers {
            let deep = vec!["n".repeat(250); 15].join("/");
            image = image.layer(|mut l| {
                for file in 0..100 {
                    l = l.file(format!("usr/{deep}/{number}-{file}"), "");
                }
                l
            });
        }
        image
    };
    let links = |count: usize| {
        bootc_image().layer(|mut l| {
            for number in 0..count {
                l = l.file(format!("usr/f{number}"), "");
            }
            l
        })
    };
    let runs: String = (0..3000).map(|i| format!("{},1,", i * 4096)).collect();
    let holes = Item::file("usr/x", vec![b'x'; 3000])
        .record("GNU.sparse.map", runs.trim_end_matches(','))
        .record("GNU.sparse.size", (3000 * 4096).to_string());
    let _ = zeros;
    vec![
        layer("with a hole of 1 TiB", UNSUPPORTED, |l| l.add(hole("usr/x", 1 << 40))),
        layer("with a hole of 2^63 bytes", UNSUPPORTED, |l| l.add(hole("usr/x", 1 << 63))),
        layer("with 100 holes of 2 GiB", UNSUPPORTED, |mut l| {
            for number in 0..100 {
                l = l.add(hole(&format!("usr/x{number}"), 2 << 30));
            }
            l
        }),
        layer("with a file over --max-image-size", UNSUPPORTED, |l| {
            l.file("usr/x", vec![7; 300_000])
        })
        .with(&["--max-image-size", "256K"]),
        Case::image(
            "layer with 66 MiB behind its end",
            CORRUPT,
            bootc_image().compression(Compression::Zstd).archive_layer(behind()),
        ),
        Case::image(
            "layer that decompresses to too much",
            UNSUPPORTED,
            bootc_image().compression(Compression::Zstd).archive_layer({
                let comment = record("comment", &vec![b'x'; 1 << 19]);
                let one = [extension(b'x', &comment), file("usr/x")].concat();
                one.repeat(40)
            }),
        )
        .with(&["--max-image-size", "1M", "--max-files", "100"]),
        Case::image("layers with long names over --max-metadata", UNSUPPORTED, long_names(4))
            .with(&["--max-metadata", "1M"]),
        Case::image("layer with entries over --max-files", UNSUPPORTED, links(500))
            .with(&["--max-files", "400"]),
        Case::image(
            "layer with a map over --max-metadata",
            UNSUPPORTED,
            bootc_image().layer(|l| l.add(holes)),
        )
        .with(&["--max-metadata", "64K"]),
        Case::image("layers over --max-layers", UNSUPPORTED, long_names(4))
            .with(&["--max-layers", "6"]),
    ]
}
