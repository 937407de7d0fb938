//! The command line.

pub(crate) mod bound;
pub(crate) mod config;
pub(crate) mod documents;
pub(crate) mod iso;
mod output;
pub(crate) mod registry;
pub(crate) mod release;

use std::ffi::OsString;
use std::path::PathBuf;

use bootpress::architecture::Architecture;
use bootpress::bootc::Backend;
use bootpress::bootloader::Loader;
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
  bootpress test fedora-bootc-43.x86_64.qcow2
  bootpress run fedora-bootc-43.x86_64.qcow2 --ssh
  bootpress inspect quay.io/fedora/fedora-bootc:43

Exit codes: 0 done or passed, 1 failed, 2 usage, 3 not supported, 4 corrupt or hostile input,
5 this machine broke a boot, so nothing was learned about the disk.
Set RUST_LOG=bootpress=debug to see why things happen.";

const BUILD_EXAMPLES: &str = "\
Examples:
  bootpress build quay.io/fedora/fedora-bootc:43
  bootpress build quay.io/fedora/fedora-bootc:43 --dry-run
  bootpress build quay.io/fedora/fedora-bootc:43 --arch aarch64 --size 20G --config config.toml
  bootpress build oci-archive:os.ociarchive --format raw.zst --format vmdk --output out/
  bootpress build quay.io/fedora/fedora-bootc:43 --format iso --output os.iso";

const TEST_EXAMPLES: &str = "\
Examples:
  bootpress test disk.x86_64.qcow2
  bootpress test disk.x86_64.qcow2 --quick --report junit=boot.xml --evidence evidence/
  bootpress test disk.x86_64.qcow2 --chain boot,upgrade=oci:os-2,reboot,rollback,reboot
  bootpress test os.iso --chain install=nvme:20G,boot";

const RUN_EXAMPLES: &str = "\
Examples:
  bootpress run disk.x86_64.qcow2
  bootpress run disk.x86_64.qcow2 --ssh=id_ed25519.pub --write
  bootpress run os.iso --gui --firmware uefi-secure";

const INSPECT_EXAMPLES: &str = "\
Examples:
  bootpress inspect disk.x86_64.qcow2
  bootpress inspect quay.io/fedora/fedora-bootc:43 --deep
  bootpress inspect disk.x86_64.qcow2 --json";

const CHECK_EXAMPLES: &str = "\
Examples:
  bootpress check quay.io/fedora/fedora-bootc:43
  bootpress check quay.io/fedora/fedora-bootc:43 --policy fedora --report sarif=check.sarif
  bootpress check --explain content.initramfs";

const VERIFY_EXAMPLES: &str = "\
Examples:
  bootpress verify disk.x86_64.qcow2 disk.x86_64.provenance.json --key signer.pub
  bootpress verify disk.raw disk.provenance.json --image oci:./image -- --config config.toml";

const PULL_EXAMPLES: &str = "\
Examples:
  bootpress pull quay.io/fedora/fedora-bootc:43 && bootpress build --offline quay.io/fedora/fedora-bootc:43";

const PUSH_EXAMPLES: &str = "\
Examples:
  bootpress push os-43.x86_64.qcow2 os-43.aarch64.qcow2 quay.io/me/os-disks:43
  bootpress push os-43.x86_64.qcow2 quay.io/me/os-vm:43 --as containerdisk
  bootpress pull quay.io/me/os-disks:43 --output . && bootpress test os-43.x86_64.qcow2";

const COMPOSE_EXAMPLES: &str = "\
Examples:
  bootpress compose iot.toml --output Fedora-IoT-43-20251014.0
  bootpress compose iot.toml --output Fedora-IoT-43-20251014.0 --dry-run";

const CACHE_EXAMPLES: &str = "\
Examples:
  bootpress cache list
  bootpress cache prune --max-size 20G";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  bootpress completions bash > ~/.local/share/bash-completion/completions/bootpress
  bootpress completions zsh > ~/.zfunc/_bootpress
  bootpress completions fish > ~/.config/fish/completions/bootpress.fish";

const ISO_EXAMPLES: &str = "\
Examples:
  bootpress iso set os.iso --karg console=ttyS0 --install-to serial=S4EWNX0M123456
  bootpress iso show os.iso
  bootpress iso reset os.iso";

