//! Table, boot code and file systems, put in their places: a disk as one map.

use anyhow::{Result, ensure};
use partitioning::{MIB, Partition, Role, Scheme, SectorSize, Table, type_byte_name, type_name};

use super::{Disk, FilesystemReport, PartitionReport};
use crate::error::unsupported;
use crate::filesystem::Volume;
use crate::sparse::SparseMap;

/// Bytes of the MBR; in a sector of 4096 bytes zeros follow.
const MBR_SIZE: usize = 512;

/// Where the MBR holds partition records and its signature: what boot code must leave alone (UEFI 2.10, table 5.3).
const MBR_RECORDS: std::ops::Range<usize> = 446..512;

/// The bytes of a partition, and what there is to say about them if they are a file system.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) map: SparseMap,
    pub(super) filesystem: Option<FilesystemReport>,
}

impl From<Volume> for Filled {
    fn from(volume: Volume) -> Self {
        let Volume { map, kind, label, uuid, used } = volume;
        let report = FilesystemReport { kind: kind.name(), label, uuid, used };
        Self { map, filesystem: Some(report) }
    }
}

/// Boot code for a BIOS: given the sector at which its core will lie and the table's own MBR, the MBR that takes its place (and
/// keeps its partition records), and the core.
pub(super) type Embed<'a> = dyn Fn(u64, &[u8; MBR_SIZE]) -> ([u8; MBR_SIZE], Vec<u8>) + 'a;

/// Joins partitions in the order of the table; one that gets nothing is zero.
///
/// Fails if the boot code does not fit, or cannot be on such a disk. A volume of another size than its partition is our mistake.
pub(super) fn disk(
    table: &Table,
    filled: Vec<Option<Filled>>,
    boot_code: Option<&Embed<'_>>,
) -> Result<Disk> {
    let mut map = SparseMap::new(table.size());
    let mut bytes = table.bytes();
    if let Some(boot_code) = boot_code {
        let core = embed(table, boot_code, &mut bytes.primary)?;
        map.put(bios_room(table).start, core);
    }
    map.put(0, bytes.primary);
    if !bytes.backup.is_empty() {
        map.put(bytes.backup_offset, bytes.backup);
    }
    let mut partitions = Vec::new();
    for (partition, filled) in table.partitions.iter().zip(filled) {
        partitions.push(place(&mut map, table, partition, filled));
    }
    Ok(Disk { map, partitions })
}

fn place(
    map: &mut SparseMap,
    table: &Table,
    partition: &Partition,
    filled: Option<Filled>,
) -> PartitionReport {
    let role = partition.role.expect("arranged partitions have roles");
    let (start, size) = (partition.start(table.sector_size), partition.size(table.sector_size));
    let filesystem = filled.and_then(|filled| {
        assert_eq!(filled.map.size(), size, "the {role} file system fills its partition");
        map.place(start, filled.map);
        filled.filesystem
    });
    PartitionReport {
        number: partition.number,
        role,
        type_name: partition.type_byte.map_or(type_name(partition.type_guid), type_byte_name),
        type_guid: match partition.type_byte {
            Some(byte) => format!("0x{byte:02x}"),
            None => partition.type_guid.to_string(),
        },
        guid: table.identity_of(partition),
        name: partition.name.clone(),
        start,
        size,
        filesystem,
    }
}

/// The core, after its MBR has taken the place of the protective one, whose partition records it keeps.
fn embed(table: &Table, boot_code: &Embed<'_>, primary: &mut [u8]) -> Result<Vec<u8>> {
    if table.scheme == Scheme::Gpt && table.find(Role::BiosBoot).is_none() {
        return Err(unsupported("only x86_64 disks start from BIOS", None));
    }
    if table.sector_size != SectorSize::S512 {
        return Err(unsupported(
            "no BIOS starts from sectors of 4096 bytes",
            Some("take sectors of 512 bytes, or leave BIOS out"),
        ));
    }
    let room = bios_room(table);
    let mbr = primary.first_chunk_mut::<MBR_SIZE>().expect("a table begins with an MBR");
    let (code, core) = boot_code(room.start / SectorSize::S512.bytes(), mbr);
    assert_eq!(code[MBR_RECORDS], mbr[MBR_RECORDS], "boot code leaves partition records alone");
    let size = room.end - room.start;
    ensure!(
        core.len() as u64 <= size,
        "GRUB's core of {} bytes does not fit the {} of {size}",
        core.len(),
        match table.scheme {
            Scheme::Gpt => "BIOS boot partition",
            Scheme::Dos => "gap before the first partition",
        }
    );
    *mbr = code;
    Ok(core)
}

/// Offsets of the place for a BIOS's boot code: a partition, or without GPT the gap before the first.
fn bios_room(table: &Table) -> std::ops::Range<u64> {
    let sector_size = table.sector_size;
    match table.find(Role::BiosBoot) {
        Some(partition) => {
            let start = partition.start(sector_size);
            start..start + partition.size(sector_size)
        }
        None => {
            let first = table.partitions.iter().map(|p| p.start(sector_size)).min();
            MBR_SIZE as u64..first.unwrap_or(MIB)
        }
    }
}

