//! Media that must fail, each in its own way: a verdict that is always `passed` is worth nothing, and neither is one that comes
//! after hours or names the wrong cause.
//!
//! A pressed disk is copied and damaged offline, through mtools and debugfs. Most end within half a minute. The flood needs
//! minutes to be one, the initramfs waits long for a root that never comes, and what hangs for good waits for its time limit: these
//! are tried by `tests/run full` only, and the harness is tested against their like with smaller guests.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use qemu::{BootReport, DiskBus, Firmware, Machine, Milestone, Severity, Verdict};

use crate::disk::directory;
use crate::machine::Case;
use crate::{HYBRID, machine};
use support::tool::{run, tool};

/// A copy of the hybrid disk, to be damaged.
struct Medium {
    name: &'static str,
    file: PathBuf,
    esp: u64,
    root: u64,
}

/// Where the boot loader's entry is.
const ENTRY: &str = "/boot/loader/entries/ostree-1.conf";

impl Medium {
    /// `None` where the tools are missing that make it.
    fn new(name: &'static str) -> Option<Self> {
        static RAW: OnceLock<PathBuf> = OnceLock::new();
        for needed in ["mdeltree", "debugfs"] {
            tool(needed)?;
        }
        let pressed = HYBRID.pressed();
        let mut convert = tool("qemu-img")?;
        let raw = RAW.get_or_init(|| {
            let raw = directory("must-fail").join("sound.raw");
            run(convert.args(["convert", "-O", "raw"]).arg(&pressed.file).arg(&raw));
            raw
        });
        let file = directory(name).join("broken.raw");
        run(Command::new("cp").arg("--sparse=always").args([raw, &file]));
        let start = |role: &str| pressed.partition(role).expect("a hybrid disk has it").start;
        Some(Self { name, file, esp: start("esp"), root: start("root") })
    }

    /// Runs debugfs' commands on the root file system; returns what they print.
    fn debugfs(&self, commands: &[String]) -> String {
        let script = directory(self.name).join("debugfs.txt");
        fs::write(&script, commands.join("\n")).unwrap();
        let mut debugfs = tool("debugfs").expect("it was there");
        let place = format!("{}?offset={}", self.file.display(), self.root);
        let said = run(debugfs.args(["-w", "-f"]).arg(script).arg(place));
        said.lines().filter(|line| !line.starts_with("debugfs")).collect::<Vec<_>>().join("\n")
    }

    /// Replaces a file of the root file system.
    fn replace(&self, path: &str, contents: &[u8]) {
        let local = directory(self.name).join("contents");
        fs::write(&local, contents).unwrap();
        self.debugfs(&[format!("rm {path}"), format!("write {} {path}", local.display())]);
    }

    fn read(&self, path: &str) -> Vec<u8> {
        let local = directory(self.name).join("contents");
        self.debugfs(&[format!("dump {path} {}", local.display())]);
        fs::read(local).unwrap()
    }

    /// Changes the boot entry.
    fn entry(&self, change: impl Fn(&str) -> String) {
        let entry = String::from_utf8(self.read(ENTRY)).unwrap();
        let changed = change(&entry);
        assert_ne!(entry, changed);
        self.replace(ENTRY, changed.as_bytes());
    }

    /// Adds to the kernel's command line.
    fn argue(&self, arguments: &str) {
        self.entry(|entry| entry.replace("\nlinux ", &format!(" {arguments}\nlinux ")));
    }

    /// A unit that the first boot starts.
    fn unit(&self, name: &str, service: &str) {
        let etc = format!("{}/etc/systemd/system", self.deployment());
        let unit = format!("[Service]\nType=oneshot\n{service}\n");
        let local = directory(self.name).join("unit");
        fs::write(&local, unit).unwrap();
        let wants = format!("{etc}/multi-user.target.wants");
        self.debugfs(&[
            format!("write {} {etc}/{name}", local.display()),
            format!("symlink {wants}/{name} ../{name}"),
        ]);
    }

    fn deployment(&self) -> String {
        let deployments = "/ostree/deploy/default/deploy";
        let listed = self.debugfs(&[format!("ls -p {deployments}")]);
        let name = listed.split('/').find(|name| name.ends_with(".0"));
        format!("{deployments}/{}", name.unwrap_or_else(|| panic!("no deployment in {listed}")))
    }

    /// Boots it; it must fail, and not because time was up unless it is given.
    fn fails(self, limit: Option<Duration>) -> BootReport {
        let case = Case::new(self.name, &HYBRID, machine(Firmware::Uefi, DiskBus::Virtio));
        let report = case.tried_within(&self.file, limit);
        fs::remove_file(&self.file).unwrap();
        eprintln!("{}: {:?} after {:.0} s", self.name, report.verdict, report.seconds);
        report
    }
}

/// The reason contains all of these, and the boot got exactly so far.
#[track_caller]
fn told(report: &BootReport, furthest: Milestone, parts: &[&str]) {
    let Verdict::Failed { reason } = &report.verdict else { panic!("passed: {report:#?}") };
    assert_eq!(report.furthest(), furthest, "{report:#?}");
    for part in parts {
        assert!(reason.contains(part), "`{part}` is not in `{reason}`");
    }
}

#[test]
fn no_boot_loader() {
    let Some(medium) = Medium::new("must-fail-boot-loader") else { return };
    let image = format!("{}@@{}", medium.file.display(), medium.esp);
    run(tool("mdeltree").unwrap().args(["-i", &image, "::/EFI"]));
    told(&medium.fails(None), Milestone::Firmware, &["firmware found nothing to boot"]);
}

