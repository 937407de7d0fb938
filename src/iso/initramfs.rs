//! The initramfs that a medium adds to the image's own: modules, programs and units that find the disk on it.
//!
//! ```text
//! usr/lib/bootpress/
//!   bin/ lib/          programs of the image and their libraries, started through their own loader
//!   modules/           decompressed, and modules.list: name and file, in order
//!   live.sh            makes /dev/mapper/live-root
//!   install.sh units/  what the live system gets in /run
//! usr/lib/systemd/system/…   where the image's initramfs has systemd: starts live.sh before the root is mounted
//! init lib lib64 …           where it has not: an initramfs of its own, in the place of the image's
//! ```

use anyhow::Result;

use super::cpio;
use super::modules::Module;
use super::programs::Programs;
use crate::content::{Content, ContentStore};
use crate::tree::{Kind, Metadata, Tree};

/// Where all of it lies.
const HERE: &str = "usr/lib/bootpress";

/// What the script starts, besides the shell: (name to call it by, program of the image).
pub(super) const PROGRAMS: [(&str, &str); 10] = [
    ("sh", "sh"),
    ("mount", "mount"),
    ("umount", "umount"),
    ("losetup", "losetup"),
    ("dmsetup", "dmsetup"),
    ("insmod", "kmod"),
    ("mkdir", "mkdir"),
    ("cp", "cp"),
    ("sleep", "sleep"),
    ("truncate", "truncate"),
];

/// What an initramfs of our own needs besides.
pub(super) const OWN_PROGRAMS: [(&str, &str); 2] =
    [("chroot", "chroot"), ("ostree-prepare-root", "usr/lib/ostree/ostree-prepare-root")];

/// What would change the medium's system, or wait for a network to do so: growth, boot loader, updates.
const MASKED: [&str; 7] = [
    "bootc-fetch-apply-updates.timer",
    "bootc-generic-growpart.service",
    "bootloader-update.service",
    "ostree-finalize-staged.path",
    "rpm-ostreed-automatic.timer",
    "systemd-growfs-root.service",
    "systemd-repart.service",
];

/// What initramfs the image brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kindred {
    /// One with systemd, as dracut makes it: ours adds to it.
    Systemd,
    /// None, or one made by other means: ours takes its place, and its work.
    Own,
}

/// What goes in.
pub(super) struct Parts<'a> {
    pub(super) kindred: Kindred,
    pub(super) modules: &'a [Module],
    pub(super) programs: &'a Programs,
    /// `medium.conf`, for the scripts.
    pub(super) settings: &'a str,
    /// The configuration of `ostree-prepare-root`, for [`Kindred::Own`].
    pub(super) prepare_root: Option<&'a Content>,
}

/// The archive.
pub(super) fn build(parts: &Parts<'_>, contents: &ContentStore) -> Result<Content> {
    let mut archive = Archive { tree: Tree::new(Metadata::root(0o755)), contents };
    for (name, content) in &parts.programs.programs {
        archive.put(&format!("{HERE}/bin/{name}"), 0o755, content.clone());
    }
    for (name, content) in &parts.programs.libraries {
        archive.put(&format!("{HERE}/lib/{name}"), 0o755, content.clone());
    }
    let mut list = String::new();
    for module in parts.modules {
        list.push_str(&format!("{0} {0}.ko\n", module.name));
        archive.bytes(&format!("{HERE}/modules/{}.ko", module.name), 0o644, &module.bytes)?;
    }
    archive.bytes(&format!("{HERE}/modules.list"), 0o644, list.as_bytes())?;
    archive.bytes(&format!("{HERE}/medium.conf"), 0o644, parts.settings.as_bytes())?;
    archive.bytes(&format!("{HERE}/live.sh"), 0o755, include_bytes!("guest/live.sh"))?;
    archive.bytes(&format!("{HERE}/install.sh"), 0o755, include_bytes!("guest/install.sh"))?;
    archive.bytes(&format!("{HERE}/motd"), 0o644, include_bytes!("guest/motd"))?;
    archive.units()?;
    match parts.kindred {
        Kindred::Systemd => archive.hook(&parts.programs.loader)?,
        Kindred::Own => archive.own(parts)?,
    }
    cpio::write(&archive.tree, contents)
}

