//! What btrfs cannot hold is refused before anything is written, with the file named.

use bootpress::content::{Content, ContentStore};
use bootpress::error::Unsupported;
use bootpress::filesystem::btrfs::{Prepared, Subvolume, Volumes};
use bootpress::tree::{Kind, Metadata, Tree};

use super::kernel::mounted_in;
use super::{MIB, check, empty, options, press, store};

#[track_caller]
fn refused(volumes: &Volumes<'_>, contents: &ContentStore, said: &str) {
    let error = Prepared::of(volumes, contents).expect_err("it is refused");
    assert!(error.is::<Unsupported>(), "{error:#}");
    assert!(format!("{error:#}").contains(said), "{error:#}");
}

#[test]
fn attribute_larger_than_a_leaf_is_refused() {
    let contents = store();
    let mut tree = empty();
    let mut metadata = Metadata::root(0o644);
    metadata.xattrs.set(b"user.large", &[0; 60_000]);
    let folder = tree.make_directories("usr/lib", &Metadata::root(0o755));
    tree.create(folder, b"file", metadata, Kind::File(Content::EMPTY));
    let said = "laying out /usr/lib/file: the extended attribute \"user.large\" has 60000 bytes, and btrfs has room for 16218";
    refused(&Volumes::of(&tree, None), &contents, said);
}

#[test]
fn more_names_than_links_are_counted_are_refused() {
    let contents = store();
    let mut tree = empty();
    let file = tree.add(Metadata::root(0o644), Kind::File(Content::EMPTY));
    for index in 0..65_535 {
        tree.link(Tree::ROOT, index.to_string().as_bytes(), file);
    }
    assert!(Prepared::of(&Volumes::of(&tree, None), &contents).is_ok());
    for index in 65_535..70_000 {
        tree.link(Tree::ROOT, index.to_string().as_bytes(), file);
    }
    let said = "laying out /0: the file has 70000 names, and btrfs allows 65535";
    refused(&Volumes::of(&tree, None), &contents, said);
}

#[test]
fn other_limits_are_refused() {
    let contents = store();
    let refused_kind = |kind: Kind, xattr: &str, said: &str| {
        let mut tree = empty();
        let mut metadata = Metadata::root(0o644);
        if !xattr.is_empty() {
            metadata.xattrs.set(xattr.as_bytes(), b"value");
        }
        tree.create(Tree::ROOT, b"it", metadata, kind);
        refused(&Volumes::of(&tree, None), &contents, said);
    };
    refused_kind(Kind::CharacterDevice(4096, 0), "", "4096:0 is too large for btrfs");
    refused_kind(Kind::Symlink(vec![b'x'; 4096].into()), "", "4096 bytes, and btrfs allows 4095");
    refused_kind(
        Kind::Fifo,
        "system.nfs4_acl",
        "cannot hold the extended attribute \"system.nfs4_acl\"",
    );
}

#[test]
fn paths_of_subvolumes_are_refused_that_are_taken_or_lead_nowhere() {
    let contents = store();
    let mut tree = empty();
    tree.create(Tree::ROOT, b"taken", Metadata::root(0o755), Kind::directory());
    tree.create(Tree::ROOT, b"file", Metadata::root(0o644), Kind::File(Content::EMPTY));
    for names in [
        &["taken"][..],
        &["nowhere/root"],
        &["file/root"],
        &["/root"],
        &["taken/"],
        &["taken/.."],
        &[".."],
        &[""],
        &["same", "same"],
        &["taken/same", "taken/same"],
        // In another subvolume.
        &["one", "one/other"],
    ] {
        let below = |name: &&'static str| Subvolume { name, tree: &tree, compression: None };
        let below = names.iter().map(below).collect();
        let volumes = Volumes { below, ..Volumes::of(&tree, None) };
        refused(&volumes, &contents, "invalid name of a subvolume");
    }
}

#[test]
#[ignore = "a minute: a directory of 1,000,000 names"]
fn directory_of_a_million_names_reads_back() {
    let contents = store();
    let mut tree = empty();
    let many = tree.create(Tree::ROOT, b"many", Metadata::root(0o755), Kind::directory());
    for number in 0..1_000_000 {
        let name = format!("name-{number}");
        tree.create(many, name.as_bytes(), Metadata::root(0o644), Kind::File(Content::EMPTY));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("btrfs");
    press(&Volumes::of(&tree, None), &contents, &options(4 << 30)).write(&path);
    check(&path);
    let Some(mount) = mounted_in(&path, directory.path(), "ro,loop") else { return };
    let many = mount.on.join("many");
    assert_eq!(std::fs::read_dir(&many).unwrap().count(), 1_000_000);
    for number in (0..1_000_000).step_by(997) {
        assert!(many.join(format!("name-{number}")).is_file(), "{number}");
    }
}

/// As many names as btrfs counts, of which most are too many for a directory's item; and it can lose one again. The kernel alone
/// looks: `btrfs check` compares each name of a file with all others, which takes many minutes.
#[test]
#[ignore = "a minute: a file with 65,535 names"]
fn file_with_the_most_names_reads_back() {
    let contents = store();
    let mut tree = empty();
    let content = contents.insert_bytes(b"one").unwrap();
    let file = tree.create(Tree::ROOT, b"one", Metadata::root(0o644), Kind::File(content));
    let names = tree.create(Tree::ROOT, b"names", Metadata::root(0o755), Kind::directory());
    for number in 1..65_535 {
        tree.link(names, number.to_string().as_bytes(), file);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("btrfs");
    press(&Volumes::of(&tree, None), &contents, &options(512 * MIB)).write(&path);
    let Some(mount) = mounted_in(&path, directory.path(), "loop") else { return };
    let links = || std::os::unix::fs::MetadataExt::nlink(&mount.on.join("one").metadata().unwrap());
    assert_eq!(links(), 65_535);
    let more = std::fs::hard_link(mount.on.join("one"), mount.on.join("more"));
    assert_eq!(more.unwrap_err().raw_os_error(), Some(nix::libc::EMLINK));
    std::fs::remove_file(mount.on.join("names/60000")).unwrap();
    assert_eq!(links(), 65_534);
}

#[test]
fn size_that_does_not_suffice_is_an_error() {
    let contents = store();
    let mut tree = empty();
    let content = super::zoo::pattern(&contents, 1, 200 * MIB);
    tree.create(Tree::ROOT, b"large", Metadata::root(0o644), Kind::File(content));
    let prepared = Prepared::of(&Volumes::of(&tree, None), &contents).unwrap();
    let error = prepared.format(&options(200 * MIB)).expect_err("it does not fit");
    assert!(error.to_string().contains("200 MiB are too few by"), "{error:#}");
    assert!(prepared.format(&options(100 * MIB)).is_err());
}
