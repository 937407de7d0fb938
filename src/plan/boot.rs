//! What is decided about `/boot`: whether it is found by its label, how it is mounted, and what Ignition is told.

use anyhow::Result;

use crate::bootc::{Bootloader, Mounts, Settings};
use crate::bootloader::Loader;
use crate::command_line;
use crate::disk::Arrangement;
use crate::error::unsupported;
use crate::output::Format;
use crate::request::Request;

/// The label of a `/boot` that is found by it.
const LABEL: &str = "boot";

/// The boot loader that an install configuration names; `None`: it wants none.
pub(super) const fn loader(configured: Bootloader) -> Option<Loader> {
    match configured {
        Bootloader::Grub => Some(Loader::Grub),
        Bootloader::GrubCc => Some(Loader::GrubCc),
        Bootloader::Systemd => Some(Loader::SystemdBoot),
        Bootloader::None => None,
    }
}

/// Who looks for `/boot` by its label, if somebody does: then it is a file system of its own, as the root has another label.
pub(super) fn by_label(request: &Request, settings: &Settings) -> Option<&'static str> {
    if !request.disk.install_bootloader {
        return None;
    }
    // CoreOS' drop-in for GRUB looks for `/ignition.firstboot` at the top of the file system that holds /boot, and Ignition
    // mounts that by its label.
    if request.config.blueprint.ignition.is_some() {
        return Some("Ignition (customizations.ignition)");
    }
    let skipped = settings.install.skip_boot_uuid == Some(true);
    skipped.then_some("GRUB (skip-boot-uuid in the image's install configuration)")
}

/// Refuses a layout that gives another label to a `/boot` that is found by its label.
pub(super) fn check_label(
    request: &Request,
    settings: &Settings,
    arrangement: &Arrangement,
) -> Result<()> {
    let Some(because) = by_label(request, settings) else { return Ok(()) };
    let label = arrangement.boot_label().unwrap_or_default();
    if label == LABEL {
        return Ok(());
    }
    Err(unsupported(
        format!(
            "{because} looks for a file system labelled `{LABEL}`, and the layout labels /boot `{label}`"
        ),
        Some("leave the label of /boot away, or make it `boot`"),
    ))
}

/// How `/boot` is mounted where `/etc`, and with it fstab, is another one when the system runs: systemd 254 and later take a line of
/// fstab as a kernel argument (systemd-fstab-generator(8)).
pub(super) fn mount_argument(mounts: &Mounts, settings: &Settings) -> Result<Option<String>> {
    const SINCE: u32 = 254;
    let lost = settings.lost.iter().find(|lost| lost.path == "/etc");
    let (Some(lost), Some(source)) = (lost, &mounts.boot) else { return Ok(None) };
    if settings.systemd.is_some_and(|version| version >= SINCE) {
        return Ok(Some(format!("systemd.mount-extra={source}:/boot:auto:ro")));
    }
    Err(unsupported(
        format!(
            "/boot is a file system of its own, and the line of /etc/fstab that mounts it would be gone when the system runs: {}",
            lost.because
        ),
        Some(
            "use an image with systemd 254 or later, or mount /boot in the image and build with --boot-mount-spec ''",
        ),
    ))
}

/// Refuses keys of root where `/etc` is another one when the system runs: that is where systemd-tmpfiles would find them.
pub(super) fn refuse_lost_keys(request: &Request, settings: &Settings) -> Result<()> {
    let lost = settings.lost.iter().find(|lost| lost.path == "/etc");
    match (lost, &request.system.root_ssh_keys) {
        (Some(lost), Some(_)) => Err(unsupported(
            format!(
                "--root-ssh-authorized-keys writes to /etc, which would be gone when the system runs: {}",
                lost.because
            ),
            Some("put the keys into the image"),
        )),
        _ => Ok(()),
    }
}

/// The warning about a `/boot` that systemd unmounts when nobody uses it (bootc issue 2402), with the ways out.
pub(super) fn idles(
    request: &Request,
    settings: &Settings,
    arrangement: &Arrangement,
    arguments: &[String],
) -> Option<String> {
    let off = |argument: &String| argument == "systemd.gpt_auto=0";
    let hit = settings.boot_idles
        && !arrangement.separate_boot()
        && request.disk.install_bootloader
        && !arguments.iter().any(off);
    let version = settings.systemd.map_or(String::new(), |version| format!(" {version}"));
    hit.then(|| {
        format!(
            "with UEFI, systemd{version} of this image unmounts /boot when nobody has used it for two minutes; then bootc fails, \
             and a staged upgrade is lost (bootc issue 2402): the image has no /efi, and its ostree tells systemd the root's device. \
             Make the directory /efi in the image, or build with --karg systemd.gpt_auto=0 or --layout osbuild"
        )
    })
}

/// The value of `ignition.platform.id`, which follows from the formats; `None`: there is no Ignition, or somebody names it.
pub(super) fn ignition_platform(
    request: &Request,
    settings: &Settings,
) -> Result<Option<&'static str>> {
    const KEY: &str = "ignition.platform.id=";
    let blueprint = &request.config.blueprint;
    let named = [
        request.system.kernel_arguments.as_slice(),
        blueprint.kernel_append.as_slice(),
        &settings.kernel_arguments,
        &settings.install.kernel_arguments,
    ];
    let mut words = named.into_iter().flatten().flat_map(|line| command_line::split(line));
    if blueprint.ignition.is_none() || words.any(|word| word.starts_with(KEY)) {
        return Ok(None);
    }
    let output = &request.output;
    let media = output.medium.as_ref().map_or(&[][..], |medium| &medium.kinds);
    let of_formats = output.formats.iter().map(|file| (file.format.name(), platform(file.format)));
    let mut all = of_formats.chain(media.iter().map(|kind| (kind.name(), "metal")));
    let Some((first, id)) = all.next() else { return Ok(Some("metal")) };
    match all.find(|(_, other)| *other != id) {
        None => Ok(Some(id)),
        Some((other, other_id)) => Err(unsupported(
            format!(
                "{first} and {other} cannot be made at once with customizations.ignition: \
                 ignition.platform.id is {id} for one and {other_id} for the other"
            ),
            Some(
                "build them one after the other, or choose one with --karg ignition.platform.id=…",
            ),
        )),
    }
}

/// How Ignition calls the platform that a format is for (its list of supported platforms).
const fn platform(format: Format) -> &'static str {
    match format {
        Format::Raw => "metal",
        Format::Qcow2 => "qemu",
        Format::Vmdk | Format::Ova => "vmware",
        Format::Vhd => "azure",
        Format::Vhdx => "hyperv",
        Format::Vdi => "virtualbox",
        Format::Gce => "gcp",
        Format::Ami => "aws",
    }
}
