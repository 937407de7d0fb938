//! XFS, as `mkfs.xfs`, `xfs_repair` and `xfs_db` of two releases, GRUB and the running kernel see it.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bootpress::content::{Content, ContentStore};
use bootpress::filesystem::xfs::{
    Groups, Layout, MINIMUM_SIZE, Options, Profile, Wanted, dump, fit,
};
use bootpress::tree::{Kind, Metadata, Tree};
use uuid::Uuid;

use crate::ext4::{rich_tree, store, xattrs};
use crate::unwritten::Unwritten;
use support::tool::{newest, run, tool};

mod build;
mod empty;
mod forms;
mod kernel;
mod random;

const MIB: u64 = 1 << 20;

fn options(size: u64) -> Options {
    Options {
        size,
        uuid: Uuid::from_u128(0x1111_1111_2222_4333_8444_5555_5555_5555),
        label: "root".to_owned(),
        sector_size: 512,
        profile: Profile::Lts612,
        groups: Groups::Four,
        time: 1_700_000_000,
    }
}

/// Both profiles, both sector sizes, both numbers of groups.
fn variants(size: u64) -> [Options; 3] {
    [
        options(size),
        Options { profile: Profile::Lts61, groups: Groups::Two, ..options(size) },
        Options { sector_size: 4096, groups: Groups::Two, ..options(size) },
    ]
}

fn press(tree: &Tree, contents: &Arc<ContentStore>, options: &Options) -> Unwritten {
    let layout = Layout::of(tree, options).unwrap();
    Unwritten::new(layout.emit(tree), contents)
}

/// `xfs_repair` and `xfs_db` find nothing to say about it: those of this machine's release, and the newest.
#[track_caller]
fn check(path: &Path) {
    for find in [tool, newest] {
        if let Some(mut repair) = find("xfs_repair") {
            let said = run(repair.args(["-n", "-f"]).arg(path));
            let worth = |line: &&str| !is_progress(line);
            let said: Vec<&str> = said.lines().filter(worth).collect();
            assert!(said.is_empty(), "{said:?}");
        }
        database(find("xfs_db"), path);
    }
}

/// `xfs_db` counts all blocks; it wants long for millions of names.
#[track_caller]
fn database(xfs_db: Option<Command>, path: &Path) {
    let Some(mut xfs_db) = xfs_db else { return };
    let said = run(xfs_db.args(["-r", "-f", "-c", "blockget -s -n"]).arg(path));
    let said: Vec<&str> = said.lines().filter(|line| !is_progress(line)).collect();
    assert!(said.is_empty(), "{said:?}");
}

/// What `xfs_repair -n` says of itself, and what it says where the image's file system has other sectors.
fn is_progress(line: &str) -> bool {
    let line = line.trim();
    line.is_empty()
        || line.starts_with("Phase ")
        || line.starts_with("- ")
        || line.starts_with("No modify flag set")
        || line == "Cannot get host filesystem geometry."
        || line == "Repair may fail if there is a sector size mismatch between"
        || line == "the image and the host filesystem."
}

/// One of everything that XFS can hold.
fn everything(contents: &ContentStore) -> Tree {
    let mut tree = rich_tree(contents);
    let usr = tree.find("usr").unwrap();
    // Longer than XFS' 1023 bytes.
    tree.unlink(usr, b"link-4095");
    tree
}

#[test]
fn everything_passes_repair_of_both_releases() {
    let contents = store();
    let tree = everything(&contents);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xfs");
    for options in variants(400 * MIB) {
        press(&tree, &contents, &options).write(&path);
        check(&path);
    }
}

#[test]
fn same_input_gives_same_bytes() {
    let contents = store();
    let tree = everything(&contents);
    let one = press(&tree, &contents, &options(400 * MIB));
    let two = press(&tree.clone(), &contents, &options(400 * MIB));
    assert_eq!(one.volume, two.volume);
}

