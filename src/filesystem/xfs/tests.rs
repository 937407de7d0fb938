//! Layouts as values: sizes, refusals, and that everything fits into what `fit` says.

use super::*;
use crate::content::Content;
use crate::error::Unsupported;
use crate::tree::{Kind, Metadata, Tree};

fn options(size: u64) -> Options {
    Options {
        size,
        uuid: uuid::uuid!("11111111-2222-4333-8444-555555555555"),
        label: "root".to_owned(),
        sector_size: 512,
        profile: Profile::Lts612,
        groups: Groups::Two,
        time: 0,
    }
}

fn wanted() -> Wanted {
    Wanted {
        free_bytes: None,
        free_inodes: 0,
        sector_size: 512,
        profile: Profile::Lts612,
        groups: Groups::Two,
    }
}

/// Files of `size` bytes, side by side.
fn files(count: u64, size: u64) -> Tree {
    let mut tree = Tree::new(Metadata::root(0o755));
    for number in 0..count {
        let content = Content { size, ..Content::EMPTY };
        let name = number.to_string();
        tree.create(Tree::ROOT, name.as_bytes(), Metadata::root(0o644), Kind::File(content));
    }
    tree
}

#[test]
fn least_size_fits_and_a_mebibyte_less_does_not() {
    for (count, size) in [(1, 1 << 30), (10, 77 << 20), (30_000, 50_000), (200_000, 0)] {
        let tree = files(count, size);
        for (profile, groups, sector_size) in [
            (Profile::Lts612, Groups::Two, 512),
            (Profile::Lts61, Groups::Four, 512),
            (Profile::Lts612, Groups::Four, 4096),
        ] {
            let wanted = Wanted { profile, groups, sector_size, ..wanted() };
            let size = fit(&tree, &wanted).unwrap();
            let options = Options { size, profile, groups, sector_size, ..options(size) };
            Layout::of(&tree, &options).unwrap();
            if size > MINIMUM_SIZE {
                let less = Options { size: size - (1 << 20), ..options };
                let error = Layout::of(&tree, &less).unwrap_err().to_string();
                assert!(error.contains("does not fit"), "{error}");
            }
        }
    }
}

#[test]
fn what_is_wanted_free_is_available() {
    let tree = files(1000, 100_000);
    let free = 700 << 20;
    let size = fit(&tree, &Wanted { free_bytes: Some(free), ..wanted() }).unwrap();
    let usage = Layout::of(&tree, &options(size)).unwrap().usage();
    assert!(usage.available_blocks * 4096 >= free);
    let usage = Layout::of(&tree, &options(size - (1 << 20))).unwrap().usage();
    assert!(usage.available_blocks * 4096 < free);
}

#[test]
fn inodes_count_as_room() {
    let tree = files(1, 0);
    let free = |free_inodes| {
        fit(&tree, &Wanted { free_bytes: Some(300 << 20), free_inodes, ..wanted() }).unwrap()
    };
    assert!(free(2_000_000) >= free(0) + 2_000_000 * 512);
}

#[test]
fn tree_of_inodes_only_may_have_more_of_them_than_a_quarter() {
    let tree = files(300_000, 0);
    let size = fit(&tree, &wanted()).unwrap();
    assert!(Layout::of(&tree, &options(size)).unwrap().inode_percent() > 50);
    assert_eq!(Layout::of(&files(1, 1), &options(size)).unwrap().inode_percent(), 25);
}

#[test]
fn what_xfs_cannot_hold_is_refused_with_its_path() {
    let with = |name: &[u8], kind| {
        let mut tree = Tree::new(Metadata::root(0o755));
        let usr = tree.make_directories("usr", &Metadata::root(0o755));
        tree.create(usr, name, Metadata::root(0o644), kind);
        Layout::of(&tree, &options(MINIMUM_SIZE))
    };
    for (name, kind) in [
        (&b"link"[..], Kind::Symlink(vec![b'x'; 1024].into())),
        (b"device", Kind::CharacterDevice(512, 0)),
        (b"device", Kind::BlockDevice(8, 1 << 18)),
        (b"large", Kind::File(Content { size: u64::MAX, ..Content::EMPTY })),
    ] {
        let error = with(name, kind).unwrap_err();
        assert!(error.is::<Unsupported>(), "{error:#}");
        let path = format!("/usr/{}", name.escape_ascii());
        assert!(format!("{error:#}").contains(&path), "{error:#}");
    }
    assert!(with(&[b'n'; 256], Kind::Fifo).unwrap_err().is::<Unsupported>());
    assert!(with(b"link", Kind::Symlink(vec![b'x'; 1023].into())).is_ok());
    assert!(with(b"device", Kind::CharacterDevice(511, (1 << 18) - 1)).is_ok());
}

#[test]
fn options_that_no_file_system_has_are_refused() {
    let tree = files(0, 0);
    let of = |options: Options| Layout::of(&tree, &options);
    assert!(of(options(MINIMUM_SIZE)).is_ok());
    assert!(of(options(MINIMUM_SIZE - 1)).unwrap_err().is::<Unsupported>());
    let label = "thirteen byte".to_owned();
    assert!(of(Options { label, ..options(MINIMUM_SIZE) }).unwrap_err().is::<Unsupported>());
    assert!(of(Options { sector_size: 1024, ..options(MINIMUM_SIZE) }).is_err());
}
