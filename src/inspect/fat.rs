//! FAT16 and FAT32, read: label, number, how full, and the tree (Microsoft FAT specification, 1.03).
//!
//! ```text
//! | boot sector … | FAT | FAT | root directory (FAT16) | clusters 2, 3, …: directories and files |
//! ```
//!
//! Written here because the crate that reads FAT, `fatfs`, trusts what it reads: a boot sector with absurd numbers makes it
//! panic, a chain that bites its tail makes it run for ever. It is this reader's witness instead.

use std::collections::HashSet;

use anyhow::Result;

use super::disk::Slice;
use super::qcow2::explain;
use crate::error::{corrupt, unsupported};

/// Bytes of a directory entry.
const ENTRY: usize = 32;

/// A directory has at most 65536 entries.
const LARGEST_DIRECTORY: u64 = 65536 * ENTRY as u64;

/// Files and directories of a file system that are listed, at most.
const MOST_ENTRIES: usize = 100_000;

/// Directories below directories, more than any path has room for.
const DEEPEST: usize = 64;

/// Bytes of the FAT that are read at once.
const WINDOW: u64 = 64 << 10;

const LONG_NAME: u8 = 0x0f;
const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;

/// Flags of NT in the reserved byte: the base, or the extension, of a short name is lower case.
const LOWER_BASE: u8 = 0x08;
const LOWER_EXTENSION: u8 = 0x10;

/// A FAT file system.
#[derive(Debug)]
pub(super) struct Fat {
    slice: Slice,
    is_32: bool,
    cluster_size: u64,
    fat_offset: u64,
    root: Root,
    data_offset: u64,
    /// Clusters of data; the first has number 2.
    clusters: u32,
    volume_id: u32,
    boot_label: [u8; 11],
    window: (u64, Vec<u8>),
    /// Clusters of directories that were read.
    directories: HashSet<u32>,
}

#[derive(Clone, Copy, Debug)]
enum Root {
    /// FAT16: bytes before the clusters.
    Region { offset: u64, size: u64 },
    /// FAT32: a chain.
    Chain(u32),
}

/// A file or directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Path from the root, with `/`.
    pub(super) path: String,
    pub(super) is_directory: bool,
    /// Bytes of a file.
    pub(super) size: u64,
    first: u32,
}

impl Fat {
    /// Whether a volume looks like FAT: boot signature, and a jump where code begins.
    pub(super) fn is_it(start: &[u8]) -> bool {
        start.get(510..512) == Some(&[0x55, 0xaa])
            && matches!(start[0], 0xeb | 0xe9)
            && (start.get(82..87) == Some(b"FAT32") || start.get(54..59) == Some(b"FAT16"))
    }

