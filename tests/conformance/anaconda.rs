//! Media with Anaconda: the tree as bootc-image-builder's type `bootc-installer` has it, read by those who will read it: xorriso,
//! unsquashfs, e2fsck and debugfs, skopeo, pykickstart. The image is a sham, as there is no Anaconda but Fedora's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::Build;
use support::bootc_image::bootc_image;
use support::tiny_image::TinyImage;
use support::tool::{fetched, forky, run, tool};

/// An initramfs with these files, as dracut names them.
fn initramfs(paths: &[&str]) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    for path in paths {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "sham\n").unwrap();
    }
    let mut shell = tool("cpio").map(|_| Command::new("sh"))?;
    let archive = directory.path().with_extension("cpio");
    shell.arg("-c").arg("find . | LC_ALL=C sort | cpio --quiet -o -H newc >\"$0\"").arg(&archive);
    run(shell.current_dir(directory.path()));
    let bytes = fs::read(&archive).unwrap();
    fs::remove_file(archive).unwrap();
    Some(bytes)
}

/// An image with Anaconda, whose initramfs has these files.
fn installer(paths: &[&str]) -> Option<TinyImage> {
    let initramfs = initramfs(paths)?;
    Some(bootc_image().layer(|layer| {
        layer
            .file("usr/libexec/anaconda/run-anaconda", "#!/bin/sh\n")
            .file("usr/lib/systemd/system/anaconda.target", "[Unit]\n")
            .file("usr/lib/modules/6.17.1-tiny/initramfs.img", initramfs)
            .file(
                "usr/lib/os-release",
                "ID=tiny\nNAME=\"Tiny Linux\"\nPRETTY_NAME=\"Tiny Linux 43\"\nVERSION_ID=43\n",
            )
            .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
            .file("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n")
            .file(
                "etc/selinux/targeted/contexts/files/file_contexts",
                "/.*\tsystem_u:object_r:usr_t:s0\n",
            )
    }))
}

const WITH_ANACONDA: &[&str] = &["usr/lib/anaconda-lib.sh", "usr/lib/dracut-lib.sh"];

const BLUEPRINT: &str = r#"
[customizations]
hostname = "tiny"
[customizations.kernel]
append = "console=ttyS0 mitigations=off"
[customizations.timezone]
timezone = "Europe/Berlin"
ntpservers = ["ntp.example.com"]
[customizations.locale]
languages = ["de_DE.UTF-8", "en_GB.UTF-8"]
keyboard = "de-nodeadkeys"
[customizations.services]
enabled = ["a.service", "b.socket"]
[customizations.iso]
volume_id = "TINY-INSTALLER"
publisher = "NOBODY"
[[customizations.group]]
name = "crew"
gid = 2000
[[customizations.user]]
name = "ann"
description = "Ann O'Tate"
password = "it's $ecret"
groups = ["wheel", "crew"]
key = "ssh-ed25519 AAAA ann"
[[customizations.user]]
name = "root"
key = "ssh-ed25519 AAAA root"
[customizations.installer]
sudo-nopasswd = ["%wheel", "ann"]
[customizations.installer.modules]
enable = ["org.fedoraproject.Anaconda.Modules.Localization"]
disable = ["org.fedoraproject.Anaconda.Modules.Users"]
[customizations.installer.bootloader.grub2]
menu-timeout = 7
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn image(&self, name: &str, image: &TinyImage) -> (String, String) {
        let directory = self.path(name);
        fs::create_dir_all(&directory).unwrap();
        let digest = image.write_oci_layout(&directory);
        (format!("oci:{}", directory.display()), digest)
    }

    fn build(&self, image: &str, flags: &[&str], out: &str) -> Build {
        Build::new(image).format("anaconda-iso").output(self.path(out)).flags(flags)
    }

    /// The files of a medium.
    fn extracted(&self, medium: &str) -> Option<PathBuf> {
        let out = self.path(medium).with_extension("files");
        let mut xorriso = tool("xorriso")?;
        run(xorriso
            .args(["-osirrox", "on", "-indev"])
            .arg(self.path(medium))
            .args(["-extract", "/"])
            .arg(&out));
        run(Command::new("chmod").args(["-R", "u+w"]).arg(&out));
        Some(out)
    }
}

/// What Anaconda's own library makes of a kickstart.
fn is_valid(kickstart: &Path) {
    let place = fetched("pykickstart");
    if !place.join("complete").exists() {
        assert!(
            std::env::var_os("REQUIRE_TOOLS").is_none(),
            "run tests/support/kickstart target/pykickstart"
        );
        return;
    }
    let mut validator = Command::new("python3");
    validator.arg(place.join("bin/ksvalidator")).args(["--version", "F43"]).arg(kickstart);
    run(validator.env("PYTHONPATH", &place));
}

