//! Every form of directories, attributes, links and extents, around each change from one to the next; and very large ones.

use std::io::Write;
use std::sync::Arc;

use bootpress::content::{Content, ContentStore};
use bootpress::filesystem::xfs::{Groups, Options, Profile};
use bootpress::tree::{Kind, Metadata, Tree};

use super::{MIB, check, options, press, variants};
use crate::ext4::{store, xattrs};
use crate::mounted::{Mount, XFS, compare};
use support::tool::{newest, run};

const LABEL: (&str, &[u8]) = ("security.selinux", b"system_u:object_r:etc_t:s0\0");

/// Writes it in each variant, lets `xfs_repair` and `xfs_db` look, and compares what the kernel reads.
#[track_caller]
fn verify(tree: &Tree, contents: &Arc<ContentStore>, size: u64) {
    let directory = tempfile::tempdir().unwrap();
    for (index, options) in variants(size).into_iter().enumerate() {
        let path = directory.path().join(format!("xfs-{index}"));
        press(tree, contents, &options).write(&path);
        check(&path);
        let on = directory.path().join(format!("mnt-{index}"));
        if let Some(mount) = Mount::new("xfs", &path, &on, "ro,norecovery,loop,nouuid") {
            compare(&mount.on, tree, contents, &XFS);
        }
    }
}

fn fill(tree: &mut Tree, name: &str, names: impl Iterator<Item = Vec<u8>>) {
    let id = tree.create(Tree::ROOT, name.as_bytes(), Metadata::root(0o755), Kind::directory());
    for name in names {
        tree.create(id, &name, Metadata::root(0o644), Kind::File(Content::EMPTY));
    }
}

#[test]
fn directories_of_every_size_read_back() {
    let mut tree = Tree::new(Metadata::root(0o755));
    // Inline up to 22 of these names, one block up to 127, one leaf up to 500.
    let around =
        [100, 126, 127, 128, 129, 130, 400, 490, 500, 505, 506, 507, 510, 1008, 1010, 3000];
    for count in (0..40).chain(around) {
        let names = (0..count).map(|number| format!("name-{number:04}").into_bytes());
        fill(&mut tree, &format!("of-{count}"), names);
    }
    fill(&mut tree, "long", (0..100).map(|number| format!("{number:03}").repeat(85).into_bytes()));
    verify(&tree, &store(), 400 * MIB);
}

/// The hash mixes seven bits a byte: flipping the lowest bit of one and the highest of the next leaves it as it is.
#[test]
fn names_with_one_hash_read_back() {
    let mut tree = Tree::new(Metadata::root(0o755));
    let names = |bits: u32, count: u32| {
        (0..count).map(move |number| {
            let mut name = vec![b'b'; bits as usize + 1];
            for bit in (0..bits as usize).filter(|bit| number >> bit & 1 == 1) {
                name[bit] ^= 1;
                name[bit + 1] ^= 0x80;
            }
            name
        })
    };
    fill(
        &mut tree,
        "one-leaf",
        names(9, 400).chain((0..300).map(|n| format!("n{n}").into_bytes())),
    );
    verify(&tree, &store(), 400 * MIB);
    // So many do not fit into one leaf: xfs_repair 6.1 takes that for damage, also where the kernel wrote it.
    fill(&mut tree, "leaves", names(11, 1200));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xfs");
    press(&tree, &store(), &options(400 * MIB)).write(&path);
    let Some(mut xfs_repair) = newest("xfs_repair") else { return };
    run(xfs_repair.args(["-n", "-f"]).arg(&path));
}

