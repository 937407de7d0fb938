//! Media in virtual machines: they run live, they install, what they install boots, and they refuse what would do harm.
//!
//! ```text
//! drive: medium ─► menu ─► initramfs ─► live system ─► installer ─► disk ─► boots
//! ```

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fixture::{Architecture, Variant};
use qemu::{Attached, BootReport, DiskBus, Ending, Firmware, Machine, Proof, Session, Test};

use crate::carried;
use crate::disk::{Disk, directory};
use crate::labels;
use crate::machine::{AARCH64, Case, X86_64, failure};
use support::bootpress;
use support::tool::{run, tool};

/// Installs by itself to the only disk that there is.
static UNATTENDED: Disk = Disk::new(
    "unattended",
    Architecture::X86_64,
    Variant::Live,
    "iso",
    &["--install-to", "only-disk", "--target-imgref", "example.com/fixture:1"],
);
/// The same build's disk.
static SAME_DISK: Disk = Disk::new(
    "unattended-disk",
    Architecture::X86_64,
    Variant::Live,
    "raw",
    &["--target-imgref", "example.com/fixture:1"],
);

/// Asks.
pub(crate) static LIVE: Disk = Disk::new(
    "live",
    Architecture::X86_64,
    Variant::Live,
    "iso",
    &["--target-imgref", "example.com/fixture:1"],
);
/// As Fedora's images are: an initramfs with systemd.
static FEDORA_LIKE: Disk = Disk::new(
    "fedora-like",
    Architecture::X86_64,
    Variant::Dracut,
    "iso",
    &["--target-imgref", "example.com/fixture:1"],
);
/// The same build's disk.
pub(crate) static FEDORA_LIKE_DISK: Disk = Disk::new(
    "fedora-like-disk",
    Architecture::X86_64,
    Variant::Dracut,
    "raw",
    &["--target-imgref", "example.com/fixture:1"],
);
/// As Fedora's images are in another way: of a commit with labels, under a policy.
static LABELLED: Disk = Disk::of_remade("labelled", Variant::Selinux, "iso", carried::remake);
static ARM: Disk = Disk::new("arm-medium", Architecture::Aarch64, Variant::Live, "iso", &[]);
static ARM_DISK: Disk =
    Disk::new("arm-medium-disk", Architecture::Aarch64, Variant::Live, "raw", &[]);

/// When to give up; an installation takes two minutes on a machine that has nothing else to do.
const TIME_LIMIT: Duration = Duration::from_secs(1800);

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Somebody who does not wait for the menu.
const AT_ONCE: (&str, &str) = ("automatically in", "\r");

/// What the installer says last.
const DONE: &str = "install: done:";

#[test]
fn an_unattended_medium_installs_and_the_disk_boots() {
    let medium = &UNATTENDED.pressed().file;
    is_sound(medium);
    let name = "iso-install";
    let target = directory(name).join("target.raw");
    stale_disk(&target, 3 * GIB);
    let disks = [Attached { file: &target, bus: DiskBus::Virtio, serial: "target" }];
    let report = Trial::new(name, medium, drive(DiskBus::Cdrom, Firmware::Uefi))
        .says(DONE, Session { disks: &disks, dialogue: &[AT_ONCE], ..Session::default() });
    assert!(passed(name, &report));
    is_the_same_but_for_growth(&SAME_DISK, &target);
    let machine = super::machine(Firmware::Uefi, DiskBus::Virtio);
    let report =
        Case::new("iso-installed", &SAME_DISK, machine).tried(&target, None, Session::default());
    assert!(passed("iso-installed", &report));
    fs::remove_file(&target).unwrap();
}

