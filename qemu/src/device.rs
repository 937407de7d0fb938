//! What a machine is put together from, besides processor and firmware: how the disk, the network and a TPM are attached.

use serde::{Deserialize, Serialize};

use crate::architecture::Architecture;

/// How the disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskBus {
    /// virtio-blk, as in clouds.
    Virtio,
    /// A SCSI disk behind virtio-scsi, as in other clouds.
    VirtioScsi,
    /// NVMe, as in recent hardware.
    Nvme,
    /// SATA behind AHCI, as in older hardware.
    Ahci,
    /// A USB stick.
    Usb,
    /// A CD-ROM drive: for ISO media.
    Cdrom,
}

impl DiskBus {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Virtio, Self::VirtioScsi, Self::Nvme, Self::Ahci, Self::Usb, Self::Cdrom];

    /// The name on command lines and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::VirtioScsi => "virtio-scsi",
            Self::Nvme => "nvme",
            Self::Ahci => "ahci",
            Self::Usb => "usb",
            Self::Cdrom => "cdrom",
        }
    }

    /// Reads [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bus| bus.name() == name)
    }

    /// Whether only a driver for virtual machines finds the disk.
    pub const fn is_virtio(self) -> bool {
        matches!(self, Self::Virtio | Self::VirtioScsi)
    }

    /// The devices that attach the drive `disk`, in the order of the command line. `sector_size` is in bytes; buses whose disks have
    /// one size only leave it out, and [`Machine::check`](crate::Machine::check) has refused others.
    ///
    /// With `strict` the machine stops when a disk's file cannot be read or written, instead of telling the guest: that is for us to
    /// know. NVMe drives cannot; their statistics tell.
    pub(crate) fn devices(
        self,
        architecture: Architecture,
        sector_size: u32,
        strict: bool,
    ) -> Vec<String> {
        let errors = if strict { ",rerror=stop,werror=stop" } else { "" };
        let sectors = match sector_size {
            512 => String::new(),
            size => format!(",logical_block_size={size},physical_block_size={size}"),
        };
        match (self, architecture) {
            (Self::Virtio, _) => {
                vec![format!("virtio-blk-pci,drive=disk,bootindex=0{sectors}{errors}")]
            }
            (Self::VirtioScsi, _) => vec![
                "virtio-scsi-pci,id=scsi".to_owned(),
                format!("scsi-hd,bus=scsi.0,drive=disk,bootindex=0{sectors}{errors}"),
            ],
            (Self::Nvme, _) => vec![format!("nvme,drive=disk,serial=disk,bootindex=0{sectors}")],
            (Self::Ahci, Architecture::X86_64) => {
                vec![format!("ide-hd,drive=disk,bus=ide.0,bootindex=0{errors}")]
            }
            (Self::Ahci, Architecture::Aarch64) => vec![
                "ich9-ahci,id=ahci".to_owned(),
                format!("ide-hd,drive=disk,bus=ahci.0,bootindex=0{errors}"),
            ],
            (Self::Usb, _) => {
                vec![format!("usb-storage,bus=usb.0,drive=disk,removable=on,bootindex=0{errors}")]
            }
            (Self::Cdrom, Architecture::X86_64) => {
                vec![format!("ide-cd,drive=disk,bus=ide.0,bootindex=0{errors}")]
            }
            // Arm machines have no IDE; their drives are outside.
            (Self::Cdrom, Architecture::Aarch64) => vec![
                "usb-bot,bus=usb.0,id=drive".to_owned(),
                format!("scsi-cd,bus=drive.0,drive=disk,bootindex=0{errors}"),
            ],
        }
    }

    /// The devices that attach a further drive, `disk1` and so on; `None` for drives that take no disks.
    pub(crate) fn further_devices(
        self,
        architecture: Architecture,
        number: usize,
        serial: &str,
    ) -> Option<Vec<String>> {
        let drive = format!("drive=disk{number},serial={serial}");
        Some(match (self, architecture) {
            (Self::Virtio, _) => vec![format!("virtio-blk-pci,{drive}")],
            (Self::VirtioScsi, _) => vec![
                format!("virtio-scsi-pci,id=scsi{number}"),
                format!("scsi-hd,bus=scsi{number}.0,{drive}"),
            ],
            (Self::Nvme, _) => vec![format!("nvme,{drive}")],
            // The first port is for what is booted.
            (Self::Ahci, Architecture::X86_64) => vec![format!("ide-hd,bus=ide.{number},{drive}")],
            (Self::Ahci, Architecture::Aarch64) => vec![
                format!("ich9-ahci,id=ahci{number}"),
                format!("ide-hd,bus=ahci{number}.0,{drive}"),
            ],
            (Self::Usb, _) => vec![format!("usb-storage,bus=usb.0,removable=on,{drive}")],
            (Self::Cdrom, _) => return None,
        })
    }

    /// Whether [`devices`](Self::devices) need the USB controller `usb`.
    pub(crate) const fn needs_usb(self, architecture: Architecture) -> bool {
        matches!((self, architecture), (Self::Usb, _) | (Self::Cdrom, Architecture::Aarch64))
    }
}

/// The network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// None.
    None,
    /// virtio-net, as in clouds.
    Virtio,
    /// Intel's 82574, as in hardware.
    E1000e,
}

impl Network {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Virtio, Self::E1000e];

    /// The name on command lines and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Virtio => "virtio",
            Self::E1000e => "e1000e",
        }
    }

    /// Reads [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|network| network.name() == name)
    }

    /// QEMU's device, without a ROM to boot from the network: the disk is what is under test.
    pub(crate) const fn device(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Virtio => Some("virtio-net-pci,netdev=net,romfile="),
            Self::E1000e => Some("e1000e,netdev=net,romfile="),
        }
    }
}

/// The trusted platform module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tpm {
    /// None.
    None,
    /// A TPM 2.0, emulated by swtpm.
    Swtpm,
}

impl Tpm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::None, Self::Swtpm];

    /// The name on command lines and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Swtpm => "swtpm",
        }
    }

    /// Reads [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tpm| tpm.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_are_those_of_the_matrix() {
        for bus in DiskBus::ALL {
            assert_eq!(DiskBus::parse(bus.name()), Some(bus));
            assert_eq!(serde_json::to_value(bus).unwrap(), bus.name());
        }
        for network in Network::ALL {
            assert_eq!(Network::parse(network.name()), Some(network));
            assert_eq!(serde_json::to_value(network).unwrap(), network.name());
        }
        for tpm in Tpm::ALL {
            assert_eq!(Tpm::parse(tpm.name()), Some(tpm));
            assert_eq!(serde_json::to_value(tpm).unwrap(), tpm.name());
        }
    }
}