#[test]
fn attributes_of_every_size_read_back() {
    let mut tree = Tree::new(Metadata::root(0o755));
    let mut put = |name: String, pairs: &[(&str, &[u8])]| {
        let metadata = Metadata { xattrs: xattrs(pairs), ..Metadata::root(0o644) };
        tree.create(Tree::ROOT, name.as_bytes(), metadata, Kind::File(Content::EMPTY));
    };
    // Inline up to what leaves 56 bytes; in a leaf up to 3072 with the name; then in blocks of 4040 bytes.
    let sizes = (0..=300).step_by(50).chain([255, 256, 257, 264, 265, 266]);
    let sizes = sizes.chain(3060..3076).chain([4000, 4040, 4041, 8080, 8081, 60_000, 65_536]);
    for size in sizes {
        put(format!("value-{size}"), &[("user.a", &vec![b'v'; size]), LABEL]);
    }
    for count in [10, 50, 100, 400] {
        let names: Vec<String> = (0..count).map(|number| format!("user.name-{number}")).collect();
        let value = [b'w'; 200];
        let pairs: Vec<(&str, &[u8])> =
            names.iter().map(|name| (name.as_str(), &value[..name.len() * 7 % 150])).collect();
        put(format!("many-{count}"), &pairs);
    }
    let large = vec![b'l'; 2500];
    let names: Vec<String> = (0..10).map(|number| format!("trusted.large-{number}")).collect();
    let pairs: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &large[..])).collect();
    put("large".to_owned(), &pairs);
    for (name, kind) in [
        ("fifo", Kind::Fifo),
        ("device", Kind::CharacterDevice(511, 262_143)),
        ("directory", Kind::directory()),
        ("link", Kind::Symlink(b"somewhere".to_vec().into())),
    ] {
        for size in [10, 290, 320, 5000] {
            let value = vec![b'k'; size];
            let xattrs = xattrs(&[("trusted.k", &value)]);
            let metadata = Metadata { xattrs, ..Metadata::root(0o644) };
            tree.create(Tree::ROOT, format!("{name}-{size}").as_bytes(), metadata, kind.clone());
        }
    }
    verify(&tree, &store(), 400 * MIB);
}

#[test]
fn links_of_every_length_read_back() {
    let mut tree = Tree::new(Metadata::root(0o755));
    let lengths = [1, 100, 250, 285, 290, 295, 296, 297, 304, 335, 336, 337, 500, 1022, 1023];
    for length in lengths {
        let target: Box<[u8]> = b"a/b".iter().copied().cycle().take(length).collect();
        let plain = Metadata::root(0o777);
        let labelled = Metadata { xattrs: xattrs(&[LABEL]), ..plain.clone() };
        for (name, metadata) in [("plain", plain), ("labelled", labelled)] {
            let name = format!("{name}-{length}");
            tree.create(Tree::ROOT, name.as_bytes(), metadata, Kind::Symlink(target.clone()));
        }
    }
    verify(&tree, &store(), 400 * MIB);
}

#[test]
fn files_with_holes_read_back() {
    let contents = store();
    let mut tree = Tree::new(Metadata::root(0o755));
    // A list of 21 extents, one level of a tree up to 20 leaves of 251; with attributes sooner.
    for count in [1, 2, 3, 4, 20, 21, 22, 251, 252, 800, 6000_u64] {
        let mut writer = contents.writer(count * 3 * 4096 + 77);
        for number in 0..count {
            writer.skip(2 * 4096);
            writer.write_all(&[number as u8 | 1; 4096]).unwrap();
        }
        writer.skip(77);
        let content = writer.finish().unwrap();
        for (name, pairs) in [("plain", vec![]), ("labelled", vec![LABEL, ("user.x", &[1; 190])])] {
            let metadata = Metadata { xattrs: xattrs(&pairs), ..Metadata::root(0o644) };
            let kind = Kind::File(content.clone());
            tree.create(Tree::ROOT, format!("{name}-{count}").as_bytes(), metadata, kind);
        }
    }
    let mut put = |name: &str, size: u64, places: &[u64]| {
        let mut writer = contents.writer(size);
        let mut position = 0;
        for &place in places {
            writer.skip(place - position);
            writer.write_all(b"data").unwrap();
            position = place + 4;
        }
        writer.skip(size - position);
        let content = writer.finish().unwrap();
        tree.create(Tree::ROOT, name.as_bytes(), Metadata::root(0o644), Kind::File(content));
    };
    put("nothing", 1 << 30, &[]);
    put("5-gib", 5 << 30, &[(5 << 30) - 4]);
    put("4-tib", 4 << 40, &[0, 1 << 40, (4 << 40) - 100]);
    verify(&tree, &contents, 600 * MIB);
}

