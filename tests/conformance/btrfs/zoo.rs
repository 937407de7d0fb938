//! A tree that reaches every form that btrfs has for something.

use std::io::Write;

use bootpress::content::{Content, ContentStore};
use bootpress::tree::{InodeId, Kind, Metadata, Tree, Xattrs};

const LABEL: &[u8] = b"system_u:object_r:usr_t:s0\0";
const ROOT: InodeId = Tree::ROOT;

/// Bytes that shrink to some half, of a file of this size.
pub(super) fn pattern(contents: &ContentStore, seed: u64, size: u64) -> Content {
    let mut writer = contents.writer(size);
    let mut left = size;
    while left > 0 {
        let count = left.min(1 << 16);
        writer.write_all(&half(seed + left, count as usize)).unwrap();
        left -= count;
    }
    writer.finish().unwrap()
}

fn half(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(count + 16);
    while bytes.len() < count {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend((state >> 32).to_le_bytes());
        bytes.extend(b"the same");
    }
    bytes.truncate(count);
    bytes
}

/// A file with holes: of `size` bytes, with data in these ranges.
fn holes(contents: &ContentStore, size: u64, ranges: &[(u64, u64)]) -> Kind {
    let mut writer = contents.writer(size);
    let mut position = 0;
    for &(start, length) in ranges {
        writer.skip(start - position);
        writer.write_all(&half(start, length as usize)).unwrap();
        position = start + length;
    }
    writer.skip(size - position);
    Kind::File(writer.finish().unwrap())
}

fn xattrs(pairs: &[(&str, &[u8])]) -> Xattrs {
    let mut xattrs = Xattrs::NONE;
    for (name, value) in pairs {
        xattrs.set(name.as_bytes(), value);
    }
    xattrs
}

/// A POSIX access list: entries of tag, permissions, id.
fn access_list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(bits.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

struct Zoo<'a> {
    tree: Tree,
    contents: &'a ContentStore,
}

