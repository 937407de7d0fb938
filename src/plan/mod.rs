//! Every choice of a build, made before anything is laid out: what follows from the request, the image and what it configures.
//!
//! A plan owns decisions and nothing else: it is made from values, can be printed, and no stage asks the request again.

mod boot;
mod composefs;
mod media;
mod root;
mod shown;
mod system;
#[cfg(test)]
mod tests;

use anyhow::Result;

use crate::bootc::{Backend, BackendChoice, Bootloader, Composefs, Settings};
use crate::bootloader::{BootOptions, Loader};
use crate::composefs::Uki;
use crate::config::Layout;
use crate::disk::{self, Arrangement, DiskOptions, DiskSize, Partitioning, SectorSize};
use crate::error::{Unsupported, unsupported};
use crate::filesystem_kind::{FileSystem, XfsProfile};
use crate::identity::Identity;
use crate::image::Image;
use crate::output;
use crate::progress::{Code, Warning};
use crate::request::{BoundImages, Request};
use crate::tree::Tree;

pub use media::media;
pub use root::RootChoice;
pub use shown::Decision;
pub use system::{RepositoryOption, SystemPlan};

/// The choices.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Every UUID.
    pub identity: Identity,
    /// What the root is, and why.
    pub root: RootChoice,
    /// The storage backend, and why it is that one.
    pub backend: BackendChoice,
    /// The partitions.
    pub arrangement: Arrangement,
    /// Bytes of a sector.
    pub sector_size: SectorSize,
    /// Size of the whole disk; `None`: what is needed, and room for one upgrade.
    pub size: Option<DiskSize>,
    /// Bytes that the disk has at least, unless its size is asked for.
    pub least_size: u64,
    /// The whole disk is a multiple of this many bytes.
    pub size_unit: u64,
    /// Whether the root grows when the system starts.
    pub grow: bool,
    /// Which features an XFS has.
    pub xfs_profile: XfsProfile,
    /// How the boot loader is installed; `None`: not at all.
    pub bootloader: Option<BootOptions>,
    /// The installed system.
    pub system: SystemPlan,
    /// How the disk files are written.
    pub files: output::Options,
    /// What is told of a `/boot` that systemd unmounts when nobody uses it.
    pub boot_idles: Option<String>,
    /// What the user should know, a line each.
    pub warnings: Vec<Warning>,
}

/// What is known of an image when choices are made.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What it says about itself.
    pub image: &'a Image,
    /// What it configures.
    pub settings: &'a Settings,
    /// Partitions that somebody lays out; `None`: those of the preset.
    pub layout: Option<&'a Layout>,
    /// Its merged tree, whose files may fill partitions.
    pub root: &'a Tree,
    /// The unified kernel image that it boots, if it does.
    pub unified: Option<&'a Uki>,
}

impl Plan {
    /// Decides. `Unsupported` if something is configured that cannot be had.
    pub fn of(request: &Request, known: Known<'_>) -> Result<Self> {
        let Known { image, settings, layout, root: image_root, unified } = known;
        let composefs = settings.backend.backend == Backend::Composefs;
        let entries_on_esp =
            composefs && self::composefs::entries_on_esp(request, settings, image_root);
        if composefs {
            self::composefs::refuse(request, settings, unified)?;
        } else {
            refuse_what_we_cannot(request, settings)?;
        }
        boot::refuse_lost_keys(request, settings)?;
        let configured = request.config.warnings.iter();
        let mut warnings: Vec<Warning> =
            configured.map(|text| Warning::new(Code::Configuration, text.as_str())).collect();
        if request.applications.bound == BoundImages::Skip {
            warnings.extend(settings.bound_images.iter().map(|bound| {
                let text = format!("the image is bound to {bound}, which is not on the disk: podman pulls it when it is first used");
                Warning::new(Code::BoundImage, text)
            }));
        }
        let identity = Identity::derive(&image.manifest_digest, &request.seed);
        let identity = disk::identify(identity, layout)?;
        // Who got the layout with the image can build without it.
        let is_images = layout.is_some() && request.config.blueprint.layout.is_none();
        let told = |error| if is_images { without_layout(error) } else { error };
        let root = RootChoice::of(&request.disk, settings, layout).map_err(told)?;
        let partitioning = Partitioning {
            layout,
            preset: request.disk.preset,
            architecture: image.architecture,
            root: &root.volume(&request.disk, settings, layout).map_err(told)?,
            // On btrfs GRUB ignores the default subvolume, cannot write its environment, and does not read holes at the end of
            // files: its files are on an ext4 then. And what is found by its label has one.
            separate_boot: !entries_on_esp
                && (root.filesystem == FileSystem::Btrfs
                    || boot::by_label(request, settings).is_some()),
        };
        let arrangement = Arrangement::of(&partitioning, &identity, image_root).map_err(told)?;
        boot::check_label(request, settings, &arrangement)?;
        if entries_on_esp && arrangement.separate_boot() {
            return Err(self::composefs::no_boot_partition());
        }
        let sector_size = layout.and_then(disk::sector_size).unwrap_or(request.disk.sector_size);
        let mut system =
            SystemPlan::of(request, image, settings, &identity, &arrangement, &mut warnings)?;
        if composefs {
            system.fs_verity = self::composefs::enforces(root.filesystem, unified)?;
            warnings.extend(self::composefs::warning(settings, unified));
        }
        let boot_idles = boot::idles(request, settings, &arrangement, &system.kernel_arguments);
        warnings
            .extend(boot_idles.iter().map(|text| Warning::new(Code::BootLoader, text.as_str())));
        Ok(Self {
            boot_idles,
            bootloader: bootloader(request, image, settings, &identity, &arrangement, sector_size),
            files: output::Options {
                sector_size: sector_size.bytes(),
                qcow2_compression: request.output.qcow2_compression,
                ..output::Options::new(identity.files, image.architecture)
            },
            backend: settings.backend.clone(),
            identity,
            root,
            arrangement,
            sector_size,
            size: request.disk.size,
            least_size: request.disk.least_size,
            size_unit: request.output.size_unit(),
            grow: request.disk.grow,
            xfs_profile: request.disk.xfs_profile.unwrap_or_else(|| settings.xfs_profile()),
            system,
            warnings,
        })
    }