/// Build disks that boot from bootc images, and test them
///
/// bootpress needs no root, no KVM, no mounts and no podman, and it never runs anything from the image.
#[derive(Debug, Parser)]
#[command(name = "bootpress", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build disks, ISOs or netboot directories from a bootc image
    #[command(after_help = BUILD_EXAMPLES)]
    Build(Box<BuildFlags>),
    /// Boot a disk, unmodified, in QEMU and report the result
    #[command(after_help = TEST_EXAMPLES)]
    Test(Box<super::test::TestFlags>),
    /// Use a disk in QEMU, with its console in this terminal
    #[command(after_help = RUN_EXAMPLES)]
    Run(super::run::RunFlags),
    /// Show what is on a disk, or what an image is
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(Box<super::inspect::InspectFlags>),
    /// Check an image, a disk or an ISO against rules
    ///
    /// Exit code 0: no violation is as severe as --fail-on says; 1: one is; 2 to 4: as for all commands, and nothing was judged.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Box<super::check::CheckFlags>),
    /// Build a disk again, and compare it with what is there
    ///
    /// Exit code 0: the file is what its provenance says, byte for byte; 1: it is not, and the first difference is named.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(Box<super::verify::VerifyFlags>),
    /// Fetch an image into the cache
    #[command(after_help = PULL_EXAMPLES)]
    Pull(Box<super::pull::PullFlags>),
    /// Push disks to a registry as OCI artifacts
    #[command(after_help = PUSH_EXAMPLES)]
    Push(Box<super::push::PushFlags>),
    /// Build and test all the disks of a compose
    #[command(after_help = COMPOSE_EXAMPLES)]
    Compose(super::compose::ComposeFlags),
    /// Show or shrink the cache of fetched images
    #[command(after_help = CACHE_EXAMPLES)]
    Cache(super::cache::CacheFlags),
    /// Show or change the settings of an ISO, in place
    #[command(after_help = ISO_EXAMPLES)]
    Iso(IsoFlags),
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(super::generate::CompletionsFlags),
    /// Print the manual page, or write one for each command
    Man(super::generate::ManFlags),
    /// Build with the command line of bootc-image-builder
    ///
    /// A link of that name to the program does the same.
    #[command(disable_help_flag = true)]
    BootcImageBuilder(Words),
    /// Build with the command line of image-builder
    ///
    /// A link of that name to the program does the same.
    #[command(disable_help_flag = true)]
    ImageBuilder(Words),
}

/// The command line of another tool.
#[derive(Debug, Args)]
pub(crate) struct Words {
    /// Give the verb and the flags of that tool, such as --help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    words: Vec<OsString>,
}

impl Words {
    /// The words after the name of the tool.
    pub(crate) fn named(self, name: &str) -> Vec<OsString> {
        std::iter::once(name.into()).chain(self.words).collect()
    }
}

#[derive(Debug, Args)]
pub(crate) struct BuildFlags {
    /// Name the bootc image
    ///
    /// From a registry: NAME or docker://NAME. From a file: oci-archive:FILE[:TAG] or docker-archive:FILE[:NAME], where `-` is standard
    /// input. From a directory: oci:DIR[:TAG] or dir:DIR. From podman on this machine: containers-storage:NAME.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Reference,

    /// Choose the architecture of the image and of the disk
    ///
    /// Without this flag it is that of this machine.
    #[arg(long, value_parser = architecture)]
    pub(crate) arch: Option<String>,

    /// Choose the format: qcow2, raw, vmdk, vhd, iso, pxe and more
    ///
    /// Disks: raw, qcow2, vmdk, ova, vhd (Azure), vhdx (Hyper-V), vdi (VirtualBox), gce (Google), ami (Amazon). All but gce can be
    /// compressed as a whole, as in raw.xz, raw.zst or vmdk.gz.
    ///
    /// iso: an ISO that runs the disk live and installs it. pxe: a directory that does the same over the network. anaconda-iso: an
    /// ISO on which the image's own Anaconda installs by kickstart; it is built alone.
    ///
    /// Repeat the flag to write several formats in one build. Without it, a qcow2 is built.
    #[arg(long = "format", value_name = "FORMAT", value_delimiter = ',')]
    pub(crate) formats: Vec<Wanted>,

    /// Choose the directory or the file to write
    ///
    /// In a directory, files are called <image>-<version>.<arch>.<ext>. With one format, PATH may be a file name.
    #[arg(long, short, value_name = "PATH", default_value = ".")]
    pub(crate) output: PathBuf,

    #[command(flatten)]
    pub(crate) config: ConfigFlags,

    #[command(flatten)]
    pub(crate) output_flags: OutputFlags,

