//! An image's files, made an installer: what lorax' template `runtime-postinstall` and image-builder's stages for its type
//! `bootc-installer` change, without running anything of the image.
//!
//! What those two do besides makes files smaller or refreshes caches (of fonts, of schemas) that an image has made when its
//! packages came.

use anyhow::{Context, Result};

use super::Anaconda;
use crate::architecture::Architecture;
use crate::content::ContentStore;
use crate::error::unsupported;
use crate::tree::{InodeId, Kind, Metadata, Tree};

/// Anaconda's modules that a kickstart for an image needs, all of `org.fedoraproject.Anaconda.Modules` (image-builder,
/// initAnacondaInstallerBaseFromSourceInfo).
const MODULES: [&str; 7] =
    ["Network", "Payloads", "Runtime", "Security", "Services", "Storage", "Users"];

/// Units that would change the installer under its feet, or wait for what is not there (lorax).
const MASKED: [&str; 9] = [
    "fedora-autorelabel-mark.service",
    "fedora-autorelabel.service",
    "fedora-configure.service",
    "fedora-loadmodules.service",
    "fedora-wait-storage.service",
    "ldconfig.service",
    "media.mount",
    "systemd-tmpfiles-clean.service",
    "systemd-tmpfiles-clean.timer",
];

/// Units of an installed bootc system that have no place in its installer: updates, growth, boot loader.
const OF_THE_SYSTEM: [&str; 6] = [
    "bootc-fetch-apply-updates.timer",
    "bootc-generic-growpart.service",
    "bootloader-update.service",
    "ostree-finalize-staged.path",
    "rpm-ostreed-automatic.timer",
    "systemd-remount-fs.service",
];

/// Links below `etc/systemd/system` that start what an installer does not want (lorax).
const DISABLED: [&str; 5] = [
    "dnf-makecache.timer",
    "lvm2-monitor.service",
    "sshd.socket",
    "systemd-readahead-collect.service",
    "systemd-readahead-replay.service",
];

/// Files that would do harm in an installer (lorax), or only make it larger (image-builder, installerBootExcludePaths).
const REMOVED: [&str; 14] = [
    "boot/efi",
    "boot/grub2",
    "boot/loader",
    "etc/lvm/archive",
    "etc/lvm/backup",
    "etc/lvm/cache",
    "etc/nvme/hostid",
    "etc/nvme/hostnqn",
    "usr/lib/sysimage/rpm",
    "usr/lib/systemd/system-generators/lvm2-activation-generator",
    "usr/lib/systemd/system-generators/systemd-gpt-auto-generator",
    "usr/lib/systemd/system/rngd.service",
    "usr/lib/tmpfiles.d/etc.conf",
    "var/log/journal",
];

/// Small files (lorax, and `etc/selinux/config` image-builder, too).
const TEXTS: [(&str, &str); 9] = [
    ("etc/depmod.d/dd.conf", "search updates built-in\n"),
    ("etc/fstab", ""),
    ("etc/locale.conf", "LANG=C.UTF-8\n"),
    ("etc/lvm/lvm.conf", "global {\n\tuse_lvmetad = 1\n}\nactivation {\n\tmonitoring = 0\n}\n"),
    ("etc/mdadm.conf", "HOMEHOST <ignore>\n"),
    ("etc/multipath.conf", "defaults {\n\tfind_multipaths smart\n\tuser_friendly_names yes\n}\n"),
    ("etc/sysctl.d/anaconda.conf", "kernel.printk = 1\n"),
    ("usr/lib/systemd/logind.conf.d/anaconda-shell.conf", "[Login]\nReserveVT=2\n"),
    (
        "etc/ssh/sshd_config.anaconda",
        "PermitRootLogin yes\nPermitEmptyPasswords yes\nPasswordAuthentication yes\nUsePAM yes\nSubsystem sftp internal-sftp\n",
    ),
];

/// Where root's home is in a bootc image.
const HOME: &str = "/var/roothome";

