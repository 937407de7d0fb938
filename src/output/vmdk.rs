//! VMDK, stream-optimized: VMware's format for import, written and readable from front to back (VMware, Virtual Disk Format
//! 5.0).
//!
//! ```text
//! sector 0  1            128
//! | header | descriptor | grains 0… | marker, table 0 | grains 512… | marker, table 1 | … | marker, directory | footer | end |
//! ```
//!
//! A grain is 64 KiB of the disk, zlib-compressed behind a marker with its number; grains of zeros are left out, and so are
//! tables of nothing but such. Numbers are little-endian; offsets are in sectors of 512 bytes.

use std::ops::Range;

use anyhow::{Result, ensure};
use uuid::Uuid;

use super::deflate::{Deflate, Wrapping};
use super::sink::Sink;
use super::stretches::{Disk, count};

const SECTOR: u64 = 512;
const GRAIN: u64 = 64 << 10;
const ENTRIES_PER_TABLE: u64 = 512;

/// Sectors of the descriptor, as everyone reserves them.
const DESCRIPTOR_SECTORS: u64 = 20;

/// Sectors before the first grain: a grain's worth.
const OVERHEAD: u64 = GRAIN / SECTOR;

/// `gdOffset` of the header: the directory is at the end, where the footer says.
const AT_END: u64 = u64::MAX;

/// Flags: line ends are as the header says; grains are compressed; there are markers.
const FLAGS: u32 = 1 | 1 << 16 | 1 << 17;

/// Types of markers.
const TABLE: u32 = 1;
const DIRECTORY: u32 = 2;
const FOOTER: u32 = 3;

/// What a file says of itself.
pub(super) struct Layout {
    size: u64,
    runs: Vec<Range<u64>>,
    content_id: u32,
    name: String,
}

impl Layout {
    /// `name` is what the file is called: descriptions of disks name their files.
    pub(super) fn of(disk: Disk<'_>, uuid: Uuid, name: String) -> Result<Self> {
        // 0xffffffff would mean that there is no content.
        let content_id = (uuid.as_u128() as u32).min(u32::MAX - 1);
        Ok(Self { size: disk.size(), runs: disk.filled(GRAIN)?, content_id, name })
    }

    /// Bytes of the disk that have to be compressed.
    pub(super) fn work(&self) -> u64 {
        count(&self.runs) * GRAIN
    }

    pub(super) fn write(&self, disk: Disk<'_>, threads: usize, sink: &mut dyn Sink) -> Result<()> {
        sink.write(&self.header(AT_END))?;
        sink.write(self.descriptor().as_bytes())?;
        sink.zeros_until(OVERHEAD * SECTOR)?;
        let mut tables = Tables::new(self.size.div_ceil(GRAIN));
        let worker = || {
            let mut deflate = Deflate::new(Wrapping::Zlib);
            move |grain: &[u8]| deflate.compress(grain)
        };
        disk.each_piece(GRAIN, &self.runs, threads, worker, &mut |grain, packed| {
            tables.enter(grain, sink)?;
            let mut marker = (grain * OVERHEAD).to_le_bytes().to_vec();
            marker.extend((packed.len() as u32).to_le_bytes());
            marker.extend(packed);
            padded(sink, &marker)?;
            sink.advance(GRAIN)
        })?;
        tables.flush(sink)?;
        let directory = tables.directory;
        marker(sink, (4 * directory.len() as u64).div_ceil(SECTOR), DIRECTORY)?;
        let directory_at = sink.position() / SECTOR;
        padded(sink, &bytes(&directory))?;
        marker(sink, 1, FOOTER)?;
        sink.write(&self.header(directory_at))?;
        marker(sink, 0, 0)
    }

