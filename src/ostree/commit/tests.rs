//! Commits of small images. `tests/conformance/ostree_repo.rs` has ostree itself read what comes out.

use super::super::testing::{Build, image, store};
use super::super::union::unite;
use super::*;
use crate::layer::Layer;
use crate::tree::Kind;

fn layers(store: &ContentStore) -> Vec<Layer> {
    vec![
        Build::new(store)
            .dir("usr", 0o755)
            .file("usr/shared", 0o644, "shared")
            .file("usr/gone", 0o644, "gone")
            .file("etc/x", 0o600, "x")
            .layer("lower"),
        Build::new(store)
            .touch("usr/.wh.gone")
            .xattr("security.selinux", b"old\0")
            .file("usr/upper", 0o755, "upper")
            .symlink("usr/link", "upper")
            .layer("upper"),
    ]
}

fn commit(labels: Option<&Labels<'_>>) -> (Repository, Committed) {
    let store = store();
    let layers = layers(&store);
    let image = image(&layers, &[]);
    let union = unite(&image, layers, &store).unwrap();
    union.commit(&image, "docker://q.io/x:1", labels, &store, &Progress::default()).unwrap()
}

/// Names and their content objects, below a commit, read from the repository's own objects.
fn names(repository: &Repository, commit: Checksum) -> Vec<(String, Checksum)> {
    let bytes = |c, kind| &repository.metadata[&(c, kind)];
    let root = object::parse_commit(bytes(commit, MetadataKind::Commit)).unwrap();
    let mut found = Vec::new();
    let mut stack = vec![(String::new(), root.dirtree)];
    while let Some((path, dirtree)) = stack.pop() {
        let listing = DirTree::parse(bytes(dirtree, MetadataKind::DirTree)).unwrap();
        for (name, file) in listing.files {
            assert!(repository.files.contains_key(&file));
            found.push((format!("{path}/{name}"), file));
        }
        for (name, below, dirmeta) in listing.directories {
            object::parse_dirmeta(bytes(dirmeta, MetadataKind::DirMeta)).unwrap();
            stack.push((format!("{path}/{name}"), below));
        }
    }
    found.sort();
    found
}

#[test]
fn every_layer_and_the_merge_have_their_reference() {
    let (repository, committed) = commit(None);
    let digest = |name: &str| object::checksum(name.as_bytes());
    let blob = |name| format!("ostree/container/blob/sha256_3A_{}", digest(name));
    let image = "ostree/container/image/docker_3A__2F__2F_q_2E_io/x_3A_1";
    assert_eq!(
        repository.refs.keys().cloned().collect::<BTreeSet<_>>(),
        BTreeSet::from([blob("lower"), blob("upper"), image.into(), "ostree/1/1/0".into()])
    );
    assert_eq!(repository.refs[image], committed.checksum);
    assert_eq!(repository.refs["ostree/1/1/0"], committed.checksum);
    let paths = |name: &str| -> Vec<String> {
        names(&repository, repository.refs[name]).into_iter().map(|(path, _)| path).collect()
    };
    assert_eq!(paths(&blob("lower")), ["/usr/etc/x", "/usr/gone", "/usr/shared"]);
    assert_eq!(paths(&blob("upper")), ["/usr/.wh.gone", "/usr/link", "/usr/upper"]);
    assert_eq!(paths(image), ["/usr/etc/x", "/usr/link", "/usr/shared", "/usr/upper"]);
    // usr/.wh.gone, link, upper, etc/x, gone, shared: each once.
    assert_eq!(repository.files.len(), 6);
    let (lower, merged) = (
        names(&repository, repository.refs[&blob("lower")]),
        names(&repository, committed.checksum),
    );
    assert_eq!(lower[2], merged[2]);
}

#[test]
fn the_committed_tree_names_its_objects() {
    let (repository, Committed { tree, objects, .. }) = commit(None);
    for (path, id) in tree.walk() {
        let inode = tree.inode(id);
        let object = objects[id.index()].map(|checksum| &repository.files[&checksum]);
        match &inode.kind {
            Kind::Directory(_) => assert_eq!(object, None),
            _ => assert_eq!(object, Some(inode), "{}", String::from_utf8_lossy(&path)),
        }
    }
}

/// The whole object, so that a change of anything in it is seen.
#[test]
fn merge_commits_are_what_they_were() {
    let (repository, committed) = commit(None);
    let bytes = &repository.metadata[&(committed.checksum, MetadataKind::Commit)];
    let text = String::from_utf8_lossy(bytes);
    for part in [
        "ostree.container.image-config\0\0\0{\"config\":{\"Labels\":{}},\"created\":\"2026-11-20T10:11:12Z\"}\0\0s",
        "ostree.importer.version\x000.15.3\0\0s",
        "ostree.manifest\0{\"schemaVersion\":2}\0\0s",
        "ostree.manifest-digest\0\0sha256:00\0\0s",
    ] {
        assert!(text.contains(part), "{part:?} in {text:?}");
    }
    let again = commit(None).1.checksum;
    assert_eq!(again, committed.checksum);
}

#[test]
fn labels_go_on_everything_and_by_path() {
    let labels = |path: &str, st_mode: u32| -> Result<Option<Arc<[u8]>>> {
        Ok(match path {
            "/usr/shared" => None,
            path => Some(format!("{path}:{st_mode:o}").into_bytes().into()),
        })
    };
    let (repository, Committed { tree, checksum, .. }) = commit(Some(&labels));
    let label = |path: &str| {
        let metadata = &tree.inode(tree.find(path).unwrap()).metadata;
        metadata.xattrs.get(b"security.selinux").map(|l| String::from_utf8(l.to_vec()).unwrap())
    };
    assert_eq!(label("").as_deref(), Some("/:40755\0"));
    assert_eq!(label("usr/etc/x").as_deref(), Some("/usr/etc/x:100600\0"));
    assert_eq!(label("usr/link").as_deref(), Some("/usr/link:120777\0"));
    assert_eq!(label("usr/upper").as_deref(), Some("/usr/upper:100755\0"));
    assert_eq!(label("usr/shared"), None);
    // The layers have the same labels, and so share their objects with the merge.
    let merged = names(&repository, checksum);
    for (name, commit) in &repository.refs {
        for (path, file) in names(&repository, *commit) {
            if !["/usr/.wh.gone", "/usr/gone"].contains(&path.as_str()) {
                assert!(merged.contains(&(path.clone(), file)), "{name} {path}");
            }
        }
    }
    assert_eq!(repository.files.len(), 6);
}

#[test]
fn a_label_that_cannot_be_found_names_the_path() {
    let labels = |path: &str, _| -> Result<Option<Arc<[u8]>>> {
        anyhow::ensure!(path != "/usr/upper", "no such luck");
        Ok(None)
    };
    let store = store();
    let layers = layers(&store);
    let image = image(&layers, &[]);
    let union = unite(&image, layers, &store).unwrap();
    let error =
        union.commit(&image, "oci:x", Some(&labels), &store, &Progress::default()).unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "labelling the merged tree: labelling /usr/upper: no such luck"
    );
}