    pub(super) fn open(slice: Slice) -> Result<Self> {
        let mut boot = [0; 512];
        slice.read_at(0, &mut boot).map_err(|error| explain(error, "the boot sector of a FAT"))?;
        let bad = |reason: &str| corrupt("the boot sector of a FAT", reason);
        let u16_at = |at: usize| u16::from_le_bytes([boot[at], boot[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| boot[at + i]));
        let sector = u64::from(u16_at(11));
        let per_cluster = u64::from(boot[13]);
        if !matches!(sector, 512 | 1024 | 2048 | 4096) || !per_cluster.is_power_of_two() {
            return Err(bad("sectors or clusters of an impossible size"));
        }
        let is_32 = u16_at(22) == 0;
        let fat_sectors = if is_32 { u32_at(36).into() } else { u64::from(u16_at(22)) };
        let sectors = if u16_at(19) == 0 { u32_at(32).into() } else { u64::from(u16_at(19)) };
        let root_size = u64::from(u16_at(17)) * ENTRY as u64;
        let fat_offset = u64::from(u16_at(14)) * sector;
        // All of these stay far below 2^64: 8 bits times 32 bits times 12 bits.
        let root_offset = fat_offset + u64::from(boot[16]) * fat_sectors * sector;
        let data_offset = root_offset + root_size.next_multiple_of(sector);
        let (size, cluster_size) = (sectors * sector, per_cluster * sector);
        if data_offset >= size || size > slice.size || fat_offset == 0 || boot[16] == 0 {
            return Err(bad("its regions do not fit the volume"));
        }
        let clusters = (size - data_offset) / cluster_size;
        let room = fat_sectors * sector / if is_32 { 4 } else { 2 };
        if clusters + 2 > room || clusters == 0 {
            return Err(bad("the table has no room for all clusters"));
        }
        if !is_32 && clusters < 4085 {
            return Err(unsupported("FAT12 is not read: no ESP has it", None));
        }
        let clusters = u32::try_from(clusters)
            .ok()
            .filter(|clusters| *clusters < 0x0fff_fff5)
            .ok_or_else(|| bad("more clusters than there are numbers"))?;
        let extended = if is_32 { 64 } else { 36 };
        Ok(Self {
            slice,
            is_32,
            cluster_size,
            fat_offset,
            root: if is_32 {
                Root::Chain(u32_at(44))
            } else {
                Root::Region { offset: root_offset, size: root_size }
            },
            data_offset,
            clusters,
            volume_id: u32_at(extended + 3),
            boot_label: std::array::from_fn(|i| boot[extended + 7 + i]),
            window: (u64::MAX, Vec::new()),
            directories: HashSet::new(),
        })
    }

    /// The number as `blkid` says it: `7B77-95E7`.
    pub(super) fn uuid(&self) -> String {
        format!("{:04X}-{:04X}", self.volume_id >> 16, self.volume_id & 0xffff)
    }

    /// Bytes of the clusters that are in use.
    pub(super) fn used(&mut self) -> Result<u64> {
        let mut used = 0;
        for cluster in 2..self.clusters + 2 {
            used += u64::from(self.entry(cluster)? != 0);
        }
        Ok(used * self.cluster_size)
    }

    /// Label, and everything below the root, parents first, by name.
    pub(super) fn tree(&mut self) -> Result<(String, Vec<Entry>)> {
        let root = match self.root {
            Root::Region { offset, size } => {
                let mut bytes = vec![0; usize::try_from(size)?];
                self.slice
                    .read_at(offset, &mut bytes)
                    .map_err(|error| explain(error, "the FAT"))?;
                bytes
            }
            Root::Chain(first) => self.chain(first, None)?,
        };
        let (label, entries) = entries(&root, "");
        let label = label.unwrap_or(self.boot_label);
        let label = String::from_utf8_lossy(&label).trim_end().to_owned();
        let label = if label == "NO NAME" { String::new() } else { label };
        self.directories = HashSet::new();
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        let mut budget = self.slice.size;
        self.walk(entries, 0, &mut seen, &mut budget, &mut found)?;
        Ok((label, found))
    }

    fn walk(
        &mut self,
        mut entries: Vec<Entry>,
        depth: usize,
        seen: &mut HashSet<u32>,
        budget: &mut u64,
        found: &mut Vec<Entry>,
    ) -> Result<()> {
        entries.sort_by(|one, two| one.path.cmp(&two.path));
        if found.len() + entries.len() > MOST_ENTRIES {
            let what = format!("a FAT with more than {MOST_ENTRIES} files is not read");
            return Err(unsupported(what, None));
        }
        for entry in entries {
            if !entry.is_directory {
                // So that reading all files is bounded, though their chains may share clusters.
                *budget = budget
                    .checked_sub(entry.size)
                    .ok_or_else(|| corrupt("the FAT", "its files are larger than the volume"))?;
                found.push(entry);
                continue;
            }
            if depth == DEEPEST || !seen.insert(entry.first) {
                return Err(corrupt(
                    format!("the FAT directory {}", entry.path),
                    "it contains itself",
                ));
            }
            let bytes = self.chain(entry.first, None)?;
            let (_, below) = self::entries(&bytes, &entry.path);
            found.push(entry);
            self.walk(below, depth + 1, seen, budget, found)?;
        }
        Ok(())
    }

    /// The bytes of a file.
    pub(super) fn read(&mut self, entry: &Entry) -> Result<Vec<u8>> {
        if entry.size == 0 {
            return Ok(Vec::new());
        }
        self.chain(entry.first, Some(entry.size))
    }

    /// The bytes of a chain: `size` of them, or all, of a directory.
    fn chain(&mut self, first: u32, size: Option<u64>) -> Result<Vec<u8>> {
        let most = size.unwrap_or(LARGEST_DIRECTORY);
        let mut bytes = Vec::new();
        let mut next = Some(first);
        while let Some(cluster) = next {
            if cluster < 2 || cluster >= self.clusters + 2 {
                return Err(corrupt("the FAT", format!("a chain leads to cluster {cluster}")));
            }
            let have = bytes.len() as u64;
            if have >= most {
                break;
            }
            let count =
                if size.is_some() { self.cluster_size.min(most - have) } else { self.cluster_size };
            let offset = self.data_offset + u64::from(cluster - 2) * self.cluster_size;
            bytes.resize(usize::try_from(have + count)?, 0);
            self.slice
                .read_at(offset, &mut bytes[have as usize..])
                .map_err(|error| explain(error, "the FAT"))?;
            // A cluster belongs to one chain. Directories that share theirs would be read again and again.
            if size.is_none() && !self.directories.insert(cluster) {
                return Err(corrupt("the FAT", format!("directories share cluster {cluster}")));
            }
            next = self.next(cluster)?;
        }
        match size {
            Some(size) if bytes.len() as u64 != size => {
                Err(corrupt("the FAT", "a file's chain is shorter than the file"))
            }
            _ => Ok(bytes),
        }
    }

    /// What is at a byte of the volume: the structure, and the file or directory that it belongs to.
    pub(super) fn owner(&mut self, at: u64) -> Result<(String, Option<String>)> {
        if at < self.fat_offset {
            return Ok((format!("reserved sectors, byte {at}: boot sector, FSInfo"), None));
        }
        if at < self.data_offset {
            let root = matches!(self.root, Root::Region { offset, .. } if at >= offset);
            let what = if root { "the root directory" } else { "the file allocation table" };
            return Ok((what.to_owned(), None));
        }
        let cluster = (at - self.data_offset) / self.cluster_size + 2;
        let (_, entries) = self.tree()?;
        let mut chains: Vec<(u32, Option<Entry>)> =
            entries.into_iter().map(|entry| (entry.first, Some(entry))).collect();
        if let Root::Chain(first) = self.root {
            chains.push((first, None));
        }
        for (first, entry) in chains {
            let (mut next, mut index) = (Some(first), 0);
            while let Some(number) = next.filter(|number| (2..self.clusters + 2).contains(number)) {
                if u64::from(number) == cluster {
                    let within =
                        index * self.cluster_size + (at - self.data_offset) % self.cluster_size;
                    return Ok(match entry {
                        None => ("the root directory".to_owned(), None),
                        Some(entry) if entry.is_directory => {
                            ("a directory".to_owned(), Some(format!("/{}", entry.path)))
                        }
                        Some(entry) => {
                            (format!("byte {within} of a file"), Some(format!("/{}", entry.path)))
                        }
                    });
                }
                index += 1;
                if index > u64::from(self.clusters) {
                    break;
                }
                next = self.next(number)?;
            }
        }
        Ok((format!("cluster {cluster}, which is free"), None))
    }

    /// The cluster that follows; `None`: it was the last.
    fn next(&mut self, cluster: u32) -> Result<Option<u32>> {
        let entry = self.entry(cluster)?;
        let end = if self.is_32 { 0x0fff_fff8 } else { 0xfff8 };
        Ok((entry < end).then_some(entry))
    }

    /// A cluster's entry in the first table.
    fn entry(&mut self, cluster: u32) -> Result<u32> {
        let width = if self.is_32 { 4 } else { 2 };
        let at = u64::from(cluster) * width;
        let start = at / WINDOW * WINDOW;
        if self.window.0 != start {
            let left = (u64::from(self.clusters) + 2) * width - start;
            let mut bytes = vec![0; usize::try_from(left.min(WINDOW))?];
            self.slice
                .read_at(self.fat_offset + start, &mut bytes)
                .map_err(|error| explain(error, "the FAT"))?;
            self.window = (start, bytes);
        }
        let within = usize::try_from(at - start)?;
        let bytes = self.window.1.get(within..).unwrap_or_default();
        let entry = match (self.is_32, bytes) {
            (true, [a, b, c, d, ..]) => u32::from_le_bytes([*a, *b, *c, *d]) & 0x0fff_ffff,
            (false, [a, b, ..]) => u16::from_le_bytes([*a, *b]).into(),
            _ => return Err(corrupt("the FAT", "a chain leaves the table")),
        };
        Ok(entry)
    }
}

/// The label, if one is there, and the entries of a directory; deleted ones and `.` and `..` are left out.
fn entries(bytes: &[u8], parent: &str) -> (Option<[u8; 11]>, Vec<Entry>) {
    let mut found = Vec::new();
    let mut label = None;
    let mut long = LongName::default();
    for entry in bytes.as_chunks::<ENTRY>().0 {
        let attributes = entry[11];
        match entry[0] {
            0 => break,
            0xe5 => long = LongName::default(),
            _ if attributes & LONG_NAME == LONG_NAME => long.add(entry),
            _ if attributes & VOLUME_LABEL != 0 => {
                label = entry.first_chunk::<11>().copied();
                long = LongName::default();
            }
            b'.' => long = LongName::default(),
            _ => {
                let name =
                    std::mem::take(&mut long).finish(entry).unwrap_or_else(|| short_name(entry));
                let path = if parent.is_empty() { name } else { format!("{parent}/{name}") };
                let half = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
                let size = u32::from_le_bytes([entry[28], entry[29], entry[30], entry[31]]);
                let is_directory = attributes & DIRECTORY != 0;
                let size = if is_directory { 0 } else { size.into() };
                found.push(Entry { path, is_directory, size, first: half(20) << 16 | half(26) });
            }
        }
    }
    (label, found)
}

/// A long name as it is put together: its parts come last first, before the short one.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    checksum: u8,
    /// Number of the part that came last; the next is one less.
    order: u8,
}

