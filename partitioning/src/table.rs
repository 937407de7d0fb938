//! A GUID partition table as a value, and its bytes (UEFI 2.10, section 5.3).
//!
//! ```text
//! LBA 0     protective MBR         LBA -33 (512) or -5 (4096)   entries, again
//! LBA 1     primary header         LBA -1                       backup header
//! LBA 2…    128 entries of 128 bytes
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types::{OperatingSystem, Type};
use uuid::Uuid;

use crate::lba::{Lba, SectorSize};
use crate::types::Role;

/// Bytes of the entries: 128 of 128 bytes, the least that UEFI allows.
const ENTRIES: u64 = 128 * 128;

/// One entry of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// From 1 on.
    pub number: u32,
    /// What it is for, if its type tells.
    pub role: Option<Role>,
    /// GUID of its type.
    pub type_guid: Uuid,
    /// Its type in an MBR; `None` in a GPT.
    pub type_byte: Option<u8>,
    /// Its own GUID.
    pub guid: Uuid,
    /// At most 36 UTF-16 units.
    pub name: String,
    /// First sector.
    pub first: Lba,
    /// Last sector, inclusive.
    pub last: Lba,
    /// Attribute bits.
    pub attributes: u64,
}

impl Partition {
    /// Offset of its first byte.
    pub const fn start(&self, sector_size: SectorSize) -> u64 {
        self.first.to_bytes(sector_size)
    }

    /// Bytes of it.
    pub const fn size(&self, sector_size: SectorSize) -> u64 {
        (self.last.0 - self.first.0 + 1) * sector_size.bytes()
    }
}

impl Table {
    /// The identity of the table as `blkid` says it: a GUID, or the four bytes of an MBR as a number.
    pub fn identity(&self) -> String {
        match self.scheme {
            Scheme::Gpt => self.guid.to_string(),
            Scheme::Dos => {
                let [a, b, c, d, ..] = *self.guid.as_bytes();
                format!("{:08x}", u32::from_le_bytes([a, b, c, d]))
            }
        }
    }

    /// The identity of one of its partitions, as `blkid` says it: its GUID, or in an MBR the table's signature and its number.
    pub fn identity_of(&self, partition: &Partition) -> String {
        match self.scheme {
            Scheme::Gpt => partition.guid.to_string(),
            Scheme::Dos => format!("{}-{:02x}", self.identity(), partition.number),
        }
    }
}

/// The kind of a partition table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// GUID partition table.
    #[default]
    Gpt,
    /// Master boot record, with four primary partitions.
    Dos,
}

/// A partition table. Made by [`Table::arrange`] or [`Table::parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// GUID of the table.
    pub guid: Uuid,
    /// Its kind.
    pub scheme: Scheme,
    /// Bytes of a sector.
    pub sector_size: SectorSize,
    /// Sectors of the whole disk.
    pub sectors: u64,
    /// In order of their numbers.
    pub partitions: Vec<Partition>,
}

/// The bytes of a table: everything else of the disk belongs to partitions, or is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableBytes {
    /// From offset 0 on: protective MBR, primary header, entries.
    pub primary: Vec<u8>,
    /// Entries and backup header, up to the disk's end.
    pub backup: Vec<u8>,
    /// Where `backup` begins.
    pub backup_offset: u64,
}

impl Table {
    /// Bytes of the whole disk.
    pub const fn size(&self) -> u64 {
        self.sectors * self.sector_size.bytes()
    }

    /// The first partition with this role.
    pub fn find(&self, role: Role) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.role == Some(role))
    }

    /// The table written down. Panics if the partitions are not those of a plan: numbered from 1 on without gaps.
    pub fn bytes(&self) -> TableBytes {
        if self.scheme == Scheme::Dos {
            return TableBytes {
                primary: master_boot_record(self).to_vec(),
                backup: Vec::new(),
                backup_offset: self.size(),
            };
        }
        let sector = self.sector_size.bytes();
        let backup_len = ENTRIES + sector;
        let ends = Ends {
            size: self.size(),
            position: 0,
            head: vec![0; (2 * sector + ENTRIES) as usize],
            tail: vec![0; backup_len as usize],
        };
        let ends = write(self, ends).expect("a planned table can be written");
        TableBytes {
            primary: ends.head,
            backup: ends.tail,
            backup_offset: self.size() - backup_len,
        }
    }
}

/// The first sector of a disk without GPT: signature, four records, the mark at the end.
fn master_boot_record(table: &Table) -> [u8; 512] {
    let mut sector = [0; 512];
    sector[0x1b8..0x1bc].copy_from_slice(&table.guid.as_bytes()[..4]);
    for (record, partition) in sector[446..510].chunks_exact_mut(16).zip(&table.partitions) {
        let (first, count) = (partition.first.0, partition.last.0 - partition.first.0 + 1);
        let number = |number: u64| u32::try_from(number).expect("planned for an MBR").to_le_bytes();
        record[0] = if partition.attributes & (1 << 2) == 0 { 0 } else { 0x80 };
        // Cylinders, heads and sectors that say "look at the numbers behind".
        record[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
        record[4] = partition.type_byte.unwrap_or(0x83);
        record[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
        record[8..12].copy_from_slice(&number(first));
        record[12..].copy_from_slice(&number(count));
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

fn write(table: &Table, mut ends: Ends) -> Result<Ends, gpt::GptError> {
    // A disk of 2^32 sectors or more does not fit the MBR's field, which is all ones then (UEFI 2.10, table 5.4).
    let mbr = ProtectiveMBR::with_lb_size(u32::try_from(table.sectors - 1).unwrap_or(u32::MAX));
    mbr.overwrite_lba0(&mut ends).map_err(|error| io::Error::other(error.to_string()))?;
    let block_size = match table.sector_size {
        SectorSize::S512 => LogicalBlockSize::Lb512,
        SectorSize::S4096 => LogicalBlockSize::Lb4096,
    };
    let mut disk = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(block_size)
        .create_from_device(ends, Some(table.guid))?;
    let entries: BTreeMap<u32, _> = table
        .partitions
        .iter()
        .zip(1..)
        .map(|(partition, number)| {
            // The crate packs entries together, so a gap would renumber what follows.
            assert_eq!(partition.number, number, "partitions are numbered without gaps");
            (number, entry(partition))
        })
        .collect();
    disk.update_partitions(entries)?;
    disk.write()
}

fn entry(partition: &Partition) -> gpt::partition::Partition {
    gpt::partition::Partition {
        part_type_guid: Type { guid: partition.type_guid, os: OperatingSystem::None },
        part_guid: partition.guid,
        first_lba: partition.first.0,
        last_lba: partition.last.0,
        flags: partition.attributes,
        name: partition.name.clone(),
    }
}

/// A disk of which only the two ends exist: all that a partition table touches.
#[derive(Debug)]
struct Ends {
    size: u64,
    position: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Ends {
    /// The bytes from the position on, in whichever end it lies.
    fn here(&mut self) -> io::Result<&mut [u8]> {
        let tail_start = self.size - self.tail.len() as u64;
        let (end, skip) = if self.position >= tail_start {
            (&mut self.tail, self.position - tail_start)
        } else {
            (&mut self.head, self.position)
        };
        usize::try_from(skip)
            .ok()
            .and_then(|skip| end.get_mut(skip..))
            .ok_or_else(|| io::Error::other("a partition table has nothing to do here"))
    }
}

impl Read for Ends {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut here = &*self.here()?;
        let count = here.read(buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Ends {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut here = self.here()?;
        let count = here.write(bytes)?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Ends {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::other("outside of the disk"))?;
        Ok(self.position)
    }
}
