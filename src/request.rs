//! Everything a build depends on besides the image's bytes.

use std::path::PathBuf;

use crate::architecture::Architecture;
use crate::disk::Preset;
use crate::oci::Reference;
use crate::output::Format;

/// What to build, how, and where to put it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The image.
    pub image: Reference,
    /// The architecture to take from it.
    pub architecture: Architecture,
    /// The formats, each once.
    pub formats: Vec<Format>,
    /// Where the files go.
    pub destination: Destination,
    /// Which partitions.
    pub layout: Preset,
    /// Size of the whole disk in bytes; `None`: what is needed, and room for one upgrade.
    pub size: Option<u64>,
    /// Whether the image's boot loader is installed. Without it the disk boots by other means or not at all.
    pub install_bootloader: bool,
    /// What UUIDs derive from besides the manifest's digest.
    pub seed: String,
    /// Kernel arguments to add, in order.
    pub kargs: Vec<String>,
    /// Kernel arguments to take away: `key` or `key=value`.
    pub karg_deletes: Vec<String>,
    /// The image name that the machine follows; `None`: the image it is made from.
    pub target_image: Option<String>,
    /// Public keys that let root log in by ssh: the text of an `authorized_keys` file.
    pub root_ssh_keys: Option<Vec<u8>>,
    /// Stateroot; `None`: what the image configures, else `default`.
    pub stateroot: Option<String>,
    /// Where the spool goes.
    pub work_directory: PathBuf,
}

/// Where the disk files go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Into a directory, named `<image name>-<version>.<arch>.<ext>`.
    Directory(PathBuf),
    /// This very file; for a request with one format.
    File(PathBuf),
}
