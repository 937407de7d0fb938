//! Media in virtual machines: they install, what they install boots, and they refuse what would do harm.
//!
//! ```text
//! CD drive: medium ─► menu ─► initramfs ─► live system ─► installer ─► disk ─► boots
//! ```

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fixture::{Architecture, Variant};
use qemu::{DiskBus, Firmware};

use crate::disk::{Disk, directory};
use crate::machine::{Case, failure};
use crate::tool::{run, tool};

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

/// When to give up; an installation takes two minutes on a machine that has nothing else to do.
const TIME_LIMIT: Duration = Duration::from_secs(1800);

const GIB: u64 = 1 << 30;

#[test]
fn an_unattended_medium_installs_and_the_disk_boots() {
    if std::env::var_os("FULL").is_none() {
        eprintln!("skipped: FULL is not set");
        return;
    }
    let medium = &UNATTENDED.pressed().file;
    is_sound(medium);
    let directory = directory("iso-install");
    let target = directory.join("target.raw");
    stale_disk(&target, 3 * GIB);
    let console = boot(medium, &[("target", &target)], &directory);
    assert!(console.contains("install: done:"), "{console}");
    assert!(console.contains("changes stay in memory: /dev/zram0"), "{console}");
    is_the_same_but_for_growth(&SAME_DISK.pressed().file, &target);
    let machine = super::machine(Firmware::Uefi, DiskBus::Nvme);
    let report = Case::new("iso-installed", &SAME_DISK, machine).tried(&target, None);
    assert!(
        failure("iso-installed", &report).is_none(),
        "{}",
        failure("iso-installed", &report).unwrap()
    );
    fs::remove_file(&target).unwrap();
}

/// Each refusal takes a boot.
#[test]
fn a_medium_refuses_what_is_not_meant() {
    if std::env::var_os("FULL").is_none() {
        eprintln!("skipped: FULL is not set");
        return;
    }
    let medium = &UNATTENDED.pressed().file;
    let directory = directory("iso-refuses");
    let disks: Vec<(&str, PathBuf)> =
        ["one", "two"].map(|name| (name, directory.join(name))).into_iter().collect();
    for (sizes, told) in [
        (&[][..], "no disk matches only-disk"),
        (&[256 << 20][..], "is too small"),
        (&[3 * GIB, 3 * GIB], "2 disks match only-disk: vda vdb; nothing was written"),
    ] {
        for ((_, path), size) in disks.iter().zip(sizes) {
            stale_disk(path, *size);
        }
        let used: Vec<(&str, &Path)> =
            disks.iter().take(sizes.len()).map(|(name, path)| (*name, path.as_path())).collect();
        let before: Vec<String> = used.iter().map(|(_, path)| sum(path)).collect();
        let console = boot_until(medium, &used, &directory, "nothing more is done");
        assert!(console.contains(told), "{told}: {console}");
        assert_eq!(used.iter().map(|(_, path)| sum(path)).collect::<Vec<_>>(), before, "{told}");
    }
}

fn sum(path: &Path) -> String {
    run(Command::new("sha256sum").arg(path))
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
    for at in [0, 60 << 20, 200 << 20] {
        file.write_all_at(&stale, at).unwrap();
    }
}

/// Boots a medium in a CD drive with these disks until the machine goes off by itself; the console.
fn boot(medium: &Path, disks: &[(&str, &Path)], directory: &Path) -> String {
    let (console, exited) = start(medium, disks, directory, None);
    assert!(exited, "the machine did not go off: {console}");
    console
}

/// The same until the console says something.
fn boot_until(medium: &Path, disks: &[(&str, &Path)], directory: &Path, said: &str) -> String {
    start(medium, disks, directory, Some(said)).0
}

fn start(
    medium: &Path,
    disks: &[(&str, &Path)],
    directory: &Path,
    until: Option<&str>,
) -> (String, bool) {
    const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
    let (variables, console) = (directory.join("variables.fd"), directory.join("console.txt"));
    fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables).unwrap();
    let mut command = tool("qemu-system-x86_64").expect("QEMU is needed for boot tests");
    command
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=single",
            "-cpu",
            "max",
            "-smp",
            "1",
            "-m",
            "1024",
        ])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .arg("-drive")
        .arg(format!("if=pflash,format=raw,unit=0,readonly=on,file={CODE}"))
        .arg("-drive")
        .arg(format!("if=pflash,format=raw,unit=1,file={}", variables.display()))
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-drive")
        .arg(format!(
            "if=none,id=medium,format=raw,media=cdrom,readonly=on,file={}",
            medium.display()
        ))
        .args(["-device", "ide-cd,drive=medium,bootindex=1"]);
    for (name, path) in disks {
        command
            .arg("-drive")
            .arg(format!("if=none,id={name},format=raw,file={}", path.display()))
            .arg("-device")
            .arg(format!("virtio-blk-pci,drive={name},serial=SERIAL-{name}"));
    }
    let mut machine = command.stdin(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let read = || String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let exited = machine.try_wait().unwrap().is_some();
        let done = exited || until.is_some_and(|until| read().contains(until));
        if done || begun.elapsed() > TIME_LIMIT {
            let _ = machine.kill();
            machine.wait().unwrap();
            eprintln!("{}: {:.0} s", directory.display(), begun.elapsed().as_secs_f64());
            return (read(), exited);
        }
    }
}

/// Everything outside of the root's file system is the artifact's, bit for bit; and in it every file is.
fn is_the_same_but_for_growth(artifact: &Path, installed: &Path) {
    let pressed = SAME_DISK.pressed();
    let root = pressed.partition("root").expect("a disk has a root");
    // The first MiB holds the partition table, which knows the disk's size.
    let range = (1 << 20)..root.start;
    let (one, two) = (File::open(artifact).unwrap(), File::open(installed).unwrap());
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for at in range.step_by(1 << 20) {
        one.read_exact_at(&mut a, at).unwrap();
        two.read_exact_at(&mut b, at).unwrap();
        assert!(a == b, "the installed disk differs at {at}");
    }
    let Some(mut e2fsck) = tool("e2fsck") else { return };
    run(e2fsck.arg("-fn").arg(format!("{}?offset={}", installed.display(), root.start)));
    let Some(mut dumpe2fs) = tool("dumpe2fs") else { return };
    let said =
        run(dumpe2fs.arg("-h").arg(format!("{}?offset={}", installed.display(), root.start)));
    let number = |name: &str| -> u64 {
        let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().parse().unwrap()
    };
    let grown = number("Block count:") * number("Block size:");
    let room = fs::metadata(installed).unwrap().len() - root.start;
    assert!(grown > room - (2 << 20) && grown <= room, "{grown} of {room}");
}
