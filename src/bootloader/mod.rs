//! What firmware starts, taken from the image: trees for the ESP and for `/boot`, and the sectors that a BIOS reads.
//!
//! ```text
//! UEFI:  firmware ─► ESP: shim ─► GRUB ─► EFI/<vendor>/grub.cfg ─┐
//! BIOS:  MBR ─► BIOS boot partition: core.img ─► modules ────────┴─► /boot/grub2/grub.cfg ─► boot entries
//! ```
//!
//! The files and rules are bootupd's, so that the `bootupctl` of the image finds what it would have installed itself.
//! Everything here is data for the disk; nothing has to be called later.

mod bios;
mod bootupd;
mod components;
mod efi;
mod grub;
mod state;
mod systemd_boot;

#[cfg(test)]
mod tests;

use anyhow::Result;
use serde_json::Value;
use uuid::Uuid;

use crate::architecture::Architecture;
use crate::content::{ContentStore, LARGEST_WHOLE};
use crate::error::{corrupt, unsupported};
use crate::files::Files;
use crate::filesystem_kind::FileSystem;
use crate::tree::{Kind, Metadata, Tree};

pub use bios::{BiosCode, MediumCode};
pub use bootupd::age as bootupd_age;
pub use components::Loader;

/// Where an image keeps what bootupd installs.
const UPDATES: &str = "usr/lib/bootupd/updates";
/// Bytes of what an image says about a component: JSON takes up to 64 times as many when it is read; real ones have 200.
const LARGEST_METADATA: usize = 1 << 20;
const NO_BOOTLOADER: &str = "build without a boot loader: --bootloader none";

/// What the boot loader has to know of the disk.
#[derive(Clone, Debug)]
pub struct BootOptions {
    /// The architecture of the image.
    pub architecture: Architecture,
    /// The boot loader that was asked for, by the user or by the image's install configuration; `None`: bootupd's rules.
    pub loader: Option<Loader>,
    /// UUID of the file system that holds `/boot`: the root's, unless `/boot` has one of its own.
    pub boot_uuid: Uuid,
    /// Whether GRUB shall search by the label `boot` instead, as images with `skip-boot-uuid` ask.
    pub skip_boot_uuid: bool,
    /// Number, from 1, of the partition that holds `/boot`.
    pub boot_partition: u32,
    /// The file system in that partition: ext4 or XFS.
    pub boot_filesystem: FileSystem,
    /// Whether that is a partition of its own; else it is the root's.
    pub separate_boot: bool,
    /// Whether the partition table is a master boot record.
    pub dos: bool,
    /// Whether the system is of the composefs backend: then other boot loaders than GRUB can be installed, and unified kernel images
    /// are booted.
    pub composefs: bool,
    /// Whether a BIOS can start from the disk: none does from sectors of 4096 bytes.
    pub bios: bool,
    /// Seconds since 1970 to record as the age of the image's bootupd: see [`bootupd_age`].
    pub time: i64,
}

/// A boot loader, ready to be laid out.
#[derive(Debug)]
pub struct Boot {
    /// What goes onto the ESP, if the image boots by UEFI.
    pub esp: Option<Tree>,
    /// What goes into `/boot`, relative to it.
    pub boot: Tree,
    /// What a BIOS reads before any file system.
    pub bios: Option<BiosCode>,
    /// Which one is installed; `None`: none.
    pub loader: Option<Loader>,
    /// What was found, a line each, for people.
    pub found: Vec<String>,
    /// What the image offers but cannot be installed, a line each.
    pub warnings: Vec<String>,
}

impl Boot {
    /// No boot loader: whoever starts the kernel does it from outside.
    pub fn none() -> Self {
        Self {
            esp: None,
            boot: Tree::new(Metadata::root(0o755)),
            bios: None,
            loader: None,
            found: vec!["no boot loader".to_owned()],
            warnings: Vec::new(),
        }
    }
}

/// Whether an image has all that a boot loader needs, without laying it out; what was found, a line each.
pub fn check_payload(
    root: &Tree,
    contents: &ContentStore,
    architecture: Architecture,
) -> Result<Vec<String>> {
    let options = BootOptions {
        architecture,
        loader: None,
        boot_uuid: Uuid::nil(),
        skip_boot_uuid: false,
        boot_partition: 1,
        boot_filesystem: FileSystem::Ext4,
        separate_boot: false,
        dos: false,
        composefs: false,
        bios: true,
        time: 0,
    };
    prepare(root, contents, &options).map(|boot| boot.found)
}

