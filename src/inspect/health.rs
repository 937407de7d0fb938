//! Whether a disk is whole: tables that agree, boot entries that lead somewhere, file systems that are clean, labels.
//!
//! Where [`inspect`](super::inspect) stops at the first thing that is damaged, this goes on and says all that is.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use partitioning::{Role, Scheme, Table};

use super::disk::{Disk, Slice};
use super::ext4_tables::Tables;
use super::system::BootEntry;
use super::volume::Volume;
use super::{Facts, Looking, START, looking};
use crate::architecture::Architecture;
use crate::error::{Corrupt, Unsupported};

/// Files without a label that are remembered by their paths.
const MOST_UNLABELLED: usize = 10_000;

/// Bytes of an XFS log that are searched; the largest logs have 2 GiB, those of images 64 MiB.
const LARGEST_LOG: u64 = 256 << 20;

/// What is right and wrong with a disk.
#[derive(Clone, Debug)]
pub struct DiskHealth {
    /// What is on it.
    pub facts: Facts,
    /// What is wrong with the GPT or its backup.
    pub table: Vec<String>,
    /// What is wrong with the ESP.
    pub esp: Vec<String>,
    /// The file systems that boot entries lead to.
    pub rooms: Vec<Room>,
    /// Boot entries by their paths, and what is wrong with them.
    pub entries: Vec<(String, String)>,
    /// Unified kernel images on the ESP.
    pub unified: usize,
    /// Partitions by number, and why their file systems are not clean.
    pub unclean: Vec<(u32, String)>,
    /// Labels of SELinux.
    pub labels: Labels,
}

/// A file system with kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// `the ESP`, `/boot` or `the root`.
    pub place: String,
    /// Bytes that are free.
    pub free: u64,
    /// Bytes of the largest kernel with its initramfs.
    pub kernel_size: u64,
    /// How many there are.
    pub kernels: u64,
}

/// Labels of the root's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// The system enables no policy.
    Disabled,
    /// They cannot be read, and why.
    Unread(String),
    /// They were read.
    Read {
        /// How many files there are.
        files: u64,
        /// Paths of those without a label.
        missing: Vec<String>,
    },
}

/// Looks at everything. Fails only if there is no disk to look at: no file, an unknown format, no partition table.
pub fn examine(path: &Path) -> Result<DiskHealth> {
    let disk = Arc::new(Disk::open(path)?);
    let context = || format!("looking at {}", path.display());
    let table = super::table(&disk).with_context(context)?;
    let mut looking = looking(&disk, &table);
    let mut unclean = Vec::new();
    for partition in &table.partitions {
        if let Err(error) = looking.partition(&disk, &table, partition) {
            if !error.is::<Corrupt>() && !error.is::<Unsupported>() {
                return Err(error).with_context(context);
            }
            unclean.push((partition.number, format!("{error:#}")));
        }
    }
    let broken: BTreeSet<u32> = unclean.iter().map(|(number, _)| *number).collect();
    if let Err(error) = looking.system() {
        let number = table.find(Role::Root).map_or(0, |root| root.number);
        unclean.push((number, format!("{error:#}")));
    }
    for partition in table.partitions.iter().filter(|one| !broken.contains(&one.number)) {
        let size = partition.size(table.sector_size);
        let slice = Slice::new(&disk, partition.start(table.sector_size), size);
        if let Some(why) = dirty(&slice)? {
            unclean.push((partition.number, why));
        }
    }
    let labels = labels(&disk, &table, &looking);
    let (boot, root) = (looking.boot.take(), looking.root.take());
    let facts = looking.done(&table);
    let volumes = Volumes { boot, root, facts: &facts };
    let (mut entries, mut rooms) = (Vec::new(), Vec::new());
    for entry in &facts.boot_entries {
        let problems = volumes.problems(entry, &mut rooms);
        entries.extend(problems.into_iter().map(|problem| (entry.path.clone(), problem)));
    }
    let in_linux = |path: &str| path.to_ascii_lowercase().starts_with("efi/linux/");
    let unified = facts.programs.iter().filter(|program| in_linux(&program.path)).count();
    Ok(DiskHealth {
        table: partition_table(&disk, &table)?,
        esp: esp(&facts, &table, &broken),
        rooms,
        entries,
        unified,
        unclean,
        labels,
        facts,
    })
}

