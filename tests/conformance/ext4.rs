//! ext4, as `e2fsck`, `dumpe2fs`, `debugfs`, `resize2fs`, GRUB, the `ext4-view` crate and the running kernel see it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use bootpress::content::{Content, ContentStore};
use bootpress::filesystem::ext4::{self, Layout, Options, Wanted};
use bootpress::tree::{InodeId, Kind, Metadata, Tree, Xattrs};
use ext4_view::{Ext4, FileType};
use uuid::Uuid;

use crate::unwritten::Unwritten;
use support::tool::{run, tool};

mod kernel;
pub(crate) mod random;
mod verity;

const MIB: u64 = 1 << 20;

pub(crate) fn store() -> Arc<ContentStore> {
    Arc::new(ContentStore::create_in(&std::env::temp_dir()).unwrap())
}

fn options(size: u64) -> Options {
    Options {
        size,
        uuid: Uuid::from_u128(0x1111_1111_2222_4333_8444_5555_5555_5555),
        label: "root".to_owned(),
        hash_seed: Uuid::from_u128(0x6666_6666_2222_4333_8444_5555_5555_5555),
        inode_count: (size / 16_384) as u32,
        journal_blocks: ext4::default_journal_blocks(size),
        reserved_percent: 5,
        time: 1_700_000_000,
    }
}

fn press(tree: &Tree, contents: &Arc<ContentStore>, options: &Options) -> Unwritten {
    let layout = Layout::of(tree, options).unwrap();
    Unwritten::new(layout.emit(tree), contents)
}

/// `e2fsck` finds nothing to say about it: five passes and a summary.
#[track_caller]
fn e2fsck(path: &Path) {
    let Some(mut e2fsck) = tool("e2fsck") else { return };
    let output = e2fsck.args(["-f", "-n"]).arg(path).output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 6, "{out}\n{err}");
    assert!(lines[..5].iter().all(|line| line.starts_with("Pass ")), "{out}");
}

#[track_caller]
fn check(volume: &Unwritten) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ext4");
    volume.write(&path);
    e2fsck(&path);
}

pub(crate) fn xattrs(pairs: &[(&str, &[u8])]) -> Xattrs {
    let mut xattrs = Xattrs::NONE;
    for (name, value) in pairs {
        xattrs.set(name.as_bytes(), value);
    }
    xattrs
}

