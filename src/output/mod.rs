//! SparseMap → disk file: raw, qcow2, vmdk, vhd, vhdx, vdi, and archives for clouds, compressed or not; Tree → directory.
//!
//! Each file is written from front to back by a thread of its own, without a name as yet, and hashed by
//! another thread as it goes. When all are whole and on the platter they get their names; until then, and after any error,
//! nothing is there that was not there before.
//!
//! What is compressed is cut into pieces that know nothing of each other, for as many threads as there are processors (`pool`):
//! the bytes are the same for any number.

mod archive;
mod deflate;
mod directory;
mod format;
mod ova;
mod packed;
mod pool;
mod qcow2;
mod raw;
mod sink;
mod stretches;

mod unfinished;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::thread;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::architecture::Architecture;
use crate::content::ContentStore;
use crate::error::unsupported;
use crate::progress::{Progress, Stage, StageGuard};
use crate::sparse::SparseMap;
pub use directory::{DirectoryReport, write_directory};
pub use format::{ClusterCompression, FileFormat, Format, Packing, Target};
use packed::Inside;
use sink::{BUFFER, FileSink, Hash, Meter, Sink};
use stretches::Disk;
use unfinished::Unfinished;

/// What files say besides the disk's bytes, and how they are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the identifiers in the files derive from.
    pub identity: Uuid,
    /// The machine's architecture, which appliances name.
    pub architecture: Architecture,
    /// Bytes of the disk's sectors: 512 or 4096.
    pub sector_size: u64,
    /// How a qcow2's clusters are compressed; not done in a file that is compressed as a whole.
    pub qcow2_compression: Option<ClusterCompression>,
    /// Threads that compress, for each file; `None`: as many as there are processors.
    pub threads: Option<usize>,
}

impl Options {
    /// Options for a disk with sectors of 512 bytes, without compression inside.
    pub fn new(identity: Uuid, architecture: Architecture) -> Self {
        Self { identity, architecture, sector_size: 512, qcow2_compression: None, threads: None }
    }

    /// One of the identifiers; the same each time.
    fn id(&self, role: &str) -> Uuid {
        // Version 5 is RFC 9562's for names below another UUID; version 4 is what every reader has seen.
        let derived = Uuid::new_v5(&self.identity, role.as_bytes());
        uuid::Builder::from_random_bytes(derived.into_bytes()).into_uuid()
    }

    fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
    }
}

/// A disk file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub format: Format,
    /// How it is compressed as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Packing>,
    /// Bytes of the disk that it holds, zero or not.
    pub size: u64,
    /// Bytes that it takes on the host, holes not counted.
    pub allocated: u64,
    /// SHA-256 of the file, holes read as zero; lower-case hexadecimal.
    pub sha256: String,
    /// What is inside, if it is compressed as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncompressed: Option<Uncompressed>,
}

/// A file as it is when it is unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uncompressed {
    /// Bytes.
    pub size: u64,
    /// SHA-256; lower-case hexadecimal.
    pub sha256: String,
}

/// Writes a small document, complete or not at all. Returns its SHA-256.
pub fn write_document(path: &Path, bytes: &[u8]) -> Result<String> {
    let writing = || format!("writing {}", path.display());
    let unfinished = Unfinished::create_in(directory_of(path)).with_context(writing)?;
    let mut file = unfinished.file();
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(writing)?;
    unfinished.name(path).with_context(writing)?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether a file can be written at a path: early, because the work before takes minutes. Leaves nothing behind.
///
/// Fails if the directory is not there or takes no files, or if something is there that is not a file.
pub fn check_place(path: &Path) -> Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    // Whatever has the name gives way in the end, so it must be a file: not a device, not somebody's pipe.
    if let Ok(there) = fs::symlink_metadata(path)
        && !there.is_file()
        && !there.is_dir()
    {
        return Err(anyhow!("{} is not a regular file", path.display()))
            .context("looking at what is to be replaced");
    }
    Unfinished::create_in(directory)
        .map(drop)
        // Without the temporary name that was tried: it says nothing.
        .map_err(|error| io::Error::from(error.kind()))
        .with_context(|| format!("creating a file in {}", directory.display()))
}