    /// Keep the unpacked image in this directory during the build
    ///
    /// It needs room for all files of the image. Without this flag, the directory of the output is used.
    #[arg(long, value_name = "DIR")]
    pub(crate) work_directory: Option<PathBuf>,

    /// Choose how progress is shown, on standard error
    #[arg(long, value_enum, default_value_t = ProgressFlag::Auto)]
    pub(crate) progress: ProgressFlag,

    /// Print the report as JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// Set the size of the disk: 20G, min+2GiB, min+20%, image*1.5
    ///
    /// Units are binary. `min` is the smallest disk that everything fits on, and `image` is the size of the image's files. Without this
    /// flag, the root has room for its content and one upgrade.
    #[arg(long, value_name = "SIZE", help_heading = "Disk")]
    pub(crate) size: Option<DiskSize>,

    /// Choose the root file system: ext4, xfs or btrfs
    ///
    /// Without this flag it is what the image configures, else ext4.
    #[arg(long, value_name = "TYPE", value_parser = filesystem, help_heading = "Disk")]
    pub(crate) filesystem: Option<FileSystem>,

    /// Choose the partitions
    #[arg(long, value_enum, default_value_t = LayoutFlag::Bootc, help_heading = "Disk")]
    pub(crate) layout: LayoutFlag,

    /// Set the bytes of a sector: 512 or 4096
    ///
    /// 4096 is for drives that have no smaller sectors ("4K native"). They start from UEFI only.
    #[arg(long, value_name = "BYTES", value_parser = sector_size, default_value = "512", help_heading = "Disk", hide_short_help = true)]
    pub(crate) sector_size: SectorSize,

    /// Choose the boot loader to install
    #[arg(long, value_enum, default_value_t = BootloaderFlag::Auto, help_heading = "Disk", hide_short_help = true)]
    pub(crate) bootloader: BootloaderFlag,

    /// Choose the storage backend of bootc
    ///
    /// Without it the image chooses: composefs if it boots a unified kernel image, or has usr/lib/composefs/setup-root-conf.toml and
    /// no prepare-root.conf; otherwise ostree.
    #[arg(long, value_enum, help_heading = "Installed system", hide_short_help = true)]
    pub(crate) backend: Option<BackendFlag>,

    /// Derive other UUIDs from the same image
    ///
    /// All UUIDs derive from the digest of the image and from this text.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        help_heading = "Disk",
        hide_short_help = true
    )]
    pub(crate) seed: String,

    /// Add a kernel argument; repeat for several
    #[arg(
        long = "karg",
        value_name = "ARG",
        value_parser = karg,
        allow_hyphen_values = true,
        help_heading = "Installed system"
    )]
    pub(crate) kargs: Vec<String>,

    /// Remove a kernel argument of the image; repeat for several
    ///
    /// KEY removes all arguments of that name, and KEY=VALUE removes just that one.
    #[arg(long = "karg-delete", value_name = "ARG", help_heading = "Installed system")]
    pub(crate) karg_deletes: Vec<String>,

    /// Set the image that the machine follows for upgrades
    ///
    /// Without this flag it is the image that the disk is built from.
    #[arg(long, value_name = "NAME", value_parser = one_word, help_heading = "Installed system")]
    pub(crate) target_imgref: Option<String>,

    /// Set how the machine reaches the image of --target-imgref
    ///
    /// One of: registry, oci, oci-archive, containers-storage, docker-archive, dir.
    #[arg(
        long,
        value_name = "TRANSPORT",
        value_parser = transport,
        default_value = "registry",
        requires = "target_imgref",
        help_heading = "Installed system",
        hide_short_help = true
    )]
    pub(crate) target_transport: Transport,

    /// Let root log in with the ssh public keys in a file
    #[arg(long, value_name = "FILE", help_heading = "Installed system")]
    pub(crate) root_ssh_authorized_keys: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) bound: bound::BoundFlags,

    /// Make the machine's signature policy decide about upgrades
    ///
    /// Without this flag it is what the image configures, else no.
    #[arg(long, help_heading = "Installed system", hide_short_help = true)]
    pub(crate) enforce_container_sigpolicy: bool,

    /// Set what `root=` names, such as LABEL=root
    ///
    /// An empty value leaves `root=` out. Without this flag it is what the image configures, else the UUID of the file system.
    #[arg(long, value_name = "SPEC", value_parser = one_word, help_heading = "Installed system", hide_short_help = true)]
    pub(crate) root_mount_spec: Option<String>,

    /// Set what is mounted on /boot, such as LABEL=boot
    ///
    /// With an empty value, nothing is. Without this flag it is what the image configures, else the UUID of the file system.
    #[arg(long, value_name = "SPEC", value_parser = one_word, help_heading = "Installed system", hide_short_help = true)]
    pub(crate) boot_mount_spec: Option<String>,

    /// Set the name of the stateroot
    ///
    /// Without this flag it is what the image configures, else `default`.
    #[arg(long, value_name = "NAME", help_heading = "Installed system", hide_short_help = true)]
    pub(crate) stateroot: Option<StaterootName>,

    // What follows is under headings of its own: a heading counts for all flags after it.
    #[command(flatten)]
    pub(crate) documents: documents::DocumentFlags,
    #[command(flatten)]
    pub(crate) medium: MediumFlags,
    #[command(flatten)]
    pub(crate) release: release::ReleaseFlags,
    #[command(flatten)]
    pub(crate) trust: super::trust_flags::TrustFlags,
    #[command(flatten)]
    pub(crate) registry: RegistryFlags,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LayoutFlag {
    /// as `bootc install to-disk` makes them
    Bootc,
    /// as osbuild makes them: a /boot of its own, no DPS type for the root
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
    /// GRUB, where the image brings other boot loaders too
    Grub,
    /// GRUB for confidential computing, behind the shim
    GrubCc,
    /// systemd-boot: as a component of bootupd, else as bootctl installs it
    Systemd,
    /// none: the disk boots by other means
    None,
}

