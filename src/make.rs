//! The second half of a build: what was loaded becomes an installed system, a disk and media, as far as somebody wants them.

use anyhow::{Context, Result};

use crate::bootc::Settings;
use crate::bootloader::{self, Boot, BootOptions};
use crate::bound::Others;
use crate::config;
use crate::content::ContentStore;
use crate::disk::{self, Disk};
use crate::filesystem::{erofs, verity};
use crate::image::Image;
use crate::installed::{Installed, KernelFiles, Place};
use crate::iso::{self, Carried, Medium, MediumKind, MediumParts};
use crate::load::{self, Loaded};
use crate::ostree::{
    self, Changed, DeployOptions, KernelSource, Labels, RootSshKeys, System, Union,
};
use crate::plan::{self, Plan};
use crate::progress::{Code, Progress};
use crate::request::Request;
use crate::storage::{self, Application};
use crate::tree::Tree;
use crate::trust::Verdict;

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
    let Loaded { contents, source, verdict, union, settings, bootupd_age, policy, medium, .. } =
        loaded;
    let Others { bound, configured, payload } = others;
    let image = source.into_image();
    let labels = load::labels(policy.as_ref());
    let labels = labels.as_ref().map(|labels| labels as &Labels<'_>);
    let mut boot = match &plan.bootloader {
        Some(options) => {
            let options = BootOptions { time: bootupd_age.unwrap_or(0), ..options.clone() };
            bootloader::prepare(&union.root, &contents, &options)?
        }
        None => Boot::none(),
    };
    config::customize_boot(&mut boot.boot, &request.config.blueprint, &contents)?;
    let work = Work { request, plan, settings: &settings, labels, contents: &contents, progress };
    let kernel = settings.kernel.files(&union.root)?;
    let (tree, disk) = if request.output.needs_disk() {
        let (tree, mut installed) = work.install(union, &image, &boot)?;
        work.store(&mut installed, &bound, &configured)?;
        let disk = disk::lay_out(&installed, &boot, &plan.disk(), &contents, progress)?;
        (tree, Some(InstalledDisk { installed, disk }))
    } else {
        (union.labelled(labels)?, None)
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
            installer: concat!("bootpress ", env!("CARGO_PKG_VERSION")),
            repository_config: &repository_config,
            composefs: &erofs::ostree_image,
            fs_verity: plan.system.fs_verity.then_some(&verity::measure),
        };
        let installed =
            ostree::deploy(repository, &committed, image, self.labels, &options, self.contents)
                .context("deploying")?;
        Ok((committed.tree, installed))
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
        let storage = self.request.config.blueprint.containers.path();
        let Place { tree, path } = installed.place(storage);
        storage::fill(tree, &path, configured, self.labels, self.contents)
    }
}
