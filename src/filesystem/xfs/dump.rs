//! An annotated dump of a file system's metadata, for people and for goldens.
//!
//! It reads what `emit` wrote through the same structures, so it witnesses that bytes changed, not that they are right.

use std::io;

use super::on_disk::{
    Agf, Agfl, Agi, BLOCK_BYTES, FORMAT_DEV, FORMAT_EXTENTS, FORMAT_LOCAL, INODE_BYTES, Inode,
    NULL32, ShortBlock, SuperBlock,
};
use crate::content::ContentStore;
use crate::filesystem::dump::{Dump, fields, text};
use crate::sparse::SparseMap;

/// Super blocks, headers and trees of all groups, and each inode in use with what is in it, as text.
/// Fails if reading the store does, or if the volume is not a whole XFS of ours.
pub fn dump(volume: &SparseMap, contents: &ContentStore) -> io::Result<String> {
    let mut dump = Xfs(Dump::of(volume, contents, "XFS"));
    dump.filesystem()?;
    Ok(dump.0.finish())
}

/// What is dumped of such a file system.
struct Xfs<'a>(Dump<'a>);

impl Xfs<'_> {
    fn filesystem(&mut self) -> io::Result<()> {
        let first = self.0.read::<SuperBlock>(0)?;
        let sector = u64::from(first.sb_sectsize.get());
        for group in 0..first.sb_agcount.get() {
            let start = u64::from(group) * u64::from(first.sb_agblocks.get()) * BLOCK_BYTES as u64;
            let block = self.0.read::<SuperBlock>(start)?;
            self.super_block(start, &block);
            self.group(start, sector)?;
        }
        Ok(())
    }

    fn super_block(&mut self, start: u64, block: &SuperBlock) {
        self.0.line(&format!("{start:08x} super block"));
        fields!(
            self.0,
            SuperBlock,
            block,
            [
                sb_blocksize,
                sb_dblocks,
                sb_logstart,
                sb_rootino,
                sb_rbmino,
                sb_rsumino,
                sb_rextsize,
                sb_agblocks,
                sb_agcount,
                sb_logblocks,
                sb_versionnum,
                sb_sectsize,
                sb_inodesize,
                sb_inopblock,
                sb_blocklog,
                sb_sectlog,
                sb_inodelog,
                sb_inopblog,
                sb_agblklog,
                sb_inprogress,
                sb_imax_pct,
                sb_icount,
                sb_ifree,
                sb_fdblocks,
                sb_inoalignmt,
                sb_logsectlog,
                sb_logsectsize,
                sb_logsunit,
                sb_features2,
                sb_bad_features2,
                sb_features_ro_compat,
                sb_features_incompat,
                sb_crc,
                sb_spino_align,
            ]
        );
        self.0.line(&format!("   +020  sb_uuid: {}", uuid::Uuid::from_bytes(block.sb_uuid)));
        self.0.line(&format!("   +06c  sb_fname: \"{}\"", text(&block.sb_fname)));
    }

    fn group(&mut self, start: u64, sector: u64) -> io::Result<()> {
        let agf = self.0.read::<Agf>(start + sector)?;
        self.0.line(&format!("{:08x} free space", start + sector));
        fields!(
            self.0,
            Agf,
            agf,
            [
                agf_seqno,
                agf_length,
                agf_flfirst,
                agf_fllast,
                agf_flcount,
                agf_freeblks,
                agf_longest,
                agf_btreeblks,
                agf_rmap_blocks,
                agf_refcount_blocks,
                agf_refcount_root,
                agf_refcount_level,
                agf_crc,
            ]
        );
        let agi = self.0.read::<Agi>(start + 2 * sector)?;
        self.0.line(&format!("{:08x} inodes", start + 2 * sector));
        fields!(
            self.0,
            Agi,
            agi,
            [
                agi_count,
                agi_root,
                agi_level,
                agi_freecount,
                agi_newino,
                agi_free_root,
                agi_free_level,
                agi_iblocks,
                agi_fblocks,
                agi_crc,
            ]
        );
        let list = self.0.bytes(start + 3 * sector, sector as usize)?;
        let blocks = list[size_of::<Agfl>()..].as_chunks::<4>().0;
        let blocks = blocks.iter().map(|block| u32::from_be_bytes(*block));
        let blocks: Vec<u32> = blocks.filter(|&block| block != NULL32).collect();
        self.0.line(&format!("{:08x} free list: {blocks:?}", start + 3 * sector));
        let trees = [agf.agf_roots[0], agf.agf_roots[1], agf.agf_roots[2]];
        for root in trees.into_iter().chain([agf.agf_refcount_root, agi.agi_free_root]) {
            if root.get() != 0 {
                self.tree(start, root.get())?;
            }
        }
        let chunks = self.tree(start, agi.agi_root.get())?;
        for chunk in chunks {
            let (first, free) = (&chunk[..4], &chunk[8..16]);
            let first = first.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
            let free = free.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
            for slot in (0..64).filter(|slot| free >> slot & 1 == 0) {
                self.inode(start + (first + slot) * INODE_BYTES as u64)?;
            }
        }
        Ok(())
    }

    /// A tree of a group: its records, all of them.
    fn tree(&mut self, start: u64, block: u32) -> io::Result<Vec<Vec<u8>>> {
        let offset = start + u64::from(block) * BLOCK_BYTES as u64;
        let bytes = self.0.bytes(offset, BLOCK_BYTES)?;
        let (head, body) = self.0.prefix::<ShortBlock>(&bytes)?;
        let (level, count) = (head.bb_level.get(), head.bb_numrecs.get());
        let magic = head.bb_magic.escape_ascii().to_string();
        self.0.line(&format!("{offset:08x} {magic}, level {level}, {count} records"));
        let (record, key) = match &head.bb_magic {
            b"AB3B" | b"AB3C" => (8, 8),
            b"IAB3" | b"FIB3" => (16, 4),
            b"RMB3" => (24, 40),
            b"R3FC" => (12, 4),
            _ => return Err(self.0.broken()),
        };
        if level == 0 {
            let records: Vec<_> =
                body.chunks_exact(record).take(count.into()).map(<[u8]>::to_vec).collect();
            for record in &records {
                self.0.line(&format!("   {}", words(record)));
            }
            return Ok(records);
        }
        let pointers = &body[body.len() / (key + 4) * key..];
        let mut records = Vec::new();
        for pointer in pointers.as_chunks::<4>().0.iter().take(count.into()) {
            records.extend(self.tree(start, u32::from_be_bytes(*pointer))?);
        }
        Ok(records)
    }

    fn inode(&mut self, offset: u64) -> io::Result<()> {
        let inode = self.0.read::<Inode>(offset)?;
        self.0.line(&format!("{offset:08x} inode {}", inode.di_ino));
        fields!(
            self.0,
            Inode,
            inode,
            [
                di_mode,
                di_format,
                di_uid,
                di_gid,
                di_nlink,
                di_big_nextents,
                di_atime,
                di_mtime,
                di_ctime,
                di_size,
                di_nblocks,
                di_nextents,
                di_anextents,
                di_forkoff,
                di_aformat,
                di_flags,
                di_gen,
                di_crc,
                di_changecount,
                di_flags2,
                di_crtime,
            ]
        );
        let forks = self.0.bytes(offset + size_of::<Inode>() as u64, INODE_BYTES - 176)?;
        let split = match inode.di_forkoff {
            0 => forks.len(),
            eights => usize::from(eights) * 8,
        };
        let (data, attributes) = forks.split_at_checked(split).ok_or_else(|| self.0.broken())?;
        self.fork("data", data, inode.di_format);
        if inode.di_forkoff != 0 {
            self.fork("attributes", attributes, inode.di_aformat);
        }
        Ok(())
    }

    fn fork(&mut self, name: &str, bytes: &[u8], format: u8) {
        match format {
            FORMAT_DEV => self.0.line(&format!("   device: {}", words(&bytes[..4]))),
            FORMAT_LOCAL => self.0.line(&format!("   {name}: {}", text(bytes))),
            FORMAT_EXTENTS => {
                for extent in bytes.as_chunks::<16>().0.iter().filter(|bytes| **bytes != [0; 16]) {
                    let packed = u128::from_be_bytes(*extent);
                    let (count, block) = (packed & ((1 << 21) - 1), packed >> 21 & ((1 << 52) - 1));
                    let start = packed >> 73;
                    self.0.line(&format!("   {name}: blocks {start}+{count} at {block}"));
                }
            }
            _ => self.0.line(&format!("   {name}: a tree: {}", words(bytes))),
        }
    }
}

/// Bytes in fours, hexadecimal.
fn words(bytes: &[u8]) -> String {
    let words = bytes.as_chunks::<4>().0.iter();
    let words: Vec<_> = words.map(|word| format!("{:08x}", u32::from_be_bytes(*word))).collect();
    words.join(" ")
}
