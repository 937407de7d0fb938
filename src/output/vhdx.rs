//! VHDX, Hyper-V's format, growing ([MS-VHDX]): a table says for each MiB of the disk where it is in the file.
//!
//! ```text
//! 0           64 KiB     192 KiB         1 MiB  2 MiB      3 MiB   next MiB
//! | identifier | header ×2 | region table ×2 | log | metadata | BAT | blocks of 1 MiB in the disk's order … |
//! ```
//!
//! Numbers are little-endian. Blocks of 1 MiB are what Microsoft recommends for Linux, whose file systems spread their data.

use std::ops::Range;

use anyhow::Result;
use uuid::{Uuid, uuid};

use super::sink::Sink;
use super::stretches::{Disk, count};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const BLOCK: u64 = MIB;

const HEADERS: [u64; 2] = [64 * KIB, 128 * KIB];
const REGION_TABLES: [u64; 2] = [192 * KIB, 256 * KIB];
const LOG: u64 = MIB;
const METADATA: u64 = 2 * MIB;
const BAT: u64 = 3 * MIB;

/// Where items begin in the metadata region, behind its table.
const ITEMS: u32 = 64 << 10;

const BAT_REGION: Uuid = uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08");
const METADATA_REGION: Uuid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e");

const FILE_PARAMETERS: Uuid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
const VIRTUAL_DISK_SIZE: Uuid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
const VIRTUAL_DISK_ID: Uuid = uuid!("beca12ab-b2e6-4523-93ef-c309e000c746");
const LOGICAL_SECTOR_SIZE: Uuid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f");
const PHYSICAL_SECTOR_SIZE: Uuid = uuid!("cda348c7-445d-4471-9cc9-e9885251c556");

/// Metadata that a reader must understand.
const IS_REQUIRED: u32 = 1 << 2;
/// Metadata about the disk, not the file.
const IS_VIRTUAL_DISK: u32 = 1 << 1;

/// BAT: the block is not in the file and reads as zero.
const BLOCK_ZERO: u64 = 2;
/// BAT: all of the block is in the file.
const BLOCK_FULLY_PRESENT: u64 = 6;

/// The identifiers in a file.
pub(super) struct Guids {
    pub(super) file_write: Uuid,
    pub(super) data_write: Uuid,
    pub(super) disk: Uuid,
}

/// Where everything lies.
pub(super) struct Layout {
    size: u64,
    sector_size: u32,
    runs: Vec<Range<u64>>,
    guids: Guids,
}

impl Layout {
    pub(super) fn of(disk: Disk<'_>, sector_size: u32, guids: Guids) -> Result<Self> {
        Ok(Self { size: disk.size(), sector_size, runs: disk.filled(BLOCK)?, guids })
    }

    /// After so many blocks the BAT has an entry for a bitmap, which disks with parents need.
    fn chunk_ratio(&self) -> u64 {
        (1 << 23) * u64::from(self.sector_size) / BLOCK
    }

    fn bat_entries(&self) -> u64 {
        let blocks = self.size.div_ceil(BLOCK);
        blocks + blocks.saturating_sub(1) / self.chunk_ratio()
    }

    fn data(&self) -> u64 {
        BAT + (8 * self.bat_entries()).max(1).next_multiple_of(MIB)
    }

    pub(super) fn file_size(&self) -> u64 {
        self.data() + count(&self.runs) * BLOCK
    }

    pub(super) fn write(&self, disk: Disk<'_>, sink: &mut dyn Sink) -> Result<()> {
        let mut identifier = b"vhdxfile".to_vec();
        identifier.extend("bootpress".encode_utf16().flat_map(u16::to_le_bytes));
        sink.write(&identifier)?;
        // The header with the higher number is the current one.
        for (place, number) in HEADERS.into_iter().zip(1..) {
            sink.zeros_until(place)?;
            sink.write(&self.header(number))?;
        }
        for place in REGION_TABLES {
            sink.zeros_until(place)?;
            sink.write(&self.region_table())?;
        }
        // The log is empty: the header says so by naming none.
        sink.zeros_until(METADATA)?;
        let (table, items) = self.metadata();
        sink.write(&table)?;
        sink.zeros_until(METADATA + u64::from(ITEMS))?;
        sink.write(&items)?;
        sink.zeros_until(BAT)?;
        sink.write(&self.bat())?;
        sink.zeros_until(self.data())?;
        for run in &self.runs {
            disk.copy(run.start * BLOCK..run.end * BLOCK, sink)?;
        }
        Ok(())
    }

