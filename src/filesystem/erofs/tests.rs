//! Trees with everything that composefs images treat differently, and the vectors of the format.

use super::*;
use crate::content::{Content, ContentStore};
use crate::filesystem::verity;

/// Contents are never read here, only their sizes: any store's ids do.
fn sized(size: u64) -> Kind {
    Kind::File(Content { size, ..Content::EMPTY })
}

fn payload(_: InodeId) -> Option<Payload> {
    Some(Payload { redirect: "00/11.file".to_owned(), digest: None })
}

fn version(version: u8) -> Options {
    Options { min_version: version, max_version: 1, keep_links: true, keep_times: true }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(image: &[u8]) -> String {
    let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
    let image = contents.insert_bytes(image).unwrap();
    hex(&verity::measure(&image, &contents).unwrap().digest)
}

/// Made with libostree and mkcomposefs 1.0.8: an empty commit's deployment.
#[test]
fn known_images_have_their_known_digests() {
    let tree = Tree::new(Metadata::root(0o755));
    let image = ostree_image(&tree, &payload).unwrap();
    assert_eq!(image.len(), 16384);
    assert_eq!(digest(&image), "8f52c3b310a287d352b2eded6b04187a8c1af576c1e0ac29c3fd47c9bc239b83");

    let mut tree = tree;
    for name in [&b"usr"[..], b"etc", b"boot", b"var", b"sysroot"] {
        tree.create(Tree::ROOT, name, Metadata::root(0o755), Kind::directory());
    }
    let image = composefs(&tree, &payload, &version(1)).unwrap();
    assert_eq!(digest(&image), "ddbe0c8db7fd6004a4e848e5780c3c0f9f1ba943db7d910dbff2bf6b8b450977");
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let with = |kind: Kind, name: &[u8]| {
        let mut tree = Tree::new(Metadata::root(0o755));
        tree.create(Tree::ROOT, name, Metadata::root(0o644), kind);
        composefs(&tree, &payload, &Options::OSTREE).map(drop)
    };
    with(sized(1 << 43), b"a").unwrap();
    with(sized(u64::MAX), b"a").unwrap_err();
    with(Kind::Symlink(vec![b'x'; 4095].into()), b"a").unwrap();
    with(Kind::Symlink(vec![b'x'; 4096].into()), b"a").unwrap_err();
    with(Kind::Symlink((*b"").into()), b"a").unwrap_err();
    with(Kind::Fifo, &[b'n'; 255]).unwrap();
    with(Kind::Fifo, &[b'n'; 256]).unwrap_err();
    with(Kind::BlockDevice(1 << 12, 0), b"a").unwrap_err();

    let mut tree = Tree::new(Metadata::root(0o755));
    tree.inode_mut(Tree::ROOT).metadata.xattrs.set(b"user.big", &[0; 65536]);
    composefs(&tree, &payload, &Options::OSTREE).unwrap_err();
    let mut tree = Tree::new(Metadata::root(0o755));
    for i in 0..5 {
        let name = format!("user.{i}");
        tree.inode_mut(Tree::ROOT).metadata.xattrs.set(name.as_bytes(), &[0; 65535]);
    }
    composefs(&tree, &payload, &Options::OSTREE).unwrap_err();
}

#[test]
fn a_file_without_payload_is_refused_unless_it_is_empty() {
    let mut tree = Tree::new(Metadata::root(0o755));
    let file = tree.create(Tree::ROOT, b"a", Metadata::root(0o644), sized(0));
    composefs(&tree, &|_| None, &Options::OSTREE).unwrap();
    tree.inode_mut(file).kind = sized(1);
    composefs(&tree, &|_| None, &Options::OSTREE).unwrap_err();
}

/// Links to links, deeper first: without `keep_links` they are files of their own.
#[test]
fn links_are_kept_or_flattened() {
    let mut tree = Tree::new(Metadata::root(0o755));
    let below = tree.make_directories("a/b", &Metadata::root(0o755));
    let file = tree.create(below, b"deep", Metadata::root(0o644), sized(9));
    tree.link(Tree::ROOT, b"zz", file);
    let inodes = |image: &[u8]| u64::from_le_bytes(*image[1040..].first_chunk().unwrap());
    let kept = composefs(&tree, &payload, &version(0)).unwrap();
    let flat = composefs(&tree, &payload, &Options::OSTREE).unwrap();
    assert_eq!(inodes(&kept) + 1, inodes(&flat));
}