/// What a live system must be, besides what every system must: its root is the snapshot, its changes are in memory, and nothing
/// of the machine's disks is mounted.
const IS_LIVE: &str = r#"
set -e
[ "$(findmnt -nro SOURCE /sysroot)" = /dev/mapper/live-root ] || findmnt -nro SOURCE /sysroot | grep -q '^/dev/dm-'
touch /etc/changed /var/changed
read limit </run/bootpress/limit
space=$(stat -f -c '%a %S' /var)
[ $((${space% *} * ${space#* } / 1024)) -lt "$limit" ]
ostree admin status | grep -q '^\*'
! findmnt -nro SOURCE | grep -E '^/dev/(vd|sd|nvme)'
"#;

/// The firmware has been told of the installed system, by the name that the menu had for it.
const HAS_ENTRY: &str = r#"
efibootmgr
efibootmgr | grep -q '^Boot[0-9A-F]*\* Debian GNU Linux forky'
"#;

/// Boots a medium live from a drive, whose system has to be sound, installs from there to a disk on a bus, and boots that.
fn live_and_install(
    name: &'static str,
    (medium, disk): (&Disk, &'static Disk),
    machine: &Machine,
    bus: DiskBus,
) {
    let target = directory(name).join("target.raw");
    stale_disk(&target, 3 * GIB);
    let disks = [Attached { file: &target, bus, serial: "TARGET" }];
    let variables = directory(name).join("variables");
    let _ = fs::remove_file(&variables);
    let errand = format!("{IS_LIVE}\nsh /run/bootpress/install only-disk </dev/null\n");
    let session = Session {
        disks: &disks,
        errand: Some(&errand),
        variables: Some(&variables),
        ..Session::default()
    };
    let report =
        Trial::new(name, &medium.pressed().file, machine.clone()).run(Proof::Report, session);
    assert!(passed(name, &report));
    assert!(report.guest.fact("errand").is_some_and(|said| said.contains(DONE)), "{report:#?}");
    is_the_same_but_for_growth(disk, &target);
    let machine = Machine { bus, memory_mib: 2048, ..machine.clone() };
    let errand = (machine.firmware != Firmware::Bios).then_some(HAS_ENTRY);
    let session = Session { variables: Some(&variables), errand, ..Session::default() };
    let report = Case::new(name, disk, machine).tried(&target, None, session);
    assert!(passed(name, &report));
    fs::remove_file(&target).unwrap();
}

#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_stick_under_ovmf_installs_to_nvme() {
    let both = (&FEDORA_LIKE, &FEDORA_LIKE_DISK);
    live_and_install("iso-stick-nvme", both, &drive(DiskBus::Usb, Firmware::Uefi), DiskBus::Nvme);
}

#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_cd_under_seabios_installs_to_ahci() {
    let both = (&FEDORA_LIKE, &FEDORA_LIKE_DISK);
    live_and_install("iso-bios-ahci", both, &drive(DiskBus::Cdrom, Firmware::Bios), DiskBus::Ahci);
}

#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_cd_under_secure_boot_installs_to_virtio() {
    let both = (&FEDORA_LIKE, &FEDORA_LIKE_DISK);
    let machine = drive(DiskBus::Cdrom, Firmware::UefiSecureBoot);
    live_and_install("iso-secure-boot", both, &machine, DiskBus::Virtio);
}

#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_cd_under_aavmf_installs_to_virtio() {
    let machine = Machine { architecture: AARCH64, ..drive(DiskBus::Cdrom, Firmware::Uefi) };
    live_and_install("iso-arm", (&ARM, &ARM_DISK), &machine, DiskBus::Virtio);
}

/// The policy is in force in the live system, and what it says of every file is true of it.
#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_live_system_has_its_labels() {
    let name = "iso-selinux";
    let errand = format!("{IS_LIVE}\n{}", labels::ERRAND);
    let session = Session { errand: Some(&errand), ..Session::default() };
    let machine = Machine { memory_mib: 2048, ..drive(DiskBus::Cdrom, Firmware::Uefi) };
    let report = Trial::new(name, &LABELLED.pressed().file, machine).run(Proof::Report, session);
    assert!(passed(name, &report));
    labels::are_right(&report.guest);
}

/// What is asked of the installer, and what it has to say. In this order: what is done to a disk stays.
const REFUSALS: [(&str, &str, &str); 13] = [
    ("", "only-disk", "3 disks match only-disk: nvme0n1 vda vdb; nothing was written"),
    ("", "size>=1", "3 disks match size>=1: nvme0n1 vda vdb; nothing was written"),
    ("", "size>=9999999999999", "no disk matches size>=9999999999999; the disks are:"),
    ("", "serial=SMALL", "/dev/vda is too small: it has 268435456 bytes, and the system needs"),
    ("", "serial=NOBODY", "no disk matches serial=NOBODY"),
    ("", "wwn=0x5002538e", "no disk matches wwn=0x5002538e"),
    ("", "path=/dev/sr0", "/dev/sr0 is the medium that this system runs from; nothing was written"),
    ("", "path=/dev/loop0", "/dev/loop0 is no disk to install to"),
    ("", "path=/dev/vdz", "there is no disk /dev/vdz"),
    ("", "first", "no such selector: first"),
    ("blockdev --setro /dev/vdb", "serial=ONE", "/dev/vdb is read-only"),
    (
        "dmsetup create taken --table '0 8 linear /dev/nvme0n1 0'",
        "serial=TWO",
        "/dev/nvme0n1 is in use",
    ),
    (
        "dmsetup remove taken; for disk in vda vdb nvme0n1; do pci=$(readlink -f /sys/block/$disk/device/..); \
         [ -e $pci/remove ] || pci=$(readlink -f $pci/..); echo 1 >$pci/remove; done; udevadm settle",
        "only-disk",
        "there is no disk to install to; nothing was written",
    ),
];

