//! fs-verity of a content: SHA-256 or SHA-512 over 4 KiB blocks, no salt.
//!
//! ```text
//! data blocks ─hash─► level 0: 128 (SHA-512: 64) hashes a block ─hash─► level 1 … ─► one root hash
//! digest = hash of the descriptor: version, algorithm, block size, file size, root hash; 256 bytes
//! ```
//!
//! Each level goes to the content store block by block: of a file of any size only one block a level is in memory.

use std::io::{self, Write};
use std::marker::PhantomData;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha512};

use crate::content::{Content, ContentStore, ContentWriter};
use crate::sha256::Sha256;
use crate::tree::Verity;

const BLOCK: usize = 4096;
/// Data is read in pieces of so many bytes.
const PIECE: u64 = 1 << 17;

/// Bytes of `struct fsverity_descriptor`.
pub const DESCRIPTOR_BYTES: usize = 256;

/// Hashes a content by SHA-256. The levels are put into the store, and what the kernel would measure (`FS_IOC_MEASURE_VERITY`)
/// comes back.
pub fn measure(content: &Content, contents: &ContentStore) -> Result<Verity> {
    measure_by::<Sha256>(content, contents)
}

/// Hashes a content by SHA-512, as bootc's composefs repositories do.
pub fn measure_sha512(content: &Content, contents: &ContentStore) -> Result<Verity> {
    measure_by::<Sha512>(content, contents)
}

fn measure_by<H: Hash>(content: &Content, contents: &ContentStore) -> Result<Verity> {
    let writers = level_blocks(content.size, H::SIZE)
        .into_iter()
        .map(|blocks| contents.writer(blocks * BLOCK as u64))
        .collect();
    let mut levels = Levels::<'_, H> { writers, open: Vec::new(), hash: PhantomData };
    let mut piece = vec![0; PIECE.min(content.size) as usize];
    let mut position = 0;
    while position < content.size {
        let count = PIECE.min(content.size - position) as usize;
        let piece = &mut piece[..count];
        contents.read_exact_at(content.id, position, piece).context("reading the spool")?;
        for block in piece.chunks(BLOCK) {
            levels.push(0, hash_block::<H>(block).as_ref()).context("writing to the spool")?;
        }
        position += count as u64;
    }
    let root_hash = levels.root().context("writing to the spool")?;
    let levels = levels.writers.into_iter().rev().map(ContentWriter::finish).collect::<Result<_>>();
    let digest = H::of(&descriptor(content.size, &root_hash), 0).as_ref().into();
    Ok(Verity { digest, root_hash, levels: levels.context("building a tree of hashes")? })
}

/// `struct fsverity_descriptor` of a file. The length of the hash says by what it was hashed.
pub fn descriptor(size: u64, root_hash: &[u8]) -> [u8; DESCRIPTOR_BYTES] {
    let mut descriptor = [0; DESCRIPTOR_BYTES];
    descriptor[0] = 1; // version
    // hash_algorithm: FS_VERITY_HASH_ALG_SHA256 or _SHA512
    descriptor[1] = if root_hash.len() == 32 { 1 } else { 2 };
    descriptor[2] = 12; // log_blocksize
    descriptor[8..16].copy_from_slice(&size.to_le_bytes());
    descriptor[16..16 + root_hash.len()].copy_from_slice(root_hash);
    descriptor
}

/// How many blocks each level has, from the hashes of data on.
fn level_blocks(size: u64, hash: usize) -> Vec<u64> {
    let hashes_per_block = (BLOCK / hash) as u64;
    let mut levels = Vec::new();
    let mut blocks = size.div_ceil(BLOCK as u64);
    while blocks > 1 {
        blocks = blocks.div_ceil(hashes_per_block);
        levels.push(blocks);
    }
    levels
}

/// The hash of a block; a short one counts as filled with zeros.
fn hash_block<H: Hash>(block: &[u8]) -> H::Output {
    H::of(block, BLOCK - block.len())
}

/// What blocks are hashed by.
trait Hash {
    /// The hash: so many bytes as [`Self::SIZE`] says.
    type Output: AsRef<[u8]>;
    /// Bytes of a hash.
    const SIZE: usize;

