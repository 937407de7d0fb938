//! The second half of a build: what was loaded becomes an installed system, a disk and media, as far as somebody wants them.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::bootc::Settings;
use crate::bootloader::{self, Boot, BootOptions, Loader};
use crate::bound::Others;
use crate::composefs::{self, BootFiles, Import, Starter, Uki};
use crate::config;
use crate::content::ContentStore;
use crate::disk::{self, Disk};
use crate::error::unsupported;
use crate::filesystem::{erofs, verity};
use crate::image::Image;
use crate::installed::{Installed, KernelFiles, Place};
use crate::iso::{self, Carried, Medium, MediumKind, MediumParts};
use crate::layer::{Layer, Piece};
use crate::load::{self, Loaded, United};
use crate::oci::Documents;
use crate::ostree::{
    self, Changed, DeployOptions, KernelSource, Labels, RootSshKeys, System, Union,
};
use crate::plan::{self, Plan};
use crate::progress::{Code, Progress};
use crate::request::Request;
use crate::selinux::ImagePolicy;
use crate::storage::{self, Application};
use crate::tree::{InodeId, Stored, Tree};
use crate::trust::Verdict;

/// Who installs: where bootc records the version of the kernel that it ran on.
const INSTALLER: &str = concat!("bootpress ", env!("CARGO_PKG_VERSION"));

/// What a build has made, before it is written.
#[derive(Debug)]
pub struct Made {
    /// Where the bytes are that the maps refer to.
    pub contents: ContentStore,
    /// The image.
    pub image: Image,
    /// `NAME` and `VERSION_ID` of its os-release; empty where there is none.
    pub product: (String, String),
    /// Who vouches for it; `None`: nobody was asked.
    pub verdict: Option<Verdict>,
    /// References of the images that the system is bound to.
    pub bound_images: Vec<String>,
    /// Names of the application images that are on the disk.
    pub stored_images: Vec<String>,
    /// The boot loader.
    pub boot: Boot,
    /// The kernel.
    pub kernel: KernelFiles,
    /// The system and the disk that it is on; `None`: nothing that was asked for carries one.
    pub disk: Option<InstalledDisk>,
    /// The media.
    pub media: Vec<(MediumKind, Medium)>,
}

/// A disk with a system on it.
#[derive(Debug)]
pub struct InstalledDisk {
    /// The system.
    pub installed: Installed,
    /// The disk.
    pub disk: Disk,
}

/// Makes what the request asks for, by the plan.
pub fn make(
    request: &Request,
    loaded: Loaded,
    plan: &Plan,
    others: Others,
    progress: &Progress,
) -> Result<Made> {
    let Loaded {
        contents,
        source,
        verdict,
        union,
        unified,
        settings,
        bootupd_age,
        policy,
        medium,
        layout: _,
    } = loaded;
    let Others { bound, configured, payload } = others;
    let archives = match &union {
        United::Composefs { layers, .. } if request.output.needs_disk() => Some(Archives {
            pieces: source.pieces(layers, composefs::LARGEST_INLINE, &contents, progress)?,
            documents: source.documents()?,
        }),
        _ => None,
    };
    let image = source.into_image();
    let labels = load::labels(policy.as_ref());
    let labels = labels.as_ref().map(|labels| labels as &Labels<'_>);
    let mut boot = match &plan.bootloader {
        Some(options) => {
            let options = BootOptions { time: bootupd_age.unwrap_or(0), ..options.clone() };
            bootloader::prepare(union.root(), &contents, &options)?
        }
        None => Boot::none(),
    };
    config::customize_boot(&mut boot.boot, &request.config.blueprint, &contents)?;
    let work = Work { request, plan, settings: &settings, labels, contents: &contents, progress };
    let kernel = match &unified {
        Some(uki) => KernelFiles {
            version: settings.kernel.version.clone(),
            linux: uki.content.clone(),
            initramfs: None,
        },
        None => settings.kernel.files(union.root())?,
    };
    let (tree, disk) = match union {
        United::Ostree(union) if request.output.needs_disk() => {
            let (tree, mut installed) = work.install(*union, &image, &boot)?;
            work.store(&mut installed, &bound, &configured)?;
            let disk = disk::lay_out(&installed, &boot, &plan.disk(), &contents, progress)?;
            (tree, Some(InstalledDisk { installed, disk }))
        }
        United::Ostree(union) => (union.labelled(labels)?, None),
        United::Composefs { union, layers } => {
            let archives = archives.context("the archives were not read")?;
            let system = Composefs { union: &union, layers: &layers, archives: &archives };
            let mut installed = work.install_composefs(&system, &image, &mut boot, unified)?;
            work.fill_storage(&mut installed, &configured)?;
            let disk = disk::lay_out(&installed, &boot, &plan.disk(), &contents, progress)?;
            (union.root, Some(InstalledDisk { installed, disk }))
        }
    };
    let media = match plan::media(request, plan, &image, &settings, medium, payload)? {
        Some((wishes, warnings)) => {
            progress.warn_all(&warnings);
            let carried = disk.as_ref().map(|made| Carried {
                disk: &made.disk,
                command_line: &made.installed.command_line,
            });
            let title = &settings.title;
            let parts = MediumParts { image: &tree, boot: &boot, kernel: &kernel, carried, title };
            iso::lay_out(&parts, &wishes, &contents, progress).context("making the medium")?
        }
        None => Vec::new(),
    };
    let stored = bound.iter().chain(&configured).map(|stored| stored.name.clone());
    Ok(Made {
        stored_images: stored.collect(),
        bound_images: settings.bound_images,
        product: settings.product,
        contents,
        image,
        verdict,
        boot,
        kernel,
        disk,
        media,
    })
}

/// What a composefs repository has of an image besides its files.
struct Archives {
    pieces: Vec<Vec<Piece>>,
    documents: Documents,
}

/// An image for the composefs backend.
struct Composefs<'a> {
    union: &'a composefs::Union,
    layers: &'a [Layer],
    archives: &'a Archives,
}

