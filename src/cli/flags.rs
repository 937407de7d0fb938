//! The command line.

pub(crate) mod bound;
pub(crate) mod config;
pub(crate) mod iso;
mod output;
pub(crate) mod registry;

use std::path::PathBuf;

use bootpress::architecture::Architecture;
use bootpress::disk::{DiskSize, Preset, SectorSize};
use bootpress::filesystem_kind::FileSystem;
use bootpress::name::StaterootName;
use bootpress::oci::Reference;
use bootpress::request::Transport;
use clap::{Args, Parser, Subcommand, ValueEnum};

use self::config::ConfigFlags;
use self::iso::{IsoFlags, MediumFlags, Wanted};
use self::output::OutputFlags;
use self::registry::RegistryFlags;

const AFTER_HELP: &str = "\
Examples:
  bootpress build quay.io/fedora/fedora-bootc:43
      makes fedora-bootc-43.….x86_64.qcow2 here
  bootpress build oci-archive:Fedora-base-bootc.ociarchive --format raw --format qcow2 --output out/
  bootpress build quay.io/fedora/fedora-bootc:43 --arch aarch64 --size 20G --karg console=ttyAMA0
  bootpress test fedora-bootc-43.x86_64.qcow2 --quick
  bootpress run fedora-bootc-43.x86_64.qcow2 --ssh
  bootpress inspect fedora-bootc-43.x86_64.qcow2
  bootpress inspect quay.io/fedora/fedora-bootc:43
      tells what the image is and whether a build will do, without fetching layers
  bootpress pull quay.io/fedora/fedora-bootc:43 && bootpress build --offline quay.io/fedora/fedora-bootc:43

Exit codes: 0 done or passed, 1 failed, 2 usage, 3 not supported, 4 corrupt or hostile input,
5 a boot was broken by this machine, which says nothing about the disk.
Set RUST_LOG=bootpress=debug to see why things happen.";

/// Turns a bootc container image into disks that boot: without root, without mounts, without running it.
#[derive(Debug, Parser)]
#[command(name = "bootpress", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make disks from a bootc image
    Build(Box<BuildFlags>),
    /// Boot a disk, unmodified, in QEMU and say how it went
    Test(Box<super::test::TestFlags>),
    /// Boot a disk in QEMU to use it: its console is the terminal
    Run(super::run::RunFlags),
    /// Show what is on a disk: partitions, boot entries, deployments, who signed what boots; or what an image is
    Inspect(Box<super::inspect::InspectFlags>),
    /// Fetch an image into the cache, so that builds need no network
    Pull(Box<super::pull::PullFlags>),
    /// Show or shrink the cache of fetched images
    Cache(super::cache::CacheFlags),
    /// Print completions for a shell: bootpress completions bash > …/bash-completion/completions/bootpress
    Completions(super::generate::CompletionsFlags),
    /// Print the manual page, or write one for each command into a directory
    Man(super::generate::ManFlags),
    /// Show and change the settings of an ISO, in place
    Iso(IsoFlags),
}

#[derive(Debug, Args)]
pub(crate) struct BuildFlags {
    /// The bootc image: docker://NAME or just NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME],
    /// dir:DIR, containers-storage:NAME; `-` for FILE is standard input
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Reference,

    /// Architecture to take from a multi-arch image, and to make the disk for [default: this machine's]
    #[arg(long, value_parser = architecture)]
    pub(crate) arch: Option<String>,

    /// Format of the disk, or iso, a medium that runs it live and installs it, or pxe, a directory that does so over the network;
    /// repeat it for several in one run: raw, qcow2, vmdk, vhd (Azure), vhdx (Hyper-V), vdi (VirtualBox), gce, ova, ami; any but gce
    /// also compressed as a whole, as in raw.xz, raw.zst, vmdk.gz. Alone: anaconda-iso, a medium on which the image's own Anaconda
    /// installs by kickstart [default: qcow2]
    #[arg(long = "format", value_name = "FORMAT", value_delimiter = ',')]
    pub(crate) formats: Vec<Wanted>,

    #[command(flatten)]
    pub(crate) output_flags: OutputFlags,

    /// Directory for <image>-<version>.<arch>.<ext>; with one format it may be a file name
    #[arg(long, short, value_name = "PATH", default_value = ".")]
    pub(crate) output: PathBuf,

    /// Partitions: as `bootc install to-disk` makes them, or as osbuild does (own /boot, no DPS type for the root)
    #[arg(long, value_enum, default_value_t = LayoutFlag::Bootc, help_heading = "Disk")]
    pub(crate) layout: LayoutFlag,

    /// Size of the whole disk: 10G (binary units), min+2GiB, min+20%, image*1.5; `min` is the smallest that everything fits
    /// on, `image` the size of the image's files [default: content, and room for one upgrade]
    #[arg(long, value_name = "SIZE", help_heading = "Disk")]
    pub(crate) size: Option<DiskSize>,

    /// Bytes of a sector: 512, or 4096 for disks that have no others ("4K native"; UEFI only)
    #[arg(long, value_name = "BYTES", value_parser = sector_size, default_value = "512", help_heading = "Disk")]
    pub(crate) sector_size: SectorSize,

    /// Root file system [default: what the image configures, else ext4] [possible values: ext4, xfs, btrfs]
    #[arg(long, value_name = "TYPE", value_parser = filesystem, help_heading = "Disk")]
    pub(crate) filesystem: Option<FileSystem>,

    /// Boot loader of the image to install
    #[arg(long, value_enum, default_value_t = BootloaderFlag::Auto, help_heading = "Disk")]
    pub(crate) bootloader: BootloaderFlag,

