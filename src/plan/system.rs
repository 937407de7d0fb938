//! What is decided about the installed system: what it is called, what it boots with, and what it follows.

use anyhow::Result;

use crate::bootc::{self, Backend, Composefs, Mounts, Settings};
use crate::command_line;
use crate::config::{self, Grow, Mounting};
use crate::disk::{Arrangement, Preset};
use crate::error::unsupported;
use crate::identity::Identity;
use crate::image::Image;
use crate::name::StaterootName;
use crate::ostree::SignaturePolicy;
use crate::progress::{Code, Warning};
use crate::request::Request;

use super::{boot, root};

/// Kernel arguments that osbuild adds to those of the image.
const OSBUILD_ARGUMENTS: [&str; 2] = ["console=tty0", "console=ttyS0"];

/// The decisions about the installed system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemPlan {
    /// The image that the machine will update from, with its transport: `docker://quay.io/fedora/fedora-bootc:43`.
    pub target: String,
    /// Who vouches for updates.
    pub signature_policy: SignaturePolicy,
    /// Name of the stateroot.
    pub stateroot: StaterootName,
    /// Where the installed system finds its root and `/boot`.
    pub mounts: Mounts,
    /// Kernel arguments without `ostree=`.
    pub kernel_arguments: Vec<String>,
    /// What is mounted besides, and whether the root grows.
    pub mounting: Mounting,
    /// Whether the booting system lets the kernel check what it reads of its root, by fs-verity.
    pub fs_verity: bool,
    /// Additions to the configuration of ostree's repository.
    pub repository_config: Vec<RepositoryOption>,
}

/// A line of the configuration of ostree's repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryOption {
    /// The group that it is in.
    pub group: &'static str,
    /// Its key.
    pub key: &'static str,
    /// Its value.
    pub value: String,
}

