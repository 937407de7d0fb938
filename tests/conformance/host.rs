//! Roots on other file systems than ext4: the same files as there, and file systems that their own tools find nothing wrong with.
//!
//! The host's kernel mounts all of them: that needs root and loop devices; without them the tests say that they are skipped.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::Build;
use support::bootc_image;
use support::tool::{is_root, run, tool};

#[test]
fn xfs_and_btrfs_hold_what_ext4_holds() {
    if !is_root() {
        eprintln!("skipped: the kernel mounts for root only");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    image().write_oci_layout(&directory.join("image"));
    let ext4 = press(directory, "ext4", &[]);
    let expected = seen(&ext4);
    assert!(expected.len() > 100, "{}", expected.len());

    let xfs = press(directory, "xfs", &[]);
    compare("xfs", &expected, &seen(&xfs));
    if let Some(mut xfs_repair) = tool("xfs_repair") {
        run(xfs_repair.args(["-n", "-f"]).arg(xfs.root_alone()));
    }
    assert!(xfs.summary["root_filesystem_because"].as_str().unwrap().contains("asked"));

    let flags = ["--btrfs-compress", "zstd", "--btrfs-subvolume", "root"];
    let btrfs = press(directory, "btrfs", &flags);
    compare("btrfs", &expected, &seen(&btrfs));
    if let Some(mut check) = tool("btrfs") {
        run(check.args(["check", "--readonly", "--check-data-csum"]).arg(btrfs.root_alone()));
    }
    let line = btrfs.summary["command_line"].as_str().unwrap();
    assert!(line.contains(" rootflags=subvol=root,compress=zstd "), "{line}");
    assert!(btrfs.root.2 < xfs.root.2, "it compresses: {:?}, {:?}", btrfs.root, xfs.root);
}

const SUBVOLUMES: &str = r#"
[[customizations.disk.partitions]]
type = "btrfs"
minsize = "600 MiB"
part_label = "everything"
[[customizations.disk.partitions.subvolumes]]
name = "volumes/root"
mountpoint = "/"
[[customizations.disk.partitions.subvolumes]]
name = "volumes/of/data"
mountpoint = "/var/data"
[[customizations.disk.partitions.subvolumes]]
name = "@spare"
"#;

#[test]
fn a_btrfs_has_the_subvolumes_of_a_layout() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let seed = "seed\n".repeat(100_000);
    let image = image().layer(|layer| layer.file("var/data/seed", seed.clone()));
    image.write_oci_layout(&directory.join("image"));
    fs::write(directory.join("config.toml"), SUBVOLUMES).unwrap();
    let build = |image: &str| {
        Build::new(image)
            .format("raw")
            .flags(["--bootloader", "none", "--target-imgref", "example.com/x:1"])
            .flags(["--config", "config.toml"])
            .output("disk.raw")
            .directory(directory)
    };
    let contradicted = build("oci:nowhere").flags(["--filesystem", "ext4"]).fails();
    assert_eq!(contradicted.code, 3);
    let said = contradicted.said;
    assert!(said.contains("config.toml has the root in a subvolume of btrfs"), "{said}");
    let built = build("oci:image").flags(["--btrfs-compress", "zstd"]).run();
    let line = built.report["system"]["command_line"].as_str().unwrap();
    assert!(line.contains(" rootflags=subvol=volumes/root,compress=zstd "), "{line}");
    let root = built.partition("root");
    assert_eq!(
        (&root["name"], &root["filesystem"]["kind"]),
        (&"everything".into(), &"btrfs".into())
    );
    let number = |key: &str| root[key].as_u64().unwrap();
    if !is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: mounting needs root and loop devices");
        return;
    }
    let on = directory.join("mounted");
    fs::create_dir(&on).unwrap();
    let place = format!("loop,offset={},sizelimit={}", number("start"), number("size"));
    let mut seen = Vec::new();
    for subvolume in ["volumes/root", "volumes/of/data", "@spare"] {
        let Some(mut mount) = tool("mount") else { return };
        // Not for reading only: the kernel shares one loop device and one btrfs among them.
        run(mount
            .arg("-o")
            .arg(format!("subvol={subvolume},{place}"))
            .arg(directory.join("disk.raw"))
            .arg(&on));
        match subvolume {
            "volumes/root" => {
                let var = on.join("ostree/deploy/default/var/data");
                seen.push(format!("{}", fs::read_dir(var).unwrap().count()));
                let deployments = on.join("ostree/deploy/default/deploy");
                let mut names = fs::read_dir(deployments).unwrap().map(|one| one.unwrap().path());
                let etc = names.find(|path| path.is_dir()).unwrap().join("etc");
                seen.push(fs::read_to_string(etc.join("systemd/system/var-data.mount")).unwrap());
            }
            "volumes/of/data" => {
                seen.push(fs::read_to_string(on.join("seed")).unwrap());
                if let Some(mut compsize) = tool("filefrag") {
                    seen.push(run(compsize.arg("-v").arg(on.join("seed"))));
                }
            }
            _ => {
                seen.push(format!("{}", fs::read_dir(&on).unwrap().count()));
                let Some(mut list) = tool("btrfs") else { return };
                let list = run(list.args(["subvolume", "list", "--sort=rootid"]).arg(&on));
                let paths = list.lines().filter_map(|line| line.rsplit_once(" path "));
                let paths: Vec<&str> = paths.map(|(_, path)| path).collect();
                assert_eq!(paths, ["volumes/root", "volumes/of/data", "@spare"]);
                // As osbuild leaves it.
                run(tool("btrfs").unwrap().args(["subvolume", "set-default", "5"]).arg(&on));
            }
        }
        run(Command::new("umount").arg(&on));
    }
    let uuid = root["filesystem"]["uuid"].as_str().unwrap();
    assert_eq!(seen[0], "0", "nothing is left under the mount point");
    assert!(seen[1].contains(&format!("What=/dev/disk/by-uuid/{uuid}\n")), "{}", seen[1]);
    assert!(
        seen[1].contains("Type=btrfs\nOptions=subvol=volumes/of/data,compress=zstd\n"),
        "{}",
        seen[1]
    );
    assert_eq!(seen[2], seed);
    assert!(seen[3].contains("encoded"), "it compresses: {}", seen[3]);
    assert_eq!(seen[4], "0");
    let inspected = support::bootpress()
        .args(["inspect", "--json", "disk.raw"])
        .current_dir(directory)
        .output()
        .unwrap();
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    let found = inspected["deployments"].as_array().map(Vec::len);
    assert_eq!(found, Some(1), "the root is found without a default subvolume: {inspected}");
}

