//! A file that has no name until it is whole: whatever ends us, a signal or a power cut, nothing half-written stays behind.
//!
//! ```text
//! O_TMPFILE ──write──► whole ──linkat──► .bootpress-<pid>-<name> ──rename──► <name>     (the old file goes in that step)
//! ```
//!
//! File systems without `O_TMPFILE` get a file with a temporary name instead, which is removed unless we are killed.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use tempfile::NamedTempFile;

/// What any program gives a new file: the umask takes away from it.
const MODE: u32 = 0o666;

/// See the module.
#[derive(Debug)]
pub(super) enum Unfinished {
    Unnamed(File),
    Named(NamedTempFile),
}

impl Unfinished {
    /// A new file in a directory.
    pub(super) fn create_in(directory: &Path) -> io::Result<Self> {
        let unnamed = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(MODE)
            .custom_flags(OFlag::O_TMPFILE.bits())
            .open(directory);
        // Without /proc an unnamed file could not be given a name.
        match unnamed {
            Ok(file) if descriptor(&file).exists() => Ok(Self::Unnamed(file)),
            _ => Self::named_in(directory),
        }
    }

    fn named_in(directory: &Path) -> io::Result<Self> {
        let file = tempfile::Builder::new()
            .prefix(".bootpress-")
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(directory)?;
        Ok(Self::Named(file))
    }

    /// The file, to be written.
    pub(super) fn file(&self) -> &File {
        match self {
            Self::Unnamed(file) => file,
            Self::Named(file) => file.as_file(),
        }
    }

    /// Gives the file its name, in one step if another file has it.
    pub(super) fn name(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Named(file) => file.persist(path).map(drop).map_err(|error| error.error),
            Self::Unnamed(file) => {
                let temporary = beside(path);
                // Left by a process that had our number and was killed between two system calls.
                let _ = fs::remove_file(&temporary);
                nix::unistd::linkat(
                    AT_FDCWD,
                    &descriptor(&file),
                    AT_FDCWD,
                    &temporary,
                    AtFlags::AT_SYMLINK_FOLLOW,
                )?;
                fs::rename(&temporary, path).inspect_err(|_| {
                    let _ = fs::remove_file(&temporary);
                })
            }
        }
    }
}

/// The name of an open file, also of one without name (open(2), `O_TMPFILE`).
fn descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Names end at 255 bytes; ours begins with up to 22 of them.
    let end = (0..=name.len().min(200)).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    path.with_file_name(format!(".bootpress-{}-{}", std::process::id(), &name[..end]))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_appears_when_it_is_whole_and_not_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        fs::write(&path, "old").unwrap();
        for named in [false, true] {
            let unfinished = if named {
                Unfinished::named_in(directory.path())
            } else {
                Unfinished::create_in(directory.path())
            };
            let unfinished = unfinished.unwrap();
            unfinished.file().write_all(b"new").unwrap();
            assert_ne!(fs::read(&path).unwrap(), b"new");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1 + usize::from(named));
            unfinished.name(&path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
            fs::write(&path, "old").unwrap();
        }
    }

    #[test]
    fn a_name_that_cannot_be_had_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("taken")).unwrap();
        let unfinished = Unfinished::create_in(directory.path()).unwrap();
        assert!(unfinished.name(&directory.path().join("taken")).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
