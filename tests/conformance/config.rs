//! Configurations on whole disks: what was asked for is read back with tools that know nothing of bootpress.
//!
//! What is missing is collected and told at once, so that one run with many mistakes in it shows whether each is found.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::bootc_image::bootc_image;
use support::program::Failed;
use support::tiny_image::tiny_image;
use support::tool::{is_root, run, tool};
use support::{Build, Built};

/// A disk pressed from the small image with a configuration.
struct Pressed {
    directory: tempfile::TempDir,
    report: serde_json::Value,
}

fn press(config: &str, layer: &[(&str, &str)], flags: &[&str]) -> Result<Built, Failed> {
    let directory = tempfile::tempdir().unwrap();
    press_in(directory.path(), config, layer, flags)
}

fn press_in(
    directory: &Path,
    config: &str,
    layer: &[(&str, &str)],
    flags: &[&str],
) -> Result<Built, Failed> {
    let image = bootc_image().layer(|mut tar| {
        for (path, text) in layer {
            tar = tar.file(*path, text);
        }
        tar.file("etc/passwd", "root:x:0:0::/root:/bin/sh\n")
            .symlink("usr/local", "../var/usrlocal")
            .file("etc/group", "root:x:0:\nwheel:x:10:\n")
    });
    image.write_oci_layout(&directory.join("image"));
    fs::write(directory.join("config.toml"), config).unwrap();
    Build::new("oci:image")
        .format("raw")
        .flags(["--config", "config.toml"])
        .flags(flags)
        .output("disk.raw")
        .directory(directory)
        .tried()
}

impl Pressed {
    fn new(config: &str, layer: &[(&str, &str)], flags: &[&str]) -> Self {
        Self::in_directory(tempfile::tempdir().unwrap(), config, layer, flags)
    }

    fn in_directory(
        directory: tempfile::TempDir,
        config: &str,
        layer: &[(&str, &str)],
        flags: &[&str],
    ) -> Self {
        let report = press_in(directory.path(), config, layer, flags).unwrap().report;
        Self { directory, report }
    }

    fn raw(&self) -> PathBuf {
        self.directory.path().join("disk.raw")
    }

