//! Flags that say which machines to boot in, and what they come to for a disk.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bootpress::architecture::Architecture as Ours;
use bootpress::error::unsupported;
use bootpress::inspect;
use clap::Args;
use qemu::{
    Acceleration, Architecture, DiskBus, DiskFormat, Firmware, Machine, Matrix, Medium, Network,
    Profile, Tpm,
};

/// Where an ISO 9660 volume says what it is: in sector 16 of 2048 bytes, after the descriptor's type.
const ISO_MAGIC_AT: u64 = 16 * 2048 + 1;

/// What the machine is called that the flags describe.
pub(super) const UNNAMED: &str = "machine";

#[derive(Debug, Args)]
pub(super) struct MachineFlags {
    /// Choose a machine of the matrix, such as vm or bare-metal
    ///
    /// `bootpress test --list` shows them all. The flags below change the machine.
    #[arg(long = "machine", value_name = "NAME", help_heading = "Machine")]
    pub(super) machines: Vec<String>,

    /// Read the machines from a TOML file
    #[arg(long, value_name = "FILE", help_heading = "Machine", hide_short_help = true)]
    matrix: Option<PathBuf>,

    /// Set the architecture
    ///
    /// Without this flag it is what the file name says (disk.aarch64.qcow2), else what is on the disk.
    #[arg(long, value_parser = architecture, help_heading = "Machine")]
    arch: Option<Architecture>,

    /// Set the firmware: uefi, uefi-secure or bios
    ///
    /// uefi-secure has Secure Boot with Microsoft's keys. Without this flag it is uefi.
    #[arg(long, value_parser = firmware, help_heading = "Machine")]
    firmware: Option<Firmware>,

    /// Set how the disk is attached: virtio, nvme, usb and more
    ///
    /// One of: virtio, virtio-scsi, nvme, ahci, usb, cdrom. Without this flag it is virtio.
    #[arg(long, value_parser = bus, help_heading = "Machine")]
    bus: Option<DiskBus>,

    /// Set the logical sector size of the disk: 512 or 4096
    ///
    /// Without this flag it is the size that the disk was built for.
    #[arg(long, value_name = "BYTES", help_heading = "Machine", hide_short_help = true)]
    sector_size: Option<u32>,

    /// Set the network card: none, virtio or e1000e
    ///
    /// Without this flag there is none.
    #[arg(long, value_parser = network, help_heading = "Machine", hide_short_help = true)]
    network: Option<Network>,

    /// Set the TPM: none or swtpm
    ///
    /// Without this flag there is none.
    #[arg(long, value_parser = tpm, help_heading = "Machine", hide_short_help = true)]
    tpm: Option<Tpm>,

    /// Set the memory, in MiB
    ///
    /// Without this flag it is 2048.
    #[arg(long, value_name = "MIB", help_heading = "Machine")]
    memory: Option<u32>,

    /// Set the number of processors
    ///
    /// Without this flag it is 2. Without KVM, a guest for x86_64 always gets one.
    #[arg(long, value_name = "COUNT", help_heading = "Machine")]
    cpus: Option<u32>,

    /// Leave the serial port out
    #[arg(long, help_heading = "Machine", hide_short_help = true)]
    no_serial: bool,

    /// Choose what runs the guest: auto, kvm or tcg
    ///
    /// tcg is QEMU's emulation. `auto` uses KVM if the machine's firmware starts under it, and TCG otherwise; a boot that breaks under KVM is
    /// tried once more under TCG. The answer is kept in $XDG_CACHE_HOME/bootpress-machine until this machine restarts.
    #[arg(long, value_name = "WAY", value_parser = acceleration, default_value = "auto", help_heading = "Machine")]
    accel: Acceleration,

    /// Set the format of the disk's file
    ///
    /// Without this flag the file's name says it (.raw, .iso, .qcow2, .vmdk, .vhdx, .vhd, .vdi), and for other names its first bytes.
    #[arg(long, value_name = "FORMAT", value_parser = disk_format, help_heading = "Machine", hide_short_help = true)]
    disk_format: Option<DiskFormat>,
}

/// Which of the matrix' machines, if any were not named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The machines that were named, or the one that the flags describe.
    Named,
    /// The few that cover most.
    Quick,
    /// All pairs.
    Full,
}

/// The machines for a disk, and those that were left out with the reasons.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) machines: Vec<Profile>,
    pub(super) left_out: Vec<(String, String)>,
}

impl MachineFlags {
    /// What is to run the guests.
    pub(super) const fn acceleration(&self) -> Acceleration {
        self.accel
    }

    /// What the disks' files are, if it was said.
    pub(super) const fn disk_format(&self) -> Option<DiskFormat> {
        self.disk_format
    }

