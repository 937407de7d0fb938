//! The disks under test: each is pressed once, by the program itself, however many cases boot it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fixture::{Architecture, Recipe, Variant};
use serde::Deserialize;
use support::Build;
use support::tool::{run, tool};

/// A disk to press.
#[derive(Debug)]
pub(crate) struct Disk {
    name: &'static str,
    architecture: Architecture,
    variant: Variant,
    format: &'static str,
    flags: &'static [&'static str],
    /// Makes another image of the recipe's: from its layout, into an empty directory, whose tag `latest` is then pressed.
    remake: Option<fn(&Path, &Path)>,
    pressed: OnceLock<Pressed>,
}

/// A disk that has been pressed.
#[derive(Debug)]
pub(crate) struct Pressed {
    pub(crate) file: PathBuf,
    partitions: Vec<Partition>,
}

/// A partition, as the program reports it.
#[derive(Debug, Deserialize)]
pub(crate) struct Partition {
    /// `bios-boot`, `esp`, `boot`, `root`.
    pub(crate) role: String,
    /// Offset of its first byte.
    pub(crate) start: u64,
    /// Bytes of it.
    pub(crate) size: u64,
    filesystem: Option<Filesystem>,
}

#[derive(Debug, Deserialize)]
struct Filesystem {
    kind: String,
}

impl Disk {
    /// A disk with an image of this variant, in a format, pressed with further flags.
    pub(crate) const fn new(
        name: &'static str,
        architecture: Architecture,
        variant: Variant,
        format: &'static str,
        flags: &'static [&'static str],
    ) -> Self {
        Self { name, architecture, variant, format, flags, remake: None, pressed: OnceLock::new() }
    }

    /// A disk for x86_64 with an image that is made of this variant's.
    pub(crate) const fn of_remade(
        name: &'static str,
        variant: Variant,
        format: &'static str,
        remake: fn(&Path, &Path),
    ) -> Self {
        Self {
            name,
            architecture: Architecture::X86_64,
            variant,
            format,
            flags: &[],
            remake: Some(remake),
            pressed: OnceLock::new(),
        }
    }

    /// This disk, pressed with further flags.
    pub(crate) const fn with_flags(mut self, flags: &'static [&'static str]) -> Self {
        self.flags = flags;
        self
    }

    /// Its name among the disks.
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// The disk, pressed now unless another case has done so.
    pub(crate) fn pressed(&self) -> &Pressed {
        self.pressed.get_or_init(|| self.press())
    }

    fn press(&self) -> Pressed {
        let recipe = Recipe { variant: self.variant, ..Recipe::new(self.architecture) };
        let layout = recipe.layout().unwrap_or_else(|error| panic!("{}: {error:#}", self.name));
        let directory = directory("disks");
        let layout = match self.remake {
            None => layout,
            Some(remake) => {
                let remade = directory.join(self.name);
                if remade.exists() {
                    fs::remove_dir_all(&remade).unwrap();
                }
                fs::create_dir(&remade).unwrap();
                remake(&layout, &remade);
                remade
            }
        };
        let name = format!("{}.{}.{}", self.name, self.architecture.name(), self.format);
        let file = directory.join(name);
        let build = Build::new(format!("oci:{}:latest", layout.display()))
            .architecture(self.architecture.name())
            .format(self.format)
            .flags(self.flags)
            .output(&file);
        let report: Report = serde_json::from_value(build.run().report).unwrap();
        Pressed { file: unpacked(file, self.format), partitions: report.partitions }
    }
}

/// What a machine is given of a file that is an archive: the disk in it.
fn unpacked(file: PathBuf, format: &str) -> PathBuf {
    if !["gce", "ova"].contains(&format) {
        return file;
    }
    let directory = file.with_extension("unpacked");
    if directory.exists() {
        fs::remove_dir_all(&directory).unwrap();
    }
    fs::create_dir(&directory).unwrap();
    let mut tar = tool("tar").expect("tar unpacks it");
    run(tar.arg("-C").arg(&directory).arg("-xSf").arg(&file));
    let disk = |name: &PathBuf| {
        name.extension().is_some_and(|extension| extension == "raw" || extension == "vmdk")
    };
    let mut names = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let found = names.find(disk).expect("an archive holds a disk");
    let beside = file.with_extension(found.extension().unwrap_or_default());
    fs::rename(found, &beside).unwrap();
    fs::remove_dir_all(directory).unwrap();
    beside
}

impl Pressed {
    /// The partition of a role.
    pub(crate) fn partition(&self, role: &str) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.role == role)
    }

    /// The partitions with a file system of a kind.
    pub(crate) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Partition> {
        let is_it = move |partition: &&Partition| {
            partition.filesystem.as_ref().is_some_and(|filesystem| filesystem.kind == kind)
        };
        self.partitions.iter().filter(is_it)
    }
}

#[derive(Debug, Deserialize)]
struct Report {
    partitions: Vec<Partition>,
}

/// `target/boot/<name>`, made if need be.
pub(crate) fn directory(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in target");
    let directory = target.join("boot").join(name);
    fs::create_dir_all(&directory).unwrap();
    directory
}
