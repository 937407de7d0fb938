//! Whether an ISO is whole: volume descriptors (ECMA-119), boot catalogue (El Torito 1.0), partition tables, implanted MD5.
//!
//! ```text
//! bytes 0 … 32767   MBR, GPT: for those who read it as a disk
//! sector 16         primary volume descriptor │ boot record: where the catalogue is │ … │ terminator
//! catalogue         validation entry │ initial entry │ section header, entries │ …      32 bytes each
//! ```

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use md5::{Digest, Md5};
use partitioning::{Role, Scheme, SectorSize, Table};

use super::disk::{Disk, Slice};
use super::fat::Fat;

const SECTOR: u64 = 2048;
const DESCRIPTORS: u64 = 16;

/// Descriptors before the terminator; real media have three or four.
const MOST_DESCRIPTORS: u64 = 64;

/// Entries of the catalogue that are read: one sector of them.
const ENTRY: usize = 32;

/// Where applications may keep something in the primary descriptor (ECMA-119, section 8.4.32): offset and bytes.
const APPLICATION_USE: (usize, usize) = (883, 512);

/// El Torito's platforms.
const BIOS: u8 = 0;
const UEFI: u8 = 0xef;

/// What is right and wrong with an ISO.
#[derive(Clone, Debug, Default)]
pub struct IsoHealth {
    /// What is wrong with the volume.
    pub volume: Vec<String>,
    /// What is wrong with the boot catalogue.
    pub boot_catalog: Vec<String>,
    /// What is wrong with the partition tables.
    pub hybrid: Vec<String>,
    /// The implanted MD5.
    pub md5: Implanted,
}

/// An implanted MD5.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Implanted {
    /// There is none.
    #[default]
    Absent,
    /// The checksum is that of the medium.
    Right,
    /// The checksum is another one.
    Wrong {
        /// What is implanted.
        says: String,
        /// What the medium has.
        is: String,
    },
}

/// Whether a file is an ISO: it has a volume descriptor where ISOs have their first.
pub fn is_iso(path: &Path) -> bool {
    let Ok(disk) = Disk::open(path) else { return false };
    let mut magic = [0; 5];
    disk.read_at(DESCRIPTORS * SECTOR + 1, &mut magic).is_ok() && magic == *b"CD001"
}

/// Looks at an ISO. Fails only if it cannot be read.
pub fn examine_iso(path: &Path) -> Result<IsoHealth> {
    let disk = Arc::new(Disk::open(path)?);
    let whole = Slice::new(&disk, 0, disk.size);
    let reading = || format!("reading {}", path.display());
    let mut health = IsoHealth::default();
    let (mut primary, mut catalogue, mut ended) = (None, None, false);
    for number in 0..MOST_DESCRIPTORS {
        let Some(bytes) = sector(&whole, DESCRIPTORS + number) else { break };
        if bytes[1..6] != *b"CD001" {
            break;
        }
        match bytes[0] {
            0 if bytes[7..].starts_with(b"EL TORITO SPECIFICATION") => {
                catalogue = Some(le32(&bytes, 71));
            }
            1 if primary.is_none() => primary = Some(bytes),
            255 => {
                ended = true;
                break;
            }
            _ => {}
        }
    }
    let size = match &primary {
        None => {
            health.volume.push("there is no primary volume descriptor".to_owned());
            0
        }
        Some(primary) => volume(primary, disk.size, &mut health.volume),
    };
    if !ended {
        health.volume.push("the volume descriptors have no terminator".to_owned());
    }
    let uefi = match catalogue {
        None => {
            health.boot_catalog.push("there is no El Torito boot record".to_owned());
            None
        }
        Some(at) => boot_catalogue(&whole, at, &mut health.boot_catalog),
    };
    hybrid(&whole, uefi, &mut health.hybrid);
    if let Some(primary) = primary.filter(|_| health.volume.is_empty()) {
        health.md5 = implanted(&whole, &primary, size).with_context(reading)?;
    }
    Ok(health)
}

fn sector(whole: &Slice, number: u64) -> Option<[u8; SECTOR as usize]> {
    let mut bytes = [0; SECTOR as usize];
    whole.read_at(number.checked_mul(SECTOR)?, &mut bytes).ok()?;
    Some(bytes)
}

fn le32(bytes: &[u8], at: usize) -> u64 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]).into()
}

fn be32(bytes: &[u8], at: usize) -> u64 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]).into()
}

/// Checks a primary volume descriptor; bytes of the volume.
fn volume(primary: &[u8], file: u64, problems: &mut Vec<String>) -> u64 {
    let sectors = le32(primary, 80);
    if sectors != be32(primary, 84) {
        problems.push("the volume's size is not the same in both byte orders".to_owned());
    }
    if primary[128..132] != [0x00, 0x08, 0x08, 0x00] {
        problems.push("the volume's blocks have not 2048 bytes".to_owned());
    }
    let size = sectors * SECTOR;
    if size > file {
        problems
            .push(format!("the volume has {size} bytes, and the file {file}: it was cut short"));
    }
    // The root's directory record: where it is and how long.
    let (root, length) = (le32(primary, 158), le32(primary, 166));
    if root == 0 || (root * SECTOR).saturating_add(length) > size {
        problems.push("the root directory lies outside of the volume".to_owned());
    }
    size
}