    /// The architecture, if it was said.
    pub(super) fn architecture(&self) -> Option<Architecture> {
        self.arch
    }

    /// Reads the matrix.
    pub(super) fn matrix(&self) -> Result<Matrix> {
        let Some(file) = &self.matrix else { return Ok(Matrix::built_in()) };
        let reading = || format!("reading machines from {}", file.display());
        let text = fs::read_to_string(file).with_context(reading)?;
        Matrix::parse(&text).with_context(reading)
    }

    /// The machines to boot a disk in.
    pub(super) fn select(&self, disk: &Path, matrix: &Matrix, choice: Choice) -> Result<Selection> {
        let medium = medium_of(disk);
        let named = |name: &String| {
            let profile = matrix.named(name).cloned();
            profile.map_err(|error| unsupported(error.to_string(), Some("--list shows them all")))
        };
        let wanted = match choice {
            Choice::Quick => matrix.quick(),
            Choice::Full => matrix.full(&medium),
            Choice::Named if self.machines.is_empty() => {
                return Ok(Selection {
                    machines: vec![self.unnamed(disk, &medium)?],
                    left_out: Vec::new(),
                });
            }
            Choice::Named => self.machines.iter().map(named).collect::<Result<_>>()?,
        };
        let mut selection = Selection::default();
        for mut profile in wanted {
            self.apply(&mut profile.machine);
            let machine = &profile.machine;
            match machine.impossible().or_else(|| medium.misfit(machine)) {
                Some(reason) => selection.left_out.push((profile.name, reason)),
                None => selection.machines.push(profile),
            }
        }
        Ok(selection)
    }

    /// The machine that the flags describe.
    fn unnamed(&self, disk: &Path, medium: &Medium) -> Result<Profile> {
        let mut machine = Machine::new(architecture_of(self.arch, disk, medium)?);
        machine.sector_size = medium.sector_size.unwrap_or(machine.sector_size);
        self.apply(&mut machine);
        match machine.impossible() {
            Some(why) => Err(unsupported(why, None)),
            None => {
                let (name, about) = (UNNAMED.to_owned(), "as the flags say".to_owned());
                Ok(Profile { name, about, quick: false, machine })
            }
        }
    }

    fn apply(&self, machine: &mut Machine) {
        machine.architecture = self.arch.unwrap_or(machine.architecture);
        machine.firmware = self.firmware.unwrap_or(machine.firmware);
        machine.bus = self.bus.unwrap_or(machine.bus);
        machine.sector_size = self.sector_size.unwrap_or(machine.sector_size);
        machine.network = self.network.unwrap_or(machine.network);
        machine.tpm = self.tpm.unwrap_or(machine.tpm);
        machine.memory_mib = self.memory.unwrap_or(machine.memory_mib);
        machine.cpus = self.cpus.unwrap_or(machine.cpus);
        machine.serial &= !self.no_serial;
    }
}

