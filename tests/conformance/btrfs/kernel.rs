//! What the running kernel reads through a loop device, inode by inode; and what it makes of the file system by writing,
//! balancing, growing.
//!
//! Needs root and loop devices; without them the tests say that they are skipped.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bootpress::content::ContentStore;
use bootpress::filesystem::btrfs::{Compression, Options, Volumes};
use bootpress::filesystem::verity;
use bootpress::tree::{Kind, Metadata, Tree};

use super::{GIB, MIB, check, empty, options, press, store, volumes, zoo};
use support::tool::{is_root, run, tool};

#[test]
fn kernel_reads_what_was_written_with_every_compression() {
    let contents = store();
    let tree = zoo(&contents);
    let all =
        [None, Some(Compression::Zstd(15)), Some(Compression::Zlib(9)), Some(Compression::Lzo)];
    for compression in all {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("btrfs");
        let options = Options { block_group_tree: compression.is_none(), ..options(GIB) };
        press(&Volumes::of(&tree, compression), &contents, &options).write(&path);
        let Some(mount) = Mount::new(&path, directory.path(), "ro,loop") else { return };
        compare(&tree, &contents, &mount.on);
        let Some(mut lsattr) = tool("lsattr") else { return };
        let flags = run(lsattr.arg("-d").arg(mount.on.join("immutable")));
        assert!(flags.starts_with("----i"), "{flags}");
    }
}

#[test]
fn kernel_mounts_the_default_subvolume_and_finds_the_others() {
    let contents = store();
    let (top, tree, small) = (empty(), zoo(&contents), zoo::small(&contents));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("btrfs");
    press(&volumes(&top, &tree, &small), &contents, &options(GIB)).write(&path);
    for (option, tree) in
        [("", &tree), (",subvol=root", &tree), (",subvol=home", &small), (",subvolid=258", &small)]
    {
        let Some(mount) = Mount::new(&path, directory.path(), &format!("loop{option}")) else {
            return;
        };
        compare(tree, &contents, &mount.on);
        let list = run(btrfs().args(["subvolume", "list", "-a"]).arg(&mount.on));
        assert_eq!(list.lines().count(), 3, "{list}");
    }
}

#[test]
fn kernel_changes_balances_snapshots_and_grows_it() {
    let contents = store();
    let (top, tree, small) = (empty(), zoo(&contents), zoo::small(&contents));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("btrfs");
    press(&volumes(&top, &tree, &small), &contents, &options(2 * GIB)).write(&path);
    let Some(mount) = Mount::new(&path, directory.path(), "loop,compress=zstd") else { return };
    let on = mount.on.as_path();
    let scrub = || {
        let scrub = run(btrfs().args(["scrub", "start", "-B"]).arg(on));
        assert!(scrub.contains("no errors found"), "{scrub}");
    };
    scrub();
    change(on, 10_000);
    run(btrfs().args(["subvolume", "snapshot", "-r"]).arg(on).arg(on.join("snapshot")));
    let stream = directory.path().join("stream");
    run(btrfs().args(["send", "-q", "-f"]).arg(&stream).arg(on.join("snapshot")));
    fs::create_dir(on.join("received")).unwrap();
    run(btrfs().args(["receive", "-q", "-f"]).arg(&stream).arg(on.join("received")));
    run(btrfs().args(["balance", "start", "--full-balance"]).arg(on));
    scrub();
    drop(mount);
    check(&path);
    fs::File::options().write(true).open(&path).unwrap().set_len(5 * GIB).unwrap();
    let mount = Mount::new(&path, directory.path(), "loop").unwrap();
    run(btrfs().args(["filesystem", "resize", "max"]).arg(&mount.on));
    let room = nix::sys::statvfs::statvfs(&mount.on).unwrap();
    assert_eq!(room.blocks() * room.fragment_size(), 5 * GIB);
    let all = [mount.on.join("snapshot"), mount.on.join("received/snapshot")];
    run(btrfs().args(["subvolume", "delete", "-c"]).args(all));
    change(&mount.on, 2500);
    drop(mount);
    check(&path);
}

#[test]
fn smallest_file_system_can_be_written_to() {
    let contents = store();
    let tree = zoo::small(&contents);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("btrfs");
    press(&Volumes::of(&tree, None), &contents, &options(128 * MIB)).write(&path);
    let Some(mount) = Mount::new(&path, directory.path(), "loop") else { return };
    compare(&tree, &contents, &mount.on);
    change(&mount.on, 500);
    drop(mount);
    check(&path);
}