#[test]
fn the_medium_is_the_tree_of_an_installer() {
    let place = Place::new();
    let Some(image) = installer(WITH_ANACONDA) else { return };
    let (image, _) = place.image("installer", &image);
    let (payload, digest) = place.image("payload", &bootc_image());
    fs::write(place.path("config.toml"), BLUEPRINT).unwrap();
    let config = place.path("config.toml").display().to_string();
    let flags =
        ["--installer-payload", &payload, "--target-imgref", "quay.io/x/y:1", "--config", &config];
    let report = place.build(&image, &flags, "one.iso").run().report;
    assert_eq!(report["media"][0]["format"], "anaconda-iso");
    place.build(&image, &flags, "two.iso").run();
    run(Command::new("cmp").arg(place.path("one.iso")).arg(place.path("two.iso")));

    if let Some(mut checkisomd5) = tool("checkisomd5") {
        run(checkisomd5.arg(place.path("one.iso")));
    }
    let Some(files) = place.extracted("one.iso") else { return };
    run(Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&files));
    for path in [
        "EFI/BOOT/BOOTX64.EFI",
        "EFI/BOOT/grub.cfg",
        "EFI/BOOT/grubx64.efi",
        ".discinfo",
        "boot/grub2/grub.cfg",
        "container/index.json",
        "images/install.img",
        "images/pxeboot/initrd.img",
        "images/pxeboot/vmlinuz",
        "osbuild-base.ks",
        "osbuild.ks",
    ] {
        assert!(files.join(path).is_file(), "{path}");
    }
    assert_eq!(fs::read_to_string(files.join(".discinfo")).unwrap(), "0.0\n43\nx86_64\n");
    is_the_payload(&files.join("container"), &digest);
    menu_is_right(&files.join("EFI/BOOT/grub.cfg"));
    told_as_asked(&place, &files);
    root_is_an_installer(&files.join("images/install.img"), &place.path("root"));
}

/// The image that is installed is there, whole and the same.
fn is_the_payload(layout: &Path, digest: &str) {
    let Some(mut skopeo) = forky("skopeo") else { return };
    let image = format!("oci:{}", layout.display());
    let said = run(skopeo.args(["inspect", "--format", "{{.Digest}}"]).arg(&image));
    assert_eq!(said.trim(), digest);
    // Reading it all checks every blob.
    let copy = layout.with_extension("copy");
    let mut skopeo = forky("skopeo").unwrap();
    run(skopeo
        .args(["copy", "--insecure-policy"])
        .arg(image)
        .arg(format!("dir:{}", copy.display())));
}

fn menu_is_right(menu: &Path) {
    let text = fs::read_to_string(menu).unwrap();
    for part in [
        "set timeout=7\n",
        "menuentry \"Install Tiny Linux 43\"",
        "linux /images/pxeboot/vmlinuz inst.stage2=hd:LABEL=TINY-INSTALLER inst.ks=hd:LABEL=TINY-INSTALLER:/osbuild.ks \
         console=tty0 inst.text console=ttyS0 mitigations=off\n",
        "inst.rescue\n",
        "rd.live.check\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    if let Some(mut check) = tool("grub-script-check") {
        run(check.arg(menu));
    }
}

/// The kickstart says what the blueprint does, in words that Anaconda knows; and no disk is cleared.
fn told_as_asked(place: &Place, files: &Path) {
    let base = fs::read_to_string(files.join("osbuild-base.ks")).unwrap();
    for line in [
        "ostreecontainer --url /run/install/repo/container --transport oci --no-signature-verification",
        "group --name crew --gid 2000",
        "--iscrypted --gecos 'Ann O'\\''Tate' --groups wheel,crew",
        "sshkey --username ann \"ssh-ed25519 AAAA ann\"",
        "sshkey --username root \"ssh-ed25519 AAAA root\"",
        "rootpw --lock",
        "lang de_DE.UTF-8 --addsupport en_GB.UTF-8",
        "keyboard de-nodeadkeys",
        "timezone Europe/Berlin --utc",
        "timesource --ntp-server ntp.example.com",
        "network --hostname tiny",
        "services --enabled a.service,b.socket",
        "bootloader --append 'console=ttyS0 mitigations=off'",
        "bootc switch --mutate-in-place --transport 'registry' 'quay.io/x/y:1'",
        "printf '%s\\tALL=(ALL)\\tNOPASSWD: ALL\\n' '%wheel' >>/etc/sudoers.d/50-bootpress",
    ] {
        assert!(base.contains(line), "{line}: {base}");
    }
    assert!(!base.contains("it's $ecret"), "a password is not a secret any more: {base}");
    let main = fs::read_to_string(files.join("osbuild.ks")).unwrap();
    assert_eq!(main, "%include /run/install/repo/osbuild-base.ks\n");
    // Where Anaconda will have it.
    let whole = place.path("whole.ks");
    fs::write(&whole, &base).unwrap();
    is_valid(&whole);
}

