//! Every choice of a build, made before anything is laid out: what follows from the request, the image and what it configures.

use anyhow::Result;

use crate::bootc::{self, Bootloader, Composefs, Mounts, Settings};
use crate::bootloader::{Boot, BootOptions};
use crate::config::{self, Grow, Layout, Mounting, Subvolume};
use crate::content::ContentStore;
use crate::disk::{self, Arrangement, DiskOptions, Partitioning, Preset, RootVolume, SectorSize};
use crate::error::unsupported;
use crate::filesystem_kind::FileSystem;
use crate::identity::Identity;
use crate::image::Image;
use crate::iso;
use crate::ostree::{
    Changed, ComposefsWriter, Customize, DeployOptions, FsVerity, KernelSource, RootSshKeys,
    SignaturePolicy, System,
};
use crate::output;
use crate::progress::Progress;
use crate::request::{self, BoundImages, Request};
use crate::tree::Tree;

/// Seconds that the menu of a medium with Anaconda waits, as bootc-image-builder's.
const MENU_TIMEOUT: u32 = 60;

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
    /// What is mounted besides the root and `/boot`.
    pub mounting: Mounting,
    sector_size: SectorSize,
    /// Partitions.
    arrangement: Arrangement,
    repository_config: Vec<(&'static str, &'static str, &'a str)>,
}

/// Partitions that somebody asks for, and the image's tree, which may have to fill them.
#[derive(Clone, Copy, Debug)]
pub struct Layouts<'a> {
    /// `None`: those of the preset.
    pub layout: Option<&'a Layout>,
    /// The merged tree of the image.
    pub root: &'a Tree,
}

/// A root file system, and who wanted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootChoice {
    /// Which.
    pub filesystem: FileSystem,
    /// Why: `--filesystem`, …
    pub because: &'static str,
}

impl RootChoice {
    fn of(request: &Request, settings: &Settings, layout: Option<&Layout>) -> Result<Self> {
        let arranged = layout.map(|layout| root_kind(request, layout)).transpose()?.flatten();
        if let (None, Some(filesystem)) = (request.root_filesystem, arranged) {
            return Ok(Self { filesystem, because: "as the layout says" });
        }
        Ok(match (request.root_filesystem, settings.install.root_filesystem) {
            (Some(filesystem), _) => Self { filesystem, because: "as asked for" },
            (None, Some(filesystem)) => {
                Self { filesystem, because: "as the image's install configuration says" }
            }
            (None, None) => Self {
                filesystem: FileSystem::Ext4,
                because: "by default: neither you nor the image names another",
            },
        })
    }
}

/// Refuses what this machine cannot do, before anything is fetched.
pub fn check(request: &Request) -> Result<()> {
    let layout = request.config.blueprint.layout.as_ref();
    let arranged = layout.map(|layout| root_kind(request, layout)).transpose()?.flatten();
    let root = request.root_filesystem.or(arranged).unwrap_or(FileSystem::Ext4);
    root.check()
}

impl<'a> Plan<'a> {
    /// Decides. `Unsupported` if the image configures something that cannot be had.
    pub fn of(
        request: &'a Request,
        image: &Image,
        settings: &'a Settings,
        identity: &'a Identity,
        layouts: Layouts<'_>,
        progress: &Progress,
    ) -> Result<Self> {
        refuse_what_we_cannot(request, settings)?;
        for warning in &request.config.warnings {
            progress.warn(warning.clone());
        }
        if request.bound_images == BoundImages::Skip {
            for bound in &settings.bound_images {
                progress.warn(format!(
                    "the image is bound to {bound}, which is not on the disk: podman pulls it when it is first used"
                ));
            }
        }
        let boot_uuid = identity.boot_filesystem.to_string();
        let Layouts { layout, root: image_root } = layouts;
        let root = RootChoice::of(request, settings, layout)?;
        let volume = root_volume(request, settings, &root, layout)?;
        let partitioning = Partitioning {
            layout,
            preset: request.layout,
            architecture: image.architecture,
            root: &volume,
            // GRUB reads no xfs or btrfs of any age: its files are on an ext4 then.
            separate_boot: volume.kind != FileSystem::Ext4,
        };
        let arrangement = Arrangement::of(&partitioning, identity, image_root)?;
        let separate_boot = arrangement.separate_boot();
        let boot_uuid = separate_boot.then_some(boot_uuid.as_str());
        let mut mounts = Mounts::of(settings, &identity.root_filesystem.to_string(), boot_uuid);
        mounts.root_flags = root_flags(arrangement.root());
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
            root,
            mounting: mounting(request, identity, &arrangement),
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
            boot_partition: self.arrangement.boot_partition(),
            dos: self.arrangement.is_dos(),
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
    pub fn disk(&self) -> DiskOptions<'_> {
        DiskOptions {
            arrangement: &self.arrangement,
            identity: self.identity,
            sector_size: self.sector_size,
            size: self.request.size,
            least_size: self.request.least_size,
            size_unit: self.request.size_unit(),
        }
    }

