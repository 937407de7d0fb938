//! A machine as a value, and the QEMU command line it amounts to.

use std::ffi::OsString;
use std::path::Path;

use crate::accelerator::Accelerator;
use crate::architecture::Architecture;
use crate::credentials::{Credentials, PORT};
use crate::device::{DiskBus, Network, Tpm};
use crate::disk::Drive;
use crate::error::BootError;
use crate::firmware::{Firmware, Flash};
use crate::session::Attached;
use crate::{program, sandbox};

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
    /// The network card. It leads nowhere.
    pub network: Network,
    /// The TPM.
    pub tpm: Tpm,
    /// Whether there is a serial port for the console.
    pub serial: bool,
}

/// The way a guest's report takes. Only devices that the machine is allowed to have come into question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// A port of virtio-serial.
    Virtio,
    /// The PC's second serial port.
    SecondUart,
    /// A serial port on a PCI card, where boards have one port only.
    PciUart,
    /// A serial adapter at USB, where a machine is to have no serial port.
    UsbSerial,
}

impl Channel {
    /// What the guest calls it.
    pub(crate) const fn device(self) -> &'static str {
        match self {
            Self::Virtio => "/dev/virtio-ports/boot-report",
            Self::SecondUart => "/dev/ttyS1",
            // Arm's own port is ttyAMA0.
            Self::PciUart => "/dev/ttyS0",
            Self::UsbSerial => "/dev/ttyUSB0",
        }
    }
}

/// What connects a machine to this process: files and sockets, all of them made before QEMU starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wiring<'a> {
    /// What it boots from.
    pub(crate) drive: &'a Drive,
    /// Whether QEMU's system calls are filtered.
    pub(crate) sandbox: bool,
    /// UEFI's code and variables; SeaBIOS is built into QEMU's own search path.
    pub(crate) flash: Option<&'a Flash>,
    /// Unix socket on which the serial console arrives.
    pub(crate) console: &'a Path,
    /// Unix socket on which the guest's report arrives.
    pub(crate) report: &'a Path,
    /// Unix socket on which QMP is spoken.
    pub(crate) qmp: &'a Path,
    /// What the guest is given to do.
    pub(crate) credentials: &'a Credentials,
    /// What executes the guest's instructions.
    pub(crate) accelerator: &'a Accelerator,
    /// Unix socket on which the TPM listens, if the machine has one.
    pub(crate) tpm: Option<&'a Path>,
    /// Whether what the guest has flushed must outlive QEMU's sudden end.
    pub(crate) durable: bool,
    /// Whether there is a network card, behind which is this machine's loopback.
    pub(crate) network: bool,
    /// Further disks.
    pub(crate) disks: &'a [Attached<'a>],
}

impl Machine {
    /// An unremarkable machine: UEFI, virtio, 2 GiB, two processors, sectors of 512 bytes, a serial console, no network, no TPM.
    pub fn new(architecture: Architecture) -> Self {
        Self {
            architecture,
            firmware: Firmware::Uefi,
            bus: DiskBus::Virtio,
            memory_mib: 2048,
            cpus: 2,
            sector_size: 512,
            network: Network::None,
            tpm: Tpm::None,
            serial: true,
        }
    }

    /// Refuses combinations that cannot exist, so that they are not mistaken for a disk that does not boot.
    ///
    /// # Errors
    /// [`BootError::Unsupported`].
    pub fn check(&self) -> Result<(), BootError> {
        self.impossible().map_or(Ok(()), |why| Err(BootError::Unsupported(why)))
    }

    /// Why there can be no such machine, if so.
    pub fn impossible(&self) -> Option<String> {
        let arm = self.architecture == Architecture::Aarch64;
        let bios = self.firmware == Firmware::Bios;
        let large = self.sector_size == 4096;
        let rules = [
            (bios && arm, "aarch64 machines have no BIOS; use UEFI firmware"),
            (bios && large, "a BIOS boots only from disks with sectors of 512 bytes"),
            (
                large && self.bus == DiskBus::Ahci,
                "QEMU's AHCI disks have sectors of 512 bytes; use nvme or virtio for 4096",
            ),
            (large && self.bus == DiskBus::Usb, "QEMU's USB sticks have sectors of 512 bytes"),
            (large && self.bus == DiskBus::Cdrom, "CDs have sectors of 2048 bytes, ever"),
            (
                arm && !self.serial,
                "QEMU's aarch64 board has a serial port that cannot be taken out",
            ),
            (self.memory_mib == 0 || self.cpus == 0, "a machine needs memory and a processor"),
        ];
        if ![512, 4096].contains(&self.sector_size) {
            return Some(format!("sectors of {} bytes: only 512 and 4096 exist", self.sector_size));
        }
        rules.into_iter().find(|(broken, _)| *broken).map(|(_, why)| why.to_owned())
    }

