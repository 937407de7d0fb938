//! ext4, read: how full it is, and the few small files that say what the system is.

use anyhow::Result;
use ext4_view::{Ext4, Ext4Error};

use super::disk::Slice;
use super::qcow2::explain;
use crate::error::{corrupt, unsupported};

/// Boot entries, states and configurations are small, and so is a commit; what is larger is none.
const LARGEST_FILE: u64 = 4 << 20;

/// An ext4 file system.
#[derive(Debug)]
pub(super) struct Volume {
    ext4: Ext4,
    /// What it is called in errors: `the root file system`.
    name: String,
    /// Bytes of it that are in use.
    pub(super) used: u64,
}

impl Volume {
    /// Whether there is a super block at 1024, where `start` must reach.
    pub(super) fn is_it(start: &[u8]) -> bool {
        start.get(1080..1082) == Some(&[0x53, 0xef])
    }

    pub(super) fn open(slice: Slice, name: String) -> Result<Self> {
        let mut block = [0; 1024];
        slice.read_at(1024, &mut block).map_err(|error| explain(error, &name))?;
        let used = used(&block).ok_or_else(|| corrupt(&name, "its super block is absurd"))?;
        let ext4 = Ext4::load(Box::new(slice)).map_err(|error| blame(error, &name))?;
        Ok(Self { ext4, name, used })
    }

    pub(super) fn label(&self) -> String {
        self.ext4.label().display().to_string()
    }

    pub(super) fn uuid(&self) -> String {
        self.ext4.uuid().to_string()
    }

    /// The names in a directory, links followed, sorted; none if it is not there.
    pub(super) fn names(&self, path: &str) -> Result<Vec<String>> {
        let directory = match self.ext4.read_dir(path) {
            Ok(directory) => directory,
            Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => return Ok(Vec::new()),
            Err(error) => return Err(blame(error, &self.name)),
        };
        let mut names = Vec::new();
        for entry in directory {
            let entry = entry.map_err(|error| blame(error, &self.name))?;
            // A name that is not UTF-8 is none that anybody looks for here.
            if let Ok(name) = entry.file_name().as_str() {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// How many bytes a regular file has, links followed; `None`: there is none.
    pub(super) fn size(&self, path: &str) -> Result<Option<u64>> {
        match self.ext4.metadata(path) {
            Ok(metadata) => Ok(metadata.file_type().is_regular_file().then_some(metadata.len())),
            Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => Ok(None),
            Err(error) => Err(blame(error, &format!("{path} on {}", self.name))),
        }
    }

    /// The bytes of a regular file, links followed; `None`: there is none.
    pub(super) fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let result = self.ext4.metadata(path).and_then(|metadata| {
            if !metadata.file_type().is_regular_file() {
                return Ok(None);
            }
            if metadata.len() > LARGEST_FILE {
                Err(Ext4Error::FileTooLarge)
            } else {
                self.ext4.read(path).map(Some)
            }
        });
        match result {
            Ok(bytes) => Ok(bytes),
            Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => Ok(None),
            Err(error) => Err(blame(error, &format!("{path} on {}", self.name))),
        }
    }
}

/// Used bytes, by a super block; field names are those of the kernel's documentation.
fn used(block: &[u8; 1024]) -> Option<u64> {
    let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| block[at + i]));
    let s_log_block_size = u32_at(0x18);
    // INCOMPAT_64BIT: the upper halves count.
    let wide = u32_at(0x60) & 0x80 != 0;
    let count = |low: usize, high: usize| {
        u64::from(u32_at(low)) | if wide { u64::from(u32_at(high)) << 32 } else { 0 }
    };
    let (s_blocks_count, s_free_blocks_count) = (count(0x04, 0x150), count(0x0c, 0x158));
    let block_size =
        1024_u64.checked_shl(s_log_block_size).filter(|size| *size <= 65536 && *size > 0)?;
    s_blocks_count.checked_sub(s_free_blocks_count)?.checked_mul(block_size)
}

/// Whose fault it is.
fn blame(error: Ext4Error, subject: &str) -> anyhow::Error {
    match error {
        Ext4Error::Io(error) => match error.downcast::<std::io::Error>() {
            Ok(error) => explain(*error, subject),
            Err(error) => anyhow::anyhow!("reading {subject}: {error}"),
        },
        Ext4Error::Incompatible(_) | Ext4Error::Encrypted => {
            unsupported(format!("{subject}: {error}"), None)
        }
        error => corrupt(subject, error.to_string()),
    }
}