/// Checks a boot catalogue; the byte at which the image for UEFI begins.
fn boot_catalogue(whole: &Slice, at: u64, problems: &mut Vec<String>) -> Option<u64> {
    let Some(bytes) = sector(whole, at) else {
        problems.push(format!("the boot catalogue in sector {at} lies outside of the file"));
        return None;
    };
    let words = bytes[..ENTRY].as_chunks::<2>().0.iter().map(|word| u16::from_le_bytes(*word));
    let sum = words.fold(0_u16, u16::wrapping_add);
    if bytes[0] != 1 || bytes[30..32] != [0x55, 0xaa] || sum != 0 {
        problems.push("the boot catalogue's validation entry is damaged".to_owned());
        return None;
    }
    let mut platform = bytes[1];
    let mut found = None;
    for entry in bytes[ENTRY..].as_chunks::<ENTRY>().0 {
        match entry[0] {
            0x90 | 0x91 => platform = entry[1],
            0x88 => {
                let image = le32(entry, 8) * SECTOR;
                let name = if platform == UEFI { "UEFI" } else { "BIOS" };
                let mut start = [0; 512];
                if !matches!(platform, BIOS | UEFI) {
                    continue;
                }
                if image == 0 || whole.read_at(image, &mut start).is_err() {
                    problems.push(format!("the boot image for {name} lies outside of the file"));
                } else if platform == UEFI {
                    if !Fat::is_it(&start) && start[510..] != [0x55, 0xaa] {
                        problems
                            .push("the boot image for UEFI is not a FAT file system".to_owned());
                    }
                    found = found.or(Some(image));
                }
            }
            _ => {}
        }
    }
    if found.is_none() && problems.is_empty() {
        problems.push("the boot catalogue has no entry for UEFI".to_owned());
    }
    found
}

/// Checks what is read of a stick. `uefi`: where the boot catalogue has the image for UEFI.
fn hybrid(whole: &Slice, uefi: Option<u64>, problems: &mut Vec<String>) {
    let table = match Table::parse(&mut whole.clone()) {
        Ok(table) => table,
        Err(error) => {
            problems.push(format!("it is not a disk: {error}"));
            return;
        }
    };
    if table.scheme == Scheme::Gpt {
        match Table::verify(&mut whole.clone(), table.sector_size) {
            Ok(found) => problems.extend(found),
            Err(error) => problems.push(error.to_string()),
        }
        if table.sector_size != SectorSize::S512 {
            problems.push("its GPT is for sectors of 4096 bytes, and sticks have 512".to_owned());
        }
    }
    let is_esp =
        |one: &&partitioning::Partition| one.role == Some(Role::Esp) || one.type_byte == Some(0xef);
    let esps: Vec<_> = table.partitions.iter().filter(is_esp).collect();
    let starts: Vec<u64> = esps.iter().map(|one| one.start(table.sector_size)).collect();
    if starts.is_empty() {
        problems.push("no partition is an EFI system partition".to_owned());
    }
    for start in &starts {
        let mut head = [0; 512];
        if whole.read_at(*start, &mut head).is_err() || !Fat::is_it(&head) {
            problems
                .push(format!("the EFI system partition at byte {start} is not a FAT file system"));
        }
    }
    if let Some(uefi) = uefi.filter(|uefi| !starts.is_empty() && !starts.contains(uefi)) {
        problems.push(format!(
            "a CD starts from byte {uefi}, and a stick from byte {}: they are not the same",
            starts[0]
        ));
    }
}

/// The MD5 that `implantisomd5` and installers agree on: of the volume without its last sectors, the text itself read as blanks.
fn implanted(whole: &Slice, primary: &[u8], size: u64) -> Result<Implanted> {
    let (start, length) = APPLICATION_USE;
    let text = String::from_utf8_lossy(&primary[start..start + length]);
    let value = |key: &str| {
        let rest = &text[text.find(key)? + key.len()..];
        Some(rest.split(';').next()?.trim().to_owned())
    };
    let Some(says) = value("ISO MD5SUM =") else { return Ok(Implanted::Absent) };
    let skipped = value("SKIPSECTORS =").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let total = size.saturating_sub(skipped.saturating_mul(SECTOR));
    let from = DESCRIPTORS * SECTOR + start as u64;
    let blanks = from..from + length as u64;
    let mut sum = Md5::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < total {
        let count = (total - at).min(buffer.len() as u64) as usize;
        whole.read_at(at, &mut buffer[..count])?;
        let (first, last) = (blanks.start.max(at), blanks.end.min(at + count as u64));
        if first < last {
            buffer[(first - at) as usize..(last - at) as usize].fill(b' ');
        }
        sum.update(&buffer[..count]);
        at += count as u64;
    }
    let is: String = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(if is.eq_ignore_ascii_case(&says) {
        Implanted::Right
    } else {
        Implanted::Wrong { says, is }
    })
}
