//! Systems: what the tree of an image says about boot loader, policy, layout and configuration.

use tar::EntryType;

use crate::archives::hole;
use crate::runner::Case;
use support::bootc_image::{bootc_image, without_bootloader};
use support::tiny_image::{Item, TinyLayer};

const CORRUPT: i32 = 4;
const UNSUPPORTED: i32 = 3;
const GOOD: i32 = 0;

const UPDATES: &str = "usr/lib/bootupd/updates";
const GRUB: &str = "usr/lib/bootupd/grub2-static";
const BIOS: &str = "usr/lib/grub/i386-pc";

fn with(name: &str, exit: i32, fill: impl FnOnce(TinyLayer) -> TinyLayer) -> Case {
    Case::image(format!("system {name}"), exit, bootc_image().layer(fill))
}

pub(crate) fn cases() -> Vec<Case> {
    [trees(), boot_loaders(), bios(), policies(), configurations(), labels(), described()]
        .into_iter()
        .flatten()
        .collect()
}

fn trees() -> Vec<Case> {
    vec![
        with("whose /usr is a link", UNSUPPORTED, |l| l.whiteout("usr").symlink("usr", "/etc")),
        with("whose /usr is gone", UNSUPPORTED, |l| l.whiteout("usr")),
        with("whose /etc is a link out", CORRUPT, |l| {
            l.whiteout("etc").symlink("etc", "../../etc")
        }),
        with("whose /etc is a file", CORRUPT, |l| l.whiteout("etc").file("etc", "x")),
        with("whose /boot is a link out", GOOD, |l| l.whiteout("boot").symlink("boot", "/"))
            .with(&["--dry-run"])
            .within(40, 160),
        with("without kernel", UNSUPPORTED, |l| l.whiteout("usr/lib/modules/6.17.1-tiny/vmlinuz")),
        with("with two kernels", UNSUPPORTED, |l| {
            l.file("usr/lib/modules/6.0/vmlinuz", "k")
                .file("usr/lib/modules/6.0/initramfs.img", "i")
        }),
        with("whose kernel is a link in circles", UNSUPPORTED, |l| {
            l.whiteout("usr/lib/modules/6.17.1-tiny/vmlinuz")
                .symlink("usr/lib/modules/6.17.1-tiny/vmlinuz", "vmlinuz")
        }),
        with("whose kernel is a device", UNSUPPORTED, |l| {
            let path = "usr/lib/modules/6.17.1-tiny/vmlinuz";
            l.whiteout(path).add(Item::new(EntryType::Char, path).device(1, 3))
        }),
        with("whose modules are a link in circles", UNSUPPORTED, |l| {
            l.whiteout("usr/lib/modules").symlink("usr/lib/modules", "../lib/modules")
        }),
        with("with a whiteout of nothing", CORRUPT, |l| l.file("usr/.wh.", "")),
        with("with a whiteout of what is above", CORRUPT, |l| l.file("usr/.wh...", "")),
        with("that is opaque at its root", UNSUPPORTED, |l| l.file(".wh..wh..opq", "")),
    ]
}