impl LongName {
    fn add(&mut self, entry: &[u8; ENTRY]) {
        let order = entry[0] & 0x3f;
        if entry[0] & 0x40 != 0 {
            *self = Self { units: Vec::new(), checksum: entry[13], order };
        } else if order + 1 == self.order && entry[13] == self.checksum {
            self.order = order;
        } else {
            *self = Self::default();
            return;
        }
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain([28, 30]);
        let units = places.map(|at| u16::from_le_bytes([entry[at], entry[at + 1]]));
        let mut part: Vec<u16> = units.take_while(|&unit| unit != 0).collect();
        part.append(&mut self.units);
        self.units = part;
    }

    /// The name, if it is whole and belongs to this short one.
    fn finish(self, entry: &[u8; ENTRY]) -> Option<String> {
        let sum =
            entry[..11].iter().fold(0_u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte));
        let whole = self.order == 1 && sum == self.checksum && !self.units.is_empty();
        whole.then(|| String::from_utf16_lossy(&self.units))
    }
}

/// `BOOTX64.EFI` of `BOOTX64 EFI`; bytes that are no ASCII, whose meaning depends on a code page, show as `\u{fffd}`.
fn short_name(entry: &[u8; ENTRY]) -> String {
    let part = |bytes: &[u8], lower: u8| {
        let text: String = bytes
            .iter()
            .map(
                |&byte| {
                    if byte.is_ascii_graphic() || byte == b' ' { byte.into() } else { '\u{fffd}' }
                },
            )
            .collect();
        let text = text.trim_end().to_owned();
        if entry[12] & lower != 0 { text.to_lowercase() } else { text }
    };
    let (base, extension) = (part(&entry[..8], LOWER_BASE), part(&entry[8..11], LOWER_EXTENSION));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}