/// What every step of an installation needs.
struct Work<'a> {
    request: &'a Request,
    plan: &'a Plan,
    settings: &'a Settings,
    labels: Option<&'a Labels<'a>>,
    contents: &'a ContentStore,
    progress: &'a Progress,
}

impl Work<'_> {
    /// Commits the image and deploys it; its tree, as it was committed, comes back with the system.
    fn install(&self, union: Union, image: &Image, boot: &Boot) -> Result<(Tree, Installed)> {
        let (plan, settings) = (self.plan, self.settings);
        let (repository, committed) =
            union.commit(image, &plan.system.target, self.labels, self.contents, self.progress)?;
        let customize = |tree: &mut Tree, system: System| self.customize(tree, system);
        let repository_config: Vec<(&str, &str, &str)> = plan
            .system
            .repository_config
            .iter()
            .map(|option| (option.group, option.key, option.value.as_str()))
            .collect();
        let keys = self.request.system.root_ssh_keys.as_deref();
        let options = DeployOptions {
            stateroot: &plan.system.stateroot,
            target: &plan.system.target,
            signature_policy: &plan.system.signature_policy,
            title: &settings.title,
            kernel: KernelSource {
                version: &settings.kernel.version,
                initramfs: settings.kernel.initramfs,
            },
            kernel_arguments: &plan.system.kernel_arguments,
            separate_boot: plan.arrangement.separate_boot(),
            boot_mount: plan.system.mounts.boot.as_deref(),
            boot_files: &boot.boot,
            root_ssh_keys: keys.map(|keys| RootSshKeys { home: &settings.root_home, keys }),
            customize: Some(&customize),
            installer: INSTALLER,
            repository_config: &repository_config,
            composefs: &erofs::ostree_image,
            fs_verity: plan.system.fs_verity.then_some(&verity::measure),
        };
        let installed =
            ostree::deploy(repository, &committed, image, self.labels, &options, self.contents)
                .context("deploying")?;
        Ok((committed.tree, installed))
    }

    /// Deploys the image by the composefs backend.
    fn install_composefs(
        &self,
        system: &Composefs<'_>,
        image: &Image,
        boot: &mut Boot,
        unified: Option<Uki>,
    ) -> Result<Installed> {
        let (plan, settings) = (self.plan, self.settings);
        let image_policy = ImagePolicy::load(&system.union.root, self.contents)?;
        let target = plan.system.target.as_str();
        let reference = match &plan.system.signature_policy {
            ostree::SignaturePolicy::ContainerPolicy => ostree::signed_reference(target),
            // As bootc spells it on this backend; for ostree it shortens what comes from registries.
            _ => format!("ostree-unverified-image:{target}"),
        };
        let aleph = ostree::aleph_bytes(image, target, INSTALLER, self.labels.is_some())?;
        let Documents { manifest, config, config_digest } = &system.archives.documents;
        let import = Import {
            layers: system.layers,
            pieces: &system.archives.pieces,
            manifest,
            manifest_digest: &image.manifest_digest,
            config,
            config_digest,
        };
        let customize = |tree: &mut Tree, parts| self.customize_composefs(tree, parts);
        let asks = self.request.config.blueprint != config::Blueprint::default()
            || plan.system.mounting != config::Mounting::default();
        let keys = self.request.system.root_ssh_keys.as_deref();
        /// systemd-boot knows the key `uki` from this version of systemd on.
        const UKI_KEY: u32 = 258;
        let uki_key = boot.loader == Some(Loader::SystemdBoot)
            && settings.systemd.is_some_and(|version| version >= UKI_KEY);
        let labels = ImageLabelling(image_policy.as_ref());
        let (alias, label) = (labels.alias(), labels.label());
        let imaging = labels.imaging(&alias, &label);
        let options = composefs::DeployOptions {
            reference: &reference,
            os_release: &settings.os_release,
            boot: match unified {
                Some(uki) => BootFiles::Unified(Box::new(uki)),
                None => BootFiles::Separate(settings.kernel.files(&system.union.root)?),
            },
            starter: match boot.loader {
                Some(Loader::Grub) | None => Starter::Grub,
                Some(Loader::GrubCc | Loader::SystemdBoot) => Starter::OnEsp { uki_key },
            },
            kernel_arguments: &plan.system.kernel_arguments,
            new_spelling: settings.reads_new_digest,
            enforce: plan.system.fs_verity,
            separate_boot: plan.arrangement.separate_boot(),
            boot_files: &boot.boot,
            esp_volume: plan.identity.esp_volume,
            root_ssh_keys: keys
                .map(|keys| composefs::RootSshKeys { home: &settings.root_home, keys }),
            aleph: &aleph,
            customize: asks.then_some(&customize),
            labels: self.labels,
            imaging,
        };
        let deployed = composefs::deploy(system.union, &import, &options, self.contents)
            .context("deploying")?;
        boot.found.push(format!(
            "ESP with room for three deployments of {} MiB, at least {} MiB",
            deployed.artifacts.div_ceil(1 << 20),
            deployed.installed.esp_least >> 20
        ));
        Ok(deployed.installed)
    }

    /// Writes what the configuration asks for into a system of the composefs backend.
    fn customize_composefs(
        &self,
        tree: &mut Tree,
        parts: composefs::SystemParts,
    ) -> Result<Vec<(String, InodeId)>> {
        let composefs::SystemParts { deployment, etc, var } = parts;
        let changed = self.customize(tree, System { deployment, etc, var })?;
        if let Some(path) = changed.volumes.first() {
            return Err(unsupported(
                format!(
                    "a file system of its own for {path} is not supported with the composefs backend yet"
                ),
                Some("leave it out of the partitions, or build with --backend ostree"),
            ));
        }
        Ok(changed.written)
    }

    /// Writes what the configuration asks for into the system.
    fn customize(&self, tree: &mut Tree, system: System) -> Result<Changed> {
        let System { deployment, etc, var } = system;
        let places = config::Places { deployment, etc, var };
        let blueprint = &self.request.config.blueprint;
        let mounting = &self.plan.system.mounting;
        let seed = self.plan.identity.disk.to_string();
        let changes = config::customize(tree, places, blueprint, mounting, &seed, self.contents)?;
        let written: Vec<&str> = changes.written.iter().map(|(path, _)| path.as_str()).collect();
        self.plan.system.refuse_lost(self.settings, &written)?;
        for warning in changes.warnings {
            self.progress.warn(Code::Configuration, warning);
        }
        Ok(Changed { written: changes.written, volumes: changes.volumes })
    }

    /// Puts application images where bootc and podman look for them.
    fn store(
        &self,
        installed: &mut Installed,
        bound: &[Application],
        configured: &[Application],
    ) -> Result<()> {
        storage::place(&mut installed.root, bound, self.labels, self.contents)?;
        self.fill_storage(installed, configured)
    }

    /// Puts application images where podman looks for them.
    fn fill_storage(&self, installed: &mut Installed, configured: &[Application]) -> Result<()> {
        let storage = self.request.config.blueprint.containers.path();
        let Place { tree, path } = installed.place(storage);
        storage::fill(tree, &path, configured, self.labels, self.contents)
    }
}