fn boot_loaders() -> Vec<Case> {
    let metadata = r#"{"timestamp":"2025-01-02T03:04:05Z","version":"grub2"}"#;
    let mut cases = vec![
        Case::image("system without boot loader", UNSUPPORTED, without_bootloader()),
        with("whose EFI.json is not JSON", CORRUPT, |l| l.file(format!("{UPDATES}/EFI.json"), "no")),
        with("whose EFI.json has 2 MiB of lists", CORRUPT, |l| {
            let text = format!("[{}0]", "[],".repeat(700_000));
            l.file(format!("{UPDATES}/EFI.json"), text)
        }),
        with("whose EFI.json has no version", CORRUPT, |l| l.file(format!("{UPDATES}/EFI.json"), "{}")),
        with("whose EFI.json is a hole", CORRUPT, |l| l.add(hole(&format!("{UPDATES}/EFI.json"), 16 << 30))),
        with("whose EFI.json is a link out", UNSUPPORTED, |l| {
            let path = format!("{UPDATES}/EFI.json");
            l.whiteout(&path).symlink(path, "../../../../../../etc/passwd")
        }),
        with("whose versions speak to terminals", GOOD, |l| {
            l.file(format!("{UPDATES}/EFI.json"), r#"{"timestamp":"2025-01-02T03:04:05Z","version":"\u001b]0;owned\u0007\nerror: forged\u009b2J"}"#)
        })
        .with(&["--dry-run"])
        .within(40, 160),
        with("without shim", UNSUPPORTED, |l| l.whiteout(&format!("{UPDATES}/EFI/tiny/shimx64.efi"))),
        with("with two shims", UNSUPPORTED, |l| l.file(format!("{UPDATES}/EFI/other/shimx64.efi"), "s")),
        with("with an ESP's file in two cases", CORRUPT, |l| l.file(format!("{UPDATES}/EFI/tiny/SHIMX64.efi"), "s")),
        with("with an ESP's file that is a pipe", UNSUPPORTED, |l| {
            l.add(Item::new(EntryType::Fifo, format!("{UPDATES}/EFI/tiny/pipe")))
        }),
        with("with an ESP's file that is a link", UNSUPPORTED, |l| l.symlink(format!("{UPDATES}/EFI/tiny/x.efi"), "/etc/passwd")),
        with("with an ESP's file that names a device", UNSUPPORTED, |l| l.file(format!("{UPDATES}/EFI/tiny/con.efi"), "x")),
        with("with an ESP's file that FAT cannot name", UNSUPPORTED, |l| l.file(format!("{UPDATES}/EFI/tiny/a:b"), "x")),
        with("with an ESP's file that is not UTF-8", UNSUPPORTED, |l| l.file([UPDATES.as_bytes(), b"/EFI/tiny/\xff"].concat(), "x")),
        with("with an ESP's hole of 100 GiB", UNSUPPORTED, |l| l.add(hole(&format!("{UPDATES}/EFI/tiny/big.efi"), 100 << 30))),
        with("with an ESP's hole of 600 MiB", UNSUPPORTED, |l| {
            l.add(hole(&format!("{UPDATES}/EFI/tiny/big.efi"), 600 << 20))
        })
        .within(60, 160),
        with("with an ESP's hole of 1500 MiB", UNSUPPORTED, |l| l.add(hole(&format!("{UPDATES}/EFI/tiny/big.efi"), 1500 << 20))).within(60, 160),
        with("with a thousand names of an ESP's file", UNSUPPORTED, |mut l| {
            let path = format!("{UPDATES}/EFI/tiny/0.efi");
            l = l.add(hole(&path, 10 << 20));
            for number in 1..1000 {
                l = l.hardlink(format!("{UPDATES}/EFI/tiny/{number}.efi"), &path);
            }
            l
        }),
        with("with 50000 files on the ESP", UNSUPPORTED, |mut l| {
            for number in 0..50_000 {
                l = l.file(format!("{UPDATES}/EFI/tiny/{number}"), "");
            }
            l
        })
        .within(60, 400),
        with("without GRUB's configuration", UNSUPPORTED, |l| l.whiteout(&format!("{GRUB}/grub-static-pre.cfg"))),
        with("without GRUB's configuration on the ESP", UNSUPPORTED, |l| l.whiteout(&format!("{GRUB}/grub-static-efi.cfg"))),
        with("whose GRUB configuration is a hole", CORRUPT, |l| l.add(hole(&format!("{GRUB}/grub-static-pre.cfg"), 16 << 30))),
        with("with 100 GRUB configurations of 1 MiB", CORRUPT, |mut l| {
            for number in 0..100 {
                l = l.add(hole(&format!("{GRUB}/configs.d/{number}.cfg"), 1 << 20));
            }
            l
        }),
        with("with a program for the firmware beside its kernel", GOOD, |l| {
            l.file("usr/lib/modules/6.17.1-tiny/x.efi", "MZ")
        })
        .with(&["--dry-run"])
        .within(40, 160),
    ];
    let text = metadata.replace("2025-01-02T03:04:05Z", "\\u001b[31mnow");
    cases.push(
        with("whose timestamp speaks to terminals", GOOD, |l| {
            l.file(format!("{UPDATES}/EFI.json"), text)
        })
        .with(&["--dry-run"])
        .within(40, 160),
    );
    cases
}

fn bios() -> Vec<Case> {
    let metadata = r#"{"timestamp":"2025-01-02T03:04:05Z","version":"grub2"}"#;
    /// The parts of a GRUB that would do, as far as anybody looks; `change` sees each.
    fn grub(mut l: TinyLayer, change: impl Fn(&str, Vec<u8>) -> Vec<u8>) -> TinyLayer {
        let mut boot = vec![0; 512];
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        let mut elf = vec![0; 300];
        elf[..6].copy_from_slice(b"\x7fELF\x01\x01");
        elf[32..36].copy_from_slice(&100_u32.to_le_bytes());
        elf[46..50].copy_from_slice(&[40, 0, 1, 0]);
        for (field, value) in [(1, 1_u32), (2, 2), (3, 0x9000), (4, 200), (5, 100)] {
            elf[100 + 4 * field..104 + 4 * field].copy_from_slice(&value.to_le_bytes());
        }
        for (name, bytes) in [
            ("boot.img", boot),
            ("diskboot.img", vec![0; 512]),
            ("lzma_decompress.img", vec![0; 2048]),
            ("kernel.img", elf),
            ("moddep.lst", b"ext2: fshelp\nfshelp:\nmdraid1x:\npart_gpt:\nbiosdisk:\n".to_vec()),
            ("ext2.mod", vec![1; 100]),
            ("fshelp.mod", vec![1; 100]),
            ("mdraid1x.mod", vec![1; 100]),
            ("part_gpt.mod", vec![1; 100]),
            ("biosdisk.mod", vec![1; 100]),
        ] {
            l = l.file(format!("{BIOS}/{name}"), change(name, bytes));
        }
        l
    }
    let case = |name: &str, exit: i32, file: &'static str, bytes: Vec<u8>| {
        with(&format!("whose {name}"), exit, |l| {
            let l = l.file(format!("{UPDATES}/BIOS.json"), metadata);
            grub(l, |name, good| if name == file { bytes.clone() } else { good })
        })
        .with(&["--dry-run"])
    };
    vec![
        case("BIOS parts are sound", GOOD, "none", Vec::new()).within(40, 160),
        case("boot.img has no signature", CORRUPT, "boot.img", vec![0; 512]),
        case("boot.img is short", CORRUPT, "boot.img", vec![0; 100]),
        case("boot.img is empty", CORRUPT, "boot.img", Vec::new()),
        case("diskboot.img is long", CORRUPT, "diskboot.img", vec![0; 513]),
        case("decompressor is empty", CORRUPT, "lzma_decompress.img", Vec::new()),
        case("decompressor has no length", CORRUPT, "lzma_decompress.img", vec![0xff; 100]),
        case("decompressor is too large", UNSUPPORTED, "lzma_decompress.img", vec![0; 600_000]),
        case("kernel.img is not a program", CORRUPT, "kernel.img", vec![0x5a; 4096]),
        case("kernel.img is cut", CORRUPT, "kernel.img", b"\x7fELF\x01\x01".to_vec()),
        case(
            "modules need what is not there",
            UNSUPPORTED,
            "moddep.lst",
            b"ext2: nothing\n".to_vec(),
        ),
        case(
            "modules lead out",
            UNSUPPORTED,
            "moddep.lst",
            b"ext2: ../../../etc/passwd\n".to_vec(),
        ),
        case("modules are a chain of 100000", CORRUPT, "moddep.lst", {
            let chain: String = (0..100_000).map(|i| format!("m{i}: m{}\n", i + 1)).collect();
            format!("ext2: m0\n{chain}").into_bytes()
        }),
        case("modules are a chain of 40000", UNSUPPORTED, "moddep.lst", {
            let chain: String = (0..40_000).map(|i| format!("m{i}: m{}\n", i + 1)).collect();
            format!("ext2: m0\n{chain}").into_bytes()
        }),
        case("modules have 30 MiB", CORRUPT, "ext2.mod", vec![7; 30 << 20]).within(40, 300),
    ]
}

