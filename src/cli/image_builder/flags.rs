//! The command line of image-builder, as far as it is about bootc images. Flags about packages are known, so that they can be refused by name.

use std::path::PathBuf;
use std::str::FromStr;

use bootpress::architecture::Architecture;
use bootpress::disk::{DiskSize, parse_size};
use bootpress::filesystem_kind::FileSystem;
use clap::{Args, Parser, Subcommand};

use super::types::ImageType;
use crate::cli::bib::flags::ProgressOption;
use crate::cli::flags::{architecture, filesystem};

/// Build disks from bootc images with image-builder's command line
///
/// This is bootpress. It needs no privileges, and builds from bootc images only.
#[derive(Debug, Parser)]
#[command(name = "image-builder", max_term_width = 100)]
pub(super) struct ImageBuilderFlags {
    /// Put the output into this directory
    ///
    /// Without this flag, a directory with the name of the output is created in the current one.
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) output_dir: Option<PathBuf>,

    /// Show each step
    #[arg(long, short, global = true)]
    pub(super) verbose: bool,

    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Build an image of the given type, such as qcow2
    Build(Box<BuildOptions>),
    /// Print what would be built
    Manifest(Box<Source>),
    /// List the types that can be built
    #[command(alias = "list-images")]
    List(ListOptions),
    /// Describe a type
    #[command(alias = "describe-image")]
    Describe(DescribeOptions),
    /// Not supported: bootpress uploads nothing
    #[command(hide = true)]
    Upload {
        /// Ignored
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Print the version
    Version {
        /// Choose the form: yaml or json
        #[arg(long, value_name = "FORM", value_parser = ["yaml", "json"])]
        format: Option<String>,
    },
}

/// What is built from what.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// Name the type, such as qcow2
    #[arg(value_name = "TYPE")]
    pub(super) image_type: String,

    /// Name the bootc image
    #[arg(long, value_name = "IMAGE")]
    pub(super) bootc_ref: Option<String>,

    /// Set the image that bootc-installer installs
    #[arg(long, value_name = "IMAGE")]
    pub(super) bootc_installer_payload_ref: Option<String>,

    /// Choose the root file system: ext4, xfs or btrfs
    #[arg(long, value_name = "TYPE", value_parser = filesystem)]
    pub(super) bootc_default_fs: Option<FileSystem>,

    /// Leave out the kernel arguments console=tty0 console=ttyS0
    #[arg(long)]
    pub(super) bootc_no_default_kernel_args: bool,

    /// Take the image from a registry, not from podman's storage
    #[arg(long)]
    pub(super) bootc_pull_container: bool,

    /// Apply a blueprint; `-` reads JSON from standard input
    #[arg(long, value_name = "FILE")]
    pub(super) blueprint: Option<PathBuf>,

    /// Choose the architecture
    #[arg(long, value_parser = architecture)]
    pub(super) arch: Option<String>,

    /// Derive other UUIDs from the same image
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) seed: Option<i64>,

    /// Set the size of the disk, such as "20 GiB", or in bytes
    #[arg(long, value_name = "SIZE", value_parser = image_size)]
    pub(super) image_size: Option<DiskSize>,

    /// Warn about keys of the blueprint that have no effect
    #[arg(long)]
    pub(super) ignore_warnings: bool,

    /// Write a bill of materials in SPDX beside the image
    #[arg(long)]
    pub(super) with_sbom: bool,

    #[arg(long, hide = true)]
    pub(super) distro: Option<String>,

    #[command(flatten)]
    packages: Packages,

    #[command(flatten)]
    _unused: Unused,
}

/// Flags about systems that are built from packages.
#[derive(Debug, Args)]
struct Packages {
    #[arg(long, hide = true)]
    ostree_ref: Option<String>,
    #[arg(long, hide = true)]
    ostree_parent: Option<String>,
    #[arg(long, hide = true)]
    ostree_url: Option<String>,
    #[arg(long, hide = true)]
    extra_repo: Vec<String>,
    #[arg(long, hide = true)]
    force_repo: Vec<String>,
    #[arg(long, hide = true)]
    registrations: Option<PathBuf>,
    #[arg(long, hide = true)]
    with_rpmlist: bool,
}

