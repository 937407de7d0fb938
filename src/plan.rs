//! Every choice of a build, made before anything is laid out: what follows from the request, the image and what it configures.

use anyhow::Result;

use crate::bootc::{self, Bootloader, Composefs, Mounts, RootFilesystem, Settings};
use crate::bootloader::{Boot, BootOptions};
use crate::disk::{self, Preset, SectorSize, Wishes};
use crate::error::unsupported;
use crate::filesystem::kernel;
use crate::identity::Identity;
use crate::image::Image;
use crate::ostree::{
    ComposefsWriter, DeployOptions, FsVerity, KernelSource, RootSshKeys, SignaturePolicy,
};
use crate::output;
use crate::progress::Progress;
use crate::request::{BoundImages, Request};

/// Kernel arguments that osbuild adds to those of the image.
const OSBUILD_ARGUMENTS: [&str; 2] = ["console=tty0", "console=ttyS0"];

/// The choices.
#[derive(Debug)]
pub struct Plan<'a> {
    request: &'a Request,
    identity: &'a Identity,
    settings: &'a Settings,
    /// The image that the machine will update from, with its transport: `docker://quay.io/fedora/fedora-bootc:43`.
    pub target: String,
    /// Who vouches for updates.
    pub signature_policy: SignaturePolicy,
    /// Name of the stateroot.
    pub stateroot: String,
    /// Where the installed system finds its file systems.
    pub mounts: Mounts,
    /// Kernel arguments without `ostree=`.
    pub kernel_arguments: Vec<String>,
    /// What the root is, and why.
    pub root: RootChoice,
    kernel: Option<kernel::Wanted>,
    repository_config: Vec<(&'static str, &'static str, &'a str)>,
}

/// A root file system, and who wanted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootChoice {
    /// Which.
    pub filesystem: RootFilesystem,
    /// Why: `--filesystem`, …
    pub because: &'static str,
}

impl RootChoice {
    fn of(request: &Request, settings: &Settings) -> Self {
        match (request.root_filesystem, settings.install.root_filesystem) {
            (Some(filesystem), _) => Self { filesystem, because: "as asked for" },
            (None, Some(filesystem)) => {
                Self { filesystem, because: "as the image's install configuration says" }
            }
            (None, None) => Self {
                filesystem: RootFilesystem::Ext4,
                because: "by default: neither you nor the image names another",
            },
        }
    }
}

/// Refuses what this machine cannot do, before anything is fetched.
pub fn check(request: &Request) -> Result<()> {
    kernel_kind(request.root_filesystem.unwrap_or(RootFilesystem::Ext4))
        .map_or(Ok(()), kernel::check)
}

/// The file systems that only the kernel writes.
const fn kernel_kind(filesystem: RootFilesystem) -> Option<kernel::Kind> {
    match filesystem {
        RootFilesystem::Ext4 => None,
        RootFilesystem::Xfs => Some(kernel::Kind::Xfs),
        RootFilesystem::Btrfs => Some(kernel::Kind::Btrfs),
    }
}