    /// What the disk's UUIDs derive from, besides the image's digest
    #[arg(long, default_value = "", hide_default_value = true, help_heading = "Disk")]
    pub(crate) seed: String,

    /// Adds a kernel argument; repeat it for several
    #[arg(
        long = "karg",
        value_name = "ARG",
        value_parser = karg,
        allow_hyphen_values = true,
        help_heading = "Installed system"
    )]
    pub(crate) kargs: Vec<String>,

    /// Takes away a kernel argument that the image configures: KEY, or KEY=VALUE for just that one
    #[arg(long = "karg-delete", value_name = "ARG", help_heading = "Installed system")]
    pub(crate) karg_deletes: Vec<String>,

    /// What `root=` names, such as LABEL=root; empty: no `root=` [default: what the image configures, else the UUID]
    #[arg(long, value_name = "SPEC", value_parser = one_word, help_heading = "Installed system")]
    pub(crate) root_mount_spec: Option<String>,

    /// What is mounted on /boot, such as LABEL=boot; empty: nothing [default: what the image configures, else the UUID]
    #[arg(long, value_name = "SPEC", value_parser = one_word, help_heading = "Installed system")]
    pub(crate) boot_mount_spec: Option<String>,

    /// The image that the machine follows for upgrades [default: the image it is made from]
    #[arg(long, value_name = "NAME", value_parser = one_word, help_heading = "Installed system")]
    pub(crate) target_imgref: Option<String>,

    /// How the machine gets at --target-imgref: registry, oci, oci-archive, containers-storage, docker-archive or dir
    #[arg(
        long,
        value_name = "TRANSPORT",
        value_parser = transport,
        default_value = "registry",
        requires = "target_imgref",
        help_heading = "Installed system"
    )]
    pub(crate) target_transport: Transport,

    /// Lets the machine's container policy decide about updates [default: what the image configures, else no]
    #[arg(long, help_heading = "Installed system")]
    pub(crate) enforce_container_sigpolicy: bool,

    #[command(flatten)]
    pub(crate) bound: bound::BoundFlags,

    /// Lets root log in with these ssh public keys
    #[arg(long, value_name = "FILE", help_heading = "Installed system")]
    pub(crate) root_ssh_authorized_keys: Option<PathBuf>,

    /// Name of the stateroot [default: what the image configures, else `default`]
    #[arg(long, value_name = "NAME", help_heading = "Installed system")]
    pub(crate) stateroot: Option<StaterootName>,

    #[command(flatten)]
    pub(crate) config: ConfigFlags,

    /// Where the unpacked image is kept while it is worked on; needs room for all of it [default: the output's directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) work_directory: Option<PathBuf>,

    /// How to show progress, on standard error
    #[arg(long, value_enum, default_value_t = ProgressFlag::Auto)]
    pub(crate) progress: ProgressFlag,

    /// Print what was made as JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    // What follows is under headings of its own: a heading counts for all flags after it.
    #[command(flatten)]
    pub(crate) medium: MediumFlags,
    #[command(flatten)]
    pub(crate) trust: super::trust_flags::TrustFlags,
    #[command(flatten)]
    pub(crate) registry: RegistryFlags,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LayoutFlag {
    Bootc,
    Osbuild,
}

impl From<LayoutFlag> for Preset {
    fn from(flag: LayoutFlag) -> Self {
        match flag {
            LayoutFlag::Bootc => Self::Bootc,
            LayoutFlag::Osbuild => Self::Osbuild,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BootloaderFlag {
    /// what the image configures
    Auto,
    /// GRUB, where the image brings other boot loaders, too
    Grub,
    /// the disk boots by other means
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ProgressFlag {
    /// bars on a terminal, lines elsewhere
    Auto,
    Bars,
    Lines,
    /// JSON lines
    Json,
    None,
}

/// A kernel argument that boot loaders can pass on.
pub(crate) fn karg(text: &str) -> Result<String, String> {
    bootpress::command_line::check(text)?;
    one_line(text)
}

/// A name that the build can answer: an architecture of ours, or one that it refuses with a reason.
pub(crate) fn architecture(name: &str) -> Result<String, String> {
    match Architecture::parse(name).is_some() || Architecture::refusal(name).is_some() {
        true => Ok(name.to_owned()),
        false => Err(format!(
            "known architectures: {}",
            Architecture::ALL.map(Architecture::name).join(", ")
        )),
    }
}

fn sector_size(text: &str) -> Result<SectorSize, String> {
    let bytes = text.parse().ok();
    bytes
        .and_then(SectorSize::from_bytes)
        .ok_or_else(|| "sectors have 512 or 4096 bytes".to_owned())
}

/// A word, which may be empty: mount units, origin files and boot entries hold no blanks in such a place.
fn one_word(text: &str) -> Result<String, String> {
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("expected one word without blanks".to_owned());
    }
    Ok(text.to_owned())
}

/// A text of one line, as boot entries hold it.
fn one_line(text: &str) -> Result<String, String> {
    if text.contains(char::is_control) {
        return Err("expected one line".to_owned());
    }
    Ok(text.to_owned())
}

pub(crate) fn filesystem(name: &str) -> Result<FileSystem, String> {
    FileSystem::ROOTS.into_iter().find(|filesystem| filesystem.name() == name).ok_or_else(|| {
        format!("expected one of: {}", FileSystem::ROOTS.map(FileSystem::name).join(", "))
    })
}

fn transport(name: &str) -> Result<Transport, String> {
    Transport::ALL.into_iter().find(|transport| transport.name() == name).ok_or_else(|| {
        format!("known transports: {}", Transport::ALL.map(Transport::name).join(", "))
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Flags::command().debug_assert();
    }
}