/// One live system is asked for all of it.
#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_medium_refuses_what_is_not_meant() {
    let name = "iso-refuses";
    let files = ["small", "one", "two"].map(|file| directory(name).join(file));
    for (file, size) in files.iter().zip([256 * MIB, 2 * GIB, 2 * GIB]) {
        stale_disk(file, size);
    }
    let before = files.each_ref().map(|file| sum(file));
    let disk = |number: usize, bus, serial| Attached { file: &files[number], bus, serial };
    let disks = [
        disk(0, DiskBus::Virtio, "SMALL"),
        disk(1, DiskBus::Virtio, "ONE"),
        disk(2, DiskBus::Nvme, "TWO"),
    ];
    let mut errand = String::new();
    for (number, (preparation, selector, _)) in REFUSALS.iter().enumerate() {
        errand += &format!(
            "{preparation}\nsay refusal.{number} \"$(sh /run/bootpress/install '{selector}' </dev/null 2>&1; echo exit $?)\"\n"
        );
    }
    let session = Session { disks: &disks, errand: Some(&errand), ..Session::default() };
    let machine = drive(DiskBus::Cdrom, Firmware::Uefi);
    let report = Trial::new(name, &LIVE.pressed().file, machine).run(Proof::Report, session);
    assert!(passed(name, &report));
    for (number, (_, selector, told)) in REFUSALS.iter().enumerate() {
        let said = report.guest.fact(&format!("refusal.{number}")).unwrap_or_default();
        assert!(said.contains(told), "{selector}: {said}");
        assert!(said.ends_with("exit 1"), "{selector}: {said}");
    }
    assert_eq!(files.each_ref().map(|file| sum(file)), before, "something was written");
}

/// The second menu entry: it asks, is answered wrongly, asks again, and does what it was told.
#[test]
#[ignore = "takes minutes: tests/run full"]
fn somebody_installs_at_the_console() {
    let name = "iso-console";
    let target = directory(name).join("target.raw");
    let other = directory(name).join("other.raw");
    stale_disk(&target, 3 * GIB);
    stale_disk(&other, 256 * MIB);
    let before = sum(&other);
    let disks = [
        Attached { file: &other, bus: DiskBus::Virtio, serial: "OTHER" },
        Attached { file: &target, bus: DiskBus::Virtio, serial: "TARGET" },
    ];
    const NAME: &str = "Name of the disk to install to, or q to leave: ";
    const AGAIN: &str = "Type its name once more to go on: ";
    const STOPPED: &str = "or type r and Enter to try again";
    let dialogue = [
        ("automatically in", "i"),
        ("serial OTHER", ""),
        ("serial TARGET", ""),
        (NAME, "vdz\n"),
        ("there is no disk /dev/vdz", ""),
        (NAME, "vda\n"),
        ("/dev/vda is too small", ""),
        (NAME, "sr0\n"),
        ("is the medium that this system runs from", ""),
        (NAME, "vdb\n"),
        ("Everything on /dev/vdb is lost", ""),
        (AGAIN, "vda\n"),
        ("that is another name; nothing was written", ""),
        (STOPPED, "r\n"),
        (NAME, "q\n"),
        ("stopped; nothing was written", ""),
        (STOPPED, "r\n"),
        (NAME, "/dev/vdb\n"),
        (AGAIN, "vdb\n"),
        ("copied 100 %", ""),
        ("checked 100 %", ""),
        (DONE, ""),
        ("Take the medium out and start the machine from that disk", ""),
        ("press Enter to switch the machine off", "\n"),
    ];
    let session = Session { disks: &disks, dialogue: &dialogue, ..Session::default() };
    let machine = drive(DiskBus::Cdrom, Firmware::Uefi);
    let report = Trial::new(name, &LIVE.pressed().file, machine).says(DONE, session);
    assert!(passed(name, &report));
    is_the_same_but_for_growth(&SAME_DISK, &target);
    assert_eq!(sum(&other), before, "the other disk was written to");
    for file in [target, other] {
        fs::remove_file(file).unwrap();
    }
}

