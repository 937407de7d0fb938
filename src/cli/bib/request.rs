//! What the command lines of osbuild's tools ask for, as a request: their partitions, sizes, compression and kernel arguments.

use std::path::{Path, PathBuf};

use anyhow::Result;
use bootpress::architecture::Architecture;
use bootpress::config::Reading;
use bootpress::disk::{DiskSize, Preset};
use bootpress::filesystem_kind::FileSystem;
use bootpress::iso::MediumKind;
use bootpress::oci::{self, Access, Reference};
use bootpress::output::ClusterCompression;
use bootpress::progress::Progress;
use bootpress::request::Request;

use crate::cli::build;
use crate::cli::flags::config;
use crate::cli::flags::iso::{MediumFlags, Wanted};
use crate::cli::flags::registry::RegistryFlags;

/// Kernel arguments of those tools' ISOs; those of their disks belong to the preset.
const OSBUILD_ARGUMENTS: [&str; 2] = ["console=tty0", "console=ttyS0"];

/// Bytes that a disk of those tools has at least.
const LEAST_SIZE: u64 = 10 << 30;

/// Where containers of those tools have the images of the machine they run on.
pub(in crate::cli) const STORAGE: &str = "/var/lib/containers/storage";

/// What is asked for, whichever tool's words were used.
#[derive(Debug)]
pub(in crate::cli) struct Wish<'a> {
    /// The image, as that tool names it.
    pub(in crate::cli) image: &'a str,
    /// Whether the image may be one that podman has on this machine.
    pub(in crate::cli) local: bool,
    /// The architecture; `None`: that of this machine.
    pub(in crate::cli) architecture: Option<&'a str>,
    /// The file system of the root; `None`: what the image configures.
    pub(in crate::cli) root: Option<FileSystem>,
    /// The size of the disk; `None`: at least what those tools' disks have.
    pub(in crate::cli) size: Option<DiskSize>,
    /// What UUIDs derive from besides the image.
    pub(in crate::cli) seed: Option<i64>,
    /// Whether the kernel arguments of those tools are added.
    pub(in crate::cli) default_arguments: bool,
    /// The image that Anaconda installs.
    pub(in crate::cli) payload: Option<Reference>,
    /// The blueprint, and whether keys without effect are only warned of.
    pub(in crate::cli) config: Option<PathBuf>,
    pub(in crate::cli) lenient: bool,
    /// What is built.
    pub(in crate::cli) formats: Vec<Wanted>,
}

impl Wish<'_> {
    /// The request that it comes to, without a place for the files.
    pub(in crate::cli) fn request(self) -> Result<Request> {
        let kinds: Vec<MediumKind> =
            self.formats.iter().copied().filter_map(Wanted::medium).collect();
        let medium = MediumFlags { installer_payload: self.payload, ..MediumFlags::default() };
        let storage = Path::new(STORAGE);
        let image = reference(self.image, self.architecture, self.local, storage).parse()?;
        let architecture = build::architecture(self.architecture)?;
        // Several files go to several places; whoever builds says where.
        let mut request = Request::new(image, architecture, &std::env::temp_dir());
        let spool = Some(std::env::temp_dir());
        request.image.access = Access { spool, ..RegistryFlags::default().access()? };
        if let Some(file) = &self.config {
            let reading = Reading { lenient: self.lenient, purpose: build::purpose(&kinds) };
            request.config = config::read(file, reading)?;
        }
        request.seed = self.seed.map(|seed| seed.to_string()).unwrap_or_default();
        request.output.formats = self.formats.iter().copied().filter_map(Wanted::disk).collect();
        // As the tools that this program stands in for compress them.
        request.output.qcow2_compression = Some(ClusterCompression::Zlib);
        request.system.preset_arguments = self.default_arguments;
        request.disk.root = self.root;
        request.disk.size = self.size;
        if kinds.is_empty() {
            request.disk.preset = Preset::Osbuild;
            request.disk.least_size = LEAST_SIZE;
        } else if kinds.contains(&MediumKind::Iso) && self.default_arguments {
            // An ISO runs disks with one file system, and its disk is as small as it can be: it has to fit the one that it is
            // installed to.
            request.system.kernel_arguments = OSBUILD_ARGUMENTS.map(str::to_owned).to_vec();
        }
        build::add_media(&mut request, kinds, &medium)?;
        Ok(request)
    }
}

/// Where those tools look for the image: in the storage of containers, if that is there and has it. What is not there is pulled,
/// though those tools would ask for `podman pull` first.
pub(in crate::cli) fn reference(
    image: &str,
    architecture: Option<&str>,
    local: bool,
    storage: &Path,
) -> String {
    // A reference with a transport says itself where it is.
    let transports =
        ["oci:", "oci-archive:", "docker:", "docker-archive:", "dir:", "containers-storage:"];
    let elsewhere = transports.iter().any(|transport| image.starts_with(transport));
    let here = format!("containers-storage:{image}");
    let Ok(in_storage) = here.parse::<Reference>() else { return image.to_owned() };
    if elsewhere || !local || !has_images(storage) {
        return image.to_owned();
    }
    let named = architecture.and_then(Architecture::parse);
    let found = named
        .or_else(Architecture::host)
        .map(|architecture| oci::open(&in_storage, architecture, &Progress::default()));
    if matches!(found, Some(Ok(_))) { here } else { image.to_owned() }
}

/// Whether a storage of containers has images at all.
pub(in crate::cli) fn has_images(storage: &Path) -> bool {
    let names = storage.read_dir().into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.as_encoded_bytes().ends_with(b"-images"))
}