impl Zoo<'_> {
    fn folder(&mut self, parent: InodeId, name: &str) -> InodeId {
        let metadata = Metadata { mtime: 1_700_000_000, ..Metadata::root(0o755) };
        self.tree.create(parent, name.as_bytes(), metadata, Kind::directory())
    }

    fn bytes(&self, bytes: &[u8]) -> Kind {
        Kind::File(self.contents.insert_bytes(bytes).unwrap())
    }

    fn file(&mut self, parent: InodeId, name: &str, metadata: Metadata) -> InodeId {
        let kind = self.bytes(name.as_bytes());
        self.tree.create(parent, name.as_bytes(), metadata, kind)
    }

    fn inodes(&mut self) {
        let dev = self.folder(ROOT, "dev");
        let labelled =
            || Metadata { xattrs: xattrs(&[("security.selinux", LABEL)]), ..Metadata::root(0o660) };
        for (name, kind) in [
            ("null", Kind::CharacterDevice(1, 3)),
            ("whiteout", Kind::CharacterDevice(0, 0)),
            ("nvme", Kind::BlockDevice(259, 0x1_2345)),
            ("largest", Kind::BlockDevice(0xfff, 0xf_ffff)),
            ("fifo", Kind::Fifo),
            ("socket", Kind::Socket),
        ] {
            self.tree.create(dev, name.as_bytes(), labelled(), kind);
        }
        let modes = self.folder(ROOT, "modes");
        for (mode, uid, gid) in
            [(0o4755, 0, 0), (0o2755, 1, 2), (0, 0, 0), (0o640, 65_534, 4_000_000_000)]
        {
            let metadata = Metadata { uid, gid, ..Metadata::root(mode) };
            self.file(modes, &format!("{mode:o}"), metadata);
        }
        for mtime in [0, -1, -(1 << 31), 1 << 32, 4_102_444_800] {
            let metadata = Metadata { mtime, ..Metadata::root(0o644) };
            self.file(modes, &format!("time {mtime}"), metadata);
        }
        let immutable = Metadata { immutable: true, ..Metadata::root(0o755) };
        let folder = self.tree.create(ROOT, b"immutable", immutable.clone(), Kind::directory());
        self.file(folder, "file", immutable);
    }

    fn contents(&mut self) {
        let sizes = self.folder(ROOT, "sizes");
        for size in [
            0,
            1,
            100,
            2047,
            2048,
            2049,
            4095,
            4096,
            4097,
            8192,
            16_000,
            131_071,
            131_072,
            131_073,
            1 << 20,
            (1 << 20) + 1,
            17 << 20,
        ] {
            let kind = Kind::File(pattern(self.contents, size, size));
            self.tree.create(sizes, size.to_string().as_bytes(), Metadata::root(0o644), kind);
        }
        let zeros = self.bytes(&[0; 1_000_000]);
        self.tree.create(sizes, b"zeros", Metadata::root(0o644), zeros);
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(500_000)
        .collect();
        let noise = self.bytes(&noise);
        self.tree.create(sizes, b"noise", Metadata::root(0o644), noise);
        let folder = self.folder(ROOT, "holes");
        let every = |count: u64| (0..count).map(|n| (8192 * n, 4096)).collect::<Vec<_>>();
        for (name, size, ranges) in [
            ("begin", 40_960, vec![(20_480, 20_480)]),
            ("end", 1 << 30, vec![(0, 4096)]),
            ("all", 5 << 30, vec![]),
            ("small", 100, vec![]),
            ("odd", 2, vec![(0, 1)]),
            ("parts", 30_000, vec![(100, 200), (5000, 3), (8191, 2)]),
            ("many", 4096 * 6000, every(3000)),
            ("tera", 1 << 42, vec![(0, 4096), (1 << 41, 8192), ((1 << 42) - 4096, 4096)]),
        ] {
            let kind = holes(self.contents, size, &ranges);
            self.tree.create(folder, name.as_bytes(), Metadata::root(0o644), kind);
        }
        let links = self.folder(ROOT, "links");
        for length in [1, 60, 255, 1000, 2048, 4095] {
            let target: Vec<u8> = b"some/directory/".iter().copied().cycle().take(length).collect();
            let name = length.to_string();
            self.tree.create(
                links,
                name.as_bytes(),
                Metadata::root(0o777),
                Kind::Symlink(target.into()),
            );
        }
    }

    fn attributes(&mut self) {
        let folder = self.folder(ROOT, "attributes");
        for length in [0, 1, 255, 256, 4000, 9000, 16_258 - 30 - 10] {
            let value = vec![length as u8; length];
            let xattrs = xattrs(&[("user.value", &value), ("security.selinux", LABEL)]);
            self.file(folder, &length.to_string(), Metadata { xattrs, ..Metadata::root(0o644) });
        }
        for count in [2, 60, 400] {
            let mut xattrs = Xattrs::NONE;
            for index in 0..count {
                xattrs.set(format!("user.attribute-{index}").as_bytes(), b"value");
            }
            let name = format!("many {count}");
            self.file(folder, &name, Metadata { xattrs, ..Metadata::root(0o644) });
        }
        const NONE: u32 = u32::MAX;
        let access =
            access_list(&[(1, 6, NONE), (2, 4, 1000), (4, 4, NONE), (16, 6, NONE), (32, 4, NONE)]);
        let default =
            access_list(&[(1, 7, NONE), (4, 5, NONE), (8, 5, 50), (16, 7, NONE), (32, 5, NONE)]);
        let metadata = Metadata {
            xattrs: xattrs(&[("system.posix_acl_access", &access)]),
            ..Metadata::root(0o664)
        };
        self.file(folder, "acl", metadata);
        let metadata = Metadata {
            xattrs: xattrs(&[
                ("system.posix_acl_default", &default),
                ("trusted.overlay.opaque", b"y"),
            ]),
            ..Metadata::root(0o775)
        };
        self.tree.create(folder, b"acl-folder", metadata, Kind::directory());
        let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let xattrs = xattrs(&[("security.capability", capability)]);
        self.file(folder, "capability", Metadata { xattrs, ..Metadata::root(0o755) });
    }

    fn names(&mut self) {
        let folder = self.folder(ROOT, "names");
        for name in [
            &[b'n'; 255][..],
            b"\xff\xfe not UTF-8",
            "gr\u{fc}\u{df}e".as_bytes(),
            b" ",
            b"a\nb",
            b"-",
        ] {
            let kind = self.bytes(name);
            self.tree.create(folder, name, Metadata::root(0o644), kind);
        }
        // Names of the same hash: found by trying.
        for name in COLLIDING {
            self.file(folder, name, Metadata::root(0o644));
        }
        // One inode with so many names that a directory's item has no room for them.
        let hard = self.folder(ROOT, "hard");
        let one = self.file(hard, "one", Metadata::root(0o644));
        let many = self.folder(hard, "many");
        for index in 0..1500 {
            let name = format!("name-{index}-{}", "y".repeat(100));
            self.tree.link(many, name.as_bytes(), one);
        }
        self.tree.link(ROOT, b"another", one);
        let link = self.tree.create(
            hard,
            b"link",
            Metadata::root(0o777),
            Kind::Symlink(Box::from(*b"somewhere")),
        );
        self.tree.link(ROOT, b"another link", link);
        for count in [1, 100, 3000] {
            let folder = self.folder(ROOT, &format!("directory of {count}"));
            for index in 0..count {
                self.tree.create(
                    folder,
                    format!("{index:05}").as_bytes(),
                    Metadata::root(0o644),
                    Kind::File(Content::EMPTY),
                );
            }
        }
        let mut deep = self.folder(ROOT, "deep");
        for _ in 0..200 {
            deep = self.folder(deep, "deeper");
        }
    }
}

/// Two pairs of names that btrfs hashes to the same number.
pub(super) const COLLIDING: [&str; 4] = ["c477b0b1b", "c897786cb", "ccb77fb1f", "c62a94360"];

/// One of everything.
pub(crate) fn zoo(contents: &ContentStore) -> Tree {
    let metadata =
        Metadata { xattrs: xattrs(&[("security.selinux", LABEL)]), ..Metadata::root(0o755) };
    let mut zoo = Zoo { tree: Tree::new(metadata), contents };
    zoo.inodes();
    zoo.contents();
    zoo.attributes();
    zoo.names();
    zoo.tree
}

/// A few files.
pub(super) fn small(contents: &ContentStore) -> Tree {
    let mut zoo = Zoo { tree: Tree::new(Metadata::root(0o755)), contents };
    let folder = zoo.folder(ROOT, "folder");
    zoo.file(folder, "inline", Metadata::root(0o600));
    let kind = Kind::File(pattern(contents, 3, 300_000));
    zoo.tree.create(folder, b"large", Metadata::root(0o600), kind);
    zoo.tree
}