    /// For the disk.
    pub fn disk(&self) -> DiskOptions<'_> {
        DiskOptions {
            arrangement: &self.arrangement,
            identity: &self.identity,
            sector_size: self.sector_size,
            size: self.size,
            least_size: self.least_size,
            size_unit: self.size_unit,
            grow: self.grow,
            xfs_profile: self.xfs_profile,
        }
    }
}

fn bootloader(
    request: &Request,
    image: &Image,
    settings: &Settings,
    identity: &Identity,
    arrangement: &Arrangement,
    sector_size: SectorSize,
) -> Option<BootOptions> {
    let configured = settings.install.bootloader;
    let none = configured == Some(Bootloader::None) && request.disk.loader.is_none();
    if !request.disk.install_bootloader || none {
        return None;
    }
    let separate_boot = arrangement.separate_boot();
    Some(BootOptions {
        architecture: image.architecture,
        loader: request.disk.loader.or(configured.and_then(boot::loader)),
        boot_uuid: if separate_boot { identity.boot_filesystem } else { identity.root_filesystem },
        skip_boot_uuid: settings.install.skip_boot_uuid == Some(true),
        boot_partition: arrangement.boot_partition(),
        dos: arrangement.is_dos(),
        separate_boot,
        composefs: settings.backend.backend == Backend::Composefs,
        boot_filesystem: arrangement.boot_filesystem(),
        // No BIOS starts from other sectors.
        bios: sector_size == SectorSize::S512,
        time: 0,
    })
}

fn refuse_what_we_cannot(request: &Request, settings: &Settings) -> Result<()> {
    // What prepare-root checks is a signature of the deployed commit, and that commit is made here, where no key is.
    if settings.prepare_root.composefs == Composefs::Signed {
        return Err(unsupported(
            "the image demands a signed root (composefs.enabled in prepare-root.conf), and bootpress signs nothing",
            Some("`enabled = verity` checks the same contents without a signature"),
        ));
    }
    let asks_otherwise = request.disk.install_bootloader && request.disk.loader.is_none();
    match settings.install.bootloader.and_then(boot::loader) {
        Some(other) if other != Loader::Grub && asks_otherwise => Err(unsupported(
            format!(
                "the image's install configuration asks for the boot loader {other}, and systems of the ostree backend are started by GRUB only"
            ),
            Some(
                "build with --backend composefs if the image is made for it, with --bootloader grub, or with --bootloader none",
            ),
        )),
        _ => Ok(()),
    }
}

/// Names the way out of a layout that the image brings and bootpress cannot make.
fn without_layout(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Unsupported>() {
        Ok(Unsupported { what, hint }) => {
            let way_out = "use --ignore-image-layout to build with the usual partitions";
            let hint = hint.map_or(way_out.to_owned(), |hint| format!("{hint}; or {way_out}"));
            unsupported(what, Some(&hint))
        }
        Err(error) => error,
    }
}
