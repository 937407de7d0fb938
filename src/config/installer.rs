//! `installer`, `iso`, `installation_device`, `partitioning_mode`: for media that install, not for disks that boot. Some of it only
//! Anaconda understands.

use super::Purpose;
use super::accounts::is_name;
use super::blueprint::refuse;
use super::document::Value;
use super::table::{Found, Gravity, Problems, Table};
use crate::name::VolumeId;

const FOR_INSTALLERS: &str =
    "it is for media that install (--format iso), and a disk installs nothing";
const NO_KICKSTART: &str = "the installer on bootpress' media reads none; what a kickstart does, other customizations do, and installation_device or --install-to make it ask nothing. Where the image has Anaconda, --format anaconda-iso reads it";
const FLATPAKS: &str = "the medium holds the image and nothing beside it; put them into the image";
const NO_ANACONDA: &str = "the installer on bootpress' media is not Anaconda";
const MENU: &str = "the menu of bootpress' media waits five seconds";
const VOLUMES: &str =
    "the installer writes the disk as it was built, without LVM; `raw` is what it does";
const IN_KICKSTART: &str =
    "partitions other than one root are for a kickstart to describe: installer.kickstart.contents";
/// Longest pause of a menu, in seconds.
const LONGEST_PAUSE: i64 = 3600;

/// What a medium and its installer are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installer {
    /// Whether it asks nothing.
    pub unattended: bool,
    /// Users and groups (`%wheel`) that need no password for sudo.
    pub sudo_without_password: Vec<String>,
    /// Where to install to: `/dev/vda`.
    pub device: Option<String>,
    /// Volume id of the ISO.
    pub volume_id: Option<VolumeId>,
    /// Application id.
    pub application_id: Option<String>,
    /// Publisher.
    pub publisher: Option<String>,
    /// What Anaconda is told in its own language, in the place of what it is told by default.
    pub kickstart: Option<String>,
    /// Anaconda's modules to start besides.
    pub enabled_modules: Vec<String>,
    /// Anaconda's modules not to start.
    pub disabled_modules: Vec<String>,
    /// Seconds until the menu of a medium with Anaconda starts its first entry.
    pub menu_timeout: Option<u32>,
}

/// Reads all that is for media; where none is made, that is refused.
pub(super) fn installer(
    table: &mut Table<'_>,
    purpose: Purpose,
    problems: &mut Problems,
) -> Installer {
    let mut read = Installer::default();
    let medium = purpose != Purpose::Disk;
    let here = |table: &Table<'_>, key| table.has(key) && !medium;
    for key in ["installation_device", "partitioning_mode"] {
        if here(table, key) {
            refuse(table, key, FOR_INSTALLERS, problems);
        }
    }
    let device = table.text("installation_device", problems);
    if let Some(device) = device.filter(|device| !device.value.is_empty()) {
        let path = match device.value.strip_prefix("/dev/") {
            Some(_) => device.value.clone(),
            None => format!("/dev/{}", device.value),
        };
        if path.split('/').any(|part| part == "..") || path.ends_with('/') {
            problems.wrong(device.at, format!("`{device}` is not a device such as /dev/vda"))
        } else {
            read.device = Some(path)
        }
    }
    if let Some(mode) = table.text("partitioning_mode", problems) {
        match mode.value.as_str() {
            "" | "raw" => {}
            "lvm" | "auto-lvm" => {
                let reason = if purpose == Purpose::Anaconda { IN_KICKSTART } else { VOLUMES };
                let text = format!("partitioning_mode = {mode} cannot be honoured: {reason}");
                problems.add(mode.at, Gravity::Refused, text);
            }
            _ => problems.wrong(
                mode.at,
                format!("`{mode}` is not a partitioning_mode: expected one of: raw, lvm, auto-lvm"),
            ),
        }
    }
    if let Some(entry) = table.table("installer", problems) {
        for_disks("installer", &entry, medium, problems);
        told(entry, purpose, &mut read, problems);
    }
    if let Some(entry) = table.table("iso", problems) {
        for_disks("iso", &entry, medium, problems);
        labels(entry, &mut read, problems);
    }
    if medium { read } else { Installer::default() }
}

fn for_disks(key: &str, entry: &Table<'_>, medium: bool, problems: &mut Problems) {
    if !medium {
        let text = format!("customizations.{key} cannot be honoured: {FOR_INSTALLERS}");
        problems.add(entry.at(), Gravity::Refused, text);
    }
}

