//! SparseMap → disk file: raw, qcow2.
//!
//! Each file is written from front to back by a thread of its own, without a name as yet, and hashed by
//! another thread as it goes. When all are whole and on the platter they get their names; until then, and after any error,
//! nothing is there that was not there before.

mod qcow2;
mod raw;
mod sink;
mod unfinished;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::AtomicBool;
use std::thread;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use crate::content::ContentStore;
use crate::error::unsupported;
use crate::progress::{Progress, Stage, StageGuard};
use crate::sparse::SparseMap;
use sink::Sink;
use unfinished::Unfinished;

/// The kind of a disk file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The disk's bytes, with holes where they are zero.
    Raw,
    /// QEMU's format, version 3, without compression.
    Qcow2,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Raw, Self::Qcow2];

    /// The format as one word, which also is the extension of its files.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.extension())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.extension() == name).ok_or_else(|| {
            format!("{name} is no disk format: {}", Self::ALL.map(Self::extension).join(" or "))
        })
    }
}

/// A disk file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub format: Format,
    /// Bytes of the disk that it holds, zero or not.
    pub size: u64,
    /// Bytes that it takes on the host, holes not counted.
    pub allocated: u64,
    /// SHA-256 of the file, holes read as zero; lower-case hexadecimal.
    pub sha256: String,
}

/// How a file of some format comes about: decided before the first byte is written.
enum Layout {
    Raw(raw::Layout),
    Qcow2(qcow2::Layout),
}

impl Layout {
    fn of(format: Format, map: &SparseMap, contents: &ContentStore) -> Result<Self> {
        Ok(match format {
            Format::Raw => Self::Raw(raw::Layout::of(map)),
            Format::Qcow2 => Self::Qcow2(qcow2::Layout::of(map, contents)?),
        })
    }

    /// Bytes of the file.
    fn file_size(&self) -> u64 {
        match self {
            Self::Raw(layout) => layout.file_size(),
            Self::Qcow2(layout) => layout.file_size(),
        }
    }

    fn write(&self, map: &SparseMap, contents: &ContentStore, sink: &mut Sink<'_>) -> Result<()> {
        match self {
            Self::Raw(layout) => layout.write(map, contents, sink),
            Self::Qcow2(layout) => layout.write(map, contents, sink),
        }
    }
}

/// Writes a disk to each of `targets`, all at the same time. A file that is there is replaced, in one step, by a whole one.
/// Fails if a directory cannot be written to, is full, or if a target is something else than a regular file; then no target
/// has changed.
pub fn write(
    map: &SparseMap,
    contents: &ContentStore,
    targets: &[(Format, PathBuf)],
    progress: &Progress,
) -> Result<Vec<FileReport>> {
    check(targets)?;
    let mut works = Vec::new();
    for (format, path) in targets {
        let context = || format!("laying out {}", path.display());
        let layout = Layout::of(*format, map, contents).with_context(context)?;
        works.push(Work { format: *format, path, layout, file: unfinished(path)? });
    }
    let total = works.iter().map(|work| work.layout.file_size()).sum();
    let stage = progress.stage(Stage::Write, Some(total));
    let stop = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let (stage, stop) = (&stage, &stop);
        let threads: Vec<_> = works
            .into_iter()
            .map(|work| scope.spawn(move || work.write(map, contents, stage, stop)))
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
    format: Format,
    path: &'a Path,
    layout: Layout,
    file: Unfinished,
}

/// A whole file that waits for its name.
struct Written {
    file: Unfinished,
    report: FileReport,
}

impl Work<'_> {
    fn write(
        self,
        map: &SparseMap,
        contents: &ContentStore,
        stage: &StageGuard,
        stop: &AtomicBool,
    ) -> Result<Written> {
        let Self { format, path, layout, file } = self;
        let unfinished = file;
        let file = unfinished.file();
        let file_size = layout.file_size();
        let sha256 =
            Sink::run(file, file_size, stage, stop, |sink| layout.write(map, contents, sink))
                .and_then(|sha256| file.sync_all().map(|()| sha256).map_err(Into::into))
                .map_err(|error| explain(error, path, file_size))?;
        let metadata = file.metadata().with_context(|| format!("looking at {}", path.display()))?;
        let report = FileReport {
            path: path.to_owned(),
            format,
            size: map.size(),
            // st_blocks counts 512 bytes, whatever the file system's blocks are (stat(2)).
            allocated: metadata.blocks() * 512,
            sha256,
        };
        Ok(Written { file: unfinished, report })
    }
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
fn check(targets: &[(Format, PathBuf)]) -> Result<()> {
    for (index, (_, path)) in targets.iter().enumerate() {
        if targets[..index].iter().any(|(_, other)| other == path) {
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
    error.context(match full {
        true => format!(
            "writing {}: there is no room in {} for up to {} MiB",
            path.display(),
            directory_of(path).display(),
            file_size.div_ceil(1 << 20)
        ),
        false => format!("writing {}", path.display()),
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
