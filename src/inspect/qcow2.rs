//! qcow2, read: where each cluster of the disk lies in the file (QEMU, docs/interop/qcow2.txt).
//!
//! ```text
//! offset of the disk ─► L1 entry ─► L2 entry ─► cluster of the file, or zeros
//! ```
//!
//! What bootpress and `qemu-img convert` write: compressed or not, unencrypted, on its own. Everything else is refused by name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use anyhow::{Context, Result};

use crate::error::{corrupt, unsupported};

const HINT: &str = "qemu-img convert -O qcow2 DISK DISK.qcow2 makes a plain one of it";

/// Where an L1 or L2 entry says a table or cluster is.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// L2 entry: the cluster is compressed.
const COMPRESSED: u64 = 1 << 62;

/// L2 entry: the cluster reads as zeros, whatever is in the file.
const ZERO: u64 = 1;

/// Incompatible features that do not change how data is read: refcounts may be wrong, or somebody has seen damage.
const HARMLESS: u64 = 0b11;

/// Incompatible feature: byte 104 says how clusters are compressed.
const COMPRESSION_TYPE: u64 = 1 << 3;

/// A qcow2's map.
#[derive(Debug)]
pub(super) struct Qcow2 {
    /// Bytes of the disk.
    pub(super) size: u64,
    cluster_bits: u32,
    l1_offset: u64,
    /// Whether compressed clusters are compressed by Zstandard, not by zlib.
    zstd: bool,
    /// The compressed cluster that was used last, by its entry: reads are smaller than clusters.
    unpacked: Mutex<(u64, Vec<u8>)>,
    /// The L2 table that was used last, by its offset: reads come in runs.
    table: Mutex<(u64, Vec<u8>)>,
}

