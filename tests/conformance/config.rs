//! Configurations on whole disks: what was asked for is read back with tools that know nothing of bootpress.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::bootc_image::bootc_image;
use crate::tool::{run, tool};

/// A disk pressed from the small image with a configuration.
struct Pressed {
    directory: tempfile::TempDir,
    report: serde_json::Value,
}

fn press(config: &str, layer: &[(&str, &str)], flags: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    press_in(directory.path(), config, layer, flags)
}

fn press_in(directory: &Path, config: &str, layer: &[(&str, &str)], flags: &[&str]) -> Output {
    let image = bootc_image().layer(|mut tar| {
        for (path, text) in layer {
            tar = tar.file(*path, text);
        }
        tar.file("etc/passwd", "root:x:0:0::/root:/bin/sh\n")
            .file("etc/group", "root:x:0:\nwheel:x:10:\n")
    });
    image.write_oci_layout(&directory.join("image"));
    fs::write(directory.join("config.toml"), config).unwrap();
    Command::new(env!("CARGO_BIN_EXE_bootpress"))
        .args(["build", "--arch", "x86_64", "--json", "--progress", "none", "--format", "raw"])
        .args(["--config", "config.toml", "--output", "disk.raw"])
        .args(flags)
        .arg("oci:image")
        .current_dir(directory)
        .output()
        .unwrap()
}

impl Pressed {
    fn new(config: &str, layer: &[(&str, &str)], flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let Output { status, stdout, stderr } = press_in(directory.path(), config, layer, flags);
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        let report = serde_json::from_slice(&stdout).unwrap();
        Self { directory, report }
    }

    fn raw(&self) -> PathBuf {
        self.directory.path().join("disk.raw")
    }

    /// Offset and size of a partition.
    fn place(&self, number: usize) -> (u64, u64) {
        let partition = &self.report["partitions"][number - 1];
        (partition["start"].as_u64().unwrap(), partition["size"].as_u64().unwrap())
    }

    /// What debugfs says about the ext4 in a partition.
    fn debugfs(&self, number: usize, request: &str) -> Option<String> {
        let file = format!("{}?offset={}", self.raw().display(), self.place(number).0);
        Some(run(tool("debugfs")?.args(["-R", request]).arg(file)))
    }

    /// Checks every ext4, and says how many there are.
    fn check(&self) -> usize {
        let mut count = 0;
        for (partition, number) in self.report["partitions"].as_array().unwrap().iter().zip(1..) {
            if partition["filesystem"]["kind"] == "ext4"
                && let Some(mut e2fsck) = tool("e2fsck")
            {
                let place = format!("{}?offset={}", self.raw().display(), self.place(number).0);
                run(e2fsck.arg("-fn").arg(place));
                count += 1;
            }
        }
        count
    }

    fn cut(&self, number: usize) -> PathBuf {
        let (start, size) = self.place(number);
        let file = self.directory.path().join(format!("partition{number}"));
        run(Command::new("dd")
            .arg(format!("if={}", self.raw().display()))
            .arg(format!("of={}", file.display()))
            .args(["bs=1M", "conv=sparse", "status=none"])
            .arg(format!("skip={}", start >> 20))
            .arg(format!("count={}", size >> 20)));
        file
    }

    fn sfdisk(&self) -> Option<serde_json::Value> {
        let said = run(tool("sfdisk")?.arg("--json").arg(self.raw()));
        Some(serde_json::from_str::<serde_json::Value>(&said).unwrap()["partitiontable"].clone())
    }
}

const GPT: &str = r#"
[customizations]
hostname = "pressed.example"
[customizations.kernel]
append = "quiet splash"
[[customizations.user]]
name = "alice"
password = "secret"
key = "ssh-ed25519 AAAA alice"
groups = ["wheel"]
[[customizations.files]]
path = "/etc/app.conf"
data = "x=1\n"
mode = "0640"
[customizations.disk]
minsize = "3 GiB"
[[customizations.disk.partitions]]
mountpoint = "/boot"
fs_type = "ext4"
minsize = "200 MiB"
[[customizations.disk.partitions]]
fs_type = "swap"
label = "paging"
minsize = "64 MiB"
[[customizations.disk.partitions]]
mountpoint = "/var/data"
fs_type = "ext4"
label = "data"
minsize = "100 MiB"
part_label = "the data"
part_uuid = "ada2bfb3-37ff-4c54-9e01-1c5b8d6dd3c8"
[[customizations.disk.partitions]]
mountpoint = "/var/lib/exchange"
fs_type = "vfat"
label = "EXCHANGE"
minsize = "64 MiB"
[[customizations.disk.partitions]]
mountpoint = "/"
fs_type = "ext4"
minsize = "1 GiB"
"#;

