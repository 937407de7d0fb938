//! What the image itself configures: install configuration, kernel arguments, prepare-root, kernel, title.
//!
//! Everything is read from the merged tree, in which `/etc` is `usr/etc`. Nothing here decides; it reports.

mod backend;
mod bound_images;
mod diagnosis;
mod grub_version;
mod install;
mod kernel_arguments;
mod keyfile;
mod lost;
mod os_release;
mod prepare_root;
mod setup_root;
mod systemd;

#[cfg(test)]
mod tests;

use anyhow::Result;

use crate::architecture::Architecture;
use crate::content::ContentStore;
use crate::error::{corrupt, unsupported};
use crate::files::{Files, configured};
use crate::filesystem_kind::XfsProfile;
use crate::image::Image;
use crate::installed::KernelFiles;
use crate::progress::Progress;
use crate::tree::{InodeId, Kind, Tree};

pub use backend::{Backend, BackendChoice};
pub use diagnosis::{Diagnosis, diagnose};
pub use install::{Bootloader, InstallConfig};
pub use kernel_arguments::{Mounts, command_line, composefs_command_line};
pub use lost::{Lost, lost_by_arguments};
pub use prepare_root::{Composefs, PrepareRoot};

/// Where kernels live, one directory a version.
const MODULES: &str = "usr/lib/modules";

/// The names under which an initramfs may lie beside its kernel, best first (ostree looks for these two).
const INITRAMFS: [&str; 2] = ["initramfs.img", "initramfs"];

/// The kernel of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `7.2.12-1.fc44.x86_64`: the name of the directory under `usr/lib/modules` that holds `vmlinuz`.
    pub version: String,
    /// The file beside `vmlinuz` that is the initramfs; `None`: there is none.
    pub initramfs: Option<&'static str>,
}

impl Kernel {
    /// Its files in a tree of the image.
    pub fn files(&self, root: &Tree) -> Result<KernelFiles> {
        let file = |name: &str| {
            let path = format!("{MODULES}/{}/{name}", self.version);
            root.file(&path)
                .cloned()
                .ok_or_else(|| unsupported(format!("the image has no /{path}"), None))
        };
        Ok(KernelFiles {
            version: self.version.clone(),
            linux: file("vmlinuz")?,
            initramfs: self.initramfs.map(file).transpose()?,
        })
    }
}

/// Everything that an image configures about its installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which storage backend installs it.
    pub backend: BackendChoice,
    /// Whether its initramfs reads `composefs.digest=`; older ones know `composefs=` only.
    pub reads_new_digest: bool,
    /// The text of os-release.
    pub os_release: String,
    /// `bootc/install/*.toml`, merged.
    pub install: InstallConfig,
    /// `bootc/kargs.d/*.toml` for this architecture, one element an argument, in the order of files and arrays.
    pub kernel_arguments: Vec<String>,
    /// `prepare-root.conf`.
    pub prepare_root: PrepareRoot,
    /// Directories that are others when the system runs.
    pub lost: Vec<Lost>,
    /// The version of its systemd, if that can be told.
    pub systemd: Option<u32>,
    /// Whether systemd unmounts a `/boot` on the root file system that nobody has used for two minutes.
    pub boot_idles: bool,
    /// The kernel.
    pub kernel: Kernel,
    /// Major and minor version of the oldest GRUB in the image; `None`: there is none, or none that says it.
    pub grub: Option<(u32, u32)>,
    /// What boot entries call the system: `PRETTY_NAME`, else `ID`, of os-release.
    pub title: String,
    /// What installers call it, and its version: `NAME` and `VERSION_ID` of os-release.
    pub product: (String, String),
    /// Home of root without leading `/`: the target of the link `/root` if it is one, else `root`.
    pub root_home: String,
    /// References of the images that shall be pulled beside the system (`bootc/bound-images.d`), in the order of their links.
    pub bound_images: Vec<String>,
}

impl Settings {
    /// Reads all of it. Unknown keys of the install configuration are warnings, those of kargs.d errors, as in bootc.
    pub fn load(
        root: &Tree,
        contents: &ContentStore,
        architecture: Architecture,
        backend: BackendChoice,
        progress: &Progress,
    ) -> Result<Self> {
        let files = Files { root, contents };
        let composefs = backend.backend == Backend::Composefs;
        let prepare_root =
            if composefs { PrepareRoot::NONE } else { prepare_root::load(&files, progress)? };
        let mut lost = lost::load(&files, &prepare_root)?;
        if composefs {
            lost.extend(setup_root::lost(&files)?);
        }
        let kernel = match backend.unified.first() {
            Some(path) => Kernel { version: unified_version(path), initramfs: None },
            None => find_kernel(root)?,
        };
        Ok(Self {
            backend,
            reads_new_digest: setup_root::reads_new_digest(&files)?,
            os_release: os_release::text(&files)?,
            lost,
            systemd: systemd::version(&files),
            boot_idles: systemd::boot_idles(&files, &prepare_root)?,
            install: install::load(&files, architecture, progress)?,
            kernel_arguments: kernel_arguments::load(&files, architecture)?,
            prepare_root,
            kernel,
            grub: grub_version::oldest(&files)?,
            title: os_release::title(&files)?,
            product: os_release::product(&files)?,
            root_home: root_home(root)?,
            bound_images: bound_images::load(&files, progress)?,
        })
    }
}

