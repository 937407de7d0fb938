//! systemd-boot, as `bootctl install` puts it onto an ESP, and what else bootc puts beside it.
//!
//! ```text
//! EFI/systemd/systemd-bootx64.efi   EFI/BOOT/BOOTX64.EFI   the same program, the signed one if there is one
//! EFI/Linux/                        loader/entries/        loader/entries.srel: the kind of entries that is written
//! loader/loader.conf                loader/keys/NAME/*.auth: what a firmware in setup mode enrols for Secure Boot
//! ```
//!
//! Source: records of disks that bootc 1.16.9 made; bootctl(1) of systemd 258; bootc 1.17, `bootloader.rs`.

use anyhow::Result;

use super::components::Loader;
use super::{Boot, BootOptions, UPDATES, efi, names};
use crate::content::ContentStore;
use crate::error::{corrupt, unsupported};
use crate::tree::{Kind, Metadata, Tree};

/// Where the program is in an image.
const PROGRAMS: &str = "usr/lib/systemd/boot/efi";

/// Where an image brings keys for Secure Boot, one directory a set.
const KEYS: &str = "usr/lib/bootc/install/secureboot-keys";

/// What bootctl writes: everything in it is a comment.
const LOADER_CONF: &[u8] = b"#timeout 3\n#console-mode keep\n";

/// The kind of entries that kernel-install and bootc write (UAPI.1).
const ENTRIES_SREL: &[u8] = b"type1\n";

/// Whether systemd-boot is installed, and not through bootupd: it is asked for and is none of bootupd's components, or nobody says
/// anything and there is no payload of bootupd's.
pub(super) fn is_for(root: &Tree, asked: Option<Loader>) -> bool {
    let component = efi::packages(root).iter().any(|(name, _)| name == "systemd-boot");
    match asked {
        Some(Loader::SystemdBoot) => !component,
        Some(_) => false,
        None => root.resolve(UPDATES).is_none(),
    }
}

/// Takes systemd-boot out of an image.
pub(super) fn prepare(root: &Tree, contents: &ContentStore, options: &BootOptions) -> Result<Boot> {
    let suffix = options.architecture.efi_suffix();
    let name = format!("systemd-boot{suffix}.efi");
    let paths = [format!("{PROGRAMS}/{name}.signed"), format!("{PROGRAMS}/{name}")];
    let found = paths.iter().find_map(|path| Some((path, root.file(path)?)));
    let Some((path, program)) = found else {
        return Err(unsupported(
            format!("the image has neither {UPDATES} nor {PROGRAMS}/{name}, and so no boot loader"),
            Some("install the package systemd-boot in the image, or GRUB with bootupd"),
        ));
    };
    let mut boot = Boot::none();
    boot.loader = Some(Loader::SystemdBoot);
    boot.found = vec![format!("UEFI: systemd-boot, {path}")];
    let mut esp = Tree::new(Metadata::root(0o755));
    let fallback = format!("EFI/BOOT/BOOT{}.EFI", suffix.to_ascii_uppercase());
    for place in [format!("EFI/systemd/{name}"), fallback] {
        let (directory, name) = place.rsplit_once('/').unwrap_or(("", &place));
        let directory = esp.make_directories(directory, &Metadata::root(0o755));
        let kind = Kind::File(program.clone());
        esp.create(directory, name.as_bytes(), Metadata::root(0o644), kind);
    }
    complete(&mut esp, root, contents)?;
    put(&mut esp, "loader/loader.conf", LOADER_CONF, contents)?;
    boot.esp = Some(esp);
    Ok(boot)
}

/// Makes what every boot loader wants that reads entries from the ESP, and adds the image's keys for Secure Boot.
pub(super) fn complete(esp: &mut Tree, root: &Tree, contents: &ContentStore) -> Result<()> {
    let plain = Metadata::root(0o755);
    for directory in ["EFI/Linux", "loader/keys", "loader/entries"] {
        esp.make_directories(directory, &plain);
    }
    put(esp, "loader/entries.srel", ENTRIES_SREL, contents)?;
    for set in names(root, KEYS) {
        let directory = format!("{KEYS}/{set}");
        if !root.resolve(&directory).is_some_and(|id| root.inode(id).is_directory()) {
            return Err(corrupt(directory, "it is not a directory of keys"));
        }
        for key in names(root, &directory).iter().filter(|name| name.ends_with(".auth")) {
            let path = format!("{directory}/{key}");
            let Some(content) = root.file(&path) else {
                return Err(corrupt(path, "it is not a file"));
            };
            let into = esp.make_directories(&format!("loader/keys/{set}"), &plain);
            let kind = Kind::File(content.clone());
            esp.create(into, key.as_bytes(), Metadata::root(0o644), kind);
        }
    }
    Ok(())
}

/// Puts a small file onto the ESP.
pub(super) fn put(esp: &mut Tree, path: &str, bytes: &[u8], contents: &ContentStore) -> Result<()> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let directory = esp.make_directories(directory, &Metadata::root(0o755));
    let content = contents.insert_bytes(bytes)?;
    esp.create(directory, name.as_bytes(), Metadata::root(0o644), Kind::File(content));
    Ok(())
}
