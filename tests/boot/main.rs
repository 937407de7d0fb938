//! Virtual machines: disks that bootpress made, booted unmodified by `cargo test --test boot`.
//!
//! ```text
//! fixture ─► image ─► bootpress build ─► disk (pressed once, shared by cases) ─► machine ─► verdict ─► fsck afterwards
//! ```
//!
//! A case is a disk and a machine. Every architecture, firmware, bus, layout, payload place and format is in one at least;
//! not every combination is, as a boot without KVM takes a minute. Those that are `#[ignore]`d are run by `tests/run full`. What a case leaves is in `target/boot/<case>/`.

mod afterwards;
mod anaconda;
mod carried;
mod disk;
#[path = "../conformance/encapsulated.rs"]
mod encapsulated;
mod host;
mod iso;
mod labels;
mod login;
mod machine;
mod must_fail;
mod proof;
mod pxe;
mod upgrade;

use std::process::Command;

use fixture::{Architecture, Variant};
use qemu::chain::{Install, Step};
use qemu::{DiskBus, Firmware, Machine, Matrix, Milestone, Session};
use support::tool;

use crate::disk::Disk;
use crate::machine::{AARCH64, Case, X86_64};

/// Boots from BIOS and UEFI, with Secure Boot, too.
static HYBRID: Disk = Disk::new(
    "hybrid",
    Architecture::X86_64,
    Variant::Default,
    "qcow2",
    &["--qcow2-compress", "zstd"],
);
/// Without the drivers of a TPM.
static BLIND: Disk = Disk::new(
    "blind",
    Architecture::X86_64,
    Variant::Default,
    "qcow2",
    &[
        "--karg",
        "module_blacklist=tpm_crb,tpm_tis",
        "--karg",
        "initcall_blacklist=crb_acpi_driver_init",
    ],
);
static OSBUILD: Disk =
    Disk::new("osbuild", Architecture::X86_64, Variant::UsrLibEfi, "ova", &["--layout", "osbuild"]);
static BIOS_ONLY: Disk =
    Disk::new("bios-only", Architecture::X86_64, Variant::BiosOnly, "vhd", &[]);
static SECTORS_OF_4096: Disk =
    Disk::new("4096", Architecture::X86_64, Variant::UefiOnly, "raw", &["--sector-size", "4096"]);
static VERITY: Disk = Disk::new("verity", Architecture::X86_64, Variant::Verity, "vhdx", &[]);
/// GRUB reads its files from the root.
static XFS: Disk =
    Disk::new("xfs", Architecture::X86_64, Variant::Default, "vmdk", &["--filesystem", "xfs"]);
/// With a `/boot` of its own that is an XFS, too.
static XFS_BOOT: Disk = Disk::new(
    "xfs-boot",
    Architecture::X86_64,
    Variant::Default,
    "qcow2",
    &[
        "--filesystem",
        "xfs",
        "--config",
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/boot-xfs.toml"),
        "--grow",
        "--karg",
        PATIENT,
    ],
);
static XFS_ARM: Disk =
    Disk::new("xfs-arm", Architecture::Aarch64, Variant::Default, "raw", &["--filesystem", "xfs"]);
static XFS_CARRYING: Disk =
    Disk::of_remade("xfs-carrying", Variant::UefiOnly, "raw", carried::remake)
        .with_flags(&["--filesystem", "xfs"]);
static XFS_SELINUX: Disk = Disk::of_remade("xfs-selinux", Variant::Selinux, "raw", carried::remake)
    .with_flags(&["--filesystem", "xfs"]);
/// An image of June 2025 or older: its only `blscfg` is in the static configuration's last file.
static OLD_BOOTUPD: Disk =
    Disk::of_remade("old-bootupd", Variant::Default, "raw", carried::with_old_bootupd);
/// Root and home in subvolumes, one of them in a directory.
static BTRFS: Disk = Disk::new(
    "btrfs",
    Architecture::X86_64,
    Variant::Default,
    "qcow2",
    &[
        "--config",
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/boot-btrfs.toml"),
        "--btrfs-compress",
        "zstd",
        "--karg",
        PATIENT,
    ],
);
static BTRFS_ARM: Disk = Disk::new(
    "btrfs-arm",
    Architecture::Aarch64,
    Variant::Default,
    "raw",
    &["--filesystem", "btrfs", "--btrfs-compress", "lzo", "--karg", PATIENT],
);
static BTRFS_CARRYING: Disk =
    Disk::of_remade("btrfs-carrying", Variant::UefiOnly, "raw", carried::remake).with_flags(&[
        "--filesystem",
        "btrfs",
        "--btrfs-subvolume",
        "volumes/root",
        "--btrfs-compress",
        "zstd",
        "--karg",
        PATIENT,
    ]);