/// Takes the boot loader out of an image. `root` is the merged tree of the image.
///
/// Every component that the image has is taken, UEFI and (on x86_64) BIOS, as `bootc install --generic-image` does.
/// `Unsupported`: the image brings none, or another kind than GRUB with bootupd's payload. `Corrupt`: its files are broken.
pub fn prepare(root: &Tree, contents: &ContentStore, options: &BootOptions) -> Result<Boot> {
    if !options.composefs {
        refuse_other_kinds(root)?;
    } else if systemd_boot::is_for(root, options.loader) {
        return systemd_boot::prepare(root, contents, options);
    }
    let mut efi_metadata = component(root, contents, "EFI")?;
    let mut bios_metadata = match options.architecture {
        Architecture::X86_64 => component(root, contents, "BIOS")?,
        Architecture::Aarch64 => None,
    };
    if efi_metadata.is_none() && bios_metadata.is_none() {
        return Err(nothing_found(root));
    }

    let mut boot = Boot::none();
    boot.found.clear();
    if !options.bios && bios_metadata.take().is_some() {
        if efi_metadata.is_none() {
            let what =
                "the image boots by BIOS only, and no BIOS starts from sectors of 4096 bytes";
            return Err(unsupported(what, Some("build with --sector-size 512")));
        }
        boot.warnings.push(
            "the boot loader for BIOS is left out: no BIOS starts from sectors of 4096 bytes"
                .to_owned(),
        );
    }
    let packages: Vec<String> = efi::packages(root).into_iter().map(|(name, _)| name).collect();
    let loader = components::choose(
        options.loader,
        efi_metadata.as_ref(),
        &packages,
        bios_metadata.is_some(),
        options.composefs,
    )?;
    boot.loader = Some(loader);
    for metadata in efi_metadata.iter_mut().chain(&mut bios_metadata) {
        loader.filter(metadata);
    }
    if loader != Loader::Grub {
        let Some(metadata) = efi_metadata else { return Err(nothing_found(root)) };
        return on_esp(root, contents, options, loader, &metadata, boot);
    }
    let configs = grub::Configs::read(root, contents)?;
    boot.warnings.extend(configs.warnings.iter().cloned());
    configs.install(&mut boot.boot, contents, options)?;
    let mut state = state::State::default();

    if let Some(metadata) = bios_metadata {
        match bios::modules(root) {
            Some(modules) => {
                let core = bios::install(root, modules, contents, options, &mut boot.boot)?;
                boot.found.push(format!("BIOS: {}, {core}", version(&metadata)));
                boot.bios = Some(core);
                state.add("BIOS", &metadata, None);
            }
            None => boot.warnings.push(format!(
                "the image announces a boot loader for BIOS ({UPDATES}/BIOS.json) but lacks its files in /{}",
                bios::DIRECTORY
            )),
        }
    }
    if let Some(metadata) = efi_metadata {
        let payload = efi::Payload::find(root, contents, loader)?;
        let vendor = payload.vendor(options.architecture)?;
        boot.found.push(format!("UEFI: {}, {payload}, vendor {vendor}", version(&metadata)));
        let mut esp = payload.esp();
        configs.install_stub(&mut esp, &vendor, contents, options)?;
        boot.esp = Some(esp);
        // Where bootc mounts the ESP to install, and leaves the directory; without it, bootupd would mount it over /boot.
        boot.boot.make_directories("efi", &Metadata::root(0o755));
        state.add("EFI", &metadata, Some(&payload.file_tree(contents)?));
    }
    if boot.esp.is_none() && boot.bios.is_none() {
        return Err(unsupported(boot.warnings.join("; "), Some(NO_BOOTLOADER)));
    }

    let state = contents
        .insert_bytes(&state.json(bootupd::version(root, contents)?.as_deref(), options.time)?)?;
    boot.boot.create(Tree::ROOT, state::FILE, Metadata::root(0o644), Kind::File(state));
    Ok(boot)
}