/// A table of all machines, and what the axes leave out. With `full` the machines of --full, too.
pub(super) fn table(matrix: &Matrix, full: bool) -> String {
    let mut machines: Vec<Profile> = matrix.profiles().to_vec();
    if full {
        machines.extend(matrix.full(&Medium::default()));
    }
    let mut rows = vec![
        [
            "machine", "arch", "firmware", "bus", "sector", "network", "tpm", "memory", "cpus",
            "serial",
        ]
        .map(str::to_owned),
    ];
    rows.extend(machines.iter().map(row));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        let mut line = cells.join("  ").trim_end().to_owned();
        if let Some(profile) = index.checked_sub(1).and_then(|index| machines.get(index))
            && profile.quick
        {
            line.push_str("  (quick)");
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
    let left_out = matrix.left_out();
    if !left_out.is_empty() {
        text.push_str("\nleft out of --full:\n");
    }
    for one in left_out {
        let _ = writeln!(text, "  {}: {}", one.combination, one.reason);
    }
    text
}

fn row(profile: &Profile) -> [String; 10] {
    let machine = &profile.machine;
    [
        profile.name.clone(),
        machine.architecture.name().to_owned(),
        machine.firmware.name().to_owned(),
        machine.bus.name().to_owned(),
        machine.sector_size.to_string(),
        machine.network.name().to_owned(),
        machine.tpm.name().to_owned(),
        machine.memory_mib.to_string(),
        machine.cpus.to_string(),
        if machine.serial { "yes" } else { "no" }.to_owned(),
    ]
}

/// What a disk demands of a machine, as far as it can be read; booting it will say what is wrong with one that cannot.
fn medium_of(disk: &Path) -> Medium {
    let facts = inspect::inspect(disk).ok();
    let architecture = architecture_in(disk).or_else(|| {
        let ours = facts.as_ref()?.architecture?;
        Architecture::parse(ours.name())
    });
    let has_bios_boot =
        |facts: &inspect::Facts| facts.partitions.iter().any(|p| p.role == Some("bios-boot"));
    Medium {
        architecture,
        sector_size: facts.as_ref().and_then(|facts| u32::try_from(facts.sector_size).ok()),
        optical: File::open(disk).and_then(is_iso).unwrap_or(false),
        bios: facts.as_ref().map(has_bios_boot),
    }
}

fn is_iso(mut file: impl Read + Seek) -> std::io::Result<bool> {
    let mut magic = [0; 5];
    file.seek(SeekFrom::Start(ISO_MAGIC_AT))?;
    file.read_exact(&mut magic)?;
    Ok(&magic == b"CD001")
}

/// The architecture that was asked for, else the one in the file's name, else the one that what is on it is for, else this
/// machine's.
fn architecture_of(
    asked: Option<Architecture>,
    disk: &Path,
    medium: &Medium,
) -> Result<Architecture> {
    let named = asked.or_else(|| architecture_in(disk)).or(medium.architecture);
    named.or_else(Architecture::host).ok_or_else(|| {
        let host = std::env::consts::ARCH;
        unsupported(
            format!("QEMU is not set up for {host} guests here"),
            Some("name an architecture with --arch"),
        )
    })
}

/// An architecture between dots, as in `fedora-bootc-43.aarch64.qcow2`.
fn architecture_in(disk: &Path) -> Option<Architecture> {
    disk.file_name()?.to_str()?.split('.').find_map(|part| architecture(part).ok())
}

fn architecture(name: &str) -> Result<Architecture, String> {
    Ours::parse(name)
        .and_then(|ours| Architecture::parse(ours.name()))
        .ok_or_else(|| known(&Architecture::ALL.map(Architecture::name)))
}

fn firmware(name: &str) -> Result<Firmware, String> {
    Firmware::parse(name).ok_or_else(|| known(&Firmware::ALL.map(Firmware::name)))
}

fn bus(name: &str) -> Result<DiskBus, String> {
    DiskBus::parse(name).ok_or_else(|| known(&DiskBus::ALL.map(DiskBus::name)))
}

fn network(name: &str) -> Result<Network, String> {
    Network::parse(name).ok_or_else(|| known(&Network::ALL.map(Network::name)))
}

fn tpm(name: &str) -> Result<Tpm, String> {
    Tpm::parse(name).ok_or_else(|| known(&Tpm::ALL.map(Tpm::name)))
}

fn acceleration(name: &str) -> Result<Acceleration, String> {
    Acceleration::parse(name).ok_or_else(|| known(&Acceleration::ALL.map(Acceleration::name)))
}

fn disk_format(name: &str) -> Result<DiskFormat, String> {
    DiskFormat::parse(name).ok_or_else(|| known(&DiskFormat::ALL.map(DiskFormat::name)))
}

fn known(names: &[&str]) -> String {
    format!("expected one of: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn names_tell_the_architecture() {
        let found = |name: &str| architecture_in(Path::new(name));
        assert_eq!(
            found("out/fedora-bootc-43.20260101.aarch64.qcow2"),
            Some(Architecture::Aarch64)
        );
        assert_eq!(found("fedora-bootc-43.x86_64.raw"), Some(Architecture::X86_64));
        assert_eq!(found("aarch64/disk.raw"), None);
    }

    #[test]
    fn isos_are_known_by_their_volume() {
        let mut bytes = vec![0; 17 * 2048];
        bytes[16 * 2048..16 * 2048 + 6].copy_from_slice(b"\x01CD001");
        assert!(is_iso(Cursor::new(&bytes)).unwrap());
        assert!(!is_iso(Cursor::new(&bytes[1..])).unwrap_or(false));
        assert!(is_iso(Cursor::new(b"short")).is_err());
    }

    #[test]
    fn the_table_has_names_values_and_reasons() {
        let text = table(&Matrix::built_in(), false);
        let bare = text.lines().find(|line| line.starts_with("bare-metal ")).unwrap();
        let words: Vec<&str> = bare.split_whitespace().collect();
        let expected = "bare-metal x86_64 uefi-secure nvme 512 e1000e swtpm 2048 2 yes (quick)";
        assert_eq!(words.join(" "), expected);
        let (_, left_out) = text.split_once("\nleft out of --full:\n").unwrap();
        assert!(left_out.contains("  aarch64 with firmware bios: "), "{text}");
        assert!(table(&Matrix::built_in(), true).lines().count() > text.lines().count() + 15);
    }
}