/// The root is what dracut's dmsquash-live-root expects, and starts Anaconda.
fn root_is_an_installer(squashfs: &Path, out: &Path) {
    let Some(mut unsquashfs) = tool("unsquashfs") else { return };
    run(unsquashfs.args(["-no-progress", "-strict-errors", "-d"]).arg(out).arg(squashfs));
    let names: Vec<_> =
        fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["LiveOS"]);
    let root = out.join("LiveOS/rootfs.img");
    let Some(mut e2fsck) = tool("e2fsck") else { return };
    run(e2fsck.arg("-fn").arg(&root));
    let read = |path: &str| {
        let mut debugfs = tool("debugfs").expect("it comes with e2fsck");
        run(debugfs.args(["-R", &format!("cat {path}")]).arg(&root))
    };
    assert!(
        read("/etc/passwd")
            .contains("install:x:0:0:root:/var/roothome:/usr/libexec/anaconda/run-anaconda\n")
    );
    assert!(read("/etc/shadow").contains("root::"));
    assert!(read("/etc/selinux/config").contains("SELINUX=permissive\nSELINUXTYPE=targeted\n"));
    assert!(read("/.buildstamp").contains("Product = Tiny Linux\nVersion = 43\n"));
    let modules = read("/etc/anaconda/conf.d/90-osbuild.conf");
    assert!(modules.contains("Modules.Localization\n") && modules.contains("Modules.Storage\n"));
    assert!(
        modules.contains("forbidden_modules =\n    org.fedoraproject.Anaconda.Modules.Users\n")
    );
    let mut debugfs = tool("debugfs").expect("it comes with e2fsck");
    let said = run(debugfs.args(["-R", "stat /etc/systemd/system/default.target"]).arg(&root));
    assert!(said.contains("anaconda.target"), "{said}");
    let mut debugfs = tool("debugfs").expect("it comes with e2fsck");
    let said = run(debugfs.args(["-R", "ea_get /usr/bin/ping security.capability"]).arg(&root));
    assert!(said.contains("security.capability"), "attributes of files are kept: {said}");
}

/// Without a payload, the image installs itself; with a disk, it asks nothing.
#[test]
fn it_asks_nothing_where_a_disk_is_named() {
    let place = Place::new();
    let Some(image) = installer(WITH_ANACONDA) else { return };
    let (image, digest) = place.image("installer", &image);
    let flags = ["--target-imgref", "quay.io/x/y:1", "--volume-id", "X"];
    for (selector, expected) in [
        ("path=/dev/vda", "ignoredisk --only-use vda\n"),
        ("only-disk", "%include /tmp/bootpress-disk.ks\n"),
    ] {
        let all = [&flags[..], &["--install-to", selector, "--filesystem", "xfs"]].concat();
        place.build(&image, &all, "x.iso").run();
        let Some(files) = place.extracted("x.iso") else { return };
        let main = fs::read_to_string(files.join("osbuild.ks")).unwrap();
        assert!(main.contains(expected), "{main}");
        for line in
            ["zerombr\n", "autopart --nohome --type=plain --fstype=xfs\n", "reboot --eject\n"]
        {
            assert!(main.contains(line), "{line}: {main}");
        }
        // It includes what is there on its medium only.
        let whole: String = main
            .lines()
            .filter(|line| !line.starts_with("%include"))
            .fold(String::new(), |text, line| text + line + "\n");
        fs::write(place.path("whole.ks"), whole).unwrap();
        is_valid(&place.path("whole.ks"));
        is_the_payload(&files.join("container"), &digest);
        fs::remove_dir_all(files).unwrap();
        let _ = fs::remove_dir_all(place.path("x.copy"));
    }
}

/// The script that looks for the only disk, with an `lsblk` and a `findmnt` of ours.
#[test]
fn the_only_disk_is_the_one_beside_the_medium() {
    let script = include_str!("../../src/config/only-disk.sh");
    for (medium, parent, disks, chosen) in [
        ("/dev/sr0", "", "sr0 rom 1\nvda disk 0\nzram0 disk 0\n", Some("vda")),
        ("/dev/sda", "", "sda disk 0\nnvme0n1 disk 0\n", Some("nvme0n1")),
        ("/dev/sda1", "sda", "sda disk 0\nvda disk 0\n", Some("vda")),
        ("/dev/sr0", "", "vda disk 0\nvdb disk 0\n", None),
        ("/dev/sr0", "", "vda disk 1\n", None),
        ("/dev/sda", "", "sda disk 0\n", None),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        let choice = place.join("disk.ks");
        let script = script
            .replace("/tmp/bootpress-disk.ks", &choice.display().to_string())
            .replace("/dev/console", &place.join("console").display().to_string());
        let functions = format!(
            "findmnt() {{ echo {medium}; }}\nlsblk() {{ case $1 in -nro) echo '{parent}' ;; *) printf '{disks}' ;; esac; }}\n"
        );
        let status = Command::new("sh").arg("-ec").arg(functions + &script).status().unwrap();
        assert_eq!(status.success(), chosen.is_some(), "{disks}");
        let said = fs::read_to_string(&choice).ok();
        assert_eq!(said, chosen.map(|disk| format!("ignoredisk --only-use {disk}\n")), "{disks}");
    }
}