impl<'a> Plan<'a> {
    /// Decides. `Unsupported` if the image configures something that cannot be had.
    pub fn of(
        request: &'a Request,
        image: &Image,
        settings: &'a Settings,
        identity: &'a Identity,
        progress: &Progress,
    ) -> Result<Self> {
        refuse_what_we_cannot(request, settings)?;
        if request.bound_images == BoundImages::Skip {
            for bound in &settings.bound_images {
                progress.warn(format!(
                    "the image is bound to {bound}, which is not on the disk: podman pulls it when it is first used"
                ));
            }
        }
        let boot_uuid = identity.boot_filesystem.to_string();
        let root = RootChoice::of(request, settings);
        let kernel = kernel_wanted(request, settings, &root)?;
        let separate_boot = request.layout == Preset::Osbuild || kernel.is_some();
        let boot_uuid = separate_boot.then_some(boot_uuid.as_str());
        let mut mounts = Mounts::of(settings, &identity.root_filesystem.to_string(), boot_uuid);
        mounts.root_flags = kernel.as_ref().and_then(root_flags);
        // What is asked for goes before what the image configures; empty means none, as there.
        let named = |spec: &String| (!spec.is_empty()).then(|| spec.clone());
        if let Some(spec) = &request.root_mount_spec {
            mounts.root = named(spec);
        }
        if let Some(spec) = &request.boot_mount_spec {
            mounts.boot = named(spec);
        }
        let mut added: Vec<String> = match request.layout {
            Preset::Bootc => Vec::new(),
            Preset::Osbuild if !request.preset_kargs => Vec::new(),
            Preset::Osbuild => OSBUILD_ARGUMENTS.map(str::to_owned).to_vec(),
        };
        added.extend_from_slice(&request.kargs);
        let kernel_arguments =
            bootc::command_line(settings, &mounts, &added, &request.karg_deletes);
        let enforce = request.enforce_container_sigpolicy
            || settings.install.enforce_container_sigpolicy == Some(true);
        let configured = settings.install.stateroot.clone();
        Ok(Self {
            request,
            identity,
            settings,
            target: target(request, image, progress),
            signature_policy: if enforce {
                SignaturePolicy::ContainerPolicy
            } else {
                SignaturePolicy::Unverified
            },
            stateroot: request.stateroot.clone().or(configured).unwrap_or_else(|| "default".into()),
            mounts,
            kernel_arguments,
            root,
            kernel,
            repository_config: repository_config(settings),
        })
    }

    /// For the boot loader; `None`: there shall be none.
    pub fn bootloader(&self, image: &Image) -> Option<BootOptions> {
        let configured = self.settings.install.bootloader;
        if !self.request.install_bootloader || configured == Some(Bootloader::None) {
            return None;
        }
        let separate_boot = self.separate_boot();
        Some(BootOptions {
            architecture: image.architecture,
            boot_uuid: if separate_boot {
                self.identity.boot_filesystem
            } else {
                self.identity.root_filesystem
            },
            skip_boot_uuid: self.settings.install.skip_boot_uuid == Some(true),
            boot_partition: disk::boot_partition(
                self.request.layout,
                image.architecture,
                separate_boot,
            ),
            separate_boot,
            // No BIOS starts from other sectors.
            bios: self.request.sector_size == SectorSize::S512,
            time: 0,
        })
    }

    /// For the deployment.
    pub fn deployment<'b>(
        &'b self,
        boot: &'b Boot,
        composefs: &'b ComposefsWriter<'b>,
        fs_verity: &'b FsVerity<'b>,
    ) -> DeployOptions<'b> {
        DeployOptions {
            stateroot: &self.stateroot,
            target: &self.target,
            signature_policy: &self.signature_policy,
            title: &self.settings.title,
            kernel: KernelSource {
                version: &self.settings.kernel.version,
                initramfs: self.settings.kernel.initramfs,
            },
            kernel_arguments: &self.kernel_arguments,
            separate_boot: self.separate_boot(),
            boot_mount: self.mounts.boot.as_deref(),
            boot_files: &boot.boot,
            root_ssh_keys: self
                .request
                .root_ssh_keys
                .as_deref()
                .map(|keys| RootSshKeys { home: &self.settings.root_home, keys }),
            installer: concat!("bootpress ", env!("CARGO_PKG_VERSION")),
            repository_config: &self.repository_config,
            composefs,
            fs_verity: wants_verity(self.settings).then_some(fs_verity),
        }
    }

    /// For the disk.
    pub fn disk(&self, image: &Image) -> Wishes<'_> {
        Wishes {
            preset: self.request.layout,
            architecture: image.architecture,
            identity: self.identity,
            sector_size: self.request.sector_size,
            size: self.request.size,
            separate_boot: self.separate_boot(),
            kernel: self.kernel.as_ref(),
            size_unit: self.request.size_unit(),
        }
    }

    /// For the disk files.
    pub fn files(&self, image: &Image) -> output::Options {
        output::Options {
            sector_size: self.request.sector_size.bytes(),
            qcow2_compression: self.request.qcow2_compression,
            ..output::Options::new(self.identity.files, image.architecture)
        }
    }

    /// Whether `/boot` is a file system of its own.
    pub fn separate_boot(&self) -> bool {
        // GRUB reads no xfs or btrfs of any age: its files are on an ext4 then.
        self.request.layout == Preset::Osbuild || self.kernel.is_some()
    }
}