const BESIDE_EXT4: &str = r#"
[[customizations.disk.partitions]]
type = "btrfs"
[[customizations.disk.partitions.subvolumes]]
name = "@data"
mountpoint = "/var/data"
[[customizations.disk.partitions]]
type = "plain"
fs_type = "ext4"
mountpoint = "/"
"#;

#[test]
fn a_btrfs_of_a_layout_may_stand_beside_an_ext4_root() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let image = image().layer(|layer| layer.file("var/data/seed", "seed"));
    image.write_oci_layout(&directory.join("image"));
    fs::write(directory.join("config.toml"), BESIDE_EXT4).unwrap();
    let built = Build::new("oci:image")
        .format("raw")
        .flags(["--bootloader", "none", "--target-imgref", "example.com/x:1"])
        .flags(["--config", "config.toml"])
        .output("disk.raw")
        .directory(directory)
        .run();
    assert_eq!(built.partition("root")["filesystem"]["kind"], "ext4");
    let data = built.partition("data");
    assert_eq!(data["filesystem"]["kind"], "btrfs");
    let number = |key: &str| data[key].as_u64().unwrap();
    let data = Pressed {
        file: directory.join("disk.raw"),
        root: (number("start"), number("size"), 0),
        summary: Value::Null,
    };
    let alone = data.root_alone();
    if let Some(mut check) = tool("btrfs") {
        run(check.args(["check", "--readonly", "--check-data-csum"]).arg(&alone));
    }
    let Some(mut restore) = tool("btrfs") else { return };
    // It reads without a mount, so without root.
    let out = directory.join("out");
    fs::create_dir(&out).unwrap();
    run(restore.args(["restore", "--root", "256"]).args([&alone, &out]));
    assert_eq!(fs::read(out.join("seed")).unwrap(), b"seed");
}

/// The tiny image, with what is hard to copy.
fn image() -> support::tiny_image::TinyImage {
    bootc_image::without_bootloader().layer(|mut layer| {
        for number in 0..100 {
            layer = layer.file(format!("usr/share/many/{number}"), "x".repeat(number * 1000));
        }
        layer
    })
}

struct Pressed {
    file: PathBuf,
    /// Offset, size and used bytes of the root.
    root: (u64, u64, u64),
    summary: Value,
}

