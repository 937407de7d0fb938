//! Command lines as goldens: one option and its value to a line.

use std::path::PathBuf;

use super::*;

fn shown(machine: &Machine, accelerator: &Accelerator) -> String {
    shown_with(machine, accelerator, &[])
}

fn shown_with(machine: &Machine, accelerator: &Accelerator, disks: &[Attached<'_>]) -> String {
    let flash =
        Flash { code: PathBuf::from("/fw/code.fd"), variables: PathBuf::from("/t/variables.fd") };
    let credentials = Credentials { smbios: vec!["one,two".to_owned()], fw_cfg: Vec::new() };
    let nodes = ["BASE", "DISK"].map(str::to_owned).to_vec();
    let drive = Drive { nodes, size: 0 };
    let wiring = Wiring {
        drive: &drive,
        sandbox: true,
        flash: (machine.firmware != Firmware::Bios).then_some(&flash),
        console: Path::new("/t/console"),
        report: Path::new("/t/report"),
        qmp: Path::new("/t/qmp"),
        credentials: &credentials,
        accelerator,
        tpm: (machine.tpm != Tpm::None).then_some(Path::new("/t/tpm")),
        durable: false,
        network: false,
        disks,
    };
    let line: Vec<String> =
        machine.arguments(&wiring).iter().map(|a| a.to_string_lossy().into_owned()).collect();
    line.join(" ").replace(" -", "\n-") + "\n"
}

fn tcg() -> Accelerator {
    Accelerator::Tcg { why: "test".to_owned() }
}

#[test]
fn secure_boot_on_nvme_under_tcg() {
    let machine = Machine {
        firmware: Firmware::UefiSecureBoot,
        bus: DiskBus::Nvme,
        sector_size: 4096,
        ..Machine::new(Architecture::X86_64)
    };
    assert_eq!(
        shown(&machine, &tcg()),
        "\
-no-user-config
-nodefaults
-display none
-S
-nic none
-action panic=none
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-no-reboot
-machine q35,smm=on
-accel tcg,thread=multi
-cpu max
-smp 1
-m 2048M
-global driver=cfi.pflash01,property=secure,value=on
-drive if=pflash,unit=0,format=raw,readonly=on,file=/fw/code.fd
-drive if=pflash,unit=1,format=raw,file=/t/variables.fd
-blockdev BASE
-blockdev DISK
-device nvme,drive=disk,serial=disk,bootindex=0,logical_block_size=4096,physical_block_size=4096
-device VGA
-object rng-random,id=entropy,filename=/dev/urandom
-device virtio-rng-pci,rng=entropy
-chardev socket,id=console,path=/t/console
-serial chardev:console
-chardev socket,id=qmp,path=/t/qmp
-mon chardev=qmp,mode=control
-chardev socket,id=report,path=/t/report
-device virtio-serial-pci
-device virtserialport,chardev=report,name=boot-report
-device pvpanic-pci
-smbios type=11,value=one,,two
"
    );
}

#[test]
fn arm_on_ahci_under_kvm() {
    let machine =
        Machine { bus: DiskBus::Ahci, memory_mib: 1024, ..Machine::new(Architecture::Aarch64) };
    let shown = shown(&machine, &Accelerator::Kvm);
    for expected in [
        "\n-machine virt,gic-version=host\n-accel kvm\n-cpu host\n-smp 2\n-m 1024M\n",
        "\n-device ich9-ahci,id=ahci\n-device ide-hd,drive=disk,bus=ahci.0,bootindex=0,rerror=stop,werror=stop\n",
    ] {
        assert!(shown.contains(expected), "{expected}{shown}");
    }
    assert!(!shown.contains("-global"));
}

/// Real hardware has none of what only virtual machines have, and what serves the test must not bring it in by the back door.
#[test]
fn bare_machines_have_no_virtio() {
    for (architecture, serial, expected) in [
        (Architecture::X86_64, true, "\n-serial chardev:console\n"),
        (Architecture::X86_64, true, "\n-serial chardev:report\n"),
        (Architecture::X86_64, false, "\n-device usb-serial,bus=usb.0,chardev=report\n"),
        (Architecture::Aarch64, true, "\n-device pci-serial,chardev=report\n"),
    ] {
        for bus in [DiskBus::Nvme, DiskBus::Ahci, DiskBus::Usb, DiskBus::Cdrom] {
            let network = Network::E1000e;
            let tpm = Tpm::Swtpm;
            let machine = Machine { bus, serial, network, tpm, ..Machine::new(architecture) };
            let shown = shown(&machine, &tcg());
            assert!(!shown.contains("virtio"), "{shown}");
            assert!(shown.contains(expected), "{expected}{shown}");
            assert_eq!(shown.contains("\n-serial"), serial, "{shown}");
            assert_eq!(
                shown.matches("qemu-xhci,id=usb").count(),
                shown.matches("usb-").count().min(1)
            );
            assert!(shown.contains("-device e1000e,netdev=net,romfile=\n"), "{shown}");
            assert!(shown.contains("\n-chardev socket,id=tpm,path=/t/tpm\n-tpmdev emulator,id=tpm,chardev=tpm\n-device tpm-"), "{shown}");
        }
    }
    for machine in [
        Machine {
            network: Network::Virtio,
            bus: DiskBus::Nvme,
            ..Machine::new(Architecture::X86_64)
        },
        Machine {
            network: Network::E1000e,
            bus: DiskBus::VirtioScsi,
            ..Machine::new(Architecture::X86_64)
        },
    ] {
        assert_eq!(machine.channel(), Channel::Virtio);
    }
}

#[test]
fn arm_under_tcg_keeps_its_processors_and_bios_has_no_flash() {
    assert!(
        shown(&Machine::new(Architecture::Aarch64), &tcg())
            .contains("\n-accel tcg\n-cpu cortex-a57\n-smp 2\n")
    );
    let bios = Machine { firmware: Firmware::Bios, ..Machine::new(Architecture::X86_64) };
    let shown = shown(&bios, &tcg());
    assert!(shown.contains("-machine q35,graphics=off") && !shown.contains("pflash"), "{shown}");
}

#[test]
fn machines_that_cannot_exist_are_refused() {
    let pc = Machine::new(Architecture::X86_64);
    let refused = [
        Machine { firmware: Firmware::Bios, ..Machine::new(Architecture::Aarch64) },
        Machine { firmware: Firmware::Bios, sector_size: 4096, ..pc.clone() },
        Machine { bus: DiskBus::Ahci, sector_size: 4096, ..pc.clone() },
        Machine { bus: DiskBus::Usb, sector_size: 4096, ..pc.clone() },
        Machine { bus: DiskBus::Cdrom, sector_size: 4096, ..pc.clone() },
        Machine { serial: false, ..Machine::new(Architecture::Aarch64) },
        Machine { sector_size: 520, ..pc.clone() },
        Machine { cpus: 0, ..pc.clone() },
    ];
    for machine in refused {
        assert!(matches!(machine.check(), Err(BootError::Unsupported(_))), "{machine:?}");
    }
    for machine in Architecture::ALL.map(Machine::new) {
        machine.check().unwrap();
    }
}

/// What a medium installs to: beside the drive, and never what the firmware starts.
#[test]
fn further_disks_are_beside_the_one_that_boots() {
    let file = Path::new("/t/target.raw");
    let disks = [DiskBus::Ahci, DiskBus::Nvme, DiskBus::Usb, DiskBus::Virtio].map(|bus| Attached {
        file,
        bus,
        serial: "S",
    });
    let machine = Machine { bus: DiskBus::Cdrom, ..Machine::new(Architecture::X86_64) };
    let shown = shown_with(&machine, &tcg(), &disks);
    for expected in [
        "\n-device ide-cd,drive=disk,bus=ide.0,bootindex=0,rerror=stop,werror=stop\n",
        "\n-drive if=none,id=disk1,format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap,file.driver=file,file.filename=/t/target.raw\n",
        "\n-device ide-hd,bus=ide.1,drive=disk1,serial=S\n",
        "\n-device nvme,drive=disk2,serial=S\n",
        "\n-device usb-storage,bus=usb.0,removable=on,drive=disk3,serial=S\n",
        "\n-device virtio-blk-pci,drive=disk4,serial=S\n",
    ] {
        assert!(shown.contains(expected), "{expected}{shown}");
    }
    assert_eq!(shown.matches("bootindex").count(), 1, "{shown}");
    assert_eq!(shown.matches("qemu-xhci").count(), 1, "{shown}");
}
