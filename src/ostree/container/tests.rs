//! Images that carry a commit: made here as the two generations of exporters make them.

use super::super::testing::{Build, image, listing, store};
use super::super::union::{PartKind, unite};
use super::*;
use crate::error::{Corrupt, Unsupported};
use crate::layer::EntryKind;
use crate::ostree::object::{Commit, CommitRoot};

/// The objects of a commit with `/usr/f` (with an attribute) and `/usr/l`, and maybe a configuration.
struct Objects {
    commit: (Checksum, Vec<u8>),
    /// Dirtrees and dirmetas.
    metadata: Vec<(&'static str, Vec<u8>)>,
    file: (Checksum, Inode),
    link: (Checksum, Inode),
    config: Option<(Checksum, Inode)>,
}

fn objects(store: &ContentStore, prepare_root: Option<&str>) -> Objects {
    let named = |inode: Inode| (object::file_checksum(&inode, store, &|_| {}).unwrap(), inode);
    let mut metadata = Metadata { uid: 1, gid: 2, ..Metadata::root(0o640) };
    metadata.xattrs.set(b"user.a", b"b");
    let text = store.insert_bytes(b"text").unwrap();
    let file = named(Inode { metadata, kind: Kind::File(text) });
    let link =
        named(Inode { metadata: Metadata::root(0o777), kind: Kind::Symlink((*b"f").into()) });
    let config = prepare_root.map(|text| {
        let content = store.insert_bytes(text.as_bytes()).unwrap();
        named(Inode { metadata: Metadata::root(0o644), kind: Kind::File(content) })
    });
    let meta = object::dirmeta(&Metadata::root(0o755));
    let meta_name = object::checksum(&meta);
    let mut metadata = vec![("dirmeta", meta)];
    let mut add = |tree: DirTree| {
        let bytes = tree.to_bytes();
        let name = object::checksum(&bytes);
        metadata.push(("dirtree", bytes));
        name
    };
    let mut directories = Vec::new();
    if let Some((name, _)) = &config {
        let file = ("prepare-root.conf".to_owned(), *name);
        let ostree = add(DirTree { files: vec![file], directories: vec![] });
        let ostree = ("ostree".to_owned(), ostree, meta_name);
        let lib = add(DirTree { files: vec![], directories: vec![ostree] });
        directories.push(("lib".to_owned(), lib, meta_name));
    }
    let files = vec![("f".to_owned(), file.0), ("l".to_owned(), link.0)];
    let usr = add(DirTree { files, directories });
    let usr = ("usr".to_owned(), usr, meta_name);
    let dirtree = add(DirTree { files: vec![], directories: vec![usr] });
    let root = CommitRoot { dirtree, dirmeta: meta_name };
    let commit = Commit { metadata: &[], parent: None, timestamp: 7, root }.to_bytes();
    Objects { commit: (object::checksum(&commit), commit), metadata, file, link, config }
}

fn path(checksum: Checksum, extension: &str) -> String {
    let digits = checksum.to_string();
    format!("sysroot/ostree/repo/objects/{}/{}.{extension}", &digits[..2], &digits[2..])
}

fn value(store: &ContentStore, bytes: &[u8]) -> EntryKind {
    EntryKind::File(store.insert_bytes(bytes).unwrap())
}

/// The commit layer.
fn commit_layer(store: &ContentStore, objects: &Objects) -> Layer {
    let mut build = Build::new(store)
        .dir("./", 0o755)
        .dir("sysroot/ostree/repo/objects/00", 0o755)
        .touch("sysroot/ostree/repo/config")
        .entry(&path(objects.commit.0, "commit"), 0o644, value(store, &objects.commit.1))
        .entry(&path(objects.commit.0, "commitmeta"), 0o644, value(store, b"signatures"));
    for (extension, bytes) in &objects.metadata {
        build = build.entry(&path(object::checksum(bytes), extension), 0o644, value(store, bytes));
    }
    build.layer("commit")
}

fn content<'a>(build: Build<'a>, (name, inode): &(Checksum, Inode)) -> Build<'a> {
    let kind = match &inode.kind {
        Kind::File(content) => EntryKind::File(content.clone()),
        Kind::Symlink(target) => EntryKind::Symlink(target.clone()),
        other => panic!("{other:?}"),
    };
    build.owner(inode.metadata.uid, inode.metadata.gid).entry(
        &path(*name, "file"),
        inode.metadata.mode,
        kind,
    )
}