/// What is wrong with a GPT and its backup.
fn partition_table(disk: &Arc<Disk>, table: &Table) -> Result<Vec<String>> {
    if table.scheme != Scheme::Gpt {
        return Ok(Vec::new());
    }
    let mut whole = Slice::new(disk, 0, disk.size);
    Ok(Table::verify(&mut whole, table.sector_size)?)
}

fn esp(facts: &Facts, table: &Table, broken: &BTreeSet<u32>) -> Vec<String> {
    let esps: Vec<_> = table.partitions.iter().filter(|one| one.role == Some(Role::Esp)).collect();
    let mut problems = Vec::new();
    if esps.is_empty() && table.find(Role::BiosBoot).is_none() {
        problems.push(
            "the disk has neither an EFI system partition nor a BIOS boot partition".to_owned(),
        );
    }
    for one in &esps {
        if broken.contains(&one.number) {
            problems.push(format!(
                "the EFI system partition, partition {}, cannot be read",
                one.number
            ));
        }
    }
    let default = match facts.architecture {
        Some(Architecture::Aarch64) => "efi/boot/bootaa64.efi",
        _ => "efi/boot/bootx64.efi",
    };
    let has = facts.esp.iter().any(|file| file.path.eq_ignore_ascii_case(default));
    if problems.is_empty() && !esps.is_empty() && !has {
        problems.push(format!("the EFI system partition has no {}", default.to_ascii_uppercase()));
    }
    problems
}

/// The file systems that boot entries lead to.
struct Volumes<'a> {
    boot: Option<Volume>,
    root: Option<Volume>,
    facts: &'a Facts,
}

impl Volumes<'_> {
    /// What is wrong with a boot entry. The room of what it leads to is noted.
    fn problems(&self, entry: &BootEntry, rooms: &mut Vec<Room>) -> Vec<String> {
        let mut problems = Vec::new();
        let on_esp = self.facts.esp.iter().any(|file| format!("/{}", file.path) == entry.path);
        let (mut size, mut place) = (0, String::new());
        let files = [("kernel", Some(&entry.linux)), ("initramfs", entry.initrd.as_ref())];
        for (what, path) in files {
            let Some(path) = path.filter(|path| !path.is_empty()) else {
                if what == "kernel" {
                    problems.push("it names no kernel".to_owned());
                }
                continue;
            };
            // Several may stand in one line.
            for path in path.split_whitespace() {
                match self.size(path, on_esp) {
                    Ok(Some((found, bytes))) => (place, size) = (found, size + bytes),
                    Ok(None) => problems.push(format!("its {what} {path} is not there")),
                    Err(error) => {
                        problems.push(format!("its {what} {path} cannot be read: {error:#}"))
                    }
                }
            }
        }
        problems.extend(self.deployment(entry));
        if problems.is_empty() && size > 0 {
            self.note(place, size, rooms);
        }
        problems
    }

    /// Where a file is, and its bytes.
    fn size(&self, path: &str, on_esp: bool) -> Result<Option<(String, u64)>> {
        if on_esp {
            let wanted = path.trim_start_matches('/');
            let file = self.facts.esp.iter().find(|file| file.path.eq_ignore_ascii_case(wanted));
            return Ok(file.map(|file| ("the ESP".to_owned(), file.size)));
        }
        let paths = match &self.boot {
            Some(boot) => vec![(boot, path.to_owned(), "/boot")],
            None => Vec::new(),
        };
        let roots = self.root.iter().flat_map(|root| {
            [(root, path.to_owned(), "the root"), (root, format!("/boot{path}"), "the root")]
        });
        for (volume, path, place) in paths.into_iter().chain(roots) {
            if let Some(size) = volume.size(&path)? {
                return Ok(Some((place.to_owned(), size)));
            }
        }
        Ok(None)
    }

    /// Whether the root and the deployment that an entry names are there.
    fn deployment(&self, entry: &BootEntry) -> Vec<String> {
        let mut problems = Vec::new();
        let value = |key: &str| {
            let words = entry.options.split_whitespace();
            words.rev().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        };
        if let Some(uuid) = value("root").and_then(|root| root.strip_prefix("UUID=")) {
            let filesystems =
                self.facts.partitions.iter().filter_map(|one| one.filesystem.as_ref());
            let mut uuids = filesystems.filter_map(|filesystem| filesystem.uuid.as_deref());
            if !uuids.any(|known| known.eq_ignore_ascii_case(uuid)) {
                problems.push(format!("its root=UUID={uuid} is not a file system of this disk"));
            }
        }
        let Some(root) = &self.root else {
            problems.push("there is no root file system that can be read".to_owned());
            return problems;
        };
        let wanted = value("ostree").map(str::to_owned).or_else(|| {
            let id = value("composefs").map(|id| id.trim_start_matches('?'))?;
            Some(format!("/state/deploy/{id}"))
        });
        match wanted {
            None => {
                problems.push("its arguments name no deployment (ostree= or composefs=)".to_owned())
            }
            Some(path) => match root.names(&path) {
                Ok(names) if names.is_empty() => {
                    problems.push(format!("its deployment {path} is not there"));
                }
                Ok(_) => {}
                Err(error) => {
                    problems.push(format!("its deployment {path} cannot be read: {error:#}"))
                }
            },
        }
        problems
    }

    fn note(&self, place: String, size: u64, rooms: &mut Vec<Room>) {
        if let Some(room) = rooms.iter_mut().find(|room| room.place == place) {
            room.kernels += 1;
            room.kernel_size = room.kernel_size.max(size);
            return;
        }
        let role = match place.as_str() {
            "the ESP" => Role::Esp,
            "/boot" => Role::Boot,
            _ => Role::Root,
        };
        let partition = self.facts.partitions.iter().find(|one| one.role == Some(role.name()));
        let free = partition.and_then(|one| {
            let used = one.filesystem.as_ref()?.used?;
            one.size.checked_sub(used)
        });
        if let Some(free) = free {
            rooms.push(Room { place, free, kernel_size: size, kernels: 1 });
        }
    }
}