    /// Field names are those of the specification.
    fn header(&self, gd_offset: u64) -> Vec<u8> {
        let mut header = b"KDMV".to_vec();
        header.extend(3_u32.to_le_bytes()); // version: with compression
        header.extend(FLAGS.to_le_bytes());
        header.extend(self.size.div_ceil(SECTOR).to_le_bytes()); // capacity
        header.extend(OVERHEAD.to_le_bytes()); // grainSize
        header.extend(1_u64.to_le_bytes()); // descriptorOffset
        header.extend(DESCRIPTOR_SECTORS.to_le_bytes()); // descriptorSize
        header.extend((ENTRIES_PER_TABLE as u32).to_le_bytes()); // numGTEsPerGT
        header.extend(0_u64.to_le_bytes()); // rgdOffset: no second directory
        header.extend(gd_offset.to_le_bytes());
        header.extend(OVERHEAD.to_le_bytes()); // overHead
        header.push(0); // uncleanShutdown
        header.extend(b"\n \r\n"); // what an FTP client in text mode would spoil
        header.extend(1_u16.to_le_bytes()); // compressAlgorithm: deflate
        header.resize(SECTOR as usize, 0);
        header
    }

    fn descriptor(&self) -> String {
        let sectors = self.size.div_ceil(SECTOR);
        // 255 heads, 63 sectors a track: what VMware gives a SCSI disk, and BIOSes expect.
        let cylinders = (sectors / (255 * 63)).clamp(1, 65535);
        format!(
            "# Disk DescriptorFile\nversion=1\nCID={:08x}\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n\
             # Extent description\nRW {sectors} SPARSE \"{}\"\n\n\
             # The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"{cylinders}\"\n\
             ddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\nddb.virtualHWVersion = \"13\"\n",
            self.content_id, self.name
        )
    }
}

/// The tables so far: one is filled, the others are in the file.
struct Tables {
    /// For each table its sector; 0: it would be empty.
    directory: Vec<u32>,
    current: Option<usize>,
    entries: Vec<u32>,
}

impl Tables {
    fn new(grains: u64) -> Self {
        let tables = grains.div_ceil(ENTRIES_PER_TABLE);
        Self { directory: vec![0; tables as usize], current: None, entries: Vec::new() }
    }

    /// Notes that a grain is written at the sink's position, after the table of those before if it belongs to another.
    fn enter(&mut self, grain: u64, sink: &mut dyn Sink) -> Result<()> {
        let table = (grain / ENTRIES_PER_TABLE) as usize;
        if self.current != Some(table) {
            self.flush(sink)?;
            self.current = Some(table);
            self.entries = vec![0; ENTRIES_PER_TABLE as usize];
        }
        self.entries[(grain % ENTRIES_PER_TABLE) as usize] = sector(sink)?;
        Ok(())
    }

    fn flush(&mut self, sink: &mut dyn Sink) -> Result<()> {
        if let Some(table) = self.current.take() {
            marker(sink, 4 * ENTRIES_PER_TABLE / SECTOR, TABLE)?;
            self.directory[table] = sector(sink)?;
            padded(sink, &bytes(&self.entries))?;
        }
        Ok(())
    }
}

/// The sector that is written next.
fn sector(sink: &dyn Sink) -> Result<u32> {
    let sector = u32::try_from(sink.position() / SECTOR);
    ensure!(sector.is_ok(), "a vmdk file ends at 2 TiB");
    Ok(sector?)
}

/// Announces so many sectors of something.
fn marker(sink: &mut dyn Sink, sectors: u64, kind: u32) -> Result<()> {
    let mut marker = sectors.to_le_bytes().to_vec();
    marker.extend(0_u32.to_le_bytes()); // size: only grains have one
    marker.extend(kind.to_le_bytes());
    padded(sink, &marker)
}

fn bytes(entries: &[u32]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// Appends bytes, and zeros up to the end of the sector.
fn padded(sink: &mut dyn Sink, bytes: &[u8]) -> Result<()> {
    sink.write(bytes)?;
    sink.zeros_until(sink.position().next_multiple_of(SECTOR))
}