/// The chunk layer as it is made today: the list of the xattrs before each object, or a link to one.
fn chunk_layer(store: &ContentStore, objects: &Objects) -> Layer {
    let list = object::xattr_list(&objects.file.1.metadata.xattrs);
    let list_path = path(object::checksum(&list), "file-xattrs");
    let mut build = Build::new(store)
        .entry(&list_path, 0o644, value(store, &list))
        .link(&path(objects.file.0, "file-xattrs-link"), &list_path);
    build = content(build, &objects.file).entry(
        &path(objects.link.0, "file-xattrs-link"),
        0o644,
        value(store, b""),
    );
    build = content(build, &objects.link).link("usr/f", &path(objects.file.0, "file"));
    if let Some(config) = &objects.config {
        build = content(build, config);
    }
    build.layer("chunk")
}

/// A layer of the first form: lists are in a directory of their own.
fn old_chunk_layer(store: &ContentStore, objects: &Objects) -> Layer {
    let list = object::xattr_list(&objects.file.1.metadata.xattrs);
    let list_path = format!("sysroot/ostree/repo/xattrs/{}", object::checksum(&list));
    let build = Build::new(store)
        .entry(&list_path, 0o644, value(store, &list))
        .link(&path(objects.file.0, "file.xattrs"), &list_path);
    content(content(build, &objects.file), &objects.link).layer("chunk")
}