/// Why a file system is not clean, if it is not.
fn dirty(slice: &Slice) -> Result<Option<String>> {
    let size = usize::try_from(slice.size.min(START))?;
    let mut head = vec![0; size];
    if slice.read_at(0, &mut head).is_err() {
        return Ok(Some("it cannot be read".to_owned()));
    }
    let u16_at = |at: usize| head.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
    let u32_at = |at: usize| {
        head.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    let at = |offset: usize, magic: &[u8]| {
        head.get(offset..).is_some_and(|rest| rest.starts_with(magic))
    };
    if at(1080, &[0x53, 0xef]) {
        // s_state: 1 clean, 2 errors; INCOMPAT_RECOVER: the journal has something; s_last_orphan.
        let (state, recover, orphan) =
            (u16_at(1024 + 0x3a), u32_at(1024 + 0x60) & 4, u32_at(1024 + 0xe8));
        return Ok(if state & 2 != 0 {
            Some("the ext4 has errors that fsck has to mend".to_owned())
        } else if state & 1 == 0 {
            Some("the ext4 was not unmounted".to_owned())
        } else if recover != 0 {
            Some("the journal of the ext4 has to be replayed".to_owned())
        } else if orphan != 0 {
            Some("the ext4 has deleted files that are still to be freed".to_owned())
        } else {
            None
        });
    }
    if at(0, b"XFSB") {
        return xfs_log(slice, &head);
    }
    if at(0x10040, b"_BHRfS_M") {
        // log_root of the super block.
        let log = head.get(0x10000 + 96..0x10000 + 104).is_some_and(|log| log != [0; 8]);
        return Ok(log.then(|| "the log tree of the btrfs has to be replayed".to_owned()));
    }
    if super::fat::Fat::is_it(&head) {
        // The state that Linux keeps in the boot sector: bit 0 means that it is mounted.
        let is_32 = at(82, b"FAT32");
        let state = head.get(if is_32 { 65 } else { 37 }).copied().unwrap_or(0);
        return Ok((state & 1 != 0).then(|| "the FAT was not unmounted".to_owned()));
    }
    Ok(None)
}

/// Whether the newest record of an XFS log is that of an unmount ("XFS Algorithms & Data Structures", "Journaling Log").
fn xfs_log(slice: &Slice, head: &[u8]) -> Result<Option<String>> {
    const RECORD: u32 = 0xfeed_babe;
    const SECTOR: usize = 512;
    const UNMOUNT: u8 = 0x20;
    let field = |at: usize, bytes: usize| {
        head.get(at..at + bytes)
            .unwrap_or_default()
            .iter()
            .fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte))
    };
    let (block, start, blocks) = (field(4, 4), field(48, 8), field(96, 4));
    let (groups_log, group_blocks) = (field(124, 1), field(84, 4));
    let (group, within) = (start >> groups_log.min(63), start & ((1 << groups_log.min(63)) - 1));
    let offset =
        group.checked_mul(group_blocks).and_then(|at| at.checked_add(within)?.checked_mul(block));
    let size = blocks.checked_mul(block).filter(|size| *size <= LARGEST_LOG);
    let (Some(offset), Some(size), false) = (offset, size, start == 0) else {
        return Ok(Some(
            "the log of the XFS is elsewhere, or too large to be looked at".to_owned(),
        ));
    };
    let mut newest: Option<(u64, bool)> = None;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        let count = (size - at).min(buffer.len() as u64) as usize;
        if slice.read_at(offset + at, &mut buffer[..count]).is_err() {
            return Ok(Some("the log of the XFS lies outside of the partition".to_owned()));
        }
        for (index, sector) in buffer[..count].chunks_exact(SECTOR).enumerate() {
            let be32 = |at: usize| {
                u32::from_be_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]])
            };
            if be32(0) != RECORD {
                continue;
            }
            let lsn = u64::from(be32(16)) << 32 | u64::from(be32(20));
            // Behind the header, the first operation: transaction, length, client, flags.
            let mut operation = [0; 12];
            let next = offset + at + ((index + 1) * SECTOR) as u64;
            let read = slice.read_at(next, &mut operation).is_ok();
            // The first word of a sector of a record is its cycle; what stood there is in the header.
            let unmount = read && be32(40) == 1 && operation[9] & UNMOUNT != 0;
            if newest.is_none_or(|(known, _)| lsn >= known) {
                newest = Some((lsn, unmount));
            }
        }
        at += count as u64;
    }
    Ok(match newest {
        Some((_, false)) => Some("the log of the XFS has to be replayed".to_owned()),
        _ => None,
    })
}

