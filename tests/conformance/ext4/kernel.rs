//! What the running kernel reads through a loop device, inode by inode; and what it makes of the file system by writing.
//!
//! Needs root and loop devices; without them the tests say that they are skipped.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use bootpress::content::ContentStore;
use bootpress::filesystem::ext4::Options;
use bootpress::tree::{Inode, Kind, Metadata, Tree, Xattrs};

use super::{MIB, e2fsck, options, press, rich_tree, store};
use support::tool::{is_root, run, tool};

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
    let Some(mount) = Mount::new(&path, &directory.path().join("mnt"), "ro,loop") else { return };
    let root = &mount.on;
    let counts = tree.link_counts();
    for (path, id) in tree.walk() {
        let extra = u32::from(id == Tree::ROOT);
        let place = root.join(OsStr::from_bytes(&path));
        compare(&place, tree.inode(id), counts[id.index()] + extra, extra as usize, &contents);
    }
    let Some(mut lsattr) = tool("lsattr") else { return };
    let flags = run(lsattr.arg("-d").arg(root.join("deploy")));
    assert!(flags.starts_with("----i"), "{flags}");
}

#[test]
fn it_can_write_and_e2fsck_still_agrees() {
    let contents = store();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ext4");
    let options = Options { inode_count: 16_384, ..options(300 * MIB) };
    press(&tree(&contents), &contents, &options).write(&path);
    let Some(mount) = Mount::new(&path, &directory.path().join("mnt"), "loop") else { return };
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

/// A loop mount, undone when dropped.
struct Mount {
    on: PathBuf,
    image: PathBuf,
}

impl Mount {
    fn new(image: &Path, on: &Path, options: &str) -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: mounting needs root");
            return None;
        }
        fs::create_dir(on).unwrap();
        let mut mount = tool("mount")?;
        let output = mount.args(["-t", "ext4", "-o", options]).arg(image).arg(on).output().unwrap();
        if !output.status.success() && !Path::new("/dev/loop-control").exists() {
            eprintln!("skipped: there are no loop devices here");
            return None;
        }
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(Self { on: on.to_owned(), image: image.to_owned() })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let undone = Command::new("umount").arg(&self.on).status();
        assert!(undone.is_ok_and(|status| status.success()) || std::thread::panicking());
        // A test beside us may have taken a copy of all mounts into a namespace of its own; the file system is written back and
        // its loop device goes when the last copy is gone.
        for _ in 0..600 {
            let held = Command::new("losetup").arg("-j").arg(&self.image).output();
            if held.is_ok_and(|held| held.stdout.is_empty()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// `names`: how many more names than in the tree a directory has.
fn compare(place: &Path, inode: &Inode, links: u32, names: usize, contents: &ContentStore) {
    let found = place.symlink_metadata().unwrap_or_else(|error| panic!("{place:?}: {error}"));
    let metadata = &inode.metadata;
    assert_eq!(
        (found.mode(), found.uid(), found.gid(), found.mtime(), found.nlink()),
        (inode.st_mode(), metadata.uid, metadata.gid, metadata.mtime, links.into()),
        "{place:?}"
    );
    match &inode.kind {
        Kind::File(content) => {
            assert!(fs::read(place).unwrap() == contents.bytes(content).unwrap(), "{place:?}");
        }
        Kind::Symlink(target) => {
            assert_eq!(place.read_link().unwrap().as_os_str().as_bytes(), &**target);
        }
        Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) => {
            assert_eq!(found.rdev(), nix::sys::stat::makedev((*major).into(), (*minor).into()));
        }
        Kind::Directory(map) => {
            assert_eq!(fs::read_dir(place).unwrap().count(), map.len() + names, "{place:?}");
        }
        Kind::Fifo => assert!(found.file_type().is_fifo()),
        Kind::Socket => assert!(found.file_type().is_socket()),
    }
    if !metadata.xattrs.is_empty() {
        compare_xattrs(place, &metadata.xattrs);
    }
}

fn compare_xattrs(place: &Path, xattrs: &Xattrs) {
    let Some(mut getfattr) = tool("getfattr") else { return };
    let arguments = ["-d", "-h", "-m", "-", "-e", "hex", "--absolute-names"];
    let found = run(getfattr.args(arguments).arg(place));
    let mut found: Vec<&str> =
        found.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")).collect();
    found.sort_unstable();
    let hex = |value: &[u8]| value.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut expected: Vec<String> = xattrs
        .iter()
        .map(|(name, value)| format!("{}=0x{}", String::from_utf8_lossy(name), hex(value)))
        .collect();
    expected.sort_unstable();
    assert_eq!(found, expected, "{place:?}");
}