    /// Whether nothing in it is made for virtual machines only: then nothing that serves the test may be, either, since a guest that
    /// lacks a driver for hardware must not be helped by one for virtio.
    pub fn is_bare(&self) -> bool {
        self.network == Network::E1000e && !self.bus.is_virtio()
    }

    /// The way the guest's report takes.
    pub(crate) fn channel(&self) -> Channel {
        match (self.is_bare(), self.serial, self.architecture) {
            (false, ..) => Channel::Virtio,
            (true, true, Architecture::X86_64) => Channel::SecondUart,
            (true, true, Architecture::Aarch64) => Channel::PciUart,
            (true, false, _) => Channel::UsbSerial,
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

    /// What people call it, the same on every host: `OVMF, virtio`.
    pub fn essentials(&self) -> String {
        format!("{}, {}", self.firmware.product(self.architecture), self.bus.name())
    }

    /// The program that is this machine.
    pub fn program(&self) -> &'static str {
        match self.architecture {
            Architecture::X86_64 => "qemu-system-x86_64",
            Architecture::Aarch64 => "qemu-system-aarch64",
        }
    }

    /// The command line after the program's name. Paused at the start (`-S`), so that no event precedes the listener.
    pub(crate) fn arguments(&self, wiring: &Wiring<'_>) -> Vec<OsString> {
        let mut line = Line::default();
        line.add("-no-user-config -nodefaults -display none -S -nic none");
        // What a guest's panic means is decided here: its last words may still be on their way.
        line.add("-action panic=none");
        if wiring.sandbox {
            line.add("-sandbox").add(sandbox::FILTER);
        }
        if self.tpm == Tpm::None {
            line.add("-no-reboot");
        }
        self.add_board(&mut line, wiring.accelerator, wiring.flash);
        self.add_disk(&mut line, wiring);
        self.add_further_disks(&mut line, wiring);
        let card = match self.network {
            Network::None if wiring.network => Network::Virtio,
            network => network,
        };
        if let Some(device) = card.device() {
            // Nothing is reached through it unless that is wanted, so that a test depends on nothing but the disk.
            let restrict = if wiring.network { "" } else { ",restrict=on" };
            line.add(&format!("-netdev user,id=net{restrict} -device {device}"));
        }
        self.add_devices(&mut line, wiring.tpm);
        self.add_sockets(&mut line, wiring);
        // Last, so that all other devices have the places that they have without it. It gives a guest nothing to boot with.
        line.add("-device pvpanic-pci");
        line.credentials(wiring.credentials);
        line.done()
    }

    /// Board, processors, memory and firmware.
    pub(crate) fn add_board(
        &self,
        line: &mut Line,
        accelerator: &Accelerator,
        flash: Option<&Flash>,
    ) {
        line.add("-machine").add(self.board(accelerator));
        line.add("-accel").add(accelerator.qemu(self.architecture));
        line.add("-cpu").add(accelerator.cpu(self.architecture));
        line.add("-smp").add(&self.cpus_under(accelerator).to_string());
        line.add("-m").add(&format!("{}M", self.memory_mib));
        if let Some(flash) = flash {
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
    }

    fn add_disk(&self, line: &mut Line, wiring: &Wiring<'_>) {
        line.nodes(wiring.drive);
        let usb = |attached: &Attached<'_>| attached.bus.needs_usb(self.architecture);
        if self.bus.needs_usb(self.architecture)
            || self.channel() == Channel::UsbSerial
            || wiring.disks.iter().any(usb)
        {
            line.add("-device qemu-xhci,id=usb");
        }
        self.add_disk_devices(line, true);
    }

    fn add_further_disks(&self, line: &mut Line, wiring: &Wiring<'_>) {
        let cache = if wiring.durable { "writeback" } else { "unsafe" };
        for (number, disk) in (1..).zip(wiring.disks) {
            let devices = disk.bus.further_devices(self.architecture, number, disk.serial);
            let Some(devices) = devices else { continue };
            let drive = format!(
                "if=none,id=disk{number},format=raw,cache={cache},discard=unmap,detect-zeroes=unmap,file.driver=file,file.filename="
            );
            line.file("-drive", &drive, disk.file);
            for device in devices {
                line.add("-device").add(&device);
            }
        }
    }

    /// What attaches the node `disk`; see [`DiskBus::devices`] for `strict`.
    pub(crate) fn add_disk_devices(&self, line: &mut Line, strict: bool) {
        for device in self.bus.devices(self.architecture, self.sector_size, strict) {
            line.add("-device").add(&device);
        }
    }

    /// Screen, TPM and entropy.
    pub(crate) fn add_devices(&self, line: &mut Line, tpm: Option<&Path>) {
        line.add("-device").add(self.screen_device());
        if let Some(socket) = tpm {
            line.file("-chardev", "socket,id=tpm,path=", socket)
                .add("-tpmdev emulator,id=tpm,chardev=tpm -device");
            line.add(match self.architecture {
                Architecture::X86_64 => "tpm-crb,tpmdev=tpm",
                Architecture::Aarch64 => "tpm-tis-device,tpmdev=tpm",
            });
        }
        if !self.is_bare() {
            line.add("-object rng-random,id=entropy,filename=/dev/urandom -device virtio-rng-pci,rng=entropy");
        }
    }

    /// The three ways to this process. All three sockets are there in every machine, whether something speaks on them or not.
    fn add_sockets(&self, line: &mut Line, wiring: &Wiring<'_>) {
        line.file("-chardev", "socket,id=console,path=", wiring.console);
        if self.serial {
            line.add("-serial chardev:console");
        }
        line.file("-chardev", "socket,id=qmp,path=", wiring.qmp)
            .add("-mon chardev=qmp,mode=control");
        line.file("-chardev", "socket,id=report,path=", wiring.report);
        match self.channel() {
            Channel::Virtio => line
                .add("-device virtio-serial-pci -device")
                .add(&format!("virtserialport,chardev=report,name={PORT}")),
            Channel::SecondUart => line.add("-serial chardev:report"),
            Channel::PciUart => line.add("-device pci-serial,chardev=report"),
            Channel::UsbSerial => line.add("-device usb-serial,bus=usb.0,chardev=report"),
        };
    }

    /// The value of `-machine`.
    pub(crate) fn board(&self, accelerator: &Accelerator) -> &'static str {
        match (self.architecture, self.firmware, accelerator) {
            (Architecture::X86_64, Firmware::Uefi, _) => "q35",
            (Architecture::X86_64, Firmware::UefiSecureBoot, _) => "q35,smm=on",
            // Without graphics SeaBIOS shows its text screen on the serial port.
            (Architecture::X86_64, Firmware::Bios, _) if self.serial => "q35,graphics=off",
            (Architecture::X86_64, Firmware::Bios, _) => "q35",
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
}

/// A command line under construction.
#[derive(Default)]
pub(crate) struct Line(Vec<OsString>);

impl Line {
    /// Adds arguments that contain no spaces themselves.
    pub(crate) fn add(&mut self, arguments: &str) -> &mut Self {
        self.0.extend(arguments.split(' ').map(OsString::from));
        self
    }

    /// Adds an option whose value ends in a file's path.
    pub(crate) fn file(&mut self, option: &str, value: &str, path: &Path) -> &mut Self {
        let mut value = OsString::from(value);
        value.push(program::escaped(path));
        self.0.extend([option.into(), value]);
        self
    }

    /// Adds the nodes of a drive.
    pub(crate) fn nodes(&mut self, drive: &Drive) -> &mut Self {
        for node in &drive.nodes {
            self.0.extend(["-blockdev".into(), node.into()]);
        }
        self
    }

    /// Adds what the guest is given to do.
    pub(crate) fn credentials(&mut self, credentials: &Credentials) {
        for (option, value) in credentials.options() {
            self.0.extend([option.into(), value.into()]);
        }
    }

    /// The finished line.
    pub(crate) fn done(self) -> Vec<OsString> {
        self.0
    }
}

#[cfg(test)]
mod tests;
