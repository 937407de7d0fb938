//! Whole media of a small image: the ISO and the directory for booting from the network, read by the tools that users have;
//! what can be changed afterwards, and that it can be taken back. Nothing of the image runs, so what must be there is a sham.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use support::bootc_image::bootc_image;
use support::program::Failed;
use support::tiny_image::TinyImage;
use support::tool::{is_root, run, tool};
use support::{Build, bootpress};

/// Programs that media take out of an image, or start in the live system.
const PROGRAMS: [&str; 24] = [
    "sh",
    "mount",
    "umount",
    "losetup",
    "dmsetup",
    "kmod",
    "mkdir",
    "cp",
    "sleep",
    "truncate",
    "chroot",
    "blkdiscard",
    "blockdev",
    "dd",
    "findmnt",
    "grep",
    "lsblk",
    "od",
    "sed",
    "sfdisk",
    "sha256sum",
    "stty",
    "wipefs",
    "cat",
];

/// What a GRUB is known by that fetches.
const NETWORK_GRUB: &str = "GET %s HTTP/1.1\r\nHost: %s\r\n";

/// A program as far as its headers: one that asks for a loader, and for no library.
fn sham(name: &str) -> Vec<u8> {
    const LOADER: &[u8] = b"/lib64/ld-linux-x86-64.so.2\0";
    let mut elf = vec![0; 0x78];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[32] = 64; // e_phoff
    elf[54] = 56; // e_phentsize
    elf[56] = 1; // e_phnum
    elf[64] = 3; // PT_INTERP
    elf[72] = 0x78; // its offset
    elf[96] = LOADER.len() as u8; // its size
    elf.extend(LOADER);
    elf.extend(name.as_bytes());
    elf
}

/// An image whose media can be made.
pub(crate) fn live_image() -> TinyImage {
    bootc_image().layer(|layer| {
        let builtin = ["loop", "isofs", "squashfs", "dm-mod", "dm-snapshot"]
            .map(|name| format!("kernel/drivers/{name}.ko\n"))
            .concat();
        let layer = layer
            .file("usr/lib64/ld-linux-x86-64.so.2", sham("loader"))
            .symlink("lib64", "usr/lib64")
            .file("usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", NETWORK_GRUB)
            .file("usr/lib/ostree/ostree-prepare-root", sham("prepare-root"))
            .file("usr/lib/modules/6.17.1-tiny/modules.builtin", builtin);
        PROGRAMS.iter().fold(layer, |layer, name| layer.file(format!("usr/bin/{name}"), sham(name)))
    })
}

/// Raw disk, ISO and directory of one build, made once.
struct Media {
    directory: PathBuf,
}