fn policies() -> Vec<Case> {
    const FILES: &str = "etc/selinux/targeted/contexts/files/file_contexts";
    let config = "SELINUX=enforcing\nSELINUXTYPE=targeted\n";
    let contexts = |name: &str, exit: i32, text: String| {
        with(&format!("whose labels {name}"), exit, |l| {
            l.file("etc/selinux/config", config).file(FILES, text)
        })
        .with(&["--dry-run"])
    };
    let label = "system_u:object_r:x_t:s0";
    let many = |count: usize, line: &dyn Fn(usize) -> String| -> String {
        (0..count).map(|number| format!("{} {label}\n", line(number))).collect()
    };
    vec![
        with("whose SELinux configuration is a hole", UNSUPPORTED, |l| {
            l.add(hole("etc/selinux/config", 16 << 30))
        }),
        with("whose SELinux policy leads out", CORRUPT, |l| {
            l.file("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=../../x\n")
        }),
        with("whose SELinux policy is not there", UNSUPPORTED, |l| {
            l.file("etc/selinux/config", config)
        }),
        with("whose labels are a hole of 16 GiB", UNSUPPORTED, |l| {
            l.file("etc/selinux/config", config).add(hole(FILES, 16 << 30))
        }),
        contexts("have 200000 lines", UNSUPPORTED, many(200_000, &|i| format!("/usr/x{i}"))),
        contexts(
            "have 60000 expressions",
            UNSUPPORTED,
            many(60_000, &|i| format!("/usr/x{i}(/.*)?")),
        ),
        contexts("have 20000 expressions", GOOD, many(20_000, &|i| format!("/usr/x{i}(/.*)?")))
            .within(120, 900),
        contexts("have 3000 oddities", GOOD, many(3000, &|_| "/usr/?".to_owned())).within(60, 500),
        contexts("have no label", CORRUPT, "/usr\n".to_owned()),
        contexts("are for no type", CORRUPT, format!("/usr -x {label}\n")),
        contexts("look back", UNSUPPORTED, format!("/(a)\\1 {label}\n")),
        contexts("look ahead", UNSUPPORTED, format!("/a(?=b) {label}\n")),
        contexts(
            "repeat repetitions",
            UNSUPPORTED,
            format!("/((((a{{99}}){{99}}){{99}}){{99}}) {label}\n"),
        ),
        contexts(
            "have states without end",
            GOOD,
            format!("{}/.* {label}\n", many(400, &|i| format!("/.*[a-m].{{{}}}", 400 + i))),
        )
        .within(120, 600),
        contexts(
            "have deep groups",
            UNSUPPORTED,
            format!("/{}a{} {label}\n", "(".repeat(20_000), ")".repeat(20_000)),
        ),
        contexts("are noise", CORRUPT, String::from_utf8_lossy(&[0xfe; 3000]).into_owned()),
    ]
}