#[test]
fn a_corrupted_kernel() {
    let Some(medium) = Medium::new("must-fail-kernel") else { return };
    let entry = String::from_utf8(medium.read(ENTRY)).unwrap();
    let kernel = entry.lines().find_map(|line| line.strip_prefix("linux ")).unwrap().to_owned();
    let mut bytes = medium.read(&kernel);
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0x5a);
    medium.replace(&kernel, &bytes);
    told(&medium.fails(None), Milestone::Kernel, &["EFI stub gave up"]);
}

#[test]
fn no_kernel() {
    let Some(medium) = Medium::new("must-fail-no-kernel") else { return };
    medium.entry(|entry| entry.replace("/vmlinuz-", "/nothing-"));
    told(&medium.fails(None), Milestone::Bootloader, &["GRUB has no kernel to start"]);
}

#[test]
fn no_initramfs() {
    let Some(medium) = Medium::new("must-fail-initramfs") else { return };
    medium.entry(|entry| {
        entry.lines().filter(|line| !line.starts_with("initrd")).collect::<Vec<_>>().join("\n")
    });
    told(&medium.fails(None), Milestone::Kernel, &["no root file system, and no initramfs"]);
}

#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_wrong_root_uuid() {
    let Some(medium) = Medium::new("must-fail-root") else { return };
    medium.entry(|entry| {
        let (before, after) = entry.split_once("root=UUID=").unwrap();
        format!("{before}root=UUID=00000000-0000-0000-0000-000000000000{}", &after[36..])
    });
    told(&medium.fails(None), Milestone::Initramfs, &["root file system's device never appeared"]);
}

#[test]
fn a_panic() {
    let Some(medium) = Medium::new("must-fail-panic") else { return };
    medium.argue("rdinit=/usr/bin/busybox -- false");
    told(
        &medium.fails(None),
        Milestone::Kernel,
        &["the kernel panicked", "Attempted to kill init"],
    );
}

/// What the kernel says goes to a serial port that is not there, and to the screen as far as it has a console there. The panic
/// device tells in any case, once its driver is loaded: that is where user space runs, as here.
#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_panic_on_a_machine_without_a_serial_port() {
    let Some(medium) = Medium::new("must-fail-unheard") else { return };
    let panic = "modprobe pvpanic-pci; echo 1 >/proc/sys/kernel/sysrq; date +%s >/run/now; echo c >/proc/sysrq-trigger";
    medium.unit("panic.service", &format!("ExecStart=/bin/sh -c '{panic}'"));
    let case = Case::new(
        medium.name,
        &HYBRID,
        Machine { serial: false, ..machine(Firmware::Uefi, DiskBus::Virtio) },
    );
    let report = case.tried_within(&medium.file, None);
    fs::remove_file(&medium.file).unwrap();
    let Verdict::Failed { reason } = &report.verdict else { panic!("passed: {report:#?}") };
    assert!(reason.contains("the kernel panicked"), "{reason}");
    let finding =
        report.findings.iter().find(|finding| finding.severity == Severity::Fatal).unwrap();
    let waited = report.seconds - report.lost_seconds - finding.seconds;
    eprintln!("unheard panic: {finding:?}, over {waited:.1} s later");
    assert!(waited < 10.0, "{waited}");
}

#[test]
fn a_guest_that_reboots_for_ever() {
    let Some(medium) = Medium::new("must-fail-reboots") else { return };
    medium.argue("rdinit=/usr/bin/busybox -- reboot -f");
    told(&medium.fails(None), Milestone::Kernel, &["the guest reset the machine"]);
}

#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_guest_whose_console_floods() {
    let Some(medium) = Medium::new("must-fail-flood") else { return };
    medium.argue("rdinit=/usr/bin/busybox -- yes flood");
    told(&medium.fails(None), Milestone::Kernel, &["the console is flooded"]);
}

#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_unit_that_fails() {
    let Some(medium) = Medium::new("must-fail-unit") else { return };
    medium.unit("broken.service", "ExecStart=/bin/false");
    let report = medium.fails(None);
    told(&report, Milestone::Userspace, &["systemd: degraded; failed: ", "broken.service"]);
}

/// Much fails where nothing can be written; the verdict names the cause.
#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_full_disk() {
    let Some(medium) = Medium::new("must-fail-full") else { return };
    let stats = medium.debugfs(&["stats".to_owned()]);
    let free = stats.lines().find_map(|line| line.strip_prefix("Free blocks:")).unwrap();
    let free: u64 = free.trim().parse().unwrap();
    let empty = directory(medium.name).join("empty");
    fs::write(&empty, "").unwrap();
    let fill = "/ostree/deploy/default/var/fill";
    medium.debugfs(&[format!("write {} {fill}", empty.display())]);
    medium.debugfs(&[format!("fallocate {fill} 0 {}", free - 100)]);
    let report = medium.fails(Some(Duration::from_secs(420)));
    told(&report, Milestone::Userspace, &["space: ", "/var is full"]);
}

#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_unit_that_hangs() {
    let Some(medium) = Medium::new("must-fail-hang") else { return };
    medium.unit("hang.service", "ExecStart=/bin/sleep infinity");
    let report = medium.fails(Some(Duration::from_secs(420)));
    told(
        &report,
        Milestone::Userspace,
        &["not up in", "waiting for", "hang.service start running"],
    );
}
