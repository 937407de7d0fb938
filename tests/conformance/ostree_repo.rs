//! ostree itself as the witness of our repositories: it imports the same layers, unites them with its own checkout, commits,
//! and reads what we have written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bootpress::architecture::Architecture;
use bootpress::content::ContentStore;
use bootpress::image::Image;
use bootpress::layer::{Entry, EntryKind, Layer};
use bootpress::ostree::{Committed, unite};
use bootpress::progress::Progress;
use bootpress::tree::{Metadata, Tree, Xattrs};
use serde_json::json;

use crate::directory;
use support::tool::{run, tool};

/// A small generator of numbers, so that a failing case can be named by its seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }
}

/// A directory on the disk with the target, whose file system takes extended attributes.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub(crate) fn ostree(repository: &Path) -> Option<Command> {
    let mut command = tool("ostree")?;
    command.arg(format!("--repo={}", repository.display()));
    Some(command)
}

/// A repository of ostree's; what happens to it when the machine loses power is no matter here.
pub(crate) fn init(repository: &Path) {
    run(ostree(repository).unwrap().args(["init", "--mode=bare"]));
    run(ostree(repository).unwrap().args(["config", "set", "core.fsync", "false"]));
}

/// The dirtree and dirmeta of a commit's root, as ostree prints them.
pub(crate) fn root_of(repository: &Path, commit: &str) -> String {
    let line = run(ostree(repository).unwrap().args(["ls", "-dC", commit, "/"]));
    line.split_whitespace().skip(4).take(2).collect::<Vec<_>>().join(" ")
}

fn image(layers: &[Layer], labels: &serde_json::Value) -> Image {
    assert!(!layers.is_empty());
    Image {
        reference: "oci:x".into(),
        name: None,
        architecture: Architecture::X86_64,
        manifest_digest: "sha256:00".into(),
        manifest: json!({ "schemaVersion": 2 }),
        config: json!({ "created": "2026-11-20T10:11:12Z", "config": { "Labels": labels } }),
        layers: Vec::new(),
    }
}

/// Unites and commits, and writes the repository to `to`.
fn ours(
    layers: Vec<Layer>,
    labels: &serde_json::Value,
    store: &ContentStore,
    to: &Path,
) -> Committed {
    let image = image(&layers, labels);
    let union = unite(&image, layers, store).unwrap();
    let target = "docker://q.io/x:1";
    let (repository, committed) =
        union.commit(&image, target, None, store, &Progress::default()).unwrap();
    let mut sysroot = Tree::new(Metadata::root(0o755));
    repository.place(&mut sysroot, &[("sysroot", "readonly", "true")], store).unwrap();
    fs::create_dir(to).unwrap();
    directory::write(&sysroot, "ostree/repo", store, to);
    committed
}

pub(crate) fn blob(digest: &str) -> String {
    format!("ostree/container/blob/{}", digest.replace(':', "_3A_"))
}

/// Who owns what; only root may give files away.
fn owner(dice: &mut Dice) -> (u32, u32) {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if uid.is_root() {
        (u32::try_from(dice.roll(3)).unwrap() * 70_000, u32::try_from(dice.roll(3)).unwrap())
    } else {
        (uid.as_raw(), gid.as_raw())
    }
}

fn metadata(dice: &mut Dice, kind: &EntryKind) -> Metadata {
    let (uid, gid) = owner(dice);
    let symlink = matches!(kind, EntryKind::Symlink(_));
    let mut xattrs = Xattrs::NONE;
    if !symlink && dice.roll(4) == 0 {
        for name in [&b"user.b"[..], b"user.a"] {
            let length = dice.roll(400) + 1;
            let value: Vec<u8> =
                (0..length).map(|_| u8::try_from(dice.roll(256)).unwrap()).collect();
            xattrs.set(name, &value);
        }
    }
    // The owner keeps all rights, so that this also works without root.
    let mode = if symlink { 0o777 } else { 0o700 | u16::try_from(dice.roll(0o10000)).unwrap() };
    Metadata { mode, uid, gid, mtime: 1, xattrs, immutable: false }
}

