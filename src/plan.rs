//! Every choice of a build, made before anything is laid out: what follows from the request, the image and what it configures.

use anyhow::Result;

use crate::bootc::{self, Bootloader, Composefs, Mounts, RootFilesystem, Settings};
use crate::bootloader::{Boot, BootOptions};
use crate::config::{self, FilesystemKind, Grow, Layout, Mounting};
use crate::content::ContentStore;
use crate::disk::{self, Arrangement, Preset, SectorSize, Wishes};
use crate::error::unsupported;
use crate::identity::Identity;
use crate::image::Image;
use crate::ostree::{
    Changed, ComposefsWriter, Customize, DeployOptions, FsVerity, KernelSource, RootSshKeys,
    SignaturePolicy, System,
};
use crate::progress::Progress;
use crate::request::{BoundImages, Request};
use crate::tree::Tree;

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
    /// What is mounted besides the root and `/boot`.
    pub mounting: Mounting,
    sector_size: SectorSize,
    /// Partitions that the user chose.
    arrangement: Option<Arrangement>,
    repository_config: Vec<(&'static str, &'static str, &'a str)>,
}

impl<'a> Plan<'a> {
    /// Decides. `Unsupported` if the image configures something that cannot be had.
    pub fn of(
        request: &'a Request,
        image: &Image,
        settings: &'a Settings,
        identity: &'a Identity,
        layout: Option<&Layout>,
        root: &Tree,
        progress: &Progress,
    ) -> Result<Self> {
        let arranged =
            |layout| Arrangement::of(layout, request.layout, image.architecture, identity, root);
        let arrangement = layout.map(arranged).transpose()?;
        let separate_boot = arrangement
            .as_ref()
            .map_or(request.layout == Preset::Osbuild, Arrangement::separate_boot);
        refuse_what_we_cannot(request, settings, layout.and_then(root_kind).transpose()?)?;
        for warning in &request.config.warnings {
            progress.warn(warning.clone());
        }
        for bound in &settings.bound_images {
            progress.warn(format!(
                "the image is bound to {bound}, which is not on the disk: podman pulls it when it is first used"
            ));
        }
        let boot_uuid = identity.boot_filesystem.to_string();
        let boot_uuid = separate_boot.then_some(boot_uuid.as_str());
        let mut mounts = Mounts::of(settings, &identity.root_filesystem.to_string(), boot_uuid);
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
            Preset::Osbuild => OSBUILD_ARGUMENTS.map(str::to_owned).to_vec(),
        };
        added.extend(config::kernel_arguments(&request.config.blueprint));
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
            mounting: mounting(request, identity, arrangement.as_ref()),
            sector_size: layout.and_then(disk::sector_size).unwrap_or(request.sector_size),
            arrangement,
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
            boot_partition: match &self.arrangement {
                Some(arrangement) => arrangement.boot_partition(),
                None => disk::boot_partition(self.request.layout, image.architecture),
            },
            dos: self.arrangement.as_ref().is_some_and(Arrangement::is_dos),
            separate_boot,
            // No BIOS starts from other sectors.
            bios: self.sector_size == SectorSize::S512,
            time: 0,
        })
    }

    /// For the deployment.
    pub fn deployment<'b>(
        &'b self,
        boot: &'b Boot,
        composefs: &'b ComposefsWriter<'b>,
        fs_verity: &'b FsVerity<'b>,
        customize: &'b Customize<'b>,
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
            customize: Some(customize),
            installer: concat!("bootpress ", env!("CARGO_PKG_VERSION")),
            repository_config: &self.repository_config,
            composefs,
            fs_verity: wants_verity(self.settings).then_some(fs_verity),
        }
    }

    /// Writes what the configuration asks for into the system on the disk.
    pub fn customize(
        &self,
        tree: &mut Tree,
        system: System,
        contents: &ContentStore,
        progress: &Progress,
    ) -> Result<Changed> {
        let System { deployment, etc, var } = system;
        let places = config::Places { deployment, etc, var };
        let blueprint = &self.request.config.blueprint;
        let seed = self.identity.disk.to_string();
        let changes = config::customize(tree, places, blueprint, &self.mounting, &seed, contents)?;
        changes.warnings.into_iter().for_each(|warning| progress.warn(warning));
        Ok(Changed { written: changes.written, volumes: changes.volumes })
    }

    /// For the disk.
    pub fn disk(&self, image: &Image) -> Wishes<'_> {
        Wishes {
            preset: self.request.layout,
            architecture: image.architecture,
            identity: self.identity,
            sector_size: self.sector_size,
            size: self.request.size,
            arrangement: self.arrangement.as_ref(),
        }
    }

    /// Whether `/boot` is a file system of its own.
    pub fn separate_boot(&self) -> bool {
        match &self.arrangement {
            Some(arrangement) => arrangement.separate_boot(),
            None => self.request.layout == Preset::Osbuild,
        }
    }
}