#[test]
fn a_layout_of_ones_own_is_on_the_disk_with_what_is_in_it() {
    let layer = [("var/data/seed", "moved\n"), ("usr/share/empty2", "")];
    let pressed = Pressed::new(GPT, &layer, &[]);
    assert_eq!(pressed.report["size"].as_u64(), Some(3 << 30));
    if let Some(table) = pressed.sfdisk() {
        let partitions = table["partitions"].as_array().unwrap();
        let sizes: Vec<u64> =
            partitions.iter().map(|p| p["size"].as_u64().unwrap() / 2048).collect();
        assert_eq!(sizes, [1, 512, 200, 64, 100, 64, 1024]);
        assert_eq!(partitions[3]["type"], "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F");
        assert_eq!(partitions[4]["name"], "the data");
        assert_eq!(partitions[4]["uuid"], "ADA2BFB3-37FF-4C54-9E01-1C5B8D6DD3C8");
    }
    if let Some(mut sgdisk) = tool("sgdisk") {
        let said = run(sgdisk.arg("-v").arg(pressed.raw()));
        assert!(said.contains("No problems found"), "{said}");
    }
    assert_eq!(pressed.check(), 3);
    if let Some(mut fsck) = tool("fsck.fat") {
        run(fsck.arg("-n").arg(pressed.cut(6)));
    }
    if let Some(mut blkid) = tool("blkid") {
        let said = run(blkid.args(["-p", "-o", "export"]).arg(pressed.cut(4)));
        assert!(said.contains("TYPE=swap") && said.contains("LABEL=paging"), "{said}");
    }
    // What the image has below the mount point lies on the volume, and nothing is left under it.
    let Some(seed) = pressed.debugfs(5, "cat /seed") else { return };
    assert!(seed.starts_with("moved\n"), "{seed}");
    let below = pressed.debugfs(7, "ls -p /ostree/deploy/default/var/data").unwrap();
    assert!(!below.contains("seed"), "{below}");
    let entry = pressed.debugfs(3, "cat /loader/entries/ostree-1.conf").unwrap();
    assert!(entry.contains(" quiet splash"), "{entry}");
}

#[test]
fn a_configured_system_is_on_the_disk() {
    let pressed = Pressed::new(GPT, &[], &["--grow"]);
    let Some(names) = pressed.debugfs(7, "ls -p /ostree/deploy/default/deploy") else { return };
    let deployment = names.split('/').find(|name| name.ends_with(".0")).unwrap();
    let etc = format!("/ostree/deploy/default/deploy/{deployment}/etc");
    let text = |path: &str| pressed.debugfs(7, &format!("cat {etc}/{path}")).unwrap();
    assert!(text("hostname").starts_with("pressed.example\n"));
    assert!(text("passwd").contains("\nalice:x:1000:1000::/var/home/alice:/bin/sh\n"));
    assert!(text("group").contains("wheel:x:10:alice\n"));
    let shadow = text("shadow");
    let hash =
        shadow.lines().find_map(|line| line.strip_prefix("alice:")?.split(':').next()).unwrap();
    let salt = hash.split('$').nth(2).unwrap();
    if let Some(mut openssl) = tool("openssl") {
        let expected = run(openssl.args(["passwd", "-6", "-salt", salt, "secret"]));
        assert_eq!(expected.trim(), hash);
    }
    let keys = pressed
        .debugfs(7, "cat /ostree/deploy/default/var/home/alice/.ssh/authorized_keys")
        .unwrap();
    assert!(keys.starts_with("ssh-ed25519 AAAA alice\n"), "{keys}");
    let home = pressed.debugfs(7, "stat /ostree/deploy/default/var/home/alice").unwrap();
    assert!(home.contains("Mode:  0700") && home.contains("User:  1000"), "{home}");
    let file = pressed.debugfs(7, &format!("stat {etc}/app.conf")).unwrap();
    assert!(file.contains("Mode:  0640"), "{file}");
    let unit = text("systemd/system/var-data.mount");
    assert!(unit.contains("Where=/var/data\n"), "{unit}");
    let wanted = pressed
        .debugfs(7, &format!("ls -p {etc}/systemd/system/local-fs.target.requires"))
        .unwrap();
    assert!(
        wanted.contains("var-data.mount") && wanted.contains("var-lib-exchange.mount"),
        "{wanted}"
    );
    let warnings = pressed.report["warnings"].to_string();
    assert!(warnings.contains("--grow: the root will not grow"), "{warnings}");
}

