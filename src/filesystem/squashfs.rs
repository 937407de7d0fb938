//! squashfs 4.0 with zstd: the container of a disk on a medium, compressed and seekable.
//!
//! ```text
//! super block | data blocks of 128 KiB, compressed; holes are not there at all | inodes | root directory | id table
//! ```
//!
//! Only what a container needs: regular files in the root directory or in directories there, owned by root, without attributes,
//! fragments and an export table. Every block is on its own, so that it can be read at random, compressed by several threads, and thrown away again: the
//! memory that it takes does not grow with the disk. Numbers are little-endian; names are those of the kernel's `squashfs_fs.h`.

use std::io::{self, Write};
use std::thread;

use anyhow::{Context, Result};

use crate::content::{Content, ContentStore, ContentWriter};
use crate::error::unsupported;
use crate::progress::StageGuard;
use crate::sparse::SparseMap;

/// Bytes of a data block: the best of size and speed of random reads for disks.
const BLOCK: u64 = 1 << 17;
/// Bytes of an uncompressed metadata block.
const METADATA: usize = 8192;
/// Blocks that are in memory at the same time.
const BATCH: usize = 64;
/// Higher levels cost several times the time for a few percent.
const LEVEL: i32 = 3;

/// Bytes of the super block.
const SUPER: u64 = 96;
/// `SQUASHFS_MAGIC`.
const MAGIC: u32 = 0x7371_7368;
/// `compression`: zstd.
const ZSTD: u16 = 6;
/// `flags`: no fragments, no duplicates looked for, no attributes.
const FLAGS: u16 = 0x0010 | 0x0200;
/// In the size of a data block: it is stored as it is.
const STORED: u32 = 1 << 24;
/// In the header of a metadata block: it is stored as it is.
const METADATA_STORED: u16 = 1 << 15;
const NONE: u64 = u64::MAX;

const DIRECTORY: u16 = 1;
const LARGE_FILE: u16 = 9;
const FILE: u16 = 2;

/// A file that is in place, but for its inode.
struct Stored<'a> {
    /// Empty for the root.
    directory: &'a str,
    name: &'a str,
    size: u64,
    /// Offset of its first block.
    start: u64,
    /// One number a block: bytes and [`STORED`]; 0 is a hole.
    blocks: Vec<u32>,
}

impl Stored<'_> {
    /// Bytes that are in holes.
    fn sparse(&self) -> u64 {
        let len = |index: usize| (self.size - index as u64 * BLOCK).min(BLOCK);
        let holes = self.blocks.iter().enumerate().filter(|(_, size)| **size == 0);
        holes.map(|(index, _)| len(index)).sum()
    }
}

/// Writes a file system that holds these files, by paths of a name or of a directory and a name. Advances `stage` by every byte of them, zero or not.
pub fn format(
    files: &[(&str, &SparseMap)],
    contents: &ContentStore,
    stage: &StageGuard,
) -> Result<Content> {
    let mut files = files.to_vec();
    files.sort_by_key(|(name, _)| *name);
    // Compressed blocks are never larger than what they hold; the rest is metadata.
    let bound =
        files.iter().map(|(_, map)| map.size() + map.size() / BLOCK * 8).sum::<u64>() + (1 << 20);
    let mut out = Out { writer: contents.writer(bound), position: 0 };
    out.write(&[0; SUPER as usize])?;
    let mut stored = Vec::new();
    for (name, map) in files {
        stored.push(
            store(name, map, contents, &mut out, stage)
                .with_context(|| format!("compressing {name}"))?,
        );
    }
    let tables = Tables::of(&stored)?;
    let inode_table = out.position;
    out.write(&tables.inodes.finish())?;
    let directory_table = out.position;
    out.write(&tables.directory.finish())?;
    let id_block = out.position;
    let mut ids = Metadata::default();
    ids.append(&0_u32.to_le_bytes());
    out.write(&ids.finish())?;
    let id_table = out.position;
    out.write(&id_block.to_le_bytes())?;
    let used = out.position;
    // Block devices are read by 4096 bytes.
    out.write(&vec![0; (used.next_multiple_of(4096) - used) as usize])?;

    let mut head = Vec::new();
    for number in [MAGIC, tables.count, 0, BLOCK as u32, 0] {
        head.extend(number.to_le_bytes());
    }
    for number in [ZSTD, BLOCK.trailing_zeros() as u16, FLAGS, 1, 4, 0] {
        head.extend(number.to_le_bytes());
    }
    for number in [tables.root, used, id_table, NONE, inode_table, directory_table, NONE, NONE] {
        head.extend(number.to_le_bytes());
    }
    out.writer.finish_early(&head)
}

