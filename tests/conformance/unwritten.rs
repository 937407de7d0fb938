//! A volume that exists only as a value, given to readers who want a disk; and, for tools, the same in a sparse file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bootpress::content::ContentStore;
use bootpress::sparse::SparseMap;

/// A volume with the store that its contents are in. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Unwritten {
    pub(crate) volume: Arc<SparseMap>,
    pub(crate) contents: Arc<ContentStore>,
    position: u64,
}

impl Unwritten {
    pub(crate) fn new(volume: SparseMap, contents: &Arc<ContentStore>) -> Self {
        Self { volume: Arc::new(volume), contents: Arc::clone(contents), position: 0 }
    }

    /// Writes the volume to a file, holes where it is zero.
    pub(crate) fn write(&self, path: &Path) {
        let file = File::create(path).unwrap();
        file.set_len(self.volume.size()).unwrap();
        let mut buffer = vec![0; 1 << 20];
        for (&offset, source) in self.volume.segments() {
            let mut done = 0;
            while done < source.len() {
                let count = (source.len() - done).min(buffer.len() as u64) as usize;
                self.volume.read_at(&self.contents, offset + done, &mut buffer[..count]).unwrap();
                file.write_all_at(&buffer[..count], offset + done).unwrap();
                done += count as u64;
            }
        }
    }
}

impl ext4_view::Ext4Read for Unwritten {
    fn read(
        &mut self,
        start: u64,
        buffer: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.volume.read_at(&self.contents, start, buffer)?)
    }
}

impl Read for Unwritten {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.volume.size().saturating_sub(self.position);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        self.volume.read_at(&self.contents, self.position, &mut buffer[..count])?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Unwritten {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.volume.size().checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