    fn header(&self, sequence_number: u64) -> Vec<u8> {
        let mut header = b"head\0\0\0\0".to_vec();
        header.extend(sequence_number.to_le_bytes());
        header.extend(self.guids.file_write.to_bytes_le());
        header.extend(self.guids.data_write.to_bytes_le());
        header.extend([0; 16]); // LogGuid
        header.extend(0_u16.to_le_bytes()); // LogVersion
        header.extend(1_u16.to_le_bytes()); // Version
        header.extend((MIB as u32).to_le_bytes()); // LogLength
        header.extend(LOG.to_le_bytes()); // LogOffset
        checked(header, 4096)
    }

    fn region_table(&self) -> Vec<u8> {
        let mut table = b"regi\0\0\0\0".to_vec();
        table.extend(2_u32.to_le_bytes()); // EntryCount
        table.extend([0; 4]);
        for (guid, offset, length) in
            [(BAT_REGION, BAT, self.data() - BAT), (METADATA_REGION, METADATA, MIB)]
        {
            table.extend(guid.to_bytes_le());
            table.extend(offset.to_le_bytes());
            table.extend((length as u32).to_le_bytes());
            table.extend(1_u32.to_le_bytes()); // Required
        }
        checked(table, 64 << 10)
    }

    /// The table of the metadata region, and the items it speaks of.
    fn metadata(&self) -> (Vec<u8>, Vec<u8>) {
        let parameters = [BLOCK as u32, 0].map(u32::to_le_bytes).concat();
        let sector = self.sector_size.to_le_bytes().to_vec();
        let disk = IS_REQUIRED | IS_VIRTUAL_DISK;
        let entries = [
            (FILE_PARAMETERS, parameters, IS_REQUIRED),
            (VIRTUAL_DISK_SIZE, self.size.to_le_bytes().to_vec(), disk),
            (VIRTUAL_DISK_ID, self.guids.disk.to_bytes_le().to_vec(), disk),
            (LOGICAL_SECTOR_SIZE, sector, disk),
            // As the drive says it is inside: 4096 bytes make the guest align what it writes.
            (PHYSICAL_SECTOR_SIZE, 4096_u32.to_le_bytes().to_vec(), disk),
        ];
        let mut table = b"metadata\0\0".to_vec();
        table.extend((entries.len() as u16).to_le_bytes());
        table.extend([0; 20]);
        let mut items = Vec::new();
        for (guid, value, flags) in entries {
            table.extend(guid.to_bytes_le());
            table.extend((ITEMS + items.len() as u32).to_le_bytes());
            table.extend((value.len() as u32).to_le_bytes());
            table.extend(flags.to_le_bytes());
            table.extend([0; 4]);
            items.extend(value);
        }
        (table, items)
    }

    fn bat(&self) -> Vec<u8> {
        let ratio = self.chunk_ratio();
        let blocks = self.size.div_ceil(BLOCK);
        let mut bat = vec![0_u64; self.bat_entries() as usize];
        let place = |block: u64| (block + block / ratio) as usize;
        for block in 0..blocks {
            bat[place(block)] = BLOCK_ZERO;
        }
        for (block, number) in self.runs.iter().flat_map(Range::clone).zip(0..) {
            // FileOffsetMB begins at bit 20: an offset that is a multiple of 1 MiB is that already.
            bat[place(block)] = (self.data() + number * BLOCK) | BLOCK_FULLY_PRESENT;
        }
        bat.into_iter().flat_map(u64::to_le_bytes).collect()
    }
}

/// A structure padded to its size, with its CRC-32C, which is at 4 and counts as zero.
fn checked(mut bytes: Vec<u8>, size: usize) -> Vec<u8> {
    bytes.resize(size, 0);
    let checksum = crc32c::crc32c(&bytes);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    bytes
}