fn refuse_what_we_cannot(request: &Request, settings: &Settings) -> Result<()> {
    // What prepare-root checks is a signature of the deployed commit, and that commit is made here, where no key is.
    if settings.prepare_root.composefs == Composefs::Signed {
        return Err(unsupported(
            "the image demands a signed root (composefs.enabled in prepare-root.conf), and bootpress signs nothing",
            Some("`enabled = verity` checks the same contents without a signature"),
        ));
    }
    match settings.install.bootloader {
        Some(other @ (Bootloader::Systemd | Bootloader::GrubCc)) if request.install_bootloader => {
            Err(unsupported(
                format!(
                    "the image's install configuration asks for the boot loader {other:?}, and bootpress installs GRUB only"
                ),
                Some("build without a boot loader: --bootloader none"),
            ))
        }
        _ => Ok(()),
    }
}

/// What the kernel shall write, if it is to write the root. `Unsupported` if it cannot.
fn kernel_wanted(
    request: &Request,
    settings: &Settings,
    root: &RootChoice,
) -> Result<Option<kernel::Wanted>> {
    let name = root.filesystem.name();
    let for_btrfs = request.btrfs_compression.is_some() || request.btrfs_subvolume.is_some();
    if for_btrfs && root.filesystem != RootFilesystem::Btrfs {
        return Err(unsupported(
            format!(
                "the root is {name}, {}, and has neither subvolumes nor compression",
                root.because
            ),
            Some("build with --filesystem btrfs, or without --btrfs-…"),
        ));
    }
    let Some(kind) = kernel_kind(root.filesystem) else { return Ok(None) };
    if wants_verity(settings) {
        return Err(unsupported(
            format!(
                "the image wants fs-verity (composefs.enabled = verity), and bootpress writes it on ext4 only, not on {name}"
            ),
            Some("build with --filesystem ext4"),
        ));
    }
    kernel::check(kind)?;
    Ok(Some(kernel::Wanted {
        kind,
        compression: request.btrfs_compression.clone(),
        subvolume: request.btrfs_subvolume.clone(),
        work_directory: request.work_directory.clone(),
    }))
}

/// How the machine mounts the root, so that it is compressed further on, too.
fn root_flags(kernel: &kernel::Wanted) -> Option<String> {
    let subvolume = kernel.subvolume.as_ref().map(|name| format!("subvol={name}"));
    let compress = kernel.compression.as_ref().map(|how| format!("compress={how}"));
    let flags: Vec<String> = subvolume.into_iter().chain(compress).collect();
    (!flags.is_empty()).then(|| flags.join(","))
}

/// The reference to follow for updates. A path of the machine that built the disk would mean nothing on the one that boots it.
fn target(request: &Request, image: &Image, progress: &Progress) -> String {
    if let Some(name) = &request.target_image {
        return request.target_transport.reference(name);
    }
    match &image.name {
        Some(name) => format!("docker://{name}"),
        None => {
            let name = format!("localhost/{}:latest", request.image.file_stem());
            progress.warn(format!(
                "{} does not say where it comes from: the machine will look for updates at {name}; \
                 name another place with --target-imgref",
                request.image
            ));
            format!("docker://{name}")
        }
    }
}

/// Whether the booting system lets the kernel check what it reads of its root.
fn wants_verity(settings: &Settings) -> bool {
    settings.prepare_root.composefs == Composefs::Verity
}

/// Additions to the repository's configuration: group, key, value.
fn repository_config(settings: &Settings) -> Vec<(&'static str, &'static str, &str)> {
    let value = settings.install.bls_append_except_default.as_deref();
    let append = value.map(|value| ("sysroot", "bls-append-except-default", value));
    // What ostree writes later, it shall give fs-verity, too.
    let verity = wants_verity(settings).then_some(("ex-integrity", "fsverity", "true"));
    append.into_iter().chain(verity).collect()
}