/// How a file of some format comes about: decided before the first byte is written.
enum Layout {
    Raw(raw::Layout),
    Qcow2(qcow2::Layout),
    CompressedQcow2(qcow2::compressed::Layout),
    Vmdk(vmdk::Layout),
    Vhd(vhd::Layout),
    Vhdx(vhdx::Layout),
    Vdi(vdi::Layout),
    Gce(archive::Layout),
    Ova(ova::Layout),
}

impl Layout {
    fn of(target: &Target, disk: Disk<'_>, options: &Options) -> Result<Self> {
        let id = |role: &str| options.id(role);
        let inside = options.qcow2_compression.filter(|_| target.format.packing.is_none());
        Ok(match target.format.format {
            Format::Raw | Format::Ami => Self::Raw(raw::Layout::of(disk)),
            Format::Qcow2 => match inside {
                None => Self::Qcow2(qcow2::Layout::of(disk)?),
                Some(how) => Self::CompressedQcow2(qcow2::compressed::Layout::of(disk, how)?),
            },
            Format::Vmdk => {
                let name = format!("{}.vmdk", target.stem());
                Self::Vmdk(vmdk::Layout::of(disk, id("vmdk"), name)?)
            }
            Format::Vhd => Self::Vhd(vhd::Layout::of(disk, id("vhd"))),
            Format::Vhdx => {
                let guids = vhdx::Guids {
                    file_write: id("vhdx file"),
                    data_write: id("vhdx data"),
                    disk: id("vhdx disk"),
                };
                let sector_size = u32::try_from(options.sector_size)?;
                Self::Vhdx(vhdx::Layout::of(disk, sector_size, guids)?)
            }
            Format::Vdi => {
                Self::Vdi(vdi::Layout::of(disk, [id("vdi creation"), id("vdi change")])?)
            }
            // The name that the importer looks for.
            Format::Gce => Self::Gce(archive::Layout::of(disk, "disk.raw")),
            Format::Ova => {
                let (name, architecture) = (target.stem(), options.architecture);
                Self::Ova(ova::Layout::of(disk, id("ova"), name, architecture)?)
            }
        })
    }

    /// Bytes of the file, where they are known beforehand.
    fn file_size(&self) -> Option<u64> {
        match self {
            Self::Raw(layout) => Some(layout.file_size()),
            Self::Qcow2(layout) => Some(layout.file_size()),
            Self::Vhd(layout) => Some(layout.file_size()),
            Self::Vhdx(layout) => Some(layout.file_size()),
            Self::Vdi(layout) => Some(layout.file_size()),
            Self::Gce(layout) => Some(layout.file_size()),
            Self::CompressedQcow2(_) | Self::Vmdk(_) | Self::Ova(_) => None,
        }
    }

    /// Bytes that will have been counted at the end: those of the file or, where nobody knows them yet, of the disk.
    fn work(&self) -> u64 {
        match self {
            Self::CompressedQcow2(layout) => layout.work(),
            Self::Vmdk(layout) => layout.work(),
            Self::Ova(layout) => layout.work(),
            other => other.file_size().expect("the others know"),
        }
    }

    /// Whether the beginning of the file is written last.
    fn comes_back(&self) -> bool {
        matches!(self, Self::CompressedQcow2(_) | Self::Ova(_))
    }

    fn write(&self, disk: Disk<'_>, threads: usize, sink: &mut FileSink<'_>) -> Result<()> {
        match self {
            Self::CompressedQcow2(layout) => layout.write(disk, threads, sink),
            Self::Ova(layout) => layout.write(disk, threads, sink),
            stream => stream.stream(disk, threads, sink),
        }
    }