/// `installer`.
fn told(mut entry: Table<'_>, purpose: Purpose, read: &mut Installer, problems: &mut Problems) {
    let anaconda = purpose == Purpose::Anaconda;
    let at = entry.at();
    read.unattended = entry.bool("unattended", problems) == Some(true);
    for name in entry.texts("sudo-nopasswd", problems) {
        if !is_name(name.value.strip_prefix('%').unwrap_or(&name.value)) {
            problems
                .wrong(name.at, format!("`{name}` is neither a user nor a group such as %wheel"));
        }
        read.sudo_without_password.push(name.value);
    }
    let mut has_kickstart = false;
    if let Some(mut kickstart) = entry.table("kickstart", problems) {
        let contents = kickstart.text("contents", problems);
        if let Some(contents) = contents.filter(|contents| !contents.value.is_empty()) {
            has_kickstart = true;
            if !anaconda {
                let text =
                    format!("{} cannot be honoured: {NO_KICKSTART}", kickstart.name("contents"));
                problems.add(contents.at, Gravity::Refused, text);
            }
            read.kickstart = Some(contents.value);
        }
        kickstart.finish(problems);
    }
    if let Some(mut modules) = entry.table("modules", problems) {
        for (key, names) in
            [("enable", &mut read.enabled_modules), ("disable", &mut read.disabled_modules)]
        {
            for name in modules.texts(key, problems) {
                if !is_module(&name.value) {
                    problems
                        .wrong(name.at, format!("`{name}` is not a module such as {MODULES}Users"));
                }
                names.push(name.value);
            }
        }
        if !anaconda {
            idle(&modules, "modules", NO_ANACONDA, problems);
        }
        modules.finish(problems);
    }
    if let Some(mut bootloader) = entry.table("bootloader", problems) {
        if let Some(mut grub) = bootloader.table("grub2", problems) {
            let seconds = grub.integer("menu-timeout", 0..=LONGEST_PAUSE, problems);
            read.menu_timeout = seconds.and_then(|seconds| u32::try_from(seconds).ok());
            if !anaconda {
                idle(&grub, "bootloader.grub2.menu-timeout", MENU, problems);
            }
            grub.finish(problems);
        }
        bootloader.finish(problems);
    }
    if let Some(mut payload) = entry.table("payload", problems) {
        if payload.take("flatpaks").is_some_and(|node| node.value != Value::Table(Vec::new())) {
            let text = format!("{} cannot be honoured: {FLATPAKS}", payload.name("flatpaks"));
            problems.add(payload.at(), Gravity::Refused, text);
        }
        payload.finish(problems);
    }
    entry.finish(problems);
    if has_kickstart && (read.unattended || !read.sudo_without_password.is_empty()) {
        problems.wrong(at, "installer.unattended and installer.sudo-nopasswd are not supported when adding custom kickstart contents");
    }
}

/// How the names of Anaconda's modules begin.
const MODULES: &str = "org.fedoraproject.Anaconda.Modules.";

fn is_module(name: &str) -> bool {
    let name = name.strip_prefix(MODULES).unwrap_or_default();
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn idle(table: &Table<'_>, key: &str, reason: &str, problems: &mut Problems) {
    let text = format!("customizations.installer.{key} has no effect: {reason}");
    problems.add(table.at(), Gravity::Idle, text);
}

/// `iso`.
fn labels(mut iso: Table<'_>, read: &mut Installer, problems: &mut Problems) {
    let volume_id = iso.text("volume_id", problems);
    read.volume_id = volume_id.and_then(|id| {
        let parsed = id.value.parse();
        parsed
            .map_err(|reason| problems.wrong(id.at, format!("invalid volume_id `{id}`: {reason}")))
            .ok()
    });
    let mut text = |key| -> Option<String> {
        let found: Found<String> = iso.text(key, problems)?;
        let fits = |c: char| c.is_ascii_graphic() || c == ' ';
        if found.value.len() > 128 || !found.value.chars().all(fits) {
            problems.wrong(found.at, format!("{key} has room for 128 ASCII characters"));
        }
        Some(found.value).filter(|text| !text.is_empty())
    };
    read.application_id = text("application_id");
    read.publisher = text("publisher");
    iso.finish(problems);
}
