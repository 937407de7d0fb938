//! A master boot record read back: the table of disks without GPT.
//!
//! ```text
//! 0x000  boot code        0x1b8  signature of the disk (4 bytes)
//! 0x1be  four records     0x1fe  55 aa
//!          0  80 if active    1  CHS, of no meaning    4  type    5  CHS    8  first sector    12  count of sectors
//! ```
//!
//! Only primary partitions are read: those inside an extended one belong to another table.

use std::io::{Read, Seek, SeekFrom};

use uuid::Uuid;

use crate::lba::{Lba, SectorSize};
use crate::parse::{ParseError, check_overlap};
use crate::table::{Partition, Scheme, Table};
use crate::types::{Role, type_of_byte};

/// Type of the one partition that keeps old tools away from a GPT (UEFI 2.10, section 5.2.3).
const PROTECTIVE: u8 = 0xee;

/// Reads the table of a disk of so many bytes, whose sectors have 512 of them: a record does not say.
///
/// `NoTable` if the first sector is none: a volume without table begins with a sector that looks much the same.
pub(crate) fn read(disk: &mut (impl Read + Seek), size: u64) -> Result<Table, ParseError> {
    let sector_size = SectorSize::S512;
    let sectors = size / sector_size.bytes();
    let mut sector = [0; 512];
    if sectors == 0 {
        return Err(ParseError::NoTable);
    }
    disk.seek(SeekFrom::Start(0))?;
    disk.read_exact(&mut sector)?;
    let (records, _) = sector[0x1be..0x1fe].as_chunks::<16>();
    let used = |record: &&[u8; 16]| record[4] != 0;
    let is_one = sector.ends_with(&[0x55, 0xaa])
        && records.iter().all(|record| record[0] & 0x7f == 0)
        && records.iter().any(|record| record[4] != 0)
        && !records.iter().any(|record| record[4] == PROTECTIVE);
    if !is_one {
        return Err(ParseError::NoTable);
    }
    let number = |record: &[u8; 16], at: usize| {
        u64::from(u32::from_le_bytes(std::array::from_fn(|index| record[at + index])))
    };
    let mut partitions = Vec::new();
    for (record, place) in records.iter().zip(1..).filter(|(record, _)| used(record)) {
        let (first, count) = (number(record, 8), number(record, 12));
        if first == 0 || count == 0 || first + count > sectors {
            return Err(ParseError::Damaged("a partition lies where none can be"));
        }
        partitions.push(Partition {
            number: place,
            role: Role::of_type_byte(record[4]),
            type_guid: type_of_byte(record[4]),
            type_byte: Some(record[4]),
            guid: Uuid::nil(),
            name: String::new(),
            first: Lba(first),
            last: Lba(first + count - 1),
            attributes: if record[0] == 0 { 0 } else { 1 << 2 },
        });
    }
    check_overlap(&partitions)?;
    let mut guid = [0; 16];
    guid[..4].copy_from_slice(&sector[0x1b8..0x1bc]);
    let guid = Uuid::from_bytes(guid);
    Ok(Table { guid, scheme: Scheme::Dos, sector_size, sectors, partitions })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::{Arrangement, MIB, Slot};

    fn table() -> Table {
        let slot = |role, type_byte, mib: u64| Slot {
            role,
            type_guid: type_of_byte(type_byte),
            type_byte,
            guid: Uuid::nil(),
            name: String::new(),
            attributes: if role == Role::Root { 4 } else { 0 },
            size: mib * MIB,
        };
        Table::arrange(&Arrangement {
            scheme: Scheme::Dos,
            guid: Uuid::from_u128(0x0102_0304 << 96),
            sector_size: SectorSize::S512,
            start: MIB,
            slots: vec![
                slot(Role::Esp, 0xef, 2),
                slot(Role::Swap, 0x82, 1),
                slot(Role::Root, 0x83, 3),
            ],
            disk: None,
            grows: None,
        })
        .unwrap()
    }

    fn disk() -> Vec<u8> {
        let mut disk = vec![0; table().size() as usize];
        disk[..512].copy_from_slice(&table().bytes().primary);
        disk
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Table::parse(&mut Cursor::new(disk())).unwrap(), table());
    }

    #[test]
    fn other_first_sectors_are_no_tables() {
        let parse = |change: &dyn Fn(&mut [u8])| {
            let mut disk = disk();
            change(&mut disk);
            Table::parse(&mut Cursor::new(disk))
        };
        assert!(matches!(parse(&|disk| disk[511] = 0), Err(ParseError::NoTable)));
        assert!(matches!(parse(&|disk| disk[0x1be] = 7), Err(ParseError::NoTable)));
        assert!(matches!(parse(&|disk| disk[0x1c2] = PROTECTIVE), Err(ParseError::NoTable)));
        assert!(matches!(parse(&|disk| disk[0x1be..0x1fe].fill(0)), Err(ParseError::NoTable)));
        // Outside of the disk, of no size, over another.
        assert!(matches!(parse(&|disk| disk[0x1cd] = 1), Err(ParseError::Damaged(_))));
        assert!(matches!(parse(&|disk| disk[0x1ca..0x1ce].fill(0)), Err(ParseError::Damaged(_))));
        assert!(matches!(parse(&|disk| disk[0x1d7] = 9), Err(ParseError::Damaged(_))));
        for len in [0, 1, 511, 512, 513] {
            assert!(Table::parse(&mut Cursor::new(&disk()[..len])).is_err(), "{len}");
        }
    }
}
