//! Kernel modules of the image in the order in which they have to be loaded.
//!
//! `modules.dep` says what a module needs, `modules.softdep` what it would rather have before, `modules.builtin` what the kernel
//! has anyway. Modules are decompressed here: not every program that loads them can.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use anyhow::{Context, Result};

use crate::content::ContentStore;
use crate::error::{corrupt, unsupported};
use crate::files::Files;
use crate::tree::Tree;

/// Larger than any module, so that a hostile one ends.
const LARGEST: u64 = 256 << 20;

/// Without these there is no live system.
const NEEDED: [&str; 5] = ["loop", "isofs", "squashfs", "dm_mod", "dm_snapshot"];

/// What finds the medium and the machine's disks, where the kernel has it as a module. The first ones make a store of changes
/// and a root; the others are buses and drives, for an initramfs that has no udev.
const WANTED: [&str; 28] = [
    "zram",
    "overlay",
    "erofs",
    "ext4",
    "xfs",
    "cdrom",
    "virtio_pci",
    "virtio_scsi",
    "virtio_blk",
    "xhci_pci",
    "xhci_pci_renesas",
    "ehci_pci",
    "uhci_hcd",
    "ohci_pci",
    "ahci",
    "ahci_platform",
    "ata_piix",
    "nvme",
    "mmc_block",
    "sdhci_pci",
    "sdhci_acpi",
    "usb_storage",
    "uas",
    "sd_mod",
    "sr_mod",
    "efivarfs",
    "nls_ascii",
    "nls_utf8",
];

/// A module to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Module {
    /// As `/sys/module` has it: with `_`.
    pub(super) name: String,
    /// What `insmod` reads: an ELF file with its signature.
    pub(super) bytes: Vec<u8>,
}

/// All modules that a live system has to load, in order. `Unsupported`: the kernel lacks one that is indispensable.
pub(super) fn load_order(
    root: &Tree,
    version: &str,
    contents: &ContentStore,
) -> Result<Vec<Module>> {
    let directory = format!("usr/lib/modules/{version}");
    let text = |name: &str| -> Result<String> {
        let text = Files { root, contents }.text(&format!("{directory}/{name}"))?;
        Ok(text.unwrap_or_default())
    };
    let index =
        Index::read(&text("modules.dep")?, &text("modules.softdep")?, &text("modules.builtin")?);
    for name in NEEDED {
        if !index.paths.contains_key(name) && !index.builtin.contains(name) {
            return Err(unsupported(
                format!(
                    "the image's kernel {version} has no module {name}, which a live system needs"
                ),
                Some(
                    "add the package with the kernel's further modules to the image (Fedora: kernel-modules-core, and kernel-modules for rarer ones)",
                ),
            ));
        }
    }
    let mut order = Vec::new();
    for name in NEEDED.into_iter().chain(WANTED) {
        index.visit(name, &mut order);
    }
    order
        .into_iter()
        .map(|name| {
            let path = format!("{directory}/{}", index.paths[&name]);
            let content = root
                .file(&path)
                .with_context(|| format!("modules.dep names {path}, which is not there"))?;
            let bytes = decompressed(&path, contents.reader(content))?;
            Ok(Module { name, bytes })
        })
        .collect()
}

fn decompressed(path: &str, packed: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let reader: Box<dyn Read> = match path.rsplit('.').next() {
        Some("xz") => Box::new(lzma_rust2::XzReader::new(packed, true)),
        Some("zst") => Box::new(zstd::Decoder::new(packed).context("starting zstd")?),
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        _ => Box::new(packed),
    };
    reader
        .take(LARGEST)
        .read_to_end(&mut bytes)
        .map_err(|error| corrupt(path, error.to_string()))?;
    Ok(bytes)
}

/// What depmod wrote down.
#[derive(Debug, Default)]
struct Index {
    /// Path below the kernel's directory, by name.
    paths: BTreeMap<String, String>,
    /// Names of what a module needs, or would rather have, before it.
    before: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

impl Index {
    fn read(dep: &str, softdep: &str, builtin: &str) -> Self {
        let mut index = Self::default();
        for (path, needed) in dep.lines().filter_map(|line| line.split_once(':')) {
            let name = name_of(path);
            index
                .before
                .entry(name.clone())
                .or_default()
                .extend(needed.split_whitespace().map(name_of));
            index.paths.insert(name, path.to_owned());
        }
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep") {
                continue;
            }
            let Some(name) = words.next() else { continue };
            let before = words
                .skip_while(|word| *word != "pre:")
                .skip(1)
                .take_while(|word| *word != "post:");
            index.before.entry(normal(name)).or_default().extend(before.map(normal));
        }
        index.builtin = builtin.lines().map(name_of).collect();
        index
    }

    /// Appends a module behind all that belongs before it; nothing if the kernel has it built in or not at all.
    fn visit(&self, name: &str, order: &mut Vec<String>) {
        let mut begun = BTreeSet::new();
        let mut stack = vec![name.to_owned()];
        while let Some(name) = stack.last().cloned() {
            if !self.paths.contains_key(&name) || order.contains(&name) {
                stack.pop();
            } else if begun.insert(name.clone()) {
                let before = self.before.get(&name).into_iter().flatten();
                stack.extend(before.filter(|name| !begun.contains(*name)).cloned());
            } else {
                stack.pop();
                order.push(name);
            }
        }
    }
}

/// `kernel/fs/isofs/isofs.ko.xz` is `isofs`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal(file.split(".ko").next().unwrap_or(file))
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_once_and_loops_end() {
        let dep = "kernel/a.ko.xz: kernel/b-b.ko kernel/c.ko\nkernel/b-b.ko: kernel/c.ko\nkernel/c.ko:\nkernel/s.ko: kernel/a.ko.xz\n";
        let softdep = "# comment\nsoftdep a pre: s built post: x\nsoftdep\n";
        let index = Index::read(dep, softdep, "kernel/fs/built.ko\n");
        let mut order = Vec::new();
        index.visit("a", &mut order);
        index.visit("b_b", &mut order);
        index.visit("none", &mut order);
        assert_eq!(order.iter().filter(|name| *name == "c").count(), 1);
        let place = |name: &str| order.iter().position(|other| other == name).unwrap();
        assert!(place("c") < place("b_b") && place("b_b") < place("a"), "{order:?}");
        assert!(place("s") < place("a") && order.len() == 4, "{order:?}");
        assert!(index.builtin.contains("built"));
    }
}
