//! Compressed disks for QEMU, which takes paths and knows formats by their names: decompressed into a directory that goes away with us.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bootpress::inspect::Wrapper;
use tempfile::TempDir;

/// A disk that QEMU can open.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// The file: the one that was named, or its decompressed copy.
    pub(super) file: PathBuf,
    /// What the copy is in, removed when this drops.
    copy: Option<TempDir>,
}

impl Unpacked {
    /// Decompresses a disk if its first bytes say that it is compressed as a whole; says so on standard error, as it takes time.
    pub(super) fn new(disk: &Path) -> Result<Self> {
        let named = || format!("reading {}", disk.display());
        let file = File::open(disk).with_context(named)?;
        // What is not a regular file is a device, and a directory is told about by whoever reads it.
        let is_file = file.metadata().with_context(named)?.is_file();
        let wrapper = if is_file { Wrapper::of(&file).with_context(named)? } else { None };
        let Some(wrapper) = wrapper else {
            return Ok(Self { file: disk.to_owned(), copy: None });
        };
        let name = disk.file_name().unwrap_or(disk.as_os_str()).to_string_lossy();
        super::say::say!("decompressing {name}");
        let directory = tempfile::Builder::new()
            .prefix("bootpress-")
            .tempdir()
            .context("creating a temporary directory")?;
        let inner = name.strip_suffix(wrapper.suffix()).unwrap_or(&name);
        let path = directory.path().join(inner);
        let to = File::create_new(&path).with_context(|| format!("creating {}", path.display()))?;
        wrapper.unwrap_into(file, &to).with_context(|| format!("decompressing {name}"))?;
        Ok(Self { file: path, copy: Some(directory) })
    }

    /// Whether the file is a copy, which is forgotten.
    pub(super) fn is_copy(&self) -> bool {
        self.copy.is_some()
    }
}
