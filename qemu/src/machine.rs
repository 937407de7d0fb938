//! A machine as a value, and the QEMU command line it amounts to.

use std::ffi::OsString;
use std::path::Path;

use serde::Serialize;

use crate::accelerator::Accelerator;
use crate::credentials::PORT;
use crate::firmware::{Firmware, Flash};
use crate::{BootError, program};

/// An architecture that can be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Architecture {
    /// PC, chip set Q35.
    #[serde(rename = "x86_64")]
    X86_64,
    /// Arm, QEMU's `virt` board.
    #[serde(rename = "aarch64")]
    Aarch64,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The name that `uname -m` and QEMU's program names use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Reads [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.name() == name)
    }

    /// This machine's, if it is one of them.
    pub fn host() -> Option<Self> {
        Self::parse(std::env::consts::ARCH)
    }
}

/// How the disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskBus {
    /// virtio-blk, as in clouds.
    Virtio,
    /// NVMe, as in recent hardware.
    Nvme,
    /// SATA behind AHCI, as in older hardware.
    Ahci,
}

impl DiskBus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Virtio, Self::Nvme, Self::Ahci];

    /// The name on command lines and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Nvme => "nvme",
            Self::Ahci => "ahci",
        }
    }

    /// Reads [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bus| bus.name() == name)
    }
}

/// A machine to boot a disk in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The processor's kind.
    pub architecture: Architecture,
    /// What runs first.
    pub firmware: Firmware,
    /// How the disk is attached.
    pub bus: DiskBus,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors wanted; [`cpus_under`](Self::cpus_under) may allow fewer.
    pub cpus: u32,
    /// The disk's logical sector size in bytes, 512 or 4096.
    pub sector_size: u32,
}

/// What connects a machine to this process: files and sockets, all of them made before QEMU starts.
#[derive(Clone, Copy, Debug)]
pub struct Wiring<'a> {
    /// The overlay that takes the guest's writes, qcow2.
    pub disk: &'a Path,
    /// UEFI's code and variables; SeaBIOS is built into QEMU's own search path.
    pub flash: Option<&'a Flash>,
    /// Unix socket on which the serial console arrives.
    pub console: &'a Path,
    /// Unix socket on which the guest's report arrives.
    pub report: &'a Path,
    /// Unix socket on which QMP is spoken.
    pub qmp: &'a Path,
    /// SMBIOS type 11 strings.
    pub smbios: &'a [String],
    /// What executes the guest's instructions.
    pub accelerator: &'a Accelerator,
}

impl Machine {
    /// An unremarkable machine: UEFI, virtio, 2 GiB, two processors, sectors of 512 bytes.
    pub fn new(architecture: Architecture) -> Self {
        Self {
            architecture,
            firmware: Firmware::Uefi,
            bus: DiskBus::Virtio,
            memory_mib: 2048,
            cpus: 2,
            sector_size: 512,
        }
    }

    /// Refuses combinations that cannot exist, so that they are not mistaken for a disk that does not boot.
    ///
    /// # Errors
    /// [`BootError::Unsupported`].
    pub fn check(&self) -> Result<(), BootError> {
        let refuse = |why: &str| Err(BootError::Unsupported(why.to_owned()));
        match self {
            Self { firmware: Firmware::Bios, architecture: Architecture::Aarch64, .. } => {
                refuse("aarch64 machines have no BIOS; use UEFI firmware")
            }
            Self { firmware: Firmware::Bios, sector_size: 4096, .. } => {
                refuse("a BIOS boots only from disks with sectors of 512 bytes")
            }
            Self { bus: DiskBus::Ahci, sector_size: 4096, .. } => {
                refuse("QEMU's AHCI disks have sectors of 512 bytes; use nvme or virtio for 4096")
            }
            Self { sector_size, .. } if ![512, 4096].contains(sector_size) => {
                refuse(&format!("sectors of {sector_size} bytes: only 512 and 4096 exist"))
            }
            Self { memory_mib: 0, .. } | Self { cpus: 0, .. } => {
                refuse("a machine needs memory and a processor")
            }
            _ => Ok(()),
        }
    }

    /// How many processors the machine gets. One for x86 under TCG, whatever was wanted: with several, QEMU 7.2's threads
    /// race the guest kernel when it patches its own text, and about one boot in fifteen dies of it.
    pub fn cpus_under(&self, accelerator: &Accelerator) -> u32 {
        match (self.architecture, accelerator) {
            (Architecture::X86_64, Accelerator::Tcg { .. }) => 1,
            _ => self.cpus,
        }
    }

