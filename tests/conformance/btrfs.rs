//! btrfs, as `btrfs check`, `btrfs inspect-internal`, GRUB and the running kernel see it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bootpress::content::ContentStore;
use bootpress::filesystem::btrfs::{
    Compression, Formatted, Options, Prepared, Subvolume, Volumes, Wanted, dump,
};
use bootpress::filesystem::verity;
use bootpress::tree::{Kind, Metadata, Tree};
use uuid::Uuid;

use crate::unwritten::Unwritten;
use support::tool::{forky, run, tool};

mod kernel;
mod limits;
mod random;
pub(crate) mod zoo;

use zoo::zoo;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn store() -> Arc<ContentStore> {
    Arc::new(ContentStore::create_in(&std::env::temp_dir()).unwrap())
}

fn options(size: u64) -> Options {
    Options {
        size,
        uuid: Uuid::from_u128(0x1111_1111_2222_4333_8444_5555_5555_5555),
        label: "root".to_owned(),
        duplicate: true,
        block_group_tree: false,
        time: 1_700_000_000,
    }
}

fn format(volumes: &Volumes<'_>, contents: &ContentStore, options: &Options) -> Formatted {
    Prepared::of(volumes, contents).unwrap().format(options).unwrap()
}

fn press(volumes: &Volumes<'_>, contents: &Arc<ContentStore>, options: &Options) -> Unwritten {
    Unwritten::new(format(volumes, contents, options).map, contents)
}

/// Neither Debian 12's `btrfs check` nor the newest says anything but what it counts.
#[track_caller]
fn check(path: &Path) {
    for program in [tool("btrfs"), forky("btrfs")] {
        let Some(mut program) = program else { return };
        let output = program.args(["check", "--check-data-csum"]).arg(path).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{said}");
        let odd = ["error", "warn", "mismatch", "bad", "wrong", "invalid", "unexpected", "missing"];
        let odd = |line: &&str| {
            let line = line.to_lowercase();
            odd.iter().any(|word| line.contains(word)) && !line.contains("no error found")
        };
        let lines: Vec<&str> = said.lines().filter(odd).collect();
        assert!(lines.is_empty(), "{said}");
    }
}

#[track_caller]
fn check_volume(volume: &Unwritten) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("btrfs");
    volume.write(&path);
    check(&path);
}

/// Three subvolumes, each compressed in another way.
fn volumes<'a>(top: &'a Tree, root: &'a Tree, other: &'a Tree) -> Volumes<'a> {
    let below = |name, tree, compression| Subvolume { name, tree, compression: Some(compression) };
    Volumes {
        top: Subvolume { name: "", tree: top, compression: None },
        below: vec![
            below("root", root, Compression::Zstd(3)),
            below("home", other, Compression::Lzo),
            below("var", other, Compression::Zlib(6)),
        ],
        default: Some(0),
    }
}

fn empty() -> Tree {
    Tree::new(Metadata::root(0o755))
}

#[test]
fn empty_file_system_is_clean_in_every_shape() {
    let contents = store();
    let tree = empty();
    for size in [128 * MIB, 10 * GIB, 300 * GIB] {
        for (duplicate, block_group_tree) in [(true, false), (false, true)] {
            let options = Options { duplicate, block_group_tree, ..options(size) };
            check_volume(&press(&Volumes::of(&tree, None), &contents, &options));
        }
    }
}

#[test]
fn every_kind_of_file_is_clean_with_every_compression() {
    let contents = store();
    let tree = zoo(&contents);
    let all =
        [None, Some(Compression::Zstd(3)), Some(Compression::Zlib(3)), Some(Compression::Lzo)];
    for compression in all {
        let volumes = Volumes::of(&tree, compression);
        check_volume(&press(&volumes, &contents, &options(GIB)));
    }
}

#[test]
fn subvolumes_are_clean_and_listed() {
    let contents = store();
    let (top, tree, small) = (empty(), zoo(&contents), zoo::small(&contents));
    let volume = press(&volumes(&top, &tree, &small), &contents, &options(GIB));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("btrfs");
    volume.write(&path);
    check(&path);
    let Some(mut btrfs) = tool("btrfs") else { return };
    let facts = run(btrfs.args(["inspect-internal", "dump-super", "--full"]).arg(&path));
    let fact = |name: &str, value: &str| {
        let found = facts.lines().find(|line| line.starts_with(name));
        let found = found.unwrap_or_else(|| panic!("{name}\n{facts}"));
        assert!(found.trim_end().ends_with(value), "{found}, not {value}");
    };
    fact("fsid", "11111111-2222-4333-8444-555555555555");
    fact("label", "root");
    fact("generation", "1");
    fact("compat_ro_flags", "0x3");
    // 0x361 is what mkfs.btrfs chooses; a default subvolume, lzo and zstd are added.
    fact("incompat_flags", "0x37b");
    let root = run(tool("btrfs")
        .unwrap()
        .args(["inspect-internal", "dump-tree", "-t", "root"])
        .arg(&path));
    for line in
        ["name home", "name root", "name var", "name: default", "location key (256 ROOT_ITEM 0)"]
    {
        assert!(root.contains(line), "{line}\n{root}");
    }
}

/// Two subvolumes in plain directories of the top, beside a file and each other.
fn nested<'a>(top: &'a Tree, root: &'a Tree, other: &'a Tree) -> Volumes<'a> {
    let below = |name, tree| Subvolume { name, tree, compression: None };
    Volumes {
        top: Subvolume { name: "", tree: top, compression: None },
        below: vec![below("subvols/root", root), below("subvols/of/home", other)],
        default: Some(0),
    }
}