/// Made of an image that carries a commit, as Fedora's do.
static CARRYING: Disk = Disk::of_remade("carrying", Variant::Odd, "gce", carried::remake);
static SELINUX: Disk = Disk::of_remade("selinux", Variant::Selinux, "raw", carried::remake);
/// `/boot` is found by udev, for which 90 seconds have been seen not to be enough where QEMU gets a quarter of a processor.
const PATIENT: &str = "systemd.default_device_timeout_sec=900";
/// A disk with users, a service, swap and a `/var/log` of its own, and a script that looks at all of it.
static CONFIGURED: Disk = Disk::new(
    "configured",
    Architecture::X86_64,
    Variant::Default,
    "ami",
    &["--config", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/boot.toml")],
);
static ARM: Disk = Disk::new("arm", Architecture::Aarch64, Variant::Default, "vdi", &[]);

#[test]
#[ignore = "takes minutes, and its parts are seen elsewhere: tests/run full"]
fn x86_64_uefi_virtio() {
    let case = Case::new("x86_64-uefi-virtio", &HYBRID, machine(Firmware::Uefi, DiskBus::Virtio));
    afterwards::file_systems_are_sound(&case);
}

/// What Fedora's images are like, in the life of a machine: power cuts, an upgrade, a rollback. Its name makes it the first to be run:
/// beside what takes so long all the others have room.
#[test]
fn a_chain_of_power_cuts_an_upgrade_and_a_rollback() {
    let nvme = machine(Firmware::Uefi, DiskBus::Nvme);
    let case = Case::new("x86_64-uefi-nvme-chain", &CARRYING, nvme);
    carried::is_deployed(&CARRYING);
    let update = upgrade::to_next(&CARRYING);
    let report = case.passes_chain(&[
        Step::CutBoot,
        Step::Boot,
        // The fixture's own look at what became of its layers.
        Step::Do("/usr/libexec/fixture-check && ostree fsck --quiet".to_owned()),
        Step::CutUpgrade(update.clone()),
        Step::Boot,
        Step::Do(carried::IS_FIRST.to_owned()),
        Step::Upgrade(update.clone()),
        Step::Reboot,
        Step::Do(carried::IS_NEXT.to_owned()),
        Step::Rollback,
        Step::Reboot,
        Step::Do(carried::IS_FIRST.to_owned()),
    ]);
    // The first one that tried has fetched what there is to fetch.
    upgrade::shares_layers(&report.legs[1].boot.guest);
    assert_eq!(report.legs[3].commit.as_ref(), Some(&update.commit));
}

/// From a CD to an empty NVMe disk, and on from there.
#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_chain_begins_with_a_medium() {
    let command = "sh /run/bootpress/install only-disk </dev/null".to_owned();
    let install = Install { bus: DiskBus::Nvme, size: 3 << 30, command };
    let case = Case::new("chain-install", &iso::LIVE, machine(Firmware::Uefi, DiskBus::Cdrom));
    let report = case.passes_chain(&[Step::Install(install), Step::Boot, Step::Reboot]);
    assert!(report.legs[1].commit.is_some() && report.legs[0].commit == report.legs[1].commit);
}

/// As Fedora's again: labels of the image's own policy, in the commit that it carries and in all that is added to it.
#[test]
fn x86_64_selinux() {
    labels::are_everywhere(&SELINUX);
    let case = Case::new("x86_64-selinux", &SELINUX, machine(Firmware::Uefi, DiskBus::Virtio));
    labels::are_right(&case.passes_with(labels::ERRAND));
}

#[test]
#[ignore = "takes minutes, and its parts are seen elsewhere: tests/run full"]
fn x86_64_bios_ahci() {
    let guest =
        Case::new("x86_64-bios-ahci", &HYBRID, machine(Firmware::Bios, DiskBus::Ahci)).passes();
    assert_eq!(guest.fact("firmware"), Some("bios"), "a BIOS machine knows no EFI");
}

/// Secure Boot, a TPM, NVMe, and nothing that only virtual machines have.
#[test]
fn x86_64_bare_metal() {
    let case = Case::new("x86_64-bare-metal", &HYBRID, named("bare-metal"));
    let guest = afterwards::file_systems_are_sound(&case);
    assert_eq!(guest.fact("secure-boot"), Some("1"));
    assert_eq!(guest.fact("tpm"), Some("2"));
}

