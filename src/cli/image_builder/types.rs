//! What image-builder calls a type, as far as it is built from a bootc image.

use anyhow::{Result, bail};
use bootpress::error::unsupported;
use bootpress::iso::MediumKind;
use bootpress::output::Format;

use crate::cli::flags::iso::Wanted;

/// One of that tool's types that bootpress builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImageType {
    Ami,
    BootcGenericIso,
    BootcInstaller,
    Gce,
    Ova,
    Qcow2,
    Raw,
    Vhd,
    Vmdk,
}

impl ImageType {
    /// All of them, sorted by name.
    pub(super) const ALL: [Self; 9] = [
        Self::Ami,
        Self::BootcGenericIso,
        Self::BootcInstaller,
        Self::Gce,
        Self::Ova,
        Self::Qcow2,
        Self::Raw,
        Self::Vhd,
        Self::Vmdk,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ami => "ami",
            Self::BootcGenericIso => "bootc-generic-iso",
            Self::BootcInstaller => "bootc-installer",
            Self::Gce => "gce",
            Self::Ova => "ova",
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vhd => "vhd",
            Self::Vmdk => "vmdk",
        }
    }

    /// What file names end in, as in that tool.
    pub(super) const fn extension(self) -> &'static str {
        match self {
            Self::Ami | Self::Raw => "raw",
            Self::BootcGenericIso | Self::BootcInstaller => "iso",
            Self::Gce => "tar.gz",
            Self::Ova => "ova",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vhd",
            Self::Vmdk => "vmdk",
        }
    }

    /// What `bootpress build --format` calls it.
    pub(super) fn wanted(self) -> Wanted {
        let format = match self {
            Self::BootcGenericIso => return Wanted::Medium(MediumKind::Iso),
            Self::BootcInstaller => return Wanted::Medium(MediumKind::Anaconda),
            Self::Ami => Format::Ami,
            Self::Gce => Format::Gce,
            Self::Ova => Format::Ova,
            Self::Qcow2 => Format::Qcow2,
            Self::Raw => Format::Raw,
            Self::Vhd => Format::Vhd,
            Self::Vmdk => Format::Vmdk,
        };
        Wanted::Disk(format.into())
    }

    pub(super) const fn about(self) -> &'static str {
        match self {
            Self::Ami => "disk for Amazon EC2",
            Self::BootcGenericIso => "ISO that runs the image live and installs it",
            Self::BootcInstaller => "ISO on which the image's Anaconda installs a bootc image",
            Self::Gce => "disk for Google Compute Engine",
            Self::Ova => "appliance for VMware and VirtualBox",
            Self::Qcow2 => "disk for QEMU, libvirt and OpenStack",
            Self::Raw => "bytes of a disk",
            Self::Vhd => "disk for Azure",
            Self::Vmdk => "disk for VMware",
        }
    }
}

/// The type of this name.
///
/// `Unsupported` for types that bootpress cannot build, with a hint where there is something close to it.
pub(super) fn parse(name: &str) -> Result<ImageType> {
    if let Some(known) = ImageType::ALL.into_iter().find(|known| known.name() == name) {
        return Ok(known);
    }
    let hint = match name {
        "anaconda-iso" => {
            "use bootc-installer, as image-builder says too, or call the program as bootc-image-builder"
        }
        "pxe-tar-xz" => "`bootpress build --format pxe` makes the directory to serve",
        _ => {
            let known = ImageType::ALL.map(ImageType::name).join(", ");
            bail!("unsupported image type {name:?}: expected one of: {known}");
        }
    };
    Err(unsupported(format!("the image type {name} is not supported with --bootc-ref"), Some(hint)))
}