impl Qcow2 {
    /// Reads the header of a file of `file_size` bytes.
    pub(super) fn open(file: &File, file_size: u64) -> Result<Self> {
        let bad = |reason: &str| corrupt("the qcow2 header", reason);
        let refuse = |what: &str| unsupported(format!("the qcow2 {what}"), Some(HINT));
        let mut header = [0; 112];
        let length = usize::try_from(file_size).unwrap_or(usize::MAX).min(header.len());
        if length < 72 {
            return Err(bad("it is cut short"));
        }
        file.read_exact_at(&mut header[..length], 0).context("reading the qcow2 header")?;
        let u32_at = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| header[at + i]));
        let u64_at = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| header[at + i]));
        let version = u32_at(4);
        if !matches!(version, 2 | 3) {
            return Err(refuse(&format!("has version {version}")));
        }
        if u64_at(8) != 0 {
            return Err(refuse("has a backing file"));
        }
        if u32_at(32) != 0 {
            return Err(refuse("is encrypted"));
        }
        let features = if version == 3 { u64_at(72) } else { 0 };
        if features & !(HARMLESS | COMPRESSION_TYPE) != 0 {
            return Err(refuse(&format!("has the incompatible features {features:#x}")));
        }
        let zstd = features & COMPRESSION_TYPE != 0 && header[104] == 1;
        if features & COMPRESSION_TYPE != 0 && header[104] > 1 {
            return Err(refuse(&format!("is compressed in a way of number {}", header[104])));
        }
        let cluster_bits = u32_at(20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(bad("clusters of an impossible size"));
        }
        let (size, l1_offset, l1_size) = (u64_at(24), u64_at(40), u32_at(36));
        // One L2 table has cluster / 8 entries, each for a cluster.
        let needed = size.div_ceil(1 << (2 * cluster_bits - 3));
        if needed > u64::from(l1_size) {
            return Err(bad("its L1 table is too small for the disk"));
        }
        let (table, unpacked) = (Mutex::new((0, Vec::new())), Mutex::new((0, Vec::new())));
        Ok(Self { size, cluster_bits, l1_offset, zstd, unpacked, table })
    }

    /// Fills `buffer` from an offset of the disk.
    pub(super) fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let cluster = 1_u64 << self.cluster_bits;
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let within = at % cluster;
            let count = usize::try_from(cluster - within).unwrap_or(usize::MAX);
            let count = count.min(buffer.len() - done);
            let part = &mut buffer[done..done + count];
            match self.find(file, at)? {
                Place::Plain(start) => file.read_exact_at(part, start + within)?,
                Place::Compressed(entry) => self.unpack(file, entry, within as usize, part)?,
                Place::Zero => part.fill(0),
            }
            done += count;
        }
        Ok(())
    }

    /// Where the cluster that holds an offset of the disk is in the file.
    fn find(&self, file: &File, offset: u64) -> io::Result<Place> {
        let cluster = offset >> self.cluster_bits;
        let l2_bits = self.cluster_bits - 3;
        let l1_index = cluster >> l2_bits;
        let mut entry = [0; 8];
        let l1_entry = self.l1_offset.checked_add(8 * l1_index).ok_or_else(damaged)?;
        file.read_exact_at(&mut entry, l1_entry)?;
        let table_at = u64::from_be_bytes(entry) & OFFSET;
        if table_at == 0 {
            return Ok(Place::Zero);
        }
        let mut table = self.table.lock().map_err(|_| damaged())?;
        if table.0 != table_at {
            let mut bytes = vec![0; 1 << self.cluster_bits];
            file.read_exact_at(&mut bytes, table_at)?;
            *table = (table_at, bytes);
        }
        let index = (cluster & ((1 << l2_bits) - 1)) as usize;
        let entry = table.1.as_chunks::<8>().0.get(index).ok_or_else(damaged)?;
        let entry = u64::from_be_bytes(*entry);
        if entry & COMPRESSED != 0 {
            return Ok(Place::Compressed(entry));
        }
        let start = entry & OFFSET;
        let there = entry & ZERO == 0 && start != 0;
        Ok(if there { Place::Plain(start) } else { Place::Zero })
    }

    /// Fills `part` from a compressed cluster. The entry's offset is in bytes; how many sectors of 512 bytes follow the one that
    /// it is in is above, and the data may end anywhere in the last of them.
    fn unpack(&self, file: &File, entry: u64, within: usize, part: &mut [u8]) -> io::Result<()> {
        let mut unpacked = self.unpacked.lock().map_err(|_| damaged())?;
        if unpacked.0 != entry {
            let offset_bits = 70 - self.cluster_bits;
            let start = entry & ((1 << offset_bits) - 1);
            let sectors = ((entry & !COMPRESSED & (COMPRESSED - 1)) >> offset_bits) + 1;
            let size = (sectors * 512).checked_sub(start % 512).ok_or_else(damaged)?;
            let mut packed = vec![0; size as usize];
            // The file may end inside the last sector.
            let count = read_up_to(file, &mut packed, start)?;
            let mut cluster = vec![0; 1 << self.cluster_bits];
            self.decompress(&packed[..count], &mut cluster)?;
            *unpacked = (entry, cluster);
        }
        let bytes = unpacked.1.get(within..within + part.len()).ok_or_else(damaged)?;
        part.copy_from_slice(bytes);
        Ok(())
    }

    fn decompress(&self, packed: &[u8], cluster: &mut [u8]) -> io::Result<()> {
        use std::io::Read;

        if self.zstd {
            let decoder = zstd::stream::read::Decoder::with_buffer(packed);
            return decoder?.single_frame().read_exact(cluster).map_err(|_| damaged());
        }
        flate2::read::DeflateDecoder::new(packed).read_exact(cluster).map_err(|_| damaged())
    }
}

/// Where a cluster is.
enum Place {
    Plain(u64),
    /// The L2 entry, which says more than an offset.
    Compressed(u64),
    Zero,
}

/// Fills as much of `buffer` as there is in the file.
fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the qcow2's tables are damaged")
}

/// A failure to read as an error that somebody can act on: whose fault it is.
pub(super) fn explain(error: io::Error, subject: &str) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => corrupt(subject, "it is cut short"),
        io::ErrorKind::InvalidData => corrupt(subject, error.to_string()),
        _ => anyhow::Error::new(error).context(format!("reading {subject}")),
    }
}