impl Media {
    fn get() -> &'static Self {
        static BUILT: OnceLock<Media> = OnceLock::new();
        BUILT.get_or_init(|| {
            // Nobody drops what is static: the next run clears it away.
            let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("media");
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir_all(&directory).unwrap();
            live_image().write_oci_layout(&directory.join("image"));
            let built = Self { directory };
            fs::create_dir(built.path("one")).unwrap();
            built.build("one", "raw,iso,pxe", &LABELS).run();
            built
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn build(&self, out: &str, formats: &str, flags: &[&str]) -> Build {
        self.build_of("image", out, formats, flags)
    }

    fn build_of(&self, image: &str, out: &str, formats: &str, flags: &[&str]) -> Build {
        Build::new(format!("oci:{}", self.path(image).display()))
            .format(formats)
            .flags(["--target-imgref", "example.com/tiny:43", "--karg", "with=$dollar"])
            .flags(flags)
            .output(self.path(out))
    }

    /// The one file of the first build whose name ends so.
    fn file(&self, extension: &str) -> PathBuf {
        let entries = fs::read_dir(self.path("one")).unwrap().map(|entry| entry.unwrap().path());
        let mut found = entries.filter(|path| path.extension().is_some_and(|e| e == extension));
        found.next().unwrap_or_else(|| panic!("nothing ends in {extension}"))
    }
}

const LABELS: [&str; 8] = [
    "--volume-id",
    "TINY-43.1",
    "--publisher",
    "THE PUBLISHER",
    "--application-id",
    "THE APPLICATION",
    "--install-to",
    "serial=BUILT-IN",
];

/// `bootpress iso …`: what it prints, or exit code and message.
fn iso(arguments: &[&str], file: &Path) -> Result<String, (i32, String)> {
    let output = bootpress().arg("iso").args(arguments).arg(file).output().unwrap();
    match output.status.code() {
        Some(0) => Ok(String::from_utf8(output.stdout).unwrap()),
        code => Err((code.unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// Every file of an ISO, taken out by xorriso; its own list of hashes holds.
fn extracted(medium: &Path, out: &Path) -> bool {
    let Some(mut xorriso) = tool("xorriso") else { return false };
    run(xorriso.args(["-osirrox", "on", "-indev"]).arg(medium).args(["-extract", "/"]).arg(out));
    run(Command::new("chmod").args(["-R", "u+w"]).arg(out));
    sums_hold(out);
    true
}

fn sums_hold(directory: &Path) {
    run(Command::new("sha256sum")
        .args(["--check", "--quiet", "SHA256SUMS"])
        .current_dir(directory));
}

fn same(one: &Path, two: &Path) {
    run(Command::new("cmp").arg(one).arg(two));
}

/// The disk inside of a container is the artifact of the same build.
fn holds_the_disk(container: &Path, raw: &Path, out: &Path) {
    let Some(mut unsquashfs) = tool("unsquashfs") else { return };
    run(unsquashfs.args(["-no-progress", "-strict-errors", "-d"]).arg(out).arg(container));
    same(&out.join("disk.raw"), raw);
}

#[test]
fn witnesses_accept_the_iso() {
    let built = Media::get();
    let medium = built.file("iso");
    if let Some(mut xorriso) = tool("xorriso") {
        let said = run(xorriso.arg("-indev").arg(&medium).args([
            "-pvd_info",
            "-report_el_torito",
            "plain",
            "-toc",
        ]));
        for line in [
            "Volume Id    : TINY-43.1",
            "Publisher Id : THE PUBLISHER",
            "App Id       : THE APPLICATION",
            "UEFI  y   none",
            "Media summary: 1 session",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
        assert!(!said.contains("FAILURE") && !said.contains("SORRY"), "{said}");
    }
    if let Some(mut sgdisk) = tool("sgdisk") {
        let said = run(sgdisk.arg("-v").arg(&medium));
        assert!(said.contains("No problems found"), "{said}");
    }
    if let Some(mut checkisomd5) = tool("checkisomd5") {
        run(checkisomd5.arg(&medium));
    }
    if let Some(mut isoinfo) = tool("isoinfo") {
        let listing = run(isoinfo.args(["-f", "-R", "-i"]).arg(&medium));
        for path in [
            "/SHA256SUMS",
            "/bootpress/disk.squashfs",
            "/EFI/BOOT/BOOTX64.EFI",
            "/EFI/tiny/grub.cfg",
        ] {
            assert!(listing.lines().any(|line| line == path), "{path}: {listing}");
        }
    }
    let out = built.path("iso-files");
    if extracted(&medium, &out) {
        let container = out.join("bootpress/disk.squashfs");
        holds_the_disk(&container, &built.file("raw"), &built.path("iso-disk"));
        scripts_of_grub_parse(&out.join("bootpress/grub.cfg"));
        scripts_of_grub_parse(&out.join("bootpress/settings.cfg"));
        unit_is_good(&out.join("bootpress/live.img"), &built.path("live"));
    }
}

fn scripts_of_grub_parse(file: &Path) {
    if let Some(mut check) = tool("grub-script-check") {
        run(check.arg(file));
    }
}

/// What cpio takes out of an archive, and how its shell scripts parse.
fn unit_is_good(archive: &Path, out: &Path) {
    unpack(archive, out);
    let here = out.join("usr/lib/bootpress");
    for script in ["live.sh", "install.sh"] {
        run(Command::new("sh").arg("-n").arg(here.join(script)));
    }
    let units = here.join("units");
    for unit in ["bootpress-config.service", "bootpress-reserve.service"] {
        let wanted = fs::read_link(units.join("sysinit.target.wants").join(unit)).unwrap();
        assert_eq!(wanted, Path::new("..").join(unit));
        assert!(units.join(unit).exists());
    }
}

/// What is compressed, and what is not.
fn unpack(archive: &Path, out: &Path) {
    fs::create_dir_all(out).unwrap();
    if tool("cpio").is_none() {
        return;
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", "gzip -dcf <\"$1\" | cpio -idm --quiet", "unpack"]).arg(archive);
    run(shell.current_dir(out));
}

#[test]
fn the_same_build_gives_the_same_media() {
    let built = Media::get();
    for out in ["again", "elsewhere"] {
        fs::create_dir(built.path(out)).unwrap();
    }
    built.build("again", "iso,pxe", &LABELS).run();
    let again =
        |extension: &str| built.path("again").join(built.file(extension).file_name().unwrap());
    same(&built.file("iso"), &again("iso"));
    run(Command::new("diff").arg("-r").arg(built.file("pxe")).arg(again("pxe")));
    // Onto the older one, and not onto what is somebody else's.
    built.build("again", "iso,pxe", &[]).run();
    sums_hold(&again("pxe"));
    fs::write(again("pxe").join("notes"), "mine").unwrap();
    let Failed { code, said } = built.build("again", "pxe", &[]).fails();
    assert!(code == 3 && said.contains("holds other things: notes"), "{said}");
    assert_eq!(
        fs::read_dir(built.path("again")).unwrap().count(),
        2,
        "nothing is left lying about"
    );
    let unlike = fs::metadata(built.file("iso")).unwrap();
    assert!(unlike.len() < 64 << 20, "holes are not stored");
}

const BLUEPRINT: &str = r#"
[customizations]
hostname = "kiosk"
[[customizations.user]]
name = "ann"
key = "ssh-ed25519 AAAA ann"
password = "$6$salt$hash"
[[customizations.files]]
path = "/etc/motd"
data = "it's mine\n"
"#;

#[test]
fn what_is_set_is_there_and_reset_takes_it_back() {
    let built = Media::get();
    let (original, medium) = (built.file("iso"), built.path("set.iso"));
    fs::copy(&original, &medium).unwrap();
    let blueprint = built.path("blueprint.toml");
    fs::write(&blueprint, BLUEPRINT).unwrap();
    let config = blueprint.to_str().unwrap();
    let set = [
        "set",
        "--karg",
        "console=ttyS1",
        "--karg",
        "quiet",
        "--install-to",
        "size>=10G",
        "--config",
        config,
    ];
    let built_in = iso(&["show"], &medium).unwrap();
    assert!(built_in.contains("install to       serial=BUILT-IN"), "{built_in}");
    let said = iso(&set, &medium).unwrap();
    for line in [
        "volume id        TINY-43.1",
        "kernel arguments console=ttyS1 quiet",
        "install to       size>=10737418240",
        "configuration    hostname kiosk, user ann, file /etc/motd",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(iso(&["show"], &medium).unwrap(), said);
    let json = iso(&["show", "--json"], &medium).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["configuration"], "hostname kiosk, user ann, file /etc/motd");
    let inspected = run(bootpress().arg("inspect").arg(&medium));
    assert!(inspected.contains(&said) && !inspected.contains("$6$"), "{inspected}");
    let inspected = run(bootpress().args(["inspect", "--json"]).arg(&medium));
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["medium"], json);
    if let Some(mut checkisomd5) = tool("checkisomd5") {
        run(checkisomd5.arg(&medium));
    }
    let out = built.path("set-files");
    if extracted(&medium, &out) {
        scripts_of_grub_parse(&out.join("bootpress/settings.cfg"));
        let unpacked = built.path("set-config");
        unpack(&out.join("bootpress/config.img"), &unpacked);
        let script = unpacked.join("usr/lib/bootpress/config.sh");
        run(Command::new("sh").arg("-n").arg(&script));
        let script = fs::read_to_string(script).unwrap();
        assert!(script.contains("\npassword 'ann' '$6$salt$hash'\n"), "{script}");
    }
    // One thing at a time; the others stay.
    let said = iso(&["set", "--install-to", "ask"], &medium).unwrap();
    assert!(said.contains("asks for the disk") && said.contains("user ann"), "{said}");
    assert!(said.contains("console=ttyS1 quiet"), "{said}");
    iso(&["reset"], &medium).unwrap();
    same(&original, &medium);
}

#[test]
fn what_cannot_be_set_changes_nothing() {
    let built = Media::get();
    let (original, medium) = (built.file("iso"), built.path("unset.iso"));
    fs::copy(&original, &medium).unwrap();
    let file = |name: &str, text: &str| {
        fs::write(built.path(name), text).unwrap();
        built.path(name).display().to_string()
    };
    let fips = file("fips.toml", "[customizations]\nfips = true\n");
    let typo = file("typo.toml", "[customizations]\nhostnam = \"x\"\n");
    let data = "x".repeat(300 << 10);
    let large = format!("[[customizations.files]]\npath = \"/etc/x\"\ndata = \"{data}\"\n");
    let large = file("large.toml", &large);
    for (arguments, code, told) in [
        (&["set"][..], 1, "nothing to set"),
        (&["set", "--karg", "a b"], 3, "settings cannot hold"),
        (&["set", "--install-to", "first"], 2, "selects no disk"),
        (&["set", "--config", &fips], 3, "customizations.fips cannot be set once a medium is made"),
        (&["set", "--config", &typo], 1, "hostname"),
        (&["set", "--config", &large], 3, "a medium has room for 262144"),
    ] {
        let (exit, said) = iso(arguments, &medium).unwrap_err();
        assert!(exit == code && said.contains(told), "{arguments:?}: {exit} {said}");
    }
    same(&original, &medium);
    let (exit, said) = iso(&["show"], &built.file("raw")).unwrap_err();
    assert!(exit == 3 && said.contains("not a medium of bootpress' that can be changed"), "{said}");
}

#[test]
fn the_network_gets_the_same_disk() {
    let built = Media::get();
    let directory = built.file("pxe");
    sums_hold(&directory);
    for name in ["vmlinuz", "initramfs.img", "EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grubx64.efi", "id"] {
        assert!(directory.join(name).is_file(), "{name}");
    }
    assert_eq!(fs::read_to_string(directory.join("EFI/BOOT/grubx64.efi")).unwrap(), NETWORK_GRUB);
    scripts_of_grub_parse(&directory.join("grub.cfg"));
    for copy in ["EFI/BOOT", "EFI/tiny", "grub"] {
        same(&directory.join("grub.cfg"), &directory.join(copy).join("grub.cfg"));
    }
    unit_is_good(&directory.join("live.img"), &built.path("pxe-live"));
    let out = built.path("pxe-root");
    unpack(&directory.join("root.img"), &out);
    let here = out.join("usr/lib/bootpress");
    let whole = fs::read_to_string(here.join("whole")).unwrap();
    let kib: Vec<u64> = whole.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let size = fs::metadata(here.join("disk.squashfs")).unwrap().len();
    assert_eq!(kib, [size / 1024 + (640 << 10), size / 1024]);
    holds_the_disk(&here.join("disk.squashfs"), &built.file("raw"), &built.path("pxe-disk"));

    let script = fs::read_to_string(directory.join("boot.ipxe")).unwrap();
    for line in [
        "#!ipxe",
        "initrd --name root.img root.img",
        "choose --default install --timeout 5000 entry && goto ${entry}",
    ] {
        assert!(script.lines().any(|other| other == line), "{line}: {script}");
    }
    let kernel = script.lines().find(|line| line.starts_with("kernel ")).unwrap();
    assert!(
        kernel.starts_with(
            "kernel vmlinuz initrd=initramfs.img initrd=live.img initrd=root.img root="
        ),
        "{kernel}"
    );
    assert!(
        kernel.ends_with(" bootpress.root=initrd ${more}") && kernel.contains(" with=$dollar "),
        "{kernel}"
    );
    let menu = fs::read_to_string(directory.join("grub.cfg")).unwrap();
    assert!(menu.contains("'with=$dollar'"), "{menu}");
}

#[test]
fn places_and_selectors_are_built_in() {
    let built = Media::get();
    let flags = ["--pxe-url", "http://192.0.2.1:8080/os/", "--install-to", "serial=A1"];
    let report = built.build("placed", "pxe", &flags).run().report;
    assert_eq!(report["media"][0]["format"], "pxe");
    let sums = run(Command::new("sha256sum").arg(built.path("placed/SHA256SUMS")));
    assert_eq!(report["media"][0]["sha256"], sums.split_whitespace().next().unwrap());
    let (grub, ipxe) = (
        [
            "set bootpress=\"(http,192.0.2.1:8080)/os\"",
            "set default=install",
            "install-to=serial=A1",
        ],
        [
            "kernel http://192.0.2.1:8080/os/vmlinuz ",
            "choose --default install",
            "install-to=serial=A1\n",
        ],
    );
    for (menu, parts) in [("grub.cfg", grub), ("boot.ipxe", ipxe)] {
        let menu = fs::read_to_string(built.path("placed").join(menu)).unwrap();
        for part in parts {
            assert!(menu.contains(part), "{part}: {menu}");
        }
    }
    fs::create_dir(built.path("dry")).unwrap();
    built.build("dry", "raw,iso,pxe", &["--dry-run"]).run();
    assert_eq!(fs::read_dir(built.path("dry")).unwrap().count(), 0, "a dry run writes nothing");
    // Firmware would get as far as a GRUB that cannot go on.
    live_image()
        .layer(|layer| layer.whiteout("usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"))
        .write_oci_layout(&built.path("mute"));
    let report = built.build_of("mute", "without", "pxe", &[]).run().report.to_string();
    assert!(report.contains("the image has no GRUB that speaks HTTP"), "{report}");
    assert!(!built.path("without/EFI").exists());
    let script = fs::read_to_string(built.path("without/boot.ipxe")).unwrap();
    assert!(script.contains("choose --default live"), "{script}");
    for (format, flags, code, told) in [
        ("iso", &["--pxe-url", "http://x/"][..], 1, "--pxe-url is for media: add --format pxe"),
        ("pxe", &["--volume-id", "X"], 1, "--volume-id is for media: add --format iso"),
        ("pxe", &["--pxe-url", "https://x/"], 2, "does not begin with http://"),
        ("pxe", &["--karg", "a=${b}"], 3, "cannot be written down for iPXE"),
    ] {
        let Failed { code: exit, said } = built.build("refused", format, flags).fails();
        assert!(exit == code && said.contains(told), "{flags:?}: {exit} {said}");
        assert!(!built.path("refused").exists());
    }
}

/// Over copies of this machine's own `/etc` and `/var`: accounts, keys and files come out as asked for, however often it runs.
#[test]
fn a_configuration_does_what_it_says() {
    const BLUEPRINT: &str = r#"
[customizations]
hostname = "kiosk"
[[customizations.group]]
name = "friends"
gid = 61234
[[customizations.user]]
name = "ann"
description = "Ann O'Hara $x"
key = "ssh-ed25519 AAAA ann"
password = "$6$salt$hash"
groups = ["friends", "adm"]
[[customizations.user]]
name = "bob"
uid = 61235
gid = 61236
home = "/var/lib/bob"
shell = "/bin/sh"
[customizations.locale]
languages = ["en_GB.UTF-8", "de_DE.UTF-8"]
[[customizations.directories]]
path = "/etc/two words"
mode = "0750"
group = "friends"
[[customizations.files]]
path = "/etc/two words/it's"
data = "mine\n"
user = "ann"
mode = "0600"
"#;
    const SANDBOX: &str = r#"
for at in etc var; do
	mkdir -p "$1/lower" && mount -t tmpfs none "$1/lower" || exit 77
	mkdir "$1/lower/upper" "$1/lower/work"
	mount -t overlay none -o "lowerdir=/$at,upperdir=$1/lower/upper,workdir=$1/lower/work" /$at || exit 77
done
for time in once twice; do sh "$1/usr/lib/bootpress/config.sh" || exit 1; done
grep -E "^(ann|bob):" /etc/passwd
grep -E "^(friends|bob):" /etc/group
grep "^ann:" /etc/shadow
cat /etc/hostname /proc/sys/kernel/hostname /etc/locale.conf /var/home/ann/.ssh/authorized_keys "/etc/two words/it's"
stat -c "%a %U:%G %n" "/etc/two words" "/etc/two words/it's" /var/home/ann/.ssh /var/home/ann/.ssh/authorized_keys
id -nG ann
"#;
    let built = Media::get();
    let (medium, blueprint) = (built.path("runs.iso"), built.path("runs.toml"));
    fs::copy(built.file("iso"), &medium).unwrap();
    fs::write(&blueprint, BLUEPRINT).unwrap();
    iso(&["set", "--config", blueprint.to_str().unwrap()], &medium).unwrap();
    let (files, out) = (built.path("runs-files"), built.path("runs"));
    if !is_root() || !extracted(&medium, &files) {
        eprintln!("skipped: accounts and mounts need root");
        return;
    }
    unpack(&files.join("bootpress/config.img"), &out);
    let output = Command::new("unshare")
        .args(["--mount", "--uts", "--propagation", "private", "sh", "-c", SANDBOX, "sandbox"])
        .arg(&out)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.code() == Some(77) {
        eprintln!("skipped: this machine has no overlay file systems");
        return;
    }
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        ":Ann O'Hara $x:/var/home/ann:",
        "bob:x:61235:61236::/var/lib/bob:/bin/sh",
        "friends:x:61234:ann",
        "ann:$6$salt$hash:",
        "kiosk\nkiosk\n",
        "LANG=en_GB.UTF-8\nLANGUAGE=en_GB:de_DE\nssh-ed25519 AAAA ann\nmine\n750 root:friends /etc/two words\n",
        "600 ann:root /etc/two words/it's",
        "700 ann:ann /var/home/ann/.ssh",
        "600 ann:ann /var/home/ann/.ssh/authorized_keys",
        "ann adm friends",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

/// GRUB's `regexp` takes POSIX expressions, as `sed -E` does: what the menu makes of where GRUB says that it was found.
#[test]
fn menu_finds_the_top_of_its_directory_from_where_grub_says_it_is() {
    let menu = include_str!("../../src/iso/guest/pxe.cfg");
    let expressions: Vec<&str> = menu
        .lines()
        .filter_map(|line| {
            line.trim().strip_prefix("regexp --set=1:bootpress '")?.split_once("' \"$bootpress\"")
        })
        .map(|(expression, _)| expression)
        .collect();
    assert_eq!(expressions.len(), 2, "{menu}");
    for (found, top) in [
        // A file name without a slash at its beginning, to Fedora's GRUB and to others.
        ("(tftp,10.0.2.2)EFI/BOOT", "(tftp,10.0.2.2)"),
        ("(tftp,10.0.2.2)/EFI/BOOT", "(tftp,10.0.2.2)"),
        ("(http,boot.example:8080)EFI/fedora", "(http,boot.example:8080)"),
        ("(http,boot.example)/os/43/EFI/BOOT", "(http,boot.example)/os/43"),
        ("(tftp,10.0.2.2)os/43/EFI/BOOT", "(tftp,10.0.2.2)os/43"),
        ("(tftp,10.0.2.2)/os", "(tftp,10.0.2.2)/os"),
        ("(tftp,10.0.2.2)", "(tftp,10.0.2.2)"),
    ] {
        let mut place = found.to_owned();
        for expression in &expressions {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), &place).unwrap();
            let script = format!("s|{expression}|\\1|");
            place =
                run(Command::new("sed").args(["-E", &script]).arg(file.path())).trim().to_owned();
        }
        assert_eq!(place, top, "{found}");
    }
}