fn name(dice: &mut Dice) -> String {
    let name = dice.pick(&["a", "b", "c", "-x", "ü", "z.z"]);
    match dice.roll(8) {
        0 => format!(".wh.{name}"),
        1 if dice.roll(2) == 0 => ".wh..wh..opq".into(),
        _ => name.into(),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Was {
    Directory,
    File,
    Link,
}

/// A layer in which everything happens that does not make ostree refuse it.
pub(crate) fn random_layer(dice: &mut Dice, store: &ContentStore, number: usize) -> Layer {
    let mut entries = vec![Entry {
        path: (*b"./").into(),
        metadata: metadata(dice, &EntryKind::Directory),
        nanoseconds: 0,
        kind: EntryKind::Directory,
    }];
    let mut known: BTreeMap<String, Was> = BTreeMap::new();
    for _ in 0..60 {
        let depth = dice.roll(3) + 1;
        let names: Vec<String> = (0..depth).map(|_| name(dice)).collect();
        let mut path = names.join("/");
        let roll = dice.roll(7);
        // ostree 2022.7 follows a link that stands where a directory shall be, and fails at a file there; newer ones, and we,
        // replace both. So the names here tell what they name; whiteouts may name anything.
        match roll {
            0 | 1 => {}
            2 => path.push_str(".link"),
            _ if !names.last().unwrap().starts_with(".wh.") => path.push_str(".file"),
            _ if path.ends_with("opq") => {}
            _ => path.push_str(dice.pick(&["", ".link", ".file"])),
        }
        let above: Vec<String> = (1..names.len()).map(|n| names[..n].join("/")).collect();
        let kind = match roll {
            0 | 1 => EntryKind::Directory,
            2 => EntryKind::Symlink(dice.pick(&["a", "/b/c/", "../ü"]).as_bytes().into()),
            3 => {
                let files: Vec<&String> = known
                    .iter()
                    .filter(|(_, was)| **was == Was::File)
                    .map(|(path, _)| path)
                    .collect();
                let Some(target) = files.first() else { continue };
                EntryKind::HardLink(format!("./{target}").into_bytes().into())
            }
            _ => {
                let text = "text ".repeat(usize::try_from(dice.roll(3)).unwrap());
                EntryKind::File(store.insert_bytes(text.as_bytes()).unwrap())
            }
        };
        let was = match kind {
            EntryKind::Directory => Was::Directory,
            EntryKind::File(_) => Was::File,
            _ => Was::Link,
        };
        let in_the_way =
            above.iter().any(|path| known.get(path).is_some_and(|was| *was != Was::Directory));
        let clash = known.get(&path).is_some_and(|before| *before != was || was == Was::Link);
        if in_the_way || clash {
            continue;
        }
        for path in above {
            known.insert(path, Was::Directory);
        }
        known.insert(path.clone(), was);
        let metadata = metadata(dice, &kind);
        entries.push(Entry {
            path: format!("./{path}").into_bytes().into(),
            metadata,
            nanoseconds: 0,
            kind,
        });
    }
    let digest = format!("sha256:{number:064}");
    Layer { diff_id: digest.clone(), digest, size: 1, entries }
}

/// The layer as the archive it could have come from.
pub(crate) fn archive(layer: &Layer, store: &ContentStore) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in &layer.entries {
        let mut records = Vec::new();
        // Backwards: libarchive hands them over in reverse, and ostree 2022.7 names objects by them unsorted.
        let xattrs: Vec<_> = entry.metadata.xattrs.iter().collect();
        for (name, value) in xattrs.into_iter().rev() {
            let record = [b" SCHILY.xattr.", name, b"=", value, b"\n"].concat();
            // The length counts its own digits.
            let length = (1..5)
                .map(|digits| record.len() + digits)
                .find(|n| n.to_string().len() + record.len() == *n);
            records.extend(length.unwrap().to_string().into_bytes());
            records.extend(record);
        }
        if !records.is_empty() {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::XHeader);
            header.set_size(records.len() as u64);
            header.set_cksum();
            builder.append(&header, &records[..]).unwrap();
        }
        let mut header = tar::Header::new_ustar();
        header.set_path(String::from_utf8(entry.path.to_vec()).unwrap()).unwrap();
        header.set_mode(u32::from(entry.metadata.mode));
        header.set_uid(entry.metadata.uid.into());
        header.set_gid(entry.metadata.gid.into());
        header.set_mtime(1);
        let mut bytes = Vec::new();
        let (kind, target) = match &entry.kind {
            EntryKind::Directory => (tar::EntryType::Directory, None),
            EntryKind::Symlink(target) => (tar::EntryType::Symlink, Some(target)),
            EntryKind::HardLink(target) => (tar::EntryType::Link, Some(target)),
            EntryKind::File(content) => {
                bytes = store.bytes(content).unwrap();
                (tar::EntryType::Regular, None)
            }
            other => panic!("{other:?}"),
        };
        header.set_entry_type(kind);
        if let Some(target) = target {
            header.set_link_name_literal(target).unwrap();
        }
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Compares two commits by their roots, and tells the names that differ.
#[track_caller]
fn assert_same(seed: u64, theirs: (&Path, &str), ours: (&Path, &str)) {
    if root_of(theirs.0, theirs.1) == root_of(ours.0, ours.1) {
        return;
    }
    let lines = |(repository, commit): (&Path, &str)| -> BTreeSet<String> {
        let list = run(ostree(repository).unwrap().args(["ls", "-RCX", commit]));
        list.lines().map(str::to_owned).collect()
    };
    let (expected, found) = (lines(theirs), lines(ours));
    let missing: Vec<_> = expected.difference(&found).collect();
    let unexpected: Vec<_> = found.difference(&expected).collect();
    panic!("seed {seed}, {}:\nmissing {missing:#?}\nunexpected {unexpected:#?}", theirs.1);
}

#[test]
fn ostree_makes_the_same_of_random_layers() {
    if tool("ostree").is_none() || tool("setfattr").is_none() {
        return;
    }
    for seed in 1..=3 {
        let directory = scratch();
        let at = |name: &str| -> PathBuf { directory.path().join(name) };
        let store = ContentStore::create_in(directory.path()).unwrap();
        let mut dice = Dice(seed);
        let layers: Vec<Layer> =
            (0..3).map(|number| random_layer(&mut dice, &store, number)).collect();

        let theirs = at("theirs");
        init(&theirs);
        for (number, layer) in layers.iter().enumerate() {
            fs::write(at("tar"), archive(layer, &store)).unwrap();
            run(ostree(&theirs).unwrap().args([
                "commit",
                &format!("--branch=layer{number}"),
                &format!("--tree=tar={}", at("tar").display()),
                "--tar-autocreate-parents",
                "--no-bindings",
            ]));
            run(ostree(&theirs)
                .unwrap()
                .args(["checkout", "--union", "--whiteouts", &format!("layer{number}")])
                .arg(at("united")));
        }
        run(ostree(&theirs).unwrap().args([
            "commit",
            "--branch=merge",
            &format!("--tree=dir={}", at("united").display()),
            "--no-bindings",
        ]));

        let digests: Vec<String> = layers.iter().map(|layer| layer.digest.clone()).collect();
        let committed = ours(layers, &json!({}), &store, &at("ours"));
        for (number, digest) in digests.iter().enumerate() {
            let layer = format!("layer{number}");
            assert_same(seed, (&theirs, &layer), (&at("ours"), &blob(digest)));
        }
        assert_same(seed, (&theirs, "merge"), (&at("ours"), &committed.checksum.to_string()));
        run(ostree(&at("ours")).unwrap().arg("fsck"));
    }
}

/// The objects of a repository of ostree's as the layers in which an image would carry them.
fn encapsulated(repository: &Path, commit: &str, store: &ContentStore) -> Vec<Layer> {
    let (mut metadata, mut chunk) = (Vec::new(), Vec::new());
    let mut fans: Vec<_> =
        fs::read_dir(repository.join("objects")).unwrap().map(Result::unwrap).collect();
    fans.sort_by_key(fs::DirEntry::file_name);
    for fan in fans {
        for object in fs::read_dir(fan.path()).unwrap().map(Result::unwrap) {
            let (fan, name) = (fan.file_name(), object.file_name());
            let (fan, name) = (fan.to_str().unwrap(), name.to_str().unwrap());
            let path = format!("sysroot/ostree/repo/objects/{fan}/{name}");
            let entry = |path: &str, kind| {
                use std::os::unix::fs::MetadataExt;
                let on_disk = object.metadata().unwrap();
                let metadata = Metadata {
                    uid: on_disk.uid(),
                    gid: on_disk.gid(),
                    ..Metadata::root(u16::try_from(on_disk.mode() & 0o7777).unwrap())
                };
                Entry { path: path.as_bytes().into(), metadata, nanoseconds: 0, kind }
            };
            let kind = match fs::read_link(object.path()) {
                Ok(target) => {
                    EntryKind::Symlink(target.into_os_string().into_encoded_bytes().into())
                }
                Err(_) => {
                    EntryKind::File(store.insert_bytes(&fs::read(object.path()).unwrap()).unwrap())
                }
            };
            if name.ends_with(".file") {
                // An empty list of attributes has no bytes.
                let none = EntryKind::File(store.insert_bytes(b"").unwrap());
                chunk.push(entry(&format!("{path}-xattrs-link"), none));
                chunk.push(entry(&path, kind));
            } else if format!("{fan}{name}") == format!("{commit}.commit") {
                metadata.insert(0, entry(&path, kind));
            } else {
                metadata.push(entry(&path, kind));
            }
        }
    }
    [("0", metadata), ("1", chunk)]
        .into_iter()
        .map(|(name, entries)| {
            let digest = format!("sha256:{name}");
            Layer { diff_id: digest.clone(), digest, size: 1, entries }
        })
        .collect()
}

#[test]
fn commits_of_ostree_travel_through_images() {
    if tool("ostree").is_none() {
        return;
    }
    let directory = scratch();
    let at = |name: &str| -> PathBuf { directory.path().join(name) };
    let store = ContentStore::create_in(directory.path()).unwrap();
    let theirs = at("theirs");
    for path in ["tree/usr/bin", "tree/usr/etc/ü", "tree/var"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    for (path, text) in
        [("tree/usr/bin/x", "x"), ("tree/usr/etc/ü/empty", ""), ("tree/usr/etc/y", "x")]
    {
        fs::write(at(path), text).unwrap();
    }
    std::os::unix::fs::symlink("x//", at("tree/usr/bin/l")).unwrap();
    init(&theirs);
    let commit = run(ostree(&theirs).unwrap().args([
        "commit",
        "--branch=base",
        "--subject=A subject",
        "--body=line 1\nline 2",
        "--add-metadata-string=version=1",
        "--add-metadata=ostree.linux=uint32 7",
        &format!("--tree=dir={}", at("tree").display()),
    ]));
    let commit = commit.trim().to_owned();

    let layers = encapsulated(&theirs, &commit, &store);
    let labels = json!({ "ostree.final-diffid": "sha256:1", "ostree.commit": commit });
    let committed = ours(layers, &labels, &store, &at("ours"));
    let merge = committed.checksum.to_string();
    assert_eq!(root_of(&at("ours"), &merge), root_of(&theirs, &commit));
    assert_eq!(
        run(ostree(&at("ours")).unwrap().args(["rev-parse", &blob("sha256:0")])).trim(),
        commit
    );
    let shown = run(ostree(&at("ours")).unwrap().args(["show", &merge]));
    assert!(shown.contains(&format!("Parent:  {commit}")), "{shown}");
    assert!(shown.contains("Date:  2026-11-20 10:11:12 +0000"), "{shown}");
    run(ostree(&at("ours")).unwrap().arg("fsck"));

    // A chunk's commit names every content object by its checksum.
    let listed = run(ostree(&at("ours")).unwrap().args(["ls", "-C", &blob("sha256:1"), "/"]));
    let mut names = BTreeSet::new();
    for line in listed.lines().filter(|line| line.starts_with(['-', 'l'])) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let name = fields[4];
        assert_eq!(fields[5].trim_start_matches('/'), name, "{line}");
        names.insert(name.to_owned());
    }
    assert_eq!(names.len(), 3, "{listed}");
}