/// The top of [`nested`].
fn top_of_nested() -> Tree {
    let mut top = empty();
    let folder = top.make_directories("subvols", &Metadata::root(0o755));
    top.make_directories("subvols/of", &Metadata::root(0o755));
    for name in ["file", "zfile"] {
        let kind = Kind::File(bootpress::content::Content::EMPTY);
        top.create(folder, name.as_bytes(), Metadata::root(0o644), kind);
    }
    top
}

#[test]
fn subvolumes_in_directories_are_clean() {
    let contents = store();
    let (top, small) = (top_of_nested(), zoo::small(&contents));
    check_volume(&press(&nested(&top, &small, &small), &contents, &options(GIB)));
}

/// The smallest file system with a file, a directory, a link and a subvolume: every byte of metadata, for people.
#[test]
fn golden_shows_every_structure() {
    let contents = store();
    let mut metadata = Metadata { mtime: 1_700_000_001, ..Metadata::root(0o644) };
    metadata.xattrs.set(b"security.selinux", b"system_u:object_r:usr_t:s0\0");
    let mut tree = empty();
    let usr = tree.create(Tree::ROOT, b"usr", Metadata::root(0o755), Kind::directory());
    let content = contents.insert_bytes(b"ID=example\n").unwrap();
    let file = tree.create(usr, b"os-release", metadata, Kind::File(content));
    tree.link(Tree::ROOT, b"again", file);
    let link = Kind::Symlink(b"usr/os-release".to_vec().into());
    tree.create(Tree::ROOT, b"release", Metadata::root(0o777), link);
    let large = contents.insert_bytes(&b"the same again and again\n".repeat(1000)).unwrap();
    tree.create(usr, b"large", Metadata::root(0o644), Kind::File(large));
    let mut top = empty();
    top.make_directories("volumes", &Metadata::root(0o755));
    let root = Subvolume { name: "volumes/root", tree: &tree, compression: Some(Compression::Lzo) };
    let top = Subvolume { name: "", tree: &top, compression: None };
    let volumes = Volumes { top, below: vec![root], default: Some(0) };
    let volume = press(&volumes, &contents, &options(128 * MIB));
    check_volume(&volume);
    let text = dump(&volume.volume, &contents).unwrap();
    expect_test::expect_file!["../golden/btrfs.txt"].assert_eq(&text);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let bytes = |contents: &Arc<ContentStore>| {
        let (top, tree, small) = (empty(), zoo(contents), zoo::small(contents));
        let volume = press(&volumes(&top, &tree, &small), contents, &options(GIB));
        let mut all = BTreeMap::new();
        for (&offset, source) in volume.volume.segments() {
            let mut bytes = vec![0; source.len() as usize];
            volume.volume.read_at(contents, offset, &mut bytes).unwrap();
            all.insert(offset, crc32c::crc32c(&bytes));
        }
        all
    };
    // Another store: contents are at other places in it.
    let other = store();
    other.insert_bytes(&[1; 10_000]).unwrap();
    assert_eq!(bytes(&store()), bytes(&other));
}

#[test]
fn least_size_suffices_and_keeps_the_room_wanted() {
    let contents = store();
    let (tree, empty) = (zoo(&contents), empty());
    for (tree, compression) in [(&tree, None), (&tree, Some(Compression::Zstd(1))), (&empty, None)]
    {
        let prepared = Prepared::of(&Volumes::of(tree, compression), &contents).unwrap();
        for free_bytes in [0, 100 * MIB, 3 * GIB] {
            let wanted = Wanted { free_bytes, duplicate: true, block_group_tree: false };
            let size = prepared.fit(&wanted).unwrap();
            let usage = prepared.format(&options(size)).unwrap().usage;
            assert!(usage.unallocated <= size && usage.data == prepared.data(), "{usage:?}");
            if size > 129 * MIB {
                let smaller = prepared.format(&options(size - 2 * MIB));
                let room = |usage: bootpress::filesystem::btrfs::Usage| usage.unallocated;
                assert!(
                    smaller.is_err() || free_bytes > 0,
                    "{:?}",
                    smaller.map(|made| room(made.usage))
                );
            }
        }
    }
}

#[test]
fn extents_end_where_chunks_do() {
    let contents = store();
    let mut tree = empty();
    let large = zoo::pattern(&contents, 7, 300 * MIB + 5);
    tree.create(Tree::ROOT, b"large", Metadata::root(0o644), Kind::File(large));
    for compression in [None, Some(Compression::Zstd(1))] {
        check_volume(&press(&Volumes::of(&tree, compression), &contents, &options(700 * MIB)));
    }
}

#[test]
fn fs_verity_is_clean() {
    let contents = store();
    let mut tree = empty();
    for size in [0, 1, 5000, 4096 * 129, 4096 * 128 * 130 + 1] {
        let content = zoo::pattern(&contents, size, size);
        let verity = verity::measure(&content, &contents).unwrap();
        let name = format!("{size}");
        let id =
            tree.create(Tree::ROOT, name.as_bytes(), Metadata::root(0o444), Kind::File(content));
        tree.set_verity(id, verity);
    }
    let volume = press(&Volumes::of(&tree, Some(Compression::Zstd(1))), &contents, &options(GIB));
    check_volume(&volume);
}
