//! Tree → directory of plain files, complete or not there.
//!
//! ```text
//! .bootpress-XXXXXX/ ──write, sync──► whole ──rename──► <name>/      (an older one changes places with it, and goes)
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::directory_of;
use super::sink::BUFFER;
use crate::content::{Content, ContentStore};
use crate::error::unsupported;
use crate::progress::{Progress, Stage, StageGuard};
use crate::sha256::Sha256;
use crate::tree::{Kind, Tree};

/// The file that lists the others with their hashes.
const SUMS: &str = "SHA256SUMS";

/// A directory that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryReport {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of all files.
    pub size: u64,
    /// SHA-256 of the file `SHA256SUMS`; lower-case hexadecimal.
    pub sha256: String,
}

/// Writes the directories and regular files of a tree. Modes and owners are those of any new file, as for disk files.
///
/// An older directory is replaced by the whole of the new one, if there is nothing in it that the new one has not; else, and for
/// anything that is not a directory: `Unsupported`. Nothing has changed after an error.
pub fn write_directory(
    tree: &Tree,
    contents: &ContentStore,
    path: &Path,
    progress: &Progress,
) -> Result<DirectoryReport> {
    let replaced = check(tree, path)?;
    let sizes = files(tree).map(|(_, content)| content.size);
    let size = sizes.sum();
    let stage = progress.stage(Stage::Write, Some(size));
    let parent = directory_of(path);
    let creating = || format!("creating a directory in {}", parent.display());
    let temporary = tempfile::Builder::new()
        .prefix(".bootpress-")
        .permissions(Permissions::from_mode(0o777))
        .tempdir_in(parent)
        .with_context(creating)?;
    let mut sha256 = String::new();
    for (name, id) in tree.walk().skip(1) {
        let name = String::from_utf8(name).context("reading a file name")?;
        let at = temporary.path().join(&name);
        let writing = || format!("writing {}", path.join(&name).display());
        match &tree.inode(id).kind {
            Kind::Directory(_) => fs::create_dir(&at).with_context(writing)?,
            Kind::File(content) => {
                let hash = copy(content, contents, &at, &stage).with_context(writing)?;
                if name == SUMS {
                    sha256 = hash;
                }
            }
            _ => unreachable!("media hold files and directories"),
        }
    }
    for (name, id) in tree.walk() {
        if let (Kind::Directory(_), Ok(name)) = (&tree.inode(id).kind, String::from_utf8(name)) {
            sync(&temporary.path().join(name))?;
        }
    }
    name(temporary, path, replaced).with_context(|| format!("naming {}", path.display()))?;
    sync(parent)?;
    Ok(DirectoryReport { path: path.to_owned(), size, sha256 })
}

fn files(tree: &Tree) -> impl Iterator<Item = (Vec<u8>, &Content)> {
    tree.walk().filter_map(|(name, id)| match &tree.inode(id).kind {
        Kind::File(content) => Some((name, content)),
        _ => None,
    })
}

/// Whether there is a directory to be replaced.
fn check(tree: &Tree, path: &Path) -> Result<bool> {
    let looking = || format!("looking at {}", path.display());
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(unsupported(format!("{} is not a directory", path.display()), None));
        }
        Err(error) => return Err(error).with_context(looking),
    };
    let ours: BTreeSet<Vec<u8>> =
        tree.walk().map(|(path, _)| path).filter(|path| !path.contains(&b'/')).collect();
    for entry in entries {
        let name = entry.with_context(looking)?.file_name();
        if !ours.contains(name.as_encoded_bytes()) {
            return Err(unsupported(
                format!("{} holds other things: {}", path.display(), name.display()),
                Some("name a directory that is new, empty, or of an earlier build"),
            ));
        }
    }
    Ok(true)
}

/// Copies a content into a new file; its hash.
fn copy(
    content: &Content,
    contents: &ContentStore,
    path: &Path,
    stage: &StageGuard,
) -> io::Result<String> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let mut reader = contents.reader(content);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        file.write_all(&buffer[..count])?;
        stage.advance(count as u64);
    }
    file.sync_all()?;
    Ok(hash.finish_hex())
}

fn sync(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("syncing {}", directory.display()))
}

/// Gives the directory its name. What had it before goes with the temporary name.
fn name(temporary: tempfile::TempDir, path: &Path, replaced: bool) -> io::Result<()> {
    if replaced {
        let flags = RenameFlags::RENAME_EXCHANGE;
        renameat2(AT_FDCWD, temporary.path(), AT_FDCWD, path, flags)?;
        return temporary.close();
    }
    fs::rename(temporary.path(), path)?;
    // Under this name there is nothing left to remove.
    let _ = temporary.keep();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Unsupported;
    use crate::tree::Metadata;

    fn tree(contents: &ContentStore, text: &[u8]) -> Tree {
        let mut tree = Tree::new(Metadata::root(0o755));
        let below = tree.make_directories("EFI/BOOT", &Metadata::root(0o755));
        for (directory, name) in [(below, "x"), (Tree::ROOT, SUMS)] {
            let content = contents.insert_bytes(text).unwrap();
            tree.create(directory, name.as_bytes(), Metadata::root(0o444), Kind::File(content));
        }
        tree
    }

    #[test]
    fn a_directory_is_replaced_as_a_whole_or_not_at_all() {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("out.pxe");
        let write = |text: &[u8]| {
            write_directory(&tree(&contents, text), &contents, &path, &Progress::default())
        };
        for text in [&b"one"[..], b"two"] {
            let report = write(text).unwrap();
            assert_eq!(report.size, 6);
            assert_eq!(report.sha256, crate::sha256::hex(&Sha256::of(text)));
            assert_eq!(fs::read(path.join("EFI/BOOT/x")).unwrap(), text);
            assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        }
        fs::write(path.join("mine"), "").unwrap();
        assert!(write(b"three").unwrap_err().is::<Unsupported>());
        assert_eq!(fs::read(path.join("EFI/BOOT/x")).unwrap(), b"two");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        fs::remove_dir_all(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(write(b"three").unwrap_err().is::<Unsupported>());
    }
}