/// A POSIX access list as `getxattr` gives it: user::rwx, user:1000:r-x, group::r-x, mask::r-x, other::---.
fn access_list() -> Vec<u8> {
    let none = u32::MAX;
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, bits, id) in
        [(1_u16, 7_u16, none), (2, 5, 1000), (4, 5, none), (16, 5, none), (32, 0, none)]
    {
        list.extend(tag.to_le_bytes());
        list.extend(bits.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// A target of this length; ext4-view wants components of at most 255 bytes.
pub(crate) fn target(length: usize) -> Box<[u8]> {
    b"some/directory/".iter().copied().cycle().take(length).collect()
}

/// One of everything.
pub(crate) fn rich_tree(contents: &ContentStore) -> Tree {
    let label: &[u8] = b"system_u:object_r:usr_t:s0\0";
    let labelled =
        |mode| Metadata { xattrs: xattrs(&[("security.selinux", label)]), ..Metadata::root(mode) };
    let mut tree = Tree::new(labelled(0o755));
    let usr = tree.create(Tree::ROOT, b"usr", labelled(0o755), Kind::directory());
    let bin = tree.create(usr, b"bin", labelled(0o755), Kind::directory());
    let content = contents.insert_bytes(&b"#!/bin/sh\n".repeat(5000)).unwrap();
    let setuid = Metadata { uid: 70_000, gid: 80_000, mtime: 1_600_000_000, ..labelled(0o4755) };
    let file = tree.create(bin, b"tool", setuid, Kind::File(content));
    tree.link(bin, b"same", file);
    tree.link(usr, b"again", file);
    tree.create(usr, b"empty", labelled(0o600), Kind::File(Content::EMPTY));
    tree.create(Tree::ROOT, b"bin", labelled(0o777), Kind::Symlink(b"usr/bin".to_vec().into()));
    for length in [59, 60, 4095] {
        let name = format!("link-{length}");
        tree.create(usr, name.as_bytes(), labelled(0o777), Kind::Symlink(target(length)));
    }
    let dev = tree.create(Tree::ROOT, b"dev", labelled(0o755), Kind::directory());
    tree.create(dev, b"null", labelled(0o666), Kind::CharacterDevice(1, 3));
    tree.create(dev, b"whiteout", labelled(0o600), Kind::CharacterDevice(0, 0));
    tree.create(dev, b"nvme", labelled(0o660), Kind::BlockDevice(259, 0x1_2345));
    tree.create(dev, b"fifo", labelled(0o600), Kind::Fifo);
    tree.create(dev, b"socket", labelled(0o600), Kind::Socket);
    for (name, mtime) in [
        ("1901", -(1 << 31)),
        ("1969", -1),
        ("2038", 1 << 31),
        ("2106", 1 << 32),
        ("2446", (1 << 34) - (1 << 31) - 1),
    ] {
        let metadata = Metadata { mtime, ..Metadata::root(0o644) };
        tree.create(dev, name.as_bytes(), metadata, Kind::File(Content::EMPTY));
    }
    let immutable = Metadata { immutable: true, ..labelled(0o755) };
    let deploy = tree.create(Tree::ROOT, b"deploy", immutable, Kind::directory());
    let mut many = xattrs(&[
        ("security.selinux", label),
        ("user.empty", b""),
        ("trusted.overlay.opaque", b"y"),
    ]);
    many.set(b"user.large", &[7; 1500]);
    many.set(b"security.ima", &(0..=255).collect::<Vec<u8>>());
    for name in ["one", "two", "three"] {
        let metadata = Metadata { xattrs: many.clone(), ..Metadata::root(0o644) };
        let content = contents.insert_bytes(name.as_bytes()).unwrap();
        tree.create(deploy, name.as_bytes(), metadata, Kind::File(content));
    }
    let list = access_list();
    let acl = xattrs(&[("system.posix_acl_access", &list), ("system.posix_acl_default", &list)]);
    tree.create(
        deploy,
        b"acl",
        Metadata { xattrs: acl, ..Metadata::root(0o750) },
        Kind::directory(),
    );
    tree.create(deploy, b"\xff\xfe not UTF-8 \n", labelled(0o644), Kind::File(Content::EMPTY));
    tree
}

/// A content of any size; the store itself refuses to read large ones at once.
fn all_of(content: &Content, contents: &ContentStore) -> Vec<u8> {
    let mut bytes = Vec::new();
    contents.reader(content).read_to_end(&mut bytes).unwrap();
    bytes
}

/// A tree as lines of text, for comparing; modification times only where `times` wants them.
fn listing(tree: &Tree, contents: &ContentStore, times: bool) -> BTreeMap<Vec<u8>, String> {
    let mut lines = BTreeMap::new();
    for (path, id) in tree.walk() {
        let inode = tree.inode(id);
        let metadata = &inode.metadata;
        let what = match &inode.kind {
            Kind::File(content) => format!("{:?}", digest(&all_of(content, contents))),
            Kind::Symlink(target) => target.escape_ascii().to_string(),
            _ => String::new(),
        };
        let mtime = if times { metadata.mtime } else { 0 };
        let line =
            format!("{:o} {}:{} {mtime} {what}", inode.st_mode(), metadata.uid, metadata.gid);
        lines.insert(path, line);
    }
    lines
}

fn digest(bytes: &[u8]) -> (usize, u32) {
    (bytes.len(), crc32c::crc32c(bytes))
}

/// The same lines, as `ext4-view` reads them. lost+found is left out.
fn view(ext4: &Ext4, times: bool) -> BTreeMap<Vec<u8>, String> {
    let mut lines = BTreeMap::new();
    let mut stack = vec![ext4_view::PathBuf::new(b"/")];
    while let Some(path) = stack.pop() {
        let metadata = ext4.symlink_metadata(&path).unwrap();
        let file_type = metadata.file_type();
        let bits = match file_type {
            FileType::Regular => 0o100_000,
            FileType::Directory => 0o040_000,
            FileType::Symlink => 0o120_000,
            FileType::CharacterDevice => 0o020_000,
            FileType::BlockDevice => 0o060_000,
            FileType::Fifo => 0o010_000,
            FileType::Socket => 0o140_000,
        };
        let what = match file_type {
            FileType::Regular => format!("{:?}", digest(&ext4.read(&path).unwrap())),
            FileType::Symlink => ext4.read_link(&path).unwrap().as_ref().escape_ascii().to_string(),
            _ => String::new(),
        };
        if file_type == FileType::Directory {
            let names = ext4.read_dir(&path).unwrap().map(|entry| entry.unwrap());
            stack.extend(
                names
                    .filter(|entry| {
                        !matches!(entry.file_name().as_ref(), b"." | b".." | b"lost+found")
                    })
                    .map(|entry| entry.path()),
            );
        }
        let mtime = if times { metadata.modified().seconds() } else { 0 };
        let line = format!(
            "{:o} {}:{} {mtime} {what}",
            bits | u32::from(metadata.mode()),
            metadata.uid(),
            metadata.gid()
        );
        lines.insert(path.as_ref()[1..].to_vec(), line);
    }
    lines
}

fn load(volume: &Unwritten) -> Ext4 {
    Ext4::load(Box::new(volume.clone())).unwrap()
}

#[test]
fn one_of_everything() {
    let contents = store();
    let tree = rich_tree(&contents);
    let volume = press(&tree, &contents, &options(64 * MIB));
    check(&volume);
    // ext4-view 1.0.0 refuses the times that have bit 31 set, so those are left to the kernel and debugfs.
    let mut plain = tree.clone();
    let ids: Vec<InodeId> = tree.walk().map(|(_, id)| id).collect();
    for id in ids {
        let mtime = &mut plain.inode_mut(id).metadata.mtime;
        *mtime = (*mtime).clamp(0, i64::from(i32::MAX));
    }
    let volume = press(&plain, &contents, &options(64 * MIB));
    assert_eq!(view(&load(&volume), true), listing(&plain, &contents, true));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let contents = store();
    let tree = rich_tree(&contents);
    let one = press(&tree, &contents, &options(64 * MIB));
    let two = press(&tree.clone(), &contents, &options(64 * MIB));
    assert_eq!(one.volume, two.volume);
}

#[test]
fn the_tools_report_what_was_asked_for() {
    let contents = store();
    let tree = rich_tree(&contents);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ext4");
    press(&tree, &contents, &options(600 * MIB)).write(&path);
    let Some(mut dumpe2fs) = tool("dumpe2fs") else { return };
    let facts = run(dumpe2fs.arg("-h").arg(&path));
    for fact in [
        "Filesystem volume name:   root",
        "Filesystem UUID:          11111111-2222-4333-8444-555555555555",
        "Filesystem features:      has_journal ext_attr resize_inode dir_index filetype extent 64bit flex_bg sparse_super large_file huge_file dir_nlink extra_isize metadata_csum verity\n",
        "Filesystem flags:         signed_directory_hash",
        "Default mount options:    user_xattr acl",
        "Filesystem state:         clean",
        "Block count:              153600",
        "Reserved block count:     7680",
        "Overhead clusters:        6734",
        "Reserved GDT blocks:      74",
        "Inodes per group:         7680",
        "Inode size:\t          256",
        "Directory Hash Seed:      66666666-2222-4333-8444-555555555555",
        "Total journal blocks:     4096",
        "Journal features:         journal_64bit journal_checksum_v3",
        "Journal start:            0",
        "Filesystem created:       Tue Nov 14 22:13:20 2023",
    ] {
        assert!(facts.contains(fact), "{fact}\n{facts}");
    }
    let debugfs = |request: &str| {
        let mut debugfs = tool("debugfs").unwrap();
        run(debugfs.env("TZ", "UTC").args(["-R", request]).arg(&path))
    };
    let stat = debugfs("stat /deploy");
    assert!(stat.contains("Flags: 0x80010"), "{stat}");
    let stat = debugfs("stat /usr/bin/tool");
    assert!(stat.contains("User: 70000   Group: 80000"), "{stat}");
    assert!(stat.contains("Links: 3 "), "{stat}");
    assert!(debugfs("stat /dev/nvme").contains("Device major/minor number: 259:74565"));
    assert!(debugfs("stat /dev/2446").contains("mtime: 0x7fffffff:00000003"));
    assert!(debugfs("stat /dev/1901").contains("mtime: 0x80000000:00000000"));
    let list = debugfs("ea_list /deploy/one");
    for line in [
        "security.selinux (27)",
        "user.large (1500)",
        "security.ima (256)",
        "trusted.overlay.opaque (1) = \"y\"",
        "user.empty (0)",
    ] {
        assert!(list.contains(line), "{line}\n{list}");
    }
    // Three files share one block of attributes.
    let shared: Vec<String> = ["one", "two", "three"]
        .map(|name| {
            debugfs(&format!("stat /deploy/{name}"))
                .lines()
                .find(|line| line.starts_with("File ACL"))
                .unwrap()
                .to_owned()
        })
        .to_vec();
    assert!(shared.iter().all(|line| *line == shared[0] && line != "File ACL: 0"), "{shared:?}");
}

#[test]
fn attributes_are_shared_by_1024_inodes_at_most() {
    let contents = store();
    let mut tree = Tree::new(Metadata::root(0o755));
    let xattrs = xattrs(&[("user.large", &[1; 200])]);
    for index in 0..2500 {
        let metadata = Metadata { xattrs: xattrs.clone(), ..Metadata::root(0o644) };
        tree.create(Tree::ROOT, format!("{index}").as_bytes(), metadata, Kind::Fifo);
    }
    let mut options = options(64 * MIB);
    let empty = Layout::of(&Tree::new(Metadata::root(0o755)), &options).unwrap().usage();
    let full = Layout::of(&tree, &options).unwrap().usage();
    // 2500 names of 12 bytes: 8 leaves and a root, instead of one block; and three blocks of attributes.
    assert_eq!(empty.free_blocks - full.free_blocks, 8 + 3);
    options.inode_count = 4096;
    check(&press(&tree, &contents, &options));
}

#[test]
fn a_directory_of_100_000_names() {
    let contents = store();
    let mut tree = Tree::new(Metadata::root(0o755));
    let directory = tree.create(Tree::ROOT, b"many", Metadata::root(0o755), Kind::directory());
    let file = tree.create(directory, b"first", Metadata::root(0o644), Kind::File(Content::EMPTY));
    let name = |index: u32| {
        format!(
            "{:08x}-{index}-\u{e9}t\u{e9} with some more to it",
            index.wrapping_mul(0x9e37_79b9)
        )
    };
    // Few inodes, many names: links are limited to 65,000.
    let other = tree.create(directory, b"other", Metadata::root(0o644), Kind::File(Content::EMPTY));
    for index in 0..100_000 {
        tree.link(directory, name(index).as_bytes(), if index % 2 == 0 { file } else { other });
    }
    let volume = press(&tree, &contents, &options(64 * MIB));
    check(&volume);
    let ext4 = load(&volume);
    assert_eq!(ext4.read_dir("/many").unwrap().count(), 100_004);
    for index in (0..100_000).step_by(997) {
        assert!(ext4.exists(format!("/many/{}", name(index)).as_str()).unwrap(), "{index}");
    }
    assert!(!ext4.exists("/many/no such name").unwrap());
}

#[test]
fn directories_of_every_size_around_a_block() {
    let contents = store();
    let mut tree = Tree::new(Metadata::root(0o755));
    for count in (325..345).chain([1000, 172_000 / 12]) {
        let directory = tree.create(
            Tree::ROOT,
            format!("{count}").as_bytes(),
            Metadata::root(0o755),
            Kind::directory(),
        );
        for index in 0..count {
            tree.create(
                directory,
                format!("{index:04}").as_bytes(),
                Metadata::root(0o644),
                Kind::Fifo,
            );
        }
    }
    let options = Options { inode_count: 40_000, ..options(256 * MIB) };
    let volume = press(&tree, &contents, &options);
    check(&volume);
    assert_eq!(view(&load(&volume), false), listing(&tree, &contents, false));
}

#[test]
fn more_subdirectories_than_links_can_count() {
    let contents = store();
    let mut tree = Tree::new(Metadata::root(0o755));
    for (name, count) in [("at the limit", 64_998), ("above", 64_999)] {
        let directory =
            tree.create(Tree::ROOT, name.as_bytes(), Metadata::root(0o755), Kind::directory());
        for index in 0..count {
            tree.create(
                directory,
                format!("{index}").as_bytes(),
                Metadata::root(0o755),
                Kind::directory(),
            );
        }
    }
    let options = Options { inode_count: 131_072, ..options(1024 * MIB) };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ext4");
    press(&tree, &contents, &options).write(&path);
    e2fsck(&path);
    let links = |name: &str| {
        run(tool("debugfs").unwrap().args(["-R", &format!("stat \"/{name}\"")]).arg(&path))
    };
    assert!(links("at the limit").contains("Links: 65000 "));
    assert!(links("above").contains("Links: 1 "));
}

#[test]
fn sparse_files_and_trees_of_extents() {
    let contents = store();
    let mut tree = Tree::new(Metadata::root(0o755));
    let mut writer = contents.writer(5 << 30);
    writer.write_all(b"start").unwrap();
    writer.skip((5 << 30) - 5 - 3);
    writer.write_all(b"end").unwrap();
    tree.create(Tree::ROOT, b"large", Metadata::root(0o644), Kind::File(writer.finish().unwrap()));
    for count in [4, 5, 340, 341, 1361, 2000_u64] {
        let mut writer = contents.writer(count * 8192 + 10);
        for index in 0..count {
            writer.write_all(format!("piece {index:06}").as_bytes()).unwrap();
            writer.skip(8192 - 12);
        }
        writer.skip(10);
        let content = writer.finish().unwrap();
        tree.create(
            Tree::ROOT,
            format!("holes-{count}").as_bytes(),
            Metadata::root(0o644),
            Kind::File(content),
        );
    }
    let mut writer = contents.writer(1 << 20);
    writer.skip(1 << 20);
    tree.create(
        Tree::ROOT,
        b"nothing",
        Metadata::root(0o644),
        Kind::File(writer.finish().unwrap()),
    );
    // Spans two groups, and the metadata between them.
    let whole = contents.insert(&mut std::io::repeat(b'x'), 140 * MIB).unwrap();
    tree.create(Tree::ROOT, b"whole", Metadata::root(0o644), Kind::File(whole));
    let volume = press(&tree, &contents, &options(600 * MIB));
    check(&volume);
    let ext4 = load(&volume);
    for (path, id) in tree.walk().skip(1) {
        let Kind::File(content) = &tree.inode(id).kind else { unreachable!() };
        let path = format!("/{}", String::from_utf8(path).unwrap());
        if content.size < 100 * MIB {
            assert_eq!(ext4.read(path.as_str()).unwrap(), all_of(content, &contents), "{path}");
        } else {
            let mut file = ext4.open(path.as_str()).unwrap();
            for position in [0, 4096, 110 * MIB, 120 * MIB, 128 * MIB, content.size - 5000] {
                let (mut read, mut expected) = ([1; 5000], [2; 5000]);
                file.seek_to(position).unwrap();
                let count = file.read_bytes(&mut read).unwrap();
                contents.read_exact_at(content.id, position, &mut expected[..count]).unwrap();
                assert!(count > 0 && read[..count] == expected[..count], "{path} at {position}");
            }
        }
    }
}

#[test]
fn what_fit_says_fits_and_less_does_not() {
    let contents = store();
    let tree = rich_tree(&contents);
    for (free_bytes, free_inodes) in [
        (0, 0),
        (100 * MIB, 10_000),
        (118 * MIB, 0),
        (122 * MIB, 0),
        (1000 * MIB, 400_000),
        (5000 * MIB, 7),
    ] {
        let options = options(0);
        let wanted = Wanted {
            free_bytes,
            free_inodes,
            bytes_per_inode: 16_384,
            hash_seed: options.hash_seed,
        };
        let fitted = ext4::fit(&tree, &wanted).unwrap();
        let with = |size| Options {
            size,
            inode_count: fitted.inode_count,
            journal_blocks: fitted.journal_blocks,
            ..options.clone()
        };
        let layout = Layout::of(&tree, &with(fitted.size)).unwrap();
        let usage = layout.usage();
        assert!(
            usage.free_blocks * 4096 >= free_bytes && usage.free_inodes >= free_inodes,
            "{usage:?}"
        );
        if free_bytes > 0 {
            let less = Layout::of(&tree, &with(fitted.size - 4096)).map(|layout| layout.usage());
            assert!(less.is_err() || less.unwrap().free_blocks * 4096 < free_bytes, "{fitted:?}");
        }
        check(&Unwritten::new(layout.emit(&tree), &contents));
    }
}

#[test]
fn too_small_is_an_error_that_tells_the_need() {
    let contents = store();
    let mut tree = rich_tree(&contents);
    let content = contents.insert(&mut std::io::repeat(1), 20 * MIB).unwrap();
    tree.create(Tree::ROOT, b"large", Metadata::root(0o644), Kind::File(content));
    let error = Layout::of(&tree, &options(16 * MIB)).unwrap_err().to_string();
    assert!(error.starts_with("the content does not fit: it needs 6"), "{error}");
    let error = Layout::of(&tree, &Options { inode_count: 16, ..options(64 * MIB) })
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("the content does not fit: it needs 37 inodes"), "{error}");
}

#[test]
fn resize2fs_grows_it_into_the_reserved_descriptors() {
    let contents = store();
    let tree = rich_tree(&contents);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ext4");
    // From one group of descriptors (64 of 128 MiB) to three.
    for (from, to) in [(16 * MIB, 700 * MIB), (300 * MIB, 20_000 * MIB)] {
        press(&tree, &contents, &options(from)).write(&path);
        std::fs::File::options().write(true).open(&path).unwrap().set_len(to).unwrap();
        let Some(mut resize2fs) = tool("resize2fs") else { return };
        // It wants to see that the file system was checked.
        run(resize2fs.arg("-f").arg(&path));
        e2fsck(&path);
        let facts = run(tool("dumpe2fs").unwrap().arg("-h").arg(&path));
        assert!(facts.contains(&format!("Block count:              {}\n", to / 4096)), "{facts}");
    }
}

#[test]
fn lost_and_found_may_be_the_trees_own() {
    let contents = store();
    let mut tree = Tree::new(Metadata::root(0o755));
    tree.create(Tree::ROOT, b"lost+found", Metadata::root(0o700), Kind::directory());
    check(&press(&tree, &contents, &options(16 * MIB)));
    tree.create(Tree::ROOT, b"lost+found", Metadata::root(0o700), Kind::Fifo);
    assert!(Layout::of(&tree, &options(16 * MIB)).is_err());
    check(&press(&Tree::new(Metadata::root(0o700)), &contents, &options(16 * MIB)));
}

#[test]
fn sizes_around_the_ends_of_groups() {
    let contents = store();
    let tree = rich_tree(&contents);
    for size in [
        8 * MIB,
        16 * MIB + 4095,
        127 * MIB,
        128 * MIB,
        129 * MIB,
        131 * MIB,
        2049 * MIB,
        2176 * MIB + 4096,
    ] {
        check(&press(&tree, &contents, &options(size)));
    }
    // So many inodes that their tables fill more than a group.
    check(&press(&tree, &contents, &Options { inode_count: 500_000, ..options(2100 * MIB) }));
}

/// GRUB's own reader, version 2.06 where Debian 12 is: no feature is new to it, and no name is out of its reach.
#[test]
fn grub_reads_it() {
    let contents = store();
    let mut tree = rich_tree(&contents);
    let boot = tree.create(Tree::ROOT, b"boot", Metadata::root(0o755), Kind::directory());
    for index in 0..2000_u32 {
        let content = contents.insert_bytes(&index.to_le_bytes()).unwrap();
        tree.create(
            boot,
            format!("vmlinuz-{index}").as_bytes(),
            Metadata::root(0o644),
            Kind::File(content),
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ext4");
    press(&tree, &contents, &options(64 * MIB)).write(&path);
    for (file, expected) in [
        ("/usr/bin/tool", b"#!/bin/sh\n".repeat(5000)),
        ("/bin/same", b"#!/bin/sh\n".repeat(5000)),
        ("/boot/vmlinuz-1999", 1999_u32.to_le_bytes().to_vec()),
    ] {
        let Some(mut grub) = tool("grub-fstest") else { return };
        let output = grub.arg(&path).args(["cat", file]).output().unwrap();
        assert!(output.status.success() && output.stdout == expected, "{file}: {output:?}");
    }
}

/// The bytes, annotated: what changes in them shall be seen in review.
#[test]
fn golden() {
    let contents = store();
    let mut tree = Tree::new(Metadata { mtime: 1_700_000_000, ..Metadata::root(0o755) });
    let xattrs = xattrs(&[
        ("security.selinux", b"system_u:object_r:etc_t:s0\0"),
        ("user.long", &[b'x'; 80]),
    ]);
    let content = contents.insert_bytes(b"hello\n").unwrap();
    let metadata = Metadata { xattrs, mtime: 1_700_000_001, ..Metadata::root(0o644) };
    let etc = tree.create(Tree::ROOT, b"etc", Metadata::root(0o755), Kind::directory());
    let file = tree.create(etc, b"motd", metadata, Kind::File(content));
    tree.link(etc, b"issue", file);
    tree.create(
        Tree::ROOT,
        b"link",
        Metadata::root(0o777),
        Kind::Symlink(b"etc/motd".to_vec().into()),
    );
    let volume = press(&tree, &contents, &options(8 * MIB));
    check(&volume);
    let dump = ext4::dump(&volume.volume, &contents).unwrap();
    expect_test::expect_file!["../golden/ext4.txt"].assert_eq(&dump);
}