/// Accepted, and without effect: bootpress runs no tools of other images, uses no packages, and builds in the process itself.
#[derive(Debug, Args)]
struct Unused {
    #[arg(long, hide = true)]
    bootc_build_ref: Option<String>,
    #[arg(long, hide = true)]
    rpmmd_cache: Option<PathBuf>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    use_librepo: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    preview: Option<bool>,
    #[arg(long, hide = true, alias = "force-data-dir", alias = "data-dir")]
    force_repo_dir: Option<PathBuf>,
    #[arg(long, hide = true)]
    force_defs_dir: Option<PathBuf>,
}

impl Source {
    /// A flag that was given and means something for packages only.
    pub(super) fn about_packages(&self) -> Option<&'static str> {
        let Packages {
            ostree_ref,
            ostree_parent,
            ostree_url,
            extra_repo,
            force_repo,
            registrations,
            with_rpmlist,
        } = &self.packages;
        let given = [
            ("--ostree-ref", ostree_ref.is_some()),
            ("--ostree-parent", ostree_parent.is_some()),
            ("--ostree-url", ostree_url.is_some()),
            ("--extra-repo", !extra_repo.is_empty()),
            ("--force-repo", !force_repo.is_empty()),
            ("--registrations", registrations.is_some()),
            ("--with-rpmlist", *with_rpmlist),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }
}

#[derive(Debug, Args)]
pub(super) struct BuildOptions {
    #[command(flatten)]
    pub(super) source: Source,

    /// Set the name of the output, without directory
    #[arg(long, value_name = "NAME")]
    pub(super) output_name: Option<String>,

    /// Keep fetched images in this directory for the next build
    #[arg(long, value_name = "DIR")]
    pub(super) cache: Option<PathBuf>,

    /// Choose how progress is shown
    #[arg(long, value_enum, default_value_t = ProgressOption::Auto)]
    pub(super) progress: ProgressOption,

    /// Choose the form of the result: json, or text without the flag
    #[arg(long, value_name = "FORM", value_parser = ["json"])]
    pub(super) format: Option<String>,

    /// Write what is built to NAME.osbuild-manifest.json
    ///
    /// It is a description by bootpress, and not a manifest that osbuild could run.
    #[arg(long)]
    pub(super) with_manifest: bool,

    /// Write where the image is to NAME.upload-result
    #[arg(long, hide = true)]
    pub(super) with_upload_result: bool,

    /// Accepted: the summary always has the timing of each step
    #[arg(long, hide = true)]
    with_metrics: bool,

    /// Accepted: there is no log of osbuild
    #[arg(long, hide = true)]
    with_buildlog: bool,

    /// Accepted: no virtual machine is needed
    #[arg(long, hide = true)]
    in_vm: bool,

    #[command(flatten)]
    upload: UploadOptions,
}

/// Where that tool would upload the image to.
#[derive(Debug, Args)]
struct UploadOptions {
    #[arg(long, hide = true)]
    aws_ami_name: Option<String>,
    #[arg(long, hide = true)]
    aws_bucket: Option<String>,
    #[arg(long, hide = true)]
    aws_region: Option<String>,
    #[arg(long, hide = true)]
    aws_profile: Option<String>,
    #[arg(long, hide = true)]
    aws_tag: Vec<String>,
    #[arg(long, hide = true)]
    aws_boot_mode: Option<String>,
    #[arg(long, hide = true)]
    libvirt_connection: Option<String>,
    #[arg(long, hide = true)]
    libvirt_pool: Option<String>,
    #[arg(long, hide = true)]
    libvirt_volume: Option<String>,
    #[arg(long, hide = true)]
    openstack_image: Option<String>,
    #[arg(long, hide = true)]
    openstack_disk_format: Option<String>,
    #[arg(long, hide = true)]
    openstack_container_format: Option<String>,
    #[arg(long, hide = true)]
    ibmcloud_bucket: Option<String>,
    #[arg(long, hide = true)]
    ibmcloud_region: Option<String>,
    #[arg(long, hide = true)]
    ibmcloud_image_name: Option<String>,
    #[arg(long, hide = true)]
    azure_client_id: Option<String>,
    #[arg(long, hide = true)]
    azure_client_secret: Option<String>,
    #[arg(long, hide = true)]
    azure_tenant: Option<String>,
    #[arg(long, hide = true)]
    azure_subscription: Option<String>,
    #[arg(long, hide = true)]
    azure_resource_group: Option<String>,
    #[arg(long, hide = true)]
    azure_image_name: Option<String>,
}

