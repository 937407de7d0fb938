//! What bootc-image-builder calls a type: which disk it is, and where the file is left. The paths are relied on by others.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use bootpress::error::unsupported;
use bootpress::iso::MediumKind;
use bootpress::output::Format;

use crate::cli::flags::iso::Wanted;

/// One of that tool's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImageType {
    Ami,
    AnacondaIso,
    BootcInstaller,
    Gce,
    Iso,
    Ova,
    PxeTarXz,
    Qcow2,
    Raw,
    Vhd,
    Vmdk,
}

/// A file to leave, for one type or for two that are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Export {
    pub(super) types: Vec<ImageType>,
    pub(super) format: Wanted,
    pub(super) path: PathBuf,
}

/// Where media are left.
const ISO: &str = "bootiso/install.iso";

impl ImageType {
    /// All of them, sorted by name.
    const ALL: [Self; 11] = [
        Self::Ami,
        Self::AnacondaIso,
        Self::BootcInstaller,
        Self::Gce,
        Self::Iso,
        Self::Ova,
        Self::PxeTarXz,
        Self::Qcow2,
        Self::Raw,
        Self::Vhd,
        Self::Vmdk,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ami => "ami",
            Self::AnacondaIso => "anaconda-iso",
            Self::BootcInstaller => "bootc-installer",
            Self::Gce => "gce",
            Self::Iso => "iso",
            Self::Ova => "ova",
            Self::PxeTarXz => "pxe-tar-xz",
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vhd => "vhd",
            Self::Vmdk => "vmdk",
        }
    }

    /// The file, and where it is left; `None`: bootpress makes none.
    fn file(self) -> Option<(Wanted, &'static str)> {
        let (format, path) = match self {
            Self::Ami => (Format::Ami, "image/disk.raw"),
            Self::Raw => (Format::Raw, "image/disk.raw"),
            Self::Gce => (Format::Gce, "gce/image.tar.gz"),
            Self::Ova => (Format::Ova, "archive/image.ova"),
            Self::Qcow2 => (Format::Qcow2, "qcow2/disk.qcow2"),
            Self::Vhd => (Format::Vhd, "vpc/disk.vhd"),
            Self::Vmdk => (Format::Vmdk, "vmdk/disk.vmdk"),
            Self::Iso => return Some((Wanted::Medium(MediumKind::Iso), ISO)),
            Self::AnacondaIso | Self::BootcInstaller => {
                return Some((Wanted::Medium(MediumKind::Anaconda), ISO));
            }
            Self::PxeTarXz => return None,
        };
        Some((Wanted::Disk(format.into()), path))
    }

    pub(super) const fn is_iso(self) -> bool {
        matches!(self, Self::AnacondaIso | Self::BootcInstaller | Self::Iso)
    }
}

/// The types that are asked for; unknown ones, mixtures and what is not a disk are refused.
pub(super) fn parse(names: &[String]) -> Result<Vec<ImageType>> {
    let mut types = Vec::new();
    for name in names {
        match ImageType::ALL.into_iter().find(|known| known.name() == name) {
            Some(known) => types.push(known),
            None => {
                let valid = ImageType::ALL.map(ImageType::name).join(", ");
                bail!("unsupported image type {name:?}, valid types are {valid}");
            }
        }
    }
    let isos = types.iter().filter(|kind| kind.is_iso()).count();
    if isos > 0 && isos < types.len() {
        bail!("cannot mix ISO/disk images in request [{}]", names.join(" "));
    }
    if let Some(other) = types.iter().find(|kind| kind.file().is_none()) {
        return Err(unsupported(
            format!("{} cannot be made: bootpress packs none", other.name()),
            Some(
                "`bootpress build --format pxe` makes the directory to serve; all other types are made here",
            ),
        ));
    }
    if isos > 1 {
        bail!("a request for media names one type: {}", names.join(" "));
    }
    Ok(types)
}

/// The files to leave below a directory, each once.
pub(super) fn exports(types: &[ImageType], output: &Path) -> Vec<Export> {
    let mut exports: Vec<Export> = Vec::new();
    for &kind in types {
        let Some((format, path)) = kind.file() else { continue };
        // That tool names the appliance after the first type's file.
        let first = types.first().and_then(|first| first.file());
        let after_disk = first.is_some_and(|(_, first)| first.contains("/disk."));
        let path = match kind {
            ImageType::Ova if after_disk => output.join("archive/disk.ova"),
            _ => output.join(path),
        };
        match exports.iter_mut().find(|export| export.path == path) {
            Some(export) => {
                if !export.types.contains(&kind) {
                    export.types.push(kind);
                }
                // The same bytes; only for an AMI there is more to say.
                if kind == ImageType::Ami {
                    export.format = format;
                }
            }
            None => exports.push(Export { types: vec![kind], format, path }),
        }
    }
    exports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<String> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let exports = exports(&parse(&names).unwrap(), Path::new("out"));
        let line = |export: &Export| format!("{} {}", export.format, export.path.display());
        exports.iter().map(line).collect()
    }

    fn refusal(names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        parse(&names).unwrap_err().to_string()
    }

    #[test]
    fn files_are_left_where_that_tool_leaves_them() {
        assert_eq!(
            paths(&["qcow2", "vmdk", "vhd", "gce"]),
            [
                "qcow2 out/qcow2/disk.qcow2",
                "vmdk out/vmdk/disk.vmdk",
                "vhd out/vpc/disk.vhd",
                "gce out/gce/image.tar.gz"
            ]
        );
        assert_eq!(paths(&["ova"]), ["ova out/archive/image.ova"]);
        assert_eq!(paths(&["gce", "ova"])[1], "ova out/archive/image.ova");
        assert_eq!(paths(&["qcow2", "ova"])[1], "ova out/archive/disk.ova");
        assert_eq!(paths(&["raw", "ami"]), ["ami out/image/disk.raw"]);
        assert_eq!(paths(&["ami", "raw", "raw"]), ["ami out/image/disk.raw"]);
        assert_eq!(paths(&["iso"]), ["iso out/bootiso/install.iso"]);
        assert_eq!(paths(&["bootc-installer"]), ["anaconda-iso out/bootiso/install.iso"]);
    }

    #[test]
    fn what_is_refused_says_why() {
        assert_eq!(
            refusal(&["floppy"]),
            "unsupported image type \"floppy\", valid types are ami, anaconda-iso, bootc-installer, gce, iso, ova, pxe-tar-xz, \
             qcow2, raw, vhd, vmdk"
        );
        assert_eq!(refusal(&["qcow2", "iso"]), "cannot mix ISO/disk images in request [qcow2 iso]");
        assert_eq!(
            refusal(&["anaconda-iso", "iso"]),
            "a request for media names one type: anaconda-iso iso"
        );
        assert!(refusal(&["pxe-tar-xz"]).contains("pxe-tar-xz"));
    }
}