/// As sold to people: what it shows is on its screen, and its report comes over USB, for which kernels of clouds have no driver.
#[test]
#[ignore = "takes minutes, and its parts are seen elsewhere: tests/run full"]
fn x86_64_bare_metal_without_a_serial_port() {
    let machine = named("bare-metal-no-uart");
    Case::new("x86_64-bare-metal-no-uart", &iso::FEDORA_LIKE_DISK, machine).passes();
}

/// A guest without the driver has a TPM as little as a machine without one.
#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_tpm_that_the_guest_does_not_see_is_missed() {
    let case = Case::new("must-fail-tpm", &BLIND, named("bare-metal"));
    let report = case.tried(&BLIND.pressed().file, None, Session::default());
    let told = machine::failure("blind", &report).expect("it must not pass");
    assert!(told.contains("TPM: the machine has one, the guest does not see it"), "{told}");
}

#[test]
#[ignore = "takes minutes, and its parts are seen elsewhere: tests/run full"]
fn x86_64_osbuild_uefi_ahci() {
    let case =
        Case::new("x86_64-osbuild-uefi-ahci", &OSBUILD, machine(Firmware::Uefi, DiskBus::Ahci));
    let guest = afterwards::file_systems_are_sound(&case);
    let boot = guest.mount("/boot").expect("the osbuild layout has a /boot of its own");
    assert_eq!(boot.filesystem, "ext4");
}

#[test]
#[ignore = "takes minutes, and its parts are seen elsewhere: tests/run full"]
fn x86_64_bios_only_nvme() {
    let bios = machine(Firmware::Bios, DiskBus::Nvme);
    Case::new("x86_64-bios-only-nvme", &BIOS_ONLY, bios).passes();
}

#[test]
#[ignore = "takes minutes, and its parts are seen elsewhere: tests/run full"]
fn x86_64_uefi_nvme_of_4096() {
    let large = Machine { sector_size: 4096, ..machine(Firmware::Uefi, DiskBus::Nvme) };
    Case::new("x86_64-uefi-nvme-of-4096", &SECTORS_OF_4096, large).passes();
}

/// The guest's kernel has fs-verity, which the one that tests may not have: it checks every block that it reads.
#[test]
#[ignore = "takes minutes, and its parts are seen elsewhere: tests/run full"]
fn x86_64_verity() {
    let uefi = machine(Firmware::Uefi, DiskBus::Virtio);
    let guest = Case::new("x86_64-verity", &VERITY, uefi).passes();
    let root = guest.mount("/").expect("a root");
    assert!(root.filesystem_options.contains("verity=require"), "{root:?}");
}

#[test]
fn x86_64_xfs_bios() {
    root_is_xfs("x86_64-xfs-bios", &XFS, machine(Firmware::Bios, DiskBus::Virtio));
}

#[test]
#[ignore = "takes minutes, and its parts are seen elsewhere: tests/run full"]
fn x86_64_xfs_uefi() {
    root_is_xfs("x86_64-xfs-uefi", &XFS, machine(Firmware::Uefi, DiskBus::Nvme));
}

#[test]
#[ignore = "takes minutes, and its parts are seen elsewhere: tests/run full"]
fn aarch64_xfs() {
    root_is_xfs("aarch64-xfs", &XFS_ARM, Machine::new(AARCH64));
}

/// The root is an XFS without a `/boot` beside it, and clean when the machine is off.
fn root_is_xfs(name: &'static str, disk: &'static Disk, machine: Machine) {
    let guest = afterwards::file_systems_are_sound(&Case::new(name, disk, machine));
    let sysroot = guest.mount("/sysroot").expect("a sysroot");
    assert_eq!(sysroot.filesystem, "xfs", "{sysroot:?}");
    assert!(disk.pressed().partition("boot").is_none(), "GRUB needs no /boot of its own");
}

#[test]
#[ignore = "takes minutes, and its parts are seen elsewhere: tests/run full"]
fn x86_64_xfs_boot_of_its_own() {
    for (name, firmware) in
        [("x86_64-xfs-boot-bios", Firmware::Bios), ("x86_64-xfs-boot-uefi", Firmware::Uefi)]
    {
        let case = Case::new(name, &XFS_BOOT, machine(firmware, DiskBus::Virtio));
        let guest = afterwards::file_systems_are_sound(&case);
        for place in ["/boot", "/sysroot", "/var/log"] {
            assert_eq!(guest.mount(place).expect("it is mounted").filesystem, "xfs", "{place}");
        }
    }
}