/// The tree of the installer's root file system.
pub(super) fn installer(
    image: &Tree,
    architecture: Architecture,
    anaconda: &Anaconda,
    contents: &ContentStore,
) -> Result<Tree> {
    let mut root = Root { tree: image.clone(), contents };
    root.move_etc();
    for path in REMOVED {
        root.remove(path);
    }
    for (path, text) in TEXTS {
        root.write(path, 0o644, text)?;
    }
    root.accounts()?;
    root.units()?;
    root.permissive()?;
    if let Some(stub) = root.tree.file("usr/share/anaconda/list-harddrives-stub").cloned() {
        root.put("usr/bin/list-harddrives", 0o755, Kind::File(stub))?;
    }
    for (path, target) in [("modules", "usr/lib/modules"), ("firmware", "usr/lib/firmware")] {
        root.put(path, 0o777, Kind::Symlink(target.as_bytes().into()))?;
    }
    for (path, mode) in
        [("var/roothome", 0o700), ("var/mnt", 0o755), ("var/tmp", 0o1777), ("var/log", 0o755)]
    {
        let directory = root.directory(path)?;
        root.tree.inode_mut(directory).metadata.mode = mode;
    }
    root.put("var/mnt/install", 0o777, Kind::Symlink(b"../../run/install".as_slice().into()))?;
    root.write("etc/anaconda/conf.d/90-osbuild.conf", 0o644, &modules(anaconda))?;
    root.write(".buildstamp", 0o644, &build_stamp(architecture, anaconda))?;
    Ok(root.tree)
}

/// In the form of Python's configparser, as Anaconda reads it.
fn modules(anaconda: &Anaconda) -> String {
    let named = |name: &str| {
        if name.contains('.') {
            name.to_owned()
        } else {
            format!("org.fedoraproject.Anaconda.Modules.{name}")
        }
    };
    let list = |names: Vec<String>| -> String {
        names.iter().map(|name| format!("    {name}\n")).collect()
    };
    let disabled: Vec<String> = anaconda.disabled_modules.iter().map(|name| named(name)).collect();
    let mut enabled: Vec<String> = MODULES
        .into_iter()
        .chain(anaconda.enabled_modules.iter().map(String::as_str))
        .map(named)
        .filter(|name| !disabled.contains(name))
        .collect();
    enabled.sort();
    enabled.dedup();
    let mut text = format!("[Anaconda]\nactivatable_modules =\n{}", list(enabled));
    if !disabled.is_empty() {
        text += &format!("forbidden_modules =\n{}", list(disabled));
    }
    text
}

/// What Anaconda says that it installs (org.osbuild.buildstamp).
fn build_stamp(architecture: Architecture, anaconda: &Anaconda) -> String {
    let (product, version) = &anaconda.product;
    format!(
        "[Main]\nProduct = {product}\nVersion = {version}\nIsFinal = True\nUUID = 197001010000.{}\n\n[Compose]\nbootpress = {}\n",
        architecture.name(),
        env!("CARGO_PKG_VERSION")
    )
}

/// The tree while it is changed.
struct Root<'a> {
    tree: Tree,
    contents: &'a ContentStore,
}