    /// The hash of bytes, and of zeros behind them.
    fn of(bytes: &[u8], zeros: usize) -> Self::Output;
}

impl Hash for Sha256 {
    type Output = [u8; 32];
    const SIZE: usize = 32;

    fn of(bytes: &[u8], zeros: usize) -> Self::Output {
        let mut hash = Self::new();
        hash.update(bytes);
        hash.update_zeros(zeros as u64);
        hash.finish()
    }
}

impl Hash for Sha512 {
    type Output = [u8; 64];
    const SIZE: usize = 64;

    fn of(bytes: &[u8], zeros: usize) -> Self::Output {
        const ZEROS: [u8; BLOCK] = [0; BLOCK];
        Self::new().chain_update(bytes).chain_update(&ZEROS[..zeros]).finalize().into()
    }
}

/// The tree while it grows.
struct Levels<'a, H> {
    writers: Vec<ContentWriter<'a>>,
    /// The hashes of each level that do not fill a block yet; the last level is the one of the root hash alone.
    open: Vec<Vec<u8>>,
    hash: PhantomData<H>,
}

impl<H: Hash> Levels<'_, H> {
    fn push(&mut self, level: usize, hash: &[u8]) -> io::Result<()> {
        if self.open.len() == level {
            self.open.push(Vec::with_capacity(BLOCK));
        }
        self.open[level].extend_from_slice(hash);
        if self.open[level].len() == BLOCK { self.close(level) } else { Ok(()) }
    }

    /// Ends a block, and tells the level above.
    fn close(&mut self, level: usize) -> io::Result<()> {
        let mut block = std::mem::take(&mut self.open[level]);
        block.resize(BLOCK, 0);
        self.writers[level].write_all(&block)?;
        let above = hash_block::<H>(&block);
        block.clear();
        self.open[level] = block;
        self.push(level + 1, above.as_ref())
    }

    /// Ends all blocks; the hash at the top, zero for an empty file.
    fn root(&mut self) -> io::Result<Box<[u8]>> {
        for level in 0..self.writers.len() {
            if !self.open[level].is_empty() {
                self.close(level)?;
            }
        }
        let top = self.open.get(self.writers.len()).filter(|hashes| !hashes.is_empty());
        Ok(top.map_or_else(|| vec![0; H::SIZE].into(), |hashes| hashes.as_slice().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, read literally: all levels in memory, one after the other; those that are stored, and the root hash.
    fn literal<H: Hash>(data: &[u8]) -> (Vec<Vec<u8>>, Box<[u8]>) {
        let mut levels = Vec::new();
        let mut level = data.to_vec();
        while level.len() > BLOCK {
            level = level
                .chunks(BLOCK)
                .flat_map(|block| hash_block::<H>(block).as_ref().to_vec())
                .collect();
            level.resize(level.len().next_multiple_of(BLOCK), 0);
            levels.insert(0, level.clone());
        }
        let root = if data.is_empty() {
            vec![0; H::SIZE].into()
        } else {
            hash_block::<H>(&level).as_ref().into()
        };
        (levels, root)
    }

    #[test]
    fn every_shape_of_the_hash_tree() {
        every_shape::<Sha256>();
        every_shape::<Sha512>();
    }

    fn every_shape<H: Hash>() {
        let store = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        for blocks in [0, 1, 2, 127, 128, 129, 255, 256, 257, 128 * 128, 128 * 128 + 1] {
            for extra in [0, 1, 4095] {
                let data: Vec<u8> =
                    (0..blocks * BLOCK + extra).map(|i| (i ^ (i >> 9)) as u8).collect();
                let content = store.insert_bytes(&data).unwrap();
                let verity = measure_by::<H>(&content, &store).unwrap();
                let (levels, root) = literal::<H>(&data);
                let stored: Vec<_> =
                    verity.levels.iter().map(|level| store.bytes(level).unwrap()).collect();
                assert!(stored == levels, "{blocks} blocks and {extra} bytes");
                assert_eq!(verity.root_hash, root, "{blocks} blocks and {extra} bytes");
            }
        }
    }
}
