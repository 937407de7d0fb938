//! What UEFI firmware starts on a medium: the image's shim and GRUB, with a menu of the medium's own.

use anyhow::{Context, Result};

use crate::architecture::Architecture;
use crate::bootloader::Boot;
use crate::content::Content;
use crate::error::unsupported;
use crate::tree::{Kind, Metadata, Tree};

/// The image's EFI files as a medium has them.
pub(super) struct Efi {
    tree: Tree,
    /// The directory with the shim, below `EFI`.
    vendor: String,
    suffix: &'static str,
}

impl Efi {
    /// Takes those that start media. `Unsupported`: there are none.
    pub(super) fn of(boot: &Boot, architecture: Architecture) -> Result<Self> {
        let Some(esp) = &boot.esp else {
            return Err(unsupported(
                "the image brings nothing that UEFI firmware starts, and media start from UEFI",
                Some("add shim and GRUB for UEFI to the image"),
            ));
        };
        let suffix = architecture.efi_suffix();
        let shim = format!("shim{suffix}.efi");
        let vendor = esp.walk().find_map(|(path, _)| {
            let path = String::from_utf8(path).ok()?;
            let (directory, name) = path.rsplit_once('/')?;
            name.eq_ignore_ascii_case(&shim)
                .then(|| directory.trim_start_matches("EFI/").to_owned())
        });
        let vendor =
            vendor.with_context(|| format!("looking for {shim} among the image's EFI files"))?;
        let mut efi = Self { tree: Tree::new(Metadata::root(0o755)), vendor, suffix };
        for (path, id) in esp.walk() {
            let (Ok(path), Kind::File(content)) = (String::from_utf8(path), &esp.inode(id).kind)
            else {
                continue;
            };
            if efi.belongs(&path) {
                efi.put(&path, content.clone());
            }
        }
        // A shim starts what lies beside it.
        for name in [format!("grub{suffix}.efi"), format!("mm{suffix}.efi")] {
            let content = esp.file(&format!("EFI/{}/{name}", efi.vendor)).cloned();
            if let Some(content) = content
                && efi.tree.find(&format!("EFI/BOOT/{name}")).is_none()
            {
                efi.put(&format!("EFI/BOOT/{name}"), content);
            }
        }
        Ok(efi)
    }

    /// Not the disk's configuration; and not what would give the medium an entry in the firmware's own list.
    fn belongs(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
        let configuration = ["grub.cfg", "bootuuid.cfg", "grubenv"].contains(&name.as_str());
        let fallback = name == format!("fb{}.efi", self.suffix) || name.ends_with(".csv");
        !configuration && !fallback
    }

    fn put(&mut self, path: &str, content: Content) {
        self.tree.put(path, content);
    }

    /// Adds the menu where GRUB may look for it: beside the one that is started, and where it was made to look.
    pub(super) fn with_menu(&self, grub_cfg: &Content) -> Tree {
        let mut tree = self.tree.clone();
        for directory in ["BOOT", &self.vendor] {
            let path = format!("EFI/{directory}/grub.cfg");
            if tree.find(&path).is_none() {
                tree.put(&path, grub_cfg.clone());
            }
        }
        tree
    }

    /// A program beside the one that firmware starts.
    pub(super) fn boot_file(&self, name: &str) -> Option<&Content> {
        self.tree.file(&format!("EFI/BOOT/{name}"))
    }

    /// How the names of programs for this architecture end: `x64`.
    pub(super) fn suffix(&self) -> &'static str {
        self.suffix
    }

    /// Path of the installed shim as firmware spells it.
    pub(super) fn loader_path(&self) -> String {
        format!("\\EFI\\{}\\shim{}.efi", self.vendor, self.suffix)
    }
}