impl Root<'_> {
    /// A commit keeps `/etc` in `/usr`.
    fn move_etc(&mut self) {
        let Some(usr) = self.tree.find("usr") else { return };
        if self.tree.find("etc").is_none_or(|etc| self.tree.inode(etc).children().next().is_none())
            && let Some(etc) = self.tree.unlink(usr, b"etc")
        {
            self.tree.link(Tree::ROOT, b"etc", etc);
        }
    }

    /// The directory of a path, following links; what is missing is made.
    fn directory(&mut self, path: &str) -> Result<InodeId> {
        let mut so_far = String::new();
        let mut directory = Tree::ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            so_far.push('/');
            so_far.push_str(name);
            directory = match self.tree.lookup(directory, name.as_bytes()) {
                None => self.tree.create(
                    directory,
                    name.as_bytes(),
                    Metadata::root(0o755),
                    Kind::directory(),
                ),
                Some(_) => self
                    .tree
                    .resolve(&so_far)
                    .filter(|&found| self.tree.inode(found).is_directory())
                    .ok_or_else(|| {
                        unsupported(
                            format!(
                                "{so_far} of the image is not a directory, and Anaconda needs one"
                            ),
                            None,
                        )
                    })?,
            };
        }
        Ok(directory)
    }

    /// Puts something at a path, in the place of what was there.
    fn put(&mut self, path: &str, mode: u16, kind: Kind) -> Result<()> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.directory(directory)?;
        self.tree.create(directory, name.as_bytes(), Metadata::root(mode), kind);
        Ok(())
    }

    fn write(&mut self, path: &str, mode: u16, text: &str) -> Result<()> {
        let content = self.contents.insert_bytes(text.as_bytes())?;
        self.put(path, mode, Kind::File(content))
    }

    fn read(&self, path: &str) -> Result<String> {
        let Some(content) = self.tree.file(path) else { return Ok(String::new()) };
        let bytes = self.contents.bytes(content).with_context(|| format!("reading {path}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn remove(&mut self, path: &str) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        if let Some(directory) = self.tree.resolve(directory)
            && self.tree.inode(directory).is_directory()
        {
            self.tree.unlink(directory, name.as_bytes());
        }
    }

    /// Nobody needs a password; `install` is whose shell Anaconda is.
    fn accounts(&mut self) -> Result<()> {
        let mut passwd = self.read("etc/passwd")?;
        let mut shadow = String::new();
        for line in self.read("etc/shadow")?.lines() {
            let mut fields: Vec<&str> = line.split(':').collect();
            if fields[0] == "root" && fields.len() > 1 {
                fields[1] = "";
            }
            shadow += &fields.join(":");
            shadow.push('\n');
        }
        for (name, entry) in [
            ("install", format!("x:0:0:root:{HOME}:/usr/libexec/anaconda/run-anaconda")),
            ("install-user", "x:1001:1001::/tmp/install-user:/usr/bin/bash".to_owned()),
        ] {
            let start = format!("{name}:");
            passwd = passwd
                .lines()
                .filter(|line| !line.starts_with(&start))
                .fold(String::new(), |text, line| text + line + "\n");
            passwd += &format!("{start}{entry}\n");
            shadow = shadow
                .lines()
                .filter(|line| !line.starts_with(&start))
                .fold(String::new(), |text, line| text + line + "\n");
            shadow += &format!("{start}:14438:0:99999:7:::\n");
        }
        self.write("etc/passwd", 0o644, &passwd)?;
        self.write("etc/shadow", 0, &shadow)
    }

    /// Anaconda is what starts.
    fn units(&mut self) -> Result<()> {
        const SYSTEM: &str = "etc/systemd/system";
        let link = |target: &str| Kind::Symlink(target.as_bytes().into());
        self.put(
            &format!("{SYSTEM}/default.target"),
            0o777,
            link("/usr/lib/systemd/system/anaconda.target"),
        )?;
        self.put(
            &format!("{SYSTEM}/local-fs.target.wants/tmp.mount"),
            0o777,
            link("/usr/lib/systemd/system/tmp.mount"),
        )?;
        for unit in MASKED.iter().chain(&OF_THE_SYSTEM) {
            self.put(&format!("{SYSTEM}/{unit}"), 0o777, link("/dev/null"))?;
        }
        self.put("usr/lib/systemd/system/autovt@.service", 0o777, link("anaconda-shell@.service"))?;
        let wanted: Vec<(InodeId, Vec<u8>)> = self
            .tree
            .resolve(SYSTEM)
            .into_iter()
            .flat_map(|system| self.tree.inode(system).children())
            .filter(|(name, _)| name.ends_with(b".wants") || name.ends_with(b".requires"))
            .flat_map(|(_, directory)| {
                self.tree
                    .inode(directory)
                    .children()
                    .map(move |(name, _)| (directory, name.to_vec()))
            })
            .filter(|(_, name)| DISABLED.iter().any(|unit| unit.as_bytes() == name))
            .collect();
        for (directory, name) in wanted {
            self.tree.unlink(directory, &name);
        }
        Ok(())
    }

    /// Anaconda cannot work where the policy of the image is enforced (image-builder, payloadStages).
    fn permissive(&mut self) -> Result<()> {
        const CONFIG: &str = "etc/selinux/config";
        if self.tree.file(CONFIG).is_none() {
            return Ok(());
        }
        let lines = self.read(CONFIG)?;
        let text = lines.lines().fold(String::new(), |text, line| {
            let line = if line.trim() == "SELINUX=enforcing" { "SELINUX=permissive" } else { line };
            text + line + "\n"
        });
        self.write(CONFIG, 0o644, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anaconda() -> Anaconda {
        Anaconda {
            payload: Tree::new(Metadata::root(0o755)),
            kickstart: String::new(),
            kickstart_base: String::new(),
            enabled_modules: vec!["org.fedoraproject.Anaconda.Modules.Localization".to_owned()],
            disabled_modules: vec!["org.fedoraproject.Anaconda.Modules.Users".to_owned()],
            arguments: Vec::new(),
            menu_timeout: 60,
            product: ("Tiny".to_owned(), "1".to_owned()),
        }
    }

    #[test]
    fn modules_that_are_disabled_are_not_enabled() {
        let text = modules(&anaconda());
        let (enabled, disabled) = text.split_once("forbidden_modules =\n").unwrap();
        assert!(enabled.starts_with("[Anaconda]\nactivatable_modules =\n    org.fedoraproject.Anaconda.Modules.Localization\n"));
        assert!(!enabled.contains("Users") && enabled.contains(".Storage\n"), "{enabled}");
        assert_eq!(disabled, "    org.fedoraproject.Anaconda.Modules.Users\n");
    }

    #[test]
    fn what_starts_is_anaconda_and_nobody_needs_a_password() {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let mut root = Root { tree: Tree::new(Metadata::root(0o755)), contents: &contents };
        root.write("usr/etc/shadow", 0, "root:!locked:1::::::\nbin:*:1::::::\n").unwrap();
        root.write("usr/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\ninstall:x:7:7:::\n")
            .unwrap();
        root.write("usr/etc/selinux/config", 0o644, "# a\nSELINUX=enforcing\nSELINUXTYPE=x\n")
            .unwrap();
        root.write("usr/etc/systemd/system/sockets.target.wants/sshd.socket", 0o644, "").unwrap();
        root.put("lib", 0o777, Kind::Symlink(b"usr/lib".as_slice().into())).unwrap();
        let tree = installer(&root.tree, Architecture::X86_64, &anaconda(), &contents).unwrap();
        let text = |path: &str| {
            let bytes =
                contents.bytes(tree.file(path).unwrap_or_else(|| panic!("{path}"))).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        assert!(text("etc/shadow").starts_with("root::1::::::\nbin:*:1::::::\ninstall::14438"));
        assert_eq!(text("etc/passwd").matches("install:").count(), 1);
        assert_eq!(text("etc/selinux/config"), "# a\nSELINUX=permissive\nSELINUXTYPE=x\n");
        assert!(tree.find("etc/systemd/system/sockets.target.wants/sshd.socket").is_none());
        assert!(tree.find("usr/etc").is_none());
        assert!(tree.find("etc/systemd/system/default.target").is_some());
        assert!(text(".buildstamp").contains("Product = Tiny\n"));
    }

    #[test]
    fn what_is_in_the_way_is_told() {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let mut root = Root { tree: Tree::new(Metadata::root(0o755)), contents: &contents };
        root.write("etc", 0o644, "no directory").unwrap();
        let error = root.write("etc/fstab", 0o644, "").unwrap_err();
        assert!(error.to_string().starts_with("/etc of the image is not a directory"), "{error:#}");
    }
}
