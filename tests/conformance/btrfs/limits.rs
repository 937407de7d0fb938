//! What btrfs cannot hold is refused before anything is written, with the file named.

use bootpress::content::{Content, ContentStore};
use bootpress::error::Unsupported;
use bootpress::filesystem::btrfs::{Prepared, Subvolume, Volumes};
use bootpress::tree::{Kind, Metadata, Tree};

use super::{MIB, empty, options, store};

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
    refused_kind(Kind::CharacterDevice(4096, 0), "", "4096:0 is larger than Linux can hold");
    refused_kind(Kind::Symlink(vec![b'x'; 4096].into()), "", "longer than 4095 bytes");
    refused_kind(
        Kind::Fifo,
        "system.nfs4_acl",
        "cannot hold the extended attribute \"system.nfs4_acl\"",
    );
}

#[test]
fn names_of_subvolumes_are_refused_that_are_taken_or_paths() {
    let contents = store();
    let mut tree = empty();
    tree.create(Tree::ROOT, b"taken", Metadata::root(0o755), Kind::directory());
    for names in [&["taken"][..], &["a/b"], &[".."], &[""], &["same", "same"]] {
        let below = |name: &&'static str| Subvolume { name, tree: &tree, compression: None };
        let below = names.iter().map(below).collect();
        let volumes = Volumes { below, ..Volumes::of(&tree, None) };
        refused(&volumes, &contents, "invalid name of a subvolume");
    }
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