/// Checks that a unified kernel image names the image that its files make, as a build does before it writes anything.
pub fn check_sealed(loaded: &Loaded) -> Result<()> {
    let (United::Composefs { union, layers }, Some(uki)) = (&loaded.union, &loaded.unified) else {
        return Ok(());
    };
    let policy = ImagePolicy::load(&union.root, &loaded.contents)?;
    let labels = ImageLabelling(policy.as_ref());
    let (alias, label) = (labels.alias(), labels.label());
    composefs::check(union, layers, uki, &labels.imaging(&alias, &label), &loaded.contents)
}

/// Labels inside of composefs images, by the policy that the image has or has not.
struct ImageLabelling<'a>(Option<&'a ImagePolicy>);

impl ImageLabelling<'_> {
    fn alias(&self) -> impl Fn(&[u8]) -> Option<Vec<u8>> {
        |path: &[u8]| self.0?.alias(path)
    }

    fn label(&self) -> impl Fn(&[u8], u32) -> Result<ImageLabel> {
        |path: &[u8], mode: u32| self.0.map_or(Ok(None), |policy| policy.label(path, mode))
    }

    fn imaging<'b>(
        &self,
        alias: &'b dyn Fn(&[u8]) -> Option<Vec<u8>>,
        label: &'b composefs::ImageLabel<'b>,
    ) -> composefs::Imaging<'b> {
        composefs::Imaging {
            labels: self.0.is_some().then_some(composefs::ImageLabels { alias, label }),
            image: &write_image,
            fs_verity: &verity::measure_sha512,
        }
    }
}

/// A label without the final NUL; `None`: there is none.
type ImageLabel = Option<Arc<[u8]>>;

/// Writes a composefs image.
fn write_image(
    tree: &Tree,
    stored: &dyn Fn(InodeId) -> Option<Stored>,
    format: composefs::Format,
) -> Result<Vec<u8>> {
    let format = match format {
        composefs::Format::V1 => erofs::Format::V1,
        composefs::Format::V2 => erofs::Format::V2,
    };
    erofs::bootc_image(tree, stored, format)
}
