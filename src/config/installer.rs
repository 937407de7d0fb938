//! `installer`, `iso`, `installation_device`, `partitioning_mode`: for media that install, not for disks that boot.

use super::accounts::is_name;
use super::blueprint::refuse;
use super::document::Value;
use super::table::{Found, Gravity, Problems, Table};

const FOR_INSTALLERS: &str =
    "it is for media that install (--format iso), and a disk installs nothing";
const NO_KICKSTART: &str = "the installer on bootpress' media reads none; what a kickstart does, other customizations do, and installation_device or --install-to make it ask nothing";
const FLATPAKS: &str = "the medium holds the image and nothing beside it; put them into the image";
const NO_ANACONDA: &str = "the installer on bootpress' media is not Anaconda";
const MENU: &str = "the menu of bootpress' media waits five seconds";
const VOLUMES: &str =
    "the installer writes the disk as it was built, without LVM; `raw` is what it does";

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
    pub volume_id: Option<String>,
    /// Application id.
    pub application_id: Option<String>,
    /// Publisher.
    pub publisher: Option<String>,
}

/// Reads all that is for media; where none is made, that is refused.
pub(super) fn installer(table: &mut Table<'_>, medium: bool, problems: &mut Problems) -> Installer {
    let mut read = Installer::default();
    let here = |table: &Table<'_>, key| table.has(key) && !medium;
    for key in ["installation_device", "partitioning_mode"] {
        if here(table, key) {
            refuse(table, key, FOR_INSTALLERS, problems);
        }
    }
    if let Some(device) = table.text("installation_device", problems) {
        let path = match device.value.strip_prefix("/dev/") {
            Some(_) => device.value.clone(),
            None => format!("/dev/{}", device.value),
        };
        match path.split('/').any(|part| part == "..") || path.ends_with('/') {
            true => problems.wrong(device.at, format!("`{device}` is no device such as /dev/vda")),
            false => read.device = Some(path),
        }
    }
    if let Some(mode) = table.text("partitioning_mode", problems) {
        match mode.value.as_str() {
            "" | "raw" => {}
            "lvm" | "auto-lvm" => {
                let text = format!("partitioning_mode = {mode} cannot be honoured: {VOLUMES}");
                problems.add(mode.at, Gravity::Refused, text);
            }
            _ => problems.wrong(
                mode.at,
                format!("`{mode}` is no partitioning_mode: raw, lvm and auto-lvm are"),
            ),
        }
    }
    if let Some(entry) = table.table("installer", problems) {
        for_disks("installer", &entry, medium, problems);
        told(entry, &mut read, problems);
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
fn told(mut entry: Table<'_>, read: &mut Installer, problems: &mut Problems) {
    let at = entry.at();
    read.unattended = entry.bool("unattended", problems) == Some(true);
    for name in entry.texts("sudo-nopasswd", problems) {
        if !is_name(name.value.strip_prefix('%').unwrap_or(&name.value)) {
            problems.wrong(name.at, format!("`{name}` is no user and no group such as %wheel"));
        }
        read.sudo_without_password.push(name.value);
    }
    let mut has_kickstart = false;
    if let Some(mut kickstart) = entry.table("kickstart", problems) {
        let contents = kickstart.text("contents", problems);
        if let Some(contents) = contents.filter(|contents| !contents.value.is_empty()) {
            has_kickstart = true;
            let text = format!("{} cannot be honoured: {NO_KICKSTART}", kickstart.name("contents"));
            problems.add(contents.at, Gravity::Refused, text);
        }
        kickstart.finish(problems);
    }
    if let Some(mut modules) = entry.table("modules", problems) {
        for key in ["enable", "disable"] {
            modules.texts(key, problems);
        }
        idle(&modules, "modules", NO_ANACONDA, problems);
        modules.finish(problems);
    }
    if let Some(mut bootloader) = entry.table("bootloader", problems) {
        if let Some(mut grub) = bootloader.table("grub2", problems) {
            grub.integer("menu-timeout", 0..=3600, problems);
            idle(&grub, "bootloader.grub2.menu-timeout", MENU, problems);
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

fn idle(table: &Table<'_>, key: &str, reason: &str, problems: &mut Problems) {
    let text = format!("customizations.installer.{key} has no effect: {reason}");
    problems.add(table.at(), Gravity::Idle, text);
}

/// `iso`.
fn labels(mut iso: Table<'_>, read: &mut Installer, problems: &mut Problems) {
    let volume_id = iso.text("volume_id", problems);
    let fits = |text: &str| {
        (1..=32).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    };
    if let Some(id) = volume_id.as_ref().filter(|id| !fits(&id.value)) {
        problems.wrong(
            id.at,
            format!("volume_id `{id}` has other characters than letters, digits, `_` and `-`, or more than 32"),
        );
    }
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
    read.volume_id = volume_id.map(|text| text.value);
    iso.finish(problems);
}