impl Settings {
    /// The features of XFS that the image's kernel and GRUB understand.
    pub fn xfs_profile(&self) -> XfsProfile {
        XfsProfile::understood_by(grub_version::parse(&self.kernel.version), self.grub)
    }
}

/// Whether the image is one that bootc would install; the error names everything that is missing at once.
pub fn check(image: &Image, root: &Tree, backend: &BackendChoice) -> Result<()> {
    let mut missing = Vec::new();
    // bootc looks for the keys only, not at their values.
    if image.label("containers.bootc").is_none() && image.label("ostree.bootable").is_none() {
        missing.push("label containers.bootc or ostree.bootable".to_owned());
    }
    match kernel_versions(root).len() {
        0 if !backend.unified.is_empty() => {}
        0 => missing.push(format!("a kernel ({MODULES}/VERSION/vmlinuz)")),
        1 => {}
        count => missing
            .push(format!("a single kernel ({count} directories in {MODULES} have a vmlinuz)")),
    }
    if !root.find("sysroot").is_some_and(|id| root.inode(id).is_directory()) {
        missing.push("directory /sysroot".to_owned());
    }
    if os_release::PATHS.iter().all(|path| configured(root, path).is_none()) {
        missing.push("usr/lib/os-release".to_owned());
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(unsupported(
        format!("{} is not a bootc image: it lacks {}", image.reference, missing.join(", ")),
        Some("bootable container images are built from a base such as quay.io/fedora/fedora-bootc"),
    ))
}

/// The versions whose directory holds a regular file `vmlinuz`.
fn kernel_versions(root: &Tree) -> Vec<(&[u8], InodeId)> {
    let Some(modules) = root.find(MODULES) else { return Vec::new() };
    root.inode(modules)
        .children()
        .filter(|(_, directory)| is_file(root, *directory, "vmlinuz"))
        .map(|(name, directory)| (&**name, directory))
        .collect()
}

fn is_file(root: &Tree, directory: InodeId, name: &str) -> bool {
    root.lookup(directory, name.as_bytes())
        .is_some_and(|id| matches!(root.inode(id).kind, Kind::File(_)))
}

fn find_kernel(root: &Tree) -> Result<Kernel> {
    let versions = kernel_versions(root);
    let [(name, directory)] = versions[..] else {
        return Err(unsupported(
            format!("{} kernels in {MODULES}, where exactly one is needed", versions.len()),
            Some("leave the vmlinuz of one version only"),
        ));
    };
    let version = std::str::from_utf8(name)
        .ok()
        // It becomes part of a boot entry, in which lines and words mean something.
        .filter(|version| !version.contains(char::is_whitespace))
        .ok_or_else(|| {
            corrupt(
                MODULES,
                format!("{:?} is not a kernel version", name.escape_ascii().to_string()),
            )
        })?;
    let initramfs = INITRAMFS.into_iter().find(|file| is_file(root, directory, file));
    Ok(Kernel { version: version.to_owned(), initramfs })
}

/// The version of the kernel in a unified kernel image, by where it lies: `usr/lib/modules/VERSION/linux.efi`, or its own name.
fn unified_version(path: &str) -> String {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let of_directory = directory.strip_prefix(&format!("{MODULES}/"));
    let stem = name.get(..name.len().saturating_sub(".efi".len())).unwrap_or(name);
    of_directory.unwrap_or(stem).chars().filter(|c| !c.is_whitespace()).collect()
}

fn root_home(root: &Tree) -> Result<String> {
    match root.find("root").map(|id| &root.inode(id).kind) {
        Some(Kind::Symlink(target)) => std::str::from_utf8(target)
            .map(|target| target.trim_start_matches('/').to_owned())
            .map_err(|_| corrupt("link /root", "its target is not UTF-8")),
        _ => Ok("root".to_owned()),
    }
}

/// Whether a name has the extension and something before it that is not only a dot.
fn has_extension(name: &str, extension: &str) -> bool {
    name.strip_suffix(extension)
        .and_then(|stem| stem.strip_suffix('.'))
        .is_some_and(|stem| !stem.is_empty())
}

/// Whether a list of architectures, spelled as Rust spells them, is absent or names ours.
fn matches_architecture(list: Option<&[String]>, architecture: Architecture) -> bool {
    list.is_none_or(|list| list.iter().any(|name| name == architecture.name()))
}