/// The archive that a machine needs besides if it boots from the network: the container with the disk, the list of its extents,
/// and, behind them, the file that says that all of it has arrived.
pub(super) fn carrying(
    container: &Content,
    extents: &str,
    whole: &str,
    contents: &ContentStore,
) -> Result<Content> {
    let mut archive = Archive { tree: Tree::new(Metadata::root(0o755)), contents };
    archive.put(&format!("{HERE}/disk.squashfs"), 0o444, container.clone());
    archive.bytes(&format!("{HERE}/extents"), 0o444, extents.as_bytes())?;
    archive.bytes(&format!("{HERE}/whole"), 0o444, whole.as_bytes())?;
    cpio::write(&archive.tree, contents)
}

struct Archive<'a> {
    tree: Tree,
    contents: &'a ContentStore,
}

impl Archive<'_> {
    fn put(&mut self, path: &str, mode: u16, content: Content) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.tree.make_directories(directory, &Metadata::root(0o755));
        self.tree.create(directory, name.as_bytes(), Metadata::root(mode), Kind::File(content));
    }

    fn bytes(&mut self, path: &str, mode: u16, bytes: &[u8]) -> Result<()> {
        let content = self.contents.insert_bytes(bytes)?;
        self.put(path, mode, content);
        Ok(())
    }

    fn link(&mut self, path: &str, target: &str) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.tree.make_directories(directory, &Metadata::root(0o755));
        let kind = Kind::Symlink(target.as_bytes().into());
        self.tree.create(directory, name.as_bytes(), Metadata::root(0o777), kind);
    }

    /// What `/run/systemd/system` of the live system gets.
    fn units(&mut self) -> Result<()> {
        let units: [(&str, &[u8]); 4] = [
            ("bootpress-config.service", include_bytes!("guest/bootpress-config.service")),
            ("bootpress-install.service", include_bytes!("guest/bootpress-install.service")),
            ("bootpress-install.target", include_bytes!("guest/bootpress-install.target")),
            ("bootpress-reserve.service", include_bytes!("guest/bootpress-reserve.service")),
        ];
        for (name, text) in units {
            self.bytes(&format!("{HERE}/units/{name}"), 0o644, text)?;
        }
        for unit in ["bootpress-config.service", "bootpress-reserve.service"] {
            let wanted = format!("{HERE}/units/sysinit.target.wants/{unit}");
            self.link(&wanted, &format!("../{unit}"));
        }
        for unit in MASKED {
            self.link(&format!("{HERE}/units/{unit}"), "/dev/null");
        }
        Ok(())
    }

    /// Has the initramfs' systemd start the script.
    fn hook(&mut self, loader: &str) -> Result<()> {
        const SYSTEM: &str = "usr/lib/systemd/system";
        let unit = include_str!("guest/bootpress-live.service").replace("@LOADER@", loader);
        self.bytes(&format!("{SYSTEM}/bootpress-live.service"), 0o644, unit.as_bytes())?;
        self.link(
            &format!("{SYSTEM}/initrd-root-device.target.wants/bootpress-live.service"),
            "../bootpress-live.service",
        );
        let drop_in = include_bytes!("guest/sysroot.conf");
        self.bytes(&format!("{SYSTEM}/sysroot.mount.d/10-bootpress.conf"), 0o644, drop_in)
    }

    /// Makes the script the init, and the loader's usual places lead to the libraries.
    fn own(&mut self, parts: &Parts<'_>) -> Result<()> {
        for directory in ["dev", "proc", "sys", "run", "sysroot", "etc", "tmp"] {
            self.tree.make_directories(directory, &Metadata::root(0o755));
        }
        self.bytes("etc/initrd-release", 0o644, b"ID=bootpress\n")?;
        for name in ["lib", "lib64"] {
            self.link(name, &format!("{HERE}/lib"));
        }
        self.link("init", &format!("{HERE}/live.sh"));
        if let Some(config) = parts.prepare_root {
            self.put("usr/lib/ostree/prepare-root.conf", 0o644, config.clone());
        }
        Ok(())
    }
}

/// What the initramfs of an image is.
pub(super) fn kindred(initramfs: Option<&Content>, contents: &ContentStore) -> Kindred {
    let Some(initramfs) = initramfs else { return Kindred::Own };
    // One that cannot be looked into is most likely one of dracut's, with another compression.
    match cpio::contains(contents.reader(initramfs), b"usr/lib/systemd/systemd") {
        Some(false) => Kindred::Own,
        Some(true) | None => Kindred::Systemd,
    }
}
