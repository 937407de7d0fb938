//! What one layer becomes. The expectations about owners of missing parents were read off `ostree commit --tree=tar`.

use super::super::testing::{Build, listing, store};
use super::*;
use crate::content::ContentStore;
use crate::error::{Corrupt, Unsupported};

fn import(build: impl Fn(Build<'_>) -> Build<'_>) -> Vec<String> {
    let store = store();
    import_with(&store, true, build)
}

fn import_with(
    store: &ContentStore,
    everything: bool,
    build: impl Fn(Build<'_>) -> Build<'_>,
) -> Vec<String> {
    let tree = layer_tree(&build(Build::new(store)).layer("l"), everything).unwrap();
    listing(&tree, store)
}

/// The refusal of a layer; its whole chain, and whose fault it is.
fn refusal(build: impl Fn(Build<'_>) -> Build<'_>) -> (&'static str, String) {
    let store = store();
    let Err(error) = layer_tree(&build(Build::new(&store)).layer("l"), true) else {
        panic!("it was taken")
    };
    let kind = if error.is::<Unsupported>() {
        "unsupported"
    } else if error.is::<Corrupt>() {
        "corrupt"
    } else {
        panic!("{error:?}")
    };
    (kind, format!("{error:#}"))
}

#[test]
fn names_go_where_ostree_wants_them() {
    let build = |b: Build<'_>| -> Layer {
        b.dir("./", 0o755)
            .dir("usr/", 0o755)
            .dir("/etc", 0o755)
            .file("etc//./passwd", 0o644, "p")
            .dir("run", 0o700)
            .touch("run/x")
            .touch("tmp/a/b")
            .dir("dev", 0o755)
            .touch("proc/x")
            .touch("sys/x")
            .touch("runx")
            .touch("var/x")
            .touch("opt/x")
            .touch("usr/tmp")
            .touch("sysroot/note")
            .touch(".wh.etc")
            .layer("l")
    };
    let store = store();
    let tree = |everything| layer_tree(&build(Build::new(&store)), everything).unwrap();
    let all = [
        "644 0:0 .wh.etc",
        "755 0:0 dev/",
        "755 0:0 opt/",
        "644 0:0 opt/x",
        "700 0:0 run/",
        "644 0:0 runx",
        "755 0:0 sysroot/",
        "644 0:0 sysroot/note",
        "755 0:0 usr/",
        "755 0:0 usr/etc/",
        "644 0:0 usr/etc/passwd \"p\"",
        "644 0:0 usr/tmp",
        "755 0:0 var/",
        "644 0:0 var/x",
    ];
    assert_eq!(listing(&tree(true), &store), all);
    let fewer = [
        "755 0:0 dev/",
        "700 0:0 run/",
        "755 0:0 usr/",
        "755 0:0 usr/etc/",
        "644 0:0 usr/etc/passwd \"p\"",
        "644 0:0 usr/tmp",
        "755 0:0 var/",
        "644 0:0 var/x",
    ];
    assert_eq!(listing(&tree(false), &store), fewer);
    assert_eq!(import(|b| b.file("run", 0o600, "r")), ["600 0:0 run \"r\""]);
}

#[test]
fn missing_parents_reset_all_above_them() {
    let store = store();
    let layer = Build::new(&store)
        .owner(3, 3)
        .dir("./", 0o711)
        .owner(1, 1)
        .dir("usr/", 0o750)
        .dir("usr/a/", 0o700)
        .dir("usr/c/", 0o701)
        .owner(5, 6)
        .touch("usr/a/b/.wh.f")
        .layer("l");
    let tree = layer_tree(&layer, true).unwrap();
    let root = &tree.inode(Tree::ROOT).metadata;
    assert_eq!((root.mode, root.uid, root.gid), (0o755, 5, 6));
    assert_eq!(
        listing(&tree, &store),
        [
            "755 5:6 usr/",
            "755 5:6 usr/a/",
            "755 5:6 usr/a/b/",
            "644 5:6 usr/a/b/.wh.f",
            "701 1:1 usr/c/",
        ]
    );
    // Nothing missing, nothing reset; and what is said later counts.
    let layer = Build::new(&store).touch("usr/x").owner(3, 4).dir("./", 0o711).dir("usr", 0o700);
    let tree = layer_tree(&layer.layer("l"), true).unwrap();
    let root = &tree.inode(Tree::ROOT).metadata;
    assert_eq!((root.mode, root.uid, root.gid), (0o711, 3, 4));
    assert_eq!(listing(&tree, &store), ["700 3:4 usr/", "644 0:0 usr/x"]);
    // A layer that says nothing about the root.
    let tree = layer_tree(&Build::new(&store).layer("l"), true).unwrap();
    assert_eq!(tree.inode(Tree::ROOT).metadata, Metadata::root(0o755));
}

#[test]
fn the_last_of_several_files_wins() {
    let found = import(|b| {
        b.file("a", 0o644, "1")
            .file("a", 0o600, "2")
            .file("b", 0o644, "1")
            .symlink("b", "x")
            .symlink("c", "x")
            .file("c", 0o644, "2")
    });
    assert_eq!(found, ["600 0:0 a \"2\"", "777 0:0 b -> x", "644 0:0 c \"2\""]);
}

#[test]
fn directories_and_files_do_not_replace_each_other() {
    type Change = fn(Build<'_>) -> Build<'_>;
    let cases: [(Change, &str); 5] = [
        (|b| b.dir("a", 0o755).touch("a"), "a"),
        (|b| b.touch("a").dir("a", 0o755), "a"),
        (|b| b.symlink("a", "x").touch("a/b"), "a/b"),
        (|b| b.touch("x").dir("a", 0o755).link("a", "x"), "a"),
        (|b| b.touch("./"), "./"),
    ];
    for (build, path) in cases {
        let (kind, message) = refusal(build);
        assert_eq!(kind, "corrupt");
        assert!(message.starts_with(&format!("importing {path}: ")), "{message}");
    }
}

#[test]
fn hard_links_have_what_their_target_has_at_the_end() {
    let found = import(|b| {
        b.owner(1, 2)
            .file("usr/a", 0o640, "old")
            .owner(8, 9)
            .xattr("user.ignored", b"1")
            .link("usr/b", "./usr//a")
            .link("etc/c", "/usr/a")
            .owner(3, 4)
            .xattr("user.x", b"y")
            .file("usr/a", 0o600, "new")
            .link("usr/forward", "etc/later")
            .file("etc/later", 0o644, "l")
            .link("usr/chain", "usr/forward")
            .symlink("usr/s", "t")
            .link("usr/s2", "usr/s")
            .touch("usr/.wh.w")
            .link("usr/w", "usr/.wh.w")
    });
    let x = r#"{"user.x": "y"}"#;
    let expected = [
        "755 8:9 usr/".to_owned(),
        "644 3:4 usr/.wh.w".into(),
        format!("600 3:4 usr/a \"new\" {x}"),
        format!("600 3:4 usr/b \"new\" {x}"),
        "644 3:4 usr/chain \"l\"".into(),
        "755 8:9 usr/etc/".into(),
        format!("600 3:4 usr/etc/c \"new\" {x}"),
        "644 3:4 usr/etc/later \"l\"".into(),
        "644 3:4 usr/forward \"l\"".into(),
        "777 3:4 usr/s -> t".into(),
        "777 3:4 usr/s2 -> t".into(),
        "644 3:4 usr/w".into(),
    ];
    assert_eq!(found, expected);
}

#[test]
fn hard_links_to_nothing_are_refused() {
    let (kind, message) = refusal(|b| b.link("usr/b", "usr/lower"));
    assert_eq!(kind, "unsupported");
    assert!(message.contains("usr/b") && message.contains("usr/lower"), "{message}");
    assert_eq!(refusal(|b| b.link("usr/b", "run/x")).0, "unsupported");
    assert_eq!(refusal(|b| b.dir("usr/d", 0o755).link("usr/b", "usr/d")).0, "corrupt");
    assert_eq!(refusal(|b| b.link("a", "b").link("b", "a")).0, "unsupported");
    assert_eq!(refusal(|b| b.link("a", "a")).0, "unsupported");
    assert_eq!(import(|b| b.file("a", 0o644, "x").link("a", "a")), ["644 0:0 a \"x\""]);
}

/// A container has changed an object of its base: the upper layer has the object and links to it.
#[test]
fn changed_objects_go_where_links_lead() {
    let object = "sysroot/ostree/repo/objects/ab/cd.file";
    let store = store();
    let build = |b: Build<'_>| -> Layer {
        b.dir("usr", 0o755)
            .owner(1, 1)
            .file(object, 0o750, "new")
            .owner(0, 0)
            .link("usr/a", object)
            .link("usr/b", &format!("./{object}"))
            .layer("l")
    };
    let expected = ["755 0:0 usr/", "750 1:1 usr/a \"new\"", "750 1:1 usr/b \"new\""];
    for everything in [true, false] {
        let tree = layer_tree(&build(Build::new(&store)), everything).unwrap();
        assert_eq!(listing(&tree, &store), expected);
    }
    assert_eq!(import_with(&store, true, |b| b.file(object, 0o600, "unreferenced")), [""; 0]);
}

#[test]
fn attributes_are_those_that_a_file_system_keeps() {
    let found = import(|b| {
        b.xattr("user.empty", b"")
            .xattr("security.capability", b"\x01\0")
            .xattr("trusted.t", b"t")
            .file("f", 0o4755, "f")
            .xattr("trusted.t", b"t")
            .symlink("l", "x")
            .xattr("security.selinux", b"l\0")
            .dir("d", 0o1777)
    });
    assert_eq!(
        found,
        [
            r#"1777 0:0 d/ {"security.selinux": "l\\x00"}"#,
            r#"4755 0:0 f "f" {"security.capability": "\\x01\\x00", "trusted.t": "t"}"#,
            r#"777 0:0 l -> x {"trusted.t": "t"}"#,
        ]
    );
    assert_eq!(refusal(|b| b.xattr("user.x", b"1").symlink("l", "x")).0, "unsupported");
    assert_eq!(refusal(|b| b.xattr("nonamespace", b"1").touch("f")).0, "unsupported");
    assert_eq!(refusal(|b| b.xattr("user.", b"1").touch("f")).0, "unsupported");
    let (_, message) = refusal(|b| b.xattr("odd.x", b"1").touch("usr/f"));
    assert!(message.contains("usr/f") && message.contains("odd.x"), "{message}");
}

#[test]
fn modes_and_access_lists_agree() {
    let list = |entries: &[[u8; 2]]| -> Vec<u8> {
        let entries =
            entries.iter().flat_map(|[tag, rights]| [*tag, 0, *rights, 0, 0xff, 0xff, 0xff, 0xff]);
        [2, 0, 0, 0].into_iter().chain(entries).collect()
    };
    let full = list(&[[1, 6], [2, 7], [4, 4], [0x10, 5], [0x20, 0]]);
    let store = store();
    let layer = Build::new(&store)
        .xattr("system.posix_acl_access", &full)
        .file("f", 0o4777, "f")
        .xattr("system.posix_acl_access", &list(&[[1, 7], [4, 5], [0x20, 5]]))
        .file("g", 0o600, "g")
        .xattr("system.posix_acl_default", &full)
        .dir("d", 0o711)
        .layer("l");
    let tree = layer_tree(&layer, true).unwrap();
    let metadata = |name: &str| &tree.inode(tree.find(name).unwrap()).metadata;
    assert_eq!(metadata("f").mode, 0o4650);
    assert_eq!(metadata("f").xattrs.get(b"system.posix_acl_access"), Some(&full[..]));
    assert_eq!(metadata("g").mode, 0o755);
    assert!(metadata("g").xattrs.is_empty());
    assert_eq!(metadata("d").mode, 0o711);
    assert_eq!(metadata("d").xattrs.get(b"system.posix_acl_default"), Some(&full[..]));
    let default = |b: Build<'_>| b.xattr("system.posix_acl_default", &full).touch("f").layer("l");
    assert!(layer_tree(&default(Build::new(&store)), true).unwrap_err().is::<Unsupported>());
    let (kind, _) = refusal(|b| b.xattr("system.posix_acl_access", b"x").touch("f"));
    assert_eq!(kind, "corrupt");
}

#[test]
fn what_ostree_cannot_store_is_refused() {
    for kind in [EntryKind::CharacterDevice(0, 0), EntryKind::BlockDevice(8, 0), EntryKind::Fifo] {
        let (whose, message) = refusal(|b| b.entry("var/x", 0o600, kind.clone()));
        assert_eq!(whose, "unsupported");
        assert!(message.contains("var/x"), "{message}");
    }
    let long = "x".repeat(256);
    let deep = "d/".repeat(2048);
    assert_eq!(refusal(|b| b.touch(&long)).0, "unsupported");
    assert_eq!(refusal(|b| b.touch(&deep)).0, "unsupported");
    assert_eq!(refusal(|b| b.raw(b"usr/\xff", 0o644, EntryKind::Directory)).0, "unsupported");
    assert_eq!(refusal(|b| b.touch("usr/../x")).0, "corrupt");
    assert_eq!(refusal(|b| b.touch("")).0, "corrupt");
    assert_eq!(refusal(|b| b.symlink("l", "")).0, "corrupt");
    assert_eq!(import(|b| b.touch(&long[1..])), [format!("644 0:0 {}", &long[1..])]);
}

/// What the real importer makes of them; `tests/conformance/importer.rs` asks it.
#[test]
fn targets_of_links_are_spelled_as_the_importer_spells_them() {
    let long = format!("{}//.", "x".repeat(99));
    for (target, expected) in [
        ("a", "a"),
        ("../b", "../b"),
        ("/b//c/", "/b/c/"),
        ("./a/./b/.", "./a/b"),
        ("//a", "/a"),
        ("/", "//"),
        (".", "."),
        ("./", "./"),
        ("ü//./x", "ü//./x"),
        (&long, &long),
    ] {
        assert_eq!(String::from_utf8(respelled(target.as_bytes())).unwrap(), expected);
    }
}