#[cfg(test)]
mod tests {
    //! Disks joined from parts that are easy to recognise.

    use std::io::Cursor;

    use partitioning::{Architecture, Arrangement, Preset};
    use uuid::Uuid;

    use super::*;
    use crate::content::ContentStore;
    use crate::error::Unsupported;
    use crate::filesystem_kind::FileSystem;

    fn table(architecture: Architecture, sector_size: SectorSize) -> Table {
        let slot = |(role, n): (Role, u64)| {
            let size = if role == Role::BiosBoot { MIB } else { (n + 1) * MIB };
            Preset::Osbuild.slot(role, architecture, Uuid::from_u128(n.into()), size)
        };
        Table::arrange(&Arrangement {
            scheme: Scheme::Gpt,
            guid: Uuid::from_u128(9),
            sector_size,
            start: MIB,
            slots: Preset::Osbuild
                .roles(architecture, false)
                .into_iter()
                .zip(1..)
                .map(slot)
                .collect(),
            disk: None,
            grows: None,
        })
        .unwrap()
    }

    fn volume(size: u64, mark: u8) -> Filled {
        let mut map = SparseMap::new(size);
        map.put(0, vec![mark; 4]);
        map.put(size - 4, vec![mark; 4]);
        let uuid = mark.to_string();
        Volume { map, kind: FileSystem::Ext4, label: "label".to_owned(), uuid, used: 8 }.into()
    }

    fn filled(table: &Table) -> Vec<Option<Filled>> {
        let fill = |partition: &Partition| {
            let mark = u8::try_from(partition.number).unwrap();
            let volume = || volume(partition.size(table.sector_size), mark);
            (partition.role != Some(Role::BiosBoot)).then(volume)
        };
        table.partitions.iter().map(fill).collect()
    }

    fn bytes(disk: &Disk) -> Vec<u8> {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let mut bytes = vec![0; disk.map.size() as usize];
        disk.map.read_at(&contents, 0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_part_lies_where_the_table_says() {
        for sector_size in SectorSize::ALL {
            let planned = table(Architecture::X86_64, sector_size);
            let disk = disk(&planned, filled(&planned), None).unwrap();
            let bytes = bytes(&disk);
            let table = Table::parse(&mut Cursor::new(&bytes)).unwrap();
            assert_eq!(table.guid, planned.guid);
            assert_eq!(planned.size(), bytes.len() as u64);
            for role in [Role::Esp, Role::Boot, Role::Root] {
                let partition = table.find(role).unwrap();
                let mark = u8::try_from(partition.number).unwrap();
                let start = partition.start(sector_size) as usize;
                let end = start + partition.size(sector_size) as usize;
                assert_eq!([&bytes[start..start + 4], &bytes[end - 4..end]], [[mark; 4]; 2]);
                let report = &disk.partitions[partition.number as usize - 1];
                assert_eq!((report.start, report.size), (start as u64, (end - start) as u64));
                assert_eq!(report.filesystem.as_ref().unwrap().uuid, mark.to_string());
                assert_eq!(report.guid, partition.guid.to_string());
            }
            assert_eq!(disk.partitions[0].filesystem, None);
        }
    }

    #[test]
    fn boot_code_goes_into_the_mbr_and_its_partition() {
        let joined = |architecture, sector_size, size| {
            let table = table(architecture, sector_size);
            let embed = |first_lba: u64, mbr: &[u8; MBR_SIZE]| {
                assert_eq!(first_lba, 2048);
                let mut mbr = *mbr;
                mbr[..3].copy_from_slice(b"jmp");
                (mbr, vec![7; size])
            };
            disk(&table, filled(&table), Some(&embed))
        };
        let bytes = bytes(&joined(Architecture::X86_64, SectorSize::S512, 4).unwrap());
        assert_eq!((&bytes[..3], &bytes[1 << 20..][..5]), (&b"jmp"[..], &[7, 7, 7, 7, 0][..]));
        assert!(Table::parse(&mut Cursor::new(&bytes)).is_ok());
        assert_eq!((bytes[450], &bytes[510..512]), (0xee, &[0x55, 0xaa][..]));

        let large = joined(Architecture::X86_64, SectorSize::S512, (1 << 20) + 1).unwrap_err();
        assert!(large.to_string().contains("does not fit the BIOS boot partition"), "{large}");
        let wide = joined(Architecture::X86_64, SectorSize::S4096, 4).unwrap_err();
        assert!(wide.is::<Unsupported>());
        let arm = joined(Architecture::Aarch64, SectorSize::S512, 4).unwrap_err();
        assert!(arm.is::<Unsupported>());
    }

    #[test]
    #[should_panic(expected = "the root file system fills its partition")]
    fn a_volume_of_another_size_is_our_mistake() {
        let table = table(Architecture::X86_64, SectorSize::S512);
        let mut filled = filled(&table);
        filled[3] = Some(volume(MIB, 9));
        let _ = disk(&table, filled, None);
    }
}