/// A store keeps layers unpacked. They are packed again, and what the medium carries is the same image with another manifest.
#[test]
fn payload_from_a_store_is_packed_again() {
    let (Some(image), Some(mut skopeo)) = (installer(WITH_ANACONDA), tool("skopeo")) else {
        return;
    };
    let place = Place::new();
    let (layout, digest) = place.image("installer", &image);
    let store = format!(
        "containers-storage:[vfs@{}+{}]",
        place.path("store").display(),
        place.path("run").display()
    );
    let name = format!("{store}localhost/installer:1");
    run(skopeo.args(["--insecure-policy", "copy", &layout, &name]));
    let flags = ["--target-imgref", "quay.io/x/y:1"];
    let report = place.build(&name, &flags, "store.iso").run().report;
    assert!(report.to_string().contains("packed again"), "{report}");
    // The same bytes each time, whatever the threads do.
    place.build(&name, &flags, "again.iso").run();
    let bytes = |medium: &str| fs::read(place.path(medium)).unwrap();
    assert!(bytes("store.iso") == bytes("again.iso"), "the media differ");
    let Some(files) = place.extracted("store.iso") else { return };
    let read = |path: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(files.join("container").join(path)).unwrap()).unwrap()
    };
    let index = read("index.json");
    let found = index["manifests"][0]["digest"].as_str().unwrap();
    assert_ne!(found, digest);
    is_the_payload(&files.join("container"), found);
    let manifest = read(&format!("blobs/sha256/{}", &found[7..]));
    let original: serde_json::Value =
        serde_json::from_slice(&image.blobs().blobs[&digest]).unwrap();
    assert_eq!(manifest["config"], original["config"], "diff IDs, labels and history are the same");
    for layer in manifest["layers"].as_array().unwrap() {
        assert!(layer["mediaType"].as_str().unwrap().ends_with("gzip"), "{layer}");
    }
    // Another tool unpacks every blob and compares it with its diff ID.
    let mut skopeo = tool("skopeo").unwrap();
    let layout = format!("oci:{}", files.join("container").display());
    let copy = format!("{store}localhost/copy:1");
    run(skopeo.args(["--insecure-policy", "copy", &layout, &copy]));
}

#[test]
fn what_cannot_be_an_installer_is_refused_with_the_way_out() {
    let place = Place::new();
    let Some(image) = installer(WITH_ANACONDA) else { return };
    let (able, _) = place.image("able", &image);
    let (none, _) = place.image("none", &bootc_image());
    let Some(image) = installer(&["usr/lib/dracut-lib.sh"]) else { return };
    let (unprepared, _) = place.image("unprepared", &image);
    fs::write(
        place.path("files.toml"),
        "[[customizations.files]]\npath = \"/etc/x\"\ndata = \"x\"\n",
    )
    .unwrap();
    let files = place.path("files.toml").display().to_string();
    let name: &[&str] = &["--target-imgref", "quay.io/x/y:1"];
    for (image, flags, code, told) in [
        (&none, name, 3, "there is no Anaconda in the image"),
        (&none, name, 3, "--format iso makes a medium that installs, from any image"),
        (&unprepared, name, 3, "dracut has made it without its module anaconda"),
        (&unprepared, name, 3, "--add 'anaconda "),
        (&able, &["--format", "raw"], 1, "--format anaconda-iso is built alone"),
        (&able, &["--config", &files], 3, "customizations.files cannot be honoured"),
        (&able, &["--size", "20G"], 1, "--size is about a disk, and Anaconda makes its own"),
        (&able, &["--stateroot", "x"], 1, "--stateroot is about a disk"),
        (&able, &["--install-to", "serial=x"], 3, "take path=/dev/NAME or only-disk"),
        (&able, &["--pxe-url", "http://x/y"], 1, "--pxe-url is for media: add --format pxe"),
    ] {
        let failed = place.build(image, flags, "x.iso").fails();
        let said = failed.said;
        assert_eq!(failed.code, code, "{flags:?}: {said}");
        assert!(said.contains(told), "{flags:?}: {told}: {said}");
        assert!(!place.path("x.iso").exists(), "{flags:?}");
    }
}