/// Where everything goes, and how much went.
struct Out<'a> {
    writer: ContentWriter<'a>,
    position: u64,
}

impl Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).context("writing to the spool")?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

/// Compresses a file, batch by batch: read and compressed by all threads, written in order.
fn store<'a>(
    path: &'a str,
    map: &SparseMap,
    contents: &ContentStore,
    out: &mut Out<'_>,
    stage: &StageGuard,
) -> Result<Stored<'a>> {
    let (directory, name) = path.split_once('/').unwrap_or(("", path));
    if name.is_empty() || name.contains('/') || name.len().max(directory.len()) > 256 {
        return Err(unsupported(format!("squashfs cannot have a file named {path:?}"), None));
    }
    let count = map.size().div_ceil(BLOCK);
    let start = out.position;
    let mut blocks = Vec::new();
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get());
    while (blocks.len() as u64) < count {
        let first = blocks.len() as u64;
        let last = (first + BATCH as u64).min(count);
        let share = (last - first).div_ceil(threads as u64).max(1);
        let batch = thread::scope(|scope| {
            let work =
                |from: u64| move || compress_run(map, contents, from..(from + share).min(last));
            let running: Vec<_> =
                (first..last).step_by(share as usize).map(|from| scope.spawn(work(from))).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            running.into_iter().map(join).collect::<io::Result<Vec<_>>>()
        });
        for (bytes, size) in batch.context("reading the spool")?.into_iter().flatten() {
            out.write(&bytes)?;
            blocks.push(size);
        }
        stage.advance((last * BLOCK).min(map.size()) - first * BLOCK);
    }
    Ok(Stored { directory, name, size: map.size(), start, blocks })
}

/// Some neighbouring blocks as they are stored, with their sizes.
fn compress_run(
    map: &SparseMap,
    contents: &ContentStore,
    run: std::ops::Range<u64>,
) -> io::Result<Vec<(Vec<u8>, u32)>> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    let mut buffer = vec![0; BLOCK as usize];
    run.map(|block| {
        let offset = block * BLOCK;
        let bytes = &mut buffer[..(map.size() - offset).min(BLOCK) as usize];
        map.read_at(contents, offset, bytes)?;
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok((Vec::new(), 0));
        }
        let compressed = compressor.compress(bytes)?;
        Ok(if compressed.len() < bytes.len() {
            (compressed.clone(), compressed.len() as u32)
        } else {
            (bytes.to_vec(), bytes.len() as u32 | STORED)
        })
    })
    .collect()
}

/// The inodes and the directories.
struct Tables {
    inodes: Metadata,
    directory: Metadata,
    /// How many inodes there are.
    count: u32,
    /// Where the root's inode is: offset of its block in the table, and offset in the block.
    root: u64,
}

/// A name in a directory, and where its inode is.
struct Entry<'a> {
    name: &'a str,
    kind: u16,
    number: u32,
    position: (u32, u16),
}

/// The root's inode number; files and directories follow.
const ROOT: u32 = 1;

impl Tables {
    /// `files`: sorted by path.
    fn of(files: &[Stored<'_>]) -> Result<Self> {
        let mut tables = Self {
            inodes: Metadata::default(),
            directory: Metadata::default(),
            count: ROOT,
            root: 0,
        };
        let mut in_root = Vec::new();
        for group in files.chunk_by(|a, b| !a.directory.is_empty() && a.directory == b.directory) {
            let entries: Vec<_> = group.iter().map(|file| tables.add_file(file)).collect();
            match group[0].directory {
                "" => in_root.extend(entries),
                name => {
                    tables.count += 1;
                    let number = tables.count;
                    let position = tables.add_directory(&entries, number, ROOT)?;
                    in_root.push(Entry { name, kind: DIRECTORY, number, position });
                }
            }
        }
        in_root.sort_by_key(|entry| entry.name);
        // Above the root there is what no inode has.
        let (block, offset) = tables.add_directory(&in_root, ROOT, tables.count + 1)?;
        tables.root = u64::from(block) << 16 | u64::from(offset);
        Ok(tables)
    }

    fn add_file<'a>(&mut self, file: &Stored<'a>) -> Entry<'a> {
        self.count += 1;
        let position = self.inodes.position();
        self.inodes.append(&file_inode(file, self.count));
        Entry { name: file.name, kind: FILE, number: self.count, position }
    }

    fn add_directory(
        &mut self,
        entries: &[Entry<'_>],
        number: u32,
        parent: u32,
    ) -> Result<(u32, u16)> {
        let (start, from) = self.directory.position();
        let before = self.directory.len();
        for Entry { name, kind, number, position: (block, offset) } in entries {
            // A header for each name: they may share one only while their inodes share a block.
            for number in [0, *block, *number] {
                self.directory.append(&number.to_le_bytes());
            }
            for number in [*offset, 0, *kind, name.len() as u16 - 1] {
                self.directory.append(&number.to_le_bytes());
            }
            self.directory.append(name.as_bytes());
        }
        // Three more than there are, for `.` and `..`, as the kernel counts.
        let size =
            u16::try_from(self.directory.len() - before + 3).context("measuring a directory")?;
        let position = self.inodes.position();
        let links = 2 + entries.iter().filter(|entry| entry.kind == DIRECTORY).count() as u32;
        let mut inode = inode_header(DIRECTORY, 0o755, number);
        for number in [start, links] {
            inode.extend(number.to_le_bytes());
        }
        for number in [size, from] {
            inode.extend(number.to_le_bytes());
        }
        inode.extend(parent.to_le_bytes());
        self.inodes.append(&inode);
        Ok(position)
    }
}