/// Every inode has a label, and keeps it.
#[test]
#[ignore = "takes minutes, and its parts are seen elsewhere: tests/run full"]
fn x86_64_xfs_selinux() {
    let uefi = machine(Firmware::Uefi, DiskBus::Virtio);
    let case = Case::new("x86_64-xfs-selinux", &XFS_SELINUX, uefi);
    labels::are_right(&case.passes_with(labels::ERRAND));
}

/// Power cuts, an upgrade and a rollback on XFS, whose log is replayed after each cut.
#[test]
#[ignore = "takes minutes, and its parts are seen elsewhere: tests/run full"]
fn a_chain_on_xfs() {
    let nvme = machine(Firmware::Uefi, DiskBus::Nvme);
    chain_on_another_file_system(&Case::new("x86_64-xfs-chain", &XFS_CARRYING, nvme));
}

/// The same on btrfs, whose root is in a subvolume and compressed, and whose `/boot` is an ext4.
#[test]
#[ignore = "takes minutes, and its parts are seen elsewhere: tests/run full"]
fn a_chain_on_btrfs() {
    let virtio = machine(Firmware::Uefi, DiskBus::Virtio);
    chain_on_another_file_system(&Case::new("x86_64-btrfs-chain", &BTRFS_CARRYING, virtio));
}

fn chain_on_another_file_system(case: &Case) {
    let update = upgrade::to_next(case.disk);
    case.passes_chain(&[
        Step::CutBoot,
        Step::Boot,
        Step::Do("/usr/libexec/fixture-check && ostree fsck --quiet".to_owned()),
        Step::CutUpgrade(update.clone()),
        Step::Boot,
        Step::Do(carried::IS_FIRST.to_owned()),
        Step::Upgrade(update),
        Step::Reboot,
        Step::Do(carried::IS_NEXT.to_owned()),
        Step::Rollback,
        Step::Reboot,
        Step::Do(carried::IS_FIRST.to_owned()),
    ]);
}

/// Nothing is touched for longer than automounts live, before an upgrade and between staging it and the reboot (bootc issue 2402).
#[test]
#[ignore = "takes minutes, most of which nothing happens: tests/run full"]
fn a_chain_that_idles() {
    let virtio = machine(Firmware::Uefi, DiskBus::Virtio);
    let case = Case::new("x86_64-idle-chain", &CARRYING, virtio);
    let update = upgrade::to_next(&CARRYING);
    case.passes_chain(&[
        Step::Boot,
        Step::Idle(150),
        Step::Upgrade(update),
        Step::Idle(150),
        Step::Reboot,
        Step::Do(carried::IS_NEXT.to_owned()),
    ]);
}

#[test]
#[ignore = "takes minutes: tests/run full"]
fn x86_64_xfs_after_a_power_cut() {
    let virtio = machine(Firmware::Uefi, DiskBus::Virtio);
    afterwards::a_power_cut_does_no_harm(&Case::new("x86_64-xfs-cut", &XFS, virtio));
}

#[test]
#[ignore = "takes minutes: tests/run full"]
fn x86_64_btrfs_after_a_power_cut() {
    let virtio = machine(Firmware::Uefi, DiskBus::Virtio);
    afterwards::a_power_cut_does_no_harm(&Case::new("x86_64-btrfs-cut", &BTRFS, virtio));
}

/// GRUB finds the entries by what an older bootupd brings, from BIOS and UEFI.
#[test]
#[ignore = "takes minutes: tests/run full"]
fn x86_64_old_bootupd() {
    for (name, firmware) in
        [("x86_64-old-bootupd-bios", Firmware::Bios), ("x86_64-old-bootupd-uefi", Firmware::Uefi)]
    {
        Case::new(name, &OLD_BOOTUPD, machine(firmware, DiskBus::Virtio)).passes();
    }
}

/// The root in a subvolume, compressed, with a `/boot` beside it.
#[test]
#[ignore = "takes minutes: tests/run full"]
fn aarch64_btrfs() {
    let case = Case::new("aarch64-btrfs", &BTRFS_ARM, Machine::new(AARCH64));
    let guest = afterwards::file_systems_are_sound(&case);
    assert_eq!(guest.mount("/sysroot").expect("a sysroot").filesystem, "btrfs");
    assert_eq!(guest.mount("/boot").expect("a /boot of its own").filesystem, "ext4");
}