#[test]
fn file_with_seventy_thousand_names_reads_back() {
    let contents = store();
    let mut tree = Tree::new(Metadata::root(0o755));
    let content = contents.insert_bytes(b"one").unwrap();
    let file = tree.create(Tree::ROOT, b"one", Metadata::root(0o644), Kind::File(content));
    let names = tree.create(Tree::ROOT, b"names", Metadata::root(0o755), Kind::directory());
    for number in 0..70_000 {
        tree.link(names, format!("{number}").as_bytes(), file);
    }
    let directory = tempfile::tempdir().unwrap();
    let (path, on) = (directory.path().join("xfs"), directory.path().join("mnt"));
    press(&tree, &contents, &options(400 * MIB)).write(&path);
    check(&path);
    let Some(mount) = Mount::new("xfs", &path, &on, "ro,norecovery,loop,nouuid") else { return };
    let found = std::fs::metadata(mount.on.join("names/69999")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&found), 70_001);
    assert_eq!(std::fs::read_dir(mount.on.join("names")).unwrap().count(), 70_000);
}

/// A file larger than a group, and than an extent record can say.
#[test]
fn files_larger_than_groups_are_divided() {
    let contents = store();
    let mut tree = Tree::new(Metadata::root(0o755));
    let large = Content { size: 40 << 30, ..Content::EMPTY };
    tree.create(Tree::ROOT, b"large", Metadata::root(0o644), Kind::File(large));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xfs");
    for (profile, groups) in [(Profile::Lts612, Groups::Four), (Profile::Lts61, Groups::Two)] {
        // Nothing of it is data, and yet it has all its blocks: only the extents are looked at.
        let options = Options { profile, groups, ..options(50 << 30) };
        let layout = bootpress::filesystem::xfs::Layout::of(&tree, &options).unwrap();
        let map = metadata_only(&layout.emit(&tree));
        crate::unwritten::Unwritten::new(map, &contents).write(&path);
        check(&path);
    }
}

/// A volume without contents.
fn metadata_only(map: &bootpress::sparse::SparseMap) -> bootpress::sparse::SparseMap {
    use bootpress::sparse::{Source, SparseMap};
    let mut without = SparseMap::new(map.size());
    for (&offset, source) in map.segments() {
        if let Source::Bytes(bytes) = source {
            without.put(offset, bytes.clone());
        }
    }
    without
}

#[test]
#[ignore = "a minute: a directory of 1,000,000 names"]
fn directory_of_a_million_names_reads_back() {
    let contents = store();
    let mut tree = Tree::new(Metadata::root(0o755));
    fill(&mut tree, "many", (0..1_000_000).map(|number| format!("name-{number}").into_bytes()));
    let directory = tempfile::tempdir().unwrap();
    let (path, on) = (directory.path().join("xfs"), directory.path().join("mnt"));
    press(&tree, &contents, &options(2 << 30)).write(&path);
    for find in [support::tool::tool, newest] {
        let Some(mut xfs_repair) = find("xfs_repair") else { return };
        run(xfs_repair.args(["-n", "-f"]).arg(&path));
    }
    let Some(mount) = Mount::new("xfs", &path, &on, "ro,norecovery,loop,nouuid") else { return };
    let many = mount.on.join("many");
    assert_eq!(std::fs::read_dir(&many).unwrap().count(), 1_000_000);
    for number in (0..1_000_000).step_by(997) {
        assert!(many.join(format!("name-{number}")).is_file(), "{number}");
    }
}