    /// The number of the partition with a role.
    fn number(&self, role: &str) -> usize {
        let partitions = self.report["partitions"].as_array().unwrap();
        1 + partitions.iter().position(|partition| partition["role"] == role).unwrap()
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
    let directory = tempfile::tempdir().unwrap();
    let failed = press_in(
        directory.path(),
        "[customizations]\nhostnam = \"x\"\n",
        &[],
        &["--target-imgref", "x"],
    )
    .unwrap_err();
    assert_eq!(failed.code, 1);
    let expected = "config.toml:2:1: unknown key customizations.hostnam; did you mean `hostname`?";
    assert!(failed.said.contains(expected), "{}", failed.said);
    press("[customizations]\nhostnam = \"x\"\n", &[], &["--lenient"]).unwrap();
    let lvm = "[[customizations.disk.partitions]]\ntype = \"lvm\"\nname = \"group\"\nminsize = \"1 GiB\"\n\
               [[customizations.disk.partitions.logical_volumes]]\nmountpoint = \"/var/x\"\nfs_type = \"ext4\"\nminsize = \"1 GiB\"\n";
    let lvm = press(lvm, &[], &[]).unwrap_err();
    assert_eq!(lvm.code, 3, "{}", lvm.said);
    let report = press_in(directory.path(), GPT, &[], &["--dry-run"]).unwrap().report;
    assert_eq!(report["size"].as_u64(), Some(3 << 30));
    assert!(report["configured"].as_array().unwrap().contains(&"/etc/hostname".into()), "{report}");
    assert!(!directory.path().join("disk.raw").exists());
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIGCAAAA\n-----END CERTIFICATE-----\n";

/// Every key that a disk can honour, but for those of partitions.
const EVERY: &str = r##"
[customizations]
hostname = "every.example"
fips = true
[customizations.kernel]
append = "one two=3"
[[customizations.sshkey]]
user = "alice"
key = "ssh-ed25519 AAAA first"
[[customizations.user]]
name = "alice"
description = "Alice A"
password = "$6$x$y"
key = "ssh-rsa BBBB second"
home = "/var/home/al/"
shell = "/usr/bin/bash"
groups = ["operators"]
uid = 1042
gid = 1200
expiredate = 20500
force_password_reset = true
[[customizations.user]]
name = "root"
key = "ssh-ed25519 CCCC root"
[[customizations.group]]
name = "operators"
gid = 1200
[customizations.timezone]
timezone = "Europe/Berlin"
ntpservers = ["a.example"]
[customizations.locale]
languages = ["de_DE.UTF-8", "en_GB.UTF-8"]
keyboard = "de"
[customizations.firewall]
ports = ["8080:tcp"]
[customizations.firewall.services]
enabled = ["https"]
disabled = ["telnet"]
[[customizations.firewall.zones]]
name = "trusted"
sources = ["192.0.2.0/24"]
[customizations.services]
enabled = ["app"]
disabled = ["cups"]
masked = ["loud"]
[customizations.sshd]
password_authentication = false
client_alive_interval = 60
permit_root_login = "prohibit-password"
kbd_interactive_authentication = true
[[customizations.directories]]
path = "/etc/app/conf.d"
user = "alice"
group = 1200
mode = "0750"
ensure_parents = true
[[customizations.files]]
path = "/etc/app/conf.d/x"
data = "x=1\n"
user = 1042
group = "operators"
mode = "0640"
[[customizations.files]]
path = "/etc/from-a-file"
uri = "file:notes"
[[customizations.files]]
path = "/root/notes"
data = "note\n"
[[customizations.files]]
path = "/usr/local/bin/tool"
data = "#!/bin/sh\n"
mode = "0755"
[customizations.cacerts]
pem_certs = ["""-----BEGIN CERTIFICATE-----
MIGCAAAA
-----END CERTIFICATE-----
"""]
[[customizations.firstboot.scripts]]
type = "custom"
name = "once"
contents = "#!/bin/sh\necho once\n"
[[customizations.firstboot.scripts]]
type = "satellite"
command = "register --now"
[[customizations.firstboot.scripts]]
type = "aap"
job_template_url = "https://aap.example/9/"
host_config_key = "key"
[customizations.ignition.firstboot]
url = "https://ignition.example/c.ign"
[customizations.bootloader.grub2]
serial = "serial --unit=0 --speed=115200"
terminal_input = ["serial"]
terminal_output = ["serial", "console"]
"##;

/// What in an image the keys need.
const NEEDED: [(&str, &str); 16] = [
    ("usr/share/zoneinfo/Europe/Berlin", "TZif"),
    ("usr/lib/systemd/systemd-timesyncd", ""),
    ("usr/lib/kbd/keymaps/xkb/de.map.gz", ""),
    ("etc/vconsole.conf", "FONT=eurlatgr\nKEYMAP=us\n"),
    ("etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\n"),
    ("etc/firewalld/firewalld.conf", "DefaultZone=public\n"),
    ("usr/lib/firewalld/zones/public.xml", "<zone>\n  <service name=\"telnet\"/>\n</zone>\n"),
    ("usr/lib/firewalld/services/https.xml", ""),
    ("usr/lib/firewalld/services/telnet.xml", ""),
    ("usr/lib/systemd/system/app.service", "[Install]\nWantedBy=multi-user.target\n"),
    ("usr/lib/systemd/system/cups.service", "[Install]\nWantedBy=multi-user.target\n"),
    ("usr/lib/systemd/system/loud.service", "[Install]\nWantedBy=multi-user.target\n"),
    ("usr/bin/update-ca-trust", ""),
    ("etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "# old\n"),
    ("etc/crypto-policies/config", "DEFAULT\n"),
    ("usr/share/crypto-policies/FIPS/openssl.txt", ""),
];

/// What is read back: paths with what their text holds, or with what debugfs says of them.
fn every_effect() -> Vec<(&'static str, &'static str)> {
    vec![
        ("etc/hostname", "every.example\n"),
        ("etc/passwd", "\nalice:x:1042:1200:Alice A:/var/home/al:/usr/bin/bash\n"),
        ("etc/shadow", "\nalice:$6$x$y:0:0:99999:7::20500:\n"),
        ("etc/group", "\noperators:x:1200:alice\n"),
        ("var/home/al/.ssh/authorized_keys", "ssh-ed25519 AAAA first\nssh-rsa BBBB second\n"),
        ("stat var/home/al/.ssh/authorized_keys", "Mode:  0600"),
        ("stat var/home/al", "User:  1042   Group:  1200"),
        ("var/roothome/.ssh/authorized_keys", "ssh-ed25519 CCCC root\n"),
        ("stat etc/localtime", "\"../usr/share/zoneinfo/Europe/Berlin\""),
        ("etc/systemd/timesyncd.conf.d/50-bootpress.conf", "[Time]\nNTP=a.example\n"),
        ("etc/locale.conf", "LANG=de_DE.UTF-8\nLANGUAGE=de_DE:en_GB\n"),
        ("etc/vconsole.conf", "FONT=eurlatgr\nKEYMAP=de\n"),
        ("etc/firewalld/zones/public.xml", "<port port=\"8080\" protocol=\"tcp\"/>"),
        ("etc/firewalld/zones/public.xml", "<service name=\"https\"/>"),
        ("etc/firewalld/zones/trusted.xml", "<source address=\"192.0.2.0/24\"/>"),
        (
            "stat etc/systemd/system/multi-user.target.wants/app.service",
            "/usr/lib/systemd/system/app.service",
        ),
        ("etc/systemd/system-preset/00-bootpress.preset", "\ndisable cups.service\n"),
        ("stat etc/systemd/system/loud.service", "\"/dev/null\""),
        ("etc/ssh/sshd_config.d/00-bootpress.conf", "\nPasswordAuthentication no\n"),
        ("etc/ssh/sshd_config.d/00-bootpress.conf", "\nKbdInteractiveAuthentication yes\n"),
        ("etc/ssh/sshd_config.d/00-bootpress.conf", "\nClientAliveInterval 60\n"),
        ("etc/ssh/sshd_config.d/00-bootpress.conf", "\nPermitRootLogin prohibit-password\n"),
        ("stat etc/app/conf.d", "Mode:  0750"),
        ("stat etc/app/conf.d", "User:  1042   Group:  1200"),
        ("etc/app/conf.d/x", "x=1\n"),
        ("stat etc/app/conf.d/x", "Mode:  0640"),
        ("stat etc/app/conf.d/x", "User:  1042   Group:  1200"),
        ("etc/from-a-file", "written elsewhere\n"),
        ("var/roothome/notes", "note\n"),
        ("var/usrlocal/bin/tool", "#!/bin/sh\n"),
        ("stat var/usrlocal/bin/tool", "Mode:  0755"),
        ("etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "# old\n-----BEGIN CERTIFICATE"),
        ("etc/bootpress/firstboot/once", "echo once\n"),
        ("etc/bootpress/firstboot/satellite-2", "register --now\n"),
        ("etc/bootpress/firstboot/aap-3", "'host_config_key=key' 'https://aap.example/9/'"),
        (
            "stat etc/systemd/system/multi-user.target.wants/bootpress-firstboot-once.service",
            "bootpress-firstboot-once.service",
        ),
        ("etc/crypto-policies/config", "FIPS\n"),
        ("boot/grub2/console.cfg", "serial --unit=0 --speed=115200\nterminal_input serial\n"),
        ("boot/grub2/console.cfg", "\nterminal_output serial console\n"),
        ("stat boot/ignition.firstboot", "Type: regular"),
        ("boot/loader/entries/ostree-1.conf", " one two=3 fips=1 "),
        (
            "boot/loader/entries/ostree-1.conf",
            " $ignition_firstboot ignition.platform.id=metal ignition.config.url=https://ignition.example/c.ign",
        ),
    ]
}

/// Presses a disk with every key, and says what of it is not on the disk as asked.
fn press_every(flags: &[&str]) -> Option<(Pressed, String)> {
    tool("debugfs")?;
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("notes"), "written elsewhere\n").unwrap();
    let static_configuration =
        ("usr/lib/bootupd/grub2-static/configs.d/20_more.cfg", "console.cfg ignition.firstboot\n");
    let layer: Vec<(&str, &str)> = NEEDED.into_iter().chain([static_configuration]).collect();
    let pressed = Pressed::in_directory(directory, EVERY, &layer, flags);
    let deployment = format!("{}.0", pressed.report["system"]["commit"].as_str().unwrap());
    Some((pressed, deployment))
}

/// Where a path of the running system is on the disk; what is below `/boot` is on a file system of its own.
fn place(path: &str, deployment: &str) -> String {
    match path.split_once('/').map(|(top, _)| top) {
        Some("boot") => path["boot".len()..].to_owned(),
        Some("etc") => format!("/ostree/deploy/default/deploy/{deployment}/{path}"),
        Some("var") => format!("/ostree/deploy/default/{path}"),
        _ => format!("/{path}"),
    }
}

#[test]
fn every_key_is_on_the_disk() {
    let Some((pressed, deployment)) = press_every(&[]) else { return };
    let root = pressed.number("root");
    let mut missing = Vec::new();
    for (what, expected) in every_effect() {
        let (request, path) = match what.strip_prefix("stat ") {
            Some(path) => ("stat", path),
            None => ("cat", what),
        };
        let number = if path.starts_with("boot/") { pressed.number("boot") } else { root };
        let said =
            pressed.debugfs(number, &format!("{request} {}", place(path, &deployment))).unwrap();
        if !said.contains(expected) {
            missing.push(format!("{what}: not {expected:?} but {said}"));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    let absent = pressed
        .debugfs(root, &format!("cat {}", place("etc/firewalld/zones/public.xml", &deployment)))
        .unwrap();
    assert!(!absent.contains("telnet"), "{absent}");
    let anchors = place("etc/pki/ca-trust/source/anchors", &deployment);
    let names = pressed.debugfs(root, &format!("ls -p {anchors}")).unwrap();
    let name = names.lines().find_map(|line| line.split('/').find(|n| n.ends_with(".pem")));
    let name = name.unwrap_or_else(|| panic!("{names}"));
    let anchor = pressed.debugfs(root, &format!("cat {anchors}/{name}")).unwrap();
    assert!(anchor.starts_with(CERTIFICATE), "{anchor}");
    assert_eq!(pressed.check(), 2, "root and, for Ignition, /boot");
    let warnings = pressed.report["warnings"].as_array().unwrap();
    assert!(
        warnings.iter().all(|warning| !warning.to_string().contains("no effect")),
        "{warnings:?}"
    );
}

/// The configuration gives the same files on an XFS root.
#[test]
fn every_key_is_on_an_xfs_root_too() {
    if !is_root() {
        eprintln!("skipped: mounting needs root");
        return;
    }
    let Some((pressed, deployment)) = press_every(&["--filesystem", "xfs"]) else { return };
    let root = pressed.number("root");
    let filesystem = &pressed.report["partitions"][root - 1]["filesystem"];
    assert_eq!((&filesystem["kind"], &filesystem["label"]), (&"xfs".into(), &"root".into()));
    let alone = pressed.cut(root);
    if let Some(mut blkid) = tool("blkid") {
        let said = run(blkid.args(["-p", "-o", "export"]).arg(&alone));
        let uuid = filesystem["uuid"].as_str().unwrap();
        assert!(
            said.contains(&format!("UUID={uuid}\n")) && said.contains("LABEL=root\n"),
            "{said}"
        );
    }
    let on = pressed.directory.path().join("mounted");
    fs::create_dir(&on).unwrap();
    let Some(mut mount) = tool("mount") else { return };
    run(mount.args(["-o", "ro,loop"]).arg(&alone).arg(&on));
    let mut missing = Vec::new();
    for (what, expected) in every_effect() {
        let path = what.strip_prefix("stat ").unwrap_or(what);
        // /boot is an ext4 of its own then, which the test above has looked into.
        if path.starts_with("boot/") {
            continue;
        }
        let path = on.join(place(path, &deployment).trim_start_matches('/'));
        let said = match (what.starts_with("stat "), path.read_link()) {
            (true, Ok(target)) => format!("{target:?}"),
            (true, Err(_)) => match path.metadata() {
                Ok(found) => format!(
                    "Mode:  {:04o} User:  {:4}   Group:  {:4}",
                    found.mode() & 0o7777,
                    found.uid(),
                    found.gid()
                ),
                Err(error) => error.to_string(),
            },
            (false, _) => fs::read_to_string(&path).unwrap_or_else(|error| error.to_string()),
        };
        if !said.contains(expected) {
            missing.push(format!("{what}: not {expected:?} but {said}"));
        }
    }
    run(Command::new("umount").arg(&on));
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    let boot = pressed.number("boot");
    let console = pressed.debugfs(boot, "cat /grub2/console.cfg").unwrap();
    assert!(console.starts_with("serial --unit=0"), "{console}");
}

/// An application image beside the system's, and a disk with it.
fn with_container(config: &str, more: &[&str]) -> Result<Built, Failed> {
    let directory = tempfile::tempdir().unwrap();
    press_container(directory.path(), config, more)
}

fn press_container(directory: &Path, config: &str, more: &[&str]) -> Result<Built, Failed> {
    let app = tiny_image().layer(|layer| layer.file("bin/app", "the application\n"));
    app.write_oci_layout(&directory.join("app"));
    let flags = [&["--bound-image", "registry.example/app:1=oci:app"], more].concat();
    press_in(directory, config, &[], &flags)
}

const CONTAINER: &str = "[[containers]]\nsource = \"registry.example/app:1\"\n";

#[test]
fn containers_of_a_configuration_are_where_podman_looks() {
    let volume = "[[customizations.disk.partitions]]\nmountpoint = \"/var/lib/containers\"\nfs_type = \"ext4\"\n";
    let elsewhere = "[customizations.containers-storage]\ndestination-path = \"/var/lib/apps\"\n";
    for (more, role, top) in [
        ("", "root", "/ostree/deploy/default/var/lib/containers/storage"),
        (volume, "data", "/storage"),
        (elsewhere, "root", "/ostree/deploy/default/var/lib/apps"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let built = press_container(directory.path(), &format!("{CONTAINER}{more}"), &[]);
        let report = built.unwrap_or_else(|failed| panic!("{more}: {failed:?}")).report;
        let pressed = Pressed { directory, report };
        assert_eq!(pressed.report["stored_images"], serde_json::json!(["registry.example/app:1"]));
        let number = pressed.number(role);
        let Some(images) =
            pressed.debugfs(number, &format!("cat {top}/overlay-images/images.json"))
        else {
            return;
        };
        assert!(images.contains("\"names\":[\"registry.example/app:1\"]"), "{more}: {images}");
        let found = pressed.debugfs(number, &format!("stat {top}")).unwrap();
        assert!(found.contains("Mode:  0700"), "{more}: {found}");
        assert!(pressed.check() > 0);
        if more == elsewhere {
            let root = pressed.number("root");
            let names = pressed.debugfs(root, "ls -p /ostree/deploy/default/deploy").unwrap();
            let deployment = names.split('/').find(|name| name.ends_with(".0")).unwrap();
            let path = place("etc/containers/storage.conf", deployment);
            let conf = pressed.debugfs(root, &format!("cat {path}")).unwrap();
            assert!(conf.contains("additionalimagestores = [\"/var/lib/apps\""), "{conf}");
        }
    }
    with_container("[[containers]]\nsource = \"oci:\"\n", &[]).unwrap_err();
    let other = ["--bound-image", "registry.example/other=oci:app"];
    let unknown = with_container(CONTAINER, &other).unwrap_err();
    assert_eq!(unknown.code, 3, "{}", unknown.said);
    let outside = with_container(
        "[customizations.containers-storage]\ndestination-path = \"/usr/share/x\"\n",
        &[],
    )
    .unwrap_err();
    assert_eq!(outside.code, 3, "{}", outside.said);
}

/// The policy is asked for each application, too, as when podman would pull it.
#[test]
fn a_container_that_the_policy_rejects_stops_the_build() {
    let directory = tempfile::tempdir().unwrap();
    let app = directory.path().canonicalize().unwrap().join("app");
    let policy = serde_json::json!({
        "default": [{"type": "insecureAcceptAnything"}],
        "transports": {"oci": {app.to_str().unwrap(): [{"type": "reject"}]}},
    });
    fs::write(directory.path().join("policy.json"), policy.to_string()).unwrap();
    let flags = ["--signature-policy", "policy.json"];
    let said = press_container(directory.path(), CONTAINER, &flags).unwrap_err().said;
    assert!(said.contains("registry.example/app:1") && said.contains("reject"), "{said}");
}

/// A dry run tells everything and leaves nothing behind, not even the directory that it would have made.
#[test]
fn a_rehearsal_tells_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let names = |directory: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    press_in(directory.path(), GPT, &[], &["--dry-run"]).unwrap();
    let before = names(directory.path());
    let build = |formats: &str| {
        Build::new("oci:image")
            .format(formats)
            .flags(["--dry-run", "--config", "config.toml"])
            .output("new/deep/")
            .directory(directory.path())
    };
    // This image has no programs for a live system; without the medium all is well.
    let failed = build("raw.xz,vmdk,iso").fails();
    assert_eq!(failed.code, 3, "{}", failed.said);
    let report = build("raw.xz,vmdk").run().report;
    let layers = report["image"]["layers"].as_array().unwrap();
    assert!(layers.len() >= 4, "{report}");
    assert!(layers[0]["media_type"].as_str().unwrap().contains("layer.v1.tar"), "{report}");
    assert_eq!(report["planned"][0]["format"], "raw.xz");
    assert_eq!(report["planned"][1]["path"], "new/deep/image-43.1.x86_64.vmdk");
    assert_eq!(report["files"], serde_json::json!([]));
    let said = run(&mut build("raw.xz,vmdk").command());
    let digest = layers[0]["digest"].as_str().unwrap().trim_start_matches("sha256:");
    for expected in [
        "[bios-boot",
        "/etc/hostname",
        " quiet splash",
        &format!("     1  {}  ", &digest[..12]),
        "nothing was written: this is what a disk of 3 GiB would be",
        "would write   new/deep/image-43.1.x86_64.raw.xz (raw.xz)",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert_eq!(names(directory.path()), before);
}

/// Bytes of the disk that a size asks for, and of the image's files as far as that tells.
fn size_of(asked: Option<&str>) -> u64 {
    let mut flags = vec!["--dry-run"];
    flags.extend(asked.iter().flat_map(|asked| ["--size", asked]));
    let filling = "x".repeat(3 << 20);
    let built = press("", &[("usr/share/filling", &filling)], &flags).unwrap();
    built.report["size"].as_u64().unwrap()
}

#[test]
fn sizes_follow_from_what_is_on_the_disk() {
    const MIB: u64 = 1 << 20;
    let (usual, least) = (size_of(None), size_of(Some("min")));
    // Room for an upgrade, and for running.
    assert!(usual > least + (256 * MIB), "{usual}, {least}");
    assert_eq!(size_of(Some("min+2GiB")), least + (2 << 30));
    let rounded = |bytes: u64| bytes.next_multiple_of(MIB);
    assert_eq!(size_of(Some("min+20%")), rounded(least / 10 * 12));
    assert_eq!(size_of(Some("min*1.5")), rounded(least / 2 * 3));
    assert_eq!(size_of(Some("4G")), 4 << 30);
    // The image has a little more than what was filled in, and 600 times that is a disk.
    let image = size_of(Some("image*600"));
    assert!((600 * 3 * MIB..600 * 6 * MIB).contains(&image), "{image}");
    let twice = size_of(Some("image*1200"));
    assert!(twice.abs_diff(2 * image) <= 2 * MIB, "{twice}, {image}");
    let small = press("", &[], &["--dry-run", "--size", "100M"]).unwrap_err();
    assert_eq!(small.code, 3);
    assert!(small.said.contains("would do"), "the least is told");
}

/// What is added so that the root grows, by what the image has for it.
#[test]
fn a_root_grows_with_what_the_image_has() {
    let grown = |layer: &[(&str, &str)]| {
        let pressed = Pressed::new("", layer, &["--grow"]);
        let root = pressed.number("root");
        let names = pressed.debugfs(root, "ls -p /ostree/deploy/default/deploy")?;
        let deployment = names.split('/').find(|name| name.ends_with(".0")).unwrap();
        let read = |path: &str| {
            pressed.debugfs(root, &format!("cat {}", place(path, deployment))).unwrap()
        };
        let unit = read("etc/systemd/system/bootpress-grow-root.service");
        let said = format!("{unit}\n{}", read("etc/bootpress/grow-root"));
        let pending = "stat /ostree/deploy/default/var/lib/bootpress/pending/grow-root";
        let pending = pressed.debugfs(root, pending).unwrap().contains("Type: regular");
        let uuid = pressed.report["partitions"][root - 1]["filesystem"]["uuid"].clone();
        Some((
            said,
            pending,
            uuid.as_str().unwrap().to_owned(),
            pressed.report["warnings"].to_string(),
        ))
    };
    let repart = [("usr/bin/systemd-repart", ""), ("usr/lib/systemd/systemd-growfs", "")];
    let Some((said, pending, uuid, _)) = grown(&repart) else { return };
    for expected in [
        "ConditionPathExists=/var/lib/bootpress/pending/grow-root\n",
        "ExecStart=/bin/sh /etc/bootpress/grow-root\n",
        "WantedBy=multi-user.target\n",
        &format!("/dev/disk/by-uuid/{uuid})\n"),
        "systemd-repart --dry-run=no --definitions=/etc/bootpress/repart.d \"$disk\"\n",
        "mount -o remount,rw /sysroot\n/usr/lib/systemd/systemd-growfs /sysroot\n",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(pending, "the unit would never run");
    let sfdisk = [("usr/sbin/sfdisk", ""), ("usr/sbin/partx", ""), ("usr/sbin/resize2fs", "")];
    let (said, ..) = grown(&sfdisk).unwrap();
    // What debugfs says of itself comes behind.
    let script = said.split_once("#!/bin/sh").unwrap().1.split("debugfs 1").next().unwrap();
    assert!(script.contains("sfdisk --no-reread --force -N \"$number\" \"$disk\"\n"), "{said}");
    assert!(script.trim_end().ends_with("\nresize2fs \"$partition\""), "{said}");
    let mut shell = Command::new("sh");
    shell.args(["-n", "-c", &format!("#!/bin/sh{script}")]);
    run(&mut shell);
    let (_, pending, _, warnings) = grown(&[]).unwrap();
    assert!(!pending && warnings.contains("the root will not grow"), "{warnings}");
}

const FIRSTBOOT: &str = "[customizations.ignition.firstboot]\nurl = \"https://x.example/c.ign\"\n";
const READS_IT: (&str, &str) =
    ("usr/lib/bootupd/grub2-static/configs.d/20_ignition.cfg", "ignition.firstboot\n");

/// CoreOS' drop-in looks at the top of the file system that holds /boot, and its platform follows from the format.
#[test]
fn ignition_gets_a_boot_of_its_own_and_the_platform_of_the_format() {
    if tool("debugfs").is_none() {
        return;
    }
    for (flags, id) in
        [(&[][..], "metal"), (&["--karg", "ignition.platform.id=nutanix"], "nutanix")]
    {
        let pressed = Pressed::new(FIRSTBOOT, &[READS_IT], flags);
        let boot = pressed.number("boot");
        let label = &pressed.report["partitions"][boot - 1]["filesystem"]["label"];
        assert_eq!(label, "boot");
        let said = pressed.debugfs(boot, "stat /ignition.firstboot").unwrap();
        assert!(said.contains("Type: regular"), "{said}");
        let entry = pressed.debugfs(boot, "cat /loader/entries/ostree-1.conf").unwrap();
        assert!(entry.contains(&format!(" ignition.platform.id={id} ")), "{entry}");
        assert_eq!(entry.matches("ignition.platform.id=").count(), 1, "{entry}");
    }
    let refused = |config: &str, flags: &[&str], why: &str| {
        let failed = press(config, &[READS_IT], flags).unwrap_err();
        assert!(failed.code == 3 && failed.said.contains(why), "{failed:?}");
    };
    let both = "raw and qcow2 cannot be made at once with customizations.ignition";
    refused(FIRSTBOOT, &["--format", "qcow2"], both);
    let layout = format!(
        "{FIRSTBOOT}[[customizations.disk.partitions]]\nmountpoint = \"/boot\"\nfs_type = \"ext4\"\nlabel = \"mine\"\nminsize = \"512 MiB\"\n"
    );
    refused(&layout, &[], "labelled `boot`, and the layout labels /boot `mine`");
}

/// Without a UUID, GRUB's static files search for the label `boot`.
#[test]
fn skip_boot_uuid_gets_a_file_system_labelled_boot() {
    let skip = ("usr/lib/bootc/install/50.toml", "[install.bootupd]\nskip-boot-uuid = true\n");
    let pressed = Pressed::new("", &[skip], &[]);
    let boot = pressed.number("boot");
    let filesystem = &pressed.report["partitions"][boot - 1]["filesystem"];
    assert_eq!((&filesystem["kind"], &filesystem["label"]), (&"ext4".into(), &"boot".into()));
    let said = pressed.debugfs(boot, "ls -p /grub2").unwrap_or_default();
    assert!(said.is_empty() || !said.contains("bootuuid.cfg"), "{said}");
}

/// What goes to a directory that is another one when the system runs.
#[test]
fn what_would_be_gone_when_the_system_runs_is_refused() {
    const USER: &str = "[[customizations.user]]\nname = \"ann\"\n";
    const FILE: &str = "[[customizations.files]]\npath = \"/root/x\"\ndata = \"x\"\n";
    let transient =
        ("etc/ostree/prepare-root.conf", "[composefs]\nenabled = yes\n[etc]\ntransient = true\n");
    let var = ("usr/lib/systemd/system/var.mount", "[Mount]\nWhat=tmpfs\nWhere=/var\n");
    let fstab = ("etc/fstab", "LABEL=home /var/home btrfs defaults 0 0\n");
    let systemd = ("usr/lib/systemd/libsystemd-shared-257.so", "ELF");
    for (config, layer, flags, why) in [
        (USER, &[transient][..], &[][..], "writes /etc/passwd, which would be gone"),
        (
            FILE,
            &[var],
            &[],
            "usr/lib/systemd/system/var.mount of the image mounts something over /var",
        ),
        (USER, &[fstab], &[], "etc/fstab of the image mounts something over /var/home"),
        (FILE, &[], &["--karg", "systemd.volatile=state"], "systemd.volatile=state empties it"),
        ("", &[transient], &["--layout", "osbuild"], "/boot is a file system of its own"),
    ] {
        let failed = press(config, layer, flags).unwrap_err();
        assert!(failed.code == 3 && failed.said.contains(why), "{why}: {failed:?}");
    }
    // What survives is done: a file in /var beside a transient /etc, and /boot where systemd takes it from the command line.
    Pressed::new(FILE, &[transient], &[]);
    let pressed = Pressed::new("", &[transient, systemd], &["--layout", "osbuild"]);
    let line = pressed.report["system"]["command_line"].to_string();
    assert!(line.contains("systemd.mount-extra=UUID="), "{line}");
    assert!(line.contains(":/boot:auto:ro"), "{line}");
}

/// What GRUB would stop at is refused, and says where it came from.
#[test]
fn kernel_arguments_that_grub_cannot_read_are_refused_wherever_they_are() {
    let kargs = ("usr/lib/bootc/kargs.d/5.toml", "kargs = ['a=\"b']\n");
    let install = ("usr/lib/bootc/install/5.toml", "[install]\nkargs = ['a=\"b']\n");
    let append = "[customizations.kernel]\nappend = 'a=\"b'\n";
    for (config, layer, flags, code, place) in [
        ("", &[][..], &["--karg", "a=\"b"][..], 2, "--karg"),
        (append, &[], &[], 1, "config.toml:2:"),
        ("", &[kargs], &[], 4, "usr/lib/bootc/kargs.d/5.toml"),
        ("", &[install], &[], 4, "usr/lib/bootc/install/5.toml"),
        ("", &[], &["--root-mount-spec", "LABEL=\"x"], 3, "kernel command line"),
    ] {
        let failed = press(config, layer, flags).unwrap_err();
        let told = &failed.said;
        assert!(
            told.contains(place) && told.contains("a double quote is not closed"),
            "{failed:?}"
        );
        assert_eq!(failed.code, code, "{failed:?}");
    }
}
