//! Disk files that are compressed as a whole, as `build --format raw.xz` and others write them: decompressed into another file, in
//! which zeros are holes, since only that can be read at any offset.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

use crate::error::{corrupt, unsupported};

/// Bytes that are written, or left out as a hole, at once.
const BLOCK: usize = 64 << 10;

/// Bytes of the largest disk that is decompressed. Zeros take no room, but time.
const LARGEST: u64 = 1 << 40;

/// Memory that an xz file may ask for, in KiB; `xz -9` asks for a sixteenth of it.
const XZ_MEMORY: u32 = 1 << 20;

/// Where a tar archive says that it is one (POSIX.1, pax), and with which bytes.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");

/// How a disk file is compressed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapper {
    /// gzip (RFC 1952).
    Gzip,
    /// The .xz file format.
    Xz,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Wrapper {
    /// What the first bytes of a file say; `None`: it is not compressed as a whole.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        let mut magic = [0; 6];
        let mut count = 0;
        while count < magic.len() {
            match file.read_at(&mut magic[count..], count as u64) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(match magic[..count] {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        })
    }

    /// The name of the format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// How names of such files end.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Xz => ".xz",
            Self::Zstd => ".zst",
        }
    }

    /// Decompresses `from` into the empty file `to`, which gets holes where the disk is zero. Returns the bytes of the disk.
    ///
    /// `Corrupt`: the compressed data are damaged or cut. `Unsupported`: the disk is larger than 1 TiB, or not a disk but an archive.
    pub fn unwrap_into(self, from: File, to: &File) -> Result<u64> {
        let from = BufReader::with_capacity(BLOCK, from);
        let mut reader: Box<dyn Read> = match self {
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(from)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(from, true, XZ_MEMORY)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(from).context("starting zstd")?),
        };
        let mut block = vec![0; BLOCK];
        let mut position = 0;
        loop {
            let count = fill(&mut reader, &mut block).map_err(|error| self.blame(error))?;
            let bytes = &block[..count];
            let (at, magic) = TAR_MAGIC;
            if position == 0 && bytes.get(at..).is_some_and(|rest| rest.starts_with(magic)) {
                let hint = "unpack it first: tar xf FILE";
                return Err(unsupported("a tar archive with a disk in it", Some(hint)));
            }
            if bytes.iter().any(|&byte| byte != 0) {
                to.write_all_at(bytes, position).context("writing the decompressed disk")?;
            }
            position += count as u64;
            if position > LARGEST {
                let hint = "decompress it by hand, and name the result";
                return Err(unsupported("a compressed disk of more than 1 TiB", Some(hint)));
            }
            if count < block.len() {
                break;
            }
        }
        to.set_len(position).context("writing the decompressed disk")?;
        Ok(position)
    }

    /// An error with a number is the operating system's, any other is about the compressed data.
    fn blame(self, error: io::Error) -> anyhow::Error {
        match error.raw_os_error() {
            Some(_) => anyhow::Error::new(error).context("reading the compressed disk"),
            None => corrupt(format!("the disk's {} data", self.name()), error.to_string()),
        }
    }
}

/// Reads until `buffer` is full or there is no more.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match reader.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::error::{Corrupt, Unsupported};

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        file
    }

    fn packed(bytes: &[u8]) -> [(Wrapper, Vec<u8>); 3] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(bytes).unwrap();
        let options = lzma_rust2::XzOptions::with_preset(0);
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        xz.write_all(bytes).unwrap();
        [
            (Wrapper::Gzip, gzip.finish().unwrap()),
            (Wrapper::Xz, xz.finish().unwrap()),
            (Wrapper::Zstd, zstd::encode_all(bytes, 1).unwrap()),
        ]
    }

    #[test]
    fn disks_come_back_with_their_holes() {
        let mut disk = vec![0; 8 << 20];
        disk[..3].copy_from_slice(b"MBR");
        disk[5_000_000] = 7;
        for (wrapper, bytes) in packed(&disk) {
            let from = file(&bytes);
            assert_eq!(Wrapper::of(&from).unwrap(), Some(wrapper));
            let to = tempfile::tempfile().unwrap();
            assert_eq!(wrapper.unwrap_into(from, &to).unwrap(), disk.len() as u64);
            let mut read = vec![0; disk.len()];
            to.read_exact_at(&mut read, 0).unwrap();
            assert!(read == disk, "{wrapper:?}");
            assert!(to.metadata().unwrap().blocks() * 512 <= 4 * BLOCK as u64, "{wrapper:?}");
        }
        for plain in [&b""[..], b"QFI\xfb", b"\x1f", &[0; 512]] {
            assert_eq!(Wrapper::of(&file(plain)).unwrap(), None, "{plain:?}");
        }
    }

    #[test]
    fn damage_and_archives_are_told() {
        let disk: Vec<u8> =
            (0..200_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        for (wrapper, bytes) in packed(&disk) {
            for damaged in [bytes[..bytes.len() - 1].to_vec(), bytes[..bytes.len() / 2].to_vec()] {
                let to = tempfile::tempfile().unwrap();
                let error = wrapper.unwrap_into(file(&damaged), &to).unwrap_err();
                assert!(error.is::<Corrupt>(), "{wrapper:?}: {error:#}");
            }
        }
        let mut archive = vec![0; 1024];
        archive[257..262].copy_from_slice(b"ustar");
        for (wrapper, bytes) in packed(&archive) {
            let to = tempfile::tempfile().unwrap();
            let error = wrapper.unwrap_into(file(&bytes), &to).unwrap_err();
            assert!(error.is::<Unsupported>(), "{wrapper:?}: {error:#}");
        }
    }
}