/// Type, mode, owner and group (the first of the table), time 0, number.
fn inode_header(kind: u16, mode: u16, number: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = [kind, mode, 0, 0].into_iter().flat_map(u16::to_le_bytes).collect();
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(number.to_le_bytes());
    bytes
}

/// `squashfs_lreg_inode`, the kind that can be large and have holes.
fn file_inode(file: &Stored<'_>, number: u32) -> Vec<u8> {
    let mut bytes = inode_header(LARGE_FILE, 0o444, number);
    for number in [file.start, file.size, file.sparse()] {
        bytes.extend(number.to_le_bytes());
    }
    // One link, no fragment, no attributes.
    for number in [1, u32::MAX, 0, u32::MAX] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(file.blocks.iter().flat_map(|size| size.to_le_bytes()));
    bytes
}

/// A table of metadata: blocks of 8 KiB, each compressed if that helps, with its size before it.
#[derive(Default)]
struct Metadata {
    done: Vec<u8>,
    block: Vec<u8>,
    length: usize,
}

impl Metadata {
    fn append(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len();
        while !bytes.is_empty() {
            let count = bytes.len().min(METADATA - self.block.len());
            self.block.extend(&bytes[..count]);
            bytes = &bytes[count..];
            if self.block.len() == METADATA {
                self.flush();
            }
        }
    }

    /// Bytes before compression.
    fn len(&self) -> usize {
        self.length
    }

    /// Where the next byte comes to lie: offset of its block, and offset in it.
    fn position(&self) -> (u32, u16) {
        (self.done.len() as u32, self.block.len() as u16)
    }

    fn flush(&mut self) {
        let block = std::mem::take(&mut self.block);
        // Compression of a slice in memory fails for want of memory only; what is stored is as good.
        let compressed = zstd::bulk::compress(&block, LEVEL).unwrap_or_default();
        let (bytes, flag) = if !compressed.is_empty() && compressed.len() < block.len() {
            (compressed, 0)
        } else {
            (block, METADATA_STORED)
        };
        self.done.extend((bytes.len() as u16 | flag).to_le_bytes());
        self.done.extend(bytes);
    }

    fn finish(mut self) -> Vec<u8> {
        if !self.block.is_empty() {
            self.flush();
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{Progress, Stage};

    fn pressed(files: &[(&str, &SparseMap)], store: &ContentStore) -> Vec<u8> {
        let stage = Progress::default().stage(Stage::LayOut, None);
        store.bytes(&format(files, store, &stage).unwrap()).unwrap()
    }

    fn store_in_tmp() -> ContentStore {
        ContentStore::create_in(&std::env::temp_dir()).unwrap()
    }

    #[test]
    fn holes_take_no_room_and_blocks_come_in_order() {
        let store = store_in_tmp();
        let mut map = SparseMap::new(1 << 30);
        map.put(5 * BLOCK, vec![7; 1000]);
        map.put(900 << 20, vec![8; 300_000]);
        let bytes = pressed(&[("disk.raw", &map)], &store);
        assert!(bytes.len() < 64 << 10, "{}", bytes.len());
        assert_eq!(bytes[..4], *b"hsqs");
        assert_eq!(bytes, pressed(&[("disk.raw", &map)], &store), "threads do not show");
    }

    #[test]
    fn sparse_counts_the_last_block_as_it_is() {
        let file =
            Stored { directory: "", name: "x", size: BLOCK + 10, start: 0, blocks: vec![5, 0] };
        assert_eq!(file.sparse(), 10);
    }
}
