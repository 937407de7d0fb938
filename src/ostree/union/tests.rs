//! What layers become together.

use super::super::testing::{Build, image, listing, store};
use super::*;
use crate::error::Corrupt;

type Entries<'f> = &'f dyn Fn(Build<'_>) -> Vec<crate::layer::Entry>;

fn try_unite(layers: &[Entries<'_>]) -> Result<Vec<String>> {
    let store = store();
    let layers: Vec<Layer> = layers
        .iter()
        .enumerate()
        .map(|(index, build)| {
            let mut layer = Build::new(&store).layer(&index.to_string());
            layer.entries = build(Build::new(&store));
            layer
        })
        .collect();
    Ok(listing(&unite(&image(&layers, &[]), layers, &store)?.root, &store))
}

/// Unites layers, the lowest first.
macro_rules! united {
    ($($layer:expr),+ $(,)?) => {
        try_unite(&[$(&|b: Build<'_>| { let build: fn(Build<'_>) -> Build<'_> = $layer; build(b).layer("l").entries }),+])
    };
}

#[test]
fn existing_directories_keep_what_they_are() {
    let found = united!(
        |b| b.owner(1, 1).dir("./", 0o700).dir("d", 0o700).xattr("user.a", b"1").dir("e", 0o711),
        |b| b
            .owner(2, 2)
            .dir("./", 0o755)
            .dir("d", 0o755)
            .file("d/x", 0o600, "2")
            .dir("e", 0o1777)
            .dir("f", 0o750),
    );
    assert_eq!(
        found.unwrap(),
        ["700 1:1 d/", "600 2:2 d/x \"2\"", r#"711 1:1 e/ {"user.a": "1"}"#, "750 2:2 f/",]
    );
}

#[test]
fn the_upper_layer_replaces_what_is_in_its_way() {
    let found = united!(
        |b| b
            .file("file-file", 0o644, "1")
            .symlink("bin", "usr/bin")
            .file("file-dir", 0o644, "1")
            .file("dir-file/x", 0o644, "1")
            .file("dir-link/x/y", 0o644, "1"),
        |b| b
            .file("file-file", 0o600, "2")
            .file("bin/x", 0o644, "2")
            .dir("file-dir", 0o700)
            .file("dir-file", 0o644, "2")
            .symlink("dir-link", "t"),
    );
    assert_eq!(
        found.unwrap(),
        [
            "755 0:0 bin/",
            "644 0:0 bin/x \"2\"",
            "644 0:0 dir-file \"2\"",
            "777 0:0 dir-link -> t",
            "700 0:0 file-dir/",
            "600 0:0 file-file \"2\"",
        ]
    );
}

#[test]
fn whiteouts_hide_what_is_below() {
    let found = united!(
        |b| b
            .file("a", 0o644, "1")
            .file("d/x/y", 0o644, "1")
            .file("again", 0o644, "1")
            .owner(1, 1)
            .dir("new", 0o700)
            .touch("new/old"),
        |b| b
            .touch(".wh.a")
            .touch(".wh.d")
            .file("again", 0o600, "2")
            .touch(".wh.again")
            .touch(".wh.new")
            .dir("new", 0o711)
            .touch("new/young")
            .touch(".wh.missing")
            .touch("made/for/.wh.nothing")
            .touch(".wh..wh.foo")
            .dir(".wh..wh.plnk", 0o755)
            .symlink(".wh.link", "x")
            .dir(".wh.dir", 0o755),
    );
    assert_eq!(
        found.unwrap(),
        [
            "755 0:0 .wh..wh.plnk/",
            "755 0:0 .wh.dir/",
            "777 0:0 .wh.link -> x",
            "600 0:0 again \"2\"",
            "755 0:0 made/",
            "755 0:0 made/for/",
            "711 0:0 new/",
            "644 0:0 new/young",
        ]
    );
}

/// As the importer does it: in the order of names, so that a name before `.wh.` does not survive its own whiteout.
#[test]
fn whiteouts_come_in_the_order_of_names() {
    let found = united!(|b| b.touch("-x").touch("y"), |b| b
        .touch("-x")
        .touch(".wh.-x")
        .touch("y")
        .touch(".wh.y"));
    assert_eq!(found.unwrap(), ["644 0:0 y"]);
}

#[test]
fn opaque_markers_empty_and_rename_the_owner() {
    let found = united!(
        |b| b
            .owner(1, 1)
            .dir("d", 0o700)
            .touch("d/old")
            .dir("d/s", 0o700)
            .touch("d/s/t")
            .dir("e", 0o700),
        |b| b
            .owner(2, 2)
            .dir("d", 0o711)
            .touch("d/a")
            .touch("d/.wh..wh..opq")
            .dir("d/s", 0o755)
            .dir("n", 0o755)
            .touch("n/.wh..wh..opq"),
    );
    assert_eq!(
        found.unwrap(),
        ["711 2:2 d/", "644 2:2 d/a", "755 2:2 d/s/", "700 1:1 e/", "755 2:2 n/"]
    );
    let found = united!(|b| b.owner(1, 1).dir("./", 0o700).touch("usr/x"), |b| b
        .touch(".wh..wh..opq")
        .touch("y"),);
    assert_eq!(found.unwrap(), ["644 0:0 y"]);
    let found = united!(|b| b.touch("d/x"), |b| b.symlink("d/.wh..wh..opq", "z").touch("d/y"));
    assert_eq!(found.unwrap(), ["755 0:0 d/", "777 0:0 d/.wh..wh..opq -> z", "644 0:0 d/y"]);
    // Directories are no markers.
    let found = united!(|b| b.touch("d/x"), |b| b.dir("d", 0o755).dir("d/.wh..wh..opq", 0o755));
    assert_eq!(found.unwrap(), ["755 0:0 d/", "755 0:0 d/.wh..wh..opq/", "644 0:0 d/x"]);
}

#[test]
fn whiteouts_of_nothing_are_refused() {
    for build in [
        (|b: Build<'_>| b.touch("d/.wh.").layer("l").entries) as fn(Build<'_>) -> Vec<_>,
        |b| b.touch("d/.wh..").layer("l").entries,
        |b| b.touch("d/.wh...").layer("l").entries,
    ] {
        let error = try_unite(&[&build]).unwrap_err();
        assert!(error.is::<Corrupt>(), "{error:?}");
        assert!(format!("{error:#}").starts_with("uniting layer 1 of 1"), "{error:#}");
    }
}

#[test]
fn leavings_of_container_engines_go() {
    let found = united!(|b| b
        .touch("etc/hostname")
        .touch("etc/resolv.conf")
        .touch("etc/hosts")
        .file("usr/hostname", 0o644, ""));
    assert_eq!(
        found.unwrap(),
        ["755 0:0 usr/", "755 0:0 usr/etc/", "644 0:0 usr/etc/hosts", "644 0:0 usr/hostname"]
    );
    let kept = united!(|b| b.file("etc/hostname", 0o644, "x").symlink("etc/resolv.conf", "/run/r"));
    assert_eq!(
        kept.unwrap()[2..],
        ["644 0:0 usr/etc/hostname \"x\"", "777 0:0 usr/etc/resolv.conf -> /run/r"]
    );
}

#[test]
fn the_root_is_the_lowest_layers() {
    let store = store();
    let layers = vec![
        Build::new(&store).owner(1, 2).dir("./", 0o711).dir("usr", 0o755).layer("0"),
        Build::new(&store).dir("./", 0o755).layer("1"),
    ];
    let root = unite(&image(&layers, &[]), layers, &store).unwrap().root;
    let metadata = &root.inode(Tree::ROOT).metadata;
    assert_eq!((metadata.mode, metadata.uid, metadata.gid), (0o711, 1, 2));
}

#[test]
fn labels_without_their_layer_are_explained() {
    let store = store();
    let layers = vec![Build::new(&store).touch("x").layer("0")];
    let stale = image(&layers, &[("ostree.final-diffid", "sha256:gone")]);
    let error = unite(&stale, layers, &store).unwrap_err();
    let unsupported = error.downcast_ref::<crate::error::Unsupported>().unwrap();
    assert!(unsupported.what.contains("sha256:gone"), "{unsupported}");
    assert!(unsupported.hint.as_deref().unwrap().contains("squash"), "{unsupported:?}");
}
