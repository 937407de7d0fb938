//! A blueprint becomes files: everything that it asks of `/etc`, `/var` and `/boot` of the system on the disk.

mod accounts;
mod crypt;
mod firstboot;
mod grow;
mod mounts;
mod services;
mod settings;
mod system;

#[cfg(test)]
mod tests;

use anyhow::{Context, Result};

use super::Blueprint;
use super::files::{Directory, File, Ownership};
use super::system::Ignition;
use crate::content::ContentStore;
use crate::error::unsupported;
use crate::tree::{InodeId, Kind, Metadata, Tree};

use accounts::Accounts;
use system::{Access, System};

pub(super) use accounts::hashed;
pub(super) use firstboot::script_unit;
pub use grow::Grow;
pub use mounts::{Mount, Mounting};
pub use system::Places;

/// What became of a system.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Every file, link and directory that was written: its path in the running system, and its inode, which has no label yet.
    pub written: Vec<(String, InodeId)>,
    /// Where volumes of their own are mounted, without links in the paths, in the order in which they were asked for.
    pub volumes: Vec<String>,
    /// What the user should know, a line each.
    pub warnings: Vec<String>,
}

/// Changes a system as asked.
///
/// `seed` is what salts derive from. `Unsupported` if the image lacks what a key needs; nothing has been written to a disk then.
pub fn customize(
    tree: &mut Tree,
    places: Places,
    blueprint: &Blueprint,
    mounting: &Mounting,
    seed: &str,
    contents: &ContentStore,
) -> Result<Changes> {
    // Every key is here, so that the compiler asks about a new one: is it written here, or who else honours it?
    let Blueprint {
        hostname,
        users,
        groups,
        timezone,
        locale,
        firewall,
        services,
        sshd,
        directories,
        files,
        certificates,
        scripts,
        fips,
        installer,
        containers,
        // `kernel_arguments` and `customize_boot`.
        kernel_append: _,
        ignition: _,
        console: _,
        // Partitions are arranged before anything is written.
        layout: _,
    } = blueprint;
    let mut system = System::new(tree, places, contents);
    let what = &mut system;
    if let Some(name) = hostname {
        settings::hostname(what, name)?;
    }
    let mut accounts = Accounts::read(what)?;
    accounts.apply(what, groups, users, seed).context("adding users")?;
    settings::timezone(what, timezone)?;
    settings::locale(what, locale)?;
    settings::sshd(what, sshd)?;
    settings::firewall(what, firewall)?;
    firstboot::certificates(what, certificates)?;
    if *fips {
        firstboot::fips(what)?;
    }
    for directory in directories {
        make_directory(what, directory, &accounts)?;
    }
    for file in files {
        write_file(what, file, &accounts)?;
    }
    if !installer.sudo_without_password.is_empty() {
        settings::sudo(what, &installer.sudo_without_password)?;
    }
    settings::containers(what, containers)?;
    // Units may have come with the files.
    firstboot::scripts(what, scripts)?;
    services::apply(what, services)?;
    let volumes = mounts::apply(what, mounting)?;
    if let Some(grow) = &mounting.grow {
        grow::apply(what, grow)?;
    }
    Ok(Changes { written: system.changed, volumes, warnings: system.warnings })
}

fn make_directory(
    system: &mut System<'_>,
    directory: &Directory,
    accounts: &Accounts,
) -> Result<()> {
    let path = &directory.path;
    let above = path.rsplit_once('/').map_or("/", |(above, _)| above);
    if !directory.ensure_parents && !system.is_directory(above) {
        return Err(unsupported(
            format!("the directory {path} cannot be made: there is no {above}"),
            Some("`ensure_parents = true` makes it, too"),
        ));
    }
    let there = system.access(path).unwrap_or(Access::root(0o755));
    system.make_directory(path, access(&directory.owner, there, accounts)?)
}

fn write_file(system: &mut System<'_>, file: &File, accounts: &Accounts) -> Result<()> {
    system.write(&file.path, &file.data, access(&file.owner, Access::root(0o644), accounts)?)
}

fn access(asked: &Ownership, otherwise: Access, accounts: &Accounts) -> Result<Access> {
    Ok(Access {
        uid: asked.user.as_ref().map_or(Ok(otherwise.uid), |user| accounts.uid(user))?,
        gid: asked.group.as_ref().map_or(Ok(otherwise.gid), |group| accounts.gid(group))?,
        mode: asked.mode.unwrap_or(otherwise.mode),
    })
}

/// Adds to `/boot` what a blueprint wants there; `boot` holds what the boot loader put into it.
///
/// `Unsupported` if the image's GRUB would not read it.
pub fn customize_boot(
    boot: &mut Tree,
    blueprint: &Blueprint,
    contents: &ContentStore,
) -> Result<()> {
    const GRUB: &str = "grub2/grub.cfg";
    if blueprint.console.is_none() && blueprint.ignition.is_none() {
        return Ok(());
    }
    let grub = match boot.file(GRUB) {
        Some(content) => String::from_utf8_lossy(&contents.bytes(content)?).into_owned(),
        None => String::new(),
    };
    let reads = |word: &str, key: &str| {
        if grub.contains(word) {
            Ok(())
        } else {
            Err(unsupported(
                format!(
                    "customizations.{key} cannot be honoured: the image's GRUB configuration never reads {word}"
                ),
                Some("newer versions of bootupd bring one that does"),
            ))
        }
    };
    let mut put = |directory: &str, name: &[u8], mode: u16, bytes: &[u8]| -> Result<()> {
        let content = contents.insert_bytes(bytes)?;
        let into = boot.make_directories(directory, &Metadata::root(0o700));
        boot.create(into, name, Metadata::root(mode), Kind::File(content));
        Ok(())
    };
    if let Some(console) = &blueprint.console {
        reads("console.cfg", "bootloader")?;
        put("grub2", b"console.cfg", 0o600, console.as_bytes())?;
    }
    if let Some(ignition) = &blueprint.ignition {
        reads("ignition.firstboot", "ignition")?;
        // GRUB sources it, and sets `ignition_firstboot` because it is there; Ignition takes it away.
        put("", b"ignition.firstboot", 0o644, b"set ignition_network_kcmdline=''\n")?;
        if let Ignition::Embedded(config) = ignition {
            put("ignition", b"config.ign", 0o600, config)?;
        }
    }
    Ok(())
}

/// The kernel arguments that a blueprint adds, one line each. `platform`: the value of `ignition.platform.id`; `None`: somebody
/// else names it.
pub fn kernel_arguments(blueprint: &Blueprint, platform: Option<&str>) -> Vec<String> {
    let mut arguments: Vec<String> = blueprint.kernel_append.iter().cloned().collect();
    if blueprint.fips {
        arguments.push("fips=1".to_owned());
    }
    if let Some(ignition) = &blueprint.ignition {
        arguments.push("$ignition_firstboot".to_owned());
        arguments.extend(platform.map(|id| format!("ignition.platform.id={id}")));
        if let Ignition::Url(url) = ignition {
            arguments.push(format!("ignition.config.url={url}"));
        }
    }
    arguments
}