/// The root in a subvolume in a directory, compressed, and two more subvolumes that are mounted.
#[test]
#[ignore = "takes minutes: tests/run full"]
fn x86_64_btrfs_root() {
    let case = Case::new("btrfs", &BTRFS, machine(Firmware::Bios, DiskBus::Virtio));
    let guest = afterwards::file_systems_are_sound(&case);
    let sysroot = guest.mount("/sysroot").expect("a sysroot");
    assert_eq!(sysroot.filesystem, "btrfs", "{sysroot:?}");
    assert!(sysroot.filesystem_options.contains("subvol=/volumes/root"), "{sysroot:?}");
    let boot = guest.mount("/boot").expect("a /boot of its own");
    assert_eq!(boot.filesystem, "ext4");
    for (place, subvolume) in [("/var/home", "/volumes/home"), ("/var/log", "/logs")] {
        let mount = guest.mount(place).expect("a subvolume");
        let option = format!("subvol={subvolume}");
        assert!(mount.filesystem_options.contains(&option), "{mount:?}");
    }
}

/// Somebody types the password that a configuration gave them.
#[test]
#[ignore = "takes minutes: tests/run full"]
fn x86_64_login_on_the_serial_console() {
    login::by_password(&CONFIGURED.pressed().file);
}

#[test]
fn x86_64_configured() {
    let uefi = machine(Firmware::Uefi, DiskBus::Virtio);
    let guest = Case::new("x86_64-configured", &CONFIGURED, uefi).passes();
    let logs = guest.mount("/var/log").expect("a file system of its own");
    assert_eq!(logs.filesystem, "ext4");
    // The script mounts it when it has seen everything; had it failed, the boot would not have passed.
    assert!(guest.mount("/run/configured").is_some(), "the script of the first boot did not run");
}

#[test]
fn aarch64_uefi_virtio() {
    let case = Case::new("aarch64-uefi-virtio", &ARM, Machine::new(AARCH64));
    let guest = afterwards::file_systems_are_sound(&case);
    assert_eq!(guest.fact("architecture"), Some("aarch64"));
}

#[test]
#[ignore = "takes minutes, and its parts are seen elsewhere: tests/run full"]
fn aarch64_secure_boot_nvme() {
    let secure =
        Machine { firmware: Firmware::UefiSecureBoot, bus: DiskBus::Nvme, ..Machine::new(AARCH64) };
    let guest = Case::new("aarch64-secure-boot-nvme", &ARM, secure).passes();
    assert_eq!(guest.fact("secure-boot"), Some("1"));
}

/// The harness must be able to fail: a disk whose GRUB looks for a file system that is not there does not get further, and
/// what a test would print says so.
#[test]
fn a_disk_whose_boot_loader_is_lost_says_so() {
    let case = Case::new("lost-boot-loader", &HYBRID, machine(Firmware::Uefi, DiskBus::Virtio));
    let (Some(mut convert), Some(mut mcopy)) = (tool::tool("qemu-img"), tool::tool("mcopy")) else {
        return;
    };
    let broken = case.directory().join("broken.raw");
    let pressed = HYBRID.pressed();
    tool::run(convert.args(["convert", "-O", "raw"]).arg(&pressed.file).arg(&broken));
    let esp = pressed.partition("esp").expect("a hybrid disk has an ESP");
    let nowhere = case.directory().join("bootuuid.cfg");
    std::fs::write(&nowhere, "set BOOT_UUID=\"00000000-0000-0000-0000-000000000000\"\n").unwrap();
    let image = format!("{}@@{}", broken.display(), esp.start);
    let into = |command: &mut Command, path: &str| {
        tool::run(command.args(["-o", "-i", &image]).arg(&nowhere).arg(path));
    };
    into(&mut mcopy, "::/EFI/debian/bootuuid.cfg");

    let report = case.tried(&broken, None, Session::default());
    std::fs::remove_file(&broken).unwrap();
    assert_eq!(report.furthest(), Milestone::Bootloader, "{report:#?}");
    let told = machine::failure("lost", &report).expect("it must not pass");
    assert!(told.contains("it got as far as: boot loader"), "{told}");
    assert!(told.contains("GRUB found no configuration"), "{told}");
    assert!(told.contains("| grub>"), "the console's tail belongs to it: {told}");
}

/// A machine of the built-in matrix.
fn named(name: &str) -> Machine {
    Matrix::built_in().named(name).unwrap().machine.clone()
}

/// An x86_64 machine.
fn machine(firmware: Firmware, bus: DiskBus) -> Machine {
    Machine { firmware, bus, ..Machine::new(X86_64) }
}
