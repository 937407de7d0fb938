//! Where two disks differ first: byte, partition, structure of the file system, file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;

use super::disk::{Disk, Slice};
use super::ext4_tables::Tables;
use super::fat::Fat;
use super::{START, other_kind, table};

/// Bytes that are compared at once.
const WINDOW: usize = 1 << 20;

/// The first difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The byte of the disk; `None`: the disks are the same, and the files that they are in differ.
    pub disk_offset: Option<u64>,
    /// The byte of the file; `None`: one disk is only compared as a disk.
    pub file_offset: Option<u64>,
    /// Bytes of both if they are not equally long.
    pub sizes: Option<(u64, u64)>,
    /// The partition, by number and type.
    pub partition: Option<String>,
    /// The structure of the partition table or file system.
    pub structure: Option<String>,
    /// The file that the byte belongs to.
    pub path: Option<String>,
}

impl Difference {
    /// Where it is, for people.
    pub fn place(&self) -> String {
        let sizes = self
            .sizes
            .map_or(String::new(), |(one, other)| format!(" (they have {one} and {other} bytes)"));
        match (self.disk_offset, self.file_offset) {
            (Some(at), _) => format!("byte {at} of the disk{sizes}"),
            (None, Some(at)) => {
                format!("byte {at} of the file; the disk inside is the same{sizes}")
            }
            (None, None) => format!("the end{sizes}"),
        }
    }
}

/// Where `disk` differs from `sound`, whose structures explain it. Formats that are not read are compared as files.
pub fn difference(disk: &Path, sound: &Path) -> Result<Difference> {
    let (one, other) = match (Disk::open(disk), Disk::open(sound)) {
        (Ok(one), Ok(other)) => (one, Arc::new(other)),
        _ => return files(disk, sound),
    };
    let sizes = (one.size != other.size).then_some((one.size, other.size));
    let at =
        first(one.size.min(other.size), &|at, buffer| one.read_at(at, buffer), &|at, buffer| {
            other.read_at(at, buffer)
        })
        .context("comparing the disks")?;
    let Some(at) = at else {
        if sizes.is_some() {
            return Ok(Difference {
                sizes,
                disk_offset: Some(one.size.min(other.size)),
                ..Difference::default()
            });
        }
        return files(disk, sound);
    };
    let mut difference = Difference { disk_offset: Some(at), sizes, ..Difference::default() };
    explain(&other, at, &mut difference)?;
    Ok(difference)
}

fn files(one: &Path, other: &Path) -> Result<Difference> {
    let open =
        |path: &Path| File::open(path).with_context(|| format!("opening {}", path.display()));
    let (a, b) = (open(one)?, open(other)?);
    let (a_size, b_size) = (a.metadata()?.len(), b.metadata()?.len());
    let at = first(a_size.min(b_size), &|at, buffer| a.read_exact_at(buffer, at), &|at, buffer| {
        b.read_exact_at(buffer, at)
    })
    .context("comparing the files")?;
    let sizes = (a_size != b_size).then_some((a_size, b_size));
    Ok(Difference {
        file_offset: at.or(sizes.map(|_| a_size.min(b_size))),
        sizes,
        ..Difference::default()
    })
}

type Read<'a> = &'a dyn Fn(u64, &mut [u8]) -> std::io::Result<()>;

/// The first byte that is not the same.
fn first(size: u64, one: Read<'_>, other: Read<'_>) -> std::io::Result<Option<u64>> {
    let (mut a, mut b) = (vec![0; WINDOW], vec![0; WINDOW]);
    let mut at = 0;
    while at < size {
        let count = (size - at).min(WINDOW as u64) as usize;
        one(at, &mut a[..count])?;
        other(at, &mut b[..count])?;
        if a[..count] != b[..count] {
            let index = a.iter().zip(&b).position(|(a, b)| a != b).unwrap_or(0);
            return Ok(Some(at + index as u64));
        }
        at += count as u64;
    }
    Ok(None)
}

/// Says what is at a byte of a sound disk.
fn explain(disk: &Arc<Disk>, at: u64, difference: &mut Difference) -> Result<()> {
    let table = table(disk)?;
    let unit = table.sector_size;
    let inside = table.partitions.iter().find(|one| {
        let start = one.start(unit);
        (start..start + one.size(unit)).contains(&at)
    });
    let Some(partition) = inside else {
        let sector = at / unit.bytes();
        let first = table.partitions.iter().map(|one| one.start(unit)).min().unwrap_or(0);
        difference.structure = Some(match sector {
            0 => "the master boot record".to_owned(),
            1 => "the header of the primary GPT".to_owned(),
            _ if at < first => {
                format!("sector {sector}: entries of the primary GPT, or the gap behind them")
            }
            _ if sector + 1 == table.sectors => "the header of the backup GPT".to_owned(),
            _ => format!("sector {sector}: entries of the backup GPT, or a gap between partitions"),
        });
        return Ok(());
    };
    let role = partition.role.map_or("", |role| role.name());
    difference.partition =
        Some(format!("{} {role} {}", partition.number, partition.name).trim_end().to_owned());
    let slice = Slice::new(disk, partition.start(unit), partition.size(unit));
    let within = at - partition.start(unit);
    let mut head = vec![0; usize::try_from(slice.size.min(START))?];
    slice.read_at(0, &mut head)?;
    let (structure, path) = if Fat::is_it(&head) {
        Fat::open(slice)?.owner(within)?
    } else if head.get(1080..1082) == Some(&[0x53, 0xef]) {
        Tables::open(slice, "the ext4")?.owner(within)?
    } else {
        let kind = if head.starts_with(b"XFSB") {
            "xfs"
        } else {
            other_kind(&head).map_or("unknown", |facts| facts.kind)
        };
        (format!("byte {within} of the partition ({kind})"), None)
    };
    difference.structure = Some(structure);
    difference.path = path;
    Ok(())
}
