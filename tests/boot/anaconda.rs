//! A medium with Anaconda in virtual machines, as far as it goes without Fedora's own: firmware, menu, kernel, and dracut's
//! dmsquash-live, which Anaconda's part of an initramfs starts its system with, find all that is on the medium. In the place of
//! Anaconda a script looks around.

use std::time::Duration;

use fixture::{Architecture, Variant};
use qemu::{DiskBus, Firmware, Machine, Proof, Session, Test};

use crate::disk::{Disk, directory};
use crate::machine::{X86_64, failure};

/// What Anaconda's `inst.stage2=` comes to, in dracut's words.
const ROOT: &str = "root=live:CDLABEL=SHAM";

static MEDIUM: Disk = Disk::new(
    "installer",
    Architecture::X86_64,
    Variant::Installer,
    "anaconda-iso",
    &[
        "--volume-id",
        "SHAM",
        "--target-imgref",
        "example.com/fixture:1",
        "--karg",
        ROOT,
        "--karg",
        "rd.live.dir=images",
        "--karg",
        "rd.live.squashimg=install.img",
        "--karg",
        "console=ttyS0,115200",
    ],
);

#[test]
#[ignore = "takes minutes: tests/run full"]
fn a_cd_starts_its_installer_under_every_firmware() {
    let firmwares = [
        ("anaconda-bios", Firmware::Bios),
        ("anaconda-uefi", Firmware::Uefi),
        ("anaconda-secure-boot", Firmware::UefiSecureBoot),
    ];
    for (name, firmware) in firmwares {
        starts(name, DiskBus::Cdrom, firmware);
    }
    starts("anaconda-stick", DiskBus::Usb, Firmware::Uefi);
}

fn starts(name: &str, bus: DiskBus, firmware: Firmware) {
    let evidence = directory(name);
    let machine = Machine { bus, firmware, memory_mib: 2048, ..Machine::new(X86_64) };
    let session = Session { dialogue: &[("automatically in", "\r")], ..Session::default() };
    let test = Test {
        time_limit: Some(Duration::from_secs(1200)),
        evidence: Some(&evidence),
        proof: Proof::Console("sham-anaconda: done".to_owned()),
        session,
        ..Test::new(&MEDIUM.pressed().file, machine)
    };
    let report =
        qemu::boot(&test, &mut |_| {}, &|| false).unwrap_or_else(|error| panic!("{name}: {error}"));
    if let Some(failure) = failure(name, &report) {
        panic!("{failure}\nevidence: {}", evidence.display());
    }
    eprintln!("{name}: {:.0} s", report.seconds);
    let console = std::fs::read_to_string(evidence.join("console.log")).unwrap();
    for said in [
        "root: /dev/mapper/live-rw ext4",
        "user: install:x:0:0:root:/var/roothome:/usr/libexec/anaconda/run-anaconda",
        "kickstart: %include /run/install/repo/osbuild-base.ks",
        "payload: {",
        "stamp: Product = Debian GNU/Linux",
        "target: /usr/lib/systemd/system/anaconda.target",
        "written: yes",
    ] {
        assert!(console.contains(&format!("sham-anaconda: {said}")), "{said}: {name}");
    }
}