impl BootloaderFlag {
    /// The boot loader that is asked for.
    pub(crate) const fn loader(self) -> Option<Loader> {
        match self {
            Self::Auto | Self::None => None,
            Self::Grub => Some(Loader::Grub),
            Self::GrubCc => Some(Loader::GrubCc),
            Self::Systemd => Some(Loader::SystemdBoot),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendFlag {
    /// an ostree repository
    Ostree,
    /// a composefs repository
    Composefs,
}

impl From<BackendFlag> for Backend {
    fn from(flag: BackendFlag) -> Self {
        match flag {
            BackendFlag::Ostree => Self::Ostree,
            BackendFlag::Composefs => Self::Composefs,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ProgressFlag {
    /// bars on a terminal, lines elsewhere
    Auto,
    /// a bar for each stage
    Bars,
    /// a line for each stage
    Lines,
    /// a JSON object on each line
    Json,
    /// nothing but warnings and errors
    None,
}

/// A kernel argument that boot loaders can pass on.
pub(crate) fn karg(text: &str) -> Result<String, String> {
    bootpress::command_line::check(text)?;
    one_line(text)
}

/// A name that the build can answer: an architecture of ours, or one that it refuses with a reason.
pub(crate) fn architecture(name: &str) -> Result<String, String> {
    if Architecture::parse(name).is_some() || Architecture::refusal(name).is_some() {
        Ok(name.to_owned())
    } else {
        Err(format!("expected one of: {}", Architecture::ALL.map(Architecture::name).join(", ")))
    }
}

fn sector_size(text: &str) -> Result<SectorSize, String> {
    let bytes = text.parse().ok();
    bytes.and_then(SectorSize::from_bytes).ok_or_else(|| "expected one of: 512, 4096".to_owned())
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
        format!("expected one of: {}", Transport::ALL.map(Transport::name).join(", "))
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

    /// What `-h` shows is a short imperative; clap adds defaults and possible values.
    #[test]
    fn help_is_one_short_line_for_every_flag() {
        let mut wrong = Vec::new();
        judge(&Flags::command(), &mut wrong);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    fn judge(command: &clap::Command, wrong: &mut Vec<String>) {
        let short = |help: Option<&clap::builder::StyledStr>| {
            let help = help.map(ToString::to_string).unwrap_or_default();
            let sound = !help.is_empty() && help.chars().count() <= LONGEST_HELP;
            let plain = !help.ends_with('.') && !help.contains("[default");
            (sound && plain && help.starts_with(char::is_uppercase)).then_some(()).ok_or(help)
        };
        if let Err(help) = short(command.get_about()) {
            wrong.push(format!("{}: {help}", command.get_name()));
        }
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            if let Err(help) = short(arg.get_help()) {
                wrong.push(format!("{} {}: {help}", command.get_name(), arg.get_id()));
            }
        }
        command.get_subcommands().for_each(|below| judge(below, wrong));
    }

    /// Characters of the line that `-h` shows for a flag; `docs/src/contributing/style.md`, rule 7.
    const LONGEST_HELP: usize = 60;
}
