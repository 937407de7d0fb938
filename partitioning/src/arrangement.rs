//! Arrangements: partitions in the order in which they lie, whether a preset has them or somebody chose them one by one.
//!
//! ```text
//! GPT   | table | 1 MiB: slot 1 | slot 2 | … | (free) | 1 MiB: backup table |
//! MBR   | table | gap for boot code | 1 MiB: slot 1 | … | (free) |
//! ```
//!
//! Every partition begins and ends at a multiple of 1 MiB, as sfdisk lays them out, whatever the sector size.

use thiserror::Error;
use uuid::Uuid;

use crate::lba::{Lba, MIB, SectorSize};
use crate::table::{Partition, Scheme, Table};
use crate::types::Role;

/// A partition to place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What it is for.
    pub role: Role,
    /// GUID of its type, in a GPT.
    pub type_guid: Uuid,
    /// Its type in an MBR.
    pub type_byte: u8,
    /// Its own GUID, in a GPT.
    pub guid: Uuid,
    /// Its name in a GPT, at most 36 UTF-16 units.
    pub name: String,
    /// Attribute bits of a GPT entry; bit 2 marks a partition as active in an MBR.
    pub attributes: u64,
    /// Bytes of it, rounded up to MiB.
    pub size: u64,
}

/// Everything that such a table follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrangement {
    /// The kind of table.
    pub scheme: Scheme,
    /// GUID of the table; the first four bytes are an MBR's signature.
    pub guid: Uuid,
    /// Bytes of a sector.
    pub sector_size: SectorSize,
    /// Where the first partition begins, a multiple of 1 MiB.
    pub start: u64,
    /// The partitions.
    pub slots: Vec<Slot>,
    /// Bytes of the whole disk, rounded up to MiB; `None`: what the partitions take.
    pub disk: Option<u64>,
    /// The partition (an index of `slots`) that takes what is left of the disk; `None`: it stays free.
    pub grows: Option<usize>,
}

/// Why there is no such table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The root would be smaller than it must be.
    #[error(
        "does not fit: the root needs {} MiB, the disk of {} MiB leaves {} MiB; {} MiB would do",
        needs.div_ceil(MIB), disk / MIB, leaves / MIB, would_do / MIB
    )]
    DoesNotFit {
        /// Bytes that the root needs.
        needs: u64,
        /// Bytes of the disk.
        disk: u64,
        /// Bytes that the other partitions and the tables leave.
        leaves: u64,
        /// Bytes of the smallest disk that suffices.
        would_do: u64,
    },
    /// A partition of no bytes.
    #[error("the partition {role} has no size")]
    Empty {
        /// Which.
        role: Role,
    },
    /// More than a master boot record can say.
    #[error("a dos table has at most 4 partitions on at most 2 TiB, not {partitions} on {} MiB", disk / MIB)]
    NoDos {
        /// How many partitions there would be.
        partitions: usize,
        /// Bytes of the disk.
        disk: u64,
    },
    /// More bytes than 64 bits can count.
    #[error("the disk is larger than any disk can be")]
    TooLarge,
}