    /// Writes a file that is written from front to back.
    fn stream(&self, disk: Disk<'_>, threads: usize, sink: &mut dyn Sink) -> Result<()> {
        match self {
            Self::Raw(layout) => layout.write(disk, sink),
            Self::Qcow2(layout) => layout.write(disk, sink),
            Self::Vmdk(layout) => layout.write(disk, threads, sink),
            Self::Vhd(layout) => layout.write(disk, sink),
            Self::Vhdx(layout) => layout.write(disk, sink),
            Self::Vdi(layout) => layout.write(disk, sink),
            Self::Gce(layout) => layout.write(disk, sink),
            Self::CompressedQcow2(_) | Self::Ova(_) => unreachable!("they come back"),
        }
    }
}

/// Writes a disk to each of `targets`, all at the same time. A file that is there is replaced, in one step, by a whole one.
/// Fails if a directory cannot be written to, is full, or if a target is something else than a regular file; then no target
/// has changed.
pub fn write(
    map: &SparseMap,
    contents: &ContentStore,
    targets: &[Target],
    options: &Options,
    progress: &Progress,
) -> Result<Vec<FileReport>> {
    check(targets)?;
    let disk = Disk { map, contents };
    let mut works = Vec::new();
    for target in targets {
        let context = || format!("laying out {}", target.path.display());
        let layout = Layout::of(target, disk, options).with_context(context)?;
        let threads = options.threads();
        works.push(Work { target, layout, file: unfinished(&target.path)?, threads });
    }
    let total = works.iter().map(|work| work.layout.work()).sum();
    let stage = progress.stage(Stage::Write, Some(total));
    let stop = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let (stage, stop) = (&stage, &stop);
        let threads: Vec<_> = works
            .into_iter()
            .map(|work| scope.spawn(move || work.write(disk, stage, stop)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    let written = first_cause(written)?;
    written.into_iter().map(Written::name).collect()
}

/// A file to be written.
struct Work<'a> {
    target: &'a Target,
    layout: Layout,
    file: Unfinished,
    threads: usize,
}

/// A whole file that waits for its name.
struct Written {
    file: Unfinished,
    report: FileReport,
}

impl Work<'_> {
    fn write(self, disk: Disk<'_>, stage: &StageGuard, stop: &AtomicBool) -> Result<Written> {
        let path = &self.target.path;
        let meter = Meter { stage, stop, by_bytes: self.layout.file_size().is_some() };
        let file = self.file.file();
        let (sha256, inside) = self
            .fill(disk, meter)
            .and_then(|hashes| file.sync_all().map(|()| hashes).map_err(Into::into))
            .map_err(|error| explain(error, path, self.layout.work()))?;
        let metadata = file.metadata().with_context(|| format!("looking at {}", path.display()))?;
        let FileFormat { format, packing } = self.target.format;
        let report = FileReport {
            path: path.clone(),
            format,
            compression: packing,
            size: disk.size(),
            // st_blocks counts 512 bytes, whatever the file system's blocks are (stat(2)).
            allocated: metadata.blocks() * 512,
            sha256,
            uncompressed: inside
                .filter(|_| packing.is_some())
                .map(|Inside { size, sha256 }| Uncompressed { size, sha256 }),
        };
        Ok(Written { file: self.file, report })
    }

    /// Fills the file: its hash, and what is inside if it is compressed as a whole.
    fn fill(&self, disk: Disk<'_>, meter: Meter<'_>) -> Result<(String, Option<Inside>)> {
        let (layout, threads, file) = (&self.layout, self.threads, self.file.file());
        // A gce is a tar archive that is always compressed.
        let gce = (self.target.format.format == Format::Gce).then_some(Packing::Gz);
        let Some(packing) = self.target.format.packing.or(gce) else {
            let hash = if layout.comes_back() { Hash::Afterwards } else { Hash::Along };
            let write = |sink: &mut FileSink<'_>| layout.write(disk, threads, sink);
            return Ok((FileSink::run(file, layout.file_size(), hash, meter, write)?, None));
        };
        // How large a compressed file gets nobody knows: what goes into it is counted.
        let quiet = Meter { by_bytes: false, ..meter };
        let mut inside = None;
        let pack = |out: &mut FileSink<'_>, meter, write: &dyn Fn(&mut dyn Sink) -> Result<()>| {
            packed::pack(packing, out, threads, meter, write)
        };
        let sha256 = if layout.comes_back() {
            let first = unfinished(&self.target.path)?;
            FileSink::run(first.file(), None, Hash::Never, meter, |sink| {
                layout.write(disk, threads, sink)
            })?;
            FileSink::run(file, None, Hash::Along, quiet, |out| {
                inside = Some(pack(out, quiet, &|sink| copy(first.file(), sink))?);
                Ok(())
            })?
        } else {
            FileSink::run(file, None, Hash::Along, quiet, |out| {
                inside = Some(pack(out, meter, &|sink| layout.stream(disk, threads, sink))?);
                Ok(())
            })?
        };
        Ok((sha256, inside))
    }
}