/// The labels of the root, if the system wants any.
fn labels(disk: &Arc<Disk>, table: &Table, looking: &Looking) -> Labels {
    let Some(root) = &looking.root else {
        return Labels::Unread("there is no root file system that can be read".to_owned());
    };
    let enabled = looking.facts.deployments.iter().any(|deployment| {
        let (stateroot, commit, serial) =
            (&deployment.stateroot, &deployment.commit, &deployment.serial);
        let path =
            format!("/ostree/deploy/{stateroot}/deploy/{commit}.{serial}/etc/selinux/config");
        let text = root.text(&path).ok().flatten().unwrap_or_default();
        text.lines().any(|line| matches!(line.trim(), "SELINUX=enforcing" | "SELINUX=permissive"))
    });
    if !enabled {
        return Labels::Disabled;
    }
    if root.kind() != "ext4" {
        return Labels::Unread(format!("labels are read on ext4, and the root is {}", root.kind()));
    }
    let uuid = root.uuid();
    let is_root = |one: &&super::PartitionFacts| {
        one.filesystem.as_ref().is_some_and(|filesystem| filesystem.uuid.as_deref() == Some(&uuid))
    };
    let Some(facts) = looking.facts.partitions.iter().find(is_root) else {
        return Labels::Unread("the root is on no partition".to_owned());
    };
    let Some(partition) = table.partitions.iter().find(|one| one.number == facts.number) else {
        return Labels::Unread("the root is on no partition".to_owned());
    };
    let slice =
        Slice::new(disk, partition.start(table.sector_size), partition.size(table.sector_size));
    match unlabelled(slice) {
        Ok((files, missing)) => Labels::Read { files, missing },
        Err(error) => Labels::Unread(format!("{error:#}")),
    }
}

fn unlabelled(slice: Slice) -> Result<(u64, Vec<String>)> {
    let tables = Tables::open(slice, "the root file system")?;
    let (mut files, mut missing) = (0, Vec::new());
    tables.walk(|path, _, inode| {
        files += 1;
        if !tables.is_labelled(inode)? && missing.len() < MOST_UNLABELLED {
            missing.push(path.to_owned());
        }
        Ok(())
    })?;
    Ok((files, missing))
}
