//! The command line of bootc-image-builder: all flags of its old and its new home.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use bootpress::filesystem_kind::FileSystem;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Makes disks from a bootc image: bootpress, with the command line of bootc-image-builder. Needs no privileges.
#[derive(Debug, Parser)]
#[command(name = "bootc-image-builder", version, max_term_width = 100)]
pub(super) struct BibFlags {
    /// What is logged on standard error
    #[arg(long, value_enum, global = true, default_value_t = LogLevel::Error)]
    pub(super) log_level: LogLevel,

    /// Shows each step
    #[arg(long, short, global = true)]
    pub(super) verbose: bool,

    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make disks (implied when the first word is not a verb)
    Build(BuildOptions),
    /// Print what would be built
    Manifest(ManifestOptions),
    /// Print the version
    Version,
    /// Print completions for a shell
    Completion { shell: Shell },
}

#[derive(Debug, Args)]
pub(super) struct Common {
    /// The image
    #[arg(value_name = "IMAGE_NAME")]
    pub(super) image: String,

    /// Kind of disk; repeat it for several: ami, gce, ova, qcow2, raw, vhd, vmdk. Or iso, which boots live and installs,
    /// or anaconda-iso (bootc-installer is the same), where the image has Anaconda
    #[arg(long = "type", value_name = "TYPE", default_value = "qcow2")]
    pub(super) types: Vec<String>,

    /// Architecture to build for [default: this machine's]
    #[arg(long, value_name = "ARCH", value_parser = crate::cli::flags::architecture)]
    pub(super) target_arch: Option<String>,

    /// Root file system [default: the image's]
    #[arg(long, value_name = "TYPE", value_parser = crate::cli::flags::filesystem)]
    pub(super) rootfs: Option<FileSystem>,

    /// What UUIDs derive from, besides the image's digest
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<i64>,

    /// Leaves out the kernel arguments console=tty0 console=ttyS0
    #[arg(long)]
    pub(super) no_default_kernel_args: bool,

    /// What bootc-installer installs [default: the image itself]
    #[arg(long, value_name = "REF", alias = "bootc-installer-payload-ref")]
    pub(super) installer_payload_ref: Option<String>,

    /// Configuration; `-` reads JSON from standard input [default: /config.toml or /config.json]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Whether the image may be one that podman has on this machine [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth)]
    local: Option<bool>,

    #[command(flatten)]
    _unused: Unused,
}

impl Common {
    pub(super) fn is_local(&self) -> bool {
        self.local.unwrap_or(true)
    }
}

/// Accepted, and without effect: bootpress runs no tools of other images, uses no packages, and builds in the process itself.
#[derive(Debug, Args)]
#[command(next_help_heading = "Accepted, without effect")]
struct Unused {
    #[arg(long, value_name = "REF")]
    build_container: Option<String>,
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth)]
    tls_verify: Option<bool>,
    #[arg(long, value_name = "DIR")]
    rpmmd: Option<PathBuf>,
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth)]
    use_librepo: Option<bool>,
    #[arg(long)]
    in_vm: bool,
}

#[derive(Debug, Args)]
pub(super) struct BuildOptions {
    #[command(flatten)]
    pub(super) common: Common,

    /// Where the files go, made if need be [default: /output if it is there, else the current directory]
    #[arg(long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,

    /// Gives the output directory to a user, by number: UID or UID:GID
    #[arg(long, value_name = "UID:GID", value_parser = Owner::parse)]
    pub(super) chown: Option<Owner>,

    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ProgressOption::Auto)]
    pub(super) progress: ProgressOption,

    /// Name of the AMI. bootpress uploads nothing: it makes the disk, prints the commands that upload it, and fails with code 3
    #[arg(long, value_name = "NAME")]
    pub(super) aws_ami_name: Option<String>,
    /// Bucket for the upload
    #[arg(long, value_name = "NAME")]
    pub(super) aws_bucket: Option<String>,
    /// Region of the AMI
    #[arg(long, value_name = "NAME")]
    pub(super) aws_region: Option<String>,

    /// Where fetched images are kept for the next build [default: /store if it is there, else the cache of the user]
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ManifestOptions {
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevel {
    Debug,
    Info,
    Error,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum ProgressOption {
    Auto,
    Verbose,
    Term,
    Debug,
}

/// Whom the output shall belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) user: u32,
    pub(super) group: Option<u32>,
}

impl Owner {
    fn parse(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            part.parse().map_err(|_| format!("`{text}` is not UID or UID:GID, in numbers"))
        };
        let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
        Ok(Self { user: number(user)?, group: group.map(number).transpose()? })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            Some(group) => write!(f, "{}:{group}", self.user),
            None => write!(f, "{}", self.user),
        }
    }
}

/// A truth as that tool's parser of flags knows it: templates write `True`.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true and false are known".to_owned()),
    }
}

/// Prints the completions of a shell.
pub(super) fn completion(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    let mut command = BibFlags::command();
    clap_complete::generate(shell, &mut command, "bootc-image-builder", &mut script);
    io::stdout().lock().write_all(&script).context("printing the completions")
}
