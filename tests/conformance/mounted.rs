//! File systems that the running kernel reads through a loop device, compared with the tree that they were made of.
//!
//! Needs root and loop devices; without them tests say that they are skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use bootpress::content::{Content, ContentStore};
use bootpress::tree::{Inode, InodeId, Kind, Tree};

use support::tool::{is_root, run, tool};

/// What a file system shows that a tree does not have.
pub(crate) struct Shows {
    /// Names that it has itself in its root directory.
    own: &'static [&'static str],
    /// Whether directories have the link that their parent has, those of the directories in them, and their own; else they have one.
    counts_directories: bool,
}

pub(crate) const EXT4: Shows = Shows { own: &["lost+found"], counts_directories: true };
pub(crate) const XFS: Shows = Shows { own: &[], counts_directories: true };
pub(crate) const BTRFS: Shows = Shows { own: &[], counts_directories: false };

/// A loop mount, undone when dropped.
pub(crate) struct Mount {
    pub(crate) on: PathBuf,
    image: PathBuf,
}

impl Mount {
    /// Mounts a file system of a kind, as `mount -t` calls it, at a directory. `None`: this machine cannot.
    pub(crate) fn new(filesystem: &str, image: &Path, on: &Path, options: &str) -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: mounting needs root");
            return None;
        }
        fs::create_dir_all(on).unwrap();
        let mut mount = tool("mount")?;
        let output =
            mount.args(["-t", filesystem, "-o", options]).arg(image).arg(on).output().unwrap();
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let can = Path::new("/dev/loop-control").exists()
            && known.lines().any(|line| line.trim() == filesystem);
        if !output.status.success() && !can {
            eprintln!(
                "skipped: there are no loop devices here, or the kernel knows no {filesystem}"
            );
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

/// Compares a whole file system with a tree: names, types, modes, owners, times, link counts, contents, holes, targets, numbers, flags and
/// extended attributes.
#[track_caller]
pub(crate) fn compare(root: &Path, tree: &Tree, contents: &ContentStore, shows: &Shows) {
    let counts = tree.link_counts();
    let Shows { own, counts_directories } = *shows;
    let mut expected = BTreeMap::new();
    for (path, id) in tree.walk() {
        let place = root.join(OsStr::from_bytes(&path));
        let inode = tree.inode(id);
        let own = if id == Tree::ROOT { own } else { &[] };
        let links = if inode.is_directory() && !counts_directories {
            1
        } else {
            counts[id.index()] + own.len() as u32
        };
        compare_inode(&place, inode, links, own, contents);
        expected.insert(path, pairs(tree, id));
    }
    expected.retain(|_, pairs| !pairs.is_empty());
    let Some(mut found) = attributes(root) else { return };
    found.retain(|path, _| !own.iter().any(|own| path == own.as_bytes()));
    for (path, pairs) in &expected {
        assert_eq!(found.remove(path).as_ref(), Some(pairs), "{}", path.escape_ascii());
    }
    assert!(found.is_empty(), "more attributes than expected: {found:?}");
}

type Pairs = BTreeSet<(Vec<u8>, Vec<u8>)>;

/// Attributes as `getfattr` shows them: Linux has those of users on files and directories only (xattr(7)).
fn pairs(tree: &Tree, id: InodeId) -> Pairs {
    let inode = tree.inode(id);
    let users = matches!(inode.kind, Kind::File(_) | Kind::Directory(_));
    let shown = |name: &[u8]| users || !name.starts_with(b"user.");
    let xattrs = inode.metadata.xattrs.iter().filter(|(name, _)| shown(name));
    xattrs.map(|(name, value)| (name.to_vec(), hex(value).into_bytes())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All extended attributes of a mounted tree, by path, with hexadecimal values.
fn attributes(root: &Path) -> Option<BTreeMap<Vec<u8>, Pairs>> {
    let arguments = ["-R", "-P", "-d", "-h", "-m", "-", "-e", "hex", "."];
    let output = tool("getfattr")?.args(arguments).current_dir(root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut found: BTreeMap<Vec<u8>, Pairs> = BTreeMap::new();
    let mut path = Vec::new();
    for line in output.stdout.split(|&byte| byte == b'\n') {
        if let Some(name) = line.strip_prefix(b"# file: ") {
            path = if name == b"." { Vec::new() } else { unquoted(name) };
        } else if let Some(at) = line.windows(3).position(|three| three == b"=0x") {
            let (name, value) = (unquoted(&line[..at]), line[at + 3..].to_vec());
            // XFS shows access lists under its own names, too.
            if !name.starts_with(b"trusted.SGI_ACL_") {
                found.entry(path.clone()).or_default().insert((name, value));
            }
        } else if !line.is_empty() {
            // An empty value has no `0x`.
            let name = line.strip_suffix(b"=").unwrap_or(line);
            found.entry(path.clone()).or_default().insert((unquoted(name), Vec::new()));
        }
    }
    Some(found)
}

/// `\012` is what getfattr makes of a newline.
fn unquoted(text: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text);
    while let Some((&first, others)) = rest.split_first() {
        let digits = others.first_chunk::<3>().filter(|_| first == b'\\');
        let number = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match number.and_then(|number| u8::from_str_radix(number, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &others[3..];
            }
            None => {
                out.push(first);
                rest = others;
            }
        }
    }
    out
}

#[track_caller]
fn compare_inode(place: &Path, inode: &Inode, links: u32, own: &[&str], contents: &ContentStore) {
    let found = place.symlink_metadata().unwrap_or_else(|error| panic!("{place:?}: {error}"));
    let metadata = &inode.metadata;
    assert_eq!(
        (found.mode(), found.uid(), found.gid(), found.mtime(), found.nlink()),
        (inode.st_mode(), metadata.uid, metadata.gid, metadata.mtime, links.into()),
        "{place:?}"
    );
    match &inode.kind {
        Kind::File(content) => compare_content(place, content, contents),
        Kind::Symlink(target) => {
            assert_eq!(place.read_link().unwrap().as_os_str().as_bytes(), &**target);
        }
        Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) => {
            assert_eq!(found.rdev(), nix::sys::stat::makedev((*major).into(), (*minor).into()));
        }
        Kind::Directory(map) => {
            let names = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name());
            let names: BTreeSet<Vec<u8>> = names.map(|name| name.as_bytes().to_vec()).collect();
            let own = own.iter().map(|name| name.as_bytes().to_vec());
            let expected = map.keys().map(|name| name.to_vec()).chain(own);
            assert!(names == expected.collect::<BTreeSet<_>>(), "{place:?} has other names");
        }
        Kind::Fifo => assert!(found.file_type().is_fifo()),
        Kind::Socket => assert!(found.file_type().is_socket()),
    }
    if let (true, Some(mut lsattr)) = (metadata.immutable, tool("lsattr")) {
        let flags = run(lsattr.arg("-d").arg(place));
        assert!(flags.starts_with("----i"), "{place:?}: {flags}");
    }
}

/// Only what is not a hole is read: a file may be larger than any memory.
#[track_caller]
fn compare_content(place: &Path, content: &Content, contents: &ContentStore) {
    use std::os::unix::fs::FileExt;
    let file = File::open(place).unwrap();
    assert_eq!(file.metadata().unwrap().len(), content.size, "{place:?}");
    let mut allowed = 1;
    for range in content.data_ranges() {
        allowed += (range.end.div_ceil(4096) - range.start / 4096) * 8 + 64;
        let mut position = range.start;
        while position < range.end {
            let length = (range.end - position).min(1 << 20) as usize;
            let (mut expected, mut found) = (vec![0; length], vec![0; length]);
            contents.read_exact_at(content.id, position, &mut expected).unwrap();
            file.read_exact_at(&mut found, position).unwrap();
            assert!(expected == found, "{place:?} differs at {position}");
            position += length as u64;
        }
    }
    if content.size > 64 << 20 {
        let blocks = file.metadata().unwrap().blocks();
        assert!(blocks <= allowed, "{place:?} has {blocks} blocks where holes should be");
        return;
    }
    let whole = fs::read(place).unwrap();
    assert!(whole == contents.bytes(content).unwrap(), "{place:?} differs in its holes");
}