    /// For the disk files.
    pub fn files(&self, image: &Image) -> output::Options {
        output::Options {
            sector_size: self.sector_size.bytes(),
            qcow2_compression: self.request.qcow2_compression,
            ..output::Options::new(self.identity.files, image.architecture)
        }
    }

    /// Where podman keeps what it has, in the running system.
    pub fn container_storage(&self) -> &str {
        self.request.config.blueprint.containers.path()
    }

    /// For media; `None`: there shall be none. `root`: the image's tree, which may say something about it.
    pub fn media(
        &self,
        image: &Image,
        root: &Tree,
        payload: Option<(Tree, Image)>,
        contents: &ContentStore,
        progress: &Progress,
    ) -> Result<Option<iso::Wishes>> {
        let Some(medium) = &self.request.medium else { return Ok(None) };
        let (own, warnings) = config::medium_in_image(root, contents)?;
        warnings.into_iter().for_each(|warning| progress.warn(warning));
        let mut settings = medium.settings.clone();
        settings.kernel_arguments.splice(..0, own.kernel_arguments);
        let anaconda = medium
            .anaconda
            .as_ref()
            .zip(payload)
            .map(|(wanted, payload)| self.anaconda(wanted, payload, &settings, progress));
        Ok(Some(iso::Wishes {
            kinds: medium.kinds.clone(),
            url: medium.url.clone(),
            architecture: image.architecture,
            // A stick and the disk that was installed from it may be in the same machine.
            identity: Identity::derive(
                &image.manifest_digest,
                &format!("{} medium", self.request.seed),
            ),
            volume_id: medium
                .volume_id
                .clone()
                .or(own.label)
                .unwrap_or_else(|| self.request.volume_id(image)),
            publisher: medium.publisher.clone(),
            application: medium.application.clone(),
            settings,
            anaconda: anaconda.transpose()?,
        }))
    }

    /// For a medium with Anaconda.
    fn anaconda(
        &self,
        wanted: &request::Anaconda,
        (payload, image): (Tree, Image),
        settings: &iso::Settings,
        progress: &Progress,
    ) -> Result<iso::Anaconda> {
        let named = wanted.payload.as_ref().unwrap_or(&self.request.image);
        let target =
            self.request.target_image.clone().unwrap_or_else(|| {
                name_of(&image, &named.to_string(), &named.file_stem(), progress)
            });
        let configured = self.settings.install.root_filesystem;
        let filesystem = wanted.filesystem.or(configured).unwrap_or(FileSystem::Ext4);
        let config::Kickstart { main, base } = config::kickstart(
            &wanted.blueprint,
            &config::Installation {
                target: (self.request.target_transport.name(), &target),
                filesystem: filesystem.name(),
                arguments: &self.request.kargs,
                disk: settings.install_to.as_ref().map(iso::Selector::text),
                seed: &self.identity.disk.to_string(),
            },
        )?;
        let installer = &wanted.blueprint.installer;
        let mut arguments: Vec<String> = Vec::new();
        for line in config::kernel_arguments(&wanted.blueprint).iter().chain(&self.request.kargs) {
            arguments.extend(line.split_whitespace().map(str::to_owned));
        }
        Ok(iso::Anaconda {
            payload,
            kickstart: main,
            kickstart_base: base,
            enabled_modules: installer.enabled_modules.clone(),
            disabled_modules: installer.disabled_modules.clone(),
            arguments,
            menu_timeout: installer.menu_timeout.unwrap_or(MENU_TIMEOUT),
            product: self.settings.product.clone(),
        })
    }

    /// Whether `/boot` is a file system of its own.
    pub fn separate_boot(&self) -> bool {
        self.arrangement.separate_boot()
    }
}