/// Appends a whole file.
fn copy(file: &File, sink: &mut dyn Sink) -> Result<()> {
    let size = file.metadata().context("looking at what was written")?.len();
    let mut offset = 0;
    while offset < size {
        let len = (size - offset).min(BUFFER as u64) as usize;
        sink.fill(len, &mut |buffer| {
            file.read_exact_at(buffer, offset).context("reading what was written")
        })?;
        offset += len as u64;
    }
    Ok(())
}

impl Written {
    fn name(self) -> Result<FileReport> {
        let path = &self.report.path;
        self.file.name(path).with_context(|| format!("replacing {}", path.display()))?;
        // The name, too, shall outlive a power cut.
        let directory = directory_of(path);
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .with_context(|| format!("syncing {}", directory.display()))?;
        Ok(self.report)
    }
}

/// Refuses targets whose replacement would do harm.
fn check(targets: &[Target]) -> Result<()> {
    for (index, Target { path, .. }) in targets.iter().enumerate() {
        if targets[..index].iter().any(|other| other.path == *path) {
            return Err(unsupported(format!("{} is named twice", path.display()), None));
        }
        match fs::metadata(path) {
            // Renaming over /dev/sda would replace the device's name, not the disk's bytes.
            Ok(metadata) if !metadata.is_file() => {
                return Err(unsupported(
                    format!("{} is not a regular file", path.display()),
                    Some("write a file, and copy it to a device afterwards"),
                ));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("looking at {}", path.display()));
            }
        }
    }
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn unfinished(path: &Path) -> Result<Unfinished> {
    let directory = directory_of(path);
    Unfinished::create_in(directory).map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::PermissionDenied => ", which is not writable",
            io::ErrorKind::ReadOnlyFilesystem => ", whose file system is read-only",
            io::ErrorKind::NotFound => ", which does not exist",
            io::ErrorKind::StorageFull => ", whose file system is full",
            _ => "",
        };
        let (path, directory) = (path.display(), directory.display());
        anyhow::Error::from(error).context(format!("creating {path} in {directory}{reason}"))
    })
}

fn explain(error: anyhow::Error, path: &Path, file_size: u64) -> anyhow::Error {
    let full = error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    });
    error.context(if full {
        format!(
            "writing {}: there is no room in {} for up to {} MiB",
            path.display(),
            directory_of(path).display(),
            file_size.div_ceil(1 << 20)
        )
    } else {
        format!("writing {}", path.display())
    })
}

/// All results, or the error that made the others stop.
fn first_cause(results: Vec<Result<Written>>) -> Result<Vec<Written>> {
    let (mut whole, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(written) => whole.push(written),
            Err(error) => errors.push(error),
        }
    }
    let cause = errors.iter().position(|error| !error.is::<sink::Stopped>());
    match cause.map(|cause| errors.swap_remove(cause)) {
        Some(error) => Err(error),
        None if errors.is_empty() => Ok(whole),
        None => Err(anyhow!("writing was stopped")),
    }
}

#[cfg(test)]
mod tests;