/// The machine loses its power while the disk is written; the medium does not mind, and the disk neither.
#[test]
#[ignore = "takes minutes: tests/run full"]
fn an_interrupted_installation_is_done_again() {
    let name = "iso-interrupted";
    let medium = &UNATTENDED.pressed().file;
    let before = sum(medium);
    let target = directory(name).join("target.raw");
    stale_disk(&target, 3 * GIB);
    let disks = [Attached { file: &target, bus: DiskBus::Virtio, serial: "TARGET" }];
    let trial = Trial::new(name, medium, drive(DiskBus::Cdrom, Firmware::Uefi));
    let quick = [AT_ONCE];
    for text in ["writing to /dev/vda", "copied  ", "checked  "] {
        let session = Session {
            disks: &disks,
            dialogue: &quick,
            ending: Ending::CutAtText(text),
            ..Session::default()
        };
        let report = trial.says(text, session);
        assert!(passed(name, &report));
        let dump =
            String::from_utf8(fs::read(directory(name).join("console.log")).unwrap()).unwrap();
        assert!(dump.contains(text) && !dump.contains(DONE), "{text}");
    }
    let session = Session { disks: &disks, dialogue: &quick, ..Session::default() };
    assert!(passed(name, &trial.says(DONE, session)));
    is_the_same_but_for_growth(&SAME_DISK, &target);
    assert_eq!(sum(medium), before);
    fs::remove_file(&target).unwrap();
}

/// A name, somebody who may log in, and a file.
const BLUEPRINT: &str = r#"
[customizations]
hostname = "kiosk"
[[customizations.user]]
name = "ann"
key = "ssh-ed25519 AAAA ann"
[[customizations.files]]
path = "/etc/kiosk/motd"
data = "welcome\n"
user = "ann"
"#;

/// All of it has been done, and nothing else went wrong.
const IS_CONFIGURED: &str = r#"
set -e
systemctl is-active bootpress-config.service || [ ! -e /run/bootpress ]
[ "$(cat /proc/sys/kernel/hostname)" = kiosk ]
[ "$(cat /etc/hostname)" = kiosk ]
grep -qx "ssh-ed25519 AAAA ann" /var/home/ann/.ssh/authorized_keys
[ "$(stat -c %U /etc/kiosk/motd)" = ann ]
[ "$(cat /etc/kiosk/motd)" = welcome ]
[ ! -e /etc/bootpress/config.sh ]
"#;

/// What is set on a finished medium holds in the live system, and from the first boot on in what was installed from there.
#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_configuration_works_live_and_installed() {
    let name = "iso-configured";
    let (medium, target) = (directory(name).join("set.iso"), directory(name).join("target.raw"));
    let blueprint = directory(name).join("blueprint.toml");
    fs::copy(&LIVE.pressed().file, &medium).unwrap();
    fs::write(&blueprint, BLUEPRINT).unwrap();
    run(bootpress().args(["iso", "set", "--config"]).arg(&blueprint).arg(&medium));
    stale_disk(&target, 3 * GIB);
    let disks = [Attached { file: &target, bus: DiskBus::Virtio, serial: "TARGET" }];
    let errand = format!("{IS_CONFIGURED}\nsh /run/bootpress/install only-disk </dev/null\n");
    let session = Session { disks: &disks, errand: Some(&errand), ..Session::default() };
    let machine = drive(DiskBus::Cdrom, Firmware::Uefi);
    let report = Trial::new(name, &medium, machine).run(Proof::Report, session);
    assert!(passed(name, &report));
    let session = Session { errand: Some(IS_CONFIGURED), ..Session::default() };
    let machine = super::machine(Firmware::Uefi, DiskBus::Virtio);
    let report = Case::new(name, &SAME_DISK, machine).tried(&target, None, session);
    assert!(passed(name, &report));
    for file in [medium, target] {
        fs::remove_file(file).unwrap();
    }
}

fn sum(path: &Path) -> String {
    run(Command::new("sha256sum").arg(path)).split_whitespace().next().unwrap().to_owned()
}