/// The layout that counts: the user's, else the image's, else none and the preset's.
pub fn layout(
    request: &Request,
    root: &Tree,
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Option<Layout>> {
    let mut layout = request.config.blueprint.layout.clone();
    if layout.is_none() && request.image_layout {
        let (found, warnings) = config::layout_in_image(root, contents)?;
        warnings.into_iter().for_each(|warning| progress.warn(warning));
        layout = found;
    }
    if let (Some(layout), Some(how)) = (&mut layout, &request.btrfs_compression) {
        layout.compress(how);
    }
    Ok(layout)
}

/// What is mounted, and whether the root grows.
fn mounting(request: &Request, identity: &Identity, arrangement: &Arrangement) -> Mounting {
    let mut mounting = arrangement.mounting();
    mounting.grow = request.grow.then(|| Grow {
        uuid: identity.root_filesystem.to_string(),
        partition_type: match request.layout {
            Preset::Bootc => "root",
            Preset::Osbuild => "linux-generic",
        },
        is_last: arrangement.root_is_last(),
    });
    mounting
}

fn refuse_what_we_cannot(request: &Request, settings: &Settings) -> Result<()> {
    if request.medium.is_some() && request.sector_size != SectorSize::S512 {
        return Err(unsupported(
            "a medium installs to disks with sectors of 512 bytes, and this disk would have others",
            Some("build the medium without --sector-size"),
        ));
    }
    if request.medium.is_some() && !request.install_bootloader {
        return Err(unsupported(
            "a medium starts with the image's boot loader",
            Some("build it without --bootloader none"),
        ));
    }
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

/// The root file system that a layout asks for. `Unsupported` if the request contradicts it.
fn root_kind(request: &Request, layout: &Layout) -> Result<Option<FileSystem>> {
    let (origin, subvolumes) = (&layout.origin, layout.subvolumes());
    if !subvolumes.is_empty() {
        if !subvolumes.iter().any(|one| one.mountpoint.as_deref() == Some("/")) {
            return Err(unsupported(
                format!(
                    "{origin}: a btrfs is written together with the root, and none of its subvolumes is mounted on /"
                ),
                Some(
                    "give it a subvolume with mountpoint = \"/\", or take a plain partition of ext4",
                ),
            ));
        }
        if let Some(other) = request.root_filesystem.filter(|kind| *kind != FileSystem::Btrfs) {
            return Err(unsupported(
                format!(
                    "{origin} has the root in a subvolume of btrfs, and --filesystem asks for {}",
                    other.name()
                ),
                Some("leave one of them away, or take plain partitions"),
            ));
        }
        if request.btrfs_subvolume.is_some() {
            return Err(unsupported(
                format!(
                    "{origin} says what subvolumes there are, and --btrfs-subvolume asks for another"
                ),
                Some("leave --btrfs-subvolume away"),
            ));
        }
    }
    match layout.root_kind() {
        Some(FileSystem::Vfat | FileSystem::Swap) => {
            Err(unsupported("the root cannot be on FAT, which knows no owners", None))
        }
        kind => Ok(kind),
    }
}

/// What the root is on. `Unsupported` if that cannot be had.
fn root_volume(
    request: &Request,
    settings: &Settings,
    root: &RootChoice,
    layout: Option<&Layout>,
) -> Result<RootVolume> {
    let kind = root.filesystem;
    let for_btrfs = request.btrfs_compression.is_some() || request.btrfs_subvolume.is_some();
    if for_btrfs && kind != FileSystem::Btrfs {
        return Err(unsupported(
            format!(
                "the root is {kind}, {}, and has neither subvolumes nor compression",
                root.because
            ),
            Some("build with --filesystem btrfs, or without --btrfs-…"),
        ));
    }
    if wants_verity(settings) && kind != FileSystem::Ext4 {
        return Err(unsupported(
            format!(
                "the image wants fs-verity (composefs.enabled = verity), and bootpress writes it on ext4 only, not on {kind}"
            ),
            Some("build with --filesystem ext4"),
        ));
    }
    kind.check()?;
    let mut subvolumes = layout.map(Layout::subvolumes).unwrap_or_default().iter();
    let of_root: Option<&Subvolume> = subvolumes.find(|one| one.mountpoint.as_deref() == Some("/"));
    let compression = of_root.and_then(|one| one.compression.clone());
    let subvolume = of_root.map(|one| one.name.clone());
    Ok(RootVolume {
        kind,
        compression: compression.or_else(|| request.btrfs_compression.clone()),
        subvolume: subvolume.or_else(|| request.btrfs_subvolume.clone()),
    })
}

/// How the machine mounts the root, so that it is compressed further on, too.
fn root_flags(root: &RootVolume) -> Option<String> {
    let subvolume = root.subvolume.as_ref().map(|name| format!("subvol={name}"));
    let compress = root.compression.as_ref().map(|how| format!("compress={how}"));
    let flags: Vec<String> = subvolume.into_iter().chain(compress).collect();
    (!flags.is_empty()).then(|| flags.join(","))
}

/// The reference to follow for updates. A path of the machine that built the disk would mean nothing on the one that boots it.
fn target(request: &Request, image: &Image, progress: &Progress) -> String {
    if let Some(name) = &request.target_image {
        return request.target_transport.reference(name);
    }
    let (called, stem) = (request.image.to_string(), request.image.file_stem());
    // Of what Anaconda installs, there is no disk here; its name is told with its medium.
    let unheard = Progress::default();
    let anaconda = request.medium.as_ref().is_some_and(|medium| medium.anaconda.is_some());
    let progress = if anaconda { &unheard } else { progress };
    format!("docker://{}", name_of(image, &called, &stem, progress))
}

/// What a machine calls an image that it follows. `called`: the reference that it was opened by; `stem`: the same in a file name.
fn name_of(image: &Image, called: &str, stem: &str, progress: &Progress) -> String {
    image.name.clone().unwrap_or_else(|| {
        let name = format!("localhost/{stem}:latest");
        progress.warn(format!(
            "{called} does not say where it comes from: the machine will look for updates at {name}; \
             name another place with --target-imgref"
        ));
        name
    })
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
