//! What the running kernel makes of the file system: reads all of it, changes it everywhere, grows it; and `xfs_repair` after each.
//!
//! Needs root and loop devices; without them the tests say that they are skipped.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use bootpress::content::ContentStore;
use bootpress::filesystem::xfs::{Groups, Layout, Options, Wanted, fit};
use bootpress::tree::{Kind, Metadata, Tree};

use super::{MIB, check, everything, options, press, variants};
use crate::ext4::store;
use crate::mounted::{Mount, XFS, compare};
use support::tool::{run, tool};

/// One of everything, and directories that have to be changed in each of their forms.
fn tree(contents: &ContentStore) -> Tree {
    let mut tree = everything(contents);
    let data = contents.insert_bytes(&[b'd'; 5000]).unwrap();
    for count in [3, 60, 300, 3000] {
        let path = format!("many-{count}");
        let id = tree.create(Tree::ROOT, path.as_bytes(), Metadata::root(0o755), Kind::directory());
        for number in 0..count {
            let name = format!("{number}-name");
            let kind = if number % 2 == 0 { Kind::File(data.clone()) } else { Kind::Fifo };
            tree.create(id, name.as_bytes(), Metadata::root(0o644), kind);
        }
    }
    let mut writer = contents.writer(3 * MIB);
    for _ in 0..300 {
        writer.skip(4096);
        writer.write_all(&[b'y'; 5000]).unwrap();
    }
    writer.skip(3 * MIB - 300 * 9096);
    let content = writer.finish().unwrap();
    tree.create(Tree::ROOT, b"holes", Metadata::root(0o644), Kind::File(content));
    tree
}

#[test]
fn kernel_reads_what_was_written() {
    let contents = store();
    let tree = tree(&contents);
    let directory = tempfile::tempdir().unwrap();
    for (index, options) in variants(400 * MIB).into_iter().enumerate() {
        let path = directory.path().join(format!("xfs-{index}"));
        press(&tree, &contents, &options).write(&path);
        let on = directory.path().join(format!("mnt-{index}"));
        let Some(mount) = Mount::new("xfs", &path, &on, "ro,loop,nouuid") else { return };
        compare(&mount.on, &tree, &contents, &XFS);
    }
}

#[test]
fn df_shows_what_was_forecast() {
    let contents = store();
    let tree = tree(&contents);
    let directory = tempfile::tempdir().unwrap();
    for (index, mut options) in variants(700 * MIB).into_iter().enumerate() {
        let Options { sector_size, profile, groups, .. } = options;
        let free_bytes = Some(500 * MIB);
        let wanted = Wanted { free_bytes, free_inodes: 100, sector_size, profile, groups };
        options.size = fit(&tree, &wanted).unwrap();
        let usage = Layout::of(&tree, &options).unwrap().usage();
        let path = directory.path().join(format!("xfs-{index}"));
        press(&tree, &contents, &options).write(&path);
        let on = directory.path().join(format!("mnt-{index}"));
        // For writing: the kernel withholds nothing where nothing is written.
        let Some(mount) = Mount::new("xfs", &path, &on, "loop,nouuid") else { return };
        let found = nix::sys::statvfs::statvfs(&mount.on).unwrap();
        assert_eq!(found.blocks_available(), usage.available_blocks, "{options:?}");
        assert!(found.blocks_available() * 4096 >= 500 * MIB);
    }
}

#[test]
fn file_system_survives_changes_and_grows() {
    let contents = store();
    let tree = tree(&contents);
    let directory = tempfile::tempdir().unwrap();
    for (index, options) in variants(400 * MIB).into_iter().enumerate() {
        let path = directory.path().join(format!("xfs-{index}"));
        press(&tree, &contents, &options).write(&path);
        let on = |step: &str| directory.path().join(format!("mnt-{index}-{step}"));
        let Some(mount) = Mount::new("xfs", &path, &on("first"), "loop,nouuid") else { return };
        change(&mount.on, 10_000);
        drop(mount);
        check(&path);
        File::options().write(true).open(&path).unwrap().set_len(3 << 30).unwrap();
        let Some(mount) = Mount::new("xfs", &path, &on("grown"), "loop,nouuid") else { return };
        let Some(mut xfs_growfs) = tool("xfs_growfs") else { return };
        run(xfs_growfs.arg(&mount.on));
        change(&mount.on.join("deploy-2"), 2_500);
        drop(mount);
        check(&path);
    }
}

/// Fewer groups when it grows: each is as large as those that it was made with.
#[test]
fn two_groups_are_half_as_many_when_grown() {
    let contents = store();
    let tree = everything(&contents);
    let directory = tempfile::tempdir().unwrap();
    let mut counts = Vec::new();
    for groups in [Groups::Two, Groups::Four] {
        let path = directory.path().join(format!("xfs-{groups:?}"));
        press(&tree, &contents, &Options { groups, ..options(400 * MIB) }).write(&path);
        File::options().write(true).open(&path).unwrap().set_len(4000 * MIB).unwrap();
        let on = directory.path().join(format!("mnt-{groups:?}"));
        let Some(mount) = Mount::new("xfs", &path, &on, "loop,nouuid") else { return };
        let Some(mut xfs_growfs) = tool("xfs_growfs") else { return };
        let said = run(xfs_growfs.arg(&mount.on));
        assert!(said.contains("data blocks changed from"), "{said}");
        let Some(mut xfs_info) = tool("xfs_info") else { return };
        let said = run(xfs_info.arg(&mount.on));
        let (_, count) = said.split_once("agcount=").unwrap();
        counts.push(count.split(',').next().unwrap().parse::<u32>().unwrap());
    }
    assert_eq!(counts, [20, 40]);
}

/// Creates, writes, renames, links, gives attributes and removes, in every directory that can be written to.
fn change(root: &Path, count: usize) {
    fs::create_dir_all(root).unwrap();
    let mut directories: Vec<_> = ["many-3", "many-60", "many-300", "many-3000", "usr", "new"]
        .map(|name| root.join(name))
        .into_iter()
        .collect();
    directories.iter().for_each(|directory| fs::create_dir_all(directory).unwrap());
    for number in 0..count / 5 {
        let directory = directories[number % directories.len()].clone();
        let file = directory.join(format!("changed-{number}"));
        fs::write(&file, vec![number as u8; number * 37 % 20_000]).unwrap();
        let link = directory.join(format!("linked-{number}"));
        fs::hard_link(&file, &link).unwrap();
        let _ = fs::remove_file(directory.join(format!("{number}-name")));
        let other = &directories[(number + 1) % directories.len()];
        fs::rename(&link, other.join(format!("moved-{number}"))).unwrap();
        match number % 7 {
            0 => {
                let inner = directory.join(format!("directory-{number}"));
                fs::create_dir(&inner).unwrap();
                if directories.len() < 40 {
                    directories.push(inner);
                }
            }
            1 => fs::remove_file(&file).unwrap(),
            2 => std::os::unix::fs::symlink(
                "x".repeat(number % 900 + 1),
                directory.join(format!("s-{number}")),
            )
            .unwrap(),
            _ => {}
        }
        if number % 50 == 4
            && file.exists()
            && let Some(mut setfattr) = tool("setfattr")
        {
            run(setfattr.args(["-n", "user.changed", "-v", &"x".repeat(number % 3000)]).arg(&file));
        }
    }
    let holes = root.join("holes");
    if holes.exists() {
        let mut file = File::options().append(true).open(&holes).unwrap();
        file.write_all(&[b'z'; 100_000]).unwrap();
        File::options().write(true).open(&holes).unwrap().set_len(1_000_000).unwrap();
    }
}