/// A medium in a machine.
struct Trial<'a> {
    name: &'static str,
    medium: &'a Path,
    machine: Machine,
}

impl<'a> Trial<'a> {
    fn new(name: &'static str, medium: &'a Path, machine: Machine) -> Self {
        Self { name, medium, machine }
    }

    /// Boots it until the machine goes off; the console has to show this.
    fn says(&self, text: &str, session: Session<'_>) -> BootReport {
        self.run(Proof::Console(text.to_owned()), session)
    }

    fn run(&self, proof: Proof, session: Session<'_>) -> BootReport {
        let evidence = directory(self.name);
        let test = Test {
            time_limit: Some(TIME_LIMIT),
            evidence: Some(&evidence),
            proof,
            session,
            ..Test::new(self.medium, self.machine.clone())
        };
        let report = qemu::boot(&test, &mut |_| {}, &|| false)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        eprintln!("{}: {:.0} s", self.name, report.seconds);
        report
    }
}

/// An x86_64 machine with the memory that an installation has to do with.
fn drive(bus: DiskBus, firmware: Firmware) -> Machine {
    Machine { bus, firmware, memory_mib: 1024, ..Machine::new(X86_64) }
}

#[track_caller]
fn passed(name: &str, report: &BootReport) -> bool {
    match failure(name, report) {
        None => true,
        Some(failure) => panic!("{failure}\nevidence: {}", directory(name).display()),
    }
}

/// What independent readers say of the file.
fn is_sound(medium: &Path) {
    if let Some(mut checkisomd5) = tool("checkisomd5") {
        run(checkisomd5.arg(medium));
    }
    if let Some(mut xorriso) = tool("xorriso") {
        let said = run(xorriso.arg("-indev").arg(medium).args(["-report_el_torito", "plain"]));
        assert!(said.contains("UEFI  y   none"), "{said}");
    }
    if let Some(mut sgdisk) = tool("sgdisk") {
        let said = run(sgdisk.arg("-v").arg(medium));
        assert!(said.contains("No problems found"), "{said}");
    }
    let Some(mut xorriso) = tool("xorriso") else { return };
    let out = directory("iso-files");
    run(xorriso.args(["-osirrox", "on", "-indev"]).arg(medium).args(["-extract", "/"]).arg(&out));
    run(Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&out));
    run(Command::new("chmod").args(["-R", "u+w"]).arg(&out));
    fs::remove_dir_all(&out).unwrap();
}

/// A disk with remains of an older life where the image has holes, and none at its end.
fn stale_disk(path: &Path, size: u64) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    let stale = vec![0xa5; 8 << 20];
    for at in [0, 60 * MIB, 200 * MIB] {
        file.write_all_at(&stale, at).unwrap();
    }
}

/// Everything outside of the root's file system is the artifact's, bit for bit; in it all but what a mount and growth change,
/// and every file.
fn is_the_same_but_for_growth(artifact: &Disk, installed: &Path) {
    let pressed = artifact.pressed();
    let root = pressed.partition("root").expect("a disk has a root");
    let (one, two) = (File::open(&pressed.file).unwrap(), File::open(installed).unwrap());
    // The first MiB holds the partition table, which knows the disk's size; the last one has its copy.
    let end = one.metadata().unwrap().len() - MIB;
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut different = 0;
    for at in (MIB..end).step_by(1 << 20) {
        one.read_exact_at(&mut a, at).unwrap();
        two.read_exact_at(&mut b, at).unwrap();
        if a == b {
            continue;
        }
        assert!(at >= root.start, "the installed disk differs at {at}");
        different += a.chunks(4096).zip(b.chunks(4096)).filter(|(a, b)| a != b).count();
    }
    assert!(different < 1000, "{different} blocks of the root are different");
    let place = format!("{}?offset={}", installed.display(), root.start);
    let Some(mut e2fsck) = tool("e2fsck") else { return };
    run(e2fsck.arg("-fn").arg(&place));
    let Some(mut dumpe2fs) = tool("dumpe2fs") else { return };
    let said = run(dumpe2fs.arg("-h").arg(&place));
    let number = |name: &str| -> u64 {
        let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().parse().unwrap()
    };
    let grown = number("Block count:") * number("Block size:");
    let room = fs::metadata(installed).unwrap().len() - root.start;
    assert!(grown > room - 2 * MIB && grown <= room, "{grown} of {room}");
    eprintln!("{different} blocks differ; {grown} of {room} bytes");
}
