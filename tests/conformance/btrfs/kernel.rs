//! What the running kernel reads through a loop device, inode by inode; and what it makes of the file system by writing,
//! balancing, growing.
//!
//! Needs root and loop devices; without them the tests say that they are skipped.

use std::fs;
use std::path::Path;
use std::process::Command;

use bootpress::content::ContentStore;
use bootpress::filesystem::btrfs::{Compression, Options, Volumes};
use bootpress::filesystem::verity;
use bootpress::tree::{Kind, Metadata, Tree};

use super::{GIB, MIB, check, empty, nested, options, press, store, top_of_nested, volumes, zoo};
use crate::mounted::{self, Mount};
use support::tool::{run, tool};

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
        let Some(mount) = mounted_in(&path, directory.path(), "ro,loop") else { return };
        compare(&tree, &contents, &mount.on);
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
        let Some(mount) = mounted_in(&path, directory.path(), &format!("loop{option}")) else {
            return;
        };
        compare(tree, &contents, &mount.on);
        let list = run(btrfs().args(["subvolume", "list", "-a"]).arg(&mount.on));
        assert_eq!(list.lines().count(), 3, "{list}");
    }
}

#[test]
fn kernel_finds_subvolumes_in_directories() {
    let contents = store();
    let (top, small, other) = (top_of_nested(), zoo::small(&contents), zoo::small(&contents));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("btrfs");
    press(&nested(&top, &small, &other), &contents, &options(GIB)).write(&path);
    for option in ["", ",subvol=subvols/root", ",subvol=subvols/of/home", ",subvolid=257"] {
        let Some(mount) = mounted_in(&path, directory.path(), &format!("loop{option}")) else {
            return;
        };
        compare(&small, &contents, &mount.on);
        let list = run(btrfs().args(["subvolume", "list", "--sort=rootid"]).arg(&mount.on));
        let paths = list.lines().filter_map(|line| line.rsplit_once(" path "));
        let paths: Vec<&str> = paths.map(|(_, path)| path).collect();
        assert_eq!(paths, ["subvols/root", "subvols/of/home"]);
    }
    // From the top they are directories among others, and whoever takes them away leaves nothing.
    let Some(mount) = mounted_in(&path, directory.path(), "loop,subvolid=5") else { return };
    let subvols = mount.on.join("subvols");
    let mut names: Vec<_> = fs::read_dir(&subvols)
        .unwrap()
        .map(|one| one.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["file", "of", "root", "zfile"]);
    compare(&other, &contents, &subvols.join("of/home"));
    run(btrfs().args(["subvolume", "delete", "-c"]).arg(subvols.join("of/home")));
    fs::remove_dir(subvols.join("of")).unwrap();
    fs::remove_file(subvols.join("file")).unwrap();
    drop(mount);
    check(&path);
}

#[test]
fn kernel_changes_balances_snapshots_and_grows_it() {
    let contents = store();
    let (top, tree, small) = (empty(), zoo(&contents), zoo::small(&contents));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("btrfs");
    press(&volumes(&top, &tree, &small), &contents, &options(2 * GIB)).write(&path);
    let Some(mount) = mounted_in(&path, directory.path(), "loop,compress=zstd") else { return };
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
    let mount = mounted_in(&path, directory.path(), "loop").unwrap();
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
    let Some(mount) = mounted_in(&path, directory.path(), "loop") else { return };
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
        digests.push((size.to_string(), verity.digest.clone()));
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
    let Some(mount) = mounted_in(&path, directory.path(), "loop") else { return };
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

/// Mounts a btrfs at `mounted` in a directory. `None`: this machine cannot.
pub(super) fn mounted_in(image: &Path, directory: &Path, options: &str) -> Option<Mount> {
    Mount::new("btrfs", image, &directory.join("mounted"), options)
}

#[track_caller]
pub(super) fn compare(tree: &Tree, contents: &ContentStore, on: &Path) {
    mounted::compare(on, tree, contents, &mounted::BTRFS);
}
