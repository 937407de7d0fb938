//! What the running kernel reads through a loop device, inode by inode; and what it makes of the file system by writing.
//!
//! Needs root and loop devices; without them the tests say that they are skipped.

use std::fs;
use std::io::Write;

use bootpress::content::ContentStore;
use bootpress::filesystem::ext4::Options;
use bootpress::tree::{Kind, Metadata, Tree};

use super::{MIB, e2fsck, options, press, rich_tree, store};
use crate::mounted::{EXT4, Mount, compare};
use support::tool::{run, tool};

/// One of everything, a file with holes, and a directory with an index.
fn tree(contents: &ContentStore) -> Tree {
    let mut tree = rich_tree(contents);
    let mut writer = contents.writer(3 * MIB);
    for _ in 0..300 {
        writer.skip(4096);
        writer.write_all(&[b'y'; 5000]).unwrap();
    }
    writer.skip(3 * MIB - 300 * 9096);
    let content = writer.finish().unwrap();
    tree.create(Tree::ROOT, b"holes", Metadata::root(0o644), Kind::File(content));
    let many = tree.create(Tree::ROOT, b"many", Metadata::root(0o755), Kind::directory());
    for index in 0..3000 {
        let name = format!("{index}-\u{e9}");
        tree.create(many, name.as_bytes(), Metadata::root(0o644), Kind::Fifo);
    }
    tree
}

#[test]
fn it_reads_what_was_written() {
    let contents = store();
    let tree = tree(&contents);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ext4");
    press(&tree, &contents, &Options { inode_count: 8192, ..options(64 * MIB) }).write(&path);
    let on = directory.path().join("mnt");
    let Some(mount) = Mount::new("ext4", &path, &on, "ro,loop") else { return };
    compare(&mount.on, &tree, &contents, &EXT4);
}

#[test]
fn it_can_write_and_e2fsck_still_agrees() {
    let contents = store();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ext4");
    let options = Options { inode_count: 16_384, ..options(300 * MIB) };
    press(&tree(&contents), &contents, &options).write(&path);
    let on = directory.path().join("mnt");
    let Some(mount) = Mount::new("ext4", &path, &on, "loop") else { return };
    let many = mount.on.join("many");
    // Leaves that are full are split; some become empty.
    for index in 0..3000 {
        fs::write(many.join(format!("new-{index}")), b"new").unwrap();
        if index % 2 == 0 {
            fs::remove_file(many.join(format!("{index}-\u{e9}"))).unwrap();
        }
    }
    fs::write(mount.on.join("large"), vec![1; 30 << 20]).unwrap();
    fs::create_dir(mount.on.join("lost+found/directory")).unwrap();
    fs::hard_link(mount.on.join("usr/empty"), mount.on.join("usr/linked")).unwrap();
    fs::remove_file(mount.on.join("usr/bin/tool")).unwrap();
    // An inode that shares its block of attributes gets one of its own.
    if let Some(mut setfattr) = tool("setfattr") {
        let file = many.join("new-1");
        run(setfattr.args(["-n", "user.large", "-v", &"x".repeat(500)]).arg(file));
    }
    drop(mount);
    e2fsck(&path);
}