fn configurations() -> Vec<Case> {
    let yaml = |name: &str, exit: i32, text: &str| {
        with(&format!("whose disk.yaml {name}"), exit, |l| {
            l.file("usr/lib/bootc-image-builder/disk.yaml", text)
        })
        .with(&["--dry-run"])
    };
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = [format!("*a{}", level - 1).as_str(); 9].join(", ");
        bomb += &format!("a{level}: &a{level} [{below}]\n");
    }
    let toml = |name: &str, exit: i32, path: &'static str, text: &str| {
        with(name, exit, |l| l.file(path, text)).with(&["--dry-run"]).within(40, 160)
    };
    const KARGS: &str = "usr/lib/bootc/kargs.d/20-x.toml";
    const INSTALL: &str = "usr/lib/bootc/install/20-x.toml";
    vec![
        yaml("nests lists 10165 deep", CORRUPT, &"- ".repeat(10_165)),
        yaml("nests brackets 100000 deep", CORRUPT, &"[".repeat(100_000)),
        yaml("nests tables 50000 deep", CORRUPT, &"{a: ".repeat(50_000)),
        yaml("multiplies", CORRUPT, &bomb),
        yaml("is a list", CORRUPT, "- a\n- b\n"),
        yaml("has two documents", CORRUPT, "a: 1\n---\nb: 2\n"),
        yaml("is empty", CORRUPT, ""),
        yaml(
            "has keys that speak to terminals",
            CORRUPT,
            "\"\\e]0;owned\\a\\nerror: forged\": 1\n",
        ),
        with("whose disk.yaml is a hole", CORRUPT, |l| {
            l.add(hole("usr/lib/bootc-image-builder/disk.yaml", 2 << 30))
        }),
        with("whose disk.yaml is not UTF-8", CORRUPT, |l| {
            l.file("usr/lib/bootc-image-builder/disk.yaml", b"\xff\xfe")
        }),
        with("whose iso.yaml nests lists 10165 deep", CORRUPT, |l| {
            l.file("usr/lib/bootc-image-builder/iso.yaml", "- ".repeat(10_165))
        })
        .with(&["--format", "anaconda-iso"]),
        toml("whose kernel arguments are no TOML", CORRUPT, KARGS, "kargs = ["),
        toml("whose kernel arguments are numbers", CORRUPT, KARGS, "kargs = [1]"),
        toml(
            "whose kernel arguments nest",
            CORRUPT,
            KARGS,
            &format!("kargs = {}", "[".repeat(50_000)),
        ),
        toml(
            "whose kernel arguments have line breaks",
            CORRUPT,
            KARGS,
            "kargs = [\"a=\\\"b\\nlinux /evil\\\"\"]",
        ),
        toml(
            "whose kernel arguments speak to terminals",
            GOOD,
            KARGS,
            "kargs = [\"a=\\u001b[2J\"]",
        ),
        toml("whose install configuration is not TOML", CORRUPT, INSTALL, "[install"),
        toml(
            "whose install configuration wants another file system",
            CORRUPT,
            INSTALL,
            "[install.filesystem.root]\ntype = \"zfs\\u001b[2J\"\n",
        ),
        toml(
            "whose stateroot leads out",
            UNSUPPORTED,
            INSTALL,
            "[install]\nstateroot = \"../../x\"\n",
        ),
        with("whose kernel arguments are a hole", CORRUPT, |l| l.add(hole(KARGS, 1 << 30))),
        with("whose prepare-root.conf is a hole", CORRUPT, |l| {
            l.add(hole("usr/lib/ostree/prepare-root.conf", 1 << 30))
        }),
        with("whose os-release is a hole", CORRUPT, |l| l.add(hole("usr/lib/os-release", 1 << 30))),
        with("whose name speaks to terminals", GOOD, |l| {
            l.file("usr/lib/os-release", "ID=tiny\nPRETTY_NAME=\"\u{1b}]0;owned\u{7}\"\n")
        })
        .with(&["--dry-run"])
        .within(40, 160),
    ]
}