impl Table {
    /// Decides where every partition lies.
    pub fn arrange(arrangement: &Arrangement) -> Result<Self, PlanError> {
        let Arrangement { scheme, guid, sector_size, start, .. } = *arrangement;
        let whole = |bytes: u64| bytes.checked_next_multiple_of(MIB).ok_or(PlanError::TooLarge);
        let mut sizes = Vec::new();
        let mut end = whole(start)?;
        for slot in &arrangement.slots {
            if slot.size == 0 {
                return Err(PlanError::Empty { role: slot.role });
            }
            let size = whole(slot.size)?;
            sizes.push(size);
            end = end.checked_add(size).ok_or(PlanError::TooLarge)?;
        }
        // The backup table needs 33 sectors of 512 bytes or 5 of 4096: less than the MiB that it gets.
        let behind = if scheme == Scheme::Gpt { MIB } else { 0 };
        let least = end.checked_add(behind).ok_or(PlanError::TooLarge)?;
        let disk = arrangement.disk.map_or(Ok(least), whole)?;
        if disk < least {
            let grows = arrangement.grows.map_or(0, |index| sizes[index]);
            let leaves = disk.saturating_sub(least - grows);
            return Err(PlanError::DoesNotFit { needs: grows, disk, leaves, would_do: least });
        }
        if let Some(index) = arrangement.grows {
            sizes[index] += disk - least;
        }
        let sectors = disk / sector_size.bytes();
        if scheme == Scheme::Dos && (arrangement.slots.len() > 4 || sectors > u64::from(u32::MAX)) {
            return Err(PlanError::NoDos { partitions: arrangement.slots.len(), disk });
        }
        let mut next = whole(start)?;
        let mut partitions = Vec::new();
        for ((slot, size), number) in arrangement.slots.iter().zip(sizes).zip(1..) {
            let sector = |offset: u64| Lba(offset / sector_size.bytes());
            partitions.push(Partition {
                number,
                role: Some(slot.role),
                type_guid: slot.type_guid,
                type_byte: (scheme == Scheme::Dos).then_some(slot.type_byte),
                guid: slot.guid,
                name: slot.name.clone(),
                first: sector(next),
                last: Lba(sector(next + size).0 - 1),
                attributes: slot.attributes,
            });
            next += size;
        }
        Ok(Self { guid, scheme, sector_size, sectors, partitions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrangement(scheme: Scheme, sizes: &[u64]) -> Arrangement {
        let slot = |size: &u64| Slot {
            role: Role::Data,
            type_guid: Uuid::from_u128(1),
            type_byte: 0x83,
            guid: Uuid::from_u128(u128::from(*size)),
            name: String::new(),
            attributes: 4,
            size: *size,
        };
        Arrangement {
            scheme,
            guid: Uuid::from_u128(0x0102_0304 << 96),
            sector_size: SectorSize::S512,
            start: MIB,
            slots: sizes.iter().map(slot).collect(),
            disk: None,
            grows: None,
        }
    }

    fn places(table: &Table) -> Vec<(u64, u64)> {
        let place =
            |p: &Partition| (p.start(table.sector_size) / MIB, p.size(table.sector_size) / MIB);
        table.partitions.iter().map(place).collect()
    }

    #[test]
    fn slots_lie_one_after_the_other() {
        let mut wanted = arrangement(Scheme::Gpt, &[MIB, 2 * MIB - 1, 3 * MIB]);
        let table = Table::arrange(&wanted).unwrap();
        assert_eq!(places(&table), [(1, 1), (2, 2), (4, 3)]);
        assert_eq!(table.size(), 8 * MIB);
        wanted.disk = Some(20 * MIB);
        let table = Table::arrange(&wanted).unwrap();
        assert_eq!((places(&table)[2], table.size()), ((4, 3), 20 * MIB));
        wanted.grows = Some(1);
        let table = Table::arrange(&wanted).unwrap();
        assert_eq!(places(&table), [(1, 1), (2, 14), (16, 3)]);
        wanted.disk = Some(7 * MIB);
        let error = Table::arrange(&wanted).unwrap_err().to_string();
        assert!(error.ends_with("8 MiB would do"), "{error}");
        assert!(matches!(
            Table::arrange(&arrangement(Scheme::Gpt, &[0])),
            Err(PlanError::Empty { .. })
        ));
        let huge = arrangement(Scheme::Gpt, &[u64::MAX, u64::MAX]);
        assert_eq!(Table::arrange(&huge), Err(PlanError::TooLarge));
    }

    #[test]
    fn an_mbr_is_one_sector() {
        let table = Table::arrange(&arrangement(Scheme::Dos, &[MIB, 2 * MIB])).unwrap();
        assert_eq!(table.size(), 4 * MIB);
        let bytes = table.bytes();
        assert!(bytes.backup.is_empty());
        assert_eq!(bytes.primary.len(), 512);
        assert_eq!(bytes.primary[0x1b8..0x1bc], [1, 2, 3, 4]);
        assert_eq!(
            bytes.primary[446..462],
            [0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff, 0, 8, 0, 0, 0, 8, 0, 0]
        );
        assert_eq!(bytes.primary[510..], [0x55, 0xaa]);
        let five = arrangement(Scheme::Dos, &[MIB; 5]);
        assert!(matches!(Table::arrange(&five), Err(PlanError::NoDos { .. })));
        let large = arrangement(Scheme::Dos, &[3 << 40]);
        assert!(matches!(Table::arrange(&large), Err(PlanError::NoDos { .. })));
    }
}
