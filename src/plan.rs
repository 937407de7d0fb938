//! Every choice of a build, made before anything is laid out: what follows from the request, the image and what it configures.

use anyhow::Result;

use crate::bootc::{self, Composefs, Mounts, RootFilesystem, Settings};
use crate::bootloader::BootOptions;
use crate::disk::{self, Preset};
use crate::error::unsupported;
use crate::identity::Identity;
use crate::image::Image;
use crate::ostree::{KernelSource, RootSshKeys, SignaturePolicy};
use crate::progress::Progress;
use crate::request::Request;

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
    /// Why the root file system is the one it is, for people.
    pub root_filesystem_reason: &'static str,
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
        refuse_what_we_cannot(settings)?;
        for bound in &settings.bound_images {
            progress.warn(format!(
                "the image is bound to {bound}, which is not on the disk: podman pulls it when it is first used"
            ));
        }
        let boot_uuid = identity.boot_filesystem.to_string();
        let boot_uuid = (request.layout == Preset::Osbuild).then_some(boot_uuid.as_str());
        let mounts = Mounts::of(settings, &identity.root_filesystem.to_string(), boot_uuid);
        let mut added: Vec<String> = match request.layout {
            Preset::Bootc => Vec::new(),
            Preset::Osbuild => OSBUILD_ARGUMENTS.map(str::to_owned).to_vec(),
        };
        added.extend_from_slice(&request.kargs);
        let kernel_arguments =
            bootc::command_line(settings, &mounts, &added, &request.karg_deletes);
        let enforce = settings.install.enforce_container_sigpolicy == Some(true);
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
            root_filesystem_reason: root_filesystem_reason(request, settings),
        })
    }

    /// For the boot loader.
    pub fn bootloader(&self, image: &Image) -> BootOptions {
        let separate_boot = self.separate_boot();
        BootOptions {
            architecture: image.architecture,
            boot_uuid: if separate_boot {
                self.identity.boot_filesystem
            } else {
                self.identity.root_filesystem
            },
            skip_boot_uuid: self.settings.install.skip_boot_uuid == Some(true),
            boot_partition: disk::boot_partition(self.request.layout, image.architecture),
            separate_boot,
            time: 0,
        }
    }

    /// Whether `/boot` is a file system of its own.
    pub fn separate_boot(&self) -> bool {
        self.request.layout == Preset::Osbuild
    }

    /// The kernel to boot.
    pub fn kernel(&self) -> KernelSource<'_> {
        let kernel = &self.settings.kernel;
        KernelSource { version: &kernel.version, initramfs: kernel.initramfs }
    }

    /// Keys that let root log in.
    pub fn root_ssh_keys(&self) -> Option<RootSshKeys<'_>> {
        let keys = self.request.root_ssh_keys.as_deref()?;
        Some(RootSshKeys { home: &self.settings.root_home, keys })
    }

    /// Additions to the repository's configuration: group, key, value.
    pub fn repository_config(&self) -> Vec<(&str, &str, &str)> {
        let value = self.settings.install.bls_append_except_default.as_deref();
        value.map(|value| ("sysroot", "bls-append-except-default", value)).into_iter().collect()
    }
}

fn refuse_what_we_cannot(settings: &Settings) -> Result<()> {
    if matches!(settings.prepare_root.composefs, Composefs::Verity | Composefs::Signed) {
        return Err(unsupported(
            "the image demands fs-verity of its root (composefs.enabled in prepare-root.conf)",
            Some("`enabled = yes` in prepare-root.conf works; fs-verity does not yet"),
        ));
    }
    Ok(())
}

/// The reference to follow for updates. A path of the machine that built the disk would mean nothing on the one that boots it.
fn target(request: &Request, image: &Image, progress: &Progress) -> String {
    match request.target_image.as_ref().or(image.name.as_ref()) {
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

fn root_filesystem_reason(request: &Request, settings: &Settings) -> &'static str {
    match (request.root_filesystem, settings.install.root_filesystem) {
        (Some(_), _) => "as asked for",
        (None, Some(RootFilesystem::Ext4)) => "as the image configures",
        (None, _) => "the default",
    }
}