    /// The program that is this machine.
    pub fn program(&self) -> &'static str {
        match self.architecture {
            Architecture::X86_64 => "qemu-system-x86_64",
            Architecture::Aarch64 => "qemu-system-aarch64",
        }
    }

    /// The command line after the program's name. Paused at the start (`-S`), so that no event precedes the listener.
    pub fn arguments(&self, wiring: &Wiring<'_>) -> Vec<OsString> {
        let mut line = Line::default();
        line.add("-no-user-config -nodefaults -display none -no-reboot -S -nic none");
        line.add("-machine").add(self.board(wiring.accelerator));
        line.add("-accel").add(wiring.accelerator.qemu(self.architecture));
        line.add("-cpu").add(wiring.accelerator.cpu(self.architecture));
        line.add("-smp").add(&self.cpus_under(wiring.accelerator).to_string());
        line.add("-m").add(&format!("{}M", self.memory_mib));
        if let Some(flash) = wiring.flash {
            if (self.firmware, self.architecture)
                == (Firmware::UefiSecureBoot, Architecture::X86_64)
            {
                // Only code in system management mode may write the variables: without this the guest could enrol its own keys.
                line.add("-global driver=cfi.pflash01,property=secure,value=on");
            }
            let format = flash.format();
            line.file(
                "-drive",
                &format!("if=pflash,unit=0,format={format},readonly=on,file="),
                &flash.code,
            );
            line.file(
                "-drive",
                &format!("if=pflash,unit=1,format={format},file="),
                &flash.variables,
            );
        }
        // A test's overlay is thrown away: waiting for the host's disk at each flush would buy nothing.
        line.file(
            "-drive",
            "if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap,file=",
            wiring.disk,
        );
        for device in self.disk_devices() {
            line.add("-device").add(&device);
        }
        line.add("-device").add(self.screen_device());
        line.add("-object rng-random,id=entropy,filename=/dev/urandom -device virtio-rng-pci,rng=entropy");
        line.file("-chardev", "socket,id=console,path=", wiring.console)
            .add("-serial chardev:console");
        line.file("-chardev", "socket,id=qmp,path=", wiring.qmp)
            .add("-mon chardev=qmp,mode=control");
        line.add("-device virtio-serial-pci").file(
            "-chardev",
            "socket,id=report,path=",
            wiring.report,
        );
        line.add("-device").add(&format!("virtserialport,chardev=report,name={PORT}"));
        for string in wiring.smbios {
            line.0.push("-smbios".into());
            line.0.push(format!("type=11,value={}", string.replace(',', ",,")).into());
        }
        line.0
    }

    fn board(&self, accelerator: &Accelerator) -> &'static str {
        match (self.architecture, self.firmware, accelerator) {
            (Architecture::X86_64, Firmware::Uefi, _) => "q35",
            (Architecture::X86_64, Firmware::UefiSecureBoot, _) => "q35,smm=on",
            // Without graphics SeaBIOS shows its text screen on the serial port.
            (Architecture::X86_64, Firmware::Bios, _) => "q35,graphics=off",
            (Architecture::Aarch64, _, Accelerator::Kvm) => "virt,gic-version=host",
            (Architecture::Aarch64, _, Accelerator::Tcg { .. }) => "virt",
        }
    }

    /// A screen to take pictures of. Both are plain memory that firmware and kernels draw into without drivers of their own.
    const fn screen_device(&self) -> &'static str {
        match self.architecture {
            Architecture::X86_64 => "VGA",
            Architecture::Aarch64 => "ramfb",
        }
    }

    fn disk_devices(&self) -> Vec<String> {
        let sectors = match self.sector_size {
            512 => String::new(),
            size => format!(",logical_block_size={size},physical_block_size={size}"),
        };
        match (self.bus, self.architecture) {
            (DiskBus::Virtio, _) => vec![format!("virtio-blk-pci,drive=disk,bootindex=0{sectors}")],
            (DiskBus::Nvme, _) => vec![format!("nvme,drive=disk,serial=disk,bootindex=0{sectors}")],
            (DiskBus::Ahci, Architecture::X86_64) => {
                vec!["ide-hd,drive=disk,bus=ide.0,bootindex=0".to_owned()]
            }
            (DiskBus::Ahci, Architecture::Aarch64) => {
                vec![
                    "ich9-ahci,id=ahci".to_owned(),
                    "ide-hd,drive=disk,bus=ahci.0,bootindex=0".to_owned(),
                ]
            }
        }
    }
}

/// A command line under construction.
#[derive(Default)]
struct Line(Vec<OsString>);

impl Line {
    /// Adds arguments that contain no spaces themselves.
    fn add(&mut self, arguments: &str) -> &mut Self {
        self.0.extend(arguments.split(' ').map(OsString::from));
        self
    }

    /// Adds an option whose value ends in a file's path.
    fn file(&mut self, option: &str, value: &str, path: &Path) -> &mut Self {
        let mut value = OsString::from(value);
        value.push(program::escaped(path));
        self.0.extend([option.into(), value]);
        self
    }
}

#[cfg(test)]
mod tests;
