//! What is decided for bootc's composefs backend, and what is refused there.

use anyhow::Result;

use crate::bootc::{Bootloader, Mounts, Settings};
use crate::bootloader::Loader;
use crate::composefs::Uki;
use crate::disk::Arrangement;
use crate::error::unsupported;
use crate::filesystem_kind::FileSystem;
use crate::name::StaterootName;
use crate::progress::{Code, Warning};
use crate::request::{BoundImages, Request};
use crate::tree::Tree;

use super::boot;

/// Where an image keeps what bootupd installs; without it the boot loader is systemd-boot.
const UPDATES: &str = "usr/lib/bootupd/updates";

/// Whether the boot loader reads its entries from the ESP, so that nothing of it is in `/boot`.
pub(super) fn entries_on_esp(request: &Request, settings: &Settings, image: &Tree) -> bool {
    let asked = request.disk.loader.or(settings.install.bootloader.and_then(boot::loader));
    match asked {
        Some(loader) => loader != Loader::Grub,
        None => image.resolve(UPDATES).is_none(),
    }
}

/// Refuses what this backend cannot have.
pub(super) fn refuse(request: &Request, settings: &Settings, unified: Option<&Uki>) -> Result<()> {
    let refuse = |what: &str, hint: &str| {
        let what = format!("{what} is not supported by bootc's composefs backend");
        Err(unsupported(what, Some(hint)))
    };
    let configured = settings.install.bootloader == Some(Bootloader::None);
    if !request.disk.install_bootloader || configured && request.disk.loader.is_none() {
        return refuse("a disk without boot loader (--bootloader none)", "leave --bootloader away");
    }
    let default = StaterootName::default();
    let stateroot = request.system.stateroot.as_ref().map(StaterootName::as_str);
    let named = stateroot.or(settings.install.stateroot.as_deref());
    if let Some(name) = named.filter(|name| *name != default.as_str()) {
        return refuse(
            &format!("the stateroot {name}"),
            "leave --stateroot away: it has one state only, `default` (bootc issue 2542)",
        );
    }
    if request.output.medium.is_some() {
        return refuse("a medium", "build a disk, or the medium with --backend ostree");
    }
    if request.applications.bound != BoundImages::Skip && !settings.bound_images.is_empty() {
        return refuse(
            "an application image that the system is bound to, on the disk,",
            "build with --bound-images skip: podman pulls them when they are first used (bootc issue 2540)",
        );
    }
    unified.map_or(Ok(()), |uki| refuse_changes(request, uki))
}

/// Refuses to change what a unified kernel image has sealed: its command line.
fn refuse_changes(request: &Request, uki: &Uki) -> Result<()> {
    let blueprint = &request.config.blueprint;
    let system = &request.system;
    let asked = [
        ("--karg", !system.kernel_arguments.is_empty()),
        ("--karg-delete", !system.kernel_argument_deletes.is_empty()),
        ("customizations.kernel", blueprint.kernel_append.is_some()),
        ("customizations.fips", blueprint.fips),
        ("customizations.ignition", blueprint.ignition.is_some()),
        ("--root-mount-spec", system.root_mount_spec.is_some()),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((what, _)) => Err(unsupported(
            format!("{what} would change the kernel command line, which is sealed in {}", uki.path),
            Some(
                "put the arguments into the image (usr/lib/bootc/kargs.d) before its unified kernel image is made; \
                 users, files in /etc and /var, and partitions can be configured",
            ),
        )),
        None => Ok(()),
    }
}

/// Whether the machine verifies every object: the unified kernel image says it, else the root's file system decides.
///
/// `Unsupported`: it demands what the file system does not have.
pub(super) fn enforces(root: FileSystem, unified: Option<&Uki>) -> Result<bool> {
    let Some(uki) = unified else { return Ok(root.has_verity()) };
    if uki.is_optional() || root.has_verity() {
        return Ok(!uki.is_optional());
    }
    Err(unsupported(
        format!("{} demands fs-verity of the root, and {root} does not have it", uki.path),
        Some("build with --filesystem ext4 or --filesystem btrfs"),
    ))
}

/// What the user should know.
pub(super) fn warning(settings: &Settings, unified: Option<&Uki>) -> Option<Warning> {
    let arguments = &settings.install.kernel_arguments;
    let uki = unified.filter(|_| !arguments.is_empty())?;
    let text = format!(
        "the kernel arguments of the image's install configuration ({}) have no effect: the command line is sealed in {}",
        arguments.join(" "),
        uki.path
    );
    Some(Warning::new(Code::ImageConfiguration, text))
}

/// How a `/boot` of its own is mounted: this backend writes no fstab.
pub(super) fn mount_argument(mounts: &Mounts, arrangement: &Arrangement) -> Option<String> {
    let source = mounts.boot.as_ref().filter(|_| arrangement.separate_boot())?;
    let kind = arrangement.boot_filesystem();
    Some(format!("systemd.mount-extra={source}:/boot:{kind}:defaults"))
}

/// The error for a `/boot` of its own that nobody would read.
pub(super) fn no_boot_partition() -> anyhow::Error {
    unsupported(
        "a partition for /boot is not supported by bootc's composefs backend where the boot loader reads the ESP",
        Some("leave /boot out of the layout, or install GRUB with --bootloader grub"),
    )
}