fn press(directory: &Path, filesystem: &str, flags: &[&str]) -> Pressed {
    let file = directory.join(format!("{filesystem}.raw"));
    let built = Build::new(format!("oci:{}", directory.join("image").display()))
        .format("raw")
        .flags(["--bootloader", "none", "--layout", "osbuild"])
        .flags(["--target-imgref", "example.com/x:1", "--filesystem", filesystem])
        .flags(flags)
        .output(&file)
        .run();
    assert_eq!(built.partition("boot")["filesystem"]["kind"], "ext4");
    let root = built.partition("root");
    assert_eq!(root["filesystem"]["kind"], filesystem);
    let number = |value: &Value| value.as_u64().unwrap();
    let used = number(&root["filesystem"]["used"]);
    Pressed {
        file,
        root: (number(&root["start"]), number(&root["size"]), used),
        summary: built.report["system"].clone(),
    }
}

impl Pressed {
    /// The root in a file of its own.
    fn root_alone(&self) -> PathBuf {
        let alone = self.file.with_extension("root");
        let (start, size, _) = self.root;
        let option = |name: &str, bytes: u64| format!("{name}={}", bytes >> 20);
        run(Command::new("dd")
            .args(["bs=1M", "conv=sparse", "status=none"])
            .args([option("skip", start), option("count", size)])
            .arg(format!("if={}", self.file.display()))
            .arg(format!("of={}", alone.display())));
        alone
    }
}

/// Every file of a root, mounted where nobody else sees it: what `stat`, `sha256sum`, `readlink`, `getfattr` and `lsattr` say.
fn seen(pressed: &Pressed) -> BTreeMap<String, String> {
    let on = pressed.file.with_extension("mount");
    fs::create_dir(&on).unwrap();
    let (start, size, _) = pressed.root;
    let (Some(mut mount), Some(mut getfattr), Some(_)) =
        (tool("mount"), tool("getfattr"), tool("lsattr"))
    else {
        panic!("mount, getfattr and lsattr are needed")
    };
    run(mount
        .args(["-o", &format!("ro,loop,offset={start},sizelimit={size}")])
        .args([&pressed.file, &on]));
    let mut files = BTreeMap::new();
    let mut directories = vec![on.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let found = path.symlink_metadata().unwrap();
            let inside = path.strip_prefix(&on).unwrap().to_str().unwrap().to_owned();
            // What ext4 has for itself, and what tells of the disk.
            if inside == "lost+found" {
                continue;
            }
            let content = if found.is_dir() {
                directories.push(path);
                String::new()
            } else if found.is_symlink() {
                format!("{:?}", path.read_link().unwrap())
            } else if found.is_file() {
                let bytes = fs::read(&path).unwrap();
                format!("{} {} {:x}", bytes.len(), found.nlink(), hash(&bytes))
            } else {
                format!("{:x}", found.rdev())
            };
            let stat = (found.mode(), found.uid(), found.gid(), found.mtime());
            files.insert(inside, format!("{stat:?} {content}"));
        }
    }
    let attributes = run(getfattr
        .args(["-R", "-P", "-d", "-h", "-m", "-", "-e", "hex"])
        .arg(".")
        .current_dir(&on));
    for part in attributes.split("\n\n") {
        let Some((name, values)) = part.trim().split_once('\n') else { continue };
        let mut values: Vec<&str> = values.lines().collect();
        values.sort_unstable();
        let name = name.trim_start_matches("# file: ");
        if name != "lost+found" {
            files.insert(format!("{name} (attributes)"), values.join(" "));
        }
    }
    let deployment = on.join("ostree/deploy/default/deploy");
    let first = fs::read_dir(deployment).unwrap().map(|entry| entry.unwrap().path());
    let deployment = first.into_iter().find(|path| path.is_dir()).unwrap();
    let flags = run(Command::new("lsattr").arg("-d").arg(deployment));
    files.insert("(immutable)".to_owned(), flags[..12].contains('i').to_string());
    run(Command::new("umount").arg(&on));
    files
}

fn hash(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[track_caller]
fn compare(name: &str, expected: &BTreeMap<String, String>, found: &BTreeMap<String, String>) {
    for (path, what) in expected {
        assert_eq!(found.get(path), Some(what), "{name}: {path}");
    }
    let more: Vec<&String> = found.keys().filter(|path| !expected.contains_key(*path)).collect();
    assert!(more.is_empty(), "{name} has more: {more:?}");
}