fn labels() -> Vec<Case> {
    let label = |name: &str, exit: i32, key: &str, value: &str| {
        Case::image(format!("label {name}"), exit, bootc_image().label(key, value))
            .with(&["--dry-run"])
            .within(40, 160)
    };
    vec![
        label(
            "version with escape sequences",
            GOOD,
            "org.opencontainers.image.version",
            "1\u{1b}]0;owned\u{7}\nerror: forged\n\u{9b}2J",
        ),
        label(
            "version with reversed text",
            GOOD,
            "org.opencontainers.image.version",
            "1\u{202e}gpj.exe",
        ),
        label(
            "version that leads out",
            GOOD,
            "org.opencontainers.image.version",
            "../../../../tmp/x",
        ),
        label("version that is empty", GOOD, "org.opencontainers.image.version", ""),
        label("that says it is not a bootc image", GOOD, "containers.bootc", "0"),
        label("ostree.commit of nobody", GOOD, "ostree.commit", "no\u{1b}[2Jcommit"),
        label("ostree.final-diffid of nobody", UNSUPPORTED, "ostree.final-diffid", "sha256:zz"),
    ]
}

/// Databases of packages, and images that are judged.
fn described() -> Vec<Case> {
    const RPM: &str = "usr/lib/sysimage/rpm/rpmdb.sqlite";
    let sqlite = |rest: &[u8]| {
        let mut bytes = b"SQLite format 3\0\x10\0\x01\x01\0\x40\x20\x20".to_vec();
        bytes.resize(100, 0);
        bytes.extend(rest);
        bytes.resize(8192, 0);
        bytes
    };
    // An interior page whose only child is itself, and a leaf with more cells than bytes.
    let circle = sqlite(&[5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let cells = sqlite(&[13, 0, 0, 0xff, 0xff, 0, 0, 0]);
    let with = |name: &str, fill: &dyn Fn(TinyLayer) -> TinyLayer| {
        Case::image(format!("packages {name}"), GOOD, bootc_image().layer(fill))
            .with(&["--sbom", "spdx,cyclonedx"])
            .within(40, 160)
    };
    let mut cases = vec![
        with("of nonsense", &|l| l.file(RPM, vec![7; 5000])),
        with("of a database that is a hole", &|l| l.add(hole(RPM, 128 << 20))),
        with("of pages in circles", &|l| l.file(RPM, &circle)),
        with("of cells without bytes", &|l| l.file(RPM, &cells)),
        with("of a status that is a hole", &|l| l.add(hole("var/lib/dpkg/status", 128 << 20))),
        with("whose names speak to terminals", &|l| {
            l.file(
                "usr/lib/apk/db/installed",
                "P:a\u{1b}[2Jb\u{202e}\nV:1\nL:\u{7}\nT:x\0y\n\n".repeat(1000),
            )
        }),
    ];
    let image = bootc_image().label("vendor", "a\u{1b}[2J\nerror: forged");
    cases.push(Case::new(
        "check of names that speak to terminals",
        GOOD,
        // Without layers: who reads them tells of it, on standard error.
        &[
            "check",
            "oci:image",
            "--arch",
            "x86_64",
            "--policy",
            "fedora",
            "--fail-on",
            "never",
            "--no-content",
        ],
        move |place| drop(image.write_oci_layout(&place.join("image"))),
    ));
    cases
}
