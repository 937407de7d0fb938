//! The built-in matrix, and what other files may say.

use std::collections::HashSet;

use super::*;

fn refused(text: &str) -> String {
    Matrix::parse(text).unwrap_err().to_string()
}

#[test]
fn the_built_in_matrix_has_the_profiles_that_people_know() {
    let matrix = Matrix::built_in();
    for name in
        ["vm", "bare-metal", "bare-metal-no-uart", "edge", "bios", "aarch64-vm", "aarch64-metal"]
    {
        matrix.named(name).unwrap();
    }
    let bare = &matrix.named("bare-metal").unwrap().machine;
    assert_eq!(bare.firmware, Firmware::UefiSecureBoot);
    assert_eq!(bare.tpm, Tpm::Swtpm);
    assert!(bare.is_bare());
    let said = matrix.named("mainframe").unwrap_err().to_string();
    assert!(said.starts_with("no machine `mainframe`; there are: vm, bare-metal, "), "{said}");
}

#[test]
fn four_quick_machines_for_each_architecture_cover_most() {
    for architecture in Architecture::ALL {
        let quick = Matrix::built_in().quick();
        let machines: Vec<_> =
            quick.iter().map(|p| &p.machine).filter(|m| m.architecture == architecture).collect();
        assert_eq!(machines.len(), 4);
        let buses: HashSet<_> = machines.iter().map(|machine| machine.bus.name()).collect();
        assert_eq!(buses.len(), 4, "each has a bus of its own: {buses:?}");
        assert!(machines.iter().any(|m| m.firmware == Firmware::UefiSecureBoot));
        assert!(machines.iter().any(|m| m.tpm == Tpm::Swtpm));
        assert!(machines.iter().any(|m| m.memory_mib == 1024 && m.cpus == 1));
        assert!(machines.iter().any(|m| m.is_bare()) && machines.iter().any(|m| !m.is_bare()));
    }
}

/// Counted here in another way than the choice is made: over the machines, not over their indices.
#[test]
fn full_has_every_pair_that_is_possible() {
    let values = |machine: &Machine| {
        [
            format!("{:?}", machine.architecture),
            format!("{:?}", machine.firmware),
            format!("{:?}", machine.bus),
            format!("sectors of {}", machine.sector_size),
            format!("{:?} network", machine.network),
            format!("{:?} TPM", machine.tpm),
            format!("{} MiB", machine.memory_mib),
            format!("{} cpus", machine.cpus),
            format!("serial {}", machine.serial),
        ]
    };
    let pairs = |machines: &[Machine]| -> HashSet<(String, String)> {
        let of_one = |machine: &Machine| {
            let values = values(machine);
            let with_later = |(at, one): (usize, &String)| {
                let one = one.clone();
                values[at + 1..]
                    .iter()
                    .map(move |other| (one.clone(), other.clone()))
                    .collect::<Vec<_>>()
            };
            values.iter().enumerate().flat_map(with_later).collect::<Vec<_>>()
        };
        machines.iter().flat_map(of_one).collect()
    };
    let matrix = Matrix::built_in();
    for medium in [
        Medium::default(),
        Medium { optical: true, ..Medium::default() },
        Medium { architecture: Some(Architecture::Aarch64), ..Medium::default() },
        Medium { sector_size: Some(4096), ..Medium::default() },
        Medium { bios: Some(false), sector_size: Some(512), ..Medium::default() },
    ] {
        let possible: Vec<Machine> = matrix
            .combinations()
            .map(|(_, machine)| machine)
            .filter(|machine| machine.check().is_ok() && medium.misfit(machine).is_none())
            .collect();
        let chosen: Vec<Machine> =
            matrix.full(&medium).into_iter().map(|profile| profile.machine).collect();
        assert!(!chosen.is_empty());
        assert_eq!(pairs(&chosen), pairs(&possible), "{medium:?}");
        assert!(chosen.len() <= 24, "{medium:?} takes {} machines", chosen.len());
        let names: HashSet<_> = matrix.full(&medium).into_iter().map(|p| p.name).collect();
        assert_eq!(names.len(), chosen.len(), "each has a name, and so a directory, of its own");
    }
}

#[test]
fn what_is_left_out_has_a_reason() {
    let left_out = Matrix::built_in().left_out();
    let said: Vec<String> =
        left_out.iter().map(|one| format!("{}: {}", one.combination, one.reason)).collect();
    for expected in [
        "aarch64 with firmware bios: aarch64 machines have no BIOS; use UEFI firmware",
        "firmware bios with sector-size 4096: a BIOS boots only from disks with sectors of 512 bytes",
        "bus usb with sector-size 4096: QEMU's USB sticks have sectors of 512 bytes",
        "aarch64 with serial false: QEMU's aarch64 board has a serial port that cannot be taken out",
    ] {
        assert!(said.iter().any(|one| one == expected), "{expected}: {said:#?}");
    }
    assert_eq!(said.len(), 6, "{said:#?}");
}

#[test]
fn media_fit_or_say_why_not() {
    let pc = Machine::new(Architecture::X86_64);
    let arm = Medium { architecture: Some(Architecture::Aarch64), ..Medium::default() };
    assert_eq!(arm.misfit(&pc).unwrap(), "the disk is for aarch64");
    let large = Medium { sector_size: Some(4096), ..Medium::default() };
    assert_eq!(large.misfit(&pc).unwrap(), "the disk has sectors of 4096 bytes");
    let drive = Machine { bus: DiskBus::Cdrom, ..pc.clone() };
    assert_eq!(Medium::default().misfit(&drive).unwrap(), "a CD-ROM drive reads ISOs only");
    let iso = Medium { optical: true, sector_size: Some(512), ..Medium::default() };
    assert_eq!(iso.misfit(&drive), None);
    let bios = Machine { firmware: Firmware::Bios, ..pc };
    let uefi_only = Medium { bios: Some(false), ..Medium::default() };
    assert_eq!(uefi_only.misfit(&bios).unwrap(), "the disk has no boot code for a BIOS");
}

#[test]
fn files_that_make_no_sense_are_refused() {
    let machine = "[[machine]]\nname = 'a'\narchitecture = 'x86_64'\n";
    assert!(Matrix::parse(machine).is_ok());
    assert!(refused(&format!("{machine}colour = 'red'\n")).contains("colour"));
    assert!(refused(&format!("{machine}bus = 'floppy'\n")).contains("floppy"));
    assert!(refused(&format!("{machine}{machine}")).contains("two machines `a`"));
    assert!(refused(&machine.replace("'a'", "'../a'")).contains("names are letters"));
    let impossible = machine.replace("x86_64", "aarch64") + "firmware = 'bios'\n";
    assert!(refused(&impossible).contains("machine `a`: aarch64 machines have no BIOS"));
    let many = (0..300_000).map(|n| format!("{n},")).collect::<String>();
    assert!(refused(&format!("[axes]\nmemory = [{many}]\n")).contains("more than 200000"));
}

/// A file without axes still has a `--full`: the unremarkable machines.
#[test]
fn axes_may_be_left_away() {
    let matrix = Matrix::parse("").unwrap();
    assert_eq!(matrix.full(&Medium::default()).len(), Architecture::ALL.len());
    assert!(matrix.quick().is_empty());
}
