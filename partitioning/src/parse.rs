//! A table read back from a disk that may be damaged or hostile.
//!
//! Not with the crate that writes: it neither checks the entries' checksum nor bounds their number, and what wrote something
//! is not a witness of it.

use std::io::{self, Read, Seek, SeekFrom};

use thiserror::Error;
use uuid::Uuid;

use crate::lba::{Lba, SectorSize};
use crate::mbr;
use crate::table::{Partition, Scheme, Table};
use crate::types::Role;

/// More entries than any tool makes; what bounds our memory.
const MOST_ENTRIES: u32 = 1024;

/// Why there is no table to read.
#[derive(Debug, Error)]
pub enum ParseError {
    /// The disk could not be read.
    #[error("reading the partition table: {0}")]
    Io(#[from] io::Error),
    /// Neither end of the disk has a header, at either sector size, and its first sector is not a master boot record.
    #[error("there is no partition table")]
    NoTable,
    /// There is one, and it contradicts itself.
    #[error("the partition table is damaged: {0}")]
    Damaged(&'static str),
}

impl Table {
    /// Reads the table of a disk: the primary one, or the backup when the primary is missing or damaged. The sector size is the
    /// one at which a header is found. A disk without GPT may have a master boot record.
    pub fn parse(disk: &mut (impl Read + Seek)) -> Result<Self, ParseError> {
        let size = disk.seek(SeekFrom::End(0))?;
        let mut problem = ParseError::NoTable;
        for sector_size in SectorSize::ALL {
            let sectors = size / sector_size.bytes();
            for header in [Some(1), sectors.checked_sub(1)].into_iter().flatten() {
                if header == 0 || header >= sectors {
                    continue;
                }
                match read(disk, sector_size, sectors, Lba(header)) {
                    Ok(table) => return Ok(table),
                    Err(error @ ParseError::Damaged(_)) => problem = error,
                    Err(ParseError::NoTable) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        match problem {
            ParseError::NoTable => mbr::read(disk, size),
            damaged => Err(damaged),
        }
    }
}

impl Table {
    /// What is wrong with a GPT: both of its copies, what they say of each other, and the master boot record in front. Nothing: all
    /// is as UEFI 2.10, section 5, wants it.
    pub fn verify(
        disk: &mut (impl Read + Seek),
        sector_size: SectorSize,
    ) -> Result<Vec<String>, ParseError> {
        let size = disk.seek(SeekFrom::End(0))?;
        let sectors = size / sector_size.bytes();
        let mut problems = Vec::new();
        let (mut copies, mut headers) = (Vec::new(), Vec::new());
        for (name, at) in [("primary", 1), ("backup", sectors.saturating_sub(1))] {
            match read(disk, sector_size, sectors, Lba(at)) {
                Ok(table) => copies.push(table),
                Err(ParseError::NoTable) => {
                    problems.push(format!("there is no {name} GPT in sector {at}"));
                }
                Err(ParseError::Damaged(reason)) => {
                    problems.push(format!("the {name} GPT is damaged: {reason}"));
                }
                Err(ParseError::Io(error)) => return Err(error.into()),
            }
            headers.extend(Header::read(disk, sector_size, Lba(at)).ok());
        }
        if let [primary, backup] = &copies[..]
            && primary != backup
        {
            problems.push("the primary GPT and its backup differ".to_owned());
        }
        if let [primary, backup] = &headers[..] {
            let apart = primary.alternate_lba != backup.my_lba
                || backup.alternate_lba != primary.my_lba
                || (primary.first_usable, primary.last_usable)
                    != (backup.first_usable, backup.last_usable);
            if apart {
                problems.push(
                    "the headers of the primary GPT and its backup do not fit together".to_owned(),
                );
            }
        }
        let mut mbr = [0; 512];
        disk.seek(SeekFrom::Start(0))?;
        disk.read_exact(&mut mbr)?;
        let types = (446..510).step_by(16).map(|entry| mbr[entry + 4]);
        if mbr[510..] != [0x55, 0xaa] || !types.clone().any(|kind| kind == 0xee) {
            problems.push("there is no protective master boot record".to_owned());
        }
        Ok(problems)
    }
}

fn read(
    disk: &mut (impl Read + Seek),
    sector_size: SectorSize,
    sectors: u64,
    at: Lba,
) -> Result<Table, ParseError> {
    let header = Header::read(disk, sector_size, at)?;
    if header.my_lba != at.0 {
        return Err(ParseError::Damaged("the header says that it lies elsewhere"));
    }
    if header.entry_size != 128 || header.entry_count > MOST_ENTRIES {
        return Err(ParseError::Damaged("entries of an unusual size or number"));
    }
    let mut bytes = vec![0; 128 * header.entry_count as usize];
    let len = bytes.len() as u64;
    let start = header.entries_lba.checked_mul(sector_size.bytes());
    let disk_size = sectors * sector_size.bytes();
    let start = start
        .filter(|start| start.checked_add(len).is_some_and(|end| end <= disk_size))
        .ok_or(ParseError::Damaged("the entries lie outside of the disk"))?;
    disk.seek(SeekFrom::Start(start))?;
    disk.read_exact(&mut bytes)?;
    if crc32(&bytes) != header.entries_crc32 {
        return Err(ParseError::Damaged("the entries' checksum is wrong"));
    }
    let mut partitions = Vec::new();
    for (entry, number) in bytes.as_chunks::<128>().0.iter().zip(1..) {
        partitions.extend(partition(entry, number, &header, sectors)?);
    }
    check_overlap(&partitions)?;
    Ok(Table { guid: header.disk_guid, scheme: Scheme::Gpt, sector_size, sectors, partitions })
}

/// The fields of a header that matter after its checksum is found right.
struct Header {
    my_lba: u64,
    alternate_lba: u64,
    first_usable: u64,
    last_usable: u64,
    disk_guid: Uuid,
    entries_lba: u64,
    entry_count: u32,
    entry_size: u32,
    entries_crc32: u32,
}

impl Header {
    fn read(
        disk: &mut (impl Read + Seek),
        sector_size: SectorSize,
        at: Lba,
    ) -> Result<Self, ParseError> {
        let mut bytes = [0; 92];
        disk.seek(SeekFrom::Start(at.to_bytes(sector_size)))?;
        disk.read_exact(&mut bytes)?;
        let u32_at = |offset: usize| u32::from_le_bytes(array(&bytes, offset));
        let u64_at = |offset: usize| u64::from_le_bytes(array(&bytes, offset));
        if !bytes.starts_with(b"EFI PART") {
            return Err(ParseError::NoTable);
        }
        if u32_at(12) != 92 {
            return Err(ParseError::Damaged("a header of an unusual size"));
        }
        let mut zeroed = bytes;
        zeroed[16..20].fill(0);
        if crc32(&zeroed) != u32_at(16) {
            return Err(ParseError::Damaged("the header's checksum is wrong"));
        }
        Ok(Self {
            my_lba: u64_at(24),
            alternate_lba: u64_at(32),
            first_usable: u64_at(40),
            last_usable: u64_at(48),
            disk_guid: Uuid::from_bytes_le(array(&bytes, 56)),
            entries_lba: u64_at(72),
            entry_count: u32_at(80),
            entry_size: u32_at(84),
            entries_crc32: u32_at(88),
        })
    }
}

/// One entry; none if it is unused.
fn partition(
    entry: &[u8; 128],
    number: u32,
    header: &Header,
    sectors: u64,
) -> Result<Option<Partition>, ParseError> {
    let type_guid = Uuid::from_bytes_le(array(entry, 0));
    if type_guid.is_nil() {
        return Ok(None);
    }
    let (first, last) =
        (u64::from_le_bytes(array(entry, 32)), u64::from_le_bytes(array(entry, 40)));
    if first > last || first < header.first_usable || last > header.last_usable || last >= sectors {
        return Err(ParseError::Damaged("a partition lies where none can be"));
    }
    let units = entry[56..].as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
    let name: Vec<u16> = units.take_while(|&unit| unit != 0).collect();
    Ok(Some(Partition {
        number,
        role: Role::of_type(type_guid),
        type_guid,
        type_byte: None,
        guid: Uuid::from_bytes_le(array(entry, 16)),
        name: String::from_utf16_lossy(&name),
        first: Lba(first),
        last: Lba(last),
        attributes: u64::from_le_bytes(array(entry, 48)),
    }))
}

pub(crate) fn check_overlap(partitions: &[Partition]) -> Result<(), ParseError> {
    let mut ranges: Vec<_> = partitions.iter().map(|p| (p.first, p.last)).collect();
    ranges.sort_unstable();
    if ranges.is_sorted_by(|before, after| before.1 < after.0) {
        Ok(())
    } else {
        Err(ParseError::Damaged("partitions overlap"))
    }
}

/// `N` bytes from a constant offset of a structure whose size is known.
fn array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[offset + i])
}

/// CRC-32 as in zlib and Ethernet, bit by bit: 16 KiB do not need a table.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::{Architecture, Arrangement, MIB, Preset, Role};

    fn table(sector_size: SectorSize) -> Table {
        let guid = |n: u128| Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_ee00 + n);
        let slot = |role, n, size| Preset::Bootc.slot(role, Architecture::X86_64, guid(n), size);
        Table::arrange(&Arrangement {
            scheme: Scheme::Gpt,
            guid: guid(0),
            sector_size,
            start: MIB,
            slots: vec![
                slot(Role::BiosBoot, 1, MIB),
                slot(Role::Esp, 2, 4 * MIB),
                slot(Role::Root, 4, 3 * MIB),
            ],
            disk: None,
            grows: None,
        })
        .unwrap()
    }

    fn disk(table: &Table) -> Vec<u8> {
        let mut disk = vec![0; table.size() as usize];
        let bytes = table.bytes();
        disk[..bytes.primary.len()].copy_from_slice(&bytes.primary);
        disk[bytes.backup_offset as usize..].copy_from_slice(&bytes.backup);
        disk
    }

    #[test]
    fn what_is_written_is_read() {
        for sector_size in SectorSize::ALL {
            let table = table(sector_size);
            assert_eq!(Table::parse(&mut Cursor::new(disk(&table))).unwrap(), table);
        }
    }

    #[test]
    fn the_backup_steps_in() {
        for sector_size in SectorSize::ALL {
            let table = table(sector_size);
            let mut disk = disk(&table);
            disk[sector_size.bytes() as usize + 60] ^= 1;
            assert_eq!(Table::parse(&mut Cursor::new(&disk)).unwrap(), table);
            let end = disk.len() - sector_size.bytes() as usize;
            disk[end + 60] ^= 1;
            assert!(matches!(Table::parse(&mut Cursor::new(&disk)), Err(ParseError::Damaged(_))));
        }
    }

    #[test]
    fn verify_tells_what_is_wrong_with_either_copy() {
        for sector_size in SectorSize::ALL {
            let table = table(sector_size);
            let whole = disk(&table);
            let told = |disk: &[u8]| Table::verify(&mut Cursor::new(disk), sector_size).unwrap();
            assert_eq!(told(&whole), Vec::<String>::new());
            let sector = sector_size.bytes() as usize;
            let (primary, backup) = (sector, whole.len() - sector);
            for (at, what) in [
                (510, "there is no protective master boot record"),
                (primary, "there is no primary GPT in sector 1"),
                (primary + 60, "the primary GPT is damaged: the header's checksum is wrong"),
                (2 * sector, "the primary GPT is damaged: the entries' checksum is wrong"),
                (backup + 60, "the backup GPT is damaged: the header's checksum is wrong"),
            ] {
                let mut broken = whole.clone();
                broken[at] ^= 1;
                assert!(told(&broken).contains(&what.to_owned()), "{at}: {:?}", told(&broken));
            }
            // A backup of another table, sound in itself.
            let mut other = table.clone();
            other.partitions[0].name.push('x');
            let mut mixed = whole.clone();
            let bytes = other.bytes();
            mixed[bytes.backup_offset as usize..].copy_from_slice(&bytes.backup);
            assert_eq!(told(&mixed), ["the primary GPT and its backup differ"]);
            // A disk that has grown since.
            let mut grown = whole.clone();
            grown.resize(whole.len() + (1 << 20), 0);
            assert!(told(&grown)[0].contains("there is no backup GPT"), "{:?}", told(&grown));
        }
    }

    #[test]
    fn no_damage_panics() {
        let whole = disk(&table(SectorSize::S512));
        let headers = [512, whole.len() - 512];
        let mut broken = whole.clone();
        for offset in 0..128 {
            for value in [0, 1, 0x7f, 0xff] {
                for start in headers {
                    // The header's byte, and the same byte of the first entry.
                    broken[start + offset.min(91)] = value;
                    broken[1024 + offset] = value;
                    // With the checksum repaired, as somebody who means harm would.
                    broken[start + 16..start + 20].fill(0);
                    let crc = crc32(&broken[start..start + 92]);
                    broken[start + 16..start + 20].copy_from_slice(&crc.to_le_bytes());
                }
                let _ = Table::parse(&mut Cursor::new(&broken));
                for start in headers {
                    broken[start..start + 92].copy_from_slice(&whole[start..start + 92]);
                }
                broken[1024..1152].copy_from_slice(&whole[1024..1152]);
            }
        }
        for len in [0, 1, 511, 512, 600, 1024, 4096, 20_000] {
            assert!(Table::parse(&mut Cursor::new(&whole[..len])).is_err(), "{len}");
        }
    }

    #[test]
    fn entries_that_contradict_each_other_are_refused() {
        let table = table(SectorSize::S512);
        let mut overlapping = table.clone();
        overlapping.partitions[2].first = Lba(table.partitions[1].last.0);
        let mut outside = table.clone();
        outside.partitions[2].last = Lba(table.sectors - 1);
        for table in [overlapping, outside] {
            assert!(matches!(
                Table::parse(&mut Cursor::new(disk(&table))),
                Err(ParseError::Damaged(_))
            ));
        }
    }
}