/// The layout that counts: the user's, else the image's, else none and the preset's.
pub fn layout(
    request: &Request,
    root: &Tree,
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Option<Layout>> {
    if let Some(layout) = &request.config.blueprint.layout {
        return Ok(Some(layout.clone()));
    }
    if !request.image_layout {
        return Ok(None);
    }
    let (layout, warnings) = config::layout_in_image(root, contents)?;
    warnings.into_iter().for_each(|warning| progress.warn(warning));
    Ok(layout)
}

/// What is mounted, and whether the root grows.
fn mounting(request: &Request, identity: &Identity, arrangement: Option<&Arrangement>) -> Mounting {
    let mut mounting = arrangement.map(Arrangement::mounting).unwrap_or_default();
    mounting.grow = request.grow.then(|| Grow {
        uuid: identity.root_filesystem.to_string(),
        partition_type: match request.layout {
            Preset::Bootc => "root",
            Preset::Osbuild => "linux-generic",
        },
        is_last: arrangement.is_none_or(Arrangement::root_is_last),
    });
    mounting
}

fn refuse_what_we_cannot(
    request: &Request,
    settings: &Settings,
    arranged: Option<RootFilesystem>,
) -> Result<()> {
    // What prepare-root checks is a signature of the deployed commit, and that commit is made here, where no key is.
    if settings.prepare_root.composefs == Composefs::Signed {
        return Err(unsupported(
            "the image demands a signed root (composefs.enabled in prepare-root.conf), and bootpress signs nothing",
            Some("`enabled = verity` checks the same contents without a signature"),
        ));
    }
    if let (BoundImages::Stored | BoundImages::Pull, Some(bound)) =
        (request.bound_images, settings.bound_images.first())
    {
        return Err(unsupported(
            format!("the image is bound to {bound}, and bootpress puts no second image on a disk"),
            Some("with --bound-images skip the machine pulls it when it is first used"),
        ));
    }
    let asked = request.root_filesystem.or(arranged);
    match asked.or(settings.install.root_filesystem).unwrap_or(RootFilesystem::Ext4) {
        RootFilesystem::Ext4 => {}
        other => {
            let who =
                if asked.is_some() { "you ask" } else { "the image's install configuration asks" };
            return Err(unsupported(
                format!("{who} for a root on {}, and bootpress writes ext4 only", other.name()),
                Some("build with --filesystem ext4"),
            ));
        }
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

/// The root file system that a layout asks for.
fn root_kind(layout: &Layout) -> Option<Result<RootFilesystem>> {
    Some(match layout.root_kind()? {
        FilesystemKind::Ext4 => Ok(RootFilesystem::Ext4),
        FilesystemKind::Xfs => Ok(RootFilesystem::Xfs),
        FilesystemKind::Btrfs => Ok(RootFilesystem::Btrfs),
        FilesystemKind::Vfat => {
            Err(unsupported("the root cannot be on FAT, which knows no owners", None))
        }
    })
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