#[test]
fn kernel_measures_the_digests_of_fs_verity() {
    let contents = store();
    let mut tree = empty();
    let mut digests = Vec::new();
    for size in [0, 1, 5000, 4096 * 129, 4096 * 128 * 130 + 1] {
        let content = zoo::pattern(&contents, size, size);
        let verity = verity::measure(&content, &contents).unwrap();
        digests.push((size.to_string(), verity.digest));
        let id = tree.create(
            Tree::ROOT,
            size.to_string().as_bytes(),
            Metadata::root(0o444),
            Kind::File(content),
        );
        tree.set_verity(id, verity);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("btrfs");
    press(&Volumes::of(&tree, Some(Compression::Zstd(3))), &contents, &options(GIB)).write(&path);
    let Some(mount) = Mount::new(&path, directory.path(), "loop") else { return };
    let Some(mut fsverity) = tool("fsverity") else { return };
    let probe = mount.on.join("probe");
    fs::write(&probe, b"x").unwrap();
    let enabled = fsverity.arg("enable").arg(&probe).output().unwrap();
    if !enabled.status.success() {
        eprintln!("skipped: the kernel here has no fs-verity");
        return;
    }
    for (name, digest) in digests {
        let file = mount.on.join(&name);
        let said = run(tool("fsverity").unwrap().arg("measure").arg(&file));
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(said.starts_with(&format!("sha256:{hex} ")), "{name}: {said}");
        fs::read(&file).unwrap();
    }
}

fn btrfs() -> Command {
    tool("btrfs").expect("the mounted file system was checked with it")
}

/// Writes, links, renames, truncates and removes, the same each time.
fn change(on: &Path, count: u64) {
    let folder = on.join(format!("changes-{count}"));
    fs::create_dir_all(&folder).unwrap();
    let mut state = count;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let place = |number: u64| folder.join(format!("file-{number}"));
    for _ in 0..count {
        let (one, other) = (place(next(400)), place(next(400)));
        match next(8) {
            0..=2 => fs::write(&one, vec![next(256) as u8; next(60_000) as usize]).unwrap(),
            3 => drop(fs::hard_link(&one, &other)),
            4 => drop(fs::rename(&one, &other)),
            5 => drop(fs::remove_file(&one)),
            6 => drop(
                fs::File::options().write(true).open(&one).map(|file| file.set_len(next(100_000))),
            ),
            _ => drop(std::os::unix::fs::symlink("somewhere", &one)),
        }
    }
}

/// A loop mount, undone when dropped.
pub(super) struct Mount {
    pub(super) on: PathBuf,
    image: PathBuf,
}

impl Mount {
    /// Mounts `image` in `directory`. `None`, after saying why, where that cannot be.
    pub(super) fn new(image: &Path, directory: &Path, options: &str) -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: mounting needs root");
            return None;
        }
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !Path::new("/dev/loop-control").exists() || !known.contains("btrfs") {
            eprintln!("skipped: there are no loop devices here, or the kernel knows no btrfs");
            return None;
        }
        let on = directory.join("mounted");
        fs::create_dir_all(&on).unwrap();
        run(tool("mount")?.args(["-t", "btrfs", "-o", options]).arg(image).arg(&on));
        Some(Self { on, image: image.to_owned() })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let undone = Command::new("umount").arg(&self.on).status();
        assert!(undone.is_ok_and(|status| status.success()) || std::thread::panicking());
        // A test beside us may have taken a copy of all mounts into a namespace of its own.
        for _ in 0..600 {
            let held = Command::new("losetup").arg("-j").arg(&self.image).output();
            if held.is_ok_and(|held| held.stdout.is_empty()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// Everything in the tree is mounted, and nothing else: types, modes, owners, times, links, sizes, contents, attributes.
#[track_caller]
pub(super) fn compare(tree: &Tree, contents: &ContentStore, on: &Path) {
    let mut attributes = attributes(on);
    let counts = tree.link_counts();
    for (path, id) in tree.walk() {
        let place = on.join(OsStr::from_bytes(&path));
        let inode = tree.inode(id);
        let metadata = &inode.metadata;
        let found = place.symlink_metadata().unwrap_or_else(|error| panic!("{place:?}: {error}"));
        let links = if inode.is_directory() { 1 } else { counts[id.index()] };
        assert_eq!(
            (found.mode(), found.uid(), found.gid(), found.mtime(), found.nlink()),
            (inode.st_mode(), metadata.uid, metadata.gid, metadata.mtime, links.into()),
            "{place:?}"
        );
        match &inode.kind {
            Kind::File(content) => {
                assert_eq!(found.len(), content.size, "{place:?}");
                // Terabytes of nothing take too long to read; `btrfs check` knows that they are holes.
                if content.size < GIB {
                    let same = fs::read(&place).unwrap() == contents.bytes(content).unwrap();
                    assert!(same, "{place:?} has another content");
                }
            }
            Kind::Symlink(target) => {
                assert_eq!(place.read_link().unwrap().as_os_str().as_bytes(), &**target);
            }
            Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                let device = nix::sys::stat::makedev((*major).into(), (*minor).into());
                assert_eq!(found.rdev(), device, "{place:?}");
            }
            Kind::Directory(map) => {
                assert_eq!(fs::read_dir(&place).unwrap().count(), map.len(), "{place:?}");
            }
            _ => {}
        }
        // The kernel shows what users may set on files and directories only.
        let users = matches!(inode.kind, Kind::File(_) | Kind::Directory(_));
        let shown = metadata.xattrs.iter().filter(|(name, _)| users || !name.starts_with(b"user."));
        let wanted: BTreeMap<Vec<u8>, String> =
            shown.map(|(name, value)| (name.to_vec(), hex(value))).collect();
        assert_eq!(attributes.remove(&path).unwrap_or_default(), wanted, "{place:?}");
    }
}

fn hex(value: &[u8]) -> String {
    value.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Extended attributes by path, as `getfattr` prints them.
fn attributes(on: &Path) -> BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, String>> {
    let mut all: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    let Some(mut getfattr) = tool("getfattr") else { return all };
    let arguments = ["-R", "-P", "-d", "-h", "-m", "-", "-e", "hex", "."];
    let output = getfattr.args(arguments).current_dir(on).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut file = Vec::new();
    for line in output.stdout.split(|byte| *byte == b'\n') {
        if let Some(name) = line.strip_prefix(b"# file: ") {
            file = if name == b"." { Vec::new() } else { unescape(name) };
        } else if !line.is_empty() {
            let equals = line.iter().position(|byte| *byte == b'=').unwrap_or(line.len());
            let value = String::from_utf8_lossy(&line[equals..]).into_owned();
            let value = value.trim_start_matches("=").trim_start_matches("0x").to_owned();
            all.entry(file.clone()).or_default().insert(unescape(&line[..equals]), value);
        }
    }
    all
}

/// `\012` is a byte in octal.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}