impl BuildOptions {
    /// A flag that asks for an upload; that tool needs the first of each group for one.
    pub(super) fn upload(&self) -> Option<&'static str> {
        let upload = &self.upload;
        let given = [
            ("--aws-ami-name", upload.aws_ami_name.is_some()),
            ("--aws-bucket", upload.aws_bucket.is_some()),
            ("--libvirt-pool", upload.libvirt_pool.is_some()),
            ("--libvirt-volume", upload.libvirt_volume.is_some()),
            ("--openstack-image", upload.openstack_image.is_some()),
            ("--ibmcloud-bucket", upload.ibmcloud_bucket.is_some()),
            ("--ibmcloud-image-name", upload.ibmcloud_image_name.is_some()),
            ("--azure-client-id", upload.azure_client_id.is_some()),
            ("--azure-image-name", upload.azure_image_name.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }
}

#[derive(Debug, Args)]
pub(super) struct ListOptions {
    /// List only what matches, such as type:qcow2 or arch:x86_64
    #[arg(long, value_name = "KEY:PATTERN")]
    pub(super) filter: Vec<Filter>,

    /// Choose the form: text or json
    #[arg(long, value_name = "FORM", value_parser = ["text", "json"])]
    pub(super) format: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct DescribeOptions {
    /// Name the type, such as qcow2
    #[arg(value_name = "TYPE")]
    pub(super) image_type: String,

    /// Choose the architecture
    #[arg(long, value_parser = architecture)]
    pub(super) arch: Option<String>,

    #[arg(long, hide = true)]
    distro: Option<String>,

    #[arg(long, hide = true)]
    in_vm: bool,
}

/// A condition of `list`: a pattern with `*` for a key, or for any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    key: Option<Key>,
    pattern: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Distro,
    Type,
    Architecture,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((key, pattern)) = text.split_once(':') else {
            return Ok(Self { key: None, pattern: text.to_owned() });
        };
        let key = match key {
            "distro" => Key::Distro,
            "type" => Key::Type,
            "arch" => Key::Architecture,
            _ => {
                return Err(
                    "expected one of: distro:PATTERN, type:PATTERN, arch:PATTERN".to_owned()
                );
            }
        };
        Ok(Self { key: Some(key), pattern: pattern.to_owned() })
    }
}

impl Filter {
    /// Whether it lets a type for an architecture through.
    pub(super) fn matches(&self, kind: ImageType, architecture: Architecture) -> bool {
        let of = |key: Key| match key {
            Key::Distro => super::DISTRO,
            Key::Type => kind.name(),
            Key::Architecture => architecture.name(),
        };
        match self.key {
            Some(key) => like(of(key), &self.pattern),
            None => [Key::Distro, Key::Type, Key::Architecture]
                .into_iter()
                .any(|key| like(of(key), &self.pattern)),
        }
    }
}

/// Whether a text is what a pattern says, in which `*` stands for anything.
fn like(text: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => text == pattern,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len()).any(|at| text.get(at..).is_some_and(|text| like(text, rest)))
        }),
    }
}

/// Bytes, or a number with a unit: `10 GiB`.
fn image_size(text: &str) -> Result<DiskSize, String> {
    parse_size(&text.split_whitespace().collect::<String>()).map(DiskSize::exactly)
}