fn labels(commit: Checksum) -> [(&'static str, String); 2] {
    [("ostree.final-diffid", "sha256:diff-chunk".to_owned()), ("ostree.commit", commit.to_string())]
}

fn encapsulated_image(layers: &[Layer], commit: Checksum) -> Image {
    let labels = labels(commit);
    image(layers, &labels.each_ref().map(|(name, value)| (*name, value.as_str())))
}

#[test]
fn both_generations_give_the_commit() {
    let store = store();
    let objects = objects(&store, None);
    for chunk in [chunk_layer(&store, &objects), old_chunk_layer(&store, &objects)] {
        let layers = vec![commit_layer(&store, &objects), chunk];
        let image = encapsulated_image(&layers, objects.commit.0);
        let union = unite(&image, layers, &store).unwrap();
        let base = union.base.as_ref().unwrap();
        assert_eq!(base.commit, objects.commit.0);
        let signatures = &base.metadata[&(objects.commit.0, MetadataKind::CommitMeta)];
        assert_eq!(signatures, b"signatures");
        assert_eq!(
            listing(&union.root, &store),
            ["755 0:0 usr/", r#"640 1:2 usr/f "text" {"user.a": "b"}"#, "777 0:0 usr/l -> f"]
        );
        let PartKind::Chunk(files) = &union.layers[1].kind else { panic!() };
        assert_eq!(files, &BTreeSet::from([objects.file.0, objects.link.0]));

        let target = "docker://q/x";
        let (repository, committed) = union
            .commit(&image, target, None, &store, &crate::progress::Progress::default())
            .unwrap();
        let digest = object::checksum(b"commit");
        let blob = format!("ostree/container/blob/sha256_3A_{digest}");
        assert_eq!(repository.refs()[&blob], objects.commit.0);
        // The merge commit has the tree of its parent, and so its objects.
        let merge = &repository.metadata[&(committed.checksum, MetadataKind::Commit)];
        assert_eq!(object::parse_commit(merge), object::parse_commit(&objects.commit.1));
        assert_eq!(repository.files.len(), 2);
    }
}

#[test]
fn layers_on_top_are_united_over_the_commit() {
    let store = store();
    for (text, kept) in [
        (None, false),
        (Some("[composefs]\nenabled = no\n[x]\nenabled=yes"), false),
        (Some("[composefs]\nenabled = signed\n"), true),
        (Some("# c\n[root]\ntransient=true\n"), true),
    ] {
        let objects = objects(&store, text);
        let upper = Build::new(&store)
            .owner(9, 9)
            .dir("usr", 0o700)
            .touch("usr/.wh.f")
            .file("usr/new", 0o644, "n")
            .touch("opt")
            .layer("upper");
        let layers = vec![commit_layer(&store, &objects), chunk_layer(&store, &objects), upper];
        let image = encapsulated_image(&layers, objects.commit.0);
        let union = unite(&image, layers, &store).unwrap();
        let found = listing(&union.root, &store);
        assert_eq!(found.iter().any(|line| line == "644 9:9 opt"), kept, "{text:?} {found:?}");
        assert!(found.contains(&"755 0:0 usr/".to_owned()), "{found:?}");
        assert!(found.contains(&"644 9:9 usr/new \"n\"".to_owned()), "{found:?}");
        assert!(!found.iter().any(|line| line.contains("usr/f")), "{found:?}");
        assert!(matches!(union.layers[2].kind, PartKind::Derived(_)));
    }
}

#[test]
fn what_is_not_what_it_is_called_is_refused() {
    let store = store();
    let objects = objects(&store, None);
    let good = || vec![commit_layer(&store, &objects), chunk_layer(&store, &objects)];
    let outcome = |layers: Vec<Layer>| -> Result<()> {
        let image = encapsulated_image(&layers, objects.commit.0);
        let union = unite(&image, layers, &store)?;
        union.commit(&image, "oci:x", None, &store, &crate::progress::Progress::default())?;
        Ok(())
    };
    outcome(good()).unwrap();

    let index = |layer: &Layer, end: &str| {
        let ends = |e: &Entry| String::from_utf8_lossy(&e.path).ends_with(end);
        layer.entries.iter().position(ends).unwrap()
    };
    let mut cases: Vec<(&str, Vec<Layer>)> = Vec::new();
    for (layer, end) in
        [(0, ".commit"), (0, ".dirtree"), (0, ".dirmeta"), (1, ".file"), (1, "-xattrs")]
    {
        let mut changed = good();
        let at = index(&changed[layer], end);
        changed[layer].entries[at].kind = value(&store, b"other bytes");
        cases.push(("its checksum is", changed));
        let mut removed = good();
        let at = index(&removed[layer], end);
        removed[layer].entries.remove(at);
        cases.push(("", removed));
    }
    let mut mode = good();
    let at = index(&mode[1], ".file");
    mode[1].entries[at].metadata.mode = 0o600;
    cases.push(("its checksum is", mode));
    let mut misplaced = good();
    let dirmeta = misplaced[0].entries.pop().unwrap();
    misplaced[1].entries.push(dirmeta);
    cases.push(("only the first layer", misplaced));
    let mut twice = good();
    let other = Commit {
        metadata: &[],
        parent: None,
        timestamp: 8,
        root: object::parse_commit(&objects.commit.1).unwrap(),
    };
    let bytes = other.to_bytes();
    let name = path(object::checksum(&bytes), "commit");
    let entries = Build::new(&store).entry(&name, 0o644, value(&store, &bytes)).layer("x").entries;
    twice[0].entries.extend(entries);
    cases.push(("a second commit", twice));
    let mut odd = good();
    let entries =
        Build::new(&store).touch("sysroot/ostree/repo/objects/zz/y.file").layer("x").entries;
    odd[1].entries.extend(entries);
    cases.push(("not a name of an object", odd));

    for (number, (reason, layers)) in cases.into_iter().enumerate() {
        let error = outcome(layers).expect_err(&format!("case {number}: {reason}"));
        assert!(error.is::<Corrupt>(), "case {number}: {error:?}");
        assert!(format!("{error:#}").contains(reason), "case {number}: {error:#}");
    }
    let layers = good();
    let image = encapsulated_image(&layers, object::checksum(b"another"));
    let error = unite(&image, layers, &store).unwrap_err();
    assert!(format!("{error:#}").contains("ostree.commit"), "{error:#}");
}

/// A few hundred bytes can describe a tree of 2^200 directories, or one too deep for paths.
#[test]
fn endless_trees_are_refused() {
    let meta = object::dirmeta(&Metadata::root(0o755));
    let meta_name = object::checksum(&meta);
    for (names, depth) in [(&["a", "b"][..], 200), (&["a"], 5000)] {
        let mut trees = vec![DirTree::default().to_bytes()];
        for _ in 0..depth {
            let below = object::checksum(trees.last().unwrap());
            let directories = names.iter().map(|n| ((*n).to_owned(), below, meta_name)).collect();
            trees.push(DirTree { files: vec![], directories }.to_bytes());
        }
        let dirtree = object::checksum(trees.last().unwrap());
        let root = CommitRoot { dirtree, dirmeta: meta_name };
        let commit = Commit { metadata: &[], parent: None, timestamp: 0, root }.to_bytes();
        let name = object::checksum(&commit);
        let mut metadata = BTreeMap::from([
            ((name, MetadataKind::Commit), commit),
            ((meta_name, MetadataKind::DirMeta), meta.clone()),
        ]);
        let trees = trees.into_iter().map(|t| ((object::checksum(&t), MetadataKind::DirTree), t));
        metadata.extend(trees);
        let base = Base { commit: name, metadata, files: BTreeMap::new(), chunks: Vec::new() };
        assert!(base.tree_within(10_000).unwrap_err().is::<Unsupported>());
    }
}
