//! Guests that cannot report: what they show is a proof of its own level, and passes only where that is accepted.

use std::fs;
use std::time::Duration;

use fixture::{Architecture, Variant};
use qemu::{Access, DiskBus, Firmware, Level, Machine, Network, Test, Tpm, Verdict};

use crate::disk::{Disk, directory};
use crate::machine;

/// systemd takes nothing from outside, and shows a login prompt: on the serial port where there is one, else on the screen.
static SILENT: Disk = Disk::new(
    "silent",
    Architecture::X86_64,
    Variant::Default,
    "qcow2",
    &[
        "--karg",
        "systemd.import_credentials=no",
        "--karg-delete",
        "systemd.getty_auto=no",
        "--karg",
        "console=tty0",
        "--karg",
        "systemd.wants=getty@tty1.service",
    ],
);

/// The same without a login prompt: what the kernel says on the screen is all there is.
static MUTE: Disk = Disk::new(
    "mute",
    Architecture::X86_64,
    Variant::Default,
    "qcow2",
    &["--karg", "systemd.import_credentials=no", "--karg", "console=tty0"],
);

/// A fifth of it without a change is rest.
const LIMIT: Duration = Duration::from_secs(900);

fn proven(name: &str, disk: &Disk, machine: Machine, accept: Level) -> (Verdict, Level) {
    let evidence = directory(name);
    let test = Test {
        accept,
        time_limit: Some(LIMIT),
        evidence: Some(&evidence),
        ..Test::new(&disk.pressed().file, machine)
    };
    let report = qemu::boot(&test, &mut |_| {}, &|| false).unwrap();
    eprintln!("{name}: {:?}, {:?} after {:.0} s", report.verdict, report.proof, report.seconds);
    assert!(fs::metadata(evidence.join("result.json")).is_ok());
    (report.verdict, report.proof)
}

#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_login_prompt_is_told_and_passes_only_where_it_is_accepted() {
    let uefi = || machine(Firmware::Uefi, DiskBus::Virtio);
    let (verdict, proof) = proven("proof-login-refused", &SILENT, uefi(), Level::Report);
    let Verdict::Failed { reason } = verdict else { panic!("passed without a report") };
    assert!(reason.contains("only a weaker proof, login prompt: "), "{reason}");
    assert_eq!(proof, Level::Login);
    let accepted = proven("proof-login", &SILENT, uefi(), Level::Login);
    assert_eq!(accepted, (Verdict::Passed, Level::Login));
}

#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_machine_without_a_serial_port_is_read_from_its_screen() {
    let bare = Machine {
        serial: false,
        network: Network::E1000e,
        tpm: Tpm::Swtpm,
        ..machine(Firmware::UefiSecureBoot, DiskBus::Nvme)
    };
    let prompt = proven("proof-screen-login", &SILENT, bare.clone(), Level::Screen);
    assert_eq!(prompt, (Verdict::Passed, Level::Login));
    let still = proven("proof-screen", &MUTE, bare, Level::Screen);
    assert_eq!(still, (Verdict::Passed, Level::Screen));
}

/// For kernels that do not show SMBIOS strings.
#[test]
#[ignore = "takes minutes: tests/run full"]
fn fw_cfg_carries_what_a_guest_is_to_do() {
    let evidence = directory("access-fw-cfg");
    let test = Test {
        access: Access::FwCfg,
        time_limit: Some(LIMIT),
        evidence: Some(&evidence),
        ..Test::new(&crate::HYBRID.pressed().file, machine(Firmware::Uefi, DiskBus::Virtio))
    };
    let report = qemu::boot(&test, &mut |_| {}, &|| false).unwrap();
    assert_eq!(report.verdict, Verdict::Passed, "{:?}", report.checks);
    assert_eq!(report.proof, Level::Report);
    let line = report.command.join(" ");
    assert!(line.contains("-fw_cfg") && !line.contains("-smbios"), "{line}");
}