impl SystemPlan {
    pub(super) fn of(
        request: &Request,
        image: &Image,
        settings: &Settings,
        identity: &Identity,
        arrangement: &Arrangement,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self> {
        let mounts = mounts(request, settings, identity, arrangement);
        let asked = &request.system;
        let mut added: Vec<String> = match request.disk.preset {
            Preset::Osbuild if asked.preset_arguments => {
                OSBUILD_ARGUMENTS.map(str::to_owned).to_vec()
            }
            Preset::Osbuild | Preset::Bootc => Vec::new(),
        };
        let composefs = settings.backend.backend == Backend::Composefs;
        if composefs {
            added.extend(super::composefs::mount_argument(&mounts, arrangement));
        } else {
            added.extend(boot::mount_argument(&mounts, settings)?);
        }
        let platform = boot::ignition_platform(request, settings)?;
        added.extend(config::kernel_arguments(&request.config.blueprint, platform));
        added.extend_from_slice(&asked.kernel_arguments);
        let deletes = &asked.kernel_argument_deletes;
        let line = if composefs { bootc::composefs_command_line } else { bootc::command_line };
        let kernel_arguments = line(settings, &mounts, &added, deletes);
        command_line::check(&kernel_arguments.join(" ")).map_err(|why| {
            unsupported(format!("invalid kernel command line {kernel_arguments:?}: {why}"), None)
        })?;
        let enforce = asked.enforce_container_sigpolicy
            || settings.install.enforce_container_sigpolicy == Some(true);
        Ok(Self {
            target: target(request, image, warnings),
            signature_policy: if enforce {
                SignaturePolicy::ContainerPolicy
            } else {
                SignaturePolicy::Unverified
            },
            stateroot: stateroot(request, settings)?,
            kernel_arguments,
            mounts,
            mounting: mounting(request, identity, arrangement),
            fs_verity: settings.prepare_root.composefs == Composefs::Verity,
            repository_config: repository_config(settings),
        })
    }
}

impl SystemPlan {
    /// Refuses what the configuration wrote to a directory that is another one when the system runs.
    pub fn refuse_lost(&self, settings: &Settings, written: &[&str]) -> Result<()> {
        let by_arguments = bootc::lost_by_arguments(&self.kernel_arguments);
        // What a volume of the disk's own is mounted over is written to that volume.
        let own = |path: &str| {
            let mounts = self.mounting.mounts.iter();
            mounts.filter_map(|mount| mount.mountpoint.as_deref()).any(|place| {
                let rest = path.strip_prefix(place);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        for lost in settings.lost.iter().chain(&by_arguments) {
            if let Some(path) = written.iter().find(|path| lost.holds(path) && !own(path)) {
                return Err(unsupported(
                    format!(
                        "the configuration writes {path}, which would be gone when the system runs: {}",
                        lost.because
                    ),
                    Some(
                        "do it in the image's Containerfile instead, or leave that out of the image",
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn stateroot(request: &Request, settings: &Settings) -> Result<StaterootName> {
    let configured = settings.install.stateroot.as_deref();
    match (&request.system.stateroot, configured) {
        (Some(asked), _) => Ok(asked.clone()),
        (None, Some(name)) => name.parse().map_err(|reason: String| {
            unsupported(
                format!(
                    "invalid stateroot {name:?} in the image's install configuration: {reason}"
                ),
                Some("name another one with --stateroot"),
            )
        }),
        (None, None) => Ok(StaterootName::default()),
    }
}

/// What is asked for goes before what the image configures; empty means none, as there.
fn mounts(
    request: &Request,
    settings: &Settings,
    identity: &Identity,
    arrangement: &Arrangement,
) -> Mounts {
    let boot_uuid = identity.boot_filesystem.to_string();
    let boot_uuid = arrangement.separate_boot().then_some(boot_uuid.as_str());
    let mut mounts = Mounts::of(settings, &identity.root_filesystem.to_string(), boot_uuid);
    mounts.root_flags = root::flags(arrangement.root());
    let named = |spec: &String| (!spec.is_empty()).then(|| spec.clone());
    if let Some(spec) = &request.system.root_mount_spec {
        mounts.root = named(spec);
    }
    if let Some(spec) = &request.system.boot_mount_spec {
        mounts.boot = named(spec);
    }
    mounts
}

/// What is mounted, and whether the root grows.
fn mounting(request: &Request, identity: &Identity, arrangement: &Arrangement) -> Mounting {
    let mut mounting = arrangement.mounting();
    mounting.grow = request.disk.grow.then(|| Grow {
        uuid: identity.root_filesystem.to_string(),
        filesystem: arrangement.root().kind,
        partition_type: match request.disk.preset {
            Preset::Bootc => "root",
            Preset::Osbuild => "linux-generic",
        },
        is_last: arrangement.root_is_last(),
    });
    mounting
}

/// The reference to follow for updates. A path of the machine that built the disk would mean nothing on the one that boots it.
fn target(request: &Request, image: &Image, warnings: &mut Vec<Warning>) -> String {
    if let Some(name) = &request.system.target_image {
        return request.system.target_transport.reference(name);
    }
    let reference = &request.image.reference;
    // Of what Anaconda installs, there is no disk here; its name is told with its medium.
    let anaconda = request.output.medium.as_ref().is_some_and(|medium| medium.anaconda.is_some());
    let mut unheard = Vec::new();
    let warnings = if anaconda { &mut unheard } else { warnings };
    format!("docker://{}", name_of(image, &reference.to_string(), &reference.file_stem(), warnings))
}

/// What a machine calls an image that it follows. `called`: the reference that it was opened by; `stem`: the same in a file name.
pub(super) fn name_of(
    image: &Image,
    called: &str,
    stem: &str,
    warnings: &mut Vec<Warning>,
) -> String {
    image.name.clone().unwrap_or_else(|| {
        let name = format!("localhost/{stem}:latest");
        let text = format!(
            "{called} does not say where it comes from: the machine will look for updates at {name}; \
             name another place with --target-imgref"
        );
        warnings.push(Warning::new(Code::UpdateSource, text));
        name
    })
}

fn repository_config(settings: &Settings) -> Vec<RepositoryOption> {
    let value = settings.install.bls_append_except_default.clone();
    let append = value.map(|value| RepositoryOption {
        group: "sysroot",
        key: "bls-append-except-default",
        value,
    });
    // What ostree writes later, it shall give fs-verity, too.
    let verity = (settings.prepare_root.composefs == Composefs::Verity).then(|| RepositoryOption {
        group: "ex-integrity",
        key: "fsverity",
        value: "true".to_owned(),
    });
    append.into_iter().chain(verity).collect()
}