#[test]
fn broken_image_is_noticed() {
    let contents = store();
    let tree = everything(&contents);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xfs");
    press(&tree, &contents, &options(400 * MIB)).write(&path);
    let Some(mut xfs_repair) = tool("xfs_repair") else { return };
    // The free blocks of the first group: `agf_freeblks`.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[1], 512 + 55).unwrap();
    let output = xfs_repair.args(["-n", "-f"]).arg(&path).output().unwrap();
    assert!(!output.status.success());
}

/// The smallest file system with a file, a directory and a link: every byte of metadata, for people.
#[test]
fn golden_shows_every_structure() {
    let contents = store();
    let label = xattrs(&[("security.selinux", b"system_u:object_r:usr_t:s0\0")]);
    let mut tree = Tree::new(Metadata { xattrs: label, ..Metadata::root(0o755) });
    let content = contents.insert_bytes(b"ID=example\n").unwrap();
    let usr = tree.create(Tree::ROOT, b"usr", Metadata::root(0o755), Kind::directory());
    let file = tree.create(usr, b"os-release", Metadata::root(0o644), Kind::File(content));
    tree.link(Tree::ROOT, b"again", file);
    let link = Kind::Symlink(b"usr/os-release".to_vec().into());
    tree.create(Tree::ROOT, b"release", Metadata::root(0o777), link);
    let volume = press(&tree, &contents, &Options { groups: Groups::Two, ..options(MINIMUM_SIZE) });
    let text = dump(&volume.volume, &contents).unwrap();
    expect_test::expect_file!["../golden/xfs.txt"].assert_eq(&text);
}

#[test]
fn least_size_passes_repair() {
    let contents = store();
    let mut tree = everything(&contents);
    let data = contents.insert_bytes(&vec![7; 9 << 20]).unwrap();
    for number in 0..100 {
        let name = format!("data-{number}");
        tree.create(Tree::ROOT, name.as_bytes(), Metadata::root(0o644), Kind::File(data.clone()));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xfs");
    for Options { profile, groups, sector_size, .. } in variants(0) {
        let wanted = Wanted { free_bytes: None, free_inodes: 0, sector_size, profile, groups };
        let size = fit(&tree, &wanted).unwrap();
        press(&tree, &contents, &Options { profile, groups, sector_size, ..options(size) })
            .write(&path);
        check(&path);
    }
}

/// What GRUB reads of a root without a `/boot` of its own: kernels and configurations, in directories of every form.
#[test]
fn grub_reads_files_for_boot() {
    let contents = store();
    let mut tree = everything(&contents);
    let mut writer = contents.writer(30 * MIB);
    for index in 0..20_u8 {
        writer.write_all(&vec![index + 1; 1 << 20]).unwrap();
        writer.skip(MIB / 2);
    }
    let kernel = writer.finish().unwrap();
    let mut files = Vec::new();
    for (name, count) in [("few", 2), ("block", 60), ("leaf", 200), ("node", 3000)] {
        let path = format!("boot/{name}");
        let directory = tree.make_directories(&path, &Metadata::root(0o755));
        for number in 0..count {
            let name = format!("file-{number}");
            tree.create(
                directory,
                name.as_bytes(),
                Metadata::root(0o644),
                Kind::File(Content::EMPTY),
            );
        }
        tree.create(directory, b"kernel", Metadata::root(0o644), Kind::File(kernel.clone()));
        files.push(format!("/{path}/kernel"));
    }
    let link = Kind::Symlink(b"node/kernel".to_vec().into());
    tree.create(tree.find("boot").unwrap(), b"link", Metadata::root(0o777), link);
    files.push("/boot/link".to_owned());
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (directory.path().join("xfs"), directory.path().join("copy"));
    let expected = contents.bytes(&kernel).unwrap();
    for options in variants(400 * MIB) {
        press(&tree, &contents, &options).write(&path);
        for find in [tool, newest] {
            for file in &files {
                let Some(mut fstest) = find("grub-fstest") else { return };
                run(fstest.arg(&path).arg("cp").arg(format!("(loop0){file}")).arg(&copy));
                assert!(std::fs::read(&copy).unwrap() == expected, "{file}");
            }
        }
    }
}