/// A boot loader behind the shim that reads its entries from the ESP, as bootupd 0.3 installs it: without configuration of GRUB, without
/// anything for a BIOS, and with bootupd's state on the ESP.
fn on_esp(
    root: &Tree,
    contents: &ContentStore,
    options: &BootOptions,
    loader: Loader,
    metadata: &Value,
    mut boot: Boot,
) -> Result<Boot> {
    let payload = efi::Payload::find(root, contents, loader)?;
    let vendor = payload.vendor(options.architecture)?;
    boot.found.push(format!("UEFI: {loader}, {}, {payload}, vendor {vendor}", version(metadata)));
    let mut esp = payload.esp();
    let mut state = state::State::default();
    state.add("EFI", metadata, Some(&payload.file_tree(contents)?));
    let state = contents
        .insert_bytes(&state.json(bootupd::version(root, contents)?.as_deref(), options.time)?)?;
    esp.create(Tree::ROOT, state::FILE, Metadata::root(0o644), Kind::File(state));
    systemd_boot::complete(&mut esp, root, contents)?;
    // What bootc writes where nobody has.
    systemd_boot::put(&mut esp, "loader/loader.conf", b"timeout 5", contents)?;
    boot.esp = Some(esp);
    Ok(boot)
}

/// What an image says about one of bootupd's components; `None`: it does not have it.
fn component(root: &Tree, contents: &ContentStore, name: &str) -> Result<Option<Value>> {
    let path = format!("{UPDATES}/{name}.json");
    let Some(bytes) = read(root, contents, &path)? else { return Ok(None) };
    let broken = |reason: &str| corrupt(path.clone(), reason);
    if bytes.len() > LARGEST_METADATA {
        return Err(broken(&format!("{} bytes are too many for it", bytes.len())));
    }
    let metadata: Value = serde_json::from_slice(&bytes).map_err(|e| broken(&e.to_string()))?;
    for key in ["timestamp", "version"] {
        if !metadata.get(key).is_some_and(Value::is_string) {
            return Err(broken(&format!("it has no {key}")));
        }
    }
    Ok(Some(metadata))
}

fn version(metadata: &Value) -> &str {
    metadata.get("version").and_then(Value::as_str).unwrap_or_default()
}

/// A small file of the image, if it is there. No configuration and no module comes near the limit.
fn read(root: &Tree, contents: &ContentStore, path: &str) -> Result<Option<Vec<u8>>> {
    Files { root, contents }.bytes(path, LARGEST_WHOLE)
}

/// Names, bytewise sorted, in a directory of the image; none if it is not there.
fn names(root: &Tree, path: &str) -> Vec<String> {
    let Some(id) = root.resolve(path) else { return Vec::new() };
    let names = root.inode(id).children();
    names.filter_map(|(name, _)| String::from_utf8(name.to_vec()).ok()).collect()
}

/// Kinds that boot in another way, and that an installed GRUB would not boot.
///
/// bootc installs a unified kernel image if there is one in `boot/EFI/Linux`, else the kernel in `usr/lib/modules`. One that
/// lies beside a `vmlinuz` there, as package kernel-uki-virt has it, boots nothing.
fn refuse_other_kinds(root: &Tree) -> Result<()> {
    let unified = |directory: &str| {
        names(root, directory).into_iter().find(|name| name.to_ascii_lowercase().ends_with(".efi"))
    };
    let modules = names(root, "usr/lib/modules").into_iter();
    let without_kernel = modules
        .map(|version| format!("usr/lib/modules/{version}"))
        .filter(|directory| root.file(&format!("{directory}/vmlinuz")).is_none());
    for directory in ["boot/EFI/Linux".to_owned()].into_iter().chain(without_kernel) {
        if let Some(name) = unified(&directory) {
            let what = format!(
                "the image boots a unified kernel image, {directory}/{name}; \
                 only images with a separate kernel and initramfs can be installed"
            );
            return Err(unsupported(what, Some(NO_BOOTLOADER)));
        }
    }
    Ok(())
}

/// The error for an image without any component: says what was looked for.
fn nothing_found(root: &Tree) -> anyhow::Error {
    let systemd_boot = names(root, "usr/lib/systemd/boot/efi");
    if systemd_boot.iter().any(|name| name.starts_with("systemd-boot")) {
        let what =
            "the image boots with systemd-boot; only GRUB with bootupd's payload can be installed";
        return unsupported(what, Some(NO_BOOTLOADER));
    }
    let looked_for = [
        format!("{UPDATES}/EFI.json"),
        format!("{UPDATES}/EFI or usr/lib/efi"),
        grub::PRE.to_owned(),
        grub::EFI.to_owned(),
    ];
    let missing = looked_for
        .into_iter()
        .filter(|paths| paths.split(" or ").all(|path| root.resolve(path).is_none()))
        .collect::<Vec<_>>();
    let what = format!("the image brings no boot loader: it lacks {}", missing.join(", "));
    unsupported(what, Some(NO_BOOTLOADER))
}
