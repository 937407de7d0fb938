//! A disk file as bytes that can be read at any offset: raw, or what is inside of a qcow2.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::qcow2::Qcow2;
use super::wrapper::Wrapper;
use crate::error::unsupported;

/// Magic numbers of formats that bootpress neither writes nor reads.
const OTHERS: [(&[u8], &str); 5] = [
    (b"KDMV", "vmdk"),
    (b"# Disk DescriptorFile", "vmdk"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vhd"),
    (b"QED\0", "qed"),
];

/// A disk that is read, never written.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    inner: Inner,
    /// How the file was compressed as a whole.
    pub(super) wrapper: Option<Wrapper>,
    /// Bytes of the disk.
    pub(super) size: u64,
}

#[derive(Debug)]
enum Inner {
    Raw,
    Qcow2(Qcow2),
}

impl Disk {
    /// Opens a disk file and finds out by its first bytes what it is. One that is compressed as a whole is decompressed into an
    /// unnamed temporary file.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let opening = || format!("opening {}", path.display());
        let mut file = File::open(path).with_context(opening)?;
        let wrapper = Wrapper::of(&file).with_context(opening)?;
        if let Some(wrapper) = wrapper {
            let to = tempfile::tempfile().context("creating a temporary file")?;
            wrapper
                .unwrap_into(file, &to)
                .with_context(|| format!("decompressing {}", path.display()))?;
            file = to;
        }
        // Not the metadata: a block device's says 0.
        let size = (&file)
            .seek(SeekFrom::End(0))
            .with_context(|| format!("looking for the end of {}", path.display()))?;
        let mut magic = [0; 32];
        let count = usize::try_from(size.min(magic.len() as u64)).unwrap_or_default();
        file.read_exact_at(&mut magic[..count], 0)
            .with_context(|| format!("reading {}", path.display()))?;
        if let Some((_, name)) = OTHERS.iter().find(|(other, _)| magic.starts_with(other)) {
            let hint = format!("qemu-img convert -O qcow2 {} DISK.qcow2", path.display());
            return Err(unsupported(format!("{} is a {name}", path.display()), Some(&hint)));
        }
        if !magic.starts_with(b"QFI\xfb") {
            return Ok(Self { file, inner: Inner::Raw, wrapper, size });
        }
        let qcow2 =
            Qcow2::open(&file, size).with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { size: qcow2.size, file, inner: Inner::Qcow2(qcow2), wrapper })
    }

    /// The format as one word.
    pub(super) fn format(&self) -> &'static str {
        match self.inner {
            Inner::Raw => "raw",
            Inner::Qcow2(_) => "qcow2",
        }
    }

    /// Fills `buffer` from an offset of the disk; what lies behind its end is an error.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &self.inner {
            Inner::Raw => self.file.read_exact_at(buffer, offset),
            Inner::Qcow2(qcow2) => qcow2.read_at(&self.file, offset, buffer),
        }
    }
}

/// A part of a disk that is read like a file of its own.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    disk: Arc<Disk>,
    start: u64,
    /// Bytes of it.
    pub(super) size: u64,
    position: u64,
}

impl Slice {
    /// The part that begins at `start`, cut where the disk ends.
    pub(super) fn new(disk: &Arc<Disk>, start: u64, size: u64) -> Self {
        let size = size.min(disk.size.saturating_sub(start));
        Self { disk: Arc::clone(disk), start, size, position: 0 }
    }

    /// Fills `buffer` from an offset of the part.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.disk.read_at(self.start + offset, buffer)
    }
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.position);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        self.read_at(self.position, &mut buffer[..count])?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Slice {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl ext4_view::Ext4Read for Slice {
    fn read(
        &mut self,
        start: u64,
        buffer: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.read_at(start, buffer)?)
    }
}