#[test]
fn a_master_boot_record_has_the_partitions() {
    let config = "[customizations.disk]\ntype = \"dos\"\n[[customizations.disk.partitions]]\nmountpoint = \"/\"\nfs_type = \"ext4\"\nminsize = \"1 GiB\"\n[[customizations.disk.partitions]]\nfs_type = \"swap\"\nminsize = \"16 MiB\"\n";
    let pressed = Pressed::new(config, &[], &[]);
    assert_eq!(pressed.check(), 1);
    let Some(table) = pressed.sfdisk() else { return };
    assert_eq!(table["label"], "dos");
    let types: Vec<&str> = table["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["ef", "83", "82"]);
}

#[test]
fn an_image_may_bring_its_layout() {
    let yaml = "mount_configuration: fstab\npartition_table:\n  partitions:\n    - {size: 100 MiB, payload_type: filesystem, payload: {type: vfat, uuid: 7B77-95E7, mountpoint: /boot/efi}}\n    - {size: 32 MiB, payload_type: swap}\n    - {payload_type: filesystem, payload: {type: ext4, mountpoint: /, uuid: 6264d520-3fb9-423f-8ab8-7a0a8e3d3562}}\n";
    let layer = [("usr/lib/bootc-image-builder/disk.yaml", yaml)];
    let pressed = Pressed::new("", &layer, &["--size", "min+1GiB"]);
    let filesystem = |index: usize| &pressed.report["partitions"][index]["filesystem"];
    assert_eq!(filesystem(1)["uuid"], "7B77-95E7");
    assert_eq!(filesystem(2)["kind"], "swap");
    assert_eq!(filesystem(3)["uuid"], "6264d520-3fb9-423f-8ab8-7a0a8e3d3562");
    assert!(pressed.place(4).1 > 1 << 30, "{:?}", pressed.place(4));
    assert_eq!(pressed.check(), 1);
    let usual = Pressed::new("", &layer, &["--ignore-image-layout"]);
    assert_eq!(usual.report["partitions"].as_array().unwrap().len(), 3);
}

#[test]
fn mistakes_are_told_before_anything_is_read_and_a_rehearsal_writes_nothing() {
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let directory = tempfile::tempdir().unwrap();
    let output = press_in(
        directory.path(),
        "[customizations]\nhostnam = \"x\"\n",
        &[],
        &["--target-imgref", "x"],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains(
            "config.toml:2:1: unknown key customizations.hostnam; did you mean `hostname`?"
        ),
        "{}",
        said(&output)
    );
    let lenient = press("[customizations]\nhostnam = \"x\"\n", &[], &["--lenient"]);
    assert!(lenient.status.success(), "{}", said(&lenient));
    let xfs = press(
        "[[customizations.disk.partitions]]\nmountpoint = \"/var/x\"\nfs_type = \"xfs\"\n",
        &[],
        &[],
    );
    assert_eq!(xfs.status.code(), Some(3), "{}", said(&xfs));
    let output = press_in(directory.path(), GPT, &[], &["--dry-run"]);
    assert!(output.status.success(), "{}", said(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["size"].as_u64(), Some(3 << 30));
    assert!(report["configured"].as_array().unwrap().contains(&"/etc/hostname".into()), "{report}");
    assert!(!directory.path().join("disk.raw").exists());
}
